"""A file to which windows are appended, and which is whole again after a crash."""

from __future__ import annotations

import contextlib
import os
import shutil
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from run_task.errors import ConfigError, SinkError
from run_task.sinks._base import Durable
from run_task.sinks._protocol import Row
from run_task.sinks._record import WindowRecord
from run_task.sinks.files._fsync import lock, replace, sync_folder

_FLAGS: Final = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0)
_HEAD_BYTES: Final = 4_096


class StoredWindow(NamedTuple):
    """A window in a file, and where it stands: from byte ``begin`` to byte ``end``."""

    begin: int
    end: int
    stage: tuple[str, str]
    """The pipeline and the stage."""
    window_end: int
    rows: list[Row]


class AppendedFile(Durable):
    """What the sinks have in common that append to one file.

    A window that is written again is appended, too, and the older one is superseded: ``rows()``
    leaves it out, and when the sink is closed, or opened again after a crash, the file is
    rewritten without it. That this is needed shows at the ends of windows, which otherwise only
    grow: so nothing has to be remembered of each window.

    :param path: the file; it is made if it is not there
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(f"{type(self).__name__}({os.fspath(path)!r})")
        self._path = Path(path).resolve()  # a link stays one when the file is replaced
        self._latest: dict[tuple[str, str], int] = {}
        self._superseded = False
        try:
            self._descriptor = os.open(self._path, _FLAGS | os.O_CREAT, 0o666)
        except OSError as error:
            raise ConfigError(f"{self._where}: cannot be opened: {error}") from error
        try:
            lock(self._descriptor, self._where)
            self._size = 0
            self._recover()
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    @abstractmethod
    def _header(self) -> bytes:
        """What the file begins with."""

    @abstractmethod
    def _encode(self, window: WindowRecord) -> bytes:
        """A window as it stands in the file."""

    @abstractmethod
    def _read(self, stream: BinaryIO, begin: int, end: int) -> Iterator[StoredWindow]:
        """The windows in a part of the file that are whole.

        :param stream: the file, at byte ``begin``
        :param begin: where the part begins
        :param end: where it ends; what comes after that is not looked at
        :raises SinkError: if something that is no window stands before the end of the stream
        """

    def _may_be_torn(self, tail: bytes) -> bool:
        """Whether what follows the last whole window may be the beginning of another."""
        return True

    def _recover(self) -> None:
        """Find what is there, and cut off what was not written to its end."""
        header = self._header
        size = os.fstat(self._descriptor).st_size
        with self._path.open("rb") as stream:
            there = stream.read(len(header))
            if there != header[: len(there)]:
                raise ConfigError(
                    f"{self._where}: this is a file of something else, it does not begin with "
                    f"{header.decode().strip()!r}"
                )
            if len(there) < len(header):
                self._append(header[len(there) :], size)
            self._size = len(header)
            for found in self._read(stream, self._size, size):
                self._notice(found.stage, found.window_end)
                self._size = found.end
            stream.seek(self._size)
            tail = stream.read(_HEAD_BYTES)
        if self._size < size:
            if not self._may_be_torn(tail):
                raise self._broken(None, self._size, "this is no window, nor a part of one")
            os.truncate(self._descriptor, self._size)
            os.fsync(self._descriptor)
        sync_folder(self._path.parent)
        if self._superseded:
            self._rewrite()

    def _notice(self, stage: tuple[str, str], end: int) -> None:
        latest = self._latest.setdefault(stage, end - 1)
        if end > latest:
            self._latest[stage] = end
        else:
            self._superseded = True

    def _append(self, data: bytes, size: int) -> None:
        """Append to the file, which has so many bytes, all or nothing."""
        view = memoryview(data)
        try:
            if os.fstat(self._descriptor).st_size != size:
                os.truncate(self._descriptor, size)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):  # then the next append does it
                os.truncate(self._descriptor, size)
            raise SinkError(f"{self._where}: cannot be written: {error}") from error

    def _keep(self, windows: list[WindowRecord]) -> None:
        data = b"".join(map(self._encode, windows))
        self._append(data, self._size)
        self._size += len(data)
        for window in windows:
            self._notice((window.pipeline, window.stage), window.end)

    def _last(self, pipeline: str, stage: str) -> int | None:
        return self._latest.get((pipeline, stage))

    def _rows(self, pipeline: str, stage: str | None) -> Iterator[Row]:
        # Opened here and not by the generator: close() may put another file in its place.
        stream = self._path.open("rb")
        size = self._size
        return self._select(stream, size, self._superseded, pipeline, stage)

    def _select(
        self, stream: BinaryIO, size: int, superseded: bool, pipeline: str, stage: str | None
    ) -> Iterator[Row]:
        with stream:
            for found in self._newest(stream, size) if superseded else self._all(stream, size):
                if found.stage[0] == pipeline and stage in (None, found.stage[1]):
                    yield from found.rows

    def _all(self, stream: BinaryIO, size: int) -> Iterator[StoredWindow]:
        stream.seek(len(self._header))
        return self._read(stream, len(self._header), size)

    def _newest(self, stream: BinaryIO, size: int) -> Iterator[StoredWindow]:
        """The windows without those that were superseded, each where its first version stood."""
        places: dict[tuple[tuple[str, str], int], tuple[int, int]] = {}
        for found in self._all(stream, size):
            places[found.stage, found.window_end] = found.begin, found.end
        for begin, end in places.values():
            stream.seek(begin)
            yield from self._read(stream, begin, end)

    def _rewrite(self) -> None:
        """Rewrite the file without what was superseded."""
        temporary = self._path.with_name(f"{self._path.name}.rewriting")
        try:
            self._write_newest(temporary)
            descriptor = os.open(temporary, _FLAGS)
        except OSError as error:
            raise SinkError(f"{self._where}: cannot be rewritten: {error}") from error
        try:
            lock(descriptor, self._where)
            size = os.fstat(descriptor).st_size
            replace(temporary, self._path)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(self._descriptor)
        self._descriptor, self._size, self._superseded = descriptor, size, False

    def _write_newest(self, temporary: Path) -> None:
        with self._path.open("rb") as stream, temporary.open("wb") as rewritten:
            rewritten.write(self._header)
            copy = self._path.open("rb")
            with copy:
                for found in self._newest(stream, self._size):
                    copy.seek(found.begin)
                    rewritten.write(copy.read(found.end - found.begin))
            rewritten.flush()
            os.fsync(rewritten.fileno())
        shutil.copymode(self._path, temporary)

    def _release(self) -> None:
        try:
            if self._superseded:
                self._rewrite()
        finally:
            os.close(self._descriptor)

    def _broken(self, line: int | None, begin: int, reason: str) -> SinkError:
        where = f"line {line}" if line is not None else f"byte {begin}"
        return SinkError(
            f"{self._path}, {where}: {reason}; what follows it would be lost: repair or remove it"
        )
