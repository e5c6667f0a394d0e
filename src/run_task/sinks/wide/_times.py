"""The times of windows that a table of timestamps holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from run_task.errors import SinkError
from run_task.sinks._protocol import Result
from run_task.time._epoch import nanos_since_epoch

FIRST_NS: Final = nanos_since_epoch(datetime(1, 1, 1, tzinfo=UTC))
LAST_NS: Final = nanos_since_epoch(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))


def check_times(result: Result, unit_ns: int, finest_ns: int) -> None:
    """See whether a table can hold the times of a window.

    :param unit_ns: how many nanoseconds the unit of the times has
    :param finest_ns: of how many nanoseconds the times are multiples there
    :raises SinkError: if it cannot
    """
    unit = result.unit
    start, end = result.window
    for name, time in (("start", start), ("end", end)):
        if not FIRST_NS <= time * unit_ns <= LAST_NS:
            raise SinkError(
                f"stage {result.stage!r}: the window's {name}, {time}, is not of the years from 1 "
                f"to 9999, which a table's timestamps have"
            )
        if finest_ns > 1 and time * unit_ns % finest_ns:
            raise SinkError(
                f"stage {result.stage!r}: the window's {name}, {time} "
                f"{'' if unit is None else unit.value}, is finer than a microsecond, which a "
                f"database's timestamps are not"
            )
