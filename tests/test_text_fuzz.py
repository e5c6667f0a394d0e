"""Sources of texts beside Python's own readers of CSV and JSON: the same rows in the same order,
and each malformed one counted, and named by its line."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime
import io
import json
import math
import re
import zoneinfo
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.support.proof import examples

from run_task import TimeUnit
from run_task.sources import CsvFile, JsonLinesFile, StdinJsonLines, _parts

pa = pytest.importorskip("pyarrow")
SECONDS = TimeUnit.SECONDS
COLUMNS: Any = {"f": float, "i": int, "b": bool, "s": str}

Rows = tuple[list[tuple[int, list[Any]]], list[int]]
"""Rows with their times, and the lines of malformed ones."""


def lines_told(caplog: pytest.LogCaptureFixture) -> list[int]:
    found = [re.search(r", line ([0-9]+)", message) for message in caplog.messages]
    return [int(match[1]) for match in found if match is not None]


@contextlib.contextmanager
def parts_of(size: int) -> Generator[None]:
    """A block in which Arrow's threads share what is read, so many bytes for each."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_parts, "PART_BYTES", size)
        patched.setattr(pa, "cpu_count", lambda: 1000)
        yield


parts = st.sampled_from([_parts.PART_BYTES, 30])

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
    records,
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    parts,
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
def test_a_csv_gives_what_python_reads(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    rows: list[list[str]],
    end: str,
    quoting: int,
    part: int,
) -> None:
    caplog.clear()
    text = csv_text(rows, end, quoting)
    path = tmp_path / "file.csv"
    path.write_bytes(text.encode())
    expected, bad = csv_rows(text)
    with parts_of(part):
        source = CsvFile(path, unit=SECONDS, columns=COLUMNS, stored=SECONDS)
        found = [(time, list(row.values())) for time, row in source]
    assert repr(found) == repr(expected)
    assert lines_told(caplog) == bad
    assert source.malformed == len(bad)


@given(st.lists(st.text(st.sampled_from('1",\nx'), max_size=12), max_size=5).map("\n".join))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(100))
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


# CSV in a spelling of its own, with times as clocks show them

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
FORMAT = "%d/%m/%Y %H:%M:%S"


def shown_by_clocks(text: str, fold: int) -> int:
    """When clocks in Berlin show a time, by Python's own rules, in seconds since the Unix epoch."""
    moment = datetime.datetime.strptime(text, FORMAT).replace(tzinfo=BERLIN, fold=fold)
    utc = moment.astimezone(datetime.UTC)
    if utc.astimezone(BERLIN).replace(tzinfo=None) != moment.replace(tzinfo=None):
        utc = utc.replace(hour=1, minute=0, second=0)  # when they jump over it
    return int(utc.timestamp())


clocks = st.one_of(
    st.integers(946_684_800, 2_114_380_800),  # 2000 to 2037
    st.integers(1_711_843_200, 1_711_857_600),  # the night in which they are put forward
    st.integers(1_729_987_200, 1_730_001_600),  # and back
).map(lambda second: datetime.datetime.fromtimestamp(second, datetime.UTC).strftime(FORMAT))
no_times = st.sampled_from(["", "x", "31/02/2024 00:00:00", "2024-01-01", "1700000000", "1/1/24"])


@dataclasses.dataclass(frozen=True)
class Written:
    """How a file is written, and what its values are by that."""

    delimiter: str
    decimal: str
    thousands: str | None
    nulls: tuple[str, ...] | None
    true: tuple[str, ...]
    false: tuple[str, ...]
    encoding: str
    fold: int

    def number(self, text: str, *, whole: bool) -> float | int:
        text = text.strip()
        mark = "" if self.thousands is None else re.escape(self.thousands)
        digits = rf"([0-9]+|[0-9]{{1,3}}({mark}[0-9]{{3}})+)" if mark else "([0-9]+)"
        decimals = "" if whole else rf"({re.escape(self.decimal)}[0-9]*)?(e[+-]?[0-9]+)?"
        if re.fullmatch(rf"[+-]?{digits}{decimals}", text, re.ASCII) is None:
            raise ValueError
        plain = text if self.thousands is None else text.replace(self.thousands, "")
        return int(plain) if whole else float(plain.replace(self.decimal, "."))

    def row(self, values: Sequence[str]) -> tuple[int, list[Any]]:
        time, f, i, b, s = values
        missing = ("", *(("NA", "n/a") if self.nulls is None else self.nulls))
        known = {word.lower(): True for word in self.true}
        known |= {word.lower(): False for word in self.false}
        if i in missing or b in missing or b.strip().lower() not in known:
            raise ValueError
        number = math.nan if f in missing else self.number(f, whole=False)
        count = self.number(i, whole=True)
        if not -(2**63) <= count < 2**63:
            raise OverflowError
        return shown_by_clocks(time, self.fold), [number, count, known[b.strip().lower()], s]


@st.composite
def spelled_files(draw: st.DrawFn) -> tuple[Written, list[list[str]], str, int, str | None]:
    """How a file is written, its rows, what stands before them, how many lines that is, and how
    comments begin."""
    decimal = draw(st.sampled_from(".,"))
    how = Written(
        draw(st.sampled_from(",;|\t")),
        decimal,
        draw(st.none() | st.sampled_from([mark for mark in ".,'_ " if mark != decimal])),
        draw(st.none() | st.just(("-", "n/a"))),
        *draw(st.sampled_from([(("true", "1"), ("false", "0")), (("Yes", "on"), ("no", "OFF"))])),
        draw(st.sampled_from(["utf-8", "cp1252", "utf-16", "utf-8-sig"])),
        draw(st.integers(0, 1)),
    )

    def number(most: int, decimals: str) -> st.SearchStrategy[str]:
        mark = how.thousands or ""
        counts = st.integers(-most, most)
        return st.one_of(
            counts.map(lambda count: f"{count:,}".replace(",", mark) + decimals),
            counts.map(str),
        )

    spoilt = st.sampled_from(
        ["", "NA", "-", "n/a", "1.5", "1,5", "1.234", "12,34", "x", "on", " 7 "]
    )
    rows = draw(
        st.lists(
            st.tuples(
                clocks | clocks | no_times,
                number(10**7, f"{decimal}25") | spoilt,
                number(10**7, "") | st.just(str(2**63)) | spoilt,
                st.sampled_from([*how.true, *how.false, "YES", "True", " no "]) | spoilt,
                st.text(st.sampled_from("ab#é \n\"'" + how.delimiter), max_size=4),
            ).map(list),
            max_size=8,
        )
    )
    before = draw(st.lists(st.sampled_from(["written by x", "", "# 1"]), max_size=2))
    comment = draw(st.none() | st.just("#"))
    return how, rows, "".join(f"{line}\n" for line in before), len(before), comment


@given(spelled_files())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(100))
def test_a_csv_in_a_spelling_of_its_own_gives_what_it_means(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    drawn: tuple[Written, list[list[str]], str, int, str | None],
) -> None:
    caplog.clear()
    how, rows, before, skip, comment = drawn
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=how.delimiter, lineterminator="\n")
    stream.write(before)
    writer.writerow(["timestamp", "f", "i", "b", "s"])
    expected: list[tuple[int, list[Any]]] = []
    bad: list[int] = []
    for values in rows:
        if comment is not None:
            stream.write('# "not\n')
        line = stream.getvalue().count("\n") + 1
        writer.writerow(values)
        if any(values):
            try:
                expected.append(how.row(values))
            except (ValueError, OverflowError):
                bad.append(line)
    path = tmp_path / "file.csv"
    path.write_bytes(stream.getvalue().encode(how.encoding))
    source = CsvFile(
        path,
        unit=SECONDS,
        columns=COLUMNS,
        delimiter=how.delimiter,
        decimal=how.decimal,
        thousands=how.thousands,
        null_values=how.nulls,
        true_values=how.true,
        false_values=how.false,
        comment=comment,
        skip_rows=skip,
        encoding=how.encoding,
        format=FORMAT,
        zone="Europe/Berlin",
        fold=how.fold,
    )
    found = [(time, list(row.values())) for time, row in source]
    assert repr(found) == repr(expected)
    assert lines_told(caplog) == bad
    assert source.malformed == len(bad)


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


@given(json_lines, st.sampled_from([b"\n", b"\r\n"]), parts)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
def test_json_lines_give_what_python_reads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lines: list[bytes], end: bytes, part: int
) -> None:
    path = tmp_path / "file.jsonl"
    lines = [b'{"timestamp":1,"i":1,"b":true,"s":"first"}', *lines]
    path.write_bytes(b"".join(line + end for line in lines))
    expected, bad = json_rows(lines)
    for source in json_sources(path):
        caplog.clear()
        with parts_of(part):
            found = [(time, list(row.values())) for time, row in source]
        assert repr(found) == repr(expected)
        assert lines_told(caplog) == bad
        assert source.malformed == len(bad)


@given(
    st.lists(clocks | no_times | st.integers(0, 10**6) | st.none(), max_size=9), st.integers(0, 1)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
def test_json_lines_tell_times_in_a_format_as_clocks_show_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, times: list[Any], fold: int
) -> None:
    """A number is a count since the Unix epoch, whatever the format of texts."""
    path = tmp_path / "file.jsonl"
    path.write_text(
        "".join(f"{json.dumps({'timestamp': time, 'n': n})}\n" for n, time in enumerate(times))
    )
    expected: list[tuple[int, int]] = []
    bad: list[int] = []
    for n, time in enumerate(times):
        try:
            when = time if isinstance(time, int) else shown_by_clocks(time, fold)
            expected.append((when, n))
        except (TypeError, ValueError):
            bad.append(n + 1)
    options: Any = {"format": FORMAT, "zone": "Europe/Berlin", "fold": fold, "stored": SECONDS}
    with path.open() as stream:
        sources: list[Any] = [JsonLinesFile(path, unit=SECONDS, columns={"n": int}, **options)]
        sources.append(StdinJsonLines(stream, unit=SECONDS, columns={"n": int}, **options))
        for source in sources:
            caplog.clear()
            assert [(time, row["n"]) for time, row in source] == expected
            assert lines_told(caplog) == bad
            assert source.malformed == len(bad)
