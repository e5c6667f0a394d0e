from __future__ import annotations

import threading

import pytest
from tests.support.threads import PATIENCE, beside, together

from run_task import Atom, ContextBuilder, Runner, RunTaskError, TaskInterval, VirtualClock, task


def test_a_reader_keeps_the_value_it_was_given() -> None:
    atom: Atom[tuple[int, int]] = Atom((1, 2))
    with atom.read() as before:
        atom.reset((3, 4))
        assert before == (1, 2)
        with atom.read(timeout=0) as after:
            assert after == (3, 4)
    assert atom.value == (3, 4)
    assert repr(atom) == "<Atom of (3, 4)>"


async def test_reads_in_an_event_loop_and_the_access_serves_again() -> None:
    atom = Atom(1)
    access = atom.read()
    async with access as one:
        assert atom.swap(lambda value: value + 1) == 2
        async with access as two:
            assert (one, two) == (1, 2)


def test_an_access_may_be_left_in_another_thread() -> None:
    access = Atom("text").read()
    assert access.__enter__() == "text"
    together(lambda: access.__exit__(None, None, None))


@pytest.mark.usefixtures("switching")
def test_no_swap_is_lost_among_threads() -> None:
    atom: Atom[tuple[int, int]] = Atom((0, 0))

    def count() -> None:
        for _ in range(500):
            atom.swap(lambda pair: (pair[0] + 1, pair[1] - 1))

    def look() -> None:
        for _ in range(1000):
            with atom.read() as (up, down):
                assert up == -down

    together(count, count, count, look)
    assert atom.value == (1500, -1500)


def test_a_reader_does_not_wait_for_a_swap_and_another_writer_does() -> None:
    atom = Atom(1)
    inside, go = threading.Event(), threading.Event()

    def slowly(value: int) -> int:
        inside.set()
        assert go.wait(PATIENCE)
        return value + 1

    with beside(lambda: atom.swap(slowly)) as swapped:
        assert inside.wait(PATIENCE)
        with atom.read() as value:
            assert value == 1
        with beside(lambda: atom.reset(10)) as reset:
            assert not reset.done()
            go.set()
            reset.result(PATIENCE)
        assert swapped.result(PATIENCE) == 2
    assert atom.value == 10


def test_a_swap_that_raises_leaves_the_value_and_lets_others_write() -> None:
    atom = Atom(1)
    with pytest.raises(ZeroDivisionError):
        atom.swap(lambda value: value // 0)
    assert atom.value == 1
    assert atom.swap(lambda value: value + 1) == 2


def test_a_swap_within_a_swap_is_refused_and_does_not_hang() -> None:
    atom = Atom(1)
    with pytest.raises(RunTaskError, match="let it return the new value"):
        atom.swap(lambda _: atom.swap(lambda value: value + 1))
    with pytest.raises(RunTaskError, match="waits for that function to end"):
        atom.swap(lambda value: atom.reset(5) or value)  # type: ignore[func-returns-value]  # to call it in an expression
    assert atom.value == 1


def test_a_runner_reads_it() -> None:
    @task
    def double(value: int, start: int, end: int) -> int:
        return 2 * value

    clock = VirtualClock()
    context, receiver, data = (
        ContextBuilder(int)
        .with_data(Atom(4))
        .with_task(double)
        .with_interval(TaskInterval.seconds(1))
        .build()
    )
    with Runner(context, clock=clock):
        results: list[int] = []
        for _ in range(2):
            clock.advance(TaskInterval.seconds(1))
            results.append(receiver.recv(PATIENCE)[double])
            data.swap(lambda value: value + 1)
    assert results == [8, 10]
