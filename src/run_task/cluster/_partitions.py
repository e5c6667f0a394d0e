"""A source that shards read by themselves, as the driver has it: of each row the time, the key and
the place. By these, rows enter and windows are run in the one order that there is."""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence, Set
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from run_task.cluster._bytes import of_bytes
from run_task.cluster._messages import PartitionSetup, RowsRead, ShardReply
from run_task.cluster._windows import LOOK
from run_task.data import TimeSeries
from run_task.data._buckets import bucket_of, part_of
from run_task.data.series._places import MOST_ROWS, PLACE, places_of
from run_task.data.series._tap import SeriesPattern
from run_task.errors import SourceError
from run_task.observe._format import brief
from run_task.sources._batch import Batch
from run_task.sources._faults import StampedAhead, tell_fault
from run_task.sources._partitioned import NOTHING_YET
from run_task.sources._protocol import SourceInfo


class PartitionSource(NamedTuple):
    """A partition as it was declared."""

    origin: str
    """The source that it is part of, for messages."""

    name: str
    about: Callable[[], SourceInfo]
    source: bytes
    """What a shard reads, pickled."""

    on_bad_row: bytes
    """What is done with a row that is malformed, pickled."""


class Missing(enum.Enum):
    """Why there is no answer."""

    AWAY = "away"
    """The shard is, and has been waited for as long as it may be."""

    CLOSED = "closed"
    """Nobody wants it any more."""


class WhenAway(enum.Enum):
    """What becomes of rows whose shard stays away."""

    GO_ON = "those of the others come without them"
    END = "they are waited for while the shard may come back, and then the run ends"


class AskedRows(NamedTuple):
    """Rows that a shard was asked for."""

    life: int
    """Of the shard, in which it was asked."""

    call: Future[ShardReply]


class Asking(Protocol):
    """The way to the shard that reads a partition."""

    def ask(self, partition: PartitionOnShards) -> AskedRows | None:
        """Ask for its next rows. Returns at once: None if the shard is gone."""
        ...

    def answer(self, partition: PartitionOnShards, asked: AskedRows | None) -> RowsRead | Missing:
        """Wait for them."""
        ...


class PartitionKeys:
    """Which keys the partitions of one source have.

    :param series: what their rows enter
    :param count: how many shards there are
    """

    def __init__(self, series: TimeSeries, count: int) -> None:
        self.series: Final = series
        self.pattern: Final[SeriesPattern] = series.pattern
        assert series.key is not None  # it was checked
        self.name: Final[str] = series.key
        """The column of the key."""
        self.is_text: Final = series.columns[series.key].kind == "U"
        """Whether keys are texts, of which codes are sent."""
        self._count = count
        self._partition_of: dict[Any, PartitionOnShards] = {}
        self._changed = threading.Condition()
        self._unread: set[PartitionOnShards] = set()  # partitions of which more may come

    def shard_of(self, key: Any) -> int:
        """The shard that has a key: that which reads its partition."""
        partition = self._partition_of.get(key)
        if partition is None:
            return part_of(bucket_of(key), self._count)
        return partition.number % self._count

    def add(self, keys: Sequence[Any], partition: PartitionOnShards) -> None:
        """A partition has these keys.

        :raises SourceError: if another one has one of them, too
        """
        with self._changed:
            for key in keys:
                other = self._partition_of.setdefault(key, partition)
                if other is not partition:
                    raise SourceError(
                        *(partition.declared.origin, None, None),
                        f"key {brief(key)} has rows in {other.declared.name!r} and in "
                        f"{partition.declared.name!r}: with partitioned=True, a key is in one "
                        f"partition: divide the rows by key, or leave partitioned=True out",
                    )
            self._changed.notify_all()

    def begin(self, partition: PartitionOnShards) -> None:
        """A partition is going to be read."""
        self._unread.add(partition)

    def end(self, partition: PartitionOnShards) -> None:
        """Nothing more comes of a partition."""
        with self._changed:
            self._unread.discard(partition)
            self._changed.notify_all()

    def wait_for(self, keys: Set[Any], given_up: threading.Event) -> None:
        """Wait until it is known where some keys are that an earlier run had: partitions are read
        again from their beginning.

        :param given_up: set: nobody wants to know it any more
        """
        with self._changed:
            while not given_up.is_set() and self._unread and not keys <= self._partition_of.keys():
                self._changed.wait(LOOK)


class _Bookmark(NamedTuple):
    row: int
    latest: int
    """The latest timestamp of all rows before."""


class PartitionOnShards:
    """A partition that a shard reads: a source of times, keys and places.

    :param number: its number, of all that shards read
    :param declared: what is read
    :param keys: the keys of all partitions of the source
    :param asking: the way to its shard
    :param bound: how many seconds a shard that is gone is waited for at least
    :param when_away: what becomes of the rows then
    """

    def __init__(
        self,
        number: int,
        declared: PartitionSource,
        keys: PartitionKeys,
        asking: Asking,
        bound: float,
        when_away: WhenAway,
    ) -> None:
        self.number: Final = number
        self.declared: Final = declared
        self.keys: Final = keys
        self.bound: Final = bound
        self.when_away: Final = when_away
        self.closed: Final = threading.Event()
        """Set: no more rows are wanted."""
        self.start: int = 0
        """The number of the row that comes next."""
        self._asking = asking
        self._bookmarks: deque[_Bookmark] = deque([_Bookmark(0, -(2**63))])
        self._known: set[Any] = set()  # keys that it has had
        self._malformed = 0
        keys.begin(self)

    def setup(self) -> PartitionSetup:
        """What a shard is told of it."""
        declared = self.declared
        return PartitionSetup(
            self.number,
            f"{declared.origin}: {declared.name}",
            declared.source,
            declared.on_bad_row,
            self.keys.pattern,
            self._bookmarks[0].row,
        )

    def keep_from(self, needed_from: int | None) -> int:
        """The number of the first row that may still be named.

        :param needed_from: rows of an earlier timestamp are not
        """
        marks = self._bookmarks
        while needed_from is not None and len(marks) > 1 and marks[1].latest < needed_from:
            marks.popleft()
        return marks[0].row

    def about(self) -> SourceInfo:
        """What it says of itself, and how many malformed rows were found so far."""
        return replace(self.declared.about(), malformed=self._malformed)

    def close(self) -> None:
        """Give no more rows. From any thread."""
        self.closed.set()

    def batches(self) -> Generator[Batch]:
        """Of all rows the time, the key and the place.

        :raises SourceError: if it cannot be read on, or has a key of another partition
        """
        try:
            yield from self._read_on()
        finally:
            self.keys.end(self)

    def _read_on(self) -> Generator[Batch]:
        asked = self._asking.ask(self)
        while (read := self._asking.answer(self, asked)) is not Missing.CLOSED:
            if read is Missing.AWAY:
                yield NOTHING_YET
                asked = self._asking.ask(self)
                continue
            for fault in read.faults:
                error, _ = of_bytes(fault)
                self._malformed += not isinstance(error, StampedAhead)
                tell_fault(error)
            if read.error is not None:
                error, note = of_bytes(read.error)
                error.add_note(note.replace("in the worker process", "in its shard", 1))
                raise error
            if read.ended:
                return
            batch = self._batch(read)
            self.start += len(read.times)
            if self.start > MOST_ROWS:
                raise SourceError(
                    *(self.declared.origin, None, None),
                    f"{self.declared.name!r} has more than {MOST_ROWS:,} rows: divide it",
                )
            latest = max(self._bookmarks[-1].latest, int(read.times.max()))
            self._bookmarks.append(_Bookmark(self.start, latest))
            asked = self._asking.ask(self)  # before these are taken: it is read meanwhile
            yield batch

    def __iter__(self) -> Generator[tuple[int, dict[str, Any]]]:
        for batch in self.batches():
            yield from batch.rows()

    def _batch(self, read: RowsRead) -> Batch:
        keys: NDArray[Any] = read.keys
        if self.keys.is_text:
            there: Sequence[Any] = read.texts
            keys = np.array(read.texts, object)[keys]
        else:
            there = np.unique(keys).tolist()
        if new := set(there) - self._known:
            self.keys.add(sorted(new), self)
            self._known |= new
        count = len(read.times)
        places = places_of(self.number, read.start, count)
        name = self.keys.name
        if not read.unfit:
            return Batch(read.times, {name: keys, PLACE: places})
        all_keys: NDArray[np.object_] = np.empty(count, object)
        all_places: NDArray[np.object_] = np.empty(count, object)
        fit = np.ones(count, np.bool_)
        fit[list(read.unfit)] = False
        all_keys[fit], all_places[fit] = keys.tolist(), places[fit].tolist()
        for at, reason in read.unfit.items():
            # What no key can be, so that the row is refused in its turn; a checkpoint can have it.
            all_keys[at] = None if reason is None else [f"it cannot be stored: {reason}"]
            all_places[at] = None if reason is None else int(places[at])
        return Batch(read.times, {name: all_keys, PLACE: all_places})
