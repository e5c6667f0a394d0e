"""Results of tasks as something that can be stored, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from run_task.errors import SinkError
from run_task.observe._format import SURROGATE
from run_task.sinks._protocol import Result
from run_task.sinks.encoding._json import Encoder, dumps
from run_task.sinks.encoding._tag import UnencodableError

_LONGEST_ERROR: Final = 10_000
"""How many characters of an error are kept."""


class TaskRecord(NamedTuple):
    """One task's result, ready to be stored.

    :param task: the task's name
    :param number: the result, if it is a number (and no bool); an int that is larger than a float
        can tell is rounded
    :param text: the result as JSON, with the ``NaN`` and ``Infinity`` that Python's json has
    :param error: why there is no result; None if there is one
    """

    task: str
    number: float | None
    text: str | None
    error: str | None

    @property
    def beyond_number(self) -> str | None:
        """The text, if the number alone does not tell the result to the last bit and by its type.

        For a float it does, except for NaN, which SQLite takes for NULL, and for minus zero, which
        it takes for zero.
        """
        if self.number is not None and repr(self.number) == self.text and self.text != "-0.0":
            return None
        return self.text


class WindowRecord(NamedTuple):
    """A window's results, ready to be stored.

    ``(pipeline, stage, end)`` is its key: a stage has no two windows that end at one time.
    """

    pipeline: str
    stage: str
    start: int
    end: int
    tasks: tuple[TaskRecord, ...]

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """A row for each task, as a table of columns has it."""
        for position, task in enumerate(self.tasks):
            yield {
                "pipeline": self.pipeline,
                "stage": self.stage,
                "window_start": self.start,
                "window_end": self.end,
                "task": task.task,
                "position": position,
                "value": task.number,
                "json": task.beyond_number,
                "error": task.error,
            }


def record(result: Result, encoder: Encoder) -> WindowRecord:
    """A result, ready to be stored.

    :param encoder: makes JSON of the tasks' results
    :raises SinkError: if a name or a task's result cannot be
    """
    pipeline, stage, window, _, dataset = result
    for name in (stage, *dataset, *dataset.errors):
        if not is_storable(name):
            raise SinkError(f"stage {stage!r}: {name!r} is no name that can be stored: rename it")
    tasks = [_task_record(stage, task, value, encoder) for task, value in dataset.items()]
    tasks += [TaskRecord(task, None, None, _text(e)) for task, e in dataset.errors.items()]
    return WindowRecord(pipeline, stage, *window, tuple(tasks))


def is_storable(name: str) -> bool:
    """Whether a text is one in UTF-8 without a zero, as every file and database takes it."""
    return "\0" not in name and SURROGATE.search(name) is None


def restored(number: float | None, beyond_number: str | None) -> Any:
    """What JSON has of the result that was stored as a number and a text."""
    return number if beyond_number is None else json.loads(beyond_number)


def _task_record(stage: str, task: str, value: Any, encoder: Encoder) -> TaskRecord:
    try:
        tree = encoder.tree(value)
    except UnencodableError as error:
        raise SinkError(
            f"stage {stage!r}, task {task!r}: its result, a {type(value).__qualname__}, cannot be "
            f"stored: {error}"
        ) from error.__cause__
    if type(tree) is float:
        return TaskRecord(task, tree, repr(tree) if math.isfinite(tree) else dumps(tree), None)
    if type(tree) is int:
        return TaskRecord(task, _as_float(tree), repr(tree), None)
    return TaskRecord(task, None, dumps(tree), None)


def _as_float(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _text(error: BaseException) -> str:
    # What no text in UTF-8 can hold, and no database takes, must not cost the window.
    text = str(error)[:_LONGEST_ERROR].encode("utf-8", "backslashreplace").decode()
    return text.replace("\0", "\\x00")
