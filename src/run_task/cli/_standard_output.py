"""The standard output, kept for results, and what is written to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from run_task.observe._format import error_shown, shown
from run_task.sinks._record import record
from run_task.sinks.encoding._json import Encoder
from run_task.sinks.files._json_lines import lines
from run_task.time._shown import window_shown

if TYPE_CHECKING:
    from run_task.pipeline import Pipeline
    from run_task.sinks import Result

Encode: TypeAlias = "Callable[[Result], bytes]"
"""Makes a line of a result."""


@contextmanager
def reserved_for_results() -> Generator[BinaryIO]:
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
    :param pipeline: whose results they are; it is shut down when they are no longer read, as
        behind ``| head``
    """

    def __init__(self, stream: BinaryIO, encode: Encode, pipeline: Pipeline) -> None:
        self._stream = stream
        self._encode = encode
        self._pipeline = pipeline
        self._nobody_reads = False

    def write(self, result: Result, /) -> None:
        """Write a result.

        :raises SinkError: if a result is not JSON
        """
        if self._nobody_reads:
            return
        encoded = self._encode(result)
        try:
            self._stream.write(encoded)
            self._stream.flush()
        except BrokenPipeError:
            self._nobody_reads = True
            self._pipeline.shutdown()

    def flush(self) -> None:
        """Nothing: what was written is out."""

    def close(self) -> None:
        """Nothing: the standard output is not ours to close."""


def as_json(result: Result) -> bytes:
    """A line as a ``JsonLinesSink`` has it.

    :raises SinkError: if a result is not JSON
    """
    return lines(record(result, Encoder()))


def as_text(result: Result) -> bytes:
    """A line that a person can read."""
    stage, dataset = result.stage, result.dataset
    parts = [f"{shown(name)}={shown(value)}" for name, value in dataset.items()]
    parts += [f"{shown(name)} failed: {error_shown(e)}" for name, e in dataset.errors.items()]
    window = window_shown(*dataset.window, dataset.interval)
    return f"{shown(stage)} {window}  {'; '.join(parts)}\n".encode(errors="replace")
