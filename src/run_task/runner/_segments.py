"""The rows that declared tasks are computed over: of one window or many, without keys or by key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from run_task.data.series._keyed_view import KeyedView
from run_task.data.series._schema import Schema
from run_task.data.series._view import Storage, TimeSeriesView, placed
from run_task.tasks._declared import Panes, Segments


class SeenPanes:
    """Which panes may have other rows than when they were computed last.

    Rows are only ever added to a series, anywhere, and let go of from its beginning. So a pane that
    has as many as before has the same, unless it is the one in which the series begins by now: of
    that, some may be gone and as many have been added.
    """

    __slots__ = ("_counts", "_first")

    def __init__(self) -> None:
        self._first = 0
        self._counts: NDArray[np.intp] = np.empty(0, np.intp)

    def forget(self) -> None:
        """What was computed is not known any more."""
        self._counts = np.empty(0, np.intp)

    def note(self, first: int, counts: NDArray[np.intp], begun: int) -> NDArray[np.bool_]:
        """Which of these panes have to be computed.

        :param first: the number of the first
        :param counts: how many rows each has
        :param begun: the number of the pane in which the series begins
        """
        fresh = np.ones(len(counts), np.bool_)
        # The stretch that both have: of the panes from `start` to before `stop`.
        start = max(first, self._first)
        stop = min(first + len(counts), self._first + len(self._counts))
        if start < stop:
            now = slice(start - first, stop - first)
            before = slice(start - self._first, stop - self._first)
            np.not_equal(counts[now], self._counts[before], out=fresh[now])
            if start <= begun < stop:
                fresh[begun - first] = True
        self._first, self._counts = first, counts
        return fresh


def segments_of_windows(
    view: TimeSeriesView,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    pane: int | None,
    seen: SeenPanes,
    since: NDArray[np.intp] | None = None,
) -> Segments:
    """The rows of windows without keys, a segment for each window.

    :param view: all rows there are
    :param starts: where each window starts, in ascending order, in the unit of the rows
    :param ends: where each ends
    :param pane: how long the panes are of which windows are made; None: they are not
    :param seen: which of these were computed before
    :param since: the first row of the view that is there for each window, if these are not made of
        panes; None: all are
    """
    schema, storage, first, stop, _ = placed(view)
    of_view = first
    begun = None if first == stop else storage.timestamp(first)
    window = view.between(int(starts[0]), int(ends[-1]))
    _, storage, first, stop, _ = placed(window)
    time = storage.array(0, first, stop)
    if pane is None:
        panes = None
        firsts = time.searchsorted(starts + schema.beyond)
        stops = time.searchsorted(ends + schema.beyond)
        if since is not None:
            firsts = np.minimum(np.maximum(firsts, since + (of_view - first)), stops)
    else:
        panes = _panes(time, starts, ends, pane, schema.beyond, begun, seen)
        edges = np.append(panes.starts, panes.ends[-1:])
        firsts, stops = edges[panes.first], edges[panes.last]
    return Segments(
        times=lambda: time,
        column=_columns(schema, storage, first, stop),
        texts=_texts(schema, storage),
        starts=firsts,
        ends=stops,
        window_starts=starts,
        window_ends=ends,
        unit=schema.unit,
        panes=panes,
    )


def segments_by_key(keyed: KeyedView, pane: int | None) -> Segments:
    """The rows of a window, a segment for each key in the order of the keys.

    :param keyed: what the tasks of the window see
    :param pane: how long the panes are of which windows are made; None: they are not
    """
    storage, firsts, stops = keyed.spots or keyed.find_spots()
    schema = keyed.schema
    start, end = keyed.window
    count = len(keyed.keys)
    starts, ends = np.array(firsts[:count], np.intp), np.array(stops[:count], np.intp)
    total = int(ends.max(initial=0))
    return Segments(
        times=lambda: storage.array(0, 0, total),
        column=_columns(schema, storage, 0, total),
        texts=_texts(schema, storage),
        starts=starts,
        ends=ends,
        window_starts=np.full(count, start, np.int64),
        window_ends=np.full(count, end, np.int64),
        unit=schema.unit,
        panes=None
        if pane is None
        else _panes_by_key(
            storage.array(0, 0, total), starts, ends, start, end, pane, schema.beyond
        ),
    )


def _columns(
    schema: Schema, storage: Storage, first: int, stop: int
) -> Callable[[str], NDArray[Any]]:
    return lambda name: storage.array(schema.positions[name] + 1, first, stop)


def _texts(schema: Schema, storage: Storage) -> Callable[[str], Sequence[str]]:
    def texts(name: str) -> Sequence[str]:
        position = schema.positions[name]
        found = storage.texts(position)
        assert found is not None, f"column {name!r} has no codes"
        # An array of objects, which is looked into as a sequence is, but not declared as one.
        return cast("Sequence[str]", found.encoded(storage.array(position + 1, 0, 0)).texts)

    return texts


def _panes(
    time: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    pane: int,
    beyond: int,
    begun: int | None,
    seen: SeenPanes,
) -> Panes:
    start = int(starts[0])
    numbers = np.arange((int(ends[-1]) - start) // pane)
    edges = time.searchsorted(start + beyond + pane * np.arange(len(numbers) + 1))
    shift = start // pane
    # The series begins in this pane, counted as the others are.
    first = shift if begun is None else shift + (begun - beyond - start) // pane
    return Panes(
        numbers=shift + numbers,
        starts=edges[:-1],
        ends=edges[1:],
        fresh=seen.note(shift, np.diff(edges), first),
        first=(starts - start) // pane,
        last=(ends - start) // pane,
    )


def _panes_by_key(
    time: NDArray[np.int64],
    starts: NDArray[np.intp],
    ends: NDArray[np.intp],
    start: int,
    end: int,
    pane: int,
    beyond: int,
) -> Panes:
    count, keys = (end - start) // pane, len(starts)
    # The rows of keys stand one after another, and those of a key are in order: so are panes.
    number = (time - (start + beyond)) // pane
    number += np.repeat(np.arange(keys) * count, ends - starts)
    edges = np.zeros(keys * count + 1, np.intp)
    np.cumsum(np.bincount(number, minlength=keys * count), out=edges[1:])
    first = np.arange(keys) * count
    return Panes(
        numbers=np.tile(start // pane + np.arange(count), keys),
        starts=edges[:-1],
        ends=edges[1:],
        first=first,
        last=first + count,
    )
