"""Results of a stage as rows of typed columns."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Final

from run_task.errors import SinkError
from run_task.sinks._protocol import Result, ResultBatch, StageOutput
from run_task.sinks._record import WindowKey, is_storable
from run_task.sinks.encoding._json import Encoder
from run_task.sinks.encoding._tag import Types
from run_task.sinks.wide._draft import SchemaDraft, told_of
from run_task.sinks.wide._errors import error_cell, with_missing
from run_task.sinks.wide._kinds import UnfitError, WideKind, stored
from run_task.sinks.wide._record import NO_WINDOW, WideBatch, WideRecord
from run_task.sinks.wide._said import Said, said
from run_task.sinks.wide._schema import NameRules, WideColumn, WideSchema, column_name
from run_task.sinks.wide._shapes import Shape, fields, tables
from run_task.sinks.wide._stored import Cells
from run_task.sinks.wide._times import FIRST_NS, LAST_NS, check_times
from run_task.sinks.wide._usual import UsualWindow
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import KeyedDataSet
from run_task.time._interval import TimeUnit

_TEXTS: Final = (WideKind.TEXT, WideKind.JSON)


class WideTable:
    """The results of one stage as rows, and which columns these have.

    :param where: the sink, for messages
    :param encoder: makes JSON of what has no type of its own
    :param rules: what the store has to say of columns
    :param finest_ns: of how many nanoseconds the times of windows are multiples
    """

    def __init__(self, where: str, encoder: Encoder, rules: NameRules, finest_ns: int = 1) -> None:
        self._where = where
        self._encoder = encoder
        self.rules = rules
        self._finest_ns = finest_ns
        self._schema: WideSchema | None = None
        self._unknown: dict[tuple[str, str | None], None] = {}
        """Tasks and fields that had nothing but None, so that nobody knows what they hold."""
        self._fixed = ""
        self._of_scalars: dict[str, WideColumn] = {}
        self._seen_keys: list[Any] = []
        """Keys that are known to be fine: those of most windows are the same."""
        self._usual: UsualWindow | None = None
        self._said: dict[str, Said] = {}
        self._is_held = False
        """Whether the schema is one of what is stored or was recorded, and not only of what a stage
        says."""

    @property
    def schema(self) -> WideSchema | None:
        """What is known of the table; None: nothing yet."""
        return self._schema

    @schema.setter
    def schema(self, schema: WideSchema | None) -> None:
        self._is_held = schema is not None
        self._set(schema)

    def _set(self, schema: WideSchema | None) -> None:
        self._schema = schema
        columns = () if schema is None else schema.columns.values()
        self._of_scalars = {c.task: c for c in columns if c.field is None}
        self._seen_keys = []
        self._usual = None

    def fix(self, reason: str) -> None:
        """Take no further column from now on. Each of those of which nobody knows what they hold is
        JSON, which holds anything.

        :param reason: why there can be none, for messages
        """
        self._fixed = reason
        if self._schema is None:
            return
        unknown = [
            WideColumn(column_name(task, of_field), task, of_field, WideKind.JSON)
            for task, of_field in self._unknown
            if task not in self._schema.shapes or of_field is not None
        ]
        columns = [c for c in unknown if c.name not in self._schema.columns]
        while columns and self.rules.unfit(self._schema, columns):
            columns.pop()
        shapes = {c.task: Shape.SCALAR if c.field is None else Shape.FIELDS for c in columns}
        self.schema = self._schema.with_({**shapes, **self._schema.shapes}, columns)

    def record(self, result: Result) -> WideRecord:
        """A result as rows.

        :raises SinkError: if it is of another stage, or a column cannot hold a value of it; then
            nothing of it is kept
        """
        dataset = result.dataset
        usual = self._usual
        if usual is not None and (found := usual.record(result)) is not None:
            return found
        schema = self._of(result)
        keys: list[Any] | None = None
        if isinstance(dataset, KeyedDataSet):
            keys = self._keys(schema, dataset)
            if schema.key_kind is None and (keys or dataset.errors):
                kind = WideKind.INT if keys and type(keys[0]) is not str else WideKind.TEXT
                schema = replace(schema, key_kind=kind)
        draft = SchemaDraft(schema, self._said)
        if isinstance(dataset, KeyedDataSet):
            found = self._keyed(draft, dataset, keys or [])
        else:
            found = self._plain(draft, dataset)
        is_new = schema is not self._schema or draft.shapes or draft.columns
        if is_new and (problem := self._take(draft)):
            raise SinkError(f"{self._where}: stage {schema.stage!r}: {problem}")
        self._is_held = True
        if not self._fixed:
            self._unknown.update(draft.unknown)
            self._unknown.update(((_task(name), None), None) for name in dataset.errors)
        if usual is None and self._schema is not None:
            self._usual = UsualWindow.like(self._schema, dataset, self._finest_ns)
        key = WindowKey(schema.pipeline, schema.stage, *result.window, 0)
        return found._replace(key=key, unit=schema.unit.value, elsewhere=result.elsewhere)

    def batch(self, batch: ResultBatch) -> WideBatch:
        """Many windows as rows, if all of them have a row of columns that there are.

        :raises SinkError: if one has not; then each is a record, or is refused, by itself
        """
        schema = self._schema
        of = batch.pipeline, batch.stage, batch.interval.unit, None
        if schema is None or schema.table_task is not None or self.misfit(*of):
            raise SinkError(f"{self._where}: its columns are not known yet, or others")
        nanos = schema.unit.nanos
        within = batch.starts[0] * nanos >= FIRST_NS and batch.ends[-1] * nanos <= LAST_NS
        if not within or nanos % self._finest_ns:
            raise SinkError(f"{self._where}: not all times of windows are timestamps")
        draft = SchemaDraft(schema, self._said)
        found = self._rows(draft, batch.results.items(), len(batch), None, None)
        if draft.shapes or draft.columns or found.numbers is not None:
            raise SinkError(f"{self._where}: there are further columns")
        self._is_held = True
        last = WindowKey(schema.pipeline, schema.stage, batch.starts[-1], batch.ends[-1], 0)
        return WideBatch(last, schema.unit.value, batch.starts, batch.ends, found.columns)

    def _of(self, result: Result) -> WideSchema:
        """The schema as it is before a result, of whose stage it is."""
        stage, unit = result.stage, result.unit
        schema = self._schema
        by = result.dataset.by if isinstance(result.dataset, KeyedDataSet) else None
        if schema is None:
            if not is_storable(stage):
                raise SinkError(f"stage {stage!r}: this is no name that can be stored: rename it")
            if unit is None:
                raise SinkError(
                    f"{self._where}: stage {stage!r}: a table of times needs a DataSet that knows "
                    f"its interval: make it by DataSet(..., interval=...)"
                )
            schema = WideSchema(result.pipeline, stage, unit, by)
        elif problem := self.misfit(result.pipeline, stage, unit, by):
            raise SinkError(f"{self._where}: {problem}")
        check_times(result, schema.unit.nanos, self._finest_ns)
        if result.bucket:
            raise SinkError(
                f"stage {stage!r}: a wide table holds whole windows, and this result is of bucket "
                f"{result.bucket}"
            )
        return schema

    def begin(self, pipeline: str) -> str | None:
        """Why results of a pipeline do not belong into the table; None: they do."""
        schema = self._schema
        if schema is None or schema.pipeline == pipeline or not self._is_held:
            return None
        return (
            f"it is a wide table of pipeline {schema.pipeline!r}, and holds no results of "
            f"{pipeline!r}: give that another one"
        )

    def declare(self, output: StageOutput) -> str | None:
        """Add the columns that the tasks of a stage say they have.

        :return: why the table does not have them; None: it does
        """
        of = output.pipeline, output.stage, output.unit, output.by
        if problem := self.misfit(*of):
            if self._is_held:
                return problem
            self._set(None)  # of a run that gave nothing
        schema = self._schema
        if not is_storable(output.stage):
            return f"stage {output.stage!r}: this is no name that can be stored: rename it"
        if schema is None:
            schema = WideSchema(*of)
        if schema.by is not None and schema.key_kind is None and output.key in (int, str):
            kind = WideKind.TEXT if output.key is str else WideKind.INT
            schema = replace(schema, key_kind=kind)
        all_said = {task: said(annotation) for task, annotation in output.tasks.items()}
        draft = SchemaDraft(schema, all_said)
        for task, of_task in all_said.items():
            try:
                draft.say(task, of_task)
            except UnfitError as error:
                return f"stage {schema.stage!r}, task {task!r}: {error}"
        if problem := self._take(draft):
            return f"stage {schema.stage!r}: {problem}"
        self._said = all_said
        return None

    def _take(self, draft: SchemaDraft) -> str | None:
        """Let a draft be the schema. Why it cannot be; None: it is."""
        columns = list(draft.columns.values())
        if self._fixed and (columns or Shape.TABLE in draft.shapes.values()):
            names = ", ".join(repr(column.name) for column in columns) or repr("row")
            return (
                f"there is no column {names}, and {self._fixed}: take another file, or another sink"
            )
        if problem := self.rules.unfit(draft.schema, columns):
            return problem
        self._set(draft.made)
        return None

    def value(self, stored: Any, types: Types) -> Any:
        """The value that the columns of a task tell.

        :raises UndecodableError: if what is there is not of its column
        """
        return stored.value(types) if isinstance(stored, Cells) else stored

    def misfit(
        self, pipeline: str, stage: str, unit: TimeUnit | None, by: str | None
    ) -> str | None:
        """Why results of a stage do not belong into the table; None: they do."""
        schema = self._schema
        if schema is None:
            return None
        if (pipeline, stage) != (schema.pipeline, schema.stage):
            return (
                f"it is a wide table of stage {schema.stage!r} of pipeline {schema.pipeline!r}, "
                f"and holds no results of stage {stage!r} of {pipeline!r}: give that another one"
            )
        if unit is not schema.unit:
            now = "no unit that is known" if unit is None else unit.name.lower()
            return (
                f"stage {stage!r}: its windows are in {now}, and the table holds those of it in "
                f"{schema.unit.name.lower()}: take another table"
            )
        if by != schema.by:
            held, given = ("none" if of is None else repr(of) for of in (schema.by, by))
            return (
                f"stage {stage!r}: the key of its results is {given}, and of those in the table "
                f"{held}: take another table"
            )
        return None

    def _keys(self, schema: WideSchema, dataset: KeyedDataSet[Any, Any]) -> list[Any]:
        keys = list(dataset.keys_of_rows)
        if not keys or (schema.key_kind is not None and keys == self._seen_keys):
            return keys
        kinds = set(map(type, keys))
        kind = schema.key_kind or (WideKind.TEXT if kinds == {str} else WideKind.INT)
        wrong = kinds - {str if kind is WideKind.TEXT else int}
        try:
            if wrong:
                raise UnfitError(
                    f"key {next(k for k in keys if type(k) in wrong)!r} is none that the column "
                    f"{schema.by!r} holds, which has {'texts' if kind is WideKind.TEXT else 'ints'}"
                )
            try:
                stored(kind, keys, self._encoder)
            except UnfitError as error:
                raise UnfitError(f"key {error}") from None
            if kind is WideKind.TEXT and "" in keys:
                raise UnfitError("key '' is an empty text: give it a name")
            for key in keys if kind is WideKind.TEXT else ():
                if problem := self.rules.key(key):
                    raise UnfitError(f"key {key[:20]!r} {problem}")
        except UnfitError as error:
            raise SinkError(f"{self._where}: stage {schema.stage!r}: {error}") from error.__cause__
        self._seen_keys = keys
        return keys

    def _plain(self, draft: SchemaDraft, dataset: DataSet[Any]) -> WideRecord:
        """The row of a window without keys."""
        errors: list[str | None] | None = None
        if dataset.errors:
            errors = [error_cell((t, str(e)) for t, e in dataset.errors.items())]
        if dataset.behind:
            errors = [with_missing(None if errors is None else errors[0], dataset.behind)]
        values = [(task, [value]) for task, value in dataset.items()]
        found = self._rows(draft, values, 1, None, errors)
        return found if dataset or dataset.errors else found._replace(height=0)

    def _keyed(
        self, draft: SchemaDraft, dataset: KeyedDataSet[Any, Any], keys: list[Any]
    ) -> WideRecord:
        """The rows of a window by key."""
        errors: list[str | None] | None = None
        of_all: list[tuple[str, str]] = []
        if dataset.errors:
            of_keys: dict[Any, list[tuple[str, str]]] = {}
            for name, error in dataset.errors.items():
                if isinstance(name, tuple):
                    of_keys.setdefault(name[1], []).append((name[0], str(error)))
                else:
                    of_all.append((name, str(error)))
            errors = [error_cell(of_keys.get(key, ())) for key in keys]
        found = self._rows(draft, list(dataset.by_task()), len(keys), keys, errors)
        told = error_cell(of_all)
        if dataset.behind and draft.schema.key_kind is not None:
            told = with_missing(told, dataset.behind)
        return found if told is None else found.with_row_of_all_keys(told)

    def _rows(
        self,
        draft: SchemaDraft,
        values: Iterable[tuple[str, Sequence[Any]]],
        count: int,
        keys: list[Any] | None,
        errors: list[str | None] | None,
    ) -> WideRecord:
        """The rows of a window.

        :param values: of each task, its results, one a key
        :param count: how many keys there are
        """
        columns: dict[str, Sequence[Any]] = {}
        table: dict[str, Sequence[Any]] | None = None
        counts: list[int] = []
        for task, of_task in values:
            column = self._of_scalars.get(task)
            try:
                if column is not None:
                    columns[column.name] = self._stored(column, of_task)
                    continue
                shape = draft.shape(task, of_task)
                if shape is Shape.SCALAR:
                    columns |= self._of_fields(draft, task, {None: of_task})
                elif shape is Shape.FIELDS:
                    columns |= self._of_fields(draft, task, fields(of_task))
                elif shape is Shape.TABLE:
                    found, counts = tables(of_task)
                    try:
                        table = self._of_fields(draft, task, found)
                    except UnfitError as error:
                        row = error.row
                        of_key = None if row is None else bisect_right([*accumulate(counts)], row)
                        raise UnfitError(str(error), of_key) from error.__cause__
            except UnfitError as error:
                raise self._refusal(draft.schema, task, error, keys) from error.__cause__
        record = WideRecord(NO_WINDOW, "", count, keys, None, columns, errors)
        if table is not None:
            return record.with_table(table, counts)
        if draft.schema.table_task is not None:
            return record._replace(numbers=[None] * count)
        return record

    def _of_fields(
        self, draft: SchemaDraft, task: str, values: Mapping[Any, Sequence[Any]]
    ) -> dict[str, Sequence[Any]]:
        """What the columns of a task have.

        :param values: by field, None being all of a scalar
        """
        found: dict[str, Sequence[Any]] = {}
        for field, items in values.items():
            with told_of(field):
                column, plain_items = draft.column(task, field, items)
                if column is not None:
                    found[column.name] = self._stored(column, plain_items)
        return found

    def _stored(self, column: WideColumn, values: Sequence[Any]) -> Sequence[Any]:
        found = stored(column.kind, values, self._encoder)
        if column.kind in _TEXTS:
            for row, text in enumerate(found):
                if text is not None and (problem := self.rules.text(text)):
                    raise UnfitError(problem, row)
        return found

    def _refusal(
        self, schema: WideSchema, task: str, error: UnfitError, keys: list[Any] | None
    ) -> SinkError:
        of_key = ""
        if keys and error.row is not None and error.row < len(keys):
            of_key = f", key {keys[error.row]!r}"
        return SinkError(
            f"{self._where}: stage {schema.stage!r}, task {task!r}{of_key}: its result cannot be "
            f"stored: {error}"
        )


def _task(name: str | tuple[str, Any]) -> str:
    return name if isinstance(name, str) else name[0]
