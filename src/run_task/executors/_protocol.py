"""What a runner asks of an executor.

The runner's loop is a generator: it yields a tick, is sent back its :class:`~run_task.DataSet`,
and does everything else in between. Whoever drives the generator is the engine. That is a role and
not a thread: when a task hangs in the thread that has it, the loop stands at its ``yield``, and
another thread can go on with it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

from run_task._window import Due, Window
from run_task.data._protocol import Shared
from run_task.errors import TaskError
from run_task.tasks._dataset import DataSet
from run_task.tasks._task import Runnable

Tick: TypeAlias = tuple[Any, Due]
"""What there is to do: every task, over one view of the data and one window."""

Ticks: TypeAlias = Generator[Tick, DataSet[Any], None]
"""A runner's loop. It raises nothing: what goes wrong in it, it deals with itself."""


def failed(task: str, window: Window, raised: BaseException) -> TaskError:
    """The TaskError for what a task raised."""
    error = TaskError(task, window)
    # From the task's own frame on: ours is of no use to the reader, and would keep the tick alive.
    traceback = raised.__traceback__
    error.__cause__ = raised.with_traceback(traceback.tb_next if traceback else None)
    return error


def drive(ticks: Ticks, run: Callable[[Tick], DataSet[Any]]) -> None:
    """Drive a loop in this thread, to its end.

    :param ticks: the loop
    :param run: what to do with a tick; anything that it raises is thrown into the loop, which ends
        with it: a runner that fails is better than one that hangs
    """
    tick = next(ticks, None)
    try:
        while tick is not None:
            try:
                dataset, tick = run(tick), None  # who waits for the next keeps no data of this one
            except BaseException as error:
                tick = ticks.throw(error)
            else:
                tick = ticks.send(dataset)
    except StopIteration:
        return


class Crew(Protocol):
    """An executor at work for one runner."""

    def drive(self, ticks: Ticks) -> None:
        """Drive the loop. Returns when it is over, or when another thread has taken it on.

        :param ticks: the loop: it yields a tick, and is sent back its DataSet
        """
        ...

    def running(self) -> Sequence[str]:
        """The names of the tasks that are running right now."""
        ...

    def abandon(self) -> None:
        """Stop waiting for the tasks that are running now, where the executor can."""
        ...

    def close(self, timeout: float) -> None:
        """Let go of every thread and process, once the loop is over.

        :param timeout: how many seconds to wait for those that are at work
        """
        ...


class Executor(Protocol):
    """A way to run tasks. It keeps no state of its own, so runners may share one."""

    def check(self, tasks: Iterable[Runnable[Any, Any]]) -> None:
        """See whether it can run these tasks. Called when a context is built.

        :param tasks: the tasks of one runner
        :raises ConfigError: if it cannot; the message names the task and the cure
        """
        ...

    def start(
        self,
        tasks: Iterable[Runnable[Any, Any]],
        *,
        data: Shared[Any],
        name: str,
        task_timeout: float | None,
        workers: int,
    ) -> Crew:
        """Make ready to run these tasks again and again.

        :param tasks: the tasks of one runner
        :param data: what they read
        :param name: the runner's name, for its threads and processes
        :param task_timeout: how many seconds a task may run; None: for ever
        :param workers: how many tasks may run at once
        :return: what drives the runner's loop, in a thread that the runner starts
        """
        ...
