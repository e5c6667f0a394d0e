"""A sequence of DataSets, and its table in Arrow, polars or pandas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

import numpy as np

from run_task._extras import need
from run_task.errors import ChannelClosed, ConfigError
from run_task.sync._alarm import AnyAlarm
from run_task.sync._channel import Receiver
from run_task.sync._waiting import Deadline, Wait, wait_task, wait_thread
from run_task.tasks._dataset import DataSet

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

        Scalars and arrays of NumPy's become Python's numbers and lists, and ints become floats
        where both stand in one column, if floats can hold them.

        :raises ConfigError: if a task is called ``timestamp``
        """
        names = self.names
        if TIMESTAMP in names:
            raise ConfigError(
                f"a task is called {TIMESTAMP!r}, which is the column of the windows' ends: "
                f"rename it"
            )
        return {
            TIMESTAMP: [dataset.timestamp for dataset in self._datasets],
            **{name: _column(dataset.get(name) for dataset in self._datasets) for name in names},
        }

    def to_arrow(self) -> Any:
        """A :class:`pyarrow.Table`.

        :raises ConfigError: if pyarrow is not installed, or has no type for a task's results
        """
        arrow = need("pyarrow", "arrow")

        def column(name: str, values: list[Any]) -> Any:
            try:
                return arrow.array(values, arrow.int64() if name == TIMESTAMP else None)
            except (arrow.ArrowException, OverflowError) as error:
                raise _unfit("Arrow", name, values, error) from error

        return arrow.table({name: column(name, values) for name, values in self.columns().items()})

    def to_polars(self) -> pl.DataFrame:
        """A :class:`polars.DataFrame`.

        :raises ConfigError: if polars is not installed, or has no type for a task's results
        """
        polars = need("polars", "polars")
        polars_errors = (TypeError, ValueError, OverflowError, polars.exceptions.PolarsError)

        def column(name: str, values: list[Any]) -> pl.Series:
            try:
                made: pl.Series = polars.Series(
                    name, values, polars.Int64 if name == TIMESTAMP else None
                )
            except polars_errors as error:
                raise _unfit("polars", name, values, error) from error
            keys = {frozenset(cast("Any", value)) for value in values if isinstance(value, dict)}
            if len(keys) > 1:  # it would silently have those of the first alone
                raise _unfit("polars", name, values, "their keys differ")
            return made

        frame: pl.DataFrame = polars.DataFrame(
            [column(name, values) for name, values in self.columns().items()]
        )
        return frame

    def to_pandas(self) -> Any:
        """A :class:`pandas.DataFrame`.

        A null is NaN among floats, ``pandas.NA`` among ints and bools, and else None.

        :raises ConfigError: if pandas is not installed
        """
        pandas = need("pandas", "pandas")

        def column(name: str, values: list[Any]) -> Any:
            kinds = _kinds(values)
            kind = next(iter(kinds)) if len(kinds) == 1 else None
            if name == TIMESTAMP:
                dtype = "int64"
            elif kind is float:
                dtype = "float64"
            elif kind in _NULLABLE and None in values:
                dtype = _NULLABLE[kind]
            elif kind in _NULLABLE:
                dtype = None  # pandas finds it
            else:
                dtype = "object"
            try:
                return pandas.Series(values, dtype=dtype)
            except OverflowError:  # an int of more than 64 bits
                return pandas.Series(values, dtype="object")

        return pandas.DataFrame(
            {name: column(name, values) for name, values in self.columns().items()}
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


def _column(values: Iterable[Any]) -> list[Any]:
    found = [_without_numpy(value) for value in values]
    if _kinds(found) == {int, float} and all(abs(v) <= _EXACT for v in found if type(v) is int):
        return [None if value is None else float(value) for value in found]
    return found


def _without_numpy(value: Any) -> Any:
    """What NumPy has a type of its own for, as Python has it."""
    if not isinstance(value, _NUMPY) or value.dtype.kind in "mM":
        return value  # Python's datetimes would lose nanoseconds
    return value.tolist()


def _kinds(values: Iterable[Any]) -> set[type]:
    return {type(value) for value in values if value is not None}


def _unfit(library: str, name: str, values: Iterable[Any], why: object) -> ConfigError:
    kinds = ", ".join(sorted(kind.__qualname__ for kind in _kinds(values)))
    told = str(why).partition("\n")[0]
    return ConfigError(
        f"task {name!r}: {library} has no column for its results, of {kinds} ({told}): let it "
        f"return values of one kind, or take to_pandas(), which holds any"
    )


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
