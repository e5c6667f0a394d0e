"""The table in which results are stored, for whatever database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Column, Double, Integer, MetaData, PrimaryKeyConstraint, Table
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine, Unicode, UnicodeText

if TYPE_CHECKING:
    from sqlalchemy import Dialect

LENGTHS: Final = {"pipeline": 120, "stage": 120, "key": 255, "task": 190}
"""How many characters a name has at most: four bytes for each must fit into a key of MySQL, which
has 3 072, and two into one of SQL Server, which has 1 700."""


_OPTIONS: Final[dict[str, Any]] = {
    f"{dialect}_{name}": value
    for dialect in ("mysql", "mariadb")
    for name, value in (("engine", "InnoDB"), ("charset", "utf8mb4"))
}


def _long_text() -> TypeEngine[str]:
    return UnicodeText().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


class Name(TypeDecorator[str]):
    """A text in a key. An empty one is a blank on Oracle, which takes empty ones for NULL."""

    impl = Unicode
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """What is stored for a text."""
        return " " if value == "" and dialect.name == "oracle" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """The text that was stored."""
        return "" if value == " " and dialect.name == "oracle" else value


def versions_table(name: str, collation: str | None = None) -> Table:
    """The table that tells the versions of tasks whose results are in others.

    :param collation: as of :func:`results_table`
    """
    return Table(
        name,
        MetaData(),
        Column("table_name", Unicode(190, collation=collation), primary_key=True),
        Column("versions", _long_text(), nullable=False),
        **_OPTIONS,
    )


def results_table(name: str, collation: str | None = None) -> Table:
    """The table.

    :param collation: by which names are compared, where the database's own would take different
        ones for the same
    """
    text = _long_text()

    def named(column: str) -> Column[Any]:
        return Column(column, Name(LENGTHS[column], collation=collation), nullable=False)

    return Table(
        name,
        MetaData(),
        Column("format", Integer, nullable=False),
        named("pipeline"),
        named("stage"),
        named("key"),
        Column("bucket", Integer, nullable=False, autoincrement=False),
        Column("window_start", BigInteger, nullable=False, autoincrement=False),
        Column("window_end", BigInteger, nullable=False, autoincrement=False),
        Column("unit", Unicode(2)),
        Column("revision", Integer, nullable=False),
        named("task"),
        Column("position", Integer, nullable=False),
        Column("value", Double),
        Column("json", text),
        Column("error", text),
        PrimaryKeyConstraint(
            *("pipeline", "stage", "window_end", "window_start", "bucket", "key", "task"),
            mssql_clustered=False,  # whose keys may be longer
        ),
        **_OPTIONS,
    )
