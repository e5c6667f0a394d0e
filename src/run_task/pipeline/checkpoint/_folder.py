"""Checkpoints in a folder of this machine."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from run_task.errors import ConfigError
from run_task.sinks.files._disk import NO_LINK, Draft, local_path, lock

_MARK: Final = "run-task-checkpoints.json"
_FORMAT: Final = 1
_ID: Final = re.compile(r"[0-9a-f]{16}")
_NAME: Final = re.compile(r"[A-Za-z0-9-]+")


class FolderStore:
    """Checkpoints in a folder: a file a checkpoint, and one for each part.

    The name of each of its files has a number in it that was drawn when the folder was first used,
    and stands in ``run-task-checkpoints.json`` there: so other files stay as they are, whatever
    they are called.

    :param folder: the folder, which is made if it is not there
    :raises ConfigError: if that is no path
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = local_path(folder, "FolderStore")
        self._lock: int | None = None
        self._id = ""

    def begin(self, pipeline: str, /) -> None:
        """Get ready to load and save, for no other process from now on.

        :param pipeline: the pipeline's name
        :raises ConfigError: if another process has it, it is a file, or holds what is no checkpoint
            of this pipeline
        """
        self.close()
        folder, where = self._folder, repr(self)
        mark = folder / _MARK
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(mark):
                self._draw(mark, pipeline)
            descriptor = os.open(mark, os.O_RDWR | NO_LINK)
        except OSError as error:
            raise ConfigError(f"{where}: it cannot be used: {error}") from error
        try:
            self._take(descriptor, pipeline)
        except BaseException:
            os.close(descriptor)
            raise
        self._lock = descriptor

    def _draw(self, mark: Path, pipeline: str) -> None:
        told = {"format": _FORMAT, "id": secrets.token_hex(8), "pipeline": pipeline}
        draft = Draft(self._folder)
        try:
            _write(draft, json.dumps(told).encode())
            with suppress(FileExistsError):  # another process was faster
                draft.put(mark)
        finally:
            draft.discard()

    def _take(self, descriptor: int, pipeline: str) -> None:
        where = repr(self)
        try:
            lock(descriptor, where)
        except ConfigError as error:
            raise ConfigError(
                f"{where}: another pipeline that runs has these checkpoints: end it first, or take "
                f"another folder"
            ) from error
        with open(descriptor, "rb", closefd=False) as file:
            file.seek(0)
            try:
                told: Any = json.loads(file.read())
                found, known, name = told["id"], told["format"], told["pipeline"]
            except (ValueError, TypeError, KeyError) as error:
                raise ConfigError(
                    f"{where}: {_MARK} there is no mark of checkpoints: take another folder"
                ) from error
        if known != _FORMAT or type(found) is not str or not _ID.fullmatch(found):
            raise ConfigError(
                f"{where}: its checkpoints are of format {known!r}, and this version reads and "
                f"writes {_FORMAT}: take another folder"
            )
        if name != pipeline:
            raise ConfigError(
                f"{where}: it has the checkpoints of pipeline {name!r}, and this one is "
                f"{pipeline!r}: take another folder"
            )
        self._id = found

    def numbers(self) -> Sequence[int]:
        """The numbers of the checkpoints that are there, in ascending order."""
        return sorted(number for number, _ in self._checkpoints())

    def load(self, number: int, /) -> bytes:
        """The text of a checkpoint.

        :raises OSError: if it cannot be read
        """
        return _read(self._checkpoint(number))

    def part(self, name: str, /) -> bytes:
        """A part.

        :raises OSError: if it cannot be read
        """
        return _read(self._part(name))

    def save(self, number: int, text: bytes, parts: Mapping[str, bytes], /) -> None:
        """Make a checkpoint last, also if power fails.

        :raises OSError: if it cannot be written
        """
        for name, data in parts.items():
            self._put(self._part(name), data)
        self._put(self._checkpoint(number), text)

    def keep(self, numbers: Collection[int], parts: Collection[str], /) -> None:
        """Remove all files of its own but these.

        :raises OSError: if one cannot be removed
        """
        wanted = {self._checkpoint(number) for number in numbers}
        wanted |= {self._part(name) for name in parts}
        # Checkpoints first: one that is there has its parts.
        for path in [path for _, path in self._checkpoints()] + [*self._parts()]:
            if path not in wanted:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let other processes have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _checkpoint(self, number: int) -> Path:
        return self._folder / f"checkpoint-{self._id}-{number:012d}.json"

    def _part(self, name: str) -> Path:
        assert _NAME.fullmatch(name)
        return self._folder / f"part-{self._id}-{name}.bin"

    def _checkpoints(self) -> Iterator[tuple[int, Path]]:
        name = re.compile(rf"checkpoint-{self._id}-(\d{{12}})\.json")
        for path in self._folder.iterdir():
            if (found := name.fullmatch(path.name)) is not None:
                yield int(found[1]), path

    def _parts(self) -> Iterator[Path]:
        name = re.compile(rf"part-{self._id}-[A-Za-z0-9-]+\.bin")
        return (path for path in [*self._folder.iterdir()] if name.fullmatch(path.name))

    def _put(self, path: Path, data: bytes) -> None:
        draft = Draft(self._folder)
        try:
            _write(draft, data)
            draft.replace(path)
        finally:
            draft.discard()

    def __repr__(self) -> str:
        return f"FolderStore({str(self._folder)!r})"


def _write(draft: Draft, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(draft.descriptor, rest) :]
    os.fsync(draft.descriptor)


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | NO_LINK)
    with open(descriptor, "rb") as file:
        return file.read()
