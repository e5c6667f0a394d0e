"""Checkpoints in a database: whose tables, whose lock, and what becomes of them after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import checkpointed
from tests.support.databases import mariadb, postgres
from tests.support.forking import ROOT, Forking
from tests.support.stores import SqlPlace, place_of
from tests.support.tcp_proxy import proxy
from tests.support.threads import PATIENCE

from run_task import ConfigError, SqlStore

pytest.importorskip("sqlalchemy")

DATABASES = ["sqlite", "postgres", "mariadb"]


@pytest.fixture(params=DATABASES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlPlace]:
    with place_of(request.param, tmp_path) as found:
        assert isinstance(found, SqlPlace)
        yield found


def test_pipelines_in_one_database_are_kept_apart_by_name(place: SqlPlace) -> None:
    names = ["p", "P", "p ", "ä" * 300, "\udcff"]
    stores = [place.store() for _ in names]
    try:
        for store, name in zip(stores, names):
            store.begin(name)
            store.save(1, name.encode("utf-8", "surrogatepass"), {"rows-1-0": b"\0of it"})
        stores[0].save(2, b"2", {})
        stores[0].keep([2], [])
        assert [list(store.numbers()) for store in stores] == [[2], [1], [1], [1], [1]]
        for store, name in zip(stores[1:], names[1:]):
            assert store.load(1) == name.encode("utf-8", "surrogatepass")
            assert store.part("rows-1-0") == b"\0of it"
        with pytest.raises(OSError, match="part-rows-1-0 is gone"):
            stores[0].part("rows-1-0")
    finally:
        for store in stores:
            store.close()


def test_a_large_part_is_kept_in_pieces_and_a_checkpoint_as_a_whole(place: SqlPlace) -> None:
    store = place.store()
    store.begin("p")
    try:
        large = bytes(range(256)) * 4096 * 2 + b"the rest"
        store.save(7, b"text", {"rows-7-0": large, "rows-7-1": b""})
        assert store.part("rows-7-0") == large
        assert store.part("rows-7-1") == b""
        with pytest.raises(OSError, match="cannot be written"):
            store.save(7, b"another", {"rows-8-0": b"new"})  # that number is taken
        assert store.load(7) == b"text"
        with pytest.raises(OSError, match="part-rows-8-0 is gone"):
            store.part("rows-8-0")
    finally:
        store.close()


def test_a_table_of_somebody_else_and_other_tables_stay_as_they_are(place: SqlPlace) -> None:
    place.query("CREATE TABLE theirs (a INTEGER)")
    place.query("INSERT INTO theirs VALUES (1)")
    place.query("CREATE TABLE run_task_checkpoints (a INTEGER)")
    with pytest.raises(ConfigError, match=r"is none of checkpoints: it has the columns a: take an"):
        place.store().begin("p")
    assert place.query("SELECT * FROM run_task_checkpoints") == []
    assert place.query("SELECT a FROM theirs") == [(1,)]


HOLDER = """
import sys
from run_task import SqlStore
store = SqlStore(sys.argv[1])
store.begin("p")
store.save(1, b"text", {"rows-1-0": b"rows"})
print("has it", flush=True)
sys.stdin.readline()
"""


def test_a_process_that_is_killed_lets_go_of_it_and_leaves_what_it_saved(place: SqlPlace) -> None:
    store = place.store()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, place.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "has it\n"
        with pytest.raises(ConfigError, match="another process that runs has the checkpoints of"):
            store.begin("p")
        other = place.store()
        other.begin("q")
        other.close()
        holder.send_signal(signal.SIGKILL)
        holder.wait(PATIENCE)
        until_it_begins(store)
        assert list(store.numbers()) == [1]
        assert store.part("rows-1-0") == b"rows"
    finally:
        store.close()
        holder.kill()
        holder.communicate()


def until_it_begins(store: Any) -> None:
    """A server notices within a moment that a process has gone."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            store.begin("p")
        except ConfigError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            return


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_a_connection_that_is_lost_is_made_again_unless_another_has_gone_on(kind: str) -> None:
    from sqlalchemy import make_url

    with postgres() if kind == "postgres" else mariadb() as url:
        found = make_url(url)
        if not found.port or not found.host:
            pytest.skip("the server that was started listens at no port")
        with proxy(found.host, found.port) as between:
            where = found.set(port=between.port, host="127.0.0.1")
            store = SqlStore(where.render_as_string(hide_password=False))
            other = SqlStore(url)
            try:
                store.begin("p")
                store.save(1, b"one", {})
                between.cut()
                for _ in range(2):
                    with pytest.raises(OSError, match="cannot be written"):
                        store.save(2, b"two", {})
                between.resume()
                until_it_saves(store, 3)
                assert store.load(3) == b"three"
                between.cut()
                until_it_begins(other)
                other.save(4, b"another's", {})
                between.resume()
                with pytest.raises(OSError, match="cannot be written"):  # over what is lost
                    store.save(5, b"five", {})
                with pytest.raises(ConfigError, match="another process that runs has"):
                    store.save(5, b"five", {})
                other.close()
                with pytest.raises(OSError, match="another process has gone on meanwhile"):
                    until_it_saves(store, 5)
                other.begin("p")
                assert list(other.numbers()) == [1, 3, 4]
            finally:
                store.close()
                other.close()


def until_it_saves(store: SqlStore, number: int) -> None:
    """The server may still hold the lock of a connection that was cut."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            store.save(number, b"three", {})
        except ConfigError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            return


def test_what_is_no_database_for_it_is_refused_and_no_secret_is_shown(tmp_path: Path) -> None:
    shared = "sqlite:///file:x?mode=memory&cache=shared&uri=true"
    for memory in ("sqlite://", "sqlite:///file::memory:?uri=true", shared):
        with pytest.raises(ConfigError, match="a database in memory does not last"):
            SqlStore(memory)
    with pytest.raises(ConfigError, match="checkpoints are kept in PostgreSQL, MariaDB, MySQL or"):
        SqlStore(f"duckdb:///{tmp_path / 'x.db'}")
    away = SqlStore("postgresql+psycopg://me:s3cret-one@127.0.0.1:1/x")
    with pytest.raises(ConfigError, match="it cannot be used") as told:
        away.begin("p")
    for text in (str(told.value), repr(away)):
        assert "s3cret" not in text
        assert "127.0.0.1:1" in text


def test_after_kills_the_results_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    expected = tmp_path / "undisturbed"
    expected.mkdir()
    checkpointed.write_csv(expected)
    with checkpointed.pipeline("csv", expected, checkpoint=False).replay() as replay:
        for _ in replay:
            pass
    where = tmp_path / "killed"
    where.mkdir()
    checkpointed.write_csv(where)
    with postgres() as url:
        (where / "store").write_text(url)
        with Forking("checkpointed", "csv", str(where)) as program:
            for kill in (True, True, False):
                program.start()
                assert program.line() == "runs\n"  # there is a checkpoint
                if kill:
                    program.kill()
                assert ("ended\n" in program.reap()) is not kill
            program.finish()
    assert [*checkpointed.results(where)] == [*checkpointed.results(expected)]
