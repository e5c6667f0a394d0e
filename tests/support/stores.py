"""Where checkpoints are kept, for tests that hold of all stores."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.databases import mariadb, postgres

from run_task import CheckpointStore, FolderStore, SqlStore

KINDS = ["folder", "sqlite", "postgres", "mariadb"]


class FolderPlace:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def store(self) -> CheckpointStore:
        """A store of what is kept there."""
        return FolderStore(self._folder)

    def contents(self) -> dict[str, bytes]:
        """All that is kept: ``checkpoint-NUMBER``, and ``part-NAME``."""
        found: dict[str, bytes] = {}
        for path in self._folder.iterdir():
            if match := re.fullmatch(r"(checkpoint|part)-[0-9a-f]{16}-(.*)\.(json|bin)", path.name):
                found[f"{match[1]}-{match[2]}"] = path.read_bytes()
        return found

    def put(self, name: str, content: bytes | None) -> None:
        """Put something there behind the store's back; None: it is gone."""
        kind, _, rest = name.partition("-")
        [mark] = self._folder.glob("run-task-checkpoints.json")
        drawn = re.findall(r"[0-9a-f]{16}", mark.read_text())[0]
        ending = "json" if kind == "checkpoint" else "bin"
        path = self._folder / f"{kind}-{drawn}-{rest}.{ending}"
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)

    def restore(self, contents: Mapping[str, bytes], *, but: str) -> None:
        """Put back what is gone, but one."""
        for name in contents.keys() - self.contents().keys() - {but}:
            self.put(name, contents[name])


class SqlPlace:
    """A database."""

    def __init__(self, url: str) -> None:
        self.url = url

    def store(self) -> CheckpointStore:
        """A store of what is kept there."""
        return SqlStore(self.url)

    def query(self, statement: str, **values: Any) -> list[Any]:
        """What the database answers."""
        import sqlalchemy

        engine = sqlalchemy.create_engine(self.url)
        try:
            with engine.begin() as connection:
                found = connection.execute(sqlalchemy.text(statement), values)
                return [*found] if found.returns_rows else []
        finally:
            engine.dispose()

    def contents(self) -> dict[str, bytes]:
        """All that is kept: ``checkpoint-NUMBER``, and ``part-NAME``."""
        pieces = self.query("SELECT name, content FROM run_task_checkpoints ORDER BY name, piece")
        found: dict[str, bytes] = {}
        for name, piece in pieces:
            found[name] = found.get(name, b"") + bytes(piece)
        return found

    def put(self, name: str, content: bytes | None) -> None:
        """Put something there behind the store's back; None: it is gone."""
        table = "run_task_checkpoints"
        if content is None:
            self.query(f"DELETE FROM {table} WHERE name = :name", name=name)
            return
        self.query(
            f"UPDATE {table} SET content = :content WHERE name = :name AND piece = 0",
            name=name,
            content=content,
        )

    def restore(self, contents: Mapping[str, bytes], *, but: str) -> None:
        """Put back what is gone, but one."""
        [(owner, pipeline)] = self.query(
            "SELECT DISTINCT owner, pipeline FROM run_task_checkpoints"
        )
        for name in contents.keys() - self.contents().keys() - {but}:
            self.query(
                "INSERT INTO run_task_checkpoints (owner, name, piece, format, pipeline, content)"
                " VALUES (:owner, :name, 0, 1, :pipeline, :content)",
                owner=owner,
                name=name,
                pipeline=pipeline,
                content=contents[name],
            )


Place = FolderPlace | SqlPlace


@contextmanager
def place_of(kind: str, folder: Path) -> Generator[Place]:
    """A place, until the block is left."""
    if kind == "folder":
        yield FolderPlace(folder)
        return
    pytest.importorskip("sqlalchemy")
    if kind == "sqlite":
        yield SqlPlace(f"sqlite:///{folder / 'state.db'}")
        return
    with postgres() if kind == "postgres" else mariadb() as url:
        yield SqlPlace(url)
