"""A tick in work in worker processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from run_task._window import Window
from run_task.errors import TaskError, TaskLost
from run_task.executors._protocol import failed
from run_task.executors.processes._wire import loads
from run_task.tasks._dataset import DataSet


class Job:
    """A tick in work: what is still to be handed out, and what came of the rest.

    :param names: of the tasks, by position
    :param window: the tick's
    :param cut: the shares that they are to be handed out in
    """

    def __init__(self, names: Sequence[str], window: Window, cut: Iterable[list[int]]) -> None:
        self.names = names
        self.window = window
        self.queue: deque[Sequence[int]] = deque(cut)
        # The positions that have no outcome yet.
        self.open: set[int] = set(range(len(names)))
        self.values: dict[int, Any] = {}
        self.errors: dict[int, TaskError] = {}
        self.starts: dict[int, float] = {}  # in seconds by time.perf_counter
        self.seconds: dict[int, float] = {}
        self.deaths = 0  # of workers, that no task is to blame for

    def share(self) -> Sequence[int]:
        """The next share, or what of it has no outcome yet; empty if there is none left."""
        while self.queue:
            positions = [position for position in self.queue.popleft() if position in self.open]
            if positions:
                return positions
        return ()

    def settle(self, position: int, pieces: Sequence[memoryview], *, raised: bool) -> None:
        """Take in what came of a task."""
        try:
            value = loads(pieces)
            if raised:
                self.errors[position] = failed(self.names[position], self.window, value)
            else:
                self.values[position] = value
            self.open.discard(position)
        except BaseException as error:  # any code of its class may have run
            self.fail(position, TaskError, "its result cannot be loaded", error)

    def fail(
        self,
        position: int,
        kind: type[TaskError],
        reason: str,
        cause: BaseException | None = None,
    ) -> None:
        if cause is not None:
            reason = f"{reason} ({type(cause).__name__}: {cause})"
        self.open.discard(position)
        self.errors[position] = error = kind(self.names[position], self.window, reason)
        # Without its traceback: that would keep alive what was at work.
        error.__cause__ = cause.with_traceback(None) if cause is not None else None

    def lose(self, reason: str, cause: BaseException | None = None) -> None:
        """Give up all tasks that have no outcome yet."""
        for position in tuple(self.open):
            self.fail(position, TaskLost, reason, cause)

    def dataset(self, late_ns: int, begun: float, took: float) -> DataSet[Any]:
        values: dict[str, Any] = {}
        errors: dict[str, TaskError] = {}
        durations: dict[str, float] = {}
        starts: dict[str, float] = {}
        for position, name in enumerate(self.names):  # in the order in which they were given
            if position in self.errors:
                errors[name] = self.errors[position]
            else:
                values[name] = self.values[position]
            if position in self.seconds:
                durations[name] = self.seconds[position]
                starts[name] = self.starts[position] - begun
        lateness = late_ns / 1e9
        return DataSet(self.window, values, errors, durations, lateness, took, starts=starts)
