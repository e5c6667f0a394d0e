"""Results of a stage as rows of typed columns."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import accumulate, chain, repeat
from typing import Any, Final, NamedTuple

from run_task.errors import SinkError
from run_task.sinks._protocol import Result
from run_task.sinks._record import WindowKey, is_storable
from run_task.sinks.encoding._json import Encoder
from run_task.sinks.encoding._tag import Types
from run_task.sinks.wide._errors import error_cell
from run_task.sinks.wide._kinds import UnfitError, WideKind, kind_of, plain, stored
from run_task.sinks.wide._schema import NameRules, WideColumn, WideSchema, column_name
from run_task.sinks.wide._shapes import NOUNS, Shape, fields, shape_of, tables
from run_task.sinks.wide._stored import Cells
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet
from run_task.time._epoch import nanos_since_epoch
from run_task.time._interval import TimeUnit

_TEXTS: Final = (WideKind.TEXT, WideKind.JSON)

_FIRST_NS: Final = nanos_since_epoch(datetime(1, 1, 1, tzinfo=UTC))
_LAST_NS: Final = nanos_since_epoch(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))


class WideRecord(NamedTuple):
    """A window's results as rows, ready to be stored.

    :param key: which window it is
    :param unit: of its times
    :param height: how many rows there are
    :param keys: the key of each row, None for what is told of all keys; None: there are no keys
    :param numbers: which row of a table each is, None where that has none; None: there is no table
    :param columns: by the name of a column, what each row has; those that it has not are NULL
    :param errors: the cell of the column ``error`` for each row; None: there are none
    """

    key: WindowKey
    unit: str
    height: int
    keys: list[Any] | None
    numbers: list[int | None] | None
    columns: Mapping[str, Sequence[Any]]
    errors: list[str | None] | None

    @property
    def is_empty(self) -> bool:
        """Whether there is no row."""
        return not self.height


class _Additions:
    """What a window adds to a schema, for as long as it may still be refused."""

    def __init__(self) -> None:
        self.shapes: dict[str, Shape] = {}
        self.columns: dict[str, WideColumn] = {}
        self.unknown: dict[tuple[str, str | None], None] = {}


class _Usual(NamedTuple):
    """What most windows of a stage without keys are like, which are then not looked at value by
    value: tasks that all have a number or bool, and each the type of its column.

    :param of: the pipeline, the stage and the bucket
    :param unit: the unit of the windows
    :param first: the earliest time that a window may have
    :param last: the latest one
    :param tasks: the tasks, each called as its column
    :param types: of their results
    """

    of: tuple[str, str, int]
    unit: TimeUnit
    first: int
    last: int
    tasks: list[str]
    types: list[type]

    @classmethod
    def of_window(cls, schema: WideSchema, dataset: AnyDataSet, finest_ns: int) -> _Usual | None:
        """What windows like one are like; None: those are none that are usual."""
        if schema.by is not None or schema.table_task is not None or not dataset:
            return None
        tasks, columns = list(dataset), schema.columns
        kinds = [columns[task].kind if task in columns else None for task in tasks]
        if schema.unit.nanos % finest_ns or not all(kind in _USUAL for kind in kinds):
            return None
        nanos = schema.unit.nanos
        return cls(
            (schema.pipeline, schema.stage, 0),
            schema.unit,
            -(-_FIRST_NS // nanos),
            _LAST_NS // nanos,
            tasks,
            [_USUAL[kind] for kind in kinds if kind is not None],
        )

    def record(self, result: Result) -> WideRecord | None:
        """A result as a row; None: it is not as most are."""
        dataset: Any = result.dataset
        values: dict[str, Any] = dataset.to_dict() if dataset.__class__ is DataSet else {}
        start, end = result.window
        if (
            list(values) != self.tasks
            or list(map(type, values.values())) != self.types
            or (result.pipeline, result.stage, result.bucket) != self.of
            or result.unit is not self.unit
            or not (self.first <= start <= self.last and self.first <= end <= self.last)
            or dataset.errors
        ):
            return None
        key = WindowKey(*self.of[:2], start, end, 0)
        return WideRecord(
            key, self.unit.value, 1, None, None, dict(zip(values, zip(values.values()))), None
        )


_USUAL: Final[Mapping[WideKind | None, type]] = {WideKind.FLOAT: float, WideKind.BOOL: bool}


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
        self._usual: _Usual | None = None

    @property
    def schema(self) -> WideSchema | None:
        """What is known of the table; None: nothing yet."""
        return self._schema

    @schema.setter
    def schema(self, schema: WideSchema | None) -> None:
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
        draft = _Additions()
        if isinstance(dataset, KeyedDataSet):
            keys = self._keys(schema, dataset)
            if keys and schema.key_kind is None:
                schema = replace(
                    schema, key_kind=WideKind.TEXT if type(keys[0]) is str else WideKind.INT
                )
            found = self._keyed(schema, draft, dataset, keys)
            if found.height and schema.key_kind is None:
                schema = replace(schema, key_kind=WideKind.TEXT)
        else:
            keys = None
            values: Iterable[tuple[str, Sequence[Any]]] = [
                (task, [value]) for task, value in dataset.items()
            ]
            errors: list[str | None] | None = None
            if dataset.errors:
                errors = [error_cell((t, str(e)) for t, e in dataset.errors.items())]
            found = self._rows(schema, draft, values, 1, None, errors)
            if not dataset and not dataset.errors:
                found = found._replace(height=0)
        if schema is not self._schema or draft.shapes or draft.columns:
            columns = list(draft.columns.values())
            if self._fixed and (columns or Shape.TABLE in draft.shapes.values()):
                names = ", ".join(repr(column.name) for column in columns) or repr("row")
                raise SinkError(
                    f"{self._where}: stage {schema.stage!r}: there is no column {names}, and "
                    f"{self._fixed}: take another file, or another sink"
                )
            if problem := self.rules.unfit(schema, columns):
                raise SinkError(f"{self._where}: stage {schema.stage!r}: {problem}")
            self.schema = schema.with_(draft.shapes, columns)
        if not self._fixed:
            self._unknown.update(draft.unknown)
            self._unknown.update(((_task(name), None), None) for name in dataset.errors)
        if usual is None and self._schema is not None:
            self._usual = _Usual.of_window(self._schema, dataset, self._finest_ns)
        key = WindowKey(schema.pipeline, schema.stage, *result.window, 0)
        return found._replace(key=key, unit=schema.unit.value)

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
        nanos = schema.unit.nanos
        start, end = result.window
        for name, time in (("start", start), ("end", end)):
            if not _FIRST_NS <= time * nanos <= _LAST_NS:
                raise SinkError(
                    f"stage {stage!r}: the window's {name}, {time}, is not of the years from 1 to "
                    f"9999, which a table's timestamps have"
                )
            if self._finest_ns > 1 and time * nanos % self._finest_ns:
                raise SinkError(
                    f"stage {stage!r}: the window's {name}, {time} {schema.unit.value}, is finer "
                    f"than a microsecond, which a database's timestamps are not"
                )
        if result.bucket:
            raise SinkError(
                f"stage {stage!r}: a wide table holds whole windows, and this result is of bucket "
                f"{result.bucket}"
            )
        return schema

    def begin(self, pipeline: str) -> str | None:
        """Why results of a pipeline do not belong into the table; None: they do."""
        schema = self._schema
        if schema is None or schema.pipeline == pipeline:
            return None
        return (
            f"it is a wide table of pipeline {schema.pipeline!r}, and holds no results of "
            f"{pipeline!r}: give that another one"
        )

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

    def _keyed(
        self,
        schema: WideSchema,
        draft: _Additions,
        dataset: KeyedDataSet[Any, Any],
        keys: list[Any],
    ) -> WideRecord:
        count = len(keys)
        values = list(dataset.by_task())
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
        found = self._rows(schema, draft, values, count, keys, errors)
        if not of_all:
            return found
        return found._replace(
            height=found.height + 1,
            keys=[*(found.keys or ()), None],
            numbers=None if found.numbers is None else [*found.numbers, None],
            columns={name: [*column, None] for name, column in found.columns.items()},
            errors=[*(found.errors or repeat(None, found.height)), error_cell(of_all)],
        )

    def _rows(
        self,
        schema: WideSchema,
        draft: _Additions,
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
                shape = self._shape(schema, draft, task, of_task)
                if shape is Shape.SCALAR:
                    self._add(schema, draft, columns, task, None, of_task)
                elif shape is Shape.FIELDS:
                    for name, items in fields(of_task).items():
                        self._add(schema, draft, columns, task, name, items)
                elif shape is Shape.TABLE:
                    table = {}
                    found, counts = tables(of_task)
                    try:
                        for name, items in found.items():
                            self._add(schema, draft, table, task, name, items)
                    except UnfitError as error:
                        row = error.row
                        of_key = None if row is None else bisect_right([*accumulate(counts)], row)
                        raise UnfitError(str(error), of_key) from error.__cause__
            except UnfitError as error:
                raise self._refusal(schema, task, error, keys) from error.__cause__
        record = WideRecord(_NO_KEY, "", count, keys, None, columns, errors)
        if table is not None:
            return _expanded(record, table, counts)
        if schema.table_task is not None:
            return record._replace(numbers=[None] * count)
        return record

    def _shape(
        self, schema: WideSchema, draft: _Additions, task: str, values: Sequence[Any]
    ) -> Shape | None:
        known = schema.shapes.get(task)
        shape = shape_of(values)
        if shape is None:
            draft.unknown[task, None] = None
            return None
        if known is None:
            if shape is Shape.TABLE:
                other = schema.table_task or next(
                    (name for name, of in draft.shapes.items() if of is Shape.TABLE), None
                )
                if other is not None:
                    raise UnfitError(
                        f"it is a table, and task {other!r} of this stage gives one, too, with "
                        f"rows of its own: put one of them into a stage of its own"
                    )
            draft.shapes[task] = shape
        elif known is not shape:
            raise UnfitError(f"it is {NOUNS[shape]}, and was {NOUNS[known]} before")
        return shape

    def _add(
        self,
        schema: WideSchema,
        draft: _Additions,
        columns: dict[str, Sequence[Any]],
        task: str,
        of_field: str | None,
        values: Sequence[Any],
    ) -> None:
        """Add the values of a column."""
        name = column_name(task, of_field)
        column = schema.columns.get(name) or draft.columns.get(name)
        in_field = "" if of_field is None else f"field {of_field!r}: "
        if column is not None and (column.task, column.field) != (task, of_field):
            theirs = "" if column.field is None else f", field {column.field!r}"
            raise UnfitError(
                f"{in_field}its column {name!r} is that of task {column.task!r}{theirs}, too: "
                f"rename one of them"
            )
        try:
            if column is None:
                values = list(map(plain, values))
                kind = kind_of(values)
                if kind is None:
                    draft.unknown[task, of_field] = None
                    return
                column = draft.columns[name] = WideColumn(name, task, of_field, kind)
            columns[name] = self._stored(column, values)
        except UnfitError as error:
            raise UnfitError(f"{in_field}{error}", error.row) from error.__cause__

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


_NO_KEY: Final = WindowKey("", "", 0, 0, 0)


def _expanded(
    record: WideRecord, table: Mapping[str, Sequence[Any]], counts: Sequence[int]
) -> WideRecord:
    """The rows of a window with those of a table for each key: what is no column of the table
    stands in each of them. A table without rows has one, without a number."""
    times = [max(1, count) for count in counts]

    def several(values: Iterable[Any]) -> list[Any]:
        return list(chain.from_iterable(map(repeat, values, times)))

    def padded(values: Sequence[Any]) -> list[Any]:
        if 0 not in counts:
            return list(values)
        rest = iter(values)
        return [
            next(rest) if row < count else None for count in counts for row in range(max(1, count))
        ]

    numbers = [row if count else None for count in counts for row in range(max(1, count))]
    return record._replace(
        height=len(numbers),
        keys=None if record.keys is None else several(record.keys),
        numbers=numbers,
        columns={
            **{name: several(values) for name, values in record.columns.items()},
            **{name: padded(values) for name, values in table.items()},
        },
        errors=None if record.errors is None else several(record.errors),
    )
