"""Cluster: what a tick over shards costs beyond bare calls, and what shards gain."""

from __future__ import annotations

import importlib
import multiprocessing
import pickle
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np
from tests.support.ray_nodes import add_node, nodes

from benchmarks.apart import apart
from benchmarks.measure import Figure, Rounds
from benchmarks.question import Bound, Effort, Goal, Line, Question, Role, Section, Skipped
from run_task import (
    RunnerConfig,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    aggregates,
    task,
)
from run_task.aggregates import count, last, mean, std
from run_task.cluster._cluster import Cluster
from run_task.cluster._executor import ShardsExecutor
from run_task.cluster._link import MissedSigns, ShardPlace, Transport
from run_task.cluster._messages import ShardReply, ShardRequest
from run_task.cluster._shard import KeyShard, versions
from run_task.cluster._transports import transport_for
from run_task.executors._states import States
from run_task.runner._keys import Keys, bound_of, crew_of
from run_task.tasks._tick import Tick

FIVE: Final = [count(), mean("value"), std("value"), aggregates.max("value"), last("value")]
SHORT: Final = 0.2
"""Below so many seconds a figure is a look and no result, and there are fewer shards and rows."""
RAY: Final = "Ray"
SECOND: Final = 60
"""How long a window is."""


class Windows:
    """Windows over a series with keys, one after another.

    :param shards: how many shards there are; 0: none, all is done here
    :param transport: where they run
    :param keys: how many keys there are, each of which has a row in each window
    :param rows: how many rows a window has
    :param tasks: what is run
    """

    def __init__(
        self,
        shards: int,
        transport: Transport | None,
        keys: int,
        rows: int,
        tasks: Sequence[Any] = FIVE,
    ) -> None:
        kinds = {"key": int, "value": float}
        self._series = TimeSeries(kinds, TimeUnit.SECONDS, "60s", key="key")
        random = np.random.default_rng(1)
        self._keys = np.concatenate([np.arange(keys), random.integers(0, keys, rows - keys)])
        self._values = random.random(rows)
        self._times = np.sort(random.integers(0, SECOND, rows))
        by, config, states = Keys.checked("key", "1h", 10 * keys), RunnerConfig(), States()
        every = TaskInterval.seconds(SECOND)
        self.cluster: Cluster | None = None
        if shards:
            assert transport is not None
            self.cluster = Cluster("bench", transport, shards)
            self.cluster.start()
            executor = ShardsExecutor(self.cluster, RunnerConfig(workers=1))
            config = RunnerConfig(executor=executor, upstream_timeout=60)
        self._crew = crew_of(tasks, self._series, every, config, by, states)
        self._crew.open()
        self._bound = bound_of(self._series, every, config, by, states)
        self._number = 0

    def run(self) -> float:
        """Let the rows of the next window come, and run it. Returns how many seconds that took,
        after the rows were in the series."""
        start = self._number * SECOND
        self._number += 1
        self._series.extend(self._times + start, key=self._keys, value=self._values)
        assert self._bound is not None
        begun = time.perf_counter()
        view = self._bound(self._series.view(), start, start + SECOND)
        dataset = self._crew.run(Tick(view, start, start + SECOND))
        took = time.perf_counter() - begun
        assert not dataset.errors
        assert not dataset.behind
        return took

    def close(self) -> None:
        self._crew.close(5.0)
        if self.cluster is not None:
            self.cluster.close()


# A tick beside bare calls


class _Sizes:
    """A transport that notes how large the last messages were."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.asked = self.answered = 0

    def open(self, is_unwanted: Callable[[], bool]) -> bool:
        return self._inner.open(is_unwanted)

    def start(self, number: int, given_up: threading.Event) -> Any:
        link = self._inner.start(number, given_up)
        call = link.call

        def noting(request: ShardRequest) -> Future[ShardReply]:
            future = call(request)
            self.asked = len(pickle.dumps(request, 5))
            self.answered = len(pickle.dumps(future.result(), 5))
            return future

        noted: Any = link
        noted.call = noting
        return noted

    def close(self) -> None:
        self._inner.close()


def sizes(address: str | None, shards: int, keys: int, rows: int) -> tuple[int, int]:
    """How many bytes go to a shard for a window, and come back."""
    transport = _Sizes(transport_for(address))
    with closing(Windows(shards, transport, keys, rows, [count()])) as measured:
        for _ in range(3):
            measured.run()
    return transport.asked, transport.answered


def _echo(pipe: Connection, size: int) -> None:
    answer = bytes(size)
    while True:
        try:
            pipe.recv_bytes()
        except EOFError:
            return
        pipe.send_bytes(answer)


@contextmanager
def bare_processes(shards: int, asked: int, answered: int) -> Generator[Callable[[], float]]:
    """A message of so many bytes to each of some processes, and one back."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes: list[Any] = []
    for _ in range(shards):
        ours, theirs = context.Pipe()
        process = context.Process(target=_echo, args=(theirs, answered), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    message = bytes(asked)

    def once() -> float:
        begun = time.perf_counter()
        for pipe in pipes:
            pipe.send_bytes(message)
        for pipe in pipes:
            pipe.recv_bytes()
        return time.perf_counter() - begun

    try:
        yield once
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join()


class _Echo:
    def __init__(self, size: int) -> None:
        self._answer = bytes(size)

    def call(self, message: bytes) -> bytes:
        return self._answer


@contextmanager
def bare_actors(shards: int, asked: int, answered: int) -> Generator[Callable[[], float]]:
    """A call of each of some actors of Ray, with so many bytes there and back."""
    ray: Any = importlib.import_module("ray")
    made = ray.remote(_Echo).options(num_cpus=0)
    actors = [made.remote(answered) for _ in range(shards)]
    message = bytes(asked)

    def once() -> float:
        begun = time.perf_counter()
        ray.get([actor.call.remote(message) for actor in actors])
        return time.perf_counter() - begun

    once()
    try:
        yield once
    finally:
        for actor in actors:
            ray.kill(actor)


def ticks(
    address: str | None, shards: int, keys: int, rows: int, repeats: int, times: int
) -> Rounds:
    """Milliseconds of a tick, and of bare calls with as many bytes, in the same moments."""
    asked, answered = sizes(address, shards, keys, rows)
    bare = bare_processes if address is None else bare_actors
    rounds: Rounds = {"bare": [], "ours": []}
    with (
        bare(shards, asked, answered) as call,
        closing(Windows(shards, transport_for(address), keys, rows, [count()])) as measured,
    ):
        for _ in range(3):
            measured.run()
        for _ in range(repeats):
            for name, once in (("bare", call), ("ours", measured.run)):
                rounds[name].append(float(np.median([once() for _ in range(times)])) * 1e3)
    return rounds


def ray_ticks(counts: Sequence[int], repeats: int, times: int) -> list[Rounds]:
    """The same of shards on two nodes, for several counts of these."""
    ray: Any = importlib.import_module("ray")
    with nodes(1, *([-(-max(counts) // 2)] * 2)) as cluster:
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        try:
            return [ticks(cluster.address, n, 1000, 1000, repeats, times) for n in counts]
        finally:
            ray.shutdown()


def ray_recovery(repeats: int) -> list[float]:
    """Seconds from the moment at which a node with a shard is taken away to the next window that
    all shards have run."""
    ray: Any = importlib.import_module("ray")
    found: list[float] = []
    with nodes(0, 1, 1) as cluster:
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        with closing(Windows(2, transport_for(cluster.address), 1000, 10_000)) as measured:
            measured.run()
            for _ in range(repeats):
                taken = next(iter(cluster.worker_nodes))
                add_node(cluster)
                begun = time.perf_counter()
                cluster.remove_node(taken)
                measured.run()
                found.append(time.perf_counter() - begun)
        ray.shutdown()
    return found


def _compared(
    title: str,
    shards: Sequence[int],
    found: Sequence[Rounds],
    what: str,
    goal: Goal | None = None,
) -> Question:
    lines: list[Line] = []
    for number, rounds in zip(shards, found):
        bare, ours = rounds["bare"], rounds["ours"]
        lines.append(Line(f"bare {what}, {number}", Role.FLOOR, "ms", Figure.of(bare)))
        ratio = Figure.of_ratios(ours, bare)
        lines.append(Line(f"{number} shards", Role.OURS, "ms", Figure.of(ours), ratio, goal))
    return Question(title, lines)


# Many keys and rows, and many shards


def _rates(effort: Effort, counts: Sequence[int], keys: int, rows: int) -> Question:
    lines: list[Line] = []
    for shards in counts:
        transport = transport_for(None) if shards else None
        took: list[float] = []
        rates: list[float] = []
        with closing(Windows(shards, transport, keys, rows)) as measured:
            measured.run()
            for _ in range(effort.repeats * 2):
                begun = time.perf_counter()
                took.append(measured.run() * 1e3)
                rates.append(rows / (time.perf_counter() - begun))
        name, role = ("one process", Role.FLOOR) if not shards else (f"{shards} shards", Role.OURS)
        p99 = Figure.of([float(np.quantile(took, 0.99))])
        lines.append(Line(f"{name}: rows", role, "/s", Figure.of(rates)))
        lines.append(Line(f"{name}: a window, p99", role, "ms", p99))
    return Question(f"Cluster: {keys:,} keys, {rows:,} rows a window, 5 aggregates", lines)


class _Threads:
    """Shards in threads of this process, which do nothing but sleep for their work."""

    def open(self, is_unwanted: Callable[[], bool]) -> bool:
        """There is nothing to make ready."""
        return True

    def start(self, number: int, given_up: threading.Event) -> Any:
        return _ThreadLink(number)

    def close(self) -> None:
        """There is nothing to let go of."""


class _ThreadLink:
    def __init__(self, number: int) -> None:
        self.place = ShardPlace("here", number, versions())
        self.missed_signs = MissedSigns(0.0, "")
        self.ended = None
        self._shard = KeyShard()
        self._thread = ThreadPoolExecutor(1)

    def call(self, request: ShardRequest) -> Future[ShardReply]:
        return self._thread.submit(self._shard.handle, request)

    def end(self) -> None:
        self._thread.shutdown()
        self._shard.close()


def _sleeping(seconds: float) -> Any:
    @task
    def sleeps(view: TimeSeriesView, start: int, end: int) -> int:
        time.sleep(seconds)
        return len(view.in_window)

    return sleeps


def _simulated(effort: Effort, counts: Sequence[int], keys: int, seconds: float) -> Question:
    """How ticks grow shorter with shards that sleep for a while for each of their keys."""
    work = [_sleeping(seconds)]
    ideal = "best"
    lines: list[Line] = []
    for shards in counts:
        with closing(Windows(shards, _Threads(), keys, keys, work)) as measured:
            measured.run()
            took = [measured.run() * 1e3 for _ in range(effort.repeats)]
        best = keys * seconds / shards * 1e3
        lines.append(Line(f"{ideal}, {shards}", Role.FLOOR, "ms", Figure.of([best])))
        ratio = Figure.of([one / best for one in took])
        lines.append(Line(f"{shards} shards that sleep", Role.OURS, "ms", Figure.of(took), ratio))
    told = f"{keys:,} keys of {seconds * 1e3:g} ms"
    return Question(f"Cluster, simulated: ms a tick of {told}, in threads that sleep", lines)


def answer(effort: Effort) -> Iterator[Question | Skipped]:
    short = effort.seconds < SHORT
    counts = (2,) if short else (2, 4, 8)
    times = 3 if short else 20
    found = [ticks(None, n, 1000, 1000, effort.repeats, times) for n in counts]
    title = "Cluster: ms a tick of 1,000 keys, processes of this machine"
    yield _compared(title, counts, found, "pipes")
    yield _rates(effort, (0, 2) if short else (0, 1, 2, 4), *((500, 5000) if short else _MANY))
    simulated = (1, 4) if short else (1, 4, 16, 64)
    yield _simulated(effort, simulated, 40 if short else 2048, 0.001)
    if RAY not in effort.peers:
        return
    rounds = apart(RAY, ray_ticks, counts, effort.repeats, times)
    if isinstance(rounds, Skipped):
        yield rounds
        return
    title = "Cluster: ms a tick of 1,000 keys, actors of Ray on two nodes"
    yield _compared(title, counts, rounds, "actor calls", Goal(Bound.AT_MOST, 1.5))
    seconds = apart(RAY, ray_recovery, 1 if short else 3)
    if isinstance(seconds, Skipped):
        yield seconds
        return
    lines = [Line("a node of two is taken away", Role.OURS, "s", Figure.of(seconds))]
    yield Question("Cluster: seconds to the next window that all shards have run", lines)


_MANY: Final = (100_000, 1_000_000)

SECTION = Section("cluster", answer, peers=(RAY,))
