"""Worker processes at work for one runner."""

from __future__ import annotations

import logging
import math
import os
import selectors
import socket
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

from run_task.dataset import DataSet
from run_task.errors import TaskError, TaskLost, TaskTimeout
from run_task.executors.balance import SHARE, shares
from run_task.executors.cargo import Cargo
from run_task.executors.link import Access, loads, pack, pickled, unpack
from run_task.executors.protocol import Tick, Ticks, failed
from run_task.executors.serve import Hello
from run_task.executors.workerprocess import WorkerProcess
from run_task.interval import Window
from run_task.shared.protocol import Shared
from run_task.task import Runnable

_logger = logging.getLogger(__name__)

_FALSE_STARTS: Final = 3
"""How often in one tick workers may die with no task in hand before their tasks are given up."""

_LOOK_AGAIN: Final = 1.0
"""How many seconds to wait for workers at a time: a child of theirs may keep a socket open."""

_UNEVEN: Final = 1.25
"""By what factor the dearest share must have grown or shrunk for the shares to be cut anew."""


class _Job:
    """A tick in work: what is still to be handed out, and what came of the rest."""

    def __init__(self, names: Sequence[str], window: Window, cut: Iterable[list[int]]) -> None:
        self.names = names
        self.window = window
        self.queue = deque(cut)
        self.open = set(range(len(names)))  # the positions that have no outcome yet
        self.values: dict[int, Any] = {}
        self.errors: dict[int, TaskError] = {}
        self.seconds: dict[int, float] = {}
        self.false_starts = 0

    def fail(self, position: int, kind: type[TaskError], reason: str) -> None:
        self.open.discard(position)
        self.errors[position] = kind(self.names[position], self.window, reason)

    def dataset(self, late_ns: int, took: float) -> DataSet[Any]:
        values: dict[str, Any] = {}
        errors: dict[str, TaskError] = {}
        durations: dict[str, float] = {}
        for position, name in enumerate(self.names):  # in the order in which they were given
            if position in self.errors:
                errors[name] = self.errors[position]
            else:
                values[name] = self.values[position]
            if position in self.seconds:
                durations[name] = self.seconds[position]
        return DataSet(self.window, values, errors, durations, late_ns / 1e9, took)


class ProcessesCrew:
    """Drives a runner's loop, and has the tasks of each tick run in worker processes.

    It has one thread, the runner's, which waits for whatever comes next: a worker's report, its
    end, or the time at which a task is overdue.

    :param tasks: the tasks
    :param data: where views come from
    :param name: the runner's name
    :param task_timeout: how many seconds a task may run; None: for ever
    :param workers: how many processes there are, at most
    """

    def __init__(
        self,
        tasks: Sequence[Runnable[Any, Any]],
        data: Shared[Any],
        name: str,
        task_timeout: float | None,
        workers: int,
    ) -> None:
        self._names = [task.name for task in tasks]
        self._name = name
        self._timeout = math.inf if task_timeout is None else task_timeout
        self._size = min(workers, len(tasks))
        self._workers: list[WorkerProcess] = []
        self._shares = shares([0.0] * len(tasks), self._size)
        self._dearest = SHARE  # what the dearest of them took when they were cut
        self._cargo = Cargo(data)
        packed = [pack(pickled(task)) for task in tasks]
        self._hello = Hello([parcel for parcel, _ in packed])
        self._memory = [descriptor for _, memory in packed for descriptor in memory]
        self._selector = selectors.DefaultSelector()
        self._bell, self._ringer = socket.socketpair()  # to be woken by another thread
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._abandoned = False
        self._given_up: list[str] = []

    def drive(self, ticks: Ticks) -> None:
        self._hire()
        tick = next(ticks, None)
        while tick is not None:
            try:
                tick = ticks.send(self._run(tick))
            except StopIteration:
                return

    # A tick

    def _run(self, tick: Tick) -> DataSet[Any]:
        view, window, late_ns = tick
        begun = time.perf_counter()
        job = _Job(self._names, window, self._shares)
        try:
            self._cargo.load(view)
        except Exception as error:
            error.add_note("the data cannot be sent to a worker process")
            errors = {name: failed(name, window, error) for name in self._names}
            return DataSet(window, errors=errors, lateness=late_ns / 1e9)
        self._hire(job)
        self._hand_out(job)
        while job.open:
            ready = self._selector.select(self._look_after(job))
            for key, _ in ready:
                if key.data is None:
                    self._give_up(job)
                    break
                self._receive(key.data, job)
            if not ready:
                self._bury(job)
        self._learn(job)
        return job.dataset(late_ns, time.perf_counter() - begun)

    def _hire(self, job: _Job | None = None) -> None:
        """Start processes in the place of those that are missing."""
        if job is not None and job.false_starts >= _FALSE_STARTS:
            return  # not again in this tick
        try:
            while len(self._workers) < self._size:
                worker = WorkerProcess(self._hello, self._memory)
                self._workers.append(worker)
                self._selector.register(worker.link, selectors.EVENT_READ, worker)
        except OSError as error:
            _logger.error("%s: no worker process could be started: %s", self._name, error)
            if job is not None and not self._workers:
                self._lose(job, f"no worker process could be started: {error}")

    def _hand_out(self, job: _Job) -> None:
        """Give a share to every worker that has none, as long as there are shares."""
        cargo = self._cargo
        for worker in tuple(self._workers):
            if not worker.ready or worker.positions or not job.queue:
                continue
            positions = job.queue.popleft()
            try:
                if worker.cargo == cargo.number:
                    worker.order(job.window, positions)
                else:
                    worker.order(job.window, positions, cargo.parcel, cargo.memory)
                    worker.cargo = cargo.number
            except OSError:
                self._mourn(worker, job)

    def _receive(self, worker: WorkerProcess, job: _Job) -> None:
        try:
            report, memory = worker.report()
        except (EOFError, OSError):
            self._mourn(worker, job)
            return
        pieces = unpack(report.parcel, memory, Access.WRITE)
        for position, raised, seconds, count in report.outcomes:
            own, pieces = pieces[:count], pieces[count:]
            job.seconds[position] = seconds
            job.open.discard(position)
            try:
                value = loads(own)
                if raised:
                    job.errors[position] = failed(self._names[position], job.window, value)
                else:
                    job.values[position] = value
            except Exception as error:
                error.add_note("what the worker process sent cannot be loaded")
                job.errors[position] = failed(self._names[position], job.window, error)
            if seconds > self._timeout:
                reason = f"it ran for {seconds:.3g} s, task_timeout is {self._timeout:g} s"
                job.fail(position, TaskTimeout, reason)
        self._hand_out(job)

    def _learn(self, job: _Job) -> None:
        """Cut the shares anew if the tasks do not take what they did when they were cut."""
        dearest = max(sum(job.seconds.get(i, 0.0) for i in share) for share in self._shares)
        dearest = max(dearest, SHARE)
        if not self._dearest / _UNEVEN < dearest < self._dearest * _UNEVEN:
            costs = [job.seconds.get(i, 0.0) for i in range(len(self._names))]
            self._shares = shares(costs, self._size)
            self._dearest = max(sum(costs[i] for i in self._shares[0]), SHARE)

    # Workers that hang, and workers that die

    def _look_after(self, job: _Job) -> float:
        """End the workers whose task is overdue. Returns when to look again, in seconds."""
        soonest = _LOOK_AGAIN
        if self._timeout == math.inf:
            return soonest
        for worker in tuple(self._workers):
            hand = worker.in_hand()
            if hand is None:
                soonest = min(soonest, self._timeout)  # it may begin with one right now
                continue
            position, since = hand
            remaining = since + self._timeout - time.perf_counter()
            if remaining <= 0 and position in job.open:
                self._dismiss(worker)
                reason = (
                    f"it did not return within task_timeout={self._timeout:g} s, "
                    f"and was ended with its worker process"
                )
                job.fail(position, TaskTimeout, reason)
                self._replace(worker, job)
                remaining = 0.0
            soonest = min(soonest, max(remaining, 0.0))
        return soonest

    def _bury(self, job: _Job) -> None:
        """See to workers that died without a word."""
        for worker in tuple(self._workers):
            if worker.process.poll() is not None:
                self._mourn(worker, job)

    def _mourn(self, worker: WorkerProcess, job: _Job) -> None:
        """A worker died: its task is lost, and what it had not begun is another's."""
        how = self._dismiss(worker)
        _logger.warning("%s: a worker process %s, and is replaced", self._name, how)
        position = worker.position
        if position in job.open:
            job.fail(position, TaskLost, f"its worker process {how}")
        elif worker.positions or not worker.ready:
            job.false_starts += 1
            if job.false_starts >= _FALSE_STARTS and not any(w.ready for w in self._workers):
                self._lose(job, f"{job.false_starts} worker processes died, the last {how}")
        self._replace(worker, job)

    def _lose(self, job: _Job, reason: str) -> None:
        for position in tuple(job.open):
            job.fail(position, TaskLost, reason)

    def _dismiss(self, worker: WorkerProcess) -> str:
        """Have nothing more to do with a worker. Returns how it ended."""
        self._workers.remove(worker)
        self._selector.unregister(worker.link)
        return worker.end()

    def _replace(self, worker: WorkerProcess, job: _Job) -> None:
        rest = [position for position in worker.positions if position in job.open]
        if rest:
            job.queue.appendleft(rest)
        self._hire(job)
        self._hand_out(job)

    # The end

    def running(self) -> Sequence[str]:
        positions = [worker.position for worker in tuple(self._workers)]
        return [*self._given_up, *(self._names[i] for i in positions if i >= 0)]

    def abandon(self) -> None:
        self._ringer.send(b"!")

    def _give_up(self, job: _Job) -> None:
        """End every worker, whatever it is at: the runner has been shut down for too long."""
        self._given_up = list(self.running())
        for worker in tuple(self._workers):
            self._dismiss(worker)
        for position in tuple(job.open):
            job.fail(position, TaskTimeout, "it had not returned when the runner was shut down")

    def close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for worker in self._workers:
            self._selector.unregister(worker.link)
            worker.link.close()  # it ends by itself when it finds nobody there
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _logger.warning("%s: a worker process did not end, and is killed", self._name)
            worker.end()
        self._workers = []
        self._cargo.unload()
        self._selector.close()
        self._bell.close()
        self._ringer.close()
        for descriptor in self._memory:
            os.close(descriptor)
        self._memory = []
