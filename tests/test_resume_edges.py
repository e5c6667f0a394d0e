"""Wherever a run ended or was killed, and however its recording has grown since, resuming it gives
the table of a run that had all rows and was never disturbed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.proof import examples

from run_task import (
    Align,
    Closed,
    Pipeline,
    RunnerConfig,
    RwLock,
    Stage,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.sinks import Result, Row

Table = dict[tuple[str, int], Any]


@dataclass
class MemorySink:
    """A durable sink that lasts as long as its test.

    :ivar held: what it holds
    :ivar written: all that was written, one after another: a kill leaves some of it
    """

    held: Table = field(default_factory=dict[tuple[str, int], Any])
    written: list[tuple[tuple[str, int], Any]] = field(
        default_factory=list[tuple[tuple[str, int], Any]]
    )

    def begin(self, pipeline: str, /) -> None: ...

    def last(self, stage: str, /) -> int | None:
        return max((end for name, end in self.held if name == stage), default=None)

    def rows(self, stage: str | None = None, /) -> Iterator[Row]:
        return iter(())

    def write(self, result: Result, /) -> None:
        key = result.stage, result.window.end
        what = (result.window.start, result.dataset.to_dict())
        self.written.append((key, what))
        self.held[key] = what

    def flush(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Plan:
    """A pipeline of three stages in a row, and one beside them.

    :ivar apart: whether each stage has a sink of its own
    """

    interval: int
    window: int | None
    grace: int | None
    down_window: int | None
    align: Align
    apart: bool

    def make(self, times: Sequence[int], sinks: Sequence[MemorySink]) -> Pipeline:
        def config(window: int | None) -> RunnerConfig:
            return RunnerConfig(
                window=None if window is None else TaskInterval.seconds(window),
                grace=None if self.grace is None else TaskInterval.seconds(self.grace),
                align=self.align,
            )

        series = TimeSeries({"v": float}, TimeUnit.SECONDS)
        sums = TimeSeries({"total": float}, TimeUnit.SECONDS, closed=Closed.RIGHT)
        totals = RwLock[list[float]]([])
        pipeline = Pipeline("p")
        pipeline.source([(t, {"v": float(i)}) for i, t in enumerate(times)], series)
        interval = TaskInterval.seconds(self.interval)
        up = pipeline.stage("up", [total], series, interval, config(self.window)).into(sums)
        mid = pipeline.stage("mid", [sum_of], sums, interval, config(self.down_window))
        mid.into(totals, lambda values, dataset: values.append(dataset[sum_of]))
        down = pipeline.stage("down", [all_of], totals, TaskInterval.seconds(2 * self.interval))
        beside = pipeline.stage("beside", [total], series, TaskInterval.seconds(7))
        stages: list[Stage[Any, Any]] = [up, mid, down, beside]
        for number, stage in enumerate(stages):
            stage.sink(sinks[number if self.apart else 0])
        return pipeline


@task
def total(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view.in_window["v"].sum())


@task
def sum_of(view: TimeSeriesView, start: int, end: int) -> float:
    return float(view.in_window["total"].sum())


@task
def all_of(values: list[float], start: int, end: int) -> list[float]:
    return list(values)


PLANS = st.builds(
    Plan,
    st.sampled_from([3, 5, 10]),
    st.sampled_from([None, 20, 31]),
    st.sampled_from([None, 1, 15]),
    st.sampled_from([None, 30]),
    st.sampled_from(Align),
    st.booleans(),
)
STEPS = st.lists(st.sampled_from([0, 1, 1, 2, 3, 8, 30, -2, -9]), min_size=1, max_size=30)


@given(PLANS, STEPS, st.lists(st.tuples(st.integers(1, 31), st.floats(0, 1)), max_size=4))
@example(Plan(10, None, 15, None, Align.EPOCH, False), [23, -5, 22], [(1, 1.0)])
@settings(max_examples=examples(200), deadline=None)
def test_ends_up_as_if_nothing_had_happened(
    plan: Plan, steps: list[int], runs: list[tuple[int, float]]
) -> None:
    times = [23 + sum(steps[: i + 1]) for i in range(len(steps))]
    undisturbed = [MemorySink() for _ in range(4)]
    for _ in plan.make(times, undisturbed).replay():
        pass
    sinks = [MemorySink() for _ in range(4)]
    for known, kept in sorted(runs):
        before = [dict(sink.held) for sink in sinks]
        resume(plan, times[:known], sinks)
        for i, sink in enumerate(sinks):
            # Of this run, only so much had been flushed when it was killed.
            flushed = sink.written[: int(kept * len(sink.written))]
            sinks[i] = MemorySink(before[i] | dict(flushed))
    resume(plan, times, sinks)
    for sink, expected in zip(sinks, undisturbed, strict=True):
        assert sink.held == expected.held
    # It computes the last ones again, and changes nothing.
    resume(plan, times, sinks)
    for sink, expected in zip(sinks, undisturbed, strict=True):
        assert sink.held == expected.held


def resume(plan: Plan, times: Sequence[int], sinks: list[MemorySink]) -> None:
    """Resume each stage from its own sink."""
    used = range(4) if plan.apart else range(1)
    for number in used:
        for _ in plan.make(times, sinks).resume(sinks[number]):
            pass


def test_what_is_computed_again_is_the_last_window_and_as_far_back_as_rows_may_have_lacked() -> (
    None
):
    def again(plan: Plan, stage: str) -> list[int]:
        sinks = [MemorySink() for _ in range(4)]
        times = range(100)
        for _ in plan.make(times, sinks).replay():
            pass
        pipeline = plan.make(times, sinks)
        return [d.window.end for name, d in pipeline.resume(sinks[0]) if name == stage]

    alone = Plan(10, None, None, None, Align.EPOCH, False)
    assert again(alone, "up") == [100]
    assert again(alone, "beside") == [105]
    assert again(alone, "mid") == [90, 100]  # up's window, and so the one that it was a row of
    patient = Plan(10, None, 15, None, Align.EPOCH, False)
    assert again(patient, "up") == [80, 90, 100]
    sliding = Plan(10, 20, None, None, Align.EPOCH, False)
    assert again(sliding, "up") == [100, 110]
