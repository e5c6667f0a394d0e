"""Values of some rank in windows that overlap, without sorting each window."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, Final

import numpy as np

from run_task.aggregates._rows import Positions
from run_task.data.series._column_types import Array
from run_task.tasks._declared import Segments

_OVERLAP: Final = 4
"""If windows together have so many times more rows than there are, they are not sorted one by one.
"""

_ROWS: Final = 1 << 17
"""So many rows are put in order at once, unless a few windows have more."""

_DIGIT: Final = 16
"""Of how many bits NumPy sorts ints in linear time."""


class SlidingRanks:
    """The ranks of values in segments that overlap.

    All rows are put in order once, and that order is cut into blocks. For each place where a
    segment begins or ends it is counted how many rows before it each block has; the differences
    of two such counts say in which block of a segment the value of a rank is, and a look at the
    rows of that block which one it is. What is found are the same values as by sorting each.

    :ivar counts: how many rows each segment has, at least 1
    """

    __slots__ = ("_ends", "_known", "_segments", "_starts", "counts")

    def __init__(self, segments: Segments, starts: Positions, ends: Positions) -> None:
        self._segments = segments
        self._starts = starts
        self._ends = ends
        self.counts: Final[Positions] = ends - starts
        self._known: dict[Hashable, _Blocks] = {}

    def ranked(self, column: str, ranks: Positions) -> Array:
        """The values of some ranks of a column of numbers in each segment.

        :param column: the column's name
        :param ranks: any number of rows of ranks, in each one for each segment: 0 is the least, NaN
            come last
        :return: in the shape of the ranks
        """
        first = int(self._starts.min())
        blocks = self._known.get(column)
        values = self._segments.column(column)[first : int(self._ends.max())]
        if blocks is None:
            starts, ends = self._starts - first, self._ends - first
            blocks = self._known[column] = _Blocks(values, starts, ends)
        # Of an odd number of rows, the two in the middle are one: what is asked for is found once.
        asked, which = np.unique(ranks.reshape(-1, len(self.counts)), axis=0, return_inverse=True)
        rows: Positions = np.array([blocks.rows_of(each) for each in asked])
        found: Array = values[rows[which.ravel()].reshape(ranks.shape)]
        return found


class _Blocks:
    """Rows in the order of their values, in blocks.

    :param values: of each row
    :param starts: where each segment begins
    :param ends: where it ends
    """

    __slots__ = ("_before", "_ends", "_order", "_size", "_starts")

    def __init__(self, values: Array, starts: Positions, ends: Positions) -> None:
        self._starts = starts
        self._ends = ends
        count = len(values)
        order = value_order(values)
        self._size = size = max(int(count**0.5), 1)  # what a look costs, and what counting does
        n_blocks = -(-count // size)
        block_of = np.empty(count, np.intp)
        block_of[order] = np.arange(count) // size
        edges = np.unique(np.concatenate([starts, ends]))
        first, stop = int(edges[0]), int(edges[-1])
        cells = np.repeat(np.arange(len(edges) - 1) * n_blocks, np.diff(edges))
        cells += block_of[first:stop]
        counted = np.bincount(cells, minlength=(len(edges) - 1) * n_blocks)
        before = np.zeros((len(edges), n_blocks), np.int32)
        np.cumsum(counted.reshape(-1, n_blocks), axis=0, out=before[1:])
        within = before[edges.searchsorted(ends)]
        within -= before[edges.searchsorted(starts)]
        self._before = np.cumsum(within, axis=1, out=within)
        """Of each segment, how many of its rows each block and those before it have."""
        blocks = np.full(n_blocks * size, count, np.intp)
        blocks[:count] = order
        self._order = blocks.reshape(n_blocks, size)
        """The rows of each block, in the order of their values."""

    def rows_of(self, ranks: Positions) -> Positions:
        """The row of some rank in each segment."""
        each = np.arange(len(ranks))
        block = np.count_nonzero(self._before <= ranks[:, None], axis=1)
        left = ranks - np.where(block > 0, self._before[each, block - 1], 0)
        rows = self._order[block]
        inside = (rows >= self._starts[:, None]) & (rows < self._ends[:, None])
        passed = np.cumsum(inside, axis=1, dtype=np.int32)
        found: Positions = rows[each, np.count_nonzero(passed <= left[:, None], axis=1)]
        return found


def value_order(values: Array) -> Positions:
    """The rows in the order of their values; NaN come last. By digits, the lowest first.

    :param values: numbers
    """
    if values.dtype.kind == "f":
        floats: Any = values.astype(np.float64) + 0.0
        floats[np.isnan(floats)] = np.nan
        bits = floats.view(np.int64)
        # Of floats below zero all bits are turned around, of others the sign.
        keys: Any = (bits ^ ((bits >> 63) | np.int64(-(2**63)))).view(np.uint64)
    elif values.dtype.kind == "i":
        keys = (values.astype(np.int64) ^ np.int64(-(2**63))).view(np.uint64)
    else:
        keys = values.astype(np.uint64)
    keys -= keys.min()
    order: Positions = keys.astype(np.uint16).argsort(kind="stable")
    largest = int(keys.max())
    shift = _DIGIT
    while largest >> shift:
        digit = (keys >> np.uint64(shift)).astype(np.uint16)
        order = order[digit[order].argsort(kind="stable")]
        shift += _DIGIT
    return order


def overlapping(segments: Segments, filled: Positions) -> bool:
    """Whether segments have so many rows in common that they are better not sorted one by one.

    :param filled: the numbers of those that have rows
    """
    if len(filled) < 2 * _OVERLAP:
        return False
    starts, ends = segments.starts[filled], segments.ends[filled]
    together = int((ends - starts).sum())
    apart: int = ends.max() - starts.min()
    return together > _OVERLAP * apart


def sliding_chunks(
    segments: Segments, filled: Positions
) -> Iterator[tuple[SlidingRanks, Positions]]:
    """The ranks of segments, in chunks of such as are near each other.

    :param filled: the numbers of those that have rows
    :return: the ranks, and the numbers of the segments that they are of
    """
    filled = filled[segments.starts[filled].argsort(kind="stable")]
    starts, ends = segments.starts[filled], segments.ends[filled]
    longest: int = (ends - starts).max()
    most = max(_ROWS, 4 * int(longest))
    first = 0
    while first < len(filled):
        # Starts ascend, so that whose end is the first too far away is beyond all before it.
        furthest: int = starts[first] + (most - longest)
        stop = int(starts.searchsorted(furthest, "right"))
        its = slice(first, max(stop, first + 1))
        yield SlidingRanks(segments, starts[its], ends[its]), filled[its]
        first = its.stop
