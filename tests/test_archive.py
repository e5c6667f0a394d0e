"""The numbers of the last hour: which are kept, for how long, and how many at most."""

from __future__ import annotations

import math
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple

import pytest

from run_task import DataSet, KeyedDataSet, TaskInterval, Window
from run_task.pipeline import _archive
from run_task.pipeline._archive import Archive, numbers_of
from run_task.tasks import Alert

MILLIS = TaskInterval.millis(1)


class Both(NamedTuple):
    low: float
    name: str


def window(end: int, **results: object) -> DataSet[object]:
    return DataSet(Window(end - 1, end), results, interval=MILLIS)


def by_key(end: int, **results: float) -> KeyedDataSet[str, float]:
    return KeyedDataSet(Window(end - 1, end), "id", {"value": results}, interval=MILLIS)


def test_numbers_fields_and_alerts_are_drawn() -> None:
    found = numbers_of(
        {
            "a": 1.5,
            "b": Decimal("2.5"),
            "both": Both(3.0, "x"),
            "mapping": {"p": 4, "q": "y"},
            "on": Alert(True, 5),
            "text": "z",
        }
    )
    assert math.isnan(found.pop("text"))
    assert found == {"a": 1.5, "b": 2.5, "both_low": 3.0, "mapping_p": 4.0, "on": 1.0}


def test_the_last_windows_are_kept_and_one_a_second_of_those_before() -> None:
    archive = Archive()
    for number in range(1, 10_001):  # ten a second, for a thousand seconds
        archive.note("a", window(number * 100, value=float(number)), number / 10)
    found = archive.read("a", None, 0)
    gaps = [later - earlier for earlier, later in pairwise(found.ends_ms)]
    close = sum(gap == 100.0 for gap in gaps)
    assert 599 <= close <= 750
    assert gaps[-close:] == [100.0] * close
    assert set(gaps[: -close - 1]) == {1000.0}  # and where both meet, less
    assert found.ends_ms[0] < 2000.0
    assert list(found.columns["value"]) == [end / 100 for end in found.ends_ms]
    later = archive.read("a", None, 999_800.0)
    assert list(later.ends_ms) == [999_900.0, 1_000_000.0]


def test_an_hour_is_kept_and_no_more() -> None:
    archive = Archive()
    for number in range(1, 10_001):
        archive.note("a", window(number * 1000, value=1.0), float(number))
    ends_ms = archive.read("a", None, 0).ends_ms
    assert 3600 <= len(ends_ms) <= 4500
    assert ends_ms[-1] - ends_ms[0] == 1000.0 * (len(ends_ms) - 1)


def test_of_a_stage_that_catches_up_all_are_kept_and_of_one_that_rages_few() -> None:
    archive = Archive()
    for number in range(1, 501):
        archive.note("catches up", window(number, value=1.0), 100.0)
    assert len(archive.read("catches up", None, 0).ends_ms) == 500
    for number in range(1, 100_001):
        archive.note("rages", window(number, value=1.0), 100.0 + number / 100_000)
    assert len(archive.read("rages", None, 0).ends_ms) <= 630


def test_tasks_come_and_go() -> None:
    archive = Archive()
    for number in range(1, 1001):
        results = {"old": 1.0} if number < 100 else {"new": 2.0}
        archive.note("a", window(number * 1000, **results), number * 0.05)
    found = archive.read("a", None, 0)
    assert math.isnan(found.columns["new"][0])
    assert found.columns["new"][-1] == 2.0
    assert len({len(found.ends_ms), *map(len, found.columns.values())}) == 1
    archive.note("a", window(1, old=1.0), 100.0)  # a window again
    assert archive.read("a", None, 0).ends_ms[-1] == 1_000_000.0


def test_keys_are_kept_while_somebody_asks_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive()
    archive.note("a", by_key(1000, x=1.0, y=2.0), 0.0)
    archive.watch("a", "x", 0.5)
    archive.note("a", by_key(2000, x=3.0, y=4.0), 1.0)
    archive.note("a", by_key(3000, y=5.0), 2.0)
    found = archive.read("a", "x", 0)
    assert list(found.ends_ms) == [2000.0, 3000.0]
    assert found.columns["value"][0] == 3.0
    assert math.isnan(found.columns["value"][1])
    assert not archive.read("a", "y", 0).ends_ms
    archive.note("a", by_key(4000, x=6.0), 601.0)  # nobody has asked for ten minutes
    assert not archive.read("a", "x", 0).ends_ms
    monkeypatch.setattr(_archive, "_MOST_KEYS", 3)
    for number in range(5):
        archive.watch("a", f"key {number}", 700.0)
    archive.note("a", by_key(5000, **{f"key {number}": 1.0 for number in range(5)}), 701.0)
    kept = [bool(archive.read("a", f"key {number}", 0).ends_ms) for number in range(5)]
    assert kept == [False, False, True, True, True]


def test_keys_that_there_are_not_take_no_room_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_archive, "_MOST_KEYS", 3)
    archive = Archive()
    for key in ("x", "y", "new"):
        archive.watch("a", key, 0.0)
        archive.note("a", by_key(1000 if key == "x" else 2000, x=1.0, y=2.0), 1.0)
    for number in range(9):
        archive.watch("a", f"no such {number}", 2.0)
    archive.note("a", by_key(3000, x=1.0, y=2.0), 3.0)
    assert list(archive.read("a", "x", 0).ends_ms) == [1000.0, 2000.0, 3000.0]
    assert list(archive.read("a", "y", 0).ends_ms) == [2000.0, 3000.0]
    archive.watch("a", "z", 4.0)  # no key but those that were asked for last is kept
    archive.note("a", by_key(4000, x=1.0, y=2.0, z=3.0), 5.0)
    assert archive.read("a", "x", 0).ends_ms
    assert list(archive.read("a", "z", 0).ends_ms) == [4000.0]
    archive.watch("a", "w", 6.0)
    assert not archive.read("a", "x", 0).ends_ms


def test_there_are_so_many_series_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_archive, "_MOST_SERIES", 10)
    archive = Archive()
    for stage in range(20):
        archive.note(f"{stage}", window(1, a=1.0, b=2.0), 0.0)
    kept = [stage for stage in range(20) if archive.read(f"{stage}", None, 0).ends_ms]
    assert kept == [0, 1, 2, 3, 4]
