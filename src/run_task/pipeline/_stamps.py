"""What sources give, as rows whose timestamps are ints."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

import numpy as np

from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.pipeline._fates import Fate, Fates, Tally
from run_task.sources._arrived import Arrived, arrival_ns, is_arrived
from run_task.sources._batch import Batch
from run_task.time._interval import TimeUnit
from run_task.time._moment import InvalidTime, timestamp, timestamps
from run_task.time._unit_check import likely_unit
from run_task.time._wall_time import DAY_NS, WallClock

_FIRST_YEAR: Final = 1_000
_LAST_YEAR: Final = 8_999
_FIRST_NS: Final = (date(_FIRST_YEAR, 1, 1) - date(1970, 1, 1)).days * DAY_NS
_STOP_NS: Final = (date(_LAST_YEAR + 1, 1, 1) - date(1970, 1, 1)).days * DAY_NS
"""Rows of a pipeline with a calendar: it has the years from 1 to 9999, and windows, and those that
are fed by them, may reach further than the rows."""


class Stamps:
    """Gives the rows of one source their timestamps, for one thread.

    :param unit: the unit of the timestamps
    :param clock: what a time means that names no zone; None: it is refused
    :param fates: told of rows of a batch that are malformed
    :param tally: counts those as received
    :param years: whether a calendar is to tell their times, which has the years from 1 to 9999
    """

    def __init__(
        self, unit: TimeUnit, clock: WallClock | None, fates: Fates, tally: Tally, *, years: bool
    ) -> None:
        self._unit = unit
        self._clock = clock
        self._fates = fates
        self._tally = tally
        self._within = range(_FIRST_NS // unit.nanos, _STOP_NS // unit.nanos) if years else None
        self.takes_any_int: bool = not years
        """Whether every int of 64 bits is a timestamp."""

    def row(self, item: Any) -> tuple[int, Any]:
        """What a source gave, as a row.

        :raises ConfigError: if it is no ``(timestamp, row)``, nor :class:`Arrived`
        """
        if issubclass(item.__class__, tuple) and len(item) == 2:
            time, row = item
        elif is_arrived(item):
            time, row = item.timestamp, item.row
        else:
            raise ConfigError(
                f"a source gives tuples of (timestamp, row), the timestamp an int of at most 64 "
                f"bits, or a datetime with a time zone, and not {brief(item)}"
            )
        try:
            stamp = timestamp(time, self._unit, self._clock)
        except InvalidTime as invalid:
            raise ConfigError(
                f"a source gives tuples of (timestamp, row), and not {brief(item)}: {invalid}"
            ) from None
        if self._within is not None and stamp not in self._within:
            raise ConfigError(self._beyond(stamp))
        return stamp, row

    def arrival_ns(self, item: Arrived[Any]) -> int:
        """When a row came, in nanoseconds since the Unix epoch.

        :raises ConfigError: if that is no time
        """
        try:
            return arrival_ns(item, self._unit, self._clock)
        except InvalidTime as invalid:
            raise ConfigError(
                f"the arrival of {brief(item)} is a time, as its timestamp is: {invalid}"
            ) from None

    def batch(self, batch: Batch) -> Batch:
        """A batch of such rows; one that can have no timestamp is received, and refused as
        malformed.

        :raises Exception: what such a row is refused by, if the source was declared so
        """
        batch = self._in_ints(batch)
        within = self._within
        if within is None:
            return batch
        beyond = (batch.timestamps < within.start) | (batch.timestamps >= within.stop)
        if not beyond.any():
            return batch
        for stamp, row in batch.where(beyond).rows():
            self._refuse(stamp, row, self._beyond(stamp))
        return batch.where(~beyond)

    def _in_ints(self, batch: Batch) -> Batch:
        given: Any = batch.timestamps
        if getattr(given, "dtype", None) == np.int64 and type(given) is np.ndarray:
            return batch
        try:
            return Batch(timestamps(given, self._unit, self._clock), batch.columns)
        except InvalidTime:
            pass  # it is found below which
        times: list[int] = []
        kept: list[int] = []
        for position in range(len(batch)):
            one = given[position : position + 1]
            try:
                (time,) = timestamps(one, self._unit, self._clock).tolist()
            except InvalidTime as invalid:
                row = {name: column[position] for name, column in batch.columns.items()}
                self._refuse(one[0], row, str(invalid))
            else:
                times.append(time)
                kept.append(position)
        return Batch(
            np.array(times, np.int64), {name: batch.columns[name][kept] for name in batch.columns}
        )

    def _refuse(self, time: Any, row: Any, why: str) -> None:
        self._tally.received += 1
        self._fates.refuse(Fate.MALFORMED, (time, row), ConfigError(why))

    def _beyond(self, stamp: int) -> str:
        """What a row is refused by that no calendar can tell the time of."""
        likely = likely_unit(stamp, self._unit)
        cure = "" if likely is None else f": it looks like unit=TimeUnit.{likely.name}"
        return (
            f"the timestamp {stamp} lies beyond the years {_FIRST_YEAR} to {_LAST_YEAR}, and a "
            f"stage has a calendar interval{cure}"
        )
