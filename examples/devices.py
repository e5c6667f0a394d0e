"""A thousand devices: statistics each ten seconds, and alarms that hold until it is cooler again.

    python examples/devices.py                       over history, as fast as the machine goes
    python examples/devices.py --live --seconds 60   the same as readings come
    python examples/devices.py --readings file.csv   over a file of your own

A file has the columns timestamp (milliseconds since the Unix epoch), device and temperature. Some
readings come late: windows wait three seconds for them, and what comes later still is counted.
Limits change while it runs, and each device has its own: they come from a second source.
Statistics are rows of a table of an SQLite database: ask it to `select * from temperatures`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, NamedTuple, TypedDict

import numpy as np

from run_task import (
    KeyedDataSet,
    Pipeline,
    RunnerConfig,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task import aggregates as agg
from run_task.sinks import CallbackSink, Layout, SqlSink
from run_task.sources import CsvFile, paced

DEVICES = [f"device-{number:03}" for number in range(1000)]
FIRST = 1_700_000_000_000  # when the made readings begin, in milliseconds
LATE = 0.02  # which part of the readings comes late, by up to five seconds
MARGIN = 2.0  # how far below its limit a device has to cool down for its alarm to end, in degrees


class Reading(TypedDict):
    device: str
    temperature: float


class Limit(TypedDict):
    device: str
    limit: float


def made_readings(seconds: int) -> Iterator[tuple[int, Reading]]:
    """A reading a second of each tenth device, in the order in which they come."""
    random = np.random.default_rng(11)
    temperatures = random.normal(60, 5, len(DEVICES))
    held: list[tuple[int, int, Reading]] = []  # those that are late: when they come, and what
    for second in range(seconds):
        for number in range(second % 10, len(DEVICES), 10):
            temperatures[number] += random.normal(0, 1)
            now = FIRST + second * 1000 + number
            degrees = round(float(temperatures[number]), 2)
            reading: Reading = {"device": DEVICES[number], "temperature": degrees}
            if random.random() < LATE:
                held.append((now + int(random.integers(1000, 5000)), now, reading))
            else:
                yield now, reading
        for late in [each for each in held if each[0] <= FIRST + second * 1000]:
            held.remove(late)
            yield late[1:]


def made_limits(seconds: int) -> Iterator[tuple[int, Limit]]:
    """Each device has a limit, which is set anew after a minute."""
    random = np.random.default_rng(12)
    for at in range(0, seconds, 60):
        for device in DEVICES:
            yield FIRST + at * 1000, {"device": device, "limit": float(random.integers(66, 72))}


class Alarm(NamedTuple):
    """Whether a device is too hot, and how hot it has been since it is."""

    on: bool = False
    highest: float = 0.0


@task(state=Alarm)
def alarm(
    views: tuple[TimeSeriesView, TimeSeriesView], start: int, end: int, before: Alarm
) -> tuple[Alarm, Alarm]:
    """On from its limit on, and off once it is clearly below."""
    readings, limits = views
    degrees = readings.in_window["temperature"]
    # The limit that held at each reading; before the first one, there is none: NaN.
    limit = limits.asof(readings.in_window)["limit"]
    now = before
    for value, most in zip(degrees.tolist(), limit.tolist()):
        if value >= most or (now.on and value > most - MARGIN):
            now = Alarm(True, max(value, now.highest))
        else:
            now = Alarm()
    return now, now


class Changes:
    """Prints each alarm that begins or ends."""

    def __init__(self) -> None:
        self._on: set[str] = set()
        self.count = 0

    def note(self, stage: str, dataset: KeyedDataSet[str, Alarm]) -> None:
        for device, state in dataset[alarm].items():
            if state.on is (device in self._on):
                continue
            self._on ^= {device}
            told = f"too hot, {state.highest:.1f} degrees" if state.on else "cool again"
            print(f"{dataset.end_time:%H:%M:%S} {device} {told}", flush=True)
            self.count += 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Statistics and alarms of a thousand devices.")
    parser.add_argument("--live", action="store_true", help="as readings come, not over history")
    parser.add_argument("--seconds", type=int, default=300, help="how much is made (300)")
    parser.add_argument("--readings", metavar="FILE", help="a CSV file in the place of made ones")
    parser.add_argument("--database", default="sqlite:///devices.db", help="(sqlite:///devices.db)")
    given = parser.parse_args()

    columns = {"device": str, "temperature": float}
    readings = TimeSeries(columns, TimeUnit.MILLIS, key="device")
    limits = TimeSeries({"device": str, "limit": float}, TimeUnit.MILLIS, key="device")
    sources: list[Any] = [made_readings(given.seconds), made_limits(given.seconds)]
    if given.readings is not None:
        sources[0] = CsvFile(given.readings, unit=TimeUnit.MILLIS, columns=columns)
    if given.live:
        sources = [paced(rows, unit=TimeUnit.MILLIS) for rows in sources]

    pipeline = Pipeline("devices")
    pipeline.source(sources[0], into=readings, name="readings")
    pipeline.source(sources[1], into=limits, name="limits")
    config = RunnerConfig(grace="3s")
    temperature = "temperature"
    statistics = pipeline.stage(
        "statistics",
        [
            agg.count().named("readings"),
            agg.mean(temperature).named("mean"),
            agg.max(temperature).named("highest"),
            agg.time_weighted_mean(temperature).named("weighted"),
        ],
        readings,
        "10s",
        config=config,
        by="device",
    )
    statistics.sink(SqlSink(given.database, table="temperatures", layout=Layout.WIDE))
    alarms = pipeline.stage(
        "alarms", [alarm], (readings, limits), "10s", config=config, by="device", key_idle="10m"
    )
    changes = Changes()
    alarms.sink(CallbackSink(changes.note))
    if given.live:
        pipeline.run_sync()
    else:
        for _ in pipeline.replay():
            pass
    fates = pipeline.stats.sources["readings"]
    print(f"{changes.count} alarms began or ended; {fates.received} readings, {fates.late} late")


if __name__ == "__main__":
    main()
