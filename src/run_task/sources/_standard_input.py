"""Standard input, or any other stream of text, as JSON Lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import tzinfo
from typing import Any, TextIO

from run_task.columnar import _columns as cols
from run_task.columnar._timestamps import Times
from run_task.errors import SourceError
from run_task.sources._arguments import check, check_share
from run_task.sources._faults import JUDGED_ROWS, MOST_MALFORMED, Faults, OnFault
from run_task.sources._json_rows import MalformedRow, read_object, read_row
from run_task.sources._protocol import SourceInfo
from run_task.sources._stoppable import StoppableReader
from run_task.sources._text_blocks import (
    LONGEST_LINE,
    BadLine,
    Stream,
    blocks,
    check_longest,
)
from run_task.time._interval import TimeUnit


class StdinJsonLines:
    """Rows from standard input, an object a line, each as soon as its line is there.

    ::

        source = StdinJsonLines(timestamp="time", columns={"price": float})
        for timestamp, row in source:
            print(timestamp, row["price"])

    It can be read once. Where the stream is a pipe, a terminal or a file, it is read past Python's
    own buffer, so that :meth:`close` can end a read that waits; lines that somebody else has
    already taken from the stream into that buffer are not seen.

    What is malformed, and what a missing value is, is as in :class:`JsonLinesFile`; but where no
    columns are given, a row has all of its line's keys and values as they stand there.

    :param stream: what to read; None: standard input
    :param timestamp: the key of the timestamp: a number, or a text in ISO 8601, which is in UTC
        where it names no zone
    :param unit: the unit of the timestamps to give; what is finer is rounded down
    :param stored: the unit of timestamps that stand there as numbers; None: ``unit``
    :param columns: which keys a row has: a mapping to ``float``, ``int``, ``bool`` or ``str``, or
        a sequence of names; None: all but the timestamp, as they stand there. As an ``int``, the
        timestamp is what the row is stamped with, in ``unit``
    :param on_malformed: what to do with a malformed line, if ``on_bad_row`` of the pipeline does
        not end the source
    :param zone: what timestamps mean that name no time zone, such as ``"Europe/Berlin"``; None:
        they are in UTC. A time that clocks there jump over is when they jump
    :param max_malformed: which share of 1,000 lines may be malformed at most, from 0 to 1. Where
        more are, iterating raises, since then the declaration is likely wrong
    :param longest_line: how many bytes a line has at most; one that is longer is malformed
    :param format: the format of timestamps that are texts, as
        :meth:`datetime.datetime.strptime` has it; None: numbers, or ISO 8601. Where the first one
        is a text of eight digits, such as ``"20240131"``, and no ``stored`` is given, all such
        texts are dates
    :param fold: which of the two times it is that clocks of ``zone`` show twice, when they are put
        back: 0 for the first, 1 for the second
    :raises ConfigError: if one of these cannot be
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        timestamp: str = "timestamp",
        unit: TimeUnit = TimeUnit.MILLIS,
        stored: TimeUnit | None = None,
        columns: cols.ColumnChoice = None,
        on_malformed: OnFault = OnFault.SKIP,
        zone: str | tzinfo | None = None,
        max_malformed: float = MOST_MALFORMED,
        longest_line: int = LONGEST_LINE,
        format: str | None = None,  # noqa: A002 as readers call it
        fold: int = 0,
    ) -> None:
        check("StdinJsonLines", unit, stored, on_malformed)
        self._kinds = cols.declared(columns, "StdinJsonLines") or None
        self._stream: TextIO = sys.stdin if stream is None else stream
        self._name = str(getattr(self._stream, "name", "the stream"))
        self._timestamp = timestamp
        self._unit = unit
        self._times = Times("StdinJsonLines", unit, stored, zone, fold, format)
        self._most_malformed = check_share("StdinJsonLines", max_malformed)
        self._longest = check_longest("StdinJsonLines", longest_line)
        self._faults = Faults(on_malformed, self._most_malformed)
        self._closed = False
        self._reader: StoppableReader | None = None

    @property
    def unit(self) -> TimeUnit:
        """The unit of the timestamps given."""
        return self._unit

    def about(self) -> SourceInfo:
        """Its unit, and that it can be read once."""
        return SourceInfo(unit=self._unit, once=True, malformed=self._faults.count)

    @property
    def malformed(self) -> int:
        """How many malformed lines there were so far."""
        return self._faults.count

    def close(self) -> None:
        """Stop giving rows. From any thread; it also ends a read that waits, if that can be."""
        self._closed = True
        if (reader := self._reader) is not None:
            reader.stop()

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows as they come.

        :raises SourceError: at a malformed line, if such are fatal, and where more of 1,000 lines
            are malformed than ``max_malformed`` allows
        """
        rows, bad = 0, 0  # of those that are judged together
        looked = False
        for number, line in self._lines():
            if isinstance(line, BadLine):
                fault: SourceError | None = SourceError(self._name, number, None, line.reason)
            elif not line.strip():
                continue
            else:
                fault = None
                try:
                    if not looked:
                        looked = self._look(line)
                    row = read_row(line, self._timestamp, self._times, self._kinds)
                except MalformedRow as wrong:
                    fault = SourceError(self._name, number, wrong.column, wrong.reason)
                else:
                    yield row
            rows, bad = (rows % JUDGED_ROWS) + 1, (bad if rows % JUDGED_ROWS else 0)
            if fault is not None:
                bad += 1
                self._faults.note(fault)
                self._faults.judge_run(bad, fault)

    def _look(self, line: bytes) -> bool:
        """Look at the first timestamp that is a text: whether it is a date of eight digits, as all
        after it are then."""
        value = read_object(line).get(self._timestamp)
        if isinstance(value, str):
            self._times.look_at([value])
        return isinstance(value, str)

    def _lines(self) -> Iterator[tuple[int, bytes | BadLine]]:
        """The lines with their numbers, each as soon as it is there."""
        try:
            descriptor = self._stream.fileno()
        except (OSError, AttributeError):  # such as a StringIO
            descriptor = None
        if descriptor is None or sys.platform == "win32":  # there, only sockets can be waited for
            yield from self._split(_Text(self._stream))
            return
        known: int = descriptor
        with closing(StoppableReader(lambda: known)) as reader:
            self._reader = reader
            yield from self._split(reader)

    def _split(self, stream: Stream) -> Iterator[tuple[int, bytes | BadLine]]:
        if self._closed:
            return
        for block in blocks(stream, self._longest):
            if isinstance(block, BadLine):
                yield block.line, block
                continue
            for number, line in zip(block.lines.tolist(), block.records()):
                if self._closed:
                    return
                yield number, line
            if self._closed:
                return


class _Text:
    """A stream of text as bytes, a line or less at a time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        # Each character may be four bytes. Half of a pair is none of UTF-8, which is found later.
        return self._stream.readline(max(1, size // 4)).encode(errors="surrogatepass")
