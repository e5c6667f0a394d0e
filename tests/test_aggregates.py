"""What aggregates compute: against exact arithmetic, and against polars where that has them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.proof import examples
from tests.support.segments import STYLES, TEXTS, Rows, made, plan_of

from run_task import Closed, TimeSeries, TimeUnit
from run_task import aggregates as agg
from run_task.aggregates import Aggregate, LinearTrend, Ohlc

NAN, INF = math.nan, math.inf


def of(task: Aggregate[Any], values: Sequence[Any], *, kind: Any = float, **more: Any) -> Any:
    """The result of one window with these values, a second apart from 0 on, to 60 s.

    :param more: other columns, and ``time``, in milliseconds
    """
    time = more.pop("time", [1000 * i for i in range(len(values))])
    columns = {"v": values, **more}
    kinds = {name: float if name != "v" else kind for name in columns}
    series = TimeSeries(kinds, TimeUnit.MILLIS)
    series.extend(time, **columns)
    with series.read() as view:
        return task.run(view.for_window(0, 60_000), 0, 60_000)


def same(found: Any, wanted: Any, tolerance: float = 0.0) -> bool:
    """Whether two results are the same, or nearly so."""
    if found is None or wanted is None:
        return found is wanted
    if isinstance(found, float) and math.isnan(found):
        return isinstance(wanted, float) and math.isnan(wanted)
    if not tolerance or not math.isfinite(wanted):
        return bool(found == wanted) and type(found) is type(wanted)
    return bool(abs(found - wanted) <= tolerance)


# Against exact arithmetic


def exactly(values: Sequence[float]) -> list[Fraction]:
    return [Fraction(value) for value in values]


def exact_mean(values: Sequence[float]) -> Fraction:
    return sum(exactly(values), Fraction()) / len(values)


def exact_squares(values: Sequence[float]) -> Fraction:
    mean = exact_mean(values)
    return sum(((value - mean) ** 2 for value in exactly(values)), Fraction())


FINITE = tuple(style for style in STYLES if style != "odd")


def one_window(count: int, seed: int, style: str) -> Rows:
    time = np.sort(np.random.default_rng(seed).integers(0, 60_000, count))
    return made(time, seed, style)


def computed(tasks: Sequence[Aggregate[Any]], rows: Rows) -> list[Any]:
    segments = rows.segments([0], [len(rows)], [(0, 60_000)])
    return [each for (each,) in plan_of(tasks).compute(segments)]


@given(st.integers(1, 200), st.integers(0, 2**32), st.sampled_from(FINITE))
def test_moments_are_as_good_as_floats_can_be(count: int, seed: int, style: str) -> None:
    rows = one_window(count, seed, style)
    values: list[float] = rows.columns["a"].tolist()
    total, mean, var, std = computed(
        [agg.sum("a"), agg.mean("a"), agg.var("a"), agg.std("a")], rows
    )
    rounding = 2.0**-53 * (math.log2(count) + 8)  # of pairwise sums
    size = math.fsum(map(abs, values))
    assert abs(total - math.fsum(values)) <= rounding * size
    assert abs(mean - float(exact_mean(values))) <= rounding * size / count
    if count == 1:
        assert var is std is None
        return
    exact = float(exact_squares(values) / (count - 1))
    # Not as ill-conditioned as the data is: a variance of 1e-6 around 1e9 has all its digits.
    assert var == pytest.approx(exact, rel=1e-13 * math.log2(count + 2), abs=1e-300)
    assert std == pytest.approx(math.sqrt(exact), rel=1e-13 * math.log2(count + 2), abs=1e-150)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8))
def test_sums_of_ints_are_exact_or_refused(values: list[int]) -> None:
    wanted = sum(values)
    if -(2**63) <= wanted < 2**63:
        assert of(agg.sum("v"), values, kind=int) == wanted
        return
    with pytest.raises(OverflowError, match=rf"sum\('v'\): the sum of the .* is {wanted}, which"):
        of(agg.sum("v"), values, kind=int)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("uint64", [2**64 - 1]),
        ("uint64", [2**63, 2**62]),
        ("uint64", [2**63, 2**63 - 1, 0]),
        ("uint64", [2**63, 2**63]),
        ("uint64", [2**64 - 1] * 5),
        ("int8", [-128] * 3),
        (bool, [True] * 3),
    ],
)
def test_sums_of_narrow_wide_and_unsigned_ints(kind: Any, values: list[int]) -> None:
    if sum(values) >= 2 ** (64 if kind == "uint64" else 63):
        with pytest.raises(OverflowError):
            of(agg.sum("v"), values, kind=kind)
        return
    assert same(of(agg.sum("v"), values, kind=kind), sum(values))


def test_a_sum_that_overflows_fails_that_window_only() -> None:
    rows = one_window(3, 1, "plain")
    rows = Rows(rows.time, {**rows.columns, "n": np.array([2**62, 2**62, 5])})
    segments = rows.segments([0, 2, 0], [2, 3, 1], [(0, 1)] * 3)
    sums, means = plan_of([agg.sum("n"), agg.mean("n")]).compute(segments)
    assert isinstance(sums[0].error, OverflowError)
    assert sums[1:] == [5, 2**62]
    assert means == [2.0**62, 5.0, 2.0**62]


@pytest.mark.parametrize("value", [0.1, 1e9 + 1e-3, -7e100, 5e-324, 0.0])
@pytest.mark.parametrize("count", [2, 3, 7, 50])
def test_equal_values_have_no_spread(value: float, count: int) -> None:
    assert of(agg.std("v"), [value] * count) == 0.0
    assert of(agg.var("v", ddof=0), [value] * count) == 0.0
    assert math.isnan(of(agg.corr("v", "w"), [value] * count, w=list(range(count))))


def test_a_spread_whose_square_is_nothing_is_none() -> None:
    assert of(agg.std("v"), [0.0, 1e-308]) == 0.0
    assert math.isnan(of(agg.corr("v", "w"), [0.0, 1e-308], w=[1.0, 2.0]))


@given(st.integers(2, 100), st.integers(0, 2**32), st.sampled_from(FINITE))
def test_correlation_and_trend_against_exact_arithmetic(count: int, seed: int, style: str) -> None:
    rows = one_window(count, seed, style)
    one: list[float] = rows.columns["a"].tolist()
    other: list[float] = rows.columns["b"].tolist()
    correlation, trend = computed([agg.corr("a", "b"), agg.linear_trend("a")], rows)
    mean_one, mean_other = exact_mean(one), exact_mean(other)
    squares = exact_squares(one), exact_squares(other)
    if all(squares):
        together = sum(
            ((a - mean_one) * (b - mean_other) for a, b in zip(exactly(one), exactly(other))),
            Fraction(),
        )
        root = math.sqrt(float(squares[0])) * math.sqrt(float(squares[1]))
        assert correlation == pytest.approx(float(together) / root, abs=1e-12)
    times = [Fraction(t, 1000) for t in rows.time.tolist()]
    middle = sum(times, Fraction()) / count
    across = sum(((t - middle) ** 2 for t in times), Fraction())
    if not across:
        assert trend is None
        return
    slope = (
        sum(((t - middle) * (a - mean_one) for t, a in zip(times, exactly(one))), Fraction())
        / across
    )
    scale = max(map(abs, one)) / math.sqrt(float(across)) * 1e-12
    if style == "large":
        scale = 1e-3 / math.sqrt(float(across)) * 1e-3
    assert trend.slope == pytest.approx(float(slope), abs=scale)
    middle_float = float(middle)
    level = max(map(abs, one)) * 1e-12 * (1 + middle_float) + scale * middle_float
    assert trend.intercept == pytest.approx(float(mean_one - slope * middle), abs=level)


# Against polars


FRAME: list[tuple[Aggregate[Any], Callable[[pl.Expr], pl.Expr], float]] = [
    (agg.count(), lambda c: c.len(), 0),
    (agg.first("v"), lambda c: c.first(), 0),
    (agg.last("v"), lambda c: c.last(), 0),
    (agg.min("v"), lambda c: c.min(), 0),
    (agg.max("v"), lambda c: c.max(), 0),
    (agg.sum("v"), lambda c: c.sum(), 1e-12),
    (agg.mean("v"), lambda c: c.mean(), 1e-12),
    (agg.var("v"), lambda c: c.var(), 1e-12),
    (agg.var("v", ddof=0), lambda c: c.var(ddof=0), 1e-12),
    (agg.std("v"), lambda c: c.std(), 1e-12),
    (agg.std("v", ddof=2), lambda c: c.std(ddof=2), 1e-12),
    (agg.median("v"), lambda c: c.median(), 0),
    *(
        (agg.quantile("v", q, interpolation=how), lambda c, q=q, how=how: c.quantile(q, how), 1e-12)
        for q in (0.0, 0.25, 0.5, 0.9, 1.0)
        for how in ("linear", "lower", "higher", "nearest", "midpoint")
    ),
    (agg.n_unique("v"), lambda c: c.n_unique(), 0),
    (agg.argmin("v"), lambda c: pl.col("t").get(c.arg_min()), 0),
    (agg.argmax("v"), lambda c: pl.col("t").get(c.arg_max()), 0),
    (agg.corr("v", "w"), lambda c: pl.corr(c, "w"), 1e-12),
    (agg.vwap("v", "w"), lambda c: (c * pl.col("w")).sum() / pl.col("w").sum(), 1e-12),
    (
        agg.ewm("v", "2s"),
        lambda c: c.ewm_mean_by(pl.from_epoch("t", "ms"), half_life="2s").last(),
        1e-12,
    ),
]  # fmt: skip

VALUES = st.lists(
    st.one_of(st.sampled_from([0.0, -0.0, 1.0, NAN, INF, -INF]), st.floats(-1e3, 1e3)),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize(
    ("task", "expression", "tolerance"), FRAME, ids=[str(row[0]) for row in FRAME]
)
@settings(max_examples=examples(25))
@given(VALUES, st.integers(0, 2**16))
def test_as_polars_has_it(
    task: Aggregate[Any],
    expression: Callable[[pl.Expr], pl.Expr],
    tolerance: float,
    values: list[float],
    seed: int,
) -> None:
    weights = np.random.default_rng(seed).integers(1, 9, len(values)).astype(float).tolist()
    times = [1000 * i for i in range(len(values))]
    frame = pl.DataFrame(
        {"v": values, "w": weights, "t": times}, schema_overrides={"v": pl.Float64}
    )
    (wanted,) = frame.select(expression(pl.col("v")).alias("x"))["x"].to_list()
    found = of(task, values, w=weights)
    size = max((abs(v) for v in values if math.isfinite(v)), default=1.0)
    spread = size * size if "var" in task.name or "std" in task.name else size
    if "std" in task.name and wanted is not None and math.isfinite(wanted):
        assert found * found == pytest.approx(wanted * wanted, abs=1e-9 * spread)
        return
    if "corr" in task.name and len(set(values)) == 1:
        assert math.isnan(found)  # where polars may take its rounding for a spread
        return
    assert same(found, wanted, tolerance * (1 + spread) * len(values)), (found, wanted)


NOT_AS_POLARS = (agg.sum("v"), agg.corr("v", "w"))


def test_windows_without_rows_as_polars_has_them_but_for_sums_and_correlations() -> None:
    frame = pl.DataFrame({"v": [], "w": [], "t": []}, schema=dict.fromkeys("vwt", pl.Float64))
    for task, expression, _ in FRAME:
        found = of(task, [], w=[])
        if task in NOT_AS_POLARS or task.name in ("v_vwap", "v_ewm") or "arg" in task.name:
            assert found is None
            continue
        (wanted,) = frame.select(expression(pl.col("v")).alias("x"))["x"].to_list()
        assert same(found, wanted), task


# Each by itself


def test_results_are_plain_python_values() -> None:
    assert type(of(agg.min("v"), [3, 5], kind="int16")) is int
    assert type(of(agg.max("v"), [0.5], kind="float32")) is float
    assert of(agg.min("v"), [True, False], kind=bool) is False
    assert of(agg.first("v"), ["a", "b"], kind=str) == "a"
    assert of(agg.last("v"), ["a", "b"], kind="U3") == "b"
    assert of(agg.last("v"), [b"a", b"b"], kind="S3") == b"b"
    assert of(agg.n_unique("v"), ["a", "b", "a"], kind=str) == 2
    assert of(agg.n_unique("v"), [b"a", b"b"], kind="S2") == 2
    assert of(agg.mean("v"), [True, False], kind=bool) == 0.5
    assert of(agg.median("v"), [1, 2], kind=int) == 1.5


def test_times_stay_of_their_unit() -> None:
    found = of(agg.last("v"), [1, 2], kind="datetime64[ns]")
    assert found == np.datetime64(2, "ns")
    assert of(agg.n_unique("v"), [1, 2, 2], kind="datetime64[ms]") == 2


def test_a_spread_beyond_what_floats_hold_is_infinite() -> None:
    for values in ([1e200, 0.0, 0.0], [1e300, -1e300], [3e200, 1e200, 2e200, 7.0]):
        assert of(agg.var("v"), values) == INF
        assert of(agg.std("v"), values) == INF


def test_ohlc() -> None:
    found = of(agg.ohlc("v"), [3.0, 9.0, NAN, 1.0, 4.0])
    assert found == Ohlc(open=3.0, high=9.0, low=1.0, close=4.0)


def test_min_and_max_of_zeros_are_positive() -> None:
    for values in ([0.0, -0.0], [-0.0, 0.0], [-0.0] * 40):
        for task in (agg.min("v"), agg.max("v"), agg.median("v"), agg.quantile("v", 0.3)):
            assert repr(of(task, values)) == "0.0"
    assert repr(of(agg.first("v"), [-0.0, 0.0])) == "-0.0"


def test_increase_and_rate_see_that_a_counter_began_anew() -> None:
    values = [10.0, 15.0, 2.0, 2.0, 7.0]
    assert of(agg.increase("v"), values) == 5 + 2 + 0 + 5
    assert of(agg.rate("v"), values) == 12 / 4
    assert of(agg.increase("v"), [10.0]) is None
    assert of(agg.rate("v"), [1.0, 2.0], time=[500, 500]) is None
    assert of(agg.increase("v"), [2**62, 2**62 + 3], kind=int) == 3.0
    assert of(agg.increase("v"), [-100, 100], kind="int8") == 200.0
    assert of(agg.increase("v"), [250, 3], kind="uint8") == 3.0
    # Further apart than 64 bits with a sign hold.
    assert of(agg.increase("v"), [-(2**63), 2**63 - 1], kind=int) == 2.0**64
    assert of(agg.rate("v"), [-(2**63), 0], time=[0, 2_000], kind=int) == 2.0**62
    assert of(agg.increase("v"), [0, 2**64 - 1], kind="uint64") == 2.0**64


def test_time_weighted_mean_holds_each_value_until_the_next() -> None:
    found = of(agg.time_weighted_mean("v"), [1.0, 5.0, 2.0], time=[0, 10_000, 40_000])
    assert found == (1 * 10 + 5 * 30 + 2 * 20) / 60
    assert of(agg.time_weighted_mean("v"), [4.0], time=[59_999]) == 4.0
    assert of(agg.time_weighted_mean("v"), [4.0, 6.0], time=[7, 7]) == 6.0


def test_time_weighted_mean_of_rows_at_the_closed_end_is_the_last_value() -> None:
    series = TimeSeries({"v": float}, TimeUnit.MILLIS, closed=Closed.RIGHT)
    series.extend([60_000, 60_000], v=[1.0, 3.0])
    with series.read() as view:
        assert agg.time_weighted_mean("v").run(view.for_window(0, 60_000), 0, 60_000) == 3.0


def test_ewm_by_half_lives() -> None:
    assert of(agg.ewm("v", "1s"), [8.0, 0.0, 0.0]) == 2.0
    assert of(agg.ewm("v", "2s"), [1.0, 3.0], time=[0, 4000]) == pytest.approx(1 / 4 + 3 * 3 / 4)
    assert of(agg.ewm("v", "1s"), [1.0, 3.0], time=[0, 0]) == 1.0


def test_linear_trend_is_a_second_and_from_the_start_of_the_window() -> None:
    found = of(agg.linear_trend("v"), [3.0, 5.0, 7.0], time=[10_000, 20_000, 30_000])
    assert found == LinearTrend(slope=0.2, intercept=1.0)
    assert of(agg.linear_trend("v"), [3.0]) is None


def test_linear_trend_of_nanoseconds_since_the_epoch() -> None:
    series = TimeSeries({"v": float}, TimeUnit.NANOS)
    start = 1_700_000_000_000_000_000
    series.extend([start + 1, start + 2, start + 3], v=[1.0, 2.0, 3.0])
    with series.read() as view:
        found = agg.linear_trend("v").run(view.for_window(start, start + 60), start, start + 60)
    assert found is not None
    assert found.slope == pytest.approx(1e9)


def test_argmin_and_argmax_tell_the_first_time() -> None:
    values = [3.0, 1.0, NAN, 1.0, 3.0]
    assert of(agg.argmin("v"), values) == 1000
    assert of(agg.argmax("v"), values) == 0
    assert of(agg.argmax("v"), [NAN, NAN]) == 0


@given(VALUES, st.floats(0, 1))
def test_quantiles_by_definition(values: list[float], q: float) -> None:
    finite = sorted(v for v in values if math.isfinite(v))
    if not finite:
        return
    found = of(agg.quantile("v", q), finite)
    place = (len(finite) - 1) * q
    low = finite[math.floor(place)]
    high = finite[math.ceil(place)]
    assert found == (low if low == high else low + (high - low) * (place - math.floor(place)))
    assert of(agg.median("v"), finite) == pytest.approx(statistics.median(finite), abs=1e-12)


def test_texts_of_a_column() -> None:
    rows = one_window(50, 3, "plain")
    first, last, unique = computed([agg.first("s"), agg.last("s"), agg.n_unique("s")], rows)
    codes = rows.columns["s"].tolist()
    assert (first, last) == (TEXTS[codes[0]], TEXTS[codes[-1]])
    assert unique == len(set(codes))


# NaN and windows without rows, as the page on aggregates has it


@pytest.mark.parametrize(
    ("task", "among", "only"),
    [
        (agg.count(), 3, 2),
        (agg.first("v"), 1.0, NAN),
        (agg.last("v"), 3.0, NAN),
        (agg.min("v"), 1.0, NAN),
        (agg.max("v"), 3.0, NAN),
        (agg.argmin("v"), 0, 0),
        (agg.argmax("v"), 2000, 0),
        (agg.sum("v"), NAN, NAN),
        (agg.mean("v"), NAN, NAN),
        (agg.var("v"), NAN, NAN),
        (agg.std("v"), NAN, NAN),
        (agg.corr("v", "w"), NAN, NAN),
        (agg.vwap("v", "w"), NAN, NAN),
        (agg.ewm("v", "1s"), NAN, NAN),
        (agg.time_weighted_mean("v"), NAN, NAN),
        (agg.increase("v"), NAN, NAN),
        (agg.rate("v"), NAN, NAN),
        (agg.median("v"), 3.0, NAN),
        (agg.quantile("v", 1.0), NAN, NAN),
        (agg.quantile("v", 0.0), 1.0, NAN),
        (agg.n_unique("v"), 3, 1),
    ],
    ids=str,
)
def test_nan(task: Aggregate[Any], among: Any, only: Any) -> None:
    assert same(of(task, [1.0, NAN, 3.0], w=[1.0, 2.0, 4.0]), among)
    assert same(of(task, [NAN, NAN], w=[1.0, 2.0]), only)
    assert of(task, [], w=[]) == (0 if task.name in ("count", "v_n_unique") else None)


def test_nan_in_a_trend() -> None:
    trend = of(agg.linear_trend("v"), [1.0, NAN, 3.0])
    assert math.isnan(trend.slope)
    assert math.isnan(trend.intercept)


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        (f"v < {2**63}", 3),
        (f"v == {2**64}", 0),
        (f"v in ({2**63}, 1)", 2),
        (f"-{10**30} < v <= 0", 1),
        ("v == 1.5", 0),
    ],
)
def test_bools_are_compared_with_numbers_of_any_size(condition: str, wanted: int) -> None:
    assert of(agg.count(where=condition), [True, False, True], kind=bool) == wanted


@pytest.mark.parametrize("name", ["_odd0", "_odd_0", "_odd_0_"])
def test_a_name_in_backticks_is_never_that_of_another_column(name: str) -> None:
    values = {name: [1.0, 2.0, 3.0], "a b": [2.0, 2.0, 2.0]}
    assert of(agg.count(where=f"`a b` < {name}"), [0.0] * 3, **values) == 1
    assert of(agg.count(where=f"{name} <= `a b`"), [0.0] * 3, **values) == 2
