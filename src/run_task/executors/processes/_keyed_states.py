"""The states of tasks by key on their way to worker processes, which send back the next ones.

As with tasks without keys, the runner has the states that count, and a worker keeps the last that
it has made or was sent: a key stays with its worker, so most states are sent once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from run_task.executors._states import Stepped, Stepper
from run_task.executors.processes._columns import is_plain
from run_task.executors.processes._task_states import NO_STATES, SentStates
from run_task.executors.processes._wire import pack, pickled
from run_task.tasks._state_bytes import to_send
from run_task.tasks._task import Runnable

HeldStates: TypeAlias = dict[Any, Any]
"""Which states a worker has: by the task's position and the key."""

KeyedStatesSent: TypeAlias = tuple[
    Mapping[int, tuple[Sequence[Any], Sequence[Any], Sequence[Any]]], Sequence[tuple[int, Any]]
]
"""By the task's position: keys, the state of each, and keys that begin with their first. And the
tasks and keys whose states follow, each on its own: a state that runs code when it is loaded, so
that it fails on its own."""

_FEW: Final = 1000
"""So many states of keys that there are no more a worker may have, however few it has of others."""

_MISSING: Final = object()
"""In the place of a state that is not there."""

_UNKNOWN: Final = object()
"""In the place of one that nobody knows."""


class KeyedTaskStates:
    """The states of a crew's tasks by key.

    :param tasks: the tasks, as a runner runs them
    """

    def __init__(self, tasks: Sequence[Runnable[Any, Any]]) -> None:
        self._steppers = {i: task for i, task in enumerate(tasks) if isinstance(task, Stepper)}

    @property
    def tasks(self) -> Collection[int]:
        """The positions of those tasks that have a state."""
        return self._steppers.keys()

    def to_send(
        self,
        keys: Sequence[Any],
        held: HeldStates,
        fail: Callable[[int, int, BaseException], None],
    ) -> SentStates:
        """The states that a worker has to be sent to run all tasks for some keys.

        :param keys: the keys
        :param held: the states that it has, to which these are added
        :param fail: called with the place of a key and a task whose state cannot be sent, and why
        """
        sent = self._outgrown(held)
        alone: list[tuple[int, Any]] = []
        pieces: list[memoryview] = []
        counts: list[tuple[int, int]] = []
        for task, stepper in self._steppers.items():
            states = stepper.states
            of_keys, new, anew = sent.pop(task, (list[Any](), list[Any](), list[Any]()))
            for place, key in enumerate(keys):
                state = states.get(key, _MISSING)
                if state is held.get((task, key), _MISSING):
                    continue
                if state is _MISSING:
                    anew.append(key)
                elif is_plain(state):
                    of_keys.append(key)
                    new.append(state)
                else:
                    try:
                        own = pickled(to_send(state))
                    except Exception as error:
                        fail(place, task, error)
                        continue
                    alone.append((task, key))
                    counts.append((task, len(own)))
                    pieces += own
            if of_keys or anew:
                sent[task] = of_keys, new, anew
        if not sent and not alone:
            return NO_STATES
        together = pickled((sent, alone))
        payload, memory = pack([*together, *pieces])
        for task, (of_keys, new, anew) in sent.items():
            held.update(((task, key), state) for key, state in zip(of_keys, new))
            for key in anew:
                held.pop((task, key), None)
        for task, key in alone:
            held[task, key] = self._steppers[task].states[key]
        return SentStates(((0, len(together)), *counts), payload, memory)

    def _outgrown(self, held: HeldStates) -> dict[int, tuple[list[Any], list[Any], list[Any]]]:
        """The keys whose states a worker is to let go of since the runner has none, once there are
        many: keys that come and go would fill it."""
        found: dict[int, tuple[list[Any], list[Any], list[Any]]] = {}
        kept = sum(len(stepper.states) for stepper in self._steppers.values())
        if len(held) > 2 * kept + _FEW:
            for task, key in held:
                if key not in self._steppers[task].states:
                    found.setdefault(task, ([], [], []))[2].append(key)
        return found

    def received(
        self, outcomes: Iterable[tuple[Any, Callable[[int], Any]]], held: HeldStates
    ) -> None:
        """Note which states a worker has, of keys that it has reported.

        :param outcomes: the keys, each with what gives the result of a task, or None if it failed
        :param held: the states that the worker has
        """
        if not self._steppers:
            return
        for key, result_of in outcomes:
            for task, stepper in self._steppers.items():
                result = result_of(task)
                if type(result) is not Stepped:
                    # It failed, or came too late: nobody knows what the worker has made of it.
                    held[task, key] = _UNKNOWN
                elif result.is_unchanged:
                    held[task, key] = stepper.states.get(key)
                else:
                    held[task, key] = result.state
