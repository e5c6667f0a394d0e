"""What a live run knows of the shared data of its pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from run_task.data import Closed, TimeSeries
from run_task.pipeline._given import GivenWindows
from run_task.pipeline._order import NEVER, Place


@dataclass(frozen=True, slots=True, eq=False)
class KnownData:
    """Shared data that is read, or entered.

    :param data: the data, which so stays where it is
    :param place: what the order has to know of it
    :param given: the windows that have been given to those who read it
    :param since_ns: from when on all that the run lets enter has entered, in nanoseconds since the
        Unix epoch
    """

    data: Any
    place: Place
    given: GivenWindows
    since_ns: float

    @property
    def whole_from_ns(self) -> float:
        """From when on all rows are there, as times of windows that hold their start; before all
        times, if the data has none."""
        series = self.data
        if not isinstance(series, TimeSeries):
            return -NEVER
        times = series.view().time
        if not len(times):
            return self.since_ns
        oldest_ns = int(times[0]) * series.unit.nanos - self.place.holds_end
        return max(min(self.since_ns, oldest_ns), kept_from_ns(series))


def kept_from_ns(series: TimeSeries) -> float:
    """From when on a series has all rows that it was given, as far as its retention tells: as times
    of windows that hold their start; before all times, if it has lost none."""
    times, unit_ns, kept = series.view().time, series.unit.nanos, series.retention
    if kept is None or not len(times):
        return -NEVER
    if isinstance(kept, int):
        holds_end = series.closed is Closed.RIGHT
        return -NEVER if len(times) < kept else int(times[0]) * unit_ns - holds_end + 1
    return int(times[-1]) * unit_ns - kept.nanos


class KnownDatas:
    """All shared data of a run, by identity."""

    def __init__(self) -> None:
        self._known: dict[int, KnownData] = {}

    def find(self, data: Any, since_ns: float) -> KnownData:
        """What is known of some data.

        :param since_ns: if it is new, from when on all has entered it
        """
        known = self._known.get(id(data))
        if known is None:
            known = KnownData(data, _place(data), GivenWindows(data), since_ns)
            self._known[id(data)] = known
        return known


def _place(data: object) -> Place:
    """What the order has to know of shared data."""
    if not isinstance(data, TimeSeries):
        return Place()
    return Place(
        bounded=True,
        evicts=data.retention is not None,
        holds_end=data.closed is Closed.RIGHT,
    )
