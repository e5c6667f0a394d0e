"""How far a stage has come, as JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping

from run_task.pipeline._lacking import Lacked
from run_task.pipeline.checkpoint._cut import ReaderCut, StageCut
from run_task.pipeline.checkpoint._infinity import finite, or_before_all
from run_task.pipeline.checkpoint._states_form import joined
from run_task.pipeline.checkpoint._values import JsonTree


def stage_tree(cut: StageCut) -> JsonTree:
    """How far a stage has come, as what JSON has; without states."""
    return {
        "grid": cut.grid,
        "next_ns": cut.next_ns,
        "given_from_ns": cut.given_from_ns,
        "origin_ns": cut.origin_ns,
        "by": cut.by,
        "paused": cut.paused,
        "paused_tasks": [*cut.paused_tasks],
        "readers": [
            [
                *map(finite, (reader.first_ns, reader.floor_ns, reader.last_ns)),
                [[*map(finite, gap)] for gap in reader.gaps],
            ]
            for reader in cut.readers
        ],
        "lacked": [[one.end_ns, [*one.names]] for one in cut.lacked],
    }


def stage_of(tree: JsonTree, parts: Mapping[str, bytes]) -> tuple[StageCut, JsonTree]:
    """The same, of what :func:`stage_tree` gave, and the states of its tasks.

    :param parts: the parts, by name
    """
    readers = [
        ReaderCut(
            or_before_all(first),
            or_before_all(floor),
            or_before_all(last),
            [(or_before_all(a), or_before_all(b)) for a, b in gaps],
        )
        for first, floor, last, gaps in tree["readers"]
    ]
    states, known = joined(parts[name] for name in tree.get("states", ()))
    cut = StageCut(
        tree["grid"],
        tree["next_ns"],
        tree["given_from_ns"],
        tree["origin_ns"],
        readers,
        tree["by"],
        tree["paused"],
        known=known,
        paused_tasks=tree.get("paused_tasks", ()),  # older ones have none, nor what follows
        lacked=[Lacked(end_ns, names) for end_ns, names in tree.get("lacked", ())],
    )
    return cut, states
