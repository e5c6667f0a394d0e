"""A file beside those with results, which tells something of them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from run_task.errors import ConfigError
from run_task.sinks.files._disk import NO_LINK, Draft

_NOT_THERE: Final = (errno.ENOENT, errno.ENAMETOOLONG)


class FileBeside:
    """A file that is replaced whole, and known by how it begins: one of somebody else stays.

    :param path: the file
    :param like: a file beside it, which is there by then: it has its owner and mode
    :param begin: how it begins
    :param what: what it is to tell, for messages
    :param where: the sink, for messages
    """

    def __init__(self, path: Path, like: Path, begin: bytes, what: str, where: str) -> None:
        self.path: Final = path
        self._like = like
        self._begin = begin
        self._what = what
        self._where = where

    def read(self) -> bytes | None:
        """What is there; None: no file, or one of somebody else.

        :raises ConfigError: if it cannot be read
        """
        try:
            if not stat.S_ISREG(os.stat(self.path, follow_symlinks=False).st_mode):
                return None
            with os.fdopen(os.open(self.path, os.O_RDONLY | NO_LINK), "rb") as stream:
                begin = stream.read(len(self._begin))
                return begin + stream.read() if begin == self._begin else None
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            raise ConfigError(f"{self._where}: {self.path} cannot be read: {error}") from error

    def check(self) -> None:
        """See that nothing of somebody else is in its place.

        :raises ConfigError: if something is
        """
        if self.read() is None and os.path.lexists(self.path):
            raise ConfigError(
                f"{self._where}: {str(self.path)!r} is to tell {self._what}, and is something "
                f"else: rename that, or take another path"
            )

    def replace(self, text: bytes) -> None:
        """Make a text last in its place.

        :raises ConfigError: if that cannot be done, or a file of somebody else is there
        """
        self.check()
        try:
            is_there = os.path.lexists(self.path)
            like = os.stat(self.path if is_there else self._like, follow_symlinks=False)
            draft = Draft(self.path.parent, like)
            try:
                with os.fdopen(draft.descriptor, "ab", closefd=False) as stream:
                    stream.write(text)
                os.fsync(draft.descriptor)
                if is_there:
                    draft.replace(self.path)
                else:
                    draft.put(self.path)
            finally:
                draft.discard()
        except OSError as error:
            raise ConfigError(f"{self._where}: {self.path} cannot be written: {error}") from error
