"""Standard input, or any other stream of text, as JSON Lines."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Iterator
from datetime import tzinfo
from typing import Any, Final, TextIO

from run_task.errors import SourceError
from run_task.sources import _columns as cols
from run_task.sources._arguments import check
from run_task.sources._faults import Faults, OnFault
from run_task.sources._json_rows import MalformedRow, read_row
from run_task.sources._protocol import SourceInfo
from run_task.time._interval import TimeUnit
from run_task.time._wall_time import WallClock

_READ_BYTES: Final = 65_536


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
    :param on_malformed: what to do with a malformed line
    :param zone: what timestamps mean that name no time zone, such as ``"Europe/Berlin"``; None:
        they are in UTC
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
    ) -> None:
        check("StdinJsonLines", unit, stored, on_malformed)
        self._kinds = cols.declared(columns, "StdinJsonLines") or None
        self._stream: TextIO = sys.stdin if stream is None else stream
        self._name = str(getattr(self._stream, "name", "the stream"))
        self._timestamp = timestamp
        self._unit = unit
        self._clock = None if zone is None else WallClock(zone)
        self._stored = stored or unit
        self._faults = Faults(on_malformed)
        self._closed = False
        # The pipe's ends are not to be closed, and be another file's, while close() writes. It may
        # be called by a signal handler, so the lock lets its own thread in again.
        self._mutex = threading.RLock()
        self._wake: tuple[int, int] | None = None

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
        with self._mutex:
            if self._wake is not None:
                os.write(self._wake[1], b"!")

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows as they come.

        :raises SourceError: at a malformed line, if such are fatal
        """
        units = self._stored.nanos, self._unit.nanos
        for number, line in enumerate(self._lines(), 1):
            if not line.strip():
                continue
            try:
                row = read_row(line, self._timestamp, *units, self._kinds, self._clock)
            except MalformedRow as bad:
                self._faults.note(SourceError(self._name, number, bad.column, bad.reason))
            else:
                yield row

    def _lines(self) -> Iterator[str | bytes]:
        try:
            descriptor = self._stream.fileno()
        except (OSError, AttributeError):  # such as a StringIO
            return self._lines_of_stream()
        if sys.platform == "win32":  # there, select() knows sockets only
            return self._lines_of_stream()
        return self._lines_of_descriptor(descriptor)

    def _lines_of_stream(self) -> Iterator[str]:
        while not self._closed and (line := self._stream.readline()):
            yield line

    def _lines_of_descriptor(self, descriptor: int) -> Iterator[bytes]:
        self._wake = woken, wake = os.pipe()
        try:
            rest = b""
            while not self._closed:
                ready, _, _ = select.select([descriptor, woken], [], [])
                if descriptor not in ready:
                    return
                block = os.read(descriptor, _READ_BYTES)
                if not block:
                    if rest:
                        yield rest
                    return
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    if self._closed:
                        return
                    yield line
        finally:
            with self._mutex:
                self._wake = None
                os.close(woken)
                os.close(wake)
