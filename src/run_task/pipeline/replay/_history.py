"""A pipeline over history: the source's timestamps are the time, and nobody waits."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from run_task.data._protocol import window_bound
from run_task.executors import Tick
from run_task.observe._log import Log
from run_task.pipeline._graph import AnyStage
from run_task.pipeline._ingest import NEVER, Feed
from run_task.pipeline._route import Route
from run_task.runner._config import OnError, RunnerConfig
from run_task.runner._telemetry import Telemetry
from run_task.runner._ticker import Ticker
from run_task.runner._timeline import Timeline
from run_task.tasks._dataset import DataSet
from run_task.time._clock import SystemClock, VirtualClock

AT_ONCE: Final = 1024
"""How many rows are read ahead of the time at which they enter the data."""


class _StageReplay:
    """A stage on its way through history."""

    def __init__(
        self,
        stage: AnyStage,
        config: RunnerConfig,
        made: Callable[[Any], Any],
        clock: VirtualClock,
        since_ns: int,
        held_ns: int | None,
    ) -> None:
        self.stage = stage
        self.config = config
        self.data = made(stage.data)
        self.routes = [replace(route, into=made(route.into)) for route in stage.routes]
        self._bound = window_bound(self.data, stage.interval.unit)
        self.unit_ns = stage.interval.unit.nanos
        # What a sink holds is run again only for the sake of those who are fed by it.
        self.held_ns = -math.inf if held_ns is None else held_ns
        if held_ns is not None and not stage.routes:
            since_ns = max(since_ns, held_ns)
        timeline = Timeline(clock, Log(__name__, config.name))
        self.ticker = Ticker(stage.interval, config, timeline, since_ns)
        telemetry = Telemetry.if_set_up(config.name, SystemClock(), None)
        self._tell = None if telemetry is None else telemetry.telling(_nowhere)
        self._crew = config.executor_instance.start(
            stage.tasks,
            data=self.data,
            name=config.name,
            task_timeout=config.task_timeout,
            workers=config.worker_count,
        )

    def is_over(self, last_ns: float) -> bool:
        """Whether all windows are done up to the one that holds this time."""
        return self.ticker.next_end_ns - self.stage.interval.nanos > last_ns

    def run(self) -> DataSet[Any] | None:
        """Run the window that is due; None if its results are known already."""
        due = self.ticker.poll()
        assert due is not None
        with self.data.read(self.config.data_timeout) as view:
            bound = self._bound
            seen = bound(view, due[0], due[1]) if bound else view
            dataset = self._crew.run(Tick.of(seen, due, ()))
        if dataset.errors:
            _raise_interrupt(dataset)
        for route in self.routes:
            with route.into.write() as target:
                route.enter(target, dataset)
        if due[1] * self.unit_ns <= self.held_ns:
            return None
        if self._tell is not None:
            self._tell(dataset)
        return dataset

    def close(self) -> None:
        """Let go of the threads and processes that run its tasks."""
        self._crew.close(self.config.shutdown_timeout)


def _raise_interrupt(dataset: DataSet[Any]) -> None:
    """Raise Ctrl-C, which was not meant for the task that happened to run."""
    for error in dataset.errors.values():
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise error.__cause__


def _nowhere(dataset: DataSet[Any]) -> None:
    """It is not sent, but given to whoever asks for the next one."""


class History:
    """Sources and stages that go through history together.

    :param stages: the stages, those that are fed after those that feed them, and how they behave
    :param sources: the sources, how many nanoseconds the unit of each has, and where its rows go
    :param made: gives the replay's own of shared data; the same whenever it is asked
    """

    def __init__(
        self,
        stages: Mapping[AnyStage, RunnerConfig],
        sources: Sequence[tuple[Any, int, Route]],
        made: Callable[[Any], Any],
    ) -> None:
        self._stages = stages
        self._made = made
        # Rows that go to the same data enter it in the order of their arrival.
        self._groups: dict[int, list[Feed]] = {}
        for source, unit_ns, route in sources:
            own = replace(route, into=made(route.into))
            feed = Feed(source, unit_ns, own, AT_ONCE)
            self._groups.setdefault(id(route.into), []).append(feed)
        self._feeds = [feed for group in self._groups.values() for feed in group]
        self._bounds: tuple[float, float] = (-NEVER, NEVER)

    @property
    def rows(self) -> int:
        """How many rows have entered the data."""
        return sum(feed.entered for feed in self._feeds)

    def bounds(self) -> tuple[float, float]:
        """From when to about when it goes, in nanoseconds since the Unix epoch.

        :return: the first is known once it goes; the second is infinity where no end was given,
            and a source cannot tell its own
        """
        start_ns, end_ns = self._bounds
        return start_ns, min(end_ns, max((feed.end_ns for feed in self._feeds), default=NEVER))

    def run(
        self, start_ns: float, end_ns: float, held: Callable[[AnyStage], int | None]
    ) -> Generator[tuple[AnyStage, DataSet[Any]]]:
        """Run every window, from the one that holds the first row to the one that holds the last.

        :param start_ns: windows that end by then are left out
        :param end_ns: windows that start from then on are left out
        :param held: the end of the last window of a stage whose results are known, or None
        """
        # A row that a window holds which ends at its timestamp lies before that time.
        first_ns = min((feed.fetch() - feed.holds_end for feed in self._feeds), default=NEVER)
        if first_ns == NEVER:
            return  # there is no row, and so no window
        since_ns = int(max(first_ns, start_ns))
        self._bounds = since_ns, end_ns
        clock = VirtualClock(since_ns)
        replays: list[_StageReplay] = []
        try:
            for stage, config in self._stages.items():
                replays.append(
                    _StageReplay(stage, config, self._made, clock, since_ns, held(stage))
                )
            yield from self._go(replays, clock, end_ns)
        finally:
            for replay in replays:
                replay.close()

    def _go(
        self, begun: Sequence[_StageReplay], clock: VirtualClock, end_ns: float
    ) -> Generator[tuple[AnyStage, DataSet[Any]]]:
        last_ns = end_ns - 1
        replays: list[_StageReplay] = list(begun)
        while replays:
            due_ns = min(replay.ticker.next_due_ns for replay in replays)
            if self._ingest_before(due_ns) == NEVER:
                # No more rows: the last windows are those that hold the last one.
                lasts = [
                    feed.last_ns - feed.holds_end
                    for feed in self._feeds
                    if feed.last_ns is not None
                ]
                last_ns = min(last_ns, max(lasts))
            if last_ns != NEVER:
                replays = [replay for replay in replays if not replay.is_over(last_ns)]
            clock.advance_to(due_ns)
            for replay in replays:
                if replay.ticker.next_due_ns <= due_ns:
                    dataset = replay.run()
                    if dataset is None:
                        continue
                    yield replay.stage, dataset
                    if dataset.errors and replay.config.on_error is OnError.RAISE:
                        raise next(iter(dataset.errors.values()))

    def _ingest_before(self, due_ns: int) -> float:
        """Let all rows enter that come before a window which is due at a time. Returns when the
        next one arrives."""
        for feeds in self._groups.values():
            limit_ns = due_ns + feeds[0].holds_end
            if len(feeds) == 1:
                while feeds[0].fetch() < limit_ns:
                    feeds[0].ingest_before(limit_ns)
                continue
            while True:
                arrivals = [feed.fetch() for feed in feeds]
                first = min(range(len(feeds)), key=arrivals.__getitem__)
                if arrivals[first] >= limit_ns:
                    break
                # Up to where another one's row comes; of two at a time, the first source's first.
                others = [t + (i > first) for i, t in enumerate(arrivals) if i != first]
                feeds[first].ingest_before(min(limit_ns, *others))
        return min(feed.fetch() for feed in self._feeds)
