"""Tasks on the cores of this machine, in threads.

One thread has the lead: it drives the runner's loop, and runs the tasks of a tick itself, for
cheap ones cost less than waking somebody to run them. Helpers take their share of a tick whose
tasks were dear before, or that goes on for longer than expected. The watch looks after the
leader: when a task outlives its timeout in the leader's hands, the watch gives the lead to a new
thread, and the old one goes when the task lets it.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from run_task.data._protocol import Shared
from run_task.executors._protocol import Crew, Tick, Ticks
from run_task.executors.threads._batch import Alone, Batch, Hand, Helm, Raised, Run, clock
from run_task.executors.threads._helper_policy import DEAR, Experience, Help
from run_task.sync._alarm import Alarm
from run_task.tasks._dataset import DataSet, Roster
from run_task.tasks._task import Runnable

_dataset_of: Final = DataSet.of  # bound once, and not at every tick

PATIENCE: Final = 0.005
"""How many seconds a tick goes on in the leader's hands alone before helpers are called in."""


class ThreadsExecutor:
    """Runs a tick's tasks in threads, as few as will do: the default.

    Cheap tasks run one after another in the runner's own thread, and dear ones on every core. Which
    they are is measured as they run. A task that outlives ``task_timeout`` goes on in a thread
    that is left to it; the tick and the runner go on without it, and it is not started again
    before it returns.
    """

    def check(self, tasks: Iterable[Runnable[Any, Any]]) -> None:
        """Any task will do."""

    def start(
        self,
        tasks: Iterable[Runnable[Any, Any]],
        *,
        data: Shared[Any],
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
        self._roster = Roster(task.name for task in tasks)
        self._runs: Sequence[tuple[int, Run]] = [(i, task.run) for i, task in enumerate(tasks)]
        self._name = name
        self._timeout = math.inf if task_timeout is None else task_timeout
        self._patience = self._timeout  # how long to wait for a task: not at all, once abandoned
        self._workers = workers
        self._ticks: Ticks | None = None
        self._leader: Hand | None = None
        # The tick in hand: as its leader has it alone, and as a batch once there is more to it.
        self._alone: Alone | None = None
        self._batch: Batch | None = None
        self._hung: dict[int, Batch] = {}  # tasks that timed out and have not come back
        self._experience = Experience(len(tasks), workers)
        # From how long on there is something to see about a tick that was run alone.
        self._notable = min(DEAR if len(tasks) > 1 and workers > 1 else math.inf, self._timeout)
        # What every tick begins with.
        self._no_values: list[Any] = [None] * len(tasks)
        self._no_ends = [0.0] * len(tasks)
        # Whether the watch has to be woken. It has nothing to do for a task on its own.
        self._asleep = task_timeout is not None or (len(tasks) > 1 and workers > 1)
        self._watch_alarm = Alarm()
        self._watch_thread: threading.Thread | None = None
        self._helpers: list[Hand] = []
        self._threads: list[threading.Thread] = []
        self._mutex = threading.RLock()  # for the batch, the list of threads, and starting one
        self._closed = False

    # The lead

    def drive(self, ticks: Ticks) -> None:
        self._ticks = ticks
        thread = threading.current_thread()
        with self._mutex:
            self._threads.append(thread)
        self._leader = hand = Hand()
        try:
            self._lead(None, hand)
        finally:
            with self._mutex:  # it may go on with something else, or drive again
                self._threads.remove(thread)

    def _lead(self, batch: Batch | None, hand: Hand) -> None:
        """Drive the loop from its beginning, or on from a batch whose leader a task hangs in."""
        try:
            if batch is None:
                self._run(None, hand)
            else:
                batch.work(hand)
                dataset = self._finish(batch, hand)
                if dataset is not None:
                    self._run(dataset, hand)
        except StopIteration:
            return
        except BaseException as error:
            self._break(error, hand)

    def _break(self, error: BaseException, hand: Hand) -> None:
        """End the loop with an error that is no task's: better than to leave it hanging."""
        assert self._ticks is not None
        with self._mutex:
            if self._leader is not hand:
                return  # it has been given up, and the loop goes on without it
            self._leader = self._batch = self._alone = None
        with contextlib.suppress(StopIteration):
            self._ticks.throw(error)

    def _run(self, dataset: DataSet[Any] | None, hand: Hand) -> None:
        """Run tick after tick, for as long as this thread has the lead.

        Every cheap tick pays for what is done here: so what they have in common is looked up once,
        and a batch is only made once it is needed.

        :param dataset: what came of the tick before
        """
        ticks, experience = self._ticks, self._experience
        assert ticks is not None
        runs, roster, no_values, no_ends = self._runs, self._roster, self._no_values, self._no_ends
        read_clock, pack, notable_from = clock, roster.pack, self._notable
        # Lists that every tick writes to in turn, for its DataSet has copies. An end from before a
        # tick began is of an earlier one.
        values, ends = no_values.copy(), no_ends.copy()
        together = self._together()
        while True:
            tick = next(ticks) if dataset is None else ticks.send(dataset)
            if together:
                dataset = self._run_batch(tick, hand)
                if dataset is None:
                    return
                together = self._together()
                del tick
                continue
            view, due = tick
            begin, until, _ = due
            claims = iter(runs)
            helm: Helm = [hand]
            notable = False  # whether there is more to say than results and times
            begun = read_clock()
            if begun <= ends[-1]:
                ends = no_ends.copy()  # the clock is so coarse that they cannot be told apart
            self._alone = alone = helm, tick, claims, values, ends, begun
            if self._asleep:
                self._wake_watch()
            for position, run in claims:
                try:
                    values[position] = run(view, begin, until)
                except BaseException as raised:
                    values[position] = Raised(raised)
                    notable = True
                ends[position] = read_clock()
            try:
                helm.remove(hand)
            except ValueError:
                assert isinstance(helm[0], Batch)  # it was made to take the lead away
                helm[0].progress.ring()
                return
            took = ends[-1] - begun
            if took <= notable_from:
                experience.slow = False
            elif took > self._timeout or experience.is_news():
                notable = True
            if helm or notable:
                batch = helm[0] if helm else Batch.of(alone)
                assert isinstance(batch, Batch)
                dataset = self._settle(batch)
                together = self._together()
                values, ends = no_values.copy(), no_ends.copy()  # who hangs may yet write to those
            else:
                dataset = _dataset_of(due, roster, tuple(values), begun, pack(*ends), took)
            # Whoever waits for the next tick does not keep this one's data.
            self._alone = None
            del alone, tick, view

    def _together(self) -> bool:
        """Whether the next tick is for more than its leader: as has been learned of those before.

        It changes only where a batch was looked at.
        """
        return self._experience.dear or bool(self._hung)

    def _run_batch(self, tick: Tick, hand: Hand) -> DataSet[Any] | None:
        """Run a tick with helpers, or around tasks that hang; None if the lead was lost."""
        self._hung = {i: batch for i, batch in self._hung.items() if batch.is_running(i)}
        order = [i for i in self._experience.order if i not in self._hung]
        claims = iter([self._runs[i] for i in order])
        ends = self._no_ends.copy()
        batch = Batch(tick, [hand], claims, order, self._no_values.copy(), ends, clock())
        batch.overdue = {
            position: f"it is still running from the window [{start}, {end})"
            for position, (start, end) in ((i, hung.window) for i, hung in self._hung.items())
        }
        self._batch = batch
        if self._asleep:
            self._wake_watch()
        if self._experience.dear:
            batch.help = Help.FULL
            self._call_helpers()
        batch.work(hand)
        return self._finish(batch, hand)

    def _finish(self, batch: Batch, hand: Hand) -> DataSet[Any] | None:
        """Complete the batch; None if it is another's by now, as is the lead."""
        try:
            batch.helm.remove(hand)
        except ValueError:
            batch.progress.ring()
            return None
        return self._settle(batch)

    def _settle(self, batch: Batch) -> DataSet[Any]:
        """Wait for who else is at work, see what there is to learn, and put the results together.

        All tasks are taken: the leader found none left.
        """
        took = self._wait_for_helpers(batch) - batch.begun
        with self._mutex:  # the watch may be making it the batch in hand right now
            self._batch = self._alone = None
        self._experience.learn(batch.seconds(), took, batch.help)
        dataset = batch.dataset(self._roster, took, self._timeout)
        batch.tick = None, batch.tick[1]  # helpers keep the batch, but not the data
        return dataset

    def _wait_for_helpers(self, batch: Batch) -> float:
        """Wait until every task is back or overdue. Returns the time."""
        while waiting := batch.at_work():
            now = clock()
            remaining = min(since for _, since in waiting) + self._patience - now
            if remaining > 0:
                batch.progress.wait(remaining)
                continue
            for position, since in waiting:
                if now - since >= self._patience:
                    self._write_off(batch, position)
        return clock()

    # Helpers

    def _call_helpers(self) -> None:
        with self._mutex:  # the leader and the watch may both find that it is time
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
            if batch is not None:  # else it is too late: the leader is through
                batch.work(hand)

    def _write_off(self, batch: Batch, position: int) -> None:
        """Wait no longer for a task, nor for the thread that is in it."""
        if self._patience == self._timeout:
            reason = f"it did not return within task_timeout={self._timeout:g} s"
        else:
            reason = "it was still running when the runner was shut down"
        batch.overdue = {**batch.overdue, position: reason}
        self._hung[position] = batch
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
        """Look after the tick in hand every few milliseconds, and sleep when there are none.

        It sleeps once it has found none twice: one tick may follow on another, and to be woken for
        each costs more than a cheap one.
        """
        pause: float | None = PATIENCE
        idle = False
        while True:
            self._watch_alarm.wait(pause)
            if self._closed:
                return
            if self._has_tick():
                self._asleep = idle = False
                pause = self._look_after_tick()
            elif not idle:
                idle = True
                pause = min(PATIENCE, self._patience)
            else:
                # The leader sets the tick and then looks whether the watch sleeps; the watch
                # does it the other way round. So one of the two sees the other.
                self._asleep = True
                idle = False
                pause = PATIENCE if self._has_tick() else None

    def _has_tick(self) -> bool:
        return self._alone is not None or self._batch is not None

    def _look_after_tick(self) -> float:
        """Do what the tick needs. Returns when to look again, in seconds."""
        batch, alone = self._batch, self._alone
        if batch is None and alone is not None:
            remaining = alone[-1] + min(PATIENCE, self._patience) - clock()
            if remaining > 0:
                return remaining
            batch = self._share(alone)
        return PATIENCE if batch is None else self._look_after(batch)

    def _share(self, alone: Alone) -> Batch | None:
        """Make a batch of a tick that goes on for longer than expected; None if it is over."""
        with self._mutex:
            batch = Batch.of(alone)
            if batch.helm[0] is batch:
                return None  # its leader was through before
            self._batch = batch
        if self._workers > 1:
            batch.help = Help.LATE
            self._call_helpers()
        return batch

    def _look_after(self, batch: Batch) -> float:
        """See whether the leader is held up. Returns when to look again, in seconds."""
        now = clock()
        age = now - batch.begun
        if self._patience == math.inf:
            return min(max(PATIENCE, age), 0.1)
        lead = next((hand for hand in tuple(batch.helm) if isinstance(hand, Hand)), None)
        if lead is None:
            return PATIENCE  # the leader is through with its tasks, and looks after the rest
        taken = batch.at_work()
        if lead.batch is batch:
            taken = [task for task in taken if task[0] == lead.position]
        else:
            taken = [task for task in taken if task[0] not in batch.starts]
        if not taken:
            return min(PATIENCE, self._patience)
        # Tasks are taken in order: the first that is not a helper's is the one in its hands.
        position, since = taken[0]
        remaining = since + self._patience - now
        if remaining <= 0:
            self._depose(batch, lead, position)
            return PATIENCE
        return min(remaining, max(PATIENCE, age))

    def _depose(self, batch: Batch, lead: Hand, position: int) -> None:
        with self._mutex:
            if self._leader is not lead:
                return  # it broke down
            try:
                batch.helm.remove(lead)
            except ValueError:
                return  # it came back in this very moment
            self._leader = hand = Hand()
        self._write_off(batch, position)
        batch.helm.append(hand)
        self._start_thread("leader", self._lead, batch, hand)

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
        positions = {i for i, batch in tuple(self._hung.items()) if batch.is_running(i)}
        batch, alone = self._batch, self._alone
        if batch is not None:
            positions.update(position for position, _ in batch.at_work())
        elif alone is not None:
            ends, begun = alone[4:]
            positions.update(
                i for i, end in enumerate(ends) if end < begun and (not i or ends[i - 1] >= begun)
            )
        return [self._roster.names[i] for i in sorted(positions)]

    def abandon(self) -> None:
        self._patience = 0.0
        batch = self._batch
        if batch is not None:
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
