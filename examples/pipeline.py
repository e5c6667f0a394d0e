"""Two runners in a row over a real series: rolling statistics, then features of these.

    python examples/pipeline.py                      # hourly temperatures of Seattle, 2010
    python examples/pipeline.py measurements.csv     # a CSV of timestamp,value; times in UTC

The first runner computes, each hour, the mean and standard deviation of the last six hours. Its
DataSets are written into the data of the second, which computes features of the last day. A
virtual clock is moved from row to row, so a year goes by in seconds; with the system's clock, the
same two runners would run live.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import statistics
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from run_task import (
    ContextBuilder,
    DataSet,
    Runner,
    RunnerConfig,
    TaskInterval,
    VirtualClock,
    task,
)

HOUR = TaskInterval.minutes(60)
GRACE = TaskInterval.minutes(1)  # what the second runner leaves the first to be ready
REST_OF_HOUR = TaskInterval.minutes(59)


class Point(NamedTuple):
    time: int  # minutes since the Unix epoch
    mean: float
    std: float


class Series:
    """Values in order of time."""

    def __init__(self) -> None:
        self.times: list[float] = []  # minutes since the Unix epoch
        self.values: list[float] = []

    def between(self, start: int, end: int) -> list[float]:
        return self.values[bisect_left(self.times, start) : bisect_left(self.times, end)]


@task
def mean(series: Series, start: int, end: int) -> float:
    return statistics.fmean(series.between(start, end))


@task
def std(series: Series, start: int, end: int) -> float:
    return statistics.stdev(series.between(start, end))


def of_the_day(points: Sequence[Point], start: int, end: int) -> list[Point]:
    # A point is stamped with the end of its window, so the newest belongs to this one.
    day = [point for point in points[-25:] if start < point.time <= end]
    if len(day) < 3:
        raise ValueError(f"a day's features need three points, there are {len(day)}")
    return day


@task
def trend(points: Sequence[Point], start: int, end: int) -> float:
    """The slope of the means, per hour."""
    day = of_the_day(points, start, end)
    hours = [(point.time - start) / 60 for point in day]
    return statistics.linear_regression(hours, [point.mean for point in day]).slope


@task
def z_score(points: Sequence[Point], start: int, end: int) -> float:
    """How far the newest mean lies from the others of the day, in their standard deviations."""
    *others, newest = [point.mean for point in of_the_day(points, start, end)]
    return (newest - statistics.fmean(others)) / statistics.stdev(others)


@task
def unrest(points: Sequence[Point], start: int, end: int) -> float:
    """The newest standard deviation as a multiple of the day's median one."""
    day = of_the_day(points, start, end)
    return day[-1].std / statistics.median(point.std for point in day)


class Result(NamedTuple):
    rolling: DataSet[float]
    features: DataSet[float]


def run(rows: Sequence[tuple[float, float]]) -> Iterator[Result]:
    """Run both runners over rows of (seconds since the epoch, value), in order of time."""
    rolling_context, rolling, series = (
        ContextBuilder(Series)
        .with_task(mean)
        .with_task(std)
        .with_interval(HOUR)
        .with_config(RunnerConfig(name="rolling", window=TaskInterval.minutes(6 * 60)))
        .build()
    )
    features_context, features, points = (
        ContextBuilder(list[Point])
        .with_task(trend)
        .with_task(z_score)
        .with_task(unrest)
        .with_interval(HOUR)
        .with_config(
            RunnerConfig(name="features", window=TaskInterval.minutes(24 * 60), grace=GRACE)
        )
        .build()
    )
    hour = HOUR.as_secs()
    end = rows[0][0] // hour * hour
    clock = VirtualClock(int(end) * 10**9)
    position = 0
    with Runner(features_context, clock=clock), Runner(rolling_context, clock=clock):
        clock.advance(GRACE)
        while position < len(rows):
            end += hour
            with series.write() as data:
                while position < len(rows) and rows[position][0] < end:
                    time, value = rows[position]
                    data.times.append(time / 60)
                    data.values.append(value)
                    position += 1
            clock.advance(REST_OF_HOUR)
            dataset = rolling.recv()
            if not dataset.errors:  # an hour without rows has no mean
                with points.write() as known:
                    known.append(Point(dataset.timestamp, dataset[mean], dataset[std]))
            clock.advance(GRACE)
            yield Result(dataset, features.recv())


def read(path: Path) -> list[tuple[float, float]]:
    """The rows of a CSV file with a header and two columns, timestamp and value, by time."""
    rows: list[tuple[float, float]] = []
    with path.open(newline="") as file:
        lines = csv.reader(file)
        next(lines, None)
        for line in lines:
            try:
                text, value = line
                time = datetime.fromisoformat(text.replace("/", "-")).replace(tzinfo=UTC)
                rows.append((time.timestamp(), float(value)))
            except ValueError as error:
                raise SystemExit(f"{path}, line {lines.line_num}: {error}") from None
    if not rows:
        raise SystemExit(f"{path}: there are no rows in it")
    return sorted(rows)


def seattle() -> Path:
    """Hourly temperatures, in degrees Fahrenheit, that the package vega-datasets ships."""
    package = importlib.metadata.distribution("vega-datasets")
    return Path(str(package.locate_file("vega_datasets/_data/seattle-temps.csv")))


def main() -> None:
    parser = argparse.ArgumentParser(description="Rolling statistics, and features of these.")
    parser.add_argument("csv", nargs="?", type=Path, help="a file of timestamp,value")
    parser.add_argument("--top", type=int, default=8, help="how many hours to show (default: 8)")
    arguments = parser.parse_args()
    path: Path = arguments.csv or seattle()

    results = list(run(read(path)))
    known = [result for result in results if not result.features.errors]
    known.sort(key=lambda result: abs(result.features[z_score]), reverse=True)
    print(f"{path.name}: {len(results)} hours; those that stand out most against the day before:")
    print(f"{'hour that ends':<20}{'mean':>9}{'std':>8}{'trend/h':>9}{'z':>7}{'unrest':>8}")
    for rolling, features in known[: arguments.top]:
        at = datetime.fromtimestamp(features.timestamp * 60, UTC)
        print(
            f"{at:%Y-%m-%d %H:%M}    {rolling[mean]:>9.2f}{rolling[std]:>8.2f}"
            f"{features[trend]:>9.3f}{features[z_score]:>7.1f}{features[unrest]:>8.1f}"
        )


if __name__ == "__main__":
    main()
