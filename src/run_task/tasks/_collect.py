"""A sequence of the results of windows, and its table in Arrow, polars or pandas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from run_task.errors import ChannelClosed, ConfigError
from run_task.sync._alarm import AnyAlarm
from run_task.sync._channel import Receiver
from run_task.sync._waiting import Deadline, Wait, wait_task, wait_thread
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet
from run_task.tasks._table import TIMESTAMP, Tabular
from run_task.tasks._task import Runnable
from run_task.time._calendar import Interval
from run_task.time._shown import window_shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from run_task.observe._plot import Plot

K = TypeVar("K")
O = TypeVar("O")
O_co = TypeVar("O_co", covariant=True)

_SHOWN: Final = 10
"""How many of the first and of the last rows a notebook shows."""

_COLUMNS_SHOWN: Final = 20


class DataSets(Sequence[DataSet[O_co]], Tabular):
    """DataSets of one runner in a row, which become a table.

    The table has a row for each, and the columns ``timestamp``, the end of its window, and one for
    each task, in the order of the tasks. Where a task gave no result, there is a null. The end is
    a time in the zone of the interval, or else in UTC; of DataSets that were made by hand and have
    no interval, an int.

    :param datasets: the DataSets
    :raises ConfigError: if one of them is a KeyedDataSet
    """

    __slots__ = ("_datasets",)

    def __init__(self, datasets: Iterable[DataSet[O_co]] = ()) -> None:
        self._datasets = tuple(datasets)
        _check_alike(self._datasets, keyed=False)

    @overload
    def __getitem__(self, index: int) -> DataSet[O_co]: ...
    @overload
    def __getitem__(self, index: slice) -> DataSets[O_co]: ...
    def __getitem__(self, index: int | slice) -> DataSet[O_co] | DataSets[O_co]:
        if isinstance(index, slice):
            return DataSets(self._datasets[index])
        return self._datasets[index]

    def __len__(self) -> int:
        return len(self._datasets)

    def __iter__(self) -> Iterator[DataSet[O_co]]:
        return iter(self._datasets)

    @property
    def names(self) -> Sequence[str]:
        """The names of the tasks, in their order."""
        return _names(self._datasets)

    def columns(self) -> dict[str, list[Any]]:
        """The table's columns, as Python's values: None where there is none. The timestamps are
        ints, in the unit of the interval.

        Scalars and arrays of NumPy's become Python's numbers and lists, but for times, and ints
        become floats where both stand in one column, if floats can hold them.

        :raises ConfigError: if a task is called ``timestamp``, or gave an array that is masked or
            structured
        """
        names = self.names
        _check_name(TIMESTAMP, names, "the column of the windows' ends")
        made: dict[str, list[Any]] = {TIMESTAMP: [each.timestamp for each in self._datasets]}
        for name in names:
            made[name] = self._plain(name, (each.get(name) for each in self._datasets))
        return made

    def plot(self, *tasks: str | Runnable[Any, Any], ax: Axes | None = None) -> Axes:
        """Draw the results of tasks over time, by matplotlib: at the end of each window.

        ::

            axes = collect(receiver, 100).plot("mean", "high")
            axes.figure.savefig("prices.png")

        A line is broken where a task has failed or gave no number; how often it failed stands
        beside its name. The numbers of a mapping, a NamedTuple or a dataclass have a line each,
        ``task_field``. As many lines are drawn as can be told apart, ten, and what is not drawn
        is told.

        :param tasks: which tasks, or columns of these; none: all that give numbers
        :param ax: the axes of a figure to draw on; None: some of their own, which a notebook shows
        :return: the axes
        :raises ConfigError: if matplotlib is not installed, there is no such task, or it gave no
            numbers
        """
        return self._plot().draw(tasks, axes=ax)

    def _plot(self) -> Plot:
        from run_task.tasks._results_plot import plot_of

        def errors(name: str) -> int:
            return sum(name in dataset.errors for dataset in self._datasets)

        return plot_of(repr(self), self.columns(), self._interval(), errors)

    def _interval(self) -> Interval | None:
        return _common_interval(self._datasets)

    def _row_shown(self, row: int) -> str:
        return _window(self._datasets[row])

    def __repr__(self) -> str:
        return f"<{_told(self._datasets, 'DataSets')}: {', '.join(self.names)}>"

    def _repr_html_(self) -> str:
        names = self.names

        def line(dataset: DataSet[Any]) -> list[str]:
            return [str(dataset.timestamp), *_cells(names, dataset, dataset.errors)]

        if len(self) > 2 * _SHOWN:
            first, last = self[:_SHOWN], self[-_SHOWN:]
            rows = [*map(line, first), ["..."], *map(line, last)]
        else:
            rows = [line(dataset) for dataset in self]
        return _html(f"{len(self)} DataSets", (TIMESTAMP,), names, rows)


class KeyedDataSets(Sequence[KeyedDataSet[K, O_co]], Tabular, Generic[K, O_co]):
    """KeyedDataSets of one runner in a row, which become a table.

    The table has a row for each window and key, and the columns ``timestamp``, the end of the
    window, that of the keys, by its name, and one for each task, in the order of the tasks. Where a
    task gave no result for a key, there is a null. The keys of a window stand in sorted order. The
    end is a time in the zone of the interval, or else in UTC; of KeyedDataSets that were made by
    hand and have no interval, an int.

    :param datasets: the KeyedDataSets
    :raises ConfigError: if one of them is a DataSet, or by another column than the others
    """

    __slots__ = ("_datasets",)

    def __init__(self, datasets: Iterable[KeyedDataSet[K, O_co]] = ()) -> None:
        self._datasets = tuple(datasets)
        _check_alike(self._datasets, keyed=True)

    @overload
    def __getitem__(self, index: int) -> KeyedDataSet[K, O_co]: ...
    @overload
    def __getitem__(self, index: slice) -> KeyedDataSets[K, O_co]: ...
    def __getitem__(self, index: int | slice) -> KeyedDataSet[K, O_co] | KeyedDataSets[K, O_co]:
        if isinstance(index, slice):
            return KeyedDataSets(self._datasets[index])
        return self._datasets[index]

    def __len__(self) -> int:
        return len(self._datasets)

    def __iter__(self) -> Iterator[KeyedDataSet[K, O_co]]:
        return iter(self._datasets)

    @property
    def by(self) -> str | None:
        """The column of the keys; None: there are no KeyedDataSets."""
        return self._datasets[0].by if self._datasets else None

    @property
    def names(self) -> Sequence[str]:
        """The names of the tasks, in their order."""
        return _names(self._datasets)

    def columns(self) -> dict[str, list[Any]]:
        """The table's columns, as Python's values: None where there is none. The timestamps are
        ints, in the unit of the interval.

        Scalars and arrays of NumPy's become Python's numbers and lists, but for times, and ints
        become floats where both stand in one column, if floats can hold them.

        :raises ConfigError: if a task is called ``timestamp`` or as the column of the keys, or gave
            an array that is masked or structured
        """
        names, by = self.names, self.by
        _check_name(TIMESTAMP, names, "the column of the windows' ends")
        made: dict[str, list[Any]] = {TIMESTAMP: []}
        if by is None:
            return made
        _check_name(by, names, "the column of the keys")
        for dataset in self._datasets:
            made[TIMESTAMP] += [dataset.timestamp] * len(dataset.keys_of_rows)
        made[by] = [key for dataset in self._datasets for key in dataset.keys_of_rows]
        for name in names:
            made[name] = self._plain(name, chain.from_iterable(self._results(name)))
        return made

    def _results(self, name: str) -> Iterator[Iterable[Any]]:
        """What a task gave, for the keys of each window."""
        for dataset in self._datasets:
            keys, results = dataset.keys_of_rows, dataset.get(name)
            if results is None:
                yield [None] * len(keys)
            elif len(results) == len(keys):
                yield results.values()
            else:
                yield [results.get(key) for key in keys]

    def plot(
        self,
        *tasks: str | Runnable[Any, Any],
        keys: Iterable[K] | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw the results of tasks over time, by matplotlib: as :meth:`DataSets.plot`, with a line
        for each task and key.

        :param tasks: which tasks, or columns of these; none: all that give numbers
        :param keys: which keys; None: those that have the most results, as many as can be told
            apart
        :param ax: the axes of a figure to draw on; None: some of their own, which a notebook shows
        :return: the axes
        :raises ConfigError: if matplotlib is not installed, there is no such task or key, or it
            gave no numbers
        """
        return self._plot().draw(tasks, keys, ax)

    def _plot(self) -> Plot:
        from run_task.tasks._results_plot import plot_of

        def errors(name: str) -> int:
            return sum(error.task == name for each in self._datasets for error in each.error_list())

        return plot_of(repr(self), self.columns(), self._interval(), errors, self.by)

    def _interval(self) -> Interval | None:
        return _common_interval(self._datasets)

    def _row_shown(self, row: int) -> str:
        dataset, key = next(islice(self._rows(), row, None))
        return f"{key!r} in {_window(dataset)}"

    def _column_shown(self, name: str) -> str:
        return f"key {name!r}" if name == self.by else super()._column_shown(name)

    def _rows(self) -> Iterator[tuple[KeyedDataSet[K, O_co], K]]:
        return ((dataset, key) for dataset in self._datasets for key in dataset.keys_of_rows)

    def __repr__(self) -> str:
        by = "" if self.by is None else f" by {self.by}"
        return f"<{_told(self._datasets, f'KeyedDataSets{by}')}: {', '.join(self.names)}>"

    def _repr_html_(self) -> str:
        names = self.names

        def line(row: tuple[KeyedDataSet[K, O_co], K]) -> list[str]:
            dataset, key = row
            results = {name: dataset[name][key] for name in dataset if key in dataset[name]}
            failed = {name for name in names if name not in results}
            return [str(dataset.timestamp), str(key), *_cells(names, results, failed)]

        count = sum(len(dataset.keys_of_rows) for dataset in self._datasets)
        if count > 2 * _SHOWN:
            backwards = (
                (dataset, key)
                for dataset in reversed(self._datasets)
                for key in reversed(dataset.keys_of_rows)
            )
            last = list(islice(backwards, _SHOWN))[::-1]
            rows = [*map(line, islice(self._rows(), _SHOWN)), ["..."], *map(line, last)]
        else:
            rows = list(map(line, self._rows()))
        title = f"{len(self)} KeyedDataSets, {count:,} rows"
        return _html(title, (TIMESTAMP, self.by or "key"), names, rows)


def _check_alike(datasets: Sequence[AnyDataSet], *, keyed: bool) -> None:
    """See whether results make one table.

    :raises ConfigError: if they do not; it names the first that differs
    """
    by: str | None = None
    for place, dataset in enumerate(datasets):
        if isinstance(dataset, KeyedDataSet) is not keyed:
            kind = "KeyedDataSets" if keyed else "DataSets"
            raise ConfigError(
                f"{kind} of one runner make a table, and number {place} is {dataset}: put those "
                f"with keys into KeyedDataSets, and those without into DataSets"
            )
        if isinstance(dataset, KeyedDataSet):
            by = by or dataset.by
            if dataset.by != by:
                raise ConfigError(
                    f"KeyedDataSets of one runner make a table, and number {place}, {dataset}, is "
                    f"by {dataset.by!r}, where those before it are by {by!r}: collect them apart"
                )


def _common_interval(datasets: Sequence[AnyDataSet]) -> Interval | None:
    """An interval that tells what the times of all of them mean; None: nobody knows, or they
    differ in their unit."""
    if not datasets or (first := datasets[0].interval) is None:
        return None
    for dataset in datasets:
        interval = dataset.interval
        if interval is not first and (interval is None or interval.unit is not first.unit):
            return None
    return first


def _names(datasets: Sequence[AnyDataSet]) -> Sequence[str]:
    """The names of the tasks, in their order."""
    found: dict[str, None] = {}
    for dataset in datasets:
        failed = (error.task for error in dataset.error_list())
        found.update(dict.fromkeys((*dataset, *failed)))
    # A task that failed stands in the errors: its place shows where it did not.
    fullest = max(datasets, key=len, default=())
    return [*fullest, *(name for name in found if name not in fullest)]


def _check_name(column: str, names: Sequence[str], what: str) -> None:
    if column in names:
        raise ConfigError(f"a task is called {column!r}, which is {what}: rename it")


def _told(datasets: Sequence[AnyDataSet], kind: str) -> str:
    """How many there are, and of when."""
    if not datasets:
        return f"0 {kind}"
    return f"{len(datasets)} {kind}, {datasets[0].window.start} to {datasets[-1].window.end}"


def _window(dataset: AnyDataSet) -> str:
    return window_shown(*dataset.window, dataset.interval)


def _cells(names: Sequence[str], results: Any, failed: Any) -> list[str]:
    """The results of a row, as cells of a notebook's table."""
    from run_task.observe._html import ERROR, marked, value_text

    return [
        marked("error", ERROR) if name in failed else value_text(results.get(name))
        for name in names[:_COLUMNS_SHOWN]
    ]


def _html(
    title: str, first: Sequence[str], names: Sequence[str], rows: Iterable[Sequence[str]]
) -> str:
    from run_task.observe._html import table

    more = len(names) - _COLUMNS_SHOWN
    header = [*first, *names[:_COLUMNS_SHOWN], *([f"and {more} more"] if more > 0 else ())]
    return table(title, header, rows)


@overload
def collect(
    receiver: Receiver[DataSet[O]], n: int, *, timeout: float | None = None
) -> DataSets[O]: ...
@overload
def collect(
    receiver: Receiver[KeyedDataSet[K, O]], n: int, *, timeout: float | None = None
) -> KeyedDataSets[K, O]: ...
def collect(receiver: Receiver[Any], n: int, *, timeout: float | None = None) -> Any:
    """Receive DataSets, and put them in a row: :class:`DataSets`, or :class:`KeyedDataSets`.

    ::

        with Runner(context):
            table = collect(receiver, 100).to_polars()

    In an event loop, such as a notebook's, what else runs in the loop stands still meanwhile; a
    runner does not. There is :func:`acollect` for when that matters.

    :param receiver: where from
    :param n: how many
    :param timeout: how many seconds it may take; None: forever
    :return: so many, or fewer if the time is over or the channel is at its end
    :raises ConfigError: if n is no positive int, or some have keys and some have none
    """
    return wait_thread(_until_collected, receiver, n, timeout)


@overload
async def acollect(
    receiver: Receiver[DataSet[O]], n: int, *, timeout: float | None = None
) -> DataSets[O]: ...
@overload
async def acollect(
    receiver: Receiver[KeyedDataSet[K, O]], n: int, *, timeout: float | None = None
) -> KeyedDataSets[K, O]: ...
async def acollect(receiver: Receiver[Any], n: int, *, timeout: float | None = None) -> Any:
    """As :func:`collect`, without holding up the event loop.

    :param receiver: where from
    :param n: how many
    :param timeout: how many seconds it may take; None: forever
    :return: so many, or fewer if the time is over or the channel is at its end
    :raises ConfigError: if n is no positive int, or some have keys and some have none
    """
    return await wait_task(_until_collected, receiver, n, timeout)


def _until_collected(
    alarm: AnyAlarm, receiver: Receiver[AnyDataSet], n: int, timeout: float | None
) -> Wait[DataSets[Any] | KeyedDataSets[Any, Any]]:
    """The wait for so many."""
    if type(n) is not int or n < 1:
        raise ConfigError(f"collect(n={n!r}): it is a positive int")
    deadline = Deadline(timeout)
    found: list[Any] = []
    try:
        while len(found) < n:
            found.append((yield from receiver.until_received(alarm, deadline.remaining())))
    except (ChannelClosed, TimeoutError):
        pass  # what there is, is worth having
    return KeyedDataSets(found) if found and isinstance(found[0], KeyedDataSet) else DataSets(found)
