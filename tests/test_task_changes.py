"""Tasks that are added and removed while they run."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.bench import SECOND, PipelineBench, RunnerBench
from tests.support.gated import Gated
from tests.support.threads import PATIENCE, eventually, together

from run_task import (
    Closed,
    ConfigError,
    Runnable,
    RunTaskError,
    RwLock,
    Task,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)


@task
def end_of(data: object, start: int, end: int) -> int:
    return end


@task
def length(data: object, start: int, end: int) -> int:
    return end - start


@task
async def awaits(data: object, start: int, end: int) -> int:
    return end


@task(state=lambda: 0)
def ticks(data: object, start: int, end: int, state: int) -> tuple[int, int]:
    return state + 1, state + 1


def constant(name: str, value: int) -> Task[object, int]:
    def give(data: object, start: int, end: int) -> int:
        return value

    return task(name=name)(give)


def of_one(data: object) -> object:
    return data


def threads_of(name: str) -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(f"run-task {name}")]


# A runner


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_a_task_is_run_from_the_next_window_on_and_not_after_it_is_removed(executor: str) -> None:
    bench = RunnerBench([end_of], executor=executor, workers=2, name="changed")
    with bench.runner as runner:
        assert dict(bench.next()) == {"end_of": 1}
        runner.add(length)
        assert dict(bench.next()) == {"end_of": 2, "length": 1}
        runner.remove("end_of")
        dataset = bench.next()
        assert (dict(dataset), tuple(dataset.window)) == ({"length": 1}, (2, 3))
        assert not dataset.errors
    stats = runner.stats
    assert [change.what for change in stats.changes] == [
        "task 'length' is added",
        "task 'end_of' is removed",
    ]
    assert (stats.ticks, stats.missed) == (3, 0)
    assert threads_of("changed") == []


def test_several_changes_between_two_windows_are_all_made() -> None:
    bench = RunnerBench([end_of])
    with bench.runner as runner:
        for name in "abc":
            runner.add(constant(name, 0))
        runner.remove("b")
        runner.remove(end_of)  # the task itself will do, too
        assert list(bench.next()) == ["a", "c"]


def test_tasks_are_changed_before_it_is_started() -> None:
    bench = RunnerBench([end_of], executor="processes", workers=1)
    bench.runner.add(length)
    bench.runner.remove("end_of")
    with bench.runner:
        assert dict(bench.next()) == {"length": 1}


def test_of_windows_that_are_due_the_next_has_the_change() -> None:
    slow = Gated(1)
    bench = RunnerBench([slow])
    with bench.runner as runner:
        for _ in range(3):
            bench.clock.advance(SECOND)
        assert slow.entered.wait(PATIENCE)
        runner.add(end_of)
        slow.go_on.set()
        given = [bench.receiver.recv(PATIENCE) for _ in range(3)]
    assert [tuple(dataset.window) for dataset in given] == [(0, 1), (1, 2), (2, 3)]
    assert [list(dataset) for dataset in given] == [["gated"], *[["gated", "end_of"]] * 2]


def test_a_task_that_hangs_is_left_when_it_is_removed() -> None:
    slow = Gated(1)
    bench = RunnerBench([slow, end_of], task_timeout=0.05)
    with bench.runner as runner:
        assert "gated" in bench.next().errors
        assert "gated" in bench.next().errors  # it is still running
        runner.remove("gated")
        dataset = bench.next()
        assert (dict(dataset), dataset.errors) == ({"end_of": 3}, {})
        slow.go_on.set()
    eventually(lambda: not threads_of("runner"))


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_a_state_goes_on_while_others_come_and_goes_with_its_task(executor: str) -> None:
    bench = RunnerBench([ticks, end_of], executor=executor, workers=1)
    with bench.runner as runner:
        assert bench.next()["ticks"] == 1
        runner.add(length)
        assert bench.next()["ticks"] == 2
        runner.remove("ticks")
        assert "ticks" not in bench.next()
        assert runner.states == {}
        runner.add(ticks)
        assert bench.next()["ticks"] == 1
        runner.remove("ticks")
        runner.add(ticks)  # before a window has come
        assert bench.next()["ticks"] == 1


def test_the_state_of_a_task_in_hand_is_not_that_of_one_that_takes_its_place() -> None:
    slow = Gated(1)
    bench = RunnerBench([slow, ticks])
    with bench.runner as runner:
        bench.clock.advance(SECOND)
        assert slow.entered.wait(PATIENCE)
        runner.remove("ticks")
        slow.go_on.set()
        assert bench.receiver.recv(PATIENCE)["ticks"] == 1
        runner.add(ticks)
        assert bench.next()["ticks"] == 1


def test_what_cannot_be_run_is_refused_and_changes_nothing() -> None:
    bench = RunnerBench([end_of])
    runner: Any = bench.runner
    wrong_function: Any = of_one
    wrong: list[tuple[object, str]] = [
        (end_of, "two tasks are called 'end_of'"),
        (awaits, "'awaits'"),
        (3, "is no task"),
        (Task(wrong_function, "one"), "'one' cannot be called"),
    ]
    with runner:
        for what, message in wrong:
            with pytest.raises(ConfigError, match=message):
                runner.add(what)
        with pytest.raises(
            ConfigError, match=r"remove\('x'\): there is no such task, but 'end_of'"
        ):
            runner.remove("x")
        with pytest.raises(ConfigError, match="it is the only task"):
            runner.remove("end_of")
        assert dict(bench.next()) == {"end_of": 1}
    assert runner.stats.changes == ()
    with pytest.raises(RunTaskError, match="runner 'runner' ends, and its tasks cannot be changed"):
        runner.add(length)


# A stage


def test_the_tasks_of_a_stage_change_and_so_does_what_it_is_declared_with() -> None:
    bench = PipelineBench([end_of])
    stage = bench.stage("a", RwLock[None](None))
    stage.add(ticks)
    with bench.pipeline:
        bench.advance()
        assert dict(bench.sink.wait_for("a", 1)) == {"end_of": 1, "ticks": 1}
        stage.add(length)
        stage.remove(end_of)
        bench.advance()
        assert dict(bench.sink.wait_for("a", 2)) == {"ticks": 2, "length": 1}
    assert [task.name for task in stage.tasks] == ["ticks", "length"]
    assert [change.what for change in bench.pipeline.stats.changes] == [
        "task 'length' of stage 'a' is added",
        "task 'end_of' of stage 'a' is removed",
    ]


def test_a_task_of_which_a_series_has_a_column_stays() -> None:
    bench = PipelineBench([end_of])
    stage = bench.stage("a", RwLock[None](None), tasks=[end_of, length])
    means = TimeSeries({"end_of": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    stage.into(means)
    with bench.pipeline:
        with pytest.raises(ConfigError, match=r"stage 'a': remove\('end_of'\): .* has a column"):
            stage.remove("end_of")
        stage.remove("length")
        bench.advance()
        assert dict(bench.sink.wait_for("a", 1)) == {"end_of": 1}
        bench.advance()
    assert list(means.view().time)[:1] == [1]


def test_a_replay_that_has_begun_does_not_change() -> None:
    bench = PipelineBench()
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    stage = bench.stage("a", series, tasks=[rows])
    bench.pipeline.source([(time, {"v": 1.0}) for time in range(3)], series)
    before = bench.pipeline.replay()
    stage.add(length)
    replay = iter(bench.pipeline.replay())
    first = next(replay)
    stage.remove("rows")
    other = RwLock[list[int]]([])
    stage.into(other, lambda values, dataset: values.append(dataset.timestamp))
    assert [list(dataset) for _, dataset in (first, *replay)] == [["rows", "length"]] * 3
    assert [list(dataset) for _, dataset in before] == [["rows"]] * 3
    assert [list(dataset) for _, dataset in bench.pipeline.replay()] == [["length"]] * 3


@task
def rows(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


# From several threads, beside a shutdown


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=2, max_size=3),
    stop_after=st.integers(0, 6),
)
def test_changes_of_several_threads_beside_windows_and_a_shutdown(
    switching: None, changes: list[list[int]], stop_after: int
) -> None:
    bench = RunnerBench([end_of], interval=TaskInterval.seconds(1), name="beside")

    def change(of: list[int]) -> None:
        for number in of:
            others: list[Runnable[object, int]] = [constant(f"t{number}", number)]
            try:
                bench.runner.add(others[0])
            except ConfigError:  # another thread was first
                with contextlib.suppress(ConfigError, RunTaskError):
                    bench.runner.remove(f"t{number}")
            except RunTaskError:
                return

    def pass_time() -> None:
        for second in range(6):
            if second == stop_after:
                bench.runner.shutdown()
            bench.clock.advance(SECOND)

    with bench.runner:
        together(pass_time, *(partial(change, of) for of in changes))
    given_windows = list(bench.receiver)
    # They tile time, and each is of one set of tasks.
    assert [tuple(dataset.window) for dataset in given_windows] == [
        (end, end + 1) for end in range(len(given_windows))
    ]
    for dataset in given_windows:
        assert not dataset.errors
        assert dict(dataset) == {
            name: dataset.timestamp if name == "end_of" else int(name[1:]) for name in dataset
        }
    assert threads_of("beside") == []
