"""Results of tasks as something that can be stored, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from run_task.errors import SinkError
from run_task.observe._format import SURROGATE, shown
from run_task.sinks._protocol import Result, Row, StageOutput
from run_task.sinks.encoding._json import Encoder, Fallback, dumps, value_of
from run_task.sinks.encoding._tag import Types, UnencodableError
from run_task.tasks._keyed import KeyedDataSet
from run_task.time._interval import TimeUnit

FORMAT: Final = 2
"""The version of the form in which results are stored. In 1, times had no unit, and there was no
key, no bucket and no revision."""

_LONGEST_ERROR: Final = 10_000
"""How many characters of an error are kept."""


class TaskRecord(NamedTuple):
    """One task's result, ready to be stored.

    :param task: the task's name
    :param number: the result, if it is a number (and no bool); an int that is larger than a float
        can tell is rounded
    :param text: the result as JSON, with the ``NaN`` and ``Infinity`` that Python's json has
    :param error: why there is no result; None if there is one
    :param key: of which key of the data it is
    """

    task: str
    number: float | None
    text: str | None
    error: str | None
    key: str = ""

    @property
    def beyond_number(self) -> str | None:
        """The text, if the number alone does not tell the result to the last bit and by its type.

        For a float it does, except for NaN, which SQLite takes for NULL, and for minus zero, which
        it takes for zero.
        """
        if self.number is not None and repr(self.number) == self.text and self.text != "-0.0":
            return None
        return self.text


GONE: Final = TaskRecord("", None, None, "")
"""What stands in a file, in the place of tasks, of a window that is there no more: an error without
words, which no task has."""


StageKey: TypeAlias = tuple[str, str, int]
"""A pipeline, a stage, and a bucket: of these, windows follow one another."""


class WindowKey(NamedTuple):
    """What a window's results are replaced by, all of them: a later window of the same key."""

    pipeline: str
    stage: str
    start: int
    end: int
    bucket: int

    @property
    def stage_key(self) -> StageKey:
        """Of what it is a window."""
        return self.pipeline, self.stage, self.bucket


class WindowRecord(NamedTuple):
    """A window's results, ready to be stored."""

    key: WindowKey
    unit: str | None
    revision: int
    tasks: tuple[TaskRecord, ...]
    elsewhere: Collection[str] | None = ()
    """As of :class:`Result`, with keys as they are stored."""
    behind: Sequence[str] = ()
    """Who gave nothing for it: of which lines of JSON tell, and no table of such columns."""

    @property
    def is_empty(self) -> bool:
        """Whether there is no task, of which a row could tell."""
        return not self.tasks

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """A row for each task, as a table of columns has it."""
        pipeline, stage, start, end, bucket = self.key
        for position, task in enumerate(self.tasks):
            yield {
                "format": FORMAT,
                "pipeline": pipeline,
                "stage": stage,
                "key": task.key,
                "bucket": bucket,
                "window_start": start,
                "window_end": end,
                "unit": self.unit,
                "revision": self.revision,
                "task": task.task,
                "position": position,
                "value": task.number,
                "json": task.beyond_number,
                "error": task.error,
            }


class LongForm:
    """A row a task, window and key, of any pipelines and stages.

    :param encode: makes of a value that has no form in JSON another that has one
    :param check: refuses what a sink in particular cannot store
    """

    def __init__(
        self, encode: Fallback | None, check: Callable[[WindowRecord], None] | None = None
    ) -> None:
        self._encoder = Encoder(encode)
        self._check = check

    is_of_one_stage = False

    def begin(self, _pipeline: str) -> str | None:
        """It takes any."""
        return None

    def declare(self, _output: StageOutput) -> str | None:
        """It takes whatever comes."""
        return None

    def record(self, result: Result) -> WindowRecord:
        """A result, ready to be stored.

        :raises SinkError: if a name, a number or a task's result cannot be
        """
        window = record(result, self._encoder)
        if self._check is not None:
            self._check(window)
        return window

    def has_result(self, _row: Row) -> bool:
        """Whether a row tells of a result or an error: each does."""
        return True

    def value(self, stored: Any, types: Types) -> Any:
        """The value that JSON tells.

        :raises UndecodableError: if it does not become what was stored
        """
        return value_of(stored, types)


def record(result: Result, encoder: Encoder) -> WindowRecord:
    """A result, ready to be stored.

    :param encoder: makes JSON of the tasks' results
    :raises SinkError: if a name, a number or a task's result cannot be
    """
    pipeline, stage, window, revision, dataset, bucket, elsewhere = result
    values: Iterable[tuple[str, Any, Any]]
    errors: list[tuple[str, Any, str]] = []
    if isinstance(dataset, KeyedDataSet):
        for name, error in dataset.errors.items():
            task, of_key = name if isinstance(name, tuple) else (name, None)
            errors.append((task, of_key, str(error)))
        values = ((t, key, value) for key, row in dataset.rows() for t, value in row.items())
    else:
        errors = [(task, None, str(error)) for task, error in dataset.errors.items()]
        values = ((task, None, value) for task, value in dataset.items())
    unit = None if result.unit is None else result.unit.value
    key = WindowKey(pipeline, stage, *window, bucket)
    made = window_record(key, unit, revision, values, errors, encoder)
    if dataset.behind:
        made = made._replace(behind=dataset.behind)
    if elsewhere is None or elsewhere:
        return made._replace(elsewhere=elsewhere and frozenset(map(str, elsewhere)))
    return made


def window_record(
    key: WindowKey,
    unit: str | None,
    revision: int,
    values: Iterable[tuple[str, Any, Any]],
    errors: Iterable[tuple[str, Any, str]],
    encoder: Encoder,
) -> WindowRecord:
    """A window's results, ready to be stored.

    :param values: results: of which task, for which key or None, and what it is
    :param errors: why there is none: of which task, for which key or None, and in words
    :raises SinkError: if a name, a key, a number or a task's result cannot be
    """
    stage = key.stage
    values, errors = list(values), list(errors)
    for name in dict.fromkeys((stage, *(v[0] for v in values), *(e[0] for e in errors))):
        if not is_storable(name):
            raise SinkError(f"stage {stage!r}: {name!r} is no name that can be stored: rename it")
    for name, number in (("start", key.start), ("end", key.end)):
        if not -(2**63) <= number < 2**63:
            raise SinkError(f"stage {stage!r}: the window's {name}, {number}, takes over 64 bits")
    for name, number in (("revision", revision), ("bucket", key.bucket)):
        if type(number) is not int or not 0 <= number < 2**31:
            raise SinkError(f"stage {stage!r}: {name}={number!r} is not an int from 0 to 2**31 - 1")
    tasks = [_task_record(stage, task, key, value, encoder) for task, key, value in values]
    tasks += [
        TaskRecord(task, None, None, error_text(error), _key_text(stage, task, key))
        for task, key, error in errors
    ]
    return WindowRecord(key, unit, revision, tuple(tasks))


def key_of(row: Row) -> WindowKey:
    """The key of the window that a row is of."""
    return WindowKey(row.pipeline, row.stage, row.start, row.end, row.bucket)


def is_gone(row: Row) -> bool:
    """Whether a row tells that its window is there no more."""
    return not row.task and row.error == ""


def unit_of(text: str | None) -> TimeUnit | None:
    """The unit that was stored.

    :raises ValueError: if there is none of that name
    """
    return TimeUnit(text) if text else None


def is_storable(name: str) -> bool:
    """Whether a text is one in UTF-8 without a zero, as every file and database takes it."""
    return "\0" not in name and SURROGATE.search(name) is None


def restored(number: float | None, beyond_number: str | None, where: str) -> Any:
    """What JSON has of the result that was stored as a number and a text.

    :param where: what is read, for messages
    :raises SinkError: if the text is no JSON, or nested too deep to be read
    """
    if beyond_number is None:
        return number
    try:
        return json.loads(beyond_number)
    except (ValueError, RecursionError) as error:
        raise SinkError(
            f"{where}: {shown(beyond_number[:100])!r} is no value that a sink has stored: {error}"
        ) from None


def _key_text(stage: str, task: str, key: Any) -> str:
    """A key of the data as it is stored.

    :raises SinkError: if it cannot be
    """
    if key is None:
        return ""
    text = str(key)
    if not text or not is_storable(text):
        raise SinkError(
            f"stage {stage!r}, task {task!r}: key {key!r} is none that can be stored: it is a text "
            f"that is not empty, of valid Unicode without a zero"
        )
    return text


def _task_record(stage: str, task: str, key: Any, value: Any, encoder: Encoder) -> TaskRecord:
    of_key = _key_text(stage, task, key)
    where = f", key {key!r}" if of_key else ""
    try:
        tree = encoder.tree(value)
    except UnencodableError as error:
        raise SinkError(
            f"stage {stage!r}, task {task!r}{where}: its result, a "
            f"{type(value).__qualname__}, cannot be stored: {error}"
        ) from error.__cause__
    if type(tree) is float:
        text = repr(tree) if math.isfinite(tree) else dumps(tree)
        return TaskRecord(task, tree, text, None, of_key)
    if type(tree) is int:
        return TaskRecord(task, _as_float(tree), repr(tree), None, of_key)
    return TaskRecord(task, None, dumps(tree), None, of_key)


def _as_float(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def error_text(error: str) -> str:
    """An error's text as every file and database takes it."""
    # What no text in UTF-8 can hold, and no database takes, must not cost the window.
    text = error[:_LONGEST_ERROR].encode("utf-8", "backslashreplace").decode()
    return text.replace("\0", "\\x00")
