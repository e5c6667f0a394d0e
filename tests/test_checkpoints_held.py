"""Checkpoints of pipelines whose windows take long: windows are held for them, others are not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.served import Served, serving
from tests.support.threads import beside, eventually

from run_task import (
    CheckpointStats,
    Empty,
    Pipeline,
    RunnerConfig,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
)
from run_task.pipeline.live import _cutting
from run_task.sources import paced

pytest.importorskip("pyarrow")

PATIENT = RunnerConfig(upstream_timeout=60, empty=Empty.SKIP)


class Blocked:
    """A task that waits in each window until that is let go."""

    name = "blocked"

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._free = 0
        self.begun = 0

    def run(self, view: TimeSeriesView, start: int, end: int) -> int:
        with self._changed:
            self.begun += 1
            number = self.begun
            self._changed.wait_for(lambda: number <= self._free, 60)
        return len(view)

    def let_go(self, windows: int) -> None:
        """Let so many windows end, and no more."""
        with self._changed:
            self._free = windows
            self._changed.notify_all()


def declared(where: Path, task: Any, retention: str | None, every: str) -> Pipeline:
    made = Pipeline("p", checkpoint=where, checkpoint_every="50ms")
    rows = [(1_000_000 + 10 * at, {"v": float(at)}) for at in range(6000)]
    series = TimeSeries({"v": float}, TimeUnit.MILLIS, retention=retention)
    made.source(paced(rows, 1, unit=TimeUnit.MILLIS), series)
    made.stage("slow", [task], series, every, PATIENT)
    return made


@contextmanager
def running(made: Pipeline, task: Blocked) -> Generator[None]:
    with beside(made.run_sync) as run:
        try:
            yield
        finally:
            made.shutdown()
            task.let_go(10**6)
            run.result(60)


def kept(made: Pipeline) -> CheckpointStats:
    stats = made.stats.checkpoints
    assert stats is not None
    return stats


def happens(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes to hold within some seconds."""
    try:
        eventually(condition, 2)
    except AssertionError:
        return False
    return True


def told_by(served: Served) -> Any:
    """The first state of a stream."""
    with served.listening("/api/live") as events:
        return next(told for name, told in events if name == "state")


def takes(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let windows take so long, as far as is known of those before."""

    def left(_: object) -> float:
        return seconds

    monkeypatch.setattr(_cutting, "_left", left)
    monkeypatch.setattr(_cutting, "_MOST_QUIET", 0.05)


@pytest.mark.parametrize("retention", [None, "1m"])
def test_a_window_is_waited_for_as_long_as_windows_take(
    retention: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With a retention, a row takes the view of each window that is due before it enters: that would
    # be in hand, too, and so there would be one without end.
    takes(monkeypatch, 6)
    task = Blocked()
    made = declared(tmp_path, task, retention, "3s")
    with running(made, task):
        for _ in range(
            4
        ):  # a checkpoint takes seconds on a busy disk, and windows are not held then
            begun = task.begun
            eventually(lambda: task.begun > begun)  # noqa: B023 - it is called here
            threading.Event().wait(4)  # the next window is due by now
            before = kept(made).number
            task.let_go(task.begun)
            if happens(lambda: kept(made).number > before):  # noqa: B023
                return
            task.let_go(10**6)
            eventually(lambda: kept(made).number > before + 1)  # noqa: B023
            task.let_go(task.begun)
        pytest.fail("at no time was one made between two windows")


def test_a_window_that_would_have_begun_is_held_for_a_second_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes(monkeypatch, 60)
    monkeypatch.setattr(_cutting, "_LONGEST_HELD", 40.0)
    task = Blocked()
    made = declared(tmp_path, task, None, "1s")
    count = Blocked()
    count.let_go(10**6)
    quick = TimeSeries({"v": float}, TimeUnit.MILLIS)
    made.source(
        paced([(1_000_000 + at, {"v": 1.0}) for at in range(60_000)], 1, unit=TimeUnit.MILLIS),
        quick,
    )
    made.stage("quick", [count], quick, "100ms", PATIENT)
    with running(made, task):
        eventually(lambda: task.begun == 1)
        eventually(lambda: kept(made).skipped > 0)
        begun = count.begun
        eventually(lambda: count.begun > begun + 5)
        assert made.stats.stages["quick"].lateness.max < 10


def test_that_none_is_made_is_told_with_how_late_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = Blocked()
    made = declared(tmp_path, task, None, "1s")
    with serving(made, max_lateness="1s") as served:
        try:
            eventually(lambda: kept(made).skipped > 0)
            assert kept(made).seconds_behind > 0.5
            told = "in hand was that of: stage 'slow'"
            eventually(lambda: told in caplog.text)
            assert "s ago one was due: at no moment all stages were done" in caplog.text

            def reasons() -> list[str]:
                return list(told_by(served)["health"]["reasons"])

            eventually(lambda: any("a checkpoint is due for" in each for each in reasons()))
            behind = 'run_task_checkpoint_behind_seconds{pipeline="p"} '
            lines = served.ask("/metrics").body.decode().splitlines()
            (late,) = (one.removeprefix(behind) for one in lines if one.startswith(behind))
            assert float(late) > 1
            number = kept(made).number
            task.let_go(10**6)
            eventually(lambda: kept(made).number > number)
            eventually(lambda: "a checkpoint was made again, " in caplog.text)
        finally:
            made.shutdown()
            task.let_go(10**6)
