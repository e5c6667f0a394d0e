"""What a runner asks of an executor.

The core is ``Crew.run``: a tick in, its :class:`~run_task.DataSet` out. A runner's loop is a
generator that yields ticks and is sent back their DataSets; :func:`drive` runs it over any crew. A
:class:`LeadingCrew` drives the loop itself, and so may go on with it in another thread when a task
hangs in the one that has it: the loop stands at its ``yield`` meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from run_task._window import Window
from run_task.data._protocol import Shared
from run_task.errors import ConfigError, TaskError
from run_task.tasks._keyed import AnyDataSet
from run_task.tasks._task import Runnable
from run_task.tasks._tick import Tick, TickParts

Ticks: TypeAlias = Generator[TickParts, AnyDataSet, None]
"""A runner's loop: it yields ticks, as plain tuples that :meth:`Tick.of` takes, and is sent their
DataSets. It raises nothing: what goes wrong in it, it deals with itself."""


def failed(
    task: str, window: Window, raised: BaseException, key: str | int | None = None
) -> TaskError:
    """The TaskError for what a task raised.

    :param task: the task's name
    :param window: the window it was run for
    :param raised: what it raised, which becomes the ``__cause__``
    :param key: the key it was run for; None: it was run without keys
    """
    error = TaskError(task, window, key=key)
    error.__cause__ = raised
    # From the task's own frame on: ours is of no use to the reader, and would keep the tick alive.
    traceback = raised.__traceback__
    if traceback is not None:
        # Past an __setattr__ of the exception's own, such as that of a frozen dataclass.
        BaseException.with_traceback(raised, traceback.tb_next)
    return error


def drive(ticks: Ticks, run: Callable[[Tick], AnyDataSet]) -> None:
    """Drive a loop in this thread, to its end.

    :param ticks: the loop
    :param run: what to do with a tick; anything that it raises is thrown into the loop, which ends
        with it: a runner that fails is better than one that hangs
    """
    parts = next(ticks, None)
    try:
        while parts is not None:
            tick, parts = Tick.of(parts), None
            try:
                dataset = run(tick)
            except BaseException as error:
                del tick  # so that no data of this tick is kept until the next
                parts = ticks.throw(error)
            else:
                del tick
                parts = ticks.send(dataset)
    except StopIteration:
        return


class Crew(Protocol):
    """An executor at work for the tasks of one runner.

    Its tasks are the same to its end: where they change, another crew takes its place.
    """

    def open(self) -> None:
        """Start what takes a while to start, before the first tick is due."""
        ...

    def run(self, tick: Tick, /) -> AnyDataSet:
        """Run every task over one view and one window, and put together what came of it.

        Called for one tick at a time, from any thread. What a task raises becomes an entry in
        ``errors``, made by :func:`failed`; so does, where the executor can see to it, that a task
        outlives ``task_timeout``.

        Of a runner with keys, which only a :class:`KeyedExecutor` is asked for, the view of a tick
        is a :class:`KeyedView`: every task is run once for each of its ``views()``.

        :param tick: what there is to do
        :return: the DataSet, with every task in it or in its errors; with keys a KeyedDataSet, with
            every task and key
        :raises BaseException: what is no task's fault; the runner ends with it
        """
        ...

    def running(self) -> Sequence[str]:
        """The names of the tasks that are running right now."""
        ...

    def abandon(self) -> None:
        """Stop waiting for the tasks that are running now, where the executor can."""
        ...

    def close(self, timeout: float) -> None:
        """Let go of every thread and process, once there are no more ticks.

        :param timeout: how many seconds to wait for those that are at work
        """
        ...


def checked_crew(crew: Crew) -> Crew:
    """What an executor of a user's own has started, if it is a crew.

    :raises ConfigError: if it lacks a method
    """
    for method in ("open", "run", "running", "abandon", "close"):
        if not callable(getattr(crew, method, None)):
            raise ConfigError(
                f"{type(crew).__name__}, which the executor has started, has no {method}(): a crew "
                f"has open(), run(tick), running(), abandon() and close(timeout)"
            )
    return crew


@runtime_checkable
class LeadingCrew(Crew, Protocol):
    """A crew that drives a runner's loop itself, and may hand it over to another thread."""

    def drive(self, ticks: Ticks, /) -> None:
        """Drive the loop. Returns when it is over, or when another thread has taken it on.

        It may be called again for another loop once one is over, from any thread.

        :param ticks: the loop: it yields a tick, and is sent back its DataSet
        """
        ...


Hanging: TypeAlias = tuple[Runnable[Any, Any], Any, Any]
"""A task that still runs from a tick before, as the crew was given it, the key that it runs for, or
None, and what its executor knows it by."""


@runtime_checkable
class SucceedingCrew(Crew, Protocol):
    """A crew that knows what hangs in it, and in those of its executor that were before it."""

    def hanging(self) -> Sequence[Hanging]:
        """What still runs from ticks before."""
        ...

    def succeed(self, hanging: Sequence[Hanging], /) -> None:
        """Take the place of another crew: do not begin what hangs there until it has returned.
        Called before the first tick, when the other has no more.

        :param hanging: what hangs in the crew before, of the same executor: its tasks and other
            ones, which may come back in a crew after this one
        """
        ...


@runtime_checkable
class PreparingCrew(Crew, Protocol):
    """A crew that takes long to open, as what runs tasks is elsewhere."""

    def prepare(self) -> None:
        """Make ready what can be, before :meth:`open`. Of several engines that wait for each other,
        all crews are prepared before one engine starts.

        :raises Exception: if it cannot be
        """
        ...


def driver(crew: Crew) -> Callable[[Ticks], None]:
    """What drives a runner's loop with a crew: the crew itself where it can, else :func:`drive`.

    :param crew: the executor at work
    """
    if isinstance(crew, LeadingCrew):
        return crew.drive

    def driven(ticks: Ticks) -> None:
        drive(ticks, crew.run)

    return driven


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
        :param task_timeout: how many seconds a task may run; None: forever
        :param workers: how many tasks may run at once
        :return: what runs the ticks of one runner
        """
        ...


@runtime_checkable
class KeyedExecutor(Executor, Protocol):
    """An executor that can run tasks once for each key."""

    def start_keyed(
        self,
        tasks: Iterable[Runnable[Any, Any]],
        *,
        data: Shared[Any],
        name: str,
        task_timeout: float | None,
        workers: int,
    ) -> Crew:
        """Make ready to run these tasks for each key, again and again.

        :param tasks: the tasks of one runner
        :param data: what they read
        :param name: the runner's name, for its threads and processes
        :param task_timeout: how many seconds a task may run for one key; None: forever
        :param workers: how many tasks and keys may run at once
        :return: what runs the ticks of one runner; the view of each is a :class:`KeyedView`
        """
        ...
