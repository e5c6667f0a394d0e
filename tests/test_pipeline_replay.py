"""Replay: deterministic to the bit, and equal to what ran live."""

from __future__ import annotations

import csv
import itertools
import logging
import random
import threading
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.bench import RecordingSink
from tests.support.proof import examples
from tests.support.threads import together

from run_task import (
    Align,
    Atom,
    Closed,
    ConfigError,
    DataSet,
    OnError,
    Pipeline,
    RunnerConfig,
    RwLock,
    SinkError,
    SourceError,
    Task,
    TaskError,
    TaskInterval,
    TaskTimeout,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    Window,
    task,
)
from run_task.runner._config import ExecutorName
from run_task.sinks import CallbackSink, Result
from run_task.sources import Batch, CsvFile, OnFault, SourceInfo, paced

SECOND = TaskInterval.seconds(1)
MINUTE = TaskInterval.seconds(60)

Results = list[tuple[str, DataSet[Any]]]
Row = dict[str, float]


@task
def seen(values: list[float], start: int, end: int) -> list[float]:
    return list(values)


@task
def count(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.between(start, end))


@task
def everything(view: TimeSeriesView, start: int, end: int) -> list[tuple[int, float]]:
    return list(zip(view.time.tolist(), view["v"].tolist()))


@task
def mean(view: TimeSeriesView, start: int, end: int) -> float:
    rows = view.between(start, end)["v"]
    return float(rows.mean()) if len(rows) else float("nan")


@task
def deviation(view: TimeSeriesView, start: int, end: int) -> float:
    rows = view.between(start, end)["v"]
    return float(rows.std()) if len(rows) else -1.0


@task
def length(values: list[float], start: int, end: int) -> int:
    return len(values)


@task
def total(values: list[float], start: int, end: int) -> float:
    return sum(values)


def add(values: list[float], value: float) -> None:
    values.append(value)


Exact = list[tuple[str, str, str, list[str]]]


def exact(results: Iterable[tuple[str, DataSet[Any]]]) -> Exact:
    """Results for a comparison to the bit, since a NaN is not equal to itself."""
    return [
        (stage, repr(dataset.window), repr(dataset.to_dict()), sorted(dataset.errors))
        for stage, dataset in results
    ]


def by_stage(results: Iterable[tuple[str, DataSet[Any]]]) -> dict[str, Exact]:
    found: dict[str, Exact] = {}
    for result in exact(results):
        found.setdefault(result[0], []).append(result)
    return found


def of_rows(rows: Any, *, grace: int = 0, **kwargs: Any) -> Results:
    """What stage "a" sees of rows that enter a lock, second by second."""
    pipeline = Pipeline()
    data = RwLock[list[float]]([])
    pipeline.source(rows, into=data, ingest=add)
    config = RunnerConfig(grace=TaskInterval.seconds(grace) if grace else None)
    pipeline.stage("a", [seen], data, SECOND, config)
    return list(pipeline.replay(**kwargs))


def windows(results: Results) -> list[Any]:
    return [(dataset.window, dataset["seen"]) for _, dataset in results]


class TestWindows:
    def test_from_the_one_that_holds_the_first_row_to_the_one_that_holds_the_last(self) -> None:
        assert windows(of_rows([(100, 1.0), (101, 2.0), (101, 3.0), (104, 4.0)])) == [
            ((100, 101), [1.0]),
            ((101, 102), [1.0, 2.0, 3.0]),
            ((102, 103), [1.0, 2.0, 3.0]),  # a gap
            ((103, 104), [1.0, 2.0, 3.0]),
            ((104, 105), [1.0, 2.0, 3.0, 4.0]),
        ]

    def test_no_rows_no_windows(self) -> None:
        assert of_rows([]) == []

    def test_a_row_before_the_epoch(self) -> None:
        assert windows(of_rows([(-2, 1.0), (0, 2.0)])) == [
            ((-2, -1), [1.0]),
            ((-1, 0), [1.0]),
            ((0, 1), [1.0, 2.0]),
        ]

    def test_a_row_out_of_order_comes_with_the_one_before_it(self) -> None:
        assert windows(of_rows([(0, 1.0), (2, 2.0), (1, 3.0), (2, 4.0)])) == [
            ((0, 1), [1.0]),
            ((1, 2), [1.0]),
            ((2, 3), [1.0, 2.0, 3.0, 4.0]),
        ]

    def test_grace_waits_for_late_rows(self) -> None:
        assert windows(of_rows([(0, 1.0), (1, 2.0), (0, 3.0), (2, 4.0)], grace=1)) == [
            ((0, 1), [1.0, 2.0, 3.0]),
            ((1, 2), [1.0, 2.0, 3.0, 4.0]),
            ((2, 3), [1.0, 2.0, 3.0, 4.0]),
        ]

    def test_a_part_of_history(self) -> None:
        rows = [(i, float(i)) for i in range(10)]
        part = of_rows(rows, start=3, end=6)
        assert [dataset.window for _, dataset in part] == [(3, 4), (4, 5), (5, 6)]
        assert part == [r for r in of_rows(rows) if 3 < r[1].timestamp <= 6]
        times = [datetime(1970, 1, 1, 0, 0, second, tzinfo=UTC) for second in (3, 6)]
        assert of_rows(rows, start=times[0], end=times[1]) == part
        assert of_rows(rows, start=10) == []
        assert of_rows(rows, end=0) == []
        assert of_rows(rows, start=-5) == of_rows(rows, end=99) == of_rows(rows)

    def test_sliding_windows_and_a_grid_that_begins_with_the_first_row(self) -> None:
        pipeline = Pipeline()
        series = TimeSeries({"v": float}, unit=TimeUnit.SECONDS)
        pipeline.source([(i, {"v": 1.0}) for i in range(3, 12)], into=series)
        config = RunnerConfig(window=TaskInterval.seconds(10), align=Align.START)
        pipeline.stage("a", [count], series, TaskInterval.seconds(5), config)
        found = [(dataset.window, dataset[count]) for _, dataset in pipeline.replay()]
        assert found == [((-2, 8), 5), ((3, 13), 9), ((8, 18), 4)]

    def test_sources_that_enter_the_same_data_are_merged_by_arrival(self) -> None:
        def run(*sources: Any) -> Results:
            pipeline = Pipeline()
            data = RwLock[list[float]]([])
            for source in sources:
                pipeline.source(source, into=data, ingest=add)
            pipeline.stage("a", [seen], data, TaskInterval.seconds(100))
            return list(pipeline.replay())

        one = [(i, float(i)) for i in range(0, 3000, 3)]
        other = [(i, float(-i)) for i in range(1, 3000, 2)]
        ((_, last),) = run(one, other)[-1:]
        expected = sorted(one + other, key=lambda row: row[0])  # of two at a time, the first's
        assert last["seen"] == [row for _, row in expected]
        late = [(5, 1.0), (2, 2.0), (9, 3.0)]
        assert run(late, [(4, 4.0), (6, 5.0)])[-1][1]["seen"] == [4.0, 1.0, 2.0, 5.0, 3.0]


class Batches:
    """Rows in batches, as a file gives them."""

    def __init__(
        self, rows: list[tuple[int, float]], size: int, unit: TimeUnit = TimeUnit.SECONDS
    ) -> None:
        self._rows = rows
        self._size = size
        self._unit = unit

    def about(self) -> SourceInfo:
        return SourceInfo(unit=self._unit)

    def batches(self) -> Iterator[Batch]:
        for start in range(0, len(self._rows), self._size):
            some = self._rows[start : start + self._size]
            yield Batch(np.array([t for t, _ in some]), {"v": np.array([v for _, v in some])})
            yield Batch(np.array([], np.int64), {"v": np.array([])})

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        return ((t, {"v": v}) for t, v in self._rows)


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
def test_batches_give_what_rows_give(size: int) -> None:
    chance = np.random.default_rng(size)
    times = np.arange(3000) * 2 + chance.integers(-20, 20, 3000)
    rows = [(t, float(i)) for i, t in enumerate(times.tolist())]

    def run(source: Any) -> tuple[Exact, Exact]:
        found: list[Exact] = []
        for with_ingest in (False, True):
            pipeline = Pipeline()
            data: Any
            if with_ingest:
                data = RwLock[list[float]]([])
                pipeline.source(source, data, lambda values, row: values.append(row["v"]))
                tasks: list[Any] = [total, length]
            else:
                data = TimeSeries({"v": float}, unit=TimeUnit.SECONDS)
                pipeline.source(source, into=data)
                tasks = [count, mean]
            config = RunnerConfig(grace=TaskInterval.seconds(5))
            pipeline.stage("a", tasks, data, TaskInterval.seconds(30), config)
            found.append(exact(pipeline.replay()))
        return found[0], found[1]

    assert run(Batches(rows, size)) == run(list(iter(Batches(rows, size))))


@task
def rows_seen(view: TimeSeriesView, start: int, end: int) -> list[Any]:
    window = view.in_window
    return [view.time.tolist(), view["v"].tolist(), window.time.tolist(), window["v"].tolist()]


@given(
    steps=st.lists(st.sampled_from([0, 1, 1, 2, 3, 40, -1, -5]), min_size=1, max_size=60),
    size=st.integers(1, 25),
    unit=st.sampled_from([TimeUnit.SECONDS, TimeUnit.MILLIS]),
    closed=st.sampled_from(Closed),
    grace=st.sampled_from([None, 1, 4]),
    window=st.sampled_from([None, 10, 20]),
    align=st.sampled_from(Align),
    there=st.lists(st.integers(95, 130), max_size=4),
    bounds=st.sampled_from([(None, None), (110, None), (None, 140), (104, 119)]),
)
@settings(deadline=None, max_examples=examples(60))
def test_batches_that_enter_whole_show_each_window_what_rows_one_by_one_show(
    steps: list[int],
    size: int,
    unit: TimeUnit,
    closed: Closed,
    grace: int | None,
    window: int | None,
    align: Align,
    there: list[int],
    bounds: tuple[int | None, int | None],
) -> None:
    scale = SECOND.nanos // unit.nanos
    times = list(itertools.accumulate(steps, initial=100))
    rows = [(t * scale, float(i)) for i, t in enumerate(times)]

    def run(source: Any, *, also: bool) -> list[Any]:
        pipeline = Pipeline()
        series = TimeSeries({"v": float}, unit, closed=closed)
        for t in there:
            series.append(t * scale, v=-1.0)
        pipeline.source(source, series, unit=unit)
        config = RunnerConfig(
            grace=None if grace is None else TaskInterval.seconds(grace),
            window=None if window is None else TaskInterval.seconds(window),
            align=align,
        )
        pipeline.stage("a", [rows_seen], series, "5s", config)
        if also:
            pipeline.stage("b", [rows_seen], series, "2s")
        return [(name, d.window, d.to_dict(), d.errors) for name, d in pipeline.replay(start, end)]

    start, end = (None if bound is None else bound * scale for bound in bounds)
    one_by_one = [(t, {"v": v}) for t, v in rows]
    in_batches = Batches(rows, size, unit)
    for also in (False, True):
        assert run(in_batches, also=also) == run(one_by_one, also=also)


@pytest.mark.parametrize("first", [1_700_000_000_000, -(2**63), 2**63 - 8])
@pytest.mark.parametrize("closed", Closed)
def test_timestamps_that_take_more_than_64_bits_as_nanoseconds_are_those_that_they_are(
    first: int, closed: Closed
) -> None:
    rows = [(first + i, float(i)) for i in range(8)]

    def run(source: Any, *, live: bool) -> list[Any]:
        series = TimeSeries({"v": float}, TimeUnit.SECONDS, closed=closed)
        pipeline, sink = Pipeline(), RecordingSink()
        played = paced(source, 1e9, unit=TimeUnit.SECONDS) if live else source
        pipeline.source(played, series, max_ahead=None)
        pipeline.stage("a", [rows_seen], series, TaskInterval.seconds(3)).sink(sink)
        if live:
            pipeline.run_sync()
            return [(dataset.window, dataset.to_dict()) for _, dataset in sink.results]
        return [(dataset.window, dataset.to_dict()) for _, dataset in pipeline.replay()]

    one_by_one = [(t, {"v": v}) for t, v in rows]
    expected = run(one_by_one, live=False)
    assert sum(len(results["rows_seen"][2]) for _, results in expected) == len(rows)
    for source in (Batches(rows, 5), Batches(rows, 1)):
        assert run(source, live=False) == run(source, live=True) == expected


class LengthsOf:
    """Shared data of one's own: how long others are."""

    def __init__(self, *series: TimeSeries) -> None:
        self._series = series

    def view(self) -> tuple[int, ...]:
        return tuple(len(series.view()) for series in self._series)

    def read(self, timeout: float | None = None) -> AbstractContextManager[tuple[int, ...]]:
        return nullcontext(self.view())


def holder(series: TimeSeries) -> RwLock[dict[str, TimeSeries]]:
    return RwLock({"series": series})


@task
def length_now(value: dict[str, TimeSeries] | tuple[int], start: int, end: int) -> int:
    return value[0] if isinstance(value, tuple) else len(value["series"].view())


@pytest.mark.parametrize("around", [LengthsOf, holder])
@pytest.mark.parametrize("around_first", [False, True])
def test_what_is_part_of_other_data_shows_there_what_has_entered(
    around: Callable[[TimeSeries], Any], around_first: bool
) -> None:
    rows = [(t, float(t)) for t in range(20)]

    def run(source: Any) -> list[int]:
        series = TimeSeries({"v": float}, TimeUnit.SECONDS)
        stages: list[tuple[str, Any, Any]] = [
            ("series", count, series),
            ("around", length_now, around(series)),
        ]
        pipeline = Pipeline()
        for name, each, data in reversed(stages) if around_first else stages:
            pipeline.stage(name, [each], data, TaskInterval.seconds(5))
        pipeline.source(source, series)
        return [d[length_now] for name, d in pipeline.replay() if name == "around"]

    assert run([(t, {"v": v}) for t, v in rows]) == [5, 10, 15, 20]
    assert run(Batches(rows, 100)) == [5, 10, 15, 20]


def test_a_view_is_not_kept_where_what_enters_comes_by_other_data() -> None:
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    around = holder(series)

    def append(value: dict[str, TimeSeries], timestamp: int) -> None:
        value["series"].append(timestamp, v=0.0)

    pipeline = Pipeline()
    pipeline.source([(t, t) for t in range(4)], around, append)
    pipeline.stage("around", [length_now], around, SECOND)
    pipeline.stage("a", [count], series, SECOND)
    counts = [dataset[count] for name, dataset in pipeline.replay() if name == "a"]
    assert counts == [1, 1, 1, 1]


def test_a_bad_row_in_a_batch_is_told_when_its_time_comes() -> None:
    class Texts(Batches):
        def batches(self) -> Iterator[Batch]:
            texts = np.array(["a", "b", "c", "d", "e", "f", "g", "too long", "i"], object)
            yield Batch(np.arange(9), {"v": texts})

    series = TimeSeries({"v": "U1"}, unit=TimeUnit.SECONDS)
    pipeline = Pipeline().source(Texts([], 1), into=series, on_bad_row=OnFault.RAISE)
    pipeline.stage("a", [count], series, TaskInterval.seconds(2))
    counts: list[int] = []
    with pytest.raises(ConfigError, match="column 'v'"):
        counts.extend(dataset["count"] for _, dataset in pipeline.replay())
    assert counts == [2, 2, 2]


# Determinism


def of_nab(
    path: Path, executor: ExecutorName = "threads", workers: int = 2, speed: float | None = None
) -> Pipeline:
    """Hourly figures of a series, figures of these over a day, and a stage of rows in a list."""
    source = CsvFile(path, unit=TimeUnit.SECONDS)
    series = TimeSeries({"value": float}, unit=TimeUnit.SECONDS)
    hourly = TimeSeries({"v": float}, unit=TimeUnit.SECONDS)
    latest = Atom(0.0)
    rows = RwLock[list[float]]([])
    config = RunnerConfig(
        executor=executor, workers=workers, data_timeout=30.0, upstream_timeout=30.0
    )
    pipeline = Pipeline("nab")
    played = [source, source] if speed is None else [paced(source, speed) for _ in range(2)]
    pipeline.source(played[0], into=series)
    pipeline.source(played[1], rows, lambda values, row: values.append(row["value"]))
    hour: list[Any] = [Mean("hourly"), Spread()]
    pipeline.stage("hour", hour, series, HOUR, config).into(
        hourly, lambda data, ds: data.append(ds.timestamp - 1, v=ds["hourly"])
    ).into(latest, lambda atom, ds: atom.reset(ds["hourly"]))
    figures: list[Any] = [mean, deviation, count]
    wide = RunnerConfig(
        executor=executor,
        workers=workers,
        window=TaskInterval.seconds(7 * 86400),
        data_timeout=30.0,
        upstream_timeout=30.0,
    )
    pipeline.stage("day", figures, hourly, TaskInterval.seconds(86400), wide)
    pipeline.stage("now", [current], latest, TaskInterval.seconds(6 * 3600), config)
    late = RunnerConfig(
        executor="inline", grace=TaskInterval.seconds(900), data_timeout=30.0, upstream_timeout=30.0
    )
    pipeline.stage("rows", [length, total], rows, TaskInterval.seconds(7200), late)
    return pipeline


HOUR = TaskInterval.seconds(3600)


class Mean:
    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, view: TimeSeriesView, start: int, end: int) -> float:
        rows = view.between(start, end)["value"]
        return float(rows.mean()) if len(rows) else 0.0


class Spread:
    name = "spread"

    def run(self, view: TimeSeriesView, start: int, end: int) -> float:
        rows = view.between(start, end)["value"]
        return float(rows.std()) if len(rows) else 0.0


@task
def current(value: float, start: int, end: int) -> float:
    return value


@pytest.fixture(scope="session")
def head(nab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four weeks of a series, with a gap, duplicates, and rows out of order by up to two hours."""
    with (nab / "machine_temperature_system_failure.csv").open() as file:
        header, *rows = itertools.islice(csv.reader(file), 8000)
    del rows[3000:3200]
    for i in range(50, len(rows), 97):
        rows[i], rows[i - i % 24] = rows[i - i % 24], rows[i]
    rows[500] = rows[499] = rows[498]
    path = tmp_path_factory.mktemp("nab") / "head.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


class TestDeterminism:
    def test_two_replays_of_one_pipeline_are_equal_and_leave_its_data_alone(
        self, head: Path
    ) -> None:
        pipeline = of_nab(head)
        first = exact(pipeline.replay())
        assert exact(pipeline.replay()) == first
        assert len(first) > 900
        for stage in pipeline.stages:
            data: Any = stage.data
            with data.read() as view:
                assert view == 0.0 if isinstance(data, Atom) else not len(view)

    @pytest.mark.parametrize(
        ("executor", "workers"),
        [("inline", 1), ("threads", 1), ("threads", 4), ("processes", 1), ("processes", 4)],
    )
    def test_any_executor_gives_the_same(
        self, head: Path, executor: ExecutorName, workers: int
    ) -> None:
        end = datetime(2013, 12, 12, tzinfo=UTC)  # ten days
        expected = exact(of_nab(head, "threads", 2).replay(end=end))
        assert len(expected) > 350
        assert exact(of_nab(head, executor, workers).replay(end=end)) == expected

    def test_data_as_it_is_when_the_replay_begins_is_what_it_starts_from(self) -> None:
        pipeline = Pipeline()
        data = RwLock([7.0])
        pipeline.source([(0, 1.0)], into=data, ingest=add)
        pipeline.stage("a", [seen], data, SECOND)
        replay = pipeline.replay()
        with data.write() as values:
            values.append(8.0)
        assert windows(list(replay)) == [((0, 1), [7.0, 1.0])]
        assert windows(list(pipeline.replay())) == [((0, 1), [7.0, 8.0, 1.0])]


class TestLive:
    """A paced live run gives what a replay gives."""

    @pytest.mark.parametrize("run", range(3))
    def test_of_a_file(self, head: Path, run: int, caplog: pytest.LogCaptureFixture) -> None:
        replayed = of_nab(head)
        expected = by_stage(replayed.replay())
        live: Results = []
        pipeline = of_nab(head, speed=2e6)
        sink = CallbackSink(lambda stage, dataset: live.append((stage, dataset)))
        for stage in pipeline.stages:
            stage.sink(sink)
        pipeline.run_sync()
        assert by_stage(live) == expected
        assert not any(dataset.behind for _, dataset in live)
        assert [text for text in caplog.messages if "come late" not in text] == []
        assert pipeline.stats.sources == replayed.stats.sources
        # The pipeline itself gives it, too: what is played is replayed at once.
        fresh = of_nab(head, speed=2e6)
        assert by_stage(fresh.replay()) == expected

    @pytest.mark.parametrize("run", range(12))
    def test_of_rows_that_windows_tell_apart_only_by_when_they_come(
        self, run: int, switching: None
    ) -> None:
        chance = np.random.default_rng(run)
        times = np.sort(chance.integers(0, 300, 600))
        late = chance.random(600) < 0.1
        times[late] -= chance.integers(0, 20, late.sum())
        rows = [(int(t), float(i)) for i, t in enumerate(times)]

        def pipeline(play: bool) -> Pipeline:
            made = Pipeline()
            first, second, both = (RwLock[list[float]]([]) for _ in range(3))
            source: Any = rows
            other: Any = [(t + 3, v) for t, v in rows[: 300 + run * 20]]
            if play:
                source = paced(rows, 20_000, unit=TimeUnit.SECONDS)
                other = paced(other, 20_000, unit=TimeUnit.SECONDS)
            made.source(source, into=first, ingest=add)
            made.source(other, into=second, ingest=add)
            a = made.stage("a", [length, total], first, TaskInterval.seconds(3))
            b = made.stage(
                "b",
                [length, total],
                second,
                TaskInterval.seconds(4),
                RunnerConfig(grace=TaskInterval.seconds(run % 4) if run % 4 else None),
            )
            for stage in (a, b):
                stage.into(both, lambda data, ds: data.append(ds["total"] + ds.timestamp))
            made.stage("c", [length], both, TaskInterval.seconds(12))
            made.stage("d", [seen], both, TaskInterval.seconds(6))
            return made

        live: Results = []
        played = pipeline(True)
        for stage in played.stages:
            stage.sink(CallbackSink(lambda stage, dataset: live.append((stage, dataset))))
        played.run_sync()
        assert by_stage(live) == by_stage(pipeline(False).replay())

    @pytest.mark.parametrize("run", range(12))
    def test_of_pipelines_made_at_random(self, run: int, switching: None) -> None:
        """Stages and sources that write to the same data, at several intervals and graces."""
        chance = random.Random(run)
        count = chance.randrange(3, 7)
        intervals = [chance.choice([1, 2, 3, 5, 10]) for _ in range(count)]
        graces = [chance.choice([None, None, TaskInterval.seconds(2)]) for _ in range(count)]
        sizes = [None, TaskInterval.seconds(30)]
        links = [(i, j) for j in range(count) for i in range(j) if chance.random() < 0.5]
        fed = [0, *(chance.randrange(count) for _ in range(2))]
        late = [chance.random() < 0.05 for _ in range(500)]
        rows = [[(i - 3 * late[i], i * 10 + j) for i in range(j, 150 + 50 * j)] for j in fed]

        def pipeline(speed: float | None) -> Pipeline:
            made = Pipeline()
            data = [RwLock[list[Any]]([]) for _ in range(count)]
            for target, own in zip(fed, rows):
                source: Any = own
                if speed is not None:
                    source = paced(own, speed, unit=TimeUnit.SECONDS)
                made.source(source, data[target], lambda values, row: values.append(row))
            for i in range(count):
                config = RunnerConfig(
                    grace=graces[i],
                    window=sizes[i % 2],
                    data_timeout=30.0,
                    executor="inline" if i % 3 else "threads",
                )
                stage = made.stage(
                    str(i), [Tail()], data[i], TaskInterval.seconds(intervals[i]), config
                )
                for _, target in (link for link in links if link[0] == i):
                    stage.into(data[target], lambda values, ds: values.append(hash(ds["tail"])))
            return made

        live: Results = []
        played = pipeline(chance.choice([500.0, 20_000.0]))
        for stage in played.stages:
            stage.sink(CallbackSink(lambda stage, dataset: live.append((stage, dataset))))
        played.run_sync()
        assert by_stage(live) == by_stage(pipeline(None).replay())
        assert not any(dataset.behind for _, dataset in live)

    def test_of_no_rows_at_all(self) -> None:
        live: Results = []
        data = RwLock[list[float]]([])
        nothing: list[tuple[int, float]] = []
        pipeline = Pipeline().source(paced(nothing, unit=TimeUnit.SECONDS), into=data, ingest=add)
        pipeline.stage("a", [seen], data, TaskInterval.minutes(60)).sink(
            CallbackSink(lambda stage, dataset: live.append((stage, dataset)))
        )
        pipeline.run_sync()
        assert live == []


class Tail:
    name = "tail"

    def run(self, values: list[Any], start: int, end: int) -> tuple[Any, ...]:
        return len(values), end, *values[-10:]


# Faults


def test_a_task_that_fails_is_an_error_of_its_window() -> None:
    @task
    def picky(values: list[float], start: int, end: int) -> float:
        return 1 / (end - 2)

    pipeline = Pipeline()
    data = RwLock[list[float]]([])
    pipeline.source([(i, 0.0) for i in range(4)], into=data, ingest=add)
    pipeline.stage("a", [picky, length], data, SECOND)
    results = list(pipeline.replay())
    assert [list(dataset.errors) for _, dataset in results] == [[], ["picky"], [], []]
    assert [dataset[length] for _, dataset in results] == [1, 2, 3, 4]


def test_a_failure_may_end_it() -> None:
    @task
    def picky(values: list[float], start: int, end: int) -> float:
        return 1 / (end - 2)

    pipeline = Pipeline()
    data = RwLock[list[float]]([])
    pipeline.source([(i, 0.0) for i in range(4)], into=data, ingest=add)
    pipeline.stage("a", [picky], data, SECOND, RunnerConfig(on_error=OnError.RAISE))
    results: Results = []
    with pytest.raises(TaskError, match=r"'picky' gave no result for .1970-.*:02Z.: ZeroDivision"):
        results.extend(pipeline.replay())
    assert [dataset.window for _, dataset in results] == [(0, 1), (1, 2)]


def test_a_task_that_hangs_is_left_in_its_thread() -> None:
    go_on = threading.Event()

    @task
    def slow(values: list[float], start: int, end: int) -> int:
        if end == 2:
            go_on.wait(20)
        return end

    pipeline = Pipeline()
    data = RwLock[list[float]]([])
    pipeline.source([(i, 0.0) for i in range(4)], into=data, ingest=add)
    config = RunnerConfig(task_timeout=0.05)
    pipeline.stage("a", [slow, length], data, SECOND, config)
    results: Results = []
    for stage, dataset in pipeline.replay():
        results.append((stage, dataset))
        if dataset.timestamp == 3:
            go_on.set()
            time.sleep(0.05)
    assert [dataset.get("slow") for _, dataset in results] == [1, None, None, 4]
    assert isinstance(results[1][1].errors["slow"], TaskTimeout)
    assert [dataset[length] for _, dataset in results] == [1, 2, 3, 4]


def test_what_fails_is_told_with_its_place() -> None:
    def rows() -> Iterator[tuple[int, float]]:
        yield 0, 1.0
        raise OSError("the disk is gone")

    def refuse(values: list[float], dataset: DataSet[Any]) -> None:
        raise ValueError("no more")

    data = RwLock[list[float]]([])
    pipeline = Pipeline().source(rows(), into=data, ingest=add)
    pipeline.stage("a", [length], data, SECOND)
    with pytest.raises(OSError, match="the disk is gone") as caught:
        list(pipeline.replay())
    assert caught.value.__notes__[0].startswith("in the source <generator object")
    pipeline = Pipeline().source([(0, 1.0)], into=data, ingest=add)
    stage = pipeline.stage("a", [length], data, SECOND)
    stage.into(RwLock[list[float]]([]), refuse, on_bad_result=OnFault.RAISE)
    with pytest.raises(ValueError, match="no more") as refused:
        list(pipeline.replay())
    assert refused.value.__notes__ == ["in the ingest of stage 'a'"]


def test_a_result_whose_ingest_raises_costs_itself_in_a_replay() -> None:
    def refuse(into: list[float], dataset: DataSet[Any]) -> None:
        if dataset.timestamp == 2:
            raise ValueError("not now")
        into.append(float(dataset.timestamp))

    data = RwLock[list[float]]([])
    results = RwLock[list[float]]([])
    pipeline = Pipeline().source([(0, 1.0), (1, 2.0), (2, 3.0)], into=data, ingest=add)
    pipeline.stage("a", [length], data, SECOND).into(results, refuse)
    pipeline.stage("b", [length], results, SECOND)
    found = [dataset["length"] for name, dataset in pipeline.replay() if name == "b"]
    assert found == [1, 1, 2]
    assert pipeline.stats.rejected == 1


def test_what_is_to_become_of_results_is_checked() -> None:
    data = RwLock[list[float]]([])
    stage = Pipeline().stage("a", [length], data, SECOND)
    wrong: Any = "skip"
    with pytest.raises(ConfigError, match=r"stage 'a': on_bad_result='skip': it is OnFault.SKIP"):
        stage.into(data, lambda _, dataset: None, on_bad_result=wrong)
    with pytest.raises(ConfigError, match="dead_letters=5: it is a function"):
        stage.into(data, lambda _, dataset: None, dead_letters=5)


def test_an_ingest_that_lacks_a_result_is_told_why_it_is_not_there() -> None:
    @task
    def fails(values: list[float], start: int, end: int) -> float:
        raise ValueError("no")

    data = RwLock[list[float]]([])
    means = TimeSeries({"fails": float}, TimeUnit.SECONDS)
    pipeline = Pipeline().source([(0, 1.0)], into=data, ingest=add)
    stage = pipeline.stage("a", [fails], data, SECOND)
    stage.into(
        means,
        lambda means, dataset: means.append(dataset.timestamp, **dataset),
        on_bad_result=OnFault.RAISE,
    )
    with pytest.raises(ConfigError, match="column 'fails' is missing") as caught:
        list(pipeline.replay())
    assert caught.value.__notes__ == [
        "in the ingest of stage 'a'",
        (
            "of a DataSet without this result: task 'fails' gave no result for "
            "[1970-01-01T00:00:00Z, 1970-01-01T00:00:01Z): ValueError: no"
        ),
    ]


def test_ctrl_c_ends_a_replay_also_while_a_task_runs() -> None:
    @task
    def interrupted(values: list[float], start: int, end: int) -> None:
        raise KeyboardInterrupt  # as Python does in whatever the main thread is at

    pipeline = Pipeline()
    data = RwLock[list[float]]([])
    pipeline.source([(0, 1.0)], into=data, ingest=add)
    pipeline.stage("a", [interrupted], data, SECOND)
    with pytest.raises(KeyboardInterrupt):
        list(pipeline.replay())


# What is left behind


class Counting:
    """A sink that counts what is asked of it."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.flushed = 0
        self.closed = 0

    def write(self, result: Result, /) -> None:
        self.written.append((result.stage, result.dataset))

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_replay_that_is_left_in_the_middle_leaves_nothing(
    executor: ExecutorName, head: Path
) -> None:
    pipeline = of_nab(head, executor)
    sink = Counting()
    pipeline.stages[0].sink(sink)
    before = threading.active_count()
    replay = pipeline.replay()
    next(replay)
    del replay
    assert sink.flushed == 1
    assert sink.closed == 0
    assert threading.active_count() == before
    another = [pipeline.replay()]
    together(lambda: next(another[0]), lambda: None)
    started = time.monotonic()
    another.clear()  # in another thread
    assert time.monotonic() - started < 3


def test_sinks_get_what_is_given_and_stay_open() -> None:
    pipeline = Pipeline()
    data = RwLock[list[float]]([])
    pipeline.source([(i, 0.0) for i in range(3)], into=data, ingest=add)
    sink = Counting()
    pipeline.stage("a", [length], data, SECOND).sink(sink)
    pipeline.stage("b", [length], data, SECOND).sink(sink)
    pipeline.stage("c", [length], data, SECOND)
    results = list(pipeline.replay())
    assert sink.written == [result for result in results if result[0] != "c"]
    assert (sink.flushed, sink.closed) == (1, 0)


class TestGeneratorsAsSources:
    """Their finally blocks run when a replay ends or is left, whoever else has them."""

    def replay(self, *sources: Any) -> Any:
        data = RwLock[list[float]]([])
        pipeline = Pipeline()
        for source in sources:
            pipeline.source(source, data, add)
        pipeline.stage("a", [length], data, SECOND)
        return pipeline.replay()

    def rows(self, closed: list[str], fails: BaseException | None = None) -> Iterator[Any]:
        try:
            for second in range(5_000):
                yield second, 1.0
                if fails is not None and second == 3:
                    raise fails
        finally:
            closed.append("closed")

    def test_when_it_is_left(self) -> None:
        closed: list[str] = []
        first, second = self.rows(closed), self.rows(closed)
        replay = self.replay(first, second)
        next(replay)
        assert not closed
        replay.close()
        assert closed == ["closed", "closed"]

    def test_when_it_ends_before_they_do(self) -> None:
        closed: list[str] = []
        source = self.rows(closed)
        data = RwLock[list[float]]([])
        pipeline = Pipeline().source(source, data, add)
        pipeline.stage("a", [length], data, SECOND)
        assert len(list(pipeline.replay(end=2))) == 2
        assert closed == ["closed"]

    def test_when_another_one_fails(self) -> None:
        closed: list[str] = []
        source, failing = self.rows(closed), self.rows([], OSError("unplugged"))
        with pytest.raises(OSError, match="unplugged") as caught:
            list(self.replay(source, failing))
        assert "in the source <generator" in caught.value.__notes__[0]
        assert closed == ["closed"]

    def test_batches_are_closed_too(self) -> None:
        closed: list[str] = []

        class File(Batches):
            def batches(self) -> Iterator[Batch]:
                try:
                    yield from super().batches()
                finally:
                    closed.append("closed")

        series = TimeSeries({"v": float}, unit=TimeUnit.SECONDS)
        source = File([(t, 1.0) for t in range(100)], 10)
        pipeline = Pipeline().source(source, into=series)
        pipeline.stage("a", [count], series, SECOND)
        replay = pipeline.replay()
        next(replay)
        replay.close()
        assert closed == ["closed"]

    @pytest.mark.parametrize("exit_", [SystemExit(3), GeneratorExit()])
    def test_one_that_exits_fails_and_does_not_end_the_program(self, exit_: BaseException) -> None:
        closed: list[str] = []
        with pytest.raises(SourceError, match=r"<generator .*: it raised \w+Exit") as caught:
            list(self.replay(self.rows(closed, exit_)))
        assert caught.value.__cause__ is exit_
        assert closed == ["closed"]


class Picky(Counting):
    """A sink that raises at one window."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def write(self, result: Result, /) -> None:
        if result.window.end == 2:
            raise self._error
        super().write(result)


def to_two_sinks(error: Exception) -> tuple[Pipeline, Picky, Counting]:
    pipeline = Pipeline("p")
    data = RwLock[list[float]]([])
    pipeline.source([(i, 0.0) for i in range(4)], into=data, ingest=add)
    first, second = Picky(error), Counting()
    pipeline.stage("a", [length], data, SECOND).sink(first).sink(second)
    return pipeline, first, second


def test_a_result_that_a_sink_cannot_store_costs_itself(caplog: pytest.LogCaptureFixture) -> None:
    pipeline, picky, other = to_two_sinks(SinkError("no"))
    for replays in (1, 2):
        results = list(pipeline.replay())
        assert [dataset.timestamp for _, dataset in results] == [1, 2, 3, 4]
        assert other.written[-4:] == results
        assert picky.written[-3:] == [results[0], *results[2:]]
        assert pipeline.stats.refused == replays
    assert (
        "cannot store what stage 'a' gave for [1, 2), and leaves it out: no" in caplog.messages[0]
    )
    assert "left out 1 more result, the last of stage 'a' for [1, 2): no" in caplog.messages[1]


def test_a_sink_that_fails_ends_a_replay_and_all_sinks_are_flushed() -> None:
    pipeline, picky, other = to_two_sinks(OSError("disk full"))
    replay = pipeline.replay()
    assert next(replay)[1].timestamp == 1
    with pytest.raises(OSError, match="disk full"):
        next(replay)
    assert (picky.flushed, other.flushed) == (1, 1)
    assert pipeline.stats.refused == 0


def test_constant_memory() -> None:
    def peak(count: int, config: RunnerConfig, last: int | None = 0) -> int:
        """Run over so many rows, keeping the last results, or all of them."""

        def rows() -> Iterator[tuple[int, Row]]:
            return ((i, {"v": 1.0}) for i in range(count))

        pipeline = Pipeline()
        series = TimeSeries({"v": float}, unit=TimeUnit.SECONDS, retention=100)
        pipeline.source(rows(), into=series)
        pipeline.stage("a", [mean], series, TaskInterval.seconds(10), config)
        tracemalloc.start()
        try:
            deque(pipeline.replay(), maxlen=last)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2_000, RunnerConfig())
    # What 1 600 more windows take when all their DataSets are kept. The peaks of two runs that keep
    # none differ by up to a fifth of it, as threads meet and as cycles wait to be collected.
    kept = peak(20_000, RunnerConfig(), last=None) - peak(4_000, RunnerConfig())
    for config in (RunnerConfig(), RunnerConfig(task_timeout=5.0)):
        assert peak(20_000, config) - peak(4_000, config) < kept / 3


def test_a_replay_beside_a_live_run() -> None:
    clock = VirtualClock()
    pipeline = Pipeline(clock=clock)
    data = RwLock[list[float]]([])
    pipeline.source([(0, 1.0)], into=data, ingest=add)
    stage = pipeline.stage("a", [length], data, SECOND)
    with pipeline:
        assert [dataset[length] for _, dataset in pipeline.replay()] == [1]
    assert stage.data is data


def test_rows_that_a_run_or_a_resume_has_entered_do_not_enter_a_replay_as_well() -> None:
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    values, latest = RwLock[list[float]]([]), Atom(7.0)
    pipeline = Pipeline()
    recorded = paced([(s, {"v": float(s)}) for s in range(4)], 1000.0, unit=TimeUnit.SECONDS)
    pipeline.source(
        recorded,
        (series, values, latest),
        (None, lambda data, row: data.append(row["v"]), lambda data, row: data.reset(row["v"])),
    )

    @task
    def seen(
        view: tuple[TimeSeriesView, list[float], float], start: int, end: int
    ) -> tuple[int, int, float]:
        return len(view[0]), len(view[1]), view[2]

    @task
    def before(view: TimeSeriesView, start: int, end: int) -> int:
        return len(view)

    stage = pipeline.stage("a", [seen], (series, values, latest), SECOND)
    results = TimeSeries({"at": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    stage.into(results, lambda data, dataset: data.append(dataset.timestamp, at=1))
    pipeline.stage("b", [before], results, SECOND)
    wanted = list(map(str, pipeline.replay()))
    assert len(wanted) == 8
    pipeline.run_sync()
    assert (len(series.view()), len(results.view())) == (4, 4)
    assert list(map(str, pipeline.replay())) == wanted
    assert len(series.view()) == 4


def size_of(data: Any, start: int, end: int) -> int:
    return len(data)


def test_a_replay_is_refused_of_data_that_is_not_known_as_it_was() -> None:
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    series.append(0, v=1.0)
    targets: list[tuple[Any, Any, Any]] = [(series, None, {"v": 1.0}), (RwLock([1.0]), add, 1.0)]
    for data, ingest, row in targets:
        pipeline = Pipeline()
        pipeline.source(paced([(1, row)], 1000.0, unit=TimeUnit.SECONDS), data, ingest)
        pipeline.stage("a", [Task(size_of, "n")], data, SECOND)
        assert [dataset["n"] for _, dataset in pipeline.replay()][-1] == 2
        pipeline.run_sync()
        with pytest.raises(
            ConfigError, match=r"replay\(\): <.*not known any more as it was before"
        ):
            pipeline.replay()


def test_a_row_for_a_series_is_a_mapping() -> None:
    def replayed(row: Any) -> list[Any]:
        series = TimeSeries({"v": float}, TimeUnit.SECONDS)
        pipeline = Pipeline()
        pipeline.source([(0, row)], into=series, on_bad_row=OnFault.RAISE)
        pipeline.stage("a", [count], series, SECOND)
        return [dataset[count] for _, dataset in pipeline.replay()]

    assert replayed({"v": 1.0}) == replayed(MappingProxyType({"v": 1.0})) == [1]
    with pytest.raises(ConfigError, match=r"a mapping of column to value.*and not 1\.0") as caught:
        replayed(1.0)
    assert "in the source" in caught.value.__notes__[0]


def test_nothing_is_logged_when_all_is_well(
    head: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with head.open() as file:
        header, *rows = file
    path = tmp_path / "sorted.csv"
    path.write_text("".join([header, *sorted(rows)]))
    with caplog.at_level(logging.INFO):
        list(of_nab(path).replay())
    assert caplog.records == []


def test_a_window_is_a_window() -> None:
    ((_, dataset),) = of_rows([(5, 1.0)])
    assert isinstance(dataset.window, Window)
    assert dataset.lateness == 0.0


def test_results_become_rows_under_the_names_of_their_tasks() -> None:
    @task
    def low(view: TimeSeriesView, start: int, end: int) -> float:
        return float(view.between(start, end)["value"].min())

    @task(name="rows")
    def many(view: TimeSeriesView, start: int, end: int) -> int:
        return len(view.between(start, end))

    @task
    def all_rows(view: TimeSeriesView, start: int, end: int) -> list[tuple[int, float, int]]:
        return list(zip(view.time.tolist(), view["low"].tolist(), view["rows"].tolist()))

    values = TimeSeries({"value": float}, TimeUnit.SECONDS)
    lows = TimeSeries({"low": float, "rows": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    recorded = [(0, {"value": 3.0}), (1, {"value": 2.0}), (4, {"value": 5.0})]
    pipeline = Pipeline("p").source(recorded, into=values)
    pipeline.stage("first", [many, low, count], values, TaskInterval.seconds(2)).into(lows)
    pipeline.stage("second", [all_rows], lows, TaskInterval.seconds(2))
    results = [(stage, dataset) for stage, dataset in pipeline.replay()]
    assert [list(dataset.errors) for stage, dataset in results if stage == "first"] == [
        [],
        ["low"],  # there is no least of no values: that window gives no row
        [],
    ]
    assert results[-1][1]["all_rows"] == [(2, 2.0, 2), (6, 5.0, 1)]
