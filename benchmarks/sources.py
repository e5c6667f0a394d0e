"""What reading a file costs: rows checked against their declaration, beside pyarrow, which reads
the same file and checks nothing; and whether a longer file takes more memory.

A row has a timestamp, a float, an int and the name of one of fifty instruments.
"""

from __future__ import annotations

import importlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.apart import apart
from benchmarks.measure import Figure
from benchmarks.question import Bound, Effort, Goal, Line, Question, Role, Section, Skipped
from run_task.sources import ArrowFile, CsvFile, JsonLinesFile, ParquetFile

FIRST = 1_700_000_000_000
BLOCK = 100_000
"""How many rows are written at a time."""

NAMES = [f"instrument-{number}" for number in range(50)]
COLUMNS = {"price": float, "size": int, "name": str}
AS_PYARROW = Goal(Bound.AT_MOST, 2.5)
NO_MORE = Goal(Bound.AT_MOST, 1.25)


def block(first: int, count: int) -> Any:
    """Some rows, as an Arrow table."""
    pa: Any = importlib.import_module("pyarrow")
    random = np.random.default_rng(first)
    names = np.array(NAMES)
    return pa.table(
        {
            "timestamp": np.arange(FIRST + first, FIRST + first + count),
            "price": random.normal(100, 5, count).round(3),
            "size": random.integers(1, 1000, count),
            "name": names[random.integers(0, len(names), count)],
        }
    )


def blocks(rows: int) -> Iterator[Any]:
    return (block(first, min(BLOCK, rows - first)) for first in range(0, rows, BLOCK))


def write_csv(path: Path, rows: int) -> None:
    csv: Any = importlib.import_module("pyarrow.csv")
    with csv.CSVWriter(path, block(0, 1).schema) as writer:
        for table in blocks(rows):
            writer.write(table)


def write_json_lines(path: Path, rows: int) -> None:
    lines = "".join(f"{json.dumps(row)}\n" for row in block(0, min(BLOCK, rows)).to_pylist())
    with path.open("w") as file:
        for _ in range(0, rows, BLOCK):  # the same again: to make new ones takes minutes
            file.write(lines)


def write_parquet(path: Path, rows: int) -> None:
    parquet: Any = importlib.import_module("pyarrow.parquet")
    with parquet.ParquetWriter(path, block(0, 1).schema) as writer:
        for table in blocks(rows):
            writer.write(table)


def write_arrow(path: Path, rows: int) -> None:
    ipc: Any = importlib.import_module("pyarrow.ipc")
    options = ipc.IpcWriteOptions(compression="lz4")
    with ipc.new_file(path, block(0, 1).schema, options=options) as writer:
        for table in blocks(rows):
            writer.write_table(table, max_chunksize=1 << 16)  # as Feather has it


def write_categories(path: Path, rows: int) -> None:
    ipc: Any = importlib.import_module("pyarrow.ipc")
    tables = (encoded(table) for table in blocks(rows))
    first = next(tables)
    options = ipc.IpcWriteOptions(compression="lz4", emit_dictionary_deltas=True)
    with ipc.new_file(path, first.schema, options=options) as writer:
        for table in (first, *tables):
            writer.write_table(table, max_chunksize=1 << 16)


def encoded(table: Any) -> Any:
    """A table with its names as places in a dictionary, as data frames have categories."""
    pa: Any = importlib.import_module("pyarrow")
    names = pa.array(NAMES)
    places = importlib.import_module("pyarrow.compute").index_in(table["name"], names)
    column = pa.DictionaryArray.from_arrays(places.combine_chunks(), names)
    return table.set_column(3, "name", column)


def read_csv(path: str) -> Any:
    return importlib.import_module("pyarrow.csv").read_csv(path)


def read_json_lines(path: str) -> Any:
    return importlib.import_module("pyarrow.json").read_json(path)


def read_parquet(path: str) -> Any:
    return importlib.import_module("pyarrow.parquet").read_table(path)


def read_arrow(path: str) -> Any:
    pa: Any = importlib.import_module("pyarrow")
    with pa.OSFile(path) as file, pa.ipc.open_file(file) as reader:
        return reader.read_all()


KINDS: dict[str, tuple[Any, Callable[[Path, int], None], Callable[[str], Any]]] = {
    "CsvFile": (CsvFile, write_csv, read_csv),
    "JsonLinesFile": (JsonLinesFile, write_json_lines, read_json_lines),
    "ParquetFile": (ParquetFile, write_parquet, read_parquet),
    "ArrowFile": (ArrowFile, write_arrow, read_arrow),
    "ArrowFile of categories": (ArrowFile, write_categories, read_arrow),
}


def read(kind: str, path: str) -> int:
    """Read a file by a source, and give the number of its rows."""
    source = KINDS[kind][0](path, columns=COLUMNS)
    rows = sum(len(batch) for batch in source.batches())
    assert not source.malformed
    return rows


def times(
    kind: str, path: str, repeats: int
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Milliseconds that a file takes, elapsed and of CPU, by pyarrow and by a source.

    :return: for each repeat, pyarrow's elapsed time and CPU time, and the source's
    """
    found: tuple[list[float], ...] = ([], [], [], [])
    for number in range(repeats + 1):
        readings: tuple[Callable[[str], object], ...] = (KINDS[kind][2], partial(read, kind))
        for at, reading in enumerate(readings):
            begun, cpu = time.perf_counter(), time.process_time()
            reading(path)
            if number:  # the first is to warm up
                found[2 * at].append((time.perf_counter() - begun) * 1e3)
                found[2 * at + 1].append((time.process_time() - cpu) * 1e3)
    return found[0], found[1], found[2], found[3]


def most_memory(kind: str, path: str) -> tuple[int, float]:
    """How many rows a file has, and the most memory that this process had to read it, in MB, beyond
    what it had before. It takes Linux, and a process of its own."""
    for module in ("csv", "json", "parquet", "ipc", "compute"):
        importlib.import_module(f"pyarrow.{module}")
    before = _kilobytes("VmRSS")
    rows = read(kind, path)
    return rows, (_kilobytes("VmHWM") - before) / 1000


def _kilobytes(which: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(which))


def sources(effort: Effort) -> Iterator[Question | Skipped]:
    rows, few, many = 1_000_000, 1_000_000, 10_000_000
    remembered = list(KINDS)
    if effort.seconds < 0.3:
        few, many = 200_000, 2_000_000
    if effort.seconds < 0.1:  # to see whether it runs at all
        rows, few, many = 2_000, 1_000, 4_000
        remembered = remembered[:1]
    with tempfile.TemporaryDirectory() as folder:
        for kind, (_, write, _) in KINDS.items():
            path = Path(folder) / kind
            write(path, rows)
            floor, floor_cpu, ours, ours_cpu = times(kind, str(path), max(effort.repeats, 3))
            path.unlink()
            rate = [rows / took for took in ours]
            yield Question(
                f"Sources: ms for {rows:,} rows by {kind}, beside pyarrow without any check",
                [
                    Line("pyarrow", Role.FLOOR, "ms", Figure.of(floor)),
                    Line(
                        kind,
                        Role.OURS,
                        "ms",
                        Figure.of(ours),
                        Figure.of_ratios(ours, floor),
                        AS_PYARROW,
                    ),
                    Line(
                        f"{kind}, CPU time",
                        Role.OURS,
                        "ms",
                        Figure.of(ours_cpu),
                        Figure.of_ratios(ours_cpu, floor_cpu),
                    ),
                    Line("rows a second", Role.OURS, "1000/s", Figure.of(rate)),
                ],
            )
        yield Question(
            f"Memory: most of it to read {many:,} rows, MB, and over that of {few:,}",
            [_memory(kind, Path(folder), few, many) for kind in remembered],
        )


def _memory(kind: str, folder: Path, few: int, many: int) -> Line:
    path = folder / kind
    most: list[float] = []
    for rows in (few, many):
        KINDS[kind][1](path, rows)
        found = apart(kind, most_memory, kind, str(path))
        path.unlink()
        if isinstance(found, Skipped):
            raise RuntimeError(f"{found.name}: {found.why}")
        assert found[0] >= rows
        most.append(found[1])
    return Line(
        kind,
        Role.OURS,
        "MB",
        Figure.of([most[1]]),
        Figure.of_ratios([most[1]], [most[0]]),
        NO_MORE,
    )


SECTION = Section("sources", sources)
