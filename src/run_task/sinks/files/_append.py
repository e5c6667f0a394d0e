"""A file to which windows are appended, and which is whole again after a crash."""

from __future__ import annotations

import os
import stat
from abc import abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final
from weakref import WeakSet

from run_task.errors import ConfigError, SinkError
from run_task.observe._log import Log
from run_task.observe._recurrence import Recurrence
from run_task.sinks._base import Durable, Recorded, ResultForm
from run_task.sinks._older import older
from run_task.sinks._protocol import Row
from run_task.sinks._record import WindowKey, unit_of
from run_task.sinks.encoding._records import TypesGiven
from run_task.sinks.files._disk import (
    APPEND,
    NO_LINK,
    Draft,
    Reader,
    become,
    is_at,
    is_locked,
    link,
    local_path,
    lock,
    sync_folder,
)
from run_task.sinks.files._inventory import (
    Extent,
    Inventory,
    StoredWindow,
    all_of,
    broken,
    bytes_at,
    newest_of,
    places_in,
)
from run_task.sinks.files._rotation import (
    RotatedFile,
    Rotation,
    check_rotation,
    no_rotated_file,
    rotated_file,
    rotated_files,
    rotated_path,
)
from run_task.sinks.files._versions_file import VersionsFile
from run_task.time._interval import TimeUnit

_log = Log(__name__)

_BEGIN: Final = 64
"""By how many bytes at its beginning a window is told from what others write."""

_FOREIGN: Final = "this is no window, nor a part of one"


class AppendedFile(Durable):
    """What the sinks have in common that append to one file.

    A window that is written again is appended, too, and the older one is superseded: ``rows()``
    leaves it out, and when the sink is closed, or opened again after a crash, the file is
    rewritten without it. That this is needed shows at the ends of windows, which otherwise only
    grow: so nothing has to be remembered of each window.

    Others may rename, remove, replace or empty the file at any time, as programs do that rotate
    logs. So each flush looks first whether the file is still at its path and as long as it was
    left, and else begins anew with what is there.

    Files that were put aside, by rotation, are read before it: all are as one. What is superseded
    in one of them is replaced there by what the file has, so that each window is in one file.

    :param path: the file; it is made if it is not there
    :param form: how results become what it stores
    :param rotation: when it is put aside; None: never
    :param types: of which types what is read may be
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        form: ResultForm,
        rotation: Rotation | None = None,
        types: TypesGiven = (),
    ) -> None:
        kind = type(self).__name__
        self._path = local_path(path, kind)
        where = f"{kind}({os.fspath(path)!r})"
        beside = self._path.with_name(f"{self._path.name}.versions")
        super().__init__(where, form, VersionsFile(beside, self._path, where), types)
        self._rotation = check_rotation(rotation, self._where)
        self._there: Inventory = Inventory()
        self._readers: WeakSet[Reader] = WeakSet()
        self._unrotated = Recurrence()
        self._torn: bool = False
        self._size = 0
        if rotation is not None:
            self._check_folder()
        try:
            self._descriptor = os.open(self._path, APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise ConfigError(f"{self._where}: cannot be opened: {error}") from error
        try:
            self._take()
        except BaseException:
            os.close(self._descriptor)
            raise

    def _check_folder(self) -> None:
        """Refuse a rotation for which there is no place."""
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            raise ConfigError(
                f"{self._where}: its folder is not there or not writable, and a file that is "
                f"rotated stays beside it: leave out rotation=, or take another folder"
            )
        try:
            os.stat(rotated_path(self._path, 1), follow_symlinks=False)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:  # as for a name that is too long, or none
            raise ConfigError(f"{self._where}: cannot be rotated: {error}") from error

    @property
    @abstractmethod
    def _header(self) -> bytes:
        """What is written first."""

    @abstractmethod
    def _may_begin(self, text: bytes) -> bool:
        """Whether a window, or a part of one, can begin so; by that it is told from what others
        write."""

    def _learn_header(self, stream: BinaryIO) -> bool:
        """Learn from a file what files begin with, where that is not known yet.

        :param stream: the file, at its beginning
        :return: whether it is known
        :raises ConfigError: if it is a file of something else
        """
        return True

    def _fix_header(self) -> None:
        """What files begin with is written now, or is there, and does not change any more."""

    @abstractmethod
    def _is_older(self, stream: BinaryIO) -> bool:
        """Whether a file, at its beginning, is one of an older format."""

    @abstractmethod
    def _encode(self, window: Any) -> bytes:
        """A window as it stands in the file."""

    @abstractmethod
    def _read(self, stream: BinaryIO, begin: int, end: int, path: Path) -> Iterator[StoredWindow]:
        """The windows in a part of a file that are whole.

        :param stream: the file, at byte ``begin``
        :param begin: where the part begins
        :param end: where it ends; what comes after that is not looked at
        :param path: the file, for messages
        :raises SinkError: if something that is no window stands there, and is no part of one at
            the end of the stream
        """

    def _take(self) -> None:
        """Make the open file this sink's own."""
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            raise ConfigError(f"{self._where}: cannot be opened: it is no regular file")
        lock(self._descriptor, self._where)
        try:
            self._recover()
        except OSError as error:
            raise ConfigError(f"{self._where}: cannot be opened: {error}") from error

    def _recover(self) -> None:
        """Find what is there, and cut off what was not written to its end."""
        rotated = rotated_files(self._path, self._where)
        number = max((one.number for one in rotated), default=0) + 1
        like = os.fstat(self._descriptor)
        turning = bool(rotated) and rotated[-1].identity[:2] == (like.st_dev, like.st_ino)
        # A crash has then left it with the name, too, by which it is put aside.
        number = rotated.pop().number if turning else max(number, self._there.own)
        there = Inventory(rotated, number)
        for one in rotated:
            self._take_stock(one, there)
        self._recover_own(there)
        self._there = there
        sync_folder(self._path.parent)
        if turning:
            self._begin_anew(number)
        self._tidy()

    def _take_stock(self, file: RotatedFile, there: Inventory) -> None:
        """Find what is in a file that was put aside."""
        with self._opened(file) as stream:
            known = self._learn_header(stream)
            header = self._header
            stream.seek(0)
            begin = stream.read(len(header))
            first = stream.read(_BEGIN)
            if not known or begin != header or not first or not self._may_begin(first):
                raise no_rotated_file(file.path, self._where)
            stream.seek(len(header))
            size, end = file.size, len(header)
            stream.seek(end)
            for found in self._read(stream, end, size, file.path):
                there.notice(found.key, file.number, found.unit)
                end = found.end
            if end < size:
                raise broken(file.path, None, end, "it ends before this window does")

    def _recover_own(self, there: Inventory) -> None:
        """Find what is in the file itself, and cut off what was not written to its end."""
        size = os.fstat(self._descriptor).st_size
        with self._stream() as stream:
            if self._is_older(stream):
                raise older(self._where)
            stream.seek(0)
            known = self._learn_header(stream)
            header = self._header
            stream.seek(0)
            begin = stream.read(len(header))
            if begin != header[: len(begin)]:
                raise ConfigError(
                    f"{self._where}: this is a file of something else, it does not begin with "
                    f"{header.decode().strip()!r}"
                )
            self._size = len(begin)
            if len(begin) < len(header):
                self._fix_header()
                self._append(header[len(begin) :])
                size = self._size
            stream.seek(self._size)
            if known and not self._may_begin(stream.read(_BEGIN)):
                raise broken(self._path, 1 + header.count(b"\n"), self._size, _FOREIGN)
            stream.seek(self._size)
            for found in self._read(stream, self._size, size, self._path) if known else ():
                there.notice(found.key, there.own, found.unit)
                self._notice_period(there, found.key.end, found.unit)
                self._size = found.end
            stream.seek(self._size)
            tail = stream.read(_BEGIN)
        if self._size < size:
            if known and not self._may_begin(tail) and not tail.startswith(b"\0"):
                raise broken(self._path, None, self._size, _FOREIGN)
            os.truncate(self._descriptor, self._size)
            os.fsync(self._descriptor)
        self._torn = False

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

    def _opened(self, file: RotatedFile) -> BinaryIO:
        """A file that was put aside, for reading."""
        try:
            stream = file.opened()
        except OSError as error:
            raise SinkError(f"{file.path} cannot be read: {error}") from error
        if is_locked(stream.fileno()):  # to whom it is the file itself, and not one put aside
            stream.close()
            raise SinkError(f"{file.path}: another sink is writing there: give one another path")
        return stream

    def _attend(self) -> None:
        with self._told_as_changed():
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
                self._recover_again()
            elif size > self._size and not self._torn:
                raise SinkError(
                    f"{self._where}: something else has written {size - self._size} bytes to it "
                    f"after byte {self._size}: take them out, or remove the file"
                )

    def _look(self) -> None:
        super()._look()
        with self._told_as_changed():
            if rotated_files(self._path, self._where) != self._there.rotated:
                self._recover_again()
                _log.warning(
                    "files that %s has rotated were changed by something else: it goes on with "
                    "those that are there now",
                    self._where,
                )

    @contextmanager
    def _told_as_changed(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise SinkError(f"{self._where}: cannot be written: {error}") from error
        except ConfigError as error:
            raise SinkError(f"{error} (it was changed while this sink had it)") from error

    def _recover_again(self) -> None:
        before = self._size
        try:
            self._recover()
        except BaseException:
            self._size = before  # the next attempt finds it changed, too
            raise

    def _reopen(self) -> None:
        """Go on with what is at the path, where nothing is with a new file."""
        before = self._descriptor, self._size, self._there, self._torn
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
            self._descriptor, self._size, self._there, self._torn = before
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

    def _check_unit(self, window: Recorded) -> None:
        """Refuse a window of which nobody knows when a file is full."""
        if self._rotation is not None and self._rotation.every is not None and not window.unit:
            raise SinkError(
                f"stage {window.key.stage!r}: with rotation by every=, a DataSet says by its "
                f"interval which unit its times have: make it by DataSet(..., interval=...)"
            )

    def _keep(self, windows: list[Any]) -> None:
        rotation = self._rotation
        data = bytearray()
        waiting: list[Recorded] = []
        if windows:
            self._fix_header()
            if not self._size and self._header:  # in one step: no crash leaves a part of it
                self._rewrite_own(iter(()))
        for window in windows:
            encoded = self._encode(window)
            if rotation is not None and self._is_full(rotation, len(data), len(encoded), window):
                self._put(waiting, data)
                self._let_go(waiting)
                data, waiting = bytearray(), []
                if not self._has_rotated():
                    rotation = None  # all of this flush goes into the file that there is
            self._notice_period(self._there, window.key.end, unit_of(window.unit))
            data += encoded
            waiting.append(window)
        self._put(waiting, data)
        self._let_go(waiting)
        if rotation is not None and rotation.keep is not None:
            with self._told_as_changed():
                self._prune(rotation.keep)

    def _has_rotated(self) -> bool:
        """Put the file aside, if that can be done: else it grows on, and nothing is lost.

        :raises SinkError: if the file is at its path no more
        """
        try:
            self._rotate()
        except SinkError as error:
            with self._told_as_changed():
                if not is_at(self._descriptor, self._path):
                    raise
            if failed := self._unrotated.happen():
                times = "" if failed == 1 else f" ({failed:,} times in a minute)"
                _log.warning("%s; it is longer than it is to be%s", error, times)
            return False
        return True

    def _put(self, windows: list[Recorded], data: bytearray) -> None:
        if windows:
            self._append(bytes(data))
        for window in windows:
            self._there.notice(window.key, self._there.own, unit_of(window.unit))

    def _is_full(self, rotation: Rotation, held: int, more: int, window: Recorded) -> bool:
        """Whether a window belongs into the next file.

        :param held: how many bytes are still to be written before it
        :param more: how many bytes it has
        """
        size = self._size + held
        if size <= len(self._header):
            return False
        if rotation.max_bytes is not None and size + more > rotation.max_bytes:
            return True
        its, last = rotation.period(window.key.end, unit_of(window.unit)), self._there.period
        return its is not None and last is not None and its > last

    def _notice_period(self, there: Inventory, end: int, unit: TimeUnit | None) -> None:
        if self._rotation is not None:
            period = self._rotation.period(end, unit)
            if period is not None and (there.period is None or period > there.period):
                there.period = period

    def _rotate(self) -> None:
        """Put the file aside, and begin a new one at its path.

        Each step leaves what can be gone on with: the file has both names before the new one takes
        its place.
        """
        number = self._there.own
        name = rotated_path(self._path, number)
        try:
            if not is_at(self._descriptor, self._path):
                raise SinkError(f"{self._where}: was replaced by something else")
            try:
                link(self._descriptor, name, self._path)
            except OSError:  # a file system without links
                if os.path.lexists(name):
                    raise FileExistsError(f"something is at {str(name)!r}") from None
                os.rename(self._path, name)
            try:
                sync_folder(self._path.parent)
                self._begin_anew(number)
            except BaseException:
                with suppress(OSError):
                    if is_at(self._descriptor, self._path) and is_at(self._descriptor, name):
                        name.unlink()
                raise
        except OSError as error:
            raise SinkError(f"{self._where}: cannot be rotated: {error}") from error

    def _begin_anew(self, number: int) -> None:
        """Put a new file in the place of the one that has the name by which it is put aside."""
        draft = Draft(self._path.parent, os.fstat(self._descriptor))
        try:
            header = self._header
            if os.write(draft.descriptor, header) < len(header):
                raise OSError("the header was not written")
            os.fsync(draft.descriptor)
            lock(draft.descriptor, self._where)
            if is_at(self._descriptor, self._path):
                draft.replace(self._path)
            else:
                draft.put(self._path)
        except BaseException:
            draft.discard()
            raise
        os.close(self._descriptor)
        self._descriptor, self._size = draft.descriptor, len(self._header)
        self._there.rotated.append(rotated_file(self._path, number))
        self._there.own = number + 1
        self._there.period = None

    def _prune(self, keep: int) -> None:
        """Remove the oldest files, unless somebody still reads."""
        rotated = self._there.rotated
        while len(rotated) > keep and not self._readers:
            oldest = rotated[0]
            try:
                if oldest.is_there:
                    with self._opened(oldest):
                        self._carry(oldest)
                        oldest.path.unlink()
                elif os.path.lexists(oldest.path):  # it is to be known for the sink's own again
                    self._recover_again()
                    return
            except (OSError, SinkError) as error:
                _log.warning(
                    "%s: %s cannot be removed, though there are more than keep=%d: %s",
                    self._where,
                    oldest.path,
                    keep,
                    error,
                )
                return
            del rotated[0]

    def _carry(self, oldest: RotatedFile) -> None:
        """Put the last window of each stage that is in a file, and in none after it, into the
        newest."""
        ends = self._there.last_in(oldest.number)
        if not ends:
            return
        extent = self._extent(oldest)
        places = {
            key: place
            for key, place in places_in([extent], self._read).items()
            if ends.get(key.stage_key) == key.end
        }
        self._append(b"".join(bytes_at(places.values(), [extent])))
        for key in places:
            self._there.found_at(key, self._there.own)

    def _last(self, pipeline: str, stage: str) -> int | None:
        return self._there.last(pipeline, stage)

    def _unit(self, pipeline: str, stage: str) -> TimeUnit | None:
        return self._there.unit(pipeline, stage)

    def _rows(self, pipeline: str, stage: str | None) -> Iterator[Row]:
        reader = Reader()
        self._readers.add(reader)  # until it is gone with the generator
        # Opened here and not by the generator: close() may put another file in its place.
        stream = self._stream()
        extents = self._extents(stream)
        return self._select(extents, stream, self._there.superseded, pipeline, stage, reader)

    def _select(
        self,
        extents: list[Extent],
        stream: BinaryIO,
        superseded: bool,
        pipeline: str,
        stage: str | None,
        _reader: Reader,
    ) -> Iterator[Row]:
        with stream:
            for found in (newest_of if superseded else all_of)(extents, self._read):
                if found.key.pipeline == pipeline and stage in (None, found.key.stage):
                    yield from found.rows

    def _extents(self, stream: BinaryIO) -> list[Extent]:
        """All files, as long as they are now, oldest first.

        :param stream: the file itself, opened for reading
        """
        own = Extent(self._path, len(self._header), self._size, lambda: nullcontext(stream))
        return [*map(self._extent, self._there.rotated), own]

    def _extent(self, file: RotatedFile) -> Extent:
        return Extent(file.path, len(self._header), file.size, partial(self._opened, file))

    def _tidy(self) -> None:
        """Rewrite the files without what was superseded, unless somebody still reads."""
        if not self._there.superseded or (self._there.rotated and self._readers):
            return
        try:
            with self._stream() as stream:
                self._rewrite(self._extents(stream))
        except (OSError, SinkError) as error:  # nothing is lost by that
            _log.warning(
                "%s cannot be rewritten without what was superseded, which is left out where it is "
                "read, and is tried again when it is opened next: %s",
                self._where,
                error,
            )

    def _rewrite(self, extents: list[Extent]) -> None:
        """Put each window where it stood first, as it was written last; one that is there no more
        nowhere.

        The oldest file comes first: what it is given stands in a later one, too, until that is
        rewritten. So does what tells that a window is gone, until no file has it.
        """
        there = self._there
        files = [*there.rotated, None]
        keys: list[list[WindowKey]] = [[] for _ in extents]
        places = places_in(extents, self._read)
        for key, place in places.items():
            keys[place.first].append(key)
        for number, (file, extent) in enumerate(zip(files, extents)):
            wanted = [places[key] for key in keys[number] if not places[key].is_gone]
            for key in keys[number]:  # it is there, whatever becomes of the files after it
                there.found_at(key, there.own if file is None else file.number)
            length = sum(place.end - place.begin for place in wanted)
            if length == extent.end - extent.begin and all(at == number for _, at, *_ in wanted):
                continue
            if file is None:
                self._rewrite_own(bytes_at(wanted, extents))
            elif wanted:
                self._rewrite_rotated(file, bytes_at(wanted, extents))
            elif file.is_there:
                file.path.unlink()
                there.rotated.remove(file)
        there.superseded = False

    def _rewrite_own(self, windows: Iterator[bytes]) -> None:
        draft = Draft(self._path.parent, os.fstat(self._descriptor))
        try:
            size = self._fill(draft, windows)
            lock(draft.descriptor, self._where)
            if not is_at(self._descriptor, self._path):
                raise SinkError(f"{self._where}: was replaced by something else")
            draft.replace(self._path)
        except BaseException:
            draft.discard()
            raise
        os.close(self._descriptor)
        self._descriptor, self._size = draft.descriptor, size

    def _rewrite_rotated(self, file: RotatedFile, windows: Iterator[bytes]) -> None:
        draft = Draft(file.path.parent, os.stat(file.path, follow_symlinks=False))
        try:
            self._fill(draft, windows)
            if not file.is_there:
                raise SinkError(f"{file.path} was replaced by something else")
            draft.replace(file.path)
        finally:
            draft.discard()
        rotated = self._there.rotated
        rotated[rotated.index(file)] = rotated_file(self._path, file.number)

    def _fill(self, draft: Draft, windows: Iterator[bytes]) -> int:
        """Write a whole file; return how many bytes that are."""
        with os.fdopen(draft.descriptor, "ab", closefd=False) as file:
            file.write(self._header)
            file.writelines(windows)
            file.flush()
            os.fsync(draft.descriptor)
            return os.fstat(draft.descriptor).st_size

    def _release(self) -> None:
        try:
            # What somebody has renamed stays as it is: its readers take the last of each window.
            if is_at(self._descriptor, self._path):
                self._tidy()
        except OSError as error:
            raise SinkError(f"{self._where}: cannot be rewritten: {error}") from error
        finally:
            os.close(self._descriptor)
