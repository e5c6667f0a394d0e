"""What a checkpoint holds: a cut through a pipeline, at a moment between its windows and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from run_task.data.series._growth import Grown
from run_task.pipeline._dedupe import RememberedRows
from run_task.pipeline._lacking import Lacked
from run_task.sources._arrived import Stamped
from run_task.sources._batch import Batch
from run_task.sources._positioned import Position
from run_task.tasks._stateful import StatefulTask


@dataclass(frozen=True, slots=True)
class WayCut:
    """How far one way of a source has come.

    Times are in nanoseconds since the Unix epoch; None: before all.
    """

    last_ns: float
    """The latest time of a row that was read."""
    arrived_ns: float
    """When the last one arrived."""
    pending: Sequence[Stamped[Any] | Batch] = ()
    """What was given, and had not entered."""
    early: Sequence[tuple[int, Any]] = ()
    """Rows that wait for their time."""
    seen: RememberedRows | None = None
    """Those that have entered, where such as come again are left out."""


@dataclass(frozen=True, slots=True)
class SourceCut:
    """How far a source has been read."""

    position: Position
    """Behind all that it gave; of one without positions, how many rows these were."""
    counted: bool
    """Whether it is one without positions."""
    ways: Sequence[WayCut]
    begun: bool = True
    """Whether the position is known: not if it has given nothing yet."""


@dataclass(frozen=True, slots=True)
class ReaderCut:
    """Which windows of a stage have been given, as far as one input is concerned: as
    :class:`ReaderWindows` has it."""

    first_ns: float
    floor_ns: float
    last_ns: float
    gaps: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class StageCut:
    """How far a stage has come."""

    grid: str
    """Which windows it has: only a stage with the same goes on."""
    next_ns: int
    """The end of its next window, in nanoseconds since the Unix epoch."""
    given_from_ns: int
    """The end of the first window that there is, as far as was known."""
    origin_ns: int
    """Where its grid lies, if that begins with the run."""
    readers: Sequence[ReaderCut]
    by: str | None = None
    """By which key its tasks are run."""
    paused: bool = False
    """Whether its windows are passed over."""
    tasks: Mapping[str, StatefulTask[Any, Any, Any]] = field(default_factory=dict[str, Any])
    """Those that have a state."""
    states: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict[str, Any])
    """Their states, by task and key."""
    known: Mapping[Any, int] = field(default_factory=dict[Any, int])
    """The keys that have had rows of late, and when each had its last."""
    paused_tasks: Sequence[str] = ()
    """The names of the tasks that its windows do without."""
    lacked: Sequence[Lacked] = ()
    """What results lack that its windows may still hold."""


@dataclass(frozen=True, slots=True)
class SeriesCut:
    """The rows of a series."""

    columns: Mapping[str, str]
    """The kind of each column."""
    unit: str
    closed: str
    key: str | None
    grown: Grown


@dataclass(frozen=True, slots=True)
class DataCut:
    """What is in some shared data."""

    roles: Sequence[str]
    """What it is to the pipeline, by which it is found again: the data has no name."""
    series: SeriesCut | None = None
    value: bytes | None = None
    """Of an RwLock or an Atom, what the value made of itself."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A cut through a pipeline: all that came before it has been seen, has entered and was handed
    to sinks, and nothing that came after it."""

    at_ns: int
    """The time of the run, in nanoseconds since the Unix epoch."""
    sources: Mapping[str, SourceCut]
    stages: Mapping[str, StageCut]
    data: Sequence[DataCut]
