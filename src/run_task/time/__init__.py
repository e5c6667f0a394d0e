"""Units and intervals, windows, clocks, and which windows are due."""

from run_task._public import present as _present
from run_task._window import Window
from run_task.time._calendar import CalendarInterval
from run_task.time._clock import Clock, SystemClock, VirtualClock
from run_task.time._interval import TaskInterval, TimeUnit
from run_task.time._length import EveryLike, IntervalLike
from run_task.time._moment import TimeLike
from run_task.time._retry import Retry, Then
from run_task.time._schedule import MissedTick, Schedule

__all__ = [
    "CalendarInterval",
    "Clock",
    "EveryLike",
    "IntervalLike",
    "MissedTick",
    "Retry",
    "Schedule",
    "SystemClock",
    "TaskInterval",
    "Then",
    "TimeLike",
    "TimeUnit",
    "VirtualClock",
    "Window",
]

_present(globals())
