"""Results as plain JSON, for those who know nothing of this library: it tells values, not types."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

import numpy as np

from run_task.errors import SinkError
from run_task.sinks._protocol import Result
from run_task.tasks._keyed import KeyedDataSet
from run_task.time._interval import TaskInterval
from run_task.time._shown import time_shown

_DEEPEST: Final = 100
"""How many levels a value may have: whoever reads it may have a limit, too."""

_AS_TEXT: Final = (Decimal, UUID)


def result_as_json(result: Result) -> dict[str, Any]:
    """What is known of a window, as plain JSON has it.

    :raises SinkError: if a result has no form in it; the message names the task
    """
    dataset, start, end = result.dataset, *result.window
    known: dict[str, Any] = {
        "pipeline": result.pipeline,
        "stage": result.stage,
        "start": start,
        "end": end,
        "unit": None if result.unit is None else result.unit.value,
    }
    if isinstance(dataset, KeyedDataSet):
        known["keys"] = [
            {"key": as_plain(key, "key"), "results": _results(values)}
            for key, values in dataset.rows()
        ]
    else:
        known["results"] = _results(dataset)
    known["errors"] = [
        {"task": error.task, "key": as_plain(error.key, "key"), "error": str(error)}
        for error in dataset.errors.values()
    ]
    if dataset.behind:
        known["behind"] = [*dataset.behind]
    return known


def _results(values: Mapping[str, Any]) -> dict[str, Any]:
    return {task: as_plain(value, f"task {task!r}") for task, value in values.items()}


def end_shown(result: Result) -> str | None:
    """The end of a result's window, as ISO 8601 has it; None: nobody knows its unit."""
    if result.unit is None:
        return None
    return time_shown(result.window.end, TaskInterval(1, result.unit))


def as_text(tree: Any) -> str:
    """Plain JSON as a text, of ASCII alone."""
    return json.dumps(tree, allow_nan=False, separators=(",", ":"))


def as_plain(value: Any, what: str) -> Any:
    """A value as plain JSON has it: records as objects, NaN and infinity as null, times as ISO 8601
    has them.

    :param what: what it is, for messages
    :raises SinkError: if it has no form there
    """
    try:
        return _plain(value, 0)
    except _FormlessError as error:
        raise SinkError(
            f"{what}: {error} has no form in plain JSON: return another value"
        ) from None


class _FormlessError(Exception):
    pass


def _plain(value: Any, depth: int) -> Any:
    anything: Any = value  # which the checkers do not narrow to a type of unknown parts
    kind = _kind(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if depth > _DEEPEST:
        raise _FormlessError("what is nested this deep")
    deeper: Callable[[Any], Any] = lambda part: _plain(part, depth + 1)  # noqa: E731
    if isinstance(value, Enum):
        return deeper(value.value)
    if isinstance(value, np.datetime64):
        return None if np.isnat(anything) else str(anything)
    if isinstance(value, np.generic):
        return deeper(anything.item())
    if isinstance(value, np.ndarray):
        array: np.ndarray[Any, np.dtype[Any]] = anything
        if array.dtype.kind not in "biufUM":
            raise _FormlessError(f"an array of {array.dtype}")
        return deeper((array.astype(str) if array.dtype.kind == "M" else array).tolist())
    for base in (int, float, str):  # of a class derived from these
        if isinstance(value, base):
            return deeper(base(value))
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, _AS_TEXT):
        return str(value)
    names: Any = getattr(kind, "_fields", None)
    if isinstance(value, tuple) and names:
        return {name: deeper(part) for name, part in zip(names, anything, strict=True)}
    if dataclasses.is_dataclass(kind):
        fields = [field.name for field in dataclasses.fields(kind)]
        return {name: deeper(getattr(anything, name)) for name in fields}
    if isinstance(value, Mapping):
        return _object(anything, deeper)
    if isinstance(value, list | tuple):
        return [deeper(part) for part in anything]
    if isinstance(value, Set):
        return sorted((deeper(part) for part in anything), key=repr)
    raise _FormlessError(f"a {kind.__qualname__}")


def _kind(value: object) -> type[Any]:
    return type(value)


def _object(value: Mapping[Any, Any], deeper: Callable[[Any], Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, part in value.items():
        name = deeper(key)
        if not isinstance(name, str | int | float) or isinstance(name, bool):
            raise _FormlessError(f"a key such as {key!r:.80}")
        if str(name) in made:
            raise _FormlessError(f"a mapping with the key {str(name)!r:.80} twice, as texts,")
        made[str(name)] = deeper(part)
    return made
