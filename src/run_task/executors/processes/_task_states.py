"""The states of tasks on their way to worker processes, which send back the next ones.

The runner has the states that count. A worker keeps the last that it has made or was sent of each
task, so that one which runs a task again and again is sent its state once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from run_task.executors._states import Stepped, Stepper
from run_task.executors.processes._wire import Payload, pack, pickled
from run_task.tasks._state_bytes import to_send
from run_task.tasks._task import Runnable


class SentStates(NamedTuple):
    """States on their way to a worker."""

    counts: Sequence[tuple[int, int]]
    """Of which tasks they are, and how many pieces each has. By key: how many those have that are
    sent together, and then those that are sent on their own."""

    payload: Payload | None
    """The pieces."""

    memory: Sequence[int]
    """The descriptor of the memory that goes with them, if any does."""

    def close(self) -> None:
        """Let go of the memory, once it is sent."""
        for descriptor in self.memory:
            os.close(descriptor)


NO_STATES: Final = SentStates((), None, ())


def stepped(
    stepper: Stepper, states: dict[Any, Any], at: Any, data: Any, window: tuple[int, int]
) -> Stepped:
    """What a worker runs of a task with a state: it keeps the next state, and does not send it if
    it is the one of before.

    :param stepper: the task
    :param states: the states that the worker has
    :param at: where that of the task stands there
    :param data: what it reads
    :param window: the window
    """
    known = at in states
    before = states[at] if known else stepper.task.initial()
    step = stepper.step(data, *window, before)
    states[at] = step.state
    if known and step.state is before:
        return Stepped(step.result, None, is_unchanged=True)
    return step


def named(result: Any) -> str:
    """What a task gave, for messages."""
    if isinstance(result, Stepped):
        of_state = type(result.state).__qualname__
        return f"a {type(result.result).__qualname__} with a state of type {of_state}"
    return f"a {type(result).__qualname__}"


class TaskStates:
    """The states of a crew's tasks.

    :param tasks: the tasks, as a runner runs them
    """

    def __init__(self, tasks: Sequence[Runnable[Any, Any]]) -> None:
        self._steppers = {i: task for i, task in enumerate(tasks) if isinstance(task, Stepper)}

    def to_send(
        self,
        positions: Iterable[int],
        held: Mapping[int, Any],
        fail: Callable[[int, BaseException], None],
    ) -> SentStates:
        """The states that a worker has to be sent to run tasks.

        :param positions: which tasks
        :param held: the states that it has
        :param fail: called with a task whose state cannot be sent, and why
        """
        if not self._steppers:
            return NO_STATES
        counts: list[tuple[int, int]] = []
        pieces: list[memoryview] = []
        for position in positions:
            if position not in self._steppers:
                continue
            states = self._steppers[position].states
            if not states:
                counts.append((position, 0))  # it makes the first one itself
                continue
            if position in held and held[position] is states[None]:
                continue
            try:
                own = pickled(to_send(states[None]))
            except Exception as error:
                fail(position, error)  # the worker runs it with another, and nobody takes that
                continue
            counts.append((position, len(own)))
            pieces += own
        if not counts:
            return NO_STATES
        payload, memory = pack(pieces)
        return SentStates(counts, payload, memory)

    def received(self, position: int, value: Any, held: dict[int, Any]) -> None:
        """Note which state a worker has, of a task whose result it has sent.

        :param position: which task
        :param value: what came of it
        :param held: the states that the worker has
        """
        if type(value) is not Stepped:
            # It failed: what the worker has is the state that it began with, or nobody knows.
            held.pop(position, None)
        elif value.is_unchanged:
            held[position] = self._steppers[position].states.get(None)
        else:
            held[position] = value.state
