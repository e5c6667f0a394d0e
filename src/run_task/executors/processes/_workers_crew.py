"""What all crews of worker processes have in common: how workers start, are watched, and end."""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import socket
import subprocess
import time
import weakref
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from run_task._window import Window
from run_task.data._protocol import Shared
from run_task.errors import TaskError, TaskLost, TaskTimeout
from run_task.executors.processes._messages import Setup
from run_task.executors.processes._packed_view import PackedView
from run_task.executors.processes._process import WorkerProcess
from run_task.executors.processes._starter import STARTER
from run_task.executors.processes._task_states import NO_STATES, SentStates
from run_task.executors.processes._wire import pack, pickled
from run_task.observe._log import Log
from run_task.sync._fork import forget_after_fork
from run_task.tasks._dataset import Roster
from run_task.tasks._task import Runnable

_MAX_DEATHS: Final = 3
"""How many workers may die of loading a task before it is given up; and, beyond one each, how many
may die in a tick of what is no task's fault before the tick is given up."""

_POLL: Final = 1.0
"""How many seconds to wait for a message of a worker, or for its socket to close, before the system
is asked whether it has died: a process that it forked may keep the socket open."""

W = TypeVar("W")
"""What a worker is at."""
W_contra = TypeVar("W_contra", contravariant=True)
R = TypeVar("R")
"""What a worker reports."""


class TickAtWork(Protocol[W_contra]):
    """A tick that workers run, as who looks after them sees it.

    A worker is at some *work* of it, of which it runs one job after another. The jobs have numbers,
    *positions*, by which the worker tells what it is at.
    """

    deaths: int
    """Of workers, that no task is to blame for."""

    @property
    def window(self) -> Window:
        """The window that the tasks are run for."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether every job has an outcome."""
        ...

    def is_open(self, work: W_contra, position: int, /) -> bool:
        """Whether a job has no outcome yet."""
        ...

    def job(self, work: W_contra, position: int, /) -> tuple[str, Any]:
        """Of which task a job is, and of which key, or None."""
        ...

    def blame(self, work: W_contra, position: int, kind: type[TaskError], reason: str, /) -> None:
        """A job has no result."""
        ...

    def put_back(self, work: W_contra, /) -> None:
        """What of some work has no outcome is to be given to another worker."""
        ...

    def part(self, work: W_contra, position: int, /) -> bool:
        """As put_back(), but the jobs up to this one each on its own, since one of them did what
        shows only when it is reported. Returns whether there is more than one; if not, nothing was
        done."""
        ...

    def unfinished(self) -> Sequence[str]:
        """The names of the tasks that have no outcome for all that they are run for."""
        ...

    def exclude(self, task: int, reason: str, /) -> None:
        """A task is loaded no more."""
        ...

    def fail_all(
        self, kind: type[TaskError], reason: str, cause: BaseException | None = None, /
    ) -> None:
        """All that has no outcome yet has this one."""
        ...


T = TypeVar("T", bound=TickAtWork[Any])


class Errand(NamedTuple, Generic[W]):
    """What a worker is to do next."""

    work: W
    """Of the tick."""

    told: Any
    """How it is told."""

    states: SentStates = NO_STATES
    """The states that go with it."""


class WorkersCrew(ABC, Generic[W, R, T]):
    """Worker processes for the ticks of one runner.

    It has no thread: the caller of ``run`` waits for what comes next, a worker's report, its end,
    or the time at which a task is overdue.

    :param tasks: the tasks
    :param data: where views come from
    :param name: the runner's name
    :param task_timeout: how many seconds a task may run; None: forever
    :param size: how many processes there are
    :param report: makes a report of the message that it came in
    :param keyed: whether each task is run once for each key
    """

    def __init__(
        self,
        tasks: Sequence[Runnable[Any, Any]],
        data: Shared[Any],
        name: str,
        task_timeout: float | None,
        size: int,
        report: Callable[..., R],
        *,
        keyed: bool,
    ) -> None:
        self._roster = Roster(task.name for task in tasks)
        self._names = self._roster.names
        self._name = name
        self._log = Log(__name__, name)
        self._timeout = math.inf if task_timeout is None else task_timeout
        self._size = size
        self._report = report
        self._packed = PackedView(data)
        self._tick: T | None = None  # the one in hand
        self._load_deaths: Counter[int] = Counter()  # how many workers died of loading a task
        self._excluded: dict[int, str] = {}  # why a task is no longer loaded
        self._given_up: list[str] = []
        tasks_pieces = [pickled(task) for task in tasks]
        payload, self._memory = pack([piece for pieces in tasks_pieces for piece in pieces])
        counts = [len(pieces) for pieces in tasks_pieces]
        limit = self._timeout if keyed else None
        self._setup = Setup(counts, payload, self._excluded, limit)
        self._begin()
        # Also what a runner that is never run has is let go of.
        self._release_memory = weakref.finalize(self, _close_all, self._memory)
        forget_after_fork(self)

    def _begin(self) -> None:
        """Begin without workers."""
        self._workers: list[WorkerProcess[W]] = []
        self._selector = selectors.DefaultSelector()
        self._wake_receiver, self._wake_sender = socket.socketpair()  # for other threads
        self._selector.register(self._wake_receiver, selectors.EVENT_READ)
        ends = self._wake_receiver, self._wake_sender
        self._release = weakref.finalize(self, _release, self._selector, ends)
        self._release_starter: weakref.finalize[..., WorkersCrew[W, R, T]] | None = None

    def after_fork(self) -> None:
        """In a forked child: the workers are its parent's, and so is what waits for them."""
        self._release()  # the child's own descriptors for it
        if self._release_starter is not None:
            self._release_starter.detach()
        self._begin()

    def open(self) -> None:
        self._start_workers(None)

    # A tick

    def _work_on(self, tick: T, view: Any) -> None:
        """Have all jobs of a tick run."""
        try:
            self._packed.pack(view)
        except Exception as error:
            tick.fail_all(TaskError, "the data cannot be sent to a worker process", error)
            return
        for task, reason in self._excluded.items():
            tick.exclude(task, reason)
        self._tick = tick
        try:
            self._start_workers(tick)
            self._assign(tick)
            while not tick.is_over:
                ready = self._selector.select(self._look_after(tick))
                for key, _ in ready:
                    if key.data is None:
                        self._give_up(tick)
                    else:
                        self._receive(key.data, tick)
                if not ready:
                    self._find_deaths(tick)
        finally:
            self._tick = None
            for worker in tuple(self._workers):
                if worker.work is not None:  # nobody waits for it, and it would report to the next
                    self._end_worker(worker)

    @abstractmethod
    def _next_work(self, worker: WorkerProcess[W], tick: T) -> Errand[W] | None:
        """What a worker that has nothing to do is to do next.

        :return: None: there is nothing for it
        """

    @abstractmethod
    def _take_in(
        self, worker: WorkerProcess[W], work: W, report: R, memory: list[int], tick: T
    ) -> None:
        """Take in what came of some work.

        :param memory: the descriptors that came with the report, to be closed
        """

    def _start_workers(self, tick: T | None) -> None:
        """Start processes in the place of those that are missing."""
        if len(self._workers) == self._size:
            return
        if self._release_starter is None:
            STARTER.acquire()
            self._release_starter = weakref.finalize(self, STARTER.release)
        try:
            while len(self._workers) < self._size:
                free = set(range(self._size)).difference(each.number for each in self._workers)
                start = partial(WorkerProcess[W], min(free), self._setup, self._memory)
                worker = STARTER.call(start)
                self._workers.append(worker)
                self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        except Exception as error:  # the runner goes on, and tries again at the next tick
            error.__traceback__ = None  # which holds on to what could not be started
            self._log.error(
                "%s: no worker process could be started: %s",
                self._name,
                error,
                extra={"window": tick.window if tick is not None else None},
            )
            if tick is not None and not self._workers:
                tick.fail_all(TaskLost, "no worker process could be started", error)

    def _assign(self, tick: T) -> None:
        """Give work to every worker that has none, as long as there is any: first to those that
        keep memory which is needed no more, since they let go of it once they are given the view.
        """
        packed = self._packed
        gone = [each for each in self._workers if each.holds_what_is_gone(packed.blocks)]
        for worker in (*gone, *(each for each in self._workers if each not in gone)):
            if not worker.ready or worker.work is not None:
                continue
            errand = self._next_work(worker, tick)
            if errand is None:
                continue
            worker.work, told, states = errand
            try:
                if worker.view_number == packed.number:
                    worker.assign(tick.window, told, states=states)
                else:
                    view = packed.payload, packed.memory, packed.blocks
                    worker.assign(tick.window, told, *view, states)
                    worker.view_number = packed.number
            except OSError:
                self._worker_died(worker, tick)
            finally:
                states.close()

    def _receive(self, worker: WorkerProcess[W], tick: T) -> None:
        work = worker.work
        try:
            message, memory = worker.report()
            report = None if work is None else self._report(*message)
        except Exception:  # it is gone, or a task has written to a socket that is not its own
            self._worker_died(worker, tick)
            return
        if work is not None and report is not None:
            self._take_in(worker, work, report, memory, tick)
        self._assign(tick)

    # Workers that hang, and workers that die

    def _look_after(self, tick: T) -> float:
        """End the workers whose task is overdue. Returns when to look again, in seconds."""
        soonest = _POLL
        if self._timeout == math.inf:
            return soonest
        for worker in tuple(self._workers):
            if worker.work is None:
                continue
            position = worker.progress.in_hand()
            since = worker.progress.since(position) if position is not None else None
            if position is None or since is None:
                soonest = min(soonest, self._timeout)  # it may begin with one right now
                continue
            remaining = since + self._timeout - time.perf_counter()
            if remaining > 0:
                soonest = min(soonest, remaining)
            elif worker.process.poll() is not None:
                self._worker_died(worker, tick)  # it did not hang
                soonest = 0.0
            else:
                # Read again: on some processors, what another has written may come in disorder.
                if worker.progress.since(position) == since:
                    self._time_out(worker, worker.work, position, tick)
                soonest = 0.0
        return soonest

    def _time_out(self, worker: WorkerProcess[W], work: W, position: int, tick: T) -> None:
        self._end_worker(worker)
        reason = (
            f"it did not return within task_timeout={self._timeout:g} s, "
            f"and was ended with its worker process"
        )
        tick.blame(work, position, TaskTimeout, reason)
        tick.put_back(work)
        self._replace(tick)

    def _find_deaths(self, tick: T) -> None:
        """Deal with workers that died without a report."""
        for worker in tuple(self._workers):
            if worker.process.poll() is not None:
                self._worker_died(worker, tick)

    def _worker_died(self, worker: WorkerProcess[W], tick: T) -> None:
        """A worker died: its task is lost, and what it had not begun is another's."""
        if worker not in self._workers:
            return  # it was found dead when another's share was to be its own
        how = self._end_worker(worker)
        progress, work = worker.progress, worker.work
        running, loading = progress.in_hand(), progress.loading()
        task: str | None = None if loading is None else self._names[loading]
        key: Any = None
        lost: int | None = None
        if work is not None and running is not None and tick.is_open(work, running):
            lost = running
            task, key = tick.job(work, running)
        self._log.warning(
            "%s: a worker process %s, and is replaced",
            self._name,
            how,
            extra={"task": task, "window": tick.window, **({} if key is None else {"key": key})},
        )
        if work is not None and lost is not None:
            # If it died over its report, whose fault that is shows when each is on its own.
            if progress.since(lost) is not None or not tick.part(work, lost):
                tick.blame(work, lost, TaskLost, f"its worker process {how}")
                tick.put_back(work)
        else:
            if work is not None:
                tick.put_back(work)
            if loading is not None:
                self._load_deaths[loading] += 1
                if self._load_deaths[loading] == _MAX_DEATHS:
                    reason = f"{_MAX_DEATHS} worker processes died of loading it, the last {how}"
                    self._excluded[loading] = reason
                    tick.exclude(loading, reason)
            else:
                tick.deaths += 1
                if tick.deaths > self._size + _MAX_DEATHS:
                    deaths = f"{tick.deaths} worker processes died before it began"
                    tick.fail_all(TaskLost, f"{deaths}, the last {how}")
        self._replace(tick)

    def _end_worker(self, worker: WorkerProcess[W]) -> str:
        """Have nothing more to do with a worker. Returns how it ended."""
        self._workers.remove(worker)
        self._unregister(worker)
        return worker.end()

    def _unregister(self, worker: WorkerProcess[W]) -> None:
        with contextlib.suppress(KeyError):  # an interrupt came before it was registered
            self._selector.unregister(worker.connection)

    def _replace(self, tick: T) -> None:
        """Start a worker in the place of one that is gone, and have done what it had to do."""
        self._start_workers(tick)
        self._assign(tick)

    # The end

    def running(self) -> Sequence[str]:
        if self._given_up:
            return self._given_up
        tick = self._tick
        found: list[str] = []
        for worker in tuple(self._workers):
            position, work = worker.progress.in_hand(), worker.work
            if position is not None and work is not None and tick is not None:
                found.append(_told(*tick.job(work, position)))
            loading = worker.progress.loading()
            if loading is not None:
                found.append(self._names[loading])
        return found

    def abandon(self) -> None:
        with contextlib.suppress(OSError):  # it has been closed: there is nothing to abandon
            self._wake_sender.send(b"!")

    def _give_up(self, tick: T) -> None:
        """End every worker, whatever it is at: the runner has been shut down for too long."""
        self._given_up = [*(self.running() or tick.unfinished())]
        for worker in tuple(self._workers):
            self._end_worker(worker)
        tick.fail_all(TaskTimeout, "it had not returned when the runner was shut down")

    def close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for worker in self._workers:
            self._unregister(worker)
            worker.connection.close()  # it ends by itself when it finds the socket closed
            if not worker.ready:
                worker.process.kill()  # it has not begun with anything
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._log.warning("%s: a worker process did not end, and is killed", self._name)
            worker.end()
        self._workers = []
        self._packed.clear()
        self._release()
        self._release_memory()
        if self._release_starter is not None:
            self._release_starter()


def _told(task: str, key: Any) -> str:
    """A job in an error's text."""
    return task if key is None else f"{task} of {key!r}"


def _release(selector: selectors.BaseSelector, ends: Sequence[socket.socket]) -> None:
    selector.close()
    for end in ends:
        end.close()


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
