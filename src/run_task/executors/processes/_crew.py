"""Worker processes at work for one runner."""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import socket
import subprocess
import time
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from run_task.data._memory import MapMode
from run_task.data._protocol import Shared
from run_task.errors import TaskError, TaskLost, TaskTimeout
from run_task.executors.processes._packed_view import Cargo
from run_task.executors.processes._process import WorkerProcess
from run_task.executors.processes._shares import SHARE, balanced
from run_task.executors.processes._tick_state import Job
from run_task.executors.processes._wire import pack, pickled, unpack
from run_task.executors.processes._worker import Hello
from run_task.observe._log import Log
from run_task.tasks._dataset import DataSet, Roster
from run_task.tasks._task import Runnable
from run_task.tasks._tick import Tick

_FALSE_STARTS: Final = 3
"""How many workers may die of loading a task before it is loaded no more; and, beyond one each, how
many may die in a tick of what is no task's fault before the tick is given up."""

_LOOK_AGAIN: Final = 1.0
"""How many seconds to wait for a worker to tell, or its socket to close, before asking the system
whether it has died: a process that it forked may keep the socket open."""

_UNEVEN: Final = 1.25
"""By what factor the dearest share must have grown or shrunk for the shares to be cut anew."""


class ProcessesCrew:
    """Has the tasks of each tick run in worker processes.

    It has no thread: who asks for a tick waits for whatever comes next, a worker's report, its
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
        self._roster = Roster(task.name for task in tasks)
        self._names = self._roster.names
        self._name = name
        self._log = Log(__name__, name)
        self._timeout = math.inf if task_timeout is None else task_timeout
        self._size = min(workers, len(tasks))
        self._workers: list[WorkerProcess] = []
        self._shares = balanced([0.0] * len(tasks), self._size)
        self._dearest = SHARE  # what the dearest of them took when they were cut
        self._cargo = Cargo(data)
        self._deadly: Counter[int] = Counter()  # how many workers died of loading a task
        self._barred: dict[int, str] = {}  # why a task is loaded no more
        self._given_up: list[str] = []
        tasks_pieces = [pickled(task) for task in tasks]
        parcel, self._memory = pack([piece for pieces in tasks_pieces for piece in pieces])
        self._hello = Hello([len(pieces) for pieces in tasks_pieces], parcel, self._barred)
        self._selector = selectors.DefaultSelector()
        self._bell, self._ringer = socket.socketpair()  # to be woken by another thread
        self._selector.register(self._bell, selectors.EVENT_READ)
        # Also those of a runner that is never run are let go of.
        self._let_go = weakref.finalize(
            self, _let_go, self._selector, (self._bell, self._ringer), self._memory
        )

    # A tick

    def run(self, tick: Tick) -> DataSet[Any]:
        begun = time.perf_counter()
        job = Job(self._roster, tick, self._shares)
        try:
            self._cargo.load(tick.view)
        except Exception as error:
            for position in range(len(self._names)):
                job.fail(position, TaskError, "the data cannot be sent to a worker process", error)
            return job.dataset(begun, time.perf_counter() - begun)
        for position, reason in self._barred.items():
            job.fail(position, TaskLost, reason)
        self._hire(job)
        self._hand_out(job)
        while job.open:
            ready = self._selector.select(self._look_after(job))
            for key, _ in ready:
                if key.data is None:
                    self._give_up(job)
                else:
                    self._receive(key.data, job)
            if not ready:
                self._bury(job)
        self._learn(job)
        return job.dataset(begun, time.perf_counter() - begun)

    def _hire(self, job: Job | None = None) -> None:
        """Start processes in the place of those that are missing."""
        try:
            while len(self._workers) < self._size:
                worker = WorkerProcess(self._hello, self._memory)
                self._workers.append(worker)
                self._selector.register(worker.link, selectors.EVENT_READ, worker)
        except Exception as error:  # the runner goes on, and tries again at the next tick
            self._log.error(
                "%s: no worker process could be started: %s",
                self._name,
                error,
                extra={"window": job.window if job is not None else None},
            )
            if job is not None and not self._workers:
                job.lose("no worker process could be started", error)

    def _hand_out(self, job: Job) -> None:
        """Give a share to every worker that has none, as long as there are shares."""
        cargo = self._cargo
        for worker in tuple(self._workers):
            if not worker.ready or worker.positions:
                continue
            positions = job.share()
            if not positions:
                return
            try:
                if worker.cargo == cargo.number:
                    worker.order(job.window, positions)
                else:
                    worker.order(job.window, positions, cargo.parcel, cargo.memory, cargo.blocks)
                    worker.cargo = cargo.number
            except OSError:
                self._mourn(worker, job)

    def _receive(self, worker: WorkerProcess, job: Job) -> None:
        try:
            report, memory = worker.report()
        except Exception:  # it is gone, or a task has written to a socket that is not its own
            self._mourn(worker, job)
            return
        pieces: Iterator[memoryview] = iter(())
        if report.parcel is not None:
            try:
                # Copied, for a mapping has a file open for as long as anybody keeps the result.
                there = unpack(report.parcel, memory, MapMode.READ)
                pieces = iter([memoryview(bytearray(piece)) for piece in there])
            except (MemoryError, OSError) as error:
                for position, _, _, _, count, _ in report.outcomes:
                    if count:
                        job.fail(position, TaskError, "its result cannot be mapped", error)
        for position, raised, start, seconds, count, value in report.outcomes:
            own = list(islice(pieces, count)) if count else ()
            job.starts[position], job.seconds[position] = start, seconds
            if seconds > self._timeout:
                reason = f"it ran for {seconds:.3g} s, task_timeout is {self._timeout:g} s"
                job.fail(position, TaskTimeout, reason)
            elif not count:
                job.open.discard(position)
                job.values[position] = value
            elif position in job.open:
                job.settle(position, own, raised=raised)
        self._hand_out(job)

    def _learn(self, job: Job) -> None:
        """Cut the shares anew if the tasks do not take what they did when they were cut."""
        dearest = max(sum(job.seconds.get(i, 0.0) for i in share) for share in self._shares)
        dearest = max(dearest, SHARE)
        if not self._dearest / _UNEVEN < dearest < self._dearest * _UNEVEN:
            costs = [job.seconds.get(i, 0.0) for i in range(len(self._names))]
            self._shares = balanced(costs, self._size)
            self._dearest = max(sum(costs[i] for i in self._shares[0]), SHARE)

    # Workers that hang, and workers that die

    def _look_after(self, job: Job) -> float:
        """End the workers whose task is overdue. Returns when to look again, in seconds."""
        soonest = _LOOK_AGAIN
        if self._timeout == math.inf:
            return soonest
        for worker in tuple(self._workers):
            if not worker.positions:
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
                self._mourn(worker, job)  # it did not hang
                soonest = 0.0
            else:
                # Read again: on some processors, what another has written may come in disorder.
                if worker.progress.since(position) == since:
                    self._write_off(worker, position, job)
                soonest = 0.0
        return soonest

    def _write_off(self, worker: WorkerProcess, position: int, job: Job) -> None:
        self._dismiss(worker)
        reason = (
            f"it did not return within task_timeout={self._timeout:g} s, "
            f"and was ended with its worker process"
        )
        job.fail(position, TaskTimeout, reason)
        self._replace(job, worker.positions)

    def _bury(self, job: Job) -> None:
        """See to workers that died without a word."""
        for worker in tuple(self._workers):
            if worker.process.poll() is not None:
                self._mourn(worker, job)

    def _mourn(self, worker: WorkerProcess, job: Job) -> None:
        """A worker died: its task is lost, and what it had not begun is another's."""
        if worker not in self._workers:
            return  # it was found dead when another's share was to be its own
        how = self._dismiss(worker)
        progress, positions = worker.progress, worker.positions
        running, loading = progress.in_hand(), progress.loading()
        culprit = running if running in job.open else loading
        self._log.warning(
            "%s: a worker process %s, and is replaced",
            self._name,
            how,
            extra={
                "task": None if culprit is None else self._names[culprit],
                "window": job.window,
            },
        )
        shares = [positions]
        if running in job.open and progress.since(running) is None and len(positions) > 1:
            # It died over its report. Whose fault that is shows when each has a worker to itself.
            shares = [[position] for position in positions]
        elif running in job.open:
            job.fail(running, TaskLost, f"its worker process {how}")
        elif loading is not None:
            self._deadly[loading] += 1
            if self._deadly[loading] == _FALSE_STARTS:
                reason = f"{_FALSE_STARTS} worker processes died of loading it, the last {how}"
                self._barred[loading] = reason
                job.fail(loading, TaskLost, reason)
        else:
            job.deaths += 1
            if job.deaths > self._size + _FALSE_STARTS:
                job.lose(f"{job.deaths} worker processes died before it began, the last {how}")
        self._replace(job, *shares)

    def _dismiss(self, worker: WorkerProcess) -> str:
        """Have nothing more to do with a worker. Returns how it ended."""
        self._workers.remove(worker)
        self._selector.unregister(worker.link)
        return worker.end()

    def _replace(self, job: Job, *shares: Sequence[int]) -> None:
        """Start a worker in the place of one that is gone, and have its shares done."""
        job.queue.extendleft(shares)
        self._hire(job)
        self._hand_out(job)

    # The end

    def running(self) -> Sequence[str]:
        if self._given_up:
            return self._given_up
        progresses = [worker.progress for worker in tuple(self._workers)]
        at = [(progress.in_hand(), progress.loading()) for progress in progresses]
        return [self._names[i] for both in at for i in both if i is not None]

    def abandon(self) -> None:
        with contextlib.suppress(OSError):  # it has been closed: there is nothing to abandon
            self._ringer.send(b"!")

    def _give_up(self, job: Job) -> None:
        """End every worker, whatever it is at: the runner has been shut down for too long."""
        self._given_up = [*(self.running() or (self._names[i] for i in sorted(job.open)))]
        for worker in tuple(self._workers):
            self._dismiss(worker)
        for position in tuple(job.open):
            job.fail(position, TaskTimeout, "it had not returned when the runner was shut down")

    def close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for worker in self._workers:
            self._selector.unregister(worker.link)
            worker.link.close()  # it ends by itself when it finds nobody there
            if not worker.ready:
                worker.process.kill()  # it has not begun with anything
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._log.warning("%s: a worker process did not end, and is killed", self._name)
            worker.end()
        self._workers = []
        self._cargo.unload()
        self._let_go()


def _let_go(
    selector: selectors.BaseSelector, ends: Sequence[socket.socket], memory: Sequence[int]
) -> None:
    selector.close()
    for end in ends:
        end.close()
    for descriptor in memory:
        os.close(descriptor)
