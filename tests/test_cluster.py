"""A pipeline over shards gives what it gives in one process, to the bit."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.bench import RecordingSink
from tests.support.crews import children
from tests.support.proof import in_proof
from tests.support.shards import LocalLink, LocalTransport, local_shards
from tests.support.stateful import ema, seen
from tests.support.threads import beside, eventually

from run_task import (
    Atom,
    Closed,
    ConfigError,
    DataSet,
    Empty,
    KeyedDataSet,
    Pipeline,
    RunnerConfig,
    RwLock,
    TaskInterval,
    TaskLost,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.aggregates import corr, count, ewm, mean, quantile, std, vwap
from run_task.cluster._feed import Feed
from run_task.cluster._replica import Replica
from run_task.data._buckets import bucket_of, part_of
from run_task.data.series._grouped import keys_and_lasts
from run_task.data.series._tap import mark_of
from run_task.data.series._view import placed
from run_task.sinks import Layout, SqlSink
from run_task.sources import paced

Given = list[tuple[str, Any]]


@task
def spread(view: TimeSeriesView, start: int, end: int) -> float:
    prices = view.in_window["price"]
    if len(prices) and prices[-1] > 9:
        raise ValueError(f"{prices[-1]} is too much")
    return float(prices.max() - prices.min()) if len(prices) else -1.0


@task
def reach(view: TimeSeriesView, start: int, end: int) -> tuple[int, list[float]]:
    """All rows of the key that there are yet, also before the window."""
    return len(view), view["price"].tolist()


@task
def total(view: TimeSeriesView, start: int, end: int) -> dict[str, float]:
    rows = view.in_window
    return dict(zip(rows["key"].tolist(), rows["mean"].tolist(), strict=True))


@task
def rows_of_all(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@task
def end_of(views: tuple[TimeSeriesView, TimeSeriesView], start: int, end: int) -> int:
    return end


ROWS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 4, 5, 12, 80]),  # how long after the row before in order
        st.sampled_from([0, 0, 0, 2, 6, 14, 45]),  # how late it is
        st.integers(0, 8),
        st.integers(0, 10),
    ),
    min_size=1,
    max_size=40,
)


def add_stages(
    made: Pipeline,
    trades: TimeSeries,
    kind: type[Any],
    aggregates: Sequence[Any],
    config: RunnerConfig,
) -> None:
    """Stages by key, and those that read their results, by key and of all together.

    :param kind: the type of the keys
    :param config: of those that read the trades
    """
    every = TaskInterval.seconds(10)
    plain = made.stage("plain", aggregates, trades, every, config, by="key", key_idle="40s")
    made.stage("tasks", [ema, spread, seen, reach, mean("price")], trades, every, config, by="key")
    inline = RunnerConfig(executor="inline")
    means = TimeSeries({"key": kind, "mean": float}, TimeUnit.SECONDS, None, Closed.RIGHT, None)
    keyed_means = TimeSeries(
        {"key": kind, "mean": float}, TimeUnit.SECONDS, None, Closed.RIGHT, None, "key"
    )

    def enter(series: TimeSeries, given: KeyedDataSet[Any, Any]) -> None:
        for key, value in given["mean"].items():
            series.append(given.timestamp, key=key, mean=value)

    plain.into(means, enter)
    plain.into(keyed_means, enter)
    made.stage("all", [total], means, TaskInterval.seconds(20), inline)
    made.stage("again", [count()], keyed_means, TaskInterval.seconds(20), inline, by="key")


def pipeline(
    rows: Sequence[tuple[int, int, int, int]],
    texts: bool,
    empty: Empty | None,
    window: int,
    retention: int | None,
    closed: Closed,
    *,
    live: bool = False,
) -> Pipeline:
    made = Pipeline("sharded")
    kind = str if texts else int
    trades = TimeSeries(
        {"price": float, "key": kind, "size": int},
        TimeUnit.SECONDS,
        key="key",
        retention=None if retention is None else TaskInterval.seconds(retention),
        closed=closed,
    )
    arrived = [
        (
            1000 + present - late,
            {"key": f"key-{key}" if texts else key - 4, "price": price / 1.7, "size": price},
        )
        for present, (_, late, key, price) in zip(
            itertools.accumulate(row[0] for row in rows), rows, strict=True
        )
    ]
    source: Any = paced(arrived, 1e9, unit=TimeUnit.SECONDS) if live else arrived
    made.source(source, into=trades, max_ahead=None)
    config = RunnerConfig(
        grace="5s",
        executor="inline",
        upstream_timeout=60,
        empty=empty,
        window=None if window == 10 else TaskInterval.seconds(window),
    )
    every = TaskInterval.seconds(10)
    aggregates = [
        mean("price").named("mean"),
        std("price"),
        quantile("price", 0.9),
        vwap("price", "size"),
        corr("price", "size"),
        ewm("price", half_life="20s"),
        count(),
    ]
    add_stages(made, trades, kind, aggregates, config)
    made.stage("rows", [rows_of_all], trades, every, config)
    return made


def told(given: Any) -> list[tuple[str, Any]]:
    return [(stage, *_parts(dataset)) for stage, dataset in given]


def _parts(dataset: DataSet[Any] | KeyedDataSet[Any, Any]) -> tuple[Any, ...]:
    errors = {key: str(error) for key, error in dataset.errors.items()}
    return dataset.window, repr(dataset.to_dict()), errors, dataset.behind


@settings(max_examples=in_proof(300, short=12), deadline=None)
@given(
    rows=ROWS,
    texts=st.booleans(),
    empty=st.sampled_from([None, Empty.RUN]),
    window=st.sampled_from([10, 30]),
    retention=st.sampled_from([None, None, 50, 12]),
    closed=st.sampled_from(list(Closed)),
)
@example(
    # What has passed out for the sake of another shard's row is not seen, though its own are older.
    rows=[(5, 0, 0, 3), (13, 0, 1, 4), (0, 1, 0, 5)],
    texts=True,
    empty=None,
    window=10,
    retention=12,
    closed=Closed.LEFT,
)
def test_any_number_of_shards_gives_what_one_process_gives(
    rows: list[tuple[int, int, int, int]],
    texts: bool,
    empty: Empty | None,
    window: int,
    retention: int | None,
    closed: Closed,
) -> None:
    declared = rows, texts, empty, window, retention, closed
    alone = pipeline(*declared)
    expected = told(alone.replay())
    for shards in (1, 3, 7):
        with local_shards() as transport:
            sharded = pipeline(*declared)
            assert told(sharded.replay_sharded(shards)) == expected
            assert sharded.stats.sources == alone.stats.sources
        assert transport.closed == 1


@task
def dies(view: TimeSeriesView, start: int, end: int) -> int:
    """It ends its process where there are 13 rows."""
    if len(view.in_window) == 13:
        os._exit(7)
    return len(view.in_window)


class Position(NamedTuple):
    size: int = 0
    marks: tuple[str, ...] = ()


@task(state=Position)
def position(
    view: TimeSeriesView, start: int, end: int, state: Position
) -> tuple[Position, Position]:
    size = state.size + int(view.in_window["size"].sum())
    now = Position(size, (*state.marks, view.key)[-2:])
    return now, now


def orders(kind: Any = str) -> TimeSeries:
    return TimeSeries({"key": kind, "size": int}, TimeUnit.SECONDS, key="key", retention="1h")


def some_orders(seconds: int = 100) -> list[tuple[int, dict[str, Any]]]:
    return [(1000 + t, {"key": f"key-{t * t % 11}", "size": t}) for t in range(seconds)]


def test_shards_are_processes_of_this_machine_that_end_with_the_run() -> None:
    def declared() -> Pipeline:
        made, series, limit = Pipeline("p"), orders(), Atom((3,))
        weights = TimeSeries({"weight": float}, TimeUnit.SECONDS)
        made.source(some_orders(), series)
        made.source([(1000 + t, {"weight": t / 3}) for t in range(0, 100, 7)], weights)
        made.stage("one", [position, count()], series, "10s", by="key")
        made.stage("several", [weighted], (weights, series, limit), "20s", by="key")
        return made

    expected = told(declared().replay())
    begun = children()
    made = declared()
    replay = made.replay_sharded(2)
    found = told([next(replay)])
    started = children() - begun
    assert len(started) == 2
    found += told(replay)
    assert found == expected
    assert not started & children()


@task
def weighted(
    data: tuple[TimeSeriesView, TimeSeriesView, tuple[int]], start: int, end: int
) -> float:
    weights, orders, (limit,) = data
    return float(weights["weight"].sum()) * len(orders.in_window) + limit


def test_a_task_that_ends_its_process_costs_the_results_of_its_shard_in_that_window() -> None:
    made, series = Pipeline("p"), orders()
    rows = some_orders()
    rows += [(1025, {"key": "key-3", "size": 1})] * (13 - sum(_is_of("key-3", 1020, rows)))
    made.source(sorted(rows, key=lambda row: row[0]), series)
    config = RunnerConfig(upstream_timeout=60)  # a busy machine takes its time to start a process
    made.stage("s", [dies, position], series, "10s", config, by="key")
    windows = [dataset for _, dataset in made.replay_sharded(2)]
    for dataset in windows:
        lost = {error.key for error in dataset.errors.values()}
        if dataset.window.start != 1020:
            assert not lost
            continue
        shard = part_of(bucket_of("key-3"), 2)
        keys = {row["key"] for time, row in rows if 1020 <= time < 1030}
        assert lost == {key for key in keys if part_of(bucket_of(key), 2) == shard}
        assert all(isinstance(error, TaskLost) for error in dataset.errors.values())
        assert "exit code 7" in str(dataset.errors["dies", "key-3"])
        assert "lost 3 times" in str(dataset.errors["dies", "key-3"])
    assert [d.window.start for d in windows] == list(range(1000, 1100, 10))


def _is_of(key: str, start: int, rows: list[tuple[int, dict[str, Any]]]) -> Iterator[bool]:
    return (start <= time < start + 10 and row["key"] == key for time, row in rows)


def test_a_window_waits_for_a_shard_as_long_as_for_a_stage_and_names_it_then() -> None:
    transport = LocalTransport()

    def go(link: LocalLink) -> None:
        if link.number == 1 and link.asked == 3 and len(transport.links) == 2:
            transport.refuses = True
            link.kill()

    transport.on_call = go
    made, series = Pipeline("p"), orders()
    made.source(some_orders(), series)
    config = RunnerConfig(upstream_timeout=0.3)
    made.stage("s", [position], series, "10s", config, by="key")
    expected = [dataset for _, dataset in made.replay()]
    with local_shards(transport):
        replay = made.replay_sharded(2)
        found = [dataset for _, (_, dataset) in zip(range(3), replay)]
        assert [d.behind for d in found] == [(), (), ()]
        begun = time.monotonic()
        found += [dataset for _, (_, dataset) in zip(range(3), replay)]
        # It is waited for once, and not in each window.
        assert 0.2 < time.monotonic() - begun < 0.3 * 3
        assert [d.behind for d in found[3:]] == [("shard 1 of 2",)] * 3
        transport.refuses = False
        eventually(lambda: len([link for link in transport.links if link.number == 1]) == 2)
        eventually(lambda: made.stats.shards["shard 1 of 2"].is_running)
        found += [dataset for _, dataset in replay]
    assert [d.behind for d in found[6:]] == [()] * 4
    # It has caught up: its states are as if it had been there.
    assert found[6:] == expected[6:]
    mine = {f"key-{n}" for n in range(11) if part_of(bucket_of(f"key-{n}"), 2) == 0}
    for dataset, whole in zip(found[:6], expected, strict=False):
        there = mine if dataset.behind else {*whole[position]}
        assert dataset[position] == {k: v for k, v in whole[position].items() if k in there}
        assert not dataset.errors


def test_a_wide_table_tells_which_shards_a_window_lacks(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    transport = LocalTransport()
    made, series = Pipeline("p"), orders()
    made.source(some_orders(40), series)
    config = RunnerConfig(upstream_timeout=0.1)
    stage = made.stage("s", [count()], series, "10s", config, by="key")
    stage.sink(SqlSink(tmp_path / "bars.db", table="bars", layout=Layout.WIDE))
    with local_shards(transport), made.replay_sharded(2) as replay:
        next(replay)
        transport.refuses = True
        transport.links[1].kill()
        behind = [dataset.behind for _, dataset in replay]
    assert behind == [("shard 1 of 2",)] * 3
    with contextlib.closing(sqlite3.connect(tmp_path / "bars.db")) as database:
        found = database.execute("select key, error from bars where error is not null").fetchall()
    assert found == [(None, "without 'shard 1 of 2', which was behind")] * 3


@pytest.mark.parametrize("live", [False, True])
def test_windows_name_the_shards_that_results_lack_which_they_hold(live: bool) -> None:
    transport = LocalTransport()

    def go(link: LocalLink) -> None:
        if link.number == 1 and link.asked == 3 and len(transport.links) == 2:
            transport.refuses = True
            link.kill()

    def come_back() -> None:
        transport.refuses = False
        eventually(lambda: made.stats.shards["shard 1 of 2"].is_running)

    def rows() -> Iterator[tuple[int, Any]]:
        for time_of, row in some_orders(200):
            if time_of == 1100 and live:  # those that come after it are late
                eventually(lambda: any(d.behind for d in sink.of("last")))
                come_back()
            yield time_of, row

    transport.on_call = go
    made, series, sink = Pipeline("p"), orders(), RecordingSink()
    made.source(paced(rows(), 1e3, unit=TimeUnit.SECONDS) if live else rows(), series)
    config = RunnerConfig(upstream_timeout=0.05)
    results = made.stage("s", [count()], series, "10s", config, by="key").series()
    sliding = RunnerConfig(window="30s", upstream_timeout=0.05)
    again = made.stage("again", [mean("count")], results, "10s", sliding, by="key").series()
    made.stage("all", [rows_of_all], results, "20s")
    made.stage("last", [end_of], (results, again), "10s")
    given: list[tuple[str, Any]] = sink.results
    with local_shards(transport):
        if live:
            made.sink(sink)
            made.run_sharded(2)
        else:
            given = []
            for stage, dataset in made.replay_sharded(2):
                given.append((stage, dataset))
                if (stage, dataset.timestamp) == ("last", 1080):
                    come_back()
    assert len([link for link in transport.links if link.number == 1]) == 2
    away = ("shard 1 of 2",)
    behind: dict[str, dict[int, Any]] = {}
    for stage, dataset in given:
        assert dataset.behind in ((), away)
        behind.setdefault(stage, {})[dataset.timestamp] = dataset.behind
    lacked = {end for end, names in behind["s"].items() if names}
    assert 1040 in lacked
    assert 1110 not in lacked
    for end, names in behind["all"].items():
        assert names == (away if lacked & {end - 10, end} else ())
    for end, names in behind["again"].items():
        if lacked & {end - 20, end - 10, end}:
            assert names == away  # it may also have gone without the shard by itself
    for end, names in behind["last"].items():
        assert names == (away if end in lacked or behind["again"].get(end) else ())


def by_stage(given: list[tuple[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for stage, *parts in given:
        found.setdefault(stage, []).append(parts)
    return found


def ran(made: Pipeline, shards: int) -> dict[str, list[Any]]:
    """What a live run over shards gives."""
    sink = RecordingSink()
    made.sink(sink)
    made.run_sharded(shards)
    return by_stage(told(sink.results))


@settings(max_examples=in_proof(200, short=10), deadline=None)
@given(rows=ROWS, deaths=st.sets(st.integers(1, 40), max_size=6), before=st.booleans())
def test_shards_that_die_come_back_with_what_they_had(
    rows: list[tuple[int, int, int, int]], deaths: set[int], before: bool
) -> None:
    declared = rows, True, None, 10, 50, Closed.LEFT
    expected = by_stage(told(pipeline(*declared).replay()))
    calls = itertools.count(1)

    def kill(link: LocalLink) -> None:
        if next(calls) in deaths:
            link.kill()

    transport = LocalTransport(kill if before else None, None if before else kill)
    # However often the same shard goes in one window.
    with local_shards(transport), mock.patch("run_task.cluster._cluster._TRIES", 1000):
        made = pipeline(*declared, live=True)
        assert ran(made, 3) == expected
    assert sum(one.restarts for one in made.stats.shards.values()) <= len(deaths)
    assert made.stats.shards.keys() == {"shard 0 of 3", "shard 1 of 3", "shard 2 of 3"}


def test_rows_are_sent_while_no_window_asks_for_them() -> None:
    made, series = Pipeline("p"), orders()
    many = 60_000
    late = threading.Event()

    def rows() -> Iterator[tuple[int, Any]]:
        yield 1000, {"key": "a", "size": 1}
        yield 1060, {"key": "a", "size": 1}  # the first window is run
        for number in range(many):
            yield 1061 + number // 10_000, {"key": f"key-{number % 11}", "size": 1}
        late.wait(30)
        yield 1120, {"key": "a", "size": 1}

    made.source(rows(), series)
    made.stage("s", [count()], series, "1m", by="key")
    with local_shards():
        replay = made.replay_sharded(2)
        next(replay)
        with beside(lambda: list(replay)) as rest:
            try:
                # Rarely, since each look takes time from the threads that send them.
                eventually(
                    lambda: sum(of.rows for of in made.stats.shards.values()) > many * 0.8,
                    every=0.05,
                )
            finally:
                late.set()
    assert (
        sum(dict(dataset[count()])["key-3"] for _, dataset in rest.result()[:1]) == many // 11 + 1
    )


def test_keys_are_not_looked_for_where_shards_tell_them_and_they_are_those_of_before() -> None:
    looks: list[int] = []

    def rows() -> Iterator[tuple[int, Any]]:
        for start in range(1000, 1120, 10):
            looks.append(look.call_count)
            for number in range(400 if start < 1110 else 399):
                yield start, {"key": f"key-{number}", "size": 1}

    made, series = Pipeline("p"), orders()
    made.source(rows(), series)
    made.stage("s", [count()], series, "10s", by="key")
    with (
        local_shards(),
        mock.patch("run_task.data.series._keyed_view.keys_and_lasts", wraps=keys_and_lasts) as look,
    ):
        sizes = [len(dataset[count()]) for _, dataset in made.replay_sharded(2)]
    assert sizes == [400] * 11 + [399]
    # By then it is known that they come again, and that each shard has one.
    assert set(looks[6:]) == {looks[6]}
    assert look.call_count == looks[6] + 1  # for the last window, which has others


# What is refused


def refused(cure: str, made: Pipeline, shards: Any = 2) -> str:
    """The message with which it is refused before a shard is started, live and in a replay."""
    messages: set[str] = set()
    with local_shards() as transport:
        for run in (made.run_sharded, made.replay_sharded):
            with pytest.raises(ConfigError, match=re.escape(cure)) as raised:
                run(shards)
            messages.add(str(raised.value))
    assert not transport.links
    (message,) = messages
    return message


def declared(series: TimeSeries, *tasks: Any, **options: Any) -> Pipeline:
    made = Pipeline("p").source(some_orders(), series)
    made.stage("keyed", tasks or [count()], series, "10s", by="key", **options)
    return made


class Holding:
    """A task that cannot be pickled."""

    name = "holding"

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def run(self, view: Any, start: int, end: int) -> int:
        return 1


class Unloadable(Holding):
    """A task that cannot be loaded."""

    name = "unloadable"

    def __reduce__(self) -> Any:
        return int, ("none",)


def test_what_cannot_be_sharded_is_refused_by_name() -> None:
    for wrong in (0, -1, True, 2.0, "8"):
        assert repr(wrong) in refused("it is a positive int", declared(orders()), wrong)
    assert "1025" in refused("give 1,024 at most", declared(orders()), 1025)
    assert "'keyed'" in refused("give 3 shards at most", declared(orders(), max_keys=3), 4)
    assert "'holding'" in refused("let it hold only what", declared(orders(), Holding()))
    assert "'unloadable'" in refused("let it hold only what", declared(orders(), Unloadable()))
    few = TimeSeries({"key": str, "size": int}, TimeUnit.SECONDS, key="key", retention=5)
    assert "of all keys together" in refused("retention='1h'", declared(few))
    made = Pipeline("p").source(some_orders(), few)
    made.stage("all", [rows_of_all], few, "10s")
    assert "no stage by key" in refused("give a stage by=", made)


def cannot_be_loaded() -> None:
    raise ValueError("it belongs to a process")


class Elsewhere:
    """A result that cannot be loaded."""

    def __reduce__(self) -> Any:
        return cannot_be_loaded, ()


class Locked(NamedTuple):
    lock: Any = None
    windows: int = 0


@task
def gives_a_lock(view: TimeSeriesView, start: int, end: int) -> Any:
    return threading.Lock() if view.key == "key-1" and start == 1010 else len(view.in_window)


@task(state=Locked)
def keeps_a_lock(view: TimeSeriesView, start: int, end: int, state: Locked) -> tuple[int, Locked]:
    is_locked = view.key == "key-1" and start == 1010
    now = Locked(threading.Lock() if is_locked else None, state.windows + 1)
    return now.windows, now


@task(state=int)
def gives_what_cannot_be_loaded(
    view: TimeSeriesView, start: int, end: int, state: int
) -> tuple[Any, int]:
    return Elsewhere() if view.key == "key-1" and start == 1010 else state, state + 1


def test_a_result_or_state_that_cannot_be_sent_costs_itself_and_is_told_with_the_cure() -> None:
    made, series = Pipeline("p"), orders()
    made.source([(1000 + 5 * at, {"key": f"key-{at % 2}", "size": 1}) for at in range(8)], series)
    tasks = [gives_a_lock, keeps_a_lock, gives_what_cannot_be_loaded]
    made.stage("s", tasks, series, "10s", by="key")
    with local_shards():
        first, second, third, last = [dataset for _, dataset in made.replay_sharded(2)]
    assert not any(dataset.errors for dataset in (first, third, last))
    cure = "return only what can be pickled: its numbers and texts, and no lock"
    told = {name: (str(error), str(error.__cause__)) for name, error in second.errors.items()}
    assert told.keys() == {(one.name, "key-1") for one in tasks}
    error, cause = told["gives_a_lock", "key-1"]
    assert error.startswith("task 'gives_a_lock' gave no result for 'key-1' in ")
    assert "its result, a lock, cannot be sent back (TypeError: cannot pickle" in cause
    assert cure in error
    error, cause = told["keeps_a_lock", "key-1"]
    assert "its result, a int with a state of type Locked, cannot be sent back" in cause
    assert cure in error
    error, _ = told["gives_what_cannot_be_loaded", "key-1"]
    assert "its result cannot be loaded (ValueError: it belongs to a process)" in error
    assert cure in error
    # A task that gives no result leaves its state as it was, in the shard as in the driver.
    assert dict(last[keeps_a_lock]) == {"key-0": 4, "key-1": 3}
    assert dict(last[gives_what_cannot_be_loaded]) == {"key-0": 3, "key-1": 2}


@pytest.mark.parametrize(
    ("keys", "shards", "windows", "expected"),
    [
        (3, 5, 12, "3 keys in 10 windows: fewer than the 5 shards, of which 2 have nothing to do"),
        (1, 2, 1, "1 key in 1 window: fewer than the 2 shards, of which 1 has nothing to do"),
        (5, 5, 12, None),
        (6, 5, 12, None),
    ],
)
def test_fewer_keys_than_shards_are_told_once_with_the_cure(
    keys: int, shards: int, windows: int, expected: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    made, series = Pipeline("p"), orders()
    # One key a window: they are those of all windows.
    rows = [(1000 + 10 * at, {"key": f"key-{at % keys}", "size": 1}) for at in range(windows)]
    made.source(rows, series)
    made.stage("s", [count()], series, "10s", by="key")
    with local_shards():
        assert len(list(made.replay_sharded(shards))) == windows
    told = [r.getMessage() for r in caplog.records]
    assert len(told) == (expected is not None)
    if expected is not None:
        assert told[0] == f"stage 's': {expected} for it: give {keys} at most"


@task
def mixed(data: tuple[TimeSeriesView, Holding], start: int, end: int) -> int:
    return 1


def test_what_an_input_holds_that_cannot_be_sent_is_refused_by_name() -> None:
    made, series, lock = Pipeline("p"), orders(), RwLock(Holding())
    made.source(some_orders(), series)
    made.stage("mixed", [mixed], (series, lock), "10s", by="key")
    with local_shards() as transport, pytest.raises(ConfigError) as raised:
        made.run_sharded(2)
    assert "stage 'mixed': what <RwLock" in str(raised.value)
    assert not transport.links


def test_a_shard_that_comes_back_with_other_versions_is_ended_each_time() -> None:
    transport = LocalTransport()
    made = declared(orders(), config=RunnerConfig(upstream_timeout=0.5))
    with local_shards(transport):
        replay = made.replay_sharded(2)
        next(replay)
        transport.versions = {**transport.versions, "NumPy": "1.2.3"}
        transport.links[0].kill()
        (named,) = {dataset.behind for _, dataset in replay}
    assert named == ("shard 0 of 2",)
    assert "has NumPy 1.2.3" in made.stats.shards["shard 0 of 2"].reason
    assert len(transport.links) > 2
    assert not [link for link in transport.links if link.shard is not None]


def test_shards_of_other_versions_are_refused_and_ended() -> None:
    transport = LocalTransport()
    transport.versions = {**transport.versions, "NumPy": "1.2.3"}
    told = "shard [01] on node-[01] has NumPy 1.2.3, .* install the same on each node"
    with local_shards(transport), pytest.raises(ConfigError, match=told):
        declared(orders()).run_sharded(2)
    assert transport.links
    assert all(link.shard is None for link in transport.links)
    assert transport.closed == 1


def test_what_cannot_be_started_is_told_and_the_rest_is_ended() -> None:
    transport = LocalTransport()
    transport.refuses = True
    with (
        local_shards(transport),
        pytest.raises(ConfigError, match="of 2 cannot be started: RuntimeError: there"),
    ):
        declared(orders()).run_sharded(2)
    assert transport.closed == 1


def test_a_shard_lets_go_of_views_before_rows_come_that_may_take_their_place() -> None:
    series = TimeSeries({"key": int, "value": float}, TimeUnit.SECONDS, "10s", key="key")
    feed = Feed(0, series, 1, by_key=True)
    feed.begin()
    feed.take()
    feed.told(0)
    replica, stores = Replica(series.pattern), list[Any]()
    for start in range(0, 300, 10):
        series.extend(start + np.arange(10), key=[1] * 10, value=[0.5] * 10)
        view = series.view()
        feed.take()
        replica.apply(feed.told(0))
        mark = mark_of(placed(view)[1])
        assert mark is not None
        its = replica.view(mark)
        assert its.time.tolist() == view.time.tolist()
        storage: Any = placed(its)[1]
        stores.append(storage.store)
        del its, storage, view
    assert len(set(map(id, stores))) < 4  # and not a new one every few windows
