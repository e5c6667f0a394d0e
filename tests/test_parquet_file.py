from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from run_task import ConfigError, SourceError, TimeUnit
from run_task.sources import ParquetFile

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SECONDS = TimeUnit.SECONDS


def file(folder: Path, columns: dict[str, Any], **arguments: Any) -> Path:
    path = folder / "file.parquet"
    parquet.write_table(pa.table(columns), path, **arguments)
    return path


def test_arrow_types_as_the_four_types(tmp_path: Path) -> None:
    day = datetime.date(2026, 1, 31)
    path = file(
        tmp_path,
        {
            "timestamp": pa.array([1], pa.uint32()),
            "small": pa.array([1], pa.int8()),
            "single": pa.array([0.1], pa.float32()),
            "decimal": pa.array([decimal.Decimal("1.25")]),
            "category": pa.array(["a"]).dictionary_encode(),
            "large": pa.array(["b"], pa.large_string()),
            "day": pa.array([day]),
            "none": pa.nulls(1),
        },
    )
    source = ParquetFile(path, unit=SECONDS)
    ((timestamp, row),) = source
    assert timestamp == 1
    assert row.pop("single") == float(np.float32(0.1))
    assert str(row.pop("none")) == "nan"
    assert row == {"small": 1, "decimal": 1.25, "category": "a", "large": "b", "day": "2026-01-31"}


def test_texts_can_be_read_as_numbers_and_large_ints_as_the_nearest_float(tmp_path: Path) -> None:
    path = file(tmp_path, {"timestamp": [1, 2], "text": ["1.5", " 2"], "large": [2**53 + 1, 2**62]})
    source = ParquetFile(path, unit=SECONDS, columns={"text": float, "large": float})
    assert [row for _, row in source] == [
        {"text": 1.5, "large": 2.0**53},
        {"text": 2.0, "large": 2.0**62},
    ]
    assert source.malformed == 0


def test_a_column_that_is_neither_number_nor_text_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path, {"timestamp": [1], "v": [[1, 2]], "w": [2]})
    with pytest.raises(ConfigError, match=r"column 'v' is list<.*>, which is neither a number"):
        ParquetFile(path)
    assert list(ParquetFile(path, columns=["w"], unit=SECONDS)) == [(1, {"w": 2})]


def test_a_type_that_a_column_cannot_be_read_as_is_refused(tmp_path: Path) -> None:
    path = file(
        tmp_path, {"timestamp": [1], "at": [datetime.datetime(2026, 1, 31, tzinfo=datetime.UTC)]}
    )
    with pytest.raises(
        ConfigError, match=r"column 'at' is timestamp.*, which cannot be read as fl"
    ):
        ParquetFile(path, columns={"at": float})
    source = ParquetFile(path, columns={"at": str}, unit=SECONDS)
    assert [row["at"][:10] for _, row in source] == ["2026-01-31"]


def test_a_column_that_is_no_timestamp_is_refused(tmp_path: Path) -> None:
    for values in ([[1]], [datetime.time(1)], [True], [b"1"]):
        path = file(tmp_path, {"timestamp": values, "w": [2]})
        with pytest.raises(ConfigError, match=r"column 'timestamp' is .*, which is no timestamp"):
            ParquetFile(path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    path.write_text("timestamp,v\n")
    with pytest.raises(ConfigError, match=r"cannot be read: .*Parquet"):
        ParquetFile(path)


def test_a_file_that_is_damaged_inside_cannot_be_read_on(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        {"timestamp": np.arange(100_000), "v": np.random.default_rng(1).random(100_000)},
        compression="zstd",
        row_group_size=20_000,
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 1_000] = bytes(1_000)
    path.write_bytes(data)
    read = 0
    with pytest.raises(SourceError, match=r"file\.parquet, line [0-9]+: cannot be read on"):
        for batch in ParquetFile(path, unit=SECONDS, batch_rows=1_000).batches():
            read += len(batch)
    assert 20_000 <= read < 100_000
