"""How late ticks are, how much an idle runner costs, and what dear ticks gain from the cores."""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from typing import Any

import numpy as np

from benchmarks.workload import Quote, tasks
from run_task import ContextBuilder, Runner, RunnerConfig, Task, TaskInterval


def lateness_of_a_bare_thread(interval_us: int, seconds: float) -> np.ndarray[Any, np.dtype[Any]]:
    """Microseconds past the grid at which a thread wakes that does nothing but sleep to it."""
    late: list[float] = []

    def sleep() -> None:
        period = interval_us * 1000
        due = (time.time_ns() // period + 1) * period
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            time.sleep(max(0, due - time.time_ns()) / 1e9)
            late.append((time.time_ns() - due) / 1e3)
            due += period

    thread = threading.Thread(target=sleep)
    thread.start()
    thread.join()
    return np.array(late)


class _First:
    """A task that notes when it starts: the first of its tick."""

    name = "first"

    def __init__(self, interval_us: int) -> None:
        self.late: list[float] = []

    def run(self, data: Quote, start: int, end: int) -> None:
        self.late.append(time.time_ns() / 1e3 - end)


def lateness_of_a_runner(
    interval_us: int, seconds: float, blocked: bool = False
) -> tuple[np.ndarray[Any, np.dtype[Any]], int]:
    """Microseconds past the window's end at which the first of 8 tasks starts, and the windows
    that came more than an interval late.

    :param blocked: whether an asyncio program awaits the runner and blocks its loop for 300 ms
    """
    first = _First(interval_us)
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
            while time.perf_counter() < deadline:
                if blocked:
                    time.sleep(0.3)  # noqa: ASYNC251  # as a user's code would, by mistake
                while receiver.try_recv() is not None:
                    pass
                await asyncio.sleep(0.01)

    asyncio.run(program())
    late = np.array(first.late[1:])
    return late, int((late > interval_us).sum())


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


_block = np.random.default_rng(0).random(2_000_000)


def _busy(milliseconds: float) -> Any:
    """A task of so much NumPy work that lets go of the GIL, on this machine, right now."""
    sample = _block[:100_000]
    begun = time.perf_counter()
    for _ in range(10):
        np.sqrt(sample).sum()
    size = int(milliseconds / 1e3 / ((time.perf_counter() - begun) / 10) * 100_000)
    pieces, rest = divmod(size, 100_000)

    def work(data: object, start: int, end: int) -> float:
        total = 0.0
        for _ in range(pieces):
            total += float(np.sqrt(sample).sum())
        return total + float(np.sqrt(_block[: max(rest, 1)]).sum())

    return work


def ticks_of(costs_ms: list[float], executor: Any, ticks: int) -> tuple[float, float]:
    """Run tasks of these costs, tick after tick.

    :return: the median tick, in milliseconds from the first task's start to the last one's end;
        and what it would take on two cores at best, from what the tasks took each
    """
    functions = {cost: _busy(cost) for cost in set(costs_ms)}
    context, receiver, _ = (
        ContextBuilder(Quote)
        .with_tasks([Task(functions[cost], f"{i}") for i, cost in enumerate(costs_ms)])
        .with_interval(TaskInterval.micros(1))
        .with_config(RunnerConfig(executor=executor))
        .build()
    )
    best: list[float] = []
    runner = Runner(context)
    with runner:
        for _ in range(ticks):
            durations = receiver.recv().durations.values()
            best.append(max(*durations, sum(durations) / 2))
    return runner.stats.duration.p50 * 1e3, float(np.median(best)) * 1e3
