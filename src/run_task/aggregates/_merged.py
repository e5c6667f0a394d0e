"""Aggregates that are computed of statistics of the parts of a window: windows that slide share
what is known of their panes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from run_task.aggregates._columns import check_column
from run_task.aggregates._kernel import (
    ColumnKernel,
    Kernel,
    MergedKernel,
    O_co,
    listed,
    plain,
    type_of,
    with_none,
)
from run_task.aggregates._statistics import (
    CoMoments,
    ExactSums,
    Firsts,
    Greatest,
    Latest,
    Least,
    Moments,
    Partial,
    ProductSums,
    Statistic,
    Sums,
)
from run_task.tasks._column_kinds import is_encoded
from run_task.tasks._declared import ColumnTypes, Failed


@dataclass(frozen=True)
class RowCount(MergedKernel[int]):
    """How many rows there are."""

    function = "count"
    empty = 0

    @property
    def name(self) -> str:
        return self.function

    @property
    def columns(self) -> Sequence[str]:
        return ()

    def made_of(self) -> tuple[Statistic, ...]:
        return ()

    def value(self, counts: Any, *partials: Any) -> Any:
        return counts


class _MergedColumn(ColumnKernel[O_co], MergedKernel[O_co]):
    """Of one column, and of statistics of its parts."""


@dataclass(frozen=True)
class _Picked(_MergedColumn[Any]):
    """One of the values of a column."""

    def result_type(self, columns: ColumnTypes) -> Any:
        return type_of(columns[self.column])

    def value(self, counts: Any, *partials: Any) -> Any:
        return partials[0][0]


@dataclass(frozen=True)
class _OfAny(_Picked):
    """A value of a column of anything."""

    encoded: bool = field(default=False, repr=False)

    def planned(self, columns: ColumnTypes, task: str) -> Kernel[Any]:
        check_column(columns, self.column, task)
        return replace(self, encoded=is_encoded(columns[self.column]))


@dataclass(frozen=True)
class First(_OfAny):
    """The value of the first row."""

    function = "first"

    def made_of(self) -> tuple[Statistic, ...]:
        return (Firsts(self.column, self.encoded),)


@dataclass(frozen=True)
class Last(_OfAny):
    """The value of the last row."""

    function = "last"

    def made_of(self) -> tuple[Statistic, ...]:
        return (Latest(self.column, self.encoded),)


@dataclass(frozen=True)
class Min(_Picked):
    """The least value."""

    function = "min"

    def made_of(self) -> tuple[Statistic, ...]:
        return (Least(self.column),)


@dataclass(frozen=True)
class Max(_Picked):
    """The greatest value."""

    function = "max"

    def made_of(self) -> tuple[Statistic, ...]:
        return (Greatest(self.column),)


@dataclass(frozen=True)
class Sum(_MergedColumn[float]):
    """The sum: of ints and bools exactly."""

    exact: bool = field(default=False, repr=False)
    signed: bool = field(default=True, repr=False)

    function = "sum"

    def planned(self, columns: ColumnTypes, task: str) -> Kernel[float]:
        super().planned(columns, task)
        kind = columns[self.column].kind
        return replace(self, exact=kind != "f", signed=kind != "u")

    def result_type(self, columns: ColumnTypes) -> Any:
        return float | None if columns[self.column].kind == "f" else int | None

    def made_of(self) -> tuple[Statistic, ...]:
        return (ExactSums(self.column) if self.exact else Sums(self.column),)

    def value(self, counts: Any, *partials: Any) -> Any:
        return partials[0][0]

    def finish(self, counts: NDArray[np.intp], *partials: Partial) -> Sequence[Any]:
        if not self.exact:
            return super().finish(counts, *partials)
        return list(map(self._exact, counts.tolist(), *(each.tolist() for each in partials[0])))

    def finish_one(self, count: np.intp, *partials: Partial) -> Any:
        if not self.exact:
            return super().finish_one(count, *partials)
        return self._exact(int(count), *map(int, partials[0]))

    def _exact(self, count: int, high: int, low: int) -> Any:
        total = (high << 32) + low
        if -(2**63) <= total < 2 ** (63 if self.signed else 64):
            return total
        return Failed(
            OverflowError(
                f"{self}: the sum of the {count} rows is {total}, which 64 bits do not hold: "
                f"declare the column float, or sum what is smaller"
            )
        )


@dataclass(frozen=True)
class Mean(_MergedColumn[float]):
    """The arithmetic mean."""

    function = "mean"

    def made_of(self) -> tuple[Statistic, ...]:
        return (Sums(self.column),)

    def value(self, counts: Any, *partials: Any) -> Any:
        return partials[0][0] / counts


@dataclass(frozen=True)
class _Spread(_MergedColumn[float | None]):
    """Of how far values are from their mean."""

    ddof: int = 1

    def made_of(self) -> tuple[Statistic, ...]:
        return (Moments(self.column),)

    def arguments(self) -> list[str]:
        return [repr(self.column), *([f"ddof={self.ddof}"] if self.ddof != 1 else [])]

    def variance(self, counts: Any, partial: Any) -> Any:
        """The variance, where there are more rows than ``ddof``."""
        return partial[3] / (counts - self.ddof)

    def finish(self, counts: NDArray[np.intp], *partials: Partial) -> Sequence[float | None]:
        found, few = listed(self.value(counts, *partials)), counts <= self.ddof
        return with_none(found, few) if np.count_nonzero(few) else found

    def finish_one(self, count: np.intp, *partials: Partial) -> float | None:
        return None if count <= self.ddof else super().finish_one(count, *partials)


@dataclass(frozen=True)
class Var(_Spread):
    """The variance."""

    function = "var"

    def value(self, counts: Any, *partials: Any) -> Any:
        return self.variance(counts, partials[0])


@dataclass(frozen=True)
class Std(_Spread):
    """The standard deviation."""

    function = "std"

    def value(self, counts: Any, *partials: Any) -> Any:
        return np.sqrt(self.variance(counts, partials[0]))


class Ohlc(NamedTuple):
    """The first, greatest, least and last value of a window, which an open-high-low-close chart
    shows.

    :ivar open: the first
    :ivar high: the greatest
    :ivar low: the least
    :ivar close: the last
    """

    open: float
    high: float
    low: float
    close: float


@dataclass(frozen=True)
class OpenHighLowClose(_MergedColumn[Ohlc]):
    """The first, greatest, least and last value."""

    function = "ohlc"

    def made_of(self) -> tuple[Statistic, ...]:
        column = self.column
        return Firsts(column, False), Greatest(column), Least(column), Latest(column, False)

    def value(self, counts: Any, *partials: Any) -> Any:
        return [partial[0] for partial in partials]

    def finish(self, counts: NDArray[np.intp], *partials: Partial) -> Sequence[Ohlc]:
        return list(map(Ohlc, *map(listed, self.value(counts, *partials))))

    def finish_one(self, count: np.intp, *partials: Partial) -> Ohlc:
        return Ohlc(*map(plain, self.value(count, *partials)))


@dataclass(frozen=True)
class Vwap(MergedKernel[float]):
    """The mean of prices, each weighted by its volume."""

    price: str
    volume: str

    function = "vwap"

    @property
    def name(self) -> str:
        return f"{self.price}_vwap"

    @property
    def columns(self) -> Sequence[str]:
        return self.price, self.volume

    def made_of(self) -> tuple[Statistic, ...]:
        return ProductSums(self.price, self.volume), Sums(self.volume)

    def value(self, counts: Any, *partials: Any) -> Any:
        return partials[0][0] / partials[1][0]


@dataclass(frozen=True)
class Corr(MergedKernel[float]):
    """The correlation of two columns."""

    one: str
    other: str

    function = "corr"

    @property
    def name(self) -> str:
        return f"{self.one}_{self.other}_corr"

    @property
    def columns(self) -> Sequence[str]:
        return self.one, self.other

    def made_of(self) -> tuple[Statistic, ...]:
        return (CoMoments(Moments(self.one), Moments(self.other)),)

    def value(self, counts: Any, *partials: Any) -> Any:
        (partial,) = partials
        # The roots first: the product of the two may be beyond what a float holds.
        apart = np.sqrt(partial[3]) * np.sqrt(partial[7])
        found = np.clip(partial[8] / apart, -1.0, 1.0)
        # Also where values are so near each other that their squares are nothing.
        return np.where(apart == 0.0, np.nan, found)[()]
