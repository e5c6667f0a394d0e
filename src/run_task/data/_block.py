"""The memory that a time series lives in."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

_LARGE_PAGE: Final = 2 << 20


class Block(Protocol):
    """A piece of memory. It is given back when nothing refers to it any more."""

    @property
    def memory(self) -> memoryview:
        """Its bytes, writable, one dimension of format ``B``, aligned to 64 at least."""
        ...

    @property
    def shareable(self) -> bool:
        """Whether a pickled block is the same memory, mapped where it is unpickled."""
        ...


Allocate: TypeAlias = Callable[[int], Block]
"""Makes a block of so many bytes."""


class PrivateBlock:
    """Memory of this process, which takes up room only where it has been written to."""

    __slots__ = ("memory",)

    def __init__(self, size: int) -> None:
        # mmap.mmap takes flags on POSIX only; without them it would share with forked children.
        options: dict[str, Any] = {}
        if hasattr(mmap, "MAP_PRIVATE"):
            options["flags"] = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self.memory: memoryview = memoryview(mmap.mmap(-1, size, **options))

    @property
    def shareable(self) -> bool:
        """It is not."""
        return False

    def in_large_pages(self, start: int, stop: int) -> None:
        """Have what lies between two bytes in pages of 2 MiB, where there are such: the first write
        to each page is a fault, and with small ones most of the time of writing goes there.
        But the first byte of a page takes up all of it.

        :param start: the first byte
        :param stop: the byte after the last one; a page that goes beyond either remains small
        """
        if stop - start < _LARGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
            return
        mapped: Any = self.memory.obj
        address = np.frombuffer(mapped, np.uint8).ctypes.data
        first = -(-(address + start) // _LARGE_PAGE) * _LARGE_PAGE
        last = (address + stop) // _LARGE_PAGE * _LARGE_PAGE
        if first < last:
            with contextlib.suppress(OSError):  # of a kernel that has none
                mapped.madvise(mmap.MADV_HUGEPAGE, first - address, last - first)
