"""What a live row costs: from its source giving it to its being in the series that stages read."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from benchmarks.measure import Figure
from benchmarks.question import Bound, Effort, Goal, Line, Question, Role, Section
from run_task import Pipeline, TaskInterval, TimeSeries, TimeSeriesView, TimeUnit, task

BURST = 10
"""How many rows come at a time, every millisecond."""

STAGES = (1, 16)
INTERVAL = TaskInterval.millis(100)


@task
def last(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view["price"][-1]) if len(view) else 0.0


def series() -> TimeSeries:
    return TimeSeries({"price": float, "size": int}, TimeUnit.MILLIS)


class Feed:
    """Rows of now, for a while; how long each took is noted when the next one is asked for."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.took: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, dict[str, float]]]:
        note, clock = self.took.append, time.perf_counter_ns
        until = time.monotonic() + self._seconds
        while time.monotonic() < until:
            now = time.time_ns() // 1_000_000
            for _ in range(BURST):
                row = {"price": 1.5, "size": 7}
                begun = clock()
                yield now, row
                note(clock() - begun)
            time.sleep(0.001)


def live_us(stages: int, seconds: float) -> float:
    """Microseconds of the median row of a live pipeline."""
    feed, data = Feed(seconds), series()
    pipeline = Pipeline("bench").source(feed, into=data)
    for number in range(stages):
        pipeline.stage(f"stage {number}", [last], data, INTERVAL)
    pipeline.run_sync()
    return float(np.median(feed.took)) / 1e3


def append_us(seconds: float) -> float:
    """Microseconds of the median bare append, of rows that come in the same way."""
    feed, data = Feed(seconds), series()
    for timestamp, row in feed:
        data.append(timestamp, **row)
    return float(np.median(feed.took)) / 1e3


def answer(effort: Effort) -> Iterator[Question]:
    bare: list[float] = []
    live: dict[int, list[float]] = {stages: [] for stages in STAGES}
    for _ in range(effort.repeats):
        bare.append(append_us(effort.seconds))
        for stages, found in live.items():
            found.append(live_us(stages, effort.seconds))
    yield Question(
        "Live: a row from its source into a series, µs in the median",
        [
            Line("append, no pipeline", Role.FLOOR, "µs", Figure.of(bare)),
            *(
                Line(
                    f"{stages} stage{'s' if stages > 1 else ''} read it",
                    Role.OURS,
                    "µs",
                    Figure.of(found),
                    goal=Goal(Bound.AT_MOST, 6),
                )
                for stages, found in live.items()
            ),
        ],
    )


SECTION = Section("live", answer)
