"""Expressions and queries among tasks of other kinds, as type checkers see them."""

from __future__ import annotations

from typing import Any, assert_type

import polars as pl
import pytest

from run_task import Pipeline, Stage, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.aggregates import mean
from run_task.expressions import Expression, Query, expr, sql

pytest.importorskip("duckdb")


@task
def spread(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view.in_window["price"].max() - view.in_window["price"].min())


def test_they_stand_in_one_list_with_others() -> None:
    series = TimeSeries({"price": float}, TimeUnit.SECONDS)
    series.append(1, price=2.0)
    other = TimeSeries({"bid": float}, TimeUnit.SECONDS)
    price = expr(pl.col("price").max())
    assert_type(price, Expression)
    count = sql("select count(*) from window")
    assert_type(count, Query[TimeSeriesView])
    pipeline = Pipeline("types")
    tasks = [price, spread, count, mean("price")]
    stage = pipeline.stage("one", tasks, series, "10s")
    assert_type(stage, Stage[TimeSeriesView, Any])
    both = sql("select count(*) from bids", name="bids", inputs=("prices", "bids"))
    assert_type(both, Query[Any])
    pipeline.stage("two", [both], (series, other), "10s")
    results = {name: value for _, dataset in pipeline.replay() for name, value in dataset.items()}
    assert results == {"price": 2.0, "spread": 0.0, "sql": 1, "price_mean": 2.0, "bids": 0}
