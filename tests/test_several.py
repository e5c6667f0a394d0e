"""Several shared data as one: a tuple of views, of one moment."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from tests.support.blocks import SharedBlock
from tests.support.threads import PATIENCE, beside, eventually, together

from run_task import (
    Atom,
    ConfigError,
    Context,
    ContextBuilder,
    DataSet,
    Empty,
    LockTimeout,
    Receiver,
    RunnerConfig,
    RwLock,
    Sender,
    Shared,
    Task,
    TaskError,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    TimeUnit,
    Window,
    channel,
    task,
)
from run_task.data import Viewable
from run_task.data._several import of_several
from run_task.testing import run_windows

T = TypeVar("T")

EXECUTORS = ["inline", "threads", "processes"]


def series(*times: int, unit: TimeUnit = TimeUnit.SECONDS, **settings: Any) -> TimeSeries:
    made = TimeSeries({"v": float}, unit, **settings)
    made.extend(list(times), v=[float(time) for time in times])
    return made


def windows(
    data: Any, *tasks: Callable[..., Any], n: int = 1, **settings: Any
) -> list[DataSet[Any]]:
    before = settings.pop("before", None)
    context, _, _ = (
        ContextBuilder(data)
        .with_tasks(map(Task, tasks))
        .with_interval("10s")
        .with_config(RunnerConfig(**settings))
        .build()
    )
    return run_windows(context, n, before=before)


def nothing(data: Any, start: int, end: int) -> int:
    return 0


def read(several: Shared[T]) -> T:
    with several.read() as views:
        return views


# What a tuple gives


def test_the_views_are_in_the_order_of_the_data() -> None:
    quotes, limits, latest = series(1, 2), RwLock([7]), Atom("a")
    lock, view, value = read(of_several((limits, quotes, latest)))
    assert (lock, len(view), value) == ([7], 2, "a")


def test_one_that_stands_there_twice_is_read_once() -> None:
    reads: list[object] = []

    class Counted(RwLock[int]):
        def read(self, timeout: float | None = None) -> Any:
            reads.append(timeout)
            return super().read(timeout)

    lock, trades = Counted(3), series(1)
    one, view, other, again = read(of_several((lock, trades, lock, trades)))
    assert (one, other) == (3, 3)
    assert view is again
    assert len(reads) == 1


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_task_gets_a_tuple(executor: str) -> None:
    trades, quotes, factor = series(1, 5, 11), series(0, 4, 12), RwLock({"x": 2.0})

    def joined(data: Any, start: int, end: int) -> float:
        seen, bids, factors = data
        return float(factors["x"] * (seen["v"] - bids.asof(seen)["v"]).sum())

    def rows(data: Any, start: int, end: int) -> tuple[int, int]:
        return len(data[0].in_window), len(data[1].in_window)

    first, second = windows((trades, quotes, factor), joined, rows, n=2, executor=executor)
    assert first.to_dict() == {"joined": 2.0 * (1 - 0 + 5 - 4), "rows": (2, 2)}
    assert second.to_dict() == {"joined": 2.0 * (1 - 0 + 5 - 4 + 11 - 4), "rows": (1, 1)}


def test_each_series_is_cut_by_the_window_in_its_own_unit() -> None:
    seconds, millis = series(9, 10), series(9_999, 10_000, unit=TimeUnit.MILLIS)

    def last(data: Any, start: int, end: int) -> list[int]:
        return [int(view.time[-1]) for view in data]

    assert windows((seconds, millis), last)[0]["last"] == [9, 9_999]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_what_changed_in_place_is_seen(executor: str) -> None:
    numbers, latest = RwLock([1]), Atom(1)

    def change(window: Window) -> None:
        with numbers.write() as values:
            values.append(window.start)
        latest.reset(window.end)

    def seen(data: Any, start: int, end: int) -> Any:
        return [*data[0]], data[1]

    datasets = windows((numbers, latest), seen, n=3, before=change, executor=executor)
    assert [ds["seen"] for ds in datasets] == [
        ([1, 0], 10),
        ([1, 0, 10], 20),
        ([1, 0, 10, 20], 30),
    ]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_state_goes_on_over_several_inputs(executor: Any) -> None:
    trades, factor = series(1, 5, 11), Atom(2.0)

    @task(state=float)
    def running(
        data: tuple[TimeSeriesView, float], start: int, end: int, state: float
    ) -> tuple[float, float]:
        total = state + data[1] * float(data[0].in_window["v"].sum())
        return total, total

    context, _, _ = (
        ContextBuilder((trades, factor))
        .with_task(running)
        .with_interval("10s")
        .with_config(RunnerConfig(executor=executor))
        .build()
    )
    assert [dataset[running] for dataset in run_windows(context, 3)] == [12.0, 34.0, 34.0]


def test_the_builder_gives_the_data_back_as_it_was_given() -> None:
    data = series(1), Atom(2)
    context, _, back = ContextBuilder(data).with_task(Task(nothing, "t")).build()
    assert back is data
    assert context.interval.unit is TimeUnit.SECONDS
    builder: Any = ContextBuilder(Atom(1))
    _, _, other = builder.with_data(data).with_task(Task(nothing, "t")).build()
    assert other is data


def test_a_context_takes_a_tuple() -> None:
    ends: tuple[Sender[DataSet[int]], Receiver[DataSet[int]]] = channel(1)

    @task
    def both(data: tuple[TimeSeriesView, int], start: int, end: int) -> int:
        return len(data[0]) + data[1]

    context = Context(tasks=[both], data=(series(1, 2), Atom(5)), interval="10s", sender=ends[0])
    (dataset,) = run_windows(context, 1)
    assert dataset[both] == 7


# What is refused


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ((), r"a tuple of shared data has one at least"),
        ((Atom(1), [1]), r"number 2 of 2, \[1\], has no read\(\): put it in an RwLock"),
        ((Atom(1), TimeSeries), r"number 2 of 2, .*TimeSeries.*, has no read\(\)"),
        ((Atom(1), (Atom(2), Atom(3))), r"number 2 of 2 is a tuple itself: give one tuple of all"),
    ],
)
def test_what_is_no_tuple_of_data_is_refused(data: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ContextBuilder(data)


def test_a_list_of_data_is_refused_with_the_cure() -> None:
    builder: Any = ContextBuilder(Atom(1)).with_task(Task(nothing, "t"))
    with pytest.raises(ConfigError, match="give several as a tuple"):
        builder.with_data([Atom(1), Atom(2)]).build()


def test_an_interval_in_another_unit_than_the_first_series_is_refused() -> None:
    builder: Any = ContextBuilder((Atom(1), series(1), series(1, unit=TimeUnit.MILLIS)))
    builder = builder.with_task(Task(nothing, "t"))
    context, _, _ = builder.with_interval("1s").build()
    assert context.interval == TaskInterval.seconds(1)
    with pytest.raises(ConfigError, match="it is in millis, and the data in seconds"):
        builder.with_interval(TaskInterval.millis(1000)).build()


def test_retention_is_looked_at_of_each(caplog: pytest.LogCaptureFixture) -> None:
    windows((series(1), series(1, retention="5s")), nothing)
    assert "its data keeps rows for 5s" in caplog.text


# Windows without rows


def test_a_window_is_empty_if_no_series_has_a_row_in_it() -> None:
    trades, quotes = series(1, 31), series(12)

    def rows(data: Any, start: int, end: int) -> list[int]:
        return [len(view.in_window) for view in data[:2]]

    datasets = windows((trades, quotes, Atom(1)), rows, n=4, empty=Empty.SKIP)
    assert [(ds.window.start, ds["rows"]) for ds in datasets] == [
        (0, [1, 0]),
        (10, [0, 1]),
        (30, [1, 0]),
    ]
    with pytest.raises(ConfigError, match=r"Empty\.SKIP"):
        windows((Atom(1), Atom(2)), rows, empty=Empty.SKIP)


# One moment


class Meddled(Atom[T]):
    """An Atom that somebody writes to when it has just been read."""

    meddle: Callable[[], object] = staticmethod(lambda: None)

    def view(self) -> T:
        seen = super().view()
        self.meddle()
        return seen


def test_what_changes_between_two_views_is_taken_anew() -> None:
    first, second = Meddled(0), Atom(0)
    writes = iter(range(1, 4))

    def meddle() -> None:
        if (number := next(writes, None)) is not None:
            first.reset(number)
            second.reset(number)

    first.meddle = meddle
    # Taken one after the other, they would be 0 and 1, of no moment at which both were.
    assert read(of_several((first, second))) == (3, 3)


def test_rows_are_of_one_moment_too() -> None:
    trades, quotes, first = series(), series(), Meddled(0)
    writes = iter(range(1, 4))

    def meddle() -> None:
        if (number := next(writes, None)) is not None:
            trades.append(number, v=0.0)
            quotes.append(number, v=0.0)

    first.meddle = meddle
    of_trades, _, of_quotes = read(of_several((trades, first, quotes)))
    assert of_trades.time.tolist() == of_quotes.time.tolist() == [1, 2, 3]


def test_a_value_that_is_swapped_and_swapped_back_is_taken_anew() -> None:
    first, second = Meddled("a"), Meddled(0)
    writes = iter(["b", "a"])

    def meddle() -> None:
        if (value := next(writes, None)) is not None:
            first.reset(value)
            second.reset(1)

    first.meddle = meddle
    assert read(of_several((first, second))) == ("a", 1)


def test_what_never_stands_still_is_given_after_so_many_tries() -> None:
    first, second = Meddled(0), Atom(0)
    first.meddle = lambda: second.swap(lambda value: value + 1)
    one, other = read(of_several((first, second)))
    assert one == 0
    assert other >= 100


def test_series_that_are_written_to_meanwhile_are_of_one_moment() -> None:
    trades, quotes = series(retention=100), series(retention=100)
    several = of_several((trades, quotes))
    done = threading.Event()

    def write() -> None:
        for number in range(20_000):
            trades.append(number, v=0.0)
            quotes.append(number, v=0.0)
        done.set()

    ahead: set[int] = set()

    def look() -> None:
        while not done.is_set():
            of_trades, of_quotes = read(several)
            if len(of_quotes):
                ahead.add(int(of_trades.time[-1] - of_quotes.time[-1]))

    together(write, look)
    assert ahead <= {0, 1}
    assert ahead


def test_locks_and_an_atom_are_of_one_moment() -> None:
    one, other, both = RwLock([0]), RwLock([0]), Atom(0)
    several = of_several((one, both, other))

    def write() -> None:
        for number in range(1, 300):
            # In the order other than that in which they are read.
            with other.write(PATIENCE) as theirs, one.write(PATIENCE) as ours:
                ours[0] = theirs[0] = number
                both.reset(number)

    def look() -> None:
        for _ in range(300):
            with several.read(PATIENCE) as (ours, value, theirs):
                assert ours == theirs == [value]

    together(write, look)


# Waiting


def test_there_is_one_deadline_for_all_and_nothing_is_held_after_it() -> None:
    one, other = RwLock(1), RwLock(2)
    several = of_several((one, Atom(0), other))
    said = r"the 3 inputs could not be read together within 0\.05 s, for the sake of number 3"
    with (
        other.write(),
        pytest.raises(LockTimeout, match=said),
        several.read(0.05),
    ):
        pytest.fail("it was given")
    assert one.stats.readers == other.stats.readers == 0
    with one.write(0.0), other.write(0.0):
        pass


def test_while_one_is_waited_for_none_is_held() -> None:
    one, other = RwLock(1), RwLock(2)
    several = of_several((one, other))
    writing = other.write()
    writing.__enter__()
    with beside(lambda: read(several)) as views:
        eventually(lambda: other.stats.waiting)
        with one.write(PATIENCE):  # it would wait for the reader, and that for us
            pass
        writing.__exit__(None, None, None)
        assert views.result(PATIENCE) == (1, 2)


def test_writers_that_never_rest_do_not_keep_it_from_all_of_them() -> None:
    locks = [RwLock([0]), RwLock([0])]
    several = of_several(locks)
    over = threading.Event()

    def write(lock: RwLock[list[int]]) -> None:
        while not over.is_set():
            with lock.write() as values:
                values[0] += 1
                over.wait(0.0005)

    def look() -> None:
        try:
            for _ in range(20):
                with several.read(PATIENCE) as (one, other):
                    before = one[0], other[0]
                    over.wait(0.0001)
                    assert (one[0], other[0]) == before
        finally:
            over.set()

    # Two at each: while one writes, the other waits, so that no lock is to be had at once.
    together(look, *(lambda lock=lock: write(lock) for lock in locks * 2))


def test_it_waits_in_an_event_loop_too() -> None:
    one, other = RwLock(1), RwLock(2)
    several = of_several((one, Atom(3), other))

    async def go() -> tuple[int, int, int]:
        async with other.write():
            waiting = asyncio.ensure_future(enter())
            await asyncio.sleep(0)  # it goes as far as it gets
            assert other.stats.waiting
            async with one.write(PATIENCE):
                pass
        return await waiting

    async def enter() -> tuple[int, int, int]:
        async with several.read(PATIENCE) as (first, second, third):
            return first, second, third

    assert asyncio.run(go()) == (1, 3, 2)
    assert one.stats.readers == other.stats.readers == 0


def test_one_that_fails_lets_go_of_the_others() -> None:
    class Broken:
        def read(self, timeout: float | None = None) -> Any:
            raise OSError("gone")

    lock = RwLock(1)
    with pytest.raises(OSError, match="gone"):
        read(of_several((lock, Broken())))
    assert lock.stats.readers == 0


def test_a_tick_without_data_has_an_error_for_each_task() -> None:
    lock = RwLock(1)
    with lock.write():
        (dataset,) = windows((series(1), lock), nothing, data_timeout=0.01)
    (error,) = dataset.errors.values()
    assert isinstance(error.__cause__, LockTimeout)


# Kinds


def test_views_can_be_kept_if_those_of_all_can() -> None:
    kept: Any = of_several((series(1), Atom(2)))
    assert isinstance(kept, Viewable)
    assert not isinstance(of_several((series(1), RwLock(2))), Viewable)
    view, value = of_several((series(1), Atom(2))).of([])
    assert (len(view), value) == (1, 2)


def test_what_is_the_same_is_the_same_object() -> None:
    lock, atom = RwLock([1]), Atom(2)
    several = of_several((lock, atom))
    before = read(several), several.version
    assert read(several) is before[0]
    with lock.write() as values:
        values.append(2)
    assert read(several) is before[0]
    assert several.version != before[1]
    atom.reset(3)
    assert read(several) is not before[0]


def test_of_data_that_does_not_tell_its_version_each_is_another() -> None:
    class Own:
        def read(self, timeout: float | None = None) -> Any:
            return Atom([1]).read()

    several = of_several((Own(), Atom(1)))
    assert several.version != several.version


def test_what_can_move_moves_once_to_memory_that_processes_map() -> None:
    trades, quotes = series(1), series(2)
    blocks: list[SharedBlock] = []

    def allocate(size: int) -> SharedBlock:
        blocks.append(SharedBlock(size))
        return blocks[-1]

    of_several((trades, Atom(1), quotes, trades)).relocate(allocate)
    assert len(blocks) == 2
    assert trades.view().time.tolist() == [1]


def test_its_repr_tells_of_all() -> None:
    assert repr(of_several([Atom(1), series(1)])).startswith("(<Atom of 1>, <TimeSeries of 1 rows")


# Results that are the data itself


def test_a_result_that_is_the_value_of_one_of_them_is_refused() -> None:
    def whole(data: Any, start: int, end: int) -> Any:
        return data

    def one(data: Any, start: int, end: int) -> Any:
        return data[1]

    def view(data: Any, start: int, end: int) -> Any:
        return data[0]

    def copy(data: Any, start: int, end: int) -> Any:
        return [*data[1]]

    data = series(1), RwLock([1]), Atom([2])
    for dataset in windows(data, whole, one, view, copy, n=3):
        assert set(dataset.errors) == {"whole", "one"}
        assert isinstance(dataset.errors["one"], TaskError)
        assert "returned the data itself, of type list" in str(dataset.errors["one"])
        assert dataset["copy"] == [1]
