"""How a runner has been doing."""

from __future__ import annotations

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

_SPREADS: Final = ("lateness p50", "p99", "duration p50", "p99")

_FATES: Final = ("malformed", "rejected", "ahead", "expired", "late", "unseen")
"""The counts of rows that did not go the way of most."""


@dataclass(frozen=True)
class Percentiles:
    """The spread of a time, over the latest 4096 ticks; zeros before the first.

    :param p50: the median, in seconds
    :param p90: what nine of ten ticks stay within, in seconds
    :param p99: what 99 of 100 ticks stay within, in seconds
    :param max: the longest, in seconds
    """

    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    max: float = 0.0

    @classmethod
    def of(cls, measured: deque[float] | deque[int], unit: float = 1.0) -> Percentiles:
        """Percentiles of what has been measured, by linear interpolation.

        :param measured: times
        :param unit: how many seconds their unit has
        """
        values = list(measured)  # in one step of C, so no tick gets in between
        if not values:
            return cls()
        return cls(*(np.percentile(values, (50, 90, 99, 100)) * unit).tolist())


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
    :param duplicate: how many had come before, and were left out: always 0 for now, since no source
        is gone on with in the middle; of two rows of one timestamp, both are stored
    :param expired: how many were older than what is retained when they came
    :param waiting: how many have not entered yet
    :param late: how many of those stored or expired came after a window was given that covers
        them, or lie before the first window
    :param unseen: how many of those stored passed out of retention before any window saw them
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


def both(one: SourceStats, other: SourceStats) -> SourceStats:
    """The counts of two that had one name together."""
    return SourceStats(
        **{of.name: getattr(one, of.name) + getattr(other, of.name) for of in fields(SourceStats)}
    )


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
    """

    stages: Mapping[str, RunnerStats]
    rows: Sequence[int]
    waiting: int
    refused: int = 0
    lost: int = 0
    sources: Mapping[str, SourceStats] = field(default_factory=dict[str, SourceStats])
    changes: Sequence[Change] = ()

    def _repr_html_(self) -> str:
        """What each stage did, and what became of the rows of each source."""
        lost = self.refused or self.lost
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
        made = table(title, header, stages, ERROR if lost else BOLD)
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
