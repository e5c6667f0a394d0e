"""The end of a live pipeline: what is closed, what is lost, and how long it may take."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from tests.support.bench import SECOND, FailingClock, PipelineBench, RecordingSink
from tests.support.threads import PATIENCE, eventually

from run_task import (
    ChannelClosed,
    Pipeline,
    Receiver,
    RunnerConfig,
    RwLock,
    Sender,
    ShutdownTimeout,
    SourceError,
    TaskInterval,
    TimeSeries,
    TimeUnit,
    VirtualClock,
    channel,
    task,
)
from run_task.pipeline.live import _run
from run_task.pipeline.live._stage import LiveStage
from run_task.sinks import Result
from run_task.sources import OnFault, paced
from run_task.sync._watch import watch

MILLIS = TaskInterval.millis(5)

Values = list[int]


@task
def count(values: Values, start: int, end: int) -> int:
    return len(values)


def add(values: Values, value: int) -> None:
    values.append(value)


def of_ints() -> tuple[Sender[int], Receiver[int]]:
    return channel(1)


def lock() -> RwLock[Values]:
    return RwLock[Values]([])


class StuckSink(RecordingSink):
    """A sink that writes its first results, and then waits until it is let go."""

    def __init__(self, writes: int = 0) -> None:
        super().__init__()
        self._writes = writes
        self.stuck = threading.Event()
        self.go_on = threading.Event()

    def write(self, result: Result, /) -> None:
        if len(self.results) >= self._writes:
            self.stuck.set()
            assert self.go_on.wait(PATIENCE)
        super().write(result)


class Hanging:
    """A task that waits until it is let go."""

    def __init__(self) -> None:
        self.name = "hanging"
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def run(self, values: Values, start: int, end: int) -> int:
        self.entered.set()
        assert self.go_on.wait(PATIENCE)
        return end


def nothing_runs() -> bool:
    return not [t for t in threading.enumerate() if t.name.startswith("run-task")]


# What is lost


def test_what_a_sink_did_not_get_before_the_end_is_counted_and_told() -> None:
    bench = PipelineBench()
    sink = StuckSink(writes=3)
    stage = bench.pipeline.stage("a", [count], lock(), SECOND, RunnerConfig(shutdown_timeout=0.2))
    stage.sink(sink)
    with pytest.raises(ExceptionGroup) as caught, bench.pipeline:
        bench.clock.advance(TaskInterval.seconds(10))
        assert sink.stuck.wait(PATIENCE)
        eventually(lambda: bench.pipeline.stats.stages["a"].ticks == 10)
    (error,) = caught.value.exceptions
    assert isinstance(error, ShutdownTimeout)
    assert "7 results are not written" in str(error)
    stats = bench.pipeline.stats
    assert (stats.lost, stats.waiting) == (7, 0)
    sink.go_on.set()
    eventually(nothing_runs)
    # The one that was being written is, after all; and the sink was closed.
    assert (len(sink.results), bench.pipeline.stats.lost, sink.closed) == (4, 6, 1)


def test_what_waits_for_a_sink_that_fails_is_counted() -> None:
    class Failing(StuckSink):
        def write(self, result: Result, /) -> None:
            super().write(result)
            raise OSError("no more")

    bench = PipelineBench()
    sink = Failing()
    bench.pipeline.stage("a", [count], lock(), SECOND).sink(sink)
    with pytest.raises(ExceptionGroup), bench.pipeline:
        bench.clock.advance(TaskInterval.seconds(5))
        eventually(lambda: bench.pipeline.stats.waiting == 4)
        sink.go_on.set()
        eventually(lambda: sink.closed)
    assert bench.pipeline.stats.lost == 5  # with the one that it failed with


# How long it may take


def test_a_shutdown_takes_its_timeout_once_whatever_hangs() -> None:
    timeout = 0.4
    tasks = [Hanging() for _ in range(3)]
    sinks = [StuckSink() for _ in range(3)]
    pipeline = Pipeline("p")
    config = RunnerConfig(shutdown_timeout=timeout)
    for number, hanging in enumerate(tasks):
        pipeline.stage(f"hangs {number}", [hanging], lock(), MILLIS, config)
    for number, sink in enumerate(sinks):
        pipeline.stage(f"writes {number}", [count], lock(), MILLIS, config).sink(sink)
    begun = 0.0
    with pytest.raises(ExceptionGroup) as caught, pipeline:
        for waits in (*(t.entered for t in tasks), *(s.stuck for s in sinks)):
            assert waits.wait(PATIENCE)
        begun = time.monotonic()
    # With half a second to deliver what is there once the rest was given up.
    assert timeout <= time.monotonic() - begun < timeout + 0.5 + 1
    told = " / ".join(map(str, caught.value.exceptions))
    assert told.count("'hanging'") == 3
    assert told.count("writing to") == 3
    for event in (*(hanging.go_on for hanging in tasks), *(sink.go_on for sink in sinks)):
        event.set()
    eventually(nothing_runs)


def test_what_is_there_is_written_though_a_stage_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "DELIVERY", PATIENCE)  # as long as a busy machine takes
    bench = PipelineBench()
    hanging = Hanging()
    config = RunnerConfig(shutdown_timeout=0.2)
    bench.pipeline.stage("hangs", [hanging], lock(), SECOND, config).sink(bench.sink)
    bench.pipeline.stage("runs", [count], lock(), SECOND, config).sink(bench.sink)
    with pytest.raises(ExceptionGroup), bench.pipeline:
        bench.clock.advance(SECOND)
        assert hanging.entered.wait(PATIENCE)
        bench.sink.wait_for("runs", 1)
    assert bench.sink.closed == 1
    assert [dataset.timestamp for dataset in bench.sink.of("hangs")] == [1]
    assert "hanging" in bench.sink.of("hangs")[0].errors
    hanging.go_on.set()
    eventually(nothing_runs)


# Sources are closed


class Feed:
    """A row every 10 ms, forever; it takes a while to be closed."""

    def __init__(self, seconds: float = 0.05) -> None:
        self._seconds = seconds
        self.closed_in: threading.Thread | None = None
        self.waits = threading.Event()

    def rows(self) -> Iterator[tuple[int, int]]:
        try:
            yield 0, 1
            self.waits.set()
            for millis in itertools.count(10, 10):
                time.sleep(0.01)
                yield millis, 2
        finally:
            time.sleep(self._seconds)
            self.closed_in = threading.current_thread()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return self.rows()

    def series_rows(self) -> Iterator[tuple[int, dict[str, int]]]:
        return ((time, {"v": value}) for time, value in self.rows())


def generator(feed: Feed) -> Any:
    return feed.rows()


def iterable(feed: Feed) -> Any:
    return feed


def paced_generator(feed: Feed) -> Any:
    return paced(feed.rows(), unit=TimeUnit.MILLIS)


def paced_iterable(feed: Feed) -> Any:
    return paced(feed, unit=TimeUnit.MILLIS)


@pytest.mark.parametrize("made", [generator, iterable, paced_generator, paced_iterable])
def test_generators_that_are_running_are_closed_by_the_thread_that_reads_them(
    made: Callable[[Feed], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_run, "_NEXT_ROW", PATIENCE)  # as long as a busy machine takes
    feed = Feed()
    source = made(feed)  # kept, so that it is not closed by being collected
    pipeline = Pipeline("p").source(source, data := lock(), add)
    pipeline.stage("a", [count], data, MILLIS)
    with pipeline:
        assert feed.waits.wait(PATIENCE)
    assert feed.closed_in is not None
    assert feed.closed_in.name == "run-task p source 1"


def test_a_generator_whose_row_waits_for_a_window_is_closed() -> None:
    bench = PipelineBench()
    feed = Feed()
    rows = ((10**9, value) for _, value in feed.rows())  # far ahead of the clock
    data = lock()
    bench.pipeline.source(rows, data, add)
    config = RunnerConfig(shutdown_timeout=1)
    bench.pipeline.stage("a", [count], data, SECOND, config)
    with bench.pipeline:
        time.sleep(0.05)
    rows.close()  # which its thread did
    assert feed.closed_in is not None


def test_a_generator_is_closed_when_its_row_is_refused() -> None:
    feed = Feed()
    series = TimeSeries({"other": int})
    rows = feed.series_rows()
    pipeline = Pipeline("p").source(rows, series, on_bad_row=OnFault.RAISE)
    pipeline.stage("a", [size], series, MILLIS)
    with pytest.raises(ExceptionGroup, match="p"):
        pipeline.run_sync()
    del rows
    assert feed.closed_in is not None


@task
def size(view: Any, start: int, end: int) -> int:
    return len(view)


def test_a_source_that_takes_too_long_to_be_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "_NEXT_ROW", PATIENCE)
    go_on = threading.Event()

    def rows() -> Iterator[tuple[int, int]]:
        try:
            while True:
                yield 0, 1
                time.sleep(0.005)
        finally:
            go_on.wait(PATIENCE)

    data = lock()
    pipeline = Pipeline("p").source(rows(), data, add)
    pipeline.stage("a", [count], data, MILLIS, RunnerConfig(shutdown_timeout=0.3))
    begun = 0.0
    with pytest.raises(ExceptionGroup) as caught, pipeline:
        time.sleep(0.05)
        begun = time.monotonic()
    assert time.monotonic() - begun < 2
    (error,) = caught.value.exceptions
    assert isinstance(error, ShutdownTimeout)
    assert "closing source <generator object" in str(error)
    go_on.set()
    eventually(nothing_runs)


class AsyncFeed:
    """Rows forever; it has something to await when it is closed."""

    def __init__(self) -> None:
        self.closed = False

    async def rows(self) -> AsyncIterator[tuple[int, int]]:
        try:
            while True:
                yield 0, 1
                await asyncio.sleep(0.001)
        finally:
            await asyncio.sleep(0.05)  # such as: await connection.close()
            self.closed = True


def with_feed(feed: AsyncFeed) -> Pipeline:
    data = lock()
    pipeline = Pipeline("p").source(feed.rows(), data, add)
    pipeline.stage("a", [count], data, MILLIS)
    return pipeline


def test_an_async_source_is_closed_to_its_end() -> None:
    feed = AsyncFeed()
    pipeline = with_feed(feed)
    with pipeline:
        eventually(lambda: pipeline.stats.rows[0] > 3)
    assert feed.closed


async def test_an_async_source_is_closed_to_its_end_in_the_loop_of_who_runs_it() -> None:
    feed = AsyncFeed()
    pipeline = with_feed(feed)
    async with pipeline:
        while pipeline.stats.rows[0] <= 3:  # noqa: ASYNC110  a thread brings it about
            await asyncio.sleep(0.001)
    assert feed.closed


# Sources that exit


EXITS = [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()]


def told(caught: pytest.ExceptionInfo[ExceptionGroup[Any]], error: BaseException) -> None:
    (failure,) = caught.value.exceptions
    assert isinstance(failure, SourceError)
    assert failure.__cause__ is error
    assert f"it raised {type(error).__name__}" in str(failure)


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
def test_a_source_that_exits_fails(error: BaseException) -> None:
    def rows() -> Iterator[tuple[int, int]]:
        yield 0, 1
        raise error

    data = lock()
    pipeline = Pipeline("p").source(rows(), data, add)
    pipeline.stage("a", [count], data, MILLIS)
    with pytest.raises(ExceptionGroup) as caught:
        pipeline.run_sync()
    told(caught, error)


async def exiting(error: BaseException) -> AsyncIterator[tuple[int, int]]:
    yield 0, 1
    raise error


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
def test_an_async_source_that_exits_fails(error: BaseException) -> None:
    data = lock()
    pipeline = Pipeline("p").source(exiting(error), data, add)
    pipeline.stage("a", [count], data, MILLIS)
    with pytest.raises(ExceptionGroup) as caught:
        pipeline.run_sync()
    told(caught, error)


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
async def test_an_async_source_that_exits_leaves_the_loop_of_who_runs_it_alone(
    error: BaseException,
) -> None:
    data = lock()
    pipeline = Pipeline("p").source(exiting(error), data, add)
    pipeline.stage("a", [count], data, MILLIS)
    with pytest.raises(ExceptionGroup) as caught:
        await pipeline.run()
    told(caught, error)


@pytest.mark.parametrize("error", [SystemExit(3), ValueError("no")], ids=["exit", "error"])
def test_an_ingest_that_raises_and_may_not_ends_its_source_and_nothing_else(
    error: BaseException,
) -> None:
    def ingest(values: Values, value: int) -> None:
        raise error

    bench = PipelineBench()
    data = lock()
    bench.pipeline.source([(0, 1)], data, ingest, on_bad_row=OnFault.RAISE)
    go_on = threading.Event()

    def others() -> Iterator[tuple[int, int]]:
        go_on.wait(PATIENCE)
        yield 0, 2

    bench.pipeline.source(others(), data, add)
    bench.stage("a", data, tasks=[count])
    with pytest.raises(ExceptionGroup) as caught, bench.pipeline:
        bench.clock.advance(SECOND)
        assert bench.sink.wait_for("a", 1)["count"] == 0
        go_on.set()
        eventually(lambda: bench.pipeline.stats.rows == (0, 1))
        bench.clock.advance(SECOND)
        assert bench.sink.wait_for("a", 2)["count"] == 1
    (failure,) = caught.value.exceptions
    assert error in (failure, failure.__cause__)


def test_a_channel_that_an_ingest_of_results_finds_closed_is_no_end_without_a_word() -> None:
    sender, receiver = of_ints()
    receiver.close()
    bench = PipelineBench()
    bench.stage("a", lock(), tasks=[count]).into(
        lock(), lambda _, results: sender.send(results["count"]), on_bad_result=OnFault.RAISE
    )
    with pytest.raises(ExceptionGroup) as caught, bench.pipeline:
        bench.clock.advance(SECOND)
        eventually(lambda: bench.pipeline.stats.stages["a"].missed == 1)
    (failure,) = caught.value.exceptions
    assert isinstance(failure.__cause__, ChannelClosed)
    assert "stage 'a'" in str(failure)


def test_stages_that_take_all_the_time_there_is_leave_some_for_sources_and_sinks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_run, "DELIVERY", PATIENCE)  # as long as a busy machine takes
    feed = Feed(0)
    # Both are closed after the stage, which waits for another one as long as it may.
    bench = PipelineBench()
    hanging = Hanging()
    source, target = lock(), lock()
    config = RunnerConfig(shutdown_timeout=0.3, upstream_timeout=10)
    up = bench.pipeline.stage("up", [hanging], source, SECOND, config)
    up.into(target, lambda values, dataset: None)
    bench.pipeline.stage("down", [count], target, SECOND, config).sink(bench.sink)
    bench.pipeline.source(feed.rows(), lock_of_rows := lock(), add)
    bench.pipeline.stage("beside", [count], lock_of_rows, SECOND, config).sink(bench.sink)
    with pytest.raises(ExceptionGroup) as caught, bench.pipeline:
        assert feed.waits.wait(PATIENCE)
        bench.clock.advance(SECOND)
        assert hanging.entered.wait(PATIENCE)
        bench.sink.wait_for("beside", 1)
    told = [str(error) for error in caught.value.exceptions]
    assert len(told) == 1  # nothing was being closed or written
    assert "'hanging'" in told[0]
    assert feed.closed_in is not None
    assert bench.sink.closed == 1
    hanging.go_on.set()
    eventually(nothing_runs)


@pytest.mark.parametrize("timeout", [1e300, 10**10])
def test_an_enormous_shutdown_timeout_is_one(timeout: float) -> None:
    data = lock()
    pipeline = Pipeline("p").source([(0, 1)], data, add)
    sink = RecordingSink()
    config = RunnerConfig(shutdown_timeout=timeout)
    pipeline.stage("a", [count], data, MILLIS, config).sink(sink)
    pipeline.run_sync()
    assert sink.results[-1][1]["count"] == 1
    assert sink.closed == 1


class Closing:
    """A source without rows, whose ``close`` does what a test says."""

    def __init__(self, close: Callable[[], object]) -> None:
        self.ended = threading.Event()
        self._close = close

    def __iter__(self) -> Iterator[tuple[int, int]]:
        self.ended.wait(PATIENCE)
        return iter(())

    def close(self) -> None:
        self.ended.set()
        self._close()


def test_a_source_whose_close_hangs_is_told_and_holds_up_nothing() -> None:
    go_on = threading.Event()
    data = lock()
    bench = PipelineBench([count])
    bench.pipeline.source(Closing(lambda: go_on.wait(PATIENCE)), data, add)
    bench.stage("a", data, shutdown_timeout=0.7)
    begun = 0.0
    with pytest.raises(ExceptionGroup) as caught, bench.pipeline:
        bench.advance(3)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    (error,) = caught.value.exceptions
    assert isinstance(error, ShutdownTimeout)
    assert "closing source <tests.test_pipeline_end.Closing" in str(error)
    assert len(bench.sink.of("a")) == 3
    assert bench.sink.closed == 1
    go_on.set()
    eventually(nothing_runs)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), OSError("no")])
def test_a_source_whose_close_raises_is_logged_and_the_stages_end(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    data = lock()
    bench = PipelineBench([count])
    bench.pipeline.source(Closing(fail), data, add)
    bench.stage("a", data)
    with bench.pipeline:
        bench.advance(3)
    assert len(bench.sink.of("a")) == 3
    assert "cannot be closed" in caplog.text
    eventually(nothing_runs)


@pytest.mark.parametrize("nth", range(1, 8))
def test_where_a_thread_cannot_be_started_everything_that_was_opened_is_closed(
    nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("run-task"):
            started.append(thread.name)
            if len(started) == nth:
                raise RuntimeError("can't start new thread")
        start(thread)

    feed = AsyncFeed()
    data, sinks = lock(), (RecordingSink(), RecordingSink())
    pipeline = Pipeline("p", clock=VirtualClock())
    source = Closing(lambda: None)
    pipeline.source(source, data, add).source(feed.rows(), data, add)
    config = RunnerConfig(shutdown_timeout=PATIENCE)
    for number, sink in enumerate(sinks):
        pipeline.stage(str(number), [count], data, SECOND, config).sink(sink)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match="can't start"), pipeline:
        pass
    assert time.monotonic() - begun < PATIENCE / 2  # nothing that was not started is waited for
    assert [sink.closed for sink in sinks] == [1, 1], started
    assert source.ended.is_set()
    eventually(nothing_runs)


def test_a_clock_that_fails_ends_the_pipeline_with_its_error() -> None:
    clock = FailingClock()
    sink = RecordingSink()
    pipeline = Pipeline("p", clock=clock)
    pipeline.stage("a", [count], lock(), MILLIS).sink(sink)
    with pytest.raises(ExceptionGroup) as caught, pipeline:
        eventually(lambda: sink.results)
        clock.fails = True
        eventually(lambda: sink.closed)
    assert all(isinstance(error, OSError) for error in caught.value.exceptions)
    eventually(nothing_runs)


def test_a_shutdown_while_it_begins_leaves_no_stage_at_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = PipelineBench([count])
    bench.stage("a", lock())
    start = LiveStage.start

    def late(stage: LiveStage) -> None:
        bench.pipeline.shutdown()  # as by a signal, or another thread
        time.sleep(0.05)  # in which it would come to its end
        start(stage)

    monkeypatch.setattr(LiveStage, "start", late)
    bench.pipeline.run_sync()
    assert not bench.pipeline.is_running
    assert not watch().watched
