"""Where worker processes are started: in a thread that lives as long as any of them is wanted.

On Linux a worker asks the system to be ended together with its parent, and the system takes the
thread that started it for the parent. Ticks are run by threads that come and go, so it is none of
these.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Final, TypeAlias, TypeVar

from run_task.sync._fork import forget_after_fork

T = TypeVar("T")

_Calls: TypeAlias = "SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]"


class Starter:
    """Calls functions in one thread, which all crews share."""

    def __init__(self) -> None:
        self.after_fork()
        forget_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew, without a thread."""
        self._mutex = threading.RLock()  # a crew may be let go of by the garbage collector
        self._users = 0
        self._thread: threading.Thread | None = None
        self._calls: _Calls = SimpleQueue()

    def acquire(self) -> None:
        """Keep the thread, once there is one, until it is released."""
        with self._mutex:
            self._users += 1

    def release(self) -> None:
        """End the thread, if no other crew has acquired it."""
        with self._mutex:
            self._users -= 1
            thread = self._thread
            if self._users or thread is None:
                return
            self._thread = None
            self._calls.put(None)
        if thread is not threading.current_thread():
            thread.join()

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the thread. To be called between acquire and release.

        :param function: it takes no longer than it takes to start a process
        :return: what it returns
        :raises RuntimeError: if the system has no thread to give
        :raises Exception: what the function raises
        """
        future: Future[T] = Future()
        with self._mutex:
            if self._thread is None:
                self._calls = SimpleQueue()
                name = "run-task worker starter"
                thread = threading.Thread(
                    target=_serve, args=(self._calls,), name=name, daemon=True
                )
                thread.start()
                self._thread = thread
            self._calls.put((future, function))
        return future.result()


def _serve(calls: _Calls) -> None:
    while (call := calls.get()) is not None:
        future, function = call
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)
        del call, future, function


STARTER: Final = Starter()
"""The one of this process."""
