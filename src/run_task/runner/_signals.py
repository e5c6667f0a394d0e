"""SIGTERM, made to end runners as gracefully as Ctrl-C does."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Generator
from types import FrameType

_shutdowns: list[Callable[[], None]] = []


@contextlib.contextmanager
def shut_down_on_sigterm(shutdown: Callable[[], None]) -> Generator[None]:
    """Call ``shutdown`` when SIGTERM comes, for as long as the block lasts.

    Only where the program has not said itself what SIGTERM does, and in the main thread, for
    Python lets no other set a handler. Several may be on at once; each is called.
    """
    _shutdowns.append(shutdown)
    try:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        ):
            signal.signal(signal.SIGTERM, _handle)
        yield
    finally:
        _shutdowns.remove(shutdown)
        if (
            not _shutdowns
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) is _handle
        ):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _handle(signum: int, frame: FrameType | None) -> None:
    if not _shutdowns:
        # The last block was left in a thread that may not set handlers: there is nothing to shut
        # down, and the signal does what it does to any program.
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
    for shutdown in tuple(_shutdowns):
        shutdown()
