"""Results that wait for a sink: who fills it and who empties it wake each other."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from tests.support.threads import PATIENCE

from run_task import DataSet
from run_task._window import Window
from run_task.errors import ChannelClosed
from run_task.pipeline.live._backlog import Backlog, Marker
from run_task.sinks import Result


def result(stage: str, end: int) -> Result:
    return Result.of("p", stage, DataSet(Window(end - 1, end), {}))


@contextmanager
def switching_often() -> Generator[None]:
    """Threads take turns after a few instructions, so each comes in the middle of others."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("capacity", [1, 2, 7])
def test_whoever_waits_for_room_or_for_a_result_is_woken(capacity: int) -> None:
    writers, count = 6, 60
    backlog = Backlog(capacity)
    taken: list[tuple[str, int]] = []

    def write(stage: str) -> None:
        for end in range(count):
            assert backlog.put(result(stage, end))

    def empty() -> None:
        while len(taken) < writers * count:
            item = backlog.take(PATIENCE)  # in the end it would raise a TimeoutError
            assert isinstance(item, Result)
            taken.append((item.stage, item.window.end))

    threads = [threading.Thread(target=empty)]
    threads += [threading.Thread(target=write, args=(f"s{i}",)) for i in range(writers)]
    with switching_often():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    for i in range(writers):
        assert [end for stage, end in taken if stage == f"s{i}"] == list(range(count))
    assert backlog.given == writers * count
    assert not len(backlog)


def test_results_that_nothing_comes_of_were_given_and_markers_were_not() -> None:
    backlog = Backlog(1)
    backlog.note_away(True)
    assert backlog.put(result("a", 1))
    assert not backlog.put(result("a", 2)), "there is no room, and nobody is waited for"
    backlog.mark(Marker())
    backlog.close()
    with pytest.raises(ChannelClosed):
        backlog.put(result("a", 3))
    assert backlog.given == 3
    assert backlog.take(0) == result("a", 1)
    assert isinstance(backlog.take(0), Marker)
    with pytest.raises(ChannelClosed):
        backlog.take(0)
