"""An async source, read in an event loop, for a thread that wants its rows."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from typing import Any, Final

from run_task.observe._format import brief
from run_task.sources._positioned import Position, Positioned, positioned
from run_task.sync._alarm import Alarm, AsyncAlarm
from run_task.sync._lifecycle import Lifecycle, Phase

_AHEAD: Final = 1024
"""How many rows may wait until the thread takes them."""


class AsyncSource:
    """Reads an async source in an event loop: that of the coroutine in which it is started, or one
    of its own. It is iterated over in a thread.

    :param source: the source
    :param name: what its thread is called, if it needs one
    """

    def __init__(self, source: AsyncIterable[tuple[int, Any]], name: str) -> None:
        self._source = source
        self.positioned: Positioned | None = positioned(source)
        """The source, if it says how far it has been read."""
        self.position: Position = None
        """Where that was when it had just given the row that was taken last."""
        self._name = name
        self._rows: deque[Any] = deque()  # of a source with positions, each with its own
        self._filled = Alarm()  # there is a row, or there will be none
        self._room: AsyncAlarm | None = None  # there is room for rows
        self._full = False
        self._life = Lifecycle()
        self._exhausted = False
        self._closed = False
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Begin to read."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            thread = threading.Thread(target=self._run_loop, name=self._name, daemon=True)
            thread.start()
            self._thread = thread
        else:
            self._task = loop.create_task(self._run())
            # One that is cancelled before it begins does not run at all.
            self._task.add_done_callback(lambda _: self._end(None))

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        rows = self._rows
        while not self._closed:
            try:
                row = rows.popleft()
            except IndexError:
                if self._exhausted and not rows:
                    break
                self._filled.wait()
                continue
            if self._full and len(rows) <= _AHEAD // 2:
                self._full = False
                assert self._room is not None
                self._room.ring()
            if self.positioned is not None:
                row, self.position = row
            yield row
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop reading. From any thread, any number of times."""
        self._closed = True
        self._filled.ring()
        with self._mutex:
            # Cancelled once: a second time, it would not be cleaned up.
            if not self._life.advance(Phase.STOPPING):
                return
            task = self._task
            if task is None:
                return  # it looks before it begins
        with contextlib.suppress(RuntimeError):  # its loop is closed, and it is over
            task.get_loop().call_soon_threadsafe(task.cancel)

    def join(self, timeout: float) -> bool:
        """Wait until the source has been left. Returns whether it has."""
        if self._thread is None and self._task is None:
            return True  # it was never started
        left = self._life.wait(Phase.ENDED, timeout)
        if left and self._thread is not None:
            self._thread.join()
        return left

    def _run_loop(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:  # of the loop itself
            self._end(error)

    async def _run(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._room = AsyncAlarm()
        with self._mutex:
            self._task = task
        failure: BaseException | None = None
        try:
            if self._life.phase < Phase.STOPPING:
                await self._read()
        except asyncio.CancelledError as error:
            # A client whose own task was cancelled raises the same, and that is a failure.
            if not task.cancelling() and self._life.phase < Phase.STOPPING:
                failure = error
        except BaseException as error:
            failure = error
        self._end(failure)

    def _end(self, failure: BaseException | None) -> None:
        if self._failure is None:
            self._failure = failure
        self._exhausted = True
        self._filled.ring()
        self._life.advance(Phase.ENDED)

    async def _read(self) -> None:
        assert self._room is not None
        waiting = self._rows
        rows: AsyncIterator[tuple[int, Any]] = aiter(self._source)
        try:
            tracked = self.positioned
            async for row in rows:
                waiting.append(row if tracked is None else (row, tracked.position))
                self._filled.ring()
                while len(waiting) >= _AHEAD:  # the windows are behind
                    self._full = True
                    if len(waiting) >= _AHEAD:  # who takes rows from now on sees that it is full
                        await self._room.wait()
        finally:
            if isinstance(rows, AsyncGenerator):  # it may have something to clean up
                await rows.aclose()

    def __repr__(self) -> str:
        return brief(self._source)
