"""What it costs to import run-task and to keep it running: time, memory, growth."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import tracemalloc

from benchmarks.workload import Quote, drain, tasks
from run_task import ContextBuilder, DataSet, Receiver, Runner, TaskInterval


def import_ms(module: str) -> float:
    """Milliseconds to import a module in a fresh process, interpreter start not counted."""
    script = (
        f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    return float(done.stdout) * 1e3


def imported() -> list[str]:
    """The packages, besides the standard library, that ``import run_task`` brings."""
    script = "import sys; a = set(sys.modules); import run_task; print(*set(sys.modules) - a)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    names = {name.partition(".")[0] for name in done.stdout.split()}
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
        while len(receiver) < 1000:
            time.sleep(0.001)
        held, before = len(receiver), tracemalloc.get_traced_memory()[0]
        receiver.close()  # what waits is let go, and the runner ends
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (before - after) / held


def growth_kib(ticks: int) -> float:
    """By how many KiB the process's objects have grown over so many ticks of 8 tasks."""
    runner, receiver = _runner(8)
    consumer = threading.Thread(target=drain, args=(receiver,))
    tracemalloc.start()
    consumer.start()
    with runner:
        sizes: list[int] = []
        for until in (5_000, 5_000 + ticks):  # the rings of the statistics are full by the first
            while runner.stats.ticks < until:
                time.sleep(0.005)
            samples: list[int] = []
            for _ in range(40):  # the channel fills and empties meanwhile: take the lowest
                gc.collect()
                samples.append(tracemalloc.get_traced_memory()[0])
                time.sleep(0.005)
            sizes.append(min(samples))
    consumer.join()
    tracemalloc.stop()
    return (sizes[1] - sizes[0]) / 1024
