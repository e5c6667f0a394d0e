"""A recording, played at the pace at which it was made, or faster, or slower."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar, overload

import numpy as np

from run_task.columnar._any_frame import AnyFrame, is_frame
from run_task.errors import ConfigError, SourceError
from run_task.observe._format import brief
from run_task.sources._arrived import Stamped, arrival_ns, is_arrived
from run_task.sources._batch import Batch, Batched
from run_task.sources._behind import batches_behind, rows_behind
from run_task.sources._playback_clock import PlaybackClock
from run_task.sources._protocol import SourceInfo, about, warn_of_attributes
from run_task.sync._alarm import Alarm
from run_task.time._clock import Clock, SystemClock, check_clock
from run_task.time._interval import TimeUnit
from run_task.time._moment import InvalidTime, timestamp, timestamps

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class BatchedRows(Batched, Protocol[R_co]):
    """A source that gives its rows one by one, and in batches, too."""

    def __iter__(self) -> Iterator[tuple[int, R_co]]: ...


class Paced(Generic[R]):
    """What :func:`paced` gives."""

    def __init__(
        self,
        source: Iterable[Stamped[R]],
        speed: float,
        unit: TimeUnit | None,
        clock: Clock,
    ) -> None:
        given: object = speed  # a caller without a type checker may pass anything
        if type(given) not in (int, float) or not 0 < speed < math.inf:
            raise ConfigError(f"paced(speed={speed!r}): it is a positive number")
        if not hasattr(source, "__iter__"):
            raise ConfigError(
                f"paced({source!r}): what is played is an iterable of (timestamp, row)"
            )
        known = about(source).unit
        if unit is None:
            unit = known
        if not isinstance(unit, TimeUnit):
            raise ConfigError(
                f"paced({_brief(source)}): the unit of its timestamps is not known: "
                f"give unit=, such as unit=TimeUnit.SECONDS"
            )
        if known not in (None, unit):
            raise ConfigError(f"paced(unit={unit}): the timestamps of {source!r} are in {known}")
        self._source = source
        self._speed = float(speed)
        self._unit = unit
        self._base = clock
        self._alarm = Alarm()
        self._closed = False
        self._playback: Clock | None = None
        self._first_ns: int | None = None
        self._next_ns = self._next_row_ns = -math.inf
        self._tell: Callable[[float], object] | None = None
        self._behind = 0  # how many rows are left out
        self._begun_ns: float = -math.inf  # when the last of these came
        self._waits_ns: float = math.inf  # when the first of these enters that waits for its time
        self._opened: Iterator[Any] | None = None
        self._feed: Iterator[Any] | None = None  # what was opened, with what was read of it
        self._iterated = False

    def about(self) -> SourceInfo:
        """The recording, with what it says of itself, and how it is played."""
        known = about(self._source)
        return replace(known, unit=self._unit, recording=self._source, playback=self)

    @property
    def unit(self) -> TimeUnit:
        """The unit of the timestamps."""
        return self._unit

    @property
    def malformed(self) -> int:
        """How many malformed rows the source has counted so far; 0 if it does not count."""
        return about(self._source).malformed

    @property
    def speed(self) -> float:
        """How many seconds of the recording pass in a second."""
        return self._speed

    def begin_behind(self, rows: int, arrived_ns: float, waits_ns: float) -> None:
        """Play it from behind its first rows on, as one that was played up to there. Before
        anything is asked of it.

        :param rows: how many these are
        :param arrived_ns: when the last of them came, in nanoseconds since the Unix epoch
        :param waits_ns: the time of the first of them that waits for its time; infinity: none does
        """
        self._behind, self._begun_ns, self._waits_ns = rows, arrived_ns, waits_ns

    def playing(self, source: BatchedRows[Any]) -> PacedBatches[Any]:
        """Another source that is played as this one is. Before anything is asked of it.

        :param source: the other one, with timestamps in the same unit
        """
        return PacedBatches(source, self._speed, self._unit, self._base)

    @property
    def first_ns(self) -> int | None:
        """The time of the first row, in nanoseconds since the Unix epoch; None: there is no row."""
        if self._feed is None:
            self._opened = self._open()
            feed = self._filled(self._opened)
            heads: list[Any] = []
            for head in feed:
                heads.append(head)
                if (first_ns := self._first(head)) is not None:
                    self._first_ns = int(max(first_ns, self._begun_ns))
                    break
            if self._waits_ns < (math.inf if self._first_ns is None else self._first_ns):
                self._first_ns = int(self._waits_ns)
            if self._first_ns is not None:
                self._next_ns = float(self._first_ns)
            self._feed = itertools.chain(heads, feed)
        return self._first_ns

    @property
    def next_ns(self) -> float:
        """When the next row comes, in nanoseconds since the Unix epoch, by the clock of the
        recording: all rows before have been given, and the next was asked for. Infinity: there are
        no more."""
        return self._next_ns

    @property
    def next_row_ns(self) -> float:
        """The time of the row that comes at :attr:`next_ns`, in nanoseconds since the Unix epoch:
        an earlier one, if it is out of order or had been on its way, and a later one, if it comes
        before its time."""
        return self._next_row_ns

    def observe(self, next_row: Callable[[float], object], /) -> None:
        """Have a function called with the time of each next row, as :attr:`next_ns` has it.

        :param next_row: called by the thread that iterates, before it waits for a row, with the
            row's time in nanoseconds since the Unix epoch; infinity: there are no more
        """
        self._tell = next_row

    def start(self, clock: Clock | None = None) -> Clock | None:
        """Read the first row, and let the time of the recording begin with it, now.

        Iterating does this, too; do it before where something else, such as a runner, is to live
        in the time of the recording. Any number of times, the first counts.

        :param clock: that of another recording, which this one is played along with; None: one of
            its own
        :return: the clock of the recording; None if there is no row in it
        """
        if self._playback is None and (first_ns := self.first_ns) is not None:
            self._playback = clock or PlaybackClock(self._base, first_ns, self._speed)
        return self._playback

    def close(self) -> None:
        """Stop playing, and close the source. From any thread; a wait for a row ends at once."""
        self._closed = True
        self._alarm.ring()
        close: Any = getattr(self._source, "close", None)
        if close is not None and not (self._iterated and isinstance(self._source, Generator)):
            close()  # a generator can only be closed by the thread that iterates, which does so

    def __iter__(self) -> Iterator[tuple[int, R]]:
        """The rows, each when it is due: ``(timestamp, row)``, or :class:`Arrived`, where the
        recording has that. A recording is played once."""
        latest_ns = self._begun_ns
        with self._taken() as rows:
            for item in rows:
                if (timed := self._timed(item)) is None:
                    yield item  # it has no time to wait for, and whoever reads it says so
                    continue
                row, row_ns, came_ns = timed
                due_ns = max(latest_ns, came_ns)
                if not self._wait(due_ns, row_ns):
                    return
                latest_ns = due_ns
                yield row
        self._set_next(math.inf, math.inf)

    def __repr__(self) -> str:
        source = self._source
        bare = type(source).__repr__ is object.__repr__
        return f"paced({type(source).__name__ if bare else _brief(source)}, speed={self._speed:g})"

    def _open(self) -> Iterator[Any]:
        rows = iter(self._source)
        return rows_behind(rows, self._behind) if self._behind else rows

    def _filled(self, opened: Iterator[Any]) -> Iterator[Any]:
        """Those of what was opened that hold a row."""
        return opened

    def _first(self, head: Any) -> int | None:
        """When what is read first comes, in nanoseconds; None: it is no row."""
        timed = self._timed(head)
        return None if timed is None else timed[2]

    def _timed(self, item: Any) -> tuple[Any, int, int] | None:
        """A row as it is given, its time, and when it comes, in nanoseconds; None: it is no row."""
        arrived = is_arrived(item)
        stamp = self._stamp_of((item.timestamp, item.row) if arrived else item)
        if stamp is None:
            return None
        row_ns = stamp * self._unit.nanos
        if not arrived:
            return (stamp, item[1]), row_ns, row_ns
        try:
            return item._replace(timestamp=stamp), row_ns, arrival_ns(item, self._unit)
        except InvalidTime:
            return None

    def _stamp_of(self, item: Any) -> int | None:
        """The timestamp of what the source gave; None: it is no row.

        :raises SourceError: if it is in no time zone: then no other row can be waited for, either
        """
        if not isinstance(item, tuple) or len(item) != 2:  # pyright: ignore[reportUnknownArgumentType]
            return None
        time: Any = item[0]  # pyright: ignore[reportUnknownVariableType]
        if type(time) is int:  # pyright: ignore[reportUnknownArgumentType]
            return time
        try:
            return timestamp(time, self._unit)
        except InvalidTime as invalid:
            if isinstance(time, datetime):
                raise SourceError(repr(self), None, None, str(invalid)) from None
            return None

    @contextlib.contextmanager
    def _taken(self) -> Generator[Iterator[Any]]:
        """The rows to play. In the end what they came from is closed."""
        self.start()
        feed, self._feed = self._feed, iter(())
        self._iterated = True
        try:
            yield feed or iter(())
        finally:
            opened: Any = self._opened
            if isinstance(opened, Generator):
                opened.close()

    def _set_next(self, next_ns: float, row_ns: float) -> None:
        self._next_ns, self._next_row_ns = next_ns, row_ns
        if self._tell is not None:
            self._tell(next_ns)

    def _wait(self, due_ns: float, row_ns: float) -> bool:
        """Wait until a row is due; whether it still is wanted.

        :param due_ns: when it is, in nanoseconds since the Unix epoch
        :param row_ns: its own time
        """
        playback = self._playback
        assert playback is not None
        self._set_next(due_ns, row_ns)
        while not self._closed:
            # Read first: what passes before the next reading makes the wait too short, and is
            # waited for by the next one. The other way round, it would make it too long.
            now_ns = playback.monotonic_ns()
            remaining_ns = due_ns - playback.time_ns()
            if remaining_ns <= 0:
                return True
            playback.wait(self._alarm, now_ns + int(remaining_ns))
        return False

    def _now(self) -> int:
        """The last timestamp that is due by now."""
        assert self._playback is not None
        return self._playback.time_ns() // self._unit.nanos


class PacedBatches(Paced[R]):
    """What :func:`paced` gives for a source that is ``Batched``: it is, too."""

    def batches(self) -> Generator[Batch]:
        """The rows, all that are due at a time. A recording is played once."""
        latest: int | None = None
        if self._begun_ns != -math.inf:
            latest = int(self._begun_ns) // self._unit.nanos
        with self._taken() as batches:
            for batch in batches:
                if batch.timestamps.dtype != np.int64:
                    yield batch  # of rows that are none
                    continue
                # A row out of order is due when the row before it is, that is, at once.
                due = np.maximum.accumulate(batch.timestamps)
                if latest is not None:
                    due = np.maximum(due, latest)
                start = 0
                while start < len(batch):
                    due_ns = int(due[start]) * self._unit.nanos
                    if not self._wait(due_ns, due_ns):
                        return
                    end = int(np.searchsorted(due, self._now(), side="right"))
                    yield batch[start:end]
                    start = end
                latest = int(due[-1])
        self._set_next(math.inf, math.inf)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """The rows, each when it is due. A recording is played once."""
        with contextlib.closing(self.batches()) as batches:
            for batch in batches:
                yield from batch.rows()

    def _open(self) -> Iterator[Any]:
        source: Any = self._source
        batches: Iterator[Any] = source.batches()
        return batches_behind(batches, self._behind) if self._behind else batches

    def _filled(self, opened: Iterator[Any]) -> Iterator[Any]:
        return (part for batch in opened if len(batch) for part in self._stamped(batch))

    def _first(self, head: Any) -> int | None:
        if head.timestamps.dtype != np.int64:
            return None
        return int(head.timestamps[0]) * self._unit.nanos

    def _stamped(self, batch: Batch) -> Iterator[Batch]:
        """The rows of a batch, with timestamps that are ints, and those that are no rows, each as
        it is."""
        given: Any = batch.timestamps
        if given.dtype == np.int64:
            yield batch
            return
        try:
            yield Batch(timestamps(given, self._unit), batch.columns)
            return
        except InvalidTime:
            pass  # it is found below which
        for position, time in enumerate(given.tolist() if given.dtype == object else given):
            row = batch[position : position + 1]
            if (stamp := self._stamp_of((time, None))) is not None:
                row = Batch(np.array([stamp], np.int64), row.columns)
            yield row


@overload
def paced(
    source: BatchedRows[R],
    speed: float = ...,
    *,
    unit: TimeUnit | None = ...,
    clock: Clock | None = ...,
) -> PacedBatches[R]: ...
@overload
def paced(
    source: AnyFrame,
    speed: float = ...,
    *,
    unit: TimeUnit | None = ...,
    clock: Clock | None = ...,
) -> PacedBatches[dict[str, Any]]: ...
@overload
def paced(
    source: Iterable[Stamped[R]],
    speed: float = ...,
    *,
    unit: TimeUnit | None = ...,
    clock: Clock | None = ...,
) -> Paced[R]: ...
def paced(
    source: Iterable[Stamped[Any]] | AnyFrame,
    speed: float = 1.0,
    *,
    unit: TimeUnit | None = None,
    clock: Clock | None = None,
) -> Paced[Any]:
    """A source that plays a recorded one in real time, or so many times as fast.

    ::

        source = paced(CsvFile("prices.csv", unit=TimeUnit.SECONDS), speed=60)  # a minute a second

    The first row comes at once, and every other one when as much time has passed since as the
    recording says, divided by the speed. Rows that fall due while their reader is busy come one
    after the other without waiting. A row whose timestamp is before its predecessor's comes right
    after that one; one that says when it came, as :class:`Arrived`, then.

    Timestamps stay as they are: those of the recording. For runners whose windows are to line up
    with them, :meth:`Paced.start` gives a clock in the time of the recording::

        clock = source.start()
        runner = Runner(context, clock=clock)

    :param source: what to play: an iterable of ``(timestamp, row)``, or a frame
    :param speed: how many seconds of the recording pass in a second
    :param unit: the unit of its timestamps; None: what the source says its ``unit`` is
    :param clock: where to read the time, and wait for it; None: the machine's
    :raises ConfigError: if the speed is not positive, or the unit is not known
    """
    played: Any = source
    if is_frame(played):
        from run_task.sources._frame_source import FrameSource

        played = FrameSource(played, unit=unit)
    warn_of_attributes(played)
    batched = isinstance(played, Batched)
    made = PacedBatches[Any] if batched else Paced[Any]
    return made(played, speed, unit, SystemClock() if clock is None else check_clock(clock))


def _brief(source: object) -> str:
    return brief(source, items=1, width=80)  # one row of a list
