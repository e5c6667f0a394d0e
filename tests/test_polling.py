from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from tests.support.threads import PATIENCE, beside

from run_task import (
    ConfigError,
    Pipeline,
    SourceError,
    SystemClock,
    TaskInterval,
    TimeSeries,
    TimeUnit,
    VirtualClock,
    task,
)
from run_task.sources import OnFault, polling
from run_task.sync._alarm import Alarm

SECOND = TaskInterval.seconds(1)
SECOND_NS = 10**9


class Jumping(VirtualClock):
    """A clock that moves on to the end of each wait, and tells how long it was."""

    def __init__(self, start_ns: int = 0) -> None:
        super().__init__(start_ns)
        self.waits: list[int] = []

    def wait(self, alarm: Alarm, until_ns: int) -> None:
        self.waits.append(until_ns - self.monotonic_ns())
        self.advance(TaskInterval.micros(max(1, self.waits[-1] // 1000)))


@task
def nothing(data: Any, start: int, end: int) -> None:
    pass


def take(rows: Iterator[tuple[int, object]], count: int) -> list[tuple[int, object]]:
    return [next(rows) for _ in range(count)]


def test_it_polls_at_once_and_then_on_the_grid() -> None:
    clock = Jumping(start_ns=12_300_000_000)
    values = iter("abcd")
    source = polling(lambda: next(values), TaskInterval.seconds(5), clock=clock)
    assert source.unit is TimeUnit.SECONDS
    assert take(iter(source), 4) == [(12, "a"), (15, "b"), (20, "c"), (25, "d")]


def test_the_unit_is_the_intervals_or_another_one() -> None:
    clock = Jumping(start_ns=1_500_000_000)
    source = polling(lambda: 1, SECOND, unit=TimeUnit.MILLIS, clock=clock)
    assert [t for t, _ in take(iter(source), 3)] == [1_500, 2_000, 3_000]


def test_a_text_polls_in_the_unit_of_the_data_that_the_rows_enter() -> None:
    clock = Jumping(1_234)
    source = polling(lambda: {"v": 1.0}, "1m", clock=clock)
    assert take(iter(polling(lambda: 1, "1s", clock=clock)), 1) == [(0, 1)]
    assert take(iter(polling(lambda: 1, timedelta(milliseconds=1), clock=clock)), 1) == [(0, 1)]
    assert source.about().unit is None
    series = TimeSeries({"v": float}, TimeUnit.NANOS)
    pipeline = Pipeline().source(source, series)
    pipeline.stage("a", [nothing], series, "1s")
    assert not pipeline.mistakes()
    assert source.about().unit is source.unit is TimeUnit.NANOS
    assert take(iter(source), 1) == [(1_234, {"v": 1.0})]
    other = TimeSeries({"v": float})
    with pytest.raises(ConfigError, match="the source is in seconds, the data is in millis"):
        Pipeline().source(polling(lambda: {"v": 1.0}, SECOND), into=other)
    with pytest.raises(ConfigError, match="in nanos, and not in millis"):
        source.count_in(TimeUnit.MILLIS)


def test_it_does_not_drift_though_each_poll_takes_time() -> None:
    clock = Jumping()

    def slow() -> int:
        clock.advance(TaskInterval.millis(300))
        return 1

    rows = iter(polling(slow, SECOND, unit=TimeUnit.MILLIS, clock=clock))
    assert [t for t, _ in take(rows, 50)] == [1_000 * i for i in range(50)]
    assert clock.waits == [700_000_000] * 49


def test_a_poll_that_takes_too_long_leaves_out_those_that_it_overlaps() -> None:
    clock = Jumping()
    lengths = iter([100, 2_500, 100, 1_000, 100])

    def slow() -> int:
        length = next(lengths)
        clock.advance(TaskInterval.millis(length))
        return length

    source = polling(slow, SECOND, clock=clock)
    assert take(iter(source), 5) == [(0, 100), (1, 2_500), (4, 100), (5, 1_000), (6, 100)]
    assert source.skipped == 2  # the polls of 2 and 3


def test_none_is_nothing_new() -> None:
    values = iter([1, None, None, 4])
    source = polling(lambda: next(values), SECOND, clock=Jumping())
    assert take(iter(source), 2) == [(0, 1), (3, 4)]


def test_a_poll_that_fails_is_counted_logged_and_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    values = iter([1, 0, 2])
    source = polling(lambda: 2 // next(values), SECOND, clock=Jumping())
    with caplog.at_level(logging.WARNING, "run_task"):
        assert take(iter(source), 2) == [(0, 2), (2, 1)]
    assert source.malformed == 1
    assert "it raised ZeroDivisionError: " in caplog.text
    assert "polling(test_a_poll_that_fails" in caplog.text


def test_a_poll_that_fails_can_be_fatal() -> None:
    source = polling(lambda: 1 // 0, SECOND, on_failure=OnFault.RAISE, clock=Jumping())
    with pytest.raises(SourceError, match="it raised ZeroDivisionError") as caught:
        next(iter(source))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_the_wall_clock_may_step() -> None:
    clock = Jumping(start_ns=100 * SECOND_NS)
    steps = iter([0, 0, 3_600_250, 0, -7_200_500, 0, 0])  # in milliseconds

    def step() -> int:
        clock.step(next(steps) * 10**6)
        return 1

    source = polling(step, SECOND, clock=clock)
    times = [t for t, _ in take(iter(source), 7)]
    assert times == [100, 101, 102, 3_703, 3_704, -3_496, -3_495]
    assert max(clock.waits) <= SECOND_NS  # it neither stalls nor hurries to catch up
    assert min(clock.waits) > 0
    assert source.skipped == 0


def test_a_wall_clock_that_lags_a_little_does_not_make_it_poll_twice() -> None:
    clock = Jumping()

    def lag() -> int:
        clock.step(-1_000)  # so that a wait ends before its time by the wall clock
        return 1

    rows = iter(polling(lag, SECOND, unit=TimeUnit.MILLIS, clock=clock))
    assert [t for t, _ in take(rows, 20)] == [1_000 * i for i in range(20)]


@pytest.mark.parametrize("make_clock", [VirtualClock, SystemClock])
def test_a_wait_ends_when_it_is_closed(
    make_clock: Callable[[], VirtualClock | SystemClock],
) -> None:
    source = polling(lambda: 1, TaskInterval.minutes(60), clock=make_clock())
    rows = iter(source)
    next(rows)
    with beside(lambda: list(rows)) as rest:
        source.close()
        assert rest.result(PATIENCE) == []
    assert list(source) == []


def test_by_the_clock_of_this_machine() -> None:
    every = TaskInterval.millis(20)
    times = [t for t, _ in take(iter(polling(lambda: 1, every)), 4)]
    # One for each point of the grid at most, however late the machine is.
    points = [t // 20 for t in times]
    assert points == sorted(set(points))


def test_what_cannot_be_polled_is_refused() -> None:
    with pytest.raises(ConfigError, match="what is polled is a callable"):
        polling(1, SECOND)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType] what is refused

    async def wait() -> int:
        return 1

    with pytest.raises(ConfigError, match="it is async; an async generator"):
        polling(wait, SECOND)
    with pytest.raises(ConfigError, match="every=1: it is a TaskInterval"):
        polling(lambda: 1, 1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType] what is refused
    with pytest.raises(ConfigError, match="None is not one of OnFault"):
        polling(lambda: 1, SECOND, on_failure=None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType] what is refused


def test_it_tells_what_it_polls() -> None:
    def read() -> int:
        return 1

    assert repr(polling(read, SECOND)).endswith(".read)")
