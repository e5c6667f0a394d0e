"""``Window``, the span of time that one tick is about."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class Window(NamedTuple):
    """The half-open span of time ``[start, end)``.

    Its times are ints since the Unix epoch, in the unit of the interval that it is a window of.
    """

    start: int
    """The first time that is in it."""

    end: int
    """The first time after it, and the timestamp of its DataSet."""


Due: TypeAlias = tuple[int, int, int]
"""A window on its way through a tick: its start, its end, and how late the tick is, in nanoseconds.

Most windows are never looked at, and a :class:`Window` takes ten times as long to make as a
plain tuple."""
