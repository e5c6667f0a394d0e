"""How a runner and its worker processes send each other messages.

A message is a small pickle down a socket. What is large goes through memory that both map, whose
descriptor is sent along: so no message is ever too large for the socket's buffer, and neither end
waits for the other to read.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from run_task.data._memory import MapMode, create, mapped
from run_task.executors.processes._pickling import PROTOCOL, dumps

INLINE: Final = 16_384
"""Up to how many bytes a payload goes down the socket."""

_ALIGNMENT: Final = 64

_HEADER: Final = struct.Struct("=QI")
"""The size of a message and how many descriptors come with it. These follow in batches, each with a
byte to carry it, and then the message."""

_CARRIER: Final = b"#"
_AT_ONCE: Final = 250
"""How many descriptors go in a batch: Linux allows 253."""

_DESCRIPTOR: Final = struct.Struct("=i")
_ROOM: Final = 8192
_ROOM_FOR_DESCRIPTORS: Final = socket.CMSG_LEN(_AT_ONCE * _DESCRIPTOR.size)
_FLAGS: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # what tasks start is not to have them


class Connection:
    """One end of the socket between a runner and a worker process.

    At any time one end may send and the other waits for that, so that there is never more than one
    message to be received.

    :param end: of the socket
    """

    __slots__ = ("_socket",)

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def fileno(self) -> int:
        """The socket's descriptor, for a selector."""
        return self._socket.fileno()

    def send(self, message: tuple[Any, ...], descriptors: Sequence[int] = ()) -> None:
        """Send a message, and open files with it.

        :param message: sent as a plain tuple
        :param descriptors: of the files
        :raises OSError: if the other end is gone
        """
        # A plain tuple, for one of a type of its own takes several times as long.
        body = pickle.dumps(tuple(message), PROTOCOL)
        header = _HEADER.pack(len(body), len(descriptors))
        if not descriptors:
            self._socket.sendall(header + body)
            return
        self._socket.sendall(header)
        for first in range(0, len(descriptors), _AT_ONCE):
            batch = descriptors[first : first + _AT_ONCE]
            socket.send_fds(self._socket, [_CARRIER], batch)
        self._socket.sendall(body)

    def recv(self) -> tuple[tuple[Any, ...], list[int]]:
        """Wait for a message. The descriptors that come with it are the caller's to close.

        :raises EOFError: if the other end is gone
        :raises OSError: if it went in the middle of a message, or there is no room for its files
        """
        data = b""
        descriptors: list[int] = []
        start = end = _HEADER.size
        count = 0
        try:
            while len(data) < end:
                # Never without room for descriptors: they would be lost together with their byte.
                piece, extra, _, _ = self._socket.recvmsg(
                    max(_ROOM, end - len(data)), _ROOM_FOR_DESCRIPTORS, _FLAGS
                )
                if not piece:
                    raise EOFError
                for _, _, batch in extra:
                    whole = len(batch) // _DESCRIPTOR.size * _DESCRIPTOR.size
                    descriptors += [number for (number,) in _DESCRIPTOR.iter_unpack(batch[:whole])]
                data += piece
                if end == _HEADER.size <= len(data):
                    size, count = _HEADER.unpack_from(data)
                    start += -(-count // _AT_ONCE)
                    end = start + size
            if len(descriptors) != count:
                raise OSError("a descriptor got lost: are there too many open files?")
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        return pickle.loads(memoryview(data)[start:]), descriptors

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()


class Payload(NamedTuple):
    """Pieces of bytes on their way, in a message or in memory that goes with it."""

    pieces: Sequence[bytes]
    """The pieces, where they are small."""

    places: Sequence[tuple[int, int]]
    """Where they stand in the memory, where they are large."""

    size: int
    """How many bytes that memory has; 0: there is none."""


EMPTY: Final = Payload((), (), 0)
"""A payload of no pieces."""


def pickled(value: Any) -> list[memoryview]:
    """The pieces of a value: its pickle, and the large buffers beside it.

    :raises Exception: whatever pickling raises
    """
    buffers: list[pickle.PickleBuffer] = []
    pickled = dumps(value, buffers)
    return [memoryview(pickled), *(buffer.raw() for buffer in buffers)]


def pack(pieces: Sequence[memoryview]) -> tuple[Payload, list[int]]:
    """Put pieces in a payload.

    :return: the payload, and the descriptor of the memory that goes with it, if any does: the
        caller's to close
    :raises OSError: if there is no such memory
    :raises MemoryError: if there is no room to map it
    """
    if sum(piece.nbytes for piece in pieces) <= INLINE:
        return Payload([bytes(piece) for piece in pieces], (), 0), []
    places: list[tuple[int, int]] = []
    size = 0
    for piece in pieces:
        places.append((size, size + piece.nbytes))
        size += -(-piece.nbytes // _ALIGNMENT) * _ALIGNMENT
    descriptor = create(size)
    try:
        memory = mapped(descriptor, size, MapMode.WRITE)
        for piece, (start, end) in zip(pieces, places):
            memory[start:end] = piece
    except BaseException:
        os.close(descriptor)
        raise
    return Payload((), places, size), [descriptor]


def unpack(payload: Payload, descriptors: list[int], mode: MapMode) -> list[memoryview]:
    """The pieces of a payload.

    :param payload: the payload
    :param descriptors: those that came with the message and were not used yet; the payload's is
        taken off and closed
    :param mode: what may be done with the pieces
    """
    if not payload.size:
        if mode is MapMode.READ:
            return [memoryview(piece) for piece in payload.pieces]
        return [memoryview(bytearray(piece)) for piece in payload.pieces]
    descriptor = descriptors.pop(0)
    try:
        memory = mapped(descriptor, payload.size, mode)
    finally:
        os.close(descriptor)
    return [memory[start:end] for start, end in payload.places]


def loads(pieces: Sequence[memoryview]) -> Any:
    """The value that was pickled.

    :raises Exception: whatever unpickling raises
    """
    return pickle.loads(pieces[0], buffers=pieces[1:])
