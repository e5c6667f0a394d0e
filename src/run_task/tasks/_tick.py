"""What there is to do for one window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from run_task._window import Due, Window

TickParts: TypeAlias = tuple[Any, Due, Sequence[str]]
"""A :class:`Tick`, or the plain tuple that it is underneath, which is made in a quarter of the
time: its ``view``, its ``due`` and its ``behind``."""


class _Parts(NamedTuple):
    view: Any
    due: Due
    behind: Sequence[str]


class Tick(_Parts):
    """What there is to do: every task, over one view of the data and one window.

    :param view: one consistent view of the data, for all tasks
    :param start: the start of the window, in the interval's unit since the Unix epoch
    :param end: its end, which is not part of it
    :param late_ns: how long after the window's end (and grace) the tick begins, in nanoseconds
    :param behind: who gave nothing for the window, or for results that it holds
    """

    __slots__ = ()

    def __new__(
        cls, view: Any, start: int, end: int, late_ns: int = 0, behind: Sequence[str] = ()
    ) -> Tick:
        return cls.of((view, (start, end, late_ns), behind))

    @classmethod
    def of(cls, parts: TickParts) -> Tick:
        """The tick that a runner's loop has yielded.

        :param parts: the view, the window with its lateness, and the stages that are behind
        """
        return tuple.__new__(cls, parts)  # pyright: ignore[reportUnknownMemberType]  typeshed leaves a default of it untyped

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
