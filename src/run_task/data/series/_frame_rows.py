"""The rows of a frame of another library, as those of a series."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any

from run_task.columnar import _frame_columns as of_frame
from run_task.columnar._frame import Frame, reading
from run_task.data.series._column_types import Array
from run_task.data.series._schema import NewRows, Schema
from run_task.errors import ConfigError
from run_task.time._wall_time import WallClock


def rows_of(
    given: Any,
    schema: Schema,
    *,
    timestamp: str | None = None,
    zone: str | tzinfo | None = None,
    **others: object,
) -> NewRows:
    """All rows of a frame.

    :param given: the frame
    :param schema: the columns of the series
    :param timestamp: the column of the times; None: it is found
    :param zone: what times mean that name no time zone; None: what the series says
    :param others: what has no place here
    :raises ConfigError: if they do not fit the series, or one of them does not; it names the
        column, and the row
    """
    frame = Frame.of(given, f"extend({type(given).__name__})")
    for name in others:
        raise ConfigError(
            f"{frame.shown}: {name}= is given beside a frame, whose columns are all that is added: "
            f"put it into the frame, or give times and columns"
        )
    clock = schema.clock if zone is None else WallClock(zone)
    time = frame.time_column(timestamp, schema.names)
    names = frame.value_columns(time, schema.positions)
    frame.check_fit(names, {column.name: column.dtype for column in schema.columns})
    frame.check_time(time, zone_told=clock is not None)
    table = frame.table([time, *names])
    arrays: list[Array] = []
    with reading(frame.shown):
        times, faults = of_frame.times(table[time], schema.unit, clock)
        _raise_first(frame, time, faults)
        for column in schema.columns:
            array, faults = of_frame.values(table[column.name], column.dtype)
            _raise_first(frame, column.name, faults)
            arrays.append(array)
    return NewRows(times, schema.fitted(times, arrays), 0)


def _raise_first(frame: Frame, name: str, faults: Any) -> None:
    if faults:
        row = min(faults)
        raise ConfigError(
            f"{frame.shown}: column {name!r}, row {row}: {faults[row]}; nothing was stored"
        )
