"""The views that a window of a stage is given, one of each input."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from run_task.data import Shared
from run_task.data._several import Moment, Several
from run_task.pipeline._edges import Edges
from run_task.pipeline._given import GivenWindows, ReaderWindows
from run_task.pipeline._order import Place, StageMark
from run_task.pipeline.live._coordinator import Coordinator
from run_task.pipeline.live._early_views import PASSED_OVER, EarlyViews


class StageInput(NamedTuple):
    """Shared data that a stage reads."""

    place: Place
    """The data, as far as the order is concerned."""
    data: Any
    windows: ReaderWindows
    """The windows of the stage that have been given, as far as this data is concerned."""
    given: GivenWindows
    """Those of all who read it."""
    early_views: EarlyViews | None
    """Views that were taken ahead, if it has such as can be kept."""


class StageViews:
    """The views of one stage, for one window after the other.

    Each view is what a replay would show the window: the data after all that comes before the
    window in the one order, and before all that comes after it. So views of several inputs are of
    one moment, whether or not they were taken at one time.

    :param mark: how far the stage is
    :param data: what it reads
    :param inputs: the same, each by itself
    :param edges: with which window it begins
    :param coordinator: keeps the marks
    """

    __slots__ = (
        "_access",
        "_coordinator",
        "_data",
        "_edges",
        "_end_ns",
        "_held",
        "_inputs",
        "_kept",
        "_mark",
        "_next_ns",
        "_only",
        "_start_ns",
        "_view",
        "_view_all",
    )

    def __init__(
        self,
        mark: StageMark,
        data: Shared[Any],
        inputs: Sequence[StageInput],
        edges: Edges,
        coordinator: Coordinator,
    ) -> None:
        self._mark = mark
        self._inputs = inputs
        self._kept = [(one, views) for one in inputs if (views := one.early_views) is not None]
        self._held = [one for one in inputs if one.early_views is None]
        self._view_all = Moment([one.data for one, _ in self._kept])
        self._edges = edges
        self._coordinator = coordinator
        self._start_ns = self._end_ns = self._next_ns = 0
        self._only: EarlyViews | None = None  # of the one input, where there is no tuple
        self._view: Any = None  # of that, from when a window begins until it is read
        self._access: AbstractContextManager[Any] | None = None  # else, while it is read
        self._data: Any = data
        if isinstance(data, Several):
            self._data = Several(data.members, self._parts)
        elif self._kept:
            self._only = self._kept[0][1]

    def missing(self, end_ns: int) -> Sequence[str]:
        """The stages whose results have not entered what a window is to see.

        :param end_ns: its end, in nanoseconds since the Unix epoch
        """
        if self._only is not None:
            return self._missing(self._inputs[0], end_ns)
        names: dict[str, None] = {}
        for one in self._inputs:
            names.update(dict.fromkeys(self._missing(one, end_ns)))
        return list(names)

    def _missing(self, one: StageInput, end_ns: int) -> Sequence[str]:
        early = None if one.early_views is None else one.early_views.find(end_ns)
        if early is not None:
            return early.missing
        mark, coordinator = self._mark, self._coordinator
        return [stage.name for stage in coordinator.missing(mark, end_ns, one.place)]

    def leave_out(self, start_ns: int, end_ns: int, next_ns: int) -> bool:
        """Give a window without a view, if no row has come by now that it holds, and it ended
        before the first row's begins. Returns whether it is so."""
        with contextlib.ExitStack() as locked:
            early: list[EarlyViews] = []
            noted = list(self._held)
            for one, views in self._kept:
                locked.enter_context(views.lock)
                if views.find(end_ns) is None:
                    noted.append(one)
                else:
                    early.append(views)  # it was noted then, and others after it may have been
            _lock(noted, locked)
            if noted and end_ns >= self._edges.given_from_ns:
                return False  # one has come right now
            for one in noted:
                one.given.note(one.windows, start_ns, end_ns)
            for views in early:
                views.pop(end_ns)
        self._pass(next_ns)
        return True

    def begin(self, start_ns: int, end_ns: int, next_ns: int) -> bool:
        """Begin a window, unless it is to be passed over, since its stage is paused, or was when
        somebody wanted to know what it sees. Returns whether it has begun, and is run.

        :param start_ns: its start, in nanoseconds since the Unix epoch
        :param end_ns: its end
        :param next_ns: the end of the window after it
        """
        self._start_ns, self._end_ns, self._next_ns = start_ns, end_ns, next_ns
        if self._only is not None:
            self._view = view = self._only.begin(start_ns, end_ns)
            is_paused = view is PASSED_OVER
        else:
            is_paused = self._pass_over(start_ns, end_ns)
        if is_paused:
            self._pass(next_ns)
            return False
        return True

    def _pass_over(self, start_ns: int, end_ns: int) -> bool:
        """As :meth:`begin`, of several inputs, or one that has no such views. Returns whether it is
        passed over."""
        with contextlib.ExitStack() as locked:
            for _, views in self._kept:
                locked.enter_context(views.lock)
            paused = self._mark.paused or any(views.is_paused(end_ns) for _, views in self._kept)
            for _, views in self._kept:
                if paused:
                    views.take_back(start_ns, end_ns)
                else:
                    views.begun_ns = end_ns
            return paused

    def read(self, timeout: float | None = None, /) -> AbstractContextManager[Any]:
        """Give the window in hand its view: its own, if something later has entered since. There is
        one window at a time."""
        if self._only is None:
            self._access = self._data.read(timeout)
        return self

    def __enter__(self) -> Any:
        """The view. From here on, what comes after the window may enter."""
        if self._access is None:
            view, self._view = self._view, None
        else:
            view = self._access.__enter__()
            for one in self._held:  # nothing enters the data while somebody reads it
                with one.given.lock:
                    one.given.note(one.windows, self._start_ns, self._end_ns)
        self._pass(self._next_ns)
        return view

    def __exit__(self, *exc: Any) -> None:
        if self._access is not None:
            self._access.__exit__(*exc)

    def _parts(self) -> Sequence[Any]:
        """The views of those inputs whose views can be kept."""
        start_ns, end_ns = self._start_ns, self._end_ns
        with contextlib.ExitStack() as locked:
            for _, views in self._kept:
                locked.enter_context(views.lock)
            taken = [views.pop(end_ns) for _, views in self._kept]
            now = [one for (one, _), early in zip(self._kept, taken) if early is None]
            _lock(now, locked)  # a row is in the view of the window, or late for it
            for one in now:
                one.given.note(one.windows, start_ns, end_ns)
            view = self._view_all
            if len(now) < len(taken):
                view = Moment([one.data for one in now])
            viewed = iter(view())
            return [next(viewed) if early is None else early.view for early in taken]

    def _pass(self, next_ns: int) -> None:
        """The windows before this end have their views, or are not given: what comes after them may
        enter."""
        self._coordinator.advance_seen(self._mark, next_ns)
        for _, views in self._kept:
            if views.overrun:
                views.caught_up(next_ns)


def _lock(inputs: Sequence[StageInput], locked: contextlib.ExitStack) -> None:
    """Let no row enter some inputs. In one order for all who do so, or they might wait in a
    circle."""
    for one in sorted(inputs, key=lambda one: id(one.given)):
        locked.enter_context(one.given.lock)
