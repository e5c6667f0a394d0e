"""How much memory a series takes up, and in pages of which size."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from run_task import TaskInterval, TimeSeries
from run_task.data.series._store import Store

_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_BATCH = 10_000

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not _SETTING.exists() or "[madvise]" not in _SETTING.read_text(),
    reason="this system does not have pages of 2 MiB where a program asks for them, and only there",
)


def extended(series: TimeSeries, rows: int) -> TimeSeries:
    ones = {name: np.ones(_BATCH, int) for name in series.columns}
    for start in range(0, rows, _BATCH):
        series.extend(np.arange(start, start + _BATCH), **ones)
    return series


def store_of(series: TimeSeries) -> Store:
    return series._snapshot[0]  # pyright: ignore[reportPrivateUsage] - nobody else is told


def in_memory(series: TimeSeries) -> int:
    """How many bytes of the newest store of a series take up memory."""
    store = store_of(series)
    page = os.sysconf("SC_PAGE_SIZE")
    pages = -(-store.layout.size // page)
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        entries = os.pread(pagemap.fileno(), 8 * pages, store.address // page * 8)
    there = np.frombuffer(entries, np.uint64) >> np.uint64(62)  # in memory, or swapped out
    return page * int(np.count_nonzero(there))


def is_large(address: int) -> bool:
    """Whether the page at an address may be one of 2 MiB."""
    maps = Path("/proc/self/smaps").read_text()
    for first, last, flags in re.findall(
        r"^([0-9a-f]+)-([0-9a-f]+) [^\n]*\n(?:\w+: [^\n]*\n)*?VmFlags:([^\n]*)", maps, re.MULTILINE
    ):
        if int(first, 16) <= address < int(last, 16):
            return "hg" in flags.split()
    raise AssertionError(f"{address:#x} is not mapped")


@pytest.mark.parametrize("by_time", [False, True], ids=["number", "time"])
@pytest.mark.parametrize(("columns", "rows"), [(1, 2_200_000), (7, 300_000), (31, 70_000)])
def test_twice_what_is_retained_is_in_memory(columns: int, rows: int, by_time: bool) -> None:
    retention = TaskInterval.millis(rows - 1) if by_time else rows
    series = TimeSeries({f"c{i}": int for i in range(columns)}, retention=retention)
    extended(series, 3 * rows)
    assert in_memory(series) <= 2.2 * rows * 8 * (columns + 1)


@pytest.mark.parametrize(("columns", "rows"), [(1, 2_200_000), (7, 300_000), (31, 70_000)])
def test_of_a_series_that_keeps_all_rows_little_more_than_these_is_in_memory(
    columns: int, rows: int
) -> None:
    series = extended(TimeSeries({f"c{i}": int for i in range(columns)}), rows)
    assert in_memory(series) <= 1.15 * rows * 8 * (columns + 1)


@pytest.mark.parametrize("retention", [None, 10_000_000], ids=["all", "limited"])
def test_of_a_large_column_the_pages_are_large(retention: int | None) -> None:
    series = extended(TimeSeries({"a": int}, retention=retention), 5_000_000)
    store = store_of(series)
    for offset in store.layout.offsets:
        assert is_large(store.address + offset + (36 << 20))


def test_rows_that_are_copied_to_a_new_store_lie_in_large_pages() -> None:
    series = TimeSeries({"a": int}, retention=3_000_000)
    series.restore(np.arange(1_000_000), [np.arange(1_000_000)], 0)
    store = store_of(series)
    for offset in store.layout.offsets:
        assert is_large(store.address + offset + (3 << 20))
