"""What a worker process does: it runs the tasks that it is assigned, until its runner ends it."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from run_task.data._memory import MapMode, SharedBlock, mapped
from run_task.executors._states import Stepped, Stepper
from run_task.executors.processes._exceptions import LESS, LoadFailure, portable, unsendable
from run_task.executors.processes._keyed_work import KeyedTasks
from run_task.executors.processes._messages import (
    Assignment,
    KeyedReport,
    KeyedWork,
    Report,
    Setup,
)
from run_task.executors.processes._parent import end_with_parent, end_with_socket
from run_task.executors.processes._progress import PROGRESS_SIZE, Progress
from run_task.executors.processes._task_states import named, stepped
from run_task.executors.processes._wire import Connection, Payload, loads, pack, pickled, unpack

_UNPICKLED: Final = frozenset({float, int, bool, type(None)})
"""Results of these types go into the report as they are."""


def main(descriptor: int, parent: int) -> None:
    """Serve the runner at the other end of a socket until it lets go.

    :param descriptor: of the socket
    :param parent: the number of the runner's process
    """
    os.set_inheritable(descriptor, False)  # what tasks start must not keep the socket open
    end_with_parent(parent)
    threading.Thread(target=end_with_socket, args=(descriptor,), daemon=True).start()
    with socket.socket(fileno=descriptor) as end:
        _TaskServer(Connection(end)).serve()


class _RawOutcome(NamedTuple):
    """What came of a task: its pieces, or else the value itself."""

    position: int
    raised: bool
    begun: float
    seconds: float
    pieces: Sequence[memoryview]
    value: Any = None


def _size(result: _RawOutcome) -> int:
    return sum(piece.nbytes for piece in result.pieces)


class _TaskServer:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._blocks: dict[int, SharedBlock] = {}  # all that the data lies in
        self._data: Any = None
        self._runs: list[Any] = []
        self._steppers: dict[int, Stepper] = {}
        self._states: dict[int, Any] = {}  # of the tasks that have one, the last that it knows of
        try:
            message, descriptors = connection.recv()
        except (EOFError, OSError):
            sys.exit()  # the runner has ended meanwhile
        setup = Setup(*message)
        progress = descriptors.pop(0)
        self._progress = Progress(mapped(progress, PROGRESS_SIZE, MapMode.WRITE))
        os.close(progress)
        # Each worker has its own copy of what tasks hold, and may write to that.
        pieces = iter(unpack(setup.payload, descriptors, MapMode.COPY))
        for position, count in enumerate(setup.counts):
            own = list(islice(pieces, count))
            excluded = position in setup.excluded
            self._runs.append(None if excluded else self._load(position, own))
        limit = setup.keyed
        self._keyed: KeyedTasks | None = None
        if limit is not None:
            self._keyed = KeyedTasks(self._runs, self._steppers, self._progress, limit)

    def _load(self, position: int, pieces: Sequence[memoryview]) -> Any:
        self._progress.load(position)
        try:
            task = loads(pieces)
            if isinstance(task, Stepper):
                self._steppers[position] = task
            return task.run
        except BaseException as error:  # a module may well end in sys.exit()
            return LoadFailure(error, "the task")
        finally:
            self._progress.rest()

    def serve(self) -> None:
        try:
            self._connection.send(())  # it is ready
            while True:
                message, descriptors = self._connection.recv()
                assignment = Assignment(*message)
                if assignment.data is not None:
                    self._take_view(assignment, assignment.data, descriptors)
                if assignment.states is not None:
                    self._take_states(assignment, assignment.states, descriptors)
                if self._keyed is not None:
                    work = KeyedWork(*assignment.work)
                    self._send(*self._keyed.run(self._data, assignment.window, work))
                    continue
                results = [self._run(position, assignment.window) for position in assignment.work]
                self._answer(results)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return  # the runner has closed its end, or its process has ended

    def _take_view(self, assignment: Assignment, data: Payload, descriptors: list[int]) -> None:
        """Take in the data that comes with an assignment."""
        self._data = None
        if self._keyed is not None:
            self._keyed.clear()
        for number in assignment.gone:
            del self._blocks[number]
        for number, size in assignment.blocks:
            self._blocks[number] = SharedBlock(size, descriptors.pop(0), number)
        pieces = unpack(data, descriptors, MapMode.READ)
        try:
            self._data = loads(pieces)
        except BaseException as error:
            self._data = LoadFailure(error, "the data")

    def _take_states(self, assignment: Assignment, states: Payload, descriptors: list[int]) -> None:
        """Take in the states that come with an assignment."""
        if self._keyed is not None:
            pieces_of_keys = unpack(states, descriptors, MapMode.COPY)
            self._keyed.take_states(assignment.state_counts, pieces_of_keys)
            return
        pieces = iter(unpack(states, descriptors, MapMode.COPY))
        for position, count in assignment.state_counts:
            self._states.pop(position, None)
            if not count:
                continue
            try:
                self._states[position] = loads(list(islice(pieces, count)))
            except BaseException as error:
                self._states[position] = LoadFailure(error, "its state")

    def _step(self, position: int, stepper: Stepper, window: tuple[int, int]) -> Stepped:
        """Run a task with its state."""
        return stepped(stepper, self._states, position, self._data, window)

    def _run(self, position: int, window: tuple[int, int]) -> _RawOutcome:
        for needed in (self._runs[position], self._data, self._states.get(position)):
            if isinstance(needed, LoadFailure):
                return _RawOutcome(position, True, time.perf_counter(), 0.0, needed.pieces)
        begun = self._progress.begin(position)
        try:
            stepper = self._steppers.get(position)
            if stepper is None:
                result = self._runs[position](self._data, *window)
            else:
                result = self._step(position, stepper, window)
        except BaseException as error:
            seconds = time.perf_counter() - begun
            done = _RawOutcome(position, True, begun, seconds, portable(error))
        else:
            seconds = time.perf_counter() - begun
            if type(result) in _UNPICKLED:
                self._progress.finish()
                return _RawOutcome(position, False, begun, seconds, (), result)
            try:
                done = _RawOutcome(position, False, begun, seconds, pickled(result))
            except Exception as error:
                pieces = unsendable(named(result), error)
                done = _RawOutcome(position, True, begun, seconds, pieces)
        self._progress.finish()
        return done

    def _answer(self, results: list[_RawOutcome]) -> None:
        """Report what came of an assignment."""
        payload, memory = None, list[int]()
        while any(result.pieces for result in results):
            try:
                payload, memory = pack([piece for result in results for piece in result.pieces])
                break
            except (MemoryError, OSError) as error:
                largest = max(results, key=_size)
                if largest.raised:
                    raise
                pieces = unsendable(f"of {_size(largest):,} bytes", error, LESS)
                results[results.index(largest)] = largest._replace(raised=True, pieces=pieces)
        outcomes = [(*result[:4], len(result.pieces), result.value) for result in results]
        self._send(Report(outcomes, payload), memory)

    def _send(self, report: Report | KeyedReport, memory: Sequence[int]) -> None:
        self._connection.send(report, memory)
        for descriptor in memory:
            os.close(descriptor)
