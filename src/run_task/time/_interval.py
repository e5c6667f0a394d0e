"""Units of time, and lengths of time."""

from __future__ import annotations

import enum
import re
from datetime import timedelta
from functools import total_ordering
from typing import Any, Final, Protocol, TypeAlias, overload

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.time._grid import FixedGrid, Grid


class TimeUnit(enum.Enum):
    """The unit of a timestamp. Its value is the suffix that :meth:`TaskInterval.parse` reads."""

    NANOS = "ns"
    """Nanoseconds, ``"ns"``."""

    MICROS = "us"
    """Microseconds, ``"us"``."""

    MILLIS = "ms"
    """Milliseconds, ``"ms"``."""

    SECONDS = "s"
    """Seconds, ``"s"``."""

    MINUTES = "m"
    """Minutes, ``"m"``."""

    @property
    def nanos(self) -> int:
        """How many nanoseconds one unit has."""
        return _NANOS[self]


_NANOS: Final = {
    TimeUnit.NANOS: 1,
    TimeUnit.MICROS: 1_000,
    TimeUnit.MILLIS: 1_000_000,
    TimeUnit.SECONDS: 1_000_000_000,
    TimeUnit.MINUTES: 60_000_000_000,
}

UNITS: Final = (
    TimeUnit.MINUTES,
    TimeUnit.SECONDS,
    TimeUnit.MILLIS,
    TimeUnit.MICROS,
    TimeUnit.NANOS,
)
"""The units, the longest first."""


def unit_of_nanos(nanos: int) -> TimeUnit:
    """The unit that has so many nanoseconds."""
    return next(unit for unit in UNITS if unit.nanos == nanos)


_MINUTES: Final = {"w": 60 * 24 * 7, "d": 60 * 24, "h": 60}
"""What is written of longer lengths than a unit: how many minutes each has."""

_SUFFIXES: Final = {
    **{suffix: minutes * TimeUnit.MINUTES.nanos for suffix, minutes in _MINUTES.items()},
    **{unit.value: unit.nanos for unit in UNITS},
}
"""How many nanoseconds each of what a text ends in has, the longest first."""

_TEXT: Final = re.compile(r"\s*([0-9]+)(?:\.([0-9]+))?\s*(ns|us|ms|s|m|h|d|w)\s*", re.ASCII)


_MOST: Final = 2**63 - 1
"""How many units an interval has at most."""

_MOST_DIGITS: Final = 100
"""How many digits the text of an interval has at most."""

Offset: TypeAlias = "str | timedelta | TaskInterval | None"
"""How long after a multiple of an interval since the Unix epoch its windows end."""


class _MadeOfNanos(Protocol):
    def __call__(self, count: int, *, offset: Offset = None) -> TaskInterval:
        """``count`` nanoseconds."""
        ...


class _Nanos:
    """``TaskInterval.nanos(5)`` makes an interval, as its siblings do; of an interval, ``nanos`` is
    its length."""

    @overload
    def __get__(self, interval: None, owner: type[TaskInterval]) -> _MadeOfNanos: ...
    @overload
    def __get__(self, interval: TaskInterval, owner: type[TaskInterval]) -> int: ...
    def __get__(self, interval: TaskInterval | None, owner: type[TaskInterval]) -> Any:
        if interval is not None:
            return interval.count * interval.unit.nanos

        def nanos(count: int, *, offset: Offset = None) -> TaskInterval:
            """``count`` nanoseconds."""
            return owner(count, TimeUnit.NANOS, offset)

        return nanos


@total_ordering
class TaskInterval:
    """A length of time, and the unit in which timestamps are counted.

    Make one with :meth:`seconds` or another of its kind, or with :meth:`parse`. Hours, days and
    weeks are counted in minutes, the longest unit there is. Two are equal if they have one length
    and one unit, for the timestamps of ``TaskInterval.seconds(60)`` are in seconds, and those of
    ``TaskInterval.minutes(1)`` in minutes. They sort by length, and those of one length by unit.

    :param count: how many units, at least 1
    :param unit: the unit of the count, and of every timestamp of a runner with this interval
    :param offset: how long after a multiple of it since the Unix epoch a window ends, as a text
        such as ``"17h"``, or a timedelta: a whole number of units; ``"-8h"`` is before one; None:
        at a multiple
    :raises ConfigError: if the count is not a positive int, or the offset cannot be
    """

    __slots__ = ("_count", "_offset", "_unit")

    def __init__(self, count: int, unit: TimeUnit, offset: Offset = None) -> None:
        # A caller without a type checker may pass anything; True is an int to Python, not to us.
        if type(count) is not int or count < 1:
            raise ConfigError(
                f"an interval's count is a positive int, not {brief(count)}: "
                f"for less than one unit take a smaller one (ns, us, ms, s, m)"
            )
        if count > _MOST:
            raise ConfigError(
                f"an interval's count is an int that fits in 64 bits, as timestamps do, and not "
                f"{brief(count)}"
            )
        if not isinstance(unit, TimeUnit):  # pyright: ignore[reportUnnecessaryIsInstance] as above
            raise ConfigError(f"an interval's unit is a TimeUnit, not {unit!r}")
        self._count = count
        self._unit = unit
        moved, rest = divmod(offset_nanos(offset), unit.nanos)
        if rest:
            raise ConfigError(
                f"offset={brief(offset)} is no whole number of {unit.name.lower()}, the unit of "
                f"the interval: count the interval in a smaller unit"
            )
        self._offset = moved % count

    nanos: Final = _Nanos()
    """``TaskInterval.nanos(count)``: so many nanoseconds. Of an interval: its length in
    nanoseconds, an int."""

    @classmethod
    def micros(cls, count: int, *, offset: Offset = None) -> TaskInterval:
        """``count`` microseconds."""
        return cls(count, TimeUnit.MICROS, offset)

    @classmethod
    def millis(cls, count: int, *, offset: Offset = None) -> TaskInterval:
        """``count`` milliseconds."""
        return cls(count, TimeUnit.MILLIS, offset)

    @classmethod
    def seconds(cls, count: int, *, offset: Offset = None) -> TaskInterval:
        """``count`` seconds."""
        return cls(count, TimeUnit.SECONDS, offset)

    @classmethod
    def minutes(cls, count: int, *, offset: Offset = None) -> TaskInterval:
        """``count`` minutes."""
        return cls(count, TimeUnit.MINUTES, offset)

    @classmethod
    def hours(cls, count: int, *, offset: Offset = None) -> TaskInterval:
        """``count`` hours, counted in minutes."""
        return cls._minutes(count, "h", offset)

    @classmethod
    def days(cls, count: int, *, offset: Offset = None) -> TaskInterval:
        """``count`` days of 24 hours, counted in minutes."""
        return cls._minutes(count, "d", offset)

    @classmethod
    def weeks(cls, count: int, *, offset: Offset = None) -> TaskInterval:
        """``count`` weeks of 7 days, counted in minutes."""
        return cls._minutes(count, "w", offset)

    @classmethod
    def _minutes(cls, count: int, of: str, offset: Offset) -> TaskInterval:
        # What is no count is refused as what it is, and not as what would have been made of it.
        valid = type(count) is int and count > 0
        return cls(count * _MINUTES[of] if valid else count, TimeUnit.MINUTES, offset)

    @classmethod
    def parse(cls, text: str) -> TaskInterval:
        """Read an interval such as ``"250ms"``, ``"1.5s"`` or ``"1h"``.

        :param text: a number and ``ns``, ``us``, ``ms``, ``s``, ``m``, ``h``, ``d`` or ``w``
        :return: the interval, in that unit; in minutes if it is longer than one, and in the longest
            unit of which it has a whole number if the number has a fraction
        :raises ConfigError: if the text is anything else, or not as long as a nanosecond
        """
        suffix, nanos = _read(text)
        longest = TimeUnit.MINUTES if suffix in _MINUTES else TimeUnit(suffix)
        return cls.holding(nanos, longest)

    @classmethod
    def holding(cls, nanos: int, longest: TimeUnit) -> TaskInterval:
        """The interval of a length, in the longest unit of which it has a whole number.

        :param nanos: the length in nanoseconds
        :param longest: no unit longer than this
        :raises ConfigError: if the length is not positive
        """
        units = UNITS[UNITS.index(longest) :]
        unit = next(unit for unit in units if nanos % unit.nanos == 0)
        return cls(nanos // unit.nanos, unit)

    @property
    def unit(self) -> TimeUnit:
        """The unit of the count, and of timestamps."""
        return self._unit

    @property
    def count(self) -> int:
        """How many units the interval lasts."""
        return self._count

    @property
    def offset(self) -> int:
        """How many units after a multiple of it since the Unix epoch a window ends: less than
        :attr:`count`."""
        return self._offset

    @property
    def shortest_ns(self) -> int:
        """How long it is at least, as that of the calendar: as long as ever, in nanoseconds."""
        return self.nanos

    @property
    def longest_ns(self) -> int:
        """How long it is at most, in nanoseconds."""
        return self.nanos

    @property
    def has_offset(self) -> bool:
        """Whether it says itself where windows end."""
        return self._offset > 0

    def with_unit(self, unit: TimeUnit) -> TaskInterval:
        """The same, counted in another unit.

        :param unit: the unit
        :raises ConfigError: if it is no whole number of these
        """
        count, rest = divmod(self.nanos, unit.nanos)
        if rest:
            raise ConfigError(f"{self} is no whole number of {unit.name.lower()}")
        converted = TaskInterval(count, unit)
        converted._offset, rest = divmod(self._offset * self._unit.nanos, unit.nanos)
        if rest:
            raise ConfigError(f"the offset of {self} is no whole number of {unit.name.lower()}")
        return converted

    def grid(self) -> FixedGrid:
        """Where windows end, in its unit."""
        return FixedGrid(self._count, self._offset)

    def grid_from(self, start: int) -> FixedGrid:
        """Where windows end, if one starts at a time, in its unit."""
        return FixedGrid(self._count, start)

    def start_before(self, end: int, grid: Grid) -> int:
        """Where a window of this length starts that ends at an edge of a grid of its unit."""
        return end - self._count

    def as_micros(self) -> int:
        """The length in whole microseconds, rounded down."""
        return self.nanos // TimeUnit.MICROS.nanos

    def as_millis(self) -> int:
        """The length in whole milliseconds, rounded down."""
        return self.nanos // TimeUnit.MILLIS.nanos

    def as_secs(self) -> int:
        """The length in whole seconds, rounded down."""
        return self.nanos // TimeUnit.SECONDS.nanos

    def as_timedelta(self) -> timedelta:
        """The length as a :class:`~datetime.timedelta`, in whole microseconds, rounded down.

        :raises OverflowError: if the interval is longer than a timedelta can be
        """
        return timedelta(microseconds=self.as_micros())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskInterval):
            return NotImplemented
        return self._key() == other._key()

    def __lt__(self, other: TaskInterval) -> bool:
        if not isinstance(other, TaskInterval):  # pyright: ignore[reportUnnecessaryIsInstance] Python may ask
            return NotImplemented
        return self._key() < other._key()

    def _key(self) -> tuple[int, int, int]:
        return self.nanos, self._unit.nanos, self._offset

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        offset = f" (offset {self._told_offset()})" if self._offset else ""
        return f"{self._count}{self._unit.value}{offset}"

    def __repr__(self) -> str:
        offset = f", offset={self._told_offset()!r}" if self._offset else ""
        return f"TaskInterval.{self._unit.name.lower()}({self._count}{offset})"

    def _told_offset(self) -> str:
        return told(self._offset * self._unit.nanos)


def offset_nanos(offset: Offset) -> int:
    """An offset, in nanoseconds.

    :param offset: a text such as ``"17h"`` or ``"-8h"``, a timedelta, or a length; None: none
    :raises ConfigError: if it is anything else
    """
    given: Any = offset
    if given is None:
        return 0
    if isinstance(given, timedelta):
        return given // timedelta(microseconds=1) * 1000
    if isinstance(given, str):
        before, after = given.strip().startswith("-"), given.strip().removeprefix("-")
        try:
            return -_read(after)[1] if before else _read(after)[1]
        except ConfigError as error:
            raise ConfigError(f"offset={brief(given)}: {error}") from None
    if isinstance(given, TaskInterval):
        return given.nanos
    raise ConfigError(f"offset={brief(given)}: it is a text such as '17h' or '-8h', or a timedelta")


def told(nanos: int) -> str:
    """The shortest text for a length, from which it can be read again."""
    suffix = next(suffix for suffix, each in _SUFFIXES.items() if nanos % each == 0)
    return f"{nanos // _SUFFIXES[suffix]}{suffix}"


def _read(text: str) -> tuple[str, int]:
    """What a text ends in, and the length that it tells, in nanoseconds."""
    # A caller without a type checker may pass anything.
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None  # pyright: ignore[reportUnnecessaryIsInstance] as above
    if match is None:
        raise ConfigError(
            f"cannot read {brief(text)} as an interval: write a number and one of "
            f"{', '.join(reversed(_SUFFIXES))}, such as '250ms', '1.5s' or '1h'"
        )
    whole, fraction, suffix = match[1], match[2] or "", match[3]
    if (digits := len(whole) + len(fraction)) > _MOST_DIGITS:
        raise ConfigError(
            f"cannot read {brief(text)} as an interval: it has {digits:,} digits, and "
            f"{_MOST_DIGITS} are the most"
        )
    nanos, rest = divmod(int(whole + fraction) * _SUFFIXES[suffix], 10 ** len(fraction))
    if rest:
        raise ConfigError(f"{brief(text)} is no whole number of nanoseconds: leave digits out")
    return suffix, nanos
