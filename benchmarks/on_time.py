"""On time: how late ticks are, and what it costs to wait for them."""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from collections.abc import Iterator
from enum import Enum, auto

import numpy as np

from benchmarks.measure import Figure, Rounds
from benchmarks.question import Bound, Effort, Goal, Line, Question, Role, Section, compared
from benchmarks.workload import Quote, tasks
from run_task import ContextBuilder, Runner, TaskInterval

AS_A_BARE_THREAD = Goal(Bound.AT_MOST, 1.5)
NONE = Goal(Bound.AT_MOST, 0)
IDLE = Goal(Bound.AT_MOST, 0.5)


class Program(Enum):
    """What an asyncio program does with its event loop while a runner is at work."""

    POLITE = auto()
    BLOCKING = auto()
    """It blocks the loop for 300 ms again and again, as a user's code may by mistake."""


class Punctual:
    """A task that notes how late it starts: the first of its tick."""

    name = "first"

    def __init__(self, interval_us: int) -> None:
        self.interval = interval_us
        self._late: list[float] = []
        self._ends: list[int] = []

    def run(self, data: Quote, start: int, end: int) -> None:
        self._late.append(time.time_ns() / 1e3 - end)
        self._ends.append(end)

    @property
    def late(self) -> list[float]:
        """Microseconds past the window's end, window by window, without the first one, in which
        everything is done for the first time."""
        return self._late[1:]

    @property
    def missed(self) -> int:
        """How many windows between the first and the last there should have been, too."""
        return (self._ends[-1] - self._ends[0]) // self.interval + 1 - len(self._ends)

    @property
    def overdue(self) -> int:
        """How many windows came more than an interval late."""
        return sum(late > self.interval for late in self.late)


def lateness_of_a_bare_thread(interval_us: int, seconds: float) -> list[float]:
    """Microseconds past the grid at which a thread wakes that does nothing but sleep to it."""
    late: list[float] = []

    def sleep() -> None:
        period = interval_us * 1000
        due = (time.time_ns() // period + 1) * period
        until = time.perf_counter() + seconds
        while not late or time.perf_counter() < until:
            time.sleep(max(0, due - time.time_ns()) / 1e9)
            late.append((time.time_ns() - due) / 1e3)
            due += period

    thread = threading.Thread(target=sleep)
    thread.start()
    thread.join()
    return late


def watch(interval_us: int, seconds: float, behaviour: Program = Program.POLITE) -> Punctual:
    """Run 8 trivial tasks for a while, the first of which notes when it starts."""
    first = Punctual(interval_us)
    context, receiver, _ = (
        ContextBuilder(Quote)
        .with_task(first)
        .with_tasks(tasks(7))
        .with_interval(TaskInterval.micros(interval_us))
        .build()
    )

    async def program() -> None:
        async with Runner(context):
            deadline = time.perf_counter() + seconds
            while time.perf_counter() < deadline or not first.late:
                if behaviour is Program.BLOCKING:
                    time.sleep(0.3)  # noqa: ASYNC251  # that is the point
                while receiver.try_recv() is not None:
                    pass
                await asyncio.sleep(0.01)

    asyncio.run(program())
    return first


def idle_cpu(seconds: float) -> float:
    """Percent of a core that a runner of 8 trivial tasks takes at intervals of a second."""
    context, _, _ = (
        ContextBuilder(Quote).with_tasks(tasks(8)).with_interval(TaskInterval.seconds(1)).build()
    )
    with Runner(context):
        time.sleep(0.2)
        before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        time.sleep(seconds)
        after, took = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - begun
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used / took * 100


def _beside_a_bare_thread(interval_us: int, seconds: float, repeats: int) -> list[Line]:
    percentiles = (50, 99)
    rounds: list[Rounds] = [
        {f"bare thread, p{percent}": [], f"run-task, p{percent}": []} for percent in percentiles
    ]
    for _ in range(repeats):
        bare = lateness_of_a_bare_thread(interval_us, seconds)
        ours = watch(interval_us, seconds).late
        for percent, both in zip(percentiles, rounds):
            for values, late in zip(both.values(), (bare, ours)):
                values.append(float(np.percentile(late, percent)))
    return [
        line
        for percent, both in zip(percentiles, rounds)
        for line in compared(both, "µs", goals={f"run-task, p{percent}": AS_A_BARE_THREAD})
    ]


def _ours(name: str, unit: str, values: list[float], goal: Goal | None = None) -> Line:
    return Line(name, Role.OURS, unit, Figure.of(values), goal=goal)


def on_time(effort: Effort) -> Iterator[Question]:
    title = "On time: how late 8 trivial tasks start, at intervals of"
    seconds = effort.seconds * 2.5
    for interval, longer in ((10_000, 2), (1_000, 1)):  # p99 wants a few hundred windows
        yield Question(
            f"{title} {interval // 1000} ms",
            _beside_a_bare_thread(interval, seconds * longer, effort.repeats),
        )

    runs = [watch(200, seconds) for _ in range(effort.repeats)]
    yield Question(
        f"{title} 200 µs",
        [
            *(
                _ours(
                    f"p{percent}", "µs", [float(np.percentile(run.late, percent)) for run in runs]
                )
                for percent in (50, 99)
            ),
            _ours("windows missed", "", [run.missed for run in runs], NONE),
            _ours(
                "windows more than an interval late",
                "%",
                [run.overdue / len(run.late) * 100 for run in runs],
            ),
        ],
    )

    runs = [watch(10_000, seconds, Program.BLOCKING) for _ in range(effort.repeats)]
    yield Question(
        "On time: 10 ms intervals, event loop blocked for 300 ms at a time",
        [
            _ours("the latest one", "µs", [max(run.late) for run in runs]),
            _ours("windows missed", "", [run.missed for run in runs], NONE),
            _ours("windows more than an interval late", "", [run.overdue for run in runs], NONE),
        ],
    )

    idle = [idle_cpu(max(seconds * 2, 1.0)) for _ in range(effort.repeats)]
    yield Question(
        "Idle: 8 trivial tasks at intervals of 1 s", [_ours("of a core", "%", idle, IDLE)]
    )


SECTION = Section("on_time", on_time)
