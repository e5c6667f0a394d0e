"""Messages over a socket: what is no array, and the arrays beside it, which are not copied."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any, Final, Protocol

from run_task.cluster._encoding import decoded, encoded

_COUNT: Final = struct.Struct("=I")
_SIZE: Final = struct.Struct("=Q")
_SMALL: Final = 1 << 16


class Incoming(Protocol):
    """What bytes can be received from, such as a socket."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Wait for bytes. Returns how many have come; 0: the other end is gone."""
        ...


def send(end: socket.socket, message: Any) -> None:
    """Send a message. One thread at a time.

    :raises OSError: if the other end is gone
    """
    pieces = encoded(message)
    if sum(piece.nbytes for piece in pieces) < _SMALL:
        end.sendall(as_frame(pieces))
        return
    end.sendall(_head(pieces))
    for piece in pieces:
        end.sendall(piece)


def as_frame(pieces: Sequence[memoryview]) -> bytes:
    """The pieces of a message in one."""
    return b"".join([_head(pieces), *pieces])


def pieces_of(frame: bytes) -> Sequence[memoryview]:
    """The pieces that are in a frame, not copied."""
    whole = memoryview(frame)
    (count,) = _COUNT.unpack_from(whole)
    at = _COUNT.size + count * _SIZE.size
    pieces: list[memoryview] = []
    for (size,) in _SIZE.iter_unpack(whole[_COUNT.size : at]):
        pieces.append(whole[at : at + size])
        at += size
    return pieces


def _head(pieces: Sequence[memoryview]) -> bytes:
    return _COUNT.pack(len(pieces)) + b"".join(_SIZE.pack(piece.nbytes) for piece in pieces)


def receive(end: Incoming) -> Any:
    """Wait for a message. One thread at a time.

    :raises EOFError: if the other end is gone
    :raises OSError: if it went in the middle of one
    """
    (count,) = _COUNT.unpack(_exactly(end, _COUNT.size))
    sizes = _exactly(end, count * _SIZE.size)
    return decoded([_exactly(end, size) for (size,) in _SIZE.iter_unpack(sizes)])


def _exactly(end: Incoming, size: int) -> bytearray:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        count = end.recv_into(view[at:])
        if not count:
            raise EOFError
        at += count
    return data
