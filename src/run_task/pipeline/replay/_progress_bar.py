"""A progress bar for replays, on a terminal."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Generator
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol

from run_task.observe._format import compact, shown
from run_task.time._epoch import from_nanos

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_BAR_AFTER: Final = 1.0
"""After how many seconds a replay is worth a bar."""

_EVERY: Final = 0.1
"""How many seconds lie between two looks at how far it is."""

_LONGEST_NAME: Final = 14
_TEXT: Final = 54
"""How many columns are taken by what stands right of the bar."""

_hidden: ContextVar[bool] = ContextVar("hidden", default=False)


@contextlib.contextmanager
def no_progress() -> Generator[None]:
    """Show nothing of replays in this block."""
    token = _hidden.set(True)
    try:
        yield
    finally:
        _hidden.reset(token)


class ReplayPosition(Protocol):
    """How far a replay is."""

    @property
    def rows(self) -> int:
        """How many rows have entered the data."""
        ...

    def bounds(self) -> tuple[float, float]:
        """From when to when it goes, in nanoseconds since the Unix epoch; infinity: unknown."""
        ...


class ProgressBar:
    """Shows a bar on the standard error, if that is a terminal and rich is installed.

    The bar fills where it is known when the history ends, and pulses where it is not.

    :param name: what goes on
    :param position: tells how far it is
    """

    def __init__(self, name: str, position: ReplayPosition) -> None:
        self._name = name
        self._position = position
        self._windows = 0
        self._looked = self._begun = time.monotonic()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._span: tuple[float, float] | None = None
        self._console = _terminal()
        self.shown: bool = self._console is not None
        """Whether there is somebody to tell how far it is."""

    def note(self, time_ns: int) -> None:
        """A window is done.

        :param time_ns: its end, in nanoseconds since the Unix epoch
        """
        self._windows += 1
        if self._console is None:
            return
        now = time.monotonic()
        if now - self._looked < _EVERY or now - self._begun < _BAR_AFTER:
            return
        self._looked = now
        if self._bar is None:
            self._start(self._console)
        self._draw(time_ns)

    def _start(self, console: Console) -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.text import Text

        name = Text(shown(self._name))
        name.truncate(_LONGEST_NAME, overflow="ellipsis")
        # The terminal's own colour, and its grey, which are seen on light and dark alike.
        bar = BarColumn(
            bar_width=max(10, min(40, console.width - name.cell_len - _TEXT)),
            style="bright_black",
            complete_style="default",
            finished_style="default",
            pulse_style="black",
        )
        texts = [TextColumn(f"{{task.fields[{key}]}}", markup=False) for key in ("share", "told")]
        self._bar = Bar(
            TextColumn("{task.description}", markup=False, style="bold"),
            bar,
            *texts,
            console=console,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # what goes into a file goes on into it
        )
        since, until = self._position.bounds()
        if math.isfinite(until) and math.isfinite(since) and since < until:
            self._span = since, until
        total = None if self._span is None else 1.0
        self._task = self._bar.add_task(name.plain, total=total, share="", told="")
        self._bar.start()

    def _draw(self, time_ns: int) -> None:
        assert self._bar is not None
        assert self._task is not None
        rows = self._position.rows
        told = f"{_when(time_ns)}  {compact(self._windows)} windows  {compact(rows)} rows"
        if self._span is None:
            self._bar.update(self._task, told=told)
        else:
            since, until = self._span
            share = max(0.0, min(1.0, (time_ns - since) / (until - since)))
            self._bar.update(self._task, completed=share, share=f"{share:4.0%}", told=told)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _terminal() -> Console | None:
    if _hidden.get() or not sys.stderr.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console(stderr=True)
    return console if console.is_terminal and not console.is_dumb_terminal else None


def _when(time_ns: int) -> str:
    try:
        return f"{from_nanos(time_ns):%Y-%m-%d %H:%M:%S}"
    except OverflowError:
        return "beyond the year 9999"
