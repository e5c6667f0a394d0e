"""``run-task convert``: what an older version has stored, in today's format."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import typer

from run_task._window import Window
from run_task.cli._exits import Exit, running
from run_task.cli._results_file import results_file
from run_task.cli._user_error import UserError
from run_task.errors import TaskError
from run_task.observe._url import url_shown
from run_task.sinks import CsvSink, DurableSink, JsonLinesSink, ParquetSink, Result, SqlSink
from run_task.sinks._older import (
    CSV_HEADER,
    OlderWindow,
    csv_windows,
    is_older_line,
    is_older_parquet,
    line_windows,
    parquet_windows,
)
from run_task.tasks._dataset import DataSet
from run_task.time._interval import TaskInterval, TimeUnit

_SQLITE: bytes = b"SQLite format 3\0"


class _StoredError(TaskError):
    """Why a task had no result, in the words in which it was stored."""

    def __str__(self) -> str:
        return self.reason or ""


def convert(old: str, new: str, table: str, new_table: str, unit: str | None) -> Exit:
    """Make a file, a folder or a table of today's format of an older one."""
    with running():
        interval = _interval(unit)
        kind, read = _older(old, table)
        _refuse_what_is_there(new, new_table)
        pipelines: dict[str, None] = {}
        with read() as windows:
            for window in windows:
                pipelines[window.pipeline] = None
        if Path(new).suffix.lower() == ".parquet" and len(pipelines) > 1:
            raise UserError(
                f"{old!r} has results of {len(pipelines)} pipelines, and a single Parquet file is "
                f"made of one: give the name of a folder"
            )
        count = 0
        for pipeline in pipelines or ("none",):
            with ExitStack() as stack:
                # First, since it makes an SQLite file one that is read while it is written.
                sink = stack.enter_context(_opened(new, new_table, kind, pipeline))
                sink.begin(pipeline)
                windows = stack.enter_context(read())
                for window in windows:
                    if window.pipeline == pipeline:
                        sink.write(Result.of(pipeline, window.stage, _dataset(window, interval)))
                        count += 1
                sink.flush()
    typer.echo(f"{count} windows of {len(pipelines)} pipelines: {url_shown(new)}")
    return Exit.DONE


def _interval(unit: str | None) -> TaskInterval | None:
    if unit is None:
        return None
    try:
        return TaskInterval(1, TimeUnit(unit))
    except ValueError:
        raise UserError(f"--unit {unit}: take ns, us, ms, s or m") from None


def _dataset(window: OlderWindow, interval: TaskInterval | None) -> DataSet[Any]:
    span = Window(window.start, window.end)
    errors = {task: _StoredError(task, span, error) for task, error in window.errors.items()}
    return DataSet(span, window.values, errors, interval=interval)


_Read = Callable[[], Any]
"""Reads the windows: gives a context manager of an iterator."""


def _older(old: str, table: str) -> tuple[type[DurableSink], _Read]:
    """The kind of sink that wrote something, and what reads it."""
    path = Path(old)
    head = b""
    if "://" not in old:
        try:
            if path.is_dir():
                paths = sorted(path.glob("*.parquet"))
                if paths and _is_older_parquet(paths[0]):
                    return ParquetSink, _reading(lambda: parquet_windows(paths))
                raise _not_older(old)
            with path.open("rb") as stream:
                head = stream.readline(1_024)
                is_line = is_older_line(head if head[-1:] == b"\n" else head + stream.readline())
        except OSError as error:
            raise UserError(f"{old!r} cannot be read: {error.strerror}") from error
        if head == CSV_HEADER:
            return CsvSink, _reading(lambda: csv_windows(path))
        if is_line:
            return JsonLinesSink, _reading(lambda: line_windows(path))
        if head.startswith(b"PAR1"):
            return ParquetSink, _reading(lambda: parquet_windows([path]))
    if "://" not in old and not head.startswith(_SQLITE):
        raise _not_older(old)
    from run_task.sinks._sql_long import older_table

    with older_table(old, table) as windows:
        if windows is None:
            raise _not_older(f"{url_shown(old)}, table {table}")
    return SqlSink, lambda: older_table(old, table)


def _not_older(old: str) -> UserError:
    return UserError(f"{old!r} is nothing that an older version of run-task has stored results in")


def _is_older_parquet(path: Path) -> bool:
    from run_task._extras import need

    with need("pyarrow.parquet", "arrow").ParquetFile(path) as file:
        return is_older_parquet(file.schema_arrow.metadata)


def _reading(windows: Callable[[], Iterator[OlderWindow]]) -> _Read:
    @contextmanager
    def reading() -> Generator[Iterator[OlderWindow]]:
        yield windows()

    return reading


def _refuse_what_is_there(new: str, new_table: str) -> None:
    is_database = "://" in new or Path(new).suffix.lower() in (".db", ".sqlite", ".sqlite3")
    if is_database:
        from run_task.sinks._sql import has_table

        if has_table(new, new_table):
            raise UserError(
                f"{url_shown(new)!r} has a table {new_table!r}: give another one by --new-table"
            )
    elif os.path.lexists(new):
        raise UserError(f"{new!r} is there: give the name of a new file or folder")


@contextmanager
def _opened(
    new: str, new_table: str, kind: type[DurableSink], pipeline: str
) -> Generator[DurableSink]:
    """What is written to: a database, or a file of the kind that its name says."""
    suffix = Path(new).suffix.lower()
    if "://" in new or suffix in (".db", ".sqlite", ".sqlite3"):
        sink: DurableSink = SqlSink(new, table=new_table)
    elif suffix in (".csv", ".jsonl", ".ndjson", ".parquet"):
        with results_file(new, pipeline) as made:
            yield made
        return
    elif kind is SqlSink:
        sink = SqlSink(new, table=new_table)
    elif kind is CsvSink:
        sink = CsvSink(new)
    elif kind is ParquetSink:
        sink = ParquetSink(new)
    else:
        sink = JsonLinesSink(new)
    try:
        yield sink
    finally:
        sink.close()
