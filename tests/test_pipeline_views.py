"""Stages that are busy when a window falls due, over data whose views can be kept for them."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from tests.support.bench import SECOND, PipelineBench, RecordingSink
from tests.support.threads import PATIENCE, eventually

from run_task import (
    Atom,
    Closed,
    DataSet,
    MissedTick,
    Pipeline,
    RunnerConfig,
    Shared,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    task,
)
from run_task.pipeline.live import _early_views
from run_task.sources import paced

PATIENT = RunnerConfig(data_timeout=6 * PATIENCE, upstream_timeout=6 * PATIENCE)
"""Whoever waits for this long has failed the test."""


@task
def rows(series: TimeSeriesView, start: int, end: int) -> list[int]:
    """The times of all rows that are to be seen."""
    return [int(time) for time in series.time]


class Busy:
    """The times of all rows, after a wait in the window that ends at 1."""

    name = "rows"

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def run(self, series: TimeSeriesView, start: int, end: int) -> list[int]:
        self.entered.set()
        if end == 1:
            assert self.go_on.wait(PATIENCE)
        return rows(series, start, end)


class Feed:
    """Rows of one column, as they are put into it."""

    def __init__(self) -> None:
        self.rows: queue.Queue[int | None] = queue.Queue()

    def __iter__(self) -> Iterator[tuple[int, dict[str, int]]]:
        while (time := self.rows.get()) is not None:
            yield time, {"value": time}

    def close(self) -> None:
        self.rows.put(None)


class SeriesBench(PipelineBench):
    """A pipeline over one series, with a row a second."""

    def __init__(self, retention: TaskInterval | None = None) -> None:
        super().__init__()
        self.feed = Feed()
        self.series = TimeSeries({"value": int}, TimeUnit.SECONDS, retention)
        self.pipeline.source(self.feed, into=self.series)

    def read(self, name: str, task: Any, config: RunnerConfig = PATIENT) -> None:
        """Declare a stage that reads the series."""
        self.pipeline.stage(name, [task], self.series, SECOND, config).sink(self.sink)

    def row(self, time: int) -> None:
        """Let a row come at its time, and wait until it has entered."""
        if time:
            self.clock.advance(SECOND)
        self.feed.rows.put(time)
        eventually(lambda: len(self.series.view()) == time + 1)

    def seen(self, stage: str) -> list[tuple[int, list[int]]]:
        return [(dataset.timestamp, dataset["rows"]) for dataset in self.sink.of(stage)]


def before(end: int) -> list[int]:
    return list(range(end))


def test_a_stage_that_is_busy_holds_up_neither_rows_nor_other_stages() -> None:
    bench = SeriesBench()
    busy = Busy()
    bench.read("slow", busy)
    bench.read("fast", rows)
    with bench.pipeline:
        for time in range(6):
            bench.row(time)
            if time:
                bench.sink.wait_for("fast", time)
        assert not bench.sink.of("slow")
        busy.go_on.set()
        bench.sink.wait_for("slow", 5)
    # Each window has seen what was there when it fell due, and nothing later.
    assert bench.seen("fast") == bench.seen("slow") == [(end, before(end)) for end in range(1, 6)]


@pytest.mark.parametrize(
    ("missed", "ends"),
    [
        (MissedTick.DELAY, [1, 2]),
        (MissedTick.SKIP, [1, 2, 6]),
        (MissedTick.COALESCE, [1, 5, 6]),
    ],
)
def test_a_window_sees_what_is_its_own_whichever_are_missed(
    missed: MissedTick, ends: list[int]
) -> None:
    bench = SeriesBench()
    busy = Busy()
    # With DELAY it is behind for good: its end is not to be waited for under a clock that stands.
    config = replace(PATIENT, missed_tick=missed, shutdown_timeout=0.2)
    bench.read("slow", busy, config)
    with bench.pipeline:
        for time in range(6):
            bench.row(time)
            if time == 1:
                assert busy.entered.wait(PATIENCE)
        busy.go_on.set()
        bench.sink.wait_for("slow", ends[1])
        bench.row(6)
        bench.sink.wait_for("slow", ends[-1])
    assert bench.seen("slow")[: len(ends)] == [(end, before(end)) for end in ends]


LONG = TaskInterval.seconds(1000)
"""A retention that nothing passes out of here. But who lets a row enter cannot know that."""


def test_rows_ahead_of_the_clock_wait_for_windows_that_are_not_due_yet() -> None:
    bench = SeriesBench(LONG)
    bench.read("only", rows)
    with bench.pipeline:
        bench.row(0)
        bench.feed.rows.put(1)  # at 0
        time.sleep(0.01)
        assert bench.seen("only") == []
        assert len(bench.series.view()) == 1
        bench.clock.advance(SECOND)
        bench.sink.wait_for("only", 1)
        eventually(lambda: len(bench.series.view()) == 2)
    assert bench.seen("only") == [(1, [0])]


def test_rows_in_order_wait_for_no_window_whose_view_ends_before_them() -> None:
    bench = SeriesBench()
    busy = Busy()
    bench.read("only", busy)
    with bench.pipeline:
        bench.row(0)
        for _ in range(3):
            bench.clock.advance(SECOND)
        assert busy.entered.wait(PATIENCE)
        bench.feed.rows.put(3)  # the windows that end at 2 and 3 are due, and have no view
        eventually(lambda: len(bench.series.view()) == 2)
        assert bench.seen("only") == []
        busy.go_on.set()
        bench.sink.wait_for("only", 3)
    assert bench.seen("only") == [(1, [0]), (2, [0]), (3, [0])]


def test_a_row_out_of_order_enters_once_the_windows_that_it_comes_after_have_their_views() -> None:
    bench = SeriesBench()
    busy = Busy()
    bench.read("slow", busy)
    with bench.pipeline:
        for at in range(4):
            bench.row(at)
            if at == 1:
                assert busy.entered.wait(PATIENCE)
        bench.feed.rows.put(1)  # with the row of 3, after the windows to 3
        eventually(lambda: len(bench.series.view()) == 5)
        busy.go_on.set()
        bench.sink.wait_for("slow", 3)
        bench.clock.advance(SECOND)
        bench.sink.wait_for("slow", 4)
    assert bench.seen("slow") == [*((end, before(end)) for end in (1, 2, 3)), (4, [0, 1, 1, 2, 3])]


def test_results_enter_past_a_reader_that_is_busy() -> None:
    clock = VirtualClock()
    sink = RecordingSink()
    source, totals = Atom(1), TimeSeries({"value": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    busy = Busy()

    @task
    def one(value: int, start: int, end: int) -> int:
        return value

    def keep(series: TimeSeries, dataset: DataSet[Any]) -> None:
        series.append(dataset.timestamp, value=dataset["one"])

    pipeline = Pipeline("bench", clock=clock)
    pipeline.stage("up", [one], source, SECOND, PATIENT).sink(sink).into(totals, keep)
    pipeline.stage("slow", [busy], totals, SECOND, PATIENT).sink(sink)
    pipeline.stage("fast", [rows], totals, SECOND, PATIENT).sink(sink)
    with pipeline:
        for end in range(1, 6):
            clock.advance(SECOND)
            sink.wait_for("fast", end)
        busy.go_on.set()
        sink.wait_for("slow", 5)
    for stage in ("fast", "slow"):
        found = [(dataset.timestamp, dataset["rows"]) for dataset in sink.of(stage)]
        assert found == [(end, list(range(1, end + 1))) for end in range(1, 6)]
        assert not any(dataset.behind for dataset in sink.of(stage))


def fall_behind(bench: SeriesBench, data: Shared[Any], busy: Busy) -> list[tuple[int, list[int]]]:
    """What the windows see of a stage that is six windows behind, and then not any more."""
    bench.pipeline.stage("slow", [busy], data, SECOND, PATIENT).sink(bench.sink)
    with bench.pipeline:
        for at in range(7):
            bench.row(at)
            if at == 1:
                assert busy.entered.wait(PATIENCE)
        busy.go_on.set()
        bench.sink.wait_for("slow", 6)
        bench.row(7)
        bench.sink.wait_for("slow", 7)
    return bench.seen("slow")


def test_a_stage_that_is_hopelessly_behind_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_early_views, "MOST", 2)
    bench = SeriesBench(LONG)
    # Those that have no view of their own see the data as it is later, up to their end.
    assert fall_behind(bench, bench.series, Busy()) == [(end, before(end)) for end in range(1, 8)]
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "stage 'slow' is 2 windows behind: further ones may lack rows that pass out of retention"
    ]


def test_without_retention_no_stage_is_too_far_behind_to_see_what_is_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_early_views, "MOST", 2)
    bench = SeriesBench()
    assert fall_behind(bench, bench.series, Busy()) == [(end, before(end)) for end in range(1, 8)]
    assert not caplog.records


def test_an_atom_has_no_past_for_a_stage_that_is_hopelessly_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_early_views, "MOST", 2)

    class BusyWithTuples(Busy):
        def run(self, series: Any, start: int, end: int) -> list[int]:
            self.entered.set()
            if end == 1:
                assert self.go_on.wait(PATIENCE)
            return list(series)

    def add(atom: Atom[tuple[int, ...]], row: dict[str, int]) -> None:
        atom.swap(lambda values: (*values, row["value"]))
        bench.series.append(row["value"], **row)  # for who waits for the row

    bench = SeriesBench()
    atom = Atom[tuple[int, ...]](())
    bench.pipeline = Pipeline("bench", clock=bench.clock)
    bench.pipeline.source(bench.feed, atom, add)
    everything = before(7)
    assert fall_behind(bench, atom, BusyWithTuples()) == [
        *((end, before(end)) for end in (1, 2, 3)),
        *((end, everything) for end in (4, 5, 6)),
        (7, before(7)),
    ]
    told = [record.getMessage() for record in caplog.records]
    assert told == ["stage 'slow' is 2 windows behind: further ones may see what comes after them"]


class Dawdling:
    """A fingerprint of all rows, for which it now and then takes its time."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self.name = name
        self._chance = chance

    def run(self, series: TimeSeriesView, start: int, end: int) -> int:
        if self._chance.random() < 0.1:
            time.sleep(0.003)
        return hash(tuple(series.time.tolist()))


def entered(pipeline: Pipeline, count: int) -> bool:
    return sum(pipeline.stats.rows) == count


@pytest.mark.parametrize("run", range(5))
def test_busy_stages_see_what_they_see_in_a_replay(run: int, switching: None) -> None:
    chance = random.Random(run)
    times = [0, *sorted(chance.choices(range(60), k=120)), 60]
    recording = [(time, {"value": time}) for time in times]
    sink = RecordingSink()

    def made(source: Any, clock: VirtualClock) -> Pipeline:
        series = TimeSeries({"value": int}, TimeUnit.SECONDS, retention=TaskInterval.seconds(30))
        pipeline = Pipeline("bench", clock=clock)
        pipeline.source(source, into=series)
        for name, seconds in (("a", 1), ("b", 2), ("c", 3)):
            tasks = [Dawdling(name, chance)]
            interval = TaskInterval.seconds(seconds)
            pipeline.stage(name, tasks, series, interval, PATIENT).sink(sink)
        return pipeline

    found = made(recording, VirtualClock()).replay()
    replayed = {(stage, d.timestamp): d[stage] for stage, d in found if d.timestamp <= 60}
    sink.results.clear()
    feed, clock = Feed(), VirtualClock()
    with made(feed, clock) as pipeline:
        now = 0
        for count, (at, _) in enumerate(recording, 1):
            if at > now:
                clock.advance(TaskInterval.seconds(at - now))
                now = at
            feed.rows.put(at)
            eventually(partial(entered, pipeline, count))
        for stage in "abc":
            sink.wait_for(stage, 60)
    assert {(stage, d.timestamp): d[stage] for stage, d in sink.results} == replayed


@pytest.mark.parametrize("run", range(5))
def test_a_recording_waits_for_a_stage_that_is_too_far_behind(
    run: int, switching: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_early_views, "MOST", 2)
    chance = random.Random(run)
    recording = [(time, {"value": time}) for time in range(300)]
    sink = RecordingSink()

    def made(source: Any) -> Pipeline:
        series = TimeSeries({"value": int}, TimeUnit.SECONDS, retention=TaskInterval.seconds(30))
        pipeline = Pipeline("bench")
        pipeline.source(source, into=series)
        stage = pipeline.stage("a", [Dawdling("a", chance)], series, SECOND, PATIENT)
        stage.sink(sink)
        return pipeline

    replayed = [dataset.to_dict() for _, dataset in made(recording).replay()]
    sink.results.clear()
    made(paced(recording, speed=10_000, unit=TimeUnit.SECONDS)).run_sync()
    assert [dataset.to_dict() for _, dataset in sink.results] == replayed
    assert not caplog.records


@task
def in_window(series: TimeSeriesView, start: int, end: int) -> int:
    return len(series.in_window)


@pytest.mark.parametrize("closed", Closed)
@pytest.mark.parametrize("retention", [None, TaskInterval.seconds(6)], ids=["all", "six seconds"])
@pytest.mark.parametrize("run", range(3))
def test_a_recording_gives_live_what_it_gives_in_a_replay(
    run: int, retention: TaskInterval | None, closed: Closed, switching: None
) -> None:
    chance = random.Random(run)
    times = sorted(chance.choices(range(40), k=60))
    for at in range(3, 60, 7):  # some come late
        times[at], times[at - 3] = times[at - 3], times[at]
    recording = [(at, {"value": at}) for at in times]

    def made(source: Any, sink: RecordingSink) -> Pipeline:
        series = TimeSeries({"value": int}, TimeUnit.SECONDS, retention, closed=closed)
        pipeline = Pipeline("bench").source(source, into=series)
        every = TaskInterval.seconds
        both: list[Any] = [Dawdling("sees", chance), in_window]
        a = pipeline.stage("a", both, series, every(2), PATIENT)
        b = pipeline.stage("b", [in_window], series, every(1), PATIENT)
        c = pipeline.stage("c", [rows, in_window], b.series(retention), every(3), PATIENT)
        for stage in (a, b, c):
            stage.sink(sink)
        return pipeline

    def found(sink: RecordingSink) -> list[tuple[str, int, dict[str, Any]]]:
        # Each stage's in their order, which is the same whatever is between them.
        results = [(stage, d.timestamp, d.to_dict()) for stage, d in sink.results]
        return sorted(results, key=lambda result: result[0])

    replayed, live = RecordingSink(), RecordingSink()
    for _ in made(recording, replayed).replay():
        pass
    made(paced(recording, 2000, unit=TimeUnit.SECONDS), live).run_sync()
    assert found(live) == found(replayed)
    assert not any(dataset.behind for _, dataset in live.results)
