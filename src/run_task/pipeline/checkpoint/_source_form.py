"""How far a source has been read, as JSON and parts, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from run_task.pipeline._dedupe import RememberedRows, RowId, SegmentsPlace
from run_task.pipeline.checkpoint._cut import SourceCut, WayCut
from run_task.pipeline.checkpoint._infinity import finite, or_before_all
from run_task.pipeline.checkpoint._segments import RowSegment
from run_task.pipeline.checkpoint._values import JsonTree, Values
from run_task.sources._arrived import Arrived, Stamped, is_arrived
from run_task.sources._batch import Batch


def source_tree(cut: SourceCut, seen: Callable[[RememberedRows], JsonTree]) -> JsonTree:
    """How far a source has been read, as what JSON has.

    :param seen: writes rows that are remembered, and says where
    """
    plain = Values()
    return {
        "position": cut.position if cut.begun else None,
        "begun": cut.begun,
        "counted": cut.counted,
        "ways": [
            {
                "last_ns": finite(way.last_ns),
                "arrived_ns": finite(way.arrived_ns),
                "pending": [_item_tree(item, plain) for item in way.pending],
                "early": [plain.tree(row) for row in way.early],
                "seen": None if way.seen is None else seen(way.seen),
            }
            for way in cut.ways
        ],
    }


def source_of(tree: JsonTree, parts: Mapping[str, bytes]) -> SourceCut:
    """The same, of what :func:`source_tree` gave.

    :param parts: the parts, by name
    """
    plain = Values()
    return SourceCut(
        tree["position"],
        tree["counted"],
        [
            WayCut(
                or_before_all(way["last_ns"]),
                or_before_all(way["arrived_ns"]),
                [_item(item, plain) for item in way["pending"]],
                [plain.value(row) for row in way["early"]],
                None if way["seen"] is None else _seen(way["seen"], parts),
            )
            for way in tree["ways"]
        ],
        tree["begun"],
    )


def _item_tree(item: Stamped[Any] | Batch, plain: Values) -> JsonTree:
    if isinstance(item, Batch):
        return {"batch": [plain.tree(item.timestamps), plain.tree(dict(item.columns))]}
    if is_arrived(item):
        return {"arrived": [*map(plain.tree, item)]}
    return {"row": plain.tree(item)}


def _item(tree: JsonTree, plain: Values) -> Stamped[Any] | Batch:
    ((kind, told),) = tree.items()
    if kind == "row":
        row: tuple[Any, Any] = plain.value(told)
        return row
    values: list[Any] = [*map(plain.value, told)]
    return Batch(*values) if kind == "batch" else Arrived(*values)


# Rows that are remembered


def seen_as_bytes(seen: RememberedRows, first: int, stop: int) -> bytes:
    """Some of the rows that are remembered, by number."""
    ids, times = seen.since(first, stop)
    return json.dumps([times, ids], separators=(",", ":"), check_circular=False).encode("ascii")


def seen_tree(seen: RememberedRows, segments: list[RowSegment]) -> JsonTree:
    """What is remembered, but for the rows themselves.

    :param segments: which parts these are in
    """
    return {
        "names": [*seen.names],
        "latest_ns": seen.latest_ns,
        "first": seen.first,
        "stop": seen.stop,
        "segments": [[*segment] for segment in segments],
    }


def _seen(tree: JsonTree, parts: Mapping[str, bytes]) -> RememberedRows:
    segments = [(part, at, start, stop) for part, at, start, stop in tree["segments"]]
    first, stop = tree["first"], tree["stop"]
    ids: list[RowId] = []
    times: list[int] = []
    for part, at, begin, end in segments:
        of_times, of_rows = json.loads(parts[part])
        times += of_times[begin - at : end - at]
        ids += map(_id, of_rows[begin - at : end - at])
    if not len(ids) == len(times) == stop - first:
        raise ValueError("rows that are remembered are not all there")
    return RememberedRows(
        *(
            tree["names"],
            tree["latest_ns"],
            first,
            stop,
            (ids, times),
            first,
            SegmentsPlace(segments),
        )
    )


def _id(values: list[Any]) -> RowId:
    return tuple(map(_value, values))


def _value(told: Any) -> Any:
    return tuple(told) if isinstance(told, list) else told  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  of two texts
