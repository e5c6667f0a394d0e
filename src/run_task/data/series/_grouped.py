"""Rows of a view, put together by their key."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from run_task.data._buckets import bucket_of, buckets_of_ints, part_of, parts_of
from run_task.data.series._column_types import Array
from run_task.data.series._texts import Texts

_DIGIT: Final = 16
"""Of how many bits NumPy sorts integers in linear time."""

_NEAR: Final = 255
"""An int that is no greater is near zero."""

_FEW: Final = 8
"""If there are so many times more texts than rows, the texts of the rows are sorted anew, and not
all that there are."""


class RowStorage(Protocol):
    """Where rows lie, as views have it."""

    def array(self, position: int, first: int, stop: int) -> Array:
        """Some rows of the timestamps (position 0) or of a column, not copied, read-only."""
        ...

    def texts(self, column: int) -> Texts | None:
        """What the codes of a column stand for; None: it has none."""
        ...


class GroupedStorage:
    """Some rows of another storage, those of each key together, in the order in which they were.

    A column is copied once it is asked for, and no other is; all groups have slices of the copy.

    :param rows: where they lie
    :param first: the first of them
    :param stop: the one after the last
    :param order: their numbers, from ``first`` on, in the order in which they stand here
    """

    __slots__ = ("_columns", "_first", "_order", "_rows", "_stop")

    def __init__(self, rows: RowStorage, first: int, stop: int, order: NDArray[np.intp]) -> None:
        self._rows = rows
        self._first = first
        self._stop = stop
        self._order = order
        self._columns: dict[int, Array] = {}

    def column(self, position: int) -> Array:
        """The timestamps (position 0) or a column, of all groups."""
        column = self._columns.get(position)
        if column is None:
            column = self._rows.array(position, self._first, self._stop)[self._order]
            column.flags.writeable = False
            self._columns[position] = column
        return column

    def numbers(self) -> NDArray[np.intp]:
        """The numbers of the rows where they lie, from the first on, in the order of here."""
        return self._order

    def array(self, position: int, first: int, stop: int) -> Array:
        """Some rows of the timestamps (position 0) or of a column, not copied, read-only."""
        column = self._columns.get(position)  # ten thousand times a window
        return (self.column(position) if column is None else column)[first:stop]

    def texts(self, column: int) -> Texts | None:
        """What the codes of a column stand for; None: it has none."""
        return self._rows.texts(column)

    def timestamp(self, row: int) -> int:
        """The timestamp of a row."""
        return int(self.column(0)[row])

    def row_from(self, timestamp: int, first: int, stop: int) -> int:
        """The first row of some of one group that has this timestamp or a later one; ``stop``:
        none has."""
        return bisect_left(self.column(0), timestamp, first, stop)


@dataclass(frozen=True, slots=True)
class KeyPart:
    """Some of the keys: those of the buckets of a part of all.

    :param number: which of the parts
    :param count: how many there are
    """

    number: int
    count: int

    def has(self, key: Any) -> bool:
        """Whether a key is among them."""
        return part_of(bucket_of(key), self.count) == self.number

    def rows(self, keys: Array, texts: Texts | None) -> NDArray[np.intp]:
        """Which rows have one of them."""
        if texts is None:
            return np.flatnonzero(parts_of(buckets_of_ints(keys), self.count) == self.number)
        return np.flatnonzero((parts_of(texts.buckets(), self.count) == self.number)[keys])


class Groups:
    """Rows by key: the keys in sorted order, and where the rows of each lie.

    :param rows: where they lie
    :param column: the number of the key's column
    :param first: the first row
    :param stop: the row after the last
    :param part: which of the keys; None: all
    """

    __slots__ = ("bounds", "keys", "storage")

    def __init__(
        self, rows: RowStorage, column: int, first: int, stop: int, part: KeyPart | None = None
    ) -> None:
        values = rows.array(column + 1, first, stop)
        texts = rows.texts(column)
        chosen: NDArray[np.intp] | None = None
        if part is not None:
            chosen = part.rows(values, texts)
            values = values[chosen]
        self.keys: Sequence[Any]
        """The keys that the rows have, each once, sorted: texts by their code points."""
        if texts is None:
            order, firsts, _ = grouped(above_zero(values)[1])
            self.keys = values[order[firsts]].tolist()
        elif len(texts) > _FEW * len(values):
            codes, places = np.unique(values, return_inverse=True)
            own = sorted(zip(texts.decode(codes).tolist(), range(len(codes))))
            ranks = np.empty(len(codes), np.int64)
            ranks[[place for _, place in own]] = np.arange(len(codes))
            order, firsts, _ = grouped(ranks[places])
            self.keys = [text for text, _ in own]
        else:
            ranks_of, in_order = texts.ranking()
            order, firsts, ranks = grouped(ranks_of[values])
            self.keys = [in_order[rank] for rank in ranks.tolist()]
        self.bounds: NDArray[np.intp] = np.empty(len(firsts) + 1, np.intp)
        """Where the rows of each begin in the storage, and where those of the last end."""
        self.bounds[:-1] = firsts
        self.bounds[-1] = len(values)
        if chosen is not None:
            order = chosen[order]
        self.storage: GroupedStorage = GroupedStorage(rows, first, stop, order)

    def lasts(self) -> NDArray[np.intp]:
        """The number of the last row of each key, from the first of all on."""
        return self.storage.numbers()[self.bounds[1:] - 1]


def keys_and_lasts(
    rows: RowStorage, column: int, first: int, stop: int
) -> tuple[Sequence[Any], NDArray[np.intp]] | None:
    """Which keys rows have, and which row is the last of each, without bringing them together,
    which takes twenty times as long.

    :param rows: where they lie
    :param column: the number of the key's column
    :param first: the first row
    :param stop: the row after the last
    :return: the keys, each once, sorted, and the number of the last row of each, from ``first`` on.
        None: nothing less than bringing them together tells
    """
    texts = rows.texts(column)
    count = stop - first
    if texts is None:
        return _ints_and_lasts(rows.array(column + 1, first, stop))
    if len(texts) > _FEW * count:
        return None
    lasts = np.full(len(texts), -1, np.intp)
    # Of those that go to one place, the last stays there.
    lasts[rows.array(column + 1, first, stop)] = np.arange(count)
    ranks_of, in_order = texts.ranking()
    present = np.flatnonzero(lasts >= 0)
    present = present[ranks_of[present].argsort()]
    return [in_order[rank] for rank in ranks_of[present].tolist()], lasts[present]


def _ints_and_lasts(keys: Array) -> tuple[Sequence[Any], NDArray[np.intp]] | None:
    """The same of ints; None: they lie too far apart."""
    count = len(keys)
    _, places = above_zero(keys)
    largest = int(places.max(initial=0))
    if largest >= _FEW * count:
        return None
    lasts = np.full(largest + 1, -1, np.intp)
    lasts[places.astype(np.intp, copy=False)] = np.arange(count)
    present = np.flatnonzero(lasts >= 0)
    found = lasts[present]
    return keys[found].tolist(), found


def above_zero(values: Array) -> tuple[int, NDArray[Any]]:
    """What to take from some ints so that none is below zero and the least is near it, and the ints
    without it, in the same order."""
    if not len(values):
        return 0, values
    least = values.min()
    if 0 <= least <= _NEAR:
        return 0, values
    if values.dtype.kind == "i":
        wide: NDArray[np.uint64] = values.astype(np.int64).view(np.uint64)
        wide -= np.int64(least).view(np.uint64)  # modulo 2**64, which is what is wanted
        return int(least), wide
    unsigned: NDArray[Any] = values - least
    return int(least), unsigned


def grouped(numbers: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any]]:
    """Bring like numbers together.

    By digits, the lowest first, each in linear time: five times as fast as a sort that compares.

    :param numbers: none below zero
    :return: a stable order of all, where in it each number begins, and these numbers
    """
    largest = int(numbers.max(initial=0))
    order = numbers.astype(np.uint16).argsort(kind="stable")
    shift = _DIGIT
    while largest >> shift:
        digit = (numbers >> shift).astype(np.uint16)
        order = order[digit[order].argsort(kind="stable")]
        shift += _DIGIT
    if largest < len(numbers):
        counts = np.bincount(numbers.astype(np.intp, copy=False))
        (present,) = counts.nonzero()
        counts = counts[present]
        return order, counts.cumsum() - counts, present
    in_order = numbers[order]
    is_first = np.ones(len(numbers), np.bool_)
    np.not_equal(in_order[1:], in_order[:-1], out=is_first[1:])
    (firsts,) = is_first.nonzero()
    return order, firsts, in_order[firsts]
