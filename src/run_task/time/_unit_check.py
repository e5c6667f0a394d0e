"""Whether timestamps are in the unit that was said: one that only another unit explains is told."""

from __future__ import annotations

from typing import Final

from run_task.observe._log import Log
from run_task.time._interval import UNITS, TaskInterval, TimeUnit
from run_task.time._shown import time_shown

_FIRST_NS: Final = 315_532_800_000_000_000
_LAST_NS: Final = 4_102_444_800_000_000_000
"""The years 1980 and 2100, in nanoseconds since the Unix epoch."""


def likely_unit(timestamp: int, unit: TimeUnit) -> TimeUnit | None:
    """The unit that a timestamp looks like, if not like the one that it is said to be in.

    :param timestamp: the timestamp
    :param unit: the unit that it is said to be in
    :return: the unit in which it lies between 1980 and 2100; None: it does so in its own or in none
    """
    if _FIRST_NS <= timestamp * unit.nanos < _LAST_NS:
        return None
    likely = (other for other in UNITS if _FIRST_NS <= timestamp * other.nanos < _LAST_NS)
    return next(likely, None)


def last_likely(unit: TimeUnit) -> int:
    """The last timestamp of a unit that lies before 2100.

    :param unit: the unit
    """
    return _LAST_NS // unit.nanos - 1


class UnitCheck:
    """Warns once of timestamps that are likely in another unit than was said.

    :param unit: the unit that was said
    :param log: where the warning goes
    """

    __slots__ = ("_log", "first", "last", "unit", "warned")

    def __init__(self, unit: TimeUnit, log: Log) -> None:
        self.unit: TimeUnit = unit
        self._log = log
        self.warned: bool = False
        """Whether it has."""
        self.first: int = -(-_FIRST_NS // unit.nanos)
        self.last: int = last_likely(unit)
        """The first and the last timestamp that need no look."""

    def look(self, timestamp: int, what: object) -> None:
        """Warn if a timestamp looks like one of another unit, and no other did before.

        :param timestamp: the timestamp
        :param what: what it enters, or comes from, for the warning
        """
        if self.warned or self.first <= timestamp <= self.last:
            return
        likely = likely_unit(timestamp, self.unit)
        if likely is None:
            return
        self.warned = True
        unit = self.unit
        self._log.warning(
            "%s: the timestamp %d is not likely to count %s, which makes it %s: it looks like %s, "
            "which make it %s; say unit=TimeUnit.%s where it comes from and where it goes",
            *(what, timestamp, unit.name.lower(), _shown(timestamp, unit)),
            *(likely.name.lower(), _shown(timestamp, likely), likely.name),
        )


def _shown(timestamp: int, unit: TimeUnit) -> str:
    shown = time_shown(timestamp, TaskInterval(1, unit))
    if shown != str(timestamp):
        return shown
    return "a time beyond the year 9999" if timestamp > 0 else "a time before the year 1"
