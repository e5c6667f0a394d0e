"""Tasks that say what they compute: all of a stage are computed together, for all keys, and in a
replay for many windows at once."""

from run_task._public import present as _present
from run_task.aggregates._aggregate import Aggregate
from run_task.aggregates._functions import (
    argmax,
    argmin,
    corr,
    count,
    ewm,
    first,
    increase,
    last,
    linear_trend,
    max,  # noqa: A004  as the field calls it
    mean,
    median,
    min,  # noqa: A004  as the field calls it
    n_unique,
    ohlc,
    quantile,
    rate,
    std,
    sum,  # noqa: A004  as the field calls it
    time_weighted_mean,
    var,
    vwap,
)
from run_task.aggregates._kernel import ColumnKernel, Kernel
from run_task.aggregates._merged import Ohlc
from run_task.aggregates._rows import SegmentedRows
from run_task.aggregates._timed import LinearTrend

__all__ = [
    "Aggregate",
    "ColumnKernel",
    "Kernel",
    "LinearTrend",
    "Ohlc",
    "SegmentedRows",
    "argmax",
    "argmin",
    "corr",
    "count",
    "ewm",
    "first",
    "increase",
    "last",
    "linear_trend",
    "max",
    "mean",
    "median",
    "min",
    "n_unique",
    "ohlc",
    "quantile",
    "rate",
    "std",
    "sum",
    "time_weighted_mean",
    "var",
    "vwap",
]

_present(globals())
