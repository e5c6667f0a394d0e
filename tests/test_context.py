from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from run_task import (
    ConfigError,
    Context,
    ContextBuilder,
    DataSet,
    Receiver,
    Runnable,
    RunnerConfig,
    RwLock,
    Sender,
    Task,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    channel,
    task,
)


@task
def total(data: list[int], start: int, end: int) -> int:
    return sum(data)


@task
def largest(data: list[int], start: int, end: int) -> int:
    return max(data)


def build(*tasks: Any, **settings: Any) -> Context[Any, Any]:
    ends: tuple[Sender[DataSet[Any]], Receiver[DataSet[Any]]] = channel(1)
    arguments: dict[str, Any] = {
        "data": RwLock([1]),
        "interval": TaskInterval.seconds(5),
        "sender": ends[0],
        **settings,
    }
    return Context(tasks=list(tasks), **arguments)


def test_only_a_task_is_required() -> None:
    context, receiver, data = ContextBuilder(lambda: [1, 2]).with_task(total).build()
    assert context.interval == TaskInterval.seconds(5)
    assert context.config == RunnerConfig()
    assert context.tasks == (total,)
    with data.read() as value:
        assert value == [1, 2]
    assert len(receiver) == 0


def test_says_all_that_is_said() -> None:
    data = RwLock([1])
    config = RunnerConfig(channel_capacity=1)
    context, _, same = (
        ContextBuilder(list[int])
        .with_data(data)
        .with_tasks([total, largest])
        .with_interval(TaskInterval.millis(10))
        .with_config(config)
        .build()
    )
    assert context.data is same is data
    assert context.tasks == (total, largest)
    assert context.interval == TaskInterval.millis(10)
    assert context.config is config


def test_each_step_leaves_the_one_before_as_it_was() -> None:
    base = ContextBuilder(list[int])
    one = base.with_task(total)
    two = one.with_task(largest)
    assert len(list(one.build()[0].tasks)) == 1
    assert len(list(two.build()[0].tasks)) == 2
    assert one.build()[2] is not one.build()[2], "each context has data of its own"
    with pytest.raises(ConfigError):
        base.build()


class Nameless:
    name: str | None = None

    def run(self, data: list[int], start: int, end: int) -> int:
        return 0


class Waits:
    name = "waits"

    async def run(self, data: list[int], start: int, end: int) -> int:
        return 0


class Runless:
    name = "runless"

    def __repr__(self) -> str:
        return "Runless()"


@pytest.mark.parametrize(
    ("tasks", "culprit", "cure"),
    [
        ((), "no tasks", "at least one"),
        ((total, largest, total), "two tasks are called 'total'", "rename"),
        ((Runless(),), r"Runless\(\) is no task", "@task"),
        ((print,), "is no task", "@task"),
        ((Nameless(),), "has no name", "a text"),
        ((Nameless,), "is a class", r"Nameless\(\)"),
        ((Waits(),), "'waits' is async", "plain function"),
    ],
)
def test_refuses_tasks_that_cannot_work(tasks: Any, culprit: str, cure: str) -> None:
    with pytest.raises(ConfigError, match=culprit) as caught:
        build(*tasks)
    with pytest.raises(ConfigError, match=cure):
        raise caught.value
    builder: Any = ContextBuilder(list[int])
    with pytest.raises(ConfigError, match=culprit):
        builder.with_tasks(tasks).build()


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [
        ({"data": [1]}, "has no read"),
        ({"interval": 5}, "TaskInterval"),
        ({"sender": None}, "has no send"),
        ({"config": RunnerConfig(window=TaskInterval.seconds(4))}, "shorter than the interval"),
        ({"config": RunnerConfig(window=TaskInterval.millis(5_500))}, "no whole number of seconds"),
        ({"config": None}, "RunnerConfig"),
    ],
)
def test_refuses_settings_that_cannot_work(settings: dict[str, Any], culprit: str) -> None:
    with pytest.raises(ConfigError, match=culprit):
        build(total, **settings)


def test_the_builder_refuses_data_where_it_wants_a_way_to_make_it() -> None:
    data: Any = [1, 2]
    with pytest.raises(ConfigError, match="with_data"):
        ContextBuilder(data)


def test_tasks_may_come_from_any_iterable() -> None:
    def made() -> Any:
        yield total
        yield largest

    tasks: list[Runnable[list[int], int]] = [total, largest]
    assert build(*made()).tasks == build(*tasks).tasks == (total, largest)


def test_data_that_keeps_less_than_a_window_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    @task
    def rows(data: TimeSeriesView, start: int, end: int) -> int:
        return len(data)

    series = TimeSeries({"v": float}, TimeUnit.SECONDS, retention=TaskInterval.minutes(1))
    builder = ContextBuilder(TimeSeriesView).with_data(series).with_task(rows)
    builder.with_config(RunnerConfig(window=TaskInterval.minutes(1))).build()
    assert not caplog.records
    builder.with_config(RunnerConfig(name="long", window=TaskInterval.minutes(2))).build()
    assert "long: its windows reach back 2m, its data keeps rows for 1m" in caplog.text


def test_data_in_another_unit_than_the_interval_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @task
    def rows(data: TimeSeriesView, start: int, end: int) -> int:
        return len(data.between(start, end))

    builder = ContextBuilder(TimeSeriesView).with_data(TimeSeries({"v": float})).with_task(rows)
    builder.with_interval(TaskInterval.millis(1000)).build()
    assert not caplog.records
    builder.with_interval(TaskInterval.seconds(1)).build()
    assert "runner: its interval is in seconds, its data in millis" in caplog.text
    assert "with TaskInterval.millis(...) they are in one unit" in caplog.text


def test_one_task_in_the_place_of_a_list_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tasks=<Task 'total'>: give a list of tasks"):
        ContextBuilder(list[int]).with_tasks(total)  # type: ignore[arg-type]  # pyright: ignore


def test_a_task_that_takes_other_parameters_is_refused() -> None:
    def too_few(data: Any) -> int:
        return 1

    def too_many(data: Any, start: int, end: int, more: int) -> int:
        return 1

    refused: list[tuple[Callable[..., int], str]] = [
        (too_few, "too many positional arguments"),
        (too_many, "missing a required argument: 'more'"),
    ]
    for function, why in refused:
        message = rf"task 'odd' cannot be called with \(data, start, end\): {why}.*three parameters"
        with pytest.raises(ConfigError, match=message):
            ContextBuilder(list[int]).with_task(Task(function, "odd")).build()


def test_a_wrapper_is_called_with_its_own_parameters() -> None:
    def of_values(function: Callable[[list[int]], float]) -> Callable[[list[int], int, int], float]:
        @functools.wraps(function)
        def run(data: list[int], start: int, end: int) -> float:
            return function(data)

        return run

    @task
    @of_values
    def wrapped(data: list[int]) -> float:
        return 1.0

    ContextBuilder(list[int]).with_task(wrapped).build()
    ContextBuilder(list[int]).with_task(Task(max, "of C")).build()


def test_a_view_that_no_series_is_behind_says_so() -> None:
    with pytest.raises(KeyError, match=r"'price': this view is of no TimeSeries.*with_data"):
        TimeSeriesView()["price"]
