"""The rows of a time series at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from run_task.data._block import Block
from run_task.data.series._column_types import Array
from run_task.data.series._schema import TIME, Layout, Schema
from run_task.data.series._store import Lease, Store
from run_task.time._interval import TimeUnit

if TYPE_CHECKING:
    import polars as pl

_SHOWN: Final = 3
"""How many rows a view's repr shows of either end."""


class Rows(Protocol):
    """Where a view has its rows from."""

    def array(self, position: int, first: int, stop: int) -> Array:
        """Some rows of the timestamps (position 0) or of a column, not copied, read-only."""
        ...


class Held:
    """Rows in arrays of their own, as a view by value has them."""

    __slots__ = ("_arrays",)

    def __init__(self, arrays: Sequence[Array]) -> None:
        self._arrays: Sequence[Array] = arrays

    def array(self, position: int, first: int, stop: int) -> Array:
        """Some rows of the timestamps (position 0) or of a column, not copied, read-only."""
        array = self._arrays[position][first:stop]
        array.flags.writeable = False
        return array


class TimeSeriesView:
    """Rows of a :class:`~run_task.TimeSeries` as they were when the view was taken.

    ::

        with trades.read() as view:
            minute = view.between(start, end)
            minute.time, minute["price"]  # NumPy arrays that cannot be written to
            minute.to_polars().group_by("symbol")

    It and every array of it stay as they are for as long as anyone holds them. Nothing is copied:
    the arrays are the series' own memory. A pickled view has copies of its own rows, or where the
    series lies in memory that processes share, only says where they are.

    Without arguments it is empty and has no columns, so it can stand as the default data of a
    ``ContextBuilder(TimeSeriesView)`` that is given a series by ``with_data``.
    """

    __slots__ = ("_arrays", "_first", "_rows", "_schema", "_stop", "_time", "_window")

    def __init__(
        self, schema: Schema | None = None, rows: Rows | None = None, first: int = 0, stop: int = 0
    ) -> None:
        self._schema = schema or Schema.empty()
        self._rows: Rows = rows or Held([np.empty(0, np.int64)])
        self._first = first
        self._stop = stop
        self._time: Array | None = None
        self._arrays: dict[str, Array] = {}  # those that were asked for, as the timestamps
        self._window: tuple[int, int, TimeSeriesView] | None = None

    @property
    def unit(self) -> TimeUnit:
        """The unit of timestamps."""
        return self._schema.unit

    @property
    def columns(self) -> Mapping[str, np.dtype[Any]]:
        """The dtype of each column, by name."""
        return {column.name: column.dtype for column in self._schema.columns}

    @property
    def time(self) -> NDArray[np.int64]:
        """The timestamps in ascending order, in :attr:`unit` since the Unix epoch; read-only."""
        time = self._time
        if time is None:
            time = self._time = self._rows.array(0, self._first, self._stop)
        return time

    def __getitem__(self, column: str) -> NDArray[Any]:
        """The values of a column, one for each timestamp; read-only.

        :raises KeyError: if there is no such column
        """
        array = self._arrays.get(column)
        if array is None:
            position = self._schema.positions.get(column)
            if position is None:
                if not self._schema.names:
                    raise KeyError(
                        f"there is no column {column!r}: this view is of no TimeSeries; give one "
                        f"by with_data()"
                    )
                names = ", ".join(map(repr, self._schema.names))
                raise KeyError(f"there is no column {column!r}: the columns are {names}")
            array = self._rows.array(position + 1, self._first, self._stop)
            self._arrays[column] = array
        return array

    # Else Python would take a view for a sequence, and index it by ints.
    __iter__: None = None
    __contains__: None = None

    def __len__(self) -> int:
        """How many rows there are."""
        return self._stop - self._first

    def between(self, start: int, end: int) -> TimeSeriesView:
        """The rows of the window ``[start, end)``, not copied.

        :param start: the first timestamp that is in it, in :attr:`unit`
        :param end: the first timestamp after it
        """
        window = self._window  # remembered, for the tasks of a tick ask for the same one
        if window is not None and window[0] == start and window[1] == end:
            return window[2]
        time = self.time
        first = self._first + int(time.searchsorted(start))
        stop = self._stop  # as for the window of a tick, which ends after all rows there are
        if stop > first and time[-1] >= end:
            stop = max(first, self._first + int(time.searchsorted(end)))
        found = TimeSeriesView(self._schema, self._rows, first, stop)
        self._window = (start, end, found)
        return found

    def to_arrow(self) -> Any:
        """A :class:`pyarrow.Table`: ``time`` without a time zone, and each column.

        Arrow has no minutes: they become seconds.

        :raises ConfigError: if pyarrow is not installed
        """
        from run_task.data.series._frames import to_arrow

        return to_arrow(self._table())

    def to_polars(self) -> pl.DataFrame:
        """A :class:`polars.DataFrame`: ``time`` without a time zone, and each column.

        polars has neither seconds nor minutes: they become milliseconds.

        :raises ConfigError: if polars is not installed
        """
        from run_task.data.series._frames import to_polars

        return to_polars(self._table())

    def to_pandas(self) -> Any:
        """A :class:`pandas.DataFrame`: ``time`` without a time zone, and each column.

        pandas has no minutes: they become seconds.

        :raises ConfigError: if pandas is not installed
        """
        from run_task.data.series._frames import to_pandas

        return to_pandas(self._table())

    def _table(self) -> dict[str, Array]:
        """The timestamps as NumPy's, and each column."""
        times: Array = self.time.view(f"M8[{self.unit.value}]")
        return {TIME: times, **{name: self[name] for name in self.columns}}

    def __reduce__(self) -> tuple[Any, ...]:
        rows = self._rows
        if isinstance(rows, Lease) and rows.store.block.shareable:
            store = rows.store
            store.export(self._stop)  # nobody will tell when it is done with
            return view_at, (store.block, store.layout, self._first, self._stop)
        return _by_value, (self._schema, [self.time, *(self[name] for name in self._schema.names)])

    def __repr__(self) -> str:
        count = len(self)
        if count <= 2 * _SHOWN:
            shown: list[int | None] = list(range(count))
        else:
            shown = [*range(_SHOWN), None, *range(count - _SHOWN, count)]
        cells = [[f"{TIME} ({self.unit.value})", *self._schema.names]]
        arrays = [self.time, *(self[name] for name in self._schema.names)]
        cells += [["..." if row is None else str(array[row]) for array in arrays] for row in shown]
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines = [
            "  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths))
            for line in cells
        ]
        return "\n".join([f"TimeSeriesView of {count:,} rows", *lines])


def view_at(block: Block, layout: Layout, first: int, stop: int) -> TimeSeriesView:
    """The view of some rows of a block. They stay as they are only if somebody sees to it."""
    return TimeSeriesView(layout.schema, Lease(Store(block, layout), stop), first, stop)


def _by_value(schema: Schema, arrays: Sequence[Array]) -> TimeSeriesView:
    return TimeSeriesView(schema, Held(arrays), 0, len(arrays[0]))
