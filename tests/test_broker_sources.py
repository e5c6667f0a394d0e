"""Sources that read from Kafka, Redis and RabbitMQ: real servers, and a mock cluster for Kafka."""

from __future__ import annotations

import json
import logging
import select
import socket
import time
from collections.abc import Generator, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.brokers import (
    RABBIT,
    REDIS,
    Broker,
    Kafka,
    Rabbit,
    Redis,
    free_port,
    listens,
    mock_kafka,
    new_name,
    own_redis,
    publish,
    reading,
)
from tests.support.proof import in_proof
from tests.support.tcp_proxy import Proxy, proxy
from tests.support.threads import PATIENCE, beside, eventually

from run_task import (
    ConfigError,
    DeadLetter,
    Pipeline,
    SourceError,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.aggregates import count
from run_task.sinks import CallbackSink
from run_task.sources import (
    KafkaKey,
    KafkaSource,
    OnFault,
    Positioned,
    RabbitSource,
    RedisStreamSource,
    Stamp,
    about,
)
from run_task.sources.brokers._stream_merge import StreamMerge

pytest.importorskip("msgspec")

KINDS = ("kafka", "redis", "rabbit")
POSITIONED = ("kafka", "redis")
MODULES = {"kafka": "confluent_kafka", "redis": "redis", "rabbit": "pika"}


@pytest.fixture(scope="module")
def servers() -> Iterator[str]:
    pytest.importorskip("confluent_kafka")
    with mock_kafka() as address:
        yield address


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Generator[Broker]:
    made = a_broker(request.param, request)
    try:
        yield made
    finally:
        made.close()


def a_broker(kind: str, request: pytest.FixtureRequest) -> Broker:
    pytest.importorskip(MODULES[kind])
    if kind == "kafka":
        return Kafka(request.getfixturevalue("servers"))
    port = REDIS if kind == "redis" else RABBIT
    if not listens(port):
        pytest.skip(f"no server for {kind} runs on 127.0.0.1:{port}")
    return Redis() if kind == "redis" else Rabbit()


every = pytest.mark.parametrize("broker", KINDS, indirect=True)
each_positioned = pytest.mark.parametrize("broker", POSITIONED, indirect=True)


@pytest.fixture
def between(broker: Broker) -> Iterator[Proxy]:
    """A proxy before the broker."""
    where = broker.servers if isinstance(broker, Kafka) else broker.where
    host, _, port = where.partition(":")
    with proxy(host, int(port), advertised=isinstance(broker, Kafka)) as made:
        yield made


def told(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


@every
@pytest.mark.parametrize("batched", [False, True])
def test_rows_come_in_order_each_once_with_their_position(broker: Broker, batched: bool) -> None:
    publish(broker, range(2_500))
    source = broker.source()
    assert isinstance(source, Positioned)
    with reading(source, batched=batched) as read:
        read.has(2_500)
        publish(broker, range(2_500, 2_510))
        read.has(2_510)
        eventually(lambda: source.lag == 0)
    assert read.rows == [(number, {"n": number}) for number in range(2_510)]
    assert read.error is None
    info = about(source)
    assert (info.endless, info.unit, info.malformed) == (True, TimeUnit.MILLIS, 0)


@each_positioned
@pytest.mark.parametrize("batched", [False, True])
def test_another_source_goes_on_from_any_position(broker: Broker, batched: bool) -> None:
    rows = [[{"timestamp": 3 * at + k, "n": 0} for k in range(3)] for at in range(20)]
    broker.raw(json.dumps(several).encode() for several in rows)
    with reading(broker.source()) as read:
        read.has(60)
    assert read.numbers() == list(range(60))
    for at in (0, 1, 2, 30, 58):
        other = broker.source()
        other.seek(json.loads(json.dumps(read.positions[at])))
        with reading(other, batched=batched) as rest:
            rest.has(59 - at)
            time.sleep(0.05)
        assert rest.numbers() == list(range(at + 1, 60)), at


@every
@pytest.mark.parametrize("batched", [False, True])
def test_a_message_that_is_no_row_costs_itself(
    broker: Broker, batched: bool, caplog: pytest.LogCaptureFixture
) -> None:
    good = [json.dumps({"timestamp": at, "n": at, "more": None}).encode() for at in range(3)]
    bad = [b"{poison", b'{"timestamp": 1, "n": "text"}', b'{"n": 1}', b"x" * 5_000, None]
    broker.raw([good[0], *bad, good[1], b"\xff", good[2]])
    source = broker.source(columns={"n": int}, largest=4_000)
    with reading(source, batched=batched) as read:
        read.has(3)
    assert read.rows == [(at, {"n": at}) for at in range(3)]
    assert source.malformed == 6
    shown = told(caplog)
    assert "{poison is not JSON" in shown
    assert "column 'n'" in shown
    assert "it has 5,000 bytes, and largest=4,000" in shown
    assert broker.name in shown


def test_a_dead_letter_has_the_message(request: pytest.FixtureRequest) -> None:
    stream = a_broker("redis", request)
    stream.raw([b"{poison", b"\xff", b"x" * 50, b'[{"timestamp": 1, "n": 1}, {"n": 2}]', None])
    letters: list[DeadLetter] = []
    series = TimeSeries({"n": int}, unit=TimeUnit.MILLIS)
    pipeline = Pipeline("p")

    def take(*letter: Any) -> None:
        letters.append(DeadLetter(*letter))

    pipeline.source(stream.source(largest=40), into=series, dead_letters=take)
    pipeline.stage("count", [count()], series, "1s")
    with pipeline:
        eventually(lambda: len(letters) == 5)
    stream.close()
    assert [letter.row for letter in letters] == ["{poison", b"\xff", "x" * 40, {"n": 2}, None]
    assert {letter.reason for letter in letters} == {"malformed"}


@every
def test_where_malformed_messages_are_fatal_one_ends_the_source_after_the_rows_before_it(
    broker: Broker,
) -> None:
    broker.raw([b'{"timestamp": 1}', b"{", b'{"timestamp": 2}'])
    with reading(broker.source(on_malformed=OnFault.RAISE), batched=True) as read:
        error = read.fails()
    assert isinstance(error, SourceError)
    assert read.numbers() == [1]


@every
def test_a_connection_that_is_cut_is_made_again_and_nothing_is_lost_or_doubled(
    broker: Broker, between: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    publish(broker, range(100))
    source = broker.source(where=between.address)
    with reading(source) as read:
        read.has(100)
        if broker.kind == "rabbit":
            source.commit(source.position)  # it has no position but what was acknowledged
        time.sleep(0.3)
        between.cut()
        eventually(lambda: source.lag is None)
        publish(broker, range(100, 200))
        time.sleep(0.2)
        assert len(read.rows) == 100
        between.resume()
        read.has(200)
        eventually(lambda: source.lag == 0)
        time.sleep(0.1)
    assert read.numbers() == list(range(200))
    shown = told(caplog)
    assert "cannot be reached" in shown
    assert between.address in shown


@every
def test_while_the_network_is_gone_no_lag_is_known(broker: Broker, between: Proxy) -> None:
    source = broker.source(where=between.address)
    with reading(source) as read:
        publish(broker, [0])
        read.has(1)
        eventually(lambda: source.lag == 0)
        between.stall()
        began = time.monotonic()
        eventually(lambda: source.lag is None)
        assert time.monotonic() - began < 2.0
        publish(broker, [1])
        between.resume()
        read.has(2)
        eventually(lambda: source.lag == 0)
    assert sorted(set(read.numbers())) == [0, 1]


@every
def test_a_broker_that_is_not_there_is_told_at_once_with_the_cure_and_waited_for(
    broker: Broker, between: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    between.cut()
    source = broker.source(where=between.address)
    with reading(source) as read:
        eventually(lambda: "cannot be reached" in told(caplog))
        shown = told(caplog)
        assert between.address in shown
        assert "there" in shown
        assert source.lag is None
        publish(broker, [1])
        between.resume()
        read.has(1)
    assert read.numbers() == [1]


@every
def test_a_source_that_waits_for_its_broker_is_closed_at_once(broker: Broker) -> None:
    with reading(broker.source(where=f"127.0.0.1:{free_port()}")) as read:
        time.sleep(0.3)
        began = time.monotonic()
        read.close()
    assert time.monotonic() - began < 2.0
    with reading(broker.source()) as idle:
        time.sleep(0.3)
        began = time.monotonic()
        idle.close()
    assert time.monotonic() - began < 2.0


@every
def test_a_source_whose_rows_are_waited_with_does_not_say_that_it_has_caught_up(
    broker: Broker,
) -> None:
    publish(broker, range(3_000))
    source = broker.source()
    batches = source.batches()
    assert len(next(batches)) < 3_000
    assert source.lag != 0
    time.sleep(0.5)  # it cannot know any more
    assert source.lag is None
    assert isinstance(batches, Generator)
    batches.close()


@every
@pytest.mark.parametrize("batched", [False, True])
def test_a_source_has_not_caught_up_while_who_reads_has_its_last_rows(
    broker: Broker, batched: bool
) -> None:
    publish(broker, [1, 2])
    source = broker.source()
    given: Any = source.batches() if batched else iter(source)
    count = 0
    while count < 2:
        item = next(given)
        count += len(item) if batched else 1
    assert source.lag != 0
    given.close()


@every
def test_a_source_that_was_left_in_the_middle_of_a_row_tells_no_lag(broker: Broker) -> None:
    publish(broker, [1, 2])
    source = broker.source()
    rows = iter(source)
    next(rows)
    assert isinstance(rows, Generator)
    rows.close()
    assert source.lag is None


@every
def test_keys_and_stamps_are_the_brokers(broker: Broker) -> None:
    if broker.kind == "rabbit":
        pytest.skip("its publisher sets the time: another test")
    before = time.time_ns() // 1_000_000
    broker.raw([b'{"v": 1}'])
    with reading(broker.source(timestamp=Stamp.BROKER, key="k")) as read:
        read.has(1)
    ((when, row),) = read.rows
    assert before - 1 <= when <= time.time_ns() // 1_000_000
    assert row == {"v": 1, "k": broker.name}


@every
def test_rows_of_a_broker_enter_a_pipeline_and_are_committed(broker: Broker) -> None:
    series = TimeSeries({"n": int}, unit=TimeUnit.MILLIS)

    @task
    def total(view: TimeSeriesView, start: int, end: int) -> int:
        return int(view.in_window["n"].sum())

    now = time.time_ns() // 1_000_000 + 1_500  # no row is late, however slow the machine is
    broker.raw(
        json.dumps({"timestamp": now + at, "n": 1, "bad": 1} if at == 5 else
                   {"timestamp": now + at, "n": 1}).encode()
        for at in range(100)
    )  # fmt: skip
    pipeline = Pipeline("p")
    source = broker.source()
    pipeline.source(source, into=series, name="feed")
    totals: list[int] = []
    stage = pipeline.stage("s", tasks=[total], data=series, interval="100ms")
    stage.sink(CallbackSink(lambda _, dataset: totals.append(dataset["total"])))
    with pipeline:
        eventually(lambda: len(series.view()) == 99)
        eventually(lambda: sum(totals) == 99)
        eventually(lambda: pipeline.stats.sources["feed"].malformed == 1)
        if isinstance(broker, Rabbit):
            time.sleep(1.5)
    if isinstance(broker, Rabbit):
        assert broker.depth() == 0  # acknowledged, the bad one included


# Kafka


def test_kafka_commits_the_offsets_of_its_group_and_goes_on_from_them(servers: str) -> None:
    topic, group = Kafka(servers), new_name()
    publish(topic, range(10))
    source = topic.source(group=group, on_malformed=OnFault.SKIP)
    with reading(source) as read:
        read.has(10)
        source.commit(read.positions[4])
    with reading(topic.source(group=group)) as rest:
        rest.has(5)
        time.sleep(0.1)
    assert rest.numbers() == [5, 6, 7, 8, 9]


def test_kafka_reads_all_partitions_of_several_topics(servers: str) -> None:
    confluent_kafka: Any = pytest.importorskip("confluent_kafka")
    names = [new_name(), new_name()]
    producer = confluent_kafka.Producer({"bootstrap.servers": servers})
    for name in names:
        producer.list_topics(name, timeout=10)
        for at in range(40):
            producer.produce(name, b'{"timestamp": %d}' % at, key=b"K%d" % at, partition=at % 4)
    producer.flush(10)
    source = KafkaSource(
        names, servers=servers, start="earliest", key="k", key_from=KafkaKey.RECORD
    )
    with reading(source) as read:
        read.has(80)
        assert set(source.position) == {f"{name}/{part}" for name in names for part in range(4)}
    assert sorted(read.rows, key=repr) == sorted(
        [(at, {"k": f"K{at}"}) for at in range(40)] * 2, key=repr
    )


def test_kafka_begins_at_the_end_or_at_a_time_or_where_it_is_told(servers: str) -> None:
    topic = Kafka(servers)
    publish(topic, range(5))
    latest = KafkaSource(topic.name, servers=servers)
    with reading(latest) as read:
        eventually(lambda: latest.lag == 0)
        publish(topic, [5])
        read.has(1)
    assert read.numbers() == [5]
    # The mock cluster keeps no index of times: it tells the end, as Kafka does of a time after it.
    timed = KafkaSource(topic.name, servers=servers, start=datetime.now(UTC))
    with reading(timed) as read:
        eventually(lambda: timed.lag == 0)
        publish(topic, [6])
        read.has(1)
    assert read.numbers() == [6]


def test_kafka_is_told_of_topics_and_partitions_that_are_not_there(servers: str) -> None:
    with reading(KafkaSource("nowhere", servers=servers)) as read:
        assert "there is no topic 'nowhere': create it" in str(read.fails())
    topic = Kafka(servers)
    with reading(KafkaSource(topic.name, servers=servers, partitions=[99])) as read:
        assert "has no partition 99: it has those from 0 to" in str(read.fails())


def test_kafka_tells_of_a_topic_that_was_made_anew(
    servers: str, caplog: pytest.LogCaptureFixture
) -> None:
    topic = Kafka(servers)
    publish(topic, [1, 2])
    lost = KafkaSource(topic.name, servers=servers, partitions=[0])
    lost.seek({f"{topic.name}/0": 1_000})
    with reading(lost) as read:
        assert "ends at offset 3, and was read up to 1000" in str(read.fails())
    going_on = KafkaSource(
        topic.name, servers=servers, partitions=[0], on_lost=OnFault.SKIP, columns={"n": int}
    )
    going_on.seek({f"{topic.name}/0": 1_000})
    with reading(going_on) as read:
        read.has(2)
    assert "ends at offset 3" in told(caplog)


def test_kafka_refuses_what_cannot_be(servers: str) -> None:
    with pytest.raises(ConfigError, match=r"config= cannot be: .*no\.such\.setting"):
        KafkaSource("t", config={"no.such.setting": 1})
    with pytest.raises(ConfigError, match="start='first': it is 'earliest', 'latest' or"):
        KafkaSource("t", start="first")
    with pytest.raises(ConfigError, match="names no time zone"):
        KafkaSource("t", start=datetime(2026, 1, 1))  # noqa: DTZ001  on purpose
    with pytest.raises(ConfigError, match="name one or several"):
        KafkaSource([])
    wrong: Any = "topic"
    with pytest.raises(ConfigError, match="key_from='topic': it is a KafkaKey"):
        KafkaSource("t", key_from=wrong)


def test_kafka_with_a_password_that_is_refused_is_not_tried_again(
    servers: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = KafkaSource("t", servers=servers, username="me", password="sEcret")
    # The mock cluster knows no passwords: so what librdkafka tells of a wrong one is put here.
    confluent_kafka: Any = pytest.importorskip("confluent_kafka")
    made = source._make  # pyright: ignore[reportPrivateUsage]  as just said
    wrong = confluent_kafka.KafkaError(
        confluent_kafka.KafkaError._AUTHENTICATION, "SASL authentication error: sEcret is wrong"
    )

    def make() -> Any:
        consumer = made()
        source._note(wrong)  # pyright: ignore[reportPrivateUsage]  as just said
        return consumer

    source._make = make  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]
    with reading(source) as read:
        error = read.fails()
    assert isinstance(error, SourceError)
    assert "is not tried again" in str(error).lower()
    assert "sEcret" not in told(caplog) + repr(source) + str(error)


# Redis


def test_redis_goes_on_after_a_restart_of_the_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("redis")
    with own_redis(tmp_path) as server:
        stream = Redis(server.port)
        publish(stream, range(50))
        with reading(stream.source()) as read:
            read.has(50)
            server.kill()
            eventually(lambda: read.source.lag is None)
            server.start()
            publish(stream, range(50, 80))
            read.has(80)
        assert read.numbers() == list(range(80))
    assert "is there again, after" in told(caplog)


def test_redis_with_a_wrong_password_is_not_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("redis")
    with own_redis(tmp_path, "--requirepass", "rightOne") as server:
        stream = Redis(server.port, "rightOne")
        publish(stream, [1])
        file = tmp_path / "password"
        file.write_text("rightOne\n")
        with reading(stream.source(password_file=file)) as read:
            read.has(1)
        by_url = f":rightOne@127.0.0.1:{server.port}"
        with reading(stream.source(where=by_url)) as read:
            read.has(1)
        assert "rightOne" not in repr(read.source)
        for source in (
            stream.source(password="wrOngOne"),
            stream.source(where=f":wrOngOne@127.0.0.1:{server.port}"),
            stream.source(),
        ):
            with reading(source) as read:
                error = read.fails()
            assert isinstance(error, SourceError)
            assert "is not tried again: give username= and password=" in str(error)
            assert "wrOngOne" not in f"{error!r}{source!r}{told(caplog)}"


def test_redis_waits_for_a_stream_that_is_not_there_yet(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    stream = a_broker("redis", request)
    source = stream.source(start="latest")
    with reading(source) as read:
        eventually(lambda: "there is no stream" in told(caplog))
        eventually(lambda: source.lag == 0)
        publish(stream, [1])
        read.has(1)
    stream.close()


def test_redis_tells_of_entries_that_were_trimmed_before_they_were_read(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    stream = a_broker("redis", request)
    assert isinstance(stream, Redis)
    publish(stream, range(10))
    with reading(stream.source()) as read:
        read.has(10)
    kept, gone = stream.source(), stream.source()
    kept.seek(read.positions[4])
    gone.seek(read.positions[4])
    stream.client.xtrim(stream.name, maxlen=6, approximate=False)
    with reading(kept) as rest:  # what is gone had been read, all but the last of it
        rest.has(5)
    assert rest.numbers() == [5, 6, 7, 8, 9]
    stream.client.xtrim(stream.name, maxlen=2, approximate=False)
    with reading(gone) as rest:
        error = str(rest.fails())
    assert "was trimmed: entries after" in error
    assert "on_lost=OnFault.SKIP" in error
    going_on = stream.source(on_lost=OnFault.SKIP)
    going_on.seek(read.positions[4])
    with reading(going_on) as rest:
        rest.has(2)
    assert rest.numbers() == [8, 9]
    assert "was trimmed" in told(caplog)
    stream.close()


def test_redis_begins_where_it_is_told(request: pytest.FixtureRequest) -> None:
    stream = a_broker("redis", request)
    assert isinstance(stream, Redis)
    for at in range(1, 6):
        stream.client.xadd(stream.name, {"data": b'{"timestamp": %d}' % at}, id=f"{at * 1000}-0")
    begin = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=3)
    for start, expected in ((begin, [3, 4, 5]), ("3000-0", [4, 5]), ("earliest", [1, 2, 3, 4, 5])):
        with reading(stream.source(start=start)) as read:
            read.has(len(expected))
        assert read.numbers() == expected
    stream.close()


def test_redis_entries_may_be_rows_of_texts_and_several_streams(
    request: pytest.FixtureRequest,
) -> None:
    one, other = a_broker("redis", request), a_broker("redis", request)
    assert isinstance(one, Redis)
    assert isinstance(other, Redis)
    one.client.xadd(one.name, {"timestamp": "1", "side": "buy"})
    other.client.xadd(other.name, {"timestamp": "2", "side": "sell"})
    source = RedisStreamSource(
        [one.name, other.name], "redis://127.0.0.1", field=None, start="earliest", key="stream"
    )
    with reading(source) as read:
        read.has(2)
        assert set(source.position) == {one.name, other.name}
    assert sorted(read.rows) == [
        (1, {"side": "buy", "stream": one.name}),
        (2, {"side": "sell", "stream": other.name}),
    ]
    one.close()
    other.close()


def test_redis_refuses_what_cannot_be(request: pytest.FixtureRequest) -> None:
    pytest.importorskip("redis")
    with pytest.raises(ConfigError, match="it is no URL of Redis"):
        RedisStreamSource("s", "http://localhost")
    with pytest.raises(ConfigError, match="start='first': it is 'latest', 'earliest', the id"):
        RedisStreamSource("s", start="first")
    with pytest.raises(ConfigError, match="name one or several"):
        RedisStreamSource([])
    stream = a_broker("redis", request)
    assert isinstance(stream, Redis)
    stream.client.set(stream.name, "no stream")
    with reading(stream.source()) as read:
        assert "WRONGTYPE" in str(read.fails())
    stream.close()


# RabbitMQ


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> Iterator[Rabbit]:
    made = a_broker("rabbit", request)
    assert isinstance(made, Rabbit)
    yield made
    made.close()


def test_rabbit_gives_again_what_was_not_committed(queue: Rabbit) -> None:
    publish(queue, range(10))
    source = queue.source()
    with reading(source) as read:
        read.has(10)
        source.commit(read.positions[6])
    assert queue.depth() == 3
    with reading(queue.source()) as rest:
        rest.has(3)
    assert rest.numbers() == [7, 8, 9]


def test_rabbit_is_not_told_by_a_commit_of_an_earlier_run_what_this_one_has_yet_to_keep(
    queue: Rabbit,
) -> None:
    first = queue.source()
    with reading(first) as read:
        publish(queue, range(10))
        read.has(10)
        kept = read.positions[6]
        first.commit(kept)
    later = queue.source()
    later.seek(kept)
    with reading(later) as read:
        read.has(3)
        later.commit(kept)  # as a checkpoint does that is made before a row has come
        publish(queue, [10])
        read.has(4)
        assert read.positions[0] > kept
    assert queue.depth() == 4
    with reading(queue.source()) as rest:
        rest.has(4)
    assert rest.numbers() == [7, 8, 9, 10]


def test_rabbit_acknowledges_a_poison_message_so_that_it_does_not_come_again(queue: Rabbit) -> None:
    queue.raw([b"{poison"] * 50)
    source = queue.source(prefetch=10)
    with reading(source) as read:
        eventually(lambda: source.malformed == 50)
        time.sleep(0.3)
        assert read.rows == []
    assert queue.depth() == 0


def test_rabbit_has_as_many_messages_under_way_as_it_is_told(queue: Rabbit) -> None:
    publish(queue, range(30))
    source = queue.source(prefetch=10)
    with reading(source) as read:
        read.has(10)
        time.sleep(0.3)
        assert len(read.rows) == 10
        assert source.lag == 20
        source.commit(source.position)
        read.has(20)
    assert read.numbers() == list(range(20))


def test_rabbit_gives_no_message_twice_whose_id_it_knows_when_it_connects_again(
    queue: Rabbit,
) -> None:
    messages = [b'{"timestamp": %d}' % at for at in range(20)]
    queue.raw(messages, [f"id-{at}" for at in range(20)])
    with proxy("127.0.0.1", RABBIT) as between:
        source = queue.source(where=between.address)
        with reading(source) as read:
            read.has(20)
            between.cut()
            eventually(lambda: source.lag is None)
            between.resume()
            queue.raw([b'{"timestamp": 20}'], ["id-20"])
            read.has(21)
            assert read.numbers() == list(range(21))
            source.commit(source.position)
    assert queue.depth() == 0


@pytest.mark.parametrize("_", range(in_proof(60, short=3)))
def test_rabbit_has_caught_up_once_it_has_what_a_consumer_had_that_is_gone(
    queue: Rabbit, _: int
) -> None:
    queue.raw([b'{"timestamp": %d}' % at for at in range(3_000)])
    first, second = queue.source(), queue.source()
    with reading(first, batched=True) as before:
        before.has(3_000)
        with reading(second, batched=True) as read:
            eventually(lambda: second.lag == 1)  # it may be that another has messages
            first.close()
            deadline = time.monotonic() + 20
            while second.lag != 0 and time.monotonic() < deadline:
                pass  # it is for a moment only that it could be wrong
            assert len(read.rows) == 3_000


@pytest.mark.parametrize("batched", [False, True])
def test_rabbit_gives_what_a_consumer_had_that_is_gone_before_what_is_later(
    queue: Rabbit, batched: bool
) -> None:
    queue.raw([b'{"timestamp": %d}' % at for at in range(2_000)])
    first, second = queue.source(), queue.source()
    with reading(first, batched=True) as before:
        before.has(2_000)
        with reading(second, batched=batched) as read:
            eventually(lambda: second.lag == 1)
            queue.raw([b'{"timestamp": %d}' % at for at in range(2_000, 2_100)])
            eventually(lambda: (second.lag or 0) > 1)  # some of them came here
            first.close()
            read.has(2_100)
            assert read.numbers() == list(range(2_100))


def test_rabbit_with_wrong_credentials_or_without_the_queue_is_not_tried_again(
    queue: Rabbit, caplog: pytest.LogCaptureFixture
) -> None:
    for source in (
        queue.source(username="guest", password="wrOngOne"),
        queue.source(where=f"guest:wrOngOne@127.0.0.1:{RABBIT}"),
    ):
        with reading(source) as read:
            error = read.fails()
        assert isinstance(error, SourceError)
        assert "is not tried again: give username= and password=" in str(error)
        assert "wrOngOne" not in f"{error!r}{source!r}{told(caplog)}"
    absent = RabbitSource(new_name(), f"amqp://127.0.0.1:{RABBIT}/")
    with reading(absent) as read:
        assert "there is no queue" in str(read.fails())
    no_vhost = RabbitSource("q", f"amqp://127.0.0.1:{RABBIT}/nowhere")
    with reading(no_vhost) as read:
        assert "is not tried again" in str(read.fails())


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_rabbit_whose_connection_is_cut_while_it_is_opened_is_tried_again(
    queue: Rabbit, frames: int
) -> None:
    queue.raw([b'{"timestamp": 1}'])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)

        def serve() -> None:
            for most in (frames, float("inf")):
                client, _ = listener.accept()
                with client, socket.create_connection(("127.0.0.1", RABBIT)) as server:
                    hand_on(client, server, most)

        source = queue.source(where=f"127.0.0.1:{listener.getsockname()[1]}")
        with beside(serve), reading(source) as read:
            read.has(1)


def hand_on(client: socket.socket, server: socket.socket, frames: float) -> None:
    """Hand on what comes, until one of them ends or the client has so many frames of AMQP."""
    came = b""
    while frames > 0:
        readable, _, _ = select.select([client, server], [], [])
        for one in readable:
            data = one.recv(1 << 16)
            if not data:
                return
            if one is client:
                server.sendall(data)
                continue
            came += data
            while frames > 0 and len(came) > 7 and len(came) >= 8 + int.from_bytes(came[3:7]):
                size = 8 + int.from_bytes(came[3:7])
                client.sendall(came[:size])
                came = came[size:]
                frames -= 1


def test_rabbit_that_says_nothing_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pika: Any = pytest.importorskip("pika")
    monkeypatch.setattr(pika.connection.Parameters, "DEFAULT_STACK_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = RabbitSource("q", f"amqp://127.0.0.1:{silent.getsockname()[1]}/")
        with reading(source) as read:
            eventually(lambda: "AMQPConnectorStackTimeout" in told(caplog))
            time.sleep(0.1)
            assert read.error is None


def test_rabbit_declares_a_queue_if_it_is_told_to() -> None:
    pytest.importorskip("pika")
    if not listens(RABBIT):
        pytest.skip("no RabbitMQ runs here")
    queue = Rabbit()
    queue.close()
    source = RabbitSource(queue.name, declare={"durable": True})
    with reading(source) as read:
        eventually(lambda: source.lag == 0)
        publish(queue, [1])
        read.has(1)
    queue.close()


def test_rabbit_stamps_rows_with_the_time_that_their_publisher_has_set(queue: Rabbit) -> None:
    pika: Any = pytest.importorskip("pika")
    properties = pika.BasicProperties(timestamp=1_700_000_000)
    queue._do(  # pyright: ignore[reportPrivateUsage]  a message as no other test has
        lambda channel: channel.basic_publish("", queue.name, b'{"v": 1}', properties)
    )
    with reading(queue.source(timestamp=Stamp.BROKER, key="k")) as read:
        read.has(1)
    assert read.rows == [(1_700_000_000_000, {"v": 1, "k": queue.name})]


def test_rabbit_refuses_what_cannot_be() -> None:
    pytest.importorskip("pika")
    with pytest.raises(ConfigError, match="it is no URL of RabbitMQ"):
        RabbitSource("q", "http://localhost")
    with pytest.raises(ConfigError, match="prefetch=0: it is an int from 1 to 65,535"):
        RabbitSource("q", prefetch=0)
    with pytest.raises(ConfigError, match="queue='': it is the name of a queue"):
        RabbitSource("")


def test_rabbit_tells_what_is_wrong_once_and_its_client_does_not_besides(
    queue: Rabbit, caplog: pytest.LogCaptureFixture
) -> None:
    with reading(queue.source(where=f"127.0.0.1:{free_port()}")):
        eventually(lambda: caplog.records)
        time.sleep(0.5)  # it is tried again meanwhile
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "ConnectionRefusedError" in record.getMessage()


# Several partitions or streams


class Parts:
    """Partitions of a topic of Kafka, or streams of Redis, which one source reads."""

    def __init__(self, kind: str, servers: str, count: int) -> None:
        self.kind = kind
        self._servers = servers
        self.names = [new_name()] if kind == "kafka" else [new_name() for _ in range(count)]
        if kind == "kafka":
            confluent_kafka: Any = pytest.importorskip("confluent_kafka")
            self._client = confluent_kafka.Producer({"bootstrap.servers": servers})
            self._client.list_topics(self.names[0], timeout=10)
        else:
            self._client = pytest.importorskip("redis").Redis(port=REDIS)

    def put(self, part: int, stamps: Iterable[int | None]) -> None:
        """Publish rows to one of them."""
        bodies = [json.dumps({"timestamp": stamp, "part": part}) for stamp in stamps]
        if self.kind == "kafka":
            for body in bodies:
                self._client.produce(self.names[0], body, partition=part)
            assert self._client.flush(10) == 0
            return
        pipeline = self._client.pipeline(transaction=False)
        for body in bodies:
            pipeline.xadd(self.names[part], {"data": body})
        pipeline.execute()

    def source(self, where: str | None = None) -> Any:
        """A source of all of them, from the beginning."""
        if self.kind == "kafka":
            servers = where or self._servers
            return KafkaSource(self.names[0], servers=servers, start="earliest")
        where = where or f"127.0.0.1:{REDIS}"
        return RedisStreamSource(self.names, f"redis://{where}", start="earliest")

    def close(self) -> None:
        """Remove streams."""
        if self.kind == "redis":
            self._client.delete(*self.names)
            self._client.close()


@pytest.fixture(params=POSITIONED)
def parts(request: pytest.FixtureRequest) -> Iterator[Parts]:
    """Four, of which the last is empty."""
    pytest.importorskip(MODULES[request.param])
    if request.param == "redis" and not listens(REDIS):
        pytest.skip("no server for redis runs here")
    kafka = request.param == "kafka"
    made = Parts(request.param, request.getfixturevalue("servers") if kafka else "", 4)
    yield made
    made.close()


@pytest.mark.parametrize("batched", [False, True])
def test_what_was_published_before_comes_in_the_order_of_time_of_all_partitions(
    parts: Parts, batched: bool
) -> None:
    # One has as much as all others, and one has a row that is out of order, one of the far future,
    # and one without a time.
    parts.put(0, range(0, 24_000, 2))
    parts.put(1, [*range(1, 24_000, 4), 6])
    parts.put(2, [3, 4_102_444_800_000, *range(7, 12_000, 4)])
    parts.put(2, [None])
    parts.put(2, range(12_003, 24_000, 4))
    source = parts.source()
    source.wait_for_streams(60)
    with reading(source, batched=batched) as read:
        read.has(24_002)
        eventually(lambda: source.lag == 0)
        parts.put(3, [24_000])
        read.has(24_003)
    assert source.malformed == 1
    numbers = read.numbers()
    numbers.remove(4_102_444_800_000)
    late = [at for at in range(1, len(numbers)) if numbers[at] < numbers[at - 1]]
    assert [numbers[at] for at in late] == [6]
    assert sorted(numbers) == sorted([*range(24_001), 6])


@pytest.mark.parametrize("batched", [False, True])
def test_little_that_was_published_before_comes_in_the_order_of_time_too(
    parts: Parts, batched: bool
) -> None:
    for part in range(3):
        parts.put(part, range(part, 30, 3))
    with reading(parts.source(), batched=batched) as read:
        read.has(30)
    assert read.numbers() == list(range(30))


def test_a_position_holds_what_is_given_and_not_what_waits_for_other_partitions(
    parts: Parts,
) -> None:
    for part in range(3):
        parts.put(part, range(part, 9_000, 3))
    source = parts.source()
    rows: list[int] = []
    for when, _ in source:
        rows.append(when)
        if len(rows) == 2_000:
            break
    position = json.loads(json.dumps(source.position))
    other = parts.source()
    other.seek(position)
    with reading(other) as rest:
        rest.has(7_000)
        time.sleep(0.05)
    assert rows + rest.numbers() == list(range(9_000))


def test_what_comes_of_other_partitions_waits_for_one_that_is_behind_and_no_longer_than_it_may(
    caplog: pytest.LogCaptureFixture,
) -> None:
    merge = StreamMerge("it", lambda messages: [message[3] for message in messages], lambda: 10)
    merge.idle_timeout = 0.02

    def taken(*behind: str) -> list[Any]:
        chunk = merge.take(behind)
        merge.taken(len(chunk))
        return [message[3] for message in chunk]

    def put(name: str, *stamps: int) -> None:
        merge.put(name, [(b"", name, None, stamp) for stamp in stamps])

    put("a", 1, 4, 5)
    assert taken("a", "b") == []  # nothing is known of b
    put("b", 2)
    assert taken("a", "b") == [1, 2]
    assert (len(merge), taken("b")) == (2, [])
    time.sleep(0.03)
    assert (taken("b"), taken("b")) == ([], [4, 5])
    assert "b is behind, and has given nothing for 0.02 s" in told(caplog)
    put("b", 3)
    put("a", 6)
    assert taken("a", "b") == [3]  # b is waited for again
    assert taken("a") == [6]  # it has caught up
    put("a", *[7] * 5_000)
    assert list(merge.full) == ["a"]
    assert not merge.has_room("a")
    while taken():
        pass
    assert (list(merge.full), merge.has_room("a"), len(merge)) == ([], True, 0)
