"""Which windows of the readers of some data have been given, and so which rows come too late, and
which come in time for a window before the first one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from run_task.data import TimeSeries
from run_task.pipeline._edges import Edges
from run_task.pipeline._unseen import UnseenRows
from run_task.runner._window_grid import WindowGrid

_NEVER: Final = float("inf")

_MOST_GAPS: Final = 1024
"""How many runs of missed windows are known of a stage: of those before, rows count as late."""


class ReaderWindows:
    """The windows of one stage that have been given.

    Times are in nanoseconds since the Unix epoch. A window is given once it has its view of the
    data, or is skipped since it is empty.

    :param windows: which there are
    :param holds_end: whether a window holds the rows that are stamped with its end
    :param edges: with which of them the stage begins; None: with the first
    """

    __slots__ = ("edges", "first_ns", "floor_ns", "gaps", "holds_end", "last_ns", "windows")

    def __init__(self, windows: WindowGrid, *, holds_end: bool, edges: Edges | None = None) -> None:
        self.windows: WindowGrid = windows
        self.edges: Edges | None = edges
        self.holds_end: bool = holds_end
        self.first_ns: float = -_NEVER
        """The start of the first window; before it is known, before all times."""
        self.floor_ns: float = -_NEVER
        """Rows before this are late for no window: the first one began where it was asked to."""
        self.last_ns: float = -_NEVER
        """The end of the last window that was given; before that, the start of the first."""
        self.gaps: deque[tuple[float, float]] = deque(maxlen=_MOST_GAPS)
        """From when to when there was no window, since those of that time were missed."""

    @property
    def bound_ns(self) -> float:
        """Rows of this time or later are in no window that was given."""
        return self.last_ns + self.holds_end

    @property
    def is_gapless(self) -> bool:
        """Whether every row that lies between the first and the last window is in one."""
        return not self.gaps and self.windows.cover_time

    @property
    def leads_until_ns(self) -> float:
        """Rows of this time or later open no window that is given only if it holds a row."""
        edges = self.edges
        if edges is None or self._next_ns(edges) >= edges.given_from_ns:
            return -_NEVER
        return edges.given_from_ns + self.holds_end

    def open(self, at_ns: int) -> None:
        """A row is there to be seen, which may open such a window.

        :param at_ns: its time, as if windows held their start, and not their end
        """
        if self.edges is not None:
            self.edges.note(at_ns, self._next_ns(self.edges))

    def _next_ns(self, edges: Edges) -> int:
        """The end of the first window that has not been given."""
        if self.last_ns == -_NEVER:
            return edges.first_ns
        return max(edges.first_ns, self.windows.after_ns(self.last_ns))

    def holds(self, time_ns: int) -> bool:
        """Whether a row is in a window that was given, or before all of them."""
        at = time_ns - self.holds_end  # as if windows held their start, and not their end
        if not self.floor_ns <= at < self.last_ns:
            return False
        if at < self.first_ns:
            return True
        if any(start <= at < end for start, end in self.gaps):
            return False
        return self.windows.cover_time or self.windows.hold_ns(at)


class GivenWindows:
    """The windows over some data that have been given to those who read it.

    :param data: the data

    :ivar lock: held while a row enters data of which views can be taken at any moment, and while
        such a view is taken. So a row is in the view of a window, or late for it, and never neither
    """

    def __init__(self, data: object = None) -> None:
        self._evicting = data if isinstance(data, TimeSeries) and data.retention else None
        # Of each who lets rows enter, and how many nanoseconds the unit of its timestamps has.
        self._unseen: list[tuple[UnseenRows, int]] = []
        self.lock: Final = threading.Lock()
        self.horizon_ns: float = -_NEVER
        """Rows of this time or later are late for no window."""
        self.leads_until_ns: float = -_NEVER
        """Rows of this time or later open no window that ended before the first row's begins."""
        self.look_ns: float = -_NEVER
        """Rows of this time or later are neither late, nor do they open a window."""
        self._readers: list[ReaderWindows] = []

    def add(self, reader: ReaderWindows) -> None:
        """Take the windows of one more reader into account."""
        with self.lock:
            self._readers = [*self._readers, reader]
            self._look()

    def remove(self, reader: ReaderWindows) -> None:
        """Take the windows of a reader into account no more."""
        with self.lock:
            self._readers = [other for other in self._readers if other is not reader]
            self.horizon_ns = max((other.bound_ns for other in self._readers), default=-_NEVER)
            self._look()

    def begin(self, reader: ReaderWindows, start_ns: int, *, explicit: bool = False) -> None:
        """The first window of a reader is known.

        :param start_ns: its start
        :param explicit: whether it begins where somebody wanted it to: rows before are not late
        """
        with self.lock:
            reader.first_ns = start_ns
            reader.last_ns = max(reader.last_ns, start_ns)
            if explicit:
                reader.floor_ns = start_ns
            self.horizon_ns = max(self.horizon_ns, reader.bound_ns)
            self._look()

    def note(self, reader: ReaderWindows, start_ns: float, end_ns: float) -> None:
        """A window is given: it is to have its view right after this, or has it. Under the lock."""
        if self._unseen:
            self._settle(end_ns + reader.holds_end)
        if start_ns > reader.last_ns > -_NEVER and (
            reader.windows.cover_time or reader.windows.after_ns(reader.last_ns) < end_ns
        ):
            reader.gaps.append((reader.last_ns, start_ns))
        reader.last_ns = end_ns
        bound_ns = end_ns + reader.holds_end
        if bound_ns > self.horizon_ns:
            self.horizon_ns = self.look_ns = bound_ns
        if self.leads_until_ns != -_NEVER:
            self._look()

    def _look(self) -> None:
        self.leads_until_ns = max(
            (reader.leads_until_ns for reader in self._readers), default=-_NEVER
        )
        self.look_ns = max(self.horizon_ns, self.leads_until_ns)

    def enter(self, time_ns: int, *, stored: bool) -> bool:
        """A row has come that is older than :attr:`look_ns`. Under the lock, where the view of a
        window is taken under it.

        :param time_ns: its time
        :param stored: whether it is there to be seen
        :return: whether it is late
        """
        if stored and time_ns < self.leads_until_ns:
            self._open(time_ns)
        return time_ns < self.horizon_ns and self.is_late(time_ns)

    def enter_all(self, times: NDArray[np.int64], unit_ns: int) -> None:
        """Rows are there to be seen, which may open windows before the first row's. Under the lock.

        :param times: their timestamps
        :param unit_ns: how many nanoseconds their unit has
        """
        if self.leads_until_ns != -_NEVER:
            for time in np.unique(times[_before(times, self.leads_until_ns, unit_ns)]).tolist():
                self._open(time * unit_ns)

    def enter_results(self, end_ns: int) -> None:
        """Results are there to be seen, and may open such windows.

        :param end_ns: the end of their window
        """
        if self.leads_until_ns != -_NEVER:
            with self.lock:
                for reader in self._readers:
                    reader.open(end_ns - 1)
                self._look()

    def _open(self, time_ns: int) -> None:
        for reader in self._readers:
            reader.open(time_ns - reader.holds_end)
        self._look()

    def restore(
        self,
        reader: ReaderWindows,
        first_ns: float,
        floor_ns: float,
        last_ns: float,
        gaps: Iterable[tuple[float, float]],
    ) -> None:
        """The windows of a reader were given by an earlier run, as its attributes said then."""
        with self.lock:
            reader.first_ns, reader.floor_ns, reader.last_ns = first_ns, floor_ns, last_ns
            reader.gaps.extend(gaps)
            self.horizon_ns = max(self.horizon_ns, reader.bound_ns)
            self._look()

    def take_back(self, reader: ReaderWindows, start_ns: float, end_ns: float) -> None:
        """A window was noted, and is not given after all: no row is late for it."""
        with self.lock:
            # What windows hold that overlap is held by others, too, of which one may be given.
            if reader.windows.overlap_ns == 0:
                reader.gaps.append((start_ns, end_ns))

    def unseen(self, unit_ns: int) -> UnseenRows | None:
        """What rows are noted in that enter the data: no window has seen them yet. None: where all
        rows stay, there is no need to.

        :param unit_ns: how many nanoseconds the unit of their timestamps has
        """
        if self._evicting is None:
            return None
        unseen = UnseenRows(self.settle)
        self._unseen.append((unseen, unit_ns))
        return unseen

    def saw(self, reader: ReaderWindows, end_ns: int) -> None:
        """Windows are given, and nothing that entered by then, or enters before the next one is
        noted, passed out before one of them saw it. Under the lock.

        :param end_ns: the end of the last of them
        """
        for unseen, unit_ns in self._unseen:
            unseen.saw(_first_from(end_ns + reader.holds_end, unit_ns))

    def settle(self) -> None:
        """Count the rows that have passed out and that no window has seen. Under the lock."""
        self._settle(None)

    def _settle(self, bound_ns: float | None) -> None:
        assert self._evicting is not None
        kept = self._evicting.view().time
        for unseen, unit_ns in self._unseen:
            unseen.settle(kept, None if bound_ns is None else _first_from(bound_ns, unit_ns))

    def is_late(self, time_ns: int) -> bool:
        """Whether a window that was given would have held a row of this time."""
        return any(reader.holds(time_ns) for reader in self._readers)

    def count_late(self, times: NDArray[np.int64], unit_ns: int) -> int:
        """Of how many rows :meth:`is_late` is true.

        :param times: the timestamps of rows
        :param unit_ns: how many nanoseconds their unit has
        """
        return 0 if (late := self.late(times, unit_ns)) is None else int(np.count_nonzero(late))

    def late(self, times: NDArray[np.int64], unit_ns: int) -> NDArray[np.bool_] | None:
        """Of which rows :meth:`is_late` is true; None: of none.

        :param times: the timestamps of rows
        :param unit_ns: how many nanoseconds their unit has
        """
        if not len(times) or int(times.min()) * unit_ns >= self.horizon_ns:
            return None
        late: NDArray[np.bool_] = np.zeros(len(times), np.bool_)
        for reader in self._readers:
            if reader.bound_ns == -_NEVER:
                continue
            held = _before(times, reader.bound_ns, unit_ns)
            if reader.floor_ns != -_NEVER:
                held &= ~_before(times, reader.floor_ns + reader.holds_end, unit_ns)
            if not reader.is_gapless:
                for position in np.flatnonzero(held & ~late).tolist():
                    held[position] = reader.holds(int(times[position]) * unit_ns)
            late |= held
        return late if late.any() else None


def _before(times: NDArray[np.int64], bound_ns: float, unit_ns: int) -> Any:
    """Which timestamps lie before a time."""
    return times < _first_from(bound_ns, unit_ns)


def _first_from(bound_ns: float, unit_ns: int) -> int:
    """The first timestamp that does not lie before a time."""
    return -(-int(bound_ns) // unit_ns)
