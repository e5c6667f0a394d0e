"""Of which versions the tasks are whose results a sink holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeAlias

from run_task.tasks._task import TaskVersion

Versions: TypeAlias = dict[tuple[str, str, str], TaskVersion]
"""The version of each task that has one, by pipeline, stage and task."""

BEGIN: Final = '{"run_task_versions":'
"""How the text begins that tells versions, by which it is known from those of others."""


class VersionStore(Protocol):
    """Where a sink keeps the versions of tasks, beside their results.

    A version is told before the first result of it is stored. So after a crash in between, there
    is a version without results, which says nothing, and never a result that passes for one of
    another version.
    """

    def held(self) -> Versions:
        """What is there.

        :raises RunTaskError: if it cannot be read
        """
        ...

    def keep(
        self, pipeline: str, stage: str, versions: Mapping[str, TaskVersion | None], /
    ) -> None:
        """Make the versions of tasks of a stage last; those of others stay as they are.

        :raises RunTaskError: if that cannot be done, or something else is in the place
        """
        ...


def changed(
    held: Versions, pipeline: str, stage: str, versions: Mapping[str, TaskVersion | None]
) -> Versions:
    """What is held, with other versions of some tasks."""
    after = dict(held)
    for task, version in versions.items():
        if version is None:
            after.pop((pipeline, stage, task), None)
        else:
            after[pipeline, stage, task] = version
    return after


def text_of(versions: Versions) -> str:
    """Versions as a text in ASCII."""
    rows = [[*of, version] for of, version in versions.items()]
    return json.dumps({"run_task_versions": 1, "tasks": rows}, separators=(",", ":"))


def versions_in(text: str | bytes) -> Versions:
    """The versions that a text tells.

    :raises ValueError: if it is none that this version of the library knows
    """
    try:
        told: Any = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    match told:
        case {"run_task_versions": 1, "tasks": [*tasks]}:
            rows: list[Any] = tasks
        case _:
            raise ValueError("it is not in the form that this version of run-task knows")
    found: Versions = {}
    for row in rows:
        match row:
            case [str(pipeline), str(stage), str(task), int() | str() as version]:
                found[pipeline, stage, task] = version
            case _:
                raise ValueError(f"{row!r:.100} is no version of a task")
    return found
