"""Results in typed columns, each test for all sinks that have them."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.support.wide import FILES, KINDS, Open, store

from run_task import (
    ConfigError,
    DataSet,
    KeyedDataSet,
    SinkError,
    TaskError,
    TaskInterval,
    TimeUnit,
    Window,
)
from run_task.sinks import CsvSink, DurableSink, Layout, Result, Row

pytest.importorskip("pyarrow.parquet")

MINUTE = TaskInterval.seconds(60)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Open]:
    with store(kind, tmp_path, request) as open_it:
        yield open_it


def begun(open_it: Open, pipeline: str = "p") -> DurableSink:
    sink = open_it()
    sink.begin(pipeline)
    return sink


def failure(task: str, end: int, reason: str, key: str | int | None = None) -> TaskError:
    return TaskError(task, Window(end - 60, end), reason, key)


def plain(end: int, errors: Mapping[str, TaskError] | None = None, /, **values: Any) -> Result:
    dataset = DataSet(Window(end - 60, end), values, errors or {}, interval=MINUTE)
    return Result.of("p", "s", dataset)


def keyed(end: int, errors: Mapping[Any, TaskError] | None = None, /, **values: Any) -> Result:
    dataset: KeyedDataSet[Any, Any] = KeyedDataSet(
        Window(end - 60, end), "symbol", values, errors or {}, interval=MINUTE
    )
    return Result.of("p", "s", dataset)


def held(sink: DurableSink) -> dict[tuple[int, str, str], Any]:
    """What is there, by end, key and task; of a task that failed, its error as an exception."""
    found = {
        (row.end, row.key, row.task): row.value if row.error is None else LookupError(row.error)
        for row in sink.rows()
    }
    assert len(found) == sum(1 for _ in sink.rows())
    return found


class Bar(NamedTuple):
    open: float
    close: float


@dataclasses.dataclass(frozen=True)
class Fit:
    slope: float
    points: int


def test_a_row_a_window_with_a_column_a_task_and_field(opened: Open) -> None:
    sink = begun(opened)
    assert isinstance(sink, DurableSink)
    values = {"mean": 1.5, "bar": Bar(1.0, 2.0), "fit": Fit(0.5, 3), "more": {"a": 1, "b": "x"}}
    sink.write(plain(60, **values))
    sink.flush()
    more = TimeUnit.SECONDS, ""
    assert list(sink.rows()) == [
        Row("p", "s", 0, 60, "mean", 1.5, None, *more),
        Row("p", "s", 0, 60, "bar", {"open": 1.0, "close": 2.0}, None, *more),
        Row("p", "s", 0, 60, "fit", {"slope": 0.5, "points": 3}, None, *more),
        Row("p", "s", 0, 60, "more", {"a": 1, "b": "x"}, None, *more),
    ]
    unit: Any = sink
    assert (sink.last("s"), sink.last("t"), unit.unit("s")) == (60, None, TimeUnit.SECONDS)


VALUES: dict[str, Any] = {
    "float": 1 / 3,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "nan": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "int": 2**63 - 1,
    "negative": -(2**63),
    "bool": True,
    "text": "a\"b'c,\r\né\U0001f600 %s :x \\",
    "empty": "",
    "blank": " ",
    "time": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "far": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    "local": datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001 it is to be a naive one
    "date": date(1, 1, 1),
    "decimal": Decimal("1.50"),
    "list": [1, (2.5, None), {"k": b"x"}],
    "span": timedelta(seconds=1.5),
    "numbers": {1: 2.5},
    "array": np.array([[1.5, -math.inf]]),
}


def test_values_come_back_by_their_type(opened: Open) -> None:
    sink = begun(opened)
    sink.write(plain(60, **VALUES))
    sink.write(plain(120, **dict.fromkeys(VALUES)))
    sink.close()
    found = held(begun(opened))
    for name, value in VALUES.items():
        assert repr(found[60, "", name]) == repr(value), name
        assert found[120, "", name] is None


def test_what_is_equal_stands_for_what_python_has(opened: Open) -> None:
    east = timezone(timedelta(hours=2))
    given = {
        "float32": (np.float32(0.5), 0.5),
        "int8": (np.int8(7), 7),
        "flag": (np.bool_(True), True),
        "zoned": (datetime(2026, 1, 2, 3, tzinfo=east), datetime(2026, 1, 2, 1, tzinfo=UTC)),
        "moment": (np.datetime64("2026-01-02T03"), datetime(2026, 1, 2, 3)),  # noqa: DTZ001
        "nat": (np.datetime64("NaT", "s"), None),
    }
    sink = begun(opened)
    sink.write(plain(60, **{name: value for name, (value, _) in given.items()}))
    found = held(sink)
    for name, (_, expected) in given.items():
        if name != "nat":  # of which nobody knows yet what it is
            assert repr(found[60, "", name]) == repr(expected), name


def test_a_number_is_taken_where_nothing_of_it_is_lost(opened: Open) -> None:
    sink = begun(opened)
    sink.write(plain(60, a=0.5, b=1))
    sink.write(plain(120, a=2, b=3.0))
    found = held(sink)
    assert (found[120, "", "a"], found[120, "", "b"]) == (2, 3)
    for values, message in (
        (
            {"a": 2**53 + 1},
            "task 'a': its result cannot be stored: 9007199254740993, an? int, is n",
        ),
        ({"a": True}, "True, a bool, is none that a column of floats holds"),
        ({"a": "x"}, "'x', a str, is none that a column of floats holds"),
        (
            {"b": 2.5},
            "2.5, a float, is none that a column of ints of 64 bits holds: let the task say ",
        ),
        (
            {"b": 2**63},
            "9223372036854775808, an int of over 64 bits, is none that a column of ints",
        ),
        ({"b": {"x": 1}}, "a dict, is none that a column of ints of 64 bits holds"),
    ):
        with pytest.raises(SinkError, match=message):
            sink.write(plain(180, **values))
    assert sink.last("s") == 120


@pytest.mark.parametrize("text", ["zero \0", "half a pair \ud800"])
def test_a_text_that_no_database_holds_is_refused(opened: Open, text: str) -> None:
    sink = begun(opened)
    with pytest.raises(SinkError, match=r"task 'a': its result cannot be stored: .* is a text"):
        sink.write(plain(60, a=text))
    with pytest.raises(SinkError, match=r"stage 's': key .* is a text that no database holds"):
        sink.write(keyed(60, a={text: 1}))
    with pytest.raises(
        SinkError, match="stage 's', task 'a', key 'y': its result cannot be stored:"
    ):
        sink.write(keyed(60, a={"x": "x", "y": text}))


def test_keys_stand_under_their_own_name(opened: Open, kind: str) -> None:
    sink = begun(opened)
    sink.write(keyed(60, mean={"b": 1.5, "a": 2.5}, bar={"a": Bar(1, 2), "b": Bar(3, 4)}))
    sink.write(keyed(120, mean={"A": 1.0, "a": 2.0, "a ": 3.0, "é": 4.0}))
    sink.flush()
    found = held(sink)
    assert found[60, "a", "bar"] == {"open": 1.0, "close": 2.0}
    assert {
        key: value for (end, key, task), value in found.items() if end == 120 and task == "mean"
    } == {
        "A": 1.0,
        "a": 2.0,
        "a ": 3.0,
        "é": 4.0,
    }
    with pytest.raises(
        SinkError, match="the key of its results is none, and of those in the table"
    ):
        sink.write(plain(180, mean=1.0))
    with pytest.raises(
        SinkError, match="key 5 is none that the column 'symbol' holds, which has te"
    ):
        sink.write(keyed(180, mean={5: 1.0}))


def test_an_empty_key_is_refused(opened: Open) -> None:
    with pytest.raises(SinkError, match="key '' is an empty text: give it a name"):
        begun(opened).write(keyed(60, a={"": 1}))


def test_keys_that_are_ints(opened: Open) -> None:
    sink = begun(opened)
    sink.write(keyed(60, n={5: 1, -(2**63): 2}))
    sink.close()
    sink = begun(opened)
    assert held(sink) == {(60, "5", "n"): 1, (60, str(-(2**63)), "n"): 2}
    with pytest.raises(SinkError, match="key 'x' is none that the column 'symbol' holds"):
        sink.write(keyed(120, n={"x": 1}))


def test_errors_stand_in_their_row(opened: Open) -> None:
    sink = begun(opened)
    errors = {
        ("n", "b"): failure("n", 60, "two\nlines", "b"),
        ("mean", "b"): failure("mean", 60, "x", "b"),
        "of all": failure("of all", 60, "zero \0, quotes \" ' and half a pair \ud800"),
        "it's": failure("it's", 60, "\n\n it failed \n"),
    }
    sink.write(keyed(60, errors, n={"a": 1, "c": 3}, mean={"a": 0.5, "c": 1.5}))
    sink.close()
    found = held(begun(opened))
    texts = {where: str(value) for where, value in found.items() if isinstance(value, LookupError)}
    values = {where: value for where, value in found.items() if where not in texts}
    assert values == {
        (60, "a", "n"): 1,
        (60, "c", "n"): 3,
        (60, "a", "mean"): 0.5,
        (60, "c", "mean"): 1.5,
    }
    begin = "[1970-01-01T00:00:00Z, 1970-01-01T00:01:00Z)"
    assert texts == {
        (60, "b", "n"): f"task 'n' gave no result for 'b' in {begin}: two\nlines",
        (60, "b", "mean"): f"task 'mean' gave no result for 'b' in {begin}: x",
        (
            60,
            "",
            "of all",
        ): f"task 'of all' gave no result for {begin}: zero \\x00, quotes \" ' and "
        f"half a pair \\ud800",
        (60, "", "it's"): f'task "it\'s" gave no result for {begin}: \n\n it failed \n',
    }


def test_a_window_of_errors_alone(opened: Open) -> None:
    sink = begun(opened)
    sink.write(plain(60, {"a": failure("a", 60, "x")}))
    sink.close()
    sink = begun(opened)
    (row,) = sink.rows()
    assert (row.task, row.end, sink.last("s")) == ("a", 60, 60)
    assert row.error is not None
    assert row.error.endswith(": x")


def test_a_window_that_is_written_again_replaces_all_of_it(opened: Open) -> None:
    sink = begun(opened)
    for end in (60, 120, 180):
        sink.write(keyed(end, n={"a": end, "b": 1, "c": 2}))
    sink.write(keyed(120, n={"a": 5, "d": 6}))
    sink.flush()
    sink.write(keyed(60, n={"c": 7}))
    sink.write(keyed(180, n={}))
    sink.flush()
    expected = {(120, "a", "n"): 5, (120, "d", "n"): 6, (60, "c", "n"): 7}
    for _ in range(2):
        assert held(sink) == expected
        sink.close()
        sink = begun(opened)
    sink.write(keyed(240, n={}))
    sink.write(keyed(180, n={"z": 8}))
    sink.close()
    assert held(begun(opened)) == {**expected, (180, "z", "n"): 8}


def test_before_the_epoch_and_in_any_unit(opened: Open, kind: str) -> None:
    sink = begun(opened)
    nanos = 1_767_323_045_000_001_000
    dataset = DataSet(Window(-3_000, nanos), {"a": 1}, interval=TaskInterval.nanos(1_000))
    sink.write(Result.of("p", "s", dataset))
    fine = DataSet(Window(0, nanos + 1), {"a": 2}, interval=TaskInterval.nanos(1))
    if kind in FILES:
        sink.write(Result.of("p", "s", fine))
    else:
        with pytest.raises(SinkError, match=r"end, .* is finer than a microsecond"):
            sink.write(Result.of("p", "s", fine))
    sink.close()
    sink = begun(opened)
    assert next((row.start, row.end) for row in sink.rows()) == (-3_000, nanos)
    with pytest.raises(SinkError, match="its windows are in seconds, and the table holds those of"):
        sink.write(plain(60, a=1))


def test_times_beyond_what_a_timestamp_tells_are_refused(opened: Open) -> None:
    sink = begun(opened)
    for end in (-62_135_596_801, 253_402_300_800):
        with pytest.raises(
            SinkError, match=f"the window's (start|end), {end}.* is not of the years"
        ):
            sink.write(Result.of("p", "s", DataSet(Window(end, end), {"a": 1}, interval=MINUTE)))
    last = 253_402_300_799
    window = Window(-62_135_596_800, last)
    sink.write(Result.of("p", "s", DataSet(window, {"a": 1}, interval=MINUTE)))
    sink.close()
    assert [(row.start, row.end) for row in begun(opened).rows()] == [window]


def test_a_dataset_that_does_not_know_its_interval_is_refused(opened: Open) -> None:
    sink = begun(opened)
    with pytest.raises(SinkError, match=r"make it by DataSet\(..., interval=...\)"):
        sink.write(Result.of("p", "s", DataSet(Window(0, 60), {"a": 1})))
    with pytest.raises(SinkError, match="this result is of bucket 1"):
        sink.write(plain(60, a=1)._replace(bucket=1))


def test_a_second_stage_is_refused_by_name(opened: Open) -> None:
    sink = begun(opened)
    sink.write(plain(60, a=1))
    other = plain(60, a=1)._replace(stage="t")
    message = "it is a wide table of stage 's' of pipeline 'p', and holds no results of stage 't'"
    with pytest.raises(SinkError, match=message):
        sink.write(other)
    sink.close()
    sink = begun(opened)
    with pytest.raises(SinkError, match=message):
        sink.write(other)
    sink.close()
    with pytest.raises(
        ConfigError, match="it is a wide table of pipeline 'p', and holds no result"
    ):
        begun(opened, "q")


def test_a_column_that_comes_later(opened: Open, kind: str) -> None:
    sink = begun(opened)
    sink.write(plain(60, a=1))
    sink.flush()
    later = plain(120, a=2, b={"x": 1.5, "y": "new"})
    if kind == "csv":
        with pytest.raises(
            SinkError, match="there is no column 'b_x', 'b_y', and a CSV file has t"
        ):
            sink.write(later)
        return
    sink.write(later)
    sink.close()
    sink = begun(opened)
    sink.write(plain(180, a=3, b={"x": 2.5, "z": True}))
    assert held(sink) == {
        (60, "", "a"): 1,
        (60, "", "b"): None,
        (120, "", "a"): 2,
        (120, "", "b"): {"x": 1.5, "y": "new", "z": None},
        (180, "", "a"): 3,
        (180, "", "b"): {"x": 2.5, "y": None, "z": True},
    }
    with pytest.raises(SinkError, match="it is a single value, and was a mapping, or a record"):
        sink.write(plain(240, b=1))


def test_a_csv_holds_anything_where_nobody_knew_what_comes(tmp_path: Path) -> None:
    sink = CsvSink(tmp_path / "a.csv", layout=Layout.WIDE)
    sink.begin("p")
    sink.write(plain(60, {"c": failure("c", 60, "x")}, a=1.5, b=None))
    sink.flush()
    sink.write(plain(120, a=2.5, b="text", c=7))
    sink.flush()
    sink.write(plain(180, a=2.5, b=[1], c=0.5))
    sink.close()
    sink = CsvSink(tmp_path / "a.csv", layout=Layout.WIDE)
    sink.begin("p")
    found = held(sink)
    assert [found[120, "", task] for task in "abc"] == [2.5, "text", 7]
    assert [found[180, "", task] for task in "abc"] == [2.5, [1], 0.5]


@pytest.mark.parametrize("name", ["", " a", "a ", "a\0", "\ud800"])
def test_a_name_that_no_column_has_is_refused(opened: Open, name: str) -> None:
    sink = begun(opened)
    with pytest.raises(SinkError, match=r"its column .* is no name that can be stored"):
        sink.write(plain(60, **{name: 1}))
    with pytest.raises(SinkError, match=r"rename the task|that can be stored"):
        sink.write(plain(60, **{"b": 1, name: None, name + "\0": 2}))
    sink.write(plain(60, a=1))
    assert held(sink) == {(60, "", "a"): 1}


@pytest.mark.parametrize("name", ["window_start", "window_end", "row", "error"])
def test_the_columns_of_its_own_are_nobody_elses(opened: Open, name: str) -> None:
    sink = begun(opened)
    with pytest.raises(SinkError, match=f"task '{name}': its column '{name}' is the table's own"):
        sink.write(plain(60, **{name: 1}))
    dataset: KeyedDataSet[Any, Any] = KeyedDataSet(
        Window(0, 60), name, {"a": {"x": 1}}, interval=MINUTE
    )
    with pytest.raises(SinkError, match=f"the key's column '{name}' is the table's own"):
        sink.write(Result.of("p", "s", dataset))


def test_columns_of_two_tasks_that_collide_are_refused(opened: Open) -> None:
    sink = begun(opened)
    for values in ({"a": {"b_c": 1}, "a_b": {"c": 2}}, {"a_b_c": 1, "a_b": {"c": 2}}):
        with pytest.raises(SinkError, match=r"its column 'a_b_c' is that of task 'a.*, too: re"):
            sink.write(plain(60, **values))
    with pytest.raises(SinkError, match="task 'symbol': its column 'symbol' is that of the key"):
        sink.write(keyed(60, symbol={"x": 1}))


def test_names_are_quoted(opened: Open) -> None:
    names = ["select", "order by", 'a"b', "a,b", "a'b", "a%b", "a:b", "a(b)", "é", "a\nb", "pivot"]
    sink = begun(opened)
    sink.write(plain(60, **{name: place for place, name in enumerate(names)}))
    sink.write(plain(60, **{name: place + 1 for place, name in enumerate(names)}))
    sink.close()
    found = held(begun(opened))
    assert found == {(60, "", name): place + 1 for place, name in enumerate(names)}


def cells_of_errors(kind: str, where: Path, sink: Any) -> list[tuple[str | None, str]]:
    """What the column ``error`` tells: the key of the row, and the cell."""
    rows: list[dict[str, Any]]
    if kind == "csv":
        csv: Any = importlib.import_module("pyarrow.csv")
        nulls = csv.ConvertOptions(strings_can_be_null=True)
        rows = csv.read_csv(where / "file.csv", convert_options=nulls).to_pylist()
    elif kind == "parquet":
        parquet: Any = importlib.import_module("pyarrow.parquet")
        rows = parquet.read_table(where / "folder").to_pylist()
    else:
        import sqlalchemy

        with sink._engine.connect() as connection:
            query = sqlalchemy.text(f"select * from {sink._given['table']}")
            rows = [dict(row._mapping) for row in connection.execute(query)]
    return [(row.get("symbol"), row["error"]) for row in rows if row["error"] is not None]


def behind(result: Result, *names: str) -> Result:
    dataset: Any = result.dataset
    by = [dataset.by] if isinstance(result.dataset, KeyedDataSet) else []
    rest: Any = dataset.durations, dataset.lateness, dataset.took, names
    made: Any = dataset.__class__
    of_window = made(dataset.window, *by, dict(dataset), dataset.errors, *rest, interval=MINUTE)
    return Result.of("p", "s", of_window)


def test_what_a_window_lacks_is_told_to_people_and_is_no_result(
    kind: str, opened: Open, tmp_path: Path
) -> None:
    sink = begun(opened)
    error = failure("other", 120, "it fails")
    results = [
        keyed(60, vwap={"a": 1.0, "b": 2.0}),
        keyed(120, {"other": error}, vwap={"a": 3.0}),
        keyed(180, vwap={}),
        keyed(240, vwap={"a": 4.0}),
    ]
    for result in results[:3]:
        sink.write(behind(result, "shard 1 of 2", "it\nelse"))
    sink.write(results[3])
    sink.flush()

    def stored() -> dict[tuple[int, str, str], str]:
        return {at: str(value) for at, value in held(sink).items() if value is not None}

    failed = str(error)
    expected = {
        (60, "a", "vwap"): "1.0",
        (60, "b", "vwap"): "2.0",
        (120, "a", "vwap"): "3.0",
        (120, "", "other"): failed,
        (240, "a", "vwap"): "4.0",
    }
    assert stored() == expected
    told = "without 'shard 1 of 2', which was behind\nwithout 'it\\nelse', which was behind"
    cells = cells_of_errors(kind, tmp_path, sink)
    assert cells == [(None, told), (None, f"{failed}\n{told}"), (None, told)]
    for result in results[:3]:  # as recomputed
        sink.write(result)
    sink.flush()
    assert stored() == expected
    if kind != "csv":  # in which they stand behind the others until it is rewritten
        assert cells_of_errors(kind, tmp_path, sink) == [(None, failed)]


def test_what_a_window_without_keys_lacks_stands_in_its_row(
    kind: str, opened: Open, tmp_path: Path
) -> None:
    sink = begun(opened)
    for end in (60, 120, 180):
        result = plain(end, value=end / 7)
        sink.write(behind(result, "stage a") if end == 120 else result)
    sink.flush()
    assert held(sink) == {(end, "", "value"): end / 7 for end in (60, 120, 180)}
    told = (None, "without 'stage a', which was behind")
    assert cells_of_errors(kind, tmp_path, sink) == [told]
