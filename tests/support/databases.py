"""Database servers for tests: those that run on this machine, or that it can start."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

RUNNING_POSTGRES = "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"
RUNNING_MARIADB = "mysql+pymysql://root@127.0.0.1:3306/mysql"


@contextmanager
def postgres(encoding: str = "UTF8") -> Generator[str]:
    """The URL of a new database, of the server that runs or of one that is started."""
    with own_database(
        RUNNING_POSTGRES, f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    ) as url:
        if url is not None:
            yield url
            return
    programs = _find_postgres()
    if programs is None:
        pytest.skip("there is no PostgreSQL server on this machine")
    with (
        _started(programs) as started,
        own_database(started, f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0") as url,
    ):
        assert url is not None
        yield url


@contextmanager
def mariadb() -> Generator[str]:
    """The URL of a new database of the server that runs."""
    pytest.importorskip("pymysql")
    with own_database(RUNNING_MARIADB, "") as url:
        if url is None:
            pytest.skip("no MariaDB or MySQL server runs on 127.0.0.1:3306 that root may enter")
        yield url


@contextmanager
def own_database(server: str, options: str) -> Generator[str | None]:
    """The URL of a new database, which is dropped; None where the server cannot be entered."""
    import sqlalchemy
    from sqlalchemy.exc import OperationalError

    pytest.importorskip("psycopg" if server.startswith("postgresql") else "pymysql")
    name = f"run_task_{secrets.token_hex(8)}"
    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT")
    try:
        try:
            with engine.connect() as connection:
                connection.execute(sqlalchemy.text(f"CREATE DATABASE {name} {options}"))
        except OperationalError:
            yield None
            return
        try:
            url = sqlalchemy.make_url(server).set(database=name)
            yield url.render_as_string(hide_password=False)
        finally:
            forced = " WITH (FORCE)" if server.startswith("postgresql") else ""
            with engine.connect() as connection:
                connection.execute(sqlalchemy.text(f"DROP DATABASE {name}{forced}"))
    finally:
        engine.dispose()


def _find_postgres() -> Path | None:
    """The folder of the server's programs, which Debian does not put in the PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


@contextmanager
def _started(programs: Path) -> Generator[str]:
    """Run a server in a temporary folder, and give its URL."""
    # Under /tmp, since the path of a socket may have 107 characters only.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    user = None
    if os.getuid() == 0:  # as root, it refuses to run
        user = "nobody"
        shutil.chown(folder, user)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [programs / program, *arguments],
            check=True,
            user=user,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    data = str(folder / "data")
    try:
        run("initdb", "-D", data, "-A", "trust", "-U", "tester", "--no-sync", "-E", "UTF8")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        run("pg_ctl", "start", "-w", "-D", data, "-o", options, "-l", str(folder / "log"))
        try:
            yield f"postgresql+psycopg://tester@/postgres?host={quote(str(folder), safe='')}"
        finally:
            run("pg_ctl", "stop", "-w", "-D", data, "-m", "immediate")
    finally:
        shutil.rmtree(folder)
