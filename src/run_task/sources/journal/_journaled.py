"""A live source whose rows are given on once a journal holds them."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from run_task.errors import ConfigError, SourceError
from run_task.observe._format import brief
from run_task.sources._arrived import is_arrived
from run_task.sources._arrived_batch import ArrivedBatch
from run_task.sources._batch import Batch, Batched
from run_task.sources._faults import Faults, OnFault
from run_task.sources._positioned import Position, Positioned, positioned
from run_task.sources._protocol import AnyUnit, SourceInfo, about
from run_task.sources.journal._journal import Journal, kind_of
from run_task.sources.journal._kept_rows import (
    CannotKeep,
    KeptRow,
    KeptRows,
    RowEncoder,
    arrived,
    plain,
)
from run_task.sources.journal._segments import SegmentWriter
from run_task.sync._alarm import Alarm
from run_task.time._clock import SystemClock
from run_task.time._interval import TimeUnit
from run_task.time._moment import InvalidTime, timestamp
from run_task.time._wall_time import WallClock

_MOST: Final = 4096
"""How many rows may wait to be kept; then the source has to, too."""

_LEFT_OUT: Final = object()
_AS_IT_CAME: Final = object()
"""In the place of a time: what was given is no int with a dict, and stands in the place of the
row."""


class _Come(NamedTuple):
    """What has come, and when, in nanoseconds since the Unix epoch."""

    whens: Sequence[Any]
    rows: Sequence[Any]
    arrivals: Sequence[int]


class _CameBatch(NamedTuple):
    """A batch that has come."""

    batch: Batch
    arrivals: NDArray[np.int64]


def journaled(where: str, source: Any, journal: Any, zone: WallClock | None) -> JournaledSource:
    """A source with a journal.

    :param where: the source, for messages
    :param journal: the journal, or its folder
    :param zone: what its timestamps mean that name no time zone
    :raises ConfigError: if it cannot have that one
    """
    if about(source).playback is not None:
        raise ConfigError(
            f"{where}: journal={brief(journal)}: it plays a recording, which a replay reads as it "
            f"is: leave the journal out"
        )
    return JournaledSource(
        source, journal if isinstance(journal, Journal) else Journal(journal), zone
    )


class JournaledSource:
    """A source that keeps the rows of another one in a journal, and then gives them on.

    A thread of its own reads the other source and notes when each row comes. Whoever iterates
    writes all that have come since, has the disk keep them, commits them to the other source, and
    is given them.

    :param source: the source; an async one is replaced, by :meth:`read`, before it is iterated over
    :param journal: where its rows are kept
    :param zone: what its timestamps mean that name no time zone
    """

    def __init__(self, source: Any, journal: Journal, zone: WallClock | None = None) -> None:
        self.inner: Any = source
        """The source."""
        self._positioned: Positioned | None = positioned(source)
        self.journal = journal
        self._read: Iterable[Any] = source
        self._zone = zone
        self._unit: TimeUnit | None = None
        self._faults = Faults(OnFault.SKIP)
        self._tell: Callable[[float], object] | None = None
        self._now: Callable[[], int] = SystemClock().time_ns
        self._mutex = threading.Lock()
        self._filled = Alarm()  # there is a row, or there is to be none, or somebody waits
        self._room = Alarm()
        # What has come. Pairs are taken apart: the garbage collector would look at each of them
        # again and again while they wait.
        self._whens: list[Any] = []
        self._rows: list[Any] = []
        self._arrivals: list[int] = []
        self._count = 0  # how many rows that is
        self._inner_position: Position = None  # behind the last of these
        self._inner_behind: Position = None  # behind the last of those that are being kept
        self._kept_inner: Position = None  # behind the last of those that are kept
        self._floor_ns = 0  # no further row comes before
        self._latest_ns = 0  # when the last one came, or that time
        self._is_behind = True  # it may have rows to give that windows have waited for
        self._urgent = False  # what has come is to be given at once
        self._synced = 0.0  # when rows were last taken to be kept, by time.monotonic()
        self._busy = True  # some that have come have not all been given
        self._over = False  # the source gives no more
        self._failure: BaseException | None = None
        self._iterated = self._closed = False
        self._segments: SegmentWriter | None = None
        self._sought: list[int] | None = None
        self._given: list[int] | None = None  # the position behind the last row that was given

    # What it is

    def about(self) -> SourceInfo:
        """What the source says of itself, and that a replay reads the journal."""
        known = about(self.inner)
        return SourceInfo(
            unit=known.unit or self._unit,
            malformed=known.malformed + self._faults.count,
            recording=self.journal,
        )

    def count_in(self, unit: TimeUnit, /) -> None:
        """Give timestamps in this unit.

        :raises ConfigError: if the source cannot, or what the journal holds is in another one
        """
        if isinstance(self.inner, AnyUnit):
            self.inner.count_in(unit)
        kept = self.journal.unit
        if kept is not None and kept is not unit:
            raise ConfigError(
                f"{self.journal!r} holds timestamps in {kept.name.lower()}, and those of "
                f"{brief(self.inner)} are in {unit.name.lower()}: give it another folder"
            )
        self._unit = unit

    # Positions

    @property
    def position(self) -> Position:
        """The segment, and how many of its rows have been given."""
        if self._given is not None:
            return [*self._given]
        if self._sought is not None:
            return [*self._sought]
        return self._open().position

    def seek(self, position: Position, /) -> None:
        """Begin behind a position: with what the journal holds from there on.

        :raises SourceError: if it does not hold that any more, or never did
        """
        folder, numbers = self.journal.folder, self.journal.folder.numbers()
        match position:
            case [int(number), int(row)] if number > 0 and row >= 0:
                pass
            case _:
                told = f"{brief(position)} is no position of a journal"
                raise SourceError(repr(self.journal), None, None, told)
        first, beyond = (numbers[0], numbers[-1] + 1) if numbers else (1, 1)
        if number < first:
            head = folder.head(first)
            raise SourceError(
                repr(self.journal),
                None,
                None,
                f"it has no rows of segment {number} any more: it begins with segment {first}"
                + ("" if head is None else f", at {head.since_ns} ns since the Unix epoch")
                + ": let it keep rows for longer, by keep=",
            )
        if number > beyond or (number == beyond and row):
            raise SourceError(
                repr(self.journal),
                None,
                None,
                f"it ends before segment {number}, row {row}: it is another folder, or segments "
                f"were moved: restore them",
            )
        self._sought = [number, row]
        self._open().need(number)

    def commit(self, position: Position, /) -> None:
        """Rows up to a position are not asked for again: those that are old are removed."""
        if self._segments is not None:
            self._segments.need(position[0])
        # Again: the source may have had to be asked for the next row first, to have this one done.
        if self._kept_inner is not None and self._positioned is not None:
            self._positioned.commit(self._kept_inner)

    @property
    def lag(self) -> int | None:
        """How many rows the source has yet to give; None: it is disconnected. Those that have come
        are given before a time is settled."""
        if self._positioned is None:
            return 0
        lag = self._positioned.lag
        self._is_behind = self._is_behind or lag != 0  # who asks waits
        return lag

    # Reading

    def read(self, rows: Iterable[Any]) -> None:
        """Read something else in the place of the source: the same, for threads."""
        self._read = rows

    def begin(self, now: Callable[[], int], tell: Callable[[float], object], /) -> None:
        """As of :class:`Arriving`: it takes the journal for itself."""
        self._now, self._tell = now, tell
        self._open()

    def _open(self) -> SegmentWriter:
        if self._segments is None:
            if self._unit is None:
                self.count_in(about(self.inner).unit or TimeUnit.MILLIS)
            assert self._unit is not None
            segments = self._segments = self.journal.open(
                self._unit, None if self._positioned is None else kind_of(self._positioned)
            )
            self._latest_ns = segments.last_ns
            if self._positioned is not None and segments.inner is not None:
                self._positioned.seek(segments.inner)
        return self._segments

    def settle(self, until_ns: int, /) -> None:
        """As of :class:`Arriving`."""
        with self._mutex:
            self._floor_ns = max(self._floor_ns, until_ns)
            self._latest_ns = max(self._latest_ns, until_ns)
            next_ns = self._next_ns()
            settled = not self._busy and next_ns >= until_ns
            self._urgent = self._urgent or not settled
        if not settled:
            self._filled.ring()
        elif self._tell is not None:
            self._tell(next_ns)

    def _next_ns(self) -> int:
        """Before when no row comes but those that are being given."""
        return self._arrivals[0] if self._arrivals else self._floor_ns

    def close(self) -> None:
        """Give no more rows than have come. From any thread."""
        self._closed = True
        segments = self._segments
        if segments is not None:
            segments.stop()
            if not self._iterated:
                segments.close()
        self._room.ring()
        if not isinstance(self._read, Generator):  # which only the thread that is in it can close
            close: object = getattr(self._read, "close", None)
            if callable(close):
                close()

    def __iter__(self) -> Iterator[Any]:
        """The rows: first those that the journal holds behind the position that was sought.

        :raises SourceError: if they cannot be kept
        :raises Exception: what the source raises, after the rows before it
        """
        with contextlib.closing(self.groups()) as groups:
            for group in groups:
                yield from self.one_by_one(group) if isinstance(group, ArrivedBatch) else group

    def one_by_one(self, batch: ArrivedBatch) -> Iterator[Any]:
        """The rows of a batch that it has just given, with its position behind each."""
        for count, row in enumerate(batch.arrived(), 1):
            self._given = batch.behind(count)
            yield row

    def groups(self) -> Generator[ArrivedBatch | Iterator[Any]]:
        """The same rows, as they are kept together: those that are alike by column, all else one
        by one."""
        self._iterated = True
        segments = self._open()
        self._over, self._failure, self._busy = False, None, True
        try:
            if self._sought is not None:
                yield self._kept(self._sought)
                self._sought = None
            context = contextvars.copy_context()  # so that it tells who listens of what is wrong
            name = f"{threading.current_thread().name}, journal"
            reader = threading.Thread(
                target=context.run, args=(self._take_all,), name=name, daemon=True
            )
            reader.start()
            while come := self._wait():
                yield from self._keep(segments, come, self._inner_behind)
            reader.join()
        finally:
            self._closed = self._closed or not self._over
            self._room.ring()
            self._segments = None
            segments.close()
        if self._failure is not None:
            raise self._failure

    def _kept(self, sought: list[int]) -> Iterator[Any]:
        number, row = sought
        for segment, place, kept in self.journal.folder.rows_from(number, row):
            if self._closed:
                return
            self._given = [segment, place + 1]
            yield arrived(kept)

    def _keep(
        self, segments: SegmentWriter, come: _Come, inner: Position
    ) -> Iterator[ArrivedBatch | Iterator[Any]]:
        """Keep rows, and give them."""
        given = [*self._alike(come)]
        kept = [one for one in given if isinstance(one, KeptRow | KeptRows)]
        first = 0
        if kept:
            try:
                first = segments.write(kept, inner)
            except CannotKeep:
                given = [one for one in _unrolled(given) if self._fits(one)]
                kept = [one for one in given if isinstance(one, KeptRow)]
                first = segments.write(kept, inner) if kept else 0
            self._given = [segments.number, first]
        if inner is not None and self._positioned is not None:
            self._kept_inner = inner
            self._positioned.commit(inner)
        number = segments.number
        for are_rows, some in itertools.groupby(given, lambda one: type(one) is KeptRows):
            if not are_rows:
                single = [*some]
                yield self._singly(single, number, first)
                first += sum(type(one) is KeptRow for one in single)
                continue
            for rows in some:
                batch = rows.given(partial(_behind, number, first))
                first += rows.size
                self._given = [number, first]
                yield batch

    def _singly(self, some: Iterable[Any], number: int, first: int) -> Iterator[Any]:
        for one in some:
            if type(one) is KeptRow:
                first += 1
                self._given = [number, first]
                yield arrived(one)
            else:
                yield one

    def _alike(self, come: _Come) -> Iterator[Any]:
        """What has come, by column where it is alike, and else as :meth:`_made` has it."""
        whens, rows, arrivals = come
        if any(when is _AS_IT_CAME for when in whens):
            for when, item, arrival_ns in zip(whens, rows, arrivals):
                if when is not _AS_IT_CAME:
                    yield from self._all_made(((when, item),), (arrival_ns,))
                elif isinstance(item, _CameBatch):
                    yield from self._of_batch(*item)
                else:
                    yield from self._all_made((item,), (arrival_ns,))
            return
        kept = KeptRows.of_rows(whens, rows, arrivals)
        yield from self._all_made(zip(whens, rows), arrivals) if kept is None else (kept,)

    def _of_batch(self, batch: Batch, arrivals: NDArray[np.int64]) -> Iterator[Any]:
        kept = KeptRows.of_batch(batch, arrivals)
        yield from self._all_made(batch.rows(), arrivals.tolist()) if kept is None else (kept,)

    def _all_made(self, items: Iterable[Any], arrivals: Iterable[int]) -> Iterator[Any]:
        made = map(self._made, items, arrivals)
        return (one for one in made if one is not _LEFT_OUT)

    def _made(self, item: Any, arrival_ns: int) -> Any:
        """What was given, as it is kept; as it is, if it is no row, which who reads it tells;
        ``_LEFT_OUT`` if it is one that cannot be kept."""
        stamp = self._stamp_of(item)
        if stamp is None:
            return item
        row = item.row if is_arrived(item) else item[1]
        try:
            return KeptRow(stamp, arrival_ns, plain(row))
        except CannotKeep as error:
            self._refuse(error)
            return _LEFT_OUT

    def _fits(self, row: Any) -> bool:
        """Whether it can be kept; what is no row is not to be."""
        if type(row) is not KeptRow:
            return True
        try:
            RowEncoder().encode([row], None)
        except CannotKeep as error:
            self._refuse(error)
            return False
        return True

    def _refuse(self, error: CannotKeep) -> None:
        self._faults.note(SourceError(brief(self.inner), None, None, str(error)))

    def _wait(self) -> _Come | None:
        """All rows that were given have been taken: wait for those that are to be kept next. None:
        the source gives no more."""
        with self._mutex:
            self._busy = False
            next_ns = self._next_ns()
        if self._tell is not None and next_ns:
            self._tell(next_ns)
        while True:
            with self._mutex:
                left = self._synced + self.journal.sync_ns / 1e9 - time.monotonic()
                at_once = self._urgent or self._over or self._closed or self._count >= _MOST
                if self._whens and (at_once or left <= 0):
                    come = _Come(self._whens, self._rows, self._arrivals)
                    self._whens, self._rows, self._arrivals, self._count = [], [], [], 0
                    self._inner_behind = self._inner_position
                    self._busy, self._urgent = True, False
                    break
                self._urgent = self._urgent and bool(self._whens)
                if not self._whens and self._over:
                    return None
                wait = left if self._whens else None
            self._filled.wait(wait)
        self._synced = time.monotonic()
        self._room.ring()
        return come

    def _take_all(self) -> None:
        """Read the source, in a thread of its own."""
        items: Any = None
        try:
            read: Any = self._read
            items = read.batches() if isinstance(self._read, Batched) else iter(read)
            put, has_position = self._put, self._positioned is not None
            for item in items:
                put(item, read.position if has_position else None)
                if self._closed:
                    break
        except BaseException as error:
            self._failure = error
        if isinstance(items, Generator):
            try:
                items.close()
            except BaseException as error:
                self._failure = self._failure or error
        with self._mutex:
            self._over = True
        self._filled.ring()

    def _put(self, item: Any, position: Position) -> None:
        """What came is to be kept. This is done for each row: it has to be cheap."""
        while self._count >= _MOST and not self._closed:
            self._room.wait()
        with self._mutex:
            before = self._count
            if item.__class__ is not tuple and isinstance(item, Batch):
                self._take_batch(item)
            else:
                self._take(item)
            self._inner_position = position
            is_awaited = not before or self._count >= _MOST
        if is_awaited:
            self._filled.ring()

    def _take(self, item: Any) -> None:
        when, row = item if item.__class__ is tuple and len(item) == 2 else (_AS_IT_CAME, item)
        if type(when) is not int or type(row) is not dict:
            when, row = _AS_IT_CAME, item
        arrival_ns = self._latest_ns = max(self._comes_ns(item), self._latest_ns)
        self._whens.append(when)
        self._rows.append(row)
        self._arrivals.append(arrival_ns)
        self._count += 1

    def _take_batch(self, batch: Batch) -> None:
        times: Any = batch.timestamps
        if type(times) is not np.ndarray or times.dtype != np.int64:
            for row in batch.rows():
                self._take(row)
        elif len(times):
            arrivals = self._come_ns(times)
            self._whens.append(_AS_IT_CAME)
            self._rows.append(_CameBatch(batch, arrivals))
            self._arrivals.append(int(arrivals[0]))
            self._latest_ns = int(arrivals[-1])
            self._count += len(times)

    def _come_ns(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """When rows of a batch came, as :meth:`_comes_ns` has it, not before those before them."""
        latest_ns = self._latest_ns
        now_ns = max(self._now(), latest_ns)
        if self._positioned is None or not self._is_behind:
            return np.full(len(times), now_ns)
        self._is_behind = self._positioned.lag != 0
        assert self._unit is not None
        unit_ns = self._unit.nanos
        now = now_ns // unit_ns
        came = np.clip(times, latest_ns // unit_ns, now) * unit_ns
        came[times > now] = now_ns
        return np.maximum.accumulate(np.maximum(came, latest_ns))

    def _comes_ns(self, item: Any) -> int:
        """When a row came. One that windows have waited for, since the source was away or behind,
        counts as having come in its time: so a replay, which cannot know that they have waited,
        does not take it for late. It comes after all that was settled, in any case."""
        now_ns = self._now()
        if self._positioned is None or not self._is_behind:
            return now_ns
        self._is_behind = self._positioned.lag != 0
        stamp = self._stamp_of(item)
        assert self._unit is not None
        return now_ns if stamp is None else min(stamp * self._unit.nanos, now_ns)

    def _stamp_of(self, item: Any) -> int | None:
        """The timestamp of a row; None: it is no row, or has none."""
        assert self._unit is not None
        if item.__class__ is tuple and len(item) == 2:
            when = item[0]
        elif is_arrived(item):
            when = item.timestamp
        else:
            return None
        try:
            return timestamp(when, self._unit, self._zone)
        except InvalidTime:
            return None

    def __repr__(self) -> str:
        return repr(self.inner)


def _behind(number: int, first: int, count: int) -> Position:
    return [number, first + count]


def _unrolled(given: Iterable[Any]) -> Iterator[Any]:
    for one in given:
        if isinstance(one, KeptRows):
            yield from one.rows()
        else:
            yield one
