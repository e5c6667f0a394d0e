"""A task that returns the very data that it was given, which goes on changing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from tests.support.bench import RunnerBench

from run_task import (
    Atom,
    DataSet,
    OnError,
    Pipeline,
    RwLock,
    Task,
    TaskError,
    TimeSeries,
    TimeUnit,
)

SECOND = "1s"


def whole(data: Any, start: int, end: int) -> Any:
    return data


def count(data: Any, start: int, end: int) -> int:
    return len(data)


def in_odd_windows(data: Any, start: int, end: int) -> Any:
    return data if end % 2 else dict(data)


class Machine:
    """What may be changed in place, as objects mostly may."""

    def __len__(self) -> int:
        return 1


@dataclass(frozen=True)
class Quote:
    bid: float

    def __len__(self) -> int:
        return 1


def windows(data: Any, *functions: Callable[..., Any], **settings: Any) -> list[DataSet[Any]]:
    bench = RunnerBench(map(Task, functions), data, **settings)
    with bench.runner:
        return [bench.next() for _ in range(6)]


@pytest.mark.parametrize("executor", ["threads", "inline"])
@pytest.mark.parametrize("value", [{"n": 0}, [1], {1}, Machine()])
def test_it_is_an_error_of_that_task_in_every_window(value: Any, executor: Any) -> None:
    for dataset in windows(RwLock(value), count, whole, executor=executor):
        assert dataset.to_dict() == {"count": 1}
        assert list(dataset.errors) == ["whole"]
        error = dataset.errors["whole"]
        assert error.window == dataset.window
        assert f"it returned the data itself, of type {type(value).__name__}" in str(error)
        assert "return a copy" in str(error)
        assert list(dataset.durations) == ["count", "whole"]


def test_it_is_found_in_whichever_window_it_happens() -> None:
    datasets = windows(RwLock({"n": 0}), in_odd_windows, count)
    assert [dataset.timestamp for dataset in datasets if dataset.errors] == [1, 3, 5]
    assert [dataset.get("in_odd_windows") for dataset in datasets] == [None, {"n": 0}] * 3


def test_it_is_found_after_others_have_taken_and_left_the_data() -> None:
    lock = RwLock({"n": 0})
    bench = RunnerBench([Task(in_odd_windows)], lock)
    held: list[Any] = []
    with bench.runner:
        for number in range(1, 9):
            with lock.write() as data:
                held.append(data)
                if number % 3 == 0:
                    held.clear()
                del data
            assert bool(bench.next().errors) is bool(number % 2)


def test_on_error_raise_raises_it() -> None:
    bench = RunnerBench([Task(whole)], RwLock([1]), on_error=OnError.RAISE)
    with pytest.raises(TaskError, match=r"task 'whole'.*the data itself"), bench.runner:
        bench.next()


@pytest.mark.parametrize("value", [(1,), "a", frozenset({1}), Quote(1.0), b"b"])
def test_what_cannot_change_may_be_returned(value: Any) -> None:
    for data in (RwLock(value), Atom(value)):
        for dataset in windows(data, whole, count):
            assert dataset["whole"] is value


def test_an_atom_and_a_view_may_be_returned() -> None:
    for dataset in windows(Atom([1]), whole):
        assert dataset["whole"] == [1]
    series = TimeSeries({"price": float}, TimeUnit.SECONDS)
    for dataset in windows(series, whole):
        assert len(dataset["whole"]) == 0


def test_a_replay_finds_it_too() -> None:
    pipeline = Pipeline("p")
    lock: RwLock[list[int]] = RwLock([])
    pipeline.source(
        [(second, second) for second in range(4)], lock, lambda values, row: values.append(row)
    )
    pipeline.stage("a", [Task(whole), Task(count)], lock, SECOND)
    datasets = [dataset for _, dataset in pipeline.replay()]
    assert len(datasets) == 4
    for dataset in datasets:
        assert list(dataset) == ["count"]
        assert list(dataset.errors) == ["whole"]
