"""What a worker process does with keys: it runs every task for each of some keys, and reports."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, TypeAlias

from run_task.data.series._keyed_view import KeyedView, KeyView
from run_task.executors._outcomes import Run
from run_task.executors._states import Stepped, Stepper, key_of
from run_task.executors.processes._columns import PLAIN, ResultColumns, is_plain, packed_columns
from run_task.executors.processes._exceptions import LESS, LoadFailure, portable, unsendable
from run_task.executors.processes._keyed_states import KeyedStatesSent
from run_task.executors.processes._messages import KeyedReport, KeyedWork
from run_task.executors.processes._progress import Progress
from run_task.executors.processes._task_states import named, stepped
from run_task.executors.processes._wire import loads, pack, pickled

REPORT_AFTER: Final = 0.05
"""After how many seconds it reports the keys that it is done with. If it dies, or is ended for a
task that hangs, what is not reported is run again."""


class KeyedTasks:
    """Tasks that are run for each key.

    :param runs: what each does, by position; None: it is not loaded
    :param steppers: those that have a state, by position
    :param progress: notes the job in hand
    :param task_timeout: from how many seconds on a result is too late
    """

    def __init__(
        self,
        runs: Sequence[Run | LoadFailure | None],
        steppers: Mapping[int, Stepper],
        progress: Progress,
        task_timeout: float,
    ) -> None:
        self._progress = progress
        self._timeout = task_timeout
        self._count = len(runs)
        self._steppers = steppers
        self._runs = [
            (i, partial(_step, steppers[i]) if i in steppers else run)
            for i, run in enumerate(runs)
            if callable(run)
        ]
        self._failures = {i: run for i, run in enumerate(runs) if isinstance(run, LoadFailure)}
        # By task and key, in the place of a state that came, until the job is reported.
        self._unloaded: dict[tuple[int, Any], LoadFailure] = {}
        self._views: Sequence[KeyView] = ()  # of the shard in hand
        self._views_of: tuple[Any, int, int] | None = None

    def take_states(self, counts: Sequence[tuple[int, int]], pieces: Sequence[memoryview]) -> None:
        """Take in the states that come with an assignment.

        :param counts: how many pieces those have that come together, and then each of the others
        :param pieces: the pieces
        """
        rest = iter(pieces)
        (_, count), *counts_alone = counts
        sent: KeyedStatesSent = loads(list(islice(rest, count)))
        together, alone = sent
        for task, (keys, states, anew) in together.items():
            if task not in self._steppers:
                continue  # it could not be loaded
            own = self._steppers[task].states
            own.update(zip(keys, states))
            for key in anew:
                own.pop(key, None)
            for key in (*keys, *anew):
                self._unloaded.pop((task, key), None)
        for (task, key), (_, count) in zip(alone, counts_alone):
            own_pieces = list(islice(rest, count))
            if task not in self._steppers:
                continue
            self._unloaded.pop((task, key), None)
            try:
                self._steppers[task].states[key] = loads(own_pieces)
            except BaseException as error:  # any code of theirs may have run
                self._unloaded[task, key] = LoadFailure(error, "its state")

    def clear(self) -> None:
        """Let go of the data."""
        self._views, self._views_of = (), None

    def run(
        self, data: Any, window: tuple[int, int], work: KeyedWork
    ) -> tuple[KeyedReport, list[int]]:
        """Run them.

        :param data: the keyed view, or why there is none
        :return: the report, and the descriptors that go with it, the caller's to close
        """
        count = self._count
        made = _Made(count)
        if isinstance(data, LoadFailure):
            made.failed = dict.fromkeys(range(count), data)
            return made.report(work.first)
        of = data, work.shard, work.shards
        if self._views_of != of:
            self.clear()  # before the next is there
            keyed: KeyedView = data.part(work.shard, work.shards)
            self._views, self._views_of = keyed.views(), of
        made.failed = self._failures
        views, limit, skipped = self._views, self._timeout, frozenset(work.skipped)
        begin, clock, plain = self._progress.noting(), time.perf_counter, PLAIN
        start, end = window
        outcomes, seconds = made.outcomes, made.seconds
        jobs = [(task, run, made.column(task).append) for task, run in self._runs]
        unloaded = self._unloaded
        place, stop = work.first, len(views) if work.stop is None else work.stop
        now = begun = clock()
        while place < stop and now - begun < REPORT_AFTER:
            view = views[place]
            for task, run, add in jobs:
                position = place * count + task
                if skipped and position in skipped:
                    add(None)
                    continue
                if unloaded and (failure := unloaded.pop((task, key_of(view)), None)) is not None:
                    outcomes.append((position, True, failure.pieces))
                    add(None)
                    continue
                since = now
                begin(since, position)
                try:
                    value = run(view, start, end)
                except BaseException as error:
                    now = clock()
                    outcomes.append((position, True, portable(error)))
                    value = None
                else:
                    now = clock()
                seconds[task] += now - since
                if now - since > limit:
                    made.late.append((position, now - since))
                if type(value) in plain:
                    add(value)
                else:
                    add(made.entry(position, value))
                    now = clock()  # that was no part of the job, nor is it of the next
            place += 1
        self._progress.finish()
        if place == stop:
            self.clear()
        return made.report(place)


_Pieces: TypeAlias = Sequence[memoryview]
_JobOutcome: TypeAlias = tuple[int, bool, _Pieces]


def _step(stepper: Stepper, view: Any, start: int, end: int) -> Stepped:
    """Run a task with the state of the key whose rows it is given."""
    return stepped(stepper, stepper.states, key_of(view), view, (start, end))


def _sendable(position: int, result: object) -> _JobOutcome:
    try:
        return position, False, pickled(result)
    except Exception as error:
        return position, True, unsendable(named(result), error)


class _Made:
    """What came of jobs so far."""

    def __init__(self, count: int) -> None:
        self.columns: ResultColumns = [None] * count
        self.seconds = [0.0] * count
        self.late: list[tuple[int, float]] = []
        self.outcomes: list[_JobOutcome] = []
        self.failed: Mapping[int, LoadFailure] = {}

    def column(self, task: int) -> list[Any]:
        self.columns[task] = column = list[Any]()
        return column

    def entry(self, position: int, value: Any) -> Any:
        """What stands for a result in its column: itself, or None if it goes on its own."""
        if type(value) is Stepped:
            if is_plain(value.result) and is_plain(value.state):
                return value.result, value.state, value.is_unchanged
        elif is_plain(value):
            return value
        self.outcomes.append(_sendable(position, value))
        return None

    def report(self, stop: int) -> tuple[KeyedReport, list[int]]:
        columns = packed_columns(self.columns)
        failed = [(task, failure.pieces) for task, failure in self.failed.items()]
        while True:
            pieces = [*columns]
            for _, _, own in self.outcomes:
                pieces += own
            for _, own in failed:
                pieces += own
            try:
                payload, memory = pack(pieces)
                break
            except (MemoryError, OSError) as error:
                self._leave_out_the_largest(error)
        outcomes = [(position, raised, len(own)) for position, raised, own in self.outcomes]
        counts = [(task, len(own)) for task, own in failed]
        made = stop, self.seconds, self.late, outcomes, counts, len(columns), payload
        return KeyedReport(*made), memory

    def _leave_out_the_largest(self, error: Exception) -> None:
        """There is no room for all results: an error goes in the place of the largest."""
        largest = max(range(len(self.outcomes)), key=lambda i: _size(self.outcomes[i]), default=-1)
        if largest < 0 or self.outcomes[largest][1]:
            raise error
        size = _size(self.outcomes[largest])
        position = self.outcomes[largest][0]
        told = unsendable(f"of {size:,} bytes", error, LESS)
        self.outcomes[largest] = position, True, told


def _size(outcome: _JobOutcome) -> int:
    return sum(piece.nbytes for piece in outcome[2])
