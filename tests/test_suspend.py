"""After a process stood still, the rows that waited meanwhile are in their windows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.bench import PipelineBench
from tests.support.threads import PATIENCE, beside, eventually

from run_task import (
    MissedTick,
    RwLock,
    SystemClock,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    task,
)
from run_task.pipeline._fates import Tally
from run_task.pipeline._order import Place, SourceMark
from run_task.pipeline.live import _catch_up
from run_task.pipeline.live._catch_up import CatchUp
from run_task.runner._scheduler import scheduler_of

MS = 10**6
SECOND_NS = 10**9


@task
def held(view: TimeSeriesView, start: int, end: int) -> list[int]:
    return list(map(int, view.in_window.time))


class Pipe:
    """A source of which some rows wait until it may go on; then each takes a moment to read."""

    def __init__(self, rows: Sequence[tuple[int, dict[str, float]]]) -> None:
        self.stands = threading.Event()
        self.goes_on = threading.Event()
        self.given = threading.Event()
        self.ends = threading.Event()
        self._rows = rows

    def __iter__(self) -> Iterator[tuple[int, dict[str, float]]]:
        self.stands.set()
        assert self.goes_on.wait(PATIENCE)
        yield from self._rows
        self.given.set()
        self.ends.wait(PATIENCE)


ROWS = [(second, {"v": 1.0}) for second in range(10)]


class Bench(PipelineBench):
    """A pipeline that can be suspended while its engines wait for a time."""

    def __init__(self, tasks: Iterable[Any] = ()) -> None:
        super().__init__(tasks)
        self._until_ns = SECOND_NS**3  # to when the engines wait
        clock: Any = self.clock
        scheduler: Any = scheduler_of(self.clock)
        wait = self.clock.wait

        def noted(alarm: Any, until_ns: int) -> None:
            if alarm is scheduler._alarm:
                self._until_ns = until_ns
            wait(alarm, until_ns)

        clock.wait = noted

    def sleep(self, seconds: int) -> None:
        """Let time pass at once, while nothing runs."""
        eventually(lambda: self._until_ns < self.clock.monotonic_ns() + 60 * SECOND_NS)
        self.advance(seconds)


def run_until(monkeypatch: pytest.MonkeyPatch, blocked: Callable[[], bool]) -> None:
    """Let a pause of the engines end when the sources have run until they block."""

    def pause(seconds: float) -> None:
        eventually(blocked)

    monkeypatch.setattr(CatchUp, "pause", staticmethod(pause))


@pytest.mark.parametrize("missed", [MissedTick.BURST, MissedTick.COALESCE])
def test_rows_that_waited_are_in_their_windows(
    missed: MissedTick, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = Pipe(ROWS)

    def blocked() -> bool:
        pipe.goes_on.set()
        return pipe.given.is_set()

    run_until(monkeypatch, blocked)
    bench = Bench([held])
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    bench.pipeline.source(pipe, series)
    for name in "abc":
        bench.stage(name, series, 2, missed_tick=missed)
    with bench.pipeline:
        assert pipe.stands.wait(PATIENCE)
        bench.sleep(10)
        for name in "abc":
            assert bench.sink.wait_for(name, 10)["held"][-2:] == [8, 9]
        pipe.ends.set()
    for name in "abc":
        rows = [row for dataset in bench.sink.of(name) for row in dataset["held"]]
        assert rows == list(range(10))
    assert bench.pipeline.stats.sources["source-1"].late == 0


def test_before_each_window_where_rows_wait_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe(ROWS)
    bench = Bench()
    data = RwLock[list[int]]([])

    @task
    def seen(values: list[int], start: int, end: int) -> list[int]:
        return list(values)

    bench.pipeline.source(
        pipe, data, lambda values, row: values.append(len(values)), unit=TimeUnit.SECONDS
    )
    bench.stage("a", data, 2, tasks=[seen])

    def blocked() -> bool:
        """Whether as many rows have entered as come before the next window."""
        pipe.goes_on.set()
        stats = bench.pipeline.stats
        return stats.sources["source-1"].stored == 2 + 2 * stats.stages["a"].ticks

    run_until(monkeypatch, blocked)
    with bench.pipeline:
        assert pipe.stands.wait(PATIENCE)
        bench.sleep(4)
        bench.sink.wait_for("a", 4)
        pipe.ends.set()
    assert [len(dataset["seen"]) for dataset in bench.sink.of("a")[:2]] == [2, 4]


class Sources:
    """What has been received by some sources, of which one gives a row in each pause."""

    def __init__(self, gives: int) -> None:
        self.clock = VirtualClock()
        self.pauses = 0
        self._gives = gives
        self.tally = Tally()
        self.mark = SourceMark("a", Place(), recording=False)
        self.catch_up = self._made()
        self.catch_up.add(self.mark, self.tally)

    def _made(self) -> CatchUp:
        catch_up = CatchUp(self.clock)
        catch_up.pause = self.pause
        return catch_up

    def pause(self, seconds: float) -> None:
        assert seconds == 0.01
        self.pauses += 1
        if self._gives:
            self._gives -= 1
            self.tally.received += 1


class Unwatched:
    """In the place of the watch: it takes note of what it is to look after, and does not."""

    def __init__(self) -> None:
        self.watched: list[CatchUp] = []
        self.add, self.remove = self.watched.append, self.watched.remove

    def wake(self) -> None: ...

    def settle(self) -> None: ...


@pytest.mark.parametrize("by", ["the watch", "a window"])
def test_who_looks_first_sees_that_the_process_stood_still(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, unwatched = Sources(3), Unwatched()
    now = [100.0]
    clock = SystemClock()
    monkeypatch.setattr(_catch_up, "watch", lambda: unwatched)
    monkeypatch.setattr(_catch_up, "time", SimpleNamespace(monotonic=lambda: now[0]))
    catch_up = CatchUp(clock)
    catch_up.pause = sources.pause
    catch_up.begin()
    assert not unwatched.watched  # no row can wait meanwhile
    catch_up.add(sources.mark, sources.tally)
    catch_up.begin()
    assert unwatched.watched == [catch_up]
    scheduler = scheduler_of(clock)
    before_ns = scheduler.overslept_ns
    for _ in range(5):
        now[0] += 0.3
        assert catch_up.look() == 0.25
        catch_up.wait_if_stood_still(each=False)
    assert (sources.pauses, scheduler.overslept_ns) == (0, before_ns)
    now[0] += 3.0
    if by == "the watch":
        catch_up.look()
        assert sources.pauses == 0  # that is for the windows that were due
    else:
        catch_up.wait_if_stood_still(each=False)
        assert sources.pauses == 5
        catch_up.look()
    assert before_ns < scheduler.overslept_ns <= clock.monotonic_ns()
    found_ns = scheduler.overslept_ns
    now[0] += 0.1
    catch_up.wait_if_stood_still(each=False)
    assert scheduler.overslept_ns == found_ns
    catch_up.end()
    assert not unwatched.watched
    now[0] += 3.0
    catch_up.wait_if_stood_still(each=False)
    assert scheduler.overslept_ns == found_ns


def test_sources_run_until_they_block() -> None:
    sources = Sources(3)
    sources.catch_up.wait(0, each=False)
    assert sources.pauses == 5  # in the last two, none comes


def test_or_a_tenth_of_a_second_at_most() -> None:
    sources = Sources(10**9)
    sources.catch_up.wait(0, each=False)
    assert sources.pauses == 10
    sources.catch_up.wait(0, each=True)  # all windows that were overslept together
    assert sources.pauses == 10


def test_stages_share_one_wait() -> None:
    sources = Sources(0)
    for _ in range(16):
        sources.catch_up.wait(0, each=False)
    assert sources.pauses == 2
    sources.clock.advance("1s")
    sources.catch_up.wait(SECOND_NS // 2, each=False)  # another oversleep
    assert sources.pauses == 4
    sources.catch_up.wait(SECOND_NS, each=False)  # sources have run since this was due
    assert sources.pauses == 4


def test_there_is_nothing_to_wait_for_once_sources_have_ended() -> None:
    sources = Sources(0)
    sources.mark.ended = True
    sources.catch_up.wait(0, each=False)
    assert sources.pauses == 0


def test_a_tick_on_time_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []

    def wait(self: Any, due_ns: int, *, each: bool) -> None:
        waits.append(due_ns)

    monkeypatch.setattr(CatchUp, "wait", wait)
    bench = Bench([held])
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    pipe = Pipe([])
    bench.pipeline.source(pipe, series)
    bench.stage("a", series)
    with bench.pipeline:
        for second in range(1, 4):
            bench.advance(1)
            bench.sink.wait_for("a", second)
        assert waits == []
        bench.sleep(3)
        bench.sink.wait_for("a", 6)
        assert waits == [4 * SECOND_NS, 5 * SECOND_NS, 6 * SECOND_NS]
        bench.advance(1)
        bench.sink.wait_for("a", 7)
        assert len(waits) == 3
        pipe.goes_on.set()
        pipe.ends.set()


def test_a_window_that_is_late_for_the_time_that_tasks_take_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[int] = []

    def wait(self: Any, due_ns: int, *, each: bool) -> None:
        waits.append(due_ns)

    monkeypatch.setattr(CatchUp, "wait", wait)
    bench = Bench()
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)

    @task
    def slow(view: TimeSeriesView, start: int, end: int) -> int:
        if end == 1:
            bench.advance(4)
        return end

    pipe = Pipe([])
    bench.pipeline.source(pipe, series)
    bench.stage("a", series, tasks=[slow], executor="inline")
    with bench.pipeline:
        bench.advance(1)
        bench.sink.wait_for("a", 5)
        assert waits == []
        pipe.goes_on.set()
        pipe.ends.set()


PROGRAM = """
    import json
    import time
    from run_task import Pipeline, RunnerConfig, TimeSeries, TimeUnit, task
    from run_task.sources import StdinJsonLines

    windows = 0

    @task
    def held(view, start, end):
        global windows
        windows += 1
        if windows == BUSY:
            print("busy", flush=True)
            time.sleep(0.3)
        return list(map(int, view.in_window.time))

    series = TimeSeries({"n": int}, unit=TimeUnit.MILLIS)
    pipeline = Pipeline("child")
    pipeline.source(StdinJsonLines(timestamp="time", columns={"n": int}), series)
    for name in NAMES:
        pipeline.stage(name, [held], series, "250ms", RunnerConfig(grace="200ms"))
    given = {name: [] for name in NAMES}
    for stage in pipeline.stages:
        from run_task.sinks import CallbackSink
        stage.sink(CallbackSink(lambda name, dataset: given[name].extend(dataset["held"])))
    print("begun", flush=True)
    pipeline.run_sync()
    counts = pipeline.stats.sources["source-1"]
    print(json.dumps({"given": given, "late": counts.late, "stored": counts.stored}))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no such signal")
@pytest.mark.parametrize(("names", "busy"), [("ab", 0), ("ab", 7), ("a", 4)])
def test_a_process_that_is_stopped_under_a_pipe_that_goes_on(
    names: str, busy: int, tmp_path: Path
) -> None:
    """Between two windows, or in the middle of a task."""
    program = tmp_path / "child.py"
    text = textwrap.dedent(PROGRAM).replace("NAMES", repr(names)).replace("BUSY", str(busy))
    program.write_text(text)
    child = subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    rows = child.stdin
    sent: list[int] = []
    enough = threading.Event()

    def send() -> None:
        while not enough.wait(0.01):
            now = time.time_ns() // MS
            rows.write(json.dumps({"time": now, "n": 1}) + "\n")
            rows.flush()
            sent.append(now)

    try:
        assert child.stdout.readline() == "begun\n"
        with beside(send):
            try:
                if busy:
                    assert child.stdout.readline() == "busy\n"
                else:
                    time.sleep(1)
                os.kill(child.pid, signal.SIGSTOP)
                time.sleep(3)
                os.kill(child.pid, signal.SIGCONT)
                time.sleep(1)
            finally:
                enough.set()
        out, _ = child.communicate(timeout=PATIENCE)
    finally:
        child.kill()
        child.wait()
    told = json.loads(out)
    assert told["stored"] == len(sent)
    assert told["late"] == 0
    assert told["given"] == dict.fromkeys(names, sent)
