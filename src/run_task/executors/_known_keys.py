"""The keys that have had rows of late."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from run_task.data.series._keyed_view import KeyedView


class KnownKeys:
    """The keys that have had rows of late, and when each had its last.

    :param idle: how long after its last row a key is forgotten, in the unit of the rows
    :param last: those to begin with, each with the time of its last row
    """

    __slots__ = ("_idle", "_last")

    def __init__(self, idle: int, last: Mapping[Any, int] = {}) -> None:  # it is copied
        self._idle = idle
        self._last: dict[Any, int] = dict(last)

    @property
    def last(self) -> Mapping[Any, int]:
        """The keys as they are now, each with the time of its last row."""
        return dict(self._last)

    @property
    def keys(self) -> Collection[Any]:
        """The keys."""
        return self._last.keys()

    def note(self, view: KeyedView) -> Collection[Any]:
        """Note the rows of a window.

        :return: the keys that had no row for so long, up to their next one, or up to the end of
            the window if that has none: they are forgotten, or begin anew
        """
        last, end = self._last, view.window[1]
        oldest = end - self._idle
        quiet = {key: time for key, time in last.items() if time < oldest}
        forgotten: Collection[Any] = ()
        if quiet:
            next_times = view.next_times(quiet)
            forgotten = [
                key for key, time in quiet.items() if time < next_times.get(key, end) - self._idle
            ]
        for key in forgotten:
            del last[key]
        for key, time in view.last_times():
            last[key] = max(time, last.get(key, time))
        return forgotten
