"""Copies of shared data, which a replay has, and what enters data of any kind."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from run_task import Atom, RwLock, TimeSeries, TimeUnit


def test_a_copy_of_a_lock_has_its_value_and_is_apart() -> None:
    lock = RwLock([[1]])
    twin = copy.deepcopy(lock)
    with twin.write() as value:
        value[0].append(2)
    with lock.read() as mine, twin.read() as its:
        assert (mine, its) == ([[1]], [[1, 2]])


def test_a_copy_of_an_atom_is_apart() -> None:
    atom: Atom[tuple[int, ...]] = Atom((1, 2))
    twin = copy.deepcopy(atom)
    twin.reset((3, 4))
    assert (atom.value, twin.value) == ((1, 2), (3, 4))


@pytest.mark.parametrize("retention", [None, 3])
def test_a_copy_of_a_series_has_its_rows_and_what_it_keeps(retention: int | None) -> None:
    series = TimeSeries({"v": float, "s": "U4"}, unit=TimeUnit.SECONDS, retention=retention)
    for i in range(5):
        series.append(i, v=i / 7, s=f"r{i}")
    twin = copy.deepcopy(series)
    for rows in (series, twin):
        rows.append(5, v=1.0, s="new")
        rows.append(4, v=2.0, s="late")
    assert (twin.unit, twin.columns) == (series.unit, series.columns)
    assert len(twin.view()) == (retention or 7)
    for name in ("v", "s"):
        assert twin.view()[name].tolist() == series.view()[name].tolist()
    twin.append(9, v=0.0, s="")
    assert len(series.view()) == (retention or 7)


def test_what_is_in_other_shared_data_is_copied_once() -> None:
    inner = RwLock([1])
    both: Any = copy.deepcopy([RwLock({"inner": inner}), inner])
    with both[0].read() as value:
        assert value["inner"] is both[1]


def test_what_is_written_to_is_the_value_or_the_data_itself() -> None:
    data: Any
    for data in (Atom(1), TimeSeries({"v": float})):
        with data.write(0.1) as target:
            assert target is data
    with RwLock([1]).write() as value:
        assert value == [1]
