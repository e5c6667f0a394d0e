"""A queue of RabbitMQ, or of what speaks AMQP 0.9.1, as a source."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Unpack

from run_task._extras import need
from run_task.errors import ConfigError, described
from run_task.observe._log import silence
from run_task.observe._url import redacted, secrets_in, url_shown
from run_task.sources._positioned import Position
from run_task.sources.brokers._broker_source import CHUNK, WAIT, BrokerSource
from run_task.sources.brokers._credentials import Credentials
from run_task.sources.brokers._message import Message, MessageOptions, MessageReader
from run_task.sources.brokers._outage import not_again
from run_task.sources.brokers._stream_merge import StreamMerge

PREFETCH: Final = 20_000
"""How many messages RabbitMQ sends at most that were not acknowledged, unless said otherwise."""

_SETTLING: Final = 5.0
"""For how many seconds after connecting another consumer may be that of a connection that is gone,
of which RabbitMQ does not know it yet: nothing is given until then."""

_ALONE: Final = 2
"""At how many looks there is no other consumer whose messages may come again: one that ends stops
consuming before it gives them back."""

_MOST: Final = 65_535  # which the protocol has room for

_DENIED: Final = (403, 404, 405, 406, 530)
"""Codes of AMQP for what trying again does not cure."""


class RabbitSource(BrokerSource[int]):
    """The messages of a queue of RabbitMQ, each a row or several.

    ::

        source = RabbitSource("trades", "amqp://localhost:5672/", password_env="RABBIT_PASSWORD")
        pipeline.source(source, into=trades)

    A queue forgets what is acknowledged, and gives again what is not. So a message is acknowledged
    once a checkpoint or the journal has its rows, or they are in the data; after a restart the
    queue gives the others again. A restart between the two gives rows that are already there:
    RabbitMQ has no positions by which they would be known, so take ``dedupe=`` of the pipeline's
    source, if a column tells a row from all others. Where the connection is lost and the process
    goes on, messages with a ``message_id`` that were given before are not given again.

    Messages that a consumer had which is gone, as a process that was killed, come again behind
    those that were published later. So nothing is given after connecting before it is known that no
    other consumer is there, which takes some 0.1 s, and 5 s where there is one; what has come by
    then is given by time.

    A message of which no row can be made is acknowledged at once: it does not come again.

    :param queue: the name of the queue
    :param url: the address, as ``"amqp://user@host:5672/vhost"``; ``amqps://`` for TLS
    :param prefetch: how many messages may be under way that are not acknowledged, up to 65,535.
        They are acknowledged about once a second, or with each checkpoint or fsync of the journal:
        so it bounds the rows that come between two of these
    :param declare: arguments to declare the queue with, where it is not there, such as
        ``{"durable": True}``; None: it has to be there
    :param username: the user
    :param password: the password; also in the URL, or by one of the next two
    :param password_file: a file that holds it
    :param password_env: an environment variable that holds it
    :param options: what all sources of messages take: ``decode``, ``timestamp``, ``unit``,
        ``stored``, ``zone``, ``columns``, ``key`` (which gets the routing key), ``largest`` and
        ``on_malformed``; ``Stamp.BROKER`` is the property ``timestamp``, in whole seconds, which
        its publisher sets
    :raises ConfigError: if one of these cannot be, or pika or msgspec are not installed
    """

    def __init__(
        self,
        queue: str,
        url: str = "amqp://localhost:5672/",
        *,
        prefetch: int = PREFETCH,
        declare: Mapping[str, Any] | None = None,
        username: str | None = None,
        password: str | None = None,
        password_file: str | Path | None = None,
        password_env: str | None = None,
        **options: Unpack[MessageOptions],
    ) -> None:
        where = f"RabbitSource({queue!r}) at {url_shown(url)}"
        if type(queue) is not str or not queue:
            raise ConfigError(f"{where}: queue={queue!r}: it is the name of a queue")
        if type(prefetch) is not int or not 1 <= prefetch <= _MOST:
            raise ConfigError(f"{where}: prefetch={prefetch!r}: it is an int from 1 to {_MOST:,}")
        self._pika = need("pika", "rabbitmq")
        # What is raised where a server says nothing, which is no AMQPError.
        workflow = need("pika.adapters.utils.connection_workflow", "rabbitmq")
        self._connecting: type[BaseException] = workflow.AMQPConnectorException
        silence("pika")  # which logs each try as several errors, with tracebacks
        self._credentials = Credentials(where, username, password, password_file, password_env)
        self._queue = queue
        self._url = url
        self._prefetch = prefetch
        self._declare = None if declare is None else dict(declare)
        try:
            if not url.startswith(("amqp://", "amqps://")):
                raise ValueError
            self._pika.URLParameters(url)
        except (ValueError, TypeError):
            raise ConfigError(
                f"{where}: it is no URL of RabbitMQ: write amqp://user@host:5672/vhost"
            ) from None
        self._connection: Any = None
        self._channel: Any = None
        self._came: list[Message] = []
        self._unread = 0  # how many messages this connection has brought that are not given yet
        self._given = 0  # how many messages were given, or passed over, on all connections
        self._kept = 0  # up to which of them all are kept
        self._tags: deque[tuple[int, int, str | None]] = deque()
        self._again: deque[tuple[int, int, str]] = deque()
        self._unkept: set[str] = set()  # ids of messages that were given and are not kept yet
        self._depth = 0
        self._opened_at = float("-inf")
        self._settling = True  # whether messages may come again that are older than those that came
        self._alone = 0  # at how many looks, one after another, there was no other consumer
        self._asked_at = float("-inf")
        cure = "Is RabbitMQ there, and does it listen at this address?"
        super().__init__(where, cure, MessageReader(where, "rabbitmq", _place, **options))

    @property
    def position(self) -> Position:
        """The number of messages given, in this run and those before: the queue itself knows what
        it is to give again."""
        return self._given

    def seek(self, position: Position, /) -> None:
        """Count on from there, as a commit of an earlier run's position is for none of the messages
        that are given from now on. It is the queue that knows which these are."""
        self._given = int(position)

    def commit(self, position: Position, /) -> None:
        """Have the messages acknowledged, by the thread that reads, before it reads on."""
        self._kept = max(self._kept, position)

    def _open(self) -> None:
        pika = self._pika
        parameters = pika.URLParameters(self._url)
        parameters.socket_timeout = parameters.blocked_connection_timeout = 5
        parameters.connection_attempts = 1
        username, password = self._credentials.username, self._credentials.password()
        if username is not None or password is not None:
            before = parameters.credentials
            parameters.credentials = pika.PlainCredentials(
                username or before.username, before.password if password is None else password
            )
        self._connection = pika.BlockingConnection(parameters)
        self._channel = channel = self._connection.channel()
        if self._declare is None:
            channel.queue_declare(self._queue, passive=True)
        else:
            channel.queue_declare(self._queue, **self._declare)
        channel.basic_qos(prefetch_count=self._prefetch)
        self._tags.clear()
        self._again.clear()
        channel.basic_consume(self._queue, self._take)
        self._opened_at, self._alone, self._settling = time.monotonic(), 0, True
        self._ask()

    def _ask(self) -> None:
        """Ask how many messages wait in the queue. What it had sent before it answered is here
        then."""
        asked_at = time.monotonic()
        told = self._channel.queue_declare(self._queue, passive=True)
        # The first answer may overtake messages that left the queue before, as all of a consumer
        # do that has gone: the queue gives these to the server's end of the channel, which sends
        # them behind an answer that it waits for. The second answer comes behind them.
        self._channel.queue_declare(self._queue, passive=True)
        self._connection.process_data_events(time_limit=0)
        self._depth = told.method.message_count  # not before these are counted
        if self._alone < _ALONE:
            self._alone = self._alone + 1 if told.method.consumer_count < 2 else 0
        self._asked_at = asked_at
        self._show(asked_at)

    def _take(self, channel: object, method: Any, properties: Any, body: bytes) -> None:
        self._unread += 1
        sent = properties.timestamp
        sent_ns = None if sent is None else int(sent) * 1_000_000_000
        self._came.append((body, method.routing_key, sent_ns, (method, properties.message_id)))

    def _pull(self) -> Sequence[Message]:
        self._acknowledge()
        if self._settling or not self._came:
            self._connection.process_data_events(time_limit=WAIT)
        if time.monotonic() - self._asked_at > WAIT:
            self._ask()
        if self._settling:
            if not self._has_settled():
                return ()
            self._came, self._settling = self._by_time(self._came), False
        came, self._came = self._came[:CHUNK], self._came[CHUNK:]
        if self._unkept and any(message[3][0].redelivered for message in came):
            came = self._not_given(came)
        return came

    def _has_settled(self) -> bool:
        """Whether the messages are here that a consumer had which is gone, as many as there may
        be."""
        if time.monotonic() - self._opened_at > _SETTLING:
            return True
        return self._alone >= _ALONE and (not self._depth or self._unread >= self._prefetch)

    def _by_time(self, messages: list[Message]) -> list[Message]:
        """Messages that come again, brought together by time with those that came before them: a
        row of these would tell windows that those before it are all here."""
        again = [message for message in messages if message[3][0].redelivered]
        if not self._reader.stamps_by_message or len(again) in (0, len(messages)):
            return messages
        merge = StreamMerge(self._where, self._reader.times, self._reader.now)
        merge.put("again", again)
        merge.put("new", [message for message in messages if not message[3][0].redelivered])
        found: list[Message] = []
        while chunk := merge.take(()):
            found += chunk
            merge.taken(len(chunk))
        return found

    def _not_given(self, came: Sequence[Message]) -> list[Message]:
        """Messages without those that were given on an earlier connection: these are acknowledged
        once all is kept that was given by now."""
        new: list[Message] = []
        for message in came:
            method, number = message[3]
            if method.redelivered and number in self._unkept:
                self._again.append((self._given, method.delivery_tag, number))
                self._unread -= 1
            else:
                new.append(message)
        return new

    def _acknowledge(self) -> None:
        """Acknowledge what is kept."""
        kept, tags, last = self._kept, self._tags, None
        while tags and tags[0][0] <= kept:
            _, last, number = tags.popleft()
            self._unkept.discard(number or "")
        if last is not None:
            self._channel.basic_ack(last, multiple=True)
        while self._again and self._again[0][0] <= kept:
            _, tag, number = self._again.popleft()
            self._unkept.discard(number)
            self._channel.basic_ack(tag)

    def _shut(self) -> None:
        connection, self._connection = self._connection, None
        self._came, self._unread = [], 0
        if connection is not None:
            with contextlib.suppress(Exception):
                self._acknowledge()
            with contextlib.suppress(Exception):
                connection.close()

    def _failures(self) -> tuple[type[BaseException], ...]:
        return (self._pika.exceptions.AMQPError, self._connecting, OSError)

    def _cause(self, error: BaseException) -> BaseException:
        # What pika raises has what went wrong in it, and no text of it.
        within = getattr(error, "exception", None) or next(iter(error.args), None)
        return self._cause(within) if isinstance(within, BaseException) else error

    def _fatal(self, error: BaseException) -> str | None:
        raised = self._pika.exceptions
        probable = raised.ProbableAuthenticationError | raised.ProbableAccessDeniedError
        # What pika takes for probable is any end of a connection that is being opened: also by a
        # network that is cut, and not only by the server, which then tells why.
        if isinstance(error, raised.AuthenticationError) or (
            isinstance(error, probable) and "ClosedByBroker" in str(error)
        ):
            cure = "give username= and password=, of a user who may enter the vhost of the URL"
            return not_again(self._told(error), cure)
        code = getattr(error, "reply_code", None)
        if code == 404:
            return f"there is no queue {self._queue!r}: create it, or pass declare={{...}}"
        if code in _DENIED:
            return not_again(self._told(error))
        return None

    def _told(self, error: BaseException) -> str:
        return redacted(described(error), self._secrets())

    def _secrets(self) -> Sequence[str]:
        return [*self._credentials.secrets(), *secrets_in(self._url, {})]

    def _stream(self, message: Message) -> str:
        return self._queue

    def _move(self, messages: Sequence[Message]) -> None:
        for message in messages:
            method, number = message[3]
            self._given += 1
            self._unread -= 1
            self._tags.append((self._given, method.delivery_tag, number))
            if number is not None:
                self._unkept.add(number)

    def _pass(self, message: Message) -> None:
        # It is no row's, so no row's commit would be for it.
        self._within = None
        self._unread -= 1
        with contextlib.suppress(*self._failures()):  # then it comes again
            self._channel.basic_ack(message[3][0].delivery_tag)

    def _behind(self) -> int:
        return self._depth + self._unread + self._settling


def _place(place: tuple[Any, str | None]) -> str:
    method, number = place
    told = "" if number is None else f", id {number!r}"
    return f"delivery {method.delivery_tag} by {method.routing_key!r}{told}"
