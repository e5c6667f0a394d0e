"""What a window gave in a shard, on its way to the driver.

Plain values go by column. Whatever may run code when it is pickled or loaded goes on its own, so
that what cannot be sent fails for its own task and key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from run_task._window import Window
from run_task.cluster._bytes import as_bytes, joined, of_bytes
from run_task.cluster._messages import ShardResults
from run_task.data.series._keyed_view import KeyedView
from run_task.errors import TaskError, TaskTimeout, described
from run_task.executors._protocol import failed
from run_task.executors._states import Stepped
from run_task.executors.processes._columns import PLAIN, as_column, is_plain
from run_task.executors.processes._exceptions import portable, unsendable
from run_task.executors.processes._task_states import named
from run_task.tasks._keyed import KeyedDataSet

_Fault = tuple[int, int | None, bytes]


class PackedResults:
    """The results of a window, made ready to be sent.

    :param names: the tasks, in order
    :param view: what they were run over
    :param dataset: what they gave: steps, of tasks that have a state
    """

    def __init__(
        self, names: Sequence[str], view: KeyedView, dataset: KeyedDataSet[Any, Any]
    ) -> None:
        self._names = names
        self._keys: Sequence[Any] = view.keys
        self._own: list[tuple[int, int, bytes]] = []
        self._faults: list[_Fault] = []
        self._dataset = dataset
        self.steps: dict[int, list[Stepped | None]] = {}
        """Of tasks that have a state, by position: what counts for each key."""
        places: Mapping[Any, int] | None = None
        for name, error in dataset.errors.items():
            if not isinstance(name, tuple):
                self._faults.append((names.index(name), None, _fault(error)))
                continue
            if places is None:
                places = {key: place for place, key in enumerate(self._keys)}
            self._faults.append((names.index(name[0]), places[name[1]], _fault(error)))
        self._columns: list[Any] = []
        self._states: dict[int, Sequence[Any]] = {}
        for task, column in enumerate(self._of_tasks()):
            kinds = set(map(type, column))  # once: of many keys, it takes most of the time here
            if Stepped in kinds:
                self._columns.append(self._stepped(task, column))
            elif PLAIN.issuperset(kinds):
                self._columns.append(as_column(column, kinds))
            else:
                self._columns.append(self._plain(task, column))

    def message(
        self, keys_before: Sequence[Any] | None, unwritten: Mapping[int, str]
    ) -> ShardResults:
        """The message.

        :param keys_before: the keys of the reply before
        :param unwritten: the sinks that were to be written to, and were not, and why
        """
        durations = self._dataset.durations
        return ShardResults(
            keys=None if keys_before is not None and keys_before == self._keys else self._keys,
            columns=self._columns,
            states=self._states,
            own=self._own,
            faults=self._faults,
            seconds=[durations.get(name, 0.0) for name in self._names],
            took=self._dataset.took,
            unwritten=unwritten,
        )

    def _of_tasks(self) -> Sequence[Sequence[Any]]:
        dataset, keys = self._dataset, self._keys
        given = dict(dataset.by_task())
        if dataset.keys_of_rows != keys:
            there = {key: place for place, key in enumerate(dataset.keys_of_rows)}
            order = [there.get(key) for key in keys]
            given = {
                name: [None if place is None else column[place] for place in order]
                for name, column in given.items()
            }
        nothing = [None] * len(keys)
        return [given.get(name, nothing) for name in self._names]

    def _plain(self, task: int, column: Sequence[Any]) -> Sequence[Any]:
        made = list(column)
        for place, value in enumerate(made):
            if not is_plain(value):
                made[place] = None
                self._send_alone(task, place, value)
        return made

    def _stepped(self, task: int, column: Sequence[Any]) -> Sequence[Any]:
        results: list[Any] = [None] * len(column)
        states: list[Any] = [None] * len(column)
        steps: list[Stepped | None] = [None] * len(column)
        for place, step in enumerate(column):
            if type(step) is not Stepped:
                continue  # the task has failed
            if is_plain(step.result) and is_plain(step.state):
                results[place], states[place] = step.result, step.state
            elif not self._send_alone(task, place, step):
                continue
            steps[place] = step
        self.steps[task] = steps
        self._states[task] = states
        return results

    def _send_alone(self, task: int, place: int, value: Any) -> bool:
        try:
            self._own.append((task, place, as_bytes(value)))
        except Exception as error:
            fault = as_bytes((_RAISED, joined(unsendable(named(value), error))))
            self._faults.append((task, place, fault))
            return False
        return True


_RAISED: Final = "raised"
_LATE: Final = "late"
_OTHER: Final = "other"


def _fault(error: TaskError) -> bytes:
    cause = error.__cause__
    if isinstance(error, TaskTimeout):
        return as_bytes((_LATE, (error.reason, error.since and tuple(error.since))))
    if cause is None or error.reason is not None:
        return as_bytes((_OTHER, (type(error), error.told)))
    return as_bytes((_RAISED, joined(portable(cause))))


def error_of(data: bytes, task: str, window: Window, key: Any) -> TaskError:
    """The error that a fault tells of.

    :param task: the task's name
    :param window: the window
    :param key: for which key; None: for all
    """
    try:
        what, told = of_bytes(data)
        if what == _LATE:
            reason, since = told
            if since is not None:
                return TaskTimeout(task, window, key=key, since=Window(*since))
            return TaskTimeout(task, window, reason, key)
        if what == _OTHER:
            kind, reason = told
            lost: TaskError = kind(task, window, reason, key)
            return lost
        cause, note = of_bytes(told)
    except BaseException as error:  # any code of its class may have run
        return TaskError(task, window, f"its error cannot be loaded ({described(error)})", key)
    made = failed(task, window, cause, key)
    try:
        cause.add_note(note.replace("in the worker process", "in its shard", 1))
    except BaseException:  # it refuses to be assigned to
        made.add_note(note)
    return made
