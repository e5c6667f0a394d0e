"""Which rows of a source no window has seen yet, and how many pass out before one does."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

_MOST: Final = 4096
"""How many rows are noted before those are let go of that have passed out, at least."""


class UnseenRows:
    """The rows of one source that have entered a series of which rows pass out, and that no window
    has seen yet.

    Of each, the timestamp is kept, in order, in an array that has room at its end: so a window
    costs two binary searches, and not a look at each row that is still to be seen.

    :param settle: called when there are so many that most of them must have passed out
    """

    __slots__ = (
        *("_array", "_first", "_limit", "_ordered", "_seen_before", "_settle", "_single", "_stop"),
        "count",
    )

    def __init__(self, settle: Callable[[], None]) -> None:
        self._settle = settle
        self._array: NDArray[np.int64] = np.empty(_MOST, np.int64)
        # Its part that is in use is from _first to _stop, and in order up to _ordered.
        self._first = self._ordered = self._stop = 0
        self._single: list[int] = []  # the timestamps of those that came one by one since
        self._limit = _MOST
        self._seen_before: int | None = None
        self.count: int = 0
        """How many have passed out, and were not seen."""

    def add(self, time: int) -> None:
        """A row has entered."""
        self._single.append(time)
        if len(self._single) > self._limit:
            self._settle()

    def extend(self, times: NDArray[np.int64], *, in_order: bool = False) -> None:
        """Rows have entered.

        :param times: their timestamps
        :param in_order: whether they are known to be in the order of time
        """
        if self._seen_before is not None:
            times = times[times >= self._seen_before]
        in_order = in_order and len(times) > 0 and self._ordered == self._stop
        self._put(times)
        if in_order and (
            self._ordered == self._first or times[0] >= self._array[self._ordered - 1]
        ):
            self._ordered = self._stop
        if self._stop - self._first > self._limit:
            self._settle()

    def settle(self, kept: NDArray[np.int64], bound: int | None) -> None:
        """Count those that have passed out, and let go of those that a window sees now.

        :param kept: the timestamps of the rows of the series, in order
        :param bound: the window sees rows before this timestamp; None: there is no window
        """
        self._gather()
        self._seen_before = None
        times, first, stop = self._array.data, self._first, self._stop
        passed = stop
        if len(kept):
            oldest = int(kept[0])
            passed = bisect_left(times, oldest, first, stop)
            if passed < stop and times[passed] == oldest:
                # Of several of the oldest time, the first pass out first.
                noted = bisect_right(times, oldest, passed, stop) - passed
                passed += max(0, noted - int(kept.searchsorted(oldest, "right")))
        self.count += passed - first
        self._first = passed if bound is None else bisect_left(times, bound, passed, stop)
        self._limit = max(_MOST, 2 * len(kept))

    def saw(self, bound: int) -> None:
        """Windows have seen rows before any of them passed out, also those that enter from now on
        until :meth:`settle`.

        :param bound: they saw rows before this timestamp
        """
        self._gather()
        self._first = bisect_left(self._array.data, bound, self._first, self._stop)
        self._seen_before = bound

    def _gather(self) -> None:
        """Bring all into the array, in order."""
        if self._single:
            self._put(np.array(self._single, np.int64))
            self._single = []
        if self._ordered < self._stop:
            self._order()

    def _put(self, times: NDArray[np.int64]) -> None:
        first, stop = self._first, self._stop
        if stop + len(times) > len(self._array):
            # Moved only once as much is let go of as is left, or into twice the room.
            used = stop - first
            into, room = self._array, 2 * (used + len(times))
            if used > first or room > len(into) or len(into) > 4 * max(room, _MOST):
                into = np.empty(max(room, _MOST), np.int64)
            into[:used] = self._array[first:stop]
            self._array = into
            self._first, self._ordered, stop = 0, self._ordered - first, used
        self._stop = stop + len(times)
        self._array[stop : self._stop] = times

    def _order(self) -> None:
        """Let all be in the order of time: those that came in order are only looked at."""
        more = self._array[max(self._ordered - 1, self._first) : self._stop]
        if not (more[1:] >= more[:-1]).all():
            in_order = self._array[self._first : self._ordered]
            oldest = int(self._array[self._ordered : self._stop].min())
            moved = self._first + int(in_order.searchsorted(oldest, "right"))
            self._array[moved : self._stop].sort(kind="stable")  # merges what is in order
        self._ordered = self._stop
