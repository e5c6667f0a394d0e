"""The rows of a time series at one moment."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from run_task.columnar._aware_times import zone_name
from run_task.data._block import Block
from run_task.data.series._closed import Closed
from run_task.data.series._column_types import Array
from run_task.data.series._gathered import MISSING, NO_TIME, GatheredStorage
from run_task.data.series._schema import TIME, BlockLayout, Schema
from run_task.data.series._store import Lease, StoredRows
from run_task.data.series._texts import EncodedTexts, TextBlocks, Texts, texts_at
from run_task.errors import ConfigError
from run_task.time._interval import TimeUnit
from run_task.time._moment import TimeLike
from run_task.time._shown import stamp_shown

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

NO_TEXTS: Final[Mapping[int, Any]] = {}

_SHOWN: Final = 3
"""How many rows a view's repr shows of either end."""


class Storage(Protocol):
    """Where the rows of a view lie."""

    def array(self, position: int, first: int, stop: int) -> Array:
        """Some rows of the timestamps (position 0) or of a column, not copied, read-only."""
        ...

    def texts(self, column: int) -> Texts | None:
        """What the codes of a column stand for; None: it has none."""
        ...

    def timestamp(self, row: int) -> int:
        """The timestamp of a row."""
        ...

    def row_from(self, timestamp: int, first: int, stop: int) -> int:
        """The first row of some that has this timestamp or a later one; ``stop``: none has."""
        ...


class ArrayStorage:
    """Rows in arrays of their own, as a view by value has them.

    :param arrays: the timestamps and each column
    :param texts: what codes stand for, of each column that has any
    """

    __slots__ = ("_arrays", "_texts")

    def __init__(self, arrays: Sequence[Array], texts: Mapping[int, Texts]) -> None:
        self._arrays: Sequence[Array] = arrays
        self._texts = texts

    def array(self, position: int, first: int, stop: int) -> Array:
        """Some rows of the timestamps (position 0) or of a column, not copied, read-only."""
        array = self._arrays[position][first:stop]
        array.flags.writeable = False
        return array

    def texts(self, column: int) -> Texts | None:
        """What the codes of a column stand for; None: it has none."""
        return self._texts.get(column)

    def timestamp(self, row: int) -> int:
        """The timestamp of a row."""
        return int(self._arrays[0][row])

    def row_from(self, timestamp: int, first: int, stop: int) -> int:
        """The first row of some that has this timestamp or a later one; ``stop``: none has."""
        return bisect_left(self._arrays[0], timestamp, first, stop)


class TimeSeriesView:
    """Rows of a :class:`~run_task.TimeSeries` as they were when the view was taken.

    ::

        @task
        def mean(trades: TimeSeriesView, start: int, end: int) -> float:
            window = trades.in_window
            window.time, window["price"]  # NumPy arrays that cannot be written to
            window.to_polars().group_by("symbol")

    It and every array of it stay as they are for as long as anyone holds them. Nothing is copied:
    the arrays are the series' own memory. A pickled view has copies of its own rows, or where the
    series lies in memory that processes share, only says where they are.

    The view that a task gets ends with the task's window: rows after it are not in it, however late
    the task runs, and rows before it are.

    :meth:`TimeSeries.read` gives one, and so do its own methods: it is not made by hand.
    """

    __slots__ = ("_arrays", "_first", "_latest", "_schema", "_stop", "_storage", "_time", "_window")

    def __init__(
        self,
        schema: Schema,
        storage: Storage,
        first: int,
        stop: int,
        window: tuple[int, int] | None = None,
    ) -> None:
        self._schema = schema
        self._storage = storage
        self._first = first
        self._stop = stop
        self._window = window  # of the task that has it, in the unit of the series
        self._time: Array | None = None
        self._arrays: dict[str, Array] | None = None  # those that were asked for
        self._latest: tuple[int, int, TimeSeriesView] | None = None  # of what between() was asked

    @property
    def unit(self) -> TimeUnit:
        """The unit of timestamps."""
        return self._schema.unit

    @property
    def closed(self) -> Closed:
        """Which end of a window belongs to it."""
        return self._schema.closed

    @property
    def key(self) -> Any:
        """The key whose rows these are, a text or an int, of the view that a task is given that is
        run by key.

        :raises AttributeError: of any other view, also of a part of that one, as its ``in_window``
        """
        raise AttributeError(
            "key: only the view that a task is given knows it, where its stage has by= or its "
            "runner with_key(); a part of that view, such as its in_window, does not"
        )

    @property
    def columns(self) -> Mapping[str, np.dtype[Any]]:
        """The dtype of each column, by name."""
        return {column.name: column.dtype for column in self._schema.columns}

    @property
    def time(self) -> NDArray[np.int64]:
        """The timestamps in ascending order, in :attr:`unit` since the Unix epoch; read-only."""
        time = self._time
        if time is None:
            time = self._time = self._storage.array(0, self._first, self._stop)
        return time

    def __getitem__(self, column: str) -> NDArray[Any]:
        """The values of a column, one for each timestamp; read-only.

        :raises KeyError: if there is no such column
        """
        arrays = self._arrays
        if arrays is None:  # to look for it and to fail costs as much as the rest
            arrays = self._arrays = {}
        else:
            try:  # all tasks of a tick but the first find it
                return arrays[column]
            except KeyError:
                pass
        position = self._schema.positions.get(column)
        if position is None:
            names = ", ".join(map(repr, self._schema.names))
            raise KeyError(f"there is no column {column!r}: the columns are {names}")
        array = self._storage.array(position + 1, self._first, self._stop)
        if self._schema.columns[position].encoded:
            texts = self._storage.texts(position)
            if texts is not None:
                array = texts.decode(array)
        arrays[column] = array
        return array

    def encoded(self, column: str) -> EncodedTexts:
        """A column of texts as codes and what they stand for, not copied.

        ::

            codes, texts = view.encoded("symbol")
            texts[codes]  # the same as view["symbol"]

        :param column: a column that was declared as ``str``
        :raises KeyError: if there is no such column
        """
        position = self._schema.positions.get(column)
        texts = None if position is None else self._storage.texts(position)
        if position is None or texts is None:
            encoded = [each.name for each in self._schema.columns if each.encoded]
            names = ", ".join(map(repr, encoded)) or "none"
            raise KeyError(f"{column!r} is no column of texts of any length: these are {names}")
        return texts.encoded(self._storage.array(position + 1, self._first, self._stop))

    # Else Python would take a view for a sequence, and index it by ints.
    __iter__: None = None
    __contains__: None = None

    def __len__(self) -> int:
        """How many rows there are."""
        return self._stop - self._first

    @property
    def in_window(self) -> TimeSeriesView:
        """The rows of the window of the task that has this view, not copied: ``[start, end)``, or
        ``(start, end]`` of a series that is closed on the right.

        :raises ConfigError: if it is no task's, as one that ``read()`` gave
        """
        window = self._window
        if window is None:
            raise ConfigError(
                "this view has no window: in_window is for the view that a runner or a pipeline "
                "gives its tasks; of one that read() gave, take between(start, end)"
            )
        start, end = window
        latest = self._latest
        if latest is not None and latest[0] is start and latest[1] is end:
            return latest[2]
        return self._between(start, end)

    def between(self, start: TimeLike, end: TimeLike) -> TimeSeriesView:
        """The rows from ``start`` to ``end``, not copied: those of ``[start, end)``, or of
        ``(start, end]`` if the series is closed on the right.

        :param start: when they begin: an int in :attr:`unit`, an aware datetime, or a
            ``numpy.datetime64``
        :param end: when they end
        :raises ConfigError: if one of them is no time
        """
        latest = self._latest  # the tasks of a tick ask for the same one
        if latest is not None and latest[0] is start and latest[1] is end:
            return latest[2]
        if type(start) is int and type(end) is int:
            return self._between(start, end)
        return self._between(self._schema.bound(start), self._schema.bound(end))

    def asof(self, times: Any) -> TimeSeriesView:
        """For each time the last row by then, one that is stamped with the time itself included:
        as ``pandas.merge_asof`` and the ``join_asof`` of polars join, looking backward.

        ::

            last = quotes.asof(trades)  # a row for each trade
            spread = trades["price"] - last["bid"]
            age = trades.time - last.time

        The result has as many rows as there are times, in their order, so its columns line up with
        what is stamped with these; a row may stand in it several times. Its :attr:`time` is when
        each row was stamped, and not the time that was asked for, which the caller has: so it shows
        how old each is. Only the columns that are looked at are copied. Times that are in no order
        give rows in none, of which :meth:`between` and ``asof`` cannot be asked.

        Before the first row there is none. In both libraries such a time keeps its place and has no
        value, and so it does here, since one early trade is not to cost all others: a column of
        floats has NaN there, one of times NaT, and :attr:`time` has -2**63, which is NaT as a
        ``numpy.datetime64``. An int, a bool or a text cannot say that it is none: to look at such
        a column is refused if a row is missing.

        :param times: an array, a list, or a column of pandas, polars or Arrow, in any order: ints
            in :attr:`unit`, aware datetimes, or ``numpy.datetime64``, of which what is finer than
            the unit is rounded down; a single such time; or another view, of whatever unit, for
            the times of its rows
        :raises ConfigError: if one of them is no time: the message names it; or if the rows of this
            view are not in the order of time
        """
        self._check_order("asof()")
        asked = self._asked(times)
        rows = self.time.searchsorted(asked, "right") + (self._first - 1)
        rows[rows < self._first] = MISSING
        gathered = GatheredStorage(self._storage, rows)
        return TimeSeriesView(self._schema, gathered, 0, len(rows))

    def _asked(self, times: Any) -> NDArray[np.int64]:
        """The times that were asked for, in :attr:`unit`."""
        if isinstance(times, TimeSeriesView):
            return self._schema.timestamps_in(times.time, times.unit)
        single = isinstance(times, (int, date)) or (
            not hasattr(times, "__len__") and not hasattr(times, "__iter__")
        )
        return self._schema.timestamps([times] if single else times)

    def _check_order(self, what: str) -> None:
        if isinstance(self._storage, GatheredStorage) and not self._storage.in_order:
            raise ConfigError(
                f"{what} of rows that are in no order, as asof() gave them: give it its times in "
                f"order, such as by np.sort()"
            )

    def _between(self, start: int, end: int) -> TimeSeriesView:
        """The rows between two bounds, in :attr:`unit`; remembered."""
        latest = self._latest
        if latest is not None and latest[0] == start and latest[1] == end:
            return latest[2]
        self._check_order("between()")
        # Not by the array of timestamps, which takes longer to make than it saves.
        schema, storage, first, stop = self._schema, self._storage, self._first, self._stop
        beyond = schema.beyond
        first = storage.row_from(start + beyond, first, stop)
        if stop > first and storage.timestamp(stop - 1) >= end + beyond:
            stop = storage.row_from(end + beyond, first, stop)
        found = TimeSeriesView(schema, storage, first, stop)
        self._latest = (start, end, found)
        return found

    def for_window(self, start: int, end: int) -> TimeSeriesView:
        """The rows up to the end of a window, not copied, as its tasks see them: the view of
        which :attr:`in_window` are the rows within.

        A runner calls it for each tick; a test of a task may, too.

        :param start: the start of the window, in :attr:`unit`
        :param end: its end
        """
        schema, storage, first, stop = self._schema, self._storage, self._first, self._stop
        limit = end + schema.beyond
        if stop > first and storage.timestamp(stop - 1) >= limit:
            stop = storage.row_from(limit, first, stop)
        return TimeSeriesView(schema, storage, first, stop, (start, end))

    def to_arrow(self) -> Any:
        """A :class:`pyarrow.Table`: ``time``, in the zone of the series or else in UTC, and each
        column. A series of these columns takes it back by :meth:`TimeSeries.extend`.

        Arrow has no minutes: they become seconds.

        :raises ConfigError: if pyarrow is not installed, or cannot hold a time
        """
        from run_task.data.series._frames import to_arrow

        return to_arrow(*self._table())

    def to_polars(self) -> pl.DataFrame:
        """A :class:`polars.DataFrame`: ``time``, in the zone of the series or else in UTC, and each
        column. A series of these columns takes it back by :meth:`TimeSeries.extend`.

        polars has neither seconds nor minutes: they become milliseconds.

        :raises ConfigError: if polars is not installed, or cannot hold a time
        """
        from run_task.data.series._frames import to_polars

        return to_polars(*self._table())

    def to_pandas(self) -> Any:
        """A :class:`pandas.DataFrame`: ``time``, in the zone of the series or else in UTC, and each
        column. A series of these columns takes it back by :meth:`TimeSeries.extend`.

        pandas has no minutes: they become seconds.

        :raises ConfigError: if pandas is not installed, or cannot hold a time
        """
        from run_task.data.series._frames import to_pandas

        return to_pandas(*self._table())

    def plot(
        self, *columns: str, keys: Iterable[Any] | None = None, ax: Axes | None = None
    ) -> Axes:
        """Draw columns of numbers over time, by matplotlib.

        ::

            axes = view.plot("price")
            axes.figure.savefig("price.png")

        A line is broken where there is NaN. Of a series with a key, each key has a line of its own.
        As many lines are drawn as can be told apart, ten, and what is not drawn is told. Of a line
        of more than 20 000 rows, the least and the greatest of each 2 000th part are drawn.

        :param columns: which columns; none: all of numbers
        :param keys: which keys; None: those that have the most rows
        :param ax: the axes of a figure to draw on; None: some of their own, which a notebook shows
        :return: the axes
        :raises ConfigError: if matplotlib is not installed, there is no such column or key, or a
            column holds no numbers
        """
        from run_task.data.series._view_plot import plot_of

        self._check_order("plot()")
        return plot_of(self, self._schema).draw(columns, keys, ax)

    def _table(self) -> tuple[Array, str, dict[str, Array | EncodedTexts]]:
        """The timestamps as NumPy's, in which zone they are shown, and each column."""
        times: Array = self.time.view(f"M8[{self.unit.value}]")
        columns = {name: self._column(name) for name in self._schema.names}
        return times, zone_name(self._schema.zone), columns

    def _column(self, name: str) -> Array | EncodedTexts:
        """A column, with its texts as codes."""
        encoded = self._schema.columns[self._schema.positions[name]].encoded
        return self.encoded(name) if encoded else self[name]

    def __reduce__(self) -> tuple[Any, ...]:
        storage, window = self._storage, self._window
        if isinstance(storage, Lease) and storage.store.block.shareable:
            store = storage.store
            store.export(self._stop)  # there is no telling when the other process is done with it
            # Of memory of the same kind as the rows lie in, which the other process maps, too.
            texts = {i: each.shared(type(store.block)) for i, each in store.texts.items()}
            return view_at, (store.block, store.layout, self._first, self._stop, window, texts)
        arrays: list[Array] = [self.time]
        used: dict[int, list[str]] = {}
        for position, name in enumerate(self._schema.names):
            column = self._column(name)
            if isinstance(column, EncodedTexts):
                column, texts_used = column.compact()
                used[position] = texts_used.tolist()
            arrays.append(column)
        if isinstance(storage, GatheredStorage) and not storage.in_order:
            return _in_no_order, (self._schema, arrays, used)
        return _by_value, (self._schema, arrays, window, used)

    def _time_shown(self, timestamp: int) -> str:
        if timestamp == NO_TIME:
            return "NaT"
        return stamp_shown(timestamp, self.unit, self._schema.zone or UTC)

    def _shown(self, column: str) -> NDArray[Any]:
        try:
            return self[column]
        except ConfigError:  # asof() found no row for some of its times
            return np.full(len(self), "?")

    def __repr__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines = [
            "  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths))
            for line in cells
        ]
        return "\n".join([f"TimeSeriesView of {len(self):,} rows", *lines])

    def _repr_html_(self) -> str:
        return self.as_html(f"TimeSeriesView of {len(self):,} rows")

    def as_html(self, title: str) -> str:
        """The first and the last rows as a table of HTML, as notebooks show them.

        :param title: what stands above it
        """
        from run_task.observe._html import table

        header, *rows = self._cells()
        return table(title, header, rows)

    def _cells(self) -> list[list[str]]:
        """The names of the columns, and the first and the last rows."""
        count = len(self)
        if count <= 2 * _SHOWN:
            shown: list[int | None] = list(range(count))
        else:
            shown = [*range(_SHOWN), None, *range(count - _SHOWN, count)]
        cells = [[f"{TIME} ({self.unit.value})", *self._schema.names]]
        arrays = [*map(self._shown, self._schema.names)]
        for row in shown:
            if row is None:
                cells.append(["..."] * len(cells[0]))
            else:
                time = self._time_shown(int(self.time[row]))
                cells.append([time, *(str(array[row]) for array in arrays)])
        return cells


def placed(view: TimeSeriesView) -> tuple[Schema, Storage, int, int, tuple[int, int] | None]:
    """What a view is made of: what rows are, where they lie, the first and the one after the last,
    and the window."""
    return view._schema, view._storage, view._first, view._stop, view._window  # pyright: ignore[reportPrivateUsage]  of this module


def view_at(
    block: Block,
    layout: BlockLayout,
    first: int,
    stop: int,
    window: tuple[int, int] | None = None,
    texts: Mapping[int, TextBlocks] = NO_TEXTS,
) -> TimeSeriesView:
    """The view of some rows of a block. That they stay as they are is for its owner to see to."""
    rows = StoredRows(block, layout, {i: texts_at(segments) for i, segments in texts.items()})
    return TimeSeriesView(layout.schema, Lease(rows, stop), first, stop, window)


def _by_value(
    schema: Schema,
    arrays: Sequence[Array],
    window: tuple[int, int] | None = None,
    texts: Mapping[int, Sequence[str]] = NO_TEXTS,
) -> TimeSeriesView:
    storage = ArrayStorage(arrays, {i: Texts(of_column) for i, of_column in texts.items()})
    return TimeSeriesView(schema, storage, 0, len(arrays[0]), window)


def _in_no_order(
    schema: Schema, arrays: Sequence[Array], texts: Mapping[int, Sequence[str]] = NO_TEXTS
) -> TimeSeriesView:
    count = len(arrays[0])
    storage = ArrayStorage(arrays, {i: Texts(of_column) for i, of_column in texts.items()})
    return TimeSeriesView(schema, GatheredStorage(storage, np.arange(count)), 0, count)
