"""A folder in which results wait on disk for a sink that is away."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from run_task._window import Window
from run_task.errors import ConfigError, SourceError, TaskError
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.sinks._protocol import Result
from run_task.sinks.encoding._json import Encoder, dumps, value_of
from run_task.sinks.encoding._records import TypesGiven, named_types
from run_task.sinks.encoding._tag import Types, UndecodableError, UnencodableError
from run_task.sinks.files._disk import local_path, sync_folder
from run_task.sources.journal._frames import CheckedFrame, Torn, framed, frames
from run_task.tasks._alert import Alert
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import KeyedDataSet
from run_task.time._interval import TaskInterval, TimeUnit

try:
    import fcntl
except ImportError:  # on Windows: there, a second pipeline is not noticed
    fcntl = None  # type: ignore[assignment]  # typeshed has it as a module

_log = Log(__name__)

_NAME: Final = re.compile(r"results-(\d{12})\.spool")
_LOCK: Final = "spool.lock"
_SEGMENTS: Final = 16
"""Into how many files the most that may wait is divided: what was delivered is removed by files."""


@dataclass(frozen=True)
class Spool:
    """Where results wait while a sink is away: in a folder, so that they survive the program.

    ::

        stage.sink(SqlSink(url), retry=Retry(), spool=Spool("spool/", max_bytes=10**9))

    :param path: the folder; it is made if it is not there, and is for one sink
    :param max_bytes: how much may wait
    :param types: dataclasses, NamedTuples and Enums of results, as which they come back; others
        come back as a :class:`Record` and an :class:`EnumMember`, which sinks store as before
    :raises ConfigError: if it cannot be
    """

    path: str | os.PathLike[str]
    max_bytes: int = 256 * 1024 * 1024
    types: TypesGiven = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        local_path(self.path, "Spool")
        given: object = self.max_bytes
        if type(given) is not int or given < 1:
            raise ConfigError(f"Spool(max_bytes={given!r}): it is a positive int")
        named_types(self.types)


class SpoolFull(Exception):
    """There is no room for a result, or it cannot be kept."""


class SpoolFolder:
    """The results that wait, in order. One thread at a time.

    Results are appended to the last of its files. A file is removed once all that it has was
    delivered. So a kill costs nothing that was synced, and what was delivered and not yet removed
    is delivered again, which does no harm.

    :param spool: what was said of it
    :param owner: for whom it is, for messages
    :raises ConfigError: if it cannot be used
    """

    def __init__(self, spool: Spool, owner: str) -> None:
        self._path = local_path(spool.path, "Spool")
        self._where = f"Spool({str(spool.path)!r})"
        self._max_bytes = spool.max_bytes
        self._types: Types = {**named_types([Alert]), **named_types(spool.types)}
        self._encoder = Encoder()
        self._lock: int | None = None
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            self._take(owner)
            found = [match for name in os.listdir(self._path) if (match := _NAME.fullmatch(name))]
        except OSError as error:
            self.close()
            raise ConfigError(f"{self._where}: it cannot be opened: {error}") from error
        self._segments: list[int] = sorted(int(match[1]) for match in found)
        self._sizes = {number: self._file(number).stat().st_size for number in self._segments}
        self._next = self._segments[-1] + 1 if self._segments else 1
        self._writing: BinaryIO | None = None  # the last of the segments, if it grows
        self._reading: BinaryIO | None = None
        self._frames: Iterator[CheckedFrame] = iter(())
        self._read_segment: int | None = None
        self._offset = 0
        self._unsynced = False
        self.unread: int = sum(self._count(number) for number in self._segments)
        """How many results wait that were not handed out."""
        if self.unread:
            _log.warning(
                "%s: %s results of an earlier run wait, and are delivered first",
                *(self._where, f"{self.unread:,}"),
            )

    def _take(self, owner: str) -> None:
        self._lock = os.open(self._path / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        if fcntl is not None:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(
                    f"{self._where}: another sink has it: give {owner} a folder of its own"
                ) from None

    def _file(self, number: int) -> Path:
        return self._path / f"results-{number:012}.spool"

    def _count(self, number: int) -> int:
        with open(self._file(number), "rb") as file:
            return sum(1 for _ in self._whole(file, number, 0))

    def _whole(self, file: BinaryIO, number: int, offset: int) -> Iterator[CheckedFrame]:
        """The results of a file up to where it is torn or damaged."""
        try:
            yield from frames(file, self._file(number), offset)
        except Torn:
            pass  # the program was killed while it wrote
        except SourceError as error:
            _log.error("%s: results are gone: %s", self._where, error)

    def encoded(self, result: Result) -> bytes:
        """A result as it is kept.

        :raises SpoolFull: if it cannot be
        """
        try:
            return framed(_as_json(result, self._encoder).encode())
        except UnencodableError as error:
            raise SpoolFull(f"it cannot be kept on disk: {error}") from None

    def append(self, several: Sequence[bytes]) -> None:
        """Let results wait: all of them, or none.

        :param several: as :meth:`encoded` has them
        :raises SpoolFull: if there is no room for them
        """
        size = sum(map(len, several))
        if sum(self._sizes.values()) + size > self._max_bytes:
            raise SpoolFull(f"{self._where} is full, with max_bytes={self._max_bytes:,}")
        try:
            number = self._open()
            assert self._writing is not None
            at = self._sizes[number]
            try:
                for content in several:
                    self._writing.write(content)
            except OSError:
                with suppress(OSError):  # else it is as after a kill
                    self._writing.truncate(at)
                raise
        except OSError as error:
            raise SpoolFull(f"{self._where}: {error}") from None
        self._sizes[number] = at + size
        self.unread += len(several)
        self._unsynced = True

    def _open(self) -> int:
        """The segment that grows."""
        if self._writing is not None:
            number = self._segments[-1]
            if self._sizes[number] < self._max_bytes // _SEGMENTS:
                return number
            self.sync()
            self._writing.close()
            self._writing = None
        number, self._next = self._next, self._next + 1
        self._writing = open(self._file(number), "xb", buffering=0)  # noqa: SIM115  it stays open
        self._segments.append(number)
        self._sizes[number] = 0
        sync_folder(self._path)
        return number

    def sync(self) -> None:
        """Have the disk keep all that waits.

        :raises OSError: if it does not
        """
        if self._writing is not None and self._unsynced:
            os.fsync(self._writing.fileno())
            self._unsynced = False

    def skip(self, count: int) -> None:
        """The next results have been handed out already."""
        for _ in range(count):
            self._next_frame()

    def take(self) -> Result | None:
        """The next result that was not handed out; None: there is none."""
        while (content := self._next_frame()) is not None:
            try:
                return _from_json(content, self._types)
            except (ValueError, KeyError, TypeError, UndecodableError) as error:
                _log.error("%s: a result cannot be read: %s", self._where, error)
        return None

    def _next_frame(self) -> bytes | None:
        looked: tuple[int, int] | None = None  # where there was nothing
        while self.unread:
            frame = next(self._frames, None)
            if frame is not None:
                self._offset = frame.end
                self.unread -= 1
                return frame.content
            at = self._read_segment
            if at is None:
                at, self._offset = self._segments[0], 0
            elif self._offset >= self._sizes[at] or at != self._segments[-1]:
                later = [number for number in self._segments if number > at]
                if not later:
                    self.unread = 0
                    break
                at, self._offset = later[0], 0
            if looked == (at, self._offset):  # somebody has changed the file
                self.unread = 0
                break
            looked = at, self._offset
            if self._reading is not None:
                self._reading.close()
            self._reading = open(self._file(at), "rb")  # noqa: SIM115  it stays open
            self._read_segment = at
            self._frames = self._whole(self._reading, at, self._offset)
        return None

    def settle(self) -> None:
        """All that was handed out has been delivered: it waits no more."""
        if self.unread == 0:
            self._drop(self._segments)
        elif self._read_segment is not None:
            self._drop([one for one in self._segments if one < (self._read_segment or 0)])

    def _drop(self, numbers: Sequence[int]) -> None:
        for number in tuple(numbers):
            if number == self._read_segment and self._reading is not None:
                self._reading.close()
                self._reading = self._read_segment = None
                self._frames = iter(())
            if number == self._segments[-1] and self._writing is not None:
                self._writing.close()
                self._writing = None
            with suppress(OSError):  # then it is delivered again another time
                os.unlink(self._file(number))
            self._segments = [one for one in self._segments if one != number]
            del self._sizes[number]

    def close(self) -> None:
        """Let go of it. What waits stays."""
        for file in (getattr(self, "_writing", None), getattr(self, "_reading", None)):
            if file is not None:
                file.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def as_spool(where: str, given: Any) -> Spool | None:
    """A spool, as a user gave it.

    :param where: who declares it, for messages
    :raises ConfigError: if it is none
    """
    if given is None or isinstance(given, Spool):
        return given
    if isinstance(given, str) or hasattr(given, "__fspath__"):
        return Spool(given)
    raise ConfigError(f"{where}: spool={brief(given)}: it is a folder, or a Spool(...)")


def _as_json(result: Result, encoder: Encoder) -> str:
    dataset = result.dataset
    known: dict[str, Any] = {
        "of": [result.pipeline, result.stage, *result.window, result.revision, result.bucket],
        "unit": None if result.unit is None else result.unit.value,
        "late": dataset.lateness,
        "behind": list(dataset.behind),
        "errors": [
            [
                encoder.tree(name),
                error.task,
                encoder.tree(error.key),
                error.told,
                error.shown_window,
            ]
            for name, error in dataset.errors.items()
        ],
    }
    if isinstance(dataset, KeyedDataSet):
        known["by"] = dataset.by
        known["keyed"] = [
            [name, [[encoder.tree(key), encoder.tree(value)] for key, value in of_task.items()]]
            for name, of_task in dataset.items()
        ]
    else:
        known["values"] = [[name, encoder.tree(value)] for name, value in dataset.items()]
    return dumps(known)


def _from_json(content: bytes, types: Types) -> Result:
    """A result that was kept.

    :raises ValueError: if it is none
    """
    known = json.loads(content)
    pipeline, stage, start, end, revision, bucket = known["of"]
    window = Window(start, end)
    interval = None if known["unit"] is None else TaskInterval(1, TimeUnit(known["unit"]))
    errors: dict[Any, TaskError] = {}
    for name, task, key, told, _ in known["errors"]:
        errors[value_of(name, types)] = TaskError(task, window, told, value_of(key, types))
    about: dict[str, Any] = {
        "lateness": known["late"],
        "behind": known["behind"],
        "interval": interval,
    }
    dataset: DataSet[Any] | KeyedDataSet[Any, Any]
    if "keyed" in known:
        keyed = {
            name: {value_of(key, types): value_of(value, types) for key, value in of_task}
            for name, of_task in known["keyed"]
        }
        dataset = KeyedDataSet(window, known["by"], keyed, errors, **about)
    else:
        values = {name: value_of(value, types) for name, value in known["values"]}
        dataset = DataSet(window, values, errors, **about)
    found = dataset.errors
    for (*_, shown), error in zip(known["errors"], found.values(), strict=True):
        error.shown_window = shown
    return Result.of(pipeline, stage, dataset, revision, bucket)
