"""From which window on, and up to which, a stage runs.

A stage runs each window from the one that holds the first row to the one that holds the last, and
beyond these, at both ends, as long as they hold a row:

- **Leading.** A row that is out of order, and older than the first, belongs to a window that ends
  before the first row's begins. It is given if that row came before it was due: within its grace.
- **Trailing.** Windows that overlap hold the last row for as long as they are.

To a stage that is fed by another, the results of the other are rows of the end of their windows.

Times are in nanoseconds since the Unix epoch, and those of rows are as in data that is closed on
the left: a row that is held by the window which ends at its timestamp lies a nanosecond before it.
"""

from __future__ import annotations

import threading

from run_task.pipeline._order import NEVER
from run_task.runner._config import Align, RunnerConfig
from run_task.runner._window_grid import WindowGrid


class Edges:
    """From which window on, and up to which, one stage runs.

    :param windows: its windows
    :param config: what of it concerns their edges
    :param begun_ns: when the first row arrives, or the run begins
    :param start_ns: windows that end by then are left out
    """

    __slots__ = ("_grace_ns", "_noting", "_windows", "first_ns", "given_from_ns", "last_ns")

    def __init__(
        self,
        windows: WindowGrid,
        config: RunnerConfig,
        begun_ns: int,
        start_ns: float = -NEVER,
    ) -> None:
        self._noting = threading.Lock()  # rows enter several inputs at one time
        self._windows = windows
        self._grace_ns = config.grace_ns
        first_ns = windows.first_end_ns  # there is no window before the run begins
        given_from_ns = first_ns
        if config.align is Align.EPOCH:  # unless the grid lies where it lies
            given_from_ns = windows.after_ns(max(begun_ns, start_ns))
            first_ns = windows.after_ns(max(begun_ns - config.grace_ns, start_ns))
        self.first_ns: int = first_ns
        """The end of the first window that there may be."""
        self.given_from_ns: int = max(first_ns, given_from_ns)
        """The end of the first window that there is, as far as is known."""
        self.last_ns: float = NEVER
        """There is no window that ends after this."""

    def skip_to(self, time_ns: float) -> None:
        """Leave out the windows that end by a time."""
        self.first_ns = max(self.first_ns, self._windows.after_ns(time_ns))
        self.given_from_ns = max(self.given_from_ns, self.first_ns)

    def note(self, row_ns: float, next_ns: int) -> None:
        """A row has entered that is older than the first.

        :param row_ns: its time
        :param next_ns: the end of the first window that has not been shown the data yet
        """
        if next_ns >= self.given_from_ns:
            return
        end_ns = max(self._windows.after_ns(row_ns), next_ns)
        if self._windows.start_ns(end_ns) <= row_ns:
            with self._noting:
                self.given_from_ns = min(self.given_from_ns, end_ns)

    def limit(
        self, last_ns: float, own_ns: float, arrived_ns: float, until_ns: float = -NEVER
    ) -> None:
        """There are no more rows.

        :param last_ns: the time of the last row of all; infinitely long ago: there is none
        :param own_ns: that of the last row, or the end of the last results, that entered what the
            stage reads; infinitely long ago: there are none
        :param arrived_ns: when the last row of all arrived
        :param until_ns: windows that end by then are run in any case
        """
        windows = self._windows
        lasts: list[float] = [-NEVER]
        if last_ns != -NEVER:
            lasts.append(windows.last_fresh_at_ns(last_ns))
        if own_ns != -NEVER:
            lasts.append(windows.last_holding_ns(own_ns))
        if arrived_ns != -NEVER:
            lasts.append(windows.floor_ns(arrived_ns - self._grace_ns))
        if until_ns != -NEVER:
            lasts.append(windows.floor_ns(until_ns))
        self.last_ns = min(self.last_ns, max(lasts))

    def stop_before(self, end_ns: float) -> None:
        """Run no window in which nothing is fresh before a time."""
        if end_ns != NEVER:
            self.last_ns = min(self.last_ns, self._windows.last_fresh_at_ns(end_ns - 1))

    def stop_after(self, end_ns: float) -> None:
        """Run no window that ends after a time."""
        self.last_ns = min(self.last_ns, end_ns)

    @property
    def results_until_ns(self) -> float:
        """The time of the last results, as of a row of those who read them; it is known once there
        are no more rows."""
        if self.last_ns < self.first_ns:
            return -NEVER
        return self.last_ns - 1
