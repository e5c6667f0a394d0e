"""Aggregates that are computed together, for as many windows and keys as there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from run_task.aggregates._condition import Condition, Test
from run_task.aggregates._kernel import Kernel, MergedKernel
from run_task.aggregates._key_tree import KeyTree, PaneGroup
from run_task.aggregates._ordered import Quantile, Quantiles
from run_task.aggregates._panes import PaneCache, Partials, assembled, windows_of
from run_task.aggregates._rows import Positions, SegmentedRows, chunks, rows_of_one
from run_task.aggregates._single import SingleSegment
from run_task.aggregates._sliding_ranks import SlidingRanks, overlapping, sliding_chunks
from run_task.aggregates._statistics import Partial, Statistic
from run_task.tasks._declared import ColumnTypes, Failed, KeyedPanes, Panes, Segments

_KEPT: Final = 1 << 22
"""Of so many bytes twice, the columns of a chunk that are made on the way are not new each time."""


class AggregateTask(Protocol):
    """A task that is an aggregate."""

    @property
    def kernel(self) -> Kernel[Any]:
        """What it computes."""
        ...

    @property
    def condition(self) -> Condition | None:
        """Of which rows; None: of all."""
        ...


class _PlannedKernel(NamedTuple):
    """A task of the plan."""

    place: int
    """Where its results go."""

    kernel: Kernel[Any]


class _ResultLists:
    """The results of some tasks, one for each segment.

    :param empty: the result of each task of a segment without rows
    :param count: how many segments there are
    """

    __slots__ = ("_count", "_empty", "lists")

    def __init__(self, empty: Sequence[Any], count: int) -> None:
        self._empty = empty
        self._count = count
        self.lists: list[Sequence[Any] | None] = [None] * len(empty)

    def put(self, place: int, positions: Positions | None, values: Sequence[Any]) -> None:
        """Set the results of one task for some segments.

        :param positions: which; None: all
        """
        if positions is None:
            self.lists[place] = values
            return
        found: Any = self.lists[place]
        if found is None:
            found = self.lists[place] = [self._empty[place]] * self._count
        if len(positions) and (positions[1:] - positions[:-1] == 1).all():  # one after another
            first = int(positions[0])
            found[first : first + len(positions)] = values
            return
        for position, value in zip(positions.tolist(), values):
            found[position] = value

    def all(self) -> Sequence[Sequence[Any]]:
        """The results of all tasks."""
        return [
            [empty] * self._count if values is None else values
            for empty, values in zip(self._empty, self.lists)
        ]


class _Group:
    """The tasks that are of the same rows.

    :param test: which rows these are; None: all
    :param members: the tasks
    """

    __slots__ = ("merged", "others", "plain", "ranked", "statistics", "test")

    def __init__(self, test: Test | None, members: Sequence[_PlannedKernel]) -> None:
        self.test: Final = test
        self.statistics: Final[list[Statistic]] = []
        """What is to be known of a pane, each once."""
        self.merged: Final[list[tuple[int, MergedKernel[Any], Sequence[int]]]] = []
        """What is computed of panes: where its results go, and which statistics it takes."""
        self.ranked: Final[list[tuple[Quantiles, Sequence[int]]]] = []
        """What asks for ranks only, and where its results go."""
        self.plain: Final[list[_PlannedKernel]] = []
        """The others."""
        quantiles: dict[Any, list[tuple[int, Quantile]]] = {}
        for member in members:
            kernel = member.kernel
            if isinstance(kernel, MergedKernel):
                for statistic in kernel.statistics:
                    if statistic not in self.statistics:
                        self.statistics.append(statistic)
                places = [self.statistics.index(each) for each in kernel.statistics]
                self.merged.append((member.place, kernel, places))
            elif isinstance(kernel, Quantile):
                alike = kernel.column, kernel.interpolation
                quantiles.setdefault(alike, []).append((member.place, kernel))
            else:
                self.plain.append(member)
        for some in quantiles.values():
            self.ranked.append(
                (Quantiles([each for _, each in some]), [place for place, _ in some])
            )

    def its(
        self, rows: SegmentedRows, positions: Positions | None
    ) -> tuple[SegmentedRows | None, Positions | None]:
        """Those of some rows that these tasks are of, None: there are none; and the positions of
        the segments that have such rows, None: all.

        :param positions: those of the segments of the rows; None: all
        """
        if self.test is None:
            return rows, positions
        kept, present = rows.where(self.test(rows))
        if present is None:
            return kept, positions
        return kept, present if positions is None else positions[present]

    def known(self, rows: SegmentedRows, positions: Positions) -> tuple[Positions, Partials] | None:
        """What is known of some rows: the positions of the segments that have such as these tasks
        are of, and their statistics; None: there are none.

        :param positions: those of the segments of the rows
        """
        kept, where = self.its(rows, positions)
        if kept is None:
            return None
        found = [statistic.of(kept) for statistic in self.statistics]
        return positions if where is None else where, Partials(kept.counts, found)

    def compute(
        self, rows: SegmentedRows, positions: Positions | None, results: _ResultLists
    ) -> None:
        """The results of all tasks for the segments that some rows are of."""
        kept, where = self.its(rows, positions)
        if kept is None:
            return
        if self.merged:
            partials = [statistic.of(kept) for statistic in self.statistics]
            self.finish(kept.counts, partials, where, results)
        for place, kernel in self.plain:
            results.put(place, where, _results_of(kernel, kept))
        self.rank(kept, where, results)

    def compute_one(self, rows: SegmentedRows, found: list[Any]) -> None:
        """The same of a segment that is alone.

        :param rows: its rows
        :param found: the result of each task, of which these tasks set theirs
        """
        kept, _ = self.its(rows, None)
        if kept is None:
            return
        if self.merged:
            single = SingleSegment(kept)
            partials = [statistic.of(single) for statistic in self.statistics]
            self._finish_one(single.counts, partials, found)
        for place, kernel in self.plain:
            (found[place],) = _results_of(kernel, kept)
        for quantiles, places in self.ranked:
            for place, value in zip(places, quantiles.of_one(kept)):
                found[place] = value

    def rank(
        self, rows: SegmentedRows | SlidingRanks, positions: Positions | None, results: _ResultLists
    ) -> None:
        """The results of what asks for ranks only."""
        for quantiles, places in self.ranked:
            for place, values in zip(places, quantiles.results(rows)):
                results.put(place, positions, values)

    def finish(
        self,
        counts: Positions,
        partials: Sequence[Partial],
        positions: Positions | None,
        results: _ResultLists,
    ) -> None:
        """The results of those that are computed of statistics.

        :param counts: how many rows each window has
        :param partials: its statistics
        :param positions: where its results go; None: all results are of these windows
        """
        if len(counts) == 1:
            partials = [tuple([array[0] for array in partial]) for partial in partials]
            found: dict[int, Any] = {}
            self._finish_one(counts[0], partials, found)
            for place, value in found.items():
                results.put(place, positions, [value])
            return
        final = [each.final(partial) for each, partial in zip(self.statistics, partials)]
        for place, kernel, places in self.merged:
            its = [final[each] for each in places]
            results.put(place, positions, kernel.finish(counts, *its))

    def _finish_one(
        self, count: np.intp, partials: Sequence[Partial], found: dict[int, Any] | list[Any]
    ) -> None:
        """The same of a window that is alone, whose statistics are numbers."""
        final = [each.final(partial) for each, partial in zip(self.statistics, partials)]
        its = final.__getitem__
        for place, kernel, places in self.merged:
            found[place] = kernel.finish_one(count, *map(its, places))


class AggregatePlan:
    """How the aggregates of a stage are computed together.

    :param tasks: the aggregates
    :param columns: what each column of the series holds
    :raises ConfigError: if one of them cannot be computed
    """

    __slots__ = ("_cache", "_empty", "_groups", "_merged", "_others", "_tree")

    def __init__(self, tasks: Sequence[AggregateTask], columns: ColumnTypes) -> None:
        # glibc keeps twice as much of what is freed as the largest block was that it had from the
        # system by itself and that was freed, and 128 KiB before there was any. What it has given
        # back is new when it is had again, and to be given takes longer than to be computed with.
        np.empty(_KEPT, np.uint8)
        by_condition: dict[Condition | None, list[_PlannedKernel]] = {}
        self._empty: list[Any] = []
        for place, task in enumerate(tasks):
            kernel = task.kernel.planned(columns, str(task.kernel))
            self._empty.append(kernel.empty)
            by_condition.setdefault(task.condition, []).append(_PlannedKernel(place, kernel))
        self._groups: list[_Group] = []
        for condition, members in by_condition.items():
            test = None
            if condition is not None:
                test = condition.planned(columns, str(members[0].kernel))
            self._groups.append(_Group(test, members))
        self._merged: list[_Group] = [group for group in self._groups if group.merged]
        self._others: bool = any(group.plain or group.ranked for group in self._groups)
        self._cache = PaneCache()
        self._tree = KeyTree([PaneGroup(each.statistics, each.known) for each in self._merged])

    def compute(self, segments: Segments) -> Sequence[Sequence[Any]]:
        """The results of each task, one for each segment."""
        panes, by_key = segments.panes, segments.by_key
        if panes is None and by_key is None and len(segments) == 1:
            return self._compute_one(segments)
        results = _ResultLists(self._empty, len(segments))
        with np.errstate(all="ignore"):
            if by_key is not None:
                if self._merged:
                    self._of_keys(by_key, results)
                if self._others:
                    self._without_panes(segments, results)
            elif panes is None:
                for rows, positions in chunks(segments):
                    for group in self._groups:
                        group.compute(rows, positions, results)
            elif len(panes.numbers):
                if self._merged:
                    self._of_panes(segments, panes, results)
                if self._others:
                    self._without_panes(segments, results)
        return results.all()

    def _compute_one(self, segments: Segments) -> Sequence[Sequence[Any]]:
        rows = rows_of_one(segments)
        found = list(self._empty)
        if rows is not None:
            with np.errstate(all="ignore"):
                for group in self._groups:
                    group.compute_one(rows, found)
        return [[value] for value in found]

    def _of_keys(self, panes: KeyedPanes, results: _ResultLists) -> None:
        try:
            windows = self._tree.window(panes)
        except BaseException:
            self._tree.forget()
            raise
        places, present = panes.places, np.flatnonzero(panes.places >= 0)
        for group, window in zip(self._merged, windows):
            if window is None:
                continue
            at = np.full(panes.slot_count, -1)
            at[window.slots] = np.arange(len(window.slots))
            which = at[places[present]]
            there = which >= 0
            positions = present[there]
            of_window = window.known[which[there]]
            group.finish(
                of_window.counts.astype(np.intp),
                of_window.partials,
                None if len(positions) == len(places) else positions,
                results,
            )

    def _of_panes(self, segments: Segments, panes: Panes, results: _ResultLists) -> None:
        for group, known in zip(self._merged, self._known(segments, panes)):
            if known is None:
                continue
            windows = windows_of(group.statistics, panes, known)
            positions = None
            if np.count_nonzero(windows.counts) < len(windows.counts):
                positions = np.flatnonzero(windows.counts)
                windows = windows[positions]
            group.finish(windows.counts, windows.partials, positions, results)

    def _known(self, segments: Segments, panes: Panes) -> Sequence[Partials | None]:
        """What is known of all panes, for each group that is computed of them; None: they have no
        rows."""
        before, places, same = self._cache.take(panes)
        count = len(panes.numbers)
        anew = np.arange(count)
        if before is not None:
            anew = np.delete(anew, same)
        of_panes = Segments(
            times=lambda: segments.time,
            column=segments.column,
            texts=segments.texts,
            spans=lambda: (panes.starts[anew], panes.ends[anew]),
            window_starts=panes.numbers[anew],
            window_ends=panes.numbers[anew],
            unit=segments.unit,
        )
        parts: list[list[tuple[Positions, Partials]]] = [[] for _ in self._merged]
        for rows, positions in chunks(of_panes):
            which = anew if positions is None else anew[positions]
            for group, its in zip(self._merged, parts):
                if (found := group.known(rows, which)) is not None:
                    its.append(found)
        known: list[Partials | None] = []
        for at, its in enumerate(parts):
            old = None if before is None else before[at]
            if old is not None:
                its.append((same, old[places]))
            known.append(assembled(count, its))
        self._cache.keep(panes, known)
        return known

    def _without_panes(self, segments: Segments, results: _ResultLists) -> None:
        """What is not computed of panes."""
        filled = np.flatnonzero(segments.ends > segments.starts)
        by_rank: list[_Group] = []
        if overlapping(segments, filled):
            by_rank = [group for group in self._groups if group.ranked and group.test is None]
        rest = [
            group
            for group in self._groups
            if group.plain or (group.ranked and group not in by_rank)
        ]
        if rest:
            for rows, positions in chunks(segments):
                for group in rest:
                    kept, where = group.its(rows, positions)
                    if kept is None:
                        continue
                    for place, kernel in group.plain:
                        results.put(place, where, _results_of(kernel, kept))
                    if group not in by_rank:
                        group.rank(kept, where, results)
        if by_rank:
            for ranks, positions in sliding_chunks(segments, filled):
                for group in by_rank:
                    group.rank(ranks, positions, results)


def _results_of(kernel: Kernel[Any], rows: SegmentedRows) -> Sequence[Any]:
    """The result of each segment; if that raises, each alone."""
    try:
        found: Any = kernel.results(rows)
        if hasattr(found, "tolist"):
            found = found.tolist()
        if len(found) != rows.count:
            raise ValueError(
                f"{kernel} gave {len(found)} results for {rows.count} segments: results(rows) "
                f"gives one for each"
            )
    except KeyboardInterrupt:
        raise  # not meant for what happened to be computed
    except BaseException as error:  # also SystemExit
        if rows.count == 1:
            return [Failed(error)]
        return [_results_of(kernel, rows.only(segment))[0] for segment in range(rows.count)]
    results: Sequence[Any] = found
    return results
