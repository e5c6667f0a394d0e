"""A sequence of DataSets, and its table in Arrow, polars or pandas."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, overload

import numpy as np

from run_task._extras import need
from run_task.errors import ChannelClosed, ConfigError
from run_task.observe._format import shown
from run_task.sync._alarm import AnyAlarm
from run_task.sync._channel import Receiver
from run_task.sync._waiting import Deadline, Wait, wait_task, wait_thread
from run_task.tasks._dataset import DataSet
from run_task.tasks._exact import holds, moments_of
from run_task.time._shown import window_shown

if TYPE_CHECKING:
    import polars as pl

O = TypeVar("O")
O_co = TypeVar("O_co", covariant=True)

TIMESTAMP: Final = "timestamp"
"""The column of the windows' ends, in the interval's unit since the Unix epoch."""

_SHOWN: Final = 10
"""How many of the first and of the last rows a notebook shows."""

_COLUMNS_SHOWN: Final = 20

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


class DataSets(Sequence[DataSet[O_co]]):
    """DataSets of one runner in a row, which become a table.

    The table has a row for each, and the columns ``timestamp``, the end of its window, and one for
    each task, in the order of the tasks. Where a task gave no result, there is a null.

    :param datasets: the DataSets
    """

    __slots__ = ("_datasets",)

    def __init__(self, datasets: Iterable[DataSet[O_co]] = ()) -> None:
        self._datasets = tuple(datasets)

    @overload
    def __getitem__(self, index: int) -> DataSet[O_co]: ...
    @overload
    def __getitem__(self, index: slice) -> DataSets[O_co]: ...
    def __getitem__(self, index: int | slice) -> DataSet[O_co] | DataSets[O_co]:
        if isinstance(index, slice):
            return DataSets(self._datasets[index])
        return self._datasets[index]

    def __len__(self) -> int:
        return len(self._datasets)

    def __iter__(self) -> Iterator[DataSet[O_co]]:
        return iter(self._datasets)

    @property
    def names(self) -> Sequence[str]:
        """The names of the tasks, in their order."""
        found: dict[str, None] = {}
        for dataset in self._datasets:
            found.update(dict.fromkeys((*dataset, *dataset.errors)))
        # A task that failed stands in the errors: its place shows where it did not.
        fullest = max(self._datasets, key=len, default=())
        return [*fullest, *(name for name in found if name not in fullest)]

    def columns(self) -> dict[str, list[Any]]:
        """The table's columns, as Python's values: None where there is none.

        Scalars and arrays of NumPy's become Python's numbers and lists, but for times, and ints
        become floats where both stand in one column, if floats can hold them.

        :raises ConfigError: if a task is called ``timestamp``, or gave an array that is masked or
            structured
        """
        names = self.names
        if TIMESTAMP in names:
            raise ConfigError(
                f"a task is called {TIMESTAMP!r}, which is the column of the windows' ends: "
                f"rename it"
            )
        return {
            TIMESTAMP: [dataset.timestamp for dataset in self._datasets],
            **{name: self._column(name) for name in names},
        }

    def _column(self, name: str) -> list[Any]:
        found: list[Any] = []
        for dataset in self._datasets:
            value: Any = dataset.get(name)
            kind: Any = value.__class__
            if issubclass(kind, _NUMPY):
                if issubclass(kind, np.ma.MaskedArray) or value.dtype.kind == "V":
                    raise ConfigError(
                        f"task {name!r}: its result for {_window(dataset)}, a {kind.__name__}, is "
                        f"masked or structured, which no table holds: let it return filled() of "
                        f"it, or a dict of its fields"
                    )
                if value.dtype.kind not in "mM":  # Python's datetimes would lose nanoseconds
                    value = value.tolist()
            found.append(value)
        if _kinds(found) == {int, float} and all(abs(v) <= _EXACT for v in found if type(v) is int):
            return [None if value is None else float(value) for value in found]
        return found

    def to_arrow(self) -> Any:
        """A :class:`pyarrow.Table`.

        What it holds is equal to what the tasks returned, a list for a tuple or an array, or it is
        refused.

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
        table: dict[str, Any] = {
            TIMESTAMP: self._timestamps(lambda ends: arrow.array(ends, arrow.int64()))
        }
        for name, values in columns.items():
            if name != TIMESTAMP:
                table[name] = self._checked("Arrow", name, values, column)
        return arrow.table(table)

    def to_polars(self) -> pl.DataFrame:
        """A :class:`polars.DataFrame`.

        What it holds is equal to what the tasks returned, a list for a tuple or an array, or it is
        refused.

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
        made: dict[str, Any] = {
            TIMESTAMP: self._timestamps(lambda ends: polars.Series(ends, dtype=polars.Int64))
        }
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
        made: dict[str, Any] = {
            TIMESTAMP: self._timestamps(lambda ends: pandas.Series(ends, dtype="int64"))
        }
        made |= {name: column(values) for name, values in columns.items() if name != TIMESTAMP}
        return pandas.DataFrame(made)

    def _timestamps(self, make: Callable[[list[int]], Any]) -> Any:
        try:
            return make([dataset.timestamp for dataset in self._datasets])
        except (OverflowError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{self!r}: a window ends beyond what 64 bits hold, which no table has a column for"
            ) from error

    def _checked(self, library: str, name: str, values: list[Any], make: _MakeColumn) -> Any:
        """A column that holds what the task returned.

        :param make: makes it of values, and tells what is read from it; nothing, if that is known
        :raises ConfigError: if there is none; it names the first window that does not fit
        """
        try:
            made, read = make(values)
        except BaseException as error:
            if not _is_of_library(error):
                raise
            # The first that does not fit: those before it make a column, those up to it do not.
            place = bisect_left(
                range(1, len(values)), True, key=lambda count: _fails(make, values[:count])
            )
            raise self._unfit(library, name, values, place, error) from error
        for place, got in enumerate(read):
            if not holds(got, values[place]):
                keys = [each.keys() for each in (got, values[place]) if _is_dict(each)]
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
            f"task {name!r}: {library} has no column for its results, of {kinds}, that holds "
            f"the one for {_window(self[place])}, of {_kind_shown(values[place])} ({told}): let it "
            f"return values of one kind, or take to_pandas(), which holds any"
        )

    def __repr__(self) -> str:
        names = ", ".join(self.names)
        span = f", {self[0].window.start} to {self[-1].window.end}" if self._datasets else ""
        return f"<{len(self)} DataSets{span}: {names}>"

    def _repr_html_(self) -> str:
        from run_task.observe._html import ERROR, marked, table, value_text

        names = self.names
        more = len(names) - _COLUMNS_SHOWN
        header = [TIMESTAMP, *names[:_COLUMNS_SHOWN], *([f"and {more} more"] if more > 0 else ())]

        def line(dataset: DataSet[Any]) -> list[str]:
            cells = [str(dataset.timestamp)]
            for name in names[:_COLUMNS_SHOWN]:
                failed = name in dataset.errors
                cells.append(marked("error", ERROR) if failed else value_text(dataset.get(name)))
            return cells

        if len(self) > 2 * _SHOWN:
            first, last = self[:_SHOWN], self[-_SHOWN:]
            rows = [*map(line, first), ["..."], *map(line, last)]
        else:
            rows = [line(dataset) for dataset in self]
        return table(f"{len(self)} DataSets", header, rows)


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


def _window(dataset: DataSet[Any]) -> str:
    return window_shown(*dataset.window, dataset.interval)


def _is_of_library(error: BaseException) -> bool:
    """Whether an error says that a value does not fit: polars has panics that are no Exceptions."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _fails(make: _MakeColumn, values: list[Any]) -> bool:
    try:
        make(values)
    except BaseException as error:
        if not _is_of_library(error):
            raise
        return True
    return False


def collect(receiver: Receiver[DataSet[O]], n: int, *, timeout: float | None = None) -> DataSets[O]:
    """Receive DataSets, and put them in a row.

    ::

        with Runner(context):
            table = collect(receiver, 100).to_polars()

    In an event loop, such as a notebook's, what else runs in the loop stands still meanwhile; a
    runner does not. There is :func:`acollect` for when that matters.

    :param receiver: where from
    :param n: how many
    :param timeout: how many seconds it may take; None: forever
    :return: so many, or fewer if the time is over or the channel is at its end
    :raises ConfigError: if n is no positive int
    """
    return wait_thread(_until_collected, receiver, n, timeout)


async def acollect(
    receiver: Receiver[DataSet[O]], n: int, *, timeout: float | None = None
) -> DataSets[O]:
    """As :func:`collect`, without holding up the event loop.

    :param receiver: where from
    :param n: how many
    :param timeout: how many seconds it may take; None: forever
    :return: so many, or fewer if the time is over or the channel is at its end
    :raises ConfigError: if n is no positive int
    """
    return await wait_task(_until_collected, receiver, n, timeout)


def _until_collected(
    alarm: AnyAlarm, receiver: Receiver[DataSet[O]], n: int, timeout: float | None
) -> Wait[DataSets[O]]:
    """The wait for so many."""
    if type(n) is not int or n < 1:
        raise ConfigError(f"collect(n={n!r}): it is a positive int")
    deadline = Deadline(timeout)
    found: list[DataSet[O]] = []
    try:
        while len(found) < n:
            found.append((yield from receiver.until_received(alarm, deadline.remaining())))
    except (ChannelClosed, TimeoutError):
        pass  # what there is, is worth having
    return DataSets(found)
