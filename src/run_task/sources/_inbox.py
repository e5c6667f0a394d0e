"""Rows that a program puts, as a source."""

from __future__ import annotations

from collections.abc import Generator
from typing import Generic, TypeVar

from run_task.errors import ChannelClosed, ConfigError
from run_task.observe._log import Log
from run_task.observe._recurrence import Recurrence
from run_task.sources._protocol import SourceInfo
from run_task.sync._channel import Receiver, Sender, telling_channel
from run_task.sync._overflow import Overflow
from run_task.time._interval import TimeUnit
from run_task.time._moment import TimeLike

R = TypeVar("R")

_log = Log(__name__)


class Inbox(Generic[R]):
    """A source whose rows a program puts there: a callback of a client, a request, a thread.

    ::

        inbox = Inbox()
        pipeline.source(inbox, into=series)
        client.on_price = lambda price: inbox.put(price.time, {"price": price.value})

    Rows come out in the order in which they were put, from any number of threads and event loops.
    It is read once. When it is closed, rows that were put before are still given; when it is left,
    as by a pipeline that is shut down, those that wait are dropped, and counted.

    :param capacity: how many rows may wait in it
    :param overflow: what putting a row does while as many wait: with ``BLOCK`` it waits for room;
        with ``DROP_OLDEST`` and ``DROP_NEWEST`` it does not wait, and a row is dropped and counted
    :param unit: the unit of timestamps that are ints; None: that of the data which the rows enter
    :param name: what it is called in messages
    :raises ConfigError: if one of these cannot be
    """

    def __init__(
        self,
        capacity: int = 10_000,
        *,
        overflow: Overflow = Overflow.BLOCK,
        unit: TimeUnit | None = None,
        name: str = "inbox",
    ) -> None:
        if not isinstance(unit, TimeUnit | None):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
            raise ConfigError(f"Inbox: unit={unit!r}: it is a TimeUnit or None")
        self._name = name
        self._capacity = capacity
        self._unit = unit
        try:
            ends: tuple[Sender[tuple[TimeLike, R]], Receiver[tuple[TimeLike, R]]] = telling_channel(
                capacity, overflow, self._note_dropped
            )
        except ConfigError as error:
            raise ConfigError(f"Inbox: {error}") from None
        self._sender, self._receiver = ends
        self._drops = Recurrence()
        self._due = 0  # how many drops are to be logged now

    @property
    def dropped(self) -> int:
        """How many rows were dropped: since it was full, or since a pipeline has taken no more."""
        return self._sender.dropped

    @property
    def closed(self) -> bool:
        """Whether it takes no more rows."""
        return self._sender.closed

    @property
    def capacity(self) -> int:
        """How many rows may wait in it."""
        return self._capacity

    def __len__(self) -> int:
        """How many rows wait."""
        return len(self._sender)

    def about(self) -> SourceInfo:
        """Its unit, how many rows were dropped, that it is read once, and has no history."""
        return SourceInfo(unit=self._unit, endless=True, once=True, dropped=self.dropped)

    def put(self, timestamp: TimeLike, row: R, timeout: float | None = None) -> None:
        """Put a row. From any thread; in an event loop, use :meth:`aput`, which holds up nothing.

        :param timestamp: its time: an int in the unit, an aware datetime, or a ``datetime64``
        :param row: the row, as in any source
        :param timeout: with ``Overflow.BLOCK``, how many seconds to wait for room; None: as long as
            it takes
        :raises ChannelClosed: if it is closed; the row was not put
        :raises TimeoutError: if there was no room in time; the row was not put
        """
        try:
            self._sender.send((timestamp, row), timeout)
        except ChannelClosed:
            raise self._refusal() from None
        except TimeoutError:
            raise self._full(timeout) from None
        if self._due:
            self._tell_dropped()

    async def aput(self, timestamp: TimeLike, row: R, timeout: float | None = None) -> None:
        """As :meth:`put`, from any event loop, which goes on meanwhile.

        :param timestamp: its time
        :param row: the row
        :param timeout: with ``Overflow.BLOCK``, how many seconds to wait for room; None: as long as
            it takes
        :raises ChannelClosed: if it is closed; the row was not put
        :raises TimeoutError: if there was no room in time; the row was not put
        """
        try:
            await self._sender.asend((timestamp, row), timeout)
        except ChannelClosed:
            raise self._refusal() from None
        except TimeoutError:
            raise self._full(timeout) from None
        if self._due:
            self._tell_dropped()

    def close(self) -> None:
        """Take no more rows; who waits for room is told. From any thread, any number of times."""
        self._sender.close()

    def __iter__(self) -> Generator[tuple[TimeLike, R]]:
        """The rows, each once it was put; those that wait when it is closed, too.

        Who leaves it before its end closes it.
        """
        try:
            yield from self._receiver
        finally:
            self.close()
            self._due += self._drops.rest()
            self._tell_dropped()
            self._receiver.close()
            self._due += self._drops.rest()
            self._tell_dropped(left=True)

    def __repr__(self) -> str:
        return f"Inbox({self._name!r})"

    def _refusal(self) -> ChannelClosed:
        return ChannelClosed(
            f"{self!r} is closed, by close() or since its pipeline has ended: the row was not put"
        )

    def _full(self, timeout: float | None) -> TimeoutError:
        return TimeoutError(
            f"{self!r} was full for {timeout} s: {len(self)} rows wait to be taken; the row was "
            f"not put"
        )

    def _note_dropped(self, _: object) -> None:
        # Under the lock of the channel: it is logged after that, since a log may end in an inbox.
        self._due += self._drops.happen()

    def _tell_dropped(self, *, left: bool = False) -> None:
        since, self._due = self._due, 0
        if not since:
            return
        rows = "a row was" if since == 1 else f"{since:,} rows were"
        why = (
            "left in it as it was closed, as by a pipeline that is shut down"
            if left
            else f"{self._capacity:,} wait already: give it more room by capacity=, or fewer rows"
        )
        _log.warning("%r: %s dropped, %s by now: %s", self, rows, f"{self.dropped:,}", why)
