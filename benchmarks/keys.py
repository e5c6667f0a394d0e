"""Keys: what a key costs a tick, what grouping a window costs, and what a key takes in memory."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.measure import Figure, Rounds, side_by_side
from benchmarks.question import Bound, Effort, Goal, Line, Question, Role, Section, compared
from run_task import RunnerConfig, TaskInterval, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.data.series._grouped import Groups
from run_task.data.series._keyed_view import KeyedView
from run_task.data.series._view import placed
from run_task.executors._states import States
from run_task.runner._keys import Keys, crew_of
from run_task.tasks._tick import Tick

SMALL = Goal(Bound.AT_MOST, 200)
TWICE = Goal(Bound.AT_MOST, 2)
AS_A_LOOP = Goal(Bound.AT_MOST, 1.5)

OURS = "run-task"
WITH_GROUPING = "run-task, with the grouping of 10 rows a key"
LOOP = "bare loop over slices"
BY_HAND = "loop over the partitions of polars"
POLARS = "polars, group_by"


@task
def nothing(view: TimeSeriesView, start: int, end: int) -> None:
    pass


@task
def mean_and_std(view: TimeSeriesView, start: int, end: int) -> tuple[float, float]:
    prices = view.in_window["price"]
    return float(prices.mean()), float(prices.std())


class Market:
    """A series by symbol, whose rows come in no order of the symbols, and a crew over it.

    :param keys: how many symbols
    :param rows_a_key: how many rows of each
    :param tasks: what is run for each
    """

    def __init__(self, keys: int, rows_a_key: int, tasks: Sequence[Any] = (nothing,)) -> None:
        random = np.random.default_rng(1)
        series = TimeSeries({"symbol": str, "price": float}, TimeUnit.SECONDS, key="symbol")
        self.codes = random.permutation(np.repeat(np.arange(keys), rows_a_key))
        self.names = np.array([f"symbol-{number}" for number in range(keys)], object)
        self.prices = random.random(len(self.codes))
        self.times = np.arange(len(self.codes))
        series.extend(self.times, symbol=self.names[self.codes], price=self.prices)
        self.keys = keys
        self.window = 0, len(self.codes)
        self._series = series
        by = Keys.checked("symbol", "1h", 10 * keys)
        every = TaskInterval.seconds(1)
        self.crew = crew_of(tasks, series, every, RunnerConfig(workers=1), by, States())

    def view(self) -> TimeSeriesView:
        """A new one each time: what was found out of one is not there in the next."""
        return self._series.view().for_window(*self.window)

    def run(self, view: KeyedView) -> Any:
        return self.crew.run(Tick(view, *self.window))

    def close(self) -> None:
        self.crew.close(5.0)


def seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def a_key(keys: int, repeats: int) -> Rounds:
    """Microseconds a key of a tick of a task that does nothing, beside the slices that each key
    would have to have. Of this process, since a tick has a thread of its own, which others that are
    busy would keep waiting."""
    market = Market(keys, 10)
    view = market.view()
    _, storage, first, stop, _ = placed(view)
    groups = Groups(storage, 0, first, stop)
    stamps, prices, bounds = groups.storage.column(0), groups.storage.column(2), groups.bounds
    run, window = nothing.run, market.window

    def bare() -> float:
        begun = time.process_time()
        results: list[Any] = [None] * keys
        for place in range(keys):
            begin, end = bounds[place], bounds[place + 1]
            parts: Any = stamps[begin:end], prices[begin:end]
            results[place] = run(parts, *window)
        return (time.process_time() - begun) / keys * 1e6

    def ours() -> float:
        view = KeyedView(market.view(), "symbol")
        assert len(view.keys) == keys
        begun = time.process_time()
        market.run(view)
        return (time.process_time() - begun) / keys * 1e6

    def with_grouping() -> float:
        begun = time.process_time()
        market.run(KeyedView(market.view(), "symbol"))
        return (time.process_time() - begun) / keys * 1e6

    rounds = side_by_side({LOOP: bare, OURS: ours, WITH_GROUPING: with_grouping}, repeats)
    market.close()
    return rounds


def grouping(keys: int, rows: int, repeats: int) -> Rounds:
    """Milliseconds to bring the rows of a window together by key, with their columns."""
    polars: Any = importlib.import_module("polars")
    market = Market(keys, rows // keys)
    frame = polars.DataFrame(
        {"time": market.times, "price": market.prices},
    ).with_columns(
        polars.Series("symbol", market.names[market.codes].tolist()).cast(polars.Categorical)
    )
    by = frame.group_by("symbol", maintain_order=True)
    every = [polars.col("time"), polars.col("price")]

    def ours() -> None:
        _, storage, first, stop, _ = placed(market.view())
        groups = Groups(storage, 0, first, stop)
        assert len(groups.keys) == keys
        groups.storage.column(0)
        groups.storage.column(2)

    rounds = side_by_side(
        {
            POLARS: lambda: seconds(lambda: by.agg(every)) * 1e3,
            OURS: lambda: seconds(ours) * 1e3,
        },
        repeats,
    )
    market.close()
    return rounds


def statistics(keys: int, rows_a_key: int, repeats: int) -> Rounds:
    """Milliseconds of a window in which a Python task takes the mean and std of each key."""
    polars: Any = importlib.import_module("polars")
    market = Market(keys, rows_a_key, [mean_and_std])
    names = polars.Series("symbol", market.names[market.codes].tolist())
    frame = polars.DataFrame({"time": market.times, "price": market.prices}).with_columns(
        names.cast(polars.Categorical)
    )

    def by_hand() -> dict[str, tuple[float, float]]:
        results: dict[str, tuple[float, float]] = {}
        for (symbol,), part in frame.partition_by("symbol", as_dict=True).items():
            prices = part["price"].to_numpy()
            results[symbol] = float(prices.mean()), float(prices.std())
        return results

    def ours() -> None:
        market.run(KeyedView(market.view(), "symbol"))

    rounds = side_by_side(
        {
            BY_HAND: lambda: seconds(by_hand) * 1e3,
            OURS: lambda: seconds(ours) * 1e3,
        },
        repeats,
    )
    market.close()
    return rounds


_MEMORY = """\
import gc, sys, tracemalloc
import numpy as np
from run_task import Pipeline, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.runner._keys import Keys, bound_of, crew_of
from run_task import RunnerConfig, TaskInterval
from run_task.executors._states import States
from run_task.tasks._tick import Tick

keys = int(sys.argv[1])

@task
def count(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)

tracemalloc.start()

def held(columns, key):
    # Of a series with that many rows in all, after four windows of a stage or runner.
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    series = TimeSeries(columns, TimeUnit.SECONDS, retention=keys, key=key)
    config = RunnerConfig(workers=1, executor="inline" if key is None else "threads")
    by = None if key is None else Keys.checked(key, "1h", 2 * keys)
    crew = crew_of([count], series, TaskInterval.seconds(1), config, by, States())
    if by is not None:
        by.limit(series)
        bound = bound_of(series, TaskInterval.seconds(1), config, by, States())
    else:
        bound = bound_of(series, TaskInterval.seconds(1), config, None, States())
    for window in range(4):
        symbols = [f"symbol-{number}" for number in range(keys)] if key else np.arange(keys)
        series.extend(np.full(keys, window * 10), symbol=symbols, price=np.ones(keys))
        start, end = window * 10, window * 10 + 10
        crew.run(Tick(bound(series.view(), start, end), start, end))
    del symbols
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    crew.close(5.0)
    return held

plain = held({"symbol": "int32", "price": float}, None)
print((held({"symbol": str, "price": float}, "symbol") - plain) / keys)
"""


def memory(keys: int) -> float:
    """Bytes that a key takes beyond its rows, in a series and a stage of it: the text and its code
    among them. In a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(keys)], capture_output=True, check=True, text=True
    )
    return float(done.stdout)


def answer(effort: Effort) -> Iterator[Question]:
    whole = effort.seconds >= 0.1  # else only to see that it works
    many, keys = (10_000, 1000) if whole else (500, 50)
    repeats = max(3, effort.repeats)
    yield Question(
        f"Keys: µs a key of a task that does nothing, {many:,} keys",
        compared(a_key(many, repeats), "µs", goals={OURS: TWICE}),
    )
    yield Question(
        f"Keys: ms to group {1000 * keys:,} rows by {keys:,} texts, with two columns",
        compared(grouping(keys, 1000 * keys, repeats), "ms", goals={OURS: TWICE}),
    )
    yield Question(
        f"Keys: ms of a window with mean and std by Python, {keys:,} keys of 1000 rows",
        compared(statistics(keys, 1000, repeats), "ms", goals={OURS: AS_A_LOOP}),
    )
    remembered = 10 * many
    figure = Figure.of([memory(remembered)])
    yield Question(
        f"Keys: bytes a key beyond its rows, {remembered:,} texts",
        [Line("a series and its stage", Role.OURS, "B", figure, goal=SMALL)],
    )


SECTION = Section("keys", answer)
