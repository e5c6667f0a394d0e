"""What tasks read, on its way to other processes: packed once for each version of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from run_task.data._memory import SharedBlock, pickled_blocks
from run_task.data._protocol import Shared, Versioned
from run_task.executors.processes._wire import EMPTY, Payload, pack, pickled


class PackedView:
    """The latest view of the data, packed.

    :param data: where views come from
    """

    def __init__(self, data: Shared[Any]) -> None:
        self._versioned = data if isinstance(data, Versioned) else None
        self._view: Any = None
        self._stamp: int | None = None
        self.number: int = 0
        """Of the view that was packed last; a worker that has a lower one has another view."""
        self.payload: Payload = EMPTY
        """The view."""
        self.memory: Sequence[int] = ()
        """The descriptor of the memory that goes with the payload, if any does."""
        self.blocks: Mapping[int, SharedBlock] = {}
        """The shared blocks that the view lies in, by number."""

    def pack(self, view: Any) -> None:
        """Pack a view, unless it is the one that was packed last, in the same state.

        :raises Exception: whatever pickling raises
        """
        versioned = self._versioned
        stamp = versioned.version if versioned is not None else None
        if versioned is not None and view is self._view and stamp == self._stamp:
            return
        # Nothing is left of the last one if this one cannot be packed.
        self.clear()
        with pickled_blocks() as self.blocks:
            self.payload, self.memory = pack(pickled(view))
        self.number += 1
        if versioned is not None:
            self._view, self._stamp = view, stamp

    def clear(self) -> None:
        """Let go of the view, and of the memory that goes with it."""
        self._view = None
        self.blocks = {}
        for descriptor in self.memory:
            os.close(descriptor)
        self.memory = ()
