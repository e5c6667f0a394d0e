"""Run every benchmark: ``make bench``, or ``make bench QUICK=1``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import footprint, ontime, peers
from benchmarks.measure import Figure, side_by_side
from benchmarks.workload import floor, saturated

COUNTS = (1, 10, 100, 1000)
GOALS = {1: 12.0, 10: 4.5, 100: 2.2, 1000: 1.6}
RESULTS = Path(__file__).parent / "results"

console = Console(width=100)
Report = dict[str, Any]


def dispatch(repeats: int, seconds: float) -> Report:
    """Saturated ticks of N trivial tasks."""
    report: Report = {}
    skipped = {name for name in peers.PEERS if peers.missing(name)}
    for name in skipped:
        console.print(f"{name}: skipped, it is not installed here")
    measured: dict[int, tuple[dict[str, Figure], dict[str, Figure]]] = {}
    for count in COUNTS:
        ours: dict[str, Callable[[], float]] = {
            "plain loop": partial(floor, count, seconds),
            "run-task": partial(saturated, count, seconds),
            "run-task, task_timeout": partial(saturated, count, seconds, task_timeout=1.0),
            "run-task, inline": partial(saturated, count, seconds, executor="inline"),
        }
        measured[count] = side_by_side(ours, repeats)
    # The peers come after: their threads and objects stay in the process and slow what follows.
    for count in COUNTS:
        theirs: dict[str, Callable[[], float]] = {"plain loop": partial(floor, count, seconds)}
        for name, (_, measure) in peers.PEERS.items():
            if name not in skipped:
                theirs[name] = partial(measure, count, seconds)
        more, more_ratios = side_by_side(theirs, max(1, repeats // 3))
        figures = {**more, **measured[count][0]}
        ratios = {**more_ratios, **measured[count][1]}
        table = Table(title=f"Dispatch: µs a tick of {count} trivial tasks", title_justify="left")
        for column in ("system", "µs a tick", "x plain loop", "goal"):
            table.add_column(column, justify="left" if column == "system" else "right")
        for name in (*measured[count][0], *(name for name in theirs if name != "plain loop")):
            goal = f"≤ {GOALS[count]:g}" if name == "run-task" else ""
            table.add_row(name, str(figures[name]), str(ratios[name]), goal)
        console.print(table)
        report[str(count)] = {
            name: {"us": vars(figures[name]), "ratio": vars(ratios[name])} for name in figures
        }
    return report


def on_time(repeats: int, seconds: float) -> Report:
    """Lateness of ticks beside a bare thread that sleeps to the same grid."""
    table = Table(title="On time: µs past the grid, 8 trivial tasks", title_justify="left")
    for column in ("interval", "bare thread p50 / p99", "run-task p50 / p99", "ratio", "goal"):
        table.add_column(column, justify="right")
    report: Report = {}
    for interval in (10_000, 1_000):
        bare, ours = [], []
        for _ in range(repeats):
            late = ontime.lateness_of_a_bare_thread(interval, seconds)
            bare.append(np.percentile(late, (50, 99)))
            late, _ = ontime.lateness_of_a_runner(interval, seconds)
            ours.append(np.percentile(late, (50, 99)))
        bare50, bare99 = np.median(bare, axis=0)
        ours50, ours99 = np.median(ours, axis=0)
        table.add_row(
            f"{interval / 1000:g} ms",
            f"{bare50:.0f} / {bare99:.0f}",
            f"{ours50:.0f} / {ours99:.0f}",
            f"{ours50 / bare50:.2f} / {ours99 / bare99:.2f}",
            "≤ 1.5",
        )
        report[f"{interval} us"] = {
            "bare": [float(bare50), float(bare99)],
            "run-task": [float(ours50), float(ours99)],
        }
    console.print(table)
    late, over = ontime.lateness_of_a_runner(200, seconds)
    console.print(
        f"200 µs: {len(late)} windows, {over} more than an interval late, "
        f"p50 {np.percentile(late, 50):.0f} µs, p99 {np.percentile(late, 99):.0f} µs"
    )
    late, over = ontime.lateness_of_a_runner(10_000, max(seconds, 1.0), blocked=True)
    console.print(
        f"event loop blocked for 300 ms again and again: {len(late)} windows of 10 ms, "
        f"{over} more than an interval late, worst {late.max():.0f} µs"
    )
    idle = ontime.idle_cpu(max(seconds * 2, 3.0))
    console.print(f"idle at 1 s intervals: {idle:.2f} % of a core (goal: under 0.5)")
    report["idle_percent"] = idle
    report["blocked_loop"] = {"windows": len(late), "late": over, "worst_us": float(late.max())}
    return report


def parallel(repeats: int, ticks: int) -> Report:
    """Dear ticks on every core."""
    report: Report = {}
    table = Table(title="Parallel: ms a tick", title_justify="left")
    for column in ("tasks", "inline", "threads", "gain", "best on 2 cores", "goal"):
        table.add_column(column, justify="right")
    for name, costs, goal in (
        ("8 of 5 ms", [5.0] * 8, "gain ≥ 1.8"),
        ("1 of 20 ms, 63 of 0.5 ms", [20.0] + [0.5] * 63, "within 15 % of the best"),
    ):
        inline, threads, best = [], [], []
        for _ in range(repeats):
            took, least = ontime.ticks_of(costs, "inline", ticks)
            inline.append(took)
            best.append(least)
            threads.append(ontime.ticks_of(costs, "threads", ticks)[0])
        gain = Figure.of([one / two for one, two in zip(inline, threads)])
        over = Figure.of([one / two for one, two in zip(threads, best)])
        figures = [Figure.of(values) for values in (inline, threads, best)]
        table.add_row(name, *map(str, figures[:2]), str(gain), f"{figures[2]}, x {over}", goal)
        report[name] = {
            "inline_ms": vars(figures[0]),
            "threads_ms": vars(figures[1]),
            "gain": vars(gain),
            "over_best": vars(over),
        }
    console.print(table)
    return report


def cost(repeats: int, ticks: int) -> Report:
    """Import, memory and growth."""
    imports = Figure.of([footprint.import_ms("run_task") for _ in range(repeats * 3)])
    numpy = Figure.of([footprint.import_ms("numpy") for _ in range(repeats * 3)])
    one, thousand = footprint.bytes_of_a_dataset(1), footprint.bytes_of_a_dataset(1000)
    grown = footprint.growth_kib(ticks)
    table = Table(title="What it costs", title_justify="left")
    table.add_column("what")
    table.add_column("figure", justify="right")
    table.add_row("import run_task, ms (goal: under 150)", str(imports))
    table.add_row("of which numpy, ms", str(numpy))
    table.add_row("packages that it imports", ", ".join(footprint.imported()))
    table.add_row("bytes a tick, 1 task", f"{one:,.0f}")
    table.add_row("bytes a task, of 1000", f"{(thousand - one) / 999:,.0f}")
    table.add_row(f"growth over {ticks:,} ticks, KiB (goal: none)", f"{grown:,.1f}")
    console.print(table)
    return {
        "import_ms": vars(imports),
        "bytes_a_tick": one,
        "bytes_a_task": (thousand - one) / 999,
        "growth_kib": grown,
        "growth_ticks": ticks,
    }


def draw(report: Report, path: Path) -> None:
    """Cost against the number of tasks."""
    if importlib.util.find_spec("matplotlib") is None:
        console.print("matplotlib is not installed: no picture is drawn")
        return
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    names = [name for name in report["1"] if "," not in name]
    for name in names:
        counts = [count for count in COUNTS if name in report[str(count)]]
        medians = [report[str(count)][name]["us"]["median"] for count in counts]
        ours = name == "run-task"
        style = "--" if name == "plain loop" else "-"
        axes.plot(counts, medians, style, marker="o", lw=3 if ours else 1.3, label=name)
    axes.set(xscale="log", yscale="log", xlabel="trivial tasks", ylabel="µs a tick")
    axes.set_title("What a tick costs, saturated, on 2 cores")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize="small")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure run-task beside a bare loop and peers.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repeats")
    quick: bool = parser.parse_args().quick
    repeats, seconds = (1, 0.15) if quick else (5, 0.4)
    report: Report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.python_version()}",
        "quick": quick,
        "cost": cost(repeats, 20_000 if quick else 100_000),
        "on_time": on_time(repeats, 0.5 if quick else 2.0),
        "parallel": parallel(repeats, 10 if quick else 40),
        "dispatch": dispatch(repeats, seconds),
    }
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "latest.json").write_text(json.dumps(report, indent=1) + "\n")
        draw(report["dispatch"], RESULTS / "dispatch.svg")


if __name__ == "__main__":
    main()
