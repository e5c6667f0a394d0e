"""The results of one tick."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from struct import Struct
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast, overload

from run_task._window import Due, Window
from run_task.errors import TaskError
from run_task.observe._html import ERROR, marked, seconds, short, table
from run_task.tasks._task import Runnable

O_co = TypeVar("O_co", covariant=True)
T = TypeVar("T")


_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_new: Final = object.__new__  # found in one step, not along the bases of a Mapping

_SHOWN: Final = 100
"""How many tasks a notebook shows of a DataSet."""

NO_ERRORS: Final[Mapping[str, TaskError]] = _NOTHING


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
    :param took: how long the tasks took together, in seconds; by default the sum of the durations
    :param behind: the stages of a pipeline whose results the tasks did not see
    :param starts: when each task began, in seconds after the tick did, by task name; by default
        each began as the one before it ended
    """

    __slots__ = (
        "_begun",
        "_due",
        "_durations",
        "_ends",
        "_results",
        "_roster",
        "_starts",
        "_values",
        "behind",
        "errors",
        "took",
    )

    errors: Mapping[str, TaskError]
    """Why tasks have no result, by task name. Empty when all is well."""

    behind: Sequence[str]
    """Stages of a pipeline whose results up to this window the tasks did not see: they failed, or
    took too long to be waited for."""

    took: float
    """How long the tasks took together, in seconds: from the first one's start to the last one's
    end."""

    # A tick notes by position, and most of it is never looked at: it is put into mappings on
    # demand.
    _due: Due
    _roster: Roster
    _results: Sequence[Any]
    _begun: float
    _ends: bytes
    _values: dict[str, O_co] | None
    _durations: Mapping[str, float] | None
    _starts: Mapping[str, float] | None

    def __init__(
        self,
        window: Window,
        values: Mapping[str, O_co] = _NOTHING,
        errors: Mapping[str, TaskError] = _NOTHING,
        durations: Mapping[str, float] = _NOTHING,
        lateness: float = 0.0,
        took: float | None = None,
        behind: Sequence[str] = (),
        starts: Mapping[str, float] | None = None,
    ) -> None:
        start, end = window
        self._due = start, end, round(lateness * 1e9)
        self._values = dict(values)
        self.errors = errors
        self.behind = behind
        self._durations = durations
        self._starts = starts
        self.took = sum(durations.values()) if took is None else took

    @classmethod
    def of(
        cls,
        due: Due,
        roster: Roster,
        results: Sequence[Any],
        begun: float,
        ends: bytes,
        took: float,
    ) -> DataSet[Any]:
        """The DataSet of a tick whose tasks were run one after another, and gave no error.

        :param due: the window
        :param roster: its tasks
        :param results: what each returned, by position
        :param begun: when the first began, in seconds by any one clock
        :param ends: when each ended, packed by the roster
        :param took: how long it all took, in seconds
        """
        self: DataSet[Any] = _new(cls)
        self._due = due
        self._roster = roster
        self._results = results
        self._begun = begun
        self._ends = ends
        self.took = took
        self._values = self._durations = self._starts = None
        self.errors = NO_ERRORS
        self.behind = ()
        return self

    def _mapping(self) -> dict[str, O_co]:
        values = self._values
        if values is None:
            values = self._values = dict(zip(self._roster.names, self._results))
        return values

    @property
    def window(self) -> Window:
        """The window that was computed, in the interval's unit since the Unix epoch."""
        start, end, _ = self._due
        return Window(start, end)

    @property
    def timestamp(self) -> int:
        """The end of the window, in the interval's unit since the Unix epoch."""
        return self._due[1]

    @property
    def durations(self) -> Mapping[str, float]:
        """How long each task that ran took, in seconds, by task name."""
        durations = self._durations
        if durations is None:
            ends = self._roster.unpack(self._ends)
            starts = (self._begun, *ends)  # each began as the one before it ended
            durations = self._durations = {
                name: end - start for name, start, end in zip(self._roster.names, starts, ends)
            }
        return durations

    @property
    def starts(self) -> Mapping[str, float]:
        """When each task that ran began, in seconds after the tick did, by task name."""
        starts = self._starts
        if starts is None:
            durations = self.durations  # each began as the one before it ended
            before = accumulate(durations.values(), initial=0.0)
            starts = self._starts = dict(zip(durations, before))
        return starts

    @property
    def lateness(self) -> float:
        """How long after the window's end (and grace) the tick began, in seconds."""
        return self._due[2] / 1e9

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
            error = self.errors.get(name)
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
                self.window == theirs.window
                and self._mapping() == theirs._mapping()
                and self.errors.keys() == theirs.errors.keys()
            )
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # it can change, by insert and take

    def insert(self: DataSet[T], name: str, value: T) -> None:
        """Add a result, or put it in the place of the one of that name.

        :param name: its key
        :param value: the result
        """
        self._mapping()[name] = value

    def take(self, name: str) -> O_co:
        """Take a result out.

        :param name: its key
        :return: the result
        :raises KeyError: if there is none of that name
        """
        value = self[name]
        del self._mapping()[name]
        return value

    def to_dict(self) -> dict[str, O_co]:
        """The results as a new dict."""
        return dict(self._mapping())

    def __reduce__(self) -> tuple[Any, ...]:
        errors = dict(self.errors)
        timing = self.durations, self.lateness, self.took
        rest = self.behind, self.starts
        return DataSet, (self.window, self._mapping(), errors, *timing, *rest)

    def __str__(self) -> str:
        start, end = self.window
        failed = f", failed: {', '.join(self.errors)}" if self.errors else ""
        behind = f", without {', '.join(self.behind)}" if self.behind else ""
        return f"DataSet [{start}, {end}) of {len(self._mapping())} results{failed}{behind}"

    def __repr__(self) -> str:
        start, end = self.window
        behind = f" without {', '.join(self.behind)}" if self.behind else ""
        lines = [f"DataSet [{start}, {end}){behind}"]
        width = max(map(len, (*self._mapping(), *self.errors)), default=0)
        lines += [f"  {name:<{width}}  {value!r}" for name, value in self._mapping().items()]
        lines += [f"  {name:<{width}}  ! {error}" for name, error in self.errors.items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return _table(self)


def _name(key: Any) -> Any:
    return key if isinstance(key, str) else getattr(key, "name", key)


def _table(dataset: DataSet[Any]) -> str:
    """Tasks, their results or errors, and how long they took. Errors stand last, none left out for
    the sake of results."""
    start, end = dataset.window
    durations = dataset.durations

    def took(name: str) -> str:
        return seconds(durations[name]) if name in durations else ""

    failed = list(dataset.errors.items())[:_SHOWN]
    done = list(dataset.items())[: _SHOWN - len(failed)]
    rows = [[name, short(value), took(name)] for name, value in done]
    rows += [[name, marked(f"\N{BALLOT X} {error}", ERROR), took(name)] for name, error in failed]
    more = len(dataset) + len(dataset.errors) - len(rows)
    if more:
        rows.append([f"and {more} more"])
    return table(f"DataSet [{start}, {end})", ("task", "result", "took"), rows)
