"""Files that a test appends rows to, each of which has the rows of its keys."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from run_task.sources import CsvFile, JsonLinesFile

Row = tuple[int, Mapping[str, Any]] | None
"""None: one that is malformed."""


class GrowingFiles:
    """Files in a folder, which a test appends to, in pieces that end anywhere.

    :param folder: the folder
    :param count: how many files there are
    :param columns: the columns of a row
    :param kind: ``"csv"`` or ``"jsonl"``
    """

    def __init__(
        self, folder: Path, count: int, columns: Mapping[str, type[Any]], kind: str = "csv"
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.count = count
        self.paths = [folder / f"{number}.{kind}" for number in range(count)]
        self._columns = columns
        self._is_csv = kind == "csv"
        self._chance = random.Random(1)
        self._renamed = 0

    def source(self, **options: Any) -> CsvFile | JsonLinesFile:
        """All of them as one source."""
        kind = CsvFile if self._is_csv else JsonLinesFile
        given: dict[str, Any] = {"poll": "5ms", "columns": self._columns, **options}
        return kind(self.paths, follow=True, **given)

    def put(self, number: int, *rows: Row) -> None:
        """Append rows to one of them."""
        path = self.paths[number]
        text = "".join(map(self._line, rows))
        if self._is_csv and not path.exists():
            text = f"timestamp,{','.join(self._columns)}\n{text}"
        half = self._chance.randrange(len(text) + 1)
        with path.open("ab", buffering=0) as file:
            for piece in (text[:half], text[half:]):
                file.write(piece.encode())

    def rename(self, number: int) -> None:
        """Have another one come in the place of one, if that is there."""
        path = self.paths[number]
        if path.exists():
            self._renamed += 1
            path.rename(path.with_name(f"{path.name}.{self._renamed}"))

    def _line(self, row: Row) -> str:
        if row is None:
            return "rubbish\n"
        time, values = row
        if self._is_csv:
            return f"{time},{','.join(str(values[name]) for name in self._columns)}\n"
        return json.dumps({"timestamp": time, **values}) + "\n"
