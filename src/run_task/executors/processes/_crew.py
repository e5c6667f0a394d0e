"""Worker processes at work for one runner without keys."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final

from run_task.data._memory import MapMode
from run_task.data._protocol import Shared
from run_task.errors import TaskError, TaskTimeout
from run_task.executors.processes._messages import Report
from run_task.executors.processes._process import WorkerProcess
from run_task.executors.processes._shares import CHEAP, SHARE, balanced
from run_task.executors.processes._task_states import TaskStates
from run_task.executors.processes._tick_state import TickState
from run_task.executors.processes._wire import unpack
from run_task.executors.processes._workers_crew import Errand, WorkersCrew
from run_task.tasks._dataset import DataSet
from run_task.tasks._task import Runnable
from run_task.tasks._tick import Tick

_IMBALANCE: Final = 1.25
"""By what factor the costliest share must have grown or shrunk for the shares to be cut anew."""


class ProcessesCrew(WorkersCrew[Sequence[int], Report, TickState]):
    """Has the tasks of each tick run in worker processes.

    :param tasks: the tasks
    :param data: where views come from
    :param name: the runner's name
    :param task_timeout: how many seconds a task may run; None: forever
    :param workers: how many processes there are, at most
    """

    def __init__(
        self,
        tasks: Sequence[Runnable[Any, Any]],
        data: Shared[Any],
        name: str,
        task_timeout: float | None,
        workers: int,
    ) -> None:
        size = min(workers, len(tasks))
        super().__init__(tasks, data, name, task_timeout, size, Report, keyed=False)
        self._states = TaskStates(tasks)
        self._shares = balanced([0.0] * len(tasks), self._size)
        self._costliest = SHARE  # what the costliest of them took when they were cut
        self._alone = False  # whether one worker runs all tasks

    def run(self, tick: Tick) -> DataSet[Any]:
        begun = time.perf_counter()
        state = TickState(self._roster, tick, self._shares)
        self._work_on(state, tick.view)
        if state.seconds:
            self._balance(state)
        return state.dataset(begun, time.perf_counter() - begun)

    def _next_work(
        self, worker: WorkerProcess[Sequence[int]], tick: TickState
    ) -> Errand[Sequence[int]] | None:
        positions = tick.share()
        if not positions:
            return None
        states = self._states.to_send(positions, worker.held, partial(_unsent, tick))
        return Errand(positions, positions, states)

    def _take_in(
        self,
        worker: WorkerProcess[Sequence[int]],
        work: Sequence[int],
        report: Report,
        memory: list[int],
        tick: TickState,
    ) -> None:
        pieces: Iterator[memoryview] = iter(())
        if report.payload is not None:
            try:
                # Copied, for a mapping has a file open for as long as anybody keeps the result.
                there = unpack(report.payload, memory, MapMode.READ)
                pieces = iter([memoryview(bytearray(piece)) for piece in there])
            except (MemoryError, OSError) as error:
                for position, _, _, _, count, _ in report.outcomes:
                    if count:
                        tick.fail(position, TaskError, "its result cannot be mapped", error)
        for position, raised, start, seconds, count, value in report.outcomes:
            own = list(islice(pieces, count)) if count else ()
            tick.starts[position], tick.seconds[position] = start, seconds
            if seconds > self._timeout:
                worker.held.pop(position, None)
                reason = f"it ran for {seconds:.3g} s, task_timeout is {self._timeout:g} s"
                tick.fail(position, TaskTimeout, reason)
            elif not count:
                tick.open.discard(position)
                tick.values[position] = value
            elif position in tick.open:
                tick.take_result(position, own, raised=raised)
                self._states.received(position, tick.values.get(position), worker.held)

    def _balance(self, state: TickState) -> None:
        """Cut the shares anew if the tasks do not take what they did when they were cut."""
        seconds = state.seconds
        costliest = max(sum(seconds.get(i, 0.0) for i in share) for share in self._shares)
        costliest = max(costliest, SHARE)
        # Who is alone stays so for twice as long: tasks that take about that do not change hands at
        # every tick. Of those that hang or are lost, nobody knows what they take.
        cheap = 2 * CHEAP if self._alone else CHEAP
        alone = len(seconds) == len(self._names) and sum(seconds.values()) < cheap
        alike = self._costliest / _IMBALANCE < costliest < self._costliest * _IMBALANCE
        if alone is not self._alone or not alike:
            costs = [seconds.get(i, 0.0) for i in range(len(self._names))]
            self._alone = alone
            self._shares = balanced(costs, 1 if alone else self._size)
            self._costliest = max(sum(costs[i] for i in self._shares[0]), SHARE)


def _unsent(state: TickState, position: int, error: BaseException) -> None:
    state.fail(position, TaskError, "its state cannot be sent to a worker process", error)
