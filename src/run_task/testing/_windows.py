"""Windows of a context, one after the other, under a clock that does not wait."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import replace
from typing import Any, Final, TypeVar, overload

from run_task._window import Window
from run_task.errors import ChannelClosed, ConfigError
from run_task.runner._context import Context, KeyedContext
from run_task.runner._runner import Runner
from run_task.runner._window_grid import windows_of
from run_task.sync._channel import Receiver, Sender, channel
from run_task.sync._waiting import Deadline
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import KeyedDataSet
from run_task.time._clock import VirtualClock
from run_task.time._moment import InvalidTime, TimeLike, nanos

I = TypeVar("I")
O = TypeVar("O")

_LOOK_AGAIN: Final = 0.01
"""After how many seconds without a DataSet it is seen whether the window was left out."""

DEFAULT_TIMEOUT: Final = 10.0
"""How many seconds a window may take."""


@overload
def run_windows(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]  a KeyedContext is a Context with other results
    context: KeyedContext[I, O],
    n: int,
    *,
    start: TimeLike = 0,
    before: Callable[[Window], object] | None = None,
    states: MutableMapping[str, Any] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> list[KeyedDataSet[Any, O]]: ...
@overload
def run_windows(
    context: Context[I, O],
    n: int,
    *,
    start: TimeLike = 0,
    before: Callable[[Window], object] | None = None,
    states: MutableMapping[str, Any] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> list[DataSet[O]]: ...
def run_windows(
    context: Context[Any, Any],
    n: int,
    *,
    start: TimeLike = 0,
    before: Callable[[Window], object] | None = None,
    states: MutableMapping[str, Any] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Any:
    """Run a context for so many windows, as a runner does, but without waiting for the time.

    ::

        def rows(window: Window) -> None:
            series.append(window.start, price=100.0)

        datasets = run_windows(context, 3, start=1_700_000_000, before=rows)

    Tasks that fail stand in the errors of their DataSet, or, with ``OnError.RAISE``, are raised.
    The context's sender is neither used nor closed, so the context can be run again.

    :param context: what to run
    :param n: how many windows
    :param start: a time within the first of them: an int in the interval's unit since the Unix
        epoch, an aware datetime, or a ``numpy.datetime64``
    :param before: called with each window before its tasks see the data, to change that
    :param states: the states that tasks begin with, by task name, with keys a mapping of key to
        state each; it is given those after the last window. None: they begin with their first
    :param timeout: how many seconds a window may take
    :return: the DataSet of each window, in order; with ``Empty.SKIP``, of each that has rows; of a
        context with keys, KeyedDataSets
    :raises ConfigError: if n or start cannot be
    :raises TimeoutError: if a window takes longer; a note says which tasks hang
    :raises TaskError: with ``OnError.RAISE``, when a task gave no result
    """
    if type(n) is not int or n < 1:
        raise ConfigError(f"run_windows(n={n!r}): it is a positive int")
    try:
        start_ns = nanos(start, context.interval.unit)
    except InvalidTime as invalid:
        raise ConfigError(
            f"run_windows(start={start!r}): it is an int, in "
            f"{context.interval.unit.name.lower()} since the Unix epoch, or a datetime: {invalid}"
        ) from None
    ends: tuple[Sender[Any], Receiver[Any]] = channel(1)
    sender, receiver = ends
    config, unit_ns = context.config, context.interval.unit.nanos
    windows = windows_of(context.interval, config.window, config.align, start_ns)
    grace_ns = config.grace_ns
    clock = VirtualClock(start_ns)
    datasets: list[Any] = []
    end = windows.first_end
    runner = Runner(replace(context, sender=sender), clock=clock)
    if states:
        runner.begin_with(states)
    with runner:
        for _ in range(n):
            n_empty = runner.stats.empty
            if before is not None:
                before(Window(windows.start(end), end))
            clock.advance_to(end * unit_ns + grace_ns)
            try:
                datasets += _given(runner, receiver, n_empty, timeout)
            except ChannelClosed:
                break  # the end of the block says why
            except TimeoutError:
                raise TimeoutError(
                    f"the window that ends at {end} was not done within {timeout} s"
                ) from None
            end = windows.after(end)
    if states is not None:
        states.update(runner.states)
    return datasets


def _given(
    runner: Runner[Any, Any], receiver: Receiver[Any], n_empty: int, timeout: float
) -> list[Any]:
    """The DataSet of a window, or none if it was left out as empty, which nothing else tells."""
    deadline = Deadline(timeout)
    while True:
        remaining = deadline.remaining()
        try:
            return [
                receiver.recv(_LOOK_AGAIN if remaining is None else min(_LOOK_AGAIN, remaining))
            ]
        except TimeoutError:
            if runner.stats.empty > n_empty:
                return []
            if deadline.passed:
                raise
