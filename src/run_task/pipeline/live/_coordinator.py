"""How stages and sources wait for each other: one that moves wakes those that wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

from run_task.pipeline._order import (
    Blockers,
    Mark,
    Order,
    Place,
    RowLimits,
    SourceMark,
    StageMark,
)
from run_task.runner._scheduler import step_aside
from run_task.sync._alarm import Alarm
from run_task.sync._waiting import Deadline
from run_task.sync._watch import watch
from run_task.time._clock import Clock

T = TypeVar("T")

_LONGEST_HOLD: Final = 10.0
"""For how many seconds a window is held at most, whoever forgets to let it go."""


class Coordinator:
    """The order of a live run, shared by its threads: marks are read and written under one lock.

    :param order: the order
    :param clock: the time of the run
    """

    def __init__(self, order: Order, clock: Clock) -> None:
        self._order = order
        self._clock = clock
        self._lock = threading.Lock()
        self._alarms: set[Alarm] = set()  # of those who wait
        self._released = False
        self.moves: int = 0
        """How often something has moved. It is counted after the marks are set."""
        self.arranged: int = 0
        """How often the order has been made another one. It is counted before anything is."""
        self.holding: bool = False
        """Whether no window is to begin of which nobody has taken a view."""
        self._stands_by_since: float | None = None  # by the monotonic clock: a window, for that
        self.early: set[SourceMark] = set()
        """The sources of which rows wait for their time."""

    @property
    def released(self) -> bool:
        """Whether all waiting has ended: the run is given up."""
        return self._released

    # Marks

    def advance_stage(
        self,
        stage: StageMark,
        *,
        first_ns: float = -float("inf"),
        seen_ns: float = -float("inf"),
        place: Place | None = None,
        done_ns: float = -float("inf"),
        last_ns: float = float("inf"),
        ended: bool = False,
    ) -> None:
        """As :meth:`Order.advance_stage`; it wakes those that wait."""
        with self._lock:
            self._order.advance_stage(
                stage,
                first_ns=first_ns,
                seen_ns=seen_ns,
                place=place,
                done_ns=done_ns,
                last_ns=last_ns,
                ended=ended,
            )
            self._moved()

    def advance_source(
        self,
        source: SourceMark,
        *,
        next_ns: float = -float("inf"),
        known_ns: float = -float("inf"),
        comes_ns: float = -float("inf"),
        ended: bool = False,
    ) -> None:
        """As :meth:`Order.advance_source`; it wakes those that wait."""
        with self._lock:
            self._order.advance_source(
                source, next_ns=next_ns, known_ns=known_ns, comes_ns=comes_ns, ended=ended
            )
            self._moved()

    def advance_seen(self, stage: StageMark, seen_ns: float) -> None:
        """A stage's windows that end before this have their views. Once a window, and so cheap."""
        seen = stage.seen
        with self._lock:
            for place in seen:
                if seen[place] < seen_ns:
                    seen[place] = seen_ns
            self.moves += 1
            if self._alarms:
                self._ring()

    def advance_done(self, stage: StageMark, done_ns: float) -> None:
        """The results of a stage's windows that end before this have entered. Once a window."""
        with self._lock:
            if done_ns > stage.done_ns:
                stage.done_ns = done_ns
                self.moves += 1
                if self._alarms:
                    self._ring()

    def set_early(self, source: SourceMark, time_ns: float) -> None:
        """Note when the first row of a source enters of those that wait for their time."""
        with self._lock:
            source.early_ns = time_ns
            if time_ns == float("inf"):
                self.early.discard(source)
            else:
                self.early.add(source)
            self._moved()

    def release(self) -> None:
        """End all waiting, now and later: the run is given up."""
        with self._lock:
            self._released = True
            self._moved()

    @contextmanager
    def held(self) -> Generator[None]:
        """Let no window begin while a block is in hand. One of which somebody has taken a view
        ahead goes on; rows enter."""
        self._stands_by_since = None
        self.holding = True
        try:
            yield
        finally:
            with self._lock:
                self.holding = False
                self._moved()

    @property
    def stands_by(self) -> float:
        """For how many seconds a window has been standing by that would have begun."""
        since = self._stands_by_since
        return 0.0 if since is None else time.monotonic() - since

    def until_nothing_is_in_hand(self, timeout: float) -> Sequence[StageMark]:
        """Wait until no stage has a window in hand. Returns those that still have one: none, if
        that was so for a moment."""

        def in_hand() -> Sequence[StageMark]:
            with self._lock:
                return self._order.in_hand

        return self.wait(in_hand, timeout)

    @contextmanager
    def still(self) -> Generator[bool]:
        """A block in which no window takes its view, and no results enter. Gives whether none is in
        hand."""
        with self._lock:
            yield not self._order.in_hand

    def look_again(self) -> None:
        """Have those that wait look again: what is no mark has changed."""
        with self._lock:
            self._moved()

    def stand_by(self, stage: StageMark, end_ns: float) -> None:
        """Wait while no window is to begin, unless there is a view of it by now, or one is in hand
        that comes after it, and may wait for it."""
        due_ns = end_ns + stage.grace_ns

        def held() -> Sequence[StageMark]:
            if not self.holding or max(stage.seen.values()) > end_ns:
                return ()
            with self._lock:
                in_hand = self._order.in_hand
            if any(other is not stage and other.due_ns >= due_ns for other in in_hand):
                return ()
            if self._stands_by_since is None:
                self._stands_by_since = time.monotonic()
            return [stage]

        self.wait(held, _LONGEST_HOLD)

    def stand_by_with_row(self, arrival_ns: float, unseen: Callable[[], bool]) -> None:
        """Wait with a row while no window is to begin, if a view would have to be taken for one
        before it enters: that window would be in hand then, and so there might be one at any time.
        A row that a window in hand may wait for enters.

        :param arrival_ns: when the row arrives
        :param unseen: whether a window that comes before it has no view
        """

        def held() -> Sequence[StageMark]:
            if not self.holding or not unseen():
                return ()
            with self._lock:
                in_hand = self._order.in_hand
            return () if any(other.due_ns > arrival_ns for other in in_hand) else in_hand

        self.wait(held, _LONGEST_HOLD)

    @contextmanager
    def arranging(self) -> Generator[Order]:
        """Arrange the order anew in a block: of other stages and sources, or of other ways."""
        with self._lock:
            self.arranged += 1
            yield self._order
            self._moved()

    def _moved(self) -> None:
        self.moves += 1
        self._ring()

    def _ring(self) -> None:
        for alarm in self._alarms:
            alarm.ring()

    # What the order says now

    def waits_for_nobody(self, stage: StageMark) -> bool:
        """As :meth:`Order.waits_for_nobody`, which does not change."""
        return self._order.waits_for_nobody(stage)

    def unseen_ns(self, stage: StageMark, place: Place) -> float:
        """When the first window of a stage is due that has no view of some data."""
        with self._lock:
            return stage.unseen_ns(place)

    def due_ns(self, stage: StageMark) -> float:
        """When the first window of a stage is due whose results have not entered."""
        with self._lock:
            return stage.due_ns

    def missing(
        self, stage: StageMark, end_ns: float, place: Place | None = None
    ) -> Sequence[StageMark]:
        """As :meth:`Order.missing`."""
        with self._lock:
            return self._order.missing(stage, end_ns, place)

    def before_window(self, stage: StageMark, start_ns: float, end_ns: float) -> Sequence[Mark]:
        """As :meth:`Order.before_window`."""
        with self._lock:
            left = self._order.before_window(stage, start_ns, end_ns)
        if left and self._settle(left, end_ns + stage.grace_ns):
            with self._lock:
                return self._order.before_window(stage, start_ns, end_ns)
        return left

    def behind_window(self, stage: StageMark, start_ns: float, end_ns: float) -> Sequence[Mark]:
        """As :meth:`Order.behind_window`."""
        with self._lock:
            return self._order.behind_window(stage, start_ns, end_ns)

    def owed(
        self, stage: StageMark, due_ns: float, place: Place | None = None
    ) -> Sequence[SourceMark]:
        """As :meth:`Order.owed`."""
        with self._lock:
            return self._order.owed(stage, due_ns, place)

    def before_results(self, stage: StageMark, end_ns: float) -> Blockers:
        """As :meth:`Order.before_results`."""
        with self._lock:
            left = self._order.before_results(stage, end_ns)
        if left.writers and self._settle(left.writers, end_ns + stage.grace_ns):
            with self._lock:
                return self._order.before_results(stage, end_ns)
        return left

    def before_row(self, source: SourceMark, arrival_ns: float, *, late: bool) -> Blockers:
        """As :meth:`Order.before_row`."""
        with self._lock:
            left = self._order.before_row(source, arrival_ns, late=late)
        if left.writers and self._settle(left.writers, arrival_ns):
            with self._lock:
                return self._order.before_row(source, arrival_ns, late=late)
        return left

    def settle(self, source: SourceMark, until_ns: int) -> bool:
        """Have all rows of a source given that come before a time, which has come. Returns whether
        they have entered."""
        if source.settle is not None and source.next_ns < until_ns and not source.ended:
            source.settle(until_ns)
        return source.next_ns >= until_ns or source.ended

    def _settle(self, marks: Sequence[Mark], time_ns: float) -> bool:
        """Have live sources give the rows that come by a time, where they are in the way. Returns
        whether there are such."""
        asked = False
        for mark in marks:
            if isinstance(mark, SourceMark) and mark.settle is not None:
                mark.settle(int(time_ns) + 1)
                asked = True
        return asked

    def row_limits(self, source: SourceMark, arrival_ns: float) -> RowLimits:
        """As :meth:`Order.row_limits`."""
        with self._lock:
            return self._order.row_limits(source, arrival_ns)

    # Waiting

    def wait(
        self,
        blockers: Callable[[], Sequence[T]],
        timeout: float,
        look_again_ns: Callable[[], float] | None = None,
    ) -> Sequence[T]:
        """Wait until none is in the way. All waiting of stages and sources for each other is
        done here.

        :param blockers: who is; asked again whenever something has moved
        :param timeout: how many seconds to wait at most
        :param look_again_ns: until when, by the clock, to wait at most before asking again
        :return: who still is in the way, after that time, or once all waiting has ended
        """
        deadline = Deadline(timeout)
        alarm: Alarm | None = None
        while True:
            moves = self.moves  # read first: what moves from here on is not waited through
            left = blockers()
            if not left or self._released or deadline.passed:
                return left
            if alarm is None:
                alarm = Alarm()
            with self._lock:
                if self.moves != moves:
                    continue
                self._alarms.add(alarm)
            step_aside()  # this thread might have to run the very stage that it waits for
            try:
                until_ns = None if look_again_ns is None else look_again_ns()
                if until_ns is None:
                    alarm.wait(deadline.remaining())
                else:
                    self._wait_by_clock(alarm, until_ns, deadline)
            finally:
                with self._lock:
                    self._alarms.discard(alarm)

    def _wait_by_clock(self, alarm: Alarm, until_ns: float, deadline: Deadline) -> None:
        """Wait for a time of the clock, which need not pass as time does."""
        now_ns = self._clock.monotonic_ns()
        ahead_ns = until_ns - self._clock.time_ns()
        if not 0 < ahead_ns < float("inf"):
            alarm.wait(deadline.remaining())
            return
        with _RingsAt(alarm, deadline):
            self._clock.wait(alarm, now_ns + int(ahead_ns))


class _RingsAt:
    """Rings an alarm at a deadline, while a block is in hand. The process's watch does it.

    :param alarm: the alarm
    :param deadline: the deadline
    """

    def __init__(self, alarm: Alarm, deadline: Deadline) -> None:
        self._alarm = alarm
        self._deadline = deadline

    def look(self) -> float | None:
        if self._deadline.passed:
            self._alarm.ring()
        return self._deadline.remaining()

    def __enter__(self) -> None:
        watch().add(self)
        watch().wake()

    def __exit__(self, *exc: object) -> None:
        watch().remove(self)
        watch().settle()


class Turn:
    """One party's waits of one kind. It does not wait again for one that took too long, before
    that one has caught up: so one that hangs costs each that depends on it one wait, and not one a
    window.

    :param coordinator: what it waits by
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._given_up: Sequence[object] = ()
        self._behind: Callable[[], Sequence[object]] = tuple  # as of the last wait

    def wait(
        self,
        blockers: Callable[[], Sequence[T]],
        timeout: float,
        look_again_ns: Callable[[], float] | None = None,
        behind: Callable[[], Sequence[object]] | None = None,
    ) -> Sequence[T]:
        """Wait until none of those that are waited for is in the way.

        :param blockers: who is in the way
        :param timeout: how many seconds to wait at most
        :param look_again_ns: until when, by the clock, to wait at most before asking again
        :param behind: who has not come as far as is waited for now, asked at the next wait; None:
            who is in the way, whenever that is asked
        :return: those that are given up in this moment
        """
        # Those that have not even come as far as was waited for before.
        given_up = [one for one in self._behind() if one in self._given_up]
        self._behind = behind or blockers

        def awaited() -> Sequence[T]:
            return [one for one in blockers() if one not in given_up]

        left = self._coordinator.wait(awaited, timeout, look_again_ns)
        self._given_up = [*given_up, *left]
        return left
