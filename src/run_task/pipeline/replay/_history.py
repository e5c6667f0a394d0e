"""A pipeline over history: the source's timestamps are the time, and nothing waits."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from run_task._window import Due
from run_task.data import Closed, TimeSeries
from run_task.data._protocol import Viewable
from run_task.data._several import each_by, inputs_of
from run_task.data.series import TimeSeriesView
from run_task.data.series._ahead import AheadRows
from run_task.executors import Tick
from run_task.executors._states import States
from run_task.pipeline._edges import Edges
from run_task.pipeline._entrance import Entrance
from run_task.pipeline._fates import Fates
from run_task.pipeline._given import GivenWindows, ReaderWindows
from run_task.pipeline._graph import have_calendar
from run_task.pipeline._ingest import SourceReader
from run_task.pipeline._lacking import Lacking
from run_task.pipeline._order import NEVER
from run_task.pipeline._route import Route, ends_with_rows
from run_task.pipeline._stage import AnyStage
from run_task.pipeline.replay._silence import Silence
from run_task.runner._config import Empty, OnError, RunnerConfig
from run_task.runner._declared_crew import DeclaredCrew
from run_task.runner._keys import bound_of, crew_of
from run_task.runner._own_data import OwnData, references
from run_task.runner._telemetry import Telemetry
from run_task.runner._window_grid import WindowGrid, windows_of
from run_task.sync._watch import Watchable, watch
from run_task.tasks._keyed import AnyDataSet
from run_task.tasks._window_results import WindowColumns
from run_task.time._calendar import Interval
from run_task.time._clock import SystemClock

AT_ONCE: Final = 1024
"""How many rows are read ahead of the time at which they enter the data."""

_MANY: Final = 4096
"""How many windows are run at once at most, so that their results take little memory."""

_WORTH: Final = 4
"""How many there are at least, for that to be faster than one after another."""

_MOST_NS: Final = 2**62
"""Later than any window."""


class DataSetBatch(Protocol):
    """DataSets of one stage, one or many, in the order of their windows: each may be made when it
    is asked for, and so they can be asked for once."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[AnyDataSet]: ...


class ComputedBatch:
    """Many DataSets that were computed together, and are made when they are asked for.

    :param count: how many there are
    :param datasets: gives them
    :param columns: the same results by column; None: some have failed
    """

    __slots__ = ("_count", "_datasets", "columns")

    def __init__(
        self, count: int, datasets: Iterator[AnyDataSet], columns: WindowColumns | None
    ) -> None:
        self._count = count
        self._datasets = datasets
        self.columns: Final = columns

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[AnyDataSet]:
        return self._datasets


Given: TypeAlias = tuple[AnyStage, DataSetBatch]
"""What a stage has given."""


@dataclass(frozen=True)
class WantedWindows:
    """The windows of one stage that are wanted of a history. They are as in the whole of it; others
    are run only as far as they depend on them.

    :param stage: the stage
    :param start_ns: windows that end by then are not wanted, in nanoseconds since the Unix epoch
    :param end_ns: windows that start from then on are not; of windows that overlap, those whose
        last interval does
    :param last_ns: nor those that end after this
    """

    stage: AnyStage
    start_ns: float = -NEVER
    end_ns: float = NEVER
    last_ns: float = NEVER

    def wants(self, windows: WindowGrid, start: int, end: int, unit_ns: int) -> bool:
        """Whether a window is wanted. One that is none of the stage's windows, as of an earlier
        interval, is if all of it is.

        :param windows: the windows of the stage
        :param start: the window's, in the unit of the stage
        :param end: the window's
        :param unit_ns: how many nanoseconds that has
        """
        end_ns = end * unit_ns
        if end_ns > self.last_ns:
            return False
        if windows.has(start, end):
            return end_ns > self.start_ns and windows.fresh(end) * unit_ns < self.end_ns
        return start * unit_ns >= self.start_ns and end_ns <= self.end_ns

    def meets(self, start: int, end: int, unit_ns: int) -> bool:
        """Whether some of a window lies where windows are wanted."""
        end_ns = end * unit_ns
        return self.start_ns < end_ns <= self.last_ns and start * unit_ns < self.end_ns


class _StageReplay:
    """A stage on its way through history.

    A replay is never late, so every window of the grid comes, whatever ``missed_tick`` says.

    :param stage: the stage
    :param config: how it behaves
    :param made: gives the replay's own of shared data
    :param states: the states of its tasks
    :param windows: its windows
    :param edges: with which of them it begins
    :param known_ns: windows that end by then have results that are known, in nanoseconds since the
        Unix epoch; None: none has
    :param given: by the id of the data that rows of sources enter, what takes note of the windows
        over it that have been run
    :param explicit: whether the first window begins where somebody wanted it to
    :param apart: whether its own data changes only by what the replay writes to it
    :param fed: whether a stage feeds it
    :param before_write: called before it writes to shared data, with the id of the pipeline's own
    :param entered: called when it has, with that id and the end of the window
    """

    def __init__(
        self,
        stage: AnyStage,
        config: RunnerConfig,
        made: Callable[[Any], Any],
        states: States,
        windows: WindowGrid,
        edges: Edges,
        known_ns: float | None,
        given: Mapping[int, GivenWindows],
        explicit: bool,
        apart: bool,
        fed: bool,
        before_write: Callable[[int], None],
        entered: Callable[[int, int], None],
    ) -> None:
        self.stage = stage
        self.config = config
        self.ends_with_error: Final = config.on_error is OnError.RAISE
        """Whether the first error of a task ends the replay, once its window has been given."""
        self.edges = edges
        self.data: Any = each_by(stage.data, made)
        self._routes = [(id(r.into), replace(r, into=made(r.into))) for r in stage.routes]
        self._before_write = before_write
        self._entered = entered
        self.lacking: Lacking = Lacking()
        """What the results lack that it reads."""
        self._states = states
        tasks = states.bind(stage.tasks)
        self._stateful = states.any
        self._bound = bound_of(self.data, stage.interval, config, stage.keys, self._states)
        self.was_empty: bool = False
        """Whether the last window that it came to was skipped, since it holds no row."""
        # A view stays as it is, so one serves all windows until somebody writes.
        can_be_kept = isinstance(self.data, Viewable)
        self._keeps_view = apart and can_be_kept
        self._view: Any = None
        # In place, after the window. Of results by key nobody looks at each.
        self._changes = stage.keys is None and not can_be_kept
        self._own = OwnData(self.data)
        self._unit_ns = stage.interval.unit.nanos
        # What a sink holds is run again only for the sake of those who are fed by it.
        self._known_ns: float = -math.inf if known_ns is None else known_ns
        remembers = stage.keys is not None and config.empty is Empty.RUN  # keys that had rows
        if known_ns is not None and not (stage.routes or states.any or remembers):
            edges.skip_to(known_ns)
        self._grace_ns = config.grace_ns
        self._windows = windows
        first_end = edges.first_ns // self._unit_ns
        self._go_to(first_end)
        self._given: list[tuple[GivenWindows, ReaderWindows]] = []
        start_ns = self._windows.start(first_end) * self._unit_ns
        for data in stage.inputs:
            if (noting := given.get(id(data))) is not None:
                own = ReaderWindows(windows, holds_end=ends_with_rows(data), edges=edges)
                noting.add(own)
                noting.begin(own, start_ns, explicit=explicit or known_ns is not None)
                self._given.append((noting, own))
        telemetry = Telemetry.if_set_up(config.name, SystemClock(), None)
        self._tell = None if telemetry is None else telemetry.telling(_nowhere)
        self._crew = crew_of(tasks, self.data, stage.interval, config, stage.keys, states)
        self._crew.open()
        self._runs_many = (
            isinstance(self._crew, DeclaredCrew)
            and self._crew.is_alone
            and stage.keys is None
            and self._keeps_view
            and not fed
            and not stage.routes
            and config.empty is not Empty.SKIP
        )

    @property
    def is_over(self) -> bool:
        """Whether all windows are done."""
        return self.end_ns > self.edges.last_ns

    @property
    def leads(self) -> bool:
        """Whether the next window is given only if a row comes that it holds."""
        return self.end_ns < self.edges.given_from_ns

    def _go_to(self, end: int) -> None:
        """Let the window that ends at a time be the next."""
        self._end = end
        self.end_ns: int = end * self._unit_ns
        """The end of the next window, in nanoseconds since the Unix epoch."""
        self.due_ns: int = self.end_ns + self._grace_ns
        """When it is due."""

    def forget_view(self) -> None:
        """Somebody is about to write to its data."""
        self._view = None

    def run(self) -> AnyDataSet | None:
        """Run the window that is due; None if it is not given, or its results are known already."""
        end, end_ns, leads = self._end, self.end_ns, self.leads
        start = self._windows.start(end)
        start_ns, due = start * self._unit_ns, (start, end, 0)
        self._go_to(self._windows.after(end))
        if leads:
            self._note_given(start_ns, end_ns)
            return None
        behind = self.lacking.within(start_ns, end_ns)
        if self._keeps_view:
            view = self._view
            if view is None:
                view = self._view = self.data.view()
            dataset = self._run(view, due, behind)
        else:
            with self.data.read(self.config.data_timeout) as view:
                dataset = self._run(view, due, behind)
                if (
                    self._changes
                    and dataset is not None
                    and references(view) != self._own.references
                ):
                    dataset = self._own.refuse(dataset, view)
                    self._own.settle(references(view))
        self._note_given(start_ns, end_ns)
        self.was_empty = dataset is None
        lacks = behind if dataset is None else dataset.behind
        if lacks:
            self.lacking.tell(end_ns, lacks)
        if dataset is None:
            self._skipped_from_ns = start_ns
            return None
        if dataset.errors:
            _raise_interrupt(dataset)
        for data, route in self._routes:
            self._before_write(data)
            with route.into.write() as target:
                route.enter(target, dataset)
            self._entered(data, end_ns)
        if end_ns <= self._known_ns:
            return None
        if self._tell is not None:
            self._tell(dataset)
        return dataset

    def run_many(self, until_ns: float, let_enter: Callable[[int], object]) -> DataSetBatch | None:
        """Run windows at once whose rows are all in memory: those that are due, where that can be
        done; else None.

        :param until_ns: no window that is due by then waits for a row
        :param let_enter: lets all rows enter that come before a window which is due at a time
        """
        if not self._runs_many or self.leads:
            return None
        crew = self._crew
        assert isinstance(crew, DeclaredCrew)
        last = int(min(until_ns - self._grace_ns, self.edges.last_ns, _MOST_NS)) // self._unit_ns
        starts, ends = self._windows.some(self._end, last, _MANY)
        if len(ends) < _WORTH:
            return None
        ahead = self.data.ahead()
        if ahead is None:
            view, since, missed = self.data.view(), None, None
        else:
            whole = crew.slides
            if (
                whole
                and len(self._seen(ahead, starts[:_WORTH], ends[:_WORTH], whole=True)[1]) < _WORTH
            ):
                return None  # without a look at all
            view, since, missed = self._seen(ahead, starts, ends, whole=whole)
            starts, ends = starts[: len(since)], ends[: len(since)]
        given: Iterator[AnyDataSet]
        given, columns = crew.run_windows(view, starts, ends, self.stage.interval, since)
        last = int(ends[-1])
        self._go_to(self._windows.after(last))
        if missed is None:
            self._note_given(int(starts[0]) * self._unit_ns, last * self._unit_ns)
        else:
            self._note_one_by_one(starts, ends, missed, let_enter)
        count = len(ends)
        if self._known_ns >= int(ends[0]) * self._unit_ns:
            known = self._known_ns // self._unit_ns
            new = [dataset for dataset in given if dataset.timestamp > known]
            if columns is not None:
                columns = columns.some(count - len(new), count)
            count, given = len(new), iter(new)
        if self._tell is not None:
            given = _telling(given, self._tell)
        return ComputedBatch(count, given, columns)

    def _seen(
        self,
        ahead: tuple[AheadRows, TimeSeriesView],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        *,
        whole: bool,
    ) -> tuple[TimeSeriesView, NDArray[np.intp], NDArray[np.bool_]]:
        """What windows see of rows that are yet to come, of which some pass out meanwhile.

        :param whole: whether only windows are to be run of which no row has passed out
        :return: the rows, the first of them that is still there for each window, and of which
            windows rows have passed out that none before has seen. There may be fewer windows
        """
        rows, view = ahead
        beyond = self.data.closed is Closed.RIGHT
        limits = -(-(ends * self._unit_ns + (self._grace_ns + beyond)) // self.data.unit.nanos)
        since = rows.kept(view, limits)
        if whole:
            passed_out = since > view.time.searchsorted(starts + beyond)
            if passed_out.any():
                since = since[: int(passed_out.argmax())]
        seen = view.time.searchsorted(ends[: len(since)] + beyond)
        missed = np.ones(len(since), np.bool_)  # of the first it is not known
        np.greater(since[1:], seen[:-1], out=missed[1:])
        return view, since, missed

    def _note_one_by_one(
        self,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        missed: NDArray[np.bool_],
        let_enter: Callable[[int], object],
    ) -> None:
        """Let the rows enter that windows have seen, and note these: each before which rows have
        passed out unseen by itself, since these are counted."""
        missed[-1] = True
        before = 0
        for place in np.flatnonzero(missed).tolist():
            if place > before:
                for given, windows in self._given:
                    given.saw(windows, int(ends[place - 1]) * self._unit_ns)
            end_ns = int(ends[place]) * self._unit_ns
            let_enter(end_ns + self._grace_ns)
            self._note_given(int(starts[before]) * self._unit_ns, end_ns)
            before = place + 1

    def jump(self, change_ns: float) -> None:
        """After a window that is empty, go on to the first that may hold a row.

        :param change_ns: nothing enters its data before the window that is due after this time
        """
        if self.lacking.noted:
            return  # each that is empty may lack something, which those who are fed are told
        unit_ns = self._unit_ns
        last_ns = self._windows.floor_ns(self.end_ns - 1)
        for series in inputs_of(self.data):
            if not isinstance(series, TimeSeries):
                continue
            times, own_ns = series.view().time, series.unit.nanos
            holds_end = series.closed is Closed.RIGHT
            # Rows that are in the data, and that no window up to here has held.
            ahead = int(times.searchsorted(-(-(last_ns + holds_end) // own_ns)))
            if ahead < len(times):
                change_ns = min(change_ns, int(times[ahead]) * own_ns - holds_end + self._grace_ns)
        if change_ns == NEVER:
            self.edges.stop_after(last_ns)
            return
        end = self._windows.after_ns(change_ns - self._grace_ns) // unit_ns
        if end > self._end:
            last_ns = self._windows.floor_ns((end - 1) * unit_ns)
            self._note_given(self._skipped_from_ns, last_ns)
            self._go_to(end)

    def _note_given(self, start_ns: int, end_ns: int) -> None:
        for given, windows in self._given:
            given.note(windows, start_ns, end_ns)

    def _run(self, view: Any, due: Due, behind: Sequence[str]) -> AnyDataSet | None:
        """Run a window; None if it is skipped."""
        if self._bound is not None:
            view = self._bound(view, due[0], due[1])
            if view is None:
                return None
        dataset = self._crew.run(Tick.of((view, due, behind)))
        if self._stateful:
            dataset = self._states.settle(dataset)
        dataset._interval = self.stage.interval  # pyright: ignore[reportPrivateUsage]  no call for it
        return dataset

    def close(self) -> None:
        """Let go of the threads and processes that run its tasks."""
        self._crew.close(self.config.shutdown_timeout)


def _windows_from(
    interval: Interval, config: RunnerConfig, since_ns: int, held_ns: int | None
) -> WindowGrid:
    """The windows of a stage: those that it had before, if it is known where one of them ended."""
    windows = windows_of(interval, config.window, config.align, since_ns)
    if held_ns is not None and not windows.ends_at(held_ns // interval.unit.nanos):
        # The grid began elsewhere.
        since_ns = since_ns - (since_ns - held_ns) % interval.longest_ns
        windows = windows_of(interval, config.window, config.align, since_ns)
    return windows


def _raise_interrupt(dataset: AnyDataSet) -> None:
    """Raise Ctrl-C, which was not meant for the task that happened to run."""
    for error in dataset.errors.values():
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise error.__cause__


def _nowhere(dataset: AnyDataSet) -> None:
    """It is not sent, but yielded to the caller."""


class History:
    """Sources and stages that go through history together.

    :param stages: the stages, those that are fed after those that feed them, and how they behave
    :param sources: the sources, how many nanoseconds the unit of each has, and where its rows go
    :param fates: counts what becomes of the rows of each source
    :param made: gives the replay's own of shared data; the same whenever it is asked
    :param states: gives the states that a stage begins with
    :param apart: whether the replay's own of some data changes only by what enters it, and only
        those see it who read it
    :param filled: the ids of data whose rows are in it from the beginning on, and are as those of a
        source
    """

    def __init__(
        self,
        stages: Mapping[AnyStage, RunnerConfig],
        sources: Sequence[tuple[Any, int, Route]],
        fates: Sequence[Fates],
        made: Callable[[Any], Any],
        states: Callable[[AnyStage], States],
        *,
        apart: Callable[[Any], bool],
        filled: Collection[int] = (),
    ) -> None:
        self._stages = stages
        self._made = made
        self._states = states
        self._apart = apart
        self._replays_of: dict[int, list[_StageReplay]] = {}  # by the id of the pipeline's own data
        # Rows that go to the same data enter it in the order of their arrival.
        self._groups: dict[int, list[SourceReader]] = {}
        writers = Counter(id(route.into) for _, _, route in sources)
        self._fed = {id(route.into) for stage in stages for route in stage.routes}
        writers.update(id(route.into) for stage in stages for route in stage.routes)
        self._given: dict[int, GivenWindows] = {
            id(route.into): GivenWindows(made(route.into)) for _, _, route in sources
        }
        years = have_calendar(stages)
        for (source, unit_ns, route), counts in zip(sources, fates, strict=True):
            own = replace(route, into=made(route.into))
            reader = SourceReader(
                source,
                Entrance(own, unit_ns, counts, self._given[id(route.into)], years=years),
                AT_ONCE,
                whole=writers[id(route.into)] == 1
                and apart(route.into)
                and isinstance(own.into, TimeSeries),
                before_write=partial(self._before_write, id(route.into)),
            )
            self._groups.setdefault(id(route.into), []).append(reader)
            counts.count_stored(partial(self._uncounted, reader))
        self._filled: dict[int, tuple[int, int]] = {}
        for data in (read for stage in stages for read in stage.inputs):
            if id(data) in filled and not writers[id(data)] and (ends := _ends_of(made(data))):
                self._filled[id(data)] = ends
        self._sources = [reader for group in self._groups.values() for reader in group]
        self._bounds: tuple[float, float] = (-NEVER, NEVER)
        self._now_ns: float = -NEVER  # all rows that arrive before are in the data
        self._at_hand_until_ns: float = -NEVER  # no window that is due by then waits for a row
        self._leading = False  # whether there are windows that are given only if they hold a row
        self._part: tuple[WindowGrid, Edges] | None = None
        self.first_ns: float = NEVER
        """The time of the first row, once it goes; infinity: there is none."""
        self.first_end_ns: float = NEVER
        """Of a part of it, the end of the first window that there is, whether wanted or not."""
        self.until_ns: float = -NEVER
        """Of a part of it, windows that end by then are run also behind the last row."""
        self.goes_on: bool = False
        """Of a part of it, whether time goes on until then in any case, and not only where that is
        behind the last window otherwise."""

    @property
    def windows(self) -> WindowGrid | None:
        """Of a part of it, the windows of the stage, once it goes; None: there is no row."""
        return None if self._part is None else self._part[0]

    @property
    def last_end_ns(self) -> float:
        """Of a part of it, the end of the last window that is wanted, in the end."""
        return -NEVER if self._part is None else self._part[1].last_ns

    @property
    def rows(self) -> int:
        """How many rows have entered the data: those that are in it ahead of their time do not
        count before that."""
        return sum(reader.entered + self._uncounted(reader) for reader in self._sources)

    def _uncounted(self, reader: SourceReader) -> int:
        """How many rows of a source have come by now that it has not counted."""
        return reader.uncounted_before(self._now_ns + reader.holds_end)

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
        self,
        start_ns: float,
        end_ns: float,
        held: Callable[[AnyStage], int | None],
    ) -> Generator[Given]:
        """Run every window, from the one that holds the first row to the one that holds the last.

        :param start_ns: windows that end by then are left out
        :param end_ns: windows that start from then on are left out
        :param held: the end of the last window of a stage whose results are known, or None
        """
        return self._run(start_ns, end_ns, held, None)

    def run_part(self, part: WantedWindows) -> Generator[Given]:
        """Run the windows that are wanted, and give these alone. All are run that they depend on,
        from the first row on. If there is a row, nothing is given first: by then it is known which
        windows there are, and :attr:`until_ns` may be set.

        :param part: which are wanted, of one of the stages
        """
        return self._run(-NEVER, part.end_ns, _nothing_held, part)

    def _run(
        self,
        start_ns: float,
        end_ns: float,
        held: Callable[[AnyStage], int | None],
        part: WantedWindows | None,
    ) -> Generator[Given]:
        with contextlib.ExitStack() as opened:
            if waited := [reader for reader in self._sources if not reader.is_at_hand]:
                opened.enter_context(_watched(Silence(waited)))
            for reader in self._sources:
                opened.callback(reader.fates.log_rest)
                opened.callback(reader.close)
            for reader in self._sources:
                reader.fetch()
            # A row that a window holds which ends at its timestamp lies before that time.
            firsts_ns = [reader.first_ns for reader in self._sources]
            firsts_ns += (first_ns for first_ns, _ in self._filled.values())
            first_ns = self.first_ns = min(firsts_ns, default=NEVER)
            if first_ns == NEVER:
                return  # there is no row, and so no window
            since_ns = int(max(first_ns, start_ns))
            self._bounds = since_ns, end_ns
            replays: list[_StageReplay] = []
            reach: dict[int, int] = {}  # how long rows are seen that enter data, by the data's id
            for stage, config in self._stages.items():
                held_ns = held(stage)
                windows = _windows_from(stage.interval, config, since_ns, held_ns)
                edges = Edges(windows, config, int(first_ns), start_ns)
                if part is None:
                    edges.stop_before(end_ns)
                before_ns = max(reach.get(id(data), 0) for data in stage.inputs)
                reach_ns = _length_ns(stage, config) + before_ns
                for route in stage.routes:
                    reach[id(route.into)] = max(reach.get(id(route.into), 0), reach_ns)
                # An earlier run may have ended before the last of the rows came that these windows
                # were to see.
                known_ns: float | None = None
                if held_ns is not None:
                    known_ns = held_ns - reach_ns - config.grace_ns
                if part is not None:
                    known_ns = self._narrow(part, stage, windows, edges)
                replay = _StageReplay(
                    *(stage, config, self._made, self._states(stage), windows, edges),
                    known_ns,
                    given=self._given,
                    explicit=start_ns > first_ns - config.grace_ns,
                    apart=all(map(self._apart, stage.inputs)),
                    fed=any(id(data) in self._fed for data in stage.inputs),
                    before_write=self._before_write,
                    entered=self._results_entered,
                )
                opened.callback(replay.close)
                replays.append(replay)
                for data in stage.inputs:
                    self._replays_of.setdefault(id(data), []).append(replay)
            Lacking.connect({replay.lacking: replay.stage for replay in replays})
            self._leading = any(replay.leads for replay in replays)
            wanted = None if part is None else next(r for r in replays if r.stage is part.stage)
            if wanted is not None:
                yield wanted.stage, ()
            yield from self._go(replays, wanted, bounded=end_ns != NEVER or part is not None)

    def _narrow(
        self, part: WantedWindows, stage: AnyStage, windows: WindowGrid, edges: Edges
    ) -> float | None:
        """Have only those windows given that are wanted. Returns up to which end they are not."""
        if stage is not part.stage:
            return NEVER
        self._part = windows, edges
        self.first_end_ns = edges.first_ns
        edges.stop_before(part.end_ns)
        edges.stop_after(part.last_ns)
        return None if part.start_ns == -NEVER else part.start_ns

    def _go(
        self, begun: Sequence[_StageReplay], wanted: _StageReplay | None, *, bounded: bool
    ) -> Generator[Given]:
        """
        :param wanted: with the last window of this one, all is done; None: with those of all
        :param bounded: whether there are last windows before there are no more rows
        """
        replays: list[_StageReplay] = [replay for replay in begun if not replay.is_over]
        idle_until_ns: float = -NEVER
        ended = False
        while replays and not (wanted is not None and wanted.is_over):
            # Of one there is nothing to compare, and most pipelines have one.
            alone = len(replays) == 1
            due_ns = replays[0].due_ns if alone else min([replay.due_ns for replay in replays])
            self._now_ns = due_ns
            if due_ns > idle_until_ns:
                idle_until_ns = self._ingest_before(due_ns)
            if idle_until_ns == NEVER and not ended:
                self._limit(begun)
                ended = bounded = True
            if self._leading and not any(replay.leads for replay in replays):
                self._leading = False
            if bounded:
                replays = [replay for replay in replays if not replay.is_over]
            if (
                alone
                and replays
                and (many := replays[0].run_many(self._at_hand_until_ns, self._ingest_before))
                is not None
            ):
                self._now_ns = replays[0].due_ns  # up to which all have been run
                yield from _until_error(replays[0], many)
                continue
            for replay in replays:
                if replay.due_ns <= due_ns:
                    dataset = replay.run()
                    if dataset is None:
                        if replay.was_empty:
                            replay.jump(self._next_change_ns(replay, replays))
                        continue
                    yield replay.stage, (dataset,)
                    if replay.ends_with_error:
                        _raise_error(dataset)

    def _ingest_before(self, due_ns: int) -> float:
        """Let all rows enter that come before a window which is due at a time. Returns until when
        no window has to wait for more; infinity: there are none."""
        for readers in self._groups.values():
            limit_ns = due_ns + readers[0].holds_end
            if len(readers) == 1:
                reader = readers[0]
                while reader.fetch() < limit_ns:
                    reader.ingest_before(limit_ns)
                continue
            while True:
                arrivals = [reader.fetch() for reader in readers]
                first = min(range(len(readers)), key=arrivals.__getitem__)
                if arrivals[first] >= limit_ns:
                    break
                # Up to where another one's row comes; of two at a time, the first source's first.
                others = [t + (i > first) for i, t in enumerate(arrivals) if i != first]
                readers[first].ingest_before(min(limit_ns, *others))
        idle_until_ns: float = NEVER
        at_hand_until_ns: float = NEVER
        for reader in self._sources:
            reader_ns = reader.idle_until_ns - reader.holds_end
            if reader_ns < idle_until_ns:
                idle_until_ns = reader_ns
            reader_ns = reader.at_hand_until_ns - reader.holds_end
            if reader_ns < at_hand_until_ns:
                at_hand_until_ns = reader_ns
        self._at_hand_until_ns = at_hand_until_ns
        return idle_until_ns

    def _next_change_ns(self, of: _StageReplay, replays: Sequence[_StageReplay]) -> float:
        """Up to when nothing enters the data of a stage; infinity: nothing does any more."""
        changes: list[float] = []
        for data in of.stage.inputs:
            changes += (
                reader.fetch() - reader.holds_end for reader in self._groups.get(id(data), ())
            )
            changes += (  # not its own results: an empty window gives none
                replay.due_ns - 1
                for replay in replays
                if replay is not of
                and not replay.is_over
                and any(route.leads_to(data) for route in replay.stage.routes)
            )
        return min(changes, default=NEVER)

    def _limit(self, replays: Sequence[_StageReplay]) -> None:
        """There are no more rows: the last windows are those that hold the last ones, unless it is
        to go on."""
        before = [replay.edges.last_ns for replay in replays]
        self._limit_to(replays, self.until_ns if self.goes_on else -NEVER)
        if self._part is not None and self.until_ns > self._part[1].last_ns:
            for replay, last_ns in zip(replays, before, strict=True):
                replay.edges.last_ns = last_ns
            self._limit_to(replays, self.until_ns)

    def _limit_to(self, replays: Sequence[_StageReplay], until_ns: float) -> None:
        """
        :param until_ns: windows that end by then are run in any case
        """
        # The last row that entered some data, by the data's id.
        own: dict[int, float] = {data: last_ns for data, (_, last_ns) in self._filled.items()}
        for data, readers in self._groups.items():
            own[data] = max(reader.last_ns for reader in readers)
        last_ns = max(own.values())
        arrived_ns = max((reader.arrived_ns for reader in self._sources), default=last_ns)
        for replay in replays:
            stage, edges = replay.stage, replay.edges
            read = max(own.get(id(data), -NEVER) for data in stage.inputs)
            edges.limit(last_ns, read, arrived_ns, until_ns)
            for route in stage.routes:
                before = own.get(id(route.into), -NEVER)
                own[id(route.into)] = max(before, edges.results_until_ns)

    def _results_entered(self, data: int, end_ns: int) -> None:
        """Results have entered, which may belong to a window before that of the first row."""
        if self._leading:
            for replay in self._replays_of.get(data, ()):
                replay.edges.note(end_ns - 1, replay.end_ns)

    def _before_write(self, data: int) -> None:
        """Somebody is about to write to the replay's own of the data with this id."""
        for replay in self._replays_of.get(data, ()):
            replay.forget_view()


def _telling(
    datasets: Iterable[AnyDataSet], tell: Callable[[AnyDataSet], object]
) -> Iterator[AnyDataSet]:
    """DataSets, each told before it is given."""
    for dataset in datasets:
        tell(dataset)
        yield dataset


def _until_error(replay: _StageReplay, datasets: DataSetBatch) -> Generator[Given]:
    """What a stage gives, up to the first error where that ends a replay.

    :raises TaskError: then
    """
    if not replay.ends_with_error:
        yield replay.stage, datasets
        return
    for dataset in datasets:
        yield replay.stage, (dataset,)
        _raise_error(dataset)


def _raise_error(dataset: AnyDataSet) -> None:
    """See whether a task of a window has failed.

    :raises TaskError: the first that has
    """
    for error in dataset.errors.values():
        raise error


@contextlib.contextmanager
def _watched(what: Watchable) -> Generator[None]:
    """Look after this meanwhile."""
    watch().add(what)
    watch().wake()
    try:
        yield
    finally:
        watch().remove(what)
        watch().settle()


def _nothing_held(_stage: AnyStage) -> None:
    """No results are known."""


def _length_ns(stage: AnyStage, config: RunnerConfig) -> int:
    """How long a row is seen at most: as long as a window is, or until the next one begins."""
    length_ns = 0 if config.window is None else config.window.longest_ns
    return max(length_ns, stage.interval.longest_ns)


def _ends_of(data: object) -> tuple[int, int] | None:
    """The times of the first row and the last that are in a series; None: there are none."""
    if not isinstance(data, TimeSeries) or not len(times := data.view().time):
        return None
    unit_ns, holds_end = data.unit.nanos, data.closed is Closed.RIGHT
    return int(times[0]) * unit_ns - holds_end, int(times[-1]) * unit_ns - holds_end
