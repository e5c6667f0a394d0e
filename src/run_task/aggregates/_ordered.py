"""Aggregates for which values are put in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from run_task.aggregates._columns import check_column
from run_task.aggregates._kernel import ColumnKernel, Kernel, listed
from run_task.aggregates._rows import Floats, Positions, SegmentedRows, sorted_within
from run_task.aggregates._sliding_ranks import SlidingRanks
from run_task.errors import ConfigError
from run_task.tasks._declared import ColumnTypes

Interpolation: TypeAlias = Literal["linear", "lower", "higher", "nearest", "midpoint"]
"""What a quantile is that falls between two values."""

INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)


@dataclass(frozen=True)
class Quantile(ColumnKernel[float]):
    """A quantile."""

    q: float
    interpolation: Interpolation = "linear"

    function = "quantile"

    @property
    def name(self) -> str:
        percent = f"{self.q * 100:.10g}".replace(".", "_")
        return f"{self.column}_p{percent}"

    def arguments(self) -> list[str]:
        how = "" if self.interpolation == "linear" else self.interpolation
        return [repr(self.column), repr(self.q), *([f"interpolation={how!r}"] if how else [])]

    def results(self, rows: SegmentedRows) -> Sequence[float]:
        return Quantiles([self]).results(rows)[0]


@dataclass(frozen=True)
class Median(Quantile):
    """The median."""

    q: float = field(default=0.5, repr=False)

    function = "median"

    @property
    def name(self) -> str:
        return f"{self.column}_{self.function}"

    def arguments(self) -> list[str]:
        return [repr(self.column)]


class Quantiles:
    """Quantiles of one column by one interpolation, computed together.

    :param kernels: which; one at least
    """

    __slots__ = ("_column", "_how", "_listed", "_qs")

    def __init__(self, kernels: Sequence[Quantile]) -> None:
        self._column = kernels[0].column
        self._how = kernels[0].interpolation
        self._listed = [float(kernel.q) for kernel in kernels]
        self._qs: Floats = np.array(self._listed)[:, None]

    def results(self, rows: SegmentedRows | SlidingRanks) -> list[list[float]]:
        """The results of each: one for each segment."""
        if isinstance(rows, SegmentedRows) and rows.count == 1:
            return [[value] for value in self.of_one(rows)]
        below, part = self._split((rows.counts - 1) * self._qs)
        ranks: Positions = np.empty((2, *below.shape), np.intp)
        ranks[0] = below
        np.add(ranks[0], part > 0, out=ranks[1])
        values: Floats = rows.ranked(self._column, ranks).astype(np.float64, copy=False) + 0.0
        low, high = values
        # Of two infinities that are the same, the distance is not a number.
        between: Floats = self._between(low, high, part)
        same = low == high
        between[same] = low[same]
        listed: list[list[float]] = between.tolist()
        return listed

    def of_one(self, rows: SegmentedRows) -> list[float]:
        """The result of each, of one segment: a few numbers take a tenth of the time without
        arrays."""
        last = int(rows.counts[0]) - 1
        splits = [self._split(last * q) for q in self._listed]
        ranks = [(int(below), int(below) + (part > 0)) for below, part in splits]
        values = rows.placed(self._column, [rank for both in ranks for rank in both])
        found: list[float] = []
        for (lower, upper), (_, part) in zip(ranks, splits):
            low, high = float(values.item(lower)) + 0.0, float(values.item(upper)) + 0.0
            found.append(low if low == high else self._between(low, high, part))
        return found

    # Of arrays and of numbers alike, to the same bits.

    def _split(self, place: Any) -> Any:
        """Between which two ranks a place is: the one below, and how far it is from that."""
        if self._how == "nearest":
            place = (place + 0.5) // 1
        elif self._how == "lower":
            place = place // 1
        elif self._how == "higher":
            place = -(-place // 1)
        below = place // 1
        return below, place - below

    def _between(self, low: Any, high: Any, part: Any) -> Any:
        """What there is between the values of two ranks; 0.0 where both are -0.0 or 0.0, since
        sorted values tell no order of the two."""
        return (low + high) * 0.5 if self._how == "midpoint" else low + (high - low) * part


@dataclass(frozen=True)
class NUnique(ColumnKernel[int]):
    """How many different values there are."""

    numbers: bool = field(default=True, repr=False)

    function = "n_unique"
    empty = 0

    def planned(self, columns: ColumnTypes, task: str) -> Kernel[int]:
        check_column(columns, self.column, task)
        dtype = columns[self.column]
        # Texts of any length are codes.
        return replace(self, numbers=dtype.kind in "biuf" or dtype == np.dtype(str))

    def results(self, rows: SegmentedRows) -> Sequence[int]:
        if self.numbers:
            values = rows.in_order(self.column)
        else:
            ranks: Positions = np.unique(rows.values(self.column), return_inverse=True)[1]
            values = sorted_within(ranks, rows.starts, rows.counts)
        new = np.ones(len(values), np.bool_)
        np.not_equal(values[1:], values[:-1], out=new[1:])
        if values.dtype.kind == "f":  # NaN is one value
            new[1:] &= (values[1:] == values[1:]) | (values[:-1] == values[:-1])
        new[rows.starts] = True
        return listed(np.add.reduceat(new, rows.starts, dtype=np.intp))


def checked_quantile(q: float, interpolation: str) -> None:
    """That there is such a quantile.

    :raises ConfigError: if not
    """
    if isinstance(q, bool) or not isinstance(q, int | float) or not 0 <= q <= 1:  # pyright: ignore[reportUnnecessaryIsInstance]  the caller may have no type checker
        raise ConfigError(
            f"quantile(q={q!r}): it is a number from 0 to 1; 0.99 is the 99th percentile"
        )
    if interpolation not in INTERPOLATIONS:
        raise ConfigError(
            f"quantile(interpolation={interpolation!r}): it is one of "
            f"{', '.join(map(repr, INTERPOLATIONS))}"
        )
