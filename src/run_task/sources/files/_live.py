"""Bytes that are still being written: pipes, and files that are followed as they grow."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from run_task.errors import ConfigError
from run_task.observe._log import Log
from run_task.sources._arguments import check_flag
from run_task.sources._stoppable import StoppableReader
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

    def goes_on(self) -> bool:
        """It does not: when it ends, it is over."""
        return False

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


class Followed(_LivePlace):
    """A file that goes on with what is appended to it, also when it is renamed and made anew, or
    emptied. It need not be there yet.

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
        self._stopped = False

    def open(self) -> WholeLines:
        """What is there, and what is appended, by whole lines, until it is another file."""
        return WholeLines(_FollowedReader(self))

    def goes_on(self) -> bool:
        """It does, with the file that comes next, unless it was stopped."""
        return not self._stopped

    def stop(self) -> None:
        """Let it end now. From any thread; a wait for more ends at once."""
        self._stopped = True
        self._alarm.ring()

    def first(self) -> BinaryIO:
        """The file that is there, once there is one.

        :raises Stopped: if it was stopped
        :raises OSError: if it cannot be opened
        """
        while True:
            if self._stopped:
                raise Stopped
            try:
                return self._path.open("rb", buffering=0)
            except FileNotFoundError:
                self.wait()

    def is_over(self, file: BinaryIO) -> bool:
        """Whether rows are written into another file that has taken the place of one.

        :param file: the one, at the end of what was read
        """
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        return now.st_size > 0 and not os.path.samestat(os.fstat(file.fileno()), now)

    def wait(self) -> None:
        """Wait before looking again.

        :raises Stopped: if it was stopped
        """
        clock = self._how.clock
        until_ns = clock.monotonic_ns() + self._how.poll_ns
        while not self._stopped and clock.monotonic_ns() < until_ns:
            clock.wait(self._alarm, until_ns)
        if self._stopped:
            raise Stopped


class _FollowedReader:
    def __init__(self, place: Followed) -> None:
        self._place = place
        self._file: BinaryIO | None = None
        self._known = b""  # what stands before what is read next

    def read(self, size: int, /) -> bytes:
        if self._file is None:
            self._file = self._place.first()
        while True:
            over = self._place.is_over(self._file)  # what was appended by now is read below
            if block := self._next(self._file, size):
                return block
            if over:
                return b""
            self._place.wait()

    def _next(self, file: BinaryIO, size: int) -> bytes:
        """What has been appended.

        :raises Stopped: if the file was emptied: also if it has since become longer than it was,
            so that what comes next there may be the rest of another line
        """
        at = file.tell()
        block = file.read(size)
        file.seek(at - len(self._known))
        if file.read(len(self._known)) != self._known:
            _log.warning(
                "%s was emptied while it is followed: what was written to it after it was looked "
                "at last, and before it was emptied, was not read",
                self._place.name,
            )
            raise Stopped
        file.seek(at + len(block))
        self._known = (self._known + block[-_KNOWN_BYTES:])[-_KNOWN_BYTES:]
        return block

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
