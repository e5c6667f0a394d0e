"""How far the parts of a live pipeline have come, and waiting until they come further."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from run_task.runner._scheduler import step_aside

T = TypeVar("T")

_GLANCE: Final = 0.0005
"""How many seconds at a time to wait for what moves without a word."""


class Watermarks:
    """Wakes those who wait for stages and sources whenever one of them moves."""

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self.stopped: bool = False  # nobody waits any more

    def move(self) -> None:
        """Wake those who wait: something has moved."""
        with self._moved:
            self._moved.notify_all()

    def stop(self) -> None:
        """Let nobody wait from now on."""
        self.stopped = True
        self.move()

    def wait(self, until: Callable[[], bool], timeout: float, *, glance: bool) -> None:
        """Wait until something holds, or it has taken too long.

        :param until: whether it does
        :param timeout: how many seconds to wait at most
        :param glance: whether it may come to hold without a word, so that it has to be looked at
        """
        deadline = time.monotonic() + timeout
        longest = _GLANCE if glance else math.inf
        with self._moved:
            while not until() and not self.stopped:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
                step_aside()  # whoever is waited for may have been run by this thread next
                self._moved.wait(min(remaining, longest))


class Patience:
    """Waits for others, and not again for those that took too long, before they have caught up.

    So one that hangs costs those who depend on it one wait, and not one a window.

    :param marks: how far all of them are
    """

    def __init__(self, marks: Watermarks) -> None:
        self._marks = marks
        self._given_up: Sequence[object] = ()
        self._missing: Callable[[], Sequence[object]] = tuple  # at the last wait

    def wait(
        self, missing: Callable[[], Sequence[T]], timeout: float, *, glance: bool = False
    ) -> Sequence[T]:
        """Wait until none is missing.

        :param missing: those that have to come further
        :param timeout: how many seconds to wait at most
        :param glance: whether one of them may come further without a word
        :return: those that are given up in this moment
        """
        # Those that have not even come as far as was waited for before.
        given_up = [one for one in self._missing() if one in self._given_up]
        self._missing = missing

        def late() -> Sequence[T]:
            return [one for one in missing() if one not in given_up]

        if late():
            self._marks.wait(lambda: not late(), timeout, glance=glance)
        left = late()
        self._given_up = [*given_up, *left]
        return left
