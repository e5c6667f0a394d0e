"""``run-task serve``: pipelines as a service."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from run_task.cli._exits import Exit, building, running
from run_task.cli._interrupt import ctrl_c
from run_task.cli._params import path_of, referred_file, resolved
from run_task.cli._project import GivenOptions, Project
from run_task.cli._shards import NOTHING_SAID, ShardChoice, ShardOptions

if TYPE_CHECKING:
    from run_task.pipeline import Pipeline
    from run_task.serve import Service


@dataclass(frozen=True)
class ServeOptions:
    """What the command line says of a service; None: as the project says, or by default."""

    host: str | None = None
    port: int | None = None
    token_file: str | None = None
    names: Sequence[str] | None = None
    max_lateness: str | None = None
    gauges: Sequence[str] | None = None


def serve_targets(
    targets: Sequence[str],
    options: ServeOptions,
    said: GivenOptions,
    shards: ShardOptions = NOTHING_SAID,
) -> Exit:
    """Serve the pipelines that targets name, or all of the project."""
    with building():
        service = _service(said.project("warning"), targets, options, shards)
    with running(), ctrl_c(service.shutdown, lambda: None):
        service.run(lambda: _tell(f"serving at {service.url}"))
    return Exit.DONE


def check_served(project: Project) -> None:
    """See whether what a project says of its service can be, whatever its pipelines are, and
    whether there is a token where it says so.

    :raises UserError: if the token cannot be read
    :raises ConfigError: if it is none, or something else cannot be
    """
    if project.settings is None or not project.says_of_service:
        return
    from run_task.serve._terms import check_terms
    from run_task.serve._tokens import read_token

    of_file = project.settings.serve
    check_terms(of_file.host, of_file.port, of_file.names, of_file.max_lateness)
    if of_file.token is not None:
        _token(of_file.token)
    if of_file.token_file is not None:
        read_token(path_of(of_file.token_file))


def check_together(project: Project, pipelines: Sequence[Pipeline]) -> None:
    """See whether all pipelines of a project can be of one service.

    :raises ConfigError: if not
    """
    if project.settings is None or not project.says_of_service:
        return
    from run_task.serve._terms import check_pipelines

    check_pipelines(pipelines, project.settings.serve.gauges)


def _service(
    project: Project, targets: Sequence[str], options: ServeOptions, shards: ShardOptions
) -> Service:
    from run_task.serve import Service

    token: str | None = None
    if project.settings is not None:
        of_file = project.settings.serve
        if of_file.token is not None and options.token_file is None:
            token = _token(of_file.token)
        file = of_file.token_file
        options = replace(
            ServeOptions(
                of_file.host,
                of_file.port,
                None if file is None else str(path_of(file)),
                of_file.names,
                of_file.max_lateness,
                of_file.gauges,
            ),
            **{name: value for name, value in vars(options).items() if value is not None},
        )
    given: dict[str, Any] = {
        name: value for name, value in vars(options).items() if value is not None
    }
    pipelines: list[Pipeline] = []
    over: dict[int, ShardChoice] = {}  # by id of the pipeline
    for target in project.targets(targets):
        choice = shards.over(target.over)
        pipelines.append(pipeline := target.load())
        over[id(pipeline)] = choice

    def run(pipeline: Pipeline) -> None:
        over[id(pipeline)].run(pipeline)

    return Service(pipelines, token=token, run=run, **given)


def _token(reference: str) -> str | None:
    """The token that a reference stands for: a file with it is one that not every user can read."""
    from run_task.serve._tokens import checked_token, read_token

    path = referred_file(reference)
    if path is not None:
        return read_token(path)
    return checked_token(resolved(reference, "serve.token"), "serve.token")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  it is the command's output
