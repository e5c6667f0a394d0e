"""A point in time that a replay begins or ends at."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from run_task.errors import ConfigError
from run_task.pipeline._graph import AnyStage
from run_task.time._moment import InvalidTime, TimeLike, nanos


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
            f"{given!r}: a time is a datetime, or an int where all stages have one unit; here "
            f"they are in {told}"
        )
    try:
        return nanos(given, units.pop())
    except InvalidTime as invalid:
        raise ConfigError(
            f"{given!r}: a time is a datetime, or an int where all stages have one unit; here "
            f"they are in {told}: {invalid}"
        ) from None
