"""Which results are metrics, too: whether there are such."""

from __future__ import annotations

from collections.abc import Iterable

from run_task.errors import ConfigError
from run_task.pipeline import Pipeline


def check_gauges(pipelines: Iterable[Pipeline], gauges: Iterable[str]) -> None:
    """Refuse gauges that no result would ever be.

    :param pipelines: all pipelines of a service
    :param gauges: the results, each as ``stage/task``, or ``stage/task_field``
    :raises ConfigError: if there is no such task, or its stage is by key
    """
    stages = [stage for pipeline in pipelines for stage in pipeline.stages]
    known = [
        f"{stage.name}/{task.name}"
        for stage in stages
        if stage.keys is None
        for task in stage.tasks
    ]
    by_key = [stage.name for stage in stages if stage.keys is not None]
    for gauge in gauges:
        if any(gauge == name or gauge.startswith(f"{name}_") for name in known):
            continue
        for name in by_key:
            if gauge.startswith(f"{name}/"):
                raise ConfigError(
                    f"serve: gauge={gauge!r}: stage {name!r} is by key, and there is no metric for "
                    f"each key: take a task of a stage without by="
                )
        raise ConfigError(
            f"serve: gauge={gauge!r} is no 'stage/task' that there is; those without keys are: "
            f"{', '.join(map(repr, known)) or 'none'}"
        )
