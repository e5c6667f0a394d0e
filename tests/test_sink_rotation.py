"""Files that a sink puts aside: when, how they are read as one, and that no moment harms them."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.crasher import ENDS, Appended
from tests.support.forking import ROOT
from tests.support.proof import examples, in_proof

from run_task import (
    CalendarInterval,
    ConfigError,
    DataSet,
    Pipeline,
    SinkError,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    Window,
    task,
)
from run_task.sinks import CsvSink, JsonLinesSink, Result, Rotation
from run_task.sinks.files import _append as append
from run_task.sinks.files import _disk as disk

Make = Callable[..., Appended]

SECOND = TaskInterval.seconds(1)
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where files are that are made to last by the hundred: on a disk, that takes long."""


@pytest.fixture(params=[JsonLinesSink, CsvSink])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def make(rotation: Rotation | None = None, name: str = "file.x") -> Appended:
        sink: Appended = request.param(tmp_path / name, rotation=rotation)
        sink.begin("p")
        return sink

    return make


def write(
    sink: Appended, *ends: int, mark: Any = 0, stage: str = "s", interval: TaskInterval = SECOND
) -> None:
    for end in ends:
        window = Window(end - 1, end)
        dataset = DataSet(window, {"a": mark, "b": end}, interval=interval)
        sink.write(Result.of("p", stage, dataset))


def flushed(sink: Appended, *ends: int, **options: Any) -> None:
    for end in ends:
        write(sink, end, **options)
        sink.flush()


def ends(sink: Appended, stage: str | None = "s") -> list[int]:
    return [row.end for row in sink.rows(stage) if row.task == "a"]


def ends_in(path: Path) -> list[int]:
    """The ends of the windows in one file, by the reader of another sink."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    made: Appended = (CsvSink if copy.read_bytes().startswith(b"format") else JsonLinesSink)(copy)
    with closing(made) as sink:
        sink.begin("p")
        found = ends(sink, None)
    copy.unlink()
    return found


def files(folder: Path) -> dict[str, list[int]]:
    return {path.name: ends_in(path) for path in sorted(folder.iterdir())}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def expected(count: int) -> dict[int, int]:
    """By end, the mark of each window that is there after so many flushes of the crasher."""
    return {end: mark for mark, end in enumerate(ENDS[:count])}


@pytest.mark.parametrize(
    ("links", "keep", "kind"),
    in_proof(
        [
            (*how, kind)
            for how in (("links", "all"), ("links", "1"), ("none", "1"))
            for kind in ("jsonl", "csv", "wide-csv")
        ],
        short=[
            ("links", "all", "wide-csv"),
            ("links", "1", "jsonl"),
            ("links", "1", "csv"),
            ("none", "1", "wide-csv"),
        ],
    ),
)
def test_a_kill_at_any_step_leaves_what_was_flushed_and_can_be_gone_on_from(
    kind: str, links: str, keep: str
) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        command = [sys.executable, "-m", "tests.support.crasher", kind, links, keep, folder]
        told = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
        )
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert len(lines) > 60
    in_order = True
    for line in lines:
        step, marks, after, there, final = json.loads(line)
        kept = {
            end: mark for stage, end, name, mark in after["rows"] if (stage, name) == ("s", "a")
        }
        count = len(marks)
        known = expected(count), expected(count + 1)  # the one under way may be there, too
        if keep == "all":
            assert kept in known, step
            in_order = in_order and list(kept) == sorted(kept)
        else:
            assert any(kept.items() <= one.items() for one in known), step
        assert after["last"] in [max(one, default=None) for one in known], step
        seldom = None if kind == "wide-csv" else 1
        assert after["seldom"] == (seldom if count else None) or not count, step
        assert len(after["rows"]) == 2 * (len(kept) + (after["seldom"] is not None)), step
        rotated = [name for name in there if name.startswith("file.0")]
        assert keep == "all" or len(rotated) <= int(keep) + 1, step
        if links == "links":
            more = {*there} - {*rotated, "file.x", "file.x.columns"}
            assert len(more) <= 1, step
            assert all(name.startswith(".run-task-") for name in more), step  # for a moment
        if final is None:
            continue
        whole = [row for row in final["rows"] if row[0] == "s" and row[2] == "a"]
        assert final["last"] == max(ENDS), step
        assert final["seldom"] == seldom, step
        if keep == "all":
            assert sorted((row[1], row[3]) for row in whole) == sorted(expected(99).items()), step
    assert in_order


def test_a_file_is_put_aside_before_it_is_longer_than_said(make: Make, tmp_path: Path) -> None:
    rotation = Rotation(max_bytes=600)
    with closing(make(rotation)) as sink:
        write(sink, *range(1, 21))
        sink.flush()
        flushed(sink, *range(21, 31))
        assert ends(sink) == list(range(1, 31))
        there = files(tmp_path)
        assert [*there][:2] == ["file.00000001.x", "file.00000002.x"]
        assert [*there][-1] == "file.x"
        assert [end for found in there.values() for end in found] == list(range(1, 31))
        lengths = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
        assert max(lengths) <= 600
        assert min(lengths[:-1]) > 300
    with closing(make(rotation)) as sink:
        assert ends(sink) == list(range(1, 31))
        assert sink.last("s") == 30
        write(sink, 31, mark="x" * 2_000)
        write(sink, 32)
    assert [31] in files(tmp_path).values()
    with closing(make()) as sink:  # also without rotation, all of them are one
        assert ends(sink) == list(range(1, 33))


def test_by_time_each_file_has_the_windows_of_an_interval(make: Make, tmp_path: Path) -> None:
    with closing(make(Rotation(every="1m"))) as sink:
        write(sink, 10, 59, 60)
        sink.flush()
        write(sink, 61)
        write(sink, 2, stage="minutes", interval=TaskInterval.minutes(1))
        flushed(sink, 50)  # late: it is put where the file is now
    with closing(make(Rotation(every="1m"))) as sink:
        flushed(sink, 110, 121, 300)
        assert sink.last("s") == 300
    assert files(tmp_path) == {
        "file.00000001.x": [10, 59, 60],
        "file.00000002.x": [61, 2, 50, 110],
        "file.00000003.x": [121],
        "file.x": [300],
    }


def test_by_the_calendar_each_file_has_a_day_of_its_zone(make: Make, tmp_path: Path) -> None:
    midnights = [
        int(datetime(2026, month, day, hour, tzinfo=UTC).timestamp())
        for month, day, hour in [(3, 28, 23), (3, 29, 22), (3, 30, 22)]  # clocks are put forward
    ]
    rotation = Rotation(every=CalendarInterval.days(1, zone="Europe/Berlin"))
    with closing(make(rotation)) as sink:
        flushed(sink, *(midnight + more for midnight in midnights for more in (0, 1)))
        flushed(sink, 2**40)  # beyond the years of a calendar
    first, second, third = midnights
    assert files(tmp_path) == {
        "file.00000001.x": [first],
        "file.00000002.x": [first + 1, second],
        "file.00000003.x": [second + 1, third],
        "file.x": [third + 1, 2**40],
    }


def test_by_time_a_window_without_a_unit_is_refused(make: Make) -> None:
    with closing(make(Rotation(every="1h"))) as sink:
        with pytest.raises(SinkError, match=r"stage 's': with rotation by every=.*interval=\.\.\."):
            sink.write(Result.of("p", "s", DataSet(Window(0, 1), {"a": 1})))
        assert ends(sink) == []


def test_the_oldest_are_removed_but_not_the_last_window_of_a_stage(
    make: Make, tmp_path: Path
) -> None:
    others = ["file.0001.x", "file.00000001.y", "file.00000001.x.gz", "file.000000001.x"]
    for name in others:
        (tmp_path / name).write_text("mine")
    rotation = Rotation(every="10s", keep=2)
    with closing(make(rotation)) as sink:
        flushed(sink, 1, stage="seldom")
        flushed(sink, *range(2, 100))
        assert ends(sink) == list(range(71, 100))
        assert (sink.last("s"), sink.last("seldom")) == (99, 1)
        assert ends(sink, "seldom") == [1]
    assert {(tmp_path / name).read_text() for name in others} == {"mine"}
    assert names(tmp_path) == sorted([*others, "file.00000008.x", "file.00000009.x", "file.x"])
    with closing(make(rotation)) as sink:
        assert (sink.last("s"), sink.last("seldom")) == (99, 1)
        flushed(sink, 2, stage="seldom")
        flushed(sink, 105, 115, 125)
        assert ends(sink, "seldom") == [2]
        assert ends(sink) == [105, 115, 125]
        flushed(sink, *range(1, 40))  # all again, as a replay does that begins anew
        assert sink.last("s") == 125
    with closing(make(rotation)) as sink:
        assert sorted(ends(sink)) == [*range(1, 40), 105, 115, 125]


def test_a_window_in_a_file_that_was_put_aside_is_replaced_there(
    make: Make, tmp_path: Path
) -> None:
    rotation = Rotation(every="3s")
    with closing(make(rotation)) as sink:
        flushed(sink, *range(1, 9))
        for path in tmp_path.iterdir():
            path.chmod(0o640)
        flushed(sink, 2, 5, mark="again")
        rows = list(sink.rows())
        assert [(row.end, row.value) for row in rows if row.task == "a"] == [
            (end, "again" if end in (2, 5) else 0) for end in range(1, 9)
        ]
    assert files(tmp_path) == {
        "file.00000001.x": [1, 2, 3],
        "file.00000002.x": [4, 5, 6],
        "file.x": [7, 8],
    }
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
    with closing(make(rotation)) as sink:
        assert list(sink.rows()) == rows
        flushed(sink, 4, 5, 6, mark="third")
        flushed(sink, 9)
        # The first file of two that the window stood in is gone before it is closed.
        (tmp_path / "file.00000002.x").unlink()
        assert ends(sink) == [1, 2, 3, 7, 8, 4, 5, 6, 9]
        assert sink.last("s") == 9


def test_whoever_reads_has_all_rows_whatever_is_removed_meanwhile(
    make: Make, tmp_path: Path
) -> None:
    with closing(make(Rotation(every="3s", keep=1))) as sink:
        flushed(sink, *range(1, 7))
        rows = sink.rows("s")
        first = next(rows)
        flushed(sink, *range(7, 30))
        flushed(sink, 29, mark="again")
        assert [first.end, *(row.end for row in rows)][::2] == [1, 2, 3, 4, 5, 6]
        assert len(names(tmp_path)) > 8
        del rows
        flushed(sink, 30)
        assert len(names(tmp_path)) == 2
        reading = sink.rows()
        next(reading)
        flushed(sink, 27, mark="again")
    rest = [row.end for row in reading if row.task == "b"]  # closed, and not rewritten meanwhile
    assert rest == [25, 26, 27, 28, 29, 30]


def test_a_rotation_that_fails_costs_nothing_and_is_tried_again(
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    sink = make(Rotation(every="3s"))
    flushed(sink, 1, 2, 3)
    for end, name in enumerate(("Draft", "sync_folder", "link"), 4):
        with monkeypatch.context() as patched:
            patched.setattr(append, name, full)
            if name == "link":
                patched.setattr(os, "rename", full)
            flushed(sink, end)
        assert names(tmp_path) == ["file.x"]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1  # and again after a minute
    assert "cannot be rotated: [Errno 28] No space left" in told[0]
    flushed(sink, 7, 10)
    assert ends(sink) == [1, 2, 3, 4, 5, 6, 7, 10]
    sink.close()
    assert files(tmp_path) == {
        "file.00000001.x": [1, 2, 3, 4, 5, 6],
        "file.00000002.x": [7],
        "file.x": [10],
    }


def test_what_was_stored_before_a_failure_is_not_stored_again(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = make(Rotation(every="3s"))
    write(sink, *range(1, 9))
    put: Callable[[Any, bytes], None] = getattr(append.AppendedFile, "_append")  # noqa: B009
    calls = 0

    def fail_once(self: Any, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise SinkError("no")
        put(self, data)

    monkeypatch.setattr(append.AppendedFile, "_append", fail_once)
    with pytest.raises(SinkError, match="no"):
        sink.flush()
    lengths = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    sink.flush()
    sink.close()
    assert [path.stat().st_size for path in sorted(tmp_path.iterdir())][:1] == lengths[:1]
    assert files(tmp_path) == {
        "file.00000001.x": [1, 2, 3],
        "file.00000002.x": [4, 5, 6],
        "file.x": [7, 8],
    }


@pytest.mark.parametrize("content", [b"", b"mine\n", b'{"format":2}\n', b"format,pipeline\r\n"])
def test_a_file_of_somebody_else_by_such_a_name_is_refused_and_stays(
    content: bytes, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = tmp_path / "file.00000003.x"
    foreign.write_bytes(content)
    for rotation in (Rotation(every="3s", keep=1), None):
        with pytest.raises(ConfigError, match=r"file\.00000003\.x' has the name of a file that it"):
            make(rotation)
        assert foreign.read_bytes() == content
    foreign.rename(tmp_path / "other")
    sink = make(Rotation(every="3s", keep=1))
    flushed(sink, 1, 4, 7)
    foreign.write_bytes(content)
    flushed(sink, 10)  # for which there is no other place, and none is lost
    assert "file.00000003.x" in caplog.text
    with pytest.raises(SinkError, match=r"file\.00000003\.x' has the name of a file"):
        sink.last("s")
    assert foreign.read_bytes() == content
    foreign.unlink()
    sink.flush()
    sink.close()
    with closing(make()) as again:
        assert ends(again) == [4, 7, 10]


def test_what_took_the_place_of_a_file_is_not_removed(make: Make, tmp_path: Path) -> None:
    sink = make(Rotation(every="3s", keep=2))
    flushed(sink, 1, 4, 7)
    replaced = tmp_path / "file.00000001.x"
    replaced.unlink()
    replaced.write_text("mine")
    write(sink, 10)
    with pytest.raises(SinkError, match=r"file\.00000001\.x' has the name .* while this sink had"):
        sink.flush()
    assert replaced.read_text() == "mine"
    replaced.unlink()
    flushed(sink, 13)
    assert ends(sink) == [7, 10, 13]
    sink.close()


def test_a_file_that_another_sink_has_open_is_none_of_its_own(make: Make, tmp_path: Path) -> None:
    with closing(make(None, "file.00000002.x")) as other:
        flushed(other, 1)
        with pytest.raises(SinkError, match=r"file\.00000002\.x: another sink is writing there"):
            make(Rotation(every="3s", keep=1))
    (tmp_path / "file.00000002.x").rename(tmp_path / "other")
    with closing(make(Rotation(every="3s", keep=1))) as sink:
        flushed(sink, 1, 4)
        with closing(make(None, "file.00000001.x")) as other:
            flushed(sink, 7, 10)
            assert "file.00000001.x" in names(tmp_path)
            flushed(other, 1)
        flushed(sink, 13)


def test_who_opens_a_file_just_when_it_is_put_aside_leaves_it_alone(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = make(Rotation(every="3s"))
    flushed(sink, 1)
    lock = disk.lock
    waiting = [4]

    def late(descriptor: int, where: str) -> None:
        if waiting:  # another program has opened the file, and has not locked it yet
            flushed(sink, waiting.pop())
        lock(descriptor, where)

    with monkeypatch.context() as patched:
        patched.setattr(append, "lock", late)
        with pytest.raises(SinkError, match="was replaced by something else"):
            make()
    flushed(sink, 5)
    assert ends(sink) == [1, 4, 5]
    sink.close()
    assert files(tmp_path) == {"file.00000001.x": [1], "file.x": [4, 5]}


LIMITED = """
import resource, sys
from tests.test_sink_rotation import Rotation, SinkError, ends, flushed, write
from run_task.sinks import CsvSink, JsonLinesSink

make = CsvSink if sys.argv[1] == "CsvSink" else JsonLinesSink
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, resource.RLIM_INFINITY))
sink = make(f"{sys.argv[2]}/plain")
sink.begin("p")
count = 0
try:
    while True:
        count += 1
        flushed(sink, count)
except SinkError as error:
    assert "cannot be written: [Errno 27] File too large" in str(error), error
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sink.flush()
assert ends(sink) == list(range(1, count + 1)), ends(sink)
sink.close()
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, resource.RLIM_INFINITY))
sink = make(f"{sys.argv[2]}/rotated", rotation=Rotation(max_bytes=2_900))
sink.begin("p")
flushed(sink, *range(1, 100))
write(sink, 50, mark="again")
sink.close()
"""


def test_a_limit_on_the_size_of_files_costs_nothing_and_rotation_stays_below_it(
    make: Make, tmp_path: Path
) -> None:
    made = make(name="rotated")
    made.close()
    (tmp_path / "rotated").unlink()
    command = [sys.executable, "-c", LIMITED, type(made).__name__, str(tmp_path)]
    told = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert told.returncode == 0, told.stderr
    with closing(make(name="rotated")) as sink:
        assert ends(sink) == list(range(1, 100))


def test_a_name_that_is_too_long_to_be_rotated_is_refused(make: Make, tmp_path: Path) -> None:
    name = "x" * 250
    with pytest.raises(ConfigError, match=r"cannot be rotated: .*too long"):
        make(Rotation(every="3s"), name)
    make(None, name).close()


def test_a_folder_that_becomes_read_only_costs_nothing_that_is_stored(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    rotation = Rotation(every="3s", keep=1)
    sink = make(rotation)
    flushed(sink, 1, 2)
    with monkeypatch.context() as patched:
        for name in ("link", "rename", "replace", "unlink"):
            patched.setattr(os, name, denied)
        flushed(sink, 3, 2, 4, 5)
        assert ends(sink) == [1, 2, 3, 4, 5]
        sink.close()
        sink = make(rotation)
        assert ends(sink) == [1, 2, 3, 4, 5]
        sink.close()
    with closing(make(rotation)) as healed:
        assert ends(healed) == [1, 2, 3, 4, 5]
        flushed(healed, 7)
    assert files(tmp_path) == {"file.00000001.x": [1, 2, 3, 4, 5], "file.x": [7]}


@pytest.mark.parametrize("odd", ["folder", "link", "pipe"])
def test_what_is_no_file_by_such_a_name_is_refused(odd: str, make: Make, tmp_path: Path) -> None:
    place = tmp_path / "file.00000001.x"
    target = tmp_path / "target"
    target.write_text("mine")
    match odd:
        case "folder":
            place.mkdir()
        case "link":
            place.symlink_to(target)
        case _:
            os.mkfifo(place)
    with pytest.raises(ConfigError, match=r"has the name of a file that it has rotated"):
        make(Rotation(every="3s"))
    assert target.read_text() == "mine"


def test_a_file_that_was_put_aside_and_is_broken_is_told_by_its_line(
    make: Make, tmp_path: Path
) -> None:
    with closing(make(Rotation(every="3s"))) as sink:
        flushed(sink, 1, 2, 4)
    path = tmp_path / "file.00000001.x"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(SinkError, match=r"file\.00000001\.x, byte \d+: it ends before this window"):
        make()
    path.write_bytes(whole + b"mine\n")
    with pytest.raises(SinkError, match=r"file\.00000001\.x, line \d: this is no .*repair"):
        make()
    assert path.read_bytes() == whole + b"mine\n"


def test_files_that_somebody_takes_away_are_not_missed(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = make(Rotation(every="3s", keep=3))
    flushed(sink, 1, 4, 7, 10)
    (tmp_path / "file.00000002.x").rename(tmp_path / "archived")
    with caplog.at_level(logging.WARNING):
        assert ends(sink) == [1, 7, 10]
    assert "were changed by something else" in caplog.text
    (tmp_path / "file.00000001.x").unlink()
    (tmp_path / "file.00000003.x").unlink()
    flushed(sink, 13, 16)
    assert names(tmp_path) == ["archived", "file.00000004.x", "file.00000005.x", "file.x"]
    assert ends(sink) == [10, 13, 16]
    sink.close()


def test_one_that_cannot_be_removed_is_logged_and_costs_nothing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with closing(make(Rotation(every="3s", keep=1))) as sink:
        flushed(sink, 1, 4)
        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", denied)
            flushed(sink, 7)
        assert "file.00000001.x cannot be removed, though there are more than keep=1" in caplog.text
        assert ends(sink) == [1, 4, 7]
        flushed(sink, 8)
        assert ends(sink) == [4, 7, 8]


STEPS = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 30)),
    st.sampled_from([("flush", 0), ("reopen", 0), ("read", 0)]),
)


@settings(max_examples=examples(40), deadline=None)
@given(
    kind=st.sampled_from([CsvSink, JsonLinesSink]),
    rotation=st.builds(
        Rotation,
        max_bytes=st.integers(1, 2_000),
        every=st.one_of(st.none(), st.integers(1, 10).map(lambda count: f"{count}s")),
    ),
    steps=st.lists(STEPS, max_size=40),
)
def test_any_history_reads_as_that_of_one_file(
    kind: type[Appended], rotation: Rotation, steps: list[tuple[str, int]]
) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:

        def opened() -> Appended:
            sink = kind(Path(folder, "file.x"), rotation=rotation)
            sink.begin("p")
            return sink

        sink = opened()
        known: dict[int, int] = {}
        waiting: dict[int, int] = {}
        for mark, (step, end) in enumerate([*steps, ("read", 0), ("reopen", 0), ("read", 0)]):
            if step == "write":
                write(sink, end, mark=mark)
                waiting.pop(end, None)  # so that it is the last one
                waiting[end] = mark
                continue
            known |= waiting
            waiting.clear()
            if step == "flush":
                sink.flush()
            elif step == "reopen":
                sink.close()
                sink = opened()
            else:
                rows = [(row.end, row.value) for row in sink.rows() if row.task == "a"]
                assert rows == list(known.items())
                assert sink.last("s") == max(known, default=None)
        sink.close()
        assert sorted(chain.from_iterable(files(Path(folder)).values())) == sorted(known)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "say when by max_bytes="),
        ({"keep": 3}, "say when by max_bytes="),
        ({"max_bytes": 0}, r"max_bytes=0\): it is a positive int"),
        ({"max_bytes": True}, r"max_bytes=True\): it is a positive int"),
        ({"max_bytes": 1.5}, r"max_bytes=1\.5\): it is a positive int"),
        ({"every": "soon"}, r"Rotation\(every='soon'\)"),
        ({"every": 60}, r"Rotation\(every=60\)"),
        ({"every": "1h", "keep": 0}, r"keep=0\): it is a positive int"),
    ],
)
def test_a_rotation_is_checked_when_it_is_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Rotation(**options)


def test_a_rotation_is_a_value() -> None:
    assert Rotation(every="1d", keep=3) == Rotation(every="1d", keep=3)
    assert hash(Rotation(every="1d")) == hash(Rotation(every="1d"))
    assert repr(Rotation(max_bytes=1)) == "Rotation(max_bytes=1, every=None, keep=None)"
    with pytest.raises(AttributeError):
        setattr(Rotation(max_bytes=1), "max_bytes", 2)  # noqa: B010 checkers know that


def test_what_is_no_rotation_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rotation='1d': it is a Rotation, or None"):
        make("1d")
    assert names(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_where_nothing_can_be_put_aside_is_refused(make: Make, tmp_path: Path) -> None:
    make().close()
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ConfigError, match="its folder is not there or not writable"):
            make(Rotation(every="3s"))
    finally:
        tmp_path.chmod(0o700)


def test_a_replay_that_is_resumed_after_rows_were_removed_ends_as_an_undisturbed_one(
    make: Make, tmp_path: Path
) -> None:
    rows = [(second, {"x": float(second % 7)}) for second in range(200)]

    @task
    def total(view: TimeSeriesView, start: int, end: int) -> float:
        return float(view.in_window["x"].sum())

    def pipeline(sink: Appended) -> Pipeline:
        made = Pipeline("p")
        series = TimeSeries({"x": float}, TimeUnit.SECONDS)
        made.source(rows, into=series)
        for name, interval in (("seconds", "1s"), ("seldom", "150s")):
            made.stage(name, [total], series, interval).sink(sink)
        return made

    def seen(sink: Appended) -> tuple[Any, ...]:
        last = sink.last("seconds"), sink.last("seldom")
        return *last, sorted((row.stage, row.end, row.value) for row in sink.rows())

    rotation = Rotation(every="10s", keep=1)
    with closing(make(rotation, "undisturbed")) as sink:
        for _ in pipeline(sink).replay():
            pass
        undisturbed = seen(sink)
    with closing(make(rotation)) as sink:
        for _, dataset in pipeline(sink).replay():
            if dataset.timestamp == 190:
                break
        assert sink.last("seldom") == 150
        assert len([*sink.rows("seconds")]) < 60
    with closing(make(rotation)) as sink:
        given = [dataset.timestamp for _, dataset in pipeline(sink).resume(sink)]
        assert given[0] in (150, 190)
        assert seen(sink) == undisturbed
