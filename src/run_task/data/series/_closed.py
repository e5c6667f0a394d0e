"""Which end of a window belongs to it."""

from __future__ import annotations

import enum


class Closed(enum.Enum):
    """Which end of a window belongs to it, and so what the timestamps of a series mean.

    ::

        timestamps                   60    61   ...   119   120
        LEFT, window [60, 120)       in    in         in    out
        RIGHT, window (60, 120]      out   in         in    in
    """

    LEFT = "left"
    """``[start, end)``: a timestamp is the time at which something happened."""

    RIGHT = "right"
    """``(start, end]``: a timestamp is the end of the span of time that its row describes, as of a
    bar that is stamped with its close, or of the results of a stage."""
