"""What users test their own tasks with."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.threads import eventually

from run_task import (
    Align,
    ConfigError,
    Context,
    ContextBuilder,
    DataSet,
    Empty,
    MissedTick,
    OnError,
    Overflow,
    Receiver,
    RunnerConfig,
    TaskError,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    Window,
    task,
)
from run_task.testing import VirtualClock, run_windows

pytest_plugins = ["pytester"]

FIVE = TaskInterval.seconds(5)


@task
def mean(prices: list[float], start: int, end: int) -> float:
    return sum(prices) / len(prices)


@task
def rows(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.between(start, end))


def test_a_test_of_a_task_is_two_lines() -> None:
    context, _, _ = ContextBuilder(lambda: [1.0, 2.0]).with_task(mean).build()
    assert [dataset[mean] for dataset in run_windows(context, 2)] == [1.5, 1.5]


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_windows_are_those_of_a_runner_and_the_data_changes_between_them(executor: Any) -> None:
    context, receiver, prices = (
        ContextBuilder(lambda: [1.0])
        .with_task(mean)
        .with_interval(FIVE)
        .with_config(RunnerConfig(executor=executor, workers=1))
        .build()
    )
    seen: list[tuple[Window, int]] = []

    def before(window: Window) -> None:
        seen.append((window, threading.get_ident()))
        prices.replace([float(window.end)])

    datasets = run_windows(context, 3, start=1_003, before=before)
    windows = [Window(1_000, 1_005), Window(1_005, 1_010), Window(1_010, 1_015)]
    assert [dataset.window for dataset in datasets] == windows
    assert [dataset[mean] for dataset in datasets] == [1_005.0, 1_010.0, 1_015.0]
    assert [dataset.lateness for dataset in datasets] == [0.0, 0.0, 0.0]
    # In the caller's thread, where whatever a test has set up for it is.
    assert seen == [(window, threading.get_ident()) for window in windows]
    assert receiver.try_recv() is None, "the context's own channel is left alone"
    assert len(run_windows(context, 1, start=1_015)) == 1
    moment = datetime.fromtimestamp(1_015, UTC)
    (dataset,) = run_windows(context, 1, start=moment)
    assert dataset.window.start <= 1_015 < dataset.window.end


@task
def size(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


def test_a_window_without_rows_that_is_to_be_left_out_gives_no_dataset() -> None:
    series = TimeSeries({"price": float}, TimeUnit.SECONDS)
    context, _, _ = (
        ContextBuilder(series)
        .with_task(size)
        .with_interval("10s")
        .with_config(RunnerConfig(empty=Empty.SKIP))
        .build()
    )

    def before(window: Window) -> None:
        if window.start != 10:
            series.append(window.start, price=1.0)

    datasets = run_windows(context, 3, before=before)
    assert [dataset.window for dataset in datasets] == [(0, 10), (20, 30)]


@pytest.mark.parametrize("missed", list(MissedTick))
@pytest.mark.parametrize("align", list(Align))
def test_no_window_is_missed(missed: MissedTick, align: Align) -> None:
    context, _, _ = (
        ContextBuilder(lambda: [1.0])
        .with_task(mean)
        .with_interval(FIVE)
        .with_config(
            RunnerConfig(
                missed_tick=missed,
                align=align,
                grace=TaskInterval.seconds(7),
                window=TaskInterval.seconds(10),
            )
        )
        .with_channel(capacity=1, overflow=Overflow.DROP_NEWEST)
        .build()
    )
    seen: list[Window] = []
    datasets = run_windows(context, 50, start=1_002, before=seen.append)
    first = 1_005 if align is Align.EPOCH else 1_007
    windows = [Window(end - 10, end) for end in range(first, first + 250, 5)]
    assert [dataset.window for dataset in datasets] == seen == windows


def test_rows_enter_a_series_window_by_window() -> None:
    series = TimeSeries({"price": float}, unit=TimeUnit.SECONDS)
    context, _, _ = (
        ContextBuilder(series).with_task(rows).with_interval(TaskInterval.seconds(2)).build()
    )

    def feed(window: Window) -> None:
        for timestamp in range(window.start, window.end):
            series.append(timestamp, price=1.0)

    assert [dataset[rows] for dataset in run_windows(context, 3, before=feed)] == [2, 2, 2]


def fails(data: list[float], start: int, end: int) -> float:
    raise ValueError("no good")


def failing(on_error: OnError) -> Context[list[float], float]:
    context, _, _ = (
        ContextBuilder(list[float])
        .with_task(task(fails))
        .with_config(RunnerConfig(on_error=on_error))
        .build()
    )
    return context


def test_a_task_that_fails_is_clear_from_its_dataset() -> None:
    first, second = run_windows(failing(OnError.RECORD), 2)
    assert second.errors.keys() == {"fails"}
    with pytest.raises(KeyError, match="ValueError: no good") as raised:
        first["fails"]
    assert raised.value.__cause__ is first.errors["fails"]


def test_a_task_that_fails_is_raised_where_the_config_says_so() -> None:
    with pytest.raises(TaskError, match=r"'fails' gave no result for \[1970-.*:05Z\): ValueError"):
        run_windows(failing(OnError.RAISE), 2)


def test_a_task_that_hangs_is_named() -> None:
    let_go = threading.Event()

    @task
    def hangs(data: list[float], start: int, end: int) -> None:
        let_go.wait()

    context, _, _ = (
        ContextBuilder(list[float])
        .with_task(hangs)
        .with_config(RunnerConfig(shutdown_timeout=0.05))
        .build()
    )
    with pytest.raises(TimeoutError, match=r"ends at 5 was not done within 0\.05 s") as raised:
        run_windows(context, 1, timeout=0.05)
    let_go.set()
    eventually(lambda: not any(t.name.startswith("run-task") for t in threading.enumerate()))
    assert "still running: 'hangs'" in raised.value.__notes__[0]


def test_what_goes_wrong_between_windows_is_raised() -> None:
    def before(window: Window) -> None:
        if window.start:
            raise OSError("no feed")

    context, _, _ = ContextBuilder(lambda: [1.0]).with_task(mean).build()
    with pytest.raises(OSError, match="no feed"):
        run_windows(context, 2, before=before)


@pytest.mark.parametrize("n", [0, -1, 1.0, True, "3"])
def test_a_number_of_windows_that_cannot_be_is_refused(n: Any) -> None:
    context, _, _ = ContextBuilder(lambda: [1.0]).with_task(mean).build()
    with pytest.raises(ConfigError, match=rf"n={n!r}.*positive int"):
        run_windows(context, n)


def test_a_start_that_cannot_be_is_refused() -> None:
    context, _, _ = ContextBuilder(lambda: [1.0]).with_task(mean).build()
    start: Any = 1.5
    with pytest.raises(ConfigError, match=r"start=1\.5\): it is an int, in seconds"):
        run_windows(context, 1, start=start)


def test_types_flow_through() -> None:
    context, receiver, _ = ContextBuilder(lambda: [1.0]).with_task(mean).build()
    datasets: list[DataSet[float]] = run_windows(context, 1)
    typed: Receiver[DataSet[float]] = receiver
    assert (len(datasets), len(typed)) == (1, 0)


def test_the_library_itself_does_not_import_it() -> None:
    script = "import sys, run_task; print({'run_task.testing', 'pytest'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


THEIRS = """
import pytest
from run_task import ContextBuilder, Runner, RunnerConfig, TaskInterval, task
from run_task.testing import VirtualClock, run_windows

@task
def count(data, start, end):
    return len(data)

def context(executor="inline"):
    config = RunnerConfig(name="theirs", executor=executor, workers=1)
    made, receiver, _ = ContextBuilder(list).with_task(count).with_config(config).build()
    return made, receiver

def test_clock(virtual_clock, nothing_left_running):
    assert type(virtual_clock) is VirtualClock and virtual_clock.time_ns() == 0
    made, receiver = context("processes")
    with Runner(made, clock=virtual_clock):
        virtual_clock.advance(TaskInterval.seconds(5))
        assert receiver.recv(30)[count] == 0

@pytest.fixture
def left(virtual_clock):
    made, receiver = context()
    runner = Runner(made, clock=virtual_clock)
    runner.start()
    return runner

def test_before(left, nothing_left_running):
    pass  # it was there before

def test_thread(nothing_left_running, left):
    pass

def test_process(nothing_left_running, virtual_clock):
    made, receiver = context("processes")
    runner = Runner(made, clock=virtual_clock)
    runner.start()
    virtual_clock.advance(TaskInterval.seconds(5))
    receiver.recv(30)

def test_nobody_asks(left):
    pass
"""


def test_fixtures_come_by_the_entry_point(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(THEIRS)
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:asyncio")
    done.assert_outcomes(passed=5, errors=2)
    told = done.stdout.str()
    assert "still running after the test: runner 'theirs'" in told
    assert "still running after the test: process 'worker " in told
    assert "in a with block" in told


def test_a_fixture_is_a_new_clock(virtual_clock: VirtualClock) -> None:
    virtual_clock.advance(FIVE)
    assert virtual_clock.time_ns() == 5 * 10**9
