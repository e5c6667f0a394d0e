"""Single ticks that a caller wants run, and the thread that runs them where a task may hang."""

from __future__ import annotations

from collections.abc import Callable

from run_task.sync._alarm import Alarm
from run_task.tasks._keyed import AnyDataSet
from run_task.tasks._tick import Tick


class SingleTicks:
    """Ticks that come one at a time from a caller, in the place of a loop: between them it has
    none to give. Each ends in whichever thread has the lead by then.

    A generator for each would end by an exception, which costs as much as all else there is to do
    for a tick but its tasks.

    :param done: rung after each, for a caller that waits in another thread
    """

    __slots__ = ("_done", "result", "tick")

    def __init__(self, done: Alarm | None) -> None:
        self._done = done
        self.tick: Tick | None = None
        """What there is to do, until somebody does it."""
        self.result: AnyDataSet | BaseException | None = None
        """What came of it, once it is over: its DataSet, or an error that is no task's fault."""

    def __next__(self) -> Tick | None:
        tick, self.tick = self.tick, None
        return tick

    def send(self, result: AnyDataSet | BaseException, /) -> None:
        """The tick is over."""
        self.result = result
        if self._done is not None:
            self._done.ring()

    throw = send


class StandIn:
    """A thread that runs single ticks, so that their caller is not held up.

    :param ticks: the ticks
    :param drive: runs the one that is there
    """

    __slots__ = ("_drive", "_ticks", "alarm", "dismissed")

    def __init__(self, ticks: SingleTicks, drive: Callable[[SingleTicks], None]) -> None:
        self._ticks = ticks
        self._drive = drive
        self.alarm: Alarm = Alarm()
        self.dismissed: bool = False

    def serve(self) -> None:
        """Run ticks until it is dismissed, or one of them has been taken on by another thread."""
        while not self.dismissed:
            self.alarm.wait()
            if self._ticks.tick is not None:
                self._drive(self._ticks)
