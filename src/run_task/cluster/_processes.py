"""Shards in processes of this machine."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from math import inf
from typing import Final

from run_task.cluster._link import MissedSigns, ShardLost, ShardPlace
from run_task.cluster._messages import SIGN_EVERY, ShardReply, ShardRequest, SignOfLife
from run_task.cluster._windows import LOOK
from run_task.cluster._wire import receive, send
from run_task.errors import RunTaskError
from run_task.executors.processes._parent import interpreter
from run_task.executors.processes._starter import STARTER

_MODULE: Final = "run_task.cluster._serving"

_HELLO: Final = 60.0
"""How many seconds a process has to say that it is there."""

MOST_SILENT: Final = 30.0
"""After how many seconds without a sign of life a process that does not work either is killed."""

_AT_WORK: Final = 0.01
"""For which share of that time a process has worked that is at work, on a machine that is busy."""


class ProcessTransport:
    """Starts shards in processes of this machine."""

    def __init__(self) -> None:
        self._is_open = False

    def open(self, is_unwanted: Callable[[], bool]) -> bool:
        """Keep the thread that starts processes."""
        STARTER.acquire()
        self._is_open = True
        return True

    def start(self, number: int, given_up: threading.Event) -> ProcessLink:
        """Start a shard, which takes as long as an interpreter does.

        :param number: which of all it is
        :param given_up: set: nobody waits for it any more
        :raises OSError: if no process can be started
        :raises ShardLost: if it is killed before it is there
        :raises RunTaskError: if it ends by itself before, or nobody waits
        """
        return ProcessLink(number, given_up)

    def close(self) -> None:
        """Let go of the thread that starts processes."""
        if self._is_open:
            STARTER.release()


class ProcessLink:
    """A shard in a process of its own.

    :param number: which it is
    :param given_up: set: nobody waits for it any more
    :raises Exception: as :meth:`ProcessTransport.start`
    """

    def __init__(self, number: int, given_up: threading.Event) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process: subprocess.Popen[bytes] = STARTER.call(
                lambda: interpreter(theirs.fileno(), _MODULE)
            )
        self._socket = ours
        try:
            self.place: ShardPlace = self._hello(number, given_up)
        except BaseException:
            self._kill()
            raise
        self._mutex = threading.Lock()
        self._calls: deque[Future[ShardReply]] = deque()
        self._lost: ShardLost | None = None
        self._listening = _Listening(self._socket, self._process.pid)
        name = f"run-task shard {number} reader"
        self._reader = threading.Thread(target=self._read, name=name, daemon=True)
        self._reader.start()

    def _hello(self, number: int, given_up: threading.Event) -> ShardPlace:
        until = time.monotonic() + _HELLO
        arrival = select.poll()
        arrival.register(self._socket, select.POLLIN)
        while not arrival.poll(LOOK * 1000):
            if given_up.is_set():
                raise RunTaskError(f"nobody waits for shard {number} any more")
            if time.monotonic() > until:
                raise ShardLost(f"the process of shard {number} was not there within {_HELLO:g} s")
        try:
            return ShardPlace(*receive(self._socket))
        except (OSError, EOFError) as error:
            self._process.wait()
            how = f"the process of shard {number} {self._how_it_ended()} before it was there"
            raise (ShardLost if self._process.returncode < 0 else RunTaskError)(how) from error

    @property
    def missed_signs(self) -> MissedSigns:
        """Those of the last seconds."""
        then = f"killed after {MOST_SILENT:g} s without, unless its process works"
        return MissedSigns(self._listening.silent, then)

    @property
    def ended(self) -> ShardLost | None:
        """That its process is gone."""
        return self._lost

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
        why = None
        try:
            while True:
                reply: ShardReply | SignOfLife = receive(self._listening)
                if not isinstance(reply, SignOfLife):
                    self._calls.popleft().set_result(reply)
        except TimeoutError as error:
            why = str(error)
        except (OSError, EOFError):
            pass
        self._kill()  # or else one that is stopped would go on some day, and hold up who sends
        with self._mutex:
            how = self._how_it_ended() if why is None else why
            self._lost = ShardLost(f"its process {self._process.pid} {how}")
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


class _Listening:
    """The socket of a shard, of which what comes is waited for as long as it gives signs of life.

    They are counted by looks, each of a second at most, and not by a clock: where this process was
    stopped, too, the shard has had no time to give one.

    :param end: the socket
    :param process: the number of the shard's process
    """

    def __init__(self, end: socket.socket, process: int) -> None:
        self._socket = end
        self._process = process
        self._arrival = select.poll()
        self._arrival.register(end, select.POLLIN)
        self.silent: float = 0.0
        """For how many seconds nothing has come that was to."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Wait for bytes.

        :raises TimeoutError: if it has given no sign for too long, and was not at work either
        """
        looked = 0.0  # since it was last seen to work
        before: float | None = None
        while not self._arrival.poll(SIGN_EVERY * 1000):
            if before is None:
                before = _cpu_seconds(self._process)
            looked += SIGN_EVERY
            self.silent += SIGN_EVERY
            if looked < MOST_SILENT:
                continue
            now = _cpu_seconds(self._process)
            # Who holds Python's lock lets no thread give signs, and works.
            if now - before < _AT_WORK * looked:
                raise TimeoutError(f"has given no sign of life for {looked:g} s, and was killed")
            looked, before = 0.0, now
        self.silent = 0.0
        return self._socket.recv_into(buffer)


def _cpu_seconds(process: int) -> float:
    """How many seconds a process has worked. Where the system does not tell: forever, so that none
    is taken for dead."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return inf
    user, system = map(int, fields[11:13])
    return (user + system) / os.sysconf("SC_CLK_TCK")
