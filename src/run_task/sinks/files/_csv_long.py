"""Results as CSV, a row a task, window and key."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from run_task.errors import SinkError
from run_task.sinks._older import CSV_HEADER
from run_task.sinks._protocol import Row
from run_task.sinks._record import FORMAT, GONE, LongForm, WindowRecord, is_gone, key_of, unit_of
from run_task.sinks.encoding._json import Fallback
from run_task.sinks.files._inventory import StoredWindow, begins_alike, broken

_COLUMNS: Final = (
    "format",
    "pipeline",
    "stage",
    "key",
    "bucket",
    "window_start",
    "window_end",
    "unit",
    "revision",
    "task",
    "value",
    "error",
    "rows",
)
_LINE_END: Final = "\r\n"
"""That of RFC 4180; also because Python's csv puts quotes only around the ones it writes."""

LONGEST: Final = 131_072 // 2
"""How many characters a value has at most: Python's csv reads twice as many, and in a CSV, quotes
are doubled."""


class LongCsv(LongForm):
    """A row a task, window and key.

    :param encode: makes of a value that has no form in JSON another that has one
    :param check: refuses what the sink cannot store
    """

    def __init__(self, encode: Fallback | None, check: Callable[[WindowRecord], None]) -> None:
        def both(window: WindowRecord) -> None:
            check(window)
            self.check(window)

        super().__init__(encode, both)

    @property
    def header(self) -> bytes:
        """The names of the columns."""
        return f"{','.join(_COLUMNS)}{_LINE_END}".encode()

    def learn(self, _stream: BinaryIO) -> bool:
        """It is always the same."""
        return True

    def fix(self) -> None:
        """It is always the same."""

    def may_begin(self, text: bytes) -> bool:
        """Whether a window, or a part of one, can begin so."""
        return begins_alike(text, f"{FORMAT},".encode())

    def is_older(self, stream: BinaryIO) -> bool:
        """Whether a file, at its beginning, is one of an older format."""
        return stream.readline(1_024) == CSV_HEADER

    def check(self, window: WindowRecord) -> None:
        """Refuse a result that is too long."""
        for task, _, text, _, _ in window.tasks:
            if text is not None and len(text) >= LONGEST:  # in a CSV, quotes are doubled
                raise SinkError(
                    f"stage {window.key.stage!r}, task {task!r}: a result of {len(text)} "
                    f"characters is too long for a CSV: take a JsonLinesSink"
                )

    def encode(self, window: WindowRecord) -> bytes:
        """A window as it stands in the file."""
        text = io.StringIO()
        pipeline, stage, start, end, bucket = window.key
        times = start, end, window.unit, window.revision
        count = max(1, len(window.tasks))
        csv.writer(text, lineterminator=_LINE_END).writerows(
            (FORMAT, pipeline, stage, key, bucket, *times, task, value, error, count)
            for task, _, value, error, key in window.tasks or (GONE,)
        )
        return text.getvalue().encode()

    def read(self, stream: BinaryIO, begin: int, end: int, path: Path) -> Iterator[StoredWindow]:
        """The windows in a part of a file that are whole."""
        position = start = begin
        whole = True

        def lines() -> Iterator[str]:
            nonlocal position, whole
            while position < end and (line := stream.readline(end - position)):
                position += len(line)
                whole = line.endswith(b"\n")
                yield line.decode(errors="replace")

        rows: list[Row] = []
        bad: tuple[int, int] | None = None
        reader = csv.reader(lines(), strict=True)  # which does not see the first line
        while True:
            place = reader.line_num + 2, position
            torn = False
            try:
                fields = next(reader, None)
            except csv.Error as error:
                fields, torn = [], "end of data" in str(error)  # within quotation marks
            if fields is None:
                return
            if bad is not None:
                raise broken(path, *bad, "this is no row of a window")
            torn = torn or not whole or any("\0" in field for field in fields)
            parsed = None if torn else _parse(fields)
            if parsed is None:
                if not torn:
                    raise broken(path, *place, "this is no row of a window")
                bad = place
                continue
            row, count = parsed
            if rows and key_of(row) != key_of(rows[0]):
                raise broken(path, reader.line_num + 1, start, "here, a window ends too early")
            rows.append(row)
            if len(rows) == count:
                told = [] if is_gone(row) else rows
                yield StoredWindow(start, position, key_of(row), row.unit, told)
                start = position
                rows = []


def _parse(fields: list[str]) -> tuple[Row, int] | None:
    """A row, and how many its window has; None if it is none."""
    if len(fields) != len(_COLUMNS):
        return None
    form, pipeline, stage, key, bucket, start, end, unit, revision = fields[:9]
    task, value, error, count = fields[9:]
    try:
        if int(form) != FORMAT:
            return None
        result, told = (json.loads(value), None) if value else (None, error)
        more = unit_of(unit), key, int(revision), int(bucket)
        row = Row(pipeline, stage, int(start), int(end), task, result, told, *more)
        return row, int(count)
    except (ValueError, RecursionError):
        return None
