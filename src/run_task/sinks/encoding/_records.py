"""Dataclasses, NamedTuples and members of Enums, as JSON.

What is stored is their fields and the name of their type. No type is imported by that name: without
the type from the reader, they come back as a :class:`Record` and an :class:`EnumMember`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, Final, TypeAlias

from run_task.errors import ConfigError
from run_task.observe._format import shown
from run_task.sinks.encoding._tag import (
    Form,
    Inward,
    Tree,
    Types,
    UndecodableError,
    UnencodableError,
)

TypesGiven: TypeAlias = Iterable[type] | Mapping[str, type]
"""Dataclasses, NamedTuples and Enums, as a reader gives them."""


class Record(Mapping[str, Any]):
    """The fields of a dataclass or a NamedTuple that was stored, by their names.

    It is equal to a Record of the same type and fields, and stored as what it was made of.

    :param type: the name of its type, with that of its module
    :param fields: the fields
    """

    __slots__ = ("_fields", "_type")

    def __init__(self, type: str, fields: Mapping[str, Any]) -> None:  # noqa: A002
        self._type = type
        self._fields = dict(fields)

    @property
    def type(self) -> str:
        """The name of its type, with that of its module."""
        return self._type

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return (self._type, self._fields) == (other._type, other._fields)

    def __hash__(self) -> int:
        return hash((self._type, *self._fields.items()))

    def __repr__(self) -> str:
        return f"Record({self._type!r}, {self._fields!r})"


@dataclasses.dataclass(frozen=True, slots=True)
class EnumMember:
    """The member of an Enum that was stored.

    :param type: the name of the Enum, with that of its module
    :param name: the member's name; None if it has none, as some combinations of flags
    :param value: its value
    """

    type: str
    name: str | None
    value: Any


def type_name(kind: Any) -> str:
    """Under which name a type is stored; what is no type has some name, too."""
    return f"{getattr(kind, '__module__', None)}.{getattr(kind, '__qualname__', kind)}"


def named_types(types: TypesGiven) -> Types:
    """The types of a reader, by the names under which they are stored.

    :param types: the types; or by other names, for one that was called otherwise
    :raises ConfigError: if one is no dataclass, NamedTuple or Enum
    """
    given: Any = types
    if isinstance(given, type) or not hasattr(given, "__iter__"):  # an Enum has one, too
        raise ConfigError(f"types={given!r}: it is a list of dataclasses, NamedTuples and Enums")
    found: dict[str, Any] = (
        dict(given) if isinstance(types, Mapping) else {type_name(kind): kind for kind in types}
    )
    for name, kind in found.items():
        if not isinstance(kind, type) or not (issubclass(kind, Enum) or is_record(kind)):
            raise ConfigError(f"types= has {name}: it takes dataclasses, NamedTuples and Enums")
    return found


def is_record(kind: Any) -> bool:
    """Whether a type is a dataclass, or a tuple with names."""
    if _is_tuple(kind):
        return isinstance(getattr(kind, "_fields", None), tuple)
    return dataclasses.is_dataclass(kind)


def _is_tuple(kind: Any) -> bool:
    return issubclass(kind, tuple)


def _fields(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Record):
        return value
    if _is_tuple(type(value)):
        return dict(zip(value._fields, value, strict=True))
    try:
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    except AttributeError as error:
        raise UnencodableError(
            f"a {type(value).__qualname__} that lacks a field: {error}"
        ) from error


def _from_record(value: Any, inward: Inward) -> Tree:
    name = value.type if isinstance(value, Record) else type_name(type(value))
    return {"type": name, "fields": {k: inward(item) for k, item in _fields(value).items()}}


def _to_record(stored: Tree, inward: Inward, types: Types) -> Any:
    name: str = stored["type"]
    fields: dict[str, Any] = {key: inward(item) for key, item in stored["fields"].items()}
    kind: Any = types.get(name)
    if kind is None:
        return Record(name, fields)
    is_tuple = _is_tuple(kind)
    its_names: list[str] = (
        list(kind._fields) if is_tuple else [field.name for field in dataclasses.fields(kind)]
    )
    if set(its_names) != set(fields):
        raise UndecodableError(
            f"{name} is stored with the fields {', '.join(fields)}, and now has "
            f"{', '.join(its_names)}: leave it out of types=, and it is read as a Record"
        )
    if is_tuple:
        return kind._make(fields[key] for key in its_names)
    # As it was, and not as its __init__ would make it.
    made = object.__new__(kind)
    for key, item in fields.items():
        object.__setattr__(made, key, item)
    return made


def _from_enum(value: Any, inward: Inward) -> Tree:
    name = value.type if isinstance(value, EnumMember) else type_name(type(value))
    return {"type": name, "name": value.name, "value": inward(value.value)}


def _to_enum(stored: Tree, inward: Inward, types: Types) -> Any:
    name, value = stored["name"], inward(stored["value"])
    kind: Any = types.get(stored["type"])
    if kind is None:
        return EnumMember(stored["type"], name, value)
    member = kind.__members__.get(name)
    try:
        found = kind(value) if member is None else member
    except ValueError:
        found = None
    if found is None or found.value != value:
        raise UndecodableError(
            f"{stored['type']} has no member {name} of the value {shown(value)} any more: leave it "
            f"out of types=, and it is read as an EnumMember"
        )
    return found


RECORD: Final = Form("$record", _from_record, _to_record)
ENUM: Final = Form("$enum", _from_enum, _to_enum)
