"""One tick that several threads work on, or one thread that has to be watched.

All take their next task from one iterator, and note what came of it at the task's own position: so
nothing has to be agreed on, and nothing is handed over for a task. (To take the next item of a list
iterator is one operation under the GIL; without it, two threads may be given the same task.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from run_task._window import Window
from run_task.executors._outcomes import Failure, Run, Spans, clock
from run_task.executors._protocol import Ticks
from run_task.executors.threads._helper_policy import Help
from run_task.sync._alarm import Alarm
from run_task.tasks._tick import Tick, TickParts

Claims: TypeAlias = Iterator[tuple[int, Run]]
"""Where threads take their next task from: its position, and what it does."""


class Worker:
    """A thread that takes tasks, and the task that it has in hand."""

    __slots__ = ("abandoned", "alarm", "position", "shared")

    def __init__(self) -> None:
        self.alarm: Alarm = Alarm()
        self.shared: SharedTick | None = None
        self.position: int = -1
        self.abandoned: bool = False


class Leader(Worker):
    """The thread that drives a runner's loop, and the tick that it has in hand alone.

    The leader writes its fields at every tick, and the watch reads them without a lock. It reads
    ``ownership`` first, and of a tick that is over by then that tells it so: see :meth:`share`.

    :param ticks: the loop; None: none yet
    :param values: where it notes what tasks return, by position
    :param ends: where it notes when they end
    """

    __slots__ = ("begun", "claims", "ends", "ownership", "parts", "ticks", "values")

    def __init__(self, ticks: Ticks | None, values: list[Any], ends: list[float]) -> None:
        super().__init__()
        self.ticks: Ticks | None = ticks
        self.parts: TickParts | None = None
        self.ownership: Ownership = []
        self.claims: Claims = iter(())
        self.values: list[Any] = values
        self.ends: list[float] = ends
        self.begun: float = 0.0

    def share(self) -> SharedTick | None:
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
        return SharedTick(Tick.of(parts), ownership, claims, order, values, ends, begun)


Ownership: TypeAlias = "list[Leader | SharedTick]"
"""Whose tick it is: a new list for each, with its leader in it. To finish the tick, the leader is
taken out: by itself, or by its successor. That is one operation, so only one of them can. Behind
the leader stands the :class:`SharedTick`, once there is one."""


class SharedTick:
    """One tick in work by several threads.

    :param tick: what there is to do
    :param ownership: whose it is
    :param claims: the tasks that no thread has taken yet
    :param order: the positions of all of them, in the order of taking
    :param values: what each task returned, by position
    :param ends: when each ended, by position; a time before the tick began if it did not
    :param begun: when the first began
    """

    __slots__ = (
        "begun",
        "claims",
        "ends",
        "helped",
        "order",
        "overdue",
        "ownership",
        "progress",
        "starts",
        "succession",
        "tick",
        "values",
    )

    def __init__(
        self,
        tick: Tick,
        ownership: Ownership,
        claims: Claims,
        order: Sequence[int],
        values: list[Any],
        ends: list[float],
        begun: float,
    ) -> None:
        self.tick: Tick = tick
        self.ownership: Ownership = ownership
        self.claims: Claims = claims
        self.order: Sequence[int] = order
        self.values: list[Any] = values
        self.ends: list[float] = ends
        self.begun: float = begun
        self.starts: dict[int, float] = {}  # of tasks that did not begin as the one before ended
        # By position, why nothing is waited for any more; a window: it is still running from that.
        self.overdue: dict[int, str | Window] = {}
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

    def work(self, worker: Worker) -> None:
        """Run tasks until none is left to take, while other threads may do the same."""
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
