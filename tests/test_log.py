"""What the library logs: every record says which runner, task and window it is about."""

from __future__ import annotations

import ast
import contextlib
import logging
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT
from tests.support.threads import PATIENCE

import run_task
from run_task import (
    ConfigError,
    ContextBuilder,
    Overflow,
    Runner,
    RunnerConfig,
    SinkError,
    TaskInterval,
    TimeSeries,
    VirtualClock,
    Window,
    channel,
    task,
)
from run_task.cli._user_error import UserError, error_text
from run_task.observe._log import Log
from run_task.sources import JsonLinesFile

SECOND = TaskInterval.seconds(1)
PACKAGE = Path(run_task.__file__).parent


@task
def fails(data: list[float], start: int, end: int) -> float:
    raise ValueError("no good")


def fields(record: logging.LogRecord) -> tuple[object, object, object]:
    named = vars(record)
    return named["runner"], named["task"], named["window"]


def run(clock: VirtualClock, config: RunnerConfig, windows: int = 1) -> None:
    context, receiver, _ = (
        ContextBuilder(list[float])
        .with_task(fails)
        .with_interval(SECOND)
        .with_config(config)
        .build()
    )
    with Runner(context, clock=clock):
        for _ in range(windows):
            clock.advance(SECOND)
            receiver.recv(PATIENCE)


def test_a_task_that_fails_is_named_with_its_runner_and_window(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(VirtualClock(), RunnerConfig(name="prices"))
    (record,) = caplog.records
    assert record.name == "run_task.runner"
    assert record.levelno == logging.WARNING
    assert fields(record) == ("prices", "fails", Window(0, 1))
    assert "no good" in record.getMessage()


def test_a_runner_that_ends_by_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(run_task.TaskError):
        run(VirtualClock(), RunnerConfig(on_error=run_task.OnError.RAISE))
    warning, error = caplog.records
    assert fields(warning) == fields(error) == ("runner", "fails", Window(0, 1))
    assert error.levelno == logging.ERROR


def test_what_is_dropped_tells_whose_window_it_was(caplog: pytest.LogCaptureFixture) -> None:
    context, receiver, _ = (
        ContextBuilder(list[float])
        .with_task(run_task.Task(lambda data, start, end: len(data), "count"))
        .with_interval(SECOND)
        .with_config(RunnerConfig(name="tight"))
        .with_channel(1, Overflow.DROP_OLDEST)
        .build()
    )
    clock = VirtualClock()
    with Runner(context, clock=clock) as runner:
        clock.advance(TaskInterval.seconds(3))
        while receiver.recv(PATIENCE).window.end < 3:
            pass
        dropped = runner.stats.dropped
    assert [fields(record) for record in caplog.records] == [
        ("tight", None, Window(i, i + 1)) for i in range(dropped)
    ]


def test_a_channel_of_ones_own_has_a_name(caplog: pytest.LogCaptureFixture) -> None:
    ends: tuple[run_task.Sender[int], run_task.Receiver[int]] = channel(1, name="mine")
    ends[0].send(5)
    ends[1].close()
    (record,) = caplog.records
    assert fields(record) == ("mine", None, None)


def test_a_step_of_the_clock_is_a_runners_matter(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock()
    context, receiver, _ = (
        ContextBuilder(list[float]).with_task(fails).with_interval(SECOND).build()
    )
    with Runner(context, clock=clock):
        clock.step(5 * 10**9)
        receiver.recv(PATIENCE)
    steps = [record for record in caplog.records if "the wall clock" in record.getMessage()]
    assert [fields(record) for record in steps] == [("runner", None, None)]


def test_what_is_about_no_runner_has_the_fields_too(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    series = TimeSeries({"price": float}, retention=1)
    series.append(5, price=1.0)
    series.append(1, price=1.0)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"timestamp": 1, "price": 2.0}\nnonsense\n')
    assert len(list(JsonLinesFile(path))) == 1
    assert {record.name for record in caplog.records} == {
        "run_task.data.series",
        "run_task.sources",
    }
    assert {fields(record) for record in caplog.records} == {(None, None, None)}


def test_all_loggers_are_made_by_one_class_and_nothing_is_printed() -> None:
    culprits: list[str] = []
    for path in PACKAGE.rglob("*.py"):
        if path.is_relative_to(PACKAGE / "cli"):
            continue  # a program, and no library
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="print")) | ast.Attribute(attr="getLogger"):
                    culprits.append(str(path.relative_to(PACKAGE)))
                case _:
                    pass
    # log.py makes them, and the package has a NullHandler.
    assert sorted(set(culprits)) == ["__init__.py", "observe/_log.py"]


def test_the_guides_format_fits_our_records_and_those_of_others(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (ROOT / "docs" / "how-to" / "metrics.md").read_text()
    found = re.search(r'```python title="log.py"\n(.*?)```', guide, re.DOTALL)
    assert found is not None
    known: dict[str, Any] = {}

    def set_up(**_: object) -> None:
        """Leave the log of the tests alone."""

    monkeypatch.setattr(logging, "basicConfig", set_up)
    exec(found[1], known)
    run(VirtualClock(), RunnerConfig(name="prices"))
    logging.getLogger("others").warning("hello")
    lines = [known["handler"].format(record) for record in caplog.records]
    assert "WARNING prices fails Window(start=0, end=1): prices: task" in lines[0]
    assert lines[1].endswith(" WARNING   : hello")


class Away(logging.Handler):
    """A handler whose log server is away."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def emit(self, record: logging.LogRecord) -> None:
        raise self.error


@contextlib.contextmanager
def handled_by(handler: logging.Handler) -> Generator[None]:
    library = logging.getLogger("run_task")
    library.addHandler(handler)
    try:
        yield
    finally:
        library.removeHandler(handler)


@pytest.mark.parametrize("error", [ConnectionError("away"), SystemExit(3), KeyboardInterrupt()])
def test_a_handler_that_raises_harms_no_runner(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    with handled_by(Away(error)):
        run(VirtualClock(), RunnerConfig(name="prices"), windows=3)
    assert capsys.readouterr().err.count("--- Logging error ---") == 3


def test_a_handler_that_raises_harms_no_channel(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    ends: tuple[run_task.Sender[int], run_task.Receiver[int]] = channel(1, Overflow.DROP_NEWEST)
    sender, receiver = ends
    with handled_by(Away(ConnectionError("away"))):
        for item in range(3):
            sender.send(item)
        receiver.close()
    assert receiver.dropped == 3
    assert capsys.readouterr().err == ""


def test_a_filter_and_a_text_that_raise_harm_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    def away(record: logging.LogRecord) -> bool:
        raise ConnectionError("away")

    class Unreadable:
        def __str__(self) -> str:
            raise ArithmeticError("no text")

    log = Log("run_task.tests", "prices")
    log.logger.addFilter(away)
    try:
        log.warning("hello")
    finally:
        log.logger.removeFilter(away)
    handler = Away(ValueError())
    handler.emit = handler.format  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]  # it raises what the text does
    with handled_by(handler):
        log.warning("hello %s", Unreadable())
    assert capsys.readouterr().err.count("--- Logging error ---") >= 2


def test_an_interrupt_of_the_main_thread_is_no_error_of_the_log() -> None:
    with handled_by(Away(KeyboardInterrupt())), pytest.raises(KeyboardInterrupt):
        Log("run_task.tests").warning("hello")


def test_a_record_tells_where_it_was_logged(caplog: pytest.LogCaptureFixture) -> None:
    Log("run_task.tests").warning("hello")
    try:
        raise ArithmeticError("no good")
    except ArithmeticError:
        Log("run_task.tests").exception("hello")
    for record in caplog.records:
        assert record.pathname == __file__
        assert record.funcName == "test_a_record_tells_where_it_was_logged"
    assert caplog.records[1].exc_info is not None


EVIL = "\x1b]0;title\x07\n12:00 ERROR all is lost\u202e"


@task
def evil(data: list[float], start: int, end: int) -> float:
    raise ValueError(EVIL)


def test_no_record_has_control_characters_of_data(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    clock = VirtualClock()
    context, receiver, _ = ContextBuilder(list[float]).with_task(evil).with_interval(SECOND).build()
    with Runner(context, clock=clock):
        clock.advance(SECOND)
        receiver.recv(PATIENCE)
    (tmp_path / "a.jsonl").write_text(f'{{"timestamp":1}}\n{EVIL.partition(chr(10))[0]}\n[1\n')
    list(JsonLinesFile(tmp_path / "a.jsonl"))
    assert len(caplog.messages) == 3
    for text in (*caplog.messages, str(ConfigError(EVIL)), str(SinkError(EVIL))):
        assert text.isprintable()
    assert r"\x1b]0;title\x07\n12:00 ERROR all is lost\u202e" in caplog.messages[0]


def test_a_traceback_begins_no_line_that_the_program_did_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    try:
        raise ValueError(EVIL)
    except ValueError:
        Log("run_task.a._b", runner=EVIL).exception("%s: %s", EVIL, 5, extra={"task": EVIL})
    (record,) = caplog.records
    assert record.getMessage().isprintable()
    assert fields(record)[:2] == (repr(EVIL)[1:-1], repr(EVIL)[1:-1])
    first, *lines = logging.Formatter("%(message)s").format(record).split("\n")
    assert first == r"\x1b]0;title\x07\n12:00 ERROR all is lost\u202e: 5"
    assert lines[0] == "Traceback (most recent call last):"
    assert all(line.isprintable() and line.startswith("    ") for line in lines[1:])


def test_the_command_line_shows_no_control_characters_of_data() -> None:
    for error in (ValueError(EVIL), UserError(EVIL)):
        first, second = error_text(error).split("\n")
        assert first.isprintable()
        assert first.endswith(r"\x1b]0;title\x07")
        assert second == r"    12:00 ERROR all is lost\u202e"
