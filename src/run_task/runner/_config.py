"""How a runner behaves, checked when it is said."""

from __future__ import annotations

import enum
import math
import os
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from run_task.errors import ConfigError
from run_task.executors import Executor, InlineExecutor, ProcessesExecutor, ThreadsExecutor
from run_task.sync._channel import Overflow
from run_task.time._interval import TaskInterval
from run_task.time._schedule import MissedTick

ExecutorName: TypeAlias = Literal["inline", "threads", "processes"]

_EXECUTORS: Final[dict[str, Executor]] = {
    "inline": InlineExecutor(),
    "threads": ThreadsExecutor(),
    "processes": ProcessesExecutor(),
}


class OnError(enum.Enum):
    """What a runner does when a task gives no result."""

    RECORD = "record"
    """Note it in the DataSet's ``errors``, and go on."""

    RAISE = "raise"
    """Deliver that DataSet, end, and raise the first of its errors from ``run()``."""


class Align(enum.Enum):
    """Where the grid of windows lies."""

    EPOCH = "epoch"
    """On multiples of the interval since the Unix epoch: minute windows end on the full minute."""

    START = "start"
    """The first window starts when the runner does."""


@dataclass(frozen=True, kw_only=True)
class RunnerConfig:
    """How a runner behaves.

    :param name: what it is called in messages, logs and thread names
    :param channel_capacity: how many DataSets may wait to be received
    :param overflow: what happens when more do
    :param lock_timeout: how many seconds a tick waits for its view of the data; then each of its
        tasks has a :class:`~run_task.LockTimeout` as the cause of its error
    :param task_timeout: how many seconds a task may run, before it has a
        :class:`~run_task.TaskTimeout` in the place of a result; None: for ever
    :param shutdown_timeout: how many seconds a shutdown may take, before it gives up with a
        :class:`~run_task.ShutdownTimeout`
    :param on_error: what to do when a task gives no result
    :param missed_tick: what to do when windows fall due faster than they are computed
    :param executor: how a tick's tasks are run: ``"threads"``, ``"processes"``, ``"inline"``, or
        an :class:`~run_task.Executor` of your own
    :param workers: how many tasks may run at once; None: as many as the machine has cores
    :param window: how long the windows are, at least one interval; longer: they overlap; None: one
        interval
    :param grace: how long after its end a window waits for late data; None: not at all
    :param align: where the grid of windows lies
    :raises ConfigError: if a value cannot be; the message names it
    """

    name: str = "runner"
    channel_capacity: int = 1024
    overflow: Overflow = Overflow.BLOCK
    lock_timeout: float = 5.0
    task_timeout: float | None = None
    shutdown_timeout: float = 5.0
    on_error: OnError = OnError.RECORD
    missed_tick: MissedTick = MissedTick.BURST
    executor: ExecutorName | Executor = "threads"
    workers: int | None = None
    window: TaskInterval | None = None
    grace: TaskInterval | None = None
    align: Align = Align.EPOCH

    def __post_init__(self) -> None:
        if not _is(self.name, str) or not self.name:
            raise _refused(self, "name", "a text that is not empty")
        for field in ("channel_capacity", "workers"):
            value = getattr(self, field)
            if field == "workers" and value is None:
                continue
            if type(value) is not int or value < 1:
                raise _refused(self, field, "a positive int")
        for field, enumeration in (
            ("overflow", Overflow),
            ("on_error", OnError),
            ("missed_tick", MissedTick),
            ("align", Align),
        ):
            if not isinstance(getattr(self, field), enumeration):
                choices = ", ".join(map(str, enumeration))
                raise _refused(self, field, f"one of {choices}")
        for field in ("lock_timeout", "task_timeout", "shutdown_timeout"):
            value = getattr(self, field)
            if field == "task_timeout" and value is None:
                continue
            if not _is(value, (int, float)) or not 0 < value < math.inf:
                raise _refused(self, field, "a positive number of seconds")
        for field in ("window", "grace"):
            if not _is(getattr(self, field), (TaskInterval, type(None))):
                raise _refused(self, field, "a TaskInterval or None")
        if isinstance(self.executor, str):
            if self.executor not in _EXECUTORS:
                raise _refused(self, "executor", f"one of {', '.join(map(repr, _EXECUTORS))}")
        elif not callable(getattr(self.executor, "start", None)):
            raise _refused(self, "executor", "a name or an Executor, which has a start()")

    @property
    def executor_instance(self) -> Executor:
        """The executor that ``executor`` names or is."""
        return _EXECUTORS[self.executor] if isinstance(self.executor, str) else self.executor

    @property
    def grace_ns(self) -> int:
        """How long after its end a window waits for late rows, in nanoseconds."""
        return self.grace.nanos if self.grace is not None else 0

    @property
    def worker_count(self) -> int:
        """How many tasks may run at once."""
        return self.workers or os.cpu_count() or 1


def _is(value: Any, types: type | tuple[type, ...]) -> bool:
    """isinstance, for values that a caller without a type checker may have got wrong."""
    return isinstance(value, types) and not isinstance(value, bool)


def _refused(config: RunnerConfig, field: str, wanted: str) -> ConfigError:
    return ConfigError(f"RunnerConfig({field}={getattr(config, field)!r}): it is {wanted}")
