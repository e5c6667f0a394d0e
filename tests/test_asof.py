"""The last row by each of some times, beside what pandas makes of it."""

from __future__ import annotations

import importlib
import pickle
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.blocks import SharedBlock

from run_task import Closed, ConfigError, TimeSeries, TimeSeriesView, TimeUnit

pd: Any = importlib.import_module("pandas")  # it comes without types

stamps = st.integers(min_value=-50, max_value=50)


def quotes(*times: int, unit: TimeUnit = TimeUnit.MILLIS) -> TimeSeriesView:
    series = TimeSeries({"bid": float, "size": int}, unit)
    series.extend(list(times), bid=[t + 0.5 for t in times], size=list(times))
    return series.view()


def values(view: TimeSeriesView, column: str = "size") -> list[int]:
    found: list[int] = view[column].tolist()
    return found


def test_the_last_row_by_a_time_counts_one_stamped_at_the_time_itself() -> None:
    view = quotes(10, 20, 30)
    joined = view.asof([10, 19, 20, 21, 99])
    assert values(joined) == [10, 10, 20, 20, 30]
    assert joined["bid"].tolist() == [10.5, 10.5, 20.5, 20.5, 30.5]


def test_the_time_of_a_row_is_its_own() -> None:
    asked = np.array([12, 25])
    joined = quotes(10, 20, 30).asof(asked)
    assert joined.time.tolist() == [10, 20]
    assert (asked - joined.time).tolist() == [2, 5]


def test_times_may_come_in_any_order_and_more_than_once() -> None:
    assert values(quotes(10, 20, 30).asof([30, 10, 10, 25])) == [30, 10, 10, 20]


def test_of_several_rows_of_one_stamp_it_is_the_last() -> None:
    series = TimeSeries({"n": int})
    series.extend([5, 5, 5], n=[1, 2, 3])
    assert values(series.view().asof([5, 6]), "n") == [3, 3]


@given(rows=st.lists(stamps, max_size=30), asked=st.lists(stamps, max_size=30))
def test_it_joins_as_pandas_does(rows: list[int], asked: list[int]) -> None:
    series = TimeSeries({"v": float, "at": "datetime64[ms]"})
    order = sorted(rows)
    series.extend(
        order, v=[float(i) for i in range(len(order))], at=np.array(order, "datetime64[ms]")
    )
    joined = series.view().asof(asked)
    left = pd.DataFrame({"asked": np.array(sorted(asked), np.int64)})
    right = pd.DataFrame({"t": series.view().time.copy(), "v": series.view()["v"].copy()})
    expected = pd.merge_asof(left, right, left_on="asked", right_on="t")
    by_time = dict(zip(expected["asked"].tolist(), expected["v"].tolist(), strict=True))
    assert len(joined) == len(asked)
    np.testing.assert_array_equal(joined["v"], [by_time[time] for time in asked])
    # The other columns tell of the same rows.
    np.testing.assert_array_equal(np.isnat(joined["at"]), np.isnan(joined["v"]))
    known = ~np.isnan(joined["v"])
    assert joined.time[known].tolist() == joined["at"][known].astype(np.int64).tolist()


@given(
    rows=st.lists(stamps, max_size=30),
    asked=st.lists(stamps, max_size=30),
    start=stamps,
    end=stamps,
)
def test_of_a_part_of_a_view_it_gives_rows_of_that_part(
    rows: list[int], asked: list[int], start: int, end: int
) -> None:
    part = quotes(*rows).between(start, end)
    joined = part.asof(asked)
    there = sorted(row for row in rows if start <= row < end)
    expected = [max((row for row in there if row <= time), default=None) for time in asked]
    found = [None if np.isnan(bid) else bid - 0.5 for bid in joined["bid"].tolist()]
    assert found == expected


def test_before_the_first_row_there_is_no_value_and_the_place_is_kept() -> None:
    joined = quotes(10, 20).asof([5, 15])
    assert np.isnan(joined["bid"][0])
    assert joined["bid"][1] == 10.5
    assert np.isnat(joined.time.view("M8[ms]")).tolist() == [True, False]


def test_a_column_that_cannot_say_so_is_refused_and_names_the_cure() -> None:
    joined = quotes(10, 20).asof([5, 6, 15])
    with pytest.raises(ConfigError, match=r"2 of the times .* int64 .*view\.time\[0\] on"):
        joined["size"]
    assert "?" in repr(joined)
    assert "NaT" in repr(joined)
    assert joined.between(0, 100)["size"].tolist() == [10]


def test_of_no_rows_none_is_there() -> None:
    assert np.isnan(quotes().asof([1, 2])["bid"]).all()
    assert len(quotes().asof([])) == 0
    assert len(quotes(1).asof([])) == 0


def test_times_of_other_kinds() -> None:
    view = quotes(1_700_000_000_000, 1_700_000_000_500)
    at = datetime(2023, 11, 14, 22, 13, 20, 499_999, tzinfo=UTC)
    assert values(view.asof(at)) == [1_700_000_000_000]
    assert values(view.asof(1_700_000_000_500)) == [1_700_000_000_500]
    assert values(view.asof(np.datetime64("2023-11-14T22:13:20.5"))) == [1_700_000_000_500]
    assert values(view.asof([at, at])) == [1_700_000_000_000] * 2
    column = pl.Series([at]).dt.replace_time_zone("UTC")
    assert values(view.asof(column)) == [1_700_000_000_000]
    frame = pd.Series(pd.to_datetime(["2023-11-14T22:13:20.6Z"]))
    assert values(view.asof(frame)) == [1_700_000_000_500]


def test_the_times_of_another_view_are_in_its_own_unit() -> None:
    trades = TimeSeries({"price": float}, TimeUnit.MICROS)
    trades.extend([1_700_000_000_000_999, 1_700_000_000_001_000], price=[1.0, 2.0])
    view = quotes(1_700_000_000_000, 1_700_000_000_001)
    assert values(view.asof(trades.view())) == [1_700_000_000_000, 1_700_000_000_001]
    seconds = TimeSeries({"price": float}, TimeUnit.SECONDS, zone="Europe/Berlin")
    seconds.append(1_700_000_000, price=1.0)
    assert values(view.asof(seconds.view())) == [1_700_000_000_000]
    there = seconds.view().asof(view)
    assert there["price"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bad", [["x"], "2024-01-01", [1.5], [np.datetime64("NaT", "s")], [None]])
def test_what_is_no_time_is_refused(bad: Any) -> None:
    with pytest.raises(ConfigError):
        quotes(1, 2).asof(bad)


def test_rows_in_no_order_cannot_be_asked_by_time() -> None:
    joined = quotes(10, 20, 30).asof([30, 10])
    for view in (joined, pickle.loads(pickle.dumps(joined))):
        with pytest.raises(ConfigError, match="in no order"):
            view.between(0, 15)
        with pytest.raises(ConfigError, match="in no order"):
            view.asof([10])
    in_order = quotes(10, 20, 30).asof([10, 30])
    assert values(in_order.between(0, 15)) == [10]
    assert values(in_order.asof([29, 31])) == [10, 30]


def test_a_series_that_is_closed_on_the_right_has_rows_by_their_stamp_too() -> None:
    series = TimeSeries({"n": int}, closed=Closed.RIGHT)
    series.extend([10, 20], n=[1, 2])
    assert values(series.view().asof([10, 19, 20]), "n") == [1, 1, 2]


def test_what_it_gives_stays_and_cannot_be_written_to() -> None:
    series = TimeSeries({"n": int}, retention=2)
    series.extend([1, 2], n=[1, 2])
    joined = series.view().asof([1, 2, 2])
    series.extend([3, 4, 5, 6], n=[3, 4, 5, 6])
    assert values(joined, "n") == [1, 2, 2]
    for array in (joined["n"], joined.time):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 9


def test_it_goes_to_other_processes_and_other_libraries() -> None:
    series = TimeSeries({"bid": float})
    series.relocate(SharedBlock)
    series.extend([10, 20], bid=[1.0, 2.0])
    joined = series.view().asof([5, 20, 10])
    again = pickle.loads(pickle.dumps(joined))
    np.testing.assert_array_equal(again["bid"], [np.nan, 2.0, 1.0])
    assert again.time.tolist() == joined.time.tolist()
    frame = joined.to_polars()
    assert frame["time"].is_null().to_list() == [True, False, False]
    assert joined.to_pandas()["time"].isna().tolist() == [True, False, False]
    assert joined.to_arrow()["time"].null_count == 1
