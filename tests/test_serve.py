"""What a service tells of its pipelines."""

from __future__ import annotations

import importlib
import io
import math
import re
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
import pytest
from tests.support.bench import PipelineBench
from tests.support.served import Served, serving
from tests.support.threads import PATIENCE, eventually

from run_task import (
    Pipeline,
    RwLock,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    alert,
    task,
)
from run_task.aggregates import count, mean
from run_task.serve import _metrics
from run_task.serve._shapes import PipelineNow, StageInFull, Topology
from run_task.sources import Inbox

GUIDE = Path(__file__).parent.parent / "docs" / "how-to" / "metrics.md"


class Both(NamedTuple):
    low: float
    high: float


@task
def end_of(data: object, start: int, end: int) -> int:
    return end


@task
def both(data: object, start: int, end: int) -> Both:
    return Both(end - 0.5, math.nan if end == 2 else end + 0.5)


@task
def fails(data: object, start: int, end: int) -> str:
    if end % 2:
        raise ValueError(f"{end} is odd: <script>alert(1)</script>")
    return "even"


def after_one(data: object, start: int, end: int) -> bool:
    return end > 1


on = alert(after_one, hold=None, name="on")

SERIES = {"symbol": str, "price": float}


def plain_bench() -> PipelineBench:
    bench = PipelineBench([end_of, both, fails, on])
    bench.stage("a/b", RwLock[object](object()))
    return bench


def given(bench: PipelineBench, served: Served, windows: int, stage: str = "a/b") -> None:
    """Have it give windows, which the service has seen."""
    for _ in range(windows):
        bench.advance()
        bench.sink.wait_for(stage, round(bench.clock.time_ns() / 1e9))
    path = f"/api/stages/{quote(stage, safe='')}"
    end_ms = bench.clock.time_ns() / 1e6
    done = round(end_ms / 1e3)

    def seen() -> bool:
        now = served.get(path)["now"]  # counts are looked up less often than results
        return bool(now["end_ms"] == end_ms and now["windows"] == done)

    eventually(seen)


def keyed_bench() -> PipelineBench:
    """A pipeline with a stage by key, which has given a window of 50 keys once it runs."""
    bench = PipelineBench()
    series = TimeSeries(SERIES, TimeUnit.SECONDS, key="symbol")
    for number in range(50):
        series.append(1, symbol=f"S{number:03}", price=float(number % 7))
    bench.pipeline.stage("by", [count(), mean("price"), odd], series, "2s", by="symbol")
    return bench


@task
def odd(view: TimeSeriesView, start: int, end: int) -> str:
    if view.in_window["price"][0] == 3.0:
        raise KeyError("three")
    return f"{view.in_window['price'][0]:g}"


def test_a_stage_is_told_with_its_values_errors_and_alerts() -> None:
    bench = plain_bench()
    with serving(bench.pipeline) as served:
        given(bench, served, 3)
        assert served.get("/api/pipelines") == {
            "pipelines": [{"name": "bench", "state": "running"}]
        }
        made = msgspec.json.decode(served.ask("/api/pipeline").body, type=Topology)
        (stage,) = made.stages
        assert (stage.id, stage.every_seconds, stage.by) == ("stage:a/b", 1.0, None)
        assert [(each.name, each.returns, each.alert) for each in stage.tasks] == [
            ("end_of", "int", False),
            ("both", "Both", False),
            ("fails", "str", False),
            ("on", "Alert", True),
        ]
        # The watcher is no sink of the pipeline's.
        assert [sink.title for sink in made.sinks] == ["RecordingSink"]
        assert {tuple(edge) for edge in made.edges} == {
            ("data:1", "stage:a/b"),
            ("stage:a/b", "sink:1"),
        }
        told = msgspec.json.decode(served.ask("/api/stages/a%2Fb").body, type=StageInFull)
        assert told.now.values == {"end_of": 3, "both": "Both(low=2.5, high=3.5)", "on": True}
        assert told.now.numbers == {"end_of": 3.0, "both_low": 2.5, "both_high": 3.5, "on": 1.0}
        assert (told.now.windows, told.now.failed, told.now.failing) == (3, 2, ["fails"])
        (error,) = told.errors
        assert (error.times, error.task) == (2, "fails")
        assert error.what == "ValueError: 3 is odd: <script>alert(1)</script>"
        assert error.cause.startswith("ValueError at test_serve.py:")
        assert "in fails" in (error.traceback or "")
        assert served.get("/api/errors")["errors"][0]["id"] == error.id


def test_numbers_over_time_go_on_from_where_they_were() -> None:
    bench = plain_bench()
    with serving(bench.pipeline) as served:
        given(bench, served, 2)
        first = served.get("/api/results?stage=a/b")
        assert first["ends_ms"][-1] == first["next"] == 2000.0
        # Windows that come within a twentieth of a second are more than anybody sees.
        place = first["ends_ms"].index(first["next"])
        assert first["columns"]["both_low"][place] == 1.5
        assert first["columns"]["both_high"][place] is None
        given(bench, served, 1)
        eventually(lambda: served.get(f"/api/results?stage=a/b&since={first['next']}")["ends_ms"])
        more = served.get(f"/api/results?stage=a/b&since={first['next']}")
        assert more["ends_ms"] == [3000.0]
        assert more["columns"]["end_of"] == [3.0]


def test_the_live_stream_begins_with_all_and_goes_on_with_what_has_changed() -> None:
    bench = plain_bench()
    bench.stage("other", RwLock[object](object()), seconds=100)
    with serving(bench.pipeline) as served:
        given(bench, served, 1)
        with served.listening("/api/live") as events:
            name, first = next(events)
            assert name == "state"
            now = msgspec.convert(first, PipelineNow)
            assert now.full
            assert now.stages.keys() == {"a/b", "other"}
            assert now.health.status == "warning"
            assert isinstance(now.errors, list)
            assert len(now.errors) == 1
            bench.advance()
            later = [next(events)[1]]
            while not later[-1].get("alarms"):
                later.append(next(events)[1])
            assert not any(each["full"] for each in later)
            assert not any("other" in each["stages"] for each in later)
            assert later[-1]["alarms"] == [
                {"stage": "a/b", "task": "on", "key": None, "since_ms": 2000.0}
            ]
            bench.pipeline.remove("other")
            eventually(lambda: next(events)[1]["gone"] == ["other"])
        assert served.get("/api/pipeline")["topology"] == 2


def test_keys_are_told_a_page_at_a_time_and_in_order() -> None:
    bench = keyed_bench()
    with serving(bench.pipeline) as served:
        bench.advance(2)
        eventually(lambda: served.get("/api/keys?stage=by")["count"] == 50)
        reply = served.ask("/api/keys?stage=by&sort=price_mean&descending=true&limit=3")
        assert [row["key"] for row in reply.told["rows"]] == ["S006", "S013", "S020"]
        again = served.ask("/api/keys?stage=by", if_none_match=reply.headers["etag"])
        assert (again.status, again.body) == (304, b"")
        found = served.get("/api/keys?stage=by&search=s00&offset=2&limit=2")
        assert (found["count"], found["matching"], found["offset"]) == (50, 10, 2)
        assert found["rows"][0] == {
            "key": "S002",
            "results": {"count": 1, "price_mean": 2.0, "odd": "2"},
            "errors": {},
        }
        assert found["rows"][1]["results"] == {"count": 1, "price_mean": 3.0}
        assert found["rows"][1]["errors"] == {"odd": "KeyError: 'three'"}
        by_text = served.get("/api/keys?stage=by&sort=odd&limit=1&descending=true")["rows"]
        assert by_text[0]["key"] == "S006"
        whole = served.get("/api/results?stage=by")
        assert len(whole["keys"]) == 50
        assert whole["columns"]["price_mean"][:3] == [0.0, 1.0, 2.0]
        assert whole["columns"]["odd"][3] is None
        ipc: Any = importlib.import_module("pyarrow.ipc")
        reply = served.ask("/api/results?stage=by&format=arrow")
        table = ipc.open_stream(io.BytesIO(reply.body)).read_all()
        assert table.column_names == ["symbol", "count", "price_mean", "odd"]
        assert table["price_mean"].to_pylist() == whole["columns"]["price_mean"]


def test_a_key_that_is_asked_for_is_kept_from_then_on() -> None:
    bench = PipelineBench()
    series = TimeSeries(SERIES, TimeUnit.SECONDS, key="symbol")
    bench.pipeline.stage("by", [mean("price")], series, "1s", by="symbol")
    with serving(bench.pipeline) as served:
        for second in range(3):
            series.append(second, symbol="S", price=second + 0.5)
            bench.advance()
            until_keys_are_of(served, (second + 1) * 1000.0)
            served.get("/api/results?stage=by&key=S")
        found = served.get("/api/results?stage=by&key=S")
        assert found["ends_ms"] == [2000.0, 3000.0]
        assert found["columns"] == {"price_mean": [1.5, 2.5]}
        assert served.get("/api/results?stage=by&key=none")["ends_ms"] == []
        assert served.ask("/api/keys?stage=by&sort=no").status == 404


def until_keys_are_of(served: Served, end_ms: float) -> None:
    eventually(lambda: served.get("/api/keys?stage=by")["end_ms"] == end_ms)


def test_a_source_that_was_removed_is_told_as_such_with_its_counts() -> None:
    bench = plain_bench()
    series = TimeSeries(SERIES, TimeUnit.SECONDS, key="symbol")
    inboxes: list[Inbox[Any]] = [Inbox(), Inbox()]
    for name, inbox in zip(("feed", "other"), inboxes, strict=True):
        bench.pipeline.source(inbox, series, name=name)
    bench.stage("fed", series, tasks=[end_of])
    with serving(bench.pipeline) as served:

        def sources() -> Any:
            with served.listening("/api/live") as told:
                return next(told)[1]["sources"]

        inboxes[0].put(0, {"symbol": "S", "price": 1.0})
        eventually(lambda: sources()["feed"]["stored"] == 1)
        assert not sources()["feed"]["removed"]
        bench.pipeline.remove("feed")
        eventually(lambda: sources()["feed"]["removed"])
        found = sources()
        assert (found["feed"]["stored"], found["other"]["removed"]) == (1, False)
        assert served.get("/api/fates?source=feed")["source"] == "feed"
        inboxes[1].close()


def test_metrics_are_what_prometheus_reads_and_the_fates_of_rows_are_counted() -> None:
    parser: Any = importlib.import_module("prometheus_client.parser")
    bench = PipelineBench([end_of, both])
    name = 'with "quotes"\\ and\nlines'
    bench.stage(name, RwLock[object](object()))
    inbox = Inbox[dict[str, float]](10)
    series = TimeSeries({"price": float}, TimeUnit.SECONDS)
    bench.pipeline.source(inbox, into=series, name="feed", unit=TimeUnit.SECONDS)
    bench.stage("fed", series)
    options = {"gauges": [f"{name}/end_of", f"{name}/both_low"]}
    with serving(bench.pipeline, **options) as served:
        for timestamp in (1, 2, 10_000):
            inbox.put(timestamp, {"price": 1.0})
        eventually(lambda: bench.pipeline.stats.sources["feed"].received == 3)
        given(bench, served, 2, name)

        def families() -> list[Any]:
            text = served.ask("/metrics").body.decode()
            return list(parser.text_string_to_metric_families(text))

        def found() -> dict[tuple[str, ...], float]:
            return {
                (
                    sample.name,
                    *(value for key, value in sample.labels.items() if key != "pipeline"),
                ): (sample.value)
                for family in families()
                for sample in family.samples
            }

        eventually(lambda: found()["run_task_rows_total", "feed", "ahead"] == 1)
        told = found()
        assert told["run_task_ticks_total", name] == 2
        assert told["run_task_result", name, "end_of"] == 2
        assert told["run_task_result", name, "both_low"] == 1.5
        assert told["run_task_rows_received_total", "feed"] == 3
        assert told["run_task_pipeline_ready",] == 1
        assert told["run_task_last_window_end_timestamp_seconds", name] == 2
        assert abs(told["run_task_last_row_timestamp_seconds", "feed"] - time.time()) < PATIENCE
        assert ("run_task_last_checkpoint_timestamp_seconds",) not in told  # it keeps none
        assert ("run_task_tick_lateness_seconds", name, "0.99") in told
        for name_of_time, spread in (
            ("lateness", bench.pipeline.stats.stages[name].lateness),
            ("duration", bench.pipeline.stats.stages[name].duration),
        ):
            family = f"run_task_tick_{name_of_time}_seconds"
            assert told[f"{family}_count", name] == 2
            assert told[f"{family}_sum", name] == spread.total
        of_quantiles = {
            family.name: family.type
            for family in families()
            if any("quantile" in sample.labels for sample in family.samples)
        }
        # `promtool check metrics` takes this label for a mistake in all that are no summaries.
        assert of_quantiles == {
            "run_task_tick_lateness_seconds": "summary",
            "run_task_tick_duration_seconds": "summary",
        }
        assert not any(key[0] == "run_task_result" and key[1] == "fed" for key in told)
        of_rows = served.get("/api/fates?source=feed")
        assert of_rows["columns"].keys() >= {"stored", "late", "ahead", "malformed", "expired"}
        assert served.ask("/api/fates?source=no").status == 404
        inbox.close()


def test_the_guide_names_metrics_that_there_are() -> None:
    part = GUIDE.read_text().partition("## What a service has")[2].partition("## Traces")[0]
    named = set(re.findall(r"`(run_task_\w+)", part))
    assert len(named) >= 6
    made = (_metrics._of_stages, _metrics._of_sources, _metrics._of_sinks, _metrics._of_shards)  # pyright: ignore[reportPrivateUsage]  what is not told yet has no line
    assert named <= {family.name for of in made for family in of(())}


def test_metrics_tell_when_the_last_checkpoint_was_written(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pipeline = Pipeline("kept", checkpoint=tmp_path)
    series = TimeSeries({"price": float}, TimeUnit.MILLIS)
    inbox = Inbox[dict[str, float]](10)
    pipeline.source(inbox, into=series, name="feed", journal=tmp_path / "journal")
    pipeline.stage("means", [mean("price")], series, "100ms")
    with serving(pipeline) as served:
        name = 'run_task_last_checkpoint_timestamp_seconds{pipeline="kept"} '

        def told() -> list[float]:
            lines = served.ask("/metrics").body.decode().splitlines()
            return [float(line.removeprefix(name)) for line in lines if line.startswith(name)]

        eventually(lambda: bool(told()))
        (at,) = told()
        assert abs(at - time.time()) < PATIENCE
        eventually(lambda: told() > [at])
        inbox.close()
