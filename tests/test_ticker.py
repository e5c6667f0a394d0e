from __future__ import annotations

import logging
from functools import partial

import pytest
from tests.support.threads import PATIENCE, beside, eventually

from run_task import (
    Align,
    MissedTick,
    RunnerConfig,
    SystemClock,
    TaskInterval,
    VirtualClock,
    Window,
)
from run_task._window import Due
from run_task.runner._ticker import Ticker
from run_task.sync._alarm import Alarm

SECOND = TaskInterval.seconds(1)
HOUR_NS = 3_600 * 10**9


def due(ticker: Ticker, count: int) -> list[Window]:
    """The next windows, so many, which are due now."""
    windows: list[Window] = []
    for _ in range(count):
        window = ticker.next()
        assert window is not None
        windows.append(Window(*window[:2]))
    return windows


def test_windows_lie_on_the_grid_of_the_epoch() -> None:
    clock = VirtualClock(start_ns=12_300_000_000)
    ticker = Ticker(TaskInterval.seconds(5), RunnerConfig(), clock)
    with beside(ticker.next) as first:
        clock.advance(TaskInterval.millis(2_500))
        clock.advance(TaskInterval.millis(250))
    assert first.result() == (10, 15, 50_000_000)


def test_windows_may_begin_with_the_runner() -> None:
    clock = VirtualClock(start_ns=12_300_000_000)
    ticker = Ticker(TaskInterval.millis(500), RunnerConfig(align=Align.START), clock)
    clock.advance(SECOND)
    assert due(ticker, 2) == [Window(12_300, 12_800), Window(12_800, 13_300)]


def test_a_runner_that_starts_on_the_grid_begins_with_the_next_window() -> None:
    clock = VirtualClock(start_ns=10 * 10**9)
    ticker = Ticker(SECOND, RunnerConfig(), clock)
    clock.advance(SECOND)
    assert due(ticker, 1) == [Window(10, 11)]


def test_minutes_count_minutes_since_the_epoch() -> None:
    clock = VirtualClock(start_ns=1_700_000_000 * 10**9)
    ticker = Ticker(TaskInterval.minutes(15), RunnerConfig(), clock)
    clock.advance(TaskInterval.minutes(15))
    assert due(ticker, 1) == [Window(28_333_320, 28_333_335)]
    assert 28_333_335 % 15 == 0
    assert 28_333_335 * 60 - 1_700_000_000 <= 15 * 60


def test_sliding_windows_overlap_and_end_on_the_grid() -> None:
    clock = VirtualClock()
    config = RunnerConfig(window=TaskInterval.minutes(1))
    ticker = Ticker(TaskInterval.seconds(10), config, clock)
    clock.advance(TaskInterval.seconds(20))
    assert due(ticker, 2) == [Window(-50, 10), Window(-40, 20)]


def test_sliding_windows_that_are_coalesced_cover_all() -> None:
    clock = VirtualClock()
    config = RunnerConfig(window=TaskInterval.minutes(1), missed_tick=MissedTick.COALESCE)
    ticker = Ticker(TaskInterval.seconds(10), config, clock)
    clock.advance(TaskInterval.seconds(30))
    assert due(ticker, 1) == [Window(-50, 30)]


def test_grace_puts_the_tick_off_and_not_the_window() -> None:
    clock = VirtualClock()
    ticker = Ticker(SECOND, RunnerConfig(grace=TaskInterval.millis(300)), clock)
    with beside(ticker.next) as first:
        clock.advance(TaskInterval.millis(1_299))
        assert not first.done()
        clock.advance(TaskInterval.millis(11))
    assert first.result() == (0, 1, 10_000_000)


def test_a_wall_clock_set_back_yields_no_window_twice_and_stalls_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = VirtualClock(start_ns=2 * HOUR_NS)
    ticker = Ticker(SECOND, RunnerConfig(), clock)
    clock.advance(SECOND)
    first = due(ticker, 1)
    with caplog.at_level(logging.WARNING, "run_task"):
        clock.step(-HOUR_NS)
        with beside(partial(due, ticker, 1)) as second:
            eventually(lambda: caplog.records)
            clock.advance(SECOND)
        with beside(partial(due, ticker, 1)) as third:
            clock.advance(SECOND)
    assert [*first, *second.result(), *third.result()] == [
        Window(7200, 7201),
        Window(7201, 7202),
        Window(7202, 7203),
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "the wall clock was set back by 3600.000 s; windows go on from where they were"
    ]
    clock.step(HOUR_NS)  # set right again: nothing is missed
    clock.advance(SECOND)
    assert due(ticker, 1) == [Window(7203, 7204)]


@pytest.mark.parametrize(
    ("missed", "ends", "skipped"),
    [
        (MissedTick.BURST, [60, 120, 180, 240], 0),
        (MissedTick.SKIP, [60, 300], 3),
        (MissedTick.COALESCE, [240, 300], 0),
        (MissedTick.DELAY, [60, 120], 0),
    ],
)
def test_a_wall_clock_set_forward_follows_missed_tick(
    missed: MissedTick, ends: list[int], skipped: int
) -> None:
    clock = VirtualClock()
    ticker = Ticker(TaskInterval.minutes(1), RunnerConfig(missed_tick=missed), clock)
    clock.step(240 * 10**9)
    windows = due(ticker, 1)
    clock.advance(TaskInterval.minutes(1))
    windows += due(ticker, len(ends) - 1)
    assert [end * 60 for _, end in windows] == ends
    assert ticker.skipped == skipped


def test_a_forward_step_is_noticed_while_waiting() -> None:
    clock = VirtualClock()
    ticker = Ticker(TaskInterval.minutes(60), RunnerConfig(), clock)
    with beside(ticker.next) as first:
        clock.step(HOUR_NS)
    assert first.result() == (0, 60, 0)


def test_a_forward_step_is_noticed_at_the_moment_before_a_wait() -> None:
    class Stepped(VirtualClock):
        """Is set just before a wait, when the ticker has looked at it."""

        steps = 2

        def wait(self, alarm: Alarm, until_ns: int) -> None:
            if self.steps:
                self.steps -= 1
                self.step(10**9)
            super().wait(alarm, until_ns)

    ticker = Ticker(SECOND, RunnerConfig(), Stepped())
    with beside(partial(due, ticker, 2)) as windows:
        try:
            assert windows.result(PATIENCE) == [Window(0, 1), Window(1, 2)]
        finally:
            ticker.stop()  # or else it would wait for ever


def test_stopping_ends_the_wait() -> None:
    ticker = Ticker(TaskInterval.minutes(60), RunnerConfig(), SystemClock())
    with beside(ticker.next) as none:
        ticker.stop()
    assert none.result() is None
    assert ticker.next() is None


def test_the_system_clock_waits_and_can_be_woken() -> None:
    clock, alarm = SystemClock(), Alarm()
    before = clock.monotonic_ns()
    clock.wait(alarm, before + 5_000_000)
    assert clock.monotonic_ns() - before >= 4_900_000
    alarm.ring()
    alarm.ring()
    before = clock.monotonic_ns()
    clock.wait(alarm, before + int(PATIENCE * 1e9))
    assert clock.monotonic_ns() - before < PATIENCE * 1e9 / 2
    assert abs(clock.time_ns() - SystemClock().time_ns()) < PATIENCE * 1e9


@pytest.mark.usefixtures("switching")
def test_a_clock_that_moves_while_the_ticker_begins_to_wait_is_not_missed() -> None:
    clock = VirtualClock()
    ticker = Ticker(SECOND, RunnerConfig(), clock)

    windows: list[Due | None] = []

    def reached(second: int) -> bool:
        return len(windows) > second

    def tick() -> None:
        while len(windows) < 500:
            windows.append(ticker.next())

    with beside(tick):
        for second in range(500):
            clock.advance(SECOND)
            eventually(partial(reached, second))
    assert windows == [(end - 1, end, 0) for end in range(1, 501)]


def test_windows_may_begin_in_the_past_and_end_with_one_that_holds_a_time() -> None:
    clock = VirtualClock(start_ns=100 * 10**9)
    ticker = Ticker(TaskInterval.seconds(2), RunnerConfig(), clock, since_ns=91 * 10**9)
    assert ticker.first_end_ns == ticker.next_end_ns == 92 * 10**9
    assert due(ticker, 2) == [Window(90, 92), Window(92, 94)]
    assert ticker.next_end_ns == 96 * 10**9
    ticker.finish(97 * 10**9)
    assert due(ticker, 2) == [Window(94, 96), Window(96, 98)]
    assert ticker.next() is None


def test_a_finish_ends_a_wait() -> None:
    ticker = Ticker(SECOND, RunnerConfig(), VirtualClock())
    with beside(ticker.next) as waiting:
        ticker.finish(-1)
        assert waiting.result(PATIENCE) is None


def test_next_due_is_after_the_grace() -> None:
    config = RunnerConfig(grace=TaskInterval.seconds(3))
    ticker = Ticker(SECOND, config, VirtualClock(), since_ns=0)
    assert (ticker.next_end_ns, ticker.next_due_ns) == (10**9, 4 * 10**9)


def test_the_virtual_clock_is_advanced_to_a_time_and_not_back() -> None:
    clock = VirtualClock(start_ns=5)
    clock.advance_to(12)
    clock.advance_to(7)
    assert (clock.time_ns(), clock.monotonic_ns()) == (12, 7)


class Hasty(VirtualClock):
    """A clock that runs so fast that much passes between any two looks at it."""

    def time_ns(self) -> int:
        self.advance(TaskInterval.seconds(20))
        return super().time_ns()

    def monotonic_ns(self) -> int:
        self.advance(TaskInterval.seconds(20))
        return super().monotonic_ns()


def test_a_clock_that_is_fast_was_not_set(caplog: pytest.LogCaptureFixture) -> None:
    ticker = Ticker(TaskInterval.seconds(100), RunnerConfig(), Hasty(10**18))
    assert len(due(ticker, 50)) == 50
    assert caplog.text == ""
