"""Edges that the calendar of a time zone gives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from run_task.time._wall_time import DAY_NS, WallClock, add_days, add_months, months_between


class CalendarGrid:
    """Edges that are so many days, or so many months, apart by the clocks of a time zone.

    Edges are numbered, from the first on, and back from there. Two at one time, since a day between
    them is not there, are one edge. The three of the last answer are kept: the next question is
    mostly about them.

    :param clock: the clocks
    :param days: how many days are from one edge to the next; 0: it is so many months
    :param months: how many months are; 0: it is so many days
    :param first_ns: the wall time of the first edge; others have its time of day, and, in steps of
        months, its day
    :param unit_ns: how many nanoseconds the unit of the edges has
    :param first: when the first edge is, if its wall time comes twice
    """

    __slots__ = ("_clock", "_days", "_first", "_first_ns", "_months", "_near", "_unit_ns")

    def __init__(
        self,
        clock: WallClock,
        days: int,
        months: int,
        first_ns: int,
        unit_ns: int,
        first: int | None = None,
    ) -> None:
        self._clock = clock
        self._days = days
        self._months = months
        self._first_ns = first_ns
        self._unit_ns = unit_ns
        self._first = first
        self._near: tuple[int, int, int] | None = None  # a number, its edge, and the next edge

    def after(self, time: int) -> int:
        return self._around(time)[2]

    def before(self, time: int) -> int:
        return self._around(time - 1)[1]

    def floor(self, time: int) -> int:
        return self._around(time)[1]

    def edges(self, since: int, until: int) -> NDArray[np.int64]:
        found: list[int] = []
        edge = self.after(since - 1)
        while edge <= until:
            found.append(edge)
            edge = self.after(edge)
        return np.array(found, dtype=np.int64)

    def back(self, edge: int, days: int, months: int) -> int:
        """The time so many days and months before an edge, by the clocks.

        It is counted from what the edge was to be, also where the clocks jump over that; months
        from its day in a month that has it.
        """
        number = self._around(edge)[0]
        if self._days:
            wall_ns = add_months(self._wall_ns(number) - days * DAY_NS, -months)
        else:
            wall_ns = add_days(add_months(self._first_ns, number * self._months - months), -days)
        return self._when(wall_ns)

    def is_by(self, clock: WallClock) -> bool:
        """Whether its edges are those of some clocks."""
        return self._clock == clock

    def _around(self, time: int) -> tuple[int, int, int]:
        """The number of the last edge that is not after a time, that edge, and the next."""
        near = self._near
        if near is not None and near[1] <= time < near[2]:
            return near
        if near is not None and time == near[2]:  # windows are stepped through
            number, edge = near[0] + 1, time
        else:
            number = self._guess(time)
            edge = self._edge(number)
        while edge > time:
            number -= 1
            edge = self._edge(number)
        while (following := self._edge(number + 1)) <= time:
            number, edge = number + 1, following
        self._near = near = number, edge, following
        return near

    def _guess(self, time: int) -> int:
        """The number of an edge that is not far from a time."""
        wall_ns = self._clock.at(time * self._unit_ns)
        if self._days:
            return (wall_ns - self._first_ns) // (self._days * DAY_NS)
        return months_between(wall_ns, self._first_ns) // self._months

    def _edge(self, number: int) -> int:
        return self._when(self._wall_ns(number))

    def _wall_ns(self, number: int) -> int:
        if self._days:
            return add_days(self._first_ns, number * self._days)
        return add_months(self._first_ns, number * self._months)

    def _when(self, wall_ns: int) -> int:
        if wall_ns == self._first_ns and self._first is not None:
            return self._first
        return -(-self._clock.when(wall_ns) // self._unit_ns)
