"""Aggregates for which values are put in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

import numpy as np

from run_task.aggregates._columns import check_column
from run_task.aggregates._kernel import ColumnKernel, Kernel, listed
from run_task.aggregates._rows import Floats, Positions, SegmentedRows, sorted_within
from run_task.aggregates._sliding_ranks import SlidingRanks
from run_task.data.series._column_types import Array
from run_task.errors import ConfigError
from run_task.tasks._declared import ColumnTypes

Interpolation: TypeAlias = Literal["linear", "lower", "higher", "nearest", "midpoint"]
"""What a quantile is that falls between two values."""

INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)


@dataclass(frozen=True)
class RankedKernel(ColumnKernel[float]):
    """An aggregate that asks for nothing but values of some ranks."""

    def results(self, rows: SegmentedRows) -> Sequence[float]:
        return self.of_ranked(rows)

    def of_ranked(self, rows: SegmentedRows | SlidingRanks) -> Sequence[float]:
        """The results of segments, by their ``counts`` and ``ranked``."""
        raise NotImplementedError


@dataclass(frozen=True)
class Quantile(RankedKernel):
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

    def of_ranked(self, rows: SegmentedRows | SlidingRanks) -> Sequence[float]:
        place: Array = (rows.counts - 1) * self.q
        if self.interpolation == "nearest":
            place = np.floor(place + 0.5)
        below = np.floor(place)
        lower = below.astype(np.intp)
        upper = np.ceil(place).astype(np.intp)
        if self.interpolation in ("nearest", "lower"):
            upper = lower
        elif self.interpolation == "higher":
            lower = upper
        low, high = map(_float, rows.ranked(self.column, lower, upper))
        if self.interpolation == "midpoint":
            between = (low + high) * 0.5
        else:
            between = low + (high - low) * (place - below)
        # Of two infinities that are the same, the distance is not a number.
        return listed(np.where(low == high, low, between))


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


def _float(values: Array) -> Floats:
    # 0.0 where it is -0.0: sorted values tell no order of the two.
    floats: Floats = values.astype(np.float64) + 0.0
    return floats


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
