"""What has changed in a series since somebody looked, by the positions of its rows.

A position counts from the first row that there ever was; a late row, which goes to its place, moves
those behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from run_task.data.series._view import TimeSeriesView

_END: Final = 2**63


@dataclass(frozen=True, slots=True)
class Grown:
    """The rows of a series, and which of them were there before."""

    view: TimeSeriesView
    first: int
    """The position of the first row of the view."""
    same_until: int
    """Rows before this position are those that were there when somebody looked last."""

    @property
    def stop(self) -> int:
        """The position after the last row."""
        return self.first + len(self.view)


class Growth:
    """Where the rows of a series' store are among all that there ever were."""

    __slots__ = ("_changed_from", "begin")

    def __init__(self) -> None:
        self.begin: int = 0
        """The position of the first row of the store."""
        self._changed_from = 0

    def moved(self, rows: int) -> None:
        """The rows of the store begin so many later."""
        self.begin += rows

    def changed(self, row: int) -> None:
        """The rows of the store have changed from this one on."""
        self._changed_from = min(self._changed_from, self.begin + row)

    def look(self, length: int) -> int:
        """Before which position nothing has changed since this was asked last.

        :param length: how many rows of the store there are now
        """
        same_until = min(self._changed_from, self.begin + length)
        self._changed_from = self.begin + length
        return same_until

    def restart(self, begin: int, length: int) -> None:
        """The store has other rows now, which are as somebody knows them.

        :param begin: the position of the first
        :param length: how many there are
        """
        self.begin = begin
        self._changed_from = begin + length
