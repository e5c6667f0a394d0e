"""What the rows of a time series are made of, what becomes a row, and where it lies in memory."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from run_task.data.series._closed import Closed
from run_task.data.series._column_types import (
    Array,
    Column,
    InvalidValue,
    listed,
    without_value,
)
from run_task.data.series._texts import CODES
from run_task.errors import ConfigError
from run_task.time._interval import TimeUnit
from run_task.time._moment import InvalidTime, first_from, nanos, timestamp, timestamps
from run_task.time._wall_time import WallClock

TIME: Final = "time"
"""What the timestamps are called where they stand beside the columns."""

_TAKEN: Final = ("self", "timestamp", "timestamps", TIME)

_ALIGNMENT: Final = 64
"""Of each column, in bytes: a line of the cache, and the widest SIMD register."""


class NewRows(NamedTuple):
    """Rows that fit a series."""

    times: NDArray[np.int64]
    """Their timestamps."""

    columns: Sequence[Array]
    """The values of each column, one for each timestamp; texts of any length are objects."""

    omitted: int
    """How many rows had no value in any column, and are not among them."""


class Schema:
    """The columns of a series, and what its timestamps mean.

    :param columns: the kind of each column, by name
    :param unit: the unit of timestamps
    :param closed: which end of a window belongs to it
    :param zone: what times mean that name no time zone; None: they are refused
    :param key: the column that tells which rows belong together; None: none does
    :raises ConfigError: if there cannot be such a series
    """

    __slots__ = (
        "beyond",
        "clock",
        "closed",
        "codes",
        "columns",
        "key",
        "kinds",
        "names",
        "positions",
        "row_bytes",
        "side",
        "stored",
        "unit",
    )

    def __init__(
        self,
        columns: Mapping[str, Any],
        unit: TimeUnit,
        closed: Closed = Closed.LEFT,
        zone: str | tzinfo | None = None,
        key: str | None = None,
    ) -> None:
        # The caller may have no type checker.
        if not isinstance(columns, Mapping) or not columns:  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
            raise ConfigError(
                f"TimeSeries({columns!r}): give its columns as a mapping of name to kind, such as "
                f"{{'price': float, 'size': int}}, with one at least"
            )
        for name in columns:
            if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
                raise ConfigError(f"column {name!r}: a column's name is a text that is not empty")
            if name in _TAKEN:
                raise ConfigError(
                    f"column {name!r}: the name is taken, by a parameter or by the timestamps; "
                    f"call it something else"
                )
        if not isinstance(unit, TimeUnit):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
            raise ConfigError(f"TimeSeries(unit={unit!r}): it is a TimeUnit, such as MILLIS")
        if not isinstance(closed, Closed):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
            raise ConfigError(
                f"TimeSeries(closed={closed!r}): it is Closed.LEFT, where a timestamp is when "
                f"something happened, or Closed.RIGHT, where it is the end of what its row "
                f"describes"
            )
        self.columns: tuple[Column, ...] = tuple(
            Column(name, kind) for name, kind in columns.items()
        )
        self.unit: TimeUnit = unit
        self.closed: Closed = closed
        self.clock: WallClock | None = None if zone is None else WallClock(zone)
        """What shows times that name no time zone."""
        self.side: Literal["left", "right"] = closed.value
        """Of the rows of one timestamp: where a window begins that starts then, and where one ends
        that ends then, as ``searchsorted`` takes it."""
        self.beyond: int = 1 if closed is Closed.RIGHT else 0
        """How long after its end a window's first timestamp is that is not in it any more."""
        self.names: tuple[str, ...] = tuple(column.name for column in self.columns)
        self.kinds: tuple[tuple[str, str], ...] = tuple((c.name, c.dtype.str) for c in self.columns)
        self.positions: dict[str, int] = {name: i for i, name in enumerate(self.names)}
        self.key: str | None = key
        """The column that tells which rows belong together."""
        if key is not None:
            self._check_key(key)
        self.stored: tuple[np.dtype[Any], ...] = (
            np.dtype(np.int64),
            *(CODES if column.encoded else column.dtype for column in self.columns),
        )
        """What the timestamps and each column are stored as."""
        self.codes: tuple[str, ...] = tuple(dtype.str for dtype in self.stored)
        """The same in text, which takes NumPy longer to make than to read."""
        self.row_bytes: int = sum(dtype.itemsize for dtype in self.stored)

    def row(self, time: Any, columns: Mapping[str, Any]) -> NewRows:
        """One row, or none if it has no value.

        :raises ConfigError: if it cannot be stored; the message names the column
        """
        self._check_names(columns)
        times = np.array([self.timestamp(time)], np.int64)
        if all(value is None for value in columns.values()):
            return NewRows(times[:0], [np.empty(0, dtype) for dtype in self.stored[1:]], 1)
        arrays: list[Array] = []
        for column in self.columns:
            try:
                arrays.append(column.one(columns[column.name]))
            except InvalidValue as invalid:
                raise _refusal(column, f"row of timestamp {times[0]}", invalid) from None
        return NewRows(times, arrays, 0)

    def rows(self, given: Any, columns: Mapping[str, Any]) -> NewRows:
        """Many rows, without those that have no value.

        :raises ConfigError: if one cannot be stored; the message names the column and the row
        """
        self._check_names(columns)
        times = self.timestamps(given)
        values: list[Any] = []
        for column in self.columns:
            try:
                values.append(listed(columns[column.name]))
            except InvalidValue as invalid:
                raise _refusal(column, "all rows", invalid) from None
        kept = _with_a_value(values, len(times))
        if kept is not None:
            values = [[column[i] for i in kept] for column in values]
        arrays = self.fitted(times, values, kept)
        if kept is None:
            return NewRows(times, arrays, 0)
        return NewRows(times[kept], arrays, len(times) - len(kept))

    def fitted(
        self, times: NDArray[np.int64], values: Sequence[Any], kept: Sequence[int] | None = None
    ) -> list[Array]:
        """Values as the columns hold them.

        :param times: the timestamps of all rows
        :param values: of each column, as :func:`listed` gives them
        :param kept: to which of the rows they belong; None: to all
        :raises ConfigError: if one cannot be stored; the message names the column and the row
        """
        arrays: list[Array] = []
        count = len(times) if kept is None else len(kept)
        for column, of_column in zip(self.columns, values):
            try:
                array = column.many(of_column)
            except InvalidValue as invalid:
                where, row = "all rows", invalid.row
                if row is not None:
                    row = row if kept is None else kept[row]
                    where = f"row {row}"
                    if row < len(times):
                        where += f", of timestamp {times[row]}"
                raise _refusal(column, where, invalid) from None
            if len(array) != count:
                raise ConfigError(
                    f"column {column.name!r} has {len(array)} values for {len(times)} timestamps: "
                    f"give one for each; nothing was stored"
                )
            arrays.append(array)
        return arrays

    def timestamp(self, time: Any) -> int:
        """A time as a timestamp; what is finer than the unit is rounded down.

        :raises ConfigError: if it is no time, or is not to be told in 64 bits of the unit
        """
        try:
            return timestamp(time, self.unit, self.clock)
        except InvalidTime as invalid:
            raise ConfigError(str(invalid)) from None

    def timestamps(self, times: Any) -> NDArray[np.int64]:
        """Times as timestamps; what is finer than the unit is rounded down.

        :raises ConfigError: if one of them is no time: the message names the row
        """
        try:
            return timestamps(times, self.unit, self.clock)
        except InvalidTime as invalid:
            where = "" if invalid.row is None else f"row {invalid.row}: "
            raise ConfigError(f"{where}{invalid}") from None

    def timestamps_in(self, times: NDArray[np.int64], unit: TimeUnit) -> NDArray[np.int64]:
        """Timestamps of another series, in the unit of this one; rounded down.

        :param unit: what they are in
        :raises ConfigError: if 64 bits do not hold one of them
        """
        if unit is self.unit:
            return times
        try:
            return timestamps(times.view(f"M8[{unit.value}]"), self.unit)
        except InvalidTime as invalid:
            raise ConfigError(f"row {invalid.row}: {invalid}") from None

    def bound(self, time: Any) -> Any:
        """A time that rows are compared with, such that each is on its side of it; a number as it
        is.

        :raises ConfigError: if it is no time
        """
        if isinstance(time, (int, float, np.number)) and not isinstance(time, np.timedelta64):
            return time  # pyright: ignore[reportUnknownVariableType] of NumPy, of whatever width
        try:
            if self.closed is Closed.LEFT:
                return first_from(time, self.unit, self.clock)
            return nanos(time, self.unit, self.clock) // self.unit.nanos
        except InvalidTime as invalid:
            raise ConfigError(str(invalid)) from None

    def _check_key(self, key: str) -> None:
        position = self.positions.get(key)
        if position is None:
            raise ConfigError(
                f"TimeSeries(key={key!r}): there is no such column, but "
                f"{', '.join(map(repr, self.names))}"
            )
        column = self.columns[position]
        if not column.encoded and column.dtype.kind not in "iu":
            raise ConfigError(
                f"TimeSeries(key={key!r}): a key is a text or an int, and the column holds "
                f"{column.dtype}: declare it str or int"
            )

    def _check_names(self, columns: Mapping[str, Any]) -> None:
        known = self.positions
        for name in columns:
            if name not in known:
                raise ConfigError(
                    f"there is no column {name!r}: the columns are {', '.join(map(repr, known))}; "
                    f"leave it out, or make the series with it"
                )
        for name in known:
            if name not in columns:
                raise ConfigError(f"column {name!r} is missing: give a value for each column")

    def __reduce__(self) -> tuple[Any, ...]:
        return Schema, (dict(self.kinds), self.unit, self.closed, self.zone, self.key)

    @property
    def zone(self) -> tzinfo | None:
        """What times mean that name no time zone; None: they are refused."""
        return None if self.clock is None else self.clock.zone

    def __repr__(self) -> str:
        closed = ", closed on the right" if self.closed is Closed.RIGHT else ""
        key = "" if self.key is None else f"; by {self.key}"
        return f"{', '.join(map(repr, self.columns))}; time in {self.unit.value}{closed}{key}"


def _with_a_value(columns: Sequence[Any], count: int) -> list[int] | None:
    """Which rows have a value in some column.

    :param columns: the values of each column, as :func:`listed` gives them
    :param count: how many rows there are
    :return: their numbers; None: all have one, or columns are not of one length
    """
    empty: NDArray[np.bool_] | None = None
    for values in columns:
        missing = without_value(values)
        if missing is None or len(missing) != count:
            return None
        empty = missing if empty is None else empty & missing
        if not empty.any():
            return None
    assert empty is not None  # there is a column at least
    found: list[int] = np.flatnonzero(~empty).tolist()
    return found


def _refusal(column: Column, where: str, invalid: InvalidValue) -> ConfigError:
    return ConfigError(f"column {column.name!r}, {where}: {invalid}; nothing was stored")


class BlockLayout:
    """Where a block of memory holds the timestamps and each column of so many rows.

    :param schema: the columns
    :param capacity: for how many rows there is room
    """

    __slots__ = ("capacity", "dtypes", "offsets", "schema", "size")

    def __init__(self, schema: Schema, capacity: int) -> None:
        self.schema: Schema = schema
        self.capacity: int = capacity
        self.dtypes: tuple[np.dtype[Any], ...] = schema.stored
        offsets: list[int] = []
        end = 0
        for dtype in self.dtypes:
            offsets.append(end)
            end += -(-dtype.itemsize * capacity // _ALIGNMENT) * _ALIGNMENT
        self.offsets: tuple[int, ...] = tuple(offsets)
        self.size: int = end

    def __reduce__(self) -> tuple[Any, ...]:
        schema = self.schema
        # Values of enums are pickled faster than their members.
        told = schema.kinds, schema.unit.value, schema.side, schema.zone, schema.key
        return _layout, (*told, self.capacity)


@functools.lru_cache(maxsize=64)
def _layout(
    kinds: tuple[tuple[str, str], ...],
    unit: str,
    closed: Literal["left", "right"],
    zone: tzinfo | None,
    key: str | None,
    capacity: int,
) -> BlockLayout:
    """A layout that was pickled: the same one as before, for a worker gets it at every tick."""
    return BlockLayout(Schema(dict(kinds), TimeUnit(unit), Closed(closed), zone, key), capacity)
