"""The crews of an engine: the one that runs its tasks, the next one, and those before."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from run_task.errors import described
from run_task.executors._protocol import Crew
from run_task.executors._states import StatesOf
from run_task.observe._log import Log
from run_task.sync._waiting import Deadline
from run_task.tasks._task import Runnable


@dataclass(frozen=True, slots=True, eq=False)
class NextTasks:
    """Tasks that take the place of an engine's between two windows, ready to run."""

    tasks: Sequence[Runnable[Any, Any]]
    """As they are run: those with a state with it."""

    states: StatesOf
    crew: Crew


class RetiredCrews:
    """Crews whose tasks were replaced. Each is closed by a thread of its own, so that no window
    waits for a task that hangs, or a process that has to end.

    :param name: of the runner
    :param log: where it is logged what an executor of the program's own raises
    """

    def __init__(self, name: str, log: Log) -> None:
        self._name = name
        self._log = log
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child, there is no thread that closes one."""
        self._mutex = threading.Lock()
        self._closing: list[tuple[Crew, threading.Thread | None]] = []

    def retire(self, crew: Crew, timeout: float) -> None:
        """Close a crew that has no more ticks. Returns at once.

        :param timeout: how many seconds its tasks may take to end
        """
        thread = threading.Thread(
            target=self._close,
            args=(crew, timeout),
            name=f"run-task {self._name} close",
            daemon=True,  # a task that hangs must not keep the process from ending
        )
        with self._mutex:
            self._closing = [one for one in self._closing if not _is_gone(*one)]
            try:
                thread.start()
            except RuntimeError:  # the system has no thread to give
                self._closing.append((crew, None))
            else:
                self._closing.append((crew, thread))
                return
        self._close(crew, 0.0)

    def _close(self, crew: Crew, timeout: float) -> None:
        try:
            crew.close(timeout)
        except Exception as error:  # of an executor of the program's own
            self._log.error("%s: %s", self._name, described(error))

    def close(self, timeout: float) -> None:
        """Wait until they are closed.

        :param timeout: how many seconds to wait at most
        """
        deadline = Deadline(timeout)
        for _, thread in tuple(self._closing):
            if thread is not None:
                thread.join(max(0.0, deadline.remaining() or 0.0))

    def running(self) -> Sequence[str]:
        """The names of their tasks that are running right now."""
        return [name for crew, _ in tuple(self._closing) for name in crew.running()]


def _is_gone(crew: Crew, thread: threading.Thread | None) -> bool:
    return (thread is None or not thread.is_alive()) and not crew.running()
