"""Pipelines with journals: a replay of what is kept gives what the live run gave."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.bench import RecordingSink
from tests.support.proof import examples
from tests.support.threads import PATIENCE, eventually
from tests.test_arrived import COMPARED, END, MS, SHAPES, LiveFeed, Shape, found, held, n

from run_task import (
    Closed,
    ConfigError,
    Pipeline,
    RwLock,
    TaskInterval,
    TimeSeries,
    TimeUnit,
    VirtualClock,
    task,
)
from run_task.aggregates import count
from run_task.sinks import JsonLinesSink
from run_task.sources import Batch, Inbox, Journal, polling

pytest.importorskip("pyarrow")

Event = tuple[int, int, int]
"""When a row comes, of which source, and its timestamp: in milliseconds."""


@task
def total(values: list[float], start: int, end: int) -> float:
    return values[0]


def add(values: list[float], row: dict[str, float]) -> None:
    values[0] = values[0] * 1.000001 + row["v"]  # so that each order gives another sum


def of(
    sources: Sequence[Any],
    folder: Path,
    first: Shape,
    second: Shape,
    clock: VirtualClock | None = None,
    *,
    both: bool = False,
) -> tuple[Pipeline, RecordingSink]:
    """Sources with journals into one series, or that and a lock; stages over these."""
    pipeline, sink = Pipeline("p", clock=clock), RecordingSink()
    retention = None if first.retention is None else TaskInterval.seconds(first.retention)
    series = TimeSeries({"v": float}, retention=retention, closed=first.closed)
    lock = RwLock([0.0])
    for number, source in enumerate(sources):
        into: Any = (series, lock) if both else series
        ingest: Any = (None, add) if both else None
        journal = folder / str(number)
        pipeline.source(source, into, ingest, max_ahead="5s", journal=journal)
    every = TaskInterval.seconds(first.interval).with_unit(TimeUnit.MILLIS)
    a = pipeline.stage("a", [held, n], series, every, first.config()).sink(sink)
    results = TimeSeries({"n": int}, closed=Closed.RIGHT)
    a.into(results)
    every = TaskInterval.seconds(second.interval).with_unit(TimeUnit.MILLIS)
    pipeline.stage("b", [held], results, every, second.config()).sink(sink)
    if both:
        pipeline.stage("c", [total], lock, every, second.config()).sink(sink)
    return pipeline, sink


class BatchFeed(LiveFeed):
    """The same in batches."""

    def batches(self) -> Iterator[Any]:
        return iter(self)


def live(
    events: Sequence[Event], folder: Path, first: Shape, second: Shape, *, both: bool, copies: int
) -> tuple[Pipeline, RecordingSink]:
    """Have rows come by a clock that is moved from one to the next, whatever else has been done:
    one by one, or those that come at a time in a batch, which has so many copies of each."""
    clock = VirtualClock(events[0][0] * MS)
    made = BatchFeed if copies else LiveFeed
    feeds = [made() for _ in range(1 + max(number for _, number, _ in events))]
    pipeline, sink = of(feeds, folder, first, second, clock, both=both)
    inner: Any = pipeline

    def settled() -> bool:
        run, now_ns = inner._run, clock.time_ns()
        early = [source.mark.early_ns for source in run._sources]
        return bool(min([*(stage.mark.due_ns for stage in run._stages), *early]) > now_ns)

    with pipeline:
        for (arrival, number), some in itertools.groupby(events, lambda event: event[:2]):
            clock.advance_to(arrival * MS)
            times = [timestamp for _, _, timestamp in some]
            if copies:
                stamps = np.repeat(np.array(times), copies)
                feeds[number].put(Batch(stamps, {"v": stamps.astype(float)}))
                continue
            for timestamp in times:
                feeds[number].put((timestamp, {"v": float(timestamp)}))
        last = max(timestamp for _, _, timestamp in events if timestamp <= END)
        clock.advance_to(last * MS)
        eventually(settled)
        for feed in feeds:
            feed.put(None)
        eventually(lambda: inner._run.lifecycle.phase.name == "ENDED")
    return pipeline, sink


@st.composite
def feeds(draw: st.DrawFn) -> list[Event]:
    """Rows that come late, in time, before their time, or with the end of a window."""
    events: list[Event] = [(100_001, 0, 100_001)]
    for number in range(draw(st.integers(1, 2))):
        arrival = 100_001
        for step in draw(st.lists(st.sampled_from([0, 1, 499, 999, 2_000]), max_size=8)):
            arrival += step
            lag = draw(st.just(0) | st.integers(-9_000, 30_000) | st.just(arrival % 1_000))
            events.append((arrival, number, arrival - lag))
    events.sort(key=lambda event: event[0])
    return [*events, (END + 1, 0, END)]


HELD_UP: list[Event] = [
    (100_001, 0, 100_001),
    (102_001, 1, 105_468),  # it waits for its time, and finds another one before it then
    (102_001, 1, 102_000),
    (103_000, 1, 103_736),
    (103_999, 1, 104_125),
    (104_998, 1, 104_998),
    (104_999, 1, 105_125),
    (END + 1, 0, END),
]


@given(feeds(), SHAPES, SHAPES, st.booleans(), st.sampled_from([0, 1, 10]))
@example(
    HELD_UP, Shape(5, None, None, None, Closed.RIGHT), Shape(5, 2, 2, None, Closed.LEFT), False, 0
)
@settings(max_examples=examples(60), deadline=None)
def test_a_replay_of_journals_gives_what_the_live_run_gave(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[Event],
    first: Shape,
    second: Shape,
    both: bool,
    copies: int,
) -> None:
    folder = tmp_path_factory.mktemp("raw")
    run, sink = live(events, folder, first, second, both=both, copies=copies)
    count = 1 + max(number for _, number, _ in events)
    pipeline, _ = of([LiveFeed()] * count, folder, first, second, both=both)
    replayed = list(pipeline.replay())
    assert found(replayed, COMPARED) == found(sink.results, COMPARED)
    assert pipeline.stats.sources == run.stats.sources


SHAPE = Shape(1, None, None, None, Closed.LEFT)


def test_a_row_that_has_come_by_the_end_of_a_window_is_in_it_whenever_it_is_kept(
    tmp_path: Path,
) -> None:
    clock = VirtualClock(10_000 * MS)
    feed = LiveFeed()
    series, sink = TimeSeries({"v": float}), RecordingSink()
    pipeline = Pipeline("p", clock=clock)
    journal = Journal(tmp_path, sync_every="1h")  # so that none is kept but for a window
    pipeline.source(feed, series, journal=journal)
    pipeline.stage("a", [held], series, "1s").sink(sink)
    with pipeline:
        for second in range(10, 20):
            for millis in (0, 998, 999):
                stamp = 1_000 * second + millis
                clock.advance_to(stamp * MS)
                feed.put((stamp, {"v": 1.0}))
            clock.advance_to((1_000 * second + 1_000) * MS)
            window = sink.wait_for("a", 1_000 * second + 1_000)
            assert window["held"] == [1_000 * second, 1_000 * second + 998, 1_000 * second + 999]
        feed.put(None)


def test_shutting_down_lets_enter_what_has_come(tmp_path: Path) -> None:
    clock = VirtualClock(10_000 * MS)
    feed = LiveFeed()
    series = TimeSeries({"v": float})
    pipeline = Pipeline("p", clock=clock)
    pipeline.source(feed, series, journal=Journal(tmp_path, sync_every="1h"))
    pipeline.stage("a", [n], series, "1s")
    with pipeline:
        clock.advance("200ms")
        for stamp in range(10_000, 10_100):
            feed.put((stamp, {"v": 1.0}))
        pipeline.shutdown()
        feed.put(None)
    counts = pipeline.stats.sources["source-1"]
    assert (counts.received, counts.stored) == (100, 100)
    assert len(list(Journal(tmp_path))) == 100


async def _ticks(count: int) -> AsyncIterator[Any]:
    for stamp in range(count):
        yield 10_000 + stamp, {"v": float(stamp)}
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["sync", "async", "polling", "async in its loop"])
def test_any_live_source_can_have_one(tmp_path: Path, kind: str) -> None:
    series = TimeSeries({"v": float})
    numbers = iter(range(20))
    clock = VirtualClock(10_000 * MS)
    sources: dict[str, Any] = {
        "sync": (item for item in [(10_000 + i, {"v": float(i)}) for i in range(20)]),
        "async": _ticks(20),
        "async in its loop": _ticks(20),
        "polling": polling(lambda: {"v": float(next(numbers))}, "1ms", unit=TimeUnit.MILLIS),
    }
    if kind != "polling":
        clock.advance("1s")
    pipeline = Pipeline("p", clock=None if kind == "polling" else clock)
    pipeline.source(sources[kind], series, journal=tmp_path)
    pipeline.stage("a", [n], series, "1s")
    if kind == "async in its loop":
        asyncio.run(pipeline.run())
    elif kind == "polling":
        with pipeline:
            eventually(lambda: len(series.view()) >= 20)
            pipeline.shutdown()
    else:
        pipeline.run_sync()
    there = [item.row["v"] for item in Journal(tmp_path)]
    assert there[:20] == list(map(float, range(20)))
    assert there == series.view()["v"].tolist()


def test_a_replay_reads_it_again_and_again_while_it_is_written(tmp_path: Path) -> None:
    clock = VirtualClock(10_000 * MS)
    feed = LiveFeed()

    def made(clock: VirtualClock | None = None) -> Pipeline:
        series = TimeSeries({"v": float})
        pipeline = Pipeline("p", clock=clock).source(feed, series, journal=tmp_path)
        pipeline.stage("a", [n], series, "1s")
        return pipeline

    pipeline = made(clock)

    def stored(count: int) -> bool:
        return pipeline.stats.sources["source-1"].stored == count

    with pipeline:
        for number in range(1, 20):
            clock.advance("1ms")
            feed.put((10_000 + number, {"v": 1.0}))
            eventually(partial(stored, number))
            assert [d["n"] for _, d in made().replay()] == [number]
        feed.put(None)


def test_a_restart_resumes_from_it_and_goes_on_live_with_new_rows(tmp_path: Path) -> None:
    clock = VirtualClock(10_000 * MS)

    def run(rows: Sequence[int], until: int, *, resume: bool) -> None:
        feed, series = LiveFeed(), TimeSeries({"v": float})
        pipeline = Pipeline("p", clock=clock).source(feed, series, journal=tmp_path / "raw")
        sink = JsonLinesSink(str(tmp_path / "results.jsonl"))
        pipeline.stage("a", [n, held], series, "1s").sink(sink)
        if resume:
            list(pipeline.resume(sink))
        with pipeline:
            for stamp in rows:
                clock.advance_to(stamp * MS)
                feed.put((stamp, {"v": 1.0}))
            clock.advance_to(until * MS)
            eventually(lambda: pipeline.stats.stages["a"].ticks >= 1)
            feed.put(None)

    run([10_100, 10_200, 11_100, 12_100], 12_500, resume=False)
    run([12_600, 13_100], 14_000, resume=True)
    sink = JsonLinesSink(str(tmp_path / "results.jsonl"))
    sink.begin("p")
    rows = {row.start: row.value for row in sink.rows("a") if row.task == "held"}
    sink.close()
    assert rows[10_000] == [10_100, 10_200]
    assert rows[12_000] == [12_100, 12_600]
    assert rows[13_000] == [13_100]


def test_a_folder_in_use_is_refused_before_anything_runs(tmp_path: Path) -> None:
    feed, series = LiveFeed(), TimeSeries({"v": float})
    pipeline = Pipeline("p").source(feed, series, journal=tmp_path)
    pipeline.source(LiveFeed(), series, journal=tmp_path)
    pipeline.stage("a", [n], series, "1s")
    with pytest.raises(ConfigError, match="another journal is being written there"):
        pipeline.run_sync()
    list(Journal(tmp_path))
    again = Pipeline("p").source(iter([(1, {"v": 1.0})]), series, journal=tmp_path)
    again.stage("a", [n], series, "1s")
    again.run_sync()  # it was let go of
    assert len(list(Journal(tmp_path))) == 1


def test_a_source_that_fails_gives_what_came_before(tmp_path: Path) -> None:
    def feed() -> Iterator[Any]:
        yield 1, {"v": 1.0}
        raise OSError("the line is down")

    series = TimeSeries({"v": float})
    pipeline = Pipeline("p").source(feed(), series, journal=tmp_path)
    pipeline.stage("a", [n], series, "1s")
    with pytest.raises(ExceptionGroup) as raised:
        pipeline.run_sync()
    assert "the line is down" in str(raised.value.exceptions)
    assert len(list(Journal(tmp_path))) == 1
    assert pipeline.stats.sources["source-1"].stored == 1


def test_malformed_rows_of_a_source_and_of_its_journal_are_counted_with_it(tmp_path: Path) -> None:
    letters: list[Any] = []

    def bury(*letter: Any) -> None:
        letters.append(letter)

    rows: list[Any] = [
        (1, {"v": 1.0}),
        (2, {"v": [1]}),
        "no row",
        (3, {"v": "text"}),
        (4, {"v": 4.0}),
    ]
    series = TimeSeries({"v": float})
    pipeline = Pipeline("p", clock=VirtualClock(10 * MS))
    pipeline.source(rows, series, journal=tmp_path, dead_letters=bury)
    pipeline.stage("a", [n], series, "1s")
    pipeline.run_sync()
    counts = pipeline.stats.sources["source-1"]
    assert (counts.received, counts.stored, counts.malformed) == (5, 2, 3)
    assert len(letters) == 3
    assert [item.timestamp for item in Journal(tmp_path)] == [1, 3, 4]


def test_threads_are_gone_after_a_run(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    series = TimeSeries({"v": float})
    pipeline = Pipeline("p").source(LiveFeed(), series, journal=tmp_path)
    pipeline.stage("a", [n], series, "1s")
    feed: Any = pipeline.sources[0][0]
    with pipeline:
        feed.inner.put((1, {"v": 1.0}))
        feed.inner.put(None)
    eventually(lambda: set(threading.enumerate()) <= before)
    assert PATIENCE


def test_many_rows_that_are_ahead_enter_in_their_time_although_the_source_waited_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("run_task.pipeline.live._early_rows.MOST", 5)
    inbox = Inbox[Any]()
    series = TimeSeries({"v": float}, TimeUnit.MILLIS)
    pipeline = Pipeline("p").source(inbox, into=series, journal=tmp_path, name="feed")
    pipeline.stage("count", [count()], series, "100ms")
    with pipeline:
        now = time.time_ns() // 1_000_000
        for number in range(30):
            inbox.put(now + 300 + number, {"v": 1.0})
        inbox.put(now, {"v": 2.0})
        eventually(lambda: pipeline.stats.sources["feed"].stored == 31)
    assert len(series.view()) == 31
