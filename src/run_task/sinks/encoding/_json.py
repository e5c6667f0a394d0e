"""Any value as JSON, and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum
from functools import partial
from types import NoneType
from typing import Any, Final, TypeAlias

import numpy as np

from run_task.errors import ConfigError, SinkError
from run_task.observe._format import SURROGATE, shown
from run_task.sinks.encoding._numpy import ARRAY, DATETIME64, TIMEDELTA64, plain_scalar
from run_task.sinks.encoding._records import (
    ENUM,
    RECORD,
    EnumMember,
    Record,
    TypesGiven,
    is_record,
    named_types,
)
from run_task.sinks.encoding._standard import DICT, INT, STANDARD, TEXT
from run_task.sinks.encoding._tables import LIBRARIES
from run_task.sinks.encoding._tag import Form, Tree, Types, UndecodableError, UnencodableError

Fallback: TypeAlias = Callable[[Any], Any]
"""Makes of a value that has no form another that has one."""

_DEEPEST: Final = 200
"""How many levels of JSON a value may have: reading takes a few calls a level, of the 1000 that
Python allows itself."""

_LEVELS: Final = 3
"""How many levels a form has at most, besides what is within it."""

_INT_BITS: Final = 2_048
"""How long an int may be as digits. Python reads 640 of them, however it is set up."""

_PLAIN: Final = frozenset({NoneType, bool, float})
"""What JSON always has as it is."""

_NESTED: Final = frozenset({list, dict})
_TEXTS: Final[set[Any]] = {str}
_INTS: Final[set[Any]] = {int}

_FORMS: Final[dict[type, Form]] = {**STANDARD, Record: RECORD, EnumMember: ENUM}

_BY_TAG: Final = {
    form.tag: form
    for form in (
        *_FORMS.values(), *LIBRARIES.values(), TEXT, INT, DICT, ARRAY, DATETIME64, TIMEDELTA64
    )
}  # fmt: skip

dumps: Final = json.JSONEncoder(check_circular=False).encode
"""A tree as a text, with the NaN and Infinity that Python's json has."""


class Encoder:
    """Encodes values, one at a time.

    :param fallback: what is asked for another value where one has no form
    """

    def __init__(self, fallback: Fallback | None = None) -> None:
        if fallback is not None and not callable(fallback):
            raise ConfigError(f"encode={fallback!r}: it is a function of a value, or None")
        self._fallback = fallback

    def tree(self, value: object) -> Tree:
        """A value as what JSON has.

        :raises UnencodableError: if it has no form
        """
        if type(value) is float:
            return value
        try:
            return _Walk(self._fallback).tree(value)
        except UnencodableError:
            raise
        except RecursionError:
            raise UnencodableError("it is nested too deep: return it in a flatter form") from None
        except Exception as error:  # of a library's, or of a class of the user's
            raise UnencodableError(
                f"it cannot be looked into, {type(error).__name__}: {shown(error)}"
            ) from error

    def text(self, value: Any) -> str:
        """A value as a text of JSON, with the NaN and Infinity that Python's json has.

        :raises UnencodableError: if it has no form
        """
        return dumps(self.tree(value))


class _Walk:
    """One value's way to its tree."""

    def __init__(self, fallback: Fallback | None) -> None:
        self._fallback = fallback
        self._depth = 0

    def tree(self, given: object) -> Tree:
        kind: type = type(given)
        value: Any = given
        if kind in _PLAIN:
            return value
        if kind is str:
            return self._tagged(TEXT, value) if _is_broken(value) else value
        if kind is int:
            return value if value.bit_length() <= _INT_BITS else self._tagged(INT, value)
        if kind is list:
            return self._list(value)
        if kind is dict:
            return self._dict(value)
        if (plain_of := _PLAIN_OF.get(kind)) is not None:
            return self.tree(plain_of(value))
        form = _FORMS.get(kind)
        return self._other(kind, value) if form is None else self._tagged(form, value)

    def _list(self, value: list[Any]) -> Tree:
        kinds: set[Any] = set(map(type, value))
        # What is long is mostly of one type: then it is not looked at item by item.
        if (
            kinds <= _PLAIN
            or (kinds == _TEXTS and all(map(str.isascii, value)))
            or (kinds == _INTS and max(map(int.bit_length, value)) <= _INT_BITS)
        ):
            return value
        self._enter(1)
        made = list(map(self.tree, value))
        self._depth -= 1
        return made

    def _dict(self, value: dict[Any, Any]) -> Tree:
        if not _is_plain(value):
            return self._tagged(DICT, value)
        self._enter(1)
        made = {key: self.tree(item) for key, item in value.items()}
        self._depth -= 1
        return made

    def _tagged(self, form: Form, value: Any) -> Tree:
        self._enter(_LEVELS)
        made = {form.tag: form.encode(value, self.tree)}
        self._depth -= _LEVELS
        return made

    def _enter(self, levels: int) -> None:
        self._depth += levels
        if self._depth > _DEEPEST:
            raise UnencodableError(
                f"it is nested more than {_DEEPEST} levels deep: return it in a flatter form"
            )

    def _other(self, kind: Any, value: Any) -> Tree:
        """What is of a type that is none of those of the standard library."""
        if issubclass(kind, Enum):
            return self._tagged(ENUM, value)
        if issubclass(kind, np.generic):
            return self._whole(kind, value, self._scalar)
        if issubclass(kind, np.ndarray):
            return self._whole(kind, value, partial(self._tagged, ARRAY))
        if is_record(kind):
            return self._tagged(RECORD, value)
        library = LIBRARIES.get(kind.__module__.partition(".")[0])
        if library is not None:
            return self._whole(kind, value, partial(self._tagged, library))
        for base in kind.__mro__[1:]:
            if (plain_of := _PLAIN_OF.get(base)) is not None:
                return self.tree(plain_of(value))
            if (form := _FORMS.get(base)) is not None:
                return self._tagged(form, value)
        return self._given_up(kind, value)

    def _scalar(self, value: Any) -> Tree:
        plain: Any = plain_scalar(value)
        if not isinstance(plain, np.generic):
            return self.tree(plain)
        return self._tagged(DATETIME64 if value.dtype.kind == "M" else TIMEDELTA64, value)

    def _whole(self, kind: Any, value: Any, make: Callable[[Any], Tree]) -> Tree:
        """What is of a library, and may be of a kind that it cannot store."""
        if self._fallback is None:
            return make(value)
        depth = self._depth
        try:
            return make(value)
        except Exception:  # of whatever kind the library has
            self._depth = depth
            return self._given_up(kind, value)

    def _given_up(self, kind: Any, value: Any) -> Tree:
        if self._fallback is None:
            raise UnencodableError(
                f"there is no form for a {kind.__qualname__}: return numbers, texts, lists and "
                "dicts of these and the like, or give the sink an encode="
            )
        try:
            other = self._fallback(value)
        except Exception as error:
            raise UnencodableError(
                f"encode= raised {type(error).__name__} for a {kind.__qualname__}: {shown(error)}"
            ) from error
        self._enter(1)  # it may give what has no form for ever
        made = self.tree(other)
        self._depth -= 1
        return made


_PLAIN_OF: Final[dict[type, Callable[[Any], Any]]] = {
    np.float64: np.float64.item,  # which is derived from float
    np.float32: np.float32.item,
    np.int64: np.int64.item,
    np.bool_: np.bool_.item,
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    list: list,
    dict: dict,
}
"""What a value of a type derived from one of JSON's, or a common one of NumPy's, is in JSON."""


def _is_broken(text: str) -> bool:
    return not text.isascii() and SURROGATE.search(text) is not None


def _is_plain(value: dict[Any, Any]) -> bool:
    """Whether a dict can be an object of JSON that is taken for nothing else."""
    if len(value) == 1:
        (key,) = value
        return type(key) is str and not key.startswith("$") and not _is_broken(key)
    return all(type(key) is str and not _is_broken(key) for key in value)


def value_of(tree: Tree, types: Types) -> Any:
    """The value that a tree tells.

    :raises UndecodableError: if something in it has a tag, and is not of that form
    """

    def inward(stored: object) -> Any:
        kind: type = type(stored)
        tree: Any = stored
        if kind is list:
            return list(map(inward, tree)) if _NESTED & set(map(type, tree)) else tree
        if kind is not dict:
            return tree
        if len(tree) == 1:
            ((tag, stored),) = tree.items()
            form = _BY_TAG.get(tag)
            if form is not None:
                return tagged(form, stored)
        return {key: inward(item) for key, item in tree.items()}

    def tagged(form: Form, stored: Tree) -> Any:
        try:
            return form.decode(stored, inward, types)
        except (UndecodableError, ConfigError, RecursionError):
            raise
        except Exception as error:  # of whatever kind: it is what somebody else has written
            raise UndecodableError(
                f"what stands under {form.tag!r} is of no such form: {shown(error)}"
            ) from error

    if type(tree) not in (list, dict):
        return tree
    try:
        return inward(tree)
    except RecursionError:
        raise UndecodableError("it is nested too deep to be read") from None


def encode(value: Any, *, encode: Fallback | None = None) -> str:
    """A value as the sinks store it: a text of JSON that tells its type.

    :param value: the value
    :param encode: called with what has no form of its own, and gives another value in its place
    :raises SinkError: if it has no form
    """
    try:
        return Encoder(encode).text(value)
    except UnencodableError as error:
        raise SinkError(
            f"a {type(value).__qualname__} cannot be stored: {error}"
        ) from error.__cause__


def decode(text: str, *, types: TypesGiven = ()) -> Any:
    """The value that a text tells which a sink has stored: what the task returned.

    Nothing in it is executed or imported: a dataclass, a NamedTuple or a member of an Enum is one
    again only if its type is given, and else a :class:`Record` or an :class:`EnumMember`.

    :param text: what stands in the column ``json`` of a table or a Parquet file, or ``value`` of a
        CSV file, or a value of a JSON Lines file
    :param types: dataclasses, NamedTuples and Enums; or a dict of them by the names under which
        they are stored, ``module.Class``, for those that have moved since
    :raises SinkError: if it is no such text
    :raises ConfigError: if one of the types is of another kind, or a library is not installed of
        which it has a table
    """
    named = named_types(types)
    try:
        return value_of(json.loads(text), named)
    except ConfigError:
        raise
    except (ValueError, TypeError, RecursionError, UndecodableError) as error:
        shortened = text if len(text) < 200 else f"{text[:200]}..."
        raise SinkError(
            f"{shown(shortened)} is no value that a sink has stored: {error}"
        ) from error
