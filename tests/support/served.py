"""A service for tests, and requests to it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.threads import PATIENCE, eventually

from run_task import Pipeline
from run_task.serve import Service


@dataclass
class Reply:
    """What a request was answered."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def told(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A service that runs.

    :param service: it
    :param headers: what all requests bring
    """

    service: Service
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Reply:
        """One request. In names of headers, an underscore is a hyphen."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, {**self.headers, **named})
            answer = connection.getresponse()
            return Reply(answer.status, answer.read(), dict(answer.headers))
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """What is told of a path."""
        reply = self.ask(path)
        assert reply.status == 200, reply
        return reply.told

    @contextmanager
    def listening(self, path: str) -> Generator[Iterator[tuple[str, Any]]]:
        """The events of a stream, as they come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers=self.headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            yield events(answer)
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        """A connection."""
        return socket.create_connection(("127.0.0.1", self.service.port), PATIENCE)


def events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    """Server-sent events: the name of each, and what it tells."""
    name = ""
    while line := answer.readline().decode():
        if line.startswith("event: "):
            name = line[7:].strip()
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


@contextmanager
def serving(*pipelines: Pipeline, **options: Any) -> Generator[Served]:
    """Run a service of pipelines that do not end by themselves, until the block is left. What it
    raised is raised then."""
    options.setdefault("port", 0)
    service = Service(pipelines, **options)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            service.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        served = Served(service)
        eventually(lambda: service.port or raised)
        if not raised:
            eventually(lambda: raised or answers(served))
            eventually(lambda: raised or all(pipeline.is_running for pipeline in pipelines), 60)
        yield served
    finally:
        service.shutdown()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    if raised:
        raise raised[0]


def answers(served: Served) -> bool:
    """Whether it does."""
    try:
        return served.ask("/ready").status in (200, 503)
    except OSError:
        return False
