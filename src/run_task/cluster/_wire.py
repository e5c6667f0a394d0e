"""Messages over a socket: their bytes, and what is large beside these, which is not copied."""

from __future__ import annotations

import socket
import struct
from typing import Any, Final, Protocol

from run_task.cluster._encoding import decoded, encoded

_HEAD: Final = struct.Struct("=QI")
"""How many bytes a message has, and how many arrays there are beside it."""

_SIZE: Final = struct.Struct("=Q")


class Incoming(Protocol):
    """What bytes can be received from, such as a socket."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Wait for bytes. Returns how many have come; 0: the other end is gone."""
        ...


def send(end: socket.socket, message: Any) -> None:
    """Send a message. One thread at a time.

    :raises OSError: if the other end is gone
    """
    data, beside = encoded(message)
    arrays = [buffer.raw() for buffer in beside]
    sizes = [_SIZE.pack(array.nbytes) for array in arrays]
    end.sendall(b"".join([_HEAD.pack(len(data), len(arrays)), data, *sizes]))
    for array in arrays:
        end.sendall(array)


def receive(end: Incoming) -> Any:
    """Wait for a message. One thread at a time.

    :raises EOFError: if the other end is gone
    :raises OSError: if it went in the middle of one
    """
    size, count = _HEAD.unpack(_exactly(end, _HEAD.size))
    data = _exactly(end, size + count * _SIZE.size)
    sizes = _SIZE.iter_unpack(memoryview(data)[size:])
    return decoded(data, [_exactly(end, size) for (size,) in sizes])


def _exactly(end: Incoming, size: int) -> bytearray:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        count = end.recv_into(view[at:])
        if not count:
            raise EOFError
        at += count
    return data
