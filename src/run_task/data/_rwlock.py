"""A value behind a lock that many may read, or one may write."""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

from run_task.errors import LockTimeout
from run_task.sync._alarm import AnyAlarm
from run_task.sync._waiting import Wait, wait_task, wait_thread

T = TypeVar("T")


@dataclass(frozen=True)
class LockStats:
    """What a lock is doing at the moment.

    :param readers: how many read
    :param writing: whether somebody writes
    :param waiting: how many threads and tasks wait for it
    """

    readers: int
    writing: bool
    waiting: int


class _Request:
    """A thread or task that waits for the lock."""

    __slots__ = ("alarm", "exclusive", "granted")

    def __init__(self, alarm: AnyAlarm, *, exclusive: bool) -> None:
        self.alarm = alarm
        self.exclusive = exclusive
        self.granted = False


class _Lock(Generic[T]):
    """The lock itself. Threads and tasks come in by one way, and each waits in its own.

    A reader that finds no writer takes no mutex: it puts itself among the readers and then
    looks whether the lock is ``contended``; a writer says so first, and then looks for readers. So
    one of the two sees the other.
    """

    __slots__ = (
        "contended",
        "mutex",
        "queue",
        "readers",
        "since",
        "value",
        "version",
        "writer",
        "writing",
    )

    def __init__(self, value: T) -> None:
        self.value: T = value
        self.readers: deque[None] = deque()  # one entry each: appending and popping are atomic
        self.contended: bool = False  # whether somebody writes or waits; else readers may pass
        self.mutex: threading.Lock = threading.Lock()  # for all below, never held while waiting
        self.writing: bool = False
        self.queue: deque[_Request] = deque()
        self.version: int = 0  # how often it was written
        self.writer: str = (
            ""  # which thread or task writes, and since when, for the message of a LockTimeout
        )
        self.since: float = 0.0

    def try_read(self) -> bool:
        self.readers.append(None)
        if self.contended:
            self.readers.pop()
            return False
        return True

    def try_write(self) -> bool:
        with self.mutex:
            if self.contended:
                return False
            self.contended = True
            self.writing = self.contended = not self.readers
            return self.writing

    def leave(self, *, exclusive: bool) -> None:
        if exclusive:
            with self.mutex:
                self.writing = False
                self._grant()
        else:
            self.readers.pop()
            if self.contended:
                self.left()

    def left(self) -> None:
        """A reader left, for which others may have waited."""
        with self.mutex:
            self._grant()

    def enter(self, timeout: float | None, *, exclusive: bool) -> None:
        wait_thread(self._until_entered, timeout, exclusive=exclusive)

    async def enter_async(self, timeout: float | None, *, exclusive: bool) -> None:
        await wait_task(self._until_entered, timeout, exclusive=exclusive)

    def _until_entered(
        self, alarm: AnyAlarm, timeout: float | None, *, exclusive: bool
    ) -> Wait[None]:
        """The wait for the lock."""
        request = self._ask(alarm, exclusive=exclusive)
        try:
            if not request.granted:
                yield timeout  # the alarm rings once, when it is granted
        except BaseException:
            self._abandon(request)
            raise
        self._settle(request, timeout)

    def _ask(self, alarm: AnyAlarm, *, exclusive: bool) -> _Request:
        request = _Request(alarm, exclusive=exclusive)
        with self.mutex:
            self.queue.append(request)
            self.contended = True
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
            self.leave(exclusive=request.exclusive)

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
        while self.queue and not self.writing:
            request = self.queue[0]
            if not request.exclusive:
                self.readers.append(None)
            elif self.readers:
                break
            else:
                self.writing = True
            self.queue.popleft()
            request.granted = True
            request.alarm.ring()
        self.contended = self.writing or bool(self.queue)

    def sign(self) -> None:
        """Note who writes."""
        self.version += 1
        self.writer = threading.current_thread().name
        self.since = time.monotonic()

    def describe(self) -> str:
        if self.writing:
            held_for = time.monotonic() - self.since
            return f"thread {self.writer!r} has been writing for {held_for:.3g} s"
        readers = f"{len(self.readers)} reading"
        return f"{readers}, and a writer waits for them" if self.queue else readers


class RwAccess(Generic[T]):
    """The ``with`` or ``async with`` block of :meth:`RwLock.read` or :meth:`RwLock.write`."""

    __slots__ = ("_exclusive", "_lock", "timeout")

    def __init__(self, lock: _Lock[T], timeout: float | None, *, exclusive: bool) -> None:
        self._lock = lock
        self._exclusive = exclusive
        self.timeout: float | None = timeout

    def __enter__(self) -> T:
        lock = self._lock
        if not (lock.try_write() if self._exclusive else lock.try_read()):
            lock.enter(self.timeout, exclusive=self._exclusive)
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
        self._lock.leave(exclusive=self._exclusive)

    async def __aenter__(self) -> T:
        lock = self._lock
        if not (lock.try_write() if self._exclusive else lock.try_read()):
            await lock.enter_async(self.timeout, exclusive=self._exclusive)
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
        self._lock.leave(exclusive=self._exclusive)


class _ReadAccess(RwAccess[T]):
    """An access to read, with a fast path for what is usual: no writer, and none that waits."""

    __slots__ = ()

    def __enter__(self) -> T:
        lock = self._lock
        lock.readers.append(None)  # as in try_read
        if lock.contended:
            lock.readers.pop()
            lock.enter(self.timeout, exclusive=False)
        return lock.value

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        lock = self._lock
        lock.readers.pop()  # as in leave
        if lock.contended:
            lock.left()


class RwLock(Generic[T]):
    """A value that many readers or one writer may hold, across threads and event loops.

    ::

        prices = RwLock([1.0])
        with prices.write() as values:
            values.append(2.0)
        async with prices.read(timeout=0.5) as values:
            print(values[-1])

    Those that have to wait are served in the order of arrival, so neither a stream of readers nor
    one of writers starves the other. The lock is not reentrant: a thread that asks for it while it
    holds it may wait for itself, until its timeout.

    :param value: what is shared
    """

    __slots__ = ("_lock", "_read_access")

    def __init__(self, value: T) -> None:
        self._lock = _Lock(value)
        self._read_access: RwAccess[T] = _ReadAccess(self._lock, None, exclusive=False)

    def read(self, timeout: float | None = None) -> RwAccess[T]:
        """Hold the value together with other readers, for as long as the block lasts.

        :param timeout: how many seconds to wait for writers; None: forever
        :raises LockTimeout: on entering the block
        """
        access = self._read_access
        if access.timeout != timeout:
            # It has no state of its own: one serves all who read with the same timeout.
            access = self._read_access = _ReadAccess(self._lock, timeout, exclusive=False)
        return access

    def write(self, timeout: float | None = None) -> RwAccess[T]:
        """Hold the value alone, for as long as the block lasts.

        :param timeout: how many seconds to wait for readers and other writers; None: forever
        :raises LockTimeout: on entering the block
        """
        return RwAccess(self._lock, timeout, exclusive=True)

    @property
    def version(self) -> int:
        """How often the value has been written. It does not move while the value is read."""
        return self._lock.version

    @property
    def stats(self) -> LockStats:
        """What it is doing. At any time, from any thread."""
        lock = self._lock
        return LockStats(len(lock.readers), lock.writing, len(lock.queue))

    def replace(self, new: T, timeout: float | None = None) -> T:
        """Put a new value in the place of the old.

        :param new: the new value
        :param timeout: how many seconds to wait for readers and other writers; None: forever
        :return: the old value
        :raises LockTimeout: if it could not be done in time; the old value stays
        """
        with self.write(timeout) as old:
            self._lock.value = new
        return old

    async def areplace(self, new: T, timeout: float | None = None) -> T:
        """As :meth:`replace`, without holding up the event loop.

        :param new: the new value
        :param timeout: how many seconds to wait for readers and other writers; None: forever
        :return: the old value
        :raises LockTimeout: if it could not be done in time; the old value stays
        """
        async with self.write(timeout) as old:
            self._lock.value = new
        return old

    def __deepcopy__(self, memo: dict[int, object]) -> RwLock[T]:
        with self.read() as value:
            return RwLock(copy.deepcopy(value, memo))

    def __repr__(self) -> str:
        return f"<RwLock of {self._lock.value!r}, {self._lock.describe()}>"
