from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest
from tests.support.threads import PATIENCE, beside, eventually, together

from run_task import Access, LockTimeout, RwLock
from run_task.data import LockStats


class Pair:
    """Two fields that agree whenever nobody is writing."""

    def __init__(self) -> None:
        self.left = 0
        self.right = 0


def queued(lock: RwLock[Pair]) -> int:
    return lock.stats.waiting


def test_gives_the_value_to_many_readers_or_one_writer() -> None:
    lock = RwLock(Pair())
    assert lock.stats == LockStats(readers=0, writing=False, waiting=0)
    with lock.read() as one, lock.read(timeout=0) as other:
        assert one is other
        assert lock.stats == LockStats(readers=2, writing=False, waiting=0)
        with pytest.raises(LockTimeout, match="2 reading"), lock.write(timeout=0.01):
            pass
    with lock.write() as pair:
        pair.left = 1
        assert lock.stats == LockStats(readers=0, writing=True, waiting=0)
        with pytest.raises(LockTimeout, match="'MainThread' has been writing"):
            lock.read(timeout=0).__enter__()
        with pytest.raises(TimeoutError), lock.write(timeout=0.01):
            pass
    with lock.read() as pair:
        assert pair.left == 1


def test_is_let_go_when_the_block_raises() -> None:
    lock = RwLock(Pair())
    for access in (lock.read(), lock.write()):
        with pytest.raises(ZeroDivisionError), access:
            raise ZeroDivisionError
    with lock.write(timeout=0):
        pass


def test_replace_gives_the_old_value() -> None:
    first, second = Pair(), Pair()
    lock = RwLock(first)
    assert lock.replace(second) is first
    with lock.read() as pair:
        assert pair is second
        with pytest.raises(LockTimeout):
            lock.replace(first, timeout=0.01)
        assert "reading" in repr(lock)
    with lock.read() as pair:
        assert pair is second


def test_a_waiting_writer_goes_before_readers_that_come_later() -> None:
    lock = RwLock(Pair())
    order: list[str] = []

    def use(access: Access[Pair], who: str) -> None:
        with access:
            order.append(who)

    with lock.read():
        writer = threading.Thread(target=use, args=(lock.write(PATIENCE), "writer"))
        writer.start()
        eventually(lambda: queued(lock) == 1)
        reader = threading.Thread(target=use, args=(lock.read(PATIENCE), "reader"))
        reader.start()
        eventually(lambda: queued(lock) == 2)
        assert order == []
    writer.join(PATIENCE)
    reader.join(PATIENCE)
    assert order == ["writer", "reader"]


def test_a_writer_that_gives_up_lets_those_behind_it_in() -> None:
    lock = RwLock(Pair())

    def give_up() -> None:
        with pytest.raises(LockTimeout), lock.write(timeout=0.1):
            pass

    with lock.read(), beside(give_up):
        eventually(lambda: queued(lock) == 1)
        with lock.read(timeout=PATIENCE):
            pass


@pytest.mark.usefixtures("switching")
def test_a_writer_is_not_starved_by_readers() -> None:
    lock = RwLock(Pair())
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            with lock.read(PATIENCE):
                pass

    def write() -> None:
        try:
            for _ in range(50):
                with lock.write(PATIENCE):
                    pass
        finally:
            stop.set()

    together(write, read, read, read)


@pytest.mark.usefixtures("switching")
def test_no_reader_sees_a_half_made_update_under_load_of_threads_and_tasks() -> None:
    lock = RwLock(Pair())
    each, torn = 200, 0

    def write(by: int) -> None:
        for _ in range(each):
            with lock.write(PATIENCE) as pair:
                pair.left += by
                pair.right += by

    def read() -> None:
        nonlocal torn
        for _ in range(each):
            with lock.read(PATIENCE) as pair:
                torn += pair.left != pair.right

    async def both() -> None:
        nonlocal torn
        for _ in range(each // 4):
            async with lock.write(PATIENCE) as pair:
                pair.left += 1
                await asyncio.sleep(0)
                pair.right += 1
            async with lock.read(PATIENCE) as pair:
                left = pair.left
                await asyncio.sleep(0)
                torn += left != pair.right

    async def tasks() -> None:
        await asyncio.gather(both(), both(), both())

    together(partial(write, 1), partial(write, 10), read, read, lambda: asyncio.run(tasks()))
    assert torn == 0
    with lock.write(timeout=0) as pair:
        assert pair.left == pair.right == each * 11 + 3 * (each // 4)


@pytest.mark.usefixtures("switching")
def test_timeouts_and_grants_that_cross_leave_the_lock_free() -> None:
    lock = RwLock(Pair())
    done = 0

    def impatient(access: Access[Pair], times: int) -> None:
        nonlocal done
        for _ in range(times):
            try:
                with access:
                    done += 1
            except LockTimeout:
                pass

    together(*(partial(impatient, lock.write(1e-5), 200) for _ in range(3)))
    together(
        *(partial(impatient, lock.write(1e-5), 100) for _ in range(2)),
        *(partial(impatient, lock.read(1e-5), 100) for _ in range(2)),
    )
    with lock.write(timeout=0):
        assert done


async def test_a_task_that_is_cancelled_keeps_neither_its_place_nor_the_lock() -> None:
    lock = RwLock(Pair())

    async def write() -> None:
        async with lock.write():
            await asyncio.sleep(PATIENCE)

    async with lock.read():
        waiting = asyncio.create_task(write())
        while queued(lock) == 0:  # noqa: ASYNC110  # nothing else tells
            await asyncio.sleep(0)
        granted = asyncio.create_task(write())
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while queued(lock) == 0:  # noqa: ASYNC110
            await asyncio.sleep(0)
    granted.cancel()  # the lock is its own, though it has not run since
    with pytest.raises(asyncio.CancelledError):
        await granted
    async with lock.write(timeout=0):
        pass


async def test_an_event_loop_goes_on_while_one_of_its_tasks_waits() -> None:
    lock = RwLock(Pair())
    with pytest.raises(LockTimeout):
        async with lock.read():
            await lock.areplace(Pair(), timeout=0.01)
    new = Pair()
    async with lock.read():
        replacing = asyncio.create_task(lock.areplace(new))
        await asyncio.sleep(0)
    await asyncio.wait_for(replacing, PATIENCE)
    async with lock.read(0) as pair:
        assert pair is new
