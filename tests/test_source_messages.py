"""What file sources say where a file is not as they were told: what to do is part of it."""

from __future__ import annotations

import io
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from run_task import ConfigError, TimeUnit
from run_task.sources import ArrowFile, CsvFile, JsonLinesFile, ParquetFile

pa = pytest.importorskip("pyarrow")
feather = pytest.importorskip("pyarrow.feather")
parquet = pytest.importorskip("pyarrow.parquet")

SECONDS = TimeUnit.SECONDS
SOURCES: list[Callable[[Path], object]] = [CsvFile, JsonLinesFile, ParquetFile, ArrowFile]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows"


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("timestamp;v\n1;2\n", "is it delimiter=';'\\?"),
        ("timestamp\tv\n1\t2\n", r"is it delimiter='\\t'\?"),
        ("# made today\ntimestamp,v\n", "where a line that begins so is none, say comment='#'"),
        ("sep=;\ntimestamp;v\n", "say skip_rows=1, delimiter=';'"),
        ("time,v\n1,2\n", "say by timestamp= which has the timestamps"),
    ],
)
def test_what_to_say_of_a_csv_that_was_not_declared(path: Path, text: str, cure: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"there is no column 'timestamp'; there are .*: {cure}"):
        CsvFile(path)


def test_the_encoding_is_named_as_what_is_to_be_said(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes("timestamp,Größe\n1,2\n".encode("cp1252"))
    with pytest.raises(ConfigError, match=r"line 1: the names of .*: b'.*\\xf6.*say its encoding="):
        CsvFile(path)
    path.write_bytes("timestamp,v\n1,Köln\n2,Bonn\n".encode("cp1252"))
    assert list(CsvFile(path, unit=SECONDS)) == [(2, {"v": "Bonn"})]
    assert caplog.messages[-1].endswith("is not text in UTF-8: say its encoding=")
    assert list(CsvFile(path, unit=SECONDS, encoding="ascii")) == [(2, {"v": "Bonn"})]
    assert caplog.messages[-1].endswith("is not text in ASCII: say its encoding=")


def test_a_time_in_another_format_is_told_with_what_to_say(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text("timestamp,v\n31.01.2026,1\n")
    assert not list(CsvFile(path))
    assert caplog.messages[0].endswith(
        "'31.01.2026' is not a timestamp: write a number or ISO 8601, such as "
        "'2026-01-31 12:00:00', or tell the source its format="
    )


def test_a_timestamp_of_any_number_of_digits_is_told_as_one_that_is_too_large(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text(f"timestamp,v\n{'9' * 1_000_000},1\n2,2\n")
    assert list(CsvFile(path, unit=SECONDS)) == [(2, {"v": 2.0})]
    assert caplog.messages[0].endswith("999'... is beyond what 64 bits hold")
    assert len(caplog.messages[0]) < 1_000


def test_the_name_of_a_type_is_not_the_type(path: Path) -> None:
    path.write_text("timestamp,v\n1,2\n")
    columns: Any = {"v": "float"}
    with pytest.raises(ConfigError, match=r"'v' is to be 'float': write .*, without quotes"):
        CsvFile(path, columns=columns)


def test_what_is_no_json_is_told_with_its_place_in_the_line(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(b'{"timestamp":1,"v":1}\n{"timestamp":2,"v":\n{"timestamp":3,"v":"\xff"}\n')
    with path.open("a") as file:
        file.write(f'{{"timestamp":4,"v":{"1" * 5_000}}}\n{{"timestamp":5,"v":{"[" * 100_000}\n')
    assert list(JsonLinesFile(path, unit=SECONDS)) == [(1, {"v": 1.0})]
    told = [
        " is not JSON: Expecting value at its character 20",
        " is not text in UTF-8",
        "1... has a number of too many digits",
        "[... is nested too deep to be read",
    ]
    assert len(caplog.messages) == len(told)
    assert all(message.endswith(end) for message, end in zip(caplog.messages, told))


@pytest.mark.parametrize("text", ['[{"timestamp":1,"v":2}]\n', "timestamp,v\n1,2\n"])
def test_a_file_without_a_json_object_tells_no_columns(path: Path, text: str) -> None:
    path.write_text(text)
    for columns in (None, ["v"]):
        with pytest.raises(ConfigError, match="no line that is a JSON object tells its columns: "):
            JsonLinesFile(path, columns=columns)
    assert not list(JsonLinesFile(path, columns={"v": float}))  # its lines are malformed, and told
    other = path.with_name("other")
    other.write_text('{"timestamp":1,"v":2}\n')
    assert list(JsonLinesFile([path, other], unit=SECONDS)) == [(1, {"v": 2.0})]


def test_a_file_of_another_format_is_named(path: Path) -> None:
    table = pa.table({"timestamp": [1], "v": [1.5]})
    parquet.write_table(table, path)
    for source in SOURCES[:2] + SOURCES[3:]:
        with pytest.raises(ConfigError, match="it is a Parquet file: read it by a ParquetFile"):
            source(path)
    with pytest.raises(ConfigError, match="no column 'w'"):  # it can be read
        ParquetFile(path, columns=["w"])
    feather.write_feather(table, path)
    for source in SOURCES[:3]:
        with pytest.raises(ConfigError, match="it is an Arrow file: read it by an ArrowFile"):
            source(path)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("rows.csv", "timestamp,v\n1,2\n")
    path.write_bytes(packed.getvalue())
    for source in SOURCES:
        with pytest.raises(ConfigError, match="it is a zip archive, as spreadsheets are"):
            source(path)
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("create table rows (timestamp, v)")
    database.close()
    with pytest.raises(ConfigError, match="it is a database of SQLite"):
        CsvFile(path)


def test_an_empty_csv_beside_others_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("timestamp,v\n1,2\n")
    (tmp_path / "2").write_text("")
    (tmp_path / "3").write_text("\n\n")
    source = CsvFile(tmp_path, unit=SECONDS)
    assert list(source) == [(1, {"v": 2.0})]
    assert source.about().last is None
    (tmp_path / "1").unlink()
    with pytest.raises(ConfigError, match=r"'\): cannot be read: Empty CSV file"):
        CsvFile(tmp_path)
