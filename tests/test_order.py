"""The order of windows and rows: whatever it lets happen, all see what a replay shows them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.proof import examples

from run_task import Align, TaskInterval
from run_task.pipeline._order import NEVER, Order, Place, RowLimits, SourceMark, StageMark
from run_task.runner._window_grid import WindowGrid, windows_of

Item: TypeAlias = tuple[int, str]
"""What is in shared data: its timestamp, and what it is."""

Seen: TypeAlias = dict[tuple[int, int], frozenset[tuple[int, str]]]
"""What each window was shown, and in which data, by the index of its stage and its end."""


@dataclass(frozen=True)
class PlacePlan:
    """Shared data.

    :param series: whether views of it end with their windows
    :param right: whether a window holds its end
    :param retention: for how long before the newest items stay; None: forever
    :param viewable: whether a view may be taken for a window that has not begun
    """

    series: bool
    right: bool
    retention: int | None
    viewable: bool


@dataclass(frozen=True)
class StagePlan:
    interval: int
    grace: int
    reads: Sequence[int]  # some may be what it enters
    enters: Sequence[int]
    at_end: bool  # results are stamped with the end of the window


@dataclass(frozen=True)
class SourcePlan:
    enters: int
    stamps: Sequence[int]
    recording: bool
    kept: bool = False
    """Whether it is behind until it has given all rows, and so waited for."""

    @property
    def arrivals(self) -> Sequence[int]:
        return [max(self.stamps[: i + 1]) for i in range(len(self.stamps))]


@dataclass(frozen=True)
class Plan:
    places: Sequence[PlacePlan]
    stages: Sequence[StagePlan]
    sources: Sequence[SourcePlan]

    @property
    def first(self) -> int:
        return min(source.arrivals[0] for source in self.sources)

    @property
    def last(self) -> int:
        return max(source.arrivals[-1] for source in self.sources)

    def first_end(self, stage: StagePlan) -> int:
        return (self.first // stage.interval + 1) * stage.interval

    def stamp(self, stage: StagePlan, place: PlacePlan, end: int) -> int:
        return end if self.in_order(stage, place) else end - stage.interval

    def in_order(self, stage: StagePlan, place: PlacePlan) -> bool:
        return stage.at_end and place.right


class Content:
    """What is in shared data."""

    def __init__(self, plan: PlacePlan) -> None:
        self._plan = plan
        self.items: list[Item] = []

    def enter(self, stamp: int, what: str) -> None:
        self.items.append((stamp, what))
        if self._plan.retention is not None:
            oldest = max(self.items)[0] - self._plan.retention
            self.items = [item for item in self.items if item[0] >= oldest]

    def bounded(self, items: Sequence[Item], end: int) -> Sequence[str]:
        if not self._plan.series:
            return [what for _, what in items]
        last = end if self._plan.right else end - 1
        return [what for stamp, what in items if stamp <= last]


def replayed(plan: Plan, beyond: int = 0) -> Seen:
    """The one order: all that happens, by its time.

    :param plan: of what there is
    :param beyond: for how long after the last row there are windows
    """
    contents = [Content(place) for place in plan.places]
    found: Seen = {}
    events: list[tuple[tuple[int, int, int, int], Callable[[], None]]] = []

    def row(number: int, at: int) -> Callable[[], None]:
        source = plan.sources[number]
        return lambda: contents[source.enters].enter(source.stamps[at], f"row {number}.{at}")

    def window(index: int, end: int) -> Callable[[], None]:
        stage = plan.stages[index]

        def run() -> None:
            found[index, end] = frozenset(
                (read, what)
                for read in stage.reads
                for what in contents[read].bounded(contents[read].items, end)
            )
            for into in stage.enters:
                stamp = plan.stamp(stage, plan.places[into], end)
                contents[into].enter(stamp, f"result {index}.{end}")

        return run

    for number, source in enumerate(plan.sources):
        rank = -1 if plan.places[source.enters].right else 1
        for at, arrival in enumerate(source.arrivals):
            events.append(((arrival, rank, number, at), row(number, at)))
    for index, stage in enumerate(plan.stages):
        ends = range(plan.first_end(stage), plan.last + beyond + stage.interval + 1, stage.interval)
        events += (((end + stage.grace, 0, index, 0), window(index, end)) for end in ends)
    for _, happen in sorted(events, key=lambda event: event[0]):
        happen()
    return found


ASK_FIRST = RowLimits(-NEVER, -NEVER, True)


@dataclass
class _Stage:
    plan: StagePlan
    mark: StageMark
    end: int
    computed: bool = False
    views: dict[tuple[int, float], list[Item]] = field(
        default_factory=dict[tuple[int, float], list[Item]]
    )


@dataclass
class _Source:
    plan: SourcePlan
    mark: SourceMark
    at: int = 0
    told: bool = False  # when the row at hand arrives
    limits: RowLimits = ASK_FIRST
    moves: int = 0


class Run:
    """A live run, in which anything happens next that the order lets happen."""

    def __init__(self, plan: Plan, chance: random.Random) -> None:
        self.plan = plan
        self.chance = chance
        self.contents = [Content(place) for place in plan.places]
        places = [Place(p.series, p.retention is not None, p.right) for p in plan.places]
        self.number_of = {place: number for number, place in enumerate(places)}
        self.stages = [
            _Stage(
                stage,
                StageMark(
                    f"stage {index}",
                    every(stage.interval),
                    stage.grace,
                    [places[read] for read in stage.reads],
                    [(places[i], plan.in_order(stage, plan.places[i])) for i in stage.enters],
                ),
                plan.first_end(stage),
            )
            for index, stage in enumerate(plan.stages)
        ]
        self.sources = [
            _Source(
                source, SourceMark(f"source {i}", places[source.enters], recording=source.recording)
            )
            for i, source in enumerate(plan.sources)
        ]
        for one in self.sources:
            one.mark.behind = one.plan.kept
        self.order = Order([s.mark for s in self.stages], [s.mark for s in self.sources])
        self.by_mark = {stage.mark: stage for stage in self.stages}
        self.found: Seen = {}
        self.moves = 0

    def run(self) -> Seen:
        for stage in self.stages:
            self.order.advance_stage(stage.mark, first_ns=stage.end)
        while True:
            steps = [
                *(self.step_of_stage(stage) for stage in self.stages if not stage.mark.ended),
                *(self.step_of_source(source) for source in self.sources if not source.mark.ended),
            ]
            if not steps:
                return self.found
            possible = [step for step in steps if step is not None]
            assert possible, f"nobody can go on: {self.plan}"
            self.chance.choice(possible)()

    def moved(self) -> None:
        self.moves += 1

    # Stages

    def step_of_stage(self, stage: _Stage) -> Callable[[], None] | None:
        order, mark, end = self.order, stage.mark, stage.end
        interval = stage.plan.interval
        if stage.computed:
            writers, readers = order.before_results(mark, end)
            due = end + stage.plan.grace
            shows = [self.number_of[place] for place in mark.shows]
            if writers or not all(self.has_views(reader, shows) for reader in readers):
                return None
            if any(
                self.waits(reader, place, due - 1) for reader in readers for place in mark.shows
            ):
                return None
            return lambda: self.enter(stage, due, readers, shows)
        if end > mark.last_ns:
            return lambda: self.end(stage)
        if order.before_window(mark, end - interval, end):
            return None
        return lambda: self.look(stage)

    def end(self, stage: _Stage) -> None:
        self.order.advance_stage(stage.mark, ended=True)
        self.moved()

    def look(self, stage: _Stage) -> None:
        self.found[stage.mark.index, stage.end] = frozenset(
            (read, what)
            for read in stage.plan.reads
            for what in self.contents[read].bounded(
                stage.views.pop((read, stage.end), self.contents[read].items), stage.end
            )
        )
        assert not self.order.missing(stage.mark, stage.end)
        stage.computed = True
        self.order.advance_stage(stage.mark, seen_ns=stage.end + stage.plan.interval)
        self.moved()

    def enter(
        self, stage: _Stage, due: int, readers: Sequence[StageMark], shows: Sequence[int]
    ) -> None:
        for reader in readers:
            self.take_views(self.by_mark[reader], shows, due)
        for into in stage.plan.enters:
            stamp = self.plan.stamp(stage.plan, self.plan.places[into], stage.end)
            self.contents[into].enter(stamp, f"result {stage.mark.index}.{stage.end}")
        stage.end += stage.plan.interval
        stage.computed = False
        self.order.advance_stage(stage.mark, done_ns=stage.end)
        self.moved()

    def has_views(self, reader: StageMark, places: Sequence[int]) -> bool:
        return all(
            self.plan.places[read].viewable
            for read in self.by_mark[reader].plan.reads
            if read in places
        )

    def take_views(self, stage: _Stage, places: Sequence[int], before: float) -> None:
        """Take the views of some data for windows that are due before a time and have none."""
        for place, read in zip(stage.mark.reads, stage.plan.reads, strict=True):
            while read in places and stage.mark.unseen_ns(place) < before:
                end = stage.mark.unseen_ns(place) - stage.plan.grace
                stage.views[read, end] = list(self.contents[read].items)
                seen_ns = end + stage.plan.interval
                self.order.advance_stage(stage.mark, seen_ns=seen_ns, place=place)
                self.moved()

    # Sources

    def step_of_source(self, source: _Source) -> Callable[[], None] | None:
        """What a source may do next. Views are taken ahead where it may go on: not for windows that
        wait for another one."""
        if source.at == len(source.plan.stamps):
            return lambda: self.end_source(source)
        arrival = source.plan.arrivals[source.at]
        if not source.told:
            return lambda: self.tell(source, arrival)
        late = source.plan.stamps[source.at] < arrival
        limit = source.limits.late_ns if late else source.limits.in_order_ns
        if arrival < limit and (source.limits.firm or source.moves == self.moves):
            return lambda: self.enter_row(source, arrival, ())
        writers, readers = self.order.before_row(source.mark, arrival, late=late)
        enters = [source.plan.enters]
        if writers or not all(self.has_views(reader, enters) for reader in readers):
            return None
        if self.owed(source, arrival, readers):
            return None
        return lambda: self.enter_row(source, arrival, readers)

    def owed(self, source: _Source, arrival: int, readers: Sequence[StageMark]) -> bool:
        """Whether windows of which views would be taken wait for a source that is behind."""
        due = arrival - self.plan.places[source.plan.enters].right
        return any(self.waits(reader, source.mark.enters, due) for reader in readers)

    def waits(self, reader: StageMark, place: Place, due: float) -> bool:
        """Whether a stage has a window that is due by a time, and waits for a source."""
        if place not in reader.reads or reader.unseen_ns(place) > due:
            return False
        return bool(self.order.owed(reader, due, place))

    def tell(self, source: _Source, arrival: int) -> None:
        source.told = True
        source.mark.given_ns = arrival
        if source.plan.recording:
            self.order.advance_source(source.mark, next_ns=arrival, known_ns=arrival)
            self.moved()

    def enter_row(self, source: _Source, arrival: int, readers: Sequence[StageMark]) -> None:
        end = self.plan.places[source.plan.enters].right
        for reader in readers:
            self.take_views(self.by_mark[reader], [source.plan.enters], arrival + 1 - end)
        if not arrival < source.limits.in_order_ns:
            source.limits = self.order.row_limits(source.mark, arrival)
            source.moves = self.moves
            assert source.limits.firm
        row = f"row {source.mark.index}.{source.at}"
        self.contents[source.plan.enters].enter(source.plan.stamps[source.at], row)
        source.at += 1
        source.told = False
        if source.at == len(source.plan.stamps):
            source.mark.behind = False

    def end_source(self, source: _Source) -> None:
        if source.plan.recording:
            next_ns = source.plan.arrivals[-1] + 1
            self.order.advance_source(source.mark, next_ns=next_ns)
        if all(other.mark.ended for other in self.sources if other is not source):
            for stage in self.stages:
                self.order.advance_stage(stage.mark, last_ns=self.plan.last + stage.plan.interval)
        self.order.advance_source(source.mark, ended=True)
        self.moved()


@st.composite
def plans(draw: st.DrawFn, *, live: bool) -> Plan:
    places: list[PlacePlan] = []
    for _ in range(draw(st.integers(1, 4))):
        series = draw(st.booleans())
        retention = draw(st.none() | st.integers(1, 6)) if series else None
        viewable = series or draw(st.booleans())
        places.append(PlacePlan(series, draw(st.booleans()) and series, retention, viewable))
    # Who reads what comes first is upstream of who reads what comes after.
    some = st.lists(st.integers(0, len(places) - 1), min_size=1, max_size=3, unique=True)
    reads = sorted(draw(st.lists(some, min_size=1, max_size=5)), key=max)
    stages: list[StagePlan] = []
    for read in reads:
        last = max(read)
        after = range(last + 1, len(places))
        enters = draw(st.lists(st.sampled_from(after), unique=True)) if after else []
        if all(max(other.reads) < last for other in stages) and draw(st.booleans()):
            enters = [*enters, last]  # which it reads itself
        grace = draw(st.integers(0, 3))
        fed_by = [other for other in stages if {*read} & {*other.enters}]
        grace = max([grace, *(other.grace for other in fed_by)])
        stages.append(StagePlan(draw(st.integers(1, 4)), grace, read, enters, draw(st.booleans())))
    sources = [
        SourcePlan(
            draw(st.sampled_from(range(len(places)))),
            draw(st.lists(st.integers(0, 12), min_size=1, max_size=8)),
            not live or draw(st.booleans()),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    return Plan(places, stages, sources)


@settings(max_examples=examples(400))
@given(plans(live=False), st.integers(0, 2**32))
def test_whatever_comes_first_each_window_sees_what_a_replay_shows_it(
    plan: Plan, seed: int
) -> None:
    assert Run(plan, random.Random(seed)).run() == replayed(plan)


@settings(max_examples=examples(200))
@given(plans(live=True), st.integers(0, 2**32))
def test_of_sources_that_are_no_recordings_a_window_may_lack_rows_and_sees_none_too_early(
    plan: Plan, seed: int
) -> None:
    found, least = Run(plan, random.Random(seed)).run(), replayed(plan)
    assert found.keys() >= least.keys()  # more may be due before the last row is known
    most = replayed(plan, max(end for _, end in found))
    live = tuple(f"row {i}." for i, source in enumerate(plan.sources) if not source.recording)
    for (index, end), seen in found.items():
        for read in plan.stages[index].reads:
            if plan.places[read].retention is None:  # else others stay instead
                shown, there, then = (
                    {what for where, what in each if where == read}
                    for each in (seen, most[index, end], least.get((index, end), seen))
                )
                assert shown <= there
                assert all(what.startswith(live) for what in then - shown)


@settings(max_examples=examples(400))
@given(plans(live=False), st.integers(0, 2**32), st.data())
def test_windows_wait_for_sources_that_are_behind_as_for_recordings(
    plan: Plan, seed: int, data: st.DataObject
) -> None:
    sources = [
        replace(source, recording=False, kept=True) if data.draw(st.booleans()) else source
        for source in plan.sources
    ]
    made = replace(plan, sources=sources)
    found, least = Run(made, random.Random(seed)).run(), replayed(made)
    assert found.keys() >= least.keys()  # more may be due before the last row is known
    most = replayed(made, max(end for _, end in found))
    entered = {place for stage in plan.stages for place in stage.enters}
    for window, then in least.items():
        for read in plan.stages[window[0]].reads:
            if plan.places[read].retention is not None and read in entered:
                continue  # results of windows that the replay does not have may stay instead
            shown, there, needed = (
                {what for where, what in each if where == read}
                for each in (found[window], most[window], then)
            )
            assert needed <= shown <= there
            assert {what for what in shown if what.startswith("row")} == {
                what for what in needed if what.startswith("row")
            }


def every(nanos: int) -> WindowGrid:
    return windows_of(TaskInterval.nanos(nanos), None, Align.EPOCH, 0)


def stage(reads: Place, *enters: tuple[Place, bool], grace: int = 0) -> StageMark:
    return StageMark("a stage", every(10), grace, reads, enters)


def test_a_row_in_order_waits_for_no_window_whose_view_ends_before_it() -> None:
    place = Place(bounded=True)
    reader, source = stage(place), SourceMark("a source", place, recording=False)
    order = Order([reader], [source])
    order.advance_stage(reader, first_ns=10)
    assert order.before_row(source, 10, late=False) == ([], ())
    assert order.row_limits(source, 10) == (NEVER, 10, True)
    assert order.before_row(source, 10, late=True) == ([], [reader])
    assert order.before_row(source, 9, late=True) == ([], [])


@pytest.mark.parametrize("holds_end", [False, True])
def test_where_a_window_holds_its_end_rows_of_that_time_come_before_it(holds_end: bool) -> None:
    place = Place(holds_end=holds_end)
    reader, source = stage(place), SourceMark("a source", place, recording=True)
    order = Order([reader], [source])
    order.advance_stage(reader, first_ns=10)
    order.advance_source(source, next_ns=10, known_ns=10)
    assert order.before_window(reader, 0, 10) == ([source] if holds_end else [])
    assert order.before_row(source, 10, late=False).readers == ([] if holds_end else [reader])
    assert order.row_limits(source, 9).in_order_ns == 10 + holds_end


def test_marks_only_go_forward() -> None:
    place = Place()
    one, source = stage(place), SourceMark("a source", place, recording=True)
    order = Order([one], [source])
    order.advance_stage(one, first_ns=10, seen_ns=30, done_ns=20, last_ns=50)
    order.advance_stage(one, first_ns=5, seen_ns=20, done_ns=10, last_ns=60)
    assert (one.due_ns, one.unseen_ns(place), one.last_ns) == (20, 30, 50)
    order.advance_source(source, next_ns=7, known_ns=8, ended=True)
    order.advance_source(source, next_ns=6, known_ns=6)
    assert (source.next_ns, source.known_ns, source.ended) == (7, 8, True)


def test_who_is_not_waited_for_is_asked_about_again_once_it_moves() -> None:
    place = Place()
    slow, source = stage(place), SourceMark("a source", place, recording=False)
    rival = stage(Place(), (place, False))
    order = Order([rival, slow], [source])
    order.advance_stage(rival, first_ns=10)
    order.advance_stage(slow, first_ns=100)
    assert order.before_row(source, 20, late=False).writers == [rival]
    assert order.row_limits(source, 20) == (100, 100, False)
    order.advance_stage(rival, done_ns=30)
    assert order.row_limits(source, 20) == (30, 30, True)


def test_a_stage_that_ended_before_its_last_window_is_missed_and_not_waited_for() -> None:
    place = Place()
    up, down = stage(Place(), (place, False)), stage(place)
    order = Order([up, down], [])
    order.advance_stage(up, first_ns=10, ended=True)
    order.advance_stage(down, first_ns=10)
    assert order.missing(down, 10) == [up]
    assert order.before_window(down, 0, 10) == []
    order.advance_stage(up, last_ns=9)  # there was to be no such window
    assert order.missing(down, 10) == []
    assert up.due_ns == math.inf


def test_a_window_waits_until_it_is_known_that_a_row_is_as_late_as_that() -> None:
    place, other = Place(), Place()
    one = stage(place)
    sources = [SourceMark(str(i), other, recording=True) for i in range(2)]
    order = Order([one], sources)
    order.advance_stage(one, first_ns=10)
    assert order.before_window(one, 0, 10) == sources
    order.advance_source(sources[1], known_ns=0)
    assert order.before_window(one, 0, 10) == []
    assert order.before_window(one, 10, 20) == sources
    for source in sources:
        order.advance_source(source, ended=True)
    assert order.before_window(one, 10, 20) == []


def test_relations_of_many_stages_are_found_in_no_time() -> None:
    places = [Place() for _ in range(2001)]
    chain: list[Any] = [stage(places[i], (places[i + 1], False)) for i in range(2000)]
    order = Order(chain, [])
    assert order.missing(chain[1], 10) == [chain[0]]
