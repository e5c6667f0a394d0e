"""Whether a service can be as it was said, before anything is listened to or run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from run_task.errors import ConfigError
from run_task.pipeline import Pipeline
from run_task.serve._guard import is_address
from run_task.sources.http._server import check_address
from run_task.time._length import IntervalLike, plain_length

_HOST: Final = re.compile(r"\w[\w.-]*", re.ASCII)
"""The name of a machine."""


def check_terms(
    host: object, port: object, names: Iterable[str], max_lateness: IntervalLike
) -> float:
    """Refuse what cannot be, whatever the pipelines are.

    :param host: where to listen
    :param port: the port
    :param names: under which names it may be asked
    :param max_lateness: how late windows may begin
    :return: that, in seconds
    :raises ConfigError: if one of these cannot be
    """
    check_address("serve", host, port)
    for name in names:
        if _HOST.fullmatch(name) is None and not is_address(name):
            raise ConfigError(
                f"serve: name={name!r} is no name of a machine: say what stands in a URL "
                f"between '//' and the port, as in 'heat.example.org'"
            )
    return plain_length(max_lateness, "serve(max_lateness={})").nanos / 1e9


def check_pipelines(pipelines: Sequence[Pipeline], gauges: Iterable[str]) -> None:
    """Refuse pipelines that one service cannot tell apart, and gauges that none of them gives.

    :param pipelines: all pipelines of a service
    :param gauges: the results that are metrics, each as ``stage/task``
    :raises ConfigError: if there are such
    """
    called = [pipeline.name for pipeline in pipelines]
    if twice := {name for name in called if called.count(name) > 1}:
        raise ConfigError(
            f"serve: two pipelines are called {min(twice)!r}: give each a name of its "
            f"own: Pipeline('name')"
        )
    _check_gauges(pipelines, gauges)


def _check_gauges(pipelines: Iterable[Pipeline], gauges: Iterable[str]) -> None:
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
