"""Results of expressions have the same bits alone and among others, by key, live and replayed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.conftest import ROOT
from tests.support.expressions import EXPRESSIONS, replayed, series_of, trades
from tests.support.proof import examples

from run_task import (
    Closed,
    ConfigError,
    ContextBuilder,
    Runner,
    RunnerConfig,
    TimeUnit,
    VirtualClock,
)
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
        spans=lambda: (np.array(starts, np.intp), np.array(ends, np.intp)),
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


@settings(max_examples=examples(30), deadline=None)
@given(lengths=lengths, seed=st.integers(0, 2**32), scale=st.integers(0, 12))
def test_a_window_alone_and_among_others(lengths: list[int], seed: int, scale: int) -> None:
    ends = np.cumsum(lengths).tolist()
    starts = [end - length for end, length in zip(ends, lengths)]
    frame = trades(ends[-1], seed, scale=scale)
    together = computed(EXPRESSIONS, segments(frame, starts, ends))
    assert together == alone(EXPRESSIONS, frame, starts, ends)


_Step: TypeAlias = Callable[[pl.Expr], pl.Expr]

_numbers = st.sampled_from([pl.col("price"), pl.col("size")])

_BY_VALUE: Sequence[_Step] = (
    lambda x: x.abs(), lambda x: -x, lambda x: x.sqrt(), lambda x: (x / 1e9).exp(),
    lambda x: x.round(3), lambda x: x.clip(-1.0, 1e6), lambda x: x.cast(pl.Float32),
    lambda x: x.sin(),
    lambda x: x.fill_nan(None), lambda x: x.fill_nan(None).fill_null(0.5),
    lambda x: pl.when(x > 0).then(x), lambda x: pl.when(pl.col("size") > 0).then(x).otherwise(1.5),
    lambda x: x * (pl.col("symbol") == "s1"), lambda x: pl.max_horizontal(x, "size"),
    lambda x: x - pl.col("price").mean(), lambda x: x / pl.col("size").std(),
    lambda x: pl.when(x > x.median()).then(x).otherwise(x.first()),
)  # fmt: skip

_BY_ROWS: Sequence[_Step] = (
    lambda x: x.filter(x > 0), lambda x: x.filter(pl.col("symbol") == "s2"), lambda x: x.sort(),
    lambda x: x.sort(descending=True), lambda x: x.sort_by("size"), lambda x: x.head(7),
    lambda x: x.tail(9), lambda x: x.slice(2, 20), lambda x: x.top_k(11), lambda x: x.bottom_k(5),
    lambda x: x.unique(maintain_order=True), lambda x: x.reverse(), lambda x: x.gather_every(3),
    lambda x: x.drop_nulls(), lambda x: x.drop_nans(), lambda x: x.shift(2), lambda x: x.diff(),
    lambda x: x.cum_sum(), lambda x: x.cum_max(), lambda x: x.rank(), lambda x: x.rolling_mean(4),
    lambda x: x.rolling_std(5), lambda x: x.rolling_sum(3, min_samples=1), lambda x: x.pct_change(),
    lambda x: x.ewm_mean(alpha=0.2), lambda x: x.ewm_std(alpha=0.3), lambda x: x.interpolate(),
    lambda x: x.forward_fill(), lambda x: x.mean().over("symbol"),
    lambda x: x - x.sum().over("symbol"),
    lambda x: x.arg_sort(), lambda x: x.gather(x.arg_sort()), lambda x: x.append(x * 3),
)  # fmt: skip

_AGGREGATED: Sequence[_Step] = (
    lambda x: x.sum(), lambda x: x.mean(), lambda x: x.std(), lambda x: x.var(ddof=0),
    lambda x: x.median(), lambda x: x.quantile(0.3, "linear"),
    lambda x: x.quantile(0.7, "nearest"),
    lambda x: x.min(), lambda x: x.max(), lambda x: x.first(), lambda x: x.last(),
    lambda x: x.skew(),
    lambda x: x.kurtosis(), lambda x: x.n_unique(), lambda x: x.count(), lambda x: x.arg_max(),
    lambda x: pl.corr(x, pl.col("size")), lambda x: pl.cov(x, pl.col("price")),
    lambda x: x.product(),
    lambda x: x.implode(), lambda x: x.implode().list.mean(), lambda x: x.implode().list.sum(),
    lambda x: x.implode().list.std(),
    lambda x: x.implode().list.sort().list.get(0, null_on_oob=True),
    lambda x: x.dot(pl.col("size")), lambda x: x.entropy(), lambda x: x.mode().max(),
    lambda x: x.map_batches(lambda s: s.sum(), return_dtype=pl.Float64, returns_scalar=True),
)  # fmt: skip


def _taken(step: _Step, column: pl.Expr) -> pl.Expr:
    return step(column)


def _both(one: pl.Expr, other: pl.Expr, how: str) -> pl.Expr:
    both = {"*": one * other, "-": one - other, "struct": pl.struct(a=one, b=other)}
    return both[how]


def _if_many(result: pl.Expr) -> pl.Expr:
    return pl.when(pl.len() > 3).then(result)


def _more_columns(inner: st.SearchStrategy[pl.Expr]) -> st.SearchStrategy[pl.Expr]:
    steps = st.sampled_from([*_BY_VALUE, *_BY_ROWS])
    return st.builds(_taken, steps, inner) | st.builds(_both, inner, _numbers, st.just("*"))


def _more_results(inner: st.SearchStrategy[pl.Expr]) -> st.SearchStrategy[pl.Expr]:
    return st.builds(_both, inner, inner, st.sampled_from(["-", "struct"])) | st.builds(
        _if_many, inner
    )


_columns = st.recursive(_numbers, _more_columns, max_leaves=4)
_results = st.recursive(
    st.builds(_taken, st.sampled_from(_AGGREGATED), _columns), _more_results, max_leaves=2
)


@settings(max_examples=examples(300), deadline=None)
@given(
    expression=_results,
    lengths=st.lists(st.integers(0, 40) | st.integers(100, 300), min_size=2, max_size=8),
    seed=st.integers(0, 2**32),
    scale=st.integers(0, 12),
)
@example(
    expression=pl.col("price").filter(pl.col("price") > 0).mean(),
    lengths=[28, 7],
    seed=3119359,
    scale=0,
)
def test_whatever_the_expression(
    expression: pl.Expr, lengths: list[int], seed: int, scale: int
) -> None:
    """What is not refused has the same bits, whatever is within."""
    ends = np.cumsum(lengths).tolist()
    starts = [end - length for end, length in zip(ends, lengths)]
    frame = trades(ends[-1], seed, scale=scale).with_columns(
        price=pl.when(pl.int_range(pl.len()) % 13 != 5).then("price").otherwise(float("nan"))
    )
    tasks = [expr(expression, name="result")]
    try:
        together = computed(tasks, segments(frame, starts, ends))
    except ConfigError:
        reject()
    assert together == alone(tasks, frame, starts, ends)
    with_others = [*tasks, expr(pl.col("price").sum(), name="other")]
    assert computed(with_others, segments(frame, starts, ends))[:1] == together


@settings(max_examples=examples(25), deadline=None)
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
results = [d.to_dict() for d in replayed(EXPRESSIONS, trades(5_000, 10), "60s", **{config})]
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
        for threads in (1, 7)
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
