"""How far a replay is, as somebody sees it who looks."""

from __future__ import annotations

import itertools
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from run_task import Pipeline, RwLock, TaskInterval, TimeUnit, task
from run_task.pipeline.replay._progress_bar import no_progress
from run_task.sources import CsvFile, paced

SECOND = TaskInterval.seconds(1)
FIRST = 1_700_000_000
COUNT = 20


@task
def length(values: list[Any], start: int, end: int) -> int:
    return len(values)


def rows(count: int = COUNT, first: int = FIRST) -> list[tuple[int, float]]:
    return [(first + n, 0.0) for n in range(count)]


def pipeline(source: Iterable[Any], *others: Iterable[Any], name: str = "plant") -> Pipeline:
    made = Pipeline(name)
    data = RwLock[list[Any]]([])
    for one in (source, *others):
        made.source(one, into=data, ingest=lambda data, row: data.append(row))
    made.stage("a", [length], data, SECOND)
    return made


def somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """To be called by the test itself: fixtures have another standard error."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("run_task.pipeline.replay._progress_bar._BAR_AFTER", 0.0)
    monkeypatch.setattr("run_task.pipeline.replay._progress_bar._EVERY", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    """Replays, with somebody who looks at it, and gives what is seen."""

    def show(made: Pipeline, **between: int) -> list[str]:
        somebody_looks(monkeypatch)
        for number, _ in enumerate(made.replay(**between)):
            if number in (10, 15):
                time.sleep(0.3)  # for the bar to be drawn
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.endswith("\x1b[?25h\r\x1b[1A\x1b[2K")  # all is gone, and the cursor back
        seen = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", told.err)
        return [line for line in re.split(r"[\r\n]+", seen) if line]

    return show


Show = Callable[..., list[str]]


def shares(lines: list[str]) -> list[int]:
    return [int(found) for line in lines for found in re.findall(r"(\d+)%", line)]


def numbered() -> Iterator[tuple[int, float]]:
    """Rows whose end nobody can know."""
    yield from rows()


def test_a_bar_fills_where_the_end_is_known(looked_at: Show) -> None:
    lines = looked_at(pipeline(rows()))
    found = shares(lines)
    assert found == sorted(found)
    assert any(45 <= share <= 60 for share in found)
    assert all(line.startswith("plant ━") for line in lines)
    assert all(len(line) < 80 for line in lines)
    assert any(re.search(r"2023-11-14 22:13:3\d  1\d windows  1\d rows$", line) for line in lines)


def test_a_bar_moves_where_the_end_is_not_known(looked_at: Show) -> None:
    for made in (pipeline(numbered()), pipeline(rows(), numbered())):
        lines = looked_at(made)
        assert shares(lines) == []
        assert any(re.search(r"━ +2023-11-14 22:13:3\d  1\d windows", line) for line in lines)


def test_the_end_may_be_said(looked_at: Show) -> None:
    found = shares(looked_at(pipeline(numbered()), end=FIRST + 40))
    assert any(25 <= share <= 30 for share in found)
    found = shares(looked_at(pipeline(rows()), start=FIRST + 4, end=FIRST + 1000))
    assert any(60 <= share <= 80 for share in found)


def test_what_is_played_is_a_recording(looked_at: Show) -> None:
    assert shares(looked_at(pipeline(paced(rows(), 1, unit=TimeUnit.SECONDS))))


def test_a_file_knows_its_end(looked_at: Show, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("timestamp,value\n" + "".join(f"{t},{v}\n" for t, v in rows()))
    found = shares(looked_at(pipeline(CsvFile(tmp_path / "a.csv", unit=TimeUnit.SECONDS))))
    assert any(45 <= share <= 60 for share in found)


def test_a_long_name_is_cut_and_no_markup(looked_at: Show) -> None:
    lines = looked_at(pipeline(rows(), name="[bold]a pipeline with a name"))
    assert all(line.startswith("[bold]a pipel… ━") for line in lines)
    assert all(len(line) < 80 for line in lines)


@pytest.mark.parametrize("first", [-(10**9), 10**12])  # seconds: the second in the year 33658
def test_a_time_of_any_year_is_told(first: int, looked_at: Show) -> None:
    lines = looked_at(pipeline(rows(first=first)))
    told = "1938-04-24" if first < 0 else "beyond the year 9999"
    assert any(told in line for line in lines)


def test_great_numbers_take_no_more_room() -> None:
    from run_task.observe._format import compact

    given = (0, 99_999, 100_000, 999_999, 1_000_000, 123_456_789, 10**9, 10**11)
    assert [compact(count) for count in given] == [
        "0", "99,999", "100k", "1000k", "1.0M", "123.5M", "1.0G", "100.0G",
    ]  # fmt: skip


def test_nobody_is_shown_what_was_not_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    somebody_looks(monkeypatch)
    with no_progress():
        assert len(list(pipeline(rows()).replay())) == COUNT
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("FORCE_COLOR")
    assert len(list(pipeline(rows()).replay())) == COUNT
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert len(list(pipeline(rows()).replay())) == COUNT
    assert capsys.readouterr() == ("", "")


def test_what_a_program_prints_goes_where_it_goes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    somebody_looks(monkeypatch)
    for number, _ in enumerate(pipeline(rows()).replay()):
        sys.stdout.write(f"{number}\n")
        sys.stderr.write(f"{number}\n")
    told = capsys.readouterr()
    assert told.out == "".join(f"{number}\n" for number in range(COUNT))
    assert all(f"{number}" in told.err for number in range(COUNT))


def test_a_replay_that_fails_leaves_the_terminal_as_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    somebody_looks(monkeypatch)

    def broken() -> Iterator[tuple[int, float]]:
        yield from rows(2000)  # more than are read ahead
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        list(pipeline(broken()).replay())
    left = pipeline(rows()).replay()
    list(itertools.islice(left, 10))
    del left  # not closed, but given up
    assert capsys.readouterr().err.count("\x1b[?25h") == 2
