"""Keys without bound: rows beyond max_keys are refused, and keys that never come again are told."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.proof import examples

from run_task import (
    ConfigError,
    ContextBuilder,
    DeadLetter,
    Empty,
    Pipeline,
    RunnerConfig,
    SourceStats,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    Window,
    task,
)
from run_task.data.series._column_types import Column
from run_task.data.series._key_limit import KeyLimit
from run_task.sources import Batch, OnFault, paced
from run_task.testing import run_windows

KINDS: Sequence[Any] = (str, int, "int32")
by_kind = pytest.mark.parametrize("kind", KINDS)


@task
def count(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


def series_of(kind: Any, most: int | None = None, **options: Any) -> TimeSeries:
    series = TimeSeries({"id": kind, "v": float}, TimeUnit.SECONDS, key="id", **options)
    if most is not None:
        series.limit_keys(most)
    return series


def key_of(kind: Any, number: int) -> Any:
    return f"k{number}" if kind is str else number


def keys_of(series: TimeSeries) -> list[Any]:
    keys: list[Any] = series.view()["id"].tolist()
    return keys


@by_kind
@pytest.mark.parametrize("before", [0, 5000])  # beyond what a store of ints has room for at first
def test_a_row_whose_key_is_one_too_many_is_refused_by_name(kind: Any, before: int) -> None:
    series = series_of(kind, 3)
    keys = [key_of(kind, number) for number in range(5)]
    for i in range(before):
        series.append(0, id=keys[i % 2], v=1.0)
    for i, key in enumerate(keys[:3]):
        series.append(i, id=key, v=1.0)
    told = ""
    for attempt in range(2):
        with pytest.raises(ConfigError) as raised:
            series.append(9, id=keys[3 + attempt], v=1.0)
        told = str(raised.value)
    assert told == (
        f"column 'id', row of timestamp 9: {keys[4]!r} is a new key, and there are 3 already, "
        f"which is max_keys of a stage or runner by 'id': raise max_keys=, or take a column of "
        f"which values come again; nothing was stored"
    )
    series.append(9, id=keys[0], v=1.0)  # those that are there may come again
    with pytest.raises(ConfigError, match=r"row of timestamp 11: .* is a new key"):
        series.extend([10, 11], id=[keys[1], keys[3]], v=[1.0, 2.0])  # all or none
    series.extend([10, 5], id=[keys[1], keys[2]], v=[1.0, 2.0])
    assert len(series.view()) == before + 6
    assert set(keys_of(series)) == set(keys[:3])


@by_kind
def test_there_is_room_again_once_rows_have_passed_out(kind: Any) -> None:
    series = series_of(kind, 100, retention=50)
    for i in range(5000):
        series.append(i, id=key_of(kind, i), v=1.0)  # a new key each time
    assert keys_of(series) == [key_of(kind, i) for i in range(4950, 5000)]
    series.extend(range(5000, 5040), id=[key_of(kind, i) for i in range(5000, 5040)], v=[1.0] * 40)
    assert keys_of(series)[-1] == key_of(kind, 5039)


@by_kind
def test_refused_rows_do_not_look_through_all_that_is_there_each_time(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = series_of(kind, 100)
    series.extend(range(5000), id=[key_of(kind, i % 100) for i in range(5000)], v=[1.0] * 5000)
    looked = 0
    move: Any = TimeSeries._move  # pyright: ignore[reportPrivateUsage]  what costs most

    def counted(*args: Any, **options: Any) -> None:
        nonlocal looked
        looked += 1
        move(*args, **options)

    monkeypatch.setattr(TimeSeries, "_move", counted)
    for i in range(50):
        with pytest.raises(ConfigError, match="is a new key"):
            series.append(5000, id=key_of(kind, 1000 + i), v=1.0)
    assert looked <= 1


@by_kind
def test_the_least_of_several_limits_holds_and_copies_know_it(kind: Any) -> None:
    series = series_of(kind, 3)
    series.limit_keys(5)
    for i in range(3):
        series.append(i, id=key_of(kind, i), v=1.0)
    for each in (series, copy.deepcopy(series)):
        with pytest.raises(ConfigError, match="there are 3 already"):
            each.append(9, id=key_of(kind, 3), v=1.0)
        each.append(9, id=key_of(kind, 0), v=1.0)
    with pytest.raises(ConfigError, match=r"max_keys=2: .*has rows of 3 keys already: raise it"):
        series.limit_keys(2)
    with pytest.raises(ConfigError, match="has no key: make it with key="):
        TimeSeries({"v": float}).limit_keys(2)


@by_kind
def test_a_stage_or_runner_that_is_declared_limits_its_series(kind: Any) -> None:
    series = series_of(kind)
    for i in range(3):
        series.append(i, id=key_of(kind, i), v=1.0)
    with pytest.raises(ConfigError, match=r"stage 's': max_keys=2: .* 3 keys already: raise it"):
        Pipeline("p").stage("s", [count], series, "10s", by="id", max_keys=2)
    builder = ContextBuilder(series).with_task(count).with_interval("10s")
    kept = builder.with_key("id", max_keys=3).build()
    with pytest.raises(ConfigError, match="there are 3 already"):
        series.append(9, id=key_of(kind, 3), v=1.0)
    del kept


@by_kind
@pytest.mark.parametrize("batched", [False, True])
def test_rows_beyond_the_limit_are_rejected_and_told(
    kind: Any, batched: bool, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [key_of(kind, i) for i in (0, 1, 2, 0, 3, 1, 4)]

    class Batches:
        def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
            return ((i, {"id": key, "v": 1.0}) for i, key in enumerate(keys))

        def batches(self) -> Iterator[Any]:
            ids = np.array(keys, object if kind is str else np.int64)
            yield Batch(np.arange(len(keys)), {"id": ids, "v": np.ones(len(keys))})

        def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
            return self.rows()

    series = series_of(kind)
    letters: list[Any] = []

    def note(row: Any, reason: str, detail: str) -> None:
        letters.append(DeadLetter(row, reason, detail))

    pipeline = Pipeline("p")
    source: Any = Batches() if batched else list(Batches().rows())
    pipeline.source(
        source,
        series,
        unit=TimeUnit.SECONDS,
        dead_letters=note,
    )
    pipeline.stage("s", [count], series, "10s", by="id", max_keys=3)
    for _ in range(2):  # each replay has a copy that knows the limit
        replay = pipeline.replay()
        (dataset,) = [dataset for _, dataset in replay]
        assert dict(dataset["count"]) == {keys[0]: 2, keys[1]: 2, keys[2]: 1}
        assert replay.summary.sources["source-1"] == SourceStats(received=7, stored=5, rejected=2)
    assert [(letter.reason, letter.row[0]) for letter in letters] == [
        ("rejected", t) for t in (4, 6, 4, 6)
    ]
    assert "there are 3 already, which is max_keys" in letters[0].detail
    assert f"row of timestamp 4: {keys[4]!r} is a new key" in caplog.text


def test_rows_beyond_the_limit_are_rejected_live() -> None:
    series = series_of(str)
    rows: Any = [(i, {"id": f"k{i % 5}", "v": 1.0}) for i in range(20)]
    pipeline = Pipeline("p").source(paced(rows, 1e9, unit=TimeUnit.SECONDS), series)
    pipeline.stage("s", [count], series, "10s", by="id", max_keys=3)
    asyncio.run(pipeline.run())
    counts = pipeline.stats.sources["source-1"]
    assert (counts.received, counts.stored, counts.rejected) == (20, 12, 8)


def test_a_source_may_end_by_the_limit() -> None:
    series = series_of(str)
    rows: Any = [(i, {"id": f"k{i}", "v": 1.0}) for i in range(20)]
    pipeline = Pipeline("p").source(rows, series, unit=TimeUnit.SECONDS, on_bad_row=OnFault.RAISE)
    pipeline.stage("s", [count], series, "10s", by="id", max_keys=3)
    with pytest.raises(ConfigError, match="is a new key"):
        list(pipeline.replay())


@pytest.mark.parametrize("empty", [Empty.SKIP, Empty.RUN])
def test_keys_that_do_not_come_again_are_told_once(
    empty: Empty, caplog: pytest.LogCaptureFixture
) -> None:
    def told(keys: Callable[[int], Iterable[int]]) -> list[str]:
        caplog.clear()
        series = series_of(int)
        context, _, _ = (
            ContextBuilder(series)
            .with_task(count)
            .with_interval("10s")
            .with_config(RunnerConfig(name="orders", executor="inline", empty=empty))
            .with_key("id", key_idle="10s")
            .build()
        )

        def enter(window: Window) -> None:
            for key in keys(window.start // 10):
                series.append(window.start + 1, id=key, v=1.0)

        run_windows(context, 8, before=enter)
        return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]

    (warning,) = told(lambda window: range(400 * window, 400 * window + 400))
    assert warning == (
        "'orders': by='id': 1,200 keys have come in 3 windows, and hardly any in two of them: is "
        "it a column of which values come again? Rows of more than 100,000 keys are refused "
        "(max_keys)"
    )
    assert told(lambda window: range(2000)) == []  # a fleet, each once a window
    assert told(lambda window: range(400 * window, 400 * window + 800)) == []
    assert told(lambda window: range(100 * window, 100 * window + 100)) == []  # they are few


@by_kind
def test_keys_whose_rows_pass_out_with_a_new_row_make_room_for_its_key(kind: Any) -> None:
    series = series_of(kind, 2, retention="10s")
    for time in (0, 1):
        series.append(time, id=key_of(kind, time), v=1.0)
    with pytest.raises(ConfigError, match=r"row of timestamp 10: .* there are 2 already"):
        series.append(10, id=key_of(kind, 2), v=1.0)
    series.append(11, id=key_of(kind, 2), v=1.0)
    assert keys_of(series) == [key_of(kind, 1), key_of(kind, 2)]
    with pytest.raises(ConfigError, match="there are 2 already"):
        series.append(11, id=key_of(kind, 0), v=1.0)  # its rows have passed out


@by_kind
def test_a_row_that_comes_too_late_to_be_kept_needs_no_room(kind: Any) -> None:
    series = series_of(kind, 1, retention=1)
    series.append(5, id=key_of(kind, 0), v=1.0)
    series.append(4, id=key_of(kind, 1), v=1.0)
    assert (keys_of(series), series.dropped) == ([key_of(kind, 0)], 1)
    with pytest.raises(ConfigError, match="there are 1 already"):
        series.extend([5, 5], id=[key_of(kind, 0), key_of(kind, 1)], v=[1.0, 2.0])


def test_keys_that_differ_by_a_nul_are_two() -> None:
    series = series_of(str, 2)
    for key in ("a", "a\0"):
        series.append(0, id=key, v=1.0)
    for key in ("", "\0", "a\0\0"):
        with pytest.raises(ConfigError, match="is a new key, and there are 2 already"):
            series.append(0, id=key, v=1.0)


@by_kind
def test_the_key_of_a_row_that_is_refused_for_something_else_takes_no_room(kind: Any) -> None:
    series = series_of(kind, 100)
    series.extend(range(90), id=[key_of(kind, 0)] * 90, v=[1.0] * 90)
    for number in range(1, 400):
        with pytest.raises(ConfigError, match="column 'v'"):
            series.append(90, id=key_of(kind, number), v="no number")
    for number in range(1, 100):
        series.append(90, id=key_of(kind, 1000 + number), v=1.0)
    with pytest.raises(ConfigError, match="there are 100 already"):
        series.append(90, id=key_of(kind, 2000), v=1.0)


def kept(
    rows: list[tuple[int, int, int]], retention: int | str | None
) -> list[tuple[int, int, int]]:
    """The rows that stay of some in order: timestamps, numbers and keys."""
    if isinstance(retention, str):
        return [row for row in rows if row[0] >= rows[-1][0] - int(retention[:-1])]
    return rows if retention is None else rows[-retention:]


@settings(max_examples=examples(200), deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    most=st.integers(1, 4) | st.integers(62, 66),
    retention=st.none() | st.integers(1, 8) | st.integers(1, 20).map("{}s".format),
    first=st.integers(0, 70),
    steps=st.lists(
        st.tuples(st.integers(-5, 6), st.integers(0, 9) | st.integers(0, 99), st.booleans()),
        max_size=80,
    ),
)
def test_a_row_is_refused_if_there_are_too_many_keys_with_it_and_only_then(
    kind: Any,
    most: int,
    retention: int | str | None,
    first: int,
    steps: list[tuple[int, int, bool]],
) -> None:
    # Whoever holds views, and whatever becomes of the memory: so a replay refuses the same rows.
    series, views = series_of(kind, most, retention=retention), list[TimeSeriesView]()
    rows: list[tuple[int, int, int]] = []
    steps = [(0, number % most, False) for number in range(first)] + steps
    now = 0
    for number, (step, key, holds) in enumerate(steps):
        time = now + step
        now = max(now, time)
        if holds:
            views.append(series.view())
        row = (time, number, key)
        after = kept(sorted([*rows, row]), retention)
        has_room = row not in after or len({one[2] for one in after}) <= most
        if has_room:
            series.append(time, id=key_of(kind, key), v=1.0)
            rows = after
        else:
            with pytest.raises(ConfigError, match=f"there are {most} already"):
                series.append(time, id=key_of(kind, key), v=1.0)
        assert keys_of(series) == [key_of(kind, one[2]) for one in rows]


@settings(max_examples=examples(200), deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    most=st.integers(1, 6),
    retention=st.none() | st.integers(1, 12),
    steps=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), max_size=40),
)
def test_never_more_keys_than_the_limit_and_none_refused_that_is_there(
    kind: Any, most: int, retention: int | None, steps: list[list[int]]
) -> None:
    series = series_of(kind, most, retention=retention)
    for time, step in enumerate(steps):
        keys = [key_of(kind, number) for number in step]
        before = keys_of(series)
        try:
            if len(keys) == 1:
                series.append(time, id=keys[0], v=1.0)
            else:
                series.extend([time] * len(keys), id=keys, v=[1.0] * len(keys))
        except ConfigError:
            assert keys_of(series) == before
            assert not set(keys) <= set(before)
        else:
            expected = before + keys
            assert keys_of(series) == (expected if retention is None else expected[-retention:])
        assert len(set(keys_of(series))) <= most


@given(st.sampled_from(("i1", "i2", "i4", "i8", "u1", "u2", "u8")), st.data())
def test_of_ints_each_new_one_is_known_once_in_order(kind: str, data: st.DataObject) -> None:
    about = np.iinfo(kind)
    ints = st.integers(int(about.min), int(about.max))
    near = data.draw(ints)
    few = st.integers(max(near - 30, int(about.min)), min(near + 30, int(about.max)))
    each = st.one_of(few, ints) if data.draw(st.booleans()) else few
    values: Any = np.array(data.draw(st.lists(each)), kind)
    limit = KeyLimit("k", 0, 5)
    limit.watch(Column("k", kind), None, np.array([near], kind))
    expected = [key for key in dict.fromkeys(values.tolist()) if key != near]
    assert limit.new(values) == expected


# Limits that are lifted


def store(series: TimeSeries, kind: Any, *numbers: int) -> None:
    for number in numbers:
        series.append(0, id=key_of(kind, number), v=1.0)
    series.extend([0] * len(numbers), id=[key_of(kind, i) for i in numbers], v=[1.0] * len(numbers))


@by_kind
@pytest.mark.parametrize("before", [0, 5000])
def test_the_least_limit_holds_for_as_long_as_it_is_set(kind: Any, before: int) -> None:
    series = series_of(kind)
    for _ in range(before):
        series.append(0, id=key_of(kind, 0), v=1.0)
    lift_4 = series.limit_keys(4)
    lift_2 = series.limit_keys(2)
    store(series, kind, 0, 1)
    for lift, most in (lift_2, 2), (lift_4, 4):
        store(series, kind, *range(most))
        with pytest.raises(ConfigError, match=f"there are {most} already"):
            series.append(0, id=key_of(kind, 9), v=1.0)
        with pytest.raises(ConfigError, match=f"there are {most} already"):
            series.extend([0], id=[key_of(kind, 9)], v=[1.0])
        lift()
        lift()  # of no effect
    store(series, kind, *range(300))
    assert len(set(keys_of(series))) == 300
    with pytest.raises(ConfigError, match=r"max_keys=299: .* has rows of 300 keys already"):
        series.limit_keys(299)
    series.limit_keys(300)
    with pytest.raises(ConfigError, match="there are 300 already"):
        series.append(0, id=key_of(kind, 300), v=1.0)


def test_a_stage_that_is_removed_or_refused_limits_no_keys() -> None:
    series = series_of(str)
    pipeline = Pipeline("p")
    pipeline.stage("many", [count], series, "10s", by="id", max_keys=3)
    pipeline.stage("few", [count], series, "10s", by="id", max_keys=1)
    with pytest.raises(ConfigError, match="two stages are called 'many'"):
        pipeline.stage("many", [count], series, "10s", by="id", max_keys=1)
    store(series, str, 0)
    with pytest.raises(ConfigError, match="there are 1 already"):
        store(series, str, 1)
    pipeline.remove("few")
    store(series, str, 1, 2)
    with pytest.raises(ConfigError, match="there are 3 already"):
        store(series, str, 3)
    with pytest.raises(ConfigError, match=r"stage 'less': max_keys=2: .* has rows of 3 keys"):
        pipeline.stage("less", [count], series, "10s", by="id", max_keys=2)
    assert [stage.name for stage in pipeline.stages] == ["many"]


def test_a_context_that_nobody_has_any_more_limits_no_keys() -> None:
    series = series_of(int)
    context, _, _ = ContextBuilder(series).with_task(count).with_key("id", max_keys=1).build()
    store(series, int, 0)
    with pytest.raises(ConfigError, match="there are 1 already"):
        store(series, int, 1)
    del context
    gc.collect()
    store(series, int, 1)
    assert len(set(keys_of(series))) == 2
