"""One task after another, in the runner's own thread."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from run_task.dataset import Results
from run_task.errors import TaskError, TaskTimeout
from run_task.executors.protocol import Crew, Tick, Ticks, failed
from run_task.task import Runnable


class InlineExecutor:
    """Runs one task after another in the runner's own thread.

    The simplest there is, for debugging and for comparison. It cannot go on without a task that
    hangs: a task that outlives ``task_timeout`` loses its result once it returns, and not before.
    """

    def start(
        self,
        tasks: Iterable[Runnable[Any, Any]],
        *,
        name: str,
        task_timeout: float | None,
        workers: int,
    ) -> Crew:
        """Make ready; the name and the number of workers are of no use here."""
        return _InlineCrew(tuple(tasks), task_timeout)


class _InlineCrew:
    def __init__(self, tasks: Sequence[Runnable[Any, Any]], task_timeout: float | None) -> None:
        self._names = tuple(task.name for task in tasks)
        self._runs = tuple(task.run for task in tasks)
        self._timeout = float("inf") if task_timeout is None else task_timeout
        self._current: str | None = None

    def drive(self, ticks: Ticks) -> None:
        tick = next(ticks, None)
        while tick is not None:
            try:
                tick = ticks.send(self._run(tick))
            except StopIteration:
                return

    def _run(self, tick: Tick) -> Results:
        view, (begin, until) = tick
        names = self._names
        size = len(names)
        values: list[Any] = [None] * size
        ends = array("d", bytes(8 * size))
        errors: dict[str, TaskError] = {}
        begun = start = time.perf_counter()
        for position, run in enumerate(self._runs):
            self._current = name = names[position]
            try:
                values[position] = run(view, begin, until)
            except BaseException as raised:
                errors[name] = failed(name, tick[1], raised)
            ends[position] = end = time.perf_counter()
            if end - start > self._timeout:
                reason = f"it ran for {end - start:.3g} s, task_timeout is {self._timeout:g} s"
                errors[name] = TaskTimeout(name, tick[1], reason)
            start = end
        self._current = None
        results = Results(names, range(size), values, ends, begun)
        results.errors = errors
        results.took = start - begun
        return results

    def running(self) -> Sequence[str]:
        current = self._current
        return () if current is None else (current,)

    def abandon(self) -> None:
        """Nothing can be done: the task has the only thread."""

    def close(self, timeout: float) -> None:
        """There is nothing to let go of."""
