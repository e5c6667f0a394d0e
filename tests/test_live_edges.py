"""The first and the last windows of a live run."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.bench import PipelineBench, RecordingSink
from tests.support.threads import eventually

from run_task import (
    Closed,
    MissedTick,
    Pipeline,
    RunnerConfig,
    RwLock,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    task,
)

SECOND_NS = 10**9


@task
def held(view: TimeSeriesView, start: int, end: int) -> list[int]:
    return list(map(int, view.in_window.time))


@task
def n(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


def row(time: int) -> tuple[int, dict[str, float]]:
    return time, {"v": 1.0}


def given(sink: RecordingSink, stage: str = "a") -> list[tuple[tuple[int, ...], list[int]]]:
    return [(tuple(dataset.window), dataset["held"]) for dataset in sink.of(stage)]


def bench_at(seconds: int) -> PipelineBench:
    """A bench whose clock says a time, and stands still."""
    bench = PipelineBench([held])
    bench.clock = VirtualClock(seconds * SECOND_NS)
    bench.pipeline = Pipeline("bench", clock=bench.clock)
    return bench


@pytest.mark.parametrize("missed", MissedTick)
def test_windows_that_hold_a_row_are_given_at_once_when_all_sources_have_ended(
    missed: MissedTick,
) -> None:
    bench = bench_at(16)
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    bench.pipeline.source([row(11), row(16)], series)
    bench.stage("a", series, 5, window=TaskInterval.seconds(10), missed_tick=missed)
    bench.pipeline.run_sync()
    assert given(bench.sink) == [((10, 20), [11, 16]), ((15, 25), [16])]
    assert bench.pipeline.stats.stages["a"].lateness.p99 == 0


def test_of_an_async_source_too_and_by_the_machines_clock() -> None:
    async def rows() -> AsyncIterator[tuple[int, int]]:
        yield 0, 1

    data, sink = RwLock[list[int]]([]), RecordingSink()

    @task
    def all_of(values: list[int], start: int, end: int) -> list[int]:
        return list(values)

    pipeline = Pipeline("p").source(rows(), data, lambda values, row: values.append(row))
    config = RunnerConfig(grace=TaskInterval.seconds(3600))
    pipeline.stage("a", [all_of], data, TaskInterval.seconds(3600), config).sink(sink)
    pipeline.run_sync()  # it would wait for two hours
    # Data without times is seen by the window in which the last row came.
    assert sink.results[-1][1]["all_of"] == [1]


def test_a_stage_that_is_fed_gives_the_windows_that_hold_the_last_results() -> None:
    bench = bench_at(3)
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    results = TimeSeries({"n": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    bench.pipeline.source([row(3)], series)
    up = bench.stage("up", series, 5, tasks=[n], window=TaskInterval.seconds(10))
    up.into(results)
    bench.stage("a", results, 5, window=TaskInterval.seconds(15))
    bench.pipeline.run_sync()
    assert given(bench.sink) == [
        ((-10, 5), [5]),
        ((-5, 10), [5, 10]),
        ((0, 15), [5, 10]),
        ((5, 20), [10]),
    ]


class Feed:
    """A live pipeline whose clock says 103 seconds, and whose rows are put in by a test."""

    def __init__(self, retention: str | None = None, **config: Any) -> None:
        self.bench = bench_at(103)
        self.inbox: queue.Queue[Any] = queue.Queue()
        self.series = TimeSeries({"v": float}, TimeUnit.SECONDS, retention)
        self.bench.pipeline.source(iter(self.inbox.get, None), self.series)
        self.stage = self.bench.stage("a", self.series, 10, **config)

    def stored(self) -> int:
        (stats,) = self.bench.pipeline.stats.sources.values()
        return stats.stored

    def put(self, *times: int) -> None:
        before = self.stored()
        for time in times:
            self.inbox.put(row(time))
        eventually(lambda: self.stored() == before + len(times))


@pytest.mark.parametrize("times", [(103, 98), (98, 103), (98, 99, 103)])
def test_a_row_within_grace_leads_to_the_window_that_ended_before_the_run_began(
    times: tuple[int, ...],
) -> None:
    feed = Feed(grace=TaskInterval.seconds(15))
    with feed.bench.pipeline:
        feed.put(*times)
        feed.bench.advance(12)
        first = feed.bench.sink.wait_for("a", 100)
        assert first["held"] == [time for time in times if time < 100]
        feed.bench.advance(10)
        assert feed.bench.sink.wait_for("a", 110)["held"] == [103]
        feed.inbox.put(None)


def test_without_such_a_row_it_is_not_given() -> None:
    feed = Feed(grace=TaskInterval.seconds(35))
    with feed.bench.pipeline:
        feed.put(103)
        feed.bench.advance(10)
        feed.put(85)
        feed.bench.advance(50)
        feed.bench.sink.wait_for("a", 120)
        feed.inbox.put(None)
    # The one that ended at 80 was due at 115, and holds none.
    assert given(feed.bench.sink)[:3] == [((80, 90), [85]), ((90, 100), []), ((100, 110), [103])]
    assert feed.bench.pipeline.stats.stages["a"].missed == 0


def test_nor_is_one_that_was_due_before_the_run_began() -> None:
    feed = Feed(grace=TaskInterval.seconds(2))
    with feed.bench.pipeline:
        feed.put(103, 98)
        feed.bench.advance(9)
        feed.bench.sink.wait_for("a", 110)
        feed.inbox.put(None)
    assert given(feed.bench.sink)[0] == ((100, 110), [103])


def test_nor_is_one_whose_row_comes_too_late_to_be_kept() -> None:
    feed = Feed(retention="1s", grace=TaskInterval.seconds(15))
    with feed.bench.pipeline:
        feed.put(103)
        feed.inbox.put(row(98))
        eventually(lambda: feed.bench.pipeline.stats.sources["source-1"].expired == 1)
        feed.bench.advance(25)
        feed.bench.sink.wait_for("a", 110)
        feed.inbox.put(None)
    assert given(feed.bench.sink)[0] == ((100, 110), [103])


def test_results_lead_to_windows_of_those_who_read_them() -> None:
    feed = Feed(grace=TaskInterval.seconds(15))
    results = TimeSeries({"n": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    up = feed.bench.stage("up", feed.series, 10, tasks=[n], grace=TaskInterval.seconds(15))
    up.into(results)
    feed.bench.stage("down", results, 10)
    with feed.bench.pipeline:
        feed.put(103, 98)
        feed.bench.advance(12)
        assert feed.bench.sink.wait_for("down", 100)["held"] == [100]
        feed.inbox.put(None)
    assert given(feed.bench.sink, "down")[0] == ((90, 100), [100])
