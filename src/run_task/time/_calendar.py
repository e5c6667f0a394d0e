"""Intervals of the calendar: days, weeks and months in a time zone."""

from __future__ import annotations

import enum
from datetime import tzinfo
from typing import Final, TypeAlias

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.time._calendar_grid import CalendarGrid
from run_task.time._grid import Grid
from run_task.time._interval import Offset, TaskInterval, TimeUnit, offset_nanos, told
from run_task.time._wall_time import DAY_NS, WallClock

_WEEKDAYS: Final = (  # 1970-01-01 was the first of these
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "monday",
    "tuesday",
    "wednesday",
)


_MOST: Final = 10_000_000


class _Step(enum.Enum):
    """What an interval of the calendar is counted in, and how many days, or months, that has."""

    DAYS = "days"
    WEEKS = "weeks"
    MONTHS = "months"
    QUARTERS = "quarters"
    YEARS = "years"

    @property
    def days(self) -> int:
        """How many days it always has; 0: it has months."""
        return {_Step.DAYS: 1, _Step.WEEKS: 7}.get(self, 0)

    @property
    def months(self) -> int:
        return {_Step.MONTHS: 1, _Step.QUARTERS: 3, _Step.YEARS: 12}.get(self, 0)


def _offset_of(count: int, step: _Step, offset: Offset) -> int:
    """How long after the midnights of an interval its windows begin, in nanoseconds.

    :raises ConfigError: if that cannot be
    """
    found = offset_nanos(offset)
    if found >= 0:
        return found
    if not step.days:
        raise ConfigError(
            f"offset={brief(offset)}: {step.value} differ in length, so that before the first of "
            f"one is no time of the one before: say how long after, such as '14d' from the 15th on"
        )
    return found % (count * step.days * DAY_NS)


class CalendarInterval:
    """A length of time that the calendar of a time zone gives: a day, which has 23 or 25 hours when
    the clocks change, a week, a month, a quarter or a year.

    ::

        CalendarInterval.days(1, zone="Europe/Berlin")
        CalendarInterval.days(1, zone="America/New_York", offset="17h")  # a trading day
        CalendarInterval.weeks(1, start="sunday", zone="Asia/Tokyo")
        CalendarInterval.months(1, zone="Europe/Berlin")

    Windows end, and begin, at 00:00 by the clocks of the zone, or so long after as ``offset`` says,
    by the same clocks. A time that the clocks jump over is the moment at which they jump; of one
    that they show twice, the first. Several days, weeks or months are counted from the first such
    time since 1970-01-01. Months, quarters and years that begin on a day that not every month has
    begin on the last day of those that lack it.

    Timestamps stay ints since the Unix epoch, in UTC, in the unit of the data that is read; in
    seconds where that has none. Two are equal if they are counted the same, and have one unit.
    """

    __slots__ = ("_clock", "_count", "_offset_ns", "_start", "_step", "_unit")

    _count: int
    _step: _Step
    _clock: WallClock
    _offset_ns: int
    _start: str
    _unit: TimeUnit

    def __init__(self) -> None:
        raise ConfigError(
            "a CalendarInterval is made by days, weeks, months, quarters or years, such as "
            "CalendarInterval.days(1, zone='Europe/Berlin')"
        )

    @classmethod
    def _made(
        cls,
        count: int,
        step: _Step,
        zone: str | tzinfo,
        offset: Offset,
        start: str = _WEEKDAYS[0],
    ) -> CalendarInterval:
        if type(count) is not int or not 1 <= count <= _MOST:
            raise ConfigError(
                f"CalendarInterval.{step.value}({brief(count)}): it is a positive int, of at most "
                f"{_MOST:,}, since a calendar has the years from 1 to 9999"
            )
        if start not in _WEEKDAYS:
            raise ConfigError(
                f"start={start!r}: it is the first day of a week, such as 'monday' or 'sunday'"
            )
        made = cls.__new__(cls)
        made._count = count
        made._step = step
        made._clock = WallClock(zone)
        made._offset_ns = _offset_of(count, step, offset)
        made._start = start
        made._unit = TimeUnit.SECONDS
        return made

    @classmethod
    def days(
        cls, count: int, *, zone: str | tzinfo = "UTC", offset: Offset = None
    ) -> CalendarInterval:
        """``count`` days, from midnight.

        :param count: how many
        :param zone: the time zone, such as ``"Europe/Berlin"``
        :param offset: how long after midnight instead, by the clocks of the zone, such as
            ``"17h"``; ``"-8h"`` is before midnight
        :raises ConfigError: if one of these cannot be
        """
        return cls._made(count, _Step.DAYS, zone, offset)

    @classmethod
    def weeks(
        cls,
        count: int,
        *,
        start: str = "monday",
        zone: str | tzinfo = "UTC",
        offset: Offset = None,
    ) -> CalendarInterval:
        """``count`` weeks, from midnight at the beginning of the first day.

        :param count: how many
        :param start: the first day of a week, such as ``"sunday"``
        :param zone: as for :meth:`days`
        :param offset: how long after that midnight instead
        :raises ConfigError: if one of these cannot be
        """
        return cls._made(count, _Step.WEEKS, zone, offset, start)

    @classmethod
    def months(
        cls, count: int, *, zone: str | tzinfo = "UTC", offset: Offset = None
    ) -> CalendarInterval:
        """``count`` months, from midnight at the beginning of the first.

        :param count: how many
        :param zone: as for :meth:`days`
        :param offset: how long after that midnight instead: with ``"14d"``, from the 15th on
        :raises ConfigError: if one of these cannot be
        """
        return cls._made(count, _Step.MONTHS, zone, offset)

    @classmethod
    def quarters(
        cls, count: int, *, zone: str | tzinfo = "UTC", offset: Offset = None
    ) -> CalendarInterval:
        """``count`` times three months, as :meth:`months`, from the first of January on."""
        return cls._made(count, _Step.QUARTERS, zone, offset)

    @classmethod
    def years(
        cls, count: int, *, zone: str | tzinfo = "UTC", offset: Offset = None
    ) -> CalendarInterval:
        """``count`` times twelve months, as :meth:`months`.

        :param count: how many
        :param zone: as for :meth:`days`
        :param offset: how long after the midnight at the beginning of 1970 instead, with which
            counting begins: with ``"90d"``, from the first of April of each year
        :raises ConfigError: if one of these cannot be
        """
        return cls._made(count, _Step.YEARS, zone, offset)

    @property
    def count(self) -> int:
        """How many days, weeks, months, quarters or years it lasts."""
        return self._count

    @property
    def unit(self) -> TimeUnit:
        """The unit of timestamps."""
        return self._unit

    @property
    def zone(self) -> tzinfo:
        """The time zone."""
        return self._clock.zone

    @property
    def longest_ns(self) -> int:
        """A length, in nanoseconds, that it does not exceed, as time zones are today."""
        days = self._step.days or {1: 31, 3: 92, 12: 366}[self._step.months]
        changes_ns = 0 if self._clock.name == "UTC" else DAY_NS // 24
        return self._count * days * DAY_NS + changes_ns

    @property
    def shortest_ns(self) -> int:
        """A length, in nanoseconds, that it always has, as time zones are today."""
        days = self._step.days or {1: 28, 3: 90, 12: 365}[self._step.months]
        changes_ns = 0 if self._clock.name == "UTC" else DAY_NS // 24
        return self._count * days * DAY_NS - changes_ns

    @property
    def has_offset(self) -> bool:
        """Whether it says that windows end at another time than midnight."""
        return self._offset_ns > 0

    def with_unit(self, unit: TimeUnit) -> CalendarInterval:
        """The same, with timestamps in another unit.

        :param unit: the unit
        """
        copy = CalendarInterval.__new__(CalendarInterval)
        for name in self.__slots__:
            setattr(copy, name, getattr(self, name))
        copy._unit = unit
        return copy

    def grid(self) -> CalendarGrid:
        """Where it ends, and begins."""
        return self._grid(_WEEKDAYS.index(self._start) * DAY_NS + self._offset_ns)

    def grid_from(self, start: int) -> CalendarGrid:
        """Where it ends, and begins, if it once begins at a time.

        :param start: the time
        """
        return self._grid(self._clock.at(start * self._unit.nanos), start)

    def start_before(self, end: int, grid: Grid) -> int:
        """Where a window of this length starts.

        :param end: where it ends: an edge
        :param grid: of these edges, in the unit of this interval
        :return: the start, which is before the end: a day that is not there is passed over
        """
        days = months = 0
        while True:
            days += self._count * self._step.days
            months += self._count * self._step.months
            if isinstance(grid, CalendarGrid) and grid.is_by(self._clock):
                start = grid.back(end, days, months)
            else:
                start = self.grid_from(end).back(end, days, months)
            if start < end:
                return start

    def _grid(self, first_ns: int, first: int | None = None) -> CalendarGrid:
        step, unit_ns = self._step, self._unit.nanos
        days, months = self._count * step.days, self._count * step.months
        return CalendarGrid(self._clock, days, months, first_ns, unit_ns, first)

    def _key(self) -> tuple[object, ...]:
        return self._step, self._count, self._clock, self._start, self._offset_ns, self._unit

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CalendarInterval):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        about = [self._clock.name]
        if self._step is _Step.WEEKS:
            about.append(f"from {self._start}")
        if self._offset_ns:
            about.append(f"offset {told(self._offset_ns)}")
        name = self._step.value if self._count > 1 else self._step.value[:-1]
        return f"{self._count} {name} ({', '.join(about)})"

    def __repr__(self) -> str:
        start = f"start={self._start!r}, " if self._step is _Step.WEEKS else ""
        offset = f", offset={told(self._offset_ns)!r}" if self._offset_ns else ""
        zone = f"zone={self._clock!r}"
        return f"CalendarInterval.{self._step.value}({self._count}, {start}{zone}{offset})"


Interval: TypeAlias = TaskInterval | CalendarInterval
"""How often windows end, or how long they are."""
