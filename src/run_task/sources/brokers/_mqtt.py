"""Topics of MQTT 5 as a source."""

from __future__ import annotations

import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Unpack

from run_task._extras import need
from run_task.errors import ConfigError
from run_task.observe._url import url_shown
from run_task.sources.brokers._broker_source import BrokerSource
from run_task.sources.brokers._credentials import Credentials
from run_task.sources.brokers._mailbox import Mailbox
from run_task.sources.brokers._message import Message, MessageOptions, MessageReader, Stamp
from run_task.sources.brokers._mqtt_link import IN_FLIGHT, MqttFailure, MqttLink
from run_task.time._interval import TimeUnit
from run_task.time._length import IntervalLike, length

_CATCHING_UP: Final = 0.2
"""For how many seconds after it has connected it is taken to be behind."""

_STREAM: Final = "messages"


class MqttSource(BrokerSource[int]):
    """The messages of topics of an MQTT 5 broker, each a row or several::

        source = MqttSource("rooms/+/celsius", client_id="analytics", key="topic")
        pipeline.source(source, into=readings, journal="raw/")

    The broker keeps a session under the client id: what is published with QoS 1 while the program
    is away comes once it is back, as long as the session lives, and as many as the broker keeps. A
    message is acknowledged once a checkpoint or the journal holds its rows, or, without either,
    about a second after they have entered the data. One that was not acknowledged when the program
    ended comes again: at least once. One that comes again after the connection was cut while the
    program lived is recognised by its number, unless its acknowledgement got lost in the cut.

    :param topics: the topic filter, or several, also with ``+`` and ``#``
    :param url: the address, ``mqtt://`` or, by TLS, ``mqtts://``
    :param client_id: under which the broker keeps the session; no other client has the same
    :param qos: 1: at least once; 0: at most once
    :param session: how long the broker keeps the session while the program is away
    :param username: the user
    :param password: the password; also in the URL, or by one of the next two
    :param password_file: a file that holds it
    :param password_env: an environment variable that holds it
    :param tls: how ``mqtts://`` is checked; None: as the system does
    :param options: what all sources of messages take: ``decode``, ``timestamp``, ``unit``,
        ``stored``, ``zone``, ``columns``, ``key`` (which gets the topic), ``largest`` and
        ``on_malformed``; MQTT has no time of a message, so ``Stamp.BROKER`` cannot be
    :raises ConfigError: if one of these cannot be, or paho-mqtt or msgspec are not installed
    """

    def __init__(
        self,
        topics: str | Sequence[str],
        url: str = "mqtt://localhost:1883",
        *,
        client_id: str,
        qos: int = 1,
        session: IntervalLike = "1d",
        username: str | None = None,
        password: str | None = None,
        password_file: str | Path | None = None,
        password_env: str | None = None,
        tls: ssl.SSLContext | None = None,
        **options: Unpack[MessageOptions],
    ) -> None:
        names = [topics] if isinstance(topics, str) else list(topics)
        where = f"MqttSource({', '.join(map(repr, names))}) at {url_shown(url)}"
        client = need("paho.mqtt.client", "mqtt")
        for name in names:
            if type(name) is not str or client.Client._filter_wildcard_len_check(
                name.encode()
            ):  # what paho itself asks
                raise ConfigError(f"{where}: {name!r} is no topic filter, as 'rooms/+/celsius'")
        if not names:
            raise ConfigError(f"{where}: topics: name one or several")
        if type(client_id) is not str or not client_id:
            raise ConfigError(f"{where}: client_id={client_id!r}: it is a text of its own")
        if type(qos) is not int or qos not in (0, 1):
            raise ConfigError(f"{where}: qos={qos!r}: it is 1, at least once, or 0, at most once")
        if options.get("timestamp") is Stamp.BROKER:
            raise ConfigError(
                f"{where}: timestamp=Stamp.BROKER: MQTT tells no time of a message: take a field "
                f"of the messages, or Stamp.ARRIVAL"
            )
        kept_ns = length(session, f"{where}: session={{}}").nanos
        self._link = MqttLink(
            *(where, url, Credentials(where, username, password, password_file, password_env)),
            client_id=client_id,
            session_s=min(kept_ns // TimeUnit.SECONDS.nanos, 2**32 - 1),
            tls=tls,
        )
        self._topics, self._qos = names, qos
        self._mailbox = Mailbox(IN_FLIGHT)
        self._mutex = threading.Lock()
        self._number = 0  # of the last message that came
        self._unacked: deque[tuple[int, int]] = deque()  # number, and MQTT's own of the message
        self._open_ids: set[int] = set()  # MQTT's own numbers of these
        self._opened_at = 0.0
        self._caught_up = False
        cure = "Is the broker there, and does it listen at this address?"
        super().__init__(where, cure, MessageReader(where, "mqtt", _place, **options))
        self._marks[_STREAM] = 0

    @property
    def unacknowledged(self) -> int:
        """How many messages were read, and are not acknowledged: at most 65 535 may be, and as many
        as the broker lets (``max_inflight_messages`` and the like)."""
        return len(self._unacked)

    def seek(self, position: Any, /) -> None:
        """Count on from there: it is the broker that remembers what was not acknowledged."""
        super().seek(position)
        self._skip.clear()
        self._number = self._marks[_STREAM]

    def commit(self, position: Any, /) -> None:
        """Acknowledge all messages up to there.

        :param position: what :attr:`position` was
        """
        mark: Any = position[_STREAM]
        until: int = mark if isinstance(mark, int) else mark[0]
        with self._mutex:
            done: list[int] = []
            while self._unacked and self._unacked[0][0] <= until:
                _, number = self._unacked.popleft()
                self._open_ids.discard(number)
                done.append(number)
        self._link.acknowledge(done)

    def _open(self) -> None:
        self._mailbox = Mailbox(IN_FLIGHT)
        self._opened_at, self._caught_up = time.monotonic(), False
        self._link.open(
            self._mailbox.fail,
            take=self._take,
            resume=self._resume,
            topics=self._topics,
            qos=self._qos,
        )
        self._show()

    def _resume(self, present: bool, /) -> None:
        """It is connected. In the thread of the client."""
        if not present:  # the broker knows of no message that it has sent
            with self._mutex:
                self._unacked.clear()
                self._open_ids.clear()

    def _take(self, message: Any) -> None:
        """A message has come. In the thread of the client."""
        number: int | None = None
        if message.qos:
            number = message.mid
            with self._mutex:
                if message.dup and number in self._open_ids:
                    return  # it was read before, and its acknowledgement is still to be sent
        self._mailbox.put((message.payload, message.topic, None, number))

    def _pull(self) -> Sequence[Message]:
        messages = self._mailbox.take()
        if not self._caught_up and len(self._mailbox) == len(messages):
            # An answer comes behind what the broker has sent of its own.
            answered = self._link.answered_at > self._opened_at
            self._caught_up = answered and time.monotonic() - self._opened_at > _CATCHING_UP
        if messages:
            self._show()
        else:
            self._shown_at = max(self._shown_at, self._link.answered_at)
            self._link.ask()
        read: list[Message] = []
        # Only now it is known that they are read: what the connection takes with it comes again.
        with self._mutex:
            for payload, topic, _, number in messages:
                self._number += 1
                read.append((payload, topic, None, self._number))
                if number is not None:
                    self._open_ids.add(number)
                    self._unacked.append((self._number, number))
        return read

    def _shut(self) -> None:
        self._mailbox.close()
        self._link.settle()
        self._link.close()

    def _failures(self) -> tuple[type[BaseException], ...]:
        return (MqttFailure, OSError, TimeoutError, ValueError)

    def _fatal(self, error: BaseException) -> str | None:
        return error.fatal if isinstance(error, MqttFailure) else None

    def _secrets(self) -> Sequence[str]:
        return self._link.secrets()

    def _stream(self, message: Message) -> str:
        return _STREAM

    def _move(self, messages: Sequence[Message]) -> None:
        if messages:
            self._marks[_STREAM] = messages[-1][3]

    def _behind(self) -> int | None:
        # The broker does not tell what it still has: it is behind until it has sent nothing new.
        waits = max(0, len(self._mailbox) - self._waiting)  # what is in hand is counted besides
        return waits + (not self._caught_up)


def _place(place: int) -> str:
    return f"message {place:,}"
