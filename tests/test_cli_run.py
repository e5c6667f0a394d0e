"""``run-task run`` and ``replay``, as processes: what comes out, and how they end."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support.commands import HISTORY, IGNORING_CTRL_C, LIVE, run_here, run_task, start
from tests.support.threads import PATIENCE

from run_task.cli._exits import Exit

pq: Any = importlib.import_module("pyarrow.parquet")  # it has no types


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "live.py").write_text(LIVE)
    (tmp_path / "history.py").write_text(HISTORY)
    return tmp_path


def strict(line: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(line, parse_constant=refuse)


def windows(text: str, stage: str) -> list[tuple[int, int]]:
    lines = [strict(line) for line in text.splitlines()]
    return [(w["window_start"], w["window_end"]) for w in lines if w["stage"] == stage]


def tile(found: list[tuple[int, int]]) -> bool:
    return all(before[1] == after[0] for before, after in itertools.pairwise(found))


# What comes out


def test_json_has_nothing_but_datasets_on_the_standard_output(folder: Path) -> None:
    done = run_task("run", "live.py:pipeline", "--json", "--for", "1s", cwd=folder)
    assert done.returncode == 0
    lines = [strict(line) for line in done.stdout.splitlines()]
    first = [line for line in lines if line["stage"] == "first"]
    assert len(first) >= 5
    assert tile(windows(done.stdout, "first"))
    assert tile(windows(done.stdout, "second"))
    assert all(line["pipeline"] == "live" for line in lines)
    # On a busy machine a window may have no readings, and then its mean is NaN, and null.
    means = [line["values"]["mean"] for line in first if "mean" not in line.get("nonfinite", {})]
    assert means
    assert all(0 <= mean <= 1 for mean in means)
    assert "ZeroDivisionError" in first[0]["errors"]["broken"]
    assert "what user code prints" in done.stderr
    assert "WARNING run_task.runner: first: task 'broken'" in done.stderr
    assert "Traceback" not in done.stderr


def test_lines_for_people_go_into_a_pipe(folder: Path) -> None:
    done = run_task(
        "run", "live", "--for", "600ms", "--log-level", "error", cwd=folder, COLUMNS="40"
    )
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) >= 4
    assert any(line.startswith("first [") and "mean=0." in line for line in lines)
    assert any("broken failed: ZeroDivisionError: division by zero" in line for line in lines)
    assert "\x1b" not in done.stdout
    assert "WARNING" not in done.stderr


def test_quiet_shows_nothing_but_the_log(folder: Path) -> None:
    (folder / "quiet.py").write_text(LIVE.replace("print(", "str("))
    done = run_task("run", "quiet.py", "-q", "--for", "500ms", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "")
    assert all(" WARNING " in line for line in done.stderr.splitlines())
    done = run_task("run", "quiet.py", "-q", "--for", "500ms", "--log-level", "error", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_run_ends_when_its_sources_do(folder: Path) -> None:
    (folder / "paced.py").write_text(
        f"{HISTORY}\nfrom run_task.sources import paced\n"
        "pipeline = Pipeline('paced')\n"
        "pipeline.source(paced([(t, {'value': 1.0}) for t in range(100)], 100,"
        " unit=TimeUnit.SECONDS), into=values)\n"
        "pipeline.stage('tens', [total], values, TaskInterval.seconds(10))\n"
    )
    done = run_task("run", "paced.py:pipeline", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert windows(done.stdout, "tens") == [(t, t + 10) for t in range(0, 100, 10)]


def test_worker_processes_find_the_tasks_of_a_file(folder: Path) -> None:
    (folder / "workers.py").write_text(
        LIVE.replace(
            "[mean, broken], readings, TaskInterval.millis(100)",
            "[mean, broken], readings, TaskInterval.millis(100),"
            " RunnerConfig(executor='processes', workers=1)",
        ).replace("return 1 / 0", "print('a worker prints'); return 1 / 0")
    )
    with start("run", "workers.py", "--json", cwd=folder) as process:
        assert process.stdout is not None
        for line in process.stdout:
            window = strict(line)
            if window["stage"] == "first" and "mean" in window["values"]:
                break
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=PATIENCE * 3)
    assert process.returncode == 0, err
    assert all(strict(line) for line in rest.splitlines())
    assert "a worker prints" in err


# How it ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_a_run_well(number: signal.Signals, folder: Path) -> None:
    with start("run", "live.py", "--json", cwd=folder) as process:
        assert process.stdout is not None
        seen = process.stdout.readline()
        process.send_signal(number)
        # communicate() would leave out what was read together with the first line.
        with ThreadPoolExecutor(1) as beside:
            lines = beside.submit(process.stdout.read)
            assert process.stderr is not None
            err = process.stderr.read()
        process.wait(PATIENCE)
    assert process.returncode == 0, err
    assert tile(windows(seen + lines.result(), "first"))
    assert "Traceback" not in err


def test_a_ctrl_c_that_is_ignored_stays_ignored(folder: Path) -> None:
    with start("run", "live.py", "--json", cwd=folder, wrapper=IGNORING_CTRL_C) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        seen = [process.stdout.readline() for _ in range(20)]
        assert all(seen), "it goes on"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_a_replay_ignores_a_ctrl_c_that_is_ignored(folder: Path) -> None:
    (folder / "slow.py").write_text(
        "import os, signal\n"
        + HISTORY.replace(
            "    return float", "    os.kill(os.getpid(), signal.SIGINT)\n    return float"
        )
    )
    with start("replay", "slow.py", cwd=folder, wrapper=IGNORING_CTRL_C) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "10 windows in " in out


def test_the_second_ctrl_c_ends_it_at_once(folder: Path) -> None:
    (folder / "hung.py").write_text(
        f"""{LIVE}
import pathlib, threading

@task
def hang(view: TimeSeriesView, start: int, end: int) -> None:
    pathlib.Path("hangs").touch()
    threading.Event().wait()

pipeline.stage("third", [hang], readings, TaskInterval.millis(100),
               RunnerConfig(shutdown_timeout=600.0))
"""
    )
    with start("run", "hung.py", "-q", cwd=folder) as process:
        wait_for(folder / "hangs")
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)  # it waits for the task
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=PATIENCE)
        finally:
            process.kill()  # else the block would wait for it forever
    assert process.returncode == Exit.INTERRUPTED
    assert time.monotonic() - began < PATIENCE / 2


def test_ctrl_c_while_the_file_is_read(folder: Path) -> None:
    (folder / "slow.py").write_text(
        "import pathlib, time\npathlib.Path('reads').touch()\ntime.sleep(600)\n"
    )
    with start("run", "slow.py", cwd=folder) as process:
        wait_for(folder / "reads")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == Exit.INTERRUPTED
    assert "Traceback" not in err


def test_who_stops_reading_ends_it_well(folder: Path) -> None:
    with start("run", "live.py", "--json", cwd=folder) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert "BrokenPipe" not in process.stderr.read()


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (
            (
                "def rows():\n    yield 1, {'value': 1.0}\n    raise OSError('unplugged')\n"
                "pipeline.source(rows(), into=readings)\n"
            ),
            ["    raise OSError('unplugged')\nOSError: unplugged\n", "in the source"],
        ),
        (
            (
                "from run_task.sinks import CallbackSink\n"
                "def write(stage, dataset):\n    raise OSError('disk full')\n"
                "first.sink(CallbackSink(write))\n"
            ),
            ["    raise OSError('disk full')\nOSError: disk full"],
        ),
        (
            (
                "from run_task.sources import OnFault\n"
                "def keep(data, dataset):\n    data.append('now')\n"
                "first.into(means, keep, on_bad_result=OnFault.RAISE)\n"
            ),
            ["    data.append('now')\n", "in the ingest of stage 'first'"],
        ),
        (
            (
                "pipeline.stage('third', [broken], readings, TaskInterval.millis(100),\n"
                "    RunnerConfig(on_error=OnError.RAISE))\n"
            ),
            ["    return 1 / 0\n", "task 'broken' gave no result", "ZeroDivisionError"],
        ),
    ],
    ids=["source", "sink", "ingest", "task"],
)
def test_a_failure_is_told_by_its_place(broken: str, told: list[str], folder: Path) -> None:
    (folder / "app.py").write_text(LIVE + broken)
    done = run_task("run", "app.py", "--json", "--for", "1s", cwd=folder)
    assert done.returncode == Exit.FAILED, done.stderr
    for part in told:
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert "run_task/" not in done.stderr


def test_a_result_that_no_json_tells_is_left_out_and_told(folder: Path) -> None:
    (folder / "app.py").write_text(
        LIVE
        + "@task\ndef odd(view: TimeSeriesView, start: int, end: int) -> object:\n"
        + "    return object()\n"
        + "pipeline.stage('third', [odd], readings, TaskInterval.millis(100))\n"
    )
    done = run_task("run", "app.py", "--json", "--for", "1s", cwd=folder)
    assert done.returncode == Exit.DONE, done.stderr
    stages = {json.loads(line)["stage"] for line in done.stdout.splitlines()}
    assert "first" in stages
    assert "third" not in stages
    assert "task 'odd'" in done.stderr
    assert "return numbers, texts, lists and dicts of these" in done.stderr
    assert "more results" in done.stderr  # one record for the first, one for all others


# Replay


def test_a_replay_is_summed_up(folder: Path) -> None:
    done = run_here("replay", "history.py:pipeline", cwd=folder)
    assert done.exit_code == 0
    assert done.stderr == ""
    head, stage, total = done.stdout.splitlines()
    assert head.split() == ["stage", "windows", "results", "failed"]
    assert stage.split() == ["tens", "10", "19", "1"]
    assert total.startswith("10 windows in ")
    quiet = run_here("replay", "history.py:pipeline", "--quiet", cwd=folder)
    assert (quiet.exit_code, quiet.output) == (0, "")


@pytest.mark.parametrize(
    ("start", "end"), [("20", "50"), ("1970-01-01T00:00:20", "1970-01-01T01:00:50+01:00")]
)
@pytest.mark.parametrize("out", ["r.parquet", "r.csv", "r.jsonl", "r.db"])
def test_a_part_of_history_goes_into_a_file(out: str, start: str, end: str, folder: Path) -> None:
    for _ in range(2):  # the second time, it is there already
        done = run_here(
            "replay", "history.py", "--start", start, "--end", end, "--out", out, cwd=folder
        )
        assert done.exit_code == 0, done.output
        assert done.stdout.splitlines()[-1] == f"written to {out}"
    totals = {30: 245.0, 40: 345.0, 50: 445.0}
    assert totals_in(folder / out) == totals
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def totals_in(path: Path) -> dict[int, float]:
    """What ``total`` gave, by the end of the window."""
    match path.suffix:
        case ".parquet":
            rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        case ".csv":
            head, *lines = [line.split(",") for line in path.read_text().splitlines()]
            rows = [dict(zip(head, line, strict=False)) for line in lines]
        case ".jsonl":
            return {
                window["window_end"]: window["values"]["total"]
                for window in map(strict, path.read_text().splitlines())
            }
        case _:
            with sqlite3.connect(path) as connection:
                connection.row_factory = sqlite3.Row
                rows = [dict(row) for row in connection.execute("select * from results")]
            connection.close()
    found = [(int(r["window_end"]), float(r["value"])) for r in rows if r["task"] == "total"]
    assert len(found) == len(dict(found))
    return dict(found)


def test_a_parquet_file_of_no_windows(folder: Path) -> None:
    done = run_here("replay", "history.py", "--start", "5000", "--out", "r.parquet", cwd=folder)
    assert done.exit_code == 0
    assert pq.read_table(folder / "r.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["history.py", "--out", "results"], "end it with .parquet, .csv, .jsonl or .db"),
        (["history.py", "--out", "nowhere/r.parquet"], "nowhere"),
        (["history.py", "--out", "nowhere/r.csv"], "nowhere"),
        (["live.py"], "it has no history"),
        (["history.py", "--start", "50", "--end", "20"], "start=50 is after end=20"),
        (
            ["history.py", "--start", "2024-01-02", "--end", "2024-01-01"],
            "start=2024-01-02 00:00:00+00:00 is after end=2024-01-01 00:00:00+00:00",
        ),
    ],
)
def test_a_replay_that_cannot_begin(arguments: list[str], told: str, folder: Path) -> None:
    done = run_here("replay", *arguments, cwd=folder)
    assert done.exit_code == Exit.MISTAKE
    assert told in done.stderr
    assert ", line " not in done.stderr  # neither of ours nor of Python's own
    assert done.stdout == ""
    left = {path.name for path in folder.iterdir()} - {"__pycache__"}
    assert left == {"history.py", "live.py"}


def test_ctrl_c_ends_a_replay_and_tells_how_far_it_was(folder: Path) -> None:
    (folder / "long.py").write_text(
        """
import itertools, pathlib
from run_task import *

values = TimeSeries({"value": float}, unit=TimeUnit.SECONDS, retention=1000)

def rows():
    for t in itertools.count():
        if t == 1000:
            pathlib.Path("runs").touch()
        yield t, {"value": 1.0}

@task
def count(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.between(start, end))

pipeline = Pipeline("long")
pipeline.source(rows(), into=values)
pipeline.stage("tens", [count], values, TaskInterval.seconds(10))
"""
    )
    with start("replay", "long.py", "--out", "r.parquet", cwd=folder) as process:
        wait_for(folder / "runs")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == Exit.INTERRUPTED
    assert re.search(r"\d windows? in ", out)
    assert "written" not in out
    assert err == ""
    left = [path.name for path in folder.iterdir() if "parquet" in path.name]
    assert left == []


def test_a_ctrl_c_that_is_swallowed_ends_a_replay_all_the_same(folder: Path) -> None:
    (folder / "deaf.py").write_text(
        HISTORY.replace(
            '    return float(view.between(start, end)["value"].sum())',
            """
    import os, signal
    try:
        if start == 50:
            os.kill(os.getpid(), signal.SIGINT)
            import time
            time.sleep(60)
    except KeyboardInterrupt:
        pass
    return 0.0
""",
        ).replace(
            "TaskInterval.seconds(10))",
            "TaskInterval.seconds(10), RunnerConfig(executor='inline'))",
        )
    )
    done = run_task("replay", "deaf.py", "--out", "r.parquet", cwd=folder)
    assert done.returncode == Exit.INTERRUPTED, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].startswith("6 windows in ")


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE * 2
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_demo_runs(tmp_path: Path) -> None:
    done = run_task("demo", "--json", "--for", "2s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    last = strict(done.stdout.splitlines()[-1])
    assert last["errors"] == {}
    assert {strict(line)["stage"] for line in done.stdout.splitlines()} == {"second", "minute"}
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("start", "zone"),
    [
        ("1970-01-01T00:00:50Z", "Asia/Tokyo"),
        ("1970-01-01T09:00:50", "Asia/Tokyo"),
        ("1970-01-01T00:00:50", "UTC"),
        ("50", "Asia/Tokyo"),
    ],
)
def test_times_of_the_command_line_are_in_the_zone_that_is_said(
    start: str, zone: str, folder: Path
) -> None:
    done = run_here(
        "replay", "history.py", "--start", start, "--zone", zone, "--out", "r.jsonl", cwd=folder
    )
    assert done.exit_code == 0, done.output
    assert min(totals_in(folder / "r.jsonl")) == 60
    done = run_here("replay", "history.py", "--start", start, "--zone", "Mars", cwd=folder)
    assert done.exit_code == Exit.USAGE
    assert "--zone" in done.stderr
