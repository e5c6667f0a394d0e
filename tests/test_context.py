from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from run_task import (
    Atom,
    ConfigError,
    Context,
    ContextBuilder,
    DataSet,
    Overflow,
    Pipeline,
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
    Window,
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
    config = RunnerConfig(workers=1)
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


class AwaitsWhenCalled:
    async def __call__(self, data: list[int], start: int, end: int) -> int:
        return 0


class GeneratesWhenCalled:
    def __call__(self, data: list[int], start: int, end: int) -> Any:
        yield 0


def generates(data: list[int], start: int, end: int) -> Any:
    yield 0


async def generates_asynchronously(data: list[int], start: int, end: int) -> Any:
    yield 0


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
        ((Task(AwaitsWhenCalled(), "called"),), "'called' is async", "plain function"),
        ((task(generates),), "'generates' is a generator function", "as a list"),
        ((Task(functools.partial(generates), "part"),), "'part' is a generator", "as a list"),
        ((task(generates_asynchronously),), "is a generator function", "as a list"),
        ((Task(GeneratesWhenCalled(), "object"),), "'object' is a generator", "as a list"),
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


def test_the_builder_takes_the_data_itself() -> None:
    lock, atom, series = RwLock([1]), Atom((1,)), TimeSeries({"v": float})

    @task
    def count(data: Any, start: int, end: int) -> int:
        return len(data)

    for shared in (lock, atom, series):
        given: Any = shared
        for builder in (ContextBuilder(given), ContextBuilder(data=given)):
            context, _, data = builder.with_task(count).build()
            assert context.data is data is shared
    other = RwLock([2])
    assert ContextBuilder(lock).with_data(other).with_task(count).build()[2] is other


def test_the_builder_takes_what_makes_the_data() -> None:
    made = ContextBuilder(lambda: RwLock([1])).with_task(total)
    one, another = made.build()[2], made.build()[2]
    assert isinstance(one, RwLock)
    assert one is not another
    with one.read() as value:
        assert value == [1]

    @task
    def rows(data: TimeSeriesView, start: int, end: int) -> int:
        return len(data)

    series = ContextBuilder(lambda: TimeSeries({"v": float})).with_task(rows).build()[2]
    assert isinstance(series, TimeSeries)

    class Own(RwLock[list[int]]):  # a type of shared data is called, as other types are
        def __init__(self) -> None:
            super().__init__([3])

    assert isinstance(ContextBuilder(Own).with_task(total).build()[2], Own)


def test_what_cannot_be_called_to_make_the_data_is_refused() -> None:
    def needs(more: int) -> list[int]:
        return [more]

    make: Any = needs
    with pytest.raises(ConfigError, match=r"ContextBuilder\(needs\): .*'more'.*the data itself"):
        ContextBuilder(make).with_task(total).build()
    context, _, _ = ContextBuilder(make).with_data(RwLock([1])).with_task(total).build()
    assert context.tasks == (total,)  # it was not needed


def test_the_channel_is_as_large_as_was_said() -> None:
    base = ContextBuilder(list[int]).with_task(total)
    assert "/1024 items" in repr(base.build()[1])
    assert "/3 items" in repr(base.with_channel(capacity=3).build()[1])
    for capacity, overflow in ((0, Overflow.BLOCK), (1.5, Overflow.BLOCK), (1, "block")):
        wrong: Any = (capacity, overflow)
        with pytest.raises(ConfigError):
            base.with_channel(*wrong).build()


def test_the_config_may_still_say_it_of_the_channel() -> None:
    base = ContextBuilder(list[int]).with_task(total)
    with pytest.warns(DeprecationWarning, match="with_channel"):
        config = RunnerConfig(channel_capacity=3, overflow=Overflow.DROP_OLDEST)
    builder = base.with_config(config)
    context, receiver, _ = builder.build()
    assert "/3 items" in repr(receiver)
    for number in range(5):
        context.sender.send(DataSet(Window(number, number + 1), {"total": 0}))
    assert receiver.dropped == 2
    with pytest.raises(ConfigError, match=r"channel_capacity=3.*with_channel\(\) say two things"):
        builder.with_channel(4).build()


def test_a_window_of_the_intervals_length_in_a_smaller_unit_is_long_enough() -> None:
    config = RunnerConfig(window=TaskInterval.seconds(60))
    assert build(total, interval=TaskInterval.minutes(1), config=config).config is config


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
    builder = ContextBuilder(series).with_task(rows)
    builder.with_config(RunnerConfig(window=TaskInterval.minutes(1))).build()
    assert not caplog.records
    builder.with_config(RunnerConfig(name="long", window=TaskInterval.minutes(2))).build()
    assert "long: its windows reach back 2m, its data keeps rows for 1m" in caplog.text


def test_an_interval_in_another_unit_than_the_data_is_refused() -> None:
    @task
    def rows(data: TimeSeriesView, start: int, end: int) -> int:
        return len(data.between(start, end))

    builder = ContextBuilder(TimeSeries({"v": float})).with_task(rows)
    context, _, _ = builder.with_interval(TaskInterval.millis(1000)).build()
    assert context.interval == TaskInterval.millis(1000)
    with pytest.raises(ConfigError, match=r"in seconds, and the data in millis.*write '1s'.*1000"):
        builder.with_interval(TaskInterval.seconds(1)).build()
    with pytest.raises(ConfigError, match=r"no whole number of millis.*TimeUnit\.MICROS"):
        builder.with_interval(TaskInterval.micros(1500)).build()


@pytest.mark.parametrize(
    ("given", "unit", "interval"),
    [
        ("1s", TimeUnit.MILLIS, TaskInterval.millis(1000)),
        ("1.5s", TimeUnit.NANOS, TaskInterval.nanos(1_500_000_000)),
        ("1d", TimeUnit.SECONDS, TaskInterval.seconds(86_400)),
        ("1h", TimeUnit.MINUTES, TaskInterval.minutes(60)),
        ("5000ms", TimeUnit.SECONDS, TaskInterval.seconds(5)),
        (timedelta(minutes=5), TimeUnit.MILLIS, TaskInterval.millis(300_000)),
        (timedelta(microseconds=1), TimeUnit.MICROS, TaskInterval.micros(1)),
        (timedelta(days=7), None, TaskInterval.seconds(604_800)),
        ("5m", None, TaskInterval.seconds(300)),
        ("250ms", None, TaskInterval.millis(250)),  # seconds cannot tell it
        (timedelta(microseconds=1500), None, TaskInterval.micros(1500)),
    ],
)
def test_a_text_or_timedelta_takes_the_unit_of_the_data_or_seconds(
    given: str | timedelta, unit: TimeUnit | None, interval: TaskInterval
) -> None:
    @task
    def nothing(data: Any, start: int, end: int) -> None:
        pass

    data: Any = RwLock(0) if unit is None else TimeSeries({"v": float}, unit)
    context, _, _ = ContextBuilder(data).with_task(nothing).with_interval(given).build()
    assert context.interval == interval
    ends: tuple[Sender[DataSet[None]], Receiver[DataSet[None]]] = channel(1)
    context = Context(tasks=[nothing], data=data, interval=given, sender=ends[0])
    assert context.interval == interval
    assert Pipeline().stage("a", [nothing], data, given).interval == interval


def test_the_default_interval_takes_the_unit_of_the_data() -> None:
    @task
    def nothing(data: Any, start: int, end: int) -> None:
        pass

    series = TimeSeries({"v": float}, TimeUnit.NANOS)
    context, _, _ = ContextBuilder(series).with_task(nothing).build()
    assert context.interval == TaskInterval.nanos(5 * 10**9)
    assert Pipeline().stage("a", [nothing], series).interval == context.interval


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("1.5s", r"interval='1.5s': it is no whole number of seconds.*TimeUnit\.MILLIS"),
        (timedelta(milliseconds=1), "no whole number of seconds"),
        ("soon", "interval='soon': cannot read 'soon' as an interval"),
        (timedelta(0), "positive"),
        (timedelta(seconds=-1), "positive"),
        ("0s", "positive"),
        (5, r"interval=5: it is a TaskInterval, such as TaskInterval.seconds\(5\), a timedelta"),
        (5.0, "interval=5.0: it is a TaskInterval"),
        (None, "interval=None: it is a TaskInterval"),
    ],
)
def test_an_interval_that_cannot_be_is_refused_by_a_stage(given: Any, reason: str) -> None:
    @task
    def nothing(data: Any, start: int, end: int) -> None:
        pass

    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    with pytest.raises(ConfigError, match=f"stage 'a': .*{reason}"):
        Pipeline().stage("a", [nothing], series, given)
    with pytest.raises(ConfigError, match=reason):
        ContextBuilder(series).with_task(nothing).with_interval(given).build()


def test_one_task_in_the_place_of_a_list_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tasks=<Task 'total'>: give a list of tasks"):
        ContextBuilder(list[int]).with_tasks(total)  # type: ignore[arg-type]  # pyright: ignore  # it is no Iterable


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


def test_a_view_is_no_data_to_begin_with() -> None:
    @task
    def rows(view: TimeSeriesView, start: int, end: int) -> int:
        return len(view)

    made_of: Any = TimeSeriesView  # a type checker refuses it
    with pytest.raises(ConfigError, match=r"\(TimeSeriesView\): .*give the data itself"):
        ContextBuilder(made_of).with_task(rows).build()
