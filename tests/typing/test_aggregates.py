"""Aggregates among tasks of other kinds, as type checkers see them."""

from __future__ import annotations

from typing import assert_type

from run_task import (
    ContextBuilder,
    DataSet,
    KeyedStage,
    Pipeline,
    Receiver,
    Stage,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.aggregates import Ohlc, count, mean, ohlc


@task
def spread(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view.in_window["price"].max() - view.in_window["price"].min())


@task(state=int)
def seen(view: TimeSeriesView, start: int, end: int, before: int) -> tuple[int, int]:
    return before + 1, before + 1


def test_types_flow_from_aggregates_and_other_tasks_in_one_list() -> None:
    series = TimeSeries({"symbol": str, "price": float}, TimeUnit.SECONDS, key="symbol")
    series.append(1, symbol="A", price=2.0)
    pipeline = Pipeline("types")
    price, bars = mean("price"), ohlc("price")
    plain = pipeline.stage("plain", [price, bars], series, "1s")
    assert_type(plain, Stage[TimeSeriesView, float | Ohlc | None])
    mixed = pipeline.stage("mixed", [price, spread, seen], series, "1s", by="symbol")
    assert_type(mixed, KeyedStage[TimeSeriesView, float | None])
    for dataset in pipeline.replay().of(plain):
        assert_type(dataset[bars], Ohlc | None)
        assert_type(dataset[price], float | None)
    _, receiver, _ = (
        ContextBuilder(series).with_task(price).with_task(count()).with_interval("1s").build()
    )
    assert_type(receiver, Receiver[DataSet[float | int | None]])
