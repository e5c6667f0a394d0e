"""Bytes that are still being written: pipes, and files that are followed as they grow."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np

from run_task.errors import ConfigError
from run_task.observe._log import Log
from run_task.sources._arguments import check_flag
from run_task.sources._stoppable import StoppableReader
from run_task.sources.files._compression import TELLING_BYTES, compression_of
from run_task.sources.files._lines import Stopped, WholeLines
from run_task.sync._alarm import Alarm
from run_task.time._clock import Clock, SystemClock, check_clock
from run_task.time._length import IntervalLike, length

_log = Log(__name__)

POLL: Final = "250ms"
"""How often a file is looked at that is followed, unless somebody has said otherwise."""

_KNOWN_BYTES: Final = 256
"""By so many bytes it is told whether a file is still the one that was read."""


@dataclass(frozen=True, slots=True)
class Following:
    """How a file is followed.

    :param poll_ns: how long to wait, in nanoseconds, before it is looked at again
    :param clock: where to wait for it
    """

    poll_ns: int
    clock: Clock


def following(
    follow: bool, poll: IntervalLike, clock: Clock | None, where: str
) -> Following | None:
    """How a file is followed, as a source was told.

    :raises ConfigError: if it cannot be
    """
    check_flag(where, "follow", follow)
    try:
        poll_ns = length(poll, "poll={}").nanos
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    given = SystemClock() if clock is None else check_clock(clock)
    return Following(poll_ns, given) if follow else None


class _LivePlace:
    """What is still being written."""

    live: bool = True
    far: bool = False

    def __init__(self, name: str) -> None:
        self.name: str = name
        """How messages call it."""

    def open_for_arrow(self) -> Any:
        """It cannot be."""
        raise OSError(f"{self.name} is still being written")

    def head(self) -> bytes:
        """It is known only once it is read."""
        return b""

    def tail(self, size: int) -> bytes:
        """There is none."""
        return b""


class Pipe(_LivePlace):
    """A named pipe, a terminal or the like: it is read once, until all who write to it are gone.

    :param path: its path
    """

    once: bool = True
    endless: bool = False

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._reader = _PipeReader(path)
        self._opened = False

    def open(self) -> WholeLines:
        """What comes, by whole lines.

        :raises OSError: if it has been read before
        """
        if self._opened:
            raise OSError("it has been read before, and what comes by a pipe comes once")
        self._opened = True
        return WholeLines(self._reader)

    def stop(self) -> None:
        """Let it end now. From any thread; a read that waits ends at once."""
        self._reader.stop()


class _PipeReader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = StoppableReader(self._open)
        self._descriptor: int | None = None

    def _open(self) -> int:
        # Without waiting for somebody to write to it.
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        return self._descriptor

    def read(self, size: int, /) -> bytes:
        block = self._reader.read(size)
        if not block and self._reader.stopped:
            raise Stopped
        return block

    def stop(self) -> None:
        self._reader.stop()

    def close(self) -> None:
        self._reader.close()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class ReadMark(NamedTuple):
    """How far a file that is followed has been read."""

    turn: int = 0
    """How many files had its name before, or contents that it was emptied of."""

    before: int | None = None
    """The number of the file in the file system in the turn before."""

    file: int | None = None
    """Its number in the file system; None: it is not known yet which one it is."""

    at: int = 0
    """How many of its bytes were read."""

    line: int = 1
    """Which line comes next."""

    known: bytes = b""
    """The last bytes before that."""


class Followed(_LivePlace):
    """A file that goes on with what is appended to it, also when it is renamed and made anew, or
    emptied. It need not be there yet.

    It is read in passes, each of what is there: :meth:`look`, :meth:`open`, and :meth:`end_pass`
    once that gives no more. A pass begins behind the last lines that were let go.

    What is renamed is read on until there is another one in its place, and something in that:
    whoever writes may have the old one open for a while after the new one was made, as it has where
    logrotate makes it. A file in which something else stands than what has been read of it was
    emptied, which is logged, since nobody can tell what else was in it; it is read from its start.
    What was half-written before may have been any line, so it is none.

    :param path: its path
    :param how: how it is waited for
    """

    once: bool = False
    endless: bool = True

    def __init__(self, path: Path, how: Following) -> None:
        super().__init__(str(path))
        self._path = path
        self._how = how
        self._alarm = Alarm()
        self.mark: ReadMark = ReadMark()
        """How far it has been read, up to what was let go."""
        self.stopped: bool = False
        """Whether nobody wants more of it."""
        self.held: int = 1
        """The line behind those in hand."""
        self.is_over: bool = False
        """Whether the pass is the last one of this file: another one has taken its place."""
        self._file: BinaryIO | None = None
        self._pass: _Pass | None = None
        self._looked = -1  # how many bytes it had, all of which were looked at
        self._was_emptied = False

    def __reduce__(self) -> Any:
        return Followed, (self._path, self._how)

    def anew(self) -> Followed:
        """The same, to be followed by another reader."""
        return Followed(self._path, self._how)

    def stop(self) -> None:
        """Let it end now. From any thread; a wait for more ends at once."""
        self.stopped = True
        self._alarm.ring()

    def wait(self) -> None:
        """Wait before looking again, or until it is stopped."""
        clock = self._how.clock
        until_ns = clock.monotonic_ns() + self._how.poll_ns
        while not self.stopped and clock.monotonic_ns() < until_ns:
            clock.wait(self._alarm, until_ns)

    def look(self) -> bool:
        """Whether there is something to be read.

        :raises OSError: if it cannot be looked at
        """
        if self._file is None:
            try:
                self._file = self._path.open("rb", buffering=0)
            except FileNotFoundError:
                return False
            if compression_of(self._file.read(TELLING_BYTES)) is not None:
                raise OSError("it is compressed, and what is appended to such a file has no lines")
            self.mark = self.mark._replace(file=os.fstat(self._file.fileno()).st_ino)
        self.is_over = self._has_another(self._file)  # what was appended by now is read below
        if not self._is_as_known():
            self.note_emptied()
            self._was_emptied = False
        return self.is_over or os.fstat(self._file.fileno()).st_size != self._looked

    def open(self) -> WholeLines:
        """What is there of it and was not let go, by whole lines; and where it is over, also what
        is half-written."""
        assert self._file is not None  # it was looked at
        self._pass = _Pass(self, self._file)
        return WholeLines(self._pass, plain=True)

    def hold(self, line: int) -> None:
        """Lines are in hand.

        :param line: the line behind them
        """
        self.held = line

    def let_go(self) -> None:
        """Those that were in hand are not needed any more: the next pass begins behind them."""
        assert self._pass is not None
        read = self._pass.take(self.held - self.mark.line)
        known = (self.mark.known + read[-_KNOWN_BYTES:])[-_KNOWN_BYTES:]
        self.mark = self.mark._replace(at=self.mark.at + len(read), line=self.held, known=known)

    def end_pass(self) -> bool:
        """A pass has given all. Returns whether what comes is another file, or that which is left
        of one that was emptied."""
        assert self._pass is not None
        emptied, self._was_emptied = self._was_emptied, False
        if emptied:
            return True
        if self.is_over:
            self.close()
            self.mark = ReadMark(self.mark.turn + 1, before=self.mark.file)
            return True
        self._looked = self._pass.end
        return False

    def close(self) -> None:
        """Let go of the file, of which more can be read later only by its mark."""
        file, self._file = self._file, None
        self._looked = -1
        if file is not None:
            file.close()

    def has_more(self) -> bool | None:
        """Whether there is something that was not looked at; None: it is not known. From any
        thread."""
        try:
            file = self._file
            if file is None:
                return self._path.stat().st_size > 0
            return os.fstat(file.fileno()).st_size != self._looked or self._has_another(file)
        except FileNotFoundError:
            return False
        except (OSError, ValueError):  # it was closed just now
            return None

    def begins(self) -> ReadMark:
        """Where it begins, in the file that is there now."""
        try:
            return ReadMark(file=self._path.stat().st_ino)
        except OSError:
            return ReadMark()

    def go_to(self, mark: ReadMark, size: int, digest: str) -> bool:
        """Go on from where an earlier run, or another reader, was: also in a file that was renamed.

        :param mark: where that was; without the bytes before
        :param size: how many bytes before are known
        :param digest: their digest
        :return: whether there is such a file; if not, it is read from its start
        :raises OSError: if it cannot be looked for
        """
        self.close()
        self._was_emptied = False
        self.mark = mark
        if mark.file is None:
            return True
        for path in self._places_of(mark.file, size):
            with suppress(FileNotFoundError):  # it was renamed just now
                file = path.open("rb", buffering=0)
                known = _before(file, mark.at, size)
                if known is not None and digest_of(known) == digest:
                    self._file = file
                    number = os.fstat(file.fileno()).st_ino
                    self.mark = mark._replace(file=number, known=known)
                    return True
                file.close()
        self.mark = ReadMark(mark.turn + 1, before=mark.file)
        return False

    @contextmanager
    def from_its_start(self) -> Generator[None]:
        """A block in which a pass begins where the file does."""
        mark, passed = self.mark, self._pass
        self.mark = ReadMark(mark.turn, mark.before, mark.file)
        try:
            yield
        finally:
            self.mark, self._pass = mark, passed

    def _places_of(self, number: int, size: int) -> Iterator[Path]:
        """Where a file may be that had its name.

        :param number: its number in the file system
        :param size: how many bytes of it are known
        """
        if self.begins().file == number:
            yield self._path
        with suppress(FileNotFoundError), os.scandir(self._path.parent) as there:
            yield from [Path(one.path) for one in there if one.inode() == number]
        if size == _KNOWN_BYTES:  # so that it can be told from others, as a copy on another disk
            yield self._path

    def _has_another(self, file: BinaryIO) -> bool:
        """Whether rows are written into another file that has taken the place of one.

        :param file: the one
        """
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        return now.st_size > 0 and not os.path.samestat(os.fstat(file.fileno()), now)

    def _is_as_known(self) -> bool:
        assert self._file is not None
        mark = self.mark
        return _before(self._file, mark.at, len(mark.known)) == mark.known

    def note_emptied(self) -> None:
        """Something else stands in it than what was read."""
        _log.warning(
            "%s was emptied while it is followed: what was written to it after it was looked "
            "at last, and before it was emptied, was not read",
            self.name,
        )
        self.mark = ReadMark(self.mark.turn + 1, self.mark.file, self.mark.file)
        self._looked = -1
        self._was_emptied = True


def _before(file: BinaryIO, at: int, size: int) -> bytes | None:
    """So many bytes before a place; None: there are not so many."""
    file.seek(at - size)
    known = file.read(size)
    return known if len(known) == size else None


def digest_of(known: bytes) -> str:
    """By this, bytes are known that are not kept."""
    return blake2b(known, digest_size=12).hexdigest()


class _Pass:
    """What is there of a file that is followed.

    :param place: the file
    :param file: the same, which stays open
    """

    def __init__(self, place: Followed, file: BinaryIO) -> None:
        self._place = place
        self._file = file
        self.end: int = place.mark.at
        """How many bytes of the file were read."""
        self._known = place.mark.known  # what stands before what is read next
        self._read = b""  # what was not let go

    def read(self, size: int, /) -> bytes:
        """The next bytes; none: there are no more, and what is half-written is the end.

        :raises Stopped: if what is half-written is not the end, or the file was emptied: also if it
            has since become longer than it was, so that what comes next there may be the rest of
            another line
        """
        file, place = self._file, self._place
        file.seek(self.end)
        block = file.read(size)
        if _before(file, self.end, len(self._known)) != self._known:
            place.note_emptied()
            raise Stopped
        if not block:
            if place.is_over:
                return b""
            raise Stopped
        self.end += len(block)
        self._known = (self._known + block[-_KNOWN_BYTES:])[-_KNOWN_BYTES:]
        self._read += block
        return block

    def take(self, lines: int) -> bytes:
        """The first lines of what was read, which are let go.

        :param lines: how many
        """
        read = self._read
        if not lines:
            return b""
        feeds = np.flatnonzero(np.frombuffer(read, np.uint8) == ord("\n"))
        end = int(feeds[lines - 1]) + 1 if lines <= len(feeds) else len(read)
        self._read = read[end:]
        return read[:end]

    def close(self) -> None:
        """Nothing: the file is read on."""
