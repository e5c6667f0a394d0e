"""After an oversleep, the rows that have waited meanwhile enter before windows are computed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from run_task.pipeline._fates import Tally
from run_task.pipeline._order import SourceMark
from run_task.runner._scheduler import scheduler_of, step_aside
from run_task.sync._watch import watch
from run_task.time._clock import Clock, SystemClock

_PAUSE: Final = 0.01
"""For how many seconds sources run until it is looked at again whether rows have come."""

_PAUSES: Final = 10
"""In how many pauses they may run at most before overdue windows are computed."""

_QUIET: Final = 2
"""After how many pauses without a row they count as blocked. A thread that could run may have to
wait for a processor that long."""


_BEAT: Final = 0.25
"""Each how many seconds the watch looks that the process has not stood still."""

_STOOD: Final = 0.1
"""By how many seconds a look must have been too late for it to have stood still."""


class CatchUp:
    """Lets the sources of a run go on until they block, once for all who have overslept.

    A process that was suspended finds its windows overdue, and in pipes and sockets the rows that
    belong to them. Whose windows were due before the sources have last run until they blocked has
    nothing to wait for: so stages share one wait.

    :param clock: where to read the time
    """

    pause: Callable[[float], object] = staticmethod(time.sleep)
    """Sleeps so many seconds; rows enter meanwhile."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sources: list[tuple[SourceMark, Tally]] = []
        self._mutex = threading.Lock()
        self._ended_ns: float = -float("inf")  # by the monotonic clock
        self._left = 0  # how many pauses there may still be since the last oversleep
        self.looks: bool = False
        """Whether it is looked that the process has not stood still."""
        self._looked = 0.0  # when it was last seen that the process runs, by time.monotonic()

    def add(self, mark: SourceMark, tally: Tally) -> None:
        """A source whose rows come by themselves, and what it has received."""
        self._sources.append((mark, tally))

    def begin(self) -> None:
        """Look from now on whether the process stands still, where sources have rows that could
        wait meanwhile. A wait that is too long shows that by itself; nothing does, if it stood
        still in the middle of a task."""
        if self._sources and not self.looks and type(self._clock) is SystemClock:
            self._looked = time.monotonic()
            self.looks = True
            watch().add(self)
            watch().wake()

    def end(self) -> None:
        """Look no longer."""
        if self.looks:
            self.looks = False
            watch().remove(self)
            watch().settle()

    def look(self) -> float:
        """For the watch: see whether the process stood still. Returns when to look again."""
        self.has_stood_still()
        return _BEAT

    def has_stood_still(self) -> bool:
        """Whether it stood still since somebody looked, as when it was suspended in the middle of a
        task: then all that is due by now has been overslept."""
        if not self.looks:
            return False
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        if passed <= _BEAT + _STOOD:
            return False
        scheduler_of(self._clock).overslept_ns = self._clock.monotonic_ns()
        return True

    def wait_if_stood_still(self, *, each: bool) -> None:
        """As :meth:`wait`, if nobody has seen as yet that the process stood still.

        :param each: as for :meth:`wait`
        """
        if self.has_stood_still():
            self.wait(self._clock.monotonic_ns(), each=each)

    def remove(self, mark: SourceMark) -> None:
        """A source has ended."""
        self._sources = [one for one in self._sources if one[0] is not mark]

    def wait(self, due_ns: int, *, each: bool) -> None:
        """Let sources run until they block, if they have not since a window was due.

        :param due_ns: when it was, in nanoseconds of the monotonic clock
        :param each: whether there is something to wait for before each window: where rows that
            come after it wait for it, the next window's have not come yet
        """
        if self._ended_ns >= due_ns and not each:
            return
        step_aside()
        with self._mutex:
            if self._ended_ns < due_ns:
                self._left = _PAUSES
            elif not each:
                return
            before, quiet = self._received(), 0
            while before and self._left and quiet < _QUIET:
                self.pause(_PAUSE)
                self._left -= 1
                now = self._received()
                quiet = quiet + 1 if now == before else 0
                before = now
            self._ended_ns = self._clock.monotonic_ns()

    def _received(self) -> list[int]:
        """How many rows each source has given that has not ended."""
        return [tally.received for mark, tally in self._sources if not mark.ended]
