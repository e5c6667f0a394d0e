"""Results as the page and the API show them: what has no short form in JSON becomes a text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from run_task.errors import TaskError
from run_task.observe._format import error_shown, shown
from run_task.tasks._alert import Alert

_LONGEST: Final = 200
"""How many characters of a text are shown."""

_EXACT: Final = 1 << 53
"""From which int on the numbers of JavaScript are no longer exact."""


def scalar(result: object) -> Any:
    """A result as a number, a boolean, a text or None."""
    value: Any = result
    kind = type(result)
    if kind is float:
        return value if math.isfinite(value) else None
    if kind is str:
        return value if len(value) <= _LONGEST else value[:_LONGEST]
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if -_EXACT < value < _EXACT else shown(value)
    if issubclass(kind, np.generic):
        plain: Any = value.item()
        return scalar(plain) if type(plain) in (float, int, bool, str) else shown(value)[:_LONGEST]
    if issubclass(kind, Alert):
        return value.on
    return shown(value)[:_LONGEST]


def scalars(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results by task, each as :func:`scalar` has it."""
    return {name: scalar(value) for name, value in results.items()}


def finite(value: float) -> float | None:
    """A number; None where JSON has none."""
    return value if math.isfinite(value) else None


def finites(values: Iterable[float]) -> list[float | None]:
    """Numbers; None where JSON has none."""
    return [value if value - value == 0.0 else None for value in values]


def key_told(key: Any) -> str | int | None:
    """A key of rows as JSON has it."""
    return key if type(key) in (str, int) or key is None else str(key)


def key_given(text: str, keys: Sequence[Any]) -> Any:
    """The key that a text names: an int where keys are ints.

    :param text: the text
    :param keys: some keys
    """
    if keys and not isinstance(keys[0], str):
        try:
            return int(text)
        except ValueError:
            return text
    return text


def why(error: TaskError) -> str:
    """Why a task gave no result."""
    return error_shown(error)[:_LONGEST]
