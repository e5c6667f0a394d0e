"""What a server sends over a WebSocket, as a source."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias, Unpack

from run_task._extras import need
from run_task.errors import ConfigError, described
from run_task.observe._url import redacted, secrets_in, url_shown
from run_task.sources.brokers._broker_source import BrokerSource
from run_task.sources.brokers._mailbox import LoopThread, Mailbox
from run_task.sources.brokers._message import Message, MessageOptions, MessageReader, Stamp
from run_task.sources.brokers._outage import not_again

Headers: TypeAlias = Mapping[str, str] | Callable[[], Mapping[str, str]]
"""Headers of a request, or what gives them anew for each."""

_CAPACITY: Final = 10_000
"""How many messages may wait; beyond that, the server is made to wait."""

_CONNECTING: Final = 10.0
"""How many seconds connecting may take."""

_PING: Final = 10
"""After how many seconds the server is asked whether it is there, and how long it may think."""

_LARGEST_EVER: Final = 64 << 20
"""How many bytes a message has at most that is read at all; one that is larger ends the
connection."""

_REFUSED: Final = range(400, 500)
_LATER: Final = (408, 425, 429)
"""Statuses of those after which it helps to try again."""


class WebSocketSource(BrokerSource[int]):
    """The messages that a server sends over a WebSocket, each a row or several::

        source = WebSocketSource(
            "wss://feed.example/v1", subscribe='{"op": "subscribe", "channel": "trades"}'
        )

    A WebSocket has no memory: what is sent while it is not connected is missed, and there is no
    position to go on from. Connections that are lost are made again, with growing pauses, and
    what ``subscribe=`` has is sent anew. A message is text, in UTF-8, or bytes.

    :param url: the address, ``ws://`` or, by TLS, ``wss://``
    :param subscribe: a message, or several, to send once it is connected
    :param headers: headers of the request, such as ``Authorization``, or a callable that gives them
        for each connection, and may read a file or the environment; they are in no message or log
    :param tls: how ``wss://`` is checked; None: as the system does
    :param options: what all sources of messages take: ``decode``, ``timestamp``, ``unit``,
        ``stored``, ``zone``, ``columns``, ``largest`` and ``on_malformed``. There is no time of a
        message and no subject, so ``Stamp.BROKER`` and ``key`` cannot be
    :raises ConfigError: if one of these cannot be, or websockets or msgspec are not installed
    """

    def __init__(
        self,
        url: str,
        *,
        subscribe: str | bytes | Sequence[str | bytes] = (),
        headers: Headers | None = None,
        tls: ssl.SSLContext | None = None,
        **options: Unpack[MessageOptions],
    ) -> None:
        self._client: Any = need("websockets.asyncio.client", "websocket")
        self._errors: Any = need("websockets.exceptions", "websocket")
        where = f"WebSocketSource at {url_shown(url)}"
        try:
            need("websockets.uri", "websocket").parse_uri(url)
        except self._errors.InvalidURI:
            raise ConfigError(
                f"{where}: its address is ws://host/path, or wss://host/path"
            ) from None
        if options.get("timestamp") is Stamp.BROKER:
            raise ConfigError(
                f"{where}: timestamp=Stamp.BROKER: a WebSocket tells no time of a message: take a "
                f"field of the messages, or Stamp.ARRIVAL"
            )
        if options.get("key") is not None:
            raise ConfigError(f"{where}: key=: a WebSocket has no subjects: take a field")
        self._url, self._tls = url, tls
        self._subscribe = [subscribe] if isinstance(subscribe, str | bytes) else list(subscribe)
        self._headers = headers
        self._mailbox = Mailbox(_CAPACITY)
        self._loop: LoopThread | None = None
        cure = "Is the server there, and does it listen at this address?"
        super().__init__(where, cure, MessageReader(where, "websocket", _place, **options))

    def _open(self) -> None:
        self._mailbox = Mailbox(_CAPACITY)
        self._loop = LoopThread(f"{self._where}, client")
        self._loop.call(self._connect(self._mailbox), _CONNECTING)
        self._show()

    async def _connect(self, mailbox: Mailbox) -> None:
        options: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls}
        connection = await self._client.connect(
            self._url,
            additional_headers=dict(self._told_headers()),
            open_timeout=_CONNECTING,
            close_timeout=0.5,
            ping_interval=_PING,
            ping_timeout=_PING,
            max_size=_LARGEST_EVER,
            **options,
        )
        for message in self._subscribe:
            await connection.send(message)
        task = asyncio.create_task(self._receive(connection, mailbox))
        task.add_done_callback(_ended)

    async def _receive(self, connection: Any, mailbox: Mailbox) -> None:
        """Hand over what comes, until the connection ends."""
        recv, aput = connection.recv, mailbox.aput
        try:
            while True:
                await aput((await recv(decode=False), "", None, None))
        except Exception as error:  # it is closed, as a rule
            mailbox.fail(error)
        finally:
            with contextlib.suppress(Exception):
                await connection.close()

    def _pull(self) -> Sequence[Message]:
        messages = self._mailbox.take()
        self._show()
        return messages

    def _shut(self) -> None:
        self._mailbox.close()
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    def _told_headers(self) -> Mapping[str, str]:
        headers = self._headers
        return headers() if callable(headers) else headers or {}

    def _failures(self) -> tuple[type[BaseException], ...]:
        return (self._errors.WebSocketException, OSError, TimeoutError)

    def _fatal(self, error: BaseException) -> str | None:
        if not isinstance(error, self._errors.InvalidStatus):
            return None
        answer: Any = error
        status: int = answer.response.status_code
        if status not in _REFUSED or status in _LATER:
            return None
        told = redacted(described(error), self._secrets())
        return not_again(told, "are the path and headers= right?")

    def _secrets(self) -> Sequence[str]:
        headers: Mapping[str, str] = {}
        with contextlib.suppress(Exception):
            headers = self._told_headers()
        return secrets_in(self._url, dict(headers))

    def _stream(self, message: Message) -> str:
        return ""

    def _move(self, messages: Sequence[Message]) -> None:
        """It is not said where a message stands."""

    def _behind(self) -> int | None:
        return max(0, len(self._mailbox) - self._waiting)  # what is in hand is counted besides


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # which was told by the mailbox


def _place(_: None) -> str:
    return "a message"
