"""What a window lacks since results lack it that it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.bench import PipelineBench
from tests.support.gated import Gated

from run_task import (
    DataSet,
    Empty,
    Pipeline,
    RwLock,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.pipeline import _lacking
from run_task.pipeline._lacking import Lacked, Lacking

Values = list[int]

UP = ("up",)


@task
def seen(values: Values, start: int, end: int) -> Values:
    return list(values)


@task
def newest(view: TimeSeriesView, start: int, end: int) -> int:
    return end


def note(values: Values, dataset: DataSet[Any]) -> None:
    values.append(dataset.timestamp)


def lock() -> RwLock[Values]:
    return RwLock[Values]([])


def named(bench: PipelineBench, stage: str) -> dict[int, Any]:
    return {dataset.timestamp: dataset.behind for dataset in bench.sink.of(stage)}


def test_what_is_fed_by_a_window_lacks_what_it_lacked(switching: None) -> None:
    bench = PipelineBench([seen])
    source, first, second, third = lock(), lock(), lock(), lock()
    hangs = Gated(2)
    bench.stage("up", source, 1, [hangs]).into(first, note)
    bench.stage("mid", first, 1, upstream_timeout=0.1).into(second, note)
    bench.stage("down", second, 1, window=TaskInterval.seconds(3)).into(third, note)
    bench.stage("last", third, 2)
    bench.stage("beside", source)
    with bench.pipeline:
        bench.advance(3)
        bench.sink.wait_for("down", 3)
        hangs.go_on.set()
        bench.sink.wait_for("up", 3)
        bench.advance(5)
        bench.sink.wait_for("last", 8)
        bench.sink.wait_for("beside", 8)
    assert named(bench, "mid") == {n: UP if n in (2, 3) else () for n in range(1, 9)}
    assert named(bench, "down") == {n: UP if 2 <= n <= 5 else () for n in range(1, 9)}
    assert named(bench, "last") == {2: UP, 4: UP, 6: UP, 8: ()}
    assert not any(named(bench, "beside").values())
    assert bench.sink.wait_for("down", 5)["seen"] == [1, 2, 3, 4, 5]  # mid's, which are there


def test_a_stage_that_feeds_itself_does_not_lack_something_for_good() -> None:
    bench = PipelineBench([seen])
    source, both = lock(), lock()
    hangs = Gated(2)
    bench.stage("up", source, 1, [hangs], upstream_timeout=0.1).into(both, note)
    window = TaskInterval.seconds(3)
    bench.stage("mid", both, 1, upstream_timeout=0.1, window=window).into(both, note)
    with bench.pipeline:
        bench.advance(2)
        bench.sink.wait_for("mid", 2)
        hangs.go_on.set()
        bench.sink.wait_for("up", 2)
        bench.advance(6)
        bench.sink.wait_for("mid", 8)
    assert named(bench, "mid") == {n: UP if n == 2 else () for n in range(1, 9)}


def test_a_window_that_is_empty_for_want_of_something_is_lacked_too() -> None:
    bench = PipelineBench([newest])
    hangs = Gated(2)
    up = bench.stage("up", lock(), 1, [hangs])
    empty = {"upstream_timeout": 0.1, "empty": Empty.SKIP}
    mid = bench.stage("mid", up.series(), 1, [newest], **empty)
    bench.stage("down", mid.series(), 1)
    with bench.pipeline:
        bench.advance(2)
        bench.sink.wait_for("down", 2)
        hangs.go_on.set()
        bench.sink.wait_for("up", 2)
        bench.advance(2)
        bench.sink.wait_for("down", 4)
    assert named(bench, "mid") == {1: (), 3: (), 4: ()}
    assert named(bench, "down") == {1: (), 2: UP, 3: (), 4: ()}


def test_a_run_that_goes_on_knows_what_is_lacked(tmp_path: Path) -> None:
    bench = PipelineBench([newest])
    hangs = Gated(2)

    def begin() -> None:
        bench.pipeline = Pipeline("bench", clock=bench.clock, checkpoint=tmp_path / "state")
        nothing = TimeSeries({"price": float}, TimeUnit.SECONDS)
        up = bench.stage("up", nothing, 1, [hangs])
        mid = bench.stage("mid", up.series("1h"), 1, upstream_timeout=0.1)
        bench.stage("down", mid.series("1h"), 1, window=TaskInterval.seconds(3))

    begin()
    with bench.pipeline:
        bench.advance(2)
        bench.sink.wait_for("down", 2)
        hangs.go_on.set()
        bench.sink.wait_for("up", 2)
    begin()
    with bench.pipeline:
        bench.advance(3)
        bench.sink.wait_for("down", 5)
    assert named(bench, "down") == {1: (), 2: UP, 3: UP, 4: UP, 5: ()}


def connect(told: Lacking, own: Lacking) -> None:
    """Have one be of a stage that feeds that of the other."""
    pipeline, target = Pipeline("p"), lock()
    up = pipeline.stage("up", [seen], lock(), "1s").into(target, note)
    Lacking.connect({told: up, own: pipeline.stage("down", [seen], target, "1s")})


@pytest.mark.parametrize("most", [2, 3, 1024])
@given(
    results=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["", "a", "b"])), max_size=40),
    window=st.integers(1, 12),
    every=st.integers(1, 5),
)
def test_windows_name_what_results_lack_that_they_hold(
    most: int, results: list[tuple[int, str]], window: int, every: int
) -> None:
    """However few are noted one by one, nothing is forgotten that a window holds."""
    told, own = Lacking(), Lacking()
    connect(told, own)
    ends: list[tuple[int, str]] = []
    at = 0
    with mock.patch.object(_lacking, "_MOST", most):
        for step, name in results:
            at += step
            ends.append((at, name))
            if name:
                told.tell(at, [name])
            assert len(own.noted) <= most
            if at % every == 0:
                start = at - window
                found = own.within(start, at)
                held = {name for end, name in ends if start < end <= at and name}
                assert held <= {*found}
                assert len(found) == len({*found})
                if most == 1024:
                    assert held == {*found}
                assert all(one.end_ns > start for one in own.noted)


def test_what_is_held_no_longer_is_forgotten() -> None:
    told, own = Lacking(), Lacking([Lacked(1, ["a"])])
    connect(told, own)
    told.tell(9, ["b"])
    assert own.within(0, 5) == ("a",)
    assert own.noted == (Lacked(1, ["a"]), Lacked(9, ["b"]))
    assert own.within(1, 8) == ()
    assert own.within(8, 9) == ("b",)
    assert own.within(9, 10) == ()
    assert not own.noted
