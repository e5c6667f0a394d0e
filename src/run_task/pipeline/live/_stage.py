"""A stage of a live pipeline: its engine, between a gate and an outlet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from run_task.data._protocol import Viewable
from run_task.pipeline._edges import Edges
from run_task.pipeline._given import GivenWindows, ReaderWindows
from run_task.pipeline._lacking import Lacking
from run_task.pipeline._order import Place, StageMark
from run_task.pipeline._route import ends_with_rows
from run_task.pipeline._stage import AnyStage
from run_task.pipeline.checkpoint._cut import StageCut
from run_task.pipeline.live._catch_up import CatchUp
from run_task.pipeline.live._coordinator import Coordinator
from run_task.pipeline.live._early_views import EarlyViews
from run_task.pipeline.live._gate import WindowGate
from run_task.pipeline.live._lags import Lags
from run_task.pipeline.live._outlet import StageOutlet
from run_task.pipeline.live._sink_thread import SinkThread
from run_task.pipeline.live._stage_views import StageInput, StageViews
from run_task.runner._config import RunnerConfig
from run_task.runner._engine import Engine
from run_task.runner._stats import RunnerStats
from run_task.runner._task_set import TaskSet
from run_task.runner._timeline import Timeline
from run_task.sync._lifecycle import Phase
from run_task.time._clock import Clock


def grid_of(stage: AnyStage, config: RunnerConfig) -> str:
    """Which windows a stage has, as a text."""
    window = "" if config.window is None else f", over {config.window!r}"
    return f"{stage.interval!r}{window}, {config.align.name}"


class LiveStage:
    """A stage that runs.

    :param stage: the stage
    :param config: how its engine behaves
    :param mark: how far it is
    :param sinks: the sinks of its results
    :param places: of each input, what the order has to know of it, and the windows that have been
        given to those who read it
    :param early_views_of: those that may be taken ahead, of some data for some stage
    :param all_recordings: whether all rows that enter are recordings', which can wait
    :param coordinator: keeps the marks of all stages and sources
    :param catch_up: lets sources run after an oversleep
    :param lags: knows which sources are behind
    :param clock: where to read the time
    :param timeline: the time, which all stages share
    :param since_ns: the first window that there may be holds this time, in nanoseconds since the
        Unix epoch
    :param edges: with which window it begins
    :param on_end: called when its engine has ended
    :param added: whether the run had begun: rows before its first window are not late for it
    :param before: how far an earlier run had come with it; None: it begins
    :param origin_ns: the grid of its windows holds this time; None: ``since_ns``
    """

    def __init__(
        self,
        stage: AnyStage,
        config: RunnerConfig,
        mark: StageMark,
        sinks: Sequence[SinkThread],
        places: Sequence[tuple[Place, GivenWindows]],
        early_views_of: Callable[[tuple[StageMark, Place]], EarlyViews | None],
        coordinator: Coordinator,
        catch_up: CatchUp,
        lags: Lags,
        clock: Clock,
        timeline: Timeline,
        since_ns: int,
        edges: Edges,
        on_end: Callable[[], None],
        *,
        all_recordings: bool,
        added: bool,
        before: StageCut | None = None,
        origin_ns: int | None = None,
    ) -> None:
        self.before: StageCut | None = before
        """How far an earlier run had come with it."""
        self.origin_ns: int = since_ns if origin_ns is None else origin_ns
        """A time that the grid of its windows holds."""
        self.leaves: bool = False
        """Whether it was removed, and runs what is due."""
        self._added = added
        self.config = config
        self.stage = stage
        self.mark = mark
        mark.paused = stage.is_paused
        self.edges = edges
        self.lacking: Lacking = Lacking(() if before is None else before.lacked)
        """What the results lack that it reads."""
        unit_ns = stage.interval.unit.nanos
        self.inputs: Sequence[StageInput] = [
            self._input(data, place, given, coordinator, clock, lags, all_recordings=all_recordings)
            for data, (place, given) in zip(stage.inputs, places, strict=True)
        ]
        gate = self._gate = WindowGate(
            mark,
            StageViews(mark, stage.data, self.inputs, edges, coordinator),
            unit_ns,
            edges,
            config.upstream_timeout,
            coordinator,
            catch_up,
            lags,
            self.lacking,
        )
        outlet = self._outlet = StageOutlet(
            mark,
            (),
            sinks,
            unit_ns,
            config.data_timeout,
            config.upstream_timeout,
            early_views_of,
            coordinator,
            gate,
            (),
            self.lacking,
            on_end,
        )
        self._coordinator = coordinator
        self._engine = Engine(
            stage.task_set,
            stage.data,
            stage.interval,
            config,
            outlet,
            clock=clock,
            timeline=timeline,
            since_ns=self.origin_ns,
            first_ns=None if origin_ns is None else since_ns,
            gate=gate,
            rank=mark.index,
            keys=stage.keys,
            states=stage.states,
        )

    def _input(
        self,
        data: Any,
        place: Place,
        given: GivenWindows,
        coordinator: Coordinator,
        clock: Clock,
        lags: Lags,
        *,
        all_recordings: bool,
    ) -> StageInput:
        windows = ReaderWindows(self.mark.windows, holds_end=ends_with_rows(data), edges=self.edges)
        given.add(windows)
        early_views = EarlyViews(
            *(self.mark, place, data, windows, given, coordinator, clock, lags),
            all_recordings=all_recordings,
        )
        if not isinstance(data, Viewable):
            return StageInput(place, data, windows, given, None)
        return StageInput(place, data, windows, given, early_views)

    @property
    def grid(self) -> str:
        """Which windows it has, as a text: only where this is the same they are the same."""
        return grid_of(self.stage, self.config)

    @property
    def started(self) -> bool:
        """Whether it has begun to run."""
        return self._engine.lifecycle.phase >= Phase.RUNNING

    @property
    def stats(self) -> RunnerStats:
        """How it has been doing. At any time, from any thread."""
        return self._engine.stats

    def prepare(self) -> None:
        """Make ready what takes long, before any stage starts, which others wait for then."""
        self._engine.prepare()

    def start(self) -> None:
        """Begin to run."""
        self._engine.start()
        first_end_ns = self._engine.first_end_ns
        for one in self.inputs:
            start_ns = self.mark.windows.start_ns(first_end_ns)
            one.given.begin(one.windows, start_ns, explicit=self._added)
        if self.before is not None and len(self.before.readers) == len(self.inputs):
            for one, reader in zip(self.inputs, self.before.readers, strict=True):
                one.given.restore(
                    one.windows, reader.first_ns, reader.floor_ns, reader.last_ns, reader.gaps
                )
        # Those that were started before may be waiting to know that.
        self._coordinator.advance_stage(self.mark, first_ns=first_end_ns)

    def arranged(self, timeout: float, given: Sequence[GivenWindows]) -> None:
        """The order is another one.

        :param timeout: how many seconds its results wait for others
        :param given: the windows that have been given to those who read what its results enter
        """
        self._gate.arranged()
        self._outlet.timeout = timeout
        self._outlet.connect(self.stage.routes, given)
        self._engine.set_rank(self.mark.index)

    def write_to(self, sinks: Sequence[SinkThread]) -> None:
        """Let the results of the next window go to these sinks."""
        self._outlet.sinks = sinks

    def leave(self, now_ns: int) -> None:
        """Run what is due, and end. Returns at once.

        :param now_ns: the time, in nanoseconds since the Unix epoch
        """
        self.leaves = True
        self.limit(now_ns - self.mark.grace_ns)
        self.finish(at_once=False)

    def drop(self) -> None:
        """It has left: rows are late for its windows no more."""
        for one in self.inputs:
            one.given.remove(one.windows)

    def change_tasks(self, tasks: TaskSet) -> None:
        """Run other tasks, from the next window on.

        :raises RunTaskError: if it ends
        """
        self._engine.change_tasks(lambda _: tasks)

    def limit(self, last_ns: float) -> None:
        """Run no window that ends after a time.

        Said to all stages before one of them ends: whose upstream has ended would otherwise go on
        without its results.
        """
        self._coordinator.advance_stage(self.mark, last_ns=last_ns)

    def finish(self, *, at_once: bool) -> None:
        """Run up to the last window that there is to be, and end.

        :param at_once: whether to do so now, also those that are not due yet
        """
        self._engine.finish(self.mark.last_ns, at_once=at_once)

    def shutdown(self) -> None:
        """Finish the window in hand, and end. Returns at once."""
        self._engine.shutdown()

    def abandon(self) -> None:
        """Give up the tasks that hang, so that what others have given is delivered."""
        self._engine.abandon()

    def give_up(self) -> None:
        """Stop waiting for its end."""
        self._engine.give_up()

    def wait(self, timeout: float | None) -> bool:
        """Wait until it has ended.

        :param timeout: how many seconds to wait at most; None: forever
        :return: whether it has
        """
        if not self._engine.lifecycle.wait(Phase.ENDED, timeout):
            return False
        self._engine.settle()
        return True

    @property
    def failure(self) -> BaseException | None:
        """What it ended by, once it has; None: that it was to end."""
        return self._engine.failure

    def __repr__(self) -> str:
        return repr(self.mark)
