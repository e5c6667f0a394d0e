"""What a watcher is told of a stage by key: of thousands of keys, those that are worth a look."""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from run_task.pipeline._numbers import as_number
from run_task.tasks._keyed import Keyed, KeyedDataSet

MOST: Final = 20
"""Of how many keys of a kind it tells at most."""

_NEWEST: Final = 3

_FAR: Final = 5.0
"""How many times as far from the median as half of all keys a key is that is far off: of results
that are normally distributed, one in 1 300 is."""

_MOST_KNOWN: Final = 1_000_000
"""How many keys it remembers, to tell which are new."""


class Why(enum.Enum):
    """Why a key is worth a look."""

    FAILS = "fails"
    FAR_OFF = "far off"
    """A result is far from those of other keys."""
    NEW = "new"
    FURTHEST = "furthest"
    """Its results are the furthest from those of other keys, and not far."""
    WANTED = ""
    """It was asked for."""


class KeyShown(NamedTuple):
    """A key that is worth a look."""

    key: Any
    why: Why

    results: Mapping[str, Any]
    """What the tasks gave for it."""


class TaskOverKeys(NamedTuple):
    """What a task gave for all keys."""

    done: int
    """For how many keys it has a result."""

    failed: int
    """For how many it has none."""

    low: float
    middle: float
    """The median. NaN, as the others, if results are no numbers."""
    high: float


@dataclass(frozen=True)
class KeysShown:
    """What there is to see of a window by key.

    :param by: the column of the key
    :param count: how many keys there are
    :param matching: how many are asked for; None: none in particular
    :param tasks: what each task gave
    :param keys: the keys that are worth a look, or asked for
    """

    by: str
    count: int
    matching: int | None
    tasks: Mapping[str, TaskOverKeys]
    keys: Sequence[KeyShown]


class KeyWatch:
    """Looks at windows by key, one after the other.

    :param wanted: a part of the keys that are asked for; None: none in particular
    """

    def __init__(self, wanted: str | None = None) -> None:
        self._wanted = wanted
        self._known: set[Any] = set()
        self._newest: deque[Any] = deque(maxlen=_NEWEST)

    def look(self, dataset: KeyedDataSet[Any, Any]) -> KeysShown:
        """What there is to see of a window. It looks at each key once."""
        keys = dataset.keys_of_rows
        self._note_new(keys)
        of_tasks = {name: dataset.get(name) or _NONE for name in _tasks(dataset)}
        numbers = {name: _numbers(results) for name, results in of_tasks.items()}
        tasks = {
            name: _over_keys(numbers[name], len(results), len(keys) - len(results))
            for name, results in of_tasks.items()
        }
        matching: int | None = None
        found: dict[Any, Why] = {}
        if self._wanted is not None:
            wanted = self._wanted.casefold()
            matches = [key for key in keys if wanted in str(key).casefold()]
            matching = len(matches)
            found = dict.fromkeys(matches[:MOST], Why.WANTED)
        else:
            failing = dict.fromkeys(e.key for e in dataset.errors.values() if e.key is not None)
            found = dict.fromkeys(islice(failing, MOST), Why.FAILS)
            new = {key: Why.NEW for key in self._newest if key not in found}
            for key, score in _far_off(of_tasks, numbers, MOST).items():
                if key not in new:
                    found.setdefault(key, Why.FAR_OFF if score >= _FAR else Why.FURTHEST)
            present = set(keys) if new else set[Any]()
            found.update((key, why) for key, why in new.items() if key in present)
        told = [
            KeyShown(key, why, {n: of[key] for n, of in of_tasks.items() if key in of})
            for key, why in found.items()
        ]
        return KeysShown(dataset.by, len(keys), matching, tasks, told)

    def _note_new(self, keys: Sequence[Any]) -> None:
        known = self._known
        if known:  # of the first window, all would be
            self._newest.extend(key for key in keys if key not in known)
        if len(known) + len(keys) > _MOST_KNOWN:
            known.clear()
        known.update(keys)


_NONE: Final = Keyed[Any, Any]({})


def _tasks(dataset: KeyedDataSet[Any, Any]) -> Iterable[str]:
    of_all = (name for name in dataset.errors if isinstance(name, str))
    return dict.fromkeys((*dataset, *of_all))


def _numbers(results: Mapping[Any, Any]) -> NDArray[np.float64]:
    return np.fromiter(map(as_number, results.values()), np.float64, len(results))


def _over_keys(numbers: NDArray[np.float64], done: int, failed: int) -> TaskOverKeys:
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return TaskOverKeys(done, failed, math.nan, math.nan, math.nan)
    low, middle, high = float(finite.min()), float(np.median(finite)), float(finite.max())
    return TaskOverKeys(done, failed, low, middle, high)


def _far_off(
    of_tasks: Mapping[str, Mapping[Any, Any]], numbers: Mapping[str, NDArray[np.float64]], most: int
) -> Mapping[Any, float]:
    """The keys whose results are the furthest from the median, and how far they are in terms of
    what is usual; the furthest first."""
    scores: dict[Any, float] = {}
    for name, results in of_tasks.items():
        off = np.abs(numbers[name] - _median(numbers[name]))
        usual = _median(off)
        if not math.isfinite(usual):
            continue
        if usual > 0:
            off = off / usual
        else:
            off[off > 0] += _FAR  # more than half of all results are the same, and these are not
        off[~np.isfinite(off)] = 0.0
        places = np.argpartition(off, -most)[-most:] if len(off) > most else np.arange(len(off))
        keys = list(results)
        for place in places.tolist():
            score = float(off[place])
            if score > 0:
                scores[keys[place]] = max(score, scores.get(keys[place], 0.0))
    return {key: scores[key] for key in nlargest(most, scores, key=scores.__getitem__)}


def _median(numbers: NDArray[np.float64]) -> float:
    finite = numbers[np.isfinite(numbers)]
    return float(np.median(finite)) if len(finite) else math.nan
