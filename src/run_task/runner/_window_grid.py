"""Which windows a runner has: where they end, and where each starts."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from run_task.runner._config import Align
from run_task.time._calendar import CalendarInterval, Interval
from run_task.time._interval import TaskInterval


class WindowGrid:
    """The windows of a runner.

    They end at the edges of a grid. What is fresh in one is what the one before has not held; a
    window that is shorter than the interval is fresh from its start on.

    :param interval: how far the ends are apart, and the unit of starts and ends
    :param window: how long a window is; None: one interval
    :param align: where the grid lies
    :param since_ns: the time from which on there are to be windows, in nanoseconds since the Unix
        epoch
    :param first_ns: the first window ends after this, on the grid that so begins; None: it is the
        first of the grid
    """

    def __init__(
        self,
        interval: Interval,
        window: Interval | None,
        align: Align,
        since_ns: int,
        first_ns: int | None = None,
    ) -> None:
        self._unit_ns = unit_ns = interval.unit.nanos
        self._reach = reach = None if window is None else window.with_unit(interval.unit)
        since = since_ns // unit_ns
        if align is Align.EPOCH:
            self._grid = interval.grid()
            first_end = self._grid.after(since)
        else:
            self._grid = interval.grid_from(since)
            first_end = self._grid.after(since)
            # The first window starts then, also where it is shorter than the interval.
            if reach is not None and (end := reach.grid_from(since).after(since)) < first_end:
                first_end = end
                self._grid = interval.grid_from(end)
        if first_ns is not None:
            first_end = self._grid.after(first_ns // unit_ns)
        self.after: Final = self._grid.after
        """Gives the first end after a time."""
        self.cover_time: Final = reach is None or reach.shortest_ns >= interval.longest_ns
        """Whether each time is in a window; not, if that cannot be told of all windows."""
        self.overlap_ns: int | None = None
        """By how much each overlaps the one before, in nanoseconds; None: that differs."""
        self.first_end: Final = first_end
        """The end of the first window, which is the first after that time."""

    def some(self, end: int, last: int, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The starts and ends of the windows from one on.

        :param end: the end of the first
        :param last: the latest end
        :param most: how many there are at most
        """
        ends: list[int] = []
        while end <= last and len(ends) < most:
            ends.append(end)
            end = self.after(end)
        return np.array([*map(self.start, ends)], np.int64), np.array(ends, np.int64)

    def start(self, end: int) -> int:
        """The start of the window that ends at a time."""
        reach = self._reach
        return self._grid.before(end) if reach is None else reach.start_before(end, self._grid)

    def fresh(self, end: int) -> int:
        """From when on what the window that ends at a time holds is fresh."""
        before = self._grid.before(end)
        return before if self._reach is None else max(before, self.start(end))

    def ends_at(self, time: int) -> bool:
        """Whether a window ends at a time."""
        return self._grid.floor(time) == time

    def has(self, start: int, end: int) -> bool:
        """Whether this is one of the windows."""
        return self.ends_at(end) and self.start(end) == start

    # Of times in nanoseconds since the Unix epoch

    @property
    def first_end_ns(self) -> int:
        """The end of the first window."""
        return self.first_end * self._unit_ns

    def after_ns(self, end_ns: float) -> int:
        """The end of the window after the one that ends at a time."""
        return self.after(int(end_ns) // self._unit_ns) * self._unit_ns

    def start_ns(self, end_ns: float) -> int:
        """The start of the window that ends at a time."""
        return self.start(int(end_ns) // self._unit_ns) * self._unit_ns

    def hold_ns(self, time_ns: float) -> bool:
        """Whether a window holds a time."""
        time = int(time_ns) // self._unit_ns
        return self.start(self._grid.after(time)) <= time

    def fresh_ns(self, end_ns: float) -> int:
        """From when on what the window that ends at a time holds is fresh."""
        return self.fresh(int(end_ns) // self._unit_ns) * self._unit_ns

    def floor_ns(self, time_ns: float) -> int:
        """The end of the last window that ends by a time."""
        return self._grid.floor(int(time_ns) // self._unit_ns) * self._unit_ns

    def last_fresh_at_ns(self, time_ns: float) -> int:
        """The end of the last window in which what it holds is fresh by a time."""
        time = int(time_ns) // self._unit_ns
        end = self._grid.after(time)
        return (end if self.fresh(end) <= time else self._grid.before(end)) * self._unit_ns

    def last_holding_ns(self, time_ns: float) -> int:
        """The end of the last window that starts by a time."""
        time = int(time_ns) // self._unit_ns
        end = self._grid.floor(time)
        while self.start(after := self._grid.after(end)) <= time:
            end = after
        return end * self._unit_ns


class FixedWindows(WindowGrid):
    """Windows that are all as long, and as far apart: with less to compute for each."""

    def __init__(
        self,
        interval: TaskInterval,
        window: TaskInterval | None,
        align: Align,
        since_ns: int,
        first_ns: int | None = None,
    ) -> None:
        super().__init__(interval, window, align, since_ns, first_ns)
        self.period: Final = interval.count
        """How far they are apart."""
        self.length: Final = (window or interval).nanos // interval.unit.nanos
        """How long they are."""
        self._fresh = min(self.period, self.length)
        self.overlap_ns = (self.length - self._fresh) * interval.unit.nanos

    def some(self, end: int, last: int, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        count = max(0, min((last - end) // self.period + 1, most))
        ends = end + self.period * np.arange(count)
        return ends - self.length, ends

    def start(self, end: int) -> int:
        return end - self.length

    def fresh(self, end: int) -> int:
        return end - self._fresh

    def last_holding_ns(self, time_ns: float) -> int:
        return self.floor_ns(time_ns + self.length * self._unit_ns)


def windows_of(
    interval: Interval,
    window: Interval | None,
    align: Align,
    since_ns: int,
    first_ns: int | None = None,
) -> WindowGrid:
    """The windows of a runner, as :class:`WindowGrid` takes it."""
    if isinstance(interval, CalendarInterval) or isinstance(window, CalendarInterval):
        return WindowGrid(interval, window, align, since_ns, first_ns)
    return FixedWindows(interval, window, align, since_ns, first_ns)
