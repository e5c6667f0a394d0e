"""What ``run-task.toml`` may say, as types that it is held to."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


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
