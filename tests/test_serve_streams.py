"""Streams of a service: to clients that take what they are told, slowly, or not at all."""

from __future__ import annotations

import http.client
import json
import math
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import websockets.sync.client
from tests.support.bench import PipelineBench
from tests.support.served import Served, events, serving
from tests.support.threads import PATIENCE, beside, eventually
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from run_task import Pipeline, RwLock, TaskInterval, TimeSeries, TimeUnit, task
from run_task.aggregates import count, mean
from run_task.serve import _app, _events
from run_task.sinks import CallbackSink

LONG = 100_000
"""How many characters a result has of which few go into what a connection holds."""


@task
def end_of(data: object, start: int, end: int) -> int:
    return end


@task
def long(data: object, start: int, end: int) -> str:
    return f"{end:0{LONG}}"


def bench(*tasks: Any) -> PipelineBench:
    made = PipelineBench(tasks or [end_of])
    made.stage("a", RwLock[object](object()))
    return made


def streams(served: Served) -> int:
    return served.service.streams


def narrow(served: Served) -> socket.socket:
    """A connection that holds little of what it has not read."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.settimeout(PATIENCE)
    made.connect(("127.0.0.1", served.service.port))
    return made


def ends(told: Iterator[tuple[str, Any]], last: int) -> list[int]:
    """The ends of the windows that are told, up to one."""
    found: list[int] = []
    for name, data in told:
        if name == "dataset":
            found.append(data["end"])
            if data["end"] == last:
                return found
    raise AssertionError(f"it ended with {found[-1:]}")


def test_datasets_are_told_as_they_come_by_events_and_by_web_socket() -> None:
    made = bench()
    made.stage("b", RwLock[object](object()))
    with serving(made.pipeline) as served:
        address = f"ws://127.0.0.1:{served.service.port}/api/stream?stage=a"
        with (
            served.listening("/api/stream?stage=a") as told,
            served.listening("/api/stream") as of_all,
            websockets.sync.client.connect(address) as web_socket,
        ):
            eventually(lambda: streams(served) == 3)
            for _ in range(3):
                made.advance()
                made.sink.wait_for("a", round(made.clock.time_ns() / 1e9))
            name, first = next(told)
            assert (name, first) == (
                "dataset",
                {
                    "pipeline": "bench",
                    "stage": "a",
                    "start": 0,
                    "end": 1,
                    "unit": "s",
                    "results": {"end_of": 1},
                    "errors": [],
                },
            )
            assert ends(told, 3) == [2, 3]
            got = [next(of_all)[1]["stage"] for _ in range(6)]
            assert sorted(got) == ["a"] * 3 + ["b"] * 3
            messages = [json.loads(web_socket.recv(PATIENCE)) for _ in range(3)]
            assert messages[0] == {"event": "dataset", "data": first}
        eventually(lambda: streams(served) == 0)
        assert served.ask("/api/stream?stage=no").status == 404


def test_of_a_stage_by_key_one_key_can_be_told() -> None:
    series = TimeSeries({"id": int, "price": float}, TimeUnit.SECONDS, key="id")
    made = PipelineBench()
    made.pipeline.stage("by", [count(), mean("price")], series, "1s", by="id")
    for key in range(3):
        series.append(0, id=key, price=key + 0.5)
    with (
        serving(made.pipeline) as served,
        served.listening("/api/stream?key=2") as one,
        served.listening("/api/stream") as whole,
    ):
        eventually(lambda: streams(served) == 2)
        made.advance()
        assert next(one)[1]["keys"] == [{"key": 2, "results": {"count": 1, "price_mean": 2.5}}]
        assert [each["key"] for each in next(whole)[1]["keys"]] == [0, 1, 2]


def test_a_client_that_reads_nothing_delays_nobody_and_what_it_misses_is_counted() -> None:
    windows = 400
    made = bench(long)
    with (
        serving(made.pipeline) as served,
        narrow(served) as stuck,
        served.listening("/api/stream") as told,
    ):
        stuck.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: streams(served) == 2)
        with beside(lambda: ends(told, windows)) as reading:
            for window in range(1, windows + 1):
                made.advance()
                made.sink.wait_for("a", window)
                if window % 20 == 0:  # the one that reads is given time to
                    time.sleep(0.01)
        assert reading.result(PATIENCE)[-1] == windows
        assert served.get("/api/stages/a")["now"]["windows"] == windows
        # Now it reads after all: all there was is told, or counted.
        answer = http.client.HTTPResponse(stuck)
        answer.begin()
        got = missed = 0
        for name, data in events(answer):
            if name == "dropped":
                missed += data["count"]
            else:
                got += 1
                if data["end"] == windows:
                    break
        assert missed > windows // 2
        assert got + missed == windows


def test_a_client_that_takes_nothing_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_events, "_LONGEST_SEND", 0.05)
    made = bench(long)
    with serving(made.pipeline) as served, narrow(served) as stuck:
        stuck.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        address = f"ws://127.0.0.1:{served.service.port}/api/stream"
        with websockets.sync.client.connect(
            address, sock=narrow(served), max_queue=1, close_timeout=0.01
        ):
            eventually(lambda: streams(served) == 2)
            deadline = time.monotonic() + PATIENCE
            while streams(served) and time.monotonic() < deadline:
                made.advance()
                time.sleep(0.002)
            assert streams(served) == 0


def test_who_comes_slowly_to_live_states_is_told_the_newest() -> None:
    made = bench(long, end_of)
    with serving(made.pipeline) as served, served.listening("/api/live") as told:
        assert next(told)[1]["full"]
        for _ in range(50):
            made.advance()
        made.sink.wait_for("a", 50)
        states = [next(told)[1]]
        while states[-1]["stages"].get("a", {}).get("values", {}).get("end_of") != 50:
            states.append(next(told)[1])
        assert len(states) < 10


def test_there_are_so_many_streams_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_app, "_MOST_STREAMS", 2)
    made = bench()
    with serving(made.pipeline) as served:
        with served.listening("/api/live"), served.listening("/api/stream"):
            eventually(lambda: streams(served) == 2)
            refused = served.ask("/api/live")
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            with pytest.raises((InvalidStatus, ConnectionClosed)):
                websockets.sync.client.connect(
                    f"ws://127.0.0.1:{served.service.port}/api/stream"
                ).recv(PATIENCE)
            assert served.ask("/health").status == 200
        eventually(lambda: streams(served) == 0)
        with served.listening("/api/live") as told:
            assert next(told)[1]["full"]


def test_a_web_socket_of_another_site_is_refused() -> None:
    with serving(bench().pipeline) as served:
        address = f"ws://127.0.0.1:{served.service.port}/api/stream"
        with pytest.raises(InvalidStatus):
            websockets.sync.client.connect(address, origin=Origin("http://evil.example"))
        with pytest.raises(InvalidStatus):
            websockets.sync.client.connect(f"{address}?no=1")


def test_streams_tell_the_end() -> None:
    made = bench()
    with serving(made.pipeline) as served, served.listening("/api/live") as told:
        assert next(told)[1]["state"] == "running"
        served.service.shutdown()
        assert [data["state"] for _, data in told][-1] == "ended"


def test_two_hundred_clients_and_one_that_reads_nothing_make_no_window_late() -> None:
    pipeline = Pipeline("load")
    lateness: list[float] = []
    stage = pipeline.stage("a", [end_of], RwLock[object](object()), TaskInterval.millis(200))
    stage.sink(CallbackSink(lambda stage, dataset: lateness.append(dataset.lateness)))
    with ExitStack() as open_ones, serving(pipeline) as served:
        asked = b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
        clients = [open_ones.enter_context(served.connect()) for _ in range(200)]
        for client in clients:
            client.sendall(asked)
        eventually(lambda: streams(served) == 200)
        readers = clients[1:]
        for client in readers:
            client.setblocking(False)
        received, latest = 0, math.inf
        # What clients do makes windows late each time; a machine that stands still, once.
        for _ in range(5):
            lateness.clear()
            deadline = time.monotonic() + PATIENCE
            while len(lateness) < 8 and time.monotonic() < deadline:
                for client in readers:
                    with suppress(BlockingIOError):
                        received += client.recv(1 << 16).count(b"event: dataset")
                time.sleep(0.02)
            latest = min(latest, max(lateness))
            if latest < 0.2:  # a tick
                break
        assert latest < 0.2
        assert pipeline.stats.stages[stage.name].missed == 0
        assert received >= 199 * 6
