"""By which keys tasks are run, and over which rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from run_task.data import Shared, TimeSeries
from run_task.data._protocol import window_bound
from run_task.data._several import inputs_of, members_of, none_if_empty
from run_task.data._several_keyed import SeveralKeyedView
from run_task.data.series._keyed_view import KeyedView, WindowBefore
from run_task.data.series._sliding_keys import SlidingKeys
from run_task.errors import ConfigError
from run_task.executors import Crew, Executor, KeyedExecutor
from run_task.executors._protocol import checked_crew
from run_task.executors._states import States
from run_task.observe._format import brief
from run_task.runner._checks import check_inputs
from run_task.runner._config import Empty, RunnerConfig
from run_task.runner._declared_crew import DeclaredCrew
from run_task.runner._declared_work import DeclaredWork, declared, pane_of
from run_task.runner._key_census import KeyCensus
from run_task.tasks._task import Runnable
from run_task.time._calendar import Interval
from run_task.time._length import IntervalLike, plain_length

DEFAULT_IDLE: Final = "1h"
DEFAULT_MOST: Final = 100_000


@dataclass(frozen=True, slots=True)
class Keys:
    """By which keys tasks are run.

    :param by: the column of the key
    :param idle_ns: how long after its last row a key is forgotten, in nanoseconds of the rows' time
    :param most: how many keys there may be
    """

    by: str
    idle_ns: int
    most: int

    @classmethod
    def checked(cls, by: Any, key_idle: IntervalLike, max_keys: Any) -> Keys:
        """Keys as a user declares them.

        :raises ConfigError: if they cannot be; the message names what
        """
        if not isinstance(by, str) or not by:
            raise ConfigError(f"by={by!r}: it is the name of the column that is the key")
        if type(max_keys) is not int or max_keys < 1:
            raise ConfigError(f"max_keys={max_keys!r}: it is a positive int")
        return cls(by, plain_length(key_idle, "key_idle={}").nanos, max_keys)

    def check(self, tasks: Iterable[Runnable[Any, Any]], data: object, executor: Executor) -> None:
        """See whether tasks can be run by these keys.

        :raises ConfigError: if they cannot; the message names the cure
        """
        inputs = inputs_of(data)
        if len(inputs) == 1:
            self._check_series(inputs[0])
        keyed = self.keyed(data)
        if not keyed:
            raise ConfigError(
                f"by={self.by!r}: none of the inputs has this key: make one of the series with "
                f"key={self.by!r}"
            )
        if len({series.columns[self.by].kind in "iu" for series in keyed}) > 1:
            told = " and ".join(map(brief, keyed))
            raise ConfigError(
                f"by={self.by!r}: the keys of several inputs are of one kind, and those of {told} "
                f"are texts and ints: make them the same"
            )
        if not isinstance(executor, KeyedExecutor):
            raise ConfigError(
                f"by={self.by!r}: executor={brief(executor)} does not run tasks by key: take "
                f"'threads', or give it a start_keyed()"
            )
        check_inputs(tasks, data, self.by)

    def _check_series(self, data: object) -> None:
        if not isinstance(data, TimeSeries):
            raise ConfigError(
                f"by={self.by!r}: the rows of a TimeSeries have keys, and {brief(data)} is none"
            )
        if data.key is None:
            raise ConfigError(
                f"by={self.by!r}: {brief(data)} has no key: make it with key={self.by!r}"
            )
        if data.key != self.by:
            raise ConfigError(f"by={self.by!r}: the key of {brief(data)} is {data.key!r}")

    def keyed(self, data: object) -> Sequence[TimeSeries]:
        """The inputs that have the key: of the others, tasks see the whole."""
        return [
            one for one in inputs_of(data) if isinstance(one, TimeSeries) and one.key == self.by
        ]

    def limit(self, data: object) -> Callable[[], None]:
        """Let the data refuse rows whose key would be one too many.

        :return: lifts these limits
        :raises ConfigError: if there are more keys already
        """
        limits = ExitStack()
        with limits:
            for series in self.keyed(data):
                limits.callback(series.limit_keys(self.most))
            return limits.pop_all().close


@runtime_checkable
class ShardingExecutor(KeyedExecutor, Protocol):
    """An executor that runs stages by key elsewhere, over rows that are there: declared tasks,
    too."""

    def start_sharded(
        self,
        tasks: Sequence[Runnable[Any, Any]],
        *,
        data: Shared[Any],
        interval: Interval,
        config: RunnerConfig,
        keys: Keys,
        states: States,
    ) -> Crew:
        """Make ready to run these tasks for each key.

        :param tasks: all tasks, as a runner runs them
        :param data: what they read
        :param interval: how often
        :param config: how the runner behaves
        :param keys: by which keys
        :param states: the states of the tasks
        :raises ConfigError: if a task cannot be run there
        """
        ...


def crew_of(
    tasks: Sequence[Runnable[Any, Any]],
    data: Shared[Any],
    interval: Interval,
    config: RunnerConfig,
    keys: Keys | None,
    states: States,
) -> Crew:
    """What runs the tasks of a runner: an executor at work, and what computes declared tasks.

    :param tasks: what to run
    :param data: what they read
    :param interval: how often
    :param config: the executor, and how it behaves
    :param keys: by which keys tasks are run; None: by none
    :param states: the states of the tasks
    :raises ConfigError: if a task cannot be run over this data
    """
    check_inputs(tasks, data, None if keys is None else keys.by)
    executor = config.executor_instance
    if keys is not None and isinstance(executor, ShardingExecutor):
        return executor.start_sharded(
            tasks, data=data, interval=interval, config=config, keys=keys, states=states
        )
    together = declared(tasks)
    if not together:
        return _executor_at_work(tasks, data, config, keys)
    work = DeclaredWork(together, data, pane_of(interval, config.window))
    ids = set(map(id, together))
    rest = [task for task in tasks if id(task) not in ids]
    return DeclaredCrew(tasks, work, _executor_at_work(rest, data, config, keys) if rest else None)


def _executor_at_work(
    tasks: Sequence[Runnable[Any, Any]],
    data: Shared[Any],
    config: RunnerConfig,
    keys: Keys | None,
) -> Crew:
    executor = config.executor_instance
    start = executor.start
    if keys is not None:
        assert isinstance(executor, KeyedExecutor)  # it was checked
        start = executor.start_keyed
    return checked_crew(
        start(
            tasks,
            data=data,
            name=config.name,
            task_timeout=config.task_timeout,
            workers=config.worker_count,
        )
    )


Bound: TypeAlias = Callable[[Any, int, int], Any]


def bound_of(
    data: object, interval: Interval, config: RunnerConfig, keys: Keys | None, states: States
) -> Bound | None:
    """What the tasks of a window see of a view of the data.

    :param data: the shared data
    :param interval: how often windows come, and in which unit
    :param config: how long they are, and whether those without a row are skipped
    :param keys: by which keys tasks are run; None: by none
    :param states: the states of the tasks, of which those of idle keys are let go of
    :return: a function of a view, and the start and the end of a window: what the tasks see, or
        None if the window is skipped. None: the data has nothing that lies before or after a window
    """
    bound = window_bound(data, interval.unit)
    if keys is None:
        return bound if bound is None or config.empty is not Empty.SKIP else none_if_empty(bound)
    assert bound is not None
    cut, grouped = bound, _grouping(data, keys, interval, config.window)
    by, runs_all = keys.by, config.empty is Empty.RUN
    census = KeyCensus(config.name, by, keys.most)
    idle = keys.idle_ns // keys.keyed(data)[0].unit.nanos
    known = states.known_keys(idle) if runs_all or states.any else None

    def bounded(view: Any, start: int, end: int) -> KeyedView | None:
        keyed = grouped(cut(view, start, end))
        if not runs_all and not keyed.has_rows:
            return None
        census.note(keyed)
        if known is not None:
            states.forget(known.note(keyed))
            if runs_all:
                keyed.include(known.keys)
        return keyed

    return bounded


def _grouping(
    data: object, keys: Keys, interval: Interval, window: Interval | None
) -> Callable[[Any], KeyedView]:
    """How the view of a window is grouped by key."""
    by = keys.by
    members = members_of(data)
    if members is None:
        pane = pane_of(interval, window)
        sliding = None
        if pane is not None and keys.keyed(data)[0].unit is interval.unit:
            sliding = SlidingKeys(by, pane)
        before = WindowBefore()
        return lambda view: KeyedView(view, by, sliding=sliding, before=before)
    having = {id(series) for series in keys.keyed(data)}
    positions = [i for i, member in enumerate(members) if id(member) in having]
    return lambda views: SeveralKeyedView(views, positions, by)
