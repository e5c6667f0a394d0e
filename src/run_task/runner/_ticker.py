"""A runner's schedule in real time: which window is due now, and when the next one is."""

from __future__ import annotations

import math
from typing import Final

from run_task._window import Due
from run_task.runner._config import RunnerConfig
from run_task.runner._timeline import Timeline
from run_task.runner._window_grid import FixedWindows, windows_of
from run_task.time._calendar import Interval
from run_task.time._schedule import GridSchedule, MissedTick, Schedule


class Ticker:
    """Hands out windows as they fall due by a timeline. It does not wait.

    :param interval: how often a window falls due, and the unit of its start and end
    :param config: what of it concerns windows: missed_tick, window, grace and align
    :param timeline: the time
    :param since_ns: the first window is the one that holds this time, in nanoseconds since the
        Unix epoch; None: now
    :param first_ns: as of :class:`WindowGrid`
    """

    __slots__ = (
        "_at_once",
        "_before",
        "_due_ns",
        "_grace_ns",
        "_last_ns",
        "_length",
        "_may_be_over",
        "_monotonic_ns",
        "_offset_ns",
        "_period_ns",
        "_plain_ns",
        "_schedule",
        "_stopped",
        "_unit_ns",
        "_windows",
        "first_end_ns",
        "timeline",
    )

    def __init__(
        self,
        interval: Interval,
        config: RunnerConfig,
        timeline: Timeline,
        since_ns: int | None = None,
        first_ns: int | None = None,
    ) -> None:
        self.timeline: Final = timeline
        self._monotonic_ns = timeline.clock.monotonic_ns
        self._stopped = self._may_be_over = False
        self._at_once = False  # it waits for no time any more
        self._last_ns: float = math.inf  # there is no window that ends later
        self._unit_ns = interval.unit.nanos
        self._grace_ns = config.grace_ns
        since_ns = timeline.now_ns if since_ns is None else since_ns
        self._windows = windows = windows_of(
            interval, config.window, config.align, since_ns, first_ns
        )
        self.first_end_ns: int = windows.first_end_ns
        """The end of the first window, in nanoseconds since the Unix epoch."""
        missed = config.missed_tick
        self._schedule: Schedule | GridSchedule
        self._period_ns = self._length = 0
        # What a window has before the period that ends with it, as a negative number.
        self._before = 0
        # How late a window may be so that the policy for missed ones makes no difference.
        self._plain_ns = 0.0
        if isinstance(windows, FixedWindows):
            self._schedule = Schedule(windows.period, windows.first_end, missed)
            self._length = windows.length
            self._before = windows.period - windows.length
            self._period_ns = windows.period * self._unit_ns
            self._plain_ns = math.inf if missed is MissedTick.BURST else float(self._period_ns)
        else:
            self._schedule = GridSchedule(windows.after, windows.start, windows.first_end, missed)
        self._offset_ns = timeline.offset_ns - self._grace_ns
        self._due_ns = windows.first_end_ns - self._offset_ns

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
        return self._monotonic_ns() if self._at_once else self._due_ns

    def poll(self) -> Due | None:
        """The window that is due, one a call; None if none is, or there are no more.

        It is late from the moment on that its grace is over.
        """
        due_ns = self._due_ns
        late_ns = self._monotonic_ns() - due_ns
        if late_ns < 0 or (self._may_be_over and self.over):
            return self._take_early() if self._at_once and not self.over else None
        if late_ns < self._plain_ns:
            # Without a multiplication or a division, each of which takes as long as this call.
            end = self._schedule.step()
            self._due_ns = due_ns + self._period_ns
            return end - self._length, end, late_ns
        return self._take_overdue(late_ns)

    def _take_early(self) -> Due:
        """The next window, before it is due."""
        end = self._schedule.step()
        self._due_ns = self._schedule.deadline * self._unit_ns - self._offset_ns
        return self._windows.start(end), end, 0

    def _take_overdue(self, late_ns: int) -> Due:
        """The window that the policy for missed ones gives."""
        unit_ns, schedule = self._unit_ns, self._schedule
        now_ns = self._due_ns + late_ns
        start, end = schedule.take(late_ns // unit_ns)
        start += self._before
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

    def finish(self, last_ns: float, *, at_once: bool) -> None:
        """Hand out the windows that end by a time, and then no more.

        :param last_ns: the time, in nanoseconds since the Unix epoch
        :param at_once: whether to do so now, also those that are not due yet
        """
        self._last_ns = last_ns
        self._at_once = at_once
        self._may_be_over = True

    @property
    def over(self) -> bool:
        """Whether there are no more windows."""
        return self._may_be_over and (self._stopped or self.next_end_ns > self._last_ns)
