"""The same ticks by other means.

Each peer is opened once, then prepared for one number of tasks after another. It is imported where
it is opened: none of them has to be installed, and most have no types that a checker could read.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from benchmarks.measure import Rounds, side_by_side
from benchmarks.workload import FLOOR, Mid, Quote, plain_loop, tasks

Measure = Callable[[float], float]
"""Runs ticks for so many seconds, and gives the microseconds that one took."""
Prepare = Callable[[int], Measure]
"""Makes ready for a number of tasks."""


def ticking(tick: Callable[[], object]) -> Measure:
    """Measure a function that runs every task once and puts the results together."""

    def measure(seconds: float) -> float:
        ticks, begun = 0, time.perf_counter()
        while (took := time.perf_counter() - begun) < seconds:
            tick()
            ticks += 1
        return took / ticks * 1e6

    tick()  # to warm up
    return measure


@contextlib.contextmanager
def pool() -> Generator[Prepare]:
    """concurrent.futures: one future a task."""
    with ThreadPoolExecutor(2) as executor:

        def prepare(count: int) -> Measure:
            work, data = tasks(count), Quote()

            def tick() -> object:
                futures = {task.name: executor.submit(task.run, data, 0, 1) for task in work}
                return {name: future.result() for name, future in futures.items()}

            return ticking(tick)

        yield prepare


@contextlib.contextmanager
def to_thread() -> Generator[Prepare]:
    """asyncio.to_thread and gather."""
    with asyncio.Runner() as runner:

        def prepare(count: int) -> Measure:
            work, data = tasks(count), Quote()

            async def once() -> object:
                results = await asyncio.gather(
                    *(asyncio.to_thread(task.run, data, 0, 1) for task in work)
                )
                return dict(zip((task.name for task in work), results))

            return ticking(lambda: runner.run(once()))

        yield prepare


@contextlib.contextmanager
def apscheduler() -> Generator[Prepare]:
    """APScheduler: one job a task."""
    background: Any = importlib.import_module("apscheduler.schedulers.background")
    scheduler = background.BackgroundScheduler(timezone=UTC)
    scheduler.start()

    def prepare(count: int) -> Measure:
        work, data = tasks(count), Quote()

        def tick() -> object:
            results: dict[str, float] = {}
            done = threading.Event()

            def job(task: Mid) -> None:
                results[task.name] = task.run(data, 0, 1)
                if len(results) == count:
                    done.set()

            for task in work:
                scheduler.add_job(job, args=(task,), misfire_grace_time=None)
            done.wait()
            return results

        return ticking(tick)

    yield prepare
    scheduler.shutdown()


@contextlib.contextmanager
def streamz() -> Generator[Prepare]:
    """streamz: one map a task, zipped."""
    engine: Any = importlib.import_module("streamz")

    def prepare(count: int) -> Measure:
        source, data = engine.Stream(), Quote()
        maps = [source.map(task.run, 0, 1) for task in tasks(count)]
        last: list[object] = []
        (maps[0].zip(*maps[1:]) if count > 1 else maps[0]).sink(last.append)

        def tick() -> object:
            last.clear()
            source.emit(data)
            return last[0]

        return ticking(tick)

    yield prepare


@contextlib.contextmanager
def csp() -> Generator[Prepare]:
    """csp: one node a task, over a simulated clock, as its C++ engine does best."""
    engine: Any = importlib.import_module("csp")

    def prepare(count: int) -> Measure:
        work, data = tasks(count), Quote()

        def run(ticks: int) -> float:
            clock = engine.timer(timedelta(microseconds=1))
            nodes = [engine.apply(clock, node(task), float) for task in work]
            start = datetime(2026, 1, 1)  # noqa: DTZ001  # csp takes no other
            end = timedelta(microseconds=ticks)
            begun = time.perf_counter()
            engine.run(engine.collect(nodes), starttime=start, endtime=end)
            return time.perf_counter() - begun

        def node(task: Mid) -> Callable[[object], float]:
            return lambda _: task.run(data, 0, 1)

        def measure(seconds: float) -> float:
            ticks = max(50, int(seconds * 1e6 / (4 + count / 2)))
            empty = run(1)
            return (run(ticks + 1) - empty) / ticks * 1e6

        return measure

    yield prepare


@contextlib.contextmanager
def dask() -> Generator[Prepare]:
    """Dask: one future a task, workers in this process."""
    distributed: Any = importlib.import_module("distributed")
    with distributed.Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None
    ) as client:

        def prepare(count: int) -> Measure:
            work, data = tasks(count), Quote()
            return ticking(
                lambda: client.gather(
                    [client.submit(task.run, data, 0, 1, pure=False) for task in work]
                )
            )

        yield prepare


@contextlib.contextmanager
def ray() -> Generator[Prepare]:
    """Ray: one remote call a task."""
    cluster: Any = importlib.import_module("ray")
    cluster.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    data = cluster.put(Quote())

    def call(task: Mid, quote: Quote) -> float:
        return task.run(quote, 0, 1)

    remote = cluster.remote(call)

    def prepare(count: int) -> Measure:
        work = [cluster.put(task) for task in tasks(count)]
        return ticking(lambda: cluster.get([remote.remote(task, data) for task in work]))

    yield prepare
    cluster.shutdown()


PEERS: dict[str, Callable[[], AbstractContextManager[Prepare]]] = {
    "ThreadPoolExecutor": pool,
    "asyncio.to_thread": to_thread,
    "APScheduler": apscheduler,
    "streamz": streamz,
    "csp": csp,
    "Dask": dask,
    "Ray": ray,
}


def measured(name: str, counts: list[int], repeats: int, seconds: float) -> list[Rounds]:
    """Microseconds a tick of the plain loop and of a peer, for each number of tasks."""
    every: list[Rounds] = []
    with PEERS[name]() as prepare:
        for count in counts:
            both = {
                FLOOR: partial(plain_loop, count, seconds),
                name: partial(prepare(count), seconds),
            }
            every.append(side_by_side(both, repeats))
    return every
