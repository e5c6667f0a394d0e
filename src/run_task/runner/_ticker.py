"""The schedule in real time: waits for each window, and hands it out."""

from __future__ import annotations

from typing import Final

from run_task._window import Due
from run_task.observe._log import Log
from run_task.runner._config import Align, RunnerConfig
from run_task.sync._alarm import Alarm
from run_task.time._clock import Clock
from run_task.time._interval import TaskInterval
from run_task.time._schedule import MissedTick, Schedule

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
    :param since_ns: the first window is the one that holds this time, in nanoseconds since the
        Unix epoch; None: now
    """

    def __init__(
        self,
        interval: TaskInterval,
        config: RunnerConfig,
        clock: Clock,
        since_ns: int | None = None,
    ) -> None:
        self._log = Log(__name__, config.name)
        self._clock = clock
        self._monotonic_ns = clock.monotonic_ns
        self._alarm = Alarm()
        self._stopped = False
        self._last_ns: int | None = None  # the last window is the one that holds this time
        self._ending = False  # whether there is one, or it is stopped
        self._unit_ns = interval.unit.nanos
        self._grace_ns = config.grace_ns
        # The largest difference of wall and monotonic clock that has been seen, less the grace.
        # The wall clock is always read first: a thread that is put aside between the two reads
        # sees too small a difference, never one that would push time forward.
        before_ns = clock.monotonic_ns()
        wall_ns = clock.time_ns()
        after_ns = clock.monotonic_ns()
        self._offset_ns = wall_ns - self._grace_ns - after_ns
        self._unsure_ns = after_ns - before_ns  # by how much it may be too small
        self._stepped_back = False
        self._period = period = interval.count
        self._length = config.window.nanos // self._unit_ns if config.window is not None else period
        if since_ns is None:
            since_ns = clock.monotonic_ns() + self._offset_ns + self._grace_ns
        now = since_ns // self._unit_ns
        first = now + period if config.align is Align.START else (now // period + 1) * period
        self.first_end_ns: int = first * self._unit_ns
        """The end of the first window, in nanoseconds since the Unix epoch."""
        self._schedule = Schedule(period, first, config.missed_tick)
        self._bursts = config.missed_tick is MissedTick.BURST
        self._end = first  # of the next window
        self._period_ns = period * self._unit_ns
        self._due_ns = self._next_due()  # by the monotonic clock

    @property
    def skipped(self) -> int:
        """How many windows were left out, by ``MissedTick.SKIP``."""
        return self._schedule.skipped

    def next(self) -> Due | None:
        """Wait for the next window; None if there are no more.

        It is late from the moment on that its grace is over.
        """
        while not (self._ending and self._is_over()):
            # The wall clock is looked at only before waiting: a window that is due by the
            # monotonic clock is due, wherever the wall clock has stepped.
            late_ns = self._monotonic_ns() - self._due_ns
            if late_ns >= 0:
                if not self._bursts:
                    return self._poll(late_ns)
                # All are handed out, one after another, however late they are: there is nothing
                # to ask the schedule for.
                end = self._end
                self._end = end + self._period
                self._due_ns += self._period_ns
                return end - self._length, end, late_ns
            if not self._follow_wall_clock():
                self._clock.wait(self._alarm, self._due_ns + min(0, late_ns + _LOOK_AGAIN_NS))
        return None

    def _poll(self, late_ns: int) -> Due:
        """The window that the schedule hands out so long after it fell due."""
        now_ns = self._due_ns + late_ns
        window = self._schedule.poll(self._schedule.deadline + late_ns // self._unit_ns)
        assert window is not None
        start, end = window
        self._end = self._schedule.end
        self._due_ns = self._next_due()
        late_ns = now_ns + self._offset_ns - end * self._unit_ns
        return start + self._period - self._length, end, late_ns

    def _next_due(self) -> int:
        """When the monotonic clock will say that the next window is due."""
        return self._schedule.deadline * self._unit_ns - self._offset_ns

    @property
    def next_end_ns(self) -> int:
        """The end of the next window, in nanoseconds since the Unix epoch."""
        return self._end * self._unit_ns

    @property
    def next_due_ns(self) -> int:
        """When that window is handed out: after its grace."""
        return self.next_end_ns + self._grace_ns

    def stop(self) -> None:
        """Hand out no more windows. Safe in a signal handler."""
        self._stopped = self._ending = True
        self._alarm.ring()

    def finish(self, last_ns: int) -> None:
        """Hand out the windows up to the one that holds this time, and then no more.

        :param last_ns: the time, in nanoseconds since the Unix epoch
        """
        self._last_ns = last_ns
        self._ending = True
        self._alarm.ring()

    def _is_over(self) -> bool:
        start_ns = (self._end - self._period) * self._unit_ns
        return self._stopped or (self._last_ns is not None and start_ns > self._last_ns)

    def _follow_wall_clock(self) -> bool:
        """Move on to where the wall clock is, if it is ahead; returns whether it was."""
        before_ns = self._clock.monotonic_ns()
        wall_ns = self._clock.time_ns() - self._grace_ns
        after_ns = self._clock.monotonic_ns()
        step_ns = wall_ns - after_ns - self._offset_ns
        unsure_ns = after_ns - before_ns  # long, if this thread was put aside in between
        if step_ns > 0:
            self._offset_ns += step_ns
            self._due_ns -= step_ns
            self._stepped_back = False
            if step_ns >= _NOTICE_NS + self._unsure_ns:
                self._log.warning("the wall clock was set forward by %.3f s", step_ns / 1e9)
            self._unsure_ns = unsure_ns
        elif step_ns + unsure_ns <= -_NOTICE_NS and not self._stepped_back:
            self._stepped_back = True
            self._log.warning(
                "the wall clock was set back by %.3f s; windows go on from where they were",
                -step_ns / 1e9,
            )
        return step_ns > 0
