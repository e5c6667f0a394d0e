"""The folder of a journal: its segments, and who may write there."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from run_task.errors import ConfigError, SourceError
from run_task.observe._log import Log
from run_task.sources.journal._frames import MAGIC, Torn, frames
from run_task.sources.journal._kept_rows import KeptRow, RowDecoder, head_of
from run_task.time._interval import TimeUnit

try:
    import fcntl
except ImportError:  # on Windows: there, a second writer is not noticed
    fcntl = None  # type: ignore[assignment]  # typeshed has it as a module

_log = Log(__name__)

_NAME: Final = re.compile(r"segment-(\d{12})\.journal")
_LOCK: Final = "journal.lock"
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class SegmentHead(NamedTuple):
    """What a segment says of itself."""

    unit: TimeUnit
    """The unit of its timestamps."""
    since_ns: int
    """When its first row came, in nanoseconds since the Unix epoch."""
    before: int
    """How many bytes the segment before it has; 0: there was none."""
    inner: Any
    """The position of the source that is kept, behind the last row of the segment before."""
    kind: str | None
    """Of which type that source is, if it has positions."""


class SegmentFrame(NamedTuple):
    """Rows of a segment that were kept together."""

    first: int
    """How many rows of the segment come before them."""
    length: int
    inner: Any
    """The position of the source behind the last of them."""
    rows: Iterator[KeptRow]
    end: int
    """Where in the file they end."""


class Folder:
    """The segments of a journal. They are numbered, one after another, and only the last grows.

    :param path: the folder
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def segment(self, number: int) -> Path:
        """What a segment is called."""
        return self.path / f"segment-{number:012}.journal"

    def numbers(self) -> Sequence[int]:
        """The segments that there are, in their order.

        :raises SourceError: if one between others is missing
        """
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return ()
        found = sorted(int(known[1]) for name in names if (known := _NAME.fullmatch(name)))
        for before, after in itertools.pairwise(found):
            if after != before + 1:
                raise SourceError(
                    str(self.path),
                    None,
                    None,
                    f"{self.segment(before + 1).name} is missing, which stood between others: "
                    f"restore it, or move those before it elsewhere, to go on with those after it",
                )
        return found

    def head(self, number: int) -> SegmentHead | None:
        """What a segment says of itself; None: it had not come so far.

        :raises SourceError: if it is none, or damaged
        """
        path = self.segment(number)
        with path.open("rb") as file:
            if not _begins(path, file.read(len(MAGIC))):
                return None
            try:
                first = next(frames(file, path, len(MAGIC)), None)
            except Torn:
                return None
        return None if first is None else _head(path, first.content)

    def read(self, number: int, row: int = 0) -> Iterator[SegmentFrame]:
        """What a segment holds, from a row on.

        :param number: which segment
        :param row: how many of its rows to leave out
        :raises Torn: in the end, if what stands there last is not whole
        :raises SourceError: if it is none, or damaged
        """
        path = self.segment(number)
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
            if not _begins(path, magic):
                raise Torn(0)
            decoder = RowDecoder()
            first = 0
            for place, frame in enumerate(frames(file, path, len(MAGIC))):
                if not place:
                    continue  # the segment's head
                try:
                    head, parts = head_of(frame.content)
                    decoder.learn(head)
                    count, inner = int(head["rows"]), head["position"]
                    skipped = max(row - first, 0)
                    rows: Iterator[KeptRow] = iter(())
                    if skipped < count:
                        rows = iter([*decoder.decode(head, parts)][skipped:])
                        yield SegmentFrame(first + skipped, count - skipped, inner, rows, frame.end)
                    else:
                        yield SegmentFrame(first + count, 0, inner, rows, frame.end)
                    first += count
                except (ValueError, LookupError, TypeError) as error:
                    raise SourceError(
                        str(path),
                        None,
                        None,
                        f"what begins at byte {frame.offset} is no rows of a journal, though it "
                        f"is undamaged: another version may have written it ({error})",
                    ) from error

    def rows_from(self, number: int, row: int) -> Iterator[tuple[int, int, KeptRow]]:
        """All rows from one on, each with its segment and how many rows of that come before it.

        What is not whole at the end of the last segment is left out: a crash may have left it, or
        it is being written.

        :raises SourceError: if a segment is none, is missing or damaged
        """
        numbers = self.numbers()
        for one in numbers:
            if one < number:
                continue
            last = one == numbers[-1]
            head = self.head(one)
            if head is not None and one > numbers[0]:
                self._check_before(one, head)
            try:
                for frame in self.read(one, row if one == number else 0):
                    for place, kept in enumerate(frame.rows, frame.first):
                        yield one, place, kept
            except Torn as torn:
                if not last:
                    raise self._torn_inside(one, torn) from None

    def _check_before(self, number: int, head: SegmentHead) -> None:
        path = self.segment(number - 1)
        size = path.stat().st_size
        if size != head.before:
            raise SourceError(
                str(path),
                None,
                None,
                f"it has {size:,} bytes, and had {head.before:,} when the one after it was begun: "
                f"rows behind byte {min(size, head.before):,} are gone, or not its own. Restore it "
                f"from a copy, or move it and all segments before it elsewhere",
            )

    def _torn_inside(self, number: int, torn: Torn) -> SourceError:
        return SourceError(
            str(self.segment(number)),
            None,
            None,
            f"it is damaged from byte {torn.offset} on, and other segments come after it: restore "
            f"it from a copy, or move it and all segments before it elsewhere",
        )

    def mend(self, number: int) -> tuple[int, int, Any]:
        """Cut off what a crash has left at the end of the last segment, which has a head.

        :param number: the last segment
        :return: its bytes now, when its last row came, and the position of the source behind that
        :raises SourceError: if it is damaged before its end
        """
        path = self.segment(number)
        head = self.head(number)
        assert head is not None
        last_ns, inner = head.since_ns, head.inner
        with path.open("rb") as file:
            size = next(frames(file, path, len(MAGIC))).end
        try:
            for frame in self.read(number):
                size, inner = frame.end, frame.inner
                for kept in frame.rows:
                    last_ns = kept.arrival_ns
        except Torn:
            _log.warning(
                "%s: what stands from byte %d on is not whole, as after a crash: the last %d bytes "
                "are cut off",
                *(path, size, path.stat().st_size - size),
            )
            descriptor = os.open(path, os.O_RDWR | _NO_LINK)
            try:
                os.ftruncate(descriptor, size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return size, last_ns, inner

    def remove(self, number: int) -> None:
        """Remove a segment."""
        self.segment(number).unlink(missing_ok=True)

    def lock(self) -> int:
        """Have it for ourselves: an open file, with which that ends.

        :raises ConfigError: if somebody else writes there, or it cannot be made
        """
        path = self.path / _LOCK
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
        except OSError as error:
            raise ConfigError(
                f"journal={str(self.path)!r}: cannot be written to ({error}): take a folder that "
                f"can"
            ) from error
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise ConfigError(
                f"journal={str(self.path)!r}: another journal is being written there: end that "
                f"first, or give each source a folder of its own"
            ) from error
        return descriptor

    def create(self, number: int) -> int:
        """Begin a segment: an open file, where none is."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | _NO_LINK
        return os.open(self.segment(number), flags, 0o666)

    def sync(self) -> None:
        """Make the names in it last."""
        if os.name == "nt":  # where a folder cannot be opened
            return
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _begins(path: Path, magic: bytes) -> bool:
    """Whether a file begins as a segment does; not if it is cut off before.

    :raises SourceError: if it is none
    """
    if magic == MAGIC:
        return True
    if MAGIC.startswith(magic):
        return False
    raise SourceError(
        str(path), None, None, "it is no segment of a journal, but has the name of one: move it"
    )


def _head(path: Path, content: bytes) -> SegmentHead:
    try:
        head, _ = head_of(content)
        return SegmentHead(
            TimeUnit[head["unit"]],
            int(head["since_ns"]),
            int(head["before"]),
            head["position"],
            head["kind"],
        )
    except (ValueError, LookupError, TypeError) as error:
        raise SourceError(
            str(path), None, None, f"another version of this library may have written it ({error})"
        ) from error
