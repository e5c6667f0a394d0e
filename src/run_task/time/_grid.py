"""Where windows end: edges that tile time, in one unit."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_INT64 = np.iinfo(np.int64)


class Grid(Protocol):
    """Edges without end in either direction. From one to the next is one interval."""

    def after(self, time: int) -> int:
        """The first edge after a time."""
        ...

    def before(self, time: int) -> int:
        """The last edge before a time."""
        ...

    def floor(self, time: int) -> int:
        """The last edge that is not after a time."""
        ...

    def edges(self, since: int, until: int) -> NDArray[np.int64]:
        """All edges from one time to another, both included, in order."""
        ...


class FixedGrid:
    """Edges that are always equally far apart.

    :param period: how far
    :param offset: one of the edges
    """

    __slots__ = ("_offset", "_period")

    def __init__(self, period: int, offset: int = 0) -> None:
        self._period = period
        self._offset = offset % period

    def after(self, time: int) -> int:
        return time - (time - self._offset) % self._period + self._period

    def before(self, time: int) -> int:
        return time - 1 - (time - 1 - self._offset) % self._period

    def floor(self, time: int) -> int:
        return time - (time - self._offset) % self._period

    def edges(self, since: int, until: int) -> NDArray[np.int64]:
        first, end = self.after(since - 1), self.floor(until) + self._period
        if _INT64.min <= first and end <= _INT64.max:
            return np.arange(first, end, self._period, dtype=np.int64)
        return np.array(range(first, end, self._period), dtype=np.int64)

    def __repr__(self) -> str:
        return f"FixedGrid({self._period}, {self._offset})"
