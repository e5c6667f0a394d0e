"""A window's results as rows of columns, ready to be stored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, Final, NamedTuple

from run_task.sinks._record import WindowKey


class WideRecord(NamedTuple):
    """A window's results as rows, ready to be stored.

    :param key: which window it is
    :param unit: of its times
    :param height: how many rows there are
    :param keys: the key of each row, None for what is told of all keys; None: there are no keys
    :param numbers: which row of a table each is, None where that has none; None: there is no table
    :param columns: by the name of a column, what each row has; those that it has not are NULL
    :param errors: the cell of the column ``error`` for each row; None: there are none
    :param elsewhere: as of :class:`~run_task.sinks.Result`
    """

    key: WindowKey
    unit: str
    height: int
    keys: list[Any] | None
    numbers: list[int | None] | None
    columns: Mapping[str, Sequence[Any]]
    errors: list[str | None] | None
    elsewhere: Collection[Any] | None = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is no row."""
        return not self.height

    @property
    def starts(self) -> Sequence[int]:
        """Where the window starts."""
        return (self.key.start,)

    @property
    def ends(self) -> Sequence[int]:
        """Where it ends."""
        return (self.key.end,)

    def with_row_of_all_keys(self, error: str | None) -> WideRecord:
        """It with one more row, which tells what is wrong for all keys."""
        return self._replace(
            height=self.height + 1,
            keys=[*(self.keys or ()), None],
            numbers=None if self.numbers is None else [*self.numbers, None],
            columns={name: [*column, None] for name, column in self.columns.items()},
            errors=[*(self.errors or repeat(None, self.height)), error],
        )

    def with_table(self, table: Mapping[str, Sequence[Any]], counts: Sequence[int]) -> WideRecord:
        """It with the rows of a table for each key: what is no column of the table stands in each
        of them. A table without rows has one, without a number.

        :param table: its columns, one key below the other
        :param counts: how many rows there are of each key
        """
        times = [max(1, count) for count in counts]

        def several(values: Iterable[Any]) -> list[Any]:
            return list(chain.from_iterable(map(repeat, values, times)))

        def padded(values: Sequence[Any]) -> list[Any]:
            if 0 not in counts:
                return list(values)
            rest = iter(values)
            return [
                next(rest) if row < count else None
                for count in counts
                for row in range(max(1, count))
            ]

        numbers = [row if count else None for count in counts for row in range(max(1, count))]
        return self._replace(
            height=len(numbers),
            keys=None if self.keys is None else several(self.keys),
            numbers=numbers,
            columns={
                **{name: several(values) for name, values in self.columns.items()},
                **{name: padded(values) for name, values in table.items()},
            },
            errors=None if self.errors is None else several(self.errors),
        )


class WideBatch(NamedTuple):
    """Windows without keys as rows, one each, ready to be stored.

    :param key: the last window
    :param unit: of the times
    :param starts: where each window starts
    :param ends: where each ends, in ascending order
    :param columns: by the name of a column, what each row has; those that it has not are NULL
    """

    key: WindowKey
    unit: str
    starts: Sequence[int]
    ends: Sequence[int]
    columns: Mapping[str, Sequence[Any]]
    keys: None = None
    numbers: None = None
    errors: None = None
    elsewhere: tuple[()] = ()

    @property
    def height(self) -> int:
        """How many rows there are."""
        return len(self.ends)

    @property
    def is_empty(self) -> bool:
        """Each has a row."""
        return False

    def records(self) -> Iterator[WideRecord]:
        """Each window by itself."""
        for place, (start, end) in enumerate(zip(self.starts, self.ends)):
            columns = {name: values[place : place + 1] for name, values in self.columns.items()}
            key = self.key._replace(start=start, end=end)
            yield WideRecord(key, self.unit, 1, None, None, columns, None)


NO_WINDOW: Final = WindowKey("", "", 0, 0, 0)
"""In the place of the window of a record that has not got it yet."""
