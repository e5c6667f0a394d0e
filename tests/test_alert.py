"""Alerts: a result that changes once a condition has held."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.bench import PipelineBench

from run_task import (
    Alert,
    ConfigError,
    Pipeline,
    RunnerConfig,
    RwLock,
    StatefulTask,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    alert,
    task,
)

SECOND = TaskInterval.seconds(1)


def above(limit: float) -> Callable[[TimeSeriesView, int, int], object]:
    return lambda view, start, end: view.in_window["x"].max() > limit


def below(limit: float) -> Callable[[TimeSeriesView, int, int], object]:
    return lambda view, start, end: view.in_window["x"].max() < limit


def of(values: list[float], made: StatefulTask[Any, Any, Any], **settings: Any) -> list[Alert]:
    """The results for a value a second."""
    series = TimeSeries({"x": float}, TimeUnit.SECONDS)
    series.extend(range(len(values)), x=values)
    pipeline = Pipeline()
    pipeline.stage("a", [made], series, "1s", RunnerConfig(**settings))
    return [dataset[made] for _, dataset in pipeline.replay()]


def test_it_goes_on_once_the_condition_has_held_and_off_once_it_has_not() -> None:
    values = [1.0, 9, 9, 1, 9, 9, 9, 9, 1, 9, 1, 1, 1, 1]
    found = of(values, alert(above(5), hold="2s"))
    assert [one.on for one in found] == [False] * 6 + [True] * 6 + [False] * 2
    assert [one.since for one in found] == [None] * 6 + [7] * 6 + [13, 13]


def test_a_window_is_enough_where_nothing_has_to_hold() -> None:
    found = of([1.0, 9, 1, 9], alert(above(5), hold=None))
    assert found == [(False, None), (True, 2), (False, 3), (True, 4)]


def test_with_two_thresholds_a_value_close_to_one_switches_it_once() -> None:
    flickering = [79.0, 81, 79, 81, 79, 76, 74, 76, 79, 81]
    found = of(flickering, alert(above(80), until=below(75), hold=None))
    assert [one.on for one in found] == [False] + [True] * 5 + [False] * 3 + [True]
    assert {one.since for one in found} == {None, 2, 7, 10}


def test_it_is_true_while_it_is_on() -> None:
    assert Alert(True, 5)
    assert not Alert(False, 5)


@pytest.mark.parametrize("unit", [TimeUnit.NANOS, TimeUnit.MILLIS, TimeUnit.SECONDS])
def test_it_counts_in_the_unit_of_its_windows_whatever_that_is(unit: TimeUnit) -> None:
    second = TimeUnit.SECONDS.nanos // unit.nanos
    series = TimeSeries({"x": float}, unit)
    series.extend([i * second for i in range(6)], x=[9.0] * 6)
    pipeline = Pipeline()
    pipeline.stage("a", [made := alert(above(5), hold="3s")], series, "1s")
    ons = [dataset[made].on for _, dataset in pipeline.replay()]
    assert ons == [False, False, False, True, True, True]


def test_without_a_unit_of_the_data_it_counts_in_that_of_the_interval() -> None:
    made: StatefulTask[list[int], Alert, Any]
    made = alert(lambda values, start, end: len(values) > 0, hold="500ms")
    pipeline = Pipeline()
    data = RwLock[list[int]]([])
    pipeline.source([(i * 250, i) for i in range(5)], data, lambda data, row: data.append(row))
    pipeline.stage("a", [made], data, TaskInterval.millis(250))
    assert [dataset[made].on for _, dataset in pipeline.replay()] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_one_alert_does_not_count_in_two_units() -> None:
    made: StatefulTask[Any, Alert, Any] = alert(lambda values, start, end: True)
    pipeline = Pipeline()
    data = RwLock[list[int]]([])
    pipeline.stage("a", [made], data, SECOND)
    with pytest.raises(ConfigError, match="a task of windows in seconds, and these are in millis"):
        pipeline.stage("b", [made], data, TaskInterval.millis(10))


def test_each_key_has_one_of_its_own() -> None:
    series = TimeSeries({"room": str, "x": float}, TimeUnit.SECONDS, key="room")
    for second in range(5):
        series.append(second, room="hall", x=9.0 if second > 1 else 1.0)
        series.append(second, room="attic", x=1.0)
    pipeline = Pipeline()
    pipeline.stage("a", [made := alert(above(5), hold="1s")], series, "1s", by="room")
    found = [dict(dataset[made]) for _, dataset in pipeline.replay()]
    assert [one["hall"].on for one in found] == [False, False, False, True, True]
    assert not any(one["attic"].on for one in found)


def test_a_window_in_which_a_condition_raises_is_as_one_that_was_not_there() -> None:
    def broken(view: TimeSeriesView, start: int, end: int) -> bool:
        if start == 2:
            raise ValueError("no sensor")
        return True

    series = TimeSeries({"x": float}, TimeUnit.SECONDS)
    series.extend(range(5), x=[9.0] * 5)
    pipeline = Pipeline()
    pipeline.stage("a", [made := alert(broken, hold="3s")], series, "1s")
    assert made.name == "broken"
    datasets = [dataset for _, dataset in pipeline.replay()]
    assert "broken" in datasets[2].errors
    assert [dataset[made].on for dataset in datasets if made.name in dataset] == [
        *(False, False, True, True)
    ]


def test_live_and_replayed_with_any_executor_it_gives_the_same() -> None:
    values = [1.0, 9, 9, 9, 1, 1, 1, 9, 9, 9]
    found = of(values, alert(hot, hold="2s"))
    for executor in ("inline", "threads", "processes"):
        assert of(values, alert(hot, hold="2s"), executor=executor) == found
    bench = PipelineBench([])
    series = TimeSeries({"x": float}, TimeUnit.SECONDS)
    bench.stage("a", series, 1, [made := alert(hot, hold="2s")])
    with bench.pipeline:
        for second, value in enumerate(values):
            series.append(second, x=value)
            bench.clock.advance(SECOND)
            bench.sink.wait_for("a", second + 1)
    assert [dataset[made] for dataset in bench.sink.of("a")] == found


def hot(view: TimeSeriesView, start: int, end: int) -> bool:
    return bool(view.in_window["x"].max() > 5)


def test_a_condition_may_be_a_task_and_is_called_after_it() -> None:
    @task(name="too hot for her")
    def condition(view: TimeSeriesView, start: int, end: int) -> bool:
        return hot(view, start, end)

    assert alert(task(hot)).name == "hot"
    assert alert(condition).name == "alert"
    assert alert(condition, name="too hot").name == "too hot"
    assert alert(lambda view, start, end: True).name == "alert"
    assert [one.on for one in of([9.0, 1.0], alert(condition, hold=None))] == [True, False]


def test_it_can_be_pickled_with_what_it_counts_in() -> None:
    made: Any = alert(hot, hold="2s")
    made.count_in(TimeUnit.MILLIS)
    again = pickle.loads(pickle.dumps(made))
    assert (again.name, again.step.hold, again.step.unit) == ("hot", 2000, TimeUnit.MILLIS)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"when": 5}, r"alert\(when=5\): it is a function of \(data, start, end\), or a task"),
        ({"when": None}, r"alert\(when=None\)"),
        ({"when": lambda: True}, "cannot be called with"),
        ({"when": hot, "until": len}, r"alert\(until=.*cannot be called with"),
        ({"when": hot, "hold": 30}, r"alert\(hold=30\): it is a TaskInterval"),
        ({"when": hot, "hold": "0s"}, "hold="),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        alert(**given)
