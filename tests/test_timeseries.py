from __future__ import annotations

import datetime
import gc
import importlib
import logging
import operator
import pickle
from functools import partial
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
from tests.support.blocks import SharedBlock
from tests.support.threads import PATIENCE, eventually, together

from run_task import (
    ConfigError,
    ContextBuilder,
    DataSet,
    Runner,
    RunnerConfig,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    VirtualClock,
    task,
)

pd: Any = importlib.import_module("pandas")  # it comes without types


def prices(retention: int | TaskInterval | None = None) -> TimeSeries:
    return TimeSeries({"price": float, "size": int}, retention=retention)


def view_of(series: TimeSeries) -> TimeSeriesView:
    with series.read() as view:
        return view


def times_of(series: TimeSeries) -> list[int]:
    times: list[int] = view_of(series).time.tolist()
    return times


def filled(count: int, retention: int | None = None) -> TimeSeries:
    series = prices(retention)
    series.extend(np.arange(count), price=np.arange(count) / 2, size=np.arange(count))
    return series


def touched(block: SharedBlock) -> int:
    """How many rows of a block were ever written to, if all of them were -1."""
    return int(np.count_nonzero(np.frombuffer(block.memory, np.int64) == -1))


class Blocks(list[SharedBlock]):
    """All blocks that were allocated."""

    def allocate(self, size: int) -> SharedBlock:
        self.append(SharedBlock(size))
        return self[-1]


# What a view is.


def test_a_window_is_a_slice_of_the_same_memory() -> None:
    series = filled(100)
    view = view_of(series)
    window = view.between(10, 20)
    assert window.time.tolist() == list(range(10, 20))
    assert window["price"].tolist() == [i / 2 for i in range(10, 20)]
    assert np.shares_memory(window["price"], view["price"])
    assert np.shares_memory(window.time, view_of(series).time)
    assert len(window) == 10


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (2, 4, [2, 2, 3]),
        (4, 4, []),
        (4, 2, []),
        (-10, 2, [1]),
        (5, 100, [5]),
        (-(10**30), 10**30, [1, 2, 2, 3, 5]),
        (6, 7, []),
        (-5, 0, []),
    ],
)
def test_a_window_is_half_open(start: int, end: int, expected: list[int]) -> None:
    series = prices()
    series.extend([1, 2, 2, 3, 5], price=[0.0] * 5, size=range(5))
    window = view_of(series).between(start, end)
    assert window.time.tolist() == expected
    assert len(window) == len(expected) == len(window["size"])


def test_nothing_that_a_view_gives_can_be_written_to() -> None:
    series = filled(10)
    view = view_of(series)
    for array in (view.time, view["price"], view["price"][2:5], view.between(1, 3).time):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_a_view_stays_as_it_was_when_rows_come_and_the_buffer_is_outgrown() -> None:
    series = filled(10)
    view = view_of(series)
    taken = view["price"]
    series.extend(range(10, 1000), price=[0.0] * 990, size=[0] * 990)
    assert len(view) == 10
    assert taken.tolist() == view["price"].tolist() == [i / 2 for i in range(10)]
    assert len(view_of(series)) == 1000


def test_an_array_alone_keeps_its_rows_when_late_ones_come() -> None:
    series = filled(10)
    cut = view_of(series)["size"][4:][::2]
    deep = cut.view(np.uint64)[1:]
    series.append(3, price=0.0, size=100)
    assert cut.tolist() == [4, 6, 8]
    assert deep.tolist() == [6, 8]
    assert view_of(series)["size"].tolist() == [0, 1, 2, 3, 100, 4, 5, 6, 7, 8, 9]


def test_arrays_of_several_windows_keep_their_rows_for_as_long_as_they_last() -> None:
    def windows() -> list[Any]:
        view = view_of(series)
        return [view.between(start, start + 3)["size"] for start in range(4, 7)]

    series = filled(10)
    arrays = windows()
    store = series._snapshot[0]  # pyright: ignore[reportPrivateUsage]  # nothing else tells
    series.append(3, price=0.0, size=100)
    assert [array.tolist() for array in arrays] == [[4, 5, 6], [5, 6, 7], [6, 7, 8]]
    with pytest.raises(ValueError, match="WRITEABLE"):
        arrays[2].flags.writeable = True
    assert store.leases
    arrays.clear()
    assert not store.leases


def test_late_rows_take_no_new_memory_when_nobody_looks() -> None:
    blocks = Blocks()
    series = filled(32)
    series.relocate(blocks.allocate)
    assert len(blocks) == 1
    series.append(3, price=0.0, size=100)
    with series.read() as view:  # it looks at what a row at the end does not move
        series.append(31, price=0.0, size=101)
        assert len(blocks) == 1
        series.append(30, price=0.0, size=102)
        assert len(blocks) == 2
        assert len(view) == 33
        assert view["size"].tolist() == [0, 1, 2, 3, 100, *range(4, 32)]
    del view
    series.append(3, price=0.0, size=103)
    assert len(blocks) == 2
    assert times_of(series) == sorted([*range(32), 3, 3, 30, 31])


def test_what_was_sent_by_reference_is_never_moved() -> None:
    blocks = Blocks()  # whoever unpickles may do so when the series is elsewhere
    series = filled(32)
    series.relocate(blocks.allocate)
    pickled = pickle.dumps(view_of(series))
    series.append(3, price=0.0, size=100)
    sent: TimeSeriesView = pickle.loads(pickled)
    assert sent.time.tolist() == list(range(32))
    assert len(blocks) == 2


def test_says_what_it_is_and_holds() -> None:
    series = TimeSeries({"price": float, "side": "U4"}, TimeUnit.SECONDS, retention=1000)
    series.extend(range(7), price=np.arange(7) / 4, side=["buy", "sell"] * 3 + ["buy"])
    assert repr(series) == (
        "<TimeSeries of 7 rows, the last 1,000 rows: price float64, side <U4; time in s>"
    )
    assert repr(view_of(series)).splitlines() == [
        "TimeSeriesView of 7 rows",
        "              time (s)  price  side",
        "  1970-01-01T00:00:00Z    0.0   buy",
        "  1970-01-01T00:00:01Z   0.25  sell",
        "  1970-01-01T00:00:02Z    0.5   buy",
        "                   ...    ...   ...",
        "  1970-01-01T00:00:04Z    1.0   buy",
        "  1970-01-01T00:00:05Z   1.25  sell",
        "  1970-01-01T00:00:06Z    1.5   buy",
    ]
    view = view_of(series)
    assert (series.unit, view.unit) == (TimeUnit.SECONDS, TimeUnit.SECONDS)
    assert dict(series.columns) == dict(view.columns) == {"price": np.float64, "side": "<U4"}
    with pytest.raises(KeyError, match="no column 'prise': the columns are 'price', 'side'"):
        view["prise"]
    with pytest.raises(TypeError, match="not iterable"):
        iter(view)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


@pytest.mark.parametrize(
    ("unit", "zone", "stamp", "shown"),
    [
        (TimeUnit.NANOS, None, 1_719_835_200_000_000_001, "2024-07-01T12:00:00.000000001Z"),
        (TimeUnit.MILLIS, "Europe/Berlin", 1_719_835_200_250, "2024-07-01T14:00:00.250+02:00"),
        (TimeUnit.MINUTES, None, -1, "1969-12-31T23:59:00Z"),
        (TimeUnit.SECONDS, "Europe/Berlin", 2**62, "4611686018427387904"),
    ],
)
def test_a_view_shows_times_in_the_zone_of_its_series(
    unit: TimeUnit, zone: str | None, stamp: int, shown: str
) -> None:
    series = TimeSeries({"v": int}, unit, zone=zone)
    series.append(stamp, v=1)
    _, head, row = repr(series.view()).splitlines()
    assert head.split() == ["time", f"({unit.value})", "v"]
    assert row.split() == [shown, "1"]


def test_a_view_of_no_rows_is_empty() -> None:
    view = TimeSeries({"price": float}).view()
    assert len(view) == len(view.time) == len(view.between(0, 10)) == 0
    assert dict(view.columns) == {"price": np.dtype(float)}
    assert len(pickle.loads(pickle.dumps(view))) == 0
    assert repr(view) == "TimeSeriesView of 0 rows\n  time (ms)  price"


async def test_is_read_in_an_event_loop_and_the_access_serves_again() -> None:
    series = filled(3)
    access = series.read(timeout=0)
    async with access as before:
        series.append(3, price=0.0, size=0)
        async with access as after:
            assert (len(before), len(after)) == (3, 4)


def test_an_access_may_be_left_in_another_thread() -> None:
    access = filled(3).read()
    assert len(access.__enter__()) == 3
    together(lambda: access.__exit__(None, None, None))


# What comes in.


@pytest.mark.parametrize(
    ("kind", "given", "stored"),
    [
        (float, [1, 2.5, True, np.float32(0.5), np.int8(3)], [1.0, 2.5, 1.0, 0.5, 3.0]),
        (float, [float("inf"), -float("inf"), 1e308], [float("inf"), -float("inf"), 1e308]),
        ("float32", [0.5, 1, float("inf")], [0.5, 1.0, float("inf")]),
        ("float16", [0.5, 1, 65504], [0.5, 1.0, 65504.0]),
        (int, [1, 2.0, True, np.uint8(3), np.float64(4)], [1, 2, 1, 3, 4]),
        (int, [2**63 - 1, -(2**63)], [2**63 - 1, -(2**63)]),
        ("uint64", [2**64 - 1, 0], [2**64 - 1, 0]),
        ("int8", [127, -128], [127, -128]),
        (">i4", [1, -2], [1, -2]),
        (bool, [True, False, np.True_, 1, 0.0], [True, False, True, True, False]),
        ("U4", ["", "äß€😀", np.str_("abc")], ["", "äß€😀", "abc"]),
        ("S4", [b"", b"\0ab", np.bytes_(b"abcd")], [b"", b"\0ab", b"abcd"]),
        (
            "datetime64[ms]",
            [
                5,
                np.int32(6),
                np.datetime64(7, "s"),
                np.datetime64(8_000, "us"),
                datetime.datetime(1970, 1, 1, 0, 0, 1),  # noqa: DTZ001  # means UTC, as in NumPy
                datetime.datetime(
                    1970, 1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1))
                ),
                datetime.date(1970, 1, 2),
                pd.Timestamp(9, unit="ms"),
            ],
            [np.datetime64(n, "ms").item() for n in (5, 6, 7000, 8, 1000, 0, 86_400_000, 9)],
        ),
    ],
    ids=str,
)
def test_values_of_which_nothing_is_lost_are_taken(
    kind: Any, given: list[Any], stored: list[Any]
) -> None:
    """One by one, as a list, and each as an array."""
    one, many, arrays = (TimeSeries({"x": kind}) for _ in range(3))
    for i, value in enumerate(given):
        one.append(i, x=value)
        arrays.extend([i], x=np.asarray([value]))
    many.extend(range(len(given)), x=given)
    for series in (one, many, arrays):
        assert view_of(series)["x"].tolist() == stored
        assert view_of(series)["x"].dtype.isnative


def test_nan_and_nat_are_values() -> None:
    series = TimeSeries({"x": float, "y": "float32", "at": "datetime64[us]"})
    series.append(0, x=float("nan"), y=float("nan"), at=np.datetime64("NaT", "s"))
    nans = np.array([np.nan, np.nan])
    series.extend([1, 2], x=nans, y=nans, at=np.array(["NaT", "NaT"], "datetime64[ns]"))
    view = view_of(series)
    assert np.isnan(view["x"]).all()
    assert np.isnan(view["y"]).all()
    assert np.isnat(view["at"]).all()


@pytest.mark.parametrize(
    ("kind", "bad", "reason"),
    [
        (float, "1.5", "'1.5' is no number"),
        (float, np.str_("1.5"), "is no number"),
        (int, None, "None is no number"),
        (bool, None, "None is neither True nor False"),
        ("U3", None, "None is no str"),
        (float, 1j, "1j is no number"),
        (float, [1.0], r"\[1.0\] is no number"),
        (float, np.timedelta64(1, "s"), "is no number"),
        (float, 10**400, "is too large for float64"),
        ("float32", 1e39, "1e\\+39.* is too large for float32"),
        ("float16", 70000, "70000.* is too large for float16"),
        (int, 1.5, "1.5.* has a fraction, and the column holds int64"),
        (int, float("nan"), "nan.* is no int"),
        (int, float("inf"), "inf.* is no int"),
        (int, 2**63, "9223372036854775808.* is beyond int64"),
        (int, 2.0**63, "is beyond int64"),
        (int, -(2**63) - 1, "is beyond int64"),
        (int, "7", "'7' is no number"),
        ("int8", 128, "128.* is beyond int8, which ends at -128 and 127"),
        ("uint8", -1, "-1.* is beyond uint8"),
        (bool, 2, "2.* is neither True nor False"),
        (bool, 0.5, "is neither True nor False"),
        (bool, "True", "is neither True nor False"),
        ("U3", "long", "'long'.* is longer than the 3 that the column holds"),
        ("U3", b"abc", "b'abc'.* is no str"),
        ("U3", 1, "1.* is no str"),
        ("U3", "a\0", "ends in a NUL"),
        ("S3", b"long", "b'long'.* is longer than the 3"),
        ("S3", "abc", "'abc'.* is no bytes"),
        ("M8[ms]", np.datetime64(1, "us"), "cannot be told exactly in datetime64\\[ms\\]"),
        ("M8[ns]", np.datetime64(2**60, "s"), "cannot be told exactly"),
        ("M8[ms]", "2026-01-01", "is no timestamp"),
        ("M8[ms]", 1.0, "1.0.* is no timestamp"),
        ("M8[ms]", True, "True.* is no timestamp"),
        ("M8[ms]", None, "None is no timestamp"),
        ("M8[ms]", np.timedelta64(1, "s"), "is no timestamp"),
        ("M8[ms]", 2**63, "is beyond int64"),
    ],
)
def test_values_of_which_something_would_be_lost_are_refused(
    kind: Any, bad: Any, reason: str
) -> None:
    good = {"f": 1.0, "i": 1, "u": 1, "b": True, "U": "a", "S": b"a", "M": 1}[np.dtype(kind).kind]
    series = TimeSeries({"first": int, "x": kind})
    series.append(7, first=1, x=good)
    with pytest.raises(ConfigError, match=rf"^column 'x', row of timestamp 8: .*{reason}"):
        series.append(8, first=2, x=bad)
    with pytest.raises(ConfigError, match=rf"^column 'x', row 1, of timestamp 9: .*{reason}"):
        series.extend([8, 9], first=[2, 3], x=[good, bad])
    if np.asarray(bad).ndim == 0 and not (isinstance(bad, str) and bad.endswith("\0")):
        objects = np.array([good, good, bad], object)
        with pytest.raises(ConfigError, match=r"^column 'x', row 2, of timestamp 10: "):
            series.extend([8, 9, 10], first=[2, 3, 4], x=objects)
        with pytest.raises(ConfigError, match=r"^column 'x', row 0, of timestamp 8: "):
            series.extend([8], first=[2], x=np.asarray([bad]))
    series.append(7, first=2, x=good)  # it goes on as if nothing had been
    assert view_of(series)["first"].tolist() == [1, 2]


def test_of_many_timestamps_the_one_that_is_beyond_64_bits_is_named() -> None:
    series = TimeSeries({"at": "datetime64[ns]"})
    for beyond in (2**60, -(2**60)):
        many = np.array([0, 5, beyond, 7], "datetime64[s]")
        with pytest.raises(ConfigError, match=r"^column 'at', row 2, of timestamp 3: .* exactly"):
            series.extend([1, 2, 3, 4], at=many)
    days = TimeSeries({"at": "datetime64[D]"})
    least = np.array([-(2**63) + 1], "datetime64[ns]")
    with pytest.raises(ConfigError, match=r"row 0, of timestamp 1: .* cannot be told exactly in"):
        days.extend([1], at=least)  # its day begins before what nanoseconds can tell
    assert len(view_of(series)) == len(view_of(days)) == 0


def test_a_list_is_not_made_one_type_before_it_is_looked_at() -> None:
    series = TimeSeries({"whole": int})
    with pytest.raises(ConfigError, match=r"row 1, of timestamp 1: 0\.5 has a fraction"):
        series.extend([0, 1], whole=[2**60 + 1, 0.5])
    series.extend([0, 1], whole=[2**60 + 1, 1.0])
    assert view_of(series)["whole"].tolist() == [2**60 + 1, 1]
    masked: Any = np.ma.masked_array([1, 2], [False, True])
    two = TimeSeries({"whole": int, "other": int})
    with pytest.raises(ConfigError, match="row 1, of timestamp 3: None is no number"):
        two.extend([2, 3], whole=masked, other=[1, 2])


def test_none_in_a_column_of_floats_is_nan() -> None:
    series = TimeSeries({"x": float, "y": "float32", "n": int})
    series.append(1, x=None, y=1.5, n=1)
    series.append(2, x=2.0, y=None, n=2)
    series.extend([3, 4], x=[None, 4.0], y=np.array([3.0, None], object), n=[3, 4])
    masked: Any = np.ma.masked_array([5.0, 6.0], [False, True])
    series.extend([5, 6], x=masked, y=[None, None], n=np.array([5, 6]))
    view = view_of(series)
    nan = float("nan")
    np.testing.assert_array_equal(view["x"], [nan, 2.0, nan, 4.0, 5.0, nan])
    np.testing.assert_array_equal(view["y"], np.array([1.5, nan, 3.0, nan, nan, nan], "f4"))
    assert view["n"].tolist() == [1, 2, 3, 4, 5, 6]
    assert series.omitted == 0


def test_a_row_of_nothing_but_none_is_left_out_and_counted() -> None:
    series = TimeSeries({"x": float, "n": int, "text": "U3"})
    none = dict.fromkeys(series.columns)
    series.append(1, **none)
    assert (len(view_of(series)), series.omitted) == (0, 1)
    series.extend([4, 2, 3], x=[4.0, None, None], n=[4, None, None], text=["d", None, None])
    assert view_of(series).time.tolist() == [4]
    assert series.omitted == 3
    series.extend([5, 6], x=[None, None], n=[None, None], text=np.array([None, None], object))
    series.append(7, x=None, n=7, text="g")
    assert view_of(series).time.tolist() == [4, 7]
    assert (series.omitted, series.dropped) == (5, 0)
    with pytest.raises(ConfigError, match=r"^column 'n', row 2, of timestamp 10: 'x' is no"):
        series.extend([8, 9, 10], x=[None, 9.0, 1.0], n=[None, 9, "x"], text=[None, "i", "j"])
    with pytest.raises(ConfigError, match="column 'text' has 1 values for 2 timestamps"):
        series.extend([8, 9], x=[None, None], n=[8, 9], text=["h"])
    with pytest.raises(ConfigError, match=r"the timestamp 1\.5 is no int"):
        series.append(1.5, **none)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert (series.omitted, view_of(series).time.tolist()) == (5, [4, 7])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (1.0, r"the timestamp 1\.0 is no int.* count millis since.*time_ns\(\) // 1_000_000$"),
        (True, "the timestamp True is no int"),
        (np.True_, ".* is no int"),
        ("1", "the timestamp '1' is no int"),
        (None, "the timestamp None is no int"),
        (np.datetime64("NaT", "s"), "NaT is no time"),
        (np.timedelta64(1, "ms"), ".* is no int"),
        (2**63, "the timestamp 9223372036854775808 does not fit in 64 bits"),
    ],
)
def test_timestamps_are_ints(bad: Any, reason: str) -> None:
    series = prices()
    with pytest.raises(ConfigError, match=f"^{reason}"):
        series.append(bad, price=1.0, size=1)
    with pytest.raises(ConfigError, match=f"^row 1: {reason}"):
        series.extend([0, bad], price=[1.0, 1.0], size=[1, 1])
    with pytest.raises(ConfigError, match=r"is no int|does not fit|NaT"):
        series.extend(np.array([bad]), price=[1.0], size=[1])
    assert times_of(series) == []


def test_timestamps_of_numpy_are_ints_too() -> None:
    series = prices()
    series.append(np.int32(1), price=1.0, size=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as rows of arrays have them
    series.extend(np.array([2, 3], np.uint64), price=[1.0, 1.0], size=[1, 1])
    series.extend(np.array([4], np.int16), price=[1.0], size=[1])
    assert times_of(series) == [1, 2, 3, 4]
    series.extend(np.array([5], "M8[ms]"), price=[1.0], size=[1])
    assert times_of(series) == [1, 2, 3, 4, 5]


def test_names_and_lengths_must_be_right() -> None:
    series = prices()
    with pytest.raises(ConfigError, match="no column 'prise': the columns are 'price', 'size'"):
        series.append(0, prise=1.0, size=1)
    with pytest.raises(ConfigError, match="no column 'time'"):
        series.append(0, price=1.0, size=1, time=0)
    with pytest.raises(ConfigError, match="column 'size' is missing"):
        series.append(0, price=1.0)
    with pytest.raises(ConfigError, match="column 'size' is missing"):
        series.extend([0], price=[1.0])
    with pytest.raises(ConfigError, match="column 'size' has 1 values for 2 timestamps"):
        series.extend([0, 1], price=[1.0, 2.0], size=[1])
    with pytest.raises(ConfigError, match="column 'price', all rows: it has 2 dimensions"):
        series.extend([0, 1], price=np.ones((2, 2)), size=[1, 1])
    with pytest.raises(ConfigError, match=r"column 'price', all rows: 1\.0 is one value"):
        series.extend([0], price=1.0, size=[1])
    with pytest.raises(ConfigError, match="'ab' is one value"):
        series.extend([0, 1], price=[1.0, 2.0], size="ab")
    with pytest.raises(ConfigError, match="5 is one value"):
        series.extend(5, price=[1.0], size=[1])
    with pytest.raises(ConfigError, match="have 2 dimensions"):
        series.extend(np.ones((1, 1), int), price=[1.0], size=[1])
    assert times_of(series) == []
    series.extend([], price=[], size=[])
    assert times_of(series) == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "with one at least"),
        (["price"], "give its columns as a mapping"),
        ({"": float}, "a column's name is a text that is not empty"),
        ({1: float}, "a column's name is a text"),
        ({"time": float}, "column 'time': the name is taken"),
        ({"timestamp": float}, "column 'timestamp': the name is taken"),
        ({"timestamps": float}, "the name is taken"),
        ({"self": float}, "the name is taken"),
        ({"x": bytes}, "column 'x': a column of bytes needs a width: 'S8'"),
        ({"x": "nonsense"}, "column 'x': 'nonsense' is no kind of column; take float, int"),
        ({"x": None}, "column 'x': None is no kind of column"),
        ({"x": np.datetime64}, r"column 'x': timestamps need a unit, .* 'datetime64\[ms\]'"),
        ({"x": "M8[3s]"}, "column 'x': timestamps need a unit"),
        ({"x": "M8[Y]"}, "column 'x': timestamps need a unit"),
        ({"x": object}, "column 'x': a column holds floats, .* and not object"),
        ({"x": complex}, "and not complex128"),
        ({"x": "m8[ms]"}, r"and not timedelta64\[ms\]"),
        ({"x": [("a", int)]}, "a class of values goes into a column for each field"),
        ({"x": np.longdouble}, "column 'x': a column holds"),
    ],
    ids=str,
)
def test_columns_that_cannot_be_are_refused(columns: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TimeSeries(columns)


def test_a_unit_and_a_retention_that_cannot_be_are_refused() -> None:
    unit: Any = "ms"
    with pytest.raises(ConfigError, match=r"unit='ms'\): it is a TimeUnit"):
        TimeSeries({"x": int}, unit=unit)
    for retention in (0, -1, True, 1.5, "10"):
        bad: Any = retention
        with pytest.raises(ConfigError, match=f"retention={retention!r}"):
            TimeSeries({"x": int}, retention=bad)


# Retention.


def test_rows_pass_out_by_number() -> None:
    series = prices(retention=3)
    for time in (1, 2, 3, 4):
        series.append(time, price=0.0, size=time)
    assert times_of(series) == [2, 3, 4]
    series.extend(range(5, 500), price=[0.0] * 495, size=range(495))
    assert times_of(series) == [497, 498, 499]
    assert series.dropped == 0


@pytest.mark.parametrize(
    ("unit", "retention", "expected"),
    [
        (TimeUnit.MILLIS, TaskInterval.millis(10), [90, 95, 100]),
        (TimeUnit.SECONDS, TaskInterval.millis(10_900), [90, 95, 100]),
        (TimeUnit.MICROS, TaskInterval.millis(1), [0, 80, 89, 90, 95, 100]),
        (TimeUnit.MINUTES, TaskInterval.seconds(59), [100]),
    ],
)
def test_rows_pass_out_by_age(unit: TimeUnit, retention: TaskInterval, expected: list[int]) -> None:
    times = [0, 80, 89, 90, 95, 100]
    one, many = (TimeSeries({"x": int}, unit, retention) for _ in range(2))
    for time in times:
        one.append(time, x=time)
    many.extend(times, x=times)
    assert times_of(one) == times_of(many) == expected
    assert one.dropped == many.dropped == 0


def test_many_rows_pass_out_at_once() -> None:
    series = prices(retention=TaskInterval.millis(100))
    for time in (*range(100), 1000, 1050, 1101):
        series.append(time, price=0.0, size=time)
    assert times_of(series) == [1050, 1101]


def test_rows_that_come_too_late_are_counted_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    series = prices(retention=TaskInterval.millis(10))
    series.append(100, price=0.0, size=0)
    with caplog.at_level(logging.WARNING, "run_task"):
        series.append(89, price=0.0, size=1)
        series.extend([50, 90, 60, 95], price=[0.0] * 4, size=range(4))
    assert times_of(series) == [90, 95, 100]
    assert series.dropped == 3
    assert [record.getMessage() for record in caplog.records] == [
        "1 rows came too late to be kept, with a retention of 10ms",
    ]  # and no more for a minute


def test_who_is_told_of_a_dropped_row_may_write() -> None:
    series = prices(retention=TaskInterval.millis(10))

    class Note(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            series.append(100, price=0.0, size=2)

    handler = Note()
    logging.getLogger("run_task").addHandler(handler)
    try:
        series.extend([100, 0], price=[0.0, 0.0], size=[0, 1])
    finally:
        logging.getLogger("run_task").removeHandler(handler)
    assert view_of(series)["size"].tolist() == [0, 2]


def test_the_extremes_of_time_have_a_place() -> None:
    series = prices(retention=TaskInterval.minutes(1))
    for time in (-(2**63), 2**63 - 1, 0):
        series.append(time, price=0.0, size=0)
    assert times_of(series) == [2**63 - 1]
    assert series.dropped == 1
    series = prices(retention=TaskInterval.minutes(1))
    series.extend([1 - 2**63, -(2**63)], price=[0.0, 0.0], size=[0, 0])
    series.append(2 - 2**63, price=0.0, size=0)
    assert times_of(series) == [-(2**63), 1 - 2**63, 2 - 2**63]


@pytest.mark.parametrize("retention", [1000, TaskInterval.millis(999)], ids=str)
def test_memory_is_twice_what_is_retained(retention: int | TaskInterval) -> None:
    blocks = Blocks()
    series = TimeSeries({"x": int}, retention=retention)
    series.relocate(blocks.allocate)
    series.extend(range(3000), x=[-1] * 3000)
    before = len(blocks)
    for time in range(3000, 20_000):
        series.append(time, x=-1)
    assert len(blocks) == before
    assert times_of(series) == list(range(19_000, 20_000))
    assert touched(blocks[-1]) <= 2.2 * 1000


def test_views_that_are_held_for_a_moment_make_no_copy_necessary() -> None:
    blocks = Blocks()
    series = TimeSeries({"x": int}, retention=1000)
    series.relocate(blocks.allocate)
    before = 0
    held: list[TimeSeriesView] = []
    for time in range(20_000):
        if time % 200 == 0:
            held.append(view_of(series))
        elif time % 200 == 100:
            held.clear()
        series.append(time, x=-1)
        if time == 3000:  # it is as large as it has to be
            before = len(blocks)
    assert len(blocks) == before
    assert touched(blocks[-1]) <= 2.5 * 1000


def test_rows_of_a_view_that_is_held_for_long_are_not_written_over() -> None:
    blocks = Blocks()
    series = TimeSeries({"x": int}, retention=1000)
    series.extend(range(1000), x=range(1000))
    series.relocate(blocks.allocate)
    held = view_of(series)["x"]
    series.extend(range(1000, 9000), x=[-1] * 8000)
    series.append(9000, x=-1)
    late = view_of(series)["x"]
    for time in range(9001, 15_000):
        series.append(time, x=-2)
    assert held.tolist() == list(range(1000))
    assert late.tolist() == [-1] * 1000


def test_a_series_that_was_larger_becomes_small_again() -> None:
    blocks = Blocks()
    series = TimeSeries({"x": int}, retention=TaskInterval.millis(1000))
    series.relocate(blocks.allocate)
    series.extend(np.repeat(np.arange(1000), 10), x=np.full(10_000, -1))
    for time in range(1000, 4000):
        series.append(time, x=-1)
    assert len(view_of(series)) == 1001
    assert touched(blocks[-1]) <= 2.2 * 1001


# Elsewhere.


def test_a_pickle_has_copies_of_its_own_rows_out_of_band() -> None:
    series = filled(10_000)
    window = view_of(series).between(100, 110)
    assert len(pickle.dumps(window)) < 1000
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(window, protocol=5, buffer_callback=buffers.append)
    assert [buffer.raw().nbytes for buffer in buffers] == [80, 80, 80]
    for sent in (pickle.loads(pickle.dumps(window)), pickle.loads(pickled, buffers=buffers)):
        assert isinstance(sent, TimeSeriesView)
        assert sent.time.tolist() == list(range(100, 110))
        assert sent.between(105, 107)["size"].tolist() == [105, 106]
        assert sent.unit is series.unit
        with pytest.raises(ValueError, match="read-only"):
            sent["price"][0] = 1
        assert pickle.loads(pickle.dumps(sent)).time.tolist() == window.time.tolist()


def test_in_a_shareable_block_a_pickle_says_only_where_its_rows_are() -> None:
    series = filled(10_000)
    series.relocate(SharedBlock)
    view = view_of(series)
    pickled = pickle.dumps(view.between(100, 110))
    assert len(pickled) < 600
    sent: TimeSeriesView = pickle.loads(pickled)
    assert np.shares_memory(sent["price"], view["price"])
    assert sent["price"].tolist() == [i / 2 for i in range(100, 110)]
    with pytest.raises(ValueError, match="read-only"):
        sent["price"][0] = 1
    del view, series
    gc.collect()
    assert sent["size"].tolist() == list(range(100, 110))


def test_a_series_is_not_pickled_itself() -> None:
    with pytest.raises(TypeError, match="send a view of it"):
        pickle.dumps(prices())


def test_a_relocation_that_fails_changes_nothing() -> None:
    series = filled(10)

    def allocate(size: int) -> SharedBlock:
        raise MemoryError

    with pytest.raises(MemoryError):
        series.relocate(allocate)
    series.extend(range(10, 500), price=[0.0] * 490, size=[0] * 490)
    assert times_of(series) == list(range(500))


def test_a_row_that_was_stored_is_not_refused_for_want_of_memory_to_tidy_up() -> None:
    left = [SharedBlock(100_000), SharedBlock(100_000)]
    asked = 0

    def allocate(size: int) -> SharedBlock:
        nonlocal asked
        asked += 1
        if not left:
            raise MemoryError
        return left.pop()

    series = prices(retention=100)
    series.relocate(allocate)
    for time in range(100):
        series.append(time, price=0.0, size=time)
    assert len(pickle.dumps(view_of(series))) < 600  # so nothing can be written over
    for time in range(100, 290):
        series.append(time, price=0.0, size=time)
    assert times_of(series) == list(range(190, 290))
    assert 2 < asked < 40


def test_where_no_room_to_grow_can_be_had_there_is_room_for_the_rows() -> None:
    def allocate(size: int) -> SharedBlock:
        if size > 40_000:
            raise OSError
        return SharedBlock(size)

    series = filled(1000)
    series.relocate(allocate)
    for time in range(1000, 1200):
        series.append(time, price=0.0, size=time)
    assert times_of(series) == list(range(1200))


def test_rows_for_which_there_is_no_memory_change_nothing() -> None:
    series = filled(10)
    left = [SharedBlock(10_000)]

    series.relocate(lambda size: left.pop())
    with pytest.raises(IndexError):
        series.extend(range(1000), price=[0.0] * 1000, size=[0] * 1000)
    view = view_of(series)
    with pytest.raises(IndexError):
        series.append(5, price=0.0, size=0)  # it would need a copy, for the sake of the view
    assert view.time.tolist() == times_of(series) == list(range(10))
    del view
    series.append(5, price=0.0, size=0)
    series.append(11, price=0.0, size=0)
    assert times_of(series) == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 11]


# Tables.


@pytest.mark.parametrize("unit", TimeUnit)
def test_becomes_a_table(unit: TimeUnit) -> None:
    series = TimeSeries(
        {
            "f": float,
            "i": "int16",
            "b": bool,
            "u": "U5",
            "s": "S5",
            "day": "M8[D]",
            "hour": "M8[h]",
            "us": "M8[us]",
        },
        unit,
    )
    moment = datetime.datetime(2026, 11, 24, 20, 37, tzinfo=datetime.UTC)
    time = round(moment.timestamp()) * 1_000_000_000 // unit.nanos
    series.extend(
        [time, time],
        f=[1.5, float("nan")],
        i=[1, -2],
        b=[True, False],
        u=["é", "sell"],
        s=[b"\xff", b"ok"],
        day=[0, 1],
        hour=[0, 1],
        us=[0, 1],
    )
    first, second = datetime.datetime(1970, 1, 1), datetime.datetime(1970, 1, 1, 1)  # noqa: DTZ001  # as tables have them
    rows = {
        "time": [moment, moment],
        "i": [1, -2],
        "b": [True, False],
        "u": ["é", "sell"],
        "s": [b"\xff", b"ok"],
        "day": [first.date(), datetime.date(1970, 1, 2)],
        "hour": [first, second],
        "us": [first, first + datetime.timedelta(microseconds=1)],
    }
    view = view_of(series)
    arrow = view.to_arrow()
    polars = view.to_polars()
    pandas = view.to_pandas()
    assert arrow.column_names == polars.columns == list(pandas.columns)
    for name, expected in rows.items():
        assert arrow[name].to_pylist() == expected
        assert polars[name].to_list() == expected
        in_pandas = pandas[name].tolist()
        assert in_pandas == ([first, pd.Timestamp("1970-01-02")] if name == "day" else expected)
    for floats in (arrow["f"].to_pylist(), polars["f"].to_list(), pandas["f"].tolist()):
        assert floats[0] == 1.5
        assert np.isnan(floats[1])
    assert str(arrow.schema.field("time").type) == {
        TimeUnit.NANOS: "timestamp[ns, tz=UTC]",
        TimeUnit.MICROS: "timestamp[us, tz=UTC]",
        TimeUnit.MILLIS: "timestamp[ms, tz=UTC]",
    }.get(unit, "timestamp[s, tz=UTC]")
    kept: Any = {TimeUnit.NANOS: "ns", TimeUnit.MICROS: "us"}.get(unit, "ms")
    assert polars.schema["time"] == pl.Datetime(kept, "UTC")


def test_a_table_stays_as_it_was_when_late_rows_come() -> None:
    series = filled(10)
    tables = [view_of(series).to_arrow(), view_of(series).to_polars()]
    pandas = view_of(series).to_pandas()
    series.append(3, price=-1.0, size=-1)
    for table in tables:
        assert list(table["size"].to_numpy()) == list(range(10))
    assert pandas["size"].tolist() == list(range(10))


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of(filled(1))
    for library, extra, convert in (
        ("pyarrow", "arrow", view.to_arrow),
        ("polars", "polars", view.to_polars),
        ("pandas", "pandas", view.to_pandas),
    ):
        monkeypatch.setitem(__import__("sys").modules, library, None)
        with pytest.raises(ConfigError, match=rf"needs {library}, .*pip install .*\[{extra}\]"):
            convert()


# In a runner.


def test_a_runner_gives_each_tick_one_view() -> None:
    @task
    def total(view: TimeSeriesView, start: int, end: int) -> int:
        return int(view.between(start, end)["size"].sum())

    @task
    def rows(view: TimeSeriesView, start: int, end: int) -> int:
        return len(view)

    clock = VirtualClock()
    context, receiver, series = (
        ContextBuilder(prices())
        .with_task(total)
        .with_task(rows)
        .with_interval(TaskInterval.millis(10))
        .build()
    )
    datasets: list[DataSet[int]] = []
    with Runner(context, clock=clock):
        for window in range(3):
            series.extend(range(window * 10, window * 10 + 10), price=[0.5] * 10, size=range(10))
            if window == 2:
                series.append(15, price=0.5, size=1000)  # too late for its window
            clock.advance(TaskInterval.millis(10))
            datasets.append(receiver.recv(PATIENCE))
    assert [dataset[total] for dataset in datasets] == [45, 45, 45]
    assert [dataset[rows] for dataset in datasets] == [10, 20, 31]


@pytest.mark.parametrize("executor", ["inline", "threads"])
def test_a_runner_that_waits_holds_no_view(executor: Literal["inline", "threads"]) -> None:
    """Else the first late row after each tick would be dear, since it may not disturb the view."""

    @task
    def rows(view: TimeSeriesView, start: int, end: int) -> int:
        return len(view["price"])

    series = filled(10)
    context, receiver, _ = (
        ContextBuilder(series)
        .with_task(rows)
        .with_interval(TaskInterval.millis(10))
        .with_config(RunnerConfig(executor=executor))
        .build()
    )
    clock = VirtualClock()
    with Runner(context, clock=clock):
        for _ in range(3):
            clock.advance(TaskInterval.millis(10))
            assert receiver.recv(PATIENCE)[rows] == 10
            store = series._snapshot[0]  # pyright: ignore[reportPrivateUsage]  # nothing else tells
            eventually(partial(operator.not_, store.leases))


@pytest.mark.parametrize(
    ("unit", "tables"),
    [(TimeUnit.SECONDS, ["polars"]), (TimeUnit.MINUTES, ["arrow", "polars", "pandas"])],
)
def test_times_that_a_table_cannot_hold_are_refused_and_not_wrapped_around(
    unit: TimeUnit, tables: list[str]
) -> None:
    series = TimeSeries({"v": float}, unit)
    series.extend([0, 2**62], v=[1.0, 2.0])
    for kind in ("arrow", "polars", "pandas"):
        pytest.importorskip("pyarrow" if kind == "arrow" else kind)
        to_table = getattr(view_of(series), f"to_{kind}")
        if kind in tables:
            with pytest.raises(ConfigError, match=r"column 'time'.* 64 bits of m?s do not hold"):
                to_table()
        else:
            made = TimeSeries({"v": float}, unit)
            made.extend(to_table())
            assert view_of(made).time.tolist() == [0, 2**62]
