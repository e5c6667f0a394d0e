"""Time that never goes back: the wall clock's, carried on by the monotonic clock."""

from __future__ import annotations

from typing import Final

from run_task.observe._log import Log
from run_task.time._clock import Clock
from run_task.time._epoch import from_nanos

_NOTICE_NS: Final = 1_000_000_000
"""From how many nanoseconds on a step of the wall clock is logged."""


class Timeline:
    """Joins a wall clock, which may step, to a monotonic clock, which does not.

    When the wall clock steps forward, the timeline follows. When it steps back, the timeline goes
    on as if nothing had happened, and so is ahead until the wall clock has caught up: no window is
    handed out twice, and none has to wait for an hour to pass again.

    :param clock: where to read the time
    :param log: where steps of the wall clock are logged
    """

    def __init__(self, clock: Clock, log: Log) -> None:
        self.clock: Final = clock
        self._log = log
        # The wall clock is read between two readings of the monotonic one. A thread that loses the
        # processor in between sees too small a difference, never one that pushes time forward.
        before_ns = clock.monotonic_ns()
        wall_ns = clock.time_ns()
        after_ns = clock.monotonic_ns()
        self.offset_ns: int = wall_ns - after_ns
        """The largest difference of wall and monotonic clock seen so far, in nanoseconds."""
        self._unsure_ns = after_ns - before_ns  # by how much it may be too small
        self._stepped_back = False

    @property
    def now_ns(self) -> int:
        """The time, in nanoseconds since the Unix epoch."""
        return self.clock.monotonic_ns() + self.offset_ns

    def follow(self) -> None:
        """Move on to where the wall clock is, if that is ahead."""
        before_ns = self.clock.monotonic_ns()
        wall_ns = self.clock.time_ns()
        after_ns = self.clock.monotonic_ns()
        step_ns = wall_ns - after_ns - self.offset_ns
        unsure_ns = after_ns - before_ns  # long, if this thread lost the processor in between
        if step_ns > 0:
            self.offset_ns += step_ns
            self._stepped_back = False
            if step_ns >= _NOTICE_NS + self._unsure_ns:
                self._log.warning("the wall clock was set forward by %.3f s", step_ns / 1e9)
            self._unsure_ns = unsure_ns
        elif step_ns + unsure_ns <= -_NOTICE_NS and not self._stepped_back:
            self._stepped_back = True
            self._log.warning(
                "the wall clock was set back by %.3f s; windows go on from where they were, and "
                "hold rows that are stamped by it again once it says %s",
                *(-step_ns / 1e9, _told(after_ns + self.offset_ns)),
            )


def _told(time_ns: int) -> str:
    try:
        return f"{from_nanos(time_ns):%Y-%m-%dT%H:%M:%SZ}"
    except OverflowError:  # no datetime has such a year
        return f"{time_ns // 10**9} s since 1970"
