"""Results that wait on disk for a sink that is away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.bench import RecordingSink
from tests.support.threads import PATIENCE, eventually
from tests.test_sink_retry import Bench, Flaky, add, adds_up, end_of, first_calls, sole

from run_task import (
    Alert,
    ConfigError,
    DataSet,
    KeyedDataSet,
    Pipeline,
    Retry,
    RwLock,
    SinkStats,
    TaskError,
    TaskInterval,
    Then,
    Window,
)
from run_task.pipeline._refusals import Refusals
from run_task.pipeline._sink_policy import SinkPolicy
from run_task.pipeline.live import _run
from run_task.pipeline.live._sink_thread import SinkThread
from run_task.sinks import Record, Result, Spool
from run_task.sinks._spool import SpoolFolder, SpoolFull

SECOND = TaskInterval.seconds(1)
PATIENT = Retry(None, "1ms", "5ms")


def result(end: int, values: dict[str, Any] | None = None) -> Result:
    dataset = DataSet(Window(end - 1, end), values or {"end": end}, interval=SECOND)
    return Result.of("p", "a", dataset)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def opened(path: Path, **settings: Any) -> SpoolFolder:
    return SpoolFolder(Spool(path, **settings), "the test")


def drained(spool: SpoolFolder) -> list[int]:
    found: list[int] = []
    while (one := spool.take()) is not None:
        found.append(one.window.end)
    return found


def put(spool: SpoolFolder, *ends: int) -> None:
    for end in ends:
        spool.append([spool.encoded(result(end))])


# The folder


def test_results_come_back_in_order_and_none_is_left_once_they_are_delivered(folder: Path) -> None:
    spool = opened(folder)
    put(spool, 1, 2, 3)
    assert (drained(spool), spool.unread) == ([1, 2, 3], 0)
    put(spool, 4)  # also behind what was read
    assert drained(spool) == [4]
    spool.settle()
    assert [name for name in os.listdir(folder) if name != "spool.lock"] == []
    put(spool, 5)
    assert drained(spool) == [5]
    spool.close()


def test_what_was_not_settled_is_there_again_after_a_restart(folder: Path) -> None:
    spool = opened(folder)
    put(spool, 1, 2, 3)
    assert spool.take() is not None
    spool.close()
    again = opened(folder)
    assert again.unread == 3
    put(again, 4)  # it begins another file
    assert drained(again) == [1, 2, 3, 4]
    again.close()


def test_files_are_removed_as_they_are_delivered(folder: Path) -> None:
    spool = opened(folder, max_bytes=100_000)
    put(spool, *range(1, 201))
    files = len(os.listdir(folder))
    assert files > 3
    for _ in range(150):
        spool.take()
    spool.settle()
    assert len(os.listdir(folder)) < files
    assert drained(spool) == list(range(151, 201))
    spool.close()


def test_there_is_room_for_no_more_than_was_said(folder: Path) -> None:
    spool = opened(folder, max_bytes=2_000)
    with pytest.raises(SpoolFull, match="is full, with max_bytes=2,000"):
        put(spool, *range(1, 100))
    assert sum(file.stat().st_size for file in folder.glob("*.spool")) <= 2_000
    kept = drained(spool)
    assert kept == list(range(1, len(kept) + 1))
    spool.settle()
    put(spool, 100)
    spool.close()


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_end_costs_what_was_being_written_alone(folder: Path, cut: int) -> None:
    spool = opened(folder)
    put(spool, 1, 2, 3)
    spool.close()
    (file,) = folder.glob("*.spool")
    os.truncate(file, file.stat().st_size - cut)
    again = opened(folder)
    put(again, 4)
    assert drained(again) == [1, 2, 4]
    again.close()


def test_a_damaged_byte_costs_what_it_is_part_of_and_is_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = opened(folder)
    put(spool, 1, 2, 3)
    spool.close()
    (file,) = folder.glob("*.spool")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    again = opened(folder)
    put(again, 4)
    assert drained(again) == [1, 4]
    assert "results are gone" in caplog.text
    again.close()


def test_one_sink_has_a_folder_at_a_time(folder: Path) -> None:
    spool = opened(folder)
    with pytest.raises(ConfigError, match="another sink has it: give the test a folder of its own"):
        opened(folder)
    spool.close()
    opened(folder).close()


def test_files_of_others_stay_as_they_are(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    spool = opened(folder)
    put(spool, 1)
    assert drained(spool) == [1]
    spool.settle()
    spool.close()
    assert (folder / "notes.txt").read_text() == "mine"


@dataclass(frozen=True)
class Point:
    x: float
    y: int


def test_a_result_comes_back_as_it_was(folder: Path) -> None:
    error = TaskError("bad", Window(0, 1), "no sensor")
    values = {
        "number": 0.1 + 0.2,
        "alert": Alert(True, 1),
        "array": np.arange(3),
        "point": Point(1.5, 2),
        "nan": float("nan"),
    }
    plain = DataSet(Window(0, 1), values, {"bad": error}, interval=SECOND, behind=["up"])
    of_key = TaskError("m", Window(0, 1), "no row", "b")
    keyed = KeyedDataSet(
        Window(0, 1), "room", {"m": {"a": 1.0}}, {("m", "b"): of_key}, interval=SECOND
    )
    spool = opened(folder, types=[Point])
    for dataset in (plain, keyed):
        spool.append([spool.encoded(Result.of("p", "a", dataset))])
    one, two = spool.take(), spool.take()
    spool.close()
    assert one is not None
    assert two is not None
    assert one[:4] == ("p", "a", Window(0, 1), 0)
    assert one.unit is SECOND.unit
    found: Any = one.dataset
    assert (found["number"], found["alert"], found["point"]) == (
        0.1 + 0.2,
        (True, 1),
        Point(1.5, 2),
    )
    assert type(found["alert"]) is Alert
    assert found["array"].tolist() == [0, 1, 2]
    assert np.isnan(found["nan"])
    assert found.behind == ("up",)
    assert [str(e) for e in found.errors.values()] == [str(e) for e in plain.errors.values()]
    assert isinstance(two.dataset, KeyedDataSet)
    assert dict(two.dataset["m"]) == {"a": 1.0}
    assert {k: str(e) for k, e in two.dataset.errors.items()} == {
        k: str(e) for k, e in keyed.errors.items()
    }
    spool = opened(folder)
    again = spool.take()
    spool.close()
    assert again is not None
    point: Any = again.dataset["point"]
    assert isinstance(point, Record)  # without its type


def test_a_spool_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Spool\(max_bytes=0\)"):
        Spool(tmp_path, 0)
    with pytest.raises(ConfigError, match="no path"):
        Spool(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="it cannot be opened"):
        opened(tmp_path / "file")
    wrong: Any = 5
    with pytest.raises(ConfigError, match=r"spool=5: it is a folder, or a Spool"):
        Bench().stage.sink(RecordingSink(), spool=wrong)


# In a pipeline


def test_windows_go_on_for_as_long_as_there_is_room_and_all_comes_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_run, "SINK_CAPACITY", 10)
    back = threading.Event()

    def away(name: str, number: int) -> OSError | None:
        return None if back.is_set() else ConnectionError("gone")

    bench = Bench()
    bench.stage.sink(sink := Flaky(away), retry=PATIENT, spool=folder)
    with bench.pipeline:
        for _ in range(20):
            bench.advance(25)
        eventually(lambda: bench.computed(500))
        assert adds_up(bench.stats)
        assert sole(bench).waiting == 500
        back.set()
        eventually(lambda: sole(bench).written == 500)
        bench.advance(5)
        eventually(lambda: bench.computed(505))
    assert sink.flushed == list(range(1, 506))
    assert (sole(bench).lost, sole(bench).dropped, sole(bench).spooled) == (0, 0, 0)
    assert not list(folder.glob("*.spool"))


def test_a_sink_that_hangs_holds_up_no_window_where_there_is_a_spool(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_run, "SINK_CAPACITY", 3)
    go_on = threading.Event()

    class Hangs(RecordingSink):
        def write(self, result: Result, /) -> None:
            assert go_on.wait(PATIENCE)
            super().write(result)

    bench = Bench()
    bench.stage.sink(sink := Hangs(), retry=PATIENT, spool=folder)
    with bench.pipeline:
        bench.advance(50)
        eventually(lambda: bench.computed(50))
        go_on.set()
        eventually(lambda: len(sink.results) == 50)
    assert [dataset.timestamp for dataset in sink.of("a")] == list(range(1, 51))


def test_what_waits_at_the_end_is_delivered_first_by_the_next_run(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    away = Flaky(first_calls("write", 10**9, ConnectionError("gone")))
    bench.stage.sink(away, retry=PATIENT, spool=folder)
    with bench.pipeline:  # it ends without an error: nothing is lost
        bench.advance(5)
        eventually(lambda: bench.computed(5))
        eventually(lambda: sole(bench).failures)
    assert sole(bench).waiting == 5
    assert adds_up(bench.stats)
    assert "waits in its spool for the next run" in caplog.text
    next_one = Bench()
    next_one.advance(5)
    next_one.stage.sink(sink := Flaky(lambda name, number: None), spool=folder)
    with next_one.pipeline:
        next_one.advance(2)
        eventually(lambda: next_one.computed(2))
    assert sink.flushed == [1, 2, 3, 4, 5, 6, 7]
    assert sole(next_one) == SinkStats(results=7, written=7)


def test_a_replay_delivers_what_waits_first(folder: Path) -> None:
    spool = opened(folder)
    put(spool, 1, 2)
    spool.close()
    pipeline = Pipeline("p")
    data = RwLock[list[int]]([])
    pipeline.source([(i, i) for i in range(1, 4)], data, add)
    sink = Flaky(lambda name, number: None)
    pipeline.stage("a", [end_of], data, SECOND).sink(sink, spool=folder)
    list(pipeline.replay())
    assert sink.flushed == [1, 2, 2, 3, 4]  # windows that come again replace themselves
    assert not list(folder.glob("*.spool"))


def test_a_full_spool_ends_the_pipeline_or_drops_as_its_policy_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_run, "SINK_CAPACITY", 2)
    for then in Then:
        bench = Bench()
        away = Flaky(first_calls("write", 10**9, ConnectionError("gone")))
        retry = Retry(None, "1ms", "5ms", then=then)
        bench.stage.sink(away, retry=retry, spool=Spool(folder / then.value, 1_000))
        if then is Then.RAISE:
            with pytest.raises(ExceptionGroup, match="bench") as caught, bench.pipeline:
                bench.advance(100)
                eventually(lambda: away.closed)  # noqa: B023  it is called here
            assert "is full, with max_bytes=1,000" in str(caught.value.exceptions[0])
        else:
            with bench.pipeline:
                bench.advance(100)
                eventually(lambda: bench.computed(100))  # noqa: B023
            assert sole(bench).dropped > 90
        assert adds_up(bench.stats)


def test_a_result_that_cannot_be_kept_on_disk_waits_in_memory(folder: Path) -> None:
    failed: list[BaseException] = []
    sink = Flaky(first_calls("write", 3, OSError("gone")))
    thread = SinkThread(
        sink, SinkPolicy(PATIENT, Spool(folder)), "p", "sink", 10, Refusals(), failed.append
    )
    thread.start()
    thread.write("a", DataSet(Window(0, 1), {"odd": object()}))
    eventually(lambda: sink.flushed == [1])
    thread.close()
    assert thread.join(PATIENCE)
    assert not failed


def test_what_is_on_disk_is_told_as_kept_while_the_sink_is_away(folder: Path) -> None:
    failed: list[BaseException] = []
    sink = Flaky(first_calls("write", 10**9, OSError("gone")))
    thread = SinkThread(
        sink, SinkPolicy(PATIENT, Spool(folder)), "p", "sink", 10, Refusals(), failed.append
    )
    thread.start()
    for end in (1, 2, 3):
        thread.write("a", DataSet(Window(end - 1, end), {"end": end}, interval=SECOND))
    eventually(lambda: thread.stats.failures)
    assert thread.flushed().wait(PATIENCE)  # a checkpoint may cover them
    thread.abandon()
    assert thread.join(PATIENCE)
    again = opened(folder)
    assert drained(again) == [1, 2, 3]
    again.close()


PROGRAM = """
import sys, threading, time
from run_task import DataSet, Window, Retry, TaskInterval
from run_task.pipeline._refusals import Refusals
from run_task.pipeline._sink_policy import SinkPolicy
from run_task.pipeline.live._sink_thread import SinkThread
from run_task.sinks import Spool

class Away:
    def write(self, result): raise ConnectionError("gone")
    def flush(self): pass
    def close(self): pass

policy = SinkPolicy(Retry(None, "1ms", "5ms"), Spool(sys.argv[1]))
thread = SinkThread(Away(), policy, "p", "sink", 4, Refusals(), print)
thread.start()
for end in range(1, 10**6):
    thread.write("a", DataSet(Window(end - 1, end), {"end": end}, interval=TaskInterval.seconds(1)))
    if end % 50 == 0 and thread.flushed().wait(10):
        print(end, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 3, 8])
def test_a_kill_costs_nothing_that_was_told_as_kept(folder: Path, lines: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as told:
        last = [int(next(told)) for _ in range(lines)][-1]
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
    spool = opened(folder)
    found = drained(spool)
    spool.close()
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= last


def test_counts_add_up_with_a_spool_whatever_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_run, "SINK_CAPACITY", 5)
    calls: Iterator[bool] = iter([number % 7 == 3 for number in range(10**6)])

    def moody(name: str, number: int) -> OSError | None:
        return OSError(name) if next(calls) else None

    wrong: list[Any] = []
    over = threading.Event()
    bench = Bench()
    bench.stage.sink(sink := Flaky(moody), retry=Retry(None, "1ms", "1ms"), spool=folder)

    def look() -> None:
        while not over.is_set():
            if not adds_up(stats := bench.stats):
                wrong.append(stats)

    watcher = threading.Thread(target=look)
    watcher.start()
    with bench.pipeline:
        for _ in range(40):
            bench.advance(10)
        eventually(lambda: bench.computed(400))
        eventually(lambda: sole(bench).written == 400)
    over.set()
    watcher.join(PATIENCE)
    assert not wrong
    assert sorted(set(sink.flushed)) == list(range(1, 401))
