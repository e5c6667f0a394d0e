"""Which database a text names, how it is opened, and how it is told of without its secrets."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from run_task._extras import need
from run_task.errors import ConfigError, RunTaskError
from run_task.observe._format import SURROGATE, brief
from run_task.observe._url import looks_like_url, redacted, url_shown, user_in

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, Table

_LOCK_TIMEOUT_S: Final = 30
"""How many seconds SQLite waits for another program's transaction."""

_DRIVERS: Final = {
    "postgresql": ("psycopg[binary]", "postgresql+psycopg"),
    "postgres": ("psycopg[binary]", "postgresql+psycopg"),
    "mysql": ("pymysql", "mysql+pymysql"),
    "mariadb": ("pymysql", "mariadb+pymysql"),
    "mssql": ("pyodbc", "mssql+pyodbc"),
    "oracle": ("oracledb", "oracle+oracledb"),
    "duckdb": ("duckdb-engine", "duckdb"),
    "sqlite": ("", "sqlite"),
}
"""By kind of database: what to install, and with what its URLs then begin."""

_HARMLESS: Final = frozenset(
    {"charset", "client_encoding", "connect_timeout", "driver", "host", "mode", "port", "sslmode"}
    | {"timeout", "uri"}
)
"""Options in a URL whose values are no secrets."""


class Database:
    """A database, as its user names it.

    :param given: a path, for SQLite, or a URL of SQLAlchemy's
    :param owner: who uses it, for messages
    :param table: which table of it, for messages; None: none of its own
    :raises ConfigError: if that is no database, or its driver is not installed
    """

    def __init__(self, given: str | os.PathLike[str], owner: str, table: object = None) -> None:
        need("sqlalchemy", "sql")
        text: Any = given
        with suppress(TypeError):
            text = os.fspath(given)
        if not isinstance(text, str):
            raise ConfigError(
                f"{owner}: a {type(text).__name__} is no database: give a path or a URL, as a text"
            )
        if SURROGATE.search(text):
            raise ConfigError(f"{owner}: its database has no name that is a text in UTF-8")
        kind = text.partition(":")[0].partition("+")[0].lower()
        if "://" not in text and ":" in text and kind in _DRIVERS:
            raise ConfigError(
                f"{owner}({_scheme(text)!r}): this is no URL: write "
                f"{_DRIVERS[kind][1]}://user:password@host/database"
            )
        if "://" not in text and looks_like_url(text) and not Path(text).exists():
            raise ConfigError(
                f"{owner}({url_shown(text)!r}): this is neither a path nor a URL of a database: "
                f"write driver://user:password@host:port/database, as a text and not as a Path"
            )
        self.url: URL = _url(text, owner)
        self._secrets = _secrets(self.url, text)
        self.is_sqlite: Final = self.url.get_backend_name() == "sqlite"
        self.is_mysql: Final = self.url.get_backend_name() in ("mysql", "mariadb")
        told = "" if table is None else f", table={brief(table)}"
        self.where: Final = f"{owner}({_shown(self.url, is_url='://' in text)!r}{told})"
        self.is_file: Final = self.is_sqlite or self.url.get_backend_name() == "duckdb"
        name = (self.url.database or "").removeprefix("file:")  # SQLite's URIs of files
        if self.is_file and (name in ("", ":memory:") or self.url.query.get("mode") == "memory"):
            raise ConfigError(f"{self.where}: a database in memory does not last: give a path")
        if self.is_file and os.path.isdir(self.url.database or ""):
            raise ConfigError(f"{self.where}: this is a folder: give the path of a file")

    def engine(self) -> Engine:
        """What gives connections.

        :raises ConfigError: if the driver is not installed, or cannot be used
        """
        from sqlalchemy import create_engine, event
        from sqlalchemy.exc import NoSuchModuleError

        options: dict[str, Any] = {"pool_pre_ping": True, "hide_parameters": True}
        url = self.url
        driver = url.drivername.partition("+")[2]
        if self.is_sqlite:
            options["connect_args"] = {"timeout": _LOCK_TIMEOUT_S}
        elif self.is_mysql:
            # Else, rows that are not there are locked, too, and writers deadlock.
            options["isolation_level"] = "READ COMMITTED"
            if "charset" not in url.query and driver in ("pymysql", "mysqldb", "mysqlconnector"):
                url = url.update_query_dict({"charset": "utf8mb4"})
        elif driver.startswith("psycopg") and "client_encoding" not in url.query:
            options["connect_args"] = {"client_encoding": "utf8"}
        try:
            engine = create_engine(url, **options)
        except Exception as error:  # whatever a driver raises when it is imported
            missing = isinstance(error, ImportError | NoSuchModuleError)
            what = "the driver of this database is not installed" if missing else "cannot be used"
            raise ConfigError(
                f"{self.where}: {what}: {self.reason(error)}{_cure(url.drivername)}"
            ) from None
        if engine.dialect.is_async:
            raise ConfigError(
                f"{self.where}: this driver is for asyncio, and a sink has a thread"
                f"{_cure(url.drivername)}"
            )
        if self.is_sqlite:
            event.listen(engine, "connect", _set_up_sqlite)
        return engine

    @contextmanager
    def talking(self, kind: type[Exception], what: str) -> Generator[None]:
        """Whatever a driver raises is told in the library's terms, and without secrets."""
        try:
            yield
            return
        except RunTaskError:
            raise
        except Exception as error:
            told = kind(f"{self.where}: {what}: {self.reason(error)}")
        raise told from None  # whatever the cause is, it could show the URL

    def reason(self, error: BaseException) -> str:
        """What a database said, without SQLAlchemy's wrapping, and without secrets."""
        text = str(getattr(error, "orig", None) or error) or type(error).__name__
        return redacted(text, self._secrets)


def columns_of(connection: Connection, table: Table) -> list[str]:
    """The names of the columns that a table has in the database.

    An inspector does not know that everywhere: it asks DuckDB for what only PostgreSQL has.
    """
    from sqlalchemy import Integer, Select, false, literal_column, select

    query: Select[Any] = select(literal_column("*", Integer)).select_from(table)
    return list(connection.execute(query.where(false())).keys())


def _url(text: str, owner: str) -> URL:
    from sqlalchemy import URL, make_url

    if "://" not in text:
        return URL.create("sqlite", database=text)
    with suppress(Exception):  # whatever it says may quote the URL
        url = make_url(text)
        if "@" not in (url.host or ""):
            return url
    raise ConfigError(
        f"{owner}({_scheme(text)!r}): this is no URL of a database: write "
        f"driver://user:password@host:port/database, with %40 for an @ in the password, %2F for a "
        f"/, and %3A for a :"
    )


def _scheme(text: str) -> str:
    return f"{text.partition(':')[0]}://..."


def _shown(url: URL, *, is_url: bool) -> str:
    from sqlalchemy import URL

    if url.get_backend_name() == "sqlite":
        path = re.split("[?#;&]", url.database or "")[0] if is_url else url.database
        return URL.create(url.drivername, database=path).render_as_string()
    place = url.host or ""
    if ":" in place:
        place = f"[{place}]"
    if url.port is not None:
        place += f":{url.port}"
    return url_shown(f"{url.drivername}://{place}/{url.database or ''}")


def _secrets(url: URL, text: str) -> list[str]:
    """What may be in no message."""
    found = {url.password} if url.password else set[str]()
    for name, value in url.query.items():
        if name.lower() not in _HARMLESS:
            found.update([value] if isinstance(value, str) else value)
    found |= {text, *user_in(text)} - {url.username}  # whom the database does not know, it tells
    return [str(secret) for secret in found if secret]


def _cure(drivername: str) -> str:
    kind = drivername.partition("+")[0]
    package, scheme = _DRIVERS.get(kind, ("", ""))
    if package:
        return f": pip install '{package}', and write {scheme}://..."
    if scheme:
        return f": write {scheme}://..."
    known = ", ".join(f"{scheme}://" for _, scheme in sorted(set(_DRIVERS.values())))
    return f": URLs begin with {known}"


def _set_up_sqlite(connection: Any, _: object) -> None:
    connection.execute("PRAGMA synchronous=FULL").close()


def keep_a_write_ahead_log(engine: Engine) -> None:
    """Make that of an SQLite file, for good; readers then hold up no writer."""
    import sqlite3  # which only this needs

    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    for wait in _waits():
        connection = engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA journal_mode=WAL").close()
        except sqlite3.OperationalError as error:
            # For a change of the journal's mode, SQLite itself does not wait for others.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(wait)
        else:
            return
        finally:
            connection.close()


def _waits() -> Iterator[float]:
    """Seconds to wait before each attempt, longer and longer."""
    wait = 0.001
    while True:
        yield wait
        wait = min(2 * wait, 0.1)
