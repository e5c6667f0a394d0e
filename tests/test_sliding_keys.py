"""Windows by key that slide are computed of what has changed since the window before: the same bits
as each on its own, whatever comes, stays away, is late or is let go of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.proof import examples

from run_task import Closed, KeyedDataSet, RunnerConfig, TaskInterval, TimeSeries, TimeUnit
from run_task import aggregates as agg
from run_task.data.series import _sliding_keys
from run_task.data.series._keyed_view import KeyedView
from run_task.data.series._sliding_keys import SlidingKeys
from run_task.data.series._view import placed
from run_task.executors._known_keys import KnownKeys
from run_task.executors._states import States
from run_task.runner._keys import Keys, bound_of, crew_of
from run_task.tasks._tick import Tick

TASKS: Any = (
    agg.count(), agg.first("a"), agg.last("s"), agg.min("a"), agg.max("n"), agg.sum("n"),
    agg.sum("a"), agg.mean("a"), agg.std("a"), agg.ohlc("a"), agg.vwap("a", "n"),
    agg.corr("a", "b"), agg.mean("a", where="n > 10").named("some"),
    agg.count(where="n > 47").named("few"), agg.median("a"),
)  # fmt: skip

COLUMNS = {"a": float, "b": float, "n": int, "s": str}

BY = Keys.checked("k", "1h", 100_000)


@dataclass(frozen=True)
class Shape:
    """What comes, and how windows are."""

    seed: int
    width: int
    step: int
    windows: int
    retention: int | str | None
    closed: Closed
    texts: bool
    drifting: bool
    """Whether keys come and go for good."""

    def series(self) -> TimeSeries:
        columns = {"k": str if self.texts else int, **COLUMNS}
        return TimeSeries(columns, TimeUnit.SECONDS, self.retention, self.closed, key="k")

    @property
    def length(self) -> int:
        return self.width * self.step

    def windows_of(self, series: TimeSeries) -> Iterator[tuple[int, int]]:
        """Windows, once the rows have come that come by their end: some late, some with gaps."""
        rng = np.random.default_rng(self.seed)
        end = 1000 * self.step
        for window in range(self.windows):
            end += self.step * (int(rng.integers(1, self.width + 3)) if rng.random() < 0.03 else 1)
            count = int(rng.integers(0, 20)) * (rng.random() < 0.9)
            times = end - self.step + rng.integers(0, self.step, count)
            late = rng.random(count) < rng.choice([0.0, 0.0, 0.3])
            times -= late * rng.integers(0, self.length + 2 * self.step, count)
            keys = rng.integers(-3, 6, count) + self.drifting * (window // 3) * 2
            values = (
                rng.normal(1e6, 1, count),
                rng.normal(0, 1, count) * 10.0 ** rng.integers(-12, 12, count),
            )
            values[0][rng.random(count) < 0.03] = np.nan
            for time, key, a, b in zip(times.tolist(), keys.tolist(), *values):
                named: Any = f"key {key}" if self.texts else key
                row = {"k": named, "a": a, "b": b, "n": int(rng.integers(-5, 50))}
                series.append(time + (self.closed is Closed.RIGHT), **row, s=str(key % 3))
            yield end - self.length, end


SHAPES = st.builds(
    Shape,
    st.integers(0, 2**32),
    st.sampled_from([2, 7, 40, 130]),
    st.sampled_from([1, 3]),
    st.integers(1, 60),
    st.sampled_from([None, 30, "20s", "130s"]),
    st.sampled_from(Closed),
    st.booleans(),
    st.booleans(),
)


class Stage:
    """A stage by key, a window at a time."""

    def __init__(self, shape: Shape, series: TimeSeries, tasks: Any = TASKS) -> None:
        config = RunnerConfig(window=f"{shape.length}s")
        every = TaskInterval.seconds(shape.step)
        self._series = series
        self.crew = crew_of(tasks, series, every, config, BY, States())
        self._bound = bound_of(series, every, config, BY, States())

    def view(self, start: int, end: int) -> Any:
        assert self._bound is not None
        return self._bound(self._series.view(), start, end)

    def run(self, start: int, end: int) -> dict[str, dict[Any, Any]]:
        view = self.view(start, end)
        if view is None:
            return {}
        dataset = self.crew.run(Tick(view, start, end))
        assert isinstance(dataset, KeyedDataSet)
        assert not dataset.errors
        return {name: dict(values) for name, values in dataset.items()}


def of_key(shape: Shape, rows: Any, start: int, end: int) -> dict[str, Any]:
    """The results of the rows of one key, by a stage without keys that knows nothing."""
    series = TimeSeries(COLUMNS, TimeUnit.SECONDS, closed=shape.closed)
    series.extend(rows.time, **{name: rows[name] for name in COLUMNS})
    config = RunnerConfig(window=f"{shape.length}s")
    every = TaskInterval.seconds(shape.step)
    crew = crew_of(TASKS, series, every, config, None, States())
    return dict(crew.run(Tick(series.view().for_window(start, end), start, end)))


@pytest.fixture(autouse=True)
def _few_spare_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots are given out anew before long."""
    monkeypatch.setattr(_sliding_keys, "_SPARE", 4)


@settings(max_examples=examples(40))
@given(SHAPES)
def test_windows_one_after_another_are_as_each_alone(shape: Shape) -> None:
    rng = np.random.default_rng(shape.seed)
    series = shape.series()
    stage = Stage(shape, series)
    for start, end in shape.windows_of(series):
        kind = rng.random()
        if kind < 0.05:
            continue  # missed
        if kind < 0.1:
            stage.view(start, end)  # nothing is computed, as of one that is given up
            continue
        found = stage.run(start, end)
        if kind < 0.5:
            assert repr(found) == repr(Stage(shape, series).run(start, end))


@settings(max_examples=examples(25))
@given(SHAPES)
def test_a_key_has_what_a_stage_of_its_rows_alone_has(shape: Shape) -> None:
    series = shape.series()
    stage = Stage(shape, series)
    for number, (start, end) in enumerate(shape.windows_of(series)):
        found = stage.run(start, end)
        if number % 7 < 6:
            continue
        view = series.view().for_window(start, end).in_window
        keys = np.unique(view["k"])
        assert sorted(found.get("count", ())) == keys.tolist()
        for key in keys.tolist():
            which = np.flatnonzero(view["k"] == key)
            own = {name: values[key] for name, values in found.items()}
            rows = Picked(view, which)
            assert repr(own) == repr(of_key(shape, rows, start, end))


class Picked:
    """Some rows of a view."""

    def __init__(self, view: Any, which: Any) -> None:
        self._view, self._which = view, which
        self.time = view.time[which]

    def __getitem__(self, name: str) -> Any:
        return self._view[name][self._which]


@settings(max_examples=examples(40))
@given(SHAPES)
def test_the_keys_of_a_window_and_when_each_had_its_last_row(shape: Shape) -> None:
    series = shape.series()
    looks = SlidingKeys("k", shape.step)
    rows_before: dict[tuple[int, Any], list[float]] = {}
    look = 0
    for start, end in shape.windows_of(series):
        view = series.view().for_window(start, end)
        rows = view.in_window
        known = looks.look(view)
        assert known.look == look + 1
        look = known.look
        lasts = dict(zip(rows["k"].tolist(), rows.time.tolist()))
        assert list(zip(known.keys, known.lasts.tolist())) == sorted(lasts.items())
        slot_of = dict(zip(known.keys, known.slots.tolist()))
        assert len(set(slot_of.values())) == len(known.keys)
        assert known.slots_of(rows, 0, len(rows)).tolist() == [slot_of[k] for k in rows["k"]]
        # A pane that has not changed has the rows that it had.
        pane = (rows.time - (shape.closed is Closed.RIGHT)) // shape.step
        now: dict[tuple[int, Any], list[float]] = {}
        for number, key, value in zip(pane.tolist(), rows["k"].tolist(), rows["b"].tolist()):
            now.setdefault((number, key), []).append(value)
        same = {
            known.number + at for at, changed in enumerate(known.changed.tolist()) if changed < look
        }
        ones = {of: its for of, its in now.items() if of[0] in same}
        assert ones == {of: its for of, its in rows_before.items() if of[0] in same}
        rows_before = now


@settings(max_examples=examples(40))
@given(SHAPES, st.integers(1, 200))
def test_keys_that_are_idle_are_those_that_all_rows_tell(shape: Shape, idle: int) -> None:
    series = shape.series()
    looks = SlidingKeys("k", shape.step)
    ones, others = KnownKeys(idle), KnownKeys(idle)
    for start, end in shape.windows_of(series):
        view = series.view().for_window(start, end)
        found = ones.note(KeyedView(view, "k", sliding=looks))
        assert sorted(found) == sorted(others.note(KeyedView(view, "k")))
        assert ones.last == others.last


def test_a_window_that_comes_before_another_is_computed_as_any() -> None:
    shape = Shape(3, 40, 1, 1, None, Closed.LEFT, True, False)
    series = shape.series()
    for time in range(1000, 1200):
        row = {"k": str(time % 7), "a": time / 7, "b": 1.0 / time, "n": time % 50, "s": "x"}
        series.append(time, **row)
    stage = Stage(shape, series)
    for end in (1100, 1101, 1060, 1061, 1190, 1042):
        expected = Stage(shape, series).run(end - 40, end)
        assert repr(stage.run(end - 40, end)) == repr(expected)


def test_codes_that_are_given_out_anew_are_of_the_same_keys() -> None:
    shape = Shape(3, 64, 1, 1, "64s", Closed.LEFT, True, False)
    series = shape.series()
    stage = Stage(shape, series)
    texts = set[int]()
    for end in range(1001, 1250):
        for key in ("always", f"once {end}", f"again {end % 90}", f"other {end}", f"third {end}"):
            series.append(end - 1, k=key, a=end / 7, b=1.0 / end, n=end % 50, s="x")
        found = stage.run(end - 64, end)
        texts.add(id(placed(series.view())[1].texts(0)))
        if end % 20 == 0:
            assert repr(found) == repr(Stage(shape, series).run(end - 64, end))
    assert len(texts) > 1


def test_keys_that_are_gone_are_forgotten() -> None:
    series = TimeSeries({"k": int, "a": float}, TimeUnit.SECONDS, "8s", key="k")
    looks = SlidingKeys("k", 1)
    for end in range(1, 500):
        series.extend([end - 1] * 3, k=[end, end + 10**6, end + 2 * 10**6], a=[1.0] * 3)
        known = looks.look(series.view().for_window(end - 8, end))
        assert known.slot_count <= 2 * len(known.keys) + 4 + 3


@pytest.mark.parametrize("late", [False, True])
def test_a_window_looks_at_rows_that_have_come_and_that_leave(
    monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    shape = Shape(0, 600, 1, 1, None, Closed.LEFT, True, False)
    series = shape.series()
    looked: list[int] = []
    slots = SlidingKeys.slots

    def counted(looks: SlidingKeys, storage: Any, first: int, stop: int) -> Any:
        looked.append(stop - first)
        return slots(looks, storage, first, stop)

    monkeypatch.setattr(SlidingKeys, "slots", counted)
    stage = Stage(shape, series, (agg.mean("a"), agg.count(where="n > 10")))
    for end in range(1, 720):
        for key in "abcde":
            series.append(end - 1, k=key, a=1.0, b=end / 7, n=end % 50, s="x")
        if late and end > 610 and end % 5 == 0:
            series.append(end - 300, k="a", a=1.0, b=2.0, n=1, s="x")
        looked.clear()
        stage.run(end - 600, end)
        # The rows of the pane that came, twice, and of one that will leave; in a block there are 8
        # panes, all of which are computed anew for a late row, and its own is looked at.
        if end > 610:
            assert sum(looked) <= 5 * (3 + 11 * (late and end % 5 == 0)) + 2 * late
