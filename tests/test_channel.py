from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from functools import partial
from typing import Any, TypeVar

import pytest
from tests.support.threads import PATIENCE, beside, eventually, together

from run_task import ChannelClosed, ConfigError, Overflow, Receiver, Sender, channel
from run_task.sync import ChannelStats, _channel
from run_task.sync._channel import sole_channel

T = TypeVar("T")


def ints(capacity: int, overflow: Overflow = Overflow.BLOCK) -> tuple[Sender[int], Receiver[int]]:
    return channel(capacity, overflow)


def waits(end: Sender[Any] | Receiver[Any]) -> bool:
    stats = end.stats
    return bool(stats.senders or stats.receivers)


def test_hands_on_in_order_and_ends_when_closed_and_empty() -> None:
    sender, receiver = ints(3)
    for item in range(3):
        sender.send(item)
    assert len(sender) == len(receiver) == 3
    sender.close()
    assert list(receiver) == [0, 1, 2]
    with pytest.raises(ChannelClosed, match="all it sent received"):
        receiver.recv()
    with pytest.raises(ChannelClosed):
        receiver.try_recv()
    with pytest.raises(ChannelClosed, match="sender is closed"):
        sender.send(3)
    sender.close()


def test_none_is_an_item_like_any_other() -> None:
    ends: tuple[Sender[None], Receiver[None]] = channel(2)
    sender, receiver = ends
    sender.send(None)
    sender.send(None)
    sender.close()
    assert list(receiver) == [None, None]


def test_try_recv_does_not_wait() -> None:
    sender, receiver = ints(1)
    assert receiver.try_recv() is None
    sender.send(7)
    assert receiver.try_recv() == 7


def test_block_waits_for_room_until_its_timeout() -> None:
    sender, receiver = ints(1)
    sender.send(1)
    with pytest.raises(TimeoutError, match="full"):
        sender.send(2, timeout=0.01)
    with pytest.raises(TimeoutError, match="full"):
        sender.send(2, timeout=0)
    with beside(lambda: sender.send(3)):
        eventually(lambda: waits(sender))
        assert receiver.recv() == 1
    assert receiver.recv() == 3
    assert sender.dropped == 0


def test_recv_waits_until_its_timeout() -> None:
    sender, receiver = ints(1)
    with pytest.raises(TimeoutError, match="nothing was sent"):
        receiver.recv(timeout=0.01)
    with beside(lambda: receiver.recv(PATIENCE)) as future:
        eventually(lambda: waits(receiver))
        sender.send(5)
    assert future.result() == 5
    assert not waits(receiver)


@pytest.mark.parametrize(
    ("overflow", "kept"), [(Overflow.DROP_OLDEST, [2, 3]), (Overflow.DROP_NEWEST, [0, 1])]
)
def test_what_does_not_fit_is_dropped_counted_and_logged(
    overflow: Overflow, kept: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    sender, receiver = ints(2, overflow)
    with caplog.at_level(logging.WARNING, "run_task"):
        for item in range(4):
            sender.send(item)
    sender.close()
    assert list(receiver) == kept
    assert sender.dropped == receiver.dropped == 2
    assert len(caplog.records) == 2
    assert "the channel is full (2 dropped so far)" in caplog.text


def test_closing_the_receiver_drops_what_waits_and_refuses_more() -> None:
    sender, receiver = ints(5)
    sender.send(1)
    receiver.close()
    assert receiver.dropped == 1
    with pytest.raises(ChannelClosed, match="receiver is closed"):
        sender.send(2)
    with pytest.raises(ChannelClosed, match="receiver is closed"):
        receiver.recv()
    assert list(receiver) == []


@pytest.mark.parametrize("end", ["sender", "receiver"])
def test_closing_wakes_who_waits(end: str) -> None:
    sender, receiver = ints(1)
    if end == "receiver":
        sender.send(1)

    def wait() -> None:
        blocked = receiver.recv if end == "sender" else lambda: sender.send(2)
        with pytest.raises(ChannelClosed):
            blocked()

    with beside(wait):
        eventually(lambda: waits(sender))
        sender.close() if end == "sender" else receiver.close()


def test_a_channel_without_bounds_lets_in_who_waits() -> None:
    sender, receiver = ints(1)
    sender.send(1)
    with beside(lambda: sender.send(2)):
        eventually(lambda: waits(sender))
        sender.unbound()
    sender.send(3)
    sender.close()
    assert list(receiver) == [1, 2, 3]


async def test_asyncio_receives_without_holding_up_its_loop() -> None:
    sender, receiver = ints(2)
    got: list[int] = []

    async def consume() -> None:
        async for item in receiver:
            got.append(item)  # noqa: PERF401  # what came before the end is to be seen

    consumer = asyncio.create_task(consume())

    def send() -> None:
        for item in range(100):
            sender.send(item, PATIENCE)
        sender.close()

    await asyncio.gather(asyncio.to_thread(send), asyncio.wait_for(consumer, PATIENCE))
    assert got == list(range(100))
    with pytest.raises(ChannelClosed):
        await receiver.arecv()


def test_ctrl_c_in_a_loop_over_a_receiver_has_no_other_exception_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(self: object) -> int:
        raise KeyboardInterrupt

    sender, receiver = ints(2)
    sender.send(1)
    monkeypatch.setattr(type(receiver), "recv", interrupted)
    items = iter(receiver)
    assert next(items) == 1
    with pytest.raises(KeyboardInterrupt) as caught:
        next(items)
    assert caught.value.__context__ is None


async def test_arecv_times_out_and_can_be_cancelled_without_losing_an_item() -> None:
    sender, receiver = ints(2)
    with pytest.raises(TimeoutError):
        await receiver.arecv(timeout=0.01)
    for _ in range(50):
        first = asyncio.create_task(receiver.arecv())
        second = asyncio.create_task(receiver.arecv())
        await asyncio.sleep(0)
        sender.send(1)  # it wakes the first, which is cancelled before it runs
        first.cancel()
        assert await asyncio.wait_for(second, PATIENCE) == 1
        with pytest.raises(asyncio.CancelledError):
            await first
    assert not waits(receiver)


@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("capacity", [1, 3, 1000])
def test_nothing_is_lost_or_doubled_between_many_threads(capacity: int) -> None:
    sender, receiver = ints(capacity)
    each, senders, receivers = 300, 3, 3
    got: list[list[int]] = [[] for _ in range(receivers)]
    overfull: list[int] = []

    def send(first: int) -> None:
        for item in range(first, first + each):
            sender.send(item, PATIENCE)
            if len(sender) > capacity:
                overfull.append(len(sender))

    def receive(into: list[int]) -> None:
        into.extend(receiver)

    def produce() -> None:
        together(*(partial(send, first * each) for first in range(senders)))
        sender.close()

    together(produce, *(partial(receive, into) for into in got))
    assert Counter(item for into in got for item in into) == Counter(range(each * senders))
    assert not overfull
    for into in got:  # one receiver sees the items of one sender in order
        for first in range(senders):
            own = [item for item in into if item // each == first]
            assert own == sorted(own)


@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("overflow", Overflow)
def test_a_sole_sender_loses_nothing_silently_when_its_receiver_closes(overflow: Overflow) -> None:
    for _ in range(100):
        ends: tuple[Sender[int], Receiver[int]] = sole_channel(3, overflow, None)
        sender, receiver = ends
        sent, got = 0, 0

        def send(sender: Sender[int] = sender) -> None:
            nonlocal sent
            with pytest.raises(ChannelClosed):
                while True:
                    sender.send(sent)
                    sent += 1
                    assert len(sender) <= 3

        def receive(receiver: Receiver[int] = receiver) -> None:
            nonlocal got
            for _ in range(5):
                receiver.recv(PATIENCE)
                got += 1
            receiver.close()

        together(send, receive)
        assert sent == got + receiver.dropped
        assert len(receiver) == 0


def test_an_item_that_a_sole_sender_puts_into_what_has_just_been_closed_is_dropped() -> None:
    ends: tuple[Sender[int], Receiver[int]] = sole_channel(3, Overflow.BLOCK, "prices")
    sender, receiver = ends

    class Moment(float):
        """A capacity that, once there is found to be room, lets the receiver be closed."""

        def __gt__(self, length: float) -> bool:
            receiver.close()
            return True

    sender._buffer.capacity = Moment()  # pyright: ignore[reportPrivateUsage]  # no other way in
    sender.send(1)
    assert receiver.dropped == 1
    with pytest.raises(ChannelClosed):
        sender.send(2)
    assert receiver.dropped == 1


@pytest.mark.usefixtures("switching")
def test_timeouts_and_items_that_cross_lose_no_wake() -> None:
    sender, receiver = ints(1)
    got: list[int] = []

    def impatient() -> None:
        while True:
            try:
                got.append(receiver.recv(timeout=1e-5))
            except TimeoutError:
                continue
            except ChannelClosed:
                return

    def patient() -> None:
        got.extend(receiver)

    def send() -> None:
        for item in range(300):
            sender.send(item, PATIENCE)
        sender.close()

    together(send, impatient, patient)
    assert sorted(got) == list(range(300))


@pytest.mark.parametrize("capacity", [0, -1, 1.5, True, None])
def test_refuses_a_capacity_that_is_no_positive_int(capacity: Any) -> None:
    with pytest.raises(ConfigError, match="capacity"):
        channel(capacity)


def test_reads_well() -> None:
    sender, receiver = ints(4)
    sender.send(1)
    assert repr(sender) == "<Sender of an open channel with 1/4 items, 0 dropped>"
    receiver.close()
    assert repr(receiver) == "<Receiver of a closed channel with 0/4 items, 1 dropped>"


@pytest.mark.parametrize("overflow", ["block", None, 1])
def test_refuses_an_overflow_that_is_none(overflow: Any) -> None:
    with pytest.raises(ConfigError, match=r"overflow=.*one of Overflow.BLOCK"):
        channel(1, overflow)


@pytest.mark.parametrize("timeout", [math.inf, 1e12])
def test_waits_for_as_long_as_anybody_may_want(timeout: float) -> None:
    sender, receiver = ints(1)
    sender.send(1, timeout)
    with beside(lambda: sender.send(2, timeout)):
        eventually(lambda: waits(sender))
        assert receiver.recv(timeout) == 1
    assert receiver.recv() == 2

    async def main() -> int:
        waiting = asyncio.create_task(receiver.arecv(timeout))
        await asyncio.sleep(0)
        sender.send(3)
        return await waiting

    assert asyncio.run(main()) == 3


def test_tells_what_it_is_doing() -> None:
    sender, receiver = ints(1)
    assert sender.stats == ChannelStats(
        items=0, capacity=1, dropped=0, senders=0, receivers=0, blocked=0.0
    )
    with beside(receiver.recv):
        eventually(lambda: receiver.stats.receivers == 1)
        sender.send(1)
    sender.send(2)
    with beside(lambda: sender.send(3)):
        eventually(lambda: sender.stats.senders == 1)
        eventually(lambda: sender.blocked > 0)  # also while it waits
        receiver.recv()
    blocked = sender.blocked
    assert 0 < blocked < PATIENCE
    assert receiver.stats.blocked == blocked
    assert (receiver.stats.items, receiver.stats.senders) == (1, 0)
    receiver.close()
    assert receiver.stats.dropped == 1


def test_a_runner_that_nobody_reads_is_told_once_and_then_rarely(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_channel, "_FIRST_WARNING", 0.02)
    ends: tuple[Sender[int], Receiver[int]] = channel(1, name="unread")
    sender, receiver = ends
    sender.send(1)
    with beside(lambda: sender.send(2)):
        eventually(lambda: caplog.records)
        time.sleep(0.1)
        receiver.recv()
    with beside(lambda: sender.send(3)):  # it waits again, and says nothing more for a while
        time.sleep(0.1)
        receiver.recv()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert vars(record)["runner"] == "unread"
    assert "runner 'unread' stands still" in record.getMessage()
    assert "with_channel()" in record.getMessage()


def test_a_channel_of_no_runner_says_nothing_of_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_channel, "_FIRST_WARNING", 0.001)
    sender, receiver = ints(1)
    sender.send(1)
    with beside(lambda: sender.send(2)):
        eventually(lambda: sender.blocked > 0.05)
        receiver.recv()
    assert not caplog.records


async def test_a_task_that_sends_waits_for_room_as_a_thread_does() -> None:
    sender, receiver = ints(1)
    await sender.asend(0)
    with pytest.raises(TimeoutError, match=r"full for 0\.01 s"):
        await sender.asend(1, timeout=0.01)
    sending = asyncio.create_task(sender.asend(2))
    await asyncio.to_thread(eventually, lambda: waits(sender))
    assert receiver.recv() == 0
    await asyncio.wait_for(sending, PATIENCE)
    assert receiver.recv() == 2
    receiver.close()
    with pytest.raises(ChannelClosed, match="nobody would get"):
        await sender.asend(3)
