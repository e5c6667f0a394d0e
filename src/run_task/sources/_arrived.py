"""Rows that say when they came."""

from __future__ import annotations

from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeGuard, TypeVar

import numpy as np

from run_task.time._interval import TimeUnit
from run_task.time._moment import TimeLike, nanos, timestamp
from run_task.time._wall_time import WallClock

_NANOS: Final[np.dtype[Any]] = np.dtype("M8[ns]")

R_co = TypeVar("R_co", covariant=True)


class Arrived(NamedTuple, Generic[R_co]):
    """A row with the time at which it came, which a source may give in the place of
    ``(timestamp, row)``::

        def recorded():
            for line in log:
                yield Arrived(line.measured, {"value": line.value}, line.received)

    A replay, a resume, and a live run of a recording that :func:`paced` plays take such a row as if
    it came at that time: it is late, ahead or expired where it was so when it came live. In a live
    run of any other source a row comes when it comes, and the time that stands there is not used.

    Rows come in the order in which a source gives them. So one whose arrival is before that of the
    row before it came together with that one. A plain ``(timestamp, row)`` among them came at its
    own timestamp or, if it is out of order, together with the row before it. A row that came before
    its own timestamp enters then, unless it is ahead by more than the ``max_ahead`` of the source,
    and holds up none of the others.
    """

    timestamp: TimeLike
    """The row's own time: an int in the unit of the source, an aware datetime, or a
    ``numpy.datetime64``."""

    row: R_co
    """The row, as in ``(timestamp, row)``."""

    arrival: TimeLike
    """When it came: as the timestamp, of which it may be finer than the unit."""


Stamped: TypeAlias = tuple[TimeLike, R_co] | Arrived[R_co]
"""A row as a source gives it: with its timestamp, and, if that is known, when it came."""


def is_arrived(item: object) -> TypeGuard[Arrived[Any]]:
    """Whether what a source gave says when it came."""
    return isinstance(item, Arrived)


def arrival_ns(item: Arrived[Any], unit: TimeUnit, clock: WallClock | None = None) -> int:
    """When a row came, in nanoseconds since the Unix epoch.

    :param unit: the unit of ints
    :param clock: what shows a time that names no zone; None: nothing does
    :raises InvalidTime: if that is no time, or 64 bits of the unit do not hold it
    """
    if type(item.arrival) is np.datetime64 and item.arrival.dtype == _NANOS:  # of a journal
        exact: Any = item.arrival.item()
        if type(exact) is int:
            return exact
    timestamp(item.arrival, unit, clock)
    return nanos(item.arrival, unit, clock)
