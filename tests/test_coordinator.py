"""Marks that threads move, and waiting for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.threads import PATIENCE, beside, eventually, together

from run_task import Align, Atom, RunnerConfig, TaskInterval, VirtualClock
from run_task.pipeline._edges import Edges
from run_task.pipeline._given import GivenWindows, ReaderWindows
from run_task.pipeline._order import NEVER, Mark, Order, Place, RowLimits, SourceMark, StageMark
from run_task.pipeline.live import _coordinator
from run_task.pipeline.live._coordinator import Coordinator, Turn
from run_task.pipeline.live._early_views import EarlyViews
from run_task.pipeline.live._lags import Lags
from run_task.pipeline.live._row_gate import RowGate
from run_task.pipeline.live._stage_views import StageInput, StageViews
from run_task.runner._window_grid import windows_of

SECOND_NS = 1_000_000_000
SECOND = TaskInterval.seconds(1)
SECONDLY = windows_of(SECOND, None, Align.EPOCH, 0)


class Parts:
    """A stage that reads what a source's rows and another stage's results enter."""

    def __init__(
        self, *, recording: bool = False, place: Place | None = None, started: bool = True
    ) -> None:
        self.clock = VirtualClock()
        place = place or Place()
        self.up = StageMark("up", SECONDLY, 0, Place(), [(place, False)])
        self.down = StageMark("down", SECONDLY, 0, place)
        self.source = SourceMark("of rows", place, recording=recording)
        self.order = Order([self.up, self.down], [self.source])
        self.coordinator = Coordinator(self.order, self.clock)
        self.data = Atom(0)
        config = RunnerConfig(grace=TaskInterval.seconds(20))
        self.edges = Edges(SECONDLY, config, 10 * SECOND_NS, start_ns=0)
        windows = self.windows = ReaderWindows(SECONDLY, holds_end=False, edges=self.edges)
        self.given = GivenWindows()
        self.given.add(windows)
        self.given.begin(windows, 0)
        self.early_views = EarlyViews(
            *(self.down, place, self.data, windows, self.given, self.coordinator, self.clock),
            Lags(self.coordinator, self.clock, resumed=False),
            all_recordings=False,
        )
        for stage in (self.up, self.down) if started else ():
            self.coordinator.advance_stage(stage, first_ns=SECOND_NS)

    def row_gate(self, timeout: float = PATIENCE) -> RowGate:
        early_views = {(self.down, self.source.enters): self.early_views}
        return RowGate(self.source, timeout, early_views.get, self.coordinator)

    @property
    def views(self) -> StageViews:
        """What the windows of the stage below are given to see."""
        one = StageInput(self.source.enters, self.data, self.windows, self.given, self.early_views)
        return StageViews(self.down, self.data, [one], self.edges, self.coordinator)

    def leave_out(self, start_ns: int, end_ns: int) -> bool:
        """Give a window without a view, if that can be."""
        return self.views.leave_out(start_ns, end_ns, 2 * end_ns - start_ns)


@pytest.mark.parametrize("run", range(5))
def test_no_move_is_lost_and_marks_never_go_back(run: int, switching: None) -> None:
    parts = Parts()
    last = 2000
    went_back: list[float] = []
    done = threading.Event()

    def watch() -> None:
        before = parts.down.seen_ns
        while not done.is_set():
            now = parts.down.seen_ns
            if now < before:
                went_back.append(now)
            before = now

    def move(first: int) -> None:
        # Each thread has ends of its own, and the greatest of all counts.
        for end in range(first, last + 1, 4):
            if first % 2:
                parts.coordinator.advance_stage(parts.down, seen_ns=end)
            else:
                parts.coordinator.advance_seen(parts.down, end)
            assert parts.down.seen_ns >= end

    with beside(watch):
        try:
            together(*(lambda first=first: move(first) for first in range(1, 5)))
        finally:
            done.set()
    assert parts.down.seen_ns == last
    assert not went_back


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_a_window_that_is_left_out_is_given_once_and_in_its_place(ahead: int) -> None:
    parts = Parts()
    parts.clock.advance(TaskInterval.seconds(10))
    parts.early_views.take_before(ahead * SECOND_NS + 1)
    parts.leave_out(0, SECOND_NS)
    parts.coordinator.advance_seen(parts.down, 2 * SECOND_NS)
    parts.early_views.take_before(5 * SECOND_NS + 1)
    for second in range(2, 6):
        assert parts.early_views.find(second * SECOND_NS)
        parts.early_views.begin((second - 1) * SECOND_NS, second * SECOND_NS)
    late = [parts.given.is_late(second * SECOND_NS) for second in range(7)]
    assert late == [True] * 5 + [False] * 2


def test_a_window_is_not_left_out_for_which_a_row_has_come_right_now() -> None:
    parts = Parts()
    parts.clock.advance(TaskInterval.seconds(10))
    assert not parts.given.enter(1_500_000_000, stored=True)
    assert parts.leave_out(0, SECOND_NS)
    assert not parts.leave_out(SECOND_NS, 2 * SECOND_NS)
    assert parts.edges.given_from_ns == 2 * SECOND_NS
    # A row of the one that was left out comes too late, and opens none.
    assert parts.given.enter(500_000_000, stored=True)
    assert parts.edges.given_from_ns == 2 * SECOND_NS


def test_what_is_not_stored_opens_no_window() -> None:
    parts = Parts()
    parts.given.enter(1_500_000_000, stored=False)
    assert parts.edges.given_from_ns == 11 * SECOND_NS


@pytest.mark.parametrize("run", range(5))
def test_no_window_gets_two_views(run: int, switching: None) -> None:
    # A runner that takes its views, and others who take them ahead: who comes first is the one.
    parts = Parts()
    windows = 300
    parts.clock.advance(TaskInterval.seconds(windows))
    seen: dict[int, int] = {}

    def ahead() -> None:
        for second in range(1, windows + 1):
            parts.early_views.take_before(second * SECOND_NS + 1)
            parts.data.swap(lambda value: max(value, second))  # noqa: B023  called at once

    def window() -> None:
        for second in range(1, windows + 1):
            seen[second] = parts.early_views.begin((second - 1) * SECOND_NS, second * SECOND_NS)
            parts.coordinator.advance_seen(parts.down, (second + 1) * SECOND_NS)

    together(ahead, window)
    # Each has the view from before what is its own entered, whoever took it.
    assert [second for second, value in seen.items() if value >= second] == []
    assert parts.down.seen_ns == (windows + 1) * SECOND_NS


def test_no_view_is_taken_ahead_for_a_stage_that_has_not_started() -> None:
    parts = Parts(started=False)
    parts.clock.advance(TaskInterval.seconds(2))
    parts.early_views.take_before(SECOND_NS + 1)
    assert parts.down.seen_ns == -NEVER
    # Results that enter before wait for it.
    assert [*parts.order.before_results(parts.up, SECOND_NS + 1).readers] == [parts.down]
    parts.coordinator.advance_stage(parts.down, first_ns=SECOND_NS)
    parts.early_views.take_before(SECOND_NS + 1)
    assert parts.down.seen_ns == 2 * SECOND_NS
    assert parts.early_views.find(SECOND_NS) is not None


def test_who_waits_is_woken_by_a_move_and_asks_no_more_often_than_that() -> None:
    parts = Parts()
    asked: list[Sequence[Mark]] = []

    def blockers() -> Sequence[Mark]:
        asked.append(parts.coordinator.before_window(parts.down, 0, SECOND_NS))
        return asked[-1]

    with beside(lambda: parts.coordinator.wait(blockers, PATIENCE)) as waiting:
        eventually(lambda: asked)
        time.sleep(0.05)
        assert len(asked) == 1
        parts.coordinator.advance_stage(parts.up, seen_ns=2 * SECOND_NS)  # not far enough
        eventually(lambda: len(asked) == 2)
        parts.coordinator.advance_stage(parts.up, done_ns=2 * SECOND_NS)
        assert waiting.result(PATIENCE) == []
    assert asked == [[parts.up], [parts.up], []]


def test_a_move_between_looking_and_waiting_is_not_waited_through() -> None:
    parts = Parts()
    looks = 0

    def blockers() -> Sequence[Mark]:
        nonlocal looks
        looks += 1
        left = parts.coordinator.before_window(parts.down, 0, SECOND_NS)
        if looks == 1:
            parts.coordinator.advance_stage(parts.up, done_ns=2 * SECOND_NS)
        return left

    begun = time.monotonic()
    assert parts.coordinator.wait(blockers, PATIENCE) == []
    assert time.monotonic() - begun < PATIENCE / 2
    assert looks == 2


def test_nobody_waits_once_all_are_released() -> None:
    parts = Parts()

    def blockers() -> Sequence[Mark]:
        return parts.coordinator.before_window(parts.down, 0, SECOND_NS)

    with beside(lambda: parts.coordinator.wait(blockers, PATIENCE)) as waiting:
        parts.coordinator.release()
        assert waiting.result(PATIENCE) == [parts.up]
    assert parts.coordinator.wait(blockers, PATIENCE) == [parts.up]


def test_who_took_too_long_is_not_waited_for_before_it_has_caught_up() -> None:
    parts = Parts()
    turn = Turn(parts.coordinator)

    def wait(second: int, timeout: float) -> Sequence[Mark]:
        def before() -> Sequence[Mark]:
            return parts.coordinator.before_window(parts.down, 0, second * SECOND_NS)

        begun = time.monotonic()
        late = turn.wait(before, timeout)
        assert time.monotonic() - begun < PATIENCE / 2
        return late

    assert wait(1, 0.01) == [parts.up]
    assert wait(2, PATIENCE) == []  # it has not even come as far as it was waited for
    parts.coordinator.advance_stage(parts.up, done_ns=2 * SECOND_NS + 1)
    assert wait(2, PATIENCE) == []  # it has caught up
    assert wait(3, 0.01) == [parts.up]  # so it is waited for again


def test_a_row_ahead_of_the_clock_enters_when_the_window_before_it_is_due() -> None:
    parts = Parts()
    parts.coordinator.advance_stage(parts.up, ended=True)
    gate = parts.row_gate()
    with beside(lambda: gate.wait(SECOND_NS, late=False)) as waiting:
        time.sleep(0.02)
        assert not waiting.done()
        parts.clock.advance(SECOND)  # its stage is busy: nobody but the clock tells
        assert waiting.result(PATIENCE) == 2 * SECOND_NS
    early_view = parts.early_views.find(SECOND_NS)
    assert early_view is not None
    assert early_view.missing == ["up"]


def test_a_clock_that_stands_still_does_not_keep_a_row_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    parts = Parts()
    parts.coordinator.advance_stage(parts.up, ended=True)
    begun = time.monotonic()
    parts.row_gate(timeout=0.05).wait(SECOND_NS, late=False)
    assert 0.05 <= time.monotonic() - begun < PATIENCE
    (record,) = caplog.records
    told = "rows of source of rows enter, although stage 'down' is behind"
    assert record.getMessage() == told


def test_rows_ask_once_until_one_is_later_than_what_was_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = Parts(place=Place(bounded=True, evicts=True))
    parts.clock.advance(TaskInterval.seconds(100))
    parts.coordinator.advance_stage(parts.up, done_ns=10 * SECOND_NS)
    asked: list[int] = []
    found: Any = Coordinator.row_limits

    def row_limits(self: Coordinator, source: SourceMark, arrival_ns: int) -> RowLimits:
        asked.append(arrival_ns)
        limits: RowLimits = found(self, source, arrival_ns)
        return limits

    monkeypatch.setattr(_coordinator.Coordinator, "row_limits", row_limits)
    gate = parts.row_gate()
    for arrival_ns in range(0, 3 * SECOND_NS, SECOND_NS // 100):
        if arrival_ns >= gate.in_order_ns:
            gate.wait(arrival_ns, late=False)
    assert asked == [0, SECOND_NS, 2 * SECOND_NS]  # once a window


def test_a_row_that_others_come_before_does_not_enter_once_the_run_is_given_up() -> None:
    parts = Parts()
    gate = parts.row_gate()
    with beside(lambda: gate.wait(SECOND_NS, late=False)) as waiting:
        parts.coordinator.release()
        assert waiting.result(PATIENCE) == -NEVER
    # Those who have ended come before nobody.
    for stage in (parts.up, parts.down):
        parts.coordinator.advance_stage(stage, ended=True)
    assert gate.wait(SECOND_NS, late=False) == NEVER
