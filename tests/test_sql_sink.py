from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from run_task import ConfigError, DataSet, SinkError, Window
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
    assert [name for (name,) in keys] == ["pipeline", "stage", "window_end", "task"]
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
    with pytest.raises(ConfigError, match=r"'results' is one of something else, it has no column "):
        SqlSink(path)
    sink = SqlSink(path, table="others")
    sink.begin("p")
    assert list(sink.rows()) == []
    sink.close()


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
    with pytest.raises(ConfigError, match=r'cannot be opened: .*role "nobody_such" does not exist'):
        SqlSink(postgres_url.replace("tester", "nobody_such"))
    import sqlalchemy

    engine = sqlalchemy.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE locked (pipeline TEXT)"))
    engine.dispose()
    with pytest.raises(ConfigError, match="table 'locked' is one of something else"):
        SqlSink(postgres_url, table="locked")
