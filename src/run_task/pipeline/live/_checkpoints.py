"""The thread that makes the checkpoints of a pipeline that runs.

A checkpoint is made in these steps; the architecture's page tells what a kill between any two of
them leaves behind.

1. A cut is taken (:mod:`_cut_taker`), at a moment at which no window is in hand.
2. Each sink flushes all that it was given up to there.
3. The store makes the new parts last, and then the text that refers to them.
4. What no checkpoint refers to any more is let go of.
5. Sources with positions are told that all up to the cut is kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from run_task.errors import ChannelClosed, described
from run_task.observe._log import Log
from run_task.observe._recurrence import Recurrence
from run_task.pipeline._branches import RoutedSource
from run_task.pipeline._stage import AnyStage
from run_task.pipeline.checkpoint._checks import check_kept
from run_task.pipeline.checkpoint._keeper import Keeper
from run_task.pipeline.checkpoint._restorer import Restorer, roles_of
from run_task.pipeline.checkpoint._store import CheckpointStore
from run_task.pipeline.live._commits import Commits
from run_task.pipeline.live._cut_taker import CutTaken, CutTaker
from run_task.pipeline.live._sink_thread import SinkThread
from run_task.runner._config import RunnerConfig
from run_task.runner._stats import CheckpointStats

_log = Log(__name__)

_HANGS: Final = 1.0
"""For how many seconds the one in hand is waited for at the end."""

_REST: Final = 2.0
"""How many times as long as they were held for a cut windows are left alone then, if that is longer
than it is to the next one."""

_LONGEST: Final = 5.0
"""After how many seconds a cut is tried again at the latest, where none could be taken."""

_LOOK: Final = 0.05
"""After how many seconds it is looked again whether a sink that flushes is still wanted."""


@dataclass(frozen=True, slots=True)
class CheckpointSetup:
    """What a run needs to make checkpoints, and to go on from the last.

    :param keeper: writes them
    :param restoring: what is taken over from the last
    :param every: how many seconds one is made after the one before
    :param name_of: what a source is called, by the number of its routes
    """

    keeper: Keeper
    restoring: Restorer
    every: float
    name_of: Callable[[int], str]


def going_on(
    store: CheckpointStore,
    every: float,
    pipeline: str,
    stages: Mapping[AnyStage, RunnerConfig],
    sources: Sequence[RoutedSource],
    called: Callable[[int], str],
) -> tuple[CheckpointSetup, Sequence[RoutedSource]]:
    """Go on from the last checkpoint, if there is one. Returns how the next are made, and what
    sources are to be read.

    :param every: how many seconds a checkpoint is made after the one before
    :param pipeline: the pipeline's name
    :param called: what a source is called, by the number of its routes
    :raises ConfigError: if something cannot be part of checkpoints
    """
    ways = check_kept(stages, sources, called)
    keeper = Keeper(store, pipeline)
    restoring = Restorer(keeper.begin(), keeper)
    try:
        entering = [
            (called(number), way, route.into)
            for number, several in ways.items()
            for way, (_, _, route) in enumerate(several)
        ]
        restoring.data(roles_of(entering, stages))
        read = {
            number: restoring.source(called(number), several[0][0], len(several))
            for number, several in ways.items()
        }
    except BaseException:
        keeper.close()
        raise
    going = [(read[route.number], unit_ns, route) for _, unit_ns, route in sources]
    return CheckpointSetup(keeper, restoring, every, called), going


class Checkpoints:
    """Makes checkpoints, one after the other, from a thread of its own.

    :param name: the pipeline's name
    :param keeper: writes them
    :param every: how many seconds one is made after the one before
    :param cutting: takes cuts
    :param sinks: gives the sinks of the run
    :param commits: tells sources
    :param unfit: what did not fit of the checkpoint that the run has begun with
    """

    def __init__(
        self,
        name: str,
        keeper: Keeper,
        every: float,
        cutting: CutTaker,
        sinks: Callable[[], Sequence[SinkThread]],
        commits: Commits,
        unfit: Sequence[str],
    ) -> None:
        self._name = name
        self._keeper = keeper
        self._every = every
        self._cutting = cutting
        self._sinks = sinks
        self._commits = commits
        self._unfit = tuple(unfit)
        self._ended = threading.Event()
        self._made_at: float | None = None  # by the monotonic clock, or when the run began
        self._is_told = False  # that none could be made since
        self._missed = Recurrence()
        self._failed = Recurrence()
        self._written = self._skipped = self._failures = self._bytes = 0
        self._mutex = threading.Lock()  # held while one is made
        self._thread = threading.Thread(
            target=self._run, name=f"run-task {name} checkpoints", daemon=True
        )

    @property
    def stats(self) -> CheckpointStats:
        """How it has been doing. At any time, from any thread."""
        return CheckpointStats(
            number=self._keeper.number,
            written=self._written,
            skipped=self._skipped,
            failed=self._failures,
            bytes=self._bytes,
            unfit=self._unfit,
            seconds_behind=0.0 if self._ended.is_set() else self._seconds_behind,
        )

    @property
    def _seconds_behind(self) -> float:
        made_at = self._made_at
        if made_at is None:
            return 0.0
        return max(0.0, time.monotonic() - made_at - self._every)

    def start(self) -> None:
        """Begin to make them."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no further one. Returns at once."""
        self._ended.set()

    def join(self, timeout: float) -> bool:
        """Wait until the one in hand is made. Returns whether it is."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def close(self, *, whole: bool, timeout: float) -> None:
        """Make the last one, and let go of the store. When all has ended.

        :param whole: whether all that stages gave has been written by sinks, and no thread is left
            that changes anything
        :param timeout: for how many seconds to wait for the one in hand
        """
        if not self.join(timeout) or not self._mutex.acquire(timeout=_HANGS):
            _log.error("%s: its checkpoints hang, and are left as they are", self._name)
            return
        try:
            try:
                taken = self._cutting.take_last() if whole else None
                if taken is not None:
                    self._write(taken)
                elif whole:
                    _log.warning(
                        "%s: there is no last checkpoint, since rows still enter, or data is held: "
                        "the next run goes on from the one before",
                        self._name,
                    )
            finally:
                self._keeper.close()
        except Exception as error:
            self._note_failure(error)
        finally:
            self._mutex.release()

    def _run(self) -> None:
        wait = self._every
        due = self._made_at = time.monotonic()  # one at once: what comes first is not to be lost
        while not self._ended.wait(max(due - time.monotonic(), 0.0)):
            with self._mutex:
                wait = self._every if self._make() else min(2 * wait, max(_LONGEST, self._every))
            now = time.monotonic()
            due = max(due + wait, now)
            if self._cutting.held > self._every:
                due = max(due, now + self._cutting.held * _REST)

    def _make(self) -> bool:
        """Make one. Returns whether a cut could be taken."""
        try:
            taken = self._cutting.take(self._every)
        except Exception as error:
            self._note_failure(error)
            return False
        if taken is None:
            self._skipped += 1
            if not self._ended.is_set() and (times := self._missed.happen()):
                self._is_told = True
                in_hand = ", ".join(map(repr, self._cutting.in_hand)) or "none, but rows were"
                _log.warning(
                    "%s: no checkpoint could be made (%d times), and %.1f s ago one was due: at no "
                    "moment all stages were done with the windows that they had begun; in hand "
                    "was that of: %s",
                    *(self._name, times, self._seconds_behind, in_hand),
                )
            return False
        try:
            if self._flushed():
                self._write(taken)
                for source, position in taken.commits:
                    self._commits.commit(source, position)
        except Exception as error:
            self._note_failure(error)
        return True

    def _flushed(self) -> bool:
        """Wait until sinks have flushed what they were given. Returns whether they have."""
        try:
            flushed = [sink.flushed() for sink in self._sinks()]
        except ChannelClosed:
            return False  # one has failed, and the run ends
        for event in flushed:
            while not event.wait(_LOOK):
                if self._ended.is_set():
                    return False
        return True

    def _write(self, taken: CutTaken) -> None:
        self._bytes += self._keeper.write(taken.cut)
        self._written += 1
        if self._is_told:
            self._is_told = False
            again = "%s: a checkpoint was made again, %.1f s after it was due"
            _log.warning(again, self._name, self._seconds_behind)
        self._made_at = time.monotonic()

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        if times := self._failed.happen():
            _log.error(
                "%s: a checkpoint could not be written (%d times), and the run goes on: %s",
                *(self._name, times, described(error)),
            )
