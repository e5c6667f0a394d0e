"""Tasks whose result depends on what they made of the window before."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.tasks._task import Runnable, TaskVersion, checked_version, name_to_import

I_contra = TypeVar("I_contra", contravariant=True)
O_co = TypeVar("O_co", covariant=True)
# Covariant although a state is passed, too: if it is invariant, mypy finds no common type of two
# tasks in a list whose states differ. A runner passes a task its own state only.
S_co = TypeVar("S_co", covariant=True)


CHANGED_IN_PLACE: Final = (
    "can be changed in place, so that a task that fails would leave them half changed: let a state "
    "be a value, such as a number, a tuple, a NamedTuple or a frozen dataclass of such, or declare "
    "how it is copied, @task(state=..., copy=copy.deepcopy)"
)


def has_value_hash(kind: type[Any]) -> bool:
    """Whether what is of a type has a hash of its value, and not of where it lies: what nobody can
    change in place has."""
    hashed: object = kind.__hash__
    return hashed is not None and hashed is not object.__hash__


class StatefulTask(Runnable[I_contra, O_co], Generic[I_contra, O_co, S_co]):
    """A task that is given the state of the window before, and gives the next one.

    :func:`task` with ``state=`` makes one. To a runner it is a :class:`Runnable` with the result
    type ``O``; by key, it has a state for each key. A window in which it fails, hangs or is lost
    leaves the state as it was.

    :param function: called with the data, the start and the end of the window, and the state; it
        returns the result and the next state
    :param state: makes the first state: a type or function without arguments
    :param name: the task's name; by default the function's
    :param copy: copies a state, for states that the function changes in place: it is then given a
        copy each time. Without it, states are values that nobody can change
    :param version: what has to be another where states and results of before mean something else;
        None: it has none
    :raises ConfigError: if it is made of nothing that can be called, or if ``state`` is a type
        whose instances can be changed in place, and nothing copies them
    """

    def __init__(
        self,
        function: Callable[[I_contra, int, int, S_co], tuple[O_co, S_co]],
        state: Callable[[], S_co],
        name: str | None = None,
        copy: Callable[[S_co], S_co] | None = None,
        version: TaskVersion | None = None,
    ) -> None:
        if not callable(function):
            raise ConfigError(
                f"task({brief(function)}): it is made of a function (data, start, end, state)"
            )
        if not callable(state):
            raise ConfigError(
                f"task(state={brief(state)}): it makes the first state, and is called without "
                f"arguments: give a type or a function, such as lambda: {brief(state)}"
            )
        if copy is not None and not callable(copy):
            raise ConfigError(f"task(copy={brief(copy)}): it is a function that copies a state")
        if copy is None and isinstance(state, type) and not has_value_hash(state):
            raise ConfigError(
                f"task(state={state.__name__}): states of this type {CHANGED_IN_PLACE}"
            )
        its_version = checked_version(version)
        functools.update_wrapper(self, function)
        self._name = name if name is not None else getattr(function, "__name__", repr(function))
        self.step: Final = function
        """What gives the result and the next state."""
        self.initial: Final = state
        """What makes the first state."""
        self.copy: Final = copy
        """What copies a state; None: states are values that nobody can change."""
        self.version: Final = its_version

    @property
    def name(self) -> str:
        return self._name

    def __call__(
        self,
        data: I_contra,
        start: int,
        end: int,
        state: S_co,  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]  # see S_co
        /,
    ) -> tuple[O_co, S_co]:
        return self.step(data, start, end, state)

    def run(self, data: I_contra, start: int, end: int, /) -> O_co:
        """The result for a window that has none before it: that of the first state.

        A runner goes on from window to window, and does not call this.

        :param data: one consistent view of the data
        :param start: the start of the window, in the interval's unit since the Unix epoch
        :param end: its end, which is not part of it
        """
        return self.step(data, start, end, self.initial())[0]

    def __reduce__(self) -> str | tuple[Any, ...]:
        # As that of Task: by its name, where that means the same in the process that unpickles it.
        whole = self.step, self.initial, self.name, self.copy, self.version
        return name_to_import(self) or (type(self), whole)

    def __repr__(self) -> str:
        return f"<StatefulTask {self.name!r}>"


def with_state(task: object) -> StatefulTask[Any, Any, Any] | None:
    """The task, if it is one with a state."""
    found: Any = task
    return found if isinstance(task, StatefulTask) else None
