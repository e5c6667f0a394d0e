"""A proxy between a client and a server, which can be cut."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

_LOOK_EVERY = 0.01
"""After how many seconds at most a cut is noticed."""


@contextmanager
def proxy(server: tuple[str, int], cut: threading.Event) -> Generator[int]:
    """Hand bytes to and fro between clients and a server.

    :param server: its address
    :param cut: while it is set, connections are reset, and new ones closed at once
    :return: the port on 127.0.0.1 to which clients connect
    """
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(_LOOK_EVERY)
        connections: list[threading.Thread] = []

        def accept() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    client, _ = listener.accept()
                    client.setblocking(True)
                    one = threading.Thread(target=_carry, args=(client, server, cut, over))
                    one.start()
                    connections.append(one)

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            accepting.join()
            for one in connections:
                one.join()


def _carry(
    client: socket.socket, server: tuple[str, int], cut: threading.Event, over: threading.Event
) -> None:
    with client, contextlib.suppress(OSError):
        if cut.is_set():
            return
        with socket.create_connection(server) as upstream:
            other = {client: upstream, upstream: client}
            while not (cut.is_set() or over.is_set()):
                for ready in select.select([client, upstream], [], [], _LOOK_EVERY)[0]:
                    if not (part := ready.recv(65536)):
                        return
                    other[ready].sendall(part)
