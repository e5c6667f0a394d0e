"""The column ``error``: why tasks have no result, as a person reads it, and back.

Each entry begins a line, and further lines of it are indented by a blank. It begins with the task's
name, in the words of a TaskError. Others are for people alone: that a window lacks the results of
somebody who was behind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from run_task.sinks._record import error_text

GONE: Final = "this window has no rows any more"
"""What stands there, in the only row that a file has of a window that is there no more."""

_TOLD: Final = re.compile(r"task '([^'\\]*)' ")
"""How the text of a TaskError begins, where the task's name needs no escapes."""

_NONFINITE: Final = re.compile(r'column ("(?:[^"\\]|\\.)*") is (nan|inf|-inf), ')


class ErrorCell(NamedTuple):
    """What a cell of the column tells.

    :param tasks: why there is no result, by task
    :param numbers: numbers that the store does not have, by column
    """

    tasks: Mapping[str, str]
    numbers: Mapping[str, float]


def error_cell(errors: Iterable[tuple[str, str]]) -> str | None:
    """The errors of a row as one text; None if there are none.

    :param errors: the task, and why it has no result
    """
    return "\n".join(_entry(task, error_text(error)) for task, error in errors) or None


def with_missing(cell: str | None, behind: Sequence[str]) -> str:
    """The cell of a row that tells what a window lacks.

    :param behind: who was behind, and gave nothing for it
    """
    told = [f"without {error_text(repr(name))}, which was behind" for name in behind]
    return "\n".join([cell, *told] if cell else told)


def with_numbers(cell: str | None, numbers: Iterable[tuple[str, float]]) -> str:
    """The cell of a row in which columns have numbers that the store does not have."""
    told = [
        f"column {json.dumps(name, ensure_ascii=False)} is {number!r}, for which there is no "
        f"number here"
        for name, number in numbers
    ]
    return "\n".join([cell, *told] if cell else told)


def _entry(task: str, error: str) -> str:
    found = _TOLD.match(error)
    if found is None or found[1] != task:
        error = f"{json.dumps(task, ensure_ascii=False)}: {error}"
    return error.replace("\n", "\n ")


def read_error(cell: str | None) -> ErrorCell:
    """What a cell tells. An entry that somebody else has written is left out."""
    tasks: dict[str, str] = {}
    numbers: dict[str, float] = {}
    for folded in re.split("\n(?! )", cell) if cell else ():
        entry = folded.replace("\n ", "\n")
        if found := _NONFINITE.match(entry):
            numbers[json.loads(found[1])] = float(found[2])
        elif found := _TOLD.match(entry):
            tasks[found[1]] = entry
        elif entry.startswith('"'):
            with suppress(ValueError):
                task, end = json.JSONDecoder().raw_decode(entry)
                tasks[task] = entry[end:].removeprefix(": ")
    return ErrorCell(tasks, numbers)
