"""Tasks that return tables: their rows are rows of the sink's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from run_task import DataSet, KeyedDataSet, SinkError, TaskError, TaskInterval, Window
from run_task.sinks import CsvSink, Layout, ParquetSink, Result, SqlSink

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

MINUTE = TaskInterval.seconds(60)
NANOS = pa.array([1_767_323_045_000_000_001], pa.timestamp("ns"))
WIDE = CsvSink | ParquetSink | SqlSink


@pytest.fixture(params=["csv", "parquet", "sqlite"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WIDE]:
    made: WIDE
    match request.param:
        case "csv":
            made = CsvSink(tmp_path / "a.csv", layout=Layout.WIDE)
        case "parquet":
            made = ParquetSink(tmp_path / "a", layout=Layout.WIDE)
        case _:
            made = SqlSink(tmp_path / "a.db", layout=Layout.WIDE)
    made.begin("p")
    yield made
    made.close()


def plain(end: int, **values: Any) -> Result:
    return Result.of("p", "s", DataSet(Window(end - 60, end), values, interval=MINUTE))


def keyed(end: int, errors: Any = None, /, **values: Any) -> Result:
    dataset: KeyedDataSet[Any, Any] = KeyedDataSet(
        Window(end - 60, end), "k", values, errors or {}, interval=MINUTE
    )
    return Result.of("p", "s", dataset)


COLUMNS: dict[str, list[Any]] = {
    "n": [3, None, 1],
    "x": [0.5, 1.5, None],
    "name": ["a", "", None],
    "at": [datetime(2026, 1, 2, tzinfo=UTC), None, datetime(2026, 1, 3, tzinfo=UTC)],
}


MAKES: list[Callable[[Any], Any]] = [
    pl.DataFrame,
    pa.table,
    pa.RecordBatch.from_pydict,
    lambda columns: pd.DataFrame(columns, dtype=object),
    lambda columns: pd.DataFrame(columns).convert_dtypes(),
    lambda columns: pl.DataFrame(columns).with_columns(pl.col("at").cast(pl.Datetime("ns", "UTC"))),
]


@pytest.mark.parametrize("make", MAKES)
def test_a_table_adds_rows(sink: WIDE, make: Callable[[Any], Any]) -> None:
    sink.write(plain(60, top=make(COLUMNS), total=7))
    sink.write(
        plain(120, top=make({name: values[:0] for name, values in COLUMNS.items()}), total=8)
    )
    sink.write(plain(180, top=None, total=9))
    sink.flush()
    found = {(row.end, row.task): row.value for row in sink.rows()}
    assert found == {
        (60, "top"): COLUMNS,
        (60, "total"): 7,
        (120, "top"): None,
        (120, "total"): 8,
        (180, "top"): None,
        (180, "total"): 9,
    }


def test_a_table_for_each_key(sink: WIDE) -> None:
    error = TaskError("top", Window(0, 60), "x", "c")
    tops = {
        "a": pl.DataFrame({"n": [1, 2]}),
        "b": pl.DataFrame({"n": []}),
        "d": pl.DataFrame({"n": [3]}),
    }
    for values in ({"a": 1, "b": 2, "c": 3, "d": 4}, {"a": 5, "d": 6}):
        sink.write(
            keyed(60, {("top", "c"): error} if len(values) > 2 else {}, total=values, top=tops)
        )
    sink.write(keyed(120, {("top", "c"): error}, total={"a": 1, "b": 2, "c": 3, "d": 4}, top=tops))
    sink.flush()
    found = {(row.end, row.key, row.task): row.error or row.value for row in sink.rows()}
    assert found.pop((120, "c", "top")) == str(error)
    assert {of[1:]: value for of, value in found.items() if of[0] == 120} == {
        ("a", "total"): 1,
        ("a", "top"): {"n": [1, 2]},
        ("b", "total"): 2,
        ("b", "top"): None,
        ("c", "total"): 3,
        ("d", "total"): 4,
        ("d", "top"): {"n": [3]},
    }
    assert (60, "c", "total") not in found


def test_the_index_of_a_pandas_table_is_a_column_if_it_tells_something(sink: WIDE) -> None:
    sink.write(plain(60, top=pd.DataFrame({"n": [1, 2]}, index=pd.Index(["x", "y"], name="who"))))
    assert [row.value for row in sink.rows()] == [{"who": ["x", "y"], "n": [1, 2]}]


def test_nan_is_a_number_and_not_none(sink: WIDE) -> None:
    sink.write(plain(60, top=pd.DataFrame({"x": [float("nan"), 1.5]})))
    sink.write(plain(120, top=pl.DataFrame({"x": [float("nan"), None]})))
    first, second = [row.value for row in sink.rows()]
    assert repr(first) == "{'x': [nan, 1.5]}"
    assert repr(second) == "{'x': [nan, None]}"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"at": NANOS}), "a table whose column 'at' cannot be told"),
        (pa.table({"at": pa.array([[1]], pa.list_(pa.timestamp("ns")))}), "within its values"),
        (pl.DataFrame(pa.table({"at": NANOS})), "column 'at' is finer than a microsecond"),
        (pl.DataFrame({"at": [[1]]}, {"at": pl.List(pl.Time)}), "nanoseconds within its values"),
        (pd.DataFrame({"at": pd.to_datetime([1])}), "is finer than a microsecond"),
        (pd.DataFrame({1: [1]}), "a table whose column 1 has no text for a name: rename it"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns of one name"),
        (pa.table([[1], [2]], names=["a", "a"]), "two columns of one name"),
        (pl.DataFrame({"a": [2**63]}, {"a": pl.UInt64}), "an int of over 64 bits"),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(sink: WIDE, table: Any, message: str) -> None:
    with pytest.raises(SinkError, match=f"task 'top': its result cannot be stored: .*{message}"):
        sink.write(plain(60, top=table))
    assert not list(sink.rows())


def test_two_tables_in_one_stage_are_refused(sink: WIDE) -> None:
    frame = pl.DataFrame({"n": [1]})
    with pytest.raises(
        SinkError, match=r"task 'b'.* it is a table, and task 'a' of this stage gives"
    ):
        sink.write(plain(60, a=frame, b=frame))
    sink.write(plain(60, a=frame))
    with pytest.raises(SinkError, match="put one of them into a stage of its own"):
        sink.write(plain(120, b=frame))


def test_one_key_of_many_is_named(sink: WIDE) -> None:
    tops = {"x": pl.DataFrame({"n": [1, 2]}), "y": pl.DataFrame({"n": [1.5, 3.0]})}
    sink.write(keyed(60, top={"x": pl.DataFrame({"n": [1]})}))
    with pytest.raises(SinkError, match=r"task 'top', key 'y': .* field 'n': 1.5, a float, is"):
        sink.write(keyed(120, top=tops))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_polars_reads_any_float_of_a_csv(tmp_path: Path, number: float) -> None:
    sink = CsvSink(tmp_path / "a.csv", layout=Layout.WIDE)
    sink.begin("p")
    sink.write(plain(60, mean=1.5))
    sink.write(plain(120, mean=number))
    sink.close()
    mean = pl.read_csv(tmp_path / "a.csv")["mean"]
    assert mean.dtype == pl.Float64
    assert repr(mean.to_list()) == repr([1.5, number])
    sink = CsvSink(tmp_path / "a.csv", layout=Layout.WIDE)
    sink.begin("p")
    assert repr([row.value for row in sink.rows()]) == repr([1.5, number])
    sink.close()
