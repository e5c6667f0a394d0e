"""How a runner has been doing."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final

import numpy as np

from run_task.observe._format import seconds
from run_task.observe._html import BOLD, ERROR, marked, table
from run_task.runner._changes import Change

RECENT: Final = 4096
"""Over how many of the latest ticks percentiles are taken."""

_FRACTIONS: Final = np.array((0.5, 0.9, 0.99, 1.0))

_SPREADS: Final = ("lateness p50", "p99", "duration p50", "p99")

_FATES: Final = (
    "malformed",
    "rejected",
    "ahead",
    "expired",
    "late",
    "unseen",
    "dropped",
    "restarts",
)
"""The counts of rows that did not go the way of most."""

_UNWRITTEN: Final = ("refused", "dropped", "lost", "failures")
"""The same of results for a sink."""


@dataclass(frozen=True)
class Percentiles:
    """The spread of a time, over the latest 4096 ticks; zeros before the first.

    :param p50: the median, in seconds
    :param p90: what nine of ten ticks stay within, in seconds
    :param p99: what 99 of 100 ticks stay within, in seconds
    :param max: the longest, in seconds
    :param total: of all ticks together, also those before the latest, in seconds
    """

    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    max: float = 0.0
    total: float = 0.0

    @classmethod
    def of(
        cls, measured: deque[float] | deque[int], total: float, unit: float = 1.0
    ) -> Percentiles:
        """Percentiles of what has been measured, by linear interpolation.

        :param measured: times
        :param total: the sum of these, and of those that were measured before
        :param unit: how many seconds their unit has
        """
        found = list(measured)  # in one step of C, so no tick gets in between
        if not found:
            return cls()
        # As numpy.percentile, in half of the time: watchers ask for it often, of many stages.
        values = np.fromiter(found, np.float64, len(found))
        places = _FRACTIONS * (len(found) - 1)
        below = places.astype(np.intp)
        above = np.minimum(below + 1, len(found) - 1)
        values.partition(np.unique((below, above)))
        low, high = values[below], values[above]
        p50, p90, p99, most = ((low + (high - low) * (places - below)) * unit).tolist()
        return cls(p50, p90, p99, most, total * unit)


@dataclass(frozen=True)
class RunnerStats:
    """How a runner has been doing up to now.

    :param ticks: how many windows gave a DataSet
    :param missed: how many gave none: left out by ``MissedTick.SKIP``, due in a pause, or lost in a
        shutdown
    :param dropped: how many DataSets were lost in the channel, since it was full or was closed
    :param lateness: how long after its end (and grace) a window's tick began, in seconds
    :param duration: how long a tick's tasks took together, from the first one's start to the last
        one's end, in seconds
    :param empty: how many held no row, and were left out by ``Empty.SKIP``
    :param blocked: for how many seconds it has stood still, up to now, since its channel was full
    :param paused: how many of those missed were due while it was paused
    :param changes: what was changed about a :class:`~run_task.Runner` while it ran, of the latest
        1024 the oldest first; what was about a stage is in :attr:`PipelineStats.changes`
    """

    ticks: int = 0
    missed: int = 0
    dropped: int = 0
    empty: int = field(default=0, kw_only=True)
    blocked: float = field(default=0.0, kw_only=True)
    paused: int = field(default=0, kw_only=True)
    changes: Sequence[Change] = field(default=(), kw_only=True)
    lateness: Percentiles = Percentiles()
    duration: Percentiles = Percentiles()

    def _repr_html_(self) -> str:
        """Counts in one line, and percentiles below."""
        lost = self.missed or self.dropped
        title = f"{self.ticks:,} ticks, {self.missed:,} missed, {self.dropped:,} dropped"
        if self.blocked:
            title += f", {seconds(self.blocked)} blocked"
        rows = [
            [
                name,
                *(seconds(value, 3) for value in (spread.p50, spread.p90, spread.p99, spread.max)),
            ]
            for name, spread in (("lateness", self.lateness), ("duration", self.duration))
        ]
        return table(title, ("", "p50", "p90", "p99", "max"), rows, ERROR if lost else BOLD)


def one_after_another(before: RunnerStats, after: RunnerStats) -> RunnerStats:
    """The stats of two that had one name, one after the other: counts are those of both."""
    return replace(
        after if after.ticks else before,
        ticks=before.ticks + after.ticks,
        missed=before.missed + after.missed,
        dropped=before.dropped + after.dropped,
        empty=before.empty + after.empty,
        paused=before.paused + after.paused,
    )


@dataclass(frozen=True, kw_only=True)
class SourceStats:
    """What has become of the rows of a source, on their way into one target, up to now.

    At any moment ``received`` is the sum of ``stored``, ``malformed``, ``rejected``, ``ahead``,
    ``duplicate``, ``expired`` and ``waiting``.

    :param received: how many rows the source has given
    :param stored: how many have entered the data
    :param malformed: how many were none: what the source read, or gave, makes no row
    :param rejected: how many ``ingest``, or the data, has refused, or a limit (``max_keys``)
    :param ahead: how many were stamped so long after the present that they were refused
    :param duplicate: how many had entered before, as ``dedupe=`` tells rows apart, and were left
        out
    :param expired: how many were older than what is retained when they came
    :param waiting: how many have not entered yet
    :param late: how many of those stored or expired came after a window was given that covers
        them, or lie before the first window
    :param unseen: how many of those stored passed out of retention before any window saw them
    :param dropped: how many the source could not keep, as an ``Inbox`` that is full, and has never
        given: they are not among those received
    :param restarts: how many times the source was started again after it failed, as its ``retry=``
        said: no count of rows
    """

    received: int = 0
    stored: int = 0
    malformed: int = 0
    rejected: int = 0
    ahead: int = 0
    duplicate: int = 0
    expired: int = 0
    waiting: int = 0
    late: int = 0
    unseen: int = 0
    dropped: int = 0
    restarts: int = 0


def both(one: SourceStats, other: SourceStats) -> SourceStats:
    """The counts of two that had one name together."""
    return SourceStats(
        **{of.name: getattr(one, of.name) + getattr(other, of.name) for of in fields(SourceStats)}
    )


@dataclass(frozen=True, kw_only=True)
class SinkStats:
    """What has become of the results that a sink of a live pipeline was to be given, up to now.

    At any moment ``results`` is the sum of ``written``, ``refused``, ``dropped``, ``lost`` and
    ``waiting``.

    :param results: how many results there were
    :param written: how many the sink has flushed, or closed with
    :param refused: how many it could not store; one by key that it has stored without some of the
        keys is written
    :param dropped: how many were left out by ``Then.DROP``: it was away for more attempts than
        there were to be, or there was no room for what waited
    :param lost: how many it did not get, since it failed or took too long when the pipeline was
        shut down
    :param waiting: how many wait to be written, or to be flushed
    :param failures: how many times it has raised, and was perhaps tried again
    :param spooled: how many of those waiting are on disk alone, and wait for their turn there
    """

    results: int = 0
    written: int = 0
    refused: int = 0
    dropped: int = 0
    lost: int = 0
    waiting: int = 0
    failures: int = 0
    spooled: int = 0


@dataclass(frozen=True)
class CheckpointStats:
    """What has become of the checkpoints of a live run.

    :param number: the number of the last one; 0: there is none
    :param written: how many were made
    :param skipped: how many were put off, since at no moment all stages were done with the windows
        that they had begun
    :param failed: how many could not be written
    :param bytes: how many bytes were written for them, all in all
    :param unfit: what of the one that the run has begun with does not fit the pipeline any more,
        each in a line
    :param seconds_behind: for how many seconds another one has been due; some are usual, as it
        waits for a moment at which no window is in hand
    """

    number: int = 0
    written: int = 0
    skipped: int = 0
    failed: int = 0
    bytes: int = 0
    unfit: Sequence[str] = ()
    seconds_behind: float = 0.0


class ShardState(enum.Enum):
    """How it is with a shard."""

    STARTING = "starting"
    """It is not there yet: the run begins."""

    RUNNING = "running"
    """It is there."""

    COMING_BACK = "coming back"
    """It is gone, and is started again; windows wait for it."""

    LOST = "lost"
    """It is gone for so long that windows go without it; it is still tried to start it."""

    ENDED = "ended"
    """It has ended, with the run."""


@dataclass(frozen=True, kw_only=True)
class ShardStats:
    """How a shard of a pipeline has been doing.

    :param state: how it is with it
    :param node: the machine that it runs on; empty: it does not run
    :param process: the number of its process there
    :param keys: of how many keys it gave results for its last window: of the stage that has most
    :param rows: how many rows it was sent, or told of that it has read by itself
    :param windows: how many windows it has run
    :param results: how many results it has given, one for each key, task and window
    :param restarts: how often it was started again
    :param seconds: how long it took over the last window, with the way there and back
    :param windows_behind: how many windows went without it, with which it is still to catch up
    :param seconds_behind: for how long it is waited for: since it went, or since it was asked for
        the oldest window that it has not given
    :param reason: why it is gone, or for how long it has given no sign of life, from five seconds
        on; empty: neither
    """

    state: ShardState = ShardState.STARTING
    node: str = ""
    process: int = 0
    keys: int = 0
    rows: int = 0
    windows: int = 0
    results: int = 0
    restarts: int = 0
    seconds: float = 0.0
    windows_behind: int = 0
    seconds_behind: float = 0.0
    reason: str = ""

    @property
    def is_running(self) -> bool:
        """Whether it is there; if not, it is started, or has ended."""
        return self.state is ShardState.RUNNING


def shards_shown(shards: Mapping[str, ShardStats]) -> str:
    """Shards in a few words.

    :param shards: how each has been doing; one at least
    """
    running = [one for one in shards.values() if one.is_running]
    nodes = len({one.node for one in running})
    left = f"{len(running)} of {len(shards)}" if len(running) < len(shards) else f"{len(shards)}"
    plural = "s" if len(shards) > 1 else ""
    return f"{left} shard{plural} on {nodes} node{'' if nodes == 1 else 's'}"


@dataclass(frozen=True)
class PipelineStats:
    """How a live pipeline has been doing up to now; zeros before it runs.

    :param stages: how each stage has been doing, by its name, in the order of ``stages``
    :param rows: how many rows of each source have entered its data, in the order of ``sources``
    :param waiting: how many DataSets wait to be written to sinks
    :param refused: how many results sinks could not store, and left out: live, and in replays
    :param lost: how many DataSets were not written to a sink, since it failed or took too long when
        the pipeline was shut down
    :param sources: what has become of the rows of each source, by its name, in the order of
        ``sources``: in the live run, or else in the last replay or resume
    :param changes: what was changed about it while it ran, of the latest 1024 the oldest first
    :param dropped: how many results were left out by ``Then.DROP``: live, and in replays
    :param rejected: how many results did not enter other data, since the ``ingest`` raised: live,
        and in replays
    :param sinks: what has become of the results for each sink, by how it shows itself; a second one
        that does so alike has ``" (2)"`` after that
    :param checkpoints: what has become of its checkpoints; None: it makes none, or was not run yet
    :param shards: how each shard has been doing, by what ``behind`` calls it; none, unless it runs
        over shards
    """

    stages: Mapping[str, RunnerStats]
    rows: Sequence[int]
    waiting: int
    refused: int = 0
    lost: int = 0
    sources: Mapping[str, SourceStats] = field(default_factory=dict[str, SourceStats])
    changes: Sequence[Change] = ()
    dropped: int = field(default=0, kw_only=True)
    rejected: int = field(default=0, kw_only=True)
    sinks: Mapping[str, SinkStats] = field(default_factory=dict[str, SinkStats], kw_only=True)
    checkpoints: CheckpointStats | None = field(default=None, kw_only=True)
    shards: Mapping[str, ShardStats] = field(default_factory=dict[str, ShardStats], kw_only=True)

    def _repr_html_(self) -> str:
        """What each stage did, and what became of the rows of each source, and for each sink."""
        lost = self.refused or self.lost or self.dropped or self.rejected
        title = f"{self.waiting:,} results wait, {self.refused:,} refused, {self.lost:,} lost"
        stages = (
            [
                name,
                f"{stats.ticks:,}",
                _bad(stats.missed),
                f"{stats.empty:,}",
                seconds(stats.lateness.p50, 3),
                seconds(stats.lateness.p99, 3),
                seconds(stats.duration.p50, 3),
                seconds(stats.duration.p99, 3),
            ]
            for name, stats in self.stages.items()
        )
        header = ("stage", "ticks", "missed", "empty", *_SPREADS)
        if self.dropped:
            title += f", {self.dropped:,} dropped"
        if self.rejected:
            title += f", {self.rejected:,} rejected"
        made = table(title, header, stages, ERROR if lost else BOLD)
        if self.sinks:
            counts = [of.name for of in fields(SinkStats)]
            of_sinks = (
                [
                    name,
                    *(
                        _bad(getattr(stats, count))
                        if count in _UNWRITTEN
                        else f"{getattr(stats, count):,}"
                        for count in counts
                    ),
                ]
                for name, stats in self.sinks.items()
            )
            made += table("Results", ("sink", *counts), of_sinks)
        if self.shards:
            counts = ["keys", "rows", "windows", "results", "restarts"]
            of_shards = (
                [
                    name,
                    stats.state.value,
                    stats.node,
                    f"{stats.process}",
                    *(f"{getattr(stats, count):,}" for count in counts),
                    seconds(stats.seconds, 3),
                    _bad(stats.windows_behind),
                ]
                for name, stats in self.shards.items()
            )
            heads = ("shard", "state", "node", "process", *counts, "last window", "behind")
            made += table(shards_shown(self.shards), heads, of_shards)
        if not self.sources:
            return made
        counts = [of.name for of in fields(SourceStats)]
        rows = (
            [
                name,
                *(
                    _bad(getattr(stats, count)) if count in _FATES else f"{getattr(stats, count):,}"
                    for count in counts
                ),
            ]
            for name, stats in self.sources.items()
        )
        return made + table("Rows", ("source", *counts), rows)


def _bad(count: int) -> str:
    """A count of what should not have been."""
    return marked(f"{count:,}", ERROR) if count else "0"
