"""The standard output, kept for results, and what is written to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeAlias

from run_task.observe._format import error_shown, shown
from run_task.pipeline._key_watch import KeyWatch
from run_task.sinks._record import record
from run_task.sinks.encoding._json import Encoder
from run_task.sinks.files._json_lines import lines
from run_task.tasks._keyed import KeyedDataSet
from run_task.time._shown import window_shown

if TYPE_CHECKING:
    from run_task.pipeline import Pipeline
    from run_task.sinks import Result

_FEW: Final = 3
"""So many keys are told each by itself."""

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


def as_text(result: Result, key: str | None = None) -> bytes:
    """A line that a person can read. Of many keys, it tells what their results have in common.

    :param key: a part of the keys that are asked for; None: none in particular
    """
    stage, dataset = result.stage, result.dataset
    if isinstance(dataset, KeyedDataSet):
        parts = _by_key(dataset, key)
    else:
        parts = [f"{shown(name)}={shown(value)}" for name, value in dataset.items()]
        parts += [f"{shown(name)} failed: {error_shown(e)}" for name, e in dataset.errors.items()]
    parts += [f"without {shown(name)}" for name in dataset.behind]
    window = window_shown(*dataset.window, dataset.interval)
    return f"{shown(stage)} {window}  {'; '.join(parts)}\n".encode(errors="replace")


def _by_key(dataset: KeyedDataSet[Any, Any], wanted: str | None) -> list[str]:
    """What there is to tell of a window by key: each of a few keys, or all of many together."""
    watch = KeyWatch(wanted).look(dataset)
    count = watch.count
    parts = [f"{count:,} {shown(watch.by)} key{'' if count == 1 else 's'}"]
    if wanted is not None:
        parts[0] += f", {watch.matching:,} with {shown(wanted)}"
    if wanted is not None or count <= _FEW:
        keys = dataset.keys_of_rows if wanted is None else [each.key for each in watch.keys]
        for key in keys:
            told = [f"{shown(n)}={shown(of[key])}" for n, of in dataset.items() if key in of]
            told += [f"{shown(n)} failed" for n, of in dataset.items() if key in of.errors]
            parts.append(f"{shown(key)}: {', '.join(told)}")
        if watch.matching is not None and watch.matching > len(keys):
            parts.append(f"and {watch.matching - len(keys):,} more")
    else:
        for name, of in watch.tasks.items():
            if of.middle == of.middle:  # NaN: results are no numbers
                parts.append(
                    f"{shown(name)}={shown(of.middle)} ({shown(of.low)} to {shown(of.high)})"
                )
            elif of.done:
                parts.append(f"{shown(name)}: {of.done:,} results")
    return parts + _failures(dataset)


def _failures(dataset: KeyedDataSet[Any, Any]) -> list[str]:
    """By what each task failed: of those of single keys, the first."""
    parts: list[str] = []
    for name, of_task in dataset.items():
        if of_task.errors:
            key, error = next(iter(of_task.errors.items()))
            of = f"for {shown(key)}"
            if len(of_task.errors) > 1:
                of = f"for {len(of_task.errors):,} keys, as {shown(key)}"
            parts.append(f"{shown(name)} failed {of}: {error_shown(error)}")
    of_all = [(name, e) for name, e in dataset.errors.items() if isinstance(name, str)]
    return parts + [f"{shown(name)} failed: {error_shown(error)}" for name, error in of_all]
