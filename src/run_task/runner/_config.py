"""How a runner behaves, checked when it is made."""

from __future__ import annotations

import dataclasses
import enum
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from run_task.errors import ConfigError
from run_task.executors import Executor, InlineExecutor, ProcessesExecutor, ThreadsExecutor
from run_task.observe._format import brief
from run_task.sync._overflow import Overflow
from run_task.time._calendar import Interval
from run_task.time._interval import TaskInterval
from run_task.time._length import EveryLike, IntervalLike, plain_length, window_length
from run_task.time._schedule import MissedTick

ExecutorName: TypeAlias = Literal["inline", "threads", "processes"]

_EXECUTORS: Final[dict[str, Executor]] = {
    "inline": InlineExecutor(),
    "threads": ThreadsExecutor(),
    "processes": ProcessesExecutor(),
}


_DEFAULT_TIMEOUT: Final = 5.0

_LONGEST_TIMEOUT: Final = 1e9
"""More seconds than anybody waits, and fewer than what waits anywhere can count."""

_TIMEOUTS: Final = ("data_timeout", "upstream_timeout", "task_timeout", "shutdown_timeout")

_NOT_GIVEN: Final[Any] = object()

_MOVED: Final = {"channel_capacity": "capacity", "overflow": "overflow"}
"""What settings of the channel are called where they are said now."""


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
    """The first window starts when the runner does, also one that is shorter than the interval."""


class Empty(enum.Enum):
    """What a runner does with a window that holds no row."""

    RUN = "run"
    """Run its tasks, as of any window."""

    SKIP = "skip"
    """Run nothing, and give no DataSet. A replay jumps over the gap at once."""


_CHOICES: Final[Mapping[str, type[enum.Enum]]] = {
    "overflow": Overflow,
    "on_error": OnError,
    "missed_tick": MissedTick,
    "align": Align,
    "empty": Empty,
}


_OPTIONAL: Final = ("overflow", "empty")


@dataclass(frozen=True, init=False)
class RunnerConfig:
    """How a runner, or a stage of a pipeline, behaves.

    A timeout of more than some thirty years is as good as none, and is taken as thirty years.

    :param name: what it is called in messages, logs and thread names
    :param data_timeout: how many seconds a tick waits for its view of the data; then each of its
        tasks has a :class:`~run_task.LockTimeout` as the cause of its error. Results wait as long
        to enter other data
    :param upstream_timeout: how many seconds a stage waits for other stages and for recordings,
        before it goes on without; a runner on its own waits for none
    :param task_timeout: how many seconds a task may run, before it has a
        :class:`~run_task.TaskTimeout` in the place of a result; None: forever
    :param shutdown_timeout: how many seconds a shutdown may take, before it gives up with a
        :class:`~run_task.ShutdownTimeout`
    :param on_error: what to do when a task gives no result
    :param missed_tick: what to do when windows fall due faster than they are computed
    :param executor: how a tick's tasks are run: ``"threads"``, ``"processes"``, ``"inline"``, or
        an :class:`~run_task.Executor` of your own
    :param workers: how many tasks may run at once; None: as many as the machine has cores
    :param window: how long the windows are; longer than the interval: they overlap; shorter: each
        is the last part of its interval; None: one interval. A TaskInterval, a timedelta, a text
        such as ``"5m"``, or a CalendarInterval
    :param grace: how long after its end a window waits for late data; None: not at all. A
        TaskInterval, a timedelta, or a text such as ``"2s"``
    :param align: where the grid of windows lies
    :param empty: what to do with a window that holds no row; ``Empty.SKIP`` is for a
        ``TimeSeries``. By key it is about each key: ``Empty.RUN`` runs the tasks also for those
        that are known and have no row in the window. None: ``SKIP`` by key, else ``RUN``
    :param lock_timeout: deprecated: what ``data_timeout`` and ``upstream_timeout`` were together
    :param channel_capacity: deprecated: see :meth:`ContextBuilder.with_channel`
    :param overflow: deprecated: see :meth:`ContextBuilder.with_channel`
    :raises ConfigError: if a value cannot be; the message names it
    """

    name: str
    data_timeout: float
    upstream_timeout: float
    task_timeout: float | None
    shutdown_timeout: float
    on_error: OnError
    missed_tick: MissedTick
    executor: ExecutorName | Executor
    workers: int | None
    window: Interval | None
    grace: TaskInterval | None
    align: Align
    empty: Empty | None
    channel_capacity: int | None = dataclasses.field(repr=False)
    overflow: Overflow | None = dataclasses.field(repr=False)

    def __init__(  # by hand, since not all that it takes is kept
        self,
        *,
        name: str = "runner",
        data_timeout: float = _DEFAULT_TIMEOUT,
        upstream_timeout: float = _DEFAULT_TIMEOUT,
        task_timeout: float | None = None,
        shutdown_timeout: float = 5.0,
        on_error: OnError = OnError.RECORD,
        missed_tick: MissedTick = MissedTick.BURST,
        executor: ExecutorName | Executor = "threads",
        workers: int | None = None,
        window: EveryLike | None = None,
        grace: IntervalLike | None = None,
        align: Align = Align.EPOCH,
        empty: Empty | None = None,
        lock_timeout: float = _NOT_GIVEN,
        channel_capacity: int | None = None,
        overflow: Overflow | None = None,
    ) -> None:
        if lock_timeout is not _NOT_GIVEN:
            _check_seconds("lock_timeout", lock_timeout)
            for field, given in (
                ("data_timeout", data_timeout),
                ("upstream_timeout", upstream_timeout),
            ):
                if given != _DEFAULT_TIMEOUT:
                    raise _refused(
                        "lock_timeout", lock_timeout, f"the old name of {field}: leave it out"
                    )
            _deprecated("lock_timeout", "it is data_timeout and upstream_timeout")
            data_timeout = upstream_timeout = lock_timeout
        settings: dict[str, Any] = {
            "name": name,
            "data_timeout": data_timeout,
            "upstream_timeout": upstream_timeout,
            "task_timeout": task_timeout,
            "shutdown_timeout": shutdown_timeout,
            "on_error": on_error,
            "missed_tick": missed_tick,
            "executor": executor,
            "workers": workers,
            "window": window,
            "grace": grace,
            "align": align,
            "empty": empty,
            "channel_capacity": channel_capacity,
            "overflow": overflow,
        }
        _check(settings)
        for field in ("window", "grace"):
            if settings[field] is not None:
                take = window_length if field == "window" else plain_length
                settings[field] = take(settings[field], f"RunnerConfig({field}={{}})")
        for field in _TIMEOUTS:
            value = settings[field]
            if isinstance(value, (int, float)):
                settings[field] = min(value, _LONGEST_TIMEOUT)
        for field in ("channel_capacity", "overflow"):
            if settings[field] is not None:
                _deprecated(field, f"say it by ContextBuilder.with_channel({_MOVED[field]}=...)")
        for field, value in settings.items():
            object.__setattr__(self, field, value)  # it is frozen

    @property
    def lock_timeout(self) -> float:
        """The old name of :attr:`data_timeout`."""
        return self.data_timeout

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


def _check(settings: Mapping[str, Any]) -> None:
    name, executor = settings["name"], settings["executor"]
    if not _is(name, str) or not name:
        raise _refused("name", name, "a text that is not empty")
    for field in ("channel_capacity", "workers"):
        value = settings[field]
        if value is not None and (type(value) is not int or value < 1):
            raise _refused(field, value, "a positive int")
    for field, enumeration in _CHOICES.items():
        value = settings[field]
        if not isinstance(value, enumeration) and not (field in _OPTIONAL and value is None):
            raise _refused(field, value, f"one of {', '.join(map(str, enumeration))}")
    for field in _TIMEOUTS:
        value = settings[field]
        if field != "task_timeout" or value is not None:
            _check_seconds(field, value)
    if isinstance(executor, str):
        if executor not in _EXECUTORS:
            raise _refused("executor", executor, f"one of {', '.join(map(repr, _EXECUTORS))}")
    elif isinstance(executor, type):
        raise _refused("executor", executor, f"an instance of it, {executor.__name__}()")
    elif not callable(getattr(executor, "start", None)):
        raise _refused("executor", executor, "a name or an Executor, which has a start()")


def _check_seconds(field: str, value: Any) -> None:
    if not _is(value, (int, float)) or not 0 < value < math.inf:
        raise _refused(field, value, "a positive number of seconds")


def _is(value: Any, types: type | tuple[type, ...]) -> bool:
    """isinstance, for values that a caller without a type checker may have got wrong."""
    return isinstance(value, types) and not isinstance(value, bool)


def _refused(field: str, value: Any, wanted: str) -> ConfigError:
    return ConfigError(f"RunnerConfig({field}={brief(value)}): it is {wanted}")


def _deprecated(field: str, cure: str) -> None:
    warnings.warn(f"RunnerConfig({field}=...): {cure}", DeprecationWarning, stacklevel=3)
