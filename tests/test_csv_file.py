from __future__ import annotations

import csv
import logging
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from run_task import ConfigError, SourceError, TimeUnit
from run_task.sources import CsvFile, OnFault

SECONDS = TimeUnit.SECONDS


def file(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def logged_lines(caplog: pytest.LogCaptureFixture) -> list[int]:
    found = [re.search(r"file\.csv, line ([0-9]+)", message) for message in caplog.messages]
    return [int(match[1]) for match in found if match is not None]


def test_a_real_series(nab: Path) -> None:
    path = nab / "machine_temperature_system_failure.csv"
    source = CsvFile(path, unit=TimeUnit.MINUTES)
    rows = list(source)
    assert len(rows) == 22_695
    assert rows[0] == (1386018900 // 60, {"value": 73.96732207})
    assert source.malformed == 0
    with path.open() as stream:
        assert [row["value"] for _, row in rows] == [
            float(r["value"]) for r in csv.DictReader(stream)
        ]


def test_rows_of_another_length_are_malformed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = CsvFile(file(tmp_path, "timestamp,v\n1,1\n2\n3,3,3\n4,4\n5,5,\n"), unit=SECONDS)
    assert [t for t, _ in source] == [1, 4]
    assert logged_lines(caplog) == [3, 4, 6]
    assert "1 values for 2 columns: '2'" in caplog.messages[0]
    assert "3 values for 2 columns: '3,3,3'" in caplog.messages[1]


def test_lines_are_counted_through_breaks_in_quotes_and_empty_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        "timestamp,v,note\n"
        '1,1,"two\nlines"\n'  # lines 2 and 3
        "\n"
        '2,x,"a"\n'  # 5
        '3,3,"three\r\nlines\n"\n'  # 6 to 8
        '4,"x\ny"\n'  # 9 and 10
        ",,\n"
        "soon,5,b\n"  # 12
        "6,6,c\n"
        "7,7"  # 14, and no line break at the end
    )
    source = CsvFile(file(tmp_path, text), unit=SECONDS, columns={"v": float})
    with caplog.at_level(logging.WARNING):
        assert [t for t, _ in source] == [1, 3, 6]
    assert logged_lines(caplog) == [5, 9, 12, 14]
    assert source.malformed == 4


line = st.sampled_from(
    ["{t},1,a", "", "{t},x,a", "{t}", "{t},1,a,b", '{t},2,"a\nb"', '{t},"x\n",""', "soon,1,a", ",,"]
)
GOOD = {"{t},1,a", '{t},2,"a\nb"'}


@given(
    st.lists(line, max_size=60),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([OnFault.SKIP, OnFault.RAISE]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mixture_of_lines_is_counted_right(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    lines: list[str],
    end: str,
    on_malformed: OnFault,
) -> None:
    caplog.clear()
    number, good, bad = 2, list[int](), list[int]()
    text = f"timestamp,v,note{end}"
    for at, pattern in enumerate(lines):
        text += pattern.replace("{t}", str(at)) + end
        if pattern in GOOD:
            good.append(at)
        elif pattern not in ("", ",,"):
            bad.append(number)
            if on_malformed is OnFault.RAISE:
                break
        number += 1 + pattern.count("\n")
    path = file(tmp_path, text)
    source = CsvFile(path, unit=SECONDS, columns={"v": int, "note": str}, on_malformed=on_malformed)
    given: list[int] = []
    if bad and on_malformed is OnFault.RAISE:
        with pytest.raises(SourceError) as caught:
            given += (t for t, _ in source)
        assert caught.value.line == bad[0]
        rows = iter(source)
        caplog.clear()
        given = [next(rows)[0] for _ in good]
        with pytest.raises(SourceError):
            next(rows)
    else:
        given += (t for t, _ in source)
    assert given == good
    assert logged_lines(caplog) == bad
    assert source.malformed == len(bad)


def test_lines_are_right_across_blocks_of_a_large_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Some 3 MB, which Arrow parses in blocks of one, reading ahead.
    lines = ["timestamp,v,note"]
    bad: list[int] = []
    number = 2
    for i in range(40_000):
        text = f'{i},{i}.5,"{"x" * 50}\n"'
        if i % 9_973 == 0:
            text = f"{i},{i}.5" if i % 2 else f"{i},?,note"
            bad.append(number)
        lines.append(text)
        number += 1 + text.count("\n")
    source = CsvFile(file(tmp_path, "\n".join(lines)), unit=SECONDS, batch_rows=5_000)
    assert sum(map(len, source.batches())) == 40_000 - len(bad)
    assert logged_lines(caplog) == bad
    assert source.columns == {"v": float, "note": str}


def test_types_are_those_of_most_values(tmp_path: Path) -> None:
    text = (
        "timestamp,whole,real,missing,flag,text,none\n"
        "1,1,1,1,true,a,\n2,?,2.5,NA,FALSE,b,\n3,-3,inf,3,x,4,\n4,+4,1e5,4,true,5x,\n"
    )
    source = CsvFile(file(tmp_path, text), unit=SECONDS)
    assert source.columns == {
        "whole": float,
        "real": float,
        "missing": float,
        "flag": bool,
        "text": str,
        "none": float,
    }
    assert source.malformed == 0
    assert [t for t, _ in source] == [1, 4]
    assert source.malformed == 2
    chosen = CsvFile(file(tmp_path, text), unit=SECONDS, columns=["real", "missing"])
    assert repr([list(row.values()) for _, row in chosen]) == (
        "[[1.0, 1.0], [2.5, nan], [inf, 3.0], [100000.0, 4.0]]"
    )


def test_what_is_an_int(tmp_path: Path) -> None:
    values = ["1", "+2", " -3 ", "0x1F", "4.0", "1_0", "++5", "9223372036854775807", "-0", "", "NA"]
    rows = "".join(f"{i},{value}\n" for i, value in enumerate(values))
    source = CsvFile(file(tmp_path, f"timestamp,v\n{rows}"), columns={"v": int}, unit=SECONDS)
    assert [row["v"] for _, row in source] == [1, 2, -3, 9223372036854775807, 0]
    assert source.malformed == 6


def test_spaces_around_a_number_do_not_matter_and_in_a_text_they_do(tmp_path: Path) -> None:
    source = CsvFile(file(tmp_path, "timestamp,v,s\n 1 , 2.5 , a \n"), unit=SECONDS)
    assert list(source) == [(1, {"v": 2.5, "s": " a "})]


def test_a_file_without_names_other_delimiters_and_quotes(tmp_path: Path) -> None:
    path = file(tmp_path, "1;'a;b';2\n2;x;y\n3;c;3\n")
    source = CsvFile(
        path, names=["t", "s", "v"], timestamp="t", delimiter=";", quote="'", unit=SECONDS
    )
    assert list(source) == [(1, {"s": "a;b", "v": 2}), (3, {"s": "c", "v": 3})]
    path = file(tmp_path, 'timestamp,s\n1,"a\n2,b"\n')
    assert [row["s"] for _, row in CsvFile(path, quote=None, unit=SECONDS)] == ['"a', 'b"']


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = file(tmp_path, b"\xef\xbb\xbftimestamp,v\n1,2\n")
    assert list(CsvFile(path, unit=SECONDS)) == [(1, {"v": 2})]


def test_what_is_not_utf8_is_malformed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = file(tmp_path, b"timestamp,v,s\n1,2,\xff\n2,\xfe,b\n\xfd,3,c\n4,4,\xc3\xa9\n")
    source = CsvFile(path, unit=SECONDS)
    assert list(source) == [(4, {"v": 4, "s": "é"})]
    assert logged_lines(caplog) == [2, 3, 4]
    assert r"column 's': b'\xff' is not text in UTF-8" in caplog.messages[0]


def test_a_quote_that_is_never_closed_costs_its_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = "".join(f"{i},{i},a\n" for i in range(300_000))
    path = file(tmp_path, f'timestamp,v,s\n1,1,a\n2,2,"open\n{rows}')
    source = CsvFile(path, unit=SECONDS, columns={"v": float})
    assert sum(map(len, source.batches())) == 300_001
    assert logged_lines(caplog) == [3]
    assert "'2,2,\"open' has a quote that is not closed" in caplog.text


@pytest.mark.parametrize(
    "bad",
    [
        b"2,2,b,more",
        b"2,2,caf\xe9,more",
        b"2,2,caf\xe9",
        b'2,2,"caf\xe9","b"',
        b"2,2,b\rmore",
        b"2,2," + b"x" * 3_000,
        b'2,2,"' + b"x" * 3_000 + b'"',
        b"2,much,b",
        b"\xff\xfe",
        b"2,2,a\x00\xff",
        b"0x2,2,b",
    ],
    ids=repr,
)
@pytest.mark.parametrize("beside", [b"", b"8,8,h,h\n", b'8,8,"a\nb"\n'])
def test_a_bad_line_costs_itself(
    bad: bytes, beside: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong, and whatever has to be read record by record for it."""
    path = file(tmp_path, b"timestamp,v,s\n1,1,a\n" + bad + b'\n3,3,"c\nd"\n' + beside + b"4,4,e\n")
    source = CsvFile(path, unit=SECONDS, columns={"v": int, "s": str}, longest_line=2_000)
    times = [timestamp for timestamp, _ in source]
    kept = [8] if b'"a\nb"' in beside else []
    assert times == [1, 3, *kept, 4]
    assert logged_lines(caplog)[0] == 3
    assert source.malformed == 1 + (beside == b"8,8,h,h\n")


def test_a_late_change_of_type_costs_its_rows(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i}\n" for i in range(300_000))
    late = "".join(f"{i},{v}\n" for i, v in enumerate(["0.5", "", "oops"], 300_000))
    source = CsvFile(file(tmp_path, f"timestamp,v\n{rows}{late}"), unit=SECONDS)
    values = np.concatenate([batch.columns["v"] for batch in source.batches()])
    assert len(values) == 300_002
    assert source.malformed == 1
    assert values[-2] == 0.5
    assert np.isnan(values[-1])


def test_the_type_of_a_column_is_that_of_its_own_values_among_many(tmp_path: Path) -> None:
    texts = {float: ["1", "2.5", ""], bool: ["true", "FALSE", "true"], str: ["a", "true", "b"]}
    columns = random.Random(7).choices(list(texts), k=50)
    rows = [[str(time), *(texts[kind][time] for kind in columns)] for time in range(3)]
    names = [f"c{at}" for at in range(50)]
    path = file(tmp_path, "\n".join(",".join(row) for row in [["timestamp", *names], *rows]))
    assert dict(CsvFile(path).columns) == dict(zip(names, columns))


def test_types_are_looked_for_in_more_than_the_first_block(tmp_path: Path) -> None:
    early = "".join(f"{i},,{'x' * 20}\n" for i in range(60_000))
    late = "".join(f"{i},text,{'x' * 20}\n" for i in range(60_000, 60_100))
    source = CsvFile(file(tmp_path, f"timestamp,v,s\n{early}{late}"), unit=SECONDS)
    assert source.columns["v"] is str


@pytest.mark.parametrize("rows", [99, 100, 5_000])
def test_a_batch_that_is_malformed_for_the_most_part_is_refused(
    rows: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def source(bad: int, **options: Any) -> CsvFile:
        lines = (f"{i},{'x' if i < bad else i}\n" for i in range(rows))
        path = file(tmp_path, "timestamp,v\n" + "".join(lines))
        return CsvFile(path, columns={"v": int}, unit=SECONDS, **options)

    half = source(rows // 2)
    assert len(list(half)) == rows - rows // 2
    most = source(rows // 2 + 1)
    if rows < 100:  # too few to tell
        assert len(list(most)) == rows - rows // 2 - 1
        return
    caplog.clear()
    with pytest.raises(
        SourceError, match=r"max_malformed=0\.5 allows: is what was declared"
    ) as why:
        list(most)
    assert (why.value.line, why.value.column) == (2, "v")
    assert "'x' is not a valid int" in str(why.value)
    assert most.malformed == rows // 2 + 1
    assert len(caplog.messages) == 1
    allowed = source(rows // 2 + 1, max_malformed=1.0)
    assert len(list(allowed)) + allowed.malformed == rows
    with pytest.raises(SourceError, match="max_malformed=0 allows"):
        list(source(1, max_malformed=0))
    with pytest.raises(SourceError, match=r"line 2, column 'v': 'x' is not a valid int$"):
        list(source(rows, on_malformed=OnFault.RAISE))
    with pytest.raises(ConfigError, match="max_malformed=2: it is a share, from 0 to 1"):
        source(1, max_malformed=2)


def test_a_file_without_rows(tmp_path: Path) -> None:
    source = CsvFile(file(tmp_path, "timestamp,v\n"), unit=SECONDS)
    assert (list(source), list(source.batches()), source.malformed) == ([], [], 0)


def test_a_file_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Empty CSV file"):
        CsvFile(file(tmp_path, ""))
    with pytest.raises(ConfigError, match="there are two columns 'v'"):
        CsvFile(file(tmp_path, "timestamp,v,v\n1,2,3\n"))
    with pytest.raises(ConfigError, match=r"delimiter=', '\): it is one character"):
        CsvFile(file(tmp_path, "timestamp,v\n"), delimiter=", ")
