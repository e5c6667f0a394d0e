"""Sources that fail are started again, and no row is lost or doubled by that."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.threads import PATIENCE, eventually

from run_task import (
    ConfigError,
    Pipeline,
    Retry,
    RwLock,
    SourceError,
    SourceStats,
    TaskInterval,
    Then,
    TimeSeries,
    TimeUnit,
    task,
)
from run_task.sources import Batch, CsvFile, Position, SourceInfo, paced, polling

SECOND = TaskInterval.seconds(1)
QUICK = Retry(5, "1ms", "2ms")
Rows = list[tuple[int, int]]


def add(values: list[int], value: int) -> None:
    values.append(value)


@task
def seen(values: list[int], start: int, end: int) -> int:
    return len(values)


class Bench:
    """A pipeline that keeps the rows of one source in a list."""

    def __init__(self, source: Any, retry: Retry | None = QUICK, **options: Any) -> None:
        self.data = RwLock[list[int]]([])
        self.pipeline = Pipeline("bench")
        self.pipeline.source(source, self.data, add, retry=retry, max_ahead=None, **options)
        self.pipeline.stage("a", [seen], self.data, SECOND)

    def run(self) -> list[int]:
        """The rows that entered, once the source has ended."""
        self.pipeline.run_sync()
        return self.rows

    @property
    def rows(self) -> list[int]:
        with self.data.read() as values:
            return list(values)

    @property
    def counts(self) -> SourceStats:
        (counts,) = self.pipeline.stats.sources.values()
        return counts


class Reread:
    """A source that gives the same rows each time, and fails some times.

    :param fails_after: after how many rows, each time it is read
    """

    def __init__(self, *fails_after: int, count: int = 6) -> None:
        self._fails_after = iter(fails_after)
        self._count = count
        self.begun = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        self.begun += 1
        fails_after = next(self._fails_after, None)
        for number in range(self._count):
            if number == fails_after:
                raise OSError("the share is gone")
            yield number, number


def test_what_gives_the_same_each_time_begins_anew_and_no_row_comes_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(source := Reread(3, 0, 5), name="mine")
    assert bench.run() == [0, 1, 2, 3, 4, 5]
    assert source.begun == 4
    assert (bench.counts.received, bench.counts.stored, bench.counts.restarts) == (6, 6, 3)
    told = [r.getMessage() for r in caplog.records if "started again" in r.getMessage()]
    assert len(told) == 1  # the others are in no record of their own
    assert "OSError: the share is gone" in told[0]


def test_a_replay_starts_it_again_too() -> None:
    bench = Bench(Reread(3, 0, 5))
    assert [dataset["seen"] for _, dataset in bench.pipeline.replay()] == [1, 2, 3, 4, 5, 6]
    assert bench.counts.restarts == 3


def test_with_nothing_said_a_source_that_fails_ends_alone() -> None:
    bench = Bench(Reread(3), retry=None)
    with pytest.raises(ExceptionGroup) as caught:
        bench.run()
    assert [str(error) for error in caught.value.exceptions] == ["the share is gone"]
    assert bench.rows == [0, 1, 2]


def test_failures_are_counted_from_the_last_row_on() -> None:
    bench = Bench(Reread(1, 1, 2, 2, 3, 3, 4, 4), retry=Retry(3, "1ms", "1ms"))
    assert bench.run() == [0, 1, 2, 3, 4, 5]
    assert bench.counts.restarts == 8
    bench = Bench(source := Reread(2, 2, 2, 2), retry=Retry(3, "1ms", "1ms"))
    with pytest.raises(ExceptionGroup) as caught:
        bench.run()
    assert isinstance(caught.value.exceptions[0], OSError)
    assert (source.begun, bench.rows) == (3, [0, 1])


def test_with_drop_it_ends_with_a_warning_and_the_pipeline_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(Reread(2, 2, 2), retry=Retry(2, "1ms", "1ms", then=Then.DROP))
    assert bench.run() == [0, 1]
    assert "ends, after 2 failures in a row: OSError: the share is gone" in caplog.text


def test_batches_begin_anew_within_one() -> None:
    class Batches(Reread):
        def batches(self) -> Iterator[Batch]:
            self.begun += 1
            fails_after = next(self._fails_after, None)
            size = 2 if self.begun == 1 else 3  # other batches each time
            for first in range(0, self._count, size):
                if first == fails_after:
                    raise OSError("the share is gone")
                numbers = np.arange(first, first + size)
                yield Batch(numbers, {"x": numbers.astype(float)})

    series = TimeSeries({"x": float}, TimeUnit.SECONDS)
    pipeline = Pipeline("bench")
    source: Any = Batches(4, 0)
    pipeline.source(source, series, retry=QUICK)
    pipeline.stage("a", [task(lambda view, start, end: len(view))], series, SECOND)
    pipeline.run_sync()
    assert series.view()["x"].tolist() == [0, 1, 2, 3, 4, 5]
    assert next(iter(pipeline.stats.sources.values())).restarts == 2


def test_a_file_whose_disk_fails_for_a_moment_is_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("time,x\n" + "".join(f"{i},{i}\n" for i in range(1000)))
    series = TimeSeries({"x": float}, TimeUnit.SECONDS)
    source = CsvFile(path, timestamp="time", columns={"x": float}, unit=TimeUnit.SECONDS)
    failing = iter([True])
    batches = CsvFile.batches

    def flaky(self: CsvFile) -> Iterator[Batch]:
        fails = next(failing, False)
        for batch in batches(self):
            yield batch[:400] if fails else batch
            if fails:
                raise OSError("input/output error")

    monkeypatch.setattr(CsvFile, "batches", flaky)
    pipeline = Pipeline("bench")
    pipeline.source(source, series, retry=QUICK)
    pipeline.stage("a", [task(lambda view, start, end: len(view))], series, SECOND)
    for _ in pipeline.replay():
        pass
    counts = next(iter(pipeline.stats.sources.values()))
    assert (counts.stored, counts.restarts) == (1000, 1)


class Feed:
    """A live feed: what it gives comes once, wherever it is read from.

    :param script: rows, and what is raised, or None: it ends
    """

    def __init__(self, script: list[Any]) -> None:
        self._script = iter(script)
        self.closed = threading.Event()

    def about(self) -> SourceInfo:
        return SourceInfo(endless=True)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for what in self._script:
            if isinstance(what, Exception):
                raise what
            if what is None:
                return
            yield what, what
        self.closed.wait(PATIENCE)

    def close(self) -> None:
        self.closed.set()


def test_a_feed_that_fails_or_ends_by_mistake_goes_on_with_what_comes() -> None:
    bench = Bench(feed := Feed([1, ConnectionError("reset"), 2, None, None, 3]))
    with bench.pipeline:
        eventually(lambda: bench.rows == [1, 2, 3])
    assert bench.counts.restarts == 3
    assert feed.closed.is_set()


def test_a_feed_that_only_ends_is_told_that_it_has_no_end() -> None:
    bench = Bench(Feed([1, *[None] * 9]), retry=Retry(3, "1ms", "1ms"))
    with pytest.raises(ExceptionGroup) as caught:
        bench.run()
    assert (bench.rows, bench.counts.restarts) == ([1], 2)
    (error,) = caught.value.exceptions
    assert "it has ended, and it has no end" in str(error)


def test_what_trying_again_does_not_cure_is_raised_at_once() -> None:
    for error in (SourceError("broker", None, None, "wrong password"), ConfigError("no topic")):
        bench = Bench(Feed([1, error, 2]))
        with pytest.raises(ExceptionGroup) as caught, bench.pipeline:
            eventually(lambda: bench.rows == [1])  # noqa: B023  it is called here
        assert [type(one) for one in caught.value.exceptions] == [type(error)]
        assert bench.counts.restarts == 0


def test_a_generator_is_refused_and_its_function_is_taken() -> None:
    calls: list[int] = []

    def feed() -> Iterator[tuple[int, int]]:
        calls.append(len(calls))
        yield len(calls), len(calls)
        if len(calls) < 3:
            raise ConnectionError("reset")

    with pytest.raises(ConfigError, match="an iterator, which cannot begin again: give the func"):
        Bench(feed())
    bench = Bench(feed)
    assert bench.run() == [1, 2, 3]
    assert bench.counts.restarts == 2
    assert repr(bench.pipeline.sources[0][0]) == "feed"


def test_an_async_source_is_started_again_in_its_event_loop() -> None:
    loops = set[int]()

    class Socket:
        def __init__(self) -> None:
            self._script = iter([1, ConnectionError("reset"), 2, None, 3])

        async def __aiter__(self) -> AsyncIterator[tuple[int, int]]:
            loops.add(id(asyncio.get_running_loop()))
            for what in self._script:
                if isinstance(what, Exception):
                    raise what
                if what is None:
                    return
                yield what, what
            await asyncio.sleep(PATIENCE)

    bench = Bench(Socket())

    async def run() -> None:
        loops.add(id(asyncio.get_running_loop()))
        async with bench.pipeline:
            await asyncio.to_thread(eventually, lambda: bench.rows == [1, 2, 3])

    asyncio.run(asyncio.wait_for(run(), PATIENCE))
    assert len(loops) == 1
    assert bench.counts.restarts == 2


def test_an_async_generator_function_is_taken() -> None:
    calls: list[int] = []

    async def feed() -> AsyncIterator[tuple[int, int]]:
        calls.append(1)
        yield len(calls), len(calls)
        if len(calls) < 3:
            raise ConnectionError("reset")
        await asyncio.sleep(PATIENCE)

    bench = Bench(feed)
    with bench.pipeline:
        eventually(lambda: bench.rows == [1, 2, 3])


class Log:
    """A source with positions, which fails after some rows each time."""

    def __init__(self, *fails_after: int, count: int = 6) -> None:
        self._fails_after = iter(fails_after)
        self._count = count
        self._at = 0
        self.sought: list[int] = []
        self.committed: list[int] = []

    @property
    def position(self) -> Position:
        return self._at

    def seek(self, position: Position, /) -> None:
        self.sought.append(position)
        self._at = position

    def commit(self, position: Position, /) -> None:
        self.committed.append(position)

    @property
    def lag(self) -> int | None:
        return self._count - self._at

    def __iter__(self) -> Iterator[tuple[int, int]]:
        fails_at = next(self._fails_after, None)
        while self._at < self._count:
            if self._at == fails_at:
                raise OSError("gone")
            self._at += 1
            yield self._at - 1, self._at - 1


def test_a_source_with_positions_goes_on_behind_what_it_gave_and_is_told_what_is_kept() -> None:
    bench = Bench(source := Log(2, 2, 4))
    assert bench.run() == [0, 1, 2, 3, 4, 5]
    assert source.sought == [2, 2, 4]
    assert source.committed[-1] == 6


def test_rows_that_go_several_ways_are_started_again_for_all() -> None:
    one, two = RwLock[list[int]]([]), RwLock[list[int]]([])
    pipeline = Pipeline("bench")
    pipeline.source(Reread(3, 1), (one, two), (add, add), retry=QUICK)
    pipeline.stage("a", [seen], one, SECOND)
    pipeline.stage("b", [seen], two, SECOND)
    pipeline.run_sync()
    for data in (one, two):
        with data.read() as values:
            assert values == [0, 1, 2, 3, 4, 5]


def test_a_source_that_waits_to_be_started_again_holds_up_no_shutdown() -> None:
    bench = Bench(Feed([1, ConnectionError("reset"), 2]), retry=Retry(wait="1m", longest="1m"))
    done = threading.Event()

    def run() -> None:
        with bench.pipeline:
            eventually(lambda: bench.counts.restarts == 1)
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    assert done.is_set()
    assert bench.rows == [1]


def test_a_source_that_comes_and_goes_floods_no_log(caplog: pytest.LogCaptureFixture) -> None:
    script: list[Any] = []
    for number in range(1, 200):
        script += [number, ConnectionError("reset")]
    bench = Bench(Feed(script), retry=Retry(wait="1ms", longest="1ms"))
    with caplog.at_level(logging.INFO), bench.pipeline:
        eventually(lambda: len(bench.rows) == 199)
    assert len([r for r in caplog.records if "started again" in r.getMessage()]) <= 3
    assert bench.counts.restarts >= 198


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (5, "it is no iterable of .* and no function that makes one"),
        (iter([(0, 0)]), "cannot begin again"),
        (paced([(0, 0)], unit=TimeUnit.SECONDS), "it plays a recording, whose time goes on"),
    ],
)
def test_what_cannot_be_started_again_is_refused(source: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Bench(source)


def test_a_retry_that_is_none_is_refused() -> None:
    wrong: Any = 5
    with pytest.raises(ConfigError, match=r"retry=5: it is a Retry"):
        Bench([(0, 0)], retry=wrong)


def test_polling_is_started_again() -> None:
    numbers: Iterator[int | OSError] = iter([1, OSError("no sensor"), 2])

    def read() -> int:
        for number in numbers:
            if isinstance(number, Exception):
                raise number
            return number
        return 2

    bench = Bench(polling(read, "1ms"), retry=Retry(wait="1ms", longest="1ms"))
    with bench.pipeline:
        eventually(lambda: bench.rows[:2] == [1, 2])
