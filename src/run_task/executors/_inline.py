"""One task after another, in the runner's own thread."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from run_task.data._protocol import Shared
from run_task.executors._protocol import Crew, Tick, Ticks, drive
from run_task.executors.threads._batch import Batch, Raised, Run, clock
from run_task.tasks._dataset import DataSet, Roster
from run_task.tasks._task import Runnable


class InlineExecutor:
    """Runs one task after another in the runner's own thread.

    The simplest there is, for debugging and for comparison. It cannot go on without a task that
    hangs: a task that outlives ``task_timeout`` loses its result once it returns, and not before.
    """

    def check(self, tasks: Iterable[Runnable[Any, Any]]) -> None:
        """Any task will do."""

    def start(
        self,
        tasks: Iterable[Runnable[Any, Any]],
        *,
        data: Shared[Any],
        name: str,
        task_timeout: float | None,
        workers: int,
    ) -> Crew:
        """Make ready; all but the tasks and their timeout is of no use here."""
        return _InlineCrew(tuple(tasks), task_timeout)


class _InlineCrew:
    def __init__(self, tasks: Sequence[Runnable[Any, Any]], task_timeout: float | None) -> None:
        self._roster = Roster(task.name for task in tasks)
        self._runs: Sequence[Run] = [task.run for task in tasks]
        self._timeout = math.inf if task_timeout is None else task_timeout
        self._ends: list[float] | None = None  # of the tasks of the tick in hand, so far

    def drive(self, ticks: Ticks) -> None:
        drive(ticks, self._run)

    def _run(self, tick: Tick) -> DataSet[Any]:
        view, due = tick
        begin, until, _ = due
        values: list[Any] = []
        ends: list[float] = []
        self._ends = ends
        faulty = False
        begun = clock()
        for run in self._runs:
            try:
                values.append(run(view, begin, until))
            except BaseException as raised:
                values.append(Raised(raised))
                faulty = True
            ends.append(clock())
        self._ends = None
        roster = self._roster
        took = ends[-1] - begun
        if faulty or took > self._timeout:
            batch = Batch(tick, [], iter(()), range(len(values)), values, ends, begun)
            return batch.dataset(roster, took, self._timeout)
        return DataSet.of(due, roster, values, begun, roster.pack(*ends), took)

    def running(self) -> Sequence[str]:
        ends = self._ends
        return () if ends is None else self._roster.names[len(ends) : len(ends) + 1]

    def abandon(self) -> None:
        """Nothing can be done: the task has the only thread."""

    def close(self, timeout: float) -> None:
        """There is nothing to let go of."""
