"""What all shards gave for a window, put together in one order: that of the keys."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain
from operator import is_, itemgetter
from typing import Any, Final, NamedTuple

from run_task._window import Window
from run_task.cluster._bytes import of_bytes
from run_task.cluster._messages import ShardResults
from run_task.cluster._results import error_of
from run_task.errors import TaskError, TaskLost, described
from run_task.executors._states import Stepped
from run_task.executors.processes._exceptions import PICKLED


class ShardPart(NamedTuple):
    """What one shard gave."""

    keys: Sequence[Any]
    results: ShardResults | None
    """None: nothing."""

    reason: str | None = None
    """Why there is nothing."""


class MergedResults(NamedTuple):
    """What all gave, as a KeyedDataSet is made of it."""

    keys: Sequence[Any]
    flat: Sequence[Any]
    seconds: Sequence[float]
    errors: dict[Any, TaskError]
    unloaded: Collection[int]
    """Parts, by position, of which a step of a task with a state cannot be loaded: its shard has
    gone on from there."""


class ShardMerging:
    """Puts together what shards give for the windows of a stage.

    :param names: the tasks, in order
    :param stateful: the positions of those that have a state
    """

    def __init__(self, names: Sequence[str], stateful: Collection[int]) -> None:
        self._names = names
        self._stateful = frozenset(stateful)
        # Of the last window: the keys of each part, all in order, and where each of these stands
        # in the parts, one after another.
        self._known: tuple[Sequence[Sequence[Any]], Sequence[Any], Sequence[int]] | None = None

    def merge(
        self,
        window: Window,
        all_keys: Callable[[], Sequence[Any]],
        parts: Sequence[ShardPart],
        *,
        whole: bool,
    ) -> MergedResults:
        """Put together what was given for a window.

        :param window: the window
        :param all_keys: gives all keys that there are, in order: it is called where the keys of
            parts are others than those of the window before
        :param parts: what each shard gave
        :param whole: whether no shard is missing
        """
        keys, order = self._in_order(all_keys, [part.keys for part in parts], whole=whole)
        count = len(self._names)
        flat: list[Any] = [None] * (count * len(keys))
        errors: dict[tuple[int, int], TaskError] = {}
        seconds = [0.0] * count
        offsets = [0]
        for part in parts:
            offsets.append(offsets[-1] + len(part.keys))
            if part.results is not None:
                seconds = [a + b for a, b in zip(seconds, part.results.seconds)]
        for task in range(count):
            column: list[Any] = []
            for part in parts:
                column += self._column(part, task)
            flat[task::count] = _picked(column, order)
        unloaded: set[int] = set()
        place_of: dict[int, int] = {}
        if any(part.results is None or part.results.own or part.results.faults for part in parts):
            place_of = {at: place for place, at in enumerate(order)}
        for number, (part, offset) in enumerate(zip(parts, offsets)):
            for task, place, error in self._faults(part, window):
                errors[task, place_of[offset + place]] = error
            for task, place, data in () if part.results is None else part.results.own:
                at = place_of[offset + place]
                try:
                    flat[at * count + task] = of_bytes(data)
                except BaseException as error:  # any code of its class may have run
                    reason = f"its result cannot be loaded ({described(error)}): {PICKLED}"
                    errors[task, at] = TaskError(self._names[task], window, reason, keys[at])
                    if task in self._stateful:
                        unloaded.add(number)
        return MergedResults(keys, flat, seconds, self._named(errors, keys, window), unloaded)

    def steps(self, part: ShardPart) -> Iterator[tuple[int, int, Stepped]]:
        """The steps of tasks that have a state: the task, the place of the key, and the step."""
        assert part.results is not None
        failed = {(task, place) for task, place, _ in part.results.faults}
        for task in part.results.states:
            if (task, None) in failed:
                continue
            own: dict[int, Any] = {}
            for at, place, data in part.results.own:
                if at != task:
                    continue
                try:
                    own[place] = of_bytes(data)
                except BaseException:  # it has not been in the window itself, and is told of then
                    failed.add((task, place))
            for place, step in enumerate(self._column(part, task)):
                if (task, place) not in failed:
                    yield task, place, own.get(place, step)

    def _column(self, part: ShardPart, task: int) -> Sequence[Any]:
        results = part.results
        if results is None:
            return [None] * len(part.keys)
        column: Sequence[Any] = results.columns[task]
        column = list(column)
        if task not in self._stateful:
            return column
        states = results.states.get(task)
        if states is None:
            return column
        return [Stepped(result, state) for result, state in zip(column, states)]

    def _faults(self, part: ShardPart, window: Window) -> Sequence[tuple[int, int, TaskError]]:
        found: list[tuple[int, int, TaskError]] = []
        if part.results is None:
            for task, name in enumerate(self._names):
                for at, key in enumerate(part.keys):
                    found.append((task, at, TaskLost(name, window, part.reason, key)))
            return found
        for task, place, data in part.results.faults:
            for at in range(len(part.keys)) if place is None else (place,):
                error = error_of(data, self._names[task], window, part.keys[at])
                found.append((task, at, error))
        return found

    def _named(
        self, errors: dict[tuple[int, int], TaskError], keys: Sequence[Any], window: Window
    ) -> dict[Any, TaskError]:
        return {(self._names[task], keys[at]): errors[task, at] for task, at in sorted(errors)}

    def _in_order(
        self,
        all_keys: Callable[[], Sequence[Any]],
        of_parts: Sequence[Sequence[Any]],
        *,
        whole: bool,
    ) -> tuple[Sequence[Any], Sequence[int]]:
        known = self._known
        if (
            known is not None
            and whole
            and len(known[0]) == len(of_parts)
            and all(map(is_, known[0], of_parts))
        ):
            return known[1], known[2]
        place_of = {key: at for at, key in enumerate(chain.from_iterable(of_parts))}
        keys = all_keys()
        if not whole:
            keys = [key for key in keys if key in place_of]
        order = [place_of[key] for key in keys]
        self._known = (list(of_parts), keys, order) if whole else None
        return keys, order


def _picked(column: Sequence[Any], order: Sequence[int]) -> Sequence[Any]:
    if len(order) < _TWO:
        return [column[at] for at in order]
    picked: tuple[Any, ...] = itemgetter(*order)(column)
    return picked


_TWO: Final = 2
