"""The project that ``run-task new`` makes: it works as made."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT
from tests.support.commands import run_here, run_task
from tests.support.threads import PATIENCE

from run_task.cli._exits import Exit

FILES = ["README.md", "pipeline.py", "test_pipeline.py"]


def test_its_own_tests_pass_as_made(tmp_path: Path) -> None:
    made = run_here("new", "heat-pump", cwd=tmp_path)
    assert made.exit_code == 0
    assert made.output.splitlines()[-1] == "Now: cd heat-pump && run-task run pipeline.py"
    folder = tmp_path / "heat-pump"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    for path in folder.iterdir():
        assert "$" not in path.read_text()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 6,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_it_is_checked_and_runs(tmp_path: Path) -> None:
    run_here("new", "heat", cwd=tmp_path)
    checked = run_here("check", "pipeline.py", cwd=tmp_path / "heat")
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert checked.stdout.startswith("pipeline heat\n")
    done = run_task("run", "pipeline.py", "--json", "--for", "2500ms", cwd=tmp_path / "heat")
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["errors"] == {}


def test_it_satisfies_a_strict_type_checker(tmp_path: Path) -> None:
    run_here("new", "heat", cwd=tmp_path)
    if (known := ROOT / ".mypy_cache").is_dir():  # what `make check` has found out of NumPy
        shutil.copytree(known, tmp_path / "heat" / ".mypy_cache")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "pipeline.py", "test_pipeline.py"],
        cwd=tmp_path / "heat",
        capture_output=True,
        text=True,
        timeout=PATIENCE * 12,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_what_the_readme_types_works_in_an_empty_folder(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    block = re.search(r"```sh\n(run-task demo.*?)```", text, re.DOTALL)
    assert block is not None
    script = block[1].replace("--for 30s", "--for 1s --quiet").replace("10s", "2s")
    script = script.replace("run-task run pipeline.py  ", "run-task run pipeline.py --for 1s")
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 6,
        check=False,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    assert "pipeline heat" in done.stdout
    assert (tmp_path / "heat/results.jsonl").read_text().count("\n") >= 2


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    (tmp_path / "heat").mkdir()
    assert run_here("new", "heat", cwd=tmp_path).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "heat").iterdir()) == FILES
    assert run_here("new", "deeper/in/there", cwd=tmp_path).exit_code == 0


@pytest.mark.parametrize(
    ("name", "told"),
    [("full", "not empty"), ("file", "not empty"), ("a b", "no name"), ("file/inner", "cannot be")],
)
def test_what_is_there_is_left_alone(name: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    done = run_here("new", name, cwd=tmp_path)
    assert done.exit_code == Exit.MISTAKE
    assert told in done.stderr
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
