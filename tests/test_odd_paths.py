"""Paths that no file can have, or that nobody may go to: sources and sinks say so."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from run_task import ConfigError, RunTaskError
from run_task.sinks import CsvSink, JsonLinesSink, ParquetSink, Rotation, SqlSink
from run_task.sources import ArrowFile, CsvFile, JsonLinesFile, ParquetFile

pytest.importorskip("pyarrow")
pytest.importorskip("sqlalchemy")

Opened = Callable[[str], Any]

SOURCES: dict[str, Opened] = {
    "CsvFile": CsvFile,
    "JsonLinesFile": JsonLinesFile,
    "ParquetFile": ParquetFile,
    "ArrowFile": ArrowFile,
    "followed": lambda path: CsvFile(path, follow=True, columns={"v": float}),
    "listed": lambda path: CsvFile([path]),
}
FILES: dict[str, Opened] = {
    "CsvSink": CsvSink,
    "JsonLinesSink": JsonLinesSink,
    "rotated": lambda path: CsvSink(path, rotation=Rotation(max_bytes=1_000)),
}
SINKS: dict[str, Opened] = {**FILES, "ParquetSink": ParquetSink, "SqlSink": SqlSink}
ALL = {**SOURCES, **SINKS}


@pytest.fixture(params=ALL)
def opened(request: pytest.FixtureRequest) -> Opened:
    return ALL[request.param]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "path", ["", "a\0b", "\ud800", "x" * 300, "y" * 5000, "x" * 300 + "/*.csv"]
)
def test_what_is_no_path_is_refused(opened: Opened, path: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        opened(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [None, 3, b"rows"])
def test_what_is_no_text_is_no_path(opened: Opened, given: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no path|is no database"):
        opened(given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", [".", "..", "loop", "loop/file", "file/file", " ", "~", "-"])
def test_what_is_odd_is_a_path_or_refused(opened: Opened, path: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("nothing of ours")
    with suppress(RunTaskError):
        if hasattr(made := opened(path), "close"):
            made.close()
    assert (tmp_path / "file").read_text() == "nothing of ours"


@pytest.mark.parametrize("name", ["\x1b[31mred", "two\nlines", "\x9b2J"])
def test_no_message_has_the_control_characters_of_a_path(opened: Opened, name: str) -> None:
    Path(name).mkdir()
    for path in (name, f"{name}/{name}", f"{name}/{name}/none"):
        told: list[str] = []
        try:
            made = opened(path)
        except RunTaskError as error:
            told.append(str(error))
        else:
            told.append(repr(made))
            if hasattr(made, "close"):
                made.close()
        assert told[0].isprintable()


def test_a_folder_that_nobody_may_enter(opened: Opened, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    try:
        if os.access(closed, os.X_OK):
            pytest.skip("whoever runs this may go anywhere")
        for path in (closed / "file", closed / "*", closed / "folder" / "file"):
            with suppress(ConfigError):
                opened(str(path))
    finally:
        closed.chmod(0o700)
    assert not list(closed.iterdir())


def test_a_folder_of_folders_is_refused_with_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "days" / "1").mkdir(parents=True)
    (tmp_path / "days" / "1" / "rows.csv").write_text("timestamp,v\n1,2\n")
    with pytest.raises(
        ConfigError, match=r"no file in this folder.*: a pattern, as 'days/\*\*/\*'"
    ):
        CsvFile("days")
    assert len(list(CsvFile("days/**/*"))) == 1


def test_a_folder_is_not_taken_for_a_file_nor_a_file_for_a_folder(tmp_path: Path) -> None:
    for opened in (*FILES.values(), SqlSink):
        with pytest.raises(ConfigError):
            opened(str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="this is a file, and it takes a folder"):
        ParquetSink(tmp_path / "file")
