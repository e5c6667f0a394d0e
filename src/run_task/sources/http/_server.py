"""A server of HTTP in a thread of its own."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable, Generator
from typing import Any, Final

from run_task._extras import need
from run_task.errors import ConfigError, SourceError
from run_task.observe._log import Log, filtered
from run_task.observe._recurrence import Recurrence
from run_task.sources.http._request_deadline import deadlined

_log = Log(__name__)

_MOST_CONNECTIONS: Final = 512

_GIVEN_UP: Final = "ASGI callable returned without completing response."
"""What uvicorn logs of a stream that nobody takes."""

_MOST_RECEIVED: Final = 1 << 16
"""How many bytes a message of a WebSocket may have that is received."""

_STUCK: Final = 60_000
"""After how many milliseconds a connection is given up whose other end takes nothing."""

REQUEST_SECONDS: Final = 10.0
"""How many seconds a client has for the line and the headers of a request."""

_GRACE: Final = 0.25
"""How many seconds requests may take that are being read or answered when it stops."""

_IDLE: Final = 60
"""After how many seconds a connection is closed that asks for nothing."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, of whatever it is
        return False


def check_address(where: str, host: object, port: object) -> None:
    """Refuse what is no address to listen on.

    :raises ConfigError: if it is none
    """
    if type(host) is not str or not host:
        raise ConfigError(f"{where}: host={host!r}: it is a name or an address, as '127.0.0.1'")
    if type(port) is not int or not 0 <= port < 65536:
        raise ConfigError(
            f"{where}: port={port!r}: it is an int from 0, for any free one, to 65535"
        )


class _ServerLog:
    """A filter of what uvicorn logs in the thread of one server: whoever can reach it could fill
    the log, since it tells of each request that is none; and of its beginning and end its source
    tells.

    :param where: whose it is, for messages
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._refused = Recurrence()
        self._thread = threading.get_ident()
        self._last = ""

    @contextlib.contextmanager
    def at_work(self) -> Generator[None]:
        """Filter until the block is left; what has not been told of is told then."""
        try:
            with filtered("uvicorn.error", self._takes):
                yield
        finally:
            self._tell(self._refused.rest())

    def _takes(self, record: logging.LogRecord) -> bool:
        if record.thread != self._thread:
            return True
        if record.msg == _GIVEN_UP:
            return False
        if record.levelno >= logging.ERROR:
            return True
        if record.levelno == logging.WARNING:
            self._last = record.getMessage()
            self._tell(self._refused.happen())
        return False

    def _tell(self, since: int) -> None:
        if since:
            _log.warning(
                "%s: %s refused: %s",
                self._where,
                "a request was" if since == 1 else f"{since:,} requests were",
                self._last,
            )


class HttpServer:
    """Serves an ASGI application by uvicorn, in an event loop in a thread of its own.

    :param where: whose it is, for messages
    :param application: the application
    :param host: where to listen
    :param port: the port; 0: any that is free
    :param on_end: called in its thread once it has ended, with what it raised
    :param extra: the extra that installs uvicorn, for messages
    :param websockets: whether it serves these, too
    :param lifespan: whether the application is told when it begins and ends
    :param most_connections: how many there may be at a time
    :param request_seconds: how many seconds a client has for the line and the headers of a request
    """

    def __init__(
        self,
        where: str,
        application: Any,
        host: str,
        port: int,
        on_end: Callable[[BaseException | None], object],
        *,
        extra: str = "http",
        websockets: bool = False,
        lifespan: bool = False,
        most_connections: int = _MOST_CONNECTIONS,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        uvicorn = need("uvicorn", extra)
        self._where = where
        self._on_end = on_end
        self._socket = _listening(where, host, port)
        self.port: int = self._socket.getsockname()[1]
        """The port that it listens on."""
        self._server: Any = uvicorn.Server(
            uvicorn.Config(
                application,
                http=deadlined(extra, request_seconds),
                ws="websockets-sansio" if websockets else "none",
                ws_max_size=_MOST_RECEIVED,
                ws_max_queue=4,
                ws_per_message_deflate=False,  # which would cost each connection some 300 kB
                loop="asyncio",
                lifespan="on" if lifespan else "off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=most_connections,
                timeout_keep_alive=_IDLE,
                timeout_graceful_shutdown=_GRACE,
            )
        )
        self._thread = threading.Thread(target=self._run, name=f"{where}, server", daemon=True)
        self.loop: AbstractEventLoop | None = None
        """Its event loop, once it has begun to answer."""

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more, answer what was asked, and end. From any thread."""
        self._server.should_exit = True

    def join(self) -> None:
        """Wait until it has ended. In its own thread, there is nothing to wait for."""
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            with _ServerLog(self._where).at_work():
                self._server.run(sockets=[self._socket])
        except BaseException as error:  # also SystemExit, by which uvicorn ends
            failure = error
        finally:
            self._socket.close()
        self._on_end(failure)


def _listening(where: str, host: str, port: int) -> socket.socket:
    """A socket that is bound to an address.

    :raises SourceError: if it cannot be
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SourceError(where, None, None, f"{host!r} is no address: {error}") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # which connections inherit
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STUCK)
        made.bind(address)
        made.listen(128)
    except OSError as error:
        made.close()
        cure = "take another port=" if error.errno == errno.EADDRINUSE else "is it this machine's?"
        reason = f"it cannot listen on {host}, port {port}: {error.strerror}: {cure}"
        raise SourceError(where, None, None, reason) from error
    return made
