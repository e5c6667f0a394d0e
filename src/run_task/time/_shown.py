"""Windows and timestamps as times that people read."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

from run_task.time._calendar import CalendarInterval, Interval
from run_task.time._epoch import from_nanos
from run_task.time._interval import TimeUnit


def zone_of(interval: Interval) -> tzinfo:
    """The time zone of an interval: UTC, but for those of a calendar."""
    return interval.zone if isinstance(interval, CalendarInterval) else UTC


def moment_of(timestamp: int, interval: Interval) -> datetime:
    """A timestamp as a datetime, in the zone of the interval; less than a microsecond is dropped.

    :param timestamp: the timestamp, in the unit of the interval
    :raises OverflowError: if it is beyond the years that a datetime has
    """
    return from_nanos(timestamp * interval.unit.nanos).astimezone(zone_of(interval))


def time_shown(timestamp: int, interval: Interval) -> str:
    """A timestamp in ISO 8601, exactly; as it is, if no datetime can tell it."""
    return stamp_shown(timestamp, interval.unit, zone_of(interval))


def stamp_shown(timestamp: int, unit: TimeUnit, zone: tzinfo) -> str:
    """As :func:`time_shown`, of a timestamp in a unit, in a zone."""
    try:
        moment = from_nanos(timestamp * unit.nanos).astimezone(zone)
    except (OverflowError, ValueError):
        return str(timestamp)
    nanos = timestamp * unit.nanos % TimeUnit.SECONDS.nanos
    shown = moment.replace(microsecond=0).isoformat()  # four digits of a year, seconds of a zone
    ahead = shown[19:]
    ahead = "Z" if ahead == "+00:00" else ahead
    fraction = f"{nanos:09}".rstrip("0")
    digits = -(-len(fraction) // 3) * 3  # of millis, micros or nanos
    fraction = f".{fraction.ljust(digits, '0')}" if fraction else ""
    return f"{shown[:19]}{fraction}{ahead}"


def window_shown(start: int, end: int, interval: Interval | None) -> str:
    """A window, by its times.

    :param interval: the interval whose window it is; None: it is not known, nor what the numbers
        mean
    """
    if interval is None:
        return f"[{start}, {end})"
    return f"[{time_shown(start, interval)}, {time_shown(end, interval)})"
