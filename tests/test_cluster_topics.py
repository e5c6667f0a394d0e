"""A source in partitions that have no end, which shards read by themselves, gives what it gives in
one process, to the bit: whatever dies meanwhile, and with any number of shards."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from tests import test_broker_kills as broker_kills
from tests.support.bench import RecordingSink
from tests.support.brokers import Kafka, free_port, mock_kafka, new_name
from tests.support.feeds import KafkaFeed
from tests.support.forking import Forking
from tests.support.growing import GrowingFiles
from tests.support.proof import in_proof
from tests.support.shards import LocalLink, LocalTransport, local_shards
from tests.support.stateful import ema, seen
from tests.support.tcp_proxy import proxy
from tests.support.threads import beside, eventually
from tests.support.topics import AWAY, COMMITTED, Topic, TopicPart
from tests.test_cluster import by_stage, told
from tests.test_cluster_kills import shards_of
from tests.test_cluster_partitions import running

from run_task import (
    ConfigError,
    Pipeline,
    RunnerConfig,
    SourceError,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.aggregates import count, mean
from run_task.cluster._bytes import as_bytes
from run_task.cluster._messages import PartitionSetup, ReadRows
from run_task.cluster._reading import PartitionReader
from run_task.sinks import SqlSink
from run_task.sources import Batch, KafkaSource, OnFault, SourceInfo, Stamp, paced
from run_task.sources._partitioned import COMING, NOTHING_YET, LivePartitions

NUMBERS = itertools.count()


def trades() -> TimeSeries:
    return TimeSeries({"price": float, "key": str}, TimeUnit.MILLIS, "2s", key="key")


def pipeline(source: Any, checkpoint: Path | None = None, **options: Any) -> Pipeline:
    made = Pipeline("p", checkpoint=checkpoint, checkpoint_every="20ms")
    series = trades()
    made.source(source, series, name="trades", idle="60s", **options)
    config = RunnerConfig(grace="1s", window="300ms", upstream_timeout=60)
    made.stage("keyed", [seen, ema], series, "100ms", config, by="key")
    means = made.stage("means", [mean("price")], series, "100ms", config, by="key")
    made.stage("all", [rows_of_all], means.series("2s"), "200ms", config)
    made.sink(RecordingSink())
    return made


@task
def rows_of_all(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


def new_topic(count: int = 4) -> Topic:
    return Topic(f"topic-{next(NUMBERS)}", count)


class Publishing:
    """Rows that are published as time goes by, some of them late, malformed, without a key, or such
    as do not fit."""

    def __init__(self, topic: Topic | GrowingFiles) -> None:
        self.topic = topic
        self.rows: list[tuple[int, Mapping[str, Any]]] = []
        self.malformed = self.unfit = 0
        self._chance = random.Random(1)

    def begin(self, made: Pipeline) -> None:
        """Wait until a run has begun: what is published before is not in its windows."""
        self.topic.put(0, None)
        self.malformed += 1
        eventually(lambda: made.stats.sources["trades"].malformed, 60)

    def publish(self, seconds: float) -> None:
        """Publish for so long."""
        until = time.monotonic() + seconds
        chance = self._chance
        while time.monotonic() < until:
            for _ in range(5):
                number = chance.randrange(self.topic.count - 1)  # the last stays empty
                price: Any = "no number" if chance.random() < 0.03 else chance.random()
                late = chance.choice([0, 0, 0, 40, 200])
                stamp = time.time_ns() // 1_000_000 - late
                row = stamp, {"price": price, "key": f"key-{number}-{chance.randrange(3)}"}
                if chance.random() < 0.03:
                    self.malformed += 1
                    keyless = stamp, {"price": 1.0, "key": ""}
                    self.topic.put(number, chance.choice([None, keyless]))
                else:
                    self.topic.put(number, row)
                    self.rows.append(row)
                    self.unfit += isinstance(price, str)
            time.sleep(0.005)


def recorded(made: Pipeline) -> RecordingSink:
    (sink,) = {sink for stage in made.stages for sink in stage.sinks}
    assert isinstance(sink, RecordingSink)
    return sink


def windows_until(found: Sequence[Any], rows: Sequence[tuple[int, Any]]) -> list[Any]:
    """What was given, up to the last window that has rows and none that is still to come."""
    last = max(time for time, _ in rows) - 300
    return [given for given in found if given[1].end <= last]


def past_the_last(made: Pipeline, published: Publishing) -> Callable[[], bool]:
    last = max(time for time, _ in published.rows)
    sink = recorded(made)
    return lambda: any(d.window.end > last + 400 and s == "all" for s, d in sink.results)


def expected_of(published: Publishing) -> list[Any]:
    made = pipeline(published.rows)
    return [*told(made.replay())]


@pytest.mark.parametrize("deaths", [0, 12])
def test_shards_read_what_has_no_end_and_again_what_they_had_when_they_die(deaths: int) -> None:
    topic = new_topic()
    published = Publishing(topic)
    chance = random.Random(deaths)
    calls = itertools.count()
    at = {chance.randrange(20, 600) for _ in range(deaths)}

    def kill(link: LocalLink) -> None:
        if next(calls) in at:
            link.kill()

    made = pipeline(topic, partitioned=True)
    never = mock.patch("run_task.cluster._cluster._TRIES", 1000)
    with local_shards(LocalTransport(kill)), never, running(made, 3) as run:
        published.begin(made)
        published.publish(2.0)
        eventually(past_the_last(made, published), 60)
        made.shutdown()
        run.result(60)
    expected = by_stage(windows_until(expected_of(published), published.rows))
    found = by_stage(windows_until(told(recorded(made).results), published.rows))
    first = {stage: given[0][0] for stage, given in expected.items()}
    found = {
        stage: [one for one in given if one[0] >= first[stage]] for stage, given in found.items()
    }
    assert found == expected
    counts = made.stats.sources["trades"]
    assert counts.malformed == published.malformed + published.unfit
    assert counts.received == len(published.rows) + published.malformed
    assert counts.late == 0
    assert sum(one.restarts for one in made.stats.shards.values()) <= deaths


class ThreadedLink(LocalLink):
    """A shard in a thread of its own, so that one which waits for rows holds up nobody."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._pool = ThreadPoolExecutor(1)

    def call(self, request: Any) -> Any:
        return self._pool.submit(lambda: super(ThreadedLink, self).call(request).result())

    def end(self) -> None:
        self._pool.submit(super().end).result()

    kill = end

    def close(self) -> None:
        self._pool.shutdown()


def test_a_shard_that_comes_back_while_the_broker_is_away_is_away_until_it_has_read_again() -> None:
    topic, transport, sink = new_topic(2), LocalTransport(), RecordingSink()
    made, series = Pipeline("p"), trades()
    made.source(topic, series, name="trades", idle="0.1s", partitioned=True)
    config = RunnerConfig(grace="200ms", upstream_timeout=0.3)
    made.stage("s", [count()], series, "100ms", config, by="key").sink(sink)

    def put(ahead: int = 1) -> None:
        """Rows for the window that is now, and for those to come."""
        now = time.time_ns() // 1_000_000
        for number in range(2):
            key = {"price": 1.0, "key": f"key-{number}"}
            topic.put(number, *[(now + 100 * step, key) for step in range(ahead)])

    def is_whole(since: int) -> bool:
        put()
        found: list[Any] = sink.of("s")[since:]
        return any(not one.behind and len(one.keys_of_rows) == 2 for one in found)

    link = mock.patch("tests.support.shards.LocalLink", ThreadedLink)
    with link, local_shards(transport), running(made, 2) as run:
        eventually(lambda: is_whole(0), 60, every=0.02)
        eventually(lambda: made.stats.shards["shard 1 of 2"].keys, 60)
        put(100)
        eventually(lambda: made.stats.sources["trades"].received == topic.rows, 60)
        AWAY.add(topic.name)
        try:
            transport.links[1].kill()
            eventually(lambda: any(d.behind == ("shard 1 of 2",) for d in sink.of("s")), 60)
            assert not made.stats.shards["shard 1 of 2"].is_running
        finally:
            AWAY.discard(topic.name)
        eventually(lambda: made.stats.shards["shard 1 of 2"].is_running, 60)
        before = len(sink.of("s"))
        eventually(lambda: is_whole(before), 60, every=0.02)
        made.shutdown()
        run.result(60)
    for one in transport.links:
        assert isinstance(one, ThreadedLink)
        one.close()


def test_a_run_goes_on_from_its_checkpoint_with_any_number_of_shards(tmp_path: Path) -> None:
    topic = new_topic()
    published = Publishing(topic)
    found: dict[Any, Any] = {}
    for number, shards in enumerate((2, 3, 1, 2)):
        made = pipeline(topic, tmp_path / "state", partitioned=True)
        with local_shards(), beside(partial(made.run_sharded, shards)) as run:
            published.begin(made)
            published.publish(0.7)
            if number == 3:
                eventually(past_the_last(made, published), 60)
            made.shutdown()
            run.result(60)
        given = [(stage, *rest) for stage, *rest in told(recorded(made).results)]
        found.update(((stage, window), rest) for stage, window, *rest in given)
        if number < 3:
            published.publish(0.2)  # while nobody is there
    expected = {
        (stage, window): rest
        for stage, window, *rest in windows_until(expected_of(published), published.rows)
    }
    first = min(window for _, window in expected)
    last = max(window for _, window in expected)
    assert {at: rest for at, rest in found.items() if first <= at[1] <= last} == expected
    assert all(COMMITTED[topic.name, part] for part in range(3))


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def test_after_kills_shards_that_read_a_topic_give_what_one_process_gives(tmp_path: Path) -> None:
    pytest.importorskip("confluent_kafka")
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    where, shards = tmp_path / "killed", itertools.cycle((2, 3, 1))
    where.mkdir()
    each = in_proof(15, short=3)
    with (
        mock_kafka() as address,
        proxy(*_place(address), advertised=True) as between,
        Forking("divided") as program,
    ):
        feed = KafkaFeed(address)
        published = broker_kills.Published(feed, chance, repeats=False)
        assert program.line() == "ready\n"
        program.start("kafka", between.port, feed.name, where, next(shards))
        try:
            broker_kills.until(lambda: broker_kills.last_number(where / "state"))
            before = broker_kills.last_number(where / "state")
            publish_until = time.monotonic() + 1.0
            events: list[Any] = [between.stall, between.cut, *["driver", "shard"] * each]
            chance.shuffle(events)
            while events or time.monotonic() < publish_until:
                published.publish(2_000)
                time.sleep(0.005)
                if time.monotonic() > publish_until - 0.3:
                    between.resume()
                number = broker_kills.last_number(where / "state")
                if not events or number <= before + 3 or time.monotonic() < publish_until:
                    continue
                publish_until = time.monotonic() + chance.random()
                event = events.pop()
                if event == "shard":
                    with contextlib.suppress(ProcessLookupError, IndexError):
                        os.kill(chance.choice(shards_of(program.pid)), signal.SIGKILL)
                elif event != "driver":
                    event()  # the network is silent, or cut
                    publish_until += 0.7
                else:
                    program.kill()
                    program.reap()
                    before = number
                    program.start("kafka", between.port, feed.name, where, next(shards))
            published.say_the_last(where / "last")
            broker_kills.until((where / "ended").exists)
        finally:
            if not (where / "ended").exists():
                program.kill()
            lines = program.reap()
        assert "failed\n" not in lines, f"seed {seed}"
        program.finish()
    rows = broker_kills.rows_of(published)
    replayed = broker_kills.replayed("kafka", rows, tmp_path / "undisturbed", None)
    got, expected = broker_kills.whole(broker_kills.results(where / "results.db"), replayed)
    assert got == expected, f"seed {seed}"


# What is refused, and what goes wrong


def declared(source: Any, where: Path | None = None) -> tuple[Pipeline, TimeSeries]:
    made, series = Pipeline("p", checkpoint=where, checkpoint_every="10ms"), trades()
    made.source(source, series, partitioned=True, name="trades")
    made.stage("keyed", [count()], series, "100ms", by="key")
    return made, series


def has_rows(made: Pipeline) -> bool:
    return made.stats.sources["trades"].stored > 0


def now() -> int:
    return time.time_ns() // 1_000_000


def test_a_key_that_comes_in_two_partitions_ends_the_run_by_name() -> None:
    topic = new_topic(2)
    made, _ = declared(topic)
    with local_shards(), pytest.raises(ExceptionGroup) as group, beside(lambda: None):
        topic.put(0, (now(), {"price": 1.0, "key": "a"}))
        topic.put(1, (now(), {"price": 1.0, "key": "a"}))
        made.run_sharded(2)
    assert group.group_contains(SourceError, match="key 'a' has rows in 'part-")


def test_a_stage_without_keys_is_refused_by_name() -> None:
    made, series = declared(new_topic())
    made.stage("all rows", [rows_of_all], series, "100ms")
    with local_shards(), pytest.raises(ConfigError, match=r"'all rows' reads.*give the stage by="):
        made.run_sharded(2)


def test_what_a_partition_raises_comes_home() -> None:
    topic = new_topic(2)
    topic.put(0, (now(), {"price": 1.0, "key": "a"}))
    made, _ = declared(topic)
    with (
        local_shards(),
        mock.patch.object(TopicPart, "seek", side_effect=SourceError("it", None, None, "is lost")),
        pytest.raises(ExceptionGroup) as group,
    ):
        made.run_sharded(2)
    assert group.group_contains(SourceError, match="is lost")


def test_what_cannot_be_computed_again_is_told_with_a_cure_that_there_is(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    made = Pipeline("p").source(new_topic(2), series := trades(), partitioned=True)
    stage = made.stage("counts", [count()], series, "100ms", by="key")
    stage.sink(SqlSink(tmp_path / "p.db"), sharded=True)
    told = r"cannot be read again: compute these windows of a copy of its rows"
    with pytest.raises(ConfigError, match=told):
        made.recompute(stage, 0, 1000)


class Endless(TopicPart):
    """One without positions."""

    seek: Any = None


def test_partitions_without_an_end_have_positions() -> None:
    topic = new_topic(1)
    made, _ = declared(topic)
    with (
        local_shards(),
        mock.patch.object(Topic, "partitions", return_value={"it": Endless(topic.name, 0)}),
        pytest.raises(ConfigError, match=r"'it' has neither an end nor positions"),
    ):
        made.run_sharded(1)


def test_a_checkpoint_is_for_the_partitions_that_there_were(tmp_path: Path) -> None:
    def of(topic: Topic, before: Topic | None = None) -> Pipeline:
        made = Pipeline("p", checkpoint=tmp_path / "state", checkpoint_every="10ms")
        for name, source in (("before", before), ("trades", topic)):
            if source is not None:
                series = trades()
                made.source(source, series, partitioned=True, name=name)
                made.stage(f"of {name}", [count()], series, "100ms", by="key")
        return made

    topic = new_topic(2)
    for _ in range(2):
        made = of(topic)
        with local_shards(), running(made):
            topic.put(0, (now(), {"price": 1.0, "key": "a"}))
            eventually(partial(has_rows, made))
    others = "partitions are part-0, part-1, part-2, and were part-0, part-1 when"
    with local_shards(), pytest.raises(SourceError, match=others):
        of(new_topic(3)).run_sharded(2)
    with local_shards(), pytest.raises(SourceError, match="other partitions before 'part-0'"):
        of(topic, new_topic(1)).run_sharded(2)


def test_one_that_plays_has_an_end_in_each_partition() -> None:
    with pytest.raises(ConfigError, match=r"'part-0' of .* has no end, and others have"):
        Pipeline("p").source(
            paced(new_topic(), 1, unit=TimeUnit.MILLIS), trades(), partitioned=True
        )


class Given:
    """What a partition gives, as a test says it.

    :param batches: what comes: times, or that nothing does
    """

    def __init__(self, *batches: Batch | list[int]) -> None:
        self._batches = batches
        self.lag: int | None = 0
        self.committed: list[Any] = []

    def about(self) -> SourceInfo:
        return SourceInfo(unit=TimeUnit.SECONDS, endless=True)

    def position_before(self, left: int) -> int:
        return left

    def commit(self, position: Any) -> None:
        self.committed.append(position)

    def batches(self) -> Iterator[Batch]:
        for one in self._batches:
            if isinstance(one, Batch):
                yield one
            else:
                yield Batch(np.array(one, np.int64), {"of": np.full(len(one), id(self))})


def test_rows_wait_for_a_partition_that_is_behind_and_for_none_that_has_nothing() -> None:
    behind = Given(COMING, COMING, [3], NOTHING_YET, COMING, [1])
    ahead = Given([1, 2, 4, 5], NOTHING_YET, [6, 7])
    both = LivePartitions("both", {"behind": behind, "ahead": ahead})
    found: list[list[int]] = []
    positions: list[Any] = []
    for batch in both.batches():
        found.append(batch.timestamps.tolist())
        positions.append(both.position)
    # What is out of order comes at the time of the row before it in its partition, and what others
    # were given by then stays where it is.
    assert found == [[1, 2, 3], [4, 5], [1], [6, 7]]
    assert positions[0] == {"behind": 0, "ahead": 2}
    assert both.about().endless


def test_a_partition_that_is_behind_is_waited_for_no_longer_than_it_may(
    caplog: pytest.LogCaptureFixture,
) -> None:
    behind = Given(*[COMING] * 4, [1], COMING, [3])
    ahead = Given([2], NOTHING_YET, NOTHING_YET, [4])
    both = LivePartitions("both", {"behind": behind, "ahead": ahead})
    both.wait_for_streams(0.02)
    assert [batch.timestamps.tolist() for batch in both.batches()] == [[2], [1], [3], [4]]
    (told_of,) = [record.getMessage() for record in caplog.records]
    assert "both: behind is behind, and has given nothing for 0.02 s" in told_of


def test_lags_are_those_of_all_and_commits_reach_all() -> None:
    one, other = Given(), Given()
    both = LivePartitions("both", {"one": one, "other": other})
    one.lag = 3
    assert both.lag == 3
    other.lag = None
    assert both.lag is None
    both.commit({"one": 1, "other": 2})
    assert (one.committed, other.committed) == ([1], [2])


# Kafka


@pytest.fixture(scope="module")
def servers() -> Iterator[str]:
    pytest.importorskip("confluent_kafka")
    with mock_kafka() as address:
        yield address


def test_a_source_of_kafka_has_its_partitions_each_from_where_it_would_begin(servers: str) -> None:
    topic = Kafka(servers)
    topic.raw([b"{}"] * 5, partition=2)
    source = KafkaSource(topic.name, servers=servers, start="latest", key="k")
    parts = {
        name: pickle.loads(pickle.dumps(part)).position
        for name, part in source.partitions().items()
    }
    assert parts == {
        f"{topic.name}/{n}": {f"{topic.name}/{n}": at} for n, at in enumerate((1, 0, 5, 0))
    }
    some = KafkaSource(topic.name, servers=servers, start="earliest", partitions=[2, 0])
    assert [part.position for part in some.partitions().values()] == [
        {f"{topic.name}/0": 0},
        {f"{topic.name}/2": 0},
    ]


def test_a_topic_whose_partitions_are_others_by_now_is_told(servers: str) -> None:
    topic = Kafka(servers)
    topic.raw([b'{"timestamp": 1}'])
    part = KafkaSource(topic.name, servers=servers).partitions()[f"{topic.name}/0"]
    told_of = "has 4 partitions now, and had 3 when shards began"
    with mock.patch.object(part, "_divided_by", 3), pytest.raises(SourceError, match=told_of):
        next(iter(part))


def test_what_of_kafka_cannot_be_read_by_shards_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("confluent_kafka")
    stamped = KafkaSource("t", timestamp=Stamp.ARRIVAL)
    with pytest.raises(ConfigError, match=r"timestamp=Stamp.ARRIVAL: a message that a shard reads"):
        stamped.partitions()
    skipping = KafkaSource("t", on_lost=OnFault.SKIP)
    with pytest.raises(ConfigError, match=r"on_lost=OnFault.SKIP: the driver knows"):
        skipping.partitions()
    for source in (stamped, skipping):  # before anything runs
        with pytest.raises(ConfigError, match=r"partitioned=True, and (timestamp|on_lost)="):
            Pipeline("p").source(source, trades(), partitioned=True)
    nobody = KafkaSource("t", servers=f"127.0.0.1:{free_port()}")
    with (
        mock.patch("run_task.sources.brokers._kafka._ANSWER_TIMEOUT", 0.5),
        pytest.raises(SourceError, match=r"looked up .*refused.*It is not tried again"),
    ):
        nobody.partitions()
    assert "tried again until it is there" not in caplog.text


def test_shards_commit_for_the_group_what_is_in_the_data(servers: str) -> None:
    topic, group = Kafka(servers), new_name()
    source = KafkaSource(topic.name, servers=servers, group=group, start="earliest")
    made, _ = declared(source)
    with local_shards(), running(made):
        eventually(lambda: made.stats.sources["trades"].malformed)
        for part in range(3):
            stamps = [json.dumps({"timestamp": now(), "price": 1, "key": f"k{part}"})] * 10
            topic.raw(map(str.encode, stamps), partition=part)
        eventually(lambda: made.stats.sources["trades"].stored == 30)
    again = KafkaSource(topic.name, servers=servers, group=group, start="earliest")
    at = [part.position for part in again.partitions().values()]
    assert at == [{f"{topic.name}/{n}": end} for n, end in enumerate((11, 10, 10, 0))]


def test_one_process_reads_all_partitions_by_itself(servers: str) -> None:
    topic = Kafka(servers)
    made, _ = declared(KafkaSource(topic.name, servers=servers, start="earliest"))
    with made:
        eventually(lambda: made.stats.sources["trades"].malformed)
        for key in (None, "a"):
            message = {"timestamp": now(), "price": 1, "key": key}
            topic.raw([json.dumps(message).encode()], partition=3)
        eventually(lambda: made.stats.sources["trades"].stored == 1)
        assert made.stats.sources["trades"].malformed == 2


@pytest.mark.parametrize("position", [2, 3])
def test_a_shard_tells_a_malformed_row_if_the_driver_does_not_know_it(position: int) -> None:
    topic = new_topic(1)
    rows: list[Any] = [(at, {"price": 1.0, "key": "a"}) for at in range(3)]
    topic.put(0, *rows[:2], None, rows[2])
    for _ in range(30):  # in other pieces each time
        part, skip = as_bytes(TopicPart(topic.name, 0)), as_bytes(OnFault.SKIP)
        reader = PartitionReader(PartitionSetup(0, "it", part, skip, trades().pattern, 0, 0))
        assert reader.rows(np.array([1, 0])).times.tolist() == [1, 0]
        faults = 0
        asked = ReadRows(0, 2, 0, position)
        while True:
            read = reader.read(asked)
            faults += len(read.faults)
            if len(read.times):
                break
            if read.position is not None:
                asked = asked._replace(position=read.position)
        reader.close()
        assert (read.start, read.times.tolist(), read.position) == (2, [2], 4)
        assert faults == 3 - position
