"""Lengths of time as users give them: an interval, a timedelta, or a text such as ``"5m"``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeAlias

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.time._calendar import CalendarInterval, Interval
from run_task.time._interval import TaskInterval, TimeUnit, told

IntervalLike: TypeAlias = TaskInterval | timedelta | str
"""A length of time: a ``TaskInterval``, a ``timedelta``, or a text that ``TaskInterval.parse``
reads, such as ``"250ms"``, ``"1.5s"``, ``"5m"``, ``"1h"`` or ``"1d"``."""

EveryLike: TypeAlias = IntervalLike | CalendarInterval
"""How often windows end, or how long they are: a length of time, or an interval of the calendar."""


def length(given: Any, what: str, longest: TimeUnit = TimeUnit.SECONDS) -> TaskInterval:
    """A length of time, whatever it is counted in.

    :param given: an interval, which stays as it is, a timedelta or a text
    :param what: what it is, for messages, such as ``"interval={}"``
    :param longest: the unit of a timedelta or text, or the longest shorter one that holds it
    :raises ConfigError: if it is none of these, or not positive
    """
    if isinstance(given, TaskInterval):
        return given
    try:
        if isinstance(given, str):
            return TaskInterval.holding(TaskInterval.parse(given).nanos, longest)
        if isinstance(given, timedelta):
            micros = given // timedelta(microseconds=1)
            nanos: int = getattr(given, "nanoseconds", 0)  # those of pandas have them
            return TaskInterval.holding(micros * 1000 + nanos, longest)
    except ConfigError as error:
        raise ConfigError(f"{_told(what, given)}: {error}") from None
    raise ConfigError(
        f"{_told(what, given)}: it is a TaskInterval, such as TaskInterval.seconds(5), a "
        f"timedelta, or a text, such as '250ms', '5s' or '1h'"
    )


def plain_length(given: Any, what: str) -> TaskInterval:
    """As :func:`length`, of what only is as long, and ends nowhere.

    :raises ConfigError: if it is no length, or has an offset
    """
    found = length(given, what)
    _refuse_offset(found, given, what)
    return found


def window_length(given: Any, what: str) -> Interval:
    """How long a window is: as :func:`plain_length`, or an interval of the calendar.

    :raises ConfigError: if it is none of these, or has an offset
    """
    if not isinstance(given, CalendarInterval):
        return plain_length(given, what)
    _refuse_offset(given, given, what)
    return given


def _refuse_offset(found: Interval, given: object, what: str) -> None:
    if found.has_offset:
        raise ConfigError(
            f"{_told(what, given)}: it is a length: say by the interval where windows end"
        )


def interval_in(given: Any, unit: TimeUnit | None, what: str) -> Interval:
    """How often something happens, in the unit of the data that it is about.

    :param given: an interval, a timedelta, a text, or an interval of the calendar
    :param unit: the unit of the data; None: it has none, and seconds are taken for a timedelta or
        text, or the longest shorter unit that holds it
    :param what: what it is, for messages, such as ``"interval={}"``
    :raises ConfigError: if it is none of these, is counted in another unit, or the unit of the data
        cannot tell it
    """
    if isinstance(given, CalendarInterval):
        return given.with_unit(unit or TimeUnit.SECONDS)
    found = length(given, what, unit or TimeUnit.SECONDS)
    if unit is None or found.unit is unit:
        return found
    its, name = found.unit.name.lower(), unit.name.lower()
    if found.nanos % unit.nanos:
        raise ConfigError(
            f"{_told(what, given)}: it is no whole number of {name}, the unit of the data: give "
            f"that unit=TimeUnit.{found.unit.name}"
        )
    cure = f"write {found.with_unit(unit)!r}"
    if not found.has_offset:
        cure = f"write {in_short(found)!r}, which takes the unit of the data, or {cure[6:]}"
    raise ConfigError(
        f"{_told(what, given)}: it is in {its}, and the data in {name}, so that tasks would find "
        f"no rows by the times of their windows: {cure}"
    )


def _told(what: str, given: object) -> str:
    return what.replace("{}", brief(given), 1)


def in_short(interval: Interval) -> str:
    """The shortest text for a length of time, whatever its unit: ``"1h"`` for 3,600,000 ms."""
    if isinstance(interval, CalendarInterval):
        return str(interval)
    offset = f" (offset {told(interval.offset * interval.unit.nanos)})" if interval.offset else ""
    return f"{told(interval.nanos)}{offset}"


def unit_of(data: object) -> TimeUnit | None:
    """The unit of the timestamps of shared data; None: it has none."""
    unit = getattr(data, "unit", None)
    return unit if isinstance(unit, TimeUnit) else None
