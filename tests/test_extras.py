"""Libraries that not everybody has, and what is said without them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from tests.conftest import ROOT

from run_task import ConfigError
from run_task._extras import install_command
from run_task.sinks import ParquetSink, SqlSink
from run_task.sources import ArrowFile, CsvFile, JsonLinesFile, ParquetFile

NEEDS_PYARROW = r"needs pyarrow, of the extra run-task\[arrow\].*: pip install .*\[arrow\]"


@pytest.mark.parametrize("make", [CsvFile, JsonLinesFile, ParquetFile, ArrowFile])
def test_files_need_pyarrow(
    make: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "file"
    path.write_text("timestamp\n")
    with pytest.raises(ConfigError, match=NEEDS_PYARROW):
        make(path)


def test_a_parquet_sink_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=NEEDS_PYARROW):
        ParquetSink(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_an_sql_sink_needs_sqlalchemy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(
        ConfigError, match=r"needs sqlalchemy.*run-task\[sql\].*: pip install .*\[sql\]"
    ):
        SqlSink(tmp_path / "file.db")


def test_sources_and_sinks_import_none_of_them() -> None:
    script = (
        "import sys, run_task.sources, run_task.sinks;"
        "wanted = {'pyarrow', 'sqlalchemy', 'pandas', 'polars', 'fsspec', 'urllib.request'};"
        "print(wanted & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "'run-task[sql]'"),
        ({"url": "file:///a/clone", "dir_info": {}}, "'/a/clone[sql]'"),
        ({"url": "file:///a/clone", "dir_info": {"editable": True}}, "--editable '/a/clone[sql]'"),
        ({"url": "file:///a%20b/run_task-1.whl", "archive_info": {}}, "'/a b/run_task-1.whl[sql]'"),
        (
            {"url": "https://host/run_task-1.whl", "archive_info": {}},
            "'run-task[sql] @ https://host/run_task-1.whl'",
        ),
        (
            {"url": "https://host/project", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            "'run-task[sql] @ git+https://host/project@c0ffee'",
        ),
    ],
)
def test_an_extra_is_installed_from_where_the_package_came_from(
    origin: dict[str, object] | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if origin is None else json.dumps(origin)

    def distribution(name: str) -> Installed:
        return Installed()

    monkeypatch.setattr("importlib.metadata.distribution", distribution)
    assert install_command("sql") == f"pip install {command}"


def test_a_clone_that_is_not_installed_is_what_an_extra_is_installed_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def distribution(name: str) -> object:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", distribution)
    assert shlex.split(install_command("sql")) == ["pip", "install", f"{ROOT}[sql]"]
