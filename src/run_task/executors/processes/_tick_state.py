"""The state of one tick while worker processes run it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

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
        self.window = tick.window
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
        if cause is not None:
            reason = f"{reason} ({described(cause)})"
        self.open.discard(position)
        self.errors[position] = error = kind(self.names[position], self.window, reason)
        # Without its traceback: that would keep alive what was at work.
        error.__cause__ = cause and BaseException.with_traceback(cause, None)

    def lose(self, reason: str, cause: BaseException | None = None) -> None:
        """Give up all tasks that have no outcome yet."""
        for position in tuple(self.open):
            self.fail(position, TaskLost, reason, cause)

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
