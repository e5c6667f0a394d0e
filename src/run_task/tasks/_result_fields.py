"""The fields of a result: those of a mapping, a NamedTuple or a dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


def fields_of(value: Any) -> Mapping[str, Any] | None:
    """The fields of a result; None: it has none."""
    kind: Any = value.__class__
    if issubclass(kind, Mapping):
        return {str(name): value[name] for name in value}
    named: Any = getattr(kind, "_fields", None)  # of a NamedTuple
    if isinstance(named, tuple):
        return dict(zip(map(str, named), value))  # pyright: ignore[reportUnknownArgumentType]  of whatever a task returns
    if dataclasses.is_dataclass(kind):
        try:
            return {each.name: getattr(value, each.name) for each in dataclasses.fields(kind)}
        except AttributeError:  # of one that was declared, and never set
            return None
    return None


def as_structs(values: Sequence[Any]) -> Sequence[Any]:
    """NamedTuples or dataclasses of one type as dicts of their fields, all else as it is."""
    kinds: set[Any] = {type(value) for value in values if value is not None}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is None or not (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")):
        return values
    found = [None if value is None else fields_of(value) for value in values]
    lacks = any(value is not None and not fields for value, fields in zip(values, found))
    return values if lacks else found
