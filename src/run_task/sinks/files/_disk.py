"""What makes files last, and keeps those of others as they are."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from run_task.errors import ConfigError
from run_task.observe._url import looks_like_url, url_shown

try:
    import fcntl
except ImportError:  # on Windows: there, a second writer is not noticed
    fcntl = None  # type: ignore[assignment]  # typeshed has it as a module

NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
"""Flags for ``os.open``: a link in the place of a file is refused, and bytes stay as they are."""

APPEND: Final = os.O_RDWR | os.O_APPEND | NO_LINK
"""Flags for a file that grows."""

_DESCRIPTORS: Final = Path("/proc/self/fd")
_NAMELESS: Final = getattr(os, "O_TMPFILE", 0) if _DESCRIPTORS.is_dir() else 0


def local_path(given: object, kind: str) -> Path:
    """The path that a sink was given, without links: one stays one when its file is replaced.

    :param kind: the kind of the sink, for messages
    :raises ConfigError: if it is none, or a URL
    """
    as_text: Callable[[object], object] = getattr(type(given), "__fspath__", lambda same: same)
    text = as_text(given)
    if not isinstance(text, str):
        raise ConfigError(f"{kind}: a {type(given).__name__} is no path: give a text or a Path")
    if "\0" in text:
        raise ConfigError(f"{kind}({text!r}): no path has a zero character in it")
    if looks_like_url(text) and not os.path.lexists(text):
        raise ConfigError(
            f"{kind}({url_shown(text)!r}): this looks like a URL, and it writes to this machine: "
            f"give a path, which begins with ./ where it looks like that"
        )
    if not text:
        raise ConfigError(f"{kind}({text!r}): an empty text is no path")
    try:
        return Path(text).resolve()
    except (OSError, UnicodeError, RuntimeError) as error:  # as for links in a circle
        raise ConfigError(f"{kind}({text!r}): cannot be looked for: {error}") from error


class Draft:
    """A file that is being written, which has its place in a folder once it is complete.

    Where the system can do that, it has no name until then, so that a crash leaves nothing of it.
    Elsewhere, it is made exclusively, under a name that nobody foresees.

    :param folder: where its place is to be
    :param like: the file whose place it is to take: it has its owner and mode from the first byte
    :raises OSError: if it cannot be made
    """

    def __init__(self, folder: Path, like: os.stat_result | None = None) -> None:
        self._folder = folder
        self._name: Path | None = None
        mode = 0o666 if like is None else stat.S_IMODE(like.st_mode) & 0o700
        try:
            if not _NAMELESS:
                raise OSError
            self.descriptor = os.open(folder, os.O_RDWR | os.O_APPEND | _NAMELESS, mode)
        except OSError:  # not every file system has it
            self._name = self._unguessable()
            self.descriptor = os.open(self._name, APPEND | os.O_CREAT | os.O_EXCL, mode)
        if like is not None:
            try:
                become(self.descriptor, like)
            except OSError:
                self.discard()
                raise

    def _unguessable(self) -> Path:
        return self._folder / f".run-task-{secrets.token_hex(16)}.tmp"

    def put(self, path: Path) -> None:
        """Give it its name, where nothing is.

        :raises FileExistsError: if something is there
        :raises OSError: if it cannot be done
        """
        if self._name is None:
            link(self.descriptor, path)
        else:
            try:
                os.link(self._name, path)
                os.unlink(self._name)
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                if os.path.lexists(path):
                    raise FileExistsError(f"{path} is there") from None
                os.rename(self._name, path)
            self._name = None
        sync_folder(self._folder)

    def replace(self, path: Path) -> None:
        """Put it in the place of another file, also if power fails.

        :raises OSError: if it cannot be done
        """
        if self._name is None:
            name = self._unguessable()
            link(self.descriptor, name)
            self._name = name
        os.replace(self._name, path)
        self._name = None
        sync_folder(self._folder)

    def discard(self) -> None:
        """Close it; without a place, it is gone."""
        if self._name is not None:
            with suppress(OSError):
                os.unlink(self._name)
            self._name = None
        os.close(self.descriptor)


class Reader:
    """Somebody who reads files: none is removed before he is gone."""


def become(descriptor: int, like: os.stat_result) -> None:
    """Give an open file the owner and the mode of another, so that nobody else may read it.

    :raises OSError: if the mode cannot be set
    """
    if os.name == "nt":
        return
    mine, mode = os.fstat(descriptor), stat.S_IMODE(like.st_mode)
    if (mine.st_uid, mine.st_gid) != (like.st_uid, like.st_gid):
        try:
            os.fchown(descriptor, like.st_uid, like.st_gid)
        except OSError:  # its group is another one, which is to get no more than all have
            mode &= ~0o070 | (mode & 0o007) << 3
    os.fchmod(descriptor, mode)


def lock(descriptor: int, where: str) -> None:
    """Keep an open file to ourselves until it is closed, or the process ends in whatever way.

    :raises ConfigError: if somebody else has it
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ConfigError(
            f"{where}: another sink is writing there: close it first, or take another path"
        ) from error


def is_locked(descriptor: int) -> bool:
    """Whether somebody else keeps an open file to himself, as :func:`lock` does."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one at a path, which is no link.

    :raises OSError: if that cannot be known
    """
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


Identity: TypeAlias = tuple[int, int, int, int]
"""By what a file is known not to be replaced: device, inode, size and time of the last change."""


def identity_of(status: os.stat_result) -> Identity:
    """By what a file is known that has this status."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def link(descriptor: int, name: Path, path: Path | None = None) -> None:
    """Give an open file a name, where nothing is.

    :param path: what it is called already; None: nothing
    :raises FileExistsError: if something is there
    :raises OSError: if it cannot be done, as on a file system without links
    """
    if path is None or _DESCRIPTORS.is_dir():
        # The file itself, and not what is at the path by now. Only with a folder's descriptor,
        # which an absolute path ignores, does Python follow links.
        source = str(_DESCRIPTORS / str(descriptor))
        os.link(source, name, src_dir_fd=descriptor, follow_symlinks=True)
    else:
        os.link(path, name, follow_symlinks=False)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    if os.name == "nt":  # where a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
