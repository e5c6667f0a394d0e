"""One tick by key that several threads work on: every task once for each key.

Tens of thousands of pieces of work are taken from one range iterator, which is one operation under
the GIL, as with tasks. What is noted of each is what it returned; which thread is at which piece,
and since when, the threads themselves say.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Final

from run_task._window import Window
from run_task.data.series._keyed_view import KeyedView
from run_task.executors._outcomes import Run, clock, keyed_dataset_of, late
from run_task.executors.threads._shared_tick import Leader, SharedWork, Worker
from run_task.tasks._dataset import Roster
from run_task.tasks._keyed import KeyedDataSet
from run_task.tasks._tick import Tick

PARTS: Final = 16
"""Into how many parts of like cost the work is taken to be divided, to see whether helpers pay."""

_PENDING: Final = object()
"""In the place of a result that is not there yet."""


class KeyedTick(SharedWork):
    """A tick by key in work by several threads.

    The position of a piece of work is that of its key times the number of tasks, and that of its
    task.

    :param tick: what there is to do
    :param leader: whose it is
    :param runs: what each task does
    :param roster: the tasks
    :param hung: which tasks and keys are still running from an earlier window, and may not begin,
        and from which
    :param task_timeout: how many seconds a task may run for one key
    """

    __slots__ = (
        "_at_work",
        "_claims",
        "_hung",
        "_keyed",
        "_keys",
        "_problems",
        "_roster",
        "_runs",
        "_seconds",
        "_timeout",
        "_values",
        "_views",
    )

    def __init__(
        self,
        tick: Tick,
        leader: Leader,
        runs: Sequence[Run],
        roster: Roster,
        hung: Mapping[Hashable, Window],
        task_timeout: float,
    ) -> None:
        keyed = tick.view
        assert isinstance(keyed, KeyedView)
        self._keyed: KeyedView | None = keyed
        self._views: Sequence[Any] = keyed.views()
        self._keys = keyed.keys
        self._runs = runs
        self._roster = roster
        self._hung = hung
        self._timeout = task_timeout
        count = len(keyed.keys) * len(runs)
        self._values: list[Any] = [_PENDING] * count
        self._problems: dict[int, BaseException | str | Window] = {}
        self._claims: Iterator[int] = iter(range(count))
        self._seconds: list[list[float]] = []  # of each thread, by task
        self._at_work: list[Worker] = []
        super().__init__(tick, [leader], clock())

    def job(self, position: int) -> tuple[int, Any]:
        place, task = divmod(position, len(self._runs))
        return task, self._keys[place]

    def label(self, position: int) -> str:
        task, key = self.job(position)
        return f"{self._roster.names[task]} of {key!r}"

    def work(self, worker: Worker) -> None:
        views = self._views
        begin, until, _ = self.tick.due
        runs, values, hung, keys = self._runs, self._values, self._hung, self._keys
        count, limit = len(runs), self._timeout
        seconds = [0.0] * count
        self._seconds.append(seconds)
        worker.position = -1
        worker.since = since = clock()
        worker.shared = self
        # Before it takes anything: who waits for the tick waits for all that are at work.
        self._at_work.append(worker)
        at, view = -1, None
        for position in self._claims:
            place, task = divmod(position, count)
            if place != at:
                at, view = place, views[place]
            worker.position = position
            if hung and (job := (task, keys[place])) in hung:
                self._problems[position] = hung[job]
                continue
            try:
                value = runs[task](view, begin, until)
            except BaseException as raised:
                value = None
                self._problems[position] = raised
            now = clock()
            seconds[task] += now - since
            if now - since > limit:
                self._problems[position] = late(now - since, limit)
            values[position] = value
            # Before the next position: whoever finds that one does not take this time for its own.
            worker.since = since = now
        self._at_work.remove(worker)
        worker.shared = None
        self.progress.ring()

    def is_running(self, position: int) -> bool:
        return self._values[position] is _PENDING

    def at_work(self) -> list[tuple[int, float]]:
        found: list[tuple[int, float]] = []
        for worker in tuple(self._at_work):
            position, since = worker.position, worker.since
            if position in self.overdue:
                continue
            if position < 0 or not self.is_running(position):
                position, since = -1, clock()  # it is about to take something
            found.append((position, since))
        return found

    def in_hand(self, leader: Leader) -> tuple[int, float] | None:
        position, since = leader.position, leader.since
        if leader.shared is not self or position < 0 or not self.is_running(position):
            return None
        return position, since

    def costs(self) -> Mapping[int, float]:
        part = sum(map(sum, self._seconds)) / PARTS
        return dict.fromkeys(range(PARTS), part)

    def dataset(self, took: float, task_timeout: float) -> KeyedDataSet[Any, Any]:
        keyed = self._keyed
        assert keyed is not None
        self._keyed, self._views = None, ()  # what hangs keeps this tick, but not the data
        seconds = list(map(sum, zip(*self._seconds)))
        problems = {**self._problems, **self.overdue}
        # What hangs may yet write to the list that it was given: the KeyedDataSet has a copy.
        values = self._values.copy()
        return keyed_dataset_of(self.tick, self._roster, keyed, values, seconds, took, problems)
