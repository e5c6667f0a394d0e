"""Aggregates of values and of the times at which they were."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from run_task.aggregates._kernel import ColumnKernel, listed, with_none
from run_task.aggregates._rows import Floats, SegmentedRows
from run_task.data.series._column_types import Array
from run_task.time._interval import told


@dataclass(frozen=True)
class ArgMin(ColumnKernel[int]):
    """When the least value was first."""

    function = "argmin"

    def results(self, rows: SegmentedRows) -> Sequence[int]:
        return _time_of(rows, rows.values(self.column), rows.least(self.column))


@dataclass(frozen=True)
class ArgMax(ColumnKernel[int]):
    """When the greatest value was first."""

    function = "argmax"

    def results(self, rows: SegmentedRows) -> Sequence[int]:
        return _time_of(rows, rows.values(self.column), rows.greatest(self.column))


def _time_of(rows: SegmentedRows, values: Array, wanted: Array) -> list[int]:
    """When each segment first has a value; if it has it nowhere, as NaN, of its first row."""
    places = np.flatnonzero(values == rows.spread(wanted))
    places = np.append(places, len(values))
    found = places[places.searchsorted(rows.starts)]
    return listed(rows.time[np.where(found <= rows.lasts, found, rows.starts)])


@dataclass(frozen=True)
class TimeWeightedMean(ColumnKernel[float]):
    """The mean of values that hold until the next one."""

    function = "time_weighted_mean"

    def results(self, rows: SegmentedRows) -> Sequence[float]:
        time, lasts, values = rows.time, rows.lasts, rows.floats(self.column)
        until = np.empty(len(time), np.int64)
        until[:-1] = time[1:]
        until[lasts] = rows.window_ends
        held = (until - time).astype(np.float64)
        length = (rows.window_ends - time[rows.starts]).astype(np.float64)
        means: Floats = rows.sum(held * values) / length
        if not length.all():  # all rows are at the end of a window that is closed there
            means = np.where(length == 0, values[lasts], means)
        return listed(means)


@dataclass(frozen=True)
class Ewm(ColumnKernel[float]):
    """The exponentially weighted mean, by a half-life in time."""

    half_life_ns: int
    """After how many nanoseconds a value counts half."""

    function = "ewm"

    def arguments(self) -> list[str]:
        return [repr(self.column), f"half_life={told(self.half_life_ns)!r}"]

    def results(self, rows: SegmentedRows) -> Sequence[float]:
        time, starts = rows.time, rows.starts
        half_life = self.half_life_ns / rows.unit.nanos
        age = (rows.spread(time[rows.lasts]) - time).astype(np.float64)
        weights: Floats = np.exp2(age / -half_life)
        since = np.empty(len(time))
        since[1:] = time[1:] - time[:-1]
        since[starts] = math.inf  # the first value stands for all before it
        weights *= -np.expm1(since * (-math.log(2) / half_life))
        return listed(rows.sum(weights * rows.floats(self.column)))


@dataclass(frozen=True)
class Increase(ColumnKernel[float | None]):
    """By how much a counter rose that begins anew at 0 now and then."""

    function = "increase"

    def results(self, rows: SegmentedRows) -> Sequence[float | None]:
        return _unless(rows.counts < 2, increases(rows, self.column))


@dataclass(frozen=True)
class Rate(ColumnKernel[float | None]):
    """By how much a counter rose a second."""

    function = "rate"

    def results(self, rows: SegmentedRows) -> Sequence[float | None]:
        time = rows.time
        length = (time[rows.lasts] - time[rows.starts]) * (rows.unit.nanos / 1e9)
        return _unless(length == 0, increases(rows, self.column) / length)


def increases(rows: SegmentedRows, column: str) -> Floats:
    """By how much a counter rose in each segment."""
    return rows.shared(("increases", column), _increases, rows, column)


def _increases(rows: SegmentedRows, column: str) -> Floats:
    values = rows.values(column)
    if values.dtype.kind == "f":
        values = rows.floats(column)
        rises: Array = values[1:] - values[:-1]
    else:
        # As ints, of which floats do not tell all apart. From one to a greater one, it may be
        # further than 64 bits with a sign hold: without one, they hold it.
        if values.dtype != np.uint64:
            values = values.astype(np.int64)
        unsigned = values.view(np.uint64)
        rises = unsigned[1:] - unsigned[:-1]
    rose = np.zeros(len(values))
    # What is less than the value before began anew at 0.
    fell = values[1:] < values[:-1]
    rose[1:] = np.where(fell, values[1:].astype(np.float64), rises.astype(np.float64))
    rose[rows.starts] = 0.0
    found: Floats = rows.sum(rose)
    return found


def _unless(missing: NDArray[np.bool_], values: Floats) -> list[float | None]:
    return with_none(listed(values), missing) if missing.any() else listed(values)


class LinearTrend(NamedTuple):
    """The straight line through the values of a window.

    :ivar slope: by how much it rises a second
    :ivar intercept: its value at the start of the window
    """

    slope: float
    intercept: float


@dataclass(frozen=True)
class Trend(ColumnKernel[LinearTrend | None]):
    """The straight line through values by least squares."""

    function = "linear_trend"

    def results(self, rows: SegmentedRows) -> Sequence[LinearTrend | None]:
        time, n = rows.time, rows.lengths
        first = time[rows.starts]
        second = rows.unit.nanos / 1e9
        # As floats only once they are small: nanoseconds since the epoch have more digits.
        seconds: Array = (time - rows.spread(first)) * second
        middle = rows.sum(seconds) / n
        seconds -= rows.spread(middle)
        across = rows.sum(seconds * seconds)
        slope = rows.sum(seconds * rows.centred(self.column)) / across
        to_start = (rows.window_starts - first) * second - middle
        intercept = rows.means(self.column) + slope * to_start
        found: list[LinearTrend | None] = list(map(LinearTrend, listed(slope), listed(intercept)))
        one_time = first == time[rows.lasts]
        return with_none(found, one_time) if one_time.any() else found
