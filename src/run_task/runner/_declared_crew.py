"""A crew that computes declared tasks together, and has another crew run the rest of a tick.

Nothing but this knows that there are such tasks: for a runner it is a crew as any other. They are
computed in the thread that drives the loop, before the other tasks are run, over the same view.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from run_task._window import Window
from run_task.data.series._keyed_view import KeyedView
from run_task.data.series._view import TimeSeriesView
from run_task.errors import TaskError
from run_task.executors._protocol import (
    Crew,
    Hanging,
    SucceedingCrew,
    Ticks,
    drive,
    driver,
    failed,
)
from run_task.runner._declared_work import DeclaredWork
from run_task.tasks._dataset import DataSet, Roster
from run_task.tasks._declared import Failed
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet
from run_task.tasks._task import Runnable
from run_task.tasks._tick import Tick, TickParts
from run_task.tasks._window_results import WindowColumns, WindowResults
from run_task.time._calendar import Interval

_clock: Final[Callable[[], float]] = time.perf_counter

_Computed: TypeAlias = tuple[Sequence[Sequence[Any]], float, float]
"""The results of each declared task, one for each key; when they were begun, and how many seconds
all took."""


class DeclaredCrew:
    """The declared tasks of a runner at work, and the crew that runs its other tasks.

    :param tasks: all tasks, in their order
    :param work: the declared ones
    :param crew: runs the others; None: there are none
    """

    def __init__(
        self, tasks: Sequence[Runnable[Any, Any]], work: DeclaredWork, crew: Crew | None
    ) -> None:
        self._work = work
        self._crew = crew
        self._names: Sequence[str] = tuple(task.name for task in tasks)
        self._roster = Roster(work.names)
        self._drive = None if crew is None else driver(crew)
        self._hanging: Sequence[Hanging] = ()  # in crews before, while there are no other tasks

    def open(self) -> None:
        """Start what runs the other tasks."""
        if self._crew is not None:
            self._crew.open()

    def hanging(self) -> Sequence[Hanging]:
        """What still runs of the other tasks from ticks before."""
        return self._crew.hanging() if isinstance(self._crew, SucceedingCrew) else self._hanging

    def succeed(self, hanging: Sequence[Hanging]) -> None:
        """Have none of these begun until it has returned."""
        if isinstance(self._crew, SucceedingCrew):
            self._crew.succeed(hanging)
        self._hanging = hanging

    def running(self) -> Sequence[str]:
        """The names of the other tasks that are running right now."""
        return () if self._crew is None else self._crew.running()

    def abandon(self) -> None:
        """Stop waiting for the other tasks."""
        if self._crew is not None:
            self._crew.abandon()

    def close(self, timeout: float) -> None:
        """Let go of what runs the other tasks.

        :param timeout: how many seconds to wait for them
        """
        if self._crew is not None:
            self._crew.close(timeout)

    def run(self, tick: Tick) -> AnyDataSet:
        """Compute the declared tasks, and run the others."""
        computed = self._compute(tick.view)
        if self._crew is None:
            return self._dataset(tick, computed)
        return self._joined(self._crew.run(tick), tick.view, computed)

    @property
    def is_alone(self) -> bool:
        """Whether all tasks are declared, so that any number of windows can be run at once."""
        return self._crew is None

    @property
    def slides(self) -> bool:
        """Whether windows are computed of panes, which they share."""
        return self._work.slides

    def run_windows(
        self,
        view: TimeSeriesView,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        interval: Interval,
        since: NDArray[np.intp] | None = None,
    ) -> WindowResults:
        """Run windows without keys at once, where all tasks are declared.

        :param view: all rows there are, up to the last end at least
        :param starts: where each window starts, in ascending order, in the unit of the rows
        :param ends: where each ends
        :param interval: the interval whose windows they are
        :param since: the first row that is there for each; None: that of the view
        :return: what was computed
        """
        begun = _clock()
        columns = self._work.of_windows(view, starts, ends, since)
        took = (_clock() - begun) / len(ends)
        roster, count = self._roster, len(columns)
        shares = roster.pack(*[took / count * place for place in range(1, count + 1)])
        times: tuple[list[int], list[int]] = starts.tolist(), ends.tolist()
        windows = zip(*times, repeat(0))
        if not any(map(_has_failed, columns)):
            given = DataSet.of_windows(windows, roster, zip(*columns), shares, took, interval)
            named = dict(zip(self._work.names, columns))
            return WindowResults(given, WindowColumns(*times, named))

        def some_failed() -> Iterator[DataSet[Any]]:
            for due, results in zip(windows, zip(*columns)):
                errors = self._errors(results, Window(*due[:2])) or None
                dataset = DataSet.of(due, (), roster, results, 0.0, shares, took, errors)
                dataset._interval = interval  # pyright: ignore[reportPrivateUsage]  no call for it
                yield dataset

        return WindowResults(some_failed(), None)

    def drive(self, ticks: Ticks) -> None:
        """Drive a loop: by the crew of the other tasks, which may hand it to another thread."""
        if self._drive is None:
            drive(ticks, self.run)
        else:
            self._drive(self._with_declared(ticks))

    def _with_declared(self, ticks: Ticks) -> Ticks:
        """The loop as the other crew sees it: what it sends back is completed."""
        parts: TickParts | None = next(ticks, None)
        try:
            while parts is not None:
                view = parts[0]
                computed = self._compute(view)
                try:
                    dataset = yield parts
                except GeneratorExit:
                    ticks.close()
                    raise
                except BaseException as error:
                    del view
                    parts = None  # no data of this tick is kept until the next
                    parts = ticks.throw(error)
                else:
                    dataset = self._joined(dataset, view, computed)
                    del view
                    parts = None
                    parts = ticks.send(dataset)
        except StopIteration:
            return

    def _compute(self, view: Any) -> _Computed:
        begun = _clock()
        columns = self._work.of_window(view)
        return columns, begun, _clock() - begun

    def _dataset(self, tick: Tick, computed: _Computed) -> AnyDataSet:
        """The DataSet of a tick whose tasks are all declared."""
        columns, begun, took = computed
        count, roster, view = len(columns), self._roster, tick.view
        share = took / count
        if isinstance(view, KeyedView):
            keys = view.keys
            flat: list[Any] = [None] * (count * len(keys))
            for place, column in enumerate(columns):
                flat[place::count] = column
            by_key = self._errors_by_key(columns, keys, tick.window)
            noted = flat, [share] * count, took, by_key or None
            return KeyedDataSet.of(tick.due, tick.behind, roster, view.by, keys, *noted)
        results = [column[0] for column in columns]
        errors = self._errors(results, tick.window) if _has_failed(results) else None
        ends = roster.pack(*[begun + share * place for place in range(1, count + 1)])
        return DataSet.of(tick.due, tick.behind, roster, results, begun, ends, took, errors)

    def _joined(self, dataset: AnyDataSet, view: Any, computed: _Computed) -> AnyDataSet:
        """A DataSet of the other tasks, completed: all tasks in their order."""
        columns, _, took = computed
        names = self._work.names
        share = dict.fromkeys(names, took / len(names))
        timing = dataset.lateness, dataset.took + took, dataset.behind
        durations = {**dataset.durations, **share}
        in_order = {name: durations[name] for name in self._names if name in durations}
        if isinstance(dataset, KeyedDataSet):
            assert isinstance(view, KeyedView)
            results: dict[str, Any] = dict(dataset.items())
            for name, column in zip(names, columns):
                results[name] = {
                    key: value for key, value in zip(view.keys, column) if type(value) is not Failed
                }
            return KeyedDataSet[Any, Any](
                dataset.window,
                dataset.by,
                {name: results[name] for name in self._names if name in results},
                {**dataset.errors, **self._errors_by_key(columns, view.keys, dataset.window)},
                in_order,
                *timing,
            )
        own = [column[0] for column in columns]
        errors = self._errors(own, dataset.window)
        values: dict[str, Any] = {**dataset, **dict(zip(names, own))}
        return DataSet(
            dataset.window,
            {name: values[name] for name in self._names if name in values and name not in errors},
            {**dataset.errors, **errors},
            in_order,
            *timing,
        )

    def _errors(self, results: Sequence[Any], window: Window) -> dict[str, TaskError]:
        return {
            name: failed(name, window, result.error)
            for name, result in zip(self._work.names, results)
            if type(result) is Failed
        }

    def _errors_by_key(
        self, columns: Sequence[Sequence[Any]], keys: Sequence[Any], window: Window
    ) -> dict[Any, TaskError]:
        return {
            (name, key): failed(name, window, result.error, key)
            for name, column in zip(self._work.names, columns)
            if _has_failed(column)
            for key, result in zip(keys, column)
            if type(result) is Failed
        }


def _has_failed(column: Sequence[Any]) -> bool:
    """Whether a result of many is a failure: in a third of the time that a look at each takes."""
    return Failed in set(map(type, column))
