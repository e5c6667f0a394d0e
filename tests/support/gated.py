"""A task that holds up one window."""

from __future__ import annotations

import threading

from tests.support.threads import PATIENCE


class Gated:
    """A task that waits in one window until it is let go.

    :param end: the end of that window
    """

    name = "gated"

    def __init__(self, end: int) -> None:
        self._end = end
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def run(self, data: object, start: int, end: int) -> int:
        if end == self._end:
            self.entered.set()
            self.go_on.wait(PATIENCE)
        return end
