"""Which task a worker process runs, noted by the worker in memory that its runner reads.

So a runner knows which task to blame when a process hangs or dies, whatever state it is in, and no
message has to be sent for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from struct import Struct
from typing import Final

PROGRESS_SIZE: Final = 16
"""How many bytes it takes."""

_NOTES: Final = Struct("=dd")
"""Since when, and what is at."""

_RESTING: Final = -1.0
_LOADING: Final = -2.0  # this is task 0 being loaded, -3 task 1, and so on
_UNSET: Final = float("inf")


class Progress:
    """One number for what a worker is at, one for when it began with it.

    :param memory: shared by the worker, which writes, and the runner, which reads
    """

    __slots__ = ("_memory", "_slots")

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._slots = memory.cast("d")

    # The worker notes

    def load(self, position: int) -> None:
        """A task is being loaded. It has all the time that it needs."""
        self._slots[1] = _LOADING - position

    def begin(self, position: int) -> float:
        """A task begins. Returns the time, by ``time.perf_counter``."""
        self._slots[0] = _UNSET  # so that no reader joins this task to the time of another
        self._slots[1] = position
        self._slots[0] = now = time.perf_counter()
        return now

    def noting(self) -> Callable[[float, int], None]:
        """What notes that a task has begun, in less time than :meth:`begin`, for thousands of jobs
        that follow on one another: called with the time, and the position.

        The time is noted first: who reads in between takes the job before for younger than it is,
        and not this one for as old as that.
        """
        return partial(_NOTES.pack_into, self._memory, 0)

    def finish(self) -> None:
        """The task is over, but its runner does not know what came of it yet."""
        self._slots[0] = _UNSET

    def rest(self) -> None:
        """Nothing is done for any task. The runner notes it, too, once a report has arrived."""
        self._slots[1] = _RESTING

    # The runner reads

    def loading(self) -> int | None:
        """The position of the task that is being loaded, or was when the worker died."""
        at = self._slots[1]
        return int(_LOADING - at) if at <= _LOADING else None

    def in_hand(self) -> int | None:
        """The position of the last task that was begun since the worker rested."""
        at = self._slots[1]
        return int(at) if at >= 0 else None

    def since(self, position: int) -> float | None:
        """When this task began, by ``time.perf_counter``, which is the same in every process.

        :return: None if this is not the task in hand, or it is over
        """
        at, since, still = self._slots[1], self._slots[0], self._slots[1]
        return since if at == still == position and since != _UNSET else None
