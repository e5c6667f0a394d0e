"""What recurs: it is told at once, and then at most once a minute, with how often it was."""

from __future__ import annotations

import threading
import time
from typing import Final

EVERY: Final = 60.0
"""How many seconds lie between two log records of the same kind."""


class Recurrence:
    """Says when it is time to tell of something that recurs. From any thread."""

    __slots__ = ("_count", "_mutex", "_told", "_told_at")

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._count = 0
        self._told = 0
        self._told_at = 0.0  # by the monotonic clock

    @property
    def count(self) -> int:
        """How often it has happened."""
        return self._count

    def happen(self, times: int = 1) -> int:
        """It happens. Returns how often it has since it was last told, if it is to be told now;
        else 0.

        :param times: how often
        """
        now = time.monotonic()
        with self._mutex:
            self._count += times
            if self._told and now - self._told_at < EVERY:
                return 0
            return self._tell(now)

    def rest(self) -> int:
        """How often it has happened since it was last told, at the end; it counts as told."""
        with self._mutex:
            return self._tell(time.monotonic())

    def _tell(self, now: float) -> int:
        since, self._told, self._told_at = self._count - self._told, self._count, now
        return since
