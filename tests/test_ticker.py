from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from queue import Queue
from typing import TypeAlias

import pytest
from tests.support.threads import PATIENCE, beside, eventually

from run_task import (
    Align,
    Clock,
    MissedTick,
    RunnerConfig,
    SystemClock,
    TaskInterval,
    VirtualClock,
    Window,
)
from run_task._window import Due
from run_task.observe._log import Log
from run_task.runner._scheduler import scheduler_of
from run_task.runner._ticker import Ticker
from run_task.runner._timeline import Timeline
from run_task.sync._alarm import Alarm

SECOND = TaskInterval.seconds(1)
HOUR_NS = 3_600 * 10**9


class Ticking:
    """A ticker whose windows are waited for by a scheduler, one at a time."""

    name = "of a test"

    def __init__(
        self,
        interval: TaskInterval,
        config: RunnerConfig,
        clock: Clock,
        since_ns: int | None = None,
    ) -> None:
        timeline = Timeline(clock, Log("run_task.runner"))
        self.ticker = Ticker(interval, config, timeline, since_ns)
        self._windows: Queue[Due | None] = Queue()
        self._wanted = 0
        self._scheduler = scheduler_of(clock)
        self._entry = self._scheduler.add(self)

    def activate(self) -> None:
        if not self._wanted:
            return
        due = self.ticker.poll()
        if due is not None or self.ticker.over:
            self._wanted -= 1
            self._windows.put(due)
        if self._wanted:
            self._put()

    def _put(self) -> None:
        due_ns = 0 if self.ticker.over else self.ticker.follow()
        self._scheduler.put(self._entry, due_ns)

    def follow_clock(self) -> int:
        self.ticker.timeline.follow()
        return self.ticker.follow()

    def lose_clock(self, error: BaseException) -> None:
        raise AssertionError from error

    def next(self) -> Due | None:
        """Wait for the next window; None: there are no more."""
        self.ticker.timeline.follow()
        self._wanted += 1
        self._put()
        return self._windows.get(timeout=PATIENCE)

    def stop(self) -> None:
        self.ticker.stop()
        self._scheduler.wake(self._entry)

    def finish(self, last_ns: int, *, at_once: bool = False) -> None:
        self.ticker.finish(last_ns, at_once=at_once)
        self._scheduler.wake(self._entry)

    def close(self) -> None:
        self._scheduler.remove(self._entry)
        self._scheduler.settle()


Start: TypeAlias = Callable[..., Ticking]


@pytest.fixture
def start() -> Iterator[Start]:
    """Makes tickers, and ends them."""
    made: list[Ticking] = []

    def make(
        interval: TaskInterval, config: RunnerConfig, clock: Clock, since_ns: int | None = None
    ) -> Ticking:
        made.append(Ticking(interval, config, clock, since_ns))
        return made[-1]

    yield make
    for ticking in made:
        ticking.close()


def due(ticker: Ticking, count: int) -> list[Window]:
    """The next windows, so many, which are due now."""
    windows: list[Window] = []
    for _ in range(count):
        window = ticker.next()
        assert window is not None
        windows.append(Window(*window[:2]))
    return windows


def test_windows_lie_on_the_grid_of_the_epoch(start: Start) -> None:
    clock = VirtualClock(start_ns=12_300_000_000)
    ticker = start(TaskInterval.seconds(5), RunnerConfig(), clock)
    with beside(ticker.next) as first:
        clock.advance(TaskInterval.millis(2_500))
        clock.advance(TaskInterval.millis(250))
    assert first.result() == (10, 15, 50_000_000)


def test_windows_may_begin_with_the_runner(start: Start) -> None:
    clock = VirtualClock(start_ns=12_300_000_000)
    ticker = start(TaskInterval.millis(500), RunnerConfig(align=Align.START), clock)
    clock.advance(SECOND)
    assert due(ticker, 2) == [Window(12_300, 12_800), Window(12_800, 13_300)]


def test_a_runner_that_starts_on_the_grid_begins_with_the_next_window(start: Start) -> None:
    clock = VirtualClock(start_ns=10 * 10**9)
    ticker = start(SECOND, RunnerConfig(), clock)
    clock.advance(SECOND)
    assert due(ticker, 1) == [Window(10, 11)]


def test_minutes_count_minutes_since_the_epoch(start: Start) -> None:
    clock = VirtualClock(start_ns=1_700_000_000 * 10**9)
    ticker = start(TaskInterval.minutes(15), RunnerConfig(), clock)
    clock.advance(TaskInterval.minutes(15))
    assert due(ticker, 1) == [Window(28_333_320, 28_333_335)]
    assert 28_333_335 % 15 == 0
    assert 28_333_335 * 60 - 1_700_000_000 <= 15 * 60


def test_sliding_windows_overlap_and_end_on_the_grid(start: Start) -> None:
    clock = VirtualClock()
    config = RunnerConfig(window=TaskInterval.minutes(1))
    ticker = start(TaskInterval.seconds(10), config, clock)
    clock.advance(TaskInterval.seconds(20))
    assert due(ticker, 2) == [Window(-50, 10), Window(-40, 20)]


def test_sliding_windows_that_are_coalesced_cover_all(start: Start) -> None:
    clock = VirtualClock()
    config = RunnerConfig(window=TaskInterval.minutes(1), missed_tick=MissedTick.COALESCE)
    ticker = start(TaskInterval.seconds(10), config, clock)
    clock.advance(TaskInterval.seconds(30))
    assert due(ticker, 1) == [Window(-50, 30)]


def test_grace_puts_the_tick_off_and_not_the_window(start: Start) -> None:
    clock = VirtualClock()
    ticker = start(SECOND, RunnerConfig(grace=TaskInterval.millis(300)), clock)
    with beside(ticker.next) as first:
        clock.advance(TaskInterval.millis(1_299))
        assert not first.done()
        clock.advance(TaskInterval.millis(11))
    assert first.result() == (0, 1, 10_000_000)


def test_a_wall_clock_set_back_yields_no_window_twice_and_stalls_none(
    start: Start,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = VirtualClock(start_ns=2 * HOUR_NS)
    ticker = start(SECOND, RunnerConfig(), clock)
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
        (
            "the wall clock was set back by 3600.000 s; windows go on from where they were, and "
            "hold rows that are stamped by it again once it says 1970-01-01T02:00:01Z"
        )
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
    start: Start, missed: MissedTick, ends: list[int], skipped: int
) -> None:
    clock = VirtualClock()
    ticker = start(TaskInterval.minutes(1), RunnerConfig(missed_tick=missed), clock)
    clock.step(240 * 10**9)
    windows = due(ticker, 1)
    clock.advance(TaskInterval.minutes(1))
    windows += due(ticker, len(ends) - 1)
    assert [end * 60 for _, end in windows] == ends
    assert ticker.ticker.skipped == skipped


def test_a_forward_step_is_noticed_while_waiting(start: Start) -> None:
    clock = VirtualClock()
    ticker = start(TaskInterval.minutes(60), RunnerConfig(), clock)
    with beside(ticker.next) as first:
        clock.step(HOUR_NS)
    assert first.result() == (0, 60, 0)


def test_a_forward_step_is_noticed_at_the_moment_before_a_wait(start: Start) -> None:
    class Stepped(VirtualClock):
        """Is set just before a wait, when the ticker has looked at it."""

        steps = 2

        def wait(self, alarm: Alarm, until_ns: int) -> None:
            if self.steps:
                self.steps -= 1
                self.step(10**9)
            super().wait(alarm, until_ns)

    ticker = start(SECOND, RunnerConfig(), Stepped())
    with beside(partial(due, ticker, 2)) as windows:
        try:
            assert windows.result(PATIENCE) == [Window(0, 1), Window(1, 2)]
        finally:
            ticker.stop()  # or else it would wait forever


def test_stopping_ends_the_wait(start: Start) -> None:
    ticker = start(TaskInterval.minutes(60), RunnerConfig(), SystemClock())
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
def test_a_clock_that_moves_while_the_ticker_begins_to_wait_is_not_missed(start: Start) -> None:
    clock = VirtualClock()
    ticker = start(SECOND, RunnerConfig(), clock)

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


def test_windows_may_begin_in_the_past_and_end_by_a_time(start: Start) -> None:
    clock = VirtualClock(start_ns=100 * 10**9)
    ticker = start(TaskInterval.seconds(2), RunnerConfig(), clock, since_ns=91 * 10**9)
    assert ticker.ticker.first_end_ns == ticker.ticker.next_end_ns == 92 * 10**9
    assert due(ticker, 2) == [Window(90, 92), Window(92, 94)]
    assert ticker.ticker.next_end_ns == 96 * 10**9
    ticker.finish(98 * 10**9)
    assert due(ticker, 2) == [Window(94, 96), Window(96, 98)]
    assert ticker.next() is None


def test_a_finish_ends_a_wait(start: Start) -> None:
    ticker = start(SECOND, RunnerConfig(), VirtualClock())
    with beside(ticker.next) as waiting:
        ticker.finish(-1)
        assert waiting.result(PATIENCE) is None


@pytest.mark.parametrize("missed", MissedTick)
def test_what_is_left_may_be_given_before_it_is_due(start: Start, missed: MissedTick) -> None:
    ticker = start(SECOND, RunnerConfig(missed_tick=missed), VirtualClock(start_ns=10**9))
    ticker.finish(5 * 10**9, at_once=True)
    assert [ticker.next() for _ in range(5)] == [
        *((end - 1, end, 0) for end in range(2, 6)),
        None,
    ]


def test_next_due_is_after_the_grace(start: Start) -> None:
    config = RunnerConfig(grace=TaskInterval.seconds(3))
    ticker = start(SECOND, config, VirtualClock(), since_ns=0)
    assert (ticker.ticker.next_end_ns, ticker.ticker.follow()) == (10**9, 4 * 10**9)


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


def test_a_clock_that_is_fast_was_not_set(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    ticker = start(TaskInterval.seconds(100), RunnerConfig(), Hasty(10**18))
    assert len(due(ticker, 50)) == 50
    assert caplog.text == ""
