"""Time as a runner sees it, and a clock for tests that moves only when a test moves it."""

from __future__ import annotations

import threading
import time
from typing import Final, Protocol

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.sync._alarm import Alarm
from run_task.time._interval import TimeUnit
from run_task.time._length import IntervalLike, length
from run_task.time._moment import InvalidTime, TimeLike, nanos

_OVERSLEEP_NS: Final = 100_000
"""How long before its time a sleep is ended, and so the longest that a wait spins."""

_LOOK_AGAIN: Final = 1.0
"""How many seconds a wait lasts at most: a step of the wall clock is noticed before long."""


class Clock(Protocol):
    """Where a runner reads the time and waits for it."""

    def time_ns(self) -> int:
        """The wall clock: nanoseconds since the Unix epoch. It may step, back or forward."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since any fixed point. It never steps."""
        ...

    def wait(self, alarm: Alarm, until_ns: int) -> None:
        """Wait until the alarm rings or the monotonic clock reads so much.

        It may end early, for nothing, and should do so when the wall clock steps, or once a second
        where that cannot be known: whoever waits reads both clocks again. The time is absolute, so
        that it does not matter how long ago it was worked out.

        :param alarm: what ends the wait when it rings; it has a ``wait(seconds)``, which returns
            whether it rang
        :param until_ns: the time, in nanoseconds of the monotonic clock
        """
        ...


def check_clock(clock: Clock) -> Clock:
    """See whether something is a clock, before anything runs by it.

    :param clock: what a program gave as one
    :return: the same
    :raises ConfigError: if it is none
    """
    methods = ("time_ns", "monotonic_ns", "wait")
    if isinstance(clock, type) or not all(callable(getattr(clock, m, None)) for m in methods):
        raise ConfigError(
            f"clock={clock!r}: it is a Clock, such as SystemClock() or VirtualClock(), which has "
            f"{', '.join(methods)}"
        )
    return clock


class SystemClock:
    """The clock of this machine."""

    __slots__ = ()

    # The functions themselves, so that a tick reads the clock with nothing in between.
    time_ns: staticmethod[[], int] = staticmethod(time.time_ns)
    """The wall clock: :func:`time.time_ns`."""

    monotonic_ns: staticmethod[[], int] = staticmethod(time.monotonic_ns)
    """The monotonic clock: :func:`time.monotonic_ns`."""

    def wait(self, alarm: Alarm, until_ns: int) -> None:
        """Wait until the alarm rings or the monotonic clock reads so much.

        It sleeps until shortly before, for a sleep ends some 60 to 100 microseconds late, and
        then looks at the clock again and again. It ends after a second at the latest.
        """
        remaining = (until_ns - time.monotonic_ns() - _OVERSLEEP_NS) / 1e9
        if remaining > 0 and (alarm.wait(min(remaining, _LOOK_AGAIN)) or remaining > _LOOK_AGAIN):
            return
        while time.monotonic_ns() < until_ns:
            pass


class VirtualClock:
    """A clock that stands still until it is moved.

    ::

        clock = VirtualClock()
        with Runner(context, clock=clock):
            clock.advance("5s")
            dataset = receiver.recv(timeout=10)

    :param start_ns: where the wall clock begins: an int, in nanoseconds since the Unix epoch, an
        aware datetime, or a ``numpy.datetime64``
    """

    def __init__(self, start_ns: TimeLike = 0) -> None:
        start_ns = _nanos(start_ns, "VirtualClock")
        self._mutex = threading.Lock()
        self._wall_ns = start_ns
        self._monotonic_ns = 0
        self._sleepers: set[Alarm] = set()
        self._moves = 0  # how often it has been moved
        self._looked = threading.local()  # how often, when a thread last looked at the wall clock

    def time_ns(self) -> int:
        """The virtual wall clock."""
        self._looked.moves = self._moves  # first: when it says so, the move is made
        return self._wall_ns

    def monotonic_ns(self) -> int:
        """The virtual monotonic clock."""
        return self._monotonic_ns

    def wait(self, alarm: Alarm, until_ns: int) -> None:
        """Wait until the alarm rings or the clock has been moved so far."""
        with self._mutex:
            if getattr(self._looked, "moves", self._moves) != self._moves:
                self._looked.moves = self._moves
                return  # it was set since the waiter looked at it: let it look again
            self._sleepers.add(alarm)
        try:
            if self._monotonic_ns < until_ns:
                # Whatever rang, the waiter looks again: a ring of the clock's, which may have moved
                # too little, and one of somebody else's may have come together.
                alarm.wait()
        finally:
            with self._mutex:
                self._sleepers.discard(alarm)

    def advance(self, interval: IntervalLike) -> None:
        """Let time pass: both clocks move forward.

        :param interval: how much: a TaskInterval, a timedelta, or a text such as ``"5s"``
        :raises ConfigError: if it is no length of time
        """
        nanos = length(interval, "advance({})").nanos
        self._move(nanos, nanos)

    def advance_to(self, time_ns: TimeLike) -> None:
        """Let time pass until the wall clock shows this.

        Nothing happens if it shows that, or more, already.

        :param time_ns: the time: an int, in nanoseconds since the Unix epoch, an aware datetime, or
            a ``numpy.datetime64``
        :raises ConfigError: if it is no time
        """
        passed_ns = _nanos(time_ns, "advance_to") - self._wall_ns
        if passed_ns > 0:
            self._move(passed_ns, passed_ns)

    def step(self, nanoseconds: int) -> None:
        """Set the wall clock, as an operator would; the monotonic clock does not move.

        :param nanoseconds: how far forward; if negative, back
        """
        self._move(nanoseconds, 0)

    def _move(self, wall_ns: int, monotonic_ns: int) -> None:
        with self._mutex:
            self._wall_ns += wall_ns
            self._monotonic_ns += monotonic_ns
            self._moves += 1
            for alarm in self._sleepers:
                alarm.ring()


def _nanos(time: TimeLike, what: str) -> int:
    try:
        return nanos(time, TimeUnit.NANOS)
    except InvalidTime as invalid:
        raise ConfigError(
            f"{what}({brief(time)}): it is an int, in nanoseconds, or a datetime: {invalid}"
        ) from None
