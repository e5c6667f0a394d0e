"""Worker processes at work for one runner with keys."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from run_task.data._buckets import bucket_of, part_of
from run_task.data._protocol import Shared
from run_task.data.series._keyed_view import KeyedView
from run_task.executors.processes._keyed_states import KeyedTaskStates
from run_task.executors.processes._keyed_tick_state import KeyedTickState, Shard
from run_task.executors.processes._messages import KeyedReport
from run_task.executors.processes._process import WorkerProcess
from run_task.executors.processes._task_states import NO_STATES, SentStates
from run_task.executors.processes._workers_crew import Errand, WorkersCrew
from run_task.tasks._keyed import KeyedDataSet
from run_task.tasks._task import Runnable
from run_task.tasks._tick import Tick


class KeyedProcessesCrew(WorkersCrew[Shard, KeyedReport, KeyedTickState]):
    """Has the tasks of each tick run for each key in worker processes.

    The keys are shared out by their buckets: each worker has a shard of them, the same in each
    window, and so has the worker that replaces it. It runs all tasks for one of its keys after
    another, over rows that it brings together by itself.

    :param tasks: the tasks
    :param data: where views come from
    :param name: the runner's name
    :param task_timeout: how many seconds a task may run for one key; None: forever
    :param workers: how many processes there are
    """

    def __init__(
        self,
        tasks: Sequence[Runnable[Any, Any]],
        data: Shared[Any],
        name: str,
        task_timeout: float | None,
        workers: int,
    ) -> None:
        super().__init__(tasks, data, name, task_timeout, workers, KeyedReport, keyed=True)
        self._shard_of = _Shards(workers)
        self._states = KeyedTaskStates(tasks)

    def run(self, tick: Tick) -> KeyedDataSet[Any, Any]:
        begun = time.perf_counter()
        keyed = tick.view
        assert isinstance(keyed, KeyedView)
        places: list[list[int]] = [[] for _ in range(self._size)]
        for place, shard in enumerate(self._shard_of.each(keyed.keys)):
            places[shard].append(place)
        state = KeyedTickState(self._roster, tick, keyed, places, self._states.tasks, self._timeout)
        self._work_on(state, keyed)
        return state.dataset(time.perf_counter() - begun)

    def _next_work(
        self, worker: WorkerProcess[Shard], tick: KeyedTickState
    ) -> Errand[Shard] | None:
        there = {each.number for each in self._workers}
        for shard in tick.queue:
            # Where no process could be started for a shard, any other has it for this time.
            if shard.number == worker.number or shard.number not in there:
                tick.queue.remove(shard)
                return Errand(shard, *self._told(worker, shard, tick))
        return None

    def _told(
        self, worker: WorkerProcess[Shard], shard: Shard, tick: KeyedTickState
    ) -> tuple[tuple[Any, ...], SentStates]:
        """What a worker is told of a shard, and the states that it has to have for it."""
        states = NO_STATES
        try:
            keys, fail = tick.keys_of(shard), partial(tick.keep_from, shard)
            states = self._states.to_send(keys, worker.held, fail)
        except (MemoryError, OSError) as error:  # there is no memory for them
            tick.fail_stateful(shard, "its states cannot be sent to a worker process", error)
        return tuple(shard.work(self._size)), states

    def _take_in(
        self,
        worker: WorkerProcess[Shard],
        work: Shard,
        report: KeyedReport,
        memory: list[int],
        tick: KeyedTickState,
    ) -> None:
        first = work.first
        tick.take_in(work, report, memory)
        self._states.received(tick.outcomes(work, first, report.stop), worker.held)
        tick.put_back(work)


class _Shards(dict[Any, int]):
    """The shard of each key that has been seen.

    :param count: how many shards there are
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def __missing__(self, key: Any) -> int:
        self[key] = shard = part_of(bucket_of(key), self._count)
        return shard

    def each(self, keys: Sequence[Any]) -> Sequence[int]:
        """The shard of each of some keys; only these are remembered."""
        if len(self) > 2 * len(keys) + 1000:
            self.clear()
        return [self[key] for key in keys]
