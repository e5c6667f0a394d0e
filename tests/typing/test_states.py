"""How types flow where tasks have a state, and where they run by key.

The type checkers run over this file in ``make check``. A line that must be an error to them
carries an ignore for each; both report an ignore that is not needed.
"""

from __future__ import annotations

from typing import Any, NamedTuple, assert_type

from run_task import (
    ContextBuilder,
    Keyed,
    KeyedDataSet,
    KeyedStage,
    Pipeline,
    Receiver,
    RwLock,
    Stage,
    StatefulTask,
    Task,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.sinks import CallbackSink
from run_task.testing import run_windows


class Ema(NamedTuple):
    value: float = 0.0


@task(state=Ema)
def ema(view: TimeSeriesView, start: int, end: int, state: Ema) -> tuple[float, Ema]:
    value = state.value + float(view.in_window["price"].sum())
    return value, Ema(value)


@task(state=bool)
def rising(view: TimeSeriesView, start: int, end: int, state: bool) -> tuple[bool, bool]:
    return state, not state


@task
def count(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


def trades() -> TimeSeries:
    series = TimeSeries({"symbol": str, "price": float}, TimeUnit.SECONDS, key="symbol")
    series.extend([1, 2], symbol=["A", "B"], price=[1.0, 2.0])
    return series


def test_a_task_with_a_state_has_the_type_of_its_result() -> None:
    assert_type(ema, StatefulTask[TimeSeriesView, float, Ema])
    context, _, _ = ContextBuilder(trades()).with_task(ema).with_interval("10s").build()
    (dataset,) = run_windows(context, 1)
    assert_type(dataset[ema], float)
    assert dataset[ema] == 3.0


def test_tasks_with_states_of_any_type_and_without_stand_in_one_list() -> None:
    pipeline, series = Pipeline("p"), trades()
    mixed: KeyedStage[TimeSeriesView, float] = pipeline.stage(
        "mixed", [count, ema, rising], series, "10s", by="symbol"
    )
    stateful: Stage[TimeSeriesView, float] = pipeline.stage("two", [ema, rising], series, "10s")
    for stage, names in (mixed, ["count", "ema", "rising"]), (stateful, ["ema", "rising"]):
        assert [task.name for task in stage.tasks] == names


def test_what_the_state_is_and_what_is_returned_have_to_fit() -> None:
    def wrong_state(view: Any, start: int, end: int, state: str) -> tuple[float, str]:
        return 0.0, state

    def no_state(view: Any, start: int, end: int, state: Ema) -> float:
        return 0.0

    task(state=Ema)(wrong_state)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    task(state=Ema)(no_state)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_results_by_key_are_keyed() -> None:
    builder = ContextBuilder(trades()).with_task(ema).with_task(count).with_key("symbol")
    context, receiver, _ = builder.with_interval("10s").build()
    assert_type(receiver, Receiver[KeyedDataSet[Any, float | int]])
    (dataset,) = run_windows(context, 1)
    assert_type(dataset[ema], Keyed[Any, float])
    assert_type(dataset[count], Keyed[Any, int])
    assert_type(dataset["count"], Keyed[Any, float | int])
    assert dataset[count] == {"A": 1, "B": 1}


def test_a_stage_by_key_is_one() -> None:
    pipeline = Pipeline("p")
    series = trades()
    plain = pipeline.stage("plain", [count], series, "10s")
    keyed = pipeline.stage("keyed", [count], series, "10s", by="symbol")
    assert_type(plain, Stage[TimeSeriesView, int])
    assert_type(keyed, KeyedStage[TimeSeriesView, int])

    noted: list[int] = []

    def note(stage: str, dataset: KeyedDataSet[str, int]) -> None:
        noted.extend(dataset[count].values())

    keyed.sink(CallbackSink(note))
    (dataset,) = pipeline.replay().of(keyed)
    assert_type(dataset, KeyedDataSet[Any, int])
    assert_type(dataset[count], Keyed[Any, int])
    assert dataset[count] == {"A": 1, "B": 1}
    assert noted == [1, 1]
    assert_type(keyed.series(), TimeSeries)
    assert isinstance(count, Task)


def test_of_several_inputs_by_key_tasks_get_a_tuple() -> None:
    @task
    def of_both(views: tuple[TimeSeriesView, str], start: int, end: int) -> str:
        return f"{views[0].key} {views[1]}"

    stage = Pipeline("p").stage("s", [of_both], (trades(), RwLock("a")), "10s", by="symbol")
    assert_type(stage, KeyedStage[tuple[TimeSeriesView, str], str])
