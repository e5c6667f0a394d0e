"""Memory that other processes can map.

It is an anonymous file: it has a descriptor, which is handed to other processes, and no name. So
there is nothing to clean up, however a process dies: the last process that maps it takes it
along.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import itertools
import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Generator
from typing import Final

from run_task.sync._fork import forget_after_fork

_MAP_FIXED: Final = 0x10
"""In the place of what is mapped there, on Linux, macOS and the BSDs."""

_numbers: Final = itertools.count(1)
_blocks: Final[dict[int, weakref.ref[SharedBlock]]] = {}
_notes: Final = threading.local()


class MapMode(enum.IntEnum):
    """What may be done with memory that is mapped."""

    READ = mmap.ACCESS_READ
    """Nothing but reading."""

    WRITE = mmap.ACCESS_WRITE
    """Writing, for all to see who map it."""

    COPY = mmap.ACCESS_COPY
    """Writing that no other process sees: a page is copied when it is written."""


def create(size: int) -> int:
    """Make memory of so many bytes, all zero. Returns its descriptor, the caller's to close."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("run-task", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:  # not in memory, but mapped and shared all the same
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def mapped(descriptor: int, size: int, mode: MapMode) -> memoryview:
    """Map memory. It stays mapped for as long as anything refers to what is returned.

    :param descriptor: of the memory; it may be closed afterwards
    :param size: in bytes, at least 1
    :param mode: what may be done with it
    """
    return memoryview(mmap.mmap(descriptor, size, access=mode))


class SharedBlock:
    """A piece of memory that worker processes map, known by a number.

    Its pickle is the number: unpickled in a process that has mapped it, it is the same memory.
    Only the process that made it can write to it; a child that is forked from that one has a copy.

    :param size: in bytes
    :param descriptor: of memory that exists already; None: make it
    :param number: what it is known by, if it exists already
    """

    __slots__ = ("__weakref__", "descriptor", "memory", "number", "size")

    def __init__(self, size: int, descriptor: int | None = None, number: int | None = None) -> None:
        room = max(size, 1)  # an empty file cannot be mapped
        self.size: int = size
        self.descriptor: int = create(room) if descriptor is None else descriptor
        self.number: int = next(_numbers) if number is None else number
        weakref.finalize(self, _forget, self.number, self.descriptor)
        mode = MapMode.WRITE if descriptor is None else MapMode.READ
        self.memory: memoryview = mapped(self.descriptor, room, mode)[:size]
        _blocks[self.number] = weakref.ref(self)
        if descriptor is None:
            forget_after_fork(self)

    @property
    def shareable(self) -> bool:
        """It is."""
        return True

    def after_fork(self) -> None:
        """In a forked child: what it writes is not to be seen by its parent."""
        if not self.size:
            return
        # In its place, since arrays refer to it. Pages are copied when they are written.
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        call = ctypes.CDLL(None, use_errno=True).mmap
        call.restype = ctypes.c_void_p
        call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        access = mmap.PROT_READ | mmap.PROT_WRITE
        flags = mmap.MAP_PRIVATE | _MAP_FIXED
        if call(address, self.size, access, flags, self.descriptor, 0) != address:
            raise OSError(ctypes.get_errno(), f"{self} cannot be had for the child alone")

    def __reduce__(self) -> tuple[object, tuple[int]]:
        noted: dict[int, SharedBlock] | None = getattr(_notes, "blocks", None)
        if noted is not None:
            noted[self.number] = self
        return block, (self.number,)

    def __repr__(self) -> str:
        return f"<SharedBlock {self.number} of {self.size:,} bytes>"


def _forget(number: int, descriptor: int) -> None:
    _blocks.pop(number, None)
    os.close(descriptor)


@contextlib.contextmanager
def pickled_blocks() -> Generator[dict[int, SharedBlock]]:
    """Note the blocks, by number, that this thread pickles meanwhile."""
    _notes.blocks = noted = dict[int, SharedBlock]()
    try:
        yield noted
    finally:
        _notes.blocks = None


def block(number: int) -> SharedBlock:
    """The block of this number.

    :raises LookupError: if it is not, or no longer, mapped here
    """
    found = _blocks.get(number)
    shared = found() if found is not None else None
    if shared is None:
        raise LookupError(f"shared block {number} is not mapped in this process")
    return shared
