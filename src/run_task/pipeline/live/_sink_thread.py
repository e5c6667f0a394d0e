"""A sink of a live pipeline: a thread of its own writes, so no window waits for a disk."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

from run_task.errors import ChannelClosed, SinkError, described
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.pipeline._delivery import Delivery
from run_task.pipeline._refusals import Omission, Refusals
from run_task.pipeline._result_parts import result_for
from run_task.pipeline._sink_policy import SinkPolicy
from run_task.pipeline.live._backlog import Backlog, Marker
from run_task.runner._stats import SinkStats
from run_task.sinks._protocol import Result, Sink
from run_task.sinks._spool import SpoolFolder
from run_task.sync._lifecycle import Lifecycle, Phase
from run_task.tasks._keyed import AnyDataSet

_log = Log(__name__)

FLUSH_EVERY: Final = 1.0
"""After how many seconds at the latest what was written is flushed."""


_SLOW: Final = 5.0
"""After how many seconds it is told that a stage waits for a sink that takes long."""

_LOOK: Final = 0.1
"""After how many seconds whoever waits for a flush looks whether there is going to be one."""


class SinkThread:
    """Writes to a sink, flushes it every second, and closes it in the end.

    :param sink: where to
    :param policy: what was said of it
    :param pipeline: the pipeline's name
    :param name: what the thread is called
    :param capacity: how many DataSets may wait to be written
    :param refusals: counts the results that the sink does not get
    :param failed: called with what ends it; nothing is written after that
    """

    def __init__(
        self,
        sink: Sink,
        policy: SinkPolicy,
        pipeline: str,
        name: str,
        capacity: int,
        refusals: Refusals,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._sink = sink
        self._policy = policy
        self._pipeline = pipeline
        self._refusals = refusals
        self._failed = failed
        spool = policy.spool
        self._spool = None if spool is None else SpoolFolder(spool, f"sink {brief(sink)}")
        self._backlog = Backlog(capacity, self._spool)
        self._delivery = Delivery(
            *(sink, policy, refusals), pause=self._pause, note_away=self._note_away
        )
        self._capacity = capacity
        self._life = Lifecycle()
        self._given_up = threading.Event()
        self._overflow: SinkError | None = None
        self._is_away = False
        self._mutex = threading.Lock()
        # Of the results that were to be written:
        self._by_others = 0  # those that others have written
        self._not_flushed: set[str] = set()  # of these stages, something may be so
        self._overflown = 0  # those that were dropped, since there was no room
        self._lost = 0
        self._abandoned: list[Result] = []  # of these, those that were not taken by then
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def write(self, stage: str, dataset: AnyDataSet) -> None:
        """Let a DataSet be written. Waits while too many wait already, unless the sink is away:
        then its policy says what becomes of it.

        :raises ChannelClosed: if the sink has failed
        """
        result = result_for(self._sink, self._pipeline, stage, dataset)
        if result is None:
            with self._mutex:
                self._by_others += 1
            return
        self._not_flushed.add(stage)
        try:
            if self._backlog.put(result):
                return
        except ChannelClosed as error:
            with self._mutex:
                self._lost += 1
            letters = self._policy.letters
            self._refusals.note(Omission.LOST, self._sink, [result], str(error), letters)
            raise
        letters = self._policy.letters
        full = f"it is away, and {self._capacity:,} results wait"
        if self._spool is not None:
            full = f"it is away, and {self._backlog.problem}"
        if self._policy.drops:
            with self._mutex:
                self._overflown += 1
            self._refusals.note(Omission.DROPPED, self._sink, [result], full, letters)
            return
        with self._mutex:
            self._lost += 1
        self._refusals.note(Omission.LOST, self._sink, [result], full, letters)
        self._overflow = SinkError(f"{brief(self._sink)}: {full}: no more are kept for it")
        self._given_up.set()
        raise ChannelClosed(str(self._overflow))

    def flushed(self) -> threading.Event:
        """An event that is set once all that it was given by now has been flushed; never, if it
        fails before.

        :raises ChannelClosed: if it takes nothing any more
        """
        marker = Marker()
        self._backlog.mark(marker)
        return marker.passed

    def has_all(self, stage: str, given_up: threading.Event) -> bool:
        """Wait until all that it was given of a stage is flushed. Returns whether it is; not: the
        sink is away, or something waits on disk.

        :param given_up: set: nobody waits any more
        """
        if self._is_away or self._backlog.keeps_all:
            return False
        if stage not in self._not_flushed:
            return True
        self._not_flushed.discard(stage)  # before: what is computed again may come meanwhile
        if self._all_flushed(stage, given_up):
            return True
        self._not_flushed.add(stage)
        return False

    def _all_flushed(self, stage: str, given_up: threading.Event) -> bool:
        try:
            flushed = self.flushed()
        except ChannelClosed:
            return False
        since, is_told = time.monotonic(), False
        while not flushed.wait(_LOOK):
            if self._is_away or self.is_over or given_up.is_set():
                return False
            if not is_told and time.monotonic() - since >= _SLOW:
                is_told = True
                _log.warning(
                    "%r has not taken for %g s what stage %r gave it before, and the stage waits "
                    "for that: is it locked?",
                    *(self, _SLOW, stage),
                )
        return not (self._is_away or self._backlog.keeps_all)

    def __len__(self) -> int:
        """How many DataSets wait to be written."""
        return len(self._backlog)

    @property
    def lost(self) -> int:
        """How many DataSets were not written, as the sink failed, or was given up with them."""
        given_up = self._life.phase >= Phase.ABANDONED
        in_hand = self._delivery.not_taken if given_up and not self._backlog.keeps_all else 0
        return self._lost + in_hand

    @property
    def stats(self) -> SinkStats:
        """What has become of the results. At any time, from any thread."""
        delivery = self._delivery
        # What is counted last is read first: so none is more than those before it.
        written, refused = self._by_others + delivery.written, delivery.refused
        dropped, lost = delivery.dropped + self._overflown, self.lost
        results = self._backlog.given + self._by_others
        return SinkStats(
            results=results,
            written=written,
            refused=refused,
            dropped=dropped,
            lost=lost,
            waiting=max(0, results - written - refused - dropped - lost),
            failures=delivery.failures,
            spooled=self._spool.unread if self._spool is not None else 0,
        )

    @property
    def is_over(self) -> bool:
        """Whether it has written what it will write."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def unbound(self) -> None:
        """Let no caller wait from now on."""
        self._backlog.unbound()

    def close(self) -> None:
        """Let what waits be written, and the sink be closed. Returns at once, unless it was never
        started: then the sink is closed here."""
        self._backlog.close()
        if self._backlog.keeps_all and self._is_away:
            self._given_up.set()  # what waits is on disk: there is nothing to wait for
        if self._thread.ident is None:
            self._backlog.let_go()
            try:
                self._sink.close()
            except BaseException as error:
                self._failed(error)

    def join(self, timeout: float) -> bool:
        """Wait until the sink is closed.

        :param timeout: how many seconds to wait
        :return: whether it is
        """
        if self._thread.ident is not None:  # it has been started
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def abandon(self) -> int:
        """Write nothing more, except what is being written. Returns how much is not written."""
        self._life.advance(Phase.ABANDONED)
        rest = self._backlog.end()
        with self._mutex:
            self._lost += len(rest)
            self._abandoned += rest
        self._given_up.set()
        return self.lost

    def _pause(self, duration: float) -> bool:
        """Wait before the sink is tried again. Returns whether it is to be."""
        self._backlog.sync()
        if self._backlog.is_closed and self._backlog.keeps_all:
            return False  # what waits is on disk: there is nothing to wait for
        return not self._given_up.wait(duration)

    def _note_away(self, away: bool) -> None:
        self._is_away = away
        self._backlog.note_away(away)

    def _run(self) -> None:
        letters = self._policy.letters
        try:
            if letters is not None:
                letters.begin()
            try:
                self._write_all()
            finally:
                self._delivery.close()
        except BaseException as error:
            failure = error
            if self._overflow is not None:
                failure, failure.__cause__ = self._overflow, error
            self._life.advance(Phase.ABANDONED)
            rest = self._delivery.rest()
            if self._backlog.keeps_all:
                rest = []
            rest += self._backlog.end()
            with self._mutex:
                self._lost += len(rest)
                rest += self._abandoned
            self._refusals.note(Omission.LOST, self._sink, rest, described(failure), letters)
            if self._backlog.keeps_all and self._backlog.is_closed and self._overflow is None:
                _log.warning(
                    "%r is away: what it did not get waits in its spool for the next run: %s",
                    *(self, described(failure)),
                )
            else:
                self._failed(failure)
        finally:
            self._backlog.let_go()
            if letters is not None:
                letters.flush()
                letters.close()

    def _write_all(self) -> None:
        delivery, take = self._delivery, self._backlog.take
        flush_at = math.inf  # by the monotonic clock; infinity: there is nothing to flush
        while True:
            now = time.monotonic()
            if now >= flush_at:
                delivery.flush()
                self._backlog.settle()
                self._backlog.sync()
                flush_at = math.inf
            try:
                item = take(flush_at - now)
            except TimeoutError:
                continue
            except ChannelClosed:
                delivery.flush()
                self._backlog.settle()
                return
            if isinstance(item, Marker):
                delivery.flush()
                self._backlog.settle()
                flush_at = math.inf
                item.passed.set()
                continue
            delivery.write(item)
            if self._spool is not None and not delivery.keeps_any:
                self._backlog.settle()
            if flush_at == math.inf:
                flush_at = time.monotonic() + FLUSH_EVERY

    def __repr__(self) -> str:
        return brief(self._sink)
