"""The stages and sources of a live run, at work, and what they know of each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from run_task.observe._format import brief
from run_task.pipeline._edges import Edges
from run_task.pipeline._entrance import Entrance
from run_task.pipeline._fates import Fates
from run_task.pipeline._lacking import Lacking
from run_task.pipeline._order import NEVER, Order, Place, SourceMark, StageMark
from run_task.pipeline._route import Route
from run_task.pipeline._stage import AnyStage
from run_task.pipeline.checkpoint._cut import StageCut
from run_task.pipeline.live._catch_up import CatchUp
from run_task.pipeline.live._coordinator import Coordinator
from run_task.pipeline.live._early_rows import EarlyRows
from run_task.pipeline.live._early_views import EarlyViews
from run_task.pipeline.live._known_data import KnownDatas
from run_task.pipeline.live._lags import Lags
from run_task.pipeline.live._row_gate import RowGate
from run_task.pipeline.live._sink_thread import SinkThread
from run_task.pipeline.live._source_thread import SourceThread
from run_task.pipeline.live._stage import LiveStage
from run_task.runner._config import Align, RunnerConfig
from run_task.runner._timeline import Timeline
from run_task.runner._window_grid import WindowGrid, windows_of
from run_task.sources._positioned import merging, positioned
from run_task.sources._protocol import Arriving, Playback
from run_task.time._clock import Clock


class Wiring:
    """Makes the stages and sources of one run, and keeps the order among them up to date.

    :param clock: where to read the time
    :param timeline: the time, which all stages share
    :param since_ns: a time in the window that holds the first row; None: there are no recordings
    :param all_recordings: whether all rows that enter are recordings', which can wait
    :param resumed: whether another run goes on from this one
    """

    def __init__(
        self,
        clock: Clock,
        timeline: Timeline,
        since_ns: int | None,
        *,
        all_recordings: bool,
        resumed: bool,
    ) -> None:
        self._clock = clock
        self._timeline = timeline
        self._since_ns = since_ns
        self._all_recordings = all_recordings
        self._datas = KnownDatas()
        self._begun_ns = timeline.now_ns if since_ns is None else since_ns
        self.coordinator = Coordinator(Order([], []), clock)
        self.catch_up = CatchUp(clock)
        self.lags = Lags(self.coordinator, clock, resumed=resumed)
        """Which sources are behind."""
        self._early_views: dict[tuple[StageMark, Place], EarlyViews | None] = {}
        self._gates: dict[SourceMark, Sequence[RowGate]] = {}
        # Replaced, and never changed, since others look at them at any time.
        self.stages: Sequence[LiveStage] = ()
        """Those that are fed after those that feed them."""
        self.sources: Sequence[SourceThread] = ()

    @property
    def now_ns(self) -> int:
        """The time, in nanoseconds since the Unix epoch."""
        return self._timeline.now_ns

    def find(self, stage: AnyStage) -> LiveStage | None:
        """A stage at work, unless it is leaving."""
        return next((live for live in self.stages if live.stage is stage and not live.leaves), None)

    # The beginning

    def first_stages(
        self,
        stages: Mapping[AnyStage, RunnerConfig],
        sinks: Callable[[AnyStage], Sequence[SinkThread]],
        on_end: Callable[[], None],
        before: Callable[[AnyStage], StageCut | None],
    ) -> None:
        """Make the stages that there are when the run begins."""
        # A grid that begins with the run begins at one time for all who ask where it lies.
        for stage, config in stages.items():
            since_ns = self._since_ns
            if since_ns is None and config.align is Align.START:
                since_ns = self.now_ns
            cut = before(stage)
            if cut is not None:
                self._add_restored(stage, config, cut, sinks(stage), on_end)
                continue
            windows = windows_of(stage.interval, config.window, config.align, since_ns or 0)
            mark = self._mark(stage, config, windows)
            begun_ns = self.now_ns if since_ns is None else since_ns
            edges = Edges(windows, config, begun_ns)
            # A grid that begins with the run begins there; another one lies where it lies.
            first_ns = begun_ns if config.align is Align.START else edges.first_ns - 1
            live = self._make(stage, config, mark, edges, first_ns, sinks(stage), on_end)
            self.stages = [*self.stages, live]
        self.arrange(stages)

    # Stages

    def _add_restored(
        self,
        stage: AnyStage,
        config: RunnerConfig,
        cut: StageCut,
        sinks: Sequence[SinkThread],
        on_end: Callable[[], None],
    ) -> None:
        """Make a stage that goes on where an earlier run was."""
        before_ns = cut.next_ns - 1
        windows = windows_of(stage.interval, config.window, config.align, cut.origin_ns, before_ns)
        edges = Edges(windows, config, before_ns, before_ns)
        edges.given_from_ns = cut.given_from_ns
        mark = self._mark(stage, config, windows)
        live = self._make(stage, config, mark, edges, before_ns, sinks, on_end, before=cut)
        self.stages = [*self.stages, live]

    def add_stage(
        self, stage: AnyStage, config: RunnerConfig, on_end: Callable[[], None]
    ) -> LiveStage:
        """Make a stage that begins with the first window that is not due yet, and of which all rows
        are there. It is to be arranged, and started."""
        now_ns = self.now_ns
        windows = windows_of(stage.interval, config.window, config.align, now_ns)
        mark = self._mark(stage, config, windows)
        end_ns = windows.first_end_ns
        if config.align is Align.EPOCH:
            end_ns = windows.after_ns(now_ns - config.grace_ns)
            known = [self._datas.find(data, now_ns) for data in stage.inputs]
            whole_ns = max(one.whole_from_ns for one in known)
            while windows.start_ns(end_ns) < min(whole_ns, now_ns):
                end_ns = windows.after_ns(end_ns)
        edges = Edges(windows, config, end_ns - 1, end_ns - 1)
        first_ns = now_ns if config.align is Align.START else end_ns - 1
        mark.first_ns = end_ns  # nobody waits to know it
        return self._make(stage, config, mark, edges, first_ns, (), on_end, added=True)

    def _mark(self, stage: AnyStage, config: RunnerConfig, windows: WindowGrid) -> StageMark:
        reads = [self._datas.find(data, self._begun_ns_of()).place for data in stage.inputs]
        return StageMark(stage.name, windows, config.grace_ns, reads)

    def _begun_ns_of(self) -> float:
        """From when on what is new enters: from the beginning, until that is over."""
        return self._begun_ns if not self.coordinator.arranged else self.now_ns

    def _make(
        self,
        stage: AnyStage,
        config: RunnerConfig,
        mark: StageMark,
        edges: Edges,
        first_ns: int,
        sinks: Sequence[SinkThread],
        on_end: Callable[[], None],
        *,
        added: bool = False,
        before: StageCut | None = None,
    ) -> LiveStage:
        known = [self._datas.find(data, self._begun_ns_of()) for data in stage.inputs]
        return LiveStage(
            stage,
            config,
            mark,
            sinks,
            [(one.place, one.given) for one in known],
            self._early_views.get,
            self.coordinator,
            self.catch_up,
            self.lags,
            self._clock,
            self._timeline,
            first_ns,
            edges,
            on_end,
            all_recordings=self._all_recordings,
            added=added,
            before=before,
            origin_ns=None if before is None else before.origin_ns,
        )

    def arrange(self, stages: Mapping[AnyStage, RunnerConfig] | Sequence[AnyStage]) -> None:
        """Have all know of each other, as the stages are connected now.

        :param stages: the stages, those that are fed after those that feed them
        """
        rank = {stage: number for number, stage in enumerate(stages)}
        lives: Sequence[LiveStage]
        lives = sorted(self.stages, key=lambda live: rank.get(live.stage, -1))
        if any(live.leaves for live in lives):
            lives = _upstream_first(lives)
        for live in lives:
            for one in live.inputs:
                self._early_views[live.mark, one.place] = one.early_views
        Lacking.connect({live.lacking: live.stage for live in lives})
        with self.coordinator.arranging() as order:
            for live in lives:
                live.mark.enter(
                    [
                        (self._entered(live, route).place, route.in_order)
                        for route in live.stage.routes
                    ]
                )
            order.arrange([live.mark for live in lives], [one.mark for one in self.sources])
            timeouts = {live.mark: live.config.upstream_timeout for live in lives}
            for source in self.sources:
                read_by = [timeouts[reader] for reader in order.readers(source.mark)]
                for gate in self._gates[source.mark]:
                    gate.timeout = max(read_by, default=gate.timeout)
                    gate.forget()
            for live in lives:
                around = [timeouts[other] for other in order.around_results(live.mark)]
                live.arranged(
                    max(live.config.upstream_timeout, *around, 0.0),
                    [self._entered(live, route).given for route in live.stage.routes],
                )
        self.stages = lives

    def _entered(self, live: LiveStage, route: Route) -> Any:
        """What is known of data that results enter: all from the next window on are in it."""
        mark = live.mark
        next_ns = max(mark.first_ns, mark.done_ns)
        since_ns = self.now_ns if next_ns == -NEVER else mark.windows.start_ns(next_ns)
        return self._datas.find(route.into, since_ns)

    def drop_stage(self, live: LiveStage) -> None:
        """A stage that was leaving has ended. It is to be arranged."""
        live.drop()
        for one in live.inputs:
            self._early_views.pop((live.mark, one.place), None)
        self.stages = [other for other in self.stages if other is not live]

    # Sources

    def add_source(
        self,
        source: Any,
        unit_ns: int,
        route: Route,
        fates: Fates,
        playback: Playback | None,
        name: str,
        failed: Callable[[BaseException], None],
        on_end: Callable[[], None],
        *,
        years: bool,
    ) -> SourceThread:
        """Make a source. It is to be arranged, and started."""
        known = self._datas.find(route.into, self._begun_ns_of())
        arriving = source if isinstance(source, Arriving) else None
        mark = SourceMark(
            brief(source),
            known.place,
            recording=playback is not None,
            settle=None if arriving is None else arriving.settle,
        )
        coordinator = self.coordinator
        gates = [RowGate(mark, 0.0, self._early_views.get, coordinator) for _ in range(2)]
        entrance = Entrance(route, unit_ns, fates, known.given, years=years)
        beside = Entrance(route, unit_ns, fates, known.given, years=years, seen=entrance.seen)

        def fail(error: BaseException) -> None:
            self.lags.note_failed(mark)
            failed(error)

        if not mark.recording:  # for rows of a recording, windows wait in any case
            self.catch_up.add(mark, entrance.tally)
        early = EarlyRows(*(beside, mark, gates[1], coordinator, self._timeline, f"{name}, early"))
        thread = SourceThread(
            *(source, playback, entrance, mark, gates[0], early, coordinator, name),
            *(fail, on_end),
        )
        if arriving is not None:
            arriving.begin(
                lambda: early.now_ns,
                lambda next_ns: coordinator.advance_source(mark, next_ns=next_ns),
            )
            # What comes from here on is kept, and so is to be gone on with, from the first row on.
            if (kept := positioned(source)) is not None:
                thread.progress.begin_at(kept.position, ())
        self._gates[mark] = gates
        tracked = positioned(source)
        if tracked is not None and not mark.recording:  # for a recording, windows wait in any case
            tally, idle_ns = entrance.tally, fates.policy.idle_ns
            entering = thread.progress.hand.locked
            if (merges := merging(tracked)) is not None:
                merges.wait_for_streams(idle_ns / 1e9)
            self.lags.add(mark, tracked, tally, idle_ns, lambda: thread.is_stopping, entering)
        self.sources = [*self.sources, thread]
        return thread

    def drop_source(self, source: SourceThread) -> None:
        """A source that was removed has ended. It is to be arranged."""
        self.catch_up.remove(source.mark)
        self.lags.remove(source.mark)
        self.sources = [other for other in self.sources if other is not source]
        del self._gates[source.mark]


def _upstream_first(lives: Sequence[LiveStage]) -> Sequence[LiveStage]:
    """Stages, those that are fed after those that feed them, also by way of such as are leaving."""

    def ordered(*, leaving: bool) -> Sequence[LiveStage]:
        fed_by = {
            live: [
                other
                for other in lives
                if other is not live
                and (leaving or not live.leaves)
                and any(
                    route.leads_to(data)
                    for route in other.stage.routes
                    for data in live.stage.inputs
                )
            ]
            for live in lives
        }
        return tuple(TopologicalSorter(fed_by).static_order())

    try:
        return ordered(leaving=True)
    except CycleError:  # by a way that was added since one of them was removed
        return ordered(leaving=False)
