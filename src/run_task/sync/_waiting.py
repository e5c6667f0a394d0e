"""One definition of each wait, for threads and for tasks of an event loop.

A wait is written once, as a generator function that is given the alarm which wakes it. It looks
whether what it waits for has come, yields for how many seconds to wait before it looks again, and
returns the result::

    def until_done(alarm: AnyAlarm) -> Wait[int]:
        waiting.append(alarm)  # first, so that what comes from now on rings
        try:
            while not done:
                yield None
            return result
        finally:
            waiting.remove(alarm)

:func:`wait_thread` and :func:`wait_task` drive it. They differ in what they wait with, and in
nothing else. When a wait is broken off, by Ctrl-C or because the task is cancelled, the generator
is closed at its ``yield``, and undoes there what it has begun.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from typing import Concatenate, ParamSpec, TypeAlias, TypeVar

from run_task.sync._alarm import Alarm, AnyAlarm, AsyncAlarm

P = ParamSpec("P")
T = TypeVar("T")

Wait: TypeAlias = Generator[float | None, bool, T]
"""Yields for how many seconds to wait (None: until the alarm rings), and is sent whether it rang.
A wait may end for nothing."""


def wait_thread(
    wait: Callable[Concatenate[AnyAlarm, P], Wait[T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Wait in this thread.

    :param wait: makes the wait; it is given the alarm, and then the other arguments
    :return: what the wait returns
    :raises Exception: what the wait raises
    """
    alarm = Alarm()
    steps = wait(alarm, *args, **kwargs)
    try:
        seconds = next(steps)
        while True:
            seconds = steps.send(alarm.wait(seconds))
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()


async def wait_task(
    wait: Callable[Concatenate[AnyAlarm, P], Wait[T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """As :func:`wait_thread`, in a task of an event loop, and without holding that up."""
    alarm = AsyncAlarm()
    steps = wait(alarm, *args, **kwargs)
    try:
        seconds = next(steps)
        while True:
            seconds = steps.send(await alarm.wait(seconds))
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()


class Deadline:
    """The end of a time that something may take, by the monotonic clock.

    :param timeout: how many seconds it may take from now on; None or infinity: forever
    """

    __slots__ = ("_at", "timeout")

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        """How many seconds there were in the beginning."""
        self._at = math.inf if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """How many seconds are left, at least 0; None: it never ends."""
        if self._at == math.inf:
            return None
        return max(0.0, self._at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        return self._at != math.inf and time.monotonic() >= self._at
