"""A program that forks one writer after another, for tests that kill these."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.support.writer import say

ROOT = Path(__file__).parent.parent.parent


def fork_when_told(
    run: Callable[..., object], before: Callable[..., object] = lambda *_: None
) -> None:
    """What the ``main()`` does of a module that :class:`Forking` runs: a fork says ``ended`` or
    ``failed`` when it is done.

    :param run: what a fork does with what :meth:`Forking.start` was given
    :param before: what is done before, in the program itself
    """
    for line in sys.stdin:
        _, *arguments = line.split()
        before(*arguments)
        pid = os.fork()
        if pid == 0:
            try:
                run(*arguments)
                say("ended")
            except BaseException:
                traceback.print_exc()
                say("failed")
            finally:
                os._exit(0)
        say(f"started {pid}")
        sys.stdin.readline()  # not reaped before it is killed: its id could be another's by then
        os.waitpid(pid, 0)
        say("gone")


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
        line = self._process.stdout.readline()
        assert line, f"the program has ended: {self._process.wait(10)}"
        return line

    def start(self, *words: object) -> None:
        """Have it fork.

        :param words: what the fork is told, each without spaces
        """
        self._tell(" ".join(map(str, ("start", *words))))
        self._pid = int(self.line().split()[1])

    @property
    def pid(self) -> int:
        """The number of the fork."""
        return self._pid

    def kill(self) -> None:
        """Kill the fork."""
        os.kill(self._pid, signal.SIGKILL)

    def reap(self) -> list[str]:
        """Let it wait for the fork. Returns what was said up to ``gone``, that included."""
        self._tell("reap")
        lines = [self.line()]
        while lines[-1] != "gone\n":
            lines.append(self.line())
        self._pid = 0
        return lines

    def end(self) -> None:
        """Kill the fork, if there is one that was not reaped, and the program."""
        self._process.kill()
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                self.kill()

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
