"""Checkpoints in an SQL database."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from run_task.errors import ConfigError
from run_task.sinks._database import Database, columns_of, keep_a_write_ahead_log
from run_task.sinks.files._disk import lock

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table

_TABLE: Final = "run_task_checkpoints"
_FORMAT: Final = 1

_PIECE: Final = 1024 * 1024
"""How many bytes a row of the table holds at most: servers limit what comes at once."""

_CHECKPOINT: Final = "checkpoint-"
_PART: Final = "part-"


class SqlStore:
    """Checkpoints in a database: PostgreSQL, MariaDB, MySQL, or a file of SQLite.

    ::

        Pipeline("bars", checkpoint=SqlStore("postgresql+psycopg://user@host/database"))

    They stand in the table ``run_task_checkpoints``, which is made if it is not there; one that has
    other columns is refused, and no other is touched. Many pipelines may have their checkpoints
    there, each by its name. A checkpoint is one transaction.

    A pipeline that runs has a lock of its name, which the database lets go of when the connection
    ends, and so also when the process is killed. SQLite has no such locks: there it is one of a
    file beside the database, ``DATABASE-run-task-...``, which stays there.

    :param database: a path, for SQLite, or a URL of SQLAlchemy's. No message shows what it has
        before the host and after the database's name
    :raises ConfigError: if there is no such kind of database, or SQLAlchemy or the driver is not
        installed
    """

    def __init__(self, database: str | os.PathLike[str]) -> None:
        self._database = Database(database, "SqlStore")
        self._kind = self._database.url.get_backend_name()
        if not (self._kind == "postgresql" or self._database.is_sqlite or self._database.is_mysql):
            raise ConfigError(
                f"{self._database.where}: checkpoints are kept in PostgreSQL, MariaDB, MySQL or "
                f"SQLite: take one of these, or a folder"
            )
        self._engine: Engine = self._database.engine()
        self._table = _table()
        self._connection: Connection | None = None  # which has the lock
        self._file: int | None = None  # which has it, for SQLite
        self._pipeline = ""
        self._owner = ""
        self._last: int | None = None  # the number of the last checkpoint; None: there is none

    def begin(self, pipeline: str, /) -> None:
        """Get ready to load and save, for no other process from now on.

        :param pipeline: the pipeline's name
        :raises ConfigError: if another process has it, the database cannot be used, or the table is
            not one of this library's
        """
        self.close()
        self._pipeline = pipeline
        self._owner = hashlib.sha256(pipeline.encode("utf-8", "surrogatepass")).hexdigest()
        try:
            with self._database.talking(ConfigError, "it cannot be used"):
                self._prepare()
                connection = self._connect()
                with connection.begin():
                    self._last = self._newest(connection)
        except BaseException:
            self.close()
            raise

    def numbers(self) -> Sequence[int]:
        """The numbers of the checkpoints that are there, in ascending order.

        :raises OSError: if it cannot be read
        """
        with self._transaction("cannot be read") as connection:
            return self._numbers(connection)

    def load(self, number: int, /) -> bytes:
        """The text of a checkpoint.

        :raises OSError: if it cannot be read
        """
        return self._content(_checkpoint(number))

    def part(self, name: str, /) -> bytes:
        """A part.

        :raises OSError: if it cannot be read
        """
        return self._content(_PART + name)

    def save(self, number: int, text: bytes, parts: Mapping[str, bytes], /) -> None:
        """Make a checkpoint last, also if power fails.

        :raises OSError: if it cannot be written
        """
        rows = [*self._rows(_checkpoint(number), text)]
        for name, data in parts.items():
            rows += self._rows(_PART + name, data)
        with self._transaction("cannot be written") as connection:
            for row in rows:
                connection.execute(self._table.insert(), row)
        self._last = number

    def keep(self, numbers: Collection[int], parts: Collection[str], /) -> None:
        """Remove all of this pipeline but these.

        :raises OSError: if that cannot be done
        """
        wanted = {*map(_checkpoint, numbers), *(_PART + name for name in parts)}
        with self._transaction("cannot be written") as connection:
            mine = self._table.c.owner == self._owner
            for name in self._names(connection):
                if name not in wanted:
                    one = mine & (self._table.c.name == name)
                    connection.execute(self._table.delete().where(one))

    def close(self) -> None:
        """Let other processes have it."""
        self._disconnect()
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it may be lost
                connection.close()
        self._engine.dispose()  # the lock is of the session, which a pool would keep

    def _prepare(self) -> None:
        """See to it that there is the table.

        :raises ConfigError: if one of that name is somebody else's
        """
        from sqlalchemy import inspect
        from sqlalchemy.exc import DBAPIError

        if not inspect(self._engine).has_table(_TABLE):
            try:
                self._table.create(self._engine)
            except DBAPIError:  # another process was faster
                if not inspect(self._engine).has_table(_TABLE):
                    raise
        with self._engine.connect() as connection:
            found = columns_of(connection, self._table)
        if sorted(found) != sorted(self._table.c.keys()):
            raise ConfigError(
                f"{self._database.where}: the table {_TABLE} there is none of checkpoints: it has "
                f"the columns {', '.join(found)}: take another database"
            )
        if self._database.is_sqlite:
            keep_a_write_ahead_log(self._engine)

    def _connect(self) -> Connection:
        """The connection, which has the lock.

        :raises ConfigError: if another process has it
        """
        if self._connection is not None:
            return self._connection
        self._connection = self._engine.connect()
        if not self._is_locked(self._connection):
            raise ConfigError(
                f"{self._database.where}: another process that runs has the checkpoints of "
                f"pipeline {self._pipeline!r}: end it first, or give one of them another name"
            )
        return self._connection

    def _is_locked(self, connection: Connection) -> bool:
        from sqlalchemy import text

        if self._database.is_sqlite:
            return self._file is not None or self._lock_file()
        number = int.from_bytes(bytes.fromhex(self._owner)[:8], signed=True)
        name = f"{self._database.url.database}/{_TABLE}/{self._owner}"
        asked = {
            "number": number,  # of this database, in PostgreSQL
            "name": f"run-task-{hashlib.sha256(name.encode()).hexdigest()[:40]}",  # of the server
        }
        question = (
            "GET_LOCK(:name, 0)" if self._database.is_mysql else "pg_try_advisory_lock(:number)"
        )
        wanted = {key: value for key, value in asked.items() if f":{key}" in question}
        with connection.begin():
            return bool(connection.execute(text(f"SELECT {question}"), wanted).scalar())

    def _lock_file(self) -> bool:
        path = Path(str(self._database.url.database))
        beside = path.with_name(f"{path.name}-run-task-{self._owner[:16]}.lock")
        file = os.open(beside, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            lock(file, self._database.where)
        except ConfigError:
            os.close(file)
            return False
        self._file = file
        return True

    @contextmanager
    def _transaction(self, what: str) -> Generator[Connection]:
        """A block that is done as a whole, over a new connection if the one before is lost.

        :raises OSError: what the database says
        """
        try:
            with self._database.talking(OSError, what):
                is_new = self._connection is None
                connection = self._connect()
                with connection.begin():
                    if is_new and self._newest(connection) != self._last:
                        raise OSError(
                            "the connection was lost, and another process has gone on meanwhile "
                            "from these checkpoints: end one of the two"
                        )
                    yield connection
        except BaseException:
            self._disconnect()
            raise

    def _rows(self, name: str, content: bytes) -> list[dict[str, Any]]:
        shown = self._pipeline.encode("ascii", "backslashreplace").decode()[:120]
        told = {"format": _FORMAT, "owner": self._owner, "pipeline": shown, "name": name}
        return [
            {**told, "piece": piece, "content": content[at : at + _PIECE]}
            for piece, at in enumerate(range(0, max(1, len(content)), _PIECE))
        ]

    def _content(self, name: str) -> bytes:
        from sqlalchemy import select

        columns = self._table.c
        query = select(columns.format, columns.content).where(
            columns.owner == self._owner, columns.name == name
        )
        with self._transaction("cannot be read") as connection:
            found = connection.execute(query.order_by(columns.piece)).all()
        if not found:
            raise FileNotFoundError(f"{self._database.where}: {name} is gone")
        if any(known != _FORMAT for known, _ in found):
            raise OSError(f"{self._database.where}: {name} is of another format than {_FORMAT}")
        return b"".join(bytes(piece) for _, piece in found)

    def _names(self, connection: Connection) -> Sequence[str]:
        from sqlalchemy import select

        name = self._table.c.name
        query = select(name).where(self._table.c.owner == self._owner).distinct()
        return connection.execute(query.order_by(name)).scalars().all()

    def _numbers(self, connection: Connection) -> Sequence[int]:
        names = self._names(connection)
        return [
            int(name.removeprefix(_CHECKPOINT)) for name in names if name.startswith(_CHECKPOINT)
        ]

    def _newest(self, connection: Connection) -> int | None:
        return max(self._numbers(connection), default=None)

    def __repr__(self) -> str:
        return self._database.where


def _checkpoint(number: int) -> str:
    return f"{_CHECKPOINT}{number:012d}"


def _table() -> Table:
    from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table

    # Names of pipelines are hashed in the key: databases have different limits for texts, and
    # different opinions of which are the same.
    return Table(
        _TABLE,
        MetaData(),
        Column("owner", String(64), primary_key=True),
        Column("name", String(160), primary_key=True),
        Column("piece", Integer, primary_key=True, autoincrement=False),
        Column("format", Integer, nullable=False),
        Column("pipeline", String(120), nullable=False),
        Column("content", LargeBinary(_PIECE), nullable=False),
    )
