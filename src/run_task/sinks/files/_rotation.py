"""When a file is full, and what the files are called that were."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from run_task.errors import ConfigError
from run_task.sinks.files._disk import NO_LINK, Identity, identity_of
from run_task.time._grid import Grid
from run_task.time._interval import TaskInterval, TimeUnit
from run_task.time._length import EveryLike, interval_in

_DIGITS: Final = 8


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """When a sink puts its file aside, and begins another one at its path.

    ::

        JsonLinesSink("results.jsonl", rotation=Rotation(max_bytes=100_000_000, keep=30))

    What was put aside is called ``results.00000001.jsonl``, ``results.00000002.jsonl`` and so on,
    oldest first. A window is in one file, and is not divided.

    :param max_bytes: the file is put aside before a window would make it longer than so many
        bytes; one that is longer on its own has a file to itself. None: at no length
    :param every: it is put aside before a window that ends in a later interval than those in it,
        by the times of the windows and not by the clock: with ``"1d"``, each file has the windows
        of a day. A TaskInterval, a timedelta, a text such as ``"1h"`` or a CalendarInterval; None:
        at no time
    :param keep: how many files are kept that were put aside: the oldest beyond that is removed,
        and the last window of each stage that it has is put into the newest, so that a pipeline
        resumes where it would have. None: all of them
    :raises ConfigError: if a value cannot be, or neither ``max_bytes`` nor ``every`` is given
    """

    max_bytes: int | None = None
    every: EveryLike | None = None
    keep: int | None = None
    _grid: Grid | None = field(init=False, repr=False, compare=False, default=None)
    _unit: TimeUnit = field(init=False, repr=False, compare=False, default=TimeUnit.NANOS)

    def __post_init__(self) -> None:
        for name, count in (("max_bytes", self.max_bytes), ("keep", self.keep)):
            given: object = count
            if given is not None and (type(given) is not int or given < 1):
                raise ConfigError(f"Rotation({name}={given!r}): it is a positive int, or None")
        if self.every is not None:
            interval = interval_in(self.every, None, "Rotation(every={})")
            if isinstance(interval, TaskInterval):
                interval = interval.with_unit(TimeUnit.NANOS)
            object.__setattr__(self, "_grid", interval.grid())
            object.__setattr__(self, "_unit", interval.unit)
        elif self.max_bytes is None:
            raise ConfigError(
                "Rotation(): say when by max_bytes=, such as 100_000_000, or every=, such as '1d'"
            )

    def period(self, end: int, unit: TimeUnit | None) -> int | None:
        """By what it is known whether a window ends in a later interval: when that began, in a unit
        that is always the same; None: by no time.

        :param end: the window's end
        :param unit: the unit of that; None: nobody knows it
        """
        if self._grid is None or unit is None:
            return None
        try:
            return self._grid.before(-(-end * unit.nanos // self._unit.nanos))
        except ConfigError:  # beyond the years of the calendar
            return None


class RotatedFile(NamedTuple):
    """A file that was put aside."""

    number: int
    path: Path
    identity: Identity

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.identity[2]

    @property
    def is_there(self) -> bool:
        """Whether it is still at its path, and the same.

        :raises OSError: if that cannot be known
        """
        try:
            return identity_of(os.stat(self.path, follow_symlinks=False)) == self.identity
        except FileNotFoundError:
            return False

    def opened(self) -> BinaryIO:
        """It, opened for reading.

        :raises OSError: if it is not there, or another one is
        """
        stream = os.fdopen(os.open(self.path, os.O_RDONLY | NO_LINK), "rb")
        if identity_of(os.fstat(stream.fileno())) != self.identity:
            stream.close()
            raise OSError("it was changed by something else")
        return stream


def check_rotation(given: object, where: str) -> Rotation | None:
    """What a sink was given as its rotation.

    :param where: the sink, for messages
    :raises ConfigError: if it is none
    """
    if given is None or isinstance(given, Rotation):
        return given
    raise ConfigError(f"{where}: rotation={given!r}: it is a Rotation, or None")


def rotated_path(path: Path, number: int) -> Path:
    """What a file is called that was put aside."""
    return path.with_name(f"{path.stem}.{number:0{_DIGITS}}{path.suffix}")


def rotated_file(path: Path, number: int) -> RotatedFile:
    """The file of a number that was put aside from a path.

    :raises OSError: if it is not there
    """
    rotated = rotated_path(path, number)
    return RotatedFile(number, rotated, identity_of(os.stat(rotated, follow_symlinks=False)))


def rotated_files(path: Path, where: str) -> list[RotatedFile]:
    """The files that were put aside from a path, oldest first, by their names alone.

    :param where: the sink, for messages
    :raises ConfigError: if something else than a file has such a name
    :raises OSError: if the folder cannot be read
    """
    pattern = re.compile(
        rf"{re.escape(path.stem)}\.([0-9]{{{_DIGITS},}}){re.escape(path.suffix)}", re.ASCII
    )
    found: list[RotatedFile] = []
    for name in os.listdir(path.parent):
        match = pattern.fullmatch(name)
        if match is None or rotated_path(path, int(match[1])).name != name:
            continue
        status = os.stat(path.parent / name, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise no_rotated_file(path.parent / name, where)
        found.append(RotatedFile(int(match[1]), path.parent / name, identity_of(status)))
    return sorted(found)


def no_rotated_file(path: Path, where: str) -> ConfigError:
    """Why something cannot stay that has the name of a file that was put aside."""
    return ConfigError(
        f"{where}: {str(path)!r} has the name of a file that it has rotated, and is none of its "
        f"own: rename that, or take another path"
    )
