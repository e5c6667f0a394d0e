"""Feeds that tests publish rows to, each by a broker or a route, which a pipeline reads."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import http.client
import importlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.brokers import (
    RABBIT,
    Kafka,
    Redis,
    free_port,
    listens,
    mock_kafka,
    new_name,
    own_redis,
)
from tests.support.growing import GrowingFiles
from tests.support.servers import own_mosquitto, own_nats
from tests.support.threads import PATIENCE

Row = Mapping[str, Any]

MODULES: Final[Mapping[str, str]] = {
    "kafka": "confluent_kafka",
    "redis": "redis",
    "jetstream": "nats",
    "rabbit": "pika",
    "mqtt": "paho.mqtt.client",
    "http": "uvicorn",
}
"""What has to be installed for each kind of feed."""


class Feed(abc.ABC):
    """Where rows are published, and a pipeline reads them by way of a proxy.

    :ivar name: of the topic, stream or queue
    :ivar port: on which the server listens on 127.0.0.1, which the proxy leads to
    """

    name: str
    port: int

    @abc.abstractmethod
    def put(self, rows: Sequence[Row]) -> bool:
        """Publish rows. Returns whether they are kept there; else they may be, and are to be
        published again."""

    @abc.abstractmethod
    def restart(self) -> None:
        """End the server, and start it again with what it had, where it is one that can be."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of it."""


class KafkaFeed(Feed):
    """A topic of four partitions, of which each key has one. It is of a mock cluster, which keeps
    nothing when it ends: so that is not started again."""

    def __init__(self, address: str) -> None:
        self._broker = Kafka(address)
        self.name = self._broker.name
        self.port = int(address.rpartition(":")[2])

    def put(self, rows: Sequence[Row]) -> bool:
        for partition in range(4):
            some = [_message(row) for row in rows if _number(row) % 4 == partition]
            self._broker.raw(some, partition)
        return True

    def restart(self) -> None:
        """It cannot be."""

    def close(self) -> None:
        self._broker.close()


class FilesFeed(Feed):
    """Four files that grow, of which each key has one.

    :param folder: where they are
    """

    def __init__(self, folder: Path) -> None:
        self._files = GrowingFiles(folder, 4, {"k": str, "v": float, "n": int})
        self.name, self.port = str(folder), 0

    def put(self, rows: Sequence[Row]) -> bool:
        for number in range(4):
            some = [row for row in rows if _number(row) % 4 == number]
            if some:
                self._files.put(number, *((row["timestamp"], row) for row in some))
        return True

    def rename(self) -> None:
        """Have other files come in their place."""
        for number in range(4):
            self._files.rename(number)

    def restart(self) -> None:
        """There is nothing to be started."""

    def close(self) -> None:
        """There is nothing to let go of."""


class RedisFeed(Feed):
    """Two streams, of which each key has one, of a server of its own, which is killed."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._brokers = [Redis(server.port), Redis(server.port)]
        self.name, self.port = ",".join(one.name for one in self._brokers), server.port

    def put(self, rows: Sequence[Row]) -> bool:
        for at, broker in enumerate(self._brokers):
            broker.raw([_message(row) for row in rows if _number(row) % 2 == at])
        return True

    def restart(self) -> None:
        self._server.kill()
        self._server.start()

    def close(self) -> None:
        for broker in self._brokers:
            broker.close()


class JetStreamFeed(Feed):
    """A server of its own, with streams in files, which is killed."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.name, self.port = new_name(), server.port
        self._loop = asyncio.new_event_loop()
        self._client: Any
        self._connect()
        stream = self._client.jetstream().add_stream(name=self.name, subjects=[self.name])
        self._loop.run_until_complete(stream)

    def _connect(self) -> None:
        import nats

        connecting: Any = nats.connect(f"nats://127.0.0.1:{self.port}", allow_reconnect=False)  # pyright: ignore[reportUnknownMemberType]  its options are untyped
        self._client = self._loop.run_until_complete(connecting)

    def put(self, rows: Sequence[Row]) -> bool:
        self._loop.run_until_complete(self._put(rows))
        return True

    async def _put(self, rows: Sequence[Row]) -> None:
        for row in rows[:-1]:
            await self._client.publish(self.name, _message(row))
        # A stream takes them in their order: where it has the last, it has those before.
        await self._client.jetstream().publish(self.name, _message(rows[-1]))

    def restart(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._server.kill()
        self._server.start()
        self._connect()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._loop.run_until_complete(self._client.close())
        self._loop.close()


class RabbitFeed(Feed):
    """A durable queue.

    :param server: one of its own; None: that of this machine, which is not started again
    """

    def __init__(self, server: OwnRabbit | None) -> None:
        self._server = server
        self.name, self.port = new_name(), RABBIT if server is None else server.port
        self._connection: Any
        self._channel: Any
        self._connect()
        self._channel.queue_declare(self.name, durable=True)

    def _connect(self) -> None:
        pika: Any = importlib.import_module("pika")
        parameters = pika.ConnectionParameters("127.0.0.1", self.port)
        self._connection = pika.BlockingConnection(parameters)
        self._channel = self._connection.channel()
        self._channel.tx_select()

    def put(self, rows: Sequence[Row]) -> bool:
        pika: Any = importlib.import_module("pika")
        lasting = pika.BasicProperties(delivery_mode=2)
        for row in rows:
            self._channel.basic_publish("", self.name, _message(row), lasting)
        self._channel.tx_commit()  # which is answered once they are on disk
        return True

    def restart(self) -> None:
        if self._server is not None:
            self._connection.close()
            self._server.stop()
            self._server.start()
            self._connect()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._channel.queue_delete(self.name)
            self._connection.close()


class OwnRabbit:
    """RabbitMQ of a test's own, which takes some ten seconds to start.

    :param folder: where it keeps what it has
    """

    SCRIPT: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    """What starts it under whatever user one is."""
    _EPMD: Final = 4369  # where nodes of Erlang find each other; it would be left running

    def __init__(self, folder: Path) -> None:
        if not self.SCRIPT.exists() or not listens(self._EPMD):
            pytest.skip("no RabbitMQ is installed here, or none runs beside which one could be")
        self.port = free_port()
        (folder / "plugins").write_text("[].")
        self._environment = {
            **os.environ,
            "HOME": str(folder),  # for the cookie of Erlang
            "RUNNING_UNDER_SYSTEMD": "1",  # so that the script becomes the server
            "RABBITMQ_NODENAME": f"{new_name()}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._process = subprocess.Popen(
            [str(self.SCRIPT)],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        left = 12 * PATIENCE
        while not listens(self.port):
            assert left > 0, "RabbitMQ does not start"
            assert self._process.poll() is None, "RabbitMQ has ended"
            left -= 0.1
            threading.Event().wait(0.1)

    def stop(self) -> None:
        """Have it end in order."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(3 * PATIENCE)
            finally:
                process.kill()
                process.wait(PATIENCE)


class MqttFeed(Feed):
    """A server of its own, which ends in order: Mosquitto keeps what it has in memory until then.

    It knows the session of the pipeline from the beginning, so that it keeps all for that.
    """

    LINES: Final = ("allow_anonymous true", "max_queued_messages 0", "max_inflight_messages 0")

    def __init__(self, server: Any) -> None:
        self._server = server
        self.name, self.port = new_name(), server.port
        packets: Any = importlib.import_module("paho.mqtt.packettypes").PacketTypes
        lasting: Any = importlib.import_module("paho.mqtt.properties").Properties(packets.CONNECT)
        lasting.SessionExpiryInterval = 3600
        session = self._client(self.name, clean_start=False, properties=lasting)
        subscribed = _on(session, "on_subscribe")
        session.subscribe(self.name, 1)
        assert subscribed.wait(PATIENCE)
        _leave(session)
        self._publisher = self._client("")

    def _client(self, name: str, **options: Any) -> Any:
        import paho.mqtt.client as paho
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        client: Any = paho.Client(
            CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv5
        )
        client.max_inflight_messages_set(1_000)
        connected = _on(client, "on_connect")
        client.connect("127.0.0.1", self.port, **options)
        client.loop_start()
        assert connected.wait(PATIENCE)
        return client

    def put(self, rows: Sequence[Row]) -> bool:
        sent = [self._publisher.publish(self.name, _message(row), qos=1) for row in rows]
        for one in sent:
            one.wait_for_publish(PATIENCE)
            assert one.is_published()
        return True

    def restart(self) -> None:
        _leave(self._publisher)
        self._server.stop()
        self._server.start()
        self._publisher = self._client("")

    def close(self) -> None:
        _leave(self._publisher)


def _on(client: Any, name: str) -> threading.Event:
    """Set once a client calls something."""
    called = threading.Event()

    def call(*_: object) -> None:
        called.set()

    setattr(client, name, call)
    return called


def _leave(client: Any) -> None:
    client.disconnect()
    client.loop_stop()


class HttpFeed(Feed):
    """The route of a pipeline, to which rows are sent until it says that it has them.

    :ivar proxied: the port to send to, which leads there
    """

    def __init__(self) -> None:
        self.name, self.port = "", free_port()
        self.proxied = self.port
        self._connection: http.client.HTTPConnection | None = None

    def put(self, rows: Sequence[Row]) -> bool:
        body = b"\n".join(map(_message, rows))
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.proxied, timeout=1)
        try:
            headers = {"Content-Type": "application/x-ndjson"}
            self._connection.request("POST", "/rows", body, headers)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return False
        assert answer.status in (200, 429, 503), answer.status
        return answer.status == 200

    def restart(self) -> None:
        """It ends and starts with the pipeline."""

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _number(row: Row) -> int:
    """The number of a row's key."""
    return int(row["k"][1:])


def _message(row: Row) -> bytes:
    return json.dumps(row).encode()


@contextlib.contextmanager
def feed_of(kind: str, folder: Path, *, restarts: bool) -> Generator[Any]:
    """A feed, until the block is left; what it needs and is not here skips the test.

    :param kind: which
    :param folder: where a server keeps what it has
    :param restarts: whether it is to be one that can be started again even if that takes long
    """
    pytest.importorskip(MODULES[kind])
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        made: Feed
        match kind:
            case "kafka":
                made = KafkaFeed(stack.enter_context(mock_kafka()))
            case "redis":
                made = RedisFeed(stack.enter_context(own_redis(folder)))
            case "jetstream":
                made = JetStreamFeed(stack.enter_context(own_nats(folder)))
            case "rabbit" if restarts:
                own = OwnRabbit(folder)
                stack.callback(own.stop)
                own.start()
                made = RabbitFeed(own)
            case "rabbit":
                if not listens(RABBIT):
                    pytest.skip(f"no RabbitMQ listens on 127.0.0.1:{RABBIT}")
                made = RabbitFeed(None)
            case "mqtt":
                made = MqttFeed(stack.enter_context(own_mosquitto(folder, *MqttFeed.LINES)))
            case _:
                made = HttpFeed()
        stack.callback(made.close)
        yield made
