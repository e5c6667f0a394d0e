"""Threads for tests: what they raise is raised again, and none is waited for in vain."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 10.0
"""How many seconds a test waits for what is bound to happen."""


def together(*functions: Callable[[], object]) -> None:
    """Run functions, each in a thread, and raise what any of them raises."""
    with ThreadPoolExecutor(len(functions)) as pool:
        for future in [pool.submit(function) for function in functions]:
            future.result(PATIENCE)


@contextmanager
def beside(function: Callable[[], T]) -> Generator[Future[T]]:
    """Run a function in a thread while the block runs, and wait for it at the end."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(function)
        yield future
        future.result(PATIENCE)


def eventually(
    condition: Callable[[], object], within: float = PATIENCE, every: float = 0.0005
) -> None:
    """Wait until a condition holds that another thread brings about.

    :param within: how many seconds it has
    :param every: after how many it is looked at again
    """
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(every)
