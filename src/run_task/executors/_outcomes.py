"""What came of a tick's tasks, noted by position, and the DataSet that is made of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from run_task._window import Window
from run_task.data.series._keyed_view import KeyedView
from run_task.errors import TaskError, TaskTimeout
from run_task.executors._protocol import failed
from run_task.tasks._dataset import DataSet, Roster
from run_task.tasks._keyed import KeyedDataSet
from run_task.tasks._tick import Tick

Run: TypeAlias = Callable[[Any, int, int], Any]
"""What a task does."""

Spans: TypeAlias = Mapping[int, tuple[float, float]]
"""When tasks began, and how many seconds they ran, by position; only of those that ended."""

clock: Callable[[], float] = time.perf_counter
"""In seconds."""

NOT_RUN: Final = (math.nan, math.nan)


class Failure:
    """Stands in the place of a result when the task raised."""

    __slots__ = ("exception",)

    def __init__(self, exception: BaseException) -> None:
        self.exception: BaseException = exception


def one_after_another(begun: float, ends: Iterable[float]) -> Spans:
    """The spans of tasks of which each began as the one before it ended.

    :param begun: when the first began
    :param ends: when each ended
    """
    spans: dict[int, tuple[float, float]] = {}
    for position, end in enumerate(ends):
        spans[position] = begun, end - begun
        begun = end
    return spans


def dataset_of(
    tick: Tick,
    roster: Roster,
    values: Sequence[Any],
    spans: Spans,
    begun: float,
    took: float,
    task_timeout: float,
    overdue: Mapping[int, str | Window] | None = None,
) -> DataSet[Any]:
    """The DataSet of a tick in which something went wrong, or tasks ran beside each other.

    :param tick: what there was to do
    :param roster: the tasks
    :param values: what each returned, or a :class:`Failure`, by position
    :param spans: when each ran
    :param begun: when the first began
    :param took: how long it all took, in seconds
    :param task_timeout: from how many seconds on a result is too late
    :param overdue: why tasks were not waited for, by position; a window: they are still running
        from that
    """
    window = tick.window
    errors: dict[str, TaskError] = {}
    for position, name in enumerate(roster.names):
        value = values[position]
        if overdue and position in overdue:
            why = overdue[position]
            if isinstance(why, Window):
                errors[name] = TaskTimeout(name, window, since=why)
            else:
                errors[name] = TaskTimeout(name, window, why)
        elif (seconds := spans[position][1]) > task_timeout:
            errors[name] = TaskTimeout(name, window, late(seconds, task_timeout))
        elif type(value) is Failure:
            errors[name] = failed(name, window, value.exception)
    ran = [spans.get(position, NOT_RUN) for position in range(len(values))]
    starts = roster.pack(*[start for start, _ in ran])
    ends = roster.pack(*[start + seconds for start, seconds in ran])
    # A task that hangs may yet write to the list that it was given: the DataSet has a copy.
    results = [None if name in errors else value for name, value in zip(roster.names, values)]
    noted = roster, results, begun, ends, took, errors or None, starts
    return DataSet.of(tick.due, tick.behind, *noted)


def keyed_dataset_of(
    tick: Tick,
    roster: Roster,
    keyed: KeyedView,
    values: Sequence[Any],
    seconds: Sequence[float],
    took: float,
    problems: Mapping[int, BaseException | str | Window],
) -> KeyedDataSet[Any, Any]:
    """The KeyedDataSet of a tick.

    :param tick: what there was to do
    :param roster: the tasks
    :param keyed: the view of the tick
    :param values: what each task gave for each key, all tasks of the first key first
    :param seconds: how long each task ran for all keys together
    :param took: how long it all took, in seconds
    :param problems: where there is no result, by position among the values: what the task raised,
        or else why it is too late; a window: it is still running from that
    """
    names, keys, window = roster.names, keyed.keys, tick.window
    errors: dict[tuple[str, Any], TaskError] = {}
    count = len(names)
    for position in sorted(problems, key=lambda position: (position % count, position)):
        place, task = divmod(position, count)
        name, key, problem = names[task], keys[place], problems[position]
        if isinstance(problem, str):
            errors[name, key] = TaskTimeout(name, window, problem, key)
        elif isinstance(problem, Window):
            errors[name, key] = TaskTimeout(name, window, key=key, since=problem)
        else:
            errors[name, key] = failed(name, window, problem, key)
    noted = values, seconds, took, errors or None
    return KeyedDataSet.of(tick.due, tick.behind, roster, keyed.by, keys, *noted)


def late(seconds: float, task_timeout: float) -> str:
    """Why a result is too late."""
    return f"it ran for {seconds:.3g} s, task_timeout is {task_timeout:g} s"
