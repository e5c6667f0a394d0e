"""Shards in processes of this machine."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from collections import deque
from concurrent.futures import Future
from typing import Final

from run_task.cluster._link import ShardLost, ShardPlace
from run_task.cluster._messages import ShardReply, ShardRequest
from run_task.cluster._wire import receive, send
from run_task.errors import RunTaskError
from run_task.executors.processes._parent import interpreter
from run_task.executors.processes._starter import STARTER

_MODULE: Final = "run_task.cluster._serving"

_HELLO: Final = 60.0
"""How many seconds a process has to say that it is there."""


class ProcessTransport:
    """Starts shards in processes of this machine."""

    def __init__(self) -> None:
        self._is_open = False

    def open(self) -> None:
        """Keep the thread that starts processes."""
        STARTER.acquire()
        self._is_open = True

    def start(self, number: int, given_up: threading.Event) -> ProcessLink:
        """Start a shard, which takes no longer than an interpreter does.

        :param number: which of all it is
        :param given_up: of no effect
        :raises OSError: if no process can be started
        :raises RunTaskError: if it ends before it is there
        """
        return ProcessLink(number)

    def close(self) -> None:
        """Let go of the thread that starts processes."""
        if self._is_open:
            STARTER.release()


class ProcessLink:
    """A shard in a process of its own.

    :param number: which it is
    """

    def __init__(self, number: int) -> None:
        self._number = number
        ours, theirs = socket.socketpair()
        with theirs:
            self._process: subprocess.Popen[bytes] = STARTER.call(
                lambda: interpreter(theirs.fileno(), _MODULE)
            )
        self._socket = ours
        try:
            ours.settimeout(_HELLO)
            self.place: ShardPlace = ShardPlace(*receive(ours))
            ours.settimeout(None)
        except (OSError, EOFError) as error:
            self._kill()
            raise RunTaskError(
                f"the process of shard {number} {self._how_it_ended()} before it was there"
            ) from error
        self._mutex = threading.Lock()
        self._calls: deque[Future[ShardReply]] = deque()
        self._lost: ShardLost | None = None
        name = f"run-task shard {number} reader"
        self._reader = threading.Thread(target=self._read, name=name, daemon=True)
        self._reader.start()

    def call(self, request: ShardRequest) -> Future[ShardReply]:
        """Ask it to do something. Returns at once: it reads all that it is sent."""
        future: Future[ShardReply] = Future()
        with self._mutex:
            if self._lost is not None:
                future.set_exception(self._lost)
                return future
            self._calls.append(future)
            try:
                send(self._socket, request)
            except OSError:
                self._process.kill()  # its reader finds that it is gone
        return future

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._reader.join()

    def _read(self) -> None:
        try:
            while True:
                reply: ShardReply = receive(self._socket)
                self._calls.popleft().set_result(reply)
        except (OSError, EOFError):
            pass
        self._kill()
        with self._mutex:
            self._lost = ShardLost(f"its process {self._process.pid} {self._how_it_ended()}")
            calls, self._calls = self._calls, deque()
        for call in calls:
            call.set_exception(self._lost)

    def _kill(self) -> None:
        self._process.kill()  # without effect on one that is dead or dying
        self._process.wait()
        self._socket.close()

    def _how_it_ended(self) -> str:
        code = self._process.returncode
        if code < 0:
            return f"was killed by signal {-code} ({signal.strsignal(-code)})"
        return f"ended with exit code {code}"
