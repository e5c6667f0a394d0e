"""An aggregate: a task that many windows and keys are computed with at once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from run_task.aggregates._condition import Condition
from run_task.aggregates._kernel import Kernel, O_co
from run_task.aggregates._plan import AggregatePlan
from run_task.data.series import TimeSeriesView
from run_task.data.series._segment import segment_of_window
from run_task.errors import ConfigError
from run_task.tasks._declared import ColumnTypes, Declared, Failed, Plan, Planner
from run_task.tasks._task import Runnable


@dataclass(frozen=True, init=False, repr=False)
class Aggregate(Runnable[TimeSeriesView, O_co]):
    """What is computed of the rows of a window, by columns: a task whose kind the library knows.

    The functions of this package make one, such as :func:`mean`. All aggregates of a stage are
    computed together, for all keys and, in a replay, for many windows at once, in the thread of the
    runner, whatever its executor is.

    Two are equal if they compute the same and have one name.

    :param kernel: what it computes
    :param where: a condition that says of which rows of the window, such as ``"size > 0"``; None:
        of all
    :param name: the key of its result in a DataSet; by default that of the kernel, such as
        ``"price_mean"``
    :raises ConfigError: if one of them cannot be
    """

    kernel: Kernel[O_co]
    condition: Condition | None
    _name: str

    def __init__(
        self, kernel: Kernel[O_co], *, where: str | None = None, name: str | None = None
    ) -> None:
        if not isinstance(kernel, Kernel):  # pyright: ignore[reportUnnecessaryIsInstance]  the caller may have no type checker
            raise ConfigError(
                f"Aggregate({kernel!r}): it is made of a Kernel; mean('price') and its likes make "
                f"one by themselves"
            )
        if name is not None and (not isinstance(name, str) or not name):  # pyright: ignore[reportUnnecessaryIsInstance]  the caller may have no type checker
            raise ConfigError(f"{kernel}, name={name!r}: it is a text that is not empty")
        object.__setattr__(self, "kernel", kernel)
        object.__setattr__(self, "condition", None if where is None else Condition(where))
        object.__setattr__(self, "_name", kernel.name if name is None else name)

    @property
    def name(self) -> str:
        return self._name

    def named(self, name: str) -> Aggregate[O_co]:
        """The same under another name.

        :param name: the key of its result in a DataSet
        :raises ConfigError: if it is no text, or empty
        """
        where = None if self.condition is None else self.condition.text
        return Aggregate(self.kernel, where=where, name=name)

    @property
    def planner(self) -> Planner:
        """What plans it, together with all aggregates of its stage."""
        return planned

    def result_type(self, columns: ColumnTypes, /) -> Any:
        """What it returns, as an annotation would say it: a column of :meth:`Stage.series` is of
        that type.

        :param columns: what each column of the series holds
        """
        return self.kernel.result_type(columns)

    def run(self, data: TimeSeriesView, start: int, end: int, /) -> O_co:
        """The result for one window, the same as among others.

        :param data: the view of a window, as a runner gives it and
            :meth:`TimeSeriesView.for_window` does
        :param start: not looked at: the view has its window
        :param end: nor this
        :raises ConfigError: if it cannot be computed of these columns, or the view has no window
        """
        if not isinstance(data, TimeSeriesView):  # pyright: ignore[reportUnnecessaryIsInstance]  the caller may have no type checker
            raise ConfigError(
                f"{self} is computed of a TimeSeries, and not of {type(data).__name__}: give it "
                f"the rows in one"
            )
        segment = segment_of_window(data)
        plan = _plan_of(self, tuple(data.columns.items()))
        ((result,),) = plan.compute(segment)
        if isinstance(result, Failed):
            raise result.error
        found: O_co = result
        return found

    def __str__(self) -> str:
        if self.condition is None:
            return str(self.kernel)
        arguments = [*self.kernel.arguments(), f"where={self.condition.text!r}"]
        return f"{self.kernel.function or type(self.kernel).__name__}({', '.join(arguments)})"

    def __repr__(self) -> str:
        named = "" if self.name == self.kernel.name else f".named({self.name!r})"
        return f"{self}{named}"


def planned(tasks: Sequence[Declared[Any, Any]], columns: ColumnTypes) -> Plan:
    """How aggregates are computed together.

    :param tasks: the aggregates
    :param columns: what each column of the series holds
    :raises ConfigError: if one of them cannot be computed of these
    """
    aggregates: Any = tasks
    return AggregatePlan(aggregates, columns)


@functools.lru_cache(maxsize=256)
def _plan_of(
    aggregate: Aggregate[Any], columns: tuple[tuple[str, np.dtype[Any]], ...]
) -> AggregatePlan:
    # Without panes a plan keeps nothing from one window to the next: threads may share it.
    return AggregatePlan([aggregate], dict(columns))
