"""Runs what is due, for all runners that share a clock, in as few threads as will do.

One thread leads: it waits for whatever falls due first, takes all that is due by then, and runs it
itself, one after another, since what is cheap costs less than to wake another thread for it. What
takes long, or blocks, must not hold up others. So the lead is a role and not a thread:

- An activity that was slow last time is run by a thread that has given up the lead before.
- A thread that is about to block says so (:func:`step_aside`), and gives up the lead.
- A thread that is found with one activity for longer than ``_HOLD`` loses the lead to another one.
  The process's watch sees to that.

Who gets the lead goes on with what has been taken. A thread without it finishes what it has in
hand, and then rests until it is needed again.

There is a leader whenever there is an activity: the lead passes from one thread to another under
the mutex. Waking an activity takes no lock, so that it can be done in a signal handler.
"""

from __future__ import annotations

import heapq
import os
import threading
import time
from collections import deque
from itertools import count
from typing import Final, Protocol

from run_task.observe._log import Log
from run_task.sync._alarm import Alarm
from run_task.sync._watch import watch
from run_task.time._clock import Clock, SystemClock

_HOLD: Final = 0.005
"""For how many seconds at most the thread in the lead may be busy with one activity."""

_SLOW: Final = 0.001
"""From how many seconds on an activity is run without the lead the next time."""

_DRIFT_NS: Final = 100_000
"""By how many nanoseconds wall and monotonic clock must have come apart to be looked at closely."""

_OVERSLEPT_NS: Final = 100_000_000
"""By how many nanoseconds a wait must have been too long for what is due to have been overslept."""

_RESTING: Final = 4
"""How many threads without work are kept."""

_AT_ONCE: Final = -(1 << 62)
"""A time by which everything is due."""

NOT_OVERSLEPT: Final = _AT_ONCE
"""When nothing has been overslept yet."""

_NEVER: Final = 1 << 62
"""A time that does not come."""

_TRY_AGAIN: Final = 0.05
"""After how many seconds what failed is tried again: to start a thread, or to read a clock."""

_STALE: Final = 64
"""So many places in the heap may be of what has been put elsewhere, besides one an activity."""

_log = Log(__name__)


class Activity(Protocol):
    """What is run by a scheduler again and again."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    def activate(self) -> None:
        """Do what is due, and say by :meth:`Scheduler.put` when there is more, or by
        :meth:`Scheduler.remove` that there is not. It does not raise."""
        ...

    def follow_clock(self) -> int:
        """Take over a step of the wall clock.

        :return: when there is something to do, in nanoseconds of the monotonic clock
        """
        ...

    def lose_clock(self, error: BaseException) -> None:
        """Come to an end, since the clock cannot be read: it is activated once more. It does not
        raise.

        :param error: what the clock raised
        """
        ...


class Entry:
    """An activity's place in a scheduler.

    :param activity: what is run
    :param rank: of what falls due at one time, the least is run first
    """

    __slots__ = ("activity", "number", "rank", "slow", "stepped", "woken")

    def __init__(self, activity: Activity, rank: int) -> None:
        self.activity: Activity = activity
        self.rank: int = rank
        self.number: int = 0  # of its item in the heap; 0: it has none
        self.slow: bool = False  # when it was run last
        self.woken: bool = False  # since then
        # Whether the wall clock may have stepped since it said when it is due.
        self.stepped: bool = True


class _Member:
    """A thread that may take a scheduler's lead.

    :ivar alarm: rings when it gets the lead, or is to end
    """

    __slots__ = ("alarm", "begun", "entry", "thread")

    def __init__(self, thread: threading.Thread | None = None) -> None:
        self.alarm: Alarm = Alarm()
        self.begun: float = 0.0  # since when it is busy, in seconds of time.monotonic()
        self.entry: Entry | None = None  # with what
        self.thread: threading.Thread | None = thread


class Scheduler:
    """Runs activities when they are due. Use :func:`scheduler_of`.

    :param clock: where to read the time
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._heap: list[tuple[int, int, int, Entry]] = []  # when it is due, rank, number, what
        self._due: deque[Entry] = deque()  # what was due when it was last looked
        self._numbers = count(1)
        self._entries: set[Entry] = set()
        self._woken: deque[Entry] = deque()
        self._alarm = Alarm()  # rings when the leader is to look again
        self._lead: _Member | None = None
        self._resting: list[_Member] = []
        self._members: set[_Member] = set()
        self._started = count(1)
        self._watch = watch()
        self._refused = False  # the system had no thread to give
        self._offset_ns = clock.time_ns() - clock.monotonic_ns()
        self.overslept_ns: int = NOT_OVERSLEPT
        """When the last wait ended that was far too long, as after a suspend, in nanoseconds of the
        monotonic clock."""

    # For those who have something to run

    def add(self, activity: Activity, rank: int = 0) -> Entry:
        """Take in an activity, which is run once it is :meth:`put`.

        :param activity: what to run
        :param rank: of what falls due at one time, the least is run first
        :raises RuntimeError: if the thread that it takes cannot be started
        """
        entry = Entry(activity, rank)
        with self._mutex:
            self._entries.add(entry)
            if self._lead is None:
                try:
                    self._appoint()
                except BaseException:
                    self._entries.discard(entry)
                    raise
            self._watch.add(self)
            _registry.keep(self)
        return entry

    def put(self, entry: Entry, due_ns: int) -> None:
        """Say when an activity is to be run next.

        :param entry: the activity, which is not in the heap
        :param due_ns: when, in nanoseconds of the monotonic clock
        """
        with self._mutex:
            if entry not in self._entries:
                return
            if entry.stepped:
                entry.stepped = False
                due_ns = entry.activity.follow_clock()
            entry.number = number = next(self._numbers)
            due_ns = _AT_ONCE if entry.woken else due_ns
            heapq.heappush(self._heap, (due_ns, entry.rank, number, entry))
            place, lead = _this_thread.place, self._lead
            if place is not None and place[1] is lead:
                return  # this thread will look by itself
            is_busy = lead is not None and lead.entry is not None
            if lead is not None and lead.entry is entry and self._pass_on():
                is_busy = False  # it hangs there, and another thread has gone on with it
        if is_busy:
            self._watch.wake()  # while there was nothing else to run, it may have slept
        self._alarm.ring()

    def wake(self, entry: Entry) -> None:
        """Run an activity at once, or once more if it is being run. Safe in a signal handler."""
        entry.woken = True
        self._woken.append(entry)
        self._alarm.ring()

    def remove(self, entry: Entry) -> None:
        """Have nothing more to do with an activity."""
        place = _this_thread.place
        with self._mutex:
            self._entries.discard(entry)
            entry.number = 0
            if place is not None and place[1].entry is entry:
                place[1].entry = None  # this thread is as good as done with it
            self._tidy()
            if self._entries:
                return
            self._due.clear()
            lead = self._lead
            if lead is not None and lead.entry is not None:
                self._lead = None  # what it is in may hang, and then it would never lead again
            self._watch.remove(self)
            _registry.forget(self)
            resting = tuple(self._resting)
        self._alarm.ring()
        for member in resting:
            member.alarm.ring()

    def activities(self) -> list[Activity]:
        """What it runs."""
        with self._mutex:
            return [entry.activity for entry in self._entries]

    def settle(self) -> None:
        """Wait until the threads have ended that nothing is left to do for, if that is all.

        A thread in which something hangs is not waited for.
        """
        for member in list(self._members):
            thread = member.thread
            if thread is None or thread is threading.current_thread():
                continue
            if not self._entries and member.entry is not None:
                thread.join(_HOLD)  # it may be about to come back from what another has ended
            while not self._entries and member.entry is None and thread.is_alive():
                thread.join(_HOLD)  # and look again: it goes on if something is added meanwhile
        if not self._entries:
            self._watch.settle()

    # In its threads

    def step_aside(self, member: _Member) -> None:
        """Give up the lead, if this thread has it and there is anything else to run."""
        with self._mutex:
            if self._lead is not member or len(self._entries) < 2:
                return
            if self._pass_on():
                return
        self._watch.wake()  # it tries again

    def _run(self, member: _Member) -> None:
        _this_thread.place = self, member
        while True:
            if self._wait(member):
                self._activate(member)
            elif not self._rest(member):
                return

    def _activate(self, member: _Member) -> None:
        """Run what is due, as long as this thread has the lead."""
        due, heap, entries, monotonic = self._due, self._heap, self._entries, time.monotonic
        now = monotonic()
        # Who loses the lead right here takes one more. That is nobody else's, and holds up nobody.
        while self._lead is member:
            try:
                entry = due.popleft()
            except IndexError:
                return
            if entry not in entries:
                continue  # it was removed meanwhile
            member.begun = begun = now
            member.entry = entry
            entry.woken = False
            if due or heap:
                if entry.slow:
                    self.step_aside(member)
                elif self._watch.asleep:
                    self._watch.wake()
            try:
                entry.activity.activate()
            except BaseException:
                _log.exception("%r failed", entry.activity)  # it is an error of this library
            member.entry = None
            now = monotonic()
            entry.slow = now - begun > _SLOW

    def _wait(self, member: _Member) -> bool:
        """Wait until something is due, and take it. Returns whether this thread has the lead."""
        heap, due = self._heap, self._due
        until_ns = _NEVER
        while True:
            try:
                now_ns = self._clock.monotonic_ns()
            except BaseException as error:
                self._lose_clock(error)
                now_ns = _AT_ONCE
            if now_ns - until_ns > _OVERSLEPT_NS:
                self.overslept_ns = now_ns
            with self._mutex:
                if self._lead is not member:
                    return False
                if self._woken:
                    self._take_woken()
                while heap and (heap[0][0] <= now_ns or heap[0][3].number != heap[0][2]):
                    _, _, number, entry = heapq.heappop(heap)
                    if entry.number == number:  # else it has been put elsewhere, or removed
                        entry.number = 0
                        due.append(entry)
                if due:
                    return True
                if not self._entries:
                    self._lead = None
                    return False
                until_ns = heap[0][0] if heap else _NEVER
            try:
                if not self._follow_clock(now_ns):
                    self._clock.wait(self._alarm, until_ns)
            except BaseException as error:
                self._lose_clock(error)
                self._alarm.wait(_TRY_AGAIN)

    def _rest(self, member: _Member) -> bool:
        """Wait until this thread is needed. Returns whether it is."""
        while True:
            with self._mutex:
                if self._lead is member:
                    return True
                rests = member in self._resting
                if not self._entries or not (rests or len(self._resting) < _RESTING):
                    if rests:
                        self._resting.remove(member)
                    return False
                if not rests:
                    self._resting.append(member)
            member.alarm.wait()

    def _move(self, entry: Entry, due_ns: int) -> None:
        """Put an activity elsewhere in the heap."""
        entry.number = next(self._numbers)
        heapq.heappush(self._heap, (due_ns, entry.rank, entry.number, entry))
        if len(self._heap) > 2 * len(self._entries) + _STALE:
            self._tidy()

    def _tidy(self) -> None:
        """Take out of the heap what has been put elsewhere, or removed: it would keep an activity,
        and all that this has, until the time at which it would have been due."""
        self._heap[:] = [item for item in self._heap if item[3].number == item[2]]
        heapq.heapify(self._heap)

    def _lose_clock(self, error: BaseException) -> None:
        """End all that is run by a clock that cannot be read. It is of a program's own making."""
        for activity in self.activities():
            activity.lose_clock(error)

    def _take_woken(self) -> None:
        while self._woken:
            entry = self._woken.popleft()
            # What is being run is looked at when it is put back.
            if entry.number and entry.woken:
                self._move(entry, _AT_ONCE)

    def _follow_clock(self, before_ns: int) -> bool:
        """Look whether the wall clock has stepped, and if so, put everything where it is due.

        The two clocks cannot be read at one time, and what passes between is much where a
        recording is played a million times as fast: so the wall clock is read between two readings
        of the other, and has stepped if it was at neither, nor in between.

        :param before_ns: what the monotonic clock read before
        :return: whether it has
        """
        wall_ns = self._clock.time_ns()
        after_ns = self._clock.monotonic_ns()
        expected_ns = wall_ns - self._offset_ns
        if before_ns - _DRIFT_NS < expected_ns < after_ns + _DRIFT_NS:
            return False
        if expected_ns - after_ns > _OVERSLEPT_NS:  # as after the machine slept
            self.overslept_ns = after_ns
        self._offset_ns = wall_ns - after_ns
        with self._mutex:
            for entry in self._entries:
                if entry.number:
                    self._move(entry, entry.activity.follow_clock())
                else:
                    entry.stepped = True  # when it is put, it may not know of it
        return True

    def _pass_on(self) -> bool:
        """Give the lead to another thread, if there can be one. Returns whether it has it."""
        try:
            self._appoint()
        except RuntimeError as error:
            if not self._refused:
                _log.warning("a runner that is slow makes others late: %s", error)
            self._refused = True
            return False
        self._refused = False
        return True

    def _appoint(self) -> None:
        """Give the lead to a thread that rests, or to a new one.

        :raises RuntimeError: if it cannot be started; then the lead is where it was
        """
        if self._resting:
            self._lead = self._resting.pop()
            self._lead.alarm.ring()
            return
        member = _Member()
        member.thread = threading.Thread(
            target=self._run,
            args=(member,),
            name=f"run-task scheduler {next(self._started)}",
            daemon=True,  # a task that hangs must not keep the process from ending
        )
        before, self._lead = self._lead, member
        try:
            member.thread.start()
        except RuntimeError:
            self._lead = before
            raise
        self._members = {m for m in self._members if m.thread and m.thread.is_alive()}
        self._members.add(member)

    # For the watch

    def look(self) -> float | None:
        """Take the lead from a thread that has been busy with one activity for too long."""
        lead = self._lead
        entry = None if lead is None else lead.entry
        if lead is None or entry is None or not (self._heap or self._due):
            return None
        begun = lead.begun
        remaining = begun + _HOLD - time.monotonic()
        if remaining > 0:
            return remaining
        with self._mutex:
            if self._lead is not lead or lead.entry is not entry or lead.begun != begun:
                return None
            if not self._pass_on():
                return _TRY_AGAIN
        return None


class _ThisThread(threading.local):
    place: tuple[Scheduler, _Member] | None = None


class _Registry:
    """The schedulers of this process that have something to run."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()  # taken last
        self._schedulers: dict[object, Scheduler] = {}  # by their clock
        self._busy: set[Scheduler] = set()

    def find(self, clock: Clock) -> Scheduler:
        key: object = SystemClock if type(clock) is SystemClock else id(clock)
        with self._mutex:
            if key not in self._schedulers:
                self._schedulers[key] = Scheduler(clock)
            return self._schedulers[key]

    def activities(self) -> list[Activity]:
        with self._mutex:
            schedulers = tuple(self._busy)
        return [activity for scheduler in schedulers for activity in scheduler.activities()]

    def keep(self, scheduler: Scheduler) -> None:
        """It may have been found just before it was forgotten, and then there are two."""
        with self._mutex:
            self._busy.add(scheduler)

    def forget(self, scheduler: Scheduler) -> None:
        with self._mutex:
            self._busy.discard(scheduler)
            left = {key: other for key, other in self._schedulers.items() if other is not scheduler}
            self._schedulers = left


_this_thread: Final = _ThisThread()
_registry: Final = _Registry()


def scheduler_of(clock: Clock) -> Scheduler:
    """The scheduler for a clock: one for all runners that have the machine's."""
    return _registry.find(clock)


def scheduled() -> list[Activity]:
    """All runners and stages that are running in this process."""
    return _registry.activities()


def step_aside() -> None:
    """Say that the code that runs now is about to block, if a scheduler runs it."""
    place = _this_thread.place
    if place is not None:
        scheduler, member = place
        scheduler.step_aside(member)


def is_scheduled() -> bool:
    """Whether the code that runs now is run by a thread of a scheduler."""
    return _this_thread.place is not None


def _forget_all() -> None:
    _Registry.__init__(_registry)
    _this_thread.place = None


if hasattr(os, "register_at_fork"):
    # A forked child has none of the threads.
    os.register_at_fork(after_in_child=_forget_all)
