"""A table that grows in the order of time, while others read it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import tzinfo
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Never, overload

import numpy as np
from numpy.typing import NDArray

from run_task.columnar._any_frame import is_frame
from run_task.data._access import InstantAccess
from run_task.data._block import Allocate, PrivateBlock
from run_task.data.series._ahead import AheadRows
from run_task.data.series._closed import Closed
from run_task.data.series._column_types import Array
from run_task.data.series._growth import Grown, Growth
from run_task.data.series._key_limit import KeyLimit
from run_task.data.series._places import schema_of_places
from run_task.data.series._retention import Retention
from run_task.data.series._schema import BlockLayout, NewRows, Schema
from run_task.data.series._shift import Shift, Snapshot, merge
from run_task.data.series._store import Lease, Store
from run_task.data.series._tap import MarkedLease, SeriesPattern, Tap
from run_task.data.series._texts import Texts
from run_task.data.series._view import TimeSeriesView
from run_task.errors import ConfigError
from run_task.observe._log import Log
from run_task.observe._recurrence import Recurrence
from run_task.time._interval import TaskInterval, TimeUnit
from run_task.time._length import IntervalLike
from run_task.time._moment import TimeLike
from run_task.time._unit_check import UnitCheck

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from run_task.columnar._any_frame import AnyFrame

_log = Log(__name__)

_BEFORE_ALL: Final = -(2**63)
_AFTER_ALL: Final = 2**63


class TimeSeries:
    """Columns that grow in the order of time, and that tasks read without waiting or copying.

    ::

        trades = TimeSeries({"price": float, "size": int}, unit=TimeUnit.MILLIS)
        trades.append(1_700_000_000_000, price=101.5, size=3)
        times = [1_700_000_000_010, 1_700_000_000_020]
        trades.extend(times, price=[101.4, 101.6], size=[1, 2])
        with trades.read() as view:
            last = view.between(1_700_000_000_000, 1_700_000_000_020)
            print(last["price"].mean(), last["size"].sum())

    Rows may come from any thread, one writer at a time. A row that comes late goes to its place,
    after rows of the same timestamp. A view stays as it was for as long as anyone holds it or an
    array of it; readers never wait for a writer, and never make one wait. In a column of floats,
    None is NaN; a row that is None in all columns is left out, and counted in :attr:`omitted`.

    :param columns: the kind of each column by name: ``float``, ``int``, ``bool``, ``str`` for
        texts of any length, of which each is kept once and a row takes four bytes, ``"U8"`` for
        texts of up to 8 characters, ``"S8"`` for bytes, ``"datetime64[ms]"``, or another NumPy
        dtype of these kinds
    :param unit: the unit of timestamps, which are ints since the Unix epoch
    :param retention: how many of the last rows stay, or for how long before the newest: a
        TaskInterval, a timedelta, or a text such as ``"1h"``; None: all
    :param closed: what timestamps mean, and so which end of a window belongs to it:
        ``Closed.LEFT``, when something happened; ``Closed.RIGHT``, the end of what a row describes,
        such as a bar that is stamped with its close, or results of a stage
    :param zone: what times mean that name no time zone, such as ``"Europe/Berlin"``; None: a naive
        datetime is refused, and a ``numpy.datetime64`` is in UTC
    :param key: the column that tells which rows belong together, such as ``"symbol"``: one of
        ``str`` or ``int``. A stage or runner with ``by=`` runs its tasks once for each key
    :raises ConfigError: if there cannot be such a series
    """

    def __init__(
        self,
        columns: Mapping[str, Any],
        unit: TimeUnit = TimeUnit.MILLIS,
        retention: int | IntervalLike | None = None,
        closed: Closed = Closed.LEFT,
        zone: str | tzinfo | None = None,
        key: str | None = None,
    ) -> None:
        self._schema = Schema(columns, unit, closed, zone, key)
        self._retention = Retention(retention, unit)
        self._width = len(self._schema.columns)
        self._allocate: Allocate = PrivateBlock
        self._lock = threading.Lock()  # held by writers; readers do not take it
        # How many rows came too late to be kept, and how many had no value: a new tuple each time.
        self._unstored = (0, 0)
        self._expired = Recurrence()
        self._newest = _AFTER_ALL  # so that the first row is looked at, before others may pass
        self._unit_check = UnitCheck(unit, _log)
        # By thread, from which timestamp on its rows are refused, and why; and before which
        # timestamp no thread's are.
        self._refused_from: dict[int, tuple[int, str]] = {}
        self._growth = Growth()
        self._key_limit: KeyLimit | None = None
        self._key_limits: dict[object, int] = {}  # of each who has set one: the least holds
        self._looked_before = self._unit_check.last + 1
        self._unchecked_before = self._looked_before
        texts = {i: Texts() for i, column in enumerate(self._schema.columns) if column.encoded}
        store = self._new_store(self._retention.capacity(0, self._schema.row_bytes), 0, texts)
        self._snapshot: Snapshot = (store, 0, 0, object(), None)
        self._ahead: AheadRows | None = None
        self._taps: Sequence[Tap] = ()
        self._marks = 0  # how many views have been marked
        self._elsewhere: Schema | None = None  # of its rows, where it has only their places

    @property
    def unit(self) -> TimeUnit:
        """The unit of timestamps."""
        return self._schema.unit

    @property
    def closed(self) -> Closed:
        """Which end of a window belongs to it."""
        return self._schema.closed

    @property
    def columns(self) -> Mapping[str, np.dtype[Any]]:
        """The dtype of each column, by name."""
        schema = self._elsewhere or self._schema
        return {column.name: column.dtype for column in schema.columns}

    @property
    def stored_columns(self) -> Mapping[str, np.dtype[Any]]:
        """The same of what it has itself: where its rows lie elsewhere, the key and the place."""
        return {column.name: column.dtype for column in self._schema.columns}

    @property
    def has_places(self) -> bool:
        """Whether its rows lie elsewhere: of each, it has the time, the key and the place."""
        return self._elsewhere is not None

    @property
    def key(self) -> str | None:
        """The column that tells which rows belong together; None: none does."""
        return self._schema.key

    @property
    def zone(self) -> tzinfo | None:
        """What times mean that name no time zone; None: naive datetimes are refused."""
        return self._schema.zone

    @property
    def retention(self) -> int | TaskInterval | None:
        """How many of the last rows stay, or for how long before the newest; None: all."""
        return self._retention.value

    @property
    def dropped(self) -> int:
        """How many rows came too late to be kept."""
        return self._unstored[0]

    @property
    def omitted(self) -> int:
        """How many rows were left out because they had no value: None in every column."""
        return self._unstored[1]

    def limit_keys(self, most: int) -> Callable[[], object]:
        """Refuse rows whose key would be one more than so many, from now on. Those who read it by
        key say how many these are; the least holds.

        :param most: how many keys there may be
        :return: lifts this limit, and leaves those of others. It waits for nobody
        :raises ConfigError: if there are more already, or the series has no key
        """
        key = self._schema.key
        if key is None:
            raise ConfigError(f"{self!r} has no key: make it with key=")
        claim = object()
        with self._lock:
            if self._key_limit is None or most < self._key_limit.most:
                store, first, length, _ = self._settled()
                column = store.arrays[self._schema.positions[key] + 1][first:length]
                if (count := len(np.unique(column))) > most:
                    raise ConfigError(
                        f"max_keys={most}: {self!r} has rows of {count:,} keys already: raise it"
                    )
            self._key_limits[claim] = most
            self._limit_in_force()
        # It takes no lock, since it is also called by the garbage collector, in whatever thread.
        return partial(self._key_limits.pop, claim, None)

    def _limit_in_force(self) -> KeyLimit | None:
        """The least limit, put into force if that is another than before. Under the lock."""
        limit, key = self._key_limit, self._schema.key
        least = min(list(self._key_limits.values()), default=None)
        if key is not None and least != (None if limit is None else limit.most):
            place = self._schema.positions[key]
            limit = None if least is None else KeyLimit(key, place, least)
            self._key_limit = limit
            store, first, length, _ = self._settled()
            column, texts = self._schema.columns[place], store.texts.get(place)
            if texts is not None:
                texts.lift()
            code = column.convert if texts is None else texts.code
            store.convert_by(place, code, column.exact)
            self._watch_keys(store, first, length)
        return limit

    def read(self, timeout: float | None = None) -> InstantAccess[TimeSeriesView]:
        """Give a view of all rows as they are when the block is entered.

        :param timeout: of no effect, since reading never waits
        """
        return InstantAccess(self.view)

    def view(self) -> TimeSeriesView:
        """A view of all rows as they are now: the same as reading, without a block."""
        while True:
            if self._taps:
                return self._marked_view()
            snapshot = self._snapshot
            store, first, length, era, shift = snapshot
            if shift is None:
                lease = Lease(store, length)
                if self._snapshot[3] is era:  # no row has moved, and none will now
                    return TimeSeriesView(self._schema, lease, first, length)
            else:
                _, first_after, length_after, _, _ = shift.after
                lease = Lease(store, max(length, length_after))
                if self._snapshot is snapshot:
                    if shift.moves():
                        shift.move()
                        first, length = first_after, length_after
                    return TimeSeriesView(self._schema, lease, first, length)

    def _marked_view(self) -> TimeSeriesView:
        """A view of all rows as they are now, of which those are told who follow the series."""
        with self._lock:
            store, first, length, _ = self._settled()
            self._marks = mark = self._marks + 1
            oldest = _BEFORE_ALL
            if self._retention.limited:
                oldest = int(store.times[first]) if first < length else _AFTER_ALL
            for tap in self._taps:
                tap.mark(mark, oldest)
            lease = MarkedLease(store, length, mark, self._taps)
            return TimeSeriesView(self._schema, lease, first, length)

    def follow(self, tap: Tap) -> Callable[[], None]:
        """Tell somebody all rows that there are, and whatever comes from then on, in order. Who
        follows already is told all rows again.

        :param tap: who is told
        :return: ends it
        """
        with self._lock:
            if tap not in self._taps:
                self._taps = (*self._taps, tap)
                self._update_unchecked()
            store, first, length, _ = self._settled()
            tap.whole(
                TimeSeriesView(self._schema, Lease(store, length), first, length), self._marks
            )
        return partial(self._unfollow, tap)

    def _unfollow(self, tap: Tap) -> None:
        with self._lock:
            self._taps = tuple(one for one in self._taps if one is not tap)
            self._update_unchecked()

    def grown(self) -> Grown:
        """All rows as they are now, and which of them are those of when this was called last. For
        one caller."""
        with self._lock:
            store, first, length, _ = self._settled()
            same_until = self._growth.look(length)
            view = TimeSeriesView(self._schema, Lease(store, length), first, length)
            return Grown(view, self._growth.begin + first, same_until)

    def restore(self, times: NDArray[np.int64], columns: Sequence[Array], position: int) -> None:
        """Have these rows, and no others.

        :param times: their timestamps, in order
        :param columns: of each column its values; texts of any length are objects
        :param position: that of the first, among all rows that there ever were
        :raises ConfigError: if they are no rows of this series; then it is as it was
        """
        if not (times[1:] >= times[:-1]).all():
            raise ConfigError(f"{self!r}: rows to be restored are not in order")
        fitted = self._schema.fitted(times, columns)
        with self._lock:
            rows: list[Array] = [times, *fitted]
            texts = {i: Texts() for i, column in enumerate(self._schema.columns) if column.encoded}
            for i, known in texts.items():
                rows[i + 1] = known.encode(fitted[i])
            capacity = self._retention.capacity(len(times), self._schema.row_bytes)
            store = self._new_store(capacity, len(times), texts)
            store.write(0, rows)
            self._growth.restart(position, len(times))
            self._key_limit = None  # it is set anew, by what is there
            self._snapshot = (store, 0, len(times), object(), None)
            self._newest = int(times[-1]) if len(times) else _AFTER_ALL
            self._limit_in_force()

    def plot(
        self, *columns: str, keys: Iterable[Any] | None = None, ax: Axes | None = None
    ) -> Axes:
        """Draw all rows: as :meth:`TimeSeriesView.plot`.

        :param columns: which columns; none: all of numbers
        :param keys: which keys; None: those that have the most rows
        :param ax: the axes of a figure to draw on; None: some of their own, which a notebook shows
        :return: the axes
        :raises ConfigError: as there
        """
        return self.view().plot(*columns, keys=keys, ax=ax)

    @property
    def generation(self) -> object:
        """Another object once rows have come or passed out; the same one until then."""
        return self._snapshot

    def windowed(self, unit: TimeUnit) -> Callable[[TimeSeriesView, int, int], TimeSeriesView]:
        """How to bound its views by windows whose times are in a unit.

        :param unit: the unit of the windows' starts and ends
        :return: a function of a view of all rows, and the start and the end of a window. It gives
            the view of the rows up to the end of the window, whose ``in_window`` are those within
        """
        own_ns, unit_ns = self.unit.nanos, unit.nanos
        if own_ns == unit_ns:
            return TimeSeriesView.for_window
        # Rounded so that all rows are on the side of a bound that they are on in nanoseconds.
        up = own_ns - 1 if self.closed is Closed.LEFT else 0

        def converted(view: TimeSeriesView, start: int, end: int) -> TimeSeriesView:
            first, last = (start * unit_ns + up) // own_ns, (end * unit_ns + up) // own_ns
            return view.for_window(first, last)

        return converted

    def write(self, timeout: float | None = None) -> InstantAccess[TimeSeries]:
        """Give the series itself, so that shared data of any kind is written to in the same way.

        :param timeout: of no effect, since there is nothing to wait for
        """
        return InstantAccess(lambda: self)

    def append(self, timestamp: TimeLike, **columns: Any) -> None:
        """Add one row.

        :param timestamp: its time: an int in the series' unit since the Unix epoch, an aware
            datetime, or a ``numpy.datetime64``; what is finer than the unit is rounded down
        :param columns: the value of each column
        :raises ConfigError: if it cannot be stored; the message names the column
        """
        if type(timestamp) is not int:
            timestamp = self._schema.timestamp(timestamp)
        with self._lock:
            store, first, length, era, shift = self._snapshot
            if (
                self._newest <= timestamp < self._unchecked_before
                and length < store.limit
                and len(columns) == self._width
                and shift is None
            ):
                try:
                    for name, exact, convert, cells in store.cells:
                        value = columns[name]
                        cells[length] = value if type(value) is exact else convert(value)
                    store.times[length] = timestamp
                except (KeyError, TypeError, ValueError):
                    pass  # what is wrong is found out below, and said
                else:
                    length += 1
                    if self._retention.limited:
                        first = self._retention.first(store, first, length, timestamp)
                    # In this order: were it broken off in between, this row would not be there,
                    # and the next would be taken for late, and still find its place.
                    self._newest = timestamp
                    self._snapshot = (store, first, length, era, None)
                    if first >= store.turn:
                        self._tidy()
                    return
        self._insert(self._schema.row(timestamp, columns))

    def check(self, timestamp: TimeLike, /, **columns: Any) -> None:
        """Refuse a row as :meth:`append` would, and store nothing.

        :param timestamp: as in :meth:`append`
        :param columns: as in :meth:`append`
        :raises ConfigError: if it could not be stored, or has no value; it names the column
        """
        if self._schema.row(timestamp, columns).omitted:
            raise ConfigError("the row has no value in any column")

    @overload
    def extend(
        self, frame: AnyFrame, /, *, timestamp: str | None = None, zone: str | tzinfo | None = None
    ) -> None: ...
    @overload
    def extend(self, timestamps: Any, **columns: Any) -> None: ...
    def extend(self, timestamps: Any, **columns: Any) -> None:
        """Add many rows: all of them, or none if one cannot be stored.

        ::

            trades.extend([1_700_000_000_030, 1_700_000_000_040], price=[101.7, 101.8], size=[1, 1])
            trades.extend(polars.DataFrame({"time": times, "price": prices, "size": sizes}))

        A frame is a DataFrame or LazyFrame of polars, a DataFrame of pandas, a table, reader or
        dataset of pyarrow, or whatever else has columns and ``__arrow_c_stream__``; pyarrow reads
        it. Its columns are those of the series, by name, and one of times: the one that
        ``timestamp=`` names, or else an index of times, a column called ``time`` or ``timestamp``,
        or the only one that holds times. What these mean if they name no time zone is for
        ``zone=`` to say, or for the series. A null is NaN among floats and NaT among times, and
        else refused; ints stay exact.

        :param timestamps: their times, in any order: ints in the series' unit since the Unix
            epoch, or times with a zone, as an array, a list, or a column of pandas, polars or
            Arrow; what is finer than the unit is rounded down. Or a frame, which has all of it
        :param columns: the values of each column, as many as there are timestamps; of a frame,
            ``timestamp=`` and ``zone=``
        :raises ConfigError: if one cannot be stored; the message names the column and the row
        """
        if not isinstance(timestamps, (np.ndarray, list)) and is_frame(timestamps):
            from run_task.data.series._frame_rows import rows_of

            self._insert(rows_of(timestamps, self._schema, **columns))
        else:
            self._insert(self._schema.rows(timestamps, columns))

    def add(self, rows: NewRows) -> None:
        """Add rows that fit, as another series of this schema has them.

        :param rows: the rows
        """
        self._insert(rows)

    def extend_ahead(self, timestamps: NDArray[np.int64], **columns: Any) -> AheadRows:
        """Add rows that are yet to come: they are stored, and nobody sees them.

        Until all have come, no other row may be added.

        :param timestamps: their times, in ascending order, none before that of a row that is there
        :param columns: the values of each column
        :raises ConfigError: if one cannot be stored
        """
        times, arrays, omitted = self._schema.rows(timestamps, columns)
        if omitted:
            raise ConfigError("rows that are yet to come have a value each")
        with self._lock:
            limit = self._limit_in_force() if self._key_limits or self._key_limit else None
            if limit is not None:
                self._admit_keys(limit, times, arrays)
            store, first, length, era = self._settled()
            rows: list[Array] = [times, *arrays]
            for i, texts in store.texts.items():
                rows[i + 1] = texts.encode(arrays[i])
            if self._fits(store, length + len(times)):
                store.write(length, rows)
            else:
                self._move(first, length, rows)
                store, first, stop, era, _ = self._snapshot
                length = stop - len(times)
                self._snapshot = (store, first, length, era, None)
            ahead = AheadRows(
                *(self._schema, self._retention, store),
                *(length, length + len(times), self._come),
            )
            self._ahead = ahead
        self._unit_check.look(int(times[0]), self)
        self._unit_check.look(int(times[-1]), self)
        return ahead

    def ahead(self) -> tuple[AheadRows, TimeSeriesView] | None:
        """The rows that are yet to come, and a view that ends with the last of them; None: there
        are none."""
        ahead = self._ahead
        return None if ahead is None else (ahead, ahead.view(self._snapshot[1]))

    def _come(self, ahead: AheadRows, stop: int) -> None:
        with self._lock:
            store, first, length, era, _ = self._snapshot
            assert ahead is self._ahead
            assert (store, length) == (ahead.store, ahead.at), "another row was added before"
            self._newest = store.times[stop - 1]
            times, *columns = store.rows(length, stop)
            for tap in self._taps:
                tap.rows(times, columns, store.texts)
            first = self._retention.first(store, first, stop, self._newest)
            self._snapshot = (store, first, stop, era, None)
            if stop == ahead.stop:
                self._ahead = None
                if first >= store.turn:
                    self._tidy()

    @contextlib.contextmanager
    def refusing(self, timestamp: int, reason: str) -> Generator[None]:
        """A block in which rows are refused that its thread adds from a timestamp on.

        :param timestamp: the first that is refused
        :param reason: what the refusal says, after which timestamp it is about
        """
        thread = threading.get_ident()
        with self._lock:
            before = self._refused_from.get(thread)
            self._refused_from[thread] = timestamp, reason
            self._update_unchecked()
        try:
            yield
        finally:
            with self._lock:
                del self._refused_from[thread]
                if before is not None:
                    self._refused_from[thread] = before
                self._update_unchecked()

    def relocate(self, allocate: Allocate) -> None:
        """Move to other memory: all that is retained now, and all that comes later.

        Views that were taken before stay where they are.

        :param allocate: makes a block of so many bytes
        """
        with self._lock:
            before, self._allocate = self._allocate, allocate
            try:
                store, first, length, _ = self._settled()
                self._move(first, length, store.rows(length, length))
            except BaseException:
                self._allocate = before
                raise

    @property
    def pattern(self) -> SeriesPattern:
        """What another process makes a series of that is like it, without rows."""
        return SeriesPattern(
            *(self.columns, self.unit, self.retention, self.closed, self.zone, self.key)
        )

    @classmethod
    def of(cls, pattern: SeriesPattern) -> TimeSeries:
        """A series without rows. Of timestamps that only another unit explains, it tells nobody:
        the one that it is made after does.

        :param pattern: what it is like
        """
        series = cls(*pattern)
        series._unit_check.warned = True
        series._looked_before = _AFTER_ALL
        series._update_unchecked()
        return series

    def emptied(self) -> TimeSeries:
        """Another series like it, without rows."""
        return self._twin(self.view().between(0, 0))

    def of_places(self) -> TimeSeries:
        """Another series like it, without rows, which is to have only their places."""
        twin = self.emptied()
        twin._begin_anew(schema_of_places(self._schema), self._schema)
        return twin

    @contextlib.contextmanager
    def with_places(self) -> Generator[None]:
        """A block in which it has only the places of its rows. It begins and ends without rows."""
        schema = self._schema
        self._begin_anew(schema_of_places(schema), schema)
        try:
            yield
        finally:
            self._begin_anew(schema, None)

    def _begin_anew(self, schema: Schema, elsewhere: Schema | None) -> None:
        """Have no rows, and other columns."""
        with self._lock:
            self._schema, self._elsewhere = schema, elsewhere
            self._width = len(schema.columns)
            texts = {i: Texts() for i, column in enumerate(schema.columns) if column.encoded}
            store = self._new_store(self._retention.capacity(0, schema.row_bytes), 0, texts)
            self._growth.restart(0, 0)
            self._key_limit = None
            self._newest = _AFTER_ALL
            self._snapshot = (store, 0, 0, object(), None)
            self._limit_in_force()

    @property
    def oldest_to_come(self) -> int | None:
        """Rows of an earlier timestamp come too late to be kept; None: none does, or that depends
        on how many there are."""
        span = self._retention.span
        return None if span is None or self._newest == _AFTER_ALL else self._newest - span

    def __deepcopy__(self, memo: object) -> TimeSeries:
        return self._twin(self.view())

    def _twin(self, view: TimeSeriesView) -> TimeSeries:
        twin = TimeSeries(self.columns, self.unit, None, self.closed, self.zone, self.key)
        twin._retention = self._retention
        twin._unit_check = self._unit_check  # of the same rows is told once
        if self._elsewhere is None:
            twin.extend(view.time, **{name: view[name] for name in self.columns})
        elif view:
            raise ConfigError(f"{self!r} has rows that are in shards, and cannot be copied")
        if self._key_limit is not None:
            twin.limit_keys(self._key_limit.most)
        return twin

    def __reduce__(self) -> Never:
        raise TypeError("a TimeSeries stays in its process: send a view of it")

    def __repr__(self) -> str:
        _, first, length, _, _ = self._snapshot
        retention = f", the last {self._retention}" if self._retention.limited else ""
        return f"<TimeSeries of {length - first:,} rows{retention}: {self._schema}>"

    def _repr_html_(self) -> str:
        return self.view().as_html(repr(self)[1:-1])

    def _insert(self, rows: NewRows) -> None:
        times, columns, omitted = rows
        dropped, earliest, latest = 0, self._unit_check.first, self._unit_check.first
        with self._lock:
            if len(times):
                if self._refused_from:
                    self._check_stamps(times)
                dropped, earliest, latest = self._merge(times, columns)
                if self._newest >= self._looked_before:
                    self._looked_before = _AFTER_ALL  # the first is enough
                    self._update_unchecked()
            if dropped or omitted:
                before = self._unstored
                self._unstored = (before[0] + dropped, before[1] + omitted)
        self._unit_check.look(earliest, self)
        self._unit_check.look(latest, self)
        if dropped and (since := self._expired.happen(dropped)):
            _log.warning(
                "%d rows came too late to be kept, with a retention of %s", since, self._retention
            )

    # All that follows is done under the lock.

    def _update_unchecked(self) -> None:
        if self._taps:
            self._unchecked_before = _BEFORE_ALL  # each row is told of
            return
        froms = (timestamp for timestamp, _ in self._refused_from.values())
        self._unchecked_before = min(self._looked_before, *froms, _AFTER_ALL)

    def _check_stamps(self, times: NDArray[np.int64]) -> None:
        refused = self._refused_from.get(threading.get_ident())
        if refused is not None and (latest := int(times.max())) >= refused[0]:
            raise ConfigError(f"row of timestamp {latest}: {refused[1]}; nothing was stored")

    def _settled(self) -> tuple[Store, int, int, object]:
        """What is published, once a shift that was broken off, by Ctrl-C perhaps, is at its end."""
        snapshot = self._snapshot
        shift = snapshot[4]
        if shift is not None:
            if shift.may_move():
                shift.move()
                snapshot = self._snapshot = shift.after
            else:
                snapshot = self._snapshot = (*snapshot[:4], None)
        return snapshot[:4]

    def _watch_keys(self, store: Store, first: int, length: int) -> None:
        """Have appends to a store tell when there are more keys than there may be."""
        limit = self._key_limit
        if limit is None:
            return
        texts = store.texts.get(limit.place)
        if texts is None and store.layout.capacity <= limit.most:
            limit.admitted = None  # there is no room for more
            return
        column = self._schema.columns[limit.place]
        stored = store.arrays[limit.place + 1][first:length]
        admitted = limit.watch(column, texts, stored)
        store.convert_by(limit.place, admitted.look, None)

    def _admit_keys(
        self, limit: KeyLimit, times: NDArray[np.int64], columns: Sequence[Array]
    ) -> None:
        """See whether there is room for the keys of new rows: of one, with those of the rows that
        stay once it is there, and of many, with those of all rows.

        :raises KeyLimitReached: if there is not
        """
        values = columns[limit.place]
        store, first, length, _ = self._settled()
        if limit.admitted is None:
            if length - first + len(values) <= limit.most:
                return  # not as many rows as there may be keys
            column, stored = self._schema.columns[limit.place], store.arrays[limit.place + 1]
            admitted = limit.watch(column, None, stored[first:length])
            store.convert_by(limit.place, admitted.look, None)
        new = limit.new(values)
        if not new:
            return
        passing = 0
        if len(times) == 1 and length > first:
            there = store.arrays[0][first:length]
            newest = np.maximum(times, there[-1:])
            oldest = self._retention.oldest(there, int(newest[0]))
            if oldest is not None and times[0] < oldest:
                return  # it comes too late to be kept
            passing = self._retention.passing(there, newest)
        stored = store.arrays[limit.place + 1][:length]
        if excess := limit.admit(values, new, stored, min(first + passing, length)):
            raise limit.reached(times, values, new[max(len(new) - excess, 0)])

    def _merge(self, times: NDArray[np.int64], columns: Sequence[Array]) -> tuple[int, int, int]:
        """Add rows: one at least. Returns how many of them came too late to be kept, and the
        earliest and the latest of their timestamps."""
        limit = self._limit_in_force() if self._key_limits or self._key_limit else None
        if limit is not None:
            self._admit_keys(limit, times, columns)
        store, first, length, era = self._settled()
        there: NDArray[np.int64] = store.arrays[0][first:length]
        newest = int(there[-1]) if len(there) else _BEFORE_ALL
        rows: list[Array] = [times, *columns]
        for i, texts in store.texts.items():
            rows[i + 1] = texts.encode(columns[i])
        for tap in self._taps:
            tap.rows(rows[0], rows[1:], store.texts)
        start = length  # from this row on, what is in the store changes
        dropped = 0
        if times[0] >= newest and (times[1:] >= times[:-1]).all():
            earliest, latest = int(times[0]), int(times[-1])
            self._newest = latest
            passing = self._retention.passing(there, times)
        else:
            # Which rows came after newer ones, and all in the order of time.
            late: NDArray[np.bool_] = (
                times < np.maximum.accumulate(np.append(np.int64(newest), times))[:-1]
            )
            order = np.argsort(times, kind="stable")
            rows, late = [array[order] for array in rows], late[order]
            earliest, latest = int(rows[0][0]), int(rows[0][-1])
            self._newest = max(newest, latest)
            oldest = self._retention.oldest(there, self._newest)
            if oldest is not None and rows[0][0] < oldest:
                # It is not worth moving others for these.
                cut = int(np.searchsorted(rows[0], oldest))
                dropped += int(np.count_nonzero(late[:cut]))
                rows, late = [array[cut:] for array in rows], late[cut:]
                if not len(late):
                    return dropped, earliest, latest
            start = first + int(there.searchsorted(int(rows[0][0]), "right"))
            self._growth.changed(start)
            if limit is not None:
                limit.changed(start)
            rows, positions = merge(store.rows(start, length), rows)
            passing = self._retention.passing(there[: start - first], rows[0])
            dropped += int(np.count_nonzero(late & (positions + (start - first) < passing)))
        before = start - first  # rows in front that do not change
        if passing > before:
            rows = [array[passing - before :] for array in rows]
        self._put(min(first + passing, start), start, rows, (store, first, length, era))
        return dropped, earliest, latest

    def _put(
        self, first: int, start: int, rows: Sequence[Array], now: tuple[Store, int, int, object]
    ) -> None:
        """Let the series be the rows of its store from ``first`` to ``start``, and then these."""
        store, first_now, length_now, era = now
        length = start + len(rows[0])
        if not self._fits(store, length):
            self._move(first, start, rows)
        elif start == length_now:
            store.write(start, rows)
            self._snapshot = (store, first, length, era, None)
            if first >= store.turn:
                self._tidy()
        else:
            after: Snapshot = (store, first, length, object(), None)
            shift = Shift(start, rows, after)
            self._snapshot = (store, first_now, length_now, object(), shift)
            if shift.may_move():
                shift.move()
                self._snapshot = after
            else:
                self._move(first, start, rows)

    def _fits(self, store: Store, length: int) -> bool:
        """Whether a store has room for so many rows."""
        if length > store.limit and store.covered() <= store.limit:
            store.limit = store.layout.capacity  # who looked at the rows behind it is gone
        return length <= store.limit

    def _new_store(self, capacity: int, rows: int, texts: Mapping[int, Texts]) -> Store:
        """A store of that capacity; of a smaller one, if that cannot be had."""
        try:
            layout = BlockLayout(self._schema, capacity)
            block = self._allocate(layout.size)
        except (MemoryError, OSError):
            # Some systems promise no more than there is, though most of it would stay untouched.
            layout = BlockLayout(self._schema, rows + rows // 8 + 1)
            block = self._allocate(layout.size)
        if isinstance(block, PrivateBlock):
            # What is going to be full, and that of which a page more is a small part.
            large = self._retention.large_bytes
            for dtype, offset in zip(layout.dtypes, layout.offsets):
                block.in_large_pages(offset, offset + dtype.itemsize * rows)
                block.in_large_pages(offset + large, offset + dtype.itemsize * layout.capacity)
        return Store(block, layout, texts)

    def _move(self, first: int, stop: int, rows: Sequence[Array]) -> None:
        """Let the series be some rows of its store, and then others, in a new store."""
        store, passed = self._snapshot[:2]
        length = stop - first + len(rows[0])
        capacity = self._retention.capacity(length, self._schema.row_bytes, growing=not passed)
        parts = store.rows(first, stop), list(rows)
        texts = dict(store.texts)
        for i, column in texts.items():
            if column.is_stale():
                codes = np.concatenate([part[i + 1] for part in parts])
                texts[i], codes = column.compacted(codes)
                parts[0][i + 1], parts[1][i + 1] = codes[: stop - first], codes[stop - first :]
        new = self._new_store(capacity, length, texts)
        new.write(0, parts[0])
        new.write(stop - first, parts[1])
        new.turn = length
        self._growth.moved(first)
        if self._key_limit is not None:
            self._key_limit.moved(first)
            self._watch_keys(new, 0, length)
        self._snapshot = (new, 0, length, object(), None)

    def _tidy(self) -> None:
        """As many rows have passed out as are left: let these begin where those did, so that what
        is in memory is never much more than twice what is retained."""
        store, first, length, _, _ = self._snapshot
        kept = length - first
        stale = any(texts.is_stale() for texts in store.texts.values())
        if store.exported or stale or length > 4 * kept:  # then it is better to give memory back
            store.turn = first + kept // 8 + 1  # the rows are where they are, should this fail
            with contextlib.suppress(MemoryError, OSError):
                self._move(first, length, store.rows(length, length))
            return
        # A reader that has an earlier snapshot, and no lease yet, finds a new era and tries
        # again. One that comes from now on does not look at rows before the first.
        self._snapshot = (store, first, length, object(), None)
        if first < kept or store.covered():
            store.turn = first + kept // 8 + 1
            return
        store.write(0, store.rows(first, length))
        store.turn = kept
        # Some may have come after all, and look at the rows where they were.
        store.limit = first
        self._growth.moved(first)
        if self._key_limit is not None:
            self._key_limit.moved(first)
        self._snapshot = (store, 0, kept, object(), None)
