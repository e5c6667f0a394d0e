"""Which files a source reads, and in which order."""

from __future__ import annotations

import enum
import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from run_task.errors import ConfigError
from run_task.sources.files._live import Followed, Following, Pipe
from run_task.sources.files._place import FilePlace, LocalFile

Paths: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A file, a folder, a pattern, or a list of these."""

_DIGITS: Final = re.compile("([0-9]+)")
_HIDDEN: Final = (".", "_")


class FileOrder(enum.Enum):
    """In which order a source reads several files."""

    LISTED = "listed"
    """As a list has them; those of a folder or a pattern by name, in which a number counts as one:
    ``day-9.csv`` comes before ``day-10.csv``."""

    FIRST_TIME = "first time"
    """By the timestamp of the first row of each."""


def check_order(where: str, order: object) -> None:
    """Refuse what a caller without a type checker may have got wrong.

    :raises ConfigError: if it is no order
    """
    if not isinstance(order, FileOrder):
        choices = ", ".join(map(str, FileOrder))
        raise ConfigError(f"{where}: order={order!r}: it is one of {choices}")


def listed(paths: Paths, where: str, following: Following | None = None) -> list[FilePlace]:
    """The files that are there now.

    :param paths: what the source was given
    :param where: the source, for messages
    :param following: how a file is followed, which need not be there yet; None: it is not
    :raises ConfigError: if there is none, one is named twice, or several are to be followed
    """
    given: Any = paths
    several = isinstance(paths, Sequence) and not isinstance(paths, str | bytes)
    found = [file for path in (given if several else [given]) for file in _files_of(path, where)]
    if not found:
        raise ConfigError(f"{where}: a list of files has at least one")
    seen: set[str] = set()
    for file in found:
        real = os.path.realpath(file)
        if real in seen:
            raise ConfigError(f"{where}: {str(file)!r} is named twice: its rows would come twice")
        seen.add(real)
    if following is None:
        return [_place_of(file, where) for file in found]
    if several or found != [Path(given)]:
        raise ConfigError(f"{where}: follow= is for one file: make a source for each")
    if _is_pipe(found[0]):
        raise ConfigError(f"{where}: it is a pipe, which is read as it comes: leave out follow=")
    return [Followed(found[0], following)]


def _place_of(file: Path, where: str) -> FilePlace:
    return Pipe(file) if _is_pipe(file) else LocalFile(file, where)


def _is_pipe(file: Path) -> bool:
    """Whether it is a pipe or a terminal."""
    try:
        mode = file.stat().st_mode
    except OSError:  # it is told when it is opened
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _files_of(given: object, where: str) -> Iterator[Path]:
    if not isinstance(given, str | os.PathLike):
        raise ConfigError(f"{where}: {given!r} is no path")
    path = Path(cast("str", given))
    if path.is_dir():
        found = [file for file in path.iterdir() if not file.name.startswith(_HIDDEN)]
        what = "there is no file in this folder, or none whose name does not begin with . or _"
    elif glob.has_magic(str(path)) and not path.exists():
        found = [Path(file) for file in glob.glob(str(path), recursive=True)]
        what = f"no file matches {str(path)!r}"
    else:
        yield path
        return
    files = sorted((file for file in found if file.is_file()), key=_natural)
    if not files:
        raise ConfigError(f"{where}: {what}")
    yield from files


def _natural(path: Path) -> list[list[str | int]]:
    """By this, names are in order, and numbers in them, too."""
    return [
        [int(part) if at % 2 else part for at, part in enumerate(_DIGITS.split(name))]
        for name in path.parts
    ]
