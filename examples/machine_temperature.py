"""Find what is wrong with a machine from its temperature: readings, hours, features, alarms.

    python examples/machine_temperature.py temperature.csv --labels labels.json
    python examples/machine_temperature.py --live 864000    # as it would run live, 10 days a second

Without a file, it takes the hourly temperatures of Seattle in 2010. The file has a header and the
columns ``timestamp`` and ``value``; times are in UTC. Results go to an SQLite database, from which
the picture is drawn. If a run was killed, the next one computes what is missing there.

The labels are a JSON object of file name to a list of ``[from, to]``, the times between which
something was known to be wrong. The pipeline does not see them: they only tell how well it did.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.metadata
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray

from run_task import (
    Closed,
    Pipeline,
    RunnerConfig,
    RunTaskError,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.sinks import SqlSink
from run_task.sources import CsvFile, paced

mpl.use("agg")  # it draws files, and needs no screen

HOUR = TaskInterval.seconds(3_600)
DAY = TaskInterval.seconds(24 * 3_600)
FORTNIGHT = TaskInterval.seconds(14 * 24 * 3_600)

Rows = Iterable[tuple[int, Mapping[str, float]]]

LIMIT = 3.5
"""The modified z-score beyond which a value is an outlier, as its authors recommend."""


# Stage 1: an hour of readings


def values(readings: TimeSeriesView) -> NDArray[np.float64]:
    found = readings.in_window["value"]
    if not len(found):
        raise ValueError("there are no readings")
    return found


@task
def mean(readings: TimeSeriesView, start: int, end: int) -> float:
    return float(values(readings).mean())


@task
def std(readings: TimeSeriesView, start: int, end: int) -> float:
    return float(values(readings).std())


@task(name="min")
def low(readings: TimeSeriesView, start: int, end: int) -> float:
    return float(values(readings).min())


@task(name="max")
def high(readings: TimeSeriesView, start: int, end: int) -> float:
    return float(values(readings).max())


# Stage 2: features of a day of hours. A result is stamped with the end of its window, so its series
# is closed on the right, and the newest result in a window is the last hour's.


def results(of: TimeSeriesView, end: int, at_least: int) -> TimeSeriesView:
    found = of.in_window
    if len(found) < at_least or found.time[-1] != end:
        raise ValueError(f"{at_least} hours are needed, the last one among them")
    return found


@task
def trend(hours: TimeSeriesView, start: int, end: int) -> float:
    """By how much the mean rises an hour: the slope of the least-squares line through the day
    (NIST/SEMATECH e-Handbook of Statistical Methods, 4.1.4.1)."""
    day = results(hours, end, at_least=12)
    return float(np.polyfit((day.time - end) / HOUR.count, day["mean"], 1)[0])


@task
def z_score(hours: TimeSeriesView, start: int, end: int) -> float:
    """How far the last hour's mean lies from the mean of the hours before it, in their standard
    deviations (e-Handbook, 1.3.5.17)."""
    day = results(hours, end, at_least=12)["mean"]
    before, last = day[:-1], day[-1]
    return float((last - before.mean()) / spread(before))


@task
def shift(hours: TimeSeriesView, start: int, end: int) -> float:
    """Whether the mean changed six hours ago: the difference of the means since and before, over
    its standard error. (Welch, "The generalization of 'Student's' problem when several different
    population variances are involved", Biometrika 34, 1947.)"""
    day = results(hours, end, at_least=12)["mean"]
    before, since = day[:-6], day[-6:]
    error = math.hypot(*(spread(part) / math.sqrt(len(part)) for part in (before, since)))
    return float((since.mean() - before.mean()) / error)


def spread(of: NDArray[np.float64]) -> float:
    if not (std := float(of.std(ddof=1))):
        raise ValueError("the values are all the same")
    return std


# Stage 3: alarms, from a fortnight of features


@task
def alarm(features: TimeSeriesView, start: int, end: int) -> dict[str, float]:
    """The features of this hour that are outliers against their own past, and their modified
    z-scores, which outliers in that past hardly change. (Iglewicz and Hoaglin, "How to Detect and
    Handle Outliers", 1993; e-Handbook, 1.3.5.17.)

    It sees the past only, as it has to live, and the limit is the one in the book. That one outlier
    among the features is enough for an alarm was decided with labelled series in view.
    """
    fortnight = results(features, end, at_least=7 * 24)
    values = np.column_stack([fortnight[feature.name] for feature in FEATURES])
    deviations = values - np.median(values, axis=0)
    mads = np.median(np.abs(deviations), axis=0)
    if not mads.all():
        raise ValueError("a feature is nearly always the same")
    scores = dict(zip(fortnight.columns, (0.6745 * deviations[-1] / mads).tolist(), strict=True))
    return {feature: score for feature, score in scores.items() if abs(score) > LIMIT}


# All three, wired together

HOURLY = [mean, std, low, high]
FEATURES = [trend, z_score, shift]


def table(*columns: str, retention: TaskInterval, closed: Closed) -> TimeSeries:
    return TimeSeries(dict.fromkeys(columns, float), TimeUnit.SECONDS, retention, closed)


def pipeline(name: str, source: Rows, sink: SqlSink) -> Pipeline:
    readings = table("value", retention=DAY, closed=Closed.LEFT)
    hours = table(*(task.name for task in HOURLY), retention=DAY, closed=Closed.RIGHT)
    features = table(*(task.name for task in FEATURES), retention=FORTNIGHT, closed=Closed.RIGHT)
    of_day, of_fortnight = RunnerConfig(window=DAY), RunnerConfig(window=FORTNIGHT)

    made = Pipeline(name)
    made.source(source, into=readings)
    made.stage("hours", HOURLY, readings, HOUR).into(hours).sink(sink)
    made.stage("features", FEATURES, hours, HOUR, of_day).into(features).sink(sink)
    made.stage("alarms", [alarm], features, HOUR, of_fortnight).sink(sink)
    return made


# What came out

Results = Mapping[str, Mapping[datetime, Any]]
"""By task: each result by the time at which it was known; None where there is none."""
Span = tuple[datetime, datetime]


def read(database: Path, series: str) -> Results:
    found: dict[str, dict[datetime, Any]] = {}
    with contextlib.closing(SqlSink(database)) as sink:
        sink.begin(series)
        for row in sink.rows():
            found.setdefault(row.task, {})[datetime.fromtimestamp(row.end, UTC)] = row.value
    return found


def read_labels(path: Path, series: str) -> list[Span]:
    every: dict[str, list[tuple[str, str]]] = json.loads(path.read_text())
    if series not in every:
        raise SystemExit(f"{path}: there is nothing about {series!r}, but about {', '.join(every)}")
    at = datetime.fromisoformat
    return [(at(f"{start}+00:00"), at(f"{end}+00:00")) for start, end in every[series]]


def in_groups(alarms: Iterable[datetime]) -> list[list[datetime]]:
    """Alarms that come within a day of one another count as one: a feature looks back on a day, and
    tells of one event for as long."""
    groups: list[list[datetime]] = []
    for at in alarms:
        if not groups or at - groups[-1][-1] > DAY.as_timedelta():
            groups.append([])
        groups[-1].append(at)
    return groups


def verdict(groups: Sequence[Sequence[datetime]], labels: Sequence[Span]) -> str:
    """How many labels have an alarm within, and how many groups of alarms lie within none."""
    within = [[any(start <= at <= end for at in g) for g in groups] for start, end in labels]
    hit = sum(map(any, within))
    false = len(groups) - sum(map(any, zip(*within, strict=True)))
    return f"{hit} of {len(labels)} labelled windows hit, {false} false alarms"


def draw(found: Results, alarms: Iterable[Span], labels: Iterable[Span], title: str) -> Any:
    # matplotlib's types are not complete
    drawn: Any = plt.subplots(4, figsize=(13, 9), sharex=True, height_ratios=(2, 1, 1, 1))
    figure, panels = drawn
    times = list(found[mean.name])
    means, lows, highs = (
        np.array([*found[task.name].values()], float) for task in (mean, low, high)
    )
    panels[0].fill_between(times, lows, highs, alpha=0.4, label="min to max of the hour")
    panels[0].plot(times, means, linewidth=0.8, label="mean of the hour")
    panels[0].plot([], [], "r.", label="outlier")
    panels[0].set(title=title, ylabel="value")
    for panel, feature in zip(panels[1:], FEATURES, strict=True):
        values = found[feature.name]
        panel.plot([*values], [*values.values()], linewidth=0.8)
        outliers = [at for at, names in found[alarm.name].items() if feature.name in (names or ())]
        panel.plot(outliers, [values[at] for at in outliers], "r.")
        panel.set_ylabel(feature.name)
    for panel in panels:
        panel.margins(x=0.01)
        panel.grid(alpha=0.3)
        for spans, color, name in ((labels, "gold", "labelled"), (alarms, "red", "alarm")):
            for i, span in enumerate(spans):
                panel.axvspan(*span, color=color, alpha=0.3, label="" if i else name)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="lower center", ncols=5)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    return figure


# The command line


def seattle() -> Rows:
    """Hourly temperatures, in degrees Fahrenheit, that the package vega-datasets ships."""
    package = importlib.metadata.distribution("vega-datasets")
    file = Path(str(package.locate_file("vega_datasets/_data/seattle-temps.csv")))
    for row in csv.DictReader(file.read_text().splitlines()):
        time = datetime.strptime(row["date"], "%Y/%m/%d %H:%M").replace(tzinfo=UTC)
        yield int(time.timestamp()), {"value": float(row["temp"])}


def main() -> None:
    parser = argparse.ArgumentParser(description="Alarms from the temperature of a machine.")
    parser.add_argument("csv", nargs="?", type=Path, help="a file of timestamp,value")
    parser.add_argument("--labels", type=Path, help="a JSON file of when something was wrong")
    parser.add_argument("--database", type=Path, default=Path("machine_temperature.db"))
    parser.add_argument("--picture", type=Path, default=Path("machine_temperature.png"))
    parser.add_argument("--live", type=float, metavar="SPEED", help="so many times as fast as live")
    given = parser.parse_args()
    # Rows that are malformed are logged, with their lines.
    logging.getLogger("run_task.pipeline").addHandler(logging.StreamHandler())
    name = given.csv.name if given.csv else "seattle-temps.csv"
    labels = read_labels(given.labels, name) if given.labels else []
    try:
        source: Rows = seattle()
        if given.csv:
            source = CsvFile(given.csv, unit=TimeUnit.SECONDS, columns={"value": float})
        with contextlib.closing(SqlSink(given.database)) as sink:
            if given.live is not None:
                source = paced(source, given.live, unit=TimeUnit.SECONDS)
                pipeline(name, source, sink).run_sync()
            else:
                windows = sum(1 for _ in pipeline(name, source, sink).resume(sink))
                print(f"{windows} windows computed")
        found = read(given.database, name)
    except RunTaskError as error:
        raise SystemExit(f"{error}") from None

    if not found:
        raise SystemExit(f"{name}: there are no rows in it")
    groups = in_groups(at for at, outliers in found[alarm.name].items() if outliers)
    summary = f"{name}: {len(groups)} alarms"
    if labels:
        summary += f", {verdict(groups, labels)}"
    for group in groups:
        print(f"alarm from {group[0]:%Y-%m-%d %H:%M} to {group[-1]:%Y-%m-%d %H:%M}")
    draw(found, [(group[0], group[-1]) for group in groups], labels, summary).savefig(given.picture)
    print(f"{summary}; results in {given.database}, drawn in {given.picture}")


if __name__ == "__main__":
    main()
