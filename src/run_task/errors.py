"""Every error that run-task raises.

All of them derive from :class:`RunTaskError`; those that stand for a built-in kind of error
derive from that one too, so ``except TimeoutError`` and ``except ValueError`` work as expected.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from run_task._window import Window


def escaped(text: str) -> str:
    r"""A text on one line, in which what is not printable stands as Python would write it, such as
    ``\x1b`` and ``\n``: it neither steers a terminal nor begins a line of a log.

    :param text: any text, also one that came out of a file or over a network
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def described(error: BaseException) -> str:
    """Type and text of an exception, also of one whose own text raises.

    :param error: any exception, also one of a class of the user's
    """
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException as raised:  # also SystemExit, which is not to end who tells of it
        return f"{name}, whose own text raises {type(raised).__name__}"
    return f"{name}: {text}" if text else name


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception, if it takes one: a frozen dataclass does not.

    :param error: any exception, also one of a class of the user's
    :param note: what to add
    """
    with contextlib.suppress(Exception):
        error.add_note(note)


class RunTaskError(Exception):
    """The base of every error of this library.

    Its text is one line without control characters, whatever the data that it tells of; only that
    of a :class:`TaskError` is as the task's exception has it.
    """

    def __str__(self) -> str:
        return escaped(super().__str__())


class ConfigError(RunTaskError, ValueError):
    """What was asked for cannot work; the message names the culprit and the cure."""


class ChannelClosed(RunTaskError):
    """Nothing more can go through this channel."""


class LockTimeout(RunTaskError, TimeoutError):
    """The shared data could not be read or written in time."""


class ShutdownTimeout(RunTaskError, TimeoutError):
    """A runner did not end within its ``shutdown_timeout``.

    :ivar runner: the runner's name
    :ivar timeout: its ``shutdown_timeout``, in seconds
    :ivar tasks: the names of the tasks that were still running
    """

    def __init__(self, runner: str, timeout: float, tasks: Iterable[str] = ()) -> None:
        self.runner = runner
        self.timeout = timeout
        self.tasks: tuple[str, ...] = tuple(tasks)
        super().__init__(runner, timeout, self.tasks)

    def __str__(self) -> str:
        if self.tasks:
            culprits = "still running: " + ", ".join(map(repr, self.tasks))
        else:
            culprits = "no task is running: is its data's read() or its clock stuck?"
        return escaped(
            f"runner {self.runner!r} did not end within shutdown_timeout={self.timeout:g} s; "
            f"{culprits}"
        )


def _in_ints(start: int, end: int) -> str:
    return f"[{start}, {end})"


class TaskError(RunTaskError):
    """A task gave no result for one window. What it raised is the ``__cause__``.

    :ivar task: the name of the task
    :ivar window: the window ``[start, end)`` that has no result, in the interval's unit
    :ivar reason: what happened, where it was no exception of the task's
    :ivar key: for which key it has none; None: the task is run without keys, or has none for any
    :ivar shown_window: the window as messages have it: by its times, in an error of a DataSet that
        knows them
    """

    def __init__(
        self, task: str, window: Window, reason: str | None = None, key: str | int | None = None
    ) -> None:
        self.task = task
        self.window = window
        self.reason = reason
        self.key = key
        self.shown_window: str = _in_ints(*window)
        super().__init__(task, window, reason, key)

    def show_windows(self, shown: Callable[[int, int], str]) -> None:
        """Tell windows by their times from now on, as the DataSet does that knows their interval.

        :param shown: gives the text for a start and an end
        """
        self.shown_window = shown(*self.window)

    def __str__(self) -> str:
        # As the task has it: this is what sinks store. Whoever shows it escapes it.
        key = "" if self.key is None else f"{self.key!r} in "
        return f"task {self.task!r} gave no result for {key}{self.shown_window}: {self._reason()}"

    @property
    def told(self) -> str:
        """Why there is no result, in words."""
        return self._reason()

    def _reason(self) -> str:
        if self.reason is not None:
            return self.reason
        cause = self.__cause__
        if cause is None:
            return "it failed"
        return described(cause)


class TaskTimeout(TaskError, TimeoutError):
    """A task ran for longer than ``task_timeout``, or was still running from an earlier window.

    :ivar since: the window from which it was still running; None: that is not why
    """

    def __init__(
        self,
        task: str,
        window: Window,
        reason: str | None = None,
        key: str | int | None = None,
        *,
        since: Window | None = None,
    ) -> None:
        super().__init__(task, window, reason, key)
        self.since = since
        if since is not None:
            self._tell_since(_in_ints(*since))

    def show_windows(self, shown: Callable[[int, int], str]) -> None:
        super().show_windows(shown)
        if self.since is not None:
            self._tell_since(shown(*self.since))

    def _tell_since(self, shown: str) -> None:
        self.reason: str | None = f"it is still running from the window {shown}"


class TaskLost(TaskError):
    """The worker process that ran the task died."""


class SourceError(RunTaskError):
    """A source gave something that cannot be used as a row.

    :ivar source: where it stands: a file's path, or what the source is called
    :ivar line: in which line, counted from 1; in a Parquet file, which row; None: no line is to
        blame
    :ivar column: in which column; None: the row as a whole is wrong
    :ivar reason: what stands there, and what is wrong with it
    :ivar given: what stands there, where it is a message: its text, its bytes if it is none, or
        what of its rows is wrong; else None
    """

    def __init__(self, source: str, line: int | None, column: str | None, reason: str) -> None:
        self.given: object = None
        self.source = source
        self.line = line
        self.column = column
        self.reason = reason
        super().__init__(source, line, column, reason)

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        column = "" if self.column is None else f", column {self.column!r}"
        return escaped(f"{self.source}{line}{column}: {self.reason}")


class SinkError(RunTaskError):
    """A sink cannot store what it was given, or cannot read what is there."""
