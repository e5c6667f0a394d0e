"""Whether the next tick is to begin with helpers: decided by what earlier ticks took.

Helpers pay where tasks release the GIL, or wait, and cost where they do not. Which it is cannot be
known beforehand, so it is tried: a few ticks with helpers, against what one took without them.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from typing import Final

SLOW: Final = 0.0005
"""From how many seconds on a tick's tasks are looked at one by one, to see what helpers save."""

MIN_GAIN: Final = 0.0003
"""How many seconds helpers must be expected to save before a tick begins with them: several
times what it costs to wake them."""

_TRIAL: Final = 3
"""How many ticks are tried with helpers; the best of them counts, as a first one starts threads."""

_PAYS: Final = 0.9
"""Helpers go on if a tick takes at most so much of what it took without them."""

_REST: Final = 16
_LONGEST_REST: Final = 4096
"""How many slow ticks go by without helpers after a trial that failed, at first and at most: twice
as many each time."""

_TRIED_AGAIN: Final = 1024
"""After how many ticks with helpers one begins without, to see what that takes by now."""


class Help(enum.Enum):
    """Who ran a tick's tasks."""

    NONE = enum.auto()
    """Its leader alone."""

    LATE = enum.auto()
    """Helpers, too, who were called when it took long."""

    FULL = enum.auto()
    """Helpers from the start."""


class HelperPolicy:
    """Decides, from what a runner's ticks took, whether the next one begins with helpers.

    :param tasks: how many tasks a tick has
    :param workers: how many threads may run them
    """

    __slots__ = (
        "_alone",
        "_best",
        "_helped",
        "_pause",
        "_rest",
        "_workers",
        "order",
        "slow",
        "wanted",
    )

    def __init__(self, tasks: int, workers: int) -> None:
        self._workers = workers
        self.wanted: bool = False
        """Whether the next tick is to begin with helpers."""
        self.slow: bool = False
        """Whether the last one took more than ``SLOW``."""
        self.order: Sequence[int] = range(tasks)
        """In which order to take the tasks, by position."""
        self._alone = math.inf  # what a tick took before it was tried with helpers
        self._helped = 0  # how many ticks have begun with helpers since
        self._best = math.inf  # what the best of them took
        self._rest = 0  # how many slow ticks are to go by before the next trial
        self._pause = _REST

    def is_worth_a_look(self) -> bool:
        """Whether a slow tick that its leader has had alone is worth a closer look.

        One alone is not, since it may have lost the processor to another thread; and none are for
        a while after helpers did not pay.
        """
        was_slow, self.slow = self.slow, True
        return was_slow and not self._rests()

    def learn(self, costs: Mapping[int, float], took: float, helped: Help) -> None:
        """Take a tick into account.

        :param costs: how long each task took, in seconds, by position
        :param took: how long all of them took together, in seconds
        :param helped: who ran them
        """
        was_slow, self.slow = self.slow, sum(costs.values()) > SLOW
        if not self.slow:
            self.wanted = False
        elif helped is Help.FULL:
            self._judge(took)
            if self.wanted:
                self._expect(costs)
        elif was_slow and not self._rests():
            self._expect(costs)
            # Only a tick without helpers shows what one takes without help.
            self._alone = took if helped is Help.NONE else math.inf
            self._helped, self._best = 0, math.inf

    def _expect(self, costs: Mapping[int, float]) -> None:
        """See what helpers would save of a tick like this, and which tasks to begin with."""
        alone = sum(costs.values())
        together = max(*costs.values(), alone / self._workers, 0.0)
        self.wanted = alone - together > MIN_GAIN
        # The costliest first: begun last, it would run on when all the others are done.
        positions = range(len(self.order))
        self.order = sorted(positions, key=lambda i: costs.get(i, 0.0), reverse=True)

    def _judge(self, took: float) -> None:
        """See whether helpers pay, by a tick that began with them."""
        self._helped += 1
        self._best = min(self._best, took)
        if self._helped == _TRIAL:
            if self._best <= self._alone * _PAYS:
                self._pause = _REST
            else:
                self.wanted = False
                self._rest = self._pause
                self._pause = min(2 * self._pause, _LONGEST_REST)
        elif self._helped == _TRIED_AGAIN:
            self.wanted = False

    def _rests(self) -> bool:
        """Whether it is too early for another trial. Asked once a slow tick."""
        resting = self._rest > 0
        self._rest -= resting
        return resting
