"""Brokers for tests: those that run on this machine, and one of a test's own."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.threads import PATIENCE

from run_task.sources import KafkaSource, RabbitSource, RedisStreamSource

REDIS = 6379
RABBIT = 5672


def listens(port: int) -> bool:
    """Whether something listens there on 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def until_it_listens(port: int) -> None:
    """Wait for a server."""
    deadline = time.monotonic() + PATIENCE
    while not listens(port):
        assert time.monotonic() < deadline, f"nothing listens on {port}"
        time.sleep(0.01)


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def new_name() -> str:
    """A name for a topic, a stream or a queue that no other test has."""
    return f"run_task_{secrets.token_hex(6)}"


class OwnRedis:
    """A server of a test's own, which it may end and start again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port: int = free_port()
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, with what it had."""
        options = ["--port", str(self.port), "--dir", str(self._folder), "--appendonly", "yes"]
        options += ["--bind", "127.0.0.1", "--appendfsync", "always", "--save", ""]
        self._process = subprocess.Popen(
            ["redis-server", *options, *self._options], stdout=subprocess.DEVNULL
        )
        until_it_listens(self.port)

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None


@contextlib.contextmanager
def own_redis(folder: Path, *options: str) -> Generator[OwnRedis]:
    """A server, until the block is left."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = OwnRedis(folder, *options)
    try:
        yield server
    finally:
        server.kill()


_MOCK = """
import sys
from confluent_kafka import Producer
producer = Producer({"test.mock.num.brokers": int(sys.argv[1]), "log_level": 0})
brokers = producer.list_topics(timeout=10).brokers.values()
print(",".join(f"{one.host}:{one.port}" for one in brokers), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def mock_kafka(brokers: int = 1) -> Generator[str]:
    """The address of a mock cluster of librdkafka's, which speaks the real protocol, in a process
    of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", _MOCK, str(brokers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def row(number: int) -> Mapping[str, Any]:
    """A row that tests publish."""
    return {"timestamp": number, "n": number}


class Kafka:
    """A topic of a mock cluster."""

    kind = "kafka"

    def __init__(self, servers: str) -> None:
        confluent_kafka: Any = pytest.importorskip("confluent_kafka")
        self.servers = servers
        self.name = new_name()
        # The mock cluster keeps 5 MB of a partition, as they were sent: compressed, these are many.
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": servers, "linger.ms": 1, "compression.type": "gzip"}
        )
        self._producer.list_topics(self.name, timeout=10)
        self.raw([b""])  # which makes the topic
        self.begin = {f"{self.name}/0": 1}

    def raw(self, values: Iterable[bytes | None], partition: int = 0) -> None:
        """Publish messages as they are."""
        for value in values:
            self._producer.produce(self.name, value, key=b"A", partition=partition)
            self._producer.poll(0)
        assert self._producer.flush(10) == 0

    def source(self, **options: Any) -> KafkaSource:
        """A source of all that was published since."""
        where = options.pop("where", self.servers)
        options.setdefault("start", "earliest")
        found = KafkaSource(self.name, servers=where, partitions=[0], **options)
        if "group" not in options:
            found.seek(self.begin)
        return found

    def close(self) -> None:
        """Nothing: the topic goes with the cluster."""


class Redis:
    """A stream."""

    kind = "redis"

    def __init__(self, port: int = REDIS, password: str | None = None) -> None:
        redis: Any = pytest.importorskip("redis")
        self.name = new_name()
        self.where = f"127.0.0.1:{port}"
        self.client: Any = redis.Redis(port=port, password=password)

    def raw(self, values: Iterable[bytes | None]) -> None:
        """Publish messages as they are."""
        pipeline = self.client.pipeline(transaction=False)
        for value in values:
            pipeline.xadd(self.name, {"other": b""} if value is None else {"data": value})
        pipeline.execute()

    def source(self, **options: Any) -> RedisStreamSource:
        """A source of all that was published."""
        where = options.pop("where", self.where)
        options.setdefault("start", "earliest")
        return RedisStreamSource(self.name, f"redis://{where}", **options)

    def close(self) -> None:
        """Remove it."""
        self.client.delete(self.name)
        self.client.close()


class Rabbit:
    """A queue."""

    kind = "rabbit"

    def __init__(self) -> None:
        self.name = new_name()
        self.where = f"127.0.0.1:{RABBIT}"
        self._do(lambda channel: channel.queue_declare(self.name, durable=True))

    def _do(self, deed: Callable[[Any], object]) -> None:
        pika: Any = pytest.importorskip("pika")
        connection = pika.BlockingConnection(pika.URLParameters(f"amqp://{self.where}/"))
        try:
            deed(connection.channel())
        finally:
            connection.close()

    def raw(self, values: Iterable[bytes | None], ids: Iterable[str] | None = None) -> None:
        """Publish messages as they are."""
        pika: Any = pytest.importorskip("pika")

        def publish(channel: Any) -> None:
            numbers = iter(ids or ())
            for value in values:
                properties = pika.BasicProperties(message_id=next(numbers, None))
                channel.basic_publish("", self.name, value or b"", properties)

        self._do(publish)

    def depth(self) -> int:
        """How many messages wait there."""
        found: list[int] = []
        self._do(
            lambda channel: found.append(
                channel.queue_declare(self.name, passive=True).method.message_count
            )
        )
        return found[0]

    def source(self, **options: Any) -> RabbitSource:
        """A source of all that was published."""
        where = options.pop("where", self.where)
        return RabbitSource(self.name, f"amqp://{where}/", **options)

    def close(self) -> None:
        """Remove it."""
        self._do(lambda channel: channel.queue_delete(self.name))


Broker = Kafka | Redis | Rabbit


def publish(broker: Broker, numbers: Iterable[int]) -> None:
    """Publish rows."""
    broker.raw(json.dumps(row(number)).encode() for number in numbers)


class Reading:
    """A source that a thread reads, row by row, and what it has given."""

    def __init__(self, source: Any, *, batched: bool = False) -> None:
        self.source = source
        self.rows: list[tuple[int, Any]] = []
        self.positions: list[Any] = []
        self.error: BaseException | None = None
        self._batched = batched
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            if self._batched:
                for batch in self.source.batches():
                    self.positions.append(self.source.position)
                    self.rows += batch.rows()
            else:
                for one in self.source:
                    self.positions.append(self.source.position)
                    self.rows.append(one)
        except BaseException as error:
            self.error = error

    def numbers(self) -> list[int]:
        """The timestamps of its rows."""
        return [when for when, _ in self.rows]

    def has(self, count: int, patience: float = 3 * PATIENCE) -> None:
        """Wait for so many rows."""
        deadline = time.monotonic() + patience
        while len(self.rows) < count:
            assert self.error is None, self.error
            assert time.monotonic() < deadline, f"{len(self.rows)} rows of {count}"
            time.sleep(0.002)

    def fails(self) -> BaseException:
        """Wait for the error."""
        self._thread.join(3 * PATIENCE)
        assert self.error is not None
        return self.error

    def close(self) -> None:
        """Close the source, and wait for its end."""
        self.source.close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def reading(source: Any, *, batched: bool = False) -> Generator[Reading]:
    """Read a source in a thread, until the block is left."""
    made = Reading(source, batched=batched)
    try:
        yield made
    finally:
        made.close()
