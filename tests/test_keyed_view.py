"""The rows of a window by key."""

from __future__ import annotations

import gc
import pickle
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_task import ConfigError, RunnerConfig, TaskInterval, TimeSeries, TimeSeriesView, TimeUnit
from run_task.data._buckets import BUCKETS, bucket_of, buckets_of_ints, part_of, parts_of
from run_task.data.series._grouped import keys_and_lasts
from run_task.data.series._keyed_view import KeyedView, KeyView
from run_task.executors._states import States
from run_task.runner._keys import Keys, bound_of

TEXTS = st.text(max_size=3)
NARROW = st.integers(-5, 5)
UNSIGNED = st.one_of(st.integers(0, 3), st.integers(2**63 - 2, 2**64 - 1))
WIDE = st.integers(-(2**63), 2**63 - 1)


def series_of(kind: Any, rows: list[tuple[int, Any]]) -> TimeSeries:
    series = TimeSeries({"key": kind, "number": int}, key="key")
    series.extend([time for time, _ in rows], key=[key for _, key in rows], number=range(len(rows)))
    return series


def numbers(view: TimeSeriesView) -> list[int]:
    found: list[int] = view["number"].tolist()
    return found


@pytest.mark.parametrize(
    ("kind", "keys"),
    [(str, TEXTS), (int, NARROW), (int, WIDE), (np.int8, NARROW), (np.uint64, UNSIGNED)],
    ids=["texts", "narrow", "wide", "int8", "uint64"],
)
@given(data=st.data())
def test_each_key_has_its_rows_in_the_order_of_time(kind: Any, keys: Any, data: Any) -> None:
    rows: list[tuple[int, Any]] = data.draw(
        st.lists(st.tuples(st.integers(-20, 20), keys), max_size=60)
    )
    start, end = data.draw(st.tuples(st.integers(-25, 25), st.integers(-25, 25)))
    quiet = data.draw(st.lists(keys, max_size=3))
    series = series_of(kind, rows)
    keyed = KeyedView(series.view().for_window(start, end), "key")
    keyed.include(quiet)
    in_order = sorted(enumerate(rows), key=lambda row: row[1][0])
    expected: dict[Any, tuple[list[int], list[int]]] = {key: ([], []) for key in quiet}
    for _, (time, key) in in_order:
        if start <= time < end:
            expected.setdefault(key, ([], []))
    for number, (time, key) in in_order:
        if time < end and key in expected:
            expected[key][0].append(number)
            if start <= time:
                expected[key][1].append(number)
    for given_view in (keyed, pickle.loads(pickle.dumps(keyed))):
        assert list(given_view.keys) == sorted(expected)
        for view in given_view.views():
            everything, inside = expected[view.key]
            assert numbers(view.in_window) == inside
            assert numbers(view) == everything
            assert len(view) == len(everything)
            assert set(view["key"].tolist()) <= {view.key}
            assert numbers(view.between(start, end)) == inside
            assert numbers(view.between(start - 3, end)) == [
                number for number in everything if start - 3 <= rows[number][0] < end
            ]


def test_what_is_not_of_one_key_says_so() -> None:
    series = series_of(str, [(1, "A"), (2, "B")])
    (view, _) = KeyedView(series.view().for_window(0, 10), "key").views()
    assert view.key == "A"
    for other in series.view(), view.in_window:
        assert not hasattr(other, "key")
        with pytest.raises(AttributeError, match="only the view that a task is given"):
            _ = other.key


@pytest.mark.parametrize(
    ("kind", "keys"),
    [(str, TEXTS), (int, WIDE), (np.int8, NARROW), (np.uint64, UNSIGNED)],
    ids=["texts", "wide", "int8", "uint64"],
)
@given(data=st.data(), count=st.sampled_from([1, 2, 3, 7, 2000]))
def test_parts_have_each_key_once_with_its_rows(
    kind: Any, keys: Any, data: Any, count: int
) -> None:
    rows = data.draw(st.lists(st.tuples(st.integers(0, 20), keys), max_size=40))
    quiet = data.draw(st.lists(keys, max_size=3))
    whole = KeyedView(series_of(kind, rows).view().for_window(5, 15), "key")
    whole.include(quiet)
    lasts = list(whole.last_times())  # found without bringing rows together, where they are texts
    expected = [(view.key, numbers(view), numbers(view.in_window)) for view in whole.views()]
    found: list[tuple[Any, list[int], list[int]]] = []
    for number in {part_of(bucket_of(key), count) for key, _, _ in expected} | {0, count - 1}:
        part = pickle.loads(pickle.dumps(whole)).part(number, count)
        assert list(part.keys) == sorted(part.keys)
        assert {part_of(bucket_of(key), count) for key in part.keys} <= {number}
        found += [(view.key, numbers(view), numbers(view.in_window)) for view in part.views()]
    assert sorted(found) == expected
    assert list(whole.part(0, 1).last_times()) == lasts
    assert [key for key, _ in lasts] == [key for key, _, inside in expected if inside]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30), st.integers(1, 3000))
def test_buckets_of_many_ints_are_those_of_each(keys: list[int], count: int) -> None:
    expected = [bucket_of(key) for key in keys]
    for array in (np.array(keys, np.int64), np.array(keys, np.int64).view(np.uint64)):
        assert buckets_of_ints(array).tolist() == [bucket_of(key) for key in array.tolist()]
    buckets = buckets_of_ints(np.array(keys, np.int64))
    assert buckets.tolist() == expected
    assert parts_of(buckets, count).tolist() == [part_of(bucket, count) for bucket in expected]


@given(st.lists(TEXTS, min_size=1, max_size=20), st.integers(1000, 3000))
def test_few_rows_of_a_series_with_many_texts(keys: list[str], others: int) -> None:
    rows: list[tuple[int, Any]] = [(0, f"other {i}") for i in range(others)]
    series = series_of(str, [*rows, *((9, key) for key in keys)])
    keyed = KeyedView(series.view().for_window(5, 10), "key")
    assert list(keyed.keys) == sorted(set(keys))
    assert [numbers(view.in_window) for view in keyed.views()] == [
        [others + i for i, key in enumerate(keys) if key == each] for each in sorted(set(keys))
    ]


def test_keys_that_come_later_find_their_place_in_the_order() -> None:
    series = TimeSeries({"key": str, "number": int}, key="key")
    for i, key in enumerate(["m", "z", "a", "q", "b", "\U0001f600", "é"]):
        series.append(i, key=key, number=i)
        keyed = KeyedView(series.view().for_window(0, i + 1), "key")
        assert list(keyed.keys) == sorted(keyed.keys)
        assert len(keyed.keys) == i + 1


def key_view() -> KeyView:
    series = series_of(str, [(0, "a"), (1, "b"), (2, "a")])
    view: KeyView = KeyedView(series.view().for_window(1, 3), "key").views()[0]
    return view


def test_the_view_of_a_key_is_one_as_any_other() -> None:
    view = key_view()
    assert isinstance(view, TimeSeriesView)
    assert view.key == "a"
    assert view.unit is view.in_window.unit
    assert view.time.tolist() == [0, 2]
    assert not view["number"].flags.writeable
    assert not view.in_window["number"].flags.writeable
    assert "TimeSeriesView of 2 rows" in repr(key_view())
    assert numbers(pickle.loads(pickle.dumps(key_view()))) == [0, 2]
    assert key_view().to_arrow()["number"].to_pylist() == [0, 2]
    with pytest.raises(AttributeError, match="'KeyView' object has no attribute 'prices'"):
        view.prices  # noqa: B018  # to look is what is refused
    with pytest.raises(KeyError, match="there is no column 'price'"):
        key_view()["price"]


def test_the_rows_of_a_window_are_copied_once_for_all_keys() -> None:
    series = series_of(str, [(i, f"k{i % 3}") for i in range(30)])
    columns = [
        view.in_window["number"]
        for view in KeyedView(series.view().for_window(0, 30), "key").views()
    ]
    addresses = [column.__array_interface__["data"][0] for column in columns]
    assert [b - a for a, b in pairwise(addresses)] == [80, 80]


@pytest.mark.parametrize(
    ("columns", "key", "message"),
    [
        ({"x": int}, "y", "key='y'.: there is no such column, but 'x'"),
        ({"x": float}, "x", "a key is a text or an int, and the column holds float64"),
        ({"x": bool}, "x", "a key is a text or an int, and the column holds bool"),
        ({"x": "U8"}, "x", "the column holds <U8: declare it str or int"),
        ({"x": "M8[s]"}, "x", "the column holds datetime64"),
    ],
    ids=str,
)
def test_what_cannot_be_a_key_is_refused(columns: Any, key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TimeSeries(columns, key=key)


# Buckets.


def test_buckets_are_what_they_were() -> None:
    # Whatever is kept by bucket depends on these.
    texts = ("", "a", "BTC", "naïve", "\ud800")
    assert [bucket_of(key) for key in texts] == [0, 579, 198, 358, 296]
    ints = (0, 1, -1, 2**63 - 1, -(2**63))
    assert [bucket_of(key) for key in ints] == [873, 1015, 796, 60, 73]


def test_keys_spread_over_all_buckets() -> None:
    for keys in ([f"device-{i}" for i in range(20_000)], range(20_000)):
        counts = np.bincount([bucket_of(key) for key in keys], minlength=BUCKETS)
        assert len(counts) == BUCKETS
        assert counts.min() > 3
        assert counts.max() < 50


def test_what_is_no_key_has_no_bucket() -> None:
    for key in (None, 2**64, -(2**63) - 1, b"a"):
        bad: Any = key
        with pytest.raises(ConfigError, match="is no key: a key is a text, or an int of 64 bits"):
            bucket_of(bad)


def test_a_view_is_there_for_as_long_as_somebody_has_it() -> None:
    # Not tracked by thousands, they do not have the garbage collector look through all there is.
    series = series_of(int, [(0, key) for key in range(1000)])

    def there() -> int:
        return sum(isinstance(one, KeyView) for one in gc.get_objects())

    before = there()
    keyed = KeyedView(series.view().for_window(0, 10), "key")
    views = keyed.views()
    for place, view in enumerate(views):
        assert view.key == place
        assert len(view.in_window) == 1
        if place % 400 == 0:
            assert there() - before <= 1
    assert len(views) == 1000
    assert [views[0].key, views[-1].key] == [0, 999]
    assert [view.key for view in views[3:5]] == [3, 4]
    with pytest.raises(IndexError):
        views[1000]


@pytest.mark.parametrize("looks_at_rows", [True, False])
def test_keys_are_looked_for_apart_where_nobody_asks_for_their_rows(looks_at_rows: bool) -> None:
    series = TimeSeries({"key": int, "value": float}, TimeUnit.SECONDS, key="key")
    every, by = TaskInterval.seconds(10), Keys.checked("key", "1h", 100)
    bound = bound_of(series, every, RunnerConfig(), by, States())
    assert bound is not None
    with mock.patch(
        "run_task.data.series._keyed_view.keys_and_lasts", wraps=keys_and_lasts
    ) as look:
        for start in range(0, 50, 10):
            series.extend(start + np.arange(6), key=np.arange(6) % 4, value=np.arange(6.0))
            view = bound(series.view(), start, start + 10)
            assert view.keys == [0, 1, 2, 3]
            assert dict(view.last_times()) == {
                0: start + 4,
                1: start + 5,
                2: start + 2,
                3: start + 3,
            }
            if looks_at_rows:
                assert [len(one.in_window) for one in view.views()] == [2, 2, 1, 1]
    assert look.call_count == (1 if looks_at_rows else 5)
