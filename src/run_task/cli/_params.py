"""Parameters of a factory: what was said of them, as the type that it takes."""

from __future__ import annotations

import inspect
import os
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, Self

from run_task._extras import need
from run_task.cli._user_error import UserError
from run_task.errors import ConfigError
from run_task.time._interval import TaskInterval


class FileText(str):
    """A text that stands in a file: as a path, it is meant from the folder of that on.

    :param text: the text
    :param folder: the folder of the file
    """

    folder: Path

    def __new__(cls, text: str, folder: Path) -> Self:
        made = super().__new__(cls, text)
        made.folder = folder
        return made


def of_file(value: Any, folder: Path) -> Any:
    """A value that stands in a file, all texts of which say so.

    :param folder: the folder of the file
    """
    return _mapped(value, lambda text: FileText(text, folder))


def path_of(text: str) -> Path:
    """The path that a text names: from the folder of its file on, or from here on."""
    return text.folder / str(text) if isinstance(text, FileText) else Path(text)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A value with other texts, also in lists and tables."""
    if isinstance(value, str):
        return change(value)
    given: Any = value  # of which both checkers make the same
    if isinstance(value, list):
        items: list[Any] = given
        return [_mapped(item, change) for item in items]
    if isinstance(value, dict):
        table: dict[str, Any] = given
        return {name: _mapped(item, change) for name, item in table.items()}
    return value


_REFERENCE: Final = re.compile(r"env:(?P<env>[A-Za-z_][A-Za-z0-9_]*)|file:(?!//)(?P<file>.+)")


def referred_file(text: str) -> Path | None:
    """The file in which a value stands; None: it stands elsewhere."""
    found = _REFERENCE.fullmatch(text)
    if found is None or found["file"] is None:
        return None
    path = path_of(found["file"])
    return text.folder / path if isinstance(text, FileText) else path


def is_reference(text: str) -> bool:
    """Whether it says where a value stands, as ``env:NAME`` or ``file:PATH``."""
    return _REFERENCE.fullmatch(text) is not None


def resolved(value: Any, where: str) -> Any:
    """A value in which each reference is replaced by what it refers to, also in lists and tables.

    :param where: what it is, for messages, which do not tell what was found
    :raises UserError: if something is not there
    """
    if isinstance(value, str):
        found = _REFERENCE.fullmatch(value)
        return value if found is None else _referred(value, found["env"], where)
    given: Any = value  # of which both checkers make the same
    if isinstance(value, list):
        items: list[Any] = given
        return [resolved(item, f"{where}[{place}]") for place, item in enumerate(items)]
    if isinstance(value, dict):
        table: dict[str, Any] = given
        return {name: resolved(item, f"{where}.{name}") for name, item in table.items()}
    return value


def _referred(text: str, variable: str | None, where: str) -> str:
    path = referred_file(text)
    if path is None:
        name = str(variable)
        try:
            return os.environ[name]
        except KeyError:
            raise UserError(f"{where}: there is no {name} in the environment") from None
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        raise UserError(f"{where}: {str(path)!r} cannot be read: {error}") from None


def built(factory: Callable[..., Any], params: Mapping[str, Any], where: str) -> Any:
    """What a factory gives.

    :param factory: a function without parameters, or with one: a dataclass, a msgspec Struct or a
        mapping
    :param params: what was said, which is held to its type
    :param where: what it is called, for messages
    :raises UserError: if the function or the parameters cannot be
    :raises Exception: whatever it raises
    """
    try:
        taken = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        taken = []
    if not taken:
        if params:
            names = ", ".join(map(repr, params))
            raise UserError(f"{where}: it takes no parameters, and was given {names}")
        return factory()
    required = [each for each in taken if each.default is inspect.Parameter.empty]
    if len(required) > 1 or taken[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise UserError(f"{where}: {_CURE}")
    if not required and not params:
        return factory()
    try:
        kind: Any = typing.get_type_hints(factory).get(taken[0].name, dict[str, Any])
    except NameError as error:
        raise UserError(f"{where}: the type of {taken[0].name!r} is not there: {error}") from None
    if not _has_names(kind):
        raise UserError(
            f"{where}: its parameter {taken[0].name!r} is of the type "
            f"{getattr(kind, '__name__', kind)}, which has no values with names: {_CURE}"
        )
    return factory(_typed(dict(params), kind, where))


_CURE: Final = (
    "a factory takes nothing, or one thing: build(params: Params) with a dataclass Params"
)


def _has_names(kind: Any) -> bool:
    """Whether something of a type is made of values with names."""
    inspected = need("msgspec", "serve").inspect
    try:
        info = inspected.type_info(kind)
    except TypeError:  # it is of what msgspec does not know, and says so itself
        return True
    named = (
        inspected.AnyType,
        inspected.DataclassType,
        inspected.DictType,
        inspected.StructType,
        inspected.TypedDictType,
    )
    return any(isinstance(each, named) for each in getattr(info, "types", (info,)))


def _typed(params: dict[str, Any], kind: Any, where: str) -> Any:
    msgspec = need("msgspec", "serve")
    known = _fields(kind)
    if known is not None and (unknown := [name for name in params if name not in known]):
        raise UserError(
            f"{where}: there is no parameter {unknown[0]!r}; there are: "
            f"{', '.join(map(repr, known)) or 'none'}"
        )
    values = {name: resolved(value, f"{where}: {name}") for name, value in params.items()}
    try:
        values = _placed(values, msgspec.inspect.type_info(kind))
    except TypeError:  # it is of what msgspec does not know, and says so itself
        values = _mapped(values, str)
    try:
        return msgspec.convert(values, kind, strict=False, dec_hook=_special)
    except msgspec.ValidationError as error:
        told = str(error).replace("`$.", "`")
        raise UserError(f"{where}: parameters: {told}") from None


def _placed(value: Any, kind: Any) -> Any:
    """A value of plain texts: where one becomes a path, it is one from the folder of its file on.

    :param value: the value
    :param kind: what it becomes, as msgspec tells it
    """
    kinds: Sequence[Any] = getattr(kind, "types", (kind,))  # of a union
    if isinstance(value, str):
        is_path = any(issubclass(getattr(each, "cls", object), Path) for each in kinds)
        return str(path_of(value)) if is_path and isinstance(value, FileText) else str(value)
    given: Any = value
    if isinstance(value, list):
        items: list[Any] = given
        inner = next((_items(each, len(items)) for each in kinds if _items(each, len(items))), ())
        return [_placed(item, of) for item, of in zip_longest(items, inner)]
    if isinstance(value, dict):
        table: dict[str, Any] = given
        found: dict[str, Any] = {}
        for each in kinds:
            found |= {of.encode_name: of.type for of in getattr(each, "fields", ())}
        of_all = next((each.value_type for each in kinds if hasattr(each, "value_type")), None)
        return {name: _placed(item, found.get(name, of_all)) for name, item in table.items()}
    return value


def _items(kind: Any, count: int) -> Sequence[Any]:
    """What the items of a list become, so many of them."""
    if hasattr(kind, "item_types"):
        several: Sequence[Any] = kind.item_types
        return several[:count]
    return [kind.item_type] * count if hasattr(kind, "item_type") else ()


def _fields(kind: Any) -> list[str] | None:
    names = getattr(kind, "__struct_fields__", None) or getattr(kind, "__dataclass_fields__", None)
    return None if names is None else list(names)


def _special(kind: type[Any], value: Any) -> Any:
    """Types of parameters that TOML does not have."""
    if issubclass(kind, TaskInterval):
        if not isinstance(value, str):
            raise ValueError("a length of time is a text, as '5s'")
        try:
            return TaskInterval.parse(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
    if issubclass(kind, Path):
        return kind(value)
    raise ValueError(f"no {kind.__name__} can be said here")
