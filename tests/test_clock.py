from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from run_task import ConfigError, Pipeline, Runner, SystemClock, TaskInterval, VirtualClock
from run_task.sources import paced, polling
from run_task.sync import Alarm
from run_task.time._clock import check_clock


def test_a_ring_that_comes_together_with_a_move_of_the_clock_is_not_lost() -> None:
    clock = VirtualClock()

    class RingsTogether(Alarm):
        """Wakes once for two rings: that of the clock, and somebody else's."""

        waits = 0

        def wait(self, timeout: float | None = None) -> bool:
            self.waits += 1
            assert self.waits == 1, "who waits has not looked for the other ring"
            clock.advance(TaskInterval.millis(5))
            self.ring()
            return super().wait(timeout)

    alarm = RingsTogether()
    clock.wait(alarm, 10**9)
    assert alarm.waits == 1


def test_what_is_past_is_not_waited_for() -> None:
    clock = VirtualClock()
    clock.advance(TaskInterval.seconds(1))
    clock.wait(Alarm(), clock.monotonic_ns())


def test_a_wait_by_this_machines_clock_ends_after_a_second_to_look_for_a_step_of_it() -> None:
    begun = time.monotonic()
    SystemClock().wait(Alarm(), time.monotonic_ns() + 3_600 * 10**9)
    assert 0.9 < time.monotonic() - begun < 60


@pytest.mark.parametrize("clock", [5, "now", VirtualClock, object()])
def test_what_is_no_clock_is_refused_before_anything_runs(clock: Any) -> None:
    refusals: list[Any] = [
        lambda: check_clock(clock),
        lambda: Pipeline("p", clock=clock),
        lambda: polling(lambda: 1, TaskInterval.seconds(1), clock=clock),
        lambda: paced([(0, 1)], clock=clock),
    ]
    for refused in refusals:
        with pytest.raises(ConfigError, match=r"it is a Clock, such as SystemClock\(\)"):
            refused()


def test_clocks_are_taken() -> None:
    for clock in (SystemClock(), VirtualClock()):
        assert check_clock(clock) is clock


def test_a_virtual_clock_takes_ints_and_intervals() -> None:
    wrong: Any = 1.5
    with pytest.raises(ConfigError, match=r"VirtualClock\(1.5\)"):
        VirtualClock(wrong)
    with pytest.raises(ConfigError, match=r"advance\(1.5\).*TaskInterval.seconds"):
        VirtualClock().advance(wrong)


def test_a_virtual_clock_is_moved_by_texts_and_timedeltas() -> None:
    first = datetime(2024, 7, 1, tzinfo=UTC)
    clock = VirtualClock(first)
    assert clock.time_ns() == 1_719_792_000_000_000_000
    clock.advance_to(first + timedelta(seconds=1))
    assert clock.monotonic_ns() == 10**9
    with pytest.raises(ConfigError, match="no time zone"):
        clock.advance_to(first.replace(tzinfo=None))
    clock = VirtualClock()
    clock.advance("1.5s")
    clock.advance(timedelta(hours=1))
    assert clock.time_ns() == clock.monotonic_ns() == 3_601_500_000_000


def test_a_runner_takes_a_context() -> None:
    wrong: Any = [1]
    with pytest.raises(ConfigError, match=r"Runner\(\[1\]\): it is a Context"):
        Runner(wrong)
