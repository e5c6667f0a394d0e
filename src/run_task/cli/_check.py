"""``run-task check``: what a pipeline is made of, and what is wrong with it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from run_task.cli._annotations import data_named, misfits, signature
from run_task.cli._exits import Exit, building
from run_task.cli._file_sample import warning_of
from run_task.cli._grid import BAD, HEAD
from run_task.cli._lenient_import import load
from run_task.cli._project import GivenOptions
from run_task.cli._serve import check_served, check_together
from run_task.cli._shards import ALONE, NOTHING_SAID, ShardChoice, ShardOptions
from run_task.cli._target import Target
from run_task.cli._user_error import error_text
from run_task.observe._format import named, shown
from run_task.observe._log import Log
from run_task.pipeline import Pipeline
from run_task.pipeline._graph import feeds_itself
from run_task.pipeline._stage import AnyStage
from run_task.time._length import in_short

_log = Log(__name__)


class _WarningRecorder(logging.Handler):
    """Keeps the messages of the warnings that the library logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def check_targets(
    targets: Sequence[str], said: GivenOptions, shards: ShardOptions = NOTHING_SAID
) -> Exit:
    """Check the pipelines that targets name, or all of the project, and what the project says."""
    with building():
        project = said.project()
        check_served(project)
        found = [
            replace(target, over=shards.over(target.over)) for target in project.targets(targets)
        ]
    pipelines = [_check(target) for target in found]
    well = [pipeline for pipeline in pipelines if pipeline is not None]
    if len(well) < len(found):
        return Exit.MISTAKE
    if not targets:
        with building():
            check_together(project, well)
    return Exit.DONE


def _check(target: Target) -> Pipeline | None:
    """Check the pipeline that a target names.

    :return: it; None: there is a mistake in it
    """
    recorder = _WarningRecorder()
    library = logging.getLogger("run_task")
    library.addHandler(recorder)
    try:
        pipeline, mistakes = _mistakes(target)
    finally:
        library.removeHandler(recorder)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for warning in dict.fromkeys(recorder.messages):
        console.print(f"warning: {warning}", markup=False)
    if not mistakes:
        return pipeline
    _tell(mistakes, console)
    return None


def _mistakes(parsed: Target) -> tuple[Pipeline | None, Sequence[BaseException]]:
    """Draw the pipeline that a target names, and find what is wrong with it."""
    with building():
        module, mistakes = load(parsed)
    pipeline: Pipeline | None = None
    try:
        pipeline = parsed.pipeline_of(module)
    except (Exception, SystemExit) as error:  # of its factory, too
        if not mistakes:  # or else it may be missing for that reason
            mistakes.append(error)
    if pipeline is not None:
        if not mistakes:  # a stage that an earlier mistake has prevented would be missed here
            mistakes += parsed.over.mistakes(pipeline)
            for source, _ in pipeline.sources:
                if (warning := warning_of(source)) is not None:
                    _log.warning("%s", warning)
        with building():  # the data may be of a class of the user's
            for stage in pipeline.stages:
                mistakes += misfits(stage)
            tree = drawn(pipeline, parsed.over)
        Console(highlight=False).print(tree)
    return pipeline, mistakes


def drawn(pipeline: Pipeline, over: ShardChoice = ALONE) -> Tree:
    """A pipeline as a tree.

    :param over: over how many shards it is run
    """
    sharded = () if over.count is None else (str(over),)
    tree = Tree(_line("pipeline ", pipeline.name, _listed([*sharded, *pipeline.settings])))
    sources = zip(pipeline.source_titles, pipeline.sources, pipeline.source_settings, strict=True)
    for key, (title, source, settings) in {
        id(source): (title, source, settings) for title, (source, _), settings in sources
    }.items():
        about = named(source)
        told = [] if title == about else [about]
        branch = tree.add(_line("source ", title, _listed([*told, *settings])))
        entered = [into for other, into in pipeline.sources if id(other) == key]
        for stage in pipeline.stages:
            if any(data is into for data in stage.inputs for into in entered):
                branch.add(_line("feeds ", stage.name))
        for into in entered:
            if not any(data is into for stage in pipeline.stages for data in stage.inputs):
                branch.add(Text("feeds no stage", BAD))
    for stage in pipeline.stages:
        _draw_stage(tree, pipeline, stage)
    return tree


def _draw_stage(tree: Tree, pipeline: Pipeline, stage: AnyStage) -> None:
    config = stage.config
    about = [f"every {in_short(stage.interval)}"]
    if config.window is not None:
        about.append(f"over {in_short(config.window)}")
    if config.grace is not None:
        about.append(f"after {in_short(config.grace)} of grace")
    if stage.keys is not None:
        about.append(f"by {shown(stage.keys.by)}")
    executor = config.executor
    about.append(shown(executor) if isinstance(executor, str) else named(executor))
    branch = tree.add(_line("stage ", stage.name, f", {', '.join(about)}"))
    branch.add(Text(shown(f"reads {data_named(stage)}")))
    for task in stage.tasks:
        branch.add(_line("task ", task.name, f": {signature(task, stage.data)}"))
    if any(feeds_itself(stage, data) for data in stage.inputs):
        branch.add("reads what it gave before")
    for other in pipeline.stages:
        if other is not stage and any(
            route.leads_to(data) for route in stage.routes for data in other.inputs
        ):
            branch.add(_line("feeds ", other.name))
    for sink in stage.sinks:
        branch.add(_line("sink ", named(sink), _listed(pipeline.sink_settings(sink))))


def _listed(settings: Sequence[str]) -> str:
    return "".join(f", {shown(one)}" for one in settings)


def _line(kind: str, name: str, about: str = "") -> Text:
    return Text.assemble(kind, (shown(name), HEAD), about)


def _tell(mistakes: Sequence[BaseException], console: Console) -> None:
    console.print(f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}", style=BAD)
    for number, mistake in enumerate(mistakes, 1):
        console.print(f"\n{number}. {error_text(mistake)}", markup=False)
    sys.stderr.flush()
