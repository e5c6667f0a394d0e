"""Streams of bytes as blocks of whole records, each record in time linear in its length.

A record is a line, or several where values in quotes hold line breaks. A line ends with a line
feed; a carriage return before it is left to whoever reads the record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from run_task.errors import ConfigError

Int64s = NDArray[np.int64]

LONGEST_LINE: Final = 16 << 20
"""How many bytes a record has at most, unless somebody has said another number."""

_MOST_BYTES: Final = 1 << 30  # Arrow counts the bytes of a block with 32 bits
_BLOCK_BYTES: Final = 1 << 20
PIECE_BYTES: Final = 1 << 17
"""How many bytes NumPy looks at in one step: what it makes for more is new memory each time, which
takes longer than to look."""

_BOM: Final = b"\xef\xbb\xbf"
_NEWLINE: Final = 10
_HEAD: Final = 120


class Stream(Protocol):
    """Bytes, from the first to the last."""

    def read(self, size: int, /) -> bytes:
        """At most so many of the next bytes, and at least one; none at the end."""
        ...


def is_utf8(data: bytes) -> bool:
    """Whether bytes are text in UTF-8."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def check_longest(where: str, longest: object) -> int:
    """The length of the longest line, as it was given.

    :raises ConfigError: if it cannot be
    """
    if type(longest) is not int or not 1 <= longest <= _MOST_BYTES:
        raise ConfigError(
            f"{where}: longest_line={longest!r}: it is a number of bytes from 1 to {_MOST_BYTES}"
        )
    return longest


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no record, and cannot be a part of one.

    :param line: which, counted from 1
    :param reason: what is wrong with it, with its beginning
    """

    line: int
    reason: str

    @property
    def next_line(self) -> int:
        """The line after it."""
        return self.line + 1


@dataclass(frozen=True, slots=True)
class RecordBlock:
    """Whole records.

    :param data: their bytes, with a line feed after each
    :param lines: in which line each begins
    :param next_line: the line after them
    :param ends: where the line feed after each stands; None: wherever there is one
    """

    data: bytes
    lines: Int64s
    next_line: int
    ends: Int64s | None

    @property
    def has_a_record_a_line(self) -> bool:
        """Whether each record is one line, and no line is left out."""
        return not len(self.lines) or self.next_line - int(self.lines[0]) == len(self.lines)

    def records(self, most: int | None = None) -> list[bytes]:
        """The records, one by one, without what ends them.

        :param most: how many of the first; None: all
        """
        if self.ends is None:
            return self.data.split(b"\n", -1 if most is None else most)[:-1][:most]
        ends = self.ends[:most]
        starts = np.concatenate(([0], ends[:-1] + 1)).tolist()
        return [self.data[start:end] for start, end in zip(starts, ends.tolist())]

    def first(self) -> bytes:
        """The first record."""
        return self.data[: self.data.index(b"\n") if self.ends is None else int(self.ends[0])]

    def without_first(self) -> RecordBlock:
        """All but the first record."""
        if self.ends is None:
            return RecordBlock(
                self.data[self.data.index(b"\n") + 1 :], self.lines[1:], self.next_line, None
            )
        after = int(self.ends[0]) + 1
        return RecordBlock(self.data[after:], self.lines[1:], self.next_line, self.ends[1:] - after)


class Quoting:
    """Where values in quotes stand, as all readers of CSV have it: one begins with a quote where a
    value begins, and ends with the next quote that is not doubled. Other quotes mean nothing.

    :param delimiter: what stands between two values, an ASCII character
    :param quote: what stands around a value, an ASCII character; None: nothing does
    :param comment: what a line begins with that is none, an ASCII character; None: nothing does
    """

    def __init__(self, delimiter: str, quote: str | None, comment: str | None) -> None:
        self.delimiter: bytes = delimiter.encode()
        self._quote = quote.encode() if quote is not None else None
        self._comment = comment.encode() if comment is not None else None
        d = re.escape(self.delimiter)
        q = b"" if self._quote is None else re.escape(self._quote)
        inside = rb"[^" + q + rb"]*+(?:" + q + q + rb"[^" + q + rb"]*+)*+"
        quoted = q + rb"(?<=[\n" + d + rb"]" + q + rb")" + inside + rb"(?:" + q + rb"|\Z)"
        rest = rb"([^" + d + rb"]*+)(?:" + d + rb"|\Z)"
        marks = (
            [] if self._comment is None else [rb"(?<=\n)" + re.escape(self._comment) + b"[^\n]*"]
        )
        if self._quote is None:
            self._quoted = self._value = re.compile(b"")
        else:
            marks.append(quoted)
            self._quoted = re.compile(quoted)
            self._value = re.compile(rb"(?:" + q + b"(" + inside + b")" + q + b")?" + rest)
        self._marked = re.compile(b"|".join(marks))

    def values(self, record: bytes) -> list[bytes]:
        """The values of a record.

        :raises ValueError: if a carriage return stands in it outside quotes
        """
        record = record.rstrip(b"\r")
        if self._quote is None or self._quote not in record:
            if b"\r" in record:
                raise ValueError("a carriage return stands in the line")
            return record.split(self.delimiter)
        found: list[bytes] = []
        at = 0
        while (match := self._value.match(record, at)) is not None:
            inside, rest = match.groups()
            if b"\r" in rest:
                raise ValueError("a carriage return stands in the line, outside quotes")
            inside = b"" if inside is None else inside.replace(self._quote * 2, self._quote)
            found.append(inside + rest)
            at = match.end()
            if at == match.end(2):  # no delimiter follows
                break
        return found

    def is_blank(self, record: bytes) -> bool:
        """Whether a record has nothing but delimiters, and quotes around nothing."""
        if record.strip(b"\r" + self.delimiter + (self._quote or b"")):
            return False
        try:
            return not any(self.values(record))
        except ValueError:
            return False

    def spans(self, data: bytes) -> tuple[Int64s, Int64s, Int64s]:
        """Where values in quotes begin, where they end, and where lines begin that are comments;
        of values in quotes none where, without comments, no line feed stands in any.

        :param data: bytes that begin with a record
        """
        comments = (
            self._comment is not None
            and self._comment in data  # which is many times as fast as to look for two bytes
            and (data.startswith(self._comment) or b"\n" + self._comment in data)
        )
        none = np.empty(0, np.int64)
        if not comments:
            if self._quote is None or self._quote not in data:
                return none, none, none
            if (found := self._in_pairs(data)) is not None:
                return (*found, none)
        # What is looked for begins after a line feed or a delimiter, and so does the first record.
        matches = [
            (m.start() - 1, m.end() - 1, m.group()[:1])
            for m in (self._marked if comments else self._quoted).finditer(b"\n" + data)
        ]
        quoted = [(start, end) for start, end, mark in matches if mark == self._quote]
        opened = np.array([start for start, _ in quoted], np.int64)
        closed = np.array([end - 1 for _, end in quoted], np.int64)
        if quoted and not _is_closed(data, *quoted[-1], self._quote or b""):
            closed[-1] = len(data)
        starts = [start for start, _, mark in matches if mark != self._quote]
        return opened, closed, np.array(starts, np.int64)

    def _in_pairs(self, data: bytes) -> tuple[Int64s, Int64s] | None:
        """The same, if each second quote is one that begins a value, or doubles the one before;
        None where that is not so, which is rare: a quote stands within a value that is not in
        quotes."""
        assert self._quote is not None
        quote = ord(self._quote)
        text = np.frombuffer(data, np.uint8)
        odd, some = 0, False
        for start in range(0, len(text), PIECE_BYTES):
            piece = text[start : start + PIECE_BYTES]
            at = np.flatnonzero((piece == quote) | (piece == _NEWLINE)) + start
            if not len(at):
                continue
            quotes = text[at] == quote
            count = np.cumsum(quotes) + odd
            inside = (count & 1).astype(np.bool_)
            before = text[at - 1]
            if at[0] == 0:
                before[0] = _NEWLINE
            right = (before == self.delimiter[0]) | (before == _NEWLINE) | (before == quote)
            if (inside & quotes & ~right).any():
                return None
            some = some or bool((inside & ~quotes).any())
            odd = int(count[-1]) & 1
        if not some:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        at = np.flatnonzero(text == quote).astype(np.int64)
        opened, closed = at[::2], at[1::2]
        if len(closed) < len(opened):
            closed = np.append(closed, len(data))
        return opened, closed


def _is_closed(data: bytes, start: int, end: int, quote: bytes) -> bool:
    """Whether a value in quotes that was found ends with one."""
    body = data[start + 1 : end]
    return (len(body) - len(body.rstrip(quote))) % 2 == 1


def blocks(
    stream: Stream,
    longest: int = LONGEST_LINE,
    quoting: Quoting | None = None,
    skip: int = 0,
    *,
    line: int = 1,
    goes_on: bool = False,
) -> Iterator[RecordBlock | BadLine]:
    """The records of a stream, some at a time.

    :param stream: the bytes; a byte order mark of UTF-8 at the beginning of the first line is left
        out
    :param longest: how many bytes a record has at most; a line that is longer is a bad one. So is
        one with a quote that is not closed within as many: what follows it is read on with the next
        line
    :param quoting: which line feeds end a record; None: all do
    :param skip: how many lines to leave out at the beginning
    :param line: which line the stream begins with
    :param goes_on: whether what the stream ends with may be whole later: a record that does not end
        is left out then
    """
    given = _Pushable(stream)
    if skip:
        for _ in range(skip):
            given.skip_line()
    elif line == 1:
        given.skip_mark()
    line += skip
    rest = b""
    while True:
        # Twice what is there, so that each byte is looked at twice at the most.
        more = given.read(min(max(_BLOCK_BYTES, len(rest)), longest + 1 - len(rest)))
        data = rest + more if rest else more
        if not more:
            if not data or goes_on:
                return
            if not data.endswith(b"\n"):
                data += b"\n"
        block, end = _whole(data, line, quoting)
        if block is not None:
            if len(block.lines):
                yield block
            line = block.next_line
        rest = data[end:]
        if rest and (not more or len(rest) > longest):  # a record that does not end
            head, line_feed, after = rest.partition(b"\n")
            if line_feed:
                yield BadLine(line, f"{_head(head)} has a quote that is not closed")
                given.push(after)
            else:
                if not given.skip_line() and goes_on:
                    return
                yield BadLine(line, f"{_head(head)} is longer than {longest:,} bytes")
            rest = b""
            line += 1


class _Pushable:
    """A stream that can be given back what was read."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._pushed = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        if self._at == len(self._pushed):
            return self._stream.read(size)
        self._at, start = min(self._at + size, len(self._pushed)), self._at
        return self._pushed[start : self._at]

    def push(self, given_back: bytes) -> None:
        self._pushed, self._at = given_back + self._pushed[self._at :], 0

    def skip_line(self) -> bool:
        """Leave out the rest of a line. Returns whether it ends."""
        while more := self.read(_BLOCK_BYTES):
            _, line_feed, after = more.partition(b"\n")
            if line_feed:
                self.push(after)
                return True
        return False

    def skip_mark(self) -> None:
        """Leave out a byte order mark."""
        head = b""
        # Not only as many as it has: some streams give no more than asked for of a line that is
        # whole, and none of one that is not.
        while len(head) < len(_BOM) and _BOM.startswith(head) and (more := self.read(_BLOCK_BYTES)):
            head += more
        self.push(head.removeprefix(_BOM))


def _whole(data: bytes, line: int, quoting: Quoting | None) -> tuple[RecordBlock | None, int]:
    """The whole records that some bytes begin with, and where they end."""
    found = None if quoting is None else quoting.spans(data)
    if found is None or not (len(found[0]) or len(found[2])):
        end = data.rfind(b"\n") + 1
        if not end:
            return None, 0
        count = _count_lines(data, end)
        return RecordBlock(
            data[:end], np.arange(line, line + count, dtype=np.int64), line + count, None
        ), end
    opened, closed, comments = found
    feeds = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE).astype(np.int64)
    if len(opened):
        before = np.searchsorted(opened, feeds) - 1
        which = np.flatnonzero((before < 0) | (feeds >= closed[before]))
    else:
        which = np.arange(len(feeds))
    if not len(which):
        return None, 0
    ends = feeds[which]
    lines = line + np.concatenate(([0], which[:-1] + 1)).astype(np.int64)
    after = line + int(which[-1]) + 1
    whole = RecordBlock(data[: int(ends[-1]) + 1], lines, after, ends)
    if not len(comments):
        return whole, len(whole.data)
    starts = np.concatenate(([0], ends[:-1] + 1))
    records = [
        record + b"\n"
        for record, told in zip(whole.records(), np.isin(starts, comments))
        if not told
    ]
    kept = lines[~np.isin(starts, comments)]
    lengths = np.cumsum([len(record) for record in records], dtype=np.int64)
    return RecordBlock(b"".join(records), kept, after, lengths - 1), len(whole.data)


def _count_lines(data: bytes, end: int) -> int:
    """How many line feeds some bytes have before an end."""
    text = np.frombuffer(data, np.uint8, end)
    pieces = (text[start : start + PIECE_BYTES] for start in range(0, end, PIECE_BYTES))
    # Several times as fast as to count them in the bytes.
    return sum(int(np.count_nonzero(piece == _NEWLINE)) for piece in pieces)


def _head(line: bytes) -> str:
    text = line[: _HEAD + 1].decode(errors="backslashreplace")
    return repr(text if len(text) <= _HEAD else f"{text[:_HEAD]}...")
