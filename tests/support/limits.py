"""A run of the tests ends, and says which of them it was in when it did not end by itself."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Generator

import pytest
from tests.support.proof import in_proof

RUN_TAKES = in_proof(3 * 3600.0, short=20 * 60.0)
"""After how many seconds a run on all cores is broken off."""


class EndsInTime:
    """Breaks a run off that does not end, as Ctrl-C does, and names the tests that had begun.

    A test has a limit of its own, and one whose process dies is told as failed. This is for what
    neither of them sees: pytest-xdist waits for as long as the pipe of a worker is open, which any
    fork that it has left behind holds open.

    :param takes: after how many seconds
    """

    def __init__(self, takes: float = RUN_TAKES) -> None:
        self._takes = takes
        self._running: dict[str, None] = {}
        self._late = False

    def _break_off(self) -> None:
        self._late = True
        os.kill(os.getpid(), signal.SIGINT)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        timer = threading.Timer(self._takes, self._break_off)
        timer.daemon = True
        timer.start()
        # Where even that is not heard, also when all is put away after the loop.
        assert sys.__stderr__ is not None
        faulthandler.dump_traceback_later(self._takes + 60, file=sys.__stderr__, exit=True)
        try:
            return (yield)
        finally:
            timer.cancel()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = None

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._late:
            terminalreporter.section(f"not at its end after {self._takes:g} s")
        for nodeid in self._running:
            terminalreporter.line(f"begun, and not ended: {nodeid}")
