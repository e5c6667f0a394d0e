"""The points in time that a replay begins and ends at."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

import numpy as np

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.pipeline._stage import AnyStage
from run_task.time._moment import InvalidTime, TimeLike, nanos


def span(
    start: TimeLike | None, end: TimeLike | None, stages: Iterable[AnyStage]
) -> tuple[float, float]:
    """From when to when a replay goes, in nanoseconds since the Unix epoch.

    :param start: as for :func:`instant`; None: from ever
    :param end: the same; None: for ever
    :param stages: the stages
    :raises ConfigError: if it is not clear which points in time these are, or the start is after
        the end
    """
    start_ns, end_ns = instant(start, stages, -math.inf), instant(end, stages, math.inf)
    if start_ns > end_ns:
        raise ConfigError(
            f"start={_told(start)} is after end={_told(end)}, and no window lies between them: "
            f"give the earlier one as the start"
        )
    return start_ns, end_ns


def _told(given: TimeLike | None) -> str:
    return str(given) if isinstance(given, (datetime, np.datetime64)) else brief(given)


def instant(given: TimeLike | None, stages: Iterable[AnyStage], default: float) -> float:
    """A point in time, in nanoseconds since the Unix epoch.

    :param given: a datetime with a time zone, a ``numpy.datetime64``, or an int in the unit of the
        stages' intervals
    :param stages: the stages
    :param default: what None stands for
    :raises ConfigError: if it is not clear which point in time that is
    """
    if given is None:
        return default
    # The NaT of pandas is a datetime that equals nothing, and has no offset to ask for.
    if isinstance(given, datetime) and given == given and given.utcoffset() is None:
        raise ConfigError(f"{given!r} has no time zone: give it one, such as datetime.UTC")
    units = {stage.interval.unit for stage in stages}
    told = ", ".join(sorted(unit.name.lower() for unit in units))
    if type(given) is int and len(units) > 1:
        raise ConfigError(
            f"{brief(given)}: a time is a datetime, or an int where all stages have one unit; here "
            f"they are in {told}"
        )
    try:
        return nanos(given, units.pop())
    except InvalidTime as invalid:
        raise ConfigError(
            f"{brief(given)}: a time is a datetime, or an int where all stages have one unit; here "
            f"they are in {told}: {invalid}"
        ) from None
