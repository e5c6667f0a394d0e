"""The results of one tick."""

from __future__ import annotations

from collections.abc import (
    Callable,
    Container,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    ValuesView,
)
from itertools import accumulate
from struct import Struct
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast, overload

from run_task._window import Due, Window
from run_task.errors import TaskError
from run_task.observe._format import seconds
from run_task.observe._html import ERROR, marked, table, value_text
from run_task.tasks._task import Runnable, name_of
from run_task.tasks._tick_results import NOTHING, TickResults
from run_task.time._calendar import Interval
from run_task.time._shown import window_shown

O_co = TypeVar("O_co", covariant=True)
T = TypeVar("T")


_new: Final = object.__new__  # found in one step, not along the bases of a Mapping

_SHOWN: Final = 100
"""How many tasks a notebook shows of a DataSet."""


class Roster:
    """The tasks of a runner, in order: what all its DataSets have in common.

    :param names: the tasks' names
    """

    __slots__ = ("names", "pack", "unpack")

    def __init__(self, names: Iterable[str]) -> None:
        self.names: Sequence[str] = tuple(names)
        floats = Struct(f"{len(self.names)}d")
        # Times by position, eight bytes each: a list would keep a float object for each, four
        # times the memory, and an array takes three times as long to fill.
        self.pack: Callable[..., bytes] = floats.pack
        self.unpack: Callable[[bytes], tuple[float, ...]] = floats.unpack


class DataSet(TickResults, Mapping[str, O_co]):
    """What the tasks of a runner gave for one window: a mapping of task name to result.

    The results stand in the order in which the tasks were given to the runner. Every task stands
    either here or in :attr:`errors`. Look a result up by the task's name, or by the task itself,
    which gives it the type that the task returns.

    It does not change, so that all who receive it see the same: :meth:`with_` and :meth:`without`
    give new ones.

    :param window: the window ``[start, end)`` that was computed
    :param values: results by task name
    :param errors: why a task has no result, by task name
    :param durations: how long each task ran, in seconds, by task name
    :param lateness: how long after the window's end (and grace) the tick began, in seconds
    :param took: how long the tasks took together, in seconds; by default the sum of the durations
    :param behind: who gave nothing for the window, or for results that it holds
    :param starts: when each task began, in seconds after the tick did, by task name; by default
        each began as the one before it ended
    :param interval: the interval whose window it is, which tells what its times mean; None: nobody
        knows
    """

    __slots__ = (
        "_begun",
        "_durations",
        "_end_times",
        "_results",
        "_roster",
        "_start_times",
        "_starts",
        "_values",
    )

    # A tick notes by position, and most of it is never looked at: it is put into mappings on
    # demand.
    _roster: Roster
    _results: Sequence[Any]
    _begun: float
    _start_times: bytes | None
    _end_times: bytes
    _values: dict[str, O_co] | None
    _durations: Mapping[str, float] | None
    _starts: Mapping[str, float] | None

    def __init__(
        self,
        window: Window,
        values: Mapping[str, O_co] = NOTHING,
        errors: Mapping[str, TaskError] = NOTHING,
        durations: Mapping[str, float] = NOTHING,
        lateness: float = 0.0,
        took: float | None = None,
        behind: Sequence[str] = (),
        starts: Mapping[str, float] | None = None,
        interval: Interval | None = None,
    ) -> None:
        start, end = window
        self._interval = interval
        self._due = start, end, round(lateness * 1e9)
        self._values = dict(values)
        self._errors = MappingProxyType(dict(errors)) if errors else NOTHING
        self._behind = tuple(behind)
        self._durations = MappingProxyType(dict(durations))
        self._starts = None if starts is None else MappingProxyType(dict(starts))
        self._start_times = None
        self._took = sum(durations.values()) if took is None else took

    @classmethod
    def of(
        cls,
        due: Due,
        behind: Sequence[str],
        roster: Roster,
        results: Sequence[Any],
        begun: float,
        ends: bytes,
        took: float,
        errors: Mapping[str, TaskError] | None = None,
        starts: bytes | None = None,
    ) -> DataSet[Any]:
        """The DataSet of a tick, from what was noted of its tasks by position.

        :param due: the window, and how late the tick began
        :param behind: who gave nothing for the window, or for results that it holds
        :param roster: the tasks
        :param results: what each returned; of those in ``errors``, anything
        :param begun: when the first began, in seconds by any one clock
        :param ends: when each ended, packed by the roster; NaN for those that did not
        :param took: how long it all took, in seconds
        :param errors: why tasks have no result, by name; None: all have one
        :param starts: when each began, packed by the roster; None: as the one before it ended
        """
        self: DataSet[Any] = _new(cls)
        self._due = due
        self._behind = behind
        self._roster = roster
        self._results = results
        self._begun = begun
        self._start_times = starts
        self._end_times = ends
        self._took = took
        self._errors = NOTHING if errors is None else MappingProxyType(errors)
        self._values = self._durations = self._starts = None
        return self

    @classmethod
    def of_windows(
        cls,
        windows: Iterable[Due],
        roster: Roster,
        results: Iterable[Sequence[Any]],
        ends: bytes,
        took: float,
        interval: Interval,
    ) -> Iterator[DataSet[Any]]:
        """The DataSets of many windows without errors, in less time than :meth:`of` takes for each.

        :param windows: the windows
        :param roster: the tasks
        :param results: what they returned for each window
        :param ends: when each had ended, packed by the roster: the same for all windows
        :param took: how long a window took, in seconds
        :param interval: the interval whose windows they are
        """
        for due, values in zip(windows, results):
            self: DataSet[Any] = _new(cls)
            self._due = due
            self._behind = ()
            self._roster = roster
            self._results = values
            self._begun = 0.0
            self._start_times = None
            self._end_times = ends
            self._took = took
            self._errors = NOTHING
            self._values = self._durations = self._starts = None
            self._interval = interval
            yield self

    def _mapping(self) -> dict[str, O_co]:
        values = self._values
        if values is None:
            errors = self._errors
            named = zip(self._roster.names, self._results)
            if errors:
                values = {name: value for name, value in named if name not in errors}
            else:
                values = dict(named)
            self._values = values
        return values

    @property
    def errors(self) -> Mapping[str, TaskError]:
        """Why tasks have no result, by task name. Empty when all is well."""
        if self._errors:
            self._tell_windows()
        return self._errors

    @property
    def durations(self) -> Mapping[str, float]:
        """How long each task that ran took, in seconds, by task name."""
        durations = self._durations
        if durations is None:
            unpack = self._roster.unpack
            ends, starts = unpack(self._end_times), self._start_times
            # Each began as the one before it ended, unless it was noted.
            begun = (self._begun, *ends) if starts is None else unpack(starts)
            durations = self._durations = MappingProxyType(
                {
                    name: end - start
                    for name, start, end in zip(self._roster.names, begun, ends)
                    if end == end  # NaN: it did not end
                }
            )
        return durations

    @property
    def starts(self) -> Mapping[str, float]:
        """When each task that ran began, in seconds after the tick did, by task name."""
        starts = self._starts
        if starts is None:
            durations, noted = self.durations, self._noted_starts()
            if noted is None:  # each began as the one before it ended
                noted = zip(durations, accumulate(durations.values(), initial=0.0))
            starts = self._starts = MappingProxyType(
                {name: start for name, start in noted if name in durations}
            )
        return starts

    def _noted_starts(self) -> Iterable[tuple[str, float]] | None:
        """When each task began, in seconds after the tick did, if that was noted."""
        starts = self._start_times
        if starts is None:
            return None
        begun = self._begun
        seconds = (start - begun for start in self._roster.unpack(starts))
        return zip(self._roster.names, seconds)

    @overload
    def __getitem__(self, key: str, /) -> O_co: ...
    @overload
    def __getitem__(self, key: Runnable[Any, T], /) -> T: ...
    def __getitem__(self, key: Any, /) -> Any:
        """The result of a task, by name or by the task itself.

        :raises KeyError: if there is none; when the task failed, its error is the ``__cause__``
        """
        name = name_of(key)
        try:
            return self._mapping()[name]
        except KeyError:
            error = self.errors.get(name)
            if error is None:
                raise KeyError(f"no task {name!r} in {self}") from None
            raise KeyError(f"{error}") from error

    def __contains__(self, key: object) -> bool:
        return name_of(key) in self._mapping()

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping())

    def __len__(self) -> int:
        return len(self._mapping())

    # As a Mapping has them, but in a third of the time. Nothing can be changed through them.

    def keys(self) -> KeysView[str]:
        """The names of the tasks that have a result."""
        return self._mapping().keys()

    def values(self) -> ValuesView[O_co]:
        """The results."""
        return self._mapping().values()

    def items(self) -> ItemsView[str, O_co]:
        """The names and the results."""
        return self._mapping().items()

    def __eq__(self, other: object) -> bool:
        """Equal to a DataSet of the same window and results, and to a mapping of the same results.

        How long it took is no part of it: a replay equals what ran live.
        """
        if isinstance(other, DataSet):
            theirs = cast("DataSet[object]", other)
            return (
                self.window == theirs.window
                and self._mapping() == theirs._mapping()
                and self.errors.keys() == theirs.errors.keys()
            )
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # it equals a dict, which has none

    def with_(self: DataSet[T], **values: T) -> DataSet[T]:
        """A new DataSet with these results beside its own, or in their place.

        A task that is given a result is removed from the errors.

        :param values: results by name
        """
        errors = {name: error for name, error in self.errors.items() if name not in values}
        return self._copy({**self._mapping(), **values}, errors)

    def without(self, *names: str | Runnable[Any, Any]) -> DataSet[O_co]:
        """A new DataSet without these tasks: neither their results nor their errors.

        :param names: the tasks, or their names
        :raises KeyError: if there is no task of such a name
        """
        left_out = {name_of(name) for name in names}
        unknown = left_out - self._mapping().keys() - self.errors.keys()
        if unknown:
            raise KeyError(f"no task {', '.join(map(repr, sorted(unknown)))} in {self}")
        values = {name: value for name, value in self.items() if name not in left_out}
        errors = {name: error for name, error in self.errors.items() if name not in left_out}
        return self._copy(values, errors, left_out)

    def _copy(
        self,
        values: Mapping[str, T],
        errors: Mapping[str, TaskError],
        left_out: Container[str] = (),
    ) -> DataSet[T]:
        durations = {name: s for name, s in self.durations.items() if name not in left_out}
        starts = {name: s for name, s in self.starts.items() if name not in left_out}
        timing = durations, self.lateness, self.took
        return DataSet(self.window, values, errors, *timing, self.behind, starts, self.interval)

    def mapped(self, convert: Callable[[Any], Any]) -> DataSet[Any]:
        """The same with each result converted: for a runner, before it delivers it.

        :param convert: gives what is to stand in the place of a result
        """
        if self._values is None:
            self._results = tuple(map(convert, self._results))
        else:
            self._values = {name: convert(value) for name, value in self._values.items()}
        return self

    def to_dict(self) -> dict[str, O_co]:
        """The results as a new dict."""
        return dict(self._mapping())

    def __reduce__(self) -> tuple[Any, ...]:
        values, errors, durations = self.to_dict(), dict(self.errors), dict(self.durations)
        rest = durations, self.lateness, self.took, self.behind, dict(self.starts)
        return DataSet, (self.window, values, errors, *rest, self.interval)

    def __str__(self) -> str:
        failed = f", failed: {', '.join(self.errors)}" if self.errors else ""
        behind = f", without {', '.join(self.behind)}" if self.behind else ""
        return f"{self._title()} of {len(self._mapping())} results{failed}{behind}"

    def __repr__(self) -> str:
        behind = f" without {', '.join(self.behind)}" if self.behind else ""
        lines = [f"{self._title()}{behind}"]
        width = max(map(len, (*self._mapping(), *self.errors)), default=0)
        lines += [f"  {name:<{width}}  {value!r}" for name, value in self._mapping().items()]
        lines += [f"  {name:<{width}}  ! {error}" for name, error in self.errors.items()]
        return "\n".join(lines)

    def _title(self) -> str:
        return f"DataSet {window_shown(*self.window, self.interval)}"

    def _repr_html_(self) -> str:
        return _table(self)


def _table(dataset: DataSet[Any]) -> str:
    """Tasks, their results or errors, and how long they took. Errors stand last, none left out for
    the sake of results."""
    durations = dataset.durations

    def took(name: str) -> str:
        return seconds(durations[name], 3) if name in durations else ""

    failed = list(dataset.errors.items())[:_SHOWN]
    done = list(dataset.items())[: _SHOWN - len(failed)]
    rows = [[name, value_text(value), took(name)] for name, value in done]
    rows += [[name, marked(f"\N{BALLOT X} {error}", ERROR), took(name)] for name, error in failed]
    more = len(dataset) + len(dataset.errors) - len(rows)
    if more:
        rows.append([f"and {more} more"])
    title = f"DataSet {window_shown(*dataset.window, dataset.interval)}"
    return table(title, ("task", "result", "took"), rows)
