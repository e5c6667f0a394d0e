"""A source of a live pipeline: a thread that reads it, and lets its rows enter when they may."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

import numpy as np

from run_task.errors import ConfigError, SourceError, add_note, described
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.pipeline._entrance import Entrance
from run_task.pipeline._fates import Fate
from run_task.pipeline._ingest import BatchCursor
from run_task.pipeline._order import NEVER, SourceMark
from run_task.pipeline._route import Route
from run_task.pipeline.live._coordinator import Coordinator
from run_task.pipeline.live._early_rows import EarlyRows
from run_task.pipeline.live._row_gate import RowGate
from run_task.sources._arrived import Held, is_arrived
from run_task.sources._batch import Batch, Batched
from run_task.sources._protocol import Holding, Playback
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
        self._source = source
        self._entrance = entrance
        self._unit_ns = entrance.unit_ns
        self._gate = gate
        self._early = early
        early.on_failure(self._early_failed)
        self._coordinator = coordinator
        self._failed = failed
        self._on_end = on_end
        self._life = Lifecycle()
        self._left = threading.Event()  # it asks for no more rows
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._closer: threading.Thread | None = None
        self._last_ns: float = -NEVER  # the latest time of a row that was read
        self._arrived_ns: float = -NEVER  # when the last one arrived
        self._holding = playback if isinstance(playback, Holding) else None
        if playback is not None:
            playback.observe(self._note_next)

    @property
    def last_ns(self) -> float:
        """The latest time of a row that it has given, in nanoseconds since the Unix epoch;
        infinitely long ago: there is none. One that a window holds which ends at its timestamp lies
        a nanosecond before that."""
        return max(self._last_ns, self._early.last_ns) - self.route.holds_end

    @property
    def arrived_ns(self) -> float:
        """The same of when the last row arrived that it has given."""
        return max(self._arrived_ns, self._early.last_ns) - self.route.holds_end

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
        if isinstance(self._source, Generator):
            return  # a generator is closed by the thread that reads it: nobody else can
        if not callable(getattr(self._source, "close", None)):
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
            self._source.close()
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
            source = self._source
            if isinstance(source, Batched) and self.route.ingest is None:
                rows = source.batches()
                self._read_batches(rows)
            elif isinstance(source, Batched):
                rows = source.batches()
                stamped = self._entrance.stamps.batch
                self._read_rows(row for batch in rows for row in stamped(batch).rows())
            else:
                rows = iter(source)
                self._read_rows(rows)
        except BaseException as error:
            self._fail(error)
        if self.mark.recording and self._arrived_ns != -NEVER:
            self._coordinator.advance_source(self.mark, next_ns=self._arrived_ns + 1)
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

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            # It would silently end this thread: it must not end the program.
            failure = SourceError(brief(self._source), None, None, f"it raised {described(error)}")
            failure.__cause__ = error
            error = failure
        add_note(error, f"in the source {brief(self._source)}")
        self._failed(error)

    def _early_failed(self, error: BaseException) -> None:
        self._fail(error)
        self.stop()

    def _note_next(self, next_ns: float) -> None:
        if next_ns != NEVER:  # else it is for on_end to say what comes after the last row
            row_ns = next_ns if self._holding is None else self._holding.next_row_ns
            known_ns = min(next_ns, row_ns)
            self._coordinator.advance_source(
                self.mark, next_ns=next_ns, known_ns=known_ns, comes_ns=next_ns
            )

    def _read_rows(self, rows: Iterator[Any]) -> None:
        """Let rows enter one by one. This is done for each: it has to be cheap."""
        life, gate, mark, unit_ns = self._life, self._gate, self.mark, self._unit_ns
        recording = mark.recording
        enter, tally = self._entrance.enter_row, self._entrance.tally
        now_ns = _BEFORE_ALL  # or a moment ago
        stamped, takes_any_int = self._entrance.stamps.row, self._entrance.stamps.takes_any_int
        latest_ns: float = -NEVER
        arrival_ns = 0
        came_ns: int | None
        timestamp: int
        row: Any = None
        for item in rows:
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
                    came_ns = self._entrance.stamps.arrival_ns(item) if is_arrived(item) else None
                except ConfigError as error:
                    self._entrance.fates.refuse(Fate.MALFORMED, item, error)
                    continue
                if isinstance(item, Held):
                    tally.received -= 1  # it was counted when it came
                if recording and came_ns is not None:
                    came_ns = int(max(came_ns, latest_ns))
                    time_ns = timestamp * unit_ns
                    if time_ns > came_ns and self._hold(time_ns, came_ns, (timestamp, row)):
                        continue
                    self._arrived_ns = latest_ns = max(came_ns, time_ns)
            time_ns = timestamp * unit_ns
            if time_ns > now_ns and not recording:
                now_ns = self._early.now_ns
                if time_ns > now_ns:
                    self._take_early(time_ns, now_ns, (timestamp, row))
                    if life.phase >= Phase.STOPPING:
                        return
                    continue
            if time_ns >= latest_ns:
                self._last_ns = self._arrived_ns = latest_ns = arrival_ns = time_ns
                late = False
                waits = arrival_ns >= gate.in_order_ns
            else:
                arrival_ns = int(latest_ns)
                if time_ns > self._last_ns:
                    self._last_ns = time_ns
                late = True
                waits = arrival_ns >= gate.late_ns
            if recording and mark.next_ns < arrival_ns:  # it gives several at a time
                self._note_next(arrival_ns)
            if waits and gate.wait(arrival_ns, late=late) == -NEVER:
                return
            enter(timestamp, row)
            if life.phase >= Phase.STOPPING:
                return

    def _hold(self, time_ns: int, came_ns: int, row: tuple[int, Any]) -> bool:
        """A row of a recording came before its time. Returns whether it does not enter now."""
        fates = self._entrance.fates
        if (ahead_ns := time_ns - came_ns) > fates.policy.max_ahead_ns:
            fates.refuse_ahead(row, ahead_ns)
            return True
        if self._holding is None:
            return False
        self._holding.hold(time_ns, Held(*row))
        self._coordinator.advance_source(self.mark, known_ns=time_ns, comes_ns=time_ns)
        return True

    def _take_early(self, time_ns: int, now_ns: int, row: tuple[int, Any]) -> None:
        """Let a row that is stamped after the present wait beside the others, or refuse it."""
        fates = self._entrance.fates
        try:
            self._entrance.stamps.row(row)
        except ConfigError as error:  # 64 bits do not hold it
            fates.refuse(Fate.MALFORMED, row, error)
            return
        if (ahead_ns := time_ns - now_ns) > fates.policy.max_ahead_ns:
            fates.refuse_ahead(row, ahead_ns)
        else:
            self._early.put(time_ns, row)

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

    def _read_batches(self, batches: Iterator[Batch]) -> None:
        """Let rows enter many at a time."""
        unit_ns = self._unit_ns
        for given in batches:
            batch = self._entrance.stamps.batch(given)
            self._entrance.tally.received += len(batch)
            if not self.mark.recording:
                batch = self._without_early(batch)
            times = batch.timestamps
            if self._life.phase >= Phase.STOPPING:
                return
            if not len(times):
                continue
            first = int(times[0])
            before = first if self._arrived_ns == -NEVER else int(self._arrived_ns) // unit_ns
            rows = BatchCursor(batch, before, unit_ns, self._entrance)
            late = bool(first < before or np.any(times[1:] < times[:-1]))
            known_ns = max(before, int(times.max())) * unit_ns
            self._last_ns = self._arrived_ns = known_ns
            while (next_ns := rows.next_ns) != NEVER:
                if self.mark.recording:
                    self._coordinator.advance_source(
                        self.mark, next_ns=next_ns, known_ns=known_ns, comes_ns=known_ns
                    )
                limit_ns = self._gate.late_ns if late else self._gate.in_order_ns
                if next_ns >= limit_ns:
                    limit_ns = self._gate.wait(int(next_ns), late=late)
                    if limit_ns == -NEVER:
                        return
                rows.ingest_before(limit_ns)
            if self.mark.recording:
                self._coordinator.advance_source(self.mark, next_ns=known_ns)
            if self._life.phase >= Phase.STOPPING:
                return

    def __repr__(self) -> str:
        return f"source {brief(self._source)}"
