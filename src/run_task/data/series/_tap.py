"""Following a series: whoever keeps a copy of it elsewhere is told what happens to it, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Any, NamedTuple, Protocol

import numpy as np

from run_task.data.series._closed import Closed
from run_task.data.series._column_types import Array
from run_task.data.series._schema import Schema
from run_task.data.series._store import Lease, Store
from run_task.data.series._texts import Texts
from run_task.data.series._view import TimeSeriesView
from run_task.time._interval import TaskInterval, TimeUnit


class SeriesPattern(NamedTuple):
    """What a series is, without its rows: as :class:`~run_task.TimeSeries` takes it."""

    columns: Mapping[str, np.dtype[Any]]
    unit: TimeUnit
    retention: int | TaskInterval | None
    closed: Closed
    zone: tzinfo | None
    key: str | None

    def schema(self) -> Schema:
        """What its rows are made of."""
        return Schema(self.columns, self.unit, self.closed, self.zone, self.key)


class Tap(Protocol):
    """Who follows a series. What it is told of a series comes under the series' lock: so it is
    quick, and calls nothing of the series."""

    def whole(self, view: TimeSeriesView, marks: int, /) -> None:
        """The series has these rows.

        :param view: all of them
        :param marks: how many views have been marked by now
        """
        ...

    def rows(self, times: Array, columns: Sequence[Array], texts: Mapping[int, Texts], /) -> None:
        """Rows have come, in this order.

        :param times: their timestamps; whoever keeps them makes a copy
        :param columns: the values of each column; of texts of any length their codes
        :param texts: what codes stand for, by the position of the column: other texts have another
            object, in which codes mean something else
        """
        ...

    def mark(self, mark: int, oldest: int, /) -> None:
        """Somebody has a view of all rows as they are now.

        :param mark: the number of the view, which is one more each time
        :param oldest: rows of an earlier timestamp have passed out
        """
        ...

    def unmark(self, mark: int, /) -> None:
        """Nobody has that view any more. From any thread, whatever lock it holds."""
        ...


class MarkedLease(Lease):
    """The lease of a view that those were told of who follow the series.

    :param store: where the rows lie
    :param until: the row after the last one
    :param mark: the number of the view
    :param taps: who was told
    """

    __slots__ = ("_taps", "mark")

    def __init__(self, store: Store, until: int, mark: int, taps: Sequence[Tap]) -> None:
        super().__init__(store, until)
        self.mark: int = mark
        self._taps = taps

    def __del__(self) -> None:
        super().__del__()
        for tap in self._taps:
            tap.unmark(self.mark)


def mark_of(storage: object) -> int | None:
    """The number of the view that has this storage; None: nobody was told of it."""
    return storage.mark if isinstance(storage, MarkedLease) else None
