"""The rows that declared tasks are computed over: of one window or many, without keys or by key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from run_task.data.series._keyed_view import KeyedView
from run_task.data.series._pane_counts import PaneCounts
from run_task.data.series._schema import Schema
from run_task.data.series._sliding_keys import KeysOfWindow
from run_task.data.series._view import Storage, TimeSeriesView, placed
from run_task.tasks._declared import KeyedPanes, Panes, Segments


def segments_of_windows(
    view: TimeSeriesView,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    pane: int | None,
    seen: PaneCounts,
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
        spans=lambda: (firsts, stops),
        window_starts=starts,
        window_ends=ends,
        unit=schema.unit,
        panes=panes,
    )


def segments_by_key(keyed: KeyedView, known: KeysOfWindow | None) -> Segments:
    """The rows of a window, a segment for each key in the order of the keys.

    :param keyed: what the tasks of the window see
    :param known: its keys and panes, if windows slide over a grid
    """
    schema = keyed.schema
    start, end = keyed.window
    count = len(keyed.keys)

    def spans() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        return keyed.spans()[1:]

    def rows(position: int) -> NDArray[Any]:
        return keyed.spans()[0].array(position, 0, int(found.ends.max(initial=0)))

    found = Segments(
        times=lambda: rows(0),
        column=lambda name: rows(schema.positions[name] + 1),
        texts=_texts(schema, placed(keyed.rows_in_window)[1]),
        spans=spans,
        window_starts=np.full(count, start, np.int64),
        window_ends=np.full(count, end, np.int64),
        unit=schema.unit,
        by_key=None if known is None else _panes_by_key(keyed, known),
    )
    return found


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
    seen: PaneCounts,
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
        fresh=seen.note(shift, np.diff(edges), first) == seen.look,
        first=(starts - start) // pane,
        last=(ends - start) // pane,
    )


def _panes_by_key(keyed: KeyedView, known: KeysOfWindow) -> KeyedPanes:
    view = keyed.rows_in_window
    schema, storage, first, stop, _ = placed(view)
    edges = known.edges
    count = len(edges) - 1
    numbers = known.number + np.arange(count)
    rows = Segments(
        times=lambda: storage.array(0, first, stop),
        column=_columns(schema, storage, first, stop),
        texts=_texts(schema, storage),
        spans=lambda: (edges[:-1], edges[1:]),
        window_starts=numbers,
        window_ends=numbers + 1,
        unit=schema.unit,
    )
    return KeyedPanes(
        rows=rows,
        looks=known.since,
        look=known.look,
        changed=known.changed,
        slots=lambda one, other: known.slots_of(view, one, other),
        slot_count=known.slot_count,
        renumbered=known.renumbered,
        places=keyed.places_among(known.slots),
    )
