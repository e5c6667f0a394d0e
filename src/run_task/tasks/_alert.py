"""Alerts: tasks whose result changes once a condition has held for long enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.tasks._call import misfit
from run_task.tasks._stateful import StatefulTask
from run_task.tasks._task import Runnable
from run_task.time._interval import TaskInterval, TimeUnit
from run_task.time._length import IntervalLike, plain_length

I = TypeVar("I")


class Alert(NamedTuple):
    """Whether an alert is on, and since when. It is true if it is on.

    The window that ends at :attr:`since` is the one in which it changed: whoever tells people of
    alerts tells them of that window, and of no other.
    """

    on: bool
    """Whether it is on."""
    since: int | None
    """The end of the window with which that began, in the unit of the stage's interval since the
    Unix epoch; None: it was never on."""

    def __bool__(self) -> bool:
        return self.on


class AlertState(NamedTuple):
    """What an alert knows of the windows before.

    :param on: whether it is on
    :param since: the end of the window in which it changed
    :param pending: the end of the first window of those without a gap in which it was to change
    """

    on: bool = False
    since: int | None = None
    pending: int | None = None


WhenLike: TypeAlias = Callable[[I, int, int], object] | Runnable[I, object]
"""A function of the data, the start and the end of a window, or a task: what it gives is taken as
true or false."""


@runtime_checkable
class CountsTime(Protocol):
    """A task that counts lengths of time in the unit of its windows."""

    def count_in(self, unit: TimeUnit) -> None:
        """Take note of that unit. It is told when it is declared.

        :raises ConfigError: if it was told another one before
        """
        ...


class _AlertStep:
    """What an alert does in a window.

    :param when: whether it is to be on
    :param until: whether it is to be off again; None: if it is not to be on
    """

    # Without a __dict__, which functools.update_wrapper would copy into the task.
    __slots__ = ("hold", "unit", "until", "when")

    def __init__(
        self,
        when: Callable[[Any, int, int], object],
        until: Callable[[Any, int, int], object] | None,
    ) -> None:
        self.when = when
        self.until = until
        self.hold = 0  # how long it has to hold, in the unit of the windows
        self.unit: TimeUnit | None = None

    def __call__(
        self, data: Any, start: int, end: int, state: AlertState
    ) -> tuple[Alert, AlertState]:
        on, since, pending = state
        if not on:
            changes = bool(self.when(data, start, end))
        elif self.until is None:
            changes = not self.when(data, start, end)
        else:
            changes = bool(self.until(data, start, end))
        if not changes:
            pending = None
        else:
            pending = end if pending is None else pending
            if end - pending >= self.hold:
                on, since, pending = not on, end, None
        return Alert(on, since), AlertState(on, since, pending)

    def __reduce__(self) -> tuple[Any, ...]:
        return _step, (self.when, self.until, self.hold, self.unit)


def _step(when: Any, until: Any, hold: int, unit: TimeUnit | None) -> _AlertStep:
    made = _AlertStep(when, until)
    made.hold, made.unit = hold, unit
    return made


class AlertTask(StatefulTask[I, Alert, AlertState]):
    """An alert as a task: :func:`alert` makes one."""

    def __init__(self, step: _AlertStep, hold: TaskInterval | None, name: str) -> None:
        super().__init__(step, AlertState, name)
        self._counting: Final = step
        self._hold: Final = hold

    def count_in(self, unit: TimeUnit) -> None:
        """Take note of the unit of the windows."""
        step = self._counting
        if step.unit not in (None, unit):
            raise ConfigError(
                f"alert {self.name!r}: it is a task of windows in {step.unit.name.lower()}, and "
                f"these are in {unit.name.lower()}: make another one for them"
            )
        step.unit = unit
        step.hold = 0 if self._hold is None else -(-self._hold.nanos // unit.nanos)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._counting, self._hold, self.name)

    def __repr__(self) -> str:
        return f"<Alert {self.name!r}>"


def alert(
    when: WhenLike[I],
    until: WhenLike[I] | None = None,
    hold: IntervalLike | None = "30s",
    *,
    name: str | None = None,
) -> StatefulTask[I, Alert, AlertState]:
    """Make a task that is an alert: it goes on once a condition has held for some time, and off
    once another one has. By key, each key has one of its own.

    ::

        too_hot = alert(lambda view, start, end: view.in_window["celsius"].max() > 80, hold="1m")

    A condition has held once it was true in each window from one to another that ends ``hold``
    later, as with Prometheus' ``for``. A window in which it raises is as one that was not there.
    The result changes with that window, and is the same until it changes again.

    :param when: whether it is to go on: a function of the data, the start and the end of the
        window, or a task
    :param until: whether it is to go off again; None: where ``when`` is false. With another
        threshold, such as ``> 80`` and ``< 75``, a value close to one of them switches it once
    :param hold: how long either has to be true, by the ends of windows; None: a window is enough
    :param name: what the task is called; None: as the function, or ``"alert"``
    :raises ConfigError: if something about it cannot work
    """
    conditions: list[Callable[[Any, int, int], object]] = []
    for which, condition in (("when", when), ("until", until)):
        if condition is None:
            continue
        run: Any = getattr(condition, "run", condition)
        if not callable(run):
            raise ConfigError(
                f"alert({which}={brief(condition)}): it is a function of (data, start, end), or a "
                f"task"
            )
        if problem := misfit(run, None, 0, 0):
            raise ConfigError(
                f"alert({which}={brief(condition)}): it cannot be called with (data, start, end): "
                f"{problem}"
            )
        conditions.append(run)
    if not conditions:
        raise ConfigError("alert(when=None): it is a function of (data, start, end), or a task")
    if name is None:
        given = getattr(when, "name", None) or getattr(when, "__name__", None)
        name = given if isinstance(given, str) and given.isidentifier() else "alert"
    length = None if hold is None else plain_length(hold, "alert(hold={})")
    return AlertTask(
        _AlertStep(conditions[0], conditions[1] if until is not None else None), length, name
    )
