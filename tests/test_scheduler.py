"""Activities run when they are due, in order, and none holds up another."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest
from tests.support.threads import PATIENCE, eventually

from run_task import SystemClock, TaskInterval, VirtualClock
from run_task.runner import _scheduler
from run_task.runner._scheduler import (
    Scheduler,
    is_scheduled,
    scheduled,
    scheduler_of,
    step_aside,
)
from run_task.sources._playback_clock import PlaybackClock
from run_task.sync._alarm import Alarm
from run_task.sync._watch import watch
from run_task.time import Clock

SECOND_NS = 10**9


class Step:
    """An activity that does one thing, and notes in which thread."""

    name = "of a test"

    def __init__(self, run: Callable[[Step], None], scheduler: Scheduler, rank: int = 0) -> None:
        self.run = run
        self.scheduler = scheduler
        self.threads: list[int] = []
        self.ran = threading.Event()
        self.steps_ns = 0
        self.due_ns = 0
        self.entry = scheduler.add(self, rank)

    def put(self, due_ns: int) -> None:
        self.due_ns = due_ns
        self.scheduler.put(self.entry, due_ns)

    def activate(self) -> None:
        self.threads.append(threading.get_ident())
        self.run(self)
        self.ran.set()

    def follow_clock(self) -> int:
        return self.due_ns - self.steps_ns

    def lose_clock(self, error: BaseException) -> None:
        raise AssertionError from error


def is_of_scheduler(thread: threading.Thread) -> bool:
    return thread.name.startswith("run-task scheduler")


class Plan:
    """A scheduler under a virtual clock, and what it runs."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.scheduler = scheduler_of(clock)
        self.steps: list[Step] = []
        self.order: list[str] = []

    def step(
        self, name: str = "", run: Callable[[Step], None] | None = None, rank: int = 0
    ) -> Step:
        def note(step: Step) -> None:
            if run is not None:
                run(step)
            self.order.append(name)

        self.steps.append(Step(note, self.scheduler, rank))
        return self.steps[-1]

    def close(self) -> None:
        for step in self.steps:
            self.scheduler.remove(step.entry)
        self.scheduler.settle()
        eventually(lambda: not any(map(is_of_scheduler, threading.enumerate())))


@pytest.fixture
def plan() -> Iterator[Plan]:
    made = Plan(VirtualClock())
    yield made
    made.close()


@pytest.fixture
def real() -> Iterator[Plan]:
    made = Plan(SystemClock())
    yield made
    made.close()


def wait(event: threading.Event) -> None:
    assert event.wait(PATIENCE)


def advance(plan: Plan, seconds: int) -> None:
    assert isinstance(plan.clock, VirtualClock)
    plan.clock.advance(TaskInterval.seconds(seconds))


def test_what_is_due_first_runs_first_and_at_one_time_the_least_rank(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_scheduler, "_HOLD", PATIENCE)  # on a busy machine none is cheap
    last = plan.step("d", rank=9)
    for name, due, rank in (("c", 2, 1), ("b", 2, 0), ("a", 1, 5)):
        plan.step(name, rank=rank).put(due * SECOND_NS)
    last.put(2 * SECOND_NS)
    advance(plan, 2)
    assert last.ran.wait(PATIENCE)
    assert plan.order == ["a", "b", "c", "d"]


def test_cheap_ones_share_a_thread(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scheduler, "_HOLD", PATIENCE)  # on a busy machine none is cheap
    steps = [plan.step() for _ in range(50)]
    for step in steps:
        step.put(SECOND_NS)
    advance(plan, 1)
    for step in steps:
        assert step.ran.wait(PATIENCE)
    assert len({thread for step in steps for thread in step.threads}) == 1


def test_one_that_is_put_earlier_than_what_is_waited_for_is_not_late(plan: Plan) -> None:
    late, early = plan.step(), plan.step()
    late.put(100 * SECOND_NS)
    time.sleep(0.01)  # so that it is waited for
    early.put(SECOND_NS)
    advance(plan, 1)
    assert early.ran.wait(PATIENCE)
    assert not late.ran.is_set()


def test_one_that_is_put_while_the_clock_moves_is_seen(plan: Plan) -> None:
    step = plan.step()
    time.sleep(0.01)  # so that the leader waits, for nothing in particular
    assert isinstance(plan.clock, VirtualClock)
    clock = plan.clock

    class Meanwhile(Alarm):
        """Is rung by the clock when it moves, before or after the leader's alarm is."""

        def ring(self) -> None:
            step.put(clock.monotonic_ns())

    # In the place of a thread that sleeps by this clock: no other way leads to that moment.
    clock._sleepers.add(Meanwhile())  # pyright: ignore[reportPrivateUsage]
    clock.advance(TaskInterval.millis(1))
    assert step.ran.wait(PATIENCE)


def test_one_that_hangs_holds_up_no_other(real: Plan) -> None:
    over = threading.Event()
    hangs = real.step(run=lambda step: wait(over))
    other = real.step()
    now_ns = real.clock.monotonic_ns()
    hangs.put(now_ns)
    other.put(now_ns + 1)
    assert other.ran.wait(PATIENCE)
    assert not hangs.ran.is_set()
    over.set()


def test_one_that_hangs_holds_up_none_that_are_due_at_the_same_time(plan: Plan) -> None:
    over = threading.Event()
    plan.step("first", rank=0).put(SECOND_NS)
    hangs = plan.step("hangs", lambda step: wait(over), rank=1)
    hangs.put(SECOND_NS)
    for rank, name in ((3, "b"), (2, "a"), (4, "c")):
        plan.step(name, rank=rank).put(SECOND_NS)
    advance(plan, 1)
    for step in plan.steps:
        assert step is hangs or step.ran.wait(PATIENCE)
    over.set()
    assert hangs.ran.wait(PATIENCE)
    assert all(len(step.threads) == 1 for step in plan.steps)


def test_one_that_is_removed_by_another_that_is_due_at_the_same_time_is_not_run(
    plan: Plan,
) -> None:
    removed = plan.step("removed", rank=1)
    remover = plan.step(run=lambda step: plan.scheduler.remove(removed.entry))
    last = plan.step("last", rank=2)
    for step in (removed, remover, last):
        step.put(SECOND_NS)
    advance(plan, 1)
    assert last.ran.wait(PATIENCE)
    assert not removed.threads


def test_one_that_hangs_alone_holds_up_nobody_who_comes_later(real: Plan) -> None:
    over, begun = threading.Event(), threading.Event()

    def hang(step: Step) -> None:
        begun.set()
        over.wait(PATIENCE)

    real.step(run=hang).put(0)
    assert begun.wait(PATIENCE)
    time.sleep(0.02)  # the watch may have gone to sleep
    other = real.step()
    other.put(0)
    assert other.ran.wait(PATIENCE)
    over.set()


def test_one_that_was_slow_runs_beside_the_others(real: Plan) -> None:
    def work(step: Step) -> None:
        time.sleep(0.003)

    def wait_for_quick(step: Step) -> None:
        wait(quick.ran)

    slow, quick = real.step(run=work), real.step()
    slow.put(0)
    assert slow.ran.wait(PATIENCE)
    eventually(lambda: slow.entry.slow)
    slow.ran = threading.Event()
    slow.run = wait_for_quick
    quick.put(real.clock.monotonic_ns() + 10**7)
    slow.put(0)
    # It waits for the quick one, which runs all the same, before the watch would see to it.
    assert slow.ran.wait(PATIENCE)


def test_one_that_says_that_it_blocks_holds_up_no_other(real: Plan) -> None:
    other = real.step()

    def block(step: Step) -> None:
        assert is_scheduled()
        step_aside()
        other.put(0)
        assert other.ran.wait(PATIENCE)

    blocking = real.step(run=block)
    blocking.put(0)
    assert blocking.ran.wait(PATIENCE)
    assert other.ran.is_set()
    assert other.threads != blocking.threads


def test_to_step_aside_elsewhere_does_nothing() -> None:
    assert not is_scheduled()
    step_aside()


def test_one_that_is_woken_runs_at_once_and_once_more_if_it_was_running(plan: Plan) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def run(step: Step) -> None:
        begun.set()
        if len(step.threads) == 1:
            go_on.wait(PATIENCE)
            step.put(100 * SECOND_NS)

    step = plan.step(run=run)
    step.put(100 * SECOND_NS)
    plan.scheduler.wake(step.entry)
    assert begun.wait(PATIENCE)
    plan.scheduler.wake(step.entry)
    go_on.set()
    eventually(lambda: len(step.threads) == 2)


def test_a_signal_handler_may_wake_whatever_it_interrupts(plan: Plan) -> None:
    step = plan.step(run=lambda step: step.put(100 * SECOND_NS))
    step.put(100 * SECOND_NS)
    woken = 0

    def handle(signum: int, frame: object) -> None:
        nonlocal woken
        woken += 1
        plan.scheduler.wake(step.entry)

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
        others = [plan.step() for _ in range(300)]
        for other in others:  # it holds the mutex for much of this time
            other.put(200 * SECOND_NS)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert woken
    assert step.ran.wait(PATIENCE)


def test_a_step_of_the_wall_clock_moves_what_follows_it(plan: Plan) -> None:
    step = plan.step()
    step.put(100 * SECOND_NS)
    step.steps_ns = 100 * SECOND_NS
    assert isinstance(plan.clock, VirtualClock)
    plan.clock.step(100 * SECOND_NS)
    assert step.ran.wait(PATIENCE)


def test_a_step_of_the_wall_clock_moves_what_is_running_meanwhile(plan: Plan) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def run(step: Step) -> None:
        if len(step.threads) == 1:
            step_aside()
            begun.set()
            wait(go_on)
            step.put(100 * SECOND_NS)  # worked out before it knows of the step

    other, step = plan.step(), plan.step(run=run)
    step.put(0)
    wait(begun)
    step.steps_ns = other.steps_ns = 100 * SECOND_NS
    other.put(100 * SECOND_NS)
    assert isinstance(plan.clock, VirtualClock)
    plan.clock.step(100 * SECOND_NS)
    wait(other.ran)
    go_on.set()
    eventually(lambda: len(step.threads) == 2)


def test_a_clock_that_runs_a_million_times_as_fast_is_waited_for_and_does_not_seem_to_step() -> (
    None
):
    reads: list[int] = []

    class Fast(PlaybackClock):
        def time_ns(self) -> int:
            reads.append(super().time_ns())
            return reads[-1]

    plan = Plan(Fast(SystemClock(), 0, 1e7))
    step = plan.step()
    step.put(plan.clock.monotonic_ns() + 3_000_000 * SECOND_NS)  # in 0.3 s
    wait(step.ran)
    assert plan.clock.monotonic_ns() >= step.due_ns
    assert len(reads) < 50
    plan.close()


def test_one_that_is_removed_runs_no_more(plan: Plan) -> None:
    gone, stays = plan.step("gone"), plan.step("stays", rank=1)
    for step in (gone, stays):
        step.put(SECOND_NS)
    plan.scheduler.remove(gone.entry)
    gone.put(SECOND_NS)
    advance(plan, 1)
    assert stays.ran.wait(PATIENCE)
    assert plan.order == ["stays"]


def test_its_threads_end_with_the_last_that_it_runs() -> None:
    before = threading.active_count()
    plan = Plan(VirtualClock())
    for _ in range(20):
        plan.step(run=lambda step: step_aside()).put(0)
    for step in plan.steps:
        assert step.ran.wait(PATIENCE)
    plan.close()
    eventually(lambda: threading.active_count() == before)


def test_no_thread_for_the_first_is_an_error_of_who_adds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    plan = Plan(VirtualClock())
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            plan.step()
    step = plan.step()
    step.put(0)
    assert step.ran.wait(PATIENCE)
    plan.close()


def test_no_thread_for_the_lead_makes_others_late_and_loses_nothing(
    real: Plan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_scheduler, "_HOLD", PATIENCE)  # the watch does not see to it

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    other = real.step()

    def block(step: Step) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            step_aside()
        other.put(0)

    blocking = real.step(run=block)
    blocking.put(0)
    assert other.ran.wait(PATIENCE)
    assert other.threads == blocking.threads
    assert "can't start new thread" in caplog.text


@pytest.mark.usefixtures("switching")
def test_each_runs_in_one_thread_at_a_time_and_as_often_as_it_is_put(real: Plan) -> None:
    chance = random.Random(7)
    rounds, count = 60, 8
    busy = [0] * count
    clashes: list[int] = []

    def make(number: int) -> Callable[[Step], None]:
        def run(step: Step) -> None:
            busy[number] += 1
            if busy[number] != 1:
                clashes.append(number)
            kind = chance.random()
            if kind < 0.1:
                step_aside()
            elif kind < 0.15:
                time.sleep(0.006)  # longer than anybody may hold the others up
            busy[number] -= 1
            if len(step.threads) < rounds:
                step.put(real.clock.monotonic_ns() + chance.randrange(50_000))

        return run

    steps = [real.step(run=make(number)) for number in range(count)]
    for step in steps:
        step.put(0)
    eventually(lambda: all(len(step.threads) == rounds for step in steps))
    assert not clashes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_begins_with_none(real: Plan) -> None:
    real.step().put(0)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            plan = Plan(SystemClock())
            step = plan.step()
            step.put(0)
            code = 0 if step.ran.wait(PATIENCE) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_is_removed_is_let_go_of_before_it_would_have_been_due(plan: Plan) -> None:
    plan.step().put(SECOND_NS)
    gone = weakref.ref(Step(lambda step: None, plan.scheduler))
    step = gone()
    assert step is not None
    step.put(10**6 * SECOND_NS)
    plan.scheduler.remove(step.entry)
    del step
    gc.collect()
    assert gone() is None


def test_steps_of_the_clock_leave_nothing_behind(plan: Plan) -> None:
    plan.step().put(10**6 * SECOND_NS)
    assert isinstance(plan.clock, VirtualClock)
    for _ in range(500):
        plan.clock.step(SECOND_NS)
        time.sleep(0.0005)
    heap = plan.scheduler._heap  # pyright: ignore[reportPrivateUsage]
    assert len(heap) < 100


def test_what_hangs_holds_up_nobody_once_there_are_threads_again(
    real: Plan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    go_on, hangs = threading.Event(), threading.Event()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def hang(step: Step) -> None:
        hangs.set()
        assert go_on.wait(PATIENCE)

    hanging, other = real.step(run=hang), real.step()
    watch().wake()
    eventually(lambda: "run-task watch" in {thread.name for thread in threading.enumerate()})
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        hanging.put(0)
        wait(hangs)
        other.put(0)
        eventually(lambda: "makes others late" in caplog.text)
        time.sleep(0.2)
    wait(other.ran)
    assert not go_on.is_set()
    go_on.set()
    assert caplog.text.count("makes others late") == 1


def test_one_that_is_added_after_the_last_has_ended_in_a_thread_that_hangs_is_run(
    plan: Plan,
) -> None:
    go_on, hangs = threading.Event(), threading.Event()

    def hang(step: Step) -> None:
        hangs.set()
        assert go_on.wait(PATIENCE)

    hanging = plan.step(run=hang)
    hanging.put(0)
    wait(hangs)
    plan.scheduler.remove(hanging.entry)  # given up
    other = plan.step()  # of somebody who had the scheduler before
    other.put(0)
    wait(other.ran)
    assert other in scheduled()
    go_on.set()
