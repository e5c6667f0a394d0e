"""A source of a live pipeline: a thread that reads it, and lets its rows enter when they may."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task.errors import ConfigError, SourceError, add_note, described
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.pipeline._dedupe import RememberedRows
from run_task.pipeline._entrance import Entrance
from run_task.pipeline._fates import Fate
from run_task.pipeline._ingest import ArrivedCursor, BatchCursor
from run_task.pipeline._order import NEVER, SourceMark
from run_task.pipeline._route import Route
from run_task.pipeline.checkpoint._cut import WayCut
from run_task.pipeline.live._coordinator import Coordinator
from run_task.pipeline.live._early_rows import EarlyRows
from run_task.pipeline.live._progress import ReadProgress, RowInHand
from run_task.pipeline.live._row_gate import RowGate
from run_task.sources._arrived import is_arrived
from run_task.sources._arrived_batch import ArrivedBatch
from run_task.sources._batch import Batch, Batched
from run_task.sources._positioned import Position, positioned
from run_task.sources._protocol import Playback, TellsRowTimes
from run_task.sources.journal._journaled import JournaledSource
from run_task.sync._lifecycle import Lifecycle, Phase

_log = Log(__name__)

_BEFORE_ALL: Final = -(2**63)
_LAST: Final = 2**63 - 1


class SourceThread:
    """Reads a source.

    A row that comes when a window falls due, or later, enters so that the window does not see it,
    however late the window is.

    :param source: the source
    :param playback: how it is played, if it is a recording
    :param entrance: the way of its rows into the data
    :param mark: how far it is
    :param gate: what its rows wait for
    :param early: its rows that are stamped after the present
    :param coordinator: keeps the marks
    :param name: what the thread is called
    :param failed: called with what went wrong
    :param on_end: called once there are no more rows, and before any window begins that comes
        after the last one
    """

    def __init__(
        self,
        source: Any,
        playback: Playback | None,
        entrance: Entrance,
        mark: SourceMark,
        gate: RowGate,
        early: EarlyRows,
        coordinator: Coordinator,
        name: str,
        failed: Callable[[BaseException], None],
        on_end: Callable[[], None],
    ) -> None:
        self.route: Route = entrance.route
        self.mark = mark
        self.source: Final = source
        """What is read."""
        self._entrance = entrance
        self._unit_ns = entrance.unit_ns
        self._gate = gate
        self._early = early
        early.on_failure(self._early_failed)
        self.progress: Final = ReadProgress(source, entrance.tally)
        """How far it has been read, and what it has given has entered."""
        self._coordinator = coordinator
        self._failed = failed
        self._on_end = on_end
        self._life = Lifecycle()
        self._left = threading.Event()  # it asks for no more rows
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._closer: threading.Thread | None = None
        self._last_ns: float = -NEVER  # the latest time of a row that was read
        self.early_before: Sequence[tuple[int, Any]] = ()
        """Rows that an earlier run let wait for their time, and that do not yet."""
        self._row_times = playback if isinstance(playback, TellsRowTimes) else None
        if playback is not None:
            playback.observe(self._note_next)

    @property
    def early(self) -> EarlyRows:
        """Its rows that wait for their time."""
        return self._early

    @property
    def row_times(self) -> tuple[float, float]:
        """The latest time of a row that was read, and when the last one arrived, as they are."""
        return max(self._last_ns, self._early.last_ns), self.mark.given_ns

    @property
    def remembered(self) -> RememberedRows | None:
        """The rows that have entered, where such as come again are left out. While both hands are
        held."""
        seen = self._entrance.seen
        return None if seen is None else seen.remembered()

    def go_on(self, position: Position, way: WayCut) -> None:
        """Go on from where an earlier run was. Before it begins to read.

        :param position: where the source itself goes on
        :param way: what is known of this way of it
        """
        self.progress.begin_at(position, way.pending)
        self.early_before = way.early
        if self._entrance.seen is not None and way.seen is not None:
            self._entrance.seen.restore(way.seen)
        self._last_ns, self.mark.given_ns = way.last_ns, way.arrived_ns
        if self.mark.recording:
            self._coordinator.advance_source(
                self.mark, known_ns=way.last_ns, comes_ns=way.arrived_ns
            )

    @property
    def last_ns(self) -> float:
        """The latest time of a row that it has given, in nanoseconds since the Unix epoch;
        infinitely long ago: there is none. One that a window holds which ends at its timestamp lies
        a nanosecond before that."""
        return max(self._last_ns, self._early.last_ns) - self.route.holds_end

    @property
    def arrived_ns(self) -> float:
        """The same of when the last row arrived that it has given."""
        return max(self.mark.given_ns, self._early.last_ns) - self.route.holds_end

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to give no more rows."""
        return self._life.phase >= Phase.STOPPING

    @property
    def begun(self) -> bool:
        """Whether it has begun to read."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to give no more rows. From any thread, any number of times.

        It is closed in a thread of its own, since it may hang there.
        """
        if not self._life.advance(Phase.STOPPING):
            return
        self._early.stop()
        if isinstance(self.source, Generator):
            return  # a generator is closed by the thread that reads it: nobody else can
        if not callable(getattr(self.source, "close", None)):
            return
        name = f"{self._thread.name}, close"
        closer = threading.Thread(target=self._close, name=name, daemon=True)
        try:
            closer.start()
        except RuntimeError:  # the system has no thread to give
            self._close()
        else:
            self._closer = closer

    def _close(self) -> None:
        try:
            self.source.close()
        except BaseException:  # also SystemExit, which is not for it to say
            _log.exception("%r cannot be closed", self)

    def closed(self, timeout: float | None) -> bool:
        """Wait until it has been closed, if :meth:`stop` has begun that.

        :param timeout: how many seconds to wait at most
        :return: whether it is
        """
        closer = self._closer
        if closer is None:
            return True
        closer.join(timeout)
        return not closer.is_alive()

    @property
    def is_entering(self) -> bool:
        """Whether rows of it are entering at this moment."""
        return self.progress.hand.locked()

    def left(self, timeout: float) -> bool:
        """Wait until it asks for no more rows.

        :param timeout: how many seconds to wait at most
        :return: whether it does
        """
        return self._thread.ident is None or self._left.wait(timeout)

    def join(self, timeout: float) -> bool:
        """Wait until it has ended, and what it read is closed.

        :param timeout: how many seconds to wait at most
        :return: whether it has
        """
        if self._thread.ident is not None:  # it has been started
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        with self._entrance.fates.reading():
            self._read()

    def _read(self) -> None:
        rows: Iterator[Any] | None = None
        try:
            source = self.source
            if not self._read_what_waited():
                pass
            elif isinstance(source, Batched) and self.route.ingest is None:
                rows = source.batches()
                self._read_batches(rows)
            elif isinstance(source, JournaledSource) and self._takes_groups:
                rows = source.groups()
                self._read_groups(source, rows)
            elif isinstance(source, Batched) and positioned(source) is None:
                rows = source.batches()
                stamped = self._entrance.stamps.batch
                self._read_rows(row for batch in rows for row in stamped(batch).rows())
            else:
                rows = iter(self.source)  # one by one, so that its position is behind each of them
                self._read_rows(rows)
        except BaseException as error:
            self._fail(error)
        if self.mark.recording:  # also of rows that wait for their time, none comes later
            self._coordinator.advance_source(
                self.mark, next_ns=max(self.mark.given_ns, self.mark.comes_ns) + 1
            )
        self._left.set()
        self._early.complete()
        self._on_end()
        self._entrance.settle()
        self._coordinator.advance_source(self.mark, ended=True)
        if isinstance(rows, Generator):
            try:
                rows.close()
            except BaseException as error:
                self._fail(error)

    @property
    def _takes_groups(self) -> bool:
        """Whether rows that a journal has kept may enter many at a time."""
        return self.route.ingest is None and self._entrance.stamps.takes_any_int

    def _read_what_waited(self) -> bool:
        """Let rows enter that were given to an earlier run. Returns whether to read on."""
        progress, unit_ns = self.progress, self._unit_ns
        with progress.hand:
            for timestamp, row in self.early_before:
                self._entrance.tally.received += 1
                progress.note_again(1)
                self._put_early(timestamp * unit_ns, (timestamp, row))
            self.early_before = ()
        for item in progress.waiting:
            if isinstance(item, Batch):
                self._read_batches(iter([item]), progress.note_fed)
            else:
                self._read_rows(iter([item]), progress.note_fed)
            if self.is_stopping or self._coordinator.released:
                return False
        with progress.hand:
            progress.feeds = False
        return True

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            # It would silently end this thread: it must not end the program.
            failure = SourceError(brief(self.source), None, None, f"it raised {described(error)}")
            failure.__cause__ = error
            error = failure
        add_note(error, f"in the source {brief(self.source)}")
        self._failed(error)

    def _early_failed(self, error: BaseException) -> None:
        self._fail(error)
        self.stop()

    def _note_next(self, next_ns: float) -> None:
        if next_ns != NEVER:  # else it is for on_end to say what comes after the last row
            row_ns = next_ns if self._row_times is None else self._row_times.next_row_ns
            known_ns = min(next_ns, row_ns)
            self._coordinator.advance_source(
                self.mark, next_ns=next_ns, known_ns=known_ns, comes_ns=next_ns
            )

    def _read_rows(self, rows: Iterator[Any], note: Callable[[], object] | None = None) -> None:
        """Let rows enter one by one. This is done for each: it has to be cheap."""
        life, gate, mark, unit_ns = self._life, self._gate, self.mark, self._unit_ns
        recording, timed = mark.recording, mark.timed
        kept = timed and not recording  # it ends by itself, when it has given what is in a journal
        enter, tally = self._entrance.enter_row, self._entrance.tally
        now_ns = _BEFORE_ALL  # or a moment ago
        stamped, takes_any_int = self._entrance.stamps.row, self._entrance.stamps.takes_any_int
        latest_ns = self.mark.given_ns
        arrival_ns = 0
        came_ns: int | None
        timestamp: int
        row: Any = None
        progress = self.progress
        hand = progress.hand
        if note is None and progress.tracks:
            note = progress.note
        for item in rows:
            with hand:
                if note is not None:
                    note()
                tally.received += 1
                # Of most rows nothing more is asked than this.
                if (
                    item.__class__ is tuple
                    and len(item) == 2
                    and type(item[0]) is int
                    and takes_any_int
                ):
                    timestamp, row = item
                else:
                    try:
                        timestamp, row = stamped(item)
                        came_ns = (
                            self._entrance.stamps.arrival_ns(item) if is_arrived(item) else None
                        )
                    except ConfigError as error:
                        self._entrance.fates.refuse(Fate.MALFORMED, item, error)
                        continue
                    if timed and came_ns is not None:
                        came_ns = int(max(came_ns, latest_ns))
                        time_ns = timestamp * unit_ns
                        mark.given_ns = latest_ns = came_ns
                        if time_ns > came_ns:
                            self._take_early(time_ns, came_ns, (timestamp, row))
                            self._note_next(came_ns)
                            continue
                time_ns = timestamp * unit_ns
                if time_ns > now_ns and not timed:
                    now_ns = self._early.now_ns
                    if time_ns > now_ns:
                        self._take_early(time_ns, now_ns, (timestamp, row))
                        if life.phase >= Phase.STOPPING:
                            return
                        continue
                if time_ns >= latest_ns:
                    self._last_ns = mark.given_ns = latest_ns = arrival_ns = time_ns
                    late = False
                    waits = arrival_ns >= gate.in_order_ns
                else:
                    arrival_ns = int(latest_ns)
                    if time_ns > self._last_ns:
                        self._last_ns = time_ns
                    late = True
                    waits = arrival_ns >= gate.late_ns
                if timed and mark.next_ns < arrival_ns:  # it gives several at a time
                    self._note_next(arrival_ns)
                if waits or mark.early_ns <= arrival_ns:
                    progress.rest = RowInHand(timestamp, row)
                    if self._wait(arrival_ns, late=late) == -NEVER:
                        return
                    progress.rest = None
                enter(timestamp, row)
                if life.phase >= Phase.STOPPING and not kept:
                    return

    def _wait(self, arrival_ns: int, *, late: bool) -> float:
        """Wait until what is in hand may enter; others may take the hand for that long."""
        hand = self.progress.hand
        hand.release()
        try:
            if self.mark.timed and self.mark.early_ns <= arrival_ns:
                self._early.enter_before(arrival_ns)
            return self._gate.wait(arrival_ns, late=late)
        finally:
            hand.acquire()

    def _take_early(self, time_ns: int, now_ns: int, row: tuple[int, Any]) -> None:
        """Let a row that is stamped after it came wait beside the others, or refuse it.

        :param now_ns: when it came
        """
        fates = self._entrance.fates
        try:
            self._entrance.stamps.row(row)
        except ConfigError as error:  # 64 bits do not hold it
            fates.refuse(Fate.MALFORMED, row, error)
            return
        if (ahead_ns := time_ns - now_ns) > fates.policy.max_ahead_ns:
            fates.refuse_ahead(row, ahead_ns)
        else:
            self._put_early(time_ns, row)
            if not self.mark.recording:  # of which it is to be known what comes next
                self._wait_for_room()

    def _put_early(self, time_ns: int, row: tuple[int, Any]) -> None:
        self._early.put(time_ns, row)
        if self.mark.recording:
            self._coordinator.advance_source(self.mark, known_ns=time_ns, comes_ns=time_ns)

    def _wait_for_room(self) -> None:
        """Read on once there is room for rows that wait for their time."""
        if self._early.is_full:
            hand = self.progress.hand
            hand.release()
            try:
                self._early.wait_for_room()
            finally:
                hand.acquire()

    def _without_early(self, batch: Batch) -> Batch:
        """The rows of a batch that are not stamped after the present."""
        unit_ns, now_ns, times = self._unit_ns, self._early.now_ns, batch.timestamps
        early = times > now_ns // unit_ns
        if not early.any():
            return batch
        fates, max_ahead_ns = self._entrance.fates, self._entrance.fates.policy.max_ahead_ns
        until_ns = now_ns + max_ahead_ns
        last = _LAST if until_ns == NEVER else min(int(until_ns) // unit_ns, _LAST)
        refused = early & (times > last)
        if fates.wants_rows:
            for timestamp, row in batch.where(refused).rows():
                fates.refuse_ahead((timestamp, row), timestamp * unit_ns - now_ns)
        elif count := int(np.count_nonzero(refused)):
            last = int(times[refused][-1])
            fates.refuse_ahead((last, {}), last * unit_ns - now_ns, count)
        for timestamp, row in batch.where(early & ~refused).rows():
            self._early.put(timestamp * unit_ns, (timestamp, row))
        return batch.where(~early)

    def _read_batches(
        self, batches: Iterator[Batch], note: Callable[[], object] | None = None
    ) -> None:
        """Let rows enter many at a time."""
        progress = self.progress
        if note is None and progress.tracks:
            note = progress.note
        for given in batches:
            with progress.hand:
                if note is not None:
                    note()
                if not self._take_batch(given):
                    return

    def _read_groups(
        self, source: JournaledSource, groups: Iterator[ArrivedBatch | Iterator[Any]]
    ) -> None:
        """Let rows enter that a journal has kept together."""
        for group in groups:
            if not isinstance(group, ArrivedBatch):
                self._read_rows(group)
            elif self._is_early(group):
                self._read_rows(source.one_by_one(group))
            else:
                with self.progress.hand:
                    self.progress.note()
                    self._take_arrived(group)
            if self._coordinator.released:
                return

    def _is_early(self, batch: ArrivedBatch) -> bool:
        """Whether some of its rows came before their time."""
        return bool((batch.timestamps > self._came(batch) // self._unit_ns).any())

    def _came(self, batch: ArrivedBatch) -> NDArray[np.int64]:
        """When rows are taken to have come: not before those that came before them."""
        latest_ns = self.mark.given_ns
        return batch.arrivals if latest_ns == -NEVER else np.maximum(batch.arrivals, int(latest_ns))

    def _take_arrived(self, batch: ArrivedBatch) -> None:
        """Let rows enter that are in hand, each as late as it came."""
        unit_ns, progress, mark, gate = self._unit_ns, self.progress, self.mark, self._gate
        self._entrance.tally.received += len(batch)
        latest_ns = max(self._last_ns, self._early.last_ns)
        latest = int(batch.timestamps[0]) if latest_ns == -NEVER else int(latest_ns) // unit_ns
        rows = ArrivedCursor(batch, self._came(batch), latest, unit_ns, self._entrance)
        while (next_ns := rows.next_ns) != NEVER:
            begun = rows.entered
            mark.given_ns = next_ns
            self._last_ns = max(self._last_ns, int(batch.timestamps[begun]) * unit_ns)
            if mark.next_ns < next_ns:
                self._note_next(next_ns)
            limit_ns = min(gate.late_ns, mark.early_ns)
            if next_ns >= limit_ns:
                progress.rest = rows
                found_ns = self._wait(int(next_ns), late=True)
                if found_ns == -NEVER:
                    return
                progress.rest = None
                limit_ns = max(min(found_ns, mark.early_ns), next_ns + 1)
            rows.ingest_before(limit_ns)
            entered = batch.timestamps[begun : rows.entered]
            self._last_ns = max(self._last_ns, int(entered.max()) * unit_ns)
            mark.given_ns = rows.last_came_ns

    def _take_batch(self, given: Batch) -> bool:
        """Let rows enter that are in hand. Returns whether to read on."""
        unit_ns, progress = self._unit_ns, self.progress
        batch = self._entrance.stamps.batch(given)
        self._entrance.tally.received += len(batch)
        if self._life.phase >= Phase.STOPPING:
            progress.rest = batch
            return False
        if not self.mark.recording:
            batch = self._without_early(batch)
        times = batch.timestamps
        if not len(times):
            self._wait_for_room()
            return True
        first = int(times[0])
        before = first if self.mark.given_ns == -NEVER else int(self.mark.given_ns) // unit_ns
        rows = BatchCursor(batch, before, unit_ns, self._entrance)
        late = bool(first < before or np.any(times[1:] < times[:-1]))
        known_ns = max(before, int(times.max())) * unit_ns
        self._last_ns = known_ns
        while (next_ns := rows.next_ns) != NEVER:
            # All rows that arrive before have entered: windows that wait for these may go on.
            self.mark.given_ns = max(self.mark.given_ns, next_ns)
            if self.mark.recording:
                self._coordinator.advance_source(
                    self.mark, next_ns=next_ns, known_ns=known_ns, comes_ns=known_ns
                )
            limit_ns = self._gate.late_ns if late else self._gate.in_order_ns
            if next_ns >= limit_ns:
                progress.rest = rows
                limit_ns = self._wait(int(next_ns), late=late)
                if limit_ns == -NEVER:
                    return False
                progress.rest = None
            rows.ingest_before(limit_ns)
        self.mark.given_ns = known_ns
        if self.mark.recording:
            self._coordinator.advance_source(self.mark, next_ns=known_ns)
        self._wait_for_room()
        return self._life.phase < Phase.STOPPING

    def __repr__(self) -> str:
        return f"source {brief(self.source)}"
