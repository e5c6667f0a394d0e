"""A worker process, as its runner sees it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection

from run_task.executors.link import Link, Parcel
from run_task.executors.serve import PROGRESS_SIZE, Hello, Order, Report
from run_task.interval import Window
from run_task.memory import blocks, create, mapped


class WorkerProcess:
    """A process of its own that runs tasks.

    It is started as a new interpreter and not forked, for a fork would copy the locks of threads
    that it does not copy. It runs none of the main program, which so needs no guard.

    :param hello: what it is to know once
    :param descriptors: the memory that goes with it
    """

    def __init__(self, hello: Hello, descriptors: Sequence[int]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            code = (
                f"import sys; sys.path[:] = {sys.path!r}; "
                f"from run_task.executors.serve import main; main({theirs.fileno()})"
            )
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        self.link = Link(Connection(ours.detach()))
        self.ready = False  # to take orders
        self.positions: Sequence[int] = ()  # the tasks of the order in hand
        self.cargo = 0  # the number of the view that it has
        self._blocks: set[int] = set()  # the numbers of the blocks that it has mapped
        progress = create(PROGRESS_SIZE)
        self._progress = mapped(progress, PROGRESS_SIZE).cast("d")
        self._progress[0] = -1.0
        try:
            self.link.send(hello, [progress, *descriptors])
        except OSError:
            self.end()
            raise
        finally:
            os.close(progress)

    def order(
        self,
        window: Window,
        positions: Sequence[int],
        data: Parcel | None = None,
        memory: Sequence[int] = (),
    ) -> None:
        """Tell it to run tasks.

        :param window: for which window
        :param positions: which tasks
        :param data: what they read; None: what they read before
        :param memory: the descriptor of the memory that goes with the data
        :raises OSError: if it is gone
        """
        self.positions = positions
        alive = {number: block for number, found in tuple(blocks().items()) if (block := found())}
        new = [block for number, block in alive.items() if number not in self._blocks]
        gone = [number for number in self._blocks if number not in alive]
        self._blocks = set(alive)
        sizes = [(block.number, block.size) for block in new]
        descriptors = [*(block.descriptor for block in new), *memory]
        self.link.send(Order(window, positions, data, sizes, gone), descriptors)

    def report(self) -> tuple[Report, list[int]]:
        """Receive what came of the order, or that it is ready for one.

        :raises EOFError: if it is gone
        :raises OSError: if it went in the middle
        """
        report, memory = self.link.recv()
        assert isinstance(report, Report)
        self.ready = True
        self.positions = ()
        return report, memory

    @property
    def position(self) -> int:
        """The position of the task that it has in hand, or had when it died; -1: none."""
        return int(self._progress[0])

    def in_hand(self) -> tuple[int, float] | None:
        """The task that it has in hand, and since when by ``time.perf_counter``."""
        position = self.position
        since = self._progress[1]
        if position < 0 or self.position != position or since == float("inf"):
            return None
        return position, since

    def end(self) -> str:
        """End it, if it has not ended yet. Returns how it ended."""
        self.link.close()
        self.process.kill()  # without effect if it is dead or dying
        code = self.process.wait()
        if code < 0:
            return f"was killed by signal {-code} ({signal.strsignal(-code)})"
        return f"ended with exit code {code}"
