"""Tasks with a state, which goes on from window to window."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import stateful
from tests.support.proof import examples
from tests.support.stateful import (
    Ema,
    Locked,
    Own,
    Seen,
    careless,
    ema,
    forgetful,
    gathering,
    locked,
    own,
    same,
    seen,
    slow_once,
    waits,
    windows,
)
from tests.support.threads import PATIENCE

from run_task import (
    ConfigError,
    ContextBuilder,
    Pipeline,
    Runner,
    RunnerConfig,
    RunTaskError,
    StatefulTask,
    TaskTimeout,
    TimeSeries,
    TimeUnit,
    Window,
    task,
)
from run_task.sinks import JsonLinesSink
from run_task.tasks._state_bytes import StateBytes, to_send
from run_task.testing import run_windows

by_executor = pytest.mark.parametrize("executor", ["inline", "threads", "processes"])


def trades() -> TimeSeries:
    return TimeSeries({"symbol": str, "price": float}, TimeUnit.SECONDS, key="symbol")


def run(
    tasks: Sequence[Any],
    rows: Sequence[Sequence[tuple[str, float]]],
    executor: Any,
    *,
    by: bool = False,
    states: dict[str, Any] | None = None,
    key_idle: str = "1h",
    **config: Any,
) -> list[Any]:
    """What comes of windows of ten seconds, with these rows in each."""
    series = trades()
    builder: Any = ContextBuilder(series).with_tasks(tasks).with_interval("10s")
    builder = builder.with_config(RunnerConfig(executor=executor, workers=2, **config))
    if by:
        builder = builder.with_key("symbol", key_idle=key_idle)
    context, _, _ = builder.build()

    def enter(window: Window) -> None:
        for symbol, price in rows[window.start // 10]:
            series.append(window.start + 1, symbol=symbol, price=price)

    windows_run: Callable[..., list[Any]] = run_windows
    return windows_run(context, len(rows), before=enter, states=states, timeout=PATIENCE)


def prices(*of_windows: float) -> list[list[tuple[str, float]]]:
    return [[("A", price)] for price in of_windows]


@by_executor
def test_the_state_goes_on_from_window_to_window(executor: Any) -> None:
    states: dict[str, Any] = {}
    datasets = run(stateful.ALL, prices(1.0, 2.0, 4.0), executor, states=states)
    assert [dataset[ema] for dataset in datasets] == [1.0, 1.5, 2.75]
    assert [dataset["windows"] for dataset in datasets] == [1, 2, 3]
    assert [dataset[seen] for dataset in datasets] == [[1.0], [1.0, 2.0], [1.0, 2.0, 4.0]]
    assert [dataset[same] for dataset in datasets] == ["as it was"] * 3
    assert states == {
        "ema": Ema(2.75, 3),
        "windows": 3,
        "same": "as it was",
        "seen": Seen([1.0, 2.0, 4.0]),
    }


@by_executor
def test_a_window_in_which_a_task_fails_leaves_its_state_as_it_was(executor: Any) -> None:
    datasets = run(stateful.ALL, prices(1.0, -1.0, 3.0), executor)
    assert datasets[1].errors.keys() == {"ema", "seen"}
    assert datasets[1]["windows"] == 2
    assert datasets[2][ema] == 2.0
    assert datasets[2][seen] == [1.0, 3.0]


@by_executor
def test_a_task_that_fails_in_the_first_window_begins_with_its_first_state(executor: Any) -> None:
    datasets = run([ema, seen], prices(-1.0, 2.0), executor)
    assert datasets[1].to_dict() == {"ema": 2.0, "seen": [2.0]}


@by_executor
def test_a_result_that_comes_too_late_leaves_the_state_as_it_was(executor: Any) -> None:
    datasets = run([slow_once], prices(1.0, 1.0), executor, task_timeout=0.25)
    assert datasets[0]["slow_once"] == 1
    assert isinstance(datasets[1].errors["slow_once"], TaskTimeout)


@by_executor
def test_states_are_taken_and_given(executor: Any) -> None:
    states: dict[str, Any] = {"ema": Ema(8.0, 5)}
    (dataset,) = run([ema], prices(4.0), executor, states=states)
    assert dataset[ema] == 6.0
    assert states == {"ema": Ema(6.0, 6)}
    (dataset,) = run([ema], prices(4.0), executor, states=states)
    assert states == {"ema": Ema(5.0, 7)}


@by_executor
def test_each_key_has_a_state_of_its_own(executor: Any) -> None:
    rows = [[("A", 1.0), ("B", 10.0)], [("B", -1.0), ("A", 3.0)], [("B", 20.0)]]
    states: dict[str, Any] = {}
    datasets = run([ema, seen], rows, executor, by=True, states=states)
    assert [dict(dataset[ema]) for dataset in datasets] == [
        {"A": 1.0, "B": 10.0},
        {"A": 2.0},
        {"B": 15.0},
    ]
    assert [dict(dataset[seen]) for dataset in datasets] == [
        {"A": [1.0], "B": [10.0]},
        {"A": [1.0, 3.0]},
        {"B": [10.0, 20.0]},
    ]
    assert states["ema"] == {"A": Ema(2.0, 2), "B": Ema(15.0, 2)}
    (dataset,) = run([ema], [[("A", 4.0)]], executor, by=True, states={"ema": states["ema"]})
    assert dataset[ema] == {"A": 3.0}


@by_executor
def test_a_key_that_was_idle_begins_anew(executor: Any) -> None:
    rows: list[list[tuple[str, float]]] = [[("A", 1.0), ("B", 1.0)], [("B", 1.0)], [], []]
    rows += [[("A", 1.0), ("B", 1.0)]]
    states: dict[str, Any] = {}
    datasets = run([stateful.windows], rows, executor, by=True, states=states, key_idle="35s")
    # Up to the rows of 41 s, A had none since 1 s, and B since 11 s.
    assert datasets[-1]["windows"] == {"A": 1, "B": 3}
    assert states["windows"] == {"A": 1, "B": 3}


@by_executor
def test_a_key_with_a_row_in_each_window_is_never_idle(executor: Any) -> None:
    rows: list[list[tuple[str, float]]] = [[("A", 1.0)], [("A", 1.0)], [("A", 1.0)]]
    # A window ends 19 s after the last row of the one before, and 9 s after its own.
    datasets = run([stateful.windows], rows, executor, by=True, key_idle="12s")
    assert datasets[-1]["windows"] == {"A": 3}
    datasets = run([stateful.windows], rows, executor, by=True, key_idle="9s")
    assert datasets[-1]["windows"] == {"A": 1}


Rows = list[list[tuple[str, float]]]


@by_executor
@settings(max_examples=examples(40), deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("ABC"), st.integers(-1, 9).map(float)), max_size=5),
        min_size=1,
        max_size=8,
    )
)
def test_it_is_as_a_loop_over_dicts(executor: Any, rows: Rows) -> None:
    states: dict[str, Any] = {}
    datasets = {
        dataset.window.start: dataset
        for dataset in run([ema, seen], rows, executor, by=True, states=states, key_idle="25s")
    }
    emas: dict[str, Ema] = {}
    all_seen: dict[str, list[float]] = {}
    last: dict[str, int] = {}
    for number, of_window in enumerate(rows):
        start = number * 10
        if not of_window:
            assert start not in datasets
            continue
        with_rows = {key for key, _ in of_window}
        for key, time in list(last.items()):
            if time >= start + (1 if key in with_rows else 10) - 25:
                continue
            del last[key]
            emas.pop(key, None)
            all_seen.pop(key, None)
        failed: list[str] = []
        for key in sorted({key for key, _ in of_window}):
            own = [price for each, price in of_window if each == key]
            last[key] = start + 1
            if min(own) < 0:
                failed.append(key)
                continue
            before = emas.get(key, Ema())
            value = sum(own) if before.windows == 0 else (before.value + sum(own)) / 2
            emas[key] = Ema(value, before.windows + 1)
            all_seen[key] = [*all_seen.get(key, []), *own]
            assert datasets[start][ema][key] == value
            assert datasets[start][seen][key] == all_seen[key]
        assert set(datasets[start].errors) == {(t, key) for t in ("ema", "seen") for key in failed}
    assert states["ema"] == emas
    assert states["seen"] == {key: Seen(of_key) for key, of_key in all_seen.items()}


# Pipelines.


def pipeline_of(sink: Any = None, *, by: bool = True) -> Pipeline:
    series = trades()
    rows = [(i, {"symbol": "AB"[i % 2], "price": float(i % 7)}) for i in range(60)]
    pipeline = Pipeline("p")
    pipeline.source(rows, into=series)
    declare: Callable[..., Any] = pipeline.stage
    stage = declare("s", [ema], series, "10s", by="symbol" if by else None)
    if sink is not None:
        stage.sink(sink)
    return pipeline


@pytest.mark.parametrize("by", [True, False], ids=["by key", "without keys"])
def test_every_replay_begins_with_the_first_states(by: bool) -> None:
    pipeline = pipeline_of(by=by)
    first, second = list(pipeline.replay()), list(pipeline.replay())
    assert first == second
    assert len(first) == 6


@pytest.mark.parametrize("by", [True, False], ids=["by key", "without keys"])
def test_a_resume_has_the_states_that_an_undisturbed_run_would_have(
    by: bool, tmp_path: Path
) -> None:
    expected = [str(dict(dataset)) for _, dataset in pipeline_of(by=by).replay()]
    sink = JsonLinesSink(tmp_path / "results.jsonl")
    half = pipeline_of(sink, by=by).replay()
    for _ in range(3):
        next(half)
    half.close()
    pipeline = pipeline_of(sink, by=by)
    resumed = [str(dict(dataset)) for _, dataset in pipeline.resume(sink)]
    assert 3 <= len(resumed) < 6
    assert resumed == expected[-len(resumed) :]
    (stage,) = pipeline.stages
    told = stage.states.told(by_key=by)["ema"]
    assert (told["A"].windows if by else told.windows) == 6
    sink.close()


def test_results_of_a_task_with_a_state_become_a_series() -> None:
    pipeline = pipeline_of()
    (stage,) = pipeline.stages
    assert stage.series().columns["ema"].kind == "f"


# What is refused.


@by_executor
def test_a_state_that_can_be_changed_in_place_is_refused_by_name(executor: Any) -> None:
    (dataset,) = run([careless], prices(1.0), executor)
    assert "its state is Seen(prices=[]), and states like it can be changed in place" in str(
        dataset.errors["careless"]
    )
    assert "copy=copy.deepcopy" in str(dataset.errors["careless"])


@by_executor
def test_what_a_state_holds_is_looked_at_each_time(executor: Any) -> None:
    for dataset in run([gathering], prices(1.0, 2.0), executor):
        assert "its state is ([" in str(dataset.errors["gathering"])
        assert "changed in place" in str(dataset.errors["gathering"])


@by_executor
def test_a_task_that_returns_no_state_is_told_what_to_return(executor: Any) -> None:
    (dataset,) = run([forgetful], prices(1.0), executor)
    assert "it returned 0: a task with a state returns its result and the next state" in str(
        dataset.errors["forgetful"]
    )


def test_a_state_that_cannot_be_sent_is_an_error_of_its_task() -> None:
    first, second = run([locked, ema], prices(1.0, 2.0), "processes")
    for dataset in (first, second):
        assert "cannot be sent" in str(dataset.errors["locked"])
        assert "state of type Locked" in str(dataset.errors["locked"])
    assert second[ema] == 1.5


def test_a_state_of_a_key_that_cannot_be_sent_is_an_error_of_that_key() -> None:
    states: dict[str, Any] = {"locked": {"A": Locked()}}
    rows = [[("A", 1.0), ("B", 2.0)]]
    (dataset,) = run([locked, ema], rows, "processes", by=True, states=states)
    assert dataset[ema] == {"A": 1.0, "B": 2.0}
    assert set(dataset.errors) == {("locked", "A"), ("locked", "B")}
    assert "its state cannot be sent to a worker process" in str(dataset.errors["locked", "A"])
    assert "state of type Locked" in str(dataset.errors["locked", "B"])


@by_executor
@pytest.mark.parametrize("by", [False, True])
def test_a_state_may_keep_itself_as_bytes_of_its_own_making(executor: Any, by: bool) -> None:
    first = {"A": Own(5)} if by else Own(5)
    states: dict[str, Any] = {"own": first}
    datasets = run([own], prices(1.0, -1.0, 1.0), executor, by=by, states=states)
    found: list[Any] = [dataset.get("own", None) for dataset in datasets]
    if by:
        assert [dict(results) for results in found] == [{"A": 6}, {}, {"A": 7}]
        assert states["own"]["A"].count == 7
    else:
        assert found == [6, None, 7]
        assert states["own"].count == 7


def test_an_int_is_sent_as_an_int_though_it_has_these_methods() -> None:
    class Level(enum.IntEnum):
        LOW = 1

    for state in (7, True, Level.LOW, 2**70, 1.5, "x", None, Ema()):
        assert to_send(state) is state


def test_what_makes_no_bytes_of_itself_is_told() -> None:
    class Wrong:
        def to_bytes(self) -> str:
            return "text"

        @classmethod
        def from_bytes(cls, data: bytes) -> int:
            return 1

    with pytest.raises(TypeError, match=r"to_bytes\(\) of .*Wrong returned a str"):
        to_send(Wrong())
    make, arguments = StateBytes(Wrong, b"").__reduce__()
    with pytest.raises(TypeError, match=r"from_bytes\(\) of .*Wrong returned a int"):
        make(*arguments)


def test_a_state_of_a_key_that_cannot_be_loaded_costs_that_key_only() -> None:
    counts = {key: Own(13 if key in "AF" else 1) for key in "ABCDEF"}
    states: dict[str, Any] = {"own": counts, "windows": dict.fromkeys("ABCDEF", 3)}
    # A worker reports every 50 ms what it is done with: F comes in a later report than A.
    rows = [[(key, 1.0) for key in "ABCDEF"]] * 2
    datasets = run([own, waits, windows], rows, "processes", by=True, states=states)
    for number, dataset in enumerate(datasets):
        assert dict(dataset["own"]) == dict.fromkeys("BCDE", 2 + number)
        assert dict(dataset["windows"]) == dict.fromkeys("ABCDEF", 4 + number)
        assert set(dataset.errors) == {("own", "A"), ("own", "F")}
        told = str(dataset.errors["own", "F"])
        assert "its state cannot be loaded in a worker process (ValueError: 13 cannot" in told
    assert states["own"]["F"].count == 13


def test_a_state_that_is_none_is_one_as_any_other() -> None:
    rows = [[("A", 1.0)], [("A", -1.0)], [("A", 1.0)]]
    datasets = run([stateful.none_once], rows, "processes", by=True)
    assert [dict(dataset["none_once"]) for dataset in datasets] == [
        {"A": "first"},
        {},
        {"A": "none"},
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": 0.0}, r"task\(state=0.0\): .* such as lambda: 0.0"),
        ({"state": int, "copy": 1}, r"task\(copy=1\): it is a function that copies"),
        ({"state": int, "version": 1.5}, r"task\(version=1.5\): it is an int or a text"),
        ({"copy": list}, "this is for a task with a state"),
        ({"version": 1.5}, r"task\(version=1.5\): it is an int or a text"),
        ({"state": dict}, r"task\(state=dict\): .* changed in place.* copy=copy.deepcopy"),
        ({"state": np.ndarray}, r"task\(state=ndarray\): .* changed in place"),
        ({"state": Seen}, r"task\(state=Seen\): .* changed in place"),
    ],
    ids=str,
)
def test_what_cannot_be_a_state_is_refused(options: Any, message: str) -> None:
    decorate: Callable[..., Any] = task
    with pytest.raises(ConfigError, match=message):
        decorate(**options)(print)


def test_a_function_without_a_parameter_for_the_state_is_refused() -> None:
    def three(data: Any, start: int, end: int) -> tuple[int, int]:
        return 1, 1

    decorate: Callable[..., Any] = task
    bad = decorate(state=int)(three)
    with pytest.raises(ConfigError, match=r"cannot be called with \(data, start, end, state\)"):
        ContextBuilder(trades()).with_task(bad).with_interval("1s").build()


def test_states_of_no_task_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no task 'emma' has a state: .* are 'ema'"):
        run([ema], prices(1.0), "inline", states={"emma": Ema()})
    with pytest.raises(ConfigError, match="the states of task 'ema' are by key"):
        run([ema], prices(1.0), "inline", by=True, states={"ema": Ema()})


def test_states_are_given_before_a_runner_runs() -> None:
    context, _, _ = ContextBuilder(trades()).with_task(ema).with_interval("10s").build()
    runner = Runner(context)
    with runner, pytest.raises(RunTaskError, match=r"runs: begin_with\(\) is for before that"):
        runner.begin_with({"ema": Ema()})


def test_a_task_with_a_state_stays_callable() -> None:
    assert isinstance(stateful.windows, StatefulTask)
    assert stateful.windows(None, 0, 1, 4) == (5, 5)
    assert stateful.windows.run(None, 0, 1) == 1
    assert stateful.windows.name == "windows"
    assert repr(seen) == "<StatefulTask 'seen'>"
    assert seen.version == 2
