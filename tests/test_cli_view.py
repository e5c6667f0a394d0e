"""The live view: on a terminal, and drawn by itself at any width."""

from __future__ import annotations

import io
import math
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console
from tests.support.commands import LIVE, RUN_TASK
from tests.support.threads import PATIENCE

from run_task import (
    DataSet,
    Pipeline,
    Retry,
    RwLock,
    Task,
    TaskError,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    Window,
    task,
)
from run_task.cli._exits import Exit
from run_task.cli._screen import Screen, State, view
from run_task.pipeline._monitor import HISTORY, Monitor
from run_task.pipeline._numbers import as_number
from run_task.sinks import CallbackSink

WIDTHS = (60, 80, 200)

ENVIRONMENT = {"TERM": "xterm-256color"}
"""Of a terminal that the tests draw on, whatever the one that they run in can do."""


class OnTerminal:
    """The command on a terminal of its own, and what it has drawn."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process = process
        self.terminal = terminal
        self.seen = ""

    def wait_for(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + PATIENCE * 2
        while (found := re.search(pattern, self.seen, re.DOTALL)) is None:
            assert time.monotonic() < deadline, self.seen
            assert self.read(), self.seen
        return found

    def read(self) -> bool:
        """Read on. Returns whether there may be more."""
        if not select.select([self.terminal], [], [], PATIENCE * 2)[0]:
            return False
        try:
            part = os.read(self.terminal, 65536)
        except OSError:  # Linux says so when the other side is closed
            return False
        self.seen += part.decode(errors="replace")
        return bool(part)

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.terminal)[3] & termios.ECHO)

    def end(self) -> int:
        while self.read():
            pass
        return self.process.wait(PATIENCE)


@contextmanager
def on_terminal(*arguments: str, cwd: Path, columns: int = 80) -> Generator[OnTerminal]:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, columns))
    process = subprocess.Popen(
        [*RUN_TASK, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        | ENVIRONMENT,
        start_new_session=True,
    )
    try:
        yield OnTerminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(theirs)
        os.close(ours)


def test_the_view_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "live.py").write_text(LIVE.replace("print(", "str("))
    with on_terminal("run", "live.py", cwd=tmp_path) as shown:
        assert shown.echoes
        for seen in (
            "Ctrl-C shuts it down",
            r"polling\(read\) +\d\d+ +\d\d\.\d",  # rows, and rows a second
            r"first +100ms +\d+ +\d+",
            r"first / mean +0\.\d+",
            "no result",
            "[▁▂▃▄▅▆▇█]{5}",
            "latest errors",
            r"first / broken .*ZeroDivisionError: division by zero",
        ):
            shown.wait_for(seen)
        assert not shown.echoes
        shown.process.send_signal(signal.SIGINT)
        shown.wait_for("ended")
        shown.wait_for(re.escape("\x1b[?25h"))  # the cursor is back
        assert shown.process.wait(PATIENCE) == 0
        assert shown.echoes
        assert "Traceback" not in shown.seen


def test_a_second_ctrl_c_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "hung.py").write_text(
        f"""{LIVE}
import threading

@task
def hang(view: TimeSeriesView, start: int, end: int) -> None:
    threading.Event().wait()

pipeline.stage("third", [hang], readings, TaskInterval.millis(100),
               RunnerConfig(shutdown_timeout=600.0))
"""
    )
    with on_terminal("run", "hung.py", cwd=tmp_path) as shown:
        shown.wait_for("latest errors")
        shown.process.send_signal(signal.SIGINT)
        shown.wait_for("shutting down; Ctrl-C ends it at once")
        shown.process.send_signal(signal.SIGINT)
        assert shown.process.wait(PATIENCE) == Exit.INTERRUPTED
        assert shown.echoes
        shown.wait_for(re.escape("\x1b[?25h"))


def test_log_records_stand_above_the_view(tmp_path: Path) -> None:
    (tmp_path / "live.py").write_text(LIVE)
    with on_terminal("run", "live.py", "--log-level", "warning", cwd=tmp_path) as shown:
        shown.wait_for(r"WARNING run_task.runner: first: task 'broken' gave")
        shown.wait_for("latest errors")


def test_a_dumb_terminal_has_lines(tmp_path: Path) -> None:
    (tmp_path / "live.py").write_text(LIVE)
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*RUN_TASK, "run", "live.py", "--for", "500ms"],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        env={**os.environ, "TERM": "dumb"},
        timeout=PATIENCE * 2,
        check=True,
    )
    os.close(theirs)
    assert done.returncode == 0
    assert os.read(ours, 6) == b"first " or b"second"
    os.close(ours)


# Drawn by itself


def pipeline(tasks: int = 2) -> Pipeline:
    """A pipeline with a long name in each place. It is not run."""

    def one(data: object, start: int, end: int) -> float:
        return 1.0

    long = "the mean of all that was measured, in hundredths of a degree Fahrenheit"
    made = Pipeline("a pipeline whose name is longer than any screen is wide, " * 4)
    data = RwLock[object](None)
    made.source(LongName(), data, lambda data, row: None)
    made.stage(
        "a stage with quite some name, too, of which not all can be seen",
        [Task(one, long), *(Task(one, f"task {number}") for number in range(tasks))],
        data,
        TaskInterval.millis(100),
    )
    return made


class LongName:
    def __iter__(self) -> Iterator[tuple[int, str]]:
        return iter(())

    def __repr__(self) -> str:
        return "a source " * 50


def drawn(screen: Screen, width: int, height: int = 24) -> tuple[str, list[str]]:
    """What is drawn, with codes and without."""
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=True, color_system="standard", width=width, height=height,
        highlight=False, legacy_windows=False, _environ=ENVIRONMENT,
    )  # fmt: skip
    console.print(screen)
    text = out.getvalue()
    return text, re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


def fed(made: Pipeline, windows: int = 100) -> Screen:
    """A screen of a pipeline that has given some results."""
    screen = Screen(made)
    (stage,) = made.stages
    names = [one.name for one in stage.tasks]
    for number in range(windows):
        values = dict.fromkeys(names[1:], number * 1.0)
        failed = TaskError(names[0], Window(number, number + 1), "it is " + "very " * 90 + "hot")
        screen.monitor.of(stage.name).note_next_at = -math.inf
        screen.monitor.note(
            stage.name, DataSet(Window(number, number + 1), values, {names[0]: failed})
        )
    return screen


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen_or_wraps(width: int) -> None:
    _, lines = drawn(fed(pipeline()), width)
    assert max(map(cell_len, lines)) <= width
    for name in ("a stage ", "a source ", "the mean ", "a pipe"):
        assert any(line.startswith(name) for line in lines)
    assert sum("…" in line for line in lines) >= 4  # title, source, stage, task, error: cut
    assert len(lines) == 1 + 1 + 2 + 1 + 2 + 1 + 4 + 1 + 2


def test_a_pipeline_without_stages_is_drawn_before_it_is_refused() -> None:
    _, lines = drawn(Screen(Pipeline("empty")), 80)
    assert lines[0].startswith("empty")


def test_rows_that_are_not_as_they_should_be_are_counted_where_there_are_some() -> None:
    @task
    def size(view: TimeSeriesView, start: int, end: int) -> int:
        return len(view)

    def shown(rows: Any, width: int) -> str:
        made = Pipeline("counted")
        series = TimeSeries({"value": float}, TimeUnit.SECONDS)
        made.source(rows, series).stage("one", [size], series, TaskInterval.seconds(1000))
        list(made.replay())
        _, lines = drawn(Screen(made), width)
        return "\n".join(lines)

    assert "malformed" not in shown([(1, {"value": 1.0})], 100)
    bad: Any = [5, (5, {"value": 1.0})]
    assert "malformed" in shown(bad, 100)
    assert "malformed" in shown(bad, 60)


def test_a_sink_is_seen_once_it_has_failed() -> None:
    @task
    def size(view: TimeSeriesView, start: int, end: int) -> int:
        return len(view)

    def shown(sink: Any, width: int) -> str:
        made = Pipeline("sunk")
        series = TimeSeries({"value": float}, TimeUnit.SECONDS)
        made.source([(1, {"value": 1.0})], series)
        made.stage("one", [size], series, TaskInterval.seconds(1)).sink(
            sink, retry=Retry(None, "1ms")
        )
        made.run_sync()
        _, lines = drawn(Screen(made), width)
        return "\n".join(lines)

    failures = iter([ConnectionError("gone")] * 3)

    def send(stage: str, dataset: Any) -> None:
        for failure in failures:
            raise failure

    assert "sink" not in shown(CallbackSink(lambda stage, dataset: None), 100)
    assert re.search(r"sink +written +waiting +failures", told := shown(CallbackSink(send), 100))
    assert re.search(r"CallbackSink\(send\) +1 +0 +3", told)


def test_a_screen_that_is_far_too_narrow_is_not_left() -> None:
    _, lines = drawn(fed(pipeline()), 20)
    assert max(map(cell_len, lines)) <= 20


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_higher_than_the_screen_until_the_end(width: int) -> None:
    screen = fed(pipeline(tasks=60))
    _, lines = drawn(screen, width)
    assert len(lines) < 24
    more = next(line for line in lines if "more" in line)
    shown = sum(line.startswith("task ") for line in lines) - 1
    assert more.strip() == f"and {61 - 1 - shown} more"
    screen.state = State.ENDED
    _, lines = drawn(screen, width)
    assert sum(bool(re.match(r"task \d+ ", line)) for line in lines) == 60


def several_stages(stages: int) -> Pipeline:
    """A pipeline of many stages and sources with long names, each of three tasks."""

    def one(data: object, start: int, end: int) -> float:
        return 1.0

    made = Pipeline("several stages, and some that fail")
    for number in range(stages):
        data = RwLock[object](None)
        made.source(LongName(), data, lambda data, row: None)
        name = f"stage {number}, whose name is longer than that of any stage should be"
        tasks = [Task(one, f"task {number}{letter}") for letter in "abc"]
        made.stage(name, tasks, data, TaskInterval.millis(100))
    return made


@pytest.mark.parametrize("width", [40, *WIDTHS])
@pytest.mark.parametrize("stages", [2, 30])
def test_the_name_of_a_task_is_seen_whatever_that_of_its_stage_is(stages: int, width: int) -> None:
    made = several_stages(stages)
    screen, stage = Screen(made), made.stages[0].name
    failed = TaskError("task 0a", Window(0, 1), "it is too hot")
    screen.monitor.note(stage, DataSet(Window(0, 1), {"task 0b": 1.0}, {"task 0a": failed}))
    _, lines = drawn(screen, width)
    assert max(map(cell_len, lines)) <= width
    assert any(re.match(r"stag.*… / task 0a +no result", line) for line in lines)
    assert any(re.match(r"[\d:]+ stag.* / ta", line) for line in lines)
    assert len(lines) < 24
    screen.state = State.ENDED
    _, lines = drawn(screen, width)
    assert not any("more" in line for line in lines)
    assert sum("/ task " in line for line in lines) >= 3 * stages


@pytest.mark.parametrize("height", range(6, 25))
def test_a_low_screen_shows_how_long_and_how_to_end_and_first_of_all_values(height: int) -> None:
    _, lines = drawn(fed(pipeline()), 40, height)
    assert len(lines) < height or height < 7
    assert re.search(r"0:00:0\d +Ctrl-C shuts it down$", lines[0])
    assert lines[-1].strip()
    if height >= 8:
        assert any(line.startswith("the mean") and "no result" in line for line in lines)


def test_what_is_not_seen_of_many_stages_is_counted() -> None:
    _, lines = drawn(Screen(several_stages(30)), 80)
    assert [line.strip() for line in lines if "more" in line] == ["and 22 more", "and 82 more"]


def test_errors_that_come_again_and_again_keep_their_places() -> None:
    made = several_stages(2)
    screen = Screen(made)
    seen: list[list[str]] = []
    for number in range(10):
        for stage in made.stages[:: 1 if number % 2 else -1]:
            names = [task.name for task in stage.tasks]
            window = Window(number, number + 1)
            errors = {name: TaskError(name, window, "it is hot") for name in names[:1]}
            screen.monitor.note(stage.name, DataSet(window, dict.fromkeys(names[1:], 1.0), errors))
        _, lines = drawn(screen, 80)
        seen.append([found for line in lines for found in re.findall(r":\d\d stage (\d)", line)])
    assert seen == [["0", "1"]] * 10  # the later one first


def test_nothing_remains_of_a_view_when_the_window_becomes_narrower() -> None:
    screen = fed(pipeline())
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=True, width=100, height=40, legacy_windows=False,
        _environ=ENVIRONMENT,
    )  # fmt: skip
    live = view(screen, console)
    live.start(refresh=True)
    widths = [cell_len(re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", x)) for x in out.getvalue().split("\n")]
    for columns in (100, 60, 120):  # on the first two, wrapped as most terminals do
        out.seek(0)
        out.truncate()
        console.width = columns
        live.refresh()
        rows = sum(max(1, -(-width // columns)) for width in widths)
        erased, drawing = re.split(r"(?=\x1b\[1mthe|\x1b\[1ma p)", out.getvalue(), maxsplit=1)
        assert erased.count("\x1b[1A") == rows - 1
        plain = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", drawing)
        widths = [cell_len(line) for line in plain.split("\n")]
    live.stop()


def test_colours_are_those_that_any_background_bears() -> None:
    text, _ = drawn(fed(pipeline()), 80)
    codes = {code for found in re.findall(r"\x1b\[([0-9;]*)m", text) for code in found.split(";")}
    assert codes == {"0", "1", "31"}  # bold, and the terminal's own red


def test_the_same_error_again_and_again_hides_no_other() -> None:
    made = pipeline()
    screen = Screen(made)
    (stage,) = made.stages
    window = Window(0, 1)
    for number in range(300):
        one = TaskError("task 1", window, "it is another one" if number == 5 else "it is the same")
        screen.monitor.note(stage.name, DataSet(window, {"task 0": 1.0}, {"task 1": one}))
    latest = screen.monitor.failures.latest(4)
    assert [(failure.what, failure.times) for failure in latest] == [
        ("it is the same", 299),
        ("it is another one", 1),
    ]
    for number in range(1000):
        one = TaskError("task 1", window, f"it is number {number}")
        screen.monitor.note(stage.name, DataSet(window, {"task 0": 1.0}, {"task 1": one}))
    assert [failure.what for failure in screen.monitor.failures.latest(2)] == [
        "it is number 999",
        "it is number 998",
    ]
    assert len(screen.monitor.failures.latest(10_000)) == 100
    _, lines = drawn(screen, 200)
    assert lines[-1].endswith("task 1 it is number 996")


def test_values_are_remembered_for_a_while() -> None:
    made = pipeline()
    screen = fed(made, windows=200)
    (stage,) = made.stages
    values, history = screen.monitor.recent(stage.name)
    assert values == {"task 0": 199.0, "task 1": 199.0}
    assert list(history["task 0"]) == [float(n) for n in range(200 - HISTORY, 200)]
    assert screen.monitor.of(stage.name).failed == 200


def test_a_fast_pipeline_pays_for_no_more_than_can_be_seen() -> None:
    made = pipeline()
    monitor = Monitor(made)
    (stage,) = made.stages
    for number in range(1000):
        monitor.note(stage.name, DataSet(Window(number, number + 1), {"task 0": 1.0}))
    _, history = monitor.recent(stage.name)
    assert 1 <= len(history["task 0"]) < 1000


@pytest.mark.parametrize(
    ("value", "drawn_as"),
    [
        (3, 3.0),
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (np.bool_(True), 1.0),
        (Decimal("1.5"), 1.5),
        (10**400, math.nan),
        ("3", math.nan),
        (None, math.nan),
        (np.array([1.0]), math.nan),
        (1j, math.nan),
    ],
)
def test_only_numbers_are_drawn(value: object, drawn_as: float) -> None:
    assert as_number(value) == pytest.approx(drawn_as, nan_ok=True)


def test_rates_are_taken_over_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("run_task.pipeline._monitor.time.monotonic", lambda: now)
    monitor = Monitor(pipeline())
    assert monitor.rates({"a": 0}) == {"a": 0.0}
    rates: list[float] = []
    for second in range(1, 11):
        now += 1.0
        rates.append(monitor.rates({"a": second * 50 if second <= 5 else 250})["a"])
    assert rates[:5] == [50.0] * 5
    assert rates[-1] == 0.0


def test_rates_are_those_of_sources_that_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("run_task.pipeline._monitor.time.monotonic", lambda: now)
    monitor = Monitor(pipeline())
    monitor.rates({"a": 0, "b": 0})
    now += 1.0
    assert monitor.rates({"a": 10, "b": 20, "new": 5}) == {"a": 10.0, "b": 20.0, "new": 0.0}
    assert monitor.rates({"b": 20, "new": 5}) == {"b": 20.0, "new": 0.0}
