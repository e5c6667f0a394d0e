"""The pictures of what came out, drawn from the file that keeps it."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from math import log10
from pathlib import Path
from typing import Any, Final

from benchmarks.dispatch import OURS
from benchmarks.question import Role

Lines = Mapping[str, Mapping[str, Any]]
"""What one question found, by name, as the file has it."""

_INK: Final = "#123456"
"""Stands for the colour of the reader's page in what matplotlib writes."""
_STYLE: Final = (
    "<style>svg{color:#24292f}@media(prefers-color-scheme:dark){svg{color:#e3e6ea}}</style>"
)
_BARE: Final = "#8a94a3"
_OUR: Final = "#4c82d8"
_APART: Final = 0.34
"""How far apart labels of lines are, at least, in powers of ten."""


def draw(results: Path, folder: Path) -> list[Path]:
    """Draw what a file of results has the figures for.

    :return: the pictures, as files of the folder
    :raises ImportError: if matplotlib is not installed
    """
    # Imported here and as Any: it has no types, and a run that draws nothing does not need it.
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {
            "svg.hashsalt": "run-task",  # the same figures give the same file
            "svg.fonttype": "none",
            "font.family": ["sans-serif"],
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": "medium",
            **dict.fromkeys(
                ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"),
                _INK,
            ),
        }
    )
    found = json.loads(results.read_text())
    questions: dict[str, Lines] = {
        question["title"]: {line["name"]: line for line in question["lines"]}
        for section in found["sections"].values()
        for question in section["questions"]
    }
    drawings = {
        "dispatch": _dispatch(questions, found["machine"]),
        "executors": _executors(questions, found["machine"]),
        "lateness": _lateness(questions),
    }
    drawn: list[Path] = []
    for name, figure in drawings.items():
        if figure is not None:
            drawn.append(folder / f"{name}.svg")
            _save(figure, drawn[-1])
    return drawn


def _save(figure: Any, path: Path) -> None:
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(path, transparent=True, metadata=nothing)
    importlib.import_module("matplotlib.pyplot").close(figure)
    # A page that is dark by its own button says so by color-scheme, which an image goes by, too.
    svg = path.read_text().replace(_INK, "currentColor").replace("<defs>", f"{_STYLE}<defs>", 1)
    path.write_text("\n".join(map(str.rstrip, svg.splitlines())) + "\n")


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(1, columns, figsize=(width, height), layout="constrained")
    return figure, axes


def _starting(questions: Mapping[str, Lines], start: str) -> Iterator[tuple[str, Lines]]:
    return ((title, lines) for title, lines in questions.items() if title.startswith(start))


def _dispatch(questions: Mapping[str, Lines], machine: str) -> Any:
    """Cost against the number of tasks."""
    costs: dict[str, dict[int, float]] = {}
    for title, lines in _starting(questions, "Dispatch: "):
        tasks = re.search(r"(\d+) trivial", title)
        assert tasks is not None
        for name, line in lines.items():
            if line["unit"] == "µs" and (line["role"] != Role.OURS or name == OURS):
                costs.setdefault(name, {})[int(tasks[1])] = line["figure"]["median"] / 1e6
    if not costs:
        return None
    ticker: Any = importlib.import_module("matplotlib.ticker")
    figure, axes = _figure(8, 4.6)
    placed = -99.0
    for name, medians in sorted(costs.items(), key=lambda item: list(item[1].values())[-1]):
        emphasis = {"lw": 3, "color": _INK, "zorder": 3} if name == OURS else {"lw": 1.3}
        (line,) = axes.plot(list(medians), list(medians.values()), marker="o", ms=4, **emphasis)
        last, cost = list(medians.items())[-1]
        placed = max(log10(cost), placed + _APART)
        weight = "bold" if name == OURS else "normal"
        axes.annotate(
            name,
            (last, cost),
            xytext=(last * 1.25, 10**placed),
            color=line.get_color(),
            weight=weight,
            va="center",
            annotation_clip=False,
        )
    axes.set(xscale="log", yscale="log", xlabel="trivial tasks")
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:.0f}"))
    axes.yaxis.set_major_locator(ticker.LogLocator(numticks=20))
    axes.yaxis.set_major_formatter(ticker.EngFormatter(unit="s"))
    axes.minorticks_off()
    axes.set_title(f"What a tick costs, when one follows on another ({machine})")
    axes.grid(alpha=0.3)
    return figure


def _executors(questions: Mapping[str, Lines], machine: str) -> Any:
    """What executors cost, and what they gain."""
    cheap = dict(_starting(questions, "Dispatch: µs a tick of 10 "))
    far = dict(_starting(questions, "Processes: µs a tick of 8 trivial"))
    even = dict(_starting(questions, "Parallel: ms a tick of 8 "))
    busy = dict(_starting(questions, "Processes: ms a tick of 8 pure-Python"))
    if not (cheap and far and even and busy):
        return None
    here, pipes, threads, python = (next(iter(d.values())) for d in (cheap, far, even, busy))
    bare = "gain of two bare processes: what the machine has to give"
    figure, (left, right) = _figure(8.6, 2.3, 2)
    _bars(
        left,
        [
            ("threads, 10 tasks", here[OURS], _OUR),
            ("inline, 10 tasks", here["run-task, inline"], _OUR),
            ("processes, 8 tasks", pipes["run-task, processes"], _OUR),
            ("two pipes, no tasks", pipes["two pipes"], _BARE),
        ],
        "µs",
    )
    left.set_title("Cheap tasks: what a tick costs")
    left.set_xscale("log")
    left.set_xlim(1, 4000)
    left.minorticks_off()
    left.xaxis.set_major_formatter("{x:.0f}")
    _bars(
        right,
        [
            ("threads, NumPy", threads["gain of threads over inline"], _OUR),
            ("processes, Python", python["gain of processes over inline"], _OUR),
            ("two bare processes", python[bare], _BARE),
        ],
        "x",
    )
    right.axvline(1, color=_INK, lw=0.8, ls="--")
    right.set_xlim(left=0)
    right.set_title(f"Costly tasks: gain ({machine})")
    return figure


def _lateness(questions: Mapping[str, Lines]) -> Any:
    """How late ticks begin."""
    found = [
        (re.sub(r".*intervals of ", "", title), lines)
        for title, lines in _starting(questions, "On time: how late 8 trivial tasks start")
        if "bare thread, p50" in lines
    ]
    if not found:
        return None
    figure, columns = _figure(8.6, 2.1, len(found))
    for axes, (interval, lines) in zip(columns, found):
        rows = [
            (f"{who}, {which}", lines[f"{who}, {which}"], _OUR if who == OURS else _BARE)
            for which in ("p50", "p99")
            for who in (OURS, "bare thread")
        ]
        _bars(axes, rows, "µs")
        axes.set_title(f"How late a tick begins, each {interval}")
        axes.set_xlim(left=0)
    return figure


def _bars(axes: Any, rows: Sequence[tuple[str, Mapping[str, Any], str]], unit: str) -> None:
    """Bars of medians from top to bottom, with their figures, and thin lines for the spread."""
    for place, (_, line, colour) in enumerate(rows):
        figure = line["figure"]
        low, median, high = figure["low"], figure["median"], figure["high"]
        axes.barh(place, median, color=colour, height=0.6)
        axes.plot([low, high], [place, place], color=_INK, lw=1)
        digits = 2 if unit == "x" else 1 if median < 10 else 0
        told = f"{median:.{digits}f} {unit}"
        axes.annotate(told, (high, place), xytext=(5, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.tick_params(left=False)
