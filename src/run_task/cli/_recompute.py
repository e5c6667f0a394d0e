"""``run-task recompute``: windows of a stage again, in the place of those that its sinks hold."""

from __future__ import annotations

from contextlib import ExitStack

import typer

from run_task.cli._exits import Exit, building, running
from run_task.cli._project import GivenOptions
from run_task.cli._replay import clock_of, instant_of
from run_task.cli._target import files_closed
from run_task.errors import escaped
from run_task.observe._format import shown
from run_task.pipeline.replay._progress_bar import no_progress


def recompute_target(
    target: str,
    stage: str,
    start: str | None,
    end: str | None,
    quiet: bool,
    said: GivenOptions,
    zone: str = "UTC",
) -> Exit:
    """Compute windows again of a stage of the pipeline that a target names."""
    clock = clock_of(zone)
    first, last = instant_of(start, "--start", clock), instant_of(end, "--end", clock)
    with building():
        pipeline = said.project("warning").target(target).load()
    with running(), ExitStack() as opened:
        if quiet:
            opened.enter_context(no_progress())
        opened.enter_context(files_closed(pipeline))
        done = pipeline.recompute(stage, first, last)
        if not quiet:
            windows = f"{done.windows:,} window{'' if done.windows == 1 else 's'}"
            typer.echo(
                f"stage {shown(stage)}: {windows} computed again in {done.seconds:.2f} s, "
                f"{done.removed:,} that there are no more taken out"
            )
            for sink, rows in done.replaced.items():
                typer.echo(
                    escaped(f"{sink}: in the place of {rows:,} row{'' if rows == 1 else 's'}")
                )
            if done.refused:
                typer.echo(f"{done.refused:,} results were refused by a sink: see the log")
    return Exit.DONE
