"""Aggregates as values, their conditions, and what is refused when they are made or planned."""

from __future__ import annotations

import pickle
import re
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from run_task import ConfigError, TaskInterval, TimeSeries, TimeUnit
from run_task import aggregates as agg
from run_task.aggregates import Aggregate
from run_task.tasks._declared import Declared

COLUMNS = {
    "price": np.dtype(float),
    "size": np.dtype(int),
    "small": np.dtype("float32"),
    "symbol": np.dtype(str),
    "side": np.dtype("U4"),
    "raw": np.dtype("S2"),
    "open": np.dtype(bool),
    "at": np.dtype("datetime64[ms]"),
    "bid price": np.dtype(float),
}


def planned(*tasks: Aggregate[Any]) -> Any:
    return tasks[0].planner(tasks, COLUMNS)


@pytest.mark.parametrize(
    ("task", "name", "shown"),
    [
        (agg.count(), "count", "count()"),
        (agg.mean("price"), "price_mean", "mean('price')"),
        (agg.std("price", ddof=0), "price_std", "std('price', ddof=0)"),
        (agg.quantile("price", 0.99), "price_p99", "quantile('price', 0.99)"),
        (agg.quantile("price", 0.999), "price_p99_9", "quantile('price', 0.999)"),
        (
            agg.quantile("price", 0.5, interpolation="lower"),
            "price_p50",
            "quantile('price', 0.5, interpolation='lower')",
        ),
        (agg.median("price"), "price_median", "median('price')"),
        (agg.vwap("price", "size"), "price_vwap", "vwap('price', 'size')"),
        (agg.corr("price", "size"), "price_size_corr", "corr('price', 'size')"),
        (agg.ewm("price", "5m"), "price_ewm", "ewm('price', half_life='5m')"),
        (agg.n_unique("symbol"), "symbol_n_unique", "n_unique('symbol')"),
        (
            agg.sum("size", where="size > 3").named("large"),
            "large",
            "sum('size', where='size > 3').named('large')",
        ),
    ],
)
def test_names_and_what_is_shown(task: Aggregate[Any], name: str, shown: str) -> None:
    assert task.name == name
    assert repr(task) == shown
    assert eval(shown, dict(vars(agg))) == task


def test_equal_by_value() -> None:
    assert agg.mean("price") == agg.mean("price")
    assert hash(agg.mean("price")) == hash(agg.mean("price"))
    assert agg.ewm("price", "60s") == agg.ewm("price", timedelta(minutes=1))
    assert agg.ewm("price", "60s") == agg.ewm("price", TaskInterval.minutes(1))
    different = {
        agg.mean("price"),
        agg.mean("size"),
        agg.sum("price"),
        agg.mean("price").named("x"),
        agg.mean("price", where="size > 0"),
        agg.quantile("price", 0.5),
        agg.median("price"),
        agg.std("price"),
        agg.std("price", ddof=0),
    }
    assert len(different) == 9


def test_it_is_frozen_pickled_and_declared() -> None:
    task = agg.quantile("price", 0.9, where="symbol == 'A'").named("p")
    assert pickle.loads(pickle.dumps(task)) == task
    with pytest.raises(AttributeError):
        task.name = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  it is frozen
    declared: Declared[Any, Any] = task
    assert isinstance(task, Declared)
    assert declared.planner == agg.count().planner


# What is refused when it is made

UNTYPED: Any = agg
"""The functions as a caller without a type checker sees them."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UNTYPED.mean(3), r"mean\(column=3\): it is the name of a column"),
        (lambda: UNTYPED.vwap("price", ""), r"vwap\(volume=''\): it is the name of a column"),
        (lambda: UNTYPED.quantile("price", 1.5), r"quantile\(q=1.5\): it is a number from 0 to 1"),
        (lambda: UNTYPED.quantile("price", float("nan")), "from 0 to 1"),
        (lambda: UNTYPED.quantile("price", "0.5"), "from 0 to 1"),
        (lambda: UNTYPED.quantile("price", 0.5, interpolation="cubic"), "it is one of 'linear', "),
        (lambda: UNTYPED.std("price", ddof=-1), r"std\(ddof=-1\): it is an int, 0 or above"),
        (lambda: UNTYPED.var("price", ddof=0.5), r"var\(ddof=0.5\)"),
        (lambda: UNTYPED.ewm("price", "5 parsecs"), r"ewm\(half_life='5 parsecs'\)"),
        (lambda: UNTYPED.ewm("price", 5), r"ewm\(half_life=5\): it is a TaskInterval"),
        (lambda: UNTYPED.mean("price").named(""), "a text that is not empty"),
        (lambda: UNTYPED.Aggregate("price"), "it is made of a Kernel"),
    ],
)
def test_refused_when_made(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (3, "it is a text: a condition compares"),
        ("", "it cannot be read"),
        ("price >", r"it cannot be read \(invalid syntax\): a condition compares"),
        ("price = 3", r"it cannot be read \([^<]*\): it is written as in Python, with =="),
        ("price > 1 AND size > 2", "it is written as in Python"),
        ("price IS NOT NULL", "'is None' in small letters"),
        ("price <> 3", "it is written as in Python, with ==, !="),
        ("price > 0; 1", "it cannot be read"),
        ("price", None),
        ("1 < 2", "there is no column in it"),
        ("price + 1 > 2", "'price \\+ 1 > 2' is no condition"),
        ("price.mean() > 2", "is no condition"),
        ("print('x')", "is no condition"),
        ("price == None", "what is missing is asked for by 'is None'"),
        ("price is 3", "'is' is for a column and None"),
        ("None is price", "'is' is for a column and None"),
        ("symbol in 'AB'", "'in' is for a column and a tuple of constants"),
        ("symbol in ()", "the tuple is empty"),
        ("symbol in (price, 3)", "'in' is for a column and a tuple of constants"),
        ("lambda: price", "is no condition"),
        ("__import__('os').system('x')", "is no condition"),
        ("-price > 0", "is no condition"),
    ],
)
def test_conditions_that_are_none(where: Any, message: str | None) -> None:
    if message is None:
        agg.count(where=where)  # of bools; whether it is one is seen when it is planned
        return
    with pytest.raises(ConfigError, match=re.escape(f"where={where!r}") + f".*{message}"):
        agg.count(where=where)


@pytest.mark.parametrize("depth", [150, 985, 995, 5000])
@pytest.mark.parametrize("part", ["not ", "(flag and ", "0 < "])
def test_conditions_that_are_nested_too_deep(part: str, depth: int) -> None:
    inner = "flag" + ")" * depth if part.startswith("(") else "flag"
    with pytest.raises(ConfigError, match=r"nested more than 100 deep|cannot be read|is no cond"):
        agg.count(where=part * depth + (inner if part != "0 < " else "not " * depth + "flag"))


# What is refused when it is planned


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (agg.mean("prise"), r"mean\('prise'\): there is no column 'prise': did you mean 'price'\?"),
        (agg.mean("PRICE"), "did you mean 'price'"),
        (agg.first("zzz"), "there is no column 'zzz': The columns are 'price', 'size'"),
        (agg.n_unique("symbl"), "did you mean 'symbol'"),
        (agg.corr("price", "sizes"), "did you mean 'size'"),
        (
            agg.mean("symbol"),
            r"column 'symbol' holds texts, and this takes a column of numbers: those are 'price', ",
        ),
        (agg.max("side"), "holds texts"),
        (agg.sum("raw"), "holds bytes"),
        (agg.median("at"), "holds times"),
        (agg.vwap("price", "symbol"), "column 'symbol' holds texts"),
        (agg.count(where="sise > 3"), r"count\(\), where='sise > 3': there is no column 'sise'"),
        (agg.count(where="size > 'x'"), "compares column 'size', which holds numbers, with texts"),
        (
            agg.count(where="symbol > 3"),
            "compares column 'symbol', which holds texts, with numbers",
        ),
        (agg.count(where="symbol == price"), "holds texts, with numbers"),
        (agg.count(where="at > 5"), "holds times, with numbers"),
        (agg.count(where="price"), "column 'price' holds float64s, none of which is true or false"),
        (agg.count(where="raw == 'x'"), "holds bytes, with texts"),
    ],
)
def test_refused_when_planned(task: Aggregate[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(agg.mean("price"), task)


def test_what_it_can_be_computed_of() -> None:
    planned(
        agg.first("at"), agg.last("raw"), agg.n_unique("at"), agg.mean("open"), agg.sum("small"),
        agg.count(where="at < at"), agg.count(where="raw == b'x'"), agg.count(where="open"),
        agg.count(where="side in ('buy', 'sell')"), agg.count(where="`bid price` > price"),
    )  # fmt: skip


def test_other_data_and_views_without_a_window() -> None:
    with pytest.raises(ConfigError, match="is computed of a TimeSeries, and not of list"):
        agg.count().run([1], 0, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  it is refused
    series = TimeSeries({"price": float}, TimeUnit.SECONDS)
    with series.read() as view:
        with pytest.raises(ConfigError, match="this view has no window"):
            agg.count().run(view, 0, 1)
        with pytest.raises(ConfigError, match="there is no column 'size'"):
            agg.sum("size").run(view.for_window(0, 1), 0, 1)


# Conditions


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("price > 2", [3, 5]),
        ("2 < price", [3, 5]),
        ("2 <= price < 4", [1, 3]),
        ("price == 2 or price == 4", [1, 5]),
        ("not price > 2", [0, 1, 2, 4]),
        ("price is None", [2]),
        ("price is not None", [0, 1, 3, 4, 5]),
        ("price != price", [2]),
        ("price != 1", [1, 2, 3, 4, 5]),
        ("size in (1, 3)", [0, 3]),
        ("size not in [1, 3]", [1, 2, 4, 5]),
        ("size is None", []),
        ("size > 9007199254740992", [5]),
        ("size > 9007199254740992.0", [5]),
        ("size > 2.5 and size < 1e300", [3, 4, 5]),
        ("size < 99999999999999999999", [0, 1, 2, 3, 4, 5]),
        ("size >= price", [0, 1, 4, 5]),
        ("symbol == 'A'", [0, 2]),
        ("'A' == symbol", [0, 2]),
        ('symbol != "A" and symbol < "C"', [1, 4]),
        ("symbol in ('B', 'C', 'nowhere')", [1, 3, 4, 5]),
        ("symbol == side", [0]),
        ("side in ('buy',)", [1]),
        ("open", [0, 3]),
        ("not open and size == 2", [1, 2]),
        ("open == True", [0, 3]),
        ("small > 0.1", [1, 2, 3, 5]),  # the float32 that is nearest to 0.1 is above it
        ("small < 0.1", [0, 4]),
        ("`bid price` < 0", [5]),
        ("symbol == '`x`'", []),
        ("-3 < `bid price` < 0", [5]),
    ],
)
def test_conditions(where: str, wanted: list[int]) -> None:
    kinds = {name: COLUMNS[name] for name in COLUMNS if name not in ("raw", "at")}
    series = TimeSeries(kinds, TimeUnit.SECONDS)
    series.extend(
        range(6),
        **{
            "price": [1.0, 2.0, None, 3.5, -1.0, 4.0],
            "size": [1, 2, 2, 3, 4, 2**53 + 1],
            "small": [0.09, 0.1, 0.1, 0.1, 0.05, 0.1],
            "symbol": ["A", "B", "A", "C", "B", "C"],
            "side": ["A", "buy", "", "sell", "x", ""],
            "open": [True, False, False, True, False, False],
            "bid price": [1.0, 1.0, 1.0, 1.0, 1.0, -2.0],
        },
    )
    with series.read() as view:
        found = [
            row
            for row in range(6)
            if agg.count(where=where).run(view.for_window(row, row + 1), row, row + 1)
        ]
        together = agg.count(where=where).run(view.for_window(0, 6), 0, 6)
    assert found == wanted
    assert together == len(wanted)
