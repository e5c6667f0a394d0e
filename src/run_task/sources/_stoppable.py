"""Bytes from a pipe, a terminal or the like, as they come, for as long as somebody wants them."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable


class StoppableReader:
    """Reads from a file descriptor; a read that waits ends at once when it is stopped.

    :param opened: gives the descriptor, when it is first read from. It is closed by who opened it
    """

    def __init__(self, opened: Callable[[], int]) -> None:
        self._opened = opened
        self.stopped: bool = False
        """Whether it was stopped. What comes then is not wanted."""
        # The ends of the pipe that wakes are not to be closed, and be another file's, while stop()
        # writes. It may be called by a signal handler, so the lock lets its own thread in again.
        self._mutex = threading.RLock()
        self._wake: tuple[int, int] | None = None
        self._poll: select.poll | None = None
        self._descriptor = -1

    def read(self, size: int, /) -> bytes:
        """At most so many of the next bytes; none at the end, or once it was stopped.

        :raises OSError: if it cannot be opened, or read
        """
        if self._poll is None:
            self._descriptor = self._opened()
            with self._mutex:
                self._wake = os.pipe()
            self._poll = select.poll()
            self._poll.register(self._descriptor, select.POLLIN)
            self._poll.register(self._wake[0], select.POLLIN)
        while not self.stopped:
            self._poll.poll()
            with contextlib.suppress(BlockingIOError):  # another one has read it
                if not self.stopped:
                    return os.read(self._descriptor, size)
        return b""

    def stop(self) -> None:
        """Let it end now. From any thread, and in a signal handler."""
        self.stopped = True
        with self._mutex:
            if self._wake is not None:
                os.write(self._wake[1], b"!")

    def close(self) -> None:
        """Let go of all but the descriptor. Nothing is read after that."""
        self.stopped = True
        with self._mutex:
            wake, self._wake = self._wake, None
            for descriptor in wake or ():
                os.close(descriptor)
