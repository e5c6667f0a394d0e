"""Stores of wide tables, for tests of all of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from run_task.sinks import CsvSink, Layout, ParquetSink, SqlSink

FILES = ["csv", "parquet"]
KINDS = [*FILES, "sqlite", "postgres", "mariadb", "duckdb"]

WideSink = CsvSink | ParquetSink | SqlSink

Open = Callable[[], WideSink]
"""Opens the same store, again and again."""


@contextmanager
def store(kind: str, folder: Path, request: pytest.FixtureRequest) -> Generator[Open]:
    """A table that is not there yet, in a store of some kind. All sinks are closed in the end."""
    table = f"bars_{random.randrange(10**9)}"
    sinks: list[WideSink] = []

    def open_it() -> WideSink:
        sink: WideSink
        match kind:
            case "csv":
                sink = CsvSink(folder / "file.csv", layout=Layout.WIDE)
            case "parquet":
                sink = ParquetSink(folder / "folder", layout=Layout.WIDE)
            case "sqlite":
                sink = SqlSink(folder / "file.db", table=table, layout=Layout.WIDE)
            case "duckdb":
                pytest.importorskip("duckdb_engine")
                url = f"duckdb:///{folder / 'file.duckdb'}"
                sink = SqlSink(url, table=table, layout=Layout.WIDE)
            case _:
                url = request.getfixturevalue(f"{kind}_url")
                sink = SqlSink(url, table=table, layout=Layout.WIDE)
        sinks.append(sink)
        return sink

    try:
        yield open_it
    finally:
        for sink in sinks:
            sink.close()
