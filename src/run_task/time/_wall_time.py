"""What clocks in a time zone show, and when: wall times are nanoseconds since 1970-01-01 00:00, as
if every day had 24 hours."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any, Final

from run_task.errors import ConfigError

SECOND_NS: Final = 1_000_000_000
DAY_NS: Final = 86_400 * SECOND_NS

_NAIVE_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 what clocks show has no zone
_AWARE_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = _NAIVE_EPOCH.toordinal()
_LATE: Final = "a calendar has the years from 1 to 9999: this time lies beyond"


def add_days(wall_ns: int, days: int) -> int:
    """The same time of day, so many days later."""
    return wall_ns + days * DAY_NS


def add_months(wall_ns: int, months: int) -> int:
    """The same day and time of day, so many months later; the last day of a month that has no such
    day.

    :raises ConfigError: if that is beyond the years of a calendar
    """
    days, rest_ns = divmod(wall_ns, DAY_NS)
    try:
        day = date.fromordinal(_EPOCH_DAY + days)
        year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
        after = date(year + (month == 11), (month + 1) % 12 + 1, 1)
        last = date.fromordinal(after.toordinal() - 1).day
        landed = date(year, month + 1, min(day.day, last))
    except (ValueError, OverflowError):
        raise ConfigError(_LATE) from None
    return (landed.toordinal() - _EPOCH_DAY) * DAY_NS + rest_ns


def months_between(wall_ns: int, other_ns: int) -> int:
    """How many months the month of one wall time is after that of another.

    :raises ConfigError: if one is beyond the years of a calendar
    """
    try:
        one, other = (date.fromordinal(_EPOCH_DAY + ns // DAY_NS) for ns in (wall_ns, other_ns))
    except (ValueError, OverflowError):
        raise ConfigError(_LATE) from None
    return (one.year - other.year) * 12 + one.month - other.month


class WallClock:
    """The clocks of a time zone.

    :param zone: the zone, or its name, such as ``"Europe/Berlin"``
    :param fold: which of two times it is that they show alike: 0 for the first, 1 for the second
    :raises ConfigError: if it is none, or nothing is known of it here
    """

    __slots__ = ("_fold", "name", "zone")

    def __init__(self, zone: str | tzinfo, fold: int = 0) -> None:
        self._fold = fold
        self.name: str
        """What the zone is called."""
        self.zone: tzinfo
        self.name, self.zone = _named(zone)

    def at(self, time_ns: int) -> int:
        """What they show at a time.

        :param time_ns: the time, in nanoseconds since the Unix epoch
        :raises ConfigError: if it is beyond the years of a calendar
        """
        try:
            moment = _AWARE_EPOCH + timedelta(seconds=time_ns // SECOND_NS)
            shown = moment.astimezone(self.zone).replace(tzinfo=None)
        except (ValueError, OverflowError):
            raise ConfigError(_LATE) from None
        return (shown - _NAIVE_EPOCH) // timedelta(seconds=1) * SECOND_NS + time_ns % SECOND_NS

    def when(self, wall_ns: int) -> int:
        """When they show a wall time, in nanoseconds since the Unix epoch: the first time or the
        second, as ``fold`` says, if they do so twice; if they jump over it, when they jump.

        :raises ConfigError: if it is beyond the years of a calendar
        """
        seconds = wall_ns // SECOND_NS
        try:
            shown = (_NAIVE_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=self.zone)
            ahead = _seconds(shown.utcoffset())
            ahead_after = _seconds(shown.replace(fold=1).utcoffset())
            if ahead_after <= ahead:  # they are not put forward over it
                return wall_ns - (ahead_after if self._fold else ahead) * SECOND_NS
            early, late = seconds - ahead_after, seconds - ahead
            while late - early > 1:  # the jump is after the one, and not after the other
                middle = (early + late) // 2
                if self.at(middle * SECOND_NS) < wall_ns:
                    early = middle
                else:
                    late = middle
        except (ValueError, OverflowError):
            raise ConfigError(_LATE) from None
        return late * SECOND_NS

    def __repr__(self) -> str:
        return repr(
            self.zone if isinstance(self.zone, timezone) and self.name != "UTC" else self.name
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, WallClock) and self.name == other.name and self._fold == other._fold
        )

    def __hash__(self) -> int:
        return hash(self.name)


def _seconds(offset: timedelta | None) -> int:
    assert offset is not None  # of a zone that zone_of has given
    return offset // timedelta(seconds=1)


def _named(zone: Any) -> tuple[str, tzinfo]:
    """A time zone, and what it is called."""
    if zone is UTC or zone == "UTC":
        return "UTC", UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # which most programs do without

    if isinstance(zone, ZoneInfo):
        return str(zone), zone
    if isinstance(zone, timezone):
        return str(zone), zone
    if not isinstance(zone, str):
        raise ConfigError(
            f"zone={zone!r}: it is the name of a time zone, such as 'Europe/Berlin', or a ZoneInfo"
        )
    try:
        return zone, ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        from run_task._extras import install_command

        raise ConfigError(
            f"zone={zone!r}: no time zone of this name is known here ({error}): write a name such "
            f"as 'Europe/Berlin'; where the system has no time zones, as Windows, "
            f"{install_command('tzdata')}"
        ) from error
