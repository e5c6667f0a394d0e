"""The same ticks by other means. Each gives microseconds a tick, and skips where it is missing."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.workload import Quote, tasks

Tick = Callable[[], object]
"""Runs every task once, and puts the results together."""


def timed(tick: Tick, seconds: float) -> float:
    """Microseconds a tick, after one to warm up."""
    tick()
    ticks, begun = 0, time.perf_counter()
    while (took := time.perf_counter() - begun) < seconds:
        tick()
        ticks += 1
    return took / ticks * 1e6


@contextlib.contextmanager
def pool(count: int) -> Generator[Tick]:
    """concurrent.futures: one future a task."""
    work, data = tasks(count), Quote()
    with ThreadPoolExecutor(2) as executor:

        def tick() -> object:
            futures = {task.name: executor.submit(task.run, data, 0, 1) for task in work}
            return {name: future.result() for name, future in futures.items()}

        yield tick


@contextlib.contextmanager
def to_thread(count: int) -> Generator[Tick]:
    """asyncio.to_thread and gather."""
    work, data = tasks(count), Quote()
    with asyncio.Runner() as runner:

        async def once() -> object:
            results = await asyncio.gather(
                *(asyncio.to_thread(task.run, data, 0, 1) for task in work)
            )
            return dict(zip((task.name for task in work), results))

        yield lambda: runner.run(once())


@contextlib.contextmanager
def apscheduler(count: int) -> Generator[Tick]:
    """APScheduler: one job a task."""
    from apscheduler.schedulers.background import BackgroundScheduler

    work, data = tasks(count), Quote()
    scheduler: Any = BackgroundScheduler(timezone=UTC)
    scheduler.start()

    def tick() -> object:
        results: dict[str, float] = {}
        done = threading.Event()

        def job(task: Any) -> None:
            results[task.name] = task.run(data, 0, 1)
            if len(results) == count:
                done.set()

        for task in work:
            scheduler.add_job(job, args=(task,), misfire_grace_time=None)
        done.wait()
        return results

    yield tick
    scheduler.shutdown()


@contextlib.contextmanager
def streamz(count: int) -> Generator[Tick]:
    """streamz: one map a task, zipped."""
    from streamz import Stream

    source: Any = Stream()
    data = Quote()
    maps = [source.map(task.run, 0, 1) for task in tasks(count)]
    last: list[object] = []
    (maps[0].zip(*maps[1:]) if count > 1 else maps[0]).sink(last.append)

    def tick() -> object:
        last.clear()
        source.emit(data)
        return last[0]

    yield tick


@contextlib.contextmanager
def dask(count: int) -> Generator[Tick]:
    """Dask: one future a task, workers in this process."""
    from distributed import Client

    work, data = tasks(count), Quote()
    client: Any = Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None)

    def tick() -> object:
        futures = [client.submit(task.run, data, 0, 1, pure=False) for task in work]
        return client.gather(futures)

    yield tick
    client.close()


@contextlib.contextmanager
def ray(count: int) -> Generator[Tick]:
    """Ray: one remote call a task."""
    import ray as cluster

    module: Any = cluster
    module.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    data = module.put(Quote())
    run = module.remote(lambda task, quote: task.run(quote, 0, 1))
    work = [module.put(task) for task in tasks(count)]
    yield lambda: module.get([run.remote(task, data) for task in work])
    module.shutdown()


def csp(count: int, seconds: float) -> float:
    """csp: one node a task, over a simulated clock, as its C++ engine does best."""
    import csp as engine

    module: Any = engine
    work, data = tasks(count), Quote()

    def run(ticks: int) -> float:
        clock = module.timer(timedelta(microseconds=1))
        nodes = [
            module.apply(clock, lambda _, task=task: task.run(data, 0, 1), float) for task in work
        ]
        begun = time.perf_counter()
        start = datetime(2026, 1, 1)  # noqa: DTZ001  # csp takes no other
        module.run(module.collect(nodes), starttime=start, endtime=timedelta(microseconds=ticks))
        return time.perf_counter() - begun

    ticks = max(50, int(seconds * 1e6 / (4 + count / 2)))
    empty = run(1)
    return (run(ticks + 1) - empty) / ticks * 1e6


PEERS: dict[str, tuple[str, Callable[[int, float], float]]] = {}
"""The name of each peer: the module that it needs, and what measures it."""


def _peer(name: str, module: str, opened: Callable[[int], Any]) -> None:
    def measure(count: int, seconds: float) -> float:
        with opened(count) as tick:
            return timed(tick, seconds)

    PEERS[name] = module, measure


_peer("ThreadPoolExecutor", "concurrent.futures", pool)
_peer("asyncio.to_thread", "asyncio", to_thread)
_peer("APScheduler", "apscheduler", apscheduler)
_peer("streamz", "streamz", streamz)
PEERS["csp"] = "csp", csp
_peer("Dask", "distributed", dask)
_peer("Ray", "ray", ray)


def missing(name: str) -> bool:
    """Whether what a peer needs is not installed."""
    return importlib.util.find_spec(PEERS[name][0]) is None
