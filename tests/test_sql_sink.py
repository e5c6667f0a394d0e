from __future__ import annotations

import importlib
import logging
import sqlite3
import subprocess
import sys
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.support.proof import in_proof

from run_task import ConfigError, DataSet, SinkError, TaskError, Window
from run_task.errors import RunTaskError
from run_task.observe._url import url_shown
from run_task.sinks import Result, SqlSink


def results(end: int, **values: Any) -> DataSet[Any]:
    return DataSet(Window(end - 60, end), values)


def test_a_table_that_sql_can_work_with(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    sink = SqlSink(path)
    sink.begin("p")
    for end in (60, 120):
        sink.write(
            Result.of("p", "s", results(end, mean=end / 4, n=end, text="x", nan=float("nan")))
        )
    sink.close()
    database = sqlite3.connect(path)
    assert database.execute("SELECT avg(value) FROM results WHERE task = 'mean'").fetchone() == (
        22.5,
    )
    rows = database.execute(
        "SELECT window_start, window_end, task, value, json, error FROM results"
        " WHERE window_end = 120 ORDER BY position"
    ).fetchall()
    assert rows == [
        (60, 120, "mean", 30.0, None, None),
        (60, 120, "n", 120.0, "120", None),
        (60, 120, "text", None, '"x"', None),
        (60, 120, "nan", None, "NaN", None),
    ]
    keys = database.execute("SELECT name FROM pragma_table_info('results') WHERE pk ORDER BY pk")
    assert [name for (name,) in keys] == [
        *("pipeline", "stage", "window_end", "window_start", "bucket", "key", "task")
    ]
    stored = "SELECT DISTINCT format, key, bucket, revision, unit FROM results"
    assert database.execute(stored).fetchall() == [(2, "", 0, 0, None)]
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()
    assert [p.name for p in tmp_path.iterdir()] == ["file.db"]


def test_a_relative_path_and_a_url_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sink = SqlSink("file with spaces & more?.db")
    sink.begin("p")
    sink.write(Result.of("p", "s", results(60, a=1)))
    sink.close()
    assert (tmp_path / "file with spaces & more?.db").exists()


def test_what_cannot_be_opened_is_refused_when_the_sink_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened: unable to open database file"):
        SqlSink(tmp_path / "none" / "file.db")
    with pytest.raises(ConfigError, match="this is a folder: give the path of a file"):
        SqlSink(tmp_path)
    for database in (":memory:", "sqlite://", ""):
        with pytest.raises(ConfigError, match=r"does not last|this is a folder"):
            SqlSink(database)
    (tmp_path / "text").write_text("this is no database, and long enough for a header" * 10)
    with pytest.raises(ConfigError, match="cannot be opened: file is not a database"):
        SqlSink(tmp_path / "text")
    with pytest.raises(ConfigError, match="the driver of this database is not installed"):
        SqlSink("oracle://me@host/db")
    with pytest.raises(ConfigError, match="the driver of this database is not installed"):
        SqlSink("nonesuch://me@host/db")


def test_a_password_is_in_no_message() -> None:
    for url in (
        "postgresql+psycopg://me:secret@127.0.0.1:1/db",
        "nonesuch://me:secret@host",
        "postgresql+psycopg://me:secret@host:port/db",
    ):
        with pytest.raises(ConfigError) as caught:
            SqlSink(url)
        assert "secret" not in str(caught.value)


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE results (pipeline TEXT, task TEXT)")
    database.close()
    with pytest.raises(
        ConfigError,
        match=r"table='results'\): this table is one of something else, it has no column ",
    ):
        SqlSink(path)
    sink = SqlSink(path, table="others")
    sink.begin("p")
    assert list(sink.rows()) == []
    sink.close()


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\0b", "\x1b[2J", "\ud800", None, 3])
def test_what_is_no_name_of_a_table_is_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(ConfigError, match="the name of a table is a text that can be printed"):
        SqlSink(tmp_path / "results.db", table=name)


@pytest.mark.parametrize("name", ["'; drop table results; --", 'a"b`c', "50%", ":name", "select"])
def test_any_other_name_is_one(tmp_path: Path, name: str) -> None:
    for end in (60, 120):  # which also opens it again
        with closing(SqlSink(tmp_path / "results.db", table=name)) as sink:
            sink.begin("p")
            sink.write(Result.of("p", "s", results(end, n=end)))
            sink.flush()
            assert [row.value for row in sink.rows()][-1] == end
    with closing(sqlite3.connect(tmp_path / "results.db")) as database:
        found = database.execute("select name from sqlite_master where type = 'table'")
        assert found.fetchall() == [(name,)]


def test_a_name_that_postgresql_would_cut_off_is_refused(postgres_url: str) -> None:
    SqlSink(postgres_url, table="ä" * 31).close()
    with pytest.raises(ConfigError, match="the name of its table is longer than 63 bytes"):
        SqlSink(postgres_url, table="ä" * 32)


def test_a_database_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    SqlSink(path).close()
    with pytest.raises(ConfigError, match="cannot be opened: attempt to write a readonly"):
        SqlSink(f"sqlite:///file:{path}?mode=ro&uri=true")


def test_a_flush_that_fails_leaves_all_as_it_was_and_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    sink = SqlSink(path)
    sink.begin("p")
    sink.write(Result.of("p", "s", results(60, a=1, b=2)))
    sink.flush()
    other = sqlite3.connect(path)
    other.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON results WHEN NEW.task = 'b' AND NEW.value = 3"
        " BEGIN SELECT raise(ABORT, 'not this one'); END"
    )
    other.commit()
    sink.write(Result.of("p", "s", results(120, a=1)))
    sink.write(Result.of("p", "s", results(60, a=9, b=3)))
    with pytest.raises(SinkError, match="cannot be written: not this one"):
        sink.flush()
    stored = "SELECT window_end, task, value FROM results ORDER BY 1, 2"
    assert other.execute(stored).fetchall() == [(60, "a", 1.0), (60, "b", 2.0)]
    other.execute("DROP TRIGGER refuse")
    other.commit()
    sink.flush()
    assert other.execute(stored).fetchall() == [(60, "a", 9.0), (60, "b", 3.0), (120, "a", 1.0)]
    other.close()
    sink.close()


def test_the_refusals_of_postgresql(postgres_url: str) -> None:
    import sqlalchemy

    with pytest.raises(ConfigError, match=r'cannot be opened: .*role "nobody_such" does not exist'):
        SqlSink(sqlalchemy.make_url(postgres_url).set(username="nobody_such").render_as_string())
    engine = sqlalchemy.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE locked (pipeline TEXT)"))
    engine.dispose()
    with pytest.raises(ConfigError, match=r"table='locked'\): this table is one of something else"):
        SqlSink(postgres_url, table="locked")


@pytest.mark.parametrize("server", ["postgres_url", "mariadb_url"])
def test_names_that_differ_only_a_little_are_different(
    server: str, request: pytest.FixtureRequest
) -> None:
    with closing(SqlSink(request.getfixturevalue(server), table="names")) as sink:
        sink.begin("p")
        names = ["a", "A", "a ", "\u00e4", "a\u0308", "\U0001f600", "\U0001f601", "", " "]
        window = Window(0, 60)
        sink.write(Result.of("p", "s", DataSet(window, dict.fromkeys(names, 1))))
        for stage in names[:3]:
            sink.write(Result.of("p", stage, DataSet(window, {"a": 1})))
        sink.flush()
        assert [row.task for row in sink.rows("s")] == names
        assert [row.stage for stage in names[:3] for row in sink.rows(stage)] == names[:3]


def test_infinity_where_a_database_has_none(mariadb_url: str) -> None:
    import sqlalchemy

    with closing(SqlSink(mariadb_url, table="infinite")) as sink:
        sink.begin("p")
        sink.write(Result.of("p", "s", results(60, a=float("inf"), b=1.5)))
        assert [row.value for row in sink.rows()] == [float("inf"), 1.5]
    engine = sqlalchemy.create_engine(mariadb_url)
    with engine.connect() as connection:
        found = connection.execute(
            sqlalchemy.text("SELECT value, json FROM infinite ORDER BY task")
        )
        assert [tuple(row) for row in found] == [(None, "Infinity"), (1.5, None)]
    engine.dispose()


def test_a_result_larger_than_a_server_takes_is_refused_by_name(mariadb_url: str) -> None:
    with closing(SqlSink(mariadb_url, table="large")) as sink:
        sink.begin("p")
        with pytest.raises(SinkError, match=r"stage 's': task 'b': its result, of .* cannot hold"):
            sink.write(Result.of("p", "s", results(60, a=1, b="x" * 8_000_000)))
        sink.write(Result.of("p", "s", results(60, a="x" * 1_000_000)))
        sink.flush()
        assert [len(row.value) for row in sink.rows()] == [1_000_000]


def test_a_connection_that_cannot_hold_every_text_is_refused(mariadb_url: str) -> None:
    with pytest.raises(ConfigError, match="a connection in latin1 cannot hold every text"):
        SqlSink(f"{mariadb_url}?charset=latin1")


def test_what_an_encoding_does_not_have_is_refused_by_name(latin1_url: str) -> None:
    with (
        closing(SqlSink(latin1_url)) as sink,
        pytest.raises(ConfigError, match="pipeline '\u20ac' has no form in this database's"),
    ):
        sink.begin("\u20ac")
    error = TaskError("bad", Window(0, 60), "costs 3 \u20ac and \u00e9")
    with closing(SqlSink(latin1_url)) as sink:
        sink.begin("p")
        for stage, task in (("\u20ac", "a"), ("s", "\u20ac")):
            with pytest.raises(SinkError, match="'\u20ac' has no form in this database's encoding"):
                sink.write(Result.of("p", stage, results(60, **{task: 1, "b": 2})))
        sink.write(
            Result.of("p", "s", DataSet(Window(0, 60), {"\u00e9": "\u20ac"}, {"bad": error}))
        )
        sink.flush()
        first, second = sink.rows()
        assert (first.task, first.value) == ("\u00e9", "\u20ac")
        assert second.error is not None
        assert "costs 3 \\u20ac and \u00e9" in second.error


def test_names_that_are_too_long_are_refused(tmp_path: Path) -> None:
    with (
        closing(SqlSink(tmp_path / "file.db")) as sink,
        pytest.raises(ConfigError, match=r"pipeline 'pppppppppppppppppppp'\.\.\. has 121 char"),
    ):
        sink.begin("p" * 121)
    with closing(SqlSink(tmp_path / "file.db")) as sink:
        sink.begin("p" * 120)
        with pytest.raises(
            SinkError, match=r"stage 's+'\.{3} has 121 characters, and a table holds"
        ):
            sink.write(Result.of("p" * 120, "s" * 121, results(60, a=1)))
        with pytest.raises(
            SinkError, match=r"task 't+'\.{3} has 191 characters, and a table holds"
        ):
            sink.write(Result.of("p" * 120, "s", results(60, **{"t" * 191: 1})))
        sink.write(Result.of("p" * 120, "s" * 120, results(60, **{"t" * 190: 1})))
        assert len(list(sink.rows())) == 1


@pytest.mark.parametrize("dialect", ["mysql", "mssql", "oracle", "postgresql", "sqlite"])
def test_the_table_can_be_made_anywhere(dialect: str) -> None:
    from sqlalchemy.schema import CreateTable

    from run_task.sinks._results_table import Name, results_table

    made: Any = importlib.import_module(f"sqlalchemy.dialects.{dialect}").dialect()
    table = results_table("results")
    assert "PRIMARY KEY" in str(CreateTable(table).compile(dialect=made))
    bytes_each = {"mysql": 4, "mssql": 2}.get(dialect, 4)
    longest = {"mysql": 3_072, "mssql": 1_700, "oracle": 6_398}.get(dialect, 10_000)
    size = 0
    for column in table.primary_key:
        kind = column.type.compile(dialect=made).upper()
        assert not any(word in kind for word in ("TEXT", "CLOB", "(MAX)"))
        size += bytes_each * getattr(column.type, "length", 0) if "CHAR" in kind else 8
    assert size <= longest
    name = Name(10)
    stored = name.process_bind_param("", made)
    assert stored == (" " if dialect == "oracle" else "")
    assert name.process_result_value(stored, made) == ""


OPEN_AT_ONCE = """
import os, sys
from run_task.sinks import SqlSink
import sqlalchemy.dialects.sqlite, psycopg
here, there = os.pipe()
children = []
for _ in range(8):
    if (child := os.fork()) == 0:
        os.close(there)
        os.read(here, 1)  # until all are there
        code = 1
        try:
            SqlSink(sys.argv[1], table=sys.argv[2]).close()
            code = 0
        finally:
            os._exit(code)
    children.append(child)
os.close(there)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


@pytest.mark.parametrize("server", ["sqlite", "postgres_url", "mariadb_url"])
def test_programs_that_open_a_table_at_the_same_time(
    server: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for attempt in range(in_proof(3, short=1)):
        where = tmp_path / f"{attempt}.db"
        url = str(where) if server == "sqlite" else request.getfixturevalue(server)
        done = subprocess.run(
            [sys.executable, "-c", OPEN_AT_ONCE, url, f"at_once_{attempt}"],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr


def test_a_file_of_something_else_keeps_its_journal(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE results (mine TEXT)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="is one of something else"):
        SqlSink(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["file.db"]


def test_a_table_of_a_later_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    with closing(SqlSink(path)) as sink:
        sink.begin("p")
        sink.write(Result.of("p", "s", results(60, a=1)))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE results SET format = 3")
    with pytest.raises(ConfigError, match="written in format 3, and this version of run-task know"):
        SqlSink(path)


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("oracle://me@host/db", r"pip install 'oracledb', and write oracle\+oracledb://"),
        (
            "postgres://me@host/db",
            r"pip install 'psycopg\[binary\]', and write postgresql\+psycopg",
        ),
        ("nonesuch://me@host/db", "URLs begin with .*mysql\\+pymysql://"),
        ("mysql+nonesuch://me@host/db", "pip install 'pymysql', and write mysql"),
    ],
)
def test_a_driver_that_is_not_there_is_told_with_the_cure(url: str, cure: str) -> None:
    with pytest.raises(ConfigError, match=cure):
        SqlSink(url)


SECRET = "sEcret"
URLS = [
    "postgresql+psycopg://u:sEcret@127.0.0.1:1/db",
    "postgresql+psycopg://u:p%40sEcret@127.0.0.1:1/db",
    "postgresql+psycopg://u:p@sEcret@127.0.0.1:1/db",
    "postgresql+psycopg://u:p/sEcret@127.0.0.1:1/db",
    "postgresql+psycopg://u:p?sEcret@127.0.0.1:1/db",
    "postgresql+psycopg://u:p#sEcret@127.0.0.1:1/db",
    "postgresql+psycopg://127.0.0.1:1/db?user=u&password=sEcret",
    "postgresql+psycopg://127.0.0.1:1/db;password=sEcret",
    "postgresql+psycopg://127.0.0.1:1/db&password=sEcret",
    "postgresql+psycopg://u:sEcret:127.0.0.1/db",
    "postgresql+psycopg://u:sEcret/127.0.0.1/db",
    "postgresql+psycopg://u:sEcret@127.0.0.1:port/db",
    "postgresql+psycopg:/u:sEcret@127.0.0.1/db",
    "postgresql:u:sEcret@127.0.0.1/db",
    "mysql+pymysql://u:sEcret@127.0.0.1:1/db",
    "mysql+pymysql://127.0.0.1:1/db?user=u&passwd=sEcret",
    "mysql+pymysql://127.0.0.1:1/db?api_token=sEcret",
    "nonesuch://u:sEcret@host/db",
    "nonesuch+driver://u:p@127.0.0.1:1/db?api_token=sEcret",
    "oracle://u:sEcret@host/db",
    "sqlite+nonesuch://:sEcret@/file.db",
]


@pytest.mark.parametrize("url", URLS)
def test_no_secret_of_a_url_is_shown(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        with pytest.raises(RunTaskError) as caught:
            SqlSink(url)
        error = caught.value
        shown = [repr(error), str(error), "".join(traceback.format_exception(error))]
    assert not any(SECRET in text for text in [*shown, caplog.text])


def test_no_secret_of_a_url_that_works_is_shown(
    tmp_path: Path, mariadb_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    import sqlalchemy

    name = "run_task_secret"
    engine = sqlalchemy.create_engine(mariadb_url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"CREATE USER {name}@'%' IDENTIFIED BY '{SECRET}'"))
        connection.execute(sqlalchemy.text(f"GRANT ALL ON *.* TO {name}@'%'"))
    try:
        with caplog.at_level(logging.DEBUG):
            url = sqlalchemy.make_url(mariadb_url).set(username=name, password=SECRET)
            sink = SqlSink(url.render_as_string(hide_password=False), table="secret")
            sink.begin("p")
            sink.write(Result.of("p", "s", results(60, a=1)))
            sink.flush()
            with engine.begin() as connection:
                connection.execute(sqlalchemy.text("DROP TABLE secret"))
            sink.write(Result.of("p", "s", results(120, a=1)))
            told = [repr(sink), str(sink)]
            for use in (sink.flush, lambda: list(sink.rows()), lambda: sink.last("s"), sink.close):
                with pytest.raises(SinkError, match="secret' doesn't exist") as caught:
                    use()
                told += ["".join(traceback.format_exception(caught.value))]
        assert not any(SECRET in text for text in [*told, caplog.text])
    finally:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text(f"DROP USER {name}@'%'"))
        engine.dispose()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("results.db", "results.db"),
        ("C:\\data\\results.db", "C:\\data\\results.db"),
        ("me@home.csv", "me@home.csv"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("postgresql://u:p@host/db", "postgresql://...@host/db"),
        ("s3://key:p@bucket/x.csv?token=p", "s3://...@bucket/x.csv..."),
        ("https://host:80/x.csv#p", "https://host:80/x.csv..."),
        ("https://u:p:host/x", "https://..."),
        ("mysql:u:p@host", "mysql:...@host"),
        ("postgres//u:p@host/db", "...@host/db"),
        ("https:/host/x.csv?token=p", "https:/host/x.csv..."),
        ("https://host/x.csv%3Ftoken=p", "https://host/x.csv..."),
        ("zip://a.csv::https://u:p@host/a.zip?k=p", "zip://a.csv::https://...@host/a.zip..."),
        ("simplecache::s3://bucket/x.csv", "simplecache::s3://bucket/x.csv"),
        ("mysql://u:p::q@host/db", "mysql://...@host/db"),
    ],
)
def test_urls_as_they_are_shown(url: str, shown: str) -> None:
    assert url_shown(url) == shown
