"""What a context is made of, checked: tasks, intervals, and how data and windows fit."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from run_task.data._several import has_rows, inputs_of, members_of
from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.runner._config import Align, Empty, RunnerConfig
from run_task.runner._declared_work import DeclaredWork, declared, pane_of
from run_task.tasks._alert import CountsTime
from run_task.tasks._call import misfit
from run_task.tasks._stateful import with_state
from run_task.tasks._task import ChecksInputs, Runnable, called
from run_task.time._calendar import CalendarInterval, Interval
from run_task.time._interval import TaskInterval
from run_task.time._length import in_short

T = TypeVar("T")


def listed(tasks: Iterable[T]) -> tuple[T, ...]:
    if not isinstance(tasks, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
        raise ConfigError(f"tasks={tasks!r}: give a list of tasks, also of a single one: [...]")
    return tuple(tasks)


def check_tasks(tasks: tuple[Any, ...]) -> None:
    if not tasks:
        raise ConfigError("there are no tasks: give at least one, by with_task() or tasks=[...]")
    seen: dict[str, Any] = {}
    for task in tasks:
        run = getattr(task, "run", None)
        if not callable(run):
            raise ConfigError(
                f"{task!r} is no task, it has no run(): decorate a function with @task, or give "
                f"an object with a name and a run(data, start, end)"
            )
        if isinstance(task, type):
            raise ConfigError(f"{task!r} is a class: give an instance of it, {task.__name__}()")
        name = getattr(task, "name", None)
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{task!r} has no name: give it a name that is a text, not {name!r}")
        function = called(run)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigError(
                f"task {name!r} is a generator function: to call it computes nothing, but makes "
                f"a generator; return the values as a list, and leave yield out"
            )
        if name in seen:
            raise ConfigError(
                f"two tasks are called {name!r}, {seen[name]!r} and {task!r}: rename one of them, "
                f"since the name is the key of its result"
            )
        seen[name] = task


def check_declared(
    tasks: Iterable[Runnable[Any, Any]], data: object, interval: Interval, config: RunnerConfig
) -> None:
    """See whether declared tasks can be computed over the data, and others over windows in the unit
    of the interval.

    :raises ConfigError: if one cannot; the message names it, and the cure
    """
    for task in tasks:
        if isinstance(task, CountsTime):
            task.count_in(interval.unit)
    if together := declared(tasks):
        DeclaredWork(together, data, pane_of(interval, config.window))


def check_inputs(tasks: Iterable[Runnable[Any, Any]], data: object, by: str | None) -> None:
    """See whether tasks that know over which data they can be run can be run over this.

    :param by: the column of the key; None: there is none
    :raises ConfigError: if one cannot; the message names it, and the cure
    """
    for task in tasks:
        if isinstance(task, ChecksInputs):
            task.check_inputs(members_of(data) or (data,), by)


def check_calls(tasks: Iterable[Runnable[Any, Any]]) -> None:
    """See whether each task can be called as a runner calls it.

    :raises ConfigError: if one cannot; the message names it, and the cure
    """
    for task in tasks:
        if (stateful := with_state(task)) is not None:
            if problem := misfit(stateful.step, None, 0, 0, None):
                raise ConfigError(
                    f"task {task.name!r} cannot be called with (data, start, end, state): "
                    f"{problem}: give its function these four parameters"
                )
        elif problem := misfit(task.run, None, 0, 0):
            raise ConfigError(
                f"task {task.name!r} cannot be called with (data, start, end): {problem}: give its "
                f"function these three parameters"
            )


def warnings_of(data: object, interval: Interval, config: RunnerConfig) -> Sequence[str]:
    """What is probably wrong with how data and windows fit, but no mistake for certain.

    :param data: what the tasks read
    :param interval: how often
    :param config: what of it concerns windows
    """
    warnings = (_out_of_retention(one, interval, config) for one in inputs_of(data))
    return [warning for warning in warnings if warning is not None]


def _out_of_retention(data: object, interval: Interval, config: RunnerConfig) -> str | None:
    retention = getattr(data, "retention", None)
    if not isinstance(retention, TaskInterval):
        return None  # all rows, or so many of them, however old these are
    window = config.window or interval
    if retention.nanos >= window.longest_ns + config.grace_ns:
        return None
    grace = f", and wait for {in_short(config.grace)}" if config.grace is not None else ""
    return (
        f"its windows reach back {in_short(window)}{grace}, its data keeps rows for "
        f"{in_short(retention)}: windows lack the oldest of their rows; give the data a "
        f"longer retention="
    )


def check_empty(data: object, config: RunnerConfig) -> None:
    if config.empty is Empty.SKIP and not has_rows(data):
        raise ConfigError(
            f"empty=Empty.SKIP: which windows hold a row is known of a TimeSeries, and not of "
            f"{brief(data)}: leave it out, or let rows enter a TimeSeries"
        )


def check_windows(interval: Interval, config: RunnerConfig) -> None:
    if config.align is Align.START and interval.has_offset:
        raise ConfigError(
            f"interval={interval!r} says where windows end, and align=Align.START that the first "
            f"starts when the runner does: leave one of them out"
        )
    window = config.window
    if window is None or isinstance(window, CalendarInterval):
        return
    if window.nanos % interval.unit.nanos:
        raise ConfigError(
            f"window={in_short(window)} is no whole number of {interval.unit.name.lower()}, the "
            f"unit of the interval {in_short(interval)}: give the interval, or the data, a smaller "
            f"unit"
        )
