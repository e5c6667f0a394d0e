"""Changes of a pipeline, before it runs and while it does."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from run_task.errors import ConfigError, RunTaskError
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.pipeline._graph import Graph
from run_task.pipeline._result_rows import RowIngest
from run_task.pipeline._route import Route
from run_task.pipeline._stage import AnyStage
from run_task.pipeline.live._run import LiveRun
from run_task.runner._changes import Change, Changes
from run_task.runner._checks import with_task, without_task
from run_task.sync._fork import forget_after_fork
from run_task.sync._lifecycle import Phase
from run_task.tasks._task import Runnable

_log = Log(__name__)


class Changing:
    """What the stages of a pipeline ask when something about them changes: one change at a time.

    :param name: the pipeline's name
    :param graph: its stages
    """

    def __init__(self, name: str, graph: Graph) -> None:
        self._name = name
        self._graph = graph
        self._changes = Changes(name, _log)
        self.run: LiveRun | None = None
        """The live run, from its beginning on."""
        self.after_fork()
        forget_after_fork(self)

    def after_fork(self) -> None:
        """A forked child has none of the threads that may be changing something."""
        self.lock = threading.RLock()

    @property
    def is_running(self) -> bool:
        """Whether it runs live."""
        return self.run is not None and self.run.lifecycle.phase < Phase.ENDED

    @property
    def latest(self) -> Sequence[Change]:
        """What was changed while it ran."""
        return self._changes.latest

    def refuse(self, what: str) -> None:
        """Refuse what would take no effect any more.

        :param what: what was about to be changed
        :raises RunTaskError: while it runs
        """
        if self.is_running:
            raise RunTaskError(
                f"pipeline {self._name!r} runs, and {what} cannot be changed meanwhile: declare "
                f"everything before it is run, or shut it down and make a new one"
            )

    def connect(self, stage: AnyStage, route: Route) -> None:
        """Let the results of a stage take one more route.

        :raises ConfigError: if they would come back to the stage
        """
        self._graph.connect(stage, route)

    def pause(self, stage: AnyStage, *, paused: bool) -> None:
        """Let a stage run no windows, or run them again, from the next one on."""
        with self.lock:
            if stage.is_paused is paused:
                return
            stage.is_paused = paused
            if self.run is not None and self.is_running:
                self.run.pause(stage)
                self._note(f"stage {stage.name!r} is {'paused' if paused else 'resumed'}")

    def add_task(self, stage: AnyStage, task: Runnable[Any, Any]) -> None:
        """Let a stage run one more task, from the next window on.

        :raises ConfigError: if it cannot
        :raises RunTaskError: if the stage ends
        """
        with self.lock:
            try:
                tasks = with_task(stage.tasks, task, stage.config)
            except ConfigError as error:
                raise ConfigError(f"stage {stage.name!r}: {error}") from None
            self._change_tasks(stage, tasks, f"task {task.name!r} of stage {stage.name!r} is added")

    def remove_task(self, stage: AnyStage, name: str) -> None:
        """Let a stage run a task no more, from the next window on.

        :raises ConfigError: if it cannot do without
        :raises RunTaskError: if the stage ends
        """
        with self.lock:
            try:
                tasks = without_task(stage.tasks, name)
            except ConfigError as error:
                raise ConfigError(f"stage {stage.name!r}: {error}") from None
            for route in stage.routes:
                if isinstance(route.ingest, RowIngest) and name in route.ingest.columns:
                    raise ConfigError(
                        f"stage {stage.name!r}: remove({name!r}): {brief(route.into)}, which its "
                        f"results enter, has a column of this task, and no row without it: leave "
                        f"it, or remove the stage and add one without"
                    )
            self._change_tasks(stage, tasks, f"task {name!r} of stage {stage.name!r} is removed")

    def _change_tasks(
        self, stage: AnyStage, tasks: Sequence[Runnable[Any, Any]], what: str
    ) -> None:
        if self.run is not None and self.is_running:
            self.run.change_tasks(stage, tasks)
            self._note(what)
        stage.tasks = tasks

    def _note(self, what: str) -> None:
        assert self.run is not None
        self._changes.note(self.run.clock, what)
