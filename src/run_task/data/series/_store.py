"""One generation of a time series' buffers, and the leases of its readers."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from run_task.data._block import Block
from run_task.data.series._column_types import Array
from run_task.data.series._schema import BlockLayout
from run_task.data.series._texts import Texts

_EXPORTING: Final = threading.Lock()

_ARRAYS_ONLY: Final = "eUS"
"""The kinds of item that a memoryview cannot store: half floats and texts."""


class StoredRows:
    """A block of memory, seen as a column of timestamps and one for each column of the series, by
    those who read it: it is made in a tenth of the time of a :class:`Store`, and a worker process
    makes one for each view.

    :param block: the memory
    :param layout: what lies where in it
    :param texts: what the codes in it stand for: of each column that has any, by its place among
        the columns
    """

    __slots__ = ("address", "block", "exported", "layout", "leases", "texts", "times")

    def __init__(self, block: Block, layout: BlockLayout, texts: Mapping[int, Texts]) -> None:
        self.block: Block = block
        self.layout: BlockLayout = layout
        self.texts: Mapping[int, Texts] = texts
        times: Any = np.ndarray((layout.capacity,), np.int64, block.memory)  # they lie first
        self.times: memoryview = memoryview(times)
        """The timestamps, one by one: an item takes less time so than in an array."""
        self.address: int = times.__array_interface__["data"][0]
        self.leases: dict[int, int] = {}
        """Up to which row each lease protects the rows, by the id of the lease."""
        self.exported: int = 0
        """Up to which row other processes may read, without end."""

    def covered(self) -> int:
        """Up to which row readers may be reading."""
        # Looking at leases comes first: a view that is exported holds one meanwhile.
        return max(max(list(self.leases.values()), default=0), self.exported)

    def export(self, until: int) -> None:
        """Note that other processes may read the rows before this one, without end."""
        with _EXPORTING:
            self.exported = max(self.exported, until)


class Store(StoredRows):
    """A block of memory that a series writes its rows to.

    What has been published of it is not written to again while a lease covers it.
    """

    __slots__ = ("_places", "arrays", "cells", "limit", "turn")

    def __init__(self, block: Block, layout: BlockLayout, texts: Mapping[int, Texts]) -> None:
        super().__init__(block, layout, texts)
        memory = block.memory
        self.arrays: list[Array] = [
            np.ndarray((layout.capacity,), dtype, memory, offset)
            for dtype, offset in zip(layout.dtypes, layout.offsets)
        ]
        """The timestamps, and each column: all rows there is room for."""
        columns = layout.schema.columns
        key = layout.schema.key
        # That of the key is the first, since it may refuse a text, too.
        encoded = sorted(texts, key=lambda i: columns[i].name != key)
        plain = [i for i in range(len(columns)) if i not in texts]
        # What is stored of a check is written over.
        self.cells: list[Any] = [
            *((columns[i].name, columns[i].exact, columns[i].convert, i) for i in plain),
            *((columns[i].name, None, str.__len__, i) for i in encoded[1:]),
            *((columns[i].name, None, texts[i].code, i) for i in encoded),
        ]
        self._places: Sequence[int] = [i for *_, i in self.cells]
        self.cells = [(*convert, self._cells(i + 1)) for *convert, i in self.cells]
        """For each column: its name, the type whose values are stored as they are, what makes
        such a value of others, and where to store it. Those of texts come last, and before them is
        seen whether all of these are texts, so that a row that is refused leaves none."""
        self.limit: int = layout.capacity
        """The row before which there is room. Rows behind it may be in use by readers."""
        self.turn: int = layout.capacity
        """Once the first row of the series is this one, it is time to write over those before."""

    def convert_by(self, place: int, convert: Callable[[Any], Any], exact: type | None) -> None:
        """Have the values of a column converted in another way.

        :param place: its place among the columns
        :param convert: makes what is stored of a value
        :param exact: the type whose values are stored as they are; None: of none
        """
        at = len(self._places) - 1 - self._places[::-1].index(place)  # the last of it
        name, _, _, cells = self.cells[at]
        self.cells[at] = (name, exact, convert, cells)

    def _cells(self, position: int) -> Any:
        array = self.arrays[position]
        if array.dtype.char in _ARRAYS_ONLY:
            return array
        if array.dtype.kind == "M":
            array = array.view(np.int64)
        cells: Any = array  # the checkers do not know that an array is a buffer
        return memoryview(cells)

    def write(self, start: int, arrays: Sequence[Array]) -> None:
        """Store rows: the timestamps and each column."""
        stop = start + len(arrays[0])
        for buffer, array in zip(self.arrays, arrays):
            buffer[start:stop] = array

    def rows(self, start: int, stop: int) -> list[Array]:
        """The timestamps and each column of some rows, not copied."""
        return [buffer[start:stop] for buffer in self.arrays]


class Lease:
    """A reader uses the rows of a store before ``until``, which stay as they are meanwhile.

    It lasts for as long as the object does, to the moment: nothing that it refers to refers back.

    :param store: where they lie
    :param until: the row after the last one
    """

    __slots__ = ("_columns", "_until", "store")

    def __init__(self, store: StoredRows, until: int) -> None:
        self.store: StoredRows = store
        self._until = until
        self._columns: dict[int, Array | None] = {}  # those that were asked for; whole, if again
        store.leases[id(self)] = until

    def __del__(self) -> None:
        self.store.leases.pop(id(self), None)

    def array(self, position: int, first: int, stop: int) -> Array:
        """Rows of the timestamps (position 0) or of a column, not copied, read-only."""
        columns = self._columns
        if position not in columns:  # most views are asked for it once
            columns[position] = None
            return np.asarray(_ColumnSlice(self, position, first, stop))
        column = columns[position]
        if column is None:
            # One for all windows of a replay, of which each is cut in a tenth of the time. It has a
            # lease of its own, since this one refers to it.
            own = Lease(self.store, self._until)
            column = columns[position] = np.asarray(_ColumnSlice(own, position, 0, self._until))
        return column[first:stop]

    def texts(self, column: int) -> Texts | None:
        """What the codes of a column stand for; None: it has none."""
        return self.store.texts.get(column)

    def timestamp(self, row: int) -> int:
        """The timestamp of a row."""
        return self.store.times[row]

    def row_from(self, timestamp: int, first: int, stop: int) -> int:
        """The first row of some that has this timestamp or a later one; ``stop``: none has."""
        return bisect_left(self.store.times, timestamp, first, stop)


class _ColumnSlice:
    """Some rows of a column, and the lease that keeps them.

    NumPy leads every array derived from another back to the object that gave the memory. That has
    to be one of the lease's, so the arrays that are handed out are no slices of the store's own.
    """

    __slots__ = ("__array_interface__", "_lease")

    def __init__(self, lease: Lease, position: int, first: int, stop: int) -> None:
        self._lease = lease
        store = lease.store
        dtype = store.layout.dtypes[position]
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "data": (
                store.address + store.layout.offsets[position] + dtype.itemsize * first,
                True,  # read-only
            ),
            "shape": (stop - first,),
            "typestr": store.layout.schema.codes[position],
        }
