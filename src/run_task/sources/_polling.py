"""A callable that is asked again and again, as a source."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, overload

from run_task.errors import ConfigError, SourceError
from run_task.sources._arguments import check
from run_task.sources._arrived import Arrived, is_arrived
from run_task.sources._faults import Faults, OnFault
from run_task.sources._protocol import SourceInfo
from run_task.sync._alarm import Alarm
from run_task.time._clock import Clock, SystemClock, check_clock
from run_task.time._interval import TaskInterval, TimeUnit
from run_task.time._length import IntervalLike, length

R = TypeVar("R")


class Polling(Generic[R]):
    """What :func:`polling` gives."""

    def __init__(
        self,
        fn: Callable[[], R | Arrived[R] | None],
        every: IntervalLike,
        unit: TimeUnit | None,
        on_failure: OnFault,
        clock: Clock,
    ) -> None:
        if not callable(fn):
            raise ConfigError(f"polling({fn!r}): what is polled is a callable without arguments")
        if inspect.iscoroutinefunction(fn):
            raise ConfigError(
                f"polling({fn!r}): it is async; an async generator of (timestamp, row) is a source"
            )
        name: Any = getattr(fn, "__qualname__", None) or repr(fn)
        self._name = f"polling({name})"
        try:
            interval = length(every, "every={}")
        except ConfigError as error:
            raise ConfigError(f"{self._name}: {error}") from None
        self._fn = fn
        self._every_ns = interval.nanos
        self._grid_ns = interval.with_unit(TimeUnit.NANOS).grid()
        self._unit = unit or interval.unit
        self._told = unit is not None or isinstance(every, TaskInterval)  # what its unit is
        check(self._name, self._unit, None, on_failure)
        self._clock = clock
        self._faults = Faults(on_failure)
        self._alarm = Alarm()
        self._closed = False
        self._skipped = 0

    @property
    def unit(self) -> TimeUnit:
        """The unit of the timestamps given."""
        return self._unit

    def about(self) -> SourceInfo:
        """It has no end, and so no history that could be replayed."""
        return SourceInfo(
            unit=self._unit if self._told else None, endless=True, malformed=self._faults.count
        )

    @property
    def malformed(self) -> int:
        """How many polls have failed."""
        return self._faults.count

    @property
    def skipped(self) -> int:
        """How many polls were left out, because the one before took too long."""
        return self._skipped

    def count_in(self, unit: TimeUnit) -> None:
        """Give timestamps in the unit of the data that rows enter, if nobody has said another.

        :param unit: the unit
        :raises ConfigError: if another one has been said
        """
        if self._told and unit is not self._unit:
            raise ConfigError(
                f"{self._name}: its timestamps are in {self._unit.name.lower()}, and not in "
                f"{unit.name.lower()}"
            )
        self._unit, self._told = unit, True

    def close(self) -> None:
        """Stop polling. From any thread; a wait for the next poll ends at once."""
        self._closed = True
        self._alarm.ring()

    def __iter__(self) -> Iterator[tuple[int, R]]:
        """The rows, each as soon as it was polled.

        :raises SourceError: if a poll fails and that is fatal; what it raised is the cause
        """
        clock = self._clock
        due_ns = clock.time_ns()
        while not self._closed:
            now_ns = max(clock.time_ns(), due_ns)
            began_ns = clock.monotonic_ns()
            try:
                row = self._fn()
            except Exception as error:
                reason = f"it raised {type(error).__name__}: {error}"
                fault = SourceError(self._name, None, None, reason)
                fault.__cause__ = error
                self._faults.note_failure(fault)
            else:
                if row is not None and not self._closed:
                    given: Any = row
                    yield given if is_arrived(row) else (now_ns // self._unit.nanos, given)
            due_ns = self._next(due_ns, began_ns)

    def __repr__(self) -> str:
        return self._name

    def _next(self, due_ns: int, began_ns: int) -> int:
        """Wait for the next poll, and return when by the wall clock it is due.

        :param due_ns: when by the wall clock the last one was due
        :param began_ns: when by the monotonic clock it began
        """
        clock, every_ns = self._clock, self._every_ns
        now_ns = clock.time_ns()
        following_ns = self._grid_ns.after(due_ns)
        late_ns = now_ns - following_ns
        if late_ns > 0 or late_ns < -2 * every_ns:  # or the clock was set back
            following_ns = self._grid_ns.after(now_ns - 1)
            # When the clock was set forward, no more was left out than fits in what really passed.
            passed = -((began_ns - clock.monotonic_ns()) // every_ns)
            self._skipped += min(max(0, -(-late_ns // every_ns)), passed)
        until_ns = clock.monotonic_ns() + following_ns - now_ns
        while not self._closed and clock.monotonic_ns() < until_ns:
            clock.wait(self._alarm, until_ns)
        return following_ns


@overload
def polling(
    fn: Callable[[], Arrived[R] | None],
    every: IntervalLike,
    *,
    unit: TimeUnit | None = ...,
    on_failure: OnFault = ...,
    clock: Clock | None = ...,
) -> Polling[R]: ...
@overload
def polling(
    fn: Callable[[], R | None],
    every: IntervalLike,
    *,
    unit: TimeUnit | None = ...,
    on_failure: OnFault = ...,
    clock: Clock | None = ...,
) -> Polling[R]: ...
def polling(
    fn: Callable[[], Any],
    every: IntervalLike,
    *,
    unit: TimeUnit | None = None,
    on_failure: OnFault = OnFault.SKIP,
    clock: Clock | None = None,
) -> Polling[Any]:
    """A source that calls a function again and again, such as one of psutil, or a request.

    ::

        source = polling(lambda: {"cpu": psutil.cpu_percent()}, every="1s")

    It is polled at once, and then at the multiples of the interval since the Unix epoch, or as long
    after them as its ``offset`` says, by the wall clock, without drift. A row's timestamp is when
    its poll began. A poll that takes longer than the interval is followed by the next one on the
    grid; those in between are left out and counted, for what they would have found is gone.

    :param fn: what to call; it returns a row, or None if there is nothing new; or :class:`Arrived`,
        which has a timestamp of its own
    :param every: how often: a TaskInterval, a timedelta, or a text such as ``"1s"``
    :param unit: the unit of the timestamps; None: that of the TaskInterval; of a timedelta or text,
        that of the data which the rows enter in a pipeline, or else seconds, or the longest shorter
        unit that holds it
    :param on_failure: what to do if ``fn`` raises
    :param clock: where to read the time, and wait for it; None: the machine's
    :raises ConfigError: if one of these cannot be
    """
    given = SystemClock() if clock is None else check_clock(clock)
    return Polling(fn, every, unit, on_failure, given)
