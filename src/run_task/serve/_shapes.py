"""What the API tells, as it stands in JSON. Times in ``*_ms`` are milliseconds since the Unix
epoch, all others seconds."""

from __future__ import annotations

from typing import Any

import msgspec


class ApiShape(msgspec.Struct, frozen=True, kw_only=True):
    """What all of them are."""


class ErrorTold(ApiShape, frozen=True, kw_only=True):
    """Why a request was refused, in a line."""

    error: str


class PipelineName(ApiShape, frozen=True, kw_only=True):
    """One of the pipelines."""

    name: str
    state: str
    """``starting``, ``running``, ``ending``, ``ended`` or ``failed``."""


class PipelineNames(ApiShape, frozen=True, kw_only=True):
    """All pipelines of the service."""

    pipelines: list[PipelineName]


class SourceNode(ApiShape, frozen=True, kw_only=True):
    """A source, as it was declared."""

    id: str
    name: str
    title: str
    about: str


class DataNode(ApiShape, frozen=True, kw_only=True):
    """Data that stages read."""

    id: str
    title: str
    columns: list[str]
    key: str | None


class TaskNode(ApiShape, frozen=True, kw_only=True):
    """A task, as it was declared."""

    name: str
    returns: str
    alert: bool
    paused: bool
    needed: str | None
    """Why it cannot be paused; null: it can."""


class StageNode(ApiShape, frozen=True, kw_only=True):
    """A stage, as it was declared."""

    id: str
    name: str
    every: str
    every_seconds: float
    window: str | None
    grace: str | None
    by: str | None
    executor: str
    paused: bool
    tasks: list[TaskNode]


class SinkNode(ApiShape, frozen=True, kw_only=True):
    """A sink, as it was declared."""

    id: str
    title: str


class ShardNow(ApiShape, frozen=True, kw_only=True):
    """How a shard does: the counts are those of ``ShardStats``."""

    name: str
    """What it is called where windows go without it."""
    number: int
    state: str
    """``starting``, ``running``, ``coming back``, ``lost`` or ``ended``."""
    node: str | None
    """The machine that it runs on; None: it does not run."""
    process: int | None
    """The number of its process there."""
    keys: int
    rows: int
    windows: int
    results: int
    restarts: int
    seconds: float
    """How long it took over its last window, with the way there and back."""
    windows_behind: int
    """How many windows went without it, with which it is still to catch up."""
    seconds_behind: float
    """For how long it is waited for, in tenths."""
    reason: str | None
    """Why it is gone, or for how long it has given no sign of life; None: neither."""


class Topology(ApiShape, frozen=True, kw_only=True):
    """What a pipeline is made of, and how it hangs together."""

    name: str
    state: str
    began_ms: float
    topology: int
    """Another number says that something was added, removed or paused."""
    version: str
    """Of run-task."""
    sources: list[SourceNode]
    data: list[DataNode]
    stages: list[StageNode]
    sinks: list[SinkNode]
    edges: list[tuple[str, str]]
    """From one id to another."""
    shards: list[ShardNow]
    """How its shards do now; none, unless it runs over shards."""


class SpreadTold(ApiShape, frozen=True, kw_only=True):
    """The spread of a time over the latest 4096 windows, and that of the last one, in seconds."""

    p50: float
    p99: float
    max: float
    last: float | None


class OverKeys(ApiShape, frozen=True, kw_only=True):
    """What a task gave for all keys of a window."""

    done: int
    failed: int
    low: float | None
    middle: float | None
    high: float | None


class KeyWorth(ApiShape, frozen=True, kw_only=True):
    """A key that is worth a look."""

    key: str | int
    why: str
    results: dict[str, Any]


class KeysTold(ApiShape, frozen=True, kw_only=True):
    """What there is to see of a window by key."""

    by: str
    count: int
    tasks: dict[str, OverKeys]
    worth: list[KeyWorth]


class StageNow(ApiShape, frozen=True, kw_only=True):
    """How a stage does."""

    windows: int
    missed: int
    empty: int
    dropped: int
    failed: int
    """How many results are missing, of all windows."""
    paused: bool
    paused_tasks: list[str]
    """The tasks that its windows do without."""
    rate: float
    """Windows a second."""
    lateness: SpreadTold
    duration: SpreadTold
    end_ms: float | None
    """When its newest window ended."""
    values: dict[str, Any]
    """The newest results: numbers, booleans and texts; all else as a text. Empty by key."""
    numbers: dict[str, float | None]
    """Those of them that can be drawn."""
    failing: list[str]
    """The tasks that gave no result for the newest window."""
    keys: KeysTold | None


class SourceNow(ApiShape, frozen=True, kw_only=True):
    """How a source does: the counts are those of ``SourceStats``."""

    title: str
    rate: float
    """Rows a second that enter."""
    received: int
    stored: int
    malformed: int
    rejected: int
    ahead: int
    duplicate: int
    expired: int
    waiting: int
    late: int
    unseen: int
    dropped: int
    restarts: int
    connected: bool | None
    """None: it does not tell."""
    lag: int | None
    """How many rows it is behind; None: it does not tell, or is not connected."""
    last_row_ms: float | None
    """When a row was seen to have come last."""
    removed: bool
    """Whether it was removed while the pipeline ran: its counts stay."""


class SinkNow(ApiShape, frozen=True, kw_only=True):
    """How a sink does: the counts are those of ``SinkStats``."""

    results: int
    written: int
    refused: int
    dropped: int
    lost: int
    waiting: int
    failures: int
    spooled: int


class FailureTold(ApiShape, frozen=True, kw_only=True):
    """What a task failed by, again and again."""

    id: str
    stage: str
    task: str
    key: str | int | None
    """Of which key that was the last time."""
    cause: str
    what: str
    times: int
    first_ms: float
    last_ms: float


class FailureInFull(FailureTold, frozen=True, kw_only=True):
    """The same with where it was raised."""

    traceback: str | None


class FailuresInFull(ApiShape, frozen=True, kw_only=True):
    """What tasks failed by, the latest first."""

    errors: list[FailureInFull]


class AlarmTold(ApiShape, frozen=True, kw_only=True):
    """An alert that is on."""

    stage: str
    task: str
    key: str | int | None
    since_ms: float | None


class CheckpointsNow(ApiShape, frozen=True, kw_only=True):
    """What became of the checkpoints."""

    number: int
    written: int
    skipped: int
    failed: int
    bytes: int
    last_ms: float | None
    """When the last one was seen."""
    seconds_behind: float
    """For how long another one has been due."""


class HealthTold(ApiShape, frozen=True, kw_only=True):
    """Whether all is well, and what is not."""

    status: str
    """``ok``, ``warning`` or ``failing``."""
    reasons: list[str]


class PipelineNow(ApiShape, frozen=True, kw_only=True):
    """How a pipeline does. All but the first in a stream hold of ``stages``, ``sources``, ``sinks``
    and ``shards`` those that have changed, and lack what else has not."""

    full: bool
    at_ms: float
    began_ms: float
    state: str
    topology: int
    health: HealthTold
    waiting: int
    """How many results wait to be written to sinks."""
    stages: dict[str, StageNow]
    gone: list[str]
    """Stages that were removed."""
    sources: dict[str, SourceNow]
    sinks: dict[str, SinkNow]
    shards: dict[str, ShardNow]
    """By number; none, unless it runs over shards."""
    errors: list[FailureTold] | msgspec.UnsetType = msgspec.UNSET
    alarms: list[AlarmTold] | msgspec.UnsetType = msgspec.UNSET
    checkpoints: CheckpointsNow | msgspec.UnsetType | None = msgspec.UNSET


class StageInFull(ApiShape, frozen=True, kw_only=True):
    """All that is known of a stage."""

    stage: StageNode
    now: StageNow
    errors: list[FailureInFull]
    series: list[str]
    """The numbers of it that can be drawn."""


class NumbersTold(ApiShape, frozen=True, kw_only=True):
    """Numbers of windows, by column."""

    stage: str
    key: str | int | None
    ends_ms: list[float]
    columns: dict[str, list[float | None]]
    next: float | None
    """What to ask for as ``since`` the next time."""


class KeyedNumbers(ApiShape, frozen=True, kw_only=True):
    """The newest window of all keys, by column."""

    stage: str
    by: str
    end_ms: float | None
    keys: list[str | int]
    columns: dict[str, list[Any]]


class KeyRow(ApiShape, frozen=True, kw_only=True):
    """What the newest window gave for a key."""

    key: str | int
    results: dict[str, Any]
    errors: dict[str, str]


class KeyPage(ApiShape, frozen=True, kw_only=True):
    """Some keys of the newest window."""

    stage: str
    by: str
    end_ms: float | None
    count: int
    matching: int
    offset: int
    rows: list[KeyRow]


class FatesTold(ApiShape, frozen=True, kw_only=True):
    """Counts of the rows of a source over time."""

    source: str
    times_ms: list[float]
    columns: dict[str, list[int]]
    next: float | None


class PausedTold(ApiShape, frozen=True, kw_only=True):
    """Whether a stage, or a task of it, is paused."""

    stage: str
    task: str | None
    paused: bool


class SessionTold(ApiShape, frozen=True, kw_only=True):
    """What whoever asks may do."""

    token_needed_to_read: bool
    may_read: bool
    may_change: bool
    changes_possible: bool
    """Whether there is a token at all, without which nobody may change anything."""


class StatusTold(ApiShape, frozen=True, kw_only=True):
    """Whether the service is alive, or ready."""

    status: str
    reasons: list[str]
    """Empty for those who may not read."""
