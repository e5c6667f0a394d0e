"""How Arrow's threads share a block."""

from __future__ import annotations

from pathlib import Path

import pytest

from run_task import TimeUnit
from run_task.sources import CsvFile
from run_task.sources._parts import PART_BYTES, part_bytes

pa = pytest.importorskip("pyarrow")


@pytest.mark.parametrize(
    ("threads", "size", "part"),
    [
        (1, 8 * PART_BYTES, None),
        (2, PART_BYTES, None),
        (2, PART_BYTES + 1, PART_BYTES),
        (2, 8 * PART_BYTES, 4 * PART_BYTES),
        (64, 8 * PART_BYTES, PART_BYTES),
    ],
)
def test_each_thread_has_enough_to_read(
    monkeypatch: pytest.MonkeyPatch, threads: int, size: int, part: int | None
) -> None:
    monkeypatch.setattr(pa, "cpu_count", lambda: threads)
    assert part_bytes(size) == part


def test_a_row_that_is_too_long_costs_itself_where_threads_share_its_block(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pa, "cpu_count", lambda: 2)
    lines = [f"{time},{time / 8}" for time in range(60_000)]
    lines[50_000] += ",1"
    path = tmp_path / "file.csv"
    path.write_text("\n".join(["timestamp,x", *lines]))
    source = CsvFile(path, unit=TimeUnit.SECONDS, columns={"x": float}, stored=TimeUnit.SECONDS)
    assert list(source) == [(time, {"x": time / 8}) for time in range(60_000) if time != 50_000]
    assert source.malformed == 1
