"""What keyed tasks read: the rows of one key, and those of all keys of a window."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from run_task.data.series._grouped import Groups
from run_task.data.series._view import Storage, TimeSeriesView, placed
from run_task.time._moment import TimeLike

_new: Final = object.__new__


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
        """The key: a text or an int."""
        return self._keyed.keys[self._place]

    @property
    def in_window(self) -> TimeSeriesView:
        """The rows of this key in the window of the task that has this view, not copied."""
        own = self._own_window
        if own is None:
            own = self._own_window = self._keyed.in_window(self._place)
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


class KeyedView:
    """The rows up to the end of a window, by key.

    :param view: the rows, as the tasks of the window would have them without keys
    :param by: the column of the key
    """

    __slots__ = ("_all", "_groups", "_places", "_quiet", "_view", "by", "keys", "schema", "window")

    def __init__(self, view: TimeSeriesView, by: str) -> None:
        self.schema, _, _, _, window = placed(view)
        """What the rows are."""
        self.window: tuple[int, int] = window or (0, 0)
        """The window, in the unit of the rows."""
        self._view = view
        self.by: str = by
        """The column of the key."""
        self._quiet: frozenset[Any] = frozenset()
        _, storage, first, stop, _ = placed(view.in_window)
        self._groups = Groups(storage, self.schema.positions[by], first, stop)
        self._all: tuple[Groups, Mapping[Any, int]] | None = None
        self._places: Sequence[int | None] | None = None
        """Which group a key is, where they are not the groups."""
        self.keys: Sequence[Any] = self._groups.keys
        """The keys, sorted."""

    def include(self, keys: Iterable[Any]) -> None:
        """Let keys be among them, though they may have no row in the window.

        :param keys: of the same kind as the column
        """
        self._quiet = frozenset(keys)
        if not self._quiet.issubset(self._groups.keys):
            places = _places(self._groups)
            self.keys = sorted(self._quiet.union(self._groups.keys))
            self._places = [places.get(key) for key in self.keys]

    def last_times(self) -> Iterable[tuple[Any, int]]:
        """The keys that have rows in the window, each with the timestamp of its last."""
        groups = self._groups
        lasts = [stop - 1 for stop in groups.bounds[1:]]
        return zip(groups.keys, groups.storage.column(0)[lasts].tolist())

    def views(self) -> list[KeyView]:
        """The view of each key, in the order of the keys."""
        made: list[KeyView] = []
        for place in range(len(self.keys)):
            view = _new(KeyView)
            view._keyed, view._place, view._own_window = self, place, None  # pyright: ignore[reportPrivateUsage]  ten thousand times a window
            made.append(view)
        return made

    def in_window(self, place: int) -> TimeSeriesView:
        """The rows of a key in the window."""
        groups = self._groups
        group = place if self._places is None else self._places[place]
        first, stop = (0, 0) if group is None else groups.bounds[group : group + 2]
        return TimeSeriesView(self.schema, groups.storage, first, stop)

    def history(self, place: int) -> tuple[Storage, int, int]:
        """Where all rows of a key lie."""
        if self._all is None:
            _, storage, first, stop, _ = placed(self._view)
            groups = Groups(storage, self.schema.positions[self.by], first, stop)
            self._all = groups, _places(groups)
        groups, places = self._all
        group = places.get(self.keys[place])
        first, stop = (0, 0) if group is None else groups.bounds[group : group + 2]
        return groups.storage, first, stop

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_keys, (self._view, self.by, self._quiet)


def _places(groups: Groups) -> Mapping[Any, int]:
    return {key: place for place, key in enumerate(groups.keys)}


def _with_keys(view: TimeSeriesView, by: str, quiet: Iterable[Any]) -> KeyedView:
    keyed = KeyedView(view, by)
    keyed.include(quiet)
    return keyed
