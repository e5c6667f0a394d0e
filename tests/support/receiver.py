"""A receiver of webhooks on this machine, which answers as it is told."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Posted(NamedTuple):
    """What was posted."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """What came, and what is answered.

    :param url: how its URLs begin
    :param port: its port
    """

    url: str = ""
    port: int = 0
    posted: list[Posted] = field(default_factory=list[Posted])
    statuses: list[int] = field(default_factory=list[int])
    """What is answered next; after that, 204."""
    location: str | None = None
    """Where redirects lead."""
    hang: threading.Event | None = None
    """What is waited for before each answer."""
    hang_up: bool = False
    """Whether the connection is closed after each answer, with no word."""


@contextlib.contextmanager
def receiver(port: int = 0) -> Generator[Receiver]:
    """A server, until the block is left.

    :param port: its port; 0: any that is free
    """
    to = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            to.posted.append(Posted(self.path, headers, body))
            if to.hang is not None:
                to.hang.wait(30)
            with contextlib.suppress(IndexError, OSError):
                status = 204
                with contextlib.suppress(IndexError):
                    status = to.statuses.pop(0)
                self.send_response(status)
                if to.location is not None:
                    self.send_header("Location", to.location)
                self.send_header("Content-Length", "0")
                self.end_headers()
            if to.hang_up:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as it is called there
            pass

    class Server(ThreadingHTTPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", port), Handler) as server:
        to.port = server.server_address[1]
        to.url = f"http://127.0.0.1:{to.port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield to
        finally:
            if to.hang is not None:
                to.hang.set()
            server.shutdown()
            thread.join()
