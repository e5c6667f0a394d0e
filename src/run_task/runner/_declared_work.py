"""The declared tasks of a runner, planned."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from run_task.data import TimeSeries
from run_task.data.series._keyed_view import KeyedView
from run_task.data.series._pane_counts import PaneCounts
from run_task.data.series._segment import segment_of_window
from run_task.data.series._sliding_keys import SlidingKeys
from run_task.data.series._view import TimeSeriesView, placed
from run_task.errors import ConfigError
from run_task.observe._format import brief
from run_task.runner._segments import segments_by_key, segments_of_windows
from run_task.tasks._declared import Declared, Failed, Plan, Planner, Segments
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
        self._pane = pane
        self._sliding: SlidingKeys | None = None
        self._seen = PaneCounts()
        if not isinstance(data, TimeSeries):
            raise ConfigError(
                f"task {tasks[0].name!r} is declared, and such tasks are computed over the rows of "
                f"one TimeSeries, which {brief(data)} is not: give it a stage of its own over the "
                f"series, or write it as a function with @task"
            )
        places: dict[Planner, list[int]] = {}
        for place, task in enumerate(tasks):
            places.setdefault(task.planner, []).append(place)
        columns = data.columns
        self._plans: Sequence[tuple[Plan, Sequence[int]]] = [
            (planner([tasks[place] for place in some], columns), some)
            for planner, some in places.items()
        ]

    @property
    def slides(self) -> bool:
        """Whether windows are computed of panes, which they share."""
        return self._pane is not None

    def of_window(self, view: TimeSeriesView | KeyedView) -> Sequence[Sequence[Any]]:
        """The results of each task for a window, one for each key if there are keys: a value, or a
        :class:`Failed`.

        :param view: what a task of the window sees
        """
        if isinstance(view, KeyedView):
            known = view.known
            if self._pane is not None and known is None:
                known = self._keys(view.by, self._pane).look(*view.inputs)
            return self._compute(segments_by_key(view, known))
        if self._pane is None:
            return self._compute(segment_of_window(view))
        window = placed(view)[4]
        assert window is not None
        start, end = np.array(window, np.int64).reshape(2, 1)
        return self.of_windows(view, start, end)

    def of_windows(
        self,
        view: TimeSeriesView,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        since: NDArray[np.intp] | None = None,
    ) -> Sequence[Sequence[Any]]:
        """The results of each task, one for each of some windows without keys.

        :param view: all rows there are, up to the last end at least
        :param starts: where each window starts, in ascending order, in the unit of the rows
        :param ends: where each ends
        :param since: the first row that is there for each, if windows do not slide; None: that of
            the view
        """
        return self._compute(segments_of_windows(view, starts, ends, self._pane, self._seen, since))

    def _keys(self, by: str, pane: int) -> SlidingKeys:
        """What looks at windows whose keys nobody has looked for."""
        if self._sliding is None:
            self._sliding = SlidingKeys(by, pane)
        return self._sliding

    def _compute(self, segments: Segments) -> Sequence[Sequence[Any]]:
        computed: list[Sequence[Any]] = [()] * len(self.names)
        for plan, places in self._plans:
            try:
                columns = plan.compute(segments)
            except KeyboardInterrupt:
                raise  # not meant for what happened to be computed
            except BaseException as error:  # of a task of the program's own, also SystemExit
                columns = [[Failed(error)] * len(segments)] * len(places)
                self._seen.forget()
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
