"""Subjects of NATS, and streams of JetStream, as a source."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, Unpack

from run_task._extras import need
from run_task.errors import ConfigError, SourceError
from run_task.observe._log import Log
from run_task.observe._recurrence import Recurrence
from run_task.sources._faults import OnFault
from run_task.sources._protocol import SourceInfo
from run_task.sources.brokers._broker_source import BrokerSource
from run_task.sources.brokers._credentials import Credentials
from run_task.sources.brokers._mailbox import Mailbox
from run_task.sources.brokers._message import Message, MessageOptions, MessageReader, Stamp
from run_task.sources.brokers._nats_link import CONNECTING, PING, NatsLink, addressed, check_name
from run_task.sources.brokers._outage import not_again

_log = Log(__name__)

_CAPACITY: Final = 10_000
"""How many messages may wait; beyond that, the client holds some, and JetStream sends no more."""

_SILENCE: Final = 2.0
"""After how many seconds a server that does not tell how much there is counts as gone."""


class NatsSource(BrokerSource[int]):
    """The messages of a subject of NATS, each a row or several::

        source = NatsSource("prices.*", key="subject", timestamp="time")
        source = NatsSource("prices.*", stream="PRICES", timestamp=Stamp.BROKER)

    Without ``stream=``, messages come as NATS has them: those that are published while it is
    connected, and at most once. A pipeline that stands still loses them, once 500 000 wait, which
    is counted as ``dropped``.

    With ``stream=``, those that a stream of JetStream keeps come: each once, in the order of the
    stream. The position is its sequence, and a consumer of its own reads from there, so nothing is
    acknowledged, and nobody else's consumer is touched. Connections that are lost are made again,
    with growing pauses, and it goes on where it was.

    :param subject: the subject, also with ``*`` and ``>``
    :param servers: the address, or several of a cluster, such as ``"nats://broker.example:4222"``
    :param stream: the stream of JetStream that keeps them; None: it is NATS alone
    :param start: what to begin with in a stream where no position is known: ``"latest"``, with what
        is published from now on; or ``"earliest"``, with the first that is kept. A live run has
        windows from now on: what is of before is late
    :param on_lost: what to do where the stream no longer keeps messages that were not read: RAISE
        ends the source, SKIP logs which and goes on
    :param declare: settings to make the stream with, of this subject, where it is not there, as
        nats-py has them, such as ``{"max_age": 86_400}``; None: it has to be there
    :param queue: without a stream, the queue group, of which each message goes to one member
    :param username: the user
    :param password: the password; also in the URL, or by one of the next two
    :param password_file: a file that holds it
    :param password_env: an environment variable that holds it
    :param creds_file: a file of credentials, as NATS makes them (``.creds``)
    :param tls: how ``tls://`` is checked; None: as the system does
    :param options: what all sources of messages take: ``decode``, ``timestamp``, ``unit``,
        ``stored``, ``zone``, ``columns``, ``key`` (which gets the subject), ``largest`` and
        ``on_malformed``; ``Stamp.BROKER`` is when a stream got a message
    :raises ConfigError: if one of these cannot be, or nats-py or msgspec are not installed
    """

    def __new__(cls, *_: Any, stream: str | None = None, **__: Any) -> Self:
        """One with positions, if it reads a stream."""
        made: type[Any] = _JetStreamSource if cls is NatsSource and stream is not None else cls
        found: Self = object.__new__(made)
        return found

    def __init__(
        self,
        subject: str,
        servers: str | Sequence[str] = "nats://localhost:4222",
        *,
        stream: str | None = None,
        start: str = "latest",
        on_lost: OnFault = OnFault.RAISE,
        declare: Mapping[str, Any] | None = None,
        queue: str = "",
        username: str | None = None,
        password: str | None = None,
        password_file: str | Path | None = None,
        password_env: str | None = None,
        creds_file: str | Path | None = None,
        tls: ssl.SSLContext | None = None,
        **options: Unpack[MessageOptions],
    ) -> None:
        where, urls = addressed("NatsSource", subject, servers, stream)
        check_name(where, "subject", subject)
        if stream is not None:
            check_name(where, "stream", stream)
            if queue:
                raise ConfigError(f"{where}: queue={queue!r}: a stream is read by whoever asks")
        if declare is not None and stream is None:
            raise ConfigError(f"{where}: declare=: say by stream= which stream to make")
        self._declare = None if declare is None else dict(declare)
        if start not in ("latest", "earliest"):
            raise ConfigError(f"{where}: start={start!r}: it is 'latest' or 'earliest'")
        if not isinstance(on_lost, OnFault):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
            raise ConfigError(f"{where}: on_lost={on_lost!r}: it is an OnFault")
        if stream is None and options.get("timestamp") is Stamp.BROKER:
            raise ConfigError(
                f"{where}: timestamp=Stamp.BROKER: NATS tells no time without stream=: take a "
                f"field of the messages, or Stamp.ARRIVAL"
            )
        self._nats = need("nats", "nats")
        self._link = NatsLink(
            *(where, urls, Credentials(where, username, password, password_file, password_env)),
            creds_file=creds_file,
            tls=tls,
        )
        self._subject, self._stream_name, self._queue = subject, stream, queue
        self._from_first, self._on_lost = start == "earliest", on_lost
        self._mailbox = Mailbox(_CAPACITY)
        self._dropped = Recurrence()
        cure = "Is the server there, and does it listen at this address?"
        super().__init__(where, cure, MessageReader(where, "nats", _place, **options))

    def about(self) -> SourceInfo:
        """Its unit, that it has no end, and how many messages were dropped."""
        return SourceInfo(
            unit=self._reader.unit,
            endless=True,
            malformed=self._reader.malformed,
            dropped=self._dropped.count,
        )

    def _open(self) -> None:
        self._mailbox = Mailbox(_CAPACITY)
        self._link.open(self._mailbox.fail, self._slow)
        self._link.call(self._subscribe())
        self._show()

    async def _subscribe(self) -> None:
        aput = self._mailbox.aput

        async def take(message: Any) -> None:
            await aput((message.data, message.subject, None, None))

        await self._link.client.subscribe(self._subject, self._queue, cb=take)
        await self._link.client.flush()

    def _pull(self) -> Sequence[Message]:
        messages = self._mailbox.take()
        self._show()
        return messages

    def _shut(self) -> None:
        self._mailbox.close()
        self._link.close()

    def _slow(self) -> None:
        """A message was dropped, since too many wait."""
        if since := self._dropped.happen():
            _log.warning(
                "%s: %s dropped, since the pipeline takes them too slowly: %s by now",
                *(self._where, "a message was" if since == 1 else f"{since:,} messages were"),
                f"{self._dropped.count:,}",
            )

    def _failures(self) -> tuple[type[BaseException], ...]:
        return (self._nats.errors.Error, OSError, TimeoutError)

    def _fatal(self, error: BaseException) -> str | None:
        return self._link.fatal(error)

    def _secrets(self) -> Sequence[str]:
        return self._link.secrets()

    def _stream(self, message: Message) -> str:
        return self._subject

    def _move(self, messages: Sequence[Message]) -> None:
        """It is not said where a message stands."""

    def _behind(self) -> int | None:
        return self._in_mailbox()

    def _in_mailbox(self) -> int:
        # What is in hand is counted besides.
        return max(0, len(self._mailbox) - self._waiting)


class _JetStreamSource(NatsSource):
    """One that reads a stream."""

    _came = 0  # how many messages of the consumer have been put into the mailbox
    _pending = 0  # how many there are beyond these, as far as the server has told
    _consumer = ""
    _asking = False

    def commit(self, position: Any, /) -> None:
        """Nothing: the consumer is its own, and the server remembers no position."""

    async def _subscribe(self) -> None:
        client, api = self._link.client, need("nats.js.api", "nats")
        stream, aput = self._stream_name, self._mailbox.aput
        assert stream is not None
        context = client.jetstream(timeout=CONNECTING)
        try:
            state = (await context.stream_info(stream)).state
        except self._nats.js.errors.NotFoundError:
            if self._declare is None:
                raise self._unknown(stream) from None
            made = await context.add_stream(name=stream, subjects=[self._subject], **self._declare)
            state = made.state
        mark = self._begin_at(state.first_seq, state.last_seq)
        # At most; what is of the subject is told by the first message, or when it is asked.
        self._came, self._pending = 0, max(0, state.last_seq - mark)

        async def take(message: Any) -> None:
            # $JS.ACK.<stream>.<consumer>.<tries>.<sequence>.<of the consumer>.<time>.<pending>, or
            # with a domain and an account before the stream, and one more behind.
            parts = message.reply.split(".")
            first = 5 if len(parts) == 9 else 7
            place, number, sent_ns, pending = map(int, parts[first : first + 4])
            await aput((message.data, message.subject, sent_ns, place))
            # Not before: it is among those that were pending.
            self._came, self._pending = number, pending
            self._show()

        subscription = await context.subscribe(
            self._subject,
            stream=stream,
            cb=take,
            manual_ack=True,
            config=api.ConsumerConfig(
                ack_policy=api.AckPolicy.NONE,
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=mark + 1,
                flow_control=True,
                idle_heartbeat=PING,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        # It is not asked for more: an answer comes behind all that the server sends by then, which
        # nobody takes before this has returned.
        self._consumer, self._asking = subscription._consumer, False

    async def _ask(self) -> None:
        """Ask how much there is, and so whether the consumer is there, which says nothing more if
        somebody has deleted it."""
        came, mailbox, asked_at = self._came, self._mailbox, time.monotonic()
        context = self._link.client.jetstream(timeout=_SILENCE)
        try:
            info = await context.consumer_info(self._stream_name, self._consumer)
        except (self._nats.errors.Error, OSError, TimeoutError) as error:
            if self._came == came:  # else the answer is behind those
                mailbox.fail(error)
            return
        finally:
            self._asking = False
        sent = info.delivered.consumer_seq
        if sent == self._came:
            self._pending = info.num_pending
        elif sent > self._came:  # some are on their way to the mailbox, which tell what is left
            self._pending = max(1, self._pending)
        self._show(max(asked_at, self._shown_at))

    def _begin_at(self, first: int, last: int) -> int:
        """The sequence behind which to read.

        :param first: the first sequence that the stream keeps, if it keeps any
        :param last: the last one there ever was
        :raises SourceError: if messages are gone that were not read, and that is fatal
        """
        mark = self._marks.get(self._subject)
        if mark is None:
            mark = max(0, first - 1) if self._from_first else last
            self._marks[self._subject] = mark
            return mark
        lost: str | None = None
        if mark > last:
            lost = f"its last message is {last:,}, and {mark:,} was read: it is another stream"
            mark = max(0, first - 1)
        elif mark + 1 < first:
            lost = (
                f"it keeps messages from {first:,} on, and those from {mark + 1:,} on are to come"
            )
            mark = first - 1
        if lost is None:
            return mark
        text = f"messages of the stream {self._stream_name!r} are gone that were not read: {lost}"
        if self._on_lost is OnFault.RAISE:
            cure = "let it keep more, or go on without them, by on_lost=OnFault.SKIP"
            raise SourceError(self._where, None, None, f"{text}: {cure}")
        _log.error("%s: %s", self._where, text)
        self._marks[self._subject] = mark
        return mark

    def _pull(self) -> Sequence[Message]:
        messages = self._mailbox.take()
        if not (messages or self._asking):
            self._asking = True
            self._link.tell(self._ask())
        return messages

    def _fatal(self, error: BaseException) -> str | None:
        if isinstance(error, self._nats.js.errors.BadRequestError):
            return not_again(self._link.told(error))
        return super()._fatal(error)

    def _unknown(self, stream: str) -> SourceError:
        return SourceError(
            self._where,
            None,
            None,
            f"there is no stream {stream!r}: make it, as by: nats stream add {stream} "
            f"--subjects {self._subject!r}, or pass declare={{}}",
        )

    def _move(self, messages: Sequence[Message]) -> None:
        if messages:
            self._marks[self._subject] = messages[-1][3]

    def _behind(self) -> int | None:
        pending = self._pending  # first: what comes from there is counted among those then
        return pending + self._in_mailbox()


def _place(place: int | None) -> str:
    return "a message" if place is None else f"message {place:,}"
