"""What a column of a time series holds, and how a value becomes part of it or is refused.

One rule for all kinds: a value is taken if nothing of it is lost. So an int goes into a column of
floats and ``3.0`` into one of ints, but ``3.5`` does not, nor a text that is longer than the
column is wide. Rounding to the nearest float is what floats are, and no loss. None is no
value: NaN in a column of floats, and refused by others.
"""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from run_task.errors import ConfigError
from run_task.observe._format import brief

Array: TypeAlias = NDArray[Any]

_UNITS: Final = ("D", "h", "m", "s", "ms", "us", "ns")
"""The units of timestamps that Arrow, polars and pandas can be given."""


_ANY_TEXT: Final = np.dtype(str)
"""NumPy's own word for texts whose width nobody has said."""


class InvalidValue(ValueError):
    """A value cannot be stored.

    :ivar row: its position among several; None: it is not about one of them
    """

    def __init__(self, reason: str, row: int | None = None) -> None:
        super().__init__(reason)
        self.row = row


class Column:
    """One column: its name, its dtype, and the way into it.

    :param name: what it is called
    :param kind: ``float``, ``int``, ``bool``, ``str``, or a NumPy dtype or its name, such as
        ``"U8"``
    :raises ConfigError: if it cannot be the kind of a column
    """

    __slots__ = ("convert", "dtype", "encoded", "exact", "name", "nullable")

    def __init__(self, name: str, kind: Any) -> None:
        self.name: str = name
        self.dtype: np.dtype[Any] = _dtype(name, kind)
        """Of its values; of texts of any length, ``numpy.dtype(str)``."""
        self.encoded: bool = self.dtype == _ANY_TEXT
        """Whether it holds texts of any length, of which a row has a code."""
        self.convert: Callable[[Any], Any] = _converter(self.dtype)
        """What is stored for a value; raises InvalidValue. For a timestamp, its count of units."""
        self.nullable: bool = self.dtype.kind == "f"
        """Whether it stores None, as NaN."""
        # Values of exactly this type are stored as they are: what does not fit, the store's
        # memoryview refuses.
        self.exact: type | None = {"f8": float, "b1": bool}.get(self.dtype.str[1:])
        if self.dtype.kind in "iu":
            self.exact = int

    def one(self, value: Any) -> Array:
        """An array of one value. :raises InvalidValue: if it cannot be stored"""
        return self._each((value,), 1)

    def many(self, values: Any) -> Array:
        """An array of values.

        :param values: an array, or a list, as :func:`listed` gives it
        :raises InvalidValue: if one of them cannot be stored
        """
        if self.encoded:
            return self._texts(values)
        if hasattr(values, "__array__"):
            array: Array = np.asarray(values)
        else:
            array = _array_of_one_type(values)
        if array.ndim != 1:
            raise InvalidValue(f"it has {array.ndim} dimensions, and a column has one")
        if array.dtype == self.dtype:
            return array
        cast = _CASTS.get(self.dtype.kind + array.dtype.kind)
        if cast is None:
            return self._each(values, len(array))
        cast_array, invalid = cast(array, self.dtype)
        if invalid is not None and invalid.any():
            row = int(invalid.argmax())
            reason = f"{brief(array[row])} does not fit"
            try:
                self.convert(array[row])
            except InvalidValue as known:
                reason = str(known)
            raise InvalidValue(reason, row)
        return cast_array

    def _texts(self, values: Any) -> Array:
        """Texts of any length, as objects."""
        listed_values: list[Any] = values
        if not isinstance(values, list):
            array: Array = np.asarray(values)
            if array.ndim != 1:
                raise InvalidValue(f"it has {array.ndim} dimensions, and a column has one")
            listed_values = array.tolist()
        if set(map(type, listed_values)) <= {str}:
            texts: Array = np.empty(len(listed_values), np.object_)
            texts[:] = listed_values
            return texts
        return self._each(listed_values, len(listed_values))

    def _each(self, values: Iterable[Any], count: int) -> Array:
        array: Array = np.empty(count, np.object_ if self.encoded else self.dtype)
        cells = array.view(np.int64) if self.dtype.kind == "M" else array
        for row, value in enumerate(values):
            if value is None and self.nullable:
                cells[row] = np.nan
                continue
            try:
                cells[row] = self.convert(value)
            except InvalidValue as invalid:
                raise InvalidValue(str(invalid), row) from None
        return array

    def __repr__(self) -> str:
        return f"{self.name} {'str' if self.encoded else self.dtype}"


def listed(values: Any) -> Any:
    """The values of many rows: an array as it is, and a list of what can be iterated over.

    :raises InvalidValue: if it cannot
    """
    if isinstance(values, np.ma.MaskedArray):
        return values.tolist()  # what is masked is None
    return values if hasattr(values, "__array__") else _listed(values)


def without_value(values: Any) -> NDArray[np.bool_] | None:
    """Which of many values are None.

    :param values: as :func:`listed` gives them
    :return: True for each that is; None: there is no such value
    """
    of_each: list[Any] = values
    if not isinstance(values, list):
        array: Array = np.asarray(values)
        if array.dtype.kind != "O":
            return None
        of_each = array.tolist()
    found = np.fromiter((value is None for value in of_each), np.bool_, len(of_each))
    return found if found.any() else None


def _listed(values: Any) -> list[Any]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise InvalidValue(f"{brief(values)} is one value, and there should be one for each row")
    return list(values)  # pyright: ignore[reportUnknownArgumentType]  whatever the caller gave


def _array_of_one_type(values: list[Any]) -> Array:
    """An array of Python's own numbers, if all are of one type and NumPy has one like it; it would
    make [1, "a"] texts, [1, True] ints and [2**63, -1] floats. Else an array of objects, which
    are looked at one by one."""
    types = set(map(type, values))
    if len(types) == 1:
        kinds = {bool: "b", int: "iu", float: "f"}.get(types.pop())
        if kinds:
            array: Array = np.array(values)
            if array.dtype.kind in kinds:
                return array
    return np.empty(len(values), object)


def _dtype(name: str, kind: Any) -> np.dtype[Any]:
    try:
        if kind is None:
            raise TypeError
        dtype = np.dtype(kind)
    except TypeError:
        raise ConfigError(
            f"column {name!r}: {kind!r} is no kind of column; take float, int, bool, str, 'U8' for "
            f"texts of up to 8 characters, 'S8' for as many bytes, or 'datetime64[ms]'"
        ) from None
    if dtype.kind == "S" and dtype.itemsize == 0:
        raise ConfigError(
            f"column {name!r}: a column of bytes needs a width: 'S8' holds up to 8 of them a row"
        )
    if dtype.kind == "M":
        unit, count = np.datetime_data(dtype)
        if unit not in _UNITS or count != 1:
            raise ConfigError(
                f"column {name!r}: timestamps need a unit, one of {', '.join(_UNITS)}: such as "
                f"'datetime64[ms]', not {dtype.name!r}"
            )
    elif dtype.kind not in "biufUS" or (dtype.kind == "f" and dtype.itemsize > 8):
        raise ConfigError(
            f"column {name!r}: a column holds floats, ints, bools, texts, bytes of fixed width, "
            f"or timestamps, and not {dtype}; a class of values goes into a column for each field"
        )
    native: np.dtype[Any] = dtype.newbyteorder("=")
    return native


def _converter(dtype: np.dtype[Any]) -> Callable[[Any], Any]:
    kind = dtype.kind
    if kind == "f":
        largest = float(np.finfo(dtype).max)
        return lambda value: _to_float(value, largest, dtype)
    if kind in "iu":
        info = np.iinfo(dtype)
        return lambda value: _to_int(value, int(info.min), int(info.max), dtype)
    if kind == "b":
        return _to_bool
    if kind == "M":
        return lambda value: _to_units(value, dtype)
    if dtype == _ANY_TEXT:
        return exact_text
    if kind == "U":
        return lambda value: _to_text(value, str, dtype.itemsize // 4)
    return lambda value: _to_text(value, bytes, dtype.itemsize)


def _is_numpy_int(value: Any) -> bool:
    # NumPy takes a length of time for an int.
    return isinstance(value, np.integer) and not isinstance(value, np.timedelta64)


def _number(value: Any) -> bool:
    return isinstance(value, (numbers.Number, np.bool_)) and not isinstance(
        value, (complex, np.complexfloating, np.timedelta64)
    )


def _to_float(value: Any, largest: float, dtype: np.dtype[Any]) -> float:
    if not _number(value):
        raise InvalidValue(f"{brief(value)} is no number")
    try:
        number = float(value)
    except OverflowError:
        number = np.inf
    if abs(number) > largest and value not in (np.inf, -np.inf):
        raise InvalidValue(f"{brief(value)} is too large for {dtype}")
    return number


def _to_int(value: Any, lowest: int, largest: int, dtype: np.dtype[Any]) -> int:
    if not _number(value):
        raise InvalidValue(f"{brief(value)} is no number")
    try:
        number = int(value)
    except (ValueError, OverflowError):
        raise InvalidValue(f"{brief(value)} is no int, and the column holds {dtype}") from None
    if number != value:
        raise InvalidValue(f"{brief(value)} has a fraction, and the column holds {dtype}")
    if not lowest <= number <= largest:
        raise InvalidValue(
            f"{brief(value)} is beyond {dtype}, which ends at {lowest} and {largest}"
        )
    return number


def _to_bool(value: Any) -> bool:
    if not _number(value) or value not in (0, 1):
        raise InvalidValue(f"{brief(value)} is neither True nor False")
    return bool(value)


def _to_text(value: Any, kind: type[str] | type[bytes], width: int) -> Any:
    if not isinstance(value, kind):
        raise InvalidValue(f"{brief(value)} is no {kind.__name__}")
    if len(value) > width:
        raise InvalidValue(f"{brief(value)} is longer than the {width} that the column holds")
    if value[-1:] in ("\0", b"\0"):
        raise InvalidValue(f"{brief(value)} ends in a NUL, which NumPy would cut off")
    return value


def exact_text(value: Any) -> str:
    """A text as Python's own, whatever class of its kind it is of.

    :raises InvalidValue: if it is no text
    """
    if type(value) is str:
        return value
    if not isinstance(value, str):
        raise InvalidValue(f"{brief(value)} is no str")
    return str.__str__(value)


def _to_units(value: Any, dtype: np.dtype[Any]) -> int:
    moment: Any = value
    if type(value) is int or _is_numpy_int(value):
        return _to_int(value, -(2**63), 2**63 - 1, np.dtype(np.int64))
    if hasattr(value, "to_datetime64"):
        moment = value.to_datetime64()  # of pandas, which knows nanoseconds
    elif isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.UTC).replace(tzinfo=None)
        moment = np.datetime64(value, "us")
    elif isinstance(value, datetime.date):
        moment = np.datetime64(value, "D")
    elif not isinstance(value, np.datetime64):
        raise InvalidValue(f"{brief(value)} is no timestamp")
    units = _exact_moment(moment, dtype)
    if units is None:
        raise InvalidValue(f"{brief(value)} cannot be told exactly in {dtype}")
    return int(units.astype(np.int64))


def _exact_moment(moment: Any, dtype: np.dtype[Any]) -> Any:
    """A timestamp in another unit; None: that cannot tell it, or not in 64 bits."""
    try:
        units = moment.astype(dtype)
        exact = np.isnat(moment) or units.astype(moment.dtype) == moment
    except OverflowError:  # of NumPy 2.5 and later; before, it wraps around
        return None
    return units if exact else None


# How an array of one kind becomes one of another, and which of its values do not fit.
_Cast: TypeAlias = Callable[[Array, "np.dtype[Any]"], tuple[Array, "NDArray[np.bool_] | None"]]


def _floats(array: Array, dtype: np.dtype[Any]) -> tuple[Array, NDArray[np.bool_] | None]:
    with np.errstate(over="ignore"):
        floats = array.astype(dtype)
    if np.can_cast(array.dtype, dtype):
        return floats, None
    return floats, np.isinf(floats) & ~np.isinf(array)


def _ints(array: Array, dtype: np.dtype[Any]) -> tuple[Array, NDArray[np.bool_] | None]:
    if np.can_cast(array.dtype, dtype):
        return array.astype(dtype), None
    info = np.iinfo(dtype)
    if array.dtype.kind == "f":
        # The bounds are powers of two, which floats hold exactly. NaN fails every comparison.
        wide = array.astype(np.float64)
        fits = (wide >= float(info.min)) & (wide < float(int(info.max) + 1))
        fits &= wide == np.trunc(wide)
    else:
        fits = (array >= info.min) & (array <= info.max)
    with np.errstate(invalid="ignore"):
        return array.astype(dtype), ~fits


def _bools(array: Array, dtype: np.dtype[Any]) -> tuple[Array, NDArray[np.bool_] | None]:
    return array.astype(dtype), (array != 0) & (array != 1)


def _texts(array: Array, dtype: np.dtype[Any]) -> tuple[Array, NDArray[np.bool_] | None]:
    if array.dtype.itemsize <= dtype.itemsize:
        return array.astype(dtype), None
    width = dtype.itemsize // np.dtype(f"{dtype.kind}1").itemsize
    return array.astype(dtype), np.char.str_len(array) > width


def _moments(array: Array, dtype: np.dtype[Any]) -> tuple[Array, NDArray[np.bool_] | None]:
    try:
        moments = array.astype(dtype)
        return moments, (moments.astype(array.dtype) != array) & ~np.isnat(array)
    except OverflowError:
        invalid = [_exact_moment(moment, dtype) is None for moment in array]
        return array, np.array(invalid, np.bool_)


def _counts(array: Array, dtype: np.dtype[Any]) -> tuple[Array, NDArray[np.bool_] | None]:
    counts, invalid = _ints(array, np.dtype(np.int64))
    return counts.view(dtype), invalid


_CASTS: Final[dict[str, _Cast]] = {
    **dict.fromkeys(("fb", "fi", "fu", "ff"), _floats),
    **dict.fromkeys(("ib", "ii", "iu", "if", "ub", "ui", "uu", "uf"), _ints),
    **dict.fromkeys(("bi", "bu", "bf"), _bools),
    **dict.fromkeys(("UU", "SS"), _texts),
    "MM": _moments,
    "Mi": _counts,
    "Mu": _counts,
}
