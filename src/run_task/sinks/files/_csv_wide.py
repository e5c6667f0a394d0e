"""Results as CSV, a row a window and key.

What the file is of, and what its columns hold, stands in a file beside it, as JSON, so that its
header has names only: ``bars.csv.columns``. In each row, the last column has how many rows the
window has: by this, one that was not written to its end is known. Where files are put aside, its
name ends with a hash of that JSON, since each of them has to be known for one of this stage. In
files of before, its name is the JSON; they stay so.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from run_task.errors import ConfigError, SinkError
from run_task.sinks._protocol import Result
from run_task.sinks._record import WindowKey
from run_task.sinks.encoding._json import Fallback
from run_task.sinks.files._beside import FileBeside
from run_task.sinks.files._csv_long import LONGEST
from run_task.sinks.files._inventory import StoredWindow, broken
from run_task.sinks.wide._errors import GONE
from run_task.sinks.wide._form import WideForm
from run_task.sinks.wide._kinds import WideKind
from run_task.sinks.wide._record import WideRecord
from run_task.sinks.wide._schema import NameRules, WideSchema
from run_task.sinks.wide._stored import StoredRow, results
from run_task.time._interval import TimeUnit

_LINE_END: Final = "\r\n"
_COUNT: Final = "window_rows"
"""What the last column is called."""

_TOLD: Final = "run_task "
"""What the name of the last column begins with in files of before."""

_BESIDE: Final = b'{"run_task_columns":'
"""How the file beside it begins."""

_FIXED: Final = "a CSV file has the columns of its header, which does not change"

_STARTS: Final = b"window_start,window_end,"
"""What a header begins with."""

_LONGEST_HEADER: Final = 2**22
"""How many bytes a header has at most."""

_FIELD: Final = re.compile(r'("(?:[^"]|"")*"|[^",\r\n]*)(,|\r\n)')

_SHAPE: Final = b"0000-00-00T00:00:00"
_DIGIT: Final = re.compile(rb"[0-9]")

_UNITS: Final[Mapping[TimeUnit, str]] = {
    TimeUnit.MINUTES: "s",
    TimeUnit.SECONDS: "s",
    TimeUnit.MILLIS: "ms",
    TimeUnit.MICROS: "us",
    TimeUnit.NANOS: "ns",
}
"""To which of NumPy's units times are told."""


class WideCsv(WideForm):
    """A row a window and key.

    :param where: the sink, for messages
    :param path: the file
    :param encode: makes of a value that has no form in JSON another that has one
    :param check: refuses what the sink cannot store
    :param is_rotated: whether files are put aside
    """

    def __init__(
        self,
        where: str,
        path: Path,
        encode: Fallback | None,
        check: Callable[[WideRecord], None],
        *,
        is_rotated: bool,
    ) -> None:
        super().__init__(where, encode, NameRules(text=_text_problem, reserved=(_COUNT,)))
        self._check = check
        self._header = b""
        beside = path.with_name(f"{path.name}.columns")
        self._beside = FileBeside(beside, path, _BESIDE, "what its columns hold", where)
        self._is_of_before = False
        self._is_rotated = is_rotated

    def record(self, result: Result) -> WideRecord:
        """A result as rows.

        :raises SinkError: if it cannot be stored
        """
        record = super().record(result)
        self._check(record)
        return record

    @property
    def header(self) -> bytes:
        """The names of the columns; empty: they are not known yet."""
        return self._header

    def fix(self) -> None:
        """The columns are those that are known by now, and stay so.

        :raises SinkError: if what they hold cannot be told beside the file
        """
        if not self._header:
            self._table.fix(_FIXED)
            count = _hashed(self._schema) if self._is_rotated else _COUNT
            names = [*self._schema.names, count]
            self._header = (",".join(map(_name, names)) + _LINE_END).encode()
        if self._is_of_before:
            return
        told = _told(self._schema)
        try:
            if self._beside.read() != told:
                self._beside.replace(told)
        except ConfigError as error:
            raise SinkError(str(error)) from error.__cause__

    def learn(self, stream: BinaryIO) -> bool:
        """Learn the columns from a file, at its beginning, unless they are known.

        :return: whether they are known
        :raises ConfigError: if it is a file of something else
        """
        if self._header:
            return True
        begin = stream.read(len(_STARTS))
        if not begin:
            self._beside.check()
            return False
        if begin != _STARTS:
            raise ConfigError(
                f"{self._where}: this is a file of something else, or of another layout: it does "
                f"not begin with {_STARTS.decode()!r}"
            )
        line = begin
        while len(line) < _LONGEST_HEADER and (more := stream.readline(_LONGEST_HEADER)):
            line += more
            if line.endswith(b"\r\n") and line.count(b'"') % 2 == 0:
                break
        names = list(map(_text, _fields(line.decode(errors="replace")) or ()))
        try:
            schema = self._schema_of(names)
            if names[:-1] != schema.names:
                raise ValueError("its columns are not those that are told of it")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ConfigError(f"{self._where}: this is a file of something else: {error}") from None
        self._table.schema = schema
        self._table.fix(_FIXED)
        self._header = line
        return True

    def _schema_of(self, names: Sequence[str]) -> WideSchema:
        """What a file with such a header holds.

        :raises ValueError: if it is none of a sink's
        """
        last = names[-1] if names else ""
        if last.startswith(_TOLD):
            self._is_of_before = True
            return WideSchema.of_json(json.loads(last.removeprefix(_TOLD)))
        if not last.startswith(_COUNT):
            raise ValueError(f"its last column is not {_COUNT!r}")
        told = self._beside.read()
        if told is None:
            raise ValueError(
                f"there is no {str(self._beside.path)!r}, which tells what its columns hold: put "
                f"that beside the file again, or take another path"
            )
        try:
            schema = WideSchema.of_json(json.loads(told)["run_task_columns"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{str(self._beside.path)!r} beside it is damaged: {error}") from None
        if last not in (_COUNT, _hashed(schema)):
            raise ValueError(f"{str(self._beside.path)!r} tells of another one")
        return schema

    def may_begin(self, text: bytes) -> bool:
        """Whether a window, or a part of one, can begin so."""
        begin = text[: len(_SHAPE)]
        return _DIGIT.sub(b"0", begin) == _SHAPE[: len(begin)]

    def is_older(self, _stream: BinaryIO) -> bool:
        """There are no older ones."""
        return False

    def encode(self, window: WideRecord) -> bytes:
        """A window as it stands in the file."""
        schema = self._schema
        count = max(1, window.height)  # of a window that has no rows any more, one tells that
        empty = [""] * count
        nanos = _UNITS[schema.unit]
        times = _times(window.key.start, window.key.end, schema.unit, nanos)
        columns: list[Iterable[str]] = [[times] * count]
        if schema.by is not None:
            columns.append(_cells(schema.key_kind or WideKind.TEXT, window.keys or [None] * count))
        if schema.table_task is not None:
            columns.append(_cells(WideKind.INT, window.numbers or [None] * count))
        for name, column in schema.columns.items():
            held = window.columns.get(name)
            columns.append(_cells(column.kind, held) if held else empty)
        errors = window.errors if window.height else [GONE]
        columns.append(_cells(WideKind.TEXT, errors) if errors else empty)
        columns.append([str(count)] * count)
        return "".join(f"{','.join(row)}{_LINE_END}" for row in zip(*columns)).encode()

    def read(self, stream: BinaryIO, begin: int, end: int, path: Path) -> Iterator[StoredWindow]:
        """The windows in a part of a file that are whole."""
        if not self._header:  # nothing was written yet
            return
        schema = self._schema
        start = position = begin
        rows: list[StoredRow] = []
        bad: int | None = None
        while position < end and (line := stream.readline(end - position)):
            while line.count(b'"') % 2 and position + len(line) < end:
                more = stream.readline(end - position - len(line))
                if not more:
                    break
                line += more
            if bad is not None:
                raise broken(path, None, bad, "this is no row of a window")
            torn = not line.endswith(b"\r\n") or line.count(b'"') % 2 == 1 or b"\0" in line
            parsed = None if torn else self._parsed(schema, line)
            if parsed is None:
                if not torn:
                    raise broken(path, None, position, "this is no row of a window")
                bad = position
            position += len(line)
            if parsed is None:
                continue
            row, count = parsed
            if rows and row[:2] != rows[0][:2]:
                raise broken(path, None, start, "here, a window ends too early")
            rows.append(row)
            if len(rows) == count:
                key = WindowKey(schema.pipeline, schema.stage, row.start, row.end, 0)
                told = list(results(schema, rows))
                yield StoredWindow(start, position, key, schema.unit, told)
                start, rows = position, []

    def _parsed(self, schema: WideSchema, line: bytes) -> tuple[StoredRow, int] | None:
        """A row, and how many its window has; None if it is none."""
        fields = _fields(line.decode(errors="replace"))
        if fields is None or len(fields) != len(schema.names) + 1:
            return None
        try:
            cells = iter(fields)
            start, end = (_time(next(cells), schema.unit) for _ in range(2))
            key = (
                None if schema.by is None else _cell(schema.key_kind or WideKind.TEXT, next(cells))
            )
            number = None if schema.table_task is None else _cell(WideKind.INT, next(cells))
            values = [_cell(column.kind, next(cells)) for column in schema.columns.values()]
            error = _cell(WideKind.TEXT, next(cells))
            return StoredRow(start, end, key, number, values, error), int(next(cells))
        except (ValueError, OverflowError, KeyError):
            return None


def _told(schema: WideSchema) -> bytes:
    """What stands beside the file."""
    return json.dumps({"run_task_columns": schema.to_json()}, separators=(",", ":")).encode()


def _hashed(schema: WideSchema) -> str:
    """The name of the last column by which a file is known for one of a stage."""
    return f"{_COUNT}_{hashlib.sha256(_told(schema)).hexdigest()[:8]}"


def _text_problem(text: str) -> str | None:
    if len(text) < LONGEST:
        return None
    return f"a text of {len(text)} characters is too long for a CSV: take a Parquet or SQL sink"


def _name(name: str) -> str:
    return _quoted(name) if re.search(r'[",\r\n]', name) else name


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _fields(line: str) -> list[str] | None:
    """The fields of a row, with their quotation marks; None if it is none."""
    found: list[str] = []
    place = 0
    while match := _FIELD.match(line, place):
        found.append(match[1])
        place = match.end()
        if match[2] != ",":
            return found if place == len(line) else None
    return None


def _text(field: str) -> str:
    return field[1:-1].replace('""', '"') if field.startswith('"') else field


def _times(start: int, end: int, unit: TimeUnit, told: str) -> str:
    counts = [time * 60 if unit is TimeUnit.MINUTES else time for time in (start, end)]
    texts = np.datetime_as_string(np.array(counts, f"M8[{told}]"))
    return f"{texts[0]}Z,{texts[1]}Z"


def _time(field: str, unit: TimeUnit) -> int:
    if not field.endswith("Z"):
        raise ValueError(field)
    count = int(np.array(field[:-1], f"M8[{_UNITS[unit]}]").astype(np.int64))
    return count // 60 if unit is TimeUnit.MINUTES else count


def _float_text(value: float) -> str:
    return "NaN" if value != value else repr(value)  # polars takes "nan" for a text


def _timestamp_text(value: datetime) -> str:
    return value.replace(tzinfo=None).isoformat() + "Z"


_TO_TEXT: Final[Mapping[WideKind, Callable[[Any], str]]] = {
    WideKind.FLOAT: _float_text,
    WideKind.INT: str,
    WideKind.BOOL: lambda value: "true" if value else "false",
    WideKind.TEXT: _quoted,
    WideKind.TIMESTAMP: _timestamp_text,
    WideKind.LOCAL: datetime.isoformat,
    WideKind.DATE: date.isoformat,
    WideKind.DECIMAL: str,
    WideKind.JSON: _quoted,
}


def _cells(kind: WideKind, values: Sequence[Any]) -> list[str]:
    text = _TO_TEXT[kind]
    return ["" if value is None else text(value) for value in values]


def _bool(text: str) -> bool:
    return {"true": True, "false": False}[text]


def _timestamp(text: str) -> datetime:
    return datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)


_OF_TEXT: Final[Mapping[WideKind, Callable[[str], Any]]] = {
    WideKind.FLOAT: float,
    WideKind.INT: int,
    WideKind.BOOL: _bool,
    WideKind.TEXT: _text,
    WideKind.TIMESTAMP: _timestamp,
    WideKind.LOCAL: datetime.fromisoformat,
    WideKind.DATE: date.fromisoformat,
    WideKind.DECIMAL: str,
    WideKind.JSON: _text,
}


def _cell(kind: WideKind, field: str) -> Any:
    return _OF_TEXT[kind](field) if field else None
