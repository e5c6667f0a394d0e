"""Which rows of a time series stay when new ones come."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task.data.series._store import Store
from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.time._interval import TaskInterval, TimeUnit
from run_task.time._length import in_short, length

_STEPS: Final = 8
"""How many rows are looked at one by one before a binary search is cheaper."""

_SMALLEST: Final = 64
"""For how many rows a store has room at least."""

_MOST: Final = 2**63 - 1
"""How many rows stay at most, if not all do."""

_EARLY: Final = 16
_EARLY_BYTES: Final = 1 << 28
"""How many times as large a store is as the one it replaces, as long as it stays below so many
bytes. Memory is taken up only where it is written to, and to be given new memory takes several
times as long as writing to it: so it is better to have room, and not to copy."""

_LARGE: Final = 1 << 24
"""Of how many retained bytes of a column a page of 2 MiB is a small part: an eighth."""


class Retention:
    """How many of the last rows stay, or for how long before the newest.

    :param keep: a number of rows, a length of time, or None for all
    :param unit: the unit of the series' timestamps
    :raises ConfigError: if it is none of these
    """

    __slots__ = ("_text", "limited", "rows", "span", "value")

    def __init__(self, keep: Any, unit: TimeUnit) -> None:
        kept = as_kept(keep, unit)
        self.value: int | TaskInterval | None = kept
        self.rows: int | None = None
        self.span: int | None = None  # in units; what is less than a unit makes no difference
        self.limited: bool = kept is not None
        self._text = ""
        if isinstance(kept, TaskInterval):
            self.span = kept.nanos // unit.nanos
            self._text = in_short(kept)
        elif kept is not None:
            self.rows = kept
            self._text = f"{kept:,} rows"

    @property
    def large_bytes(self) -> int:
        """How many bytes of a column are written to before it may go on in pages of 2 MiB, of the
        last of which only the first row may be written: with a retention twice what is retained."""
        return 2 * _LARGE if self.limited else _LARGE

    def first(self, store: Store, first: int, stop: int, newest: int) -> int:
        """The first row that stays, of those from ``first`` to ``stop``."""
        if self.rows is not None:
            return max(first, stop - self.rows)
        if self.span is not None:
            oldest, times, row = newest - self.span, store.times, first
            while times[row] < oldest:  # the newest is not
                row += 1
                if row - first > _STEPS:
                    return first + int(np.searchsorted(store.arrays[0][first:stop], oldest))
            return row
        return first

    def firsts(self, times: NDArray[np.int64], stops: NDArray[np.intp]) -> NDArray[np.intp]:
        """The same at several moments.

        :param times: of the rows, in order
        :param stops: the row after the last that has come by then
        :return: the first that stays
        """
        if self.rows is not None:
            return np.maximum(stops - self.rows, 0)
        if self.span is None or not len(times):
            return np.zeros(len(stops), np.intp)
        span = min(self.span, _MOST)
        newest = np.maximum(times[np.maximum(stops - 1, 0)], -_MOST - 1 + span)
        return times.searchsorted(newest - span)

    def oldest(self, times: NDArray[np.int64], newest: int) -> int | None:
        """Rows that are older than this do not stay, once a row as new as ``newest`` is there.

        :param times: of the rows that are there
        """
        if self.span is not None:
            return newest - self.span
        if self.rows is not None and len(times) >= self.rows:
            return int(times[0])
        return None

    def passing(self, times: NDArray[np.int64], more: NDArray[np.int64]) -> int:
        """How many rows pass out.

        :param times: of the rows, in order
        :param more: of more rows, after these; one at least
        """
        if self.rows is not None:
            return max(0, len(times) + len(more) - self.rows)
        if self.span is not None:
            oldest = max(int(more[-1]) - self.span, -(2**63))
            passing = int(times.searchsorted(oldest))
            if passing == len(times):
                passing += int(more.searchsorted(oldest))
            return passing
        return 0

    def capacity(self, rows: int, row_bytes: int, *, growing: bool = False) -> int:
        """For how many rows a new store has room, that begins with so many.

        Memory is taken up only where rows are written. Of a series with a retention that is as
        long as it will be, twice the rows are, and the rest lies idle unless it grows, or views
        keep its rows from being written over.

        :param row_bytes: how many bytes a row takes
        :param growing: whether no row has passed out yet
        """
        room = max(2 * rows, min(_EARLY * rows, _EARLY_BYTES // row_bytes))
        if self.rows is not None:
            if 3 * rows >= self.rows:
                room = max(3 * self.rows, rows)  # there may be more of them that are yet to come
        elif self.span is not None and not growing:
            room = 3 * rows
        return max(room, _SMALLEST)

    def __str__(self) -> str:
        return self._text


def as_kept(keep: Any, unit: TimeUnit) -> int | TaskInterval | None:
    """A retention as a user gives it, as it is kept.

    :param keep: a number of rows, a length of time, or None for all
    :param unit: the unit of the series' timestamps
    :raises ConfigError: if it is none of these
    """
    if keep is None or (type(keep) is int and 0 < keep <= _MOST):
        return keep
    if type(keep) is int or not isinstance(keep, TaskInterval | timedelta | str):
        raise ConfigError(
            f"TimeSeries(retention={brief(keep)}): it is a positive int, how many rows stay, or a "
            f"length of time, such as '1h', for how long before the newest, or None for all"
        )
    return length(keep, "TimeSeries(retention={})", unit)
