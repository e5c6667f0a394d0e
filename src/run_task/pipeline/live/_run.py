"""One live run of a pipeline: its beginning, and its end in order, upstream first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from run_task.errors import (
    ChannelClosed,
    ConfigError,
    RunTaskError,
    ShutdownTimeout,
    add_note,
    described,
)
from run_task.observe._log import Log
from run_task.pipeline._branches import MOST, branched
from run_task.pipeline._fates import Fates
from run_task.pipeline._graph import have_calendar
from run_task.pipeline._order import NEVER
from run_task.pipeline._refusals import Refusals
from run_task.pipeline._route import Route
from run_task.pipeline._row_telemetry import RowTelemetry
from run_task.pipeline._sink_policy import SinkPolicy
from run_task.pipeline._sink_start import begin, declare
from run_task.pipeline._stage import AnyStage
from run_task.pipeline.checkpoint._cut import StageCut
from run_task.pipeline.live._checkpoints import Checkpoints, CheckpointSetup
from run_task.pipeline.live._commits import Commits
from run_task.pipeline.live._cut_taker import CutTaker
from run_task.pipeline.live._sink_thread import SinkThread
from run_task.pipeline.live._source_thread import SourceThread
from run_task.pipeline.live._stage import LiveStage, grid_of
from run_task.pipeline.live._stage_removal import StageRemoval
from run_task.pipeline.live._wiring import Wiring
from run_task.runner._config import RunnerConfig
from run_task.runner._engine import DELIVERY
from run_task.runner._stats import (
    CheckpointStats,
    RunnerStats,
    SinkStats,
    one_after_another,
)
from run_task.runner._task_set import TaskSet
from run_task.runner._timeline import Timeline
from run_task.sinks._protocol import Sink
from run_task.sources._backfill import Backfill
from run_task.sources._positioned import UNKNOWN, positioned
from run_task.sources._protocol import Playback, about
from run_task.sources.journal._journaled import JournaledSource
from run_task.sync._alarm import Alarm
from run_task.sync._fork import forget_after_fork
from run_task.sync._lifecycle import Lifecycle, Phase
from run_task.sync._waiting import Deadline
from run_task.tasks._keyed import AnyDataSet
from run_task.time._clock import Clock, SystemClock

_log = Log(__name__)

SINK_CAPACITY: Final = 1024
"""How many DataSets may wait for a sink, before the stages that fill it have to wait, too."""

_NO_WINDOW: Final = -NEVER
"""A time before all windows."""

_NEXT_ROW: Final = 0.5
"""How many seconds a source has to return from waiting for a row that is no longer needed."""

_AT_ONCE: Final = 0.1
"""How many seconds a stage has to end in once it has delivered everything."""

_TOLD_EVERY: Final = 5.0
"""After how many seconds at the latest OpenTelemetry is told of rows."""

_AGAIN: Final = 0.01
"""After how many seconds a source is looked at again that gives no more rows, and has not ended."""

_LOOK: Final = 0.1
"""After how many seconds to look whether a sink that is waited for is still at work."""

_LEAST: Final = 0.1
"""How many seconds sources have to end at least, once sinks have."""


class LiveRun:
    """One live run of a pipeline.

    :param name: the pipeline's name
    :param stages: the stages, those that are fed after those that feed them, and how they behave
    :param sources: the sources, how many nanoseconds the unit of each has, and where its rows go
    :param fates: counts what becomes of the rows of each source
    :param clock: where to read the time, unless a source brings its own; None: the machine's
    :param refusals: counts the results that sinks do not get
    :param policy_of: gives what was said of a sink
    :param upstream_first: gives all stages that there are by now, those that are fed after those
        that feed them
    :param checkpointing: how checkpoints are made; None: there are none
    :raises ConfigError: if two sources bring times that pass at different speeds
    """

    def __init__(
        self,
        name: str,
        stages: Mapping[AnyStage, RunnerConfig],
        sources: Sequence[tuple[Any, int, Route]],
        fates: Sequence[Fates],
        clock: Clock | None,
        refusals: Refusals,
        policy_of: Callable[[Sink], SinkPolicy],
        upstream_first: Callable[[], Sequence[AnyStage]],
        checkpointing: CheckpointSetup | None = None,
    ) -> None:
        self._name = name
        self._upstream_first = upstream_first
        self._refusals = refusals
        self._policy_of = policy_of
        self._declared_stages = stages
        self._async_sources: list[Any] = []
        self._late_sources: list[Any] = []  # those that are started by who reads them
        self._declared_sources = branched(sources, self._iterable, MOST)
        self._fates = fates
        self._telemetry = RowTelemetry.if_set_up(name, fates, self._of_sinks)
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._alarm = Alarm()
        self._mutex = threading.Lock()
        self._open_sources = len(sources)
        self._made_sources = self._made_sinks = 0
        self._removed_routes: list[Route] = []
        # Of sources that were removed: where the rows went, and as of SourceThread, of the last.
        self._last_rows: list[tuple[Route, float, float]] = []
        self._finishing = False  # all sources have ended
        self._sinks: dict[int, SinkThread] = {}  # by the id of the sink
        self._wiring: Wiring | None = None
        self._leaving: list[StageRemoval] = []
        self._parting: list[SourceThread] = []  # sources that were removed
        self._commits: Commits | None = None
        self._checkpointing = checkpointing
        self._checkpoints: Checkpoints | None = None
        self._sinks_failed = self._ended_whole = False
        self._gone: dict[str, RunnerStats] = {}  # of stages that were removed, by name
        thread = f"run-task {name} pipeline"
        self._thread = threading.Thread(target=self._watch_over, name=thread, daemon=True)
        self.failures: list[BaseException] = []
        self.lifecycle: Final = Lifecycle()
        """How far it has come."""
        forget_after_fork(self)

    def start(self, is_unwanted: Callable[[], bool]) -> None:
        """Start everything, and return.

        In a coroutine, async sources are read by its event loop; else each has one of its own.

        :param is_unwanted: whether nobody wants it any more. Asked once all is ready that takes
            long; then it is shut down, and no stage or source has started
        :raises Exception: if something cannot be started; then nothing is left running
        """
        played = [about(source).playback for source, _, _ in self._declared_sources]
        for fates in self._fates:
            fates.begin()
        for fates, playback in zip(self._fates, played, strict=True):
            if playback is not None:
                with fates.reading():  # the rows before the first good one
                    _ = playback.first_ns
        since_ns = self._start_recordings(
            [
                (playback, route)
                for playback, (_, _, route) in zip(played, self._declared_sources, strict=True)
                if playback
            ]
        )
        try:
            self._make_sinks()
            self._make_sources_and_stages(played, since_ns)
            self._make_checkpoints()
            self._thread.start()
            self.lifecycle.advance(Phase.RUNNING)
            for sink in self._sinks.values():
                sink.start()
            for stage in self._stages:
                stage.prepare()
            if is_unwanted():
                self.shutdown()
                return
            for stage in self._stages:
                stage.start()
            if self._wiring is not None:
                self._wiring.catch_up.begin()
            for async_source in self._async_sources:
                if async_source not in self._late_sources:
                    async_source.start()
            for source in self._sources:
                source.start()
            self._commit_from_now_on()
            if self._checkpoints is not None:
                self._checkpoints.start()
        except BaseException:
            self.shutdown()
            if self._thread.ident is None:
                self._watch_over()  # there is no other thread to do it
            self.lifecycle.wait(Phase.ENDED)
            raise

    def shutdown(self) -> None:
        """Bring it to its end. Returns at once; safe in a signal handler."""
        self.lifecycle.advance(Phase.STOPPING)
        self._alarm.ring()

    @property
    def _stages(self) -> Sequence[LiveStage]:
        return () if self._wiring is None else self._wiring.stages

    @property
    def _sources(self) -> Sequence[SourceThread]:
        return () if self._wiring is None else self._wiring.sources

    @property
    def _timeout(self) -> float:
        """How many seconds a shutdown may take."""
        given = [config.shutdown_timeout for config in self._declared_stages.values()]
        given = [live.config.shutdown_timeout for live in self._stages] or given
        return max(given)

    @property
    def clock(self) -> Clock:
        """Where it reads the time."""
        return self._clock

    def pause(self, stage: AnyStage) -> None:
        """Take over whether a stage is paused, from its next window on."""
        for live in self._stages:
            if live.stage is stage:
                live.mark.paused = stage.is_paused

    def change_tasks(self, stage: AnyStage, tasks: TaskSet) -> None:
        """Let a stage run other tasks, from its next window on.

        :raises RunTaskError: if it ends
        """
        for live in self._stages:
            if live.stage is stage:
                live.change_tasks(tasks)

    def stats(self) -> tuple[Mapping[str, RunnerStats], int, int, Mapping[str, SinkStats]]:
        """How the stages have been doing, and how many DataSets wait for sinks, or were lost there,
        and what became of them for each. At any time, from any thread."""
        stages = dict(self._gone)
        for live in self._stages:
            before = stages.get(live.stage.name)
            now = live.stats
            stages[live.stage.name] = now if before is None else one_after_another(before, now)
        sinks = list(self._sinks.values())
        lost = sum(sink.lost for sink in sinks)
        return stages, sum(map(len, sinks)), lost, self._of_sinks()

    def _of_sinks(self) -> Mapping[str, SinkStats]:
        """What has become of the results for each sink, by how it shows itself."""
        found: dict[str, SinkStats] = {}
        for sink in list(self._sinks.values()):
            shown, number = repr(sink), 1
            while (name := shown if number == 1 else f"{shown} ({number})") in found:
                number += 1
            found[name] = sink.stats
        return found

    @property
    def checkpoints(self) -> CheckpointStats | None:
        """What has become of its checkpoints; None: it makes none."""
        return None if self._checkpoints is None else self._checkpoints.stats

    def settle(self) -> None:
        """Once it has ended, wait for the thread that brought the end about."""
        if self._thread.ident is not None:  # it has been started
            self._thread.join()

    def after_fork(self) -> None:
        """In a forked child, none of the threads is there that would bring it to its end."""
        self.lifecycle.after_fork()

    # The beginning

    def _commit_from_now_on(self) -> None:
        """Tell sources that have positions how far their rows are in the data."""
        if (
            self._commits is None
            and self._checkpoints is None
            and any(positioned(one.source) for one in self._sources)
        ):
            name = f"run-task {self._name} commits"
            self._commits = Commits(name, lambda: self._sources)
            self._commits.start()

    def _make_checkpoints(self) -> None:
        checkpointing, wiring = self._checkpointing, self._wiring
        if checkpointing is None or wiring is None:
            return
        restoring, name_of = checkpointing.restoring, checkpointing.name_of
        ways: dict[int, list[SourceThread]] = {}
        for thread in wiring.sources:
            ways.setdefault(thread.route.number, []).append(thread)
        for number, threads in ways.items():
            if (cut := restoring.cut_of(name_of(number))) is not None:
                for thread, way in zip(threads, cut.ways, strict=True):
                    thread.go_on(cut.position if cut.begun else UNKNOWN, way)
        self._checkpoints = Checkpoints(
            self._name,
            checkpointing.keeper,
            checkpointing.every,
            CutTaker(wiring, name_of),
            lambda: list(self._sinks.values()),
            Commits(f"run-task {self._name} commits", lambda: self._sources),
            restoring.settle(self._name),
        )

    def _iterable(self, source: Any) -> Any:
        """A source, for threads: one that is async is read by an event loop."""
        if isinstance(source, JournaledSource | Backfill):
            known = len(self._async_sources)
            source.read(self._iterable(source.inner))
            if isinstance(source, Backfill) and source.by_position:
                self._late_sources += self._async_sources[known:]
            return source  # pyright: ignore[reportUnknownVariableType]  of whatever rows
        if hasattr(source, "__iter__"):
            return source
        # With asyncio, which others can do without.
        from run_task.pipeline.live._async_source import AsyncSource

        number = len(self._async_sources) + 1
        made = AsyncSource(source, f"run-task {self._name} async source {number}")
        self._async_sources.append(made)
        return made

    def _start_recordings(self, recordings: Sequence[tuple[Playback, Route]]) -> int | None:
        """Let the time of recordings begin. Returns a time in the window that holds the first
        row."""
        if len({source.speed for source, _ in recordings}) > 1:
            told = ", ".join(f"{source!r} at {source.speed:g}" for source, _ in recordings)
            raise ConfigError(f"recordings that are played together have one speed, not {told}")
        firsts = [(source.first_ns, source, route.holds_end) for source, route in recordings]
        begun = [(ns - holds_end, source) for ns, source, holds_end in firsts if ns is not None]
        if not begun:
            return None
        since_ns, earliest = min(begun, key=lambda pair: pair[0])
        clock = earliest.start()
        assert clock is not None
        for _, source in begun:
            if source is not earliest:
                source.start(clock)
        self._clock = clock
        return since_ns

    def _make_sinks(self) -> None:
        sinks = {id(sink): sink for stage in self._declared_stages for sink in stage.sinks}
        begin(sinks.values(), self._name, list(self._declared_stages))
        for key, sink in sinks.items():
            self._sinks[key] = self._make_sink(sink)

    def _make_sink(self, sink: Sink) -> SinkThread:
        self._made_sinks += 1
        name = f"run-task {self._name} sink {self._made_sinks}"
        about = sink, self._policy_of(sink), self._name, name
        return SinkThread(*about, SINK_CAPACITY, self._refusals, self._sink_failed)

    def _make_sources_and_stages(
        self, played: Sequence[Playback | None], since_ns: int | None
    ) -> None:
        stages = self._declared_stages
        for fates in self._fates:
            fates.time_ns = self._clock.time_ns
        wiring = self._wiring = Wiring(
            self._clock,
            Timeline(self._clock, _log),
            since_ns,
            all_recordings=bool(played) and None not in played,
            resumed=self._checkpointing is not None,
        )
        for (source, unit_ns, route), fates, playback in zip(
            self._declared_sources, self._fates, played, strict=True
        ):
            self._make_source(
                *(wiring, source, unit_ns, route, fates, playback), years=have_calendar(stages)
            )
        wiring.first_stages(
            stages,
            lambda stage: [self._sinks[id(s)] for s in stage.sinks],
            self._alarm.ring,
            self._before,
        )

    def _before(self, stage: AnyStage) -> StageCut | None:
        """How far an earlier run had come with a stage."""
        if self._checkpointing is None:
            return None
        grid = grid_of(stage, self._declared_stages[stage])
        return self._checkpointing.restoring.stage(stage, grid, len(stage.inputs))

    def _make_source(
        self,
        wiring: Wiring,
        source: Any,
        unit_ns: int,
        route: Route,
        fates: Fates,
        playback: Playback | None,
        *,
        years: bool,
    ) -> SourceThread:
        self._made_sources += 1
        name = f"run-task {self._name} source {self._made_sources}"
        return wiring.add_source(
            self._iterable(source),
            *(unit_ns, route, fates, playback, name),
            *(self._source_failed, partial(self._source_ended, route)),
            years=years,
        )

    # Changes. One at a time: that is for the caller to see to.

    def _changeable(self) -> Wiring:
        """What is to be changed, under the lock.

        :raises RunTaskError: if the run comes to its end, or is only about to begin
        """
        if self._wiring is None or self._finishing or self.lifecycle.phase >= Phase.STOPPING:
            raise RunTaskError(f"pipeline {self._name!r} ends, and cannot be changed any more")
        return self._wiring

    def configs(self) -> Mapping[AnyStage, RunnerConfig]:
        """How the stages behave that are at work."""
        return {live.stage: live.config for live in self._stages if not live.leaves}

    def add_stage(self, stage: AnyStage, config: RunnerConfig) -> None:
        """Let one more stage run.

        :raises RunTaskError: if the run comes to its end
        :raises Exception: if it cannot be started; then all is as before
        """
        with self._mutex:
            wiring = self._changeable()
            live = wiring.add_stage(stage, config, self._alarm.ring)
            wiring.stages = [*wiring.stages, live]
            wiring.arrange(self._upstream_first())
            try:
                live.start()  # before the end may begin, which stops what has started
            except BaseException:
                wiring.drop_stage(live)
                wiring.arrange(self._upstream_first())
                raise

    def remove_stage(self, stage: AnyStage) -> None:
        """Let a stage run what is due, and end. Returns at once.

        :raises RunTaskError: if the run comes to its end
        """
        with self._mutex:
            wiring = self._changeable()
            live = wiring.find(stage)
            if live is None:
                return  # it has ended by itself
            live.leave(wiring.now_ns)
            self._leaving.append(StageRemoval(live, Deadline(live.config.shutdown_timeout)))
        self._alarm.ring()

    def add_source(
        self, sources: Sequence[tuple[Any, int, Route]], fates: Sequence[Fates], name: str
    ) -> None:
        """Read one more source.

        :param sources: the source, once for each of its ways, as for the run
        :param fates: counts what becomes of its rows, each way
        :param name: what it is called
        :raises RunTaskError: if the run comes to its end
        :raises Exception: if it cannot be read
        """
        started = len(self._async_sources)
        ways = branched(sources, self._iterable, MOST)
        for counts in fates:
            counts.begin()
            counts.time_ns = self._clock.time_ns
        made: list[SourceThread] = []
        with self._mutex:
            wiring = self._changeable()
            years = have_calendar(self.configs())
            for (source, unit_ns, route), counts in zip(ways, fates, strict=True):
                way = self._make_source(wiring, source, unit_ns, route, counts, None, years=years)
                made.append(way)
            wiring.arrange(self._upstream_first())
            self._open_sources += len(made)
            self._fates = [*self._fates, *fates]
            if self._telemetry is not None:
                self._telemetry.add(fates)
            try:
                for async_source in self._async_sources[started:]:
                    if async_source not in self._late_sources:
                        async_source.start()
                for way in made:
                    way.start()
                self._commit_from_now_on()
            except BaseException:  # no thread can be had
                self._open_sources -= sum(not way.begun for way in made)
                self._part(made)
                raise

    def remove_source(self, routes: Sequence[Route]) -> None:
        """Close a source, and read it no more. Returns at once.

        :param routes: its ways
        """
        with self._mutex:
            self._part([source for source in self._sources if source.route in routes])

    def _part(self, sources: Sequence[SourceThread]) -> None:
        self._removed_routes += (source.route for source in sources)
        self._parting += sources
        for source in sources:
            source.stop()
        self._alarm.ring()

    def connect(self) -> None:
        """Take over where results go, from the next window of each stage on.

        :raises RunTaskError: if the run comes to its end
        """
        with self._mutex:
            self._changeable().arrange(self._upstream_first())

    def write_to(self, stage: AnyStage, sinks: Sequence[Sink]) -> None:
        """Let the results of a stage go to these sinks, from its next window on.

        :raises RunTaskError: if the run comes to its end
        :raises Exception: if a sink cannot begin
        """
        unknown = {id(sink): sink for sink in sinks if id(sink) not in self._sinks}
        begin(unknown.values(), self._name, [stage])
        made = {key: self._make_sink(sink) for key, sink in unknown.items()}
        declare(self._name, stage, stage.tasks)
        with self._mutex:
            live = self._changeable().find(stage)
            for thread in made.values():
                thread.start()
            self._sinks = {**self._sinks, **made}
            if live is not None:
                live.write_to([self._sinks[id(sink)] for sink in sinks])

    def has_all(self, sink: Sink, stage: str, given_up: threading.Event) -> bool:
        """Wait until a sink has all that its thread was given of a stage. Returns whether it has;
        or else it is away.

        :param given_up: set: nobody waits any more
        """
        thread = self._sinks.get(id(sink))
        return thread is not None and thread.has_all(stage, given_up)

    # Windows that are computed again

    def given_until_ns(self, stage: AnyStage) -> float:
        """The end of the last window of a stage whose results sinks have been given, in nanoseconds
        since the Unix epoch; infinitely long ago: there is none; infinity: it has ended.

        :raises RunTaskError: if the run comes to its end
        """
        with self._mutex:
            live = self._changeable().find(stage)
        if live is None:
            return NEVER
        mark = live.mark
        next_ns = max(mark.first_ns, mark.done_ns)
        if next_ns == _NO_WINDOW:
            return _NO_WINDOW
        given_ns = mark.windows.floor_ns(next_ns - 1)
        return mark.windows.floor_ns(given_ns - 1) if mark.sending else given_ns

    def write_again(
        self,
        stage: AnyStage,
        sinks: Sequence[Sink],
        results: Iterable[tuple[AnyStage, Iterable[AnyDataSet]]],
        note: Callable[[AnyDataSet], object],
    ) -> None:
        """Write results of windows again, behind what sinks have been given by now, and wait until
        they last.

        :param results: the results; they are asked for once all that was given before lasts
        :param note: called with each that was written
        :raises RunTaskError: if the run comes to its end meanwhile, or a sink fails
        """
        threads = [self._sinks[id(sink)] for sink in sinks]
        try:
            self._flushed(threads)
            for _, datasets in results:
                for dataset in datasets:
                    for thread in threads:
                        thread.write(stage.name, dataset)
                    note(dataset)
            self._flushed(threads)
        except ChannelClosed as error:
            raise RunTaskError(
                f"recompute({stage.name!r}): pipeline {self._name!r} has come to its end, or a "
                f"sink has failed, before all was written: call it again"
            ) from error

    def _flushed(self, threads: Sequence[SinkThread]) -> None:
        """Wait until sinks have flushed all that they have been given by now, and not only have it
        in a spool.

        :raises ChannelClosed: if they do not any more
        """
        for thread in threads:
            flushed = thread.flushed()
            while not flushed.wait(_LOOK) or thread.stats.spooled:
                if thread.is_over:
                    if flushed.is_set() and not thread.stats.spooled:
                        break
                    raise ChannelClosed(f"{thread!r} takes nothing more")
                if flushed.is_set():
                    time.sleep(_LOOK)

    def _let_go(self) -> float | None:
        """Let go of what was removed and has ended. Returns when to look again, in seconds."""
        soonest: float | None = None
        for source in tuple(self._parting):
            if not (source.closed(0.0) and source.join(0.0)):
                soonest = _AGAIN if source.left(0.0) else soonest
                continue
            with self._mutex:
                if self.lifecycle.phase >= Phase.STOPPING:
                    return None  # it is seen to with all others
                self._parting.remove(source)
                assert self._wiring is not None
                self._last_rows.append((source.route, source.last_ns, source.arrived_ns))
                self._wiring.drop_source(source)
                self._wiring.arrange(self._upstream_first())
            _log.info("%s: %s, which was removed, has ended", self._name, source.route.origin)
        for leaving in tuple(self._leaving):
            wait = leaving.look()
            if wait is not None:
                soonest = wait if soonest is None else min(soonest, wait)
                continue
            with self._mutex:
                if self.lifecycle.phase >= Phase.STOPPING:
                    return None  # it is seen to with all others
                live = leaving.live
                self._leaving.remove(leaving)
                assert self._wiring is not None
                self._gone[live.stage.name] = self._stats_of(live)
                self._wiring.drop_stage(live)
                self._wiring.arrange(self._upstream_first())
            if live.failure is not None:
                add_note(live.failure, f"in {live!r}")
                self.failures.append(live.failure)
            _log.info("%s: stage %r, which was removed, has ended", self._name, live.stage.name)
        return soonest

    def _stats_of(self, live: LiveStage) -> RunnerStats:
        """The stats of a stage, after those of one that had its name before."""
        before = self._gone.get(live.stage.name)
        return live.stats if before is None else one_after_another(before, live.stats)

    # The end

    def _source_failed(self, failure: BaseException) -> None:
        _log.error("%s: a source ends: %s", self._name, described(failure))
        self.failures.append(failure)

    def _source_ended(self, route: Route) -> None:
        with self._mutex:
            self._open_sources -= 1
            if route in self._removed_routes:
                self._alarm.ring()
                return
            # Recordings go on in a shutdown, and may come to their end: live sources are closed.
            on_their_own = self.lifecycle.phase < Phase.STOPPING or all(
                source.mark.recording for source in self._sources
            )
            if self._open_sources == 0 and on_their_own:
                assert self._wiring is not None
                if self._wiring.lags.end():
                    self.shutdown()
                else:
                    self._finish()
        self._alarm.ring()

    def _sink_failed(self, failure: BaseException) -> None:
        _log.error("%s ends, since a sink has failed: %s", self._name, described(failure))
        self.failures.append(failure)
        self._sinks_failed = True
        self.shutdown()

    def _watch_over(self) -> None:
        try:
            while self.lifecycle.phase < Phase.STOPPING:
                soonest = self._let_go()
                staying = [live for live in self._stages if not live.leaves]
                if staying and all(live.mark.ended for live in staying):
                    break
                if self._telemetry is not None:
                    soonest = min(_TOLD_EVERY, _TOLD_EVERY if soonest is None else soonest)
                self._alarm.wait(soonest)
                if self._telemetry is not None:
                    self._telemetry.tell()
            self._stop()
        except BaseException as error:  # else it would be lost, and the end never reached
            self.failures.append(error)
            for live in self._stages:
                live.shutdown()
        if self._wiring is not None:
            self._wiring.catch_up.end()
        if self._checkpoints is not None:
            self._checkpoints.close(whole=self._ended_whole, timeout=self._timeout)
        elif self._checkpointing is not None:
            self._checkpointing.keeper.close()
        self.lifecycle.advance(Phase.ENDED)

    def _finish(self) -> None:
        """All sources have ended: let every stage run the window that sees the last row, and those
        that still hold one, at once, since there is nothing left to wait for."""
        self._finishing = True
        now_ns = self._now_ns()
        if now_ns is None or all(live.leaves for live in self._stages):
            self.shutdown()
            return
        own: dict[int, float] = {}  # the last row that entered some data, by the data's id
        lasts = [(source.route, source.last_ns, source.arrived_ns) for source in self._sources]
        for route, row_ns, _ in (*lasts, *self._last_rows):
            into = id(route.into)
            own[into] = max(own.get(into, _NO_WINDOW), row_ns)
        last_ns: float = max(own.values())
        arrived_ns: float = max(arrival_ns for _, _, arrival_ns in (*lasts, *self._last_rows))
        if not any(source.mark.recording for source in self._sources):
            last_ns, arrived_ns = max(last_ns, now_ns), max(arrived_ns, now_ns)
        for live in self._stages:
            stage, edges = live.stage, live.edges
            read = max(own.get(id(data), _NO_WINDOW) for data in stage.inputs)
            edges.limit(last_ns, read, arrived_ns)
            for route in stage.routes:
                before = own.get(id(route.into), _NO_WINDOW)
                own[id(route.into)] = max(before, edges.results_until_ns)
        for live in self._stages:
            live.limit(live.edges.last_ns)
        for live in self._stages:
            live.finish(at_once=True)

    def _now_ns(self) -> int | None:
        """The time; None if the clock fails, which is one of the program's own."""
        try:
            return self._clock.time_ns()
        except BaseException as error:
            self.failures.append(error)
            return None

    def _stop(self) -> None:
        """Stop what still runs, upstream first, so that each gets what those before it have."""
        deadline = Deadline(self._timeout)
        with self._mutex:  # a source that has just ended has done what it does then
            self.lifecycle.advance(Phase.STOPPING)
        if self._checkpoints is not None:
            self._checkpoints.stop()
            self._checkpoints.join(min(_NEXT_ROW, self._timeout))
        if self._commits is not None:  # before they are closed
            self._commits.stop()
            self._commits.join(min(_NEXT_ROW, self._timeout))
        if self._wiring is not None:
            self._wiring.lags.stop()
        for source in self._sources:
            if not source.mark.recording:
                source.stop()
        closing = Deadline(min(_NEXT_ROW, self._timeout))
        for source in self._sources:
            source.closed(closing.remaining())
        begun = [live for live in self._stages if live.started]
        have_all_begun = len(begun) == len(self._stages)  # else it ended while it was started
        now_ns = self._now_ns()
        limited = [] if now_ns is None else begun
        for live in limited:
            live.limit((now_ns or 0) - live.mark.grace_ns)
        for live in limited:  # what is due gets the rows of recordings that it is still to see
            live.finish(at_once=False)
            while not live.mark.ended and not deadline.passed:
                self._alarm.wait(deadline.remaining())
        if self._wiring is not None:
            self._wiring.coordinator.release()
        for source in self._sources:
            source.stop()
        for live in begun:
            live.shutdown()
        if hung_stages := [live for live in begun if not live.wait(deadline.remaining())]:
            deadline = Deadline(DELIVERY)
            self._give_up(hung_stages, Deadline(DELIVERY / 2))
        elif _seconds(deadline) < DELIVERY:
            deadline = Deadline(DELIVERY)  # stages have taken all there was
        for live in begun:
            if live.failure is not None:
                add_note(live.failure, f"in {live!r}")
                self.failures.append(live.failure)
        for sink in self._sinks.values():
            sink.close()
        hung = self._end_sinks(deadline)
        # Sinks that took all of the time do not make it seem that sources hang, too.
        hung += self._end_sources(Deadline(max(_seconds(deadline), _LEAST)))
        self._refusals.log_rest()
        for fates in self._fates:
            fates.log_rest()
            fates.close()
        if self._telemetry is not None:
            self._telemetry.tell()
        is_written = not hung and not hung_stages and not self._sinks_failed
        self._ended_whole = have_all_begun and is_written
        if hung:
            self.failures.append(ShutdownTimeout(self._name, self._timeout, hung))

    def _give_up(self, hung: Sequence[LiveStage], deadline: Deadline) -> None:
        """Give up on stages: first on their tasks, so that the rest is delivered, then on them."""
        self.lifecycle.advance(Phase.ABANDONED)
        for live in hung:
            live.abandon()
        while not all(live.mark.ended for live in hung) and not deadline.passed:
            self._alarm.wait(deadline.remaining())
        # They have nothing more to deliver. Tasks that hang are not waited for.
        at_once = Deadline(_AT_ONCE)
        for live in hung:
            if not live.wait(min(_seconds(at_once), _seconds(deadline))):
                live.give_up()

    def _end_sources(self, deadline: Deadline) -> list[str]:
        """Wait for the ends of sources. Returns those that are being closed for too long."""
        row = Deadline(_NEXT_ROW)
        hung: list[str] = []
        for source in self._sources:
            if not source.closed(_seconds(deadline)):
                hung.append(f"closing {source!r}")
            elif not source.left(min(_seconds(row), _seconds(deadline))) and not (
                source.is_entering and source.left(_seconds(deadline))
            ):
                doing = "lets rows enter" if source.is_entering else "waits for a row"
                _log.warning("%s: %r still %s, and is left", self._name, source, doing)
            elif not source.join(_seconds(deadline)):
                hung.append(f"closing {source!r}")
        hung += (
            f"closing {source!r}"
            for source in self._async_sources
            if not source.join(_seconds(deadline))
        )
        return hung

    def _end_sinks(self, deadline: Deadline) -> list[str]:
        """Wait until all is written. Returns the sinks that take too long."""
        hung: list[str] = []
        for sink in self._sinks.values():
            if not sink.join(_seconds(deadline)):
                lost = sink.abandon()
                told = f", {lost} results are not written" if lost else ""
                hung.append(f"writing to {sink!r}{told}")
        return hung


def _seconds(deadline: Deadline) -> float:
    """How many seconds are left, as a thread can be waited for."""
    left = deadline.remaining()
    return threading.TIMEOUT_MAX if left is None else min(left, threading.TIMEOUT_MAX)
