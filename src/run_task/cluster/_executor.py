"""The executor of stages by key in a run over shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from run_task.cluster._cluster import Cluster
from run_task.cluster._crew import ShardsCrew
from run_task.cluster._writing import ShardedWriting
from run_task.data import Shared
from run_task.executors import Crew, Executor
from run_task.executors._states import States
from run_task.runner._config import ExecutorName, RunnerConfig
from run_task.runner._keys import Keys
from run_task.tasks._task import Runnable
from run_task.time._calendar import Interval


class ShardsExecutor:
    """Runs stages by key in shards.

    :param cluster: the shards
    :param config: how the stage was to be run: its executor runs the tasks in each shard
    :param sinks: those that shards write to
    """

    def __init__(
        self, cluster: Cluster, config: RunnerConfig, sinks: Sequence[ShardedWriting] = ()
    ) -> None:
        self._cluster = cluster
        self._sinks = sinks
        self._named: Executor | ExecutorName = config.executor
        self._executor = config.executor_instance

    def check(self, tasks: Iterable[Runnable[Any, Any]]) -> None:
        """See whether what runs them in shards can run these tasks.

        :raises ConfigError: if it cannot
        """
        self._executor.check(tasks)

    def start(
        self,
        tasks: Iterable[Runnable[Any, Any]],
        *,
        data: Shared[Any],
        name: str,
        task_timeout: float | None,
        workers: int,
    ) -> Crew:
        """Without keys, nothing is shared out."""
        return self._executor.start(
            tasks, data=data, name=name, task_timeout=task_timeout, workers=workers
        )

    start_keyed = start

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
        """Make ready to run these tasks for each key in shards."""
        of = self._cluster, self._named, self._sinks
        return ShardsCrew(*of, tasks, data, interval, config, keys, states)
