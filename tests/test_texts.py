"""Columns of texts of any length."""

from __future__ import annotations

import copy
import enum
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.crews import WorkersBench
from tests.support.deeds import Looker, identity

from run_task import ConfigError, TimeSeries, TimeSeriesView, TimeUnit
from run_task.data._memory import SharedBlock
from run_task.data.series._texts import Texts, texts_at

pandas: Any = pytest.importorskip("pandas")  # it has no types
polars = pytest.importorskip("polars")
pyarrow: Any = pytest.importorskip("pyarrow")  # it has no types

LONG = "x" * 100_000
ODD = ["", "a", "a\0", "\0", "\ud800", "naïve", LONG, "1", "nan", "None"]


def filled(texts: list[str], retention: int | None = None) -> TimeSeries:
    series = TimeSeries({"name": str, "number": int}, retention=retention)
    series.extend(range(len(texts)), name=texts, number=range(len(texts)))
    return series


def kept(series: TimeSeries) -> int:
    """How many texts a series keeps."""
    _, texts = series.view().encoded("name")
    return len(texts)


def test_texts_of_any_length_come_back_as_they_were() -> None:
    series = filled(ODD)
    for i, text in enumerate(ODD):
        series.append(len(ODD) + i, name=text, number=i)
    view = series.view()
    assert view["name"].tolist() == ODD * 2
    assert {type(text) for text in view["name"]} == {str}
    assert not view["name"].flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view["name"][0] = "b"


def test_a_row_takes_four_bytes_and_each_text_is_kept_once() -> None:
    series = TimeSeries({"name": str})
    for i in range(10_000):
        series.append(i, name=f"device {i % 7}")
    codes, texts = series.view().encoded("name")
    assert codes.itemsize == 4
    assert sorted(texts) == [f"device {i}" for i in range(7)]
    assert not codes.flags.writeable
    assert not texts.flags.writeable
    assert (texts[codes] == series.view()["name"]).all()
    assert codes.base is not None  # it is the series' own memory


def test_a_column_of_texts_says_so_and_can_be_declared_from_what_it_says() -> None:
    series = filled(["a"])
    assert series.columns["name"] == np.dtype(str)
    assert "name str" in repr(series)
    twin = TimeSeries(series.columns)
    twin.append(0, name=LONG, number=1)
    assert twin.view()["name"].tolist() == [LONG]


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    "given",
    [
        ["red", "b"],
        (text for text in ("red", "b")),
        np.array(["red", "b"]),
        np.array(["red", "b"], object),
        [np.str_("red"), "b"],
        [Colour.RED, "b"],
        pandas.Series(["red", "b"]),
        pandas.Series(["red", "b"], dtype="category"),
        pandas.Series(["red", "b"], dtype="string"),
        polars.Series(["red", "b"]),
        polars.Series(["red", "b"], dtype=polars.Categorical),
        pyarrow.array(["red", "b"]),
        pyarrow.array(["red", "b"]).dictionary_encode(),
        pyarrow.chunked_array([["red"], ["b"]]),
    ],
    ids=lambda given: type(given).__name__,
)
def test_texts_are_taken_from_what_people_have(given: Any) -> None:
    series = TimeSeries({"name": str})
    series.extend([0, 1], name=given)
    found = series.view()["name"].tolist()
    assert found == ["red", "b"]
    assert {type(text) for text in found} == {str}


@pytest.mark.parametrize("bad", [None, float("nan"), 3, b"a", ["a"], {}, np.int64(1)], ids=repr)
def test_what_is_no_text_is_refused_by_name_and_nothing_is_stored(bad: Any) -> None:
    series = filled(["a"])
    with pytest.raises(ConfigError, match=r"column 'name', row of timestamp 9: .* is no str"):
        series.append(9, name=bad, number=1)
    with pytest.raises(ConfigError, match=r"column 'name', row 1, of timestamp 10: .* is no str"):
        series.extend([9, 10], name=["b", bad], number=[1, 2])
    assert series.view()["name"].tolist() == ["a"]


def test_texts_of_several_dimensions_are_refused() -> None:
    with pytest.raises(ConfigError, match="it has 2 dimensions"):
        TimeSeries({"name": str}).extend([0], name=np.array([["a"]]))


def test_encoded_is_for_columns_of_texts() -> None:
    view = filled(["a"]).view()
    for column in ("number", "nothing"):
        with pytest.raises(
            KeyError, match=rf"'{column}' is no column of texts .* these are 'name'"
        ):
            view.encoded(column)


# Retention.


def test_texts_that_no_row_has_any_more_are_let_go_of() -> None:
    series = TimeSeries({"name": str, "number": int}, retention=100)
    for i in range(20_000):
        series.append(i, name=f"order {i}", number=i)
    assert kept(series) < 1500
    assert series.view()["name"].tolist() == [f"order {i}" for i in range(19_900, 20_000)]


def test_views_keep_the_texts_of_their_rows() -> None:
    series = TimeSeries({"name": str, "number": int}, retention=100)
    views: list[tuple[TimeSeriesView, int]] = []
    for i in range(5000):
        series.append(i, name=f"order {i}", number=i)
        if i % 97 == 0:
            views.append((series.view(), i))
    for view, last in views:
        first = max(0, last - 99)
        assert view["name"].tolist() == [f"order {i}" for i in range(first, last + 1)]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 700)), max_size=300), max_size=12
    ),
    st.one_of(st.none(), st.integers(1, 80)),
)
def test_rows_in_any_order_keep_their_texts(
    batches: list[list[tuple[int, int]]], retention: int | None
) -> None:
    series = TimeSeries({"name": str, "number": int}, retention=retention)
    for batch in batches:
        series.extend(
            [time for time, _ in batch],
            name=[f"n{number}" for _, number in batch],
            number=[number for _, number in batch],
        )
        view = series.view()
        assert view["name"].tolist() == [f"n{number}" for number in view["number"]]


# Tables of other libraries.


def test_tables_carry_the_codes() -> None:
    view = filled(["b", "a", "b"]).view()
    table = view.to_arrow()
    assert pyarrow.types.is_dictionary(table.schema.field("name").type)
    assert table["name"].to_pylist() == ["b", "a", "b"]
    frame = view.to_polars()
    assert frame["name"].dtype == polars.Categorical
    assert frame["name"].to_list() == ["b", "a", "b"]
    other = view.to_pandas()
    assert other["name"].dtype == "category"
    assert other["name"].tolist() == ["b", "a", "b"]


def test_frames_of_two_series_can_be_joined() -> None:
    one, two = filled(["b", "a"]).view().to_polars(), filled(["a", "c", "b"]).view().to_polars()
    joined = one.join(two, on="name").sort("time")
    assert joined["number_right"].to_list() == [2, 0]


def test_tables_of_few_rows_have_few_texts() -> None:
    view = filled([f"n{i}" for i in range(1000)]).view().between(500, 502)
    assert len(view.to_arrow()["name"].chunk(0).dictionary) == 2
    assert len(view.to_pandas()["name"].cat.categories) == 2


def test_what_is_no_unicode_is_refused_by_name() -> None:
    view = filled(["\ud800"]).view()
    for table in (view.to_arrow, view.to_polars, view.to_pandas):
        with pytest.raises(ConfigError, match=r"column 'name': .* is no text in UTF-8"):
            table()


# Copies, and other processes.


def test_a_pickled_view_has_the_texts_of_its_own_rows() -> None:
    view = filled([*ODD, *(f"n{i}" for i in range(1000))]).view().between(0, len(ODD))
    data = pickle.dumps(view)
    again = pickle.loads(data)
    assert again["name"].tolist() == ODD
    assert len(again.encoded("name").texts) == len(ODD)
    assert b"n999" not in data


def test_a_copy_of_a_series_goes_on_by_itself() -> None:
    series = filled(["a", "b"])
    twin = copy.deepcopy(series)
    twin.append(2, name="c", number=2)
    series.append(2, name="d", number=2)
    assert twin.view()["name"].tolist() == ["a", "b", "c"]
    assert series.view()["name"].tolist() == ["a", "b", "d"]


def test_texts_in_shared_memory_are_read_once() -> None:
    texts = Texts(ODD)
    first = texts_at(texts.shared(SharedBlock))
    assert [first.code(text) for text in ODD] == list(range(len(ODD)))
    for i in range(3000):
        texts.code(f"another {i}")
    segments = texts.shared(SharedBlock)
    assert len(segments) > 1
    second = texts_at(segments)
    assert second is first
    assert second.decode(np.arange(len(texts), dtype=np.int32)).tolist() == [
        *ODD,
        *(f"another {i}" for i in range(3000)),
    ]
    assert second.shared(SharedBlock) == segments  # a result that is sent back says where they are
    del texts


def names_of(view: TimeSeriesView) -> list[str]:
    names: list[str] = view["name"].tolist()
    return names


def test_worker_processes_have_the_codes_and_learn_new_texts() -> None:
    series = TimeSeries({"name": str}, TimeUnit.SECONDS)
    series.append(0, name="a")
    bench = WorkersBench([Looker("names", names_of), Looker("view", identity)], series)
    expected = ["a"]
    with bench.runner:
        for i in range(1, 40):
            dataset = bench.next()
            assert dataset["names"] == expected
            assert dataset["view"]["name"].tolist() == expected
            expected.append(f"text {i}" if i % 5 else LONG + str(i))
            series.append(i, name=expected[-1])


def test_asof_of_a_column_of_texts_has_none_where_there_is_no_row() -> None:
    view = filled(["a", "b"]).view().between(0, 2).asof([-5, 0, 1, 9])
    assert view["name"].tolist() == [None, "a", "b", "b"]
    codes, texts = view.encoded("name").compact()
    assert codes.tolist() == [-1, 0, 1, 1]
    assert texts.tolist() == ["a", "b"]
    names = TimeSeries({"name": str})
    names.extend([0, 1], name=["a", "b"])
    asked = names.view().asof([-5, 1])
    assert asked.to_arrow()["name"].to_pylist() == [None, "b"]
    assert asked.to_polars()["name"].to_list() == [None, "b"]
    assert asked.to_pandas()["name"].isna().tolist() == [True, False]
    assert pickle.loads(pickle.dumps(asked))["name"].tolist() == [None, "b"]


@pytest.mark.parametrize("bad", [None, 5, b"bytes", ["no hash"], 1.5], ids=repr)
@pytest.mark.parametrize("key", [None, "first", "second", "third"])
@pytest.mark.parametrize("limited", [False, True], ids=["any keys", "max_keys"])
def test_a_row_that_is_refused_for_one_text_leaves_none_of_the_others(
    bad: Any, key: str | None, limited: bool
) -> None:
    names = ["first", "second", "third"]
    series = TimeSeries({"first": str, "n": int, "second": str, "third": str}, key=key)
    series.append(1, n=1, **dict.fromkeys(names, "there"))
    if limited and key is not None:
        series.limit_keys(3)
    for number, name in enumerate(names):
        for others in ({}, dict.fromkeys(names, "there")):
            row = {**{one: f"refused {number} {one}" for one in names}, **others, name: bad}
            with pytest.raises(ConfigError, match=f"column '{name}', row of timestamp 2"):
                series.append(2, n=2, **row)
    for name in names:
        assert series.view().encoded(name).texts.tolist() == ["there"]
    series.append(2, n=2, first="a", second="b", third="c")
    view = series.view()
    assert [view[name].tolist()[1] for name in names] == ["a", "b", "c"]


def test_a_row_whose_key_is_one_too_many_leaves_no_text() -> None:
    series = TimeSeries({"other": str, "symbol": str}, key="symbol")
    series.append(1, other="there", symbol="A")
    series.append(1, other="there", symbol="B")
    series.limit_keys(2)
    for time in (2, 0):
        with pytest.raises(ConfigError, match="'C' is a new key"):
            series.append(time, other="refused", symbol="C")
    with pytest.raises(ConfigError, match="'C' is a new key"):
        series.extend([3, 4], other=["refused"] * 2, symbol=["A", "C"])
    assert series.view().encoded("other").texts.tolist() == ["there"]
    assert series.view().encoded("symbol").texts.tolist() == ["A", "B"]


def test_rows_that_are_refused_for_another_value_leave_no_text() -> None:
    series = TimeSeries({"name": str, "value": float}, TimeUnit.SECONDS)
    series.append(0, name="a", value=1.0)
    for i in range(1000):
        with pytest.raises(ConfigError, match="column 'value'"):
            series.append(1, name=f"refused {i}", value="no number")
    series.append(1, value=2.0, name="b")
    _, texts = series.view().encoded("name")
    assert texts.tolist() == ["a", "b"]
    assert series.view()["name"].tolist() == ["a", "b"]
