"""The memory that a time series lives in."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

_HUGE: Final = 1 << 26
"""From how many bytes on memory is asked for in huge pages: it comes faster, and what is taken up
in vain, one huge page for each column, is little beside it."""


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
        memory = mmap.mmap(-1, max(size, 1), **options)
        if size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        self.memory: memoryview = memoryview(memory)[:size]

    @property
    def shareable(self) -> bool:
        """It is not."""
        return False
