"""Rows of a view in another order, each as often as it is wanted."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from run_task.data.series._column_types import Array
from run_task.data.series._texts import NO_CODE, Texts
from run_task.errors import ConfigError

MISSING: Final = -1
"""In the place of the number of a row: there is none."""

NO_TIME: Final = -(2**63)
"""The timestamp of a row that is missing: what NumPy takes for NaT in a column of times."""


class _Columns(Protocol):
    def array(self, position: int, first: int, stop: int) -> Array: ...

    def texts(self, column: int) -> Texts | None: ...


class GatheredStorage:
    """Some rows of another storage. A column is copied once it is asked for, and no other is.

    :param storage: where they lie
    :param rows: the number of each; ``MISSING``: there is no such row
    """

    __slots__ = ("_rows", "_storage", "_times", "in_order")

    def __init__(self, storage: _Columns, rows: NDArray[np.int64]) -> None:
        self._storage = storage
        self._rows = rows
        self._times: NDArray[np.int64] = self._of_each(0, rows)
        self._times[rows == MISSING] = NO_TIME
        self.in_order: bool = bool((self._times[1:] >= self._times[:-1]).all())
        """Whether the rows are in the order of time."""

    def _of_each(self, position: int, rows: NDArray[np.int64]) -> Array:
        stop = int(rows.max(initial=MISSING)) + 1
        column = self._storage.array(position, 0, stop)
        if not stop:
            return np.zeros(len(rows), column.dtype)
        # Of one that is missing it takes the last, which the caller writes over.
        return column[rows]

    def array(self, position: int, first: int, stop: int) -> Array:
        """Some rows of the timestamps (position 0) or of a column, copied, read-only.

        :raises ConfigError: if one of them is missing, and the column has no value that says so
        """
        rows = self._rows[first:stop]
        found = self._times[first:stop] if position == 0 else self._of_each(position, rows)
        missing = rows == MISSING
        if position and missing.any():
            if found.dtype.kind == "f":
                found[missing] = np.nan
            elif self.texts(position - 1) is not None:
                found[missing] = NO_CODE
            elif found.dtype.kind == "M":
                found[missing] = np.datetime64("NaT", "ns")
            else:
                raise ConfigError(
                    f"{int(np.count_nonzero(missing))} of the times that asof() was asked for come "
                    f"before the first row, and a column of {found.dtype} has no value that says "
                    f"so: ask for times from view.time[0] on, or make it a column of float, which "
                    f"has NaN"
                )
        found.flags.writeable = False
        return found

    def texts(self, column: int) -> Texts | None:
        """What the codes of a column stand for; None: it has none."""
        return self._storage.texts(column)

    def timestamp(self, row: int) -> int:
        """The timestamp of a row."""
        return int(self._times[row])

    def row_from(self, timestamp: int, first: int, stop: int) -> int:
        """The first row of some that has this timestamp or a later one; ``stop``: none has."""
        return bisect_left(self._times, timestamp, first, stop)
