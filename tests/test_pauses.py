"""Runners and stages that are paused while they run."""

from __future__ import annotations

import logging
import queue
from typing import Any

import pytest
from tests.support.bench import SECOND, PipelineBench, RunnerBench
from tests.support.gated import Gated
from tests.support.threads import PATIENCE, eventually

from run_task import (
    Atom,
    Change,
    RwLock,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)


@task
def held(view: TimeSeriesView, start: int, end: int) -> list[int]:
    return list(map(int, view.in_window.time))


@task
def end_of(data: object, start: int, end: int) -> int:
    return end


@task
def seen(value: int, start: int, end: int) -> int:
    return value


@task
def values_of(values: list[int], start: int, end: int) -> list[int]:
    return list(values)


def set_to(atom: Atom[int], value: int) -> None:
    atom.reset(value)


class Inlet:
    """A source whose rows a test puts in, one after another."""

    def __init__(self, bench: PipelineBench, into: Any, ingest: Any = None) -> None:
        self._bench = bench
        self._rows = queue.Queue[Any]()
        bench.pipeline.source(iter(self._rows.get, None), into, ingest, name="inlet")

    def put(self, time: int, row: Any) -> None:
        before = self.stored
        self._rows.put((time, row))
        eventually(lambda: self.stored > before)

    def end(self) -> None:
        self._rows.put(None)

    @property
    def stored(self) -> int:
        return self._bench.pipeline.stats.sources["inlet"].stored

    @property
    def late(self) -> int:
        return self._bench.pipeline.stats.sources["inlet"].late


# A runner


def test_windows_that_fall_due_in_a_pause_give_nothing_and_count_as_missed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = RunnerBench([end_of], name="r")
    with bench.runner as runner, caplog.at_level(logging.INFO, "run_task"):
        assert bench.next()[end_of] == 1
        for _ in range(2):
            runner.pause()
        bench.clock.advance(SECOND)
        bench.clock.advance(SECOND)
        eventually(lambda: runner.stats.missed == 2)
        for _ in range(2):
            runner.resume()
        assert bench.next()[end_of] == 4
        stats = runner.stats
    assert (stats.ticks, stats.missed, stats.paused) == (2, 2, 2)
    assert stats.changes == (Change(10**9, "paused"), Change(3 * 10**9, "resumed"))
    told = [record.getMessage() for record in caplog.records if record.name == "run_task.runner"]
    assert told.count("r: paused") == told.count("r: resumed") == 1


def test_a_runner_that_is_paused_before_it_is_started_begins_paused() -> None:
    bench = RunnerBench([end_of])
    bench.runner.pause()
    with bench.runner:
        bench.clock.advance(SECOND)
        eventually(lambda: bench.runner.stats.paused == 1)
        bench.runner.resume()
        assert bench.next()[end_of] == 2


def test_the_window_in_hand_is_finished_in_a_pause() -> None:
    slow = Gated(1)
    bench = RunnerBench([slow])
    with bench.runner as runner:
        bench.clock.advance(SECOND)
        assert slow.entered.wait(PATIENCE)
        runner.pause()
        slow.go_on.set()
        assert bench.receiver.recv(PATIENCE)["gated"] == 1
        bench.clock.advance(SECOND)
        eventually(lambda: runner.stats.paused == 1)
    assert runner.stats.ticks == 1


def test_a_runner_that_is_shut_down_in_a_pause_ends() -> None:
    bench = RunnerBench([end_of])
    with bench.runner:
        bench.runner.pause()
        bench.clock.advance(SECOND)
    assert list(bench.receiver) == []


# A stage


def test_the_rows_of_a_stage_that_is_paused_are_not_late() -> None:
    bench = PipelineBench([held])
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    stage = bench.stage("a", series)
    inlet = Inlet(bench, series)
    with bench.pipeline:
        bench.advance()
        bench.sink.wait_for("a", 1)
        stage.pause()
        bench.advance(2)
        eventually(lambda: bench.pipeline.stats.stages["a"].paused == 2)
        stage.resume()
        bench.advance()
        bench.sink.wait_for("a", 4)
        inlet.put(1, {"v": 1.0})
        inlet.put(2, {"v": 2.0})
        assert inlet.late == 0
        inlet.put(0, {"v": 0.0})
        inlet.put(3, {"v": 3.0})
        assert inlet.late == 2
        inlet.end()
    stats = bench.pipeline.stats
    assert (stats.stages["a"].missed, stats.stages["a"].paused) == (2, 2)
    assert [change.what for change in stats.changes] == [
        "stage 'a' is paused",
        "stage 'a' is resumed",
    ]


def test_so_it_is_of_windows_that_are_samples() -> None:
    bench = PipelineBench([held])
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    stage = bench.stage("a", series, 10, window=TaskInterval.seconds(5))
    inlet = Inlet(bench, series)
    with bench.pipeline:
        bench.advance(10)
        bench.sink.wait_for("a", 10)
        stage.pause()
        bench.advance(10)
        eventually(lambda: bench.pipeline.stats.stages["a"].paused == 1)
        stage.resume()
        bench.advance(10)
        bench.sink.wait_for("a", 30)
        inlet.put(17, {"v": 1.0})
        assert inlet.late == 0
        for time in (7, 27):
            inlet.put(time, {"v": 1.0})
        assert inlet.late == 2
        inlet.end()


@pytest.mark.parametrize("run", range(3))
def test_a_window_that_fell_due_in_a_pause_is_not_run_after_it(run: int, switching: None) -> None:
    # Its view would be of now, and show what came after it.
    bench = PipelineBench()
    data, slow = Atom(0), Gated(1)
    stage = bench.stage("a", data, tasks=[slow, seen])
    inlet = Inlet(bench, data, set_to)
    with bench.pipeline:
        bench.advance()
        assert slow.entered.wait(PATIENCE)
        stage.pause()
        bench.advance()  # the window that ends at 2 is due
        inlet.put(2, 20)
        stage.resume()
        bench.advance()
        inlet.put(3, 30)
        slow.go_on.set()
        bench.sink.wait_for("a", 3)
        inlet.end()
    given = [(dataset.timestamp, dataset["seen"]) for dataset in bench.sink.of("a")]
    assert given[:2] == [(1, 0), (3, 20)]
    assert bench.pipeline.stats.stages["a"].paused == 1


def test_views_that_a_stage_has_ahead_are_let_go_of_when_it_is_paused() -> None:
    bench = PipelineBench()
    series = TimeSeries({"v": float}, TimeUnit.SECONDS, retention=2)
    slow = Gated(1)
    stage = bench.stage("a", series, tasks=[slow, held])
    inlet = Inlet(bench, series)
    with bench.pipeline:
        bench.advance()
        assert slow.entered.wait(PATIENCE)
        bench.advance()
        inlet.put(2, {"v": 1.0})  # the window before has a view by now
        stage.pause()
        slow.go_on.set()
        eventually(lambda: bench.pipeline.stats.stages["a"].paused == 1)
        inlet.put(1, {"v": 1.0})
        assert inlet.late == 0
        stage.resume()
        bench.advance()
        assert bench.sink.wait_for("a", 3)["held"] == [2]
        inlet.end()
    assert [dataset.timestamp for dataset in bench.sink.of("a")] == [1, 3]


def test_stages_that_are_fed_by_one_that_is_paused_go_on() -> None:
    bench = PipelineBench([end_of])
    target = RwLock[list[int]]([])
    up = bench.stage("up", RwLock[None](None))
    up.into(target, lambda values, dataset: values.append(dataset["end_of"]))
    bench.stage("down", target, tasks=[values_of])
    with bench.pipeline:
        bench.advance()
        bench.sink.wait_for("down", 1)
        up.pause()
        bench.advance()
        dataset = bench.sink.wait_for("down", 2)
        assert (dataset["values_of"], dataset.behind) == ([1], ())
        up.resume()
        bench.advance()
        assert bench.sink.wait_for("down", 3)["values_of"] == [1, 3]


def test_a_stage_may_begin_paused_and_replays_do_not_pause() -> None:
    bench = PipelineBench([held])
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    stage = bench.stage("a", series)
    series.append(0, v=1.0)
    series.append(1, v=1.0)
    stage.pause()
    assert stage.is_paused
    assert len(list(bench.pipeline.replay())) == 2
    bench.sink.results.clear()
    with bench.pipeline:
        bench.advance(2)
        eventually(lambda: bench.pipeline.stats.stages["a"].paused == 2)
        stage.resume()
        bench.advance()
        bench.sink.wait_for("a", 3)
    assert len(bench.sink.results) == 1


def test_a_pipeline_that_is_shut_down_in_a_pause_ends() -> None:
    bench = PipelineBench([held])
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    stage = bench.stage("a", series)
    inlet = Inlet(bench, series)
    with bench.pipeline:
        stage.pause()
        bench.advance(2)
        inlet.end()
    assert bench.sink.results == []
