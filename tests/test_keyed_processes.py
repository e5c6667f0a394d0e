"""Tasks by key in worker processes: keys that do their worst, and who has which keys."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from tests.support.bench import SECOND
from tests.support.crews import alive, children, descriptors
from tests.support.deeds import DeadlyToLoad
from tests.support.keyed import GIVEN, Giver, KeyedDoer, Waiter, total, trades
from tests.support.stateful import ema, same, seen, windows
from tests.support.threads import PATIENCE, eventually

from run_task import (
    ContextBuilder,
    KeyedDataSet,
    Receiver,
    Runner,
    RunnerConfig,
    ShutdownTimeout,
    TaskLost,
    TaskTimeout,
    TimeSeries,
    TimeUnit,
    VirtualClock,
    Window,
)
from run_task.data import bucket_of
from run_task.data._buckets import part_of
from run_task.executors.processes import _keyed_states, _workers_crew
from run_task.testing import run_windows

KEYS = [f"k{i:02}" for i in range(12)]
SHARDS = [[key for key in KEYS if part_of(bucket_of(key), 2) == shard] for shard in (0, 1)]
ONE, OTHER = SHARDS[0][2], SHARDS[1][2]
"""A key of either shard, in its middle."""


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Every test ends with as many processes as it began with."""
    before = len(children())
    yield
    eventually(lambda: len(children()) == before)


class KeyedBench:
    """A runner by key in two worker processes, whose tasks do what rows say.

    :param tasks: its tasks
    :param settings: of its RunnerConfig
    """

    def __init__(self, *tasks: Any, **settings: Any) -> None:
        columns = {"key": str, "deed": str}
        self.series = TimeSeries(columns, TimeUnit.SECONDS, retention=1000, key="key")
        settings.setdefault("shutdown_timeout", 3 * PATIENCE)
        config = RunnerConfig(executor="processes", workers=2, **settings)
        context, receiver, _ = (
            ContextBuilder(self.series)
            .with_tasks(tasks)
            .with_interval(SECOND)
            .with_config(config)
            .with_key("key")
            .build()
        )
        self.receiver: Receiver[Any] = receiver
        self.clock = VirtualClock()
        self.runner = Runner(context, clock=self.clock)
        self._second = 0

    def tick(self, deeds: Mapping[str, str] | None = None) -> None:
        """A second goes by, with a row of each key."""
        told = [(deeds or {}).get(key, "") for key in KEYS]
        self.series.extend([self._second] * len(KEYS), key=KEYS, deed=told)
        self._second += 1
        self.clock.advance(SECOND)

    def next(self, deeds: Mapping[str, str] | None = None) -> KeyedDataSet[str, Any]:
        """The next KeyedDataSet.

        :param deeds: what is to be done for keys
        """
        self.tick(deeds)
        # Interpreters may have to start, on a machine that has other things to do.
        dataset: KeyedDataSet[str, Any] = self.receiver.recv(3 * PATIENCE)
        return dataset

    @property
    def crew(self) -> Any:
        """There is no other way to the processes."""
        return self.runner._engine._crew  # pyright: ignore[reportPrivateUsage]

    def pids(self) -> Mapping[str, int]:
        """Which process has each key."""
        dataset = self.next(dict.fromkeys(KEYS, "a:pid"))
        assert not dataset.errors
        return dict(dataset["a"])

    def end(self) -> int:
        return self._second


@pytest.fixture(scope="module")
def bench() -> Iterator[KeyedBench]:
    """A runner of two tasks that do what they are told."""
    made = KeyedBench(KeyedDoer("a"), KeyedDoer("b"))
    with made.runner:
        made.next()
        yield made


@pytest.fixture(scope="module")
def timed() -> Iterator[KeyedBench]:
    """A runner whose tasks time out."""
    made = KeyedBench(KeyedDoer("a"), KeyedDoer("b"), task_timeout=0.5)
    with made.runner:
        made.next()
        yield made


def check(dataset: KeyedDataSet[str, Any], failed: Sequence[tuple[str, str]] = ()) -> None:
    """All tasks and keys but these have their results."""
    assert list(dataset.errors) == sorted(failed)
    for name in ("a", "b"):
        expected = {key: f"{name} {key} {dataset.timestamp}" for key in KEYS}
        for task, key in failed:
            if task == name:
                del expected[key]
        assert dict(dataset[name]) == expected
        assert list(dataset[name]) == sorted(expected)
    assert list(dataset.durations) == ["a", "b"]
    for name_and_key, error in dataset.errors.items():
        assert (error.task, error.key) == name_and_key
        assert error.window == dataset.window


# Who has which keys


def test_a_key_stays_with_its_worker_and_all_of_its_shard_do(bench: KeyedBench) -> None:
    pids = bench.pids()
    assert len(set(pids.values())) == 2
    for shard in SHARDS:
        assert len({pids[key] for key in shard}) == 1
    for _ in range(3):
        assert bench.pids() == pids


def test_a_worker_that_is_replaced_costs_nobody_its_worker(bench: KeyedBench) -> None:
    before = bench.pids()
    os.kill(before[ONE], signal.SIGKILL)
    check(bench.next())
    after = bench.pids()
    assert {after[key] for key in SHARDS[1]} == {before[OTHER]}
    assert len({after[key] for key in SHARDS[0]}) == 1
    assert after[ONE] != before[ONE]


def test_the_keys_of_a_worker_that_cannot_be_replaced_are_run_by_another(
    bench: KeyedBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bench.pids()
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", _no_more_processes)
        os.kill(before[ONE], signal.SIGKILL)
        eventually(lambda: not alive(before[ONE]))
        assert set(bench.pids().values()) == {before[OTHER]}
    after = bench.pids()
    assert {after[key] for key in SHARDS[1]} == {before[OTHER]}
    assert before[OTHER] not in {after[key] for key in SHARDS[0]}


def _no_more_processes(*_: object, **__: object) -> None:
    raise BlockingIOError("no more processes")


def test_without_any_process_all_is_lost_by_the_plain_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = KeyedBench(KeyedDoer("a"), KeyedDoer("b"))
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", _no_more_processes)
        made.runner.start()
        dataset = made.next()
    assert list(dataset.errors) == ["a", "b"]
    assert {type(error) for error in dataset.errors.values()} == {TaskLost}
    assert "no worker process could be started" in str(dataset.errors["a"])
    check(made.next())
    made.runner.shutdown()
    made.runner.join()


# Keys that end their process


@pytest.mark.parametrize(
    ("deed", "how"),
    [
        ("exit", "its worker process ended with exit code 3"),
        ("kill", "its worker process was killed by signal 9 (Killed)"),
        ("segfault", "its worker process was killed by signal 11 (Segmentation fault)"),
        ("forks and dies", "its worker process ended with exit code 7"),
    ],
)
def test_a_key_that_ends_its_process_loses_its_own_result(
    bench: KeyedBench, deed: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = bench.next({ONE: f"b:{deed}"})
    check(dataset, [("b", ONE)])
    error = dataset.errors["b", ONE]
    assert type(error) is TaskLost
    assert how in str(error)
    (record,) = [record for record in caplog.records if "is replaced" in record.message]
    told: Any = record
    assert (told.task, told.key, told.window) == ("b", ONE, dataset.window)
    check(bench.next())


def test_a_worker_that_dies_over_its_report_costs_the_key_that_is_to_blame(
    bench: KeyedBench,
) -> None:
    # It goes on with other keys, and it shows in the end that it has no socket any more.
    dataset = bench.next({ONE: "b:closes everything"})
    check(dataset, [("b", ONE)])
    assert type(dataset.errors["b", ONE]) is TaskLost
    check(bench.next())


def test_keys_of_both_workers_and_all_tasks_of_one_may_die(bench: KeyedBench) -> None:
    first, last = SHARDS[0][0], SHARDS[1][-1]
    dataset = bench.next({ONE: "all:exit", first: "b:kill", last: "a:exit"})
    check(dataset, [("a", ONE), ("b", ONE), ("b", first), ("a", last)])
    assert {type(error) for error in dataset.errors.values()} == {TaskLost}
    check(bench.next())


def test_a_key_whose_worker_is_killed_from_outside_is_lost(bench: KeyedBench) -> None:
    pids = bench.pids()
    bench.tick({ONE: "b:sleep"})
    eventually(lambda: bench.crew.running() == [f"b of {ONE!r}"])
    os.kill(pids[ONE], signal.SIGKILL)
    dataset = bench.receiver.recv(3 * PATIENCE)
    check(dataset, [("b", ONE)])
    assert "was killed by signal 9" in str(dataset.errors["b", ONE])
    check(bench.next())


def test_what_was_reported_before_a_key_died_is_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    made = KeyedBench(Waiter(str(path)), KeyedDoer("b"))
    with made.runner:
        made.next()
        path.unlink()
        dataset = made.next({SHARDS[0][-1]: "b:exit", SHARDS[1][-1]: "b:exit"})
    assert list(dataset.errors) == [("b", SHARDS[0][-1]), ("b", SHARDS[1][-1])]
    assert dataset["waiter"] == {key: key for key in KEYS}
    runs = path.read_text().split()
    # A report covers 50 ms, and each key takes 20 of them at least.
    assert set(runs) == set(KEYS)
    assert len(runs) <= len(KEYS) + 2 * 3


def test_a_worker_that_nobody_waits_for_any_more_does_not_report_to_the_next_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = KeyedBench(KeyedDoer("a"), KeyedDoer("b"))
    with made.runner:
        pids = made.pids()
        made.tick({OTHER: "b:sleep"})
        eventually(lambda: made.crew.running() == [f"b of {OTHER!r}"])
        # Killed in the middle of a job, it would cost that job, and be replaced.
        eventually(lambda: any(each.work is None for each in made.crew._workers))
        # As if so many had died that the window is given up, in the middle of the other's work.
        monkeypatch.setattr(_workers_crew, "_MAX_DEATHS", -2)
        os.kill(pids[ONE], signal.SIGKILL)
        dataset = made.receiver.recv(3 * PATIENCE)
        assert {type(error) for error in dataset.errors.values()} == {TaskLost}
        monkeypatch.undo()
        check(made.next())
        assert made.pids()[OTHER] != pids[OTHER]


def test_states_that_there_is_no_memory_for_cost_their_tasks_this_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def pack(pieces: object) -> NoReturn:
        raise OSError("no memory")

    made = KeyedBench(KeyedDoer("a"), windows)
    with made.runner:
        assert made.next()["windows"] == dict.fromkeys(KEYS, 1)
        for pid in set(made.pids().values()):
            os.kill(pid, signal.SIGKILL)
        monkeypatch.setattr(_keyed_states, "pack", pack)
        dataset = made.next()
        assert list(dataset.errors) == ["windows"]
        assert "its states cannot be sent to a worker process (OSError: no memory)" in str(
            dataset.errors["windows"]
        )
        assert dataset["a"].keys() == set(KEYS)
        monkeypatch.undo()
        assert made.next()["windows"] == dict.fromkeys(KEYS, 3)


# Keys that hang


@pytest.mark.parametrize("deed", ["sleep", "busy", "holds the GIL"])
def test_a_key_that_hangs_is_ended_with_its_process(timed: KeyedBench, deed: str) -> None:
    before = timed.pids()
    dataset = timed.next({ONE: f"b:{deed}"})
    check(dataset, [("b", ONE)])
    error = dataset.errors["b", ONE]
    assert type(error) is TaskTimeout
    assert "did not return within task_timeout=0.5 s, and was ended with" in str(error)
    after = timed.pids()
    assert {after[key] for key in SHARDS[1]} == {before[OTHER]}
    assert not alive(before[ONE])


def test_several_keys_may_hang(timed: KeyedBench) -> None:
    dataset = timed.next({ONE: "all:sleep", SHARDS[0][-1]: "a:busy", OTHER: "a:sleep"})
    check(dataset, [("a", ONE), ("b", ONE), ("a", SHARDS[0][-1]), ("a", OTHER)])
    assert {type(error) for error in dataset.errors.values()} == {TaskTimeout}
    check(timed.next())


# Results and exceptions that cannot be sent, or not be loaded


def test_what_cannot_be_sent_or_loaded_is_an_error_of_its_key(bench: KeyedBench) -> None:
    told = {
        KEYS[0]: "a:lock",
        KEYS[1]: "a:only there",
        KEYS[2]: "b:exits elsewhere",
        KEYS[3]: "a:odd",
        KEYS[4]: "b:locked",
        KEYS[5]: "b:mute",
        KEYS[6]: "a:value error",
        KEYS[7]: "a:system exit",
    }
    dataset = bench.next(told)
    check(dataset, [(deed[0], key) for key, deed in told.items()])
    texts = [str(dataset.errors[deed[0], key]) for key, deed in told.items()]
    expected = [
        "its result, a lock, cannot be sent back (TypeError: cannot pickle",
        "its result cannot be loaded (RuntimeError: it belongs to",
        "its result cannot be loaded (SystemExit: it wants to",
        "RuntimeError: tests.support.deeds.Odd: this and that",
        "RuntimeError: tests.support.deeds.Locked: in chains",
        "Mute",
        "ValueError: bad luck",
        "SystemExit",
    ]
    for text, part in zip(texts, expected, strict=True):
        assert part in text
    cause = dataset.errors["a", KEYS[6]].__cause__
    assert cause is not None
    assert cause.__notes__[0].startswith("in the worker process:\nTraceback")
    check(bench.next())


def test_large_results_arrive_and_keep_no_file_open(bench: KeyedBench) -> None:
    bench.next(dict.fromkeys(KEYS, "a:array"))
    before = descriptors()
    kept = [bench.next(dict.fromkeys(KEYS, "a:array")) for _ in range(10)]
    assert descriptors() <= before  # of other tests, some may be closed meanwhile
    for dataset in kept:
        assert not dataset.errors
        for array in dataset["a"].values():
            assert np.array_equal(array, np.arange(100_000))
            array[:] = 1  # it belongs to who receives it


def test_a_result_that_there_is_no_room_to_send_is_an_error_of_its_key(bench: KeyedBench) -> None:
    dataset = bench.next({ONE: "b:too large"})
    check(dataset, [("b", ONE)])
    assert "its result, of 67,10" in str(dataset.errors["b", ONE])
    for worker in bench.crew._workers:  # it has no limits but the one that it set itself
        os.kill(worker.process.pid, signal.SIGKILL)
    check(bench.next())


def test_results_are_of_the_types_that_they_had() -> None:
    series = TimeSeries({"key": str}, TimeUnit.SECONDS, key="key")
    keys = list(GIVEN)
    series.extend([0] * len(keys), key=keys)
    context, _, _ = (
        ContextBuilder(series)
        .with_task(Giver())
        .with_interval(SECOND)
        .with_config(RunnerConfig(executor="processes", workers=2, shutdown_timeout=3 * PATIENCE))
        .with_key("key")
        .build()
    )
    (dataset,) = run_windows(context, 1, timeout=6 * PATIENCE)
    results = dict(dataset["giver"])
    assert results == GIVEN
    assert {key: type(value) for key, value in results.items()} == {
        key: type(value) for key, value in GIVEN.items()
    }


# Tasks that cannot be loaded


def test_a_task_that_cannot_be_loaded_has_an_error_by_its_plain_name() -> None:
    tasks = [DeadlyToLoad("raises", "value error"), DeadlyToLoad("deadly", "exit")]
    made = KeyedBench(KeyedDoer("a"), *tasks)
    with made.runner:
        for _ in range(2):
            dataset = made.next()
            assert list(dataset.errors) == ["raises", "deadly"]
            assert "cannot be loaded in a worker process" in str(dataset.errors["raises"])
            assert type(dataset.errors["deadly"]) is TaskLost
            assert dataset["a"].keys() == set(KEYS)
            assert list(dataset) == ["a"]


# The end


def test_a_shutdown_gives_up_on_a_key_that_hangs_and_names_it() -> None:
    made = KeyedBench(KeyedDoer("a"), KeyedDoer("b"), shutdown_timeout=0.5)
    pids: list[int] = []
    with (
        pytest.raises(ShutdownTimeout, match=f"still running: \"b of '{ONE}'\"") as caught,
        made.runner,
    ):
        pids = list(made.pids().values())
        made.tick({ONE: "b:sleep"})
        eventually(lambda: made.crew.running() == [f"b of {ONE!r}"])
    assert caught.value.tasks == (f"b of {ONE!r}",)
    assert not any(map(alive, pids))
    (dataset,) = made.receiver
    assert dataset["a"].keys() >= set(SHARDS[1])
    for task in ("a", "b"):
        for key in KEYS:
            assert (key in dataset[task]) is ((task, key) not in dataset.errors)
    assert type(dataset.errors["b", ONE]) is TaskTimeout


def test_nothing_is_left_behind() -> None:
    def run(windows: int) -> int:
        made = KeyedBench(KeyedDoer("a"), KeyedDoer("b"))
        with made.runner:
            for step in range(windows):
                deed = ("", "b:exit", "a:array")[step % 3]
                assert len(made.next({ONE: deed}).errors) == (deed == "b:exit")
        gc.collect()
        return descriptors()

    first = run(3)
    assert {run(4), run(12)} == {first}


# Alike on every executor


@pytest.mark.parametrize("kind", [str, int], ids=["texts", "ints"])
def test_results_are_to_the_bit_those_of_the_other_executors(kind: type) -> None:
    chance = np.random.default_rng(3)
    numbers = chance.integers(-40, 40, 4000)
    keys = numbers.astype(np.int64) if kind is int else np.array([f"é{n}" for n in numbers], object)
    prices = chance.normal(size=4000)
    found: list[Any] = []
    executors: Any = ("inline", "threads", "processes", "processes")
    for executor, workers in zip(executors, (1, 2, 2, 3)):
        series = trades(kind)
        series.extend(np.arange(4000) // 40, symbol=keys, price=prices)
        context, _, _ = (
            ContextBuilder(series)
            .with_task(total)
            .with_interval("10s")
            .with_config(
                RunnerConfig(executor=executor, workers=workers, shutdown_timeout=3 * PATIENCE)
            )
            .with_key("symbol")
            .build()
        )
        datasets = run_windows(context, 10, timeout=6 * PATIENCE)
        found.append([(d.window, [*d["total"].items()]) for d in datasets])
    assert found[0] == found[1] == found[2] == found[3]
    assert len(found[0]) == 10


# States


def states_of(executor: Any, *, kills: bool = False) -> tuple[list[Any], Mapping[str, Any], int]:
    """What tasks with states give over forty windows of keys that come, fail and go.

    :param kills: whether a worker is killed now and then
    :return: the results and errors; the states in the end; how many workers were killed
    """
    chance = random.Random(5)
    series = trades()
    tasks: list[Any] = [ema, seen, windows, same]
    context, _, _ = (
        ContextBuilder(series)
        .with_tasks(tasks)
        .with_interval("10s")
        .with_config(RunnerConfig(executor=executor, workers=2, shutdown_timeout=3 * PATIENCE))
        .with_key("symbol", key_idle="45s")
        .build()
    )
    before = children()
    killed: list[int] = []

    def enter(window: Window) -> None:
        for _ in range(chance.randrange(1, 9)):
            symbol, price = chance.choice("ABCDEFGH"), float(chance.randrange(-1, 9))
            series.append(window.start + 1, symbol=symbol, price=price)
        if kills and window.start % 100 == 70:
            pid = min(filter(alive, children() - before))
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    states: dict[str, Any] = {}
    datasets = run_windows(context, 40, before=enter, states=states, timeout=6 * PATIENCE)
    found = [(d.window, d.to_dict(), [*d.errors], [*map(str, d.errors.values())]) for d in datasets]
    return found, states, len(killed)


def test_states_by_key_are_those_of_the_other_executors_also_if_workers_die() -> None:
    expected = states_of("inline")
    assert any(errors for _, _, errors, _ in expected[0])
    assert states_of("threads") == expected
    assert states_of("processes") == expected
    found, states, killed = states_of("processes", kills=True)
    assert killed == 4
    assert (found, states, 0) == expected


def test_states_of_keys_that_are_gone_are_not_kept_by_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_keyed_states, "_FEW", 20)
    series = trades(int)
    context, receiver, _ = (
        ContextBuilder(series)
        .with_task(windows)
        .with_interval(SECOND)
        .with_config(RunnerConfig(executor="processes", workers=2, shutdown_timeout=3 * PATIENCE))
        .with_key("symbol", key_idle="2s")
        .build()
    )
    clock = VirtualClock()
    held: list[int] = []
    with Runner(context, clock=clock) as runner:
        for second in range(30):
            keys = [0, *range(10 * second, 10 * second + 10)]
            series.extend([second] * len(keys), symbol=keys, price=[1.0] * len(keys))
            clock.advance(SECOND)
            dataset: Any = receiver.recv(3 * PATIENCE)
            assert dataset["windows"] == {key: second + 1 if key == 0 else 1 for key in keys}
            workers: Any = runner._engine._crew  # pyright: ignore[reportPrivateUsage]
            held.append(sum(len(worker.held) for worker in workers._workers))
    assert max(held) < 2 * (2 * 31 + 20) + 11
    assert max(held) < 300  # as many as there were keys
