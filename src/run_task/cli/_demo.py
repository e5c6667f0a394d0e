"""The demo: a pipeline over what this machine is doing right now."""

from __future__ import annotations

from typing import Any

import numpy as np

from run_task._extras import need
from run_task.data import Closed, TimeSeries, TimeSeriesView
from run_task.pipeline import Pipeline
from run_task.runner._config import RunnerConfig
from run_task.sources import polling
from run_task.tasks._dataset import DataSet
from run_task.tasks._decorator import task
from run_task.time._interval import TaskInterval, TimeUnit

_KIB = 1024
_MILLIS = 1000  # in a second


@task(name="cpu load, %")
def cpu_load(samples: TimeSeriesView, start: int, end: int) -> float:
    return _mean(samples.in_window, "cpu")


@task(name="busiest core, %")
def busiest_core(samples: TimeSeriesView, start: int, end: int) -> float:
    return _mean(samples.in_window, "busiest")


@task(name="memory in use, GiB")
def memory(samples: TimeSeriesView, start: int, end: int) -> float:
    return _mean(samples.in_window, "memory") / _KIB**3


@task(name="received, KiB/s")
def received(samples: TimeSeriesView, start: int, end: int) -> float:
    return _rate(samples.in_window, "received") / _KIB


@task(name="sent, KiB/s")
def sent(samples: TimeSeriesView, start: int, end: int) -> float:
    return _rate(samples.in_window, "sent") / _KIB


@task(name="disk, KiB/s")
def disk(samples: TimeSeriesView, start: int, end: int) -> float:
    return _rate(samples.in_window, "disk") / _KIB


@task(name="cpu trend, %/min")
def cpu_trend(means: TimeSeriesView, start: int, end: int) -> float:
    return _slope(means.in_window, "cpu")


@task(name="memory trend, MiB/min")
def memory_trend(means: TimeSeriesView, start: int, end: int) -> float:
    return _slope(means.in_window, "memory") * _KIB


@task(name="cpu alarm")
def cpu_alarm(means: TimeSeriesView, start: int, end: int) -> str | None:
    """Whether the newest mean lies more than three standard deviations from those before."""
    cpu = means.in_window["cpu"]
    if len(cpu) < 10 or (deviation := float(cpu[:-1].std())) == 0:
        return None
    off = float(cpu[-1] - cpu[:-1].mean()) / deviation
    return f"{off:+.1f} standard deviations" if abs(off) > 3 else None


def pipeline() -> Pipeline:
    """The pipeline, ready to run.

    :raises ConfigError: if psutil is not installed
    """
    psutil = need("psutil", "cli")
    samples = TimeSeries(
        {
            "cpu": float,
            "busiest": float,
            "memory": int,
            "received": int,
            "sent": int,
            "disk": int,
        },
        unit=TimeUnit.MILLIS,
        retention=TaskInterval.millis(60 * _MILLIS),
    )
    means = TimeSeries(
        {"cpu": float, "memory": float},
        unit=TimeUnit.MILLIS,
        retention=TaskInterval.millis(600 * _MILLIS),
        closed=Closed.RIGHT,
    )

    def sample() -> dict[str, Any]:
        cores = psutil.cpu_percent(percpu=True)
        network, disks = psutil.net_io_counters(), psutil.disk_io_counters()
        return {
            "cpu": sum(cores) / len(cores),
            "busiest": max(cores),
            "memory": psutil.virtual_memory().used,
            "received": network.bytes_recv if network else 0,
            "sent": network.bytes_sent if network else 0,
            "disk": disks.read_bytes + disks.write_bytes if disks else 0,
        }

    def keep(data: TimeSeries, dataset: DataSet[float]) -> None:
        if not dataset.errors:
            data.append(dataset.timestamp, cpu=dataset[cpu_load], memory=dataset[memory])

    psutil.cpu_percent(percpu=True)  # the first call only marks the beginning
    made = Pipeline("this machine")
    made.source(polling(sample, TaskInterval.millis(200)), into=samples)
    second = made.stage(
        "second",
        [cpu_load, busiest_core, memory, received, sent, disk],
        samples,
        TaskInterval.millis(_MILLIS),
        RunnerConfig(window=TaskInterval.millis(5 * _MILLIS)),
    )
    second.into(means, keep)
    made.stage(
        "minute",
        [cpu_trend, memory_trend, cpu_alarm],
        means,
        TaskInterval.millis(_MILLIS),
        RunnerConfig(window=TaskInterval.millis(60 * _MILLIS)),
    )
    return made


def _mean(samples: TimeSeriesView, column: str) -> float:
    return float(samples[column].mean()) if len(samples) else 0.0


def _rate(samples: TimeSeriesView, column: str) -> float:
    """How much a counter grows in a second."""
    if len(samples) < 2:
        return 0.0
    seconds = int(samples.time[-1] - samples.time[0]) / _MILLIS
    return float(samples[column][-1] - samples[column][0]) / max(seconds, 1 / _MILLIS)


def _slope(means: TimeSeriesView, column: str) -> float:
    """The slope of the line through all points, by least squares, a minute."""
    if len(means) < 2:
        return 0.0
    minutes = (means.time - means.time[0]) / (60 * _MILLIS)
    off = minutes - minutes.mean()
    return float(np.dot(off, means[column]) / np.dot(off, off))
