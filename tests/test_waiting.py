from __future__ import annotations

import asyncio
import math
import threading
import time

import pytest
from tests.support.threads import PATIENCE, beside, eventually

from run_task.sync._alarm import Alarm, AnyAlarm, AsyncAlarm
from run_task.sync._waiting import Deadline, Wait, wait_task, wait_thread

ENDLESS = [None, math.inf, 1e300, 1e12, threading.TIMEOUT_MAX]


class Letter:
    """Something to wait for."""

    def __init__(self) -> None:
        self.text: str | None = None
        self.waiting: list[AnyAlarm] = []
        self.rang: list[bool] = []

    def arrive(self, text: str) -> None:
        self.text = text
        for alarm in tuple(self.waiting):
            alarm.ring()

    def receive(self, alarm: AnyAlarm, seconds: float | None) -> Wait[str]:
        self.waiting.append(alarm)
        try:
            while self.text is None:
                self.rang.append((yield seconds))
            return self.text
        finally:
            self.waiting.remove(alarm)


@pytest.mark.parametrize("seconds", ENDLESS)
def test_the_same_wait_for_a_thread_and_for_a_task(seconds: float | None) -> None:
    letter = Letter()
    with beside(lambda: wait_thread(letter.receive, seconds)) as waiting:
        eventually(lambda: letter.waiting)
        letter.arrive("to a thread")
        assert waiting.result(PATIENCE) == "to a thread"

    async def main() -> str:
        letter.text = None
        waiting = asyncio.create_task(wait_task(letter.receive, seconds))
        await asyncio.sleep(0)
        await asyncio.to_thread(letter.arrive, "to a task")
        return await waiting

    assert asyncio.run(main()) == "to a task"
    assert letter.rang == [True, True]
    assert not letter.waiting


def test_what_is_there_is_not_waited_for() -> None:
    letter = Letter()
    letter.arrive("early")
    assert wait_thread(letter.receive, None) == "early"
    assert asyncio.run(wait_task(letter.receive, None)) == "early"


def test_the_wait_is_told_that_nothing_rang() -> None:
    letter = Letter()
    with beside(lambda: wait_thread(letter.receive, 0.001)):
        eventually(lambda: letter.rang)
        letter.arrive("late")
    assert letter.rang[0] is False


def test_what_the_wait_raises_comes_out() -> None:
    def fails(alarm: AnyAlarm) -> Wait[None]:
        yield 0.0
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        wait_thread(fails)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(wait_task(fails))


def test_a_cancelled_task_cleans_up() -> None:
    letter = Letter()

    async def main() -> None:
        waiting = asyncio.create_task(wait_task(letter.receive, None))
        await asyncio.sleep(0)
        assert letter.waiting
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    assert not letter.waiting


@pytest.mark.parametrize("timeout", ENDLESS)
def test_an_alarm_takes_any_timeout(timeout: float | None) -> None:
    alarm = Alarm()
    alarm.ring()
    assert alarm.wait(timeout)  # in the main thread, which never sleeps for long
    with beside(lambda: alarm.wait(timeout)) as waiting:
        alarm.ring()
        assert waiting.result(PATIENCE)

    async def main() -> bool:
        alarm = AsyncAlarm()
        waiting = asyncio.create_task(alarm.wait(timeout))
        await asyncio.sleep(0)
        alarm.ring()
        return await waiting

    assert asyncio.run(main())


@pytest.mark.parametrize("timeout", [-1.0, 0.0, 0.01, 0.15])
def test_an_alarm_that_does_not_ring(timeout: float) -> None:
    began = time.monotonic()
    assert not Alarm().wait(timeout)
    assert time.monotonic() - began > timeout - 0.005

    async def main() -> bool:
        return await AsyncAlarm().wait(timeout)

    assert not asyncio.run(main())


def test_a_deadline() -> None:
    for timeout in (None, math.inf):
        assert Deadline(timeout).remaining() is None
        assert not Deadline(timeout).passed
    soon = Deadline(PATIENCE)
    remaining = soon.remaining()
    assert remaining is not None
    assert 0 < remaining <= PATIENCE
    assert not soon.passed
    assert Deadline(0.0).passed
    assert Deadline(-1.0).remaining() == 0.0
