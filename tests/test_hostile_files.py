"""Files that are broken, enormous or change while they are read: each costs what is wrong, and is
told by an error of this library that names the file and shows no control character."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from run_task import ConfigError, SourceError, TimeUnit
from run_task.sources import ArrowFile, CsvFile, JsonLinesFile, ParquetFile
from run_task.sources.files._place import check_uncut

pa = pytest.importorskip("pyarrow")
ipc = pytest.importorskip("pyarrow.ipc")
parquet = pytest.importorskip("pyarrow.parquet")

SECONDS = TimeUnit.SECONDS
ROWS = 400
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
RECORDS = [{"timestamp": i, "f": i / 3, "i": i * i, "s": f'say "{i % 50}", é'} for i in range(ROWS)]


def csv_bytes() -> bytes:
    lines = ["timestamp,f,i,s"]
    for row in RECORDS:
        text = str(row["s"]).replace('"', '""')
        lines.append(f'{row["timestamp"]},{row["f"]},{row["i"]},"{text}"')
    return "".join(f"{line}\n" for line in lines).encode()


def json_bytes() -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in RECORDS).encode()


def table() -> Any:
    made = pa.Table.from_pylist(RECORDS)
    names = made["s"].combine_chunks()
    return (
        made.append_column("c", names.dictionary_encode())
        .append_column("v", names.cast(pa.string_view()))
        .append_column("l", names.cast(pa.large_string()))
        .append_column("d", made["i"].cast(pa.decimal128(30, 2)))
        .append_column("at", made["i"].cast(pa.timestamp("us", "UTC")))
    )


def parquet_bytes(codec: str) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(table(), sink, row_group_size=90, compression=codec)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def arrow_bytes(opened: Any, codec: str | None) -> bytes:
    sink, rows = pa.BufferOutputStream(), table()
    with opened(sink, rows.schema, options=ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(rows, max_chunksize=90)
    written: bytes = sink.getvalue().to_pybytes()
    return written


KINDS: dict[str, tuple[Any, Callable[[], bytes]]] = {
    "csv": (CsvFile, csv_bytes),
    "csv in gzip": (CsvFile, lambda: gzip.compress(csv_bytes())),
    "csv in zstd": (CsvFile, lambda: pa.compress(csv_bytes(), "zstd", asbytes=True)),
    "json lines": (JsonLinesFile, json_bytes),
    "json lines in bz2": (JsonLinesFile, lambda: bz2.compress(json_bytes())),
    "json lines in xz": (JsonLinesFile, lambda: lzma.compress(json_bytes())),
    "json lines in lz4": (JsonLinesFile, lambda: pa.compress(json_bytes(), "lz4", asbytes=True)),
    "parquet": (ParquetFile, lambda: parquet_bytes("none")),
    "parquet of zstd": (ParquetFile, lambda: parquet_bytes("zstd")),
    "arrow": (ArrowFile, lambda: arrow_bytes(ipc.new_file, None)),
    "arrow of lz4": (ArrowFile, lambda: arrow_bytes(ipc.new_file, "lz4")),
    "stream": (ArrowFile, lambda: arrow_bytes(ipc.new_stream, None)),
    "stream of zstd": (ArrowFile, lambda: arrow_bytes(ipc.new_stream, "zstd")),
}


def spoilt(whole: bytes, chance: random.Random) -> bytes:
    """Bytes that were flipped, cut, lost, doubled or made enormous lengths."""
    data = bytearray(whole)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        size = len(data)
        # What a file says of itself stands at its ends.
        at = min(size - 1, chance.choice([chance.randrange(size), chance.randrange(800)]))
        if chance.random() < 0.4:
            at = size - 1 - at
        match chance.randrange(7):
            case 0 | 1:
                data[at] ^= 1 << chance.randrange(8)
            case 2:
                del data[max(at, 1) :]
            case 3:
                count = min(chance.randrange(1, 64), size - at)
                data[at : at + count] = bytes([chance.choice([0, 255, 128])]) * count
            case 4:
                data[at:at] = chance.randbytes(chance.randrange(1, 30))
            case 5:
                huge = struct.pack("<q", chance.choice([2**40, 2**62, -1, 2**31 - 1]))
                data[at : at + 8] = huge[: size - at]
            case _:
                del data[at : min(at + chance.randrange(1, 20), size - 1)]
    return bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoilt_file_raises_no_error_but_ours_and_counts_what_is_malformed(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, written = KINDS[kind]
    whole = written()
    path = tmp_path / "file"
    outcomes: set[str] = set()
    for seed in range(100):
        chance = random.Random(seed)
        path.write_bytes(spoilt(whole, chance))
        caplog.clear()
        told: list[str] = []
        outcome = "read"
        rows = 0
        try:
            read = source(path, unit=SECONDS, max_malformed=1, batch_rows=chance.choice([50, 1000]))
            read.about()
            rows += sum(1 for batch in read.batches() for _ in batch.rows())
        except (ConfigError, SourceError) as error:
            outcome = type(error).__name__
            told.append(str(error))
        else:
            assert read.malformed == len(caplog.messages), seed
        outcomes.add(outcome)
        for message in (*told, *caplog.messages):
            assert CONTROL.search(message) is None, seed
            assert len(message) < 5_000, seed
            assert str(path) in message, seed
    if source in (ParquetFile, ArrowFile):
        assert outcomes == {"read", "ConfigError", "SourceError"}


def test_a_value_that_is_enormous_is_not_shown_as_a_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "x" * 1_000_000
    path = tmp_path / "file"
    path.write_text(f"timestamp,v\n1,1\n{text},1\n2,{text}\n")
    assert list(CsvFile(path, unit=SECONDS, columns={"v": float})) == [(1, {"v": 1.0})]
    path.write_text(f'{{"timestamp":"{text}","v":1}}\n{{"timestamp":1,"v":"{text}"}}\n')
    assert not list(JsonLinesFile(path, unit=SECONDS, columns={"v": float}))
    parquet.write_table(pa.table({"timestamp": ["1", text], "v": [text, "1"]}), path)
    assert not list(ParquetFile(path, unit=SECONDS, columns={"v": float}))
    assert len(caplog.messages) == 6
    assert max(len(message) for message in caplog.messages) < 1_000
    path.write_text(text)
    with pytest.raises(ConfigError, match="there is no column 'timestamp'; there are 'xxx") as why:
        CsvFile(path)
    assert len(str(why.value)) < 1_000


def test_a_message_names_some_of_very_many_columns(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    names = ["timestamp", *(f"c{at}" for at in range(20_000))]
    path.write_text(",".join(names) + "\n" + "1," * 20_000 + "1\n")
    with pytest.raises(ConfigError, match=r"there is no column 'd'; .*, 'c28' and 19,971 more"):
        CsvFile(path, columns=["d"])
    assert list(CsvFile(path, columns=["c7"], unit=SECONDS)) == [(1, {"c7": 1.0})]


def most_memory(*, anew: bool = False) -> int:
    """The most memory that this process had, in KiB, so far, or from now on."""
    try:
        if anew:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        pytest.skip("this machine does not tell how much memory a process had")
    return int(re.findall(r"VmHWM:\s+([0-9]+)", status)[0])


def test_an_archive_of_few_bytes_cannot_ask_for_gigabytes_of_memory(tmp_path: Path) -> None:
    data = bytearray(lzma.compress(csv_bytes()))
    size = (data[12] + 1) * 4  # of the header of the block
    assert data[14:16] == b"\x21\x01"  # LZMA2, and how large its dictionary is
    data[16] = 40  # 4 GiB
    data[8 + size : 12 + size] = struct.pack("<I", zlib.crc32(data[12 : 8 + size]))
    path = tmp_path / "file.csv.xz"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="of its xz: Memory usage limit exceeded"):
        CsvFile(path)


def test_a_page_that_claims_to_be_enormous_makes_arrow_take_no_memory(tmp_path: Path) -> None:
    columns = {"timestamp": range(1000), "s": [f"t{i}" for i in range(1000)]}
    path = tmp_path / "file.parquet"
    parquet.write_table(pa.table(columns), path, compression="none", use_dictionary=False)
    whole = path.read_bytes()
    before = most_memory(anew=True)
    for at in range(4, 40):  # somewhere in the header of the first page
        path.write_bytes(whole[:at] + b"\xfe\xff\xff\xff\x0f" + whole[at + 2 :])
        with pytest.raises((ConfigError, SourceError), match="cannot be read"):
            list(ParquetFile(path, unit=SECONDS))
    assert most_memory() - before < 200_000


def test_a_path_with_a_nul_is_refused() -> None:
    for source in (CsvFile, JsonLinesFile, ParquetFile, ArrowFile):
        with pytest.raises(ConfigError, match="no path has a zero character in it"):
            source("a\0b")


# Files that change while they are read


def write_csv(path: Path, rows: int) -> None:
    path.write_text("timestamp,v\n" + "".join(f"{i},{i / 7}\n" for i in range(rows)))


def write_json_lines(path: Path, rows: int) -> None:
    lines = [f"{json.dumps({'timestamp': i, 'v': i / 7})}\n" for i in range(rows)]
    path.write_text("".join(lines))


def write_parquet(path: Path, rows: int) -> None:
    columns = {"timestamp": np.arange(rows), "v": np.arange(rows) / 7}
    parquet.write_table(pa.table(columns), path, row_group_size=1_000)


def write_arrow(path: Path, rows: int) -> None:
    rows_of = pa.table({"timestamp": np.arange(rows), "v": np.arange(rows) / 7})
    with ipc.new_file(path, rows_of.schema) as writer:
        writer.write_table(rows_of, max_chunksize=1_000)


@pytest.mark.parametrize(
    ("source", "write"),
    [
        (CsvFile, write_csv),
        (JsonLinesFile, write_json_lines),
        (ParquetFile, write_parquet),
        (ArrowFile, write_arrow),
    ],
)
@pytest.mark.parametrize("left", [0.9, 0.0])
def test_a_file_that_is_cut_while_it_is_read_gives_no_half_of_a_row(
    tmp_path: Path, source: Any, write: Callable[[Path, int], None], left: float
) -> None:
    """The last line of a file needs no line feed, so that half of one looks like a whole one."""
    path = tmp_path / "file"
    write(path, 150_000)
    batches = source(path, unit=SECONDS, batch_rows=1_000).batches()
    read = [next(batches)]
    os.truncate(path, int(path.stat().st_size * left))
    with pytest.raises(SourceError, match=r"file, line [0-9]+: cannot be read on"):
        for batch in batches:
            read.append(batch)  # noqa: PERF402 what came before it is raised is kept
    times = np.concatenate([batch.timestamps for batch in read])
    values = np.concatenate([batch.columns["v"] for batch in read])
    assert 1_000 <= len(times) < 150_000
    assert (times == np.arange(len(times))).all()
    assert (values == np.arange(len(times)) / 7).all()


@pytest.mark.parametrize(("source", "write"), [(CsvFile, write_csv), (ParquetFile, write_parquet)])
def test_a_file_that_is_replaced_while_it_is_read_is_read_to_its_end(
    tmp_path: Path, source: Any, write: Callable[[Path, int], None]
) -> None:
    path = tmp_path / "file"
    write(path, 150_000)
    batches = source(path, unit=SECONDS).batches()
    read = len(next(batches))
    path.unlink()
    path.write_bytes(b"something else")
    assert read + sum(len(batch) for batch in batches) == 150_000


def test_a_file_of_an_older_pyarrow_that_cannot_tell_its_descriptor_is_read() -> None:
    class File:
        def fileno(self) -> int:
            raise AttributeError("'pyarrow.lib.OSFile' object has no attribute 'handle'")

    check_uncut(File())
