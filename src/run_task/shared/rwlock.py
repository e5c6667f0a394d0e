"""A value behind a lock that many may read, or one may write."""

from __future__ import annotations

import threading
import time
from collections import deque
from types import TracebackType
from typing import Final, Generic, TypeVar

from run_task.alarm import Alarm, AsyncAlarm, Bell
from run_task.errors import LockTimeout

T = TypeVar("T")

_WRITER: Final = -1


class _Request:
    """Somebody who waits for the lock."""

    __slots__ = ("bell", "exclusive", "granted")

    def __init__(self, bell: Bell, *, exclusive: bool) -> None:
        self.bell = bell
        self.exclusive = exclusive
        self.granted = False


class _Lock(Generic[T]):
    """The lock itself. Threads and tasks come in by one way, and each waits in its own."""

    __slots__ = ("held", "mutex", "queue", "since", "value", "writer")

    def __init__(self, value: T) -> None:
        self.value: T = value
        self.mutex: threading.Lock = (
            threading.Lock()
        )  # held for a few steps only, never while waiting
        self.held: int = 0  # how many readers hold the lock, or _WRITER
        self.queue: deque[_Request] = deque()
        self.writer: str = ""  # who holds it and since when, for the message of a LockTimeout
        self.since: float = 0.0

    def try_enter(self, *, exclusive: bool) -> bool:
        with self.mutex:
            if self.queue or (self.held if exclusive else self.held < 0):
                return False
            self.held = _WRITER if exclusive else self.held + 1
        return True

    def leave(self) -> None:
        with self.mutex:
            self.held = 0 if self.held < 0 else self.held - 1
            if self.queue:
                self._grant()

    def enter(self, timeout: float | None, *, exclusive: bool) -> None:
        alarm = Alarm()
        request = self._ask(alarm, exclusive=exclusive)
        try:
            alarm.wait(timeout)
        except BaseException:
            self._abandon(request)
            raise
        self._settle(request, timeout)

    async def enter_async(self, timeout: float | None, *, exclusive: bool) -> None:
        alarm = AsyncAlarm()
        request = self._ask(alarm, exclusive=exclusive)
        try:
            await alarm.wait(timeout)
        except BaseException:
            self._abandon(request)
            raise
        self._settle(request, timeout)

    def _ask(self, bell: Bell, *, exclusive: bool) -> _Request:
        request = _Request(bell, exclusive=exclusive)
        with self.mutex:
            self.queue.append(request)
            self._grant()  # the lock may have come free since it was tried
        return request

    def _settle(self, request: _Request, timeout: float | None) -> None:
        """The wait is over: the lock was granted, or is not wanted any more."""
        if self._withdraw(request):
            access = "written" if request.exclusive else "read"
            raise LockTimeout(
                f"the data could not be {access} within {timeout} s: {self.describe()}"
            )

    def _abandon(self, request: _Request) -> None:
        """The wait was broken off: keep neither the place in the queue nor the lock."""
        if not self._withdraw(request):
            self.leave()

    def _withdraw(self, request: _Request) -> bool:
        """Leave the queue; False if the lock has been granted."""
        with self.mutex:
            if request.granted:
                return False
            self.queue.remove(request)
            self._grant()  # those behind may have waited only for this one
            return True

    def _grant(self) -> None:
        """Give the lock to those at the head of the queue who can have it. Under the mutex."""
        while self.queue:
            request = self.queue[0]
            if self.held if request.exclusive else self.held < 0:
                return
            self.held = _WRITER if request.exclusive else self.held + 1
            self.queue.popleft()
            request.granted = True
            request.bell.ring()

    def sign(self) -> None:
        """Note who writes."""
        self.writer = threading.current_thread().name
        self.since = time.monotonic()

    def describe(self) -> str:
        if self.held < 0:
            held_for = time.monotonic() - self.since
            return f"thread {self.writer!r} has been writing for {held_for:.3g} s"
        readers = f"{self.held} reading"
        return f"{readers}, and a writer waits for them" if self.queue else readers


class RwAccess(Generic[T]):
    """The ``with`` or ``async with`` block of :meth:`RwLock.read` or :meth:`RwLock.write`."""

    __slots__ = ("_exclusive", "_lock", "_timeout")

    def __init__(self, lock: _Lock[T], timeout: float | None, *, exclusive: bool) -> None:
        self._lock = lock
        self._timeout = timeout
        self._exclusive = exclusive

    def __enter__(self) -> T:
        lock = self._lock
        if not lock.try_enter(exclusive=self._exclusive):
            lock.enter(self._timeout, exclusive=self._exclusive)
        if self._exclusive:
            lock.sign()
        return lock.value

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._lock.leave()

    async def __aenter__(self) -> T:
        lock = self._lock
        if not lock.try_enter(exclusive=self._exclusive):
            await lock.enter_async(self._timeout, exclusive=self._exclusive)
        if self._exclusive:
            lock.sign()
        return lock.value

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._lock.leave()


class RwLock(Generic[T]):
    """A value that many readers or one writer may hold, across threads and event loops.

    ::

        prices = RwLock([1.0])
        with prices.write() as values:
            values.append(2.0)
        async with prices.read(timeout=0.5) as values:
            print(values[-1])

    Whoever has to wait is served in the order of arrival, so neither a stream of readers nor one
    of writers starves the other. The lock is not reentrant: a thread that asks for it while it
    holds it may wait for itself, until its timeout.

    :param value: what is shared
    """

    __slots__ = ("_lock",)

    def __init__(self, value: T) -> None:
        self._lock = _Lock(value)

    def read(self, timeout: float | None = None) -> RwAccess[T]:
        """Hold the value together with other readers, for as long as the block lasts.

        :param timeout: how many seconds to wait for writers; None: for ever
        :raises LockTimeout: on entering the block
        """
        return RwAccess(self._lock, timeout, exclusive=False)

    def write(self, timeout: float | None = None) -> RwAccess[T]:
        """Hold the value alone, for as long as the block lasts.

        :param timeout: how many seconds to wait for readers and other writers; None: for ever
        :raises LockTimeout: on entering the block
        """
        return RwAccess(self._lock, timeout, exclusive=True)

    def replace(self, new: T, timeout: float | None = None) -> T:
        """Put a new value in the place of the old.

        :param timeout: how many seconds to wait for readers and other writers; None: for ever
        :return: the old value
        :raises LockTimeout: if it could not be done in time; the old value stays
        """
        with self.write(timeout) as old:
            self._lock.value = new
        return old

    async def areplace(self, new: T, timeout: float | None = None) -> T:
        """As :meth:`replace`, without holding up the event loop."""
        async with self.write(timeout) as old:
            self._lock.value = new
        return old

    def __repr__(self) -> str:
        return f"<RwLock of {self._lock.value!r}, {self._lock.describe()}>"
