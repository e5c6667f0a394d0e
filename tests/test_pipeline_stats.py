"""What a pipeline tells of itself: how it does, what it is made of, what is wrong with it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.threads import PATIENCE

from run_task import (
    ConfigError,
    Percentiles,
    Pipeline,
    PipelineStats,
    RunnerStats,
    RwLock,
    SourceStats,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.sinks import CallbackSink
from run_task.sources import CsvFile


@task
def count(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view)


def series() -> TimeSeries:
    return TimeSeries({"value": float}, unit=TimeUnit.MILLIS)


def test_before_it_runs_all_is_zero() -> None:
    pipeline = Pipeline("idle")
    data = series()
    pipeline.source([(1, {"value": 1.0})], into=data)
    pipeline.stage("only", [count], data, TaskInterval.millis(10))
    none = RunnerStats(0, 0, 0, Percentiles(), Percentiles())
    sources = {"source-1": SourceStats()}
    assert pipeline.stats == PipelineStats({"only": none}, (0,), 0, sources=sources)


def test_it_counts_windows_and_the_rows_of_each_source(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("timestamp,value\n" + "".join(f"{t},1.0\n" for t in range(1000)))
    first, second = series(), series()
    pipeline = Pipeline("counting")
    pipeline.source(CsvFile(file, unit=TimeUnit.MILLIS), into=first)  # in batches
    pipeline.source(((t, {"value": 2.0}) for t in range(30)), into=second)  # row by row
    pipeline.source([], into=second)
    pipeline.stage("a", [count], first, TaskInterval.millis(10))
    pipeline.stage("b", [count], second, TaskInterval.millis(10))
    pipeline.run_sync()
    stats = pipeline.stats
    assert stats.rows == (1000, 30, 0)
    assert list(stats.stages) == ["a", "b"]
    assert all(stage.ticks >= 1 and stage.duration.max > 0 for stage in stats.stages.values())
    assert stats.waiting == 0


def test_it_counts_what_waits_for_a_sink() -> None:
    go = threading.Event()
    pipeline = Pipeline("waiting")
    stage = pipeline.stage("only", [count], series(), TaskInterval.millis(5))
    stage.sink(CallbackSink(lambda stage, dataset: go.wait()))
    with pipeline:
        deadline = time.monotonic() + PATIENCE
        while (waiting := pipeline.stats.waiting) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        go.set()
    assert waiting >= 3
    assert pipeline.stats.waiting == 0


def test_it_names_its_sources_and_their_data() -> None:
    data = series()
    rows = [(1, {"value": 1.0})]
    pipeline = Pipeline("named")
    assert pipeline.sources == ()
    pipeline.source(rows, into=data)
    assert len(pipeline.sources) == 1
    assert pipeline.sources[0][0] is rows
    assert pipeline.sources[0][1] is data


def test_it_tells_all_mistakes_that_a_run_would_refuse() -> None:
    pipeline = Pipeline("mistaken")
    assert ["has no stages" in str(mistake) for mistake in pipeline.mistakes()] == [True]
    data = series()
    for _ in range(2):
        pipeline.source([(1, {"value": 1.0})], into=series())
    pipeline.source([(1, {"value": 1.0})], into=data)
    pipeline.stage("only", [count], data, TaskInterval.millis(10))
    mistakes = pipeline.mistakes()
    assert len(mistakes) == 2
    assert all("no stage reads" in str(mistake) for mistake in mistakes)
    with pytest.raises(type(mistakes[0]), match="no stage reads"):
        pipeline.run_sync()
    fine = Pipeline("fine")
    fine.stage("only", [count], data, TaskInterval.millis(10))
    assert fine.mistakes() == []


def test_so_it_does_of_what_no_checkpoint_could_keep(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rows = [(1, {"value": 1.0})]

    def mistakes(name: str, source: Any, journal: Path | None = None, keep: bool = True) -> str:
        pipeline = Pipeline(name, checkpoint=tmp_path / name if keep else None)
        data = series()
        pipeline.source(source, into=data, name="rows", journal=journal)
        pipeline.stage("only", [count], data, TaskInterval.millis(10))
        found = pipeline.mistakes()
        if found:
            with pytest.raises(ConfigError, match="after a kill"):
                pipeline.run_sync()
        return "\n".join(map(str, found))

    assert mistakes("once", iter(rows)).startswith("source 'rows': after a kill, ")
    assert mistakes("journal", iter(rows), tmp_path / "kept") == ""
    assert mistakes("again", rows) == ""
    assert mistakes("unkept", iter(rows), keep=False) == ""


def test_so_it_does_of_data_that_no_checkpoint_could_keep(tmp_path: Path) -> None:
    pipeline = Pipeline("kept", checkpoint=tmp_path)
    latest = RwLock[list[float]]([])

    @task
    def last(values: list[float], start: int, end: int) -> float:
        return values[-1]

    def ingest(values: list[float], row: Any) -> None:
        values.append(row["value"])

    pipeline.source([(1, {"value": 1.0})], latest, ingest, unit=TimeUnit.MILLIS, name="rows")
    pipeline.stage("only", [last], latest, TaskInterval.millis(10))
    (mistake,) = pipeline.mistakes()
    assert "source 'rows': it feeds a RwLock of a list" in str(mistake)
    with pytest.raises(ConfigError, match="it feeds a RwLock of a list"):
        pipeline.run_sync()
