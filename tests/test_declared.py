"""Declared tasks in runners and pipelines: computed together, beside tasks of any other kind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import declared
from tests.support.declared import Broken, Total
from tests.support.proof import examples

from run_task import (
    Closed,
    ConfigError,
    ContextBuilder,
    DataSet,
    Empty,
    KeyedDataSet,
    OnError,
    Pipeline,
    Runner,
    RunnerConfig,
    RwLock,
    TaskError,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    task,
)
from run_task.sinks import JsonLinesSink
from run_task.sources import Batch
from run_task.testing import run_windows

EXECUTORS: Sequence[Any] = ("inline", "threads", "processes")
by_executor = pytest.mark.parametrize("executor", EXECUTORS)


@task
def count(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@task
def picky(view: TimeSeriesView, start: int, end: int) -> float:
    if len(view.in_window) > 3:
        raise ValueError("too many")
    return float(view.in_window["a"].sum())


MIXED: Sequence[Any] = [count, Total("a"), picky]
LIMITED: Sequence[Any] = [count, Total("a", limit=5), picky]


class Batches:
    """Rows in batches, each of which enters a replay's series as a whole.

    :param times: the timestamps
    :param size: how many rows a batch has
    :param columns: the columns
    """

    def __init__(self, times: Sequence[int], size: int, **columns: Any) -> None:
        self._times = np.array(times, np.int64)
        self._size = size
        self._columns = columns

    def batches(self) -> Any:
        for first in range(0, len(self._times), self._size):
            some = slice(first, first + self._size)
            yield Batch(self._times[some], {n: c[some] for n, c in self._columns.items()})

    def rows(self) -> list[Any]:
        """The same rows, one by one."""
        return [row for batch in self.batches() for row in batch.rows()]

    def __iter__(self) -> Any:
        return iter(())


def series_of(times: Sequence[int], **closed: Any) -> TimeSeries:
    series = TimeSeries({"a": float, "k": str}, TimeUnit.SECONDS, key="k", **closed)
    for place, time in enumerate(times):
        series.append(time, a=float(place), k="xyz"[place % 3])
    return series


def replayed(tasks: Sequence[Any], source: Any, closed: Closed = Closed.LEFT, **how: Any) -> Any:
    series = TimeSeries({"a": float, "k": str}, TimeUnit.SECONDS, key="k", closed=closed)
    pipeline = Pipeline("declared")
    pipeline.source(source, into=series)
    by = how.pop("by", None)
    keys: Any = {} if by is None else {"by": by}
    stage: Any = pipeline.stage
    stage("stage", tasks, series, how.pop("every", "10s"), config=RunnerConfig(**how), **keys)
    return [dataset for _, dataset in pipeline.replay()]


@by_executor
def test_they_stand_in_their_places_among_tasks_of_any_executor(executor: Any) -> None:
    context, _, _ = (
        ContextBuilder(series_of([1, 2, 3, 11, 12, 13, 14]))
        .with_tasks(MIXED)
        .with_interval("10s")
        .with_config(RunnerConfig(executor=executor))
        .build()
    )
    first, second, third = run_windows(context, 3)
    assert dict(first) == {"count": 3, "a_total": 3.0, "picky": 3.0}
    assert list(first) == ["count", "a_total", "picky"]
    assert dict(second) == {"count": 4, "a_total": 18.0}
    assert list(second.errors) == ["picky"]
    assert third["a_total"] is None
    assert list(first.durations) == ["count", "a_total", "picky"]
    assert first.took >= sum(first.durations.values()) * 0.99


@by_executor
def test_by_key_each_key_has_its_result(executor: Any) -> None:
    context, _, _ = (
        ContextBuilder(series_of([1, 2, 3, 4, 11, 12, 13]))
        .with_tasks(LIMITED)
        .with_interval("10s")
        .with_config(RunnerConfig(executor=executor))
        .with_key("k")
        .build()
    )
    first: KeyedDataSet[Any, Any]
    first, second = run_windows(context, 2)
    assert list(first) == ["count", "a_total", "picky"]
    assert dict(first["a_total"]) == {"x": 3.0, "y": 1.0, "z": 2.0}
    assert dict(second["a_total"]) == {"y": 4.0, "z": 5.0}  # x has 6
    assert list(second.errors) == [("a_total", "x")]
    assert isinstance(second.errors["a_total", "x"].__cause__, OverflowError)
    assert second.errors["a_total", "x"].key == "x"
    assert second["count"]["x"] == 1


def test_alone_by_key_also_the_keys_that_have_no_row() -> None:
    context, _, _ = (
        ContextBuilder(series_of([1, 2, 3, 11]))
        .with_task(Total("a"))
        .with_interval("10s")
        .with_config(RunnerConfig(empty=Empty.RUN))
        .with_key("k")
        .build()
    )
    first, second = run_windows(context, 2)
    assert first.to_dict() == {"a_total": {"x": 0.0, "y": 1.0, "z": 2.0}}
    assert second.to_dict() == {"a_total": {"x": 3.0, "y": None, "z": None}}


@pytest.mark.parametrize("beside", [[], [count]], ids=["alone", "beside"])
@pytest.mark.parametrize("by", [None, "k"])
@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, GeneratorExit])
def test_a_plan_that_raises_costs_its_own_tasks(
    beside: Any, by: str | None, error: type[BaseException]
) -> None:
    every: Any = ContextBuilder(series_of([1, 2])).with_tasks([Broken(error), *beside, Total("a")])
    every = every.with_interval("10s")
    context: Any = (every if by is None else every.with_key(by)).build()[0]
    run: Any = run_windows  # of which this is no overload: with keys or without
    dataset: Any = run(context, 1)[0]
    assert [error.task for error in dataset.error_list()] == ["broken"] * (1 if by is None else 2)
    assert all(isinstance(e.__cause__, error) for e in dataset.error_list())
    assert "a_total" in dataset
    assert ("count" in dataset) == bool(beside)


def test_ctrl_c_is_no_fault_of_what_happens_to_be_computed() -> None:
    series = series_of([])
    pipeline = Pipeline("p").source([(i, {"k": "x", "a": 1.0}) for i in range(90)], series)
    tasks: Any = [Broken(KeyboardInterrupt), Total("a")]
    pipeline.stage("s", tasks, series, "10s")
    with pytest.raises(KeyboardInterrupt):
        list(pipeline.replay())


def test_what_they_cannot_be_computed_of_is_refused_when_it_is_declared() -> None:
    with pytest.raises(ConfigError, match="no column 'b'"):
        ContextBuilder(series_of([])).with_task(Total("b")).build()
    with pytest.raises(ConfigError, match=r"'a_total' is declared.*one TimeSeries"):
        lists: Any = ContextBuilder(RwLock([1.0]))
        lists.with_task(Total("a")).build()
    pipeline = Pipeline("refused")
    with pytest.raises(ConfigError, match=r"stage .one.: .*no column .b."):
        pipeline.stage("one", [Total("b")], series_of([]), "10s")
    both: Any = (series_of([]), series_of([]))
    with pytest.raises(ConfigError, match="one TimeSeries"):
        pipeline.stage("one", [Total("a")], both, "10s")


@pytest.mark.parametrize("closed", [Closed.LEFT, Closed.RIGHT])
@pytest.mark.parametrize("window", [None, "30s", "25s", "4s"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_windows_at_once_are_those_one_by_one(
    size: int, window: str | None, closed: Closed
) -> None:
    random = np.random.default_rng(size)
    times = np.sort(random.integers(0, 2000, 600))
    times[300:] += 5000  # a gap
    columns = {"a": random.random(600), "k": np.array(["xyz"[i % 3] for i in range(600)])}
    how: Any = {"closed": closed} if window is None else {"closed": closed, "window": window}
    declared.BATCHES.clear()
    at_once = replayed([Total("a")], Batches(times.tolist(), size, **columns), **how)
    largest = max(declared.BATCHES)
    declared.BATCHES.clear()
    rows = [
        (int(t), {"a": float(a), "k": str(k)}) for t, a, k in zip(times, columns["a"], columns["k"])
    ]
    beside = replayed([Total("a"), count], rows, **how)
    assert max(declared.BATCHES) == 1
    assert largest > 4, "no windows were run at once"
    assert [d.window for d in at_once] == [d.window for d in beside]
    assert [d["a_total"] for d in at_once] == [d["a_total"] for d in beside]
    assert sum(d["a_total"] is None for d in at_once) > 100
    assert all(d.start_time for d in at_once)


def test_windows_at_once_know_the_errors_of_each() -> None:
    times = list(range(200))
    columns: Any = {"a": np.ones(200), "k": np.array(["x"] * 200)}
    columns["a"][55] = 100.0
    datasets = replayed([Total("a", limit=50)], Batches(times, 1000, **columns))
    assert [d.timestamp for d in datasets if d.errors] == [60]
    assert len(datasets) == 20
    with pytest.raises(TaskError) as raised:
        replayed([Total("a", limit=50)], Batches(times, 1000, **columns), on_error=OnError.RAISE)
    assert raised.value.window == (50, 60)


def test_empty_windows_are_skipped_where_they_are_to_be() -> None:
    times = [1, 2, 5001, 5002]
    columns: Any = {"a": np.ones(4), "k": np.array(["x"] * 4)}
    datasets = replayed([Total("a")], Batches(times, 1000, **columns), empty=Empty.SKIP)
    assert [(d.timestamp, d["a_total"]) for d in datasets] == [(10, 2.0), (5010, 2.0)]


def test_live_gives_what_a_replay_gives() -> None:
    clock = VirtualClock(start_ns=0)
    series = TimeSeries({"a": float, "k": str}, TimeUnit.SECONDS, key="k")
    context, receiver, _ = (
        ContextBuilder(series).with_tasks([Total("a")]).with_interval("10s").build()
    )
    live: list[DataSet[Any]] = []
    with Runner(context, clock=clock):
        for second in range(50):
            series.append(second, a=float(second), k="x")
            if second % 10 == 9:
                clock.advance("10s")
                live.append(receiver.recv(timeout=10))
    rows = [(second, {"a": float(second), "k": "x"}) for second in range(50)]
    assert live == replayed([Total("a")], rows)


def test_tasks_that_are_added_and_removed_while_it_runs_may_be_declared() -> None:
    clock = VirtualClock(start_ns=0)
    series = series_of([1, 2, 3, 11, 12, 21, 31])
    context, receiver, _ = ContextBuilder(series).with_tasks([count]).with_interval("10s").build()
    runner: Any = Runner(context, clock=clock)
    names: list[list[str]] = []
    with runner:
        for change in (
            lambda: None,
            lambda: runner.add(Total("a")),
            lambda: runner.remove("count"),
            lambda: runner.add(picky),
        ):
            change()
            clock.advance("10s")
            names.append(list(receiver.recv(timeout=10)))
        with pytest.raises(ConfigError, match="no column 'b'"):
            runner.add(Total("b"))
    assert names == [["count"], ["count", "a_total"], ["a_total"], ["a_total", "picky"]]


async def test_in_an_event_loop() -> None:
    series = TimeSeries({"a": float}, TimeUnit.MILLIS)
    context, receiver, _ = (
        ContextBuilder(series).with_task(Total("a")).with_interval("10ms").build()
    )
    async with Runner(context):
        dataset = await asyncio.wait_for(receiver.arecv(), 10)
    assert dataset["a_total"] is None


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(-30, 200)), min_size=1, max_size=80),
    st.sampled_from([1, 4, 16, 100]),
    st.sampled_from([None, "2s", "15s"]),
    st.sampled_from([None, "7s"]),
    st.sampled_from(Closed),
    st.sampled_from([None, 1, 3, 12, 40, "1s", "4s", "9s", "60s"]),
    st.sampled_from(Empty),
)
@settings(max_examples=examples(120), deadline=None)
def test_windows_at_once_know_the_same_fates_of_rows(
    steps: list[tuple[int, int]],
    size: int,
    window: str | None,
    grace: str | None,
    closed: Closed,
    retention: int | str | None,
    empty: Empty,
) -> None:
    """Rows that come late, in batches of which some are in order, to a series from which rows may
    pass out before a window sees them."""
    now, times = 100, list[int]()
    for step, late in steps:
        now += step
        times.append(now + (late if late < -20 else 0))
    columns: Any = {"a": np.arange(len(times)) * 0.5, "k": np.array(["x"] * len(times))}
    found: list[Any] = []
    batches = Batches(times, size, **columns)
    ways: Sequence[Any] = (
        (batches, [Total("a")]),  # windows at once, if none is skipped
        (batches, [Total("a"), count]),  # one by one
        (batches.rows(), [Total("a"), count]),  # and rows, too
    )
    for source, tasks in ways:
        series = TimeSeries({"a": float, "k": str}, TimeUnit.SECONDS, retention, closed=closed)
        pipeline = Pipeline("fates")
        pipeline.source(source, into=series, name="source")
        config = RunnerConfig(window=window, grace=grace, empty=empty)
        pipeline.stage("stage", tasks, series, "5s", config=config)
        replay = pipeline.replay()
        given_ = [(dataset.window, dataset["a_total"]) for _, dataset in replay]
        found.append((given_, replay.summary.sources))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("retention", [400, 40, 5, "60s", "7s"])
@pytest.mark.parametrize("window", [None, "30s"])
def test_windows_at_once_also_where_rows_pass_out(
    retention: int | str, window: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[int] = []
    move = TimeSeries._move  # pyright: ignore[reportPrivateUsage]  memory stays bounded

    def noted(series: TimeSeries, first: int, stop: int, rows: Any) -> None:
        move(series, first, stop, rows)
        moved.append(series._snapshot[0].layout.capacity)  # pyright: ignore[reportPrivateUsage]  as just said

    monkeypatch.setattr(TimeSeries, "_move", noted)
    times = np.cumsum(np.random.default_rng(5).integers(0, 3, 20_000)).tolist()
    columns: Any = {"a": np.arange(20_000) * 0.1, "k": np.array(["x"] * 20_000)}
    batches = Batches(times, 1000, **columns)
    found: list[Any] = []
    ways: Sequence[Any] = (
        (batches, [Total("a")]),
        (batches.rows(), [Total("a"), count]),
    )
    for source, tasks in ways:
        declared.BATCHES.clear()
        series = TimeSeries({"a": float, "k": str}, TimeUnit.SECONDS, retention)
        pipeline = Pipeline("passing").source(source, into=series, name="source")
        pipeline.stage("stage", tasks, series, "10s", RunnerConfig(window=window))
        replay = pipeline.replay()
        given_ = [(dataset.window, dataset["a_total"]) for _, dataset in replay]
        found.append((given_, replay.summary.sources))
        largest = max(declared.BATCHES)
        # Windows that slide are run at once if none of their rows has passed out.
        at_once = len(tasks) == 1 and (window is None or retention in (400, 40, "60s"))
        assert (largest > 4) is at_once
    assert found[0] == found[1]
    assert max(moved) <= 16 * 1500


@pytest.mark.parametrize("left", [1, 7, 30, 59])
def test_a_replay_of_windows_at_once_goes_on_where_it_was_left(left: int, tmp_path: Path) -> None:
    times = list(range(0, 600, 2))
    columns: Any = {"a": np.ones(300), "k": np.array(["x"] * 300)}

    def pipeline_into(file: str) -> tuple[Pipeline, JsonLinesSink]:
        series = TimeSeries({"a": float, "k": str}, TimeUnit.SECONDS)
        pipeline, sink = Pipeline("resumed"), JsonLinesSink(tmp_path / file)
        pipeline.source(Batches(times, 64, **columns), into=series)
        pipeline.stage("stage", [Total("a")], series, "10s").sink(sink)
        return pipeline, sink

    whole, sink = pipeline_into("whole.jsonl")
    windows = [dataset.window for _, dataset in whole.replay()]
    sink.close()
    part, sink = pipeline_into("part.jsonl")
    with part.replay() as replay:
        for _ in range(left):
            next(replay)
    sink.close()
    rest, sink = pipeline_into("part.jsonl")
    again = [dataset.window for _, dataset in rest.resume(sink)]
    sink.close()
    assert again == windows[-len(again) :]
    assert len(again) <= len(windows) - left + 1
    lines = [(tmp_path / name).read_text().splitlines() for name in ("whole.jsonl", "part.jsonl")]
    assert sorted(lines[0]) == sorted(lines[1])
