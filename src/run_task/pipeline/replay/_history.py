"""A pipeline over history: the source's timestamps are the time, and nothing waits."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from run_task._window import Due
from run_task.data import TimeSeries
from run_task.data._protocol import Viewable, window_bound
from run_task.executors import Tick
from run_task.executors._protocol import checked_crew
from run_task.pipeline._entrance import Entrance
from run_task.pipeline._fates import Fates
from run_task.pipeline._given import GivenWindows, ReaderWindows
from run_task.pipeline._graph import AnyStage
from run_task.pipeline._ingest import SourceReader
from run_task.pipeline._order import NEVER
from run_task.pipeline._route import Route, ends_with_rows
from run_task.runner._config import OnError, RunnerConfig
from run_task.runner._own_data import OwnData, references
from run_task.runner._telemetry import Telemetry
from run_task.runner._window_grid import WindowGrid, windows_of
from run_task.tasks._dataset import DataSet
from run_task.time._calendar import Interval
from run_task.time._clock import SystemClock

AT_ONCE: Final = 1024
"""How many rows are read ahead of the time at which they enter the data."""


class _StageReplay:
    """A stage on its way through history.

    A replay is never late, so every window of the grid comes, whatever ``missed_tick`` says.

    :param stage: the stage
    :param config: how it behaves
    :param made: gives the replay's own of shared data
    :param since_ns: the first window holds this time, in nanoseconds since the Unix epoch
    :param held_ns: the end of the last window whose results are known, or None
    :param given: takes note of the windows that it has run, if rows of sources enter its data
    :param explicit: whether the first window begins where somebody wanted it to
    :param apart: whether its own data changes only by what the replay writes to it
    :param before_write: called before it writes to shared data, with the id of the pipeline's own
    """

    def __init__(
        self,
        stage: AnyStage,
        config: RunnerConfig,
        made: Callable[[Any], Any],
        since_ns: int,
        held_ns: int | None,
        given: GivenWindows | None,
        explicit: bool,
        apart: bool,
        before_write: Callable[[int], None],
    ) -> None:
        self.stage = stage
        self.config = config
        self.data = made(stage.data)
        self._routes = [(id(r.into), replace(r, into=made(r.into))) for r in stage.routes]
        self._before_write = before_write
        self._bound = window_bound(self.data, stage.interval.unit)
        # A view stays as it is, so one serves all windows until somebody writes.
        shared: object = self.data  # that of no type, or pyright takes it for no more than viewable
        self._keeps_view = apart and isinstance(shared, Viewable)
        self._view: Any = None
        self._changes = not isinstance(shared, Viewable)  # in place, after the window
        self._own = OwnData()
        self._unit_ns = stage.interval.unit.nanos
        # What a sink holds is run again only for the sake of those who are fed by it.
        self._held_ns = -math.inf if held_ns is None else held_ns
        resumed_ns = None if stage.routes else held_ns
        self._grace_ns = config.grace_ns
        self._windows, first_end = _windows_from(stage.interval, config, since_ns, resumed_ns)
        self._go_to(first_end)
        self._given = given
        holds_end = ends_with_rows(stage.data)
        self._given_windows = ReaderWindows(self._windows, holds_end=holds_end)
        if given is not None:
            given.add(self._given_windows)
            start_ns = self._windows.start(first_end) * self._unit_ns
            explicit = explicit or held_ns is not None
            given.begin(self._given_windows, start_ns, explicit=explicit)
        telemetry = Telemetry.if_set_up(config.name, SystemClock(), None)
        self._tell = None if telemetry is None else telemetry.telling(_nowhere)
        self._crew = checked_crew(
            config.executor_instance.start(
                stage.tasks,
                data=self.data,
                name=config.name,
                task_timeout=config.task_timeout,
                workers=config.worker_count,
            )
        )
        self._crew.open()

    def is_over(self, last_ns: float) -> bool:
        """Whether all windows are done up to the one that holds this time."""
        return self._fresh_ns > last_ns

    def _go_to(self, end: int) -> None:
        """Let the window that ends at a time be the next."""
        self._end = end
        self.due_ns: int = end * self._unit_ns + self._grace_ns
        """When the next window is due, in nanoseconds since the Unix epoch."""
        self._fresh_ns = self._windows.fresh(end) * self._unit_ns

    def forget_view(self) -> None:
        """Somebody is about to write to its data."""
        self._view = None

    def run(self) -> DataSet[Any] | None:
        """Run the window that is due; None if its results are known already."""
        end = self._end
        due = self._windows.start(end), end, 0
        self._go_to(self._windows.after(end))
        if self._keeps_view:
            view = self._view
            if view is None:
                view = self._view = self.data.view()
            dataset = self._run(view, due)
        else:
            with self.data.read(self.config.data_timeout) as view:
                dataset = self._run(view, due)
                if self._changes and references(view) != self._own.references:
                    dataset = self._own.refuse(dataset, view)
                    self._own.settle(references(view))
        if self._given is not None:
            self._given.note(self._given_windows, due[0] * self._unit_ns, end * self._unit_ns)
        if dataset.errors:
            _raise_interrupt(dataset)
        for data, route in self._routes:
            self._before_write(data)
            with route.into.write() as target:
                route.enter(target, dataset)
        if end * self._unit_ns <= self._held_ns:
            return None
        if self._tell is not None:
            self._tell(dataset)
        return dataset

    def _run(self, view: Any, due: Due) -> DataSet[Any]:
        bound = self._bound
        dataset = self._crew.run(
            Tick.of((view if bound is None else bound(view, due[0], due[1]), due, ()))
        )
        dataset._interval = self.stage.interval  # pyright: ignore[reportPrivateUsage]  no call for it
        return dataset

    def close(self) -> None:
        """Let go of the threads and processes that run its tasks."""
        self._crew.close(self.config.shutdown_timeout)


def _windows_from(
    interval: Interval, config: RunnerConfig, since_ns: int, held_ns: int | None
) -> tuple[WindowGrid, int]:
    """The windows of a stage, and the end of the first: the one that holds a time, or that comes
    after those whose results are held."""
    windows = windows_of(interval, config.window, config.align, since_ns)
    if held_ns is None or held_ns <= since_ns:
        return windows, windows.first_end
    held = held_ns // interval.unit.nanos
    if not windows.ends_at(held):  # the grid began elsewhere, or was another one
        windows = windows_of(interval, config.window, config.align, held_ns)
    return windows, windows.after(held)


def _raise_interrupt(dataset: DataSet[Any]) -> None:
    """Raise Ctrl-C, which was not meant for the task that happened to run."""
    for error in dataset.errors.values():
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise error.__cause__


def _nowhere(dataset: DataSet[Any]) -> None:
    """It is not sent, but yielded to the caller."""


class History:
    """Sources and stages that go through history together.

    :param stages: the stages, those that are fed after those that feed them, and how they behave
    :param sources: the sources, how many nanoseconds the unit of each has, and where its rows go
    :param fates: counts what becomes of the rows of each source
    :param made: gives the replay's own of shared data; the same whenever it is asked
    :param apart: whether the replay's own of some data changes only by what enters it, and only
        those see it who read it
    """

    def __init__(
        self,
        stages: Mapping[AnyStage, RunnerConfig],
        sources: Sequence[tuple[Any, int, Route]],
        fates: Sequence[Fates],
        made: Callable[[Any], Any],
        *,
        apart: Callable[[Any], bool],
    ) -> None:
        self._stages = stages
        self._made = made
        self._apart = apart
        self._replays_of: dict[int, list[_StageReplay]] = {}  # by the id of the pipeline's own data
        # Rows that go to the same data enter it in the order of their arrival.
        self._groups: dict[int, list[SourceReader]] = {}
        writers = Counter(id(route.into) for _, _, route in sources)
        writers.update(id(route.into) for stage in stages for route in stage.routes)
        self._given: dict[int, GivenWindows] = {
            id(route.into): GivenWindows(made(route.into)) for _, _, route in sources
        }
        for (source, unit_ns, route), counts in zip(sources, fates, strict=True):
            own = replace(route, into=made(route.into))
            reader = SourceReader(
                source,
                Entrance(own, unit_ns, counts, self._given[id(route.into)]),
                AT_ONCE,
                whole=writers[id(route.into)] == 1 and apart(route.into) and _ends_views(own.into),
                before_write=partial(self._before_write, id(route.into)),
            )
            self._groups.setdefault(id(route.into), []).append(reader)
        self._sources = [reader for group in self._groups.values() for reader in group]
        self._bounds: tuple[float, float] = (-NEVER, NEVER)
        self._now_ns: float = -NEVER  # all rows that arrive before are in the data

    @property
    def rows(self) -> int:
        """How many rows have entered the data: those that are in it ahead of their time do not
        count before that."""
        for reader in self._sources:
            limit_ns = self._now_ns + reader.holds_end
            if reader.next_ns < limit_ns:
                reader.ingest_before(limit_ns)
        return sum(reader.entered for reader in self._sources)

    def bounds(self) -> tuple[float, float]:
        """From when to about when it goes, in nanoseconds since the Unix epoch.

        :return: the first is known once it goes; the second is infinity where no end was given,
            and a source cannot tell its own
        """
        start_ns, end_ns = self._bounds
        return start_ns, min(
            end_ns, max((reader.end_ns for reader in self._sources), default=NEVER)
        )

    def run(
        self, start_ns: float, end_ns: float, held: Callable[[AnyStage], int | None]
    ) -> Generator[tuple[AnyStage, DataSet[Any]]]:
        """Run every window, from the one that holds the first row to the one that holds the last.

        :param start_ns: windows that end by then are left out
        :param end_ns: windows that start from then on are left out
        :param held: the end of the last window of a stage whose results are known, or None
        """
        with contextlib.ExitStack() as opened:
            for reader in self._sources:
                opened.callback(reader.fates.log_rest)
                opened.callback(reader.close)
            # A row that a window holds which ends at its timestamp lies before that time.
            first_ns = min(
                (reader.fetch() - reader.holds_end for reader in self._sources), default=NEVER
            )
            if first_ns == NEVER:
                return  # there is no row, and so no window
            since_ns = int(max(first_ns, start_ns))
            self._bounds = since_ns, end_ns
            replays: list[_StageReplay] = []
            for stage, config in self._stages.items():
                replay = _StageReplay(
                    *(stage, config, self._made, since_ns, held(stage)),
                    given=self._given.get(id(stage.data)),
                    explicit=start_ns > first_ns,
                    apart=self._apart(stage.data),
                    before_write=self._before_write,
                )
                opened.callback(replay.close)
                replays.append(replay)
                self._replays_of.setdefault(id(stage.data), []).append(replay)
            yield from self._go(replays, end_ns)

    def _go(
        self, begun: Sequence[_StageReplay], end_ns: float
    ) -> Generator[tuple[AnyStage, DataSet[Any]]]:
        last_ns = end_ns - 1
        replays: list[_StageReplay] = list(begun)
        idle_until_ns: float = -NEVER
        while replays:
            due_ns = min([replay.due_ns for replay in replays])
            self._now_ns = due_ns
            if due_ns > idle_until_ns:
                idle_until_ns = self._ingest_before(due_ns)
            if idle_until_ns == NEVER:
                # No more rows: the last windows are those that hold the last one.
                lasts = [
                    reader.last_ns - reader.holds_end
                    for reader in self._sources
                    if reader.last_ns is not None
                ]
                last_ns = min(last_ns, max(lasts))
            if last_ns != NEVER:
                replays = [replay for replay in replays if not replay.is_over(last_ns)]
            for replay in replays:
                if replay.due_ns <= due_ns:
                    dataset = replay.run()
                    if dataset is None:
                        continue
                    yield replay.stage, dataset
                    if dataset.errors and replay.config.on_error is OnError.RAISE:
                        raise next(iter(dataset.errors.values()))

    def _ingest_before(self, due_ns: int) -> float:
        """Let all rows enter that come before a window which is due at a time. Returns until when
        no window has to wait for more; infinity: there are none."""
        for readers in self._groups.values():
            limit_ns = due_ns + readers[0].holds_end
            if len(readers) == 1:
                while readers[0].fetch() < limit_ns:
                    readers[0].ingest_before(limit_ns)
                continue
            while True:
                arrivals = [reader.fetch() for reader in readers]
                first = min(range(len(readers)), key=arrivals.__getitem__)
                if arrivals[first] >= limit_ns:
                    break
                # Up to where another one's row comes; of two at a time, the first source's first.
                others = [t + (i > first) for i, t in enumerate(arrivals) if i != first]
                readers[first].ingest_before(min(limit_ns, *others))
        return min(reader.idle_until_ns - reader.holds_end for reader in self._sources)

    def _before_write(self, data: int) -> None:
        """Somebody is about to write to the replay's own of the data with this id."""
        for replay in self._replays_of.get(data, ()):
            replay.forget_view()


def _ends_views(data: object) -> bool:
    """Whether rows may enter data ahead of their time: no window sees them before, and no row has
    to leave for them."""
    return isinstance(data, TimeSeries) and data.retention is None
