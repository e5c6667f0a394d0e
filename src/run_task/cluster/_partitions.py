"""A source that shards read by themselves, as the driver has it: of each row the time, the key and
the place. By these, rows enter and windows are run in the one order that there is."""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence, Set
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from run_task.cluster._bytes import of_bytes
from run_task.cluster._messages import PartitionSetup, ReadRows, RowsRead, ShardReply
from run_task.cluster._windows import LOOK
from run_task.data import TimeSeries
from run_task.data._buckets import bucket_of, part_of
from run_task.data.series._places import MOST_ROWS, PLACE, places_of
from run_task.data.series._tap import SeriesPattern
from run_task.errors import SourceError
from run_task.sources._batch import Batch
from run_task.sources._faults import StampedAhead, tell_fault
from run_task.sources._partitioned import COMING, NOTHING_YET, key_in_two
from run_task.sources._positioned import Position
from run_task.sources._protocol import SourceInfo

_FRESH: Final = 0.35
"""For how many seconds it holds what a shard has said of how far a partition is behind."""

_BEFORE_ALL: Final = -(2**63)


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

    position: Position | None = None
    """Where it begins; None: it has no positions, but an end."""


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
                    one, another = other.declared, partition.declared
                    raise key_in_two(one.origin, key, one.name, another.name)
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

    position: Position | None
    """Where it is, as the source tells it."""


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
        begin = _Bookmark(0, _BEFORE_ALL, declared.position)
        self._bookmarks: deque[_Bookmark] = deque([begin])
        self._before = begin  # before the last batch
        self._skip = 0  # how many rows of the next one an earlier run was given
        self._commit: Position | None = None  # what its shard is to be told
        self._asked_at = 0.0  # when its shard was asked last, by the monotonic clock
        self._lag: int | None = None
        self._shown_at = float("-inf")  # up to when that held, by the monotonic clock
        self._known: set[Any] = set()  # keys that it has had
        self._told_keys: Sequence[Any] = ()  # the same, as positions have them
        self._malformed = 0
        keys.begin(self)

    def setup(self) -> PartitionSetup:
        """What a shard is told of it."""
        declared, first = self.declared, self._bookmarks[0]
        return PartitionSetup(
            self.number,
            f"{declared.origin}: {declared.name}",
            declared.source,
            declared.on_bad_row,
            self.keys.pattern,
            first.row,
            first.position,
        )

    def next_rows(self, needed_from: int | None) -> ReadRows:
        """What its shard is asked for next.

        :param needed_from: rows of an earlier timestamp are named no more
        """
        self._asked_at = time.monotonic()
        commit, self._commit = self._commit, None
        keep_from, position = self._keep_from(needed_from), self._bookmarks[-1].position
        return ReadRows(self.number, self.start, keep_from, position, commit)

    def _keep_from(self, needed_from: int | None) -> int:
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

    # Of one without end, as of Positioned

    def position_before(self, left: int) -> Position:
        """Where to go on, and from where on rows may be named that were given before.

        :param left: how many rows of the last batch have not been given
        """
        first, following, given = self._bookmarks[0], self._bookmarks[-1], self._skip
        if left:
            following = self._before
            given = self.start - following.row - left
        if len(self._told_keys) != len(self._known):
            self._told_keys = [*self._known]
        return {
            "number": self.number,
            "from": [*first],
            "next": [*following],
            "given": given,
            "keys": self._told_keys,
        }

    def seek(self, position: Position) -> None:
        """Go on from there. Before it is read.

        :raises SourceError: if it had another number then, by which rows are named
        """
        if position["number"] != self.number:
            raise SourceError(
                *(self.declared.origin, None, None),
                f"there are other partitions before {self.declared.name!r} than when the "
                f"checkpoint was made: begin with another checkpoint=",
            )
        first, following = (_Bookmark(*position[name]) for name in ("from", "next"))
        self._bookmarks = deque([first] if first.row == following.row else [first, following])
        self._before, self.start, self._skip = following, following.row, position["given"]
        self._known = set(position["keys"])
        self.keys.add(position["keys"], self)

    def commit(self, position: Position) -> None:
        """All rows before that are kept. From any thread."""
        self._commit = position["next"][2]

    @property
    def lag(self) -> int | None:
        """How many rows are to come, or on their way, at least; None: it is not known. From any
        thread."""
        return self._lag if time.monotonic() - self._shown_at <= _FRESH else None

    def batches(self) -> Generator[Batch]:
        """Of all rows the time, the key and the place.

        :raises SourceError: if it cannot be read on, or has a key of another partition
        """
        try:
            yield from self._read_on()
        finally:
            self.keys.end(self)
            if self._commit is not None:
                self._asking.ask(self)  # by which its shard is told

    def _read_on(self) -> Generator[Batch]:
        asked = self._asking.ask(self)
        while (read := self._asking.answer(self, asked)) is not Missing.CLOSED:
            if read is Missing.AWAY:
                self._lag = None
                yield NOTHING_YET
                asked = self._asking.ask(self)
                continue
            shown_at = self._asked_at
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
            if not len(read.times):
                self._lag, self._shown_at = read.lag, shown_at
                if read.position is not None:
                    self._bookmarks[-1] = self._bookmarks[-1]._replace(position=read.position)
                asked = self._asking.ask(self)
                # Where it waited here for long, some may have come since.
                yield NOTHING_YET if self.lag == 0 else COMING
                continue
            if read.begun is not None:
                self._bookmarks[-1] = self._bookmarks[-1]._replace(position=read.begun)
            self._lag = len(read.times) + (read.lag or 0)  # until there are none
            batch = self._batch(read)
            self._before = self._bookmarks[-1]
            self.start += len(read.times)
            if self.start > MOST_ROWS:
                raise SourceError(
                    *(self.declared.origin, None, None),
                    f"{self.declared.name!r} has more than {MOST_ROWS:,} rows: divide it",
                )
            latest = max(self._bookmarks[-1].latest, int(read.times.max()))
            self._bookmarks.append(_Bookmark(self.start, latest, read.position))
            asked = self._asking.ask(self)  # before these are taken: it is read meanwhile
            skip, self._skip = self._skip, max(0, self._skip - len(batch))
            if skip < len(batch):
                yield batch[skip:] if skip else batch

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
