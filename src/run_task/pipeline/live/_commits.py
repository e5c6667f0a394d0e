"""Sources are told how far their rows have entered the data, where nothing else keeps these."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from run_task.errors import described
from run_task.observe._log import Log
from run_task.observe._recurrence import Recurrence
from run_task.pipeline._branches import SourceItem, Way
from run_task.pipeline.live._source_thread import SourceThread
from run_task.sources._positioned import UNKNOWN, Position, Positioned, positioned

_log = Log(__name__)

_EVERY: Final = 1.0
"""After how many seconds a source is told again."""

_HAND: Final = 0.1
"""For how many seconds a row that is entering is waited for."""


def entered(threads: Sequence[SourceThread]) -> Sequence[tuple[Positioned, Position]]:
    """How far the rows of those sources have entered their data that have positions: into all data
    that they enter."""
    found: dict[int, tuple[Positioned, Position]] = {}
    slowest: dict[int, SourceItem] = {}
    for thread in threads:
        source = positioned(thread.source)
        if source is None or thread.is_stopping:
            continue
        position = _entered(thread)
        if not isinstance(thread.source, Way):
            if position is not UNKNOWN:
                found[id(source)] = source, position
            continue
        before = slowest.get(id(source))
        if position is UNKNOWN:
            position = SourceItem(None, 0, UNKNOWN)
        if before is None or position.number < before.number:
            slowest[id(source)] = position
            found[id(source)] = source, position.position
    return [pair for pair in found.values() if pair[1] is not UNKNOWN]


def _entered(thread: SourceThread) -> Position:
    hand = thread.progress.hand
    if not hand.acquire(timeout=_HAND):
        return UNKNOWN  # a row waits for data that somebody holds
    try:
        return thread.progress.entered
    finally:
        hand.release()


class Commits:
    """Tells sources how far they are done with, from a thread of its own, since that may take as
    long as a network does.

    :param name: what the thread is called
    :param threads: gives the sources at work
    """

    def __init__(self, name: str, threads: Callable[[], Sequence[SourceThread]]) -> None:
        self._threads = threads
        self._told: dict[int, Position] = {}
        self._ended = threading.Event()
        self._failed = Recurrence()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def stop(self) -> None:
        """Tell once more, and no more after that. Before sources are closed; returns at once."""
        self._ended.set()

    def join(self, timeout: float) -> bool:
        """Wait until it has told for the last time. Returns whether it has."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._ended.wait(_EVERY):
            self._tell()
        self._tell()

    def _tell(self) -> None:
        for source, position in entered(self._threads()):
            if id(source) in self._told and self._told[id(source)] == position:
                continue
            self.commit(source, position)
            self._told[id(source)] = position

    def commit(self, source: Positioned, position: Position) -> None:
        """Tell one source. What goes wrong is logged: a later commit makes good for it."""
        try:
            source.commit(position)
        except Exception as error:
            if times := self._failed.happen():
                _log.warning(
                    "%r does not take note that its rows up to %r are kept (%d times): %s",
                    *(source, position, times, described(error)),
                )
