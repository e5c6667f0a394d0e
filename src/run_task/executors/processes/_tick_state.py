"""The state of one tick while worker processes run it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from run_task._window import Window
from run_task.errors import TaskError, TaskLost, described
from run_task.executors._protocol import failed
from run_task.executors.processes._wire import loads
from run_task.tasks._dataset import DataSet, Roster
from run_task.tasks._tick import Tick


class TickState:
    """A tick in work: what is still to be handed out, and what came of the rest.

    :param roster: the tasks
    :param tick: what there is to do
    :param cut: the shares that they are to be handed out in
    """

    def __init__(self, roster: Roster, tick: Tick, cut: Iterable[list[int]]) -> None:
        self.roster = roster
        self.names = roster.names
        self.tick = tick
        self.queue: deque[Sequence[int]] = deque(cut)
        # The positions that have no outcome yet.
        self.open: set[int] = set(range(len(roster.names)))
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

    @property
    def window(self) -> Window:
        """The window that the tasks are run for."""
        return self.tick.window

    @property
    def is_over(self) -> bool:
        """Whether every task has an outcome."""
        return not self.open

    def is_open(self, work: Sequence[int], position: int) -> bool:
        """Whether a task has no outcome yet."""
        return position in self.open

    def job(self, work: Sequence[int], position: int) -> tuple[str, None]:
        """The task at a position."""
        return self.names[position], None

    def blame(self, work: Sequence[int], position: int, kind: type[TaskError], reason: str) -> None:
        """A task has no result."""
        self.fail(position, kind, reason)

    def put_back(self, work: Sequence[int]) -> None:
        """What of a share has no outcome is to be given to another worker."""
        self.queue.appendleft(work)

    def part(self, work: Sequence[int], position: int) -> bool:
        """As put_back(), each task on its own; False: there is but one."""
        if len(work) == 1:
            return False
        self.queue.extendleft([each] for each in work)
        return True

    def unfinished(self) -> Sequence[str]:
        """The names of the tasks that have no outcome."""
        return [self.names[position] for position in sorted(self.open)]

    def exclude(self, task: int, reason: str) -> None:
        """A task is loaded no more."""
        self.fail(task, TaskLost, reason)

    def fail_all(
        self, kind: type[TaskError], reason: str, cause: BaseException | None = None
    ) -> None:
        """Every task that has no outcome yet has this one."""
        for position in sorted(self.open):
            self.fail(position, kind, reason, cause)

    def take_result(self, position: int, pieces: Sequence[memoryview], *, raised: bool) -> None:
        """Take in what came of a task."""
        try:
            value = loads(pieces)
            if raised:
                cause, note = value
                self.errors[position] = error = failed(self.names[position], self.window, cause)
                try:
                    cause.add_note(note)
                except BaseException:  # it refuses to be assigned to
                    error.add_note(note)
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
        """A task has no result."""
        if cause is not None:
            reason = f"{reason} ({described(cause)})"
        self.open.discard(position)
        self.errors[position] = error = kind(self.names[position], self.window, reason)
        # Without its traceback: that would keep alive what was at work.
        error.__cause__ = cause and BaseException.with_traceback(cause, None)

    def dataset(self, begun: float, took: float) -> DataSet[Any]:
        """What came of the tick.

        :param begun: when it began, in seconds by ``time.perf_counter``
        :param took: how long it took, in seconds
        """
        names, errors = self.names, self.errors
        starts, seconds, nan = self.starts, self.seconds, math.nan
        positions = range(len(names))
        pack = self.roster.pack
        return DataSet.of(
            self.tick.due,
            self.tick.behind,
            self.roster,
            [self.values.get(position) for position in positions],
            begun,
            pack(*[starts.get(i, nan) + seconds.get(i, nan) for i in positions]),
            took,
            # In the order in which the tasks were given.
            {names[i]: errors[i] for i in positions if i in errors} if errors else None,
            pack(*[starts.get(i, nan) for i in positions]),
        )
