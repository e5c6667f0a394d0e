"""Server-sent events, and messages of WebSockets: to whoever takes them, for as long as they do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec

from run_task.serve._guard import Receive, RefusedRequest, Send

_LONGEST_SEND: Final = 30.0
"""After how many seconds a client is given up that takes nothing."""

_LAST_WORDS: Final = 0.2
"""How many seconds an end may take to be told."""

BEAT: Final = 10.0
"""After how many seconds without anything to tell something is sent all the same."""


class Event(NamedTuple):
    """Something to tell."""

    name: str
    """What it is; empty: only that there is nothing new."""
    data: bytes
    """As JSON, in one line."""


NOTHING_NEW: Final = Event("", b"")


class Slots:
    """How many streams there may be at a time.

    :param most: that many
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.taken: int = 0

    def take(self) -> None:
        """Take one.

        :raises RefusedRequest: if there is none
        """
        if self.taken >= self._most:
            reason = f"there are {self._most:,} streams already"
            raise RefusedRequest(HTTPStatus.SERVICE_UNAVAILABLE, reason)
        self.taken += 1

    def give_back(self) -> None:
        """It is no longer needed."""
        self.taken -= 1


async def send_events(
    receive: Receive, send: Send, events: AsyncGenerator[Event], closing: asyncio.Event
) -> None:
    """Send events until there are no more, or nobody takes them. Each is asked for once the one
    before is on its way, so that who is slow gets fewer.

    :param closing: set when the service ends: then there is little time left
    """
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),  # to proxies that would collect them
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def give(event: Event) -> None:
        body = b": \n\n"
        if event.name:
            body = b"event: %b\ndata: %b\n\n" % (event.name.encode(), event.data)
        await send({"type": "http.response.body", "body": body, "more_body": True})

    await _give_all(receive, give, events, "http.disconnect", closing)
    with contextlib.suppress(Exception):  # it is gone, or takes nothing
        async with asyncio.timeout(_LAST_WORDS):
            await send({"type": "http.response.body", "body": b""})


async def send_messages(
    receive: Receive, send: Send, events: AsyncGenerator[Event], closing: asyncio.Event
) -> None:
    """The same by a WebSocket: each event is a message, ``{"event": ..., "data": ...}``."""
    await receive()  # that it connects
    await send({"type": "websocket.accept"})

    async def give(event: Event) -> None:
        if event.name:  # its own pings tell that it is alive
            told = {"event": event.name, "data": msgspec.Raw(event.data)}
            text = msgspec.json.encode(told).decode()
            await send({"type": "websocket.send", "text": text})

    await _give_all(receive, give, events, "websocket.disconnect", closing)
    with contextlib.suppress(Exception):  # it is gone, or takes nothing
        async with asyncio.timeout(_LAST_WORDS):
            await send({"type": "websocket.close", "code": 1001})


async def _give_all(
    receive: Receive,
    give: Callable[[Event], Awaitable[None]],
    events: AsyncGenerator[Event],
    gone: str,
    closing: asyncio.Event,
) -> None:
    async def until_gone() -> None:
        while (await receive())["type"] != gone:
            pass  # what it sends is nobody's concern

    async def until_told() -> None:
        async with contextlib.aclosing(events):
            async for event in events:
                async with asyncio.timeout(_LONGEST_SEND):
                    await give(event)

    async def until_closed() -> None:
        await closing.wait()
        await asyncio.sleep(_LAST_WORDS)

    tasks = [asyncio.ensure_future(each()) for each in (until_gone, until_told, until_closed)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        # Also TimeoutError, of one that takes nothing, and what uvicorn raises of who is gone.
        await asyncio.gather(*tasks, return_exceptions=True)
