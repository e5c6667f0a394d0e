"""Sources of texts beside Python's own readers of CSV and JSON: the same rows in the same order,
and each malformed one counted, and named by its line."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from run_task import TimeUnit
from run_task.sources import CsvFile, JsonLinesFile, StdinJsonLines

SECONDS = TimeUnit.SECONDS
COLUMNS: Any = {"f": float, "i": int, "b": bool, "s": str}

Rows = tuple[list[tuple[int, list[Any]]], list[int]]
"""Rows with their times, and the lines of malformed ones."""


def lines_told(caplog: pytest.LogCaptureFixture) -> list[int]:
    found = [re.search(r", line ([0-9]+)", message) for message in caplog.messages]
    return [int(match[1]) for match in found if match is not None]


# CSV

INT = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
NUMBER = re.compile(
    r"\s*[+-]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?|inf)\s*", re.ASCII | re.IGNORECASE
)


def csv_rows(text: str) -> Rows:
    """What Python reads, and what this library promises of it."""
    rows: list[tuple[int, list[Any]]] = []
    bad: list[int] = []
    stream = io.StringIO(text, newline="")
    reader = csv.reader(stream)
    next(reader)
    line = reader.line_num + 1
    for values in reader:
        if any(values):
            try:
                rows.append(csv_row(values))
            except (ValueError, OverflowError, KeyError):
                bad.append(line)
        line = reader.line_num + 1
    return rows, bad


def csv_row(values: Sequence[str]) -> tuple[int, list[Any]]:
    time, f, i, b, s = values
    assume(INT.fullmatch(time) or not NUMBER.fullmatch(time))  # other tests tell of fractions
    if not INT.fullmatch(time) or not INT.fullmatch(i):
        raise ValueError
    stamp, whole = int(time), int(i)
    if not (-(2**63) <= stamp < 2**63 and -(2**63) <= whole < 2**63):
        raise OverflowError
    if f not in ("", "NA", "nan") and not NUMBER.fullmatch(f):
        raise ValueError
    number = math.nan if f in ("", "NA", "nan") else float(f)
    return stamp, [
        number,
        whole,
        {"true": True, "1": True, "false": False, "0": False}[b.strip().lower()],
        s,
    ]


cells = st.one_of(
    st.integers(-100, 100).map(str),
    st.floats(allow_nan=False).map(repr),
    st.sampled_from(
        ["", "NA", "true", "FALSE", " 1 ", "+5", "1e5", "x", 'a"b', '"', "é", "\x00", "0x1F"]
    ),
    st.text(st.sampled_from('ab",\n é'), max_size=4),
)
good = st.tuples(
    st.integers(0, 10**6).map(str),
    st.floats(allow_nan=False).map(repr) | st.sampled_from(["", "NA"]),
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.sampled_from(["true", "False", "TRUE"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=5),
).map(list)
ragged = st.lists(cells, max_size=7)
spoilt = st.tuples(good, st.integers(0, 4), cells).map(
    lambda p: [*p[0][: p[1]], p[2], *p[0][p[1] + 1 :]]
)
records = st.lists(good | good | spoilt | ragged, max_size=12)


def csv_text(rows: Sequence[Sequence[str]], end: str, quoting: Any) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator=end, quoting=quoting)
    writer.writerow(["timestamp", "f", "i", "b", "s"])
    writer.writerows(rows)
    return stream.getvalue()


@given(
    records, st.sampled_from(["\n", "\r\n"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_csv_gives_what_python_reads(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    rows: list[list[str]],
    end: str,
    quoting: int,
) -> None:
    caplog.clear()
    text = csv_text(rows, end, quoting)
    path = tmp_path / "file.csv"
    path.write_bytes(text.encode())
    expected, bad = csv_rows(text)
    source = CsvFile(path, unit=SECONDS, columns=COLUMNS, stored=SECONDS)
    found = [(time, list(row.values())) for time, row in source]
    assert repr(found) == repr(expected)
    assert lines_told(caplog) == bad
    assert source.malformed == len(bad)


@given(st.lists(st.text(st.sampled_from('1",\nx'), max_size=12), max_size=5).map("\n".join))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_a_csv_with_quotes_anywhere_gives_what_python_reads(tmp_path: Path, text: str) -> None:
    """Also where nobody would write them. A quote that is never closed is another matter."""
    path = tmp_path / "file.csv"
    path.write_bytes(f"timestamp,s\n1,begin\n{text}\n9,end\n".encode())
    with path.open(newline="") as stream:
        found = list(csv.reader(stream))[1:]
    if found[-1] != ["9", "end"]:
        return
    source = CsvFile(path, unit=SECONDS, columns={"s": str}, stored=SECONDS)
    expected = [(int(row[0]), row[1]) for row in found if len(row) == 2 and INT.fullmatch(row[0])]
    assert [(time, row["s"]) for time, row in source] == expected
    blank = sum(not any(row) for row in found)
    assert len(expected) + source.malformed + blank == len(found)


# JSON Lines


def json_rows(lines: Sequence[bytes]) -> Rows:
    rows: list[tuple[int, list[Any]]] = []
    bad: list[int] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(json_row(json.loads(line.decode())))
            except (ValueError, TypeError, KeyError, OverflowError, AttributeError):
                bad.append(number)
    return rows, bad


def json_row(found: Any) -> tuple[int, list[Any]]:
    time, f, i, b, s = (found.get(name) for name in ("timestamp", "f", "i", "b", "s"))
    if type(time) is not int or type(i) is not int or type(b) is not bool:
        raise TypeError
    if not (-(2**63) <= time < 2**63 and -(2**63) <= i < 2**63):
        raise OverflowError
    if not (f is None or type(f) in (int, float)) or not (s is None or isinstance(s, str)):
        raise TypeError
    (s or "").encode()  # half of a pair is no text
    return time, [math.nan if f is None else float(f), i, b, s or ""]


json_values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(), st.text(max_size=3),
    st.lists(st.integers(), max_size=2), st.just("\ud800"),
)  # fmt: skip
objects = st.fixed_dictionaries(
    {"timestamp": st.integers(0, 10**6), "i": st.integers(-(2**63), 2**63 - 1), "b": st.booleans()},
    optional={
        "f": st.floats() | st.integers(-5, 5) | st.none(),
        "s": st.text(max_size=5),
        "more": json_values,
    },
)
wrong = st.tuples(objects, st.sampled_from(["i", "f", "b", "s"]), json_values).map(
    lambda p: {**p[0], p[1]: p[2]}
)
json_lines = st.lists(
    st.one_of(
        objects.map(json.dumps).map(str.encode),
        objects.map(
            lambda found: json.dumps(found, ensure_ascii=False).encode(errors="surrogatepass")
        ),
        wrong.map(json.dumps).map(str.encode),
        st.sampled_from(
            [
                b"",
                b" ",
                b"{}",
                b"[]",
                b"nope",
                b"\xff",
                b'{"s":"\xff"}',
                b"{} {}",
                b"\xef\xbb\xbf{}",
            ]
        ),
        st.binary(max_size=5).map(lambda data: data.replace(b"\n", b"")),
    ),
    max_size=12,
)


def json_sources(path: Path) -> Iterator[Any]:
    yield JsonLinesFile(path, unit=SECONDS, columns=COLUMNS, stored=SECONDS)
    with path.open(encoding="utf-8", errors="surrogateescape") as stream:
        yield StdinJsonLines(stream, unit=SECONDS, columns=COLUMNS, stored=SECONDS)


@given(json_lines, st.sampled_from([b"\n", b"\r\n"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_json_lines_give_what_python_reads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lines: list[bytes], end: bytes
) -> None:
    path = tmp_path / "file.jsonl"
    lines = [b'{"timestamp":1,"i":1,"b":true,"s":"first"}', *lines]
    path.write_bytes(b"".join(line + end for line in lines))
    expected, bad = json_rows(lines)
    for source in json_sources(path):
        caplog.clear()
        found = [(time, list(row.values())) for time, row in source]
        assert repr(found) == repr(expected)
        assert lines_told(caplog) == bad
        assert source.malformed == len(bad)
