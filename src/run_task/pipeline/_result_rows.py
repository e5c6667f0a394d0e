"""The results of a stage as rows of a time series."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, Final, NamedTuple

import numpy as np

from run_task.data import Closed, TimeSeries
from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.sinks.wide._schema import column_name
from run_task.tasks._dataset import DataSet
from run_task.tasks._declared import ColumnTypes
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet
from run_task.tasks._result_type import UNSAID, alternatives, fields_said, returned_by
from run_task.tasks._task import Runnable
from run_task.time._interval import TimeUnit
from run_task.time._shown import time_shown

_log = Log(__name__)


class ResultColumn(NamedTuple):
    """A column of a series of results.

    :param name: what it is called
    :param task: of which task it is
    :param field: of which field of what that returns; None: of all of it
    """

    name: str
    task: str
    field: str | None = None

    def value(self, results: Mapping[str, Any]) -> Any:
        """What it has of the results of a window.

        :raises KeyError: if the task has none
        :raises AttributeError: if the result lacks the field
        """
        result: Any = results[self.task]
        if self.field is None or result is None:
            return result
        kind: Any = result.__class__
        return result[self.field] if issubclass(kind, Mapping) else getattr(result, self.field)


class RowIngest:
    """Makes a row of each DataSet: its timestamp, and for each column the result of a task, or a
    field of it.

    A window in which one of these tasks failed gives no row, nor does one in which none of them has
    a value. A result that its column cannot hold is refused, which costs its own row.

    :param columns: the columns
    :param exact: whether an int that no float tells costs its row in a column of floats: else, it
        is the nearest one there
    """

    def __init__(self, columns: Sequence[ResultColumn], *, exact: bool = False) -> None:
        self._columns = columns
        self._exact = exact

    @property
    def tasks(self) -> Collection[str]:
        """Of which tasks it takes the results."""
        return {column.task for column in self._columns}

    def __call__(self, series: TimeSeries, dataset: DataSet[Any], /) -> None:
        error = self._enter(series, dataset, dataset, {})
        if error is not None:
            raise error

    def _enter(
        self,
        series: TimeSeries,
        dataset: AnyDataSet,
        results: Mapping[str, Any],
        key: Mapping[str, Any],
    ) -> Exception | None:
        """Make a row of results, unless a task failed, whose error says why. Returns what is wrong
        with them, if they make none."""
        try:
            row = {column.name: column.value(results) for column in self._columns}
            if self._exact:
                _check_exact(series, row)
            series.append(dataset.timestamp, **key, **row)
        except KeyError:
            return None
        except (ConfigError, AttributeError) as error:
            return error
        return None


class KeyedRowIngest(RowIngest):
    """Makes a row of each key of a KeyedDataSet, in sorted order of the keys.

    A key for which one of the tasks failed gives no row.

    :param by: the column of the key
    :param columns: the other columns
    :param exact: as of a :class:`RowIngest`
    """

    def __init__(self, by: str, columns: Sequence[ResultColumn], *, exact: bool = False) -> None:
        super().__init__(columns, exact=exact)
        self._by = by

    def __call__(self, series: TimeSeries, dataset: KeyedDataSet[Any, Any], /) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  a stage by key gives no other
        refused: list[tuple[Any, Exception]] = []
        for key, results in dataset.rows():
            if len(results) < len(dataset):
                continue  # a task failed, and the errors say why
            error = self._enter(series, dataset, results, {self._by: key})
            if error is not None:
                refused.append((key, error))
        if refused:
            key, error = refused[0]
            more = "" if len(refused) == 1 else f", and of {len(refused) - 1:,} more keys"
            raise ConfigError(f"the results of {key!r}{more}: {error}") from error


def _check_exact(series: TimeSeries, row: Mapping[str, Any]) -> None:
    """Refuse an int that its column, of floats, does not tell."""
    for name, value in row.items():
        if type(value) is not int or -_EXACT <= value <= _EXACT:
            continue
        if series.columns[name].kind == "f" and (
            value.bit_length() > 64 or int(float(value)) != value
        ):
            raise ConfigError(
                f"column {name!r} is one of floats, since an int of it may be missing, and no "
                f"float is {brief(value)}: make a TimeSeries with a column of ints for into()"
            )


_EXACT: Final = 2**53
"""Up to here, each int is a float."""


def checked_stamps(
    stage: str, unit: TimeUnit, ingest: Callable[[Any, Any], object]
) -> Callable[[Any, Any], object]:
    """An ingest into a series that is closed on the left, which must not stamp a row with the end
    of the window of its results, or later.

    :param stage: the name of the stage, for messages
    :param unit: the unit of its windows
    :param ingest: the ingest
    """

    @functools.wraps(ingest)
    def checked(series: TimeSeries, dataset: AnyDataSet) -> None:
        end, own_ns = dataset.timestamp, series.unit.nanos
        first_refused = -(-end * unit.nanos // own_ns)
        shown = end if dataset.interval is None else time_shown(end, dataset.interval)
        reason = (
            f"stage {stage!r}: these results are of a window that ends at {shown}, and the series "
            f"is closed on the left, so no window that is due by then would hold this row: make "
            f"the series with closed=Closed.RIGHT, or stamp it with an earlier time"
        )
        with series.refusing(first_refused, reason):
            ingest(series, dataset)

    return checked


def result_series(
    stage: str,
    tasks: Iterable[Runnable[Any, Any]],
    unit: TimeUnit,
    retention: Any,
    key: tuple[str, Any] | None = None,
    of: ColumnTypes | None = None,
) -> TimeSeries:
    """A series for the results of tasks: a column for each, by what it says that it returns.

    :param stage: the name of the stage, for messages
    :param tasks: the tasks
    :param unit: the unit of their windows
    :param retention: of the series
    :param key: the column of the key, and its kind; None: the results have no keys
    :param of: what each column of the series holds that the tasks read; None: they read no series
    :raises ConfigError: if the results of a task cannot be a column; the message names it
    """
    columns: dict[str, Any] = {} if key is None else {key[0]: key[1]}
    for task in tasks:
        for column, kind in _kinds(stage, task, of).items():
            if column.name in columns:
                whose = "the key" if key is not None and column.name == key[0] else "another task"
                raise ConfigError(
                    f"stage {stage!r}: task {task.name!r}: its column {column.name!r} is called "
                    f"like that of {whose}: rename it"
                )
            columns[column.name] = kind
    try:
        return TimeSeries(columns, unit, retention, Closed.RIGHT, key=key[0] if key else None)
    except ConfigError as error:
        raise ConfigError(f"stage {stage!r}: {error}") from None


def result_columns(
    tasks: Iterable[Runnable[Any, Any]], of: ColumnTypes | None
) -> dict[str, ResultColumn]:
    """The columns that a series may have of the results of tasks, by name: of all that each
    returns, and of its fields, as far as it says that it has some."""
    every = list(tasks)
    found = {task.name: ResultColumn(task.name, task.name) for task in every}
    for task in every:
        for field in _fields(returned_by(task, of)) or ():
            name = column_name(task.name, field)
            found.setdefault(name, ResultColumn(name, task.name, field))
    return found


_CURE: Final = (
    "or make a TimeSeries(..., closed=Closed.RIGHT) whose columns hold what they should, and give "
    "it to into()"
)


def _kinds(
    stage: str, task: Runnable[Any, Any], columns: ColumnTypes | None
) -> dict[ResultColumn, np.dtype[Any]]:
    """The columns of what a task returns, and what each holds.

    :raises ConfigError: if it cannot be known, or is nothing that a column holds
    """
    name, returned = task.name, returned_by(task, columns)
    where = f"stage {stage!r}: task {name!r}"
    if returned is UNSAID:
        raise ConfigError(
            f"stage {stage!r}: series() makes columns of what tasks say they return, and task "
            f"{name!r} does not say it: annotate it, such as with -> float, {_CURE}"
        )
    if isinstance(returned, str):
        raise ConfigError(
            f"stage {stage!r}: what task {name!r} says it returns, {returned!r}, has no meaning "
            f"where it stands: import it there, {_CURE}"
        )
    fields = _fields(returned)
    if fields is None:
        return {ResultColumn(name, name): _kind(f"{where} returns", returned)}
    may_lack = NoneType in alternatives(returned)
    found: dict[ResultColumn, np.dtype[Any]] = {}
    for field, of in fields.items():
        told = f"{where} returns in field {field!r}"
        kind = _kind(told, of | None if may_lack and of is not UNSAID else of)
        found[ResultColumn(column_name(name, field), name, field)] = kind
    return found


def _fields(returned: Any) -> Mapping[str, Any] | None:
    """The fields that a type says it has; None: it has none."""
    kinds = [kind for kind in alternatives(returned) if kind is not NoneType]
    return fields_said(kinds[0]) if len(kinds) == 1 else None


def _kind(told: str, returned: Any) -> np.dtype[Any]:
    """The kind of column that holds values of a type. Of ints that may be missing it is one of
    floats, in which NaN stands for those: it refuses an int that no float tells.

    :param told: what returns it, for messages
    """
    kinds = alternatives(returned)
    optional = NoneType in kinds
    kinds = [kind for kind in kinds if kind is not NoneType]
    try:
        dtype = np.dtype(kinds[0]) if len(kinds) == 1 and isinstance(kinds[0], type) else None
    except TypeError:
        dtype = None
    if optional and dtype is not None and dtype.kind in "iu":
        return np.dtype(float)
    if dtype is None or dtype.kind not in "fiubU" or (optional and dtype.kind != "f"):
        name = getattr(returned, "__name__", None) if isinstance(returned, type) else None
        name = "what it does not say" if returned is UNSAID else name or returned
        raise ConfigError(
            f"{told} {name}, which makes no column: let it return a float, an int, a bool, a str, "
            f"float | None, int | None, or a NamedTuple or dataclass of these, {_CURE}"
        )
    return dtype
