"""Which panes of a series may have other rows than before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class PaneCounts:
    """Which panes may have other rows than when they were looked at last.

    Rows are only ever added to a series, anywhere, and let go of from its beginning. So a pane that
    has as many as before has the same, unless it is the one in which the series begins by now: of
    that, some may be gone and as many have been added.
    """

    __slots__ = ("_changed", "_counts", "_first", "look")

    def __init__(self) -> None:
        self.look: int = 0
        """How often they were looked at."""
        self._first = 0
        self._counts: NDArray[np.intp] = np.empty(0, np.intp)
        self._changed: NDArray[np.int64] = np.empty(0, np.int64)

    def forget(self) -> None:
        """Nothing is known any more of what was looked at."""
        self._counts = np.empty(0, np.intp)

    def note(self, first: int, counts: NDArray[np.intp], begun: int) -> NDArray[np.int64]:
        """Look at panes.

        :param first: the number of the first
        :param counts: how many rows each has
        :param begun: the number of the pane in which the series begins
        :return: for each, at which look its rows were last others than before
        """
        self.look += 1
        changed = np.full(len(counts), self.look)
        # The stretch that both have: of the panes from `start` to before `stop`.
        start = max(first, self._first)
        stop = min(first + len(counts), self._first + len(self._counts))
        if start < stop:
            now = slice(start - first, stop - first)
            before = slice(start - self._first, stop - self._first)
            same = counts[now] == self._counts[before]
            changed[now][same] = self._changed[before][same]
            if start <= begun < stop:
                changed[begun - first] = self.look
        self._first, self._counts, self._changed = first, counts, changed
        return changed
