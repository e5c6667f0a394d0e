"""The standard output, kept for results, and what is written to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from run_task.cli.shown import error_shown, shown
from run_task.sinks.jsonlines import line
from run_task.sinks.values import written

if TYPE_CHECKING:
    from run_task.dataset import DataSet


@contextmanager
def kept_for_results() -> Generator[BinaryIO]:
    """Give the standard output, and let all else that is printed go to the standard error: also
    what user code prints, in this process or in workers."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with suppress(BrokenPipeError), os.fdopen(kept, "wb", closefd=False) as stream:
            yield stream
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


class Results:
    """A sink that writes each DataSet as a line, at once.

    :param stream: where to
    :param encode: makes the line
    :param on_deaf: called when nobody reads them any more, as behind ``| head``
    """

    def __init__(
        self,
        stream: BinaryIO,
        encode: Callable[[str, DataSet[Any]], bytes],
        on_deaf: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._encode = encode
        self._on_deaf = on_deaf
        self._deaf = False

    def write(self, stage: str, dataset: DataSet[Any]) -> None:
        """Write a DataSet.

        :raises SinkError: if a result is not JSON
        """
        if self._deaf:
            return
        encoded = self._encode(stage, dataset)
        try:
            self._stream.write(encoded)
            self._stream.flush()
        except BrokenPipeError:
            self._deaf = True
            self._on_deaf()

    def flush(self) -> None:
        """Nothing: what was written is out."""

    def close(self) -> None:
        """Nothing: the standard output is not ours to close."""


def as_json(pipeline: str) -> Callable[[str, DataSet[Any]], bytes]:
    """Lines as those of a ``JsonLinesSink``.

    :param pipeline: the pipeline's name
    """
    return lambda stage, dataset: line(written(pipeline, stage, dataset))


def as_text(stage: str, dataset: DataSet[Any]) -> bytes:
    """A line that a person can read."""
    start, end = dataset.window
    parts = [f"{shown(name)}={shown(value)}" for name, value in dataset.items()]
    parts += [f"{shown(name)} failed: {error_shown(e)}" for name, e in dataset.errors.items()]
    return f"{shown(stage)} [{start}, {end})  {'; '.join(parts)}\n".encode(errors="replace")
