"""What a worker process does: it runs the tasks that it is told to, until it is let go."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

from run_task.executors.link import Access, Link, Parcel, loads, pack, pickled, unpack
from run_task.interval import Window
from run_task.memory import SharedBlock, mapped

PROGRESS: Final = "dd"
"""What a worker notes in memory that its runner maps: the position of the task that it has in
hand, -1 for none, and since when, in seconds by ``time.perf_counter``; infinity while the two may
not belong together."""

PROGRESS_SIZE: Final = 16

_LAST_WORDS: Final = 1.0
"""How many seconds a worker has to end by itself once its runner is gone."""


class Hello(NamedTuple):
    """The first message: what a worker is to know once. The memory of its progress comes first."""

    tasks: Sequence[Parcel]
    """What each task runs, pickled, by position."""


class Order(NamedTuple):
    """Run these tasks."""

    window: Window
    """The window to run them for."""

    positions: Sequence[int]
    """Which tasks."""

    data: Parcel | None
    """What they read; None: what they read before. Its memory comes after that of the blocks."""

    blocks: Sequence[tuple[int, int]]
    """The numbers and sizes of shared blocks that are new to the worker."""

    gone: Sequence[int]
    """The numbers of those that are gone."""


class Report(NamedTuple):
    """What came of an order. The first one, of no task, says that the worker is ready."""

    outcomes: Sequence[tuple[int, bool, float, int]]
    """Of each task: its position, whether it raised, how many seconds it ran, and how many pieces
    its result or exception has."""

    parcel: Parcel
    """The pieces of all of them."""


def main(descriptor: int) -> None:
    """Serve the runner at the other end of a socket until it lets go.

    :param descriptor: of the socket
    """
    # Ctrl-C goes to every process of a terminal; what it means is the runner's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(descriptor,), daemon=True).start()
    try:
        _Server(Link(Connection(descriptor))).serve()
    except (EOFError, OSError):
        return  # the runner is through, or is no more


def _end_with(descriptor: int) -> None:
    """End this process once the other end of the socket is gone, whatever a task is at."""
    poll = select.poll()
    poll.register(descriptor, 0)  # nothing but its end
    poll.poll()
    time.sleep(_LAST_WORDS)
    os._exit(1)


class _Server:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._blocks: dict[int, SharedBlock] = {}  # all that may be referred to
        self._data: Any = None
        (hello, descriptors) = link.recv()
        assert isinstance(hello, Hello)
        progress, *rest = descriptors
        self._progress = mapped(progress, PROGRESS_SIZE).cast("d")
        os.close(progress)
        self._runs: list[Any] = []
        for parcel in hello.tasks:
            pieces = unpack(parcel, rest, Access.WRITE)
            try:
                self._runs.append(loads(pieces).run)
            except Exception as error:
                self._runs.append(
                    _Broken(error, "the task cannot be loaded in a worker process").run
                )

    def serve(self) -> None:
        self._link.send(Report((), Parcel((), (), 0)))
        while True:
            order, descriptors = self._link.recv()
            assert isinstance(order, Order)
            self._prepare(order, descriptors)
            outcomes: list[tuple[int, bool, float, int]] = []
            pieces: list[memoryview] = []
            for position in order.positions:
                raised, seconds, result = self._run(position, order.window)
                outcomes.append((position, raised, seconds, len(result)))
                pieces += result
            parcel, memory = pack(pieces)
            self._link.send(Report(outcomes, parcel), memory)
            for descriptor in memory:
                os.close(descriptor)

    def _prepare(self, order: Order, descriptors: list[int]) -> None:
        for number, size in order.blocks:
            self._blocks[number] = SharedBlock(size, descriptors.pop(0), number)
        for number in order.gone:
            self._blocks.pop(number, None)
        if order.data is not None:
            pieces = unpack(order.data, descriptors, Access.READ)
            try:
                self._data = loads(pieces)
            except Exception as error:
                self._data = _Broken(error, "the data cannot be loaded in a worker process")

    def _run(self, position: int, window: Window) -> tuple[bool, float, list[memoryview]]:
        """Run a task. Returns whether it raised, how long it ran, and what came of it, pickled."""
        run, data, progress = self._runs[position], self._data, self._progress
        # Its runner takes the time for this task's only if the position is the same before and
        # after it reads it.
        progress[1] = float("inf")
        progress[0] = position
        progress[1] = begun = time.perf_counter()
        try:
            if isinstance(data, _Broken):
                data.run()
            result, raised = run(data, *window), None
        except BaseException as error:
            result, raised = None, error
        seconds = time.perf_counter() - begun
        pieces: list[memoryview] = []
        if raised is None:
            try:
                pieces = pickled(result)
            except Exception as error:
                error.add_note(f"the result, a {type(result).__name__}, cannot be sent back")
                raised = error
        if raised is not None:
            pieces = _portable(raised)
        progress[0] = -1.0
        return raised is not None, seconds, pieces


class _Broken:
    """Stands in the place of what could not be loaded."""

    def __init__(self, error: Exception, why: str) -> None:
        error.add_note(why)
        self._error = error

    def run(self, *_: object) -> None:
        raise self._error


def _portable(error: BaseException) -> list[memoryview]:
    """An exception, pickled: with its traceback in a note, or one that tells it where it cannot."""
    note = "in the worker process:\n" + "".join(traceback.format_exception(error))
    try:
        error.add_note(note)
        pieces = pickled(error)
        loads(pieces)
    except Exception:
        told = RuntimeError(f"{type(error).__name__}: {error}")
        told.add_note(note)
        pieces = pickled(told)
    return pieces
