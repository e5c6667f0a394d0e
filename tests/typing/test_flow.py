"""How types flow, from tasks to the results that are received.

The type checkers run over this file in ``make check``. A line that must be an error to them
carries an ignore for each; both report an ignore that is not needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Never, TypeAlias, assert_type

from run_task import (
    Atom,
    Context,
    ContextBuilder,
    DataSet,
    Receiver,
    Runnable,
    Runner,
    RwLock,
    Sender,
    Shared,
    Task,
    TaskInterval,
    TimeSeries,
    TimeSeriesView,
    VirtualClock,
    Window,
    channel,
    task,
)
from run_task.testing import run_windows


class Prices(list[float]):
    pass


@task
def mean(prices: Prices, start: int, end: int) -> float:
    return sum(prices) / len(prices) if prices else 0.0


@task(name="how many")
def count(prices: Prices, start: int, end: int) -> int:
    return len(prices)


@task
def shout(text: str, start: int, end: int) -> str:
    return text.upper()


@dataclass(frozen=True)
class Largest:
    name: str = "largest"

    def run(self, prices: Prices, since: int, until: int) -> str:
        return str(max(prices, default=None))


def test_the_decorator_keeps_the_types_of_the_function() -> None:
    assert_type(mean, Task[Prices, float])
    assert_type(count, Task[Prices, int])
    assert_type(mean(Prices(), 0, 1), float)
    assert_type(count.name, str)


def test_any_object_of_the_shape_is_a_task() -> None:
    largest: Runnable[Prices, str] = Largest()
    wider: Runnable[Prices, float] = count  # an int is a float to the checkers
    assert largest.name == "largest"
    assert wider.name == "how many"


def test_with_task_widens_the_output() -> None:
    one = ContextBuilder(Prices).with_task(mean)
    assert_type(one, ContextBuilder[Prices, float, RwLock[Prices]])
    two = one.with_task(count)
    assert_type(two, ContextBuilder[Prices, float | int, RwLock[Prices]])
    three = two.with_task(Largest())
    context, receiver, data = three.with_interval(TaskInterval.seconds(1)).build()
    assert_type(context, Context[Prices, float | int | str])
    assert_type(receiver, Receiver[DataSet[float | int | str]])
    assert_type(data, RwLock[Prices])


def test_with_tasks_takes_several_of_one_type() -> None:
    context, _, _ = ContextBuilder(Prices).with_tasks([mean, Task(mean, "again")]).build()
    assert_type(context, Context[Prices, float])


def test_a_look_up_by_task_has_the_type_of_that_task() -> None:
    context, receiver, data = ContextBuilder(Prices).with_task(mean).with_task(count).build()
    clock = VirtualClock()
    with Runner(context, clock=clock):
        with data.write() as prices:
            assert_type(prices, Prices)
            prices.append(2.0)
        clock.advance(TaskInterval.seconds(5))
        dataset = receiver.recv(timeout=10)
    assert_type(dataset, DataSet[float | int])
    assert_type(dataset[mean], float)
    assert_type(dataset[count], int)
    assert_type(dataset["mean"], float | int)
    assert (dataset[mean], dataset[count]) == (2.0, 1)


def test_data_of_ones_own_has_its_own_type() -> None:
    def share(data: Shared[Prices]) -> None:
        _, _, same = ContextBuilder(Prices).with_data(data).with_task(mean).build()
        assert_type(same, Shared[Prices])
        assert same is data

    lock = RwLock(Prices())
    share(lock)
    _, _, data = ContextBuilder(Prices).with_data(lock).with_task(mean).build()
    assert_type(data, RwLock[Prices])
    with lock.read() as read, lock.read(1) as again:
        assert_type(read, Prices)
        assert read is again


def test_an_atom_and_a_series_keep_their_types() -> None:
    _, _, atom = ContextBuilder(Prices).with_data(Atom(Prices())).with_task(mean).build()
    assert_type(atom, Atom[Prices])
    with atom.read() as prices:
        assert_type(prices, Prices)

    @task
    def rows(view: TimeSeriesView, start: int, end: int) -> int:
        return len(view.between(start, end))

    context, receiver, series = (
        ContextBuilder(TimeSeries({"price": float}))
        .with_task(rows)
        .with_interval("1s")
        .with_channel(10)
        .build()
    )
    assert_type(context, Context[TimeSeriesView, int])
    assert_type(receiver, Receiver[DataSet[int]])
    assert_type(series, TimeSeries)
    shared: Shared[TimeSeriesView] = series
    with shared.read(timeout=1) as view:
        assert_type(view, TimeSeriesView)


def test_a_builder_takes_data_or_what_makes_it() -> None:
    lock, atom, series = RwLock(Prices()), Atom(Prices()), TimeSeries({"price": float})
    assert_type(ContextBuilder(lock), ContextBuilder[Prices, Never, RwLock[Prices]])
    assert_type(ContextBuilder(data=atom), ContextBuilder[Prices, Never, Atom[Prices]])
    assert_type(ContextBuilder(series), ContextBuilder[TimeSeriesView, Never, TimeSeries])

    def share(data: Shared[Prices]) -> None:
        assert_type(ContextBuilder(data), ContextBuilder[Prices, Never, Shared[Prices]])

    share(lock)

    def make_lock() -> RwLock[Prices]:
        return RwLock(Prices())

    def make_atom() -> Atom[Prices]:
        return Atom(Prices())

    def make_series() -> TimeSeries:
        return TimeSeries({"price": float})

    assert_type(ContextBuilder(Prices), ContextBuilder[Prices, Never, RwLock[Prices]])
    assert_type(ContextBuilder(make_lock), ContextBuilder[Prices, Never, RwLock[Prices]])
    assert_type(ContextBuilder(make_atom), ContextBuilder[Prices, Never, Atom[Prices]])
    assert_type(ContextBuilder(make_series), ContextBuilder[TimeSeriesView, Never, TimeSeries])
    ContextBuilder(lock).with_task(shout)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


Views: TypeAlias = tuple[TimeSeriesView, Prices]
Data: TypeAlias = tuple[Shared[TimeSeriesView], Shared[Prices]]


@task
def both(data: tuple[TimeSeriesView, Prices], start: int, end: int) -> float:
    return len(data[0]) + sum(data[1])


def test_of_several_inputs_tasks_get_a_tuple_of_views() -> None:
    quotes, prices, name = TimeSeries({"bid": float}), RwLock(Prices([1.5])), Atom("a")
    builder = ContextBuilder((quotes, prices))
    assert_type(builder, ContextBuilder[Views, Never, Data])
    context, receiver, data = builder.with_task(both).with_interval("1s").build()
    assert_type(context, Context[Views, float])
    assert_type(receiver, Receiver[DataSet[float]])
    assert_type(data, Data)
    (dataset,) = run_windows(context, 1)
    assert_type(dataset, DataSet[float])
    assert dataset[both] == 1.5

    three = ContextBuilder(data=(quotes, prices, name))
    assert_type(
        three,
        ContextBuilder[
            tuple[TimeSeriesView, Prices, str],
            Never,
            tuple[Shared[TimeSeriesView], Shared[Prices], Shared[str]],
        ],
    )
    again = ContextBuilder((quotes, prices)).with_data((TimeSeries({"ask": float}), prices))
    assert_type(again, ContextBuilder[Views, Never, Data])
    ends: tuple[Sender[DataSet[float]], Receiver[DataSet[float]]] = channel(1)
    own = Context(tasks=[both], data=(quotes, prices), interval="1s", sender=ends[0])
    assert_type(own, Context[Views, float])


def test_six_inputs_are_more_than_type_checkers_are_told_of() -> None:
    name = Atom("a")

    @task
    def length(names: tuple[str, ...], start: int, end: int) -> int:
        return len(names)

    context, _, _ = ContextBuilder((name, name, name, name, name, name)).with_task(length).build()
    assert run_windows(context, 1)[0][length] == 6


def check_that_a_task_for_other_inputs_is_an_error() -> None:
    """Never called: the checkers read it."""
    quotes, prices, name = TimeSeries({"bid": float}), RwLock(Prices()), Atom("a")
    ContextBuilder((quotes, prices)).with_task(shout)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ContextBuilder((prices, quotes)).with_task(both)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ContextBuilder((quotes, prices, name)).with_task(both)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ContextBuilder(quotes).with_task(both)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ContextBuilder((quotes, prices)).with_data((quotes, name))  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    ContextBuilder((quotes, 1.5))  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    ends: tuple[Sender[DataSet[float]], Receiver[DataSet[float]]] = channel(1)
    Context(tasks=[both], data=(prices, quotes), interval="1s", sender=ends[0])  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_a_task_for_other_data_is_an_error() -> None:
    builder = ContextBuilder(Prices)
    builder.with_task(shout)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    builder.with_tasks([shout])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    text = RwLock("text")
    builder.with_data(text)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    atom = Atom("text")
    builder.with_data(atom)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    series = TimeSeries({"price": float})
    builder.with_data(series)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_a_channel_of_ones_own_must_take_what_the_tasks_give() -> None:
    ends: tuple[Sender[DataSet[float | str]], Receiver[DataSet[float | str]]] = channel(1)
    sender, receiver = ends
    texts: tuple[Sender[DataSet[str]], Receiver[DataSet[str]]] = channel(1)
    data = RwLock(Prices())
    second = TaskInterval.seconds(1)
    context = Context(tasks=[mean], data=data, interval=second, sender=sender)
    assert context.interval == second
    Context[Prices, float](
        tasks=[mean],
        data=data,
        interval=second,
        sender=texts[0],  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    )
    assert len(receiver) == 0


def test_what_reads_results_takes_narrower_ones() -> None:
    def names(dataset: DataSet[object]) -> list[str]:
        return list(dataset)

    narrow: DataSet[int] = DataSet(Window(0, 1), {"a": 1})
    assert names(narrow) == ["a"]
