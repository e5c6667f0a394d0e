"""The programs of the page about brokers, at brokers that are there."""

from __future__ import annotations

import json
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.brokers import RABBIT, REDIS, Kafka, Rabbit, Redis, listens, mock_kafka, reading
from tests.support.published import JetStream, MqttTopics
from tests.support.servers import MQTT_PORT, NATS_PORT, needs
from tests.support.threads import PATIENCE

_ALL = re.DOTALL | re.MULTILINE
PAGE = Path(__file__).parent.parent / "docs/how-to/brokers.md"


def program(title: str, *changes: tuple[str, str]) -> dict[str, Any]:
    """Run a program of the page, with names that no other test has. Returns what it defines."""
    blocks = re.compile(rf'^```python title="{title}(?:, continued)?"\n(.*?)^```', _ALL)
    found = blocks.findall(PAGE.read_text())
    text = "\n\n".join(found)
    for old, new in changes:
        assert old in text, f"{title}: there is no {old}"
        text = text.replace(old, new)
    defined: dict[str, Any] = {}
    exec(compile(text, title, "exec", dont_inherit=True), defined)
    return defined


def until(condition: Callable[[], object], deed: Callable[[], object]) -> None:
    """Do something again and again until something is so."""
    deadline = time.monotonic() + 3 * PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        deed()
        time.sleep(0.05)


def test_bars_of_trades_are_read_from_kafka_and_published() -> None:
    pytest.importorskip("confluent_kafka")
    needs(NATS_PORT, "NATS")
    needs(MQTT_PORT, "Mosquitto")
    with mock_kafka() as servers, JetStream() as stream, MqttTopics() as topics:
        trades, bars = Kafka(servers), Kafka(servers)
        defined = program(
            "bars.py",
            ("localhost:9092", servers),
            ('"trades"', repr(trades.name)),
            ('KafkaSink("bars"', f"KafkaSink({bars.name!r}"),
            ('"bars.{key}"', f'"{stream.name}.{{key}}"'),
            ('"BARS"', repr(stream.name)),
            ('"bars/{key}"', f'"{topics.name}/{{key}}"'),
            ('"1m"', '"100ms"'),
        )

        def publish() -> None:
            row = {"timestamp": time.time_ns() // 1_000_000, "symbol": "ACME", "price": 9.5}
            trades.raw([json.dumps(row).encode()])

        with defined["pipeline"] as pipeline:
            until(lambda: all(one.written for one in pipeline.stats.sinks.values()), publish)
        assert len(pipeline.stats.sinks) == 3
        for found in (topics.received(1), stream.received()):
            assert found[0].place == "ACME"
            assert found[0].body["results"]["price_ohlc"]["open"] == 9.5


def test_rows_are_read_with_the_options_that_the_page_shows() -> None:
    if not listens(REDIS):
        pytest.skip(f"no Redis listens on 127.0.0.1:{REDIS}")
    redis = Redis()
    try:
        source = program("options.py", ('"sensors"', repr(redis.name)))["source"]
        sent = {"at": 1_700_000_000.5, "celsius": 20.5, "device": "a", "more": 1}
        with reading(source) as found:
            until(lambda: found.rows, lambda: redis.raw([json.dumps(sent).encode()]))
        assert found.rows[0] == (1_700_000_000_500, {"celsius": 20.5, "device": "a"})
    finally:
        redis.close()


def test_messages_are_decoded_as_the_page_shows() -> None:
    if not listens(RABBIT):
        pytest.skip(f"no RabbitMQ listens on 127.0.0.1:{RABBIT}")
    queue = Rabbit()
    try:
        source = program("decode.py", ('"sensors"', repr(queue.name)))["source"]
        with reading(source) as found:
            queue.raw([struct.pack("<dd", 1_700_000_000.5, 20.5)])
            found.has(1)
        assert found.rows == [(1_700_000_000_500, {"celsius": 20.5})]
    finally:
        queue.close()
