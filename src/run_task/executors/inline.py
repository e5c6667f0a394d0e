"""One task after another, in the runner's own thread."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from run_task.dataset import DataSet
from run_task.errors import TaskError, TaskTimeout
from run_task.executors.protocol import Crew, Tick, Ticks, drive, failed
from run_task.shared.protocol import Shared
from run_task.task import Runnable


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
        self._runs = tuple((task.name, task.run) for task in tasks)
        self._timeout = float("inf") if task_timeout is None else task_timeout
        self._current: str | None = None

    def drive(self, ticks: Ticks) -> None:
        drive(ticks, self._run)

    def _run(self, tick: Tick) -> DataSet[Any]:
        view, window, late_ns = tick
        begin, until = window
        values: dict[str, Any] = {}
        errors: dict[str, TaskError] = {}
        durations: dict[str, float] = {}
        begun = start = time.perf_counter()
        for name, run in self._runs:
            self._current = name
            try:
                values[name] = run(view, begin, until)
            except BaseException as raised:
                errors[name] = failed(name, window, raised)
            end = time.perf_counter()
            durations[name] = took = end - start
            if took > self._timeout:
                reason = f"it ran for {took:.3g} s, task_timeout is {self._timeout:g} s"
                errors[name] = TaskTimeout(name, window, reason)
                values.pop(name, None)
            start = end
        self._current = None
        return DataSet(window, values, errors, durations, late_ns / 1e9, start - begun)

    def running(self) -> Sequence[str]:
        current = self._current
        return () if current is None else (current,)

    def abandon(self) -> None:
        """Nothing can be done: the task has the only thread."""

    def close(self, timeout: float) -> None:
        """There is nothing to let go of."""
