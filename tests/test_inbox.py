"""Rows that a program puts: from threads and event loops, in a pipeline, and with no room."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

import pytest
from tests.support.threads import PATIENCE, beside, eventually, together

from run_task import (
    ChannelClosed,
    ConfigError,
    Overflow,
    Pipeline,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    task,
)
from run_task.sources import Inbox, about


@task
def rows(view: TimeSeriesView, start: int, end: int) -> int:
    return len(view.in_window)


def waits(inbox: Inbox[Any]) -> bool:
    return inbox._sender.stats.senders > 0  # pyright: ignore[reportPrivateUsage] who waits shows nowhere else


def taken(inbox: Inbox[int]) -> list[int]:
    inbox.close()
    return [row for _, row in inbox]


def test_rows_come_out_in_the_order_in_which_they_were_put() -> None:
    inbox = Inbox[str](unit=TimeUnit.SECONDS)
    rows = iter(inbox)
    inbox.put(2, "b")
    inbox.put(1, "a")
    assert len(inbox) == 2
    assert [next(rows), next(rows)] == [(2, "b"), (1, "a")]
    inbox.put(3, "c")
    inbox.close()
    assert list(rows) == [(3, "c")]
    assert inbox.dropped == 0
    assert inbox.closed


def test_what_it_is_shows_before_it_is_read() -> None:
    info = about(Inbox[int](unit=TimeUnit.SECONDS))
    assert (info.unit, info.endless, info.dropped) == (TimeUnit.SECONDS, True, 0)
    assert about(Inbox[int]()).unit is None
    assert repr(Inbox[int](name="ticks")) == "Inbox('ticks')"
    assert Inbox[int](7).capacity == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 0}, "Inbox: a channel's capacity is a positive int, not 0"),
        ({"capacity": 1.5}, "positive int, not 1.5"),
        ({"overflow": "block"}, "overflow='block': it is one of Overflow.BLOCK"),
        ({"unit": "ms"}, "Inbox: unit='ms': it is a TimeUnit or None"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Inbox(**arguments)


def test_rows_of_many_threads_and_loops_all_come_out_and_each_ones_in_its_order() -> None:
    inbox = Inbox[tuple[str, int]](5)

    def put(name: str) -> None:
        for number in range(300):
            inbox.put(number, (name, number))

    async def aput(name: str) -> None:
        for number in range(300):
            await inbox.aput(number, (name, number))

    async def loop() -> None:
        await asyncio.gather(aput("c"), aput("d"))

    found: list[tuple[str, int]] = []

    def read() -> None:
        found.extend(row for _, row in inbox)

    with beside(read):
        together(lambda: put("a"), lambda: put("b"), lambda: asyncio.run(loop()))
        inbox.close()
    assert len(found) == 1200
    for name in "abcd":
        assert [number for who, number in found if who == name] == list(range(300))


def test_one_who_puts_waits_for_room() -> None:
    inbox = Inbox[int](1)
    inbox.put(0, 0)
    with pytest.raises(TimeoutError, match=r"Inbox\('inbox'\) was full for 0.01 s: 1 rows wait"):
        inbox.put(1, 1, timeout=0.01)
    given = iter(inbox)
    with beside(lambda: inbox.put(2, 2)):
        eventually(lambda: waits(inbox))
        assert next(given) == (0, 0)
    assert next(given) == (2, 2)
    assert inbox.dropped == 0


async def test_one_who_puts_from_a_loop_waits_without_holding_it_up() -> None:
    inbox = Inbox[int](1)
    await inbox.aput(0, 0)
    with pytest.raises(TimeoutError, match=r"was full for 0\.01 s"):
        await inbox.aput(1, 1, timeout=0.01)
    putting = asyncio.create_task(inbox.aput(2, 2))
    await asyncio.to_thread(eventually, lambda: waits(inbox))  # and the loop goes on
    given = iter(inbox)
    assert next(given) == (0, 0)
    await asyncio.wait_for(putting, PATIENCE)
    assert next(given) == (2, 2)


async def test_a_put_that_is_cancelled_puts_nothing() -> None:
    inbox = Inbox[int](1)
    inbox.put(0, 0)
    putting = asyncio.create_task(inbox.aput(1, 1))
    await asyncio.to_thread(eventually, lambda: waits(inbox))
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert taken(inbox) == [0]


def test_closing_tells_those_who_wait_for_room() -> None:
    inbox = Inbox[int](1, name="ticks")
    inbox.put(0, 0)

    def refused() -> None:
        with pytest.raises(ChannelClosed, match=r"Inbox\('ticks'\) is closed"):
            inbox.put(1, 1)

    with beside(refused):
        eventually(lambda: waits(inbox))
        inbox.close()
    with pytest.raises(ChannelClosed, match="the row was not put"):
        inbox.put(2, 2)
    assert taken(inbox) == [0]


@pytest.mark.parametrize(
    ("overflow", "kept"), [(Overflow.DROP_OLDEST, [8, 9]), (Overflow.DROP_NEWEST, [0, 1])]
)
def test_a_full_one_drops_as_it_was_told_to_and_counts(
    overflow: Overflow, kept: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox[int](2, overflow=overflow)
    for number in range(10):
        inbox.put(number, number)
    assert inbox.dropped == about(inbox).dropped == 8
    assert taken(inbox) == kept
    assert inbox.dropped == 8
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2  # the first at once, the rest at the end
    assert "Inbox('inbox'): a row was dropped, 1 by now: 2 wait already" in told[0]
    assert "7 rows were dropped, 8 by now" in told[1]


async def test_a_full_one_drops_from_a_loop_too() -> None:
    inbox = Inbox[int](1, overflow=Overflow.DROP_OLDEST)
    for number in range(3):
        await inbox.aput(number, number)
    assert inbox.dropped == 2
    assert taken(inbox) == [2]


def test_a_log_that_ends_in_an_inbox_may_tell_of_its_drops() -> None:
    inbox = Inbox[str](1, overflow=Overflow.DROP_OLDEST)

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            inbox.put(0, record.getMessage())

    handler = Handler()
    log = logging.getLogger("run_task.sources")
    log.addHandler(handler)
    try:
        together(lambda: inbox.put(0, "a"))
        together(lambda: inbox.put(0, "b"))
    finally:
        log.removeHandler(handler)
    inbox.close()
    (row,) = [row for _, row in inbox]
    assert "a row was dropped, 1 by now" in row


def test_counts_add_up_while_threads_put_and_drop() -> None:
    inbox = Inbox[int](3, overflow=Overflow.DROP_OLDEST)

    def put() -> None:
        for number in range(500):
            inbox.put(number, number)

    found: list[int] = []

    def read() -> None:
        found.extend(row for _, row in inbox)

    with beside(read):
        together(put, put, put)
        inbox.close()
    assert len(found) + inbox.dropped == 1500


def pipeline_of(inbox: Inbox[dict[str, float]]) -> tuple[Pipeline, TimeSeries]:
    series = TimeSeries({"value": float}, TimeUnit.MILLIS)
    pipeline = Pipeline("test")
    pipeline.source(inbox, into=series, name="inbox")
    pipeline.stage("rows", [rows], series, "100ms")
    return pipeline, series


def test_rows_enter_a_pipeline_which_ends_once_it_is_closed() -> None:
    inbox = Inbox[dict[str, float]]()
    pipeline, series = pipeline_of(inbox)
    with pipeline:
        for number in range(50):
            inbox.put(time.time_ns() // 10**6, {"value": float(number)})
        inbox.close()
        eventually(lambda: pipeline.stats.sources["inbox"].stored == 50)
    counts = pipeline.stats.sources["inbox"]
    assert (counts.received, counts.stored, counts.dropped) == (50, 50, 0)
    with series.read() as view:
        assert list(view["value"]) == [float(number) for number in range(50)]


def test_what_a_pipeline_that_is_shut_down_takes_no_more_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inbox = Inbox[dict[str, float]](1000)
    pipeline, _ = pipeline_of(inbox)
    put = 0

    def feed() -> None:
        nonlocal put
        with pytest.raises(ChannelClosed):
            while True:
                inbox.put(time.time_ns() // 10**6, {"value": 0.0})
                put += 1

    with beside(feed), pipeline:
        eventually(lambda: pipeline.stats.sources["inbox"].stored > 100)
    counts = pipeline.stats.sources["inbox"]
    assert counts.received == counts.stored + counts.waiting
    assert counts.received + inbox.dropped == put
    assert counts.dropped == inbox.dropped
    if inbox.dropped:
        assert "left in it as it was closed" in caplog.text


def test_one_that_drops_tells_the_pipeline() -> None:
    inbox = Inbox[dict[str, float]](2, overflow=Overflow.DROP_NEWEST)
    pipeline, _ = pipeline_of(inbox)
    now = time.time_ns() // 10**6
    for _ in range(5):
        inbox.put(now, {"value": 1.0})
    with pipeline:
        eventually(lambda: pipeline.stats.sources["inbox"].stored == 2)
        assert pipeline.stats.sources["inbox"].dropped == 3


def test_what_it_had_no_room_for_is_not_told_as_what_waited_at_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inbox = Inbox[int](2, overflow=Overflow.DROP_OLDEST)
    for number in range(10):
        inbox.put(number, number)
    with contextlib.closing(iter(inbox)) as given:
        assert next(given) == (8, 8)
    told = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert [text[:49] for text in told] == [
        "a row was dropped, 1 by now: 2 wait already: give",
        "7 rows were dropped, 8 by now: 2 wait already: gi",
        "a row was dropped, 9 by now: left in it as it was",
    ]


def test_it_has_no_history() -> None:
    pipeline, _ = pipeline_of(Inbox())
    with pytest.raises(ConfigError, match="it has no history"):
        list(pipeline.replay())


def test_one_that_is_left_is_closed_and_counts_what_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inbox = Inbox[int]()
    for number in range(3):
        inbox.put(number, number)
    with contextlib.closing(iter(inbox)) as given:
        assert next(given) == (0, 0)
    assert (inbox.closed, inbox.dropped, len(inbox)) == (True, 2, 0)
    assert "2 rows were dropped, 2 by now: left in it as it was closed" in caplog.text
    assert list(inbox) == []
