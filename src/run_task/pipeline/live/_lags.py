"""How far sources with positions are behind, for windows that wait for these."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.pipeline._fates import Tally
from run_task.pipeline._order import SourceMark
from run_task.pipeline.live._coordinator import Coordinator
from run_task.sources._positioned import Positioned
from run_task.time._clock import Clock

_log = Log(__name__)

_FIRST: Final = 0.001
_LONGEST: Final = 0.02
"""After how many seconds a source is asked again, at first and at most, while it is waited for."""


class _Lag:
    """What is known of one source.

    :param mark: how far it is
    :param source: the source
    :param tally: counts its rows
    :param idle_ns: for how long it is waited for after it has last changed
    :param stopping: whether it was asked to give no more
    :param entering: whether rows that it has given are entering
    """

    def __init__(
        self,
        mark: SourceMark,
        source: Positioned,
        tally: Tally,
        idle_ns: float,
        stopping: Callable[[], bool],
        entering: Callable[[], bool],
    ) -> None:
        self.mark = mark
        self._source = source
        self._tally = tally
        self._idle_ns = idle_ns
        self._stopping = stopping
        self._entering = entering
        self._seen: tuple[int | None, int] = (0, 0)  # its lag, and how many rows it had given
        self._changed_ns: float = 0
        self._told = False

    def look(self, now_ns: int) -> None:
        """Ask it."""
        mark = self.mark
        if mark.ended or self._stopping():
            mark.behind = False
            return
        try:
            lag = self._source.lag
        except Exception:  # it does not know
            lag = None
        seen = lag, self._tally.received
        if seen != self._seen:
            self._seen, self._changed_ns, self._told = seen, now_ns, False
        if lag == 0 and self._entering():
            mark.behind = True
            return
        mark.behind = lag != 0 and now_ns - self._changed_ns < self._idle_ns
        if lag != 0 and not mark.behind and not self._told:
            self._told = True
            _log.warning(
                "%r is %s, and has given nothing for %g s: windows go on without what it may give "
                "(idle= of source() says for how long they wait)",
                brief(self._source),
                "disconnected" if lag is None else f"{lag:,} rows behind",
                self._idle_ns / 1e9,
            )


class Lags:
    """Asks sources with positions whether they are behind, while somebody waits for them.

    :param coordinator: keeps the marks
    :param clock: the time of the run
    :param resumed: whether another run goes on from this one: windows that wait for a source which
        gives no more are left to that
    """

    def __init__(self, coordinator: Coordinator, clock: Clock, *, resumed: bool) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._resumed = resumed
        self._mutex = threading.Lock()
        self._lags: Sequence[_Lag] = ()
        self._failed: Sequence[SourceMark] = ()
        self._lacks = False
        self.any: bool = False
        """Whether there are such sources."""

    def add(
        self,
        mark: SourceMark,
        source: Positioned,
        tally: Tally,
        idle_ns: float,
        stopping: Callable[[], bool],
        entering: Callable[[], bool],
    ) -> None:
        """Look after one more source.

        :param mark: how far it is
        :param source: the source
        :param tally: counts its rows
        :param idle_ns: for how long it is waited for after it has last changed, in nanoseconds
        :param stopping: whether it was asked to give no more
        :param entering: whether rows that it has given are entering
        """
        lag = _Lag(mark, source, tally, idle_ns, stopping, entering)
        self._lags = [*self._lags, lag]
        self.any = True

    def remove(self, mark: SourceMark) -> None:
        """A source has ended."""
        self._lags = [lag for lag in self._lags if lag.mark is not mark]
        self.any = self._lacks or bool(self._lags)

    def stop(self) -> None:
        """Sources are about to be stopped: what those that are behind have not given yet, they do
        not give in this run."""
        if self._resumed:
            self._look()
            for lag in self._lags:
                if lag.mark.behind:
                    self.any = self._lacks = lag.mark.lacking = True

    def note_failed(self, mark: SourceMark) -> None:
        """A source has failed. Others go on without it."""
        self._failed = [*self._failed, mark]

    def end(self) -> bool:
        """All sources have ended.

        :return: whether windows that wait for some are left to another run, since these failed
        """
        if self._resumed:
            for mark in self._failed:
                self.any = self._lacks = mark.lacking = True
        return self._lacks

    def wait(self, owed: Callable[[], Sequence[SourceMark]]) -> bool:
        """Wait for sources that are behind, until they have given what is waited for, have caught
        up, or have not changed for as long as they may.

        :param owed: those that are waited for, as far as is known
        :return: whether what was waited for may be there; not: it comes in the next run
        """
        pause = _FIRST
        while True:
            self._look()
            left = owed()
            if any(mark.lacking for mark in left):
                return False
            if not left or self._coordinator.released:
                return True
            self._coordinator.wait(owed, pause)
            pause = min(2 * pause, _LONGEST)

    def _look(self) -> None:
        with self._mutex:
            now_ns = self._clock.monotonic_ns()
            for lag in self._lags:
                lag.look(now_ns)
