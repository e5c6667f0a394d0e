"""A pipeline that is served while it runs over shards.

Run as ``python -m tests.support.sharded_service PORT SHARDS``.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from run_task import Pipeline, RunnerConfig, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.aggregates import count, mean

KEYS: Final = 40


def readings() -> Iterator[tuple[int, dict[str, Any]]]:
    """A row of some key every 5 ms."""
    for number in itertools.count():
        stamp = time.time_ns() // 1_000_000
        yield stamp, {"device": f"device-{number % KEYS:02}", "celsius": float(number % 7)}
        time.sleep(0.005)


@task(state=int)
def windows(view: TimeSeriesView, start: int, end: int, state: int) -> tuple[int, int]:
    """How many windows its key has been in."""
    return state + 1, state + 1


@task
def warmest(view: TimeSeriesView, start: int, end: int) -> float:
    """The highest mean of all keys."""
    found = view.in_window["celsius_mean"]
    return float(found.max()) if len(found) else 0.0


def pipeline(patience: float = 60.0) -> Pipeline:
    """The pipeline.

    :param patience: how many seconds windows wait for a shard
    """
    made = Pipeline("sharded")
    series = TimeSeries({"device": str, "celsius": float}, TimeUnit.MILLIS, "30s", key="device")
    made.source(readings(), into=series, name="readings")
    config = RunnerConfig(window="1s", upstream_timeout=patience)
    tasks = [mean("celsius"), count(), windows]
    by_device = made.stage("by device", tasks, series, "200ms", config, by="device")
    made.stage("all", [warmest], by_device.series(), "1s")
    return made


if __name__ == "__main__":
    from run_task.serve import Service

    shards = int(sys.argv[2])
    Service([pipeline()], port=int(sys.argv[1]), run=lambda made: made.run_sharded(shards)).run()
