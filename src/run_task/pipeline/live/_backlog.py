"""Results that wait until a sink can take them."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import Final

from run_task.errors import ChannelClosed, described
from run_task.sinks._protocol import Result
from run_task.sinks._spool import SpoolFolder, SpoolFull


class Marker:
    """It stands behind the results that are to be flushed."""

    def __init__(self) -> None:
        self.passed: Final = threading.Event()
        """Whether they are."""


class Backlog:
    """A queue that stages fill and a thread empties. From any thread.

    Whoever fills it waits while it is full, as long as the sink is at work; while that is away,
    nobody waits for it. With a spool, what waits lies there as soon as the sink is away, or there
    is no room in memory: then all that was not flushed is on disk, in order, up to where the sink
    has caught up.

    :param capacity: how many results may wait in memory
    :param spool: the folder where more may wait; None: there is none
    """

    def __init__(self, capacity: int, spool: SpoolFolder | None = None) -> None:
        self._limit: float = capacity  # and as many more as there are markers
        self._spool = spool
        self._spooling = spool is not None and spool.unread > 0
        self._queue: deque[Result | Marker] = deque()
        self._markers = 0  # of what waits
        self._hand: list[Result] = []  # what was taken out of memory, and is not settled
        self._mutex = threading.Lock()
        self._filled = threading.Condition(self._mutex)
        self._room = threading.Condition(self._mutex)
        # Who waits for these: to notify nobody takes as long as all else that is done for a result.
        self._is_idle = False
        self._blocked = 0
        self._is_away = False
        self._is_closed = False  # nothing more comes
        self._is_over = False  # nothing more is taken
        self.problem: str | None = None
        """Why there was no room on disk, when that was last so."""
        self.given: int = 0 if spool is None else spool.unread
        """How many results were to wait, with those of an earlier run."""

    def __len__(self) -> int:
        """How many results wait."""
        on_disk = self._spool.unread if self._spool is not None else 0
        return len(self._queue) - self._markers + on_disk

    @property
    def keeps_all(self) -> bool:
        """Whether all that is not settled is on disk."""
        return self._spooling

    @property
    def is_closed(self) -> bool:
        """Whether nothing more comes."""
        return self._is_closed

    def put(self, result: Result) -> bool:
        """Let a result wait.

        :return: whether there was room for it; not: the sink is away
        :raises ChannelClosed: if nothing more is taken
        """
        queue = self._queue
        with self._mutex:
            self.given += 1
            while True:
                if self._is_over or self._is_closed:
                    raise ChannelClosed("the sink has failed, or is closed")
                if self._spooling:
                    return self._put_on_disk(result)
                if len(queue) < self._limit:
                    queue.append(result)
                    if self._is_idle:
                        self._wake()
                    return True
                if self._spill():
                    continue
                if self._is_away:
                    return False
                self._blocked += 1  # first: who takes one looks at it after that
                if len(queue) >= self._limit:
                    self._room.wait()
                self._blocked -= 1

    def mark(self, marker: Marker) -> None:
        """Let a marker wait behind all that waits. There is always room for it.

        :raises ChannelClosed: if nothing more is taken
        """
        with self._mutex:
            if self._is_over or self._is_closed:
                raise ChannelClosed("the sink has failed, or is closed")
            if not self._spooling:
                self._markers += 1
                self._limit += 1
                self._queue.append(marker)
                self._wake()
                return
            assert self._spool is not None
            try:
                self._spool.sync()
            except OSError as error:  # then nobody is told that it lasts
                self.problem = described(error)
            else:
                marker.passed.set()

    def _put_on_disk(self, result: Result) -> bool:
        assert self._spool is not None
        try:
            self._spool.append([self._spool.encoded(result)])
        except SpoolFull as error:
            self.problem = str(error)
            return False
        self._wake()
        return True

    def _spill(self) -> bool:
        """Put all that is not settled on disk. Returns whether it is there."""
        spool = self._spool
        if spool is None:
            return False
        waiting = [item for item in self._queue if isinstance(item, Result)]
        markers = [item for item in self._queue if isinstance(item, Marker)]
        try:
            spool.append([spool.encoded(result) for result in (*self._hand, *waiting)])
            spool.skip(len(self._hand))  # these are in the hands of who empties it
            if markers:
                spool.sync()
        except (SpoolFull, OSError) as error:
            self.problem = str(error)
            return False
        self._hand.clear()
        self._clear()
        self._spooling = True
        for marker in markers:
            marker.passed.set()
        self._room.notify_all()
        self._wake()
        return True

    def _clear(self) -> list[Result | Marker]:
        """Take out all that waits in memory. One by one, since others may take some meanwhile."""
        taken: list[Result | Marker] = []
        with suppress(IndexError):
            while True:
                taken.append(self._queue.popleft())
        self._limit -= self._markers
        self._markers = 0
        return taken

    def _wake(self) -> None:
        """Something waits, for who empties it."""
        self._is_idle = False
        self._filled.notify()

    def take(self, timeout: float) -> Result | Marker:
        """The next result, or marker.

        :param timeout: how many seconds to wait for one
        :raises TimeoutError: if none came
        :raises ChannelClosed: if none will come
        """
        if self._queue and self._spool is None and not self._markers:
            # As most often: what is first is a result, and to take it out is one operation.
            try:
                item = self._queue.popleft()
            except IndexError:
                pass  # nothing more is taken
            else:
                if self._blocked:
                    with self._mutex:
                        self._room.notify()
                return item
        with self._mutex:
            if not (self._queue or len(self) or self._is_closed or self._is_over):
                self._is_idle = True
                self._filled.wait(min(timeout, threading.TIMEOUT_MAX))
            if self._is_over:
                raise ChannelClosed("nothing more is taken")
            if self._spooling and self._spool is not None:
                result = self._spool.take()
                if result is not None:
                    return result
            if self._queue:
                item = self._queue.popleft()
                if isinstance(item, Marker):
                    self._markers -= 1
                    self._limit -= 1
                else:
                    if self._blocked:
                        self._room.notify()
                    if self._spool is not None:
                        self._hand.append(item)
                return item
            if self._is_closed:
                raise ChannelClosed("nothing more comes")
            raise TimeoutError

    def settle(self) -> None:
        """All that was taken is flushed, or is not going to be: it is kept no more."""
        if self._spool is None:
            return
        with self._mutex:
            self._hand.clear()
            if self._spooling:
                self._spool.settle()
                self._spooling = self._spool.unread > 0 or self._is_away

    def note_away(self, away: bool) -> None:
        """Say whether the sink is away: then nobody waits for room."""
        with self._mutex:
            self._is_away = away
            if away:
                if not self._spooling:
                    self._spill()
                self._room.notify_all()

    def sync(self) -> None:
        """Have the disk keep what waits there."""
        if self._spool is not None:
            with self._mutex, suppress(OSError):
                self._spool.sync()

    def unbound(self) -> None:
        """Let nobody wait for room any more."""
        with self._mutex:
            self._limit = float("inf")
            self._room.notify_all()

    def close(self) -> None:
        """Nothing more comes. What waits is still taken."""
        with self._mutex:
            self._is_closed = True
            self._filled.notify_all()
            self._room.notify_all()

    def end(self) -> list[Result]:
        """Nothing more is taken. Returns what waited, and is not on disk."""
        with self._mutex:
            self._is_over = True
            rest = [item for item in self._clear() if isinstance(item, Result)]
            self._filled.notify_all()
            self._room.notify_all()
            return rest

    def let_go(self) -> None:
        """Close the spool. What waits there stays."""
        if self._spool is not None:
            with self._mutex:
                with suppress(OSError):
                    self._spool.sync()
                self._spool.close()
