"""What tasks say that they return, as columns of a wide table: known before the first value is."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any, Final, NamedTuple

import numpy as np

from run_task.sinks.wide._frames import is_table_type
from run_task.sinks.wide._kinds import WideKind
from run_task.sinks.wide._shapes import Shape
from run_task.tasks._result_type import UNSAID, alternatives, fields_said


class Said(NamedTuple):
    """What a task says of its results.

    :param shape: how they become columns; None: it does not say it, and its values tell
    :param kinds: what their columns hold, by field, None being that of a scalar; only those of
        which it says that
    :param others: what a column holds of any other field; None: its values tell
    """

    shape: Shape | None
    kinds: Mapping[str | None, WideKind]
    others: WideKind | None = None
    is_whole: bool = False
    """Whether these are all columns that there are."""


NOTHING_SAID: Final = Said(None, {})


def said(annotation: Any) -> Said:
    """What an annotation says of the columns of results."""
    types = [kind for kind in alternatives(annotation) if kind is not NoneType]
    if len(types) == 1:
        (only,) = types
        if (record := fields_said(only)) is not None:
            kinds = {name: kind_said(of_field) for name, of_field in record.items()}
            known: dict[str | None, WideKind] = {n: of for n, of in kinds.items() if of is not None}
            return Said(Shape.FIELDS, known, is_whole=len(known) == len(kinds))
        if is_table_type(only):
            return Said(Shape.TABLE, {})
        arguments = typing.get_args(only)
        if _is_mapping(only) and len(arguments) == 2 and arguments[0] is str:
            return Said(Shape.FIELDS, {}, kind_said(arguments[1]))
    if any(_is_mapping(of) or fields_said(of) is not None or is_table_type(of) for of in types):
        return NOTHING_SAID  # its shape depends on the value
    kind = kind_said(annotation)
    return NOTHING_SAID if kind is None else Said(Shape.SCALAR, {None: kind}, is_whole=True)


def _is_mapping(annotation: Any) -> bool:
    kind = typing.get_origin(annotation) or annotation
    return isinstance(kind, type) and issubclass(kind, Mapping)


def kind_said(annotation: Any) -> WideKind | None:
    """What a column holds of values of a type; None: the type does not tell it."""
    if annotation is UNSAID:
        return None
    kinds = {_kind_of(kind) for kind in alternatives(annotation) if kind is not NoneType}
    if None in kinds:
        return None
    if kinds == {WideKind.INT, WideKind.FLOAT}:
        return WideKind.FLOAT
    if len(kinds) > 1:
        return WideKind.JSON  # which holds each of them
    return next(iter(kinds), None)


_KINDS: Final[Mapping[type, WideKind]] = {
    bool: WideKind.BOOL,
    np.bool_: WideKind.BOOL,
    int: WideKind.INT,
    np.integer: WideKind.INT,
    float: WideKind.FLOAT,
    np.floating: WideKind.FLOAT,
    str: WideKind.TEXT,
    Decimal: WideKind.DECIMAL,
    np.datetime64: WideKind.LOCAL,
}
"""By the type of which a value is an instance, the first that it is: a ``float64`` is a float."""

_JSON: Final = (
    *(list, tuple, set, frozenset, dict, bytes, complex, timedelta, time, Enum),
    *(np.ndarray, np.timedelta64, np.complexfloating),
)
"""Types of values that are told by JSON."""


def _kind_of(annotation: Any) -> WideKind | None:
    kind = typing.get_origin(annotation) or annotation
    if kind is date:  # and no datetime, whose values only tell whether they have a zone
        return WideKind.DATE
    if not isinstance(kind, type):
        return None
    for base, found in _KINDS.items():
        if issubclass(kind, base):
            return found
    return WideKind.JSON if issubclass(kind, _JSON) or fields_said(kind) is not None else None
