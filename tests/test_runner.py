from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.bench import SECOND, FailingClock, RunnerBench
from tests.support.threads import PATIENCE, beside, eventually, together

from run_task import (
    Access,
    Align,
    ChannelClosed,
    ContextBuilder,
    DataSet,
    LockTimeout,
    MissedTick,
    OnError,
    Overflow,
    Runner,
    RunnerConfig,
    RunTaskError,
    RwLock,
    ShutdownTimeout,
    Task,
    TaskError,
    TaskInterval,
    VirtualClock,
    Window,
)
from run_task.executors import Tick
from run_task.runner._engine import Engine
from run_task.runner._scheduler import scheduled
from run_task.runner._ticker import Ticker


class Pair:
    """Two fields that agree whenever nobody is writing."""

    def __init__(self) -> None:
        self.left = 0
        self.right = 0


def left(pair: Pair, start: int, end: int) -> int:
    return pair.left


def right(pair: Pair, start: int, end: int) -> int:
    return pair.right


def fails(pair: Pair, start: int, end: int) -> int:
    raise ValueError("no good")


def leaves(pair: Pair, start: int, end: int) -> int:
    raise SystemExit(3)


@pytest.fixture(params=["threads", "inline"])
def executor(request: pytest.FixtureRequest) -> Any:
    return request.param


def pair_bench(*functions: Callable[[Pair, int, int], Any], **settings: Any) -> RunnerBench:
    """A runner of some functions over a Pair."""
    return RunnerBench(map(Task, functions or (left, right)), RwLock(Pair()), **settings)


def test_one_dataset_a_window_exact_and_in_order(executor: Any) -> None:
    bench = pair_bench(executor=executor)
    with bench.runner:
        datasets = [bench.next() for _ in range(5)]
        bench.clock.advance(TaskInterval.seconds(3))  # and some at once
        datasets += [bench.receiver.recv(PATIENCE) for _ in range(3)]
    assert [dataset.window for dataset in datasets] == [Window(i, i + 1) for i in range(8)]
    assert [dataset.timestamp for dataset in datasets] == list(range(1, 9))
    assert list(bench.receiver) == []
    stats = bench.runner.stats
    assert (stats.ticks, stats.missed, stats.dropped) == (8, 0, 0)
    assert datasets[0].lateness == 0.0
    assert stats.lateness.max == pytest.approx(2.0)
    assert 0 < stats.duration.p50 <= stats.duration.p99 <= stats.duration.max < PATIENCE
    assert stats.lateness.total == pytest.approx(sum(dataset.lateness for dataset in datasets))
    assert stats.duration.total == pytest.approx(sum(dataset.took for dataset in datasets))


def test_tasks_are_given_the_window_and_results_stand_in_their_order(executor: Any) -> None:
    def window(pair: Pair, start: int, end: int) -> tuple[int, int]:
        return start, end

    bench = pair_bench(right, window, left, executor=executor, window=TaskInterval.seconds(10))
    with bench.runner:
        dataset = bench.next()
    assert dataset.window == dataset["window"] == (-9, 1)
    assert list(dataset) == ["right", "window", "left"]
    assert list(dataset.durations) == ["right", "window", "left"]
    assert all(0 <= seconds < PATIENCE for seconds in dataset.durations.values())


@pytest.mark.parametrize("fault", [fails, leaves])
def test_a_task_that_raises_spoils_only_its_own_entry(
    executor: Any, fault: Callable[[Pair, int, int], int], caplog: pytest.LogCaptureFixture
) -> None:
    bench = pair_bench(left, fault, right, executor=executor)
    with caplog.at_level(logging.WARNING, "run_task"), bench.runner:
        datasets = [bench.next() for _ in range(3)]
    for dataset in datasets:
        assert dataset.to_dict() == {"left": 0, "right": 0}
        (error,) = dataset.errors.values()
        assert type(error) is TaskError
        assert (error.task, error.window) == (fault.__name__, dataset.window)
        assert isinstance(error.__cause__, ValueError | SystemExit)
        traceback = error.__cause__.__traceback__
        assert traceback is not None
        assert traceback.tb_frame.f_code.co_name == fault.__name__, "the user's frames, not ours"
    assert len(caplog.records) == 3
    assert fault.__name__ in caplog.text


def test_a_view_is_taken_once_a_tick_for_all_tasks(executor: Any) -> None:
    class Counting(RwLock[Pair]):
        reads = 0

        def read(self, timeout: float | None = None) -> Any:
            Counting.reads += 1
            return super().read(timeout)

    context, receiver, _ = (
        ContextBuilder(Pair)
        .with_data(Counting(Pair()))
        .with_tasks([Task(left, str(i)) for i in range(20)])
        .with_interval(SECOND)
        .with_config(RunnerConfig(executor=executor))
        .build()
    )
    clock = VirtualClock()
    with Runner(context, clock=clock):
        for ticks in range(1, 4):
            clock.advance(SECOND)
            receiver.recv(PATIENCE)
            assert Counting.reads == ticks


@pytest.mark.usefixtures("switching")
def test_all_tasks_of_a_tick_see_one_state(executor: Any) -> None:
    bench = pair_bench(left, right, *(_named(left, i) for i in range(3)), executor=executor)
    ticks = 100

    def write(by: int) -> None:
        for _ in range(200):
            with bench.data.write(PATIENCE) as pair:
                pair.left += by
                pair.right += by

    def read() -> None:
        for _ in range(ticks):
            dataset = bench.next()
            assert not dataset.errors
            assert len(set(dataset.values())) == 1

    with bench.runner:
        together(read, lambda: write(1), lambda: write(100))


def _named(function: Callable[[Pair, int, int], int], i: int) -> Callable[[Pair, int, int], int]:
    def renamed(pair: Pair, start: int, end: int) -> int:
        return function(pair, start, end)

    renamed.__name__ = f"{function.__name__} {i}"
    return renamed


def test_a_lock_held_too_long_gives_a_dataset_of_errors_on_time(executor: Any) -> None:
    bench = pair_bench(data_timeout=0.05, executor=executor)
    with bench.runner:
        with bench.data.write():
            dataset = bench.next()
        assert len(dataset) == 0
        assert list(dataset.errors) == ["left", "right"]
        for name, error in dataset.errors.items():
            assert (error.task, error.window) == (name, Window(0, 1))
            assert isinstance(error.__cause__, LockTimeout)
            assert "has been writing" in str(error)
        assert bench.next().to_dict() == {"left": 0, "right": 0}
    assert bench.runner.stats.ticks == 2


def test_a_consumer_that_stops_reading_blocks_the_runner_and_never_shutdown(executor: Any) -> None:
    bench = pair_bench(executor=executor, capacity=2)
    with bench.runner:
        bench.clock.advance(TaskInterval.seconds(10))
        eventually(lambda: len(bench.receiver) == bench.runner.stats.ticks == 2)
        bench.receiver.recv(PATIENCE)
        eventually(lambda: bench.runner.stats.ticks == 3)
    # The window in hand is delivered, though there was no room.
    assert [dataset.timestamp for dataset in bench.receiver] == [2, 3, 4]
    stats = bench.runner.stats
    assert (stats.ticks, stats.missed, stats.dropped) == (4, 0, 0)


@pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST])
def test_what_is_dropped_is_counted_and_logged(
    overflow: Overflow, caplog: pytest.LogCaptureFixture
) -> None:
    bench = pair_bench(capacity=2, overflow=overflow)
    with caplog.at_level(logging.WARNING, "run_task"), bench.runner:
        bench.clock.advance(TaskInterval.seconds(5))
        eventually(lambda: bench.runner.stats.ticks == 5)
    kept = [4, 5] if overflow is Overflow.DROP_OLDEST else [1, 2]
    assert [dataset.timestamp for dataset in bench.receiver] == kept
    assert bench.runner.stats.dropped == bench.receiver.dropped == 3
    assert len(caplog.records) == 3
    assert "dropped DataSet [" in caplog.text


def test_the_wall_clock_set_back_yields_no_window_twice(executor: Any) -> None:
    bench = pair_bench(executor=executor, clock=VirtualClock(7200 * 10**9))
    with bench.runner:
        ends = [bench.next().timestamp for _ in range(3)]
        bench.clock.step(-3600 * 10**9)
        ends += [bench.next().timestamp for _ in range(3)]
    assert ends == [7201, 7202, 7203, 7204, 7205, 7206]


@pytest.mark.parametrize(
    ("missed", "windows", "count"),
    [
        (MissedTick.BURST, [(i, i + 1) for i in range(61)], 0),
        (MissedTick.COALESCE, [(0, 60), (60, 61)], 0),
        (MissedTick.SKIP, [(0, 1), (60, 61)], 59),
        (MissedTick.DELAY, [(0, 1), (1, 2)], 0),
    ],
)
def test_the_wall_clock_set_forward_follows_missed_tick(
    missed: MissedTick, windows: list[tuple[int, int]], count: int
) -> None:
    bench = pair_bench(missed_tick=missed)
    with bench.runner:
        bench.clock.step(60 * 10**9)
        got = [bench.receiver.recv(PATIENCE).window]
        bench.clock.advance(SECOND)
        got += [bench.receiver.recv(PATIENCE).window for _ in windows[1:]]
    assert got == windows
    assert bench.runner.stats.missed == count


def test_windows_may_begin_with_the_runner() -> None:
    bench = pair_bench(clock=VirtualClock(1_500_000_000), interval=TaskInterval.millis(1000))
    aligned = pair_bench(
        clock=VirtualClock(1_500_000_000), interval=TaskInterval.millis(1000), align=Align.START
    )
    with bench.runner, aligned.runner:
        assert bench.next().window == (1000, 2000)
        assert aligned.next().window == (1500, 2500)


def test_raise_delivers_the_dataset_ends_and_raises(executor: Any) -> None:
    bench = pair_bench(left, fails, executor=executor, on_error=OnError.RAISE)
    datasets: list[DataSet[Any]] = []
    with pytest.raises(TaskError, match="no good") as caught, bench.runner:
        datasets += _all(bench)
    (dataset,) = datasets
    assert dataset.to_dict() == {"left": 0}
    assert caught.value is dataset.errors["fails"]
    assert bench.runner.stats.missed == 0


def _all(bench: RunnerBench) -> list[DataSet[Any]]:
    bench.clock.advance(SECOND)
    return list(bench.receiver)


def test_the_error_of_the_block_is_told_and_the_runners_noted() -> None:
    bench = pair_bench(fails, on_error=OnError.RAISE)
    with pytest.raises(KeyError) as caught, bench.runner:
        _all(bench)
        raise KeyError("mine")
    assert "no good" in caught.value.__notes__[0]


def test_ends_when_nobody_listens_any_more(executor: Any) -> None:
    bench = pair_bench(executor=executor)
    with beside(bench.runner.run_sync):
        bench.receiver.close()
        bench.clock.advance(SECOND)
        eventually(lambda: bench.runner.stats.missed == 1)
    with pytest.raises(ChannelClosed):
        bench.receiver.recv()
    assert bench.runner.stats.ticks == 0


@pytest.mark.parametrize("error", [OSError, ChannelClosed])
def test_data_that_cannot_be_read_ends_the_runner_and_says_so(
    executor: Any, error: type[Exception]
) -> None:
    class Broken:
        def read(self, timeout: float | None = None) -> Access[Pair]:
            raise error("the disk is gone")

    context, receiver, _ = (
        ContextBuilder(Pair)
        .with_data(Broken())
        .with_task(Task(left))
        .with_interval(SECOND)
        .with_config(RunnerConfig(executor=executor))
        .build()
    )
    clock = VirtualClock()
    runner = Runner(context, clock=clock)
    with pytest.raises(error, match="disk is gone"), runner:
        clock.advance(SECOND)
        assert list(receiver) == []
    assert runner.stats.missed == 1


# Ways to run, and to end


def test_run_sync_ends_with_a_shutdown_from_any_thread(executor: Any) -> None:
    bench = pair_bench(executor=executor)
    with beside(bench.runner.run_sync):
        bench.next()
        together(*[bench.runner.shutdown] * 4)
    bench.runner.shutdown()
    assert list(bench.receiver) == []


async def test_run_is_awaited_and_ends_with_a_shutdown(executor: Any) -> None:
    bench = pair_bench(executor=executor)
    running = asyncio.create_task(bench.runner.run())
    await asyncio.sleep(0)
    bench.clock.advance(SECOND)
    async for dataset in bench.receiver:
        assert dataset.timestamp == 1
        bench.runner.shutdown()
    await asyncio.wait_for(running, PATIENCE)


async def test_cancelling_run_shuts_down(executor: Any) -> None:
    bench = pair_bench(executor=executor)
    running = asyncio.create_task(bench.runner.run())
    await asyncio.sleep(0)
    bench.clock.advance(SECOND)
    await bench.receiver.arecv(PATIENCE)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [dataset async for dataset in bench.receiver] == []


async def test_async_with_starts_and_ends(executor: Any) -> None:
    bench = pair_bench(executor=executor)
    async with bench.runner as runner, bench.data.write() as pair:
        pair.left = pair.right = 1
        assert runner is bench.runner
    async with pair_bench(executor=executor).runner:
        pass
    assert [dataset async for dataset in bench.receiver] == []


async def test_a_busy_event_loop_holds_no_tick_up() -> None:
    bench = pair_bench()
    async with bench.runner:
        for second in range(1, 4):  # no await in between: the loop is blocked
            assert bench.next().timestamp == second


def test_a_runner_runs_once(executor: Any) -> None:
    bench = pair_bench(executor=executor)
    with bench.runner:
        pass
    with pytest.raises(RunTaskError, match="runs once"):
        bench.runner.run_sync()
    with pytest.raises(RunTaskError, match="runs once"), bench.runner:
        pass


def test_a_context_is_for_one_runner_at_a_time() -> None:
    context, receiver, _ = ContextBuilder(Pair).with_task(Task(left)).build()
    clock = VirtualClock()
    with Runner(context, clock=clock):
        with pytest.raises(RunTaskError, match=r"another runner.*build a context for each"):
            Runner(context, clock=clock).start()
        with pytest.raises(RunTaskError, match="another runner"), Runner(context, clock=clock):
            pass
        clock.advance(TaskInterval.seconds(5))
        assert receiver.recv(PATIENCE).window == Window(0, 5)  # the first one goes on
    assert list(receiver) == []


def test_a_runner_tells_how_long_nobody_has_read(executor: Any) -> None:
    bench = pair_bench(executor=executor, capacity=1)
    with bench.runner:
        assert bench.runner.stats.blocked == 0
        bench.clock.advance(TaskInterval.seconds(2))
        eventually(lambda: bench.runner.stats.blocked > 0)  # while it stands still
        before = bench.runner.stats.blocked
        eventually(lambda: bench.runner.stats.blocked > before)
        bench.receiver.recv(PATIENCE)
    assert bench.runner.stats.blocked >= before


def test_a_context_is_for_one_runner() -> None:
    context, receiver, _ = ContextBuilder(Pair).with_task(Task(left)).build()
    with Runner(context):
        pass
    again = Runner(context)
    with pytest.raises(RunTaskError, match="closed, as a runner does when it ends: build a new"):
        again.start()
    assert list(receiver) == []


def test_a_runner_that_was_shut_down_before_it_ran_ends_at_once(executor: Any) -> None:
    bench = pair_bench(executor=executor)
    bench.runner.shutdown()
    bench.runner.run_sync()
    assert list(bench.receiver) == []
    assert bench.runner.stats.ticks == 0


def test_the_window_in_hand_is_finished_and_delivered() -> None:
    go = threading.Event()
    begun = threading.Event()

    def slow(pair: Pair, start: int, end: int) -> int:
        begun.set()
        assert go.wait(PATIENCE)
        return 5

    bench = pair_bench(slow, left)
    with beside(bench.runner.run_sync):
        bench.clock.advance(TaskInterval.seconds(3))
        assert begun.wait(PATIENCE)
        bench.runner.shutdown()
        go.set()
    assert [dataset.to_dict() for dataset in bench.receiver] == [{"slow": 5, "left": 0}]


@pytest.mark.usefixtures("switching")
def test_a_shutdown_at_any_moment_loses_and_doubles_nothing(executor: Any) -> None:
    for moment in range(30):
        bench = pair_bench(executor=executor, capacity=3)
        got: list[int] = []

        def consume(bench: RunnerBench = bench, got: list[int] = got) -> None:
            got.extend(dataset.timestamp for dataset in bench.receiver)

        with beside(consume), bench.runner:
            for _ in range(moment):
                bench.clock.advance(SECOND)
        stats = bench.runner.stats
        assert got == list(range(1, len(got) + 1))
        assert (stats.ticks, stats.missed) == (len(got), 0)
        assert len(got) <= moment


def test_two_runners_may_share_data_and_a_clock() -> None:
    clock = VirtualClock()
    first = pair_bench(clock=clock)
    data: RwLock[Pair] = first.data
    context, receiver, _ = (
        ContextBuilder(Pair).with_data(data).with_task(Task(left)).with_interval(SECOND)
    ).build()
    with first.runner, Runner(context, clock=clock):
        with first.data.write() as pair:
            pair.left = pair.right = 4
        assert first.next().to_dict() == {"left": 4, "right": 4}
        assert receiver.recv(PATIENCE).to_dict() == {"left": 4}


def test_stats_may_be_read_before_while_and_after() -> None:
    bench = pair_bench()
    assert (bench.runner.stats.ticks, bench.runner.stats.lateness.p99) == (0, 0.0)
    assert bench.runner.name == "runner"
    with bench.runner:
        bench.next()
        eventually(lambda: bench.runner.stats.ticks == 1)
    assert bench.runner.stats.ticks == 1


class Misbehaving:
    """An executor of a program's own, and its crew, of which one method raises."""

    def __init__(self, method: str) -> None:
        self._method = method

    def check(self, tasks: Any) -> None:
        pass

    def start(self, tasks: Any, **settings: Any) -> Any:
        self.tasks = tuple(tasks)
        return Leading(self) if self._method.startswith("drive") else self

    def fail(self, method: str) -> None:
        if method == self._method:
            raise OSError(f"{method} fails")

    def open(self) -> None:
        self.fail("open")

    def run(self, tick: Tick) -> DataSet[Any]:
        self.fail("run")
        if self._method == "exit":
            raise GeneratorExit
        values = {task.name: task.run(tick.view, *tick.window) for task in self.tasks}
        return DataSet(tick.window, values)

    def running(self) -> list[str]:
        self.fail("running")
        return []

    def abandon(self) -> None:
        self.fail("abandon")

    def close(self, timeout: float) -> None:
        self.fail("close")


class Leading:
    """A crew that drives the loop, and raises before, in the middle of it, or after it."""

    def __init__(self, executor: Misbehaving) -> None:
        self._executor = executor
        self.open, self.run = executor.open, executor.run
        self.running, self.abandon, self.close = executor.running, executor.abandon, executor.close

    def drive(self, ticks: Any) -> None:
        self._executor.fail("drive")
        parts = next(ticks)
        self._executor.fail("drive on")
        with contextlib.suppress(StopIteration):
            while True:
                parts = ticks.send(self._executor.run(Tick.of(parts)))
        self._executor.fail("drive off")


@pytest.mark.parametrize(
    "method",
    ["open", "run", "exit", "running", "close", "drive", "drive on", "drive off"],
)
def test_an_executor_that_misbehaves_ends_its_runner_with_its_error(method: str) -> None:
    bench = RunnerBench(
        [Task(left)],
        RwLock(Pair()),
        executor=Misbehaving(method),
        shutdown_timeout=10 * PATIENCE,  # which is not waited for
    )
    with beside(lambda: list(bench.receiver)) as received:
        with pytest.raises(GeneratorExit if method == "exit" else OSError) as caught, bench.runner:
            bench.clock.advance(SECOND)
            if method in ("running", "close"):
                eventually(lambda: bench.runner.stats.ticks)
            else:
                received.result(PATIENCE)  # it ends by itself
        assert received.result(PATIENCE) is not None
    if method != "exit":
        assert f"{method} fails" in str(caught.value)
    assert not scheduled()


def test_a_runner_whose_data_hangs_is_given_up_with_its_crew_and_runs_nothing_later() -> None:
    called: list[str] = []
    asked, answer = threading.Event(), threading.Event()

    class Noting(Misbehaving):
        def fail(self, method: str) -> None:
            called.append(method)

    class Hanging:
        def read(self, timeout: float | None = None) -> Access[Pair]:
            asked.set()
            answer.wait(PATIENCE)
            return RwLock(Pair()).read(timeout)

    bench = RunnerBench([Task(left)], Hanging(), executor=Noting("none"), shutdown_timeout=0.01)
    with pytest.raises(ShutdownTimeout), bench.runner:
        bench.clock.advance(SECOND)
        assert asked.wait(PATIENCE)
    assert called == ["open", "abandon", "running", "close"]
    answer.set()
    eventually(lambda: not any("scheduler" in t.name for t in threading.enumerate()))
    assert "run" not in called
    assert called.count("close") == 1


@pytest.mark.parametrize("method", ["time_ns", "monotonic_ns", "wait"])
def test_a_clock_that_fails_ends_its_runner_with_its_error(method: str) -> None:
    clock = FailingClock(method)
    context, receiver, _ = (
        ContextBuilder(Pair)
        .with_task(Task(left))
        .with_interval(TaskInterval.millis(5))
        .with_config(RunnerConfig(shutdown_timeout=10 * PATIENCE))  # which is not waited for
        .build()
    )
    with pytest.raises(OSError, match="the clock is gone"), Runner(context, clock=clock):
        receiver.recv(PATIENCE)
        clock.fails = True
        for _ in receiver:
            pass  # it ends by itself
    assert not scheduled()


def test_ctrl_c_in_the_middle_of_the_start_ends_the_runner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = RunnerBench([Task(left)], RwLock(Pair()))
    follow_clock = Engine.follow_clock

    def interrupt(engine: Engine) -> int:
        monkeypatch.setattr(Engine, "follow_clock", follow_clock)
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "follow_clock", interrupt)
    with pytest.raises(KeyboardInterrupt), bench.runner:
        pytest.fail("it has not begun")
    with pytest.raises(ChannelClosed):
        bench.receiver.recv(PATIENCE)
    eventually(lambda: not scheduled())


def test_ctrl_c_in_the_middle_of_a_shutdown_ends_the_runner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = RunnerBench([Task(left)], RwLock(Pair()))
    stop = Ticker.stop

    def interrupt(ticker: Ticker) -> None:
        monkeypatch.setattr(Ticker, "stop", stop)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), bench.runner:
        monkeypatch.setattr(Ticker, "stop", interrupt)
    with pytest.raises(ChannelClosed):
        bench.receiver.recv(PATIENCE)
    eventually(lambda: not scheduled())
