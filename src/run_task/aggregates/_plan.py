"""Aggregates that are computed together, for as many windows and keys as there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from run_task.aggregates._condition import Condition, Test
from run_task.aggregates._kernel import Kernel, MergedKernel
from run_task.aggregates._ordered import RankedKernel
from run_task.aggregates._panes import PaneCache, Partials, assembled, windows_of
from run_task.aggregates._rows import Positions, SegmentedRows, chunks
from run_task.aggregates._sliding_ranks import overlapping, sliding_chunks
from run_task.aggregates._statistics import Partial, Statistic
from run_task.tasks._declared import ColumnTypes, Failed, Panes, Segments


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
        self.ranked: Final[list[tuple[int, RankedKernel]]] = []
        """What asks for ranks only, and where its results go."""
        self.plain: Final[list[_PlannedKernel]] = []
        """The others."""
        for member in members:
            kernel = member.kernel
            if isinstance(kernel, MergedKernel):
                for statistic in kernel.statistics:
                    if statistic not in self.statistics:
                        self.statistics.append(statistic)
                places = [self.statistics.index(each) for each in kernel.statistics]
                self.merged.append((member.place, kernel, places))
            elif isinstance(kernel, RankedKernel):
                self.ranked.append((member.place, kernel))
            else:
                self.plain.append(member)
        self.others: Final[list[_PlannedKernel]] = [
            *self.plain,
            *(_PlannedKernel(place, kernel) for place, kernel in self.ranked),
        ]
        """All that is not computed of panes."""

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
        for place, kernel in self.others:
            results.put(place, where, _results_of(kernel, kept))

    def compute_others(
        self,
        members: Sequence[_PlannedKernel],
        rows: SegmentedRows,
        positions: Positions | None,
        results: _ResultLists,
    ) -> None:
        """The results of some that are not computed of panes."""
        if members:
            kept, where = self.its(rows, positions)
            if kept is not None:
                for place, kernel in members:
                    results.put(place, where, _results_of(kernel, kept))

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
        final = [each.final(partial) for each, partial in zip(self.statistics, partials)]
        for place, kernel, places in self.merged:
            its = [final[each] for each in places]
            results.put(place, positions, kernel.finish(counts, *its))


class AggregatePlan:
    """How the aggregates of a stage are computed together.

    :param tasks: the aggregates
    :param columns: what each column of the series holds
    :raises ConfigError: if one of them cannot be computed
    """

    __slots__ = ("_cache", "_empty", "_groups", "_merged", "_others")

    def __init__(self, tasks: Sequence[AggregateTask], columns: ColumnTypes) -> None:
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
        self._others: bool = any(group.others for group in self._groups)
        self._cache = PaneCache()

    def compute(self, segments: Segments) -> Sequence[Sequence[Any]]:
        """The results of each task, one for each segment."""
        results = _ResultLists(self._empty, len(segments.starts))
        panes = segments.panes
        with np.errstate(all="ignore"):
            if panes is None:
                for rows, positions in chunks(segments):
                    for group in self._groups:
                        group.compute(rows, positions, results)
            elif len(panes.numbers):
                if self._merged:
                    self._of_panes(segments, panes, results)
                if self._others:
                    self._without_panes(segments, results)
        return results.all()

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
            starts=panes.starts[anew],
            ends=panes.ends[anew],
            window_starts=panes.numbers[anew],
            window_ends=panes.numbers[anew],
            unit=segments.unit,
        )
        parts: list[list[tuple[Positions, Partials]]] = [[] for _ in self._merged]
        for rows, positions in chunks(of_panes):
            which = anew if positions is None else anew[positions]
            for group, its in zip(self._merged, parts):
                kept, where = group.its(rows, which)
                if kept is not None:
                    found = [statistic.of(kept) for statistic in group.statistics]
                    its.append((which if where is None else where, Partials(kept.counts, found)))
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
        sliding = overlapping(segments, filled)
        by_rank = [group for group in self._groups if sliding and group.test is None]
        rest = [
            (group, group.plain if group in by_rank else group.others) for group in self._groups
        ]
        if any(members for _, members in rest):
            for rows, positions in chunks(segments):
                for group, members in rest:
                    group.compute_others(members, rows, positions, results)
        for group in by_rank:
            if group.ranked:
                for ranks, positions in sliding_chunks(segments, filled):
                    for place, kernel in group.ranked:
                        results.put(place, positions, kernel.of_ranked(ranks))


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
