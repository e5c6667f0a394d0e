"""Columns of frames as arrays of NumPy that fit a column of a series.

They are read by what reads those of files, but for two things. What a frame has is what its owner
has made: a text is no number, though it may look like one. And nothing is made up: a null is NaN,
or NaT, and else nothing that a column could hold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task._extras import need
from run_task.columnar._arrow_columns import (
    checked,
    from_arrow,
    one_array,
)
from run_task.columnar._columns import Kind
from run_task.columnar._frame import is_moment
from run_task.columnar._timestamps import from_arrow as times_from_arrow
from run_task.columnar._timestamps import rescale
from run_task.time._interval import TimeUnit
from run_task.time._moment import NANOS
from run_task.time._wall_time import WallClock

_KINDS: Final[Mapping[str, Kind]] = {"f": float, "i": int, "u": int, "b": bool, "U": str}
_OF_NULLS: Final[Mapping[str, str]] = {
    "f": "float64",
    "i": "int64",
    "u": "uint64",
    "b": "bool_",
    "U": "string",
    "S": "binary",
}
_NEEDED: Final[Collection[Kind]] = (int, bool, str)
_MISSING: Final = (
    "there is a null, and only a column of floats, by NaN, or of times, by NaT, can say so"
)

Found = tuple[NDArray[Any], Mapping[int, str]]


def times(column: Any, unit: TimeUnit, clock: WallClock | None) -> Found:
    """The times of a frame as timestamps; what is finer than the unit is rounded down.

    :param column: an Arrow array, or a chunked one, of timestamps, dates or ints
    :param unit: the unit
    :param clock: what shows times that name no zone; None: there are none
    :return: the timestamps, and what is wrong with those that are none, by position
    """
    return times_from_arrow(_whole(column), unit.nanos, unit.nanos, clock)


def values(column: Any, dtype: np.dtype[Any]) -> Found:
    """The values of a column of a frame.

    Numbers are of the type that they have there: whether each of them fits into one of the series
    is the series' to say. What has to be made anew is exact, or a fault.

    :param column: an Arrow array, or a chunked one, of a type that fits
    :param dtype: what the column of the series holds
    :return: the array, and what is wrong with values that are none, by position
    """
    pa = need("pyarrow", "arrow")
    column = _whole(column)
    if pa.types.is_null(column.type):
        unit = np.datetime_data(dtype)[0] if dtype.kind == "M" else ""
        kind = pa.timestamp("s" if unit in ("D", "h", "m") else unit) if unit else None
        column = column.cast(kind or getattr(pa, _OF_NULLS[dtype.kind])())
    if dtype.kind == "M" and is_moment(column.type):
        return _moments(column.to_numpy(zero_copy_only=False), dtype)
    if dtype.kind == "S":
        return _of_width(*_bytes(column), dtype)
    if dtype.kind == "U" or not _is_number(column.type):
        found, faults = from_arrow(column, _KINDS[dtype.kind], None, needed=_NEEDED)
        return _of_width(found, _told(column, faults), dtype)
    if not column.null_count:
        return column.to_numpy(zero_copy_only=False), {}
    if dtype.kind == "f":
        if not pa.types.is_floating(column.type):  # the nearest float will do
            column = column.cast(pa.float64(), safe=False)
        return column.to_numpy(zero_copy_only=False), {}
    nothing = False if pa.types.is_boolean(column.type) else 0
    return column.fill_null(nothing).to_numpy(zero_copy_only=False), _missing(column)


def _whole(column: Any) -> Any:
    """As one array, in which nothing points to what is not there."""
    return checked(one_array(column) if hasattr(column, "num_chunks") else column)


def _is_number(found: Any) -> bool:
    types = need("pyarrow", "arrow").types
    return bool(types.is_integer(found) or types.is_floating(found) or types.is_boolean(found))


def _missing(column: Any) -> Mapping[int, str]:
    """Where there are nulls."""
    if not column.null_count:
        return {}
    nulls = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
    return dict.fromkeys(nulls.tolist(), _MISSING)


def _told(column: Any, faults: Mapping[int, str]) -> Mapping[int, str]:
    """The faults of a column, with those words for its nulls that are said here."""
    if not faults:
        return faults
    missing = _missing(column)
    pa = need("pyarrow", "arrow")
    if pa.types.is_dictionary(column.type):  # of which texts, too, may be null
        inner = _missing(column.dictionary)
        if inner:
            at = column.indices.fill_null(0).to_numpy(zero_copy_only=False)
            nulls = np.flatnonzero(np.isin(at, list(inner)))
            missing = {**dict.fromkeys(nulls.tolist(), _MISSING), **missing}
    return {**faults, **missing}


def _bytes(column: Any) -> Found:
    """Bytes, as objects."""
    pa = need("pyarrow", "arrow")
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    faults = _missing(column)
    found = column.to_numpy(zero_copy_only=False)
    if faults:
        found = found.copy()
        found[list(faults)] = b""
    return found, faults


def _of_width(found: NDArray[Any], faults: Mapping[int, str], dtype: np.dtype[Any]) -> Found:
    """Texts or bytes, as objects, in an array of fixed width where it holds all of them as they
    are; else as objects, of which the column finds the first that it does not hold."""
    width = dtype.itemsize // np.dtype(f"{dtype.kind}1").itemsize if dtype.kind in "US" else 0
    if not width:
        return found, faults
    end = "\0" if dtype.kind == "U" else b"\0"
    listed: list[Any] = found.tolist()
    if max(map(len, listed), default=0) > width or any(each.endswith(end) for each in listed):
        return found, faults
    return found.astype(dtype), faults


def _moments(found: NDArray[Any], dtype: np.dtype[Any]) -> Found:
    """Times of NumPy's in another unit."""
    own, wanted = (NANOS[np.datetime_data(each)[0]] for each in (found.dtype, dtype))
    if own == wanted:
        return found, {}
    none = np.isnat(found)
    counts: NDArray[np.int64] = np.where(none, 0, found.view(np.int64))
    made, good = rescale(counts, own, wanted)
    if wanted > own:
        good = made * (wanted // own) == counts
    made[none] = np.datetime64("NaT", "ns").view(np.int64)
    lost = np.flatnonzero(~good).tolist()
    reasons = {row: f"{found[row]} cannot be told exactly in {dtype}" for row in lost}
    return made.view(dtype), reasons
