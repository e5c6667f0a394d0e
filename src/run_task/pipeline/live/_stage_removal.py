"""A stage that was removed, until it has ended."""

from __future__ import annotations

from typing import Final

from run_task.pipeline.live._stage import LiveStage
from run_task.runner._engine import DELIVERY
from run_task.sync._waiting import Deadline

_AGAIN: Final = 0.01
"""After how many seconds it is looked at again, once it has delivered everything."""


class StageRemoval:
    """Sees to it that a stage that was removed ends: what hangs is given up.

    :param live: the stage
    :param deadline: how long it may take
    """

    def __init__(self, live: LiveStage, deadline: Deadline) -> None:
        self.live = live
        self._deadline = deadline
        self._is_abandoned = False

    def look(self) -> float | None:
        """Give up what takes too long.

        :return: when to look again, in seconds; None: it has ended
        """
        live = self.live
        if live.wait(0.0):
            return None
        if live.mark.ended and not self._deadline.passed:
            return _AGAIN
        if self._deadline.passed:
            if self._is_abandoned:
                live.give_up()
                return _AGAIN
            live.shutdown()
            live.abandon()
            self._is_abandoned = True
            self._deadline = Deadline(DELIVERY)
        return self._deadline.remaining()
