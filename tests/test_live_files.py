"""Files that are still being written, as sources: followed ones and pipes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.threads import PATIENCE, beside, eventually

from run_task import ConfigError, Pipeline, SourceError, TimeSeries, TimeUnit, VirtualClock, task
from run_task.aggregates import mean
from run_task.cli._file_sample import warning_of
from run_task.sources import CsvFile, FileOrder, JsonLinesFile, ParquetFile

pytest.importorskip("pyarrow")
pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")

SECONDS = TimeUnit.SECONDS
V: dict[str, type[float]] = {"v": float}


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What Arrow imports when it reads for the first time, which takes seconds."""
    path = tmp_path_factory.mktemp("warm") / "rows"
    path.write_text("timestamp,v\n1,1\n,\n")
    assert len(list(CsvFile(path, columns=V))) == 1


@pytest.fixture(params=["csv", "jsonl"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path, kind: str) -> Path:
    return tmp_path / f"rows.{kind}"


class Format:
    """How rows are written, and a source of them is made."""

    def __init__(self, kind: str) -> None:
        self.csv = kind == "csv"
        self.head = "timestamp,v\n" if self.csv else ""

    def rows(self, *times: int) -> str:
        if self.csv:
            return "".join(f"{t},{t / 2}\n" for t in times)
        return "".join(json.dumps({"timestamp": t, "v": t / 2}) + "\n" for t in times)

    def source(self, path: Path | list[Path], **options: Any) -> CsvFile | JsonLinesFile:
        options = {"columns": V, "unit": SECONDS, **options}
        return (CsvFile if self.csv else JsonLinesFile)(path, **options)


@pytest.fixture
def form(kind: str) -> Format:
    return Format(kind)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


class Reader:
    """A thread that reads a source that is followed, while a test moves its clock."""

    def __init__(self, path: Path, form: Format) -> None:
        self._clock = VirtualClock()
        self.source = form.source(path, follow=True, clock=self._clock)
        self.read: list[tuple[int, float]] = []

    def run(self) -> None:
        for time, row in self.source:
            self.read.append((time, row["v"]))

    def sees(self, *times: int) -> None:
        def seen() -> bool:
            self._clock.advance("250ms")
            return self.read == [(time, time / 2) for time in times]

        eventually(seen)


@pytest.fixture
def reader(path: Path, form: Format) -> Iterator[Reader]:
    reader = Reader(path, form)
    with beside(reader.run):
        yield reader
        reader.source.close()


def test_rows_that_are_appended_come_once_their_lines_are_whole(
    path: Path, form: Format, reader: Reader
) -> None:
    assert reader.source.about().endless
    assert not reader.source.about().once
    path.write_text(form.head + form.rows(1, 2))
    reader.sees(1, 2)
    more = form.rows(3, 4)
    append(path, more[:-3])
    reader.sees(1, 2, 3)
    append(path, more[-3:])
    reader.sees(1, 2, 3, 4)


def test_a_file_that_rotates_begins_anew_with_the_names_of_its_columns(
    path: Path, form: Format, reader: Reader
) -> None:
    path.write_text(form.head + form.rows(1, 2))
    reader.sees(1, 2)
    path.rename(path.with_suffix(".old"))
    path.write_text("v,timestamp\n1.5,3\n2.5,5\n" if form.csv else form.rows(3, 5))
    reader.sees(1, 2, 3, 5)
    os.truncate(path, 0)
    append(path, form.head + form.rows(4)[:2])
    append(path, form.rows(4)[2:])
    reader.sees(1, 2, 3, 5, 4)


def test_what_is_malformed_is_told_with_its_file_and_line(
    path: Path, form: Format, reader: Reader
) -> None:
    path.write_text(form.head + form.rows(1) + "rubbish\n" + form.rows(2))
    reader.sees(1, 2)
    assert reader.source.malformed == 1


def test_the_columns_of_what_cannot_be_looked_into_are_declared(path: Path, form: Format) -> None:
    for columns in (None, ["v"]):
        with pytest.raises(ConfigError, match=r"declare its columns with their types, as by"):
            form.source(path, follow=True, columns=columns)
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=r"rows\.\w+'\): it is still being written"):
        form.source(path, columns=None)
    with pytest.raises(ConfigError, match="it is read from its end, and so not from a pipe"):
        ParquetFile(path, columns=V)
    with pytest.raises(ConfigError, match="leave out follow="):
        form.source(path, follow=True)


def test_what_cannot_be_followed_is_refused(path: Path, form: Format, tmp_path: Path) -> None:
    path.write_text(form.head + form.rows(1))
    several: list[Path | list[Path]] = [tmp_path, tmp_path / "row*", [path, tmp_path]]
    for paths in several:
        with pytest.raises(ConfigError, match="follow= is for files that are named"):
            form.source(paths, follow=True)
    with pytest.raises(ConfigError, match="is named twice"):
        form.source([path, path], follow=True)
    with pytest.raises(ConfigError, match="with follow= it has no end, and cannot be sorted"):
        form.source(path, follow=True, sort=True)
    with pytest.raises(ConfigError, match=r"follow='yes': it is True or False"):
        form.source(path, follow="yes")
    with pytest.raises(ConfigError, match=r"poll='often'"):
        form.source(path, follow=True, poll="often")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="its first row is not known beforehand"):
        form.source([path, tmp_path / "pipe"], order=FileOrder.FIRST_TIME)


def test_a_pipe_is_read_once_as_rows_come(path: Path, form: Format) -> None:
    os.mkfifo(path)
    source = form.source(path)
    assert source.about().once
    assert not source.about().endless
    assert warning_of(source) is None  # without reading it
    read: list[int] = []
    with beside(lambda: read.extend(time for time, _ in source)), path.open("w") as writer:
        writer.write(form.head + form.rows(1, 2))
        writer.flush()
        eventually(lambda: read == [1, 2])
        writer.write(form.rows(3).rstrip("\n"))
    assert read == [1, 2, 3]
    with pytest.raises(SourceError, match="it has been read before"):
        list(source)


def test_a_pipe_may_be_one_of_several_files_and_be_sorted(
    path: Path, form: Format, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path.write_text(form.head + form.rows(5, 1))
    source = form.source(path, sort=True)
    assert [time for time, _ in source] == [1, 5]
    source = form.source([path, pipe], sort=True)
    read: list[int] = []
    with beside(lambda: read.extend(time for time, _ in source)):
        pipe.write_text(form.head + form.rows(3))
    assert read == [1, 3, 5]


def test_a_csv_without_a_column_that_was_asked_for_ends_with_its_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    source = CsvFile(tmp_path / "pipe", columns=V)
    with (
        beside(lambda: (tmp_path / "pipe").write_text("timestamp,w\n1,2\n")),
        pytest.raises(SourceError, match=r"line 1: .*there is no column 'v'; there are"),
    ):
        list(source)


def test_a_pipeline_follows_a_file_and_shuts_down_at_once(path: Path, form: Format) -> None:
    @task
    def count(data: Any, start: int, end: int) -> int:
        return len(data)

    path.write_text(form.head + form.rows(1, 2))
    series = TimeSeries(V, SECONDS)
    source = form.source(path, follow=True, poll="10ms")
    pipeline = Pipeline("followed")
    pipeline.source(source, into=series)
    pipeline.stage("counts", [count], series, "1s")
    with pytest.raises(ConfigError, match=r"no history|endless|no end"):
        list(pipeline.replay())

    def stored() -> int:
        with series.read() as view:
            return len(view)

    with pipeline:
        eventually(lambda: stored() == 2)
        append(path, form.rows(3))
        eventually(lambda: stored() == 3)
    slow = form.source(path, follow=True, poll="1h")
    read: list[int] = []
    with beside(lambda: read.extend(time for time, _ in slow)) as end:
        slow.close()
        end.result(PATIENCE)


def journaled(form: Format, path: Path, folder: Path) -> tuple[Pipeline, list[TimeSeries]]:
    """A file that goes two ways, and one that has a journal."""
    pipeline = Pipeline("followed", checkpoint=folder / "state")
    both = TimeSeries(V, SECONDS), TimeSeries(V, SECONDS)
    pipeline.source(form.source(path, follow=True, poll="10ms"), into=both, name="two ways")
    series = TimeSeries(V, SECONDS)
    pipeline.source(
        form.source(path, follow=True, poll="10ms"),
        into=series,
        name="kept",
        journal=folder / "journal",
    )
    for number, one in enumerate((*both, series)):
        pipeline.stage(f"of {number}", [mean("v")], one, "1s")
    return pipeline, [*both, series]


def test_each_row_enters_once_over_restarts_whichever_way_it_goes(
    path: Path, form: Format, tmp_path: Path
) -> None:
    path.write_text(form.head)
    for number in range(3):
        pipeline, series = journaled(form, path, tmp_path)
        with pipeline:
            append(path, form.rows(2 * number + 1, 2 * number + 2))
            expected = [*range(1, 2 * number + 3)]
            eventually(lambda: all(one.view().time.tolist() == expected for one in series))  # noqa: B023 it ends before the next one


@pytest.mark.parametrize("by_row", [True, False])
def test_it_goes_on_behind_each_row_of_several_files(
    by_row: bool, form: Format, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.rows" for number in range(2)]
    paths[0].write_text(form.head + form.rows(1, 3) + "rubbish\n" + form.rows(4, 8))
    paths[1].write_text(form.head + form.rows(2, 5, 6, 7) + "half")

    def read(position: Any = None) -> Iterator[tuple[list[int], Any, int]]:
        source = form.source(paths, follow=True, poll="1ms", batch_rows=2)
        assert source.positioned is not None
        if position is not None:
            source.positioned.seek(json.loads(json.dumps(position)))
        items: Iterator[Any] = iter(source) if by_row else source.batches()
        for item in items:
            times = [item[0]] if by_row else item.timestamps.tolist()
            yield times, source.position, source.malformed
            if times[-1] == 8:
                source.close()

    given: list[int] = []
    for times, position, malformed in read():
        given += times
        if given[-1] == 8:
            break
        rest = [*read(position)]
        assert given + [time for times, _, _ in rest for time in times] == [*range(1, 9)]
        assert malformed + rest[-1][2] == 1
