"""The default executor: tasks on the cores of this machine, in threads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from run_task.data._protocol import Shared
from run_task.executors._async import refuse_async
from run_task.executors._protocol import Crew
from run_task.executors.threads._crew import ThreadsCrew
from run_task.tasks._task import Runnable


class ThreadsExecutor:
    """Runs a tick's tasks in threads, as few as will do: the default.

    Cheap tasks run one after another in one thread, and costly ones on every core. Which
    they are is measured as they run. A task that outlives ``task_timeout`` goes on in a thread
    that is left to it; the tick and the runner go on without it, and it is not started again
    before it returns.
    """

    def check(self, tasks: Iterable[Runnable[Any, Any]]) -> None:
        """See whether the tasks are synchronous.

        :raises ConfigError: if one is not
        """
        refuse_async(tasks)

    def start(
        self,
        tasks: Iterable[Runnable[Any, Any]],
        *,
        data: Shared[Any],
        name: str,
        task_timeout: float | None,
        workers: int,
    ) -> Crew:
        """Make ready; threads start when they are first needed."""
        return ThreadsCrew(tuple(tasks), name, task_timeout, workers)

    def start_keyed(
        self,
        tasks: Iterable[Runnable[Any, Any]],
        *,
        data: Shared[Any],
        name: str,
        task_timeout: float | None,
        workers: int,
    ) -> Crew:
        """Make ready; threads start when they are first needed."""
        return ThreadsCrew(tuple(tasks), name, task_timeout, workers, keyed=True)
