"""Rows of results as a table in Arrow, polars or pandas: what goes in comes out, or is refused."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from run_task._extras import is_of_library, need
from run_task.columnar._aware_times import of_arrow, of_pandas, of_polars, zone_name
from run_task.errors import ConfigError
from run_task.observe._format import shown
from run_task.tasks._exact import holds, moments_of
from run_task.tasks._result_fields import as_structs
from run_task.time._calendar import Interval
from run_task.time._shown import zone_of

if TYPE_CHECKING:
    import polars as pl

TIMESTAMP: Final = "timestamp"
"""The column of the windows' ends."""

_SHOWN: Final = 10
"""How many items of a list tell of what it is."""

_EXACT: Final = 2**53
"""Up to which int a float is the same."""

_NUMPY: Final[Any] = (np.generic, np.ndarray)

_PLAIN: Final[set[Any]] = {float, int, bool, str}

_POLARS_ITEMS: Final[Any] = (
    *(NoneType, bool, int, float, str, bytes, Decimal),
    *(date, time, timedelta),  # and datetime, which is derived from date
)
"""What polars has in lists and structs."""

_POLARS_DTYPES: Final = "biufmMU"
"""Of which kinds it has the arrays and numbers of NumPy there."""

_TIMES: Final[list[set[Any]]] = [{np.datetime64}, {np.timedelta64}]

_MakeColumn: TypeAlias = Callable[[list[Any]], tuple[Any, list[Any]]]
"""Makes a column of values, and tells what is read from it."""

_NULLABLE: Final = {int: "Int64", bool: "boolean"}
"""What pandas calls the columns of these that may hold nulls."""


class Tabular(ABC):
    """What becomes a table, whose first column are timestamps."""

    __slots__ = ()

    @abstractmethod
    def columns(self) -> dict[str, list[Any]]:
        """The table's columns, as Python's values: None where there is none."""

    @abstractmethod
    def _interval(self) -> Interval | None:
        """Whose unit the timestamps count, and in whose zone they are shown; None: nobody knows."""

    @abstractmethod
    def _row_shown(self, row: int) -> str:
        """Which row it is, in the words of a message."""

    def _column_shown(self, name: str) -> str:
        """Which column it is, in the words of a message."""
        return f"task {name!r}"

    def _plain(self, name: str, values: Iterable[Any]) -> list[Any]:
        """Values of a column as Python's, where that loses nothing.

        :raises ConfigError: if one is an array that is masked or structured
        """
        found: list[Any] = []
        for row, given in enumerate(values):
            value: Any = given
            kind: Any = value.__class__
            if issubclass(kind, _NUMPY):
                if issubclass(kind, np.ma.MaskedArray) or value.dtype.kind == "V":
                    raise ConfigError(
                        f"{self._column_shown(name)}: its result for {self._row_shown(row)}, a "
                        f"{kind.__name__}, is masked or structured, which no table holds: let it "
                        f"return filled() of it, or a dict of its fields"
                    )
                if value.dtype.kind not in "mM":  # Python's datetimes would lose nanoseconds
                    value = value.tolist()
            found.append(value)
        if _kinds(found) == {int, float} and all(abs(v) <= _EXACT for v in found if type(v) is int):
            return [None if value is None else float(value) for value in found]
        return found

    def to_arrow(self) -> Any:
        """A :class:`pyarrow.Table`.

        What it holds is equal to what the tasks returned, a list for a tuple or an array and a
        struct for a NamedTuple or a dataclass, or it is refused.

        :raises ConfigError: if pyarrow is not installed, or has no type for a task's results
        """
        arrow = need("pyarrow", "arrow")

        def column(values: list[Any]) -> tuple[Any, list[Any]]:
            if _kinds(values) in _TIMES:
                moments = moments_of(values, "D" if _kinds(values) == {np.datetime64} else "s", "s")
                made = arrow.array(moments, mask=np.array([value is None for value in values]))
                return made, _times_back(
                    made.to_numpy(zero_copy_only=False), made.is_null().to_pylist()
                )
            made = arrow.array(values)
            return made, [] if _is_plain(values) else made.to_pylist()

        columns = self.columns()
        table: dict[str, Any] = {TIMESTAMP: self._timestamps(columns, arrow.array, of_arrow)}
        for name, values in columns.items():
            if name != TIMESTAMP:
                table[name] = self._checked("Arrow", name, values, column)
        return arrow.table(table)

    def to_polars(self) -> pl.DataFrame:
        """A :class:`polars.DataFrame`.

        What it holds is equal to what the tasks returned, a list for a tuple or an array and a
        struct for a NamedTuple or a dataclass, or it is refused.

        :raises ConfigError: if polars is not installed, or has no type for a task's results
        """
        polars = need("polars", "polars")

        def column(values: list[Any]) -> tuple[Any, list[Any]]:
            if _kinds(values) in _TIMES:
                unit = "D" if _kinds(values) == {np.datetime64} else "ms"
                made = polars.Series(moments_of(values, unit, "ms"))
                return made, _times_back(made.to_numpy(), made.is_null().to_list())
            if _is_plain(values):
                return polars.Series(values), []
            for value in values:
                _check_for_polars(value, within=False)
            made = polars.Series(values)
            return made, made.to_list()

        columns = self.columns()
        made: dict[str, Any] = {TIMESTAMP: self._timestamps(columns, polars.Series, of_polars)}
        for name, values in columns.items():
            if name != TIMESTAMP:
                made[name] = self._checked("polars", name, values, column)
        frame: pl.DataFrame = polars.DataFrame(made)
        return frame

    def to_pandas(self) -> Any:
        """A :class:`pandas.DataFrame`.

        A null is NaN among floats, ``pandas.NA`` among ints and bools, and else None. What is
        neither of these is as the task returned it, but for arrays, which are lists.

        :raises ConfigError: if pandas is not installed
        """
        pandas = need("pandas", "pandas")

        def column(values: list[Any]) -> Any:
            kinds = _kinds(values)
            kind = next(iter(kinds)) if len(kinds) == 1 else None
            if kind is float:
                return pandas.Series(values, dtype="float64")
            if kind in _NULLABLE:
                try:
                    return pandas.Series(values, dtype=_NULLABLE[kind] if None in values else None)
                except OverflowError:  # an int of more than 64 bits
                    pass
            objects = np.empty(len(values), object)
            for place, value in enumerate(values):  # all at once, pandas would look into them
                objects[place] = value
            return pandas.Series(objects, dtype="object")

        columns = self.columns()
        made: dict[str, Any] = {TIMESTAMP: self._timestamps(columns, pandas.Series, of_pandas)}
        made |= {name: column(values) for name, values in columns.items() if name != TIMESTAMP}
        return pandas.DataFrame(made)

    def _timestamps(
        self,
        columns: dict[str, list[Any]],
        of_ints: Callable[[NDArray[np.int64]], Any],
        of_times: Callable[[str, NDArray[Any], str], Any],
    ) -> Any:
        """The windows' ends as a column: times, where it is known what they count, else ints.

        :raises ConfigError: if there is none that holds all of them
        """
        try:
            ends: NDArray[np.int64] = np.array(columns[TIMESTAMP], np.int64)
        except (OverflowError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{self!r}: a window ends beyond what 64 bits hold, which no table has a column for"
            ) from error
        interval = self._interval()
        if interval is None:
            return of_ints(ends)
        times: NDArray[Any] = ends.view(f"M8[{interval.unit.value}]")
        return of_times(TIMESTAMP, times, zone_name(zone_of(interval)))

    def _checked(self, library: str, name: str, values: list[Any], make: _MakeColumn) -> Any:
        """A column that holds what the task returned.

        :param make: makes it of values, and tells what is read from it; nothing, if that is known
        :raises ConfigError: if there is none; it names the first window that does not fit
        """
        shaped = list(as_structs(values))
        try:
            made, read = make(shaped)
        except BaseException as error:
            if not is_of_library(error):
                raise
            # The first that does not fit: those before it make a column, those up to it do not.
            place = bisect_left(
                range(1, len(values)), True, key=lambda count: _fails(make, shaped[:count])
            )
            raise self._unfit(library, name, values, place, error) from error
        for place, got in enumerate(read):
            if not holds(got, shaped[place]):
                keys = [each.keys() for each in (got, shaped[place]) if _is_dict(each)]
                differ = len(keys) == 2 and keys[0] != keys[1]
                told = "their keys differ" if differ else f"it would be {shown(repr(got))}"
                raise self._unfit(library, name, values, place, told)
        return made

    def _unfit(
        self, library: str, name: str, values: Sequence[Any], place: int, why: object
    ) -> ConfigError:
        kinds = ", ".join(sorted({_kind_shown(value) for value in values if value is not None}))
        told = shown(str(why).partition("\n")[0])
        return ConfigError(
            f"{self._column_shown(name)}: {library} has no column for its results, of {kinds}, "
            f"that holds the one for {self._row_shown(place)}, of {_kind_shown(values[place])} "
            f"({told}): let it return values of one kind, or take to_pandas(), which holds any"
        )


def _times_back(moments: Any, missing: list[bool]) -> list[Any]:
    """What a column of times gives back: None where it has a null, or what others take for one."""
    return [
        None if null or np.isnat(moment) else moment
        for moment, null in zip(moments, missing, strict=True)
    ]


def _kinds(values: Iterable[Any]) -> set[type]:
    return {type(value) for value in values if value is not None}


def _is_plain(values: Iterable[Any]) -> bool:
    """Whether each library has a column that holds them, or raises."""
    return len(kinds := _kinds(values)) <= 1 and kinds <= _PLAIN


def _check_for_polars(value: Any, *, within: bool) -> None:
    """Refuse what polars has no column for: some of it, polars looks into all the same, and what it
    has begun to make then panics when it is let go of, long after.

    :param within: whether it stands in another value
    :raises TypeError: if there is none
    """
    kind: Any = value.__class__
    if is_dataclass(value) or hasattr(kind, "_fields"):
        raise TypeError(f"it has no {kind.__qualname__}")
    if issubclass(kind, list | tuple):
        for item in value:
            _check_for_polars(item, within=True)
    elif issubclass(kind, dict):
        for item in value.values():
            _check_for_polars(item, within=True)
    elif issubclass(kind, np.ndarray | np.generic):
        if value.dtype.kind not in _POLARS_DTYPES:
            raise TypeError(f"it has no {kind.__qualname__} of {value.dtype}")
    elif within and not issubclass(kind, _POLARS_ITEMS):
        raise TypeError(f"it has no {kind.__qualname__} within others")


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _kind_shown(value: Any) -> str:
    """Of which type a value is; of a list, also what is in it."""
    kind: Any = value.__class__
    items: list[Any] = list(value[:_SHOWN]) if kind in (list, tuple) else []
    within = " and ".join(sorted({_kind_shown(item) for item in items}))
    return f"{kind.__qualname__} of {within}" if within else str(kind.__qualname__)


def _fails(make: _MakeColumn, values: list[Any]) -> bool:
    try:
        make(values)
    except BaseException as error:
        if not is_of_library(error):
            raise
        return True
    return False
