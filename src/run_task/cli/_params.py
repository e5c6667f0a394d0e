"""Parameters of a factory: what was said of them, as the type that it takes."""

from __future__ import annotations

import inspect
import os
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from run_task._extras import need
from run_task.cli._user_error import UserError
from run_task.errors import ConfigError
from run_task.time._interval import TaskInterval

_REFERENCE: Final = re.compile(r"env:(?P<env>[A-Za-z_][A-Za-z0-9_]*)|file:(?!//)(?P<file>.+)")


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
        return value if found is None else _referred(found, where)
    given: Any = value  # of which both checkers make the same
    if isinstance(value, list):
        items: list[Any] = given
        return [resolved(item, f"{where}[{place}]") for place, item in enumerate(items)]
    if isinstance(value, dict):
        table: dict[str, Any] = given
        return {name: resolved(item, f"{where}.{name}") for name, item in table.items()}
    return value


def _referred(reference: re.Match[str], where: str) -> str:
    if (variable := reference["env"]) is not None:
        try:
            return os.environ[variable]
        except KeyError:
            raise UserError(f"{where}: there is no {variable} in the environment") from None
    path = Path(reference["file"])
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
        raise UserError(
            f"{where}: a factory takes nothing, or one thing: build(params: Params) with a "
            f"dataclass Params"
        )
    if not required and not params:
        return factory()
    try:
        kind: Any = typing.get_type_hints(factory).get(taken[0].name, dict[str, Any])
    except NameError as error:
        raise UserError(f"{where}: the type of {taken[0].name!r} is not there: {error}") from None
    return factory(_typed(dict(params), kind, where))


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
        return msgspec.convert(values, kind, strict=False, dec_hook=_special)
    except msgspec.ValidationError as error:
        told = str(error).replace("`$.", "`")
        raise UserError(f"{where}: parameters: {told}") from None


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
