"""The part of a series that a shard has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task.cluster._messages import (
    EVERY_ROW,
    DropViews,
    KeepView,
    MoreRows,
    SentRows,
    SeriesChange,
    WholeSeries,
)
from run_task.data import TimeSeries
from run_task.data.series._column_types import Array
from run_task.data.series._schema import NewRows
from run_task.data.series._tap import SeriesPattern
from run_task.data.series._view import TimeSeriesView, placed


class Replica:
    """The rows of a series that belong to a shard, and the views of them that windows need.

    What passes out of retention depends on the rows of all shards: so a view ends with the row
    that the driver says, and the series itself keeps at least these.

    :param pattern: what the series is
    :param rows_at: gives the rows of some places, where rows are told so; None: they are sent
    """

    def __init__(
        self,
        pattern: SeriesPattern,
        rows_at: Callable[[NDArray[np.int64]], NewRows] | None = None,
    ) -> None:
        self._pattern = pattern
        self._rows_at = rows_at
        dtypes = pattern.columns.values()
        self._of_texts = [i for i, dtype in enumerate(dtypes) if dtype == _ANY_TEXT]
        self.series: TimeSeries = TimeSeries.of(pattern)
        """The rows, and how they are to be seen."""
        self._views: dict[int, TimeSeriesView] = {}
        self._texts: dict[int, NDArray[np.object_]] = {}

    def apply(self, changes: Sequence[SeriesChange]) -> None:
        """Do what has been done to the series."""
        for change in changes:
            match change:
                case MoreRows():
                    self._add(self.series, change.rows, self._texts)
                case KeepView():
                    self._views[change.mark] = self._view(change.oldest)
                case DropViews():
                    for mark in change.marks:
                        self._views.pop(mark, None)
                case WholeSeries():
                    self.series.restore(np.empty(0, np.int64), self._empty(), 0)
                    self._texts.clear()
                    self._views.clear()
                    self._add(self.series, change.rows, self._texts)

    def view(self, mark: int) -> TimeSeriesView:
        """A view that it was told to keep."""
        return self._views[mark]

    def view_of(self, rows: SentRows) -> TimeSeriesView:
        """A view of rows that came for one window."""
        series = TimeSeries.of(self._pattern._replace(retention=None))
        self._add(series, rows, {})
        return series.view()

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.series.view())

    def _add(
        self, series: TimeSeries, rows: SentRows, tables: dict[int, NDArray[np.object_]]
    ) -> None:
        if self._rows_at is not None:
            if len(rows.times):
                (places,) = rows.columns
                series.add(self._rows_at(places))
            return
        columns = list(rows.columns)
        for i, (codes, texts) in rows.texts.items():
            tables[i] = _with_texts(tables.get(i), codes, texts)
        for i in self._of_texts:
            columns[i] = tables[i][columns[i]] if len(columns[i]) else _NO_TEXTS
        if len(rows.times):
            series.add(NewRows(rows.times, columns, 0))

    def _empty(self) -> Sequence[Array]:
        return [
            _NO_TEXTS if dtype == _ANY_TEXT else np.empty(0, dtype)
            for dtype in self._pattern.columns.values()
        ]

    def _view(self, oldest: int) -> TimeSeriesView:
        view = self.series.view()
        if oldest == EVERY_ROW:
            return view
        schema, storage, first, stop, _ = placed(view)
        return TimeSeriesView(schema, storage, storage.row_from(oldest, first, stop), stop)


_ANY_TEXT: Final = np.dtype(str)
_NO_TEXTS: Final[NDArray[np.object_]] = np.empty(0, object)


def _with_texts(
    table: NDArray[np.object_] | None, codes: NDArray[Any], texts: Sequence[str]
) -> NDArray[np.object_]:
    needed = int(codes.max()) + 1
    if table is None or len(table) < needed:
        larger: NDArray[np.object_] = np.empty(2 * needed, object)
        if table is not None:
            larger[: len(table)] = table
        table = larger
    table[codes] = texts
    return table
