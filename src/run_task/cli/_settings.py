"""What ``run-task.toml`` may say, as types that it is held to."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeVar, cast

import msgspec

from run_task.cli._user_error import UserError

S = TypeVar("S", bound=msgspec.Struct)

_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`")


class _StrictTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class PipelineSettings(_StrictTable, frozen=True, kw_only=True):
    """A pipeline: ``[pipelines.NAME]``."""

    target: str
    """As on the command line; a file is looked for from the folder of ``run-task.toml`` on."""
    params: dict[str, Any] = {}
    """What its factory is given."""
    shards: int | None = None
    """Over how many shards it is run; None: in one process."""
    ray: str | None = None
    """The cluster of Ray on which they run; None: they are processes of this machine."""


class ServeSettings(_StrictTable, frozen=True, kw_only=True):
    """How pipelines are served: ``[serve]``."""

    host: str = "127.0.0.1"
    port: int = 8080
    token_file: str | None = None
    token: str | None = None
    """A reference, as ``env:TOKEN`` or ``file:token``: a token does not stand in such a file."""
    names: list[str] = []
    max_lateness: str = "10s"
    gauges: list[str] = []


class Settings(_StrictTable, frozen=True, kw_only=True):
    """The whole file."""

    log_level: Literal["debug", "info", "warning", "error"] | None = None
    log_format: Literal["text", "json"] = "text"
    log_file: str | None = None
    pipelines: dict[str, PipelineSettings] = {}
    serve: ServeSettings = ServeSettings()


def settings_of(tree: Mapping[str, Any], where: str) -> Settings:
    """What a file says, overridden, as its types.

    :param where: what says so, for messages
    :raises UserError: if something in it cannot be
    """
    pipelines: Any = tree.get("pipelines")
    if isinstance(pipelines, dict):  # msgspec does not tell which one is wrong
        for name, table in cast("dict[str, Any]", pipelines).items():
            _converted(table, PipelineSettings, f"{where}: pipelines.{name}")
    return _converted(tree, Settings, where)


def _converted(tree: Any, kind: type[S], where: str) -> S:
    try:
        return msgspec.convert(tree, kind, strict=False)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$.")
        place = place.rstrip("`")
        of_place = _kind_at(kind, place)
        if (unknown := _UNKNOWN.fullmatch(message)) is not None:
            known = getattr(of_place, "__struct_fields__", ())
            message = f"there is no setting {unknown[1]!r}; there are: {_listed(known)}"
        elif choices := _listed(_literals(of_place)):
            message += f"; it is one of {choices}"
        told = f"{place}: {message}" if place else message
        raise UserError(f"{where}: {told}") from None


def _kind_at(kind: Any, place: str) -> Any:
    """The type of what stands somewhere below a table of that type."""
    for name in place.split(".") if place else ():
        kind = typing.get_type_hints(kind).get(name) if hasattr(kind, "__struct_fields__") else None
    return kind


def _literals(kind: Any) -> Iterator[str]:
    """The texts that something of a type may be, where there are only so many."""
    for one in typing.get_args(kind):
        if isinstance(one, str):
            yield one
        else:
            yield from _literals(one)


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names))
