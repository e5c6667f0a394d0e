"""A task that is an expression of polars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from run_task._extras import need
from run_task.data.series._segment import segment_of_window
from run_task.data.series._view import TimeSeriesView
from run_task.errors import ConfigError
from run_task.expressions._faults import in_short
from run_task.expressions._plan import ExpressionPlan, plan, result_type
from run_task.observe._format import brief
from run_task.tasks._declared import ColumnTypes, Failed, Planner
from run_task.tasks._task import Runnable

if TYPE_CHECKING:
    import polars as pl


class Expression(Runnable[TimeSeriesView, Any]):
    """A task whose result is that of an expression of polars over the rows of its window:
    :func:`expr` makes one.

    :ivar expression: what is computed
    """

    def __init__(self, expression: pl.Expr, name: str) -> None:
        self._name: Final = name
        self.expression: Final = expression
        self._planned: tuple[object, ExpressionPlan] | None = None  # for what it was run over

    @property
    def name(self) -> str:
        return self._name

    @property
    def planner(self) -> Planner:
        """What computes it together with all expressions of its stage."""
        return plan

    def result_type(self, columns: ColumnTypes, /) -> Any:
        """What it returns, as an annotation would say it: a column of :meth:`Stage.series` is of
        that type.

        :param columns: what each column of the series holds
        """
        returned = result_type(self.expression, columns)
        return returned | None if returned in (float, int) else returned

    def run(self, view: TimeSeriesView, start: int, end: int, /) -> Any:
        """The result of one window, as a stage has it.

        :param view: what a task of the window is given
        :param start: not looked at: the view has its window
        :param end: nor this
        :return: a plain Python value; None: the window has no rows
        :raises ConfigError: if it cannot be computed over these columns
        :raises RunTaskError: if it cannot be computed of these rows
        """
        segment = segment_of_window(view)
        columns = view.columns
        planned = self._planned
        if planned is None or planned[0] != columns:
            planned = self._planned = columns, plan([self], columns)
        ((result,),) = planned[1].compute(segment)
        if type(result) is Failed:
            raise result.error
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return Expression, (self.expression, self.name)

    def __repr__(self) -> str:
        return f"<Expression {self.name!r}: {self.expression}>"


def expr(expression: pl.Expr, *, name: str | None = None) -> Expression:
    """Make a task of an expression of polars.

    ::

        import polars as pl

        pipeline.stage(
            "bars",
            tasks=[
                expr(pl.col("price").mean()),
                expr((pl.col("price") * pl.col("size")).sum() / pl.col("size").sum(), name="vwap"),
            ],
            data=trades,
            interval="1m",
        )

    It is computed over the rows of the window, with ``time`` in UTC beside the columns of the
    series; those of each key with ``by=``. All expressions of a stage are
    computed together: for all keys, and in a replay for many windows. Its result is a plain Python
    value, and None where there are no rows; of a ``pl.struct(...)``, a dict.

    :param expression: an expression that gives one value for the rows of a window
    :param name: the task's name; None: what polars calls the expression's result
    :return: the task
    :raises ConfigError: if it is no expression, or has no name; that it cannot be computed over the
        columns of a series is found when its stage is declared
    """
    polars = need("polars", "polars")
    if not isinstance(expression, polars.Expr):
        raise ConfigError(
            f"expr({brief(expression)}): it is an expression of polars, such as "
            f"pl.col('price').mean()"
        )
    if name is None:
        try:
            name = expression.meta.output_name()
        except polars.exceptions.PolarsError as error:
            raise ConfigError(
                f"expr({expression}): what its result is called cannot be told "
                f"({in_short(error)}): give it a name, expr(..., name='price')"
            ) from None
    if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
        raise ConfigError(f"expr(name={name!r}): a name is a text that is not empty")
    return Expression(expression, name)
