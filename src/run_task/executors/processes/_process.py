"""A worker process, as its runner sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar
from weakref import WeakSet

from run_task._window import Window
from run_task.data._memory import MapMode, SharedBlock, create, mapped
from run_task.executors.processes._messages import Assignment, Setup
from run_task.executors.processes._parent import interpreter
from run_task.executors.processes._progress import PROGRESS_SIZE, Progress
from run_task.executors.processes._task_states import NO_STATES, SentStates
from run_task.executors.processes._wire import Connection, Payload
from run_task.sync._fork import forget_after_fork

W = TypeVar("W")

_WORKER: Final = "run_task.executors.processes._worker"

_started: Final[WeakSet[WorkerProcess[Any]]] = WeakSet()
_started_mutex: Final = threading.Lock()  # to add one while others are looked through is an error


def worker_processes() -> Sequence[subprocess.Popen[bytes]]:
    """The worker processes of this program that somebody still has, alive or not."""
    with _started_mutex:
        return [worker.process for worker in _started]


class WorkerProcess(Generic[W]):
    """A process of its own that runs tasks.

    It is started as a new interpreter and not forked, for a fork would copy the locks of threads
    that it does not copy. It runs none of the main program, which so needs no guard.

    :param number: which of its runner's it is, from 0 on; one that replaces it has the same
    :param setup: what it is to know once
    :param descriptors: the memory that goes with it
    :raises OSError: if it cannot be started
    """

    def __init__(self, number: int, setup: Setup, descriptors: Sequence[int]) -> None:
        self.number: int = number
        self.ready: bool = False  # to take orders
        self.work: W | None = None  # what its assignment in hand is
        self.held: dict[int, Any] = {}  # the state that it has of each task
        self.view_number: int = 0  # the number of the view that it has
        self._blocks: set[int] = set()  # the numbers of the blocks that it has mapped
        self.progress: Progress
        self.connection: Connection
        self.process: subprocess.Popen[bytes]
        with contextlib.ExitStack() as unless_it_works:
            with os.fdopen(create(PROGRESS_SIZE), "wb", 0) as progress:
                self.progress = Progress(mapped(progress.fileno(), PROGRESS_SIZE, MapMode.WRITE))
                self.progress.rest()
                ours, theirs = socket.socketpair()
                self.connection = Connection(ours)
                unless_it_works.callback(self.connection.close)
                with theirs:
                    self.process = interpreter(theirs.fileno(), _WORKER)
                unless_it_works.callback(self.end)
                with _started_mutex:
                    _started.add(self)
                forget_after_fork(self)
                self.connection.send(setup, [progress.fileno(), *descriptors])
            unless_it_works.pop_all()

    def after_fork(self) -> None:
        """In a forked child: it is the parent's, and the child neither hears of it nor ends it."""
        _started.discard(self)
        self.connection.close()
        self.process.returncode = 0  # so that it is neither waited for nor killed

    def assign(
        self,
        window: Window,
        work: Any,
        data: Payload | None = None,
        memory: Sequence[int] = (),
        blocks: Mapping[int, SharedBlock] | None = None,
        states: SentStates = NO_STATES,
    ) -> None:
        """Tell it to run tasks.

        :param window: for which window
        :param work: which tasks, as it is to be told
        :param data: what they read; None: what they read before
        :param memory: the descriptor of the memory that goes with the data
        :param blocks: the shared blocks that the data lies in
        :param states: the states that tasks begin with, where it has not these
        :raises OSError: if it is gone
        """
        bounds = window.start, window.end
        if data is None:
            message = Assignment(bounds, work, None, (), (), states.counts, states.payload)
            self.connection.send(message, states.memory)
            return
        blocks = blocks or {}
        new = [block for number, block in blocks.items() if number not in self._blocks]
        gone = [number for number in self._blocks if number not in blocks]
        self._blocks = set(blocks)
        sizes = [(block.number, block.size) for block in new]
        descriptors = [*(block.descriptor for block in new), *memory, *states.memory]
        message = Assignment(bounds, work, data, sizes, gone, states.counts, states.payload)
        self.connection.send(message, descriptors)

    def holds_what_is_gone(self, blocks: Mapping[int, SharedBlock]) -> bool:
        """Whether it has mapped a block that no data lies in any more.

        :param blocks: the shared blocks that the data lies in
        """
        return not self._blocks <= blocks.keys()

    def report(self) -> tuple[tuple[Any, ...], list[int]]:
        """Receive what came of the assignment, or that it is ready for one: the message, and the
        descriptors that came with it, which are the caller's to close.

        :raises EOFError: if it is gone
        :raises OSError: if it went in the middle
        """
        message, descriptors = self.connection.recv()
        self.ready = True
        self.work = None
        self.progress.rest()  # noted here, for it dies over its report or not at all
        return message, descriptors

    def end(self) -> str:
        """End it, if it has not ended yet. Returns how it ended."""
        self.connection.close()
        self.process.kill()  # without effect on one that is dead or dying: how it ended stands
        code = self.process.wait()
        if code < 0:
            return f"was killed by signal {-code} ({signal.strsignal(-code)})"
        return f"ended with exit code {code}"
