"""Columns of decimals, exactly: Arrow makes floats of them that are not always the nearest."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task._extras import need

Int64s = NDArray[np.int64]

_EXACT_DIGITS: Final = 1 << 53
"""Up to it a float holds every int."""

_EXACT_SCALE: Final = 22
"""10 to the power of it is the largest one that is a float."""

_INT64: Final = np.iinfo(np.int64)


def is_decimal(arrow_type: Any) -> bool:
    """Whether it is a type of decimals that Arrow can tell: it cannot where the scale is larger
    than what the type has room for, as a broken file may say."""
    if not need("pyarrow", "arrow").types.is_decimal(arrow_type):
        return False
    digits = int((arrow_type.bit_width - 1) * math.log10(2))
    return bool(abs(arrow_type.scale) <= digits)


def unscaled(column: Any) -> Int64s | None:
    """The digits of decimals as ints, which are so many of 10 to the power of minus their scale.

    :param column: an Arrow array of decimals
    :return: the ints, 0 where there is none; None if one takes more than 64 bits
    """
    pa = need("pyarrow", "arrow")
    try:
        column = column.cast(pa.decimal128(38, column.type.scale))
    except pa.ArrowInvalid:
        return None
    words = np.frombuffer(column.buffers()[1], np.int64)
    words = words.reshape(-1, 2)[column.offset : column.offset + len(column)]
    low, high = words[:, 0], words[:, 1]  # the lower half first, as Arrow has it in memory
    if column.null_count:
        there = column.is_valid().to_numpy(zero_copy_only=False)
        low, high = np.where(there, low, 0), np.where(there, high, 0)
    return low if bool((high == low >> 63).all()) else None


def floats_of(column: Any) -> Any:
    """Decimals as the nearest floats.

    :param column: an Arrow array of decimals
    :return: an Arrow array of float64
    """
    pa = need("pyarrow", "arrow")
    scale = column.type.scale
    digits = unscaled(column) if 0 <= scale <= _EXACT_SCALE else None
    if digits is None or bool(((digits > _EXACT_DIGITS) | (digits < -_EXACT_DIGITS)).any()):
        return column.cast(pa.string()).cast(pa.float64())
    # Both are exact, and so their quotient is the float that is nearest to the decimal.
    there = column.is_valid().to_numpy(zero_copy_only=False)
    return pa.array(digits / 10.0**scale, pa.float64(), mask=~there)


def times_of(column: Any, stored_ns: int, unit_ns: int) -> tuple[Int64s, NDArray[np.bool_]] | None:
    """Decimals that are timestamps, rounded down.

    :param column: an Arrow array of decimals
    :param stored_ns: how many nanoseconds they count
    :param unit_ns: how many nanoseconds the wanted unit has
    :return: the timestamps, and which of them were told; 0 stands for the others, and where there
        is none. None if they have too many digits for all of that to be in 64 bits
    """
    scale = column.type.scale
    digits = unscaled(column)
    shared = math.gcd(stored_ns * 10 ** max(-scale, 0), unit_ns * 10 ** max(scale, 0))
    factor = stored_ns * 10 ** max(-scale, 0) // shared
    divisor = unit_ns * 10 ** max(scale, 0) // shared
    if digits is None or divisor * factor > _INT64.max:
        return None
    whole, rest = np.divmod(digits, divisor)
    limit = _INT64.max // factor - 1  # what the rest adds is less than one
    good = (whole <= limit) & (whole >= -limit)
    return np.where(good, whole * factor + rest * factor // divisor, 0), good
