"""Changes of a pipeline, before it runs and while it does."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from run_task.cluster._cluster import Cluster
from run_task.errors import ConfigError, RunTaskError
from run_task.observe._format import brief
from run_task.observe._log import Log
from run_task.pipeline._graph import Graph, configs
from run_task.pipeline._refusals import Refusals
from run_task.pipeline._result_faults import ResultFaults
from run_task.pipeline._result_rows import RowIngest
from run_task.pipeline._route import Route
from run_task.pipeline._sharded_sinks import check_sharded
from run_task.pipeline._sharding import check_reader, check_target, has_places, over_shards
from run_task.pipeline._sink_policy import SinkOptions, SinkPolicy
from run_task.pipeline._sink_start import declare
from run_task.pipeline._stage import AnyStage
from run_task.pipeline.live._run import LiveRun
from run_task.runner._changes import Change, Changes
from run_task.runner._checks import check_declared, check_inputs
from run_task.runner._config import RunnerConfig
from run_task.runner._task_set import TaskSet
from run_task.sinks._protocol import Sink, TypedSink
from run_task.sync._fork import forget_after_fork
from run_task.sync._lifecycle import Phase
from run_task.tasks._task import Runnable

_log = Log(__name__)


class StageChanges:
    """What the stages of a pipeline ask when something about them changes: one change at a time.

    :param name: the pipeline's name
    :param graph: its stages
    """

    def __init__(self, name: str, graph: Graph) -> None:
        self._name = name
        self._graph = graph
        self._changes = Changes(name, _log)
        self._policies: dict[int, tuple[Sink, SinkPolicy]] = {}  # by the id of the sink
        self.refusals = Refusals()
        """Counts the results that sinks and data do not get, live and in replays."""
        self.run: LiveRun | None = None
        """The live run, from its beginning on."""
        self.cluster: Cluster | None = None
        """The shards over which it runs live; None: it runs in this process."""
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

    def add(self, stage: AnyStage) -> None:
        """Add a stage: while it runs, it begins with its next window.

        :raises RunTaskError: if the pipeline ends
        """
        self._graph.add(stage)
        try:
            stage.limit_keys()
            if self.run is None or not self.is_running:
                return
            for data in stage.inputs:
                if has_places(data):
                    check_reader(stage, data)
            self.run.add_stage(stage, self._configs()[stage])
        except BaseException:
            stage.lift_key_limit()
            self._graph.remove(stage)
            raise
        self.note(f"stage {stage.name!r} is added")

    def remove(self, stage: AnyStage) -> None:
        """Remove a stage: while it runs, it runs what is due, and ends.

        :raises RunTaskError: if the pipeline ends
        """
        if self.run is not None and self.is_running:
            self.run.remove_stage(stage)
            self.note(f"stage {stage.name!r} is removed")
        self._graph.remove(stage)
        stage.lift_key_limit()

    def connect(self, stage: AnyStage, route: Route, on_bad_result: Any, dead_letters: Any) -> None:
        """Let the results of a stage take one more route, from its next window on.

        :param on_bad_result: what to do with one that cannot enter
        :param dead_letters: where such go
        :raises ConfigError: if they would come back to the stage, or come after a window of a stage
            that runs, or the options cannot work
        :raises RunTaskError: if the pipeline ends, or the stage was removed
        """
        faults = ResultFaults.checked(
            *(self._name, stage.name, route.into, on_bad_result, dead_letters, self.refusals)
        )
        route = replace(route, faults=faults)
        with self.lock:
            self._check_there(stage)
            self._check_not_paused(stage, route)
            check_target(route)
            self._graph.connect(stage, route)
            before, stage.routes = stage.routes, (*stage.routes, route)
            if self.run is None or not self.is_running:
                return
            try:
                self._check_graces(stage)
                self.run.connect()
            except BaseException:
                stage.routes = before
                self._graph.disconnect(stage, route)
                raise
            self.note(f"results of stage {stage.name!r} enter {brief(route.into)}")

    def write_to(
        self, stage: AnyStage, sink: Sink, options: SinkOptions, *, sharded: bool = False
    ) -> None:
        """Let the results of a stage go to one more sink, from its next window on.

        :param sharded: whether shards write to it by themselves
        :raises ConfigError: if the sink takes those of one stage alone, and has one, or its options
            cannot work, or others were said of it before, or shards cannot write to it and are to
        :raises RunTaskError: if the pipeline ends, or the stage was removed
        """
        with self.lock:
            self._check_there(stage)
            self._check_alone(stage, sink)
            if sharded:
                self._check_sharded(stage, sink)
            self.say_of_sink(f"stage {stage.name!r}", sink, options)
            before = stage.sinks, stage.sharded_sinks
            stage.sinks = (*stage.sinks, sink)
            if sharded:
                stage.sharded_sinks = (*stage.sharded_sinks, sink)
            if self.run is None or not self.is_running:
                return
            try:
                self.run.write_to(stage, stage.sinks)
            except BaseException:
                stage.sinks, stage.sharded_sinks = before
                raise
            self.note(f"results of stage {stage.name!r} go to {brief(sink)}")

    def _check_sharded(self, stage: AnyStage, sink: Sink) -> None:
        """See whether shards can write to a sink."""
        check_sharded(self._name, stage, sink, stage.tasks)
        if self.cluster is not None and self.run is not None and self.is_running:
            raise ConfigError(
                f"stage {stage.name!r}: sink={brief(sink)}: sharded=True: its shards are at work, "
                f"and were told before which sinks they write to: say it before the pipeline runs, "
                f"or leave sharded=True out"
            )

    def _check_alone(self, stage: AnyStage, sink: Sink) -> None:
        """See whether a sink that takes the results of one stage alone has no other one."""
        if not (isinstance(sink, TypedSink) and sink.is_of_one_stage):
            return
        for other in self._graph.stages:
            if other is not stage and any(one is sink for one in other.sinks):
                raise ConfigError(
                    f"stage {stage.name!r}: {brief(sink)} is a table of the results of one stage, "
                    f"and stage {other.name!r} writes to it: give {stage.name!r} one of its own"
                )

    def say_of_sink(self, where: str, sink: Sink, options: SinkOptions) -> None:
        """Take note of what is said of a sink. Under the lock.

        :param where: who says so, for messages
        :raises ConfigError: if it cannot work, or is not what was said before
        """
        before = self._policies.get(id(sink))
        policy = SinkPolicy.checked(
            where, self._name, sink, options, None if before is None else before[1]
        )
        if self.run is not None and before is not None and policy != before[1]:
            raise ConfigError(
                f"{where}: sink={brief(sink)}: it is at work, and goes on as it was declared: say "
                f"before the pipeline runs what becomes of its results"
            )
        self._policies[id(sink)] = sink, policy

    def policy_of(self, sink: Sink) -> SinkPolicy:
        """What was said of a sink."""
        return self._policies[id(sink)][1]

    def _check_there(self, stage: AnyStage) -> None:
        if self._graph.find(stage.name) is not stage:
            raise RunTaskError(
                f"stage {stage.name!r} was removed from pipeline {self._name!r}: add another one"
            )

    def _check_not_paused(self, stage: AnyStage, route: Route) -> None:
        """See whether no task is paused of which a series has a column."""
        if isinstance(route.ingest, RowIngest):
            for name in sorted(stage.paused_tasks.intersection(route.ingest.tasks)):
                raise ConfigError(
                    f"stage {stage.name!r}: {brief(route.into)} has a column of task {name!r}, "
                    f"which is paused, and no row without it: resume(task={name!r}) first"
                )

    def _configs(self) -> Mapping[AnyStage, RunnerConfig]:
        return self.spread(configs(self._graph.upstreams()))

    def spread(self, given: Mapping[AnyStage, RunnerConfig]) -> Mapping[AnyStage, RunnerConfig]:
        """How stages behave: those by key over the shards, if there are any."""
        return given if self.cluster is None else over_shards(self.cluster, given, self._has_all)

    def _has_all(self, sink: Sink, stage: str, given_up: threading.Event) -> bool:
        """Wait until a sink has all that its thread was given of a stage. Returns whether it has.

        :param given_up: set: nobody waits any more
        """
        return self.run is not None and self.run.has_all(sink, stage, given_up)

    def _check_graces(self, stage: AnyStage) -> None:
        """See whether those who are fed wait for results as long as these take."""
        assert self.run is not None
        now = self._configs()
        for other, config in self.run.configs().items():
            if other in now and now[other].grace_ns > config.grace_ns:
                raise ConfigError(
                    f"results of stage {stage.name!r} come {now[other].grace_ns / 1e9:g} s after "
                    f"the end of their windows, and stage {other.name!r}, which runs, waits for "
                    f"{config.grace_ns / 1e9:g} s: remove that, and add it again"
                )

    def pause(self, stage: AnyStage, *, paused: bool) -> None:
        """Let a stage run no windows, or run them again, from the next one on."""
        with self.lock:
            self._check_there(stage)
            if stage.is_paused is paused:
                return
            stage.is_paused = paused
            if self.run is not None and self.is_running:
                self.run.pause(stage)
                self.note(f"stage {stage.name!r} is {'paused' if paused else 'resumed'}")

    def pause_task(self, stage: AnyStage, name: str, *, paused: bool) -> None:
        """Let the windows of a stage do without a task, or run it again, from the next one on.

        :raises ConfigError: if they cannot do without it, or there is none
        :raises RunTaskError: if the stage ends
        """
        with self.lock:
            self._check_there(stage)
            before = stage.task_set
            if paused and name not in before.paused and (why := stage.cannot_pause(name)):
                raise ConfigError(f"stage {stage.name!r}: pause(task={name!r}): {why}")
            try:
                after = before.with_paused(name) if paused else before.with_resumed(name)
            except ConfigError as error:
                raise ConfigError(f"stage {stage.name!r}: {error}") from None
            if after is not before:
                is_now = "paused" if paused else "resumed"
                self._change_tasks(
                    stage, after, f"task {name!r} of stage {stage.name!r} is {is_now}"
                )

    def add_task(self, stage: AnyStage, task: Runnable[Any, Any]) -> None:
        """Let a stage run one more task, from the next window on.

        :raises ConfigError: if it cannot
        :raises RunTaskError: if the stage ends
        """
        with self.lock:
            self._check_there(stage)
            try:
                tasks = stage.task_set.added(task, stage.config)
                check_declared([task], stage.data, stage.interval, stage.config)
                check_inputs([task], stage.data, None if stage.keys is None else stage.keys.by)
            except ConfigError as error:
                raise ConfigError(f"stage {stage.name!r}: {error}") from None
            for sink in stage.sharded_sinks:
                check_sharded(self._name, stage, sink, tasks.tasks)
            if self.run is not None and self.is_running:
                declare(self._name, stage, tasks.tasks)
            self._change_tasks(stage, tasks, f"task {task.name!r} of stage {stage.name!r} is added")

    def remove_task(self, stage: AnyStage, name: str) -> None:
        """Let a stage run a task no more, from the next window on.

        :raises ConfigError: if it cannot do without
        :raises RunTaskError: if the stage ends
        """
        with self.lock:
            self._check_there(stage)
            try:
                tasks = stage.task_set.removed(name)
            except ConfigError as error:
                raise ConfigError(f"stage {stage.name!r}: {error}") from None
            if (series := stage.series_of(name)) is not None:
                raise ConfigError(
                    f"stage {stage.name!r}: remove({name!r}): {brief(series)}, which its results "
                    f"enter, has a column of this task, and no row without it: leave it, or remove "
                    f"the stage and add one without"
                )
            self._change_tasks(stage, tasks, f"task {name!r} of stage {stage.name!r} is removed")

    def _change_tasks(self, stage: AnyStage, tasks: TaskSet, what: str) -> None:
        if self.run is not None and self.is_running:
            self.run.change_tasks(stage, tasks)
            self.note(what)
        stage.tasks, stage.paused_tasks = tasks.tasks, tasks.paused

    def note(self, what: str) -> None:
        """Note a change that has just been made while it runs."""
        assert self.run is not None
        self._changes.note(self.run.clock, what)
