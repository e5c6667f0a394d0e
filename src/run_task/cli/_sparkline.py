"""Numbers as a line of little bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

_BARS: Final = "▁▂▃▄▅▆▇█"
_GAP: Final = " "


def sparkline(values: Sequence[float], width: int) -> str:
    """The last values as bars, the lowest of them the least and the highest the tallest.

    :param values: what to draw; what is not finite is a gap
    :param width: how many characters to fill, the newest value on the right
    """
    shown = list(values[-width:]) if width > 0 else []
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return _GAP * width
    low, high = min(finite) / 2, max(finite) / 2  # halves, whose difference is finite, too
    span = high - low
    bars: list[str] = []
    for value in shown:
        if not math.isfinite(value):
            bars.append(_GAP)
        else:
            share = (value / 2 - low) / span if span > 0 else 0.0
            bars.append(_BARS[min(len(_BARS) - 1, int(share * len(_BARS)))])
    return "".join(bars).rjust(width)
