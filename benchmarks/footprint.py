"""Footprint: what it costs to import run-task and to keep it running."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from functools import partial

from benchmarks.dispatch import drain
from benchmarks.measure import Figure, side_by_side
from benchmarks.question import Bound, Effort, Goal, Line, Question, Role, Section
from benchmarks.workload import Quote, tasks
from run_task import ContextBuilder, DataSet, Receiver, Runner, TaskInterval

IMPORT_GOAL = Goal(Bound.AT_MOST, 150)
NO_GROWTH = Goal(Bound.AT_MOST, 1)
"""Bytes a tick: less than the smallest object, of which a leak would leave one a tick or more."""


def _printed(script: str, compiled: str | None = None) -> str:
    """What a script prints.

    :param compiled: a folder for compiled modules, whatever the environment says of these; None: as
        that says
    """
    environment = dict(os.environ)
    if compiled is not None:
        environment["PYTHONPYCACHEPREFIX"] = compiled
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=True,
        text=True,
        env=environment,
    )
    return done.stdout


def import_ms(module: str) -> float:
    """Milliseconds to import a module in a fresh process, interpreter start not counted, nor what
    compiles it the first time."""
    script = f"import time; t = time.perf_counter(); import {module}; t -= time.perf_counter()"
    with tempfile.TemporaryDirectory() as compiled:
        _printed(f"import {module}", compiled)
        return -float(_printed(f"{script}; print(t)", compiled)) * 1e3


def imported() -> list[str]:
    """The packages, besides the standard library, that ``import run_task`` brings."""
    script = "import sys; a = set(sys.modules); import run_task; print(*set(sys.modules) - a)"
    names = {name.partition(".")[0] for name in _printed(script).split()}
    return sorted(names - sys.stdlib_module_names)


def _runner(count: int) -> tuple[Runner[Quote, float], Receiver[DataSet[float]]]:
    context, receiver, _ = (
        ContextBuilder(Quote).with_tasks(tasks(count)).with_interval(TaskInterval.micros(1)).build()
    )
    return Runner(context), receiver


def bytes_of_a_dataset(count: int) -> float:
    """Bytes that one DataSet of so many tasks keeps, while it waits to be received."""
    runner, receiver = _runner(count)
    tracemalloc.start()
    with runner:
        while len(receiver) < 50:
            time.sleep(0.001)
        held, before = len(receiver), tracemalloc.get_traced_memory()[0]
        receiver.close()  # what waits is let go, and the runner ends
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (before - after) / held


def growth(ticks: int, spans: int) -> list[float]:
    """Bytes by which the process's objects grow a tick of 8 tasks.

    :return: one figure for each span of so many ticks, all of one run
    """
    runner, receiver = _runner(8)
    consumer = threading.Thread(target=drain, args=(receiver,))
    tracemalloc.start()
    consumer.start()
    grown: list[float] = []
    with runner:
        reached, size = _lowest(runner, 5_000)  # the rings of the statistics are full by then
        for _ in range(spans):
            before, smaller = reached, size
            reached, size = _lowest(runner, before + ticks)
            grown.append((size - smaller) / (reached - before))
    consumer.join()
    tracemalloc.stop()
    return grown


def _lowest(runner: Runner[Quote, float], until: int) -> tuple[int, int]:
    """The ticks when so many had been, and the bytes that the objects took then.

    The channel fills and empties meanwhile: the lowest of some readings counts.
    """
    while (reached := runner.stats.ticks) < until:
        time.sleep(0.005)
    sizes: list[int] = []
    for _ in range(20):
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
        time.sleep(0.005)
    return reached, min(sizes)


def footprint(effort: Effort) -> Iterator[Question]:
    imports = {
        "import numpy": partial(import_ms, "numpy"),
        "import run_task": partial(import_ms, "run_task"),
    }
    times = side_by_side(imports, effort.repeats * 3)  # short, and easily disturbed
    others = ", ".join(name for name in imported() if name != "run_task")
    yield Question(
        f"Import: run_task brings {others}",
        [
            Line("import numpy", Role.FLOOR, "ms", Figure.of(times["import numpy"])),
            Line(
                "import run_task",
                Role.OURS,
                "ms",
                Figure.of(times["import run_task"]),
                goal=IMPORT_GOAL,
            ),
        ],
    )

    repeats = range(effort.repeats)
    one = [bytes_of_a_dataset(1) for _ in repeats]
    thousand = [bytes_of_a_dataset(1000) for _ in repeats]
    each = [(large - small) / 999 for large, small in zip(thousand, one)]
    ticks = int(effort.seconds * 250_000 / effort.repeats)
    grown = growth(ticks, effort.repeats)
    yield Question(
        "Memory, in bytes",
        [
            Line("a DataSet of 1 task that waits", Role.OURS, "B", Figure.of(one)),
            Line("each further task of it", Role.OURS, "B", Figure.of(each)),
            Line(
                f"growth a tick, over {effort.repeats} x {ticks:,} ticks",
                Role.OURS,
                "B",
                Figure.of(grown),
                goal=NO_GROWTH,
            ),
        ],
    )


SECTION = Section("footprint", footprint)
