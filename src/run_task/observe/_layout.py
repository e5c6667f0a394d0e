"""Where the boxes of a drawing stand: in layers, so that every arrow points to the right.

After K. Sugiyama, S. Tagawa and M. Toda, "Methods for visual understanding of hierarchical system
structures", 1981: a layer for each node, stand-ins where an edge crosses a layer, an order within
layers that has few crossings, and then places.
"""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import Final

_SWEEPS: Final = 8
"""How often orders and places are made better, from left to right and back."""


class Layers:
    """The nodes of a graph without cycles, in layers, and what stands for edges in between.

    :param count: how many nodes there are; they are called by number
    :param edges: from which node to which
    :ivar layers: the numbers in each layer, from top to bottom; from ``count`` on, they stand for
        edges
    :ivar paths: for each edge, the nodes that it goes through, with both ends
    """

    def __init__(self, count: int, edges: Sequence[tuple[int, int]]) -> None:
        depths = _depths(count, edges)
        self.layers: list[list[int]] = [[] for _ in range(max(depths, default=-1) + 1)]
        for node, depth in enumerate(depths):
            self.layers[depth].append(node)
        self.paths: list[list[int]] = []
        self._before: dict[int, list[int]] = {node: [] for node in range(count)}
        self._after: dict[int, list[int]] = {node: [] for node in range(count)}
        for start, end in edges:
            path = [start]
            for depth in range(depths[start] + 1, depths[end]):
                stand_in = len(self._before)
                self._before[stand_in], self._after[stand_in] = [], []
                self.layers[depth].append(stand_in)
                path.append(stand_in)
            path.append(end)
            self.paths.append(path)
            for left, right in pairwise(path):
                self._after[left].append(right)
                self._before[right].append(left)
        self._order()

    def _order(self) -> None:
        """Order each layer by where its neighbours stand, and keep the best order that was seen."""
        best, fewest = [list(layer) for layer in self.layers], self.crossings()
        for sweep in range(_SWEEPS):
            if not fewest:
                break
            neighbours = self._after if sweep % 2 else self._before
            rank = {node: i for layer in self.layers for i, node in enumerate(layer)}
            for layer in self.layers[::-1] if sweep % 2 else self.layers:
                layer.sort(key=lambda node: _mean([rank[n] for n in neighbours[node]], rank[node]))
                rank.update({node: i for i, node in enumerate(layer)})
            if (crossings := self.crossings()) < fewest:
                best, fewest = [list(layer) for layer in self.layers], crossings
        self.layers = best

    def crossings(self) -> int:
        """How many pairs of edges cross."""
        count = 0
        for layer, following in pairwise(self.layers):
            rank = {node: i for i, node in enumerate(following)}
            ends = [sorted(rank[n] for n in self._after[node]) for node in layer]
            for i, upper in enumerate(ends):
                for lower in ends[i + 1 :]:
                    count += sum(end > other for end in upper for other in lower)
        return count

    def places(self, heights: Sequence[float], gap: float) -> dict[int, float]:
        """The middle of each node, from the top, so that edges are as level as can be.

        :param heights: of the nodes; what stands for edges has none
        :param gap: the least distance of two that stand in one layer
        """
        height = dict.fromkeys(self._before, 0.0) | dict(enumerate(heights))
        middle = dict.fromkeys(self._before, 0.0)
        for sweep in range(_SWEEPS):
            neighbours = self._after if sweep % 2 else self._before
            for layer in self.layers[::-1] if sweep % 2 else self.layers:
                wanted = [_mean([middle[n] for n in neighbours[i]], middle[i]) for i in layer]
                at = _apart(wanted, [height[i] for i in layer], gap)
                middle.update(zip(layer, at))
        top = min((middle[node] - height[node] / 2 for node in middle), default=0.0)
        return {node: at - top for node, at in middle.items()}


def _depths(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The layer of each node: right of all that lead to it, and no further left than need be."""
    before: dict[int, list[int]] = {node: [] for node in range(count)}
    after: dict[int, list[int]] = {node: [] for node in range(count)}
    for start, end in edges:
        before[end].append(start)
        after[start].append(end)
    depths = [0] * count
    for node in TopologicalSorter(before).static_order():
        depths[node] = max((depths[other] + 1 for other in before[node]), default=0)
    for node in range(count):
        if not before[node] and after[node]:
            depths[node] = min(depths[other] for other in after[node]) - 1
    return depths


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _apart(wanted: Sequence[float], heights: Sequence[float], gap: float) -> list[float]:
    """Places in this order that do not overlap, and are together where they are wanted."""
    at: list[float] = []
    for i, place in enumerate(wanted):
        least = at[-1] + (heights[i - 1] + heights[i]) / 2 + gap if at else place
        at.append(max(place, least))
    # They have been moved down only: all of them up by what they are too low on the average.
    down = sum(a - w for a, w in zip(at, wanted)) / max(1, len(at))
    return [place - down for place in at]
