"""Stages, sinks and routes that are added to a pipeline that runs, and stages that are removed."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.bench import SECOND, PipelineBench, RecordingSink
from tests.support.gated import Gated
from tests.support.proof import examples
from tests.support.threads import PATIENCE, eventually, together
from tests.test_pauses import Inlet

from run_task import (
    Closed,
    ConfigError,
    DataSet,
    Pipeline,
    RunnerConfig,
    RunTaskError,
    RwLock,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    task,
)
from run_task.pipeline._monitor import Monitor

Values = list[int]


@task
def held(view: TimeSeriesView, start: int, end: int) -> list[int]:
    return list(map(int, view.in_window.time))


@task
def count(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@task
def end_of(data: object, start: int, end: int) -> int:
    return end


@task
def values_of(values: Values, start: int, end: int) -> Values:
    return list(values)


def note(values: Values, dataset: DataSet[Any]) -> None:
    values.append(dataset.timestamp)


def add(values: Values, value: int) -> None:
    values.append(value)


def lock() -> RwLock[Values]:
    return RwLock[Values]([])


def seconds_of_floats(**options: Any) -> TimeSeries:
    return TimeSeries({"v": float}, TimeUnit.SECONDS, **options)


def bench_at(seconds: int) -> PipelineBench:
    bench = PipelineBench([held])
    bench.clock = VirtualClock(seconds * 10**9)
    bench.pipeline = Pipeline("bench", clock=bench.clock)
    return bench


def windows(bench: PipelineBench, stage: str) -> list[tuple[int, int]]:
    return [(dataset.window.start, dataset.window.end) for dataset in bench.sink.of(stage)]


def threads_of(name: str) -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(f"run-task {name}")]


# Stages that are added


def test_a_stage_that_is_added_runs_from_the_next_window_on() -> None:
    bench = bench_at(103)
    series = seconds_of_floats()
    bench.stage("a", series, 10)
    inlet = Inlet(bench, series)
    with bench.pipeline:
        inlet.put(103, {"v": 1.0})
        bench.advance(9)
        bench.sink.wait_for("a", 110)
        inlet.put(111, {"v": 1.0})
        bench.advance(5)
        bench.stage("b", series, 10)
        inlet.put(116, {"v": 1.0})
        bench.advance(3)
        assert bench.sink.wait_for("b", 120)["held"] == [111, 116]
        assert inlet.late == 0
        inlet.end()
    assert windows(bench, "b") == [(110, 120)]
    assert [stage.name for stage in bench.pipeline.stages] == ["a", "b"]
    assert [change.what for change in bench.pipeline.stats.changes] == [
        "stage 'b' is added",
        f"results of stage 'b' go to {bench.sink!r}",
    ]
    assert bench.pipeline.stats.stages["b"].ticks == 1


@pytest.mark.parametrize(
    ("interval", "retention", "first"),
    [
        (10, None, (110, 120)),
        (60, None, (120, 180)),  # the one before began before the run did
        (10, 3, (120, 130)),  # rows of the one before have passed out
        (10, "5s", (120, 130)),
        (5, "8s", (115, 120)),
    ],
)
def test_it_begins_with_the_first_window_of_which_all_rows_are_there(
    interval: int, retention: int | str | None, first: tuple[int, int]
) -> None:
    bench = bench_at(103)
    series = seconds_of_floats(retention=retention)
    bench.stage("a", series, 1)
    inlet = Inlet(bench, series)
    with bench.pipeline:
        for time in range(103, 118):
            inlet.put(time, {"v": 1.0})
            bench.advance()
        bench.stage("b", series, interval)
        for _ in range(7):
            bench.advance(10)
        bench.sink.wait_for("b", first[1])
        inlet.end()
    assert windows(bench, "b")[0] == first


def test_rows_that_are_there_before_the_run_count() -> None:
    bench = bench_at(103)
    series = seconds_of_floats()
    series.append(40, v=1.0)
    series.append(70, v=1.0)
    bench.stage("a", series, 1)
    with bench.pipeline:
        bench.stage("b", series, 60)
        bench.advance(20)
        assert bench.sink.wait_for("b", 120)["held"] == [70]


@pytest.mark.parametrize("run", range(3))
def test_what_is_added_sees_no_row_of_the_future(run: int, switching: None) -> None:
    # Of data without times, each row waits for the windows that are due before it.
    bench = PipelineBench([values_of])
    data = lock()
    slow = Gated(1)
    bench.stage("a", data, tasks=[slow])
    inlet = Inlet(bench, data, add)
    with bench.pipeline:
        inlet.put(0, 0)
        stage = bench.stage("b", data)
        bench.advance()
        assert slow.entered.wait(PATIENCE)
        slow.go_on.set()
        inlet.put(1, 1)
        bench.advance()
        inlet.put(2, 2)
        bench.sink.wait_for("b", 2)
        inlet.end()
    assert [dataset["values_of"] for dataset in bench.sink.of("b")][:2] == [[0], [0, 1]]
    assert stage.name == "b"


@pytest.mark.parametrize("run", range(3))
def test_a_chain_that_is_added_while_it_runs_is_in_order(run: int, switching: None) -> None:
    bench = PipelineBench([end_of])
    source = lock()
    top = bench.stage("top", source)
    with bench.pipeline:
        bench.advance()
        bench.sink.wait_for("top", 1)
        left, right = lock(), lock()
        middle = bench.stage("middle", left, tasks=[values_of])
        bench.stage("bottom", right, tasks=[values_of])
        top.into(left, note)
        middle.into(right, note)
        for _ in range(3):
            bench.advance()
        bench.sink.wait_for("bottom", 4)
    assert [dataset["values_of"] for dataset in bench.sink.of("middle")] == [[2], [2, 3], [2, 3, 4]]
    assert [dataset["values_of"] for dataset in bench.sink.of("bottom")] == [[2], [2, 3], [2, 3, 4]]
    assert not any(dataset.behind for _, dataset in bench.sink.results)


def test_a_series_of_the_results_of_a_stage_that_was_added() -> None:
    bench = PipelineBench([end_of])
    bench.stage("a", lock())
    with bench.pipeline:
        bench.advance()
        stage = bench.stage("b", lock())
        bench.stage("c", stage.series(), 2, tasks=[held])
        for _ in range(5):
            bench.advance()
        bench.sink.wait_for("c", 6)
    # At 1, the window that ends at 2 has begun before the series did.
    assert [dataset["held"] for dataset in bench.sink.of("c")] == [[3, 4], [5, 6]]


def test_a_sink_gets_the_windows_from_then_on() -> None:
    bench = PipelineBench([end_of])
    stage = bench.stage("a", lock())
    more = RecordingSink()
    with bench.pipeline:
        bench.advance()
        bench.sink.wait_for("a", 1)
        stage.sink(more)
        bench.advance()
        more.wait_for("a", 2)
    assert [dataset.timestamp for dataset in more.of("a")] == [2]
    assert (more.closed, stage.sinks) == (1, (bench.sink, more))


def test_a_stage_whose_sink_cannot_begin_goes_on_without() -> None:
    class Full(RecordingSink):
        def begin(self, pipeline: str) -> None:
            raise OSError("the disk is full")

        def last(self, stage: str) -> int | None:
            return None

        def rows(self, stage: str | None = None) -> Iterator[Any]:
            return iter(())

    bench = PipelineBench([end_of])
    stage = bench.stage("a", lock())
    with bench.pipeline:
        with pytest.raises(OSError, match="the disk is full"):
            stage.sink(Full())
        bench.advance()
        bench.sink.wait_for("a", 1)
    assert stage.sinks == (bench.sink,)


# Stages that are removed


def test_a_stage_that_is_removed_runs_what_is_due_and_no_more() -> None:
    bench = PipelineBench([end_of])
    slow = Gated(1)
    stage = bench.stage("a", lock(), tasks=[slow])
    bench.stage("b", lock())
    with bench.pipeline:
        bench.advance(2)
        assert slow.entered.wait(PATIENCE)
        bench.pipeline.remove("a")
        assert [stage.name for stage in bench.pipeline.stages] == ["b"]
        bench.advance()
        bench.sink.wait_for("b", 3)
        slow.go_on.set()
        bench.sink.wait_for("a", 2)
        eventually(lambda: bench.sink.flushed)
        bench.advance()
        bench.sink.wait_for("b", 4)
        for change in (
            lambda: stage.sink(RecordingSink()),
            lambda: stage.into(lock(), note),
            stage.pause,
            lambda: stage.add(end_of),
        ):
            with pytest.raises(RunTaskError, match="stage 'a' was removed from pipeline 'bench'"):
                change()
    assert windows(bench, "a") == [(0, 1), (1, 2)]
    stats = bench.pipeline.stats
    assert list(stats.stages) == ["b", "a"]
    assert (stats.stages["a"].ticks, stats.stages["a"].missed) == (2, 0)
    assert bench.sink.closed == 1
    assert threads_of("bench") == threads_of("a") == []


def test_stages_that_were_fed_by_one_that_is_removed_go_on_without() -> None:
    bench = PipelineBench([end_of])
    target = lock()
    bench.stage("up", lock()).into(target, note)
    bench.stage("down", target, tasks=[values_of])
    with bench.pipeline:
        bench.advance()
        bench.sink.wait_for("down", 1)
        bench.pipeline.remove("up")
        bench.advance()
        dataset = bench.sink.wait_for("down", 2)
        assert (dataset["values_of"], dataset.behind) == ([1], ())
        bench.stage("up", lock()).into(target, note)
        bench.advance()
        assert bench.sink.wait_for("down", 3)["values_of"] == [1, 3]


@pytest.mark.parametrize("run", range(3))
def test_another_stage_of_its_name_goes_on_where_it_ended(run: int, switching: None) -> None:
    bench = PipelineBench([end_of])
    bench.stage("a", lock())
    bench.stage("other", lock())
    with bench.pipeline:
        for end in range(1, 9):
            bench.advance()
            if end % 2:
                bench.pipeline.remove("a")
                bench.stage("a", lock())
        bench.sink.wait_for("a", 8)
    assert sorted(windows(bench, "a")) == [(end - 1, end) for end in range(1, 9)]
    assert bench.pipeline.stats.stages["a"].ticks == 8


def test_with_its_last_stage_removed_a_pipeline_waits_for_another() -> None:
    bench = PipelineBench([values_of])
    data = lock()
    bench.stage("a", data)
    inlet = Inlet(bench, data, add)
    with bench.pipeline:
        bench.advance()
        bench.sink.wait_for("a", 1)
        bench.pipeline.remove("a")
        eventually(lambda: not threads_of("a"))
        inlet.put(1, 1)
        bench.advance()
        again = bench.stage("a", data)
        bench.advance()
        assert bench.sink.wait_for("a", 3)["values_of"] == [1]
        bench.pipeline.remove(again)
        inlet.end()
        eventually(lambda: not threads_of("bench source"))
    assert bench.pipeline.stats.stages["a"].ticks == 2


def test_a_stage_may_remove_itself_and_one_that_hangs_is_given_up() -> None:
    bench = PipelineBench()
    hangs = Gated(1)

    @task
    def leaves(data: object, start: int, end: int) -> int:
        bench.pipeline.remove("a")
        return end

    bench.stage("a", lock(), tasks=[leaves])
    bench.stage("b", lock(), tasks=[hangs], shutdown_timeout=0.1)
    bench.stage("c", lock(), tasks=[end_of])
    with pytest.raises(ExceptionGroup, match="pipeline 'bench' failed") as raised, bench.pipeline:
        bench.advance()
        assert hangs.entered.wait(PATIENCE)
        bench.sink.wait_for("a", 1)
        bench.pipeline.remove("b")
        bench.advance()
        bench.sink.wait_for("c", 2)
        eventually(lambda: "b" in bench.pipeline.stats.stages and not _is_leaving(bench))
    hangs.go_on.set()
    eventually(lambda: not threads_of("scheduler"))
    assert windows(bench, "a") == [(0, 1)]
    assert [str(error) for error in raised.value.exceptions]
    assert "gated" in str(raised.value.exceptions[0])


def _is_leaving(bench: PipelineBench) -> bool:
    run: Any = bench.pipeline._run  # pyright: ignore[reportPrivateUsage]  nothing else tells
    return bool(run._leaving)


# What is refused


def test_a_circle_by_a_route_that_is_added_is_refused() -> None:
    bench = PipelineBench([end_of])
    one, other = lock(), lock()
    bench.stage("a", one).into(other, note)
    stage = bench.stage("b", other)
    with bench.pipeline:
        with pytest.raises(ConfigError, match="'b' -> 'a' -> 'b'"):
            stage.into(one, note)
        bench.advance()
        bench.sink.wait_for("b", 1)
    assert stage.routes == ()


def test_results_that_come_later_than_a_stage_waits_are_refused() -> None:
    bench = PipelineBench([end_of])
    target = lock()
    up = bench.stage("up", lock(), grace=TaskInterval.seconds(3))
    bench.stage("down", target)
    with bench.pipeline:
        with pytest.raises(ConfigError, match=r"3 s after the end .*, and stage 'down'"):
            up.into(target, note)
        bench.pipeline.remove("down")
        up.into(target, note)
        bench.stage("down", target, tasks=[values_of])
        bench.advance(4)
        assert bench.sink.wait_for("down", 1)["values_of"] == [1]


def test_names_that_are_taken_or_unknown_and_pipelines_that_end_are_refused() -> None:
    bench = PipelineBench([end_of])
    slow = Gated(1)
    bench.stage("a", lock(), tasks=[slow])
    with pytest.raises(ConfigError, match=r"remove\('x'\): there is no such .*, but 'a'"):
        bench.pipeline.remove("x")
    other = PipelineBench([end_of]).stage("a", lock())
    with pytest.raises(ConfigError, match=r"remove\(<Stage 'a'.*: it is no stage of this"):
        bench.pipeline.remove(other)
    with bench.pipeline:
        with pytest.raises(ConfigError, match="two stages are called 'a'"):
            bench.stage("a", lock())
        bench.advance()
        assert slow.entered.wait(PATIENCE)
        bench.pipeline.shutdown()
        with pytest.raises(RunTaskError, match="pipeline 'bench' ends, and cannot be changed"):
            bench.stage("b", lock())
        with pytest.raises(RunTaskError, match="pipeline 'bench' ends, and cannot be changed"):
            bench.pipeline.remove("a")
        slow.go_on.set()
    assert [stage.name for stage in bench.pipeline.stages] == ["a"]
    bench.pipeline.remove("a")  # of what may be replayed
    assert bench.pipeline.stages == ()


def test_a_sink_of_all_stages_gets_those_that_are_added_too() -> None:
    bench = PipelineBench([end_of])
    first = bench.stage("a", lock())
    sink = RecordingSink()
    assert bench.pipeline.sink(sink) is bench.pipeline
    assert first.sinks.count(sink) == 1
    with bench.pipeline:
        bench.stage("b", lock())
        bench.advance()
        for name in "ab":
            assert sink.wait_for(name, 1)["end_of"] == 1
    assert (len(sink.of("a")), sink.closed) == (1, 1)


def test_what_is_no_sink_is_refused_before_there_is_a_stage() -> None:
    wrong: Any = print
    pipeline = Pipeline("p")
    with pytest.raises(ConfigError, match=r"^pipeline 'p': sink=.* has no write\(\): Callback"):
        pipeline.sink(wrong)
    pipeline.stage("a", [end_of], lock(), SECOND)
    assert [stage.sinks for stage in pipeline.stages] == [()]


def test_a_watcher_follows_stages_that_are_added() -> None:
    bench = PipelineBench([end_of])
    bench.stage("a", lock())
    monitor = Monitor(bench.pipeline)
    with bench.pipeline:
        bench.stage("b", lock())
        assert list(monitor.stats().stages) == ["a", "b"]
        bench.advance()
        eventually(lambda: monitor.recent("b")[0] == {"end_of": 1})


# From several threads, beside a shutdown


@settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seeds=st.lists(st.integers(0, 1000), min_size=2, max_size=3), stop_after=st.integers(0, 8))
def test_changes_of_several_threads_beside_windows_and_a_shutdown(
    switching: None, seeds: list[int], stop_after: int
) -> None:
    bench = PipelineBench([end_of])
    series = seconds_of_floats()
    targets = [TimeSeries({"end_of": int}, TimeUnit.SECONDS, closed=Closed.RIGHT) for _ in range(2)]
    bench.stage("stays", series)
    inlet = Inlet(bench, series)

    def change(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(8):
            name = choose.choice("abc")
            stages = {stage.name: stage for stage in bench.pipeline.stages}
            of_it: list[Callable[[], object]] = [
                partial(bench.stage, name, choose.choice([series, *targets])),
                partial(bench.pipeline.remove, name),
            ]
            if name in stages:
                stage: Any = stages[name]
                of_it += [
                    stage.pause,
                    stage.resume,
                    partial(stage.into, choose.choice(targets)),
                    partial(stage.add, count),
                    partial(stage.remove, "count"),
                ]
            with contextlib.suppress(ConfigError, RunTaskError):
                choose.choice(of_it)()
            time.sleep(0)

    def pass_time() -> None:
        for second in range(8):
            if second == stop_after:
                bench.pipeline.shutdown()
            bench.advance()

    begun = time.monotonic()
    with bench.pipeline:
        together(pass_time, *(partial(change, seed) for seed in seeds))
        inlet.end()
    assert time.monotonic() - begun < PATIENCE
    stats = bench.pipeline.stats.stages
    for name in ("stays", *"abc"):
        ends = [end for _, end in windows(bench, name)]
        assert len(set(ends)) == len(ends), name
        assert all(end - start == 1 for start, end in windows(bench, name))
        # Of one stage they are in order; each is given, or counted.
        if name == "stays":
            assert ends == list(range(1, len(ends) + 1))
        if name in stats:
            assert stats[name].ticks >= len(ends)
            assert stats[name].missed == stats[name].paused
    assert not any(thread for thread in threads_of("bench"))


def test_config_of_a_stage_that_is_added_counts_in_a_shutdown() -> None:
    bench = PipelineBench([end_of])
    bench.stage("a", lock())
    with bench.pipeline:
        bench.pipeline.stage("b", [end_of], lock(), SECOND, RunnerConfig(shutdown_timeout=77.0))
        run: Any = bench.pipeline._run  # pyright: ignore[reportPrivateUsage]  nothing else tells
        assert run._timeout == 77.0
