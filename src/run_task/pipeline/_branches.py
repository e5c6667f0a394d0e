"""One source whose rows go several ways, into data of different kinds: each way at its own pace.

A row enters some data when what comes before it has, and that is another time for each of them. So
each way is a source of its own to those who let rows enter, and none waits for another: whoever
wants a row that nobody has read yet reads it, for all.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, NamedTuple, TypeAlias

from run_task.pipeline._route import Route
from run_task.sources._batch import Batch, Batched
from run_task.sources._positioned import UNKNOWN, Position, Positioned, positioned
from run_task.sources._protocol import Arriving, Playback, SourceInfo, TellsRowTimes, about
from run_task.time._clock import Clock

RoutedSource: TypeAlias = tuple[Any, int, Route]
"""A source, how many nanoseconds the unit of its timestamps has, and where its rows go."""

MOST: Final = 10_000
"""How many items a live source is read ahead of the way that is furthest behind."""


class _Next:
    """When the next row of a recording comes, and its own time: told between two rows."""

    __slots__ = ("row_ns", "time_ns")

    def __init__(self, time_ns: float, row_ns: float) -> None:
        self.time_ns = time_ns
        self.row_ns = row_ns


class SourceItem(NamedTuple):
    """What was read of a source."""

    item: Any
    number: int
    """The how many-th item it is."""
    position: Position
    """Where the source was then, if it has positions."""


_END: Final = object()


class Split:
    """A source that is read once, for several ways.

    :param source: the source: no async one
    :param count: how many ways there are
    :param ahead: how many items may wait for one way; none, where all ways are gone by one thread
    :param ingests: what has rows enter, one by one, of the ways that do not enter as they are
    """

    def __init__(
        self,
        source: Any,
        count: int,
        ahead: int | None = None,
        ingests: Collection[Any] = (),
    ) -> None:
        self.source = source
        self._ahead = ahead
        self._queues: Sequence[deque[Any]] = [deque() for _ in range(count)]
        self._told: list[Callable[[float], object] | None] = [None] * count
        self._next_rows_ns: list[float] = [-math.inf] * count
        self._changed = threading.Condition()
        self._reader: int | None = None  # which of them waits for the source
        self._items: Iterator[Any] | None = None
        self._over = False  # nothing more is read
        self.positioned: Positioned | None = positioned(source)
        """The source, if it says how far it has been read."""
        # Between two rows of a batch there is no position.
        by_row = self.positioned is not None and bool(ingests)
        self._has_batches = isinstance(source, Batched) and not by_row
        self._count = self._rows = 0  # how many items have been read for all, and rows in these
        self._position: Position = UNKNOWN  # behind these, of a source with positions
        self._left: set[int] = set()
        playback = about(source).playback
        self.playback: Playback | None = playback
        if playback is not None:
            playback.observe(self._note_next)
        self._begun = False
        way = Way
        if self._has_batches:
            way = _BatchedWay
        elif isinstance(source, Arriving):
            way = _ArrivingWay
        self.ways: Sequence[Way] = [way(self, number) for number in range(count)]
        """For each way, the source as that has it."""

    def take(self, number: int) -> Any:
        """The next item of one way; ``_END``: there is none.

        :raises BaseException: what the source raises, once
        """
        queue, changed = self._queues[number], self._changed
        while True:
            with changed:
                while not (queue or self._over or (self._reader is None and not self._is_ahead())):
                    changed.wait()
                item: Any = None
                if queue:
                    if self._ahead is not None and len(queue) == self._ahead:
                        changed.notify_all()  # somebody may wait for that
                    item = queue.popleft()
                    if type(item) is SourceItem:
                        self.ways[number].position = item
                elif self._over:
                    return _END
                else:
                    self._reader = number
            if item is None:
                self._read()
            elif type(item) is _Next:
                self._tell(number, item)
            else:
                return item.item

    def _is_ahead(self) -> bool:
        return self._ahead is not None and any(
            len(queue) >= self._ahead
            for number, queue in enumerate(self._queues)
            if number not in self._left
        )

    def _read(self) -> None:
        """Wait for an item of the source, for all."""
        item: Any = _END
        try:
            items = self._items
            if items is None:
                source: Any = self.source
                items = source.batches() if self._has_batches else iter(source)
                self._items = items
            item = next(items, _END)
        finally:
            with self._changed:
                self._reader = None
                if item is _END:
                    self._over = True
                else:
                    self._put(item)
                self._changed.notify_all()

    def _put(self, item: Any) -> None:
        self._count += 1
        self._rows += len(item) if isinstance(item, Batch) else 1
        if self.positioned is not None:
            self._position = self.source.position
        taken = SourceItem(item, self._count, self._position)
        for number, queue in enumerate(self._queues):
            if number not in self._left:
                queue.append(taken)

    def begin_at(self, position: Position) -> None:
        """It goes on from a position of an earlier run."""
        self._position = position

    def waiting(self) -> tuple[int, Position, Sequence[Sequence[SourceItem]]]:
        """How many rows have been read, the position behind them, and for each way the item that it
        took last, and those that it has not taken yet."""
        with self._changed:
            queues: list[list[SourceItem]] = []
            for way, queue in zip(self.ways, self._queues):
                last = [] if way.position is None else [way.position]
                queues.append(last + [item for item in queue if type(item) is SourceItem])
            return self._rows, self._position, queues

    def _note_next(self, time_ns: float) -> None:
        """By the thread that waits for the source: its own way has no item left before this."""
        reader, playback = self._reader, self.playback
        row_ns = playback.next_row_ns if isinstance(playback, TellsRowTimes) else time_ns
        told = _Next(time_ns, row_ns)
        with self._changed:
            for number, queue in enumerate(self._queues):
                if number != reader and number not in self._left:
                    queue.append(told)
            self._changed.notify_all()
        if reader is not None:
            self._tell(reader, told)

    def _tell(self, number: int, told: _Next) -> None:
        self._next_rows_ns[number] = told.row_ns
        tell = self._told[number]
        if tell is not None:
            tell(told.time_ns)

    def next_row_ns(self, number: int) -> float:
        """The time of the row that comes next one way, as that was told of it."""
        return self._next_rows_ns[number]

    def observe(self, number: int, tell: Callable[[float], object]) -> None:
        """Have a function called for one way with when its next row comes."""
        self._told[number] = tell

    def begin(self, number: int, now: Callable[[], int], tell: Callable[[float], object]) -> None:
        """As of :class:`Arriving`, for one way."""
        self._told[number] = tell
        if not self._begun:
            self._begun = True
            self.source.begin(now, self._note_next)

    def leave(self, number: int) -> None:
        """One way takes no more: then the source is at its end for all."""
        with self._changed:
            self._left.add(number)
            self._over = True
            last = len(self._left) == len(self._queues)
            items, self._items = self._items if last else None, None if last else self._items
            self._changed.notify_all()
        close: object = getattr(items, "close", None)
        if callable(close):
            close()

    def stop(self) -> None:
        """Read no more. From any thread."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        if not isinstance(self.source, Generator):  # only the thread that is in one can close it
            close: object = getattr(self.source, "close", None)
            if callable(close):
                close()


class _Items(Generator[Any, None, None]):
    """What comes one way. It leaves that way when it is closed, also if it was never begun."""

    def __init__(self, split: Split, number: int) -> None:
        self._split = split
        self._number = number
        self._closed = False

    def send(self, value: None, /) -> Any:
        item = _END if self._closed else self._split.take(self._number)
        if item is _END:
            raise StopIteration
        return item

    def throw(
        self,
        typ: Any,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Any:
        self.close()
        raise typ

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._split.leave(self._number)


class Way:
    """A source as one way has it."""

    def __init__(self, split: Split, number: int) -> None:
        self.split: Split = split
        """The source, for all ways."""
        self.number: int = number
        """Which of them it is."""
        self.positioned: Positioned | None = split.positioned
        """The source, if it says how far it has been read."""
        self.position: SourceItem | None = None
        """What was taken last."""

    def about(self) -> SourceInfo:
        """What the source says of itself."""
        split = self.split
        known = about(split.source)
        if split.playback is None:
            return known
        return replace(known, playback=_WayPlayback(split, self.number, split.playback))

    def __iter__(self) -> Iterator[Any]:
        return _Items(self.split, self.number)

    def close(self) -> None:
        """Read no more, whichever way."""
        self.split.stop()

    def __repr__(self) -> str:
        return repr(self.split.source)


class _BatchedWay(Way):
    def batches(self) -> Iterator[Batch]:
        """The rows, by column."""
        return _Items(self.split, self.number)

    def __iter__(self) -> Iterator[Any]:
        return (row for batch in self.batches() for row in batch.rows())


class _ArrivingWay(Way):
    def begin(self, now: Callable[[], int], tell: Callable[[float], object], /) -> None:
        """As of :class:`Arriving`."""
        self.split.begin(self.number, now, tell)

    def settle(self, until_ns: int, /) -> None:
        """As of :class:`Arriving`."""
        self.split.source.settle(until_ns)


class _WayPlayback:
    """How a recording is played, as one way has it."""

    def __init__(self, split: Split, number: int, playback: Playback) -> None:
        self._split = split
        self._number = number
        self._playback = playback

    @property
    def speed(self) -> float:
        return self._playback.speed

    @property
    def first_ns(self) -> int | None:
        return self._playback.first_ns

    @property
    def next_ns(self) -> float:
        return self._playback.next_ns

    @property
    def next_row_ns(self) -> float:
        return self._split.next_row_ns(self._number)

    def start(self, clock: Clock | None = None) -> Clock | None:
        return self._playback.start(clock)

    def observe(self, next_row: Callable[[float], object], /) -> None:
        self._split.observe(self._number, next_row)


def branched(
    sources: Sequence[RoutedSource], make: Callable[[Any], Any], ahead: int | None = None
) -> Sequence[RoutedSource]:
    """The same sources, each way of one that goes several as a source of its own.

    :param sources: the sources; ways of one that was declared with several targets stand together
    :param make: gives what is read of such a source, once
    :param ahead: as of :class:`Split`
    """
    found: list[RoutedSource] = []
    counts: dict[int, int] = {}
    for _, _, route in sources:
        counts[route.number] = counts.get(route.number, 0) + 1
    ways: dict[int, Iterator[Any]] = {}
    for source, unit_ns, route in sources:
        one = source
        if counts[route.number] > 1:
            if route.number not in ways:
                same = [other for _, _, other in sources if other.number == route.number]
                ingests = [one.ingest for one in same if one.ingest is not None]
                split = Split(make(source), len(same), ahead, ingests)
                ways[route.number] = iter(split.ways)
            one = next(ways[route.number])
        found.append((one, unit_ns, route))
    return found
