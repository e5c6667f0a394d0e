"""The memory that a time series lives in."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias


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
