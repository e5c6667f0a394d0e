"""What the file sources have in common, each test for all of them."""

from __future__ import annotations

import gc
import gzip
import json
import logging
import math
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from run_task import ConfigError, SourceError, TimeUnit
from run_task.sources import ArrowFile, Batched, CsvFile, JsonLinesFile, OnFault, ParquetFile

pa = pytest.importorskip("pyarrow")
ipc = pytest.importorskip("pyarrow.ipc")
parquet = pytest.importorskip("pyarrow.parquet")

Records = Sequence[dict[str, Any]]
Make = Callable[..., CsvFile | JsonLinesFile | ParquetFile | ArrowFile]

TYPED = ("parquet", "arrow", "stream")
"""Kinds whose columns have types."""

SECONDS = TimeUnit.SECONDS


def write_csv(path: Path, records: Records) -> None:
    names = list(records[0])
    lines = [names, *([str(record[name]) for name in names] for record in records)]
    path.write_text("".join(f"{','.join(line)}\n" for line in lines))


def write_json_lines(path: Path, records: Records) -> None:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def write_parquet(path: Path, records: Records) -> None:
    parquet.write_table(pa.Table.from_pylist(list(records)), path, row_group_size=100)


def write_arrow(path: Path, records: Records) -> None:
    table = pa.Table.from_pylist(list(records))
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)


def write_stream(path: Path, records: Records) -> None:
    table = pa.Table.from_pylist(list(records))
    with ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)


KINDS: dict[str, tuple[Callable[[Path, Records], None], Any]] = {
    "csv": (write_csv, CsvFile),
    "jsonl": (write_json_lines, JsonLinesFile),
    "parquet": (write_parquet, ParquetFile),
    "arrow": (write_arrow, ArrowFile),
    "stream": (write_stream, ArrowFile),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str, tmp_path: Path) -> Make:
    """Writes records to a file, and makes a source of it."""
    write, source = KINDS[kind]

    def make(records: Records, **arguments: Any) -> Any:
        path = tmp_path / f"file.{kind}"
        write(path, records)
        return source(path, unit=SECONDS, **arguments)

    return make


def records(count: int) -> list[dict[str, Any]]:
    return [
        {"timestamp": 10 * i, "price": i / 7, "size": i, "open": i % 2 == 0, "name": f"n{i}"}
        for i in range(count)
    ]


def test_rows_are_mappings_of_plain_values_of_inferred_types(make: Make, kind: str) -> None:
    columns = {"price": float, "size": int, "open": bool, "name": str}
    # Of texts, nobody knows whether a number further on has decimals.
    inferred = columns if kind in TYPED else {**columns, "size": float}
    source = make(records(3))
    assert source.columns == inferred
    assert list(source)[2] == (20, {"price": 2 / 7, "size": 2, "open": True, "name": "n2"})
    assert {type(value) for _, row in source for value in row.values()} == {*inferred.values()}
    source = make(records(3), columns=columns)
    assert list(source) == [
        (0, {"price": 0.0, "size": 0, "open": True, "name": "n0"}),
        (10, {"price": 1 / 7, "size": 1, "open": False, "name": "n1"}),
        (20, {"price": 2 / 7, "size": 2, "open": True, "name": "n2"}),
    ]
    assert {type(value) for _, row in source for value in row.values()} == {float, int, bool, str}
    assert source.malformed == 0
    assert source.unit is SECONDS


def test_batches_are_the_same_rows_and_no_larger_than_asked_for(make: Make) -> None:
    columns = {"price": float, "size": int, "open": bool, "name": str}
    source = make(records(1000), batch_rows=300, columns=columns)
    assert isinstance(source, Batched)
    batches = list(source.batches())
    assert max(map(len, batches)) <= 300
    assert [row for batch in batches for row in batch.rows()] == list(source)
    assert [len(list(source)), len(list(source))] == [1000, 1000]  # each time from the start
    for batch in batches:
        assert batch.timestamps.dtype == np.int64
        assert {name: column.dtype for name, column in batch.columns.items()} == {
            "price": np.float64,
            "size": np.int64,
            "open": np.bool_,
            "name": object,
        }


def test_columns_can_be_chosen_and_given_a_type(make: Make) -> None:
    source = make(records(2), columns=["size", "price"])
    assert list(source) == [(0, {"size": 0, "price": 0.0}), (10, {"size": 1, "price": 1 / 7})]
    source = make(records(2), columns={"size": float})
    assert [row for _, row in source] == [{"size": 0.0}, {"size": 1.0}]
    assert isinstance(next(iter(source))[1]["size"], float)


def test_a_gap_a_duplicate_and_a_row_out_of_order_come_as_they_stand(make: Make) -> None:
    times = [5, 6, 6, 1_000_000, 7, 6, 1_000_001]
    source = make([{"timestamp": t, "value": i} for i, t in enumerate(times)])
    assert [(t, row["value"]) for t, row in source] == list(zip(times, range(7)))


def test_timestamps_are_converted_from_what_is_stored(make: Make) -> None:
    stored = [{"timestamp": t, "v": 1} for t in (1_999, 2_000, -1)]
    assert [t for t, _ in make(stored, stored=TimeUnit.MILLIS)] == [1, 2, -1]
    texts = [{"at": "2013-12-02 21:15:00", "v": 1}, {"at": "2013-12-02T21:15:01Z", "v": 2}]
    assert [t for t, _ in make(texts, timestamp="at")] == [1386018900, 1386018901]


BAD: list[dict[str, Any]] = [
    {"timestamp": "1", "value": "1.5"},
    {"timestamp": "soon", "value": "2.5"},
    {"timestamp": "3", "value": "much"},
    {"timestamp": "4", "value": "4.5"},
]


def test_a_malformed_row_is_counted_logged_and_skipped(
    make: Make, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = make(BAD, columns={"value": str if kind == "jsonl" else float})
    with caplog.at_level(logging.WARNING, "run_task"):
        times = [t for t, _ in source]
    line = 3 if kind == "csv" else 2
    expected = [f"file.{kind}, line {line}, column 'timestamp': 'soon' is not a timestamp"]
    if kind != "jsonl":  # where no text is read as a number
        expected.append(
            f"file.{kind}, line {line + 1}, column 'value': 'much' is not a valid float"
        )
    assert len(caplog.messages) == len(expected) == source.malformed
    for message, part in zip(caplog.messages, expected):
        assert part in message
    assert times == ([1, 3, 4] if kind == "jsonl" else [1, 4])
    list(source)
    assert source.malformed == len(expected)  # of the last reading


def test_a_malformed_row_can_be_fatal_after_the_rows_before_it(make: Make, kind: str) -> None:
    source = make(BAD, columns=["value"], on_malformed=OnFault.RAISE)
    rows = iter(source)
    assert next(rows)[0] == 1
    with pytest.raises(
        SourceError, match="column 'timestamp': 'soon' is not a timestamp"
    ) as caught:
        next(rows)
    assert caught.value.source.endswith(f"file.{kind}")
    assert (caught.value.line, caught.value.column) == (3 if kind == "csv" else 2, "timestamp")
    assert source.malformed == 1


def test_a_missing_value_is_nan_in_a_float_column_and_malformed_in_an_int_column(
    make: Make, kind: str
) -> None:
    missing = "" if kind == "csv" else None
    stored = [
        {"timestamp": 1, "price": 1.5, "size": 1, "name": "a"},
        {"timestamp": 2, "price": missing, "size": 2, "name": "b"},
        {"timestamp": 3, "price": 3.5, "size": missing, "name": "c"},
        {"timestamp": missing, "price": 3.5, "size": 4, "name": "c"},
        {"timestamp": 5, "price": 5.5, "size": 5, "name": missing},
    ]
    source = make(stored, columns={"price": float, "size": int, "name": str})
    rows = list(source)
    assert [t for t, _ in rows] == [1, 2, 5]
    assert math.isnan(rows[1][1]["price"])
    assert rows[2][1]["name"] == ""
    assert source.malformed == 2
    assert make(stored).columns["size"] is (int if kind in TYPED else float)


def test_an_int_that_does_not_fit_is_malformed(make: Make, kind: str) -> None:
    if kind in TYPED:
        stored: list[dict[str, Any]] = [{"timestamp": 1, "v": 1.0}, {"timestamp": 2, "v": 1.5}]
    else:
        stored = [{"timestamp": 1, "v": 1}, {"timestamp": 2, "v": 2**63}]
    source = make(stored, columns={"v": int})
    assert list(source) == [(1, {"v": 1})]
    assert source.malformed == 1


def test_floats_come_to_the_last_bit(make: Make) -> None:
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2.2250738585072011e-308]
    source = make([{"timestamp": i, "v": value} for i, value in enumerate(values)])
    assert [row["v"].hex() for _, row in source] == [value.hex() for value in values]


def test_what_cannot_be_is_refused_when_the_source_is_made(
    make: Make, kind: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="there is no column 'volume'; there are 'timestamp'"):
        make(records(1), columns=["volume"])
    with pytest.raises(ConfigError, match="there is no column 'time'; there are 'timestamp'"):
        make(records(1), timestamp="time")
    with pytest.raises(ConfigError, match=r"column 'price' is to be <class 'complex'>"):
        make(records(1), columns={"price": complex})
    with pytest.raises(ConfigError, match=r"write \['price'\]"):
        make(records(1), columns="price")
    with pytest.raises(ConfigError, match="names none"):
        make(records(1), columns=[])
    with pytest.raises(ConfigError, match="batch_rows=0: it is a positive int"):
        make(records(1), batch_rows=0)
    with pytest.raises(ConfigError, match=r"'skip' is not one of OnFault\.SKIP, OnFault\.RAISE"):
        make(records(1), on_malformed="skip")
    with pytest.raises(ConfigError, match="stored='s': it is a TimeUnit"):
        make(records(1), stored="s")
    source = KINDS[kind][1]
    with pytest.raises(ConfigError, match="unit='s': it is a TimeUnit"):
        source("there.is.none", unit="s")
    with pytest.raises(ConfigError, match="there is no such file"):
        source("there.is.none")


def test_a_file_much_larger_than_a_batch_needs_no_more_memory(make: Make, kind: str) -> None:
    count = 60_000
    source = make([{"timestamp": i, "v": i / 3} for i in range(count)], batch_rows=1_000)
    largest = 0
    read = 0
    gc.collect()  # what earlier tests have left is not let go of meanwhile
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        for batch in source.batches():
            read += len(batch)
            arrow = pa.total_allocated_bytes() - before
            largest = max(largest, tracemalloc.get_traced_memory()[0] + arrow)
    finally:
        tracemalloc.stop()
    assert read == count
    assert largest < (2e6 if kind in TYPED else 12e6)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_compressed_file_that_ends_too_early_cannot_be_read_on(
    make: Make, kind: str, tmp_path: Path
) -> None:
    source = make([{"timestamp": i, "v": math.sin(i)} for i in range(100_000)])
    path = tmp_path / f"file.{kind}.gz"
    path.write_bytes(gzip.compress((tmp_path / f"file.{kind}").read_bytes())[:-100_000])
    read = 0
    # Arrow reads ahead in a CSV, and may find it while the source is being made.
    with pytest.raises((SourceError, ConfigError), match=rf"\.{kind}\.gz.*: cannot be read") as why:
        for batch in type(source)(path, unit=SECONDS).batches():
            read += len(batch)
    assert read < 100_000
    if kind == "jsonl":
        assert isinstance(why.value, SourceError)
        assert read > 10_000


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_compressed_file_is_read_as_it_is(make: Make, kind: str, tmp_path: Path) -> None:
    source = make(records(10))
    path = tmp_path / f"file.{kind}.gz"
    path.write_bytes(gzip.compress((tmp_path / f"file.{kind}").read_bytes()))
    assert list(type(source)(path, unit=SECONDS)) == list(source)


# The last timestamp


@pytest.mark.parametrize("stored", [TimeUnit.SECONDS, TimeUnit.MILLIS])
def test_the_last_timestamp_is_known_without_reading_all(
    make: Make, kind: str, stored: TimeUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(records(10_000), stored=stored)
    last = list(source)[-1][0]

    def refuse(self: object) -> None:
        raise AssertionError

    monkeypatch.setattr(type(source), "_chunks", refuse)
    assert last == 99_990 // (1000 if stored is TimeUnit.MILLIS else 1)
    assert source.about().last == (None if kind == "stream" else last)


def test_the_last_timestamp_may_be_a_text(make: Make, kind: str) -> None:
    source = make([{"timestamp": "1970-01-01T00:01:00Z", "price": 1.0}])
    assert source.about().last == (None if kind == "stream" else 60)


def test_where_no_last_timestamp_can_be_told_there_is_none(make: Make, tmp_path: Path) -> None:
    source = make(records(3))
    for path in tmp_path.iterdir():
        path.write_bytes(b"rubbish\n" if path.suffix[1:] not in TYPED else b"")
    assert source.about().last is None
    for path in tmp_path.iterdir():
        path.unlink()
    assert source.about().last is None


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("timestamp,name\n1,a\n2,b\n\n\n", 2),
        ("timestamp,name\r\n1,a\r\n2,b", 2),
        ("timestamp,name\n", None),
        ('timestamp,name\n1,"a,b"\n2,"a\nb"\n', None),
        ('timestamp,name\n1,"a\nb"\n2,"b,c"\n', 2),
        ("timestamp,name\n1,a\n2\n", None),
        ("timestamp,name\n1," + "a" * 100_000, None),
    ],
)
def test_the_last_line_of_a_csv(text: str, last: int | None, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert CsvFile(tmp_path / "a.csv").about().last == last


def test_the_last_line_of_a_file_that_is_compressed_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"timestamp,name\n1,a\n2,b\n"))
    source = CsvFile(path)
    assert [timestamp for timestamp, _ in source] == [1, 2]
    assert source.about().last is None


def test_the_last_timestamp_of_arrow_timestamps(tmp_path: Path) -> None:
    for unit in ("s", "ms", "us", "ns"):
        column = pa.array([10, 90, 20], pa.int64()).cast(pa.timestamp("s")).cast(pa.timestamp(unit))
        parquet.write_table(pa.table({"timestamp": column, "x": [1, 2, 3]}), tmp_path / "a.parquet")
        assert ParquetFile(tmp_path / "a.parquet", unit=SECONDS).about().last == 90, unit
    for times, last in ((["1970-01-01T00:00:20", "10", "x"], 20), (["x"], None), ([], None)):
        column = pa.array(times, pa.string())
        parquet.write_table(
            pa.table({"timestamp": column}), tmp_path / "a.parquet", write_statistics=False
        )
        assert ParquetFile(tmp_path / "a.parquet", unit=SECONDS).about().last == last


def test_the_timestamp_may_be_a_column_too(make: Make) -> None:
    records = [{"timestamp": 10, "v": 1.5}, {"timestamp": 20, "v": 2.5}]
    right = [(10, {"timestamp": 10, "v": 1.5}), (20, {"timestamp": 20, "v": 2.5})]
    for columns in (["timestamp", "v"], {"timestamp": int, "v": float}):
        assert list(make(records, columns=columns)) == right
    assert list(make(records)) == [(10, {"v": 1.5}), (20, {"v": 2.5})]


def test_as_an_int_it_is_what_the_row_is_stamped_with_and_as_a_text_what_stands_there(
    make: Make,
) -> None:
    texts = ["2024-07-01T12:00:00+00:00", "2024-07-01T12:00:01+00:00"]
    records = [{"timestamp": text, "v": 1.5} for text in texts]
    stamps = [1_719_835_200, 1_719_835_201]
    source = make(records, columns={"v": float, "timestamp": int})
    assert list(source) == [(s, {"v": 1.5, "timestamp": s}) for s in stamps]
    source = make(records, columns={"timestamp": str})
    assert list(source) == [(s, {"timestamp": text}) for s, text in zip(stamps, texts)]
    records.append({"timestamp": "never", "v": 1.5})
    source = make(records, columns={"timestamp": int})
    assert [row["timestamp"] for _, row in source] == stamps
    assert source.malformed == 1


def test_times_without_a_zone_are_in_the_one_that_is_said(make: Make) -> None:
    # Of clocks that are put forward at 2:00, and back at 3:00.
    shown = ["2024-03-31 01:59:59", "2024-03-31 02:30:00", "2024-03-31 03:00:00",
             "2024-10-27 02:30:00", "2024-07-01 12:00:00"]  # fmt: skip
    utc = ["2024-03-31T00:59:59", "2024-03-31T01:00:00", "2024-03-31T01:00:00",
           "2024-10-27T00:30:00", "2024-07-01T10:00:00"]  # fmt: skip
    stamps = np.array(utc, "M8[s]").astype(np.int64).tolist()
    source = make([{"timestamp": text, "v": 1.0} for text in shown], zone="Europe/Berlin")
    assert [stamp for stamp, _ in source] == stamps
    mixed = [*shown, "2024-07-01T12:00:00Z", "never"]
    source = make([{"timestamp": text, "v": 1.0} for text in mixed], zone="Europe/Berlin")
    assert [stamp for stamp, _ in source] == [*stamps, 1_719_835_200]
    assert source.malformed == 1
    with pytest.raises(ConfigError, match="zone='Mars'"):
        make([{"timestamp": 1, "v": 1.0}], zone="Mars")


def test_parquet_times_without_a_zone_are_in_the_one_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "naive.parquet"
    naive = pa.array([1_719_835_200_000, None, 10**15], pa.timestamp("ms"))
    parquet.write_table(pa.table({"timestamp": naive, "v": [1.0, 2.0, 3.0]}), path)
    source = ParquetFile(path, unit=SECONDS, zone="Europe/Berlin")
    assert [stamp for stamp, _ in source] == [1_719_828_000]
    assert source.malformed == 2  # the year 33658 is beyond a calendar
    assert [stamp for stamp, _ in ParquetFile(path, unit=SECONDS)] == [1_719_835_200, 10**12]


def test_an_int_that_no_float_tells_is_malformed_in_a_column_that_nobody_declared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was rounded to another int, which is how ids of orders are lost."""
    whole = [9_007_199_254_740_993, 2**60, -(2**53) - 1, 10**30, 7]
    texts = tmp_path / "ids.csv"
    rows = [f"{i},{number}\n" for i, number in enumerate(whole)]
    texts.write_text("timestamp,id\n" + "".join(rows))
    lines = tmp_path / "ids.jsonl"
    lines.write_text(
        "".join(f"{json.dumps({'timestamp': i, 'id': number})}\n" for i, number in enumerate(whole))
    )
    for kind, path, line in ((CsvFile, texts, 2), (JsonLinesFile, lines, 1)):
        caplog.clear()
        source = kind(path, unit=SECONDS)
        assert [(time, row["id"]) for time, row in source] == [(1, 2.0**60), (4, 7.0)]
        assert source.malformed == 3
        told = f"line {line}, column 'id': {{}}9007199254740993{{}} would not stay what it is"
        assert any(told.format(mark, mark) in caplog.text for mark in ("", "'"))
        assert "declare it int, str or, to have the nearest float, float" in caplog.text
        near = kind(path, unit=SECONDS, columns={"id": float})
        assert [row["id"] for _, row in near] == [float(number) for number in whole]
        exact = kind(path, unit=SECONDS, columns={"id": str if kind is CsvFile else int})
        assert [int(row["id"]) for _, row in exact][:3] == whole[:3]


def test_large_numbers_with_decimals_or_an_exponent_are_floats(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    path.write_text("timestamp,v\n1,9007199254740993.0\n2,1e300\n3,inf\n4," + "9" * 5000 + "\n")
    source = CsvFile(path, unit=SECONDS)
    assert [row["v"] for _, row in source] == [2.0**53, 1e300, math.inf]
    assert source.malformed == 1
    path.write_text("timestamp;v\n1;9.007.199.254.740.993\n2;9.007.199.254.740.992\n")
    source = CsvFile(path, unit=SECONDS, delimiter=";", decimal=",", thousands=".")
    assert [time for time, _ in source] == [2]


@pytest.mark.parametrize("make", [CsvFile, JsonLinesFile, ParquetFile, ArrowFile])
@pytest.mark.parametrize("path", ["a\0b", ["a\0b"], "a\0*"])
def test_a_path_with_a_zero_character_is_refused(make: Make, path: Any) -> None:
    with pytest.raises(ConfigError, match="no path has a zero character in it"):
        make(path)
