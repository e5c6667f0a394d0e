"""A file of results, of the kind that its name says."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from run_task._extras import need
from run_task.errors import ConfigError
from run_task.sinks import CsvSink, DurableSink, JsonLinesSink, ParquetSink, SqlSink
from run_task.sinks.files._parquet_long import schema


@contextmanager
def results_file(name: str, pipeline: str) -> Generator[DurableSink]:
    """Give a sink that writes to a file; it is complete once the block has ended.

    A ``.parquet`` file is made anew. To the others, windows are added, or written again.

    :param name: the file
    :param pipeline: the pipeline's name
    :raises ConfigError: if the name does not say of which kind it is
    """
    path = Path(name)
    match path.suffix.lower():
        case ".parquet":
            with _parquet(path) as sink:
                yield sink
            return
        case ".csv":
            made: CsvSink | JsonLinesSink | SqlSink = CsvSink(path)
        case ".jsonl" | ".ndjson":
            made = JsonLinesSink(path)
        case ".db" | ".sqlite" | ".sqlite3":
            made = SqlSink(path)
        case _:
            raise ConfigError(
                f"--out {name}: its name does not say what to write: end it with .parquet, .csv, "
                f".jsonl or .db"
            )
    try:
        yield made
    finally:
        made.close()


@contextmanager
def _parquet(path: Path) -> Generator[ParquetSink]:
    """One file, of the many that a sink writes into a folder, in constant memory."""
    need("pyarrow", "arrow")
    if path.is_dir():
        raise ConfigError(f"--out {path}: it is a folder: give the name of a file")
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise ConfigError(f"--out {path}: {error.strerror}: {str(path.parent)!r}") from error
    try:
        sink = ParquetSink(folder)
        try:
            yield sink
        finally:
            sink.close()
        _join(sorted(folder.glob("*.parquet")), folder / "whole")
        os.replace(folder / "whole", path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _join(parts: Sequence[Path], whole: Path) -> None:
    pa, pq = need("pyarrow", "arrow"), need("pyarrow.parquet", "arrow")
    with pq.ParquetWriter(whole, schema(pa)) as writer:
        for part in parts:
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches():
                    writer.write_batch(batch)
