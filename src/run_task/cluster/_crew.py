"""What runs a stage by key in shards: to its runner a crew as any other."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from run_task.cluster._bytes import Packing, of_bytes
from run_task.cluster._cluster import Cluster
from run_task.cluster._feed import Feed
from run_task.cluster._few_keys import FewKeys
from run_task.cluster._merging import ShardMerging, ShardPart
from run_task.cluster._messages import (
    Input,
    RowsRead,
    ShardFailed,
    ShardReply,
    ShardResults,
    StageSetup,
)
from run_task.cluster._partitions import PartitionKeys
from run_task.cluster._windows import NoAnswer, StageOnShards, WindowRun
from run_task.cluster._writing import ShardedWriting, StageSinks
from run_task.data import TimeSeries
from run_task.data._buckets import bucket_of, part_of
from run_task.data._several import members_of
from run_task.data.series._keyed_view import KeyedView
from run_task.data.series._view import TimeSeriesView
from run_task.errors import ConfigError, RunTaskError, described
from run_task.executors import Executor
from run_task.executors._states import States, Stepper, declared
from run_task.observe._format import brief
from run_task.runner._config import ExecutorName, RunnerConfig
from run_task.runner._keys import Keys
from run_task.tasks._dataset import Roster
from run_task.tasks._keyed import KeyedDataSet
from run_task.tasks._state_bytes import to_send
from run_task.tasks._task import Runnable
from run_task.tasks._tick import Tick
from run_task.time._calendar import Interval


class ShardsCrew:
    """Has the tasks of each tick run in shards, each for its keys.

    :param cluster: the shards
    :param executor: what runs tasks there
    :param sinks: those of the stage that shards write to
    :param tasks: the tasks, as a runner runs them
    :param data: what they read
    :param interval: how often
    :param config: how the runner behaves
    :param keys: by which keys
    :param states: the states of the tasks
    :raises ConfigError: if something cannot be sent to shards; the message names it
    """

    def __init__(
        self,
        cluster: Cluster,
        executor: Executor | ExecutorName,
        sinks: Sequence[ShardedWriting],
        tasks: Sequence[Runnable[Any, Any]],
        data: Any,
        interval: Interval,
        config: RunnerConfig,
        keys: Keys,
        states: States,
    ) -> None:
        self._cluster = cluster
        self._few_keys: FewKeys = cluster.few_keys(config.name)
        self._roster = Roster(task.name for task in tasks)
        self._steppers = {i: task for i, task in enumerate(tasks) if isinstance(task, Stepper)}
        self._states = states
        self._bound_s = config.upstream_timeout
        self._name = config.name
        self._tasks = [check_task(cluster.packing, config.name, declared(task)) for task in tasks]
        own_tasks = [declared(task) for task in tasks]
        self._sinks = StageSinks(config.name, cluster.packing, sinks, own_tasks)
        own = replace(config, executor=executor, workers=config.workers or 1)
        try:
            self._rest = cluster.packing.as_bytes((interval, own, keys))
        except Exception as error:
            raise ConfigError(
                f"stage {config.name!r}: executor={brief(executor)} cannot be sent to a shard "
                f"({described(error)}): take 'threads', or make it one that can be pickled"
            ) from error
        members = members_of(data)
        self._members: Sequence[Any] = (data,) if members is None else members
        self._keyed = set(map(id, keys.keyed(data)))
        self._shard_of = self._shard_by_bucket
        self._unplaced: PartitionKeys | None = None  # where the first window waits for its keys
        for member in self._members:
            if (of_partitions := cluster.keys_of(member)) is not None:
                self._shard_of = of_partitions.shard_of
                self._unplaced = of_partitions
        self._feeds: dict[int, Feed] = {}  # by place among the members
        self._stage: StageOnShards | None = None
        self._given_up = threading.Event()
        self._is_running = False
        self._keys_of: dict[int, Sequence[Any]] = {}  # of the last reply, by shard
        self._merging = ShardMerging(self._roster.names, self._steppers)

    def open(self) -> None:
        """It is ready in shards by now, or is made so."""
        if self._stage is None:
            self.prepare()

    def prepare(self) -> None:
        """Let shards have its data from now on, and make it ready there.

        :raises RunTaskError: if a shard cannot
        """
        cluster = self._cluster
        for place, member in enumerate(self._members):
            if isinstance(member, TimeSeries):
                self._feeds[place] = cluster.feed(member, by_key=id(member) in self._keyed)
        self._stage = cluster.stage(self._setup, self._begin)
        replies = cluster.set_up(self._stage, list(self._feeds.values()), self._given_up)
        for shard, reply in replies.items():
            if isinstance(reply, ShardFailed):
                raise self._failure(shard, reply)

    def _setup(self, number: int) -> StageSetup:
        inputs: list[Input] = [
            ("feed", self._feeds[place].number) if place in self._feeds else ("value", place)
            for place in range(len(self._members))
        ]
        named = number, self._name, self._cluster.packing.names
        return StageSetup(*named, self._tasks, inputs, self._rest, self._sinks.setups)

    def _begin(self, shard: int) -> bytes:
        """What a shard begins with: the states of its keys, and which of them are known."""
        self._keys_of.pop(shard, None)

        def own(of: Mapping[Any, Any]) -> dict[Any, Any]:
            return {key: value for key, value in of.items() if self._shard_of(key) == shard}

        known = own(self._states.known())
        try:
            states = {
                task.name: {key: to_send(state) for key, state in own(task.states).items()}
                for task in self._steppers.values()
            }
            return self._cluster.packing.as_bytes((states, known))
        except Exception as error:
            raise self._unsendable_state(error) from error

    def _unsendable_state(self, error: Exception) -> RunTaskError:
        """Which of the states cannot be sent to a shard."""
        for task in self._steppers.values():
            for key, state in task.states.items():
                try:
                    self._cluster.packing.as_bytes(to_send(state))
                except Exception as why:
                    return RunTaskError(
                        f"stage {self._name!r}, task {task.name!r}: its state for {brief(key)}, a "
                        f"{type(state).__qualname__}, cannot be sent to a shard "
                        f"({described(why)}): let states hold only what can be pickled, or give "
                        f"their type to_bytes() and the classmethod from_bytes()"
                    )
        return RunTaskError(
            f"stage {self._name!r}: its states cannot be sent to a shard ({described(error)})"
        )

    def run(self, tick: Tick) -> KeyedDataSet[Any, Any]:
        """Have all shards run the tick, and put together what they give."""
        begun = time.perf_counter()
        keyed = tick.view
        assert isinstance(keyed, KeyedView)
        assert self._stage is not None
        self._few_keys.note(keyed)
        if self._unplaced is not None:
            had = [self._states.known(), *(task.states for task in self._steppers.values())]
            self._unplaced.wait_for(set(chain.from_iterable(had)), self._given_up)
            self._unplaced = None
        views: dict[int, TimeSeriesView] = {}
        values: dict[int, bytes] = {}
        for place, view in enumerate(keyed.inputs):
            feed = self._feeds.get(place)
            if feed is None:
                values[place] = value_as_bytes(
                    *(self._cluster.packing, self._name, self._members[place], view)
                )
            else:
                views[feed.number] = view
        self._is_running = True
        try:
            sinks = self._sinks.that_take(self._given_up)
            told = self._sinks.told(sinks)
            run = WindowRun(self._stage, (tick.start, tick.end), views, values, sinks, told)
            answers = self._cluster.run(run, self._bound_s, self._given_up)
        finally:
            self._is_running = False
        parts: list[ShardPart] = []
        of_shard: list[int] = []  # whose each part is
        unwritten: list[Collection[int]] = []  # of each part, by whom its results are not there
        behind: list[str] = []
        for shard, answer in enumerate(answers):
            for before in answer.caught_up:
                self._catch_up(shard, before)
            match answer.reply:
                case NoAnswer(reason=None):
                    behind.append(self._cluster.called(shard))
                case NoAnswer():
                    own = self._own_keys(keyed.keys, shard)
                    parts.append(ShardPart(own, None, answer.reply.reason))
                    of_shard.append(shard)
                    unwritten.append(sinks)
                case reply:
                    if (results := self._results(shard, reply)) is not None:
                        parts.append(ShardPart(self._keys_of[shard], results))
                        of_shard.append(shard)
                        unwritten.append(results.unwritten)
                        self._sinks.note(self._cluster.called(shard), results.unwritten)
        merged = self._merging.merge(tick.window, lambda: keyed.keys, parts, whole=not behind)
        for part in merged.unloaded:  # the states are what they were, there as here
            self._cluster.renew(self._stage, of_shard[part])
        took = time.perf_counter() - begun
        noted = merged.keys, merged.flat, merged.seconds, took, merged.errors or None
        late = tuple(dict.fromkeys((*tick.behind, *behind)))  # results that it reads may lack both
        dataset = KeyedDataSet.of(tick.due, late, self._roster, keyed.by, *noted)
        if sinks:
            written = [(part.keys, without) for part, without in zip(parts, unwritten, strict=True)]
            dataset.note_apart(self._sinks.apart(tick.end, sinks, written))
        return dataset

    def _results(self, shard: int, reply: ShardReply) -> ShardResults | None:
        """What a shard gave.

        :raises RunTaskError: if it failed
        """
        if isinstance(reply, ShardFailed):
            raise self._failure(shard, reply)
        assert not isinstance(reply, RowsRead)  # it was asked for a window
        if reply is not None and reply.keys is not None:
            self._keys_of[shard] = reply.keys
        return reply

    def _catch_up(self, shard: int, reply: ShardReply) -> None:
        """Take over the states of a window that a shard had missed."""
        results = self._results(shard, reply)
        if results is None or not self._steppers:
            return
        keys = self._keys_of[shard]
        known = self._states.known()
        steps = ShardMerging(self._roster.names, self._steppers).steps(ShardPart(keys, results))
        for task, place, step in steps:
            if keys[place] in known:  # or else it was forgotten in a window after that
                self._steppers[task].states[keys[place]] = step.state

    def _own_keys(self, keys: Sequence[Any], shard: int) -> Sequence[Any]:
        return [key for key in keys if self._shard_of(key) == shard]

    def _shard_by_bucket(self, key: Any) -> int:
        return part_of(bucket_of(key), self._cluster.count)

    def _failure(self, shard: int, failed: ShardFailed) -> Exception:
        cause, note = of_bytes(failed.error)
        error = RunTaskError(
            f"stage {self._name!r}: {self._cluster.called(shard)} failed: {described(cause)}"
        )
        error.__cause__ = cause
        error.add_note(note)
        return error

    def running(self) -> Sequence[str]:
        """The names of its tasks, while shards run them."""
        return self._roster.names if self._is_running else ()

    def abandon(self) -> None:
        """Wait for no shard any more."""
        self._given_up.set()

    def close(self, timeout: float) -> None:
        """Shards need not run it any more."""
        stage, self._stage = self._stage, None
        if stage is not None:
            self._few_keys.tell()
            self._cluster.leave(stage, list(self._feeds.values()))


def check_task(packing: Packing, stage: str, task: Runnable[Any, Any]) -> bytes:
    """A task as it is sent to shards.

    :param packing: how it is pickled
    :param stage: the stage, for messages
    :raises ConfigError: if it cannot be sent
    """
    try:
        return packing.sent_whole(task)
    except Exception as error:
        raise ConfigError(
            f"stage {stage!r}: task {task.name!r} cannot be sent to a shard ({described(error)}): "
            f"let it hold only what can be pickled, and make what belongs to a process, such as a "
            f"lock or a connection, where it is used"
        ) from error


def value_as_bytes(packing: Packing, stage: str, data: object, value: Any) -> bytes:
    """What shared data holds that is no series, as it is sent to shards.

    :param packing: how it is pickled
    :param stage: the stage, for messages
    :param data: the data, for messages
    :raises ConfigError: if it cannot be sent
    """
    try:
        return packing.as_bytes(value)
    except Exception as error:
        raise ConfigError(
            f"stage {stage!r}: what {brief(data)} holds cannot be sent to a shard "
            f"({described(error)}): keep in it only what can be pickled"
        ) from error
