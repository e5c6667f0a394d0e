"""A source in partitions, which shards read by themselves, gives what it gives in one process, to
the bit."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any
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
from tests.test_cluster import add_stages, by_stage, ran, reach, told

from run_task import (
    Closed,
    ConfigError,
    Empty,
    Pipeline,
    Retry,
    RunnerConfig,
    RunTaskError,
    SourceError,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.aggregates import corr, count, ewm, last, mean, quantile, std
from run_task.cluster._partitions import (
    PartitionKeys,
    PartitionOnShards,
    PartitionSource,
    WhenAway,
)
from run_task.sinks import CsvSink, Layout
from run_task.sources import Batch, OnFault, SourceInfo, paced
from run_task.sources._partitioned import Partitions

Row = tuple[int, Mapping[str, Any]]


class Part:
    """Rows in memory, in batches of so many."""

    def __init__(self, rows: Sequence[Row], size: int = 4, bad: int | None = None) -> None:
        self.rows = rows
        self.size = size
        self.bad = bad

    def about(self) -> SourceInfo:
        return SourceInfo(unit=TimeUnit.SECONDS, last=self.rows[-1][0] if self.rows else None)

    def batches(self) -> Iterator[Batch]:
        for start in range(0, len(self.rows), self.size):
            if self.bad is not None and start >= self.bad:
                raise SourceError("Part", start, None, "there is a row that cannot be read")
            some = self.rows[start : start + self.size]
            columns: dict[str, Any] = {}
            for name in some[0][1]:
                values = [row[name] for _, row in some]
                kinds = set(map(type, values))
                plain = kinds <= {float} or kinds <= {int}
                column = np.array(values) if plain else np.empty(len(values), object)
                if not plain:
                    column[:] = values
                columns[name] = column
            yield Batch(np.array([time for time, _ in some], np.int64), columns)

    def __iter__(self) -> Iterator[Any]:
        return (row for batch in self.batches() for row in batch.rows())


class Parts(Part):
    """Rows in partitions."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__([])
        self.parts = parts

    def partitions(self) -> Mapping[str, Part]:
        return {f"part-{number}": part for number, part in enumerate(self.parts)}

    def __repr__(self) -> str:
        return "Parts()"


def test_rows_of_all_partitions_come_in_the_order_in_which_they_arrive() -> None:
    chosen = np.random.default_rng(1)
    for sizes in itertools.product((1, 3, 50), repeat=3):
        parts: dict[str, Part] = {}
        expected: list[tuple[int, int, int, int]] = []
        for number, size in enumerate(sizes):
            times = np.cumsum(chosen.integers(0, 3, 30)) - chosen.choice([0, 0, 0, 4], 30)
            rows = [(int(time), {"n": 100 * number + at}) for at, time in enumerate(times)]
            parts[f"p{number}"] = Part(rows, size)
            arrivals = np.maximum.accumulate(times).tolist()
            expected += [
                (arrival, number, row["n"], time) for arrival, (time, row) in zip(arrivals, rows)
            ]
        found = list(Partitions("several", parts))
        assert found == [(time, {"n": n}) for _, _, n, time in sorted(expected)]


PARTS = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from([0, 0, 1, 4, 5, 12, 80]),  # how long after the row before in order
            st.sampled_from([0, 0, 0, 2, 6, 14, 45]),  # how late it is
            st.integers(0, 2),
            st.sampled_from([*range(10), None, "no number", "no key"]),
        ),
        max_size=20,
    ),
    min_size=1,
    max_size=5,
)


def pipeline(
    parts: Sequence[Sequence[tuple[int, int, int, Any]]],
    texts: bool,
    empty: Empty | None,
    window: int,
    retention: int | None,
    closed: Closed,
    size: int,
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
    declared: list[Part] = []
    for number, rows in enumerate(parts):
        presents = itertools.accumulate(row[0] for row in rows)
        arrived: list[Row] = []
        for present, (_, late, key, price) in zip(presents, rows, strict=True):
            named: Any = f"key-{number}-{key}" if texts else 10 * number + key - 4
            row = {"price": price, "key": named, "size": price}
            if isinstance(price, int):
                row["price"] = price / 1.7
            if price is None:
                row["key"] = None  # it has no value
            elif price == "no number":
                row["key"] = "key-0-0" if texts else 0  # also of another partition
            elif price == "no key":
                row |= {"price": 1.0, "key": "" if texts else None, "size": 1}
            arrived.append((1000 + present - late, row))
        declared.append(Part(arrived, size))
    source: Any = Parts(declared)
    source = paced(source, 1e9, unit=TimeUnit.SECONDS) if live else source
    made.source(source, into=trades, max_ahead=None, partitioned=True)
    config = RunnerConfig(
        grace="5s",
        executor="inline",
        upstream_timeout=60,
        empty=empty,
        window=None if window == 10 else TaskInterval.seconds(window),
    )
    aggregates = [
        mean("price").named("mean"),
        std("price"),
        quantile("price", 0.9),
        corr("price", "size"),
        ewm("price", half_life="20s"),
        count(),
    ]
    add_stages(made, trades, kind, aggregates, config)
    return made


@settings(max_examples=in_proof(80, short=12), deadline=None)
@given(
    parts=PARTS,
    texts=st.booleans(),
    empty=st.sampled_from([None, Empty.RUN]),
    window=st.sampled_from([10, 30]),
    retention=st.sampled_from([None, None, 50, 12]),
    closed=st.sampled_from(list(Closed)),
    size=st.integers(1, 6),
)
@example(
    # Of a batch no row fits, and another one has rows of which some do.
    parts=[[(1, 0, 0, "no"), (1, 0, 0, None), (9, 0, 0, 3), (0, 0, 1, None)], [(5, 0, 0, 4)]],
    texts=True,
    empty=None,
    window=10,
    retention=12,
    closed=Closed.LEFT,
    size=2,
)
@example(
    # Of a partition no row has a key.
    parts=[[(1, 0, 0, "no key")], []],
    texts=True,
    empty=None,
    window=10,
    retention=None,
    closed=Closed.LEFT,
    size=2,
)
def test_any_number_of_shards_gives_what_one_process_gives(
    parts: list[list[tuple[int, int, int, Any]]],
    texts: bool,
    empty: Empty | None,
    window: int,
    retention: int | None,
    closed: Closed,
    size: int,
) -> None:
    declared = parts, texts, empty, window, retention, closed, size
    alone = pipeline(*declared)
    expected = told(alone.replay())
    for shards in (1, 3, 7):
        with local_shards() as transport:
            sharded = pipeline(*declared)
            assert told(sharded.replay_sharded(shards)) == expected
            assert sharded.stats.sources == alone.stats.sources
        assert transport.closed == 1


@settings(max_examples=in_proof(60, short=10), deadline=None)
@given(
    parts=PARTS.filter(any),
    deaths=st.sets(st.integers(1, 60), max_size=6),
    before=st.booleans(),
    retention=st.sampled_from([None, 50, 12]),
    size=st.integers(1, 6),
    live=st.booleans(),
)
def test_shards_that_die_read_again_what_they_had(
    parts: list[list[tuple[int, int, int, Any]]],
    deaths: set[int],
    before: bool,
    retention: int | None,
    size: int,
    live: bool,
) -> None:
    declared = parts, True, None, 10, retention, Closed.LEFT, size
    expected = by_stage(told(pipeline(*declared).replay()))
    calls = itertools.count(1)

    def kill(link: LocalLink) -> None:
        if next(calls) in deaths:
            link.kill()

    transport = LocalTransport(kill if before else None, None if before else kill)
    # However often the same shard goes in one window.
    with local_shards(transport), mock.patch("run_task.cluster._cluster._TRIES", 1000):
        made = pipeline(*declared, live=live)
        found = ran(made, 3) if live else by_stage(told(made.replay_sharded(3)))
        assert found == expected
    assert sum(one.restarts for one in made.stats.shards.values()) <= len(deaths)


# Files, in processes


def trades() -> TimeSeries:
    columns = {"price": float, "key": str}
    return TimeSeries(columns, TimeUnit.SECONDS, "1m", key="key")


def folder(where: Path, seconds: int = 200) -> Path:
    """A file for each of three groups of keys, each with rows that are late."""
    where.mkdir()
    for number in range(3):
        lines = ["timestamp,key,price"]
        for at in range(seconds):
            late = 4 if at % 9 == 5 else 0
            lines.append(f"{1000 + at - late},key-{number}-{at * at % 5},{at / 7}")
        (where / f"group-{number}.csv").write_text("\n".join(lines) + "\n")
    return where


def of_files(where: Path, *, speed: float | None = None) -> Pipeline:
    from run_task.sources import CsvFile

    source: Any = CsvFile(where, unit=TimeUnit.SECONDS, batch_rows=16)
    made, series = Pipeline("files"), trades()
    made.source(source if speed is None else paced(source, speed), series, partitioned=True)
    config = RunnerConfig(grace="3s", window=TaskInterval.seconds(20), upstream_timeout=60)
    made.stage("keyed", [seen, reach, mean("price")], series, "10s", config, by="key")
    return made


def test_shards_read_the_files_of_a_folder_each_its_own(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    where = folder(tmp_path / "rows")
    expected = told(of_files(where).replay())
    begun = children()
    made = of_files(where)
    assert told(made.replay_sharded(2)) == expected
    assert len(expected) == 21
    assert not children() - begun


def reached(sink: RecordingSink, windows: int) -> bool:
    return len(sink.results) >= windows


def patiently(condition: Callable[[], object]) -> None:
    """Wait for what needs processes to start, while the machine is busy."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)


def test_killed_shards_read_their_files_again(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    where = folder(tmp_path / "rows")
    expected = told(of_files(where).replay())
    begun = children()
    made = of_files(where, speed=50)
    sink = RecordingSink()
    made.sink(sink)
    with running(made) as run:
        for windows in (3, 8, 12):
            patiently(partial(reached, sink, windows))
            for process in children() - begun:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        run.result(60)
    assert told(sink.results) == expected
    assert sum(shard.restarts for shard in made.stats.shards.values()) >= 3
    assert not children() - begun


def test_windows_wait_for_a_shard_that_reads_as_long_as_for_a_stage_and_name_it_then() -> None:
    transport = LocalTransport()
    made, series = Pipeline("p"), trades()
    rows = [[(1000 + at, {"price": 1.0, "key": f"key-{n}"}) for at in range(200)] for n in (0, 1)]
    source = paced(Parts([Part(some) for some in rows]), 50, unit=TimeUnit.SECONDS)
    made.source(source, series, partitioned=True)
    config = RunnerConfig(upstream_timeout=0.5)
    made.stage("s", [count()], series, "10s", config, by="key")
    sink = RecordingSink()
    made.sink(sink)
    with local_shards(transport), running(made) as run:
        eventually(lambda: len(sink.results) >= 2)
        transport.refuses = True
        transport.links[1].kill()
        eventually(lambda: sum("shard 1 of 2" in d.behind for _, d in sink.results) >= 3)
        transport.refuses = False
        eventually(lambda: made.stats.shards["shard 1 of 2"].is_running)
        run.result(60)
    windows = [dataset for _, dataset in sink.results]
    assert [d.window.start for d in windows] == list(range(1000, 1200, 10))
    # The keys of the other shard are there in each window, and all in the last ones.
    assert all(dict(d[count()])["key-0"] == 10 for d in windows)
    assert dict(windows[-1][count()]) == {"key-0": 10, "key-1": 10}
    assert windows[-1].behind == ()
    named = [d for d in windows if d.behind]
    assert {d.behind for d in named} == {("shard 1 of 2",)}
    assert all("key-1" not in dict(d[count()]) for d in named)
    # All rows have entered, those that came too late for their windows, too, or were counted.
    counts = made.stats.sources["source-1"]
    assert counts.stored + counts.expired == 400


def test_a_replay_ends_with_the_cause_if_a_shard_that_reads_stays_away() -> None:
    transport = LocalTransport()
    made, series = Pipeline("p"), trades()
    made.source(parts_of("a", "b", rows=400), series, partitioned=True, name="trades")
    config = RunnerConfig(upstream_timeout=0.5)
    made.stage("s", [count()], series, "10s", config, by="key")
    told = (
        r"shard 1 of 2, which reads 'part-1', was gone for \d+ s, and could not be started again "
        r"\d+ times: it was on node-1: it was killed; it cannot be started again: RuntimeError: "
        r"there is no place for it: give it a place to run"
    )
    with local_shards(transport):
        replay = made.replay_sharded(2)
        next(replay)
        transport.refuses = True
        transport.links[1].kill()
        begun = time.monotonic()
        with pytest.raises(SourceError, match=told):
            list(replay)
        assert time.monotonic() - begun > 0.4


def test_a_replay_waits_for_a_shard_that_reads_until_it_is_back() -> None:
    transport = LocalTransport()
    made, series = Pipeline("p"), trades()
    made.source(parts_of("a", "b", rows=400), series, partitioned=True)
    config = RunnerConfig(upstream_timeout=0.01)
    made.stage("s", [count()], series, "10s", config, by="key")
    expected = told(made.replay())
    held = threading.Event()
    start = transport.start

    def slowly(number: int, given_up: threading.Event) -> Any:
        held.wait(0.5)  # longer than windows wait
        return start(number, given_up)

    with local_shards(transport):
        replay = made.replay_sharded(2)
        found = told([next(replay)])
        with mock.patch.object(transport, "start", slowly):
            transport.links[1].kill()
            found += told(replay)
    assert [window for _, window, *_ in found] == [window for _, window, *_ in expected]
    # Rows are waited for; one window at most, that was asked for as it went, lacks its keys.
    assert sum(one != other for one, other in zip(found, expected, strict=True)) <= 1


def test_a_table_has_the_columns_of_what_aggregates_give_of_rows_in_shards(tmp_path: Path) -> None:
    rows = [(1000 + at, {"price": at / 7, "key": f"key-{at % 3}"}) for at in range(60)]
    parts = Parts([Part([row for row in rows if row[1]["key"] == f"key-{n}"]) for n in range(3)])

    def written(run: Callable[[Pipeline], object], name: str) -> str:
        made, series = Pipeline("p"), trades()
        made.source(paced(parts, 1e9, unit=TimeUnit.SECONDS), series, partitioned=True)
        stage = made.stage("keyed", [last("price"), count()], series, "10s", by="key")
        stage.sink(CsvSink(tmp_path / name, layout=Layout.WIDE))
        made.stage("all", [mean("price_last")], stage.series(), "10s")
        with local_shards():
            run(made)
        return (tmp_path / name).read_text()

    expected = written(lambda made: list(made.replay()), "one.csv")
    assert expected.startswith("window_start,window_end,key,price_last,count,")
    assert written(lambda made: made.run_sharded(2), "live.csv") == expected
    assert written(lambda made: list(made.replay_sharded(2)), "replay.csv") == expected


def test_a_run_ends_at_once_while_a_shard_that_reads_is_away() -> None:
    transport = LocalTransport()
    made, series = Pipeline("p"), trades()
    rows = [(1000 + at, {"price": 1.0, "key": "a"}) for at in range(1000)]
    made.source(paced(Parts([Part(rows)]), 10, unit=TimeUnit.SECONDS), series, partitioned=True)
    made.stage("s", [count()], series, "1s", RunnerConfig(upstream_timeout=0.1), by="key")
    with local_shards(transport), running(made) as run:
        eventually(lambda: made.stats.sources["source-1"].stored > 3)
        transport.refuses = True
        transport.links[0].kill()
        eventually(lambda: not made.stats.shards["shard 0 of 2"].is_running)
        begun = time.monotonic()
        made.shutdown()
        run.result(60)
        assert time.monotonic() - begun < 5
    assert series.columns.keys() == {"price", "key"}
    assert not series.view()


def test_a_shard_keeps_no_rows_that_nobody_can_see_any_more() -> None:
    made, series = Pipeline("p"), trades()
    rows = [(1000 + at, {"price": 1.0, "key": "a"}) for at in range(2000)]
    made.source(Parts([Part(rows, 10)]), series, partitioned=True)
    made.stage("s", [count()], series, "10s", by="key")
    most = 0

    def look(link: LocalLink) -> None:
        nonlocal most
        if link.shard is not None:
            most = max(most, link.shard.kept)

    with local_shards(LocalTransport(on_answer=look)):
        assert sum(dict(d[count()])["a"] for _, d in made.replay_sharded(1)) == 2000
    # A minute of them, those of a window in hand, and those that are read ahead.
    assert 60 < most < 150


def test_a_shard_keeps_the_rows_before_its_first_window_until_it_is_told_of_them() -> None:
    made, series = Pipeline("p"), trades()
    rows = [(1020 + at, {"price": 1.0, "key": "a"}) for at in range(300)]
    made.source(Parts([Part(rows, 1)]), series, partitioned=True)
    made.stage("s", [count()], series, "4m", by="key")  # most have passed out before it ends
    expected = told(made.replay())
    with local_shards():
        assert told(made.replay_sharded(1)) == expected
    assert dict(next(iter(made.replay()))[1][count()]) == {"a": 61}


# What is refused, and what goes wrong


def parts_of(*keys: str, rows: int = 20, bad: int | None = None) -> Parts:
    return Parts(
        [Part([(1000 + at, {"price": 1.0, "key": k}) for at in range(rows)], 4, bad) for k in keys]
    )


def declared(source: Any = None, **options: Any) -> tuple[Pipeline, TimeSeries]:
    made, series = Pipeline("p"), trades()
    made.source(source or parts_of("a", "b"), series, partitioned=True, name="trades", **options)
    made.stage("keyed", [count()], series, "10s", by="key")
    return made, series


def refused(cure: str, made: Pipeline) -> str:
    messages: set[str] = set()
    with local_shards() as transport:
        for run in (made.run_sharded, made.replay_sharded):
            with pytest.raises(ConfigError, match=re.escape(cure)) as raised:
                run(2)
            messages.add(str(raised.value))
    assert not transport.links
    (message,) = messages
    return message


@task
def rows_of_all(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


def ignore(data: object, row: object) -> None:
    pass


def test_who_would_need_rows_of_all_shards_is_refused_by_name() -> None:
    made, series = declared()
    made.stage("all", [rows_of_all], series, "10s")
    assert "'all'" in refused("give the stage by='key'", made)
    assert len(list(made.replay())) == 4  # in one process it can be run
    made, series = declared()
    other = trades()
    made.source([(1000, {"price": 1.0, "key": "a"})], other)
    made.stage("both", [both], (series, other), "10s", by="key")
    assert "'both'" in refused("let one stage read one of them", made)
    made, series = declared()
    made.source([(1000, {"price": 1.0, "key": "a"})], series, name="beside")
    assert "'beside'" in refused("give the others another one", made)
    made, series = declared()
    made.stage("keyed too", [mean("price").named("price")], series, "10s", by="key").into(
        series, ignore
    )
    assert "'keyed too'" in refused("give the others another one", made)


@task
def both(views: tuple[TimeSeriesView, TimeSeriesView], start: int, end: int) -> int:
    return 1


def test_fewer_partitions_than_shards_are_told(caplog: pytest.LogCaptureFixture) -> None:
    made, _ = declared(parts_of("a", "b"))
    with local_shards():
        assert len(list(made.replay_sharded(2))) == 2
        assert not caplog.records
        assert len(list(made.replay_sharded(3))) == 2
    told = [r.getMessage() for r in caplog.records]
    expected = "Parts(): 2 partitions: fewer than the 3 shards, of which 1 has nothing to read"
    assert told[0] == f"{expected} of it: give 2 at most"


class Unsendable(Part):
    def __reduce__(self) -> Any:
        raise TypeError("it has a connection")


def test_what_cannot_be_partitioned_is_refused_by_name() -> None:
    series = trades()
    source = parts_of("a")

    def refuses(cure: str, source: Any, into: Any = series, **options: Any) -> None:
        with pytest.raises(ConfigError, match=re.escape(cure)) as raised:
            Pipeline("p").source(source, into, name="trades", partitioned=True, **options)
        assert "'trades'" in str(raised.value)

    refuses("a folder of files, or one with partitions()", [(1000, {"price": 1.0, "key": "a"})])
    refuses("(1000, {'key': 'a'}), ...] has no partitions", [(1000, {"key": "a"})] * 1000)
    refuses("has no partition", Parts([]))
    yes: Any = "yes"
    with pytest.raises(ConfigError, match=r"'trades': partitioned='yes': it is True or False"):
        Pipeline("p").source(source, series, name="trades", partitioned=yes)
    keyless = TimeSeries({"price": float, "key": str}, TimeUnit.SECONDS)
    refuses("make it with the key", source, keyless)
    refuses("make it with the key", source, (series, trades()))
    refuses("leave ingest= out", source, series, ingest=ignore)
    refuses("journal=", source, journal="somewhere")
    refuses("retry=", source, retry=Retry())
    refuses("dedupe=", source, dedupe="price")
    refuses("dead_letters=", source, dead_letters="somewhere")

    made, _ = declared(Parts([Unsendable([(1000, {"price": 1.0, "key": "a"})])]))
    message = refused("whose partitions can be pickled", made)
    assert "'part-0' cannot be sent" in message
    assert "it has a connection" in message
    assert list(made.replay())


def test_a_series_with_rows_is_refused() -> None:
    made, series = declared()
    series.append(1000, price=1.0, key="a")
    assert "'trades'" in refused("let it begin empty", made)


def with_checkpoint(where: Path, rows: int = 400) -> tuple[Pipeline, RecordingSink]:
    made = Pipeline("p", checkpoint=where, checkpoint_every="10ms")
    parts = [
        Part([(1000 + at, {"price": at / 7, "key": key if at < 30 else f"{key}2"}) for at in times])
        for key, times in (("a", range(rows)), ("b", range(0, rows, 3)))
    ]
    source = paced(Parts(parts), 100, unit=TimeUnit.SECONDS)
    series = trades()
    made.source(source, series, partitioned=True, name="trades")
    config = RunnerConfig(upstream_timeout=60)
    made.stage("keyed", [seen, ema, mean("price"), reach], series, "10s", config, by="key")
    sink = RecordingSink()
    made.sink(sink)
    return made, sink


def test_a_run_goes_on_from_its_checkpoint_with_any_number_of_shards(tmp_path: Path) -> None:
    expected = told(with_checkpoint(tmp_path / "none")[0].replay())
    found: dict[Any, Any] = {}
    for shards in (2, 3, 1):
        made, sink = with_checkpoint(tmp_path / "state")
        with local_shards(), running(made, shards) as run:
            before = len(found)
            if shards == 1:
                run.result(60)
            else:
                eventually(partial(reached, sink, 6))
                made.shutdown()
        found.update((given[1], given[2:]) for given in told(sink.results))
        assert len(found) > before
        assert len(found) < len(expected) or shards == 1
    assert [("keyed", window, *rest) for window, rest in found.items()] == expected


def test_a_checkpoint_of_rows_in_shards_is_for_shards(tmp_path: Path) -> None:
    made, sink = with_checkpoint(tmp_path / "state")
    with local_shards(), running(made):
        eventually(partial(reached, sink, 2))
    made, _ = with_checkpoint(tmp_path / "state")
    with pytest.raises(ConfigError, match=r"were in the shards that read them.*run_sharded"):
        made.run_sync()
    made, sink = with_checkpoint(tmp_path / "other")
    with beside(made.run_sync):
        try:
            eventually(partial(reached, sink, 2))
        finally:
            made.shutdown()
    made, _ = with_checkpoint(tmp_path / "other")
    told = r"now they are to stay in the shards.*run it by run\(\)"
    with local_shards(), pytest.raises(ConfigError, match=told):
        made.run_sharded(2)


def test_a_window_waits_until_it_is_known_where_the_keys_of_an_earlier_run_are() -> None:
    source = PartitionSource("Parts()", "part-0", SourceInfo, b"", b"")
    asking: Any = None
    never, gone = threading.Event(), threading.Event()

    def waits(keys: PartitionKeys, until: Callable[[], object], given_up: threading.Event) -> None:
        with beside(lambda: keys.wait_for({"a", "b"}, given_up)) as wait:
            with pytest.raises(TimeoutError):
                wait.result(0.05)
            until()

    keys = PartitionKeys(trades(), 3)
    first, second = (PartitionOnShards(n, source, keys, asking, 1, WhenAway.END) for n in (1, 2))
    keys.add(["a"], first)
    waits(keys, gone.set, gone)
    waits(keys, lambda: keys.add(["b"], second), never)
    assert [keys.shard_of(key) for key in "ab"] == [1, 2]
    others = PartitionKeys(trades(), 3)
    first, second = (PartitionOnShards(n, source, others, asking, 1, WhenAway.END) for n in (1, 2))
    others.end(first)
    waits(others, lambda: others.end(second), never)  # it is a key that there is no more


@pytest.mark.parametrize("shards", [None, 2])
def test_a_key_of_two_partitions_is_told_by_name(shards: int | None) -> None:
    source = Parts([*parts_of("a", "b").parts, *parts_of("b").parts])
    made, _ = declared(source)
    with local_shards(), pytest.raises(SourceError) as raised:
        list(made.replay() if shards is None else made.replay_sharded(shards))
    assert "key 'b' has rows in 'part-1' and in 'part-2'" in str(raised.value)


def test_a_row_without_a_key_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    rows: list[Row] = [(1000 + at, {"price": 1.0, "key": "a"}) for at in range(9)]
    other: list[Row] = [(1000 + at, {"price": 1.0, "key": "b"}) for at in range(9)]
    rows[6] = other[7] = (1006, {"price": 1.0, "key": ""})
    rows[2] = other[2] = (1002, {"price": 1.0, "key": np.array([1, 2])})  # these are no keys
    other[3] = (1003, {"price": 1.0, "key": ["b"]})
    expected: list[Any] = []
    for shards in (None, 2):
        made, _ = declared(Parts([Part(rows), Part(other)]))
        with local_shards():
            found = told(made.replay() if shards is None else made.replay_sharded(shards))
        expected = expected or [*found]
        assert [*found] == expected
        assert (made.stats.sources["trades"].malformed, made.stats.sources["trades"].stored) == (
            *(5, 13),
        )
        assert "column 'key': the row of timestamp 1006 has no key" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("shards", [None, 2])
def test_a_row_without_a_key_is_fatal_where_that_was_said(shards: int | None) -> None:
    rows: list[Row] = [(1000 + at, {"price": 1.0, "key": "a"}) for at in range(40)]
    rows[30] = (1030, {"price": 1.0, "key": ""})
    made, _ = declared(Parts([Part(rows)]), on_bad_row=OnFault.RAISE)
    found: list[Any] = []
    with local_shards(), pytest.raises(SourceError, match="1030 has no key"):
        found.extend(made.replay() if shards is None else made.replay_sharded(shards))
    assert len(found) == 2


@pytest.mark.parametrize("shards", [None, 2])
def test_a_key_that_comes_later_in_another_partition_ends_a_run(shards: int | None) -> None:
    rows: list[Row] = [(1000 + at, {"price": 1.0, "key": "a"}) for at in range(40)]
    other: list[Row] = [(1000 + at, {"price": 1.0, "key": "b"}) for at in range(40)]
    other[30] = (1030, {"price": 1.0, "key": "a"})
    made, _ = declared(paced(Parts([Part(rows), Part(other)]), 1e9, unit=TimeUnit.SECONDS))
    with local_shards(), pytest.raises(ExceptionGroup) as group:
        made.run_sync() if shards is None else made.run_sharded(shards)
    assert group.group_contains(SourceError, match="key 'a' has rows in")


def test_what_a_partition_raises_comes_home() -> None:
    source = Parts([*parts_of("a").parts, *parts_of("b", bad=8).parts])
    with pytest.raises(SourceError, match="that cannot be read") as expected:
        list(declared(source)[0].replay())
    made, _ = declared(source)
    with local_shards(), pytest.raises(SourceError, match="that cannot be read") as raised:
        list(made.replay_sharded(2))
    assert str(raised.value) == str(expected.value)
    assert "in its shard" in "".join(raised.value.__notes__)


def test_a_row_that_does_not_fit_is_fatal_where_that_was_said() -> None:
    rows: list[Row] = [(1000 + at, {"price": 1.0, "key": "a"}) for at in range(9)]
    rows[6] = (1006, {"price": "no number", "key": "a"})
    made, _ = declared(Parts([Part(rows)]), on_bad_row=OnFault.RAISE)
    with local_shards(), pytest.raises(ConfigError, match=r"it cannot be stored: .*no number"):
        list(made.replay_sharded(2))


class Counted(Part):
    """As many rows as a file says."""

    def __init__(self, path: Path) -> None:
        super().__init__([])
        self.path = path

    def batches(self) -> Iterator[Batch]:
        rows = range(int(self.path.read_text()))
        return Part([(1000 + at, {"price": 1.0, "key": "a"}) for at in rows]).batches()


def test_a_partition_that_has_fewer_rows_when_it_is_read_again_is_told(tmp_path: Path) -> None:
    said = tmp_path / "rows"
    said.write_text("40")

    def kill(link: LocalLink) -> None:
        if link.asked == 8 and said.read_text() == "40":
            said.write_text("1")
            link.kill()

    made, _ = declared(Parts([Counted(said)]))
    with local_shards(LocalTransport(kill)), pytest.raises(RunTaskError) as raised:
        list(made.replay_sharded(1))
    assert "part-0: it has 1 rows now, and had more when it was read before" in str(raised.value)


def test_a_partition_that_kills_whoever_reads_it_is_told() -> None:
    transport = LocalTransport(on_call=lambda link: link.kill())
    made, _ = declared(parts_of("a"))
    told = "was lost 3 times while it read on in 'part-0'"
    with local_shards(transport), pytest.raises(SourceError, match=told):
        list(made.replay_sharded(1))


def test_what_is_added_while_it_runs_has_a_series_of_its_own() -> None:
    rows = [(1000 + at, {"price": 1.0, "key": "a"}) for at in range(10_000)]
    made, series = declared(paced(Parts([Part(rows)]), 10, unit=TimeUnit.SECONDS))
    with local_shards(), running(made) as run:
        eventually(lambda: made.stats.sources["trades"].stored > 3)
        with pytest.raises(ConfigError, match="'all' reads"):
            made.stage("all", [rows_of_all], series, "10s")
        added = made.stage("more", [mean("price").named("price")], series, "10s", by="key")
        with pytest.raises(ConfigError, match=r"'more'.*give it another series"):
            added.into(series, ignore)
        with pytest.raises(ConfigError, match="give it another series"):
            made.source([(1000, {"price": 1.0, "key": "a"})], series)
        with pytest.raises(ConfigError, match="declare it before"):
            made.source(parts_of("c"), trades(), partitioned=True)
        # A replay has all rows for itself.
        assert len(list(zip(range(3), made.replay()))) == 3
        made.shutdown()
        run.result(60)


@contextlib.contextmanager
def running(made: Pipeline, shards: int = 2) -> Generator[Future[None]]:
    """A block in which a pipeline runs over shards, and at whose end it ends."""
    with beside(lambda: made.run_sharded(shards)) as run:
        try:
            yield run
        finally:
            made.shutdown()
