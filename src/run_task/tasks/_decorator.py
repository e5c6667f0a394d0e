"""The decorator that makes a task of a function."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, overload

from run_task.errors import ConfigError
from run_task.tasks._stateful import StatefulTask
from run_task.tasks._task import Task, TaskVersion

I = TypeVar("I")
O = TypeVar("O")
S = TypeVar("S")


@overload
def task(function: Callable[[I, int, int], O], /) -> Task[I, O]: ...
@overload
def task(
    *, name: str | None = None, version: TaskVersion | None = None
) -> Callable[[Callable[[I, int, int], O]], Task[I, O]]: ...
@overload
def task(
    *,
    name: str | None = None,
    state: Callable[[], S],
    copy: Callable[[S], S] | None = None,
    version: TaskVersion | None = None,
) -> Callable[[Callable[[I, int, int, S], tuple[O, S]]], StatefulTask[I, O, S]]: ...
def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    state: Callable[[], Any] | None = None,
    copy: Callable[[Any], Any] | None = None,
    version: TaskVersion | None = None,
) -> Any:
    """Make a :class:`Task` of a function ``(data, start, end)``, or with ``state=`` a
    :class:`StatefulTask` of a function ``(data, start, end, state)`` that returns its result and
    the next state.

    ::

        @task
        def mean(prices: list[float], start: int, end: int) -> float:
            return sum(prices) / len(prices)

        @task(name="largest price")
        def largest(prices: list[float], start: int, end: int) -> float:
            return max(prices)

        @task(state=float)
        def average(prices: list[float], start: int, end: int, last: float) -> tuple[float, float]:
            average = 0.9 * last + 0.1 * prices[-1]
            return average, average

    :param function: the function, where ``@task`` stands without parentheses
    :param name: the task's name; by default the function's
    :param state: makes the first state, of each key where there are keys: a type or function
        without arguments
    :param copy: copies a state, for states that the function changes in place
    :param version: what has to be another where states and results of before mean something else,
        an int or a text: a sink that holds results of another version is refused
    :raises ConfigError: if it is made of nothing that can be called, or only what is for a state
        is given
    """
    if state is not None:
        make = functools.partial(
            StatefulTask[Any, Any, Any], state=state, name=name, copy=copy, version=version
        )
        return make if function is None else make(function)
    if copy is not None:
        raise ConfigError("task(copy=): this is for a task with a state: give state=")
    if function is not None:
        return Task(function, name, version)
    return functools.partial(Task[Any, Any], name=name, version=version)
