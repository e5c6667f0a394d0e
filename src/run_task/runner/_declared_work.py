"""The declared tasks of a runner, and the rows of a tick as they are computed over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from run_task.data import TimeSeries
from run_task.data.series._keyed_view import KeyedView
from run_task.data.series._schema import Schema
from run_task.data.series._view import Storage, TimeSeriesView, placed
from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.tasks._declared import Declared, Failed, Panes, Plan, Planner, Segments
from run_task.tasks._task import Runnable
from run_task.time._calendar import Interval
from run_task.time._interval import TaskInterval


class DeclaredWork:
    """Declared tasks, planned: those with an equal planner together.

    :param tasks: the tasks of a runner, of which these are some
    :param data: what they read
    :param pane: how long the panes are of which windows are made, in the unit of the data; None:
        windows do not slide
    :raises ConfigError: if one cannot be computed over this data; the message names it
    """

    def __init__(self, tasks: Sequence[Declared[Any, Any]], data: object, pane: int | None) -> None:
        self.names: Sequence[str] = tuple(task.name for task in tasks)
        """Their names, in order."""
        self.pane = pane
        if not isinstance(data, TimeSeries):
            raise ConfigError(
                f"task {tasks[0].name!r} is declared, and such tasks are computed over the rows of "
                f"one TimeSeries, which {brief(data)} is not: give it a stage of its own over the "
                f"series, or write it as a function with @task"
            )
        places: dict[Planner, list[int]] = {}
        for place, task in enumerate(tasks):
            places.setdefault(task.planner, []).append(place)
        columns = data.view().columns
        self._plans: Sequence[tuple[Plan, Sequence[int]]] = [
            (planner([tasks[place] for place in some], columns), some)
            for planner, some in places.items()
        ]

    def compute(self, segments: Callable[[], Segments]) -> Sequence[Sequence[Any]]:
        """The results of each task, one for each segment: a value, or a :class:`Failed`.

        :param segments: gives the rows
        """
        rows = segments()
        computed: list[Sequence[Any]] = [()] * len(self.names)
        for plan, places in self._plans:
            try:
                columns = plan.compute(rows)
            except Exception as error:  # of a task of the program's own
                columns = [[Failed(error)] * len(rows)] * len(places)
            for place, column in zip(places, columns):
                computed[place] = column
        return computed


def declared(tasks: Iterable[Runnable[Any, Any]]) -> Sequence[Declared[Any, Any]]:
    """Those tasks that are declared."""
    # Asked of the class, as of a Protocol, but without a look at `run` and `name`.
    return [task for task in tasks if isinstance(task, Declared)]


def pane_of(interval: Interval, window: Interval | None) -> int | None:
    """How long the panes are of which sliding windows are made, in the interval's unit; None:
    windows do not slide, or not over a grid of one length."""
    if not isinstance(interval, TaskInterval) or not isinstance(window, TaskInterval):
        return None
    length = window.nanos // interval.unit.nanos
    return math.gcd(interval.count, length) if length > interval.count else None


def segments_of_window(view: TimeSeriesView, pane: int | None) -> Segments:
    """The rows of a window, as one segment.

    :param view: what a task of the window sees
    :param pane: how long the panes are of which it is made; None: it is not
    """
    window = placed(view)[4]
    assert window is not None
    start, end = np.array(window, np.int64).reshape(2, 1)
    return segments_of_windows(view.in_window, start, end, pane)


def segments_of_windows(
    view: TimeSeriesView, starts: NDArray[np.int64], ends: NDArray[np.int64], pane: int | None
) -> Segments:
    """The rows of windows, a segment for each.

    :param view: all their rows
    :param starts: where each window starts, in ascending order, in the unit of the rows
    :param ends: where each ends
    :param pane: how long the panes are of which windows are made; None: they are not
    """
    schema, storage, first, stop, _ = placed(view)
    time = storage.array(0, first, stop)
    if pane is None:
        panes = None
        firsts = time.searchsorted(starts + schema.beyond)
        stops = time.searchsorted(ends + schema.beyond)
    else:
        panes = _panes(time, starts, ends, pane, schema.beyond)
        edges = np.append(panes.starts, panes.ends[-1:])
        firsts, stops = edges[panes.first], edges[panes.last]
    return Segments(
        time=time,
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
    time = storage.array(0, 0, total)
    return Segments(
        time=time,
        column=_columns(schema, storage, 0, total),
        texts=_texts(schema, storage),
        starts=starts,
        ends=ends,
        window_starts=np.full(count, start, np.int64),
        window_ends=np.full(count, end, np.int64),
        unit=schema.unit,
        panes=None
        if pane is None
        else _panes_by_key(time, starts, ends, start, end, pane, schema.beyond),
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
) -> Panes:
    start = int(starts[0])
    numbers = np.arange((int(ends[-1]) - start) // pane)
    edges = time.searchsorted(start + beyond + pane * np.arange(len(numbers) + 1))
    return Panes(
        numbers=start // pane + numbers,
        starts=edges[:-1],
        ends=edges[1:],
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
