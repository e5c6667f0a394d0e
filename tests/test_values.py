"""What a task returns is what is read from a sink, or is refused by name."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, cast
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.proof import examples
from tests.support.values import SAMPLES, TYPES, Band, Color, Level, Point, Rights, same, values

from run_task import ConfigError, DataSet, RunTaskError, SinkError, Window
from run_task.sinks import (
    CsvSink,
    DurableSink,
    EnumMember,
    JsonLinesSink,
    ParquetSink,
    Record,
    Result,
    SqlSink,
    decode,
    encode,
)

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")

FIRST = Window(0, 60)

SINKS: dict[str, Callable[..., DurableSink]] = {
    "csv": CsvSink,
    "jsonl": JsonLinesSink,
    "parquet": ParquetSink,
    "sqlite": SqlSink,
}


def begun(kind: str, path: Path, **options: Any) -> DurableSink:
    sink = SINKS[kind](path, **options)
    sink.begin("p")
    return sink


def result(window: Window = FIRST, **results: Any) -> Result:
    return Result.of("p", "s", DataSet(window, results))


@given(values)
def test_any_value_is_the_same_after_its_text(value: Any) -> None:
    text = encode(value)
    assert same(decode(text, types=TYPES), value)
    assert encode(decode(text)) == text, "records are stored as what they were made of"


@pytest.mark.parametrize("value", SAMPLES, ids=lambda value: type(value).__name__)
def test_a_value_at_its_limits_is_the_same_after_its_text(value: Any) -> None:
    text = encode(value)
    assert same(decode(text, types=TYPES), value)
    assert encode(decode(text)) == text


@pytest.mark.parametrize("kind", SINKS)
@given(value=values)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(40))
def test_any_value_is_the_same_after_each_sink(
    kind: str, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("sink") / "sink"
    with closing(begun(kind, path, types=TYPES)) as sink:
        sink.write(result(a=value, b=[value]))
        rows = list(sink.rows())
    with closing(begun(kind, path, types=TYPES)) as sink:
        for found in (rows, list(sink.rows())):
            assert [row.task for row in found] == ["a", "b"]
            assert same([row.value for row in found], [value, [value]])


TABLES: tuple[Any, ...] = (
    pd.Timestamp("2024-01-01T00:00:00.123456789"),
    pd.Timestamp("2024-10-27T01:30", tz="UTC").tz_convert("Europe/Berlin"),
    pd.Timestamp("2024-01-01T00:00+02:00"),
    pd.Timedelta("1ns"),
    pd.Timedelta(np.timedelta64(5, "s")),
    pd.NaT,
    pd.NA,
    pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=["p", "q"]),
    pd.Series([1.5, 2], name="k"),
    pd.Series(["a", "b"], dtype="category", name=("k", 1)),
    pl.DataFrame({"a": [1, None], "b": [[1], [2, 3]]}),
    pl.Series("z", ["x", "y"], pl.Categorical),
    pa.table({"a": [1, 2]}),
    pa.record_batch({"a": [1, None]}),
    pa.record_batch({"a": pa.array([], pa.int8())}),
    pa.array([1, 2], pa.int8()),
    pa.array([], pa.int8()),
    pa.chunked_array([[1], [2]]),
    pa.scalar(5, pa.timestamp("ns", "Europe/Berlin")),
    pa.scalar(None, pa.int8()),
)


@pytest.mark.parametrize("value", TABLES, ids=lambda value: f"{type(value).__qualname__}")
def test_what_pandas_polars_and_arrow_have_is_the_same_after_its_text(value: Any) -> None:
    found = decode(encode([value]))[0]
    assert type(found) is type(value)
    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(found, value)
    elif isinstance(value, pd.Series):
        pd.testing.assert_series_equal(found, value)
    elif isinstance(value, pl.DataFrame | pl.Series):
        assert found.equals(value)
    elif value is pd.NaT or value is pd.NA:
        assert found is value
    else:
        assert str(found) == str(value)
        assert found == value


class _Words(list[str]):
    pass


TEXTS: list[tuple[Any, str]] = [
    (1, "1"),
    (2**53 + 1, "9007199254740993"),
    (0.1, "0.1"),
    (-0.0, "-0.0"),
    (math.nan, "NaN"),
    (np.float64(0.1), "0.1"),
    (np.float32(0.5), "0.5"),
    (np.uint8(7), "7"),
    (np.bool_(True), "true"),
    (np.str_("a"), '"a"'),
    (np.longdouble(1.5), "1.5"),
    ("a\0é", '"a\\u0000\\u00e9"'),
    ([1, "a", None, True], '[1, "a", null, true]'),
    (OrderedDict(a=1), '{"a": 1}'),
    (_Words(["a"]), '["a"]'),
    ((1, 2), '{"$tuple": [1, 2]}'),
    ({2, 1}, '{"$set": [1, 2]}'),
    (b"abc", '{"$bytes": "YWJj"}'),
    (1 + 2j, '{"$complex": [1.0, 2.0]}'),
    (Decimal("1.50"), '{"$decimal": "1.50"}'),
    (datetime(2024, 1, 2, 3, tzinfo=UTC), '{"$datetime": "2024-01-02T03:00:00+00:00"}'),
    (
        datetime(2024, 1, 2, 3, tzinfo=ZoneInfo("Europe/Berlin")),
        '{"$datetime": "2024-01-02T03:00:00+01:00[Europe/Berlin]"}',
    ),
    (np.datetime64("2024-01-02T03", "s"), '{"$datetime64": ["2024-01-02T03:00:00", "s"]}'),
    (
        np.arange(2.0),
        '{"$ndarray": {"dtype": "float64", "shape": [2], "data": [0.0, 1.0]}}',
    ),
    (
        Color.RED,
        '{"$enum": {"type": "tests.support.values.Color", "name": "RED", "value": 1}}',
    ),
    (
        Band(1, 2),
        '{"$record": {"type": "tests.support.values.Band", "fields": {"low": 1, "high": 2}}}',
    ),
    ({1: "a", "1": "b"}, '{"$dict": [[1, "a"], ["1", "b"]]}'),
    ({"$set": [1]}, '{"$dict": [["$set", [1]]]}'),
]


@pytest.mark.parametrize(
    ("value", "text"),
    TEXTS,
)
def test_the_text_of_a_value(value: Any, text: str) -> None:
    assert encode(value) == text
    json.loads(text)


def test_without_its_type_a_record_tells_which_it_was() -> None:
    record = decode(encode(Point(1, [2])))
    assert record == Record("tests.support.values.Point", {"x": 1, "y": [2]})
    assert (record["x"], list(record), len(record)) == (1, ["x", "y"], 2)
    assert record != {"x": 1, "y": [2]}
    assert decode(encode(Color.RED)) == EnumMember("tests.support.values.Color", "RED", 1)
    assert decode(encode(Rights(0))) == EnumMember("tests.support.values.Rights", None, 0)
    assert {decode(encode(Point(1, 2))): 1}[Record("tests.support.values.Point", {"x": 1, "y": 2})]


def test_a_type_that_has_moved_is_given_by_its_old_name() -> None:
    text = encode(Point(1, 2)).replace("tests.support.values", "old.place")
    assert decode(text, types={"old.place.Point": Point}) == Point(1, 2)


class _Other(NamedTuple):
    z: int


def test_a_type_that_has_changed_is_told() -> None:
    text = encode(Band(1, 2))
    with pytest.raises(SinkError, match="is stored with the fields low, high, and now has z"):
        decode(text, types={"tests.support.values.Band": _Other})
    text = encode(Level.LOW).replace('"value": 1', '"value": 2')
    with pytest.raises(SinkError, match="has no member LOW of the value 2 any more"):
        decode(text, types=[Level])
    with pytest.raises(ConfigError, match=r"types= has builtins\.int: it takes dataclasses"):
        decode("1", types=[int])
    for alone in (3, Level):
        given: Any = alone
        with pytest.raises(ConfigError, match=r"types=.*: it is a list of dataclasses"):
            decode("1", types=given)


REFUSED: list[tuple[Any, str]] = [
    (object(), "no form for a object"),
    ([{"a": (iter(()),)}], "no form for a tuple_iterator"),
    (np.ma.masked, r"a MaskedConstant: return filled\(\)"),
    (np.ma.array([1], mask=[True]), r"a MaskedArray: return filled\(\)"),
    (np.longdouble(1) / 3, "longdouble that no float holds"),
    (np.array([(1, 2)], "i4,i4"), "an array of .*: return one of another dtype"),
    (np.array([(1, 2)], "i4,i4")[0], "a row of a structured array"),
    (pd.DataFrame({"a": [1, "x"]}), "ArrowInvalid"),
    (pd.DataFrame({"a": [(1,)]}), "makes another of|makes other ones"),
    (pd.Period("2024"), "a Period of pandas: return"),
    (pl.Series([object()]), "cannot write 'Object'"),
    (pl.LazyFrame({"a": [1]}), "a LazyFrame of polars: return"),
    (pa.int8(), "a DataType of Arrow: return"),
]


@pytest.mark.parametrize(
    ("value", "why"),
    REFUSED,
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_form_is_refused_with_the_reason(value: Any, why: str) -> None:
    with pytest.raises(SinkError, match=why):
        encode(value)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("kind", SINKS)
def test_what_is_nested_too_deep_is_refused_and_all_else_is_read_again(
    kind: str, tmp_path: Path
) -> None:
    sink = begun(kind, tmp_path / "sink")
    kept: list[Any] = []
    refused: list[str] = []
    for depth in (1, 100, 197, 199, 200, 201, 500, 940, 980, 999, 5_000):
        deep = nested(depth)
        for value in (deep, {"a": deep}, (deep,)):
            start = len(kept) + len(refused)
            try:
                sink.write(result(Window(start, start + 1), a=1, b=value))
            except SinkError as error:
                refused.append(str(error))
            else:
                kept.append(value)
    sink.close()
    with closing(begun(kind, tmp_path / "sink")) as sink:
        rows = list(sink.rows())
    assert [row.value for row in rows if row.task == "b"] == kept
    assert len(rows) == 2 * len(kept)
    assert (len(kept), len(refused)) == (14, 19)
    told = "task 'b': .*nested more than 200 levels deep: return it in a flatter form"
    assert all(re.search(told, text) for text in refused)


def test_what_is_nested_in_itself_is_refused() -> None:
    circle: dict[str, Any] = {}
    circle["a"] = [(circle,)]
    with pytest.raises(SinkError, match="nested more than 200 levels deep"):
        encode(circle)


def test_a_value_that_cannot_be_looked_into_is_refused() -> None:
    class Zone(ZoneInfo):
        def utcoffset(self, when: datetime | None, /) -> Any:
            raise RuntimeError("of nowhere")

    with pytest.raises(SinkError, match="cannot be looked into, RuntimeError: of nowhere"):
        encode(datetime(2024, 1, 1, tzinfo=Zone("UTC")))


@pytest.mark.parametrize("kind", SINKS)
def test_a_hook_encodes_what_has_no_form(kind: str, tmp_path: Path) -> None:
    class Money:
        def __init__(self, cents: int) -> None:
            self.cents = cents

    asked: list[Any] = []

    def hook(value: Any) -> Any:
        asked.append(value)
        if isinstance(value, Money):
            return {"cents": value.cents}
        if isinstance(value, np.ma.MaskedArray):
            return cast("Any", value).filled(0)
        raise TypeError("what is this?")

    sink = begun(kind, tmp_path / "sink", encode=hook)
    with closing(sink):
        masked = cast("Any", np.ma).array([1, 2], mask=[True, False])
        sink.write(result(a=[Money(5)], b=(1, 2), c=masked))
        with pytest.raises(
            SinkError, match=r"stage 's', task 'd': .*encode= raised TypeError for a object: what"
        ):
            sink.write(result(Window(60, 120), a=1, d=object()))
        found = {row.task: row.value for row in sink.rows()}
        assert found.keys() == {"a", "b", "c"}
        assert (found["a"], found["b"], found["c"].tolist()) == ([{"cents": 5}], (1, 2), [0, 2])
    assert [type(value) for value in asked] == [Money, np.ma.MaskedArray, object]
    with pytest.raises(ConfigError, match="encode=1: it is a function of a value"):
        begun(kind, tmp_path / "other", encode=1)


def test_a_hook_that_never_comes_to_an_end_is_refused() -> None:
    with pytest.raises(SinkError, match="nested"):
        encode(object(), encode=lambda value: value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[" * 100_000,
        "nobody knows",
        '{"$date": 5}',
        '{"$date": "2024-13-01"}',
        '{"$int": "zz"}',
        '{"$ndarray": {}}',
        '{"$ndarray": {"dtype": "float64", "shape": [3], "data": [1]}}',
        '{"$ndarray": {"dtype": "float64", "shape": [-1], "data": [1]}}',
        '{"$ndarray": {"dtype": "U100000000", "shape": [1], "data": ["a"]}}',
        '{"$ndarray": {"dtype": "V8", "shape": [1], "data": ["a"]}}',
        '{"$ndarray": {"dtype": "int8", "shape": [1], "data": [300]}}',
        '{"$dict": [[[1], 2]]}',
        '{"$set": 1}',
        '{"$record": 1}',
        '{"$timedelta": "P1D"}',
        '{"$timedelta": "P99999999999DT0S"}',
        '{"$datetime": "2024-01-01T00:00:00+00:00[No/Where]"}',
        '{"$datetime": "2024-01-01T00:00:00+00:00[../../etc/passwd]"}',
        '{"$bytes": "???"}',
        '{"$arrow": {"kind": "Table", "ipc": "AAAA"}}',
        '{"$polars": {"kind": "DataFrame", "ipc": "AAAA"}}',
        '{"$pandas": {"kind": "Panel"}}',
    ],
)
def test_a_text_that_is_none_of_a_sink_is_told(text: str) -> None:
    with pytest.raises(SinkError, match="is no value that a sink has stored: "):
        decode(text)


def test_what_only_looks_like_a_form_is_a_dict() -> None:
    assert decode('{"$unknown": [1]}') == {"$unknown": [1]}
    assert decode('{"$set": [1], "$tuple": 2}') == {"$set": [1], "$tuple": 2}


@given(st.text(max_size=40) | st.sampled_from([encode(value) for value in (*SAMPLES, *TABLES)]))
def test_whatever_a_text_is_nothing_but_an_error_of_ours_comes_of_it(text: str) -> None:
    for changed in (text, text[::2], text.replace("[", "", 1), text.replace(":", ": [", 1)):
        with suppress(RunTaskError):
            decode(changed)


@pytest.mark.parametrize("kind", SINKS)
def test_a_value_that_cannot_be_read_again_is_told_with_its_window(
    kind: str, tmp_path: Path
) -> None:
    with closing(begun(kind, tmp_path / "sink")) as sink:
        sink.write(result(a=1, b=Band(1, 2)))
    changed: dict[str, Any] = {"tests.support.values.Band": _Other}
    with closing(begun(kind, tmp_path / "sink", types=changed)) as sink:
        rows = sink.rows()
        assert next(rows).value == 1
        with pytest.raises(SinkError, match=r"stage 's', window 0 to 60, task 'b': .*now has z"):
            next(rows)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    text = encode(pd.Timestamp("2024-01-01"))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"needs pandas, .*\[pandas\]"):
        decode(text)
