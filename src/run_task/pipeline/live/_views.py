"""Views of the data for windows that are due while their stage is busy with an earlier one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from run_task.data._protocol import Viewable

MOST: Final = 1024
"""How many views are kept for a stage that is behind. Each holds on to rows that others may have
no more use for."""


class Kept(NamedTuple):
    """A view that was taken for a window before it began."""

    end_ns: float
    """The end of the window, in nanoseconds since the Unix epoch."""

    view: Any
    """The data as it was when something later was about to enter."""

    behind: Sequence[str]
    """The stages whose results it lacks."""


class Views:
    """Those of one stage, in the order of its windows. Others take them, and its runner uses them.

    :param data: what the stage reads
    """

    def __init__(self, data: Viewable[Any]) -> None:
        self._data = data
        self._kept: deque[Kept] = deque()
        self.mutex: Final = threading.RLock()
        """To be held from looking which window has no view to taking one for it."""

    def keep(self, end_ns: float, behind: Sequence[str]) -> bool:
        """Take a view for a window. Returns whether there was room for it."""
        if len(self._kept) == MOST:
            return False
        self._kept.append(Kept(end_ns, self._data.view(), behind))
        return True

    def find(self, end_ns: float) -> Kept | None:
        """The one that was taken for a window; those for windows before it are let go of."""
        with self.mutex:  # a runner that was given up may come back while all are let go of
            while self._kept and self._kept[0].end_ns < end_ns:
                self._kept.popleft()
            return self._kept[0] if self._kept and self._kept[0].end_ns == end_ns else None

    def take(self, end_ns: float) -> Any:
        """What a window is to see: the view that was taken for it, or the data as it is now."""
        with self.mutex:
            kept = self.find(end_ns)
            if kept is None:
                return self._data.view()
            self._kept.popleft()
            return kept.view

    def clear(self) -> None:
        """Let go of all."""
        with self.mutex:
            self._kept.clear()
