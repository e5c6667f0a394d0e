"""What is particular to the sinks that write files, and their way back after a crash."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from run_task import (
    ConfigError,
    DataSet,
    KeyedDataSet,
    SinkError,
    TaskError,
    TaskInterval,
    Window,
)
from run_task.sinks import CsvSink, JsonLinesSink, ParquetSink, Result, Row

parquet = pytest.importorskip("pyarrow.parquet")

Appended = CsvSink | JsonLinesSink


def window(end: int, mark: str = "") -> DataSet[Any]:
    error = TaskError("bad", Window(end - 60, end))
    error.__cause__ = ValueError('two\nlines, "quoted"')
    return DataSet(Window(end - 60, end), {"a": end / 7, "text": f'é\n",{mark}'}, {"bad": error})


@pytest.fixture(params=[JsonLinesSink, CsvSink])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Appended]:
    def make() -> Appended:
        sink: Appended = request.param(tmp_path / "file")
        sink.begin("p")
        return sink

    return make


def test_a_file_that_is_torn_anywhere_is_whole_again(
    make: Callable[[], Appended], tmp_path: Path
) -> None:
    """Cut off at each of its bytes, and written on from there."""
    path = tmp_path / "file"
    sink = make()
    ends: list[int] = [path.stat().st_size]
    for end in (60, 120, 180):
        sink.write(Result.of("p", "s", window(end)))
        sink.flush()
        ends.append(path.stat().st_size)
    expected = list(sink.rows())
    sink.close()
    whole = path.read_bytes()
    assert len(whole) == ends[-1]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        sink = make()
        last = sink.last("s") or 0
        kept = sum(size >= end for end in ends[1:])
        assert last == 60 * kept
        assert list(sink.rows()) == expected[: 3 * kept]
        for end in range(last + 60, 240, 60):
            sink.write(Result.of("p", "s", window(end)))
        sink.close()
        assert path.read_bytes() == whole


def test_a_line_that_is_wrong_before_the_last_is_not_touched(
    make: Callable[[], Appended], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    sink = make()
    sink.write(Result.of("p", "s", window(60)))
    sink.flush()
    head = path.read_bytes()
    line = head.count(b"\n") + 1
    sink.write(Result.of("p", "s", window(120)))
    sink.close()
    broken = head + b"nobody knows\n" + path.read_bytes()[len(head) :]
    path.write_bytes(broken)
    with pytest.raises(SinkError, match=rf"file, line {line}: this is no .*: repair or remove it"):
        make()
    assert path.read_bytes() == broken


DEEP = "[" * 100_000


def test_a_line_that_is_nested_too_deep_to_be_read_is_told_as_a_wrong_one(
    make: Callable[[], Appended], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    sink = make()
    sink.write(Result.of("p", "s", DataSet(Window(0, 60), {"a": 123456})))
    sink.close()
    whole = path.read_bytes()
    for deep in (DEEP, f"{DEEP}{']' * len(DEEP)}"):
        broken = whole.replace(b"123456", deep.encode()) + whole
        path.write_bytes(broken)
        with pytest.raises(SinkError, match=r"this is no (window|row of a window)"):
            make()
        assert path.read_bytes() == broken


def test_a_value_of_a_parquet_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for text in (DEEP, "no json"):
        sink = ParquetSink(tmp_path)
        sink.begin("p")
        sink.write(Result.of("p", "s", DataSet(Window(0, 60), {"a": "text"})))
        sink.close()
        (path,) = tmp_path.glob("*.parquet")
        table = parquet.read_table(path)
        place = table.column_names.index("json")
        changed = table.set_column(place, table.schema.field("json"), [[text]])
        parquet.write_table(changed, path)
        sink = ParquetSink(tmp_path)
        sink.begin("p")
        with pytest.raises(SinkError, match=r"\.parquet: .* is no value that a sink has stored"):
            list(sink.rows())
        sink.close()
        path.unlink()


def test_a_disk_that_is_full_costs_nothing_that_was_written(
    make: Callable[[], Appended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    sink = make()
    sink.write(Result.of("p", "s", window(60)))
    sink.flush()
    before = path.read_bytes()
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) < 50:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    sink.write(Result.of("p", "s", window(120)))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(SinkError, match=r"cannot be written: .*No space left"):
            sink.flush()
    assert path.read_bytes() == before
    sink.write(Result.of("p", "s", window(180)))
    sink.flush()
    assert [row.end for row in sink.rows()] == [60] * 3 + [120] * 3 + [180] * 3
    sink.close()


def test_windows_that_were_superseded_are_taken_out_when_it_is_closed_or_opened(
    make: Callable[[], Appended], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    sink = make()
    for end in (60, 120, 180, 240):
        sink.write(Result.of("p", "s", window(end)))
    sink.flush()
    sink.write(Result.of("p", "s", window(120, "again")))
    sink.write(Result.of("p", "t", window(120)))
    sink.flush()
    rows = list(sink.rows())
    assert [row.end for row in rows if row.task == "a"] == [60, 120, 180, 240, 120]
    crashed = path.read_bytes()
    sink.close()
    rewritten = path.read_bytes()
    assert len(rewritten) < len(crashed)
    path.write_bytes(crashed)
    sink = make()
    assert path.read_bytes() == rewritten
    assert list(sink.rows()) == rows
    assert (sink.last("s"), sink.last("t")) == (240, 120)
    sink.write(Result.of("p", "s", window(300)))
    sink.flush()
    assert len(list(sink.rows())) == len(rows) + 3
    sink.close()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes()[: len(rewritten)] == rewritten


def test_a_file_keeps_its_mode_and_a_link_to_it_is_followed(
    make: Callable[[], Appended], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    sink = make()
    sink.close()
    path.chmod(0o640)
    real = tmp_path / "real"
    path.rename(real)
    path.symlink_to(real)
    sink = make()
    sink.write(Result.of("p", "s", window(60)))
    sink.flush()
    size = real.stat().st_size
    sink.write(Result.of("p", "s", window(60)))
    sink.close()
    assert path.is_symlink()
    assert (real.stat().st_size, real.stat().st_mode & 0o777) == (size, 0o640)


def test_zeros_that_a_loss_of_power_left_are_cut_off(
    make: Callable[[], Appended], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    sink = make()
    sink.write(Result.of("p", "s", window(60)))
    sink.close()
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(10_000))
    sink = make()
    assert sink.last("s") == 60
    sink.close()
    assert path.read_bytes() == whole


def test_json_lines_are_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "file"
    sink = JsonLinesSink(path)
    sink.begin("p")
    values = {"n": 1, "nan": math.nan, "list": [1, -math.inf], "text": "NaN and Infinity"}
    failed = {"bad": TaskError("bad", Window(0, 60), "it is bad")}
    dataset = DataSet(Window(0, 60), values, failed, interval=TaskInterval.seconds(60))
    sink.write(Result.of("p", "s", dataset))
    sink.close()
    (line,) = path.read_text().splitlines()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(line, parse_constant=refuse) == {
        "format": 2,
        "pipeline": "p",
        "stage": "s",
        "key": "",
        "bucket": 0,
        "window_start": 0,
        "window_end": 60,
        "unit": "s",
        "revision": 0,
        "lines": 1,
        "values": {"n": 1, "nan": None, "list": None, "text": "NaN and Infinity"},
        "errors": {"bad": str(dataset.errors["bad"])},
        "nonfinite": {"nan": "NaN", "list": "[1, -Infinity]"},
    }


def test_a_json_line_tells_what_its_window_lacks(tmp_path: Path) -> None:
    path = tmp_path / "file"
    away = ["shard 3 of 8", 'it\udc80"else']
    keyed: Any = {"n": {"a": 1, "b": math.nan}}
    whole = DataSet(Window(0, 60), {"n": 1})
    with contextlib.closing(JsonLinesSink(path)) as sink:
        sink.begin("p")
        sink.write(Result.of("p", "s", DataSet(Window(0, 60), {"n": 1}, behind=away)))
        sink.write(Result.of("p", "keyed", KeyedDataSet(Window(0, 60), "k", keyed, behind=away)))
        sink.write(Result.of("p", "whole", whole))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("behind") for line in lines] == [away, away, away, None]
    assert lines[2]["nonfinite"] == {"n": "NaN"}
    with contextlib.closing(JsonLinesSink(path)) as sink:  # which reads it
        sink.begin("p")
        assert [row.value for row in sink.rows()][:2] == [1, 1]


def test_a_csv_can_be_read_by_anybody(tmp_path: Path) -> None:
    path = tmp_path / "file"
    sink = CsvSink(path)
    sink.begin("p")
    sink.write(Result.of("p", "s", window(60)))
    sink.close()
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0] == {
        "format": "2",
        "pipeline": "p",
        "stage": "s",
        "key": "",
        "bucket": "0",
        "window_start": "0",
        "window_end": "60",
        "unit": "",
        "revision": "0",
        "task": "a",
        "value": repr(60 / 7),
        "error": "",
        "rows": "3",
    }
    assert json.loads(rows[1]["value"]) == 'é\n",'
    assert rows[2]["error"].endswith('ValueError: two\nlines, "quoted"')


def test_a_result_that_is_too_long_for_a_csv_is_refused(tmp_path: Path) -> None:
    sink = CsvSink(tmp_path / "file")
    sink.begin("p")
    sink.write(Result.of("p", "s", DataSet(Window(0, 60), {"a": '"' * 30_000})))
    with pytest.raises(SinkError, match="task 'a': a result of 200002 characters is too long"):
        sink.write(Result.of("p", "s", DataSet(Window(60, 120), {"b": 1, "a": "x" * 200_000})))
    sink.close()
    sink = CsvSink(tmp_path / "file")
    sink.begin("p")
    assert list(sink.rows()) == [Row("p", "s", 0, 60, "a", '"' * 30_000, None)]
    sink.close()


def test_files_that_cannot_be_are_refused_when_the_sink_is_made(tmp_path: Path) -> None:
    for make in (JsonLinesSink, CsvSink, ParquetSink):
        with pytest.raises(ConfigError, match=r"cannot be opened: .*No such file"):
            make(tmp_path / "none" / "file")
    for make in (JsonLinesSink, CsvSink):
        with pytest.raises(ConfigError, match=r"cannot be opened: .*Is a directory"):
            make(tmp_path)
    other = tmp_path / "other.csv"
    other.write_text("timestamp,value\n1,2\n")
    with pytest.raises(ConfigError, match="this is a file of something else"):
        CsvSink(other)
    with pytest.raises(SinkError, match="this is no window"):
        JsonLinesSink(other)
    note = tmp_path / "note"
    note.write_text("a single line, which is no torn one\n")
    with pytest.raises(SinkError, match="this is no window, nor a part of one"):
        JsonLinesSink(note)
    assert note.read_text() == "a single line, which is no torn one\n"
    with pytest.raises(ConfigError, match="this is a file, and it takes a folder"):
        ParquetSink(other)
    assert other.read_text() == "timestamp,value\n1,2\n"
    with pytest.raises(ConfigError, match="rows_per_file=0: it is a positive int"):
        ParquetSink(tmp_path / "folder", rows_per_file=0)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def test_small_parquet_files_become_few_large_ones(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    sink = ParquetSink(folder, rows_per_file=200)
    sink.begin("p")
    for end in range(1, 301):
        sink.write(Result.of("p", "s", window(end)))
        sink.flush()
        assert len(parts(folder)) <= 7 + 7 + end * 3 // 190
    assert [row.end for row in sink.rows()] == [end for end in range(1, 301) for _ in range(3)]
    sink.close()
    sizes = [parquet.ParquetFile(path).metadata.num_rows for path in parts(folder)]
    assert sum(sizes) == 900
    assert max(sizes) == 192
    table = parquet.read_table(parts(folder)[0])
    assert table.column_names == [
        "pipeline",
        "stage",
        "key",
        "bucket",
        "window_start",
        "window_end",
        "unit",
        "revision",
        "task",
        "value",
        "json",
        "error",
    ]
    assert table.to_pylist()[0]["value"] == 1 / 7


def test_what_a_crash_leaves_of_parquet_files_is_cleared_away(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    sink = ParquetSink(folder)
    sink.begin("p")
    for end in range(1, 8):
        sink.write(Result.of("p", "s", window(end)))
        sink.flush()
    small = {path: path.read_bytes() for path in parts(folder)}
    sink.write(Result.of("p", "s", window(8)))
    sink.close()
    assert [path.name for path in parts(folder)] == ["0000000001-0000000008.parquet"]
    # As if it had died after the merged file was there, and before the small ones were removed.
    for path, data in small.items():
        path.write_bytes(data)
    (folder / "0000000009-0000000009.parquet.tmp").write_bytes(b"PAR1")
    sink = ParquetSink(folder)
    sink.begin("p")
    assert [row.end for row in sink.rows() if row.task == "a"] == list(range(1, 9))
    assert len(parts(folder)) == 1
    sink.write(Result.of("p", "s", window(9)))
    sink.close()
    assert [path.name for path in parts(folder)][1:] == ["0000000009-0000000009.parquet"]


def test_merging_takes_out_what_was_superseded(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    sink = ParquetSink(folder)
    sink.begin("p")
    for end in range(1, 8):
        sink.write(Result.of("p", "s", window(end)))
        sink.flush()
    sink.write(Result.of("p", "s", window(3, "again")))
    rows = list(sink.rows())
    sink.flush()
    assert len(parts(folder)) == 1
    assert parquet.ParquetFile(parts(folder)[0]).metadata.num_rows == 21
    assert list(sink.rows()) == rows
    assert [row.end for row in rows if row.task == "a"] == [1, 2, 4, 5, 6, 7, 3]
    assert sink.last("s") == 7
    sink.close()


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.parquet").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"mine\.parquet is not of this sink: take a folder of"):
        ParquetSink(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.parquet"]
    (tmp_path / "mine.parquet").rename(tmp_path / "0000000001-0000000001.parquet")
    with pytest.raises(SinkError, match=r"0000000001\.parquet is not a file of this sink, or brok"):
        ParquetSink(tmp_path)
