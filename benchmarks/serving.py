"""Serving: what a page that is open, and the service itself, cost a pipeline."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.measure import side_by_side
from benchmarks.question import Bound, Effort, Goal, Question, Section, compared
from benchmarks.workload import Quote, tasks
from run_task import Pipeline, RwLock, TaskInterval
from run_task.serve import Service
from run_task.sinks import CallbackSink

COUNTS = (10, 100)
"""How many tasks the stage has."""

ALONE = "no service"
SERVED = "a service, nobody looks"
OPEN = "a page is open"

GOAL = Goal(Bound.AT_MOST, 1.1)


def made(count: int) -> Pipeline:
    pipeline = Pipeline("bench")
    stage = pipeline.stage("stage", tasks(count), RwLock[Quote](Quote()), TaskInterval.micros(1))
    stage.sink(CallbackSink(lambda stage, dataset: None))
    return pipeline


def ticks_us(pipeline: Pipeline, seconds: float) -> float:
    """Microseconds of the processor a tick of a pipeline that runs, and is always behind."""
    while not pipeline.is_running:
        time.sleep(0.001)
    time.sleep(seconds / 4)
    # Of the processor: of all threads, those of the service and of who reads the page, too.
    begun, before = time.process_time(), pipeline.stats.stages["stage"].ticks
    time.sleep(seconds)
    took, ticks = time.process_time() - begun, pipeline.stats.stages["stage"].ticks - before
    return took / max(ticks, 1) * 1e6


def alone(count: int, seconds: float) -> float:
    pipeline = made(count)
    with pipeline:
        return ticks_us(pipeline, seconds)


def served(count: int, clients: int, seconds: float) -> float:
    """The same of one that is served.

    :param clients: how many pages are open
    """
    pipeline = made(count)
    service = Service([pipeline], port=0)
    listening = threading.Event()
    thread = threading.Thread(target=service.run, args=(listening.set,))
    thread.start()
    listening.wait()
    pages = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(clients)]
    readers = [threading.Thread(target=read, args=(page,)) for page in pages]
    try:
        for page, reader in zip(pages, readers):
            page.sendall(b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            reader.start()
        return ticks_us(pipeline, seconds)
    finally:
        service.shutdown()
        thread.join()
        for page, reader in zip(pages, readers):
            page.close()
            reader.join()


def read(page: socket.socket) -> None:
    while page.recv(1 << 16):
        pass


def answer(effort: Effort) -> Iterator[Question]:
    for count in COUNTS:
        ways: dict[str, Callable[[], float]] = {
            SERVED: partial(served, count, 0, effort.seconds),
            OPEN: partial(served, count, 1, effort.seconds),
            ALONE: partial(alone, count, effort.seconds),
        }
        rounds = side_by_side(ways, effort.repeats)
        yield Question(
            f"Serving: µs of the processor a tick of {count} trivial tasks, and a sink",
            compared(rounds, "µs", goals={OPEN: GOAL}),
        )


SECTION = Section("serving", answer)
