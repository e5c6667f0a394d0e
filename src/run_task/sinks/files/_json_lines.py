"""Results as JSON Lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, Final

from run_task.sinks._older import is_older_line
from run_task.sinks._protocol import Row
from run_task.sinks._record import (
    FORMAT,
    LongForm,
    TaskRecord,
    WindowKey,
    WindowRecord,
    key_of,
    unit_of,
)
from run_task.sinks.encoding._json import Fallback
from run_task.sinks.encoding._records import TypesGiven
from run_task.sinks.files._append import AppendedFile
from run_task.sinks.files._inventory import StoredWindow, begins_alike, broken
from run_task.sinks.files._rotation import Rotation
from run_task.time._interval import TimeUnit

_OLDER_BEGIN: Final = len('{"pipeline":')
_BEGIN: Final = f'{{"format":{FORMAT},"pipeline":'.encode()


class JsonLinesSink(AppendedFile):
    """Appends to a JSON Lines file, a line a window.

    ::

        {"format":2,"pipeline":"p","stage":"s","key":"","bucket":0,"window_start":0,"window_end":60,
         "unit":"s","revision":0,"lines":1,"values":{"mean":1.5},"errors":{}}

    The times are whole numbers of ``unit`` (``ns``, ``us``, ``ms``, ``s`` or ``m``; null if nobody
    told it) since the Unix epoch; ``lines`` is how many lines the window has, one a key.
    Every line is JSON in the strict sense. What is not finite has a null in ``values``, and
    stands in ``nonfinite``, in the spelling of Python's json, as a text:
    ``"values":{"mean":null},"errors":{},"nonfinite":{"mean":"NaN"}``.
    What a window lacks, as :attr:`DataSet.behind` names it, stands in each of its lines, and
    nowhere if that is nothing: ``"errors":{},"behind":["shard 3 of 8"]``.

    **What survives.** A flush ends with an fsync: what was flushed survives a kill -9 and a loss
    of power. Later windows may be there or not, but not in part: a line that was not written to
    its end is dropped when the file is opened again. A window that is written again supersedes
    the older line, which closing takes out later. The file is read once when it is
    opened. Only one sink at a time can have it.

    :param path: the file; it is made if it is not there
    :param rotation: when the file is put aside, and another one begun at its path; None: never
    :param encode: called with a value that has no form in JSON, wherever in a result it is; what it
        returns is stored in its place. Without it, such a result is refused
    :param types: dataclasses, NamedTuples and Enums, as which :meth:`rows` gives those that were
        stored; others it gives as a ``Record`` and an ``EnumMember``
    :raises ConfigError: if it cannot be opened, or another sink has it
    :raises SinkError: if a line in it is not a window's, other than the last if that looks like a
        part of one, or it cannot be written, as on a disk that is full
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rotation: Rotation | None = None,
        encode: Fallback | None = None,
        types: TypesGiven = (),
    ) -> None:
        super().__init__(path, LongForm(encode, self._check_unit), rotation, types)

    @property
    def _header(self) -> bytes:
        return b""

    def _may_begin(self, text: bytes) -> bool:
        return begins_alike(text, _BEGIN)

    def _is_older(self, stream: BinaryIO) -> bool:
        begin = stream.read(_OLDER_BEGIN)
        return begin == b'{"pipeline":' and is_older_line(begin + stream.readline())

    def _encode(self, window: WindowRecord) -> bytes:
        return lines(window)

    def _read(self, stream: BinaryIO, begin: int, end: int, path: Path) -> Iterator[StoredWindow]:
        place = begin
        bad: tuple[int, int] | None = None
        number = 0
        rows: list[Row] = []
        count = 0
        while place < end and (line := stream.readline(end - place)):
            number += 1
            if bad is not None:
                raise broken(path, *bad, "this is no window")
            parsed = _parse(line) if line.endswith(b"\n") else None
            if parsed is None:
                if not _may_be_torn(line):
                    raise broken(path, number, place, "this is no window")
                bad = number, place
                continue
            place += len(line)
            key, unit, found, of = parsed
            if count and key != key_of(rows[0]):
                raise broken(path, number, begin, "here, a window ends too early")
            rows += found
            count += 1
            if count == of:
                yield StoredWindow(begin, place, key, unit, rows)
                begin, rows, count = place, [], 0


def _parse(line: bytes) -> tuple[WindowKey, TimeUnit | None, list[Row], int] | None:
    """A line's window, its unit and rows, and how many lines the window has; None if it is none.
    Only of a window that is there no more, there are no rows."""
    try:
        window: dict[str, Any] = json.loads(line)
        if window["format"] != FORMAT:
            return None
        start, end, bucket = (
            int(window[name]) for name in ("window_start", "window_end", "bucket")
        )
        key = WindowKey(window["pipeline"], window["stage"], start, end, bucket)
        values: dict[str, Any] = window["values"]
        for task, text in window.get("nonfinite", {}).items():
            values[task] = json.loads(text)
        unit, lines = unit_of(window["unit"]), int(window["lines"])
        more = unit, str(window["key"]), int(window["revision"]), bucket
        rows = [Row(*key[:4], task, value, None, *more) for task, value in values.items()]
        errors: dict[str, str] = window["errors"]
        rows += [Row(*key[:4], task, None, error, *more) for task, error in errors.items()]
        return (key, unit, rows, lines) if rows or lines == 1 else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _may_be_torn(line: bytes) -> bool:
    """Whether a line can be what a crash has left of one: without its end, or with zeros in it."""
    if b"\0" in line:
        return True
    if line.endswith(b"\n"):
        return False
    try:
        other = json.loads(line)
    except (ValueError, RecursionError):
        return True
    return isinstance(other, dict) and "window_end" in other  # whole, but for the end of the line


def lines(window: WindowRecord) -> bytes:
    """A window as lines of such a file, one a key."""
    groups = [(key, list(tasks)) for key, tasks in groupby(window.tasks, lambda task: task.key)]
    groups = groups or [("", [])]  # of a window that is there no more
    return b"".join(_line(window, key, tasks, len(groups)) for key, tasks in groups)


def _line(window: WindowRecord, key: str, tasks: list[TaskRecord], count: int) -> bytes:
    values: list[str] = []
    errors: dict[str, str] = {}
    nonfinite: dict[str, str] = {}
    for task, _, text, error, _ in tasks:
        if error is not None:
            errors[task] = error
        elif text is not None:
            strict = _is_strict(text)
            if not strict:
                nonfinite[task] = text
            values.append(f"{json.dumps(task)}:{text if strict else 'null'}")
    begin = {
        "format": FORMAT,
        "pipeline": window.key.pipeline,
        "stage": window.key.stage,
        "key": key,
        "bucket": window.key.bucket,
        "window_start": window.key.start,
        "window_end": window.key.end,
        "unit": window.unit,
        "revision": window.revision,
        "lines": count,
    }
    head = json.dumps(begin, separators=(",", ":"))[:-1]
    tail: dict[str, Any] = {"errors": errors}
    if nonfinite:
        tail["nonfinite"] = nonfinite
    if window.behind:
        tail["behind"] = [*window.behind]
    end = json.dumps(tail, separators=(",", ":"))[1:]
    return f'{head},"values":{{{",".join(values)}}},{end}\n'.encode()


def _is_strict(text: str) -> bool:
    """Whether a text of Python's json is JSON, which knows no NaN and no Infinity."""
    if "N" not in text and "I" not in text:
        return True
    strict = True

    def notice(constant: str) -> None:
        nonlocal strict
        strict = False

    json.loads(text, parse_constant=notice)
    return strict
