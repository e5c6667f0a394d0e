"""Tasks in worker processes: as many cores as there are, whatever the tasks are made of."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from run_task.data._protocol import Relocatable, Shared
from run_task.errors import ConfigError
from run_task.executors._async import refuse_async
from run_task.executors._protocol import Crew
from run_task.tasks._task import Runnable


class ProcessesExecutor:
    """Runs a tick's tasks in worker processes, for tasks in Python that keep a core busy.

    The processes start once and receive the tasks once. A tick tells them the window and where
    the view lies: a :class:`~run_task.TimeSeries` is moved into memory that they map, other data
    is sent once for each version of it. A task that outlives ``task_timeout`` is ended together
    with its process; a process that dies costs the task that it had in hand, which has a
    :class:`~run_task.TaskLost` in that window's errors, and is replaced.

    A task must be a thing that can be pickled, plainly or by cloudpickle, and so must its results.
    What it keeps for itself from one window to the next is lost sooner or later, since it may run
    elsewhere each time; a state that it declares goes on.

    By key the keys are shared out over the workers by their buckets, and a key stays with its
    worker while that lives. One that hangs or ends its worker costs its own result; the worker that
    replaces it goes on with the others.
    """

    def check(self, tasks: Iterable[Runnable[Any, Any]]) -> None:
        """See whether every task can be sent to a process.

        :raises ConfigError: if one cannot
        """
        if os.name != "posix":
            raise ConfigError(
                "executor='processes' hands open files to its workers, which this system cannot: "
                "take executor='threads'"
            )
        from run_task.executors.processes._pickling import NeedsCloudpickle, dumps

        tasks = tuple(tasks)
        refuse_async(tasks)
        for task in tasks:
            try:
                dumps(task, [])
            except NeedsCloudpickle as error:
                raise ConfigError(
                    f"task {task.name!r} cannot be sent to a process: {error}, or take "
                    f"executor='threads'"
                ) from error
            except Exception as error:
                raise ConfigError(
                    f"task {task.name!r} cannot be sent to a process ({error}): let it hold "
                    f"nothing that belongs to this process, such as a lock, an open file or a "
                    f"thread, or take executor='threads'"
                ) from error

    def start(
        self,
        tasks: Iterable[Runnable[Any, Any]],
        *,
        data: Shared[Any],
        name: str,
        task_timeout: float | None,
        workers: int,
    ) -> Crew:
        """Make ready; the processes start when the runner does."""
        from run_task.data._memory import SharedBlock
        from run_task.executors.processes._crew import ProcessesCrew

        if isinstance(data, Relocatable):
            data.relocate(SharedBlock)
        return ProcessesCrew(tuple(tasks), data, name, task_timeout, workers)

    def start_keyed(
        self,
        tasks: Iterable[Runnable[Any, Any]],
        *,
        data: Shared[Any],
        name: str,
        task_timeout: float | None,
        workers: int,
    ) -> Crew:
        """Make ready; the processes start when the runner does."""
        from run_task.data._memory import SharedBlock
        from run_task.executors.processes._keyed_crew import KeyedProcessesCrew

        if isinstance(data, Relocatable):
            data.relocate(SharedBlock)
        return KeyedProcessesCrew(tuple(tasks), data, name, task_timeout, workers)
