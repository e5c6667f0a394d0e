"""Malformed rows and failed polls: counted, logged, and left out or fatal."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Generator
from contextvars import ContextVar

from run_task.errors import SourceError
from run_task.observe._log import Log

_log = Log(__name__)


class OnFault(enum.Enum):
    """What a source does with a row that is malformed, or a poll that fails."""

    SKIP = "skip"
    """Count it, log it, leave it out, and go on."""

    RAISE = "raise"
    """Count it, log it, and raise a ``SourceError``, after all the rows before it."""


_listener: ContextVar[Callable[[SourceError], object] | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def faults_told_to(listener: Callable[[SourceError], object]) -> Generator[None]:
    """A block in which sources tell of each fault to who reads them, and do not log it.

    :param listener: called in the thread that reads
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class Faults:
    """Counts faults, logs them or tells of them, and raises them if they are fatal.

    :param on_fault: what to do with one
    """

    __slots__ = ("count", "on_fault")

    def __init__(self, on_fault: OnFault) -> None:
        self.on_fault: OnFault = on_fault
        self.count: int = 0

    def note(self, error: SourceError) -> None:
        """Take note of one fault.

        :raises SourceError: the same, if faults are fatal
        """
        self.count += 1
        listener = _listener.get()
        if listener is None:
            _log.warning("%s", error)
        else:
            listener(error)
        if self.on_fault is OnFault.RAISE:
            raise error
