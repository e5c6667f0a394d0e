"""SIGTERM, made to end runners as gracefully as Ctrl-C does."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Generator
from types import FrameType

_shutdowns: list[tuple[int, Callable[[], None]]] = []
"""What to call, and the process that it is of: a forked child has its parent's, too."""


@contextlib.contextmanager
def shut_down_on_sigterm(shutdown: Callable[[], None]) -> Generator[None]:
    """Call ``shutdown`` when SIGTERM comes, for as long as the block lasts.

    Only where the program has not said itself what SIGTERM does, and in the main thread, for
    Python lets no other set a handler. Several may be on at once; each is called.
    """
    entry = os.getpid(), shutdown
    _shutdowns.append(entry)
    try:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        ):
            signal.signal(signal.SIGTERM, _handle)
        yield
    finally:
        _shutdowns.remove(entry)
        if (
            not _shutdowns
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) is _handle
        ):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _handle(signum: int, frame: FrameType | None) -> None:
    shutdowns = [shutdown for pid, shutdown in _shutdowns if pid == os.getpid()]
    for shutdown in shutdowns:
        shutdown()
    if not shutdowns:
        # It came to a forked child, or the last block was left in a thread that may not set
        # handlers: there is nothing to shut down, and it does what it does to any program.
        signal.signal(signum, signal.SIG_DFL)
        signal.raise_signal(signum)
