"""One live run of a pipeline: its beginning, and its end in order, upstream first."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from run_task.data import Closed, TimeSeries
from run_task.errors import ConfigError, ShutdownTimeout, add_note, described
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.pipeline._branches import MOST, branched
from run_task.pipeline._edges import Edges
from run_task.pipeline._entrance import Entrance
from run_task.pipeline._fates import Fates
from run_task.pipeline._given import GivenWindows
from run_task.pipeline._graph import have_calendar
from run_task.pipeline._held_units import begin
from run_task.pipeline._order import NEVER, Order, Place, SourceMark, StageMark
from run_task.pipeline._refusals import Refusals
from run_task.pipeline._route import Route
from run_task.pipeline._row_telemetry import RowTelemetry
from run_task.pipeline._stage import AnyStage
from run_task.pipeline.live._catch_up import CatchUp
from run_task.pipeline.live._coordinator import Coordinator
from run_task.pipeline.live._early_rows import EarlyRows
from run_task.pipeline.live._early_views import EarlyViews
from run_task.pipeline.live._row_gate import RowGate
from run_task.pipeline.live._sink_thread import SinkThread
from run_task.pipeline.live._source_thread import SourceThread
from run_task.pipeline.live._stage import LiveStage
from run_task.runner._config import Align, RunnerConfig
from run_task.runner._stats import RunnerStats
from run_task.runner._timeline import Timeline
from run_task.runner._window_grid import windows_of
from run_task.sinks._protocol import DurableSink
from run_task.sources._protocol import Playback, about
from run_task.sync._alarm import Alarm
from run_task.sync._fork import forget_after_fork
from run_task.sync._lifecycle import Lifecycle, Phase
from run_task.sync._waiting import Deadline
from run_task.tasks._task import Runnable
from run_task.time._clock import Clock, SystemClock

_log = Log(__name__)

SINK_CAPACITY: Final = 1024
"""How many DataSets may wait for a sink, before the stages that fill it have to wait, too."""

_NO_WINDOW: Final = -NEVER
"""A time before all windows."""

_NEXT_ROW: Final = 0.5
"""How many seconds a source has to return from waiting for a row that is no longer needed."""

_DELIVERY: Final = 0.5
"""How many seconds there are to deliver what is there, once what hangs was given up."""

_AT_ONCE: Final = 0.1
"""How many seconds a stage has to end in once it has delivered everything."""

_TOLD_EVERY: Final = 5.0
"""After how many seconds at the latest OpenTelemetry is told of rows."""

_LEAST: Final = 0.1
"""How many seconds sources have to end at least, once sinks have."""


class LiveRun:
    """One live run of a pipeline.

    :param name: the pipeline's name
    :param stages: the stages, those that are fed after those that feed them, and how they behave
    :param sources: the sources, how many nanoseconds the unit of each has, and where its rows go
    :param fates: counts what becomes of the rows of each source
    :param clock: where to read the time, unless a source brings its own; None: the machine's
    :param refusals: counts the results that sinks cannot store
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
    ) -> None:
        self._name = name
        self._refusals = refusals
        self._declared_stages = stages
        self._async_sources: list[Any] = []
        self._declared_sources = branched(sources, self._iterable, MOST)
        self._fates = fates
        self._telemetry = RowTelemetry.if_set_up(name, fates, live=True)
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._alarm = Alarm()
        self._mutex = threading.Lock()
        self._open_sources = len(sources)
        self._timeout = max(config.shutdown_timeout for config in stages.values())
        self._sinks: dict[int, SinkThread] = {}  # by the id of the sink
        self._sources: list[SourceThread] = []
        self._stages: list[LiveStage] = []
        self._early_views: dict[tuple[StageMark, Place], EarlyViews | None] = {}
        self._coordinator: Coordinator | None = None
        self._catch_up: CatchUp | None = None
        thread = f"run-task {name} pipeline"
        self._thread = threading.Thread(target=self._watch_over, name=thread, daemon=True)
        self.failures: list[BaseException] = []
        self.lifecycle: Final = Lifecycle()
        """How far it has come."""
        forget_after_fork(self)

    def start(self) -> None:
        """Start everything, and return.

        In a coroutine, async sources are read by its event loop; else each has one of its own.

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
            self._thread.start()
            self.lifecycle.advance(Phase.RUNNING)
            for sink in self._sinks.values():
                sink.start()
            for stage in self._stages:
                stage.start()
            if self._catch_up is not None:
                self._catch_up.begin()
            for async_source in self._async_sources:
                async_source.start()
            for source in self._sources:
                source.start()
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
    def clock(self) -> Clock:
        """Where it reads the time."""
        return self._clock

    def pause(self, stage: AnyStage) -> None:
        """Take over whether a stage is paused, from its next window on."""
        for live in self._stages:
            if live.stage is stage:
                live.mark.paused = stage.is_paused

    def change_tasks(self, stage: AnyStage, tasks: Sequence[Runnable[Any, Any]]) -> None:
        """Let a stage run other tasks, from its next window on.

        :raises RunTaskError: if it ends
        """
        for live in self._stages:
            if live.stage is stage:
                live.change_tasks(tasks)

    def stats(self) -> tuple[Mapping[str, RunnerStats], int, int]:
        """How the stages have been doing, and how many DataSets wait for sinks, or were lost there.
        At any time, from any thread."""
        stages = {live.stage.name: live.stats for live in tuple(self._stages)}
        sinks = tuple(self._sinks.values())
        return stages, sum(map(len, sinks)), sum(sink.lost for sink in sinks)

    def settle(self) -> None:
        """Once it has ended, wait for the thread that brought the end about."""
        if self._thread.ident is not None:  # it has been started
            self._thread.join()

    def after_fork(self) -> None:
        """In a forked child, none of the threads is there that would bring it to its end."""
        self.lifecycle.after_fork()

    # The beginning

    def _iterable(self, source: Any) -> Any:
        """A source, for threads: one that is async is read by an event loop."""
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
        for number, (key, sink) in enumerate(sinks.items(), 1):
            if isinstance(sink, DurableSink):
                begin(sink, self._name, self._declared_stages)
            name = f"run-task {self._name} sink {number}"
            self._sinks[key] = SinkThread(
                sink, self._name, name, SINK_CAPACITY, self._refusals, self._sink_failed
            )

    def _make_sources_and_stages(
        self, played: Sequence[Playback | None], since_ns: int | None
    ) -> None:
        stages = self._declared_stages
        places: dict[int, Place] = {}  # by the id of the data

        def place_of(data: Any) -> Place:
            return places.setdefault(id(data), _place(data))

        timeline = Timeline(self._clock, _log)
        for fates in self._fates:
            fates.time_ns = self._clock.time_ns
        # A grid that begins with the run begins at one time for all who ask where it lies.
        begins = {
            stage: timeline.now_ns if since_ns is None and config.align is Align.START else since_ns
            for stage, config in stages.items()
        }
        stage_marks = {
            stage: StageMark(
                stage.name,
                windows_of(stage.interval, config.window, config.align, begins[stage] or 0),
                config.grace_ns,
                [place_of(data) for data in stage.inputs],
                [(place_of(route.into), route.in_order) for route in stage.routes],
            )
            for stage, config in stages.items()
        }
        source_marks = [
            SourceMark(brief(source), place_of(route.into), recording=playback is not None)
            for (source, _, route), playback in zip(self._declared_sources, played, strict=True)
        ]
        order = Order(list(stage_marks.values()), source_marks)
        coordinator = self._coordinator = Coordinator(order, self._clock)
        timeouts = {mark: stages[stage].upstream_timeout for stage, mark in stage_marks.items()}
        entered: list[Any] = [*(route.into for _, _, route in self._declared_sources)]
        entered += (data for stage in stages for data in stage.inputs)
        given = {id(data): GivenWindows(data) for data in entered}
        years = have_calendar(stages)
        catch_up = self._catch_up = CatchUp(self._clock)
        all_recordings = bool(source_marks) and all(mark.recording for mark in source_marks)
        for number, ((declared, unit_ns, route), fates, playback, mark) in enumerate(
            zip(self._declared_sources, self._fates, played, source_marks, strict=True), 1
        ):
            name = f"run-task {self._name} source {number}"
            source = self._iterable(declared)
            timeout = max(timeouts[reader] for reader in order.readers(mark))
            gates = [RowGate(mark, timeout, self._early_views.get, coordinator) for _ in range(2)]
            entrances = [
                Entrance(route, unit_ns, fates, given[id(route.into)], years=years)
                for _ in range(2)
            ]
            if not mark.recording:  # for rows of a recording, windows wait in any case
                catch_up.add(mark, entrances[0].tally)
            early = EarlyRows(
                entrances[1],
                mark,
                gates[1],
                coordinator,
                timeline,
                f"{name}, early",
            )
            self._sources.append(
                SourceThread(
                    source,
                    playback,
                    entrances[0],
                    mark,
                    gates[0],
                    early,
                    coordinator,
                    name,
                    self._source_failed,
                    self._source_ended,
                )
            )
        now_ns = timeline.now_ns
        for stage, config in stages.items():
            stage_mark = stage_marks[stage]
            begins_ns = begins[stage]
            begun_ns = now_ns if begins_ns is None else begins_ns
            edges = Edges(stage_mark.windows, config, begun_ns)
            around = [timeouts[other] for other in order.around_results(stage_mark)]
            live = LiveStage(
                stage,
                config,
                stage_mark,
                [self._sinks[id(sink)] for sink in stage.sinks],
                [(place_of(data), given[id(data)]) for data in stage.inputs],
                max(config.upstream_timeout, *around) if around else config.upstream_timeout,
                self._early_views.get,
                coordinator,
                catch_up,
                self._clock,
                timeline,
                # A grid that begins with the run begins there; another one lies where it lies.
                begun_ns if config.align is Align.START else edges.first_ns - 1,
                edges,
                [given[id(r.into)] for r in stage.routes if id(r.into) in given],
                self._alarm.ring,
                all_recordings=all_recordings,
            )
            for one in live.inputs:
                self._early_views[stage_mark, one.place] = one.early_views
            self._stages.append(live)

    # The end

    def _source_failed(self, failure: BaseException) -> None:
        _log.error("%s: a source ends: %s", self._name, described(failure))
        self.failures.append(failure)

    def _source_ended(self) -> None:
        with self._mutex:
            self._open_sources -= 1
            # Recordings go on in a shutdown, and may come to their end: live sources are closed.
            on_their_own = self.lifecycle.phase < Phase.STOPPING or all(
                source.mark.recording for source in self._sources
            )
            if self._open_sources == 0 and on_their_own:
                self._finish()
        self._alarm.ring()

    def _sink_failed(self, failure: BaseException) -> None:
        _log.error("%s ends, since a sink has failed: %s", self._name, described(failure))
        self.failures.append(failure)
        self.shutdown()

    def _watch_over(self) -> None:
        try:
            while self.lifecycle.phase < Phase.STOPPING:
                if all(live.mark.ended for live in self._stages):
                    break
                self._alarm.wait(None if self._telemetry is None else _TOLD_EVERY)
                if self._telemetry is not None:
                    self._telemetry.tell()
            self._stop()
        except BaseException as error:  # else it would be lost, and the end never reached
            self.failures.append(error)
            for live in self._stages:
                live.shutdown()
        if self._catch_up is not None:
            self._catch_up.end()
        self.lifecycle.advance(Phase.ENDED)

    def _finish(self) -> None:
        """All sources have ended: let every stage run the window that sees the last row, and those
        that still hold one, at once, since there is nothing left to wait for."""
        now_ns = self._now_ns()
        if now_ns is None:
            self.shutdown()
            return
        own: dict[int, float] = {}  # the last row that entered some data, by the data's id
        for source in self._sources:
            into = id(source.route.into)
            own[into] = max(own.get(into, _NO_WINDOW), source.last_ns)
        last_ns: float = max(own.values())
        arrived_ns: float = max(source.arrived_ns for source in self._sources)
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
        for source in self._sources:
            if not source.mark.recording:
                source.stop()
        closing = Deadline(min(_NEXT_ROW, self._timeout))
        for source in self._sources:
            source.closed(closing.remaining())
        begun = [live for live in self._stages if live.started]
        now_ns = self._now_ns()
        limited = [] if now_ns is None else begun
        for live in limited:
            live.limit((now_ns or 0) - live.mark.grace_ns)
        for live in limited:  # what is due gets the rows of recordings that it is still to see
            live.finish(at_once=False)
            while not live.mark.ended and not deadline.passed:
                self._alarm.wait(deadline.remaining())
        if self._coordinator is not None:
            self._coordinator.release()
        for source in self._sources:
            source.stop()
        for live in begun:
            live.shutdown()
        if hung_stages := [live for live in begun if not live.wait(deadline.remaining())]:
            deadline = Deadline(_DELIVERY)
            self._give_up(hung_stages, Deadline(_DELIVERY / 2))
        elif _seconds(deadline) < _DELIVERY:
            deadline = Deadline(_DELIVERY)  # stages have taken all there was
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
            elif not source.left(min(_seconds(row), _seconds(deadline))):
                _log.warning("%s: %r still waits for a row, and is left", self._name, source)
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


def _place(data: object) -> Place:
    """What the order has to know of shared data."""
    if not isinstance(data, TimeSeries):
        return Place()
    return Place(
        bounded=True,
        evicts=data.retention is not None,
        holds_end=data.closed is Closed.RIGHT,
    )
