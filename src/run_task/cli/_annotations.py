"""What tasks say that they take and give, and whether that fits the data of their stage."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from run_task.data import TimeSeries
from run_task.data._several import inputs_of
from run_task.errors import ConfigError
from run_task.pipeline._stage import AnyStage
from run_task.tasks._declared import Returning
from run_task.tasks._result_type import annotation_shown
from run_task.tasks._stateful import with_state
from run_task.tasks._task import Runnable

_NUMBERS: dict[Any, tuple[type, ...]] = {float: (float, int), complex: (complex, float, int)}


@dataclass(frozen=True)
class Signature:
    """The types of a task.

    :param takes: what its data is; None: it does not say
    :param gives: what its result is
    """

    takes: Any
    gives: Any

    def __str__(self) -> str:
        return f"{annotation_shown(self.takes)} -> {annotation_shown(self.gives)}"


def signature(task: Runnable[Any, Any], data: Any = None) -> Signature:
    """What a task's annotations say, or what its data decides.

    :param task: the task
    :param data: what it reads; None: it is not known
    """
    stateful = with_state(task)
    run: Any = task.run if stateful is None else stateful.step
    try:
        parameters = list(inspect.signature(run).parameters)
    except (TypeError, ValueError):  # of C
        return Signature(None, None)
    if not inspect.isroutine(run):  # an object that can be called
        run = cast("Any", type(run)).__call__  # which is annotated
    try:
        hints = typing.get_type_hints(run)
    except Exception:  # of a name that is there for type checkers only
        hints = dict(getattr(run, "__annotations__", {}))
    takes = hints.get(parameters[0]) if parameters else None
    gives = hints.get("return")
    if stateful is not None and typing.get_origin(gives) is tuple:
        gives = typing.get_args(gives)[0]  # the other is its state
    if isinstance(task, Returning) and isinstance(data, TimeSeries):
        gives = task.result_type(data.columns)
    return Signature(takes, type(None) if gives is None and "return" in hints else gives)


def misfits(stage: AnyStage) -> Iterator[ConfigError]:
    """Tasks that cannot be called as they will be, or want other data than their stage has."""
    view: Any = None
    with stage.data.read(stage.config.data_timeout) as data:
        view = data
    for task in stage.tasks:
        where = f"stage {stage.name!r}, task {task.name!r}"
        stateful = with_state(task)
        called, given = (task.run, 3) if stateful is None else (stateful.step, 4)
        try:
            # A wrapper is called with its own parameters, not with those of what it wraps.
            inspect.signature(called, follow_wrapped=False).bind(*(view, 0, 0, None)[:given])
        except TypeError as error:
            parameters = ", ".join(("data", "start", "end", "state")[:given])
            yield ConfigError(
                f"{where}: it cannot be called with ({parameters}): {error}: give its function "
                f"these {'three' if given == 3 else 'four'} parameters"
            )
            continue
        except ValueError:
            continue  # of C, and without a signature
        takes = signature(task).takes
        if not _fits(view, takes):
            yield ConfigError(
                f"{where}: it takes {annotation_shown(takes)}, and the data of its stage gives "
                f"{type(view).__name__}: let it take that, or give the stage other data"
            )


def data_named(stage: AnyStage) -> str:
    """What the tasks of a stage read."""
    named = [_data_named(data, stage.config.data_timeout) for data in inputs_of(stage.data)]
    return named[0] if len(named) == 1 else f"({'), ('.join(named)})"


def _data_named(shared: Any, timeout: float) -> str:
    if isinstance(shared, TimeSeries):
        kinds = (
            (name, dtype if dtype.itemsize else "str") for name, dtype in shared.columns.items()
        )
        columns = ", ".join(f"{name} {kind}" for name, kind in kinds)
        key = "" if shared.key is None else f"; by {shared.key}"
        return f"TimeSeriesView of {columns}; time in {shared.unit.value}{key}"
    with shared.read(timeout) as data:
        return type(data).__name__


def _fits(value: object, wanted: Any) -> bool:
    """Whether a value is of a type, as far as that can be told at run time."""
    if isinstance(wanted, types.UnionType) or typing.get_origin(wanted) is typing.Union:
        return any(_fits(value, one) for one in typing.get_args(wanted))
    kind = typing.get_origin(wanted) or wanted
    if not isinstance(kind, type):
        return True
    try:
        return isinstance(value, _NUMBERS.get(kind, kind))
    except TypeError:  # a protocol, or a TypedDict
        return True
