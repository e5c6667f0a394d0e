"""Which files a source reads, and in which order."""

from __future__ import annotations

import enum
import glob
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from run_task.errors import ConfigError
from run_task.observe._url import url_shown
from run_task.sources.files._live import Followed, Following, Pipe
from run_task.sources.files._place import FilePlace, LocalFile, by_name, is_hidden
from run_task.sources.files._remote import local_path, remote_files, remote_url

Paths: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A file, a folder, a pattern, each of them here or by a URL, or a list of these."""


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


def listed(
    paths: Paths,
    where: str,
    following: Following | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[FilePlace]:
    """The files that are there now.

    :param paths: what the source was given
    :param where: the source, for messages
    :param following: how they are followed, which need not be there yet; None: it is not
    :param options: what the file systems of URLs take
    :raises ConfigError: if there is none, one is named twice, a folder is to be followed, or they
        cannot be looked for
    """
    one: Any = paths
    several = isinstance(paths, Sequence) and not isinstance(paths, str | bytes)
    given: list[Any] = [local_path(path) for path in (one if several else [one])]
    try:
        if following is not None:
            return _followed(given, where, following)
        return _listed(given, where, options)
    except (OSError, UnicodeError) as error:  # no access, or a name that no file can have
        raise ConfigError(f"{where}: cannot be looked for: {error}") from error


def _listed(given: list[Any], where: str, options: Mapping[str, Any] | None) -> list[FilePlace]:
    found: dict[str, FilePlace] = {}
    for path in given:
        for identity, place in _places(path, where, options or {}):
            if identity in found:
                raise ConfigError(
                    f"{where}: {place.name!r} is named twice: its rows would come twice"
                )
            found[identity] = place
    if not found:
        raise ConfigError(f"{where}: a list of files has at least one")
    return list(found.values())


def _followed(given: list[Any], where: str, following: Following) -> list[FilePlace]:
    """The files that are followed."""
    if any(remote_url(path) is not None for path in given):
        raise ConfigError(
            f"{where}: follow= is for a file of this machine, and this one is remote: follow it "
            f"where it is written, or read it again and again by polling()"
        )
    found: dict[str, FilePlace] = {}
    for one in given:
        path = _path_of(one, where)
        if _is_many(path):
            raise ConfigError(
                f"{where}: follow= is for files that are named, since nobody knows which come to "
                f"be in a folder: give a list of them"
            )
        if _is_pipe(path):
            raise ConfigError(
                f"{where}: it is a pipe, which is read as it comes: leave out follow="
            )
        if (
            found.setdefault(os.path.realpath(path), place := Followed(path, following))
            is not place
        ):
            raise ConfigError(f"{where}: {place.name!r} is named twice: its rows would come twice")
    if not found:
        raise ConfigError(f"{where}: a list of files has at least one")
    return list(found.values())


def _places(
    given: object, where: str, options: Mapping[str, Any]
) -> Iterator[tuple[str, FilePlace]]:
    """The files that a path, a URL, a folder or a pattern names, each with what tells whether it
    is the same as another."""
    url = remote_url(given)
    if url is not None:
        for file in remote_files(url, where, options):
            yield file.identity, file
        return
    for path in _files_of(given, where):
        yield os.path.realpath(path), _place_of(path, where)


def _place_of(file: Path, where: str) -> FilePlace:
    return Pipe(file) if _is_pipe(file) else LocalFile(file, where)


def _is_pipe(file: Path) -> bool:
    """Whether it is a pipe or a terminal."""
    try:
        mode = file.stat().st_mode
    except OSError:  # it is told when it is opened
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _path_of(given: object, where: str) -> Path:
    if not isinstance(given, str | os.PathLike):
        raise ConfigError(f"{where}: {given!r} is no path")
    if not os.fspath(given):
        raise ConfigError(f"{where}: an empty text is no path")
    path = Path(cast("str", given))
    if "\0" in str(path):
        raise ConfigError(f"{where}: no path has a zero character in it")
    return path


def _is_many(path: Path) -> bool:
    """Whether it is a folder or a pattern, in which there may be no file yet."""
    return path.is_dir() or (glob.has_magic(str(path)) and not path.exists())


def _files_of(given: object, where: str) -> Iterator[Path]:
    path = _path_of(given, where)
    if path.is_dir():
        found = [file for file in path.iterdir() if not is_hidden(file.name)]
        what = "there is no file in this folder, or none whose name does not begin with . or _"
        if any(file.is_dir() for file in found):
            what += f": a pattern, as {str(path / '**' / '*')!r}, reaches into those in it"
    elif _is_many(path):
        found = [Path(file) for file in glob.glob(str(path), recursive=True)]
        what = f"no file matches {url_shown(str(path))!r}"
    else:
        yield path
        return
    files = sorted((file for file in found if file.is_file()), key=lambda file: by_name(file.parts))
    if not files:
        raise ConfigError(f"{where}: {what}")
    yield from files
