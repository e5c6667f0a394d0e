"""Tasks that are run once for each key, in runners and pipelines."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.support.keyed import TASKS, count, ever, picky, total, trades
from tests.support.proof import examples
from tests.support.threads import PATIENCE

from run_task import (
    Closed,
    ConfigError,
    ContextBuilder,
    DataSet,
    Empty,
    InlineExecutor,
    KeyedDataSet,
    Pipeline,
    Runner,
    RunnerConfig,
    RwLock,
    TaskError,
    TaskTimeout,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    Window,
    task,
)
from run_task.aggregates import count as count_rows
from run_task.sinks import CallbackSink, CsvSink, JsonLinesSink, ParquetSink, SqlSink
from run_task.sources import paced
from run_task.testing import run_windows

EXECUTORS: Sequence[Any] = ("inline", "threads", "processes")
by_executor = pytest.mark.parametrize("executor", EXECUTORS)


def windows_of(
    rows: Sequence[Sequence[tuple[str, float]]], executor: Any, **config: Any
) -> list[KeyedDataSet[Any, Any]]:
    """What comes of windows of ten seconds, with these rows in each."""
    series = trades()
    context, _, _ = (
        ContextBuilder(series)
        .with_tasks(TASKS)
        .with_interval("10s")
        .with_config(RunnerConfig(executor=executor, **config))
        .with_key("symbol", key_idle="25s")
        .build()
    )

    def enter(window: Window) -> None:
        for symbol, price in rows[window.start // 10]:
            series.append(window.start + 1, symbol=symbol, price=price)

    return run_windows(context, len(rows), before=enter)


@by_executor
def test_each_task_runs_once_for_each_key(executor: Any) -> None:
    rows = [[("B", 1.0), ("A", 2.0), ("B", 3.0)], [("C", 4.0), ("A", 5.0)]]
    first, second = windows_of(rows, executor)
    assert isinstance(first, KeyedDataSet)
    assert not isinstance(first, DataSet)
    assert first.by == "symbol"
    assert first.window == Window(0, 10)
    assert list(first) == ["total", "count", "ever", "picky"]
    assert list(first[total].items()) == [("A", 2.0), ("B", 4.0)]
    assert first["count"] == {"A": 1, "B": 2}
    assert second[ever] == {"A": 2, "C": 1}
    assert [key for key, _ in second.rows()] == ["A", "C"]
    assert next(iter(second.rows()))[1] == {"total": 5.0, "count": 1, "ever": 2, "picky": 5.0}
    assert first.durations.keys() == set(first)
    assert 0 < sum(first.durations.values()) <= first.took
    assert not first.errors


@by_executor
def test_a_task_that_fails_for_a_key_costs_that_key_only(executor: Any) -> None:
    (dataset,) = windows_of([[("A", 1.0), ("B", -1.0), ("C", 2.0)]], executor)
    assert dataset[picky] == {"A": 1.0, "C": 2.0}
    assert dataset[total] == {"A": 1.0, "B": -1.0, "C": 2.0}
    assert list(dataset.errors) == [("picky", "B")]
    error = dataset.errors["picky", "B"]
    assert (error.task, error.key, error.window) == ("picky", "B", (0, 10))
    assert isinstance(error.__cause__, ValueError)
    assert str(error) == (
        "task 'picky' gave no result for 'B' in [1970-01-01T00:00:00Z, 1970-01-01T00:00:10Z): "
        "ValueError: a price below zero"
    )
    assert dict(dataset.rows())["B"] == {"total": -1.0, "count": 1, "ever": 1}
    assert dataset[picky].errors == {"B": error}
    with pytest.raises(KeyError) as raised:
        dataset[picky]["B"]
    assert raised.value.__cause__ is error
    with pytest.raises(KeyError, match="no result for key 'Z'"):
        dataset[picky]["Z"]


@by_executor
def test_keys_without_rows_are_left_out_or_run_until_they_are_idle(executor: Any) -> None:
    rows = [[("A", 1.0), ("B", 2.0)], [("B", 1.0)], [], [("B", 1.0)], [("C", 1.0)], []]
    skipped = windows_of(rows, executor)
    assert [(d.timestamp, dict(d[count])) for d in skipped] == [
        (10, {"A": 1, "B": 1}),
        (20, {"B": 1}),
        (40, {"B": 1}),
        (50, {"C": 1}),
    ]
    run = windows_of(rows, executor, empty=Empty.RUN)
    assert [dict(d[count]) for d in run] == [
        {"A": 1, "B": 1},
        {"A": 0, "B": 1},
        {"B": 0},  # A had its last row at 1 s, and is idle from 26 s on
        {"B": 1},
        {"B": 0, "C": 1},
        {"C": 0},
    ]
    assert dict(run[1][ever]) == {"A": 1, "B": 2}


Rows = list[list[tuple[str, float]]]


WINDOWS = st.lists(
    st.lists(
        st.tuples(st.text("abcdé", max_size=2), st.floats(-2, 20, allow_nan=False)), max_size=8
    ),
    max_size=6,
)
EMPTY = st.sampled_from([None, Empty.RUN, Empty.SKIP])


@pytest.mark.parametrize("executor", ["inline", "threads"])
@settings(max_examples=examples(40), deadline=None)
@given(rows=WINDOWS, empty=EMPTY)
def test_it_is_as_a_loop_over_dicts(executor: Any, rows: Rows, empty: Empty | None) -> None:
    check_against_dicts(executor, rows, empty)


@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(rows=WINDOWS, empty=EMPTY)
def test_by_processes_it_is_as_a_loop_over_dicts(rows: Rows, empty: Empty | None) -> None:
    # Few, and not shrunk: processes start for each.
    check_against_dicts("processes", rows, empty)


def check_against_dicts(executor: Any, rows: Rows, empty: Empty | None) -> None:
    if not rows:
        return
    datasets = {d.window.start: d for d in windows_of(rows, executor, empty=empty)}
    ever_of: dict[str, int] = {}
    last_of: dict[str, int] = {}
    for number, of_window in enumerate(rows):
        start = number * 10
        prices: dict[str, list[float]] = {}
        for symbol, price in of_window:
            prices.setdefault(symbol, []).append(price)
            ever_of[symbol] = ever_of.get(symbol, 0) + 1
            last_of[symbol] = start + 1
        if empty is Empty.RUN:
            for symbol, last in last_of.items():
                if last >= start + 10 - 25:
                    prices.setdefault(symbol, [])
        elif not prices:
            assert start not in datasets
            continue
        dataset = datasets[start]
        keys = sorted(prices)
        # By NumPy, too, which adds up eight and more in another order than Python's sum.
        sums = [(key, float(np.array(prices[key]).sum())) for key in keys]
        assert list(dataset[total].items()) == sums
        assert dataset[count] == {key: len(prices[key]) for key in keys}
        assert dataset[ever] == {key: ever_of[key] for key in keys}
        bad = [key for key in keys if any(price < 0 for price in prices[key])]
        assert dataset[picky] == {key: max([0.0, *prices[key]]) for key in keys if key not in bad}
        assert list(dataset.errors) == [("picky", key) for key in bad]


# Tasks that hang.


class Hanging:
    """A task that hangs for one key until it is let go."""

    name = "hanging"

    def __init__(self, key: str) -> None:
        self.key = key
        self.gate = threading.Event()
        self.calls: list[str] = []

    def run(self, view: Any, start: int, end: int) -> str:
        self.calls.append(view.key)
        if view.key == self.key:
            assert self.gate.wait(PATIENCE)
        return f"{view.key}"


def test_a_key_that_hangs_is_not_started_again_where_other_tasks_come() -> None:
    hanging = Hanging("B")
    series = trades()
    series.extend([0, 1], symbol=["A", "B"], price=[1.0, 2.0])
    builder = ContextBuilder(series).with_task(hanging).with_interval("10s")
    builder = builder.with_config(RunnerConfig(task_timeout=0.1))
    context, receiver, _ = builder.with_key("symbol").build()
    clock = VirtualClock()
    with Runner[Any, Any](context, clock=clock) as runner:
        clock.advance("10s")
        assert receiver.recv(PATIENCE).errors.keys() == {("hanging", "B")}
        series.extend([10, 11], symbol=["A", "B"], price=[1.0, 2.0])
        runner.add(total)
        clock.advance("10s")
        dataset: Any = receiver.recv(PATIENCE)
        assert dict(dataset["hanging"]) == {"A": "A"}
        assert dict(dataset["total"]) == {"A": 1.0, "B": 2.0}
        error = dataset.errors["hanging", "B"]
        assert isinstance(error, TaskTimeout)
        assert error.since == (0, 10)
        assert hanging.calls == ["A", "B", "A"]
        hanging.gate.set()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_key_that_hangs_blocks_itself_only(workers: int) -> None:
    hanging = Hanging("B")
    series = trades()
    context, _, _ = (
        ContextBuilder(series)
        .with_task(hanging)
        .with_task(total)
        .with_interval("10s")
        .with_config(RunnerConfig(task_timeout=0.05, workers=workers))
        .with_key("symbol")
        .build()
    )

    def enter(window: Window) -> None:
        series.extend([window.start] * 4, symbol=list("ABCD"), price=[1.0, 2.0, 3.0, 4.0])
        if window.start == 20:
            hanging.gate.set()

    first, second, third = _after(run_windows, context, enter)
    for dataset in (first, second):
        assert dataset[hanging] == {"A": "A", "C": "C", "D": "D"}
        assert dataset[total] == {"A": 1.0, "B": 2.0, "C": 3.0, "D": 4.0}
        assert list(dataset.errors) == [("hanging", "B")]
        assert isinstance(dataset.errors["hanging", "B"], TaskTimeout)
    assert "did not return within task_timeout=0.05 s" in str(first.errors["hanging", "B"])
    assert "still running from the window [1970-01-01T00:00:00Z" in str(
        second.errors["hanging", "B"]
    )
    assert hanging.calls.count("B") <= 2
    assert third[hanging].keys() >= {"A", "C", "D"}


def _after(
    run: Callable[..., Any], context: Any, before: Callable[[Window], object]
) -> list[KeyedDataSet[Any, Any]]:
    datasets: list[KeyedDataSet[Any, Any]] = run(context, 3, before=before)
    return datasets


@by_executor
def test_a_result_that_comes_too_late_is_an_error_of_its_key(executor: Any) -> None:
    @task
    def slow(view: Any, start: int, end: int) -> str:
        if view.key == "B":
            threading.Event().wait(0.2)
        return "done"

    series = trades()
    series.extend([1, 1, 1], symbol=list("ABC"), price=[1.0, 2.0, 3.0])
    pipeline = Pipeline("p")
    config = RunnerConfig(executor=executor, task_timeout=0.05, workers=1)
    pipeline.stage("s", [slow], series, "10s", config, by="symbol")
    ((_, dataset),) = pipeline.replay()
    assert dataset["slow"] == {"A": "done", "C": "done"}
    errors: Any = dataset.errors
    assert isinstance(errors["slow", "B"], TaskTimeout)


def test_helpers_take_keys_of_a_tick_that_is_slow() -> None:
    series = trades()
    symbols = [f"s{i:02}" for i in range(40)]
    series.extend([1] * 40, symbol=symbols, price=[1.0] * 40)
    threads: set[int] = set()
    pause = threading.Event()

    @task
    def waits(view: Any, start: int, end: int) -> float:
        threads.add(threading.get_ident())
        pause.wait(0.002)
        return float(view.in_window["price"][0])

    pipeline = Pipeline("p")
    pipeline.stage("s", [waits], series, "10s", RunnerConfig(workers=3), by="symbol")
    ((_, dataset),) = pipeline.replay()
    assert dataset["waits"] == dict.fromkeys(symbols, 1.0)
    assert len(threads) > 1


# Pipelines.

ROWS = [
    (time, {"symbol": f"s{number % 5}", "price": float(number)})
    for number, time in enumerate(range(0, 60, 1))
]


def pipeline_of(
    executor: Any, sink: Any = None, tasks: Any = TASKS, source: Any = None
) -> Pipeline:
    series = trades()
    pipeline = Pipeline("p")
    pipeline.source(list(ROWS) if source is None else source, into=series)
    stage = pipeline.stage("by symbol", tasks, series, "10s", _config(executor), by="symbol")
    if sink is not None:
        stage.sink(sink)
    return pipeline


def _config(executor: Any) -> RunnerConfig:
    return RunnerConfig(executor=executor)


@by_executor
def test_a_live_run_gives_what_a_replay_gives(executor: Any) -> None:
    replayed = [(name, dataset) for name, dataset in pipeline_of(executor).replay()]
    written: list[Any] = []
    sink = CallbackSink(lambda name, dataset: written.append((name, dataset)))
    pipeline_of(executor, sink, source=paced(list(ROWS), 500, unit=TimeUnit.SECONDS)).run_sync()
    assert len(replayed) == 6
    assert written == replayed


def test_results_by_key_become_rows_that_other_stages_read_by_key() -> None:
    series = trades()
    pipeline = Pipeline("p")
    pipeline.source(list(ROWS), into=series)
    stage = pipeline.stage("sums", [total, count], series, "10s", by="symbol")
    sums = stage.series()
    assert sums.key == "symbol"
    assert list(sums.columns) == ["symbol", "total", "count"]

    @task
    def latest(view: TimeSeriesView, start: int, end: int) -> tuple[int, float]:
        return len(view), float(view["total"][-1])

    @task
    def all_of_them(view: TimeSeriesView, start: int, end: int) -> list[str]:
        names: list[str] = view.in_window["symbol"].tolist()
        return names

    pipeline.stage("by key", [latest], sums, "10s", by="symbol")
    pipeline.stage("all", [all_of_them], sums, "10s")
    found: dict[str, list[Any]] = {"sums": [], "by key": [], "all": []}
    for name, dataset in pipeline.replay():
        found[name].append(dataset)
    for number in range(6):
        assert found["all"][number]["all_of_them"] == ["s0", "s1", "s2", "s3", "s4"]
        expected = {key: (number + 1, value) for key, value in found["sums"][number][total].items()}
        assert found["by key"][number]["latest"] == expected


def sink_of(kind: str, folder: Path) -> Any:
    if kind == "csv":
        return CsvSink(folder / "results.csv")
    if kind == "jsonl":
        return JsonLinesSink(folder / "results.jsonl")
    if kind == "parquet":
        return ParquetSink(folder / "results")
    return SqlSink(f"sqlite:///{folder / 'results.db'}")


SINKS = ("csv", "jsonl", "parquet", "sql")


@pytest.mark.parametrize("kind", SINKS)
def test_sinks_carry_the_key(kind: str, tmp_path: Path) -> None:
    sink = sink_of(kind, tmp_path)
    expected: list[tuple[Any, ...]] = []
    for _, dataset in pipeline_of("inline", sink, (count, picky)).replay():
        rows: Any = dataset
        for key, results in rows.rows():
            expected += [(rows.timestamp, key, name, value) for name, value in results.items()]
    rows = [(row.end, row.key, row.task, row.value) for row in sink.rows("by symbol")]
    assert sorted(rows) == sorted(expected)
    assert len(rows) == 6 * 5 * 2
    # Again: windows are replaced, and not doubled.
    for _ in pipeline_of("inline", sink, (count, picky)).replay():
        pass
    assert len(list(sink.rows("by symbol"))) == 60
    sink.close()


@pytest.mark.parametrize("kind", SINKS)
def test_sinks_carry_errors_of_keys(kind: str, tmp_path: Path) -> None:
    sink = sink_of(kind, tmp_path)
    series = trades()
    series.extend([1, 1], symbol=["a", "b"], price=[-1.0, 1.0])
    pipeline = Pipeline("p")
    pipeline.stage("s", [picky], series, "10s", by="symbol").sink(sink)
    for _ in pipeline.replay():
        pass
    rows = {row.key: row for row in sink.rows("s")}
    assert rows["b"].value == 1.0
    assert "a price below zero" in str(rows["a"].error)
    sink.close()


@pytest.mark.parametrize("kind", SINKS)
def test_a_resume_goes_on_with_keys(kind: str, tmp_path: Path) -> None:
    whole, halves = sink_of(kind, tmp_path), None
    for _ in pipeline_of("threads", whole).replay():
        pass
    expected = sorted(map(repr, whole.rows("by symbol")))
    whole.close()
    folder = tmp_path / "halves"
    folder.mkdir()
    halves = sink_of(kind, folder)
    replay = pipeline_of("threads", halves).replay()
    for _ in range(3):
        next(replay)
    replay.close()
    pipeline = pipeline_of("threads", halves)
    for _ in pipeline.resume(halves):
        pass
    assert sorted(map(repr, halves.rows("by symbol"))) == expected
    halves.close()


@pytest.mark.parametrize("kind", SINKS)
def test_a_key_that_cannot_be_stored_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    sink = sink_of(kind, tmp_path)
    series = trades()
    series.extend([1, 11, 21], symbol=["a", "", "b"], price=[1.0, 1.0, 1.0])
    pipeline = Pipeline("p")
    pipeline.stage("s", [count], series, "10s", by="symbol").sink(sink)
    assert len(list(pipeline.replay())) == 3
    assert [row.key for row in sink.rows("s")] == ["a", "b"]
    sink.close()


def test_keys_of_ints() -> None:
    series = trades(int)
    series.extend([1, 2, 3], symbol=[10, -2, 10], price=[1.0, 2.0, 3.0])
    pipeline = Pipeline("p")
    pipeline.stage("s", [total], series, "10s", by="symbol")
    ((_, dataset),) = pipeline.replay()
    assert list(dataset["total"].items()) == [(-2, 2.0), (10, 4.0)]


# What is refused.


@pytest.mark.parametrize(
    ("data", "by", "message"),
    [
        (trades(), "price", "by='price': the key of <TimeSeries .* is 'symbol'"),
        (trades(), "", "by='': it is the name of the column that is the key"),
        (TimeSeries({"symbol": str}), "symbol", "has no key: make it with key='symbol'"),
        (RwLock([1]), "symbol", "the rows of a TimeSeries have keys, and <RwLock"),
    ],
    ids=["other", "empty", "none", "lock"],
)
def test_data_without_that_key_is_refused(data: Any, by: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"stage 's': .*{message}"):
        Pipeline("p").stage("s", [total], data, "10s", by=by)
    with pytest.raises(ConfigError, match=message):
        ContextBuilder(data).with_task(total).with_interval("10s").with_key(by).build()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_keys": 0}, "max_keys=0: it is a positive int"),
        ({"max_keys": True}, "max_keys=True: it is a positive int"),
        ({"key_idle": "soon"}, "key_idle='soon'"),
        ({"key_idle": 5}, "key_idle=5"),
    ],
    ids=str,
)
def test_limits_that_cannot_be_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pipeline("p").stage("s", [total], trades(), "10s", by="symbol", **options)


@pytest.mark.parametrize("option", [{"max_keys": 5}, {"key_idle": "2h"}], ids=str)
def test_limits_of_keys_are_refused_where_there_are_none(option: Any) -> None:
    (name,) = option
    with pytest.raises(ConfigError, match=f"stage 's': {name}=.*: it is for a stage by key"):
        Pipeline("p").stage("s", [total], trades(), "10s", **option)


def test_an_executor_that_does_not_know_keys_is_refused() -> None:
    class Own:
        def __init__(self) -> None:
            self._inline = InlineExecutor()
            self.check, self.start = self._inline.check, self._inline.start

    config = RunnerConfig(executor=Own())
    with pytest.raises(ConfigError, match=r"does not run tasks by key: .* a start_keyed\(\)"):
        Pipeline("p").stage("s", [total], trades(), "10s", config, by="symbol")


def test_rows_by_key_cannot_enter_a_series_without_the_key() -> None:
    pipeline = Pipeline("p")
    stage = pipeline.stage("s", [total], trades(), "10s", by="symbol")
    into = TimeSeries({"total": float}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    with pytest.raises(ConfigError, match=r"results are by key, and .* has no column 'symbol'"):
        stage.into(into)
    named = pipeline.stage("t", [count_rows().named("symbol")], trades(), "10s", by="symbol")
    with pytest.raises(ConfigError, match="column 'symbol' is called like that of the key"):
        named.series()


# KeyedDataSet.


def made(**changes: Any) -> KeyedDataSet[str, float]:
    window = Window(0, 10)
    parts: dict[str, Any] = {
        "values": {"a": {"y": 2.0, "x": 1.0}, "b": {"x": 3.0}},
        "errors": {("b", "y"): TaskError("b", window, "no", "y")},
    }
    return KeyedDataSet(window, "key", **{**parts, **changes})


def test_a_keyed_dataset_made_by_hand() -> None:
    dataset = made()
    assert list(dataset["a"].items()) == [("x", 1.0), ("y", 2.0)]
    assert dataset.to_dict() == {"a": {"x": 1.0, "y": 2.0}, "b": {"x": 3.0}}
    assert list(dataset.rows()) == [("x", {"a": 1.0, "b": 3.0}), ("y", {"a": 2.0})]
    assert dataset == made()
    assert dataset != made(errors={})
    assert dataset == {"a": {"x": 1.0, "y": 2.0}, "b": {"x": 3.0}}
    assert dataset.without("b") == made(values={"a": {"x": 1.0, "y": 2.0}}, errors={})
    with pytest.raises(KeyError, match="no task 'c' in KeyedDataSet"):
        dataset.without("c")
    with pytest.raises(KeyError, match="no task 'c' in KeyedDataSet"):
        dataset["c"]
    with pytest.raises(TypeError):
        hash(dataset)


def test_a_task_that_has_no_result_for_any_key() -> None:
    error = TaskError("b", Window(0, 10), "no data")
    dataset = made(values={"a": {"x": 1.0}}, errors={"b": error})
    assert list(dataset) == ["a"]
    with pytest.raises(KeyError) as raised:
        dataset["b"]
    assert raised.value.__cause__ is error


def test_what_people_see() -> None:
    values = {f"k{i:03}": float(i) for i in range(300)}
    dataset = made(values={"a": values}, errors={})
    lines = repr(dataset).splitlines()
    assert lines[0] == "KeyedDataSet [0, 10) of 1 tasks for 300 keys"
    assert lines[1] == "  'k000'  a=0.0"
    assert lines[-1] == "  and 290 more"
    assert repr(dataset["a"]).endswith("'k009': 9.0, and 290 more})")
    html = html_of(dataset)
    assert html.count("<tr>") == 102
    assert "and 200 more" in html
    assert "no" in html_of(made())


def test_a_notebook_leaves_out_no_key_that_fails_for_the_sake_of_others() -> None:
    values = {f"k{i:03}": float(i) for i in range(300) if i not in (207, 250)}
    errors = {("a", key): TaskError("a", Window(0, 10), "hot", key) for key in ("k250", "k207")}
    html = html_of(made(values={"a": values}, errors=errors))
    assert "of 1 tasks for 300 keys, 2 errors" in html
    shown = re.findall(r">(k\d+)<", html)
    assert shown == ["k207", "k250", *(f"k{i:03}" for i in range(98))]
    assert html.count("for &#x27;k2") == 2


def html_of(dataset: Any) -> str:
    html: str = dataset._repr_html_()
    return html


# Several inputs.


def quotes_of() -> TimeSeries:
    return TimeSeries({"symbol": str, "bid": float}, TimeUnit.MILLIS, key="symbol")


@by_executor
@settings(max_examples=examples(30), deadline=None)
@given(
    traded=st.lists(st.tuples(st.integers(0, 39), st.sampled_from("ABC")), max_size=12),
    quoted=st.lists(st.tuples(st.integers(0, 39_999), st.sampled_from("BCD")), max_size=12),
    empty=st.sampled_from([Empty.SKIP, Empty.RUN]),
)
def test_of_several_inputs_each_key_gets_its_part(
    executor: Any,
    traded: list[tuple[int, str]],
    quoted: list[tuple[int, str]],
    empty: Empty,
) -> None:
    @task
    def seen(views: Any, start: int, end: int) -> tuple[list[int], list[int], int, str]:
        trades_view, quotes_view, everything, word = views
        times: list[int] = trades_view.in_window.time.tolist()
        bids: list[int] = quotes_view.in_window.time.tolist()
        return times, bids, len(everything), word

    @task(state=int)
    def windows(views: Any, start: int, end: int, before: int) -> tuple[int, int]:
        return before + 1, before + 1

    trades_data, quotes_data = trades(), quotes_of()
    plain = TimeSeries({"x": float}, TimeUnit.SECONDS)
    plain.extend([1, 2, 3], x=[1.0, 2.0, 3.0])
    pipeline = Pipeline("p")
    for time, symbol in sorted(traded):
        trades_data.append(time, symbol=symbol, price=1.0)
    for time, symbol in sorted(quoted):
        quotes_data.append(time, symbol=symbol, bid=1.0)
    data = (trades_data, quotes_data, plain, RwLock("word"))
    config = RunnerConfig(executor=executor, empty=empty)
    tasks: list[Any] = [seen, windows]
    pipeline.stage("s", tasks, data, "10s", config, by="symbol")
    datasets: dict[int, Any] = {d.window.start: d for _, d in pipeline.replay()}
    known: set[str] = set()
    count: dict[str, int] = {}
    for start in range(0, 40, 10):
        own = {symbol for time, symbol in traded if start <= time < start + 10}
        own |= {symbol for time, symbol in quoted if start * 1000 <= time < (start + 10) * 1000}
        known |= own
        expected = own if empty is Empty.SKIP else known
        if not expected or start not in datasets:
            assert not own
            continue
        found = datasets[start]["seen"]
        assert list(found) == sorted(expected)
        for symbol in expected:
            count[symbol] = count.get(symbol, 0) + 1
            times, bids, everything, word = found[symbol]
            assert times == sorted(
                time for time, each in traded if each == symbol and start <= time < start + 10
            )
            assert bids == sorted(
                time
                for time, each in quoted
                if each == symbol and start * 1000 <= time < (start + 10) * 1000
            )
            assert (everything, word) == (3, "word")
            assert datasets[start]["windows"][symbol] == count[symbol]
