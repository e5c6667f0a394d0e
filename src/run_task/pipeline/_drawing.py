"""A pipeline as a drawing: sources, data, stages and sinks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from run_task.data import TimeSeries
from run_task.observe._drawing import Box, BoxKind, Drawing, draw
from run_task.observe._format import brief
from run_task.pipeline._graph import feeds_itself
from run_task.pipeline._route import Route
from run_task.pipeline._stage import AnyStage
from run_task.time._length import in_short

_MOST: Final = 6
"""How many tasks or columns a box names."""


class _Boxes:
    def __init__(self) -> None:
        self.boxes: list[Box] = []
        self.arrows: list[tuple[int, int]] = []
        self.both_ways: set[tuple[int, int]] = set()
        self._known: dict[int, int] = {}

    def box(self, thing: object, kind: BoxKind, title: str, lines: Sequence[str] = ()) -> int:
        """The position of the box of a thing, which has one."""
        if id(thing) not in self._known:
            self._known[id(thing)] = len(self.boxes)
            self.boxes.append(Box(kind, title, lines))
        return self._known[id(thing)]

    def data(self, data: object) -> int:
        columns: list[str] = []
        if isinstance(data, TimeSeries):
            columns = [f"{name}, the key" if name == data.key else name for name in data.columns]
        return self.box(data, BoxKind.DATA, type(data).__name__, _some(columns))

    def arrow(self, start: int, end: int) -> None:
        if (start, end) not in self.arrows:
            self.arrows.append((start, end))


def picture(
    name: str, sources: Iterable[tuple[str | None, Any, Route]], stages: Iterable[AnyStage]
) -> Drawing:
    """Draw a pipeline.

    :param name: what it is called
    :param sources: its sources, each with the name that it was given, and where their rows go
    :param stages: its stages
    """
    drawn = _Boxes()
    for title, source, route in sources:
        about = _called(source)
        lines = [] if title is None else [about]
        drawn.arrow(
            drawn.box(source, BoxKind.SOURCE, title or about, lines), drawn.data(route.into)
        )
    for stage in stages:
        box = drawn.box(stage, BoxKind.STAGE, stage.name, _about(stage))
        for data in stage.inputs:
            if not feeds_itself(stage, data):
                drawn.arrow(drawn.data(data), box)
        for route in stage.routes:
            entered = drawn.data(route.into)
            drawn.arrow(box, entered)
            if any(map(route.leads_to, stage.inputs)):
                drawn.both_ways.add((box, entered))
        for sink in stage.sinks:
            drawn.arrow(box, drawn.box(sink, BoxKind.SINK, _called(sink)))
    return draw(f"pipeline {name}", drawn.boxes, drawn.arrows, drawn.both_ways)


def _about(stage: AnyStage) -> list[str]:
    config = stage.config
    lines = [f"every {in_short(stage.interval)}"]
    if config.window is not None:
        lines.append(f"over the last {in_short(config.window)}")
    if config.grace is not None:
        lines.append(f"grace {in_short(config.grace)}")
    if stage.keys is not None:
        lines.append(f"by {stage.keys.by}")
    if any(feeds_itself(stage, data) for data in stage.inputs):
        lines.append("reads what it gave before")
    return lines + _some([task.name for task in stage.tasks])


def _some(names: Sequence[str]) -> list[str]:
    more = len(names) - _MOST
    return [f"· {name}" for name in names[:_MOST]] + ([f"and {more} more"] if more > 0 else [])


def _called(thing: object) -> str:
    """What to call a source or a sink: by its name, its own words, or else its type."""
    name = getattr(thing, "__name__", None)
    if isinstance(name, str):
        return name
    if type(thing).__repr__ is object.__repr__:
        return type(thing).__name__
    return brief(thing, items=6, width=400)  # it is cut to the width of its box
