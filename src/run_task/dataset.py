"""The results of one tick."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast, overload

from run_task.errors import TaskError
from run_task.interval import Window
from run_task.task import Runnable

O_co = TypeVar("O_co", covariant=True)
T = TypeVar("T")


_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
NO_ERRORS: Final[Mapping[str, TaskError]] = _NOTHING


class Results:
    """What came of a tick, noted by the tasks' positions, and put into mappings on demand.

    A tick makes one of these, and most are never looked at in full: to note a result must cost
    next to nothing, to look it up may cost a little.

    :param names: the tasks, in order
    :param order: their positions, in the order in which they were begun
    :param values: what each returned, by position
    :param ends: when each ended, in seconds by any one clock; 0 if it did not
    :param begun: when the first of them began
    """

    __slots__ = ("begun", "ends", "errors", "names", "order", "starts", "took", "values")

    def __init__(
        self,
        names: Sequence[str],
        order: Iterable[int],
        values: list[Any],
        ends: array[float],
        begun: float,
    ) -> None:
        self.names: Sequence[str] = names
        self.order: Iterable[int] = order
        self.values: list[Any] = values
        # A list would keep a float object for each: four times the memory, and work for the GC.
        self.ends: array[float] = ends
        self.begun: float = begun
        # When a task began that did not begin as the one before it ended.
        self.starts: dict[int, float] | None = None
        self.errors: Mapping[str, TaskError] = NO_ERRORS
        self.took: float = 0.0  # seconds, from the first task's start to the last one's end

    def to_dict(self) -> dict[str, Any]:
        """The results by name, without those of tasks that have an error."""
        results = dict(zip(self.names, self.values))
        for name in self.errors:
            results.pop(name, None)
        return results

    def seconds(self) -> dict[int, float]:
        """How long each task ran that came to an end, by position."""
        starts = self.starts or {}
        seconds: dict[int, float] = {}
        before = self.begun
        for position in self.order:
            end = self.ends[position]
            if not end:
                continue
            start = starts.get(position)
            if start is None:
                start, before = before, end
            seconds[position] = end - start
        return seconds

    def durations(self) -> dict[str, float]:
        """How long each task ran that came to an end, by name."""
        seconds = self.seconds()
        return {name: seconds[i] for i, name in enumerate(self.names) if i in seconds}


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

    __slots__ = ("_durations", "_errors", "_lateness", "_results", "_values", "_window")

    _durations: Mapping[str, float] | None
    _errors: Mapping[str, TaskError]
    _lateness: float
    _results: Results | None
    _values: dict[str, O_co] | None
    _window: Window

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
        self._results = None

    @classmethod
    def of(cls, window: Window, results: Results, lateness: float) -> DataSet[Any]:
        """The DataSet of what came of a tick."""
        self: DataSet[Any] = cls.__new__(cls)
        self._window = window
        self._values = self._durations = None
        self._errors = results.errors
        self._lateness = lateness
        self._results = results
        return self

    def _mapping(self) -> dict[str, O_co]:
        if self._values is None:
            assert self._results is not None
            self._values = self._results.to_dict()
        return self._values

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
        if self._durations is None:
            assert self._results is not None
            self._durations = self._results.durations()
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
            return self._mapping()[name]
        except KeyError:
            error = self._errors.get(name)
            if error is None:
                raise KeyError(f"no task {name!r} in {self}") from None
            raise KeyError(f"{error}") from error

    def __contains__(self, key: object) -> bool:
        return _name(key) in self._mapping()

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping())

    def __len__(self) -> int:
        return len(self._mapping())

    def __eq__(self, other: object) -> bool:
        """Equal to a DataSet of the same window and results, and to a mapping of the same results.

        How long it took is no part of it: a replay equals what ran live.
        """
        if isinstance(other, DataSet):
            theirs = cast("DataSet[object]", other)
            return (
                self._window == theirs._window
                and self._mapping() == theirs._mapping()
                and self._errors.keys() == theirs._errors.keys()
            )
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # it can change, by insert and take

    def insert(self: DataSet[T], name: str, value: T) -> None:
        """Add a result, or put it in the place of the one of that name."""
        self._mapping()[name] = value

    def take(self, name: str) -> O_co:
        """Take a result out.

        :raises KeyError: if there is none of that name
        """
        value = self[name]
        del self._mapping()[name]
        return value

    def to_dict(self) -> dict[str, O_co]:
        """The results as a new dict."""
        return dict(self._mapping())

    def __str__(self) -> str:
        start, end = self._window
        failed = f", failed: {', '.join(self._errors)}" if self._errors else ""
        return f"DataSet [{start}, {end}) of {len(self._mapping())} results{failed}"

    def __repr__(self) -> str:
        start, end = self._window
        lines = [f"DataSet [{start}, {end})"]
        width = max(map(len, (*self._mapping(), *self._errors)), default=0)
        lines += [f"  {name:<{width}}  {value!r}" for name, value in self._mapping().items()]
        lines += [f"  {name:<{width}}  ! {error}" for name, error in self._errors.items()]
        return "\n".join(lines)


def _name(key: Any) -> Any:
    return key if isinstance(key, str) else getattr(key, "name", key)
