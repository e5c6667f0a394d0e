"""Results as numbers that can be drawn and compared."""

from __future__ import annotations

import math
import numbers
from decimal import Decimal
from typing import cast

import numpy as np


def as_number(value: object) -> float:
    """A result as a number that can be drawn; NaN if it is none."""
    if not isinstance(value, numbers.Real | Decimal | np.bool_):
        return math.nan
    try:
        return float(cast("float", value))
    except OverflowError:
        return math.nan
