"""A block for tests that is pickled by reference, as one in shared memory is."""

from __future__ import annotations

from typing import ClassVar
from weakref import WeakValueDictionary


class SharedBlock:
    """Memory that a pickle only refers to. It can be unpickled where it was pickled."""

    _all: ClassVar[WeakValueDictionary[int, SharedBlock]] = WeakValueDictionary()

    shareable = True

    def __init__(self, size: int) -> None:
        self.memory = memoryview(bytearray(size))
        self._all[id(self)] = self

    @classmethod
    def find(cls, key: int) -> SharedBlock:
        return cls._all[key]

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return SharedBlock.find, (id(self),)
