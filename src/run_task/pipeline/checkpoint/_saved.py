"""A checkpoint that was read."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from run_task.pipeline.checkpoint._cut import SourceCut, StageCut
from run_task.pipeline.checkpoint._segments import RowSegment
from run_task.pipeline.checkpoint._source_form import source_of
from run_task.pipeline.checkpoint._stage_form import stage_of
from run_task.pipeline.checkpoint._values import JsonTree

FORMAT: Final = 2


class DamagedError(Exception):
    """A checkpoint is not whole."""


@dataclass(frozen=True, slots=True)
class SavedStage:
    """A stage, as a checkpoint has it."""

    cut: StageCut
    states: JsonTree
    """Of each task, by name; see :func:`states_of`."""


@dataclass(frozen=True, slots=True)
class SavedSeries:
    """A series, as a checkpoint has it."""

    columns: Mapping[str, str]
    unit: str
    closed: str
    key: str | None
    first: int
    segments: Sequence[RowSegment]


@dataclass(frozen=True, slots=True)
class SavedData:
    """Some shared data, as a checkpoint has it."""

    roles: Sequence[str]
    series: SavedSeries | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint that was read."""

    number: int
    at_ns: int
    sources: Mapping[str, SourceCut]
    stages: Mapping[str, SavedStage]
    data: Sequence[SavedData]
    parts: Mapping[str, bytes]
    checksums: Mapping[str, tuple[int, int]]


def read(text: bytes, part: Callable[[str], bytes], pipeline: str, number: int) -> SavedCheckpoint:
    """A checkpoint, of its text and parts.

    :param text: the text
    :param part: gives a part by its name
    :param pipeline: whose it is to be
    :param number: its number
    :raises DamagedError: if it is not whole, or another one
    :raises Exception: if it is not what was written
    """
    body, _, told = text.rpartition(b"\n")
    if told.decode("ascii", "replace") != f"{zlib.crc32(body):08x}":
        raise DamagedError("its checksum is another")
    tree: Any = json.loads(body)
    if tree["format"] != FORMAT or tree["pipeline"] != pipeline:
        raise DamagedError(f"it is of format {tree['format']}, of {tree['pipeline']!r}")
    checksums = {name: (crc, size) for name, (crc, size) in tree["parts"].items()}
    parts: dict[str, bytes] = {}
    for name, (crc, size) in checksums.items():
        parts[name] = data = part(name)
        if len(data) != size or zlib.crc32(data) != crc:
            raise DamagedError(f"its part {name} is not what was written")
    return SavedCheckpoint(
        number,
        tree["at_ns"],
        {name: source_of(one, parts) for name, one in tree["sources"].items()},
        {name: SavedStage(*stage_of(one, parts)) for name, one in tree["stages"].items()},
        [_data(one, parts) for one in tree["data"]],
        parts,
        checksums,
    )


def _data(tree: JsonTree, parts: Mapping[str, bytes]) -> SavedData:
    value = tree.get("value")
    found = tree.get("series")
    series = None
    if found is not None:
        series = SavedSeries(
            found["columns"],
            found["unit"],
            found["closed"],
            found["key"],
            found["first"],
            [(part, at, start, stop) for part, at, start, stop in found["segments"]],
        )
    return SavedData(tree["roles"], series, None if value is None else parts[value])
