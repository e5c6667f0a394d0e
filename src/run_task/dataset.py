"""The results of one tick."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import sub
from types import MappingProxyType
from typing import Any, TypeVar, cast, overload

from run_task.errors import TaskError
from run_task.interval import Window
from run_task.task import Runnable

O_co = TypeVar("O_co", covariant=True)
T = TypeVar("T")


class Durations(Mapping[str, float]):
    """How long each task ran, in seconds, worked out when somebody looks.

    A tick makes one of these and few are ever read, so making one has to cost next to nothing.

    :param names: the tasks, in order
    :param starts: when each started, in seconds by any one clock; None if it did not start
    :param ends: when each ended; None if it has no end yet
    """

    __slots__ = ("_ends", "_names", "_read", "_starts")

    def __init__(
        self,
        names: Sequence[str],
        starts: Sequence[float | None],
        ends: Sequence[float | None],
    ) -> None:
        self._names = names
        self._starts = starts
        self._ends = ends
        self._read: dict[str, float] | None = None

    def _durations(self) -> dict[str, float]:
        if self._read is None:
            self._read = {
                name: sub(end, start)
                for name, start, end in zip(self._names, self._starts, self._ends, strict=True)
                if start is not None and end is not None
            }
        return self._read

    def __getitem__(self, name: str) -> float:
        return self._durations()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._durations())

    def __len__(self) -> int:
        return len(self._durations())

    def __repr__(self) -> str:
        return repr(self._durations())


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class DataSet(Mapping[str, O_co]):
    """What the tasks of a runner gave for one window: a mapping of task name to result.

    The results stand in the order in which the tasks were given to the runner. Every task stands
    either here or in :attr:`errors`. Look a result up by the task's name, or by the task itself,
    which gives it the type that the task returns.

    :param window: the window ``[start, end)`` that was computed
    :param values: results by task name
    :param errors: why a task has no result, by task name
    :param durations: how long each task ran, in seconds, by task name
    :param lateness: how long after the window's end (and grace) the tick began, in seconds
    """

    __slots__ = ("_durations", "_errors", "_lateness", "_values", "_window")

    def __init__(
        self,
        window: Window,
        values: Mapping[str, O_co] = _NOTHING,
        errors: Mapping[str, TaskError] = _NOTHING,
        durations: Mapping[str, float] = _NOTHING,
        lateness: float = 0.0,
    ) -> None:
        self._window = window
        self._values = dict(values)
        self._errors = errors
        self._durations = durations
        self._lateness = lateness

    @property
    def window(self) -> Window:
        """The window that was computed, in the interval's unit since the Unix epoch."""
        return self._window

    @property
    def timestamp(self) -> int:
        """The end of the window, in the interval's unit since the Unix epoch."""
        return self._window[1]

    @property
    def errors(self) -> Mapping[str, TaskError]:
        """Why tasks have no result, by task name. Empty when all is well."""
        return self._errors

    @property
    def durations(self) -> Mapping[str, float]:
        """How long each task that ran took, in seconds, by task name."""
        return self._durations

    @property
    def lateness(self) -> float:
        """How long after the window's end (and grace) the tick began, in seconds."""
        return self._lateness

    @overload
    def __getitem__(self, key: str, /) -> O_co: ...
    @overload
    def __getitem__(self, key: Runnable[Any, T], /) -> T: ...
    def __getitem__(self, key: Any, /) -> Any:
        """The result of a task, by name or by the task itself.

        :raises KeyError: if there is none; when the task failed, its error is the ``__cause__``
        """
        name = _name(key)
        try:
            return self._values[name]
        except KeyError:
            error = self._errors.get(name)
            if error is None:
                raise KeyError(f"no task {name!r} in {self}") from None
            raise KeyError(f"{error}") from error

    def __contains__(self, key: object) -> bool:
        return _name(key) in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        """Equal to a DataSet of the same window and results, and to a mapping of the same results.

        How long it took is no part of it: a replay equals what ran live.
        """
        if isinstance(other, DataSet):
            theirs = cast("DataSet[object]", other)
            return (
                self._window == theirs._window
                and self._values == theirs._values
                and self._errors.keys() == theirs._errors.keys()
            )
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # it can change, by insert and take

    def insert(self: DataSet[T], name: str, value: T) -> None:
        """Add a result, or put it in the place of the one of that name."""
        self._values[name] = value

    def take(self, name: str) -> O_co:
        """Take a result out.

        :raises KeyError: if there is none of that name
        """
        value = self[name]
        del self._values[name]
        return value

    def to_dict(self) -> dict[str, O_co]:
        """The results as a new dict."""
        return dict(self._values)

    def __str__(self) -> str:
        start, end = self._window
        failed = f", failed: {', '.join(self._errors)}" if self._errors else ""
        return f"DataSet [{start}, {end}) of {len(self._values)} results{failed}"

    def __repr__(self) -> str:
        start, end = self._window
        lines = [f"DataSet [{start}, {end})"]
        width = max(map(len, (*self._values, *self._errors)), default=0)
        lines += [f"  {name:<{width}}  {value!r}" for name, value in self._values.items()]
        lines += [f"  {name:<{width}}  ! {error}" for name, error in self._errors.items()]
        return "\n".join(lines)


def _name(key: Any) -> Any:
    return key if isinstance(key, str) else getattr(key, "name", key)
