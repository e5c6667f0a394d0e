"""The states of a stage's tasks as JSON in parts, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from run_task.data._buckets import bucket_of
from run_task.pipeline.checkpoint._cut import StageCut
from run_task.pipeline.checkpoint._values import JsonTree, Values, types_of
from run_task.tasks._stateful import StatefulTask

_GONE: Final = object()
"""In the place of the state of a key that has none any more."""

_KNOWN: Final = ""
"""In the place of a task: the keys that a stage knows. No task is called so."""

_ToldState: TypeAlias = tuple[Any, str, int]
"""A state, or the time of a key's last row; the JSON of key and state; and with which checkpoint it
came."""


class StatesPart(NamedTuple):
    """A part of the states of a stage.

    :param name: its name
    :param number: of the checkpoint that it was written with
    :param size: how many states it has, and keys
    """

    name: str
    number: int
    size: int


class StatesForm:
    """Makes the states of one stage's tasks bytes, again and again.

    Of many keys few have had a window since the checkpoint before: a part has those whose state is
    another object than before, as states do not change but a new one takes their place. As with
    rows, a part that is no larger than what is to be written is written again with it: so there are
    few parts, and a state is written a few times. By key states stand under the bucket of the key:
    what is one shard's is found without the others.
    """

    def __init__(self) -> None:
        self._told: Any = None  # of which tasks, and by which key
        self._tasks: Sequence[object] = ()  # so that no other has the id of one of these
        self._trees: dict[str, Callable[[Any], JsonTree]] = {}  # by task
        self._keys: dict[Any, tuple[str, str]] = {}  # the bucket of each, and its JSON
        self._tables: dict[str, dict[Any, _ToldState]] = {}  # by task

    def parts(
        self, cut: StageCut, number: int, before: Sequence[StatesPart]
    ) -> tuple[Sequence[StatesPart], bytes | None, int]:
        """What a checkpoint is to have.

        :param cut: the stage
        :param number: of the checkpoint
        :param before: the parts in the one before that was written, of which this one then is made
        :return: those of them that stay; a new one, and how much it has: None, if none is needed
        """
        told = cut.by, [(name, task.version, id(task)) for name, task in cut.tasks.items()]
        if told != self._told:
            self._told, self._tables, self._keys = told, {}, {}
            self._tasks = [*cut.tasks.values()]
            self._trees = {name: Values(types_of(task)).tree for name, task in cut.tasks.items()}
        if not self._tables:
            before = ()
        self._note(cut, number)
        stay = [*before]
        since = stay[-1].number if stay else -1
        count = sum(entry[2] > since for of in self._tables.values() for entry in of.values())
        if not count and stay:
            return stay, None, 0
        while stay and stay[-1].size <= count:
            count += stay.pop().size
        if not stay:
            self._forget()
        since = stay[-1].number if stay else -1
        return stay, *self._as_bytes(cut, since)

    def _note(self, cut: StageCut, number: int) -> None:
        """Take note of what is not as it was."""
        for name, tree in self._trees.items():
            self._note_all(name, cut.states.get(name, {}), tree, number)
        self._note_all(_KNOWN, cut.known, int, number)

    def _note_all(self, name: str, found: Mapping[Any, Any], tree: Any, number: int) -> None:
        table = self._tables.setdefault(name, {})
        for key, state in found.items():
            entry = table.get(key)
            # Equal times are as good as the same.
            if entry is None or (entry[0] is not state and (name or entry[0] != state)):
                table[key] = state, f"[{self._key(key)[1]},{_dumped(tree(state))}]", number
        if len(table) > len(found):
            for key, entry in table.items():
                if entry[0] is not _GONE and key not in found:
                    table[key] = _GONE, f"[{self._key(key)[1]}]", number

    def _forget(self) -> None:
        """All is written anew: what is gone needs no word."""
        for table in self._tables.values():
            for key in [key for key, entry in table.items() if entry[0] is _GONE]:
                del table[key]
        here = {key for table in self._tables.values() for key in table}
        self._keys = {key: told for key, told in self._keys.items() if key in here}

    def _as_bytes(self, cut: StageCut, since: int) -> tuple[bytes, int]:
        tasks: list[str] = []
        count = 0
        for name, task in cut.tasks.items():
            buckets: dict[str, list[str]] = {}
            for key, entry in self._tables[name].items():
                if entry[2] > since:
                    count += 1
                    buckets.setdefault(self._key(key)[0], []).append(entry[1])
            pairs = (f'"{bucket}":[{",".join(of)}]' for bucket, of in buckets.items())
            told = f'"version":{_dumped(task.version)},"states":{{{",".join(pairs)}}}'
            tasks.append(f"{_dumped(name)}:{{{told}}}")
        known = [entry[1] for entry in self._tables[_KNOWN].values() if entry[2] > since]
        text = f'{{"tasks":{{{",".join(tasks)}}},"known":[{",".join(known)}]}}'
        return text.encode("ascii"), count + len(known)

    def _key(self, key: Any) -> tuple[str, str]:
        told = self._keys.get(key)
        if told is None:
            bucket = "" if key is None else str(bucket_of(key))  # None: there are no keys
            told = self._keys[key] = bucket, _dumped(_PLAIN.tree(key))
        return told


_PLAIN: Final = Values()

_dumped: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def joined(parts: Iterable[bytes]) -> tuple[JsonTree, Mapping[Any, int]]:
    """The states in parts, and the keys that the stage knows, each with the time of its last row.

    :param parts: as a :class:`StatesForm` has made them, in their order
    """
    versions: dict[str, Any] = {}
    pairs: dict[str, dict[Any, JsonTree]] = {}
    for part in parts:
        tree: JsonTree = json.loads(part)
        for name, of in tree["tasks"].items():
            versions[name] = of["version"]
            for some in of["states"].values():
                _take(pairs.setdefault(name, {}), some)
            pairs.setdefault(name, {})
        _take(pairs.setdefault(_KNOWN, {}), tree["known"])
    known = {_PLAIN.value(key): time for key, time in pairs.pop(_KNOWN, {}).values()}
    states = {
        name: {"version": versions[name], "states": [*of.values()]} for name, of in pairs.items()
    }
    return states, known


def _take(into: dict[Any, JsonTree], pairs: Iterable[JsonTree]) -> None:
    for pair in pairs:
        key = pair[0] if type(pair[0]) is str else (_dumped(pair[0]),)
        if len(pair) == 1:
            into.pop(key, None)
        else:
            into[key] = pair


def states_of(tree: JsonTree, task: StatefulTask[Any, Any, Any]) -> dict[Any, Any]:
    """The states of one task, by key; by None, if it is run without keys.

    :param tree: what :func:`joined` has of it
    :raises OutdatedError: if they are of no use any more
    """
    values = Values(types_of(task))
    return {_PLAIN.value(key): values.value(state) for key, state in tree["states"]}
