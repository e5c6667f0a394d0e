"""The aggregates there are."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from run_task.aggregates._aggregate import Aggregate
from run_task.aggregates._kernel import checked_column
from run_task.aggregates._merged import (
    Corr,
    First,
    Last,
    Max,
    Mean,
    Min,
    Ohlc,
    OpenHighLowClose,
    RowCount,
    Std,
    Sum,
    Var,
    Vwap,
)
from run_task.aggregates._ordered import (
    Interpolation,
    Median,
    NUnique,
    Quantile,
    checked_quantile,
)
from run_task.aggregates._timed import (
    ArgMax,
    ArgMin,
    Ewm,
    Increase,
    LinearTrend,
    Rate,
    TimeWeightedMean,
    Trend,
)
from run_task.errors import ConfigError
from run_task.time._interval import TaskInterval
from run_task.time._length import plain_length


def count(*, where: str | None = None) -> Aggregate[int]:
    """How many rows a window has; 0 if it has none. A row whose values are NaN counts.

    Its name is ``"count"``.

    :param where: of which rows, as in ``"size > 0"``; None: of all
    """
    return Aggregate(RowCount(), where=where)


def first(column: str, *, where: str | None = None) -> Aggregate[Any]:
    """The value of the first row of a window; None if it has no row.

    :param column: a column of anything
    :param where: of which rows; None: of all
    """
    checked_column(column, "first")
    return Aggregate(First(column), where=where)


def last(column: str, *, where: str | None = None) -> Aggregate[Any]:
    """The value of the last row of a window; None if it has no row.

    :param column: a column of anything
    :param where: of which rows; None: of all
    """
    checked_column(column, "last")
    return Aggregate(Last(column), where=where)


def min(column: str, *, where: str | None = None) -> Aggregate[float | None]:  # noqa: A001  as the field calls it
    """The least value in a window; NaN only if there is nothing else, None if there is no row.

    It is 0.0 where the least values are zeros of either sign.

    :param column: a column of numbers or bools; of ints it is an int, of bools a bool
    :param where: of which rows; None: of all
    """
    checked_column(column, "min")
    return Aggregate(Min(column), where=where)


def max(column: str, *, where: str | None = None) -> Aggregate[float | None]:  # noqa: A001  as the field calls it
    """The greatest value in a window; NaN only if there is nothing else, None if there is no row.

    It is 0.0 where the greatest values are zeros of either sign.

    :param column: a column of numbers or bools; of ints it is an int, of bools a bool
    :param where: of which rows; None: of all
    """
    checked_column(column, "max")
    return Aggregate(Max(column), where=where)


def sum(column: str, *, where: str | None = None) -> Aggregate[float | None]:  # noqa: A001  as the field calls it
    """The sum of the values in a window; None if it has no row.

    Of ints and bools it is an int and exact, and the window fails with an ``OverflowError`` if 64
    bits do not hold it. Floats are added pairwise, of which N. J. Higham, "The accuracy of floating
    point summation", SIAM Journal on Scientific Computing 14(4), 1993, gives the error.

    :param column: a column of numbers or bools
    :param where: of which rows; None: of all
    """
    checked_column(column, "sum")
    return Aggregate(Sum(column), where=where)


def mean(column: str, *, where: str | None = None) -> Aggregate[float | None]:
    """The arithmetic mean of the values in a window: their sum as floats, added pairwise, over how
    many there are; None if there is no row.

    :param column: a column of numbers or bools
    :param where: of which rows; None: of all
    """
    checked_column(column, "mean")
    return Aggregate(Mean(column), where=where)


def var(column: str, *, ddof: int = 1, where: str | None = None) -> Aggregate[float | None]:
    """The variance of the values in a window: the sum of the squares of their distances from their
    mean, over n - ``ddof``; None if there are no more than ``ddof`` rows.

    By the corrected two-pass algorithm, and of sliding windows merged from panes, both after T. F.
    Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance", The American
    Statistician 37(3), 1983.

    :param column: a column of numbers or bools
    :param ddof: 1 for the variance of what the values are a sample of, 0 for that of the values
    :param where: of which rows; None: of all
    :raises ConfigError: if ``ddof`` is no int, or below 0
    """
    checked_column(column, "var")
    return Aggregate(Var(column, _checked_ddof("var", ddof)), where=where)


def std(column: str, *, ddof: int = 1, where: str | None = None) -> Aggregate[float | None]:
    """The standard deviation of the values in a window: the square root of :func:`var`; None if
    there are no more than ``ddof`` rows.

    :param column: a column of numbers or bools
    :param ddof: 1 for the deviation of what the values are a sample of, 0 for that of the values
    :param where: of which rows; None: of all
    :raises ConfigError: if ``ddof`` is no int, or below 0
    """
    checked_column(column, "std")
    return Aggregate(Std(column, _checked_ddof("std", ddof)), where=where)


def median(column: str, *, where: str | None = None) -> Aggregate[float | None]:
    """The median of the values in a window, halfway between the two in the middle if there are two;
    None if there is no row. NaN count as the greatest values.

    :param column: a column of numbers or bools
    :param where: of which rows; None: of all
    """
    checked_column(column, "median")
    return Aggregate(Median(column), where=where)


def quantile(
    column: str, q: float, *, interpolation: Interpolation = "linear", where: str | None = None
) -> Aggregate[float | None]:
    """A quantile of the values in a window; None if there is no row. NaN count as the greatest
    values.

    It is the value of rank ``q * (n - 1)`` in ascending order, counted from 0: definition 7 of
    R. J. Hyndman, Y. Fan, "Sample quantiles in statistical packages", The American Statistician
    50(4), 1996. The name of the 99th percentile is ``"latency_p99"``.

    :param column: a column of numbers or bools
    :param q: which, from 0 to 1: 0.99 is the 99th percentile
    :param interpolation: what it is where the rank is no whole number: ``"linear"``, between the
        values next to it by how far they are; ``"lower"`` or ``"higher"``, that below or above;
        ``"nearest"``, the nearer one, the higher of two that are as near; ``"midpoint"``, halfway
        between them
    :param where: of which rows; None: of all
    :raises ConfigError: if there is no such quantile or interpolation
    """
    checked_column(column, "quantile")
    checked_quantile(q, interpolation)
    return Aggregate(Quantile(column, float(q), interpolation), where=where)


def ohlc(column: str, *, where: str | None = None) -> Aggregate[Ohlc | None]:
    """The first, greatest, least and last value in a window, as :class:`Ohlc`; None if there is no
    row.

    :param column: a column of numbers
    :param where: of which rows; None: of all
    """
    checked_column(column, "ohlc")
    return Aggregate(OpenHighLowClose(column), where=where)


def vwap(price: str, volume: str, *, where: str | None = None) -> Aggregate[float | None]:
    """The volume-weighted average price of a window: the sum of price times volume over the sum of
    the volumes, after S. A. Berkowitz, D. E. Logue, E. A. Noser, "The total cost of transactions
    on the NYSE", Journal of Finance 43(1), 1988. NaN if there is no volume, None if there is no
    row.

    :param price: the column of the prices
    :param volume: the column of the volumes
    :param where: of which rows; None: of all
    """
    checked_column(price, "vwap", "price")
    checked_column(volume, "vwap", "volume")
    return Aggregate(Vwap(price, volume), where=where)


def corr(one: str, other: str, *, where: str | None = None) -> Aggregate[float | None]:
    """Pearson's correlation of two columns in a window: the sum of the products of how far values
    are from their means, over the root of the product of the sums of their squares. NaN if the
    values of a column are all equal, None if there is no row.

    Merged from panes as :func:`var` is.

    :param one: a column of numbers
    :param other: another
    :param where: of which rows; None: of all
    """
    checked_column(one, "corr", "one")
    checked_column(other, "corr", "other")
    return Aggregate(Corr(one, other), where=where)


def linear_trend(column: str, *, where: str | None = None) -> Aggregate[LinearTrend | None]:
    """The straight line through the values of a window by ordinary least squares, as
    :class:`LinearTrend`: how much it rises a second, and its value at the start of the window.

    The slope is the sum of the products of how far times and values are from their means, over the
    sum of the squares of those of the times (N. R. Draper, H. Smith, "Applied Regression Analysis",
    3rd edition, section 1.2). None if all rows are of one time, or there is none.

    :param column: a column of numbers
    :param where: of which rows; None: of all
    """
    checked_column(column, "linear_trend")
    return Aggregate(Trend(column), where=where)


def ewm(
    column: str, half_life: TaskInterval | timedelta | str, *, where: str | None = None
) -> Aggregate[float | None]:
    """The exponentially weighted mean of the values in a window, at the time of its last row; None
    if there is no row.

    From one row to the next, ``dt`` later, it goes towards the new value by ``1 - 2**(-dt /
    half_life)`` of the distance: as ``ewm_mean_by`` of polars, after A. Eckner, "Algorithms for
    unevenly spaced time series: moving averages and other rolling operators", 2019, where it is the
    EMA of the last value held. It begins with the first value of the window.

    :param column: a column of numbers
    :param half_life: after how long a value counts half: ``"5m"``, a timedelta, or a TaskInterval
    :param where: of which rows; None: of all
    :raises ConfigError: if the half-life is no length of time
    """
    checked_column(column, "ewm")
    return Aggregate(Ewm(column, plain_length(half_life, "ewm(half_life={})").nanos), where=where)


def increase(column: str, *, where: str | None = None) -> Aggregate[float | None]:
    """By how much a counter rose from the first to the last row of a window; None if there are
    fewer than two.

    A counter never falls: a value below the one before began anew at 0, and rose by itself. That is
    how Prometheus reads counters, without its extrapolation to the ends of the window.

    :param column: a column of numbers, each the count so far
    :param where: of which rows; None: of all
    """
    checked_column(column, "increase")
    return Aggregate(Increase(column), where=where)


def rate(column: str, *, where: str | None = None) -> Aggregate[float | None]:
    """By how much a counter rose a second, from the first to the last row of a window:
    :func:`increase` over the seconds between them; None if they are of one time, or there is none.

    :param column: a column of numbers, each the count so far
    :param where: of which rows; None: of all
    """
    checked_column(column, "rate")
    return Aggregate(Rate(column), where=where)


def n_unique(column: str, *, where: str | None = None) -> Aggregate[int]:
    """How many different values a window has; 0 if it has no row. NaN are one value, and so are
    the zeros of either sign.

    :param column: a column of anything
    :param where: of which rows; None: of all
    """
    checked_column(column, "n_unique")
    return Aggregate(NUnique(column), where=where)


def argmin(column: str, *, where: str | None = None) -> Aggregate[int | None]:
    """When the least value of a window was first, in the unit of the series; of the first row if
    all are NaN, None if there is no row.

    :param column: a column of numbers
    :param where: of which rows; None: of all
    """
    checked_column(column, "argmin")
    return Aggregate(ArgMin(column), where=where)


def argmax(column: str, *, where: str | None = None) -> Aggregate[int | None]:
    """When the greatest value of a window was first, in the unit of the series; of the first row if
    all are NaN, None if there is no row.

    :param column: a column of numbers
    :param where: of which rows; None: of all
    """
    checked_column(column, "argmax")
    return Aggregate(ArgMax(column), where=where)


def time_weighted_mean(column: str, *, where: str | None = None) -> Aggregate[float | None]:
    """The mean of a value that holds from its row until the next one or the end of the window: the
    sum of each value times how long it held, over the time from the first row to the end of the
    window; None if there is no row.

    After A. Eckner, "Algorithms for unevenly spaced time series: moving averages and other rolling
    operators", 2019: the SMA of the last value held. What held before the first row of the window
    is not known, and does not count. If all rows are at the very end, it is the last value.

    :param column: a column of numbers
    :param where: of which rows; None: of all
    """
    checked_column(column, "time_weighted_mean")
    return Aggregate(TimeWeightedMean(column), where=where)


def _checked_ddof(told: str, ddof: Any) -> int:
    if isinstance(ddof, bool) or not isinstance(ddof, int) or ddof < 0:
        raise ConfigError(f"{told}(ddof={ddof!r}): it is an int, 0 or above, mostly 0 or 1")
    return ddof
