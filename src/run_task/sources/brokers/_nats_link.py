"""A connection to NATS, as sources and sinks have it."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from run_task._extras import need
from run_task.errors import ConfigError, described
from run_task.observe._format import brief
from run_task.observe._url import redacted, secrets_in, url_shown
from run_task.sources.brokers._credentials import Credentials
from run_task.sources.brokers._mailbox import LoopThread
from run_task.sources.brokers._outage import not_again

T = TypeVar("T")

CONNECTING: Final = 5.0
"""How many seconds connecting may take, and other questions to the server."""

PING: Final = 2
"""After how many seconds without a word the server is asked whether it is there, twice at most."""

_SCHEMES: Final = ("nats", "tls", "ws", "wss")

_REFUSED: Final = ("authorization", "authentication", "permissions violation")
"""What errors say of those who may not."""


def addressed(
    kind: str, subject: str, servers: str | Sequence[str], stream: str | None
) -> tuple[str, Sequence[str]]:
    """What a source or a sink is called in messages, and the addresses of its servers.

    :param kind: what it is
    :param servers: the address, or several of a cluster
    :raises ConfigError: if one is none
    """
    urls = [servers] if isinstance(servers, str) else list(servers)
    for url in urls:
        if type(url) is not str or not _is_address(url):
            shown = url_shown(url) if type(url) is str else brief(url)
            raise ConfigError(f"{kind}: servers: {shown} is no address: write nats://host:4222")
    within = "" if stream is None else f", stream={stream!r}"
    return f"{kind}({subject!r}{within}) at {', '.join(map(url_shown, urls))}", urls


def _is_address(url: str) -> bool:
    """Whether nats-py can connect there; it takes a host without a scheme, too."""
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        port = parts.port  # which raises if it is none
    except ValueError:
        return False
    fits = parts.scheme in _SCHEMES and bool(parts.hostname) and port != 0
    return fits and not any(c.isspace() for c in url)


class NatsLink:
    """A connection to NATS, in an event loop in a thread of its own.

    :param where: whose it is, for messages
    :param urls: the addresses
    :param credentials: user and password
    :param creds_file: a file of credentials
    :param tls: how ``tls://`` is checked
    :raises ConfigError: if one of these cannot be
    """

    def __init__(
        self,
        where: str,
        urls: Sequence[str],
        credentials: Credentials,
        *,
        creds_file: str | Path | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        if not urls:
            raise ConfigError(f"{where}: servers: name one or several")
        if creds_file is not None and not os.access(creds_file, os.R_OK):
            raise ConfigError(f"{where}: creds_file={os.fspath(creds_file)!r} cannot be read")
        self._where, self._urls, self._credentials = where, urls, credentials
        self._creds_file, self._tls = creds_file, tls
        self._nats = need("nats", "nats")
        self._loop: LoopThread | None = None
        self.client: Any = None
        """The client, while it is connected."""

    def open(
        self, failed: Callable[[BaseException], object], slow: Callable[[], object] | None = None
    ) -> None:
        """Connect.

        :param failed: called in its event loop when the server refuses something, or the connection
            is lost: it is of no more use then
        :param slow: called for each message that is dropped, since too many wait
        """
        self._loop = LoopThread(f"{self._where}, client")
        self.call(self._connect(failed, slow))

    async def _connect(
        self, failed: Callable[[BaseException], object], slow: Callable[[], object] | None
    ) -> None:
        errors = self._nats.errors
        first: list[BaseException] = []

        async def told(error: BaseException) -> None:
            if isinstance(error, errors.SlowConsumerError):
                if slow is not None:
                    slow()
                return
            first.append(error)
            if self.client is not None:  # else it may be one of several servers
                failed(error)

        async def lost() -> None:
            if self.client is not None:
                failed(errors.ConnectionClosedError())

        options: dict[str, Any] = {}
        if self._credentials.username is not None:
            options["user"] = self._credentials.username
        if (password := self._credentials.password()) is not None:
            options["password"] = password
        if self._creds_file is not None:
            options["user_credentials"] = os.fspath(self._creds_file)
        if self._tls is not None:
            options["tls"] = self._tls
        client = self._nats.NATS()
        try:
            await client.connect(
                servers=list(self._urls),
                name="run-task",
                error_cb=told,
                disconnected_cb=lost,
                closed_cb=lost,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=CONNECTING - 1,
                ping_interval=PING,
                max_outstanding_pings=2,
                **options,
            )
        except BaseException as error:
            # It leaves open what it has opened.
            if (transport := getattr(client, "_transport", None)) is not None:
                with contextlib.suppress(Exception):
                    transport.close()
            if isinstance(error, errors.NoServersError) and first:
                raise first[0] from None
            raise
        self.client = client

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float = CONNECTING) -> T:
        """Run a coroutine in its event loop.

        :param coroutine: the coroutine
        :param timeout: after how many seconds it is cancelled
        :raises TimeoutError: if it took longer
        """
        assert self._loop is not None
        return self._loop.call(coroutine, timeout)

    def tell(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine in its event loop, and wait for nothing."""
        assert self._loop is not None
        self._loop.tell(coroutine)

    def close(self) -> None:
        """Disconnect, if it is connected. It raises nothing."""
        loop, self._loop = self._loop, None
        client, self.client = self.client, None
        if loop is None:
            return
        if client is not None:
            with contextlib.suppress(Exception):
                loop.call(client.close(), CONNECTING)
        loop.close()

    def fatal(self, error: BaseException) -> str | None:
        """Why there is no use in trying again; None: there is."""
        refused = isinstance(error, self._nats.errors.AuthorizationError)
        if refused or any(word in str(error).lower() for word in _REFUSED):
            return not_again(self.told(error), "give username= and password=")
        return None

    def told(self, error: BaseException) -> str:
        """What an error says, without secrets."""
        return redacted(described(error), self.secrets())

    def secrets(self) -> list[str]:
        """What stands in no message."""
        found = self._credentials.secrets()
        options: Mapping[str, Any] = {}
        for url in self._urls:
            found += secrets_in(url, options)
        return found


def check_name(where: str, argument: str, name: object) -> None:
    """Refuse what is no subject, and no name of a stream.

    :raises ConfigError: if it is none
    """
    if type(name) is not str or not name or any(c.isspace() for c in name):
        raise ConfigError(f"{where}: {argument}={name!r}: it is a text without spaces")
