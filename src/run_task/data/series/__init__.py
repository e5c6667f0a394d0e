"""Columns that grow in the order of time."""

from run_task.data.series._closed import Closed
from run_task.data.series._keyed_view import KeyView
from run_task.data.series._texts import EncodedTexts
from run_task.data.series._timeseries import TimeSeries
from run_task.data.series._view import TimeSeriesView

__all__ = [
    "Closed",
    "EncodedTexts",
    "KeyView",
    "TimeSeries",
    "TimeSeriesView",
]
