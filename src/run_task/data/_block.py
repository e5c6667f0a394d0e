"""The memory that a time series lives in."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

_LARGE: Final = 8 << 20
"""From how many bytes on memory is had in pages of 2 MiB, where there are such: the first write to
each page is a fault, and with small ones these take three quarters of the time of writing."""


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
        mapped = mmap.mmap(-1, size, **options)
        if size >= _LARGE and hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # of a kernel that has none
                mapped.madvise(mmap.MADV_HUGEPAGE)
        self.memory: memoryview = memoryview(mapped)

    @property
    def shareable(self) -> bool:
        """It is not."""
        return False
