"""Threads at work for one runner.

One thread has the lead: it drives the runner's loop, and runs the tasks of a tick itself, for cheap
ones cost less than waking somebody to run them. Helpers take their share of a tick whose tasks were
slow before, or that goes on for longer than expected. The watch looks after the leader: when a task
outlives its timeout there, a new thread takes the lead, and the old one ends when the task lets it.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

from run_task.executors._outcomes import Failure, Run, clock
from run_task.executors._protocol import Hanging, Ticks
from run_task.executors._states import declared
from run_task.executors.threads._helper_policy import SLOW, Help, HelperPolicy
from run_task.executors.threads._keyed_tick import PARTS, KeyedTick
from run_task.executors.threads._shared_tick import (
    Leader,
    Ownership,
    SharedTick,
    SharedWork,
    Worker,
)
from run_task.executors.threads._stand_in import SingleTicks, StandIn
from run_task.observe._log import Log
from run_task.sync._alarm import Alarm
from run_task.sync._fork import forget_after_fork
from run_task.sync._watch import Watch, watch
from run_task.tasks._dataset import DataSet, Roster
from run_task.tasks._keyed import AnyDataSet
from run_task.tasks._task import Runnable
from run_task.tasks._tick import Tick

_dataset_of: Final = DataSet.of  # bound once, and not at every tick

SOLO_LIMIT: Final = 0.005
"""How many seconds a tick may take with its leader alone before helpers are called in."""

_At: TypeAlias = tuple[SharedWork, int]
"""A tick, and the position of a job there."""

_LONGEST_GLANCE: Final = 0.08
"""After how many seconds, at most, a leader is looked at that is busy with one brief tick after
another. A look needs the GIL: the leader is switched away from, or, where its tasks let go of the
GIL, has to wake the watch each time until that gets it."""


class _Awake:
    """In the place of the watch, where it has nothing to look after."""

    asleep: Final = False

    def wake(self) -> None:
        """It is awake."""


class ThreadsCrew:
    """Drives a runner's loop, and runs the tasks of each tick in as few threads as will do.

    :param tasks: the tasks
    :param name: the runner's name
    :param task_timeout: how many seconds a task may run; None: forever
    :param workers: how many tasks may run at once
    :param keyed: whether each task is run once for each key
    """

    __slots__ = (
        "__weakref__",
        "_added",
        "_closed",
        "_declared",
        "_done",
        "_glance",
        "_helpers",
        "_hung",
        "_hung_elsewhere",
        "_is_watched",
        "_keyed",
        "_leader",
        "_limit",
        "_log",
        "_mutex",
        "_name",
        "_no_ends",
        "_no_values",
        "_notable",
        "_policy",
        "_refused",
        "_roster",
        "_runs",
        "_shared",
        "_single",
        "_stand_in",
        "_threads",
        "_timeout",
        "_watch",
        "_workers",
    )

    def __init__(
        self,
        tasks: Sequence[Runnable[Any, Any]],
        name: str,
        task_timeout: float | None,
        workers: int,
        *,
        keyed: bool = False,
    ) -> None:
        self._keyed = keyed
        self._declared: Sequence[Runnable[Any, Any]] = tuple(map(declared, tasks))
        self._roster = Roster(task.name for task in tasks)
        self._runs: Sequence[tuple[int, Run]] = [(i, task.run) for i, task in enumerate(tasks)]
        self._name = name
        self._log = Log(__name__, name)
        self._timeout = math.inf if task_timeout is None else task_timeout
        self._limit = self._timeout  # how long to wait for a task: not at all, once abandoned
        self._workers = workers
        self._policy = HelperPolicy(PARTS if keyed else len(tasks), workers)
        has_help = (keyed or len(tasks) > 1) and workers > 1
        # From how long on there is something to see about a tick that its leader ran alone.
        self._notable = min(SLOW if has_help else math.inf, self._timeout)
        # What every tick begins with.
        self._no_values: list[Any] = [None] * len(tasks)
        self._no_ends = [0.0] * len(tasks)
        # The watch has nothing to do for a task on its own that may take forever.
        self._is_watched = task_timeout is not None or has_help
        self._watch: Watch | _Awake = watch() if self._is_watched else _Awake()
        self._closed = False
        self.after_fork()
        forget_after_fork(self)

    def after_fork(self) -> None:
        """Begin without threads: a forked child has none of its parent's."""
        self._leader = self._new_leader(None)
        # The tick in hand, if it is more than its leader's.
        self._shared: SharedWork | None = None
        # What timed out and has not come back, with the tick that it is of and its position there.
        self._hung: dict[Any, _At] = {}
        # The same of tasks that are not among these any more.
        self._hung_elsewhere: list[Hanging] = []
        self._helpers: list[Worker] = []
        self._done = Alarm() if self._timeout < math.inf else None  # rung after a single tick
        self._single = SingleTicks(self._done)
        self._stand_in: StandIn | None = None
        self._threads: list[threading.Thread] = []
        self._glance = SOLO_LIMIT  # when to look again at a leader whose ticks were brief so far
        self._refused = False  # the system had no thread to give
        self._added = False  # to the watch
        self._mutex = threading.RLock()  # for the tick in hand, and starting threads

    def hanging(self) -> Sequence[Hanging]:
        found = self._hung_elsewhere.copy()
        hung = self._hung
        for job in list(hung):
            position: int
            position, key = job if self._keyed else (job, None)
            found.append((self._declared[position], key, hung[job]))
        return [one for one in found if one[2][0].is_running(one[2][1])]

    def succeed(self, hanging: Sequence[Hanging]) -> None:
        for task, key, at in hanging:
            position = next((i for i, own in enumerate(self._declared) if own is task), None)
            if position is None:
                self._hung_elsewhere.append((task, key, at))
            else:
                self._hung[(position, key) if self._keyed else position] = at

    def _new_leader(self, ticks: Ticks | SingleTicks | None) -> Leader:
        return Leader(ticks, self._no_values.copy(), self._no_ends.copy())

    # The lead

    def open(self) -> None:
        """Threads start when they are first needed."""

    def run(self, tick: Tick) -> AnyDataSet:
        """Run one tick. With a task_timeout, in a thread of the crew's: the caller is to come back
        also when a task hangs."""
        ticks, done = self._single, self._done
        ticks.tick = tick
        if done is None or not self._run_beside():
            self.drive(ticks)
        while (result := ticks.result) is None:
            if done is None:  # abandoned: another thread has taken it on
                time.sleep(SOLO_LIMIT)
            else:
                done.wait()
        ticks.result = None
        if isinstance(result, BaseException):
            raise result
        return result

    def _run_beside(self) -> bool:
        """Have a tick run in another thread, the same each time; False if none can be had."""
        stand_in = self._stand_in
        if stand_in is None:
            stand_in = StandIn(self._single, self.drive)
            if not self._start_thread("", stand_in.serve):
                return False
            self._stand_in = stand_in
        stand_in.alarm.ring()
        return True

    def drive(self, ticks: Ticks | SingleTicks) -> None:
        if self._is_watched and not self._added:
            self._be_watched()
        leader = self._leader
        leader.ticks = ticks
        try:
            self._lead(leader, None)
        except StopIteration:
            return
        except BaseException as error:
            self._break(error, leader)

    def _break(self, error: BaseException, leader: Leader) -> None:
        """End the loop with an error that is no task's: better than to leave it hanging."""
        with self._mutex:
            if self._leader is not leader:
                return  # it has been replaced, and the loop goes on without it
            self._leader = self._new_leader(None)
            self._shared = None
        assert leader.ticks is not None
        with contextlib.suppress(StopIteration):
            leader.ticks.throw(error)

    def _lead(self, leader: Leader, dataset: AnyDataSet | None) -> None:
        """Run tick after tick, for as long as this thread has the lead.

        Every cheap tick pays for what is done here: so what they have in common is looked up once,
        and a :class:`SharedTick` is only made once it is needed.

        :param leader: this thread
        :param dataset: what came of the tick before
        """
        ticks, policy, watching = leader.ticks, self._policy, self._watch
        assert ticks is not None
        runs, roster, no_values, no_ends = self._runs, self._roster, self._no_values, self._no_ends
        read_clock, pack, notable_from = clock, roster.pack, self._notable
        # Lists that every tick writes to in turn, for its DataSet has copies. An end from before a
        # tick began is of an earlier one.
        values, ends = leader.values, leader.ends
        together = self._together()
        parts = next(ticks) if dataset is None else ticks.send(dataset)
        while parts is not None:
            if together:
                dataset = self._run_together(Tick.of(parts), leader)
                if dataset is None:
                    return
                together = self._together()
                del parts
                parts = ticks.send(dataset)
                continue
            view, due, behind = parts
            begin, until, _ = due
            leader.claims = claims = iter(runs)
            ownership: Ownership = [leader]
            leader.ownership = ownership
            notable = False  # whether there is more to say than results and times
            leader.begun = begun = read_clock()
            if begun <= ends[-1]:
                # The clock is so coarse that they cannot be told apart.
                leader.ends = ends = no_ends.copy()
            leader.parts = parts
            if watching.asleep:
                watching.wake()
            for position, run in claims:
                try:
                    values[position] = run(view, begin, until)
                except BaseException as raised:
                    values[position] = Failure(raised)
                    notable = True
                ends[position] = read_clock()
            try:
                ownership.remove(leader)
            except ValueError:
                taken = ownership[0]  # what it was shared as
                assert isinstance(taken, SharedWork)
                taken.progress.ring()
                return
            took = ends[-1] - begun
            if took <= notable_from:
                policy.slow = False
            elif took > self._timeout or policy.is_worth_a_look():
                notable = True
            if ownership or notable:
                shared = ownership[0] if ownership else leader.share(roster)
                assert isinstance(shared, SharedWork)
                dataset = self._complete(shared)
                together = self._together()
                # Who hangs may yet write to those that it was given.
                leader.values, leader.ends = values, ends = no_values.copy(), no_ends.copy()
            else:
                dataset = _dataset_of(due, behind, roster, tuple(values), begun, pack(*ends), took)
            # While it waits for the next tick, it must not keep this one's data alive.
            leader.parts = None
            del parts, view
            parts = ticks.send(dataset)

    def _together(self) -> bool:
        """Whether the next tick is for more than its leader: as has been learned of those before.

        It changes only where a shared tick was looked at.
        """
        return self._keyed or self._policy.wanted or bool(self._hung)

    def _run_together(self, tick: Tick, leader: Leader) -> AnyDataSet | None:
        """Run a tick with helpers, around what hangs, or by key; None if the lead was lost."""
        self._hung = {job: at for job, at in self._hung.items() if at[0].is_running(at[1])}
        shared = self._shared_of(tick, leader)
        self._shared = shared
        if self._watch.asleep:
            self._watch.wake()
        if self._policy.wanted:
            shared.helped = Help.FULL
            self._call_helpers()
        shared.work(leader)
        return self._finish(shared, leader)

    def _shared_of(self, tick: Tick, leader: Leader) -> SharedWork:
        """A tick for more than its leader."""
        hung = {job: of.tick.window for job, (of, _) in self._hung.items()}
        if self._keyed:
            runs = [run for _, run in self._runs]
            return KeyedTick(tick, leader, runs, self._roster, hung, self._timeout)
        order = [i for i in self._policy.order if i not in hung]
        claims = iter([self._runs[i] for i in order])
        values, ends = self._no_values.copy(), self._no_ends.copy()
        shared = SharedTick(tick, [leader], self._roster, claims, order, values, ends, clock())
        shared.overdue = {i: hung[i] for i in range(len(values)) if i in hung}
        return shared

    def _finish(self, shared: SharedWork, leader: Leader) -> AnyDataSet | None:
        """Complete a shared tick; None if it is another's by now, as is the lead."""
        try:
            shared.ownership.remove(leader)
        except ValueError:
            shared.progress.ring()
            return None
        return self._complete(shared)

    def _complete(self, shared: SharedWork) -> AnyDataSet:
        """Wait for who else is at work, see what there is to learn, and put the results together.

        All tasks are taken: the leader found none left.
        """
        took = self._wait_for_helpers(shared) - shared.begun
        with self._mutex:  # the watch may be making it the tick in hand right now
            self._shared = self._leader.parts = None
        self._policy.learn(shared.costs(), took, shared.helped)
        dataset = shared.dataset(took, self._timeout)
        # Helpers, and tasks that hang, keep the shared tick, but not the data.
        tick = shared.tick
        shared.tick = Tick.of((None, tick.due, tick.behind))
        return dataset

    def _wait_for_helpers(self, shared: SharedWork) -> float:
        """Wait until every task is back or overdue. Returns the time."""
        while waiting := shared.at_work():
            now = clock()
            remaining = min(since for _, since in waiting) + self._limit - now
            if remaining > 0:
                shared.progress.wait(remaining)
                continue
            for position, since in waiting:
                if position < 0:
                    shared.progress.wait(SOLO_LIMIT)
                elif now - since >= self._limit:
                    self._time_out(shared, position)
        return clock()

    def _time_out(self, shared: SharedWork, position: int) -> None:
        """Wait no longer for a task, nor for the thread that is in it."""
        if self._limit == self._timeout:
            reason = f"it did not return within task_timeout={self._timeout:g} s"
        else:
            reason = "it was still running when the runner was shut down"
        shared.overdue = {**shared.overdue, position: reason}
        self._hung[shared.job(position)] = shared, position
        for helper in tuple(self._helpers):
            if helper.shared is shared and helper.position == position:
                helper.abandoned = True
                self._helpers.remove(helper)

    # Helpers

    def _call_helpers(self) -> None:
        with self._mutex:  # the leader and the watch may both find that it is time
            while len(self._helpers) < self._workers - 1:
                helper = Worker()
                if not self._start_thread(f"helper {len(self._helpers) + 1}", self._help, helper):
                    break  # those that there are will do
                self._helpers.append(helper)
            for helper in self._helpers:
                helper.alarm.ring()

    def _help(self, helper: Worker) -> None:
        while not helper.abandoned:
            helper.alarm.wait()
            if self._closed:
                return
            shared = self._shared
            if shared is not None:  # else it is too late: the leader is done
                shared.work(helper)
                del shared

    # The watch

    def _be_watched(self) -> None:
        """Have the watch look after this, once; not any more after the end, for who gives up the
        tasks may come just after that."""
        with self._mutex:
            if not (self._added or self._closed):
                self._added = True
                watch().add(self)

    def look(self) -> float | None:
        """Do what the tick in hand needs: helpers, or another leader.

        :return: in how many seconds to look again; None: there is none
        """
        shared, leader = self._shared, self._leader
        if shared is None:
            if leader.parts is None:
                self._glance = SOLO_LIMIT
                return None
            age = clock() - leader.begun
            if age < min(SOLO_LIMIT, self._limit):
                self._glance = min(2 * self._glance, _LONGEST_GLANCE)
                # What begins from now on is overdue no sooner than what is in hand.
                return min(self._glance, self._limit - age)
            shared = self._share(leader)
        self._glance = SOLO_LIMIT
        return SOLO_LIMIT if shared is None else self._look_after(shared)

    def _share(self, leader: Leader) -> SharedWork | None:
        """Share a tick that goes on for longer than expected; None if it is over."""
        with self._mutex:
            shared = leader.share(self._roster)
            if shared is None or shared.is_over:
                return None
            self._shared = shared
        self._help_late(shared)
        return shared

    def _help_late(self, shared: SharedWork) -> None:
        """Call helpers to a tick that goes on for longer than expected."""
        if self._workers > 1:
            shared.helped = Help.LATE
            self._call_helpers()

    def _look_after(self, shared: SharedWork) -> float:
        """See whether the leader is held up. Returns when to look again, in seconds."""
        now = clock()
        age = now - shared.begun
        if self._keyed and shared.helped is Help.NONE and age >= SOLO_LIMIT:
            self._help_late(shared)
        if self._limit == math.inf:
            return min(max(SOLO_LIMIT, age), 0.1)
        leader = shared.leader
        if leader is None:
            return SOLO_LIMIT  # the leader is done with its tasks, and waits for the others
        taken = shared.in_hand(leader)
        if taken is None:
            return min(SOLO_LIMIT, self._limit)
        position, since = taken
        remaining = since + self._limit - now
        if remaining > 0:
            return min(remaining, max(SOLO_LIMIT, age))
        if not shared.succession:
            # If there is no thread to be had, the leader keeps the lead, and it is tried again.
            shared.succession = self._start_thread(
                "leader", self._succeed, shared, leader, position
            )
        return SOLO_LIMIT

    def _succeed(self, shared: SharedWork, leader: Leader, position: int) -> None:
        """Take the lead from a thread that a task hangs in, and go on with its tick."""
        with self._mutex:
            shared.succession = False
            if self._leader is not leader:
                return  # it broke down
            try:
                shared.ownership.remove(leader)
            except ValueError:
                return  # it came back in this very moment
            self._leader = successor = self._new_leader(leader.ticks)
            if self._stand_in is not None:
                self._stand_in.dismissed = True  # once the task lets it
                self._stand_in = None
        self._time_out(shared, position)
        shared.ownership.append(successor)
        try:
            shared.work(successor)
            dataset = self._finish(shared, successor)
            if dataset is not None:
                del shared
                self._lead(successor, dataset)
        except StopIteration:
            return
        except BaseException as error:
            self._break(error, successor)

    # The end

    def _start_thread(self, role: str, target: Callable[..., None], *args: object) -> bool:
        """Start a thread of the crew's. Returns whether the system had one to give."""
        # A daemon, because a task that hangs must not keep the process from ending.
        name = f"run-task {self._name} {role}".rstrip()
        thread = threading.Thread(target=target, args=args, name=name, daemon=True)
        with self._mutex:
            self._threads = [t for t in self._threads if t.is_alive()]
            try:
                thread.start()
            except (RuntimeError, MemoryError) as error:
                if not self._refused:
                    self._log.error(
                        "%s: no thread could be started, and it goes on with those that it has: %s",
                        self._name,
                        error,
                    )
                self._refused = True
                return False
            self._refused = False
            self._threads.append(thread)
        return True

    def running(self) -> Sequence[str]:
        hung = [(i, of) for of, i in list(self._hung.values()) if of.is_running(i)]
        shared, leader = self._shared, self._leader
        found = [of.label(i) for i, of in sorted(hung, key=itemgetter(0))]
        if shared is not None:
            found += [shared.label(i) for i, _ in sorted(shared.at_work()) if i >= 0]
        elif leader.parts is not None:
            ends, begun = leader.ends, leader.begun
            found += [
                self._roster.names[i]
                for i, end in enumerate(ends)
                if end < begun and (not i or ends[i - 1] >= begun)
            ]
        return list(dict.fromkeys(found))

    def abandon(self) -> None:
        self._limit = 0.0
        shared = self._shared
        if shared is not None:
            shared.progress.ring()
        self._be_watched()
        watch().wake()

    def close(self, timeout: float) -> None:
        with self._mutex:
            self._closed = True
            watch().remove(self)
        for helper in tuple(self._helpers):
            helper.alarm.ring()
        if self._stand_in is not None:
            self._stand_in.dismissed = True
            self._stand_in.alarm.ring()
        deadline = time.monotonic() + timeout
        # A thread that is not the crew's has other things to do once a task has let it.
        for shared, position in list(self._hung.values()):
            while shared.is_running(position):
                if not shared.progress.wait(deadline - time.monotonic()):
                    break
        for thread in tuple(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        watch().settle()
