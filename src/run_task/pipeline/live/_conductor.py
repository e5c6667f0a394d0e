"""Starts a live pipeline, waits for its end, and brings it about in order: upstream first."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from run_task.errors import ConfigError, ShutdownTimeout
from run_task.observe._log import Log
from run_task.pipeline._graph import AnyStage
from run_task.pipeline._refusals import Refusals
from run_task.pipeline._route import Route
from run_task.pipeline.live._sink_thread import Writer
from run_task.pipeline.live._source import LiveSource
from run_task.pipeline.live._stage import LiveStage
from run_task.pipeline.live._watermarks import Watermarks
from run_task.runner._config import RunnerConfig
from run_task.runner._stats import RunnerStats
from run_task.runner._timeline import Timeline
from run_task.sinks._protocol import DurableSink
from run_task.sync._alarm import Alarm, Bell
from run_task.time._clock import Clock, SystemClock

if TYPE_CHECKING:
    from run_task.pipeline.live._async_source import Pump

_log = Log(__name__)

SINK_CAPACITY: Final = 1024
"""How many DataSets may wait for a sink, before the stages that fill it have to wait, too."""

_NO_WINDOW: Final = -(2**63)
"""A time before all windows."""

_LAST_WORDS: Final = 0.5
"""How many seconds sources have to end, once nobody wants their rows any more."""


@runtime_checkable
class Played(Protocol):
    """A source that brings a time of its own: that of the recording which it plays."""

    @property
    def speed(self) -> float:
        """How many seconds of the recording pass in a second."""
        ...

    @property
    def first_ns(self) -> int | None:
        """The time of its first row, in nanoseconds since the Unix epoch; None: it has none."""
        ...

    def start(self, clock: Clock | None = None) -> Clock | None:
        """Let the time of the recording begin now.

        :param clock: that of another recording, played along with it; None: one of its own
        :return: the time of the recording
        """
        ...


class Conductor:
    """One live run of a pipeline.

    :param name: the pipeline's name
    :param stages: the stages, those that are fed after those that feed them, and how they behave
    :param sources: the sources, how many nanoseconds the unit of each has, and where its rows go
    :param clock: where to read the time, unless a source brings its own; None: the machine's
    :param refusals: counts the results that sinks cannot store
    :raises ConfigError: if two sources bring times that pass at different speeds
    """

    def __init__(
        self,
        name: str,
        stages: Mapping[AnyStage, RunnerConfig],
        sources: Sequence[tuple[Any, int, Route]],
        clock: Clock | None,
        refusals: Refusals,
    ) -> None:
        self._name = name
        self._refusals = refusals
        self._stages = stages
        self._declared = sources
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._marks = Watermarks()
        self._alarm = Alarm()
        self._stopping = False
        self._mutex = threading.Lock()
        self._open_sources = len(sources)
        self._patience = max(config.shutdown_timeout for config in stages.values())
        self._writers: dict[int, Writer] = {}  # by the id of the sink
        self._sources: list[LiveSource] = []
        self._live: list[LiveStage] = []
        self._pumps: list[Pump] = []
        self._bells: list[Bell] = []
        thread = f"run-task {name} conductor"
        self._thread = threading.Thread(target=self._conduct, name=thread, daemon=True)
        self.failures: list[BaseException] = []
        self.ended: bool = False

    def start(self) -> None:
        """Start everything, and return.

        In a coroutine, async sources are read by its event loop; else each has one of its own.

        :raises Exception: if something cannot be started; then nothing is left running
        """
        since_ns = self._play([s for s, _, _ in self._declared if isinstance(s, Played)])
        self._make_writers()
        self._make_sources()
        self._make_stages(since_ns)
        self._thread.start()
        try:
            for writer in self._writers.values():
                writer.start()
            for live in self._live:
                live.start()
            for pump in self._pumps:
                pump.start()
            for source in self._sources:
                source.start()
        except BaseException:
            self.shutdown()
            raise

    def shutdown(self) -> None:
        """Bring it to its end. Returns at once; safe in a signal handler."""
        self._stopping = True
        self._alarm.ring()

    def stats(self) -> tuple[Mapping[str, RunnerStats], Mapping[int, int], int]:
        """How the stages have been doing, how many rows have entered by the id of each route, and
        how many DataSets wait for sinks. At any time, from any thread."""
        stages = {live.stage.name: live.engine.stats for live in tuple(self._live)}
        rows = {id(source.route): source.entered for source in tuple(self._sources)}
        return stages, rows, sum(map(len, tuple(self._writers.values())))

    def wake_at_end(self, bell: Bell) -> None:
        """Ring a bell when all has ended."""
        self._bells.append(bell)
        if self.ended:
            bell.ring()

    def join(self) -> None:
        """See the thread off that brought the end about: it has nothing left to do."""
        self._thread.join()

    # The beginning

    def _play(self, played: Sequence[Played]) -> int | None:
        """Let the time of recordings begin. Returns that of the first row."""
        if len({source.speed for source in played}) > 1:
            told = ", ".join(f"{source!r} at {source.speed:g}" for source in played)
            raise ConfigError(f"recordings that are played together have one speed, not {told}")
        firsts = [(source.first_ns, source) for source in played]
        begun = [(first_ns, source) for first_ns, source in firsts if first_ns is not None]
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

    def _make_writers(self) -> None:
        sinks = {id(sink): sink for stage in self._stages for sink in stage.sinks}
        for number, (key, sink) in enumerate(sinks.items(), 1):
            if isinstance(sink, DurableSink):
                sink.begin(self._name)
            name = f"run-task {self._name} sink {number}"
            self._writers[key] = Writer(
                sink, self._name, name, SINK_CAPACITY, self._refusals, self._sink_failed
            )

    def _make_sources(self) -> None:
        for number, (declared, unit_ns, route) in enumerate(self._declared, 1):
            name = f"run-task {self._name} source {number}"
            source = declared
            if not hasattr(declared, "__iter__"):
                from run_task.pipeline.live._async_source import (
                    Pump,  # with asyncio, which others can do without
                )

                source = Pump(declared, f"{name}, async")
                self._pumps.append(source)
            self._sources.append(
                LiveSource(source, unit_ns, route, number, self._marks, name, self._source_ended)
            )

    def _make_stages(self, since_ns: int | None) -> None:
        timeline = Timeline(self._clock, _log)
        for index, (stage, config) in enumerate(self._stages.items()):
            writers = [self._writers[id(sink)] for sink in stage.sinks]
            ring = self._alarm.ring
            self._live.append(
                LiveStage(
                    stage,
                    config,
                    index,
                    writers,
                    self._marks,
                    self._clock,
                    timeline,
                    since_ns,
                    ring,
                )
            )
        rows = [(source.route, source) for source in self._sources if source.is_foreseen]
        ending = self._sources if len(rows) == len(self._sources) else ()
        for live in self._live:
            live.meet(self._live, rows, ending)
        for source in self._sources:
            same = [other for other in self._sources if other.route.leads_to(source.route.into)]
            source.beside = [other for other in same if other.is_foreseen and other is not source]
            source.readers = [live for live in self._live if live.reads(source.route.into)]
            source.rivals = [live for live in self._live if live.writes(source.route.into)]

    # The end

    def _source_ended(self, failure: BaseException | None) -> None:
        if failure is not None:
            _log.error("%s: a source ends: %r", self._name, failure)
            self.failures.append(failure)
        with self._mutex:
            self._open_sources -= 1
            if self._open_sources == 0 and not self._stopping:
                self._finish()
        self._alarm.ring()

    def _sink_failed(self, failure: BaseException) -> None:
        _log.error("%s ends, since a sink has failed: %r", self._name, failure)
        self.failures.append(failure)
        self.shutdown()

    def _conduct(self) -> None:
        try:
            while not (self._stopping or all(live.ended for live in self._live)):
                self._alarm.wait()
            self._stop()
        except BaseException as error:  # it would be lost, and the end waited for in vain
            self.failures.append(error)
        self.ended = True
        for bell in tuple(self._bells):
            bell.ring()

    def _finish(self) -> None:
        """All sources have ended: let every stage run the window that sees the last row."""
        last_ns = self._clock.time_ns()
        if any(source.is_foreseen for source in self._sources):
            lasts = [source.last_ns for source in self._sources if source.last_ns is not None]
            last_ns = max(lasts, default=_NO_WINDOW)
        for live in self._live:
            live.finish(last_ns)

    def _stop(self) -> None:
        """Stop what still runs, upstream first, so that each gets what those before it have."""
        deadline = time.monotonic() + self._patience
        with self._mutex:  # a source that has just ended is through with what it does then
            self._stopping = True
        for source in self._sources:
            if not source.is_foreseen:
                source.stop()
        now_ns = self._clock.time_ns()
        begun = [live for live in self._live if live.started]
        for live in begun:  # what is due gets the rows of recordings that it is still to see
            live.finish_due(now_ns)
            while not live.ended and (remaining := deadline - time.monotonic()) > 0:
                self._alarm.wait(remaining)
        self._marks.stop()
        for live in begun:
            live.engine.shutdown()  # all of them, before the first that hangs is waited for
        for live in begun:
            try:
                live.engine.join()
            except BaseException as error:
                error.add_note(f"in {live!r}")
                self.failures.append(error)
        for source in self._sources:
            source.stop()
        until = time.monotonic() + _LAST_WORDS
        reading: Sequence[LiveSource | Pump] = (*self._sources, *self._pumps)
        for left in reading:
            if not left.join(max(0.0, until - time.monotonic())):
                _log.warning("%s: %r still waits for a row, and is left", self._name, left)
        for writer in self._writers.values():
            if not writer.close(self._patience):
                late = ShutdownTimeout(self._name, self._patience, [f"writing to {writer!r}"])
                self.failures.append(late)
        self._refusals.log_rest()
