"""What keyed tasks read: the rows of one key, and those of all keys of a window."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from run_task.data.series._grouped import Groups, KeyPart, keys_and_lasts
from run_task.data.series._schema import Schema
from run_task.data.series._sliding_keys import KeysOfWindow, SlidingKeys
from run_task.data.series._view import Storage, TimeSeriesView, placed
from run_task.time._moment import TimeLike

_new: Final = object.__new__

Spots: TypeAlias = tuple[Storage, Sequence[int], Sequence[int]]
"""Where the rows of all keys lie, and of each key the first, and the one after the last."""


class KeyView(TimeSeriesView):
    """The rows of one key: a view as any other, with rows of that key only.

    Ten thousand of these are made for a window, and most are asked for little: so one is made of
    what is in the window when that is asked for, and of all rows of its key when these are.
    """

    __slots__ = ("_keyed", "_own_window", "_place")

    # Those of the base are set once one of them is looked at: see __getattr__.
    _keyed: KeyedView
    _place: int
    _own_window: TimeSeriesView | None

    @property
    def key(self) -> Any:
        """The key whose rows these are: a text or an int."""
        return self._keyed.keys[self._place]

    @property
    def in_window(self) -> TimeSeriesView:
        """The rows of this key in the window of the task that has this view, not copied."""
        own = self._own_window
        if own is None:
            keyed = self._keyed
            storage, firsts, stops = keyed.spots or keyed.find_spots()
            place = self._place
            own = self._own_window = TimeSeriesView(
                keyed.schema, storage, firsts[place], stops[place]
            )
        return own

    def between(self, start: TimeLike, end: TimeLike) -> TimeSeriesView:
        """The rows of this key from ``start`` to ``end``: as :meth:`TimeSeriesView.between`."""
        if (start, end) == self._keyed.window:
            return self.in_window
        return super().between(start, end)

    def __getattr__(self, name: str) -> Any:
        # Found nowhere else: what the base has is not set yet.
        if name not in TimeSeriesView.__slots__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        keyed = self._keyed
        super().__init__(keyed.schema, *keyed.history(self._place), keyed.window)
        return object.__getattribute__(self, name)


class WindowBefore:
    """What became of the rows of the window before, from which it is told what will of the next."""

    __slots__ = ("brought_together",)

    def __init__(self) -> None:
        self.brought_together: bool = False
        """Whether those of each key were: then the keys of the next are found so."""


class KeyedView:
    """The rows up to the end of a window, by key.

    Rows are brought together when somebody asks for those of a key: those of a view that is on its
    way to other processes are not.

    :param view: the rows, as the tasks of the window would have them without keys
    :param by: the column of the key
    :param part: which of the keys; None: all
    :param sliding: looks at windows that slide over a grid; None: they do not
    :param before: the window before; None: there was none
    """

    __slots__ = (
        "_all",
        "_before",
        "_in_window",
        "_keys",
        "_lasts",
        "_part",
        "_quiet",
        "_view",
        "by",
        "known",
        "schema",
        "spots",
        "window",
    )

    def __init__(
        self,
        view: TimeSeriesView,
        by: str,
        part: KeyPart | None = None,
        sliding: SlidingKeys | None = None,
        before: WindowBefore | None = None,
    ) -> None:
        schema, _, _, _, window = placed(view)
        self.schema: Schema = schema
        """What the rows are."""
        self.window: tuple[int, int] = window or (0, 0)
        """The window, in the unit of the rows."""
        self._view = view
        self.by: str = by
        """The column of the key."""
        self._part = part
        self._before = before or WindowBefore()
        self._quiet: frozenset[Any] = frozenset()
        self._in_window: Groups | None = None
        self._all: tuple[Groups, Mapping[Any, int]] | None = None
        self._lasts: tuple[Sequence[Any], NDArray[np.intp]] | None = None
        """The keys that have rows in the window, and the last row of each."""
        self._keys: tuple[Sequence[Any], Sequence[int | None] | None] | None = None
        """The keys, and which group each is, where they are not the groups."""
        self.spots: Spots | None = None
        """Where the rows of each key in the window lie, once that was asked for."""
        self.known: KeysOfWindow | None = None if sliding is None else sliding.look(view)
        """The keys that have rows in the window, of one that slides over a grid, and its panes."""

    @property
    def keys(self) -> Sequence[Any]:
        """The keys, sorted."""
        return self._known()[0]

    @property
    def has_rows(self) -> bool:
        """Whether a key has rows in the window."""
        return len(self.rows_in_window) > 0

    @property
    def inputs(self) -> Sequence[Any]:
        """The view of each input, as the tasks of the window would have it without keys."""
        return (self._view,)

    @property
    def rows_in_window(self) -> TimeSeriesView:
        """The rows of the window, whatever their keys."""
        return self._view.in_window

    def places_among(self, numbers: NDArray[np.intp]) -> NDArray[np.intp]:
        """What each of the keys has that has rows in the window; -1: it has none.

        :param numbers: of each key that has rows, in the order of these keys
        """
        _, places = self._known()
        if places is None:
            return numbers
        found = [-1 if place is None else place for place in places]
        return np.append(numbers, -1)[found]

    def include(self, keys: Iterable[Any]) -> None:
        """Let keys be among them, though they may have no row in the window.

        :param keys: of the same kind as the column
        """
        self._quiet = frozenset(keys)
        self._keys = self.spots = None

    def part(self, number: int, count: int) -> KeyedView:
        """The same of some of the keys: those of one part of all buckets.

        :param number: which of the parts
        :param count: how many parts there are
        """
        part = KeyPart(number, count)
        view = KeyedView(self._view, self.by, part)
        view.include(key for key in self._quiet if part.has(key))
        return view

    def _known(self) -> tuple[Sequence[Any], Sequence[int | None] | None]:
        known = self._keys
        if known is None:
            present = self._present()
            known = present, None
            if self._quiet and not self._quiet.issubset(present):  # which looks at each of these
                places = _places(present)
                keys = sorted(self._quiet.union(present))
                known = keys, [places.get(key) for key in keys]
            self._keys = known
        return known

    def _present(self) -> Sequence[Any]:
        """The keys that have rows in the window."""
        if self.known is not None:
            return self.known.keys
        if self._before.brought_together:
            return self._groups().keys
        return self._found_lasts()[0]

    def _found_lasts(self) -> tuple[Sequence[Any], NDArray[np.intp]]:
        """The same, and the last row of each, from its first on."""
        lasts = self._lasts
        if lasts is None:
            _, storage, first, stop, _ = placed(self._view.in_window)
            if self._part is None and not self._before.brought_together:
                lasts = keys_and_lasts(storage, self.schema.positions[self.by], first, stop)
            if lasts is None:
                groups = self._groups()
                lasts = groups.keys, groups.lasts()
            self._lasts = lasts
        return lasts

    def _groups(self) -> Groups:
        """The rows of the window."""
        groups = self._in_window
        if groups is None:
            groups = self._in_window = self._grouped(self._view.in_window)
            self._before.brought_together = True
        return groups

    def _grouped(self, view: TimeSeriesView) -> Groups:
        _, storage, first, stop, _ = placed(view)
        return Groups(storage, self.schema.positions[self.by], first, stop, self._part)

    def last_times(self) -> Iterable[tuple[Any, int]]:
        """The keys that have rows in the window, each with the timestamp of its last."""
        if self.known is not None:
            return zip(self.known.keys, self.known.lasts.tolist())
        keys, lasts = self._found_lasts()
        return zip(keys, self._view.in_window.time[lasts].tolist())

    def next_times(self, last: Mapping[Any, int]) -> Mapping[Any, int]:
        """When keys had their next row in the window.

        :param last: by key, after which timestamp: that of its last row by the window before, or by
            the one that was looked at before, if windows slide
        :return: by key, the timestamp of the first row after that; without those that have none
        """
        if self.known is not None:
            return self.known.next_times(self.rows_in_window, last)
        groups = self._groups()
        times, found = groups.storage.column(0), dict[Any, int]()
        for key, (first, stop) in zip(groups.keys, pairwise(groups.bounds.tolist())):
            if (before := last.get(key)) is not None:
                row = first if times[first] > before else bisect_right(times, before, first, stop)
                if row < stop:
                    found[key] = int(times[row])
        return found

    def views(self) -> Sequence[Any]:
        """What tasks see of each key, in the order of the keys: a :class:`KeyView`. Each is made
        when it is asked for, and is there for as long as somebody has it: ten thousand that were
        there at one time would have the garbage collector look through all of a program's memory,
        now and then."""
        return _Views(self)

    def view_at(self, place: int) -> Any:
        """What tasks see of the key at a place."""
        view = _new(KeyView)
        view._keyed, view._place, view._own_window = self, place, None  # pyright: ignore[reportPrivateUsage]  ten thousand times a window
        return view

    def find_spots(self) -> Spots:
        """Where the rows of each key in the window lie."""
        storage, firsts, stops = self.spans()
        self.spots = storage, firsts.tolist(), stops.tolist()
        return self.spots

    def spans(self) -> tuple[Storage, NDArray[np.intp], NDArray[np.intp]]:
        """The same in arrays, for who looks at those of all keys at once."""
        groups = self._groups()
        _, places = self._known()
        firsts, stops = groups.bounds[:-1], groups.bounds[1:]
        if places is not None:
            found = [-1 if place is None else place for place in places]
            firsts, stops = np.append(firsts, 0)[found], np.append(stops, 0)[found]
        return groups.storage, firsts, stops

    def history(self, place: int) -> tuple[Storage, int, int]:
        """Where all rows of a key lie."""
        if self._all is None:
            groups = self._grouped(self._view)
            self._all = groups, _places(groups.keys)
        groups, places = self._all
        group = places.get(self.keys[place])
        first, stop = (0, 0) if group is None else groups.bounds[group : group + 2].tolist()
        return groups.storage, first, stop

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_keys, (self._view, self.by, self._quiet, self._part)


class _Views(Sequence[Any]):
    """What tasks see of each key, made anew each time that it is asked for.

    :param keyed: the rows of all keys
    """

    __slots__ = ("_at", "_places")

    def __init__(self, keyed: KeyedView) -> None:
        self._at = keyed.view_at
        self._places = range(len(keyed.keys))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, int):
            return self._at(self._places[place])
        return [self._at(one) for one in range(*place.indices(len(self)))]

    def __iter__(self) -> Iterator[Any]:
        return map(self._at, self._places)


def _places(keys: Sequence[Any]) -> Mapping[Any, int]:
    return {key: place for place, key in enumerate(keys)}


def _with_keys(
    view: TimeSeriesView, by: str, quiet: Iterable[Any], part: KeyPart | None
) -> KeyedView:
    keyed = KeyedView(view, by, part)
    keyed.include(quiet)
    return keyed
