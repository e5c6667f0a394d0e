"""Tasks that are run once for each key, over several inputs."""

from __future__ import annotations

import pickle
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.bench import RecordingSink
from tests.support.proof import examples
from tests.support.threads import PATIENCE

from run_task import (
    Atom,
    ConfigError,
    ContextBuilder,
    Empty,
    KeyedDataSet,
    Pipeline,
    RunnerConfig,
    RwLock,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    Window,
    task,
)
from run_task.data._several_keyed import SeveralKeyedView
from run_task.sources import paced
from run_task.testing import run_windows

by_executor = pytest.mark.parametrize("executor", ["inline", "threads", "processes"])


def keyed(kind: Any = str, unit: TimeUnit = TimeUnit.SECONDS, **options: Any) -> TimeSeries:
    return TimeSeries({"symbol": kind, "v": float}, unit, key="symbol", **options)


def fill(series: TimeSeries, rows: list[tuple[int, Any, float]]) -> TimeSeries:
    times, symbols, values = zip(*rows) if rows else ((), (), ())
    series.extend(list(times), symbol=list(symbols), v=list(values))
    return series


Views = tuple[TimeSeriesView, TimeSeriesView]


@task
def spread(data: Views, start: int, end: int) -> float:
    trades, quotes = data
    mine = trades.in_window
    return float((mine["v"] - quotes.asof(mine)["v"]).sum())


@task
def counts(data: Views, start: int, end: int) -> tuple[int, int]:
    return len(data[0].in_window), len(data[1].in_window)


TRADES = [(1, "A", 10.0), (2, "B", 20.0), (4, "A", 12.0), (13, "B", 25.0), (14, "C", 1.0)]
QUOTES = [(0, "A", 9.0), (1, "B", 18.0), (3, "A", 11.5), (6, "D", 1.0), (12, "B", 24.0)]


def windows(data: Any, *tasks: Any, n: int = 2, **config: Any) -> list[KeyedDataSet[Any, Any]]:
    context, _, _ = (
        ContextBuilder(data)
        .with_tasks(tasks)
        .with_interval("10s")
        .with_config(RunnerConfig(**config))
        .with_key("symbol")
        .build()
    )
    found: Any = run_windows(context, n)
    return list(found)


@by_executor
def test_a_task_sees_of_each_input_the_rows_of_its_key(executor: str) -> None:
    data = fill(keyed(), TRADES), fill(keyed(), QUOTES)
    first, second = windows(data, spread, counts, executor=executor)
    # A: 10 - 9 and 12 - 11.5; B: 20 - 18. The keys are those of both.
    assert dict(first[counts]) == {"A": (2, 2), "B": (1, 1), "D": (0, 1)}
    assert dict(first[spread]) == {"A": 1.5, "B": 2.0, "D": 0.0}
    assert dict(second[counts]) == {"B": (1, 1), "C": (1, 0)}
    assert second[spread]["B"] == 1.0


@by_executor
def test_of_inputs_without_the_key_it_sees_the_whole(executor: str) -> None:
    market = TimeSeries({"level": float}, TimeUnit.SECONDS)
    market.extend([0, 12], level=[100.0, 200.0])
    other = TimeSeries({"device": str, "v": float}, TimeUnit.SECONDS, key="device")
    other.extend([5, 6], device=["x", "y"], v=[1.0, 2.0])
    limits = RwLock({"A": 11.0})

    @task
    def seen(data: Any, start: int, end: int) -> list[Any]:
        trades, market, other, limits, factor = data
        own = trades.key, trades.in_window["v"].tolist()
        return [*own, market["level"].tolist(), len(other), dict(limits), factor]

    data = fill(keyed(), TRADES), market, other, limits, Atom(3)
    first, second = windows(data, seen, executor=executor)
    assert dict(first[seen]) == {
        "A": ["A", [10.0, 12.0], [100.0], 2, {"A": 11.0}, 3],
        "B": ["B", [20.0], [100.0], 2, {"A": 11.0}, 3],
    }
    assert second[seen]["C"] == ["C", [1.0], [100.0, 200.0], 2, {"A": 11.0}, 3]


def test_each_series_has_its_own_unit() -> None:
    millis = fill(keyed(unit=TimeUnit.MILLIS), [(t * 1000, s, v) for t, s, v in QUOTES])
    first, second = windows((fill(keyed(), TRADES), millis), spread, counts)
    assert dict(first[spread]) == {"A": 1.5, "B": 2.0, "D": 0.0}
    assert dict(second[counts]) == {"B": (1, 1), "C": (1, 0)}


@by_executor
def test_keys_without_rows_are_run_too_if_that_is_wanted(executor: str) -> None:
    data = fill(keyed(), TRADES), fill(keyed(), QUOTES)
    config = {"empty": Empty.RUN, "executor": executor}
    first, second, third = windows(data, counts, n=3, **config)
    assert list(first[counts]) == ["A", "B", "D"]
    assert dict(second[counts]) == {"A": (0, 0), "B": (1, 1), "C": (1, 0), "D": (0, 0)}
    assert dict(third[counts]) == dict.fromkeys("ABCD", (0, 0))


def test_keys_are_ints_too_and_both_are_of_one_kind() -> None:
    ints = [(t, ord(s), v) for t, s, v in TRADES]
    (first,) = windows((fill(keyed(int), ints), keyed(int)), counts, n=1)
    assert dict(first[counts]) == {65: (2, 0), 66: (1, 0)}
    with pytest.raises(ConfigError, match="of several inputs are of one kind"):
        windows((keyed(int), keyed(str)), counts)


def test_one_of_the_inputs_has_to_have_the_key() -> None:
    plain = TimeSeries({"v": float}, TimeUnit.SECONDS)
    with pytest.raises(ConfigError, match="none of the inputs has this key"):
        windows((plain, Atom(1)), counts)
    with pytest.raises(ConfigError, match="stage 'a': by='device': none of the inputs"):
        Pipeline().stage("a", [counts], (keyed(), keyed()), "10s", by="device")


@by_executor
def test_a_fault_of_one_key_costs_that_key(executor: str) -> None:
    @task
    def picky(data: Views, start: int, end: int) -> float:
        if not len(data[1]):
            raise ValueError("no quote")
        return float(data[1]["v"][-1])

    data = fill(keyed(), TRADES), fill(keyed(), QUOTES)
    _, second = windows(data, picky, executor=executor)
    assert dict(second[picky]) == {"B": 24.0}
    assert set(second.errors) == {("picky", "C")}


def test_a_view_of_several_goes_to_other_processes() -> None:
    trades, quotes = fill(keyed(), TRADES), fill(keyed(), QUOTES)
    views = trades.view().for_window(0, 10), quotes.view().for_window(0, 10), "whole"
    made = SeveralKeyedView(views, [0, 1], "symbol")
    made.include(["Z"])
    again = pickle.loads(pickle.dumps(made))
    for one in (made, again):
        assert list(one.keys) == ["A", "B", "D", "Z"]
        found = [(t.in_window["v"].tolist(), q["v"].tolist(), whole) for t, q, whole in one.views()]
        assert found == [
            ([10.0, 12.0], [9.0, 11.5], "whole"),
            ([20.0], [18.0], "whole"),
            ([], [1.0], "whole"),
            ([], [], "whole"),
        ]
    assert sorted(made.last_times()) == [("A", 4), ("B", 2), ("D", 6)]


def test_a_key_is_idle_up_to_its_next_row_in_any_input() -> None:
    slow = TimeSeries({"symbol": str, "v": float}, TimeUnit.SECONDS, key="symbol")
    fast = TimeSeries({"symbol": str, "v": float}, TimeUnit.MILLIS, key="symbol")
    slow.extend([1, 3, 8], symbol=["A", "B", "A"], v=[0.0] * 3)
    fast.extend([1_500, 4_999, 5_000, 9_000], symbol=["A", "B", "B", "C"], v=[0.0] * 4)
    views = slow.view().for_window(0, 10), fast.view().for_window(0, 10_000)
    by_seconds = SeveralKeyedView(views, [0, 1], "symbol")
    # In seconds, rounded down: the row of A at 1 500 ms is of the second 1, and so none after it.
    found = by_seconds.next_times({"A": 1, "B": 4, "C": 9, "D": 0})
    assert dict(found) == {"A": 8, "B": 5}
    assert dict(by_seconds.next_times({"A": 0, "B": 3})) == {"A": 1, "B": 4}
    by_millis = SeveralKeyedView(views[::-1], [0, 1], "symbol")
    found = by_millis.next_times({"A": 1_500, "B": 5_000, "C": 0})
    assert dict(found) == {"A": 8_000, "C": 9_000}


def test_max_keys_holds_for_each_input() -> None:
    trades, quotes = keyed(), keyed()
    rows: list[Any] = [(t, {"symbol": s, "v": v}) for t, s, v in TRADES]
    pipeline = Pipeline().source(rows, trades, name="trades").source(rows[:2], quotes)
    pipeline.stage("a", [counts], (trades, quotes), "10s", by="symbol", max_keys=2)
    assert len(list(pipeline.replay())) == 2
    assert pipeline.stats.sources["trades"].rejected == 1


# In pipelines

rows_of = st.lists(
    st.tuples(st.integers(0, 25), st.sampled_from("ABC"), st.integers(0, 9)),
    min_size=1,
    max_size=15,
)


def model(
    first: list[tuple[int, str, int]], second: list[tuple[int, str, int]], every: int
) -> dict[int, dict[str, tuple[int, int]]]:
    """A plain loop over dicts: how many rows of each key a window holds."""
    found: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for position, rows in enumerate((first, second)):
        for time, key, _ in rows:
            found[(time // every + 1) * every][key][position] += 1
    return {
        end: {key: (one, other) for key, (one, other) in sorted(keys.items())}
        for end, keys in sorted(found.items())
    }


@settings(max_examples=examples(25), deadline=None)
@given(rows_of, rows_of, st.integers(1, 8))
def test_a_pipeline_gives_what_a_plain_loop_does_live_and_replayed(
    first: list[tuple[int, str, int]], second: list[tuple[int, str, int]], every: int
) -> None:
    first, second = sorted(first), sorted(second)

    def run(*, live: bool) -> Any:
        pipeline, sink = Pipeline(), RecordingSink()
        series = keyed(), keyed()
        for rows, into in zip((first, second), series, strict=True):
            given = [(t, {"symbol": s, "v": float(v)}) for t, s, v in rows]
            source: Any = paced(given, 1e9, unit=TimeUnit.SECONDS) if live else given
            pipeline.source(source, into)
        config = RunnerConfig(upstream_timeout=6 * PATIENCE)
        stage = pipeline.stage("both", [counts, spread], series, f"{every}s", config, by="symbol")
        stage.sink(sink)
        if live:
            pipeline.run_sync()
        else:
            for _ in pipeline.replay():
                pass
        found: list[Any] = [dataset for _, dataset in sink.results]
        return [
            (ds.window, dict(ds[counts]), {key: repr(v) for key, v in ds[spread].items()})
            for ds in found
        ]

    replayed = run(live=False)
    assert run(live=True) == replayed
    expected = model(first, second, every)
    assert {window.end: keys for window, keys, _ in replayed if keys} == expected


def test_results_by_key_enter_a_series_that_another_keyed_stage_reads() -> None:
    trades, quotes = keyed(), keyed()
    pipeline = Pipeline()
    for rows, into in ((TRADES, trades), (QUOTES, quotes)):
        pipeline.source([(t, {"symbol": s, "v": v}) for t, s, v in rows], into)
    up = pipeline.stage("up", [spread], (trades, quotes), "10s", by="symbol")

    @task
    def beside(data: Views, start: int, end: int) -> list[float]:
        trades, spreads = data
        return [*trades.in_window["v"].tolist(), *spreads["spread"].tolist()]

    pipeline.stage("down", [beside], (trades, up.series()), "10s", by="symbol")
    results: list[tuple[str, Any]] = list(pipeline.replay())
    found = {dataset.window: dict(dataset[beside]) for name, dataset in results if name == "down"}
    assert found[Window(0, 10)] == {"A": [10.0, 12.0, 1.5], "B": [20.0, 2.0], "D": [0.0]}
    assert found[Window(10, 20)]["B"] == [25.0, 2.0, 1.0]
