"""Rows that come when a live run has begun, of windows that ended before."""

from __future__ import annotations

import threading

from run_task.pipeline._edges import Edges
from run_task.pipeline._order import NEVER, Place, StageMark


class Leading:
    """Which windows of a run's stages are given that ended before it began, and wait for rows."""

    def __init__(self) -> None:
        self._readers: dict[Place, list[tuple[StageMark, Edges]]] = {}
        self._lock = threading.Lock()

    def add(self, mark: StageMark, edges: Edges) -> None:
        """Look after a stage, too. Not once the run has begun.

        :param mark: how far it is
        :param edges: with which window it begins
        """
        self._readers.setdefault(mark.reads, []).append((mark, edges))

    def before_ns(self, place: Place) -> float:
        """Rows that are older may belong to such a window; infinitely long ago: none does.

        :param place: the data that they enter
        """
        return max(
            (
                edges.given_from_ns
                for mark, edges in self._readers.get(place, ())
                if _next_ns(mark, edges) < edges.given_from_ns
            ),
            default=-NEVER,
        )

    def note(self, place: Place, row_ns: float) -> None:
        """A row, or results, are about to enter.

        :param place: the data that they enter
        :param row_ns: the time of the row, in nanoseconds since the Unix epoch; of one that the
            window holds which ends with it, a nanosecond before
        """
        with self._lock:
            for mark, edges in self._readers.get(place, ()):
                edges.note(row_ns, _next_ns(mark, edges))


def _next_ns(mark: StageMark, edges: Edges) -> int:
    """The end of the first window of a stage that has no view of the data."""
    return int(max(edges.first_ns, mark.seen_ns))
