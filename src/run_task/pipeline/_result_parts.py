"""Results of some of the keys of a window."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from run_task.sinks._protocol import Result, Sink
from run_task.tasks._dataset import DataSet
from run_task.tasks._keyed import AnyDataSet, KeyedDataSet


def result_for(sink: Sink, pipeline: str, stage: str, dataset: AnyDataSet) -> Result | None:
    """What a sink is given of a DataSet: what shards have not written to it; None: they have
    written all that there is.

    :param sink: the sink
    :param pipeline: the pipeline's name
    :param stage: the stage's name
    :param dataset: what the stage gave
    """
    result = Result(pipeline, stage, dataset.window, 0, dataset)
    if isinstance(dataset, DataSet):  # asked so: of its own type, that is known at once
        return result
    apart = dataset.apart_of(id(sink))
    if apart is None:
        return result
    part = of_keys(result, apart.left)
    told = part.dataset.errors or part.dataset.behind  # of which shards write nothing
    if apart.elsewhere is None and not (apart.left or told):
        return None
    return part._replace(elsewhere=apart.elsewhere)


def of_keys(result: Result, keys: Collection[Any], *, of_all: bool = True) -> Result:
    """What a result has of some keys.

    :param result: a result by key
    :param keys: these keys
    :param of_all: whether also what concerns all keys
    """
    dataset: Any = result.dataset
    wanted = set(keys)
    values: dict[str, dict[Any, Any]] = {}
    if wanted:
        values = {
            task: {key: of_task[key] for key in wanted if key in of_task}
            for task, of_task in dataset.items()
        }
    errors: dict[Any, Any] = {
        name: error
        for name, error in dataset.errors.items()
        if (name[1] in wanted if isinstance(name, tuple) else of_all)
    }
    part: KeyedDataSet[Any, Any] = KeyedDataSet(
        dataset.window,
        dataset.by,
        values,
        errors,
        dataset.durations,
        dataset.lateness,
        dataset.took,
        dataset.behind,
        dataset.interval,
    )
    return result._replace(dataset=part)
