"""Rows that lie in the memory of a series before they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from run_task.data.series._retention import Retention
from run_task.data.series._schema import Schema
from run_task.data.series._store import Lease, Store
from run_task.data.series._view import TimeSeriesView


class AheadRows:
    """Rows behind those that a series has, in the order of time, which nobody sees until they come.

    So a replay brings all rows of a batch into memory at once. The series has at each moment what
    it would have if they were added then, and what passes out for them passes out as they come.

    :param schema: what the rows are
    :param retention: which rows stay
    :param store: where they lie
    :param start: the first of them
    :param stop: the row after the last
    :param come: called with them, and the row after the last that has come then
    """

    __slots__ = ("_come", "_retention", "_schema", "at", "stop", "store")

    def __init__(
        self,
        schema: Schema,
        retention: Retention,
        store: Store,
        start: int,
        stop: int,
        come: Callable[[AheadRows, int], None],
    ) -> None:
        self._schema = schema
        self._retention = retention
        self._come = come
        self.store: Final = store
        """Where they lie."""
        self.stop: Final = stop
        """The row after the last."""
        self.at: int = start
        """The first that is yet to come."""

    def come(self, count: int) -> None:
        """Let the next of them be there to be seen.

        :param count: how many; one at least
        """
        self._come(self, self.at + count)
        self.at += count

    def view(self, first: int) -> TimeSeriesView:
        """A view of all of them, and of those before.

        :param first: the first row
        """
        return TimeSeriesView(self._schema, Lease(self.store, self.stop), first, self.stop)

    def kept(self, view: TimeSeriesView, limits: NDArray[np.int64]) -> NDArray[np.intp]:
        """The first row of :meth:`view` that is still there at some moments.

        :param view: the rows
        :param limits: rows before these timestamps have come by then, in ascending order
        """
        times = view.time
        return self._retention.firsts(times, times.searchsorted(limits))
