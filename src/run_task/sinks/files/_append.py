"""A file to which windows are appended, and which is whole again after a crash."""

from __future__ import annotations

import os
import stat
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from run_task.errors import ConfigError, SinkError
from run_task.observe._log import Log
from run_task.sinks._base import Durable
from run_task.sinks._older import older
from run_task.sinks._protocol import Row
from run_task.sinks._record import WindowKey, WindowRecord
from run_task.sinks.encoding._json import Fallback
from run_task.sinks.encoding._records import TypesGiven
from run_task.sinks.files._disk import APPEND, NO_LINK, Draft, become, is_at, lock, sync_folder

_log = Log(__name__)

_FOREIGN: Final = "this is no window, nor a part of one"


class StoredWindow(NamedTuple):
    """A window in a file, and where it stands: from byte ``begin`` to byte ``end``."""

    begin: int
    end: int
    key: WindowKey
    rows: list[Row]


class AppendedFile(Durable):
    """What the sinks have in common that append to one file.

    A window that is written again is appended, too, and the older one is superseded: ``rows()``
    leaves it out, and when the sink is closed, or opened again after a crash, the file is
    rewritten without it. That this is needed shows at the ends of windows, which otherwise only
    grow: so nothing has to be remembered of each window.

    Others may rename, remove, replace or empty the file at any time, as programs do that rotate
    logs. So each flush looks first whether the file is still at its path and as long as it was
    left, and else begins anew with what is there.

    :param path: the file; it is made if it is not there
    :param encode: makes of a value that has no form in JSON another that has one
    :param types: of which types what is read may be
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        encode: Fallback | None = None,
        types: TypesGiven = (),
    ) -> None:
        super().__init__(f"{type(self).__name__}({os.fspath(path)!r})", encode, types)
        self._path = Path(path).resolve()  # a link stays one when the file is replaced
        self._latest: dict[tuple[str, str, int], int] = {}
        self._superseded: bool = False
        self._torn: bool = False
        self._size = 0
        try:
            self._descriptor = os.open(self._path, APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise ConfigError(f"{self._where}: cannot be opened: {error}") from error
        try:
            self._take()
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    @abstractmethod
    def _header(self) -> bytes:
        """What is written first."""

    @property
    @abstractmethod
    def _signature(self) -> bytes:
        """What each window begins with, so that a part of one is told from what others write."""

    @abstractmethod
    def _is_older(self, stream: BinaryIO) -> bool:
        """Whether a file, at its beginning, is one of an older format."""

    @abstractmethod
    def _encode(self, window: WindowRecord) -> bytes:
        """A window as it stands in the file."""

    @abstractmethod
    def _read(self, stream: BinaryIO, begin: int, end: int) -> Iterator[StoredWindow]:
        """The windows in a part of the file that are whole.

        :param stream: the file, at byte ``begin``
        :param begin: where the part begins
        :param end: where it ends; what comes after that is not looked at
        :raises SinkError: if something that is no window stands there, and is no part of one at
            the end of the stream
        """

    def _take(self) -> None:
        """Make the open file this sink's own."""
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            raise ConfigError(f"{self._where}: cannot be opened: it is no regular file")
        lock(self._descriptor, self._where)
        self._recover()

    def _recover(self) -> None:
        """Find what is there, and cut off what was not written to its end."""
        self._latest = {}
        self._superseded = self._torn = False
        header = self._header
        size = os.fstat(self._descriptor).st_size
        with self._stream() as stream:
            if self._is_older(stream):
                raise older(self._where)
            stream.seek(0)
            there = stream.read(len(header))
            if there != header[: len(there)]:
                raise ConfigError(
                    f"{self._where}: this is a file of something else, it does not begin with "
                    f"{header.decode().strip()!r}"
                )
            self._size = len(there)
            if len(there) < len(header):
                self._append(header[len(there) :])
                size = self._size
            stream.seek(self._size)
            if not self._signature.startswith(stream.read(len(self._signature))):
                raise self._broken(1 + header.count(b"\n"), self._size, _FOREIGN)
            stream.seek(self._size)
            for found in self._read(stream, self._size, size):
                self._notice(found.key)
                self._size = found.end
            stream.seek(self._size)
            tail = stream.read(len(self._signature))
        if self._size < size:
            if not self._signature.startswith(tail) and not tail.startswith(b"\0"):
                raise self._broken(None, self._size, _FOREIGN)
            os.truncate(self._descriptor, self._size)
            os.fsync(self._descriptor)
        sync_folder(self._path.parent)
        if self._superseded:
            self._rewrite()

    def _stream(self) -> BinaryIO:
        """The file, once more, for reading."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | NO_LINK)
        except OSError as error:
            raise SinkError(f"{self._where}: cannot be read: {error}") from error
        if not os.path.samestat(os.fstat(descriptor), os.fstat(self._descriptor)):
            os.close(descriptor)
            raise SinkError(f"{self._where}: was replaced by something else")
        return os.fdopen(descriptor, "rb")

    def _notice(self, key: WindowKey) -> None:
        part = key.pipeline, key.stage, key.bucket
        if key.end > self._latest.setdefault(part, key.end - 1):
            self._latest[part] = key.end
        else:
            self._superseded = True

    def _attend(self) -> None:
        try:
            in_place = is_at(self._descriptor, self._path)
            size = os.fstat(self._descriptor).st_size
            if not in_place:
                self._reopen()
            elif size < self._size:
                _log.warning(
                    "%s was cut to %d bytes by something else: it goes on from there",
                    self._where,
                    size,
                )
                self._recover()
            elif size > self._size and not self._torn:
                raise SinkError(
                    f"{self._where}: something else has written {size - self._size} bytes to it "
                    f"after byte {self._size}: take them out, or remove the file"
                )
        except OSError as error:
            raise SinkError(f"{self._where}: cannot be written: {error}") from error
        except ConfigError as error:
            raise SinkError(f"{error} (it was changed while this sink had it)") from error

    def _reopen(self) -> None:
        """Go on with what is at the path, where nothing is with a new file."""
        before = self._descriptor, self._size, self._latest, self._superseded, self._torn
        try:
            self._descriptor = os.open(self._path, APPEND)
        except FileNotFoundError:
            like = os.fstat(self._descriptor)
            mode = stat.S_IMODE(like.st_mode) & 0o700
            self._descriptor = os.open(self._path, APPEND | os.O_CREAT | os.O_EXCL, mode)
            become(self._descriptor, like)
        try:
            self._take()
        except BaseException:
            os.close(self._descriptor)
            self._descriptor, self._size, self._latest, self._superseded, self._torn = before
            raise
        os.close(before[0])
        _log.warning(
            "%s was renamed, removed or replaced by something else: it goes on with what is at "
            "its path now",
            self._where,
        )

    def _append(self, data: bytes) -> None:
        """Append to the file, all or nothing."""
        self._torn, view = True, memoryview(data)
        try:
            if os.fstat(self._descriptor).st_size > self._size:  # what could not be taken back
                os.truncate(self._descriptor, self._size)
            while view:
                view = view[os.write(self._descriptor, view) :]
            size = os.fstat(self._descriptor).st_size
            if size < self._size + len(data):
                self._retract(data, size)  # before anything else: it takes time to make it last
            os.fsync(self._descriptor)
        except OSError as error:
            with suppress(OSError):  # then the next append does it
                os.truncate(self._descriptor, self._size)
                self._torn = False
            raise SinkError(f"{self._where}: cannot be written: {error}") from error
        self._torn = False
        if size != self._size + len(data):
            raise SinkError(f"{self._where}: something else changed it while it was written")
        self._size = size

    def _retract(self, data: bytes, size: int) -> None:
        """Take back what was appended to a file that was cut meanwhile: in between lacks what was
        cut off, and nobody could read on from there."""
        with self._stream() as stream:
            stream.seek(max(0, size - len(data)))
            if stream.read(len(data)) == data[-size:]:
                os.truncate(self._descriptor, max(0, size - len(data)))

    def _keep(self, windows: list[WindowRecord]) -> None:
        self._append(b"".join(map(self._encode, windows)))
        for window in windows:
            self._notice(window.key)

    def _last(self, pipeline: str, stage: str) -> int | None:
        ends = [end for of, end in self._latest.items() if of[:2] == (pipeline, stage)]
        return max(ends, default=None)

    def _rows(self, pipeline: str, stage: str | None) -> Iterator[Row]:
        # Opened here and not by the generator: close() may put another file in its place.
        return self._select(self._stream(), self._size, self._superseded, pipeline, stage)

    def _select(
        self, stream: BinaryIO, size: int, superseded: bool, pipeline: str, stage: str | None
    ) -> Iterator[Row]:
        with stream:
            for found in self._newest(stream, size) if superseded else self._all(stream, size):
                if found.key.pipeline == pipeline and stage in (None, found.key.stage):
                    yield from found.rows

    def _all(self, stream: BinaryIO, size: int) -> Iterator[StoredWindow]:
        stream.seek(len(self._header))
        return self._read(stream, len(self._header), size)

    def _newest(self, stream: BinaryIO, size: int) -> Iterator[StoredWindow]:
        """The windows without those that were superseded, each where its first version stood."""
        places: dict[WindowKey, tuple[int, int]] = {}
        for found in self._all(stream, size):
            places[found.key] = found.begin, found.end
        for begin, end in places.values():
            stream.seek(begin)
            yield from self._read(stream, begin, end)

    def _rewrite(self) -> None:
        """Rewrite the file without what was superseded."""
        try:
            draft = Draft(self._path.parent, os.fstat(self._descriptor))
            try:
                size = self._write_newest(draft)
                lock(draft.descriptor, self._where)
                if not is_at(self._descriptor, self._path):
                    raise SinkError(f"{self._where}: was replaced by something else")
                draft.replace(self._path)
            except BaseException:
                draft.discard()
                raise
        except OSError as error:
            raise SinkError(f"{self._where}: cannot be rewritten: {error}") from error
        os.close(self._descriptor)
        self._descriptor, self._size, self._superseded = draft.descriptor, size, False

    def _write_newest(self, draft: Draft) -> int:
        """Write what is not superseded; return how many bytes that are."""
        with (
            self._stream() as stream,
            self._stream() as copy,
            os.fdopen(draft.descriptor, "ab", closefd=False) as rewritten,
        ):
            rewritten.write(self._header)
            for found in self._newest(stream, self._size):
                copy.seek(found.begin)
                rewritten.write(copy.read(found.end - found.begin))
            rewritten.flush()
            os.fsync(draft.descriptor)
            return os.fstat(draft.descriptor).st_size

    def _release(self) -> None:
        try:
            # What somebody has renamed stays as it is: its readers take the last of each window.
            if self._superseded and is_at(self._descriptor, self._path):
                self._rewrite()
        except OSError as error:
            raise SinkError(f"{self._where}: cannot be rewritten: {error}") from error
        finally:
            os.close(self._descriptor)

    def _broken(self, line: int | None, begin: int, reason: str) -> SinkError:
        where = f"line {line}" if line is not None else f"byte {begin}"
        return SinkError(
            f"{self._path}, {where}: {reason}; what follows it would be lost: repair or remove it"
        )
