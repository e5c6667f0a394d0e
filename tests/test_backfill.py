"""Histories that live rows go on from, without a gap or a row twice."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.bench import RecordingSink
from tests.support.threads import PATIENCE, beside, eventually

from run_task import (
    Arrived,
    ConfigError,
    Pipeline,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    task,
)
from run_task.sinks import JsonLinesSink
from run_task.sources import Journal, Positioned, SourceInfo, about, backfill, paced, polling
from run_task.sources.journal._journaled import journaled

MS = 10**6


@task
def seen(view: TimeSeriesView, start: int, end: int) -> list[int]:
    return [int(value) for value in view.in_window["v"]]


def rows(*values: int) -> list[Any]:
    return [(value, {"v": value}) for value in values]


class Numbered:
    """What has positions, and rows that are numbered."""

    def __init__(self, count: int, first: int = 0) -> None:
        self.count = count
        self.next = first
        self.sought: list[int] = []
        self.committed: list[int] = []

    @property
    def position(self) -> int:
        return self.next

    def seek(self, position: int, /) -> None:
        self.sought.append(position)
        self.next = position

    def commit(self, position: int, /) -> None:
        self.committed.append(position)

    @property
    def lag(self) -> int | None:
        return self.count - self.next


class Broker(Numbered):
    def __iter__(self) -> Iterator[Any]:
        while self.next < self.count:
            self.next += 1
            yield self.next - 1, {"v": self.next - 1}


class Other(Broker):
    """One of another type."""


class AsyncBroker(Numbered):
    async def __aiter__(self) -> AsyncIterator[Any]:
        while self.next < self.count:
            self.next += 1
            yield self.next - 1, {"v": self.next - 1}
            await asyncio.sleep(0)


def _nothing() -> dict[str, Any] | None:
    return None


def given_by(source: Any) -> list[int]:
    return [item[1]["v"] for item in source]


# By time


@pytest.mark.parametrize("first", range(12))
def test_rows_of_the_history_do_not_come_again(first: int) -> None:
    source = backfill(rows(*range(10)), then=rows(*range(first, 15)))
    assert given_by(source) == [*range(10), *range(max(first, 10), 15)]
    assert source.overlap == max(0, 10 - first)


ROWS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.integers(0, 2)), max_size=20)


@given(ROWS, st.integers(0, 20), st.booleans())
def test_wherever_a_feed_in_order_is_cut_it_comes_whole_and_each_row_as_often_as_it_was(
    feed: list[tuple[int, str, int]], cut: int, keyed: bool
) -> None:
    ordered = [(time, {"k": k, "v": v}) for time, k, v in sorted(feed, key=lambda one: one[0])]
    # Live rows begin before a time, or with its first row: as often as one comes in history, one
    # that is equal and of the time of the last one is taken for it.
    begin = (
        next((at for at, row in enumerate(ordered) if row[0] >= ordered[cut - 1][0] - 1), 0)
        if cut and cut <= len(ordered)
        else 0
    )
    source = backfill(ordered[:cut], then=ordered[begin:], key="k" if keyed else None)
    assert list(source) == ordered


def test_of_the_time_of_the_last_row_equal_ones_are_left_out_and_others_come() -> None:
    history = [(1, {"v": 1}), (2, {"v": 1}), (2, {"v": 1}), (2, {"v": 2})]
    live = [
        (2, {"v": 2.0}),
        (2, {"v": 1}),
        (2, {"v": 1}),
        (2, {"v": 1}),
        (2, {"v": 3}),
        (3, {"v": 1}),
    ]
    source = backfill(history, then=live)
    assert list(source) == [*history, live[3], live[4], live[5]]
    assert source.overlap == 3


def test_by_key_it_is_the_last_row_of_the_same_key_and_others_come() -> None:
    history = [(1, {"k": "a"}), (5, {"k": "b"})]
    live = [(1, {"k": "a"}), (2, {"k": "a"}), (4, {"k": "b"}), (3, {"k": "c"}), (5, {"k": "b"})]
    source = backfill(history, then=live, key="k")
    assert list(source) == [*history, live[1], live[3]]


def test_rows_that_say_when_they_came_and_what_is_none_pass() -> None:
    history: list[Any] = [Arrived(1, {"v": 1}, 2), "no row", ("noon", {}), (2, 3.5)]
    live: list[Any] = [Arrived(1, {"v": 1}, 9), None, (2, 3.5), (2, 4.5)]
    assert list(backfill(history, then=live)) == [*history, None, (2, 4.5)]


def test_without_history_all_live_rows_come() -> None:
    assert given_by(backfill([], then=rows(1, 2))) == [1, 2]


def test_what_comes_live_while_the_history_is_read_is_not_missed_and_waits_bounded() -> None:
    given_on, all_put = threading.Event(), threading.Event()
    put: list[int] = []

    def feed() -> Iterator[Any]:
        for row in rows(*range(5, 30)):
            put.append(row[0])
            yield row
        all_put.set()

    def history() -> Iterator[Any]:
        yield from rows(1, 2)
        assert given_on.wait(PATIENCE)
        yield from rows(3, 7)

    source = backfill(history(), then=feed(), ahead=4)
    items = iter(source)
    found = [next(items), next(items)]
    eventually(lambda: len(put) >= 5)
    assert not all_put.wait(0.05)
    assert len(put) <= 6
    given_on.set()
    found += items
    assert [item[0] for item in found] == [1, 2, 3, 7, *range(8, 30)]


def test_what_one_of_them_raises_comes_in_its_place() -> None:
    def feed() -> Iterator[Any]:
        yield from rows(5)
        raise OSError("the line is down")

    items = iter(backfill(rows(1, 2), then=feed()))
    assert [next(items)[0] for _ in range(3)] == [1, 2, 5]
    with pytest.raises(OSError, match="the line is down"):
        next(items)


def test_generators_are_closed_when_it_is_left() -> None:
    closed: list[str] = []

    def feed(name: str) -> Iterator[Any]:
        try:
            yield from rows(*range(100))
        finally:
            closed.append(name)

    items: Any = iter(backfill(feed("history"), then=feed("live"), ahead=1))
    next(items)
    items.close()
    eventually(lambda: sorted(closed) == ["history", "live"])


# By position


def test_two_of_one_type_go_on_by_position() -> None:
    live = Broker(15)
    source = backfill(Broker(10), then=live)
    assert isinstance(source, Positioned)
    assert given_by(source) == [*range(15)]
    assert live.sought == [10]
    assert source.overlap == 0


@pytest.mark.parametrize("live", [Broker, Other])
@pytest.mark.parametrize("entered", range(16))
def test_it_goes_on_from_any_position(entered: int, live: type[Broker]) -> None:
    first: Any = backfill(Broker(10), then=live(15, 5))
    items = iter(first)
    position = first.position
    for _ in range(entered):
        next(items)
        position = first.position
    items.close()
    second: Any = backfill(Broker(10), then=live(20, 5))
    second.seek(position)
    assert given_by(second) == [*range(entered, 20)]
    assert second.lag == 0


def test_commits_go_to_the_source_of_which_the_position_is() -> None:
    history, live = Broker(2), Broker(4)
    source: Any = backfill(history, then=live)
    for _ in source:
        json.dumps(source.position)
        source.commit(source.position)
    assert (history.committed, live.committed) == ([1, 2], [3, 4])


def test_a_journal_of_a_live_source_goes_on_by_position(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    kept = journaled("s", Broker(10), Journal(tmp_path), None)
    kept.count_in(TimeUnit.MILLIS)
    assert len(list(kept)) == 10
    live = Broker(15)
    assert [item[1]["v"] for item in backfill(Journal(tmp_path), then=live)] == [*range(15)]
    assert live.sought == [10]
    other = Other(15)
    assert [item[1]["v"] for item in backfill(Journal(tmp_path), then=other)] == [*range(15)]
    assert other.sought == []


# In a pipeline


def market(
    source: Any, clock: VirtualClock, journal: Any = None
) -> tuple[Pipeline, RecordingSink, TimeSeries]:
    series, sink = TimeSeries({"v": int}), RecordingSink()
    pipeline = Pipeline("p", clock=clock).source(source, series, journal=journal)
    pipeline.stage("a", [seen], series, "1s").sink(sink)
    return pipeline, sink, series


@pytest.mark.parametrize("kind", ["sync", "async", "async in its loop", "async by position"])
def test_it_fills_a_series_and_goes_on_live(tmp_path: Path, kind: str) -> None:
    history: Any = Broker(10) if kind == "sync" else rows(*range(10))
    live: Any = Broker(15) if kind == "sync" else AsyncBroker(15, 5)
    if kind == "async by position":
        pytest.importorskip("pyarrow")
        first, _, _ = market(AsyncBroker(10), VirtualClock(100 * MS), journal=tmp_path)
        first.run_sync()
        history, live = Journal(tmp_path), AsyncBroker(15)
    pipeline, _, series = market(backfill(history, then=live), VirtualClock(100 * MS))
    if kind == "async in its loop":
        asyncio.run(pipeline.run())
    else:
        pipeline.run_sync()
    assert series.view()["v"].tolist() == [*range(15)]


def test_a_replay_reads_the_history(tmp_path: Path) -> None:
    source = backfill(rows(*range(10)), then=polling(_nothing, "1s"))
    for _ in range(2):
        pipeline, _, _ = market(source, VirtualClock())
        assert [d["seen"] for _, d in pipeline.replay()] == [[*range(10)]]


def test_after_resume_it_goes_on_live_without_the_history_again(tmp_path: Path) -> None:
    clock = VirtualClock(100 * MS)
    pipeline, _, series = market(backfill(rows(*range(10)), then=rows(*range(5, 15))), clock)
    sink = JsonLinesSink(str(tmp_path / "results.jsonl"))
    pipeline.stages[0].sink(sink)
    list(pipeline.resume(sink))
    assert series.view()["v"].tolist() == [*range(10)]
    pipeline.run_sync()
    assert series.view()["v"].tolist() == [*range(15)]


def test_closing_it_ends_both() -> None:
    def feed() -> Iterator[Any]:
        yield from rows(1)
        hold.wait(PATIENCE)

    hold = threading.Event()
    source = backfill(rows(*range(3)), then=feed())
    with beside(lambda: list(source)) as running:
        source.close()
        hold.set()
        running.result(PATIENCE)


# What is refused


class Endless:
    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def about(self) -> SourceInfo:
        return SourceInfo(endless=True)


@pytest.mark.parametrize(
    ("history", "live", "options", "reason"),
    [
        (Endless(), rows(1), {}, "it has no end"),
        (AsyncBroker(1), rows(1), {}, "it has no end"),
        (5, rows(1), {}, "history=5"),
        (rows(1), 5, {}, "then=5"),
        (paced(rows(1), unit=TimeUnit.MILLIS), rows(1), {}, "plays a recording"),
        (rows(1), paced(rows(1), unit=TimeUnit.MILLIS), {}, "plays a recording"),
        (rows(1), rows(1), {"key": 1}, "key=1"),
        (rows(1), rows(1), {"ahead": 0}, "ahead=0"),
    ],
)
def test_what_it_cannot_be_made_of_is_refused(
    history: Any, live: Any, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        backfill(history, then=live, **options)


def test_two_units_are_refused() -> None:
    class InSeconds(Broker):
        def about(self) -> SourceInfo:
            return SourceInfo(unit=TimeUnit.SECONDS)

    source = backfill(InSeconds(1), then=rows(1))
    assert about(source).unit is TimeUnit.SECONDS
    with pytest.raises(ConfigError, match="are in seconds, and not in millis"):
        source.count_in(TimeUnit.MILLIS)


def test_a_journal_of_it_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pipeline = Pipeline("p")
    with pytest.raises(ConfigError, match="a backfill begins with its history each time"):
        pipeline.source(backfill(rows(1), then=rows(2)), TimeSeries({"v": int}), journal=tmp_path)
