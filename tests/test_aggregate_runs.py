"""Aggregates in runners and pipelines: live, replayed and one window at a time, the same bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.support.proof import examples
from tests.support.segments import STYLES, TEXTS, made

from run_task import (
    Arrived,
    Closed,
    Context,
    ContextBuilder,
    KeyedContext,
    KeyedDataSet,
    Pipeline,
    RunnerConfig,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    Window,
    task,
)
from run_task import aggregates as agg
from run_task.sources import Batch
from run_task.testing import run_windows

TASKS: Sequence[Any] = (
    agg.count(), agg.first("a"), agg.last("s"), agg.min("a"), agg.max("n"), agg.sum("n"),
    agg.sum("a"), agg.mean("a"), agg.std("a"), agg.var("b", ddof=0), agg.median("a"),
    agg.quantile("b", 0.9), agg.ohlc("a"), agg.vwap("a", "n"), agg.corr("a", "b"),
    agg.linear_trend("a"), agg.ewm("a", "3s"), agg.rate("n"), agg.n_unique("s"), agg.argmax("a"),
    agg.time_weighted_mean("b"), agg.mean("a", where="n > 10").named("some"),
    agg.median("a", where="s == 'A'").named("of A"),
)  # fmt: skip

COLUMNS = {"a": float, "b": float, "n": int, "s": str}

START = 100_000
EVERY = 5_000


@task
def rows(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@dataclass(frozen=True)
class Shape:
    """How a stage runs, in milliseconds."""

    window: int | None
    retention: int | None
    by_key: bool
    closed: Closed
    mixed: bool

    def series(self) -> TimeSeries:
        retention = None if self.retention is None else f"{self.retention}ms"
        return TimeSeries(
            COLUMNS, TimeUnit.MILLIS, key="s", closed=self.closed, retention=retention
        )

    def tasks(self) -> list[Any]:
        return [*TASKS, rows] if self.mixed else [*TASKS]

    def config(self, executor: Any) -> RunnerConfig:
        window = None if self.window is None else f"{self.window}ms"
        return RunnerConfig(window=window, executor=executor)

    def context(self, series: TimeSeries, executor: Any) -> Context[Any, Any]:
        builder = (
            ContextBuilder(series)
            .with_tasks(self.tasks())
            .with_interval(f"{EVERY}ms")
            .with_config(self.config(executor))
        )
        if self.by_key:
            keyed: KeyedContext[Any, Any]
            keyed, _, _ = builder.with_key("s").build()
            return keyed
        context, _, _ = builder.build()
        return context


SHAPES = st.builds(
    Shape,
    st.sampled_from([None, 10_000, 12_000, 40_000]),
    st.sampled_from([None, 45_000]),
    st.booleans(),
    st.sampled_from(Closed),
    st.booleans(),
)


class Feed:
    """Rows in the order in which they come, some of them late.

    :param seed: of what is drawn
    :param style: what the floats are like
    """

    def __init__(self, seed: int, style: str, count: int, late: bool) -> None:
        rng = np.random.default_rng(seed)
        # No window is due when a row comes.
        arrivals = np.sort(rng.integers(0, 40_000, count)) * 2 + 1 + START
        arrivals[0] = START + 1  # with which a replay begins
        lag = rng.integers(0, 30_000, count) * (rng.random(count) < 0.3) * late
        self.arrivals: NDArray[np.int64] = arrivals
        self.times: NDArray[np.int64] = np.maximum(arrivals - lag, START + 1)
        drawn = made(self.times, seed, style).columns
        self.columns: dict[str, Any] = {
            "a": drawn["a"],
            "b": drawn["b"],
            "n": drawn["n"],
            "s": [TEXTS[code] for code in drawn["s"]],
        }

    def arrived(self) -> Iterator[Arrived[Any]]:
        lists = [
            list(values) if name == "s" else values.tolist()
            for name, values in self.columns.items()
        ]
        for time, arrival, *values in zip(self.times.tolist(), self.arrivals.tolist(), *lists):
            yield Arrived(time, dict(zip(self.columns, values)), arrival)

    def enter(self, series: TimeSeries, after: int, until: int) -> None:
        """Have the rows come that come between two times."""
        which = slice(*self.arrivals.searchsorted([after, until]).tolist())
        for i in range(which.start, which.stop):
            series.append(
                int(self.times[i]), **{name: values[i] for name, values in self.columns.items()}
            )


def shown(dataset: Any) -> str:
    """The results of a DataSet, such that equal ones are the same to the last bit."""
    assert not dataset.errors
    keyed = dataset.__class__ is KeyedDataSet
    return repr({name: dict(result) if keyed else result for name, result in dataset.items()})


def live(feed: Feed, shape: Shape, executor: Any) -> dict[int, str]:
    series = shape.series()
    came = [START]

    def before(window: Window) -> None:
        feed.enter(series, came[0], window.end)
        came[0] = window.end

    context = shape.context(series, executor)
    datasets = run_windows(context, 17, start=START, before=before, timeout=60)
    return {dataset.timestamp: shown(dataset) for dataset in datasets}


def replayed(feed: Feed, shape: Shape, source: Any = None) -> dict[int, str]:
    series = shape.series()
    pipeline = Pipeline("p")
    if source is None:
        pipeline.source([*feed.arrived()], series, unit=TimeUnit.MILLIS, max_ahead="1h")
    else:
        pipeline.source(source, series)
    every = f"{EVERY}ms"
    config = shape.config("inline")
    stage: Any
    if shape.by_key:
        stage = pipeline.stage("x", shape.tasks(), series, every, config, by="s")
    else:
        stage = pipeline.stage("x", shape.tasks(), series, every, config)
    return {dataset.timestamp: shown(dataset) for dataset in pipeline.replay().of(stage)}


def compare(ones: dict[int, str], others: dict[int, str]) -> None:
    """That all windows are the same that both have, of which there are some."""
    both = ones.keys() & others.keys()
    assert both
    for timestamp in sorted(both):
        assert ones[timestamp] == others[timestamp], timestamp


FEEDS = st.builds(
    Feed, st.integers(0, 2**32), st.sampled_from(STYLES), st.integers(1, 120), st.booleans()
)


@settings(max_examples=examples(15))
@given(FEEDS, SHAPES)
def test_live_replayed_and_one_window_at_a_time(feed: Feed, shape: Shape) -> None:
    ran = live(feed, shape, "inline")
    compare(ran, replayed(feed, shape))
    for end in range(START + EVERY, START + 17 * EVERY, 5 * EVERY):
        series = shape.series()
        feed.enter(series, START, end)
        alone = run_windows(shape.context(series, "inline"), 1, start=end - 1, timeout=60)
        # By key, there is none for a window without rows.
        found = {dataset.timestamp: shown(dataset) for dataset in alone}
        assert found == {at: ran[at] for at in [end] if at in ran}


class InBatches:
    """The rows of a feed that come in time, in batches.

    :param size: how many rows a batch has
    """

    def __init__(self, feed: Feed, size: int) -> None:
        self._feed = feed
        self._size = size

    def batches(self) -> Iterator[Batch]:
        for first in range(0, len(self._feed.times), self._size):
            some = slice(first, first + self._size)
            columns = {
                name: np.array(values, object)[some] if name == "s" else values[some]
                for name, values in self._feed.columns.items()
            }
            yield Batch(self._feed.times[some], columns)

    def __iter__(self) -> Iterator[Any]:
        return iter(())


@settings(max_examples=10)
@given(
    st.integers(0, 2**32), st.sampled_from(STYLES), SHAPES, st.integers(1, 60), st.integers(1, 200)
)
def test_a_replay_in_batches_of_any_size(
    seed: int, style: str, shape: Shape, one: int, other: int
) -> None:
    feed = Feed(seed, style, 150, late=False)
    by_rows = replayed(feed, shape)
    assert replayed(feed, shape, InBatches(feed, one)) == by_rows
    assert replayed(feed, shape, InBatches(feed, other)) == by_rows


@pytest.mark.parametrize("executor", ["threads", "processes"])
@pytest.mark.parametrize("by_key", [False, True])
def test_whatever_the_executor(executor: Any, by_key: bool) -> None:
    feed = Feed(7, "odd", 150, late=True)
    shape = Shape(12_000, 45_000, by_key, Closed.LEFT, mixed=True)
    assert live(feed, shape, executor) == live(feed, shape, "inline")


@settings(max_examples=10)
@given(FEEDS, st.sampled_from(Closed))
def test_used_on_their_own(feed: Feed, closed: Closed) -> None:
    """The view of a window that does not slide gives what a runner gives."""
    shape = Shape(None, None, False, closed, mixed=False)
    ran = live(feed, shape, "inline")
    for end in range(START + EVERY, START + 17 * EVERY, 3 * EVERY):
        series = shape.series()
        feed.enter(series, START, end)
        with series.read() as view:
            window = view.for_window(end - EVERY, end)
            own = {each.name: each.run(window, end - EVERY, end) for each in TASKS}
        assert repr(own) == ran[end]
