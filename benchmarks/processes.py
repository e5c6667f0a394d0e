"""Processes: what costly ticks gain from worker processes, and what a cheap one costs."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks.apart import apart
from benchmarks.dispatch import saturated
from benchmarks.measure import Figure, Rounds, side_by_side
from benchmarks.question import (
    Bound,
    Effort,
    Goal,
    Line,
    Question,
    Role,
    Section,
    Skipped,
    compared,
)
from benchmarks.series import BATCH, filled
from benchmarks.workload import Quote
from run_task import (
    ContextBuilder,
    Runner,
    RunnerConfig,
    TaskInterval,
    TimeSeriesView,
    VirtualClock,
)

CORES = 2
TASKS = 8
MILLISECONDS = 6.0
PROCESSES = RunnerConfig(executor="processes", workers=CORES)
OURS = "run-task, processes"
INLINE = "inline"
BARE = "two bare processes"
PIPES = "two pipes"
SHORT = 0.2
"""Below so many seconds a figure is a look and not a result, and the large series is smaller."""


class Spin:
    """A task in pure Python, which keeps the GIL.

    :param number: tells it from the others
    :param turns: how long it spins
    """

    def __init__(self, number: int, turns: int) -> None:
        self.name = f"spin {number}"
        self.turns = turns

    def run(self, data: Quote, start: int, end: int) -> float:
        # Outside the loop, for it is the executors that are compared: an attribute of an object
        # that was unpickled takes CPython 3.11 twice as long as one of an object that was made.
        bid = data.bid
        total = 0.0
        for turn in range(self.turns):
            total += bid * turn
        return total


def turns(milliseconds: float) -> int:
    """How many turns take so long on this machine when nothing gets in their way."""
    sample = Spin(0, 10_000)
    best = float("inf")
    for _ in range(30):
        begun = time.perf_counter()
        sample.run(Quote(), 0, 1)
        best = min(best, time.perf_counter() - begun)
    return int(sample.turns * milliseconds / 1e3 / best)


def ticks_of(count: int, config: RunnerConfig, ticks: int) -> float:
    """The median tick of tasks that spin, in milliseconds."""
    context, receiver, _ = (
        ContextBuilder(Quote)
        .with_tasks([Spin(number, count) for number in range(TASKS)])
        .with_interval(TaskInterval.micros(1))
        .with_config(config)
        .build()
    )
    runner = Runner(context)
    with runner:
        for _ in range(ticks):
            receiver.recv()
    return runner.stats.duration.p50 * 1e3


Tick = Callable[[int], object]
"""Runs eight tasks that spin so many turns, and waits for their results."""


@contextlib.contextmanager
def pool() -> Generator[Tick]:
    """concurrent.futures: one future a task."""
    with ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn")) as executor:

        def tick(count: int) -> object:
            data = Quote()
            work = [Spin(number, count) for number in range(TASKS)]
            futures = {task.name: executor.submit(task.run, data, 0, 1) for task in work}
            return {name: future.result() for name, future in futures.items()}

        yield tick


@contextlib.contextmanager
def dask() -> Generator[Tick]:
    """Dask: one future a task, a worker process for each core."""
    distributed: Any = importlib.import_module("distributed")
    with distributed.Client(
        processes=True, n_workers=CORES, threads_per_worker=1, dashboard_address=None
    ) as client:

        def tick(count: int) -> object:
            data = Quote()
            work = [Spin(number, count) for number in range(TASKS)]
            return client.gather([client.submit(t.run, data, 0, 1, pure=False) for t in work])

        yield tick


@contextlib.contextmanager
def ray() -> Generator[Tick]:
    """Ray: one remote call a task."""
    cluster: Any = importlib.import_module("ray")
    cluster.init(
        num_cpus=CORES, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    data = cluster.put(Quote())

    def call(task: Spin, quote: Quote) -> float:
        return task.run(quote, 0, 1)

    remote = cluster.remote(call)

    def tick(count: int) -> object:
        work = [Spin(number, count) for number in range(TASKS)]
        return cluster.get([remote.remote(task, data) for task in work])

    yield tick
    cluster.shutdown()


PEERS: dict[str, Callable[[], AbstractContextManager[Tick]]] = {
    "ProcessPoolExecutor": pool,
    "Dask": dask,
    "Ray": ray,
}


def measured(name: str, repeats: int, seconds: float) -> Rounds:
    """Milliseconds a tick of a runner inline and of a peer."""
    rounds: Rounds = {INLINE: [], name: []}
    ticks = _ticks(seconds)
    with PEERS[name]() as tick:
        tick(1)  # to warm up
        for _ in range(repeats):
            count = turns(MILLISECONDS)
            rounds[INLINE].append(ticks_of(count, RunnerConfig(executor="inline"), ticks))
            begun = time.perf_counter()
            for _ in range(ticks):
                tick(count)
            rounds[name].append((time.perf_counter() - begun) / ticks * 1e3)
    return rounds


def _ticks(seconds: float) -> int:
    return max(3, int(seconds * 60))


def costly(effort: Effort) -> Iterator[Question | Skipped]:
    """What eight tasks of six milliseconds gain."""
    beside: list[Line] = []
    for name in PEERS:
        if name not in effort.peers:
            continue
        theirs = apart(name, measured, name, -(-effort.repeats // 2), effort.seconds)
        if isinstance(theirs, Skipped):
            yield theirs
            continue
        gain = Figure.of_ratios(theirs[INLINE], theirs[name])
        beside += compared(theirs, "ms", Role.PEER)[1:]
        beside.append(Line(f"gain of {name} over inline", Role.PEER, "x", gain))
    rounds: Rounds = {INLINE: [], BARE: [], OURS: []}
    ticks = _ticks(effort.seconds)
    with connected(halves) as ends:
        for _ in range(effort.repeats):
            count = turns(MILLISECONDS)
            rounds[INLINE].append(ticks_of(count, RunnerConfig(executor="inline"), ticks))
            rounds[BARE].append(_bare(ends, count, ticks))
            rounds[OURS].append(ticks_of(count, PROCESSES, ticks))
    gain = Figure.of_ratios(rounds[INLINE], rounds[OURS])
    best = Figure.of_ratios(rounds[INLINE], rounds[BARE])
    yield Question(
        f"Processes: ms a tick of {TASKS} pure-Python tasks of {MILLISECONDS:g} ms",
        [
            *compared(rounds, "ms"),
            Line(
                "gain of processes over inline",
                Role.OURS,
                "x",
                gain,
                goal=Goal(Bound.AT_LEAST, 1.7),
            ),
            # Two processors of one core give less than two cores do, and tell nobody.
            Line("gain of two bare processes: what the machine has to give", Role.FLOOR, "x", best),
            *beside,
        ],
    )


def echo(pipe: Connection) -> None:
    """Send back what comes, until nobody is there."""
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(pipe.recv())


def halves(pipe: Connection) -> None:
    """Run half of the tasks that spin, so many turns as comes, until nobody is there."""
    with contextlib.suppress(EOFError):
        while True:
            count = pipe.recv()
            work = [Spin(number, count) for number in range(TASKS // CORES)]
            pipe.send([task.run(Quote(), 0, 1) for task in work])


def _bare(ends: list[Connection], count: int, ticks: int) -> float:
    """The median tick of two bare processes that have half of the tasks each, in milliseconds."""
    took: list[float] = []
    for _ in range(ticks):
        begun = time.perf_counter()
        for end in ends:
            end.send(count)
        for end in ends:
            end.recv()
        took.append(time.perf_counter() - begun)
    return float(np.median(took)) * 1e3


@contextlib.contextmanager
def connected(serve: Callable[[Connection], None]) -> Generator[list[Connection]]:
    """A process for each core that serves the end of a pipe: gives the other ends."""
    context = multiprocessing.get_context("spawn")
    ends: list[Connection] = []
    processes: list[Any] = []
    for _ in range(CORES):
        ours, theirs = context.Pipe()
        processes.append(process := context.Process(target=serve, args=(theirs,)))
        process.start()
        theirs.close()
        ends.append(ours)
    yield ends
    for end, process in zip(ends, processes):
        end.close()
        process.join()


@contextlib.contextmanager
def pipes() -> Generator[Callable[[float], float]]:
    """Two processes at the end of a pipe each: gives a function that measures round trips."""

    def measure(seconds: float) -> float:
        ticks, begun = 0, time.perf_counter()
        while (took := time.perf_counter() - begun) < seconds:
            for end in ends:
                end.send((1_000, ticks, ticks + 1))
            for end in ends:
                end.recv()
            ticks += 1
        return took / ticks * 1e6

    with connected(echo) as ends:
        measure(0.05)  # until they have started
        yield measure


def cheap(effort: Effort) -> Iterator[Question]:
    """What a tick of trivial tasks costs, over the least that it can: a message to and fro."""
    with pipes() as round_trip:
        measures: dict[str, Callable[[], float]] = {
            PIPES: partial(round_trip, effort.seconds),
            OURS: partial(saturated, TASKS, effort.seconds, PROCESSES),
        }
        rounds = side_by_side(measures, effort.repeats)
    yield Question(
        f"Processes: µs a tick of {TASKS} trivial tasks",
        compared(rounds, "µs", goals={OURS: Goal(Bound.AT_MOST, 3)}),
    )


class Tail:
    """A task that reads the last 100 rows of a series."""

    def __init__(self, number: int) -> None:
        self.name = f"tail {number}"

    def run(self, view: TimeSeriesView, start: int, end: int) -> float:
        return float(view["bid"][-100:].sum())


@contextlib.contextmanager
def grown(rows: int) -> Generator[Callable[[int], float]]:
    """A runner over a series of so many rows: gives a function that lets it grow by 1000 rows a
    tick, for so many ticks, and returns the median tick in microseconds."""
    series = filled(rows)
    context, receiver, _ = (
        ContextBuilder(series)
        .with_tasks([Tail(number) for number in range(TASKS)])
        .with_interval("1s")
        .with_config(PROCESSES)
        .build()
    )
    clock = VirtualClock()
    ones = np.ones(BATCH)
    sizes = np.ones(BATCH, int)

    def measure(ticks: int) -> float:
        nonlocal rows
        took: list[float] = []
        for _ in range(ticks):
            series.extend(np.arange(rows, rows + BATCH), bid=ones, ask=ones, size=sizes)
            rows += BATCH
            clock.advance("1s")
            dataset = receiver.recv()
            assert not dataset.errors
            took.append(dataset.took)
        return float(np.median(took)) * 1e6

    with Runner(context, clock=clock):
        measure(3)
        yield measure


def growing(effort: Effort) -> Iterator[Question]:
    """What a tick over a series costs that grows meanwhile, in memory that workers map."""
    ticks = max(20, int(effort.seconds * 500))
    few, many = 10_000, 10_000_000 if effort.seconds > SHORT else 1_000_000
    rounds: Rounds = {PIPES: [], f"{few:,} rows": [], f"{many:,} rows": []}
    with pipes() as round_trip, grown(few) as small, grown(many) as large:
        for _ in range(effort.repeats):
            for values, value in zip(
                rounds.values(), (round_trip(effort.seconds), small(ticks), large(ticks))
            ):
                values.append(value)
    _, a_few, a_lot = rounds
    limit = Goal(Bound.AT_MOST, 3)
    yield Question(
        f"Processes: µs a tick of {TASKS} tasks over a series that grows by {BATCH} rows a tick",
        [
            *compared(rounds, "µs", goals={a_few: limit, a_lot: limit}),
            Line(
                f"{a_lot} over {a_few}",
                Role.OURS,
                "x",
                Figure.of_ratios(rounds[a_lot], rounds[a_few]),
                goal=Goal(Bound.AT_MOST, 1.3),
            ),
        ],
    )


def processes(effort: Effort) -> Iterator[Question | Skipped]:
    yield from costly(effort)
    yield from cheap(effort)
    yield from growing(effort)


SECTION = Section("processes", processes, tuple(PEERS))
