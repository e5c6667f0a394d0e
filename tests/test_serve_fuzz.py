"""Requests of any kind, from many clients at once, while a pipeline runs."""

from __future__ import annotations

import math
import random
import re
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from urllib.parse import quote

import pytest
from tests.support.served import Served, serving
from tests.support.threads import PATIENCE, eventually, together

from run_task import Pipeline, RwLock, TimeSeries, TimeUnit, task
from run_task.aggregates import count, mean
from run_task.serve._catalog import OPERATIONS
from run_task.sinks import CallbackSink

TICK = 0.5
"""How long a window is, in seconds."""

CLIENTS = 6
REQUESTS = 40
"""How many each of them sends."""

KEYS = 1000
TOKEN = "0123456789abcdef-token"


@task
def end_of(data: object, start: int, end: int) -> int:
    return end


class Fuzz:
    """Makes requests, good and bad.

    :param seed: another one makes others
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def request(self) -> bytes:
        """One request, or what is none."""
        kind = self._random.random()
        if kind < 0.15:
            return self._random.randbytes(self._random.randrange(1, 3000))
        operation = self._random.choice(OPERATIONS)
        path = operation.path.replace("{name}", self._text())
        words = [each.name for each in operation.parameters] or ["x"]
        query = "&".join(
            f"{self._random.choice(words)}={self._text()}" for _ in range(self._random.randrange(5))
        )
        method = self._random.choice([operation.method, operation.method, "POST", "PUT", "x y"])
        lines = [f"{method} {path}?{query} HTTP/1.1", "Host: localhost"]
        if self._random.random() < 0.5:
            lines.append(f"Authorization: Bearer {self._random.choice([TOKEN, self._text()])}")
        lines += [
            f"X-{number}: {'a' * self._random.randrange(4000)}"
            for number in range(self._random.randrange(4))
        ]
        body = self._random.randbytes(self._random.randrange(2000)) if kind > 0.7 else b""
        if body:
            lines.append(f"Content-Length: {len(body) + self._random.choice([0, 0, 1, 10**9])}")
        whole = "\r\n".join([*lines, "", ""]).encode() + body
        return whole[: self._random.randrange(len(whole))] if kind > 0.9 else whole

    def _text(self) -> str:
        known = [
            "a",
            "by",
            "price_mean",
            "true",
            "0",
            "-1",
            "1e309",
            "10000",
            "price_mean > 1",
            "s1",
        ]
        if self._random.random() < 0.7:
            return quote(self._random.choice(known))
        wild = (self._random.randrange(1, 0xD800) for _ in range(self._random.randrange(1200)))
        return quote("".join(map(chr, wild)))[:3000]


def sent(served: Served, seed: int, statuses: list[int]) -> None:
    fuzz = Fuzz(seed)
    for _ in range(REQUESTS):
        with suppress(ConnectionError), served.connect() as connection:
            connection.sendall(fuzz.request())
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(1.0)
            with suppress(TimeoutError):  # a stream, or one that waits for the rest
                told = connection.recv(1 << 16)
                if (status := re.match(rb"HTTP/1.1 (\d{3})", told)) is not None:
                    statuses.append(int(status[1]))


def test_fuzzed_requests_make_no_window_late_by_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN_TASK_TOKEN", TOKEN)
    series = TimeSeries({"id": str, "price": float}, TimeUnit.MILLIS, key="id", retention="1h")
    pipeline = Pipeline("fuzzed")
    lateness: list[float] = []
    plain = pipeline.stage("a", [end_of], RwLock[object](object()), "500ms")
    plain.sink(CallbackSink(lambda stage, dataset: lateness.append(dataset.lateness)))
    pipeline.stage("by", [mean("price"), count()], series, "500ms", by="id")
    stopped = threading.Event()
    with serving(pipeline) as served:

        def feed() -> None:
            while not stopped.wait(TICK / 2):
                stamp = time.time_ns() // 1_000_000
                for number in range(0, KEYS, 10):
                    series.append(stamp, id=f"s{number}", price=float(number))

        thread = threading.Thread(target=feed)
        thread.start()
        try:
            eventually(lambda: len(lateness) >= 2)
            statuses: list[int] = []
            latest = math.inf
            # What requests do makes windows late each time; a machine that stands still, once.
            for _ in range(3):
                lateness.clear()
                together(*(partial(sent, served, seed, statuses) for seed in range(CLIENTS)))
                eventually(lambda: len(lateness) >= 4)
                latest = min(latest, max(lateness))
                if latest < TICK:
                    break
        finally:
            stopped.set()
            thread.join(PATIENCE)
        assert latest < TICK
        # Not what it costs alone: nothing has broken, either.
        assert len(statuses) > CLIENTS * REQUESTS / 4
        assert {status for status in statuses if status >= 500} <= {503}
        assert served.ask("/health").status == 200
        assert pipeline.is_running
