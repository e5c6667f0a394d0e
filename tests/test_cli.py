"""What a person types, and is told."""

from __future__ import annotations

import importlib.metadata
import math
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tests.conftest import ROOT
from tests.support.commands import HISTORY, LIVE, RUN_TASK, run_here, run_task
from typer.testing import CliRunner

import run_task as library
from run_task import TaskError, Window
from run_task.cli import main
from run_task.cli._app import app
from run_task.cli._exits import EPILOG, Exit
from run_task.cli._sparkline import sparkline
from run_task.observe._format import elapsed, error_shown, named, seconds, shown

runner = CliRunner()
COMMANDS = ("run", "replay", "recompute", "check", "demo", "new")


def words(text: str) -> str:
    """A text without what lays it out."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text).split())


def test_the_package_installs_the_command() -> None:
    (found,) = importlib.metadata.entry_points(group="console_scripts", name="run-task")
    assert found.value == "run_task.cli:main"


def test_the_version() -> None:
    done = runner.invoke(app, ["--version"])
    assert done.exit_code == 0
    assert done.output == f"run-task {library.__version__}\n"


def test_the_help_names_every_command_and_exit_code() -> None:
    told = words(runner.invoke(app, ["--help"]).output)
    for name in COMMANDS:
        assert f" {name} " in told
    for code in Exit:
        assert re.search(rf"\b{code.value}\b", EPILOG)
    for arguments in (["--help"], *([name, "--help"] for name in COMMANDS)):
        done = runner.invoke(app, arguments)
        assert done.exit_code == 0
        assert words(EPILOG) in words(done.output)


def test_the_manual_has_every_command_option_and_exit_code() -> None:
    manual = (ROOT / "docs/reference/cli.md").read_text()
    for name in COMMANDS:
        assert f"`run-task {name}" in manual
        for option in set(re.findall(r"--[a-z-]+", words(runner.invoke(app, [name, "-h"]).output))):
            assert f"`{option}" in manual, f"{option} of {name}"
    for code in Exit:
        assert f"| {code.value} |" in manual


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["walk"], "walk"),
        (["run"], "TARGET"),
        (["run", "app.py", "--for", "soon"], "soon"),
        (["run", "app.py", "--for", "0s"], "positive"),
        (["run", "app.py", "--json", "--quiet"], "contradict"),
        (["run", "app.py", "--log-level", "loud"], "loud"),
        (["replay", "app.py", "--start", "noon"], "noon"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], complaint: str) -> None:
    done = runner.invoke(app, arguments)
    assert done.exit_code == Exit.USAGE
    assert complaint in words(done.output)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, tmp_path: Path) -> None:
    script = run_task(
        "--show-completion", shell, cwd=tmp_path, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    assert script.returncode == 0
    assert "_RUN_TASK_COMPLETE" in script.stdout
    (tmp_path / "app.py").touch()
    (tmp_path / "apples.txt").touch()
    (tmp_path / "apps").mkdir()

    def completed(*typed: str) -> list[str]:
        line = " ".join(("run-task", *typed))
        done = run_task(
            cwd=tmp_path,
            _RUN_TASK_COMPLETE=f"complete_{shell}",
            COMP_WORDS=line,
            COMP_CWORD=str(len(typed)),
            _TYPER_COMPLETE_ARGS=line,
            _TYPER_COMPLETE_FISH_ACTION="get-args",
        )
        assert done.stderr == ""
        return re.findall(r"[a-z][a-z./]*", done.stdout)

    assert "replay" in completed("rep")
    files = completed("run", "app")
    assert "app.py" in files
    assert "apps/" in files
    assert "apples.txt" not in files


# Start-up


def test_help_is_there_at_once(tmp_path: Path) -> None:
    took: list[float] = []
    floor: list[float] = []
    # 300 ms are promised of an idle machine, and this one may be as busy as can be: then NumPy,
    # which is a third of it, takes its time, too.
    while not took or min(took) >= max(1.5, 6 * min(floor)):
        assert len(took) < 5
        began = time.perf_counter()
        done = run_task("--help", cwd=tmp_path)
        took.append(time.perf_counter() - began)
        assert done.returncode == 0
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import numpy"], check=True)
        floor.append(time.perf_counter() - began)


def test_help_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *RUN_TASK[1:], "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    needless = {"pyarrow", "polars", "pandas", "sqlalchemy", "psutil", "cloudpickle", "rich"}
    assert not imported & needless
    assert not {name for name in imported if name.startswith("run_task.cli.")} - {
        "run_task.cli._app",
        "run_task.cli._completion",
        "run_task.cli._exits",
        "run_task.cli._rows_from",
    }


# Mistakes


def test_the_place_of_a_mistake_is_told_and_nothing_of_ours(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(f"{LIVE}\npipeline.stage('third', [mean, mean], readings)\n")
    line = LIVE.count("\n") + 2
    for command in ("run", "replay", "check"):
        done = run_here(command, "app.py:pipeline", cwd=tmp_path)
        assert done.exit_code == Exit.MISTAKE
        assert f"app.py, line {line}\n" in done.stderr
        assert "pipeline.stage('third', [mean, mean], readings)" in done.stderr
        assert "two tasks are called 'mean'" in done.stderr
        assert "rename one of them" in done.stderr
        assert "Traceback" not in done.stderr
        assert "run_task/" not in done.stderr


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def f(:\n", ["app.py, line 1\n    def f(:\n", "SyntaxError: ", "correct it"]),
        ("import nowhere_to_be_found\n", ["app.py, line 1", "Install what has the module"]),
        (
            "import json\njson.loads('{')\n",
            ["app.py, line 2\n    json.loads('{')\nJSONDecodeError"],
        ),
        ("def f(n):\n    f(n + 1)\nf(0)\n", ["more lines of your files", "RecursionError"]),
        ("import sys\nsys.exit('no')\n", ["app.py, line 2", "SystemExit: no"]),
        ("x = 1\n", ["no 'pipeline' in it", "none"]),
        (
            "piepline = 1\nx = pipline\n",
            ["NameError", "Did you mean: 'piepline'?" if sys.version_info >= (3, 12) else ""],
        ),
        ("pipeline = 3\n", ["no Pipeline but a int"]),
        ("from run_task import Pipeline\npipeline = Pipeline('empty')\n", ["has no stages"]),
    ],
)
def test_mistakes_in_a_file(source: str, told: list[str], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(source)
    for command in ("run", "check"):
        done = run_here(command, "app.py:pipeline", cwd=tmp_path)
        assert done.exit_code == Exit.MISTAKE
        for part in told:
            assert part in done.stderr
        assert "Traceback" not in done.stderr
        assert "run_task/" not in done.stderr
        assert len(done.stderr.splitlines()) < 25


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("nothing.py:pipeline", "there is no file 'nothing.py' here, in "),
        ("histroy.py:pipeline", "did you mean 'history.py'?"),
        ("./package/innr.py", "did you mean 'package/inner.py'?"),
        ("/nowhere/app.py", "there is no file '/nowhere/app.py'\n"),
        ("package/", "'package' is a folder: name a file in it"),
        ("notes.txt", "'notes.txt' is no Python file"),
        ("package/inner.py", "there is no pipeline in it: make one"),
        ("nothing:pipeline", "there is no module 'nothing'"),
        ("package.nothing:pipeline", "there is no module 'package.nothing'"),
        ("history.py:other", "its pipelines: history.py:pipeline"),
        ("history.py:a.b", "'a.b' is no name of a variable"),
        ("a b", "names no pipeline"),
        ("my-file.py:pipeline", "cannot be imported as 'my-file'"),
        ("json.py:pipeline", "is a module of Python's"),
        ("two.py", "say which pipeline of it you mean"),
    ],
)
def test_targets_that_are_none(target: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "history.py").write_text(HISTORY)
    (tmp_path / "my-file.py").write_text(HISTORY)
    (tmp_path / "json.py").write_text(HISTORY)
    (tmp_path / "two.py").write_text(f"{HISTORY}\nother = Pipeline('other')\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "package/__init__.py").touch()
    (tmp_path / "package/inner.py").touch()
    done = run_here("check", target, cwd=tmp_path)
    assert done.exit_code == Exit.MISTAKE
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "target",
    [
        "history.py:pipeline",
        "history.py",
        "history:pipeline",
        "history",
        "package/inner.py:pipeline",
        "package.inner:pipeline",
        "./package/inner.py",
    ],
)
def test_targets(target: str, tmp_path: Path) -> None:
    (tmp_path / "history.py").write_text(HISTORY)
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__init__.py").touch()
    (tmp_path / "package/parts.py").write_text(HISTORY)
    (tmp_path / "package/inner.py").write_text("from .parts import pipeline\n")
    for command in ("check", "replay"):
        done = run_here(command, target, cwd=tmp_path)
        assert done.exit_code == 0, done.stderr
        assert "tens" in done.stdout


# Check


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (range(100), None),
        (range(100, 0, -1), "99 of the first 100 rows are older than rows before them"),
        (["31.12.2024"] * 3, "3 of the first 3 rows are malformed: the likely cause is the format"),
        ([4 * 10**9] * 3, "3 of the first 3 rows are stamped after the present"),
    ],
)
def test_the_first_rows_of_files_are_looked_at(
    rows: Iterable[object], told: str | None, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("timestamp,v\n" + "".join(f"{row},1\n" for row in rows))
    (tmp_path / "app.py").write_text(
        """
from run_task import Pipeline, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.sources import CsvFile

@task
def rows(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view)

series = TimeSeries({"v": float}, TimeUnit.SECONDS)
pipeline = Pipeline("p").source(CsvFile("rows.csv", unit=TimeUnit.SECONDS), into=series)
pipeline.stage("a", [rows], series, "60s")
"""
    )
    done = run_here("check", "app.py", cwd=tmp_path)
    assert done.exit_code == 0
    if told is None:
        assert done.stderr == ""
    else:
        assert told in done.stderr


def test_a_pipeline_is_drawn_as_a_tree_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(LIVE)
    done = run_here("check", "app.py:pipeline", cwd=tmp_path)
    assert done.exit_code == 0
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "pipeline live",
        "├── source polling(read)",
        "│   └── feeds first",
        "├── stage first, every 100ms, threads",
        "│   ├── reads TimeSeriesView of value float64; time in ms",
        "│   ├── task mean: TimeSeriesView -> float",
        "│   ├── task broken: TimeSeriesView -> float",
        "│   └── feeds second",
        "└── stage second, every 100ms, threads",
        "    ├── reads TimeSeriesView of mean float64; time in ms",
        "    └── task newest: TimeSeriesView -> float",
    ]


SEVERAL = """
from run_task import *

trades = TimeSeries({"price": float}, TimeUnit.SECONDS)
highest = Atom(0.0)
own = TimeSeries({"over": int}, TimeUnit.SECONDS, closed=Closed.RIGHT)

def keep(atom, row):
    atom.reset(row["price"])

@task
def over(data: tuple[TimeSeriesView, float, TimeSeriesView], start: int, end: int) -> int:
    return len(data[0])

pipeline = Pipeline("several")
pipeline.source([(1, {"price": 2.0})], into=(trades, highest), ingest=(None, keep))
stage = pipeline.stage("a", [over], (trades, highest, own), "10s").into(own)
"""


def test_several_inputs_are_drawn_and_looked_at(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SEVERAL)
    done = run_here("check", "app.py:pipeline", cwd=tmp_path)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:4] == [
        "├── source list of 1",
        "│   └── feeds a",
        "└── stage a, every 10s, threads",
    ]
    assert "reads (TimeSeriesView of price float64; time in s), (float)" in done.stdout
    assert "reads what it gave before" in done.stdout
    wrong = "\n@task\ndef one(view: TimeSeriesView, start: int, end: int) -> int:\n    return 1\n"
    stage = 'pipeline.stage("b", [one], (trades, highest), "10s")'
    (tmp_path / "app.py").write_text(f"{SEVERAL}{wrong}\n{stage}\n")
    done = run_here("check", "app.py:pipeline", cwd=tmp_path)
    assert done.exit_code != 0
    assert "task 'one': it takes TimeSeriesView, and the data of its stage gives" in done.stderr


def test_a_wrapper_is_called_with_its_own_parameters(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        """
import functools
from run_task import *

def of_rows(function):
    @functools.wraps(function)
    def run(view, start, end):
        return function(view.between(start, end))
    return run

@task
@of_rows
def rows(view: TimeSeriesView) -> int:
    return len(view)

pipeline = Pipeline("app")
data = TimeSeries({"value": int})
pipeline.source([(1, {"value": 1})], into=data)
pipeline.stage("all", [rows], data, TaskInterval.millis(1))
"""
    )
    done = run_here("check", "app.py", cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "task rows: TimeSeriesView -> int" in done.stdout


def test_every_mistake_is_told(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        """\
from run_task import *
from run_task.sources import CsvFile
import nowhere_to_be_found

good = TimeSeries({"value": float})
bad = TimeSeries({"value": complex})
config = RunnerConfig(workers=0)

@task
def mean(view: TimeSeriesView, start: int, end: int) -> float:
    return 1.0

@task
def wrong(values: list[float], start: int, end: int) -> float:
    return 1.0

@task
def short(view: TimeSeriesView, start: int) -> float:
    return 1.0

pipeline = Pipeline("app")
pipeline.source(CsvFile("missing.csv"), into=good)
pipeline.source([(1, {"value": 1})], into=bad)
first = pipeline.stage("first", [mean, mean], good, TaskInterval.millis(1), config)
second = pipeline.stage("second", [mean, mean], good, TaskInterval.millis(1))
second.into(good, print)
third = pipeline.stage("third", [mean, wrong, short], good, TaskInterval.millis(1))
"""
    )
    done = run_here("check", "app.py:pipeline", cwd=tmp_path)
    assert done.exit_code == Exit.MISTAKE
    assert "task mean: TimeSeriesView -> float" in done.stdout
    count, *mistakes = re.split(r"\n\n\d+\. ", done.stderr)
    assert count == "7 mistakes"
    for line, mistake in zip((3, 6, 7, 22, 25), mistakes, strict=False):
        assert mistake.startswith(f"app.py, line {line}\n")
    assert "'wrong': it takes list[float]" in mistakes[5]
    assert "'short': it cannot be called with (data, start, end)" in mistakes[6]


def test_tasks_with_a_state_are_drawn_with_their_types_and_checked(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        """
from run_task import Pipeline, TimeSeries, TimeSeriesView, task

series = TimeSeries({"value": float})

@task(state=float)
def average(view: TimeSeriesView, start: int, end: int, last: float) -> tuple[bool, float]:
    return True, last

@task(state=int)
def wrong(values: list[float], start: int, end: int, state: int) -> tuple[str, int]:
    return "", state

@task(state=int)
def short(view: TimeSeriesView, start: int, end: int) -> tuple[str, int]:
    return "", 0

pipeline = Pipeline("app").source([(1, {"value": 1.0})], series, name="recorded")
pipeline.stage("first", [average, wrong, short], series, "1s")
"""
    )
    done = run_here("check", "app.py", cwd=tmp_path)
    assert done.exit_code == Exit.MISTAKE
    assert "source recorded, list of 1" in done.stdout
    assert "task average: TimeSeriesView -> bool" in done.stdout
    count, *mistakes = re.split(r"\n\n\d+\. ", done.stderr)
    assert count == "2 mistakes"
    assert "'wrong': it takes list[float]" in mistakes[0]
    assert "'short': it cannot be called with (data, start, end, state)" in mistakes[1]


def test_check_tells_what_aggregates_give_of_the_columns_that_they_read(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("""
from run_task import Pipeline, TimeSeries
from run_task.aggregates import count, last, max, ohlc

trades = TimeSeries({"symbol": str, "price": float, "size": int})
pipeline = Pipeline("trades")
pipeline.source([], into=trades)
tasks = [count(), last("symbol"), max("size"), max("price"), ohlc("price")]
pipeline.stage("bars", tasks, trades, "1s")
""")
    done = run_here("check", "app.py", cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    for told in ("count", "symbol_last", "size_max", "price_max", "price_ohlc"):
        assert f"task {told}: TimeSeriesView -> " in done.stdout
    gives = [line.rpartition(" -> ")[2] for line in done.stdout.splitlines() if " -> " in line]
    assert gives == ["int", "str", "int | None", "float | None", "Ohlc | None"]


def test_check_tells_what_alerts_give_and_what_is_kept_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setenv("COLUMNS", "1000")
    (tmp_path / "app.py").write_text("""
from run_task import Pipeline, Retry, TimeSeries, alert
from run_task.sinks import JsonLinesSink

trades = TimeSeries({"id": int, "price": float})
pipeline = Pipeline("trades", checkpoint="state/", checkpoint_every="5s")
retry = Retry(attempts=9)

def feed():
    yield 1, {"id": 1, "price": 1.0}

pipeline.source(
    feed, into=trades, name="feed", journal="raw/", dedupe="id", retry=retry,
    dead_letters=JsonLinesSink("bad.jsonl"),
)
stage = pipeline.stage("hot", [alert(lambda v, s, e: True, name="dear")], trades, "1s")
stage.sink(JsonLinesSink("out.jsonl"), retry=retry, spool="spool/")
""")
    done = run_here("check", "app.py", cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "pipeline trades, checkpoint every 5 s in " in told
    assert "source feed, " in told
    assert "raw'), tried up to 9 times" in told
    assert ", without rows that come again by id for 10m, waited for" in told
    assert ", has dead letters" in told
    assert "task dear: Any -> Alert" in told
    assert "), tried up to 9 times, spool 'spool/'" in told


def test_a_ctrl_c_before_the_commands_are_there_prints_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "run_task.cli._app", Interrupted("run_task.cli._app"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == Exit.INTERRUPTED


def test_every_mistake_in_how_things_are_wired_is_told(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        f"""{HISTORY}
unread = TimeSeries({{"value": float}})
pipeline.source([(1, {{"value": 1.0}})], into=unread)
pipeline.source([(1, {{"value": 1.0}})], into=unread)
"""
    )
    done = run_here("check", "app.py:pipeline", cwd=tmp_path)
    assert done.exit_code == Exit.MISTAKE
    assert done.stderr.startswith("2 mistakes\n")
    assert done.stderr.count("no stage reads") == 2


# How things are shown


def test_a_sparkline() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 3) == "▁▅█"
    assert sparkline([5, 5], 4) == "  ▁▁"
    assert sparkline([1, math.nan, 2, math.inf], 4) == "▁ █ "
    assert sparkline([], 3) == "   "
    assert sparkline([math.nan], 3) == "   "
    assert sparkline([-1.7e308, 1.7e308, 0.0], 3) == "▁█▅"
    assert sparkline([0.0, 5e-324], 2)[0] == "▁"
    assert sparkline([1, 2], 0) == ""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class Unprintable:
    def __str__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (1234567, "1,234,567"),
        (10**400, "about 2^1328"),
        (True, "True"),
        (1234.56789, "1,234.57"),
        (math.nan, "nan"),
        (np.float64(2.5), "2.5"),
        (np.int32(7), "7"),
        ("two\nlines\x1b[31m", "two lines [31m"),
        ([1, 2], "[1, 2]"),
        (list(range(10**6)), "list of 1,000,000"),
        (Unprintable(), "<Unprintable whose str() raises ZeroDivisionError>"),
    ],
)
def test_values_are_shown_on_one_line(value: object, text: str) -> None:
    assert shown(value) == text


def test_times_and_names_and_errors_are_shown() -> None:
    assert [seconds(s) for s in (0.0, 12e-6, 234e-6, 1.5e-3, 0.25, 2.5, 1000)] == [
        "0 s", "12 µs", "234 µs", "1.5 ms", "250 ms", "2.5 s", "1,000 s",
    ]  # fmt: skip
    assert elapsed(3725.9) == "1:02:05"
    assert named([1, 2]) == "list of 2"
    assert named(object()) == "object"

    def readings() -> Iterator[int]:
        yield 1

    async def prices() -> AsyncIterator[int]:
        yield 1

    assert (named(readings()), named(prices())) == ("readings()", "prices()")
    assert named(Window(1, 2)) == "Window(start=1, end=2)"
    error = TaskError("t", Window(0, 1))
    assert "it failed" in error_shown(error)
    error.__cause__ = ZeroDivisionError()
    assert error_shown(error) == "ZeroDivisionError"
    error.__cause__ = Unspeakable()
    assert error_shown(error).endswith("<Unspeakable whose str() raises ZeroDivisionError>")


def test_check_warns_of_what_need_not_be_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        """
from run_task import *

@task
def count(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.between(start, end))

values = TimeSeries({"value": float}, TimeUnit.MILLIS, retention="1s")
pipeline = Pipeline("p").source([(1, {"value": 1.0})], into=values)
pipeline.stage("a", [count], values, "5s")
"""
    )
    done = run_here("check", "app.py", cwd=tmp_path)
    assert done.exit_code == 0
    assert "stage a, every 5s" in done.stdout
    assert done.stderr.startswith("warning: stage 'a': its windows reach back 5s, its data keep")
    assert len(done.stderr.splitlines()) == 1
