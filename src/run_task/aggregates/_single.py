"""The rows of a segment that is alone: what is known of it are numbers, and not arrays of one.

NumPy takes a microsecond for an array of one value, and a tenth of that for the value itself. So
what statistics of a live window are computed of are numbers, by the formulas that are there for
arrays: these consist of what NumPy does value by value, to the same bits for either.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np

from run_task.aggregates._rows import Floats, SegmentedRows
from run_task.data.series._column_types import Array

T = TypeVar("T")


class SingleSegment:
    """What :class:`SegmentedRows` has for statistics, of one segment.

    :param rows: its rows
    """

    __slots__ = ("_known", "_starts", "_sums", "counts", "floats", "lengths", "texts", "values")

    starts: Final[Any] = 0

    def __init__(self, rows: SegmentedRows) -> None:
        self._starts = rows.starts
        self._sums: dict[str, Any] = {}
        self._known: dict[Hashable, Any] = {}
        self.counts: Final[Any] = rows.counts[0]
        self.lengths: Final[Any] = np.float64(self.counts)
        self.values: Final[Callable[[str], Array]] = rows.values
        self.floats: Final[Callable[[str], Floats]] = rows.floats
        self.texts: Final[Callable[[str], Sequence[str]]] = rows.texts

    @property
    def lasts(self) -> Any:
        """Where its last row is."""
        return self.counts - 1

    def shared(self, name: Hashable, make: Callable[..., T], *arguments: Any) -> T:
        """What several need, made by the first that asks for it."""
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = make(*arguments)
        found: T = known
        return found

    def sum(self, values: Array) -> Any:
        """The sum, added as of a segment among others."""
        return np.add.reduceat(values, self._starts)[0]

    def sums(self, column: str) -> Any:
        """The sum of a column of numbers."""
        found = self._sums.get(column)
        if found is None:
            found = self._sums[column] = self.sum(self.floats(column))
        return found

    def means(self, column: str) -> Any:
        """The mean of a column of numbers."""
        return self.sums(column) / self.lengths

    def centred(self, column: str) -> Floats:
        """How far each value of a column of numbers is from their mean."""
        return self.shared(("centred", column), self._centred, column)

    def _centred(self, column: str) -> Floats:
        centred: Floats = self.floats(column) - self.means(column)
        return centred

    def least(self, column: str) -> Any:
        """The least value of a column of numbers."""
        return self._extreme(np.fmin, column)

    def greatest(self, column: str) -> Any:
        """The greatest value of a column of numbers."""
        return self._extreme(np.fmax, column)

    def _extreme(self, take: np.ufunc, column: str) -> Any:
        found = take.reduceat(self.values(column), self._starts)[0]
        return found + 0.0 if found.dtype.kind == "f" else found


StatisticRows: TypeAlias = SegmentedRows | SingleSegment
"""The rows of segments, of which statistics are arrays, or of one alone, of which they are
numbers."""
