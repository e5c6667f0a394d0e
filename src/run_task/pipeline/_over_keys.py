"""What tasks gave for all keys of a window, as numbers and how these are spread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from run_task.observe._format import shown
from run_task.pipeline._numbers import as_number
from run_task.tasks._keyed import KeyedDataSet
from run_task.tasks._result_fields import fields_of


def numbers_by_key(dataset: KeyedDataSet[Any, Any]) -> Mapping[str, NDArray[np.float64]]:
    """What can be drawn of a window by key: for each task, or each field of its results, a number
    for each of the keys in their order; NaN where it gave none.

    :param dataset: the window
    """
    found: dict[str, NDArray[np.float64]] = {}
    none: Mapping[str, Any] = {}
    for task, column in dataset.by_task():
        numbers = np.fromiter(map(as_number, column), np.float64, len(column))
        if not np.isnan(numbers).all():
            found[shown(task)] = numbers
            continue
        fields = [fields_of(value) or none for value in column]
        for part in dict.fromkeys(part for each in fields for part in each):
            of_part = [as_number(each.get(part)) for each in fields]
            found[shown(f"{task}_{part}")] = np.array(of_part, np.float64)
    return found


def spread(numbers: NDArray[np.float64]) -> Mapping[str, float]:
    """The lowest, the median and the highest of those that are finite; empty if none is."""
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return {}
    return {
        "lowest": float(finite.min()),
        "median": float(np.median(finite)),
        "highest": float(finite.max()),
    }
