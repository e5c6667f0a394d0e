"""Where a file lies: which bytes come, whatever is in them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol

from run_task._extras import need
from run_task.errors import ConfigError
from run_task.observe._url import looks_like_url, url_shown
from run_task.sources.files._compression import TELLING_BYTES, compression_of
from run_task.sources.files._lines import WholeLines

_DIGITS: Final = re.compile("([0-9]+)")


def is_hidden(name: str) -> bool:
    """Whether a file of this name is not meant where a folder is."""
    return name.startswith((".", "_"))


def by_name(parts: Iterable[str]) -> list[list[str | int]]:
    """By this, paths are in order by their parts, and numbers in them, too."""
    return [
        [int(part) if at % 2 else part for at, part in enumerate(_DIGITS.split(name))]
        for name in parts
    ]


class FilePlace(Protocol):
    """Where the bytes of a file come from."""

    @property
    def name(self) -> str:
        """How messages call it."""
        ...

    @property
    def live(self) -> bool:
        """Whether it is still being written, so that it cannot be looked into beforehand."""
        ...

    @property
    def once(self) -> bool:
        """Whether it can be read only once."""
        ...

    @property
    def endless(self) -> bool:
        """Whether it has no end."""
        ...

    @property
    def far(self) -> bool:
        """Whether another machine has to be asked for whatever is read of it."""
        ...

    def open(self) -> WholeLines:
        """Its bytes from the start, decompressed, by whole lines.

        :raises OSError: if it cannot be opened
        """
        ...

    def open_for_arrow(self) -> Any:
        """Its bytes as they stand, as a file of Arrow's in which any place can be read.

        :raises OSError: if it cannot be opened
        """
        ...

    def head(self) -> bytes:
        """The first bytes as they stand, which tell what it is; none where it is still being
        written.

        :raises OSError: if it cannot be read
        """
        ...

    def tail(self, size: int) -> bytes:
        """Its last bytes; none where it is compressed, or they cannot be had without the others.

        :param size: how many at most
        :raises OSError: if it cannot be read
        """
        ...

    def stop(self) -> None:
        """Let a reading end that waits for more. From any thread, any number of times."""
        ...


class LocalFile:
    """A file of this machine.

    :param path: its path
    :param where: the source that reads it, for messages
    :raises ConfigError: if there is none
    """

    live: bool = False
    once: bool = False
    endless: bool = False
    far: bool = False

    def __init__(self, path: Path, where: str) -> None:
        self.name: str = url_shown(str(path))
        """How messages call it."""

        self._path = path
        if not path.is_file():
            cure = ": give a URL as a text, and not as a Path" if looks_like_url(str(path)) else ""
            raise ConfigError(f"{where}: there is no such file{cure}")

    def open(self) -> WholeLines:
        """Its bytes from the start, decompressed, by whole lines.

        :raises OSError: if it cannot be opened
        """
        return WholeLines(_Whole(self._path))

    def stop(self) -> None:
        """There is nothing that it waits for."""

    def open_for_arrow(self) -> Any:
        """Its bytes as they stand, as a file of Arrow's in which any place can be read.

        :raises OSError: if it cannot be opened
        """
        return need("pyarrow", "arrow").OSFile(str(self._path))

    def head(self) -> bytes:
        """The first bytes as they stand, which tell what it is.

        :raises OSError: if it cannot be read
        """
        with self._path.open("rb") as file:
            return file.read(TELLING_BYTES)

    def tail(self, size: int) -> bytes:
        """Its last bytes; none where it is compressed, or they cannot be had without the others.

        :param size: how many at most
        :raises OSError: if it cannot be read
        """
        if compression_of(self.head()) is not None:
            return b""
        with self._path.open("rb") as file:
            file.seek(max(0, self._path.stat().st_size - size))
            return file.read()


class _Whole:
    """The bytes of a file that may become longer while it is read, but not shorter.

    :param path: its path
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size
        self.close = self._file.close

    def read(self, size: int, /) -> bytes:
        """The next of them.

        :raises OSError: if there is less than there was when it was opened: what was last read may
            be half of a line
        """
        block = self._file.read(size)
        if not block and size and self._file.tell() < self._size:
            raise cut(self._size, self._file.fileno())
        return block


def cut(size: int, descriptor: int) -> OSError:
    """What is raised of a file that has become shorter while it is read.

    :param size: how many bytes it had
    """
    now = os.fstat(descriptor).st_size
    return OSError(f"it had {size:,} bytes when it was opened, and was cut to {now:,}")


def check_uncut(raw: Any) -> None:
    """See that a file has not become shorter: then Arrow may have read what is in no file.

    :param raw: the file, as Arrow has it open
    :raises OSError: if it has
    """
    try:
        descriptor = raw.fileno()
    except (OSError, ValueError):  # it is on no disk of this machine
        return
    except AttributeError:  # pyarrow 23's files cannot tell their descriptor
        return
    if os.fstat(descriptor).st_size < raw.size():
        raise cut(raw.size(), descriptor)
