"""The order of a pipeline's windows and rows: which comes before which.

A replay does everything in one order, by time; at one time, windows come in the order of their
stages, upstream first, and then rows in the order of their sources. A window's time is when it is
due: its end and grace. It takes its view of the data then, and its results enter. A row's time is
when it arrives: its own, or, if it is out of order, that of the latest row before it. Rows that
enter data in which a timestamp is the end of what it describes come before the windows of their
time, since these hold them.

Live, each stage and source goes on by itself. What each may do is what the order lets it do, as
far as others could tell the difference:

- a window begins once what comes before it has entered its data, each of them if it has several;
- results and rows enter once what comes before them has entered the same data, and once the
  windows that come before them have their views: those, at least, that would see them.

A window's view of a ``TimeSeries`` ends with the window. So it cannot see a row that is in order
and comes after it, and such a row need not wait for it, unless it makes earlier rows pass out of
retention.

Here are the comparisons, and nothing else: no thread, no lock and no clock. Marks only ever go
forward, and with them what may be done. All times are in nanoseconds since the Unix epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias, TypeVar

from run_task.runner._window_grid import WindowGrid

NEVER: Final = math.inf
"""The time of what does not come."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Shared data, as far as the order of what enters it is concerned.

    :param bounded: whether views of it end with their windows
    :param evicts: whether what enters makes earlier rows pass out
    :param holds_end: whether the window that ends at a row's time holds it
    """

    bounded: bool = False
    evicts: bool = False
    holds_end: bool = False

    @property
    def keeps_past(self) -> bool:
        """Whether a window sees the same, before and after something enters it in order that comes
        after the window."""
        return self.bounded and not self.evicts


class StageMark:
    """How far a stage has come.

    :param name: its name
    :param windows: which they are
    :param grace_ns: how long after its end a window is due
    :param reads: the data that its tasks read; several, if there are several inputs: a window has
        a view of each, which need not be taken at one time to be of one place in the order
    :param enters: the data that its results enter, and for each whether they do so in order: as
        rows that are stamped with the end of the window
    """

    __slots__ = (
        "bounded",
        "done_ns",
        "ended",
        "enters",
        "first_ns",
        "grace_ns",
        "index",
        "last_ns",
        "name",
        "paused",
        "reads",
        "seen",
        "sending",
        "shows",
        "windows",
    )

    def __init__(
        self,
        name: str,
        windows: WindowGrid,
        grace_ns: int,
        reads: Place | Sequence[Place],
        enters: Sequence[tuple[Place, bool]] = (),
    ) -> None:
        self.name: str = name
        self.index: int = 0  # among the stages
        self.windows: WindowGrid = windows
        self.grace_ns: int = grace_ns
        self.reads: Sequence[Place] = (reads,) if isinstance(reads, Place) else tuple(reads)
        self.bounded: bool = all(place.bounded for place in self.reads)
        """Whether views of all that it reads end with their windows."""
        self.enter(enters)
        self.first_ns: float = -NEVER  # the end of the first window; before it starts, unknown
        # By what it reads, the end of the first window without a view of that.
        self.seen: dict[Place, float] = dict.fromkeys(self.reads, -NEVER)
        self.done_ns: float = -NEVER  # the end of the first window whose results have not entered
        self.last_ns: float = NEVER  # there is no window that ends later
        self.ended: bool = False
        # No marks: whether windows that begin now are passed over, and whether sinks are being
        # given the results of one that has entered.
        self.paused: bool = False
        self.sending: bool = False

    def enter(self, enters: Sequence[tuple[Place, bool]]) -> None:
        """Say what its results enter, as the parameter does."""
        self.enters: Sequence[tuple[Place, bool]] = enters
        # Where somebody who is behind might see its results too early.
        self.shows: Sequence[Place] = [
            place
            for place, in_order in enters
            if not (in_order and place.keeps_past and place.holds_end)
        ]

    @property
    def due_ns(self) -> float:
        """When the first window is due whose results have not entered."""
        return self._due(max(self.first_ns, self.done_ns))

    @property
    def seen_ns(self) -> float:
        """The end of the first window that has not all of its views."""
        return min(self.seen.values())

    def unseen_ns(self, place: Place) -> float:
        """When the first window is due that has no view of some data."""
        return self._due(max(self.first_ns, self.done_ns, self.seen[place]))

    @property
    def in_hand(self) -> bool:
        """Whether a window has a view, and not all that its results are for has these; or it is not
        known yet which is the first."""
        if self.ended:
            return False
        next_ns = max(self.first_ns, self.done_ns)
        return self.sending or next_ns == -NEVER or max(self.seen.values()) > next_ns

    def _due(self, end_ns: float) -> float:
        if self.ended and end_ns > self.last_ns:
            return NEVER  # there were to be no more
        return end_ns + self.grace_ns

    def __repr__(self) -> str:
        return f"stage {self.name!r}"


class SourceMark:
    """How far a source has come.

    :param name: what it is called in messages
    :param enters: the data that its rows enter
    :param recording: whether it is one that is played: it says when its next row arrives
    :param settle: has a live source give the rows that have come by now, and tells that none comes
        before a time, as :class:`~run_task.sources._protocol.Arriving` has it; None: it cannot.
        None waits for a source that does not say when its rows arrive
    """

    __slots__ = (
        "behind",
        "comes_ns",
        "early_ns",
        "ended",
        "enters",
        "given_ns",
        "index",
        "known_ns",
        "lacking",
        "name",
        "next_ns",
        "recording",
        "settle",
        "timed",
    )

    def __init__(
        self,
        name: str,
        enters: Place,
        *,
        recording: bool,
        settle: Callable[[int], object] | None = None,
    ) -> None:
        self.name: str = name
        self.index: int = 0  # among the sources
        self.enters: Place = enters
        self.recording: bool = recording
        self.settle: Callable[[int], object] | None = settle
        self.timed: bool = recording or settle is not None  # it says when its next row arrives
        self.next_ns: float = -NEVER if self.timed else NEVER  # all rows before have entered
        self.known_ns: float = -NEVER  # the time of the latest row that is known of
        self.comes_ns: float = -NEVER  # when that arrives which arrives last of these
        # When the first row enters that has come before its time. This is no mark: it goes back
        # when an earlier one comes, but never to a time that has passed.
        self.early_ns: float = NEVER
        self.given_ns: float = -NEVER  # when the latest row arrived that it has given
        # No mark: whether there are rows that it has not given yet, which windows wait for.
        self.behind: bool = False
        # Whether it has failed, or was stopped while it was behind, in a run that another one goes
        # on from: that one has the rows, and windows that wait for them are its.
        self.lacking: bool = False
        self.ended: bool = False

    def owes(self, before_ns: float) -> bool:
        """Whether it is behind, and rows that arrive before a time may yet come."""
        return (self.lacking or (self.behind and not self.ended)) and self.given_ns < before_ns

    @property
    def enters_ns(self) -> float:
        """All rows that were to enter before have: those that wait for their time, too."""
        return min(self.next_ns, self.early_ns)

    def __repr__(self) -> str:
        return f"source {self.name}"


Mark: TypeAlias = StageMark | SourceMark

_M = TypeVar("_M", StageMark, SourceMark)


class Blockers(NamedTuple):
    """Who has to go on first."""

    writers: Sequence[Mark]
    """Those who are to change the data before."""

    readers: Sequence[StageMark]
    """Those who are to see the data before, by the views of windows that are due."""


class RowLimits(NamedTuple):
    """Up to when rows of a source may enter without asking again: marks only make that later."""

    in_order_ns: float
    """Rows may that arrive before this at their own time."""

    late_ns: float
    """Rows may that arrive before this, also out of order."""

    firm: bool
    """Whether that is so whatever moves. It is not where somebody who comes first is not waited
    for any more: once that one moves, it is to be asked again."""


@dataclass(slots=True)
class _Writers:
    """Those who change some data that a stage reads, but for the stage itself: that reads what it
    feeds itself as it was after its window before."""

    stages: Sequence[StageMark]
    recordings: Sequence[SourceMark]  # and others that say when their rows arrive
    others: Sequence[SourceMark]  # sources whose rows may come before their time


@dataclass(slots=True)
class _AroundStage:
    read: Mapping[Place, _Writers]
    rivals: Sequence[StageMark]  # whose results enter what its own do
    rows_beside: Sequence[SourceMark]  # sources whose rows do
    readers: Sequence[tuple[StageMark, Place]]  # who might see its results too early, and where


@dataclass(slots=True)
class _AroundSource:
    rivals: Sequence[StageMark]  # whose results enter what its rows do
    beside: Sequence[SourceMark]  # other sources whose rows do
    readers: Sequence[StageMark]


class Order:
    """The order of one live run.

    :param stages: the stages, those that are fed after those that feed them; the grace of each is
        no shorter than that of who feeds it
    :param sources: the sources, in the order in which they were declared
    """

    def __init__(self, stages: Sequence[StageMark], sources: Sequence[SourceMark]) -> None:
        self.arrange(stages, sources)

    def arrange(self, stages: Sequence[StageMark], sources: Sequence[SourceMark]) -> None:
        """Have the order be that of other stages and sources, or of other ways between them. Marks
        stay as they are.

        :param stages: the stages, those that are fed after those that feed them
        :param sources: the sources, in the order in which they were declared
        """
        for index, stage in enumerate(stages):
            stage.index = index
        for number, source in enumerate(sources):
            source.index = number
        recordings = [source for source in sources if source.timed]
        # By the last of these rows the run ends, if all sources are played.
        played = [source for source in sources if source.recording]
        self._ending: Sequence[SourceMark] = played if len(played) == len(sources) else ()
        readers = _by_place((place, stage) for stage in stages for place in stage.reads)
        writers = _by_place((place, stage) for stage in stages for place, _ in stage.enters)
        rows = _by_place((source.enters, source) for source in recordings)
        early = _by_place((source.enters, source) for source in sources)
        self._stages: Mapping[StageMark, _AroundStage] = {
            stage: _AroundStage(
                read={
                    place: _Writers(
                        _others(stage, writers.get(place, ())),
                        rows.get(place, ()),
                        early.get(place, ()),
                    )
                    for place in stage.reads
                },
                rivals=_others(stage, *(writers[place] for place, _ in stage.enters)),
                rows_beside=_others(None, *(early.get(place, ()) for place, _ in stage.enters)),
                readers=[
                    (other, place)
                    for place in stage.shows
                    for other in readers.get(place, ())
                    if other is not stage
                ],
            )
            for stage in stages
        }
        self._sources: Mapping[SourceMark, _AroundSource] = {
            source: _AroundSource(
                rivals=writers.get(source.enters, ()),
                beside=_others(source, early.get(source.enters, ())),
                readers=readers.get(source.enters, ()),
            )
            for source in sources
        }

    @property
    def in_hand(self) -> Sequence[StageMark]:
        """The stages that have a window in hand."""
        return [stage for stage in self._stages if stage.in_hand]

    def around_results(self, stage: StageMark) -> Sequence[StageMark]:
        """Other stages that the results of a stage may have to wait for."""
        around = self._stages[stage]
        return _others(None, around.rivals, [reader for reader, _ in around.readers])

    def waits_for_nobody(self, stage: StageMark) -> bool:
        """Whether nothing has to go on before a window of a stage, but rows that have come before
        their time: what its tasks read is entered by no stage and no recording, and its run does
        not end with the last row."""
        read = self._stages[stage].read.values()
        return not (self._ending or any(by.stages or by.recordings for by in read))

    def readers(self, source: SourceMark) -> Sequence[StageMark]:
        """The stages that read what the rows of a source enter."""
        return self._sources[source].readers

    # Marks

    def advance_stage(
        self,
        stage: StageMark,
        *,
        first_ns: float = -NEVER,
        seen_ns: float = -NEVER,
        place: Place | None = None,
        done_ns: float = -NEVER,
        last_ns: float = NEVER,
        ended: bool = False,
    ) -> None:
        """Note how far a stage has come. Marks go forward: what is behind them changes nothing.

        :param stage: the stage
        :param first_ns: the end of its first window: it has started
        :param seen_ns: the end of the first window that has no view of the data
        :param place: of which data; None: of all that it reads
        :param done_ns: the end of the first window whose results have not entered
        :param last_ns: it has no window that ends later
        :param ended: it runs no window any more
        """
        stage.first_ns = max(stage.first_ns, first_ns)
        for read in stage.reads if place is None else (place,):
            stage.seen[read] = max(stage.seen[read], seen_ns)
        stage.done_ns = max(stage.done_ns, done_ns)
        stage.last_ns = min(stage.last_ns, last_ns)
        stage.ended = stage.ended or ended

    def advance_source(
        self,
        source: SourceMark,
        *,
        next_ns: float = -NEVER,
        known_ns: float = -NEVER,
        comes_ns: float = -NEVER,
        ended: bool = False,
    ) -> None:
        """Note how far a source has come. Marks go forward.

        :param source: the source
        :param next_ns: all rows that arrive before have entered
        :param known_ns: it is known that there is a row of this time
        :param comes_ns: it is known that a row arrives at this time
        :param ended: it gives no row any more
        """
        source.next_ns = max(source.next_ns, next_ns)
        source.known_ns = max(source.known_ns, known_ns)
        source.comes_ns = max(source.comes_ns, comes_ns)
        source.ended = source.ended or ended

    # What comes before

    def missing(
        self, stage: StageMark, end_ns: float, place: Place | None = None
    ) -> Sequence[StageMark]:
        """Those whose results have not entered what a window is to see.

        :param stage: whose window it is
        :param end_ns: the window's end
        :param place: which of the data that it is to see; None: all
        """
        due_ns = end_ns + stage.grace_ns
        read = self._stages[stage].read
        if len(read) == 1:
            (writers,) = read.values()
            return [other for other in writers.stages if other.due_ns <= due_ns]
        around = [by.stages for where, by in read.items() if place is None or where is place]
        return [other for other in _others(None, *around) if other.due_ns <= due_ns]

    def before_window(self, stage: StageMark, start_ns: float, end_ns: float) -> Sequence[Mark]:
        """Those who have to go on before a window takes its view.

        :param stage: whose window it is
        :param start_ns: from when on a row has to be known of for there to be such a window, if
            the run ends with the last row
        :param end_ns: the window's end
        """
        # Where a view was taken for it, all that comes before had come.
        blind = [place for place in stage.reads if stage.seen[place] <= end_ns]
        return self._behind(stage, start_ns, end_ns, blind)

    def behind_window(self, stage: StageMark, start_ns: float, end_ns: float) -> Sequence[Mark]:
        """Those who have not come as far as a window, whether or not it has its view by now.

        As :meth:`before_window` for one that has none.
        """
        return self._behind(stage, start_ns, end_ns, stage.reads)

    def _behind(
        self, stage: StageMark, start_ns: float, end_ns: float, places: Sequence[Place]
    ) -> Sequence[Mark]:
        due_ns = end_ns + stage.grace_ns
        left = [*self._before_last_row(start_ns, due_ns)]
        read = self._stages[stage].read
        for place in places:
            writers = read[place]
            left += (
                other
                for other in writers.stages
                if other.due_ns <= due_ns and not other.ended and other not in left
            )
            before_ns = due_ns + place.holds_end
            left += (
                source
                for source in writers.recordings
                if source.next_ns < before_ns and not source.ended and source not in left
            )
            left += (
                source
                for source in writers.others
                if (source.early_ns < before_ns or source.owes(before_ns)) and source not in left
            )
        return left

    def owed(
        self, stage: StageMark, due_ns: float, place: Place | None = None
    ) -> Sequence[SourceMark]:
        """The sources that are behind, and may yet give rows that come before a window which has no
        view, or before one upstream whose results it is to see.

        :param stage: whose window it is
        :param due_ns: when it is due
        :param place: which of the data that it is to see; None: all of which it has no view
        """
        end_ns = due_ns - stage.grace_ns
        found: dict[SourceMark, None] = {}
        for where, writers in self._stages[stage].read.items():
            if where is place or (place is None and stage.seen[where] <= end_ns):
                limit_ns = due_ns + where.holds_end
                found |= {source: None for source in writers.others if source.owes(limit_ns)}
                for other in writers.stages:
                    for source in self.owed(other, end_ns + other.grace_ns):
                        if source.lacking or not other.ended:
                            found[source] = None
        return [*found]

    def _before_last_row(self, start_ns: float, due_ns: float) -> Sequence[Mark]:
        """Who might yet give a row as late as that, or one that comes when a window is due, where
        the run ends with the last one."""
        for source in self._ending:
            end = source.enters.holds_end
            if source.known_ns - end >= start_ns or source.comes_ns - end >= due_ns:
                return ()
        return [source for source in self._ending if not source.ended]

    def before_results(self, stage: StageMark, end_ns: float) -> Blockers:
        """Those who have to go on before the results of a window enter.

        :param stage: whose window it is
        :param end_ns: the window's end
        """
        around = self._stages[stage]
        due_ns = end_ns + stage.grace_ns
        here = due_ns, stage.index
        writers: list[Mark] = [
            other
            for other in around.rivals
            if not other.ended and (other.due_ns, other.index) < here
        ]
        writers += (
            source
            for source in around.rows_beside
            if not source.ended and source.enters_ns < due_ns + source.enters.holds_end
        )
        readers = [
            other
            for other, place in around.readers
            if not other.ended and other.unseen_ns(place) < due_ns
        ]
        return Blockers(writers, readers if len(readers) < 2 else _others(None, readers))

    def before_row(self, source: SourceMark, arrival_ns: float, *, late: bool) -> Blockers:
        """Those who have to go on before a row enters.

        :param source: whose row it is
        :param arrival_ns: when it arrives
        :param late: whether it is out of order
        """
        around = self._sources[source]
        end = source.enters.holds_end
        writers: list[Mark] = [
            other for other in around.rivals if not other.ended and other.due_ns + end <= arrival_ns
        ]
        writers += (
            other
            for other in around.beside
            if not other.ended and other.enters_ns + (other.index > source.index) <= arrival_ns
        )
        readers: Sequence[StageMark] = ()
        if late or not source.enters.keeps_past:
            readers = [
                other
                for other in around.readers
                if not other.ended and other.unseen_ns(source.enters) + end <= arrival_ns
            ]
        return Blockers(writers, readers)

    def row_limits(self, source: SourceMark, arrival_ns: float) -> RowLimits:
        """Up to when rows may enter, now that nobody who comes before one is waited for.

        :param source: whose rows these are
        :param arrival_ns: when that one arrives
        """
        around = self._sources[source]
        end = source.enters.holds_end
        views = [
            other.unseen_ns(source.enters) + end for other in around.readers if not other.ended
        ]
        limits = [other.due_ns + end for other in around.rivals if not other.ended]
        limits += (
            other.enters_ns + (other.index > source.index)
            for other in around.beside
            if not other.ended
        )
        if not source.enters.keeps_past:
            limits += views
        after = [limit for limit in limits if limit > arrival_ns]
        in_order_ns = min(after, default=NEVER)
        late_ns = min(in_order_ns, *views, NEVER)
        return RowLimits(in_order_ns, late_ns, len(after) == len(limits))


def _by_place(pairs: Iterable[tuple[Place, _M]]) -> Mapping[Place, Sequence[_M]]:
    """Who is where, each once."""
    found: dict[Place, dict[_M, None]] = {}
    for place, mark in pairs:
        found.setdefault(place, {})[mark] = None
    return {place: tuple(marks) for place, marks in found.items()}


def _others(who: object, *groups: Sequence[_M]) -> Sequence[_M]:
    """All of some groups, each once, but for one."""
    return tuple(dict.fromkeys(mark for group in groups for mark in group if mark is not who))
