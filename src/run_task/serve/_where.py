"""Keys of a window by what tasks gave for them: ``price_mean > 3 and count >= 10``.

A condition is made of comparisons, all of which have to hold. Each has the name of a task, or of a
field of its result as ``task_field``, one of ``= != < <= > >=``, and a number, a text in quotes,
``true``, ``false`` or ``null``. Names are looked for among those that there are, the longest first,
so that any name can be said, whatever characters it has.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final

import numpy as np

from run_task.serve._guard import RefusedRequest
from run_task.tasks._alert import Alert
from run_task.tasks._result_fields import fields_of

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_OPERATOR: Final = re.compile(r"\s*(<=|>=|!=|==|=|<|>)\s*")
_NUMBER: Final = re.compile(
    r"[+-]?([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,3})?"
)
_TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_WORD: Final = re.compile(r"(true|false|null)\b")
_AND: Final = re.compile(r"\s+and\s+", re.IGNORECASE)
_WORDS: Final[Mapping[str, bool | None]] = {"true": True, "false": False, "null": None}

_KINDS: Final[Mapping[type, str]] = {float: "a number", str: "a text", bool: "true or false"}
"""What results are compared as."""

_UNREADABLE: Final = HTTPStatus.UNPROCESSABLE_ENTITY

_MOST: Final = 8
"""How many comparisons there may be: each looks at all keys."""

_MOST_NAMES: Final = 20
"""How many names a message lists."""

_LONGEST_NAME: Final = 80


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the results of a task, or a field of them, are to be."""

    name: str
    compare: Callable[[Any, Any], bool]
    to: Any
    """None: whether there is a result is asked."""
    text: str
    """How it was said."""


def places_where(
    condition: str,
    columns: Mapping[str, Sequence[Any]],
    tasks: Collection[str],
    places: Sequence[int],
) -> Sequence[int]:
    """Those places at which a condition holds.

    What is missing, as where a task failed, and NaN, is only found by ``= null``.

    :param condition: the condition
    :param columns: the results by task, None where one is missing
    :param tasks: the names of all tasks, also of those without results
    :param places: the places among the keys, in order
    :raises RefusedRequest: if it cannot be read, names what there is not, or compares results with
        something of another kind
    """
    fields = _fields(columns)
    for comparison in _parsed(condition, {*tasks, *fields}):
        values = _values(comparison.name, columns, fields)
        places = _held(comparison, values, places)
    return places


def _fields(columns: Mapping[str, Sequence[Any]]) -> Mapping[str, tuple[str, str]]:
    """The task and the field of each name that is ``task_field``."""
    found: dict[str, tuple[str, str]] = {}
    for task, column in columns.items():
        first = next((value for value in column if value is not None), None)
        if not isinstance(first, Alert):
            found |= {f"{task}_{field}": (task, field) for field in fields_of(first) or ()}
    return found


def _values(
    name: str, columns: Mapping[str, Sequence[Any]], fields: Mapping[str, tuple[str, str]]
) -> Sequence[Any]:
    if name in columns or name not in fields:
        return columns.get(name, ())
    task, field = fields[name]
    return [
        None if value is None else (fields_of(value) or {}).get(field) for value in columns[task]
    ]


def _parsed(condition: str, names: Collection[str]) -> Sequence[Comparison]:
    longest_first = sorted(names, key=len, reverse=True)
    found: list[Comparison] = []
    rest = condition.strip()
    while True:
        comparison, rest = _comparison(rest, longest_first)
        found.append(comparison)
        if not rest.strip():
            return found
        if (joint := _AND.match(rest)) is None:
            raise _refused(f"{rest.strip():.80} stands behind a comparison: join several by and")
        if len(found) == _MOST:
            raise _refused(f"it has more than {_MOST} comparisons")
        rest = rest[joint.end() :]


def _comparison(text: str, names: Sequence[str]) -> tuple[Comparison, str]:
    """The comparison that a text begins with, and the rest of it."""
    matches = (
        (name, sign)
        for name in names
        if text.startswith(name) and (sign := _OPERATOR.match(text, len(name))) is not None
    )
    name, sign = next(matches, (None, None))
    if name is None or sign is None:
        if known := next((name for name in names if text.startswith(name)), None):
            signs = " ".join(_OPERATORS)
            raise _refused(f"behind {known[:_LONGEST_NAME]!r} stands one of {signs}")
        told = ", ".join(repr(name[:_LONGEST_NAME]) for name in sorted(names)[:_MOST_NAMES])
        reason = f"{text:.80} begins with no task or field that there is, but these are: {told}"
        raise _refused(reason, HTTPStatus.NOT_FOUND if _OPERATOR.search(text) else _UNREADABLE)
    value, stop = _literal(text, sign.end())
    if sign[1] not in ("=", "==", "!=") and (value is None or isinstance(value, bool)):
        raise _refused(f"{text[:stop]:.80}: true, false and null are compared by = and != alone")
    return Comparison(name, _OPERATORS[sign[1]], value, text[:stop]), text[stop:]


def _literal(text: str, at: int) -> tuple[Any, int]:
    """What stands at a place of a text, and where it ends."""
    if (word := _WORD.match(text, at)) is not None:
        return _WORDS[word[0]], word.end()
    if (quoted := _TEXT.match(text, at)) is not None:
        try:
            return str(json.loads(quoted[0])), quoted.end()
        except ValueError:
            raise _refused(f"{quoted[0]:.80} is no text in quotes, as JSON has it") from None
    if (number := _NUMBER.match(text, at)) is not None:
        shown = number[0]
        return (int(shown) if shown.lstrip("+-").isdecimal() else float(shown)), number.end()
    raise _refused(
        f'{text[at:] or "the end":.80} stands where a number, a text in quotes ("on"), true, false '
        f"or null is expected"
    )


def _held(comparison: Comparison, values: Sequence[Any], places: Sequence[int]) -> Sequence[int]:
    to, compare = comparison.to, comparison.compare
    if not values:
        is_found = to is None and compare is operator.eq
        return places if is_found else ()
    given = ((place, _comparable(values[place])) for place in places)
    if to is None:
        return [place for place, value in given if compare(value is None, True)]
    kind = _kind(to)
    found: list[int] = []
    others: set[type] = set()
    fits = False
    for place, value in given:
        if value is None:
            continue
        if _kind(value) is not kind:
            others.add(_kind(value))
            continue
        fits = True
        if compare(value, to):
            found.append(place)
    if others and not fits:
        are = " or ".join(sorted(_KINDS.get(other, "nothing that is compared") for other in others))
        reason = f"{comparison.text:.80}: a result of {comparison.name:.80} is {are}"
        raise _refused(reason, HTTPStatus.CONFLICT)
    return found


def _comparable(value: Any) -> Any:
    """A result as it is compared; None: it is missing."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Alert):
        return value.on
    if isinstance(value, np.generic):
        return _comparable(value.item())
    if isinstance(value, Decimal):
        return None if value.is_nan() else value
    return value


def _kind(value: Any) -> type:
    """As what a result is compared: ``float`` are all numbers."""
    if isinstance(value, bool):
        return bool
    if isinstance(value, int | float | Decimal):
        return float
    return str if isinstance(value, str) else object


def _refused(reason: str, status: HTTPStatus = _UNREADABLE) -> RefusedRequest:
    return RefusedRequest(status, f"where: {reason}")
