"""Queries in SQL as tasks: what they give, what they cannot reach, and what is refused."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.support.expressions import replayed, series_of, trades

from run_task import (
    Closed,
    ConfigError,
    ContextBuilder,
    DataSet,
    Layout,
    Pipeline,
    Runner,
    RunnerConfig,
    RunTaskError,
    RwLock,
    TimeSeries,
    TimeUnit,
    VirtualClock,
)
from run_task.expressions import _columns, _duckdb, _query, expr, sql
from run_task.sinks import ParquetSink
from run_task.testing import run_windows

pytest.importorskip("duckdb")

QUERIES = [
    sql(
        "select symbol, avg(price) as mean, stddev(price) as std, corr(price, size) as corr "
        "from window group by symbol order by symbol",
        name="table",
    ),
    sql("select avg(price) as mean, max(time) as last from window", name="row"),
    sql("select sum(price * size) / sum(size) from window", name="value"),
    sql("select count(*) from data", name="all"),
    sql("select price from window where size > 1 qualify row_number() over (order by price) < 3"),
]


def given(tasks: Sequence[Any], series: Any, n: int = 1, **config: Any) -> list[DataSet[Any]]:
    """The DataSets of the first windows of ten seconds."""
    builder: Any = ContextBuilder(series).with_tasks(tasks).with_interval("10s")
    run: Any = run_windows  # of which this is no overload
    found: list[DataSet[Any]] = run(builder.with_config(RunnerConfig(**config)).build()[0], n)
    return found


def result(text: str, series: Any) -> Any:
    """What a query gives for the first ten seconds."""
    return given([sql(text)], series)[0]["sql"]


def bits(datasets: Sequence[DataSet[Any]]) -> str:
    """Results with all of their bits."""
    plain = [
        {
            name: value.to_dict(as_series=False) if isinstance(value, pl.DataFrame) else value
            for name, value in dataset.items()
        }
        for dataset in datasets
    ]
    assert not any(dataset.errors for dataset in datasets)
    return repr(plain)


def numbers(*values: float) -> TimeSeries:
    series = TimeSeries({"x": float, "n": int, "k": str}, TimeUnit.SECONDS)
    series.extend(range(len(values)), x=values, n=range(len(values)), k=["a"] * len(values))
    return series


# What they give


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_a_table_a_row_and_a_value(executor: str) -> None:
    frame = trades(200, 1, scale=1)
    datasets = given(QUERIES, series_of(frame), 8, executor=executor)
    seconds = pl.col("time").dt.epoch("s")
    seen = 0
    for dataset in datasets:
        start, end = dataset.window
        rows = frame.filter(seconds.is_between(start, end, closed="left"))
        seen += len(rows)
        assert not dataset.errors
        table = dataset["table"]
        assert table.columns == ["symbol", "mean", "std", "corr"]
        means = rows.group_by("symbol").agg(pl.col("price").mean()).sort("symbol")
        assert table["symbol"].to_list() == means["symbol"].to_list()
        assert table["mean"].to_list() == pytest.approx(means["price"].to_list())
        assert dataset["row"]["last"] == rows["time"].dt.replace_time_zone("UTC").max()
        assert dataset["all"] == seen
        if len(rows):
            prices, sizes = rows["price"].to_numpy(), rows["size"].to_numpy()
            assert dataset["value"] == pytest.approx(float(prices @ sizes) / float(sizes.sum()))
            assert dataset["row"]["mean"] == pytest.approx(rows["price"].mean())
        else:
            assert dataset["value"] is None
            assert dataset["row"] == {"mean": None, "last": None}
    assert seen == 200
    assert len(datasets[-1]["table"]) == 0


def test_values_are_plain_and_ints_stay_ints() -> None:
    series = numbers(1.0, 2.5)
    for text, expected in (
        ("select sum(n) from window", 1),
        ("select count(*) from window where n > 5", 0),
        ("select max(k) from window", "a"),
        ("select bool_and(x > 0) from window", True),
        ("select list(n) from window", [0, 1]),
        ("select max(time) from window", datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        ("select sum(1.5) from window", Decimal("3.0")),
        ("select sum(n) as n, sum(x) as x from window", {"n": 1, "x": 3.5}),
        ("select date_trunc('day', timestamptz '2024-01-01 00:30:00+02:00')::varchar", None),
    ):
        found = result(text, series)
        if expected is None:  # whatever zone the machine is in
            assert found == "2023-12-31 00:00:00+00"
        else:
            assert found == expected
            assert type(found) is type(expected)
    table = result("select k, sum(n) as n from window group by k", series)
    assert table.schema == {"k": pl.String, "n": pl.Int64}
    assert table.rows() == [("a", 1)]


def test_a_table_of_one_row_is_a_table_where_it_may_have_others() -> None:
    for text in ("select x from window limit 1", "select max(x) from window group by k"):
        assert isinstance(result(text, numbers(1.0)), pl.DataFrame)


def test_window_is_a_table_and_a_word_of_sql() -> None:
    series = numbers(1.0, 2.0, 4.0)
    for text, expected in (
        ("SELECT sum(x) FROM WINDOW", 7.0),
        ('select sum(x) from "window"', 7.0),
        ("select sum(window.x) from/* all */window-- of it\n", 7.0),
        ("with a as (from window) select sum(a.x) from a join window using (time)", 7.0),
        ("select max(s) from (select sum(x) over w s from window window w as (order by n))", 7.0),
        ("select max(s) from (select sum(x) over (w) s from data window w as (order by n));", 7.0),
        ("select 'ü window' || max(x) from window", "ü window4.0"),
        ("select count(*) from window as w, data d where w.n < d.n", 3),
    ):
        found = result(text, series)
        assert found == expected


def test_data_is_all_that_is_retained_up_to_the_end_of_the_window() -> None:
    series = TimeSeries({"x": int}, TimeUnit.SECONDS, retention=25)
    series.extend(range(40), x=range(40))
    tasks = [sql("select count(*) as n, max(x) as last from data")]
    found = [dataset["sql"] for dataset in given(tasks, series, 4)]
    assert found == [
        {"n": 0, "last": None}, {"n": 5, "last": 19}, {"n": 15, "last": 29}, {"n": 25, "last": 39}
    ]  # fmt: skip


def test_further_inputs_are_tables_by_name() -> None:
    quotes = TimeSeries({"symbol": str, "bid": float}, TimeUnit.MILLIS)
    quotes.extend([500, 1500, 12_000], symbol=["s0", "s1", "s0"], bid=[1.0, 2.0, 3.0])
    fills = TimeSeries({"symbol": str, "price": float}, TimeUnit.SECONDS)
    fills.extend([1, 2, 12, 13], symbol=["s0", "s1", "s0", "s1"], price=[1.5, 2.5, 3.5, 4.5])
    tasks = [
        sql(
            "select f.symbol, price - bid as over from window f asof join quotes q "
            "on f.symbol = q.symbol and f.time >= q.time order by f.time",
            name="over",
            inputs=("fills", "quotes"),
        ),
        sql(
            "select (select count(*) from fills) as fills, (select count(*) from data) as data, "
            "(select count(*) from quotes) as quotes, (select count(*) from fills_window) as now, "
            "(select count(*) from quotes_window) as quoted",
            name="counts",
            inputs=("fills", "quotes"),
        ),
    ]
    pipeline = Pipeline("two")
    pipeline.stage("two", tasks, (fills, quotes), "10s")
    builder: Any = ContextBuilder((fills, quotes)).with_tasks(tasks).with_interval("10s")
    run: Any = run_windows  # of which this is no overload
    first, second = run(builder.build()[0], 2)
    assert first["over"].rows() == [("s0", 0.5), ("s1", 0.5)]
    assert second["over"].rows() == [("s0", 0.5), ("s1", 2.5)]
    assert first["counts"] == {"fills": 2, "data": 2, "quotes": 2, "now": 2, "quoted": 2}
    assert second["counts"] == {"fills": 4, "data": 4, "quotes": 3, "now": 2, "quoted": 1}


def test_closed_on_the_right_a_window_has_the_row_of_its_end() -> None:
    series = TimeSeries({"a": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)
    series.extend([0, 1, 10, 11, 20], a=[1, 2, 4, 8, 16])
    tasks = [sql("select sum(a) from window")]
    assert [d["sql"] for d in given(tasks, series, 2)] == [6, 24]
    assert [d["sql"] for d in given(tasks, series, 2, window="20s")] == [7, 30]


def test_one_is_run_on_its_own_as_any_task() -> None:
    frame = trades(60, 3)
    view = series_of(frame).view().for_window(0, 10)
    for query in (QUERIES[2], pickle.loads(pickle.dumps(QUERIES[2]))):
        assert query.run(view, 0, 10) == given(QUERIES, series_of(frame))[0]["value"]
    other = numbers(1.0).view().for_window(0, 10)
    with pytest.raises(ConfigError, match="no column 'price'"):
        QUERIES[2].run(other, 0, 10)
    assert QUERIES[2].run(view, 0, 10) is not None
    assert repr(sql("select 1")) == "<Query 'sql': select 1>"


# The same bits


@pytest.mark.parametrize("closed", Closed)
@pytest.mark.parametrize("window", [None, "25s"])
def test_live_replayed_and_run_one_by_one(closed: Closed, window: str | None) -> None:
    frame = trades(600, 9)
    config: Any = {} if window is None else {"window": window}
    tasks: list[Any] = [*QUERIES, expr(pl.col("price").sum())]
    replay = replayed(tasks, frame, closed=closed, **config)
    series = series_of(frame, closed=closed)
    builder = ContextBuilder(series).with_tasks(tasks).with_interval("10s")
    context, receiver, _ = builder.with_config(RunnerConfig(**config)).build()
    start = replay[0].timestamp - 1
    assert bits(run_windows(context, len(replay), start=start)) == bits(replay)
    clock = VirtualClock(start_ns=start * 10**9)
    live: list[Any] = []
    with Runner(context, clock=clock):
        for _ in replay:
            clock.advance("10s")
            live.append(receiver.recv(timeout=10))
    assert bits(live) == bits(replay)


def test_run_by_many_threads_at_once() -> None:
    frame = trades(2000, 4)
    view = series_of(frame).view()
    windows = [(start, start + 20) for start in range(0, 600, 10)]

    def run(window: tuple[int, int]) -> Any:
        return QUERIES[0].run(view.for_window(*window), *window).rows()

    expected = [run(window) for window in windows]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(3):
            assert list(threads.map(run, windows)) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning")
def test_a_forked_child_has_a_database_of_its_own() -> None:
    database = _duckdb.database
    query = sql("select 1")
    parents = database._root  # pyright: ignore[reportPrivateUsage]  what must not be used
    assert parents is not None
    child = os.fork()
    if child == 0:
        fresh = database._root is None and not query._idle  # pyright: ignore[reportPrivateUsage]  and is not
        os._exit(0 if fresh else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert database._root is parents  # pyright: ignore[reportPrivateUsage]


def test_a_query_has_as_many_connections_as_run_at_once() -> None:
    query = sql("select sum(x) from window")
    series = numbers(*range(200))
    for _ in range(2):
        given([query], series, 20)
    view = series.view()
    with ThreadPoolExecutor(4) as threads:
        views = [view.for_window(0, 10)] * 200
        list(threads.map(query.run, views, range(200), range(200)))
    assert 1 <= len(query._idle) <= 4  # pyright: ignore[reportPrivateUsage]  nothing else tells it


def test_it_goes_on_with_a_new_database_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = trades(200, 1)
    expected = bits(given(QUERIES, series_of(frame), 6))
    monkeypatch.setattr(_duckdb, "_WORN", 2)
    before = _duckdb.database.connect()[1]
    assert bits(given(QUERIES, series_of(frame), 6)) == expected
    assert _duckdb.database.connect()[1] is not before


@pytest.mark.parametrize("layout", Layout)
def test_sinks_store_tables_and_rows(layout: Layout, tmp_path: Path) -> None:
    pipeline = Pipeline("stored")
    series = series_of()
    pipeline.source(trades(50, 4, scale=1), into=series, zone="UTC")
    stage = pipeline.stage("stored", [QUERIES[0], QUERIES[3]], series, "5s")
    stage.sink(ParquetSink(tmp_path, layout=layout))
    datasets = [dataset for _, dataset in pipeline.replay()]
    assert not any(dataset.errors for dataset in datasets)
    assert pipeline.stats.refused == 0
    stored = pl.read_parquet(tmp_path / "*.parquet")
    if layout is Layout.WIDE:
        means = [mean for dataset in datasets for mean in dataset["table"]["mean"]]
        assert stored["table_mean"].to_list() == means
    else:
        assert len(stored) == 2 * len(datasets)


# What they cannot reach

secret = pl.DataFrame({"a": [1]})
"""A variable of the program, which DuckDB would take for a table."""


@pytest.mark.parametrize(
    "text",
    [
        "select * from read_csv('{file}')",
        "select * from '{file}'",
        "select * from read_text('{file}')",
        "select * from read_blob('{file}')",
        "select * from glob('{folder}/*')",
        "select * from read_json('https://localhost/a.json')",
        "select * from query('from read_csv(''{file}'')')",
        "select * from query_table('{file}')",
        "select * from sniff_csv('{file}')",
        "select * from parquet_metadata('{file}')",
        "select * from sqlite_scan('{file}', 'a')",
        "select * from which_secret('s3://a', 's3')",
        "copy (select 1) to '{folder}/out.csv'",
        "copy window to '{folder}/out.csv'",
        "export database '{folder}/out'",
        "attach '{folder}/out.db'",
        "install httpfs",
        "load httpfs",
        "set threads = 4",
        "set enable_external_access = true",
        "reset lock_configuration",
        "pragma enable_profiling",
        "call enable_logging()",
        "create table t as select 1",
        "insert into window values (1)",
        "delete from window",
        "drop view window",
        "begin",
        "select 1; select 2",
        "select 1; copy (select 1) to '{folder}/out.csv'",
        "select * from secret",
        "select getenv('HOME')",
    ],
)
def test_files_the_network_settings_and_variables_are_out_of_reach(
    text: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("a\n1\n")
    before = set(Path.cwd().iterdir())
    with pytest.raises(ConfigError) as refused:
        given([sql(text.format(file=file, folder=tmp_path))], numbers(1.0))
    assert "query 'sql'" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == [file]
    assert set(Path.cwd().iterdir()) == before
    assert result("select current_setting('threads')", numbers(1.0)) == 1


# What is refused, or an error of its window


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("select avg(prize) from window", r"no column 'prize': did you mean 'price'\?.*'time'"),
        ("select w.Prize from window w", "no column 'Prize': did you mean 'price'"),
        ("select avg(symbol) from window", r"'avg\(VARCHAR\)'; .*'symbol' \(texts\)"),
        ("select symbol + 1 from window", r"'symbol' \(texts\)"),
        ("select avg(price) from widow", "no table 'widow': there are 'window', 'data'"),
        ("select avg(price)) from window", "syntax error"),
        ("select symbol, price from window group by symbol", "GROUP BY"),
        ("select price, price from window", "two columns of its result are called 'price'"),
        ("select interval 1 day as i", "column 'i' of its result is INTERVAL"),
        ("select [interval 1 day] as i", "INTERVAL"),
        ("select avg(price) from window where size > $least", "parameters least"),
        ("", "it is empty"),
        ("describe window; select 1", "give one SELECT"),
    ],
)
def test_what_cannot_be_run_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"query 'named': .*{message}") as refused:
        ContextBuilder(series_of()).with_task(sql(text, name="named")).build()
    assert refused.value.__cause__ is None
    assert "\n" not in str(refused.value)


def test_what_they_are_not_for_is_refused() -> None:
    anything: Any = sql
    query = sql("select 1")
    with pytest.raises(ConfigError, match=r"not run by key.*GROUP BY symbol"):
        ContextBuilder(series_of()).with_task(query).with_key("symbol").build()
    with pytest.raises(ConfigError, match="stage 'a': query 'sql': a query is not run by key"):
        Pipeline("keyed").stage("a", [query], series_of(), "10s", by="symbol")
    lists: Any = ContextBuilder(RwLock([1.0]))
    with pytest.raises(ConfigError, match="tables of a query are TimeSeries"):
        lists.with_task(query).build()
    both: Any = ContextBuilder((series_of(), series_of()))
    with pytest.raises(ConfigError, match=r"2 inputs, and names for none.*inputs=\("):
        both.with_task(query).build()
    with pytest.raises(ConfigError, match="a query is a text"):
        anything(3)
    with pytest.raises(ConfigError, match="a name is a text"):
        anything("select 1", name="")
    for wrong in ("trades", ("a b",), (1,)):
        with pytest.raises(ConfigError, match="names without spaces"):
            anything("select 1", inputs=wrong)
    for taken in (["window"], ["a", "A"], ["a", "a_window"]):
        with pytest.raises(ConfigError, match="rename an input"):
            sql("select 1", inputs=taken)
    stage = Pipeline("added").stage("a", [query], series_of(), "10s")
    with pytest.raises(ConfigError, match="stage 'a': query 'b': there is no column 'prize'"):
        stage.add(sql("select prize from window", name="b"))


def test_an_error_costs_its_own_window() -> None:
    series = TimeSeries({"t": str, "n": int}, TimeUnit.SECONDS)
    series.extend(range(40), t=["1"] * 15 + ["x"] + ["1"] * 24, n=[2**62] * 5 + [1] * 35)
    tasks = [
        sql("select sum(t::int) from window", name="number"),
        sql("select sum(n) from window", name="sum"),
        sql("select t from window order by time limit 1", name="t"),
        sql("select w.n from (select 0) left join window w on true", name="rows"),
    ]
    first, second, _, fourth = given(tasks, series, 4)
    assert list(first.errors) == ["sum", "rows"]
    assert list(second.errors) == ["number", "rows"]
    assert "Could not convert string 'x'" in str(second.errors["number"].__cause__)
    assert isinstance(second.errors["number"].__cause__, RunTaskError)
    assert "it gives 10 rows, and one where" in str(fourth.errors["rows"].__cause__)
    assert fourth["number"] == 10


def test_texts_that_are_none_in_utf_8_cost_their_own_window() -> None:
    series = TimeSeries({"t": str}, TimeUnit.SECONDS)
    series.extend([1, 11, 21], t=["a", "\ud800", "b"])
    datasets = given([sql("select max(t) from window")], series, 3)
    assert [dataset.get("sql") for dataset in datasets] == ["a", None, "b"]
    assert [list(dataset.errors) for dataset in datasets] == [[], ["sql"], []]


def test_a_view_keeps_nothing_once_its_query_has_run() -> None:
    import gc
    import weakref

    view = numbers(1.0, 2.0).view().for_window(0, 10)
    query = sql("select sum(x) from window")
    assert query.run(view, 0, 10) == 3.0
    column = weakref.ref(view["x"])
    del view
    gc.collect()
    assert column() is None


def test_only_the_columns_that_a_query_reads_are_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    frame_of = _columns.frame_of

    def noted(view: Any, names: Any = None) -> pl.DataFrame:
        frame = frame_of(view, names)
        if len(view):
            made.append("+".join(frame.columns))
        return frame

    monkeypatch.setattr(_query, "frame_of", noted)
    series = series_of(trades(100, 1))
    texts = {
        "select avg(price) from window where size > 0": "price+size",
        "select count(*) from window": "time",
        "select symbol, max(price) as most from window group by 1": "price+symbol",
        "select * from window": "time+price+size+symbol",
        "select count(*) from (select distinct * from window)": "time+price+size+symbol",
        "select hash(w) from window w": "time+price+size+symbol",
        "select time from window order by size limit 1": "time+size",
        "from window": "time+price+size+symbol",
        "select columns('p.*') from window": "price",
        "select avg(w.price) from window w natural join data": "time+price+size+symbol",
        "select (select max(size) from data) from window limit 1": "time+size",
    }
    for text, columns in texts.items():
        task, made[:] = sql(text, name="q"), []
        assert not given([task], series)[0].errors
        # A table of which nothing is read has its times.
        assert set(made) <= {columns, "time"} if "from data" in text else set(made) == {columns}
