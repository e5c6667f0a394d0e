"""Tables of typed columns in databases: names, indexes, and what others have made or changed."""

from __future__ import annotations

import importlib
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.support.threads import together

from run_task import (
    ConfigError,
    DataSet,
    KeyedDataSet,
    Pipeline,
    SinkError,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    Window,
    task,
)
from run_task.sinks import Layout, Result, SqlSink, StageOutput

sa = pytest.importorskip("sqlalchemy")
pl = pytest.importorskip("polars")

MINUTE = TaskInterval.seconds(60)


class Place(NamedTuple):
    """A database, and a table in it that is not there yet."""

    kind: str
    url: str
    table: str
    sinks: list[SqlSink]

    def sink(self, layout: Layout = Layout.WIDE) -> SqlSink:
        sink = SqlSink(self.url, table=self.table, layout=layout)
        self.sinks.append(sink)
        sink.begin("p")
        return sink

    def run(self, *statements: str) -> list[Any]:
        """Run statements, and give what the last one gives."""
        engine = sa.create_engine(self.url)
        found: list[Any] = []
        try:
            with engine.begin() as connection:
                for statement in statements:
                    got = connection.execute(sa.text(statement))
                    found = got.all() if got.returns_rows else []
        finally:
            engine.dispose()
        return found


@pytest.fixture(params=["sqlite", "postgres", "mariadb", "duckdb"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    table = f"bars_{random.randrange(10**9)}"
    match request.param:
        case "sqlite":
            url = f"sqlite:///{tmp_path / 'file.db'}"
        case "duckdb":
            pytest.importorskip("duckdb_engine")
            url = f"duckdb:///{tmp_path / 'file.duckdb'}"
        case kind:
            url = request.getfixturevalue(f"{kind}_url")
    sinks: list[SqlSink] = []
    yield Place(request.param, url, table, sinks)
    for sink in sinks:
        sink.close()


def plain(end: int, /, **values: Any) -> Result:
    return Result.of("p", "s", DataSet(Window(end - 60, end), values, interval=MINUTE))


def keyed(end: int, /, **values: Any) -> Result:
    dataset: KeyedDataSet[Any, Any] = KeyedDataSet(
        Window(end - 60, end), "symbol", values, interval=MINUTE
    )
    return Result.of("p", "s", dataset)


def test_a_person_can_query_it(place: Place) -> None:
    sink = place.sink()
    sink.write(keyed(1_767_322_860, vwap={"BTC": 100.5, "ETH": 20.5}, n={"BTC": 3, "ETH": 4}))
    sink.write(keyed(1_767_322_920, vwap={"BTC": 101.5, "ETH": 21.5}, n={"BTC": 5, "ETH": 6}))
    sink.close()
    since = "'2026-01-02 03:01:30'" + {"duckdb": "::timestamptz", "postgres": "::timestamptz"}.get(
        place.kind, ""
    )
    query = f"SELECT symbol, vwap, n FROM {place.table} WHERE window_end >= {since} ORDER BY symbol"
    assert place.run(query) == [("BTC", 101.5, 5), ("ETH", 21.5, 6)]
    assert place.run(f"SELECT sum(n) FROM {place.table} WHERE symbol = 'BTC'") == [(8,)]
    inspected = {"sqlite": "SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY name"}
    inspected["duckdb"] = "SELECT index_name FROM duckdb_indexes() ORDER BY index_name"
    names = f"ix_{place.table}_key", f"ix_{place.table}_window"
    if place.kind in inspected:
        assert [name for (name,) in place.run(inspected[place.kind])][:2] == [*names]
    else:
        engine = sa.create_engine(place.url)
        indexes = {
            i["name"]: i["column_names"] for i in sa.inspect(engine).get_indexes(place.table)
        }
        engine.dispose()
        assert indexes == {
            names[0]: ["symbol", "window_end"],
            names[1]: ["window_end", "window_start", "symbol"],
        }


def test_a_table_is_made_before_the_first_result(place: Place) -> None:
    sink = place.sink()
    types: dict[str, Any] = {"a": float, "b": int | None}
    sink.declare(StageOutput("p", "s", TimeUnit.SECONDS, "symbol", str, types))
    assert (
        place.run(f"SELECT window_start, window_end, symbol, a, b, error FROM {place.table}") == []
    )
    assert (sink.last("s"), list(sink.rows())) == (None, [])


def test_a_second_sink_of_the_same_table_is_refused_before_anything_is_run(place: Place) -> None:
    if place.kind == "duckdb":
        pytest.skip("one program has it at a time")

    @task
    def level(view: TimeSeriesView, start: int, end: int) -> float:
        raise AssertionError("it is not to be run")

    series = TimeSeries({"value": float}, TimeUnit.SECONDS)
    pipeline = Pipeline("p").source([(1, {"value": 1.0})], into=series)
    for stage in "st":
        pipeline.stage(stage, [level], series, "10s").sink(place.sink())
    message = (
        "another sink has made it: it is a wide table of stage '[st]' of pipeline 'p', and holds "
        "no results of stage '[st]' of 'p': give that another one"
    )
    with pytest.raises(ConfigError, match=message):
        pipeline.replay()
    with pytest.raises(ConfigError, match=message):
        pipeline.run_sync()


@pytest.mark.parametrize("of", ["index", "table"])
def test_an_index_whose_name_somebody_else_has_is_told_by_name(place: Place, of: str) -> None:
    name = f"ix_{place.table}_window"
    if place.kind == "duckdb":
        pytest.skip("its driver tells of no indexes")
    made = {
        "index": [
            f"CREATE TABLE other_{place.table} (a int)",
            f"CREATE INDEX {name} ON other_{place.table} (a)",
        ],
        "table": [f"CREATE TABLE {name} (a int)"],
    }
    place.run(*made[of])
    sink = place.sink()
    types: dict[str, Any] = {"a": float}
    output = StageOutput("p", "s", TimeUnit.SECONDS, None, None, types)
    if place.kind == "mariadb":  # where indexes have names by table
        sink.declare(output)
        return
    told = f"of one of table 'other_{place.table}'" if of == "index" else "of a table"
    with pytest.raises(
        ConfigError,
        match=rf"table='{place.table}'\): its index '{name}' has the name {told}: rename that, "
        f"or give another table=",
    ):
        sink.declare(output)
    sink.write(plain(60, a=1.0))
    with pytest.raises(SinkError, match=f"its index '{name}' has the name of"):
        sink.flush()
    dropped = f"DROP INDEX {name}" if of == "index" else f"DROP TABLE {name}"
    place.run(dropped)
    sink.flush()
    assert [row.value for row in sink.rows()] == [1.0]
    engine = sa.create_engine(place.url)
    indexes = sa.inspect(engine).get_indexes(place.table)
    engine.dispose()
    assert [index["name"] for index in indexes] == [name]


def test_times_are_real_ones(place: Place) -> None:
    sink = place.sink()
    sink.write(plain(1_767_322_860, a=1))
    sink.close()
    if place.kind == "sqlite":
        query = (
            f"SELECT unixepoch(window_end) - unixepoch(window_start), window_end FROM {place.table}"
        )
        assert place.run(query) == [(60, "2026-01-02 03:01:00+00:00")]
        return
    epoch = {"mariadb": "TIMESTAMPDIFF(SECOND, '1970-01-01', window_end)"}.get(
        place.kind, "extract(epoch FROM window_end)"
    )
    assert int(place.run(f"SELECT {epoch} FROM {place.table}")[0][0]) == 1_767_322_860


def test_a_number_that_the_database_does_not_have_is_told(place: Place) -> None:
    sink = place.sink()
    sink.write(keyed(60, x={"a": math.nan, "b": 1.0}, y={"a": math.inf, "b": -math.inf}))
    sink.close()
    sink = place.sink()
    found = {(row.key, row.task): row.value for row in sink.rows()}
    assert repr(found) == "{('a', 'x'): nan, ('a', 'y'): inf, ('b', 'x'): 1.0, ('b', 'y'): -inf}"
    sink.close()
    told = [cell for (cell,) in place.run(f"SELECT error FROM {place.table} ORDER BY symbol")]
    missing = "for which there is no number here"
    assert told == {
        "sqlite": [f'column "x" is nan, {missing}', None],
        "mariadb": [
            f'column "x" is nan, {missing}\ncolumn "y" is inf, {missing}',
            f'column "y" is -inf, {missing}',
        ],
    }.get(place.kind, [None, None])
    (count,) = place.run(f"SELECT count(x) FROM {place.table}")[0]
    assert count == (1 if place.kind in ("sqlite", "mariadb") else 2)


def test_names_that_the_database_takes_for_one_are_refused(place: Place) -> None:
    sink = place.sink()
    sink.write(plain(60, a=1))
    if place.kind == "postgres":
        sink.write(plain(120, a=1, A=2))
        sink.close()
        assert place.run(f'SELECT a, "A" FROM {place.table} WHERE "A" IS NOT NULL') == [(1, 2)]
        return
    with pytest.raises(SinkError, match="task 'A': its column 'A' is that of task 'a', too"):
        sink.write(plain(120, a=1, A=2))
    with pytest.raises(SinkError, match="task 'ERROR': its column 'ERROR' is the table's own"):
        sink.write(plain(120, ERROR=2))
    sink.write(plain(120, a=2))
    assert [row.value for row in sink.rows()] == [1, 2]
    sink.close()


def test_names_that_are_too_long_are_refused(place: Place) -> None:
    longest = {"postgres": 63, "mariadb": 64, "duckdb": 63, "sqlite": 9_999}[place.kind]
    sink = place.sink()
    sink.write(plain(60, **{"a" * longest: 1}))
    if place.kind == "mariadb":
        sink.write(plain(60, **{"a" * longest: 1, "é" * longest: 2}))
        with pytest.raises(SinkError, match="has no form in this database's encoding: rename it"):
            sink.write(plain(60, **{"\U0001f600": 1}))
    else:
        with pytest.raises(
            SinkError, match=f"is longer than the {longest} that this database take"
        ):
            sink.write(plain(60, **{"é" * (longest // 2 + 1): 1}))
    with pytest.raises(SinkError, match=f"is longer than the {longest} that this database takes"):
        sink.write(plain(60, **{"a" * (longest - 1): {"b": 1}}))
    with pytest.raises(SinkError, match="key 'kkkkkkkkkkkkkkkkkkkk' has 256 characters"):
        place._replace(table="other").sink().write(keyed(60, a={"k" * 256: 1}))
    assert next(iter(sink.rows())).value == 1
    sink.close()


def test_more_columns_than_the_database_takes_are_refused(place: Place) -> None:
    sink = place.sink()
    with pytest.raises(
        SinkError, match="the table would have 991 of results, more than this datab"
    ):
        sink.write(plain(60, many={str(n): n for n in range(991)}))
    if place.kind == "mariadb":
        with pytest.raises(
            SinkError, match="the table would have 200 of results, more than this d"
        ):
            sink.write(plain(60, many={str(n): "x" for n in range(200)}))
        sink.write(plain(60, many={str(n): "x" * 100 for n in range(180)}))
    else:
        sink.write(plain(60, many={str(n): "x" * 100 for n in range(300)}))
    sink.write(plain(120, numbers={str(n): 0.5 for n in range(10)}))
    sink.close()


def test_a_table_of_somebody_else_is_refused_and_stays(place: Place) -> None:
    for columns in ("a INTEGER", "window_start INTEGER, window_end INTEGER, error VARCHAR(9)"):
        place.run(f"CREATE TABLE {place.table} ({columns})")
        with pytest.raises(
            ConfigError, match=rf"table='{place.table}'\): this table is one of somethi"
        ):
            place.sink()
        assert place.run(f"SELECT * FROM {place.table}") == []
        place.run(f"DROP TABLE {place.table}")
    if place.kind != "duckdb":  # in which nobody has tried it
        place.sink(Layout.LONG).close()
        with pytest.raises(
            ConfigError, match=r"this table is one of layout LONG: give another tabl"
        ):
            place.sink()
        place.run(f"DROP TABLE {place.table}")
    place.sink().close()


def test_a_registry_of_somebody_else_is_refused_and_stays(place: Place) -> None:
    SqlSink(place.url, table="probe", layout=Layout.WIDE).close()
    with pytest.raises(ConfigError, match="this tells of other tables: give another table="):
        place._replace(table="run_task_tables").sink()
    place.run("DROP TABLE run_task_tables", "CREATE TABLE run_task_tables (a INTEGER)")
    with pytest.raises(
        ConfigError, match="table 'run_task_tables', which tells of tables like thi"
    ):
        place.sink()
    assert place.run("SELECT * FROM run_task_tables") == []
    place.run("DROP TABLE run_task_tables")


def test_a_long_sink_refuses_a_wide_table(place: Place) -> None:
    sink = place.sink()
    sink.write(plain(60, a=1))
    sink.close()
    if place.kind != "duckdb":
        with pytest.raises(ConfigError, match="is one of something else, it has no column"):
            place.sink(Layout.LONG)
    assert [row.value for row in place.sink().rows()] == [1]


def test_a_table_that_was_dropped_begins_anew(place: Place) -> None:
    sink = place.sink()
    sink.write(plain(60, a=1))
    sink.close()
    place.run(f"DROP TABLE {place.table}")
    sink = place.sink()
    assert (sink.last("s"), list(sink.rows())) == (None, [])
    sink.write(plain(120, a="another type"))
    sink.close()
    sink = place.sink()
    assert [(row.end, row.value) for row in sink.rows()] == [(120, "another type")]
    sink.close()


def test_columns_that_somebody_has_added_stay_and_are_nobodys(place: Place) -> None:
    sink = place.sink()
    sink.write(plain(60, a=1))
    sink.close()
    place.run(
        f"ALTER TABLE {place.table} ADD COLUMN note VARCHAR(9)",
        f"UPDATE {place.table} SET note = 'mine'",
    )
    sink = place.sink()
    with pytest.raises(SinkError, match="its column 'note' is one that somebody has added"):
        sink.write(plain(120, a=1, note="x"))
    sink.write(plain(120, a=2, b=0.5))
    sink.close()
    query = f"SELECT a, note, b FROM {place.table} ORDER BY window_end"
    assert place.run(query) == [(1, "mine", None), (2, None, 0.5)]


def test_a_table_valued_task_that_comes_later(place: Place) -> None:
    sink = place.sink()
    sink.write(keyed(60, n={"a": 1, "b": 2}))
    sink.flush()
    top = {"a": pl.DataFrame({"x": [1.5, 2.5]}), "b": pl.DataFrame({"x": [None, 3.5, 4.5]})}
    for _ in range(2):
        sink.write(keyed(120, n={"a": 3, "b": 4}, top=top))
        sink.flush()
    sink.close()
    query = f'SELECT symbol, "row", n, top_x FROM {place.table} ORDER BY window_end, symbol, "row"'
    if place.kind == "mariadb":
        query = query.replace('"', "`")
    assert place.run(query) == [
        ("a", None, 1, None),
        ("b", None, 2, None),
        ("a", 0, 3, 1.5),
        ("a", 1, 3, 2.5),
        ("b", 0, 4, None),
        ("b", 1, 4, 3.5),
        ("b", 2, 4, 4.5),
    ]
    sink = place.sink()
    found = {(row.end, row.key, row.task): row.value for row in sink.rows()}
    assert found[120, "b", "top"] == {"x": [None, 3.5, 4.5]}
    assert found[60, "a", "top"] is None
    sink.close()


def test_two_sinks_add_columns_to_one_table(place: Place) -> None:
    first, second = place.sink(), place.sink()
    steps: list[tuple[SqlSink, dict[str, Any]]] = [
        (first, {"a": 1}),
        (second, {"b": 0.5}),
        (first, {"a": 2, "c": "x"}),
        (second, {"c": "y"}),
    ]
    for end, (sink, values) in enumerate(steps):
        sink.write(plain(60 * end, **values))
        sink.flush()
    query = f"SELECT a, b, c FROM {place.table} ORDER BY window_end"
    assert place.run(query) == [
        (1, None, None),
        (None, 0.5, None),
        (2, None, "x"),
        (None, None, "y"),
    ]
    second.write(plain(300, d=True))
    second.flush()
    first.write(plain(360, d="text"))
    with pytest.raises(
        SinkError, match="another program has made column 'd', which holds bool, an"
    ):
        first.flush()
    second.close()
    with pytest.raises(SinkError, match="another program has made column 'd'"):
        first.close()


def test_two_sinks_make_one_table_at_one_time(place: Place) -> None:
    sinks = [place.sink() for _ in range(3)]

    def writer(sink: SqlSink, name: str) -> Callable[[], None]:
        def write() -> None:
            for end in range(60, 600, 60):
                sink.write(plain(end, a=end))
                sink.flush()

        return write

    together(*(writer(sink, str(number)) for number, sink in enumerate(sinks)))
    for sink in sinks:
        assert [(row.end, row.value) for row in sink.rows()] == [(e, e) for e in range(60, 600, 60)]
        sink.close()


@pytest.mark.parametrize("name", ["mssql", "oracle", "mysql", "postgresql", "sqlite"])
def test_statements_are_made_for_databases_that_are_not_here(name: str) -> None:
    from sqlalchemy.schema import CreateIndex, CreateTable

    from run_task.sinks._sql_limits import SqlLimits
    from run_task.sinks._wide_table import AddColumn, wide_table
    from run_task.sinks.wide._kinds import WideKind
    from run_task.sinks.wide._schema import WideColumn, WideSchema
    from run_task.sinks.wide._shapes import Shape
    from run_task.time._interval import TimeUnit

    module = importlib.import_module(f"sqlalchemy.dialects.{name}")
    dialect: Any = module.dialect()
    columns = {k.value: WideColumn(k.value, k.value, None, k) for k in WideKind}
    shapes = {k.value: Shape.SCALAR for k in WideKind} | {"top": Shape.TABLE}
    schema = WideSchema("p", "s", TimeUnit.MILLIS, "symbol", WideKind.TEXT, shapes, columns)
    table = wide_table("bars", schema, SqlLimits(), name, 128)
    made = [str(CreateTable(table).compile(dialect=dialect))]
    made += [str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes]
    made += [str(AddColumn(table.c.c4).compile(dialect=dialect))]
    whole = "\n".join(made)
    moment = {
        "mssql": "DATETIMEOFFSET(6)",
        "oracle": "TIMESTAMP WITH TIME ZONE",
        "mysql": "DATETIME(6)",
        "sqlite": "DATETIME",
    }.get(name, "TIMESTAMP WITH TIME ZONE")
    assert moment in whole
    assert ("ADD COLUMN" in whole) is (name not in ("mssql", "oracle"))
    assert whole.count("INDEX") == 2
