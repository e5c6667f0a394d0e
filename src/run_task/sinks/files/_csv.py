"""Results as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from run_task.errors import SinkError
from run_task.sinks._older import CSV_HEADER
from run_task.sinks._protocol import Row
from run_task.sinks._record import FORMAT, WindowRecord, key_of, unit_of
from run_task.sinks.files._append import AppendedFile
from run_task.sinks.files._inventory import StoredWindow

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

_LONGEST: Final = 131_072
"""How many characters Python's csv reads in a value."""


class CsvSink(AppendedFile):
    """Appends to a CSV file, a row a task and window.

    The columns are ``format,pipeline,stage,key,bucket,window_start,window_end,unit,revision,task,
    value,error,rows``. The times are whole numbers of ``unit`` (``ns``, ``us``, ``ms``, ``s`` or
    ``m``) since the Unix epoch. The value is JSON, so a number is a number and a text stands in
    quotes of its own; where a task failed it is empty, and the error says why. ``rows`` is how many
    rows the window has: by this, one that was not written to its end is known. ``format`` is 2.

    **What survives.** A flush ends with an fsync: what was flushed survives a kill -9 and a loss
    of power. Later windows may be there or not, but not in part: a window that is not complete is
    cut off when the file is opened again. A window that is written again supersedes the older
    one, which closing takes out later.
    The file is read once when it is opened. Only one sink at a time can have it.

    :param path: the file; it is made if it is not there
    :param rotation: when the file is put aside, and another one begun at its path; None: never
    :param encode: called with a value that has no form in JSON, wherever in a result it is; what it
        returns is stored in its place. Without it, such a result is refused
    :param types: dataclasses, NamedTuples and Enums, as which :meth:`rows` gives those that were
        stored; others it gives as a ``Record`` and an ``EnumMember``
    :raises ConfigError: if it cannot be opened, has other columns, or another sink has it
    :raises SinkError: if a row in it, other than the last ones, is not of a window
    """

    @property
    def _header(self) -> bytes:
        return f"{','.join(_COLUMNS)}{_LINE_END}".encode()

    @property
    def _signature(self) -> bytes:
        return f"{FORMAT},".encode()

    def _is_older(self, stream: BinaryIO) -> bool:
        return stream.readline(1_024) == CSV_HEADER

    def _check(self, window: WindowRecord) -> None:
        super()._check(window)
        for task, _, text, _, _ in window.tasks:
            if text is not None and len(text) >= _LONGEST // 2:  # in a CSV, quotes are doubled
                raise SinkError(
                    f"stage {window.key.stage!r}, task {task!r}: a result of {len(text)} "
                    f"characters is too long for a CSV: take a JsonLinesSink"
                )

    def _encode(self, window: WindowRecord) -> bytes:
        text = io.StringIO()
        pipeline, stage, start, end, bucket = window.key
        times = start, end, window.unit, window.revision
        count = len(window.tasks)
        csv.writer(text, lineterminator=_LINE_END).writerows(
            (FORMAT, pipeline, stage, key, bucket, *times, task, value, error, count)
            for task, _, value, error, key in window.tasks
        )
        return text.getvalue().encode()

    def _read(self, stream: BinaryIO, begin: int, end: int, path: Path) -> Iterator[StoredWindow]:
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
                raise self._broken(path, *bad, "this is no row of a window")
            torn = torn or not whole or any("\0" in field for field in fields)
            parsed = None if torn else _parse(fields)
            if parsed is None:
                if not torn:
                    raise self._broken(path, *place, "this is no row of a window")
                bad = place
                continue
            row, count = parsed
            if rows and key_of(row) != key_of(rows[0]):
                raise self._broken(
                    path, reader.line_num + 1, start, "here, a window ends too early"
                )
            rows.append(row)
            if len(rows) == count:
                yield StoredWindow(start, position, key_of(row), rows)
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
