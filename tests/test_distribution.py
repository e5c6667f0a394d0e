"""The wheel and the sdist, as somebody installs them who has no clone."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import ROOT
from tests.support.threads import PATIENCE
from tests.test_examples import readme_block


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 12,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, target: str, folder: Path) -> Path:
    """Build a wheel or an sdist, and give the file."""
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder, cwd=source)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that an sdist unpacks to."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(ROOT, "sdist", folder)) as archive:
        # Python 3.11.3 and before know no filter.
        safely: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(folder / "unpacked", **safely)
    (unpacked,) = (folder / "unpacked").iterdir()
    return unpacked


def test_the_wheel_in_an_empty_environment_runs_the_first_example(
    wheel: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    python = next((tmp_path / "env").glob("*/python"))
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-index",
    ]
    run(*pip, "--no-deps", wheel, cwd=tmp_path)
    # NumPy, the only dependency, is that of the environment that the tests run in.
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path)
    packages = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        if (packages / name).is_dir():
            (Path(site.strip()) / name).symlink_to(packages / name)
    where = run(python, "-c", "import run_task; print(run_task.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path)
    (tmp_path / "example.py").write_text(readme_block("first"))
    printed = run(python, "example.py", cwd=tmp_path).splitlines()
    assert len(printed) == 5
    assert printed[0].endswith(") 100.0 1")
    # What an extra would bring is asked for, from the wheel.
    ask = "import run_task.sinks as s\ntry: s.SqlSink('a.db')\nexcept Exception as e: print(e)"
    assert f"pip install '{wheel}[sql]'" in run(python, "-c", ask, cwd=tmp_path)


def test_the_sdist_has_what_the_tests_and_the_docs_need(sdist: Path, wheel: Path) -> None:
    there = {path.relative_to(sdist) for path in sdist.rglob("*") if path.is_file()}
    tracked = run("git", "ls-files", cwd=ROOT).splitlines() if (ROOT / ".git").exists() else []
    assert {Path(name) for name in tracked} <= there
    # A wheel that is built from it is the same.
    rebuilt = build(sdist, "wheel", sdist / "rebuilt")
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(rebuilt) as theirs:
        assert {(i.filename, i.CRC) for i in ours.infolist()} == {
            (i.filename, i.CRC) for i in theirs.infolist()
        }
    assert all(name.startswith(("run_task/", "run_task-")) for name in ours.namelist())
