"""Results that are published to Kafka, by a mock cluster of librdkafka's."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.brokers import free_port, mock_kafka, new_name
from tests.support.tcp_proxy import proxy

from run_task import ConfigError, DataSet, Pipeline, SinkError, TimeSeries, TimeUnit, Window
from run_task.aggregates import count, mean
from run_task.sinks import KafkaSink, Result
from run_task.sinks.brokers import _kafka as kafka_sink

pytest.importorskip("confluent_kafka")


@pytest.fixture(scope="module")
def servers() -> Iterator[str]:
    with mock_kafka() as address:
        yield address


def topic_of(servers: str) -> str:
    confluent_kafka: Any = pytest.importorskip("confluent_kafka")
    name = new_name()
    confluent_kafka.Producer({"bootstrap.servers": servers}).list_topics(name, timeout=10)
    return name


def published(servers: str, topic: str, count: int) -> list[Any]:
    confluent_kafka: Any = pytest.importorskip("confluent_kafka")
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": servers, "group.id": "test", "auto.offset.reset": "earliest"}
    )
    parts = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([confluent_kafka.TopicPartition(topic, part, 0) for part in parts])
    found: list[Any] = []
    deadline = time.monotonic() + 10
    while len(found) < count and time.monotonic() < deadline:
        found += consumer.consume(100, 0.1)
    consumer.close()
    return sorted(found, key=lambda message: json.loads(message.value())["end"])


def result(end: int, value: object = 1.5) -> Result:
    return Result.of("p", "s", DataSet(Window(end - 10, end), {"t": value}))


def test_each_window_is_a_message_with_an_id_that_is_the_same_each_time(servers: str) -> None:
    topic = topic_of(servers)
    sink = KafkaSink(topic, servers=servers)
    for end in (10, 20, 10):
        sink.write(result(end))
    sink.flush()
    sink.close()
    sink.close()
    first, again, other = published(servers, topic, 3)
    assert first.key() == b"p/s"
    headers = dict(first.headers())
    body = json.loads(first.value())
    assert headers == {"id": body["id"].encode(), "start": b"0", "end": b"10"}
    assert body == {
        "id": body["id"],
        "pipeline": "p",
        "stage": "s",
        "start": 0,
        "end": 10,
        "unit": None,
        "results": {"t": 1.5},
        "errors": [],
    }
    assert again.value() == first.value()
    assert dict(other.headers())["id"] != headers["id"]


def test_a_stage_by_key_gives_a_message_a_key(servers: str) -> None:
    topic = topic_of(servers)
    data = TimeSeries({"k": str, "v": float}, unit=TimeUnit.MILLIS, key="k")
    pipeline = Pipeline("p")
    rows = [(at, {"k": "ab"[at % 2], "v": float(at)}) for at in range(20)]
    pipeline.source(rows, into=data)
    stage = pipeline.stage("s", [mean("v"), count()], data, "10ms", by="k")
    sink = KafkaSink(topic, servers=servers)
    stage.sink(sink)
    for _ in pipeline.replay():
        pass
    sink.close()
    found = published(servers, topic, 4)
    assert sorted(message.key() for message in found) == [b"p/s/a", b"p/s/a", b"p/s/b", b"p/s/b"]
    bodies = [json.loads(message.value()) for message in found]
    assert len({body["id"] for body in bodies}) == 4
    by = {(body["key"], body["end"]): body["results"] for body in bodies}
    assert by["a", 10] == {"v_mean": 4.0, "count": 5}
    assert {body["unit"] for body in bodies} == {TimeUnit.MILLIS.value}


def test_what_has_no_form_or_is_too_large_is_refused_alone(servers: str) -> None:
    topic = topic_of(servers)
    sink = KafkaSink(topic, servers=servers, config={"message.max.bytes": 2_000})
    with pytest.raises(SinkError, match="has no form in plain JSON"):
        sink.write(result(10, object()))
    with pytest.raises(SinkError, match="MSG_SIZE_TOO_LARGE"):
        sink.write(result(20, "x" * 3_000))
    sink.write(result(30))
    sink.close()
    assert len(published(servers, topic, 1)) == 1


def test_a_broker_that_is_away_is_told_with_the_cure_and_what_was_not_taken_is_not_sent_later(
    servers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_sink, "_DELIVERY_TIMEOUT", 1.5)
    topic = topic_of(servers)
    host, _, port = servers.partition(":")
    with proxy(host, int(port), advertised=True) as between:
        sink = KafkaSink(topic, servers=between.address)
        sink.write(result(10))
        sink.flush()
        between.cut()
        sink.write(result(20))
        with pytest.raises(ConnectionError, match=r"1 messages were not taken .* Is Kafka there"):
            sink.flush()
        between.resume()
        sink.write(result(20))  # as who retries does
        sink.close()
    found = published(servers, topic, 2)
    assert [json.loads(message.value())["end"] for message in found] == [10, 20]
    absent = KafkaSink(topic, servers=f"127.0.0.1:{free_port()}")
    absent.write(result(10))
    with pytest.raises(ConnectionError, match="Connection refused"):
        absent.close()


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="config= cannot be"):
        KafkaSink("t", config={"no.such.setting": 1})
    with pytest.raises(ConfigError, match="topic='': it is the name of a topic"):
        KafkaSink("")


def test_a_password_that_is_refused_is_not_tried_again_and_stands_nowhere(servers: str) -> None:
    confluent_kafka: Any = pytest.importorskip("confluent_kafka")
    sink = KafkaSink("t", servers=servers, username="me", password="sEcret")
    # The mock cluster knows no passwords: so what librdkafka tells of a wrong one is put here.
    wrong = confluent_kafka.KafkaError(
        confluent_kafka.KafkaError._AUTHENTICATION, "SASL authentication error: sEcret is wrong"
    )
    sink._note(wrong)  # pyright: ignore[reportPrivateUsage]  as just said
    with pytest.raises(ConfigError, match="It is not tried again") as refused:
        sink.flush()
    assert "sEcret" not in f"{refused.value}{sink!r}"
