"""One tick in work, by as many threads as take part.

All take their next task from one iterator, which is atomic, and note what came of it at the
task's own position: so nothing has to be agreed on, and nothing is handed over a task.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from run_task.alarm import Alarm
from run_task.dataset import NO_ERRORS, Results
from run_task.errors import TaskError
from run_task.executors.protocol import Tick
from run_task.interval import Window

Run: TypeAlias = Callable[[Any, int, int], Any]
"""What a task does."""

clock: Callable[[], float] = time.perf_counter
"""In seconds."""


class Raised:
    """Stands in the place of a result when the task raised."""

    __slots__ = ("exception",)

    def __init__(self, exception: BaseException) -> None:
        self.exception: BaseException = exception


class Hand:
    """A helper, or a leader in a helper's place, and the task that it has in hand."""

    __slots__ = ("alarm", "batch", "position", "written_off")

    def __init__(self) -> None:
        self.alarm: Alarm = Alarm()
        self.batch: Batch | None = None
        self.position: int = -1
        self.written_off: bool = False


class Batch(Results):
    """One tick in work."""

    __slots__ = ("claims", "faulty", "helm", "overdue", "progress", "view", "window")

    def __init__(
        self,
        names: Sequence[str],
        order: Sequence[int],
        claims: Iterator[tuple[int, Run]],
        no_ends: array[float],
        tick: Tick,
        lead: Hand,
    ) -> None:
        # What Results.__init__ does, and not by a call: that would be a tenth of a cheap tick.
        self.names: Sequence[str] = names
        self.order: Iterable[int] = order
        self.values: list[Any] = [None] * len(names)
        self.ends: array[float] = no_ends[:]
        self.errors: Mapping[str, TaskError] = NO_ERRORS
        self.claims: Iterator[tuple[int, Run]] = claims
        self.view: Any
        self.window: Window
        self.view, self.window = tick
        self.helm: list[Hand] = [lead]  # who has the lead takes it out to finish: only one can
        self.faulty: bool = False  # whether a task raised
        self.overdue: dict[int, str] | None = None  # position: why nothing is waited for any more
        # Set once helpers may take tasks: when these began, and a bell for when all are through.
        self.starts: dict[int, float] | None = None
        self.progress: Alarm | None = None
        self.begun: float = clock()

    def work(self) -> float:
        """Run tasks until none is left to take. Returns the time."""
        view = self.view
        begin, until = self.window
        values = self.values
        ends = self.ends
        read_clock = clock
        now = self.begun
        for position, run in self.claims:
            try:
                values[position] = run(view, begin, until)
            except BaseException as raised:
                values[position] = Raised(raised)
                self.faulty = True
            ends[position] = now = read_clock()
        return now

    def work_beside(self, hand: Hand) -> None:
        """Run tasks until none is left to take, beside the leader, who began as the tick did."""
        view, values, ends, starts = self.view, self.values, self.ends, self.starts
        assert starts is not None
        hand.batch = self
        for position, run in self.claims:
            hand.position = position
            starts[position] = clock()
            try:
                values[position] = run(view, *self.window)
            except BaseException as raised:
                values[position] = Raised(raised)
                self.faulty = True
            ends[position] = clock()
        hand.batch = None

    def share(self) -> None:
        """Let helpers take tasks from now on."""
        self.starts = {}
        self.progress = Alarm()

    def at_work(self) -> list[tuple[int, float]]:
        """The tasks that are waited for: position, and since when, in the order of taking.

        One that the leader has, or is yet to take, counts from the end of the last one it had.
        """
        starts = self.starts or {}
        overdue = self.overdue or {}
        latest = self.begun
        found: list[tuple[int, float]] = []
        for position in self.order:
            end = self.ends[position]
            if position in overdue:
                continue
            if not end:
                found.append((position, starts.get(position, latest)))
            elif position not in starts:
                latest = end
        return found
