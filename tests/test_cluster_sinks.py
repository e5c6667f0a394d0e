"""Shards that write to a sink by themselves: it holds what one process would have written."""

from __future__ import annotations

import itertools
import pickle
import re
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.databases import mariadb, postgres
from tests.support.part_sinks import FAULTS, HomeSink
from tests.support.proof import in_proof
from tests.support.shards import LocalLink, LocalTransport, local_shards
from tests.support.stateful import ema, seen
from tests.support.threads import PATIENCE, beside, eventually
from tests.test_cluster_partitions import folder, of_files
from tests.test_sink_retry import cut_off

from run_task import (
    ConfigError,
    KeyedDataSet,
    Pipeline,
    Retry,
    RunnerConfig,
    SinkError,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    Window,
    task,
)
from run_task.aggregates import count, mean
from run_task.cluster._cluster import Cluster
from run_task.pipeline._refusals import Refusals
from run_task.pipeline._sink_policy import SinkPolicy
from run_task.pipeline._sink_start import output_of
from run_task.pipeline.live._sink_thread import SinkThread
from run_task.sinks import (
    CallbackSink,
    CsvSink,
    Layout,
    Result,
    Row,
    Spool,
    SqlSink,
    StageOutput,
)
from run_task.sources import paced

pytest.importorskip("sqlalchemy")


class Span(NamedTuple):
    low: float
    high: float | None


@task
def span(view: TimeSeriesView, start: int, end: int) -> Span:
    prices = view.in_window["price"]
    if prices[-1] > 80:
        raise ValueError(f"{prices[-1]} is too much")
    return Span(float(prices.min()), float(prices.max()) if len(prices) > 1 else None)


@task
def prices(view: TimeSeriesView, start: int, end: int) -> dict[str, Any]:
    return {"first": float(view.in_window["price"][0]), "all": view.in_window["price"].tolist()}


def rows(*, number: int = 600) -> list[tuple[int, dict[str, Any]]]:
    return [
        (1000 + i // 4 - 9 * (i % 13 == 0), {"symbol": f"s{i * i % 23}", "price": i / 7})
        for i in range(number)
    ]


def pipeline(
    sink: Any,
    *,
    tasks: Any = None,
    of: Any = None,
    sharded: bool = True,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Pipeline:
    series = TimeSeries({"symbol": str, "price": float}, TimeUnit.SECONDS, "60s", key="symbol")
    made = Pipeline("p", **more).source(rows() if of is None else of, series, name="rows")
    config = RunnerConfig(grace="5s", upstream_timeout=60)
    run = [ema, seen, span, prices, count()] if tasks is None else tasks
    stage = made.stage("s", run, series, "10s", config, by="symbol")
    stage.sink(sink, sharded=sharded, **(options or {}))
    return made


WIDE = [span, mean("price"), count()]


def held(sink: SqlSink, stage: str = "s", of: str = "p") -> list[Row]:
    """All rows, in one order: which those of a window have does not tell who wrote them."""
    sink.begin(of)
    return sorted(sink.rows(stage), key=lambda row: (*row[:4], row.key, row.task))


def expected(folder: Path, tasks: Any = None, layout: Layout = Layout.LONG) -> list[Row]:
    """What one process writes."""
    sink = SqlSink(folder / "expected.db", layout=layout)
    for _ in pipeline(sink, tasks=tasks, sharded=False).replay():
        pass
    found = held(sink)
    sink.close()
    assert found
    return found


@contextmanager
def faults(called: Callable[[Result], object]) -> Generator[str]:
    """A block in which sinks in shards call something before they flush."""
    FAULTS["test"] = called
    try:
        yield "test"
    finally:
        del FAULTS["test"]


def replayed(made: Pipeline, shards: int = 3) -> list[tuple[str, Any]]:
    with local_shards():
        return list(made.replay_sharded(shards))


@pytest.mark.parametrize("layout", [Layout.LONG, Layout.WIDE])
@pytest.mark.parametrize("shards", [1, 3])
def test_the_table_is_that_of_one_process_and_nothing_is_written_at_home(
    tmp_path: Path, layout: Layout, shards: int
) -> None:
    tasks = WIDE if layout is Layout.WIDE else None
    wanted = expected(tmp_path, tasks, layout)
    sink = HomeSink(tmp_path / "p.db", layout=layout)
    results = replayed(pipeline(sink, tasks=tasks), shards)
    assert held(sink) == wanted
    other = HomeSink(tmp_path / "other.db", layout=layout)
    assert results == [*pipeline(other, tasks=tasks, sharded=False).replay()]
    assert not sink.at_home


def test_without_shards_the_sink_is_written_as_ever(tmp_path: Path) -> None:
    sink = HomeSink(tmp_path / "p.db")
    for _ in pipeline(sink).replay():
        pass
    assert held(sink) == expected(tmp_path)
    assert sink.keys_at_home


def test_what_was_said_of_a_sink_tells_that_shards_write_it(tmp_path: Path) -> None:
    sink = SqlSink(tmp_path / "p.db")
    told = "written by shards, where there are any"
    assert told in pipeline(sink).sink_settings(sink)
    assert told not in pipeline(sink, sharded=False).sink_settings(sink)


def test_live_counts_are_those_of_windows_and_other_sinks_get_all(tmp_path: Path) -> None:
    sink, told = HomeSink(tmp_path / "p.db"), list[Any]()
    made = pipeline(sink, of=paced(rows(), speed=1_000, unit=TimeUnit.SECONDS))
    made.sink(CallbackSink(lambda _, dataset: told.append(dataset)))
    with local_shards():
        made.run_sharded(2)
    sink = HomeSink(tmp_path / "p.db")
    assert held(sink) == expected(tmp_path)
    (first, second) = made.stats.sinks.values()
    assert first == second
    assert first.results == first.written == len(told)
    assert len({row.key for row in held(sink)}) == len({k for one in told for k in keys_in(one)})


def keys_in(dataset: Any) -> list[Any]:
    return list(dataset.keys_of_rows)


def test_a_window_that_is_run_again_takes_out_keys_that_it_no_longer_has(tmp_path: Path) -> None:
    wanted = expected(tmp_path)
    sink = HomeSink(tmp_path / "p.db")
    sink.begin("p")
    # As an earlier run has left it, with windows that had other keys, and one that goes on.
    for start in (1000, 1050, 1140):
        values = {"count": {"gone": 1, "s1": 7}}
        dataset = KeyedDataSet(Window(start, start + 10), "symbol", values)
        sink.write(Result.of("p", "s", dataset))
    sink.flush()
    sink.at_home.clear()
    replayed(pipeline(sink))
    assert held(sink) == wanted
    assert not sink.keys_at_home


def test_wide_rows_of_keys_that_a_window_no_longer_has_are_taken_out(tmp_path: Path) -> None:
    wanted = expected(tmp_path, WIDE, Layout.WIDE)
    sink = HomeSink(tmp_path / "p.db", layout=Layout.WIDE)
    more = [(time, {**row, "symbol": f"{row['symbol']}x"}) for time, row in rows(number=200)]
    for _ in pipeline(sink, tasks=WIDE, of=more, sharded=False).replay():
        pass
    assert "s1x" in {row.key for row in held(sink)}
    sink.at_home.clear()
    replayed(pipeline(sink, tasks=WIDE))
    assert held(sink) == wanted
    assert not sink.keys_at_home


def test_what_a_shard_cannot_write_is_written_at_home(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failed: list[set[Any]] = []

    def fail(result: Result) -> None:
        if result.window.start == 1050 and len(failed) < 2:
            dataset: Any = result.dataset
            failed.append(set(dataset.keys_of_rows))
            raise OSError("no route to host")

    sink = HomeSink(tmp_path / "p.db")
    with faults(fail) as sink.faults:
        replayed(pipeline(sink))
    assert held(sink) == expected(tmp_path)
    at_1050 = {key for keys in failed for key in keys}
    assert at_1050
    assert sink.keys_at_home >= at_1050
    in_full = [one for one in sink.at_home if one.window.start == 1050]
    assert {key for one in in_full for key in keys_in(one.dataset)} == at_1050
    told = [record for record in caplog.messages if "could not write to" in record]
    assert len(told) == 1
    assert "no route to host" in told[0]


def test_a_sink_that_is_lost_in_a_shard_is_left_alone_for_a_time(tmp_path: Path) -> None:
    tries: list[int] = []

    def fail(result: Result) -> None:
        tries.append(result.window.start)
        raise OSError("no route to host")

    sink = HomeSink(tmp_path / "p.db")
    with faults(fail) as sink.faults:
        results = replayed(pipeline(sink), 1)
    assert held(sink) == expected(tmp_path)
    assert tries
    assert len(tries) < len(results)


def refused(view: TimeSeriesView, start: int, end: int) -> Any:
    if start == 1050 and view.in_window["symbol"][0] == "s1":
        return object
    return float(view.in_window["price"][0])


def test_what_no_sink_can_store_costs_its_key_as_without_shards(tmp_path: Path) -> None:
    tasks = [task(refused), count()]
    found: list[Any] = []
    for sharded in (False, True):
        letters: list[Any] = []

        def keep(result: Any, reason: str, detail: str, letters: list[Any] = letters) -> None:
            letters.append(result)

        sink = HomeSink(tmp_path / f"{sharded}.db")
        options = {"dead_letters": keep}
        source = paced(rows(), speed=1_000, unit=TimeUnit.SECONDS)
        made = pipeline(sink, tasks=tasks, of=source, sharded=sharded, options=options)
        if sharded:
            with local_shards():
                made.run_sharded(7)  # of which one has no other key
        else:
            made.run_sync()
        (stats,) = made.stats.sinks.values()
        keys = [(letter.window, keys_in(letter.dataset)) for letter in letters]
        found.append((held(HomeSink(tmp_path / f"{sharded}.db")), stats, keys))
    one, over_shards = found
    assert over_shards == one
    assert one[2] == [((1050, 1060), ["s1"])]


def test_a_shard_that_goes_after_it_has_written_writes_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def kill(link: LocalLink) -> None:
        asked.append(link.number)
        if len(asked) in (4, 9, 14):
            link.kill()

    sink = HomeSink(tmp_path / "p.db")
    with local_shards(LocalTransport(on_answer=kill)):
        made = pipeline(sink)
        results = list(made.replay_sharded(2))
    assert sum(one.restarts for one in made.stats.shards.values()) == 3
    assert not any(dataset.behind for _, dataset in results)
    assert held(sink) == expected(tmp_path)
    assert not sink.keys_at_home


def test_keys_of_a_shard_that_is_lost_in_a_window_have_their_errors(tmp_path: Path) -> None:
    def kill(link: LocalLink) -> None:
        shard = link.shard
        assert shard is not None
        if link.number == 1 and at_1050:
            link.kill()

    at_1050: list[bool] = []
    lost = set[Any]()
    sink = HomeSink(tmp_path / "p.db")
    with local_shards(LocalTransport(on_answer=kill)):
        replay = pipeline(sink, tasks=WIDE).replay_sharded(2)
        for _, dataset in replay:
            at_1050.clear()
            if dataset.window.end == 1050:
                at_1050.append(True)
            if dataset.window.start == 1050:
                lost = {key for name, key in dataset.errors if name == "count"}
    assert lost
    got = {row.key: row for row in held(sink) if row.start == 1050 and row.task == "count"}
    # It had written them before it went: what counts is what the window gave.
    assert {key for key, row in got.items() if row.error} == lost
    assert [one for one in held(sink) if one.start != 1050] == [
        one for one in expected(tmp_path, WIDE) if one.start != 1050
    ]


def test_windows_that_went_without_a_shard_are_not_written_when_it_has_caught_up(
    tmp_path: Path,
) -> None:
    transport = LocalTransport()
    sink = HomeSink(tmp_path / "p.db")
    with local_shards(transport):
        made = pipeline(sink)
        stage = made.stages[0]
        assert stage.name == "s"
        without: list[int] = []
        replay = made.replay_sharded(2)
        with mock_bound(0.2):
            for _, dataset in replay:
                if dataset.window.end == 1050:
                    transport.refuses = True
                    next(link for link in transport.links if link.number == 1).kill()
                if dataset.behind:
                    without.append(dataset.window.start)
                if len(without) == 2 and transport.refuses:
                    transport.refuses = False
                    eventually(lambda: made.stats.shards["shard 1 of 2"].state.value == "running")
    assert len(without) >= 2
    present = {(row.start, row.key) for row in held(sink)}
    keys = {row.key for row in held(sink) if row.start in without}
    of_all = {row.key for row in expected(tmp_path) if row.start in without}
    assert keys < of_all
    wanted = [
        r for r in expected(tmp_path) if (r.start, r.key) in present or r.start not in without
    ]
    assert held(sink) == wanted


@contextmanager
def mock_bound(seconds: float) -> Generator[None]:
    """A block in which windows wait for shards no longer than this."""
    answer = Cluster._answer  # pyright: ignore[reportPrivateUsage]

    def bounded(self: Any, member: Any, asked: Any, run: Any, bound: float, given_up: Any) -> Any:
        return answer(self, member, asked, run, seconds, given_up)

    with mock.patch.object(Cluster, "_answer", bounded):
        yield


def test_while_a_sink_is_away_all_comes_home(tmp_path: Path) -> None:
    taken = itertools.cycle([True, False, False])
    sink = HomeSink(tmp_path / "p.db")
    made = pipeline(sink, of=paced(rows(), speed=1_000, unit=TimeUnit.SECONDS))

    def has_all(*_: Any) -> bool:
        return next(taken)

    with local_shards(), mock.patch.object(SinkThread, "has_all", has_all):
        made.run_sharded(2)
    wanted = expected(tmp_path)
    assert held(HomeSink(tmp_path / "p.db")) == wanted
    starts = sorted({row.start for row in wanted})
    at_home = [one.window.start for one in sink.at_home if keys_in(one.dataset)]
    assert at_home == [start for number, start in enumerate(starts) if number % 3]


def thread_for(sink: HomeSink, policy: SinkPolicy) -> SinkThread:
    sink.begin("p")
    return SinkThread(sink, policy, "p", "a sink", 8, Refusals(), raised)


def raised(error: BaseException) -> None:
    raise error


def test_what_waits_for_a_sink_comes_before_what_shards_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = SinkPolicy(Retry(wait="1ms"), Spool(tmp_path / "spool"))
    result = KeyedDataSet(Window(0, 10), "k", {"count": {"a": 1}})
    never, given_up = threading.Event(), threading.Event()
    given_up.set()

    away = HomeSink(tmp_path / "p.db")
    thread = thread_for(away, policy)
    assert thread.has_all("s", never)
    thread.start()
    thread.write("s", result)
    assert thread.has_all("other", never)
    assert thread.has_all("s", never)  # it has flushed it for that, and not a second later
    assert thread.stats.written == 1
    away.fails = 10**9
    thread.write("s", result)
    assert not thread.has_all("s", never)
    thread.close()
    assert thread.join(PATIENCE)
    with suppress(SinkError):
        away.close()

    back = HomeSink(tmp_path / "p.db")
    thread = thread_for(back, policy)
    assert not thread.has_all("s", never)  # what an earlier run has left comes first
    thread.start()
    eventually(lambda: thread.has_all("s", never))
    back.waits.clear()
    thread.write("s", result)
    assert not thread.has_all("s", given_up)
    with (
        mock.patch("run_task.pipeline.live._sink_thread._SLOW", 0.1),
        beside(lambda: thread.has_all("s", never)) as waits,
    ):
        told = r"SqlSink\(.*, table='results'\) has not taken for 0.1 s what stage 's' gave it"
        eventually(lambda: re.search(told, caplog.text))
        back.waits.set()
        assert waits.result(PATIENCE)
    thread.close()
    assert thread.join(PATIENCE)
    assert [row.value for row in held(HomeSink(tmp_path / "p.db"))] == [1]


def test_what_comes_while_a_sink_flushes_for_shards_is_not_taken_for_flushed(
    tmp_path: Path,
) -> None:
    never = threading.Event()
    thread = thread_for(HomeSink(tmp_path / "p.db"), SinkPolicy(Retry(wait="1ms")))
    thread.start()
    flushed = thread.flushed

    def and_more_comes() -> threading.Event:
        marker = flushed()
        thread.write("s", KeyedDataSet(Window(0, 10), "k", {"count": {"a": 2}}))
        return marker

    thread.write("s", KeyedDataSet(Window(10, 20), "k", {"count": {"a": 1}}))
    with mock.patch.object(thread, "flushed", and_more_comes):
        assert thread.has_all("s", never)
    with mock.patch.object(thread, "flushed", wraps=flushed) as again:
        assert thread.has_all("s", never)
    again.assert_called_once()
    thread.close()
    assert thread.join(PATIENCE)


def test_a_table_that_is_locked_while_shards_write_is_told_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = SqlSink(tmp_path / "p.db", table="bars", layout=Layout.WIDE)
    replay = pipeline(sink, tasks=WIDE, of=rows(number=120)).replay_sharded(1)
    told = (
        r"shard 0 of 1 has been at a window.*stage 's' gives to SqlSink\('.*p.db', table='bars'\)"
    )
    with mock.patch("run_task.cluster._member._SLOW", 0.1), closing(replay):
        next(replay)
        with closing(sqlite3.connect(tmp_path / "p.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with beside(lambda: next(replay)) as following:
                eventually(lambda: re.search(told, caplog.text), 60)
                other.execute("ROLLBACK")
                following.result(60)
        eventually(lambda: "is done with the window that took it long" in caplog.text)


@pytest.mark.parametrize("live", [False, True])
def test_a_sink_that_has_a_window_has_all_before_it(tmp_path: Path, live: bool) -> None:
    """What a shard could not write of a window lasts before the next one is written: or else a run
    that resumes from what the sink holds would go on behind it."""
    there: list[set[Any]] = []

    def fail(result: Result) -> None:
        if result.window.start == 1050 and not there:
            there.append(set())
            raise SinkError("it is away")
        if result.window.start == 1060 and len(there) == 1:
            beside = SqlSink(tmp_path / "p.db")
            there.append({row.key for row in held(beside) if row.start == 1050})
            beside.close()

    sink = HomeSink(tmp_path / "p.db")
    source = paced(rows(), speed=1_000, unit=TimeUnit.SECONDS) if live else None
    made = pipeline(sink, of=source)
    later = mock.patch.multiple  # than it would be flushed by itself
    with (
        faults(fail) as sink.faults,
        local_shards(),
        later("run_task.pipeline.replay._output", FLUSH_EVERY=1e6),
        later("run_task.pipeline.live._sink_thread", FLUSH_EVERY=1e6),
    ):
        if live:
            made.run_sharded(2)
        else:
            list(made.replay_sharded(2))
    assert there[1] == {row.key for row in expected(tmp_path) if row.start == 1050}


@task
def more(view: TimeSeriesView, start: int, end: int) -> Span:
    found: Any = Span(1.0, float(start))
    key = view.in_window["symbol"][0]
    if start == 1050 and key == "s2":
        return found._asdict() | {"of_s2": 2}  # type: ignore[no-any-return]
    if start == 1060 and key in ("s3", "s4"):
        return found._asdict() | {"of_both": key}  # type: ignore[no-any-return]
    return found  # type: ignore[no-any-return]


def test_a_column_that_nobody_said_is_added_at_home(tmp_path: Path) -> None:
    wanted = expected(tmp_path, [more], Layout.WIDE)
    assert {"low", "high", "of_s2", "of_both"} == {
        name for row in wanted if row.value for name in row.value
    }
    for shards in (1, 3):
        sink = HomeSink(tmp_path / f"{shards}.db", layout=Layout.WIDE)
        replayed(pipeline(sink, tasks=[more]), shards)
        assert held(sink) == wanted


def test_a_task_that_is_added_while_it_runs_is_written_by_shards(tmp_path: Path) -> None:
    sink = HomeSink(tmp_path / "p.db", layout=Layout.WIDE)
    begun, added = threading.Event(), threading.Event()

    def source() -> Iterator[tuple[int, dict[str, Any]]]:
        for time, row in rows():
            if time == 1080:
                begun.set()
                assert added.wait(PATIENCE)
            yield time, row

    made = pipeline(sink, of=paced(source(), speed=1_000, unit=TimeUnit.SECONDS), tasks=WIDE)
    (stage,) = made.stages
    with local_shards(), beside(lambda: made.run_sharded(2)):
        assert begun.wait(PATIENCE)
        other = HomeSink(tmp_path / "other.db")
        with pytest.raises(ConfigError, match=r"its shards are at work.*before the pipeline runs"):
            stage.sink(other, sharded=True)
        with pytest.raises(ConfigError, match="task 'prices' does not say what columns"):
            stage.add(prices)
        stage.add(mean("price").named("again"))
        added.set()
    found = held(HomeSink(tmp_path / "p.db", layout=Layout.WIDE))
    assert not sink.keys_at_home
    again = {(row.start, row.key): row.value for row in found if row.task == "again" and row.value}
    means = {(row.start, row.key): row.value for row in found if row.task == "price_mean"}
    assert again
    assert again == {of: means[of] for of in again}


def test_what_cannot_be_written_by_shards_is_refused_by_name(tmp_path: Path) -> None:
    series = TimeSeries({"symbol": str, "price": float}, TimeUnit.SECONDS, "60s", key="symbol")
    made = Pipeline("p").source(rows(), series)
    by_key = made.stage("by key", [count()], series, "10s", by="symbol")
    with pytest.raises(ConfigError, match=r"stage 'all': sink=.*sharded=True is for a stage by"):
        made.stage("all", [count()], series, "10s").sink(SqlSink(tmp_path / "p.db"), sharded=True)
    yes: Any = "yes"
    with pytest.raises(ConfigError, match=r"sharded='yes': it is True or False"):
        by_key.sink(SqlSink(tmp_path / "p.db"), sharded=yes)
    told = r"stage 'by key': sink=CsvSink.*as an SqlSink: take one, or leave sharded=True out"
    with pytest.raises(ConfigError, match=told):
        by_key.sink(CsvSink(tmp_path / "p.csv"), sharded=True)
    wide = SqlSink(tmp_path / "p.db", table="wide", layout=Layout.WIDE)
    told = r"stage 'wide': sink=SqlSink.*task 'prices' does not say what columns.*-> float"
    with pytest.raises(ConfigError, match=told):
        made.stage("wide", [prices], series, "10s", by="symbol").sink(wide, sharded=True)
    assert not made.stages[-1].sinks

    by_key.sink(SqlSink(tmp_path / "p.db", encode=threading.Lock().acquire), sharded=True)
    told = r"stage 'by key': sink SqlSink.*cannot be sent to a shard.*leave sharded=True out"
    with pytest.raises(ConfigError, match=told):
        made.replay_sharded(2)
    assert any("cannot be sent" in str(error) for error in made.mistakes(2))


class Doubling(SqlSink):
    """Writes in its own way."""

    def write(self, result: Any, *more: Any) -> None:
        raise AssertionError("it is refused before")


class Around:
    """A sink around another one, which it writes to in its own way."""

    def __init__(self, inner: SqlSink) -> None:
        # From Python 3.12 on, what is asked for by __getattr__ is no part of a protocol.
        for name in dir(inner):
            if not name.startswith("_") and name != "write":
                setattr(self, name, getattr(inner, name))

    def write(self, result: Result) -> None:
        raise AssertionError("it is refused before")


class Opened(SqlSink):
    """Has what is its own in shards, too."""

    def write(self, result: Any, *more: Any) -> None:
        super().write(result._replace(stage=f"own {result.stage}"))

    def for_shards(self, output: StageOutput, /, *, other_machines: bool) -> Callable[[], Any]:
        super().for_shards(output, other_machines=other_machines)
        return partial(Opened, self._database.url.database or "")


def test_a_sink_that_writes_in_its_own_way_is_refused_unless_it_says_how_in_shards(
    tmp_path: Path,
) -> None:
    told = (
        r"Doubling has a write\(\) of its own, which nobody would call in a shard.*for_shards\(\)"
    )
    with pytest.raises(ConfigError, match=told):
        pipeline(Doubling(tmp_path / "p.db"))
    sink: Any = SqlSink(tmp_path / "p.db")
    sink.flush = lambda: None
    with pytest.raises(ConfigError, match=r"SqlSink has a flush\(\) of its own"):
        pipeline(sink)
    told = r"sharded=True: its for_shards is that of the sink that it is around"
    with pytest.raises(ConfigError, match=told):
        pipeline(Around(SqlSink(tmp_path / "p.db")))
    for _ in pipeline(Doubling(tmp_path / "p.db"), of=[], sharded=False).replay():
        pass

    opened = Opened(tmp_path / "own.db")
    with local_shards():
        list(pipeline(opened, tasks=WIDE).replay_sharded(2))
    assert held(opened, "own s")
    assert not held(opened)


def test_a_file_that_other_machines_do_not_have_is_refused(tmp_path: Path) -> None:
    made = pipeline(SqlSink(tmp_path / "p.db"))
    for address in ("auto", "10.0.0.1:6379"):
        found = [str(error) for error in made.mistakes(2, address)]
        assert any("a file of this machine" in one and "PostgreSQL" in one for one in found)
    assert not any("a file of this" in str(error) for error in made.mistakes(2, "local"))


def test_a_path_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sink = SqlSink("here.db")
    (stage,) = pipeline(sink).stages
    output = output_of("p", stage, stage.tasks)
    opener = pickle.loads(pickle.dumps(sink.for_shards(output, other_machines=False)))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    opener().close()
    assert not [*(tmp_path / "elsewhere").iterdir()]


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mariadb"])
@pytest.mark.parametrize("layout", [Layout.LONG, Layout.WIDE])
def test_shards_in_processes_write_at_the_same_time(
    tmp_path: Path, kind: str, layout: Layout
) -> None:
    tasks = WIDE if layout is Layout.WIDE else [prices, span, count()]
    wanted = expected(tmp_path, tasks, layout)
    databases = {"postgres": postgres, "mariadb": mariadb}
    with databases.get(kind, lambda: nullcontext(str(tmp_path / "p.db")))() as url:
        for shards in (2, 3):  # the second time, in the place of what is there
            sink = HomeSink(url, layout=layout)
            made = pipeline(sink, tasks=tasks)
            for _ in made.replay_sharded(shards):
                pass
            if kind != "sqlite":  # which one writes to at a time, and may be locked for long
                assert not sink.keys_at_home
            assert held(sink) == wanted
            sink.close()


def test_a_database_that_is_cut_off_while_shards_write_has_each_window_once(
    tmp_path: Path,
) -> None:
    with postgres() as url, cut_off(url) as (through, cut):
        sink = HomeSink(through)

        def source() -> Iterator[tuple[int, dict[str, Any]]]:
            for time, row in rows():
                if time == 1050:
                    cut.set()
                if time == 1090:
                    eventually(lambda: any(one.failures >= 2 for one in made.stats.sinks.values()))
                    cut.clear()
                yield time, row

        given = paced(source(), speed=200, unit=TimeUnit.SECONDS)
        made = pipeline(sink, of=given, options={"retry": Retry(wait="10ms", longest="100ms")})
        with local_shards():
            made.run_sharded(2)
        (stats,) = made.stats.sinks.values()
        assert stats.results == stats.written
        assert sink.keys_at_home  # those that shards could not write
        beside = SqlSink(url)
        assert held(beside) == expected(tmp_path)
        beside.close()


def test_rows_that_shards_read_by_themselves_are_written_by_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("pyarrow")
    where = folder(tmp_path / "rows")
    found: list[list[Row]] = []
    for name in ("one", "sharded"):
        made = of_files(where)
        sink = HomeSink(tmp_path / f"{name}.db")
        for stage in made.stages:
            if stage.keys is not None:
                stage.sink(sink, sharded=True)
        if name == "one":
            list(made.replay())
        else:
            list(made.replay_sharded(3))
        # On a busy machine, a file of SQLite may be locked for longer than a shard tries.
        if name == "one":
            assert sink.keys_at_home
        else:
            assert not sink.keys_at_home or "could not write to" in caplog.text
        beside = SqlSink(tmp_path / f"{name}.db")
        found.append([row for stage in made.stages for row in held(beside, stage.name, made.name)])
        beside.close()
    assert found[0]
    assert found[1] == found[0]


def test_windows_that_shards_have_written_are_computed_again(tmp_path: Path) -> None:
    wanted = expected(tmp_path, WIDE, Layout.WIDE)
    sink = HomeSink(tmp_path / "p.db", layout=Layout.WIDE)
    replayed(pipeline(sink, tasks=WIDE))
    before = held(sink)
    done = pipeline(sink, tasks=WIDE).recompute("s", 1050, 1090)
    assert done.windows == 4
    rows_of = [row for row in before if 1050 <= row.start < 1090]
    assert list(done.replaced.values()) == [len(rows_of)]
    assert held(sink) == wanted


RUNS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2, 5]),  # how many shards; 0: none
        st.lists(
            st.tuples(st.integers(0, 60), st.integers(0, 9), st.integers(0, 99)),
            min_size=1,
            max_size=30,
        ),
    ),
    min_size=1,
    max_size=2,
)


@settings(max_examples=in_proof(150, short=8), deadline=None)
@given(RUNS, st.sampled_from(Layout))
def test_whatever_was_there_the_table_is_that_of_one_process(
    runs: list[tuple[int, list[tuple[int, int, int]]]], layout: Layout
) -> None:
    """Runs over other rows, with other keys and windows, with other numbers of shards."""
    with TemporaryDirectory() as folder:
        tables = [HomeSink(Path(folder) / name, layout=layout) for name in ("one", "several")]
        for shards, of_run in runs:
            rows_given = [(t, {"symbol": f"k{k}", "price": float(p)}) for t, k, p in sorted(of_run)]
            for sink, number in zip(tables, (0, shards), strict=True):
                made = pipeline(sink, tasks=WIDE, of=rows_given)
                with local_shards():
                    for _ in made.replay_sharded(number) if number else made.replay():
                        pass
        one, several = tables
        assert held(several) == held(one)
        for sink in tables:
            sink.close()
