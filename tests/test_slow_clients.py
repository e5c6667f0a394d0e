"""Clients that take their time over a request: how long a connection is theirs."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import pytest
from tests.support.bench import PipelineBench
from tests.support.served import serving
from tests.support.threads import PATIENCE, eventually

from run_task import RwLock, task
from run_task.serve import _service
from run_task.sources.http._server import HttpServer

WITHIN = 0.5
"""How many seconds a request may take to begin."""

HEAD = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """``/wait`` is answered once the body is there, ``/`` at once, and ``/long`` takes a while."""
    assert scope["type"] == "http"
    while scope["path"] == "/wait" and (await receive()).get("more_body"):
        pass
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"o", "more_body": True})
    if scope["path"] == "/long":
        await asyncio.sleep(3 * WITHIN)
    await send({"type": "http.response.body", "body": b"k"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    ended = threading.Event()

    def end(failure: BaseException | None) -> None:
        ended.set()

    server = HttpServer("test", application, "127.0.0.1", 0, end, request_seconds=WITHIN)
    server.start()
    yield server.port
    server.stop()
    assert ended.wait(PATIENCE)
    server.join()


@contextmanager
def connected(port: int) -> Generator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as made:
        yield made


def answer(connection: socket.socket) -> bytes:
    """An answer of this application."""
    found = b""
    while not found.endswith(b"ok"):
        more = connection.recv(1000)
        assert more, f"it was closed behind {found!r}"
        found += more
    return found


def dripped(connection: socket.socket, data: bytes, every: float = WITHIN / 10) -> float:
    """Send bytes one by one until the other end closes. Returns after how many seconds it did."""
    begun = time.monotonic()
    connection.settimeout(every)
    with suppress(ConnectionError):
        for at in range(len(data)):
            connection.sendall(data[at : at + 1])
            with suppress(TimeoutError):
                if not connection.recv(1000):
                    break
        else:
            raise AssertionError("all was taken")
    return time.monotonic() - begun


def test_headers_that_come_byte_by_byte_are_not_waited_for(port: int) -> None:
    with connected(port) as connection:
        took = dripped(connection, HEAD % b"" + b"X: %s" % (b"x" * 2000))
        assert WITHIN * 0.9 < took < PATIENCE


def test_nor_is_a_request_that_does_not_come(port: int) -> None:
    with connected(port) as connection:
        begun = time.monotonic()
        assert connection.recv(1) == b""
        assert time.monotonic() - begun > WITHIN * 0.9


def test_nor_are_headers_of_another_request(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(HEAD % b"" + b"\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 200")
        assert dripped(connection, HEAD % b"" + b"X: %s" % (b"x" * 2000)) > WITHIN * 0.9


def test_nor_is_the_rest_of_a_body_once_it_was_answered(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(HEAD % b"" + b"Content-Length: 5000\r\n\r\n")
        answer(connection)
        assert dripped(connection, b"x" * 2000) > WITHIN * 0.9


def test_between_requests_a_connection_may_rest_for_longer(port: int) -> None:
    with connected(port) as connection:
        for _ in range(2):
            connection.sendall(HEAD % b"" + b"\r\n")
            answer(connection)
            time.sleep(2 * WITHIN)
        connection.sendall(HEAD % b"")
        time.sleep(WITHIN / 10)
        connection.sendall(b"\r\n")
        assert answer(connection)


def test_an_answer_and_a_body_that_is_waited_for_may_take_longer(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(HEAD % b"long" + b"\r\n")
        assert answer(connection)
        connection.sendall(HEAD % b"wait" + b"Content-Length: 4\r\n\r\n")
        for _ in range(4):
            time.sleep(WITHIN / 2)
            connection.sendall(b"x")
        assert answer(connection)


@task
def end_of(data: object, start: int, end: int) -> int:
    return end


def test_clients_that_dribble_do_not_keep_others_out_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_service, "_MOST_CONNECTIONS", 10)
    monkeypatch.setattr(_service, "HttpServer", partial(HttpServer, request_seconds=2 * WITHIN))
    bench = PipelineBench([end_of])
    bench.stage("a", RwLock[object](object()))
    with serving(bench.pipeline) as served, ExitStack() as stack:
        slow = [stack.enter_context(connected(served.service.port)) for _ in range(10)]
        for connection in slow:
            connection.sendall(HEAD % b"health")
        assert served.ask("/health").status == 503
        stopped = threading.Event()

        def dribble() -> None:
            while not stopped.wait(WITHIN / 10):
                for connection in slow:
                    with suppress(OSError):
                        connection.sendall(b"x")

        thread = threading.Thread(target=dribble)
        thread.start()
        try:
            eventually(lambda: served.ask("/health").status == 200)
        finally:
            stopped.set()
            thread.join()
