"""What a runner and its worker processes tell each other.

A message is a small pickle down a socket. What is large goes through memory that both map, whose
descriptor is sent along: so no message is ever too large for the socket's buffer, and neither end
waits for the other to read.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, Final, NamedTuple

from run_task.executors.pickling import PROTOCOL, dumps
from run_task.memory import MapMode, create, mapped

INLINE: Final = 16_384
"""Up to how many bytes a parcel goes down the socket."""

_ALIGNMENT: Final = 64


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
        descriptors: list[int] = []
        try:
            while len(descriptors) < count:
                descriptors.append(recv_handle(self._connection))
        except BaseException as error:
            for descriptor in descriptors:
                os.close(descriptor)
            if isinstance(error, RuntimeError):  # this is what it says
                raise OSError("a descriptor got lost: are there too many open files?") from error
            raise
        return message, descriptors

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


NOTHING: Final = Parcel((), (), 0)
"""A parcel of no pieces."""


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
    :raises OSError: if there is no such memory
    :raises MemoryError: if there is no room to map it
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
        memory = mapped(descriptor, size, MapMode.WRITE)
        for piece, (start, end) in zip(pieces, places):
            memory[start:end] = piece
    except BaseException:
        os.close(descriptor)
        raise
    return Parcel((), places, size), [descriptor]


def unpack(parcel: Parcel, descriptors: list[int], mode: MapMode) -> list[memoryview]:
    """The pieces of a parcel.

    :param parcel: the parcel
    :param descriptors: those that came with the message and were not used yet; the parcel's is
        taken off and closed
    :param mode: what may be done with the pieces
    """
    if not parcel.size:
        if mode is MapMode.READ:
            return [memoryview(piece) for piece in parcel.pieces]
        return [memoryview(bytearray(piece)) for piece in parcel.pieces]
    descriptor = descriptors.pop(0)
    try:
        memory = mapped(descriptor, parcel.size, mode)
    finally:
        os.close(descriptor)
    return [memory[start:end] for start, end in parcel.places]


def loads(pieces: Sequence[memoryview]) -> Any:
    """The value that was pickled.

    :raises Exception: whatever unpickling raises
    """
    return pickle.loads(pieces[0], buffers=pieces[1:])
