from __future__ import annotations

import asyncio
import math
import signal
import sys
import time
from collections import Counter
from functools import partial
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.threads import PATIENCE, beside, eventually, together

from run_task.sync._lifecycle import Lifecycle, Phase

PHASES = st.sampled_from(Phase)


@given(st.lists(PHASES))
def test_goes_forward_only_and_tells_who_moved_it(steps: list[Phase]) -> None:
    life, furthest = Lifecycle(), Phase.NEW
    for to in steps:
        assert life.advance(to) == (to > furthest)
        furthest = max(furthest, to)
        assert life.phase is furthest


def test_tells_since_when() -> None:
    life = Lifecycle()
    assert life.since(Phase.STOPPING) is None
    before = time.monotonic()
    life.advance(Phase.ABANDONED)  # past STOPPING
    life.advance(Phase.ENDED)
    stopping, ended = life.since(Phase.STOPPING), life.since(Phase.ENDED)
    assert stopping is not None
    assert ended is not None
    assert before <= stopping <= ended <= time.monotonic()
    assert "ended" in repr(life)


def test_of_many_threads_one_moves_it(switching: None) -> None:
    for _ in range(50):
        life = Lifecycle()
        moved: Counter[Phase] = Counter()
        seen: list[list[Phase]] = [[], []]

        def advance(life: Lifecycle = life, moved: Counter[Phase] = moved) -> None:
            for to in (Phase.RUNNING, Phase.STOPPING, Phase.ENDED):
                if life.advance(to):
                    moved[to] += 1

        def look(seen: list[Phase], life: Lifecycle = life) -> None:
            while (phase := life.phase) < Phase.ENDED:
                seen.append(phase)

        together(advance, advance, advance, *(partial(look, phases) for phases in seen))
        assert moved[Phase.ENDED] == 1
        assert all(count == 1 for count in moved.values())
        assert all(phases == sorted(phases) for phases in seen)


@pytest.mark.parametrize("timeout", [None, math.inf, 1e12, PATIENCE])
def test_waits_in_a_thread(timeout: float | None) -> None:
    life = Lifecycle()
    with beside(lambda: life.wait(Phase.STOPPING, timeout)) as waiting:
        eventually(lambda: life.waiting)
        life.advance(Phase.RUNNING)
        assert not waiting.done()
        life.advance(Phase.ENDED)
        assert waiting.result(PATIENCE)
    assert not life.waiting
    assert life.wait(Phase.ENDED, timeout)


@pytest.mark.parametrize("timeout", [None, math.inf, 1e12, PATIENCE])
def test_waits_in_an_event_loop(timeout: float | None) -> None:
    async def main() -> None:
        life = Lifecycle()
        waiting = asyncio.create_task(life.wait_async(Phase.STOPPING, timeout))
        await asyncio.sleep(0)
        life.advance(Phase.RUNNING)
        await asyncio.sleep(0)
        assert not waiting.done()
        await asyncio.to_thread(life.advance, Phase.STOPPING)
        assert await asyncio.wait_for(waiting, PATIENCE)
        assert await life.wait_async(Phase.STOPPING, timeout)

    asyncio.run(main())


def test_waits_no_longer_than_its_timeout() -> None:
    life = Lifecycle()
    for timeout in (-1.0, 0.0, 0.01):
        assert not life.wait(Phase.RUNNING, timeout)
        assert not asyncio.run(life.wait_async(Phase.RUNNING, timeout))


def test_a_task_that_is_cancelled_waits_no_more() -> None:
    async def main() -> None:
        life = Lifecycle()
        waiting = asyncio.create_task(life.wait_async(Phase.ENDED))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not life.waiting
        life.advance(Phase.ENDED)

    asyncio.run(main())


class Interrupted(BaseException):
    pass


def test_a_signal_handler_ends_the_wait_that_it_interrupts() -> None:
    life = Lifecycle()
    before = signal.signal(signal.SIGALRM, lambda number, frame: life.advance(Phase.STOPPING))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        assert life.wait(Phase.STOPPING, PATIENCE)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_signal_handler_that_raises_breaks_the_wait_off() -> None:
    life = Lifecycle()

    def handle(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(Interrupted):
            life.wait(Phase.STOPPING, PATIENCE)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not life.waiting


def test_advances_in_the_middle_of_any_line_of_its_own() -> None:
    """As a signal handler would, before each line of `advance`, `until` and what they call."""

    def run(interrupt_at: int) -> int:
        life, lines = Lifecycle(), 0
        moved: list[bool] = []

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal lines
            if not frame.f_code.co_filename.endswith(("_lifecycle.py", "_waiting.py", "_alarm.py")):
                return None
            if event == "line":
                lines += 1
                if lines == interrupt_at:
                    moved.append(life.advance(Phase.STOPPING))
            return trace

        sys.settrace(trace)  # a handler is not traced itself
        try:
            life.advance(Phase.RUNNING)
            moved.append(life.advance(Phase.STOPPING))
            reached = life.wait(Phase.STOPPING, PATIENCE)
        finally:
            sys.settrace(None)
        assert reached
        assert moved.count(True) == 1
        assert life.phase is Phase.STOPPING
        return lines

    total = run(0)
    assert total > 15
    for line in range(1, total + 1):
        run(line)
