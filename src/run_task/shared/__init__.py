"""Data that changes while tasks read it."""

from run_task.shared.atom import Atom
from run_task.shared.block import Allocate, Block
from run_task.shared.protocol import Access, Relocatable, Shared, Versioned, Viewable, Writable
from run_task.shared.rwlock import RwLock
from run_task.shared.timeseries import TimeSeries
from run_task.shared.view import TimeSeriesView

__all__ = [
    "Access",
    "Allocate",
    "Atom",
    "Block",
    "Relocatable",
    "RwLock",
    "Shared",
    "TimeSeries",
    "TimeSeriesView",
    "Versioned",
    "Viewable",
    "Writable",
]
