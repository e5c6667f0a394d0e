"""How far a replay is, where somebody looks."""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final

_PATIENCE: Final = 1.0
"""After how many seconds a replay is worth a line."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Progress:
    """Shows a line on the standard error, if that is a terminal and rich is installed.

    :param name: what goes on
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._windows = 0
        self._looked = self._begun = time.monotonic()
        self._line: Any = None
        self._console: Any = None
        if sys.stderr.isatty():
            with contextlib.suppress(ImportError):
                self._console = importlib.import_module("rich.console").Console(stderr=True)

    def note(self, time_ns: int) -> None:
        """A window is done.

        :param time_ns: its end, in nanoseconds since the Unix epoch
        """
        self._windows += 1
        if self._console is None or self._windows % 64:
            return
        now = time.monotonic()
        if now - self._looked < 0.1 or now - self._begun < _PATIENCE:
            return
        self._looked = now
        rate = self._windows / (now - self._begun)
        when = _EPOCH + timedelta(microseconds=time_ns // 1000)
        told = (
            f"{self._name}: {self._windows:,} windows, {rate:,.0f}/s, at {when:%Y-%m-%d %H:%M:%S}"
        )
        if self._line is None:
            self._line = self._console.status(told)
            self._line.start()
        else:
            self._line.update(told)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        if self._line is not None:
            self._line.stop()
