"""What becomes of the rows of sources: each is stored, or counted under the reason why not."""

from __future__ import annotations

import asyncio
import queue
import random
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.threads import PATIENCE, beside

from run_task import (
    Align,
    Atom,
    Closed,
    ConfigError,
    DeadLetter,
    Pipeline,
    RunnerConfig,
    RwLock,
    SourceError,
    SourceStats,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    task,
)
from run_task.pipeline._given import GivenWindows, ReaderWindows
from run_task.pipeline._unseen import UnseenRows
from run_task.pipeline.live import _early_rows
from run_task.runner._window_grid import windows_of
from run_task.sinks import CallbackSink, SqlSink
from run_task.sources import Batch, CsvFile, OnFault, paced, polling

SECOND = TaskInterval.seconds(1)
TEN = TaskInterval.seconds(10)

Rows = Sequence[tuple[int, Any]]


@task
def times(view: TimeSeriesView, start: int, end: int) -> list[int]:
    return [int(time) for time in view.in_window.time]


@task
def nothing(data: object, start: int, end: int) -> None:
    return None


def series(**options: Any) -> TimeSeries:
    return TimeSeries({"v": float}, TimeUnit.SECONDS, **options)


def millis(**options: Any) -> TimeSeries:
    return TimeSeries({"v": float}, TimeUnit.MILLIS, **options)


def rows_at(*stamps: int) -> list[tuple[int, dict[str, float]]]:
    return [(stamp, {"v": 1.0}) for stamp in stamps]


class Batches:
    """Rows in batches, as a file has them."""

    def __init__(self, stamps: Sequence[int], size: int) -> None:
        self._stamps = np.array(stamps, np.int64)
        self._size = size

    def batches(self) -> Iterator[Batch]:
        for start in range(0, len(self._stamps), self._size):
            some = self._stamps[start : start + self._size]
            yield Batch(some, {"v": np.ones(len(some))})

    def __iter__(self) -> Iterator[tuple[int, dict[str, float]]]:
        for batch in self.batches():
            yield from batch.rows()


def adds_up(counts: SourceStats) -> bool:
    known = counts.stored + counts.malformed + counts.rejected + counts.ahead
    return (
        counts.received == known + counts.duplicate + counts.expired + counts.waiting
        and counts.late <= counts.stored + counts.expired
        and counts.unseen <= counts.stored
        and min(vars(counts).values()) >= 0
    )


def only(pipeline: Pipeline) -> SourceStats:
    (counts,) = pipeline.stats.sources.values()
    assert adds_up(counts)
    return counts


def replayed(pipeline: Pipeline) -> list[Any]:
    return [dataset["times"] for _, dataset in pipeline.replay()]


# Names


def test_sources_are_named_as_they_are_declared() -> None:
    data = series()
    pipeline = Pipeline("p").source([], data).source([], data, name="mine").source([], data)
    assert list(pipeline.stats.sources) == ["source-1", "mine", "source-3"]
    assert set(pipeline.stats.sources.values()) == {SourceStats()}
    with pytest.raises(ConfigError, match="two sources are called 'mine'"):
        pipeline.source([], data, name="mine")
    name: Any
    for name in ("", 5):
        with pytest.raises(ConfigError, match="a text that is not empty"):
            pipeline.source([], data, name=name)
    fault: Any = "skip"
    with pytest.raises(ConfigError, match=r"OnFault\.SKIP or OnFault\.RAISE"):
        pipeline.source([], data, on_bad_row=fault)


# Late


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_of_a_file_with_its_newest_row_first_all_but_the_first_window_are_late(size: int) -> None:
    data = series()
    pipeline = Pipeline("p").source(Batches(range(999, -1, -1), size), data)
    pipeline.stage("a", [times], data, TaskInterval.seconds(100))
    assert sum(map(len, replayed(pipeline))) == 100
    assert only(pipeline) == SourceStats(received=1000, stored=1000, late=900)


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("grace", [None, 7])
@pytest.mark.parametrize("closed", list(Closed))
@pytest.mark.parametrize("kind", ["rows", "batches", "ingest"])
def test_a_row_is_in_all_windows_that_cover_it_or_late(
    window: int | None, grace: int | None, closed: Closed, kind: str
) -> None:
    choose = random.Random(7)
    stamps = [max(0, at + choose.randint(-30, 5)) for at in range(0, 600, 2)]
    data = series(closed=closed)
    if kind == "ingest":
        pipeline = Pipeline("p").source(
            [(stamp, stamp) for stamp in stamps],
            data,
            lambda held, stamp: held.append(stamp, v=1.0),
        )
    else:
        source: Any = rows_at(*stamps) if kind == "rows" else Batches(stamps, 50)
        pipeline = Pipeline("p").source(source, data)
    config = RunnerConfig(
        window=None if window is None else TaskInterval.seconds(window),
        grace=None if grace is None else TaskInterval.seconds(grace),
    )
    pipeline.stage("a", [times], data, TEN, config)
    results = {dataset.window: dataset["times"] for _, dataset in pipeline.replay()}
    # In a window that ends as soon as it can, each that is not late is: the later ones follow.
    on_right = closed is Closed.RIGHT
    missing = 0
    for stamp in set(stamps):
        covering = [w for w in results if w.start <= stamp - on_right < w.end]
        first = min(covering, default=None)
        seen = 0 if first is None else results[first].count(stamp)
        missing += stamps.count(stamp) - seen
    last = max(results).end
    after = sum(stamp - on_right >= last for stamp in stamps)
    assert only(pipeline).late == missing - after
    assert only(pipeline).stored == len(stamps)


def test_rows_before_an_explicit_start_are_not_late_and_those_before_the_first_window_are() -> None:
    def late(start: int | None) -> int:
        data = series()
        pipeline = Pipeline("p").source(rows_at(50, 12, 55, 61, 13, 71), data)
        pipeline.stage("a", [times], data, TEN)
        list(pipeline.replay(start))
        return only(pipeline).late

    assert late(None) == 2
    assert late(60) == 0  # the windows from 60 on are asked for
    assert late(50) == 2  # the first window is where it would have been


def reader_windows(length: int, interval: int) -> ReaderWindows:
    every, window = TaskInterval.nanos(interval), TaskInterval.nanos(length)
    return ReaderWindows(windows_of(every, window, Align.EPOCH, 0), holds_end=False)


def test_windows_that_were_missed_hold_no_row_that_is_late() -> None:
    windows = reader_windows(10, 10)
    given = GivenWindows()
    given.add(windows)
    given.begin(windows, 100)
    given.note(windows, 100, 110)
    given.note(windows, 150, 160)  # those in between were missed
    late = [given.is_late(time) for time in (99, 100, 109, 110, 149, 150, 159, 160)]
    assert late == [True, True, True, False, False, True, True, False]
    times = np.array([99, 100, 109, 110, 149, 150, 159, 160])
    assert given.count_late(times, 1) == 5
    assert given.count_late(times[-1:], 1) == 0


def test_a_row_between_two_windows_that_are_samples_is_not_late() -> None:
    windows = reader_windows(3, 10)
    given = GivenWindows()
    given.add(windows)
    given.begin(windows, 107)
    given.note(windows, 107, 110)
    given.note(windows, 117, 120)
    late = [given.is_late(time) for time in (106, 107, 109, 110, 116, 117, 119, 120)]
    assert late == [True, True, True, False, False, True, True, False]


def test_whoever_reads_what_the_rows_enter_has_windows_that_count() -> None:
    data = series()
    pipeline = Pipeline("p").source(rows_at(5, 25, 18, 45, 8), data)
    pipeline.stage("quick", [times], data, TEN)
    pipeline.stage("slow", [times], data, TaskInterval.seconds(100))
    list(pipeline.replay())
    assert only(pipeline).late == 2


def test_a_live_row_whose_window_was_given_is_late(tmp_path: Path) -> None:
    clock, inbox = VirtualClock(1_000_000_000_000), queue.Queue[Any]()
    got = queue.Queue[list[int]]()
    data = series()
    pipeline = Pipeline("p", clock=clock).source(iter(inbox.get, None), data)
    stage = pipeline.stage("a", [times], data, TEN)
    stage.sink(CallbackSink(lambda stage, dataset: got.put(dataset["times"])))

    def enter(*stamps: int) -> None:
        before = pipeline.stats.sources["source-1"].received
        for row in rows_at(*stamps):
            inbox.put(row)
        wait_until(lambda: pipeline.stats.sources["source-1"].received == before + len(stamps))
        wait_until(lambda: pipeline.stats.sources["source-1"].waiting == 0)

    with pipeline:
        enter(1000)
        clock.advance(TEN)
        assert got.get(timeout=PATIENCE) == [1000]
        enter(1001, 999)  # its window is given; and before the first
        clock.step(-3600 * 1_000_000_000)
        enter(1010 - 3600)
        inbox.put(None)
    assert only(pipeline) == SourceStats(received=4, stored=4, late=3)


def wait_until(condition: Any) -> None:
    done = threading.Event()
    for _ in range(int(PATIENCE * 1000)):
        if condition():
            return
        done.wait(0.001)
    raise AssertionError("it has not come about")


# Expired


@pytest.mark.parametrize("size", [0, 4])
def test_a_row_older_than_retention_is_expired_and_late(size: int) -> None:
    data = series(retention=TaskInterval.seconds(15))
    stamps = (0, 10, 20, 30, 3, 31, 4, 5)
    source: Any = Batches(stamps, size) if size else rows_at(*stamps)
    pipeline = Pipeline("p").source(source, data)
    pipeline.stage("a", [times], data, TEN)
    list(pipeline.replay())
    assert only(pipeline) == SourceStats(received=8, stored=5, expired=3, late=3)


# Ahead

HOUR = 3600


def now() -> int:
    return int(time.time())


@pytest.mark.parametrize("size", [0, 4])
def test_in_a_replay_a_row_after_the_present_is_refused_and_touches_nothing(size: int) -> None:
    stamps = [now() - 100, now() + 24 * HOUR, now() - 90, now() - 95, now() + HOUR, now() - 80]
    data = series(retention=TaskInterval.minutes(5))
    source: Any = Batches(stamps, size) if size else rows_at(*stamps)
    pipeline = Pipeline("p").source(source, data)
    pipeline.stage("a", [times], data, SECOND)
    windows = [dataset.window for _, dataset in pipeline.replay()]
    assert [windows[0].start, windows[-1].end] == [stamps[0], stamps[-1] + 1]
    assert only(pipeline) == SourceStats(received=6, stored=4, ahead=2, late=1)


def test_in_a_replay_any_row_may_be_ahead_if_that_is_said_or_if_all_are() -> None:
    in_millis = now() * 1000
    for max_ahead, first, stored in ((None, now(), 2), ("1s", now(), 1), (SECOND, in_millis, 2)):
        data = series()
        ahead = max(first + 100, now() + 100)
        pipeline = Pipeline("p").source(rows_at(first, ahead), data, max_ahead=max_ahead)
        pipeline.stage("a", [times], data, TaskInterval.seconds(1000))
        list(pipeline.replay())
        assert only(pipeline).stored == stored
    bad: Any
    for bad in (5, "0s", timedelta(0)):
        with pytest.raises(ConfigError, match=re.escape(f"max_ahead={bad!r}")):
            Pipeline("p").source([], series(), max_ahead=bad)


@pytest.mark.parametrize("size", [0, 4])
@pytest.mark.parametrize("absurd", [2**62, 2**63 - 1, 2**33])
def test_a_first_row_of_no_time_in_particular_is_ahead_and_others_are_judged_as_ever(
    size: int, absurd: int
) -> None:
    stamps = [absurd, now() - 100, now() + HOUR, now() - 80]
    data = series()
    source: Any = Batches(stamps, size) if size else rows_at(*stamps)
    pipeline = Pipeline("p").source(source, data)
    pipeline.stage("a", [times], data, SECOND)
    windows = [dataset.window for _, dataset in pipeline.replay()]
    assert [windows[0].start, windows[-1].end] == [stamps[1], stamps[-1] + 1]
    assert only(pipeline) == SourceStats(received=4, stored=2, ahead=2)


@pytest.mark.parametrize("size", [0, 3])
def test_of_a_source_in_another_unit_than_was_said_an_absurd_row_is_ahead(size: int) -> None:
    stamps = [now() * 1000, 2**62, now() * 1000 + 1]
    data = series()
    source: Any = Batches(stamps, size) if size else rows_at(*stamps)
    pipeline = Pipeline("p").source(source, data)
    pipeline.stage("a", [times], data, SECOND)
    list(pipeline.replay())
    assert only(pipeline) == SourceStats(received=3, stored=2, ahead=1)


def test_a_timestamp_of_thousands_of_digits_costs_its_row() -> None:
    rows = rows_at(10**5000, now() - 1)
    data = series()
    pipeline = Pipeline("p").source(rows, data)
    pipeline.stage("a", [times], data, SECOND)
    list(pipeline.replay())
    assert only(pipeline) == SourceStats(received=2, stored=1, malformed=1)
    pipeline.run_sync()
    assert only(pipeline).malformed == 1


class Feed:
    """Rows that a test gives to a live pipeline, at times of its own clock: 1001 s, to begin with.

    :param data: what they enter
    :param kind: how the source gives them
    """

    def __init__(self, data: Any, kind: str = "rows", **options: Any) -> None:
        self.clock = VirtualClock(1_001_000_000_000)
        self.inbox = queue.Queue[Any]()
        self.got = queue.Queue[Any]()
        self.sent = 0
        self.pipeline = Pipeline("p", clock=self.clock)
        ingest: Any = None if isinstance(data, TimeSeries) else self._add
        batches = FedBatches(self)
        sources: Any = {"rows": self._rows, "async": self._arows, "batches": lambda: batches}
        self.pipeline.source(sources[kind](), data, ingest, **options)
        stage = self.pipeline.stage("a", [held], data, TEN, RunnerConfig(shutdown_timeout=2.0))
        stage.sink(CallbackSink(lambda stage, dataset: self.got.put(dataset["held"])))

    @staticmethod
    def _add(values: list[float], row: Any) -> None:
        values.append(row["v"])

    def _rows(self) -> Iterator[Any]:
        return iter(self.inbox.get, None)

    async def _arows(self) -> AsyncIterator[Any]:
        while True:
            try:
                row = self.inbox.get_nowait()
            except queue.Empty:
                await asyncio.sleep(0.001)
                continue
            if row is None:
                return
            yield row

    def send(self, *stamps: int, waiting: int = 0) -> None:
        """Give rows, whose value is their time, and wait until all but so many have their fate."""
        for stamp in stamps:
            self.sent += 1
            self.inbox.put((stamp, {"v": float(stamp)}))
        wait_until(lambda: self.counts.received == self.sent and self.counts.waiting == waiting)

    @property
    def counts(self) -> SourceStats:
        return only(self.pipeline)

    def window(self) -> Any:
        """The next window: what was held by the data, or by its view."""
        self.clock.advance_to((self.clock.time_ns() // 10**10 + 1) * 10**10)
        return self.got.get(timeout=PATIENCE)


class FedBatches:
    """Batches of a row each."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def batches(self) -> Iterator[Batch]:
        for stamp, row in iter(self._feed.inbox.get, None):
            yield Batch(np.array([stamp], np.int64), {"v": np.array([row["v"]])})

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches():
            yield from batch.rows()


@task
def held(data: Any, start: int, end: int) -> list[int]:
    values = data["v"].tolist() if isinstance(data, TimeSeriesView) else data
    return [int(value) for value in values]


TARGETS: dict[str, Callable[[], Any]] = {
    "series": series,
    "evicting": lambda: series(retention=TaskInterval.seconds(25)),
    "closed on the right": lambda: series(closed=Closed.RIGHT),
    "lock": lambda: RwLock(list[float]()),
}


@pytest.mark.parametrize("kind", ["rows", "async", "batches"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_row_that_is_ahead_waits_for_its_time_and_holds_up_none(target: str, kind: str) -> None:
    feed = Feed(TARGETS[target](), kind)
    with feed.pipeline:
        feed.send(1000, 1015, 1004, waiting=2)  # 1004 is ahead by less
        feed.send(1000, 999, waiting=2)
        assert sorted(feed.window()) == [999, 1000, 1000, 1004]
        feed.send(1010, 1008, waiting=1)
        assert {1004, 1008, 1015} < set(feed.window())
        feed.inbox.put(None)
    assert feed.counts == SourceStats(received=7, stored=7, late=feed.counts.late)


@pytest.mark.parametrize("kind", ["rows", "async", "batches"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_row_that_is_too_far_ahead_is_refused_and_touches_nothing(target: str, kind: str) -> None:
    feed = Feed(TARGETS[target](), kind)
    with feed.pipeline:
        feed.send(1001, 1062, 1001 + HOUR, 1001)
        assert feed.counts == SourceStats(received=4, stored=2, ahead=2)
        assert feed.window() == [1001, 1001]
        feed.send(1005, 1010)
        assert 1005 in feed.window()
        feed.inbox.put(None)
    assert feed.counts.ahead == 2


def test_a_clock_that_is_set_back_keeps_no_row_waiting_and_one_set_forward_lets_it_enter() -> None:
    feed = Feed(series())
    with feed.pipeline:
        feed.send(1020, waiting=1)
        feed.clock.step(-HOUR * 10**9)
        feed.clock.advance(TaskInterval.seconds(20))
        wait_until(lambda: feed.counts.stored == 1)
        feed.send(1050, waiting=1)
        feed.clock.step(2 * HOUR * 10**9)
        wait_until(lambda: feed.counts.stored == 2)
        feed.inbox.put(None)


def test_a_source_is_not_read_on_while_too_many_rows_wait(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_early_rows, "MOST", 2)
    feed = Feed(series())
    with feed.pipeline:
        feed.send(1004, 1003, 1002, waiting=3)
        feed.inbox.put((1001, {"v": 1.0}))
        feed.sent += 1
        assert feed.counts.stored == 0
        feed.clock.advance(SECOND)  # there is room for one, and it is read on
        wait_until(lambda: feed.counts.stored == 2)
        feed.clock.advance(TEN)
        wait_until(lambda: feed.counts.stored == 4)
        feed.inbox.put(None)
    assert sum("2 rows wait for their time" in message for message in caplog.messages) == 1


def test_in_a_shutdown_rows_that_wait_for_their_time_are_left_waiting() -> None:
    feed = Feed(series())
    with feed.pipeline:
        feed.send(1000, 1030, waiting=1)
        feed.inbox.put(None)  # the source ends: its rows still have their time to come
        assert feed.window() == [1000]
    assert feed.counts == SourceStats(received=2, stored=1, waiting=1)


def test_a_source_has_ended_once_its_last_row_has_had_its_time() -> None:
    feed = Feed(series())
    with feed.pipeline:
        feed.send(1000, 1030, waiting=1)
        feed.inbox.put(None)
        for _ in range(3):
            feed.window()
        feed.clock.advance(TEN)
        wait_until(lambda: feed.counts.stored == 2)


def test_a_bad_row_that_is_ahead_ends_its_source_if_it_is_to() -> None:
    feed = Feed(series(), on_bad_row=OnFault.RAISE)
    with pytest.raises(ExceptionGroup) as caught, feed.pipeline:
        feed.inbox.put((1002, {"v": "text"}))
        wait_until(lambda: feed.counts.waiting == 1)
        feed.clock.advance(TEN)
        feed.inbox.put((1003, {"v": 1.0}))
        wait_until(lambda: feed.counts.malformed == 1)
        feed.inbox.put(None)
    assert isinstance(caught.value.exceptions[0], ConfigError)


# Unseen


@pytest.mark.parametrize("size", [0, 7, 100, 1000])
@pytest.mark.parametrize("sources", [1, 2])
def test_rows_that_pass_out_before_any_window_sees_them_are_unseen(size: int, sources: int) -> None:
    data = series(retention=10 * sources)
    pipeline = Pipeline("p")
    for _ in range(sources):
        pipeline.source(Batches(range(300), size) if size else rows_at(*range(300)), data)
    pipeline.stage("a", [times], data, TaskInterval.seconds(100))
    pipeline.stage("b", [times], data, TaskInterval.seconds(300))
    seen = sum(len(dataset["times"]) for stage, dataset in pipeline.replay() if stage == "a")
    assert seen == 30 * sources
    assert [counts.unseen for counts in pipeline.stats.sources.values()] == [270] * sources
    assert all(map(adds_up, pipeline.stats.sources.values()))


@pytest.mark.parametrize("empty", [0, 3])
def test_rows_of_a_batch_of_which_some_are_not_stored_are_unseen_as_others(empty: int) -> None:
    class Source(Batches):
        def batches(self) -> Iterator[Batch]:
            yield Batch(np.arange(100), {"v": np.ones(100)})
            values = np.array([1.0] * 52 + [None] * empty, object)
            stamps = [5, 6, *range(100, 150 + empty)]
            yield Batch(np.array(stamps, np.int64), {"v": values})

    data = series(retention=10)
    pipeline = Pipeline("p").source(Source((), 1), data)
    pipeline.stage("a", [times], data, TaskInterval.seconds(300))
    assert [len(seen) for seen in replayed(pipeline)] == [10]
    assert only(pipeline) == SourceStats(
        received=152 + empty, stored=150, expired=2, rejected=empty, unseen=140
    )


@pytest.mark.parametrize("size", [0, 1, 60])
@pytest.mark.parametrize("retention", [5, TaskInterval.seconds(30)])
def test_a_row_expires_by_those_before_it_by_column_as_by_row(retention: Any, size: int) -> None:
    chosen = random.Random(7)
    stamps = [chosen.randint(0, 99) for _ in range(60)]
    kept: list[int] = []
    expired = 0
    for stamp in stamps:
        newest = max([stamp, *kept])
        if stamp < newest - 30 if retention != 5 else len(kept) == 5 and stamp < kept[0]:
            expired += 1
            continue
        kept = sorted([*kept, stamp])
        kept = kept[-5:] if retention == 5 else [one for one in kept if one >= newest - 30]

    def take(row: Any, reason: str, detail: str) -> None:
        pass

    for letters in (None, take):
        data = series(retention=retention)
        source = Batches(stamps, size) if size else rows_at(*stamps)
        pipeline = Pipeline("p").source(source, data, dead_letters=letters)
        pipeline.stage("a", [times], data, TaskInterval.seconds(100))
        assert replayed(pipeline) == [kept]
        assert (only(pipeline).expired, only(pipeline).stored) == (expired, 60 - expired)


def test_where_windows_see_all_rows_before_they_pass_out_none_is_unseen() -> None:
    for retention in (TaskInterval.seconds(20), None):
        data = series(retention=retention)
        pipeline = Pipeline("p").source(Batches(range(300), 50), data)
        pipeline.stage("a", [times], data, TEN)
        list(pipeline.replay())
        assert only(pipeline) == SourceStats(received=300, stored=300)


@pytest.mark.parametrize("seed", range(20))
def test_rows_in_any_order_are_unseen_exactly_if_they_pass_out_before_a_window(seed: int) -> None:
    chance = random.Random(seed)
    unseen = UnseenRows(lambda: None)
    kept: list[int] = []
    noted: list[int] = []
    passed = newest = 0
    for _ in range(200):
        some = [newest + chance.randrange(-50, 200) for _ in range(chance.choice((1, 20, 3000)))]
        if chance.random() < 0.5:
            some.sort()
        if len(some) > 1:
            unseen.extend(np.array(some, np.int64), in_order=some == sorted(some))
        else:
            unseen.add(*some)
        newest = max(newest, *some)
        noted += some
        kept = sorted(kept + some)
        if chance.random() < 0.5:
            oldest = newest - chance.choice((30, 150, 1000))
            kept = [t for t in kept if t >= oldest]
        bound = newest - chance.randrange(100) if chance.random() < 0.5 else None
        unseen.settle(np.array(kept, np.int64), bound)
        left = [t for t in noted if kept and t >= kept[0]]
        passed += len(noted) - len(left)
        noted = [t for t in left if bound is None or t >= bound]
        assert unseen.count == passed
    assert passed > 0


def test_of_several_rows_of_the_oldest_time_those_are_unseen_for_which_there_is_no_room() -> None:
    unseen = UnseenRows(lambda: None)
    unseen.extend(np.array([5, 7, 7, 7, 9]))
    unseen.settle(np.array([7, 9]), None)
    assert unseen.count == 3
    unseen.settle(np.array([7, 9]), 2**70)  # a unit that is not the rows' own
    unseen.settle(np.array([], np.int64), None)
    assert unseen.count == 3


def test_a_window_does_not_look_at_each_row_that_is_still_to_be_seen() -> None:
    def cpu(grace: int) -> float:
        data = series(retention=TaskInterval.seconds(200_000))
        pipeline = Pipeline("p").source(Batches(range(300_000), 10_000), data)
        config = RunnerConfig(grace=TaskInterval.seconds(grace))
        pipeline.stage("a", [nothing], data, TaskInterval.seconds(500), config)
        begun = time.process_time()
        assert sum(1 for _ in pipeline.replay()) == 600
        took = time.process_time() - begun
        assert only(pipeline) == SourceStats(received=300_000, stored=300_000)
        return took

    assert min(cpu(100_000) for _ in range(3)) < 5 * min(cpu(1) for _ in range(3)) + 0.2


@pytest.mark.parametrize("kind", ["rows", "batches"])
def test_live_rows_that_pass_out_unseen_are_counted(kind: str) -> None:
    feed = Feed(series(retention=2), kind)
    with feed.pipeline:
        feed.send(*[1001] * 5)
        assert feed.window() == [1001] * 2
        feed.send(1009, 1010)
        assert feed.window() == [1009, 1010]
        feed.send(1011, 1012)
        feed.inbox.put(None)
    assert (feed.counts.unseen, feed.counts.stored) == (3, 9)


# Malformed and rejected


class Everything:
    """A source that gives what is no row, and rows that fit no series, among good ones."""

    good: Rows = rows_at(1, 2, 3, 4)
    bad: Sequence[Any] = (
        5,
        (1, 2, 3),
        ("x", {"v": 1.0}),
        (2**80, {"v": 1.0}),
        (1, 5.0),
        (1, {"v": "text"}),
        (1, {"other": 1.0}),
        (1, {"v": 1.0, "timestamp": 3}),
        (1, {}),
    )

    @classmethod
    def rows(cls) -> Iterator[Any]:
        yield cls.good[0]
        yield from cls.bad
        yield from cls.good[1:]

    @classmethod
    async def arows(cls) -> AsyncIterator[Any]:
        for row in cls.rows():
            yield row


@pytest.mark.parametrize("source", [list(Everything.rows()), Everything.rows, Everything.arows])
def test_what_makes_no_row_costs_itself(source: Any) -> None:
    def declared() -> Pipeline:
        data = millis()
        given: Any = source() if callable(source) else source
        pipeline = Pipeline("p").source(given, data)
        pipeline.stage("a", [times], data, TaskInterval.millis(5))
        return pipeline

    right = SourceStats(received=13, stored=4, malformed=9)
    live = declared()
    live.run_sync()
    assert only(live) == SourceStats(**{**vars(right), "late": 4})  # all lie long before
    if source == Everything.arows:
        return
    replay = declared()
    list(replay.replay())
    assert only(replay) == right


@pytest.mark.parametrize("data", [RwLock(list[int]()), Atom(()), series()])
def test_what_an_ingest_refuses_costs_itself(data: Any) -> None:
    def ingest(data: object, row: int) -> None:
        if row == 2:
            raise ValueError("two")
        if row == 3:
            raise SystemExit

    source = [(at, at) for at in range(6)]
    pipeline = Pipeline("p").source(source, data, ingest)
    pipeline.stage("a", [nothing], data, TaskInterval.seconds(2))
    assert len(list(pipeline.replay())) == 3
    assert only(pipeline) == SourceStats(received=6, stored=4, rejected=2)
    pipeline.run_sync()
    assert only(pipeline) == SourceStats(received=6, stored=4, rejected=2, late=4)


def test_a_bad_row_is_fatal_if_it_is_to_be_after_the_rows_before_it() -> None:
    data = series()
    rows: Any = [*rows_at(1, 2), (3, {"v": "text"}), *rows_at(4)]
    no_row: Any = [*rows_at(1, 2), 5, *rows_at(4)]
    for bad in (rows, no_row):
        pipeline = Pipeline("p").source(bad, data, on_bad_row=OnFault.RAISE)
        pipeline.stage("a", [times], data, SECOND)
        got: list[Any] = []
        with pytest.raises(ConfigError):
            got.extend(dataset["times"] for _, dataset in pipeline.replay())
        assert got[:1] == [[1]]
        assert only(pipeline).malformed == 1


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("on_malformed", OnFault)
@pytest.mark.parametrize("on_bad_row", OnFault)
def test_a_malformed_line_is_fatal_if_it_is_to_be_to_the_file_or_to_the_pipeline(
    on_bad_row: OnFault, on_malformed: OnFault, live: bool, tmp_path: Path
) -> None:
    (file := tmp_path / "x.csv").write_text("timestamp,v\n1,1.0\n2,1.0\n3,text\n4,1.0\n")
    source = CsvFile(file, unit=TimeUnit.SECONDS, columns={"v": float}, on_malformed=on_malformed)
    data = series()
    pipeline = Pipeline("p").source(source, data, on_bad_row=on_bad_row)
    pipeline.stage("a", [times], data, SECOND)

    def run() -> None:
        if live:
            pipeline.run_sync()
        else:
            list(pipeline.replay())

    if OnFault.RAISE in (on_bad_row, on_malformed):
        with pytest.raises((SourceError, ExceptionGroup)) as ended:
            run()
        raised: Any = ended.value
        error: SourceError = raised.exceptions[0] if live else raised
        assert (error.line, error.column) == (4, "v")
        assert only(pipeline) == SourceStats(
            received=3, stored=2, malformed=1, late=only(pipeline).late
        )
    else:
        run()
        assert only(pipeline).stored == 3
        assert only(pipeline).malformed == 1


def test_a_poll_that_fails_is_for_the_source_to_judge() -> None:
    polls = 0

    def poll() -> int:
        nonlocal polls
        polls += 1
        if polls == 1:
            raise OSError("no network")
        pipeline.shutdown()
        return polls

    data = RwLock[list[int]]([])
    source = polling(poll, TaskInterval.millis(1))
    pipeline = Pipeline("p")
    pipeline.source(source, data, lambda held, row: held.append(row), on_bad_row=OnFault.RAISE)
    pipeline.stage("a", [nothing], data, "1s")
    pipeline.run_sync()
    assert polls > 1
    assert only(pipeline).malformed == 1


def test_a_row_without_a_value_is_left_out_and_counted() -> None:
    data = series()
    pipeline = Pipeline("p").source([(1, {"v": None}), *rows_at(2)], data)
    pipeline.stage("a", [times], data, SECOND)
    list(pipeline.replay())
    assert only(pipeline) == SourceStats(received=2, stored=1, rejected=1)


class Unclear:
    """Rows in batches, of which some have no time."""

    def batches(self) -> Iterator[Batch]:
        for stamps in ([None, 0, 5], ["x"], [float("nan"), 12]):
            yield Batch(np.array(stamps, object), {"v": np.ones(len(stamps))})

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches():
            yield from batch.rows()


UNCLEAR: list[Any] = [
    *("x", None, (0, {"v": 1.0}), (5,), (5, {"v": 1.0}), ("y", {}), (12, {"v": 1.0}))
]


@pytest.mark.parametrize("source", [UNCLEAR, Unclear()])
def test_what_makes_no_row_costs_itself_where_a_recording_is_played(source: Any) -> None:
    found: list[Any] = []
    data = series()
    played = paced(source, speed=1e6, unit=TimeUnit.SECONDS)
    pipeline = Pipeline("p").source(played, data)
    stage = pipeline.stage("a", [times], data, TEN)
    stage.sink(CallbackSink(lambda _, dataset: found.append(dataset["times"])))
    pipeline.run_sync()
    assert found == [[0, 5], [12]]
    received = 6 if isinstance(source, Unclear) else 7
    assert only(pipeline) == SourceStats(received=received, stored=3, malformed=received - 3)


class WithNone:
    """Rows in one batch; those of some times have no value."""

    def __init__(self, stamps: Sequence[int], empty: Sequence[int]) -> None:
        self._stamps = stamps
        self._empty = empty

    def __iter__(self) -> Iterator[tuple[int, dict[str, float | None]]]:
        for stamp in self._stamps:
            yield stamp, {"v": None if stamp in self._empty else 1.0}

    def batches(self) -> Iterator[Batch]:
        values = [row["v"] for _, row in self]
        yield Batch(np.array(self._stamps, np.int64), {"v": np.array(values, object)})


@pytest.mark.parametrize("by_column", [True, False])
def test_a_row_without_a_value_is_rejected_by_column_as_by_row(by_column: bool) -> None:
    data = series()
    source = WithNone(range(30), [3, 17])
    pipeline = Pipeline("p").source(source if by_column else list(source), data)
    pipeline.stage("a", [times], data, SECOND)
    list(pipeline.replay())
    assert only(pipeline) == SourceStats(received=30, stored=28, rejected=2)


@pytest.mark.parametrize("by_column", [True, False])
def test_a_row_without_a_value_is_not_late(by_column: bool) -> None:
    data = series()
    source = WithNone([100, *range(20)], range(3, 20))
    pipeline = Pipeline("p").source(source if by_column else list(source), data)
    pipeline.stage("a", [times], data, SECOND)
    list(pipeline.replay())
    assert only(pipeline) == SourceStats(received=21, stored=4, rejected=17, late=3)


@pytest.mark.parametrize("size", [0, 1, 30])
def test_rows_in_order_before_the_first_sample_are_late_by_column_as_by_row(size: int) -> None:
    data = series()
    source = Batches(range(30), size) if size else rows_at(*range(30))
    pipeline = Pipeline("p").source(source, data)
    pipeline.stage("a", [times], data, TEN, RunnerConfig(window="3s"))
    assert replayed(pipeline) == [[7, 8, 9], [17, 18, 19], [27, 28, 29]]
    assert only(pipeline) == SourceStats(received=30, stored=30, late=7)


def test_a_function_that_cannot_take_dead_letters_is_refused_when_it_is_declared() -> None:
    def one(letter: object) -> None: ...

    def several(*letter: object) -> None: ...

    data = series()
    with pytest.raises(ConfigError, match=r"with \(row, reason, detail\): too many positional"):
        Pipeline("p").source([], data, dead_letters=one)
    with pytest.raises(ConfigError, match=r"the ingest cannot be called with \(data, letter\)"):
        Pipeline("p").source([], data, dead_letters=(data, one))
    for good in (several, (data, several), dict):  # that one is of C, without parameters to look at
        Pipeline("p").source([], data, dead_letters=good)


def test_one_more_row_is_no_more_rows(caplog: pytest.LogCaptureFixture) -> None:
    data = series()
    rows: Any = [*rows_at(1), 5, 6]
    pipeline = Pipeline("p").source(rows, data)
    pipeline.stage("a", [times], data, SECOND)
    list(pipeline.replay())
    assert "1 more row is malformed, 2 by now; the last" in caplog.text


def test_twenty_thousand_bad_rows_are_no_flood(caplog: pytest.LogCaptureFixture) -> None:
    data = series(retention=TaskInterval.seconds(1))
    rows: Any = [*rows_at(100_000), *([5] * 20_000), *rows_at(*range(20_000))]
    pipeline = Pipeline("p").source(rows, data)
    pipeline.stage("a", [times], data, SECOND)
    list(pipeline.replay())
    counts = only(pipeline)
    assert (counts.malformed, counts.expired) == (20_000, 20_000)
    assert len(caplog.messages) < 12
    assert any("19,999 more rows are malformed, 20,000 by now" in m for m in caplog.messages)


# What is told


def told(pipeline: Pipeline, caplog: pytest.LogCaptureFixture, *, live: bool = False) -> str:
    caplog.clear()
    if live:
        pipeline.run_sync()
    else:
        list(pipeline.replay())
    return caplog.text


def test_where_most_rows_go_the_wrong_way_the_likely_cause_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def declared(source: Any, interval: TaskInterval = TEN) -> Pipeline:
        data = series()
        pipeline = Pipeline("p").source(source, data)
        pipeline.stage("a", [times], data, interval)
        return pipeline

    text = told(declared(Batches(range(999, -1, -1), 100)), caplog)
    assert "990 of 1,000 rows were late: the likely cause is the order of the rows: the newest" in (
        text
    )
    text = told(declared(rows_at(500, *range(0, 400, 2))), caplog)
    assert "they are not sorted by time; sort them, or give the stages a grace=" in text
    path = tmp_path / "rows.csv"
    path.write_text("timestamp,v\n\n31.12.2024,1\n1.1.2025,2\n")
    pipeline = declared(CsvFile(path, unit=TimeUnit.SECONDS))
    text = told(pipeline, caplog)
    assert "2 of 2 rows were malformed: the likely cause is the format" in text
    assert "line 3, column 'timestamp'" in text
    assert only(pipeline) == SourceStats(received=2, malformed=2)

    zone = told(declared(rows_at(*[now() + 2 * HOUR] * 20)), caplog)
    assert (
        "20 of 20 rows were ahead: the likely cause is the time zone: they are stamped about 2 h"
        in zone
    )
    behind = told(declared(iter(rows_at(*[now() - 5 * HOUR] * 20)), SECOND), caplog, live=True)
    assert "the time zone: they are stamped about 5 h behind" in behind
    unit = told(declared(iter(rows_at(*[now() // 1000] * 20)), SECOND), caplog, live=True)
    assert "20 of 20 rows were late: the likely cause is the unit" not in unit
    wrong = told(declared(iter(rows_at(*[now() * 1000] * 20)), SECOND), caplog, live=True)
    assert "they would be of about now in millis; say so by unit=" in wrong
    recorded = iter(rows_at(*[now() - 759 * 24 * HOUR] * 20))
    past = told(declared(recorded, SECOND), caplog, live=True)
    assert "that they are a recording: they are of 759 days before the run; replay it" in past
    clock = told(declared(iter(rows_at(*[now() - 1000] * 20)), SECOND), caplog, live=True)
    assert "that they waited on their way, as what a broker kept (start='earliest'), or" in clock
    assert "A live run has windows from now on" in clock
    assert "likely" not in told(declared(rows_at(1, 2, 30, 3)), caplog)


@pytest.mark.parametrize("speed", [None, 1e9])
def test_files_that_are_read_one_after_another_are_the_likely_cause(
    speed: float | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        lines = [f"{1000 + at},{number}" for at in range(100)]
        (tmp_path / f"{number}.csv").write_text("\n".join(["timestamp,v", *lines]) + "\n")

    def late_of(**options: Any) -> tuple[str, int]:
        source: Any = CsvFile(tmp_path, unit=TimeUnit.SECONDS, **options)
        data = series()
        source = source if speed is None else paced(source, speed)
        pipeline = Pipeline("p").source(source, data)
        pipeline.stage("a", [times], data, TEN)
        text = told(pipeline, caplog, live=speed is not None)
        return text, only(pipeline).late

    text, late = late_of()
    assert late == 90
    assert "the likely cause is that its 2 files or parts are read one after another" in text
    assert "by sort=True or" in text
    assert "order of the rows" not in text
    assert late_of(sort=True) == ("", 0)
    # Within a file, too, rows are out of order.
    lines = [f"{1000 + at},0" for at in range(99, -1, -1)]
    (tmp_path / "1.csv").write_text("\n".join(["timestamp,v", *lines]) + "\n")
    text, late = late_of()
    assert late == 90
    assert "by now, the last stamped 1970-01-01T00:16:40Z: windows that would have" in text


def test_a_replay_has_a_summary_at_any_time() -> None:
    data = series()
    pipeline = Pipeline("p").source(rows_at(1, 12, 25, 13), data, name="mine")
    pipeline.stage("a", [times], data, TEN)
    with pipeline.replay() as replay:
        assert replay.summary.windows == 0
        assert next(replay)[0] == "a"
        assert replay.summary.stages == {"a": 1}
        assert len(list(replay)) == 2
    summary = replay.summary
    assert summary.sources == pipeline.stats.sources
    assert summary.sources["mine"] == SourceStats(received=4, stored=4, late=1)
    assert (summary.windows, summary.warnings) == (3, [])
    assert 0 < summary.seconds == replay.summary.seconds < PATIENCE
    replay.close()


# Dead letters


@pytest.mark.parametrize("size", [0, 3])
@pytest.mark.parametrize("live", [False, True])
def test_each_row_that_is_not_stored_is_a_dead_letter(size: int, live: bool) -> None:
    letters: list[tuple[Any, str, str]] = []
    data = series(retention=TaskInterval.seconds(100))
    stamps = [now() - 50, now() - 40, now() + HOUR, now() - 1000, now() - 30]
    source: Any = Batches(stamps, size) if size else [*rows_at(*stamps), 5, (now(), {"v": "x"})]

    def take(row: Any, reason: str, detail: str) -> None:
        letters.append((row, reason, detail))

    pipeline = Pipeline("p").source(source, data, dead_letters=take)
    pipeline.stage("a", [times], data, SECOND)
    if live:
        pipeline.run_sync()
    else:
        list(pipeline.replay())
    good = [("ahead", (stamps[2], {"v": 1.0})), ("expired", (stamps[3], {"v": 1.0}))]
    bad = [] if size else [("malformed", 5), ("malformed", source[-1])]
    assert sorted((reason, repr(row)) for row, reason, _ in letters) == sorted(
        (reason, repr(row)) for reason, row in good + bad
    )
    assert all(detail for _, _, detail in letters)
    assert only(pipeline).received == len(letters) + only(pipeline).stored


def test_dead_letters_go_to_shared_data_and_to_sinks(tmp_path: Path) -> None:
    held = RwLock(list[DeadLetter]())
    sink = SqlSink(tmp_path / "dead.db")
    rows: Any = [*rows_at(1), 5, 6, (2, {"v": object()})]

    def add(values: list[DeadLetter], letter: DeadLetter) -> None:
        values.append(letter)

    both: Sequence[Any] = ((held, add), sink)
    for to in both:
        data = series()
        pipeline = Pipeline("p").source(rows, data, name="mine", dead_letters=to)
        pipeline.stage("a", [times], data, SECOND)
        list(pipeline.replay())
    with held.read() as letters:
        assert [letter.row for letter in letters[:2]] == [5, 6]
        assert {letter.reason for letter in letters} == {"malformed"}
    stored = [row for row in sink.rows() if row.task == "row"]
    assert [row.value for row in stored[:2]] == [5, 6]
    assert len(stored) == 3
    assert {row.stage for row in stored} == {"mine"}
    sink.close()


def test_what_goes_wrong_with_a_dead_letter_costs_it(caplog: pytest.LogCaptureFixture) -> None:
    def fail(row: object, reason: str, detail: str) -> None:
        raise ValueError("no")

    data = series()
    rows: Any = [5, *rows_at(1), 6]
    pipeline = Pipeline("p").source(rows, data, dead_letters=fail)
    pipeline.stage("a", [times], data, SECOND)
    list(pipeline.replay())
    assert only(pipeline) == SourceStats(received=3, stored=1, malformed=2)
    assert "a dead letter could not be delivered: ValueError: no" in caplog.text
    for bad in (5, SqlSink, (data, 5), (5, fail)):
        with pytest.raises(ConfigError, match="dead_letters="):
            pipeline.source([], data, dead_letters=bad)


def test_a_dead_letter_may_look_at_the_data() -> None:
    data = RwLock(list[int]())
    seen: list[int] = []

    def look(row: object, reason: str, detail: str) -> None:
        with data.read(1.0) as values:
            seen.append(len(values))

    def ingest(values: list[int], row: int) -> None:
        if row == 2:
            raise ValueError(row)
        values.append(row)

    pipeline = Pipeline("p").source([(n, n) for n in range(4)], data, ingest, dead_letters=look)
    pipeline.stage("a", [nothing], data, SECOND)
    pipeline.run_sync()
    assert seen == [2]


# They add up


def test_they_add_up_at_any_moment_seen_from_another_thread(switching: None) -> None:
    choose = random.Random(3)
    done = threading.Event()
    wrong: list[SourceStats] = []
    looks = 0

    def rows() -> Iterator[Any]:
        for number in range(3000):
            stamp = number + choose.randint(-20, 0)
            match number % 10:
                case 0:
                    yield 5
                case 1:
                    yield stamp, {"v": "text"}
                case 2:
                    yield 0, {"v": 1.0}
                case _:
                    yield stamp, {"v": 1.0}

    data, plain = millis(retention=TaskInterval.millis(50)), RwLock(list[int]())
    pipeline = Pipeline("p").source(rows(), data).source(Batches(range(3000), 100), data)
    pipeline.source(rows(), plain, lambda held, row: held.append(row["v"] + 1))
    pipeline.stage("a", [nothing], data, TaskInterval.millis(5))
    pipeline.stage("b", [nothing], plain, TaskInterval.millis(5))

    def watch() -> None:
        nonlocal looks
        while not done.is_set():
            looks += 1
            wrong.extend(c for c in pipeline.stats.sources.values() if not adds_up(c))

    with beside(watch):
        try:
            pipeline.run_sync()
        finally:
            done.set()
    assert wrong == []
    assert looks > 3
    first, second, third = pipeline.stats.sources.values()
    assert (first.received, second.received, third.received) == (3000, 3000, 3000)
    assert first.waiting == second.waiting == third.waiting == 0
    assert (first.malformed, third.malformed, third.rejected) == (600, 300, 300)


def test_those_of_the_live_run_come_before_those_of_a_replay() -> None:
    data = millis()
    pipeline = Pipeline("p").source(rows_at(1, 2, 3), data)
    pipeline.stage("a", [times], data, TaskInterval.millis(5))
    results = pipeline.replay()
    next(results)
    assert only(pipeline).received == 3
    results.close()
    pipeline.run_sync()
    assert only(pipeline) == SourceStats(received=3, stored=3, late=3)
    list(pipeline.replay())
    assert only(pipeline) == SourceStats(received=3, stored=3, late=3)


def test_a_poll_of_what_makes_no_row_costs_itself() -> None:
    found: Iterator[Any] = iter([{"v": 1.0}, {"v": "text"}, 5, {"v": 2.0}])
    data = millis()
    polled = polling(lambda: next(found, None), TaskInterval.millis(1), unit=TimeUnit.MILLIS)
    pipeline = Pipeline("p").source(polled, data)
    pipeline.stage("a", [nothing], data, TaskInterval.millis(5))
    with pipeline:
        wait_until(lambda: only(pipeline).stored == 2)
    assert only(pipeline).malformed == 2


def test_a_file_is_counted_as_its_rows_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("timestamp,v\n" + "".join(f"{at},1\n" for at in (1, 2, 30, 3, 40)))
    data = series()
    pipeline = Pipeline("p").source(CsvFile(path, unit=TimeUnit.SECONDS), data)
    pipeline.stage("a", [times], data, TEN)
    assert replayed(pipeline) == [[1, 2], [], [], [30], [40]]
    assert only(pipeline) == SourceStats(received=5, stored=5, late=1)


# Times of other kinds


NOON = datetime(2024, 7, 1, 12, tzinfo=UTC)
NOON_S = int(NOON.timestamp())


def at_noon() -> list[Any]:
    """Rows at four seconds of which each has its timestamp as something else, and two bad ones."""
    third = (NOON + timedelta(seconds=2)).astimezone(timezone(timedelta(hours=-3)))
    return [
        (NOON, {"v": 1.0}),
        (np.datetime64(NOON_S + 1, "s"), {"v": 1.0}),
        (NOON.replace(tzinfo=None), {"v": 1.0}),
        (third + timedelta(milliseconds=999), {"v": 1.0}),
        (np.datetime64("NaT", "s"), {"v": 1.0}),
        (np.int64(NOON_S + 3), {"v": 1.0}),
    ]


class Noon:
    """A source that gives its times by column, as those of NumPy."""

    def batches(self) -> Iterator[Batch]:
        times: Any = np.array([NOON_S * 1000, 0, NOON_S * 1000 + 1500], "M8[ms]")
        times[1] = "NaT"
        yield Batch(times, {"v": np.ones(3)})

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        raise AssertionError("it is read by column")


@pytest.mark.parametrize("live", [False, True])
def test_rows_may_have_times_of_other_kinds(live: bool) -> None:
    data, plain = series(), RwLock[list[Any]]([])
    pipeline = Pipeline("p").source(at_noon(), data).source(Noon(), data)
    pipeline.source(at_noon(), plain, lambda held, row: held.append(row), unit=TimeUnit.SECONDS)
    pipeline.source(Noon(), plain, lambda held, row: held.append(row), unit=TimeUnit.SECONDS)
    pipeline.stage("a", [times], data, SECOND)
    pipeline.stage("b", [nothing], plain, SECOND)
    if live:
        pipeline.run_sync()
        assert data.view().time.tolist() == [NOON_S + s for s in (0, 0, 1, 1, 2, 3)]
        with plain.read() as held:
            assert len(held) == 6
    else:
        given = [dataset["times"] for name, dataset in pipeline.replay() if name == "a"]
        assert given == [[NOON_S + s for s in of] for of in ((0, 0), (1, 1), (2,), (3,))]
    for told in list(pipeline.stats.sources.values())[::2]:
        assert (told.received, told.stored, told.malformed) == (6, 4, 2)
    for told in list(pipeline.stats.sources.values())[1::2]:
        assert (told.received, told.stored, told.malformed) == (3, 2, 1)


def test_times_without_a_zone_are_in_that_of_the_source_or_of_the_series() -> None:
    berlin = [(datetime(2024, 7, 1, 14, tzinfo=UTC).replace(tzinfo=None), {"v": 1.0})]
    for data, zone in ((series(), "Europe/Berlin"), (series(zone="Europe/Berlin"), None)):
        pipeline = Pipeline("p").source(berlin, data, zone=zone)
        pipeline.stage("a", [times], data, SECOND)
        assert [d["times"] for _, d in pipeline.replay()] == [[NOON_S]]
    with pytest.raises(ConfigError, match="zone='Mars'"):
        Pipeline("p").source(berlin, series(), zone="Mars")


@pytest.mark.parametrize(
    "start",
    [
        NOON + timedelta(seconds=2),
        np.datetime64(NOON_S + 2, "s"),
        NOON_S + 2,
        (NOON + timedelta(seconds=2)).astimezone(timezone(timedelta(hours=5))),
    ],
)
def test_a_replay_begins_and_ends_at_times_of_any_kind(start: Any) -> None:
    data = series()
    pipeline = Pipeline("p").source(rows_at(*range(NOON_S, NOON_S + 6)), data)
    pipeline.stage("a", [times], data, SECOND)
    end = NOON + timedelta(seconds=4)
    found = [dataset.window.start - NOON_S for _, dataset in pipeline.replay(start, end)]
    assert found == [2, 3]
    for bad in (NOON.replace(tzinfo=None), 1.5, "2024-07-01", np.datetime64("NaT", "s"), True):
        wrong: Any = bad
        with pytest.raises(ConfigError):
            list(pipeline.replay(wrong))


def test_the_log_tells_by_its_time_which_row_was_the_last_to_come_late(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = series()
    pipeline = Pipeline("p").source(rows_at(1_730_241_100, 1_730_241_000), data)
    pipeline.stage("a", [times], data, TEN)

    assert "the last stamped 2024-10-29T22:30:00Z: windows" in told(pipeline, caplog)
