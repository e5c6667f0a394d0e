"""A series on its way to shards: what happens to it, noted in order, and sent in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from run_task.cluster._messages import (
    DropViews,
    KeepView,
    MoreRows,
    NewTexts,
    SentRows,
    SeriesChange,
    WholeSeries,
)
from run_task.data import TimeSeries
from run_task.data._buckets import buckets_of_ints, parts_of
from run_task.data.series._column_types import Array
from run_task.data.series._places import partitions_of
from run_task.data.series._texts import Texts
from run_task.data.series._view import TimeSeriesView, placed


class _NotedRows(NamedTuple):
    times: Array
    columns: Sequence[Array]
    texts: Mapping[int, Texts]


class _NotedWhole(NamedTuple):
    view: TimeSeriesView
    shards: Sequence[int]
    marks: int


_Noted: TypeAlias = _NotedRows | _NotedWhole | KeepView


class _Outbox:
    """What one shard is still to be told."""

    def __init__(self) -> None:
        self.changes: list[SeriesChange] = []
        self.knows: dict[int, NDArray[np.bool_]] = {}  # by column, which codes
        self.since: int = 0  # views up to this one were marked before it had the rows


class Feed:
    """What shards are told of a series.

    It is noted under the lock of the series, and made into messages by who sends them, under the
    lock of the cluster.

    :param number: what shards call the series
    :param series: the series
    :param count: how many shards there are
    :param by_key: whether each shard has the rows of its keys; else each has all rows
    """

    def __init__(self, number: int, series: TimeSeries, count: int, *, by_key: bool) -> None:
        self.number: Final = number
        self.series: Final = series
        self.by_place: Final = series.has_places
        """Whether shards have its rows, and are told by their places which have entered."""
        self.users: int = 0
        """How many stages read it."""
        key = series.key if by_key else None
        self._key: int | None = None if key is None else list(series.columns).index(key)
        self._in_use: dict[int, int] = {}  # of views that are there, the oldest row, by number
        self._taken: deque[tuple[int, int]] = deque()  # the same, of those that are new
        self._left: deque[int] = deque()
        self._count = count
        self._noted: deque[_Noted] = deque()
        self.waiting: int = 0
        """About how many rows and views were noted and are still to be sent."""
        self._unmarked: deque[int] = deque()
        self._outboxes = [_Outbox() for _ in range(count)]
        self._texts: dict[int, Texts] = {}  # by column, what its codes stand for by now
        self._telling: Sequence[int] = range(count)
        self._leave: Callable[[], None] | None = None

    def begin(self) -> None:
        """Follow the series from now on."""
        self._leave = self.series.follow(self)

    def close(self) -> None:
        """Follow it no more."""
        if self._leave is not None:
            self._leave()
        self._noted.clear()

    def restart(self, shard: int) -> None:
        """A shard has lost its rows: it is told all again."""
        self._telling = (shard,)
        self.series.follow(self)
        self._telling = range(self._count)

    # As of Tap, under the lock of the series

    def whole(self, view: TimeSeriesView, marks: int, /) -> None:
        """The series has these rows."""
        self._noted.append(_NotedWhole(view, self._telling, marks))

    def rows(self, times: Array, columns: Sequence[Array], texts: Mapping[int, Texts], /) -> None:
        """Rows have come."""
        self.waiting += len(times)
        copies = [column.copy() for column in columns]
        self._noted.append(_NotedRows(times.copy(), copies, texts))

    def mark(self, mark: int, oldest: int, /) -> None:
        """Somebody has a view of all rows as they are now."""
        self.waiting += 1
        self._noted.append(KeepView(mark, oldest))
        if self.by_place:
            self._taken.append((mark, oldest))

    def unmark(self, mark: int, /) -> None:
        """Nobody has that view any more."""
        self._unmarked.append(mark)
        if self.by_place:
            self._left.append(mark)

    # Sending

    def take(self) -> None:
        """Bring what was noted into what each shard is still to be told."""
        self.waiting = 0
        noted_now = _emptied(self._noted)
        unmarked: list[int] = _emptied(self._unmarked)
        # Of a view that came and went, nobody is told: most are of stages without keys.
        gone = {one.mark for one in noted_now if isinstance(one, KeepView)}.intersection(unmarked)
        unmarked = [mark for mark in unmarked if mark not in gone]
        if unmarked:
            # First: rows that come take the place of those that no view has any more.
            for box in self._outboxes:
                box.changes.append(DropViews(unmarked))
        for noted in _joined(noted_now):
            match noted:
                case KeepView():
                    if noted.mark in gone:
                        continue
                    for box in self._outboxes:
                        box.changes.append(noted)
                case _NotedRows():
                    self._look_at(noted.texts)
                    for shard, rows in self._parts(noted, range(self._count)):
                        if len(rows.times):
                            self._outboxes[shard].changes.append(MoreRows(rows))
                case _NotedWhole():
                    for shard in noted.shards:
                        box = self._outboxes[shard]
                        box.changes, box.knows, box.since = [], {}, noted.marks
                    whole = _rows_of(noted.view)
                    self._look_at(whole.texts)
                    for shard, rows in self._parts(whole, noted.shards):
                        self._outboxes[shard].changes.append(WholeSeries(rows))

    def needed_from(self) -> int | None:
        """Once all is told that has come by now, rows of an earlier timestamp are named no more:
        they have passed out, and no view has them. None: all may be."""
        oldest = self.series.oldest_to_come
        left: list[int] = _emptied(self._left)  # first: each of these is found among the others
        self._in_use.update(_emptied(self._taken))
        for mark in left:
            del self._in_use[mark]
        return None if oldest is None else min([oldest, *self._in_use.values()])

    def told(self, shard: int) -> Sequence[SeriesChange]:
        """What a shard is to be told next; it counts as told."""
        box = self._outboxes[shard]
        changes, box.changes = box.changes, []
        return changes

    def knows_view(self, shard: int, mark: int | None) -> bool:
        """Whether a shard was told of a view, or is going to be."""
        return mark is not None and mark > self._outboxes[shard].since

    def part_of(self, view: TimeSeriesView, shard: int) -> SentRows:
        """The rows of a view that a shard has, with all texts: for a view that it was not told
        of."""
        knows, self._outboxes[shard].knows = self._outboxes[shard].knows, {}
        try:
            ((_, rows),) = self._parts(_rows_of(view), (shard,))
        finally:
            self._outboxes[shard].knows = knows
        return rows

    def _parts(self, rows: _NotedRows, shards: Sequence[int]) -> Iterator[tuple[int, SentRows]]:
        columns = rows.columns
        if self.by_place:
            places = columns[_PLACES]
            of_shard = partitions_of(places) % self._count
            for shard in shards:
                own = places[of_shard == shard]
                yield shard, SentRows(own, (own,), {})
            return
        if self._key is None:
            for shard in shards:
                yield shard, self._sent(shard, rows, rows.times, columns)
            return
        keys = columns[self._key]
        texts_of_key = rows.texts.get(self._key)
        buckets = buckets_of_ints(keys) if texts_of_key is None else texts_of_key.buckets()[keys]
        parts = parts_of(buckets, self._count)
        if len(shards) == 1:
            chosen = np.flatnonzero(parts == shards[0])
            part = rows.times[chosen], _of(columns, chosen)
            yield shards[0], self._sent(shards[0], rows, *part)
            return
        order = parts.argsort(kind="stable")
        ends = np.cumsum(np.bincount(parts, minlength=self._count)).tolist()
        times, columns = rows.times[order], _of(columns, order)
        for shard in shards:
            some = slice(ends[shard - 1] if shard else 0, ends[shard])
            part = times[some], [column[some] for column in columns]
            yield shard, self._sent(shard, rows, *part)

    def _sent(self, shard: int, of: _NotedRows, times: Array, columns: Sequence[Array]) -> SentRows:
        """Some rows with the texts that a shard does not know yet."""
        knows, new = self._outboxes[shard].knows, dict[int, NewTexts]()
        for i, texts in of.texts.items():
            known = knows.get(i)
            if known is None or len(known) < len(texts):
                room: NDArray[np.bool_] = np.zeros(2 * len(texts) + _FEW, np.bool_)
                if known is not None:
                    room[: len(known)] = known
                knows[i] = known = room
            unknown = columns[i][~known[columns[i]]]
            if len(unknown):
                codes = np.unique(unknown)
                known[codes] = True
                new[i] = codes, texts.decode(codes).tolist()
        return SentRows(times, columns, new)

    def _look_at(self, texts: Mapping[int, Texts]) -> None:
        """See whether codes mean other texts by now."""
        for i, of_column in texts.items():
            if self._texts.get(i) is not of_column:
                self._texts[i] = of_column
                for box in self._outboxes:
                    box.knows.pop(i, None)  # a code that is told again means its new text


def rows_in(changes: Sequence[SeriesChange]) -> int:
    """How many rows go along with what a shard is told."""
    return sum(
        len(change.rows.times) for change in changes if isinstance(change, MoreRows | WholeSeries)
    )


_PLACES: Final = 0
"""The position of the column of places, before that of the key."""

_FEW: Final = 64
"""For how many texts more than there are there is room."""


def _emptied(queue: deque[Any]) -> list[Any]:
    """What is in a queue that others append to."""
    taken: list[Any] = []
    while True:
        try:
            taken.append(queue.popleft())
        except IndexError:
            return taken


def _joined(noted: Sequence[_Noted]) -> Iterator[_Noted]:
    """The same, with rows together that follow each other."""
    rows: list[_NotedRows] = []
    for one in noted:
        if isinstance(one, _NotedRows) and (not rows or _have_same_texts(rows[-1], one)):
            rows.append(one)
            continue
        if rows:
            yield _together(rows)
            rows = []
        if isinstance(one, _NotedRows):
            rows.append(one)
        else:
            yield one
    if rows:
        yield _together(rows)


def _have_same_texts(one: _NotedRows, other: _NotedRows) -> bool:
    return all(other.texts[i] is texts for i, texts in one.texts.items())


def _together(rows: Sequence[_NotedRows]) -> _NotedRows:
    if len(rows) == 1:
        return rows[0]
    times = np.concatenate([one.times for one in rows])
    columns = zip(*(one.columns for one in rows))
    return _NotedRows(times, [np.concatenate(column) for column in columns], rows[0].texts)


def _rows_of(view: TimeSeriesView) -> _NotedRows:
    schema, storage, first, stop, _ = placed(view)
    columns = [storage.array(i + 1, first, stop) for i in range(len(schema.columns))]
    found = {i: storage.texts(i) for i in range(len(columns))}
    texts = {i: of_column for i, of_column in found.items() if of_column is not None}
    return _NotedRows(storage.array(0, first, stop), columns, texts)


def _of(columns: Sequence[Array], order: NDArray[np.intp]) -> list[Array]:
    return [column[order] for column in columns]
