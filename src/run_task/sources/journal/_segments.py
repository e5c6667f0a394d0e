"""Writing the segments of a journal."""

from __future__ import annotations

import enum
import errno
import os
import threading
from collections.abc import Sequence
from typing import Any, Final

from run_task.errors import SourceError
from run_task.observe._log import Log
from run_task.sources.journal._folder import Folder
from run_task.sources.journal._frames import MAGIC, framed
from run_task.sources.journal._kept_rows import KeptRow, KeptRows, RowEncoder, with_head
from run_task.time._interval import TimeUnit

_log = Log(__name__)

_FULL: Final = {errno.ENOSPC, errno.EDQUOT}

AGAIN: Final = 1.0
"""After how many seconds it is tried again to write to a disk that was full."""


class OnFull(enum.Enum):
    """What a journal does when its disk is full."""

    WAIT = "wait"
    """Keep its source waiting until there is room, which it tries each second, and log it."""

    RAISE = "raise"
    """End the source by a ``SourceError``; rows that are not kept were not given on, nor
    committed."""


class SegmentWriter:
    """Writes rows to the segments of a journal, for which it has a lock on their folder.

    :param folder: the folder
    :param unit: the unit of timestamps
    :param kind: of which type the source is, if it has positions
    :param most_bytes: from how many bytes on a segment is followed by another
    :param most_ns: from which age of its first row on; in nanoseconds
    :param keep_ns: how long rows are kept; None: for ever
    :param on_full: what to do when the disk is full
    :raises ConfigError: if somebody else writes there
    :raises SourceError: if what is there is damaged, or in another unit
    """

    def __init__(
        self,
        folder: Folder,
        unit: TimeUnit,
        kind: str | None,
        most_bytes: int,
        most_ns: int,
        keep_ns: int | None,
        on_full: OnFull,
    ) -> None:
        self._folder = folder
        self._unit = unit
        self._kind = kind
        self._most_bytes = most_bytes
        self._most_ns = most_ns
        self._keep_ns = keep_ns
        self._on_full = on_full
        self._mutex = threading.Lock()  # of what is pruned
        self._descriptor: int | None = None
        self._encoder = RowEncoder()
        self._size = self._since_ns = 0
        self.row: int = 0
        """How many rows the segment has."""
        self._stopped = threading.Event()
        self._needed_from: int | None = None  # the first segment that somebody may seek
        self._lock: int | None = folder.lock()
        try:
            self._look()
        except BaseException:
            self.close()
            raise

    def _look(self) -> None:
        folder = self._folder
        numbers = [*folder.numbers()]
        if numbers and folder.head(numbers[-1]) is None:  # a crash came before its first rows
            folder.remove(numbers.pop())
        self._begun: list[tuple[int, int]] = []  # each segment, and when its first row came
        for number in numbers:
            head = folder.head(number)
            if head is None:
                continue  # which whoever reads it is told
            if head.unit is not self._unit:
                raise SourceError(
                    str(folder.segment(number)),
                    None,
                    None,
                    f"its timestamps are in {head.unit.name.lower()}, and those of the source in "
                    f"{self._unit.name.lower()}: give the source another folder as journal=",
                )
            self._begun.append((number, head.since_ns))
        self.number: int = 1
        """The segment that is written, or is to be begun."""
        self.last_ns: int = 0
        """When the last row came."""
        self.inner: Any = None
        """The position of the source that is kept, behind the last row that is."""
        self._before = 0
        if numbers:
            self._before, self.last_ns, inner = folder.mend(numbers[-1])
            head = folder.head(numbers[-1])
            if head is not None and head.kind == self._kind:
                self.inner = inner
            self.number = numbers[-1] + 1

    @property
    def position(self) -> list[int]:
        """Behind the last row."""
        return [self.number, self.row]

    def write(self, rows: Sequence[KeptRow | KeptRows], inner: Any) -> int:
        """Write rows, and return once they last: how many rows of their segment come before.

        :param rows: the rows, which are plain
        :param inner: the position of the source behind the last of them
        :raises CannotKeep: if one of them cannot be kept: then none is
        :raises SourceError: if that cannot be done, or it is stopped while it waits for room
        """
        since_ns = rows[0].since_ns
        if self._descriptor is not None and (
            self._size >= self._most_bytes or since_ns - self._since_ns >= self._most_ns
        ):
            self._end_segment()
        if self._descriptor is None:
            self._encoder, self.row, self._size = RowEncoder(), 0, 0
            self._since_ns = since_ns
            head = {
                "unit": self._unit.name,
                "since_ns": self._since_ns,
                "before": self._before,
                "position": self.inner,
                "kind": self._kind,
            }
            content = MAGIC + framed(with_head(head))
        else:
            content = b""
        content += framed(self._encoder.encode(rows, inner))
        self._append(content)
        first, self.row = self.row, self.row + sum(some.size for some in rows)
        self.inner = inner
        self.last_ns = rows[-1].until_ns
        return first

    def _append(self, content: bytes) -> None:
        told = False
        while True:
            begins = self._descriptor is None
            try:
                if begins:
                    self._descriptor = self._folder.create(self.number)
                self._put(content)
                if begins:
                    self._folder.sync()
                    with self._mutex:
                        self._begun.append((self.number, self._since_ns))
            except OSError as error:
                self._take_back(begins)
                if error.errno not in _FULL or self._on_full is OnFull.RAISE:
                    raise self._failure(error) from error
                if not told:
                    told = True
                    _log.error(
                        "%s: the disk is full: the source waits until there is room",
                        self._folder.path,
                    )
                if self._stopped.wait(AGAIN):
                    raise self._failure(error) from error
            else:
                break
        self._size += len(content)
        if begins:
            self._prune()

    def _put(self, content: bytes) -> None:
        assert self._descriptor is not None
        left = memoryview(content)
        while left:
            left = left[os.write(self._descriptor, left) :]
        os.fsync(self._descriptor)

    def _take_back(self, begins: bool) -> None:
        """Nothing of what was to be appended is to stay."""
        if self._descriptor is None:
            return
        if begins:
            os.close(self._descriptor)
            self._descriptor = None
            self._folder.remove(self.number)
        else:
            os.ftruncate(self._descriptor, self._size)

    def _failure(self, error: OSError) -> SourceError:
        return SourceError(
            str(self._folder.path),
            None,
            None,
            f"rows cannot be kept ({error.strerror or error}): make room, or see what is wrong "
            f"with the disk; rows that are not kept were not given on",
        )

    def _end_segment(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            self._before = self._size
            self.number += 1
            self.row = 0

    def need(self, number: int) -> None:
        """Nobody seeks a segment before this one any more; those from it on are kept."""
        with self._mutex:
            self._needed_from = max(number, self._needed_from or 0)
        self._prune()

    def _prune(self) -> None:
        """Remove segments whose rows are older than is to be kept, and that nobody needs."""
        if self._keep_ns is None:
            return
        with self._mutex:
            gone = 0
            for (number, _), (_, next_ns) in zip(self._begun, self._begun[1:]):
                needed = self._needed_from is not None and number >= self._needed_from
                if needed or next_ns > max(self.last_ns, self._since_ns) - self._keep_ns:
                    break
                try:
                    self._folder.remove(number)
                except OSError:
                    _log.exception("%s cannot be removed", self._folder.segment(number))
                    break
                gone += 1
            del self._begun[:gone]

    def stop(self) -> None:
        """Wait for room on the disk no longer. From any thread."""
        self._stopped.set()

    def close(self) -> None:
        """Let go of what is open. Any number of times."""
        self._end_segment()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
