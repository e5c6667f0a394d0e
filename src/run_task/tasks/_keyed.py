"""The results of one tick by key."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar, cast, overload

from run_task._window import Due, Window
from run_task.errors import TaskError
from run_task.observe._format import shown
from run_task.observe._html import ERROR, marked, table, value_text
from run_task.tasks._dataset import DataSet, Roster
from run_task.tasks._task import Runnable, name_of
from run_task.tasks._tick_results import NOTHING, TickResults
from run_task.time._calendar import Interval
from run_task.time._shown import window_shown

K = TypeVar("K")
O_co = TypeVar("O_co", covariant=True)
T = TypeVar("T")

_new: Final = object.__new__

_SHOWN: Final = 100
"""How many keys a notebook shows of a KeyedDataSet."""

_SHOWN_IN_TEXT: Final = 10
"""How many a text shows."""


class Keyed(Mapping[K, O_co]):
    """What one task gave for each key: a mapping of key to result, in sorted order of the keys.

    :param values: the results by key, in sorted order
    :param errors: why the task has no result for other keys
    """

    __slots__ = ("_errors", "_values")

    def __init__(self, values: Mapping[K, O_co], errors: Mapping[K, TaskError] = NOTHING) -> None:
        self._values = values
        self._errors = errors

    @property
    def errors(self) -> Mapping[K, TaskError]:
        """Why the task has no result for some keys, by key. Empty when all is well."""
        return self._errors

    def __getitem__(self, key: K, /) -> O_co:
        """The result for a key.

        :raises KeyError: if there is none; when the task failed, its error is the ``__cause__``
        """
        try:
            return self._values[key]
        except KeyError:
            error = self._errors.get(key)
            if error is None:
                raise KeyError(f"no result for key {key!r}") from None
            raise KeyError(f"{error}") from error

    def __iter__(self) -> Iterator[K]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __repr__(self) -> str:
        first = list(self._values.items())[:_SHOWN_IN_TEXT]
        parts = [f"{key!r}: {shown(repr(value))}" for key, value in first]
        more = len(self._values) - len(first)
        return f"Keyed({{{', '.join(parts)}{f', and {more:,} more' if more else ''}}})"


class ApartKeys(NamedTuple):
    """What of a KeyedDataSet was written to a sink where it was computed."""

    left: Collection[Any]
    """The keys of which it was not, so that whoever is given the KeyedDataSet is to write them."""

    elsewhere: Collection[Any] | None
    """The keys of which it was; None: all others, and of the window nothing else is there."""


class KeyedDataSet(TickResults, Mapping[str, Keyed[K, O_co]], Generic[K, O_co]):
    """What the tasks of a runner gave for each key in one window: a mapping of task name to
    :class:`Keyed`, which is a mapping of key to result.

    ::

        dataset[vwap]["BTC"]
        for symbol, results in dataset.rows():
            print(symbol, results["vwap"])

    Every task and key stands either here or in :attr:`errors`. It does not change.

    :param window: the window ``[start, end)`` that was computed
    :param by: the column of the keys
    :param values: by task name, results by key
    :param errors: why there is no result: by task name and key, or by the plain name of a task that
        has none for any key
    :param durations: how long each task ran for all keys together, in seconds, by task name
    :param lateness: how long after the window's end (and grace) the tick began, in seconds
    :param took: how long the tasks took together, in seconds; by default the sum of the durations
    :param behind: who gave nothing for the window, or for results that it holds
    :param interval: the interval whose window it is, which tells what its times mean; None: nobody
        knows
    """

    __slots__ = ("_apart", "_by", "_durations", "_flat", "_keys", "_roster", "_values")

    # A tick notes by position, and most of it is never looked at: it is put into mappings on
    # demand.
    _by: str
    _keys: Sequence[K]
    _roster: Roster
    _flat: Sequence[Any]
    _values: Mapping[str, Keyed[K, O_co]] | None
    _durations: Mapping[str, float]
    _apart: Mapping[int, ApartKeys]

    def __init__(
        self,
        window: Window,
        by: str,
        values: Mapping[str, Mapping[K, O_co]] = NOTHING,
        errors: Mapping[str | tuple[str, K], TaskError] = NOTHING,
        durations: Mapping[str, float] = NOTHING,
        lateness: float = 0.0,
        took: float | None = None,
        behind: Sequence[str] = (),
        interval: Interval | None = None,
    ) -> None:
        start, end = window
        self._interval = interval
        self._due = start, end, round(lateness * 1e9)
        self._by = by
        of_errors = (name[1] for name in errors if isinstance(name, tuple))
        keys: set[Any] = set(of_errors).union(*(of_task.keys() for of_task in values.values()))
        self._keys = sorted(keys)
        self._errors = MappingProxyType(dict(errors)) if errors else NOTHING
        self._behind = tuple(behind)
        self._durations = MappingProxyType(dict(durations))
        self._apart = NOTHING
        self._took = sum(durations.values()) if took is None else took
        failed = _by_task(self._errors)
        self._values = {
            name: Keyed(
                {key: of_task[key] for key in self._keys if key in of_task}, failed.get(name, {})
            )
            for name, of_task in values.items()
        }

    @classmethod
    def of(
        cls,
        due: Due,
        behind: Sequence[str],
        roster: Roster,
        by: str,
        keys: Sequence[Any],
        results: Sequence[Any],
        seconds: Iterable[float],
        took: float,
        errors: Mapping[Any, TaskError] | None = None,
    ) -> KeyedDataSet[Any, Any]:
        """The KeyedDataSet of a tick, from what was noted of its tasks by position.

        :param due: the window, and how late the tick began
        :param behind: who gave nothing for the window, or for results that it holds
        :param roster: the tasks
        :param by: the column of the keys
        :param keys: the keys, sorted
        :param results: what each task gave for each key, all tasks of the first key first; of
            those in ``errors``, anything
        :param seconds: how long each task ran for all keys together
        :param took: how long it all took, in seconds
        :param errors: why there is no result, by name and key; None: there are all
        """
        self: KeyedDataSet[Any, Any] = _new(cls)
        self._due = due
        self._behind = behind
        self._roster = roster
        self._by = by
        self._keys = keys
        self._flat = results
        self._durations = MappingProxyType(dict(zip(roster.names, seconds)))
        self._took = took
        self._errors = NOTHING if errors is None else MappingProxyType(errors)
        self._values = None
        self._apart = NOTHING
        return self

    def _mapping(self) -> Mapping[str, Keyed[K, O_co]]:
        values = self._values
        if values is None:
            names, keys, flat = self._roster.names, self._keys, self._flat
            failed = _by_task(self._errors)
            made: dict[str, Keyed[K, O_co]] = {}
            for place, name in enumerate(names):
                if name in self._errors:
                    continue
                results = dict(zip(keys, flat[place :: len(names)]))
                for key in failed.get(name, ()):
                    del results[key]
                made[name] = Keyed(results, failed.get(name, NOTHING))
            self._values = values = made
        return values

    def note_apart(self, apart: Mapping[int, ApartKeys]) -> None:
        """Note what of it was written where it was computed: for a runner, before it delivers it.

        :param apart: by sink
        """
        self._apart = apart

    def apart_of(self, sink: int) -> ApartKeys | None:
        """What of it was written to a sink where it was computed; None: nothing was.

        :param sink: which sink, as it was noted
        """
        return self._apart.get(sink)

    @property
    def by(self) -> str:
        """The column of the keys."""
        return self._by

    @property
    def errors(self) -> Mapping[str | tuple[str, K], TaskError]:
        """Why there is no result, by task name and key, or by the plain name of a task that has
        none for any key. Empty when all is well."""
        if self._errors:
            self._tell_windows()
        return self._errors

    @property
    def durations(self) -> Mapping[str, float]:
        """How long each task ran for all keys together, in seconds, by task name."""
        return self._durations

    @property
    def keys_of_rows(self) -> Sequence[K]:
        """The keys of :meth:`rows`, in their order: those for which tasks were run."""
        return self._keys

    def by_task(self) -> Iterator[tuple[str, Sequence[O_co | None]]]:
        """What each task gave for the keys of :attr:`keys_of_rows`, in their order; None where it
        failed. Tasks that failed for all keys are left out. For what takes results by column."""
        keys = self._keys
        if self._values is None and not self._errors:
            names, flat = self._roster.names, self._flat
            for place, name in enumerate(names):
                yield name, flat[place :: len(names)]
            return
        for name, of_task in self._mapping().items():
            if len(of_task) == len(keys):
                yield name, list(of_task.values())
            else:
                there = dict(of_task)
                yield name, [there.get(key) for key in keys]

    def rows(self) -> Iterator[tuple[K, Mapping[str, O_co]]]:
        """The results of each key: the key, and a mapping of task name to result without the tasks
        that failed for it. In sorted order of the keys."""
        columns = list(self._mapping().items())
        for key in self._keys:
            yield key, {name: of_task[key] for name, of_task in columns if key in of_task}

    def of_key(self, key: object) -> Mapping[str, O_co]:
        """What tasks gave for one key, by their names; without those that failed for it. Empty
        where the window has no such key.

        :param key: the key
        """
        wanted: Any = key
        if self._values is not None:
            columns = self._values.items()
            return {name: of_task[wanted] for name, of_task in columns if wanted in of_task}
        keys: Sequence[Any] = self._keys
        try:
            place = bisect_left(keys, wanted)
        except TypeError:  # a text among ints, or an int among texts
            return {}
        if place == len(keys) or keys[place] != wanted:
            return {}
        names, errors = self._roster.names, self._errors
        values = self._flat[place * len(names) : (place + 1) * len(names)]
        return {
            name: value
            for name, value in zip(names, values)
            if name not in errors and (name, key) not in errors
        }

    @overload
    def __getitem__(self, name: str, /) -> Keyed[K, O_co]: ...
    @overload
    def __getitem__(self, name: Runnable[Any, T], /) -> Keyed[K, T]: ...
    def __getitem__(self, name: Any, /) -> Any:
        """The results of a task by key, by the task's name or by the task itself.

        :raises KeyError: if there are none; when the task failed for all, its error is the
            ``__cause__``
        """
        name = name_of(name)
        try:
            return self._mapping()[name]
        except KeyError:
            error = self.errors.get(name)
            if error is None:
                raise KeyError(f"no task {name!r} in {self}") from None
            raise KeyError(f"{error}") from error

    def __contains__(self, name: object) -> bool:
        return name_of(name) in self._mapping()

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping())

    def __len__(self) -> int:
        return len(self._mapping())

    def __eq__(self, other: object) -> bool:
        """Equal to a KeyedDataSet of the same window, keys and results, and to a mapping of the
        same results. How long it took is no part of it: a replay equals what ran live."""
        if isinstance(other, KeyedDataSet):
            theirs = cast("KeyedDataSet[object, object]", other)
            return (
                self.window == theirs.window
                and self._mapping() == theirs._mapping()
                and self._errors.keys() == theirs._errors.keys()
            )
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # it equals a dict, which has none

    def without(self, *names: str | Runnable[Any, Any]) -> KeyedDataSet[K, O_co]:
        """A new KeyedDataSet without these tasks: neither their results nor their errors.

        :param names: the tasks, or their names
        :raises KeyError: if there is no task of such a name
        """
        left_out = {name_of(name) for name in names}
        unknown = left_out - self._mapping().keys() - {_task(name) for name in self._errors}
        if unknown:
            raise KeyError(f"no task {', '.join(map(repr, sorted(unknown)))} in {self}")
        return KeyedDataSet(
            self.window,
            self._by,
            {name: of_task for name, of_task in self.items() if name not in left_out},
            {name: e for name, e in self.errors.items() if _task(name) not in left_out},
            {name: seconds for name, seconds in self.durations.items() if name not in left_out},
            self.lateness,
            self.took,
            self.behind,
            self.interval,
        )

    def mapped(self, convert: Callable[[Any], Any]) -> KeyedDataSet[K, Any]:
        """The same with each result converted: for a runner, before it delivers it.

        :param convert: gives what is to stand in the place of a result
        """
        values = {
            name: Keyed({key: convert(value) for key, value in of_task.items()}, of_task.errors)
            for name, of_task in self.items()
        }
        self._values = values
        return self

    def to_dict(self) -> dict[str, dict[K, O_co]]:
        """The results as a new dict of dicts: by task name, by key."""
        return {name: dict(of_task) for name, of_task in self.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        timing = dict(self.durations), self.lateness, self.took, self.behind, self.interval
        return KeyedDataSet, (self.window, self._by, self.to_dict(), dict(self.errors), *timing)

    def __str__(self) -> str:
        failed = f", {len(self._errors):,} errors" if self._errors else ""
        behind = f", without {', '.join(self.behind)}" if self.behind else ""
        count = len(self._keys)
        return f"{self._title()} of {len(self)} tasks for {count:,} keys{failed}{behind}"

    def __repr__(self) -> str:
        lines = [str(self)]
        rows = [(repr(key), results) for key, results in self._first_rows(_SHOWN_IN_TEXT)]
        width = max((len(key) for key, _ in rows), default=0)
        lines += [
            f"  {key:<{width}}  " + ", ".join(f"{name}={shown(repr(v))}" for name, v in row.items())
            for key, row in rows
        ]
        if more := len(self._keys) - len(rows):
            lines.append(f"  and {more:,} more")
        errors = list(self.errors.values())
        lines += [f"  ! {error}" for error in errors[:_SHOWN_IN_TEXT]]
        if len(errors) > _SHOWN_IN_TEXT:
            lines.append(f"  ! and {len(errors) - _SHOWN_IN_TEXT:,} more")
        return "\n".join(lines)

    def _first_rows(self, count: int) -> list[tuple[K, Mapping[str, O_co]]]:
        return [row for _, row in zip(range(count), self.rows())]

    def _title(self) -> str:
        return f"KeyedDataSet {window_shown(*self.window, self.interval)}"

    def _repr_html_(self) -> str:
        columns = self._mapping()
        errors = self.errors
        failing = {name[1] for name in errors if isinstance(name, tuple)}
        # Those that fail come first: none is left out for the sake of others.
        keys = sorted(self._keys, key=lambda key: key not in failing)[:_SHOWN]
        cells: list[Sequence[Any]] = []
        for key in keys:
            row: list[Any] = [str(key)]
            for name, of_task in columns.items():
                if key in of_task:
                    row.append(value_text(of_task[key]))
                else:
                    row.append(marked(f"\N{BALLOT X} {errors.get((name, key), '')}", ERROR))
            cells.append(row)
        if more := len(self._keys) - len(cells):
            cells.append([f"and {more:,} more"])
        plain = [e for name, e in errors.items() if isinstance(name, str)]
        cells += [[marked(f"\N{BALLOT X} {error}", ERROR)] for error in plain]
        return table(str(self), (self._by, *columns), cells)


def _task(name: str | tuple[str, Any]) -> str:
    return name if isinstance(name, str) else name[0]


def _by_task(errors: Mapping[Any, TaskError]) -> dict[str, dict[Any, TaskError]]:
    """The errors of single keys, by task."""
    found: dict[str, dict[Any, TaskError]] = {}
    for name, error in errors.items():
        if isinstance(name, tuple):
            task, key = cast("tuple[str, Any]", name)
            found.setdefault(task, {})[key] = error
    return found


AnyDataSet: TypeAlias = DataSet[Any] | KeyedDataSet[Any, Any]
"""The results of a tick, with or without keys."""
