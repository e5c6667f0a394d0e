"""Tasks on the cores of this machine, in threads.

One thread has the lead: it drives the runner's loop, and runs the tasks of a tick itself, for
cheap ones cost less than waking somebody to run them. Helpers take their share of a tick whose
tasks were dear before, or that goes on for longer than expected. The watch looks after the
leader: when a task outlives its timeout in the leader's hands, the watch gives the lead to a new
thread, and the old one goes when the task lets it.

Nothing is handed over a task. A tick's tasks stand in one iterator that every thread takes its
next task from, which is atomic, and each notes what came of it at the task's own position.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from run_task.alarm import Alarm
from run_task.errors import TaskError, TaskTimeout
from run_task.executors.protocol import MISSING, Crew, Outcome, Tick, Ticks, failed, outcome
from run_task.task import Runnable

PATIENCE: Final = 0.005
"""How many seconds a tick goes on in the leader's hands alone before helpers are called in."""

WORTH_HELP: Final = 0.0003
"""How many seconds helpers must be expected to save before a tick begins with them: several
times what it costs to wake them."""

DEAR: Final = 0.0005
"""From how many seconds on a tick's tasks are looked at one by one, to see what helpers save."""

_Run = Callable[[Any, int, int], Any]


class _Hand:
    """A thread that runs tasks, and the position of the one that it has in hand."""

    __slots__ = ("alarm", "batch", "position", "written_off")

    def __init__(self) -> None:
        self.alarm = Alarm()
        self.batch: _Batch | None = None
        self.position = -1
        self.written_off = False


class _Batch:
    """One tick in work."""

    __slots__ = (
        "begun",
        "claims",
        "ends",
        "helm",
        "overdue",
        "progress",
        "raised",
        "shared",
        "starts",
        "values",
        "view",
        "window",
    )

    def __init__(
        self, tick: Tick, runs: Sequence[tuple[int, _Run]], size: int, lead: _Hand
    ) -> None:
        self.view, self.window = tick
        self.claims: Iterator[tuple[int, _Run]] = iter(runs)
        self.values: list[Any] = [MISSING] * size
        self.starts: list[float | None] = [None] * size
        self.ends: list[float | None] = [None] * size
        self.raised: dict[int, BaseException] = {}
        self.overdue: dict[int, str] = {}  # position: why nothing is waited for any more
        self.helm = [lead]  # who has the lead takes it out to finish: only one can
        self.shared = False  # whether helpers may have taken tasks
        self.progress: Alarm | None = None  # rung by helpers that are through
        self.begun = 0.0

    def work(self, hand: _Hand) -> float:
        """Run tasks until none is left to take; many threads do at once. Returns the time."""
        view = self.view
        begin, until = self.window
        values = self.values
        starts = self.starts
        ends = self.ends
        clock = time.perf_counter
        now = clock()
        for position, run in self.claims:
            hand.position = position
            starts[position] = now
            try:
                values[position] = run(view, begin, until)
            except BaseException as raised:
                self.raised[position] = raised
            ends[position] = now = clock()
        return now

    def in_work(self) -> list[int]:
        """The positions of the tasks that have been taken, or are to be, and not come back."""
        return [position for position, end in enumerate(self.ends) if end is None]


class ThreadsExecutor:
    """Runs a tick's tasks in threads, as few as will do: the default.

    Cheap tasks run one after another in the runner's own thread, and dear ones on every core. Which
    they are is measured as they run. A task that outlives ``task_timeout`` goes on in a thread
    that is left to it; the tick and the runner go on without it, and it is not started again
    before it returns.
    """

    def start(
        self,
        tasks: Iterable[Runnable[Any, Any]],
        *,
        name: str,
        task_timeout: float | None,
        workers: int,
    ) -> Crew:
        """Make ready; helpers and the watch start when they are first needed."""
        return _ThreadsCrew(tuple(tasks), name, task_timeout, workers)


class _ThreadsCrew:
    def __init__(
        self,
        tasks: Sequence[Runnable[Any, Any]],
        name: str,
        task_timeout: float | None,
        workers: int,
    ) -> None:
        self._names = tuple(task.name for task in tasks)
        self._runs: Sequence[tuple[int, _Run]] = [(i, task.run) for i, task in enumerate(tasks)]
        self._name = name
        self._timeout = task_timeout
        self._patience = task_timeout  # how long to wait for a task: none, once abandoned
        self._workers = workers
        self._ticks: Ticks | None = None
        self._batch: _Batch | None = None
        self._hung: dict[int, _Batch] = {}  # tasks that timed out and have not come back
        # What earlier ticks told: the order to take the tasks in, and whether to call for help.
        self._order = self._runs
        self._dear = False
        self._watched = task_timeout is not None or (len(tasks) > 1 and workers > 1)
        self._asleep = self._watched  # whether the watch has to be woken
        self._watch_alarm = Alarm()
        self._watch_thread: threading.Thread | None = None
        self._helpers: list[_Hand] = []
        self._threads: list[threading.Thread] = []
        self._mutex = threading.Lock()  # for the list of threads
        self._closed = False

    # The lead

    def drive(self, ticks: Ticks) -> None:
        self._ticks = ticks
        with self._mutex:
            self._threads.append(threading.current_thread())
        tick = next(ticks, None)
        if tick is not None:
            hand = _Hand()
            self._lead(ticks, self._begin(tick, hand), hand)

    def _lead(self, ticks: Ticks, batch: _Batch, hand: _Hand) -> None:
        while True:
            outcome = self._finish(batch, hand, batch.work(hand))
            if outcome is None:
                return  # a task hung in this thread, and another has the lead now
            try:
                tick = ticks.send(outcome)
            except StopIteration:
                return
            batch = self._begin(tick, hand)

    def _begin(self, tick: Tick, hand: _Hand) -> _Batch:
        batch = _Batch(tick, self._order, len(self._names), hand)
        if self._hung:
            self._leave_out_hung(batch)
        batch.begun = time.perf_counter()
        self._batch = batch
        if self._asleep:
            self._wake_watch()
        if self._dear:
            self._call_helpers(batch)
        return batch

    def _leave_out_hung(self, batch: _Batch) -> None:
        self._hung = {i: since for i, since in self._hung.items() if since.ends[i] is None}
        for position, since in self._hung.items():
            start, end = since.window
            batch.overdue[position] = f"it is still running from the window [{start}, {end})"
        batch.claims = iter([run for run in self._order if run[0] not in self._hung])

    def _finish(self, batch: _Batch, hand: _Hand, ended: float) -> Outcome | None:
        try:
            batch.helm.remove(hand)
        except ValueError:
            return None
        if batch.shared:
            ended = self._wait_for_helpers(batch)
        self._batch = None
        seconds = ended - batch.begun
        if seconds > DEAR or batch.shared:
            self._learn(batch)
        else:
            self._dear = False
        return self._seal(batch, seconds)

    def _wait_for_helpers(self, batch: _Batch) -> float:
        """Wait until every task is back or overdue. All are taken: the leader found none left."""
        while True:
            now = time.perf_counter()
            waiting = [i for i in batch.in_work() if i not in batch.overdue]
            if not waiting:
                return now
            patience = self._patience
            remaining = None
            if patience is not None:
                # A task that has been taken and not started yet will be, presently.
                since = [start if (start := batch.starts[i]) is not None else now for i in waiting]
                remaining = min(since) + patience - now
                if remaining <= 0:
                    for i, start in zip(waiting, since):
                        if now - start >= patience:
                            self._write_off(batch, i)
                    continue
            assert batch.progress is not None
            batch.progress.wait(remaining)

    def _seal(self, batch: _Batch, seconds: float) -> Outcome:
        values, starts, ends = batch.values, batch.starts, batch.ends
        timeout = self._timeout
        errors: dict[int, TaskError] = {}
        if batch.raised or batch.overdue or (timeout is not None and seconds > timeout):
            # A task that hangs may yet write to the lists of its batch: the results do not change.
            ends, starts, values = list(ends), list(starts), list(values)
            for i, raised in tuple(batch.raised.items()):
                errors[i] = failed(self._names[i], batch.window, raised)
            for i, reason in batch.overdue.items():
                errors[i] = TaskTimeout(self._names[i], batch.window, reason)
            if timeout is not None:
                for i, (start, end) in enumerate(zip(starts, ends)):
                    if i in batch.overdue or start is None or end is None:
                        continue
                    if end - start > timeout:
                        reason = f"it ran for {end - start:.3g} s, task_timeout is {timeout:g} s"
                        errors[i] = TaskTimeout(self._names[i], batch.window, reason)
        return outcome(self._names, values, starts, ends, errors, seconds)

    def _learn(self, batch: _Batch) -> None:
        """See from a tick that took long what helpers would save, and which tasks to begin with."""
        costs = [
            end - start if start is not None and end is not None else 0.0
            for start, end in zip(batch.starts, batch.ends)
        ]
        alone = sum(costs)
        together = max(*costs, alone / self._workers)
        self._dear = self._workers > 1 and alone - together > WORTH_HELP
        # The dearest first: begun last, it would run on when all the others are through.
        self._order = sorted(self._runs, key=lambda run: costs[run[0]], reverse=True)

    # Helpers

    def _call_helpers(self, batch: _Batch) -> None:
        batch.progress = Alarm()
        batch.shared = True
        while len(self._helpers) < self._workers - 1:
            hand = _Hand()
            self._helpers.append(hand)
            self._start_thread(f"helper {len(self._helpers)}", self._help, hand)
        for hand in tuple(self._helpers):
            hand.alarm.ring()

    def _help(self, hand: _Hand) -> None:
        while not hand.written_off:
            hand.alarm.wait()
            if self._closed:
                return
            batch = self._batch
            if batch is None or not batch.shared:
                continue  # too late: the leader is through
            hand.batch = batch
            batch.work(hand)
            hand.batch = None
            assert batch.progress is not None
            batch.progress.ring()

    def _write_off(self, batch: _Batch, position: int) -> None:
        """Wait no longer for a task, nor for the thread that is in it."""
        if self._patience == self._timeout:
            reason = f"it did not return within task_timeout={self._timeout:g} s"
        else:
            reason = "it was still running when the runner was shut down"
        batch.overdue[position] = reason
        self._hung[position] = batch
        for hand in tuple(self._helpers):
            if hand.batch is batch and hand.position == position:
                hand.written_off = True
                self._helpers.remove(hand)

    # The watch

    def _wake_watch(self) -> None:
        self._asleep = False
        if self._watch_thread is None:
            self._watch_thread = self._start_thread("watch", self._watch)
        else:
            self._watch_alarm.ring()

    def _watch(self) -> None:
        """Look after the tick in hand every few milliseconds, and sleep when there are none."""
        pause: float | None = PATIENCE
        while True:
            self._watch_alarm.wait(pause)
            if self._closed:
                return
            batch = self._batch
            if batch is None:
                # The leader sets the batch and then looks whether the watch sleeps; the watch
                # does it the other way round. So one of the two sees the other.
                self._asleep = True
                pause = None if self._batch is None else PATIENCE
                continue
            self._asleep = False
            pause = self._look_after(batch)

    def _look_after(self, batch: _Batch) -> float:
        """Do what the batch needs. Returns when to look again, in seconds."""
        now = time.perf_counter()
        age = now - batch.begun
        if age >= PATIENCE and not batch.shared and self._workers > 1:
            self._call_helpers(batch)
        patience = self._patience
        if patience is None:
            return PATIENCE if age < PATIENCE else min(age, 0.1)
        try:
            lead = batch.helm[0]
        except IndexError:
            return PATIENCE  # the leader is through with its tasks, and looks after the rest
        position = lead.position
        start = batch.starts[position]
        if start is None or batch.ends[position] is not None:
            return min(PATIENCE, patience)
        remaining = start + patience - now
        if remaining <= 0:
            self._depose(batch, lead, position)
            return PATIENCE
        return min(remaining, max(PATIENCE, age))

    def _depose(self, batch: _Batch, lead: _Hand, position: int) -> None:
        try:
            batch.helm.remove(lead)
        except ValueError:
            return  # it came back in this very moment
        self._write_off(batch, position)
        ticks = self._ticks
        assert ticks is not None
        hand = _Hand()
        batch.helm.append(hand)
        self._start_thread("leader", self._lead, ticks, batch, hand)

    # The end

    def _start_thread(
        self, role: str, target: Callable[..., None], *args: object
    ) -> threading.Thread:
        # Daemons, because a task that hangs must not keep the process from ending.
        thread = threading.Thread(
            target=target, args=args, name=f"run-task {self._name} {role}", daemon=True
        )
        with self._mutex:
            self._threads = [t for t in self._threads if t.is_alive()]
            thread.start()
            self._threads.append(thread)
        return thread

    def running(self) -> Sequence[str]:
        positions = {i for i, batch in self._hung.items() if batch.ends[i] is None}
        batch = self._batch
        if batch is not None:
            positions.update(i for i in batch.in_work() if batch.starts[i] is not None)
        return [self._names[i] for i in sorted(positions)]

    def abandon(self) -> None:
        self._patience = 0.0
        batch = self._batch
        if batch is not None and batch.progress is not None:
            batch.progress.ring()
        self._wake_watch()

    def close(self, timeout: float) -> None:
        self._closed = True
        self._watch_alarm.ring()
        for hand in tuple(self._helpers):
            hand.alarm.ring()
        deadline = time.monotonic() + timeout
        for thread in tuple(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
