"""Tasks on the cores of this machine, in threads.

One thread has the lead: it drives the runner's loop, and runs the tasks of a tick itself, for
cheap ones cost less than waking somebody to run them. Helpers take their share of a tick whose
tasks were dear before, or that goes on for longer than expected. The watch looks after the
leader: when a task outlives its timeout in the leader's hands, the watch gives the lead to a new
thread, and the old one goes when the task lets it.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from run_task.alarm import Alarm
from run_task.errors import TaskError, TaskTimeout
from run_task.executors.batch import Batch, Hand, Raised, Run, clock
from run_task.executors.protocol import Crew, Tick, Ticks, failed
from run_task.interval import Window
from run_task.task import Runnable

PATIENCE: Final = 0.005
"""How many seconds a tick goes on in the leader's hands alone before helpers are called in."""

WORTH_HELP: Final = 0.0003
"""How many seconds helpers must be expected to save before a tick begins with them: several
times what it costs to wake them."""

DEAR: Final = 0.0005
"""From how many seconds on a tick's tasks are looked at one by one, to see what helpers save."""


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
        self._runs: Sequence[tuple[int, Run]] = [(i, task.run) for i, task in enumerate(tasks)]
        self._name = name
        self._timeout = task_timeout
        self._patience = task_timeout  # how long to wait for a task: not at all, once abandoned
        self._workers = workers
        self._ticks: Ticks | None = None
        self._batch: Batch | None = None
        # Tasks that timed out and have not come back: where the end will be noted, and the window.
        self._hung: dict[int, tuple[array[float], Window]] = {}
        # What earlier ticks told: the order to take the tasks in, and whether to call for help.
        self._sorted = self._runs
        self._order: Sequence[int] = range(len(tasks))
        self._dear = False
        self._slow = False  # whether the last tick was
        self._no_ends = array("d", bytes(8 * len(tasks)))
        # Whether the watch has to be woken. It has nothing to do for a task on its own.
        self._asleep = task_timeout is not None or (len(tasks) > 1 and workers > 1)
        self._watch_alarm = Alarm()
        self._watch_thread: threading.Thread | None = None
        self._helpers: list[Hand] = []
        self._threads: list[threading.Thread] = []
        self._mutex = threading.RLock()  # for the list of threads, and for starting one
        self._closed = False

    # The lead

    def drive(self, ticks: Ticks) -> None:
        self._ticks = ticks
        with self._mutex:
            self._threads.append(threading.current_thread())
        tick = next(ticks, None)
        if tick is not None:
            hand = Hand()
            self._lead(self._begin(tick, hand), hand)

    def _lead(self, batch: Batch, hand: Hand) -> None:
        assert self._ticks is not None
        send = self._ticks.send
        while self._finish(batch, hand, batch.work()):
            try:
                tick = send(batch)
            except StopIteration:
                return
            batch = self._begin(tick, hand)

    def _take_over(self, batch: Batch, hand: Hand) -> None:
        """Lead on in the place of a leader that a task hangs in."""
        batch.work_beside(hand)
        self._lead(batch, hand)

    def _begin(self, tick: Tick, hand: Hand) -> Batch:
        claims = iter(self._sorted if not self._hung else self._without_hung())
        self._batch = batch = Batch(self._names, self._order, claims, self._no_ends, tick, hand)
        if self._hung:
            batch.overdue = {
                position: f"it is still running from the window [{start}, {end})"
                for position, (_, (start, end)) in self._hung.items()
            }
        if self._asleep:
            self._wake_watch()
        if self._dear:
            self._call_helpers(batch)
        return batch

    def _without_hung(self) -> Sequence[tuple[int, Run]]:
        self._hung = {i: hung for i, hung in self._hung.items() if not hung[0][i]}
        return [run for run in self._sorted if run[0] not in self._hung]

    def _finish(self, batch: Batch, hand: Hand, ended: float) -> bool:
        """Complete the batch; False if it is another's by now, as is the lead."""
        try:
            batch.helm.remove(hand)
        except ValueError:
            if batch.progress is not None:
                batch.progress.ring()
            return False
        if batch.starts is not None:
            ended = self._wait_for_helpers(batch)
        self._batch = None
        batch.view = None  # whoever keeps the results does not keep the data
        batch.took = took = ended - batch.begun
        slow = took > DEAR or batch.starts is not None
        if slow and self._slow:
            # The second in a row: one alone may have lost the processor to another thread.
            self._learn(batch)
        elif not slow:
            self._dear = False
        self._slow = slow
        if batch.faulty or batch.overdue or (self._timeout is not None and took > self._timeout):
            self._note_errors(batch)
        return True

    def _wait_for_helpers(self, batch: Batch) -> float:
        """Wait until every task is back or overdue. All are taken: the leader found none left."""
        while True:
            now = clock()
            waiting = batch.at_work()
            if not waiting:
                return now
            remaining = None
            if self._patience is not None:
                remaining = min(since for _, since in waiting) + self._patience - now
                if remaining <= 0:
                    for position, since in waiting:
                        if now - since >= self._patience:
                            self._write_off(batch, position)
                    continue
            assert batch.progress is not None
            batch.progress.wait(remaining)

    def _note_errors(self, batch: Batch) -> None:
        # A task that hangs may yet write to the lists it was given: the results do not change.
        batch.ends = batch.ends[:]
        batch.values = list(batch.values)
        timeout = self._timeout
        seconds = batch.seconds() if timeout is not None else {}
        overdue = batch.overdue or {}
        errors: dict[str, TaskError] = {}
        for position, name in enumerate(self._names):
            value = batch.values[position]
            if position in overdue:
                errors[name] = TaskTimeout(name, batch.window, overdue[position])
            elif timeout is not None and (took := seconds.get(position, 0.0)) > timeout:
                reason = f"it ran for {took:.3g} s, task_timeout is {timeout:g} s"
                errors[name] = TaskTimeout(name, batch.window, reason)
            elif type(value) is Raised:
                errors[name] = failed(name, batch.window, value.exception)
        batch.errors = errors

    def _learn(self, batch: Batch) -> None:
        """See from a tick that took long what helpers would save, and which tasks to begin with."""
        costs = batch.seconds()
        alone = sum(costs.values())
        together = max(*costs.values(), alone / self._workers, 0.0)
        self._dear = self._workers > 1 and alone - together > WORTH_HELP
        # The dearest first: begun last, it would run on when all the others are through.
        self._order = sorted(range(len(self._runs)), key=lambda i: costs.get(i, 0.0), reverse=True)
        self._sorted = [self._runs[position] for position in self._order]

    # Helpers

    def _call_helpers(self, batch: Batch) -> None:
        with self._mutex:  # the leader and the watch may both find that it is time
            if batch.progress is None:
                batch.share()
            while len(self._helpers) < self._workers - 1:
                hand = Hand()
                self._helpers.append(hand)
                self._start_thread(f"helper {len(self._helpers)}", self._help, hand)
            for hand in self._helpers:
                hand.alarm.ring()

    def _help(self, hand: Hand) -> None:
        while not hand.written_off:
            hand.alarm.wait()
            if self._closed:
                return
            batch = self._batch
            if batch is None or batch.progress is None:
                continue  # too late: the leader is through
            batch.work_beside(hand)
            batch.progress.ring()

    def _write_off(self, batch: Batch, position: int) -> None:
        """Wait no longer for a task, nor for the thread that is in it."""
        if self._patience == self._timeout:
            reason = f"it did not return within task_timeout={self._timeout:g} s"
        else:
            reason = "it was still running when the runner was shut down"
        batch.overdue = {**(batch.overdue or {}), position: reason}
        self._hung[position] = batch.ends, batch.window
        for hand in tuple(self._helpers):
            if hand.batch is batch and hand.position == position:
                hand.written_off = True
                self._helpers.remove(hand)

    # The watch

    def _wake_watch(self) -> None:
        self._asleep = False
        with self._mutex:  # the leader may wake it, and who shuts the runner down
            if self._watch_thread is None:
                self._watch_thread = self._start_thread("watch", self._watch)
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

    def _look_after(self, batch: Batch) -> float:
        """Do what the batch needs. Returns when to look again, in seconds."""
        now = clock()
        age = now - batch.begun
        if age >= PATIENCE and batch.starts is None and self._workers > 1:
            self._call_helpers(batch)
        patience = self._patience
        if patience is None:
            return PATIENCE if age < PATIENCE else min(age, 0.1)
        try:
            lead = batch.helm[0]
        except IndexError:
            return PATIENCE  # the leader is through with its tasks, and looks after the rest
        taken = batch.at_work()
        if lead.batch is batch:
            taken = [task for task in taken if task[0] == lead.position]
        elif batch.starts is not None:
            taken = [task for task in taken if task[0] not in batch.starts]
        if not taken:
            return min(PATIENCE, patience)
        # Tasks are taken in order: the first that is not a helper's is the one in its hands.
        position, since = taken[0]
        remaining = since + patience - now
        if remaining <= 0:
            self._depose(batch, lead, position)
            return PATIENCE
        return min(remaining, max(PATIENCE, age))

    def _depose(self, batch: Batch, lead: Hand, position: int) -> None:
        try:
            batch.helm.remove(lead)
        except ValueError:
            return  # it came back in this very moment
        with self._mutex:
            if batch.progress is None:
                batch.share()  # the new leader works beside the old one, should that come back
        self._write_off(batch, position)
        hand = Hand()
        batch.helm.append(hand)
        self._start_thread("leader", self._take_over, batch, hand)

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
        positions = {i for i, (ends, _) in tuple(self._hung.items()) if not ends[i]}
        batch = self._batch
        if batch is not None:
            positions.update(position for position, _ in batch.at_work())
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
