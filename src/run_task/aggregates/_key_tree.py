"""Windows that slide, of many keys at once, from what is known of their panes.

The tree is that of :mod:`run_task.aggregates._panes`: neighbouring panes are merged in pairs, pairs
in fours and so on, by their numbers on the grid. A node knows the statistics of all keys that have
rows in it. From one window to the next, nodes are kept whose rows are the same; so a window costs
the rows of the panes that have come, and the few nodes that it is merged from.

Of the nodes of few panes there are the most, and they are needed at the ends of a window only. So
a stretch of panes there, a *block*, has all nodes, and in between only those of whole blocks are
kept. What lies at the beginning of a window is known again by the time when that is in the middle
of a block: with each window so many panes are computed anew as it leaves behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from run_task.aggregates._panes import Partials, merged
from run_task.aggregates._rows import CHUNK, Positions, SegmentedRows
from run_task.aggregates._statistics import Statistic
from run_task.data.series._grouped import grouped
from run_task.tasks._declared import KeyedPanes

_NONE: Final = np.zeros(0, np.int32)


class KeyStatistics(NamedTuple):
    """What is known of the rows that some keys have in a node."""

    slots: NDArray[np.int32]
    """The keys, in ascending order."""

    known: Partials
    """What is known of each."""


class PaneGroup(NamedTuple):
    """What is to be known of some of the rows of panes."""

    statistics: Sequence[Statistic]
    """The statistics."""

    known: Callable[[SegmentedRows, Positions], tuple[Positions, Partials] | None]
    """What is known of the segments of some rows, given a number of each: the numbers of those that
    have rows which are asked for, and their statistics; None: there are none."""


Node: TypeAlias = Sequence[KeyStatistics | None]
"""What is known of a node, by group; None: no key has rows there."""


class KeyTree:
    """What is known of the panes of windows, by key.

    :param groups: what is to be known
    """

    __slots__ = (
        "_depth",
        "_first",
        "_groups",
        "_levels",
        "_look",
        "_looks",
        "_none",
        "_panes",
        "_renumbered",
        "_slots",
    )

    def __init__(self, groups: Sequence[PaneGroup]) -> None:
        self._groups: Final = groups
        self._none: Final[Node] = [None] * len(groups)
        self._looks: object = None
        self._look = self._renumbered = 0
        self._depth = 0  # of the nodes of blocks
        self._levels: list[dict[int, Node]] = []
        """By level, the nodes by their number: of a node of ``2**level`` panes, that of its first
        over ``2**level``."""
        self._first = 0  # the first pane of the window before that has rows
        self._slots = _NONE

    def forget(self) -> None:
        """Nothing is known any more."""
        self._looks, self._levels = None, []

    def window(self, panes: KeyedPanes) -> Node:
        """What is known of a window.

        :param panes: its panes
        """
        begin, end = self._follow(panes)
        first, stop = begin, end
        found = later = self._none
        level = 0
        # From the earliest node to the latest, as few as make up the window.
        while begin < end:
            if begin & 1:
                found = self._merged(found, self._node(panes, level, begin))
            if end & 1:
                later = self._merged(self._node(panes, level, end - 1), later)
            begin, end, level = (begin + 1) >> 1, end >> 1, level + 1
        found = self._merged(found, later)
        self._settle(panes, first, stop)
        return found

    # From window to window

    def _follow(self, panes: KeyedPanes) -> tuple[int, int]:
        """Let go of what is known no more.

        :return: the number of the first pane of the window, and of the one after the last
        """
        numbers = panes.rows.window_starts
        count = len(numbers)
        begin = int(numbers[0]) if count else 0
        end = begin + count
        renumbered = panes.renumbered
        if self._looks is not panes.looks or renumbered.times > self._renumbered + 1:
            self._looks, self._look = panes.looks, 0
            self._levels = []
            self._depth = _depth(panes, sum(len(group.statistics) for group in self._groups))
            self._first = begin
        levels = self._levels
        while len(levels) <= count.bit_length():
            levels.append({})
        for level, nodes in enumerate(levels):
            least, most = -(-begin >> level), (end >> level) - 1
            for number in [number for number in nodes if not least <= number <= most]:
                del nodes[number]
        for pane in (begin + np.flatnonzero(panes.changed > self._look)).tolist():
            for level, nodes in enumerate(levels):
                nodes.pop(pane >> level, None)
        if renumbered.times > self._renumbered:
            self._renumber(renumbered.slots)
        self._look, self._renumbered = panes.look, renumbered.times
        return begin, end

    def _renumber(self, slots: Positions) -> None:
        """Keys have other slots than before."""
        anew: dict[int, NDArray[np.int32]] = {}

        def of(one: KeyStatistics | None) -> KeyStatistics | None:
            if one is None:
                return None
            its = anew.get(id(one.slots))
            if its is None:
                its = anew[id(one.slots)] = slots[one.slots].astype(np.int32)
            return KeyStatistics(its, one.known)

        # The arrays of before stay until all are done, so that none has the id of another.
        self._levels = [
            {number: [*map(of, node)] for number, node in nodes.items()} for nodes in self._levels
        ]
        self._slots = _NONE

    def _settle(self, panes: KeyedPanes, begin: int, end: int) -> None:
        """Keep what the next windows need."""
        depth = self._depth
        if not depth:
            return
        block = 1 << depth
        rows = panes.rows
        first = begin + int((rows.ends > rows.starts).argmax())
        step = min(max(first - self._first, 0), block)
        self._first = first
        ahead = first + block
        last = ((end >> depth) - 1) << depth  # the block before the last is where late rows go
        self._leaves(panes, range(ahead, min(ahead + step, last)))
        kept_to = ahead + step
        for number in {number >> depth for number in self._levels[0]}:
            if kept_to <= number << depth and (number + 1) << depth <= last:
                self._node(panes, depth, number)
        for level, nodes in enumerate(self._levels[:depth]):
            for number in [*nodes]:
                if kept_to <= number << level and (number + 1) << level <= last:
                    del nodes[number]

    # Nodes

    def _node(self, panes: KeyedPanes, level: int, number: int) -> Node:
        nodes = self._levels[level]
        found = nodes.get(number)
        if found is not None:
            return found
        if level == 0:
            self._leaves(panes, [number])
            return nodes[number]
        if level == self._depth:
            found = self._block(panes, number)
        else:
            left = self._node(panes, level - 1, 2 * number)
            found = self._merged(left, self._node(panes, level - 1, 2 * number + 1))
        nodes[number] = found
        return found

    def _block(self, panes: KeyedPanes, number: int) -> Node:
        """What is known of a block, of which no more is kept than before."""
        leaves = self._levels[0]
        own = range(number << self._depth, (number + 1) << self._depth)
        missing = [pane for pane in own if pane not in leaves]
        nodes = [leaves.get(pane, self._none) for pane in own]
        for pane, node in self._of_rows(panes, missing):
            nodes[pane - own.start] = node
        while len(nodes) > 1:
            nodes = [self._merged(*pair) for pair in zip(nodes[::2], nodes[1::2])]
        return nodes[0]

    def _leaves(self, panes: KeyedPanes, numbers: Iterable[int]) -> None:
        """Know some panes."""
        leaves = self._levels[0]
        leaves.update(self._of_rows(panes, [each for each in numbers if each not in leaves]))

    def _of_rows(self, panes: KeyedPanes, numbers: Sequence[int]) -> Iterator[tuple[int, Node]]:
        """What is known of some panes, from their rows.

        :param numbers: of the panes, in ascending order
        """
        rows = panes.rows
        begin = int(rows.window_starts[0]) if len(rows) else 0
        first = 0
        while first < len(numbers):
            start = int(rows.starts[numbers[first] - begin])
            stop = first + 1
            while (
                stop < len(numbers)
                and numbers[stop] == numbers[stop - 1] + 1
                and int(rows.ends[numbers[stop] - begin]) - start <= CHUNK
            ):
                stop += 1
            some = numbers[first:stop]
            yield from zip(some, self._of_neighbours(panes, some[0] - begin, len(some)))
            first = stop

    def _of_neighbours(self, panes: KeyedPanes, place: int, count: int) -> Sequence[Node]:
        """What is known of panes that follow each other.

        :param place: which pane of the window is the first
        :param count: how many there are
        """
        rows, width = panes.rows, panes.slot_count
        starts = rows.starts[place : place + count]
        ends = rows.ends[place : place + count]
        start, stop = int(starts[0]), int(ends[-1])
        if start == stop:
            return [self._none] * count
        cells = panes.slots(start, stop)
        if count > 1:
            cells = cells + np.repeat(width * np.arange(count), ends - starts)
        order, firsts, cells = grouped(cells)
        counts = np.diff(firsts, append=len(order))
        # Of the times of a window, statistics know nothing.
        segments = SegmentedRows(rows, order + start, firsts, counts, cells, cells)
        by_group: list[Sequence[KeyStatistics | None]] = []
        for group in self._groups:
            found = group.known(segments, cells)
            if found is None:
                by_group.append([None] * count)
                continue
            numbers, known = found
            narrow: Any = known.counts.astype(np.int32)  # half the memory
            known = Partials(narrow, known.partials)
            if count == 1:
                by_group.append([KeyStatistics(self._shared(numbers), known)])
                continue
            edges = numbers.searchsorted(width * np.arange(count + 1)).tolist()
            by_group.append(
                [
                    KeyStatistics(self._shared(numbers[a:b] - width * i), known[a:b])
                    if a < b
                    else None
                    for i, (a, b) in enumerate(pairwise(edges))
                ]
            )
        return [list(its) for its in zip(*by_group)]

    def _shared(self, slots: Positions) -> NDArray[np.int32]:
        """Slots of keys, which are kept once where they are those of the pane before."""
        last = self._slots
        if len(last) != len(slots) or not (last == slots).all():
            last = self._slots = slots.astype(np.int32)
        return last

    def _merged(self, left: Node, right: Node) -> Node:
        """What is known of two nodes together."""
        if left is self._none:
            return right
        if right is self._none:
            return left
        return [
            together(group.statistics, one, other)
            for group, one, other in zip(self._groups, left, right)
        ]


def _depth(panes: KeyedPanes, statistics: int) -> int:
    """Of how many panes a block is, as a power of two: of few, where windows have few panes, or
    where a pane has so many rows that what is known of it takes little memory beside them; of more,
    where much is known of each.

    :param statistics: how many are known of each
    """
    rows = panes.rows
    filled = np.count_nonzero(rows.ends > rows.starts)
    keys = np.count_nonzero(panes.places >= 0)
    per_pane = int(rows.ends[-1]) // int(filled * keys) if filled else 0  # and key
    depth = (len(rows).bit_length() - 4) // 2 + (statistics.bit_length() - 1) // 2
    return max(0, depth - max(0, per_pane.bit_length() - 1))


def together(
    statistics: Sequence[Statistic], left: KeyStatistics | None, right: KeyStatistics | None
) -> KeyStatistics | None:
    """What is known of the rows of keys and those that come after them.

    :param statistics: how it is merged
    """
    if left is None or right is None:
        return right if left is None else left
    if left.slots is right.slots or (
        len(left.slots) == len(right.slots) and (left.slots == right.slots).all()
    ):
        return KeyStatistics(left.slots, merged(statistics, left.known, right.known))
    # By a table of all slots, which takes a fraction of a sort.
    there = np.zeros(max(int(left.slots[-1]), int(right.slots[-1])) + 1, np.bool_)
    there[left.slots] = there[right.slots] = True
    slots = np.flatnonzero(there)
    places: Any = np.empty(len(there), np.intp)
    places[slots] = np.arange(len(slots))
    in_left, in_right = places[left.slots], places[right.slots]
    of_left: Any = np.full(len(slots), -1)  # of each, where it is in the left
    of_left[in_left] = np.arange(len(in_left))
    found = left.known.empty(len(slots))
    found.put(in_left, left.known)
    found.put(in_right, right.known)
    of_left = of_left[in_right]
    common = np.flatnonzero(of_left >= 0)
    if len(common):
        pair = left.known[of_left[common]], right.known[common]
        found.put(in_right[common], merged(statistics, *pair))
    return KeyStatistics(slots.astype(np.int32), found)
