"""Tasks that are written as expressions of polars, or in SQL.

:func:`expr` makes one of an expression, and :func:`sql` of a query, which DuckDB runs.
"""

from run_task._public import present as _present
from run_task.expressions._expression import Expression, expr
from run_task.expressions._query import Query, sql

__all__ = ["Expression", "Query", "expr", "sql"]

_present(globals())
