from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from run_task import (
    CalendarInterval,
    ConfigError,
    ContextBuilder,
    DataSet,
    Pipeline,
    RunnerConfig,
    RwLock,
    Task,
    TaskError,
    TaskInterval,
    TaskTimeout,
    TimeUnit,
    Window,
)
from run_task.testing import run_windows

WINDOW = Window(10, 20)


def failed() -> TaskError:
    error = TaskError("worst", WINDOW)
    error.__cause__ = ZeroDivisionError("division by zero")
    return error


@pytest.fixture
def dataset() -> DataSet[float]:
    return DataSet(WINDOW, {"mean": 1.5, "max": 2.0}, {"worst": failed()}, {"mean": 0.25})


def test_is_a_mapping_in_the_order_of_the_tasks(dataset: DataSet[float]) -> None:
    assert list(dataset.items()) == [("mean", 1.5), ("max", 2.0)]
    assert dataset["mean"] == 1.5
    assert dataset.get("worst") is None
    assert "max" in dataset
    assert "worst" not in dataset
    assert dataset.timestamp == dataset.window.end == 20
    assert dataset.durations == {"mean": 0.25}


def test_is_looked_up_by_task(dataset: DataSet[float]) -> None:
    def mean(data: object, start: int, end: int) -> float:
        return 0.0

    assert dataset[Task(mean)] == 1.5
    assert Task(mean) in dataset  # type: ignore[comparison-overlap]  # the keys are names
    other = Task(mean, "other")
    with pytest.raises(KeyError, match="no task 'other'"):
        dataset[other]


def test_a_look_up_of_what_failed_says_why(dataset: DataSet[float]) -> None:
    with pytest.raises(KeyError, match="ZeroDivisionError: division by zero") as caught:
        dataset["worst"]
    assert caught.value.__cause__ is dataset.errors["worst"]


def test_with_results_beside_its_own_or_in_their_place_it_is_a_new_one() -> None:
    values = {"a": 1.0}
    own = DataSet(WINDOW, values)
    other = own.with_(b=2.0, a=3.0)
    assert other.to_dict() == {"a": 3.0, "b": 2.0}
    assert own.to_dict() == values == {"a": 1.0}
    assert own.with_(**{"a name with spaces": 1.0})["a name with spaces"] == 1.0


def test_a_task_that_is_given_a_result_stands_in_the_errors_no_more(
    dataset: DataSet[float],
) -> None:
    mended = dataset.with_(worst=0.5)
    assert mended["worst"] == 0.5
    assert not mended.errors
    assert dataset.errors.keys() == {"worst"}


def test_without_tasks_it_has_neither_their_results_nor_their_errors(
    dataset: DataSet[float],
) -> None:
    def mean(data: object, start: int, end: int) -> float:
        return 0.0

    rest = dataset.without(Task(mean), "worst")
    assert rest.to_dict() == {"max": 2.0}
    assert not rest.errors
    assert not rest.durations
    assert dataset.keys() | dataset.errors.keys() == {"mean", "max", "worst"}
    with pytest.raises(KeyError, match="no task 'max', 'worst' in"):
        dataset.without("max", "worst").without("max", "mean", "worst")


def test_all_else_about_it_goes_on_into_the_new_one() -> None:
    times = {"a": 1.0, "b": 2.0}
    starts = {"a": 0.5, "b": 0.25}
    one = DataSet(WINDOW, {"a": 1, "b": 2}, {}, times, 0.5, 4.0, ("up",), starts)
    other = one.with_(a=2).without("b")
    assert (other.window, other.lateness, other.took, other.behind) == (WINDOW, 0.5, 4.0, ("up",))
    assert (other.durations, other.starts) == ({"a": 1.0}, {"a": 0.5})


def test_it_cannot_be_changed(dataset: DataSet[float]) -> None:
    anything: Any = dataset
    for name in ("window", "errors", "behind", "took", "durations", "starts", "lateness"):
        with pytest.raises(AttributeError):
            setattr(anything, name, None)
    with pytest.raises(TypeError):
        anything["mean"] = 1.0
    for mapping in (anything.errors, anything.durations, anything.starts):
        with pytest.raises(TypeError):
            mapping["mean"] = 1.0
    for gone in ("insert", "take", "clear", "update", "pop"):
        assert not hasattr(dataset, gone)


def test_what_it_was_made_of_and_what_is_made_of_it_are_the_callers(
    dataset: DataSet[float],
) -> None:
    times = {"mean": 0.25}
    errors = {"worst": failed()}
    own = DataSet(WINDOW, {"mean": 1.5}, errors, times, starts=times)
    times.clear()
    errors.clear()
    assert own.errors.keys() == {"worst"}
    assert own.durations == own.starts == {"mean": 0.25}
    dataset.to_dict().clear()
    assert len(dataset) == 2


def test_it_can_be_pickled_and_copied(dataset: DataSet[float]) -> None:
    for again in (pickle.loads(pickle.dumps(dataset)), copy.copy(dataset), copy.deepcopy(dataset)):
        assert again == dataset
        assert list(again) == list(dataset)
        assert again.errors.keys() == dataset.errors.keys()
        assert (again.durations, again.starts) == (dataset.durations, dataset.starts)


def test_equality_is_of_window_and_results_and_not_of_how_long_it_took() -> None:
    one = DataSet(WINDOW, {"a": 1}, durations={"a": 1.0}, lateness=1.0)
    assert one == DataSet(WINDOW, {"a": 1}, durations={"a": 2.0})
    assert one != DataSet(Window(20, 30), {"a": 1})
    assert one != DataSet(WINDOW, {"a": 2})
    assert one != DataSet(WINDOW, {"a": 1}, {"worst": failed()})
    assert one == {"a": 1}
    assert one != 1
    with pytest.raises(TypeError):
        hash(one)


def test_reads_well(dataset: DataSet[float]) -> None:
    assert str(dataset) == "DataSet [10, 20) of 2 results, failed: worst"
    assert repr(dataset).splitlines() == [
        "DataSet [10, 20)",
        "  mean   1.5",
        "  max    2.0",
        "  worst  ! task 'worst' gave no result for [10, 20): ZeroDivisionError: division by zero",
    ]


@pytest.mark.parametrize(
    "error",
    [
        TaskError("a", WINDOW),
        TaskTimeout("a", WINDOW, "too slow"),
        TaskTimeout("a", WINDOW, since=Window(1, 2)),
    ],
)
def test_errors_can_be_pickled(error: TaskError) -> None:
    again: Any = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_tasks_began_one_after_the_other_unless_it_is_said() -> None:
    durations = {"mean": 0.25, "max": 0.5, "min": 1.0}
    dataset: DataSet[float] = DataSet(WINDOW, durations=durations)
    assert dataset.starts == {"mean": 0.0, "max": 0.25, "min": 0.75}
    starts = {"mean": 0.0, "max": 0.0, "min": 0.5}
    beside: DataSet[float] = DataSet(WINDOW, durations=durations, starts=starts)
    assert beside.starts["min"] == 0.5
    assert pickle.loads(pickle.dumps(beside)).starts == beside.starts


# The times of a window


BERLIN = ZoneInfo("Europe/Berlin")
DAY = CalendarInterval.days(1, zone="Europe/Berlin")


def of_window(start: int, end: int, interval: Any) -> DataSet[int]:
    return DataSet(Window(start, end), {"a": 1}, interval=interval)


@pytest.mark.parametrize("unit", TimeUnit)
def test_its_times_are_datetimes(unit: TimeUnit) -> None:
    minute = 60 * 10**9 // unit.nanos
    first = datetime(2024, 7, 1, 12, tzinfo=UTC)
    start = int(first.timestamp()) * 10**9 // unit.nanos
    dataset = of_window(start, start + minute, TaskInterval(minute, unit))
    assert dataset.start_time == first
    assert dataset.end_time == first + timedelta(minutes=1)
    assert dataset.start_time.tzinfo is UTC
    told = "DataSet [2024-07-01T12:00:00Z, 2024-07-01T12:01:00Z)"
    assert str(dataset) == f"{told} of 1 results"
    assert repr(dataset).startswith(told)
    html: Any = dataset
    assert told in html._repr_html_()
    for other in (pickle.loads(pickle.dumps(dataset)), dataset.with_(b=2), dataset.without("a")):
        assert other.start_time == first
    assert (dataset.timestamp, dataset.window) == (start + minute, (start, start + minute))


def test_its_times_are_in_the_zone_of_the_calendar() -> None:
    start = datetime(2024, 3, 31, tzinfo=BERLIN)  # of a day with 23 hours
    end = datetime(2024, 4, 1, tzinfo=BERLIN)
    dataset = of_window(int(start.timestamp()), int(end.timestamp()), DAY)
    assert (dataset.start_time, dataset.end_time) == (start, end)
    assert str(dataset.end_time.tzinfo) == "Europe/Berlin"
    assert "[2024-03-31T00:00:00+01:00, 2024-04-01T00:00:00+02:00)" in str(dataset)


@pytest.mark.parametrize(
    ("nanos", "told"),
    [
        (1, "1970-01-01T00:00:00.000000001Z"),
        (1_500, "1970-01-01T00:00:00.000001500Z"),
        (250_000_000, "1970-01-01T00:00:00.250Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
    ],
)
def test_no_digit_of_a_time_is_lost(nanos: int, told: str) -> None:
    assert f"[{told}, " in str(of_window(nanos, nanos + 1, TaskInterval.nanos(1)))


def test_times_that_no_datetime_can_tell_and_such_as_nobody_knows() -> None:
    far = of_window(10**15, 10**15 + 1, TaskInterval.seconds(1))
    assert str(far).startswith("DataSet [1000000000000000, 1000000000000001)")
    with pytest.raises(OverflowError):
        _ = far.end_time
    plain = DataSet(Window(0, 60), {"a": 1})
    assert plain.interval is None
    assert str(plain).startswith("DataSet [0, 60)")
    with pytest.raises(ConfigError, match="interval="):
        _ = plain.start_time


@pytest.mark.parametrize("executor", ["threads", "inline", "processes"])
def test_results_of_a_runner_and_of_a_replay_know_their_times(executor: Any) -> None:
    noon = datetime(2024, 7, 1, 12, tzinfo=UTC)
    config = RunnerConfig(executor=executor, workers=1)
    context, _, _ = (
        ContextBuilder(RwLock(0))
        .with_tasks([Task(nothing), Task(failing)])
        .with_interval("1m")
        .with_config(config)
        .build()
    )
    (live,) = run_windows(context, 1, start=int(noon.timestamp()))
    pipeline = Pipeline()
    data = RwLock(0)
    pipeline.source([(noon, 1)], data, lambda data, row: None, unit=TimeUnit.SECONDS)
    pipeline.stage("a", [Task(nothing), Task(failing)], data, "1m", config)
    (replayed,) = [dataset for _, dataset in pipeline.replay()]
    for dataset in (live, replayed):
        assert dataset.interval == TaskInterval.seconds(60)
        assert (dataset.start_time, dataset.end_time) == (noon, noon + timedelta(minutes=1))
        assert "no result for [2024-07-01T12:00:00Z, " in str(dataset.errors["failing"])


def nothing(data: Any, start: int, end: int) -> None:
    pass


def failing(data: Any, start: int, end: int) -> None:
    raise ValueError(start)
