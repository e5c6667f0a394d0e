"""Tasks that are paused while the others of their runner, or stage, run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.bench import SECOND, PipelineBench, RunnerBench
from tests.support.gated import Gated
from tests.support.keyed import trades
from tests.support.stateful import windows
from tests.support.threads import PATIENCE, eventually, together

from run_task import (
    Closed,
    ConfigError,
    ContextBuilder,
    KeyedDataSet,
    Pipeline,
    Runner,
    RunnerConfig,
    RunTaskError,
    RwLock,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    task,
)
from run_task.aggregates import count
from run_task.sinks import CallbackSink, SqlSink
from run_task.sources import paced

BEGUN = 1_700_000_000


@task
def end_of(data: object, start: int, end: int) -> int:
    return end


@task
def length(data: object, start: int, end: int) -> int:
    return end - start


@task
def held(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@task(state=int)
def counted(view: TimeSeriesView, start: int, end: int, state: int) -> tuple[int, int]:
    return state + len(view.in_window), state + len(view.in_window)


# A runner


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_a_task_is_left_out_in_a_pause_and_goes_on_with_its_state(executor: str) -> None:
    bench = RunnerBench([windows, end_of], executor=executor, workers=2)
    bench.patience = 3 * PATIENCE  # interpreters may have to start, on a machine that is busy
    with bench.runner as runner:
        assert dict(bench.next()) == {"windows": 1, "end_of": 1}
        runner.pause(task="windows")
        for end in (2, 3):
            dataset = bench.next()
            assert (dict(dataset), dataset.errors) == ({"end_of": end}, {})
            assert runner.states == {"windows": 1}
        runner.resume(task=windows)
        assert dict(bench.next()) == {"windows": 2, "end_of": 4}
    stats = runner.stats
    assert (stats.ticks, stats.missed, stats.paused) == (4, 0, 0)
    assert [change.what for change in stats.changes] == [
        "task 'windows' is paused",
        "task 'windows' is resumed",
    ]


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_so_it_is_by_key(executor: str) -> None:
    series = trades()
    context, receiver, _ = (
        ContextBuilder(series)
        .with_tasks([windows, count()])
        .with_interval(SECOND)
        .with_config(RunnerConfig(executor=executor, workers=2))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  of the parameters
        .with_key("symbol")
        .build()
    )
    clock = VirtualClock()
    seconds = iter(range(10))

    def following(keys: str) -> KeyedDataSet[Any, Any]:
        second = next(seconds)
        for key in keys:
            series.append(second, symbol=key, price=1.0)
        clock.advance(SECOND)
        return receiver.recv(3 * PATIENCE)

    def told(dataset: Mapping[str, Any]) -> dict[str, dict[str, int]]:
        return {name: dict(values) for name, values in dataset.items()}

    with Runner(context, clock=clock) as runner:
        assert told(following("ab"))["windows"] == {"a": 1, "b": 1}
        runner.pause(task="windows")
        assert told(following("abc")) == {"count": {"a": 1, "b": 1, "c": 1}}
        runner.resume(task="windows")
        assert told(following("abc")) == {
            "windows": {"a": 2, "b": 2, "c": 1},
            "count": {"a": 1, "b": 1, "c": 1},
        }


def test_the_window_in_hand_is_finished_with_it() -> None:
    slow = Gated(1)
    bench = RunnerBench([slow, windows])
    with bench.runner as runner:
        bench.clock.advance(SECOND)
        assert slow.entered.wait(PATIENCE)
        runner.pause(task="windows")
        slow.go_on.set()
        assert bench.receiver.recv(PATIENCE)["windows"] == 1
        assert "windows" not in bench.next()
        runner.resume(task="windows")
        assert bench.next()["windows"] == 2  # also the state of the window in hand was kept


def test_pauses_before_it_is_started_and_between_two_windows() -> None:
    bench = RunnerBench([windows, end_of])
    bench.runner.pause(task="windows")
    with bench.runner as runner:
        assert dict(bench.next()) == {"end_of": 1}
        for _ in range(2):
            runner.resume(task="windows")
        for _ in range(2):
            runner.pause(task="windows")
        assert dict(bench.next()) == {"end_of": 2}
        runner.resume(task="windows")
        runner.pause(task="windows")
        runner.resume(task="windows")
        assert bench.next()["windows"] == 1
    # What is so already is no change.
    assert [change.what for change in runner.stats.changes[:3]] == [
        "task 'windows' is paused",
        "task 'windows' is resumed",
        "task 'windows' is paused",
    ]
    assert len(runner.stats.changes) == 6


def test_a_task_that_hangs_is_left_when_it_is_paused_and_waited_for_when_it_is_resumed() -> None:
    slow = Gated(1)
    bench = RunnerBench([slow, end_of], task_timeout=0.05)
    with bench.runner as runner:
        assert "gated" in bench.next().errors
        runner.pause(task="gated")
        dataset = bench.next()
        assert (dict(dataset), dataset.errors) == ({"end_of": 2}, {})
        runner.resume(task="gated")
        assert "gated" in bench.next().errors  # it still runs for the first window
        slow.go_on.set()
        eventually(lambda: "gated" in bench.next())


def test_a_task_that_is_paused_may_be_removed_and_others_come_and_go() -> None:
    bench = RunnerBench([windows, end_of])
    with bench.runner as runner:
        assert bench.next()["windows"] == 1
        runner.pause(task="windows")
        runner.add(length)
        runner.remove("end_of")
        assert dict(bench.next()) == {"length": 1}
        runner.resume(task="windows")
        assert dict(bench.next()) == {"windows": 2, "length": 1}
        runner.pause(task="windows")
        runner.remove("windows")
        assert runner.states in ({"windows": 2}, {})
        assert dict(bench.next()) == {"length": 1}
        assert runner.states == {}
        runner.add(windows)
        assert bench.next()["windows"] == 1


def test_what_cannot_be_paused_is_refused_by_name_and_changes_nothing() -> None:
    bench = RunnerBench([windows, end_of])
    with bench.runner as runner:
        with pytest.raises(ConfigError, match=r"pause\(task='x'\): there is no such task, but 'w"):
            runner.pause(task="x")
        with pytest.raises(ConfigError, match=r"resume\(task='x'\): there is no such task"):
            runner.resume(task="x")
        runner.pause(task="windows")
        with pytest.raises(ConfigError, match=r"pause\(task='end_of'\): no other task is run"):
            runner.pause(task="end_of")
        with pytest.raises(ConfigError, match=r"remove\('end_of'\): all other tasks are paused"):
            runner.remove("end_of")
        assert dict(bench.next()) == {"end_of": 1}
    with pytest.raises(RunTaskError, match="its tasks cannot be changed"):
        runner.resume(task="windows")


def test_all_windows_and_a_task_are_paused_by_themselves() -> None:
    bench = RunnerBench([windows, end_of])
    with bench.runner as runner:
        runner.pause(task="windows")
        runner.pause()
        bench.clock.advance(SECOND)
        eventually(lambda: runner.stats.paused == 1)
        runner.resume()
        assert dict(bench.next()) == {"end_of": 2}


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.lists(st.lists(st.booleans(), max_size=6), min_size=2, max_size=3))
def test_pauses_of_several_threads_beside_windows(
    switching: None, changes: list[list[bool]]
) -> None:
    bench = RunnerBench([windows, end_of])

    def change(of: list[bool]) -> None:
        for paused in of:
            (bench.runner.pause if paused else bench.runner.resume)(task="windows")

    def pass_time() -> None:
        for _ in range(6):
            bench.clock.advance(SECOND)

    with bench.runner:
        together(pass_time, *(partial(change, of) for of in changes))
    given_windows = list(bench.receiver)
    assert [dataset["end_of"] for dataset in given_windows] == [*range(1, len(given_windows) + 1)]
    assert not any(dataset.errors for dataset in given_windows)
    # No window is counted twice, nor lost, however often it was paused.
    steps = [dataset["windows"] for dataset in given_windows if "windows" in dataset]
    assert steps == [*range(1, len(steps) + 1)]


# A stage


def test_a_task_of_a_stage_is_paused_and_its_windows_are_not_missed() -> None:
    bench = PipelineBench([end_of])
    stage = bench.stage("a", RwLock[None](None), tasks=[windows, end_of])
    stage.pause(task=windows)
    with bench.pipeline:
        bench.advance()
        assert dict(bench.sink.wait_for("a", 1)) == {"end_of": 1}
        stage.resume(task="windows")
        bench.advance()
        assert dict(bench.sink.wait_for("a", 2)) == {"windows": 1, "end_of": 2}
        stage.pause(task="windows")
        assert stage.paused_tasks == {"windows"}
        bench.advance()
        assert dict(bench.sink.wait_for("a", 3)) == {"end_of": 3}
        stage.resume(task="windows")
        bench.advance()
        assert bench.sink.wait_for("a", 4)["windows"] == 2
    stats = bench.pipeline.stats
    assert (stats.stages["a"].missed, stats.stages["a"].paused) == (0, 0)
    assert [change.what for change in stats.changes] == [
        "task 'windows' of stage 'a' is resumed",
        "task 'windows' of stage 'a' is paused",
        "task 'windows' of stage 'a' is resumed",
    ]
    assert [each.name for each in stage.tasks] == ["windows", "end_of"]


def test_a_task_of_which_a_series_has_a_column_is_not_paused() -> None:
    bench = PipelineBench([end_of])
    stage = bench.stage("a", RwLock[None](None), tasks=[end_of, length])
    means = TimeSeries({"end_of": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    stage.into(means)
    match = r"stage 'a': pause\(task='end_of'\): .* has a column of this task.*pause\(\) the whole"
    with pytest.raises(ConfigError, match=match):
        stage.pause(task="end_of")
    with bench.pipeline:
        with pytest.raises(ConfigError, match=match):
            stage.pause(task="end_of")
        stage.pause(task="length")
        with pytest.raises(ConfigError, match=r"has a column of task 'length', which is paused"):
            stage.series()
        bench.advance()
        assert dict(bench.sink.wait_for("a", 1)) == {"end_of": 1}
        stage.resume(task="length")
        series = stage.series()
        bench.advance()
        bench.sink.wait_for("a", 2)
    assert series.view()["length"].tolist()[:1] == [1]


def test_a_stage_that_was_removed_pauses_no_task() -> None:
    bench = PipelineBench([end_of])
    stage = bench.stage("a", RwLock[None](None), tasks=[end_of, length])
    bench.stage("b", RwLock[None](None))
    bench.pipeline.remove("a")
    with pytest.raises(RunTaskError, match="stage 'a' was removed"):
        stage.pause(task="length")


def test_replays_and_recomputed_windows_have_all_tasks(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    sink = SqlSink(tmp_path / "results.db")
    bench = PipelineBench()
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    stage = bench.stage("a", series, tasks=[counted, held])
    names = ["counted", "held"]
    for second in range(3):
        series.append(second, v=1.0)
    stage.pause(task="counted")
    given_windows = [dict(dataset) for _, dataset in bench.pipeline.replay()]
    assert given_windows == [{"counted": n, "held": 1} for n in (1, 2, 3)]
    bench.sink.results.clear()
    stage.sink(sink)

    def kept() -> list[tuple[int, str, Any]]:
        return sorted((row.end, row.task, row.value) for row in sink.rows())

    with bench.pipeline:
        bench.advance(3)
        assert dict(bench.sink.wait_for("a", 3)) == {"held": 1}
        bench.pipeline.recompute("a", 0, 2)
        again = [(end, name, end if name == "counted" else 1) for end in (1, 2) for name in names]
        assert kept() == [*again, (3, "held", 1)]
        stage.resume(task="counted")
        series.append(3, v=1.0)
        bench.advance()
        assert bench.sink.wait_for("a", 4)["counted"] == 1  # the live state has the gap


# Checkpoints


class Run:
    """A run of a pipeline with checkpoints over a recording, and what it gave."""

    def __init__(self, where: Path, tasks: Any, first: int, stop: int) -> None:
        self.results: list[dict[str, Any]] = []
        self.pipeline = Pipeline("p", checkpoint=where)
        series = TimeSeries({"v": float}, unit=TimeUnit.SECONDS)
        rows = [(BEGUN + i, {"v": float(i)}) for i in range(first, stop)]
        self.pipeline.source(paced(rows, speed=1e6, unit=TimeUnit.SECONDS), series, name="rows")
        self.stage = self.pipeline.stage("s", tasks, series, "10s")
        self.stage.sink(CallbackSink(lambda stage, dataset: self.results.append(dict(dataset))))

    def run(self) -> list[dict[str, Any]]:
        self.pipeline.run_sync()
        return self.results


def test_a_task_that_is_paused_is_so_in_the_next_run_too_with_its_state(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("pyarrow")
    assert Run(tmp_path, [counted, held], 0, 20).run()[-1] == {"counted": 20, "held": 10}
    paused = Run(tmp_path, [counted, held], 0, 40)
    paused.stage.pause(task="counted")
    assert paused.run() == [{"held": 10}] * 2
    again = Run(tmp_path, [counted, held], 0, 60)
    assert again.run() == [{"held": 10}] * 2
    assert again.stage.paused_tasks == {"counted"}
    told = "task 'counted' of stage 's' is paused, as it was before: resume(task=...) runs it again"
    assert told in caplog.text
    assert again.stage.states.told(by_key=False) == {"counted": 20}


def test_a_task_whose_pause_does_not_fit_any_more_runs_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("pyarrow")
    before = Run(tmp_path, [counted, held], 0, 20)
    before.stage.pause(task="counted")
    before.run()
    alone = Run(tmp_path, [counted], 0, 40)
    assert len(alone.run()) == 2
    assert alone.stage.paused_tasks == set()
    assert "task 'counted' of stage 's' was paused, and is not: no other task is run" in caplog.text
    gone = Run(tmp_path, [held], 0, 60)
    assert gone.run() == [{"held": 10}] * 2
