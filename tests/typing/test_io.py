"""How types flow through sources and sinks; see test_flow."""

from __future__ import annotations

from typing import Any, assert_type

import polars as pl

from run_task import Pipeline, RwLock, TaskInterval, TimeSeries, TimeUnit
from run_task.sinks import (
    CallbackSink,
    CsvSink,
    DurableSink,
    JsonLinesSink,
    ParquetSink,
    Sink,
    SqlSink,
)
from run_task.sources import (
    ArrowFile,
    Batched,
    CsvFile,
    FrameSource,
    JsonLinesFile,
    Paced,
    PacedBatches,
    ParquetFile,
    Polling,
    Rows,
    Source,
    StdinJsonLines,
    paced,
    polling,
)


def test_a_poll_gives_what_its_function_gives_but_for_none() -> None:
    def maybe() -> float | None:
        return 1.0

    source = polling(maybe, TaskInterval.millis(1))
    assert_type(source, Polling[float])
    timestamp, row = next(iter(source))
    assert_type(timestamp, int)
    assert_type(row, float)


def test_a_recording_keeps_the_type_of_its_rows() -> None:
    rows = [(0, "a"), (0, "b")]
    source = paced(rows, unit=TimeUnit.SECONDS)
    assert_type(source, Paced[str])
    assert [row for _, row in source] == ["a", "b"]


def check_what_files_are(
    csv: CsvFile,
    lines: JsonLinesFile,
    parquet: ParquetFile,
    arrow: ArrowFile,
    stdin: StdinJsonLines,
) -> None:
    """Never called: the checkers read it."""
    rows: Rows[dict[str, Any]]
    for rows in (csv, lines, parquet, arrow, stdin):
        assert rows
    source: Source
    for source in (csv, lines, parquet, arrow, stdin, paced(csv)):
        assert source
    batched: Batched
    for batched in (csv, lines, parquet, arrow):
        assert batched
    assert_type(paced(csv), PacedBatches[dict[str, Any]])
    assert_type(paced(stdin), Paced[dict[str, Any]])


def check_what_frames_are(
    frame: pl.DataFrame, query: pl.LazyFrame, series: TimeSeries, latest: RwLock[list[str]]
) -> None:
    """Never called: the checkers read it."""

    def keep(data: list[str], row: dict[str, str]) -> None:
        data.append(row["symbol"])

    pipeline = Pipeline("frames")
    for table in (frame, query):
        series.extend(table)
        series.extend(table, timestamp="at", zone="UTC")
        assert_type(pipeline.source(table, into=series), Pipeline)
        assert_type(pipeline.source(table, into=latest, ingest=keep), Pipeline)
        assert_type(paced(table), PacedBatches[dict[str, Any]])
    series.extend(frame["at"], price=frame["price"])
    source = FrameSource(query)
    rows: Rows[dict[str, Any]] = source
    assert rows
    batched: Batched = source
    assert batched
    FrameSource([1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def check_what_sinks_are(
    lines: JsonLinesSink, csv: CsvSink, parquet: ParquetSink, sql: SqlSink, callback: CallbackSink
) -> None:
    """Never called: the checkers read it."""
    durable: DurableSink
    for durable in (lines, csv, parquet, sql):
        assert durable
    sink: Sink = callback
    assert sink


def check_what_is_refused(csv: CsvFile, callback: CallbackSink) -> None:
    """Never called: the checkers read it."""
    CsvFile("x", columns={"v": complex})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    CsvFile("x", on_malformed="skip")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    paced([1, 2])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    durable: DurableSink = callback  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    assert durable
