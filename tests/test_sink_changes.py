"""What others have, and what they do to the files of a sink."""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from run_task import ConfigError, DataSet, SinkError, Window
from run_task.sinks import CsvSink, JsonLinesSink, ParquetSink, Result
from run_task.sinks.files import _disk as disk

pytest.importorskip("pyarrow.parquet")

Appended = CsvSink | JsonLinesSink
Make = Callable[[Path], Appended]


@pytest.fixture(params=[JsonLinesSink, CsvSink])
def make(request: pytest.FixtureRequest) -> Make:
    def make(path: Path) -> Appended:
        sink: Appended = request.param(path)
        sink.begin("p")
        return sink

    return make


@pytest.fixture(params=["nameless", "named"])
def drafts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files under way as this system has them, and as others do."""
    if request.param == "named":
        monkeypatch.setattr(disk, "_NAMELESS", 0)


def write(sink: Appended | ParquetSink, *ends: int) -> None:
    for end in ends:
        sink.write(Result.of("p", "s", DataSet(Window(end - 60, end), {"t": end})))
    sink.flush()


def ends(sink: Appended | ParquetSink) -> list[int]:
    return [row.end for row in sink.rows()]


def parquet_sink(folder: Path) -> ParquetSink:
    sink = ParquetSink(folder)
    sink.begin("p")
    return sink


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


FOREIGN = [
    b'{"pipeline":"mine","x":1}',
    b'{"pipeline":"mine","x":1}\n',
    b'{"pipeline": "deploy", "steps": [1, 2]}\n',
    b'{"pipeline":"a"}\n{"pipeline":"b"}\n',
    b"[1, 2]",
    b"\0",
    bytes(10_000),
    b"pipeline,stage\n",
    b"text",
    b"\n",
    b"\xff\xfe",
]


@pytest.mark.parametrize("content", FOREIGN)
def test_a_file_of_somebody_else_is_refused_and_stays(
    content: bytes, make: Make, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises((ConfigError, SinkError), match="file"):
        make(path)
    assert everything(tmp_path) == {"file": content}


@pytest.mark.parametrize("content", [*FOREIGN, b"hello,world\r\n", b"p,s,0,60,t\r\n"])
def test_what_somebody_has_written_at_the_end_is_not_cut_off(
    content: bytes, make: Make, tmp_path: Path
) -> None:
    if content.startswith(b"\0"):
        return  # a loss of power leaves these
    path = tmp_path / "file"
    with closing(make(path)) as sink:
        write(sink, 60)
    whole = path.read_bytes() + content + (b"" if content.endswith(b"\n") else b"\r\n")
    path.write_bytes(whole)
    with pytest.raises(SinkError, match="repair or remove it"):
        make(path)
    assert path.read_bytes() == whole


def test_what_is_no_regular_file_is_refused(make: Make, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="cannot be opened: it is no regular file"):
        make(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="cannot be opened: it is no regular file"):
        make(Path("/dev/null"))


@pytest.mark.usefixtures("drafts")
def test_files_beside_it_stay_whatever_they_are_called(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "file"
    foreign = ["file.rewriting", "file.tmp", ".file.tmp", "file~", "file.1", ".run-task-0.tmp"]
    for name in foreign[1:]:
        (tmp_path / name).write_text("mine")
    (tmp_path / foreign[0]).symlink_to(tmp_path / foreign[1])
    sink = make(path)
    write(sink, 60, 120)
    write(sink, 60)
    size = path.stat().st_size
    sink.close()
    assert path.stat().st_size < size  # it was rewritten
    assert sorted(os.listdir(tmp_path)) == sorted([*foreign, "file"])
    assert {(tmp_path / name).read_text() for name in foreign} == {"mine"}


@pytest.mark.usefixtures("drafts")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_a_file_that_is_rewritten_is_never_more_open_than_it_was(
    mode: int, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    sink = make(path)
    path.chmod(mode)
    write(sink, 60, 120)
    write(sink, 60)
    seen: set[int] = set()
    fsync = os.fsync

    def look(descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            seen.add(stat.S_IMODE(status.st_mode))
        seen.update(stat.S_IMODE(other.stat().st_mode) for other in tmp_path.iterdir())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    sink.close()
    assert seen == {mode}


@pytest.mark.usefixtures("drafts")
def test_a_rewrite_that_fails_leaves_the_file_and_nothing_else(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    sink = make(path)
    write(sink, 60, 120)
    write(sink, 60)
    before = everything(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("no")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        sink.close()
        assert "cannot be rewritten without what was superseded" in caplog.text
        assert everything(tmp_path) == before
        sink = make(path)  # nor does it keep anybody from opening it
        assert sorted(ends(sink)) == [60, 120]
        sink.close()
    assert everything(tmp_path) == before
    sink = make(path)
    assert sorted(ends(sink)) == [60, 120]
    sink.close()


def renamed(path: Path) -> None:
    path.rename(path.with_name("rotated"))


def removed(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def replaced_by_an_empty_one(path: Path) -> None:
    path.rename(path.with_name("rotated"))
    path.touch()


@pytest.mark.parametrize("change", [renamed, removed, emptied, replaced_by_an_empty_one])
def test_a_file_that_is_rotated_underneath_is_gone_on_with_at_its_path(
    change: Callable[[Path], None], make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    sink = make(path)
    path.chmod(0o640)
    write(sink, 60, 120)
    before = path.read_bytes()
    change(path)
    with caplog.at_level(logging.WARNING, "run_task.sinks"):
        write(sink, 180)
    assert "by something else" in caplog.text
    assert ends(sink) == [180]
    assert sink.last("s") == 180
    write(sink, 240)
    sink.close()
    with closing(make(path)) as sink:
        assert ends(sink) == [180, 240]
    if change is renamed or change is replaced_by_an_empty_one:
        assert (tmp_path / "rotated").read_bytes() == before
    if change is not replaced_by_an_empty_one:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_that_is_cut_anywhere_underneath_is_gone_on_with(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "file"
    sink = make(path)
    write(sink, 60, 120)
    size = path.stat().st_size
    sink.close()
    for cut in range(0, size, 3):
        path.unlink()
        sink = make(path)
        write(sink, 60, 120)
        os.truncate(path, cut)
        write(sink, 180)
        left = ends(sink)
        assert left in ([180], [60, 180], [60, 120, 180])
        assert b"\0" not in path.read_bytes()
        sink.close()
        with closing(make(path)) as sink:
            assert ends(sink) == left


def test_a_file_that_is_emptied_just_while_it_is_written_can_be_opened_again(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    sink = make(path)
    write(sink, 60, 120)
    real = os.write

    def emptied_before(descriptor: int, data: bytes) -> int:
        os.truncate(path, 0)
        return real(descriptor, data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", emptied_before)
        with pytest.raises(SinkError, match=r"file.*: something else changed it while"):
            write(sink, 180)
    with closing(make_again(sink, make, path)) as again:
        assert set(ends(again)) <= {180}
    sink = make(path)
    write(sink, 240)
    assert set(ends(sink)) >= {240}
    sink.close()


def make_again(sink: Appended, make: Make, path: Path) -> Appended:
    sink.close()  # which writes what waits
    return make(path)


def test_a_file_that_is_replaced_by_something_else_is_refused_until_that_is_gone(
    make: Make, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    sink = make(path)
    write(sink, 60)
    path.rename(tmp_path / "rotated")
    path.write_text("mine\n")
    for end in (120, 180):
        with pytest.raises(SinkError, match="file"):
            write(sink, end)
        assert path.read_text() == "mine\n"
    path.unlink()
    path.symlink_to(tmp_path / "target")
    with pytest.raises(SinkError, match="file"):
        write(sink, 240)
    assert not (tmp_path / "target").exists()
    path.unlink()
    path.mkdir()
    with pytest.raises(SinkError, match="file"):
        sink.flush()
    path.rmdir()
    sink.flush()
    assert ends(sink) == [120, 180, 240]
    sink.close()


def test_a_file_to_which_something_else_writes_is_refused(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "file"
    sink = make(path)
    write(sink, 60)
    with path.open("ab") as file:
        file.write(b"mine")
    before = path.read_bytes()
    with pytest.raises(SinkError, match=r"file.*: something else has written 4 bytes to it after"):
        write(sink, 120)
    assert path.read_bytes() == before
    os.truncate(path, len(before) - 4)
    sink.flush()
    assert ends(sink) == [60, 120]
    sink.close()


def test_a_file_that_another_sink_has_made_meanwhile_is_left_to_it(
    make: Make, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    first = make(path)
    write(first, 60)
    path.rename(tmp_path / "rotated")
    second = make(path)
    with pytest.raises(SinkError, match="another sink is writing there"):
        write(first, 120)
    write(second, 180)
    second.close()
    first.close()  # which writes what has waited
    with closing(make(path)) as sink:
        assert ends(sink) == [180, 120]


def test_a_file_that_was_renamed_is_not_rewritten_when_the_sink_is_closed(
    make: Make, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    sink = make(path)
    write(sink, 60, 120)
    write(sink, 60)
    path.rename(tmp_path / "rotated")
    path.write_text("mine")
    sink.close()
    assert path.read_text() == "mine"
    with closing(make(tmp_path / "rotated")) as sink:
        assert sorted(ends(sink)) == [60, 120]


def test_a_folder_that_is_gone_is_told(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    sink = make(folder / "file")
    write(sink, 60)
    shutil.rmtree(folder)
    with pytest.raises(SinkError, match=r"folder/file.*cannot be written"):
        write(sink, 120)
    folder.mkdir()
    sink.flush()
    assert ends(sink) == [120]
    sink.close()


@pytest.mark.usefixtures("drafts")
def test_files_of_others_in_a_folder_of_parquet_files_stay(tmp_path: Path) -> None:
    foreign = {
        "download.parquet.tmp": b"half a download",
        "0000000001-0000000001.parquet.tmp": b"mine",
        "notes.txt": b"mine",
        ".run-task-0.tmp": b"mine",
    }
    for name, content in foreign.items():
        (tmp_path / name).write_bytes(content)
    with closing(parquet_sink(tmp_path)) as sink:
        for end in range(60, 60 * 20, 60):
            write(sink, end)
    names = everything(tmp_path).keys() - foreign.keys()
    assert foreign.items() <= everything(tmp_path).items()
    assert names == {
        ".lock",
        "0000000001-0000000008.parquet",
        "0000000009-0000000016.parquet",
        *(f"00000000{n}-00000000{n}.parquet" for n in (17, 18, 19)),
    }


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".lock").symlink_to(tmp_path / "target")
    with pytest.raises(ConfigError, match="cannot be opened"):
        ParquetSink(folder)
    assert not (tmp_path / "target").exists()


@pytest.mark.usefixtures("drafts")
def test_a_file_that_lies_where_the_next_flush_goes_stays(tmp_path: Path) -> None:
    sink = parquet_sink(tmp_path)
    write(sink, 60)
    foreign = tmp_path / "0000000002-0000000002.parquet"
    foreign.write_text("mine")
    with pytest.raises(SinkError, match="0000000002-0000000002"):
        write(sink, 120)
    assert foreign.read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == [
        ".lock",
        "0000000001-0000000001.parquet",
        "0000000002-0000000002.parquet",
    ]
    foreign.unlink()
    sink.flush()
    assert ends(sink) == [60, 120]
    sink.close()


def test_a_folder_that_is_gone_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    sink = parquet_sink(folder)
    write(sink, 60)
    write(sink, 120)
    shutil.rmtree(folder)
    write(sink, 180)
    assert "was changed by something else" in caplog.text
    assert (ends(sink), sink.last("s")) == ([180], 180)
    folder.rename(tmp_path / "away")
    folder.write_text("mine")
    with pytest.raises(SinkError, match="folder"):
        write(sink, 240)
    folder.unlink()
    sink.flush()
    assert ends(sink) == [240]
    sink.close()
    with closing(parquet_sink(tmp_path / "away")) as sink:
        assert ends(sink) == [180]


def test_a_parquet_file_that_is_gone_or_replaced_is_noticed(tmp_path: Path) -> None:
    sink = parquet_sink(tmp_path)
    for end in (60, 120, 180):
        write(sink, end)
    second = tmp_path / "0000000002-0000000002.parquet"
    second.unlink()
    write(sink, 240)
    assert ends(sink) == [60, 180, 240]
    third = tmp_path / "0000000003-0000000003.parquet"
    content = third.read_bytes()
    third.write_text("mine")
    with pytest.raises(SinkError, match=r"0000000003-0000000003\.parquet is not a file of this"):
        write(sink, 300)
    with pytest.raises(SinkError, match=r"0000000003-0000000003\.parquet is not a file of this"):
        sink.last("s")
    assert third.read_text() == "mine"
    third.write_bytes(content)
    sink.flush()
    assert ends(sink) == [60, 180, 240, 300]
    sink.close()


def test_a_file_that_was_merged_and_replaced_meanwhile_is_not_removed(tmp_path: Path) -> None:
    sink = parquet_sink(tmp_path)
    for end in range(60, 60 * 8, 60):
        write(sink, end)
    rows = sink.rows()
    next(rows)
    write(sink, 480)  # merges, but what is read stays
    old = tmp_path / "0000000001-0000000001.parquet"
    assert old.exists()
    old.unlink()
    old.write_text("mine")
    rest: Iterator[Any] = iter(rows)
    del rows, rest
    sink.close()
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == [
        "0000000001-0000000001.parquet",
        "0000000001-0000000008.parquet",
    ]
    assert old.read_text() == "mine"


def test_the_old_way_to_write_is_warned_of(make: Make, tmp_path: Path) -> None:
    sink = make(tmp_path / "file")
    with pytest.warns(DeprecationWarning, match=r"is now write\(Result\.of\(pipeline, stage"):
        sink.write("s", DataSet(Window(0, 60), {"t": 1}))
    assert ends(sink) == [60]
    wrong: Any = DataSet(Window(0, 60), {"t": 1})
    with pytest.raises(ConfigError, match="a sink is given a Result, not DataSet"):
        sink.write(wrong)
    sink.close()
