"""When a service says that it is ready, and what it says that is wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.bench import PipelineBench
from tests.support.served import serving
from tests.support.threads import eventually

from run_task import (
    DataSet,
    Empty,
    Pipeline,
    RunnerConfig,
    RwLock,
    TimeSeries,
    TimeUnit,
    Window,
    task,
)
from run_task.pipeline._monitor import Monitor
from run_task.serve._health import Bounds, health, unready


@task
def end_of(data: object, start: int, end: int) -> int:
    return end


class Feed:
    """A source that gives nothing, and may be away."""

    def __init__(self) -> None:
        self.lag: int | None = None
        self.fails = False
        self.position = 0
        self._woken = threading.Event()

    def seek(self, position: Any) -> None:
        """It is there already."""

    def commit(self, position: Any) -> None:
        """Nobody is to be told."""

    def __iter__(self) -> Iterator[tuple[int, dict[str, float]]]:
        self._woken.wait()
        if self.fails:
            raise OSError("the feed is gone for good")
        yield from ()

    def close(self) -> None:
        self._woken.set()

    def fail(self) -> None:
        self.fails = True
        self._woken.set()


def test_it_is_ready_once_its_sources_are_connected_and_no_longer_when_one_fails() -> None:
    bench = PipelineBench([end_of])
    series = TimeSeries({"price": float}, TimeUnit.SECONDS)
    feed, other = Feed(), Feed()
    other.lag = 0
    bench.pipeline.source(feed, into=series, name="feed")
    bench.pipeline.source(other, into=series, name="other")
    bench.stage("a", series)
    with pytest.raises(BaseExceptionGroup), serving(bench.pipeline) as served:
        refused = served.ask("/ready")
        assert (refused.status, refused.told["reasons"]) == (
            503,
            ["pipeline 'bench': source 'feed' is not connected"],
        )
        assert served.ask("/health").status == 200
        feed.lag = 5
        eventually(lambda: served.ask("/ready").status == 200)
        with served.listening("/api/live") as told:
            sources = next(told)[1]["sources"]
            assert (sources["feed"]["connected"], sources["feed"]["lag"]) == (True, 5)
        other.fail()
        eventually(lambda: served.ask("/ready").status == 503)
        (reason,) = served.ask("/ready").told["reasons"]
        assert "the feed is gone for good" in reason


def watched(**config: Any) -> tuple[Pipeline, Monitor]:
    pipeline = Pipeline("p")
    series = TimeSeries({"price": float}, TimeUnit.SECONDS)
    data: Any = series if config else RwLock[object](object())
    pipeline.stage("a", [end_of], data, "1s", RunnerConfig(**config))
    return pipeline, Monitor(pipeline)


def test_windows_that_are_late_or_overdue_make_it_unready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("run_task.pipeline._monitor.time.monotonic", lambda: now)
    pipeline, monitor = watched()
    bounds = Bounds(lateness=10.0)
    assert not unready(pipeline, monitor, {}, bounds, {})
    monitor.note("a", DataSet(Window(0, 1), {"end_of": 1}, lateness=20.0))
    assert unready(pipeline, monitor, {}, bounds, {}) == ["stage 'a' is 20 s late"]
    monitor.note("a", DataSet(Window(1, 2), {"end_of": 2}, lateness=1.0))
    assert not unready(pipeline, monitor, {}, bounds, {})
    now += 12.0
    assert unready(pipeline, monitor, {}, bounds, {}) == ["stage 'a' has given nothing for 12 s"]
    pipeline.stages[0].pause()  # which is no fault
    assert not unready(pipeline, monitor, {}, bounds, {})
    pipeline, monitor = watched(empty=Empty.SKIP)  # it may have nothing to give
    monitor.note("a", DataSet(Window(0, 1), {"end_of": 1}))
    now += 100.0
    assert not unready(pipeline, monitor, {}, bounds, {})


def test_what_fails_now_and_alerts_that_are_on_are_warnings() -> None:
    pipeline, monitor = watched()
    assert health([], pipeline.stages, monitor, 0, {}).status == "ok"
    told = health(["it is late"], pipeline.stages, monitor, 0, {})
    assert (told.status, told.reasons) == ("failing", ["it is late"])
    monitor.of("a").failing = {"end_of"}
    told = health([], pipeline.stages, monitor, 2, {})
    assert told.status == "warning"
    assert told.reasons == ["stage 'a': task 'end_of' gives no result", "2 alerts on"]
    monitor.of("a").failing = set()
    told = health([], pipeline.stages, monitor, 0, {}, "a checkpoint is due for 20 s")
    assert (told.status, told.reasons) == ("warning", ["a checkpoint is due for 20 s"])
