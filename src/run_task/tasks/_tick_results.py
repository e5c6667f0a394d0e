"""What is known of one tick, whatever its results are kept by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from run_task._window import Due, Window
from run_task.errors import ConfigError, TaskError
from run_task.time._calendar import Interval
from run_task.time._shown import moment_of, window_shown

NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


class TickResults:
    """The window of a tick, how late it was, and how long it took.

    What a :class:`~run_task.DataSet` and a :class:`~run_task.KeyedDataSet` have in common.
    """

    __slots__ = ("_behind", "_due", "_errors", "_interval", "_took")

    _due: Due
    _behind: Sequence[str]
    _errors: Mapping[Any, TaskError]
    _took: float
    _interval: Interval | None  # given by the runner that delivers it; before that, it has none

    @property
    def behind(self) -> Sequence[str]:
        """Who gave nothing for this window, or for results of other stages that it holds: stages of
        a pipeline that failed, or took too long to be waited for, by their names, and shards that
        were away, as ``shard 3 of 8``."""
        return self._behind

    @property
    def took(self) -> float:
        """How long the tasks took together, in seconds: from the first one's start to the last
        one's end."""
        return self._took

    @property
    def window(self) -> Window:
        """The window that was computed, in the interval's unit since the Unix epoch."""
        # In half of the time.
        return tuple.__new__(Window, self._due[:2])  # pyright: ignore[reportUnknownMemberType]  as of Tick

    @property
    def timestamp(self) -> int:
        """The end of the window, in the interval's unit since the Unix epoch."""
        return self._due[1]

    @property
    def interval(self) -> Interval | None:
        """The interval whose window it is, with the unit of its times; None: nobody knows, as of
        one that was made by hand."""
        return getattr(self, "_interval", None)

    @property
    def start_time(self) -> datetime:
        """The start of the window, in the interval's time zone or else in UTC; less than a
        microsecond is dropped.

        :raises ConfigError: if its interval is not known
        :raises OverflowError: if it is beyond the years that a datetime has
        """
        return self._moment(self._due[0])

    @property
    def end_time(self) -> datetime:
        """The end of the window: :attr:`timestamp`, as :attr:`start_time` tells it.

        :raises ConfigError: if its interval is not known
        :raises OverflowError: if it is beyond the years that a datetime has
        """
        return self._moment(self._due[1])

    def _moment(self, timestamp: int) -> datetime:
        interval = self.interval
        if interval is None:
            raise ConfigError(
                f"nobody said what the times of {self} count: give it its interval, "
                f"DataSet(window, ..., interval=TaskInterval.seconds(60))"
            )
        return moment_of(timestamp, interval)

    @property
    def lateness(self) -> float:
        """How long after the window's end (and grace) the tick began, in seconds."""
        return self._due[2] / 1e9

    def error_list(self) -> Sequence[TaskError]:
        """All errors, of whatever task and key."""
        self._tell_windows()
        return tuple(self._errors.values())

    def _tell_windows(self) -> None:
        """Let errors of this window say it by its times, where these are known."""
        if self._errors and (interval := self.interval) is not None:
            window = self.window
            for error in self._errors.values():
                if error.window == window:
                    error.show_windows(partial(window_shown, interval=interval))
