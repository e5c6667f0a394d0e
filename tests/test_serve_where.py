"""Keys that are found by what tasks gave for them."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.bench import PipelineBench
from tests.support.served import serving
from tests.support.threads import eventually

from run_task import TimeSeries, TimeSeriesView, TimeUnit, task
from run_task.aggregates import count, mean
from run_task.serve._guard import RefusedRequest
from run_task.serve._where import places_where
from run_task.tasks._alert import Alert

NAN = float("nan")


class Range(NamedTuple):
    low: float
    high: float | None


COLUMNS: dict[str, list[Any]] = {
    "mean": [1.0, 3.0, NAN, None, 5],
    "count": [1, 2, 3, 4, 5],
    "state": ["on", "off", 'a "b"', None, "on"],
    "is on": [True, False, True, None, np.True_],
    "mean > 3 and": [9, 9, 9, 9, 0],
    "range": [Range(0.0, 1.0), Range(1.0, None), None, Range(3.0, 4.0), Range(4.0, 5.0)],
    "exact": [2**53 + 1, 2**53, Decimal("0.1"), np.int64(7), np.float32(0.5)],
    "bell": [Alert(False, None), Alert(True, 5), None, None, None],
    "mixed": [1, "1", None, True, [1]],
    "odd": [[1], [2], None, None, None],
}
TASKS = [*COLUMNS, "paused"]
ALL = range(5)


def found(condition: str) -> list[int]:
    return [*places_where(condition, COLUMNS, TASKS, ALL)]


@pytest.mark.parametrize(
    ("condition", "places"),
    [
        ("mean > 3", [4]),
        ("mean>=3", [1, 4]),
        ("mean <= 3.0", [0, 1]),
        ("mean != 3", [0, 4]),
        ("mean = null", [2, 3]),
        ("mean != null", [0, 1, 4]),
        ("mean > -1e2 and count < 5", [0, 1]),
        ('mean > 0 AND count > 1 and state = "on"', [4]),
        ("count == +2", [1]),
        ('state = "on"', [0, 4]),
        ('state != "on"', [1, 2]),
        ('state > "off"', [0, 4]),
        ('state = "a \\"b\\""', [2]),
        ("state = null", [3]),
        ("is on = true", [0, 2, 4]),
        ("is on != true", [1]),
        ("mean > 3 and = 9", [0, 1, 2, 3]),
        ("mean > 3 and > 1 and mean > 2", [1]),
        ("range_low >= 1", [1, 3, 4]),
        ("range_high = null", [1, 2]),
        (f"exact = {2**53 + 1}", [0]),
        ("exact = 0.1", []),  # which no float is, and the Decimal is
        ("exact < .6", [2, 4]),
        ("bell = true", [1]),
        ("mixed = 1", [0]),
        ('mixed = "1"', [1]),
        ("mixed = true", [3]),
        ("odd = null", [2, 3, 4]),
        ("paused = null", [0, 1, 2, 3, 4]),
        ("paused != null", []),
        ("paused > 3", []),
    ],
)
def test_those_for_which_it_holds_are_found(condition: str, places: list[int]) -> None:
    assert found(condition) == places


def test_the_order_of_places_is_kept() -> None:
    assert [*places_where("count > 1", COLUMNS, TASKS, [4, 0, 2])] == [4, 2]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("x > 3", "x > 3 begins with no task or field that there is, but these are: 'bell'"),
        ("mean", "behind 'mean' stands one of <= >="),
        ("mean 3", "behind 'mean' stands one of <= >="),
        ("mean >", "the end stands where a number, a text in quotes"),
        ("mean > on", "on stands where a number"),
        ("mean > 'on'", "'on' stands where a number"),
        ('state = "on', '"on stands where a number'),
        ('state = "\\x"', "is no text in quotes, as JSON has it"),
        ("mean > 3 or count > 2", "or count > 2 stands behind a comparison: join several by and"),
        ("mean > 3 and", "and stands behind a comparison"),
        ("mean > 3and count > 2", "and count > 2 stands behind a comparison"),
        ("mean > true", "mean > true: true, false and null are compared by = and != alone"),
        ("mean >= null", "are compared by = and != alone"),
        ('mean > "a"', 'mean > "a": a result of mean is a number'),
        ("state > 3", "state > 3: a result of state is a text"),
        ("is on = 1", "is on = 1: a result of is on is true or false"),
        ("odd = 1", "odd = 1: a result of odd is nothing that is compared"),
        (" and ".join(["mean > 1"] * 9), "it has more than 8 comparisons"),
        ("", "begins with no task"),
    ],
)
def test_what_cannot_be_read_or_compared_is_refused_with_the_cure(
    condition: str, message: str
) -> None:
    with pytest.raises(RefusedRequest) as raised:
        found(condition)
    assert raised.value.status == (
        404 if "x >" in condition else 409 if "a result of" in message else 422
    )
    assert str(raised.value.reason).startswith("where: ")
    assert message in str(raised.value.reason)


@given(st.text(max_size=40), st.sampled_from(["", "mean > 3 and ", "state = "]))
def test_any_text_is_a_condition_or_refused(text: str, before: str) -> None:
    with contextlib.suppress(RefusedRequest):
        assert set(found(before + text)) <= set(ALL)


@task
def odd(view: TimeSeriesView, start: int, end: int) -> str:
    if view.in_window["price"][0] == 3.0:
        raise KeyError("three")
    return f"{view.in_window['price'][0]:g}"


def test_keys_are_found_by_their_results() -> None:
    bench = PipelineBench()
    series = TimeSeries({"symbol": str, "price": float}, TimeUnit.SECONDS, key="symbol")
    for number in range(50):
        series.append(1, symbol=f"S{number:03}", price=float(number % 7))
    bench.pipeline.stage("by", [count(), mean("price"), odd], series, "2s", by="symbol")

    def ask(where: str, **more: str) -> Any:
        options = "".join(f"&{name}={value}" for name, value in more.items())
        return served.ask(f"/api/keys?stage=by&where={quote(where)}{options}")

    with serving(bench.pipeline) as served:
        assert ask("no such = 1").status == 200  # there is no window yet
        bench.advance(2)
        eventually(lambda: served.get("/api/keys?stage=by")["count"] == 50)
        told = ask("price_mean > 4", search="s00", sort="price_mean", descending="true").told
        assert (told["count"], told["matching"]) == (50, 2)
        assert [row["key"] for row in told["rows"]] == ["S006", "S005"]
        told = ask('price_mean >= 5 and odd = "6"', limit="1").told
        assert (told["matching"], [row["key"] for row in told["rows"]]) == (7, ["S006"])
        assert ask("odd = null").told["matching"] == 7  # those that failed
        assert ask("").status == ask("price_mean").status == 422
        assert ask("price_mean = true").status == 409
        refused = ask("no such = 1")
        assert refused.status == 404
        assert refused.told["error"].endswith("these are: 'count', 'odd', 'price_mean'")
