"""What was changed about a runner or a pipeline while it ran."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from run_task.observe._log import Log
from run_task.time._clock import Clock

MOST: Final = 1024
"""How many of the latest changes are kept."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was changed about a runner or a pipeline.

    :param time_ns: when, by its clock, in nanoseconds since the Unix epoch
    :param what: what was changed, in words: ``"stage 'hourly' is paused"``
    """

    time_ns: int
    what: str


class Changes:
    """Notes changes, and logs each.

    :param name: of the runner or pipeline, for the log
    :param log: where they are logged
    """

    def __init__(self, name: str, log: Log) -> None:
        self._name = name
        self._log = log
        self._latest: deque[Change] = deque(maxlen=MOST)

    @property
    def latest(self) -> Sequence[Change]:
        """The latest 1024, the oldest first. At any time, from any thread."""
        return tuple(self._latest)

    def note(self, clock: Clock, what: str) -> None:
        """Note a change that has just been made.

        :param clock: where to read when
        :param what: what was changed, in words
        """
        self._latest.append(Change(clock.time_ns(), what))
        self._log.info("%s: %s", self._name, what)
