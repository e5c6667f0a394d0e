"""Running until shut down, in any of four ways, by threads or in an event loop."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from run_task.sync._alarm import AnyAlarm
from run_task.sync._waiting import Wait, wait_task, wait_thread


class Running(ABC):
    """What runs by ``run_sync()``, by ``await run()``, or in a ``with`` or ``async with`` block, at
    whose end it is shut down. It runs once."""

    def __init__(self) -> None:
        self._exit = contextlib.ExitStack()  # closed when it has ended

    def run_sync(self) -> None:
        """Run until it is shut down, or at its end. Ctrl-C and, in the main thread, SIGTERM shut it
        down, too.

        :raises RunTaskError: if it has run before
        :raises Exception: what made it end, if it was no shutdown
        :raises KeyboardInterrupt: after the shutdown, if it was Ctrl-C that began it
        """
        with self:
            self._wait()

    async def run(self) -> None:
        """As :meth:`run_sync`, for asyncio. Cancelling it shuts it down, too.

        :raises RunTaskError: if it has run before
        :raises Exception: what made it end, if it was no shutdown
        """
        async with self:
            await self._wait_async()

    @abstractmethod
    def shutdown(self) -> None:
        """Bring it to its end, and return at once. From any thread, any number of times, and in a
        signal handler."""

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        try:
            self.shutdown()
            self._wait()
        finally:
            self.shutdown()  # once more, if Ctrl-C came in the middle of the first
            self._exit.close()
        self._report(exc)

    async def __aenter__(self) -> Self:
        self._enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        try:
            self.shutdown()
            await self._wait_async()
        finally:
            self.shutdown()  # once more, if Ctrl-C came in the middle of the first
            self._exit.close()
        self._report(exc)

    def _enter(self) -> None:
        try:
            self._begin()
        except KeyboardInterrupt:  # there is no block yet whose end would shut it down
            self.shutdown()
            raise

    @abstractmethod
    def _begin(self) -> None:
        """Begin to run, and put what is to be closed at the end into ``_exit``."""

    @abstractmethod
    def _until_ended(self, alarm: AnyAlarm) -> Wait[object]:
        """The wait for the end."""

    @abstractmethod
    def _settle(self) -> None:
        """Once it has ended, wait for the threads that have nothing left to do."""

    def _wait(self) -> None:
        """Wait for the end."""
        wait_thread(self._until_ended)
        self._settle()

    async def _wait_async(self) -> None:
        """Wait for the end, without holding up the event loop."""
        await wait_task(self._until_ended)
        self._settle()

    @abstractmethod
    def _report(self, exc: BaseException | None) -> None:
        """Raise what went wrong, unless the block raises an error of its own.

        :param exc: that error
        """
