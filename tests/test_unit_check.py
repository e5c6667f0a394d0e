"""A timestamp that only another unit than the one that was said explains."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_task import Pipeline, RwLock, TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.time._unit_check import likely_unit

NOW_NS = 1_719_835_200_000_000_000


@given(
    st.integers(315_532_800, 4_102_444_000),
    st.sampled_from(TimeUnit),
    st.sampled_from(TimeUnit),
)
def test_a_time_of_today_looks_like_what_it_is(
    seconds: int, true: TimeUnit, said: TimeUnit
) -> None:
    stamp = -(-seconds * 10**9 // true.nanos)
    assert likely_unit(stamp, said) is (None if true is said else true)


@pytest.mark.parametrize("stamp", [0, 1, -1, 59, 10**5, 10**30, -(10**30)])
def test_what_no_unit_explains_is_what_it_is(stamp: int) -> None:
    assert [likely_unit(stamp, unit) for unit in TimeUnit] == [None] * 5


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.mark.parametrize("true", TimeUnit)
@pytest.mark.parametrize("many", [False, True])
def test_a_series_takes_it_with_one_warning(
    true: TimeUnit, many: bool, caplog: pytest.LogCaptureFixture
) -> None:
    said = TimeUnit.SECONDS
    series = TimeSeries({"v": float}, said)
    stamps = [NOW_NS // true.nanos + i for i in range(5)]
    if many:
        series.extend(stamps, v=[1.0] * 5)
        series.extend(stamps, v=[1.0] * 5)
    else:
        for stamp in (*stamps, stamps[0]):
            series.append(stamp, v=1.0)
    assert series.view().time[-1] == stamps[-1]
    told = warnings(caplog)
    if true is said:
        assert told == []
    else:
        assert len(told) == 1
        assert f"looks like {true.name.lower()}" in told[0]
        assert "2024-07-01T12:00:0" in told[0]
        assert f"unit=TimeUnit.{true.name}" in told[0]


@pytest.mark.parametrize("first", [[], [NOW_NS // 10**9]])
@pytest.mark.parametrize("odd", [NOW_NS // 10**6, NOW_NS // 60_000_000_000])
def test_it_is_found_among_others_too(
    first: list[int], odd: int, caplog: pytest.LogCaptureFixture
) -> None:
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    for stamp in (*first, odd, odd + 1):
        series.append(stamp, v=1.0)
    assert sorted([*first, odd, odd + 1]) == series.view().time.tolist()
    assert len(warnings(caplog)) == 1


def test_rows_of_no_time_in_particular_are_no_cause(caplog: pytest.LogCaptureFixture) -> None:
    series = TimeSeries({"v": float})
    for stamp in (0, 5, 3, 2**62, 2**63 - 1, -(2**63)):
        series.append(stamp, v=1.0)
    assert len(series.view()) == 6
    assert warnings(caplog) == []


@task
def rows(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@task
def nothing(data: Any, start: int, end: int) -> None:
    pass


def test_a_source_into_a_series_or_other_data_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    millis = [(NOW_NS // 10**6 + 1000 * i, {"v": 1.0}) for i in range(3)]
    series = TimeSeries({"v": float}, TimeUnit.SECONDS)
    pipeline = Pipeline("p").source(millis, series, max_ahead=None)
    pipeline.stage("a", [rows], series, "1000s")
    assert [dataset["rows"] for _, dataset in pipeline.replay()].count(1) == 3
    assert ["looks like millis" in told for told in warnings(caplog)] == [True]
    list(pipeline.replay())
    assert len(warnings(caplog)) == 1
    caplog.clear()
    plain = RwLock[list[Any]]([])
    pipeline = Pipeline("p").source(
        millis, plain, lambda held, row: held.append(row), unit=TimeUnit.SECONDS, max_ahead=None
    )
    pipeline.stage("a", [nothing], plain, "1000s")
    assert len(list(pipeline.replay()))
    assert ["looks like millis" in told for told in warnings(caplog)] == [True]
