"""A source without end as a shard reads it: in a thread of its own, so that the one that serves the
shard waits for no row."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple

from run_task.cluster._bytes import joined
from run_task.errors import SourceError
from run_task.executors.processes._exceptions import portable
from run_task.sources._batch import Batch
from run_task.sources._faults import Faults, OnFault, faults_told_to
from run_task.sources._partitioned import with_key
from run_task.sources._positioned import Position, Positioned, Renamed, positioned

_MOST: Final = 20_000
"""With how many rows that wait no more are read."""

_CLOSING: Final = 5.0
"""How many seconds its thread has to end."""


class LiveBatch(NamedTuple):
    """What was read together."""

    batch: Batch | None
    """None: there is no more."""

    position: Position | None
    """Behind it."""

    faults: list[bytes]
    """What was found malformed before, pickled."""

    begun: Position | None = None
    """Where its first row stands, if the source can tell."""

    error: bytes | None = None
    """What the source has raised, pickled."""


class LiveReading:
    """Reads a source without end ahead of who takes it.

    :param source: the source, which has positions
    :param position: where to begin
    :param on_bad_row: what is done with a row that is malformed
    :param name: what it is called
    :param key: the column of the key
    """

    def __init__(
        self, source: Any, position: Position, on_bad_row: OnFault, name: str, key: str
    ) -> None:
        self._source = source
        self._name = name
        self._key = key
        tracked = positioned(source)
        assert tracked is not None  # it was checked
        self._tracked: Positioned = tracked
        self._begun: Position | None = None  # where the first row of what was read last stands
        self._on_bad_row = on_bad_row
        self._faults: list[bytes] = []
        self._read: deque[LiveBatch] = deque()
        self._waiting = 0  # how many rows these are
        self._changed = threading.Condition()
        self._is_closed = False
        tracked.seek(position)
        self._thread = threading.Thread(target=self._run, name=f"run-task {name}", daemon=True)
        self._thread.start()

    @property
    def lag(self) -> int | None:
        """How many rows it has that were not read, at least; None: it does not know."""
        return self._tracked.lag

    def take(self, *, wait: bool) -> LiveBatch | None:
        """What comes next.

        :param wait: whether to wait for it
        :return: None: nothing is there
        """
        with self._changed:
            while not self._read:
                if not wait or self._is_closed:
                    return None
                self._changed.wait()
            if self._read[0].batch is None:
                return self._read[0]  # which stays
            taken = self._read.popleft()
            self._waiting -= len(taken.batch or ())
            self._changed.notify_all()
            return taken

    def passed(self) -> tuple[Position, list[bytes]] | None:
        """Where it stands behind what no row came of, and what was found malformed there.

        :return: None: that is not known, since rows are on their way
        """
        source = self._tracked
        if source.lag != 0:
            return None
        position = source.position
        with self._changed:
            # It moves before rows are put here; then there is no lag before they are.
            if source.lag != 0 or self._read or source.position != position:
                return None
            faults, self._faults = self._faults, []
        return position, faults

    def commit(self, position: Position) -> None:
        """Have the source take note up to where rows are kept."""
        self._tracked.commit(position)

    def check_passed(
        self, before: Sequence[Position], position: Position, behind: Sequence[Position]
    ) -> None:
        """See whether it comes by the same rows as an earlier reader, as :class:`Renamed` does."""
        if isinstance(self._tracked, Renamed):
            self._tracked.check_passed(before, position, behind)

    def close(self) -> None:
        """Read no more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._source.close()
        self._thread.join(_CLOSING)

    def _run(self) -> None:
        error: bytes | None = None
        try:
            with faults_told_to(self._note, self._on_bad_row):
                read, faults = self._begins(self._source.batches()), Faults(OnFault.SKIP)
                with closing(with_key(self._name, self._key, read, faults)) as batches:
                    for batch in batches:
                        if len(batch) and not self._put(batch):
                            break
        except Exception as raised:
            error = joined(portable(raised))
        with self._changed:
            self._read.append(LiveBatch(None, None, self._faults, error=error))
            self._changed.notify_all()

    def _begins(self, batches: Iterator[Batch]) -> Generator[Batch]:
        """The same, while it is noted where each begins, if the source can tell."""
        tracked = self._tracked
        try:
            for batch in batches:
                if isinstance(tracked, Renamed):
                    self._begun = tracked.position_before(len(batch))
                yield batch
        finally:
            close: object = getattr(batches, "close", None)
            if callable(close):
                close()

    def _put(self, batch: Batch) -> bool:
        """Let rows wait to be taken. Returns whether to read on."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._waiting < _MOST)
            if self._is_closed:
                return False
            faults, self._faults = self._faults, []
            self._read.append(LiveBatch(batch, self._tracked.position, faults, self._begun))
            self._waiting += len(batch)
            self._changed.notify_all()
        return True

    def _note(self, error: SourceError) -> None:
        fault = joined(portable(error))
        with self._changed:
            self._faults.append(fault)
