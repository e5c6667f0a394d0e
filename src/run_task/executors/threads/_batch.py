"""One tick in work by several threads, or by one that needs looking after.

All take their next task from one iterator, which is atomic, and note what came of it at the
task's own position: so nothing has to be agreed on, and nothing is handed over a task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from run_task._window import Window
from run_task.errors import TaskError, TaskTimeout
from run_task.executors._protocol import Tick, failed
from run_task.executors.threads._helper_policy import Help
from run_task.sync._alarm import Alarm
from run_task.tasks._dataset import DataSet, Roster

Run: TypeAlias = Callable[[Any, int, int], Any]
"""What a task does."""

Claims: TypeAlias = Iterator[tuple[int, Run]]
"""Where threads take their next task from: its position, and what it does."""

clock: Callable[[], float] = time.perf_counter
"""In seconds."""


class Raised:
    """Stands in the place of a result when the task raised."""

    __slots__ = ("exception",)

    def __init__(self, exception: BaseException) -> None:
        self.exception: BaseException = exception


class Hand:
    """A thread that takes tasks, and the task that it has in hand."""

    __slots__ = ("alarm", "batch", "position", "written_off")

    def __init__(self) -> None:
        self.alarm: Alarm = Alarm()
        self.batch: Batch | None = None
        self.position: int = -1
        self.written_off: bool = False


Helm: TypeAlias = "list[Hand | Batch]"
"""Whose tick it is. Who has the lead takes their hand out to finish the tick: only one can. Behind
it stands the batch, once there is one."""

Alone: TypeAlias = tuple[Helm, Tick, Claims, list[Any], list[float], float]
"""A tick in work by its leader alone: all that a :class:`Batch` of it would be made of."""


class Batch:
    """One tick in work.

    :param tick: what there is to do
    :param helm: whose it is
    :param claims: the tasks that nobody has taken yet
    :param order: the positions of all of them, in the order of taking
    :param values: what each task returned, by position
    :param ends: when each ended, by position; a time before the tick began if it did not
    :param begun: when the first began
    """

    __slots__ = (
        "begun",
        "claims",
        "ends",
        "helm",
        "help",
        "order",
        "overdue",
        "progress",
        "starts",
        "tick",
        "values",
    )

    def __init__(
        self,
        tick: Tick,
        helm: Helm,
        claims: Claims,
        order: Sequence[int],
        values: list[Any],
        ends: list[float],
        begun: float,
    ) -> None:
        self.tick: Tick = tick
        self.helm: Helm = helm
        self.claims: Claims = claims
        self.order: Sequence[int] = order
        self.values: list[Any] = values
        self.ends: list[float] = ends
        self.begun: float = begun
        self.starts: dict[int, float] = {}  # of tasks that did not begin as the one before ended
        self.overdue: dict[int, str] = {}  # position: why nothing is waited for any more
        self.help: Help = Help.NONE
        self.progress: Alarm = Alarm()  # rung when a thread is through
        helm.append(self)

    @classmethod
    def of(cls, alone: Alone) -> Batch:
        """Make a batch of a tick that its leader has had alone."""
        helm, tick, claims, values, ends, begun = alone
        return cls(tick, helm, claims, range(len(values)), values, ends, begun)

    @property
    def window(self) -> Window:
        """The window of its tick."""
        start, end, _ = self.tick[1]
        return Window(start, end)

    def work(self, hand: Hand) -> None:
        """Run tasks until none is left to take, beside whoever else does."""
        view, (begin, until, _) = self.tick
        values, ends, starts = self.values, self.ends, self.starts
        hand.batch = self
        for position, run in self.claims:
            hand.position = position
            starts[position] = clock()
            try:
                values[position] = run(view, begin, until)
            except BaseException as raised:
                values[position] = Raised(raised)
            ends[position] = clock()
        hand.batch = None
        self.progress.ring()

    def is_running(self, position: int) -> bool:
        """Whether a task that was taken has not come back."""
        return self.ends[position] < self.begun

    def at_work(self) -> list[tuple[int, float]]:
        """The tasks that are waited for: position, and since when, in the order of taking.

        One that the leader has, or is yet to take, counts from the end of the last one it had.
        """
        latest = self.begun
        found: list[tuple[int, float]] = []
        for position in self.order:
            end = self.ends[position]
            if position in self.overdue:
                continue
            if end < self.begun:
                found.append((position, self.starts.get(position, latest)))
            elif position not in self.starts:
                latest = end
        return found

    def spans(self) -> dict[int, tuple[float, float]]:
        """When each task began that came to an end, and how long it ran, by position."""
        spans: dict[int, tuple[float, float]] = {}
        before = self.begun
        for position in self.order:
            end = self.ends[position]
            if end < self.begun:
                continue
            start = self.starts.get(position)
            if start is None:
                start, before = before, end
            spans[position] = start, end - start
        return spans

    def seconds(self) -> dict[int, float]:
        """How long each task ran that came to an end, by position."""
        return {position: seconds for position, (_, seconds) in self.spans().items()}

    def dataset(self, roster: Roster, took: float, task_timeout: float) -> DataSet[Any]:
        """What came of it.

        :param roster: the tasks
        :param took: how long it took, in seconds
        :param task_timeout: from how many seconds on a result is too late
        """
        spans = self.spans()
        values: dict[str, Any] = {}
        errors: dict[str, TaskError] = {}
        for position, name in enumerate(roster.names):
            # A task that hangs may yet write to the lists it was given: the mappings do not change.
            value = self.values[position]
            if position in self.overdue:
                errors[name] = TaskTimeout(name, self.window, self.overdue[position])
            elif (seconds := spans[position][1]) > task_timeout:
                reason = f"it ran for {seconds:.3g} s, task_timeout is {task_timeout:g} s"
                errors[name] = TaskTimeout(name, self.window, reason)
            elif type(value) is Raised:
                errors[name] = failed(name, self.window, value.exception)
            else:
                values[name] = value
        ended = [(name, *spans[i]) for i, name in enumerate(roster.names) if i in spans]
        durations = {name: seconds for name, _, seconds in ended}
        starts = {name: start - self.begun for name, start, _ in ended}
        lateness = self.tick[1][2] / 1e9
        return DataSet(self.window, values, errors, durations, lateness, took, starts=starts)
