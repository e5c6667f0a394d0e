"""Units of time, and lengths of time."""

from __future__ import annotations

import enum
import re
from datetime import timedelta
from functools import total_ordering
from typing import Final

from run_task.errors import ConfigError


class TimeUnit(enum.Enum):
    """The unit of a timestamp. Its value is the suffix that :meth:`TaskInterval.parse` reads."""

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
    TimeUnit.MICROS: 1_000,
    TimeUnit.MILLIS: 1_000_000,
    TimeUnit.SECONDS: 1_000_000_000,
    TimeUnit.MINUTES: 60_000_000_000,
}

_TEXT: Final = re.compile(r"\s*([0-9]+)\s*(us|ms|s|m)\s*", re.ASCII)


@total_ordering
class TaskInterval:
    """A length of time, and the unit in which timestamps are counted.

    Make one with :meth:`micros`, :meth:`millis`, :meth:`seconds`, :meth:`minutes` or
    :meth:`parse`. Two are equal if they have one length and one unit, for the timestamps of
    ``TaskInterval.seconds(60)`` are in seconds, and those of ``TaskInterval.minutes(1)`` in
    minutes. They sort by length, and those of one length by unit; :attr:`nanos` is the length.

    :param count: how many units, at least 1
    :param unit: the unit of the count, and of every timestamp of a runner with this interval
    :raises ConfigError: if the count is not a positive int
    """

    __slots__ = ("_count", "_unit")

    def __init__(self, count: int, unit: TimeUnit) -> None:
        # A caller without a type checker may pass anything; True is an int to Python, not to us.
        if type(count) is not int or count < 1:
            raise ConfigError(
                f"an interval's count is a positive int, not {count!r}: "
                f"for less than one unit take a smaller one (us, ms, s, m)"
            )
        if not isinstance(unit, TimeUnit):  # pyright: ignore[reportUnnecessaryIsInstance] as above
            raise ConfigError(f"an interval's unit is a TimeUnit, not {unit!r}")
        self._count = count
        self._unit = unit

    @classmethod
    def micros(cls, count: int) -> TaskInterval:
        """``count`` microseconds."""
        return cls(count, TimeUnit.MICROS)

    @classmethod
    def millis(cls, count: int) -> TaskInterval:
        """``count`` milliseconds."""
        return cls(count, TimeUnit.MILLIS)

    @classmethod
    def seconds(cls, count: int) -> TaskInterval:
        """``count`` seconds."""
        return cls(count, TimeUnit.SECONDS)

    @classmethod
    def minutes(cls, count: int) -> TaskInterval:
        """``count`` minutes."""
        return cls(count, TimeUnit.MINUTES)

    @classmethod
    def parse(cls, text: str) -> TaskInterval:
        """Read an interval such as ``"250ms"``.

        :param text: a whole number and ``us``, ``ms``, ``s`` or ``m``
        :return: the interval, in that unit
        :raises ConfigError: if the text is anything else
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"cannot read {text!r} as an interval: write a whole number and one of "
                f"us, ms, s, m, such as '250ms'"
            )
        return cls(int(match[1]), TimeUnit(match[2]))

    @property
    def unit(self) -> TimeUnit:
        """The unit of the count, and of timestamps."""
        return self._unit

    @property
    def count(self) -> int:
        """How many units the interval lasts."""
        return self._count

    @property
    def nanos(self) -> int:
        """The length in nanoseconds."""
        return self._count * self._unit.nanos

    def as_micros(self) -> int:
        """The length in microseconds."""
        return self.nanos // TimeUnit.MICROS.nanos

    def as_millis(self) -> int:
        """The length in whole milliseconds, rounded down."""
        return self.nanos // TimeUnit.MILLIS.nanos

    def as_secs(self) -> int:
        """The length in whole seconds, rounded down."""
        return self.nanos // TimeUnit.SECONDS.nanos

    def as_timedelta(self) -> timedelta:
        """The length as a :class:`~datetime.timedelta`.

        :raises OverflowError: if the interval is longer than a timedelta can be
        """
        return timedelta(microseconds=self.as_micros())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskInterval):
            return NotImplemented
        return self._count == other._count and self._unit is other._unit

    def __lt__(self, other: TaskInterval) -> bool:
        if not isinstance(other, TaskInterval):  # pyright: ignore[reportUnnecessaryIsInstance] Python may ask
            return NotImplemented
        return (self.nanos, self._unit.nanos) < (other.nanos, other._unit.nanos)

    def __hash__(self) -> int:
        return hash((self._count, self._unit))

    def __str__(self) -> str:
        return f"{self._count}{self._unit.value}"

    def __repr__(self) -> str:
        return f"TaskInterval.{self._unit.name.lower()}({self._count})"
