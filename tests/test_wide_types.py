"""Columns of wide tables hold what tasks say that they return, before the first value is known."""

from __future__ import annotations

import dataclasses
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    TypedDict,
    TypeVar,
)

import numpy as np
import pytest
from tests.support.bench import PipelineBench
from tests.support.wide import KINDS, Open, WideSink, store

from run_task import ConfigError, Pipeline, RwLock, Task, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.aggregates import count, mean, ohlc
from run_task.sinks import CsvSink, DurableSink, Layout, ParquetSink
from run_task.sinks.wide._kinds import WideKind
from run_task.sinks.wide._said import NOTHING_SAID, Said, said
from run_task.sinks.wide._shapes import Shape
from run_task.tasks._result_type import UNSAID

pytest.importorskip("pyarrow.parquet")

FLOAT, INT, BOOL, TEXT, JSON = (
    WideKind.FLOAT,
    WideKind.INT,
    WideKind.BOOL,
    WideKind.TEXT,
    WideKind.JSON,
)


class Bar(NamedTuple):
    open: float
    size: int | None


T = TypeVar("T")


@dataclasses.dataclass
class Base:
    level: float


@dataclasses.dataclass
class Fit(Base, Generic[T]):
    name: str
    more: T
    at: datetime
    bars: list[Bar]
    unknown: Nowhere  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]


class Loose(TypedDict, total=False):
    a: int
    b: NotRequired[str]


class Colour(Enum):
    RED = 1


class Level(IntEnum):
    LOW = 1


Price = NewType("Price", float)

SCALARS: list[tuple[Any, WideKind]] = [
    (float, FLOAT),
    (float | None, FLOAT),
    (float | int | None, FLOAT),
    (int, INT),
    (bool, BOOL),
    (bool | None, BOOL),
    (str, TEXT),
    (Literal["a", "b"], TEXT),
    (Literal["a", None], TEXT),
    (Annotated[int, "of rows"], INT),
    (Price, FLOAT),
    (Price | None, FLOAT),
    (np.float64, FLOAT),
    (np.float32, FLOAT),
    (np.int8, INT),
    (np.floating[Any], FLOAT),
    (np.bool_, BOOL),
    (np.str_, TEXT),
    (np.datetime64, WideKind.LOCAL),
    (date, WideKind.DATE),
    (Decimal | None, WideKind.DECIMAL),
    (Colour, JSON),
    (Level, INT),
    (list[float], JSON),
    (tuple[int, ...], JSON),
    (timedelta, JSON),
    (np.ndarray, JSON),
    (float | str, JSON),
    (bytes | None, JSON),
]

UNTOLD: list[Any] = [
    *(UNSAID, None, Any, object, T, "Nowhere", datetime, datetime | None, Sequence[float]),
    *(
        dict,
        dict[Any, int],
        dict[int, float],
        Mapping,
        Counter[str],
        Bar | float,
        Bar | None | Fit[int],
    ),
    *(dict[str, float] | int, Iterable[int], type, Exception),
]


@pytest.mark.parametrize(("annotation", "kind"), SCALARS, ids=str)
def test_a_type_tells_what_a_column_holds(annotation: Any, kind: WideKind) -> None:
    assert said(annotation) == Said(Shape.SCALAR, {None: kind}, is_whole=True)


@pytest.mark.parametrize("annotation", UNTOLD, ids=str)
def test_a_type_that_leaves_it_open_tells_nothing(annotation: Any) -> None:
    assert said(annotation) == NOTHING_SAID


def test_records_tell_their_fields() -> None:
    assert said(Bar | None) == Said(Shape.FIELDS, {"open": FLOAT, "size": INT}, is_whole=True)
    assert said(Fit[int]) == Said(
        Shape.FIELDS, {"level": FLOAT, "name": TEXT, "more": INT, "bars": JSON}
    )
    assert said(Fit) == Said(Shape.FIELDS, {"level": FLOAT, "name": TEXT, "bars": JSON})
    assert said(Loose) == Said(Shape.FIELDS, {"a": INT, "b": TEXT}, is_whole=True)
    assert said(Mapping[str, float]) == Said(Shape.FIELDS, {}, FLOAT)
    assert said(OrderedDict[str, Any]) == Said(Shape.FIELDS, {})
    polars = pytest.importorskip("polars")
    assert said(polars.DataFrame | None) == Said(Shape.TABLE, {})


# In all stores


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Open]:
    with store(kind, tmp_path, request) as open_it:
        yield open_it


@task
def ratio(view: TimeSeriesView, start: int, end: int) -> float:
    return 0 if start == 0 else 0.5


@task
def late(view: TimeSeriesView, start: int, end: int) -> float | None:
    return None if end < 40 else 2


@task
def steps(view: TimeSeriesView, start: int, end: int) -> int:
    return start


@task
def is_late(view: TimeSeriesView, start: int, end: int) -> bool | None:
    return True if end > 20 else None


@task
def note(view: TimeSeriesView, start: int, end: int) -> str | None:
    return "late" if end > 30 else None


@task
def bar(view: TimeSeriesView, start: int, end: int) -> Bar | None:
    return None if end < 30 else Bar(1, None if end < 40 else 3)


@task
def parts(view: TimeSeriesView, start: int, end: int) -> dict[str, float]:
    return {"a": 0} if end < 30 else {"a": 0.5}


@task
def failing(view: TimeSeriesView, start: int, end: int) -> float:
    if end < 40:
        raise ValueError("not yet")
    return 1.5


TASKS: list[Task[TimeSeriesView, Any]] = [
    *(ratio, late, steps, is_late, note, bar, parts, failing),
]


def pipeline_of(
    sink: Any, tasks: Sequence[Any] = TASKS, stage: str = "s", by: str | None = None
) -> Pipeline:
    columns: dict[str, Any] = {"value": float} if by is None else {"value": float, by: str}
    series = TimeSeries(columns, TimeUnit.SECONDS, key=by)
    pipeline = Pipeline("p")
    row: dict[str, Any] = {"value": 1.0} if by is None else {"value": 1.0, by: "a"}
    pipeline.source([(t, row) for t in range(0, 50, 5)], into=series)
    made: Any = pipeline.stage(stage, tasks, series, "10s", by=by) if by else None
    if made is None:
        made = pipeline.stage(stage, tasks, series, "10s")
    made.sink(sink)
    return pipeline


def run(sink: WideSink, *, flush: bool = False) -> None:
    for _ in pipeline_of(sink).replay():
        if flush:
            sink.flush()


def held(sink: DurableSink) -> list[Any]:
    return sorted((row.end, row.task, repr(row.value)) for row in sink.rows() if row.error is None)


EXPECTED = {
    "ratio": ["0.0", "0.5", "0.5", "0.5", "0.5"],
    "late": ["None", "None", "None", "2.0", "2.0"],
    "steps": ["0", "10", "20", "30", "40"],
    "is_late": ["None", "None", "True", "True", "True"],
    "note": ["None", "None", "None", "'late'", "'late'"],
    "bar": [
        *("None", "None", "{'open': 1.0, 'size': None}"),
        *("{'open': 1.0, 'size': 3}", "{'open': 1.0, 'size': 3}"),
    ],
    "parts": ["{'a': 0.0}", "{'a': 0.0}", "{'a': 0.5}", "{'a': 0.5}", "{'a': 0.5}"],
    "failing": ["1.5", "1.5"],
}


@pytest.mark.parametrize("flush", [False, True])
def test_a_table_has_the_types_that_tasks_say_whenever_it_was_flushed(
    opened: Open, flush: bool
) -> None:
    sink = opened()
    run(sink, flush=flush)
    sink.close()
    sink = opened()
    sink.begin("p")
    found = held(sink)
    for name, values in EXPECTED.items():
        assert [value for _, task, value in found if task == name] == values, name
    assert len(found) == sum(map(len, EXPECTED.values()))


def test_a_file_is_the_same_whenever_it_was_flushed(tmp_path: Path) -> None:
    for flush in (False, True):
        with closing(CsvSink(tmp_path / f"{flush}.csv", layout=Layout.WIDE)) as csv:
            run(csv, flush=flush)
        with closing(ParquetSink(tmp_path / f"{flush}", layout=Layout.WIDE)) as parquet:
            run(parquet, flush=flush)
    assert (tmp_path / "True.csv").read_bytes() == (tmp_path / "False.csv").read_bytes()
    pq: Any = pytest.importorskip("pyarrow.parquet")
    tables = [pq.read_table(tmp_path / name) for name in ("True", "False")]
    assert (
        tables[0].sort_by("window_end").replace_schema_metadata()
        == tables[1].replace_schema_metadata()
    )


def test_results_by_key_and_of_aggregates_have_their_types(opened: Open) -> None:
    sink = opened()
    tasks = [ratio, count(), mean("value"), ohlc("value")]
    for _ in pipeline_of(sink, tasks, by="symbol").replay():
        pass
    found = [row for row in sink.rows() if row.end == 10]
    of = {"open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0}
    assert {row.task: repr(row.value) for row in found} == {
        "ratio": "0.0",
        "count": "2",
        "value_mean": "1.0",
        "value_ohlc": repr(of),
    }
    assert {row.key for row in found} == {"a"}


def test_what_a_task_says_now_has_to_fit_what_is_there(opened: Open) -> None:
    @task(name="ratio")
    def text(view: TimeSeriesView, start: int, end: int) -> str:
        return "x"

    @task(name="ratio")
    def whole(view: TimeSeriesView, start: int, end: int) -> int:
        return 1

    @task(name="ratio")
    def fields(view: TimeSeriesView, start: int, end: int) -> Bar:
        return Bar(1, 1)

    sink = opened()
    run(sink)
    before = held(sink)
    with pytest.raises(
        ConfigError,
        match=r"stage 's', task 'ratio': it says that it returns texts, and its column 'ratio' "
        r"holds floats: rename the task, or take another table",
    ):
        pipeline_of(sink, [text]).replay()
    with pytest.raises(ConfigError, match=r"it says that it returns a mapping.*and was a single v"):
        pipeline_of(sink, [fields]).replay()
    assert held(sink) == before
    for _ in pipeline_of(sink, [whole]).replay():  # which a column of floats holds
        pass
    assert [row.value for row in sink.rows() if row.task == "ratio"] == [1.0] * 5


def test_a_name_that_no_column_has_is_refused_before_anything_is_run(opened: Open) -> None:
    @task(name="error")
    def wrong(view: TimeSeriesView, start: int, end: int) -> float:
        raise AssertionError("it is not to be run")

    pipeline = pipeline_of(opened(), [wrong])
    for run_it in (pipeline.replay, pipeline.run_sync):
        with pytest.raises(ConfigError, match="'s': task 'error': its column 'error' is the table"):
            run_it()


def test_values_that_are_not_what_a_task_says_are_refused_by_name(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    @task
    def a(view: TimeSeriesView, start: int, end: int) -> float:
        return "x" if start == 10 else 1  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  it is to lie

    sink = opened()
    pipeline = pipeline_of(sink, [a])
    for _ in pipeline.replay():
        pass
    assert [row.end for row in sink.rows()] == [10, 30, 40, 50]
    assert "'x', a str, is none that a column of floats holds" in caplog.text


# One stage a table


def test_a_second_stage_is_refused_where_it_is_declared(opened: Open) -> None:
    sink = opened()
    pipeline = pipeline_of(sink)
    series = TimeSeries({"value": float}, TimeUnit.SECONDS)
    second = pipeline.stage("second", [ratio], series, "10s")
    with pytest.raises(
        ConfigError,
        match=r"stage 'second': .* is a table of the results of one stage, and stage 's' writes to "
        r"it: give 'second' one of its own",
    ):
        second.sink(sink)
    assert second.sinks == ()
    with pytest.raises(
        ConfigError, match=r"one stage, and this has 2: give it to one by stage\.si"
    ):
        pipeline.sink(sink)
    pipeline.remove("s")
    second.sink(sink)


def test_a_task_that_is_added_while_it_runs_says_what_it_returns(opened: Open) -> None:
    @task
    def zero(data: object, start: int, end: int) -> float:
        return 0 if end < 3 else 0.5

    @task
    def one(data: object, start: int, end: int) -> int:
        return 1

    @task(name="error")
    def wrong(data: object, start: int, end: int) -> int:
        return 1

    bench = PipelineBench()
    stage = bench.stage("a", RwLock[None](None), tasks=[one])
    sink = opened()
    with bench.pipeline:
        bench.advance()
        bench.sink.wait_for("a", 1)
        stage.sink(sink)
        stage.add(zero)
        with pytest.raises(ConfigError, match="its column 'error' is the table's own"):
            stage.add(wrong)
        for end in (2, 3, 4):
            bench.advance()
            bench.sink.wait_for("a", end)
    with closing(opened()) as sink:
        sink.begin("bench")
        found = [(row.end, row.task, repr(row.value)) for row in sink.rows()]
    assert found == [
        *((2, "one", "1"), (2, "zero", "0.0"), (3, "one", "1"), (3, "zero", "0.5")),
        *((4, "one", "1"), (4, "zero", "0.5")),
    ]


def test_what_a_run_said_that_gave_nothing_binds_no_other(tmp_path: Path) -> None:
    with closing(ParquetSink(tmp_path, layout=Layout.WIDE)) as sink:
        pipeline_of(sink, [ratio], "first").replay().close()
        for _ in pipeline_of(sink, [note], "second").replay():
            pass
        assert {row.stage for row in sink.rows()} == {"second"}
        with pytest.raises(ConfigError, match="holds no results of stage 'first'"):
            pipeline_of(sink, [ratio], "first").replay()
