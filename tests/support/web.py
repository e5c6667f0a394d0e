"""A web server of this machine, for tests of what is read from one."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """What a server serves, and how.

    :param url: how its URLs begin
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """Contents by path, without a slash before it."""
    ranges: bool = True
    """Whether it gives parts of a file."""
    status: int | None = None
    """With which status it answers, whatever it is asked for."""
    cut: int | None = None
    """After how many bytes of a body it hangs up."""
    asked: list[str] = field(default_factory=list[str])
    """What it was asked for: the method, the path with its query, and the part."""


@contextlib.contextmanager
def web() -> Generator[Web]:
    """A server, until the block is left."""
    served = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            part = self.headers.get("Range", "")
            served.asked.append(f"{self.command} {self.path} {part}".strip())
            content = served.files.get(self.path.lstrip("/").partition("?")[0])
            if served.status is not None or content is None:
                self.send_response(served.status or 404, f"no: {self.path}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", part) if served.ranges else None
            if wanted is None:
                self.send_response(200)
            else:
                first, size = int(wanted[1]), len(content)
                content = content[first : int(wanted[2]) + 1 if wanted[2] else size]
                self.send_response(206)
                last = first + len(content) - 1
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                with contextlib.suppress(ConnectionError):  # whoever asked may have hung up
                    self.wfile.write(content[: served.cut])
                if served.cut is not None and served.cut < len(content):
                    self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 so it is called
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
