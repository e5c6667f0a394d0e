"""What a driver and its shards send each other.

A message is a tuple of plain values and arrays, so that any transport can pickle it, and move its
arrays without a copy where it has a way to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from run_task.data.series._column_types import Array
from run_task.data.series._tap import SeriesPattern
from run_task.sources._positioned import Position

NewTexts: TypeAlias = tuple[NDArray[Any], Sequence[str]]
"""Codes that a shard has not seen, and the text of each."""


class SentRows(NamedTuple):
    """Rows of a series, in the order in which they came. Texts are codes."""

    times: Array
    columns: Sequence[Array]
    texts: Mapping[int, NewTexts]
    """The texts of new codes, by the position of their column."""


class WholeSeries(NamedTuple):
    """A series has these rows, and no others; codes begin anew."""

    rows: SentRows


class MoreRows(NamedTuple):
    """Rows have come."""

    rows: SentRows


class KeepView(NamedTuple):
    """A view is to be kept of the rows as they are now."""

    mark: int
    oldest: int
    """Rows of an earlier timestamp have passed out."""


class DropViews(NamedTuple):
    """Views are not needed any more."""

    marks: Sequence[int]


SeriesChange: TypeAlias = WholeSeries | MoreRows | KeepView | DropViews
"""What has happened to a series."""


class SeriesSetup(NamedTuple):
    """A series that a shard is to have."""

    feed: int
    pattern: SeriesPattern
    by_place: bool
    """Whether rows are told by their places in partitions that the shard reads."""


class PartitionSetup(NamedTuple):
    """A partition of a source that a shard is to read."""

    partition: int
    name: str
    source: bytes
    on_bad_row: bytes
    """What is done with a row that is malformed, pickled."""

    pattern: SeriesPattern
    """The series that its rows enter."""

    row: int
    """The number of the first row that may be named."""

    position: Position | None
    """Where that is, as the source tells it; None: it has no positions, and is read from its
    beginning."""


class ReadRows(NamedTuple):
    """Rows of a partition that the driver wants to be told of."""

    partition: int
    start: int
    """The number of the first."""

    keep_from: int
    """Rows before this are named no more."""

    position: Position | None
    """Where the first is; None: the source has no positions."""

    commit: Position | None = None
    """Up to where rows are kept, which the source takes note of; None: as before."""


class RowsRead(NamedTuple):
    """What a shard has read of a partition."""

    start: int
    """The number of the first row."""

    times: NDArray[np.int64]
    keys: Array
    """The key of each row that can be stored; of texts the position among these."""

    texts: Sequence[str]
    """All keys of these rows that are texts, each once."""

    unfit: Mapping[int, str | None]
    """Why a row cannot be stored, by its position here; None: it has no value."""

    faults: Sequence[bytes]
    """What the source has found malformed, pickled."""

    ended: bool = False
    """Whether there are no more rows: then these are none."""

    error: bytes | None = None
    """What the source has raised, pickled."""

    position: Position | None = None
    """Where the source goes on behind these rows; None: it has no positions, or, where these are
    none, it is as before."""

    begun: Position | None = None
    """Where the first of these rows stands, in the place of where the source went on; None: there
    is no better one."""

    lag: int | None = None
    """How many rows the source has besides, at least; None: it does not know. Where these are none,
    and it has no end, that tells whether some are to be waited for."""


ValueInput: TypeAlias = tuple[Literal["value"], int]
FeedInput: TypeAlias = tuple[Literal["feed"], int]

Input: TypeAlias = ValueInput | FeedInput
"""An input of a stage: a series, by the number of its feed, or a value that comes with each window,
by its place among the inputs."""


class SinkSetup(NamedTuple):
    """A sink that a shard is to write to what it has of a stage."""

    sink: int
    """What it is called in messages: its place among those of the stage."""

    opener: bytes
    """What opens it, pickled."""


class StageSetup(NamedTuple):
    """A stage that a shard is to run."""

    stage: int
    name: str
    modules: Sequence[str]
    """Those that are not to be imported: what stands in them is sent whole."""

    tasks: Sequence[bytes]
    """Each as the user has it, pickled."""

    inputs: Sequence[Input]
    rest: bytes
    """Interval, config and keys, pickled."""

    sinks: Sequence[SinkSetup]


class RunWindow(NamedTuple):
    """A window that is to be run."""

    stage: int
    window: tuple[int, int]
    marks: Mapping[int, int]
    """The view to run it over, by feed."""

    views: Mapping[int, SentRows]
    """The rows themselves, by feed, where the shard was told of no such view."""

    values: Mapping[int, bytes]
    """Of inputs that are no series, by place; those that are missing are as before."""

    sinks: Sequence[int]
    """Those of the stage's sinks that the shard is to write to, before it answers."""

    begin: bytes | None
    """The states to begin with, and the keys that are known, pickled; None: it goes on."""


class ShardRequest(NamedTuple):
    """What a shard is asked to do, in this order."""

    series: Sequence[SeriesSetup]
    changes: Sequence[tuple[int, Sequence[SeriesChange]]]
    """By feed."""

    gone: Sequence[int]
    """Stages that are not run any more."""

    dropped: Sequence[int]
    """Feeds that nobody reads any more."""

    setup: StageSetup | None
    run: RunWindow | None
    partitions: Sequence[PartitionSetup] = ()
    """Those that it is to read, from before the changes on."""

    read: ReadRows | None = None
    """Instead of a window."""


class ShardResults(NamedTuple):
    """What a shard gave for a window."""

    keys: Sequence[Any] | None
    """Its keys, sorted; None: those of the reply before."""

    columns: Sequence[Any]
    """What each task gave for each key, and None where that stands below."""

    states: Mapping[int, Sequence[Any]]
    """The next states of tasks that have one, in the same way."""

    own: Sequence[tuple[int, int, bytes]]
    """Results that are no plain values, with their state: by task and place of the key."""

    faults: Sequence[tuple[int, int | None, bytes]]
    """Why there is no result: by task and place of the key, or for all keys."""

    seconds: Sequence[float]
    took: float
    unwritten: Mapping[int, str]
    """Of the sinks that it was to write to, those that it did not, and why."""


class ShardFailed(NamedTuple):
    """What a shard could not do: it raised, where no task did."""

    error: bytes


ShardReply: TypeAlias = ShardResults | RowsRead | ShardFailed | None
"""What a shard answers: None if there was nothing to run, or no key had a row."""


class SignOfLife(NamedTuple):
    """What the process of a shard says every second, whatever its tasks are at."""


SIGN_EVERY: Final = 1.0
"""After how many seconds there is another sign of life."""

EVERY_ROW: Final = -(2**63)
NO_ROW: Final = 2**63
