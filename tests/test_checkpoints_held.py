"""Checkpoints of pipelines whose windows take long: windows are held for them, others are not."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
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
    VirtualClock,
)
from run_task.pipeline.live import _cut_taker
from run_task.pipeline.live._coordinator import Coordinator
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


def declared(where: Path, task: Any, every: str) -> Pipeline:
    made = Pipeline("p", checkpoint=where, checkpoint_every="50ms")
    rows = [(1_000_000 + 10 * at, {"v": float(at)}) for at in range(6000)]
    series = TimeSeries({"v": float}, TimeUnit.MILLIS)
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


def told_by(served: Served) -> Any:
    """The first state of a stream."""
    with served.listening("/api/live") as events:
        return next(told for name, told in events if name == "state")


def takes(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let windows take so long, as far as is known of those before."""

    def left(_: object) -> float:
        return seconds

    monkeypatch.setattr(_cut_taker, "_left", left)
    monkeypatch.setattr(_cut_taker, "_MOST_QUIET", 0.05)


def test_a_window_is_waited_for_as_long_as_windows_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes(monkeypatch, 6)
    task = Blocked()
    made = declared(tmp_path, task, "3s")
    with running(made, task):
        eventually(lambda: task.begun == 1)
        threading.Event().wait(4)  # the next window is due by now
        before = kept(made).number
        task.let_go(1)
        eventually(lambda: kept(made).number > before, 60)


def test_a_row_that_would_have_a_view_taken_stands_by_while_windows_are_held() -> None:
    # That window would be in hand, too, and where a stage is behind there would be no end of them.
    order: Any = SimpleNamespace(in_hand=[SimpleNamespace(due_ns=5.0)])
    coordinator = Coordinator(order, VirtualClock())

    def yes() -> bool:
        return True

    coordinator.stand_by_with_row(7, yes)
    with ExitStack() as held:
        held.enter_context(coordinator.held())
        coordinator.stand_by_with_row(7, lambda: False)
        coordinator.stand_by_with_row(3, yes)  # a window in hand may wait for it
        with beside(lambda: coordinator.stand_by_with_row(7, yes)) as row:
            with pytest.raises(TimeoutError):
                row.result(0.3)
            held.close()
            row.result(60)


def test_a_window_that_would_have_begun_is_held_for_a_second_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes(monkeypatch, 60)
    monkeypatch.setattr(_cut_taker, "_LONGEST_HELD", 40.0)
    task = Blocked()
    made = declared(tmp_path, task, "1s")
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
    made = declared(tmp_path, task, "1s")
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
