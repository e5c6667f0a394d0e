"""Several files as one source: which, in which order, with which columns; and rows in order."""

from __future__ import annotations

import gc
import json
import os
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_task import ConfigError, Pipeline, SourceError, TimeSeries, TimeUnit, task
from run_task.sources import ArrowFile, CsvFile, FileOrder, JsonLinesFile, OnFault, ParquetFile
from run_task.sources._batch import Batch
from run_task.sources.files._listing import listed
from run_task.sources.files._sorting import in_order

pa = pytest.importorskip("pyarrow")
feather = pytest.importorskip("pyarrow.feather")
parquet = pytest.importorskip("pyarrow.parquet")

SECONDS = TimeUnit.SECONDS

Source = Callable[..., Any]
Write = Callable[[Path, Sequence[dict[str, Any]]], None]


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    lines = [list(rows[0]), *(map(str, row.values()) for row in rows)]
    path.write_text("".join(f"{','.join(line)}\n" for line in lines))


def write_json_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    parquet.write_table(pa.Table.from_pylist(list(rows)), path)


def write_arrow(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    feather.write_feather(pa.Table.from_pylist(list(rows)), path)


KINDS: dict[str, tuple[Source, Write]] = {
    "csv": (CsvFile, write_csv),
    "jsonl": (JsonLinesFile, write_json_lines),
    "parquet": (ParquetFile, write_parquet),
    "arrow": (ArrowFile, write_arrow),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(kind: str) -> Source:
    return lambda *args, **options: KINDS[kind][0](*args, **{"unit": SECONDS, **options})


@pytest.fixture
def write(kind: str, tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, *times: int, **values: Any) -> Path:
        path = tmp_path / f"{name}.{kind}"
        KINDS[kind][1](path, [{"timestamp": t, **(values or {"v": t / 2})} for t in times])
        return path

    return write


Written = Callable[..., Path]


def times(source: Any) -> list[int]:
    return [timestamp for timestamp, _ in source]


def test_a_list_comes_as_it_is_listed(source: Source, write: Written) -> None:
    paths = [write("b", 1, 2), write("a", 3, 4), write("c", 0)]
    both = source(paths)
    assert times(both) == [1, 2, 3, 4, 0]
    assert times(both) == [1, 2, 3, 4, 0]  # from the start each time
    assert both.about().last == 0
    assert "2 files" not in repr(both)
    assert both.columns == {"v": float}


def test_a_folder_and_a_pattern_come_by_name_in_which_a_number_is_one(
    source: Source, write: Written, tmp_path: Path, kind: str
) -> None:
    for name, time in (("day-10", 30), ("day-9", 20), ("day-1", 10), ("night", 40)):
        write(name, time)
    (tmp_path / "_SUCCESS").write_text("no file of rows")
    (tmp_path / ".hidden").write_text("no file of rows")
    (tmp_path / "folder.csv").mkdir()
    assert times(source(tmp_path)) == [10, 20, 30, 40]
    assert times(source(str(tmp_path))) == [10, 20, 30, 40]
    assert times(source(tmp_path / f"day-*.{kind}")) == [10, 20, 30]
    assert times(source([tmp_path / f"night.{kind}", f"{tmp_path}/day-?.{kind}"])) == [40, 10, 20]
    assert source(tmp_path / f"day-*.{kind}").about().last == 30


def test_a_file_whose_name_is_like_a_pattern_is_that_file(source: Source, write: Written) -> None:
    assert times(source([write("a[1]", 1), write("a1", 2)])) == [1, 2]


def test_files_may_come_by_their_first_rows(source: Source, write: Written, kind: str) -> None:
    paths = [write("a", 30, 0), write("b", 10, 11), write("c", 20)]
    assert times(source(paths, order=FileOrder.FIRST_TIME)) == [10, 11, 20, 30, 0]
    with pytest.raises(ConfigError, match=r"order='name': it is one of FileOrder\.LISTED"):
        source(paths, order="name")


def test_the_first_row_of_a_file_is_the_first_that_is_good(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("timestamp,v\nsoon,1\n5,1\n")
    (tmp_path / "b.csv").write_text("timestamp,v\n3,1\n")
    (tmp_path / "c.csv").write_text("timestamp,v\n")
    source = CsvFile(tmp_path, unit=SECONDS, order=FileOrder.FIRST_TIME, on_malformed=OnFault.RAISE)
    assert source.malformed == 0
    assert times(source.batches().__next__().rows()) == [3]


def test_rows_are_put_in_order_over_all_files(source: Source, write: Written) -> None:
    paths = [write("a", 5, 1, 9), write("b", 3, 1), write("c", 4)]
    assert times(source(paths, sort=True)) == [1, 1, 3, 4, 5, 9]
    assert [len(b) for b in source(paths, sort=True, batch_rows=4).batches()] == [4, 2]
    assert times(source(paths, sort=True, sort_rows=6)) == [1, 1, 3, 4, 5, 9]
    with pytest.raises(SourceError, match=r"more than 5 rows, too many .*: raise sort_rows=, or"):
        list(source(paths, sort=True, sort_rows=5))
    with pytest.raises(ConfigError, match="sort_rows=0: it is a positive int"):
        source(paths, sort=True, sort_rows=0)
    assert source(paths, sort=True).about().last is None


@given(
    st.lists(st.lists(st.integers(-(2**62), 2**62), max_size=8), max_size=5),
    st.integers(1, 10),
)
def test_sorting_is_that_of_python(stamps: list[list[int]], size: int) -> None:
    number = iter(range(100))
    batches = [
        Batch(np.array(some, np.int64), {"n": np.array([next(number) for _ in some], np.int64)})
        for some in stamps
    ]
    rows = [row for batch in batches for row in batch.rows()]
    got = list(in_order(batches, 100, size, "here"))
    assert [row for batch in got for row in batch.rows()] == sorted(rows, key=lambda row: row[0])
    assert all(len(batch) == size for batch in got[:-1])


def test_a_file_that_is_gone_is_told_after_the_rows_before_it(
    source: Source, write: Written
) -> None:
    paths = [write("a", 1, 2), write("b", 3), write("c", 4)]
    both = source(paths)
    os.remove(paths[1])
    read: list[int] = []
    with pytest.raises(SourceError, match=r"b\.\w+: it was there when the source was made, and"):
        for time, _ in both:
            read.append(time)
    assert read == [1, 2]


def test_a_file_that_appears_later_belongs_to_the_next_source(
    source: Source, write: Written, tmp_path: Path
) -> None:
    write("a", 1)
    both = source(tmp_path)
    write("b", 2)
    assert times(both) == [1]
    assert times(source(tmp_path)) == [1, 2]


def test_a_column_that_one_file_lacks_is_refused_by_name_but_in_json_lines(
    source: Source, write: Written, kind: str
) -> None:
    paths = [write("a", 1, v=1.5, w=2.5), write("b", 2, v=3.5)]
    if kind == "jsonl":
        (_, first), (_, second) = source(paths)
        assert first == {"v": 1.5, "w": 2.5}
        assert second["v"] == 3.5
        assert second["w"] != second["w"]
        return
    for order in (paths, paths[::-1]):
        with pytest.raises(ConfigError, match=r"b\.\w+' has no column 'w', which .*a\.\w+' has"):
            source(order)
    assert [row for _, row in source(paths, columns=["v"])] == [{"v": 1.5}, {"v": 3.5}]
    with pytest.raises(ConfigError, match=r"b\.\w+'\): there is no column 'w'; there are"):
        source(paths, columns=["w"])


def test_the_columns_may_stand_in_another_order(source: Source, tmp_path: Path, kind: str) -> None:
    write = KINDS[kind][1]
    write(tmp_path / f"a.{kind}", [{"timestamp": 1, "v": 1.5, "w": "x"}])
    write(tmp_path / f"b.{kind}", [{"w": "y", "v": 2.5, "timestamp": 2}])
    assert list(source(tmp_path)) == [(1, {"v": 1.5, "w": "x"}), (2, {"v": 2.5, "w": "y"})]
    assert source(tmp_path).about().last == 2


def test_the_types_of_columns_are_those_of_all_files(source: Source, write: Written) -> None:
    paths = [write("a", 1, v=1), write("b", 2, v=2.5)]
    both = source(paths)
    assert both.columns == {"v": float}
    assert [row["v"] for _, row in both] == [1.0, 2.5]
    paths = [write("c", 1, v="x"), write("d", 2, v=2.5)]
    with pytest.raises(
        ConfigError, match=r"'v' is str in .*c\.\w+' and float in .*d\.\w+': say by columns= what"
    ):
        source(paths)


def test_errors_name_the_file_and_its_own_line(source: Source, write: Written, kind: str) -> None:
    write("a", 1, 2)
    write("b", 3, 4, v="much")
    both = source(
        write("b", 3, v="much").parent,
        columns={"v": float},
        on_malformed=OnFault.RAISE,
    )
    read: list[int] = []
    with pytest.raises(SourceError, match=r"'v'") as why:
        for time, _ in both:
            read.append(time)
    assert read == [1, 2]
    assert why.value.source.endswith(f"b.{kind}")
    assert why.value.line == (2 if kind == "csv" else 1)
    assert both.malformed == both.about().malformed == 1


def test_what_is_no_file_is_refused(source: Source, tmp_path: Path, write: Written) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="there is no file in this folder"):
        source(tmp_path / "empty")
    with pytest.raises(ConfigError, match=r"no file matches '.*\*\.none'"):
        source(tmp_path / "*.none")
    path = write("a", 1)
    with pytest.raises(ConfigError, match=r"'.*a\.\w+' is named twice"):
        source([path, f"{tmp_path}/./{path.name}"])
    with pytest.raises(ConfigError, match="has at least one"):
        source([])
    with pytest.raises(ConfigError, match="7 is no path"):
        source([7])
    with pytest.raises(ConfigError, match="7 is no path"):
        source(7)
    with pytest.raises(ConfigError, match=r"gone.*there is no such file"):
        source([path, tmp_path / "gone"])


@given(numbers=st.lists(st.integers(0, 10**6), min_size=1, max_size=20, unique=True))
def test_names_with_numbers_are_in_the_order_of_these(
    numbers: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("numbered")
    for number in numbers:
        (folder / f"rows{number}.csv").touch()
    names = [Path(file.name).name for file in listed(folder, "here")]
    assert names == [f"rows{number}.csv" for number in sorted(numbers)]


def test_many_files_need_no_more_memory_than_one(tmp_path: Path) -> None:
    text = "timestamp,v\n" + "".join(f"{i},{i / 3}\n" for i in range(20_000))
    for number in range(10):
        (tmp_path / f"{number}.csv").write_text(text)
    source = CsvFile(tmp_path, unit=SECONDS, batch_rows=1000)
    largest = read = 0
    gc.collect()  # what earlier tests have left is not let go of meanwhile
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        for batch in source.batches():
            read += len(batch)
            arrow = pa.total_allocated_bytes() - before
            largest = max(largest, tracemalloc.get_traced_memory()[0] + arrow)
    finally:
        tracemalloc.stop()
    assert read == 200_000
    assert largest < 12e6


def test_a_pipeline_replays_a_folder(source: Source, write: Written, tmp_path: Path) -> None:
    @task
    def total(data: Any, start: int, end: int) -> float:
        return float(data.between(start, end)["v"].sum())

    write("day-1", 0, 5)
    write("day-2", 10, 15)
    series = TimeSeries({"v": float}, SECONDS)
    pipeline = Pipeline("days")
    pipeline.source(source(tmp_path), into=series)
    pipeline.stage("sums", [total], series, "10s")
    assert [(d.timestamp, d["total"]) for _, d in pipeline.replay()] == [(10, 2.5), (20, 12.5)]
