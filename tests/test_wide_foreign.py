"""What is of another layout, or of somebody else, is refused by a wide sink, and stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from run_task import ConfigError, DataSet, SinkError, TaskInterval, Window
from run_task.sinks import CsvSink, Layout, ParquetSink, Result, Rotation

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")

WIDE = CsvSink | ParquetSink
Make = Callable[[Path, Layout], WIDE]


def csv(path: Path, layout: Layout) -> WIDE:
    return CsvSink(path / "file.csv", layout=layout)


def parquet(path: Path, layout: Layout) -> WIDE:
    return ParquetSink(path, layout=layout)


def result(end: int, stage: str = "s", **values: Any) -> Result:
    dataset = DataSet(Window(end - 60, end), values, interval=TaskInterval.seconds(60))
    return Result.of("p", stage, dataset)


def write(sink: WIDE, *results: Result) -> None:
    with closing(sink):
        sink.begin("p")
        for one in results:
            sink.write(one)


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("make", [csv, parquet])
@pytest.mark.parametrize(
    ("first", "then"), [(Layout.LONG, Layout.WIDE), (Layout.WIDE, Layout.LONG)]
)
def test_what_is_of_the_other_layout(
    make: Make, first: Layout, then: Layout, tmp_path: Path
) -> None:
    write(make(tmp_path, first), result(60, a=1))
    there = everything(tmp_path)
    with pytest.raises(ConfigError, match=r"another layout|something else"):
        make(tmp_path, then)
    assert everything(tmp_path) == there


@pytest.mark.parametrize("layout", ["wide", None, Layout])
@pytest.mark.parametrize("make", [csv, parquet])
def test_what_is_no_layout(make: Make, layout: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"layout=.*: it is Layout.LONG or Layout.WIDE"):
        make(tmp_path, layout)
    assert not everything(tmp_path)


HEADER = b"window_start,window_end,a,error,window_rows\r\n"
ROW = b"1970-01-01T00:00:00Z,1970-01-01T00:01:00Z,1,,1\r\n"


@pytest.mark.parametrize(
    "content",
    [
        b"text",
        b"time,a\n1,2\n",
        HEADER,
        HEADER + ROW,
        b'window_start,window_end,error,"run_task {}"\r\n',
        b'window_start,window_end,error,"run_task [[["\r\n' + ROW,
        b'window_start,window_end,"run_task {""format"":2,""layout"":""long""}"\r\n',
        ROW,
        b"\n",
        b"\xff\xfe",
    ],
)
def test_a_file_of_somebody_else(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_bytes(content)
    with pytest.raises(ConfigError, match="this is a file of something else"):
        csv(tmp_path, Layout.WIDE)
    assert everything(tmp_path) == {"file.csv": content}


@pytest.mark.parametrize("more", [b"hello\r\n", b"60,120,1,,1\r\n", ROW.replace(b"Z", b"")])
def test_what_somebody_has_written_at_the_end(more: bytes, tmp_path: Path) -> None:
    write(csv(tmp_path, Layout.WIDE), result(60, a=1))
    whole = everything(tmp_path)["file.csv"] + more
    (tmp_path / "file.csv").write_bytes(whole)
    with pytest.raises(SinkError, match="repair or remove it"):
        csv(tmp_path, Layout.WIDE)
    assert everything(tmp_path)["file.csv"] == whole


def test_a_part_of_a_window_is_cut_off_and_a_part_of_a_header_is_not(tmp_path: Path) -> None:
    write(csv(tmp_path, Layout.WIDE), result(60, a=1, b="x\r\ny"), result(120, a=2, b="z"))
    path = tmp_path / "file.csv"
    whole = path.read_bytes()
    begins = (
        whole.index(b"window_rows\r\n") + 13,
        whole.index(b"1970-01-01T00:01:00Z,1970-01-01T00:02"),
    )
    for size in range(1, begins[0]):
        path.write_bytes(whole[:size])
        with pytest.raises(ConfigError, match="this is a file of something else"):
            csv(tmp_path, Layout.WIDE)
        assert path.read_bytes() == whole[:size]
    for size in (0, *range(begins[0], len(whole))):
        path.write_bytes(whole[:size])
        sink = CsvSink(path, layout=Layout.WIDE)
        with closing(sink):
            sink.begin("p")
            there = [120] if size == len(whole) else [60] if size >= begins[1] else []
            assert [row.end for row in sink.rows() if row.task == "a"] == there, size
            sink.write(result(60, a=1, b="x\r\ny"))
            sink.write(result(120, a=2, b="z"))
        assert path.read_bytes() == whole, size


@pytest.mark.parametrize("alike", [False, True])
def test_a_rotated_file_of_somebody_else(alike: bool, tmp_path: Path) -> None:
    rotation = Rotation(max_bytes=400)
    path = tmp_path / "a.csv"
    sink = CsvSink(path, layout=Layout.WIDE, rotation=rotation)
    write(sink, *(result(60 * end, a=end) for end in range(1, 9)))
    assert len(everything(tmp_path)) > 2
    rotated = rotation if alike else None
    other = CsvSink(tmp_path / "b.csv", layout=Layout.WIDE, rotation=rotated)
    write(other, result(60, "t", a=1))
    (tmp_path / "b.csv").rename(tmp_path / "a.00000001.csv")
    there = everything(tmp_path)
    with pytest.raises(ConfigError, match="this is a file of something else"):
        CsvSink(path, layout=Layout.WIDE)
    assert everything(tmp_path) == there


def test_files_of_two_stages_in_a_folder(tmp_path: Path) -> None:
    write(parquet(tmp_path / "a", Layout.WIDE), result(60, a=1))
    write(parquet(tmp_path / "b", Layout.WIDE), result(60, "t", a=1))
    (path,) = (tmp_path / "b").glob("*.parquet")
    path.rename(tmp_path / "a" / "0000000002-0000000002.parquet")
    there = everything(tmp_path / "a")
    with pytest.raises(ConfigError, match="holds files of stage 't' and of stage 's'"):
        parquet(tmp_path / "a", Layout.WIDE)
    assert everything(tmp_path / "a") == there


def test_a_parquet_file_of_somebody_else(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "0000000001-0000000001.parquet")
    there = everything(tmp_path)
    with pytest.raises(SinkError, match="is not a file of this sink, or broken"):
        parquet(tmp_path, Layout.WIDE)
    assert {name: there[name] for name in there} == {
        name: content for name, content in everything(tmp_path).items() if name != ".lock"
    }


def test_who_reads_parquet_files_himself_finds_each_window_once(tmp_path: Path) -> None:
    def ends() -> list[int]:
        table = pq.read_table(tmp_path)
        return sorted(moment.timestamp() for moment in table["window_end"].to_pylist())

    sink = parquet(tmp_path, Layout.WIDE)
    sink.begin("p")
    for end in range(60, 301, 60):
        sink.write(result(end, a=end))
    sink.flush()
    sink.write(result(300, a=1))
    sink.write(result(360, a=2))
    sink.flush()
    assert ends() == [60, 120, 180, 240, 300, 360]
    reading = sink.rows()
    first = next(reading)
    for again in (360, 60, 180):
        sink.write(result(again, a=3))
        sink.flush()  # what is read now stays as it is
    assert len([first, *reading]) == 6
    del reading
    sink.close()
    sink = parquet(tmp_path, Layout.WIDE)
    sink.begin("p")
    assert ends() == [60, 120, 180, 240, 300, 360]
    assert [(row.end, row.value) for row in sorted(sink.rows())] == [
        *[(60, 3), (120, 120), (180, 3), (240, 240), (300, 1), (360, 3)]
    ]
    for end in range(60, 361, 60):
        sink.write(result(end, a=0))
    sink.close()
    assert len(list(tmp_path.glob("*.parquet"))) == 1
    assert ends() == [60, 120, 180, 240, 300, 360]


def test_a_header_has_names_only_and_what_they_hold_stands_beside_it(tmp_path: Path) -> None:
    write(csv(tmp_path, Layout.WIDE), result(60, a=1.5, b="x"))
    text = everything(tmp_path)["file.csv"]
    assert text.splitlines()[0] == b"window_start,window_end,a,b,error,window_rows"
    beside = tmp_path / "file.csv.columns"
    told = beside.read_bytes()
    for broken in (None, b"", b"{}", b'{"run_task_columns":{}}', told.replace(b'"b"', b'"c"')):
        beside.unlink()
        if broken is not None:
            beside.write_bytes(broken)
        there = everything(tmp_path)
        with pytest.raises(ConfigError, match="this is a file of something else"):
            csv(tmp_path, Layout.WIDE)
        assert everything(tmp_path) == there
        beside.write_bytes(told)
    write(csv(tmp_path, Layout.WIDE), result(120, a=2.5, b="y"))
    assert beside.read_bytes() == told


def test_a_file_of_somebody_else_in_the_place_of_the_one_beside_it(tmp_path: Path) -> None:
    beside = tmp_path / "file.csv.columns"
    beside.write_text("mine")
    with pytest.raises(
        ConfigError, match=r"file.csv.columns' is to tell what its columns hold, an"
    ):
        csv(tmp_path, Layout.WIDE)
    beside.unlink()
    sink = csv(tmp_path, Layout.WIDE)
    sink.begin("p")
    sink.write(result(60, a=1))
    beside.write_text("mine")
    with pytest.raises(SinkError, match=r"file.csv.columns' is to tell what its columns hold, an"):
        sink.flush()
    assert (beside.read_text(), (tmp_path / "file.csv").read_bytes()) == ("mine", b"")
    beside.unlink()
    sink.close()
    assert len((tmp_path / "file.csv").read_bytes().splitlines()) == 2


def test_a_file_that_is_moved_away_leaves_one_that_can_be_read(tmp_path: Path) -> None:
    sink = csv(tmp_path, Layout.WIDE)
    sink.begin("p")
    sink.write(result(60, a=1))
    sink.flush()
    archive = tmp_path / "archive"
    archive.mkdir()
    for name in ("file.csv", "file.csv.columns"):
        (tmp_path / name).rename(archive / name)
    sink.write(result(120, a=2))
    sink.close()
    for folder, end in ((archive, 60), (tmp_path, 120)):
        with closing(csv(folder, Layout.WIDE)) as again:
            again.begin("p")
            assert [row.end for row in again.rows()] == [end]


def test_a_file_of_before_is_read_and_goes_on(tmp_path: Path) -> None:
    write(csv(tmp_path, Layout.WIDE), result(60, a=1, b="x"))
    beside = tmp_path / "file.csv.columns"
    told = json.dumps(json.loads(beside.read_bytes())["run_task_columns"])
    beside.unlink()
    path = tmp_path / "file.csv"
    quoted = '"run_task ' + told.replace('"', '""') + '"'
    path.write_bytes(path.read_bytes().replace(b"window_rows", quoted.encode()))
    begin = path.read_bytes()
    write(csv(tmp_path, Layout.WIDE), result(120, a=2, b="y"))
    assert path.read_bytes().startswith(begin)
    assert not beside.exists()
    with closing(csv(tmp_path, Layout.WIDE)) as sink:
        sink.begin("p")
        found = [(row.end, row.task, row.value) for row in sink.rows()]
    assert found == [(60, "a", 1), (60, "b", "x"), (120, "a", 2), (120, "b", "y")]
