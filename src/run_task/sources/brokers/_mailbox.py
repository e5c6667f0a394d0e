"""Messages on their way from a client that pushes them to the thread that reads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from run_task.errors import ChannelClosed
from run_task.sources.brokers._broker_source import CHUNK, WAIT
from run_task.sources.brokers._json_columns import FEW
from run_task.sources.brokers._message import Message
from run_task.sync._channel import Receiver, Sender, telling_channel
from run_task.sync._overflow import Overflow

T = TypeVar("T")

_GATHERING: Final = 0.001
"""For how many seconds more are waited for, where few have come: a client that gives them slower
than they are read would have each of them be read on its own, which costs it most of its time."""


class Mailbox:
    """The messages of one connection. While it is full, the client waits.

    :param capacity: how many messages may wait in it
    """

    def __init__(self, capacity: int) -> None:
        ends: tuple[Sender[Message], Receiver[Message]] = telling_channel(
            capacity, Overflow.BLOCK, lambda _: None
        )
        self._sender, self._receiver = ends
        self._failure: BaseException | None = None
        self._put = self._taken = self._done = 0  # how many messages

    def __len__(self) -> int:
        """How many messages wait, or were taken last: so none is missed on its way from the one to
        the other. From any thread."""
        done = self._done  # first, since there are never more than were put
        return self._put - done

    def put(self, message: Message) -> None:
        """Put a message. In the thread of the client."""
        self._put += 1
        with contextlib.suppress(ChannelClosed):  # nobody reads on, and it is given again
            self._sender.send(message)

    async def aput(self, message: Message) -> None:
        """Put a message. In the event loop of the client, which is not held up."""
        self._put += 1
        with contextlib.suppress(ChannelClosed):
            await self._sender.asend(message)

    def fail(self, error: BaseException) -> None:
        """Nothing more will come. From any thread; what was told first holds."""
        if self._failure is None:
            self._failure = error
        self._sender.close()

    def take(self) -> list[Message]:
        """The messages that wait; none, if none comes for a moment. Those that were taken before
        are done.

        :raises Exception: what it failed by, once there is no message before that
        """
        self._done = self._taken
        receiver = self._receiver
        try:
            messages = [receiver.recv(WAIT)]
        except TimeoutError:
            return []
        except ChannelClosed:
            assert self._failure is not None
            raise self._failure from None
        self._take_more(messages)
        if len(messages) < FEW:
            time.sleep(_GATHERING)
            self._take_more(messages)
        self._taken += len(messages)
        return messages

    def _take_more(self, messages: list[Message]) -> None:
        receiver = self._receiver
        with contextlib.suppress(ChannelClosed):
            while len(messages) < CHUNK and (more := receiver.try_recv()) is not None:
                messages.append(more)

    def close(self) -> None:
        """Take no more; a client that waits for room goes on."""
        self._receiver.close()


class LoopThread:
    """An event loop in a thread of its own, for a client that needs one.

    :param name: what the thread is called
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run a coroutine there, and wait for what it returns.

        :param coroutine: the coroutine
        :param timeout: after how many seconds it is cancelled
        :raises TimeoutError: if it took longer
        """

        async def bounded() -> T:
            limit = asyncio.timeout(timeout)
            try:
                async with limit:
                    return await coroutine
            except TimeoutError:
                if not limit.expired():
                    raise
                raise TimeoutError(f"it has not answered for {timeout:g} s") from None

        return asyncio.run_coroutine_threadsafe(bounded(), self._loop).result()

    def tell(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine there, and wait for nothing. From any thread."""
        try:
            asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:  # it has ended
            coroutine.close()

    def close(self) -> None:
        """Cancel what runs there, and end."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            for _ in range(3):  # what is closed is let go of in the next rounds
                self._loop.run_until_complete(asyncio.sleep(0))
        finally:
            self._loop.close()
