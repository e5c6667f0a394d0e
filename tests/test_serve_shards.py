"""A service whose pipeline runs over shards: what it tells of them, also while one is killed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.support.crews import children
from tests.support.served import Served, serving
from tests.support.sharded_service import KEYS, pipeline
from tests.support.shards import REFUSED, LocalLink, LocalTransport, local_shards
from tests.support.threads import PATIENCE, beside, eventually

from run_task import Pipeline
from run_task.cli._logs import JsonLines
from run_task.pipeline._monitor import Monitor
from run_task.runner._stats import ShardState, ShardStats
from run_task.serve import Service
from run_task.serve._health import Bounds, health, unready
from run_task.serve._shapes import PipelineNow, Topology

EVERY_KEY_TWICE = 2 * KEYS

in_time = partial(eventually, within=60.0, every=0.02)
"""Processes are started, which a busy machine takes its time for."""


def over(shards: int) -> Callable[[Pipeline], None]:
    return lambda made: made.run_sharded(shards)


def shards_of(served: Served) -> list[Any]:
    """How shards do, as the API tells it, which is the same in both of its places."""
    made = msgspec.convert(served.get("/api/pipeline"), Topology)
    with served.listening("/api/live") as told:
        name, state = next(told)
    assert name == "state"
    assert [shard.number for shard in made.shards] == list(map(int, state["shards"]))
    return list(msgspec.convert(state, PipelineNow).shards.values())


def first_of(transport: LocalTransport, number: int) -> LocalLink:
    """A shard as it was started first."""
    return next(link for link in transport.links if link.number == number)


def metric(served: Served, name: str) -> dict[str, float]:
    """The values of a metric, by its labels besides that of the pipeline."""
    found: dict[str, float] = {}
    for line in served.ask("/metrics").body.decode().splitlines():
        labelled, _, value = line.rpartition(" ")
        head, brace, labels = labelled.partition("{")
        if head == name and brace:
            found[labels.removesuffix("}").replace('pipeline="sharded",', "")] = float(value)
    return found


def test_a_shard_that_is_killed_while_it_is_served_comes_back_and_all_of_it_is_told() -> None:
    begun = children()
    made = pipeline()
    with serving(made, run=over(2)) as served:

        def are_at_work() -> bool:
            return all(shard.results > EVERY_KEY_TWICE for shard in shards_of(served))

        in_time(are_at_work)
        in_time(lambda: served.ask("/ready").status == 200)
        # On a busy machine, rows of some keys come later than the window in which they are due.
        in_time(lambda: sum(shard.keys for shard in shards_of(served)) == KEYS)
        in_time(lambda: all(shard.rows > shard.keys for shard in shards_of(served)))
        before = shards_of(served)
        assert [shard.name for shard in before] == ["shard 0 of 2", "shard 1 of 2"]
        assert [shard.state for shard in before] == ["running"] * 2
        assert {shard.process for shard in before} == children() - begun
        assert all(shard.reason is None and not shard.restarts for shard in before)
        os.kill(before[1].process, signal.SIGKILL)
        in_time(lambda: shards_of(served)[1].restarts == 1)
        rest, back = shards_of(served)
        assert (rest.restarts, rest.process) == (0, before[0].process)
        assert (back.state, back.reason) == ("running", None)
        assert back.process not in (None, before[1].process)
        in_time(lambda: shards_of(served)[1].windows > back.windows)
        in_time(lambda: served.ask("/ready").status == 200)
        assert metric(served, "run_task_shard_restarts_total") == {'shard="0"': 0, 'shard="1"': 1}
        states = metric(served, "run_task_shard_state")
        assert states['shard="1",state="running"'] == 1
        assert states['shard="1",state="coming back"'] == states['shard="1",state="lost"'] == 0
        assert metric(served, "run_task_shard_rows_total")['shard="1"'] > back.keys
        assert list(metric(served, "run_task_shard_info").values()) == [1, 1]
        stage = served.get("/api/stages/by%20device")
        assert stage["now"]["keys"]["count"] == KEYS
        assert stage["now"]["failed"] == 0
    assert children() == begun
    assert {shard.state for shard in made.stats.shards.values()} == {ShardState.ENDED}


def test_a_shard_that_stays_away_is_lost_and_catches_up(caplog: pytest.LogCaptureFixture) -> None:
    transport = LocalTransport()
    killed = threading.Event()

    def go(link: LocalLink) -> None:
        if killed.is_set() and link is first_of(transport, 1):
            link.kill()

    transport.on_call = go
    made = pipeline(patience=0.5)
    with local_shards(transport), serving(made, run=over(2)) as served:
        in_time(lambda: shards_of(served)[1].results > EVERY_KEY_TWICE)
        with served.listening("/api/live") as told:
            assert next(told)[1]["shards"].keys() == {"0", "1"}
            transport.refuses = True
            killed.set()
            seen = ""
            reasons: list[str] = []
            for _, state in told:
                shard = state["shards"].get("1", {})
                if shard.get("state") == "coming back" and seen == "":
                    seen = "coming back"
                    assert state["health"]["status"] == "warning"
                    reasons = state["health"]["reasons"]
                if shard.get("state") == "lost":
                    break
            assert seen == "coming back"
            assert reasons[0].startswith("shard 1 of 2 is coming back: on node-1: it was killed")
        in_time(lambda: shards_of(served)[1].windows_behind > 1)
        in_time(lambda: shards_of(served)[1].seconds_behind > 0.5)
        lost = shards_of(served)[1]
        assert (lost.state, lost.node, lost.process) == ("lost", None, None)
        assert "there is no place for it" in lost.reason
        assert metric(served, "run_task_shard_state")['shard="1",state="lost"'] == 1
        assert 'shard="1",node="node-1"' not in metric(served, "run_task_shard_info")
        reply = served.ask("/ready")
        assert reply.status == 503
        assert any(
            "windows go without shard 1 of 2, for" in reason for reason in reply.told["reasons"]
        )
        assert served.ask("/health").status == 200
        transport.refuses = False
        in_time(lambda: shards_of(served)[1].restarts == 1)
        in_time(lambda: shards_of(served)[1].windows_behind == 0)
        assert metric(served, "run_task_shard_windows_behind") == {'shard="0"': 0, 'shard="1"': 0}
        in_time(lambda: served.ask("/ready").status == 200)
    told_of = [record for record in caplog.records if vars(record).get("shard") == 1]
    parts = ("is gone, and", "windows go without", "cannot be started", "is back", "has caught up")
    for part in parts:
        assert any(part in record.getMessage() for record in told_of), part
    back = next(record for record in told_of if "is back" in record.getMessage())
    logged = msgspec.json.decode(JsonLines().format(back))
    assert (logged["shard"], logged["node"], logged["level"]) == ("1", "node-1", "warning")


def test_who_runs_no_shards_tells_of_none() -> None:
    made = pipeline()
    with serving(made) as served:
        assert served.get("/api/pipeline")["shards"] == []
        with served.listening("/api/live") as told:
            assert next(told)[1]["shards"] == {}
        assert "run_task_shard" not in served.ask("/metrics").body.decode()


def test_a_pipeline_that_cannot_be_run_so_ends_the_service_with_the_cure() -> None:
    made = pipeline()
    with pytest.raises(ValueError, match="give 1,024 at most"), serving(made, run=over(2000)):
        pass


def test_a_service_that_is_shut_down_while_shards_are_started_ends_at_once() -> None:
    starting = threading.Event()

    class Full(LocalTransport):
        """No node has room."""

        def start(self, number: int, given_up: threading.Event) -> Any:
            starting.set()
            assert given_up.wait(PATIENCE * 6)
            raise REFUSED

    made, transport = pipeline(), Full()
    with local_shards(transport):
        service = Service([made], port=0, run=over(2))
        with beside(service.run) as ended:
            assert starting.wait(PATIENCE)
            in_time(lambda: made.stats.shards["shard 0 of 2"].state is ShardState.STARTING)
            assert not made.is_running
            service.shutdown()
            ended.result(PATIENCE)  # without an error
    assert transport.closed == 1


def test_a_shard_that_does_not_answer_makes_it_unready_after_the_bound() -> None:
    made = pipeline()
    monitor, bounds = Monitor(made), Bounds(lateness=10.0)

    def told(**stats: Any) -> list[str]:
        return list(unready(made, monitor, {}, bounds, {"shard 0 of 1": ShardStats(**stats)}))

    running = ShardState.RUNNING
    assert not told(state=running, node="n", seconds_behind=9.0)
    assert told(state=running, node="n", seconds_behind=12.0) == [
        "shard 0 of 1, on n, is at a window for 12 s"
    ]
    assert not told(state=ShardState.COMING_BACK, seconds_behind=3.0, reason="it was killed")
    shards = {"shard 0 of 1": ShardStats(state=ShardState.COMING_BACK, reason="it was killed")}
    warned = health([], made.stages, monitor, 0, shards)
    assert warned.reasons == ["shard 0 of 1 is coming back: it was killed"]
    silent = ShardStats(state=ShardState.RUNNING, reason="no sign of life for 6 s")
    warned = health((), made.stages, monitor, 0, {"shard 0 of 1": silent})
    assert (warned.status, warned.reasons) == (
        "warning",
        ["shard 0 of 1: no sign of life for 6 s"],
    )


def test_open_telemetry_is_told_of_each_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: meters)

    def points(name: str) -> dict[int, list[tuple[Any, float]]]:
        data: Any = reader.get_metrics_data()
        found: dict[int, list[tuple[Any, float]]] = {}
        for resource in data.resource_metrics if data is not None else ():
            for told in (each for scope in resource.scope_metrics for each in scope.metrics):
                for point in told.data.data_points if told.name == name else ():
                    about = point.attributes
                    assert about["run_task.pipeline"] == "sharded"
                    said = about.get("run_task.node"), float(point.value)
                    found.setdefault(about["run_task.shard"], []).append(said)
        return found

    transport = LocalTransport()
    made = pipeline()
    with local_shards(transport), serving(made, run=over(2)):
        in_time(lambda: points("run_task.shard.results").keys() == {0, 1})
        in_time(lambda: points("run_task.shard.running").get(1) == [("node-1", 1.0)])
        first_of(transport, 1).kill()
        in_time(lambda: made.stats.shards["shard 1 of 2"].restarts == 1)
    assert points("run_task.shard.restarts") == {0: [(None, 0.0)], 1: [(None, 1.0)]}
    assert points("run_task.shard.running") == {0: [("node-0", 0.0)], 1: [("node-1", 0.0)]}
    for number, shard in enumerate(made.stats.shards.values()):
        for name in ("rows", "windows", "results"):
            assert points(f"run_task.shard.{name}")[number] == [(None, getattr(shard, name))]
            assert getattr(shard, name) > 0
