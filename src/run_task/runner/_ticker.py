"""A runner's schedule in real time: which window is due now, and when the next one is."""

from __future__ import annotations

import math
from typing import Final

from run_task._window import Due
from run_task.runner._config import Align, RunnerConfig
from run_task.runner._timeline import Timeline
from run_task.time._interval import TaskInterval
from run_task.time._schedule import MissedTick, Schedule


def first_end(period: int, align: Align, now: int) -> int:
    """The end of the first window, which holds a time, in any one unit.

    :param period: how long a window is
    :param align: where windows begin
    :param now: the time
    """
    return now + period if align is Align.START else (now // period + 1) * period


class Ticker:
    """Hands out windows as they fall due by a timeline. It does not wait.

    :param interval: how often a window falls due, and the unit of its start and end
    :param config: what of it concerns windows: missed_tick, window, grace and align
    :param timeline: the time
    :param since_ns: the first window is the one that holds this time, in nanoseconds since the
        Unix epoch; None: now
    """

    def __init__(
        self,
        interval: TaskInterval,
        config: RunnerConfig,
        timeline: Timeline,
        since_ns: int | None = None,
    ) -> None:
        self.timeline: Final = timeline
        self._monotonic_ns = timeline.clock.monotonic_ns
        self._stopped = self._may_be_over = False
        self._last_ns: float = math.inf  # the last window is the one that holds this time
        self._unit_ns = interval.unit.nanos
        self._grace_ns = config.grace_ns
        self._period = period = interval.count
        self._length = config.window.nanos // self._unit_ns if config.window is not None else period
        now = (timeline.now_ns if since_ns is None else since_ns) // self._unit_ns
        first = first_end(period, config.align, now)
        self.first_end_ns: int = first * self._unit_ns
        """The end of the first window, in nanoseconds since the Unix epoch."""
        self._schedule = Schedule(period, first, config.missed_tick)
        self._period_ns = period * self._unit_ns
        # How late a window may be so that the policy for missed ones makes no difference.
        self._plain_ns = (
            math.inf if config.missed_tick is MissedTick.BURST else float(self._period_ns)
        )
        self._offset_ns = timeline.offset_ns - self._grace_ns
        self._due_ns = first * self._unit_ns - self._offset_ns

    @property
    def skipped(self) -> int:
        """How many windows were left out, by ``MissedTick.SKIP``."""
        return self._schedule.skipped

    def follow(self) -> int:
        """Take over a step of the timeline.

        :return: when the monotonic clock will say that the next window is due, in nanoseconds
        """
        offset_ns = self.timeline.offset_ns - self._grace_ns
        if offset_ns != self._offset_ns:
            self._offset_ns = offset_ns
            self._due_ns = self._schedule.deadline * self._unit_ns - offset_ns
        return self._due_ns

    def poll(self) -> Due | None:
        """The window that is due, one a call; None if none is, or there are no more.

        It is late from the moment on that its grace is over.
        """
        due_ns = self._due_ns
        late_ns = self._monotonic_ns() - due_ns
        if late_ns < 0 or (self._may_be_over and self.over):
            return None
        if late_ns < self._plain_ns:
            # Without a multiplication or a division, each of which takes as long as this call.
            end = self._schedule.step()
            self._due_ns = due_ns + self._period_ns
            return end - self._length, end, late_ns
        return self._take_overdue(late_ns)

    def _take_overdue(self, late_ns: int) -> Due:
        """The window that the policy for missed ones gives."""
        unit_ns, schedule = self._unit_ns, self._schedule
        now_ns = self._due_ns + late_ns
        start, end = schedule.take(late_ns // unit_ns)
        start += self._period - self._length
        if schedule.deadline != schedule.end:
            self._plain_ns = 0.0  # from now on, windows are put off
        self._due_ns = schedule.deadline * unit_ns - self._offset_ns
        return start, end, now_ns + self._offset_ns - end * unit_ns

    @property
    def next_end_ns(self) -> int:
        """The end of the next window, in nanoseconds since the Unix epoch."""
        return self._schedule.end * self._unit_ns

    def stop(self) -> None:
        """Hand out no more windows. Safe in a signal handler."""
        self._stopped = self._may_be_over = True

    def finish(self, last_ns: int) -> None:
        """Hand out the windows up to the one that holds this time, and then no more.

        :param last_ns: the time, in nanoseconds since the Unix epoch
        """
        self._last_ns = last_ns
        self._may_be_over = True

    @property
    def over(self) -> bool:
        """Whether there are no more windows."""
        start_ns = self.next_end_ns - self._period * self._unit_ns
        return self._stopped or start_ns > self._last_ns
