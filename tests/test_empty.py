"""Windows that hold no row, and are skipped."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.bench import PipelineBench, RunnerBench
from tests.support.proof import examples

from run_task import (
    Closed,
    ConfigError,
    DataSet,
    Empty,
    Pipeline,
    RunnerConfig,
    RwLock,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)

SECOND = TaskInterval.seconds(1)


@task
def n(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@given(
    st.lists(st.sampled_from([0, 1, 2, 9, 70, -3, -15]), min_size=1, max_size=20),
    st.sampled_from([None, 10, 31]),
    st.sampled_from([None, 4, 20]),
    st.sampled_from(Closed),
    st.lists(st.integers(0, 200), max_size=3),
)
@settings(max_examples=examples(200), deadline=None)
def test_a_replay_gives_those_of_others_that_hold_a_row(
    steps: list[int], window: int | None, grace: int | None, closed: Closed, there: list[int]
) -> None:
    times = [20 + sum(steps[: i + 1]) for i in range(len(steps))]

    def enter(results: TimeSeries, dataset: DataSet[int]) -> None:
        if dataset[n]:
            results.append(dataset.timestamp, n=dataset[n])

    def replay(empty: Empty) -> list[tuple[str, Any, Any]]:
        series = TimeSeries({"v": float}, TimeUnit.SECONDS, closed=closed)
        series.extend(there, v=[0.0] * len(there))
        results = TimeSeries({"n": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
        config = RunnerConfig(
            window=TaskInterval.seconds(window) if window else None,
            grace=TaskInterval.seconds(grace) if grace else None,
            empty=empty,
        )
        pipeline = Pipeline("p").source([(t, {"v": 1.0}) for t in times], series)
        up = pipeline.stage("up", [n], series, TaskInterval.seconds(5), config)
        # What it feeds is to see the same, so that only its own empty windows are left out there.
        up.into(results, enter)
        pipeline.stage("down", [n], results, TaskInterval.seconds(3), config)
        return [(name, d.window, d[n]) for name, d in pipeline.replay()]

    assert replay(Empty.SKIP) == [one for one in replay(Empty.RUN) if one[2]]


def test_a_gap_of_fifty_years_costs_nothing() -> None:
    years = 50 * 365 * 86_400
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    pipeline = Pipeline("p").source([(0, {"v": 1.0}), (years, {"v": 1.0})], series)
    pipeline.stage("a", [n], series, SECOND, RunnerConfig(empty=Empty.SKIP, executor="inline"))
    before = time.perf_counter()
    assert [d.window for _, d in pipeline.replay()] == [(0, 1), (years, years + 1)]
    assert time.perf_counter() - before < 0.5  # 1.6 billion windows would take hours


def test_live_no_tick_is_given() -> None:
    bench = PipelineBench([n])
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    bench.stage("a", series, empty=Empty.SKIP)
    results = TimeSeries({"n": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    bench.pipeline.stages[0].into(results)
    bench.stage("down", results)  # it waits for those windows, and not for results
    with bench.pipeline:
        bench.advance(3)
        assert bench.sink.wait_for("down", 3)["n"] == 0
        series.append(3, v=1.0)
        bench.advance()
        assert bench.sink.wait_for("a", 4)["n"] == 1
        assert bench.sink.wait_for("down", 4)["n"] == 1
    assert len(bench.sink.of("a")) == 1
    stats = bench.pipeline.stats.stages["a"]
    assert (stats.ticks, stats.empty, stats.missed) == (1, 3, 0)


def test_of_a_runner_too() -> None:
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    bench = RunnerBench([n], series, empty=Empty.SKIP)
    with bench.runner:
        bench.clock.advance(SECOND)
        series.append(1, v=1.0)
        assert bench.next().window == (1, 2)


def test_data_without_times_is_refused() -> None:
    pipeline: Any = Pipeline("p")
    with pytest.raises(ConfigError, match=r"stage 'a': empty=Empty\.SKIP: .*a TimeSeries"):
        pipeline.stage("a", [n], RwLock(0), SECOND, RunnerConfig(empty=Empty.SKIP))
