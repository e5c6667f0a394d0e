"""What an aggregate computes: the base of all of them, and of those of a user's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

import numpy as np
from numpy.typing import NDArray

from run_task.aggregates._columns import check_numbers
from run_task.aggregates._rows import SegmentedRows
from run_task.aggregates._statistics import Partial, Statistic
from run_task.data.series._column_types import Array
from run_task.errors import ConfigError
from run_task.tasks._declared import ColumnTypes

O_co = TypeVar("O_co", covariant=True)


class Kernel(ABC, Generic[O_co]):
    """What an aggregate computes of the rows of each of many windows.

    One of one's own is a frozen dataclass whose fields are columns and options; one that is of a
    single column is a :class:`ColumnKernel`. It has to be equal to another only if that computes
    the same, and the result of a window has to be the same whatever other windows there are: see
    :class:`SegmentedRows`.
    """

    empty: ClassVar[Any] = None
    """The result of a window without rows."""

    function: ClassVar[str] = ""
    """What it is called in messages and after the name of its column; empty: as its class."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What its results are called unless they are given another name."""

    @property
    @abstractmethod
    def columns(self) -> Sequence[str]:
        """The columns that it reads."""

    def planned(self, columns: ColumnTypes, task: str) -> Kernel[O_co]:
        """What computes it over such columns: by default itself, once its columns are seen to be
        there and to hold numbers or bools.

        :param columns: what each column of the series holds
        :param task: what it is called in messages
        :raises ConfigError: if it cannot be computed; the message names the column and the cure
        """
        for column in self.columns:
            check_numbers(columns, column, task)
        return self

    def result_type(self, columns: ColumnTypes) -> Any:
        """What a result is, as an annotation would say it: by default what stands in the brackets
        of ``Kernel[...]``, or None.

        :param columns: what each column of the series holds
        """
        found = _parameter(type(self))
        return found if self.empty is not None else found | None

    @abstractmethod
    def results(self, rows: SegmentedRows) -> Sequence[O_co]:
        """The result of each segment, none of which is empty.

        Floating-point errors are not warned of while it is called. If it raises, each segment is
        tried alone, so that only that at fault has no result.

        :param rows: the rows of the segments
        :return: plain Python values, as ``tolist()`` gives them; a ``Failed`` where there is none
        """

    def __str__(self) -> str:
        """As it is called, such as ``quantile('price', 0.99)``."""
        return f"{self.function or type(self).__name__}({', '.join(self.arguments())})"

    def arguments(self) -> list[str]:
        """What it was made with, as Python would write it."""
        its: Any = fields(self)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  each is a dataclass
        return [repr(getattr(self, each.name)) for each in its if each.repr]


def _parameter(kind: Any) -> Any:
    """What stands in the brackets of ``Kernel[...]`` of a class, or of one that it is made of."""
    for base in getattr(kind, "__orig_bases__", ()):
        origin, arguments = get_origin(base), get_args(base)
        if origin is Kernel:
            return arguments[0]
        if isinstance(origin, type) and issubclass(origin, Kernel):
            found = _parameter(origin)
            return arguments[0] if isinstance(found, TypeVar) else found
    return next((_parameter(base) for base in kind.__bases__ if issubclass(base, Kernel)), Any)


def type_of(column: np.dtype[Any]) -> Any:
    """What a value of a column is, as an annotation would say it. That a window without rows has
    none is said of numbers, since a column of floats tells by NaN that one is missing.

    :param column: what the column holds
    """
    kinds = {"f": float | None, "i": int | None, "u": int | None, "b": bool, "U": str, "T": str}
    return kinds.get(column.kind, Any)


@dataclass(frozen=True)
class ColumnKernel(Kernel[O_co]):
    """What an aggregate computes of one column of numbers or bools.

    ::

        @dataclass(frozen=True)
        class Spread(ColumnKernel[float]):
            function = "spread"

            def results(self, rows: SegmentedRows) -> Sequence[float]:
                return (rows.greatest(self.column) - rows.least(self.column)).tolist()

        price_spread = Aggregate(Spread("price"))  # its name is "price_spread"

    :param column: the column
    """

    column: str

    @property
    def name(self) -> str:
        return f"{self.column}_{self.function or type(self).__name__}"

    @property
    def columns(self) -> Sequence[str]:
        return (self.column,)


class MergedKernel(Kernel[O_co]):
    """An aggregate that can be computed of statistics of the parts of a window."""

    @cached_property
    def statistics(self) -> tuple[Statistic, ...]:
        """The statistics that it is computed of."""
        return self.made_of()

    @abstractmethod
    def made_of(self) -> tuple[Statistic, ...]:
        """The statistics that it is computed of."""

    @abstractmethod
    def value(self, counts: Any, *partials: Any) -> Any:
        """What the results of windows are made of, none of which is empty.

        It takes arrays, or of one window the values themselves, with which NumPy takes a tenth of
        the time; so it consists of what NumPy does value by value, to the same bits.

        :param counts: how many rows each has
        :param partials: its statistics in their final form, in the order of :attr:`statistics`
        """

    def finish(self, counts: NDArray[np.intp], *partials: Partial) -> Sequence[O_co]:
        """The results of many windows."""
        return listed(self.value(counts, *partials))

    def finish_one(self, count: np.intp, *partials: Partial) -> O_co:
        """The result of one window.

        :param partials: as arrays of one value have them
        """
        value: Any = self.value(count, *partials)
        found: Any = float(value) if type(value) is np.float64 else plain(value)
        its: O_co = found
        return its

    def results(self, rows: SegmentedRows) -> Sequence[O_co]:
        return self.finish(rows.counts, *(each.final(each.of(rows)) for each in self.statistics))


def checked_column(column: Any, told: str, what: str = "column") -> None:
    """That something can be the name of a column.

    :raises ConfigError: if not
    """
    if not isinstance(column, str) or not column:
        raise ConfigError(f"{told}({what}={column!r}): it is the name of a column")


def with_none(results: list[Any], missing: NDArray[np.bool_]) -> list[Any]:
    """Results with None in the place of some.

    :param results: of which some mean nothing
    :param missing: which
    """
    for at in np.flatnonzero(missing).tolist():
        results[at] = None
    return results


def plain(value: Any) -> Any:
    """A value of an array as Python's own, as :func:`listed` has them."""
    if type(value) is np.float64:
        return float(value)  # in a twentieth of the time that item() takes
    dtype = getattr(value, "dtype", None)
    return value if dtype is None or dtype.kind == "M" else value.item()


def listed(values: Array) -> list[Any]:
    """Values as Python's own; times of a column stay NumPy's, which have a unit."""
    return list(values) if values.dtype.kind == "M" else values.tolist()
