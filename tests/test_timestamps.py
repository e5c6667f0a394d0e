from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_task import TimeUnit
from run_task.columnar._time_format import TimeFormat
from run_task.columnar._timestamps import Times, from_arrow, parse

pa = pytest.importorskip("pyarrow")

NANOS = [unit.nanos for unit in TimeUnit]
SECOND, MILLI, MICRO, MINUTE = 10**9, 10**6, 10**3, 60 * 10**9
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
units = st.sampled_from(NANOS)
coarse_units = st.sampled_from([nanos for nanos in NANOS if nanos > 1])
"""Those in which 64 bits hold every year of a datetime."""


@given(st.integers(-(2**63), 2**63 - 1), units, units)
def test_an_int_is_converted_exactly_and_rounded_down(value: int, stored: int, unit: int) -> None:
    exact = math.floor(Fraction(value * stored, unit))
    if -(2**63) <= exact < 2**63:
        assert parse(value, stored, unit) == exact
    else:
        with pytest.raises(ValueError, match="beyond what 64 bits hold"):
            parse(value, stored, unit)


@given(st.datetimes(), coarse_units)
def test_a_text_without_a_zone_is_in_utc(moment: datetime, unit: int) -> None:
    micros = (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    assert parse(moment.isoformat(), SECOND, unit) == micros * 1000 // unit


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2013-12-02 21:15:00", 1386018900),
        ("2013-12-02T21:15:00Z", 1386018900),
        ("2013-12-02T22:15:00+01:00", 1386018900),
        ("2013-12-02 16:15:00-0500", 1386018900),
        (" 2013-12-02 21:15 ", 1386018900),
        ("20131202T211500", 1386018900),
        ("2013-12-02", 1385942400),
        ("1386018900", 1386018900),
        ("1386018900.75", 1386018900),
        ("1.3860189e9", 1386018900),
        ("-1", -1),
        ("1969-12-31 23:59:59.5", -1),
    ],
)
def test_texts(text: str, seconds: int) -> None:
    assert parse(text, SECOND, SECOND) == seconds
    timestamps, faults = from_arrow(pa.array([text.encode()]), SECOND, SECOND)
    assert (timestamps.tolist(), faults) == ([seconds], {})


@pytest.mark.parametrize(
    "value",
    ["", "soon", "2013-13-01", "0x1F", "1_000", "nan", math.nan, math.inf, None, True, [1], 1e300],
)
def test_what_is_none_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"there is no timestamp|is not a timestamp|64 bits"):
        parse(value, SECOND, SECOND)


def test_a_float_has_the_microsecond_that_was_written() -> None:
    assert parse(1700000000.123, SECOND, MILLI) == 1700000000123
    assert parse(1700000000.9999, SECOND, SECOND) == 1700000000
    assert parse(1700000000.9999996, SECOND, SECOND) == 1700000001  # no float is nearer
    assert parse(-0.25, SECOND, MILLI) == -250


@given(st.integers(-(10**15), 4 * 10**15), units)
def test_seconds_as_floats_keep_their_microseconds(micros: int, unit: int) -> None:
    # Floats of seconds tell microseconds apart until 2**33 s, in the year 2242.
    assert parse(micros / 10**6, SECOND, unit) == micros * 1000 // unit


@pytest.mark.parametrize("resolution", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_arrow_timestamps_of_any_resolution_and_zone(resolution: str, zone: str | None) -> None:
    column = pa.array([1386018900, -1, None], pa.timestamp("s", zone))
    column = column.cast(pa.timestamp(resolution, zone))
    timestamps, faults = from_arrow(column, SECOND, MINUTE)
    assert timestamps[:2].tolist() == [1386018900 // 60, -1]
    assert faults == {2: "there is no timestamp"}


def test_nanoseconds_are_rounded_down() -> None:
    column = pa.array([1_999_999_999, -1], pa.timestamp("ns"))
    assert from_arrow(column, SECOND, SECOND)[0].tolist() == [1, -1]
    assert from_arrow(column, SECOND, MICRO)[0].tolist() == [1_999_999, -1]


def test_nanoseconds_are_told_exactly() -> None:
    nanos = 1_704_067_200_123_456_789
    text = "2024-01-01T00:00:00.123456789"
    for written in (text, f"{text}Z", text.replace("00:00:00", "01:00:00") + "+01:00", str(nanos)):
        assert parse(written, 1, 1) == nanos
        assert from_arrow(pa.array([written]), 1, 1)[0].tolist() == [nanos]
    assert parse("2024-01-01T00:00:00.1234567", 1, 1) == nanos - 89
    assert from_arrow(pa.array([nanos], pa.timestamp("ns")), SECOND, 1)[0].tolist() == [nanos]
    assert parse(float(2**60), 1, 1) == 2**60
    assert parse(1.75, 1, 1) == 1
    assert from_arrow(pa.array([float(2**60), 1.75]), 1, 1)[0].tolist() == [2**60, 1]
    timestamps, faults = from_arrow(pa.array(["2300-01-01", text]), 1, 1)
    assert (timestamps[1], list(faults)) == (nanos, [0])  # 64 bits end in 2262


def test_dates_and_unsigned_ints() -> None:
    assert from_arrow(pa.array([1], pa.date32()), SECOND, MINUTE)[0].tolist() == [1440]
    assert from_arrow(pa.array([86_400_000], pa.date64()), SECOND, MINUTE)[0].tolist() == [1440]
    timestamps, faults = from_arrow(pa.array([5, 2**64 - 1], pa.uint64()), SECOND, SECOND)
    assert timestamps[0] == 5
    assert list(faults) == [1]
    assert from_arrow(pa.array([2**64 - 1], pa.uint64()), MICRO, SECOND)[0][0] == 2**64 // 10**6


def test_decimals_and_categories() -> None:
    column = pa.array([Decimal("1700000000.123"), None])
    assert from_arrow(column, SECOND, MILLI)[0][0] == 1700000000123
    column = pa.array(["1970-01-02", "1970-01-01"]).dictionary_encode()
    assert from_arrow(column, SECOND, MINUTE)[0].tolist() == [1440, 0]


ZONE = timezone(timedelta(hours=-3, minutes=-30))
written = st.one_of(
    st.integers(-(2**64), 2**64).map(str),
    st.floats().map(repr),
    st.datetimes().map(datetime.isoformat),
    st.datetimes(timezones=st.sampled_from([UTC, ZONE])).map(datetime.isoformat),
    st.dates().map(str),
    st.text(max_size=12),
)
stored_values = st.one_of(
    st.lists(st.none() | written),
    st.lists(written),
    st.lists(st.datetimes().map(datetime.isoformat)),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)),
    st.lists(st.none() | st.floats()),
)


@given(stored_values, units, units)
def test_a_column_gives_what_its_values_give_one_by_one(
    values: list[object], stored: int, unit: int
) -> None:
    expected: dict[int, int] = {}
    refused: dict[int, str] = {}
    for position, value in enumerate(values):
        try:
            expected[position] = parse(value, stored, unit)
        except ValueError as error:
            refused[position] = str(error)
    timestamps, faults = from_arrow(pa.array(values), stored, unit)
    assert timestamps.dtype == np.int64
    assert {at: int(timestamps[at]) for at in expected} == expected
    assert faults.keys() == refused.keys()


# In a format of their own

FORMATS = [
    ("%d/%m/%Y %H:%M:%S", "31/01/2024 10:15:00", 1706696100 * SECOND),
    ("%d.%m.%Y", "31.01.2024", 1706659200 * SECOND),
    ("%Y%m%d%H%M%S", "20240131101500", 1706696100 * SECOND),
    ("%Y%m%d %H%M%S.%f", "20240131 101500.25", 1706696100 * SECOND + 250 * MILLI),
    ("%Y-%m-%dT%H:%M:%S%z", "2024-01-31T11:15:00+0100", 1706696100 * SECOND),
    ("%Y-%m-%dT%H:%M:%S%z", "2024-01-31T10:15:00Z", 1706696100 * SECOND),
    ("%b %d %Y %I:%M %p", "Jan 31 2024 10:15 AM", 1706696100 * SECOND),
    ("%d/%m/%y %H:%M", "31/01/24 10:15", 1706696100 * SECOND),
    ("%d/%m/%Y %H:%M:%S", "1/2/2024 3:04:05", 1706756645 * SECOND),
]


@pytest.mark.parametrize(("format_", "text", "nanos"), FORMATS)
def test_a_time_in_a_format(format_: str, text: str, nanos: int) -> None:
    form = TimeFormat(format_, "")
    assert parse(text, SECOND, MICRO, None, form) == nanos // MICRO
    for beside in (text, "soon", "", None):
        timestamps, faults = from_arrow(pa.array([f" {text} ", beside]), SECOND, MICRO, None, form)
        assert timestamps[0] == nanos // MICRO
        assert list(faults) == ([] if beside == text else [1])
    if beside := "2024-01-31 10:15:00":  # which is a time, but in another format
        assert list(from_arrow(pa.array([beside]), SECOND, MICRO, None, form)[1]) == [0]


formats = st.sampled_from([format_ for format_, _, _ in FORMATS] + ["%Y-%j", "%%%d %m\\%Y"])


@given(
    formats,
    st.lists(st.datetimes(datetime(1970, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))),  # noqa: DTZ001 bounds
    st.lists(st.text("0123456789 /:.-TZ", max_size=20)),
)
def test_a_column_in_a_format_gives_what_its_values_give_one_by_one(
    format_: str, moments: list[datetime], others: list[str]
) -> None:
    form = TimeFormat(format_, "")
    texts = [moment.strftime(format_) for moment in moments] + others
    expected: dict[int, int] = {}
    for position, text in enumerate(texts):
        with contextlib.suppress(ValueError):
            expected[position] = parse(text, SECOND, MICRO, None, form)
    timestamps, faults = from_arrow(pa.array(texts, pa.string()), SECOND, MICRO, None, form)
    assert {at: int(timestamps[at]) for at in expected} == expected
    assert sorted(faults) == [at for at in range(len(texts)) if at not in expected]
    assert len(expected) >= len(moments)


# In the basic format of ISO 8601

BASIC = [
    ("20240131T101500Z", 1706696100),
    ("20240131T101500", 1706696100),
    ("20240131T111500+0100", 1706696100),
    ("20240131T111500+01:00", 1706696100),
    ("20240131T101500.75Z", 1706696100),
]


@pytest.mark.parametrize(("text", "seconds"), BASIC)
def test_the_basic_format(text: str, seconds: int) -> None:
    assert parse(text, SECOND, SECOND) == seconds
    assert from_arrow(pa.array([text]), SECOND, SECOND)[0].tolist() == [seconds]
    assert from_arrow(pa.array([text, "soon"]), SECOND, SECOND)[0][0] == seconds


def test_eight_digits_are_a_date_where_all_are_one() -> None:
    def times(stored: TimeUnit | None = None) -> Times:
        return Times("", TimeUnit.SECONDS, stored, None, 0, None)

    dates, counts = times(), times()
    dates.look_at(["20240131", " 20240201 ", "", None, b"20240202"])
    counts.look_at(["20240131", "20240132"])
    texts = ["20240131", "20240230", "5", "2024-01-31"]
    assert dates.parse("20240131") == 1706659200
    found, faults = dates.of_column(pa.array(texts))
    assert (found[[0, 2, 3]].tolist(), list(faults)) == ([1706659200, 5, 1706659200], [1])
    assert dates.of_column(pa.array(["20240131"] * 2))[0].tolist() == [1706659200] * 2
    assert counts.parse("20240131") == 20240131
    for seen in (["18991231"], ["21000101"], ["2024013"], [], ["2024-01-31"], ["20240131", "5"]):
        counts.look_at(seen)
        assert counts.form is None
    said = times(TimeUnit.SECONDS)
    said.look_at(["20240131"])
    assert said.parse("20240131") == 20240131


# Which of two times

BERLIN = "2024-10-27 02:30:00"  # clocks go back at 3:00


@pytest.mark.parametrize("fold", [0, 1])
def test_an_hour_that_comes_twice_is_the_one_that_is_said(fold: int) -> None:
    when = 1729989000 + 3600 * fold
    zone = ZoneInfo("Europe/Berlin")
    assert datetime(2024, 10, 27, 2, 30, fold=fold, tzinfo=zone).timestamp() == when
    times = Times("", TimeUnit.SECONDS, None, "Europe/Berlin", fold, None)
    assert times.parse(BERLIN) == when
    around = ["2024-10-27 01:30:00", BERLIN, "2024-10-27 03:30:00"]
    right = [1729985400, when, 1729996200]
    assert times.of_column(pa.array(around))[0].tolist() == right
    assert times.of_column(pa.array([*around, "soon"]))[0].tolist()[:3] == right


@pytest.mark.parametrize("fold", [0, 1])
def test_a_time_that_never_comes_is_when_clocks_jump_over_it(fold: int) -> None:
    times = Times("", TimeUnit.SECONDS, None, "Europe/Berlin", fold, "%d.%m.%Y %H:%M")
    assert times.parse("31.03.2024 02:30") == 1711846800
    assert times.of_column(pa.array(["31.03.2024 02:30"]))[0].tolist() == [1711846800]
