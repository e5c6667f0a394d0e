"""The parts that worker processes are made of, each on its own."""

from __future__ import annotations

import os
import pickle
import resource
import socket
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.crews import descriptors
from tests.support.proof import examples

from run_task.data._memory import MapMode
from run_task.executors.processes._columns import ResultColumns, packed_columns, unpacked_columns
from run_task.executors.processes._exceptions import LoadFailure
from run_task.executors.processes._keyed_work import KeyedTasks
from run_task.executors.processes._messages import KeyedWork
from run_task.executors.processes._pickling import dumps
from run_task.executors.processes._progress import PROGRESS_SIZE, Progress
from run_task.executors.processes._shares import SHARE, SHARES_EACH, balanced
from run_task.executors.processes._wire import INLINE, Connection, loads, pack, pickled, unpack

COSTS = st.lists(st.floats(0, 1), min_size=1, max_size=60)


@given(COSTS, st.integers(1, 9))
def test_shares_hold_each_task_once_and_are_not_empty(costs: list[float], workers: int) -> None:
    cut = balanced(costs, workers)
    assert sorted(position for share in cut for position in share) == list(range(len(costs)))
    assert all(cut)
    assert min(workers, len(costs)) <= len(cut) <= workers * SHARES_EACH


@given(COSTS, st.integers(1, 9))
def test_shares_are_balanced_and_the_costliest_comes_first(
    costs: list[float], workers: int
) -> None:
    cut = balanced(costs, workers)
    loads_ = [sum(costs[position] for position in share) for share in cut]
    assert loads_ == sorted(loads_, reverse=True)
    # A task that put its share over the mean came last there, when this was the least loaded.
    for share, load in zip(cut, loads_):
        if len(share) > 1:
            last = min(costs[position] for position in share)
            assert load - last <= sum(costs) / len(cut) + 1e-9


@given(st.lists(st.integers(0, 20), min_size=1, max_size=9), st.integers(1, 3))
def test_no_share_is_a_third_dearer_than_in_the_best_cut(costs: list[int], workers: int) -> None:
    # So cheap that each worker has one share, and few enough to try every cut there is.
    scaled = [cost * SHARE / 1000 for cost in costs]
    costliest = max(sum(costs[i] for i in share) for share in balanced(scaled, workers))
    reachable = {tuple([0] * workers)}
    for cost in costs:
        reachable = {
            tuple(sorted((*cut[:i], cut[i] + cost, *cut[i + 1 :])))
            for cut in reachable
            for i in range(workers)
        }
    assert 3 * workers * costliest <= (4 * workers - 1) * min(map(max, reachable))


def test_dear_tasks_have_shares_of_their_own() -> None:
    assert sorted(balanced([0.006] * 8, 2)) == [[i] for i in range(8)]
    assert len(balanced([1e-6] * 1000, 2)) == 2


@given(st.lists(st.binary(max_size=3 * INLINE // 2), min_size=1, max_size=4))
def test_pieces_come_out_of_a_parcel_as_they_went_in(pieces: list[bytes]) -> None:
    for mode in (MapMode.READ, MapMode.COPY):
        payload, memory = pack([memoryview(piece) for piece in pieces])
        assert len(memory) == (sum(map(len, pieces)) > INLINE)
        found = unpack(payload, memory, mode)
        assert [bytes(piece) for piece in found] == pieces
        assert not memory, "it is closed"
        assert all(piece.readonly is (mode is MapMode.READ) for piece in found)


def test_what_is_written_to_a_copy_is_seen_by_nobody_else() -> None:
    payload, (descriptor,) = pack([memoryview(bytes(INLINE + 1))])
    first, second = (unpack(payload, [os.dup(descriptor)], MapMode.COPY) for _ in range(2))
    os.close(descriptor)
    first[0][0] = 1
    assert second[0][0] == 0


def test_arrays_travel_beside_their_pickle() -> None:
    array = np.arange(10_000)
    pieces = pickled([array, array[:10].copy()])
    assert [piece.nbytes for piece in pieces[1:]] == [80_000, 80]
    assert pieces[0].nbytes < 1000
    assert np.array_equal(loads(pieces)[0], array)


def test_messages_and_descriptors_go_down_a_link() -> None:
    before = descriptors()
    ours, theirs = (Connection(end) for end in socket.socketpair())
    reading, writing = os.pipe()
    ours.send(("a", 1), [reading, writing])
    os.close(reading)
    os.close(writing)
    message, (reading, writing) = theirs.recv()
    assert message == ("a", 1)
    os.write(writing, b"setup")
    assert os.read(reading, 5) == b"setup"
    os.close(reading)
    os.close(writing)
    ours.close()
    with pytest.raises(EOFError):
        theirs.recv()
    with pytest.raises(BrokenPipeError):
        theirs.send(())
    theirs.close()
    assert descriptors() == before


@given(st.binary(max_size=50_000), st.sampled_from([0, 1, 2, 249, 250, 251, 600]))
@settings(max_examples=examples(30), deadline=None)
def test_messages_of_any_size_and_any_number_of_descriptors_arrive(body: bytes, count: int) -> None:
    ours, theirs = (Connection(end) for end in socket.socketpair())
    reading, writing = os.pipe()
    try:
        ours.send((body,), [writing] * count)
        message, received = theirs.recv()
        assert message == (body,)
        assert len(set(received)) == count
        for descriptor in received:
            assert os.fstat(descriptor).st_ino == os.fstat(writing).st_ino
            assert not os.get_inheritable(descriptor)
            os.close(descriptor)
    finally:
        for descriptor in (reading, writing):
            os.close(descriptor)
        ours.close()
        theirs.close()


def test_descriptors_that_there_is_no_room_for_are_an_error_and_do_not_leak() -> None:
    ours, theirs = (Connection(end) for end in socket.socketpair())
    before = descriptors()
    ours.send((), [ours.fileno()] * 10)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max_descriptor() + 5, limits[1]))
    try:
        with pytest.raises(OSError, match="too many open files"):
            theirs.recv()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert descriptors() == before
    ours.close()
    theirs.close()


def max_descriptor() -> int:
    descriptor = os.dup(0)
    os.close(descriptor)
    return descriptor


def test_plain_pickle_does_where_it_can_and_cloudpickle_where_it_cannot() -> None:
    assert dumps(np.mean, []) == pickle.dumps(np.mean, 5)
    whole = dumps(lambda: 5, [])
    assert b"cloudpickle" in whole
    assert pickle.loads(whole)() == 5


def test_without_cloudpickle_the_error_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(pickle.PicklingError, match=r"pip install .*\[processes\]"):
        dumps(lambda: 5, [])


class Halfway:
    """It gives a buffer, and then cannot be pickled plainly."""

    def __reduce__(self) -> tuple[Any, ...]:
        return list, ([np.ones(10), lambda: 5],)


def test_buffers_of_an_attempt_that_failed_are_not_sent() -> None:
    pieces = pickled(Halfway())
    array, function = loads(pieces)
    assert len(pieces) == 2
    assert array.sum() == 10
    assert function() == 5


def test_progress_tells_what_a_worker_is_at() -> None:
    progress = Progress(memoryview(bytearray(PROGRESS_SIZE)))
    progress.rest()
    assert (progress.in_hand(), progress.loading()) == (None, None)
    for position in (0, 7):
        progress.load(position)
        assert (progress.in_hand(), progress.loading()) == (None, position)
        begun = progress.begin(position)
        assert (progress.in_hand(), progress.loading()) == (position, None)
        assert progress.since(position) == begun
        assert progress.since(position + 1) is None
        progress.finish()
        assert (progress.in_hand(), progress.since(position)) == (position, None)


def test_progress_that_is_noted_at_once_is_read_as_any_other() -> None:
    progress = Progress(memoryview(bytearray(PROGRESS_SIZE)))
    progress.rest()
    note = progress.noting()
    note(12.5, 3)
    assert (progress.in_hand(), progress.loading()) == (3, None)
    assert progress.since(3) == 12.5
    progress.finish()
    assert (progress.in_hand(), progress.since(3)) == (3, None)


def test_data_that_cannot_be_loaded_by_key_is_why_no_task_has_a_result() -> None:
    progress = Progress(memoryview(bytearray(PROGRESS_SIZE)))
    runs: list[Any] = [len, len]
    tasks = KeyedTasks(runs, {}, progress, 1.0)
    failure = LoadFailure(ValueError("not here"), "the data")
    report, memory = tasks.run(failure, (0, 10), KeyedWork(0, 1, 0, None, ()))
    assert not memory
    assert [task for task, _ in report.failed] == [0, 1]
    pieces = unpack(report.payload, memory, MapMode.READ)[report.columns :]
    cause, _ = loads(pieces[: report.failed[0][1]])
    assert "the data cannot be loaded in a worker process (ValueError: not here)" in str(cause)


@given(
    st.lists(
        st.lists(
            st.one_of(st.floats(), st.integers(), st.text(), st.none()), min_size=3, max_size=3
        )
    )
)
def test_columns_come_out_as_they_went_in(columns: list[list[Any]]) -> None:
    scalars = [np.float32(0.1), np.float32(2), np.float32("nan")]
    sent: ResultColumns = [*columns, None, scalars, [np.float64(1), np.float32(1), np.int64(1)]]
    found = unpacked_columns(packed_columns(sent))
    assert repr(found) == repr(sent)
