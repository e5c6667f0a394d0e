"""Rows that say when they came: a replay of them gives what the live run gave."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.bench import RecordingSink
from tests.support.proof import examples
from tests.support.threads import PATIENCE, eventually

from run_task import (
    Arrived,
    Closed,
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
from run_task.sinks import JsonLinesSink
from run_task.sources import OnFault, about, paced, polling

MS = 10**6
END = 160_000
"""When the last row of all comes, long after the others. How many windows there are after it
differs: a live run gives those up to the present."""

COMPARED = END - 26_000
"""Up to when windows are due before that, whatever their grace."""

Row = Any
"""An Arrived: of any kind of times, as sources may give them."""

Feed = Sequence[Row]


@task
def held(view: TimeSeriesView, start: int, end: int) -> list[int]:
    return list(map(int, view.in_window.time))


@task
def n(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@task
def entered(values: list[int], start: int, end: int) -> list[int]:
    return list(values)


def row(timestamp: int, arrival: Any) -> Row:
    return Arrived(timestamp, {"v": float(timestamp)}, arrival)


@dataclass(frozen=True)
class Shape:
    """A pipeline, in seconds."""

    interval: int
    window: int | None
    grace: int | None
    retention: int | None
    closed: Closed

    def config(self) -> RunnerConfig:
        return RunnerConfig(
            window=None if self.window is None else TaskInterval.seconds(self.window),
            grace=None if self.grace is None else TaskInterval.seconds(self.grace),
        )


def of(
    sources: Iterable[Any], first: Shape, second: Shape, clock: VirtualClock | None = None
) -> tuple[Pipeline, RecordingSink]:
    """Sources into one series, a stage over it, and others over what that gives."""
    pipeline, sink = Pipeline("p", clock=clock), RecordingSink()
    retention = None if first.retention is None else TaskInterval.seconds(first.retention)
    series = TimeSeries({"v": float}, retention=retention, closed=first.closed)
    for source in sources:
        pipeline.source(source, series, max_ahead="5s")
    every = TaskInterval.seconds(first.interval).with_unit(TimeUnit.MILLIS)
    a = pipeline.stage("a", [held, n], series, every, first.config()).sink(sink)
    results = TimeSeries({"n": int}, closed=Closed.RIGHT)
    a.into(results)
    lock = RwLock[list[int]]([])
    a.into(lock, lambda values, dataset: values.append(dataset.timestamp))
    every = TaskInterval.seconds(second.interval).with_unit(TimeUnit.MILLIS)
    pipeline.stage("b", [held], results, every, second.config()).sink(sink)
    pipeline.stage("c", [entered], lock, every, second.config()).sink(sink)
    return pipeline, sink


class LiveFeed:
    """A source whose rows a test puts in, and can wait for."""

    def __init__(self) -> None:
        self._rows: queue.Queue[Any] = queue.Queue()
        self._asked = threading.Semaphore(0)

    def __iter__(self) -> Iterator[Any]:
        while True:
            self._asked.release()
            if (row := self._rows.get()) is None:
                return
            yield row

    def put(self, row: Any) -> None:
        assert self._asked.acquire(timeout=PATIENCE)
        self._rows.put(row)
        if row is not None:
            assert self._asked.acquire(timeout=PATIENCE)
            self._asked.release()  # it asks for the next, and so this one is done with


def live(feeds: Sequence[Feed], first: Shape, second: Shape) -> tuple[Pipeline, RecordingSink]:
    """Have rows come when they say, by a clock that is moved from one to the next."""
    events = [(item.arrival, number, item) for number, feed in enumerate(feeds) for item in feed]
    events.sort(key=lambda event: event[:2])
    clock = VirtualClock(events[0][0] * MS)
    sources = [LiveFeed() for _ in feeds]
    pipeline, sink = of(sources, first, second, clock)
    inner: Any = pipeline

    def settled() -> bool:
        """Whether all that is due by now is done."""
        run, now_ns = inner._run, clock.time_ns()
        early = [source.mark.early_ns for source in run._sources]
        return bool(min([*(stage.mark.due_ns for stage in run._stages), *early]) > now_ns)

    with pipeline:
        for arrival, number, item in events:
            clock.advance_to(arrival * MS)
            eventually(settled)
            sources[number].put(item)
        clock.advance_to(max(item.timestamp for _, _, item in events if item.timestamp <= END) * MS)
        eventually(settled)
        for source in sources:
            source.put(None)
        eventually(lambda: inner._run.lifecycle.phase.name == "ENDED")
    return pipeline, sink


def found(results: Iterable[tuple[str, Any]], until: float = float("inf")) -> list[Any]:
    """By stage and window, up to a time."""
    there = [
        (name, dataset.timestamp, dataset.window, dataset.to_dict()) for name, dataset in results
    ]
    return sorted((one for one in there if one[1] <= until), key=lambda one: one[:2])


@st.composite
def feeds(draw: st.DrawFn) -> list[Feed]:
    """What some sources give: rows that came late, in time, or before their time."""
    made: list[Feed] = []
    for number in range(draw(st.integers(1, 3))):
        rows: list[Row] = []
        arrival = 100_003 + 2 * number  # no window is due at an odd time
        for step in draw(st.lists(st.integers(0, 500), min_size=1, max_size=8)):
            arrival += 6 * step
            lag = draw(st.just(0) | st.integers(-9_000, 30_000) | st.just(arrival % 1_000))
            rows.append(row(arrival - lag, arrival))
        made.append(rows)
    # Live, a run begins before its first row; a replay, with the first that is not refused.
    made[0] = [row(100_001, 100_001), *made[0], row(END, END + 1)]
    return made


SHAPES = st.builds(
    Shape,
    st.sampled_from([1, 4, 5]),
    st.sampled_from([None, 10, 2]),
    st.sampled_from([None, 2, 9, 25]),
    st.sampled_from([None, 3, 40]),
    st.sampled_from(Closed),
)


@given(feeds(), SHAPES, SHAPES)
@settings(max_examples=examples(40), deadline=None)
def test_a_replay_gives_what_the_live_run_gave(
    came: list[Feed], first: Shape, second: Shape
) -> None:
    run, sink = live(came, first, second)
    pipeline, _ = of(came, first, second)
    replayed = list(pipeline.replay())
    assert found(replayed, COMPARED) == found(sink.results, COMPARED)
    assert pipeline.stats.sources == run.stats.sources


def test_a_window_sees_rows_of_all_sources_that_waited_for_their_time(switching: None) -> None:
    came = [
        [row(100_001, 100_001), row(100_159, 100_003), row(END, END + 1)],
        [row(100_005, 100_005), row(101_100, 100_005)],
    ]
    first = Shape(1, None, None, 40, Closed.LEFT)
    for _ in range(10):  # it was so in one run of three
        _, sink = live(came, first, first)
        assert found(sink.results)[0][3] == {"held": [100_001, 100_005, 100_159], "n": 3}


@given(feeds(), SHAPES, SHAPES)
@settings(max_examples=examples(40), deadline=None)
def test_so_does_a_recording_that_is_played(came: list[Feed], first: Shape, second: Shape) -> None:
    replayed, _ = of(came, first, second)
    results = list(replayed.replay())
    played = [paced(feed, 1e9, unit=TimeUnit.MILLIS) for feed in came]
    pipeline, sink = of(played, first, second)
    pipeline.run_sync()
    assert found(sink.results) == found(results)
    assert pipeline.stats.sources == replayed.stats.sources


def several(sources: Iterable[Any], first: Shape, second: Shape) -> tuple[Pipeline, RecordingSink]:
    """Sources each of which enters a series, another one that keeps less, and a list."""
    pipeline, sink = Pipeline("p"), RecordingSink()
    retention = None if first.retention is None else TaskInterval.seconds(first.retention)
    one = TimeSeries({"v": float}, closed=first.closed)
    other = TimeSeries({"v": float}, retention=retention, closed=second.closed)
    lock = RwLock[list[int]]([])
    for source in sources:
        pipeline.source(
            source,
            into=(one, other, lock),
            ingest=(None, None, lambda values, row: values.append(int(row["v"]))),
            max_ahead="5s",
        )
    every = TaskInterval.seconds(first.interval).with_unit(TimeUnit.MILLIS)
    pipeline.stage("a", [held, n], one, every, first.config()).sink(sink)
    every = TaskInterval.seconds(second.interval).with_unit(TimeUnit.MILLIS)
    pipeline.stage("b", [held, n], other, every, second.config()).sink(sink)
    pipeline.stage("c", [entered], lock, every, second.config()).sink(sink)
    return pipeline, sink


@given(feeds(), SHAPES, SHAPES)
@settings(max_examples=examples(40), deadline=None)
def test_so_does_one_whose_rows_enter_several_data(
    came: list[Feed], first: Shape, second: Shape
) -> None:
    replayed, _ = several(came, first, second)
    results = list(replayed.replay())
    played = [paced(feed, 1e9, unit=TimeUnit.MILLIS) for feed in came]
    pipeline, sink = several(played, first, second)
    pipeline.run_sync()
    assert found(sink.results) == found(results)
    assert pipeline.stats.sources == replayed.stats.sources


def test_a_row_that_is_held_enters_all_data_at_its_time_and_is_counted_once_for_each() -> None:
    came = [row(100_001, 100_001), row(103_500, 101_001), row(102_001, 102_001), row(END, END)]
    shape = Shape(1, None, None, None, Closed.LEFT)
    pipeline, sink = several([paced(came, 1e9, unit=TimeUnit.MILLIS)], shape, shape)
    pipeline.run_sync()
    assert [len(dataset["entered"]) for dataset in sink.of("c")][:4] == [1, 1, 2, 3]
    for counts in pipeline.stats.sources.values():
        assert (counts.received, counts.stored, counts.ahead, counts.late) == (4, 4, 0, 0)


SHAPE = Shape(5, None, 2, None, Closed.LEFT)
LATE = [row(100_500, 100_501), row(104_000, 107_500), row(104_900, 106_900), row(111_000, 111_001)]
"""The row of 104 came after its window was given, and the one of 104.9 together with it."""


async def _async(rows: Iterable[Any]) -> AsyncIterator[Any]:
    for item in rows:
        yield item


def _generated(rows: Iterable[Row]) -> Iterator[Row]:
    yield from rows


@pytest.mark.parametrize("made", [list, iter, _generated])
def test_every_kind_of_source_gives_them_to_a_replay(made: Callable[[Any], Any]) -> None:
    pipeline, _ = of([made(LATE)], SHAPE, SHAPE)
    results = list(pipeline.replay())
    assert [d["held"] for name, d in results if name == "a"] == [[100_500], [], [111_000]]
    assert pipeline.stats.sources["source-1"].late == 2


def test_without_the_times_at_which_they_came_the_order_says_when() -> None:
    pipeline, _ = of([[(item.timestamp, item.row) for item in LATE]], SHAPE, SHAPE)
    results = list(pipeline.replay())
    assert [d["held"] for name, d in results if name == "a"] == [
        [100_500, 104_000, 104_900],
        [],
        [111_000],
    ]


def test_a_plain_row_among_them_came_at_its_own_time_or_with_the_one_before() -> None:
    rows = [LATE[0], (104_100, {"v": 1.0}), LATE[1], (104_800, {"v": 1.0}), (111_000, {"v": 1.0})]
    pipeline, _ = of([rows], SHAPE, SHAPE)
    results = list(pipeline.replay())
    assert next(d["held"] for _, d in results) == [100_500, 104_100]
    assert pipeline.stats.sources["source-1"].late == 2


def test_live_a_row_comes_when_it_comes() -> None:
    rows = [row(100_500, 1), row(104_000, 10**15)]  # neither is when it comes
    for source in (rows, _async(rows)):
        pipeline, sink = of([source], SHAPE, SHAPE, VirtualClock(104_500 * MS))
        pipeline.run_sync()
        assert sink.of("a")[0]["held"] == [100_500, 104_000]
        assert pipeline.stats.sources["source-1"].late == 0


def test_a_poll_may_have_a_time_of_its_own() -> None:
    clock = VirtualClock(50 * 10**9)
    polled: Iterator[Row] = iter([row(48_000, 49_000)])
    source: Iterable[Any] = polling(lambda: next(polled), "1s", unit=TimeUnit.MILLIS, clock=clock)
    given_rows = iter(source)
    assert next(given_rows) == row(48_000, 49_000)
    polled = iter([row(49_000, 49_500)])
    clock.advance("1s")
    assert next(given_rows) == row(49_000, 49_500)


@pytest.mark.parametrize(
    ("arrival", "reason"),
    [
        (None, "the timestamp None is no int, and no time"),
        ("12:00", "the timestamp '12:00' is no int, and no time"),
        (1.5, "the timestamp 1.5 is no int"),
        (datetime(2024, 1, 1), "no time zone"),  # noqa: DTZ001
        (2**63, "does not fit in 64 bits"),
    ],
)
@pytest.mark.parametrize("play", [False, True])
@pytest.mark.parametrize("run", [False, True])
def test_one_that_came_at_no_time_is_malformed(
    arrival: Any, reason: str, play: bool, run: bool
) -> None:
    dead: list[tuple[Any, ...]] = []

    def bury(*letter: Any) -> None:
        dead.append(letter)

    rows = [LATE[0], row(101_000, arrival), row(102_000, 102_001)]
    source = paced(rows, 1e9, unit=TimeUnit.MILLIS) if play else rows
    series = TimeSeries({"v": float})
    pipeline = Pipeline("p", clock=VirtualClock(102_500 * MS))
    pipeline.source(source, series, dead_letters=bury)
    pipeline.stage("a", [held], series, "5s")
    if run:
        pipeline.run_sync()
    else:
        list(pipeline.replay())
    counts = pipeline.stats.sources["source-1"]
    assert (counts.received, counts.stored, counts.malformed) == (3, 2, 1)
    ((bad, fate, detail),) = dead
    assert (bad, fate) == (rows[1], "malformed")
    assert "the arrival of Arrived(" in detail
    assert reason in detail


def test_naive_times_are_in_the_zone_that_is_said() -> None:
    came = datetime(2024, 1, 1, 12, 0, 7)  # noqa: DTZ001
    stamped = datetime(2024, 1, 1, 12, 0, 4)  # noqa: DTZ001
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    rows = [Arrived(stamped, {"v": 1.0}, came)]
    pipeline = Pipeline("p").source(rows, series, zone="Europe/Berlin")
    pipeline.stage("a", [held], series, "5s", RunnerConfig(grace=TaskInterval.seconds(2)))
    pipeline.stage("b", [held], series, "5s", RunnerConfig(grace=TaskInterval.seconds(3)))
    in_time = {name for name, dataset in pipeline.replay() if dataset["held"]}
    assert in_time == {"b"}
    assert pipeline.stats.sources["source-1"].late == 1


def test_an_arrival_may_be_finer_than_the_unit() -> None:
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    data = RwLock[list[int]]([])
    came = datetime.fromtimestamp(5.25, UTC)
    rows: list[Any] = [Arrived(1, 1, datetime.fromtimestamp(1, UTC)), Arrived(4, 4, came), (20, 20)]
    pipeline = Pipeline("p").source(
        rows, data, lambda values, value: values.append(value), unit=TimeUnit.SECONDS
    )
    for grace in (200, 300):
        config = RunnerConfig(grace=TaskInterval.millis(grace))
        pipeline.stage(str(grace), [entered], data, TaskInterval.millis(5_000), config)
    firsts = {name: d["entered"] for name, d in pipeline.replay() if d.timestamp == 5_000}
    assert firsts == {"200": [1], "300": [1, 4]}
    assert len(series.view()) == 0


def test_a_row_that_came_too_long_before_its_time_is_ahead_as_it_was_live() -> None:
    dead: list[tuple[Any, ...]] = []

    def bury(*letter: Any) -> None:
        dead.append(letter)

    series = TimeSeries({"v": float})
    rows = [row(100_000, 100_000), row(105_001, 100_000), row(105_000, 100_000)]
    for source in (rows, paced(rows, 1e9, unit=TimeUnit.MILLIS)):
        pipeline = Pipeline("p").source(source, series, max_ahead="5s", dead_letters=bury)
        pipeline.stage("a", [held], series, "5s")
        if source is rows:
            list(pipeline.replay())
        else:
            pipeline.run_sync()
        counts = pipeline.stats.sources["source-1"]
        assert (counts.received, counts.stored, counts.ahead) == (3, 2, 1)
    assert [letter[1:] for letter in dead] == [
        ("ahead", "it is stamped 5 s after the present, and max_ahead=5 s")
    ] * 2


def test_one_that_came_after_the_present_is_refused_and_makes_no_windows_up_to_then() -> None:
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    rows = [Arrived(0, {"v": 1.0}, 1), Arrived(3, {"v": 1.0}, 3 * 10**9)]  # in the year 2065
    pipeline = Pipeline("p").source(rows, series)
    pipeline.stage("a", [held], series, "5s")
    assert len(list(pipeline.replay())) == 1
    assert pipeline.stats.sources["source-1"].ahead == 1


def test_a_bad_one_may_be_fatal_after_the_rows_before_it() -> None:
    series = TimeSeries({"v": float})
    rows = [row(1, 1), row(2, "soon")]
    pipeline = Pipeline("p").source(rows, series, on_bad_row=OnFault.RAISE)
    pipeline.stage("a", [held], series, "5s")
    with pytest.raises(ValueError, match="the arrival of"):
        list(pipeline.replay())
    assert pipeline.stats.sources["source-1"].stored == 1


def test_what_is_known_of_a_list_of_them() -> None:
    assert about([row(5, 3)]).last == 5
    assert about([row(3, 5)]).last == 5
    assert about([row(3, None)]).last is None


def test_a_resume_goes_on_as_the_run_would_have(tmp_path: Any) -> None:
    def give(rows: Sequence[Row]) -> None:
        pipeline, _ = of([rows], replace(SHAPE, window=10), SHAPE)
        sink = JsonLinesSink(tmp_path / "results.jsonl")
        for stage in pipeline.stages:
            stage.sink(sink)
        with contextlib.closing(sink):
            list(pipeline.resume(sink))

    give(LATE[:2])
    give(LATE)
    parts = (tmp_path / "results.jsonl").read_text()
    (tmp_path / "results.jsonl").unlink()
    give(LATE)
    assert sorted(set(parts.splitlines())) == sorted(
        (tmp_path / "results.jsonl").read_text().splitlines()
    )
