"""NumPy's scalars and arrays, as JSON."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from run_task.sinks.encoding._tag import (
    Form,
    Inward,
    Tree,
    Types,
    UndecodableError,
    UnencodableError,
)

_KINDS: Final = "biufcmMUSO"
"""The kinds of dtypes of which an array can be: not those of bytes with a structure."""

_NAT: Final = -(2**63)
"""The bits of what is no time."""

_LONGEST_ITEM: Final = 2**24
"""How many bytes an item of an array that is read has at most: a short text must not take much."""


def plain_scalar(value: Any) -> Any:
    """What a scalar is among Python's types; one of NumPy's own, if only that has its value.

    :raises UnencodableError: if it has none that can be stored
    """
    if value.dtype.kind in "mM":
        return value
    if value.dtype.kind == "V":
        raise UnencodableError("a row of a structured array: return a dict of its fields")
    plain = value.item()
    if not isinstance(plain, np.generic):
        return plain
    made = complex(value) if value.dtype.kind == "c" else float(value)
    if np.array_equal(made, value, equal_nan=True):
        return made
    raise UnencodableError(f"a {type(value).__name__} that no float holds: return float(value)")


def _unit(dtype: np.dtype[Any]) -> str:
    unit, count = np.datetime_data(dtype)
    return unit if count == 1 else f"{count}{unit}"


def _moment(told: Any, kind: str, unit: str) -> Any:
    if unit == "generic":  # NumPy has such, and is about to make no more of them
        count = _NAT if told == "NaT" else told
        return np.array(count, "i8").view(kind)[()]
    return np.array(told, f"{kind}[{unit}]")[()]


def _datetime64(value: Any, _: Inward) -> Tree:
    unit, text = _unit(value.dtype), str(value)
    count = int(value.view("i8"))
    # The text of a week some billions of years away is another's.
    exact = int(_moment(text, "M8", unit).view("i8")) == count
    return [text if exact else count, unit]


def _timedelta64(value: Any, _: Inward) -> Tree:
    return ["NaT" if np.isnat(value) else int(value.view("i8")), _unit(value.dtype)]


def _to_moment(kind: str) -> Any:
    def decode(stored: Tree, _: Inward, __: Types) -> Any:
        told, unit = stored
        return _moment(told, kind, unit)

    return decode


def _array(value: Any, inward: Inward) -> Tree:
    kind: Any = value.__class__
    if kind is not np.ndarray:
        function = "filled()" if issubclass(kind, np.ma.MaskedArray) else "numpy.asarray()"
        raise UnencodableError(f"a {kind.__name__}: return {function} of it")
    dtype = value.dtype
    if dtype.kind not in _KINDS or dtype.char in "gG":
        raise UnencodableError(f"an array of {dtype}: return one of another dtype")
    flat = value.astype(dtype.newbyteorder("=")).ravel()
    if dtype.kind in "mM":
        data = flat.view("i8").tolist()
    elif dtype.kind in "biuf":
        data = flat.tolist()
    else:
        data = list(map(inward, flat.tolist()))
    name = dtype.name if dtype.isnative and dtype.kind not in "US" else dtype.str
    return {"dtype": name, "shape": list(value.shape), "data": data}


def _to_array(stored: Tree, inward: Inward, _: Types) -> Any:
    dtype, shape, data = np.dtype(str(stored["dtype"])), stored["shape"], stored["data"]
    if dtype.kind not in _KINDS or dtype.itemsize > _LONGEST_ITEM:
        raise UndecodableError(f"an array of {dtype} is none that is stored")
    if math.prod(shape) != len(data):
        raise UndecodableError(f"an array of {len(data)} items has not the shape {shape}")
    flat: Any
    if dtype.kind in "mM":
        flat = np.array(data, "i8").view(dtype.newbyteorder("=")).astype(dtype)
    elif dtype.kind == "O":
        flat = np.empty(len(data), dtype)
        for place, item in enumerate(data):
            flat[place] = inward(item)
    else:
        flat = np.array(list(map(inward, data)), dtype)
    return flat.reshape(shape)


DATETIME64: Final = Form("$datetime64", _datetime64, _to_moment("M8"))
TIMEDELTA64: Final = Form("$timedelta64", _timedelta64, _to_moment("m8"))
ARRAY: Final = Form("$ndarray", _array, _to_array)
