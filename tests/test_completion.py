"""What the Tab key does, in the shells that there are."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.commands import RUN_TASK
from tests.support.threads import PATIENCE

from run_task.cli._completion import complete, join_words

PIPELINES = """
import run_task
from run_task import Pipeline, RwLock, TaskInterval, task

@task
def one(data: object, start: int, end: int) -> int:
    return 1

pipeline: Pipeline = Pipeline("the first")
second = run_task.Pipeline("the second")
pipes = [pipeline, second]
for pipe in pipes:
    pipe.stage("a", [one], RwLock(0), TaskInterval.seconds(1))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "here"
    (made / "package").mkdir(parents=True)
    for name in ("app.py", "package/inner.py"):
        (made / name).write_text(PIPELINES)
    for name in ("apples.txt", "package/__init__.py"):
        (made / name).touch()
    return made


_WITH_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Takes the terminal, as a shell needs it, before it becomes the shell."""


class Shell:
    """A shell that somebody types into."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._seen = ""

    def type(self, text: str, wait_for: str) -> None:
        """Type something, and wait until something is seen."""
        os.write(self._terminal, text.encode())
        deadline = time.monotonic() + PATIENCE * 2
        while (found := re.search(wait_for, self._seen)) is None:
            assert time.monotonic() < deadline, self._seen
            if select.select([self._terminal], [], [], 1.0)[0]:
                part = os.read(self._terminal, 65536).decode(errors="replace")
                self._seen += re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", part)
        self._seen = self._seen[found.end() :]


@contextmanager
def shell_in(folder: Path, program: str, home: Path) -> Generator[Shell]:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 100))
    process = subprocess.Popen(
        [sys.executable, "-c", _WITH_TERMINAL, program, "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env={
            "HOME": str(home),
            "PATH": os.pathsep.join((str(Path(RUN_TASK[1]).parent), os.environ["PATH"])),
            "TERM": "xterm",
            "LANG": "C.UTF-8",
        },
        start_new_session=True,
    )
    try:
        yield Shell(ours)
    finally:
        process.kill()
        process.wait()
        os.close(theirs)
        os.close(ours)


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_options_and_targets(
    name: str, folder: Path, tmp_path: Path
) -> None:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"there is no {name} on this machine")
    home = tmp_path / "home"
    home.mkdir()
    if name == "zsh":
        (home / ".zshrc").touch()  # else it asks
    with shell_in(folder, program, home) as shell:
        shell.type("run-task --install-completion\n", "completion installed in")
    with shell_in(folder, program, home) as shell:
        shell.type("echo rea''dy\n", "ready")
        if name == "zsh":
            shell.type("run-task \t-h\n", "Usage: run-task")  # the first time, no more
        shell.type("run-task rep\t-h\n", "Usage: run-task replay")
        shell.type("run-task replay --st\tnoon app.py\n", "'noon' is no time")
        shell.type("run-task run --log-level er\tnowhere.py\n", "there is no file 'nowhere.py'")
        shell.type("run-task check pack\t\b:pip\t\n", "pipeline the first")
        shell.type("run-task check app.py:s\t\n", "pipeline the second")


def test_files_and_folders_that_a_target_may_be_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert complete("") == ["app.py", "package/"]
    assert complete("app") == ["app.py"]
    assert complete("./ap") == ["./app.py"]
    assert complete("pa") == ["package/inner.py"]  # there is nothing else in it
    (folder / "package/other.py").touch()
    assert complete("pa") == ["package/inner.py", "package/other.py"]
    (folder / "empty").mkdir()
    assert complete("em") == complete("nowhere/") == []
    assert complete(f"{folder}/a") == [f"{folder}/app.py"]


def test_names_of_pipelines_without_running_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "app.py").write_text(f"1 / 0\n{PIPELINES}\na, b = Pipeline('c'), 1\n")
    assert complete("app.py:") == ["app.py:pipeline", "app.py:second"]
    assert complete("app:p") == ["app:pipeline"]
    assert complete("package.inner:s") == ["package.inner:second"]
    assert complete("package/inner.py:s") == ["package/inner.py:second"]
    (folder / "app.py").write_text("def f(:\n")
    assert complete("app.py:") == complete("nowhere.py:") == complete("\0:") == complete(":") == []


@pytest.mark.parametrize(
    ("words", "at", "place", "joined", "joined_at"),
    [
        ("run-task run app.py : pi", 4, "app.py", "run-task run pi", 2),
        ("run-task run app.py :", 3, "app.py", "run-task run ", 2),
        ("run-task run app.py : ", 4, "app.py", "run-task run ", 2),
        ("run-task run -q app.py : pi --for", 5, "app.py", "run-task run -q pi", 3),
        ("run-task run app.py", 2, None, "run-task run app.py", 2),
        ("run-task run ", 2, None, "run-task run ", 2),
        ("run-task run app.py : pi --for", 5, None, "run-task run app.py : pi --for", 5),
    ],
)
def test_bash_takes_a_target_for_three_words(
    words: str, at: int, place: str | None, joined: str, joined_at: int
) -> None:
    environ = {
        "_RUN_TASK_COMPLETE": "complete_bash",
        "COMP_WORDS": words.replace(" ", "\n"),
        "COMP_CWORD": str(at),
    }
    join_words(environ)
    assert environ.get("_RUN_TASK_PLACE") == place
    assert environ["COMP_WORDS"] == joined.replace(" ", "\n")
    assert environ["COMP_CWORD"] == str(joined_at)
    before: dict[str, str] = {}
    join_words(before)
    assert before == {}
