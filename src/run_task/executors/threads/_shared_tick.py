"""One tick that several threads work on, or one thread that has to be watched.

All take their next task from one iterator, and note what came of it at the task's own position: so
nothing has to be agreed on, and nothing is handed over for a task. (To take the next item of a list
iterator is one operation under the GIL; without it, two threads may be given the same task.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from run_task._window import Window
from run_task.executors._outcomes import Failure, Run, Spans, clock, dataset_of
from run_task.executors._protocol import Ticks
from run_task.executors.threads._helper_policy import Help
from run_task.executors.threads._stand_in import SingleTicks
from run_task.sync._alarm import Alarm
from run_task.tasks._dataset import DataSet, Roster
from run_task.tasks._keyed import AnyDataSet
from run_task.tasks._tick import Tick, TickParts

Claims: TypeAlias = Iterator[tuple[int, Run]]
"""Where threads take their next task from: its position, and what it does."""


class Worker:
    """A thread that takes tasks, and the task that it has in hand."""

    __slots__ = ("abandoned", "alarm", "position", "shared", "since")

    def __init__(self) -> None:
        self.alarm: Alarm = Alarm()
        self.shared: SharedWork | None = None
        self.position: int = -1
        self.since: float = 0.0
        self.abandoned: bool = False


class Leader(Worker):
    """The thread that drives a runner's loop, and the tick that it has in hand alone.

    The leader writes its fields at every tick, and the watch reads them without a lock. It reads
    ``ownership`` first, and of a tick that is over by then that tells it so: see :meth:`share`.

    :param ticks: where its ticks come from; None: there are none yet
    :param values: where it notes what tasks return, by position
    :param ends: where it notes when they end
    """

    __slots__ = ("begun", "claims", "ends", "ownership", "parts", "ticks", "values")

    def __init__(
        self, ticks: Ticks | SingleTicks | None, values: list[Any], ends: list[float]
    ) -> None:
        super().__init__()
        self.ticks: Ticks | SingleTicks | None = ticks
        self.parts: TickParts | None = None
        self.ownership: Ownership = []
        self.claims: Claims = iter(())
        self.values: list[Any] = values
        self.ends: list[float] = ends
        self.begun: float = 0.0

    def share(self, roster: Roster) -> SharedTick | None:
        """Make its tick one that others may work on, too; None if it has none.

        If the tick is over by then, ``is_over`` says so. If not, no later one has begun, so all
        that was read is of one tick.
        """
        ownership = self.ownership
        parts, claims, values, ends, begun = (
            self.parts,
            self.claims,
            self.values,
            self.ends,
            self.begun,
        )
        if parts is None:
            return None
        order = range(len(values))
        return SharedTick(Tick.of(parts), ownership, roster, claims, order, values, ends, begun)


Ownership: TypeAlias = "list[Leader | SharedWork]"
"""Whose tick it is: a new list for each, with its leader in it. To finish the tick, the leader is
taken out: by itself, or by its successor. That is one operation, so only one of them can. Behind
the leader stands the :class:`SharedWork`, once there is one."""


class SharedWork(ABC):
    """One tick in work by several threads: what each does has a position.

    :param tick: what there is to do
    :param ownership: whose it is
    :param begun: when the first began
    """

    __slots__ = ("begun", "helped", "overdue", "ownership", "progress", "succession", "tick")

    def __init__(self, tick: Tick, ownership: Ownership, begun: float) -> None:
        self.tick: Tick = tick
        self.ownership: Ownership = ownership
        self.begun: float = begun
        # By position, why nothing is waited for any more; a window: it is still running from that.
        self.overdue: Mapping[int, str | Window] = {}
        self.helped: Help = Help.NONE
        self.succession: bool = False  # whether a thread has been started to take the lead
        self.progress: Alarm = Alarm()  # rung when a thread is done
        ownership.append(self)

    @property
    def is_over(self) -> bool:
        """Whether its leader had taken itself out before it was shared."""
        return self.ownership[0] is self

    @property
    def leader(self) -> Leader | None:
        """Who has the lead; None once it is finished."""
        return next((who for who in tuple(self.ownership) if isinstance(who, Leader)), None)

    @abstractmethod
    def work(self, worker: Worker) -> None:
        """Run tasks until none is left to take, while other threads may do the same."""

    @abstractmethod
    def is_running(self, position: int) -> bool:
        """Whether what was taken has not come back."""

    @abstractmethod
    def at_work(self) -> Sequence[tuple[int, float]]:
        """What is waited for: its position, and since when. A position below zero is of a thread
        that is about to take something."""

    @abstractmethod
    def in_hand(self, leader: Leader) -> tuple[int, float] | None:
        """What the leader is at: its position, and since when; None: nothing."""

    @abstractmethod
    def job(self, position: int) -> Hashable:
        """What it is, in all ticks."""

    @abstractmethod
    def label(self, position: int) -> str:
        """What it is called in messages."""

    @abstractmethod
    def costs(self) -> Mapping[int, float]:
        """How many seconds parts of it took, by position."""

    @abstractmethod
    def dataset(self, took: float, task_timeout: float) -> AnyDataSet:
        """Put together what came of it, once nothing is waited for.

        :param took: how many seconds it took
        :param task_timeout: from how many seconds on a result is too late
        """


class SharedTick(SharedWork):
    """One tick without keys in work by several threads.

    :param tick: what there is to do
    :param ownership: whose it is
    :param roster: the tasks
    :param claims: the tasks that no thread has taken yet
    :param order: the positions of all of them, in the order of taking
    :param values: what each task returned, by position
    :param ends: when each ended, by position; a time before the tick began if it did not
    :param begun: when the first began
    """

    __slots__ = ("claims", "ends", "order", "roster", "starts", "values")

    def __init__(
        self,
        tick: Tick,
        ownership: Ownership,
        roster: Roster,
        claims: Claims,
        order: Sequence[int],
        values: list[Any],
        ends: list[float],
        begun: float,
    ) -> None:
        self.roster = roster
        self.claims: Claims = claims
        self.order: Sequence[int] = order
        self.values: list[Any] = values
        self.ends: list[float] = ends
        self.starts: dict[int, float] = {}  # of tasks that did not begin as the one before ended
        super().__init__(tick, ownership, begun)

    def work(self, worker: Worker) -> None:
        tick = self.tick
        view = tick.view
        begin, until, _ = tick.due
        values, ends, starts = self.values, self.ends, self.starts
        worker.shared = self
        for position, run in self.claims:
            worker.position = position
            starts[position] = clock()
            try:
                values[position] = run(view, begin, until)
            except BaseException as raised:
                values[position] = Failure(raised)
            ends[position] = clock()
        worker.shared = None
        self.progress.ring()

    def is_running(self, position: int) -> bool:
        return self.ends[position] < self.begun

    def job(self, position: int) -> int:
        return position

    def label(self, position: int) -> str:
        return self.roster.names[position]

    def in_hand(self, leader: Leader) -> tuple[int, float] | None:
        taken = self.at_work()
        if leader.shared is self:
            taken = [task for task in taken if task[0] == leader.position]
        else:
            taken = [task for task in taken if task[0] not in self.starts]
        # Tasks are taken in order: the first that is not a helper's is the leader's.
        return taken[0] if taken else None

    def costs(self) -> Mapping[int, float]:
        return {position: seconds for position, (_, seconds) in self.spans().items()}

    def dataset(self, took: float, task_timeout: float) -> DataSet[Any]:
        return dataset_of(
            self.tick,
            self.roster,
            self.values,
            self.spans(),
            self.begun,
            took,
            task_timeout,
            self.overdue,
        )

    def at_work(self) -> list[tuple[int, float]]:
        # One that the leader has, or is yet to take, counts from the end of the last one it had.
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

    def spans(self) -> Spans:
        """When each task ran that came to an end, by position."""
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
