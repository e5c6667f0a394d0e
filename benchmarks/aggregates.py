"""Declared aggregates: many windows at once, by key and live, beside what others take for them."""

from __future__ import annotations

import importlib
import math
import resource
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.apart import apart
from benchmarks.measure import Figure, Rounds, side_by_side
from benchmarks.question import (
    Bound,
    Effort,
    Goal,
    Line,
    Question,
    Role,
    Section,
    Skipped,
    compared,
)
from benchmarks.replay import CSP, FIRST, Recorded, written
from run_task import Pipeline, Replay, RunnerConfig, TimeSeries, TimeUnit
from run_task import aggregates as agg
from run_task.executors._states import States
from run_task.runner._keys import Keys, bound_of, crew_of
from run_task.sinks import Layout, ParquetSink
from run_task.sources import Batch, ParquetFile
from run_task.tasks._tick import Tick
from run_task.time._interval import TaskInterval

POLARS = "polars, group_by_dynamic"
PANDAS = "pandas, groupby"
DUCKDB = "DuckDB"
LOOP = "a NumPy loop"
OURS = "run-task"
OURS_RETAINING = "run-task, with a retention of 2 h"

NO_SLOWER = Goal(Bound.AT_MOST, 1)
A_TICK = Goal(Bound.AT_MOST, 60)
A_KEYED_TICK = Goal(Bound.AT_MOST, 30)
A_SLIDING_TICK = Goal(Bound.AT_MOST, 10)
IN_MEMORY = Goal(Bound.AT_MOST, 500)
READING = Goal(Bound.AT_LEAST, 10)
WRITING = Goal(Bound.AT_LEAST, 4)

MINUTE = 60
START = FIRST // MINUTE * MINUTE

FIVE = (
    agg.mean("value"),
    agg.std("value", ddof=0),
    agg.min("value"),
    agg.max("value"),
    agg.last("value"),
)
MEAN_AND_COUNT = agg.mean("value"), agg.count()
TWO = agg.mean("value"), agg.std("value", ddof=0)
THREE = agg.mean("value"), agg.std("value", ddof=0), agg.median("value")
TEN = (
    *FIVE,
    agg.count(),
    agg.first("value"),
    agg.sum("value"),
    agg.median("value"),
    agg.quantile("value", 0.99),
)

Rows = dict[Any, tuple[float, ...]]
"""Results by the start of a window, or by that and a key."""


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def same(one: Rows, other: Rows) -> bool:
    """Whether two systems have computed the same, but for the order in which they add."""
    return one.keys() == other.keys() and all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
        for key, row in one.items()
        for a, b in zip(row, other[key], strict=True)
    )


def recorded(rows: int, keys: int = 1) -> Recorded:
    """So many rows a second, with ints as keys, in batches as files give them."""
    times = START + np.arange(rows) // keys
    values = np.random.default_rng(1).normal(100, 5, rows)
    return Batches(Batch(times, {"key": np.arange(rows) % keys, "value": values}))


class Batches(Recorded):
    """A source in memory that gives 65 536 rows at a time."""

    def batches(self) -> Iterator[Batch]:
        for first in range(0, len(self.batch), 65_536):
            yield self.batch[first : first + 65_536]


def replay(
    source: Recorded,
    tasks: Sequence[Any],
    window: int | None = None,
    retention: str | None = None,
) -> Replay:
    """A DataSet for each window of a minute, or of so many seconds each minute."""
    data = TimeSeries({"key": int, "value": float}, TimeUnit.SECONDS, retention)
    pipeline = Pipeline("aggregates").source(source, into=data)
    config = RunnerConfig() if window is None else RunnerConfig(window=f"{window}s")
    pipeline.stage("statistics", tasks, data, "1m", config)
    return pipeline.replay()


def replayed(
    source: Recorded,
    tasks: Sequence[Any],
    window: int | None = None,
    retention: str | None = None,
) -> Rows:
    given = replay(source, tasks, window, retention)
    return {dataset.timestamp: tuple(dataset.values()) for _, dataset in given}


def windows(
    source: Recorded,
    tasks: Sequence[Any],
    window: int | None = None,
    retention: str | None = None,
) -> int:
    """How many windows were given and looked at."""
    return sum(not dataset.errors for _, dataset in replay(source, tasks, window, retention))


def replayed_by_key(source: Recorded) -> list[Any]:
    data = TimeSeries({"key": int, "value": float}, TimeUnit.SECONDS, key="key")
    pipeline = Pipeline("aggregates").source(source, into=data)
    pipeline.stage("statistics", TWO, data, "1m", by="key")
    return [dataset for _, dataset in pipeline.replay()]


# Windows of a minute


def tumbling(rows: int, repeats: int) -> Rounds:
    """Milliseconds of five statistics a minute."""
    source = recorded(rows)
    times, values = source.batch.timestamps, source.batch.columns["value"]
    polars: Any = importlib.import_module("polars")
    pandas: Any = importlib.import_module("pandas")
    column = polars.col("value")
    frame = polars.DataFrame({"time": times, "value": values}).with_columns(
        polars.from_epoch("time", time_unit="s")
    )
    series = pandas.DataFrame({"time": times, "value": values})

    def by_polars() -> Any:
        return frame.group_by_dynamic("time", every="1m").agg(
            column.mean().alias("mean"),
            column.std(ddof=0).alias("std"),
            column.min().alias("min"),
            column.max().alias("max"),
            column.last().alias("last"),
        )

    def by_pandas() -> Any:
        grouped = series["value"].groupby(series["time"] // MINUTE)
        return grouped.agg(["mean", "min", "max", "last"]), grouped.std(ddof=0)

    def by_loop() -> Rows:
        found: Rows = {}
        at = 0
        for end in range(START + MINUTE, int(times[-1]) + MINUTE + 1, MINUTE):
            start, at = at, int(times.searchsorted(end))
            window = values[start:at]
            found[end] = (
                float(window.mean()),
                float(window.std()),
                float(window.min()),
                float(window.max()),
                float(window[-1]),
            )
        return found

    ours = replayed(source, FIVE)
    assert same(ours, by_loop()), "they compute the same"
    theirs = {
        int(row[0].timestamp()) + MINUTE: row[1:]
        for row in by_polars().with_columns(polars.col("time").dt.replace_time_zone("UTC")).rows()
    }
    assert same(ours, theirs), "they compute the same"
    assert ours == replayed(source, FIVE, retention="2h")
    measured = {POLARS: by_polars, OURS: lambda: windows(source, FIVE), LOOP: by_loop}
    measured[OURS_RETAINING] = lambda: windows(source, FIVE, retention="2h")
    measured[PANDAS] = by_pandas
    return _rounds(measured, repeats)


def _rounds(measured: dict[str, Callable[[], Any]], repeats: int) -> Rounds:
    return side_by_side(
        {name: partial(_milliseconds, work) for name, work in measured.items()}, repeats
    )


def _milliseconds(work: Callable[[], object]) -> float:
    return seconds(work) * 1e3


def duckdb_tumbling(rows: int, repeats: int) -> Rounds:
    """The same by DuckDB."""
    source = recorded(rows)
    connection = _in_duckdb(source)
    query = (
        f"select time // {MINUTE}, avg(value), stddev_pop(value), min(value), max(value), "
        f"last(value order by time) from rows group by 1"
    )
    work = lambda: connection.execute(query).fetchnumpy()  # noqa: E731
    return _rounds({DUCKDB: work}, repeats)


def _in_duckdb(source: Recorded) -> Any:
    duckdb: Any = importlib.import_module("duckdb")
    pandas: Any = importlib.import_module("pandas")
    connection = duckdb.connect()
    frame = pandas.DataFrame({"time": source.batch.timestamps, **source.batch.columns})
    connection.register("frame", frame)
    connection.execute("create table rows as select * from frame")
    return connection


# Windows of an hour, each minute


def sliding(rows: int, repeats: int) -> Rounds:
    """Milliseconds of mean, std and median over the last hour, each minute."""
    source = recorded(rows)
    times, values = source.batch.timestamps, source.batch.columns["value"]

    def by_loop() -> Rows:
        found: Rows = {}
        for end in range(START + MINUTE, int(times[-1]) + MINUTE + 1, MINUTE):
            first, stop = times.searchsorted([end - 3600, end])
            window = values[first:stop]
            found[end] = float(window.mean()), float(window.std()), float(np.median(window))
        return found

    ours = replayed(source, THREE, 3600)
    known = by_loop()
    assert same({end: row for end, row in ours.items() if end in known}, known)
    measured = {LOOP: by_loop, OURS: lambda: windows(source, THREE, 3600)}
    return _rounds(measured, repeats)


def csp_sliding(rows: int, repeats: int) -> Rounds:
    """The same by csp."""
    engine: Any = importlib.import_module("csp")
    stats: Any = importlib.import_module("csp.stats")
    source = recorded(rows)
    times = source.batch.timestamps.astype("datetime64[s]").astype("datetime64[ns]")
    values = source.batch.columns["value"]
    hour, minute = timedelta(hours=1), timedelta(minutes=1)
    start: datetime = times[0].astype("datetime64[us]").item()
    end: datetime = times[-1].astype("datetime64[us]").item() + minute

    def run() -> None:
        value = engine.curve(float, (times, values))
        trigger = engine.timer(minute)
        nodes = [
            stats.mean(value, hour, trigger=trigger),
            stats.stddev(value, hour, ddof=0, trigger=trigger),
            stats.median(value, hour, trigger=trigger),
        ]
        found = engine.run(engine.collect(nodes), starttime=start, endtime=end)
        assert len(found[0]) >= rows // MINUTE - 60

    return _rounds({CSP: run}, repeats)


# By key


def keyed(keys: int, rows: int, repeats: int) -> Rounds:
    """Milliseconds of mean and std of each key, a minute."""
    source = recorded(keys * rows, keys)
    polars: Any = importlib.import_module("polars")
    pandas: Any = importlib.import_module("pandas")
    columns = {"time": source.batch.timestamps // MINUTE, **source.batch.columns}
    frame, table = polars.DataFrame(columns), pandas.DataFrame(columns)
    column = polars.col("value")

    def by_polars() -> Any:
        return frame.group_by("time", "key").agg(
            column.mean().alias("mean"), column.std(ddof=0).alias("std")
        )

    def by_pandas() -> Any:
        grouped = table.groupby(["time", "key"])["value"]
        return grouped.mean(), grouped.std(ddof=0)

    theirs = {((minute + 1) * MINUTE, key): tuple(row) for minute, key, *row in by_polars().rows()}
    ours = {
        (dataset.timestamp, key): tuple(row.values())
        for dataset in replayed_by_key(source)
        for key, row in dataset.rows()
    }
    assert same(ours, theirs), "they compute the same"
    measured = {"polars, group_by": by_polars, OURS: lambda: replayed_by_key(source)}
    measured[PANDAS] = by_pandas
    return _rounds(measured, repeats)


def duckdb_keyed(keys: int, rows: int, repeats: int) -> Rounds:
    """The same by DuckDB."""
    connection = _in_duckdb(recorded(keys * rows, keys))
    query = f"select time // {MINUTE}, key, avg(value), stddev_pop(value) from rows group by 1, 2"
    work = lambda: connection.execute(query).fetchnumpy()  # noqa: E731
    return _rounds({DUCKDB: work}, repeats)


# Files


def from_parquet(path: str, table: str | None) -> tuple[int, float, float]:
    """Replay a file through five aggregates in windows of a minute.

    :param table: a folder for a table of the results; None: they are left
    :return: how many windows that were, how many seconds it took, and the most memory that this
        process had, in MB
    """
    data = TimeSeries({"value": float}, TimeUnit.SECONDS)
    pipeline = Pipeline("parquet").source(ParquetFile(path, unit=TimeUnit.SECONDS), into=data)
    stage = pipeline.stage("statistics", FIVE, data, "1m")
    if table is not None:
        stage.sink(ParquetSink(table, layout=Layout.WIDE))
    begun = time.perf_counter()
    windows = sum(not dataset.errors for _, dataset in pipeline.replay())
    took = time.perf_counter() - begun
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = Path("/proc/self/status")
    if status.exists():  # what the parent had when it forked counts in the other, too
        lines = status.read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return windows, took, kilobytes / 1000


# Live


def tick(rows: int, repeats: int) -> Figure:
    """Microseconds of a tick of ten aggregates over so many rows."""
    data = TimeSeries({"value": float}, TimeUnit.SECONDS)
    data.extend(np.arange(rows), value=np.random.default_rng(1).normal(100, 5, rows))
    every, config = TaskInterval.seconds(rows), RunnerConfig()
    crew = crew_of(TEN, data, every, config, None, States())
    bound = bound_of(data, every, config, None, States())
    assert bound is not None

    def once() -> float:
        begun = time.process_time()
        for _ in range(200):
            crew.run(Tick(bound(data.view(), 0, rows), 0, rows))
        return (time.process_time() - begun) / 200 * 1e6

    found = Figure.of([once() for _ in range(repeats)])
    crew.close(5.0)
    return found


def keyed_tick(keys: int, rows: int, repeats: int) -> Figure:
    """Milliseconds of a tick of five aggregates by key, with the grouping."""
    data = TimeSeries({"key": str, "value": float}, TimeUnit.SECONDS, key="key")
    random = np.random.default_rng(1)
    names = np.array([f"device-{number}" for number in range(keys)], object)
    data.extend(np.zeros(rows, int), key=names[np.arange(rows) % keys], value=random.random(rows))
    by = Keys.checked("key", "1h", 10 * keys)
    config = RunnerConfig()
    every = TaskInterval.seconds(1)
    crew = crew_of(FIVE, data, every, config, by, States())
    bound = bound_of(data, every, config, by, States())
    assert bound is not None

    def once() -> float:
        begun = time.process_time()
        dataset: Any = crew.run(Tick(bound(data.view(), 0, 1), 0, 1))
        took = time.process_time() - begun
        assert len(dataset.keys_of_rows) == keys
        return took * 1e3

    found = Figure.of([once() for _ in range(repeats)])
    crew.close(5.0)
    return found


def answer(effort: Effort) -> Iterator[Question | Skipped]:
    whole = effort.seconds >= 0.1  # else only to see that it works
    rows, few, keys = (1_000_000, 100_000, 1000) if whole else (6_000, 6_000, 20)
    repeats = max(3, effort.repeats)

    rounds = tumbling(rows, repeats)
    theirs, skipped = _measured(DUCKDB, effort, duckdb_tumbling, rows, repeats)
    yield from skipped
    peers = [Line(n, Role.PEER, "ms", Figure.of(values)) for n, values in theirs.items()]
    yield Question(
        f"Aggregates: ms for {rows:,} rows, 5 statistics in {rows // MINUTE:,} windows",
        [*compared(rounds, "ms", goals={OURS: NO_SLOWER}), *peers],
    )

    rounds = sliding(few, repeats)
    theirs, skipped = _measured(CSP, effort, csp_sliding, few, repeats)
    yield from skipped
    yield Question(
        f"Aggregates: ms for mean, std and median of the last hour each minute, {few:,} rows",
        compared({**theirs, **rounds}, "ms", goals={OURS: NO_SLOWER}),
    )

    rounds = keyed(keys, 1000, repeats)
    theirs, skipped = _measured(DUCKDB, effort, duckdb_keyed, keys, 1000, repeats)
    yield from skipped
    yield Question(
        f"Aggregates: ms for mean and std a minute of {keys:,} keys with 1000 rows each",
        compared({**theirs, **rounds}, "ms", goals={OURS: NO_SLOWER}),
    )

    many = 10 * rows
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "rows.parquet")
        written(many, Path(path))
        runs = [
            apart(OURS, from_parquet, path, table) for table in (None, str(Path(folder) / "table"))
        ]
    lines: list[Line] = []
    for run, told, goal in zip(runs, ("", ", into a table"), (READING, WRITING)):
        if isinstance(run, Skipped):
            raise RuntimeError(f"{run.name}: {run.why}")
        _, took, megabytes = run
        lines += [
            _line(f"rows a second{told}", "10⁶/s", [many / took / 1e6], goal),
            _line(f"most memory{told}", "MB", [megabytes], IN_MEMORY),
        ]
    yield Question(
        f"Aggregates: replay of {many:,} rows of Parquet, 5 aggregates in windows of a minute",
        lines,
    )

    yield Question(
        "Aggregates: a tick",
        [
            Line("10 over 1000 rows", Role.OURS, "µs", tick(1000, repeats), goal=A_TICK),
            Line(
                f"5 of {10 * keys:,} keys over {few:,} rows",
                Role.OURS,
                "ms",
                keyed_tick(10 * keys, few, repeats),
                goal=A_KEYED_TICK,
            ),
        ],
    )

    hour, ticks = (3600, 40) if effort.seconds >= 0.1 else (60, 3)
    lines = []
    for window, step, those, tasks in (
        (60, 1, 10 * keys, MEAN_AND_COUNT),
        (hour, 1, keys // 10, MEAN_AND_COUNT),
        (hour, 1, keys, MEAN_AND_COUNT),
        (hour, 1, 10 * keys, MEAN_AND_COUNT),
        (hour, 1, 10 * keys, FIVE),
        (hour, 60, keys, MEAN_AND_COUNT),
    ):
        times, kilobytes = sliding_ticks(window, step, those, tasks, ticks)
        told = f"{len(tasks)} of {those:,} keys over {window} s, each {step} s"
        limit = A_SLIDING_TICK if tasks is MEAN_AND_COUNT and step == 1 else None
        lines += [
            Line(told, Role.OURS, "ms", Figure.of(times), goal=limit),
            Line(f"{told}: a key", Role.OURS, "kB", Figure.of([kilobytes])),
        ]
    yield Question("Aggregates: a tick by key of a window that slides", lines)


def sliding_ticks(
    window: int, every: int, keys: int, tasks: Sequence[Any], ticks: int
) -> tuple[list[float], float]:
    """Ticks over the last so many seconds by key, with a row a key and second.

    :param every: how many seconds a window ends after the one before
    :return: the milliseconds of each, after one for what is kept from one to the next, and how many
        kilobytes that is for each key
    """
    data = TimeSeries({"key": str, "value": float}, TimeUnit.SECONDS, f"{window}s", key="key")
    names = np.array([f"device-{number}" for number in range(keys)], object)
    random = np.random.default_rng(1)
    at = START

    def come(seconds: int) -> None:
        nonlocal at
        for _ in range(seconds):
            data.extend(np.full(keys, at), key=names, value=random.normal(100, 5, keys))
            at += 1

    by = Keys.checked("key", "1h", 10 * keys)
    config, interval = RunnerConfig(window=f"{window}s"), TaskInterval.seconds(every)
    crew = crew_of(tasks, data, interval, config, by, States())
    bound = bound_of(data, interval, config, by, States())
    assert bound is not None

    def once() -> float:
        begun = time.perf_counter()
        dataset: Any = crew.run(Tick(bound(data.view(), at - window, at), at - window, at))
        took = time.perf_counter() - begun
        assert len(dataset.keys_of_rows) == keys
        return took * 1e3

    come(window)
    tracemalloc.start()
    once()  # what is kept is of that, but for the DataSet
    kilobytes = tracemalloc.get_traced_memory()[0] / keys / 1e3
    tracemalloc.stop()
    took: list[float] = []
    for _ in range(ticks):
        come(every)
        took.append(once())
    crew.close(5.0)
    return took, kilobytes


def _measured(
    peer: str, effort: Effort, measure: Callable[..., Rounds], *args: int
) -> tuple[Rounds, Sequence[Skipped]]:
    """What a peer took, in a process of its own; nothing, if it is not to be measured or cannot."""
    if peer not in effort.peers:
        return {}, ()
    found: Rounds | Skipped = apart(peer, measure, *args)
    return ({}, (found,)) if isinstance(found, Skipped) else (found, ())


def _line(name: str, unit: str, values: Sequence[float], goal: Goal) -> Line:
    return Line(name, Role.OURS, unit, Figure.of(values), goal=goal)


SECTION = Section("aggregates", answer, (CSP, DUCKDB))
