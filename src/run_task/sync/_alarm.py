"""Waking a thread, or a task of an event loop, that waits.

What waits for another thread or task of this process does it here, directly or as
:mod:`run_task.sync._waiting` drives it. Waited for by other means are the end of a
thread, descriptors (of worker processes and of standard input), and an abandoned tick.

Ringing never blocks and takes no lock, so it is safe in a signal handler, whatever the interrupted
code was holding; a ring before the wait is not lost; and a wait that is over may be for nothing, so
the waiter looks again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Event

_LONGEST_SLEEP: Final = 0.1
"""How many seconds at a time the main thread waits, and so how long Ctrl-C may take at most."""


class Alarm:
    """Wakes one thread."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        # A bare lock that starts out taken: a quarter of the cost of an Event, and, unlike it,
        # with no lock of its own that a signal handler might find taken by the code it interrupts.
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake the thread that waits, or that waits next."""
        with contextlib.suppress(RuntimeError):  # rung already, and the waiter has not woken yet
            self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a ring.

        :param timeout: seconds; None or infinity: forever
        :return: whether it rang
        """
        seconds = threading.TIMEOUT_MAX
        if timeout is not None:
            seconds = min(max(timeout, 0.0), seconds)
        if seconds > _LONGEST_SLEEP and threading.current_thread() is threading.main_thread():
            # A signal that comes just before the lock is waited for does not end the wait, and
            # its handler runs when the main thread is next awake: so it never sleeps for long.
            deadline = time.monotonic() + seconds
            while seconds > _LONGEST_SLEEP:
                if self._lock.acquire(timeout=_LONGEST_SLEEP):
                    return True
                seconds = max(0.0, deadline - time.monotonic())
        return self._lock.acquire(timeout=seconds)


class AsyncAlarm:
    """Wakes one task of the event loop that it was made in."""

    __slots__ = ("_event", "_loop")

    def __init__(self) -> None:
        # In an event loop asyncio is imported already; elsewhere it would cost 20 ms.
        import asyncio

        self._loop: AbstractEventLoop = asyncio.get_running_loop()
        self._event: Event = asyncio.Event()

    def ring(self) -> None:
        """Wake the task that waits, or that waits next."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the task went with it
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait for a ring.

        :param timeout: seconds; None or infinity: forever
        :return: whether it rang
        """
        from asyncio import timeout as within

        # Event loops differ in how long a timer they can set; none lives as long as this.
        endless = timeout is None or timeout >= threading.TIMEOUT_MAX
        try:
            async with within(None if endless else timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


AnyAlarm: TypeAlias = Alarm | AsyncAlarm
"""What wakes the thread or task that waits."""
