"""Results as messages of MQTT 5."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from run_task._extras import need
from run_task.errors import ConfigError, SinkError
from run_task.observe._url import url_shown
from run_task.sinks.brokers._place_template import PlaceTemplate
from run_task.sinks.brokers._publishing import ANSWER_TIMEOUT, Outgoing, PublishingSink
from run_task.sources.brokers._credentials import Credentials
from run_task.sources.brokers._mqtt_link import MqttFailure, MqttLink

_LONGEST: Final = 65_535
"""How many bytes a topic may have."""

_PACKET: Final = 64
"""How many bytes a packet has at most besides its topic, its body and its properties of ours."""


class MqttSink(PublishingSink):
    """Publishes what each window gave to a topic of an MQTT 5 broker, as JSON: a message for each
    window, and of a stage by key for each window and key.

    ::

        bars.sink(MqttSink("bars/{key}", "mqtt://broker.example:1883"))

    The topic may have the fields ``{pipeline}``, ``{stage}`` and ``{key}``. Each is one level: a
    slash or a wildcard in it is written as in a URL, so that the key ``a/b`` is ``a%2Fb``; where
    there is no key, it is ``_``. The body is an object with ``id``, ``pipeline``, ``stage``,
    ``start``, ``end``, ``unit``, ``key`` of a stage by key, ``results`` by task, and ``errors``.
    ``id``, ``start`` and ``end`` are user properties of the message, too. The id is the same each
    time for a pipeline, stage, window and key.

    Messages have QoS 1, and a flush waits until the broker has acknowledged all that was written:
    who subscribes is told at least once. MQTT has no memory of what was published before: after a
    failure, or a kill, windows are published again, and whoever reads can tell by the id.

    Where the broker is away, or has not answered within ten seconds, ``write`` and ``flush`` raise
    a ConnectionError: it is tried again as the ``retry=`` of the sink says.

    :param topic: the topic, as ``"bars/{key}"``
    :param url: the address, ``mqtt://`` or, by TLS, ``mqtts://``
    :param client_id: under which the broker knows it; empty: the broker chooses one
    :param username: the user
    :param password: the password; also in the URL, or by one of the next two
    :param password_file: a file that holds it
    :param password_env: an environment variable that holds it
    :param tls: how ``mqtts://`` is checked; None: as the system does
    :raises ConfigError: if one of these cannot be, or paho-mqtt is not installed
    """

    def __init__(
        self,
        topic: str,
        url: str = "mqtt://localhost:1883",
        *,
        client_id: str = "",
        username: str | None = None,
        password: str | None = None,
        password_file: str | Path | None = None,
        password_env: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        where = f"MqttSink({topic!r}) at {url_shown(url)}"
        if type(client_id) is not str:
            raise ConfigError(f"{where}: client_id={client_id!r}: it is a text")
        self._properties: Any = need("paho.mqtt.properties", "mqtt").Properties
        self._publish: Any = need("paho.mqtt.packettypes", "mqtt").PacketTypes.PUBLISH
        self._link = MqttLink(
            *(where, url, Credentials(where, username, password, password_file, password_env)),
            client_id=client_id,
            session_s=0,
            tls=tls,
        )
        self._changed = threading.Condition()  # over the next three
        self._waiting = 0  # messages without an answer
        self._refusal: MqttFailure | None = None  # of the first that the broker does not take
        self._failure: BaseException | None = None  # why the connection is of no more use
        super().__init__(where, PlaceTemplate(where, "topic", topic, "/", "+#", _LONGEST), "id")

    def _open(self) -> None:
        self._waiting, self._refusal, self._failure = 0, None, None
        self._link.open(self._fail, published=self._answered)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._failure is None:
                self._failure = error
            self._changed.notify_all()

    def _answered(self, refusal: MqttFailure | None) -> None:
        with self._changed:
            self._waiting -= 1
            if self._refusal is None:
                self._refusal = refusal
            self._changed.notify_all()

    def _is_lost(self) -> bool:
        return self._failure is not None

    def _misfit(self, message: Outgoing) -> str | None:
        beside = sum(len(name) + len(value) + 5 for name, value in message.about.items())
        size = len(message.place.encode()) + len(message.body) + beside + _PACKET
        largest = self._link.largest
        if largest is None or size <= largest:
            return None
        return f"a message of {size:,} bytes is larger than the broker takes, {largest:,}"

    def _send(self, messages: Sequence[Outgoing]) -> None:
        for place, about, body in messages:
            self._until(self._link.in_flight - 1)
            beside = self._properties(self._publish)
            beside.ContentType = "application/json"
            beside.PayloadFormatIndicator = 1  # it is text
            beside.UserProperty = list(about.items())
            with self._changed:
                self._waiting += 1
            self._link.client.publish(place, body, qos=1, properties=beside)

    def _settle(self) -> None:
        self._until(0)

    def _until(self, waiting: int) -> None:
        """Wait until no more messages than that are without an answer."""
        with self._changed:
            before, deadline = self._waiting, time.monotonic() + ANSWER_TIMEOUT
            while self._failure is None and self._refusal is None and self._waiting > waiting:
                if self._waiting < before:  # it answers
                    before, deadline = self._waiting, time.monotonic() + ANSWER_TIMEOUT
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"it has not answered for {ANSWER_TIMEOUT:g} s")
            failure = self._failure or self._refusal
        if isinstance(failure, MqttFailure) and failure.of_message:
            raise SinkError(f"{self._where}: {failure}")
        if failure is not None:
            raise failure

    def _shut(self) -> None:
        self._link.close()

    def _failures(self) -> tuple[type[BaseException], ...]:
        return (MqttFailure, OSError, ValueError)

    def _told(self, error: Any) -> str:
        told = self._link.told(error)
        return f"{told}. Is the broker there, and does it listen at this address?"

    def _fatal(self, error: Any) -> str | None:
        return error.fatal if isinstance(error, MqttFailure) else None
