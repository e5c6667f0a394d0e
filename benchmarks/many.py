"""Many: what a hundred analytics in one program cost, and how late they are.

The floor is an asyncio program that does the same: a coroutine each, which sleeps to its next time
on the grid, computes over the rows of its window, and hands the result on.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeAlias

import numpy as np

from benchmarks.measure import Rounds
from benchmarks.question import Bound, Effort, Goal, Question, Section, compared
from run_task import (
    ContextBuilder,
    Pipeline,
    Runner,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
)
from run_task.sinks import CallbackSink

COUNT = 100
PERIOD = TaskInterval.millis(100)
ROWS = 10_000
AS_ASYNCIO = Goal(Bound.AT_MOST, 1.5)
FLOOR, RUNNERS, STAGES = "asyncio", f"{COUNT} runners", f"{COUNT} stages"


def series() -> TimeSeries:
    """Rows of the past, one a millisecond."""
    made = TimeSeries({"value": float}, TimeUnit.MILLIS)
    now = time.time_ns() // 1_000_000
    made.extend(np.arange(now - ROWS, now), value=np.arange(ROWS, dtype=float))
    return made


class Analytic:
    """The latest value, and how late it was asked for."""

    def __init__(self, number: int, late: list[float]) -> None:
        self.name = f"latest {number}"
        self._late = late

    def run(self, view: TimeSeriesView, start: int, end: int) -> float:
        self._late.append(time.time_ns() / 1e3 - end * 1e3)
        return float(view["value"][-1])


@contextlib.contextmanager
def of_asyncio(late: list[float]) -> Generator[None]:
    data, results = series(), list[float]()
    period_ns = PERIOD.nanos

    async def analyse(analytic: Analytic) -> None:
        due = (time.time_ns() // period_ns + 1) * period_ns
        while not over.is_set():
            await asyncio.sleep(max(0, due - time.time_ns()) / 1e9)
            end = due // 1_000_000
            with data.read() as view:
                results.append(analytic.run(view, end - PERIOD.count, end))
            due += period_ns

    async def program() -> None:
        await asyncio.gather(*(analyse(Analytic(number, late)) for number in range(COUNT)))

    over = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(program()))
    thread.start()
    yield
    over.set()
    thread.join()


@contextlib.contextmanager
def of_runners(late: list[float]) -> Generator[None]:
    data = series()
    with contextlib.ExitStack() as running:
        for number in range(COUNT):
            context, _, _ = (
                ContextBuilder(data).with_task(Analytic(number, late)).with_interval(PERIOD).build()
            )
            running.enter_context(Runner(context))
        yield


@contextlib.contextmanager
def of_stages(late: list[float]) -> Generator[None]:
    data, results = series(), list[float]()
    pipeline = Pipeline("many")
    sink = CallbackSink(lambda stage, dataset: results.extend(dataset.values()))
    for number in range(COUNT):
        pipeline.stage(f"s{number}", [Analytic(number, late)], data, PERIOD).sink(sink)
    with pipeline:
        yield


Program: TypeAlias = Callable[[list[float]], contextlib.AbstractContextManager[None]]


def measured(program: Program, seconds: float) -> tuple[float, float]:
    """The 99th percentile of lateness in µs, and the percent of a core, of a program at work."""
    late: list[float] = []
    with program(late):
        time.sleep(0.5)  # what is done for the first time
        late.clear()
        before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        time.sleep(seconds)
        after, took = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - begun
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return float(np.percentile(late, 99)), used / took * 100


def many(effort: Effort) -> Iterator[Question]:
    programs: dict[str, Program] = {FLOOR: of_asyncio, RUNNERS: of_runners, STAGES: of_stages}
    late: Rounds = {name: [] for name in programs}
    core: Rounds = {name: [] for name in programs}
    for _ in range(effort.repeats):
        for name, program in programs.items():
            p99, used = measured(program, max(effort.seconds * 6, 1.0))
            late[name].append(p99)
            core[name].append(used)
    goals = {RUNNERS: AS_ASYNCIO, STAGES: AS_ASYNCIO}
    title = f"Many: {COUNT} analytics at intervals of {PERIOD.count} ms"
    yield Question(f"{title}, p99 of lateness", compared(late, "µs", goals=goals))
    yield Question(f"{title}, of a core", compared(core, "%", goals=goals))


SECTION = Section("many", many)
