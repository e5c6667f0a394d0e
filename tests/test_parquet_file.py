from __future__ import annotations

import datetime
import decimal
import fractions
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_task import ConfigError, SourceError, TimeUnit
from run_task.columnar._decimals import floats_of
from run_task.columnar._timestamps import from_arrow as times_from_arrow
from run_task.sources import ParquetFile

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SECONDS = TimeUnit.SECONDS


def file(folder: Path, columns: dict[str, Any], **arguments: Any) -> Path:
    path = folder / "file.parquet"
    parquet.write_table(pa.table(columns), path, **arguments)
    return path


def test_arrow_types_as_the_four_types(tmp_path: Path) -> None:
    day = datetime.date(2026, 1, 31)
    path = file(
        tmp_path,
        {
            "timestamp": pa.array([1], pa.uint32()),
            "small": pa.array([1], pa.int8()),
            "single": pa.array([0.1], pa.float32()),
            "decimal": pa.array([decimal.Decimal("1.25")]),
            "category": pa.array(["a"]).dictionary_encode(),
            "large": pa.array(["b"], pa.large_string()),
            "day": pa.array([day]),
            "none": pa.nulls(1),
        },
    )
    source = ParquetFile(path, unit=SECONDS)
    ((timestamp, row),) = source
    assert timestamp == 1
    assert row.pop("single") == float(np.float32(0.1))
    assert str(row.pop("none")) == "nan"
    assert row == {"small": 1, "decimal": 1.25, "category": "a", "large": "b", "day": "2026-01-31"}


def test_texts_can_be_read_as_numbers_and_large_ints_as_the_nearest_float(tmp_path: Path) -> None:
    path = file(tmp_path, {"timestamp": [1, 2], "text": ["1.5", " 2"], "large": [2**53 + 1, 2**62]})
    source = ParquetFile(path, unit=SECONDS, columns={"text": float, "large": float})
    assert [row for _, row in source] == [
        {"text": 1.5, "large": 2.0**53},
        {"text": 2.0, "large": 2.0**62},
    ]
    assert source.malformed == 0


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (pa.array([[1, 2]]), r"list<.*>, which is neither a number nor a text, but nested"),
        (pa.array([{"a": 1}]), r"struct<a: int64>, which .*, but nested"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), r"map<.*>, .*, but nested"),
        (pa.array([1], pa.duration("s")), r"duration\[.*\], which is neither a number nor a text:"),
        (
            pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)], pa.binary(16))),
            r"extension<arrow\.uuid>, which is neither",
        ),
        (pa.array([b"a"]), "binary, which need be no text: .* columns={'v': str}"),
        (pa.array([b"a"], pa.binary(1)), r"fixed_size_binary\[1\], which need be no text"),
    ],
)
def test_a_column_that_is_neither_number_nor_text_is_refused_by_name(
    tmp_path: Path, values: Any, what: str
) -> None:
    path = file(tmp_path, {"timestamp": [1], "v": values, "w": [2]})
    with pytest.raises(ConfigError, match=f"column 'v' is {what}.*leave it out by columns="):
        ParquetFile(path)
    assert list(ParquetFile(path, columns=["w"], unit=SECONDS)) == [(1, {"w": 2})]


@pytest.mark.parametrize(
    "arrow_type", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3)]
)
def test_bytes_that_are_declared_texts_are_read_as_such(tmp_path: Path, arrow_type: Any) -> None:
    values = pa.array([b"a\xc3\xa9", None, b"a\xff\xfe"], arrow_type)
    for encoded in (values, values.dictionary_encode()) if arrow_type == pa.binary() else (values,):
        path = file(tmp_path, {"timestamp": [1, 2, 3], "v": encoded})
        source = ParquetFile(path, columns={"v": str}, unit=SECONDS)
        assert list(source) == [(1, {"v": "aé"}), (2, {"v": ""})]
        assert source.malformed == 1
        with pytest.raises(ConfigError, match="cannot be read as float"):
            ParquetFile(path, columns={"v": float}, unit=SECONDS)


@pytest.mark.parametrize("arrow_type", [pa.string(), pa.large_string(), pa.string_view()])
def test_texts_of_every_kind(
    tmp_path: Path, arrow_type: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = file(
        tmp_path,
        {
            "timestamp": pa.array(["2026-01-31", "1", "x"], arrow_type),
            "name": pa.array(["a", None, "b"], arrow_type),
            "number": pa.array(["1.5", " 2 ", "NA"], arrow_type),
        },
    )
    source = ParquetFile(path, columns={"name": str, "number": float}, unit=SECONDS)
    assert list(source) == [
        (1_769_817_600, {"name": "a", "number": 1.5}),
        (1, {"name": "", "number": 2.0}),
    ]
    assert "'x' is not a timestamp" in caplog.text


def test_a_text_that_is_none_in_utf_8_costs_its_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Arrow does not look whether the texts of a file are any."""
    texts = pa.array([b"a", b"\xff", b"b"]).view(pa.string())
    for encoded in (texts, texts.dictionary_encode()):
        caplog.clear()
        path = file(tmp_path, {"timestamp": [1, 2, 3], "v": encoded})
        assert list(ParquetFile(path, unit=SECONDS)) == [(1, {"v": "a"}), (3, {"v": "b"})]
        assert "line 2, column 'v': b'\\xff' is not text in UTF-8" in caplog.text


def test_a_column_that_is_there_twice_is_refused_by_name_where_it_is_wanted(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file.parquet"
    names = ["timestamp", "v", "w", "v"]
    columns = [[1], [2], [3], [4]]
    parquet.write_table(pa.table([pa.array(c) for c in columns], names=names), path)
    for chosen in (None, ["v"], ["w", "v"]):
        with pytest.raises(ConfigError, match="there are 2 columns 'v', and which is meant"):
            ParquetFile(path, columns=chosen)
    with pytest.raises(ConfigError, match="there are 2 columns 'v'"):
        ParquetFile(path, timestamp="v", columns=["w"])
    assert list(ParquetFile(path, columns=["w"], unit=SECONDS)) == [(1, {"w": 3})]


def test_a_nested_column_is_not_taken_for_one_whose_name_has_a_dot(tmp_path: Path) -> None:
    path = file(tmp_path, {"timestamp": [1], "a.b": [2], "a": [{"b": 3}]})
    assert list(ParquetFile(path, columns=["a.b"], unit=SECONDS)) == [(1, {"a.b": 2})]
    path = file(tmp_path, {"timestamp": [1], "a": [{"b": 3}], "a.b": [2], "a.c": [4]})
    found = ParquetFile(path, columns=["a.b", "a.c"], unit=SECONDS)
    assert list(found) == [(1, {"a.b": 2, "a.c": 4})]


@pytest.mark.parametrize(
    "arrow_type",
    [pa.decimal32(9, 3), pa.decimal64(18, 3), pa.decimal128(38, 3), pa.decimal256(60, 3)],
)
def test_decimals_are_the_nearest_floats_or_exact_ints_and_texts(
    tmp_path: Path, arrow_type: Any
) -> None:
    """Arrow makes 92.10000000000001 of 92.1."""
    values = [decimal.Decimal(text) for text in ("92.100", "-0.007", "5.000")]
    path = file(tmp_path, {"timestamp": [1, 2, 3], "v": pa.array(values, arrow_type)})
    assert [row["v"] for _, row in ParquetFile(path)] == [92.1, -0.007, 5.0]
    texts = ParquetFile(path, columns={"v": str})
    assert [row["v"] for _, row in texts] == ["92.100", "-0.007", "5.000"]
    ints = ParquetFile(path, columns={"v": int})
    assert [row["v"] for _, row in ints] == [5]
    assert ints.malformed == 2
    with pytest.raises(ConfigError, match=r"column 'v' is decimal.*, which cannot be read as bool"):
        ParquetFile(path, columns={"v": bool})


@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=12), max_size=5))
def test_decimals_of_any_length_are_the_nearest_floats(values: list[decimal.Decimal]) -> None:
    values = [value for value in values if abs(value) < 10**40]
    for arrow_type in (pa.decimal256(76, 12), pa.decimal128(38, 12)):
        fit = [value for value in values if arrow_type.byte_width == 32 or abs(value) < 10**25]
        column = pa.array([None, *fit, None], arrow_type)[1:-1]
        assert floats_of(column).to_pylist() == [float(value) for value in fit]


def test_decimal_timestamps_are_exact(tmp_path: Path) -> None:
    seconds = ["1700000000.123456789", "-0.000000001", "0.999999999", "9223372036.854775807"]
    values = pa.array([*map(decimal.Decimal, seconds)], pa.decimal128(38, 9))
    path = file(tmp_path, {"timestamp": values, "v": [1, 2, 3, 4]})
    found = [
        [time for time, _ in ParquetFile(path, stored=SECONDS, unit=unit)]
        for unit in (TimeUnit.NANOS, TimeUnit.MICROS, SECONDS)
    ]
    assert found == [
        [1_700_000_000_123_456_789, -1, 999_999_999, 2**63 - 1],
        [1_700_000_000_123_456, -1, 999_999, 9_223_372_036_854_775],
        [1_700_000_000, -1, 0, 9_223_372_036],
    ]


@given(
    st.lists(st.integers(-(10**38) + 1, 10**38 - 1) | st.integers(-(10**17), 10**17), max_size=4),
    st.integers(-3, 38),
    st.sampled_from([1, 1_000, 1_000_000, 1_000_000_000]),
    st.sampled_from([1, 1_000, 1_000_000_000, 86_400_000_000_000]),
)
def test_a_decimal_timestamp_is_what_fractions_tell(
    digits: list[int], scale: int, stored_ns: int, unit_ns: int
) -> None:
    digits = [count % 10**35 for count in digits] if scale < 0 else digits  # pyarrow writes no more
    with decimal.localcontext(prec=60):
        values = [decimal.Decimal(count).scaleb(-scale) for count in digits]
    column = pa.array([None, *values], pa.decimal128(38, scale))
    found, faults = times_from_arrow(column, stored_ns, unit_ns)
    exact = [
        math.floor(
            fractions.Fraction(count) * stored_ns / unit_ns / fractions.Fraction(10) ** scale
        )
        for count in digits
    ]
    assert faults.pop(0) == "there is no timestamp"
    fit = [-(2**63) <= time < 2**63 for time in exact]
    assert [at not in faults for at in range(1, len(fit) + 1)] == fit
    assert [int(t) for t, good in zip(found[1:], fit) if good] == [
        time for time, good in zip(exact, fit) if good
    ]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_arrow_timestamps_of_every_unit_with_and_without_a_zone(
    tmp_path: Path, unit: str, zone: str | None
) -> None:
    """What has a zone is a time; what has none is in UTC, or what clocks of zone= show."""
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    summer = 1_719_835_200  # 2024-07-01 12:00 UTC
    counts = pa.array([summer * per_second, -per_second, None], pa.int64())
    path = file(tmp_path, {"timestamp": counts.cast(pa.timestamp(unit, zone)), "v": [1, 2, 3]})
    source = ParquetFile(path, unit=SECONDS)
    assert [time for time, _ in source] == [summer, -1]
    assert source.malformed == 1
    said = ParquetFile(path, unit=SECONDS, zone="Europe/Berlin")
    behind = 0 if zone else 3600
    assert [time for time, _ in said] == [summer - 2 * behind, -1 - behind]


def test_what_no_64_bits_of_the_unit_hold_is_malformed_and_not_wrapped(tmp_path: Path) -> None:
    far = pa.array([1, 2**62, -(2**62)], pa.timestamp("us"))
    path = file(tmp_path, {"timestamp": far, "v": [1, 2, 3]})
    source = ParquetFile(path, unit=TimeUnit.NANOS)
    assert [row["v"] for _, row in source] == [1]
    assert source.malformed == 2
    assert [time for time, _ in ParquetFile(path, unit=SECONDS)] == [
        0, 4_611_686_018_427, -4_611_686_018_428,
    ]  # fmt: skip


@pytest.mark.parametrize("arrow_type", [pa.date32(), pa.date64()])
def test_dates_are_midnights(tmp_path: Path, arrow_type: Any) -> None:
    days = pa.array([datetime.date(2026, 1, 31), datetime.date(1969, 12, 31)], arrow_type)
    path = file(tmp_path, {"timestamp": days, "day": days})
    assert list(ParquetFile(path, unit=SECONDS)) == [
        (1_769_817_600, {"day": "2026-01-31"}),
        (-86_400, {"day": "1969-12-31"}),
    ]
    source = ParquetFile(path, unit=SECONDS, zone="Europe/Berlin")
    assert [time for time, _ in source] == [1_769_817_600 - 3600, -86_400 - 3600]


def test_a_time_that_no_calendar_has_is_no_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Arrow writes <value out of range: ...> for it."""
    far = pa.array([0, 2**62], pa.timestamp("us"))
    path = file(tmp_path, {"timestamp": [1, 2], "at": far})
    assert [row["at"] for _, row in ParquetFile(path, unit=SECONDS)] == [
        "1970-01-01 00:00:00.000000"
    ]
    assert "timestamp[us] of 4611686018427387904 is not a date or time" in caplog.text


def test_a_time_zone_that_nobody_knows_is_refused_where_it_matters(tmp_path: Path) -> None:
    there = pa.array([1], pa.timestamp("s", "Foo/Bar"))
    path = file(tmp_path, {"timestamp": there, "at": there, "v": [2]})
    with pytest.raises(ConfigError, match=r"column 'at' is timestamp\[.*Foo/Bar\], which cannot"):
        ParquetFile(path)
    assert list(ParquetFile(path, columns=["v"], unit=SECONDS)) == [(1, {"v": 2})]


def test_no_number_but_0_and_1_is_a_bool(tmp_path: Path) -> None:
    """Arrow takes 2 for true."""
    for values in ([0, 1, 2], [0.0, 1.0, 0.5], pa.array([0, 1, 2], pa.uint64())):
        path = file(tmp_path, {"timestamp": [1, 2, 3], "v": values})
        source = ParquetFile(path, columns={"v": bool}, unit=SECONDS)
        assert [row["v"] for _, row in source] == [False, True]
        assert source.malformed == 1


def test_an_int_that_no_float_tells_is_malformed_where_nobody_said_float(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One file has ints, and another floats: then the column is float."""
    ints = tmp_path / "1.parquet"
    parquet.write_table(pa.table({"timestamp": [1, 2], "v": [2**53 + 1, 2**62]}), ints)
    floats = tmp_path / "2.parquet"
    parquet.write_table(pa.table({"timestamp": [3], "v": [0.5]}), floats)
    source = ParquetFile([ints, floats], unit=SECONDS)
    assert list(source) == [(2, {"v": 2.0**62}), (3, {"v": 0.5})]
    assert "line 1, column 'v': 9007199254740993 would not stay what it is" in caplog.text
    near = ParquetFile([ints, floats], columns={"v": float}, unit=SECONDS)
    assert [row["v"] for _, row in near] == [2.0**53, 2.0**62, 0.5]
    whole = pa.array([decimal.Decimal(2**53 + 1)], pa.decimal128(20, 0))
    source = ParquetFile(file(tmp_path, {"timestamp": [1], "v": whole}), unit=SECONDS)
    assert (list(source), source.malformed) == ([], 1)


def test_a_type_that_a_column_cannot_be_read_as_is_refused(tmp_path: Path) -> None:
    path = file(
        tmp_path, {"timestamp": [1], "at": [datetime.datetime(2026, 1, 31, tzinfo=datetime.UTC)]}
    )
    with pytest.raises(
        ConfigError, match=r"column 'at' is timestamp.*, which cannot be read as fl"
    ):
        ParquetFile(path, columns={"at": float})
    source = ParquetFile(path, columns={"at": str}, unit=SECONDS)
    assert [row["at"][:10] for _, row in source] == ["2026-01-31"]


def test_a_column_that_is_no_timestamp_is_refused(tmp_path: Path) -> None:
    for values in ([[1]], [datetime.time(1)], [True], [b"1"]):
        path = file(tmp_path, {"timestamp": values, "w": [2]})
        with pytest.raises(ConfigError, match=r"column 'timestamp' is .*, which is no timestamp"):
            ParquetFile(path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    path.write_text("timestamp,v\n")
    with pytest.raises(ConfigError, match=r"cannot be read: .*Parquet"):
        ParquetFile(path)


def test_a_file_that_is_damaged_inside_cannot_be_read_on(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        {"timestamp": np.arange(100_000), "v": np.random.default_rng(1).random(100_000)},
        compression="zstd",
        row_group_size=20_000,
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 1_000] = bytes(1_000)
    path.write_bytes(data)
    read = 0
    with pytest.raises(SourceError, match=r"file\.parquet, line [0-9]+: cannot be read on"):
        for batch in ParquetFile(path, unit=SECONDS, batch_rows=1_000).batches():
            read += len(batch)
    assert 20_000 <= read < 100_000
