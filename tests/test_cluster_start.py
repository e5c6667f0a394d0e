"""Shards that die, or that nobody wants any more, while they are started."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tests.support.bench import RecordingSink
from tests.support.crews import children
from tests.support.shards import LocalTransport, local_shards
from tests.support.threads import PATIENCE, beside, eventually
from tests.test_cluster import declared, orders, rows_of_all, some_orders

from run_task import ConfigError, Pipeline, RunnerConfig, RunTaskError, TimeUnit
from run_task.aggregates import count
from run_task.executors.processes._parent import interpreter
from run_task.runner._signals import shut_down_on_sigterm
from run_task.runner._stats import ShardState
from run_task.sinks import SqlSink, StageOutput
from run_task.sources import paced


@contextmanager
def done_to_each(deed: Callable[[int], object], *which: int) -> Generator[list[int]]:
    """A block in which something is done to processes of shards as soon as they are started. Gives
    the ids of all.

    :param deed: what is done to a process, by its id
    :param which: to which of them, as they are started, from 1 on
    """
    started: list[int] = []

    def start(descriptor: int, module: str) -> subprocess.Popen[bytes]:
        process = interpreter(descriptor, module)
        started.append(process.pid)
        if len(started) in which:
            deed(process.pid)
        return process

    with mock.patch("run_task.cluster._processes.interpreter", start):
        yield started


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


def stop(process: int) -> None:
    os.kill(process, signal.SIGSTOP)


def test_a_shard_that_is_killed_while_it_starts_is_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made, sink = declared(orders()), RecordingSink()
    made.sink(sink)
    expected = [dataset for _, dataset in made.replay()]
    with done_to_each(kill, 1, 2) as started:
        assert [dataset for _, dataset in made.replay_sharded(2)] == expected
    assert len(started) == 4
    told = [r.message for r in caplog.records if "lost while it was started" in r.message]
    assert len(told) == 2
    assert "killed by signal 9" in told[0]
    assert not children() & {*started}


def test_one_that_is_killed_each_time_is_told_with_its_cause_and_nothing_is_left() -> None:
    with (
        done_to_each(kill, 1, 2, 3) as started,
        pytest.raises(ConfigError, match=r"shard 0 of 1 cannot .* lost 3 times: .*signal 9"),
    ):
        declared(orders()).run_sharded(1)
    assert len(started) == 3
    assert not children() & {*started}


def test_one_that_ends_by_itself_is_told_at_once() -> None:
    with (
        mock.patch("run_task.cluster._processes._MODULE", "run_task.no_such_module"),
        done_to_each(kill) as started,
        pytest.raises(ConfigError, match="ended with exit code 1 before it was there"),
    ):
        declared(orders()).run_sharded(1)
    assert len(started) == 1
    assert not children() & {*started}


def by_shutdown(shutdown: Callable[[], None]) -> None:
    shutdown()


def by_sigterm(shutdown: Callable[[], None]) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("end", [by_shutdown, by_sigterm])
def test_a_shutdown_while_shards_start_ends_them_at_once(
    end: Callable[[Callable[[], None]], None],
) -> None:
    made, sink = declared(orders()), RecordingSink()
    made.sink(sink)
    before = signal.getsignal(signal.SIGTERM)
    threads = threading.active_count()
    with (
        shut_down_on_sigterm(lambda: None),
        done_to_each(stop, 1, 2) as started,
    ):

        def ended() -> float:
            eventually(lambda: len(started) == 2)
            end(made.shutdown)
            return time.monotonic()

        with beside(ended) as at:
            made.run_sharded(2)
            now = time.monotonic()
        assert now - at.result() < PATIENCE / 2  # and not after the minute that a start may take
    assert signal.getsignal(signal.SIGTERM) == before
    assert not sink.results
    assert {one.state for one in made.stats.shards.values()} == {ShardState.ENDED}
    assert not children() & {*started}
    eventually(lambda: threading.active_count() <= threads)


def test_ctrl_c_while_shards_start_leaves_nothing() -> None:
    made = declared(orders())
    threads = threading.active_count()

    def replay(shards: int) -> None:
        next(made.replay_sharded(shards))

    for run in (made.run_sharded, replay):
        # The first is there before the second is stopped, and has to be ended, too.
        with done_to_each(stop, 2) as started:

            def interrupt() -> None:
                eventually(lambda: len(started) == 2)
                time.sleep(0.3)
                os.kill(os.getpid(), signal.SIGINT)

            with beside(interrupt), pytest.raises(KeyboardInterrupt):
                run(2)
        assert not children() & {*started}
    eventually(lambda: threading.active_count() <= threads)


def test_a_pipeline_that_was_shut_down_before_starts_no_shard() -> None:
    made = declared(orders())
    made.shutdown()
    with done_to_each(kill) as started:
        made.run_sharded(2)
    assert not children() & {*started}


SET_UP: list[str] = []
"""What has been set up in shards."""

IN_SHARD = threading.local()
"""Whether a shard is at work: in this process, which loads tasks, too, to see whether it can."""


def shards_that_say_so() -> LocalTransport:
    return LocalTransport(
        lambda _link: setattr(IN_SHARD, "now", True), lambda _link: setattr(IN_SHARD, "now", False)
    )


class SlowTask:
    """A task that takes long to load: it stands for one that imports much.

    :param fails: whether it cannot be loaded at all
    """

    name = "slow"

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def run(self, data: Any, start: int, end: int) -> int:
        return len(data.in_window)

    def __reduce__(self) -> tuple[Any, ...]:
        return _loaded, (self.fails,)


def _loaded(fails: bool) -> SlowTask:
    if getattr(IN_SHARD, "now", False):
        if fails:
            raise ImportError("there is no such module here")
        _set_up("task")
    return SlowTask(fails)


class SlowSink(SqlSink):
    """A table that takes long to be opened in a shard."""

    def for_shards(self, output: StageOutput, /, *, other_machines: bool) -> Callable[[], Any]:
        return partial(_opened, super().for_shards(output, other_machines=other_machines))


def _opened(opener: Callable[[], Any]) -> Any:
    _set_up("sink")
    return opener()


def _set_up(what: str) -> None:
    SET_UP.append(what)
    time.sleep(1)


@pytest.mark.parametrize("slow", ["task", "sink"])
def test_shards_are_ready_before_the_first_window_so_that_nobody_goes_on_without_it(
    slow: str, tmp_path: Path
) -> None:
    pytest.importorskip("sqlalchemy")
    SET_UP.clear()
    made, series, sink = Pipeline("p"), orders(), RecordingSink()
    made.source(paced(some_orders(40), 1e3, unit=TimeUnit.SECONDS), series)
    config = RunnerConfig(upstream_timeout=0.4)
    tasks: list[Any] = [SlowTask() if slow == "task" else count()]
    by_key = made.stage("s", tasks, series, "10s", config, by="key")
    if slow == "sink":
        by_key.sink(SlowSink(tmp_path / "bars.db"), sharded=True)
    made.stage("all", [rows_of_all], by_key.series(), "10s", config)
    made.sink(sink)
    with local_shards(shards_that_say_so()):
        made.run_sharded(2)
    assert [slow] * 2 == SET_UP
    assert [dataset.behind for dataset in sink.of("all")] == [()] * 4


def test_what_cannot_be_loaded_in_shards_ends_the_start_with_its_cause() -> None:
    made, series = Pipeline("p"), orders()
    made.source(some_orders(), series)
    made.stage("s", [SlowTask(fails=True)], series, "10s", by="key")
    with local_shards(shards_that_say_so()) as transport, pytest.raises(RunTaskError) as raised:
        made.run_sharded(2)
    assert "stage 's': shard 0 of 2 failed: ImportError: there is no such" in str(raised.value)
    assert not any(link.asked for link in transport.links)


@pytest.mark.parametrize("slow", ["task", "sink"])
@pytest.mark.parametrize("end", [by_shutdown, by_sigterm])
def test_a_shutdown_while_shards_are_made_ready_runs_nothing(
    end: Callable[[Callable[[], None]], None], slow: str, tmp_path: Path
) -> None:
    pytest.importorskip("sqlalchemy")
    SET_UP.clear()
    made, series, sink = Pipeline("p", checkpoint=tmp_path / "state"), orders(), RecordingSink()
    made.source(some_orders(), series)
    tasks: list[Any] = [SlowTask() if slow == "task" else count()]
    by_key = made.stage("s", tasks, series, "1s", by="key")
    if slow == "sink":
        by_key.sink(SlowSink(tmp_path / "bars.db"), sharded=True)
    made.stage("all", [rows_of_all], by_key.series(), "1s")
    made.stage("beside", [rows_of_all], series, "1s")
    made.sink(sink)

    def ended() -> None:
        eventually(lambda: SET_UP)
        end(made.shutdown)

    with (
        shut_down_on_sigterm(lambda: None),
        local_shards(shards_that_say_so()),
        beside(ended) as result,
    ):
        made.run_sharded(2)
        result.result(PATIENCE)
    assert not sink.results
    assert {stats.ticks for stats in made.stats.stages.values()} == {0}
    assert made.stats.sources["source-1"].received == 0
    checkpoints = made.stats.checkpoints
    assert checkpoints is not None
    assert (checkpoints.written, checkpoints.failed) == (0, 0)  # nothing has begun
