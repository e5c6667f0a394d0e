"""A checkpoint on its way to text and parts."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from run_task.pipeline._dedupe import RememberedRows, SegmentsPlace
from run_task.pipeline.checkpoint._cut import Cut, DataCut, SeriesCut, StageCut
from run_task.pipeline.checkpoint._rows import rows_as_bytes
from run_task.pipeline.checkpoint._segments import RowSegment, carried
from run_task.pipeline.checkpoint._source_form import seen_as_bytes, seen_tree, source_tree
from run_task.pipeline.checkpoint._stage_form import stage_tree
from run_task.pipeline.checkpoint._states_form import StatesForm, StatesPart
from run_task.pipeline.checkpoint._values import JsonTree


@dataclass(slots=True)
class CheckpointContents:
    """What stands in the last checkpoint, as far as the next one refers to it."""

    checksums: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """Of each part its CRC and size."""
    segments: dict[tuple[str, ...], list[RowSegment]] = field(
        default_factory=dict[tuple[str, ...], list[RowSegment]]
    )
    """Of each series, by its roles."""
    states: dict[str, tuple[Any, Sequence[StatesPart]]] = field(
        default_factory=dict[str, tuple[Any, Sequence[StatesPart]]]
    )
    """Of each stage, as of which window, and the parts."""
    forms: dict[str, StatesForm] = field(default_factory=dict[str, StatesForm])
    """Of each stage, what makes its states bytes."""
    same_until: dict[tuple[str, ...], float] = field(default_factory=dict[tuple[str, ...], float])
    """Of each series, before which position all is in segments: less than a look says, if one that
    was looked at for was not written."""


class CheckpointWriter:
    """One checkpoint on its way to text and parts.

    :param before: what stands in the one before
    :param number: its number
    :param cut: what it holds
    """

    def __init__(self, before: CheckpointContents, number: int, cut: Cut) -> None:
        self._before = before
        self._number = number
        self._cut = cut
        self._seen: list[tuple[SegmentsPlace, list[RowSegment]]] = []
        self.parts: dict[str, bytes] = {}
        """What is new."""
        self.written = CheckpointContents(forms=before.forms)
        """What stands in it, once it has been made."""

    def tree(self) -> JsonTree:
        """Its text, as what JSON has."""
        cut = self._cut
        return {
            "sources": {
                name: source_tree(one, self._seen_tree) for name, one in cut.sources.items()
            },
            "stages": {name: self._stage_tree(name, one) for name, one in cut.stages.items()},
            "data": [self._data_tree(one) for one in cut.data],
            "parts": self.written.checksums,
        }

    def done(self) -> None:
        """It lasts: the next one may refer to it."""
        for kept, segments in self._seen:
            kept.where = segments

    def _add(self, kind: str, data: bytes) -> str:
        name = f"{kind}-{self._number}-{len(self.parts)}"
        self.parts[name] = data
        self.written.checksums[name] = zlib.crc32(data), len(data)
        return name

    def _refer(self, name: str) -> None:
        self.written.checksums[name] = self._before.checksums[name]

    def _seen_tree(self, seen: RememberedRows) -> JsonTree:
        segments, begin = carried(seen.kept.where, seen.first, math.inf, seen.stop)
        for part, _, _, _ in segments:
            self._refer(part)
        if begin < seen.stop:
            part = self._add("seen", seen_as_bytes(seen, begin, seen.stop))
            segments.append((part, begin, begin, seen.stop))
        self._seen.append((seen.kept, segments))
        return seen_tree(seen, segments)

    def _stage_tree(self, name: str, cut: StageCut) -> JsonTree:
        tree = stage_tree(cut)
        if cut.tasks or cut.known:
            mark = cut.next_ns, *(id(task) for task in cut.tasks.values())
            known, parts = self._before.states.get(name, (None, ()))
            data: bytes | None = None
            count = 0
            if known != mark:  # else no window has come since
                parts, data, count = self._form(name).parts(cut, self._number, parts)
            for part in parts:
                self._refer(part.name)
            if data is not None:
                parts = [*parts, StatesPart(self._add("states", data), self._number, count)]
            self.written.states[name] = mark, parts
            tree["states"] = [part.name for part in parts]
        return tree

    def _form(self, stage: str) -> StatesForm:
        forms = self._before.forms
        return forms.setdefault(stage, StatesForm())

    def _data_tree(self, cut: DataCut) -> JsonTree:
        tree: JsonTree = {"roles": list(cut.roles)}
        if cut.series is not None:
            tree["series"] = self._series_tree(tuple(cut.roles), cut.series)
        if cut.value is not None:
            tree["value"] = self._add("value", cut.value)
        return tree

    def _series_tree(self, roles: tuple[str, ...], cut: SeriesCut) -> JsonTree:
        grown, before = cut.grown, self._before
        same_until = min(grown.same_until, before.same_until.get(roles, math.inf))
        before.same_until[roles] = same_until  # until this is written
        known = before.segments.get(roles, ())
        segments, begin = carried(known, grown.first, same_until, grown.stop)
        for part, _, _, _ in segments:
            self._refer(part)
        if begin < grown.stop:
            data = rows_as_bytes(grown.view, begin - grown.first, grown.stop - grown.first)
            segments.append((self._add("rows", data), begin, begin, grown.stop))
        self.written.segments[roles] = segments
        return {
            "columns": dict(cut.columns),
            "unit": cut.unit,
            "closed": cut.closed,
            "key": cut.key,
            "first": grown.first,
            "segments": [list(segment) for segment in segments],
        }
