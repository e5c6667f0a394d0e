"""Watch this machine: seven analytics a second over samples that keep coming in.

    python examples/machine.py --seconds 15

A feed thread samples CPU, memory, disk and network five times a second into shared data. A runner
computes over the last five seconds of it, every second. The main thread shows each DataSet.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import psutil
from rich.console import Console
from rich.live import Live
from rich.table import Table

from run_task import ContextBuilder, DataSet, Runner, RunnerConfig, RwLock, task

SAMPLE_EVERY = 0.2  # seconds


class Sample(NamedTuple):
    time: float  # seconds since the Unix epoch
    cores: tuple[float, ...]  # load of each core, percent
    memory: int  # bytes in use
    disk: int  # bytes read and written since boot
    received: int  # bytes since boot
    sent: int

    @property
    def cpu(self) -> float:
        return statistics.fmean(self.cores)


@dataclass
class Machine:
    """What the tasks read: a minute of samples."""

    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=300))

    def between(self, start: int, end: int) -> list[Sample]:
        found = [sample for sample in self.samples if start <= sample.time < end]
        if len(found) < 2:
            raise ValueError("fewer than two samples yet")
        return found


def sample_into(data: RwLock[Machine], stop: threading.Event) -> None:
    """The feed: write a sample into the shared data until told to stop."""
    psutil.cpu_percent(percpu=True)  # the first call only marks the beginning
    while not stop.wait(SAMPLE_EVERY):
        disk = psutil.disk_io_counters()
        network = psutil.net_io_counters()
        sample = Sample(
            time=time.time(),
            cores=tuple(psutil.cpu_percent(percpu=True)),
            memory=psutil.virtual_memory().used,
            disk=disk.read_bytes + disk.write_bytes if disk else 0,
            received=network.bytes_recv,
            sent=network.bytes_sent,
        )
        with data.write() as machine:
            machine.samples.append(sample)


class Load(NamedTuple):
    mean: float
    std: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} % ± {self.std:.1f}"


@task(name="cpu load")
def cpu_load(machine: Machine, start: int, end: int) -> Load:
    cpu = [sample.cpu for sample in machine.between(start, end)]
    return Load(statistics.fmean(cpu), statistics.stdev(cpu))


@task(name="busiest core")
def busiest_core(machine: Machine, start: int, end: int) -> int:
    cores = zip(*(sample.cores for sample in machine.between(start, end)), strict=True)
    loads = [sum(core) for core in cores]
    return loads.index(max(loads))


class Throughput(NamedTuple):
    received: float  # bytes a second
    sent: float

    def __str__(self) -> str:
        return f"{self.received / 1024:,.1f} KiB/s in, {self.sent / 1024:,.1f} KiB/s out"


@task
def network(machine: Machine, start: int, end: int) -> Throughput:
    samples = machine.between(start, end)
    first, last = samples[0], samples[-1]
    seconds = last.time - first.time
    return Throughput(
        (last.received - first.received) / seconds, (last.sent - first.sent) / seconds
    )


@task(name="disk bytes")
def disk_bytes(machine: Machine, start: int, end: int) -> int:
    samples = machine.between(start, end)
    return samples[-1].disk - samples[0].disk


@task(name="memory trend, MiB/min")
def memory_trend(machine: Machine, start: int, end: int) -> float:
    samples = machine.between(start, end)
    line = statistics.linear_regression(
        [sample.time - start for sample in samples], [sample.memory for sample in samples]
    )
    return line.slope * 60 / 2**20


@task(name="cpu ~ memory")
def correlation(machine: Machine, start: int, end: int) -> float:
    """How load and memory go together; an error while one of them stands still."""
    samples = machine.between(start, end)
    return statistics.correlation(
        [sample.cpu for sample in samples], [sample.memory for sample in samples]
    )


@task(name="cpu alarm")
def alarm(machine: Machine, start: int, end: int) -> str | None:
    """Whether the last sample lies more than three standard deviations from the mean."""
    *before, last = [sample.cpu for sample in machine.between(start, end)]
    if len(before) < 2 or (std := statistics.stdev(before)) == 0:
        return None
    z = (last - statistics.fmean(before)) / std
    return f"{last:.0f} % is {z:+.1f} standard deviations off" if abs(z) > 3 else None


def shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def as_table(dataset: DataSet[object]) -> Table:
    start, end = dataset.window
    late = f"{dataset.lateness * 1e3:.2f} ms late"
    table = Table(
        title=f"[{time.strftime('%X', time.localtime(start))}, "
        f"{time.strftime('%X', time.localtime(end))})  {late}",
        title_justify="left",
        min_width=72,
    )
    table.add_column("task", no_wrap=True)
    table.add_column("value", ratio=1)
    table.add_column("took", justify="right")
    for name, value in dataset.items():
        table.add_row(name, shown(value), f"{dataset.durations[name] * 1e6:,.0f} µs")
    for name, error in dataset.errors.items():
        table.add_row(name, f"[red]{error.__cause__}[/red]", "")
    return table


def as_line(dataset: DataSet[object]) -> str:
    values = [f"{name}={shown(value)}" for name, value in dataset.items()]
    values += [f"{name}!{error.__cause__}" for name, error in dataset.errors.items()]
    start, end = dataset.window
    return f"[{start}, {end}) late={dataset.lateness * 1e3:.2f}ms  " + "; ".join(values)


def main() -> None:
    parser = argparse.ArgumentParser(description="Watch this machine.")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long (default: 15)")
    seconds: float = parser.parse_args().seconds

    context, receiver, data = (
        ContextBuilder(Machine)
        .with_task(cpu_load)
        .with_task(busiest_core)
        .with_task(network)
        .with_task(disk_bytes)
        .with_task(memory_trend)
        .with_task(correlation)
        .with_task(alarm)
        .with_interval("1s")
        .with_config(RunnerConfig(name="machine", window="5s"))
        .build()
    )
    stop = threading.Event()
    feed = threading.Thread(target=sample_into, args=(data, stop), name="feed")
    runner = Runner(context)
    console = Console(highlight=False)
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    timer = threading.Timer(seconds, runner.shutdown)
    feed.start()
    timer.start()
    try:
        with runner:
            if live is not None:
                live.start()
            for dataset in receiver:
                if live is not None:
                    live.update(as_table(dataset), refresh=True)
                else:
                    print(as_line(dataset), flush=True)
    except KeyboardInterrupt:
        pass  # the runner has been shut down on the way here
    finally:
        if live is not None:
            live.stop()
        timer.cancel()
        stop.set()
        feed.join()
    stats = runner.stats
    console.print(
        f"{stats.ticks} windows, {stats.missed} missed, "
        f"late by {stats.lateness.p50 * 1e3:.2f} ms (median), "
        f"{stats.lateness.max * 1e3:.2f} ms (most)"
    )


if __name__ == "__main__":
    main()
