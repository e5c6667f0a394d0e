"""A bounded queue between threads and event loops, whose two ends are closed apart."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from run_task.errors import ChannelClosed, ConfigError
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.sync._alarm import AnyAlarm
from run_task.sync._overflow import Overflow
from run_task.sync._waiting import Deadline, Wait, wait_task, wait_thread

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)

_log = Log(__name__)

_CLOSED: Final = "the receiver was closed"


_FIRST_WARNING: Final = 1.0
"""After how many seconds without room a runner that stands still is worth a line in the log."""

_NEXT_WARNING: Final = 60.0
"""How many seconds later the next line comes; after that, twice as long each time."""


@dataclass(frozen=True)
class ChannelStats:
    """What a channel is doing at the moment.

    :param items: how many items wait to be received
    :param capacity: how many may; infinite once the capacity was lifted for a shutdown
    :param dropped: how many were dropped, at either end
    :param senders: how many threads wait for room
    :param receivers: how many threads and tasks wait for an item
    :param blocked: how many seconds senders have waited for room, all together, up to now
    """

    items: int
    capacity: float
    dropped: int
    senders: int
    receivers: int
    blocked: float


class _Buffer(Generic[T]):
    """What both ends of a channel share.

    ``items`` is appended to only under ``mutex``, or by a sender that is not shared, so that it
    never outgrows the capacity, and popped without, since a deque's popleft is atomic. Who waits
    puts an alarm in a queue and then looks again; who changes something does it first and looks for
    alarms after. So either the waiter sees the change or the other sees its alarm.
    """

    __slots__ = (
        "blocked",
        "blocked_since",
        "capacity",
        "dropped",
        "items",
        "mutex",
        "name",
        "on_drop",
        "open",
        "overflow",
        "receiver_closed",
        "receivers",
        "sender_closed",
        "senders",
        "warn_at",
        "warning_gap",
    )

    def __init__(self, capacity: int, overflow: Overflow, name: str | None) -> None:
        self.capacity: float = capacity
        self.name: str | None = name
        self.on_drop: Callable[[T], object] | None = None  # in the place of the log
        self.overflow: Overflow = overflow
        self.items: deque[T] = deque()
        self.dropped: int = 0
        self.mutex: threading.Lock = threading.Lock()
        self.open: bool = True
        self.sender_closed: bool = False
        self.receiver_closed: bool = False
        self.senders: deque[AnyAlarm] = deque()
        self.receivers: deque[AnyAlarm] = deque()
        self.blocked: float = 0.0  # how many seconds sends have waited that are over
        self.blocked_since: dict[AnyAlarm, float] = {}  # since when those wait that are not
        self.warn_at: float = 0.0  # no warning of a full channel before then
        self.warning_gap: float = _NEXT_WARNING

    def drop_all(self, why: str) -> None:
        """Drop what waits."""
        with contextlib.suppress(IndexError):
            while True:
                self.drop(self.items.popleft(), why)

    def drop(self, item: T, why: str) -> None:
        self.dropped += 1
        if self.on_drop is not None:
            self.on_drop(item)
            return
        _log.warning(
            "dropped %s: %s (%d dropped so far)",
            item,
            why,
            self.dropped,
            extra={"runner": self.name, "window": getattr(item, "window", None)},
        )

    def blocked_for(self) -> float:
        """How many seconds senders have waited for room, all together, up to now."""
        now = time.monotonic()
        since = list(self.blocked_since.values())
        return self.blocked + sum(now - begun for begun in since)

    def warn(self, seconds: float) -> None:
        """Tell that a runner has waited so long for room: once, and then rarely."""
        with self.mutex:
            now = time.monotonic()
            if now < self.warn_at:
                return
            self.warn_at = now + self.warning_gap
            self.warning_gap *= 2
        _log.warning(
            "runner %r stands still: for %.3g s nobody has received its results, and %d fill the "
            "channel; receive them, or give it room or an overflow by with_channel()",
            self.name,
            seconds,
            len(self.items),
            extra={"runner": self.name},
        )

    def stats(self) -> ChannelStats:
        return ChannelStats(
            items=len(self.items),
            capacity=self.capacity,
            dropped=self.dropped,
            senders=len(self.senders),
            receivers=len(self.receivers),
            blocked=self.blocked_for(),
        )


def _wake_one(alarms: deque[AnyAlarm]) -> None:
    with contextlib.suppress(IndexError):
        alarms.popleft().ring()


def _wake_all(alarms: deque[AnyAlarm]) -> None:
    for alarm in tuple(alarms):
        alarm.ring()


def _leave(alarms: deque[AnyAlarm], alarm: AnyAlarm) -> None:
    """Stop waiting. A wake that still came is passed on to the next in the queue."""
    try:
        alarms.remove(alarm)
    except ValueError:
        _wake_one(alarms)


class Sender(Generic[T_contra]):
    """The end of a channel that items go into. Any number of threads may share it.

    :func:`channel` makes one.
    """

    __slots__ = ("_buffer",)

    def __init__(self, buffer: _Buffer[T_contra]) -> None:
        self._buffer = buffer

    @property
    def dropped(self) -> int:
        """How many items were dropped, at either end."""
        return self._buffer.dropped

    @property
    def closed(self) -> bool:
        """Whether it was said that nothing more will come."""
        return self._buffer.sender_closed

    @property
    def stats(self) -> ChannelStats:
        """What the channel is doing. At any time, from any thread."""
        return self._buffer.stats()

    @property
    def blocked(self) -> float:
        """How many seconds senders have waited for room, all together, up to now."""
        return self._buffer.blocked_for()

    def serve(self, runner: str) -> None:
        """Say whose results go through it: the log then says when they are not received.

        :param runner: the runner's name, unless the channel was made with one
        """
        if self._buffer.name is None:
            self._buffer.name = runner

    def __len__(self) -> int:
        """How many items wait to be received."""
        return len(self._buffer.items)

    def send(self, item: T_contra, timeout: float | None = None) -> None:
        """Put an item in.

        :param item: what is sent
        :param timeout: with ``Overflow.BLOCK``, how many seconds to wait for room; None: forever
        :raises ChannelClosed: if either end is closed
        :raises TimeoutError: if there was no room in time; the item was not sent
        """
        buffer = self._buffer
        items = buffer.items
        with buffer.mutex:
            if sent := buffer.open and len(items) < buffer.capacity:
                items.append(item)
            else:
                sent = self._offer(item)
        if not sent:
            wait_thread(self._until_sent, item, timeout)
        if buffer.receivers:
            _wake_one(buffer.receivers)

    async def asend(self, item: T_contra, timeout: float | None = None) -> None:
        """As :meth:`send`, and waits for room without holding up the event loop.

        :param item: what is sent
        :param timeout: with ``Overflow.BLOCK``, how many seconds to wait for room; None: forever
        :raises ChannelClosed: if either end is closed
        :raises TimeoutError: if there was no room in time; the item was not sent
        """
        buffer = self._buffer
        with buffer.mutex:
            sent = self._offer(item)
        if not sent:
            await wait_task(self._until_sent, item, timeout)
        if buffer.receivers:
            _wake_one(buffer.receivers)

    def _offer(self, item: T_contra) -> bool:
        """Put the item in, or drop one; False if it has to wait. Called under the mutex."""
        buffer = self._buffer
        if buffer.receiver_closed:
            raise ChannelClosed("the receiver is closed: nobody would get what is sent")
        if buffer.sender_closed:
            raise ChannelClosed("the sender is closed: send before closing it")
        items = buffer.items
        if len(items) < buffer.capacity:
            items.append(item)
        elif buffer.overflow is Overflow.BLOCK:
            return False
        elif buffer.overflow is Overflow.DROP_NEWEST:
            buffer.drop(item, "the channel is full")
        else:
            with contextlib.suppress(IndexError):  # received just now: there is room
                buffer.drop(items.popleft(), "the channel is full")
            items.append(item)
        return True

    def _until_sent(self, alarm: AnyAlarm, item: T_contra, timeout: float | None) -> Wait[None]:
        """The wait for room, and putting the item there."""
        buffer = self._buffer
        deadline = Deadline(timeout)
        begun = time.monotonic()
        buffer.blocked_since[alarm] = begun
        try:
            while True:
                buffer.senders.append(alarm)
                try:
                    with buffer.mutex:
                        if self._offer(item):
                            return
                    if deadline.passed:
                        raise TimeoutError(
                            f"the channel was full for {timeout} s: {len(self)} wait"
                        )
                    remaining = deadline.remaining()
                    if buffer.name is not None:
                        seconds = time.monotonic() - begun
                        if seconds >= _FIRST_WARNING:
                            buffer.warn(seconds)
                        remaining = min(
                            math.inf if remaining is None else remaining,
                            max(begun + _FIRST_WARNING, buffer.warn_at) - time.monotonic(),
                        )
                    yield remaining
                finally:
                    _leave(buffer.senders, alarm)
        finally:
            with buffer.mutex:
                del buffer.blocked_since[alarm]
                buffer.blocked += time.monotonic() - begun

    def unbound(self) -> None:
        """Lift the capacity for good: a send that waits, and every later one, succeeds at once.

        A runner that shuts down does this, so that its last DataSet is sent even if nothing reads.
        It takes no lock, and is safe in a signal handler.
        """
        self._buffer.capacity = float("inf")
        _wake_all(self._buffer.senders)

    def close(self) -> None:
        """Say that nothing more will come. What waits can still be received."""
        with self._buffer.mutex:
            self._buffer.sender_closed = True
            self._buffer.open = False
        _wake_all(self._buffer.receivers)
        _wake_all(self._buffer.senders)

    def __repr__(self) -> str:
        return f"<Sender of {_describe(self._buffer)}>"


class SoleSender(Sender[T_contra]):
    """A sender that is used by one thread at a time, as a runner uses its own.

    Nobody else can take the room that it has found, so it needs no mutex to send, which would be a
    tenth of a cheap tick.
    """

    __slots__ = ()

    def send(self, item: T_contra, timeout: float | None = None) -> None:
        """As :meth:`Sender.send`."""
        buffer = self._buffer
        items = buffer.items
        if buffer.open and len(items) < buffer.capacity:
            items.append(item)
            if buffer.receiver_closed:  # just now, maybe before the item was there
                with buffer.mutex:
                    buffer.drop_all(_CLOSED)
            if buffer.receivers:
                _wake_one(buffer.receivers)
        else:
            super().send(item, timeout)


class Receiver(Generic[T_co]):
    """The end of a channel that items come out of, in the order in which they were sent.

    Iterate with ``for`` or ``async for``; both end when the sender is closed and the buffer
    empty. Any number of threads and tasks may share it: each item goes to one of them.
    ``ContextBuilder.build`` gives one, and :func:`channel` does.
    """

    __slots__ = ("_buffer",)

    def __init__(self, buffer: _Buffer[T_co]) -> None:
        self._buffer = buffer

    @property
    def dropped(self) -> int:
        """How many items were dropped, at either end."""
        return self._buffer.dropped

    @property
    def stats(self) -> ChannelStats:
        """What the channel is doing. At any time, from any thread."""
        return self._buffer.stats()

    def __len__(self) -> int:
        """How many items wait to be received."""
        return len(self._buffer.items)

    def recv(self, timeout: float | None = None) -> T_co:
        """Take the next item, and wait for it.

        :param timeout: how many seconds to wait; None: forever
        :return: the item
        :raises ChannelClosed: if the channel is empty and its sender closed
        :raises TimeoutError: if nothing came in time
        """
        item = self._take()
        if item is not None:
            return item[0]
        return wait_thread(self.until_received, timeout)

    async def arecv(self, timeout: float | None = None) -> T_co:
        """Take the next item, and wait for it without holding up the event loop.

        :param timeout: how many seconds to wait; None: forever
        :return: the item
        :raises ChannelClosed: if the channel is empty and its sender closed
        :raises TimeoutError: if nothing came in time
        """
        item = self._take()
        if item is not None:
            return item[0]
        return await wait_task(self.until_received, timeout)

    def until_received(self, alarm: AnyAlarm, timeout: float | None) -> Wait[T_co]:
        """The wait for the next item."""
        receivers = self._buffer.receivers
        deadline = Deadline(timeout)
        while True:
            receivers.append(alarm)
            try:
                if (item := self._take()) is not None:
                    return item[0]
                if deadline.passed:
                    raise TimeoutError(f"nothing was sent for {timeout} s")
                yield deadline.remaining()
            finally:
                _leave(receivers, alarm)

    def try_recv(self) -> T_co | None:
        """Take the next item if there is one, without waiting.

        :return: the item, or None
        :raises ChannelClosed: if the channel is empty and its sender closed
        """
        item = self._take()
        return None if item is None else item[0]

    def _take(self) -> tuple[T_co] | None:
        """The next item in a tuple, since it may itself be None; or None if there is none yet."""
        buffer = self._buffer
        # Read before the pop: a sender puts its last item in before it closes.
        closed = buffer.sender_closed
        try:
            item = buffer.items.popleft()
        except IndexError:
            if buffer.receiver_closed:
                raise ChannelClosed("the receiver is closed: receive before closing it") from None
            if closed:
                raise ChannelClosed("the sender is closed, and all it sent received") from None
            return None
        if buffer.senders:
            _wake_one(buffer.senders)
        return (item,)

    def close(self) -> None:
        """Say that nothing more is wanted. What waits is dropped; sending raises from now on."""
        buffer = self._buffer
        with buffer.mutex:
            buffer.receiver_closed = True
            buffer.open = False
            buffer.drop_all(_CLOSED)
        _wake_all(buffer.receivers)
        _wake_all(buffer.senders)

    def __iter__(self) -> Iterator[T_co]:
        items = self._buffer.items
        senders = self._buffer.senders
        while True:
            try:
                item = items.popleft()
            except IndexError:
                pass  # waited for below, so that Ctrl-C there does not come with this traceback
            else:
                if senders:
                    _wake_one(senders)
                yield item
                continue
            try:
                item = self.recv()
            except ChannelClosed:
                return
            yield item

    async def __aiter__(self) -> AsyncIterator[T_co]:
        while True:
            try:
                item = await self.arecv()
            except ChannelClosed:
                return
            yield item

    def __repr__(self) -> str:
        return f"<Receiver of {_describe(self._buffer)}>"


def _describe(buffer: _Buffer[T]) -> str:
    state = "an open" if buffer.open else "a closed"
    items = f"{len(buffer.items)}/{buffer.capacity:g} items"
    return f"{state} channel with {items}, {buffer.dropped} dropped"


def channel(
    capacity: int, overflow: Overflow = Overflow.BLOCK, *, name: str | None = None
) -> tuple[Sender[T], Receiver[T]]:
    """Make a bounded channel.

    ::

        ends: tuple[Sender[float], Receiver[float]] = channel(100)
        sender, receiver = ends

    :param capacity: how many items may wait in it, at least 1
    :param overflow: what sending to a full channel does
    :param name: the runner whose results go through it, for the log
    :return: its two ends
    :raises ConfigError: if the capacity is not a positive int
    """
    buffer = _made(capacity, overflow, name)
    return Sender(buffer), Receiver(buffer)


def sole_channel(
    capacity: int, overflow: Overflow, name: str | None
) -> tuple[Sender[T], Receiver[T]]:
    """As :func:`channel`, for a sender that is used by one thread at a time."""
    buffer = _made(capacity, overflow, name)
    return SoleSender(buffer), Receiver(buffer)


def telling_channel(
    capacity: int, overflow: Overflow, on_drop: Callable[[T], object]
) -> tuple[Sender[T], Receiver[T]]:
    """As :func:`channel`, which does not log what it drops.

    :param on_drop: called with each item that is dropped, while no other is sent: it is to be quick
    """
    buffer: _Buffer[T] = _made(capacity, overflow, None)
    buffer.on_drop = on_drop
    return Sender(buffer), Receiver(buffer)


def _made(capacity: int, overflow: Overflow, name: str | None) -> _Buffer[Any]:
    if type(capacity) is not int or capacity < 1:
        raise ConfigError(f"a channel's capacity is a positive int, not {brief(capacity)}")
    if not isinstance(overflow, Overflow):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
        choices = ", ".join(map(str, Overflow))
        raise ConfigError(f"a channel's overflow={overflow!r}: it is one of {choices}")
    return _Buffer(capacity, overflow, name)
