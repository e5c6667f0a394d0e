"""What a database can hold, as far as it differs from others."""

from __future__ import annotations

import codecs
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from run_task.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import Connection


class SqlLimits(NamedTuple):
    """What a database can hold.

    :param codec: Python's codec for its texts
    :param longest: how many characters a text has at most
    :param collation: by which names are compared, where the database's own would take different
        ones for the same
    """

    codec: str = "utf-8"
    longest: float = math.inf
    collation: str | None = None

    def holds(self, text: str) -> bool:
        """Whether the database's encoding has a text."""
        try:
            text.encode(self.codec)
        except UnicodeError:
            # In UTF-8, what is none is no name to begin with, and told as such.
            return self.codec == "utf-8"
        return True

    def fitting(self, error: str | None) -> str | None:
        """The text of an error as the database's encoding has it."""
        if error is None or self.codec == "utf-8":
            return error
        return error.encode(self.codec, "backslashreplace").decode(self.codec)


def limits_of(connection: Connection, where: str) -> SqlLimits:
    """Learn what a database can hold.

    :param where: the sink, for messages
    :raises ConfigError: if its connection cannot hold every text
    """
    from sqlalchemy import text

    dialect: Any = connection.dialect
    if dialect.name == "postgresql":
        encoding = str(connection.execute(text("SHOW server_encoding")).scalar())
        return SqlLimits(codec=_codec(encoding))
    if dialect.name == "mssql":
        return SqlLimits(collation="Latin1_General_100_BIN2")
    if dialect.name not in ("mysql", "mariadb"):
        return SqlLimits()
    settings = "SELECT @@character_set_connection, @@max_allowed_packet"
    charset, packet = connection.execute(text(settings)).one()
    if charset != "utf8mb4":
        raise ConfigError(
            f"{where}: a connection in {charset} cannot hold every text: write charset=utf8mb4 in "
            f"the URL, or leave it out"
        )
    longest = int(packet) // 3  # in a statement, characters are escaped
    # By default, names are the same that differ in case, or by blanks at their ends.
    if dialect.is_mariadb:
        return SqlLimits(longest=longest, collation="utf8mb4_nopad_bin")
    binary = "utf8mb4_0900_bin" if dialect.server_version_info >= (8, 0, 17) else "utf8mb4_bin"
    return SqlLimits(longest=longest, collation=binary)


def _codec(encoding: str) -> str:
    """Python's codec for an encoding of PostgreSQL's; that of ASCII if there is none."""
    names: Mapping[str, str] = {"SQL_ASCII": "utf-8", "UTF8": "utf-8"}
    name = names.get(encoding, encoding.replace("WIN", "cp") if "WIN" in encoding else encoding)
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "ascii"
