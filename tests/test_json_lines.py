"""JSON Lines, as a file and as a stream."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.threads import PATIENCE, beside

from run_task import ConfigError, SourceError, TimeUnit
from run_task.columnar._timestamps import Times
from run_task.sources import JsonLinesFile, OnFault, StdinJsonLines
from run_task.sources._json_rows import MalformedRow, read_row

SECONDS = TimeUnit.SECONDS
TIMES = Times("", SECONDS, None, None, 0, None)


def file(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@contextmanager
def pipe() -> Generator[tuple[TextIO, TextIO]]:
    """The two ends of a pipe: what is written to the second can be read from the first."""
    read, write = os.pipe()
    with open(read) as reader, open(write, "w", buffering=1) as writer:
        yield reader, writer


TEXT = (
    '\ufeff{"timestamp": 1, "v": 1, "s": "x", "more": [1]}\n'
    "\n"
    '{"timestamp": 2, "v": null}\n'
    "  \r\n"
    "nope\n"
    '{"timestamp": 3, "v": "much"}\n'
    '{"timestamp": 4}{"timestamp": 5}\n'
    "[1]\n"
    '{"timestamp": "soon"}\n'
    '{"v": 1}\n'
    '{"timestamp": 6, "v": 2.5, "s": "é"}'
)
FAULTS = [
    "line 5: nope is not JSON",
    "line 6, column 'v': 'much' is not a valid float",
    'line 7: {"timestamp": 4}{"timestamp": 5} is not JSON',
    "line 8: [1] is not a JSON object",
    "line 9, column 'timestamp': 'soon' is not a timestamp",
    "line 10, column 'timestamp': there is no timestamp",
]


@pytest.mark.parametrize("form", ["file", "stream"])
def test_lines_good_and_bad(form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    columns = {"v": float, "s": str}
    source = (
        JsonLinesFile(file(tmp_path, TEXT), unit=SECONDS, columns=columns)
        if form == "file"
        else StdinJsonLines(io.StringIO(TEXT.lstrip("\ufeff")), unit=SECONDS, columns=columns)
    )
    with caplog.at_level(logging.WARNING, "run_task"):
        rows = list(source)
    assert [(t, row["s"]) for t, row in rows] == [(1, "x"), (2, ""), (6, "é")]
    assert repr([row["v"] for _, row in rows]) == "[1.0, nan, 2.5]"
    assert source.malformed == len(caplog.messages) == len(FAULTS)
    for message, part in zip(caplog.messages, FAULTS):
        assert part in message
    assert source.unit is SECONDS


# Values as they may stand in a file, and lines of all kinds.
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.text(st.characters(), max_size=4),
    st.sampled_from(["1", "1.5", "true", "2020-01-01", "2020-01-01T00:00:00Z"]),
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "timestamp": st.integers(-(10**6), 10**6) | scalars,
        "f": st.floats() | scalars,
        "i": st.integers(-10, 10) | scalars,
        "b": st.booleans() | scalars,
        "s": st.text(max_size=3) | scalars,
        "other": st.lists(scalars, max_size=2),
    },
).map(json.dumps)
raw = st.sampled_from(["", " ", "{", "}", "{}", "[]", "1", '{"i":01}', '{"s":"\\ud800"}', "{} {}"])
KINDS: dict[str, Any] = {"f": float, "i": int, "b": bool, "s": str}


@given(st.lists(objects | objects | objects | raw, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_gives_what_its_lines_give_one_by_one(tmp_path: Path, lines: list[str]) -> None:
    """Blocks that Arrow parses, and blocks that it does not, mean the same."""
    expected: list[tuple[int, dict[str, Any]]] = []
    bad = 0
    for line in lines:
        if line.strip():
            try:
                expected.append(read_row(line, "timestamp", TIMES, KINDS))
            except MalformedRow:
                bad += 1
    path = file(tmp_path, "".join(f"{line}\n" for line in lines))
    if not expected:
        # Then, no line may have a timestamp, and that is refused at once.
        with contextlib.suppress(ConfigError):
            assert list(JsonLinesFile(path, unit=SECONDS, columns=KINDS)) == []
        return
    source = JsonLinesFile(path, unit=SECONDS, columns=KINDS)
    assert repr(list(source)) == repr(expected)
    assert source.malformed == bad


def test_a_bad_line_in_one_block_of_many(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Some 3 MB: one block of one is read line by line, the others by Arrow.
    lines = [f'{{"timestamp": {i}, "v": {i}.5, "s": "{"x" * 40}"}}' for i in range(40_000)]
    lines[20_000] = "nope"
    source = JsonLinesFile(file(tmp_path, "\n".join(lines)), unit=SECONDS, batch_rows=1_000)
    batches = list(source.batches())
    assert sum(map(len, batches)) == 39_999
    assert max(map(len, batches)) <= 1_000
    assert [t for batch in batches for t in batch.timestamps] == [
        i for i in range(40_000) if i != 20_000
    ]
    assert "line 20001: nope" in caplog.text


def test_a_line_longer_than_a_block(tmp_path: Path) -> None:
    long = "x" * 3_000_000
    text = f'{{"timestamp":1,"s":"{long}"}}\n{{"timestamp":2,"s":"y"}}\n'
    assert [row["s"] for _, row in JsonLinesFile(file(tmp_path, text), unit=SECONDS)] == [long, "y"]


def test_types_are_those_of_most_values_among_the_first(tmp_path: Path) -> None:
    text = (
        '{"timestamp":1,"whole":1,"real":1,"part":1,"flag":true,"text":"a","none":null}\n'
        '{"timestamp":2,"whole":"x","real":2.5,"flag":true,"text":"b","none":null}\n'
        '{"timestamp":3,"whole":3,"real":3,"part":1,"flag":1,"text":1,"none":null}\n'
    )
    source = JsonLinesFile(file(tmp_path, text), unit=SECONDS)
    assert source.columns == {
        "whole": float,
        "real": float,
        "part": float,
        "flag": bool,
        "text": str,
        "none": float,
    }
    assert [t for t, _ in source] == [1]


def test_nan_and_infinity_as_python_writes_them(tmp_path: Path) -> None:
    text = '{"timestamp":1,"v":NaN}\n{"timestamp":2,"v":-Infinity}\n{"timestamp":3,"v":1e999}\n'
    values = [row["v"] for _, row in JsonLinesFile(file(tmp_path, text), unit=SECONDS)]
    assert math.isnan(values[0])
    assert values[1:] == [-math.inf, math.inf]


def test_a_column_of_lists_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path, '{"timestamp":1,"v":[1],"w":2}\n')
    with pytest.raises(ConfigError, match="column 'v' holds neither numbers nor texts"):
        JsonLinesFile(path)
    assert list(JsonLinesFile(path, columns=["w"], unit=SECONDS)) == [(1, {"w": 2})]


def test_a_declared_column_may_come_late_and_its_absence_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = file(tmp_path, '{"timestamp":1}\n' * 1_000 + '{"timestamp":2,"v":3}\n')
    source = JsonLinesFile(path, columns={"v": float}, unit=SECONDS)
    assert "no row among the first has a column 'v'" in caplog.text
    assert [row["v"] for _, row in source][-1] == 3.0


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert list(JsonLinesFile(file(tmp_path, ""), columns=["v"])) == []
    assert list(JsonLinesFile(file(tmp_path, "\n\n"))) == []


def test_a_stream_gives_a_row_as_soon_as_its_line_is_there() -> None:
    with pipe() as (reader, writer):
        rows = iter(StdinJsonLines(reader, unit=SECONDS))
        for t in range(3):
            writer.write(f'{{"timestamp": {t}, "anything": ["goes", null]}}\n')
            assert next(rows) == (t, {"anything": ["goes", None]})
        writer.write('{"timestamp": 3}')  # the last line may lack its end
        writer.close()
        assert list(rows) == [(3, {})]


def test_a_stream_that_waits_for_a_line_can_be_closed() -> None:
    with pipe() as (reader, writer):
        source = StdinJsonLines(reader, unit=SECONDS)
        rows = iter(source)
        writer.write('{"timestamp": 1}\n')
        assert next(rows) == (1, {})
        with beside(lambda: list(rows)) as rest:
            source.close()
            assert rest.result(PATIENCE) == []
        source.close()


def test_closing_races_with_reading(switching: None) -> None:
    for _ in range(100):
        with pipe() as (reader, writer):
            source = StdinJsonLines(reader, unit=SECONDS)
            closing = threading.Thread(target=source.close)
            writer.write('{"timestamp": 1}\n' * 3)
            with beside(partial(list[object], source)) as rows:
                closing.start()
                assert len(rows.result(PATIENCE)) <= 3
            closing.join()


def test_a_malformed_line_of_a_stream_can_be_fatal() -> None:
    stream = io.StringIO('{"timestamp": 1}\n\nnope\n')
    source = StdinJsonLines(stream, unit=SECONDS, on_malformed=OnFault.RAISE)
    rows = iter(source)
    assert next(rows) == (1, {})
    with pytest.raises(SourceError, match="the stream, line 3: nope is not JSON"):
        next(rows)
    assert source.malformed == 1


def test_standard_input_is_the_default() -> None:
    script = (
        "from run_task.sources import StdinJsonLines\n"
        "source = StdinJsonLines(columns={'v': float})\n"
        "print(list(source), source.malformed)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input='{"timestamp":1,"v":2}\n?\n',
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[(1, {'v': 2.0})] 1\n"
    assert done.stderr == ""


def test_a_stream_asked_for_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match="StdinJsonLines: column 'v' is to be 'float'"):
        StdinJsonLines(columns={"v": "float"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType] what is refused
    with pytest.raises(ConfigError, match="StdinJsonLines: unit=None: it is a TimeUnit"):
        StdinJsonLines(unit=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] what is refused


def test_a_stream_of_times_in_a_zone_with_the_timestamp_as_a_column() -> None:
    text = '{"timestamp": "2024-07-01 12:00:00", "v": 1}\n{"timestamp": 5, "v": 2}\n'
    columns = {"v": int, "timestamp": int}
    source = StdinJsonLines(io.StringIO(text), unit=SECONDS, columns=columns, zone="Europe/Berlin")
    right = [(1_719_828_000, {"v": 1, "timestamp": 1_719_828_000}), (5, {"v": 2, "timestamp": 5})]
    assert list(source) == right
    source = StdinJsonLines(io.StringIO(text), unit=SECONDS, zone="Asia/Tokyo")
    assert [stamp for stamp, _ in source] == [1_719_802_800, 5]


BAD_LINES = [
    b'{"timestamp":2,"v":2,"s":"caf\xe9"}',
    b'{"timestamp":2,"v":2,"s":"b","more":"\xff"}',
    b'{"timestamp":"1970-01-0\xe9","v":2,"s":"b"}',
    b'{"timestamp":2,"v":2,"s":"' + b"x" * 3_000 + b'"}',
    b'{"timestamp":2,"v":[],"s":"b"}',
    b'{"timestamp":2,"v":0.5,"s":"b"}',
    b"{\x00}\x00",
    b"[" * 1_500,
]


@pytest.mark.parametrize("bad", BAD_LINES, ids=repr)
@pytest.mark.parametrize("beside", [b"", b"nope\n", b"\n", b"\r\n"])
@pytest.mark.parametrize("form", ["file", "stream"])
def test_a_bad_line_costs_itself(
    form: str, bad: bytes, beside: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = file(
        tmp_path,
        b'{"timestamp":1,"v":1,"s":"a"}\n' + bad + b'\n{"timestamp":3,"v":3,"s":"c"}\n' + beside,
    )
    columns: Any = {"v": int, "s": str}
    with path.open() as stream:
        source = (
            JsonLinesFile(path, unit=SECONDS, columns=columns, longest_line=2_000)
            if form == "file"
            else StdinJsonLines(stream, unit=SECONDS, columns=columns, longest_line=2_000)
        )
        assert list(source) == [(1, {"v": 1, "s": "a"}), (3, {"v": 3, "s": "c"})]
    assert source.malformed == 1 + (beside == b"nope\n")
    assert ", line 2" in caplog.messages[0]
    assert caplog.messages[0].isprintable()


def test_numbers_are_floats_unless_ints_are_declared(tmp_path: Path) -> None:
    text = "".join(f'{{"timestamp":{i},"v":{i}}}\n' for i in range(3_000))
    path = file(tmp_path, text + '{"timestamp":3000,"v":0.5}\n{"timestamp":3001}\n')
    source = JsonLinesFile(path, unit=SECONDS)
    assert [len(list(source)), source.malformed] == [3_002, 0]
    source = JsonLinesFile(path, unit=SECONDS, columns={"v": int})
    assert [len(list(source)), source.malformed] == [3_000, 2]


def test_a_stream_that_is_malformed_for_the_most_part_is_refused() -> None:
    good, bad = '{"timestamp":1}\n', "nope\n"
    kept = StdinJsonLines(io.StringIO((good + bad) * 3_000), unit=SECONDS)
    assert [len(list(kept)), kept.malformed] == [3_000, 3_000]
    source = StdinJsonLines(io.StringIO((good + bad) * 600 + bad * 500), unit=SECONDS)
    with pytest.raises(
        SourceError, match="501 of the last 1,000 rows are malformed, more than max"
    ):
        list(source)
    assert source.malformed == 600 + 401
    source = StdinJsonLines(io.StringIO(bad * 2_000), unit=SECONDS, max_malformed=1)
    assert [len(list(source)), source.malformed] == [0, 2_000]
