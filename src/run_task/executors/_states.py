"""The states of a runner's tasks, from window to window.

A tick does not change them. What a task gives is its result and the next state together, a
:class:`Stepped`; once the tick is over, and it is settled which results count, the states of those
are taken over. So a task that fails, or comes back when nobody waits for it any more, leaves its
state as it was, whatever the executor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from run_task.data.series._keyed_view import KeyView
from run_task.errors import ConfigError
from run_task.executors._known_keys import KnownKeys
from run_task.observe._format import brief
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import AnyDataSet
from run_task.tasks._state_bytes import to_send
from run_task.tasks._stateful import CHANGED_IN_PLACE, StatefulTask, has_value_hash, with_state
from run_task.tasks._task import Runnable
from run_task.tasks._tick_results import NOTHING

_NO_KEY: Final = None
"""What a state is kept by, of a task that is run without keys."""


def bound(
    tasks: Iterable[Runnable[Any, Any]],
    paused: Collection[str],
    before: Iterable[Runnable[Any, Any]],
    of: StatesOf,
) -> tuple[Sequence[Runnable[Any, Any]], StatesOf]:
    """Tasks that take the place of others, as a runner runs them, and their states. One that was
    there before goes on with the state that it has.

    :param tasks: the tasks
    :param paused: the names of those that are not run, and keep the state that they have
    :param before: those that were there before
    :param of: the states of these
    """
    kept = {id(task) for task in before}
    found: StatesOf = {}
    runs: list[Runnable[Any, Any]] = []
    for task in tasks:
        own = with_state(task)
        if own is not None:
            found[task.name] = of.get(task.name, {}) if id(task) in kept else {}
        if task.name not in paused:
            runs.append(task if own is None else Stepper(own, found[task.name]))
    return runs, found


class Stepped:
    """What a task with a state gives for a window: its result and its next state."""

    __slots__ = ("is_unchanged", "result", "state")

    def __init__(self, result: Any, state: Any, *, is_unchanged: bool = False) -> None:
        self.result = result
        self.state = state
        self.is_unchanged = is_unchanged
        """Whether the next state is the one of before, which then stands here as None."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _step, (self.result, to_send(self.state), self.is_unchanged)


_PLAIN: Final[frozenset[type]] = frozenset({bool, bytes, complex, float, int, str, type(None)})
"""Types whose values hold nothing else, so that nobody can change them in place."""


class Stepper:
    """A task with a state as a runner runs it: a :class:`Runnable` that gives a :class:`Stepped`.

    :param task: the task
    :param states: by key, or by None; what has none yet begins with the first
    """

    __slots__ = ("_checked", "name", "states", "task")

    def __init__(self, task: StatefulTask[Any, Any, Any], states: dict[Any, Any]) -> None:
        self.task = task
        self.name: str = task.name
        self.states = states
        self._checked: set[type] = set(_PLAIN)

    def run(self, data: Any, start: int, end: int, /) -> Stepped:
        """Run the task with its state.

        :raises ConfigError: if what it returns is no result with a state, or a state that could be
            changed behind the runner's back
        """
        return self.step(data, start, end, self.state_of(key_of(data)))

    def state_of(self, key: Any) -> Any:
        """The state for a key: that of the window before, or the first."""
        try:
            return self.states[key]
        except KeyError:
            return self.task.initial()

    def step(self, data: Any, start: int, end: int, state: Any) -> Stepped:
        """Run the task with a state.

        :raises ConfigError: as :meth:`run`
        """
        task = self.task
        if task.copy is not None:
            state = task.copy(state)
        elif type(state) not in self._checked:
            self._check(state)
        given: Any = task.step(data, start, end, state)
        if not _is_pair(given):
            raise ConfigError(
                f"it returned {brief(given)}: a task with a state returns its result and the next "
                f"state, return result, state"
            )
        result, state = given
        if task.copy is None and type(state) not in _PLAIN:
            self._check(state)  # of the same type as before, it may hold something else
        return Stepped(result, state)

    def _check(self, state: Any) -> None:
        """See whether nobody can change a state in place.

        Such values have a hash, of themselves and not of where they lie.
        """
        kind: type = type(state)  # pyright: ignore[reportUnknownVariableType]  of anything
        try:
            hash(state)
            is_value = kind in self._checked or has_value_hash(kind)
        except TypeError:
            is_value = False
        if not is_value:
            raise ConfigError(f"its state is {brief(state)}, and states like it {CHANGED_IN_PLACE}")
        self._checked.add(kind)

    def __reduce__(self) -> tuple[Any, ...]:
        # States travel on their own, to whoever runs the task next.
        return Stepper, (self.task, {})


StatesOf: TypeAlias = dict[str, dict[Any, Any]]
"""By task and key. Which tasks there are does not change: a dict with others takes its place."""


class States:
    """The states of a runner's tasks, by task and key."""

    def __init__(self) -> None:
        self._of: StatesOf = {}
        self._known: KnownKeys | None = None
        self._known_before: Mapping[Any, int] = {}

    def begin(self, of: Mapping[str, Mapping[Any, Any]], known: Mapping[Any, int]) -> None:
        """Go on from those of an earlier run, before tasks are run.

        :param of: the states, by task and key; by None, of one that is run without keys
        :param known: the keys that had rows of late, each with the time of its last
        """
        self.know(known)
        self._of = {name: dict(states) for name, states in of.items()}

    def know(self, known: Mapping[Any, int]) -> None:
        """Which keys had rows of late is known from an earlier run, before tasks are run.

        :param known: these keys, each with the time of its last row
        """
        self._known, self._known_before = None, known

    def known(self) -> Mapping[Any, int]:
        """The keys that have had rows of late, each with the time of its last."""
        return self._known_before if self._known is None else self._known.last

    def known_keys(self, idle: int) -> KnownKeys:
        """The keys that have had rows of late, which goes on from run to run as the states do.

        :param idle: how long after its last row a key is forgotten, in the unit of the rows
        """
        if self._known is None:
            self._known = KnownKeys(idle, self._known_before)
        return self._known

    def clear(self) -> None:
        """Begin anew."""
        self._known, self._known_before = None, {}
        for states in self._of.values():
            states.clear()

    def bind(
        self, tasks: Sequence[Runnable[Any, Any]], paused: Collection[str] = ()
    ) -> Sequence[Runnable[Any, Any]]:
        """The tasks as a runner runs them: those with a state as a :class:`Stepper`, and those that
        are paused not at all."""
        runs, found = bound(tasks, paused, tasks, self._of)
        self._of.update(found)
        return tuple(runs)

    @property
    def of(self) -> StatesOf:
        """The states as they are, by task and key."""
        return self._of

    def take(self, of: StatesOf) -> None:
        """Go on with the states of other tasks, between two windows."""
        self._of = of

    def settle(self, dataset: AnyDataSet) -> AnyDataSet:
        """Take over the states of the results that count, and leave the results.

        :param dataset: what a tick gave
        :return: the same, with results in the place of steps
        """
        if not self._of:
            return dataset
        nothing: Mapping[Any, Any] = NOTHING
        for name, states in self._of.items():
            found: Any = dataset.get(name, nothing)
            steps: Mapping[Any, Any] = {_NO_KEY: found} if isinstance(dataset, DataSet) else found
            for key, step in steps.items():
                if type(step) is Stepped and not step.is_unchanged:
                    states[key] = step.state
        return without_steps(dataset)

    def forget(self, keys: Collection[Any]) -> None:
        """Let go of the states of keys."""
        for states in self._of.values():
            for key in keys:
                states.pop(key, None)

    def load(self, states: Mapping[str, Any], *, by_key: bool) -> None:
        """Begin with these states.

        :param states: by task name; by key a mapping of key to state
        :param by_key: whether they are by key
        :raises ConfigError: if there is no such task with a state
        """
        for name, state in states.items():
            if name not in self._of:
                known = ", ".join(map(repr, self._of)) or "none"
                raise ConfigError(f"no task {name!r} has a state: those that have one are {known}")
            if by_key and not isinstance(state, Mapping):
                raise ConfigError(f"the states of task {name!r} are by key: give a mapping")
            of_task = self._of[name]
            of_task.clear()
            of_task.update(cast("Mapping[Any, Any]", state) if by_key else {_NO_KEY: state})

    def told(self, *, by_key: bool) -> dict[str, Any]:
        """The states as of the last window, by task name; by key a dict of key to state."""
        if by_key:
            return {name: dict(states) for name, states in self._of.items()}
        return {name: of[_NO_KEY] for name, of in self._of.items() if _NO_KEY in of}

    @property
    def any(self) -> bool:
        """Whether a task has a state."""
        return bool(self._of)


def without_steps(dataset: AnyDataSet) -> AnyDataSet:
    """What a tick gave, with results in the place of steps."""
    mapped: AnyDataSet = dataset.mapped(_result)
    return mapped


def declared(task: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """The task as its user has it, of one as a runner runs it."""
    return task.task if isinstance(task, Stepper) else task


def key_of(data: Any) -> Any:
    """The key whose rows a task is given; None: it is run without keys."""
    if isinstance(data, KeyView):
        return data.key
    if not _is_tuple(data):
        return _NO_KEY
    return next((view.key for view in data if isinstance(view, KeyView)), _NO_KEY)  # of several


def _is_tuple(value: Any) -> bool:
    return type(value) is tuple


def _is_pair(value: Any) -> bool:
    return _is_tuple(value) and len(value) == 2


def _step(result: Any, state: Any, is_unchanged: bool) -> Stepped:
    return Stepped(result, state, is_unchanged=is_unchanged)


def _result(value: Any) -> Any:
    return value.result if type(value) is Stepped else value
