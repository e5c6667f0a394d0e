"""Files that are compressed: known by what is in them, and read up to where they can be."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.proof import examples

from run_task import ConfigError, SourceError, TimeUnit
from run_task.sources import CsvFile, JsonLinesFile, ParquetFile
from run_task.sources.files._compression import compression_of
from run_task.sources.files._lines import WholeLines

pa = pytest.importorskip("pyarrow")

Compress = Callable[[bytes], bytes]

SECONDS = TimeUnit.SECONDS


def by_arrow(codec: str) -> Compress:
    def compress(data: bytes) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, codec) as stream:
            stream.write(data)
        return bytes(sink.getvalue())

    return compress


CODECS: dict[str, Compress] = {
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": partial(lzma.compress, preset=0),  # it takes a thirtieth of the time
    "zstd": by_arrow("zstd"),
    "lz4": by_arrow("lz4"),
}

codecs = pytest.mark.parametrize("codec", CODECS)


class Pieces:
    """Bytes that come in pieces, however many are asked for."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = [piece for piece in pieces if piece]

    def read(self, size: int = -1, /) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if 0 <= size < len(piece):
            self._pieces.insert(0, piece[size:])
            piece = piece[:size]
        return piece

    def close(self) -> None:
        """There is nothing to let go of."""


def blocks(stream: WholeLines, size: int = 1 << 20) -> list[bytes]:
    return list(iter(lambda: stream.read(size), b""))


def rows(first: int, count: int) -> bytes:
    return b"".join(b"%d,%d\n" % (i, zlib.crc32(b"%d" % i)) for i in range(first, first + count))


@codecs
@pytest.mark.parametrize("name", ["rows.csv", "rows.gz", "rows.bz2", "rows"])
def test_it_is_known_by_its_content_and_not_by_its_name(
    codec: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(CODECS[codec](b"timestamp,v\n" + rows(0, 10)))
    source = CsvFile(path, unit=SECONDS)
    assert [t for t, _ in source] == list(range(10))
    assert source.about().last is None  # without reading it all
    path.write_bytes(CODECS[codec](b'{"timestamp": 1, "v": 2}\n'))
    assert list(JsonLinesFile(path, unit=SECONDS)) == [(1, {"v": 2})]


@pytest.mark.parametrize("name", ["rows.gz", "rows.bz2", "rows.zst", "rows.xz"])
def test_what_is_not_compressed_is_read_as_it_is_whatever_its_name(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"timestamp,v\n" + rows(0, 3))
    assert [t for t, _ in CsvFile(tmp_path / name, unit=SECONDS)] == [0, 1, 2]
    # A name of a column like the beginning of an archive.
    (tmp_path / name).write_bytes(b"BZh9,timestamp\n" + rows(0, 3))
    assert [row["BZh9"] for _, row in CsvFile(tmp_path / name, unit=SECONDS)] == [0, 1, 2]


@codecs
def test_archives_one_after_the_other_are_one_file(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    compress = CODECS[codec]
    path.write_bytes(compress(b"timestamp,v\n" + rows(0, 100)) + compress(rows(100, 50)))
    assert [t for t, _ in CsvFile(path, unit=SECONDS)] == list(range(150))


@codecs
def test_the_rows_before_the_end_of_a_truncated_archive_come_and_then_an_error(
    codec: str, tmp_path: Path
) -> None:
    count = 200_000  # of which bz2 makes three blocks
    packed = CODECS[codec](rows(0, count))
    path = tmp_path / "rows.csv"
    for rest in (len(packed) - 4, len(packed) // 2):
        path.write_bytes(packed[:rest])
        source = CsvFile(path, unit=SECONDS, timestamp="t", names=["t", "v"])
        read: list[tuple[int, int]] = []
        with pytest.raises(
            SourceError, match=rf"rows\.csv, line \d+: cannot be read on: of its {codec}"
        ) as why:
            read += [(t, row["v"]) for t, row in source]
            pytest.fail("it ends as if it were whole")
        read = []
        try:
            for batch in source.batches():
                read += zip(batch.timestamps.tolist(), batch.columns["v"].tolist())
        except SourceError:
            pass
        assert read == [(i, zlib.crc32(b"%d" % i)) for i in range(len(read))]  # no half of a row
        assert why.value.line == len(read) + 1
        assert source.malformed == 0
        assert len(read) > count // 4


@pytest.mark.parametrize("codec", ["gzip", "bz2", "xz"])
@settings(max_examples=examples(40))
@given(data=st.data())
def test_whole_lines_of_what_is_left_of_an_archive(codec: str, data: st.DataObject) -> None:
    text = rows(0, data.draw(st.integers(0, 300), label="rows"))
    packed = CODECS[codec](text)
    packed = packed[: data.draw(st.integers(10, len(packed)), label="bytes")]
    stream = WholeLines(Pieces(packed))
    got = blocks(stream, data.draw(st.integers(40, 5000), label="size"))
    assert text.startswith(b"".join(got))
    assert all(block.endswith(b"\n") for block in got)
    if stream.failure is None:
        assert b"".join(got) == text


@pytest.mark.parametrize("codec", ["gzip", "bz2", "xz"])
def test_one_wrong_byte_in_an_archive_is_no_error_of_the_library(
    codec: str, tmp_path: Path
) -> None:
    packed = bytearray(CODECS[codec](b"timestamp,v\n" + rows(0, 2000)))
    packed[len(packed) // 2] ^= 0x40
    (tmp_path / "rows.csv").write_bytes(packed)
    with pytest.raises((SourceError, ConfigError), match=r"rows\.csv.*cannot be read.*"):
        list(CsvFile(tmp_path / "rows.csv", unit=SECONDS, columns={"v": int}))


def test_an_archive_of_nothing_is_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(gzip.compress(b""))
    with pytest.raises(ConfigError, match="cannot be read"):
        CsvFile(tmp_path / "rows.csv")


def test_an_archive_around_a_parquet_file_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(gzip.compress(b"PAR1"))
    with pytest.raises(ConfigError, match="it is a gzip archive: unpack it"):
        ParquetFile(tmp_path / "rows.parquet")


# The blocks


@given(
    text=st.lists(st.sampled_from([b"\n", b"a", b"bc", b"\r"])).map(b"".join),
    cuts=st.lists(st.integers(0, 50)),
    size=st.integers(1, 30),
)
def test_blocks_end_where_lines_do_and_are_the_file(
    text: bytes, cuts: list[int], size: int
) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    got = blocks(WholeLines(Pieces(*(text[a:b] for a, b in itertools.pairwise(edges)))), size)
    assert b"".join(got) == text
    for block in got[:-1]:
        assert block.endswith(b"\n") or len(block) == size
    assert all(len(block) <= size for block in got)


def test_a_block_comes_as_soon_as_a_line_is_whole() -> None:
    class Waits(Pieces):
        def read(self, size: int = -1, /) -> bytes:
            if not self._pieces:
                raise AssertionError("it asks for more")
            return super().read(size)

    stream = WholeLines(Waits(b"1\n2\n3"))
    assert stream.read() == b"1\n2\n"
    stream = WholeLines(Waits(b"1\n"))
    assert stream.read() == b"1\n"


def test_what_fails_ends_the_blocks_before_the_line_that_is_not_whole() -> None:
    class Fails(Pieces):
        def read(self, size: int = -1, /) -> bytes:
            if not self._pieces:
                raise OSError("the disk is gone")
            return super().read(size)

    stream = WholeLines(Fails(b"1\n2", b"2\n3"))
    assert blocks(stream) == [b"1\n", b"22\n"]
    assert stream.failure == "the disk is gone"


@pytest.mark.parametrize(
    ("head", "codec"),
    [
        (b"", None),
        (b"\x1f\x8b", None),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"BZh91AY&SY", "bz2"),
        (b"BZh9\x17\x72\x45\x38\x50\x90", "bz2"),
        (b"BZh9,time", None),
        (b"\xfd7zXZ\x00", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ],
)
def test_how_archives_begin(head: bytes, codec: str | None) -> None:
    assert compression_of(head) == codec
