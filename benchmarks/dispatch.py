"""Dispatch: what a tick of trivial tasks costs, saturated."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks import peers
from benchmarks.apart import apart
from benchmarks.measure import Figure, side_by_side
from benchmarks.question import (
    Bound,
    Effort,
    Goal,
    Line,
    Question,
    Role,
    Section,
    Skipped,
    compared,
)
from benchmarks.workload import FLOOR, Quote, plain_loop, tasks
from run_task import ContextBuilder, DataSet, Receiver, Runner, RunnerConfig, TaskInterval

OURS = "run-task"
WITH_TIMEOUT = "run-task, task_timeout"

SHORTER = 2
"""Into how many each round is cut: a shared machine's speed changes within a second, and a ratio
tells something only if both of its sides were measured at the same speed."""

GOALS = {1: 12.0, 10: 4.5, 100: 2.2, 1000: 1.6}
"""By number of tasks: how many times the plain loop a tick may cost."""
TIMEOUT_GOAL = Goal(Bound.AT_MOST, 2)


def saturated(count: int, seconds: float, config: RunnerConfig) -> float:
    """Microseconds a tick of a runner that is always behind, and a thread that receives."""
    context, receiver, _ = (
        ContextBuilder(Quote)
        .with_tasks(tasks(count))
        .with_interval(TaskInterval.micros(1))
        .with_config(config)
        .build()
    )
    consumer = threading.Thread(target=drain, args=(receiver,))
    consumer.start()
    runner = Runner(context)
    with runner:
        time.sleep(seconds / 4)
        while not (before := runner.stats.ticks):  # a loaded machine may not even have begun
            time.sleep(0.001)
        begun = time.perf_counter()
        time.sleep(seconds)
        while (ticks := runner.stats.ticks - before) == 0:
            time.sleep(0.001)
        took = time.perf_counter() - begun
    consumer.join()
    return took / ticks * 1e6


def drain(receiver: Receiver[DataSet[float]]) -> None:
    for _ in receiver:
        pass


def dispatch(effort: Effort) -> Iterator[Question | Skipped]:
    # Ours before the peers, some of which leave the machine busy for a while.
    questions = {count: _ours(count, limit, effort) for count, limit in GOALS.items()}
    for name in peers.PEERS:
        if name not in effort.peers:
            continue
        # Some take seconds a tick: fewer and shorter rounds are enough for them.
        repeats = -(-effort.repeats // 2)
        theirs = apart(name, peers.measured, name, list(GOALS), repeats, effort.seconds / 2)
        if isinstance(theirs, Skipped):
            yield theirs
            continue
        for question, rounds in zip(questions.values(), theirs):
            question.lines.extend(compared(rounds, "µs", Role.PEER)[1:])
    yield from questions.values()


def _ours(count: int, limit: float, effort: Effort) -> Question:
    seconds = effort.seconds / SHORTER
    ours: dict[str, Callable[[], float]] = {
        FLOOR: partial(plain_loop, count, seconds),
        OURS: partial(saturated, count, seconds, RunnerConfig()),
        WITH_TIMEOUT: partial(saturated, count, seconds, RunnerConfig(task_timeout=1.0)),
        "run-task, inline": partial(saturated, count, seconds, RunnerConfig(executor="inline")),
    }
    rounds = side_by_side(ours, effort.repeats * SHORTER)
    dearer = Figure.of_ratios(rounds[WITH_TIMEOUT], rounds[OURS])
    return Question(
        f"Dispatch: µs a tick of {count} trivial task{'s' if count > 1 else ''}",
        [
            *compared(rounds, "µs", goals={OURS: Goal(Bound.AT_MOST, limit)}),
            Line("with task_timeout / without", Role.OURS, "x", dearer, goal=TIMEOUT_GOAL),
        ],
    )


SECTION = Section("dispatch", dispatch, tuple(peers.PEERS))
