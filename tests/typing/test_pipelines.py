"""How types flow through pipelines; see test_flow."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

from run_task import (
    Atom,
    Closed,
    DataSet,
    KeyedStage,
    Pipeline,
    RwLock,
    Stage,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.sinks import CallbackSink, SqlSink
from run_task.sources import CsvFile, JsonLinesFile, ParquetFile, paced, polling

SECOND = TaskInterval.seconds(1)


@task
def mean(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view["v"].mean()) if len(view) else 0.0


@task
def count(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view)


@task
def total(values: list[float], start: int, end: int) -> float:
    return sum(values)


@task
def both(data: tuple[TimeSeriesView, list[float]], start: int, end: int) -> float:
    return len(data[0]) + sum(data[1])


def add(values: list[float], dataset: DataSet[float]) -> None:
    values.extend(dataset.values())


def add_texts(values: list[float], dataset: DataSet[str]) -> None:
    values.extend(len(text) for text in dataset.values())


def put(series: TimeSeries, dataset: DataSet[float]) -> None:
    series.append(dataset.timestamp, v=dataset["mean"])


def keep_row(atom: Atom[float], row: dict[str, Any]) -> None:
    atom.reset(row["v"])


def keep(atom: Atom[float], dataset: DataSet[float]) -> None:
    atom.reset(dataset["mean"])


def test_a_pipeline_from_end_to_end() -> None:
    series = TimeSeries({"v": float}, unit=TimeUnit.SECONDS)
    means = RwLock[list[float]]([])
    pipeline = Pipeline("p")
    rows = [(i, {"v": 1.0}) for i in range(4)]
    assert_type(pipeline.source(rows, into=series), Pipeline)
    stage = pipeline.stage("a", tasks=[mean], data=series, interval=SECOND)
    assert_type(stage, Stage[TimeSeriesView, float])
    assert_type(stage.into(means, add), Stage[TimeSeriesView, float])
    right = TimeSeries({"mean": float}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    assert_type(stage.into(right), Stage[TimeSeriesView, float])
    assert_type(stage.series(retention=100), TimeSeries)
    later = pipeline.stage("b", [total], means, SECOND)
    assert_type(later, Stage[list[float], float])
    # Of which stage a result is, and so its type, is known of those of one stage only.
    assert_type(list(pipeline.replay()), list[tuple[str, Any]])
    results = list(pipeline.replay().of(later))
    assert_type(results, list[DataSet[float]])
    assert_type(results[-1][total], float)
    assert results[-1][total] == 4.0


def test_of_several_inputs_tasks_get_a_tuple_of_views() -> None:
    series, numbers = TimeSeries({"v": float}, unit=TimeUnit.SECONDS), RwLock([0.5])
    pipeline = Pipeline("p").source([(0, {"v": 1.0})], into=series)
    stage = pipeline.stage("a", [both], (series, numbers), SECOND)
    assert_type(stage, Stage[tuple[TimeSeriesView, list[float]], float])
    (dataset,) = pipeline.replay().of(stage)
    assert_type(dataset[both], float)
    assert dataset[both] == 1.5
    keyed = TimeSeries({"k": str, "v": float}, unit=TimeUnit.SECONDS, key="k")
    by_key = pipeline.stage("b", [both], (keyed, numbers), SECOND, by="k")
    assert_type(by_key, KeyedStage[tuple[TimeSeriesView, list[float]], float])


def check_what_ingest_is_given(
    csv: CsvFile, lines: JsonLinesFile, parquet: ParquetFile, sql: SqlSink
) -> None:
    """Never called: the checkers read it."""
    series = TimeSeries({"v": float})
    numbers = RwLock[list[float]]([])
    latest = Atom(0.0)

    def value(values: list[float], row: dict[str, Any]) -> None:
        values.append(row["v"])

    def newest(atom: Atom[float], row: float) -> None:
        atom.reset(row)

    async def rows() -> AsyncIterator[tuple[int, dict[str, float]]]:
        yield 0, {"v": 1.0}

    pipeline = Pipeline()
    # Rows by column go into a series as they are; else ingest is given the data and the row.
    pipeline.source(csv, series).source(lines, series).source(parquet, series)
    pipeline.source(paced(csv, 10), into=series).source(rows(), into=series)
    pipeline.source(csv, into=numbers, ingest=value)
    pipeline.source(polling(lambda: 1.0, every=SECOND), into=latest, ingest=newest)
    # Several data, each with an ingest of its own.
    pipeline.source(csv, into=(series, latest), ingest=(None, keep_row))
    pipeline.source(csv, into=(series, latest, numbers), ingest=(None, keep_row, value))
    pipeline.source(csv, into=(series, TimeSeries({"v": float})))
    # The value of a lock; an Atom and a series themselves.
    stage = pipeline.stage("a", [mean, count], series, SECOND)
    stage.into(numbers, add).into(TimeSeries({"v": float}), put).into(latest, keep)
    stage.into(numbers, lambda values, dataset: values.append(dataset["mean"]))
    stage.sink(sql).sink(CallbackSink(lambda stage, dataset: None))


def check_what_is_refused(csv: CsvFile) -> None:
    """Never called: the checkers read it."""
    series = TimeSeries({"v": float})
    numbers = RwLock[list[float]]([])
    texts = RwLock[list[str]]([])
    latest = Atom(0.0)
    pipeline = Pipeline()
    stage = pipeline.stage("a", [mean], series, SECOND)

    # A task for other data.
    pipeline.stage("b", [total], series, SECOND)  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pipeline.stage("b", [both], (numbers, series), SECOND)  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pipeline.stage("b", [mean], (series, numbers), SECOND)  # type: ignore[list-item]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pipeline.stage("b", [both], (series, 1.5), SECOND)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]

    # An ingest for other results, and for other data.
    stage.into(numbers, add_texts)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stage.into(numbers)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    stage.into(texts, add)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stage.into(latest, add)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stage.into(numbers, keep)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stage.into([1.0], add)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]

    # An ingest for other rows; none, where rows do not enter by themselves.
    def number(values: list[float], row: float) -> None:
        values.append(row)

    def words() -> Iterator[tuple[int, str]]:
        yield 0, "a"

    pipeline.source(words(), numbers, number)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pipeline.source([(0, 1.0)], texts, number)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pipeline.source(csv, numbers)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pipeline.source(words(), series)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pipeline.source(csv, (series, numbers), (None, keep_row))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pipeline.source(csv, (series, numbers), keep_row)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pipeline.source([1.0], numbers, number)  # type: ignore[list-item]  # pyright: ignore[reportArgumentType, reportCallIssue]

    # What is no sink.
    stage.sink(print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
