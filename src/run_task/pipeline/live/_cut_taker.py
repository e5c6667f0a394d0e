"""The moment at which a checkpoint is taken of a pipeline that runs.

It is one at which no stage has a window in hand: each window that has begun has given its results,
to other data and to sinks, and each row that was read has entered, or is noted as waiting. No
window begins until such a moment has come. Rows enter meanwhile, since windows may wait for them,
but those for which a view of another window would have to be taken; then they are held, for as long
as it takes to look. Nothing is encoded or written here: states and
views of series do not change.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from run_task.data import Atom, RwLock, TimeSeries
from run_task.pipeline._branches import Way
from run_task.pipeline._order import NEVER, StageMark
from run_task.pipeline.checkpoint._cut import (
    Cut,
    DataCut,
    ReaderCut,
    SeriesCut,
    SourceCut,
    StageCut,
    WayCut,
)
from run_task.pipeline.checkpoint._restorer import kinds_of, roles_of
from run_task.pipeline.live._source_thread import SourceThread
from run_task.pipeline.live._stage import LiveStage
from run_task.pipeline.live._wiring import Wiring
from run_task.sources._positioned import UNKNOWN, Position, Positioned, positioned
from run_task.tasks._stateful import with_state

_HELD: Final = 1.0
"""For how many seconds windows may be held for a cut that would have begun."""

_LOOK: Final = 0.1
"""After how many seconds it is looked whether there are such."""

_LONGEST_HELD: Final = 8.0
"""For how many seconds it is waited for those in hand, however long they take."""

_MOST_QUIET: Final = 30.0
"""For how many seconds a moment is waited for at which nothing is in hand anyway, however long
windows take."""

_SHARE: Final = 0.8
"""For which share of the time that stages wait for each other at most, so that none goes on without
another that is held."""

_MOST: Final = 100
"""How many windows are counted that have their view."""

_MARGIN: Final = 1.25
"""How much longer a window may take than most do."""

_VALUE: Final = 0.2
"""For how many seconds the value of an RwLock is waited for."""


class CutTaken(NamedTuple):
    """A cut, and what sources are told once it lasts."""

    cut: Cut
    commits: Sequence[tuple[Positioned, Position]]


class CutTaker:
    """Takes cuts through a pipeline that runs.

    :param wiring: its stages and sources
    :param name_of: what a source is called, by the number of its routes
    """

    def __init__(self, wiring: Wiring, name_of: Callable[[int], str]) -> None:
        self._wiring = wiring
        self._name_of = name_of
        self.held: float = 0.0
        """For how many seconds windows were held for the last one."""
        self.in_hand: Sequence[StageMark] = ()
        """The stages that had a window in hand all the while, where there was none."""

    def take(self, quiet: float) -> CutTaken | None:
        """Take a cut.

        :param quiet: for how many seconds to wait first, at least, for a moment at which nothing
            is in hand anyway
        :return: None: there was no such moment, nor one while windows were held, for as long as
            most take
        """
        coordinator = self._wiring.coordinator
        self.in_hand, self.held = (), 0.0
        # Who has a moment without a window in each interval need not be held for one.
        coordinator.until_nothing_is_in_hand(max(quiet, min(self._left(), _MOST_QUIET)))
        bound = max(_HELD, min(self._left(), self._timeout() * _SHARE, _LONGEST_HELD))
        begun = time.monotonic()
        try:
            with coordinator.held():
                return self._take_held(begun + bound)
        finally:
            self.held = time.monotonic() - begun

    def _left(self) -> float:
        """For how many seconds windows are likely to be in hand: as long as those take that have
        their view, of the stage that takes longest. A task that hangs has no part in that."""
        stages = [live for live in self._wiring.stages if not live.leaves]
        return max(map(_left, stages), default=0.0) * _MARGIN

    def _timeout(self) -> float:
        """For how many seconds stages wait for each other."""
        stages = self._wiring.stages
        return min((live.config.upstream_timeout for live in stages), default=_LONGEST_HELD)

    def _take_held(self, deadline: float) -> CutTaken | None:
        """Take a cut while windows are held, until a time; but for a second at most, if one of a
        stage that has none in hand would have begun."""
        coordinator = self._wiring.coordinator
        while (left := deadline - time.monotonic()) > 0 and coordinator.stands_by < _HELD:
            if in_hand := coordinator.until_nothing_is_in_hand(min(left, _LOOK)):
                self.in_hand = in_hand
                continue
            with contextlib.ExitStack() as hands:
                if not self._take_hands(hands, deadline):
                    return None
                with coordinator.still() as is_still:
                    if is_still:
                        return self.look()
        return None

    def _take_hands(self, hands: contextlib.ExitStack, deadline: float) -> bool:
        for thread in self._wiring.sources:
            for hand in (thread.progress.hand, thread.early.hand):
                if not hand.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
                    return False
                hands.callback(hand.release)
        return True

    def take_last(self) -> CutTaken | None:
        """Take a cut once all has ended.

        :return: None: it cannot be taken, since rows of a source that was left still enter, or data
            is held
        """
        with contextlib.ExitStack() as hands:
            has_hands = self._take_hands(hands, time.monotonic() + _HELD)
            return self.look() if has_hands else None

    def look(self) -> CutTaken | None:
        """A cut as all stands now. While nothing moves, or all has ended.

        :return: None: it cannot be taken now
        """
        wiring = self._wiring
        groups: dict[int, list[SourceThread]] = {}
        for thread in wiring.sources:
            groups.setdefault(thread.route.number, []).append(thread)
        sources: dict[str, SourceCut] = {}
        commits: list[tuple[Positioned, Position]] = []
        for number, threads in groups.items():
            cut = _source_cut(threads)
            sources[self._name_of(number)] = cut
            source = positioned(threads[0].source)
            if source is not None and cut.begun:
                commits.append((source, cut.position))
        stages = [live for live in wiring.stages if not live.leaves]
        roles = roles_of(
            [
                (self._name_of(number), way, thread.route.into)
                for number, threads in groups.items()
                for way, thread in enumerate(threads)
            ],
            [live.stage for live in stages],
        )
        entered = {id(thread.route.into) for thread in wiring.sources}
        entered |= {id(route.into) for live in stages for route in live.stage.routes}
        try:
            data = [_data_cut(one, known, id(one) in entered) for one, known in roles]
        except TimeoutError:
            return None
        cuts = {live.stage.name: _stage_cut(live) for live in stages}
        return CutTaken(Cut(wiring.now_ns, sources, cuts, data), commits)


def _left(live: LiveStage) -> float:
    """How many seconds a stage takes for the windows that have their view, if each takes as long as
    those before."""
    mark, windows = live.mark, 0
    end_ns, seen_ns = max(mark.first_ns, mark.done_ns), max(mark.seen.values())
    if end_ns == -NEVER or end_ns >= seen_ns:
        return 0.0  # it has not begun, or has none in hand
    took = live.stats.duration.p99  # which takes a while
    while end_ns < seen_ns and windows * took < _MOST_QUIET and windows < _MOST:
        end_ns = mark.windows.after_ns(end_ns)
        windows += 1
    return windows * took


def _source_cut(threads: Sequence[SourceThread]) -> SourceCut:
    """How far a source has been read."""
    first = threads[0].source
    if isinstance(first, Way):
        return _cut_of_ways(threads, first)
    (thread,) = threads
    progress = thread.progress
    pending = [*progress.rest_given] if progress.feeds else []
    pending += progress.waiting[progress.fed :]
    position, rest = progress.given, progress.rest
    if not progress.feeds and rest is not None:
        if progress.comes_again:
            position = progress.entered
        else:
            pending = [*progress.rest_given, *pending]
    return SourceCut(
        None if position is UNKNOWN else position,
        not progress.tracks,
        [_way_cut(thread, pending)],
        position is not UNKNOWN,
    )


def _cut_of_ways(threads: Sequence[SourceThread], first: Way) -> SourceCut:
    """Of a source that goes several ways: it is read up to where the first of these is, and what
    the others have not had by then waits."""
    rows, position, queues = first.split.waiting()
    counted = first.split.positioned is None
    begun = True
    if counted:
        position = rows + threads[0].progress.begun_at
    elif position is UNKNOWN:
        begun = False
    ways: list[WayCut] = []
    for thread in threads:
        progress, way = thread.progress, thread.source
        assert isinstance(way, Way)
        pending = [*progress.rest_given, *progress.waiting[progress.fed :]]
        noted: Any = progress.given
        number = 0 if noted is UNKNOWN else noted.number
        pending += (taken.item for taken in queues[way.number] if taken.number > number)
        ways.append(_way_cut(thread, pending))
    return SourceCut(position if begun else None, counted, ways, begun)


def _way_cut(thread: SourceThread, pending: Sequence[Any]) -> WayCut:
    last_ns, arrived_ns = thread.row_times
    return WayCut(
        last_ns,
        arrived_ns,
        pending,
        [*thread.early_before, *thread.early.waiting()],
        thread.remembered,
    )


def _stage_cut(live: LiveStage) -> StageCut:
    stage, mark = live.stage, live.mark
    tasks = {task.name: own for task in stage.tasks if (own := with_state(task)) is not None}
    of = stage.states.of
    return StageCut(
        live.grid,
        int(max(mark.first_ns, mark.done_ns)),
        live.edges.given_from_ns,
        live.origin_ns,
        [
            ReaderCut(one.first_ns, one.floor_ns, one.last_ns, tuple(one.gaps))
            for one in (each.windows for each in live.inputs)
        ],
        None if stage.keys is None else stage.keys.by,
        stage.is_paused,
        tasks,
        {name: dict(of[name]) for name in tasks if name in of},
        stage.states.known(),
        sorted(stage.paused_tasks),
        live.lacking.noted,
    )


def _data_cut(data: Any, roles: Sequence[str], entered: bool) -> DataCut:
    if isinstance(data, TimeSeries):
        told = data.unit.name, data.closed.name, data.key
        return DataCut(roles, SeriesCut(kinds_of(data), *told, data.grown()))
    if not entered:
        return DataCut(roles)
    shared: RwLock[Any] | Atom[Any] = data
    with shared.read(_VALUE) as value:
        return DataCut(roles, value=value.to_bytes())
