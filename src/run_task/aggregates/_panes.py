"""Windows that slide, from what is known of their panes.

Neighbouring panes are merged in pairs, pairs in fours and so on, and a window is merged from as few
of these as make it up. Which panes make a pair depends only on their numbers on the grid, so the
results of a window are the same to the last bit wherever a run began and whatever other windows
are computed with it. The nodes are those of a segment tree (M. de Berg et al., "Computational
Geometry", 3rd edition, section 10.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from run_task.aggregates._rows import Positions
from run_task.aggregates._statistics import Partial, Statistic
from run_task.data.series._column_types import Array
from run_task.tasks._declared import Panes


class Partials:
    """Some statistics of some things: panes, nodes of the tree, or windows.

    :ivar counts: how many rows each has; what is known of one without rows means nothing
    :ivar partials: the statistics
    """

    __slots__ = ("counts", "partials")

    def __init__(self, counts: Positions, partials: Sequence[Partial]) -> None:
        self.counts: Positions = counts
        self.partials: Sequence[Partial] = partials

    def __getitem__(self, which: slice | Positions) -> Partials:
        return Partials(
            self.counts[which],
            [tuple(array[which] for array in partial) for partial in self.partials],
        )

    def put(self, where: Positions, others: Partials) -> None:
        """Set some of them."""
        self.counts[where] = others.counts
        for mine, its in zip(self.partials, others.partials):
            for array, values in zip(mine, its):
                array[where] = values

    def empty(self, count: int) -> Partials:
        """So many of the same statistics, of no rows."""
        return Partials(
            np.zeros(count, np.intp),
            [tuple(np.zeros(count, array.dtype) for array in partial) for partial in self.partials],
        )


def merged(statistics: Sequence[Statistic], left: Partials, right: Partials) -> Partials:
    """What is known of each pair together; of one that has no rows, what is known of the other."""
    together = [
        statistic.merge(one, other)
        for statistic, one, other in zip(statistics, left.partials, right.partials)
    ]
    counts = left.counts + right.counts
    if not left.counts.all():
        together = _where(left.counts == 0, right.partials, together)
    if not right.counts.all():
        together = _where(right.counts == 0, left.partials, together)
    return Partials(counts, together)


def _where(
    which: NDArray[np.bool_], ones: Sequence[Partial], others: Sequence[Partial]
) -> list[Partial]:
    return [
        tuple(np.where(which, a, b) for a, b in zip(one, other)) for one, other in zip(ones, others)
    ]


class _TreeLevel(NamedTuple):
    """The nodes of one level of the tree."""

    nodes: Partials
    """What is known of them."""

    first: int
    """The number of the first: of a node of ``2**level`` panes, that of its first over
    ``2**level``."""

    def above(self, statistics: Sequence[Statistic]) -> _TreeLevel:
        """The level above: the nodes that have both of their children here."""
        first = (self.first + 1) >> 1
        begin = 2 * first - self.first
        end = begin + max(len(self.nodes.counts) - begin, 0) // 2 * 2
        left, right = self.nodes[begin:end:2], self.nodes[begin + 1 : end : 2]
        return _TreeLevel(merged(statistics, left, right), first)


def windows_of(statistics: Sequence[Statistic], panes: Panes, known: Partials) -> Partials:
    """What is known of windows.

    :param statistics: how what is known of two neighbours is merged
    :param panes: the panes, and of which each window is made
    :param known: what is known of each pane
    """
    if len(panes.first) == 1:
        return _only_window(statistics, panes, known)
    number = int(panes.numbers[0])
    level = _TreeLevel(known, number)
    n_windows = len(panes.first)
    found = known.empty(n_windows)  # the earlier part of each window, as far as it has been merged
    later = known.empty(n_windows)  # and the later one
    open_ = np.flatnonzero(panes.last > panes.first)  # those of which not all is merged
    begin, end = number + panes.first[open_], number + panes.last[open_]
    while len(open_):
        at_begin, at_end = (begin & 1).astype(np.bool_), (end & 1).astype(np.bool_)
        for odd, into, is_first in ((at_begin, found, True), (at_end, later, False)):
            which = open_[odd]
            if not len(which):
                continue
            node = begin[odd] if is_first else end[odd] - 1
            nodes, so_far = level.nodes[node - level.first], into[which]
            pair = (so_far, nodes) if is_first else (nodes, so_far)
            into.put(which, merged(statistics, *pair))
        begin, end = (begin + at_begin) >> 1, (end - at_end) >> 1
        still = begin < end
        if not still.all():
            open_, begin, end = open_[still], begin[still], end[still]
        if len(open_):
            level = level.above(statistics)
    return merged(statistics, found, later)


def _only_window(statistics: Sequence[Statistic], panes: Panes, known: Partials) -> Partials:
    """The same of one window: a few numbers take a quarter of the time without arrays."""
    of_window = slice(int(panes.first[0]), int(panes.last[0]))
    counts = known.counts[of_window]
    filled = np.flatnonzero(counts)
    if not len(filled):
        return known.empty(1)
    number, listed_counts = int(panes.numbers[of_window.start]), counts.tolist()
    found: list[Partial] = []
    for statistic, partial in zip(statistics, known.partials):
        its = tuple(array[of_window] for array in partial)
        together = statistic.together(tuple(array[filled] for array in its))
        if together is None:
            values = _merged_in_order(statistic, _scalars(its), listed_counts, number)
            together = tuple(_alone(value, array.dtype) for value, array in zip(values, its))
        found.append(together)
    return Partials(counts.sum(keepdims=True), found)


def _merged_in_order(
    statistic: Statistic, values: Iterable[Any], counts: Sequence[int], number: int
) -> Any:
    """What is known of all panes of a window, one of which has rows at least.

    :param values: what is known of each pane
    :param counts: how many rows each has
    :param number: the number of the first
    """
    merge = statistic.merge

    def together(one: Any, other: Any) -> Any:
        if one is None:
            return other
        return one if other is None else merge(one, other)

    nodes = [value if count else None for value, count in zip(values, counts)]
    earlier = later = None
    begin, end = number, number + len(nodes)
    while begin < end:
        if begin & 1:
            earlier = together(earlier, nodes.pop(0))
        if end & 1:
            later = together(nodes.pop(), later)
        nodes = [together(one, other) for one, other in zip(nodes[::2], nodes[1::2])]
        begin, end = (begin + 1) >> 1, end >> 1
    return together(earlier, later)


def _scalars(partial: Partial) -> Iterable[Any]:
    """What is known of each pane, as scalars: floats as Python's, which take less time."""
    return zip(*(array.tolist() if array.dtype == np.float64 else list(array) for array in partial))


def _alone(value: Any, dtype: np.dtype[Any]) -> Array:
    found: Array = np.empty(1, dtype)
    found[0] = value
    return found


class PaneCache:
    """What a plan knows of panes, from one call to the next."""

    __slots__ = ("_known", "_panes")

    def __init__(self) -> None:
        self._panes: Panes | None = None
        self._known: Sequence[Partials | None] | None = None

    def take(self, panes: Panes) -> tuple[Sequence[Partials | None] | None, Positions, Positions]:
        """What is known of panes that are as they were. It is forgotten until :meth:`keep`.

        :return: what is known of the panes of before, which of those are there again, and which of
            these they are; of no others is anything known
        """
        before, known = self._panes, self._known
        self._panes = self._known = None
        nothing = np.zeros(0, np.intp)
        if before is None or panes.fresh is None:
            return None, nothing, nothing
        same = np.flatnonzero(~panes.fresh)
        at = _positions(before, panes, same)
        there = at >= 0
        return known, at[there], same[there]

    def keep(self, panes: Panes, known: Sequence[Partials | None]) -> None:
        """Keep what is known of panes."""
        self._panes, self._known = panes, known


def _positions(before: Panes, panes: Panes, which: Positions) -> Positions:
    """Where some panes stood before; -1: nowhere.

    :param before: the panes of before
    :param panes: those of now
    :param which: positions of some of them
    """
    numbers = panes.numbers[which]
    none = np.full(len(which), -1, np.intp)
    if not len(before.numbers):
        return none
    at = numbers - int(before.numbers[0])
    return np.where((at >= 0) & (at < len(before.numbers)), at, -1)


def assembled(count: int, parts: Sequence[tuple[Positions, Partials]]) -> Partials | None:
    """What is known of all panes, from parts of them; of the others, that they have no rows.

    :param count: how many panes there are
    :param parts: the positions of panes, and what is known of them
    :return: None: none has rows
    """
    if not parts:
        return None
    if len(parts) == 1 and len(parts[0][0]) == count:
        return parts[0][1]
    found = parts[0][1].empty(count)
    for where, part in parts:
        found.put(where, part)
    return found
