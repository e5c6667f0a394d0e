"""What was published to JetStream and to MQTT, for tests of the sinks that do so."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from tests.support.servers import MQTT_PORT, NATS_PORT, NatsAdmin, unique
from tests.support.threads import PATIENCE, eventually

from run_task.sinks import MqttSink, NatsSink

_EXPECTED: Final = "Nats-Expected-Stream"


class Published(NamedTuple):
    """A message."""

    place: str
    about: dict[str, str]
    body: Any


class JetStream:
    """A stream, which keeps what was published."""

    def __init__(self, port: int = NATS_PORT, **options: Any) -> None:
        self.port, self.name = port, unique("S")
        self.admin = NatsAdmin(port)
        self._options = options

    def __enter__(self) -> Self:
        self.admin.make_stream(self.name, f"{self.name}.>", **self._options)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self.admin.delete_stream(self.name)

    def sink(self, port: int | None = None, rest: str = "all", **options: Any) -> NatsSink:
        return NatsSink(
            f"{self.name}.{rest}",
            f"nats://127.0.0.1:{port or self.port}",
            stream=self.name,
            **options,
        )

    def received(self, count: int | None = None) -> list[Published]:
        """All that the stream keeps, of which there are as many as that, if it is said."""

        async def read(client: Any) -> list[Published]:
            stream = client.jetstream()
            kept = (await stream.stream_info(self.name)).state.messages
            assert count in (None, kept), f"{kept} messages"
            subscription = await stream.subscribe(f"{self.name}.>", ordered_consumer=True)
            found = [await subscription.next_msg(PATIENCE) for _ in range(kept)]
            return [
                Published(
                    one.subject.removeprefix(f"{self.name}."),
                    {name: value for name, value in one.headers.items() if name != _EXPECTED},
                    json.loads(one.data),
                )
                for one in found
            ]

        found: list[Published] = self.admin.do(read)
        return found


class MqttTopics:
    """Topics below one of its own, and somebody who has subscribed to them."""

    def __init__(self, port: int = MQTT_PORT, **options: Any) -> None:
        import paho.mqtt.client as paho
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        self.port, self.name = port, unique("t")
        self._found: list[Published] = []
        self._ready = threading.Event()
        client: Any = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        if options:
            client.username_pw_set(**options)
        client.on_message = self._take
        client.on_subscribe = self._subscribed
        self._client = client

    def _subscribed(self, *_: Any) -> None:
        self._ready.set()

    def _take(self, _: Any, __: Any, message: Any) -> None:
        about = dict(message.properties.UserProperty)
        place = message.topic.removeprefix(f"{self.name}/")
        self._found.append(Published(place, about, json.loads(message.payload)))

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self.port)
        self._client.loop_start()
        self._client.subscribe(f"{self.name}/#", 1)
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def sink(self, port: int | None = None, rest: str = "all", **options: Any) -> MqttSink:
        place = rest.replace(".", "/")
        return MqttSink(f"{self.name}/{place}", f"mqtt://127.0.0.1:{port or self.port}", **options)

    def received(self, count: int) -> list[Published]:
        """What has come, once it is as many as that at least."""
        eventually(lambda: len(self._found) >= count)
        return [*self._found]


Broker = JetStream | MqttTopics


def broker(kind: str, port: int | None = None) -> Broker:
    """The broker of this machine."""
    if kind == "nats":
        return JetStream(port or NATS_PORT)
    return MqttTopics(port or MQTT_PORT)


def sink_said_in(folder: Path) -> NatsSink | MqttSink | None:
    """The sink that a file in a folder says, which :func:`say_sink` has written; None: none."""
    file = folder / "published.json"
    if not file.exists():
        return None
    known = json.loads(file.read_text())
    if known["kind"] == "nats":
        return NatsSink(f"{known['name']}.{{stage}}.{{key}}", stream=known["name"])
    return MqttSink(f"{known['name']}/{{stage}}/{{key}}")


def say_sink(kind: str, name: str, folder: Path) -> None:
    """Say in a folder to which sink to publish."""
    (folder / "published.json").write_text(json.dumps({"kind": kind, "name": name}))
