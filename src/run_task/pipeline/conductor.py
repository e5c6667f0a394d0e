"""Starts a live pipeline, waits for its end, and brings it about in order: upstream first."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from run_task.alarm import Alarm, Bell
from run_task.channel import Receiver, Sender, channel
from run_task.clock import Clock, SystemClock
from run_task.config import RunnerConfig
from run_task.errors import ChannelClosed, ConfigError, ShutdownTimeout
from run_task.pipeline.graph import AnyStage
from run_task.pipeline.live import LiveSource, LiveStage, Watermarks
from run_task.pipeline.stage import Route
from run_task.pipeline.writer import Writer
from run_task.sinks.protocol import DurableSink, Sink

_logger = logging.getLogger(__name__)


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
    :param fed_by: who feeds each
    :param sources: the sources, how many nanoseconds the unit of each has, and where its rows go
    :param clock: where to read the time, unless a source brings its own; None: the machine's
    :raises ConfigError: if two sources bring times that pass at different speeds
    """

    def __init__(
        self,
        name: str,
        stages: Mapping[AnyStage, RunnerConfig],
        fed_by: Mapping[AnyStage, Sequence[AnyStage]],
        sources: Sequence[tuple[Any, int, Route]],
        clock: Clock | None,
    ) -> None:
        self._name = name
        self._stages = stages
        self._fed_by = fed_by
        self._declared = sources
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._marks = Watermarks()
        self._alarm = Alarm()
        self._stopping = False
        self._mutex = threading.Lock()
        self._open_sources = len(sources)
        self._patience = max(config.shutdown_timeout for config in stages.values())
        self._writers: dict[int, tuple[Sink, Writer]] = {}
        self._sources: list[LiveSource] = []
        self._live: dict[AnyStage, LiveStage] = {}
        self._pumps: list[Coroutine[Any, Any, None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._bells: list[Bell] = []
        self.failures: list[BaseException] = []
        self.ended: bool = False

    def start(self) -> None:
        """Start everything, and return.

        In a coroutine, async sources are read by its event loop; else each has one of its own.
        """
        played = [source for source, _, _ in self._declared if isinstance(source, Played)]
        since_ns = self._play(played)
        for stage in self._stages:
            for sink in stage.sinks:
                self._open(sink)
        for number, (source, unit_ns, route) in enumerate(self._declared, 1):
            self._sources.append(
                LiveSource(
                    source if hasattr(source, "__iter__") else self._pumped(source),
                    unit_ns,
                    route,
                    self._marks,
                    f"run-task {self._name} source {number}",
                    self._source_ended,
                )
            )
        routes = [route for _, _, route in self._declared]
        for stage, config in self._stages.items():
            sources = [s for s, route in zip(self._sources, routes) if route.leads_to(stage.data)]
            self._live[stage] = live = LiveStage(
                stage,
                config,
                [self._live[other] for other in self._fed_by[stage]],
                sources,
                [self._writers[id(sink)][1] for sink in stage.sinks],
                self._marks,
                self._clock,
                since_ns,
                self._alarm.ring,
            )
            for source in sources:
                source.readers = (*source.readers, live)
        for live in self._live.values():
            live.start()
        for source in self._sources:
            source.start()
        self._start_pumps()
        name = f"run-task {self._name} conductor"
        threading.Thread(target=self._conduct, name=name, daemon=True).start()

    def shutdown(self) -> None:
        """Bring it to its end. Returns at once; safe in a signal handler."""
        self._stopping = True
        self._alarm.ring()

    def wake_at_end(self, bell: Bell) -> None:
        """Ring a bell when all has ended."""
        self._bells.append(bell)
        if self.ended:
            bell.ring()

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

    def _open(self, sink: Sink) -> None:
        if id(sink) in self._writers:
            return
        if isinstance(sink, DurableSink):
            sink.begin(self._name)
        capacity = max(config.channel_capacity for config in self._stages.values())
        name = f"run-task {self._name} sink {len(self._writers) + 1}"
        self._writers[id(sink)] = sink, Writer(sink, name, capacity, self._sink_failed)

    def _pumped(self, source: AsyncIterable[tuple[int, Any]]) -> Receiver[tuple[int, Any]]:
        """What an async source gives, for a thread."""
        ends: tuple[Sender[tuple[int, Any]], Receiver[tuple[int, Any]]] = channel(1024)
        sender, receiver = ends

        async def pump() -> None:
            try:
                async for row in source:
                    while True:
                        try:
                            sender.send(row, timeout=0)
                            break
                        except TimeoutError:  # the windows are behind
                            await asyncio.sleep(0.001)
            except ChannelClosed:
                pass  # it is stopped
            except Exception as error:
                error.add_note(f"in the source {source!r}")
                self.failures.append(error)
            finally:
                sender.close()

        self._pumps.append(pump())
        return receiver

    def _start_pumps(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            for pump in self._pumps:
                name = f"run-task {self._name} async source"
                threading.Thread(target=asyncio.run, args=(pump,), name=name, daemon=True).start()
        else:
            self._tasks = [loop.create_task(pump) for pump in self._pumps]

    # The end

    def _source_ended(self, failure: BaseException | None) -> None:
        if failure is not None:
            _logger.error("%s: a source ends: %r", self._name, failure)
            self.failures.append(failure)
        with self._mutex:
            self._open_sources -= 1
            if self._open_sources == 0 and not self._stopping:
                self._finish()
        self._alarm.ring()

    def _sink_failed(self, failure: BaseException) -> None:
        _logger.error("%s ends, since a sink has failed: %r", self._name, failure)
        self.failures.append(failure)
        self.shutdown()

    def _conduct(self) -> None:
        try:
            while not (self._stopping or all(live.ended for live in self._live.values())):
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
            last_ns = max(lasts, default=last_ns)
        for live in self._live.values():
            live.finish(last_ns)

    def _stop(self) -> None:
        """Stop what still runs, upstream first, so that each gets what those before it have."""
        deadline = time.monotonic() + self._patience
        for source in self._sources:
            source.stop()
        now_ns = self._clock.time_ns()
        for live in self._live.values():
            live.finish_due(now_ns)
            while not live.ended and (remaining := deadline - time.monotonic()) > 0:
                self._alarm.wait(remaining)
            live.runner.shutdown()
            try:
                live.runner.join()
            except BaseException as error:
                self.failures.append(error)
        self._marks.stopped = True
        self._marks.move()
        for source in self._sources:
            if not source.join(max(0.0, deadline - time.monotonic())):
                _logger.warning("%s: %r still waits for a row, and is left", self._name, source)
        for sink, writer in self._writers.values():
            if not writer.close(self._patience):
                self.failures.append(
                    ShutdownTimeout(self._name, self._patience, [f"writing to {sink!r}"])
                )
        for task in self._tasks:
            task.get_loop().call_soon_threadsafe(task.cancel)
