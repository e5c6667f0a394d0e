"""Rows that are hard to add up, and expressions and series over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from run_task import Closed, Pipeline, RunnerConfig, TimeSeries, TimeUnit
from run_task.expressions import Expression, expr

_price, _size, _symbol = pl.col("price"), pl.col("size"), pl.col("symbol")

EXPRESSIONS: Sequence[Expression] = [
    expr(_price.sum(), name="sum"),
    expr(_price.mean(), name="mean"),
    expr(_price.std(), name="std"),
    expr(_price.median(), name="median"),
    expr(_price.quantile(0.9, "linear"), name="quantile"),
    expr((_price * _size).sum() / _size.sum(), name="vwap"),
    expr(pl.corr("price", "size"), name="corr"),
    expr(_price.skew(), name="skew"),
    expr(_price.kurtosis(), name="kurtosis"),
    expr(_price.sort_by("size").sum(), name="sorted"),
    expr(_price.ewm_mean(alpha=0.1).last(), name="ewm"),
    expr(_price.diff().std(), name="diff"),
    expr(_price.abs().log1p().sum(), name="log"),
    expr(_price.cast(pl.Float32).sum(), name="single"),
    expr(_price.rolling_mean(5).std(), name="rolling"),
    expr(pl.when(_size > 0).then(_price).mean(), name="when"),
    expr(_price.sum().over("symbol").std(), name="over"),
    expr(pl.struct(_price.min().alias("low"), _price.max().alias("high")), name="range"),
    expr(_symbol.n_unique(), name="symbols"),
    expr(_symbol.last(), name="symbol"),
    expr((pl.col("time").max() - pl.col("time").min()), name="length"),
    expr(pl.len(), name="rows"),
]
"""What adds in another order in ``select`` than in ``group_by`` is among them."""


def trades(rows: int, seed: int, *, scale: int = 8, every: int = 3) -> pl.DataFrame:
    """Trades whose prices lie many powers of ten apart, stamped in seconds.

    :param scale: up to which power of ten
    :param every: how many trades there are a second, on average
    """
    random = np.random.default_rng(seed)
    time = np.sort(random.integers(0, max(rows // every, 1), rows))
    price = random.standard_normal(rows) * 10.0 ** random.integers(-scale, scale + 1, rows)
    return pl.DataFrame(
        {
            "time": pl.Series(time * 1000).cast(pl.Datetime("ms")),
            "price": price + 1e8 * random.integers(-1, 2),
            "size": random.standard_normal(rows),
            "symbol": [f"s{n}" for n in random.integers(0, 5, rows)],
        }
    )


def series_of(frame: pl.DataFrame | None = None, *, closed: Closed = Closed.LEFT) -> TimeSeries:
    """A series with such columns, and with these rows if any are given."""
    columns: Any = {"price": float, "size": float, "symbol": str}
    series = TimeSeries(columns, TimeUnit.SECONDS, closed=closed, key="symbol")
    if frame is not None:
        times = frame["time"].dt.epoch("s").to_numpy()
        values = {name: frame[name].to_numpy() for name in ("price", "size")}
        series.extend(times, **values, symbol=frame["symbol"].to_list())
    return series


def replayed(
    tasks: Sequence[Any],
    frame: pl.DataFrame,
    interval: str = "10s",
    *,
    closed: Closed = Closed.LEFT,
    by: str | None = None,
    **config: Any,
) -> list[Any]:
    """The DataSets of a replay."""
    series = series_of(closed=closed)
    pipeline = Pipeline("trades")
    pipeline.source(frame, into=series, zone="UTC")
    stage: Any = pipeline.stage
    keys: Any = {} if by is None else {"by": by}
    stage("stage", tasks, series, interval, config=RunnerConfig(**config), **keys)
    return [dataset for _, dataset in pipeline.replay()]
