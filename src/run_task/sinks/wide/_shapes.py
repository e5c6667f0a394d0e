"""What tasks return, as columns: a scalar, fields, or a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from enum import Enum
from types import NoneType
from typing import Any, Final

from run_task.sinks.encoding._records import is_record
from run_task.sinks.wide._frames import as_columns, is_table
from run_task.sinks.wide._kinds import UnfitError


class Shape(Enum):
    """How what a task returns becomes columns."""

    SCALAR = "scalar"
    """A column called as the task is."""
    FIELDS = "fields"
    """A mapping with texts for keys, a NamedTuple or a dataclass: a column a field."""
    TABLE = "table"
    """A table of polars, pandas or Arrow: a column a column, and a row a row."""


_PLAIN: Final[frozenset[type]] = frozenset({float, int, bool, str, NoneType})


def shape_of(values: Sequence[Any]) -> Shape | None:
    """The shape of results of a task; None: all of them are None.

    :raises UnfitError: if they are of several
    """
    if set(map(type, values)) <= _PLAIN:
        return None if all(value is None for value in values) else Shape.SCALAR
    found: Shape | None = None
    for row, value in enumerate(values):
        if value is None:
            continue
        shape = _shape(value)
        if found not in (None, shape):
            raise UnfitError(f"it is {NOUNS[shape]}, and another one {NOUNS[found or shape]}", row)
        found = shape
    return found


NOUNS: Final[Mapping[Shape, str]] = {
    Shape.SCALAR: "a single value",
    Shape.FIELDS: "a mapping, or a record of fields",
    Shape.TABLE: "a table",
}


def _shape(value: Any) -> Shape:
    kind: Any = value.__class__
    if issubclass(kind, Mapping):
        return Shape.FIELDS if all(isinstance(key, str) for key in value) else Shape.SCALAR
    if is_table(value):
        return Shape.TABLE
    return Shape.FIELDS if is_record(kind) and not issubclass(kind, Enum) else Shape.SCALAR


def fields(values: Sequence[Any]) -> dict[str, list[Any]]:
    """Results that have fields, by column: None where one has no such field, or is None.

    :raises UnfitError: if one lacks a field that it says it has
    """
    kinds = set(map(type, values))
    if len(kinds) == 1 and (names := _tuple_names(kinds.pop())) is not None:
        return dict(zip(names, map(list, zip(*values))))
    found: dict[str, list[Any]] = {}
    for row, value in enumerate(values):
        if value is not None:
            for name, item in _fields(value, row):
                found.setdefault(str(name), [None] * len(values))[row] = item
    return found


def _tuple_names(kind: Any) -> Sequence[str] | None:
    """The names of the fields of a NamedTuple."""
    names: Sequence[str] | None = getattr(kind, "_fields", None)
    return names if names is not None and issubclass(kind, tuple) else None


def _fields(value: Any, row: int) -> Any:
    kind: Any = value.__class__
    if issubclass(kind, Mapping):
        return value.items()
    if (names := _tuple_names(kind)) is not None:
        return zip(names, value)
    try:
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    except AttributeError as error:
        raise UnfitError(f"a {kind.__qualname__} that lacks a field: {error}", row) from None


def tables(values: Sequence[Any]) -> tuple[dict[str, list[Any]], list[int]]:
    """Results that are tables, by column and one below the other, and how many rows each has.

    :raises UnfitError: if one has a column that Python's values do not tell
    """
    columns: dict[str, list[Any]] = {}
    counts: list[int] = []
    total = 0
    for row, value in enumerate(values):
        try:
            found, count = ({}, 0) if value is None else as_columns(value)
        except UnfitError as error:
            raise UnfitError(str(error), row) from error.__cause__
        for name, items in found.items():
            held = columns.setdefault(name, [])
            held += [None] * (total - len(held))
            held += items
        total += count
        counts.append(count)
    for short in columns.values():
        short.extend([None] * (total - len(short)))
    return columns, counts
