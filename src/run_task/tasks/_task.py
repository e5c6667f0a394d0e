"""What is run: anything with a name and a ``run``, and what makes one of a function."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias, TypeVar, runtime_checkable

from run_task.errors import ConfigError
from run_task.observe._format import brief

I_contra = TypeVar("I_contra", contravariant=True)
O_co = TypeVar("O_co", covariant=True)


TaskVersion: TypeAlias = int | str
"""What is another where a task has changed so that what it made before means something else."""


class Runnable(Protocol[I_contra, O_co]):
    """A computation over data of type ``I`` and one window, with a result of type ``O``.

    It is synchronous, because it computes and does not wait. The data is shared with every other
    task of the tick: read it, and leave it as it was. One that has an attribute ``version``, an int
    or a text, is of that version, as ``@task(version=...)`` says it.
    """

    @property
    def name(self) -> str:
        """The key of its result in a DataSet; no two tasks of a runner share one."""
        ...

    def run(self, data: I_contra, start: int, end: int, /) -> O_co:
        """Compute the result for the window ``[start, end)``.

        :param data: one consistent view of the runner's data
        :param start: the start of the window, in the interval's unit since the Unix epoch
        :param end: its end, which is not part of it
        """
        ...


def name_of(task: Any) -> Any:
    """The name of a task, or of a stage, that was given itself or by its name."""
    return task if isinstance(task, str) else getattr(task, "name", task)


@runtime_checkable
class ChecksInputs(Protocol):
    """A task that knows over which data it can be run."""

    def check_inputs(self, inputs: Sequence[object], by: str | None) -> None:
        """See whether it can be run over these inputs. It is asked when it is declared.

        :param inputs: the shared data
        :param by: the column of the key, where tasks are run once for each; None: they are not
        :raises ConfigError: if it cannot; the message names what is wrong, and the cure
        """
        ...


_INSPECTED: Final = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    functools.partial,
    type,
)
"""What the functions of :mod:`inspect` can look into."""


def called(run: Callable[..., object]) -> Callable[..., object]:
    """What Python calls when a task is run: of an object that is called, its ``__call__``.

    :param run: a task's ``run``
    """
    if issubclass(type(run), _INSPECTED):
        return run
    return getattr(type(run), "__call__", run)  # noqa: B004  # it is wanted, and not whether


def checked_version(given: Any) -> TaskVersion | None:
    """The version that a task was given; None: it has none.

    :raises ConfigError: if it is none
    """
    if given is None or type(given) in (int, str):
        version: TaskVersion | None = given
        return version
    raise ConfigError(f"task(version={brief(given)}): it is an int or a text")


def version_of(task: object) -> TaskVersion | None:
    """The version of a task; None: it has none."""
    given: Any = getattr(task, "version", None)
    return given if type(given) in (int, str) else None


SENT_WHOLE: Final[set[str]] = {"__main__"}
"""Modules that mean something else in the process that loads what was pickled here, or are not to
be imported there."""


def name_to_import(task: object) -> str:
    """Under which name of its module a task is found wherever that is imported; empty: under none.

    :param task: the task, which has the module and the name of its function
    """
    module, name = str(getattr(task, "__module__", None)), str(getattr(task, "__qualname__", ""))
    found = module not in SENT_WHOLE and getattr(sys.modules.get(module), name, None) is task
    return name if found else ""


class Task(Runnable[I_contra, O_co]):
    """A :class:`Runnable` made of a function. It stays callable as the function it was made of.

    :func:`task` is the decorator that makes one.

    :param function: called with the data, the start and the end of the window
    :param name: the task's name; by default the function's
    :param version: what has to be another where results of before mean something else; None: it
        has none
    :raises ConfigError: if it is made of nothing that can be called
    """

    def __init__(
        self,
        function: Callable[[I_contra, int, int], O_co],
        name: str | None = None,
        version: TaskVersion | None = None,
    ) -> None:
        if not callable(function):
            raise ConfigError(
                f"task({function!r}): it is made of a function (data, start, end); a name is said "
                f"by @task(name=...)"
            )
        functools.update_wrapper(self, function)
        self._name = name if name is not None else getattr(function, "__name__", repr(function))
        self.version: Final = checked_version(version)
        # The function itself, so that a tick calls it with nothing in between.
        self.run: Final[Callable[[I_contra, int, int], O_co]] = function  # pyright: ignore[reportIncompatibleMethodOverride]  of an instance: it is called without self

    @property
    def name(self) -> str:
        return self._name

    def __call__(self, data: I_contra, start: int, end: int, /) -> O_co:
        return self.run(data, start, end)

    def __reduce__(self) -> str | tuple[object, ...]:
        # What @task has put in the place of its function is pickled as a function is: by name.
        name = name_to_import(self)
        return name or (type(self), (self.run, self.name, self.version))

    def __repr__(self) -> str:
        return f"<Task {self.name!r}>"
