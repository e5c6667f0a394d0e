"""The schedule in real time: waits for each window, and hands it out."""

from __future__ import annotations

import logging
from typing import Final

from run_task.alarm import Alarm
from run_task.clock import Clock
from run_task.config import Align, RunnerConfig
from run_task.interval import TaskInterval, Window
from run_task.schedule import Schedule

_logger = logging.getLogger(__name__)

_NOTICE_NS: Final = 1_000_000_000
"""From how many nanoseconds on a step of the wall clock is worth a line in the log."""

_LOOK_AGAIN_NS: Final = 1_000_000_000
"""The longest wait at a time, so that a step of the wall clock is noticed before long."""


class Ticker:
    """Waits for windows to fall due, by a time that never goes back.

    Its time is the wall clock's, carried on by the monotonic clock. When the wall clock steps
    forward, it follows, and windows are overdue. When the wall clock steps back, it goes on as if
    nothing had happened, and so runs ahead until the wall clock has caught up: so no window is
    handed out twice, and none has to wait for an hour to pass again.

    :param interval: how often a window falls due, and the unit of its start and end
    :param config: what of it concerns windows: missed_tick, window, grace and align
    :param clock: where to read the time
    """

    def __init__(self, interval: TaskInterval, config: RunnerConfig, clock: Clock) -> None:
        self._clock = clock
        self._alarm = Alarm()
        self._stopped = False
        # The largest difference of wall and monotonic clock that has been seen. The wall clock is
        # always read first: a thread that is put aside between the two reads sees too small a
        # difference, never one that would push time forward.
        self._offset_ns = clock.time_ns() - clock.monotonic_ns()
        self._stepped_back = False
        self._monotonic_ns = 0  # the latest reading
        self._unit_ns = interval.unit.nanos
        self._grace_ns = config.grace.nanos if config.grace is not None else 0
        period = interval.count
        length = config.window.nanos // self._unit_ns if config.window is not None else period
        self._before = length - period  # by how much a window starts before the last one's end
        now = self._now_ns() // self._unit_ns
        first = now + period if config.align is Align.START else (now // period + 1) * period
        self._schedule = Schedule(period, first, config.missed_tick)
        self.lateness: float = 0.0
        """How long after its end and grace the last window was handed out, in seconds."""

    @property
    def skipped(self) -> int:
        """How many windows were left out, by ``MissedTick.SKIP``."""
        return self._schedule.skipped

    def next(self) -> Window | None:
        """Wait for the next window; None once the ticker was stopped."""
        while not self._stopped:
            now_ns = self._now_ns() - self._grace_ns
            window = self._schedule.poll(now_ns // self._unit_ns)
            if window is not None:
                self.lateness = (now_ns - window.end * self._unit_ns) / 1e9
                return Window(window.start - self._before, window.end) if self._before else window
            remaining_ns = self._schedule.deadline * self._unit_ns - now_ns
            self._clock.wait(self._alarm, self._monotonic_ns + min(remaining_ns, _LOOK_AGAIN_NS))
        return None

    def stop(self) -> None:
        """Hand out no more windows. Safe in a signal handler."""
        self._stopped = True
        self._alarm.ring()

    def _now_ns(self) -> int:
        wall = self._clock.time_ns()
        self._monotonic_ns = monotonic = self._clock.monotonic_ns()
        step = wall - monotonic - self._offset_ns
        if step > 0:
            self._offset_ns += step
            self._stepped_back = False
            if step >= _NOTICE_NS:
                _logger.warning("the wall clock was set forward by %.3f s", step / 1e9)
        elif step <= -_NOTICE_NS and not self._stepped_back:
            self._stepped_back = True
            _logger.warning(
                "the wall clock was set back by %.3f s; windows go on from where they were",
                -step / 1e9,
            )
        return monotonic + self._offset_ns
