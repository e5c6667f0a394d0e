"""Expressions of polars as tasks: what they give, and what is refused when a stage is declared."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.support.expressions import EXPRESSIONS, replayed, series_of, trades

from run_task import (
    Closed,
    ConfigError,
    ContextBuilder,
    DataSet,
    Empty,
    Layout,
    Pipeline,
    RunnerConfig,
    RunTaskError,
    RwLock,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.expressions import Expression, expr
from run_task.sinks import ParquetSink
from run_task.testing import run_windows

price, size, symbol = pl.col("price"), pl.col("size"), pl.col("symbol")


def given(tasks: Sequence[Any], series: Any, n: int = 1, **config: Any) -> list[DataSet[Any]]:
    """The DataSets of the first windows of ten seconds."""
    builder = ContextBuilder(series).with_tasks(tasks).with_interval("10s")
    run: Any = run_windows  # of which this is no overload
    found: list[DataSet[Any]] = run(builder.with_config(RunnerConfig(**config)).build()[0], n)
    return found


def result(expression: pl.Expr, series: Any) -> Any:
    """What an expression gives for the first ten seconds, called as polars calls it."""
    ((name, value),) = given([expr(expression)], series)[0].items()
    assert name == expression.meta.output_name()
    return value


def of(columns: dict[str, Any], unit: TimeUnit = TimeUnit.SECONDS, **values: Any) -> TimeSeries:
    """A series with a row a second."""
    series = TimeSeries(columns, unit)
    count = len(next(iter(values.values())))
    series.extend(np.arange(count) * (10**9 // unit.nanos), **values)
    return series


# What they give


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_they_give_what_polars_gives_beside_tasks_of_any_executor(executor: str) -> None:
    @task
    def count(view: TimeSeriesView, start: int, end: int) -> int:
        return len(view.in_window)

    frame = trades(200, 1, scale=1)
    tasks: list[Any] = [expr(price.mean(), name="mean"), count, expr(size.sum(), name="sum")]
    datasets = given(tasks, series_of(frame), 6, executor=executor)
    seconds = pl.col("time").dt.epoch("s")
    for dataset in datasets:
        start, end = dataset.window
        rows = frame.filter(seconds.is_between(start, end, closed="left"))
        assert list(dataset) == ["mean", "count", "sum"]
        assert dataset["count"] == len(rows) > 0
        assert dataset["mean"] == pytest.approx(rows["price"].mean())
        assert dataset["sum"] == pytest.approx(rows["size"].sum())
        assert type(dataset["mean"]) is float


def test_what_they_are_called_polars_says() -> None:
    assert expr(price.mean()).name == "price"
    assert expr(price.mean().alias("average")).name == "average"
    assert expr(price.mean().name.suffix("_mean")).name == "price_mean"
    assert expr(pl.len()).name == "len"
    assert expr(price.mean(), name="m").name == "m"
    assert repr(expr(pl.len())) == "<Expression 'len': len()>"


def test_results_are_plain_values_of_python() -> None:
    series = of(
        {"a": int, "b": bool, "t": str, "f": float},
        a=[2, 1],
        b=[True, False],
        t=["x", "y"],
        f=[1, 2],
    )
    a, t, f = pl.col("a"), pl.col("t"), pl.col("f")
    for expression, expected in (
        (a.sum(), 3),
        (a.mean(), 1.5),
        (pl.col("b").all(), False),
        (t.first(), "x"),
        (t.str.to_uppercase().last(), "Y"),
        (t.implode(), ["x", "y"]),
        (pl.struct(a.min(), f.max()), {"a": 1, "f": 2.0}),
        (pl.col("time").max(), datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        (pl.col("time").max() - pl.col("time").min(), timedelta(seconds=1)),
        (pl.col("time").dt.date().first(), date(1970, 1, 1)),
        (t.cast(pl.Categorical).last(), "y"),
        (a.cast(pl.Decimal(10, 2)).sum().cast(pl.Float64), 3.0),
        (a.filter(a > 5).first(), None),
        (pl.lit(7), 7),
    ):
        found = result(expression, series)
        assert found == expected
        assert type(found) is type(expected)


def test_columns_of_every_kind_are_read() -> None:
    kinds = {
        "f4": "f4", "i1": "i1", "u8": "u8", "u4": "U4", "s3": "S3", "day": "M8[D]", "at": "M8[us]"
    }  # fmt: skip
    days = np.array(["2024-01-01", "2024-01-02"])
    values: Any = {
        "f4": [0.5, 1.5], "i1": [-1, 2], "u8": [2**63, 1], "u4": ["ab", "c"], "s3": [b"x", b"yz"],
        "day": days.astype("M8[D]"), "at": days.astype("M8[us]"),
    }  # fmt: skip
    series = of(kinds, **values)
    assert result(pl.col("f4").max(), series) == 1.5
    assert result(pl.col("i1").min(), series) == -1
    assert result(pl.col("u8").max(), series) == 2**63
    assert result(pl.col("u4").last(), series) == "c"
    assert result(pl.col("s3").first(), series) == b"x"
    assert result(pl.col("day").max(), series) == date(2024, 1, 2)
    assert result(pl.col("at").max(), series) == datetime(2024, 1, 2)  # noqa: DTZ001  a column has no zone


@pytest.mark.parametrize("unit", TimeUnit)
def test_times_are_those_of_the_series(unit: TimeUnit) -> None:
    series = TimeSeries({"a": int}, unit)
    minutes = 60 * 10**9 // unit.nanos
    series.append(5 * minutes, a=1)
    tasks = [expr(pl.col("time").max())]
    context = ContextBuilder(series).with_tasks(tasks).with_interval("10m").build()[0]
    found = run_windows(context, 1)[0]["time"]
    if unit is TimeUnit.NANOS:
        assert found == np.datetime64(5 * minutes, "ns")
    else:
        assert found == datetime(1970, 1, 1, 0, 5, tzinfo=UTC)


def test_nanoseconds_are_kept_or_refused() -> None:
    series = TimeSeries({"a": int}, TimeUnit.NANOS)
    series.extend([1, 2], a=[1, 2])
    last = pl.col("time").last()
    tasks = [
        expr(last),
        expr(last.filter(pl.col("a") > 5).first(), name="none"),
        expr(pl.col("time").max() - pl.col("time").min(), name="length"),
        expr(pl.struct(last), name="within"),
    ]
    dataset = given(tasks, series)[0]
    assert dict(dataset) == {
        "time": np.datetime64(2, "ns"),
        "none": None,
        "length": np.timedelta64(1, "ns"),
    }
    assert "cast_time_unit" in str(dataset.errors["within"].__cause__)


def test_what_is_nan_stays_nan_and_a_window_without_rows_gives_none() -> None:
    series = of({"a": float, "b": int}, a=[1.0, None, 2.0], b=[0, 0, 0])
    a = pl.col("a")
    tasks = [
        expr(a.mean()),
        expr(a.max(), name="max"),
        expr(a.drop_nans().mean(), name="without"),
        expr(a.null_count(), name="nulls"),
        expr(pl.len()),
    ]
    first, second = given(tasks, series, 2)
    assert repr(first["a"]) == "nan"
    assert dict(first) | {"a": 0} == {"a": 0, "max": 2.0, "without": 1.5, "nulls": 0, "len": 3}
    assert dict(second) == dict.fromkeys(first)


def test_by_key_each_key_has_its_own() -> None:
    frame = trades(300, 2, scale=1)
    tasks = [expr(price.mean()), expr(symbol.first()), expr(pl.len())]
    builder: Any = ContextBuilder(series_of(frame)).with_tasks(tasks).with_interval("10s")
    builder = builder.with_config(RunnerConfig(empty=Empty.RUN))
    seconds = pl.col("time").dt.epoch("s")
    run: Any = run_windows  # of which this is no overload
    datasets: list[Any] = run(builder.with_key("symbol").build()[0], 11)
    for dataset in datasets[:10]:
        start, end = dataset.window
        rows = frame.filter(seconds.is_between(start, end, closed="left"))
        expected = dict(rows.group_by("symbol").agg(pl.len()).iter_rows())
        counts: dict[str, int | None] = dict(dataset["len"])
        assert {key: count for key, count in counts.items() if count} == expected
        assert all(dataset["symbol"][key] == key for key in expected)
    assert set(datasets[-1]["len"].values()) == {None}


def test_closed_on_the_right_a_window_has_the_row_of_its_end() -> None:
    series = TimeSeries({"a": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    series.extend([0, 1, 10, 11, 20], a=[1, 2, 4, 8, 16])
    assert [d["a"] for d in given([expr(pl.col("a").sum())], series, 2)] == [6, 24]


def test_windows_slide() -> None:
    series = of({"a": int}, a=list(range(40)))
    sums = [d["a"] for d in given([expr(pl.col("a").sum())], series, 4, window="25s")]
    assert sums == [sum(range(max(0, end - 25), end)) for end in (10, 20, 30, 40)]


def test_one_is_run_on_its_own_as_any_task() -> None:
    frame = trades(100, 3)
    view = series_of(frame).view().for_window(0, 10)
    stage = given(EXPRESSIONS, series_of(frame))[0]
    for expression in EXPRESSIONS:
        assert expression.run(view, 0, 10) == stage[expression]
        assert pickle.loads(pickle.dumps(expression)).run(view, 0, 10) == stage[expression]
    assert EXPRESSIONS[0].run(series_of(frame).view().for_window(500, 510), 500, 510) is None
    with pytest.raises(ConfigError, match="no column 'price'"):
        EXPRESSIONS[0].run(of({"a": int}, a=[1]).view().for_window(0, 10), 0, 10)


def test_texts_are_those_of_the_rows_however_many_others_there_are() -> None:
    series = TimeSeries({"t": str}, TimeUnit.SECONDS)
    series.extend(range(1000), t=[f"text {n}" for n in range(1000)])
    series.append(1001, t="text 5")
    tasks = [expr(pl.col("t").last()), expr(pl.col("t").n_unique(), name="n")]
    context = ContextBuilder(series).with_tasks(tasks).with_interval("2s").build()[0]
    (dataset,) = run_windows(context, 1, start=1000)
    assert dict(dataset) == {"t": "text 5", "n": 1}


def test_results_make_a_series_by_their_types() -> None:
    pipeline = Pipeline("series")
    trades_in, mean = series_of(), expr(price.mean(), name="mean")
    pipeline.source(trades(50, 4, scale=1), into=trades_in, zone="UTC")
    tasks = [mean, expr(pl.len()), expr(symbol.last()), expr((price > 0).any(), name="up")]
    stage = pipeline.stage("first", tasks, trades_in, "5s")
    series = stage.series()
    # A window without rows has no int, for which a column of floats has NaN.
    assert series.columns == {"mean": np.float64, "len": np.float64, "symbol": str, "up": np.bool_}
    last = pipeline.stage("second", [expr(pl.col("mean").last())], series, "5s")
    for first, second in zip(pipeline.replay().of(stage), pipeline.replay().of(last)):
        assert first[mean] == second["mean"]
    ranges = expr(pl.struct(price.min().alias("a"), price.max().alias("b")), name="range")
    with pytest.raises(ConfigError, match="task 'range' returns dict, which makes no column"):
        pipeline.stage("third", [ranges], trades_in, "5s").series()


@pytest.mark.parametrize("layout", Layout)
def test_sinks_store_them(layout: Layout, tmp_path: Path) -> None:
    pipeline = Pipeline("stored")
    series = series_of()
    pipeline.source(trades(50, 4, scale=1), into=series, zone="UTC")
    tasks = [
        expr(price.mean()),
        expr(pl.struct(price.min().alias("low"), price.max().alias("high")), name="range"),
        expr(pl.col("time").max()),
        expr(symbol.implode(), name="symbols"),
    ]
    stage = pipeline.stage("stored", tasks, series, "5s")
    stage.sink(ParquetSink(tmp_path, layout=layout))
    datasets = [dataset for _, dataset in pipeline.replay()]
    assert not any(dataset.errors for dataset in datasets)
    assert pipeline.stats.refused == 0
    stored = pl.read_parquet(tmp_path / "*.parquet")
    if layout is Layout.WIDE:
        assert stored["price"].to_list() == [dataset["price"] for dataset in datasets]
        assert stored["range_low"].to_list() == [dataset["range"]["low"] for dataset in datasets]
        assert stored["time"].to_list() == [dataset["time"] for dataset in datasets]
    else:
        assert len(stored) == 4 * len(datasets)


# Windows of which one cannot be computed


def test_an_error_costs_its_own_window_and_expression() -> None:
    texts = ["1"] * 200
    texts[55] = "no number"
    frame = pl.DataFrame(
        {
            "time": pl.Series(range(0, 200_000, 1000)).cast(pl.Datetime("ms")),
            "price": 1.0, "size": 2.0, "symbol": texts,
        }
    )  # fmt: skip
    number = symbol.cast(pl.Int64).sum()
    tasks = [expr(price.sum()), expr(number), expr(size.sum())]
    datasets = replayed(tasks, frame)
    assert [d.timestamp for d in datasets if d.errors] == [60]
    failed = datasets[5]
    assert dict(failed) == {"price": 10.0, "size": 20.0}
    (error,) = failed.errors.values()
    assert isinstance(error.__cause__, RunTaskError)
    assert "expression 'symbol'" in str(error.__cause__)
    assert "no number" in str(error.__cause__)
    assert [d["symbol"] for d in datasets if not d.errors] == [10] * 19
    view = series_of(frame).view().for_window(50, 60)
    with pytest.raises(RunTaskError, match="no number"):
        tasks[1].run(view, 50, 60)


def test_by_key_an_error_costs_its_own_key() -> None:
    columns: Any = {"k": str, "t": str}
    series = TimeSeries(columns, TimeUnit.SECONDS, key="k")
    series.extend(range(6), k=[*"abcabc"], t=["1", "2", "3", "4", "x", "6"])
    tasks = [expr(pl.col("t").cast(pl.Int64).sum()), expr(pl.len())]
    builder: Any = ContextBuilder(series).with_tasks(tasks).with_interval("10s")
    run: Any = run_windows  # of which this is no overload
    dataset: Any = run(builder.with_key("k").build()[0], 1)[0]
    assert dict(dataset["t"]) == {"a": 5, "c": 9}
    assert list(dataset.errors) == [("t", "b")]
    assert dict(dataset["len"]) == {"a": 2, "b": 2, "c": 2}


def test_a_text_that_is_none_costs_the_windows_that_have_it() -> None:
    series = TimeSeries({"t": str}, TimeUnit.SECONDS)
    series.extend([1, 11, 12, 21], t=["a", "\ud800", "a", "b"])
    datasets = given([expr(pl.col("t").last()), expr(pl.len())], series, 3)
    assert [d.get("t") for d in datasets] == ["a", None, "b"]
    assert [list(d.errors) for d in datasets] == [[], ["t"], []]
    assert [d["len"] for d in datasets] == [1, 2, 1]


def test_a_fault_of_polars_own_is_an_error_like_any_other() -> None:
    def panics(column: pl.Series) -> pl.Series:
        if column.max() == 3:
            raise pl.exceptions.PanicException("index out of bounds")
        return column

    series = of({"a": int}, a=[1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 3])
    mapped = pl.col("a").map_batches(panics, return_dtype=pl.Int64).sum()
    first, second = given([expr(mapped), expr(pl.len())], series, 2)
    assert dict(first) == {"a": 11, "len": 10}
    assert dict(second) == {"len": 1}
    assert "index out of bounds" in str(second.errors["a"].__cause__)


# What is refused when it is declared


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (pl.col("prize").mean(), r"no column 'prize': did you mean 'price'\?.*'time', 'price'"),
        (pl.col("Symbol").n_unique(), "did you mean 'symbol'"),
        (pl.col("Time").max(), "did you mean 'time'"),
        (symbol.mean(), r"`mean` operation not supported for dtype `str`; .*'symbol' \(texts\)"),
        ((symbol > 3).sum(), r"cannot compare string with numeric.*'symbol' \(texts\)"),
        (price.str.len_chars().sum(), r"expected `String`.*'price' \(float64s\)"),
        (pl.col("time").sin().sum(), r"'time' \(times\)"),
        (price, r"many values.*\.implode\(\)"),
        (price.filter(price > 0), "many values"),
        (price.top_k(1), "many values"),
        (pl.all().max(), "4 columns, 'time', 'price', 'size', 'symbol'.*pl.struct"),
        (price.sample(1).first(), "left to chance"),
        (
            price.map_batches(lambda s: s - s.mean(), is_elementwise=True, return_dtype=pl.Float64)
            .sum(),
            "beyond its rows",
        ),
        (pl.struct(price, size).struct.field("sise").sum(), "sise"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_refused(expression: pl.Expr, message: str) -> None:
    series = series_of()
    named = expr(expression, name="named")
    with pytest.raises(ConfigError, match=rf"expression 'named': .*{message}") as refused:
        ContextBuilder(series).with_task(named).build()
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="stage 'one': expression 'named'"):
        Pipeline("refused").stage("one", [named], series, "10s")


def test_what_is_no_expression_or_has_no_name_is_refused() -> None:
    anything: Any = expr
    with pytest.raises(ConfigError, match=r"expr\('price'\): it is an expression"):
        anything("price")
    with pytest.raises(ConfigError, match="give it a name"):
        expr(pl.all().mean())
    for name in ("", 3):
        with pytest.raises(ConfigError, match="a name is a text"):
            anything(price.mean(), name=name)
    with pytest.raises(ConfigError, match="two tasks are called 'price'"):
        ContextBuilder(series_of()).with_tasks([expr(price.min()), expr(price.max())]).build()
    with pytest.raises(ConfigError, match="one TimeSeries"):
        lists: Any = ContextBuilder(RwLock([1.0]))
        lists.with_task(expr(price.mean())).build()


def test_selectors_are_taken_that_give_one_result() -> None:
    series = of({"a": int, "b": float, "t": str}, a=[1, 2], b=[3.0, 4.0], t=["x", "y"])
    means = expr(pl.struct(pl.col(pl.Int64, pl.Float64).mean()), name="means")
    (dataset,) = given([means, expr(pl.col("^b.*$").max(), name="b")], series)
    assert dict(dataset) == {"means": {"a": 1.5, "b": 3.5}, "b": 4.0}


def test_an_expression_that_cannot_be_computed_of_the_rows_it_is_tried_with_is_taken() -> None:
    series = of({"t": str}, t=["2024-01-01", "2024-01-02"])
    assert result(pl.col("t").str.to_date("%Y-%m-%d").max(), series) == date(2024, 1, 2)


def test_one_that_is_added_while_it_runs_is_checked_as_well() -> None:
    pipeline = Pipeline("added")
    stage = pipeline.stage("one", [expr(pl.len())], series_of(), "10s")
    with pytest.raises(ConfigError, match="no column 'prize'"):
        stage.add(expr(pl.col("prize").mean()))
    stage.add(expr(price.mean()))
    assert [each.name for each in stage.tasks] == ["len", "price"]
    assert all(isinstance(each, Expression) for each in stage.tasks)
