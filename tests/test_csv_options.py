"""How CSV files spell their values, and what stands in them besides rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from run_task import ConfigError, SourceError, TimeUnit
from run_task.sources import CsvFile, OnFault


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def rows(text: str | bytes, **options: Any) -> tuple[list[dict[str, Any]], int]:
        """The rows of a file, and how many are malformed."""
        path = tmp_path / "file.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        source = CsvFile(path, unit=TimeUnit.SECONDS, **options)
        return [row for _, row in source], source.malformed

    return rows


def values(found: tuple[list[dict[str, Any]], int], column: str = "v") -> list[Any]:
    return [row[column] for row in found[0]]


@pytest.mark.parametrize(
    "encoding", ["cp1252", "latin-1", "utf-16", "utf-16-be", "utf-8-sig", "cp932"]
)
def test_a_file_in_another_encoding(encoding: str, read: Any) -> None:
    text = "é" if encoding != "cp932" else "表"
    data = f'timestamp,{text}\n1,{text}a\n2,"{text}\n{text}"\n'.encode(encoding)
    rows, malformed = read(data, encoding=encoding)
    assert [row[text] for row in rows] == [f"{text}a", f"{text}\n{text}"]
    assert malformed == 0


@pytest.mark.parametrize(
    ("encoding", "bad"),
    [("cp1252", b"\x81"), ("ascii", b"\xe9"), ("utf-8", b"\xe9"), ("euc-jp", b"\xff")],
)
def test_what_is_no_text_in_the_encoding_costs_its_row(
    encoding: str, bad: bytes, read: Any
) -> None:
    data = b"timestamp,v\n1,a\n2," + bad + b"\n3,c\n"
    found = read(data, encoding=encoding, columns={"v": str})
    assert (values(found), found[1]) == (["a", "c"], 1)


def test_half_a_pair_in_utf16_costs_its_row(read: Any) -> None:
    data = "timestamp,v\n1,a\n2,X\n3,c\n".encode("utf-16-le").replace(b"X\0", b"\x00\xd8")
    found = read(data, encoding="utf-16-le", columns={"v": str})
    assert (values(found), found[1]) == (["a", "c"], 1)


@pytest.mark.parametrize("sort", ["yes", 1, None])
def test_to_sort_is_said_by_true_or_false(sort: Any, read: Any) -> None:
    with pytest.raises(ConfigError, match=rf"sort={sort!r}: it is True or False"):
        read("timestamp,v\n1,2\n", sort=sort)


def test_an_encoding_that_is_none_is_refused(read: Any) -> None:
    for encoding in ("utf-7000", "base64", "hex", None, 5, "\0"):
        with pytest.raises(ConfigError, match=r"encoding=.*: there is none of this name"):
            read("timestamp\n", encoding=encoding)


GERMAN = [
    ("1.234,5", 1234.5),
    ("1234,5", 1234.5),
    ("-1.234.567", -1234567),
    (" 0,25 ", 0.25),
    ("+,5", 0.5),
    ("1e3", 1000),
    ("inf", math.inf),
    ("1.5", None),
    ("12.34,5", None),
    ("1.234,5.6", None),
    ("1,234,567", None),
    ("?", None),
]


@pytest.mark.parametrize(("text", "value"), GERMAN)
def test_numbers_with_another_decimal_point_and_thousands(
    text: str, value: float | None, read: Any
) -> None:
    options = {"decimal": ",", "thousands": ".", "delimiter": ";", "columns": {"v": float}}
    for beside in ("2;1,5", "2;x"):
        found = read(f'timestamp;v\n1;"{text}"\n{beside}\n', **options)
        right = ([] if value is None else [value]) + ([1.5] if beside == "2;1,5" else [])
        assert values(found) == right
        assert len(found[0]) + found[1] == 2


@pytest.mark.parametrize(
    ("text", "value"), [("1,234", 1234), ("1234", 1234), ("-1,234,567", -1234567), ("12,34", None),
                        ("1,234.0", None), ("0x1F", None), ("+1,000", 1000)]
)  # fmt: skip
def test_ints_with_thousands(text: str, value: int | None, read: Any) -> None:
    found = read(f'timestamp,v\n1,"{text}"\n', thousands=",", columns={"v": int})
    assert values(found) == ([] if value is None else [value])


def test_types_are_found_as_they_are_spelled(read: Any, tmp_path: Path) -> None:
    text = "timestamp;a;b;c\n1;1.234,5;ja;x\n2;-;Nein;-\n3;2,5;JA;y\n"
    options: Any = {
        "delimiter": ";", "decimal": ",", "thousands": ".", "null_values": ["-"],
        "true_values": ["ja"], "false_values": ["nein"],
    }  # fmt: skip
    rows, malformed = read(text, **options)
    assert repr(rows) == repr(
        [
            {"a": 1234.5, "b": True, "c": "x"},
            {"a": math.nan, "b": False, "c": "-"},
            {"a": 2.5, "b": True, "c": "y"},
        ]
    )
    assert malformed == 0


@pytest.mark.parametrize("beside", ["true", "maybe"])
def test_bools_and_missing_values_as_they_are_spelled(beside: str, read: Any) -> None:
    """Also where a value beside them is malformed, and Arrow cannot read all at once."""
    rows = "1,TRUE,1\n2,False,NA\n3,1,?\n4,0,5\n5,,5\n"
    text = f"timestamp,v,w\n{rows}6,{beside},6\n"
    found = read(text, columns={"v": bool, "w": float})
    last = [True] if beside == "true" else []
    assert values(found) == [True, False, False, *last]
    found = read(text, columns={"v": bool, "w": float}, null_values=["?"])
    assert values(found) == [True, True, False, *last]
    found = read(
        text, columns={"w": float}, null_values=["?"], true_values=["j"], false_values=["n"]
    )
    assert len(found[0]) == 5


def test_lines_that_are_comments_and_lines_that_are_left_out(read: Any) -> None:
    text = 'made by "x\nsome,where\n# it\'s "\n\ntimestamp,v\n#1,"0\n1,#1\n2,"a\n#b"\n#3,3'
    rows, malformed = read(text, skip_rows=2, comment="#", columns={"v": str})
    assert [row["v"] for row in rows] == ["#1", "a\n#b"]
    assert malformed == 0


def test_lines_are_counted_with_those_that_are_left_out(read: Any, tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text('a\nb\n#c\ntimestamp,v\n1,"x\ny"\n#d\nsoon,2\n')
    with pytest.raises(SourceError, match="line 8, column 'timestamp': 'soon' is not a timestamp"):
        list(
            CsvFile(
                path, skip_rows=2, comment="#", columns={"v": str}, max_malformed=1,
                on_malformed=OnFault.RAISE,
            )
        )  # fmt: skip


def test_columns_without_a_name_are_left_out(read: Any) -> None:
    rows, malformed = read("timestamp,,v,,\n1,a,2,b,\n2,a,3,b\n")
    assert (rows, malformed) == ([{"v": 2.0}], 1)  # a row has a value for each of them
    rows, _ = read("1,a,2\n", names=["timestamp", "", "v"])
    assert rows == [{"v": 2.0}]


def test_two_columns_of_one_name_are_refused_with_the_cure(read: Any) -> None:
    text = "about\ntimestamp,v,v\n1,2,3\n"
    with pytest.raises(
        ConfigError, match=r"two columns 'v': give all of them names=, .*skip_rows=2"
    ):
        read(text, skip_rows=1)
    rows, _ = read(text, skip_rows=2, names=["timestamp", "v", "w"])
    assert rows == [{"v": 2.0, "w": 3.0}]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"delimiter": ""}, r"delimiter=''\): it is one character"),
        ({"delimiter": None}, r"delimiter=None\): it is one character"),
        ({"delimiter": "§"}, "it is an ASCII character"),
        ({"quote": "\n"}, "ends no line"),
        ({"quote": ","}, "',' is both delimiter= and quote="),
        ({"decimal": ",", "thousands": ","}, "',' is both decimal= and thousands="),
        ({"comment": ","}, "is both delimiter= and comment="),
        ({"decimal": "5"}, "it is a part of numbers"),
        ({"thousands": "-"}, "it is a part of numbers"),
        ({"null_values": "NA"}, "it is a list of texts"),
        ({"true_values": [1]}, "1 is no text"),
        (
            {"true_values": ["x"], "false_values": ["X"]},
            "'x' is among true_values and false_values",
        ),
        ({"skip_rows": -1}, "skip_rows=-1.*it is a number of lines"),
        ({"names": "abc"}, "it is a list of texts"),
        ({"format": "%H:%M"}, "it has no year"),
        ({"format": "%Y %Z"}, "let|say by zone="),
        ({"format": "%Y %q"}, "'q' is a bad directive"),
        ({"format": "%Y %"}, "format="),
        ({"format": 5}, "it is a text"),
        ({"fold": 2}, "fold=2: it is 0 for the first"),
        ({"fold": 1}, "fold=1: it needs zone="),
        ({"longest_line": 0}, "it is a number of bytes"),
    ],
)
def test_options_that_cannot_be_are_refused(options: Any, why: str, read: Any) -> None:
    with pytest.raises(ConfigError, match=why):
        read("timestamp,v\n1,2\n", **options)


number = st.integers(-(10**7), 10**7).map(lambda n: n / 100)


@given(st.lists(number, min_size=1, max_size=20), st.sampled_from([".", " ", "'", "\u202f"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_come_back_as_they_were_written(read: Any, numbers: list[float], mark: str) -> None:
    def written(value: float) -> str:
        return f"{value:,.2f}".replace(".", "\0").replace(",", mark).replace("\0", ",")

    text = "timestamp;v\n" + "".join(f"{i};{written(n)}\n" for i, n in enumerate(numbers))
    found = read(text, delimiter=";", decimal=",", thousands=mark)
    assert values(found) == numbers
