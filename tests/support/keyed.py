"""Series with keys, and tasks over them.

Of a module of its own, which imports little, because every worker process has to import it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from tests.support.deeds import DEEDS
from tests.support.stateful import Ema

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


class KeyedDoer:
    """A task that does for each key what the row of the window says: ``name:deed``, or nothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, view: Any, start: int, end: int) -> object:
        for told in view.in_window["deed"].tolist():
            name, _, deed = told.partition(":")
            if name in (self.name, "all"):
                return DEEDS[deed]()
        return f"{self.name} {view.key} {end}"


class Waiter:
    """A task that takes a while for each key, and notes in a file that it runs.

    :param path: of the file
    """

    name = "waiter"

    def __init__(self, path: str) -> None:
        self.path = path

    def run(self, view: Any, start: int, end: int) -> str:
        with open(self.path, "a") as file:
            file.write(f"{view.key}\n")
        time.sleep(0.02)
        return str(view.key)


class Giver:
    """A task whose results are of a kind that the key names."""

    name = "giver"

    def run(self, view: Any, start: int, end: int) -> object:
        return GIVEN[view.key]


GIVEN: Mapping[str, object] = {
    "float": 1.5,
    "int": 2**70,
    "bool": True,
    "none": None,
    "text": "__main__",
    "bytes": b"\x00",
    "float64": np.float64(0.1),
    "int64": np.int64(-3),
    "tuple": (1.0, None, "x"),
    "deep": ((1, [2]), 3),
    "dict": {"a": [1, 2]},
    "ema": Ema(2.5, 3),
    "time": np.datetime64("2026-01-01T00:00:00", "s"),
}
