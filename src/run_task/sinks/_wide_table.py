"""A table of typed columns in whatever database, and the one that tells what such tables hold."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    Index,
    MetaData,
    Table,
)
from sqlalchemy.dialects import mssql, mysql, oracle
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import DDLElement
from sqlalchemy.sql.elements import quoted_name
from sqlalchemy.types import TypeDecorator, TypeEngine, Unicode, UnicodeText, UserDefinedType

from run_task.sinks._results_table import LENGTHS
from run_task.sinks._sql_limits import SqlLimits
from run_task.sinks.wide._kinds import WideKind
from run_task.sinks.wide._schema import END, ERROR, ROW, START, WideSchema
from run_task.time._interval import TimeUnit

if TYPE_CHECKING:
    from sqlalchemy import Dialect

REGISTRY: Final = "run_task_tables"
"""The table that tells what each wide one holds."""

_MYSQL: Final = ("mysql", "mariadb")
_DIGITS: Final = {TimeUnit.MINUTES: 0, TimeUnit.SECONDS: 0, TimeUnit.MILLIS: 3}


class _SqliteTime(UserDefinedType[str]):
    """What SQLite calls a column of times; it has texts."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type in a statement."""
        return "DATETIME"


class SqlMoment(TypeDecorator[datetime]):
    """A time: with its zone, in UTC, or without one.

    SQLite has a text of always the same length, so that texts compare as times do. MariaDB and
    MySQL have no type with a zone: there, it is in UTC.

    :param zoned: whether it has a zone
    :param digits: how many digits of a second there are in a text: 0, 3 or 6
    """

    impl = DateTime
    cache_ok = True

    def __init__(self, zoned: bool, digits: int = 6) -> None:
        super().__init__(timezone=zoned)
        self.zoned = zoned
        self.digits = digits

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The type that a database has for it."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(_SqliteTime())
        if dialect.name in _MYSQL:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        if dialect.name == "oracle":
            return dialect.type_descriptor(oracle.TIMESTAMP(timezone=self.zoned))
        if dialect.name == "mssql":
            kind = mssql.DATETIMEOFFSET if self.zoned else mssql.DATETIME2
            return dialect.type_descriptor(kind(precision=6))
        return dialect.type_descriptor(DateTime(timezone=self.zoned))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """What is stored for a time."""
        if value is None:
            return None
        if dialect.name == "sqlite":
            spec = {0: "seconds", 3: "milliseconds"}.get(self.digits, "microseconds")
            return value.isoformat(" ", spec)
        return value.replace(tzinfo=None) if dialect.name in _MYSQL else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """The time that was stored."""
        if value is None:
            return None
        made: datetime = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not self.zoned:
            return made
        return made.replace(tzinfo=UTC) if made.tzinfo is None else made.astimezone(UTC)


def _text(limits: SqlLimits) -> TypeEngine[Any]:
    long = mysql.LONGTEXT(charset="utf8mb4", collation=limits.collation)
    return UnicodeText().with_variant(long, *_MYSQL)


def _types(limits: SqlLimits) -> dict[WideKind, TypeEngine[Any]]:
    text = _text(limits)
    return {
        WideKind.FLOAT: Double().with_variant(oracle.BINARY_DOUBLE(), "oracle"),
        WideKind.INT: BigInteger(),
        WideKind.BOOL: Boolean(),
        WideKind.TEXT: text,
        WideKind.TIMESTAMP: SqlMoment(zoned=True),
        WideKind.LOCAL: SqlMoment(zoned=False),
        WideKind.DATE: Date(),
        WideKind.DECIMAL: text,
        WideKind.JSON: text,
    }


def _named(name: str, dialect: str) -> str:
    # Quoted, names are what they are; Oracle has names in capitals where they are not.
    return name if dialect == "oracle" else quoted_name(name, quote=True)


_OPTIONS: Final[dict[str, Any]] = {
    f"{dialect}_{name}": value
    for dialect in _MYSQL
    for name, value in (("engine", "InnoDB"), ("charset", "utf8mb4"))
}


def wide_table(
    name: str, schema: WideSchema, limits: SqlLimits, dialect: str, longest: int
) -> Table:
    """The table of a schema, with its indexes. Its columns are called ``c0``, ``c1`` and so on in
    statements, in the order of the schema's names.

    :param dialect: the kind of database
    :param longest: how many bytes a name has at most
    """
    types = _types(limits)
    digits = _DIGITS.get(schema.unit, 6)
    if schema.key_kind is WideKind.INT:
        key: TypeEngine[Any] = BigInteger()
    else:
        key = Unicode(LENGTHS["key"], collation=limits.collation)
    of: dict[str, TypeEngine[Any]] = {
        START: SqlMoment(zoned=True, digits=digits),
        END: SqlMoment(zoned=True, digits=digits),
        ROW: BigInteger(),
        ERROR: _text(limits),
        **{column.name: types[column.kind] for column in schema.columns.values()},
    }
    if schema.by is not None:
        of[schema.by] = key
    columns = {
        column: Column(_named(column, dialect), of[column], key=f"c{place}", autoincrement=False)
        for place, column in enumerate(schema.names)
    }
    for column in (START, END):
        columns[column].nullable = False
    table = Table(_named(name, dialect), MetaData(), *columns.values(), **_OPTIONS)
    by = [] if schema.by is None else [columns[schema.by]]
    row = [] if schema.table_task is None else [columns[ROW]]
    # Not a primary key: what is told of all keys has no key.
    own = (columns[END], columns[START], *by, *row)
    Index(_index(name, "window", longest), *own, unique=True)
    if by:
        Index(_index(name, "key", longest), *by, columns[END])
    return table


def _index(table: str, of: str, longest: int) -> str:
    name = f"ix_{table}_{of}"
    if len(name.encode()) <= longest:
        return name
    return f"ix_{hashlib.sha256(table.encode()).hexdigest()[:16]}_{of}"


def registry_table(limits: SqlLimits) -> Table:
    """The table that tells what each wide one holds."""
    return Table(
        REGISTRY,
        MetaData(),
        Column("table_name", Unicode(190, collation=limits.collation), primary_key=True),
        Column("description", _text(limits), nullable=False),
        **_OPTIONS,
    )


class AddColumn(DDLElement):
    """Adds a column to a table.

    :param column: the column
    """

    inherit_cache = False

    def __init__(self, column: Column[Any]) -> None:
        self.column = column


@compiles(AddColumn)
def _add_column(element: AddColumn, compiler: Any, **_: Any) -> str:
    word = "ADD" if compiler.dialect.name in ("mssql", "oracle") else "ADD COLUMN"
    table = compiler.preparer.format_table(element.column.table)
    return f"ALTER TABLE {table} {word} {compiler.get_column_specification(element.column)}"


_ASCII: Final = re.compile("[A-Z]+")


def folded(name: str, dialect: str) -> str:
    """The same text for names of columns that a database takes for one."""
    if dialect == "postgresql":
        return name
    if dialect == "sqlite":
        return _ASCII.sub(lambda found: found[0].lower(), name)
    return name.casefold()


_WEIGHT: Final = {WideKind.TEXT: 41, WideKind.JSON: 41, WideKind.DECIMAL: 41}
"""How many bytes of a row of InnoDB's a column takes at most; the others take 8."""


def crowded(kinds: Iterable[WideKind], dialect: str) -> str | None:
    """Why columns are too many; None: they are not."""
    of = list(kinds)
    if len(of) > _MOST_COLUMNS or (
        dialect in _MYSQL and sum(_WEIGHT.get(kind, 8) for kind in of) > _ROW_BYTES
    ):
        return (
            f"with its columns, the table would have {len(of)} of results, more than this database "
            f"takes: return a table, or compute it by key"
        )
    return None


_MOST_COLUMNS: Final = 990
_ROW_BYTES: Final = 7_500
