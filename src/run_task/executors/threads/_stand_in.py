"""A thread that runs single ticks for a caller, who so comes back also when a task hangs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from run_task.executors._protocol import Ticks
from run_task.sync._alarm import Alarm
from run_task.tasks._keyed import AnyDataSet
from run_task.tasks._tick import Tick

TickResult: TypeAlias = "list[AnyDataSet | BaseException]"
"""What came of one tick, once it is over: its DataSet, or an error that is no task's fault."""


def one_tick(tick: Tick, ended: TickResult, done: Alarm | None) -> Ticks:
    """One tick as a loop. It ends in whichever thread has the lead by then.

    :param tick: what there is to do
    :param ended: takes what came of it
    :param done: rung at the end, for a caller that waits in another thread
    """
    try:
        ended.append((yield tick))
    except BaseException as error:
        ended.append(error)
    if done is not None:
        done.ring()


class StandIn:
    """A thread that drives one loop after another, so that the caller is not held up.

    :param drive: what to do with a loop
    """

    __slots__ = ("alarm", "dismissed", "drive", "ticks")

    def __init__(self, drive: Callable[[Ticks], None]) -> None:
        self.drive: Callable[[Ticks], None] = drive
        self.alarm: Alarm = Alarm()
        self.ticks: Ticks | None = None
        self.dismissed: bool = False

    def serve(self) -> None:
        """Drive loops until it is dismissed, or one of them has been taken on by another thread."""
        while not self.dismissed:
            self.alarm.wait()
            ticks, self.ticks = self.ticks, None
            if ticks is not None:
                self.drive(ticks)
                del ticks
