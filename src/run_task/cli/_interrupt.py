"""Ctrl-C: once to end well, twice to end at once.

A program may have been started with Ctrl-C ignored, as a shell does with the background jobs of a
script. It then stays ignored: the Ctrl-C is meant for what is in the foreground.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from run_task.cli._exits import Exit


@contextmanager
def ctrl_c(shutdown: Callable[[], None], leave: Callable[[], None]) -> Generator[None]:
    """For as long as the block lasts, the first Ctrl-C calls a function, and the second ends the
    process, whatever it is doing.

    :param shutdown: what to call first; in a signal handler, so it takes no lock
    :param leave: what to call before the process ends
    """

    def first(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, second)
        shutdown()

    def second(signum: int, frame: FrameType | None) -> None:
        leave()
        os._exit(Exit.INTERRUPTED)

    with _handling(first):
        yield


@contextmanager
def ctrl_c_raised_again() -> Generator[Callable[[], None]]:
    """Give a function that raises the KeyboardInterrupt of a Ctrl-C again.

    It is raised at once, too, wherever the program is; and some places let no exception out, such
    as a ``__del__``, or a callback of a C library.
    """
    pressed = False

    def note(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    with _handling(note):
        yield check


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Generator[None]:
    """Have a function handle SIGINT, unless the process was started with SIGINT ignored."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
