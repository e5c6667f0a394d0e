"""What tasks failed by, each cause once."""

from __future__ import annotations

import itertools
import threading
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final

from run_task.errors import TaskError, described, escaped
from run_task.observe._format import error_shown

_MOST: Final = 100
"""How many causes are kept."""

_MOST_FRAMES: Final = 20

_MOST_LINES: Final = 200

_FORMATTED_EVERY: Final = 0.1
"""How many seconds lie between two tracebacks that are made into text: that takes long."""


@dataclass(frozen=True, kw_only=True)
class FailureGroup:
    """What a task failed by, again and again.

    :param stage: the name of the stage
    :param task: the name of the task
    :param cause: what tells it from others: the type of the exception and where it was raised,
        or what happened
    :param what: the exception of the last time, in a line
    :param key: of which key that was; None: of none in particular
    :param first_at: when it was first seen, in seconds since the Unix epoch
    :param at: when it was last
    :param times: how many times
    :param number: the how many-th of all different ones it is
    :param traceback: where it was raised, in lines; None: nobody knows
    """

    stage: str
    task: str
    cause: str
    what: str
    key: Any
    first_at: float
    at: float
    times: int
    number: int
    traceback: str | None


class Failures:
    """Takes note of what tasks fail by. From any thread."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._groups: dict[tuple[str, str, str], FailureGroup] = {}  # the latest last
        self._different = 0
        self._formatted_at = 0.0
        self.version: int = 0
        """It grows with each that is noted."""

    def note(self, stage: str, errors: Iterable[TaskError]) -> None:
        """Take note of the errors of a window: of the first hundred.

        :param stage: the name of the stage
        :param errors: they
        """
        for error in itertools.islice(errors, _MOST):
            what = error_shown(error)
            place = (stage, error.task, _cause(error, what))
            with self._mutex:
                before = self._groups.pop(place, None)
                self._groups[place] = self._next(before, place, what, error)
                self.version += 1
                if len(self._groups) > _MOST:
                    del self._groups[next(iter(self._groups))]

    def _next(
        self,
        before: FailureGroup | None,
        place: tuple[str, str, str],
        what: str,
        error: TaskError,
    ) -> FailureGroup:
        now = time.time()
        text = None if before is None else before.traceback
        if text is None:
            text = self._traceback(error)
        if before is not None:
            times = before.times + 1
            return replace(before, what=what, key=error.key, at=now, times=times, traceback=text)
        self._different += 1
        stage, task, cause = place
        return FailureGroup(
            stage=stage,
            task=task,
            cause=cause,
            what=what,
            key=error.key,
            first_at=now,
            at=now,
            times=1,
            number=self._different,
            traceback=text,
        )

    def _traceback(self, error: TaskError) -> str | None:
        cause = error.__cause__
        if cause is None or (cause.__traceback__ is None and not hasattr(cause, "__notes__")):
            return None
        now = time.monotonic()
        if now - self._formatted_at < _FORMATTED_EVERY:
            return None
        self._formatted_at = now
        frames = traceback.format_tb(cause.__traceback__, -_MOST_FRAMES)
        lines = [*"".join(frames).split("\n"), *described(cause).split("\n")]
        lines += [
            line for note in getattr(cause, "__notes__", ()) for line in str(note).split("\n")
        ]
        return "\n".join(escaped(line) for line in lines[:_MOST_LINES] if line)

    def latest(self, most: int) -> Sequence[FailureGroup]:
        """The latest first.

        :param most: how many at most
        """
        with self._mutex:
            return list(itertools.islice(reversed(self._groups.values()), most))


def _cause(error: TaskError, what: str) -> str:
    """What tells a cause from others: a message may have a number in it that is another one each
    time, so of an exception its type and its place."""
    cause = error.__cause__
    place = None if cause is None else _place(cause.__traceback__)
    return what if place is None else f"{type(cause).__name__} at {escaped(place)}"


def _place(raised: TracebackType | None) -> str | None:
    if raised is None:
        return None
    while raised.tb_next is not None:
        raised = raised.tb_next
    name = raised.tb_frame.f_code.co_filename.replace("\\", "/").rpartition("/")[2]
    return f"{name}:{raised.tb_lineno}"
