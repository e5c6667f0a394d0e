"""Libraries that not everybody has, and what is said without them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from run_task import ConfigError
from run_task.sinks import ParquetSink, SqlSink
from run_task.sources import CsvFile, JsonLinesFile, ParquetFile


@pytest.mark.parametrize("make", [CsvFile, JsonLinesFile, ParquetFile])
def test_files_need_pyarrow(
    make: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "file"
    path.write_text("timestamp\n")
    with pytest.raises(ConfigError, match=r"needs pyarrow.*: pip install 'run-task\[arrow\]'"):
        make(path)


def test_a_parquet_sink_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"needs pyarrow.*: pip install 'run-task\[arrow\]'"):
        ParquetSink(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_an_sql_sink_needs_sqlalchemy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ConfigError, match=r"needs sqlalchemy.*: pip install 'run-task\[sql\]'"):
        SqlSink(tmp_path / "file.db")


def test_sources_and_sinks_import_none_of_them() -> None:
    script = (
        "import sys, run_task.sources, run_task.sinks;"
        "print({'pyarrow', 'sqlalchemy', 'pandas', 'polars'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
