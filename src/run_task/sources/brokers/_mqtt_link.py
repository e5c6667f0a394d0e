"""A connection to a broker of MQTT 5, as sources and sinks have it."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from run_task._extras import need
from run_task.errors import ConfigError, described
from run_task.observe._url import redacted, secrets_in
from run_task.sources.brokers._credentials import Credentials
from run_task.sources.brokers._outage import not_again

IN_FLIGHT: Final = 65_535
"""How many messages may be on their way, or read and not acknowledged: the most that MQTT has."""

_CONNECTING: Final = 5.0
"""How many seconds connecting may take."""

_KEEP_ALIVE: Final = 5
"""After how many seconds without a word the broker is asked whether it is there."""

_SETTLING: Final = 0.3
"""How many seconds the broker is waited for before the connection is closed."""

_NOTHING: Final = "run-task/nothing"
"""A topic to which nobody subscribes."""

_FATAL: Final[Mapping[int, str]] = {
    132: "it does not speak MQTT 5",
    133: "give it another client_id=",
    134: "give username= and password=",
    135: "give username= and password= of one who may",
    138: "ask who runs it",
    140: "give username= and password=",
    142: "another client has the same client_id=: give each its own",
    155: "it takes no messages of QoS 1",
}
"""Codes of MQTT 5 that trying again does not mend, and what does."""

_OF_MESSAGE: Final = frozenset({144, 149, 153})
"""Codes of a message: its topic, its size, or what is in it."""


class MqttFailure(Exception):
    """The broker has refused something, or ended the connection.

    :param reason: what it said
    :param fatal: why there is no use in trying again; None: there is
    :param of_message: whether it is one message that it does not take
    """

    def __init__(self, reason: str, fatal: str | None = None, *, of_message: bool = False) -> None:
        super().__init__(reason)
        self.fatal = fatal
        self.of_message = of_message


class MqttLink:
    """A connection to a broker of MQTT 5, by paho in a thread of its own.

    :param where: whose it is, for messages
    :param url: the address
    :param credentials: user and password
    :param client_id: the id of the client
    :param session_s: how many seconds the broker keeps the session
    :param tls: how ``mqtts://`` is checked
    :raises ConfigError: if the address is none
    """

    def __init__(
        self,
        where: str,
        url: str,
        credentials: Credentials,
        *,
        client_id: str,
        session_s: int,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._where, self._url, self._credentials = where, url, credentials
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise ConfigError(f"{where}: its address is mqtt://host:1883, or mqtts://host:8883")
        self._host = parts.hostname
        self._secure = parts.scheme == "mqtts"
        self._port = port or (8883 if self._secure else 1883)
        self._username, self._password = (
            None if one is None else unquote(one) for one in (parts.username, parts.password)
        )
        self._client_id, self._session_s, self._tls = client_id, session_s, tls
        self.client: Any = None
        """The client, while it is connected."""
        self.in_flight: int = IN_FLIGHT
        """How many messages may be sent that the broker has not answered."""
        self.largest: int | None = None
        """How many bytes a packet may have at most; None: the broker has not said."""
        self.answered_at = float("-inf")
        """When the broker last answered :meth:`ask`, by the monotonic clock."""
        self._answered = threading.Event()
        self._answered.set()  # it is asked nothing yet

    def open(
        self,
        failed: Callable[[BaseException], object],
        *,
        take: Callable[[Any], object] | None = None,
        resume: Callable[[bool], object] | None = None,
        topics: Sequence[str] = (),
        qos: int = 0,
        published: Callable[[MqttFailure | None], object] | None = None,
    ) -> None:
        """Connect, and subscribe. What is called is called in the thread of the client.

        :param failed: called when the connection is lost: it is of no more use then
        :param take: called with each message
        :param resume: called once it is connected, with whether the broker knows the session
        :param topics: what to subscribe to
        :param qos: with which quality of service
        :param published: called for each message that the broker has answered, with why it does not
            take it, if it does not
        :raises MqttFailure: if the broker refuses
        :raises OSError: if it cannot be reached
        """
        paho = need("paho.mqtt.client", "mqtt")
        enums = need("paho.mqtt.enums", "mqtt")
        properties = need("paho.mqtt.properties", "mqtt").Properties
        types = need("paho.mqtt.packettypes", "mqtt").PacketTypes
        client = paho.Client(
            enums.CallbackAPIVersion.VERSION2,
            self._client_id,
            protocol=enums.MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        username = self._credentials.username or self._username
        if username is not None:
            client.username_pw_set(username, self._credentials.password() or self._password)
        if self._secure:
            client.tls_set_context(self._tls or ssl.create_default_context())
        client.connect_timeout = _CONNECTING
        client.max_inflight_messages_set(IN_FLIGHT)  # who publishes counts
        settled = threading.Event()
        failures: list[MqttFailure] = []
        self._answered.set()

        def fail(code: Any) -> None:
            failure = failure_of(code)
            failures.append(failure)
            failed(failure)
            settled.set()

        def on_connect(_: Any, __: Any, flags: Any, code: Any, told: Any) -> None:
            if code.is_failure:
                fail(code)
                return
            self.in_flight = getattr(told, "ReceiveMaximum", IN_FLIGHT)
            self.largest = getattr(told, "MaximumPacketSize", None)
            if resume is not None:
                resume(flags.session_present)
            if topics:
                client.subscribe([(topic, qos) for topic in topics])
            else:
                settled.set()

        def on_subscribe(_: Any, __: Any, ___: Any, codes: Any, ____: Any) -> None:
            for code in codes:
                if code.is_failure:
                    told = f"it refuses the subscription: {code}"
                    failures.append(MqttFailure(told, not_again(told)))
                    failed(failures[-1])
            settled.set()

        def on_disconnect(_: Any, __: Any, ___: Any, code: Any, ____: Any) -> None:
            self._answered.set()  # it never is
            fail(code)

        client.on_connect, client.on_disconnect = on_connect, on_disconnect
        client.on_subscribe = on_subscribe

        def on_unsubscribe(*_: object) -> None:
            self.answered_at = time.monotonic()
            self._answered.set()

        client.on_unsubscribe = on_unsubscribe
        if take is not None:
            wanted_by = take

            def on_message(_: Any, __: Any, message: Any) -> None:
                # What the session has comes before the answer to the subscription, however much.
                settled.set()
                client.on_message = on_later_message
                wanted_by(message)

            def on_later_message(_: Any, __: Any, message: Any) -> None:
                wanted_by(message)

            client.on_message = on_message
        if published is not None:
            wants_to_know = published

            def on_publish(_: Any, __: Any, ___: Any, code: Any, ____: Any) -> None:
                wants_to_know(failure_of(code) if code.is_failure else None)

            client.on_publish = on_publish
        wanted = properties(types.CONNECT)
        wanted.SessionExpiryInterval = self._session_s
        wanted.ReceiveMaximum = IN_FLIGHT
        client.connect(
            self._host, self._port, _KEEP_ALIVE, clean_start=not self._session_s, properties=wanted
        )
        self.client = client
        client.loop_start()
        if not settled.wait(_CONNECTING):
            raise TimeoutError(f"it has not answered for {_CONNECTING:g} s")
        if failures:
            raise failures[0]

    def ask(self) -> None:
        """Ask the broker whether it is there, if it is connected and that is not being asked: it is
        told to end a subscription that there is not, which it has to answer. What MQTT has for it,
        a ping, tells nobody that it was answered."""
        client = self.client
        if client is not None and self._answered.is_set():
            self._answered.clear()
            client.unsubscribe(_NOTHING)

    def settle(self) -> None:
        """Wait until the broker has read what it was sent, if it is connected; not for long. A
        broker that sends something to a connection that is closed, an answer for one, loses what
        it has not read of it: acknowledgements, whose messages would come again."""
        deadline = time.monotonic() + _SETTLING
        for _ in range(2):  # what it is being asked may have been sent before these
            if self.client is None or not self.client.is_connected():
                return
            self.ask()
            if not self._answered.wait(deadline - time.monotonic()):
                return

    def acknowledge(self, numbers: Sequence[int]) -> None:
        """Acknowledge messages, if it is connected. From any thread."""
        client = self.client
        if client is not None:
            for number in numbers:
                client.ack(number, 1)

    def close(self) -> None:
        """Disconnect, if it is connected. It raises nothing."""
        client, self.client = self.client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def told(self, error: BaseException) -> str:
        """What an error says, without secrets."""
        return redacted(described(error), self.secrets())

    def secrets(self) -> list[str]:
        """What stands in no message."""
        return [*self._credentials.secrets(), *secrets_in(self._url, {})]


def failure_of(code: Any) -> MqttFailure:
    """What a reason of MQTT's means.

    :param code: the reason, as paho has it
    """
    # 128 says nothing, as does paho, where a connection has ended without a word.
    reason = "the connection was lost" if code.value == 128 else f"the broker says: {code}"
    cure = _FATAL.get(code.value)
    fatal = None if cure is None else not_again(reason, cure)
    return MqttFailure(reason, fatal, of_message=code.value in _OF_MESSAGE)
