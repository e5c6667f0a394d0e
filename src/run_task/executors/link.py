"""What a runner and its worker processes tell each other.

A message is a small pickle down a socket. What is large goes through memory that both map, whose
descriptor is sent along: so no message is ever too large for the socket's buffer, and neither end
waits for the other to read.
"""

from __future__ import annotations

import enum
import os
import pickle
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, Final, NamedTuple

from run_task.executors.pickling import PROTOCOL, dumps
from run_task.memory import create, mapped

INLINE: Final = 16_384
"""Up to how many bytes a parcel goes down the socket."""

_ALIGNMENT: Final = 64


class Access(enum.Enum):
    """What may be done with the arrays of a value that was sent."""

    READ = "read"
    """Nothing but reading: tasks share them."""

    WRITE = "write"
    """Anything: they belong to who receives them."""


class Link:
    """One end of the socket between a runner and a worker process.

    :param connection: the socket
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """The socket's descriptor, for a selector."""
        return self._connection.fileno()

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send a message, and open files with it.

        :raises OSError: if the other end is gone
        """
        self._connection.send_bytes(pickle.dumps((message, len(descriptors)), PROTOCOL))
        for descriptor in descriptors:
            send_handle(self._connection, descriptor, 0)  # only Windows asks for whom

    def recv(self) -> tuple[Any, list[int]]:
        """Wait for a message. The descriptors that come with it are the caller's to close.

        :raises EOFError: if the other end is gone
        :raises OSError: if it went in the middle of a message
        """
        message, count = pickle.loads(self._connection.recv_bytes())
        return message, [recv_handle(self._connection) for _ in range(count)]

    def close(self) -> None:
        """Let go of the socket."""
        self._connection.close()


class Parcel(NamedTuple):
    """Pieces of bytes on their way, in a message or in memory that goes with it."""

    pieces: Sequence[bytes]
    """The pieces, where they are small."""

    places: Sequence[tuple[int, int]]
    """Where they stand in the memory, where they are large."""

    size: int
    """How many bytes that memory has; 0: there is none."""


def pickled(value: Any) -> list[memoryview]:
    """The pieces of a value: its pickle, and the large buffers beside it.

    :raises Exception: whatever pickling raises
    """
    buffers: list[pickle.PickleBuffer] = []
    pickled = dumps(value, buffers)
    return [memoryview(pickled), *(buffer.raw() for buffer in buffers)]


def pack(pieces: Sequence[memoryview]) -> tuple[Parcel, list[int]]:
    """Put pieces in a parcel.

    :return: the parcel, and the descriptor of the memory that goes with it, if any does: the
        caller's to close
    """
    if sum(piece.nbytes for piece in pieces) <= INLINE:
        return Parcel([bytes(piece) for piece in pieces], (), 0), []
    places: list[tuple[int, int]] = []
    size = 0
    for piece in pieces:
        places.append((size, size + piece.nbytes))
        size += -(-piece.nbytes // _ALIGNMENT) * _ALIGNMENT
    descriptor = create(size)
    try:
        memory = mapped(descriptor, size)
        for piece, (start, end) in zip(pieces, places):
            memory[start:end] = piece
    except BaseException:
        os.close(descriptor)
        raise
    return Parcel((), places, size), [descriptor]


def unpack(parcel: Parcel, descriptors: list[int], access: Access) -> list[memoryview]:
    """The pieces of a parcel.

    :param parcel: the parcel
    :param descriptors: those that came with the message and were not used yet; the parcel's is
        taken off and closed
    :param access: what may be done with the pieces
    """
    if not parcel.size:
        pieces = [memoryview(bytearray(piece)) for piece in parcel.pieces]
    else:
        descriptor = descriptors.pop(0)
        try:
            memory = mapped(descriptor, parcel.size)
        finally:
            os.close(descriptor)
        pieces = [memory[start:end] for start, end in parcel.places]
    return pieces if access is Access.WRITE else [piece.toreadonly() for piece in pieces]


def loads(pieces: Sequence[memoryview]) -> Any:
    """The value that was pickled.

    :raises Exception: whatever unpickling raises
    """
    return pickle.loads(pieces[0], buffers=pieces[1:])
