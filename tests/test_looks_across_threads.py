"""Whoever looks at a dict or set that other threads change finds what is there at some moment.

Another thread may come in between whenever the garbage collector does, which runs whatever Python
code it has to, and so wherever something is made: ``tuple(d.values())`` makes the tuple in the
middle of its look, and ``list(d.items())`` makes a tuple of each pair. ``list(d.values())`` and
``list(d)`` make nothing once they have begun to look.
"""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from run_task import Pipeline, Receiver, Sender, channel
from run_task.pipeline._sharding import that_make


@contextmanager
def at_each_collection(deed: Callable[[], object]) -> Generator[None]:
    """A block in which the garbage collector comes as often as it can, and another thread with it,
    which does something."""

    def come(phase: str, info: object) -> None:
        if phase == "start":
            deed()

    before = gc.get_threshold()
    gc.callbacks.append(come)
    gc.set_threshold(1)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(come)


def test_modules_are_imported_while_those_are_looked_for_that_make_a_pipeline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    made = ModuleType("made")
    made.__dict__["pipeline"] = Pipeline("made")
    sys.modules["made"] = made

    def one_more() -> None:
        name = f"made_{len(sys.modules)}"
        sys.modules[name] = ModuleType(name)
        vars(made)[name] = None

    with at_each_collection(one_more):
        for _ in range(3):
            assert made in that_make(Pipeline)


def some_and_more(of: dict[Any, float]) -> Callable[[], None]:
    """A function that puts something into a dict, which has dozens of things, or hundreds."""
    numbers = itertools.count()

    def one_more() -> None:
        of[f"another {next(numbers)}"] = 1.0
        if len(of) > 200:
            del of[next(iter(of))]
            del of[next(iter(of))]

    for _ in range(50):
        one_more()
    return one_more


def test_senders_begin_to_wait_while_it_is_told_for_how_long_they_do() -> None:
    made: tuple[Sender[int], Receiver[int]] = channel(1)
    buffer = made[0]._buffer  # pyright: ignore[reportPrivateUsage]  whose counts it tells
    with at_each_collection(some_and_more(buffer.blocked_since)):
        for _ in range(300):
            assert buffer.blocked_for() > 0
