"""Servers of NATS and MQTT for tests: those of this machine, and some of a test's own."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.support.threads import PATIENCE, eventually

NATS_PORT = 4222
MQTT_PORT = 1883


def is_there(port: int) -> bool:
    """Whether something listens there on 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def needs(port: int, what: str) -> None:
    """Skip a test where a server of this machine is not there."""
    if not is_there(port):
        pytest.skip(f"no {what} listens on 127.0.0.1:{port}")


def unique(prefix: str = "t") -> str:
    """A name that no other test has."""
    return f"{prefix}{secrets.token_hex(6)}"


class OwnServer:
    """A server of a test's own, which may be ended and started again on its port.

    :param command: the program and its arguments; ``PORT`` among them stands for the port
    """

    def __init__(self, command: Iterable[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._command = [part.replace("PORT", str(self.port)) for part in command]
        if shutil.which(self._command[0]) is None:
            pytest.skip(f"{self._command[0]} is not installed")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        eventually(lambda: is_there(self.port), within=60)  # a busy machine takes its time

    def kill(self) -> None:
        """Kill it."""
        self._end(9)

    def stop(self) -> None:
        """Have it end in order."""
        self._end(15)

    @contextlib.contextmanager
    def held_up(self) -> Generator[None]:
        """Have it do nothing until the block is left; the system still takes what it is sent."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(PATIENCE)


@contextlib.contextmanager
def own_nats(folder: Path, *options: str) -> Generator[OwnServer]:
    """NATS with JetStream, until the block is left."""
    server = OwnServer(
        ["nats-server", "-a", "127.0.0.1", "-p", "PORT", "-js", "-sd", str(folder), *options]
    )
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def own_mosquitto(folder: Path, *lines: str) -> Generator[OwnServer]:
    """Mosquitto with what it keeps in a folder, until the block is left.

    :param lines: of its configuration; None of them: whoever comes may
    """
    config = folder / "mosquitto.conf"
    server = OwnServer(["mosquitto", "-c", str(config)])
    said = lines or ("allow_anonymous true",)
    config.write_text(
        f"listener {server.port} 127.0.0.1\npersistence true\nautosave_interval 1\nuser root\n"
        f"persistence_location {folder}/\n" + "\n".join(said) + "\n"
    )
    server.start()
    try:
        yield server
    finally:
        server.kill()


class NatsAdmin:
    """A client of NATS that tests publish by, anew for each deed."""

    def __init__(self, port: int = NATS_PORT, **options: Any) -> None:
        self.url = f"nats://127.0.0.1:{port}"
        self._options = options

    def do(self, deed: Any) -> Any:
        """Run what a function makes of a connected client."""

        async def run() -> Any:
            import nats

            client: Any = await nats.connect(self.url, **self._options)  # pyright: ignore[reportUnknownMemberType]  its options are untyped
            try:
                return await deed(client)
            finally:
                await client.close()

        return asyncio.run(run())

    def publish(self, subject: str, *bodies: bytes) -> None:
        async def send(client: Any) -> None:
            for body in bodies:
                await client.publish(subject, body)
            await client.flush()

        self.do(send)

    def make_stream(self, name: str, subject: str, **options: Any) -> None:
        async def make(client: Any) -> None:
            await client.jetstream().add_stream(name=name, subjects=[subject], **options)

        self.do(make)

    def delete_stream(self, name: str) -> None:
        async def delete(client: Any) -> None:
            with contextlib.suppress(Exception):
                await client.jetstream().delete_stream(name)

        self.do(delete)


def mqtt_publish(topic: str, *bodies: bytes, port: int = MQTT_PORT, **options: Any) -> None:
    """Publish messages with QoS 1, and wait until the broker has them.

    :param options: ``username`` and ``password``
    """
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.max_inflight_messages_set(1000)
    if options:
        client.username_pw_set(**options)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        sent = [client.publish(topic, body, qos=1) for body in bodies]
        for one in sent:
            one.wait_for_publish(PATIENCE)
    finally:
        client.disconnect()
        client.loop_stop()


class Gathered:
    """What a source gives to a thread that reads it.

    :ivar rows: the rows so far
    :ivar failure: what it raised
    """

    def __init__(self, source: Any, *, batched: bool = True) -> None:
        self.source = source
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.failure: BaseException | None = None
        self._batched = batched
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            if self._batched:
                for batch in self.source.batches():
                    self.rows += batch.rows()
            else:
                for row in self.source:
                    self.rows.append(row)
        except BaseException as error:
            self.failure = error

    def numbers(self) -> list[int]:
        """The timestamps of the rows."""
        return [timestamp for timestamp, _ in self.rows]

    def until(self, count: int) -> list[int]:
        """Wait for so many rows."""
        deadline = time.monotonic() + 3 * PATIENCE
        while len(self.rows) < count and self.failure is None:
            assert time.monotonic() < deadline, f"{len(self.rows)} of {count} rows"
            time.sleep(0.001)
        assert self.failure is None, self.failure
        return self.numbers()

    def fails(self) -> BaseException:
        """Wait for what it raises."""
        self._thread.join(3 * PATIENCE)
        assert self.failure is not None
        return self.failure

    def ends(self, within: float) -> bool:
        """Wait until it gives no more, for so many seconds at most. Returns whether it does not."""
        self._thread.join(within)
        return not self._thread.is_alive()

    def close(self) -> None:
        self.source.close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def gathering(source: Any, *, batched: bool = True) -> Generator[Gathered]:
    """Read a source in a thread, until the block is left."""
    gathered = Gathered(source, batched=batched)
    try:
        yield gathered
    finally:
        gathered.close()


def messages(*numbers: int) -> list[bytes]:
    """Messages with a row each, stamped with a number."""
    return [b'{"timestamp": %d, "value": %d}' % (number, number * 10) for number in numbers]
