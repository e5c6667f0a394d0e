"""Tasks that hang, return late, or run beside each other: the threads executor at work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from tests.support.bench import SECOND, RunnerBench
from tests.support.threads import PATIENCE, eventually

from run_task import (
    ShutdownTimeout,
    StatefulTask,
    Task,
    TaskError,
    TaskTimeout,
    TimeSeries,
    TimeUnit,
    aggregates,
)
from run_task.executors import _outcomes
from run_task.executors.threads import _crew, _shared_tick


class Gate:
    """Something that tasks hang on until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = 0

    def hang(self, data: object, start: int, end: int) -> int:
        self.entered += 1
        assert self.opened.wait(PATIENCE)
        return end

    def raise_late(self, data: object, start: int, end: int) -> int:
        self.hang(data, start, end)
        raise ValueError("late")


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()
    eventually(lambda: not any(t.name.startswith("run-task") for t in threading.enumerate()))


def quick(data: object, start: int, end: int) -> int:
    return end


def bench_of(
    functions: Mapping[str, Callable[[Any, int, int], Any]], **settings: Any
) -> RunnerBench:
    """A runner of functions, by the names of their tasks."""
    return RunnerBench([Task(function, name) for name, function in functions.items()], **settings)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_task_that_hangs_spoils_only_its_own_entry(gate: Gate, workers: int, place: int) -> None:
    names = ["a", "b"]
    names.insert(place, "hangs")
    tasks = {name: gate.hang if name == "hangs" else quick for name in names}
    bench = bench_of(tasks, task_timeout=0.03, workers=workers)
    with bench.runner:
        for end in range(1, 6):
            dataset = bench.next()
            assert dataset.to_dict() == {"a": end, "b": end}
            error = dataset.errors["hangs"]
            assert type(error) is TaskTimeout
            assert error.window == dataset.window
            if end == 1:
                assert "did not return within task_timeout=0.03 s" in str(error)
            else:
                assert error.since == (0, 1)
                assert "still running from the window [1970-01-01T00:00:00Z, " in str(error)
                assert str(error).endswith(str(error.reason))
            with bench.data.write(timeout=PATIENCE):
                pass  # the hung task keeps no lock
        assert gate.entered == 1, "it is not started again while it hangs"
        gate.opened.set()
        eventually(lambda: bench.next().to_dict().get("hangs"))
        dataset = bench.next()
        assert dataset.to_dict() == {"a": dataset.timestamp, "b": dataset.timestamp} | {
            "hangs": dataset.timestamp
        }
        assert not dataset.errors


class Coarse:
    """A clock that stands still while it is not told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        for module in (_outcomes, _crew, _shared_tick):
            monkeypatch.setattr(module, "clock", lambda: self.now)


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_task_that_hangs_after_it_did_well_has_no_result_of_an_earlier_window(
    gate: Gate, workers: int, place: int, coarse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Coarse(monkeypatch) if coarse else None

    def well_at_first(data: object, start: int, end: int) -> int:
        return end if end < 3 else gate.hang(data, start, end)

    names = ["a", "b"]
    names.insert(place, "hangs")
    tasks = {name: well_at_first if name == "hangs" else quick for name in names}
    bench = bench_of(tasks, task_timeout=0.03, workers=workers)
    with bench.runner:
        for end in (1, 2):
            assert bench.next().to_dict() == {"a": end, "b": end, "hangs": end}
        if clock is not None:
            bench.clock.advance(SECOND)
            eventually(lambda: gate.entered)
            clock.now += 1
            dataset = bench.receiver.recv(PATIENCE)
            clock.now += 1
        else:
            dataset = bench.next()
        assert dataset.to_dict() == {"a": 3, "b": 3}
        assert type(dataset.errors["hangs"]) is TaskTimeout
        dataset = bench.next()
        assert dataset.to_dict() == {"a": 4, "b": 4}
        assert "still running from the window [1970-01-01T00:00:02Z, " in str(
            dataset.errors["hangs"]
        )
        assert gate.entered == 1, "it is not started again while it hangs"
        gate.opened.set()
        eventually(lambda: bench.next().to_dict().get("hangs"))
        dataset = bench.next()
        assert dataset["hangs"] == dataset.timestamp


def test_a_task_that_hangs_in_a_shutdown_after_it_did_well_is_named(gate: Gate) -> None:
    def well_at_first(data: object, start: int, end: int) -> int:
        return end if end < 3 else gate.hang(data, start, end)

    bench = bench_of({"a": quick, "hangs": well_at_first, "b": quick}, shutdown_timeout=0.1)
    with pytest.raises(ShutdownTimeout, match="still running: 'hangs'"), bench.runner:
        bench.next()
        bench.next()
        bench.clock.advance(SECOND)
        eventually(lambda: gate.entered)


def test_a_task_that_raises_late_has_timed_out_all_the_same(gate: Gate) -> None:
    bench = bench_of({"late": gate.raise_late, "a": quick}, task_timeout=0.03)
    with bench.runner:
        first = bench.next()
        gate.opened.set()
        eventually(lambda: isinstance(bench.next().errors["late"].__cause__, ValueError))
    assert type(first.errors["late"]) is TaskTimeout
    assert first.to_dict() == {"a": 1}


def test_all_tasks_may_hang(gate: Gate) -> None:
    bench = bench_of({f"hang {i}": gate.hang for i in range(5)} | {"a": quick}, task_timeout=0.02)
    with bench.runner:
        for end in range(1, 4):
            dataset = bench.next()
            assert dataset.to_dict() == {"a": end}
            assert len(dataset.errors) == 5
        assert gate.entered == 5
        gate.opened.set()
        eventually(lambda: not bench.next().errors)


@pytest.mark.parametrize("executor", ["inline", "threads"])
def test_a_result_that_comes_late_is_booked_to_no_window(executor: str) -> None:
    def late(data: object, start: int, end: int) -> int:
        time.sleep(0.03 if end % 2 else 0)
        return end

    bench = bench_of({"late": late, "a": quick}, task_timeout=0.015, executor=executor)
    in_time: list[int] = []
    with bench.runner:
        for end in range(1, 9):
            time.sleep(0.02)  # so that the late one is back, unless the machine is busy
            dataset = bench.next()
            assert dataset.get("a", end) == end
            if "late" in dataset:
                in_time.append(dataset["late"])
                assert dataset["late"] == end
            else:
                assert type(dataset.errors["late"]) is TaskTimeout
    assert in_time
    assert not [end for end in in_time if end % 2]


@pytest.mark.usefixtures("switching")
def test_a_task_on_the_brink_of_its_timeout_is_in_time_or_late_and_never_both() -> None:
    timeout = 0.002

    def brink(data: object, start: int, end: int) -> int:
        until = time.perf_counter() + timeout * (0.9 + 0.02 * (end % 12))
        while time.perf_counter() < until:
            time.sleep(0)
        return end

    bench = bench_of({"before": quick, "brink": brink, "after": quick}, task_timeout=timeout)
    with bench.runner:
        for end in range(1, 120):
            dataset = bench.next()
            assert dataset.timestamp == end
            assert dataset.keys() | dataset.errors.keys() == {"before", "brink", "after"}
            assert not dataset.keys() & dataset.errors.keys()
            # On a busy machine any task may be put aside for as long as the timeout.
            assert set(dataset.values()) <= {end}
            assert {type(error) for error in dataset.errors.values()} <= {TaskTimeout}


def test_slow_tasks_run_beside_each_other_from_the_first_tick_on() -> None:
    meeting = threading.Barrier(3)

    def meet(data: object, start: int, end: int) -> int:
        meeting.wait(PATIENCE)
        return end

    bench = bench_of({f"meet {i}": meet for i in range(3)} | {"a": quick}, workers=3)
    with bench.runner:
        for _ in range(10):
            dataset = bench.next()
            assert not dataset.errors
            assert list(dataset) == ["meet 0", "meet 1", "meet 2", "a"]
            assert set(dataset.values()) == {dataset.timestamp}


def test_no_more_tasks_run_at_once_than_there_are_workers() -> None:
    running = most = 0
    mutex = threading.Lock()

    def count(data: object, start: int, end: int) -> None:
        nonlocal running, most
        with mutex:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with mutex:
            running -= 1

    bench = bench_of({str(i): count for i in range(12)}, workers=2)
    with bench.runner:
        for _ in range(5):
            assert not bench.next().errors
    assert most == 2


def test_what_a_helper_raises_stands_in_the_errors_in_the_order_of_the_tasks() -> None:
    def fail(data: object, start: int, end: int) -> None:
        time.sleep(0.001)
        raise LookupError

    bench = bench_of({f"fail {i}": fail for i in range(10)} | {"a": quick}, workers=3)
    with bench.runner:
        for _ in range(4):
            dataset = bench.next()
            assert list(dataset.errors) == [f"fail {i}" for i in range(10)]
            assert all(type(error) is TaskError for error in dataset.errors.values())
            assert dataset.to_dict() == {"a": dataset.timestamp}


def test_shutdown_gives_up_on_a_task_that_hangs_and_names_it(gate: Gate) -> None:
    bench = bench_of({"a": quick, "hangs": gate.hang}, shutdown_timeout=0.1)
    begun = time.monotonic()
    with pytest.raises(ShutdownTimeout, match="still running: 'hangs'") as caught, bench.runner:
        bench.clock.advance(SECOND)
        eventually(lambda: gate.entered)
    assert time.monotonic() - begun < PATIENCE / 2
    assert caught.value.tasks == ("hangs",)
    # What there is of the window in hand is delivered.
    (dataset,) = bench.receiver
    assert dataset.to_dict() == {"a": 1}
    assert "still running when the runner was shut down" in str(dataset.errors["hangs"])
    assert (bench.runner.stats.ticks, bench.runner.stats.missed) == (1, 0)


def test_shutdown_names_a_task_that_timed_out_long_ago(gate: Gate) -> None:
    bench = bench_of({"hangs": gate.hang}, shutdown_timeout=0.1, task_timeout=0.02)
    with pytest.raises(ShutdownTimeout) as caught, bench.runner:
        bench.next()
        bench.next()
    assert caught.value.tasks == ("hangs",)
    assert list(bench.receiver) == []


def test_shutdown_gives_up_on_an_inline_task_and_loses_its_window(gate: Gate) -> None:
    bench = bench_of({"hangs": gate.hang}, shutdown_timeout=0.05, executor="inline")
    with pytest.raises(ShutdownTimeout) as caught, bench.runner:
        bench.clock.advance(SECOND)
        eventually(lambda: gate.entered)
    assert caught.value.tasks == ("hangs",)
    assert list(bench.receiver) == []
    assert (bench.runner.stats.ticks, bench.runner.stats.missed) == (0, 1)


async def test_an_awaited_runner_gives_up_in_the_same_way(gate: Gate) -> None:
    bench = bench_of({"a": quick, "hangs": gate.hang}, shutdown_timeout=0.1)
    with pytest.raises(ShutdownTimeout):
        async with bench.runner:
            bench.clock.advance(SECOND)
            eventually(lambda: gate.entered)
    assert [dataset.to_dict() async for dataset in bench.receiver] == [{"a": 1}]


@pytest.mark.parametrize("executor", ["inline", "threads"])
def test_an_exception_that_cannot_even_be_printed_stays_where_it_happened(executor: str) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError

    def mute(data: object, start: int, end: int) -> None:
        raise Mute

    bench = bench_of({"mute": mute, "a": quick}, executor=executor)
    with bench.runner:
        for _ in range(2):
            dataset = bench.next()
            assert dataset.to_dict() == {"a": dataset.timestamp}
            assert "Mute, whose own text raises LookupError" in str(dataset.errors["mute"])


@pytest.mark.parametrize("stateful", [False, True])
def test_a_task_that_hangs_is_not_started_again_where_others_come_and_go(
    gate: Gate, *, stateful: bool
) -> None:
    def count(data: object, start: int, end: int, state: int) -> tuple[int, int]:
        return gate.hang(data, start, end), state + 1

    hangs: Any = Task(gate.hang, "hangs")
    if stateful:
        hangs = StatefulTask(count, int, "hangs")
    bench = RunnerBench([hangs, Task(quick, "a")], task_timeout=0.05)
    with bench.runner as runner:
        assert bench.next().errors.keys() == {"hangs"}
        runner.remove("a")
        runner.add(Task(quick, "b"))
        dataset = bench.next()
        assert dataset.to_dict() == {"b": 2}
        error = dataset.errors["hangs"]
        assert isinstance(error, TaskTimeout)
        assert error.since == (0, 1)
        runner.remove("hangs")
        assert bench.next().to_dict() == {"b": 3}
        runner.add(hangs)  # it comes back, and still hangs
        dataset = bench.next()
        assert dataset.to_dict() == {"b": 4}
        assert dataset.errors.keys() == {"hangs"}
        assert gate.entered == 1
        gate.opened.set()
        eventually(lambda: bench.next().to_dict().get("hangs"))


def test_a_task_that_hangs_is_not_started_again_where_aggregates_come_and_go(gate: Gate) -> None:
    hangs = Task(gate.hang, "hangs")
    bench = RunnerBench([hangs], TimeSeries({"price": float}, TimeUnit.SECONDS), task_timeout=0.05)
    with bench.runner as runner:
        assert bench.next().errors.keys() == {"hangs"}
        runner.add(aggregates.count())
        assert bench.next().errors.keys() == {"hangs"}
        runner.remove("hangs")
        assert bench.next().to_dict() == {"count": 0}
        runner.add(hangs)
        assert bench.next().errors.keys() == {"hangs"}
        runner.remove("count")
        assert bench.next().errors.keys() == {"hangs"}
        assert gate.entered == 1
        gate.opened.set()


def test_a_task_that_hangs_where_others_come_is_named_once_by_a_shutdown(gate: Gate) -> None:
    bench = RunnerBench([Task(gate.hang, "hangs")], task_timeout=0.05, shutdown_timeout=0.2)
    bench.runner.start()
    assert bench.next().errors.keys() == {"hangs"}
    bench.runner.add(Task(quick, "a"))
    assert bench.next().to_dict() == {"a": 2}
    bench.runner.shutdown()
    with pytest.raises(ShutdownTimeout, match=r"still running: 'hangs'$"):
        bench.runner.join()
