"""The keys of a window that slides over a grid, from what has changed since the window before.

To look at all rows of a window is too much where it is long: an hour of ten thousand keys has 36
million, of which a second later 35.99 million are the same. So of each key the time of its last row
is kept: it has rows in the window if that lies in it. And of each pane, a piece between two
neighbouring edges of the grid, is kept how many rows it has, which tells whether some came late.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from run_task.data.series._column_types import Array
from run_task.data.series._pane_counts import PaneCounts
from run_task.data.series._texts import Texts
from run_task.data.series._view import Storage, TimeSeriesView, placed
from run_task.tasks._declared import Renumbered

_CHUNK: Final = 1 << 16
"""So many rows are looked at at once, unless a pane has more."""

_SPARE: Final = 1 << 10
"""So many slots may be of keys that are gone, and as many as there are keys."""

_WIDE: Final = 8
"""Ints are looked up in a table of all in their range, if there are not so many times more."""

_NEVER: Final = -(2**63)
_EVER: Final = 2**63 - 1


class KeysOfWindow(NamedTuple):
    """The keys that have rows in a window, and its panes."""

    keys: Sequence[Any]
    """The keys, sorted."""

    slots: NDArray[np.intp]
    """The slot of each."""

    lasts: NDArray[np.int64]
    """The timestamp of the last row of each."""

    pane: int
    """How long a pane is."""

    number: int
    """The number of the first pane on the grid of all windows there may be."""

    edges: NDArray[np.intp]
    """Where the rows of each pane begin in the window, and where those of the last end."""

    changed: NDArray[np.int64]
    """For each pane, at which look its rows were last others than before."""

    look: int
    """The number of this look."""

    looks: SlidingKeys
    """Who has looked, and knows the slots of rows until it looks again."""

    since: object
    """Another one once all slots mean something else."""

    slot_count: int
    """Slots are less than this."""

    renumbered: Renumbered
    """How slots were given out anew."""

    def slots_of(self, view: TimeSeriesView, first: int, stop: int) -> NDArray[np.intp]:
        """The slots of some rows of the window.

        :param view: the rows of the window
        """
        _, storage, start, _, _ = placed(view)
        return self.looks.slots(storage, start + first, start + stop)

    def next_times(self, view: TimeSeriesView, last: Mapping[Any, int]) -> Mapping[Any, int]:
        """When keys had their next row, of the rows that this look has found new. Until another
        look.

        :param view: the rows of the window
        :param last: by key, after which timestamp
        :return: by key, the timestamp of the first row after that; without those that have none
        """
        after = np.full(self.slot_count, _EVER)
        for key, time in last.items():
            if (slot := self.looks.slot_of(key)) is not None:
                after[slot] = time
        if not (self.lasts > after[self.slots]).any():
            return {}
        found = np.full(self.slot_count, _EVER)
        changed = np.flatnonzero(self.changed == self.look)
        for first, stop in _stretches(self.edges, changed):
            slots, times = self.slots_of(view, first, stop), view.time[first:stop]
            rows = np.flatnonzero(times > after[slots])
            rows = rows[found[slots[rows]] == _EVER][::-1]  # so that the first stays there
            found[slots[rows]] = times[rows]
        firsts = found[self.slots].tolist()
        return {key: time for key, time in zip(self.keys, firsts) if time != _EVER}


class SlidingKeys:
    """Looks at windows that slide over a grid, one after another.

    :param by: the column of the key
    :param pane: how long a pane is, in the unit of the rows
    """

    __slots__ = (
        "_by",
        "_counts",
        "_end",
        "_keys",
        "_lasts",
        "_order",
        "_pane",
        "_position",
        "_present",
        "_renumbered",
        "_since",
        "_slot_of",
        "_slots",
    )

    def __init__(self, by: str, pane: int) -> None:
        self._by: Final = by
        self._pane: Final = pane
        self._position = 0  # of the column of the key
        self._forget()

    def _forget(self) -> None:
        self._since = object()
        self._end = _NEVER
        self._counts = PaneCounts()
        self._keys: list[Any] = []  # by slot
        self._slot_of: dict[Any, int] = {}
        self._order: NDArray[np.intp] = np.empty(0, np.intp)  # the slots in the order of keys
        self._lasts: NDArray[np.int64] = np.empty(0, np.int64)
        self._slots: _SlotsOfTexts | _SlotsOfInts | None = None
        self._renumbered = Renumbered(0, np.empty(0, np.intp))
        self._present: tuple[NDArray[np.intp], Sequence[Any]] = np.empty(0, np.intp), ()

    def look(self, view: TimeSeriesView) -> KeysOfWindow:
        """The keys of a window. Windows come in the order of time; after one that comes before
        another, nothing is known of what was looked at.

        :param view: what the tasks of the window would see without keys
        """
        schema, of_view, oldest, stop_of_view, window = placed(view)
        assert window is not None
        start, end = window
        if end < self._end:
            self._forget()
        self._end = end
        _, storage, first, stop, _ = placed(view.in_window)
        self._position = schema.positions[self._by]
        time = storage.array(0, first, stop)
        lowest, pane = start + schema.beyond, self._pane
        count = (end - start) // pane
        edges = time.searchsorted(lowest + pane * np.arange(count + 1))
        number = start // pane
        # Where there is no row, as if it began after the window.
        begun = of_view.timestamp(oldest) if oldest < stop_of_view else end + schema.beyond
        changed = self._counts.note(number, np.diff(edges), number + (begun - lowest) // pane)
        look = self._counts.look
        for one, other in _stretches(edges, np.flatnonzero(changed == look)):
            slots = self.slots(storage, first + one, first + other)
            # They are in order: of those of one slot, the last stays there.
            self._lasts[slots] = np.maximum(self._lasts[slots], time[one:other])
        slots, keys = self._found(time, storage, first, lowest, begun)
        self._renumber(slots)
        slots = self._present[0]
        return KeysOfWindow(
            keys,
            slots,
            self._lasts[slots],
            pane,
            number,
            edges,
            changed,
            look,
            self,
            self._since,
            len(self._keys),
            self._renumbered,
        )

    def _found(
        self, time: NDArray[np.int64], storage: Storage, first: int, lowest: int, begun: int
    ) -> tuple[NDArray[np.intp], Sequence[Any]]:
        """The slots of the keys that have rows in the window, in the order of keys, and the keys.

        :param time: the timestamps of the window
        :param storage: where its rows lie
        :param first: the first of them
        :param lowest: the least timestamp that is in the window
        :param begun: the timestamp of the first row there is
        """
        if lowest <= begun:
            # Rows before that are gone, and of those of that time some may be.
            there = self._lasts > begun
            of_begun = int(time.searchsorted(begun, "right"))
            there[self.slots(storage, first, first + of_begun)] = True
        else:
            there = self._lasts >= lowest
        slots = self._order[there[self._order]]
        before, keys = self._present
        if len(before) != len(slots) or not (before == slots).all():
            keys = list(map(self._keys.__getitem__, slots.tolist()))
            self._present = slots, keys
        return slots, keys

    def _renumber(self, present: NDArray[np.intp]) -> None:
        """Give out slots anew if many are of keys that are gone."""
        count = len(self._keys)
        if count <= 2 * len(present) + _SPARE:
            return
        there = np.zeros(count, np.bool_)
        there[present] = True
        kept = np.flatnonzero(there)
        slots = np.full(count, -1)
        slots[kept] = np.arange(len(kept))
        self._renumbered = Renumbered(self._renumbered.times + 1, slots)
        self._keys = [self._keys[slot] for slot in kept.tolist()]
        self._slot_of = {key: slot for slot, key in enumerate(self._keys)}
        self._lasts = self._lasts[kept]
        self._order = slots[present]
        self._present = self._order, self._present[1]
        self._slots = None

    # Which slot a key or row has

    def slot_of(self, key: Any) -> int | None:
        """The slot of a key; None: it has none."""
        return self._slot_of.get(key)

    def slots(self, storage: Storage, first: int, stop: int) -> NDArray[np.intp]:
        """The slots of some rows.

        :param storage: where they lie
        :param first: the first of them
        :param stop: the one after the last
        """
        values = storage.array(self._position + 1, first, stop)
        texts = storage.texts(self._position)
        table = self._slots
        if table is None or table.texts is not texts:
            # Codes have been given out anew, and mean something else.
            if texts is None:
                table = _SlotsOfInts(self._slot_of, values.dtype)
            else:
                table = _SlotsOfTexts(texts)
            self._slots = table
        slots = table.of(values)
        if len(slots) and int(slots.min()) < 0:
            new = np.unique(values[slots < 0])
            keys = new.tolist() if texts is None else texts.decode(new).tolist()
            table.add(new, self._admit(keys))
            slots = table.of(values)
        return slots

    def _admit(self, keys: Sequence[Any]) -> NDArray[np.intp]:
        """The slots of keys, of which some are new."""
        slot_of, before = self._slot_of, len(self._keys)
        slots = np.array([slot_of.setdefault(key, len(slot_of)) for key in keys], np.intp)
        count = len(slot_of)
        if count > before:
            self._keys = known = list(slot_of)
            # Those of before are in order: to sort most of it anew takes a look at each.
            order = [*self._order.tolist(), *range(before, count)]
            self._order = np.array(sorted(order, key=known.__getitem__), np.intp)
            self._lasts = np.append(self._lasts, np.full(count - before, _NEVER))
        return slots


def _stretches(edges: NDArray[np.intp], panes: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """The rows of some panes in stretches of neighbours, each of not too many.

    :param edges: where the rows of each pane begin, and where those of the last end
    :param panes: which, in ascending order
    """
    first = 0
    while first < len(panes):
        start = int(edges[panes[first]])
        last = first
        while (
            last + 1 < len(panes)
            and panes[last + 1] == panes[last] + 1
            and int(edges[panes[last + 1] + 1]) - start <= _CHUNK
        ):
            last += 1
        stop = int(edges[panes[last] + 1])
        if start < stop:
            yield start, stop
        first = last + 1


class _SlotsOfTexts:
    """The slots of codes.

    :param texts: what codes stand for
    """

    __slots__ = ("_slots", "texts")

    def __init__(self, texts: Texts) -> None:
        self.texts: Final[Texts | None] = texts
        self._slots: NDArray[np.intp] = np.empty(0, np.intp)

    def of(self, codes: Array) -> NDArray[np.intp]:
        """The slots; -1: it is not known."""
        slots, most = self._slots, int(codes.max(initial=-1))
        if most >= len(slots):
            more = np.full(max(most + 1, 2 * len(slots)) - len(slots), -1)
            self._slots = slots = np.concatenate([slots, more])
        return slots[codes]

    def add(self, codes: Array, slots: NDArray[np.intp]) -> None:
        """Note the slots of codes."""
        self._slots[codes] = slots


class _SlotsOfInts:
    """The slots of ints.

    :param slot_of: those that are known
    :param dtype: that of the column
    """

    __slots__ = ("_least", "_slots", "_table", "_values")

    texts: Final[Texts | None] = None

    def __init__(self, slot_of: dict[Any, int], dtype: np.dtype[Any]) -> None:
        self._values: Array = np.empty(0, dtype)  # in ascending order
        self._slots: NDArray[np.intp] = np.empty(0, np.intp)
        self._least = 0
        self._table: NDArray[np.intp] | None = None  # by value, from the least on; None: too wide
        if slot_of:
            self.add(np.array(list(slot_of), dtype), np.array(list(slot_of.values()), np.intp))

    def of(self, values: Array) -> NDArray[np.intp]:
        """The slots; -1: it is not known."""
        known, table = self._values, self._table
        if not len(known) or not len(values):
            return np.full(len(values), -1)
        if table is not None and self._least <= values.min() and values.max() <= known[-1]:
            # A look into a table takes a tenth of a search.
            slots: NDArray[np.intp] = table[values - known[0]]
            return slots
        places = np.minimum(known.searchsorted(values), len(known) - 1)
        return np.where(known[places] == values, self._slots[places], -1)

    def add(self, values: Array, slots: NDArray[np.intp]) -> None:
        """Note the slots of ints that are not known."""
        together = np.concatenate([self._values, values])
        order = together.argsort(kind="stable")
        self._values = known = together[order]
        self._slots = np.concatenate([self._slots, slots])[order]
        least, most = int(known[0]), int(known[-1])
        self._least, self._table = least, None
        if most - least < _WIDE * len(known) and most - least <= np.iinfo(known.dtype).max:
            self._table = np.full(most - least + 1, -1)
            self._table[known - known[0]] = self._slots
