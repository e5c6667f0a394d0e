"""How far something that runs has come, and waiting until it has come further."""

from __future__ import annotations

import enum
import time

from run_task.sync._alarm import AnyAlarm
from run_task.sync._waiting import Deadline, Wait, wait_task, wait_thread


class Phase(enum.IntEnum):
    """How far it has come. Phases may be left out, and none comes twice."""

    NEW = 0
    """It was made."""

    RUNNING = 1
    """It was started, and a second start is refused."""

    STOPPING = 2
    """It is to end: what is in hand is finished, and nothing new is begun."""

    ABANDONED = 3
    """It took too long to end: what hangs is given up, and the rest delivered."""

    ENDED = 4
    """Nothing of it goes on, or what does is no longer waited for."""


class Lifecycle:
    """The phases of one thing that runs once. Any number of threads and tasks share it.

    Nothing here takes a lock, so a signal handler may call :meth:`advance` in the middle of any
    other code, this class's own included.
    """

    __slots__ = ("_reached", "_waiting")

    def __init__(self) -> None:
        # When each phase was reached. `setdefault` is one operation, so that of several who
        # advance to one phase, one does; and the largest key is the phase, so that it never goes
        # back, whatever order they come in.
        self._reached: dict[Phase, float] = {Phase.NEW: time.monotonic()}
        self._waiting: list[AnyAlarm] = []

    @property
    def phase(self) -> Phase:
        """How far it has come."""
        return max(self._reached)

    @property
    def waiting(self) -> int:
        """How many threads and tasks wait for a phase."""
        return len(self._waiting)

    def advance(self, to: Phase) -> bool:
        """Come to a phase, unless it has come as far before, and wake those that wait.

        :param to: the phase
        :return: whether this call brought it there; of several calls, one does
        """
        if self.phase >= to:
            return False
        now = time.monotonic()  # an object of this call's own, by which to know it
        if self._reached.setdefault(to, now) is not now:
            return False
        for alarm in tuple(self._waiting):
            alarm.ring()
        return True

    def after_fork(self) -> None:
        """In a forked child, where nothing of it goes on: it has ended, and nobody is woken, since
        none of those who waited is there."""
        self._reached[Phase.ENDED] = time.monotonic()

    def since(self, phase: Phase) -> float | None:
        """When it came to a phase, or past it, by :func:`time.monotonic`; None: it has not."""
        times = [self._reached[reached] for reached in list(self._reached) if reached >= phase]
        return min(times, default=None)

    def until(self, alarm: AnyAlarm, phase: Phase, timeout: float | None = None) -> Wait[bool]:
        """The wait for a phase, as a part of other waits.

        :param alarm: what wakes the waiting thread or task
        :param phase: what is waited for; what comes after it will do
        :param timeout: how many seconds to wait; None or infinity: forever
        :return: whether it has come so far
        """
        if self.phase >= phase:
            return True
        deadline = Deadline(timeout)
        self._waiting.append(alarm)
        try:
            while self.phase < phase:
                if deadline.passed:
                    return False
                yield deadline.remaining()
            return True
        finally:
            self._waiting.remove(alarm)

    def wait(self, phase: Phase, timeout: float | None = None) -> bool:
        """Wait until it has come to a phase, or past it.

        :param phase: what is waited for
        :param timeout: how many seconds to wait; None or infinity: forever
        :return: whether it has come so far
        """
        return wait_thread(self.until, phase, timeout)

    async def wait_async(self, phase: Phase, timeout: float | None = None) -> bool:
        """As :meth:`wait`, without holding up the event loop."""
        return await wait_task(self.until, phase, timeout)

    def __repr__(self) -> str:
        return f"<Lifecycle: {self.phase.name.lower()}>"
