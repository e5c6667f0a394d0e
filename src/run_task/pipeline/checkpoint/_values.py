"""States and rows as JSON, and back: each value in its own type, and to the last bit.

Sinks store results for whoever reads them, and make a float of a NumPy scalar. A state goes on
where it was, and so has to be the very same. Nothing that stands in a checkpoint is imported or run
but the ``from_bytes`` of types which the task at hand names itself.
"""

from __future__ import annotations

import base64
import dataclasses
import sys
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Final, TypeAlias

import numpy as np

from run_task.errors import ConfigError, described
from run_task.observe._format import brief
from run_task.sinks.encoding._json import Encoder, value_of
from run_task.sinks.encoding._records import is_record, type_name
from run_task.sinks.encoding._tag import UndecodableError, UnencodableError
from run_task.tasks._state_bytes import has_own_bytes
from run_task.tasks._stateful import StatefulTask

JsonTree: TypeAlias = Any
"""What JSON has."""

_COLLECTIONS: Final[Any] = tuple, list, set, frozenset, dict

_INT_BITS: Final = 2_048
_PLAIN: Final = frozenset({type(None), bool, float, str})


def kind_of(value: object) -> Any:
    """The type of a value, of which nothing is known beforehand."""
    return type(value)


class UnkeepableError(Exception):
    """A value has no form in which a checkpoint could keep it."""


class OutdatedError(Exception):
    """What a checkpoint has of a value is of no use any more."""


FindType: TypeAlias = Callable[[str], type[Any] | None]
"""Gives the type that is stored under a name; None: it is not known."""


def no_type(name: str) -> type[Any] | None:
    """Of values that are of no type of a user's."""
    return None


def types_of(task: StatefulTask[Any, Any, Any]) -> FindType:
    """The types that the states of a task may be of: those that its first state is made of, that
    the annotations of these and of the function name, and those of the module that it stands
    in."""
    found: dict[str, type[Any]] = {}
    _from_value(task.initial(), found)
    _from_hints(task.step, found)
    for kind in tuple(found.values()):
        _from_hints(kind, found)
    module = sys.modules.get(str(getattr(task.step, "__module__", None)))

    def find(name: str) -> type[Any] | None:
        if name in found:
            return found[name]
        for thing in list(vars(module).values()) if module is not None else ():
            if isinstance(thing, type) and type_name(thing) == name:
                return thing
        return None

    return find


def _from_value(value: Any, found: dict[str, type[Any]]) -> None:
    kind = kind_of(value)
    _add(kind, found)
    if dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            _from_value(getattr(value, field.name, None), found)
    elif issubclass(kind, _COLLECTIONS):
        for item in value:
            _from_value(item, found)
            if issubclass(kind, dict):
                _from_value(value[item], found)


def _add(kind: type[Any], found: dict[str, type[Any]]) -> None:
    name = type_name(kind)
    if name in found or not (is_record(kind) or issubclass(kind, Enum) or has_own_bytes(kind)):
        return
    found[name] = kind
    _from_hints(kind, found)


def _from_hints(annotated: Any, found: dict[str, type[Any]]) -> None:
    try:
        hints = typing.get_type_hints(annotated)
    except Exception:  # of names that are not there at runtime
        return
    for hint in hints.values():
        for kind in _types_in(hint):
            _add(kind, found)


def _types_in(hint: Any) -> Iterator[type[Any]]:
    if isinstance(hint, type):
        yield hint
    for inner in typing.get_args(hint):
        yield from _types_in(inner)


class Values:
    """Values as JSON, and back.

    :param find: gives types of the user's by name
    """

    def __init__(self, find: FindType = no_type) -> None:
        self._find = find
        self._encoder = Encoder()

    def tree(self, value: Any) -> JsonTree:
        """A value as what JSON has.

        :raises UnkeepableError: if it has no form, or would not come back as it is
        """
        kind = kind_of(value)
        if kind in _PLAIN:
            return value
        if kind is int:
            return value if value.bit_length() <= _INT_BITS else {"$int": hex(value)}
        if kind is list:
            return [*map(self.tree, value)]
        if kind is tuple:
            return {"$tuple": [*map(self.tree, value)]}
        if kind is dict:
            if all(type(key) is str and not key.startswith("$") for key in value):
                return {key: self.tree(item) for key, item in value.items()}
            return {"$dict": [[self.tree(key), self.tree(item)] for key, item in value.items()]}
        if kind is frozenset or kind is set:
            return {f"${kind.__name__}": [*map(self.tree, value)]}
        if kind is bytes:
            return {"$bytes": _text(value)}
        if kind is np.ndarray:
            return {"$array": self._array(value)}
        if _is_scalar(kind):
            dtype: np.dtype[Any] = value.dtype
            if dtype.hasobject:
                raise UnkeepableError(f"{brief(value)} holds objects")
            return {"$scalar": [_dtype(dtype), _text(value.tobytes())]}
        if has_own_bytes(kind):
            return {"$own": [self._known(kind), _text(_own_bytes(value))]}
        if isinstance(value, Enum):
            return {"$enum": [self._known(kind), value.name]}
        if is_record(kind):
            return {"$record": [self._known(kind), self._fields(value)]}
        return {"$value": self._other(value)}

    def _known(self, kind: type[Any]) -> str:
        name = type_name(kind)
        if self._find(name) is not kind:
            raise UnkeepableError(
                f"the type {name} would not be found again: name it in the annotations of the task "
                f"or of its state, or let it stand in the module of the task"
            )
        return name

    def _fields(self, value: Any) -> JsonTree:
        if _is_tuple(type(value)):
            return {name: self.tree(item) for name, item in zip(value._fields, value, strict=True)}
        fields = dataclasses.fields(value)
        try:
            return {field.name: self.tree(getattr(value, field.name)) for field in fields}
        except AttributeError as error:
            raise UnkeepableError(f"{brief(value)} lacks a field: {error}") from error

    def _array(self, array: Any) -> JsonTree:
        if array.dtype.hasobject:
            items = [*map(self.tree, array.ravel().tolist())]
            return ["O", list(array.shape), items]
        return [_dtype(array.dtype), list(array.shape), _text(array.tobytes())]

    def _other(self, value: Any) -> JsonTree:
        try:
            tree = self._encoder.tree(value)
            back = value_of(tree, {})
        except (UnencodableError, UndecodableError) as error:
            raise UnkeepableError(f"a {type(value).__qualname__}: {error}") from error
        if type(back) is not type(value) or repr(back) != repr(value):
            raise UnkeepableError(f"a {type(value).__qualname__} would not come back as it is")
        return tree

    def value(self, tree: JsonTree) -> Any:
        """The value that a tree tells.

        :raises OutdatedError: if there is none any more
        """
        try:
            return self._value(tree)
        except OutdatedError:
            raise
        except Exception as error:  # of a type of the user's, or of what somebody else has written
            raise OutdatedError(described(error)) from error

    def _value(self, tree: JsonTree) -> Any:
        kind = kind_of(tree)
        if kind is list:
            return [*map(self._value, tree)]
        if kind is not dict:
            return tree
        if len(tree) == 1:
            ((tag, stored),) = tree.items()
            if tag.startswith("$"):
                return self._tagged(tag, stored)
        return {key: self._value(item) for key, item in tree.items()}

    def _tagged(self, tag: str, stored: JsonTree) -> Any:
        match tag:
            case "$int":
                return int(stored, 16)
            case "$tuple":
                return tuple(map(self._value, stored))
            case "$dict":
                return {self._value(key): self._value(item) for key, item in stored}
            case "$set":
                return set(map(self._value, stored))
            case "$frozenset":
                return frozenset(map(self._value, stored))
            case "$bytes":
                return base64.b64decode(stored)
            case "$array":
                return self._stored_array(*stored)
            case "$scalar":
                return np.frombuffer(base64.b64decode(stored[1]), np.dtype(stored[0]))[0]
            case "$value":
                return value_of(stored, {})
            case "$own" | "$enum" | "$record":
                return self._of_type(tag, *stored)
            case _:
                raise OutdatedError(f"{tag!r} is no form of this version")

    def _stored_array(self, dtype: str, shape: list[int], stored: Any) -> Any:
        if dtype == "O":
            array = np.empty(len(stored), object)
            array[:] = [*map(self._value, stored)]
            return array.reshape(shape)
        return np.frombuffer(base64.b64decode(stored), np.dtype(dtype)).reshape(shape).copy()

    def _of_type(self, tag: str, name: str, stored: JsonTree) -> Any:
        kind: Any = self._find(name)
        if kind is None:
            raise OutdatedError(f"the type {name} is not there any more")
        if tag == "$own":
            made: object = kind.from_bytes(base64.b64decode(stored))
            if not isinstance(made, kind):
                raise OutdatedError(f"from_bytes() of {name} returned a {type(made).__qualname__}")
            return made
        if tag == "$enum":
            return kind[stored]
        fields = {key: self._value(item) for key, item in stored.items()}
        is_tuple = _is_tuple(kind)
        names: list[str] = (
            list(kind._fields) if is_tuple else [field.name for field in dataclasses.fields(kind)]
        )
        if set(names) != set(fields):
            raise OutdatedError(
                f"{name} had the fields {', '.join(fields)}, and now has {', '.join(names)}"
            )
        if is_tuple:
            return kind._make(fields[key] for key in names)
        made = object.__new__(kind)  # as it was, and not as its __init__ would make it
        for key, item in fields.items():
            object.__setattr__(made, key, item)
        return made


def _is_scalar(kind: Any) -> bool:
    return issubclass(kind, np.generic) and kind.__module__ == "numpy"


def _is_tuple(kind: Any) -> bool:
    return issubclass(kind, tuple)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _dtype(dtype: np.dtype[Any]) -> str:
    if dtype.fields is not None:
        raise UnkeepableError(f"an array of {dtype} has fields of its own")
    return dtype.str


def _own_bytes(value: Any) -> bytes:
    try:
        data: object = value.to_bytes()
    except Exception as error:
        raise UnkeepableError(
            f"to_bytes() of {type(value).__qualname__}: {described(error)}"
        ) from error
    if type(data) is not bytes:
        raise UnkeepableError(
            f"to_bytes() of {type(value).__qualname__} returned a {type(data).__qualname__}"
        )
    return data


def check_state(stage: str, task: StatefulTask[Any, Any, Any]) -> None:
    """See whether a checkpoint can keep the states of a task: make one, and keep it.

    :param stage: the name of the stage
    :raises ConfigError: if it cannot
    """
    first = task.initial()
    values = Values(types_of(task))
    try:
        back = values.value(values.tree(first))
    except (UnkeepableError, OutdatedError) as error:
        raise ConfigError(
            f"stage {stage!r}: the state of task {task.name!r} is {brief(first)}, which no "
            f"checkpoint can keep: {error}: let it be made of numbers, texts, tuples, NamedTuples, "
            f"dataclasses and arrays, or give its type to_bytes() and the classmethod from_bytes()"
        ) from error
    if type(back) is not type(first):
        raise ConfigError(
            f"stage {stage!r}: the state of task {task.name!r} is {brief(first)}, and would come "
            f"back from a checkpoint as {brief(back)}"
        )
