"""One task after another, in the thread that asks for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from run_task._window import Window
from run_task.data._protocol import Shared
from run_task.data.series._keyed_view import KeyedView
from run_task.executors._async import refuse_async
from run_task.executors._outcomes import (
    Failure,
    Run,
    clock,
    dataset_of,
    keyed_dataset_of,
    late,
    one_after_another,
)
from run_task.executors._protocol import Crew
from run_task.tasks._dataset import DataSet, Roster
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet
from run_task.tasks._task import Runnable
from run_task.tasks._tick import Tick


class InlineExecutor:
    """Runs one task after another, in the thread that waited for the tick.

    The simplest there is, for debugging and for comparison. It cannot go on without a task that
    hangs: a task that outlives ``task_timeout`` loses its result once it returns, and not before.
    """

    def check(self, tasks: Iterable[Runnable[Any, Any]]) -> None:
        """See whether the tasks are synchronous.

        :raises ConfigError: if one is not
        """
        refuse_async(tasks)

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

    start_keyed = start


class _InlineCrew:
    def __init__(self, tasks: Sequence[Runnable[Any, Any]], task_timeout: float | None) -> None:
        self._roster = Roster(task.name for task in tasks)
        self._runs: Sequence[Run] = [task.run for task in tasks]
        self._timeout = math.inf if task_timeout is None else task_timeout
        self._ends: list[float] | None = None  # of the tasks of the tick in hand, so far

    def open(self) -> None:
        """There is nothing to start."""

    def run(self, tick: Tick) -> AnyDataSet:
        begin, until, _ = tick.due
        view = tick.view
        if isinstance(view, KeyedView):
            return self._run_keyed(tick, view)
        values: list[Any] = []
        ends: list[float] = []
        self._ends = ends
        failed = False
        begun = clock()
        for run in self._runs:
            try:
                values.append(run(view, begin, until))
            except BaseException as raised:
                values.append(Failure(raised))
                failed = True
            ends.append(clock())
        self._ends = None
        roster = self._roster
        took = ends[-1] - begun
        if failed or took > self._timeout:
            spans = one_after_another(begun, ends)
            return dataset_of(tick, roster, values, spans, begun, took, self._timeout)
        return DataSet.of(tick.due, tick.behind, roster, values, begun, roster.pack(*ends), took)

    def _run_keyed(self, tick: Tick, keyed: KeyedView) -> KeyedDataSet[Any, Any]:
        begin, until, _ = tick.due
        values: list[Any] = []
        problems: dict[int, BaseException | str | Window] = {}
        seconds = [0.0] * len(self._runs)
        began = since = clock()
        for view in keyed.views():
            ends: list[float] = []
            self._ends = ends
            for task, run in enumerate(self._runs):
                try:
                    value = run(view, begin, until)
                except BaseException as raised:
                    value = None
                    problems[len(values)] = raised
                now = clock()
                ends.append(now)
                if now - since > self._timeout:
                    problems[len(values)] = late(now - since, self._timeout)
                values.append(value)
                seconds[task] += now - since
                since = now
        self._ends = None
        return keyed_dataset_of(tick, self._roster, keyed, values, seconds, since - began, problems)

    def running(self) -> Sequence[str]:
        ends = self._ends
        return () if ends is None else self._roster.names[len(ends) : len(ends) + 1]

    def abandon(self) -> None:
        """Nothing can be done: the task has the only thread."""

    def close(self, timeout: float) -> None:
        """There is nothing to let go of."""
