"""The Unix epoch, and datetimes as nanoseconds since then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_MICROSECOND: Final = timedelta(microseconds=1)


def nanos_since_epoch(moment: datetime) -> int:
    """A datetime with a time zone, in nanoseconds since the Unix epoch, exactly."""
    return (moment - EPOCH) // _MICROSECOND * 1000


def from_nanos(nanos: int) -> datetime:
    """Nanoseconds since the Unix epoch as a datetime in UTC; less than a microsecond is dropped.

    :raises OverflowError: if it is beyond the years that a datetime has
    """
    return EPOCH + timedelta(microseconds=nanos // 1000)
