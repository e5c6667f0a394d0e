"""``run-task run``: a pipeline, live, and what is seen of it."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import typer

from run_task.cli._exits import Exit, building, running
from run_task.cli._interrupt import ctrl_c
from run_task.cli._project import GivenOptions, Project
from run_task.cli._shards import ALONE, NOTHING_SAID, ShardChoice, ShardOptions
from run_task.cli._standard_output import Encode, Results, as_json, as_text, reserved_for_results
from run_task.errors import ConfigError
from run_task.time._interval import TaskInterval

if TYPE_CHECKING:
    from run_task.pipeline import Pipeline

    _Build: TypeAlias = Callable[[], tuple[Pipeline, ShardChoice]]


class Show(enum.Enum):
    """What is seen of a run."""

    VIEW = "a live view"
    LINES = "a line for each DataSet, for people"
    JSON = "a line for each DataSet, for programs"
    NOTHING = "nothing but the log"

    @classmethod
    def of(cls, quiet: bool, json: bool) -> Show:
        """What the options ask for, on the standard output that there is."""
        if quiet and json:
            raise typer.BadParameter("--quiet and --json contradict each other: leave one out")
        if json:
            return cls.JSON
        if quiet:
            return cls.NOTHING
        from rich.console import Console

        console = Console()
        return cls.VIEW if console.is_terminal and not console.is_dumb_terminal else cls.LINES


def run_target(
    target: str,
    for_: str | None,
    show: Show,
    said: GivenOptions,
    key: str | None = None,
    shards: ShardOptions = NOTHING_SAID,
) -> Exit:
    """Run the pipeline that a target names."""
    if key is not None and show in (Show.JSON, Show.NOTHING):
        raise typer.BadParameter(
            "--key is for the live view and for lines: --json has all keys, and --quiet shows none"
        )

    def build(project: Project) -> tuple[Pipeline, ShardChoice]:
        named = project.target(target)
        return named.load(), shards.over(named.over)

    return _run(build, for_, show, said, key)


def run_demo(for_: str | None, show: Show, said: GivenOptions) -> Exit:
    """Run the pipeline over this machine's metrics."""

    def build(_: Project) -> tuple[Pipeline, ShardChoice]:
        from run_task.cli._demo import pipeline

        return pipeline(), ALONE

    return _run(build, for_, show, said)


def _run(
    build_of: Callable[[Project], tuple[Pipeline, ShardChoice]],
    for_: str | None,
    show: Show,
    said: GivenOptions,
    key: str | None = None,
) -> Exit:
    limit = _interval(for_)
    with building():
        project = said.project("error" if show is Show.VIEW else "warning")

    build = partial(build_of, project)

    match show:
        case Show.VIEW:
            _in_view(build, limit, key)
        case Show.LINES:
            _in_lines(build, limit, partial(as_text, key=key))
        case Show.JSON:
            _in_lines(build, limit, as_json)
        case Show.NOTHING:
            with building():
                pipeline, shards = build()
            with _bounded(limit, pipeline.shutdown):
                shards.run(pipeline)
    return Exit.DONE


def _in_lines(build: _Build, limit: TaskInterval | None, encode: Encode) -> None:
    with reserved_for_results() as stream:
        with building():
            pipeline, shards = build()
        pipeline.sink(Results(stream, encode, pipeline))
        with _bounded(limit, pipeline.shutdown):
            shards.run(pipeline)


def _in_view(build: _Build, limit: TaskInterval | None, key: str | None) -> None:
    from run_task.cli._screen import Screen, State, on_screen
    from run_task.cli._terminal import Terminal

    with building():
        pipeline, shards = build()
    screen = Screen(pipeline, key)

    def shutdown() -> None:
        screen.state = State.ENDING
        pipeline.shutdown()

    with Terminal() as terminal, _bounded(limit, shutdown, terminal.leave), on_screen(screen):
        shards.run(pipeline)


@contextmanager
def _bounded(
    limit: TaskInterval | None,
    shutdown: Callable[[], None],
    leave: Callable[[], None] = lambda: None,
) -> Generator[None]:
    """Shut down on Ctrl-C, or when the time is over; and tell what went wrong.

    :param limit: how long it may run
    :param shutdown: shuts it down
    :param leave: called before a second Ctrl-C ends the process
    """
    with running(), ctrl_c(shutdown, leave):
        if limit is None:
            yield
            return
        timer = threading.Timer(min(limit.nanos / 1e9, threading.TIMEOUT_MAX), shutdown)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _interval(text: str | None) -> TaskInterval | None:
    if text is None:
        return None
    try:
        return TaskInterval.parse(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
