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
from functools import partial
from itertools import islice
from typing import Any, Final

from run_task.data._memory import MapMode
from run_task.data._protocol import Shared
from run_task.errors import TaskError, TaskLost, TaskTimeout
from run_task.executors.processes._messages import Setup
from run_task.executors.processes._packed_view import PackedView
from run_task.executors.processes._process import WorkerProcess
from run_task.executors.processes._shares import SHARE, balanced
from run_task.executors.processes._starter import STARTER
from run_task.executors.processes._task_states import TaskStates
from run_task.executors.processes._tick_state import TickState
from run_task.executors.processes._wire import pack, pickled, unpack
from run_task.observe._log import Log
from run_task.sync._fork import forget_after_fork
from run_task.tasks._dataset import DataSet, Roster
from run_task.tasks._task import Runnable
from run_task.tasks._tick import Tick

_MAX_DEATHS: Final = 3
"""How many workers may die of loading a task before it is given up; and, beyond one each, how many
may die in a tick of what is no task's fault before the tick is given up."""

_POLL: Final = 1.0
"""How many seconds to wait for a message of a worker, or for its socket to close, before the system
is asked whether it has died: a process that it forked may keep the socket open."""

_IMBALANCE: Final = 1.25
"""By what factor the costliest share must have grown or shrunk for the shares to be cut anew."""


class ProcessesCrew:
    """Has the tasks of each tick run in worker processes.

    It has no thread: the caller of :meth:`run` waits for what comes next, a worker's report, its
    end, or the time at which a task is overdue.

    :param tasks: the tasks
    :param data: where views come from
    :param name: the runner's name
    :param task_timeout: how many seconds a task may run; None: forever
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
        self._shares = balanced([0.0] * len(tasks), self._size)
        self._costliest = SHARE  # what the costliest of them took when they were cut
        self._packed = PackedView(data)
        self._states = TaskStates(tasks)
        self._load_deaths: Counter[int] = Counter()  # how many workers died of loading a task
        self._excluded: dict[int, str] = {}  # why a task is no longer loaded
        self._given_up: list[str] = []
        tasks_pieces = [pickled(task) for task in tasks]
        payload, self._memory = pack([piece for pieces in tasks_pieces for piece in pieces])
        self._setup = Setup([len(pieces) for pieces in tasks_pieces], payload, self._excluded)
        self._begin()
        # Also what a runner that is never run has is let go of.
        self._release_memory = weakref.finalize(self, _close_all, self._memory)
        forget_after_fork(self)

    def _begin(self) -> None:
        """Begin without workers."""
        self._workers: list[WorkerProcess] = []
        self._selector = selectors.DefaultSelector()
        self._wake_receiver, self._wake_sender = socket.socketpair()  # for other threads
        self._selector.register(self._wake_receiver, selectors.EVENT_READ)
        ends = self._wake_receiver, self._wake_sender
        self._release = weakref.finalize(self, _release, self._selector, ends)
        self._release_starter: weakref.finalize[..., ProcessesCrew] | None = None

    def after_fork(self) -> None:
        """In a forked child: the workers are its parent's, and so is what waits for them."""
        self._release()  # the child's own descriptors for it
        if self._release_starter is not None:
            self._release_starter.detach()
        self._begin()

    def open(self) -> None:
        self._start_workers()

    # A tick

    def run(self, tick: Tick) -> DataSet[Any]:
        begun = time.perf_counter()
        state = TickState(self._roster, tick, self._shares)
        try:
            self._packed.pack(tick.view)
        except Exception as error:
            for position in range(len(self._names)):
                state.fail(
                    position, TaskError, "the data cannot be sent to a worker process", error
                )
            return state.dataset(begun, time.perf_counter() - begun)
        for position, reason in self._excluded.items():
            state.fail(position, TaskLost, reason)
        self._start_workers(state)
        self._assign(state)
        while state.open:
            ready = self._selector.select(self._look_after(state))
            for key, _ in ready:
                if key.data is None:
                    self._give_up(state)
                else:
                    self._receive(key.data, state)
            if not ready:
                self._find_deaths(state)
        self._balance(state)
        return state.dataset(begun, time.perf_counter() - begun)

    def _start_workers(self, state: TickState | None = None) -> None:
        """Start processes in the place of those that are missing."""
        if len(self._workers) == self._size:
            return
        if self._release_starter is None:
            STARTER.acquire()
            self._release_starter = weakref.finalize(self, STARTER.release)
        try:
            while len(self._workers) < self._size:
                worker = STARTER.call(partial(WorkerProcess, self._setup, self._memory))
                self._workers.append(worker)
                self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        except Exception as error:  # the runner goes on, and tries again at the next tick
            error.__traceback__ = None  # which holds on to what could not be started
            self._log.error(
                "%s: no worker process could be started: %s",
                self._name,
                error,
                extra={"window": state.window if state is not None else None},
            )
            if state is not None and not self._workers:
                state.lose("no worker process could be started", error)

    def _assign(self, state: TickState) -> None:
        """Give a share to every worker that has none, as long as there are shares."""
        packed = self._packed
        for worker in tuple(self._workers):
            if not worker.ready or worker.positions:
                continue
            positions = state.share()
            if not positions:
                return
            states = self._states.to_send(positions, worker.held, partial(_unsent, state))
            try:
                if worker.view_number == packed.number:
                    worker.assign(state.window, positions, states=states)
                else:
                    view = packed.payload, packed.memory, packed.blocks
                    worker.assign(state.window, positions, *view, states)
                    worker.view_number = packed.number
            except OSError:
                self._worker_died(worker, state)
            finally:
                states.close()

    def _receive(self, worker: WorkerProcess, state: TickState) -> None:
        try:
            report, memory = worker.report()
        except Exception:  # it is gone, or a task has written to a socket that is not its own
            self._worker_died(worker, state)
            return
        pieces: Iterator[memoryview] = iter(())
        if report.payload is not None:
            try:
                # Copied, for a mapping has a file open for as long as anybody keeps the result.
                there = unpack(report.payload, memory, MapMode.READ)
                pieces = iter([memoryview(bytearray(piece)) for piece in there])
            except (MemoryError, OSError) as error:
                for position, _, _, _, count, _ in report.outcomes:
                    if count:
                        state.fail(position, TaskError, "its result cannot be mapped", error)
        for position, raised, start, seconds, count, value in report.outcomes:
            own = list(islice(pieces, count)) if count else ()
            state.starts[position], state.seconds[position] = start, seconds
            if seconds > self._timeout:
                worker.held.pop(position, None)
                reason = f"it ran for {seconds:.3g} s, task_timeout is {self._timeout:g} s"
                state.fail(position, TaskTimeout, reason)
            elif not count:
                state.open.discard(position)
                state.values[position] = value
            elif position in state.open:
                state.take_result(position, own, raised=raised)
                self._states.received(position, state.values.get(position), worker.held)
        self._assign(state)

    def _balance(self, state: TickState) -> None:
        """Cut the shares anew if the tasks do not take what they did when they were cut."""
        costliest = max(sum(state.seconds.get(i, 0.0) for i in share) for share in self._shares)
        costliest = max(costliest, SHARE)
        if not self._costliest / _IMBALANCE < costliest < self._costliest * _IMBALANCE:
            costs = [state.seconds.get(i, 0.0) for i in range(len(self._names))]
            self._shares = balanced(costs, self._size)
            self._costliest = max(sum(costs[i] for i in self._shares[0]), SHARE)

    # Workers that hang, and workers that die

    def _look_after(self, state: TickState) -> float:
        """End the workers whose task is overdue. Returns when to look again, in seconds."""
        soonest = _POLL
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
                self._worker_died(worker, state)  # it did not hang
                soonest = 0.0
            else:
                # Read again: on some processors, what another has written may come in disorder.
                if worker.progress.since(position) == since:
                    self._time_out(worker, position, state)
                soonest = 0.0
        return soonest

    def _time_out(self, worker: WorkerProcess, position: int, state: TickState) -> None:
        self._end_worker(worker)
        reason = (
            f"it did not return within task_timeout={self._timeout:g} s, "
            f"and was ended with its worker process"
        )
        state.fail(position, TaskTimeout, reason)
        self._replace(state, worker.positions)

    def _find_deaths(self, state: TickState) -> None:
        """Deal with workers that died without a report."""
        for worker in tuple(self._workers):
            if worker.process.poll() is not None:
                self._worker_died(worker, state)

    def _worker_died(self, worker: WorkerProcess, state: TickState) -> None:
        """A worker died: its task is lost, and what it had not begun is another's."""
        if worker not in self._workers:
            return  # it was found dead when another's share was to be its own
        how = self._end_worker(worker)
        progress, positions = worker.progress, worker.positions
        running, loading = progress.in_hand(), progress.loading()
        culprit = running if running in state.open else loading
        self._log.warning(
            "%s: a worker process %s, and is replaced",
            self._name,
            how,
            extra={
                "task": None if culprit is None else self._names[culprit],
                "window": state.window,
            },
        )
        shares = [positions]
        if running in state.open and progress.since(running) is None and len(positions) > 1:
            # It died over its report. Whose fault that is shows when each has a worker to itself.
            shares = [[position] for position in positions]
        elif running in state.open:
            state.fail(running, TaskLost, f"its worker process {how}")
        elif loading is not None:
            self._load_deaths[loading] += 1
            if self._load_deaths[loading] == _MAX_DEATHS:
                reason = f"{_MAX_DEATHS} worker processes died of loading it, the last {how}"
                self._excluded[loading] = reason
                state.fail(loading, TaskLost, reason)
        else:
            state.deaths += 1
            if state.deaths > self._size + _MAX_DEATHS:
                state.lose(f"{state.deaths} worker processes died before it began, the last {how}")
        self._replace(state, *shares)

    def _end_worker(self, worker: WorkerProcess) -> str:
        """Have nothing more to do with a worker. Returns how it ended."""
        self._workers.remove(worker)
        self._selector.unregister(worker.connection)
        return worker.end()

    def _replace(self, state: TickState, *shares: Sequence[int]) -> None:
        """Start a worker in the place of one that is gone, and have its shares done."""
        state.queue.extendleft(shares)
        self._start_workers(state)
        self._assign(state)

    # The end

    def running(self) -> Sequence[str]:
        if self._given_up:
            return self._given_up
        progresses = [worker.progress for worker in tuple(self._workers)]
        at = [(progress.in_hand(), progress.loading()) for progress in progresses]
        return [self._names[i] for both in at for i in both if i is not None]

    def abandon(self) -> None:
        with contextlib.suppress(OSError):  # it has been closed: there is nothing to abandon
            self._wake_sender.send(b"!")

    def _give_up(self, state: TickState) -> None:
        """End every worker, whatever it is at: the runner has been shut down for too long."""
        self._given_up = [*(self.running() or (self._names[i] for i in sorted(state.open)))]
        for worker in tuple(self._workers):
            self._end_worker(worker)
        for position in tuple(state.open):
            state.fail(position, TaskTimeout, "it had not returned when the runner was shut down")

    def close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for worker in self._workers:
            self._selector.unregister(worker.connection)
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


def _unsent(state: TickState, position: int, error: BaseException) -> None:
    state.fail(position, TaskError, "its state cannot be sent to a worker process", error)


def _release(selector: selectors.BaseSelector, ends: Sequence[socket.socket]) -> None:
    selector.close()
    for end in ends:
        end.close()


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
