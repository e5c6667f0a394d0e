"""What it costs to read from brokers: rows by a source, beside the broker's own client that reads
and decodes the same messages; and how long after it was published a message's window is given.

Kafka is librdkafka's mock cluster in a process of its own, which keeps the last 5 MB of a topic,
and answers a fetch at once where there are messages, else after ``fetch.wait.max.ms``. The others
are servers on this machine; where one is not there, it is skipped. The time to connect is left out
on both sides: a figure is of the rows from the first that came.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import secrets
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.measure import Figure, side_by_side
from benchmarks.question import Bound, Effort, Goal, Line, Question, Role, Section, Skipped
from run_task import (
    Pipeline,
    RunnerConfig,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.sinks import CallbackSink
from run_task.sources import KafkaSource, RabbitSource, RedisStreamSource

FIRST = 1_700_000_000_000
WINDOW = 100
"""Milliseconds of a window."""

RATE = 1_000
"""Rows a second, where latency is measured."""

MISSED = 1_000.0
"""Milliseconds that a row counts as whose window was given without it."""

AS_THE_CLIENT = Goal(Bound.AT_LEAST, 0.6)
PROMPT = Goal(Bound.AT_MOST, WINDOW + 15)

_MOCK = """
import sys
from confluent_kafka import Producer
producer = Producer({"test.mock.num.brokers": 1, "log_level": 0})
(broker,) = producer.list_topics(timeout=10).brokers.values()
print(f"{broker.host}:{broker.port}", flush=True)
sys.stdin.read()
"""


def message(number: int, timestamp: int) -> bytes:
    row = {"timestamp": timestamp, "symbol": f"S{number % 50}", "price": 100.25, "size": number}
    return json.dumps(row).encode()


def decode(value: bytes) -> Any:
    return _decode(value)


with contextlib.suppress(ImportError):
    _decode: Callable[[bytes], Any] = importlib.import_module("msgspec.json").Decoder().decode


class Broker(ABC):
    """A topic, a stream or a queue of one."""

    def __init__(self) -> None:
        self.name = f"run_task_bench_{secrets.token_hex(6)}"
        self._filled = False

    @abstractmethod
    def publish(self, messages: Sequence[bytes]) -> None: ...

    @abstractmethod
    def source(self, *, at_end: bool = False) -> Any: ...

    @abstractmethod
    def by_client(self, count: int) -> Generator[int]:
        """Read and decode so many messages, and give how many there are by now."""

    def fill(self, count: int) -> None:
        """Have so many messages there, if they are not."""
        if not self._filled:
            self._filled = True
            self._publish_many(count)

    def _publish_many(self, count: int) -> None:
        for first in range(0, count, 10_000):
            last = min(first + 10_000, count)
            self.publish([message(at, FIRST + at) for at in range(first, last)])

    @abstractmethod
    def close(self) -> None:
        """Remove it."""


class KafkaBroker(Broker):
    def __init__(self) -> None:
        super().__init__()
        self._kafka: Any = importlib.import_module("confluent_kafka")
        self._mock = subprocess.Popen(
            [sys.executable, "-c", _MOCK],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._mock.stdout is not None
        self._servers = self._mock.stdout.readline().strip()
        settings = {"bootstrap.servers": self._servers, "linger.ms": 1, "log_level": 0}
        self._producer = self._kafka.Producer(
            {**settings, "queue.buffering.max.messages": 1_000_000}
        )
        self._producer.list_topics(self.name, timeout=10)

    def publish(self, messages: Sequence[bytes]) -> None:
        for value in messages:
            self._producer.produce(self.name, value, partition=0)
        self._producer.flush(30)

    def source(self, *, at_end: bool = False) -> KafkaSource:
        start = "latest" if at_end else "earliest"
        config = {"fetch.wait.max.ms": 5} if at_end else None  # the mock tells no sooner
        return KafkaSource(
            self.name, servers=self._servers, partitions=[0], start=start, config=config
        )

    def by_client(self, count: int) -> Generator[int]:
        consumer = self._kafka.Consumer(
            {"bootstrap.servers": self._servers, "group.id": "bench", "log_level": 0}
        )
        consumer.assign([self._kafka.TopicPartition(self.name, 0, 0)])
        read = 0
        try:
            while read < count:
                for one in consumer.consume(1_000, 0.05):
                    decode(one.value())
                    read += 1
                if read:
                    yield read
        finally:
            consumer.close()

    def close(self) -> None:
        self._mock.kill()
        self._mock.communicate()


class RedisBroker(Broker):
    def __init__(self) -> None:
        super().__init__()
        redis: Any = importlib.import_module("redis")
        self._client = redis.Redis(protocol=2)

    def publish(self, messages: Sequence[bytes]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for value in messages:
            pipeline.xadd(self.name, {"data": value})
        pipeline.execute()

    def source(self, *, at_end: bool = False) -> RedisStreamSource:
        start = "latest" if at_end else "earliest"
        return RedisStreamSource(self.name, "redis://127.0.0.1:6379", start=start)

    def by_client(self, count: int) -> Generator[int]:
        last, read = "0", 0
        while read < count:
            for _, entries in self._client.xread({self.name: last}, count=1_000, block=50):
                for _, fields in entries:
                    decode(fields[b"data"])
                read += len(entries)
                last = entries[-1][0]
                yield read

    def close(self) -> None:
        self._client.delete(self.name)
        self._client.close()


class RabbitBroker(Broker):
    def __init__(self) -> None:
        super().__init__()
        self._pika: Any = importlib.import_module("pika")
        self._connection = self._connect()
        self._channel = self._connection.channel()
        self._channel.queue_declare(self.name)

    def _connect(self) -> Any:
        return self._pika.BlockingConnection(self._pika.URLParameters("amqp://127.0.0.1:5672/"))

    def publish(self, messages: Sequence[bytes]) -> None:
        for value in messages:
            self._channel.basic_publish("", self.name, value)
        self._connection.process_data_events()

    def fill(self, count: int) -> None:
        # A pipeline acknowledges what it has read.
        self._channel.queue_purge(self.name)
        self._publish_many(count)

    def source(self, *, at_end: bool = False) -> RabbitSource:
        return RabbitSource(self.name, "amqp://127.0.0.1:5672/", prefetch=65_000)

    def by_client(self, count: int) -> Generator[int]:
        connection = self._connect()
        channel = connection.channel()
        channel.basic_qos(prefetch_count=65_000)
        # It is not acknowledged, and so is there again once the connection is closed.
        try:
            for read, (_, _, body) in enumerate(channel.consume(self.name), 1):
                decode(body)
                if read % 1_000 == 0 or read == count:
                    yield read
        finally:
            connection.close()

    def close(self) -> None:
        self._channel.queue_delete(self.name)
        self._connection.close()


BROKERS: dict[str, tuple[type[Broker], int | None]] = {
    "KafkaSource": (KafkaBroker, None),
    "RedisStreamSource": (RedisBroker, 6379),
    "RabbitSource": (RabbitBroker, 5672),
}


def opened(kind: str) -> Broker | Skipped:
    make, port = BROKERS[kind]
    try:
        if port is not None:
            socket.create_connection(("127.0.0.1", port), 1).close()
        return make()
    except (OSError, ImportError) as error:
        return Skipped(kind, f"{type(error).__name__}: {error}")


def us_a_row(reading: Callable[[Broker, int], Generator[int]], broker: Broker, count: int) -> float:
    """Microseconds a row takes, of those after the first that came.

    :param reading: gives how many rows it has by now, again and again
    """
    broker.fill(count)
    with contextlib.closing(reading(broker, count)) as counts:
        opened_at = time.perf_counter()
        first = next(counts)
        begun = time.perf_counter()
        if first >= count:  # they are few, as where it is only to be seen whether it runs
            return (begun - opened_at) * 1e6 / count
        for read in counts:
            if read >= count:
                break
        return (time.perf_counter() - begun) * 1e6 / (count - first)


def check(broker: Broker, count: int) -> None:
    """See that a source gives the rows that the messages are, in batches and one by one."""
    wanted: list[Any] = []
    for number in range(count):
        row = json.loads(message(number, FIRST + number))
        wanted.append((row.pop("timestamp"), row))
    broker.fill(count)
    for batched in True, False:
        source: Any = broker.source()
        items: Any = source.batches() if batched else iter(source)
        found: list[Any] = []
        with contextlib.closing(items):
            while len(found) < count:
                found += next(items).rows() if batched else [next(items)]
        assert found[:count] == wanted


def by_client(broker: Broker, count: int) -> Generator[int]:
    return broker.by_client(count)


def by_batches(broker: Broker, count: int) -> Generator[int]:
    source: Any = broker.source()
    read = 0
    with contextlib.closing(source.batches()) as batches:
        for batch in batches:
            read += len(batch)
            yield read


def by_rows(broker: Broker, count: int) -> Generator[int]:
    rows: Any = iter(broker.source())
    with contextlib.closing(rows):
        for read, _ in enumerate(rows, 1):
            if read % 1_000 == 0 or read == count:
                yield read


def by_pipeline(broker: Broker, count: int) -> Generator[int]:
    columns = {"symbol": str, "price": float, "size": int}
    data = TimeSeries(columns, TimeUnit.MILLIS, retention=1_000)
    pipeline = Pipeline("bench").source(broker.source(), into=data, name="feed")
    pipeline.stage("rows", [rows_seen], data, "1s")
    with pipeline:
        while True:
            stats = pipeline.stats.sources["feed"]
            assert stats.malformed + stats.rejected + stats.ahead + stats.duplicate == 0
            if read := stats.received:
                yield read
            time.sleep(0.001)


@task
def rows_seen(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


@task
def published(view: TimeSeriesView, start: int, end: int) -> list[int]:
    found: list[int] = view.in_window["at"].tolist()
    return found


def latencies_ms(broker: Broker, length: float) -> list[float]:
    """Milliseconds from publishing a message to the result of its window, of each."""
    data = TimeSeries({"at": int}, TimeUnit.MILLIS)
    found: list[float] = []

    def take(_: str, dataset: Any) -> None:
        now = time.time_ns()
        found.extend((now - at) / 1e6 for at in dataset["published"])

    pipeline = Pipeline("bench").source(broker.source(at_end=True), into=data, name="feed")
    grace = TaskInterval.millis(10)
    stage = pipeline.stage(
        "s", [published], data, TaskInterval.millis(WINDOW), config=RunnerConfig(grace=grace)
    )
    stage.sink(CallbackSink(take))
    ended = threading.Event()
    with pipeline:
        time.sleep(1.0)  # it connects
        until = time.monotonic() + length
        number, begun = 0, time.monotonic()
        while time.monotonic() < until:
            due = int((time.monotonic() - begun) * RATE)
            if due > number:
                now = time.time_ns()
                value = json.dumps({"timestamp": now // 1_000_000, "at": now}).encode()
                broker.publish([value] * (due - number))
                number = due
            ended.wait(0.001)
        ended.wait(0.5)
    late = number - len(found)
    return found + [MISSED] * late


def brokers(effort: Effort) -> Iterator[Question | Skipped]:
    count, length = 45_000, 10.0  # which the mock cluster keeps
    if effort.seconds < 0.3:
        length = 3.0
    if effort.seconds < 0.1:  # to see whether it runs at all
        count, length = 2_000, 0.3
    for kind in BROKERS:
        broker = opened(kind)
        if isinstance(broker, Skipped):
            yield broker
            continue
        try:
            checked = opened(kind)
            assert isinstance(checked, Broker)
            try:
                check(checked, 2_000)
            finally:
                checked.close()
            each = count
            readings = {
                "the client, decoding": by_client,
                f"{kind}, batches": by_batches,
                f"{kind}, row by row": by_rows,
                f"{kind}, into a pipeline": by_pipeline,
            }
            rounds = side_by_side(
                {name: partial(us_a_row, how, broker, each) for name, how in readings.items()},
                max(effort.repeats, 3) if length > 1 else 1,
            )
            floor = rounds["the client, decoding"]
            yield Question(
                f"Brokers: 1000 rows a second of {each:,} by {kind}",
                [
                    Line(
                        name,
                        Role.FLOOR if took is floor else Role.OURS,
                        "1000/s",
                        Figure.of([1e3 / one for one in took]),
                        None if took is floor else Figure.of_ratios(floor, took),
                        AS_THE_CLIENT if "batches" in name else None,
                    )
                    for name, took in rounds.items()
                ],
            )
        finally:
            broker.close()
        broker = opened(kind)
        assert isinstance(broker, Broker)
        try:
            found = latencies_ms(broker, length)
            p50, p99 = (float(value) for value in np.quantile(found, [0.5, 0.99], method="higher"))
            yield Question(
                f"Latency: ms from publishing to the result, {RATE:,} rows/s, {kind}",
                [
                    Line("median", Role.OURS, "ms", Figure.of([p50])),
                    Line("p99", Role.OURS, "ms", Figure.of([p99]), None, PROMPT),
                ],
            )
        finally:
            broker.close()


SECTION = Section("brokers", brokers)
