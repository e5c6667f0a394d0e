"""Reports: what stands in them, that they are bounded, and that nothing in them runs."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.support.commands import run_here

from run_task import (
    ConfigError,
    DataSet,
    DataSets,
    Pipeline,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    Window,
    report,
    task,
)
from run_task.aggregates import count, mean
from run_task.pipeline._thinned import MOST_PARTS, ThinnedSeries

EVIL = "</script><script>alert(1)</script><!--"


class Ends(NamedTuple):
    first: float
    last: float


@task
def ends(view: TimeSeriesView, start: int, end: int) -> Ends:
    prices = view.in_window["price"]
    return Ends(float(prices[0]), float(prices[-1]))


@task(name=EVIL)
def evil(view: TimeSeriesView, start: int, end: int) -> str:
    if end % 120:
        raise ValueError(f"no minute: {EVIL}")
    return EVIL


def pipeline() -> Pipeline:
    rows: list[tuple[int, dict[str, Any]]] = [
        (60 + i, {"symbol": f"S{i % 3}", "price": float(i) if i != 100 else "none"})
        for i in range(240)
    ]
    series = TimeSeries({"symbol": str, "price": float}, TimeUnit.SECONDS, key="symbol")
    made = Pipeline(f"a {EVIL}")
    made.source(rows, into=series, name="feed")
    made.stage("minutes", [mean("price"), ends, evil], series, "1m")
    made.stage("by symbol", [count(), mean("price")], series, "1m", by="symbol")
    return made


def told(html: str) -> Any:
    """What a report tells: one block, beside which there are its two scripts."""
    assert len(re.findall("<script", html)) == 3  # what is told, uPlot, and what draws
    block = re.search(r'<script type="application/json" id="told">(.*?)</script>', html, re.DOTALL)
    assert block is not None
    return json.loads(block[1])


def chart(stage: Any, title: str) -> dict[str, list[float | None]]:
    """The lines of a chart by name."""
    found = next(chart for chart in stage["charts"] if chart["title"] == title)
    return dict(zip(found["names"], found["columns"], strict=True))


def test_a_replay_is_told_in_full() -> None:
    replay = pipeline().replay()
    found = told(report(replay, title=EVIL, keys=["S1"]).html)
    assert found["title"] == EVIL
    stages = {stage["name"]: stage for stage in found["stages"]}
    minutes, by_symbol = stages["minutes"], stages["by symbol"]
    assert minutes["zone"] == "UTC"
    assert "4 windows, 1970-01-01T00:01:00Z to 1970-01-01T00:05:00Z" in minutes["about"]
    assert chart(minutes, "ends_last") == {"ends_last": [59.0, 119.0, 179.0, 239.0]}
    assert minutes["charts"][0]["times"] == [120.0, 180.0, 240.0, 300.0]
    assert minutes["left_out"] == [f"{EVIL} (no numbers)"]
    counts = {each["name"]: (each["results"], each["errors"]) for each in minutes["tasks"]}
    assert counts == {"price_mean": (4, 0), "ends": (4, 0), EVIL: (2, 2)}
    of_count = chart(by_symbol, "count")
    assert list(of_count) == ["lowest", "median", "highest", "S1"]
    assert of_count["lowest"] == [20.0, 19.0, 20.0, 20.0]  # S1 had a row that was none
    assert of_count["S1"] == [20.0, 19.0, 20.0, 20.0]
    assert of_count["highest"] == [20.0] * 4
    (source,) = found["sources"]
    assert source["name"] == "feed"
    assert source["counts"]["malformed"] == 1
    assert source["counts"]["stored"] == 239
    fates, others = found["fates"]
    assert fates["title"] == "feed: rows until then, stored"
    assert others["title"] == "feed: rows until then, other fates"
    assert (fates["names"], others["names"]) == (["stored"], ["malformed"])
    assert found["zone"] == "UTC"
    (stored,), (malformed,) = fates["columns"], others["columns"]
    assert (stored[-1], malformed[-1]) == (239.0, 1.0)
    assert stored == sorted(stored)
    assert fates["times"] == sorted(set(fates["times"]))
    assert fates["times"][0] == 120.0
    (failure,) = found["failures"]
    assert failure["times"] == 2
    assert "raise ValueError" in failure["traceback"]
    assert replay.summary.windows == 8


def test_data_sets_are_told_by_name_or_alone() -> None:
    replayed = pipeline()
    results = DataSets(ds for stage, ds in replayed.replay() if stage == "minutes")
    alone = told(report(results).html)
    assert [stage["name"] for stage in alone["stages"]] == ["results"]
    assert alone["sources"] == []
    both = told(report({"one": results, "other": results[:1]}).html)
    assert [stage["name"] for stage in both["stages"]] == ["one", "other"]
    by_hand = told(
        report([DataSet(Window(0, 5), {"a": 1.0}), DataSet(Window(5, 10), {"a": math.nan})]).html
    )
    (stage,) = by_hand["stages"]
    assert stage["zone"] is None
    assert stage["charts"][0]["times"] == [5.0, 10.0]
    assert stage["charts"][0]["columns"] == [[1.0, None]]


def test_what_makes_no_report_is_refused() -> None:
    with pytest.raises(ConfigError, match="is no DataSet"):
        report([1, 2])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]  it is checked
    with pytest.raises(ConfigError, match="11 keys, and 10 can be told apart"):
        report([], keys=range(11))


def test_a_long_history_is_thinned_and_keeps_its_peaks() -> None:
    kept = ThinnedSeries()
    for time in range(100_000):
        kept.append(float(time), {"a": 1000.0 if time == 31_415 else float(time % 10)})
    kept.append(100_000.0, {"a": 1.0, "late": 5.0})
    assert len(kept.times) <= 2 * MOST_PARTS
    assert list(kept.times) == sorted(kept.times)
    assert {len(column) for column in kept.columns.values()} == {len(kept.times)}
    peak = kept.columns["a"].index(1000.0)
    assert abs(kept.times[peak] - 31_415) <= 100_000 / MOST_PARTS * 4
    assert math.isnan(kept.columns["late"][0])
    assert kept.columns["late"][-1] == 5.0


def test_a_notebook_has_it_in_a_frame_that_it_cannot_leave() -> None:
    made = report([DataSet(Window(0, 5), {"a": 1.0})], title='"><b>')
    shown: str = getattr(made, "_repr_html_")()  # noqa: B009  as a notebook asks for it
    assert shown.startswith("<iframe srcdoc=")
    assert 'sandbox="allow-scripts"' in shown
    assert shown.count("<") == 2  # all else is escaped


def test_the_command_line_writes_it(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from run_task import *\n"
        "from run_task.aggregates import count\n"
        "s = TimeSeries({'x': float}, TimeUnit.SECONDS)\n"
        "p = Pipeline('p')\n"
        "p.source([(i, {'x': 1.0}) for i in range(10)], into=s)\n"
        "p.stage('a', [count()], s, '5s')\n"
    )
    done = run_here("replay", "app.py", "--report", "out.html", cwd=tmp_path)
    assert "report written to out.html" in done.output
    found = told((tmp_path / "out.html").read_text("utf-8"))
    assert found["title"] == "p"
    assert chart(found["stages"][0], "count") == {"count": [5.0, 5.0]}


def test_the_command_line_draws_keys(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from run_task import *\n"
        "from run_task.aggregates import count\n"
        "p = Pipeline('p')\n"
        "for name, kind in (('texts', str), ('ints', int)):\n"
        "    s = TimeSeries({'k': kind, 'x': float}, TimeUnit.SECONDS, key='k')\n"
        "    p.source([(i, {'k': kind(i % 3), 'x': 1.0}) for i in range(9)], into=s)\n"
        "    p.stage(name, [count()], s, '9s', by='k')\n"
    )
    options = ("--report", "out.html", "--key", "1", "--key", "none")
    done = run_here("replay", "app.py", *options, cwd=tmp_path)
    assert done.exit_code == 0, done.output
    for stage in told((tmp_path / "out.html").read_text("utf-8"))["stages"]:
        found = chart(stage, "count")
        assert list(found) == ["lowest", "median", "highest", "1"]
        assert found["1"] == [3.0]
    done = run_here("replay", "app.py", "--key", "1", cwd=tmp_path)
    assert done.exit_code == 2
    assert "add --report" in done.output
    many = [part for number in range(11) for part in ("--key", f"k{number}")]
    done = run_here("replay", "app.py", "--report", "out.html", *many, cwd=tmp_path)
    assert done.exit_code == 3
    assert "10 can be told apart" in done.output


def test_rows_of_a_long_history_are_counted_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    series = TimeSeries({"x": float}, TimeUnit.SECONDS)
    made = Pipeline("p")
    made.source([(i, {"x": 1.0}) for i in range(20_000)], into=series, name="feed")
    made.stage("a", [count()], series, "1s")
    replay = made.replay()
    counted = 0
    summary: Any = type(replay).summary

    def noted(self: Any) -> Any:
        nonlocal counted
        counted += 1
        return summary.fget(self)

    monkeypatch.setattr(type(replay), "summary", property(noted))
    (fates,) = told(report(replay).html)["fates"]
    assert fates["columns"][0][-1] == 20_000.0
    assert counted < 6_000
    assert len(fates["times"]) <= 2 * MOST_PARTS
