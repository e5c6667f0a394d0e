"""What there is to do for one window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from run_task._window import Due, Window

_new: Final = object.__new__


class Tick:
    """What there is to do: every task, over one view of the data and one window.

    :param view: one consistent view of the data, for all tasks
    :param start: the start of the window, in the interval's unit since the Unix epoch
    :param end: its end, which is not part of it
    :param late_ns: how long after the window's end (and grace) the tick begins, in nanoseconds
    :param behind: the stages of a pipeline whose results are not in the view
    """

    __slots__ = ("behind", "due", "view")

    view: Any
    """One consistent view of the data, for all tasks."""

    due: Due
    """Start, end and lateness together, as they go on into the DataSet."""

    behind: Sequence[str]
    """Stages of a pipeline whose results up to this window are not in the view."""

    def __init__(
        self, view: Any, start: int, end: int, late_ns: int = 0, behind: Sequence[str] = ()
    ) -> None:
        self.view = view
        self.due = start, end, late_ns
        self.behind = behind

    @classmethod
    def of(cls, view: Any, due: Due, behind: Sequence[str]) -> Tick:
        """The tick of a window on its way: a runner makes one for each window, and fast.

        :param view: one consistent view of the data
        :param due: the window
        :param behind: the stages whose results are not in the view
        """
        self = _new(cls)
        self.view = view
        self.due = due
        self.behind = behind
        return self

    @property
    def start(self) -> int:
        """The start of the window, in the interval's unit since the Unix epoch."""
        return self.due[0]

    @property
    def end(self) -> int:
        """The end of the window, which is not part of it."""
        return self.due[1]

    @property
    def late_ns(self) -> int:
        """How long after the window's end (and grace) the tick begins, in nanoseconds."""
        return self.due[2]

    @property
    def window(self) -> Window:
        """The window, ``[start, end)``."""
        start, end, _ = self.due
        return Window(start, end)

    def __repr__(self) -> str:
        start, end, late_ns = self.due
        return f"<Tick [{start}, {end}), {late_ns / 1e9:g} s late>"
