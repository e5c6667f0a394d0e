"""Connections that take too long over a request: uvicorn waits for it for as long as they like."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from run_task._extras import need


def deadlined(extra: str, seconds: float) -> Callable[..., asyncio.Protocol]:
    """What makes the protocol of a connection, for uvicorn: its own for HTTP/1.1 by h11, of which
    requests begin in time.

    :param extra: the extra that installs it, for messages
    :param seconds: how many seconds there are for the line and the headers of a request, from when
        the connection is made, or the first byte of another request has come; and for the rest of a
        body that is no longer wanted, since the request was answered
    """
    protocol = need("uvicorn.protocols.http.h11_impl", extra).H11Protocol
    h11 = need("h11", extra)

    def make(**given: Any) -> asyncio.Protocol:
        return RequestDeadline(protocol(**given), h11.IDLE, h11.SEND_BODY, h11.ERROR, seconds)

    return make


class RequestDeadline(asyncio.Protocol):
    """Closes a connection whose other end takes too long over a request.

    :param inner: what understands HTTP
    :param idle: the state of the other end before the end of the headers
    :param sending: its state while it sends a body
    :param broken: its state once it has sent what is no HTTP
    :param seconds: how long it may take
    """

    def __init__(
        self, inner: Any, idle: object, sending: object, broken: object, seconds: float
    ) -> None:
        self._inner = inner
        self._idle = idle
        self._sending = sending
        self._broken = broken
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a connection."""
        self._transport = transport
        self._inner.connection_made(transport)
        self._begin()

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        inner = self._inner
        inner.data_received(data)
        if inner.conn.their_state is self._broken and inner.cycle is not None:
            # It was told so, and is no longer connected; an answer to what it asked before has no
            # way left, and would be an error with a traceback in the log.
            inner.cycle.disconnected = True
            inner.cycle.message_event.set()
        if self._is_waited_for:
            if self._timer is None:
                self._begin()
        else:
            self._end()

    def eof_received(self) -> bool | None:
        """The other end sends no more."""
        kept: bool | None = self._inner.eof_received()
        return kept

    def connection_lost(self, exc: Exception | None) -> None:
        """There is no connection any more."""
        self._end()
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """The other end takes nothing for now."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """It takes something again."""
        self._inner.resume_writing()

    @property
    def _is_waited_for(self) -> bool:
        """Whether a request has begun to come, and is not whole, or is of no use any more."""
        inner = self._inner
        if self._transport.is_closing() or self._transport.get_protocol() is not self:
            return False  # it has become a WebSocket
        if inner.conn.their_state is self._idle:
            return bool(inner.conn.trailing_data[0])
        return inner.conn.their_state is self._sending and bool(inner.cycle.response_complete)

    def _begin(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._close)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._timer = None
        self._transport.close()
