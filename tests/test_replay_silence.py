"""A replay that waits for a source says so in the log: the source may be one that does not end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.threads import PATIENCE

from run_task import Pipeline, TaskInterval, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.pipeline.replay import _history
from run_task.pipeline.replay._silence import Silence
from run_task.sinks import SqlSink

Row = tuple[int, dict[str, float]]

ROWS: list[Row] = [(1_700_000_000 + i, {"a": float(i)}) for i in range(5)]


@dataclass
class Reader:
    """A source that is asked for rows when a test says so."""

    name: str = "source 'a'"
    asked_s: float | None = None
    given: int = 0


class Time:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def watching() -> int:
    """How many threads of the watch there are."""
    return len([thread for thread in threading.enumerate() if thread.name == "run-task watch"])


@task
def count(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@task
def threads(view: TimeSeriesView, start: int, end: int) -> int:
    return watching()


def pipeline(source: Any, *tasks: Any) -> Pipeline:
    series = TimeSeries({"a": float}, TimeUnit.SECONDS)
    made = Pipeline("p").source(source, into=series, name="prices")
    made.stage("s", tasks or [count], series, TaskInterval.seconds(1))
    return made


def test_a_silence_is_told_once_and_the_next_one_again(caplog: pytest.LogCaptureFixture) -> None:
    reader, time = Reader(), Time()
    silence = Silence([reader], 5.0, time)
    reader.asked_s = 99.0
    assert silence.look() == pytest.approx(4.0)
    time.now_s = 103.9
    assert silence.look() == pytest.approx(0.1)
    assert not caplog.records
    for time.now_s in (104.0, 105.0, 120.0):
        assert silence.look() == pytest.approx(1.0)
    assert len(caplog.records) == 1
    assert "source 'a': the replay has been waiting for 5 s for rows" in caplog.text
    reader.asked_s = 121.0  # it gave some, and is asked for more
    time.now_s = 127.0
    silence.look()
    assert len(caplog.records) == 2


def test_a_replay_that_does_not_ask_hears_no_silence(caplog: pytest.LogCaptureFixture) -> None:
    reader, time = Reader(), Time()
    silence = Silence([reader], 5.0, time)
    for time.now_s in (100.0, 200.0, 300.0):
        assert silence.look() == pytest.approx(1.0)
    assert not caplog.records


def test_a_source_that_gives_a_row_now_and_then_is_not_silent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader, time = Reader(asked_s=100.0), Time()
    silence = Silence([reader], 5.0, time)
    for _ in range(20):
        time.now_s += 4.0
        reader.given += 1
        assert silence.look() == pytest.approx(5.0)
    assert not caplog.records
    time.now_s += 5.0
    silence.look()
    assert len(caplog.records) == 1


def test_of_several_sources_the_first_that_is_due_is_looked_at_first() -> None:
    time = Time()
    silence = Silence([Reader(asked_s=98.0), Reader(asked_s=99.5), Reader()], 3.0, time)
    assert silence.look() == pytest.approx(1.0)
    time.now_s = 100.4
    assert silence.look() == pytest.approx(0.6)


class Heard(logging.Handler):
    """Sets an event once the log has told of a silence."""

    def __init__(self) -> None:
        super().__init__()
        self.event = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "has been waiting" in record.getMessage():
            self.event.set()


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Is set once a silence is told, after a moment of it."""
    monkeypatch.setattr(_history, "Silence", partial(Silence, limit_s=0.02))
    handler = Heard()
    logger = logging.getLogger("run_task")
    logger.addHandler(handler)
    yield handler.event
    logger.removeHandler(handler)


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("before", [0, 3])
def test_a_replay_and_a_resume_tell_of_a_source_that_gives_nothing(
    heard: threading.Event,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    before: int,
    resumed: bool,
) -> None:
    def quiet() -> Iterator[Row]:
        yield from ROWS[:before]
        assert heard.wait(PATIENCE), "nothing was told"
        yield from ROWS[before:]

    made = pipeline(quiet())
    if resumed:
        pytest.importorskip("sqlalchemy")
        sink = SqlSink(f"sqlite:///{tmp_path / 'a.db'}")
        made.stages[0].sink(sink)
        results = list(made.resume(sink))
    else:
        results = list(made.replay())
    assert [dataset["count"] for _, dataset in results] == [1] * 5
    told = [r.getMessage() for r in caplog.records if "has been waiting" in r.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("source 'prices', <generator object")
    assert "is for run()" in told[0]


def test_the_watch_ends_with_the_replay_and_one_of_a_list_has_none() -> None:
    for source, watched in ((ROWS, 0), (tuple(ROWS), 0), (iter(ROWS), 1)):
        replay = pipeline(source, threads).replay()
        assert [dataset["threads"] for _, dataset in replay] == [watched] * 5
        assert not watching()
    with pipeline(iter(ROWS), threads).replay() as left:
        assert next(left)[1]["threads"] == 1
    assert not watching()
