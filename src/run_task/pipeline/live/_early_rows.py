"""Rows that came before their own time: each enters when that has come."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from run_task.observe._log import Log
from run_task.pipeline._entrance import Entrance
from run_task.pipeline._order import NEVER, SourceMark
from run_task.pipeline.live._coordinator import Coordinator
from run_task.pipeline.live._row_gate import RowGate
from run_task.runner._timeline import Timeline
from run_task.sync._alarm import Alarm

_log = Log(__name__)

MOST: Final = 100_000
"""How many rows of a source may wait for their time. While so many do, it is not read on."""


class EarlyRows:
    """The rows of one source that wait for their time, and the thread that lets them enter then.

    They are in the order of their own times, beside the rows that the source goes on to give: none
    of these waits for one of them. The thread is started when the first such row comes.

    :param entrance: their way into the data
    :param mark: how far the source is
    :param gate: what they wait for besides their time
    :param coordinator: keeps the marks
    :param timeline: the time of the run
    :param name: what the thread is called
    """

    def __init__(
        self,
        entrance: Entrance,
        mark: SourceMark,
        gate: RowGate,
        coordinator: Coordinator,
        timeline: Timeline,
        name: str,
    ) -> None:
        self._entrance = entrance
        self._mark = mark
        self._gate = gate
        self._coordinator = coordinator
        self._timeline = timeline
        self._name = name
        self.hand: Final = threading.Lock()
        """Held while one of them enters."""
        self._failed: Callable[[BaseException], object] = _log.error
        self._mutex = threading.Lock()
        self._heap: list[
            tuple[int, int, Any]
        ] = []  # when it is due, the how many-th it is, the row
        self._numbers = itertools.count()
        self._alarm = Alarm()  # another row is the first, or there are to be no more
        self._room = Alarm()  # there is room for one more
        self._thread: threading.Thread | None = None
        self._complete = self._stopped = self._full = False
        self.last_ns: float = -NEVER
        """The time of the last one that has entered, in nanoseconds since the Unix epoch;
        infinitely long ago: there is none."""

    @property
    def now_ns(self) -> int:
        """The time of the run, which does not go back, in nanoseconds since the Unix epoch."""
        return max(self._timeline.clock.time_ns(), self._timeline.now_ns)

    def on_failure(self, failed: Callable[[BaseException], object]) -> None:
        """Have a function called with what goes wrong; then no more of them enter."""
        self._failed = failed

    def put(self, time_ns: int, row: tuple[int, Any]) -> None:
        """Let a row wait for its time. Who puts many waits for room then, if it is full.

        :param time_ns: its time, in nanoseconds since the Unix epoch
        :param row: its timestamp, and the row
        """
        with self._mutex:
            heapq.heappush(self._heap, (time_ns, next(self._numbers), row))
            is_first = self._heap[0][0] == time_ns
            if self._stopped:
                return  # it waits for ever
            if is_first:
                self._coordinator.set_early(self._mark, time_ns)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        elif is_first:
            self._alarm.ring()

    @property
    def is_full(self) -> bool:
        """Whether so many wait that the source is not to be read on."""
        return len(self._heap) > MOST and not self._stopped

    def wait_for_room(self) -> None:
        """Wait until there is room, or it is stopped."""
        while self.is_full:
            if not self._full:
                self._full = True
                _log.warning(
                    "%r: %d rows wait for their time, and it is not read on meanwhile: is its "
                    "clock ahead of this machine's?",
                    *(self._mark, MOST),
                )
            if not self._mark.timed:
                self._room.wait()
                continue
            # The first of them enters once it is known which rows come before it.
            clock = self._timeline.clock
            begun_ns, now_ns = clock.monotonic_ns(), self.now_ns
            with self._mutex:
                first_ns = self._heap[0][0] if self._heap else now_ns
            if first_ns <= now_ns:
                return
            clock.wait(self._room, begun_ns + first_ns - now_ns)

    def waiting(self) -> Sequence[tuple[int, Any]]:
        """The rows that wait, each with its timestamp, as they enter. While :attr:`hand` is
        held."""
        with self._mutex:
            return [row for _, _, row in sorted(self._heap, key=lambda one: one[:2])]

    def enter_before(self, arrival_ns: int) -> None:
        """Wait until those have entered whose time comes before a row, or with it."""
        mark = self._mark
        self._coordinator.wait(
            lambda: (mark,) if mark.early_ns <= arrival_ns else (), self._gate.timeout
        )

    def _before_first(self) -> Sequence[SourceMark]:
        """The source, if rows of it come before the first of these, which may be another one by
        then: once they have come, none is that comes before it."""
        with self._mutex:
            first_ns = self._heap[0][0]
        return () if self._coordinator.settle(self._mark, first_ns) else (self._mark,)

    def complete(self) -> None:
        """There are no more. Returns when all have entered, or it is stopped."""
        self._complete = True
        self._alarm.ring()
        if self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        """Let those enter that are due by now, and end. Returns at once; from any thread."""
        self._stopped = True
        self._alarm.ring()
        self._room.ring()

    def _run(self) -> None:
        try:
            while self._wait():
                if self._mark.timed:
                    self._coordinator.wait(self._before_first, self._gate.timeout)
                time_ns = self._heap[0][0]
                if self._gate.wait(time_ns, late=False) == -NEVER:
                    break  # the run was given up
                with self.hand:
                    with self._mutex:  # an earlier one may have come meanwhile
                        time_ns, _, (timestamp, row) = heapq.heappop(self._heap)
                    self._entrance.enter_row(timestamp, row)
                    self.last_ns = max(time_ns, self.last_ns)
                with self._mutex:
                    next_ns = self._heap[0][0] if self._heap else NEVER
                    self._coordinator.set_early(self._mark, next_ns)
                self._room.ring()
        except BaseException as error:
            self._failed(error)
        with self._mutex:
            self._stopped = True  # who puts a row waits for no room
            self._coordinator.set_early(self._mark, NEVER)
        self._room.ring()

    def _wait(self) -> bool:
        """Wait until the first row is due; whether it is, and not the end."""
        clock = self._timeline.clock
        while True:
            # Read first: what passes before the next reading makes the wait too short.
            begun_ns = clock.monotonic_ns()
            now_ns = self.now_ns
            with self._mutex:
                first_ns = self._heap[0][0] if self._heap else None
            if first_ns is not None and first_ns <= now_ns:
                return True
            if self._stopped or (self._complete and first_ns is None):
                return False
            if first_ns is None:
                self._alarm.wait()
            else:
                clock.wait(self._alarm, begun_ns + first_ns - now_ns)
