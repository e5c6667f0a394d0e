"""What tasks do in worker processes, for the tests of these: most of it is bad.

A task looks up in the data what it is to do, so that a test can tell a runner's tasks anew in every
tick. Of a module of its own, which imports little, because every worker has to import it.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

Data = Mapping[str, Any]
"""What each task is to do, by its name: nothing for those that do not stand there."""


class Odd(Exception):
    """An exception that cannot be loaded again: its pickle calls it with one argument."""

    def __init__(self, one: object, two: object) -> None:
        super().__init__(f"{one} and {two}")


class Locked(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Mute(Exception):
    """An exception that does not even say what it is."""

    def __str__(self) -> str:
        raise LookupError("no words")


SAME = ValueError("the same one every time")


class OnlyThere:
    """It can be pickled, and be loaded in the process that made it and no other."""

    def __init__(self) -> None:
        self.home = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        return only_in, (self.home,)


def only_in(home: int) -> OnlyThere:
    if os.getpid() != home:
        raise RuntimeError(f"it belongs to process {home}")
    return OnlyThere()


def exits_elsewhere(home: int) -> NoReturn:
    if os.getpid() != home:
        sys.exit("it wants to end the process that loads it")
    raise AssertionError


class ExitsElsewhere(OnlyThere):
    def __reduce__(self) -> tuple[Any, ...]:
        return exits_elsewhere, (self.home,)


def _raises(error: Callable[[], BaseException]) -> Callable[[], NoReturn]:
    def deed() -> NoReturn:
        raise error()

    return deed


def _out_of_memory() -> object:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 31, resource.RLIM_INFINITY))
    try:
        return np.ones(1 << 33)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _too_large() -> object:
    """A result that there is no room for a second time, as sending it would take."""
    array = np.zeros(1 << 26, np.uint8)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 25), resource.RLIM_INFINITY))
    return array


def _forks_and_dies() -> NoReturn:
    """Its child lives on, and keeps the worker's socket open."""
    if not os.fork():
        time.sleep(3)
        os._exit(0)
    os._exit(7)


def _busy() -> NoReturn:
    while True:
        pass


DEEDS: Mapping[str, Callable[[], object]] = {
    # It ends its process.
    "exit": lambda: os._exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "forks and dies": _forks_and_dies,
    "abort": os.abort,
    "closes everything": lambda: os.closerange(3, 1000),
    # It does not return.
    "sleep": lambda: time.sleep(60),
    "busy": _busy,
    "holds the GIL": lambda: re.match("(a+)+$", "a" * 60 + "b"),
    # It raises.
    "value error": _raises(lambda: ValueError("bad luck")),
    "system exit": _raises(lambda: SystemExit(4)),
    "interrupt": _raises(KeyboardInterrupt),
    "odd": _raises(lambda: Odd("this", "that")),
    "locked": _raises(lambda: Locked("in chains")),
    "mute": _raises(Mute),
    "same": _raises(lambda: SAME),
    "memory error": _out_of_memory,
    # Its result cannot be had.
    "lock": threading.Lock,
    "only there": OnlyThere,
    "exits elsewhere": ExitsElsewhere,
    "too large": _too_large,
    # It does as it should.
    "none": lambda: None,
    "pid": os.getpid,
    "array": lambda: np.arange(100_000),
    "small array": lambda: np.arange(10),
    "bytes": lambda: bytes(1_000_000),
    "child": lambda: subprocess.Popen(["sleep", "60"]).pid,
    "descriptors": lambda: len(os.listdir("/proc/self/fd")),
    "optimize": lambda: (sys.flags.optimize, sys.warnoptions),
}


class Doer:
    """A task that does what the data says."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, data: Data, start: int, end: int) -> object:
        deed = data.get(self.name)
        return end if deed is None else DEEDS[deed]()


class Looker:
    """A task that tells something of its data."""

    def __init__(self, name: str, look: Callable[[Any], Any]) -> None:
        self.name = name
        self.look = look

    def run(self, data: Any, start: int, end: int) -> Any:
        return self.look(data)


def identity(data: Any) -> Any:
    return data


def writeable(data: Any) -> tuple[bool, float]:
    """Whether an array may be written to, and the sum of it."""
    return bool(data.flags.writeable), float(data.sum())


class Holder:
    """A task that has an array of its own, and counts how often it ran."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.array = np.zeros(size)

    def run(self, data: object, start: int, end: int) -> float:
        self.array += 1
        return float(self.array[-1])


class DeadlyToLoad:
    """A task that does something to whatever process loads it, other than the one that made it."""

    def __init__(self, name: str, deed: str) -> None:
        self.name = name
        self.deed = deed
        self.home = os.getpid()

    def run(self, data: object, start: int, end: int) -> int:
        return end

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (self.name, self.deed, self.home)


def _load(name: str, deed: str, home: int) -> DeadlyToLoad:
    if os.getpid() != home:
        if deed == "exit politely":
            sys.exit("no")
        DEEDS[deed]()
    return DeadlyToLoad(name, deed)
