"""Series with keys, and tasks over them.

Of a module of its own, which imports little, because every worker process has to import it.
"""

from __future__ import annotations

from typing import Any

from run_task import TimeSeries, TimeSeriesView, TimeUnit, task


def trades(kind: Any = str, **options: Any) -> TimeSeries:
    columns = {"symbol": kind, "price": float}
    return TimeSeries(columns, TimeUnit.SECONDS, key="symbol", **options)


@task
def total(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view.in_window["price"].sum())


@task
def count(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@task
def ever(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view)


@task
def picky(view: TimeSeriesView, start: int, end: int) -> float:
    if (view.in_window["price"] < 0).any():
        raise ValueError("a price below zero")
    return float(view.in_window["price"].max(initial=0.0))


TASKS = (total, count, ever, picky)
