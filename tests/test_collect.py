"""DataSets in a row, and the tables that they become."""

from __future__ import annotations

import asyncio
import gc
import math
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, assert_type, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import ROOT
from tests.support.proof import examples
from tests.support.threads import PATIENCE
from tests.support.values import Band, Color, Level, Point, moments, same, scalars, values

from run_task import (
    ConfigError,
    ContextBuilder,
    DataSet,
    DataSets,
    KeyedDataSet,
    KeyedDataSets,
    Receiver,
    Runner,
    Sender,
    TaskError,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    Window,
    acollect,
    channel,
    collect,
    task,
)

MILLISECOND = TaskInterval.millis(1)


@task
def one(data: list[float], start: int, end: int) -> int:
    return 1


def dataset(end: int, *failed: str, **values: Any) -> DataSet[Any]:
    window = Window(end - 10, end)
    return DataSet(window, values, {name: TaskError(name, window) for name in failed})


def rows(*results: Any) -> DataSets[Any]:
    """DataSets of one task; ... stands for an error."""
    return DataSets(
        dataset(10 * (i + 1), "x") if result is ... else dataset(10 * (i + 1), x=result)
        for i, result in enumerate(results)
    )


MIXED = DataSets(
    [
        dataset(10, "mean", count=1, name="a", good=True),
        dataset(20, mean=2.5, count=2, name="b", good=False),
        dataset(30, "count", "name", "good", mean=math.nan),
    ]
)


def test_a_table_has_the_timestamp_and_each_task_and_nulls_for_errors() -> None:
    table = MIXED.to_arrow()
    assert table.column_names == ["timestamp", "mean", "count", "name", "good"]
    assert [str(kind) for kind in table.schema.types] == [
        "int64",
        "double",
        "int64",
        "string",
        "bool",
    ]
    assert table["timestamp"].to_pylist() == [10, 20, 30]
    assert table["count"].to_pylist() == [1, 2, None]
    assert table["mean"].null_count == 1, "a NaN that a task returned is no null"
    assert table["good"].to_pylist() == [True, False, None]


def test_polars_has_the_same() -> None:
    frame = MIXED.to_polars()
    assert frame.columns == ["timestamp", "mean", "count", "name", "good"]
    assert [str(kind) for kind in frame.dtypes] == [
        "Int64",
        "Float64",
        "Int64",
        "String",
        "Boolean",
    ]
    assert frame["count"].to_list() == [1, 2, None]
    assert frame["mean"].null_count() == 1
    assert frame["name"].to_list() == ["a", "b", None]


def test_pandas_has_the_same_in_its_own_way() -> None:
    frame = MIXED.to_pandas()
    assert list(frame.columns) == ["timestamp", "mean", "count", "name", "good"]
    assert list(map(str, frame.dtypes)) == ["int64", "float64", "Int64", "object", "boolean"]
    assert frame["count"].isna().tolist() == [False, False, True]
    assert frame["count"].tolist()[:2] == [1, 2]
    assert frame["name"].tolist() == ["a", "b", None]
    whole = rows(1, 2).to_pandas()
    assert list(map(str, whole.dtypes)) == ["int64", "int64"]


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([1, 2.5, ...], [1.0, 2.5, None]),
        ([np.float64(1.5), np.int64(2)], [1.5, 2.0]),
        ([np.bool_(True), ...], [True, None]),
        ([(1, 2), (3,), ...], [[1, 2], [3], None]),
        ([..., np.arange(3)], [None, [0, 1, 2]]),
        ([np.eye(2)], [[[1.0, 0.0], [0.0, 1.0]]]),
        ([{"low": 1, "high": 2}, ...], [{"low": 1, "high": 2}, None]),
        ([Band(1, 2.5), ...], [{"low": 1, "high": 2.5}, None]),
        ([..., ...], [None, None]),
        ([b"raw"], [b"raw"]),
        ([datetime(2026, 1, 2)], [datetime(2026, 1, 2)]),  # noqa: DTZ001 it is what comes back
        ([], []),
    ],
)
def test_results_come_back_as_they_were(results: list[Any], expected: list[Any]) -> None:
    datasets = rows(*results)
    names = ["timestamp", "x"] if results else ["timestamp"]
    assert datasets.to_arrow().column_names == datasets.to_polars().columns == names
    assert list(datasets.to_pandas().columns) == names
    if results:
        assert datasets.to_arrow()["x"].to_pylist() == expected
        assert datasets.to_polars()["x"].to_list() == expected
        missing = datasets.to_pandas()["x"].isna().tolist()
        assert missing == [value is None for value in expected]


@pytest.mark.parametrize("results", [[1, "a"], [True, 1], [(1, "a")], [2**53 + 1, 0.5]])
def test_what_has_no_column_is_refused_with_its_task(results: list[Any]) -> None:
    for convert, library in (
        (rows(*results).to_arrow, "Arrow"),
        (rows(*results).to_polars, "polars"),
    ):
        with pytest.raises(
            ConfigError, match=rf"task 'x': {library} has no column for .*to_pandas"
        ):
            convert()
    assert rows(*results).to_pandas()["x"].tolist() == results


def test_no_key_is_lost_or_made_up() -> None:
    same_keys = rows({"a": 1, "b": 2}, {"b": 3, "a": 4}, ...)
    expected = [{"a": 1, "b": 2}, {"a": 4, "b": 3}, None]
    assert same_keys.to_arrow()["x"].to_pylist() == expected
    assert same_keys.to_polars()["x"].to_list() == expected
    datasets = rows({"a": 1}, {"b": 2})
    for convert in (datasets.to_arrow, datasets.to_polars):
        with pytest.raises(ConfigError, match=r"task 'x': .*their keys differ"):
            convert()
    assert datasets.to_pandas()["x"].tolist() == [{"a": 1}, {"b": 2}]


MOMENTS: list[Any] = [
    [np.datetime64("2024-01-01")],
    [np.datetime64("2024")],
    [np.datetime64("2024-03", "W")],
    [np.datetime64("2024-01-01T01", "h"), ...],
    [np.datetime64("2024-01-01T00:00:01.5"), np.datetime64("2024-01-02")],
    [np.datetime64("2024-01-01T00:00:00.123456789")],
    [np.datetime64("1969-12-31T23:59:59.999999999"), None],
    [np.array(3, "M8[25s]")[()]],
    [np.timedelta64(5, "D")],
    [np.timedelta64(-5, "h"), np.timedelta64(1, "ns")],
    [..., np.timedelta64(7, "ms")],
]


@pytest.mark.parametrize("results", MOMENTS)
def test_times_of_numpy_come_back_exactly(results: list[Any]) -> None:
    datasets = rows(*results)
    expected = [None if value in (..., None) else value for value in results]
    columns = (
        datasets.to_arrow()["x"].to_numpy(),
        datasets.to_polars()["x"].to_numpy(),
    )
    for column in columns:
        for got, value in zip(column, expected, strict=True):
            assert np.isnat(got) if value is None else got == value
    assert datasets.to_pandas()["x"].tolist() == expected


REFUSED: list[list[Any]] = [
    [datetime(2024, 1, 1), 5],  # noqa: DTZ001 a naive one
    [datetime(2024, 1, 1), math.nan],  # noqa: DTZ001
    [datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)],  # noqa: DTZ001
    ["a", b"b"],
    [True, 1.0],
    [[True], [2]],
    [[[1]], [["a"]]],
    [{"a": 1}, {"a": True}],
    [np.datetime64("NaT", "s")],
    [np.timedelta64("NaT", "s"), np.timedelta64(1, "s")],
    [np.timedelta64(5, "M")],
    [np.array(5).view("m8")[()]],  # without a unit: NumPy warns of one that is made so
    [np.datetime64(1, "as")],
    [np.datetime64(2**62, "Y")],
    [np.datetime64(2**62, "s"), np.datetime64(1, "ns")],
    ["half \ud800"],
    [["half \ud800"]],
    [Color.RED],
    [Level.LOW, 1],
    [Band(1, 2), Point(1, 2)],
    [[Point(1, 2)]],
    [{1: 2}],
    [np.longdouble(1)],
    [Decimal("NaN")],
    [10**200],
]


@pytest.mark.parametrize("results", REFUSED, ids=repr)
def test_what_a_table_would_change_is_refused_by_name(results: list[Any]) -> None:
    datasets = rows(*results)
    for convert, library in ((datasets.to_arrow, "Arrow"), (datasets.to_polars, "polars")):
        with pytest.raises(
            ConfigError,
            match=rf"task 'x': {library} has no column for its results, of .*, that holds the one "
            rf"for \[\d+, \d+\), of .*\(.*\): let it return values of one kind",
        ):
            convert()
    assert all(map(same, datasets.to_pandas()["x"].tolist(), results))


@pytest.mark.parametrize(
    "results", [[{1, 2}], [1j], [object(), 1]], ids=["a set", "a complex", "an object"]
)
def test_what_only_arrow_would_change_is_refused_by_name(results: list[Any]) -> None:
    datasets = rows(*results)
    with pytest.raises(ConfigError, match="task 'x': Arrow has no column for its results, of "):
        datasets.to_arrow()
    assert list(datasets.to_polars()["x"]) == results
    assert datasets.to_pandas()["x"].tolist() == results


def test_texts_of_a_series_are_whole_in_each_table_or_refused() -> None:
    series = TimeSeries({"text": "U8"}, TimeUnit.SECONDS)
    series.append(1, text="a\0b")
    with series.read() as view:
        assert view.to_arrow()["text"].to_pylist() == ["a\0b"]
        assert view.to_polars()["text"].to_list() == ["a\0b"]
        assert view.to_pandas()["text"].tolist() == ["a\0b"]
    series.append(2, text="\ud800")
    with series.read() as view:
        for convert in (view.to_arrow, view.to_polars, view.to_pandas):
            with pytest.raises(ConfigError, match=r"column 'text': .* is no text in UTF-8"):
                convert()


@pytest.mark.parametrize(
    "results", [[[{1, 2}]], [{"a": 1j}], [Band(np.zeros(1, ">c8"), False)]], ids=repr
)
def test_what_polars_would_panic_of_is_not_given_to_it(
    results: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"task 'x': polars has no column .*\(it has no "):
        rows(*results).to_polars()
    gc.collect()
    assert capfd.readouterr().err == ""


def test_the_window_that_does_not_fit_is_told() -> None:
    datasets = rows(1, 2, 3, ..., 5, "six", 7)
    for convert in (datasets.to_arrow, datasets.to_polars):
        with pytest.raises(
            ConfigError, match=r"of int, str, that holds the one for \[50, 60\), of str"
        ):
            convert()
    with pytest.raises(ConfigError, match=r"for \[10, 20\), of list of float and str"):
        rows([1, 2], [0.5, "a"]).to_polars()


MASKED: list[Any] = [np.ma.masked, np.ma.array([1, 2], mask=[True, False])]


@pytest.mark.parametrize("masked", MASKED)
def test_what_is_masked_is_refused_as_all_tables(masked: Any) -> None:
    datasets = rows(1.5, masked)
    for convert in (datasets.to_arrow, datasets.to_polars, datasets.to_pandas):
        with pytest.raises(
            ConfigError, match=r"task 'x': .*\[10, 20\), a Masked.* return filled\(\)"
        ):
            convert()


def stands_for(found: Any, value: Any) -> bool:
    """Whether what is read from a table is a value: lists for tuples and arrays, structs for
    NamedTuples and dataclasses, and floats for ints that are equal to them."""
    if found is value:
        return True
    if is_time_of_numpy(value) and found.__class__ is not list:
        for exact in ("to_datetime64", "to_timedelta64"):  # of pandas', which has nanoseconds
            found = getattr(found, exact)() if hasattr(found, exact) else found
        return bool(np.array(found).astype(value.dtype) == value)
    kind: Any = value.__class__
    if issubclass(kind, np.ndarray | np.generic):
        return stands_for(found, value.tolist())
    if value is None:
        return found is None or repr(found) in ("nan", "<NA>")
    if kind is int and found.__class__ is float:
        return bool(found == value)
    if kind in (list, tuple):
        as_list = found.__class__ in (list, kind) and len(found) == len(value)
        return as_list and all(map(stands_for, found, value))
    if kind in (Band, Point) and found.__class__ is dict:
        fields = cast("dict[str, Any]", value._asdict() if kind is Band else vars(value))
        return stands_for(found, fields) and list(found) == list(fields)
    if kind is dict:
        return found.keys() == value.keys() and all(
            stands_for(found[key], item) for key, item in value.items()
        )
    if kind is Decimal:  # all of a column have as many places: 0 is 0.0 beside 0.5
        return found is value or (found.__class__ is Decimal and bool(found == value))
    if issubclass(kind, datetime) and value.tzinfo is not None:
        return bool(found.astimezone(UTC) == value.astimezone(UTC))
    if issubclass(kind, datetime | time):  # the fold of a time without a zone tells nothing
        return bool(found == value)
    return same(found, value)


def is_time_of_numpy(value: Any) -> bool:
    """Whether it is one, or an array of these: what libraries make Python's of is less exact."""
    kind: Any = value.__class__
    return issubclass(kind, np.ndarray | np.generic) and value.dtype.kind in "mM"


@given(
    st.lists(values.filter(lambda value: not is_time_of_numpy(value)), min_size=1, max_size=3)
    | st.lists(st.integers() | st.floats() | st.none(), min_size=1)
    | st.lists(st.lists(st.integers() | st.floats() | st.booleans()), min_size=1)
    | st.lists(scalars.filter(lambda value: not is_time_of_numpy(value)), min_size=1, max_size=1)
)
@settings(max_examples=examples(300))
def test_any_results_are_the_same_in_each_table_or_refused(results: list[Any]) -> None:
    datasets = rows(*results)
    for convert, read in (
        (datasets.to_arrow, "to_pylist"),
        (datasets.to_polars, "to_list"),
        (datasets.to_pandas, "tolist"),
    ):
        try:
            column = convert()["x"]
        except ConfigError:
            assert read != "tolist", "pandas holds any"
            continue
        assert all(map(stands_for, getattr(column, read)(), results))


@given(st.lists(moments, min_size=1, max_size=3))
def test_any_times_of_numpy_are_the_same_in_each_table_or_refused(results: list[Any]) -> None:
    datasets = rows(*results)
    for convert in (datasets.to_arrow, datasets.to_polars):
        try:
            column: Any = convert()["x"]
        except ConfigError:
            continue
        for found, value in zip(column.to_numpy(), results, strict=True):
            assert found == value
            assert found.dtype.kind == value.dtype.kind
    assert all(map(same, datasets.to_pandas()["x"].tolist(), results))


def test_an_int_of_any_size_is_kept_or_refused() -> None:
    datasets = rows(2**70)
    with pytest.raises(ConfigError, match="task 'x': Arrow has no column"):
        datasets.to_arrow()
    assert datasets.to_polars()["x"].to_list() == [2**70]
    assert datasets.to_pandas()["x"].tolist() == [2**70]


def test_a_task_called_timestamp_is_refused() -> None:
    datasets = DataSets([dataset(10, timestamp=1)])
    for convert in (datasets.to_arrow, datasets.to_polars, datasets.to_pandas):
        with pytest.raises(ConfigError, match=r"a task is called 'timestamp'.*rename it"):
            convert()


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for library, extra, convert in (
        ("pyarrow", "arrow", MIXED.to_arrow),
        ("polars", "polars", MIXED.to_polars),
        ("pandas", "pandas", MIXED.to_pandas),
    ):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ConfigError, match=rf"needs {library}, .*pip install .*\[{extra}\]"):
            convert()


def test_datasets_are_a_sequence() -> None:
    assert len(MIXED) == 3
    assert MIXED[1]["count"] == 2
    assert [dataset.timestamp for dataset in MIXED[1:]] == [20, 30]
    assert isinstance(MIXED[1:], DataSets)
    assert repr(MIXED) == "<3 DataSets, 0 to 30: mean, count, name, good>"
    assert repr(DataSets[float]()) == "<0 DataSets: >"


def test_collect_takes_so_many_and_leaves_the_rest() -> None:
    clock = VirtualClock()
    context, receiver, _ = (
        ContextBuilder(list[float]).with_task(one).with_interval(MILLISECOND).build()
    )
    with Runner(context, clock=clock):
        clock.advance(TaskInterval.millis(5))
        datasets: DataSets[int] = collect(receiver, 3, timeout=PATIENCE)
        assert [dataset.timestamp for dataset in datasets] == [1, 2, 3]
        assert receiver.recv(PATIENCE).timestamp == 4
        receiver.recv(PATIENCE)
    frame = datasets.to_polars()
    assert str(frame.dtypes[0]) == "Datetime(time_unit='ms', time_zone='UTC')"
    assert frame.rows() == [(each.end_time, 1) for each in datasets]


def sent(count: int) -> tuple[Sender[DataSet[Any]], Receiver[DataSet[Any]]]:
    ends: tuple[Sender[DataSet[Any]], Receiver[DataSet[Any]]] = channel(10)
    for i in range(count):
        ends[0].send(dataset(i, x=i))
    return ends


def test_what_there_is_when_the_time_is_over_is_not_lost() -> None:
    _, receiver = sent(2)
    assert len(collect(receiver, 3, timeout=0.01)) == 2
    assert len(collect(receiver, 3, timeout=0)) == 0


def test_what_there_is_at_the_end_of_the_channel_is_not_lost() -> None:
    sender, receiver = sent(2)
    sender.close()
    assert len(collect(receiver, 3)) == 2


async def test_the_loop_goes_on_while_acollect_waits() -> None:
    sender, receiver = sent(0)

    async def feed() -> None:
        for i in range(3):
            await asyncio.sleep(0)
            sender.send(dataset(i, x=i))

    feeding = asyncio.create_task(feed())
    datasets = await acollect(receiver, 3, timeout=PATIENCE)
    await feeding
    assert [dataset["x"] for dataset in datasets] == [0, 1, 2]
    sender.send(dataset(4, x=4))
    assert len(await acollect(receiver, 3, timeout=0.01)) == 1
    sender.close()
    assert len(await acollect(receiver, 3)) == 0


async def test_collect_works_in_a_running_loop() -> None:
    context, receiver, _ = (
        ContextBuilder(list[float]).with_task(one).with_interval(MILLISECOND).build()
    )
    with Runner(context):
        assert len(collect(receiver, 3, timeout=PATIENCE)) == 3


@pytest.mark.parametrize("n", [0, -1, 2.0, True])
async def test_a_number_that_cannot_be_is_refused(n: Any) -> None:
    _, receiver = sent(2)
    with pytest.raises(ConfigError, match=r"collect\(n=.*positive int"):
        collect(receiver, n)
    with pytest.raises(ConfigError, match=r"collect\(n=.*positive int"):
        await acollect(receiver, n)
    assert len(receiver) == 2


def keyed_dataset(
    end: int, errors: Sequence[tuple[str, str]] = (), by: str = "symbol", **values: Any
) -> KeyedDataSet[str, Any]:
    window = Window(end - 10, end)
    told: dict[str | tuple[str, str], TaskError] = {
        name: TaskError(name[0], window, key=name[1]) for name in errors
    }
    return KeyedDataSet(window, by, values, told)


KEYED = KeyedDataSets(
    [
        keyed_dataset(10, [("mean", "B")], mean={"A": 1.5}, n={"A": 1, "B": 2}),
        keyed_dataset(20, mean={"C": 2.5}, n={"C": np.int64(3)}),
    ]
)


def test_the_table_of_keyed_datasets_has_a_row_a_window_and_key() -> None:
    assert KEYED.by == "symbol"
    assert list(KEYED.names) == ["mean", "n"]
    columns = {
        "timestamp": [10, 10, 20],
        "symbol": ["A", "B", "C"],
        "mean": [1.5, None, 2.5],
        "n": [1, 2, 3],
    }
    assert KEYED.columns() == columns
    assert KEYED.to_arrow().to_pydict() == columns
    frame = KEYED.to_polars()
    assert frame.to_dict(as_series=False) == columns
    assert list(map(str, frame.dtypes)) == ["Int64", "String", "Float64", "Int64"]
    of_pandas = KEYED.to_pandas()
    assert list(of_pandas.columns) == list(columns)
    assert of_pandas["symbol"].tolist() == ["A", "B", "C"]
    assert math.isnan(of_pandas["mean"][1])
    assert repr(KEYED) == "<2 KeyedDataSets by symbol, 0 to 20: mean, n>"
    assert KEYED[1:].columns()["symbol"] == ["C"]
    assert isinstance(KEYED[:1], KeyedDataSets)


def test_the_table_of_no_keyed_datasets_has_its_timestamps() -> None:
    none: KeyedDataSets[str, float] = KeyedDataSets()
    assert none.to_polars().columns == ["timestamp"]
    assert repr(none) == "<0 KeyedDataSets: >"


def test_a_task_without_a_result_for_any_key_is_null_for_all() -> None:
    window = Window(0, 10)
    error = TaskError("mean", window)
    table = KeyedDataSets([KeyedDataSet(window, "symbol", {"n": {"A": 1}}, {"mean": error})])
    assert table.columns() == {"timestamp": [10], "symbol": ["A"], "n": [1], "mean": [None]}


def test_what_no_table_holds_of_a_key_is_refused_by_window_and_key() -> None:
    table = KeyedDataSets([keyed_dataset(10, x={"A": 1, "B": "text"})])
    for make in (table.to_arrow, table.to_polars):
        with pytest.raises(ConfigError, match=r"task 'x': .* the one for 'B' in .*, of str"):
            make()
    assert table.to_pandas()["x"].tolist() == [1, "text"]


def test_a_task_called_as_the_column_of_keys_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a task is called 'symbol', which is the column of the"):
        KeyedDataSets([keyed_dataset(10, symbol={"A": 1})]).columns()


def test_datasets_with_and_without_keys_do_not_make_one_table() -> None:
    with_keys: Any = keyed_dataset(10, x={"A": 1})
    without: Any = dataset(20, x=1)
    with pytest.raises(ConfigError, match=r"number 1 is KeyedDataSet .*put those with keys into"):
        DataSets([without, with_keys])
    with pytest.raises(ConfigError, match=r"number 1 is DataSet .*put those with keys into"):
        KeyedDataSets([with_keys, without])
    with pytest.raises(ConfigError, match=r"number 1, .*is by 'city'.* are by 'symbol'"):
        KeyedDataSets([with_keys, keyed_dataset(20, by="city", x={"A": 1})])
    ends: tuple[Sender[Any], Receiver[Any]] = channel(2)
    sender, receiver = ends
    sender.send(with_keys)
    sender.send(without)
    with pytest.raises(ConfigError, match=r"number 1 is DataSet"):
        collect(receiver, 2)


def test_keyed_datasets_are_collected() -> None:
    series = TimeSeries({"symbol": str, "price": float}, TimeUnit.MILLIS, key="symbol")
    series.extend([1, 2, 3], symbol=["B", "A", "B"], price=[1.0, 2.0, 3.0])

    @task
    def total(view: TimeSeriesView, start: int, end: int) -> float:
        return float(view.in_window["price"].sum())

    clock = VirtualClock(0)
    context, receiver, _ = (
        ContextBuilder(series).with_task(total).with_interval("10ms").with_key("symbol").build()
    )
    with Runner(context, clock=clock):
        clock.advance("10ms")
        table = collect(receiver, 1, timeout=PATIENCE)
    assert_type(table, KeyedDataSets[Any, float])
    assert table.columns() == {"timestamp": [10, 10], "symbol": ["A", "B"], "total": [2.0, 4.0]}

    async def received() -> KeyedDataSets[Any, float]:
        ends: tuple[Sender[KeyedDataSet[Any, float]], Receiver[KeyedDataSet[Any, float]]]
        ends = channel(1)
        sender, receiver = ends
        sender.send(table[0])
        sender.close()
        return await acollect(receiver, 2)

    assert list(asyncio.run(received())) == list(table)


def html_of(thing: Any) -> str:
    shown: str = thing._repr_html_()
    return shown


def test_a_notebook_shows_the_first_and_last_rows_of_many_keys() -> None:
    many = KeyedDataSets(
        keyed_dataset(10 * i, x={f"k{key:05}": key for key in range(10_000)}) for i in (1, 2)
    )
    shown = html_of(many)
    assert "2 KeyedDataSets, 20,000 rows" in shown
    for part in ("k00000", "k00009", "...", "k09990", "k09999", ">symbol<"):
        assert part in shown
    assert "k00010" not in shown
    assert "k09989" not in shown
    assert "error" in html_of(KEYED)


DAY = datetime(2026, 1, 2)  # noqa: DTZ001 it is naive
DOCUMENTED: dict[str, list[list[Any]]] = {
    "floats": [[1.5, None]],
    "ints of 64 bits": [[1], [2**63 - 1]],
    "longer ints": [[2**70]],
    "ints and floats, if floats tell the ints exactly": [[1, 2.5]],
    "ints and floats, if not": [[2**53 + 1, 2.5]],
    "bools": [[True]],
    "texts": [["a", None], ["a\0b"]],
    "texts with half of a pair of surrogates": [["\ud800"]],
    "bytes": [[b"a"]],
    "datetimes, all naive or all aware": [[DAY], [DAY.replace(tzinfo=UTC)]],
    "dates, times": [[DAY.date()], [DAY.time()]],
    "timedeltas": [[timedelta(1)]],
    "`numpy.datetime64`, `timedelta64`": [[np.datetime64(DAY)], [np.timedelta64(1, "ms")]],
    "NaT": [[np.datetime64("NaT", "s")]],
    "Decimals": [[Decimal("1.5")]],
    "lists, tuples, arrays of one kind of item": [[[1]], [(1.5,)], [np.eye(2)]],
    "lists of ints and floats": [[[1, 2.5]]],
    "lists of other mixed kinds": [[[1, "a"]]],
    "dicts of the same keys, which are texts": [[{"a": 1}, {"a": 2}]],
    "NamedTuples, dataclasses of one type, whose fields are of these kinds": [
        [Point(1.0, 2.0)],
        [None, Band(1.0, 2.0)],
    ],
    "dicts of different keys": [[{"a": 1}, {"b": 1}]],
    "masked or structured arrays": [[np.ma.masked_array([1, 2], mask=[False, True])]],
    "sets, complex numbers": [[{1}], [1j]],
    "Enums, Fractions, NamedTuples and dataclasses within others": [
        [next(iter(Color))],
        [Fraction(1, 3)],
        [[Band(1.0, 2.0)]],
        [Point(Band(1.0, 2.0), 1.0)],
    ],
    "values of several of these kinds": [[1, "a"], [True, 2], [DAY.date(), DAY]],
}


def test_the_page_says_what_each_library_takes() -> None:
    page = (ROOT / "docs" / "reference" / "channels.md").read_text()
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    assert [line[0] for line in lines[1:]] == [*DOCUMENTED]
    for label, *told in lines[1:]:
        for results in DOCUMENTED[label]:
            table = rows(*results)
            makes: list[Callable[[], Any]] = [table.to_arrow, table.to_polars, table.to_pandas]
            for make, says in zip(makes, told, strict=True):
                if says.startswith("refused"):
                    with pytest.raises(ConfigError):
                        make()
                    continue
                column = make()["x"]
                kind = str(getattr(column, "type", None) or column.dtype).lower()
                known = re.findall(r"`(\w+)", says) or re.findall(r"\w+", says)
                assert any(kind.startswith(one.lower()) for one in known), (label, says, kind)
