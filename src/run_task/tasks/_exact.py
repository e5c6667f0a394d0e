"""Whether what a table gives back is what was put into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np

_ATTOSECONDS: Final[Mapping[str, int]] = {
    "W": 604_800 * 10**18,
    "D": 86_400 * 10**18,
    "h": 3_600 * 10**18,
    "m": 60 * 10**18,
    "s": 10**18,
    "ms": 10**15,
    "us": 10**12,
    "ns": 10**9,
    "ps": 10**6,
    "fs": 10**3,
    "as": 1,
}
"""How long NumPy's units are; years and months are not of one length."""

_MOMENTS: Final[Any] = (np.datetime64, np.timedelta64)
_SEQUENCES: Final = (list, tuple)


def is_moment(value: object) -> bool:
    """Whether it is a time, or a length of time, of NumPy's."""
    return isinstance(value, _MOMENTS)


def moments_of(values: Sequence[Any], coarsest: str, seconds: str) -> Any:
    """Times, or lengths of time, as one array of NumPy's; NaT where there is None.

    :param values: all of them times, or all of them lengths, or None
    :param coarsest: of what unit the array is if all of them are days or longer
    :param seconds: of what unit it is if they are seconds, minutes or hours
    """
    found = [value for value in values if value is not None]
    units = [np.datetime_data(value.dtype)[0] for value in found]
    order = list(_ATTOSECONDS)
    # Of years, months and what has no unit, none stands in the order.
    finest = max((order.index(unit) for unit in units if unit in order), default=0)
    unit = order[min(finest, order.index("ns"))]
    unit = coarsest if unit in ("W", "D") else seconds if unit in ("h", "m", "s") else unit
    kind = found[0].dtype.kind
    return np.array(
        [np.array("NaT" if value is None else value, f"{kind}8[{unit}]") for value in values]
    )


def holds(got: Any, value: Any) -> bool:
    """Whether a table that gives one value back holds another.

    It does if they are equal, and of one type, where a list stands for a tuple or an array, too,
    and a float for an int that is equal to it.

    :param got: what is read from the table
    :param value: what was put into it
    """
    if got is value:
        return True
    try:
        return _is_equal(got, value)
    except Exception:  # of whatever they are: some cannot be compared
        return False


def _is_equal(got: Any, value: Any) -> bool:
    kind: Any = value.__class__
    if isinstance(value, float):
        return got.__class__ is float and (
            got != got if value != value else repr(got) == repr(value)
        )
    if kind is int:
        return got.__class__ in (int, float) and bool(got == value)
    if kind is np.ndarray:
        return holds(got, list(value) if value.ndim else value[()])
    if kind in _SEQUENCES:
        return (
            got.__class__ is list and len(got) == len(value) and all(map(holds, got, list(value)))
        )
    if kind is dict:
        return (
            got.__class__ is dict
            and got.keys() == value.keys()
            and all(holds(got[key], item) for key, item in value.items())
        )
    if is_moment(value):
        return _exactly(_as_moment(got)) == _exactly(value)
    if isinstance(value, datetime):
        return isinstance(got, datetime) and _same_time(got, value)
    return got.__class__ is kind and bool(got == value)


def _same_time(got: datetime, value: datetime) -> bool:
    if got.tzinfo is None or value.tzinfo is None:
        return got.tzinfo is value.tzinfo and got == value
    return got.astimezone(UTC) == value.astimezone(UTC)  # of one zone, the fold would not count


def _as_moment(got: Any) -> Any:
    """What a table gives, as NumPy has it, if it is a time."""
    for convert in ("to_datetime64", "to_timedelta64"):  # of pandas', with its nanoseconds
        if hasattr(got, convert):
            return getattr(got, convert)()
    if isinstance(got, date) and getattr(got, "tzinfo", None) is None:
        return np.datetime64(got)
    return np.timedelta64(got) if isinstance(got, timedelta) else got


def _exactly(value: Any) -> tuple[str, Any]:
    """A time as a number that is equal if and only if the time is, whatever its unit."""
    if not is_moment(value):
        return "", value
    kind = value.dtype.kind
    if np.isnat(value):
        return kind, None
    unit, count = np.datetime_data(value.dtype)
    if kind == "M" and unit in ("Y", "M"):
        days = value.astype("M8[D]")
        if days.astype(value.dtype) != value:  # beyond what days can tell
            return unit, int(value.view("i8"))
        value, unit, count = days, "D", 1
    number = int(value.view("i8")) * count
    return (kind, number * _ATTOSECONDS[unit]) if unit in _ATTOSECONDS else (unit, number)
