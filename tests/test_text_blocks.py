"""Records out of bytes."""

from __future__ import annotations

import io
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from run_task import ConfigError
from run_task.sources._text_blocks import (
    PIECE_BYTES,
    BadLine,
    Quoting,
    RecordBlock,
    blocks,
    check_longest,
)

CSV = Quoting(",", '"', None)


class Trickle:
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes, few: int) -> None:
        self._stream = io.BytesIO(data)
        self._few = few
        self.read_bytes = 0

    def read(self, size: int) -> bytes:
        return self._stream.read(min(size, self._few))


def told(
    data: bytes,
    few: int = 1 << 20,
    longest: int = 1 << 24,
    quoting: Quoting | None = CSV,
    skip: int = 0,
) -> tuple[list[tuple[int, bytes]], list[int]]:
    """The records with their lines, and the lines that are bad."""
    records: list[tuple[int, bytes]] = []
    bad: list[int] = []
    for block in blocks(Trickle(data, few), longest, quoting, skip):
        if isinstance(block, BadLine):
            bad.append(block.line)
        else:
            assert block.data.count(b"\n") >= len(block.lines) > 0
            assert b"".join(record + b"\n" for record in block.records()) == block.data
            records += zip(block.lines.tolist(), block.records())
    return records, bad


def expected(data: bytes, comment: bytes = b"") -> tuple[list[tuple[int, bytes]], list[int]]:
    """The same, a byte at a time."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    records: list[tuple[int, bytes]] = []
    bad: list[int] = []
    at = 0
    while at < len(lines):
        if comment and lines[at].startswith(comment):
            at += 1
            continue
        record, upto = lines[at], at + 1
        while _open(record) and upto < len(lines):
            record, upto = record + b"\n" + lines[upto], upto + 1
        if _open(record):
            bad.append(at + 1)
            at += 1
        else:
            records.append((at + 1, record))
            at = upto
    return records, bad


def _open(record: bytes) -> bool:
    """Whether a record ends within quotes."""
    inside, begins, at = False, True, 0
    while at < len(record):
        one = record[at : at + 1]
        if inside and one == b'"':
            if record[at + 1 : at + 2] == b'"':
                at += 1
            else:
                inside = False
        elif begins and one == b'"':
            inside = True
        begins = not inside and one == b","
        at += 1
    return inside


texts = st.text('",\n#x', max_size=40).map(str.encode)


@given(texts, st.integers(1, 50))
def test_records_are_those_that_are_found_a_byte_at_a_time(data: bytes, few: int) -> None:
    assert told(data, few) == expected(data)


@example(b'"\n",a\n', 2)
@example(b'a,"\n"', 4)
@given(texts, st.integers(1, 41))
def test_records_are_the_same_where_bytes_are_looked_at_in_pieces(data: bytes, left: int) -> None:
    first = b"a" * (PIECE_BYTES - left) + b"\n"
    records, bad = expected(data)
    found, found_bad = told(first + data)
    assert found == [(1, first[:-1]), *((line + 1, record) for line, record in records)]
    assert found_bad == [line + 1 for line in bad]


@given(texts, st.integers(1, 50))
def test_lines_that_are_comments_are_none(data: bytes, few: int) -> None:
    assert told(data, few, quoting=Quoting(",", '"', "#")) == expected(data, b"#")


@given(st.lists(st.text("ab", max_size=8)), st.integers(1, 50), st.integers(1, 8))
def test_a_line_that_is_longer_than_the_longest_is_bad_and_the_others_are_not(
    lines: list[str], few: int, longest: int
) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    records, bad = told(data, few, longest, quoting=None)
    numbered = list(enumerate(lines, 1))
    assert records == [(n, line.encode()) for n, line in numbered if len(line) <= longest]
    assert bad == [n for n, line in numbered if len(line) > longest]


@given(texts, st.integers(0, 5), st.integers(1, 50))
def test_lines_can_be_left_out(data: bytes, skip: int, few: int) -> None:
    rest = data.split(b"\n", skip)[skip:]
    records, bad = expected(rest[0]) if rest else ([], [])
    right = [(line + skip, record) for line, record in records], [line + skip for line in bad]
    assert told(data, few, skip=skip) == right


def test_what_is_wrong_with_a_line_is_told() -> None:
    (long,) = blocks(io.BytesIO(b"x" * 1000), 500)
    assert long == BadLine(1, f"'{'x' * 120}...' is longer than 500 bytes")
    bad, block = blocks(io.BytesIO(b'1,"a\n2,b\n'), quoting=CSV)
    assert bad == BadLine(1, "'1,\"a' has a quote that is not closed")
    assert isinstance(block, RecordBlock)
    assert block.records() == [b"2,b"]


def test_a_byte_order_mark_is_left_out() -> None:
    for few in (1, 2, 3, 100):
        assert told(b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", few)[0] == [(1, b"a"), (2, b"\xef\xbb\xbfb")]
        assert told(b"\xef\xbb", few)[0] == [(1, b"\xef\xbb")]


def test_a_long_line_costs_no_more_memory_than_some_of_it() -> None:
    class Endless:
        given = 0

        def read(self, size: int) -> bytes:
            self.given += size
            return b"x" * size if self.given < 1 << 28 else b""

    tracemalloc.start()
    try:
        (bad,) = blocks(Endless(), 1 << 22, CSV)
        assert isinstance(bad, BadLine)
        assert tracemalloc.get_traced_memory()[1] < 1 << 25
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("longest", [0, -1, 1.5, True, None, (1 << 30) + 1])
def test_a_longest_line_that_cannot_be_is_refused(longest: object) -> None:
    with pytest.raises(
        ConfigError, match=r"Source: longest_line=.*: it is a number of bytes from 1"
    ):
        check_longest("Source", longest)
