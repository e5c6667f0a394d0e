"""The stored format of before, 1: it is read so that it can be converted, and never written."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

from run_task._extras import need
from run_task.errors import ConfigError, SinkError

CSV_HEADER: Final = b"pipeline,stage,window_start,window_end,task,value,error,rows\r\n"

PARQUET_METADATA: Final = b"run_task"


class OlderWindow(NamedTuple):
    """A window as it was stored in format 1."""

    pipeline: str
    stage: str
    start: int
    end: int
    values: Mapping[str, Any]
    errors: Mapping[str, str]


def older(where: str) -> ConfigError:
    """Why something of format 1 is not gone on with."""
    return ConfigError(
        f"{where}: this was written by an older version of run-task, which stored no unit, key, "
        f"bucket and revision: make a new one of it by 'run-task convert OLD NEW', and take that"
    )


def is_older_line(line: bytes) -> bool:
    """Whether a line is a window of a JSON Lines file of format 1."""
    return _line(line) is not None


def csv_windows(path: Path) -> Iterator[OlderWindow]:
    """The windows of a CSV file; one that is not complete at its end is left out.

    :raises SinkError: if something else stands in it
    """
    with path.open(newline="", encoding="utf-8", errors="replace") as stream:
        reader = csv.reader(stream)
        next(reader)
        window: list[tuple[Any, ...]] = []
        try:
            for fields in reader:
                pipeline, stage, start, end, task, value, error, count = fields
                result = json.loads(value) if value else None
                row = (pipeline, stage, int(start), int(end), task, result, error, not value)
                window.append(row)
                if len(window) == int(count):
                    yield from _windows(window)
                    window = []
        except (ValueError, csv.Error, RecursionError) as error:
            if next(reader, None) is not None:
                where = f"{path}, line {reader.line_num - 1}"
                raise SinkError(f"{where}: this is no row of a window: {error}") from error


def line_windows(path: Path) -> Iterator[OlderWindow]:
    """The windows of a JSON Lines file; one that is not complete at its end is left out.

    :raises SinkError: if something else stands in it
    """
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            window = _line(line) if line.endswith(b"\n") else None
            if window is not None:
                yield window
            elif stream.readline():
                raise SinkError(f"{path}, line {number}: this is no window")


def _line(line: bytes) -> OlderWindow | None:
    try:
        window: dict[str, Any] = json.loads(line)
        values: dict[str, Any] = window["values"]
        for task, text in window.get("nonfinite", {}).items():
            values[task] = json.loads(text)
        name = str(window["pipeline"]), str(window["stage"])
        times = int(window["window_start"]), int(window["window_end"])
        errors: dict[str, str] = window["errors"]
        older = OlderWindow(*name, *times, dict(values), dict(errors))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return None if "format" in window else older


def is_older_parquet(metadata: Mapping[bytes, bytes] | None) -> bool:
    """Whether the metadata of a Parquet file are those of format 1."""
    return isinstance(json.loads((metadata or {}).get(PARQUET_METADATA, b"{}")), list)


def parquet_windows(paths: Iterable[Path]) -> Iterator[OlderWindow]:
    """The windows of Parquet files, in the order in which they were flushed.

    :raises SinkError: if a file cannot be read, or is of something else
    """
    pa, pq = need("pyarrow", "arrow"), need("pyarrow.parquet", "arrow")
    columns = ["pipeline", "stage", "window_start", "window_end", "task", "error", "value", "json"]
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                yield from _windows(
                    (*row[:5], _value(*row[6:]), row[5], row[5] is not None)
                    for batch in file.iter_batches(8_192, columns=columns)
                    for row in zip(*(batch.column(name).to_pylist() for name in columns))
                )
        except (pa.ArrowException, OSError, KeyError, ValueError, RecursionError) as error:
            raise SinkError(f"{path} cannot be read: {error}") from error


def table_windows(rows: Iterable[tuple[Any, ...]]) -> Iterator[OlderWindow]:
    """The windows of a table of a database.

    :param rows: pipeline, stage, window_start, window_end, task, error, value and json, sorted by
        window
    """
    return _windows((*row[:5], _value(*row[6:]), row[5], row[5] is not None) for row in rows)


def _value(number: float | None, text: str | None) -> Any:
    return number if text is None else json.loads(text)


def _windows(rows: Iterable[tuple[Any, ...]]) -> Iterator[OlderWindow]:
    for (pipeline, stage, start, end), found in groupby(rows, lambda row: row[:4]):
        values: dict[str, Any] = {}
        errors: dict[str, str] = {}
        for _, _, _, _, task, value, error, failed in found:
            if failed:
                errors[task] = error or ""
            else:
                values[task] = value
        yield OlderWindow(pipeline, stage, start, end, values, errors)
