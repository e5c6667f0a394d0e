"""Logging: what every record of this library tells besides its text."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    _Adapter: TypeAlias = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter  # which is no generic to all tools that read it at runtime


class Log(_Adapter):
    """A logger whose records all have the fields ``runner``, ``task`` and ``window``.

    What a record is not about is None, so a format may name all three.

    ``extra={"task": ..., "window": ...}`` says what a record is about.

    :param module: the module that logs; the logger is named after its public package, since
        modules come and go
    :param runner: the name of the runner that it logs for; None: for none in particular
    """

    def __init__(self, module: str, runner: str | None = None) -> None:
        super().__init__(
            logging.getLogger(module.partition("._")[0]),
            {"runner": runner, "task": None, "window": None},
        )

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Complete the fields of a record."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs
