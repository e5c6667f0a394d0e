"""Data that changes while tasks read it."""

from run_task._public import present as _present
from run_task.columnar._any_frame import AnyFrame
from run_task.data._atom import Atom
from run_task.data._block import Allocate, Block
from run_task.data._buckets import bucket_of
from run_task.data._protocol import (
    Access,
    Generational,
    Relocatable,
    Shared,
    Versioned,
    Viewable,
    Windowed,
    Writable,
)
from run_task.data._rwlock import LockStats, RwLock
from run_task.data.series import Closed, EncodedTexts, KeyView, TimeSeries, TimeSeriesView

__all__ = [
    "Access",
    "Allocate",
    "AnyFrame",
    "Atom",
    "Block",
    "Closed",
    "EncodedTexts",
    "Generational",
    "KeyView",
    "LockStats",
    "Relocatable",
    "RwLock",
    "Shared",
    "TimeSeries",
    "TimeSeriesView",
    "Versioned",
    "Viewable",
    "Windowed",
    "Writable",
    "bucket_of",
]

_present(globals())
