"""What the forms of a wide table have in common, whatever stores it."""

from __future__ import annotations

from typing import Any

from run_task.sinks._protocol import Result, ResultBatch, Row, StageOutput
from run_task.sinks.encoding._json import Encoder, Fallback
from run_task.sinks.encoding._tag import Types
from run_task.sinks.wide._record import WideBatch, WideRecord
from run_task.sinks.wide._said import said
from run_task.sinks.wide._schema import NameRules, WideSchema
from run_task.sinks.wide._table import WideTable


class WideForm:
    """A row a window and key.

    :param where: the sink, for messages
    :param encode: makes of a value that has no form in JSON another that has one
    :param rules: what the store has to say of columns
    :param finest_ns: of how many nanoseconds the times of windows are multiples there
    """

    is_of_one_stage = True
    """Its columns are those of the tasks of one stage."""

    def __init__(
        self, where: str, encode: Fallback | None, rules: NameRules, finest_ns: int = 1
    ) -> None:
        self._where = where
        self._table = WideTable(where, Encoder(encode), rules, finest_ns)

    @property
    def _schema(self) -> WideSchema:
        schema = self._table.schema
        assert schema is not None
        return schema

    def begin(self, pipeline: str) -> str | None:
        """Why results of a pipeline do not belong into the table; None: they do."""
        return self._table.begin(pipeline)

    def declare(self, output: StageOutput) -> str | None:
        """Make the columns of a stage. Why there can be none; None: there are."""
        return self._table.declare(output)

    def record(self, result: Result) -> WideRecord:
        """A result as rows.

        :raises SinkError: if it cannot be stored
        """
        return self._table.record(result)

    def fix_columns(self, reason: str) -> None:
        """Take no further column from now on.

        :param reason: why there can be none, for messages
        """
        self._table.fix(reason)

    def not_in_parts(self, output: StageOutput) -> str | None:
        """Why several cannot write each a part of a window; None: they can. What the columns are
        has to be known before the first value, since each would take them from its own."""
        for task, annotation in output.tasks.items():
            if not said(annotation).is_whole:
                return (
                    f"task {task!r} does not say what columns its results are, so that each shard "
                    f"would take them from its own values: let it say what it returns, such as "
                    f"-> float, or a NamedTuple or dataclass of these"
                )
        return None

    def has_result(self, row: Row) -> bool:
        """Whether a row that was read tells of a result or an error: nothing in all columns of a
        task is none, as in those that came later."""
        return row.error is not None or bool(row.value.has_any)

    def batch(self, batch: ResultBatch) -> WideBatch:
        """Many results as rows.

        :raises SinkError: if they are no such rows, or not all of them can be stored
        """
        return self._table.batch(batch)

    def value(self, stored: Any, types: Types) -> Any:
        """The value that the columns of a task tell."""
        return self._table.value(stored, types)
