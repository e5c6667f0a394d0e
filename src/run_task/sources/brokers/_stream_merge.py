"""Messages of several streams of one source, brought together by time while it is behind."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from typing import Final

import numpy as np

from run_task.observe._log import Log
from run_task.sources.brokers._broker_source import CHUNK
from run_task.sources.brokers._message import Message

_log = Log(__name__)

IDLE_TIMEOUT: Final = 10.0
"""How many seconds a stream is waited for, unless somebody has said another number."""

_MOST: Final = 5_000
"""With how many messages that wait a stream is full."""

_MOST_BYTES: Final = 32 << 20
"""How many bytes may wait, of all streams."""

_BEFORE_ALL: Final = -(1 << 63)
_AFTER_ALL: Final = 1 << 63


class _Waiting:
    """The messages of one stream that wait.

    :ivar times: the time of each: that of its latest row, or of one before it that is later
    """

    def __init__(self) -> None:
        self.times: list[int] = []
        self.messages: list[Message] = []
        self.size = 0
        self.last = _BEFORE_ALL  # the time of the last one that came
        self.waited_since: float | None = None
        self.is_given_up = False


class StreamMerge:
    """Gives the messages of streams in the order of time, each stream's in its own.

    A stream that is behind is waited for: what others have that is later than its last message
    waits until it has given more. So windows that wait for a row as late as their end have the rows
    of all streams by then. One that has caught up is waited for by none. A stream whose messages
    wait in numbers is full: its source reads on with the others.

    What an outlier is stamped with is no time of its stream: a message that is later than the
    present counts as the one before it.

    :param where: whose streams they are, for the log
    :param times: the time of the latest row of each message; None: it has none
    :param now: the present, in the unit of these
    """

    def __init__(
        self,
        where: str,
        times: Callable[[Sequence[Message]], Sequence[int | None]],
        now: Callable[[], int],
    ) -> None:
        self._where = where
        self._times = times
        self._now = now
        self.idle_timeout: float = IDLE_TIMEOUT
        """How many seconds a stream that is behind and gives nothing is waited for."""
        self._streams: dict[str, _Waiting] = {}
        self._ready: list[Message] = []
        self._waiting = 0

    def __len__(self) -> int:
        """How many messages wait. From any thread."""
        return self._waiting

    @property
    def full(self) -> Collection[str]:
        """The streams of which no more is to be put for now."""
        most = _MOST_BYTES // max(1, len(self._streams))
        return [
            name
            for name, stream in self._streams.items()
            if len(stream.times) >= _MOST or stream.size >= most
        ]

    def has_room(self, name: str) -> bool:
        """Whether a stream that was full has given half of what waited."""
        stream = self._streams[name]
        most = _MOST_BYTES // max(1, len(self._streams))
        return len(stream.times) <= _MOST // 2 and stream.size <= most // 2

    def clear(self) -> None:
        """Forget what waits: it is read again."""
        self._streams.clear()
        self._ready = []
        self._waiting = 0

    def put(self, name: str, messages: Sequence[Message]) -> None:
        """Messages of a stream have come, at least one."""
        stream = self._streams.setdefault(name, _Waiting())
        now, last = self._now(), stream.last
        for when in self._times(messages):
            if when is not None and last < when <= now:
                last = when
            stream.times.append(last)
        self._waiting += len(messages)
        stream.messages += messages
        stream.size += sum(len(message[0] or b"") for message in messages)
        stream.last = last
        stream.waited_since, stream.is_given_up = None, False

    def take(self, behind: Collection[str]) -> Sequence[Message]:
        """The next messages; none, if none is to be given yet. They count as waiting until
        :meth:`taken` is called.

        :param behind: the streams that may have more than was put, and are waited for
        """
        if not self._ready and self._waiting:
            self._ready = self._merged(behind)
        return self._ready[:CHUNK]

    def taken(self, count: int) -> None:
        """So many of what :meth:`take` has given are in other hands."""
        del self._ready[:count]
        self._waiting -= count

    def _merged(self, behind: Collection[str]) -> list[Message]:
        until = _AFTER_ALL
        for name in behind:
            stream = self._streams.setdefault(name, _Waiting())
            if not stream.is_given_up:
                until = min(until, stream.last)
        times: list[int] = []
        messages: list[Message] = []
        streams = 0
        for stream in self._streams.values():
            count = bisect_right(stream.times, until)
            if not count:
                continue
            streams += 1
            times += stream.times[:count]
            some = stream.messages[:count]
            messages += some
            stream.size -= sum(len(message[0] or b"") for message in some)
            del stream.times[:count], stream.messages[:count]
        if len(messages) < self._waiting:
            self._look_who_is_waited_for(behind)
        if streams > 1:
            order = np.argsort(np.array(times, np.int64), kind="stable")
            messages = [messages[at] for at in order.tolist()]
        return messages

    def _look_who_is_waited_for(self, behind: Collection[str]) -> None:
        now = time.monotonic()
        for name, stream in self._streams.items():
            if name not in behind or stream.times:
                stream.waited_since, stream.is_given_up = None, False
            elif stream.waited_since is None:
                stream.waited_since = now
            elif now - stream.waited_since > self.idle_timeout and not stream.is_given_up:
                stream.is_given_up = True
                _log.warning(
                    "%s: %s is behind, and has given nothing for %g s: the others go on without it",
                    *(self._where, name, self.idle_timeout),
                )
