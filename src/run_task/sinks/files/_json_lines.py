"""Results as JSON Lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from run_task.sinks._protocol import Row
from run_task.sinks._record import WindowRecord
from run_task.sinks.encoding._json import Fallback
from run_task.sinks.encoding._records import TypesGiven
from run_task.sinks.files._append import AppendedFile, StoredWindow

_BEGIN: Final = b'{"pipeline":'


class JsonLinesSink(AppendedFile):
    """Appends to a JSON Lines file, a line a window.

    ::

        {"pipeline":"p","stage":"s","window_start":0,"window_end":60,"values":{"mean":1.5},"errors":{}}

    Every line is JSON in the strict sense. What is not finite has a null in ``values``, and
    stands in ``nonfinite``, in the spelling of Python's json, as a text:
    ``"values":{"mean":null},"errors":{},"nonfinite":{"mean":"NaN"}``.

    **What survives.** A flush ends with an fsync: what was flushed survives a kill -9 and a loss
    of power. Later windows may be there or not, but not in part: a line that was not written to
    its end is dropped when the file is opened again. A window that is written again supersedes
    the older line, which closing takes out later. The file is read once when it is
    opened. Only one sink at a time can have it.

    :param path: the file; it is made if it is not there
    :param encode: called with a value that has no form in JSON, wherever in a result it is; what it
        returns is stored in its place. Without it, such a result is refused
    :param types: dataclasses, NamedTuples and Enums, as which :meth:`rows` gives those that were
        stored; others it gives as a ``Record`` and an ``EnumMember``
    :raises ConfigError: if it cannot be opened, or another sink has it
    :raises SinkError: if a line in it is not a window's, other than the last if that looks like a
        part of one
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        encode: Fallback | None = None,
        types: TypesGiven = (),
    ) -> None:
        super().__init__(path, encode, types)

    @property
    def _header(self) -> bytes:
        return b""

    @property
    def _signature(self) -> bytes:
        return _BEGIN

    def _encode(self, window: WindowRecord) -> bytes:
        return line(window)

    def _read(self, stream: BinaryIO, begin: int, end: int) -> Iterator[StoredWindow]:
        bad: tuple[int, int] | None = None
        number = 0
        while begin < end and (line := stream.readline(end - begin)):
            number += 1
            if bad is not None:
                raise self._broken(bad[0], bad[1], "this is no window")
            found = self._parse(line, begin) if line.endswith(b"\n") else None
            if found is None:
                if not _may_be_torn(line):
                    raise self._broken(number, begin, "this is no window")
                bad = number, begin
            else:
                yield found
            begin += len(line)

    def _parse(self, line: bytes, begin: int) -> StoredWindow | None:
        try:
            window: dict[str, Any] = json.loads(line)
            pipeline, stage = window["pipeline"], window["stage"]
            start, end = int(window["window_start"]), int(window["window_end"])
            values: dict[str, Any] = window["values"]
            for task, text in window.get("nonfinite", {}).items():
                values[task] = json.loads(text)
            rows = [Row(pipeline, stage, start, end, task, v, None) for task, v in values.items()]
            errors: dict[str, str] = window["errors"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        rows += [Row(pipeline, stage, start, end, task, None, e) for task, e in errors.items()]
        return StoredWindow(begin, begin + len(line), (pipeline, stage), end, rows)


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


def line(window: WindowRecord) -> bytes:
    """A window as a line of such a file, with its end."""
    values: list[str] = []
    errors: dict[str, str] = {}
    nonfinite: dict[str, str] = {}
    for task, _, text, error in window.tasks:
        if error is not None:
            errors[task] = error
        elif text is not None:
            strict = _is_strict(text)
            if not strict:
                nonfinite[task] = text
            values.append(f"{json.dumps(task)}:{text if strict else 'null'}")
    key = {
        "pipeline": window.pipeline,
        "stage": window.stage,
        "window_start": window.start,
        "window_end": window.end,
    }
    head = json.dumps(key, separators=(",", ":"))[:-1]
    tail = {"errors": errors, "nonfinite": nonfinite} if nonfinite else {"errors": errors}
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
