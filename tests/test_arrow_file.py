from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from run_task import ConfigError, SourceError, TimeUnit
from run_task.sources import ArrowFile

pa = pytest.importorskip("pyarrow")
ipc = pytest.importorskip("pyarrow.ipc")
feather = pytest.importorskip("pyarrow.feather")

SECONDS = TimeUnit.SECONDS
TABLE = pa.table({"timestamp": range(1000), "v": [i / 4 for i in range(1000)], "s": ["a"] * 1000})


def written(path: Path, table: Any, how: str, **options: Any) -> Path:
    opened = {"file": ipc.new_file, "stream": ipc.new_stream}[how]
    with opened(path, table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=300)
    return path


@pytest.mark.parametrize("how", ["file", "stream"])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_files_and_streams_are_read_whatever_their_name_and_compression(
    tmp_path: Path, how: str, compression: str | None
) -> None:
    path = written(tmp_path / "rows.bin", TABLE, how, compression=compression)
    source = ArrowFile(path, unit=SECONDS, batch_rows=250)
    assert source.columns == {"v": float, "s": str}
    batches = list(source.batches())
    assert [len(batch) for batch in batches] == [250, 50, 250, 50, 250, 50, 100]
    assert [time for time, _ in source] == list(range(1000))
    assert [row for _, row in source] == TABLE.drop(["timestamp"]).to_pylist()
    assert list(ArrowFile(path, columns=["s"], unit=SECONDS))[-1] == (999, {"s": "a"})


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_feather_is_read(tmp_path: Path, compression: str) -> None:
    feather.write_feather(TABLE, tmp_path / "rows.feather", compression=compression)
    source = ArrowFile(tmp_path / "rows.feather", unit=SECONDS)
    assert sum(row["v"] for _, row in source) == sum(i / 4 for i in range(1000))
    assert source.about().last == 999


def test_feather_of_before_arrow_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "old.feather").write_bytes(b"FEA1" + bytes(100) + b"FEA1")
    with pytest.raises(ConfigError, match=r"Feather V1.*: read it by an older pyarrow"):
        ArrowFile(tmp_path / "old.feather")


def test_what_is_no_arrow_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    for content in (b"", b"x", b"timestamp,v\n1,2\n", b"PAR1", b"ARROW1", b"ARROW1\0\0" * 9):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"cannot be read: it is no Arrow file, or a broken"):
            ArrowFile(path)
    path.write_bytes(gzip.compress(b"ARROW1"))
    with pytest.raises(ConfigError, match="it is a gzip archive: unpack it"):
        ArrowFile(path)


@pytest.mark.parametrize("how", ["file", "stream"])
def test_columns_that_come_in_each_encoding_of_arrow(tmp_path: Path, how: str) -> None:
    names = pa.array(["a", None, "b", "a"])
    table = pa.table(
        {
            "timestamp": pa.RunEndEncodedArray.from_arrays([2, 4], [1, 2]),
            "dictionary": names.dictionary_encode(),
            "view": names.cast(pa.string_view()),
            "runs": pa.RunEndEncodedArray.from_arrays([3, 4], ["x", "y"]),
            "numbers": pa.array([1, 2, None, 1]).dictionary_encode(),
        }
    )
    source = ArrowFile(written(tmp_path / "rows", table, how), unit=SECONDS)
    assert source.columns == {
        "dictionary": str,
        "view": str,
        "runs": str,
        "numbers": int,
    }
    assert list(source) == [
        (1, {"dictionary": "a", "view": "a", "runs": "x", "numbers": 1}),
        (1, {"dictionary": "", "view": "", "runs": "x", "numbers": 2}),
        (2, {"dictionary": "a", "view": "a", "runs": "y", "numbers": 1}),
    ]
    assert source.malformed == 1


def test_a_dictionary_may_be_replaced_in_a_stream(tmp_path: Path) -> None:
    schema = pa.schema({"timestamp": pa.int64(), "s": pa.dictionary(pa.int8(), pa.string())})
    with ipc.new_stream(tmp_path / "rows", schema) as writer:
        for at, words in enumerate((["a", "b"], ["c"], ["c", "d", "c"])):
            column = pa.array(words).dictionary_encode().cast(schema.field("s").type)
            times = pa.array([at] * len(words))
            writer.write_batch(pa.record_batch([times, column], schema=schema))
    source = ArrowFile(tmp_path / "rows", unit=SECONDS)
    assert [row["s"] for _, row in source] == ["a", "b", "c", "c", "d", "c"]


@pytest.mark.parametrize("how", ["file", "stream"])
def test_columns_are_refused_by_name_as_in_parquet(tmp_path: Path, how: str) -> None:
    columns = {"timestamp": [1], "nested": [[1]], "bytes": [b"a"], "v": [2]}
    path = written(tmp_path / "rows", pa.table(columns), how)
    with pytest.raises(ConfigError, match=r"column 'nested' is list<.*, but nested"):
        ArrowFile(path)
    with pytest.raises(ConfigError, match="column 'bytes' is binary, which need be no text"):
        ArrowFile(path, columns=["bytes"])
    assert list(ArrowFile(path, columns={"v": int, "bytes": str}, unit=SECONDS)) == [
        (1, {"v": 2, "bytes": "a"})
    ]
    twice = pa.table([pa.array([1]), pa.array([2]), pa.array([3])], names=["timestamp", "v", "v"])
    with pytest.raises(ConfigError, match="there are 2 columns 'v'"):
        ArrowFile(written(tmp_path / "rows", twice, how))


@pytest.mark.parametrize("scale", [39, 100_000, -39])
def test_decimals_that_arrow_cannot_tell_are_refused_by_name(tmp_path: Path, scale: int) -> None:
    five = pa.py_buffer((5).to_bytes(16, "little"))
    decimals = pa.Array.from_buffers(pa.decimal128(38, scale), 1, [None, five])
    table = pa.table({"timestamp": [1], "d": decimals})
    path = written(tmp_path / "rows.arrow", table, "file")
    for columns in (None, {"d": str}, {"d": float}):
        with pytest.raises(ConfigError, match=r"column 'd' is decimal128\(38, -?\d+\), which"):
            ArrowFile(path, columns=columns)
    with pytest.raises(
        ConfigError, match=r"column 'd' is decimal128\(38, -?\d+\), which is no time"
    ):
        ArrowFile(path, timestamp="d", columns=["timestamp"])


def test_texts_that_point_outside_the_file_are_not_followed(tmp_path: Path) -> None:
    """Arrow reads them, and whatever is in memory there."""
    table = pa.table({"timestamp": [1, 2], "s": ["a", "b"]})
    path = written(tmp_path / "rows", table, "stream")
    offsets = np.array([0, 1, 2], np.int32).tobytes()
    wrong = np.array([0, 1, 2**30], np.int32).tobytes()
    assert path.read_bytes().count(offsets) == 1
    path.write_bytes(path.read_bytes().replace(offsets, wrong))
    with pytest.raises(SourceError, match=r"rows, line 1: cannot be read on"):
        list(ArrowFile(path, unit=SECONDS))


@pytest.mark.parametrize("how", ["file", "stream"])
def test_a_file_that_ends_too_early_gives_the_rows_before(tmp_path: Path, how: str) -> None:
    path = written(tmp_path / "rows", TABLE, how)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    if how == "file":  # what is in it stands at its end
        with pytest.raises(ConfigError, match="a broken one"):
            ArrowFile(path)
        return
    times: list[int] = []
    with pytest.raises(SourceError, match="line 301: cannot be read on"):
        for time, _ in ArrowFile(path, unit=SECONDS):
            times.append(time)
    assert times == list(range(300))
