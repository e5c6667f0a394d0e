"""Malformed rows and failed polls: counted, logged, and left out or fatal."""

from __future__ import annotations

import enum

from run_task.errors import SourceError
from run_task.observe._log import Log

_log = Log(__name__)


class OnFault(enum.Enum):
    """What a source does with a row that is malformed, or a poll that fails."""

    SKIP = "skip"
    """Count it, log it, leave it out, and go on."""

    RAISE = "raise"
    """Count it, log it, and raise a ``SourceError``, after all the rows before it."""


class Faults:
    """Counts and logs faults, and raises them if they are fatal.

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
        _log.warning("%s", error)
        if self.on_fault is OnFault.RAISE:
            raise error
