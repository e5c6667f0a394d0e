"""``run-task recompute``, and what ``run-task replay`` reads of a journal."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from tests.support.commands import run_here

from run_task.cli._exits import Exit
from run_task.sinks import SqlSink

pytest.importorskip("pyarrow")
pytest.importorskip("sqlalchemy")

APP = """
from run_task import *
from run_task.sinks import SqlSink
from run_task.sources import CsvFile

values = TimeSeries({"value": float}, unit=TimeUnit.SECONDS)


@task
def total(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view.in_window["value"].sum())


pipeline = Pipeline("history")
pipeline.source(CsvFile("rows.csv", unit=TimeUnit.SECONDS), into=values)
pipeline.stage("tens", [total], values, "10s").sink(SqlSink("results.db"))
"""

LIVE = """
import time
from run_task import *

values = TimeSeries({"value": float})


def feed():
    for number in range(300):
        yield time.time_ns() // 1_000_000, {"value": float(number)}
        time.sleep(0.001)


@task
def highest(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view.in_window["value"].max(initial=0.0))


pipeline = Pipeline("live")
pipeline.source(feed(), into=values, journal="raw")
pipeline.stage("bars", [highest], values, "100ms")
"""


def totals(folder: Path) -> list[float]:
    with closing(SqlSink(folder / "results.db")) as sink:
        sink.begin("history")
        return [row.value for row in sink.rows("tens")]


def write_rows(folder: Path, factor: int) -> None:
    lines = "".join(f"{second},{factor}\n" for second in range(50))
    (folder / "rows.csv").write_text("timestamp,value\n" + lines)


def test_windows_of_a_stage_are_computed_again(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    write_rows(tmp_path, 1)
    assert run_here("replay", "app.py", "--quiet", cwd=tmp_path).exit_code == Exit.DONE
    write_rows(tmp_path, 3)
    times = "--start", "1970-01-01T00:00:10", "--end", "30"
    done = run_here("recompute", "app.py", "tens", *times, cwd=tmp_path)
    assert done.exit_code == Exit.DONE, done.output
    assert "stage tens: 2 windows computed again in" in done.output
    assert "results.db', table='results'): in the place of 2 rows" in done.output
    assert totals(tmp_path) == [10, 30, 30, 10, 10]
    told = run_here("recompute", "app.py", "hours", cwd=tmp_path)
    assert told.exit_code == Exit.MISTAKE
    assert "recompute('hours'): there is no such stage, but 'tens'" in told.output
    told = run_here("recompute", "app.py", "tens", "--start", "noon", cwd=tmp_path)
    assert told.exit_code == Exit.USAGE
    quiet = run_here("recompute", "app.py", "tens", "--quiet", cwd=tmp_path)
    assert (quiet.exit_code, quiet.output) == (Exit.DONE, "")
    assert totals(tmp_path) == [30] * 5


def test_a_file_has_each_window_once_when_the_command_ends(tmp_path: Path) -> None:
    app = APP.replace('SqlSink("results.db")', 'CsvSink("results.csv", layout=Layout.WIDE)')
    (tmp_path / "app.py").write_text(app.replace("import SqlSink", "import CsvSink, Layout"))
    for factor, command in enumerate(("replay app.py", "recompute app.py tens", "replay app.py")):
        write_rows(tmp_path, factor)
        done = run_here(*command.split(), "--quiet", cwd=tmp_path)
        assert done.exit_code == Exit.DONE, done.output
        _, *lines = (tmp_path / "results.csv").read_text().splitlines()
        assert [float(line.split(",")[2]) for line in lines] == [factor * 10] * 5


def test_a_replay_reads_the_journal_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(LIVE)
    ran = run_here("run", "app.py", "--quiet", cwd=tmp_path)
    assert ran.exit_code == Exit.DONE, ran.output
    done = run_here("replay", "app.py", "--out", "bars.jsonl", cwd=tmp_path)
    assert done.exit_code == Exit.DONE, done.output
    assert "written to bars.jsonl" in done.output
    lines = (tmp_path / "bars.jsonl").read_text().splitlines()
    assert len(lines) >= 3
    assert '"values":{"highest":299.0}' in lines[-1]
