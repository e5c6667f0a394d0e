"""The tasks of a runner, and which of them are paused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from run_task.errors import ConfigError
from run_task.runner._checks import check_calls, check_tasks
from run_task.runner._config import RunnerConfig
from run_task.tasks._task import Runnable


@dataclass(frozen=True, slots=True)
class TaskSet:
    """The tasks of a runner, and which of them are paused: at least one is not."""

    tasks: Sequence[Runnable[Any, Any]]
    paused: frozenset[str] = frozenset()
    """The names of those that no window runs, and whose state stays as it is."""

    @property
    def running(self) -> Sequence[Runnable[Any, Any]]:
        """Those that windows run."""
        if not self.paused:
            return self.tasks
        return tuple(task for task in self.tasks if task.name not in self.paused)

    def added(self, task: Any, config: RunnerConfig) -> TaskSet:
        """The same with one more task.

        :raises ConfigError: if they cannot be run together; the message names the task, and the
            cure
        """
        more = (*self.tasks, task)
        check_tasks(more)
        config.executor_instance.check(more)
        check_calls([task])
        return replace(self, tasks=more)

    def removed(self, name: str) -> TaskSet:
        """The same without the task of a name.

        :raises ConfigError: if there is none, or no other that is not paused
        """
        if (told := self._not_there(name)) is not None:
            raise ConfigError(f"remove({name!r}): {told}")
        left = tuple(task for task in self.tasks if task.name != name)
        if not left:
            raise ConfigError(
                f"remove({name!r}): it is the only task, and at least one is run: add another "
                f"first, or pause()"
            )
        if self.paused.issuperset(task.name for task in left):
            raise ConfigError(
                f"remove({name!r}): all other tasks are paused, and at least one is run: resume "
                f"another first, or pause()"
            )
        return TaskSet(left, self.paused - {name})

    def cannot_pause(self, name: str) -> str | None:
        """Why a task cannot be paused; None: it can."""
        if (told := self._not_there(name)) is not None:
            return told
        if self.paused.union({name}).issuperset(task.name for task in self.tasks):
            return "no other task is run, and at least one is: pause() all windows"
        return None

    def with_paused(self, name: str) -> TaskSet:
        """The same with a task paused.

        :raises ConfigError: if it cannot be
        """
        if name in self.paused:
            return self
        if (told := self.cannot_pause(name)) is not None:
            raise ConfigError(f"pause(task={name!r}): {told}")
        return replace(self, paused=self.paused | {name})

    def with_resumed(self, name: str) -> TaskSet:
        """The same with a task that is not paused.

        :raises ConfigError: if there is no such task
        """
        if (told := self._not_there(name)) is not None:
            raise ConfigError(f"resume(task={name!r}): {told}")
        if name not in self.paused:
            return self
        return replace(self, paused=self.paused - {name})

    def _not_there(self, name: str) -> str | None:
        names = [task.name for task in self.tasks]
        if name in names:
            return None
        return f"there is no such task, but {', '.join(map(repr, names))}"
