"""What is known of a pane such that what is known of two neighbours tells it of both together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from run_task.aggregates._single import StatisticRows
from run_task.data.series._column_types import Array

Partial: TypeAlias = tuple[Array, ...]
"""Arrays with one value for each pane; or of one pane that is alone, its values."""

_LOW: Final = 32
"""An int is added up as its lower bits, so many, and what is above them: neither overflows."""

_GREATEST: Final = float(np.finfo(np.float64).max)

_MASK: Final = (1 << _LOW) - 1


class Statistic(Protocol):
    """A statistic of some rows that can be merged."""

    def of(self, rows: StatisticRows) -> Partial:
        """Of each segment."""
        ...

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Of rows and those that come after them, both of which there are.

        :param left: of the earlier rows
        :param right: of the later ones
        """
        ...

    def together(self, partial: Partial) -> Partial | None:
        """Of all rows of some panes at once, if the order in which they are merged makes no
        difference to any bit; None: it does.

        :param partial: of panes that have rows, of one at least
        """
        ...

    def final(self, partial: Partial) -> Partial:
        """What aggregates are computed of, once nothing more is merged with it."""
        ...


class _InOrder:
    """A statistic whose bits depend on the order in which it is merged."""

    def together(self, partial: Partial) -> Partial | None:
        return None


class _AsItIs(_InOrder):
    """A statistic that aggregates take as it was merged."""

    def final(self, partial: Partial) -> Partial:
        return partial


@dataclass(frozen=True)
class Sums(_AsItIs):
    """The sum of a column, as floats."""

    column: str

    def of(self, rows: StatisticRows) -> Partial:
        return (rows.sums(self.column),)

    def merge(self, left: Partial, right: Partial) -> Partial:
        return (left[0] + right[0],)


@dataclass(frozen=True)
class ExactSums(_AsItIs):
    """The sum of a column of ints, as two ints: the sum is ``high * 2**32 + low``, and
    ``0 <= low < 2**32``."""

    column: str

    def of(self, rows: StatisticRows) -> Partial:
        values = rows.values(self.column)
        if values.dtype.kind == "b":
            values = values.astype(np.int64)
        largest = max(int(values.max()), -int(values.min()))
        if largest * int(rows.counts.max()) < 2**63:
            total = rows.sum(values.astype(np.int64))
            return _carried(total ^ total, total)
        wide = values.astype(np.uint64 if values.dtype.kind == "u" else np.int64, copy=False)
        high, low = (wide >> _LOW).astype(np.int64), (wide & _MASK).astype(np.int64)
        return _carried(rows.sum(high), rows.sum(low))

    def merge(self, left: Partial, right: Partial) -> Partial:
        return _carried(left[0] + right[0], left[1] + right[1])


def _carried(high: Any, low: Any) -> Partial:
    return high + (low >> _LOW), low & _MASK


@dataclass(frozen=True)
class ProductSums(_AsItIs):
    """The sum of the products of two columns."""

    one: str
    other: str

    def of(self, rows: StatisticRows) -> Partial:
        return (rows.sum(rows.floats(self.one) * rows.floats(self.other)),)

    def merge(self, left: Partial, right: Partial) -> Partial:
        return (left[0] + right[0],)


@dataclass(frozen=True)
class Moments(_InOrder):
    """How many values a column has, their mean, and the sum of the squares of their distances from
    it.

    The mean is kept as two floats whose sum it is, so that means of panes that are nearly the same
    are told apart: of values near 1e9 that differ by 1e-3, one float would know the mean to no more
    than a ten thousandth of that. T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing
    the sample variance: analysis and recommendations", The American Statistician 37(3), 1983: of
    a segment the corrected two-pass algorithm (1.7), merged by (2.1).
    """

    column: str

    def of(self, rows: StatisticRows) -> Partial:
        return rows.shared(("moments", self.column), self._of, rows)

    def _of(self, rows: StatisticRows) -> Partial:
        n, mean, off = rows.lengths, rows.means(self.column), rows.centred(self.column)
        rest = rows.sum(off) / n
        # Which is not above the sum, but for what is beyond a float.
        least = np.minimum(rest * rest * n, _GREATEST)
        return n, mean, rest, rows.sum(off * off) - least

    def merge(self, left: Partial, right: Partial) -> Partial:
        n_left, mean_left, rest_left, squares_left = left
        n_right, _, _, squares_right = right
        n = n_left + n_right
        apart = _apart(left, right)
        step = apart * (n_right / n)
        mean = mean_left + step
        rest = (mean_left - mean) + step + rest_left
        squares = (squares_left + squares_right) + apart * step * n_left
        return n, mean, rest, squares

    def final(self, partial: Partial) -> Partial:
        """As it is, but for a sum of squares of 0 where all values are equal.

        Two floats near m that differ do so by 2**-53 of m at least, and then the sum of squares is
        half the square of that at least: what is below is rounding.
        """
        n, mean, rest, squares = partial
        least = mean * 2.0**-55
        return n, mean, rest, squares * (squares >= least * least) + 0.0  # -0.0 is 0.0


@dataclass(frozen=True)
class CoMoments(_InOrder):
    """The moments of two columns, one behind the other, and the sum of the products of how far
    their values are from their means; as :class:`Moments` has them."""

    one: Moments
    other: Moments

    def of(self, rows: StatisticRows) -> Partial:
        one, other = self.one.of(rows), self.other.of(rows)
        products = rows.centred(self.one.column) * rows.centred(self.other.column)
        return *one, *other, rows.sum(products) - one[2] * other[2] * one[0]

    def merge(self, left: Partial, right: Partial) -> Partial:
        one = self.one.merge(left[:4], right[:4])
        other = self.other.merge(left[4:8], right[4:8])
        share = left[0] * (right[0] / one[0])
        products = _apart(left, right) * _apart(left[4:], right[4:]) * share
        return *one, *other, left[8] + right[8] + products

    def final(self, partial: Partial) -> Partial:
        """As both have it."""
        return *self.one.final(partial[:4]), *self.other.final(partial[4:8]), partial[8]


def _apart(left: Partial, right: Partial) -> Array:
    """How far the means of :class:`Moments` are from each other."""
    apart: Array = (right[1] - left[1]) + (right[2] - left[2])
    return apart


@dataclass(frozen=True)
class Least(_AsItIs):
    """The least value of a column."""

    column: str

    def of(self, rows: StatisticRows) -> Partial:
        return (rows.least(self.column),)

    def merge(self, left: Partial, right: Partial) -> Partial:
        return (np.fmin(left[0], right[0]),)

    def together(self, partial: Partial) -> Partial | None:
        return (np.fmin.reduce(partial[0], keepdims=True),)


@dataclass(frozen=True)
class Greatest(_AsItIs):
    """The greatest value of a column."""

    column: str

    def of(self, rows: StatisticRows) -> Partial:
        return (rows.greatest(self.column),)

    def merge(self, left: Partial, right: Partial) -> Partial:
        return (np.fmax(left[0], right[0]),)

    def together(self, partial: Partial) -> Partial | None:
        return (np.fmax.reduce(partial[0], keepdims=True),)


@dataclass(frozen=True)
class Firsts(_AsItIs):
    """The first value of a column.

    Texts are kept, and not their codes, which may be given out anew.
    """

    column: str
    encoded: bool

    def of(self, rows: StatisticRows) -> Partial:
        return (_at(rows, self.column, self.encoded, rows.starts),)

    def merge(self, left: Partial, right: Partial) -> Partial:
        return left


@dataclass(frozen=True)
class Latest(_AsItIs):
    """The last value of a column; texts as :class:`Firsts` has them."""

    column: str
    encoded: bool

    def of(self, rows: StatisticRows) -> Partial:
        return (_at(rows, self.column, self.encoded, rows.lasts),)

    def merge(self, left: Partial, right: Partial) -> Partial:
        return right


def _at(rows: StatisticRows, column: str, encoded: bool, positions: Any) -> Any:
    """The values of a column in some places: an array of them, or the value of one place."""
    values: Any = rows.values(column)[positions]
    if not encoded:
        return values
    texts = rows.texts(column)
    if not isinstance(values, np.ndarray):
        return texts[int(values)]
    found = np.empty(positions.shape, np.object_)
    found[:] = [texts[code] for code in values.tolist()]
    return found
