"""A pipeline that is served: what is known of it, as the API tells it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

import msgspec

from run_task.observe._format import seconds, shown
from run_task.pipeline import Pipeline
from run_task.pipeline._alarms import alarms_on
from run_task.pipeline._archive import Archive, end_ms, numbers_of
from run_task.pipeline._failures import FailureGroup
from run_task.pipeline._monitor import WATCHER, Monitor, StageMonitor
from run_task.pipeline._stage import AnyStage
from run_task.runner._stats import (
    CheckpointStats,
    Percentiles,
    PipelineStats,
    RunnerStats,
    ShardStats,
    SinkStats,
    SourceStats,
)
from run_task.serve._health import Bounds, RunState, health, unready
from run_task.serve._shapes import (
    AlarmTold,
    CheckpointsNow,
    FailureInFull,
    FailureTold,
    HealthTold,
    KeysTold,
    KeyWorth,
    OverKeys,
    ShardNow,
    SinkNow,
    SourceNow,
    SpreadTold,
    StageNow,
    Topology,
)
from run_task.serve._told import finite, key_told, scalars
from run_task.serve._topology import signature, topology
from run_task.sources._positioned import positioned
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import AnyDataSet

_FRESH: Final = 0.2
"""For how many seconds what was looked up is told again."""

_SHARE: Final = 100
"""Looking up how all stages do may take one part in so many of the time."""

_SAMPLED_EVERY: Final = 6.0
"""How many seconds lie between two counts of rows that are kept: an hour of them is."""

_MOST_FAILURES: Final = 50

_MOST_ALARMS: Final = 1000

_COUNTS: Final = tuple(each.name for each in fields(SourceStats))

_SINK_COUNTS: Final = tuple(each.name for each in fields(SinkStats))

_SHARD_COUNTS: Final = ("keys", "rows", "windows", "results", "restarts", "windows_behind")

_NOT_YET: Final = RunnerStats()


class ToldPart:
    """What is told of a thing, and when that has changed.

    :param told: what is told
    :param version: the number of the state in which it came to be
    """

    __slots__ = ("raw", "told", "version")

    def __init__(self, told: Any, version: int) -> None:
        self.told = told
        self.version = version
        self.raw = msgspec.Raw(msgspec.json.encode(told))


class WatchedPipeline:
    """A pipeline, and what watchers are told of it.

    :meth:`look` brings that up to date, and is called in one thread, as all the rest is.

    :param pipeline: the pipeline, before it runs
    :param bounds: what it is held to
    """

    def __init__(self, pipeline: Pipeline, bounds: Bounds) -> None:
        self.pipeline = pipeline
        self.archive = Archive()
        self.monitor = Monitor(pipeline, archive=self.archive)
        self.counts = Archive()
        """The counts of rows over time, by source."""
        self.began_ms = time.time() * 1e3
        self._bounds = bounds
        self.is_ending: bool = False
        """Whether it was shut down."""
        self.failure: BaseException | None = None
        """By what it failed."""
        self._has_ended = False
        self.version: int = 0
        """It grows whenever something has changed."""
        self.topology: int = 0
        """It grows whenever something was added, removed or paused."""
        self._signature: int | None = None
        self._looked_at = float("-inf")
        self._state_seen: RunState | None = None
        self._stats_at = float("-inf")
        self._stats_next_at = float("-inf")
        self._sampled_at = float("-inf")
        self.stats: PipelineStats = pipeline.stats
        """How it does, as was looked up last."""
        self._rates: Mapping[str, float] = {}
        # By what it was told, what that was made of, so that no other has its id, and alerts.
        self._stages: dict[str, tuple[Any, Any, Sequence[AlarmTold]]] = {}
        self.stages: dict[str, ToldPart] = {}
        self.sources: dict[str, ToldPart] = {}
        self.sinks: dict[str, ToldPart] = {}
        self.shards: dict[str, ToldPart] = {}
        """By number."""
        self.gone: dict[str, int] = {}
        """Stages that were removed, each with the version in which they were."""
        self._rows_seen: dict[str, tuple[int, float | None]] = {}
        self._failures_seen = -1
        self.failures: ToldPart = ToldPart([], 0)
        self.alarms: ToldPart = ToldPart([], 0)
        self.checkpoints: ToldPart = ToldPart(None, 0)
        self._checkpoint_seen: tuple[int, float | None] = (0, None)
        self.health: ToldPart = ToldPart(HealthTold(status="ok", reasons=[]), 0)

    @property
    def name(self) -> str:
        """What the pipeline is called."""
        return self.pipeline.name

    @property
    def state(self) -> RunState:
        """How far it has come."""
        if self._has_ended:
            return RunState.ENDED if self.failure is None else RunState.FAILED
        if self.is_ending:
            return RunState.ENDING
        return RunState.RUNNING if self.pipeline.is_running else RunState.STARTING

    def end(self, failure: BaseException | None) -> None:
        """It has ended. From any thread.

        :param failure: by what it failed; None: it has not
        """
        self.failure = failure
        self._has_ended = True

    # What is told

    def look(self, *, at_once: bool = False) -> None:
        """Bring what is told up to date, if that was not done just now.

        :param at_once: also if it was
        """
        now = time.monotonic()
        state = self.state
        if state is not self._state_seen:  # what was told of it before holds no longer
            self._state_seen, at_once = state, True
        if now - self._looked_at < _FRESH and not at_once:
            return
        self._looked_at = now
        new = self.version + 1
        seen = signature(self.pipeline)
        changed = seen != self._signature
        if changed:
            self._signature = seen
            self.topology += 1
        if now >= self._stats_next_at or changed or at_once:
            self._look_up(now)
            changed = self._look_at_sources(new) or changed
            changed = self._look_at_sinks(new) or changed
            changed = self._look_at_shards(new) or changed
            changed = self._look_at_checkpoints(new) or changed
        changed = self._look_at_stages(new) or changed
        changed = self._look_at_failures(new) or changed
        alarms = len(self.alarms.told)
        shards = self.stats.shards
        told = health(
            self.unready(),
            self.pipeline.stages,
            self.monitor,
            alarms,
            shards,
            self._no_checkpoint(),
        )
        if told != self.health.told:
            self.health, changed = ToldPart(told, new), True
        if changed:
            self.version = new
        if now - self._sampled_at >= _SAMPLED_EVERY:
            self._sampled_at = now
            at_ms = time.time() * 1e3
            for name, counts in self.stats.sources.items():
                of_source = {each: float(getattr(counts, each)) for each in _COUNTS}
                self.counts.note_numbers(name, at_ms, of_source, now)

    def _look_up(self, now: float) -> None:
        """See how all stages do, which takes a while if there are many."""
        self.stats = stats = self.pipeline.stats
        took = time.monotonic() - now
        self._stats_at, self._stats_next_at = now, now + max(_FRESH, took * _SHARE)
        counts = {f"row {name}": each.stored for name, each in stats.sources.items()}
        counts |= {f"window {name}": each.ticks for name, each in stats.stages.items()}
        rates = self.monitor.rates(counts)
        self._rates = {name: float(f"{rate:.3g}") for name, rate in rates.items()}

    def _look_at_stages(self, new: int) -> bool:
        changed = False
        there: set[str] = set()
        alarms: list[AlarmTold] = []
        for stage in self.pipeline.stages:
            name = stage.name
            there.add(name)
            seen = self.monitor.of(name)
            done = self.stats.stages.get(name, _NOT_YET)
            rate = self._rates.get(f"window {name}", 0.0)
            newest = seen.newest
            paused = stage.is_paused, stage.paused_tasks
            told_by = (id(newest), id(seen.keys), done, rate, paused, seen.failed)
            before = self._stages.get(name)
            if before is None or before[0] != told_by:
                self.stages[name] = ToldPart(_stage_now(stage, seen, done, rate), new)
                on = () if newest is None else _alarms(stage, newest)
                before = self._stages[name] = told_by, (newest, seen.keys), on
                self.gone.pop(name, None)
                changed = True
            alarms += before[2]
        for name in self.stages.keys() - there:
            del self.stages[name], self._stages[name]
            self.gone[name] = new
            changed = True
        if alarms[:_MOST_ALARMS] != self.alarms.told:
            self.alarms, changed = ToldPart(alarms[:_MOST_ALARMS], new), True
        return changed

    def _look_at_sources(self, new: int) -> bool:
        stats, at_ms = self.stats, time.time() * 1e3
        found: dict[str, SourceNow] = {}
        declared = dict(zip(stats.sources, zip(self.pipeline.source_titles, self.pipeline.sources)))
        for name, counts in stats.sources.items():
            title, source = name, None
            if name in declared:
                title, (source, _) = declared[name]
            received, last_ms = self._rows_seen.get(name, (0, None))
            if counts.received != received:
                last_ms = at_ms
            self._rows_seen[name] = counts.received, last_ms
            connected, lag = _connection(source)
            found[name] = SourceNow(
                title=shown(title),
                rate=self._rates.get(f"row {name}", 0.0),
                **{each: getattr(counts, each) for each in _COUNTS},
                connected=connected if self.state is RunState.RUNNING else None,
                lag=lag,
                last_row_ms=last_ms,
                removed=name not in declared,
            )
        return _merge(self.sources, found, new)

    def _look_at_sinks(self, new: int) -> bool:
        found = {
            name: SinkNow(**{each: getattr(counts, each) for each in _SINK_COUNTS})
            for name, counts in self.stats.sinks.items()
            if name.partition(" (")[0] != WATCHER
        }
        return _merge(self.sinks, found, new)

    def _look_at_shards(self, new: int) -> bool:
        found = {
            str(number): _shard_now(number, name, shard)
            for number, (name, shard) in enumerate(self.stats.shards.items())
        }
        return _merge(self.shards, found, new)

    def _look_at_checkpoints(self, new: int) -> bool:
        stats = self.stats.checkpoints
        told = None if stats is None else self._checkpoints_now(stats)
        if told == self.checkpoints.told:
            return False
        self.checkpoints = ToldPart(told, new)
        return True

    def _checkpoints_now(self, stats: CheckpointStats) -> CheckpointsNow:
        number, last_ms = self._checkpoint_seen
        if stats.number != number:
            last_ms = time.time() * 1e3
        self._checkpoint_seen = stats.number, last_ms
        return CheckpointsNow(
            number=stats.number,
            written=stats.written,
            skipped=stats.skipped,
            failed=stats.failed,
            bytes=stats.bytes,
            last_ms=last_ms,
            seconds_behind=round(stats.seconds_behind),
        )

    def _no_checkpoint(self) -> str | None:
        """That no checkpoint has been made for too long."""
        stats = self.stats.checkpoints
        if stats is None or stats.seconds_behind <= self._bounds.lateness:
            return None
        return f"a checkpoint is due for {seconds(stats.seconds_behind)}"

    def _look_at_failures(self, new: int) -> bool:
        version = self.monitor.failures.version
        if version == self._failures_seen:
            return False
        self._failures_seen = version
        latest = self.monitor.failures.latest(_MOST_FAILURES)
        self.failures = ToldPart([failure_told(each) for each in latest], new)
        return True

    def unready(self) -> Sequence[str]:
        """Why it is not ready, each in a line; empty: it is."""
        state, failure = self.state, self.failure
        if state is not RunState.RUNNING:
            return [f"it is {state.value}" + ("" if failure is None else f": {shown(failure)}")]
        sources = {name: part.told for name, part in self.sources.items()}
        return unready(self.pipeline, self.monitor, sources, self._bounds, self.stats.shards)

    # What is asked for

    def topology_told(self) -> Topology:
        """What it is made of."""
        self.look()
        shards = [part.told for part in self.shards.values()]
        return topology(self.pipeline, self.state.value, self.began_ms, self.topology, shards)

    def stage(self, name: str) -> AnyStage | None:
        """A stage; None: there is none of this name."""
        return next((stage for stage in self.pipeline.stages if stage.name == name), None)

    def newest(self, stage: str) -> AnyDataSet | None:
        """What the last window of a stage gave; None: there was none yet."""
        return self.monitor.of(stage).newest

    def failures_in_full(self, stage: str | None = None) -> list[FailureInFull]:
        """What tasks failed by, the latest first.

        :param stage: the name of the stage; None: of all
        """
        return [
            failure_in_full(each)
            for each in self.monitor.failures.latest(_MOST_FAILURES * 2)
            if stage is None or each.stage == stage
        ]

    def pause(self, stage: AnyStage, task: str | None, *, paused: bool) -> None:
        """Pause or resume a stage, or a task of it. It may wait for others that change the
        pipeline.

        :raises RunTaskError: if it cannot be
        """
        if paused:
            stage.pause(task=task)
        else:
            stage.resume(task=task)


def _merge(parts: dict[str, ToldPart], found: Mapping[str, Any], new: int) -> bool:
    """Take over what has changed. Returns whether something has."""
    changed = False
    for name, told in found.items():
        before = parts.get(name)
        if before is None or before.told != told:
            parts[name] = ToldPart(told, new)
            changed = True
    for name in parts.keys() - found.keys():
        del parts[name]
        changed = True
    return changed


def _connection(source: Any) -> tuple[bool | None, int | None]:
    """Whether a source is connected, and how many rows it is behind, as far as it tells."""
    if source is None or (of_source := positioned(source)) is None:
        return None, None
    try:
        lag = of_source.lag
    except Exception:  # it does not know
        lag = None
    return lag is not None, lag


def _shard_now(number: int, name: str, shard: ShardStats) -> ShardNow:
    return ShardNow(
        name=name,
        number=number,
        state=shard.state.value,
        node=shown(shard.node) or None,
        process=shard.process or None,
        **{each: getattr(shard, each) for each in _SHARD_COUNTS},
        seconds=float(f"{shard.seconds:.3g}"),
        seconds_behind=round(shard.seconds_behind, 1),
        reason=shown(shard.reason) or None,
    )


def _spread(of: Percentiles, last: float | None) -> SpreadTold:
    return SpreadTold(p50=of.p50, p99=of.p99, max=of.max, last=last)


def _stage_now(stage: AnyStage, seen: StageMonitor, done: RunnerStats, rate: float) -> StageNow:
    newest = seen.newest
    values: Mapping[str, Any] = newest if isinstance(newest, DataSet) else {}
    keys: KeysTold | None = None
    if seen.keys is not None:
        keys = KeysTold(
            by=seen.keys.by,
            count=seen.keys.count,
            tasks={
                name: OverKeys(
                    done=each.done,
                    failed=each.failed,
                    low=finite(each.low),
                    middle=finite(each.middle),
                    high=finite(each.high),
                )
                for name, each in seen.keys.tasks.items()
            },
            worth=[
                KeyWorth(
                    key=key_told(each.key) or "",
                    why=each.why.value,
                    results=scalars(each.results),
                )
                for each in seen.keys.keys
            ],
        )
    return StageNow(
        windows=done.ticks,
        missed=done.missed,
        empty=done.empty,
        dropped=done.dropped,
        failed=seen.failed,
        paused=stage.is_paused,
        paused_tasks=sorted(stage.paused_tasks),
        rate=rate,
        lateness=_spread(done.lateness, None if newest is None else newest.lateness),
        duration=_spread(done.duration, None if newest is None else newest.took),
        end_ms=None if newest is None else end_ms(newest),
        values=scalars(values),
        numbers={name: finite(number) for name, number in numbers_of(values).items()},
        failing=sorted(seen.failing),
        keys=keys,
    )


def _alarms(stage: AnyStage, newest: AnyDataSet) -> Sequence[AlarmTold]:
    unit_ms = stage.interval.unit.nanos / 1e6
    return [
        AlarmTold(
            stage=stage.name,
            task=each.task,
            key=key_told(each.key),
            since_ms=None if each.since is None else each.since * unit_ms,
        )
        for each in alarms_on(newest)
    ]


def failure_told(group: FailureGroup) -> FailureTold:
    """What a task failed by, in short."""
    return FailureTold(**_of_failure(group))


def failure_in_full(group: FailureGroup) -> FailureInFull:
    """What a task failed by, with where it was raised."""
    return FailureInFull(**_of_failure(group), traceback=group.traceback)


def _of_failure(group: FailureGroup) -> dict[str, Any]:
    return {
        "id": str(group.number),
        "stage": group.stage,
        "task": group.task,
        "key": key_told(group.key),
        "cause": group.cause,
        "what": group.what,
        "times": group.times,
        "first_ms": group.first_at * 1e3,
        "last_ms": group.at * 1e3,
    }
