"""A program that is served: a pipeline with all that a page has to stand.

Run as ``python -m tests.support.page_service PORT TOKEN_FILE``.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from run_task import (
    Pipeline,
    RunnerConfig,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    alert,
    task,
)
from run_task.aggregates import count, mean
from run_task.sinks import CallbackSink

HTML: Final = "<img src=x onerror=\"document.title='run'\">"
"""A name that runs if it is taken for HTML."""

RTL: Final = "מחיר ממוצע"
LONG: Final = "a name of 80 characters, which is about as long as any name is ever going to be."
KEYS: Final = 10_000
NAME: Final = f"plant {HTML}"

Rows = Iterator[tuple[int, dict[str, Any]]]


def now() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def prices() -> Rows:
    """A row each 20 ms, of which some are late, ahead or none."""
    for number in itertools.count(1):
        stamp = now()
        if number % 20 == 0:
            yield stamp - 3000, {"price": 90.0}
        elif number % 33 == 0:
            yield stamp, {"price": "no number"}
        elif number % 50 == 0:
            yield stamp + 3_600_000, {"price": 1.0}
        else:
            yield stamp, {"price": 100.0 + number % 7}
        time.sleep(0.02)


def devices() -> Rows:
    """A row of each key every 4 s."""
    names = [*(f"device-{number:05}" for number in range(KEYS - 4)), HTML, RTL, LONG, ""]
    while True:
        stamp = now()
        for number, name in enumerate(names):
            yield stamp, {"device": name, "celsius": float(number)}
        time.sleep(4)


def stalled() -> Rows:
    """One row, and then nothing comes, for as long as it runs."""
    yield now(), {"price": 1.0}
    threading.Event().wait()


@task
def last(view: TimeSeriesView, start: int, end: int) -> float:
    """The last price."""
    return float(view["price"][-1])


@task(name=HTML)
def of_html(view: TimeSeriesView, start: int, end: int) -> str:
    """A text that runs if it is taken for HTML."""
    return HTML


@task(name=RTL)
def right_to_left(view: TimeSeriesView, start: int, end: int) -> float:
    """The mean."""
    return float(view["price"].mean())


@task(name=LONG)
def long_name(view: TimeSeriesView, start: int, end: int) -> int:
    """How many rows there are."""
    return len(view)


@task
def fails(view: TimeSeriesView, start: int, end: int) -> float:
    """Nothing but an error."""
    raise ValueError(f"it fails: {HTML}")


def has_rows(view: TimeSeriesView, start: int, end: int) -> bool:
    """Whether there is a row."""
    return len(view) > 0


def pipeline() -> Pipeline:
    """The pipeline."""
    made = Pipeline(NAME)
    ticks = TimeSeries({"price": float}, TimeUnit.MILLIS, retention="1m")
    columns = {"device": str, "celsius": float}
    readings = TimeSeries(columns, TimeUnit.MILLIS, retention="10s", key="device")
    still = TimeSeries({"price": float}, TimeUnit.MILLIS)
    made.source(prices(), into=ticks, name="prices")
    made.source(devices(), into=readings, name="devices")
    made.source(stalled(), into=still, name=f"stalled {RTL}")
    made.stage("ticks", [last, of_html, right_to_left, long_name], ticks, "250ms")
    made.stage("alarms", [alert(has_rows, hold=None, name="rows are there"), fails], ticks, "1s")
    config = RunnerConfig(window="10s")
    made.stage("by device", [mean("celsius"), count()], readings, "1s", config, by="device")
    for name, data in ((HTML, ticks), (RTL, still), (LONG, ticks)):
        made.stage(name, [last], data, "1s")
    made.sink(CallbackSink(lambda stage, dataset: None))
    return made


if __name__ == "__main__":
    from run_task.serve import Service

    Service([pipeline()], port=int(sys.argv[1]), token_file=sys.argv[2]).run()
