"""An async source, for a thread that wants its rows."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from typing import Any, Final

from run_task.errors import ChannelClosed
from run_task.observe._format import brief
from run_task.sync._channel import Receiver, Sender, channel

_AHEAD: Final = 1024
"""How many rows may wait until the thread takes them."""

_PAUSE: Final = 0.001
"""How many seconds to wait until there may be room for a row."""


class Pump:
    """Reads an async source in an event loop: that of the coroutine in which it is started, or one
    of its own. It is iterated over in a thread.

    :param source: the source
    :param name: what its thread is called, if it needs one
    """

    def __init__(self, source: AsyncIterable[tuple[int, Any]], name: str) -> None:
        ends: tuple[Sender[tuple[int, Any]], Receiver[tuple[int, Any]]] = channel(_AHEAD)
        self._sender, self._receiver = ends
        self._source = source
        self._name = name
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._closed = False
        self._over = threading.Event()

    @property
    def unit(self) -> object:
        """What the source says that the unit of its timestamps is."""
        return getattr(self._source, "unit", None)

    def start(self) -> None:
        """Begin to read."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._thread = threading.Thread(
                target=lambda: asyncio.run(self._run()), name=self._name, daemon=True
            )
            self._thread.start()
        else:
            self._task = loop.create_task(self._run())

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        yield from self._receiver
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Read no more. From any thread."""
        self._closed = True
        self._receiver.close()
        task = self._task
        if task is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed, and it is over
                task.get_loop().call_soon_threadsafe(task.cancel)

    def join(self, timeout: float) -> bool:
        """Wait until the source has been left. Returns whether it has."""
        left = self._over.wait(timeout)
        if left and self._thread is not None:
            self._thread.join()
        return left

    async def _run(self) -> None:
        self._task = asyncio.current_task()
        try:
            if not self._closed:
                await self._read()
        except (ChannelClosed, asyncio.CancelledError):
            pass  # it is closed
        except Exception as error:
            self._failure = error
        finally:
            self._sender.close()
            self._over.set()

    async def _read(self) -> None:
        rows: AsyncIterator[tuple[int, Any]] = aiter(self._source)
        try:
            async for row in rows:
                while True:
                    try:
                        self._sender.send(row, timeout=0)
                        break
                    except TimeoutError:  # the windows are behind
                        await asyncio.sleep(_PAUSE)
        finally:
            if isinstance(rows, AsyncGenerator):  # it may have something to clean up
                await rows.aclose()

    def __repr__(self) -> str:
        return brief(self._source)
