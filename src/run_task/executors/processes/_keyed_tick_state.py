"""The state of one tick by key while worker processes run it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from run_task._window import Window
from run_task.data._memory import MapMode
from run_task.data.series._keyed_view import KeyedView
from run_task.errors import TaskError, TaskLost, TaskTimeout, described
from run_task.executors._outcomes import late
from run_task.executors._protocol import failed
from run_task.executors._states import Stepped
from run_task.executors.processes._columns import unpacked_columns
from run_task.executors.processes._messages import KeyedReport, KeyedWork
from run_task.executors.processes._wire import loads, unpack
from run_task.tasks._dataset import Roster
from run_task.tasks._keyed import KeyedDataSet
from run_task.tasks._tick import Tick


class _NoResults(NamedTuple):
    """Why a task has no results from some key of a shard on."""

    first: int
    kind: type[TaskError]
    reason: str | None
    cause: BaseException | None


class Shard:
    """Some of the keys of a tick, which one worker has, and how far it has come with them.

    :param number: which of the shards it is
    :param places: where its keys are among all, in order
    """

    __slots__ = ("alone_until", "failed", "first", "number", "places", "skipped")

    def __init__(self, number: int, places: Sequence[int]) -> None:
        self.number: int = number
        self.places: Sequence[int] = places
        self.first: int = 0
        """How many of its keys are done with."""
        self.alone_until: int = 0
        """Up to which of its keys each is run on its own."""
        self.skipped: set[int] = set()
        """The positions of jobs that have an outcome before their key has."""
        self.failed: dict[int, _NoResults] = {}
        """The tasks that have no result for all keys from some on."""

    @property
    def is_done(self) -> bool:
        """Whether it is done with all of its keys."""
        return self.first == len(self.places)

    def work(self, shards: int) -> KeyedWork:
        """What is to be done next.

        :param shards: how many shards there are
        """
        first = self.first
        stop = first + 1 if first < self.alone_until else None
        return KeyedWork(self.number, shards, first, stop, sorted(self.skipped))


def _stepped(entry: Any) -> Stepped | None:
    """What a task with a state gave, of what stands for it in a column."""
    if entry is None:
        return None
    result, state, is_unchanged = entry
    return Stepped(result, state, is_unchanged=is_unchanged)


class KeyedTickState:
    """A tick in work: what is still to be handed out, and what came of the rest.

    :param roster: the tasks
    :param tick: what there is to do
    :param keyed: its view
    :param shards: the places of the keys of each shard; of a shard without keys, none
    :param stateful: the tasks that have a state
    :param task_timeout: from how many seconds on a result is too late
    """

    def __init__(
        self,
        roster: Roster,
        tick: Tick,
        keyed: KeyedView,
        shards: Sequence[Sequence[int]],
        stateful: Collection[int],
        task_timeout: float,
    ) -> None:
        self.roster = roster
        self.tick = tick
        self._keyed = keyed
        self._keys = keyed.keys
        self._count = len(roster.names)
        self._stateful = stateful
        self._timeout = task_timeout
        self._shards = [Shard(i, places) for i, places in enumerate(shards) if places]
        self.queue: deque[Shard] = deque(self._shards)
        self._values: list[Any] = [None] * (len(self._keys) * self._count)
        self._errors: dict[tuple[int, int], TaskError] = {}  # by the places of task and key
        self._seconds = [0.0] * self._count
        self.deaths = 0

    @property
    def window(self) -> Window:
        """The window that the tasks are run for."""
        return self.tick.window

    @property
    def is_over(self) -> bool:
        """Whether every task has an outcome for every key."""
        return all(shard.is_done for shard in self._shards)

    def is_open(self, work: Shard, position: int) -> bool:
        """Whether a task has no outcome yet for a key."""
        place, task = divmod(position, self._count)
        return place >= work.first and task not in work.failed and position not in work.skipped

    def job(self, work: Shard, position: int) -> tuple[str, Any]:
        """Of which task a job is, and of which key."""
        place, task = divmod(position, self._count)
        # Whoever asks from another thread may ask for a job of the work before.
        place = min(place, len(work.places) - 1)
        return self.roster.names[task], self._keys[work.places[place]]

    def blame(self, work: Shard, position: int, kind: type[TaskError], reason: str) -> None:
        """A task has no result for a key."""
        work.skipped.add(position)
        self._fail(work, position, kind, reason)

    def keys_of(self, work: Shard) -> Sequence[Any]:
        """The keys of a shard that have no outcome yet."""
        return [self._keys[place] for place in work.places[work.first :]]

    def fail_stateful(self, work: Shard, reason: str, cause: BaseException) -> None:
        """The tasks that have a state have no result for the rest of a shard."""
        for task in self._stateful:
            self._fail_task(work, task, TaskError, reason, cause)

    def keep_from(self, work: Shard, place: int, task: int, error: BaseException) -> None:
        """The state that a task has for a key cannot be sent to whoever has a shard.

        :param place: of the key, among those of the shard that have no outcome yet
        """
        position = (work.first + place) * self._count + task
        work.skipped.add(position)
        reason = "its state cannot be sent to a worker process"
        self._fail(work, position, TaskError, reason, error)

    def outcomes(
        self, work: Shard, first: int, stop: int
    ) -> Iterator[tuple[Any, Callable[[int], Any]]]:
        """The keys of a part of a shard, each with what gives the result of a task, or None if it
        has none."""
        for place in work.places[first:stop]:
            yield self._keys[place], partial(self._result, place)

    def _result(self, place: int, task: int) -> Any:
        return None if (task, place) in self._errors else self._values[place * self._count + task]

    def put_back(self, work: Shard) -> None:
        """What of a shard has no outcome is to be given to another worker."""
        if not work.is_done:
            self.queue.appendleft(work)

    def part(self, work: Shard, position: int) -> bool:
        """As put_back(), each key up to that of a job on its own; False: it is the first."""
        place = position // self._count
        if place == work.first:
            return False
        work.alone_until = place + 1
        self.put_back(work)
        return True

    def unfinished(self) -> Sequence[str]:
        """The names of the tasks that have no outcome for all keys."""
        return self.roster.names

    def exclude(self, task: int, reason: str) -> None:
        """A task is loaded no more."""
        for shard in self._shards:
            self._fail_task(shard, task, TaskLost, reason)

    def fail_all(
        self, kind: type[TaskError], reason: str, cause: BaseException | None = None
    ) -> None:
        """Every task has this outcome for all keys that have none yet."""
        for shard in self._shards:
            for task in range(self._count):
                self._fail_task(shard, task, kind, reason, cause)
            shard.first = len(shard.places)
        self.queue.clear()

    def take_in(self, work: Shard, report: KeyedReport, memory: list[int]) -> None:
        """Take in what came of work."""
        first, stop = work.first, report.stop
        places = work.places[first:stop]
        count = self._count
        work.first = stop
        for task, seconds in enumerate(report.seconds):
            self._seconds[task] += seconds
        try:
            # Copied, for a mapping has a file open for as long as anybody keeps a result.
            there = unpack(report.payload, memory, MapMode.READ)
            pieces = iter([memoryview(bytearray(piece)) for piece in there])
        except (MemoryError, OSError) as error:
            for task in range(count):
                for position in range(first * count + task, stop * count, count):
                    self._fail(work, position, TaskError, "its result cannot be mapped", error)
            return
        values = self._values
        for task, column in enumerate(unpacked_columns([*islice(pieces, report.columns)])):
            if column is None:
                continue
            given = map(_stepped, column) if task in self._stateful else column
            for place, value in zip(places, given, strict=True):
                values[place * count + task] = value
        for position, raised, pieces_of_it in report.outcomes:
            self._take_result(work, position, [*islice(pieces, pieces_of_it)], raised=raised)
        for position, seconds in report.late:
            self._fail(work, position, TaskTimeout, late(seconds, self._timeout))
        for task, pieces_of_it in report.failed:
            cause, note = loads([*islice(pieces, pieces_of_it)])
            cause.add_note(note)
            self._fail_task(work, task, TaskError, None, cause, first)
        if len(work.failed) == count:
            work.first = len(work.places)

    def _take_result(
        self, work: Shard, position: int, pieces: Sequence[memoryview], *, raised: bool
    ) -> None:
        """Take in what came of a job, if it is no plain value."""
        place, task = self._at(work, position)
        try:
            value = loads(pieces)
            if raised:
                cause, note = value
                name, key = self.roster.names[task], self._keys[place]
                self._errors[task, place] = error = failed(name, self.window, cause, key)
                try:
                    cause.add_note(note)
                except BaseException:  # it refuses to be assigned to
                    error.add_note(note)
            else:
                self._values[place * self._count + task] = value
        except BaseException as error:  # any code of its class may have run
            self._fail(work, position, TaskError, "its result cannot be loaded", error)

    def _at(self, work: Shard, position: int) -> tuple[int, int]:
        """The place of a job's key among all, and its task."""
        place, task = divmod(position, self._count)
        return work.places[place], task

    def _fail(
        self,
        work: Shard,
        position: int,
        kind: type[TaskError],
        reason: str,
        cause: BaseException | None = None,
    ) -> None:
        """A task has no result for a key."""
        place, task = self._at(work, position)
        self._errors[task, place] = self._error(task, _NoResults(0, kind, reason, cause), place)

    def _fail_task(
        self,
        shard: Shard,
        task: int,
        kind: type[TaskError],
        reason: str | None,
        cause: BaseException | None = None,
        first: int | None = None,
    ) -> None:
        """A task has no result for those keys of a shard that have none yet."""
        if first is None:
            first = shard.first
        if task not in shard.failed and first < len(shard.places):
            shard.failed[task] = _NoResults(first, kind, reason, cause)

    def _error(self, task: int, failure: _NoResults, place: int | None = None) -> TaskError:
        reason, cause = failure.reason, failure.cause
        if cause is not None and reason is not None:
            reason = f"{reason} ({described(cause)})"
        key = None if place is None else self._keys[place]
        error = failure.kind(self.roster.names[task], self.window, reason, key)
        # Without its traceback: that would keep alive what was at work.
        error.__cause__ = cause and BaseException.with_traceback(cause, None)
        return error

    def dataset(self, took: float) -> KeyedDataSet[Any, Any]:
        """What came of the tick.

        :param took: how long it took, in seconds
        """
        names, keys = self.roster.names, self._keys
        errors: dict[Any, TaskError] = {}
        of_keys = self._errors
        for task, name in enumerate(names):
            failures = [
                (shard, shard.failed[task]) for shard in self._shards if task in shard.failed
            ]
            if failures and all(
                task in s.failed and not s.failed[task].first for s in self._shards
            ):
                errors[name] = self._error(task, failures[0][1])
                continue
            for shard, failure in failures:
                for place in shard.places[failure.first :]:
                    if (task, place) not in of_keys:
                        of_keys[task, place] = self._error(task, failure, place)
        for task, place in sorted(of_keys):
            if names[task] not in errors:
                errors[names[task], keys[place]] = of_keys[task, place]
        noted = self._values, self._seconds, took, errors or None
        tick = self.tick
        return KeyedDataSet.of(tick.due, tick.behind, self.roster, self._keyed.by, keys, *noted)
