"""The results of a stage as rows of a time series."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np

from run_task.data import Closed, TimeSeries
from run_task.errors import ConfigError
from run_task.observe._log import Log
from run_task.observe._recurrence import Recurrence
from run_task.tasks._dataset import DataSet
from run_task.tasks._declared import ColumnTypes, Returning
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet
from run_task.tasks._stateful import with_state
from run_task.tasks._task import Runnable
from run_task.time._interval import TimeUnit
from run_task.time._shown import time_shown, window_shown

_log = Log(__name__)

_NO_ANNOTATION: Final = object()


class RowIngest:
    """Makes a row of each DataSet: its timestamp, and for each column the result of the task of
    that name.

    A window in which one of these tasks failed gives no row, nor does one in which none of them has
    a value. A result that its column cannot hold costs its own row, and is logged.

    :param stage: the name of the stage, for messages
    :param columns: the names of the columns
    """

    def __init__(self, stage: str, columns: Sequence[str]) -> None:
        self._stage = stage
        self._columns = columns
        self._refused = Recurrence()

    @property
    def columns(self) -> Sequence[str]:
        """Of which tasks it takes the results."""
        return self._columns

    def __call__(self, series: TimeSeries, dataset: DataSet[Any], /) -> None:
        try:
            row = {column: dataset[column] for column in self._columns}
        except KeyError:
            return  # a task failed, and the DataSet's errors say why
        try:
            series.append(dataset.timestamp, **row)
        except ConfigError as error:
            self._refuse(dataset, error)

    def _refuse(self, dataset: AnyDataSet, error: ConfigError) -> None:
        since = self._refused.happen()
        if not since:
            return
        _log.warning(
            "stage %r: the results of %s make no row (%d since this was last told): %s",
            *(self._stage, window_shown(*dataset.window, dataset.interval), since, error),
            extra={"window": dataset.window},
        )


class KeyedRowIngest(RowIngest):
    """Makes a row of each key of a KeyedDataSet, in sorted order of the keys.

    A key for which one of the tasks failed gives no row.

    :param stage: the name of the stage, for messages
    :param by: the column of the key
    :param columns: the names of the other columns
    """

    def __init__(self, stage: str, by: str, columns: Sequence[str]) -> None:
        super().__init__(stage, columns)
        self._by = by

    def __call__(self, series: TimeSeries, dataset: KeyedDataSet[Any, Any], /) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  a stage by key gives no other
        for key, results in dataset.rows():
            if len(results) < len(dataset):
                continue  # a task failed, and the errors say why
            row = {column: results[column] for column in self._columns}
            try:
                series.append(dataset.timestamp, **{self._by: key}, **row)
            except ConfigError as error:
                self._refuse(dataset, error)


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
        if task.name in columns:
            raise ConfigError(
                f"stage {stage!r}: task {task.name!r} is called like the column of the key: "
                f"rename it"
            )
        columns[task.name] = _kind(stage, task, of)
    try:
        return TimeSeries(columns, unit, retention, Closed.RIGHT, key=key[0] if key else None)
    except ConfigError as error:
        raise ConfigError(f"stage {stage!r}: {error}") from None


def _kind(stage: str, task: Runnable[Any, Any], columns: ColumnTypes | None) -> np.dtype[Any]:
    """The kind of column that holds what a task returns."""
    cure = (
        "or make a TimeSeries(..., closed=Closed.RIGHT) whose columns hold what they should, "
        "and give it to into()"
    )
    returned = _returned(task.run)
    if (stateful := with_state(task)) is not None:
        returned = _returned(stateful.step)
        parts = typing.get_args(returned)
        if typing.get_origin(returned) is tuple and len(parts) == 2:
            returned = parts[0]  # the other is its state
    elif isinstance(task, Returning) and columns is not None:
        returned = task.result_type(columns)
    if returned is _NO_ANNOTATION:
        raise ConfigError(
            f"stage {stage!r}: series() makes columns of what tasks say they return, and task "
            f"{task.name!r} does not say it: annotate it, such as with -> float, {cure}"
        )
    if isinstance(returned, str):
        raise ConfigError(
            f"stage {stage!r}: what task {task.name!r} says it returns, {returned!r}, has no "
            f"meaning where it stands: import it there, {cure}"
        )
    kinds = _alternatives(returned)
    optional = type(None) in kinds
    kinds = [kind for kind in kinds if kind is not type(None)]
    try:
        dtype = np.dtype(kinds[0]) if len(kinds) == 1 and isinstance(kinds[0], type) else None
    except TypeError:
        dtype = None
    name = getattr(returned, "__name__", None) if isinstance(returned, type) else None
    if dtype is None or dtype.kind not in "fiubU" or (optional and dtype.kind != "f"):
        raise ConfigError(
            f"stage {stage!r}: task {task.name!r} returns {name or returned}, which makes no "
            f"column: let it return a float, an int, a bool, a str, or float | None, {cure}"
        )
    return dtype


def _alternatives(annotation: Any) -> list[Any]:
    """The types that an annotation leaves open."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [kind for part in typing.get_args(annotation) for kind in _alternatives(part)]
    if isinstance(annotation, typing.NewType):
        return _alternatives(annotation.__supertype__)
    return [annotation]


def _returned(run: Any) -> Any:
    """What a function says that it returns: a type, the text of one that has no meaning where it
    stands, or that it says nothing."""
    function: Any = run
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    function = getattr(function, "__func__", function)  # of a method
    annotation: Any = getattr(function, "__annotations__", {}).get("return", _NO_ANNOTATION)
    if not isinstance(annotation, str):
        return annotation
    # Of the whole signature, what stands there for type checkers only could not be resolved.
    holder = type("Returned", (), {"__annotations__": {"result": annotation}})
    names = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return typing.get_type_hints(holder, names)["result"]
    except (NameError, AttributeError, SyntaxError, TypeError):
        return annotation
