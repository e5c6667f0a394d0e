from __future__ import annotations

import pickle
from typing import Any

import pytest

from run_task import DataSet, Task, TaskError, TaskTimeout, Window

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


def test_insert_and_take(dataset: DataSet[float]) -> None:
    values = {"a": 1.0}
    own = DataSet(WINDOW, values)
    own.insert("b", 2.0)
    own.insert("a", 3.0)
    assert own.to_dict() == {"a": 3.0, "b": 2.0}
    assert own.take("a") == 3.0
    assert list(own) == ["b"]
    assert values == {"a": 1.0}, "the caller's dict is the caller's"
    with pytest.raises(KeyError):
        own.take("a")
    copy = dataset.to_dict()
    copy.clear()
    assert len(dataset) == 2


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


@pytest.mark.parametrize("error", [TaskError("a", WINDOW), TaskTimeout("a", WINDOW, "too slow")])
def test_errors_can_be_pickled(error: TaskError) -> None:
    again: Any = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert (again.task, again.window) == ("a", WINDOW)


def test_tasks_began_one_after_the_other_unless_it_is_said() -> None:
    durations = {"mean": 0.25, "max": 0.5, "min": 1.0}
    dataset: DataSet[float] = DataSet(WINDOW, durations=durations)
    assert dataset.starts == {"mean": 0.0, "max": 0.25, "min": 0.75}
    starts = {"mean": 0.0, "max": 0.0, "min": 0.5}
    beside: DataSet[float] = DataSet(WINDOW, durations=durations, starts=starts)
    assert beside.starts["min"] == 0.5
    assert pickle.loads(pickle.dumps(beside)).starts == beside.starts
