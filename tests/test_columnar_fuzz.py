"""Sources of typed columns beside pyarrow's own readers: the same rows in the same order, and each
malformed one counted, and named by its number."""

from __future__ import annotations

import datetime
import decimal
import math
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.proof import examples

from run_task import TimeUnit
from run_task.sources import ArrowFile, ParquetFile

pa = pytest.importorskip("pyarrow")
ipc = pytest.importorskip("pyarrow.ipc")
parquet = pytest.importorskip("pyarrow.parquet")

INT64 = range(-(2**63), 2**63)
UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
INT = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
NUMBER = re.compile(r"\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?\s*", re.ASCII)
EPOCH = datetime.date(1970, 1, 1)

Rule = Callable[[Any], Any]
"""What a value is as another type; a ValueError, if it is none of that."""


# Values, and what they are as each of the four types


def refused(_: Any) -> Any:
    raise ValueError


def whole(value: Any) -> int:
    if not math.isfinite(value) or int(value) != value or int(value) not in INT64:
        raise ValueError
    return int(value)


def zero_or_one(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError
    return bool(value)


def int_of_text(text: str) -> int:
    if not INT.fullmatch(text):
        raise ValueError
    return whole(int(text))


def float_of_text(text: str) -> float:
    if not NUMBER.fullmatch(text) or text.strip().startswith("+"):
        raise ValueError
    return float(text)


def bool_of_text(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}.get(
        text.strip().lower()
    ) or zero_or_one(0 if text.strip().lower() in ("false", "0") else 2)


def number(rules: dict[Any, Rule]) -> dict[Any, Rule]:
    return {float: float, int: whole, bool: zero_or_one, **rules}


TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    st.integers(-(2**65), 2**65).map(str),
    st.decimals(-100, 100, places=3).map(str),
    st.sampled_from(["", "NA", " 7 ", "True", "0", "1", "1e3", "0x1F", "-", "1_0"]),
)


def decimals(digits: int, scale: int) -> st.SearchStrategy[decimal.Decimal]:
    most = 10**digits - 1
    exact = decimal.Context(prec=80)
    counts = st.integers(-most, most) | st.integers(-(10**4), 10**4).filter(
        lambda count: abs(count) <= most
    )
    return counts.map(lambda count: decimal.Decimal(count).scaleb(-scale, exact))


def ints(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    if signed:
        return st.integers(-3, 3) | st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return st.integers(0, 3) | st.integers(0, 2**bits - 1)


BOOLS: dict[Any, Rule] = {float: float, int: int, bool: bool, str: lambda v: str(v).lower()}
STRINGS: dict[Any, Rule] = {
    float: float_of_text, int: int_of_text, bool: bool_of_text, str: str,
}  # fmt: skip

DECIMALS: dict[Any, Rule] = {float: float, int: whole, str: str}
DATES: dict[Any, Rule] = {str: str}

COLUMNS: list[tuple[Any, st.SearchStrategy[Any], dict[Any, Rule]]] = [
    (pa.bool_(), st.booleans(), BOOLS),
    *(
        (getattr(pa, f"{sign}int{bits}")(), ints(bits, signed=not sign), number({str: str}))
        for bits in (8, 16, 32, 64)
        for sign in ("", "u")
    ),
    *(
        (of, floats | st.integers(-2, 2).map(float), number({}))
        for of, floats in (
            (pa.float16(), st.floats(width=16)),
            (pa.float32(), st.floats(width=32)),
            (pa.float64(), st.floats()),
        )
    ),
    *(
        (of, decimals(digits, of.scale), DECIMALS)
        for of, digits in (
            (pa.decimal32(9, 3), 9),
            (pa.decimal64(18, 6), 18),
            (pa.decimal128(38, 0), 38),
            (pa.decimal128(38, 30), 38),
            (pa.decimal256(70, 5), 70),
        )
    ),
    *((of, TEXTS, STRINGS) for of in (pa.string(), pa.large_string(), pa.string_view())),
    (pa.binary(), TEXTS.map(str.encode) | st.binary(max_size=3), {str: bytes.decode}),
    (pa.large_binary(), st.binary(max_size=3), {str: bytes.decode}),
    (pa.binary(2), st.binary(min_size=2, max_size=2), {str: bytes.decode}),
    *((of, st.dates(), DATES) for of in (pa.date32(), pa.date64())),
]  # fmt: skip


# Times


def since_epoch(day: datetime.date) -> int:
    return (day - EPOCH).days * 86_400 * 10**9


TIMES: list[tuple[Any, st.SearchStrategy[Any], Callable[[Any, int], Fraction]]] = [
    *(
        (
            getattr(pa, f"{sign}int{bits}")(),
            ints(bits, signed=not sign),
            lambda value, stored_ns: Fraction(value * stored_ns),
        )
        for bits in (8, 32, 64)
        for sign in ("", "u")
    ),
    *(
        (
            pa.timestamp(unit, zone),
            # Parquet has no seconds, but a thousand times as many milliseconds.
            ints(53 if unit == "s" else 64, signed=True) | st.integers(0, 10**10),
            lambda value, _: Fraction(value),
        )
        for unit in UNITS
        for zone in (None, "UTC", "Asia/Tokyo")
    ),
    *(
        (of, decimals(digits, of.scale), lambda value, stored_ns: Fraction(value) * stored_ns)
        for of, digits in (
            (pa.decimal64(18, 9), 18),
            (pa.decimal128(38, 9), 38),
            (pa.decimal256(50, 20), 50),
        )
    ),
    *(
        (of, st.dates(), lambda value, _: Fraction(since_epoch(value)))
        for of in (pa.date32(), pa.date64())
    ),
    (
        pa.float64(),
        st.integers(-(2**40), 2**40).map(float),
        lambda value, stored_ns: Fraction(value) * stored_ns,
    ),
    *(
        (
            of,
            st.dates().map(str) | st.integers(-5, 2**40).filter(lambda n: n < 10**7).map(str),
            lambda value, stored_ns: Fraction(
                int(value) * stored_ns
                if INT.fullmatch(value)
                else since_epoch(datetime.date.fromisoformat(value))
            ),
        )
        for of in (pa.string(), pa.string_view())
    ),
]


# Files


@st.composite
def tables(draw: st.DrawFn) -> tuple[Any, Any, list[tuple[dict[Any, Rule], Any]]]:
    """A table, how its times are told, and of each of its columns how its values are told, and
    what it is declared."""
    rows = draw(st.integers(0, 9))

    def column(of: Any, values: st.SearchStrategy[Any]) -> Any:
        filled = draw(st.lists(values | st.none(), min_size=rows, max_size=rows))
        array = pa.array(filled, of)
        plain = not (pa.types.is_decimal(of) or pa.types.is_string_view(of) or of == pa.float16())
        return array.dictionary_encode() if plain and draw(st.booleans()) else array

    of, values, told = draw(st.sampled_from(TIMES))
    columns = {"t": column(of, values)}
    chosen: list[tuple[dict[Any, Rule], Any]] = []
    for at in range(draw(st.integers(1, 3))):
        of, values, rules = draw(st.sampled_from(COLUMNS))
        columns[f"c{at}"] = column(of, values)
        chosen.append((rules, draw(st.sampled_from(list(rules)))))
    return pa.table(columns), told, chosen


def write_parquet(path: Path, table: Any, rows: int, codec: str | None) -> None:
    parquet.write_table(table, path, row_group_size=rows, compression=codec or "none")


def write_arrow(path: Path, table: Any, rows: int, codec: str | None) -> None:
    with ipc.new_file(path, table.schema, options=ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table, max_chunksize=rows)


def write_stream(path: Path, table: Any, rows: int, codec: str | None) -> None:
    options = ipc.IpcWriteOptions(compression=codec, emit_dictionary_deltas=True)
    with ipc.new_stream(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)


def read_stream(path: Path) -> Any:
    with ipc.open_stream(path) as reader:
        return reader.read_all()


def read_arrow(path: Path) -> Any:
    with ipc.open_file(path) as reader:
        return reader.read_all()


FORMATS: dict[str, tuple[Any, Any, Any]] = {
    "parquet": (write_parquet, parquet.read_table, ParquetFile),
    "arrow": (write_arrow, read_arrow, ArrowFile),
    "stream": (write_stream, read_stream, ArrowFile),
}


def plain(column: Any) -> list[Any]:
    """The values of a column, as plain as may be: timestamps in nanoseconds."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(column.type):
        per_unit = UNITS[column.type.unit]
        counts: list[Any] = column.cast(pa.int64()).to_pylist()
        return [None if count is None else count * per_unit for count in counts]
    found: list[Any] = column.to_pylist()
    return found


def value_of(rules: dict[Any, Rule], kind: Any, value: Any) -> Any:
    if value is not None:
        return rules[kind](value)
    if kind in (int, bool):
        raise ValueError
    return math.nan if kind is float else ""


@pytest.mark.parametrize("form", FORMATS)
@given(
    tables(),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from([None, "lz4", "zstd"]),
    st.sampled_from(list(TimeUnit)),
    st.sampled_from(list(TimeUnit)),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(100))
def test_a_file_gives_what_pyarrow_reads(
    form: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    declared: tuple[Any, Any, list[tuple[dict[Any, Rule], Any]]],
    group: int,
    batch_rows: int,
    codec: str | None,
    unit: TimeUnit,
    stored: TimeUnit,
) -> None:
    table, told, chosen = declared
    write, read, source = FORMATS[form]
    path = tmp_path / "file"
    write(path, table, group, codec)
    there = read(path)
    expected: list[tuple[int, list[Any]]] = []
    bad: list[int] = []
    times, *columns = (plain(column) for column in there.columns)
    for row, (time, *values) in enumerate(zip(times, *columns), 1):
        try:
            if time is None:
                raise ValueError
            stamp = math.floor(told(time, stored.nanos) / unit.nanos)
            if stamp not in INT64:
                raise ValueError
            told_as = zip(chosen, values)
            row_of = [value_of(rules, kind, value) for (rules, kind), value in told_as]
            expected.append((stamp, row_of))
        except ValueError:
            bad.append(row)
    caplog.clear()
    kinds = {f"c{at}": kind for at, (_, kind) in enumerate(chosen)}
    found = source(
        path, timestamp="t", unit=unit, stored=stored, columns=kinds, batch_rows=batch_rows
    )
    rows = [(time, list(row.values())) for time, row in found]
    assert repr(rows) == repr(expected)
    lines = [re.search(r", line ([0-9]+)", message) for message in caplog.messages]
    assert [int(match[1]) for match in lines if match] == bad
    assert found.malformed == len(bad)
    assert len(rows) + found.malformed == len(times)
