"""What a journal costs: rows through a pipeline with one and without, beside the same rows written
bare as record batches of Arrow, with an fsync for each batch.

Figures are of processor time, of all threads, since a machine that is busy shows in the other one;
each run is checked: all rows are in the series and, in value and order, in the journal.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Figure, side_by_side
from benchmarks.question import Bound, Effort, Goal, Line, Question, Role, Section, Skipped
from run_task import Pipeline, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.sources import Batch, Journal

AT_ONCE = 400
"""How many rows a batch has, as of a broker."""

MANY = Goal(Bound.AT_LEAST, 300)
SINGLE = Goal(Bound.AT_LEAST, 50)
"""In thousands of rows a second."""

RATE, BURST = 1_000, 10


class Rows:
    """So many rows, as fast as they are taken."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._first = time.time_ns() // 1_000_000 - 10_000

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for at in range(self._count):
            row = {"symbol": f"S{at % 50}", "price": at * 0.25, "size": at}
            yield self._first + at // 100, row


class Batches(Rows):
    """The same in batches."""

    def batches(self) -> Iterator[Batch]:
        for first in range(0, self._count, AT_ONCE):
            ats = np.arange(first, min(first + AT_ONCE, self._count))
            symbols = np.array([f"S{at % 50}" for at in ats.tolist()], object)
            columns = {"symbol": symbols, "price": ats * 0.25, "size": ats}
            yield Batch(self._first + ats // 100, columns)


class Steady:
    """So many rows a second, for a while.

    :param seconds: for how long
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        due = time.monotonic()
        while time.monotonic() < self._until:
            now = time.time_ns() // 1_000_000
            for at in range(BURST):
                yield now, {"symbol": f"S{at}", "price": at * 0.5, "size": at}
            due += BURST / RATE
            time.sleep(max(0.0, due - time.monotonic()))


@task
def rows_seen(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


def run(source: Any, journal: str | None) -> tuple[float, TimeSeries]:
    """Seconds of processor time that a pipeline takes, and what it has stored."""
    columns = {"symbol": str, "price": float, "size": int}
    data = TimeSeries(columns, TimeUnit.MILLIS, retention=10_000_000)
    pipeline = Pipeline("bench").source(source, data, name="feed", journal=journal)
    pipeline.stage("rows", [rows_seen], data, "1s")
    begun = time.process_time()
    pipeline.run_sync()
    took = time.process_time() - begun
    stats = pipeline.stats.sources["feed"]
    assert stats.received == stats.stored == len(data.view())
    return took, data


def us_a_row(make: Callable[[int], Any], count: int, *, kept: bool) -> float:
    with tempfile.TemporaryDirectory() as folder:
        took, data = run(make(count), folder if kept else None)
        rows = [*make(count)]
        sizes = [row["size"] for _, row in rows]
        assert data.view()["size"].tolist() == sizes
        if kept:
            held = [(item.row["symbol"], item.row["price"]) for item in Journal(folder)]
            assert held == [(row["symbol"], row["price"]) for _, row in rows]
    return took * 1e6 / count


def bare_us_a_row(count: int) -> float:
    """The same batches, written by Arrow, with an fsync for each."""
    pa: Any = importlib.import_module("pyarrow")
    batches = [*Batches(count).batches()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.arrow"
        begun = time.process_time()
        with path.open("wb") as file:
            writer: Any = None
            for one in batches:
                columns = [one.timestamps, *one.columns.values()]
                made = pa.record_batch(columns, names=["at", *one.columns])
                if writer is None:
                    writer = pa.ipc.new_stream(file, made.schema)
                writer.write_batch(made)
                file.flush()
                os.fsync(file.fileno())
            writer.close()
        took = time.process_time() - begun
        with pa.ipc.open_stream(path) as stream:
            assert stream.read_all().num_rows == count
    return took * 1e6 / count


def percent(seconds: float, *, kept: bool) -> float:
    """How much of one processor a feed takes, in percent."""
    with tempfile.TemporaryDirectory() as folder:
        took, _ = run(Steady(seconds), folder if kept else None)
    return 100 * took / seconds


def answer(effort: Effort) -> Iterator[Question | Skipped]:
    try:
        bare_us_a_row(AT_ONCE)
    except ImportError as error:
        yield Skipped("journals", str(error))
        return
    count = 60_000 if effort.seconds >= 0.1 else 2_000
    ways: dict[str, Callable[[int], float]] = {
        "bare: Arrow and an fsync a batch": bare_us_a_row,
        "batches, without": partial(us_a_row, Batches, kept=False),
        "batches, with a journal": partial(us_a_row, Batches, kept=True),
        "row by row, without": partial(us_a_row, Rows, kept=False),
        "row by row, with a journal": partial(us_a_row, Rows, kept=True),
    }
    rounds = side_by_side({name: partial(how, count) for name, how in ways.items()}, effort.repeats)
    floor = next(iter(rounds))
    goals = {"batches, with a journal": MANY, "row by row, with a journal": SINGLE}
    yield Question(
        f"Journals: 1000 rows a second of processor time, of {count:,}",
        [
            Line(
                *(name, Role.FLOOR if name == floor else Role.OURS, "1000/s"),
                Figure.of([1e3 / one for one in took]),
                goal=goals.get(name),
            )
            for name, took in rounds.items()
        ],
    )
    seconds = 25 * effort.seconds
    percent(min(seconds, 1.0), kept=True)  # what is imported then is there
    shares = side_by_side(
        {
            "without": partial(percent, seconds, kept=False),
            "with": partial(percent, seconds, kept=True),
        },
        effort.repeats,
    )
    yield Question(
        "Journals: percent of a processor, at 1000 rows/s",
        [
            Line(name, Role.FLOOR if name == "without" else Role.OURS, "%", Figure.of(took))
            for name, took in shares.items()
        ],
    )


SECTION = Section("journal", answer)
