"""Replay: what history costs, window by window and row by row, and whether paced runs keep time."""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from run_task import (
    DataSet,
    Empty,
    Pipeline,
    RunnerConfig,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
)
from run_task.sinks import CallbackSink
from run_task.sources import Batch, CsvFile, ParquetFile, SourceInfo, paced
from run_task.time._interval import TimeUnit

ROWS = 22_695
"""As many as the machine temperature of the Numenta Anomaly Benchmark has, one each 5 minutes."""
INTERVAL = TaskInterval.seconds(300)
MINUTE = TaskInterval.seconds(60)
TICK = TaskInterval.millis(100)
FIRST = 1_700_000_100  # on the grid of 5 minutes
SECOND = TaskInterval.seconds(1)
GAP = 50 * 365 * 86_400
"""Fifty years, in seconds."""

LOOP = "plain loop"
OURS = "run-task"
CSP = "csp"

AS_A_LOOP = Goal(Bound.AT_MOST, 1.5)
AT_ONCE = Goal(Bound.AT_MOST, 10)
IN_MEMORY = Goal(Bound.AT_MOST, 500)
NONE = Goal(Bound.AT_MOST, 0)

Statistic = Callable[[NDArray[np.float64]], float]

STATISTICS: dict[str, Statistic] = {
    "count": len,
    "sum": np.sum,
    "mean": np.mean,
    "median": np.median,
    "min": np.min,
    "max": np.max,
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
    "var": np.var,
    "prod": np.prod,
}
"""By the name that each has in csp, too."""
FEW = ("count", "sum", "mean", "min", "max")


class Of:
    """A task: a statistic of a window."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._statistic = STATISTICS[name]

    def run(self, data: TimeSeriesView, start: int, end: int) -> float:
        return self._statistic(data.between(start, end)["value"])


class Recorded:
    """A source in memory.

    :param batch: its rows
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def about(self) -> SourceInfo:
        return SourceInfo(unit=TimeUnit.SECONDS)

    def batches(self) -> Iterator[Batch]:
        yield self.batch

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return self.batch.rows()


def series(rows: int) -> Recorded:
    """The rows of the file that the environment names in SERIES, or so many made ones."""
    path = os.environ.get("SERIES")
    if path is None:
        times = np.arange(FIRST, FIRST + rows * 300, 300)
        return Recorded(Batch(times, {"value": np.random.default_rng(1).normal(80, 5, rows)}))
    parts = list(CsvFile(path, unit=TimeUnit.SECONDS, columns={"value": float}).batches())
    times = np.concatenate([part.timestamps for part in parts])
    values = np.concatenate([part.columns["value"] for part in parts])
    order = np.argsort(times, kind="stable")
    return Recorded(Batch(times[order], {"value": values[order]}))


Results = dict[int, dict[str, float]]
"""By the end of the window."""


def looped(recorded: Recorded) -> Results:
    """The same by hand: slices of two arrays, in the order of time."""
    times, values = recorded.batch.timestamps, recorded.batch.columns["value"]
    period = INTERVAL.count
    found: Results = {}
    at = 0
    for end in range(
        int(times[0]) // period * period + period, int(times[-1]) + period + 1, period
    ):
        start, at = at, int(times.searchsorted(end))
        window = values[start:at]
        if len(window):
            found[end] = {name: statistic(window) for name, statistic in STATISTICS.items()}
    return found


def replayed(recorded: Recorded) -> Results:
    """By a pipeline of one stage."""
    data = TimeSeries({"value": float}, TimeUnit.SECONDS)
    pipeline = Pipeline("replay").source(recorded, into=data)
    pipeline.stage("statistics", [Of(name) for name in STATISTICS], data, INTERVAL)
    return {
        dataset.timestamp: dataset.to_dict()
        for _, dataset in pipeline.replay()
        if not dataset.errors
    }


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def beside_csp(rows: int, repeats: int) -> Rounds:
    """Milliseconds of the loop, and of csp with its own statistics, over the same rows."""
    engine: Any = importlib.import_module("csp")
    stats: Any = importlib.import_module("csp.stats")
    recorded = series(rows)
    times = recorded.batch.timestamps.astype("datetime64[s]").astype("datetime64[ns]")
    values = recorded.batch.columns["value"]
    period = timedelta(seconds=INTERVAL.count)
    start: datetime = times[0].astype("datetime64[us]").item() - period
    end: datetime = times[-1].astype("datetime64[us]").item() + period

    def run() -> None:
        value = engine.curve(float, (times, values))
        tick = engine.timer(period)
        nodes = [
            engine.apply(getattr(stats, name)(value, interval=period, trigger=tick), float, float)
            for name in STATISTICS
        ]
        every = engine.run(engine.collect(nodes), starttime=start, endtime=end)
        found = {at: dict(zip(STATISTICS, row)) for at, row in every[0]}
        assert len(found) >= len(times)

    both = {LOOP: lambda: seconds(partial(looped, recorded)) * 1e3, CSP: lambda: seconds(run) * 1e3}
    return side_by_side(both, repeats)


def written(rows: int, path: Path) -> None:
    """Write a Parquet file of a row a second."""
    pa: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    random = np.random.default_rng(2)
    schema = pa.schema([("timestamp", pa.int64()), ("value", pa.float64())])
    with parquet.ParquetWriter(path, schema, compression="none") as writer:
        for first in range(0, rows, 1_000_000):
            count = min(1_000_000, rows - first)
            times = np.arange(FIRST + first, FIRST + first + count)
            writer.write(pa.table([times, random.normal(80, 5, count)], schema=schema))


def from_parquet(path: str) -> tuple[int, float, float]:
    """Replay a file through five tasks in windows of a minute.

    :return: how many windows that were, how many seconds it took, and the most memory that this
        process had, in MB
    """
    data = TimeSeries({"value": float}, TimeUnit.SECONDS, retention=TaskInterval.seconds(120))
    pipeline = Pipeline("parquet").source(ParquetFile(path, unit=TimeUnit.SECONDS), into=data)
    pipeline.stage("statistics", [Of(name) for name in FEW], data, MINUTE)
    begun = time.perf_counter()
    windows = sum(not dataset.errors for _, dataset in pipeline.replay())
    took = time.perf_counter() - begun
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Where there is no such file; what the parent had when it forked counts there, too.
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        kilobytes = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return windows, took, kilobytes / 1000


def over_a_gap() -> int:
    """Replay two rows, fifty years apart, in windows of a second, those without a row left out.

    :return: how many windows that were
    """
    data = TimeSeries({"value": float}, TimeUnit.SECONDS)
    times = np.array([FIRST - GAP, FIRST])  # a row of the future would be ahead of the clock
    recorded = Recorded(Batch(times, {"value": np.array([1.0, 2.0])}))
    pipeline = Pipeline("gap").source(recorded, into=data)
    config = RunnerConfig(empty=Empty.SKIP)
    pipeline.stage("statistics", [Of(name) for name in FEW], data, SECOND, config)
    return sum(not dataset.errors for _, dataset in pipeline.replay())


class Watched:
    """A live run of a recording of 1000 rows a second.

    :param duration: how long the recording is, in seconds
    """

    def __init__(self, duration: float) -> None:
        self.late: list[float] = []  # milliseconds, window by window
        self.rows = 0
        count = int(duration * 1000)
        recorded = [(FIRST * 1000 + i, {"value": float(i)}) for i in range(count)]
        data = TimeSeries({"value": float}, retention=TaskInterval.seconds(1))
        pipeline = Pipeline("live")
        pipeline.source(paced(recorded, unit=TimeUnit.MILLIS), into=data)
        pipeline.stage("statistics", [Of(name) for name in FEW], data, TICK).sink(
            CallbackSink(self._note)
        )
        pipeline.run_sync()
        assert self.rows == count, "each row is counted once"

    def _note(self, stage: str, dataset: DataSet[float]) -> None:
        self.late.append(dataset.lateness * 1e3)
        self.rows += int(dataset["count"])

    @property
    def overdue(self) -> int:
        """How many windows came more than an interval late."""
        return sum(late > TICK.as_millis() for late in self.late)


def replay(effort: Effort) -> Iterator[Question | Skipped]:
    rows, many = (ROWS, 10_000_000) if effort.seconds >= 0.4 else (ROWS, 1_000_000)
    if effort.seconds < 0.1:  # to see whether it runs at all
        rows, many = 1_000, 50_000
    beside: list[Line] = []
    repeats = min(effort.repeats, 3)  # of something that takes seconds
    if CSP in effort.peers:
        theirs = apart(CSP, beside_csp, rows, repeats)
        if isinstance(theirs, Skipped):
            yield theirs
        else:
            beside = compared(theirs, "ms", Role.PEER)[1:]
    recorded = series(rows)
    assert looped(recorded) == replayed(recorded), "they compute the same"
    rounds = side_by_side(
        {
            LOOP: lambda: seconds(partial(looped, recorded)) * 1e3,
            OURS: lambda: seconds(partial(replayed, recorded)) * 1e3,
        },
        repeats,
    )
    yield Question(
        f"Replay: ms for {len(recorded.batch):,} rows, 10 tasks in windows of 5 minutes",
        [*compared(rounds, "ms", goals={OURS: AS_A_LOOP}), *beside],
    )

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        written(many, path)
        found = apart(OURS, from_parquet, str(path))
    if isinstance(found, Skipped):
        raise RuntimeError(f"{found.name}: {found.why}")
    windows, took, megabytes = found
    yield Question(
        f"Replay: {many:,} rows of Parquet, 5 tasks in {windows:,} windows of a minute",
        [
            _ours("rows a second", "1000/s", [many / took / 1e3]),
            _ours("a window", "µs", [took / windows * 1e6]),
            _ours("most memory", "MB", [megabytes], IN_MEMORY),
        ],
    )

    assert over_a_gap() == 2, "a window for each row, and none between"
    gaps = [seconds(over_a_gap) * 1e3 for _ in range(max(effort.repeats, 5))]
    yield Question(
        "Replay: ms over a gap of 50 years in windows of a second, the empty ones skipped",
        [_ours("two windows", "ms", gaps, AT_ONCE)],
    )

    runs = [Watched(max(effort.seconds * 10, 0.5)) for _ in range(repeats)]
    yield Question(
        "Live: a recording of 1000 rows a second, 5 tasks each 100 ms",
        [
            _ours("late, p50", "ms", [float(np.percentile(run.late, 50)) for run in runs]),
            _ours("late, p99", "ms", [float(np.percentile(run.late, 99)) for run in runs]),
            _ours("windows more than an interval late", "", [run.overdue for run in runs], NONE),
        ],
    )


def _ours(name: str, unit: str, values: Sequence[float], goal: Goal | None = None) -> Line:
    return Line(name, Role.OURS, unit, Figure.of(values), goal=goal)


SECTION = Section("replay", replay, (CSP,))
