"""What a runner asks of an executor.

The runner's loop is a generator: it yields a :class:`Tick`, is sent back its :class:`Outcome`,
and does everything else in between. Whoever drives the generator is the engine. That is a role and
not a thread: when a task hangs in the thread that has it, the loop stands at its ``yield``, and
another thread can go on with it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from run_task.dataset import Durations
from run_task.errors import TaskError
from run_task.interval import Window
from run_task.task import Runnable


class Tick(NamedTuple):
    """What there is to do: every task, over one view of the data and one window."""

    view: Any
    window: Window


class Missing:
    """Stands in the place of a result that there is not."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()


class Outcome:
    """What came of a tick.

    :ivar values: the results by task name, in the order of the tasks
    :ivar errors: why the others have none, in the order of the tasks
    :ivar durations: how long each task ran, in seconds
    :ivar seconds: how long it took from the first task's start to the last one's end
    """

    __slots__ = ("durations", "errors", "seconds", "values")

    def __init__(
        self,
        values: dict[str, Any],
        errors: Mapping[str, TaskError],
        durations: Mapping[str, float],
        seconds: float,
    ) -> None:
        self.values: dict[str, Any] = values
        self.errors: Mapping[str, TaskError] = errors
        self.durations: Mapping[str, float] = durations
        self.seconds: float = seconds


Ticks: TypeAlias = Generator[Tick, Outcome, None]
"""A runner's loop. It raises nothing: what goes wrong in it, it deals with itself."""

_NO_ERRORS: Final[Mapping[str, TaskError]] = {}


def outcome(
    names: Sequence[str],
    values: Sequence[Any],
    starts: Sequence[float | None],
    ends: Sequence[float | None],
    errors: Mapping[int, TaskError],
    seconds: float,
) -> Outcome:
    """Put together what was noted by the tasks' positions."""
    durations = Durations(names, starts, ends)
    if not errors:
        return Outcome(dict(zip(names, values)), _NO_ERRORS, durations, seconds)
    return Outcome(
        {
            name: value
            for position, (name, value) in enumerate(zip(names, values))
            if position not in errors
        },
        {names[position]: errors[position] for position in sorted(errors)},
        durations,
        seconds,
    )


def failed(task: str, window: Window, raised: BaseException) -> TaskError:
    """The TaskError for what a task raised."""
    error = TaskError(task, window)
    # From the task's own frame on: ours is of no use to the reader, and would keep the tick alive.
    traceback = raised.__traceback__
    error.__cause__ = raised.with_traceback(traceback.tb_next if traceback else None)
    return error


class Crew(Protocol):
    """An executor at work for one runner."""

    def drive(self, ticks: Ticks) -> None:
        """Drive the loop. Returns when it is over, or when another thread has taken it on."""
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

    def start(
        self,
        tasks: Iterable[Runnable[Any, Any]],
        *,
        name: str,
        task_timeout: float | None,
        workers: int,
    ) -> Crew:
        """Make ready to run these tasks again and again.

        :param tasks: the tasks of one runner
        :param name: the runner's name, for its threads and processes
        :param task_timeout: how many seconds a task may run; None: for ever
        :param workers: how many tasks may run at once
        """
        ...
