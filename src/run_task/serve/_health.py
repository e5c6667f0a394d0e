"""Whether all is well with a pipeline."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from run_task.observe._format import seconds, shown
from run_task.pipeline import Pipeline
from run_task.pipeline._monitor import Monitor, StageMonitor
from run_task.pipeline._stage import AnyStage
from run_task.runner._config import Empty
from run_task.runner._stats import ShardState, ShardStats
from run_task.serve._shapes import HealthTold, SourceNow

_MOST_REASONS: Final = 20


@dataclass(frozen=True)
class Bounds:
    """What a pipeline is held to.

    :param lateness: how many seconds after its end a window may begin to be computed
    """

    lateness: float = 10.0


class RunState(enum.Enum):
    """How far a pipeline has come."""

    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"
    ENDED = "ended"
    FAILED = "failed"


def unready(
    pipeline: Pipeline,
    monitor: Monitor,
    sources: Mapping[str, SourceNow],
    bounds: Bounds,
    shards: Mapping[str, ShardStats],
) -> Sequence[str]:
    """Why a pipeline that runs is not ready, each in a line: something of it has failed, a source
    is not connected, windows go without a shard, or they are late.

    :param pipeline: the pipeline
    :param monitor: what is known of it
    :param sources: how its sources do, by name
    :param bounds: what it is held to
    :param shards: how its shards do, by what they are called
    """
    reasons = [f"it has failed in part: {shown(failure)}" for failure in pipeline.failures]
    reasons += [
        f"source {name!r} is not connected"
        for name, source in sources.items()
        if source.connected is False
    ]
    for name, shard in shards.items():
        since = seconds(shard.seconds_behind)
        if shard.state is ShardState.LOST:
            reasons.append(f"windows go without {name}, for {since}: {shown(shard.reason)}")
        elif shard.is_running and shard.seconds_behind > bounds.lateness:
            why = f": {shown(shard.reason)}" if shard.reason else ""
            reasons.append(f"{name}, on {shown(shard.node)}, is at a window for {since}{why}")
    for stage in pipeline.stages:
        reason = _late(stage, monitor.of(stage.name), bounds)
        if reason is not None:
            reasons.append(reason)
    return reasons[:_MOST_REASONS]


def _late(stage: AnyStage, seen: StageMonitor, bounds: Bounds) -> str | None:
    if stage.is_paused:
        return None
    newest = seen.newest
    if newest is not None and newest.lateness > bounds.lateness:
        return f"stage {stage.name!r} is {seconds(newest.lateness)} late"
    gives_all = stage.keys is None and stage.config.empty is not Empty.SKIP
    if not gives_all or seen.newest_at is None:
        return None
    ago = time.monotonic() - seen.newest_at
    if ago > stage.interval.longest_ns / 1e9 + bounds.lateness:
        return f"stage {stage.name!r} has given nothing for {seconds(ago)}"
    return None


def health(
    reasons: Sequence[str],
    stages: Iterable[AnyStage],
    monitor: Monitor,
    alarms: int,
    shards: Mapping[str, ShardStats],
    no_checkpoint: str | None = None,
) -> HealthTold:
    """Whether all is well, and what is not: failing, if the pipeline is not ready; else a warning
    where tasks give no results now, a shard is coming back or gives no sign of life, no checkpoint
    is made, or alerts are on.

    :param reasons: why it is not ready
    :param stages: its stages
    :param monitor: what is known of it
    :param alarms: how many alerts are on
    :param shards: how its shards do, by what they are called
    :param no_checkpoint: that none has been made for too long; None: it is not so
    """
    if reasons:
        return HealthTold(status="failing", reasons=list(reasons))
    found: list[str] = []
    for stage in stages:
        failing = sorted(monitor.of(stage.name).failing)
        found += [f"stage {stage.name!r}: task {task!r} gives no result" for task in failing]
    found += [
        f"{name}{'' if shard.is_running else ' is coming back'}: {shown(shard.reason)}"
        for name, shard in shards.items()
        if shard.state is ShardState.COMING_BACK or (shard.is_running and shard.reason)
    ]
    if no_checkpoint is not None:
        found.append(no_checkpoint)
    if alarms:
        found.append(f"{alarms:,} alert{'' if alarms == 1 else 's'} on")
    return HealthTold(status="warning" if found else "ok", reasons=found[:_MOST_REASONS])
