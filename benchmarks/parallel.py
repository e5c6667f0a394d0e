"""Parallel: what costly ticks gain from two cores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np

from benchmarks.measure import Figure, Rounds
from benchmarks.question import Bound, Effort, Goal, Line, Question, Role, Section, compared
from benchmarks.workload import Quote
from run_task import ContextBuilder, Runner, RunnerConfig, Task, TaskInterval

CORES = 2
PIECE = 100_000
_sample = np.random.default_rng(0).random(PIECE)


def _work(milliseconds: float) -> Callable[[Quote, int, int], float]:
    """A task of so much NumPy work that lets go of the GIL, on this machine, right now."""
    begun = time.perf_counter()
    for _ in range(10):
        np.sqrt(_sample).sum()
    a_piece = (time.perf_counter() - begun) / 10
    pieces, rest = divmod(int(milliseconds / 1e3 / a_piece * PIECE), PIECE)

    def work(data: Quote, start: int, end: int) -> float:
        total = 0.0
        for _ in range(pieces):
            total += float(np.sqrt(_sample).sum())
        return total + float(np.sqrt(_sample[:rest]).sum())

    return work


def ticks_of(costs_ms: list[float], config: RunnerConfig, ticks: int) -> tuple[float, float]:
    """Run tasks of these costs, tick after tick.

    :return: the median tick, in milliseconds from the first task's start to the last one's end;
        and what it would take on two cores at best, from what the tasks took each
    """
    functions = {cost: _work(cost) for cost in set(costs_ms)}
    context, receiver, _ = (
        ContextBuilder(Quote)
        .with_tasks([Task(functions[cost], f"{i}") for i, cost in enumerate(costs_ms)])
        .with_interval(TaskInterval.micros(1))
        .with_config(config)
        .build()
    )
    best: list[float] = []
    runner = Runner(context)
    with runner:
        for _ in range(ticks):
            durations = receiver.recv().durations.values()
            best.append(max(*durations, sum(durations) / CORES))
    return runner.stats.duration.p50 * 1e3, median(best) * 1e3


def _compare(costs_ms: list[float], effort: Effort) -> Rounds:
    ticks = max(3, int(effort.seconds * 60))
    rounds: Rounds = {"best on two cores": [], "inline": [], "threads": []}
    for _ in range(effort.repeats):
        # Inline, tasks do not get into each other's way: what they take there is what they cost.
        inline, best = ticks_of(costs_ms, RunnerConfig(executor="inline"), ticks)
        threads, _ = ticks_of(costs_ms, RunnerConfig(executor="threads", workers=CORES), ticks)
        for values, value in zip(rounds.values(), (best, inline, threads)):
            values.append(value)
    return rounds


def parallel(effort: Effort) -> Iterator[Question]:
    rounds = _compare([5.0] * 8, effort)
    gain = Figure.of_ratios(rounds["inline"], rounds["threads"])
    goal = Goal(Bound.AT_LEAST, 1.8)
    yield Question(
        "Parallel: ms a tick of 8 tasks of 5 ms",
        [
            *compared(rounds, "ms"),
            Line("gain of threads over inline", Role.OURS, "x", gain, goal=goal),
        ],
    )
    rounds = _compare([20.0] + [0.5] * 63, effort)
    goals = {"threads": Goal(Bound.AT_MOST, 1.15)}
    yield Question(
        "Parallel: ms a tick of 1 task of 20 ms and 63 of 0.5 ms",
        compared(rounds, "ms", goals=goals),
    )


SECTION = Section("parallel", parallel)
