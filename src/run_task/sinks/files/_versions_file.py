"""The versions of tasks, in a file beside their results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from run_task.errors import ConfigError
from run_task.sinks._versions import BEGIN, Versions, changed, text_of, versions_in
from run_task.sinks.files._beside import FileBeside
from run_task.tasks._task import TaskVersion


class VersionsFile:
    """A file with the versions of tasks. It is made when a task first has one, and replaced whole.

    :param path: the file
    :param like: a file beside it, which is there by then: it has its owner and mode
    :param where: the sink, for messages
    """

    def __init__(self, path: Path, like: Path, where: str) -> None:
        self._file = FileBeside(path, like, BEGIN.encode(), "the versions of its tasks", where)
        self._where = where

    def held(self) -> Versions:
        """What is there: nothing, where the file is one of somebody else.

        :raises ConfigError: if it cannot be read, or is broken
        """
        text = self._file.read()
        if text is None:
            return {}
        try:
            return versions_in(text)
        except ValueError as error:
            raise ConfigError(
                f"{self._where}: {str(self._file.path)!r}, which tells the versions of its tasks, "
                f"cannot be read: {error}"
            ) from None

    def keep(self, pipeline: str, stage: str, versions: Mapping[str, TaskVersion | None]) -> None:
        """Make the versions of tasks of a stage last; those of others stay as they are.

        :raises ConfigError: if that cannot be done, or a file of somebody else is in its place
        """
        self._file.check()
        text = text_of(changed(self.held(), pipeline, stage, versions))
        self._file.replace(f"{text}\n".encode())
