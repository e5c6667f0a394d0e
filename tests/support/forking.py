"""A program that forks one writer after another, for tests that kill these."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Self

ROOT = Path(__file__).parent.parent.parent


class Forking:
    """Runs ``main()`` of a module of ``tests.support``, which forks when it is told to.

    :param module: the module: on "start" it forks and says ``started PID``, and on "reap" it waits
        for the fork, which may still say things, and says ``gone``
    :param arguments: its arguments
    :param errors: where its standard error goes; None: to that of the tests
    """

    def __init__(self, module: str, *arguments: str, errors: IO[str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.support.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            bufsize=1,
            cwd=ROOT,
        )
        self._pid = 0

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")

    def line(self) -> str:
        """The next line that it says, or its fork."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def start(self) -> None:
        """Have it fork."""
        self._tell("start")
        self._pid = int(self.line().split()[1])

    def kill(self) -> None:
        """Kill the fork."""
        os.kill(self._pid, signal.SIGKILL)

    def reap(self) -> list[str]:
        """Let it wait for the fork. Returns what was said up to ``gone``, that included."""
        self._tell("reap")
        lines = [self.line()]
        while lines[-1] != "gone\n":
            lines.append(self.line())
        return lines

    def finish(self) -> None:
        """Let it end, well."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(10) == 0

    def __enter__(self) -> Self:
        self._process.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.__exit__(kind, error, traceback)
