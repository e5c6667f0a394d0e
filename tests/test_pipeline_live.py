"""Pipelines as they run live: the order of windows, faults, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from tests.support.bench import SECOND, PipelineBench, RecordingSink
from tests.support.gated import Gated
from tests.support.threads import PATIENCE, eventually

from run_task import (
    DataSet,
    OnError,
    Pipeline,
    RunnerConfig,
    RunTaskError,
    RwLock,
    ShutdownTimeout,
    SinkError,
    TaskError,
    TaskInterval,
    TimeUnit,
    VirtualClock,
    task,
)
from run_task.pipeline.live import _run
from run_task.sinks import CallbackSink, JsonLinesSink, Result
from run_task.sources import OnFault, paced

MILLIS = TaskInterval.millis(5)

Values = list[int]


@task
def seen(values: Values, start: int, end: int) -> Values:
    return list(values)


@task
def tick(values: Values, start: int, end: int) -> int:
    return end


def note(values: Values, dataset: DataSet[Any]) -> None:
    values.append(dataset.timestamp)


def add(values: Values, value: int) -> None:
    values.append(value)


def look(data: RwLock[Values]) -> Values:
    with data.read() as values:
        return list(values)


def lock() -> RwLock[Values]:
    return RwLock[Values]([])


# The order of windows


@pytest.mark.parametrize("run", range(10))
def test_at_a_shared_tick_downstream_sees_the_results_of_that_tick(
    run: int, switching: None
) -> None:
    bench = PipelineBench([seen])
    source, left, right, both = lock(), lock(), lock(), lock()
    bench.stage("bottom", both, 2)
    bench.stage("right", right, 2).into(both, note)
    bench.stage("left", left, 1).into(both, note)
    bench.stage("top", source, 1).into(left, note).into(right, note)
    with bench.pipeline:
        for _ in range(3):
            bench.advance(2)  # several windows are due at once
        bench.sink.wait_for("bottom", 6)
    assert bench.sink.wait_for("left", 3)["seen"] == [1, 2, 3]
    assert bench.sink.wait_for("right", 4)["seen"] == [1, 2, 3, 4]
    assert [dataset["seen"] for dataset in bench.sink.of("bottom")] == [
        [1, 2, 2],
        [1, 2, 2, 3, 4, 4],
        [1, 2, 2, 3, 4, 4, 5, 6, 6],
    ]
    assert not any(dataset.behind for _, dataset in bench.sink.results)


@pytest.mark.parametrize("run", range(5))
def test_a_stage_that_runs_ahead_does_not_show_what_comes_later(run: int, switching: None) -> None:
    bench = PipelineBench([seen])
    source, target = lock(), lock()
    slow = Gated(2)
    bench.stage("down", target, 2, [slow, seen])
    bench.stage("up", source).into(target, note)
    with bench.pipeline:
        bench.advance(4)
        assert slow.entered.wait(PATIENCE)
        slow.go_on.set()
        bench.sink.wait_for("down", 4)
    assert [dataset["seen"] for dataset in bench.sink.of("down")] == [[1, 2], [1, 2, 3, 4]]


def test_grace_of_who_feeds_is_waited_for() -> None:
    bench = PipelineBench([seen])
    source, target = lock(), lock()
    bench.stage("up", source, grace=TaskInterval.seconds(3)).into(target, note)
    bench.stage("down", target)
    with bench.pipeline:
        bench.advance(3)
        assert bench.sink.results == []
        bench.advance(1)
        assert bench.sink.wait_for("down", 1)["seen"] == [1]
    # What was due at the end was run, and no more.
    assert [dataset.timestamp for dataset in bench.sink.of("down")] == [1]


def test_sliding_windows_of_several_intervals() -> None:
    bench = PipelineBench([seen])
    source, target = lock(), lock()
    bench.stage("up", source, 2, window=TaskInterval.seconds(10)).into(target, note)
    bench.stage("down", target, 3, window=TaskInterval.seconds(6))
    with bench.pipeline:
        bench.advance(12)
        bench.sink.wait_for("down", 12)
    assert [(d.window, d["seen"]) for d in bench.sink.of("down")] == [
        ((-3, 3), [2]),
        ((0, 6), [2, 4, 6]),
        ((3, 9), [2, 4, 6, 8]),
        ((6, 12), [2, 4, 6, 8, 10, 12]),
    ]


# Faults


def test_an_upstream_that_ends_with_an_error_is_told_and_not_waited_for() -> None:
    @task
    def picky(values: Values, start: int, end: int) -> float:
        return 1 / (end - 2)

    bench = PipelineBench([seen])
    source, target = lock(), lock()
    bench.stage("up", source, 1, [picky], on_error=OnError.RAISE).into(target, note)
    bench.stage("down", target)
    started = time.monotonic()
    with pytest.raises(ExceptionGroup, match="pipeline 'bench' failed") as caught, bench.pipeline:
        bench.advance(4)
        bench.sink.wait_for("down", 4)
    assert time.monotonic() - started < 4  # less than an upstream_timeout
    (error,) = caught.value.exceptions
    assert isinstance(error, TaskError)
    assert error.__notes__ == ["in stage 'up'"]
    found = [(d.timestamp, d["seen"], d.behind) for d in bench.sink.of("down")]
    assert found == [(1, [1], ()), (2, [1, 2], ()), (3, [1, 2], ("up",)), (4, [1, 2], ("up",))]


def test_a_result_whose_ingest_raises_costs_itself(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(values: Values, dataset: DataSet[Any]) -> None:
        if dataset.timestamp in (2, 3):
            raise ValueError("not now") if dataset.timestamp == 2 else SystemExit(3)
        values.append(dataset.timestamp)

    letters: list[tuple[int, str, str]] = []

    def keep(row: Result, reason: str, detail: str) -> None:
        letters.append((row.window[1], reason, detail))

    bench = PipelineBench([seen])
    source, target = lock(), lock()
    bench.stage("up", source).into(target, refuse, dead_letters=keep)
    bench.stage("down", target)
    with bench.pipeline:
        bench.advance(4)
        bench.sink.wait_for("down", 4)
    assert [dataset["seen"] for dataset in bench.sink.of("down")] == [[1], [1], [1], [1, 4]]
    assert [end for end, _, _ in letters] == [2, 3]
    assert {reason for _, reason, _ in letters} == {"rejected"}
    assert letters[0][2] == "ValueError: not now"
    assert bench.pipeline.stats.rejected == 2
    told = [r.getMessage() for r in caplog.records if "up" in r.getMessage()]
    assert len(told) == 2  # the first at once, and the other in the end
    assert "which cannot enter: ValueError: not now" in told[0]
    assert "1 more result rejected" in told[1]


def test_an_ingest_that_may_not_fail_ends_its_stage_alone() -> None:
    def refuse(values: Values, dataset: DataSet[Any]) -> None:
        if dataset.timestamp == 2:
            raise ValueError("no more")
        values.append(dataset.timestamp)

    bench = PipelineBench([seen])
    source, target = lock(), lock()
    bench.stage("up", source).into(target, refuse, on_bad_result=OnFault.RAISE)
    bench.stage("down", target)
    bench.stage("aside", source)
    with pytest.raises(ExceptionGroup) as caught, bench.pipeline:
        bench.advance(3)
        bench.sink.wait_for("down", 3)
        bench.sink.wait_for("aside", 3)
    (error,) = caught.value.exceptions
    assert isinstance(error, ValueError)
    assert error.__notes__ == ["in the ingest of stage 'up'", "in stage 'up'"]
    assert [d.behind for d in bench.sink.of("down")] == [(), ("up",), ("up",)]


def test_an_upstream_that_hangs_is_waited_for_once_until_it_has_caught_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = PipelineBench([seen])
    source, target = lock(), lock()
    hangs = Gated(2)
    bench.stage("up", source, 1, [hangs]).into(target, note)
    bench.stage("down", target, 1, upstream_timeout=0.2)
    with bench.pipeline:
        bench.advance()
        bench.sink.wait_for("down", 1)
        started = time.monotonic()
        bench.advance(20)
        assert bench.sink.wait_for("down", 21).behind == ("up",)
        assert 0.2 <= time.monotonic() - started < 3  # and not 20 times as long
        hangs.go_on.set()
        bench.sink.wait_for("up", 21)
        bench.advance()
        assert bench.sink.wait_for("down", 22)["seen"] == list(range(1, 23))
        assert bench.sink.wait_for("down", 22).behind == ()
    assert [r.getMessage() for r in caplog.records if "goes on without" in r.getMessage()] == [
        "stage 'down' goes on without stage 'up', which is behind"
    ]
    behind = bench.sink.wait_for("down", 3)
    assert "without up" in str(behind)
    assert "without up" in repr(behind)
    assert pickle.loads(pickle.dumps(behind)).behind == ("up",)


def test_a_downstream_that_hangs_holds_up_who_feeds_it_no_longer_than_once() -> None:
    bench = PipelineBench([seen])
    source = lock()
    series: list[int] = []
    hangs = Gated(2)

    class Snapshot:
        """Data that nobody waits for."""

        def read(self, timeout: float | None = None) -> Any:
            return source.read(timeout)

        def write(self, timeout: float | None = None) -> Any:
            return contextlib.nullcontext(series)

    target: Any = Snapshot()
    bench.stage("up", source, 1, upstream_timeout=0.2).into(target, note)
    bench.stage("down", target, 1, [hangs], upstream_timeout=0.2)
    with bench.pipeline:
        bench.advance(2)
        assert hangs.entered.wait(PATIENCE)
        started = time.monotonic()
        bench.advance(20)
        bench.sink.wait_for("up", 22)
        assert time.monotonic() - started < 3  # and not 20 times as long as an upstream_timeout
        hangs.go_on.set()
        bench.sink.wait_for("down", 22)


def test_a_downstream_that_hangs_with_the_lock_is_named_and_does_not_hold_up_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = PipelineBench([seen])
    source, target = lock(), lock()
    hangs = Gated(1)
    timeouts: dict[str, Any] = {
        "data_timeout": 0.1,
        "upstream_timeout": 0.1,
        "shutdown_timeout": 0.3,
    }
    started = 0.0
    bench.stage("up", source, **timeouts).into(target, note)
    bench.stage("down", target, 1, [hangs], **timeouts)
    with pytest.raises(ExceptionGroup) as caught, bench.pipeline:
        bench.advance(1)
        assert hangs.entered.wait(PATIENCE)
        bench.advance(2)
        bench.sink.wait_for("up", 1)
        eventually(lambda: "waits on, with its results" in caplog.text)
        started = time.monotonic()
    assert time.monotonic() - started < 3
    told = [str(error) for error in caught.value.exceptions]
    assert any("still running: 'gated'" in line for line in told)
    hangs.go_on.set()
    eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("run-task")])


def test_data_that_cannot_be_read_is_an_error_of_the_window() -> None:
    bench = PipelineBench([seen])
    data = lock()
    bench.stage("a", data, 1, data_timeout=0.05)
    with bench.pipeline:
        with data.write():
            bench.advance()
            errors = bench.sink.wait_for("a", 1).errors
        bench.advance()
        assert bench.sink.wait_for("a", 2)["seen"] == []
    assert "writing for" in str(errors["seen"].__cause__)


def test_a_source_that_fails_is_told_and_the_rest_goes_on() -> None:
    def rows() -> Iterator[tuple[int, int]]:
        yield 0, 7
        raise OSError("the line is dead")

    bench = PipelineBench([seen])
    data = lock()
    go_on = threading.Event()

    def others() -> Iterator[tuple[int, int]]:
        go_on.wait(PATIENCE)
        yield 0, 8

    bench.pipeline.source(rows(), data, add).source(others(), data, add)
    bench.stage("a", data)
    with pytest.raises(ExceptionGroup) as caught, bench.pipeline:
        eventually(lambda: look(data) == [7])
        bench.advance()
        assert bench.sink.wait_for("a", 1)["seen"] == [7]
        go_on.set()
        bench.advance()
        bench.sink.wait_for("a", 2)
    (error,) = caught.value.exceptions
    assert isinstance(error, OSError)
    assert error.__notes__[0].startswith("in the source <generator object")


def test_a_sink_that_fails_ends_the_pipeline_and_the_others_are_closed() -> None:
    class Full(RecordingSink):
        def write(self, result: Result, /) -> None:
            raise OSError("the disk is full")

    bench = PipelineBench([seen])
    bench.stage("a", lock()).sink(full := Full())
    with pytest.raises(ExceptionGroup) as caught, bench.pipeline:
        bench.advance()
        eventually(lambda: bench.sink.closed)  # with no shutdown of ours
    (failure,) = caught.value.exceptions
    assert str(failure) == "the disk is full"
    assert full.closed == 1


def test_a_result_that_a_sink_cannot_store_is_counted_and_logged_and_all_else_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Picky(RecordingSink):
        def write(self, result: Result, /) -> None:
            if result.dataset.timestamp in (2, 4, 5):
                raise SinkError(f"no {result.dataset.timestamp}")
            super().write(result)

    bench = PipelineBench([seen])
    bench.stage("a", lock()).sink(picky := Picky())
    with bench.pipeline:
        bench.advance(6)
        bench.sink.wait_for("a", 6)
        picky.wait_for("a", 6)
        assert bench.pipeline.stats.refused == 3
    assert [dataset.timestamp for dataset in picky.of("a")] == [1, 3, 6]
    assert picky.closed == 1
    told = [r.getMessage().partition("> ")[2] for r in caplog.records if "Picky" in r.getMessage()]
    assert told == [
        "cannot store what stage 'a' gave for [1, 2), and leaves it out: no 2",
        "left out 2 more results, the last of stage 'a' for [4, 5): no 5",
    ]


def test_all_that_went_wrong_is_in_one_group() -> None:
    class Broken(RecordingSink):
        def close(self) -> None:
            raise SinkError("cannot close")

    def rows() -> Iterator[tuple[int, int]]:
        raise OSError("no line")
        yield 0, 0

    @task
    def bad(values: Values, start: int, end: int) -> None:
        raise LookupError("bad")

    bench = PipelineBench([seen])
    data = lock()
    bench.pipeline.source(rows(), data, add)
    bench.stage("a", data, 1, [bad], on_error=OnError.RAISE)
    bench.stage("b", data).sink(Broken())
    with pytest.raises(ExceptionGroup) as caught, bench.pipeline:
        bench.advance()
        bench.sink.wait_for("a", 1)
    kinds = {type(error) for error in caught.value.exceptions}
    assert kinds == {OSError, TaskError, SinkError}


def test_an_error_of_the_block_is_not_hidden() -> None:
    @task
    def bad(values: Values, start: int, end: int) -> None:
        raise LookupError("bad")

    bench = PipelineBench([seen])
    bench.stage("a", lock(), 1, [bad], on_error=OnError.RAISE)
    with pytest.raises(KeyError) as caught, bench.pipeline:
        bench.advance()
        bench.sink.wait_for("a", 1)
        raise KeyError("mine")
    (told,) = caught.value.__notes__
    assert told.startswith("besides, pipeline 'bench' failed: TaskError: task 'bad' gave no result")


# The end


def test_shutdown_drains_in_order() -> None:
    bench = PipelineBench([seen])
    source, middle, target = lock(), lock(), lock()
    slow = Gated(3)
    bench.stage("up", source, 1, [slow]).into(middle, note)
    bench.stage("between", middle).into(target, note)
    bench.stage("down", target)
    with bench.pipeline:
        bench.advance(3)
        assert slow.entered.wait(PATIENCE)
        bench.pipeline.shutdown()
        threading.Timer(0.05, slow.go_on.set).start()
    assert [dataset["seen"] for dataset in bench.sink.of("down")] == [[1], [1, 2], [1, 2, 3]]
    assert (bench.sink.flushed, bench.sink.closed) == (1, 1)


def test_shutdown_from_another_thread_and_any_number_of_times() -> None:
    pipeline = Pipeline()
    pipeline.stage("a", [seen], lock(), MILLIS)

    def shut_down() -> None:
        for _ in range(3):
            pipeline.shutdown()

    timer = threading.Timer(0.05, shut_down)
    timer.start()
    pipeline.run_sync()
    timer.join()
    pipeline.shutdown()


class StopClock(VirtualClock):
    """A clock that tells when the thread that ends a pipeline has looked at it."""

    def __init__(self) -> None:
        super().__init__()
        self.stopping = threading.Event()

    def monotonic_ns(self) -> int:
        now_ns = super().monotonic_ns()
        self._note()
        return now_ns

    def time_ns(self) -> int:
        now_ns = super().time_ns()
        self._note()
        return now_ns

    def _note(self) -> None:
        if threading.current_thread().name.endswith(" pipeline"):
            self.stopping.set()


def test_what_falls_due_in_a_shutdown_is_not_run_without_its_upstream() -> None:
    entered, go_on = threading.Event(), threading.Event()

    @task
    def hold(values: Any, start: int, end: int) -> None:
        entered.set()
        assert go_on.wait(PATIENCE)

    bench = PipelineBench([seen])
    clock = StopClock()
    bench.pipeline, bench.clock = Pipeline("bench", clock=clock), clock
    results = lock()
    bench.stage("up", lock(), tasks=[tick]).into(results, note)
    bench.stage("beside", lock(), tasks=[hold])
    bench.stage("down", results)
    with bench.pipeline:
        bench.advance()
        bench.sink.wait_for("down", 1)
        assert entered.wait(PATIENCE)
        bench.pipeline.shutdown()
        assert clock.stopping.wait(PATIENCE)
        for _ in range(20):  # as the shutdown goes on, and waits for one of them
            bench.advance()
            time.sleep(0.005)
        go_on.set()
    assert [(stage, d.timestamp) for stage, d in bench.sink.results if stage != "beside"] == [
        ("up", 1),
        ("down", 1),
    ]


def test_a_recording_that_ends_in_a_shutdown_ends_the_windows_with_its_last_row() -> None:
    go_on = threading.Event()

    def rows() -> Iterator[tuple[int, int]]:
        yield 0, 0
        assert go_on.wait(PATIENCE)

    clock, sink = StopClock(), RecordingSink()
    pipeline = Pipeline()
    data = lock()
    source = paced(rows(), unit=TimeUnit.SECONDS, clock=clock)
    pipeline.source(source, data, lambda values, row: values.append(row))
    pipeline.stage("a", [seen], data, SECOND).sink(sink)
    with pipeline:
        eventually(lambda: pipeline.stats.rows == (1,))
        clock.advance(TaskInterval.seconds(5))
        pipeline.shutdown()
        assert clock.stopping.wait(PATIENCE)
        go_on.set()
    assert [(d.window, d[seen]) for _, d in sink.results] == [((0, 1), [0])]


def test_shutdown_before_it_begins() -> None:
    pipeline = Pipeline()
    pipeline.stage("a", [seen], lock(), SECOND)
    pipeline.shutdown()
    pipeline.run_sync()


def test_it_runs_live_once() -> None:
    pipeline = Pipeline("p")
    pipeline.stage("a", [seen], lock(), SECOND)
    with pipeline:
        pass
    with pytest.raises(RunTaskError, match="pipeline 'p' has been run before"):
        pipeline.run_sync()


def test_without_sources_it_runs_until_it_is_shut_down() -> None:
    bench = PipelineBench([seen])
    data = lock()
    bench.stage("a", data)
    with bench.pipeline:
        for second in range(1, 4):
            with data.write() as values:
                values.append(second)
            bench.advance()
            assert bench.sink.wait_for("a", second)["seen"] == list(range(1, second + 1))


def test_when_all_sources_have_ended_it_ends_after_the_window_that_sees_the_last_row() -> None:
    kept = RecordingSink()
    data = lock()
    begun = time.time_ns() // 1_000_000
    rows = [(begun, i) for i in range(500)]
    pipeline = Pipeline().source(rows, data, add).source([(begun, -1)], data, add)
    pipeline.stage("a", [seen], data, TaskInterval.millis(50)).sink(kept)
    pipeline.run_sync()
    assert sorted(kept.results[-1][1]["seen"]) == [-1, *range(500)]


def test_a_source_that_is_stuck_does_not_hang_the_end(caplog: pytest.LogCaptureFixture) -> None:
    go_on = threading.Event()

    def rows() -> Iterator[tuple[int, int]]:
        yield 0, 1
        go_on.wait(PATIENCE)

    bench = PipelineBench([seen])
    data = lock()
    bench.pipeline.source(rows(), data, add)
    bench.stage("a", data)
    with bench.pipeline:
        bench.advance()
        bench.sink.wait_for("a", 1)
        started = time.monotonic()
    assert time.monotonic() - started < 2
    assert "still waits for a row, and is left" in caplog.text
    go_on.set()
    eventually(lambda: not any("source" in t.name for t in threading.enumerate()))


def test_a_sink_that_is_slow_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "SINK_CAPACITY", 2)

    class Slow(RecordingSink):
        def write(self, result: Result, /) -> None:
            time.sleep(0.002)
            super().write(result)

    bench = PipelineBench([seen])
    slow = Slow()
    for name in ("a", "b"):
        bench.pipeline.stage(name, [tick], lock(), SECOND).sink(slow)
    with bench.pipeline:
        bench.advance(100)
    for name in ("a", "b"):
        assert [dataset["tick"] for dataset in slow.of(name)] == list(range(1, 101))
    assert slow.closed == 1


def test_a_sink_that_is_slow_holds_up_who_shares_it_with_a_stage_that_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_run, "SINK_CAPACITY", 2)
    go_on = threading.Event()
    ran: list[int] = []

    class Slow(RecordingSink):
        def write(self, result: Result, /) -> None:
            go_on.wait(PATIENCE)
            super().write(result)

    @task
    def bad(values: Values, start: int, end: int) -> None:
        raise LookupError("bad")

    @task
    def count(values: Values, start: int, end: int) -> None:
        ran.append(end)

    bench = PipelineBench([seen])
    slow = Slow()
    config = RunnerConfig(on_error=OnError.RAISE)
    bench.pipeline.stage("a", [bad], lock(), SECOND, config).sink(slow)
    bench.pipeline.stage("b", [count], lock(), SECOND, config).sink(slow)
    with pytest.raises(ExceptionGroup), bench.pipeline:
        bench.advance()
        eventually(lambda: not [t for t in threading.enumerate() if t.name == "run-task a"])
        bench.advance(50)
        time.sleep(0.1)
        assert len(ran) < 6
        go_on.set()
    assert [dataset.timestamp for dataset in slow.of("b")] == ran == list(range(1, 52))


def test_a_sink_that_never_ends_is_told() -> None:
    go_on = threading.Event()

    class Stuck(RecordingSink):
        def write(self, result: Result, /) -> None:
            go_on.wait(PATIENCE)

    bench = PipelineBench([seen])
    bench.stage("a", lock(), 1, shutdown_timeout=0.2).sink(Stuck())
    started = time.monotonic()
    with pytest.raises(ExceptionGroup) as caught, bench.pipeline:
        bench.advance()
        bench.sink.wait_for("a", 1)
    assert time.monotonic() - started < 3
    (error,) = caught.value.exceptions
    assert isinstance(error, ShutdownTimeout)
    assert "writing to <" in str(error)
    go_on.set()
    eventually(lambda: not any("sink" in t.name for t in threading.enumerate()))


def test_what_was_written_is_flushed_every_second() -> None:
    bench = PipelineBench([seen])
    bench.stage("a", lock())
    with bench.pipeline:
        bench.advance()
        bench.sink.wait_for("a", 1)
        eventually(lambda: bench.sink.flushed)
        assert bench.sink.closed == 0


def test_what_cannot_be_started_leaves_nothing_behind(tmp_path: Any) -> None:
    bench = PipelineBench([seen])

    class Locked(JsonLinesSink):
        ready = False

        def begin(self, pipeline: str) -> None:
            if not self.ready:
                raise SinkError("somebody else is there")
            super().begin(pipeline)

    sink = Locked(tmp_path / "x.jsonl")
    bench.stage("a", lock()).sink(sink)
    with pytest.raises(SinkError, match="somebody else"), bench.pipeline:
        pass
    assert not [t for t in threading.enumerate() if t.name.startswith("run-task")]
    sink.ready = True
    with bench.pipeline:  # it was not run before
        bench.advance()
        bench.sink.wait_for("a", 1)


def test_threads_have_names() -> None:
    bench = PipelineBench([seen])
    data = lock()
    go_on = threading.Event()

    def rows() -> Iterator[tuple[int, int]]:
        go_on.wait(PATIENCE)
        yield 0, 1

    bench.pipeline.source(rows(), data, add)
    bench.stage("a", data)
    with bench.pipeline:
        names = {thread.name for thread in threading.enumerate()}
        go_on.set()
    assert {
        "run-task bench pipeline",
        "run-task bench sink 1",
        "run-task bench source 1",
        "run-task scheduler 1",
    } <= names


# asyncio


class Ticks:
    """An async source that goes on forever, and says when it was left."""

    def __init__(self) -> None:
        self.left = False

    async def rows(self) -> AsyncIterator[tuple[int, int]]:
        try:
            for i in range(1_000_000):
                yield 0, i
                await asyncio.sleep(0.001)
            await asyncio.sleep(1000)
        finally:
            self.left = True


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  it is another thread that brings it about
            await asyncio.sleep(0.001)


class TestAsync:
    def make(self) -> tuple[Pipeline, RecordingSink, Ticks]:
        data, kept, ticks = lock(), RecordingSink(), Ticks()
        pipeline = Pipeline().source(ticks.rows(), data, add)
        pipeline.stage("a", [seen], data, MILLIS).sink(kept)
        return pipeline, kept, ticks

    async def test_run_until_shut_down(self) -> None:
        pipeline, kept, ticks = self.make()
        running = asyncio.create_task(pipeline.run())
        await until(lambda: kept.results and len(kept.results[-1][1]["seen"]) > 3)
        pipeline.shutdown()
        await running
        assert ticks.left
        assert kept.closed == 1

    async def test_cancelling_run(self) -> None:
        pipeline, kept, ticks = self.make()
        running = asyncio.create_task(pipeline.run())
        await until(lambda: kept.results)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert ticks.left
        assert kept.closed == 1

    async def test_async_with(self) -> None:
        pipeline, kept, ticks = self.make()
        async with pipeline:
            await until(lambda: kept.results and kept.results[-1][1]["seen"])
        assert ticks.left

    def test_run_sync(self) -> None:
        before = threading.enumerate()
        pipeline, kept, ticks = self.make()
        with pipeline:
            eventually(lambda: kept.results and len(kept.results[-1][1]["seen"]) > 3)
        assert ticks.left
        begun = [thread for thread in threading.enumerate() if thread not in before]
        assert [thread for thread in begun if "async" in thread.name] == []

    def test_one_that_waits_for_ever_is_left(self) -> None:
        async def rows() -> AsyncIterator[tuple[int, int]]:
            await asyncio.sleep(1000)
            yield 0, 0

        data = lock()
        pipeline = Pipeline().source(rows(), data, add)
        pipeline.stage("a", [seen], data, MILLIS)
        started = time.monotonic()
        with pipeline:
            pass
        assert time.monotonic() - started < 2

    async def test_one_that_ends_and_one_that_fails(self) -> None:
        async def rows(fails: bool) -> AsyncIterator[tuple[int, int]]:
            for i in range(3000):  # more than may wait
                yield 0, i
            if fails:
                raise OSError("no line")

        data, kept = lock(), RecordingSink()
        pipeline = Pipeline().source(rows(False), data, add).source(rows(True), data, add)
        pipeline.stage("a", [seen], data, MILLIS).sink(kept)
        with pytest.raises(ExceptionGroup) as caught:
            await pipeline.run()
        assert [str(error) for error in caught.value.exceptions] == ["no line"]
        assert sorted(kept.results[-1][1]["seen"]) == sorted([*range(3000)] * 2)


# Processes and signals

PROGRAM = """
    import sys, time
    from run_task import Pipeline, RwLock, TaskInterval, task
    from run_task.sinks import CallbackSink, JsonLinesSink

    def rows():
        i = 0
        while True:
            yield time.time_ns() // 1_000_000, i
            i += 1
            time.sleep(0.002)

    @task
    def count(values, start, end):
        return len(values)

    data, later = RwLock([]), RwLock([])
    pipeline = Pipeline("p").source(rows(), data, lambda values, row: values.append(row))
    pipeline.stage("up", [count], data, TaskInterval.millis(20)).into(
        later, lambda values, dataset: values.append(dataset["count"])
    )
    sink = JsonLinesSink(sys.argv[1])
    said = CallbackSink(lambda stage, dataset: print("running", flush=True))
    pipeline.stage("down", [count], later, TaskInterval.millis(20)).sink(sink).sink(said)
    try:
        pipeline.run_sync()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_real_program_gracefully(number: signal.Signals, tmp_path: Any) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / "out.jsonl")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == "running\n"
        os.kill(process.pid, number)
        output, _ = process.communicate(timeout=10)
    lines = [line for line in output.splitlines() if line != "running"]
    assert lines == (["interrupted", "ended"] if number is signal.SIGINT else ["ended"])
    assert process.returncode == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) >= 3


def test_a_signal_handler_may_shut_it_down() -> None:
    pipeline = Pipeline()
    pipeline.stage("a", [seen], lock(), MILLIS).sink(
        CallbackSink(lambda stage, dataset: os.kill(os.getpid(), signal.SIGUSR1))
    )
    before = signal.signal(signal.SIGUSR1, lambda number, frame: pipeline.shutdown())
    try:
        pipeline.run_sync()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_processes_are_gone_at_the_end() -> None:
    import psutil

    before = psutil.Process().children(recursive=True)
    data, kept = lock(), RecordingSink()
    pipeline = Pipeline()
    config = RunnerConfig(executor="processes", workers=2)
    pipeline.stage("a", [tick], data, MILLIS, config).sink(kept)
    with pipeline:
        eventually(lambda: kept.results)
        assert set(psutil.Process().children(recursive=True)) - set(before)
    assert set(psutil.Process().children(recursive=True)) <= set(before)


# Sources that are played


@pytest.mark.parametrize("run", range(5))
def test_a_recording_under_a_virtual_clock(run: int, switching: None) -> None:
    clock = VirtualClock(10**18)
    data, kept = lock(), RecordingSink()
    rows = [(100, 1), (101, 2), (101, 3), (100, 4), (103, 5)]
    source = paced(rows, 2.0, unit=TimeUnit.SECONDS, clock=clock)
    pipeline = Pipeline().source(source, data, add)
    pipeline.stage("a", [seen], data, SECOND).sink(kept)
    with pipeline:
        for _ in range(2):
            clock.advance(SECOND)  # two seconds of the recording
        eventually(lambda: len(kept.results) == 4)
    assert [(d.window, d["seen"]) for d in kept.of("a")] == [
        ((100, 101), [1]),
        ((101, 102), [1, 2, 3, 4]),
        ((102, 103), [1, 2, 3, 4]),
        ((103, 104), [1, 2, 3, 4, 5]),
    ]


def test_recordings_that_are_played_together_have_one_speed() -> None:
    data = lock()
    pipeline = Pipeline()
    for speed in (1, 2):
        pipeline.source(paced([(0, 1)], speed, unit=TimeUnit.SECONDS), data, add)
    pipeline.stage("a", [seen], data, SECOND)
    with pytest.raises(RunTaskError, match=r"one speed, not .* at 1, .* at 2"):
        pipeline.run_sync()


def test_a_long_gap_and_an_upstream_with_a_finer_grid_leave_nobody_behind() -> None:
    kept = RecordingSink()
    data, target = lock(), lock()
    source = paced([(0, 1), (1000, 2), (1005, 3)], 50_000, unit=TimeUnit.SECONDS)
    pipeline = Pipeline().source(source, data, add)
    pipeline.stage("up", [seen], data, SECOND).into(target, note).sink(kept)
    pipeline.stage("down", [tick], target, TaskInterval.seconds(60)).sink(kept)
    pipeline.run_sync()
    assert len(kept.of("up")) == 1006
    assert [d.timestamp for d in kept.of("down")] == list(range(60, 1021, 60))
    assert not any(dataset.behind for _, dataset in kept.results)
