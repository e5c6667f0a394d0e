"""Whatever is written to a wide sink is read back equal, or was refused by name."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support import values as of_values
from tests.support.proof import examples

from run_task import DataSet, KeyedDataSet, SinkError, TaskError, TaskInterval, Window
from run_task.sinks import CsvSink, Layout, ParquetSink, Result, SqlSink

pytest.importorskip("pyarrow.parquet")
pytest.importorskip("sqlalchemy")

IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where files are that are made to last by the hundred: on a disk, that takes long."""

MINUTE = TaskInterval.seconds(60)
WIDE = CsvSink | ParquetSink | SqlSink

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
fields = st.dictionaries(names, of_values.values, max_size=3)
simple = (
    st.none() | st.floats() | st.integers(-(2**65), 2**65) | st.text(max_size=4) | st.booleans()
)
results = st.dictionaries(names, of_values.values | fields | simple, max_size=4)
keyed_results = st.dictionaries(
    names, st.dictionaries(names.filter(bool), simple | fields, max_size=4), max_size=3
)
failures = st.dictionaries(names, st.text(max_size=10), max_size=2)


def opened(kind: str, folder: str) -> WIDE:
    sink: WIDE
    match kind:
        case "csv":
            sink = CsvSink(Path(folder, "a.csv"), layout=Layout.WIDE, types=of_values.TYPES)
        case "parquet":
            sink = ParquetSink(Path(folder, "a"), layout=Layout.WIDE, types=of_values.TYPES)
        case "duckdb":
            url = f"duckdb:///{Path(folder, 'a.duckdb')}"
            sink = SqlSink(url, layout=Layout.WIDE, types=of_values.TYPES)
        case _:
            sink = SqlSink(Path(folder, "a.db"), layout=Layout.WIDE, types=of_values.TYPES)
    sink.begin("p")
    return sink


def equal(stored: Any, given: Any) -> bool:
    """Whether what was read is what was written: of fields, those that it has."""
    parts = fields_of(given)
    if parts is None:
        return cell_equal(stored, given)
    if stored is None:
        return all(cell_equal(None, item) for item in parts.values())
    return all(cell_equal(stored.get(name), item) for name, item in parts.items())


def fields_of(given: Any) -> Mapping[str, Any] | None:
    kind: Any = given.__class__
    if issubclass(kind, Mapping):
        return given if all(isinstance(name, str) for name in given) else None
    if issubclass(kind, of_values.Point):
        return {"x": given.x, "y": given.y}
    return given._asdict() if issubclass(kind, of_values.Band) else None


def cell_equal(stored: Any, given: Any) -> bool:
    """Whether a cell is equal: a number by its value, a time by the instant."""
    kind: Any = given.__class__
    value: Any = given
    if issubclass(kind, np.datetime64 | np.timedelta64):
        if np.isnat(given):
            return stored is None
        value = given.astype("M8[us]").item() if given.dtype.kind == "M" else given
    elif issubclass(kind, np.generic):
        value = given.item()
    if isinstance(value, datetime) and value.tzinfo is not None:
        return bool(stored == value)
    if isinstance(value, float) and isinstance(stored, float | int):
        return bool(stored == value) or (math.isnan(value) and math.isnan(stored))
    return of_values.same(stored, value) or bool(stored == value)


KINDS = ["csv", "parquet", "sqlite", "duckdb"]


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.tuples(results, failures), min_size=1, max_size=4), st.booleans())
@settings(max_examples=examples(20), deadline=None)
def test_windows_without_keys(
    kind: str, windows: list[tuple[dict[str, Any], dict[str, str]]], flush: bool
) -> None:
    if kind == "duckdb":
        pytest.importorskip("duckdb_engine")
    written: dict[tuple[int, str], Any] = {}
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        with contextlib.closing(opened(kind, folder)) as sink:
            for number, (values, errors) in enumerate(windows, 1):
                window = Window(60 * number - 60, 60 * number)
                failed = {
                    task: TaskError(task, window, why)
                    for task, why in errors.items()
                    if task not in values
                }
                dataset = DataSet(window, values, failed, interval=MINUTE)
                try:
                    sink.write(Result.of("p", "s", dataset))
                except SinkError:
                    continue
                written |= {(window.end, task): value for task, value in values.items()}
                written |= {(window.end, task): error for task, error in failed.items()}
                if flush:
                    sink.flush()
        with contextlib.closing(opened(kind, folder)) as sink:
            found = {(row.end, row.task): row for row in sink.rows()}
            assert len(found) == len(list(sink.rows()))
    for where, value in written.items():
        row = found.pop(where, None)
        if isinstance(value, TaskError):
            assert row is not None
            assert row.error is not None
            assert row.error.endswith(
                str(value).replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
            )
        else:
            assert row is None or row.error is None
            assert equal(None if row is None else row.value, value), where
    assert all(row.value is None and row.error is None for row in found.values())


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.tuples(st.integers(1, 3), keyed_results), min_size=1, max_size=4), st.booleans())
@example(windows=[(1, {"": {"0": None}}), (1, {})], flush=True)  # no row is left
@settings(max_examples=examples(20), deadline=None)
def test_windows_by_key(
    kind: str, windows: list[tuple[int, dict[str, dict[str, Any]]]], flush: bool
) -> None:
    if kind == "duckdb":
        pytest.importorskip("duckdb_engine")
    written: dict[int, dict[tuple[str, str], Any]] = {}
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        with contextlib.closing(opened(kind, folder)) as sink:
            for number, values in windows:
                window = Window(60 * number - 60, 60 * number)
                dataset = KeyedDataSet(window, "the key", values, interval=MINUTE)
                try:
                    sink.write(Result.of("p", "s", dataset))
                except SinkError:
                    continue
                written[window.end] = {
                    (task, key): value
                    for task, of_task in values.items()
                    for key, value in of_task.items()
                }
                if flush:
                    sink.flush()
        with contextlib.closing(opened(kind, folder)) as sink:
            found = {(row.end, row.task, row.key): row for row in sink.rows()}
            assert len(found) == len(list(sink.rows()))
    for end, results in written.items():
        for (task, key), value in results.items():
            row = found.pop((end, task, key), None)
            assert equal(None if row is None else row.value, value), (end, task, key)
    assert all(row.value is None and row.error is None for row in found.values())
    assert {row.end for row in found.values()} <= set(written)
