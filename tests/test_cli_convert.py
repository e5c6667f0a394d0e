"""``run-task convert``, on what the version before this format has written."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from run_task import ConfigError, DataSet, TimeUnit, Window
from run_task.sinks import CsvSink, DurableSink, JsonLinesSink, ParquetSink, Result, SqlSink

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("typer")

from typer.testing import CliRunner  # noqa: E402 it comes with an extra

from run_task.cli._app import app  # noqa: E402

HEADER = "pipeline,stage,window_start,window_end,task,value,error,rows\r\n"
ERROR = "task 'bad' gave no result for [0, 60): ValueError: two\nlines, \"quoted\""


def csv_window(pipeline: str, start: int, number: str) -> str:
    key = f"{pipeline},minutes,{start},{start + 60}"
    error = ERROR.replace('"', '""')
    return (
        f"{key},mean,{number},,5\r\n"
        f'{key},text,"""\\u00e9,\\""\\n""",,5\r\n'
        f"{key},nan,NaN,,5\r\n"
        f'{key},list,"[1, -Infinity]",,5\r\n'
        f'{key},bad,,"{error}",5\r\n'
    )


def json_window(pipeline: str, start: int, number: str) -> str:
    return (
        f'{{"pipeline":"{pipeline}","stage":"minutes","window_start":{start},'
        f'"window_end":{start + 60},"values":{{"mean":{number},"text":"\\u00e9,\\"\\n",'
        f'"nan":null,"list":null}},"errors":{{"bad":{json.dumps(ERROR)}}},'
        f'"nonfinite":{{"nan":"NaN","list":"[1, -Infinity]"}}}}\n'
    )


WINDOWS = [("p", 0, "8.5"), ("p", 60, "17.142857142857142"), ("q", 0, "3"), ("p", 0, "9.5")]
"""The last one supersedes the first."""


def columns(pipeline: str, start: int, number: str) -> list[tuple[Any, ...]]:
    key = pipeline, "minutes", start, start + 60
    value = float(number), number if number == "3" else None
    return [
        (*key, "mean", *value, None),
        (*key, "text", None, '"\\u00e9,\\"\\n"', None),
        (*key, "nan", math.nan, "NaN", None),
        (*key, "list", None, "[1, -Infinity]", None),
        (*key, "bad", None, None, ERROR),
    ]


def old_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE results (pipeline TEXT NOT NULL, stage TEXT NOT NULL, window_end BIGINT "
            "NOT NULL, task TEXT NOT NULL, window_start BIGINT NOT NULL, position INTEGER NOT "
            "NULL, value DOUBLE, json TEXT, error TEXT, PRIMARY KEY (pipeline, stage, window_end, "
            "task))"
        )
        for window in WINDOWS[1:]:
            for position, row in enumerate(columns(*window)):
                database.execute(
                    "INSERT INTO results (pipeline, stage, window_start, window_end, task, value, "
                    "json, error, position) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*row, position),
                )


def old_folder(path: Path) -> None:
    path.mkdir()
    text, count = pa.string(), pa.int64()
    names = {"pipeline": text, "stage": text, "window_start": count, "window_end": count}
    names |= {"task": text, "value": pa.float64(), "json": text, "error": text}
    for number, (pipeline, start, mean) in enumerate(WINDOWS, 1):
        metadata = json.dumps([[pipeline, "minutes", start + 60, start + 60]])
        schema = pa.schema(names, metadata={"run_task": metadata})
        rows = [dict(zip(names, row)) for row in columns(pipeline, start, mean)]
        table = pa.Table.from_pylist(rows, schema=schema)
        pq.write_table(table, path / f"{number:010d}-{number:010d}.parquet")


@pytest.fixture
def old(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Something of the old format, of the kind that the parameter names."""
    path = tmp_path / f"old{request.param}"
    match request.param:
        case ".csv":
            whole = HEADER + "".join(csv_window(*window) for window in WINDOWS)
            path.write_bytes((whole + "p,minutes,120,180,mean,1,,5\r\np,minu").encode())
        case ".jsonl":
            whole = "".join(json_window(*window) for window in WINDOWS)
            path.write_text(whole + '{"pipeline":"p","sta')
        case ".db":
            old_table(path)
        case _:
            old_folder(path)
    return path


KINDS = [".csv", ".jsonl", ".db", ""]


def opened(path: Path) -> DurableSink:
    match path.suffix:
        case ".csv":
            return CsvSink(path)
        case ".jsonl":
            return JsonLinesSink(path)
        case ".db":
            return SqlSink(path)
        case _:
            return ParquetSink(path)


def content(path: Path) -> dict[str, bytes]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name: file.read_bytes() for file in files if file.name != ".lock"}


@pytest.mark.parametrize("old", KINDS, indirect=True)
@pytest.mark.parametrize("new", ["new.csv", "new.jsonl", "new.db", "new"])
def test_what_was_stored_is_stored_anew(old: Path, new: str, tmp_path: Path) -> None:
    before = content(old)
    with pytest.raises(ConfigError, match=r"older version of run-task.*run-task convert OLD NEW"):
        opened(old)
    made = tmp_path / new
    if new == "new" and old.suffix:  # a name that says nothing is of the kind of the old one
        made = tmp_path / f"new{old.suffix}"
    run = CliRunner().invoke(app, ["convert", str(old), str(made), "--unit", "s"])
    assert run.exit_code == 0, run.output
    assert run.stdout.endswith(f" windows of 2 pipelines: {made}\n")
    assert content(old) == before
    sink = opened(made)
    sink.begin("p")
    rows = sorted(sink.rows(), key=lambda row: row.end)
    assert {(row.unit, row.key, row.revision, row.bucket) for row in rows} == {
        (TimeUnit.SECONDS, "", 0, 0)
    }
    found = [(row.start, row.end, row.task, repr(row.value), row.error) for row in rows]
    assert found == [
        (start, start + 60, task, value, ERROR if task == "bad" else None)
        for start, mean in ((0, "9.5"), (60, "17.142857142857142"))
        for task, value in (
            ("mean", mean),
            ("text", repr('é,"\n')),
            ("nan", "nan"),
            ("list", "[1, -inf]"),
            ("bad", "None"),
        )
    ]
    assert sink.last("minutes") == 120
    sink.write(Result.of("p", "minutes", DataSet(Window(120, 180), {"mean": 1.0})))
    assert sink.last("minutes") == 180
    sink.close()
    sink = opened(made)
    sink.begin("q")
    row = next(sink.rows())
    assert (row.task, row.value) == ("mean", 3)
    sink.close()


@pytest.mark.parametrize("old", [""], indirect=True)
def test_a_parquet_file_that_a_replay_has_written(old: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    paths = [path for path in sorted(old.iterdir()) if "3" not in path.name]
    tables = [pq.read_table(path).replace_schema_metadata(None) for path in paths]
    pq.write_table(pa.concat_tables(tables), whole)
    new = tmp_path / "new.parquet"
    run = CliRunner().invoke(app, ["convert", str(whole), str(new)])
    assert run.exit_code == 0, run.output
    table = pq.read_table(new)
    assert {"unit", "key", "bucket", "revision"} <= set(table.column_names)
    assert json.loads(table.schema.metadata[b"run_task"])["format"] == 2
    assert table.column("unit").null_count == len(table)


@pytest.mark.parametrize("old", [".db"], indirect=True)
def test_a_table_beside_the_old_one(old: Path) -> None:
    run = CliRunner().invoke(app, ["convert", str(old), str(old)])
    assert run.exit_code == 3
    assert "has a table 'results': give another one by --new-table" in run.stderr
    arguments = ["convert", f"sqlite:///{old}", str(old), "--new-table", "anew", "--unit", "ms"]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0, run.output
    sink = SqlSink(old, table="anew")
    sink.begin("p")
    assert {row.unit for row in sink.rows()} == {TimeUnit.MILLIS}
    sink.close()


@pytest.mark.parametrize("old", [".csv", ".jsonl"], indirect=True)
def test_what_cannot_be_converted_is_refused_and_stays(old: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        run = CliRunner().invoke(app, ["convert", *map(str, arguments)])
        assert run.exit_code == 3, run.output
        return run.stderr

    before = content(old)
    assert "is there: give the name of a new file" in refused(old, old)
    mine = tmp_path / "mine"
    mine.write_text("mine")
    assert "is there: give the name of a new file" in refused(old, mine)
    assert "is nothing that an older version" in refused(mine, tmp_path / "new")
    assert "cannot be read: No such file" in refused(tmp_path / "none", tmp_path / "new")
    assert "is nothing that an older version" in refused(tmp_path, tmp_path / "new")
    assert "--unit h: take ns, us, ms, s or m" in refused(old, tmp_path / "new", "--unit", "h")
    assert "results of 2 pipelines" in refused(old, tmp_path / "new.parquet")
    new = tmp_path / "new"
    CliRunner().invoke(app, ["convert", str(old), str(new)])
    assert "is nothing that an older version" in refused(new, tmp_path / "newer")
    assert content(old) == before
    assert mine.read_text() == "mine"
