"""Times as users give them, as ints in a unit: ints, datetimes, and those of NumPy, pandas, polars
and Arrow, one by one or by column.

What is finer than the unit is rounded down. A time that names no zone is in the zone that somebody
said, or else refused; one of NumPy is in UTC, as NumPy has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.time._epoch import EPOCH, nanos_since_epoch
from run_task.time._interval import TimeUnit
from run_task.time._wall_time import DAY_NS, SECOND_NS, WallClock

TimeLike: TypeAlias = "int | datetime | np.datetime64[Any]"
"""A time: an int in the unit at hand, since the Unix epoch; a ``datetime`` with a time zone; or a
``numpy.datetime64``. A timestamp of pandas is a ``datetime``, too."""

_HOUR_NS: Final = 3_600 * SECOND_NS

NANOS: Final = {
    "W": 7 * DAY_NS,
    "D": DAY_NS,
    "h": _HOUR_NS,
    "m": 60 * SECOND_NS,
    "s": SECOND_NS,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
}
"""How many nanoseconds a unit of NumPy's has."""

_PER_NANO: Final = {"ps": 10**3, "fs": 10**6, "as": 10**9}
"""How many of a unit of NumPy's a nanosecond has."""

_END: Final = 2**63


class InvalidTime(ValueError):
    """Something is no time, or none that can be told here.

    :ivar row: its position among several; None: it is not about one of them
    """

    def __init__(self, reason: str, row: int | None = None) -> None:
        super().__init__(reason)
        self.row = row


def timestamp(value: Any, unit: TimeUnit, clock: WallClock | None = None) -> int:
    """A time as an int of 64 bits.

    :param value: an int in the unit, or a time of another kind
    :param unit: the unit
    :param clock: what shows a time that names no zone; None: nothing does
    :raises InvalidTime: if it is no time, or 64 bits do not hold it
    """
    if type(value) is int or _is_numpy_int(value):
        stamp = int(value)
    else:
        stamp = _nanos(value, unit, clock) // unit.nanos
    if not -_END <= stamp < _END:
        raise InvalidTime(f"the timestamp {brief(value)} does not fit in 64 bits of {_told(unit)}")
    return stamp


def first_from(value: Any, unit: TimeUnit, clock: WallClock | None = None) -> int:
    """The first timestamp that is not before a time.

    :param value: as for :func:`timestamp`
    :param unit: the unit of timestamps
    :param clock: as for :func:`timestamp`
    :raises InvalidTime: if it is no time
    """
    if type(value) is int or _is_numpy_int(value):
        return int(value)
    return -(-_nanos(value, unit, clock) // unit.nanos)


def nanos(value: Any, unit: TimeUnit, clock: WallClock | None = None) -> int:
    """A time, exactly, in nanoseconds since the Unix epoch.

    :param value: an int in the unit, or a time of another kind
    :param unit: the unit of ints
    :param clock: as for :func:`timestamp`
    :raises InvalidTime: if it is no time, or an int that 64 bits do not hold
    """
    if type(value) is int or _is_numpy_int(value):
        return timestamp(value, unit) * unit.nanos
    return _nanos(value, unit, clock)


def timestamps(values: Any, unit: TimeUnit, clock: WallClock | None = None) -> NDArray[np.int64]:
    """Times, as an array of 64-bit ints.

    :param values: an array or column, or what can be iterated over
    :param unit: the unit
    :param clock: as for :func:`timestamp`
    :raises InvalidTime: if one of them is no time, or 64 bits do not hold it
    """
    if isinstance(values, np.ma.MaskedArray):
        masked: Any = values  # pyright: ignore[reportUnknownVariableType] of whatever type
        missing: NDArray[np.bool_] = np.ma.getmaskarray(masked)
        if missing.any():
            raise InvalidTime("it is masked, and so no time", int(missing.argmax()))
        values = masked.data
    if not hasattr(values, "__array__"):
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise InvalidTime(f"{brief(values)} is one value, and there should be one for each row")
        values = list(values)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType] whatever the caller gave
    array, aware = _array(values)
    if array.ndim != 1:
        raise InvalidTime(f"the timestamps have {array.ndim} dimensions, and should have one")
    if array.dtype == np.int64:
        return array
    if array.dtype.kind in "iu" and np.can_cast(array.dtype, np.int64):
        return array.astype(np.int64)
    if array.dtype.kind == "M":
        if aware:
            clock = None
        elif clock is None and not isinstance(values, np.ndarray):
            raise InvalidTime(_without_zone("the times"))
        return _of_numpy(array, unit, clock)
    return _one_by_one(values, len(array), unit, clock)


def _one_by_one(
    values: Iterable[Any], count: int, unit: TimeUnit, clock: WallClock | None
) -> NDArray[np.int64]:
    # The ints of Arrow are none of Python's.
    of_arrow: Any = getattr(values, "to_pylist", None)
    each: Iterable[Any] = values if of_arrow is None else of_arrow()
    result = np.empty(count, np.int64)
    for row, value in enumerate(each):
        try:
            result[row] = timestamp(value, unit, clock)
        except InvalidTime as invalid:
            raise InvalidTime(str(invalid), row) from None
    return result


def _array(values: Any) -> tuple[NDArray[Any], bool]:
    """Times as an array, in UTC if they name a zone, and whether they do."""
    if isinstance(values, list):
        ints = {type(value) for value in values} == {int}  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType] whatever the caller gave
        whole: NDArray[Any] = np.array(values) if ints else np.empty(len(values), object)  # pyright: ignore[reportUnknownArgumentType] as above
        return whole, False
    kind: Any = getattr(values, "dtype", None)
    if kind is None:
        kind = getattr(values, "type", None)  # of Arrow
    kind = getattr(kind, "pyarrow_dtype", kind)  # of pandas over Arrow
    zone = getattr(kind, "tz", None) or getattr(kind, "time_zone", None)
    resolution = getattr(kind, "unit", None)
    if zone is not None and isinstance(resolution, str):  # pandas would make objects of them
        return np.asarray(values, f"M8[{resolution}]"), True
    return np.asarray(values), zone is not None


def _of_numpy(array: NDArray[Any], unit: TimeUnit, clock: WallClock | None) -> NDArray[np.int64]:
    missing = np.isnat(array)
    if missing.any():
        raise InvalidTime("NaT is no time", int(missing.argmax()))
    array = array.astype(array.dtype.newbyteorder("="), copy=False)  # its bits are read below
    resolution, count = np.datetime_data(array.dtype)
    own_ns = NANOS.get(resolution, 0) * count
    whole = own_ns and max(own_ns, unit.nanos) % min(own_ns, unit.nanos) == 0
    if whole and (clock is None or count == 1):
        values: NDArray[np.int64] = array.view(np.int64)
        if clock is not None:
            try:
                values, own_ns = in_utc(values, own_ns, clock)
            except ConfigError:  # one of them is beyond a calendar: it is found below
                return _one_by_one(array, len(array), unit, clock)
        if own_ns <= unit.nanos:
            return values // (unit.nanos // own_ns)
        factor = own_ns // unit.nanos
        limit = (_END - 1) // factor
        beyond = (values > limit) | (values < -limit)
        if not beyond.any():
            return values * factor
    return _one_by_one(array, len(array), unit, clock)


def in_utc(
    walls: NDArray[np.int64], own_ns: int, clock: WallClock
) -> tuple[NDArray[np.int64], int]:
    """What clocks show, in UTC, and in which unit that is: in seconds at the longest.

    :param own_ns: how many nanoseconds the unit of what they show has
    :raises ConfigError: if one is beyond the years of a calendar
    """
    if own_ns > SECOND_NS:
        if len(walls) and max(-int(walls.min()), int(walls.max())) > _END // own_ns * SECOND_NS:
            raise ConfigError("a time is beyond the years of a calendar")
        walls, own_ns = walls * (own_ns // SECOND_NS), SECOND_NS
    hours, of_each = np.unique(walls // (_HOUR_NS // own_ns), return_inverse=True)
    behind = np.empty(len(hours), np.int64)
    changing: list[int] = []
    for at, hour in enumerate(hours.tolist()):
        first, last = hour * _HOUR_NS, (hour + 1) * _HOUR_NS - 1
        behind[at] = (clock.when(first) - first) // own_ns
        if clock.when(last) - last != clock.when(first) - first:
            changing.append(at)
    found = walls + behind[of_each]
    for row in np.flatnonzero(np.isin(of_each, changing)).tolist():
        found[row] = clock.when(int(walls[row]) * own_ns) // own_ns
    return found, own_ns


def _nanos(value: Any, unit: TimeUnit, clock: WallClock | None) -> int:
    """A time that is no int, in nanoseconds since the Unix epoch."""
    if isinstance(value, np.datetime64):
        moment: Any = value  # pyright: ignore[reportUnknownVariableType] of whatever unit
        wall = _nanos_of_numpy(moment)
        return wall if clock is None else _when(clock, wall)
    if isinstance(value, datetime):
        if value != value:  # as the NaT of pandas
            raise InvalidTime(f"{value!r} is no time")
        finer: int = getattr(value, "nanosecond", 0)  # a timestamp of pandas has them
        if value.utcoffset() is not None:
            return nanos_since_epoch(value) + finer
        wall = nanos_since_epoch(value.replace(tzinfo=UTC)) + finer
    elif isinstance(value, date):
        wall = (value - EPOCH.date()).days * DAY_NS
    elif hasattr(value, "as_py"):  # of Arrow
        return _nanos_of_arrow(value, unit, clock)
    else:
        raise InvalidTime(
            f"the timestamp {brief(value)} is no int, and no time: give a datetime with a time "
            f"zone, or count {_told(unit)} since the Unix epoch; now is "
            f"time.time_ns() // {unit.nanos:_}"
        )
    if clock is None:
        raise InvalidTime(_without_zone(repr(value)))
    return _when(clock, wall)


def _when(clock: WallClock, wall_ns: int) -> int:
    try:
        return clock.when(wall_ns)
    except ConfigError as error:
        raise InvalidTime(str(error)) from None


def _nanos_of_numpy(value: np.datetime64[Any]) -> int:
    if np.isnat(value):
        raise InvalidTime("NaT is no time")
    resolution, count = np.datetime_data(value.dtype)
    if resolution in ("Y", "M"):
        value = value.astype("M8[D]")
        resolution, count = "D", 1
    number = int(value.astype(np.int64)) * count
    per_nano = _PER_NANO.get(resolution)
    return number * NANOS[resolution] if per_nano is None else number // per_nano


def _nanos_of_arrow(value: Any, unit: TimeUnit, clock: WallClock | None) -> int:
    """Of a scalar of Arrow, which makes a datetime of one only where that can tell it."""
    resolution = getattr(value.type, "unit", None)
    if resolution not in NANOS or not hasattr(value.type, "tz") or value.value is None:
        return _nanos(value.as_py(), unit, clock)
    wall: int = value.value * NANOS[resolution]
    if value.type.tz is not None:
        return wall
    if clock is None:
        raise InvalidTime(_without_zone(repr(value)))
    return _when(clock, wall)


def _is_numpy_int(value: Any) -> bool:
    # NumPy takes a length of time for an int.
    return isinstance(value, np.integer) and not isinstance(value, np.timedelta64)


def _without_zone(what: str) -> str:
    return (
        f"{what} name{'' if what == 'the times' else 's'} no time zone: give times that do, such "
        f"as datetime(2024, 1, 1, tzinfo=UTC), or say by zone= which they mean"
    )


def _told(unit: TimeUnit) -> str:
    return unit.name.lower()
