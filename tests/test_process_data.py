"""What tasks in worker processes read: sent once for each version of it, or mapped."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.crews import WorkersBench, descriptors, pids_of
from tests.support.deeds import Doer, ExitsElsewhere, Holder, Looker, OnlyThere, identity, writeable

from run_task import RwLock, TaskError
from run_task.data._memory import SharedBlock, block


class Counted:
    """Data that counts how often it is pickled."""

    def __init__(self, value: int = 0) -> None:
        self.value = value
        self.sent = 0

    def __reduce__(self) -> tuple[Any, ...]:
        self.sent += 1
        return identity, (self.value,)


class Plain:
    """Shared data without a version."""

    def __init__(self, value: Any) -> None:
        self.value = value

    @contextmanager
    def _access(self) -> Generator[Any]:
        yield self.value

    def read(self, timeout: float | None = None) -> Any:
        return self._access()


class Immutable(Plain):
    """Shared data of which each state is another object, and never changes."""

    version = 0


LOOK = [Looker("a", identity), Looker("b", identity)]


def test_data_is_sent_once_for_each_version_of_it() -> None:
    counted = Counted()
    bench = WorkersBench(LOOK, RwLock(counted))
    with bench.runner:
        for value in range(4):
            for _ in range(3):
                assert bench.next().to_dict() == {"a": value, "b": value}
            assert counted.sent == value + 1
            with bench.data.write() as data:
                data.value += 1


def test_data_without_a_version_is_sent_each_time() -> None:
    counted = Counted(7)
    bench = WorkersBench(LOOK, Plain(counted))
    with bench.runner:
        for _ in range(3):
            assert bench.next().to_dict() == {"a": 7, "b": 7}
    assert counted.sent == 3


def test_data_that_is_replaced_is_sent_again_and_no_sooner() -> None:
    first, second = Counted(1), Counted(2)
    shared = Immutable(first)
    bench = WorkersBench(LOOK, shared)
    with bench.runner:
        for counted in (first, second, first):
            shared.value = counted
            for _ in range(3):
                assert bench.next()["b"] == counted.value
    assert (first.sent, second.sent) == (2, 1)


def test_large_data_is_mapped_and_may_only_be_read() -> None:
    bench = WorkersBench(
        [Looker("a", writeable), Looker("b", writeable)], RwLock(np.ones(1_000_000))
    )
    with bench.runner:
        assert bench.next().to_dict() == {"a": (False, 1e6), "b": (False, 1e6)}
        with bench.data.write() as array:
            array[0] = 0
        assert bench.next().to_dict() == {"a": (False, 999_999.0), "b": (False, 999_999.0)}
    small = WorkersBench([Looker("a", writeable)], RwLock(np.ones(10)))
    with small.runner:
        assert small.next()["a"] == (False, 10.0)


def private_bytes(data: Any) -> int:
    """How much memory a worker has for itself."""
    with open("/proc/self/statm") as file:
        _, resident, shared, *_ = map(int, file.read().split())
    float(data.sum())  # every page is touched
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def test_workers_share_the_memory_of_large_data() -> None:
    size = 100_000_000
    bench = WorkersBench([Looker(name, private_bytes) for name in "ab"], RwLock(np.ones(size // 8)))
    with bench.runner:
        bench.next()
        # The second time every page of it has been touched in each of them.
        for private in bench.next().values():
            assert private < size


def test_data_that_cannot_be_sent_is_named_and_the_runner_goes_on() -> None:
    bench = WorkersBench(LOOK, RwLock[Any]({"lock": threading.Lock()}))
    with bench.runner:
        dataset = bench.next()
        assert not dataset.to_dict()
        for error in dataset.errors.values():
            assert type(error) is TaskError
            assert "the data cannot be sent to a worker process (TypeError" in str(error)
        bench.data.replace(5)
        assert bench.next().to_dict() == {"a": 5, "b": 5}


@pytest.mark.parametrize("make", [OnlyThere, ExitsElsewhere])
def test_data_that_cannot_be_loaded_is_named_and_the_runner_goes_on(
    make: Callable[[], OnlyThere],
) -> None:
    bench = WorkersBench(LOOK, RwLock[Any](make()))
    with bench.runner:
        for _ in range(2):
            dataset = bench.next()
            assert not dataset.to_dict()
            told = str(dataset.errors["b"])
            assert "the data cannot be loaded in a worker process (" in told
        bench.data.replace(5)
        assert bench.next().to_dict() == {"a": 5, "b": 5}


# Data that can live in memory which workers map


class View:
    """A view of numbers in a block, which says how long it is and where it lies."""

    def __init__(self, block: SharedBlock, length: int) -> None:
        self.block = block
        self.length = length

    def numbers(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.frombuffer(self.block.memory, np.int64, self.length)

    def __reduce__(self) -> tuple[Any, ...]:
        return View, (self.block, self.length)


class Growing:
    """Numbers that grow in shared memory, as a TimeSeries does."""

    def __init__(self) -> None:
        self.allocate: Callable[[int], Any] | None = None
        self.length = 0

    def relocate(self, allocate: Callable[[int], Any], /) -> None:
        self.allocate = allocate
        self.block = allocate(80)

    def append(self, number: int) -> None:
        assert self.allocate is not None
        if 8 * (self.length + 1) > self.block.size:
            outgrown, self.block = self.block, self.allocate(2 * self.block.size)
            self.block.memory[: outgrown.size] = outgrown.memory
        self.block.memory.cast("q")[self.length] = number
        self.length += 1

    @contextmanager
    def _access(self) -> Generator[View]:
        yield View(self.block, self.length)

    def read(self, timeout: float | None = None) -> Any:
        return self._access()


def tell(view: View) -> tuple[int, int, bool]:
    numbers = view.numbers()
    return len(numbers), int(numbers.sum()), bool(numbers.flags.writeable)


def open_files(view: View) -> int:
    return len(os.listdir("/proc/self/fd"))


def test_data_in_shared_memory_is_not_sent_and_may_grow_out_of_it() -> None:
    data = Growing()
    bench = WorkersBench([Looker("a", tell), Looker("b", tell), Looker("files", open_files)], data)
    assert data.allocate is not None
    files: set[int] = set()
    with bench.runner:
        for length in range(1, 100):
            data.append(length)
            dataset = bench.next()
            expected = length, length * (length + 1) // 2, False
            assert (dataset["a"], dataset["b"]) == (expected, expected)
            files.add(dataset["files"])
        # A worker that comes later maps the block that there is then.
        for pid in pids_of(bench):
            os.kill(pid, signal.SIGKILL)
        assert bench.next()["b"][0] == 99
    assert max(files) - min(files) <= 2, "blocks that were outgrown are let go of"


def mapped_memory(pid: int) -> int:
    """How many bytes of memory that its runner has made a worker has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    places = [line.split()[0].split("-") for line in lines if "memfd:run-task" in line]
    return sum(int(stop, 16) - int(start, 16) for start, stop in places)


def where(seconds: float) -> int:
    """Runs for so long, and tells in which process."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    return os.getpid()


def wait_for(bench: WorkersBench, workers: int) -> None:
    """Wait until the tasks "a" and "b" are those of so many workers."""
    for _ in range(1000):
        dataset = bench.next()
        if len({dataset["a"], dataset["b"]}) == workers:
            return
    raise AssertionError(f"1000 ticks without {workers}")


def where_at_length(view: View) -> int:
    """Tells in which process; as long as the data is short, it takes its time for that."""
    return where(0.002 if len(view.numbers()) < 50 else 0.0)


@pytest.mark.skipif(sys.platform != "linux", reason="what is mapped is read from /proc")
def test_a_worker_without_work_lets_go_of_a_block_that_was_outgrown() -> None:
    data = Growing()
    bench = WorkersBench([Looker("a", where_at_length), Looker("b", where_at_length)], data)
    with bench.runner:
        wait_for(bench, 2)  # both have the block
        for number in range(50):
            data.append(number)
        wait_for(bench, 1)
        for number in range(5000):
            data.append(number)
        for _ in pids_of(bench):
            bench.next()
        assert len({mapped_memory(pid) for pid in pids_of(bench)}) == 1


def test_cheap_tasks_are_for_one_worker_and_others_for_all() -> None:
    bench = WorkersBench([Looker("a", where), Looker("b", where)], RwLock(0.0))
    with bench.runner:
        wait_for(bench, 1)
        bench.data.replace(0.002)
        wait_for(bench, 2)
        bench.data.replace(0.0)
        wait_for(bench, 1)


def test_a_block_is_gone_with_the_last_that_refers_to_it() -> None:
    before = descriptors()
    shared = SharedBlock(100)
    number = shared.number
    assert block(number) is shared
    assert shared.memory.nbytes == 100
    shared.memory[:3] = b"abc"
    view = np.frombuffer(shared.memory, np.uint8)
    del shared
    with pytest.raises(LookupError, match=f"shared block {number} is not mapped"):
        block(number)
    assert bytes(view[:3]) == b"abc"  # the memory is there for as long as it is looked at
    del view
    assert descriptors() == before


def test_blocks_of_no_bytes_can_be_had() -> None:
    assert SharedBlock(0).memory.nbytes == 0


# What is left


def test_descriptors_do_not_leak_over_runners_nor_over_ticks() -> None:
    def run(ticks: int) -> int:
        bench = WorkersBench([Doer("a"), Doer("b")])
        counts: set[int] = set()
        with bench.runner:
            for step in range(ticks):
                dataset = bench.next(a="array" if step % 10 == 0 else "descriptors")
                if step % 10:
                    counts.add(dataset["a"])
        assert len(counts) == 1, "nor in the workers"
        return descriptors()

    run(20)
    gc.collect()  # what tests before have left
    first = run(20)
    assert {run(3) for _ in range(3)} | {run(2000)} == {first}


def test_large_results_that_are_kept_keep_no_file_open() -> None:
    bench = WorkersBench([Doer("a"), Doer("b")])
    with bench.runner:
        bench.next(a="array", b="array")
        before = descriptors()
        kept = [bench.next(a="array", b="array") for _ in range(20)]
        assert descriptors() == before
    assert all(dataset["a"][-1] == 99_999 for dataset in kept)


def test_a_runner_that_is_made_and_never_run_leaves_nothing_behind() -> None:
    before = descriptors()
    bench = WorkersBench([Holder("large", 100_000)])
    del bench
    assert descriptors() == before
