"""What checkpoints cost, each second at 1000 rows/s, and how long a start from one takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.measure import Figure
from benchmarks.question import Bound, Effort, Goal, Line, Question, Role, Section
from run_task import Pipeline, TimeSeries, TimeSeriesView, TimeUnit, task

RATE = 1000
BURST = 10
KEYS = 100
RETAINED = 1_000_000


class Steady:
    """So many rows a second, for a while, with positions.

    :param seconds: for how long
    """

    lag = 0

    def __init__(self, seconds: float) -> None:
        self.position: Any = 0
        self._until = time.monotonic() + seconds

    def seek(self, position: Any, /) -> None:
        self.position = position

    def commit(self, position: Any, /) -> None:
        pass

    def close(self) -> None:
        self._until = 0.0

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        due = time.monotonic()
        while time.monotonic() < self._until:
            now = time.time_ns() // 1_000_000
            for _ in range(BURST):
                self.position += 1
                yield now, {"k": f"k{self.position % KEYS}", "v": self.position * 0.5}
            due += BURST / RATE
            time.sleep(max(0.0, due - time.monotonic()))


@task(state=float)
def smoothed(view: TimeSeriesView, start: int, end: int, mean: float) -> tuple[float, float]:
    rows = view.in_window["v"]
    mean = mean if not len(rows) else 0.9 * mean + 0.1 * float(rows.mean())
    return mean, mean


def pipeline(folder: str | None, source: Any, retention: Any) -> tuple[Pipeline, TimeSeries]:
    made = Pipeline("bench", checkpoint=folder)
    columns = {"k": str, "v": float}
    series = TimeSeries(columns, TimeUnit.MILLIS, retention=retention, key="k")
    made.source(source, series)
    made.stage("all", [smoothed], series, "100ms")
    made.stage("by key", [smoothed], series, "1s", by="k")
    return made, series


def percent(seconds: float, *, checkpoints: bool) -> float:
    """How much of one processor a run takes, in percent."""
    with tempfile.TemporaryDirectory() as folder:
        made, _ = pipeline(folder if checkpoints else None, Steady(seconds), "10m")
        begun = time.process_time()
        with made:
            time.sleep(seconds)
            took = time.process_time() - begun
    return 100 * took / seconds


def restart_s(repeats: int) -> Iterator[float]:
    """Seconds until a pipeline runs that goes on with so many rows."""
    with tempfile.TemporaryDirectory() as folder:
        made, series = pipeline(folder, Steady(100), RETAINED)
        keys = np.array([f"k{i % KEYS}" for i in range(RETAINED)], object)
        times = np.arange(RETAINED) + 1_700_000_000_000
        series.extend(times, k=keys, v=np.arange(float(RETAINED)))
        with made:
            while not (made.stats.checkpoints and made.stats.checkpoints.written):
                time.sleep(0.01)
        for _ in range(repeats):
            made, series = pipeline(folder, Steady(100), RETAINED)
            begun = time.perf_counter()
            with made:
                yield time.perf_counter() - begun
                assert len(series.view()) == RETAINED


def answer(effort: Effort) -> Iterator[Question]:
    seconds = 25 * effort.seconds  # ten, of which each has a checkpoint
    percent(min(seconds, 1.0), checkpoints=True)  # what is imported then is there
    without: list[float] = []
    kept: list[float] = []
    for _ in range(effort.repeats):
        without.append(percent(seconds, checkpoints=False))
        kept.append(percent(seconds, checkpoints=True))
    more = [one - other for one, other in zip(kept, without, strict=True)]
    yield Question(
        "Checkpoints: percent of a processor, at 1000 rows/s, one each second",
        [
            Line("without", Role.FLOOR, "%", Figure.of(without)),
            Line("with", Role.OURS, "%", Figure.of(kept)),
            Line("more", Role.OURS, "%", Figure.of(more), goal=Goal(Bound.AT_MOST, 2)),
        ],
    )
    yield Question(
        "Checkpoints: seconds until a pipeline goes on that retains 10⁶ rows",
        [
            Line(
                "from a folder",
                Role.OURS,
                "s",
                Figure.of([*restart_s(effort.repeats)]),
                goal=Goal(Bound.AT_MOST, 1),
            )
        ],
    )


SECTION = Section("checkpoint", answer)
