"""What durable sinks have in common, each test for all of them."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.proof import examples
from tests.support.threads import together

from run_task import (
    CalendarInterval,
    ConfigError,
    DataSet,
    SinkError,
    TaskError,
    TaskInterval,
    TimeUnit,
    Window,
)
from run_task.sinks import (
    CallbackSink,
    CsvSink,
    DurableSink,
    JsonLinesSink,
    ParquetSink,
    Result,
    Row,
    SqlSink,
)
from run_task.sinks._base import Durable
from run_task.sinks._record import TaskRecord, WindowKey, WindowRecord

Open = Callable[[], DurableSink]
"""Opens the same store, again and again."""

KINDS = ["jsonl", "csv", "parquet", "sqlite", "postgres", "mariadb"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Open]:
    sinks: list[DurableSink] = []
    table = f"results_{random.randrange(10**9)}"

    def open_it() -> DurableSink:
        sink: DurableSink
        match kind:
            case "jsonl":
                sink = JsonLinesSink(tmp_path / "file.jsonl")
            case "csv":
                sink = CsvSink(tmp_path / "file.csv")
            case "parquet":
                sink = ParquetSink(tmp_path / "folder")
            case "sqlite":
                sink = SqlSink(tmp_path / "file.db")
            case _:
                sink = SqlSink(request.getfixturevalue(f"{kind}_url"), table=table)
        sinks.append(sink)
        return sink

    yield open_it
    for sink in sinks:
        sink.close()


def begun(open_it: Open, pipeline: str = "p") -> DurableSink:
    sink = open_it()
    sink.begin(pipeline)
    return sink


def results(end: int, **values: Any) -> DataSet[Any]:
    return DataSet(Window(end - 60, end), values)


def summary(sink: DurableSink, stage: str | None = None) -> list[tuple[str, int, str, Any]]:
    return [(row.stage, row.end, row.task, row.value) for row in sink.rows(stage)]


def test_a_row_for_each_task_and_window(opened: Open) -> None:
    error = TaskError("bad", Window(0, 60))
    error.__cause__ = KeyError("x")
    sink = begun(opened)
    assert isinstance(sink, DurableSink)
    sink.write(Result.of("p", "s", DataSet(Window(0, 60), {"mean": 1.5, "n": 3}, {"bad": error})))
    sink.flush()
    assert list(sink.rows()) == [
        Row("p", "s", 0, 60, "mean", 1.5, None),
        Row("p", "s", 0, 60, "n", 3, None),
        Row("p", "s", 0, 60, "bad", None, "task 'bad' gave no result for [0, 60): KeyError: 'x'"),
    ]


VALUES: dict[str, tuple[Any, Any]] = {
    "float": (1 / 3, 1 / 3),
    "whole float": (2.0, 2.0),
    "tiny": (5e-324, 5e-324),
    "huge": (1.7976931348623157e308, 1.7976931348623157e308),
    "minus zero": (-0.0, -0.0),
    "nan": (math.nan, math.nan),
    "infinity": (math.inf, math.inf),
    "minus infinity": (-math.inf, -math.inf),
    "int": (3, 3),
    "large int": (2**53 + 1, 2**53 + 1),
    "larger int": (10**400, 10**400),
    "bool": (True, True),
    "none": (None, None),
    "text": ("a\"b'c,\né\0\ud800", "a\"b'c,\né\0\ud800"),
    "empty text": ("", ""),
    "list": ([1, (2.5, math.nan), {"k": None}], [1, (2.5, math.nan), {"k": None}]),
    "float32": (np.float32(0.1), float(np.float32(0.1))),
    "float64": (np.float64(0.1), 0.1),
    "int64": (np.int64(7), 7),
    "bool_": (np.bool_(True), True),
    "longdouble": (np.longdouble(1.5), 1.5),
    "array": (np.array([[1.5, -math.inf]]), np.array([[1.5, -math.inf]])),
    "bytes": (b"x", b"x"),
    "complex": (1j, 1j),
    "set": ({1, (2, 3)}, {1, (2, 3)}),
    "keys that JSON makes equal": ({1: "a", "1": "b"}, {1: "a", "1": "b"}),
    "time": (datetime(2026, 1, 2, 3, tzinfo=UTC), datetime(2026, 1, 2, 3, tzinfo=UTC)),
    "what looks like a form": ({"$set": [1]}, {"$set": [1]}),
    "scalars within": ({"a": [np.int8(1)]}, {"a": [1]}),
}


def test_values_come_back_to_the_bit_and_by_their_type(opened: Open) -> None:
    sink = begun(opened)
    sink.write(
        Result.of("p", "s", results(60, **{name: stored for name, (stored, _) in VALUES.items()}))
    )
    sink.close()
    rows = {row.task: row.value for row in begun(opened).rows()}
    assert list(rows) == list(VALUES)
    for name, (_, expected) in VALUES.items():
        assert repr(rows[name]) == repr(expected), name


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(st.dictionaries(names, values, min_size=1, max_size=4), names.filter(bool))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(50))
def test_any_value_under_any_name(opened: Open, window: dict[str, Any], stage: str) -> None:
    sink = begun(opened)
    with contextlib.closing(sink):
        sink.write(Result.of("p", stage, DataSet(Window(0, 60), window)))
        assert repr([(row.task, row.value) for row in sink.rows(stage)]) == repr([*window.items()])


def test_errors_that_no_database_can_hold_as_they_are(opened: Open) -> None:
    error = TaskError("bad", Window(0, 60))
    error.__cause__ = ValueError('zero \0, half a pair \ud800, quotes ",\r\n and ' + "x" * 10**6)
    sink = begun(opened)
    sink.write(Result.of("p", "s", DataSet(Window(0, 60), {}, {"bad": error})))
    sink.close()
    (row,) = begun(opened).rows()
    assert row.error is not None
    assert 'zero \\x00, half a pair \\ud800, quotes ",\r\n and xxx' in row.error
    assert len(row.error) < 20_000


def test_a_window_that_is_written_again_replaces_the_one_that_is_there(opened: Open) -> None:
    sink = begun(opened)
    for end in (60, 120, 180):
        sink.write(Result.of("p", "s", results(end, a=end, gone=1)))
    sink.write(Result.of("p", "s", results(120, a="in the same flush")))
    sink.flush()
    assert sorted(summary(sink), key=str) == [
        ("s", 120, "a", "in the same flush"),
        ("s", 180, "a", 180),
        ("s", 180, "gone", 1),
        ("s", 60, "a", 60),
        ("s", 60, "gone", 1),
    ]
    sink.write(Result.of("p", "s", results(120, b="in a flush of its own")))
    sink.write(Result.of("p", "other", results(120, b="of another stage")))
    sink.flush()
    sink.write(Result.of("p", "s", results(60, a="before it was closed")))
    assert sink.last("s") == 180
    sink.close()
    expected = [
        ("other", 120, "b", "of another stage"),
        ("s", 120, "b", "in a flush of its own"),
        ("s", 180, "a", 180),
        ("s", 180, "gone", 1),
        ("s", 60, "a", "before it was closed"),
    ]
    sink = begun(opened)
    assert sorted(summary(sink), key=str) == expected
    sink.write(Result.of("p", "s", results(60, a="when opened again")))
    sink.flush()
    expected[-1] = ("s", 60, "a", "when opened again")
    assert sorted(summary(sink), key=str) == expected
    assert sink.last("s") == 180


def test_times_are_stored_with_their_unit(opened: Open) -> None:
    sink = begun(opened)
    intervals = [None, TaskInterval.nanos(5), TaskInterval.seconds(5), CalendarInterval.days(1)]
    for end, interval in enumerate(intervals, 1):
        dataset = DataSet(Window(end - 1, end), {"a": 1}, interval=interval)
        sink.write(Result.of("p", "s", dataset))
    sink.close()
    assert [row.unit for row in begun(opened).rows()] == [
        *(None, TimeUnit.NANOS, TimeUnit.SECONDS, CalendarInterval.days(1).unit)
    ]


def test_the_unit_of_the_last_window_is_told(opened: Open) -> None:
    sink: Any = begun(opened)
    assert sink.unit("s") is None
    for stage, interval in (("s", TaskInterval.seconds(60)), ("t", TaskInterval.millis(60))):
        sink.write(Result.of("p", stage, DataSet(Window(0, 60), {"a": 1}, interval=interval)))
        assert sink.unit(stage) is interval.unit
    sink.close()
    sink = begun(opened)
    assert (sink.unit("s"), sink.unit("t")) == (TimeUnit.SECONDS, TimeUnit.MILLIS)
    sink.write(Result.of("p", "s", results(120, a=1)))  # of which nobody has told it
    assert sink.unit("s") is None


def test_what_is_replaced_is_all_of_pipeline_stage_window_and_bucket(opened: Open) -> None:
    sink = begun(opened)
    narrow, wide = Window(30, 60), Window(0, 60)
    sink.write(Result.of("p", "s", DataSet(wide, {"a": 1, "b": 1})))
    sink.write(Result.of("p", "s", DataSet(narrow, {"a": 2})))
    sink.write(Result.of("p", "s", DataSet(wide, {"a": 3}), bucket=1))
    sink.flush()
    sink.write(Result.of("p", "s", DataSet(wide, {"a": 4}), revision=7))
    sink.flush()
    expected = [(0, 0, 7, 4), (0, 1, 0, 3), (30, 0, 0, 2)]
    for _ in range(2):
        found = [(row.start, row.bucket, row.revision, row.value) for row in sink.rows()]
        assert sorted(found) == expected
        assert sink.last("s") == 60
        sink.close()
        sink = begun(opened)


def test_a_window_of_many_keys(opened: Open) -> None:
    """No DataSet has keys yet, but what is stored has."""
    sink = begun(opened)
    assert isinstance(sink, Durable)
    for end, count in ((60, 3), (120, 2), (60, 2)):
        tasks = [
            TaskRecord(task, 1.5, "1.5", None, key) for key in "abc"[:count] for task in ("x", "y")
        ]
        window = WindowRecord(WindowKey("p", "s", end - 60, end, 0), "s", 0, tuple(tasks))
        waiting: dict[WindowKey, WindowRecord] = getattr(sink, "_waiting")  # noqa: B009 it is private
        waiting[window.key] = window  # as write() does
        sink.flush()
    expected = {(end, key, task) for end in (60, 120) for key in "ab" for task in "xy"}
    for _ in range(2):
        rows = list(sink.rows())
        assert {(row.end, row.key, row.task) for row in rows} == expected
        assert len(rows) == len(expected)
        sink.close()
        sink = begun(opened)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (Result.of("p", "s", DataSet(Window(0, 2**63), {"a": 1})), "end, 9223372036854775808, ta"),
        (Result.of("p", "s", DataSet(Window(0, 60), {"a": 1}), revision=-1), "revision=-1 is not"),
        (Result.of("p", "s", DataSet(Window(0, 60), {"a": 1}), bucket=2**31), "bucket=2147483648"),
    ],
)
def test_numbers_that_no_table_holds_are_refused(
    opened: Open, result: Result, message: str
) -> None:
    sink = begun(opened)
    with pytest.raises(SinkError, match=message):
        sink.write(result)
    assert not list(sink.rows())


def test_a_window_of_no_task_leaves_no_trace(opened: Open) -> None:
    sink = begun(opened)
    sink.write(Result.of("p", "s", results(60, a=1)))
    sink.write(Result.of("p", "s", results(120)))
    assert (sink.last("s"), summary(sink)) == (60, [("s", 60, "a", 1)])


def test_last_is_of_this_pipeline_and_stage(opened: Open) -> None:
    sink = begun(opened, "p")
    assert sink.last("s") is None
    sink.write(Result.of("p", "s", results(60, a=1)))
    sink.write(Result.of("p", "s", results(120, a=1)))
    sink.write(Result.of("p", "other", results(60, a=1)))
    assert (sink.last("s"), sink.last("other"), sink.last("none")) == (120, 60, None)
    sink.close()
    sink = begun(opened, "q")
    assert (sink.last("s"), list(sink.rows())) == (None, [])
    sink.write(Result.of("q", "s", results(300, a=2)))
    sink.close()
    sink = begun(opened, "p")
    assert (sink.last("s"), sink.last("other")) == (120, 60)
    assert summary(sink, "other") == [("other", 60, "a", 1)]
    assert len(summary(sink)) == 3


def test_before_the_epoch(opened: Open) -> None:
    sink = begun(opened)
    sink.write(Result.of("p", "s", results(-60, a=1)))
    sink.write(Result.of("p", "s", results(0, a=2)))
    sink.close()
    sink = begun(opened)
    assert sink.last("s") == 0
    assert summary(sink) == [("s", -60, "a", 1), ("s", 0, "a", 2)]


def test_a_value_that_cannot_be_stored_is_refused_and_nothing_of_its_window_is(
    opened: Open,
) -> None:
    circle: list[Any] = []
    circle.append(circle)
    sink = begun(opened)
    sink.write(Result.of("p", "s", results(60, a=1)))
    refused: list[Any] = [object(), [iter(())], circle, np.longdouble(1) / 3, np.ma.masked]
    for value in refused:
        kind = type(value).__name__
        with pytest.raises(SinkError, match=f"stage 's', task 'bad': its result, a {kind}, cannot"):
            sink.write(Result.of("p", "s", results(120, good=1, bad=value)))
    sink.write(Result.of("p", "s", results(180, a=3)))
    assert summary(sink) == [("s", 60, "a", 1), ("s", 180, "a", 3)]


@pytest.mark.parametrize("name", ["zero \0", "half a pair \ud800"])
def test_a_name_that_no_database_can_hold_is_refused_before_it_is_in_the_way(
    opened: Open, name: str
) -> None:
    sink = opened()
    with pytest.raises(ConfigError, match="is no name of a pipeline"):
        sink.begin(name)
    sink.begin("p")
    window = Window(0, 60)
    for stage, dataset in (
        (name, results(60, a=1)),
        ("s", DataSet(window, {name: 1})),
        ("s", DataSet(window, {"a": 1}, {name: TaskError("a", window)})),
    ):
        with pytest.raises(SinkError, match="is no name that can be stored: rename it"):
            sink.write(Result.of("p", stage, dataset))
    sink.write(Result.of("p", "s", results(120, a=1)))
    assert summary(sink) == [("s", 120, "a", 1)]


def test_a_sink_is_begun_once_and_not_used_before_or_after(opened: Open) -> None:
    sink = opened()
    for use in (
        lambda: sink.write(Result.of("p", "s", results(60, a=1))),
        lambda: sink.last("s"),
        lambda: list(sink.rows()),
    ):
        with pytest.raises(SinkError, match=r"call begin\(\) with the pipeline's name first"):
            use()
    with pytest.raises(ConfigError, match="'' is no name of a pipeline"):
        sink.begin("")
    sink.begin("p")
    sink.begin("p")
    with pytest.raises(ConfigError, match="belongs to pipeline 'p': make another one for 'q'"):
        sink.begin("q")
    sink.close()
    sink.close()
    for use in (
        lambda: sink.write(Result.of("p", "s", results(60, a=1))),
        sink.flush,
        lambda: sink.last("s"),
        lambda: list(sink.rows()),
        lambda: sink.begin("p"),
    ):
        with pytest.raises(SinkError, match="is closed"):
            use()


def test_close_flushes(opened: Open) -> None:
    sink = begun(opened)
    sink.write(Result.of("p", "s", results(60, a=1)))
    sink.close()
    assert summary(begun(opened)) == [("s", 60, "a", 1)]


def test_a_sink_nobody_flushes_does_not_keep_all_windows_in_memory(opened: Open) -> None:
    sink = begun(opened)
    for end in range(1, 1_500):
        sink.write(Result.of("p", "s", results(end, a=end)))
    waiting: Any = getattr(sink, "_waiting")  # noqa: B009 it is private
    assert len(waiting) < 1_024
    assert [row.value for row in sink.rows()] == list(range(1, 1_500))


def test_a_result_of_another_pipeline_is_refused(opened: Open) -> None:
    sink = begun(opened)
    with pytest.raises(SinkError, match="belongs to pipeline 'p': make another one for 'q'"):
        sink.write(Result.of("q", "s", results(60, a=1)))
    assert not list(sink.rows())


def test_a_store_that_fails_while_many_windows_wait_is_told_by_the_flush(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = begun(opened)
    with monkeypatch.context() as patched:

        def fail(windows: object) -> None:
            raise SinkError("the disk is full")

        patched.setattr(sink, "_keep", fail)
        for end in range(1, 1_500):  # a raise would say that this result cannot be stored
            sink.write(Result.of("p", "s", results(end, a=end)))
        with pytest.raises(SinkError, match="the disk is full"):
            sink.flush()
    assert [row.value for row in sink.rows()] == list(range(1, 1_500))


def test_stages_write_at_the_same_time(opened: Open, switching: None) -> None:
    sink = begun(opened)

    def stage(name: str) -> Callable[[], None]:
        def write() -> None:
            for end in range(1, 40):
                sink.write(Result.of("p", name, results(end, a=end)))
                if end % 5 == 0:
                    sink.flush()
                    assert sink.last(name) == end

        return write

    def read() -> None:
        for _ in range(5):
            for name in "abc":
                ends = [row.end for row in sink.rows(name)]
                assert ends == list(range(1, len(ends) + 1))

    together(stage("a"), stage("b"), stage("c"), read)
    for name in "abc":
        assert summary(sink, name) == [(name, end, "a", end) for end in range(1, 40)]


def test_rows_are_those_there_were_when_they_were_asked_for(opened: Open) -> None:
    sink = begun(opened)
    for end in range(1, 20):
        sink.write(Result.of("p", "s", results(end, a=end)))
        sink.flush()
    rows = sink.rows()
    ends = [next(rows).end, next(rows).end]
    for end in range(20, 60):
        sink.write(Result.of("p", "s", results(end, a=end)))
        sink.flush()
    ends += (row.end for row in rows)
    assert ends == list(range(1, 20))


def test_a_second_sink_on_the_same_file_is_refused(opened: Open, kind: str) -> None:
    sink = begun(opened)
    sink.write(Result.of("p", "s", results(60, a=1)))
    sink.flush()
    if kind in ("sqlite", "postgres", "mariadb"):  # databases have locks of their own
        assert summary(begun(opened)) == [("s", 60, "a", 1)]
        return
    with pytest.raises(ConfigError, match="another sink is writing there: close it first"):
        opened()
    sink.close()
    assert summary(begun(opened)) == [("s", 60, "a", 1)]


def test_a_callback_is_called_with_each_dataset() -> None:
    seen: list[tuple[str, DataSet[Any]]] = []
    sink = CallbackSink(lambda stage, dataset: seen.append((stage, dataset)))
    dataset = results(60, a=object())
    sink.write(Result.of("p", "s", dataset))
    sink.flush()
    sink.close()
    assert seen == [("s", dataset)]
    assert not isinstance(sink, DurableSink)
    with pytest.raises(ConfigError, match="it takes a callable"):
        CallbackSink(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] what is refused
