"""Stages that read several data, and stages that read what they feed themselves."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.bench import PipelineBench, RecordingSink
from tests.support.proof import examples
from tests.support.threads import PATIENCE, eventually

from run_task import (
    Align,
    Atom,
    Closed,
    ConfigError,
    DataSet,
    Empty,
    Pipeline,
    RunnerConfig,
    RwLock,
    Task,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.sinks import JsonLinesSink
from run_task.sources import paced

SECONDS = TimeUnit.SECONDS
EXECUTORS = ["inline", "threads", "processes"]


def series(closed: Closed = Closed.LEFT, **settings: Any) -> TimeSeries:
    return TimeSeries({"v": float}, settings.pop("unit", SECONDS), closed=closed, **settings)


def rows(*times: int) -> list[tuple[int, dict[str, float]]]:
    return [(time, {"v": float(time)}) for time in times]


def seen(data: Any, start: int, end: int) -> list[Any]:
    """What a window sees of each input: the times of rows, or the value."""
    return [
        view.time.tolist() if isinstance(view, TimeSeriesView) else view
        for view in (data if isinstance(data, tuple) else (data,))  # pyright: ignore[reportUnknownVariableType]  of views
    ]


def in_window(data: Any, start: int, end: int) -> list[list[int]]:
    return [view.in_window.time.tolist() for view in data if isinstance(view, TimeSeriesView)]


def replayed(pipeline: Pipeline, stage: str, task: str = "seen") -> list[tuple[int, Any]]:
    return [
        (dataset.timestamp, dataset[task]) for name, dataset in pipeline.replay() if name == stage
    ]


# What a window sees


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_window_sees_each_series_up_to_its_end(executor: Any) -> None:
    trades, quotes = series(), series(Closed.RIGHT, unit=TimeUnit.MILLIS)
    pipeline = Pipeline().source(rows(0, 5, 10, 12), trades)
    pipeline.source(rows(4_000, 10_000, 10_001), quotes)
    config = RunnerConfig(executor=executor)
    pipeline.stage("both", [Task(seen)], (trades, quotes), "10s", config)
    assert replayed(pipeline, "both") == [
        (10, [[0, 5], [4_000, 10_000]]),
        (20, [[0, 5, 10, 12], [4_000, 10_000, 10_001]]),
    ]


def test_windows_begin_and_end_with_the_rows_of_any_input() -> None:
    early, late = series(), series()
    pipeline = Pipeline().source(rows(11, 12), early).source(rows(35, 47), late)
    config = RunnerConfig(window=TaskInterval.seconds(20))
    pipeline.stage("both", [Task(in_window)], (late, early), "10s", config)
    assert replayed(pipeline, "both", "in_window") == [
        (20, [[], [11, 12]]),
        (30, [[], [11, 12]]),
        (40, [[35], []]),
        (50, [[35, 47], []]),
        (60, [[47], []]),
    ]


def test_a_window_before_the_first_is_given_if_a_row_of_some_input_comes_in_time() -> None:
    def results(*other: int) -> list[tuple[int, Any]]:
        first, second = series(), series()
        pipeline = Pipeline().source(rows(25, 41), first).source(rows(26, *other), second)
        config = RunnerConfig(grace=TaskInterval.seconds(15))
        pipeline.stage("both", [Task(in_window)], (first, second), "10s", config)
        return replayed(pipeline, "both", "in_window")[:2]

    assert results() == [(30, [[25], [26]]), (40, [[], []])]
    assert results(12) == [(20, [[], [12]]), (30, [[25], [26]])]


def test_rows_of_two_sources_enter_their_own_data_and_their_fates_are_counted_there() -> None:
    first, second = series(), series()
    pipeline = Pipeline().source(rows(1, 12, 3), first, name="first")
    pipeline.source([*rows(2), (11, {"v": "x"}), *rows(13)], second, name="second")
    pipeline.stage("both", [Task(seen)], (first, second), "10s")
    with pipeline.replay() as replay:
        assert len(list(replay)) == 2
        sources = replay.summary.sources
    assert (sources["first"].stored, sources["first"].late) == (3, 1)
    assert (sources["second"].stored, sources["second"].malformed) == (2, 1)


@pytest.mark.parametrize("lock", [True, False])
def test_a_lock_beside_a_series_takes_part(lock: bool) -> None:
    trades: Any = series()
    limits: Any = RwLock({"most": 0.0}) if lock else Atom({"most": 0.0})

    def put(data: Any, row: float) -> None:
        if lock:
            data["most"] = row
        else:
            data.reset({"most": row})

    def over(data: Any, start: int, end: int) -> list[float]:
        view, most = data
        return [v for v in view.in_window["v"].tolist() if v > most["most"]]

    pipeline = Pipeline().source(rows(1, 5, 11, 15), trades)
    pipeline.source([(0, 3.0), (9, 11.0), (25, 0.0)], limits, put)
    pipeline.stage("both", [Task(over)], (trades, limits), "10s")
    assert replayed(pipeline, "both", "over") == [(10, []), (20, [15.0]), (30, [])]


def test_a_window_waits_for_what_feeds_either_input() -> None:
    raw, slow = series(), series()
    pipeline = Pipeline().source(rows(*range(30)), raw)

    @task
    def total(view: TimeSeriesView, start: int, end: int) -> float:
        return float(view.in_window["v"].sum())

    one = pipeline.stage("one", [total], raw, "10s")
    other = pipeline.stage("other", [total], raw, "5s").series()
    pipeline.stage("both", [Task(seen)], (one.series(), other), "10s")
    assert [s.name for s in pipeline.stages][-1] == "both"
    assert replayed(pipeline, "both") == [
        (10, [[10], [5, 10]]),
        (20, [[10, 20], [5, 10, 15, 20]]),
        (30, [[10, 20, 30], [5, 10, 15, 20, 25, 30]]),
    ]
    assert len(slow.view()) == 0


@pytest.mark.parametrize("live", [False, True])
def test_a_window_is_skipped_if_no_series_has_a_row_in_it(live: bool) -> None:
    first, second = series(), series()
    pipeline, sink = Pipeline(), RecordingSink()
    sources = rows(1, 45), rows(22, 2_000)
    for source, into in zip(sources, (first, second), strict=True):
        given: Any = paced(source, 1e9, unit=SECONDS) if live else source
        pipeline.source(given, into)
    config = RunnerConfig(empty=Empty.SKIP, upstream_timeout=6 * PATIENCE)
    stage = pipeline.stage("both", [Task(in_window)], (first, second, Atom(1)), "10s", config)
    stage.sink(sink)
    if live:
        pipeline.run_sync()
    else:
        for _ in pipeline.replay():
            pass
    assert [(ds.timestamp, ds["in_window"]) for ds in sink.of("both")] == [
        (10, [[1], []]),
        (30, [[], [22]]),
        (50, [[45], []]),
        (2_010, [[], [2_000]]),
    ]


@pytest.mark.parametrize("live", [False, True])
def test_a_tuple_of_one_and_of_the_same_twice_are_tuples_too(live: bool) -> None:
    one: Any = series()
    pipeline, sink = Pipeline(), RecordingSink()
    source: Any = rows(1, 12)
    pipeline.source(paced(source, 1e9, unit=SECONDS) if live else source, one)
    config = RunnerConfig(upstream_timeout=6 * PATIENCE)
    tuples: list[tuple[str, Any]] = [
        ("single", (one,)),
        ("twice", (one, one)),
        ("lock", (RwLock("x"),)),
    ]
    for name, data in tuples:
        stage = pipeline.stage(name, [Task(seen)], data, "10s", config)
        stage.sink(sink)
    if live:
        pipeline.run_sync()
    else:
        for _ in pipeline.replay():
            pass
    assert [ds["seen"] for ds in sink.of("single")] == [[[1]], [[1, 12]]]
    assert [ds["seen"] for ds in sink.of("twice")] == [[[1], [1]], [[1, 12], [1, 12]]]
    assert [ds["seen"] for ds in sink.of("lock")] == [["x"], ["x"]]


def test_a_replay_has_one_copy_of_each_input() -> None:
    shared, other = series(), Atom(0.0)
    pipeline = Pipeline().source(rows(1, 11), shared)
    pipeline.source([(2, 1.0), (12, 2.0)], other, lambda atom, row: atom.reset(row))
    pipeline.stage("a", [Task(seen)], (shared, other), "10s")
    pipeline.stage("b", [Task(seen)], (other, shared, other), "10s")
    for _ in range(2):
        assert replayed(pipeline, "a") == [(10, [[1], 1.0]), (20, [[1, 11], 2.0])]
        assert replayed(pipeline, "b") == [(10, [1.0, [1], 1.0]), (20, [2.0, [1, 11], 2.0])]
    assert len(shared.view()) == 0
    assert other.value == 0.0


def test_a_replay_without_sources_goes_through_the_rows_of_all_inputs() -> None:
    first, second = series(), series()
    first.extend([1, 2], v=[0.0, 0.0])
    second.extend([25], v=[0.0])
    pipeline = Pipeline()
    pipeline.stage("both", [Task(in_window)], (first, second), "10s")
    assert replayed(pipeline, "both", "in_window") == [
        (10, [[1, 2], []]),
        (20, [[], []]),
        (30, [[], [25]]),
    ]


def test_resuming_goes_on_with_several_inputs(tmp_path: Path) -> None:
    def made(path: Path, until: int) -> tuple[Pipeline, JsonLinesSink]:
        first, second = series(), series()
        pipeline, sink = Pipeline("p"), JsonLinesSink(path)
        pipeline.source(rows(*range(0, until, 3)), first).source(rows(*range(1, until, 4)), second)
        up = pipeline.stage("up", [Task(total_of_all)], (first, second), "10s")
        pipeline.stage("down", [Task(seen)], (second, up.series()), "20s").sink(sink)
        up.sink(sink)
        return pipeline, sink

    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    pipeline, sink = made(whole, 100)
    list(pipeline.replay())
    sink.close()
    pipeline, sink = made(part, 47)
    list(pipeline.replay())
    sink.close()
    pipeline, sink = made(part, 100)
    resumed = [(name, dataset.timestamp) for name, dataset in pipeline.resume(sink)]
    sink.close()
    assert ("up", 10) not in resumed
    assert results_in(part) == results_in(whole)


def total_of_all(data: Any, start: int, end: int) -> float:
    return float(sum(view.in_window["v"].sum() for view in data))


def results_in(path: Path) -> list[str]:
    return sorted(path.read_text().splitlines())


# Live


class Feed:
    """Rows, as they are put into it."""

    def __init__(self) -> None:
        self.rows: queue.Queue[Any] = queue.Queue()

    def __iter__(self) -> Iterator[Any]:
        while (row := self.rows.get()) is not None:
            yield row

    def close(self) -> None:
        self.rows.put(None)


class Held:
    """A task that waits until it may go on, and tells what it sees of each input."""

    name = "seen"

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def run(self, data: Any, start: int, end: int) -> list[Any]:
        self.entered.set()
        assert self.go_on.wait(PATIENCE)
        return seen(data, start, end)


def test_a_stage_that_is_busy_sees_each_input_as_it_was_when_its_window_fell_due() -> None:
    bench = PipelineBench()
    evicting, latest = series(retention=3), Atom(0)
    kept, feeds = series(), [Feed(), Feed(), Feed()]
    bench.pipeline.source(feeds[0], evicting).source(feeds[2], kept)
    bench.pipeline.source(feeds[1], latest, lambda atom, row: atom.reset(row))
    held = Held()
    bench.stage("slow", (evicting, latest, kept), tasks=[held], upstream_timeout=6 * PATIENCE)
    with bench.pipeline:
        for time in range(6):
            if time:
                bench.advance()
            for feed, row in zip(feeds, ({"v": 0.0}, time, {"v": 0.0}), strict=True):
                feed.rows.put((time, row))
            eventually(lambda: latest.value == time)  # noqa: B023  called at once
            eventually(lambda: len(kept.view()) == time + 1)  # noqa: B023  called at once
            eventually(lambda: evicting.view().time[-1:].tolist() == [time])  # noqa: B023  called at once
        assert not bench.sink.of("slow")
        held.go_on.set()
        bench.sink.wait_for("slow", 5)
    assert [(ds.timestamp, ds["seen"]) for ds in bench.sink.of("slow")] == [
        (end, [[*range(max(end - 3, 0), end)], end - 1, [*range(end)]]) for end in range(1, 6)
    ]


def test_rows_wait_for_a_window_that_reads_a_lock_beside_a_series() -> None:
    bench = PipelineBench()
    trades, limit, feeds = series(), RwLock([0]), [Feed(), Feed()]
    bench.pipeline.source(feeds[0], trades)
    bench.pipeline.source(feeds[1], limit, lambda values, row: values.append(row))

    def both(data: Any, start: int, end: int) -> Any:
        return data[0].time.tolist(), [*data[1]]

    def stored() -> list[int]:
        return [source.stored for source in bench.pipeline.stats.sources.values()]

    bench.stage("both", (trades, limit), tasks=[Task(both)], upstream_timeout=6 * PATIENCE)
    with bench.pipeline:
        for time in range(4):
            if time:
                bench.advance()
            feeds[0].rows.put((time, {"v": 0.0}))
            feeds[1].rows.put((time, time))
            eventually(lambda: stored() == [time + 1] * 2)  # noqa: B023  called at once
            if time:
                bench.sink.wait_for("both", time)
    assert [ds["both"] for ds in bench.sink.of("both")][:3] == [
        ([*range(end)], [0, *range(end)]) for end in range(1, 4)
    ]


# Replay equals live


@dataclass(frozen=True)
class Shape:
    """A pipeline of two sources, two series, an Atom, a stage over all, one that feeds the second
    series, and one that reads what it gave before."""

    first: list[int]
    second: list[int]
    closed: tuple[Closed, Closed]
    retention: tuple[int | None, int | None]
    unit: TimeUnit
    intervals: tuple[int, int, int]
    grace: int
    window: int
    empty: Empty

    def results(self, *, live: bool) -> dict[str, list[Any]]:
        pipeline, sink = Pipeline(), RecordingSink()
        first = series(self.closed[0], retention=self.retention[0])
        second = TimeSeries(
            {"v": float}, SECONDS, retention=self.retention[1], closed=self.closed[1]
        )
        third = series(Closed.LEFT, unit=self.unit)
        latest = Atom(0.0)
        factor = SECONDS.nanos // self.unit.nanos

        def give(times: list[int], by: int = 1) -> Any:
            found = [(time * by, {"v": float(time)}) for time in times]
            return paced(found, 1e9, unit=SECONDS if by == 1 else self.unit) if live else found

        pipeline.source(give(self.first), first)
        pipeline.source(give(self.second), second)
        pipeline.source(give(self.second, factor), third)
        pipeline.source(give(self.first), latest, lambda atom, row: atom.reset(row["v"]))
        grace = TaskInterval.seconds(self.grace) if self.grace else None
        every = [TaskInterval.seconds(interval) for interval in self.intervals]
        config = RunnerConfig(grace=grace, upstream_timeout=6 * PATIENCE)
        fed = pipeline.stage("fed", [Task(newest)], (first, latest), every[0], config)
        fed.into(second, self.put)
        own = series(Closed.RIGHT)
        again = pipeline.stage("own", [Task(newest)], (third, own), f"{self.intervals[1]}s", config)
        again.into(own, put_right)
        all_config = RunnerConfig(
            grace=grace,
            upstream_timeout=6 * PATIENCE,
            window=TaskInterval.seconds(self.window * self.intervals[2]),
            empty=self.empty,
        )
        over_all: Any = (second, first, latest, own)
        over = pipeline.stage("all", [Task(seen), Task(in_window)], over_all, every[2], all_config)
        for stage in (fed, again, over):
            stage.sink(sink)
        if live:
            pipeline.run_sync()
        else:
            for _ in pipeline.replay():
                pass
        return {
            name: [(ds.window, ds.to_dict()) for ds in sink.of(name)]
            for name in ("fed", "own", "all")
        }

    def put(self, into: TimeSeries, dataset: DataSet[Any]) -> None:
        late = self.closed[1] is Closed.LEFT
        into.append(dataset.timestamp - late, v=dataset["newest"])


def put_right(into: TimeSeries, dataset: DataSet[Any]) -> None:
    into.append(dataset.timestamp, v=dataset["newest"])


def newest(data: Any, start: int, end: int) -> float:
    """A number that tells what each input holds, in order."""
    found = 0.5
    for view in data:
        values = view["v"].tolist() if isinstance(view, TimeSeriesView) else [view]
        for value in values:
            found = (found * 31 + value) % 1_000_003
    return found


times = st.lists(st.integers(0, 25), min_size=1, max_size=12)
closed = st.sampled_from(Closed)
shapes = st.builds(
    Shape,
    times,
    times,
    st.tuples(closed, closed),
    st.tuples(st.none() | st.integers(1, 4), st.none() | st.integers(1, 4)),
    st.sampled_from([TimeUnit.SECONDS, TimeUnit.MILLIS]),
    st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6)),
    st.integers(0, 4),
    st.integers(1, 3),
    st.sampled_from(Empty),
)


@settings(max_examples=examples(40), deadline=None)
@given(shapes)
def test_a_live_run_gives_what_a_replay_gives(shape: Shape) -> None:
    assert shape.results(live=True) == shape.results(live=False)


# A stage that reads what it feeds itself


@task
def running(data: tuple[TimeSeriesView, TimeSeriesView], start: int, end: int) -> float:
    raw, own = data
    before = float(own["running"][-1]) if len(own) else 0.0
    return before + float(raw.in_window["v"].sum())


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("live", [False, True])
def test_a_stage_sees_its_own_results_of_the_windows_before(live: bool, executor: Any) -> None:
    raw = series()
    own = TimeSeries({"running": float}, SECONDS, closed=Closed.RIGHT)
    pipeline, sink = Pipeline(), RecordingSink()
    source: Any = rows(1, 2, 13, 24, 25)
    pipeline.source(paced(source, 1e9, unit=SECONDS) if live else source, raw)
    config = RunnerConfig(executor=executor, workers=1, upstream_timeout=6 * PATIENCE)
    stage = pipeline.stage("total", [running, Task(seen)], (raw, own), "10s", config)
    stage.into(own).sink(sink)
    patient = RunnerConfig(upstream_timeout=6 * PATIENCE)
    pipeline.stage("after", [Task(seen)], own, "10s", patient).sink(sink)
    if live:
        pipeline.run_sync()
    else:
        for _ in pipeline.replay():
            pass
    assert [ds[running] for ds in sink.of("total")] == [3.0, 16.0, 65.0]
    assert [ds["seen"][1] for ds in sink.of("total")] == [[], [10], [10, 20]]
    # Others that read it come after, as behind any stage.
    assert [ds["seen"] for ds in sink.of("after")] == [[[10]], [[10, 20]], [[10, 20, 30]]]


def test_it_is_no_circle_and_is_drawn_as_such() -> None:
    own = TimeSeries({"running": float}, SECONDS, closed=Closed.RIGHT)
    raw, other = series(), RwLock([0.0])
    pipeline = Pipeline().source(rows(1), raw)
    stage = pipeline.stage("total", [running], (raw, own), "10s").into(own)
    stage.into(other, lambda values, dataset: None)
    drawn = pipeline.draw()
    assert "reads what it gave before" in drawn
    heads = drawn.count("v9z")
    assert heads == 5  # a source, two of the stage, one of them at both ends, and what it reads
    with pytest.raises(ConfigError, match="would wait for each other forever"):
        pipeline.stage("next", [Task(seen)], other, "10s").into(raw, lambda values, dataset: None)


def test_a_lock_that_a_stage_feeds_itself_is_as_it_was_after_the_window_before() -> None:
    raw, own = series(), RwLock([0.0])

    def grown(data: Any, start: int, end: int) -> float:
        return float(sum(data[1]) + len(data[0].in_window))

    pipeline = Pipeline().source(rows(1, 2, 13, 24), raw)
    stage = pipeline.stage("grown", [Task(grown)], (raw, own), "10s")
    stage.into(own, lambda values, dataset: values.append(dataset["grown"]))
    assert replayed(pipeline, "grown", "grown") == [(10, 2.0), (20, 3.0), (30, 6.0)]


def test_a_window_without_rows_is_skipped_though_it_would_feed_itself() -> None:
    raw = series()
    own = TimeSeries({"running": float}, SECONDS, closed=Closed.RIGHT)
    pipeline = Pipeline().source(rows(1, 1_000_001), raw)
    config = RunnerConfig(empty=Empty.SKIP)
    pipeline.stage("total", [running], (raw, own), "10s", config).into(own)
    assert replayed(pipeline, "total", "running") == [(10, 1.0), (1_000_010, 1_000_002.0)]


def test_a_self_feeding_stage_resumes_as_it_would_have_gone_on(tmp_path: Path) -> None:
    def made(path: Path, until: int) -> tuple[Pipeline, JsonLinesSink]:
        raw = series()
        own = TimeSeries({"running": float}, SECONDS, closed=Closed.RIGHT)
        pipeline, sink = Pipeline("p"), JsonLinesSink(path)
        pipeline.source(rows(*range(until)), raw)
        pipeline.stage("total", [running], (raw, own), "10s").into(own).sink(sink)
        return pipeline, sink

    for path, ends in ((tmp_path / "whole", [100]), (tmp_path / "part", [35, 72, 100])):
        for number, until in enumerate(ends):
            pipeline, sink = made(path, until)
            for _ in pipeline.resume(sink) if number else pipeline.replay():
                pass
            sink.close()
    assert results_in(tmp_path / "part") == results_in(tmp_path / "whole")


# Refusals


def test_an_interval_in_another_unit_than_the_first_series_is_refused() -> None:
    pipeline = Pipeline()
    both: Any = (series(), series(unit=TimeUnit.MILLIS))
    assert pipeline.stage("a", [Task(seen)], both, "1s").interval.unit is SECONDS
    with pytest.raises(ConfigError, match=r"stage 'b': .*it is in millis, and the data in seconds"):
        pipeline.stage("b", [Task(seen)], both, TaskInterval.millis(1000))


@pytest.mark.parametrize(
    ("data", "said"),
    [((), "at least"), ((Atom(1), 2), "number 2 of 2"), ((Atom(1), (Atom(2),)), "a tuple itself")],
)
def test_what_is_no_data_is_refused_by_its_number(data: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=f"stage 'a': .*{said}"):
        Pipeline().stage("a", [Task(seen)], data, "1s")


def test_align_start_begins_for_all_inputs_at_the_first_row() -> None:
    first, second = series(), series()
    pipeline = Pipeline().source(rows(17), first).source(rows(13, 22), second)
    config = RunnerConfig(align=Align.START)
    pipeline.stage("both", [Task(in_window)], (first, second), "10s", config)
    assert replayed(pipeline, "both", "in_window") == [(23, [[17], [13, 22]])]
