"""A source's rows on their way into shared data."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from run_task.data.series._ahead import AheadRows
from run_task.errors import ConfigError, SourceError, add_note
from run_task.observe._format import brief
from run_task.pipeline._entrance import Entrance
from run_task.pipeline._fates import Fate, Fates
from run_task.pipeline._order import NEVER
from run_task.sources._arrived import is_arrived
from run_task.sources._arrived_batch import ArrivedBatch
from run_task.sources._batch import Batch, Batched
from run_task.sources._positioned import Position
from run_task.sources._protocol import about
from run_task.time._interval import TimeUnit, unit_of_nanos
from run_task.time._unit_check import last_likely, likely_unit

_FEW: Final = 8
"""Up to how many rows of a batch are appended one by one: that is cheaper than all at once."""

_MOST_NANOS: Final = 2**63 - 1

_BEYOND: Final = 2**63
"""The first timestamp that takes more than 64 bits."""

_UNROLLED: Final = 256
"""How many rows of a batch are made into mappings at a time, of which few may be wanted."""


class Cursor(Protocol):
    """Some rows that were read and have yet to enter the data.

    A row arrives when it is read: at its own time, or, if it is out of order, at the time of the
    latest row before it; or when it says that it did.
    """

    @property
    def next_ns(self) -> float:
        """When the next row arrives, in nanoseconds since the Unix epoch; infinity: no row left."""
        ...

    @property
    def idle_until_ns(self) -> float:
        """Up to when nothing is to be done for rows to enter: before the next one, or, where all
        are in the data already, ahead of their time, before the last one."""
        ...

    @property
    def at_hand_until_ns(self) -> float:
        """Up to when all rows are in memory that enter: before the last one, or, where they are
        added only when they enter, the next one."""
        ...

    def ingest_before(self, limit_ns: float) -> int:
        """Let all rows enter that arrive before this time. Returns how many these are."""
        ...

    def uncounted_before(self, limit_ns: float) -> int:
        """How many rows arrive before this time that are in the data, and not counted yet."""
        ...


class RowCursor:
    """Rows, one by one.

    :param rows: the rows
    :param arrivals: when each arrives, in nanoseconds since the Unix epoch, in ascending order
    :param entrance: their way into the data
    """

    def __init__(
        self, rows: Sequence[tuple[int, Any]], arrivals: Sequence[int], entrance: Entrance
    ) -> None:
        self._rows = rows
        self._arrivals = arrivals
        self._unit_ns = entrance.unit_ns
        self._entrance = entrance
        self._at = 0

    @property
    def next_ns(self) -> float:
        at = self._at  # once, since others ask while rows enter
        return self._arrivals[at] if at < len(self._rows) else NEVER

    @property
    def idle_until_ns(self) -> float:
        return self.next_ns

    @property
    def at_hand_until_ns(self) -> float:
        return self.next_ns

    def uncounted_before(self, limit_ns: float) -> int:
        return 0

    def ingest_before(self, limit_ns: float) -> int:
        start = self._at
        cut = bisect_left(self._arrivals, limit_ns, start)
        self._entrance.enter_rows(self._until(cut))
        return cut - start

    def _until(self, cut: int) -> Iterator[tuple[int, Any]]:
        while self._at < cut:
            row = self._rows[self._at]
            self._at += 1
            yield row


class BatchCursor:
    """Rows by column, for a time series.

    :param batch: the rows
    :param latest: the timestamp of the latest row before them
    :param unit_ns: how many nanoseconds the unit of timestamps has
    :param entrance: their way into the data
    :param whole: as for :class:`SourceReader`
    :param came: when each came, in nanoseconds since the Unix epoch, in ascending order; None: they
        do not say that
    """

    def __init__(
        self,
        batch: Batch,
        latest: int,
        unit_ns: int,
        entrance: Entrance,
        *,
        whole: bool = False,
        came: NDArray[np.int64] | None = None,
    ) -> None:
        self._batch = batch
        times = batch.timestamps
        self._in_data = False
        self._ahead: AheadRows | None = None
        self._in_order = bool(times[0] >= latest and (times[1:] >= times[:-1]).all())
        self._whole = whole and self._in_order and entrance.seen is None
        if came is None:
            come = times if self._in_order else np.maximum(np.maximum.accumulate(times), latest)
            self._arrivals = _in_nanos(come, unit_ns)
        else:
            nanos: Any = came
            self._arrivals = memoryview(nanos)
        self._unit_ns = unit_ns
        self._entrance = entrance
        self._at = 0
        self._next_ns: float = self._arrivals[0]
        self._unrolled: Sequence[tuple[int, Any]] = ()  # some rows, for when few enter at a time
        self._unrolled_from = 0

    @property
    def next_ns(self) -> float:
        return self._next_ns

    @property
    def idle_until_ns(self) -> float:
        return self._arrivals[-1] if self._in_data and self._next_ns != NEVER else self._next_ns

    @property
    def at_hand_until_ns(self) -> float:
        at_hand = self._in_data or self._ahead is not None
        return self._arrivals[-1] if at_hand and self._next_ns != NEVER else self._next_ns

    def ingest_before(self, limit_ns: float) -> int:
        start = self._at
        cut = bisect_left(self._arrivals, limit_ns, start)
        if self._whole and start == 0:
            self._enter_whole()
        if self._in_data:
            self._entrance.tally.stored += cut - start
        elif self._ahead is not None:
            self._entrance.come(self._ahead, self._batch.timestamps[start:cut])
        elif cut - start <= _FEW:
            self._entrance.enter_rows(self._few(start, cut))
        else:
            self._entrance.enter_batch(self._batch[start:cut], in_order=self._in_order)
        self._at = cut
        self._next_ns = self._arrivals[cut] if cut < len(self._arrivals) else NEVER
        return cut - start

    def rest(self) -> Batch:
        """The rows that have not entered yet."""
        return self._batch[self._at :]

    def uncounted_before(self, limit_ns: float) -> int:
        at = self._at  # once, since others ask while rows enter
        return bisect_left(self._arrivals, limit_ns, at) - at if self._in_data else 0

    def _enter_whole(self) -> None:
        """Bring all rows into memory, ahead of their time: where all rows stay, into the data, and
        else beside it until they come. Not if one is bad, late, or may be of only None, since that
        is to be told when its time comes."""
        times, columns = self._batch.timestamps, self._batch.columns
        if all(column.dtype == object and None in column for column in columns.values()):
            return
        if self._entrance.given.late(times, self._unit_ns) is not None:
            return  # even of those in order one may come before the first window
        with contextlib.suppress(Exception), self._entrance.route.into.write() as series:
            if series.retention is None:
                series.extend(times, **columns)
                self._in_data = True
            else:
                self._ahead = series.extend_ahead(times, **columns)

    def _few(self, start: int, cut: int) -> Iterator[tuple[int, Any]]:
        for position in range(start, cut):
            offset = position - self._unrolled_from
            if not 0 <= offset < len(self._unrolled):
                self._unrolled = list(self._batch[position : position + _UNROLLED].rows())
                self._unrolled_from, offset = position, 0
            yield self._unrolled[offset]


def _in_nanos(times: NDArray[np.int64], unit_ns: int) -> Sequence[int]:
    """Times in ascending order, in nanoseconds: exact also where these take more than 64 bits, as
    those of timestamps do whose unit is not the one that was said."""
    if int(times[0]) * unit_ns >= -_MOST_NANOS and int(times[-1]) * unit_ns <= _MOST_NANOS:
        nanos: Any = times * unit_ns
        return memoryview(nanos)  # few of them are looked at, and an int each takes long to make
    return [time * unit_ns for time in times.tolist()]


class ArrivedCursor(BatchCursor):
    """Rows by column that say when they came, and where each stands.

    :param batch: the rows
    :param came: when each is taken to have come: not before the rows before them
    :param latest: as for :class:`BatchCursor`
    :param unit_ns: as there
    :param entrance: as there
    """

    def __init__(
        self,
        batch: ArrivedBatch,
        came: NDArray[np.int64],
        latest: int,
        unit_ns: int,
        entrance: Entrance,
    ) -> None:
        super().__init__(batch, latest, unit_ns, entrance, came=came)
        self._behind = batch.behind

    @property
    def position(self) -> Position:
        """The position of the source behind those that have entered."""
        return self._behind(self._at)

    @property
    def entered(self) -> int:
        """How many have entered."""
        return self._at

    @property
    def last_came_ns(self) -> int:
        """When the last of these came."""
        return self._arrivals[self._at - 1]


class SourceReader:
    """Reads a source, and lets its rows enter the data when they may.

    :param source: an iterable of ``(timestamp, row)``
    :param entrance: the way of its rows into the data
    :param at_once: how many rows to read before they enter; 1 for a source that is live
    :param before_write: called before rows enter the data
    :param whole: whether a batch whose rows are in order may enter as a whole, ahead of its time:
        if nobody sees what is to come, and nobody else writes to the data. What is said about
        arrivals stays the same
    """

    def __init__(
        self,
        source: Iterable[tuple[int, Any]],
        entrance: Entrance,
        at_once: int,
        *,
        before_write: Callable[[], object] | None = None,
        whole: bool = False,
    ) -> None:
        self._source = source
        self._unit_ns = entrance.unit_ns
        self._entrance = entrance
        self.fates: Fates = entrance.fates
        """What becomes of its rows."""
        self.holds_end: bool = entrance.route.holds_end
        """Whether the window that ends at a row's timestamp holds it."""
        self._whole = whole
        self._before_write = before_write
        self.first_ns: float = NEVER
        """When the first row arrived, in nanoseconds since the Unix epoch: a nanosecond before that
        where windows hold their end. Infinity: there is none."""
        self._now_ns: float = -NEVER  # when the last row that was read arrived
        self._last_ns: float = -NEVER  # the latest time of a row that was read
        self._held: list[tuple[int, int, Any]] = []  # rows that came before their time, by that
        self._numbers = itertools.count()
        self._begun = False  # a row has been read
        self._likely: TimeUnit | None = None  # what its first row is in, if not in what was said
        self._last: float = -_BEYOND  # the last timestamp that is not too long after the present
        self.entered: int = 0
        """How many rows have entered the data."""
        self.asked_s: float | None = None
        """Since when it has been waiting for rows of the source, in seconds of the monotonic clock;
        None: it is not."""
        self._coming: list[tuple[int, Any]] = []  # the rows that are read at once
        self._read: Iterator[Any] = iter(())  # what is read, once it is begun
        if isinstance(source, Batched):
            self._cursors = (
                self._columns(source) if entrance.route.ingest is None else self._unrolled(source)
            )
        else:
            self._cursors = self._rows(source, at_once)
        self._cursor: Cursor | None = None

    @property
    def name(self) -> str:
        """The source, for messages."""
        return f"source {self.fates.policy.name!r}, {brief(self._source)}"

    @property
    def given(self) -> int:
        """How many rows have come since it began to wait, where they come one by one. From any
        thread."""
        return len(self._coming)

    @property
    def is_at_hand(self) -> bool:
        """Whether the source has all its rows in memory, so that none is waited for."""
        return isinstance(self._source, (list, tuple))

    @property
    def last_ns(self) -> float:
        """The time of the last row that was read, as :attr:`first_ns` has it; infinitely long ago:
        there is none."""
        return self._last_ns - self.holds_end

    @property
    def arrived_ns(self) -> float:
        """The same of when the last row that was read arrived."""
        return self._now_ns - self.holds_end

    @property
    def end_ns(self) -> float:
        """About when the last row of all arrives, in nanoseconds since the Unix epoch, where that
        can be told without reading them; infinity: it cannot."""
        last = about(self._source).last
        return NEVER if last is None else last * self._unit_ns

    @property
    def next_ns(self) -> float:
        """When the next row arrives of those that were read, or infinity if all have entered."""
        cursor = self._cursor
        return NEVER if cursor is None else cursor.next_ns

    @property
    def idle_until_ns(self) -> float:
        """Up to when :meth:`ingest_before` has nothing to do but to count."""
        cursor = self._cursor
        return NEVER if cursor is None else cursor.idle_until_ns

    @property
    def at_hand_until_ns(self) -> float:
        """Up to when all rows are in memory that enter."""
        cursor = self._cursor
        return NEVER if cursor is None else cursor.at_hand_until_ns

    def fetch(self) -> float:
        """Read on if all that was read has entered. Returns when the next row arrives.

        :return: nanoseconds since the Unix epoch; infinity: there are no more rows
        :raises SourceError: if the source exits, by a SystemExit
        :raises Exception: whatever else the source raises
        """
        cursor = self._cursor
        if cursor is not None and (next_ns := cursor.next_ns) != NEVER:
            return next_ns
        while (next_ns := self.next_ns) == NEVER:
            self._coming = []
            self.asked_s = time.monotonic()
            try:
                with self.fates.reading():
                    self._cursor = next(self._cursors, None)
            except Exception as error:
                self._note(error)
                raise
            except (SystemExit, GeneratorExit) as error:  # which is not for it to say
                name = brief(self._source)
                raise SourceError(name, None, None, f"it raised {error!r}") from error
            finally:
                self.asked_s = None
            if self._cursor is None:
                self._cursors = iter(())
                break
        return next_ns

    def ingest_before(self, limit_ns: float) -> None:
        """Let the rows enter that were read and arrive before this time.

        :param limit_ns: nanoseconds since the Unix epoch
        :raises Exception: whatever ``ingest`` raises
        """
        cursor = self._cursor
        assert cursor is not None
        if self._before_write is not None and cursor.idle_until_ns < limit_ns:
            self._before_write()
        try:
            self.entered += cursor.ingest_before(limit_ns)
        except Exception as error:
            self._note(error)
            raise

    def uncounted_before(self, limit_ns: float) -> int:
        """How many rows arrive before this time that are in the data, and not counted yet: since
        there was nothing else to do for them."""
        cursor = self._cursor
        return 0 if cursor is None else cursor.uncounted_before(limit_ns)

    def close(self) -> None:
        """Stop reading, and let an iterator that can be closed clean up, as a generator does.

        :raises Exception: whatever that raises
        """
        self._cursors = iter(())
        self._entrance.settle()
        close: object = getattr(self._read, "close", None)
        if not callable(close):
            return
        try:
            close()
        except Exception as error:
            self._note(error)
            raise

    def _note(self, error: Exception) -> None:
        add_note(error, f"in the source {brief(self._source)}")

    def _rows(self, source: Iterable[tuple[int, Any]], at_once: int) -> Iterator[Cursor]:
        rows = self._read = iter(source)
        while True:
            some = self._coming = []
            some.extend(itertools.islice(rows, at_once))  # which others see grow
            if not some:
                break
            yield from self._cursors_of(some)
        if self._held:
            entering: list[tuple[int, Any]] = []
            arrivals: list[int] = []
            self._now_ns = max(self._now_ns, self._release(NEVER, entering, arrivals))
            yield RowCursor(entering, arrivals, self._entrance)

    def _unrolled(self, source: Batched) -> Iterator[Cursor]:
        batches = self._read = source.batches()
        for batch in batches:
            yield from self._cursors_of(list(self._entrance.stamps.batch(batch).rows()))

    def _cursors_of(self, rows: Sequence[Any]) -> Iterator[Cursor]:
        entrance, unit_ns, held = self._entrance, self._unit_ns, self._held
        entrance.tally.received += len(rows)
        good: list[tuple[int, Any]] = []
        arrivals: list[Any] = []
        arrived_ns: int | None
        for row in rows:
            try:
                stamped = entrance.stamps.row(row)
                arrived_ns = None
                if row.__class__ is not tuple and is_arrived(row):
                    arrived_ns = entrance.stamps.arrival_ns(row)
            except ConfigError as error:
                if good:  # these come before what may be fatal
                    yield RowCursor(good, arrivals, entrance)
                    good, arrivals = [], []
                entrance.fates.refuse(Fate.MALFORMED, row, error)
                continue
            time_ns = stamped[0] * unit_ns
            if arrived_ns is not None:
                arrived_ns = int(max(self._now_ns, arrived_ns))
                ahead = self._came_ahead(stamped, time_ns, arrived_ns)
            else:
                ahead = stamped[0] > self._last and self._is_ahead(stamped)
            self._begun = True
            if ahead:
                continue
            if arrived_ns is None:
                arrived_ns = time_ns
            if arrived_ns > self._now_ns:
                self._now_ns = arrived_ns
                if self.first_ns == NEVER:
                    self.first_ns = arrived_ns - self.holds_end
            if time_ns > self._last_ns:
                self._last_ns = time_ns
            if held:
                self._release(self._now_ns, good, arrivals)
            if time_ns > self._now_ns:
                heapq.heappush(held, (time_ns, next(self._numbers), stamped))
            else:
                good.append(stamped)
                arrivals.append(self._now_ns)
        if good:
            yield RowCursor(good, arrivals, entrance)

    def _release(self, until_ns: float, rows: list[tuple[int, Any]], arrivals: list[int]) -> float:
        """Let rows that came before their time be among others, if it has come by now. Returns the
        time of the last of them; infinitely long ago: there is none."""
        held, time_ns = self._held, -NEVER
        while held and held[0][0] <= until_ns:
            time_ns, _, row = heapq.heappop(held)
            rows.append(row)
            arrivals.append(time_ns)
        return time_ns

    def _came_ahead(self, row: tuple[int, Any], time_ns: int, arrived_ns: int) -> bool:
        """Whether a row was stamped too long after it came, or came too long after the present; if
        so, it is refused."""
        if time_ns - arrived_ns > self.fates.policy.max_ahead_ns:
            self.fates.refuse_ahead(row, time_ns - arrived_ns)
            return True
        came = arrived_ns // self._unit_ns
        return came > self._last and self._is_ahead((came, row[1]))

    def _columns(self, source: Batched) -> Iterator[Cursor]:
        batches = self._read = source.batches()
        for given in batches:
            batch = self._entrance.stamps.batch(given)
            self._entrance.tally.received += len(batch)
            if len(batch) and len(batch := self._without_ahead(batch)):
                unit_ns, first = self._unit_ns, int(batch.timestamps[0])
                if self.first_ns == NEVER:
                    self.first_ns = first * unit_ns - self.holds_end
                before = first if self._now_ns == -NEVER else int(self._now_ns) // unit_ns
                self._now_ns = self._last_ns = max(before, int(batch.timestamps.max())) * unit_ns
                yield BatchCursor(batch, before, unit_ns, self._entrance, whole=self._whole)

    def _is_ahead(self, row: tuple[int, Any]) -> bool:
        """Whether a row is stamped too long after the present; if so, it is refused."""
        ahead_ns = row[0] * self._unit_ns - self._look_at_clock(row[0])
        if row[0] <= self._last:
            return False
        self.fates.refuse_ahead(row, ahead_ns)
        return True

    def _without_ahead(self, batch: Batch) -> Batch:
        """The rows of a batch that are not stamped too long after the present."""
        times = batch.timestamps
        latest = int(times.max())
        if latest <= self._last:
            self._begun = True
            return batch
        now_ns = self._look_at_clock(int(times[0]))
        self._begun = True
        if latest <= self._last:
            return batch
        ahead = times > self._last
        last = int(times[ahead][-1])
        if self.fates.wants_rows:
            for timestamp, row in batch.where(ahead).rows():
                self.fates.refuse_ahead((timestamp, row), timestamp * self._unit_ns - now_ns)
        else:
            count = int(np.count_nonzero(ahead))
            self.fates.refuse_ahead((last, {}), last * self._unit_ns - now_ns, count)
        return batch.where(~ahead)

    def _look_at_clock(self, first: int) -> int:
        """See anew which timestamp is the last that is not too long after the present. Returns the
        present, in nanoseconds since the Unix epoch.

        :param first: the timestamp of the row at hand
        """
        now_ns, max_ahead_ns = time.time_ns(), self.fates.policy.max_ahead_ns
        if not self._begun and first * self._unit_ns > now_ns:
            self._likely = likely_unit(first, unit_of_nanos(self._unit_ns))
        if max_ahead_ns == NEVER:
            self._last = _BEYOND
        elif self._likely is not None:
            self._last = last_likely(self._likely)  # all are, and it is for the user to see why
        else:
            self._last = int(now_ns + max_ahead_ns) // self._unit_ns
        return now_ns
