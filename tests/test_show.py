"""Charts of a pipeline in a notebook: what the widget is told while it runs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.bench import PipelineBench
from tests.support.threads import eventually

from run_task import RwLock, TimeSeries, TimeUnit, task
from run_task.aggregates import mean
from run_task.errors import ConfigError
from run_task.pipeline import _show

WIDGET = "application/vnd.jupyter.widget-view+json"


@task
def end_of(data: object, start: int, end: int) -> int:
    return end


@task(name="<b>")
def fails(data: object, start: int, end: int) -> float:
    raise ValueError("never")


@task
def text(data: object, start: int, end: int) -> str:
    return "text"


def told(charts: _show.LiveCharts) -> Any:
    """What the widget draws now."""
    return charts._widget.told  # pyright: ignore[reportPrivateUsage]  as its other half is told


def test_charts_follow_a_pipeline_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_show, "EVERY", 0.01)
    bench = PipelineBench([end_of, fails, text])
    series = TimeSeries({"symbol": str, "price": float}, TimeUnit.SECONDS, key="symbol")
    for number in range(9):
        series.append(0, symbol=f"S{number}", price=float(number))
    bench.stage("plain", RwLock[object](object()))
    bench.pipeline.stage("by", [mean("price")], series, "1s", by="symbol")
    charts = bench.pipeline.show()
    given = getattr(charts, "_repr_mimebundle_")()  # noqa: B009  as a notebook asks for it
    assert WIDGET in (given[0] if isinstance(given, tuple) else given)
    eventually(lambda: told(charts).get("state") == "has not begun")
    with bench.pipeline:
        for _ in range(3):
            bench.advance()
        bench.sink.wait_for("plain", 3)
        eventually(lambda: told(charts)["stages"][0]["times"] == [1.0, 2.0, 3.0])
        eventually(lambda: told(charts)["stages"][1]["charts"])  # whose windows others compute
        assert told(charts)["state"] == "runs"
        plain, by = told(charts)["stages"]
        (numbers,) = plain["charts"]  # of what is no number, nothing is drawn
        assert numbers == {"title": "end_of", "names": ["end_of"], "columns": [[1.0, 2.0, 3.0]]}
        assert "3 windows" in plain["about"]
        assert "3 results missing; failing: <b>" in plain["about"]
        (over_keys,) = by["charts"]
        assert over_keys["title"] == "price_mean of all keys"
        assert over_keys["names"] == ["lowest", "median", "highest"]
        assert [column[0] for column in over_keys["columns"]] == [0.0, 4.0, 8.0]
    eventually(lambda: told(charts)["state"] == "ended")


def test_charts_that_are_closed_stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_show, "EVERY", 0.01)
    bench = PipelineBench([end_of])
    bench.stage("plain", RwLock[object](object()))
    with bench.pipeline:
        charts = bench.pipeline.show()  # also while it runs
        bench.advance()
        eventually(lambda: told(charts) and told(charts)["stages"][0]["times"] == [1.0])
        charts.close()
        charts.close()
        eventually(lambda: not charts._thread.is_alive())  # pyright: ignore[reportPrivateUsage]  it has no other trace
        bench.advance()
        bench.sink.wait_for("plain", 2)
    assert told(charts)["stages"][0]["times"] == [1.0]


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "anywidget", None)
    _show._widget_class.cache_clear()  # pyright: ignore[reportPrivateUsage]  as in a program that has not shown any
    bench = PipelineBench([end_of])
    with pytest.raises(ConfigError, match=r"run-task\[notebook\]"):
        bench.pipeline.show()
