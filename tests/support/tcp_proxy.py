"""A TCP proxy between a client and a server, by which tests cut, stall and resume a connection."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Generator
from typing import Any

_IDLE = 0.01


class Proxy:
    """It listens on a free port of 127.0.0.1, and hands on what comes to a server.

    :param host: where the server is
    :param port: its port
    :param advertised: whether the server tells clients its address, as Kafka does: then they are
        told that of the proxy
    """

    def __init__(self, host: str, port: int, *, advertised: bool = False) -> None:
        self._server = (host, port)
        self._told = host.encode() + port.to_bytes(4) if advertised else None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        """Where it listens."""
        self._refuses = False
        self._stalls = False
        self._cutting = threading.Event()
        self._cut_done = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it listens, as ``host:port``."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Close all connections, and refuse new ones, until :meth:`resume`."""
        self._refuses = True
        self._cut_done.clear()
        self._cutting.set()
        assert self._cut_done.wait(10)

    def stall(self) -> None:
        """Hand nothing on, and answer nothing, until :meth:`resume`: as a network that is gone."""
        self._stalls = True

    def resume(self) -> None:
        """Hand on what comes, also what has come meanwhile."""
        self._stalls = False
        self._refuses = False

    def close(self) -> None:
        """End it."""
        self._ended = True
        self._thread.join(10)

    def _run(self) -> None:
        peers: dict[socket.socket, socket.socket] = {}
        selector = selectors.DefaultSelector()
        selector.register(self._listener, selectors.EVENT_READ)

        def drop(one: socket.socket) -> None:
            for each in (one, peers.pop(one, one)):
                peers.pop(each, None)
                with contextlib.suppress(KeyError, ValueError):
                    selector.unregister(each)
                each.close()

        while not self._ended:
            if self._cutting.is_set():
                self._cutting.clear()
                for each in list(peers):
                    drop(each)
                self._cut_done.set()
            if self._stalls:
                threading.Event().wait(_IDLE)
                continue
            for key, _ in selector.select(_IDLE):
                one: Any = key.fileobj
                if one is self._listener:
                    with contextlib.suppress(OSError):
                        client, _ = one.accept()
                        if self._refuses:
                            client.close()
                            continue
                        try:
                            server = socket.create_connection(self._server, 5)
                        except OSError:
                            client.close()
                            continue
                        for each, peer in ((client, server), (server, client)):
                            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                            peers[each] = peer
                            selector.register(each, selectors.EVENT_READ)
                    continue
                other = peers.get(one)
                if other is None:
                    continue
                try:
                    data = one.recv(1 << 16)
                    if self._told is not None:
                        data = data.replace(self._told, b"127.0.0.1" + self.port.to_bytes(4))
                    if data:
                        other.sendall(data)
                except OSError:
                    data = b""
                if not data:
                    drop(one)
        for one in list(peers):
            drop(one)
        self._listener.close()
        selector.close()


@contextlib.contextmanager
def proxy(host: str, port: int, *, advertised: bool = False) -> Generator[Proxy]:
    """A proxy, until the block is left."""
    made = Proxy(host, port, advertised=advertised)
    try:
        yield made
    finally:
        made.close()
