"""Results of expressions have the same bits alone and among others, by key, live and replayed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.conftest import ROOT
from tests.support.expressions import EXPRESSIONS, replayed, series_of, trades

from run_task import Closed, ContextBuilder, Runner, RunnerConfig, TimeUnit, VirtualClock
from run_task.expressions import _plan, expr
from run_task.tasks._declared import Segments
from run_task.testing import run_windows

COLUMNS = series_of().view().columns


def segments(frame: pl.DataFrame, starts: Sequence[int], ends: Sequence[int]) -> Segments:
    """Stretches of rows as segments."""
    texts = frame["symbol"].unique(maintain_order=True).to_list()
    codes = np.array([texts.index(text) for text in frame["symbol"]], np.int32)
    count = len(starts)
    return Segments(
        times=lambda: frame["time"].dt.epoch("s").to_numpy(),
        column=lambda name: codes if name == "symbol" else frame[name].to_numpy(),
        texts=lambda _: texts,
        starts=np.array(starts, np.intp),
        ends=np.array(ends, np.intp),
        window_starts=np.zeros(count, np.int64),
        window_ends=np.zeros(count, np.int64),
        unit=TimeUnit.SECONDS,
    )


def bits(values: Any) -> str:
    """Values with all of their bits: of floats, repr() has as many digits as tell them apart."""
    return repr(values)


def computed(tasks: Sequence[Any], rows: Segments) -> list[str]:
    """The results of each task."""
    return [bits(column) for column in _plan.plan(tasks, COLUMNS).compute(rows)]


def alone(tasks: Sequence[Any], frame: pl.DataFrame, starts: Any, ends: Any) -> list[str]:
    """The same, with each segment by itself."""
    plan = _plan.plan(tasks, COLUMNS)
    each = [
        plan.compute(segments(frame[start:end], [0], [end - start]))
        for start, end in zip(starts, ends)
    ]
    return [bits([results[place][0] for results in each]) for place in range(len(tasks))]


lengths = st.lists(st.integers(0, 40) | st.integers(100, 2000), min_size=1, max_size=25)


@settings(max_examples=30, deadline=None)
@given(lengths=lengths, seed=st.integers(0, 2**32), scale=st.integers(0, 12))
def test_a_window_alone_and_among_others(lengths: list[int], seed: int, scale: int) -> None:
    ends = np.cumsum(lengths).tolist()
    starts = [end - length for end, length in zip(ends, lengths)]
    frame = trades(ends[-1], seed, scale=scale)
    together = computed(EXPRESSIONS, segments(frame, starts, ends))
    assert together == alone(EXPRESSIONS, frame, starts, ends)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_windows_that_overlap_or_leave_rows_out(data: st.DataObject, seed: int) -> None:
    frame = trades(500, seed)
    bounds = st.lists(st.integers(0, 500), min_size=2, max_size=2).map(sorted)
    pairs = data.draw(st.lists(bounds, min_size=1, max_size=12))
    starts, ends = zip(*pairs)
    together = computed(EXPRESSIONS, segments(frame, starts, ends))
    assert together == alone(EXPRESSIONS, frame, starts, ends)


@pytest.mark.parametrize("chunk", [1, 100, 3000])
def test_however_many_are_computed_at_once(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = trades(5000, 5)
    ends: NDArray[np.int64] = np.sort(np.random.default_rng(0).integers(0, 5001, 60))
    rows = segments(frame, [0, *ends[:-1].tolist()], ends.tolist())
    whole = computed(EXPRESSIONS, rows)
    monkeypatch.setattr(_plan, "_CHUNK", chunk)
    assert computed(EXPRESSIONS, rows) == whole


def test_whatever_other_expressions_there_are() -> None:
    frame = trades(3000, 6)
    rows = segments(frame, range(0, 3000, 100), range(100, 3100, 100))
    together = computed(EXPRESSIONS, rows)
    assert together == [computed([each], rows)[0] for each in EXPRESSIONS]
    assert together[::-1] == computed(EXPRESSIONS[::-1], rows)


def test_large_windows() -> None:
    lengths = [300_000, 1, 50_000, 200_000]
    ends = np.cumsum(lengths).tolist()
    starts = [end - length for end, length in zip(ends, lengths)]
    frame = trades(ends[-1], 7)
    together = computed(EXPRESSIONS, segments(frame, starts, ends))
    assert together == alone(EXPRESSIONS, frame, starts, ends)


def test_by_key_as_the_rows_of_the_key_alone() -> None:
    frame = trades(2000, 8)
    keyed = replayed(EXPRESSIONS, frame, by="symbol")
    for key in ("s0", "s3"):
        of_key = replayed(EXPRESSIONS, frame.filter(pl.col("symbol") == key))
        single = {dataset.window: dataset.to_dict() for dataset in of_key}
        found = 0
        for dataset in keyed:
            results = {name: dataset[name].get(key) for name in dataset}
            if results["rows"] is not None:
                assert bits(results) == bits(single[dataset.window])
                found += 1
        assert found > 50


@pytest.mark.parametrize("closed", Closed)
@pytest.mark.parametrize("window", [None, "25s", "4s"])
def test_live_replayed_and_run_one_by_one(closed: Closed, window: str | None) -> None:
    frame = trades(600, 9)
    config: Any = {} if window is None else {"window": window}
    replay = replayed(EXPRESSIONS, frame, closed=closed, **config)
    series = series_of(frame, closed=closed)
    builder = ContextBuilder(series).with_tasks(EXPRESSIONS).with_interval("10s")
    context, receiver, _ = builder.with_config(RunnerConfig(**config)).build()
    start = replay[0].timestamp - 1
    single = run_windows(context, len(replay), start=start)
    assert [d.window for d in single] == [d.window for d in replay]
    assert bits([d.to_dict() for d in single]) == bits([d.to_dict() for d in replay])

    clock = VirtualClock(start_ns=start * 10**9)
    live: list[Any] = []
    with Runner(context, clock=clock):
        for _ in replay:
            clock.advance("10s")
            live.append(receiver.recv(timeout=10))
    assert [d.window for d in live] == [d.window for d in replay]
    assert bits([d.to_dict() for d in live]) == bits([d.to_dict() for d in replay])


PROGRAM = """
import hashlib, polars as pl
from tests.support.expressions import EXPRESSIONS, replayed, trades
assert pl.thread_pool_size() == {threads}
results = [d.to_dict() for d in replayed(EXPRESSIONS, trades(20_000, 10), "60s", **{config})]
print(hashlib.sha256(repr(results).encode()).hexdigest())
"""


@pytest.mark.parametrize("config", [{}, {"by": "symbol"}, {"window": "3m"}], ids=repr)
def test_however_many_threads_polars_has(config: dict[str, str]) -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM.format(threads=threads, config=config)],
            env={**os.environ, "POLARS_MAX_THREADS": str(threads), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in (1, 2, 7)
    }
    assert len(digests) == 1


def test_whatever_engine_the_program_prefers() -> None:
    frame = trades(1000, 11)
    in_memory = bits([d.to_dict() for d in replayed(EXPRESSIONS, frame)])
    with pl.Config(engine_affinity="streaming"):
        assert bits([d.to_dict() for d in replayed(EXPRESSIONS, frame)]) == in_memory


def test_what_is_random_with_a_seed_is_the_same_each_time() -> None:
    frame = trades(500, 12)
    tasks = [expr(pl.col("price").sample(1, seed=1).first(), name="drawn")]
    starts, ends = list(range(0, 500, 50)), list(range(50, 550, 50))
    assert computed(tasks, segments(frame, starts, ends)) == alone(tasks, frame, starts, ends)
