"""A TimeSeries held against a sorted list of rows."""

from __future__ import annotations

import pickle
from bisect import bisect_left, insort_right
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from numpy.typing import NDArray
from tests.support.blocks import SharedBlock
from tests.support.proof import examples

from run_task import Closed, ConfigError, TaskInterval, TimeSeries, TimeSeriesView

Row: TypeAlias = tuple[int, float, int, str]

NAMES = ("number", "serial", "text")
TIMES = st.integers(-30, 30)
WHICH = st.integers(0, 1000)
WINDOWS = st.tuples(st.integers(-80, 80), st.integers(-80, 80))
RETENTIONS = st.one_of(st.none(), st.integers(1, 120), st.integers(1, 40).map(TaskInterval.millis))


def rows_of(view: TimeSeriesView) -> list[Row]:
    columns: list[list[Any]] = [view[name].tolist() for name in NAMES]
    return list(zip(view.time.tolist(), *columns))


class Model(RuleBasedStateMachine):
    """Each view and array is kept with what it held when it was taken."""

    def __init__(self) -> None:
        super().__init__()
        self.views: list[tuple[TimeSeriesView, list[Row], tuple[int, int] | None]] = []
        self.arrays: list[tuple[NDArray[Any], list[Any]]] = []

    @initialize(
        retention=RETENTIONS, closed=st.sampled_from(Closed), text=st.sampled_from(["U6", str])
    )
    def make(
        self, retention: int | TaskInterval | None, closed: Closed, text: str | type[str]
    ) -> None:
        self.series = TimeSeries(
            {"number": float, "serial": int, "text": text}, retention=retention, closed=closed
        )
        self.closed = closed
        self.retention = retention
        self.rows: list[Row] = []
        self.now = 0
        self.serial = 0
        self.dropped = 0

    def _row(self, time: int) -> Row:
        self.serial += 1
        return time, self.serial / 7, self.serial, f"{self.serial}"

    def _expect(self, batch: list[Row]) -> None:
        """What is to be after a batch came."""
        late: list[Row] = []
        for row in batch:
            if self.rows and row[0] < self.rows[-1][0]:
                late.append(row)
            insort_right(self.rows, row, key=itemgetter(0))
        self.now = max(self.now, self.rows[-1][0])
        if isinstance(self.retention, int):
            kept = self.rows[-self.retention :]
        elif self.retention is not None:
            oldest = self.rows[-1][0] - self.retention.as_millis()
            kept = self.rows[bisect_left(self.rows, oldest, key=itemgetter(0)) :]
        else:
            kept = self.rows
        self.rows = list(kept)
        self.dropped += sum(row not in kept for row in late)

    @rule(by=st.integers(0, 4), times=st.integers(1, 150))
    def append_in_order(self, by: int, times: int) -> None:
        for _ in range(times):
            row = self._row(self.now + by)
            self.series.append(row[0], **dict(zip(NAMES, row[1:])))
            self._expect([row])

    @rule(by=TIMES)
    def append_anywhere(self, by: int) -> None:
        row = self._row(self.now + by)
        self.series.append(row[0], **dict(zip(NAMES, row[1:])))
        self._expect([row])

    @rule(steps=st.lists(st.integers(0, 4), max_size=200))
    def extend_in_order(self, steps: list[int]) -> None:
        self._extend((self.now + np.cumsum(np.array(steps, np.int64))).tolist())

    @rule(offsets=st.lists(TIMES, max_size=60))
    def extend_anywhere(self, offsets: list[int]) -> None:
        self._extend([self.now + offset for offset in offsets])

    def _extend(self, times: list[int]) -> None:
        rows = [self._row(time) for time in times]
        arrays = {name: [row[i] for row in rows] for i, name in enumerate(NAMES, 1)}
        self.series.extend(times, **arrays)
        if rows:
            self._expect(rows)

    @rule()
    def relocate(self) -> None:
        self.series.relocate(SharedBlock)

    @rule()
    def take(self) -> None:
        with self.series.read() as view:
            self.views.append((view, list(self.rows), None))

    @precondition(lambda self: self.views)
    @rule(which=WHICH, window=WINDOWS)
    def narrow(self, which: int, window: tuple[int, int]) -> None:
        view, rows, _ = self.views[which % len(self.views)]
        start, end = self.now + window[0], self.now + window[1]
        inside = [row for row in rows if self._is_between(row[0], start, end)]
        self.views.append((view.between(start, end), inside, None))

    @precondition(lambda self: self.views)
    @rule(which=WHICH, window=WINDOWS)
    def bound(self, which: int, window: tuple[int, int]) -> None:
        view, rows, _ = self.views[which % len(self.views)]
        start, end = self.now + window[0], self.now + window[1]
        before = [row for row in rows if self._is_between(row[0], -(10**9), end)]
        self.views.append((view.for_window(start, end), before, (start, end)))

    @precondition(lambda self: self.views)
    @rule(which=WHICH)
    def look_into_the_window(self, which: int) -> None:
        view, rows, window = self.views[which % len(self.views)]
        if window is None:
            with pytest.raises(ConfigError, match="has no window"):
                _ = view.in_window
            return
        inside = [row for row in rows if self._is_between(row[0], *window)]
        assert view.in_window is view.between(*window)
        self.views.append((view.in_window, inside, None))

    def _is_between(self, time: int, start: int, end: int) -> bool:
        if self.closed is Closed.LEFT:
            return start <= time < end
        return start < time <= end

    @precondition(lambda self: self.views)
    @rule(which=WHICH)
    def send(self, which: int) -> None:
        view, rows, window = self.views[which % len(self.views)]
        buffers: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(view, protocol=5, buffer_callback=buffers.append)
        self.views.append((pickle.loads(pickled, buffers=buffers), rows, window))

    @precondition(lambda self: self.views)
    @rule(which=WHICH, column=st.sampled_from((-1, 0, 1, 2)), cut=st.slices(20))
    def derive(self, which: int, column: int, cut: slice) -> None:
        view, rows, _ = self.views[which % len(self.views)]
        array = view.time if column < 0 else view[NAMES[column]]
        self.arrays.append((array[cut], [row[column + 1] for row in rows][cut]))

    @precondition(lambda self: self.arrays)
    @rule(which=WHICH, cut=st.slices(10))
    def derive_again(self, which: int, cut: slice) -> None:
        array, values = self.arrays[which % len(self.arrays)]
        self.arrays.append((array[cut], values[cut]))

    @precondition(lambda self: self.views)
    @rule(which=WHICH)
    def let_a_view_go(self, which: int) -> None:
        check_view(*self.views.pop(which % len(self.views))[:2])

    @precondition(lambda self: self.arrays)
    @rule(which=WHICH)
    def let_an_array_go(self, which: int) -> None:
        check_array(*self.arrays.pop(which % len(self.arrays)))

    @rule()
    def let_all_go(self) -> None:
        self.teardown()

    def teardown(self) -> None:
        while self.views:
            check_view(*self.views.pop()[:2])
        while self.arrays:
            check_array(*self.arrays.pop())

    @invariant()
    def holds_the_same_rows(self) -> None:
        with self.series.read() as view:
            assert rows_of(view) == self.rows
        assert self.series.dropped == self.dropped


def check_view(view: TimeSeriesView, rows: list[Row]) -> None:
    assert len(view) == len(rows)
    assert rows_of(view) == rows


def check_array(array: NDArray[Any], values: list[Any]) -> None:
    assert array.tolist() == values
    assert not array.flags.writeable


TestAgainstAModel = Model.TestCase
TestAgainstAModel.settings = settings(
    max_examples=examples(100), stateful_step_count=40, deadline=None
)
